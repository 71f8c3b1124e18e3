/*
 * control_priv.h - what the files of this folder share; README.md tells which does what.
 *
 * Unless said otherwise: main loop only, never blocks.
 */
#ifndef CONTROL_PRIV_H
#define CONTROL_PRIV_H

#include <pthread.h>
#include <stdbool.h>

#include <nng/nng.h>

#include "agent/base/log.h"
#include "agent/base/mailbox.h"
#include "agent/control/audit.h"
#include "agent/control/control.h"
#include "agent/control/sp.h"
#include "agent/control/users.h"
#include "shm/tlv.h"

#define CONTROL_PATH_MAX 108u /* sockaddr_un's, with the NUL */
#define CONTROL_TICKET_BYTES 16u
#define CONTROL_ACCEPT_PAUSE_MS 100u /* after accept() failed, for want of descriptors mostly */
#define CONTROL_CLOSE_MS 3000u       /* that nng may take to give everything back */

struct request;
struct ticket;
struct ring;

/* ---- events.c: what the audit log is told --------------------------------------------------------------------- */

#define EVENT_ABOUT_BYTES 96u

/* What a request is about, as far as it could be read; texts of the peer, empty if there is none. */
struct event_object {
	char tenant[RSHM_TENANT_MAX + 1];
	char about[EVENT_ABOUT_BYTES];
};

/* The outcome of a request, if it is one to be told. `detail` may be NULL. */
void event_of_request(struct control *control, const struct control_peer *peer, uint16_t op,
		      const struct event_object *object, int status, const char *detail);
/* A connection that was not let in, or was closed by us. */
void event_of_connection(struct control *control, const struct control_peer *peer, const char *what, int status,
			 const char *detail);
/* Root, or the agent's own user. */
bool peer_is_operator(const struct control_peer *peer);

/* ---- connection.c: one peer of the control socket ------------------------------------------------------------ */

enum connection_phase { CONNECTION_HELLO, CONNECTION_RECEIVE, CONNECTION_ANSWER };

struct connection {
	struct mailbox_message
		message; /* first; posted when I/O has come to an end: a message, or the connection's */
	/* set once */
	struct control *control;
	nng_stream *stream;
	nng_aio *aio;
	struct control_peer peer;
	/* any thread, atomic: one for being open, one for each callback that has not returned */
	uint32_t references;
	/* main loop only */
	struct connection *next, *previous;
	struct user *user;
	struct request *request; /* being served */
	struct event_object object;
	bool in_nng; /* an nng thread has it; it comes back through the mailbox */
	/* under lock: nobody submits once it is closing */
	pthread_mutex_t lock;
	bool closing;
	/* whoever has it: an nng thread, or the main loop between a message and its answer */
	enum connection_phase phase;
	uint64_t deadline_ms; /* of the hello, the present message, or the answer; 0: the peer owes nothing */
	struct sp sp;
	unsigned char *input; /* CONNECTION_INPUT bytes */
	size_t input_at, input_length;
	unsigned char *body; /* grows with what has really come */
	size_t body_length, body_capacity;
	unsigned char head[SP_HEAD_BYTES + SP_TRACE_MAX];
	unsigned char *answer; /* owned */
	size_t head_length, answer_length, sent;
	bool ended;
	int end_status; /* why: RSHM_OK if the peer hung up */
};

/* Takes over `stream`, also on failure: RSHM_E_NOMEM, RSHM_E_SYSTEM. Nothing is sent before connection_start(). */
int connection_create(struct control *control, nng_stream *stream, struct connection **ret);
void connection_start(struct connection *connection);
/* Sends an answer, then waits for the next message. `bytes` is malloc()ed and now the connection's. Not while in_nng. */
void connection_answer(struct connection *connection, unsigned char *bytes, size_t length);
/* Makes a connection that is in_nng come back as ended. */
void connection_interrupt(struct connection *connection);
/* Not while in_nng. */
void connection_destroy(struct connection *connection);

/* ---- listener.c: the control socket -------------------------------------------------------------------------- */

struct listener {
	struct mailbox_message message; /* first; posted for each end of an accept */
	nng_stream_listener *nng;
	nng_aio *aio;
	bool accepting;          /* nng has the aio */
	uint64_t retry_at_ms;    /* 0, or when to accept again */
	struct connection *open; /* list */
	uint32_t open_count;
};

int listener_open(struct control *control, char *error, size_t error_len);
/* Begins to accept; the mailbox is there. */
void listener_begin(struct control *control);
/* Stops accepting and interrupts all; listener_is_quiet() tells when they have come back. */
void listener_close(struct control *control);
bool listener_is_quiet(const struct control *control);
/* Any one thread, after it is quiet; waits for nng's. */
void listener_free(struct listener *listener);
void listener_tick(struct control *control, uint64_t now_ms);
/* The connection is not in_nng and has no request: counts it out and destroys it. */
void listener_drop(struct control *control, struct connection *connection);

/* ---- dispatch.c, attach.c: requests -------------------------------------------------------------------------- */

/* One request that a hook may answer later than its deadline, or than its connection lives. */
struct request {
	struct request *next, *previous;
	struct control *control;       /* NULL: the control plane was closed */
	struct connection *connection; /* NULL: answered or gone, only the hook still has it */
	struct control_peer peer;
	uint64_t deadline_ms;
	uint32_t id;
	uint16_t op;
	struct event_object object;
	/* of an attach */
	bool clock_differs;
	void (*release)(void *context, void *binding);
	void *hooks_context;
};

/* The body of `connection` is a whole message: answers it now or later, or drops the connection. */
void dispatch_message(struct connection *connection);
void dispatch_tick(struct control *control, uint64_t now_ms);
/* Lets go of all requests; hooks may still answer them, without effect. */
void dispatch_abandon(struct control *control);

/* Counts a request that a hook is about to get. NULL: too many, or no memory; it was answered. */
struct request *request_begin(struct connection *connection, const struct rshm_control_header *header);
/* The hook has answered: the connection to answer on, or NULL if that is too late. `request` is freed. */
struct connection *request_end(struct request *request);
/* What changes the agent is for its own user and root. False: refused. `what`: "may …". */
bool admit_operator(struct connection *connection, const struct rshm_control_header *header, const char *what);
/* A control_text_fn: answers the request `context`. */
void request_on_text(void *context, int status, const char *json);
void answer_status(struct connection *connection, uint16_t op, uint32_t id, int status, const char *text);
/* Logs, tells the audit log, counts nothing, answers. */
__attribute__((format(printf, 4, 5))) void answer_refusal(struct connection *connection,
							  const struct rshm_control_header *header, int status,
							  const char *format, ...);
/* Sends what `writer` holds; its buffer was malloc()ed and is the connection's now. */
void answer_written(struct connection *connection, struct rshm_tlv_writer *writer);

/* tenants.c */
void tenant_begin(struct connection *connection, const struct rshm_control_header *header,
		  struct rshm_tlv_reader *reader);

void attach_begin(struct connection *connection, const struct rshm_control_header *header,
		  struct rshm_tlv_reader *reader);

/* ---- doorbell.c: tickets and the socket where they are shown -------------------------------------------------- */

struct doorbell {
	uv_poll_t poll;
	int fd;
	bool open;
	uint64_t retry_at_ms;
	struct ticket *tickets; /* list, at most options.clients */
	struct ring *rings;     /* list: connections that have not shown a ticket yet */
	uint32_t ring_count;
	uint32_t handles; /* uv handles whose closing has not been reported */
};

int doorbell_bind(struct control *control, char *error, size_t error_len);
void doorbell_unbind(struct control *control);
/* Begins to accept, on the loop. */
int doorbell_watch(struct control *control, char *error, size_t error_len);
/* Issues a ticket for a place that is counted already; it is given back when the ticket expires. */
int doorbell_issue(struct control *control, void *binding, uid_t uid, uint64_t channel_id,
		   unsigned char ret_ticket[CONTROL_TICKET_BYTES]);
void doorbell_tick(struct control *control, uint64_t now_ms);
/* Releases all tickets, drops all rings, removes the socket; doorbell_is_quiet() tells when libuv has let go. */
void doorbell_close(struct control *control);
bool doorbell_is_quiet(const struct control *control);

/* ---- control.c ---------------------------------------------------------------------------------------------- */

struct control {
	uint32_t magic;
	bool closing;
	uv_loop_t *loop;
	struct control_options options; /* its texts point into the arrays below */
	char control_path[CONTROL_PATH_MAX], doorbell_path[CONTROL_PATH_MAX];
	char *agent_object;
	struct control_hooks hooks;
	struct mailbox mailbox;
	uv_timer_t tick; /* runs only while something has a deadline */
	struct users users;
	uint32_t places; /* of all users */
	uint64_t next_channel_id;
	struct listener listener;
	struct doorbell doorbell;
	struct request *requests; /* list, those included that only a hook still has */
	uint32_t request_count;
	struct control_figures figures;
	/* the end */
	struct mailbox_message freed;
	bool freeing, forsaken;
	uint32_t end_handles;
	uint64_t close_deadline_ms;
	void (*closed)(void *context);
	void *closed_context;
};

/* Something with a deadline was begun. */
void control_need_tick(struct control *control);
/* Something ended that control_close() may be waiting for. */
void control_check_end(struct control *control);
/* A place is a channel to be: counted from the attach on. False: `user` or all users have reached their limit. */
bool control_take_place(struct control *control, struct user *user, const char **ret_text);
void control_give_place(struct control *control, uid_t uid);
/* Removes what a dead agent left at `path`, if it is a socket. */
int control_remove_stale(const char *path, char *error, size_t error_len);

#endif
