/*
 * control.h - the control plane: who may come in, and what operators ask.
 *
 * One instance per agent, on the main loop. NNG IPC peers speak SP REQ/REP to the control socket; attaching clients then
 * present a ticket at the doorbell socket and are handed over to the worker of their tenant. What the control plane cannot
 * know itself it asks through `struct control_hooks`, which agent.c wires.
 *
 * All functions and hooks: the thread of the main loop, never blocking. nng's own threads stay inside this folder.
 */
#ifndef RIPTIDE_CONTROL_H
#define RIPTIDE_CONTROL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "shm/msg.h"

struct audit;
struct control;

/* Who is at the other end, as the kernel says. */
struct control_peer {
	uid_t uid;
	gid_t gid;
	pid_t pid;
};

/* A client that asks to come in; all borrowed for the call. */
struct control_attach {
	struct control_peer peer;
	const char *tenant;  /* checked: [a-z0-9-]{1,64} */
	const char *program; /* printable, at most 47 characters */
	const void *token;
	size_t token_len;
	int clock_differs; /* the client's monotonic clock is not ours: no hot reads for it */
};

/* What an accepted client is told. Texts are copied at once. */
struct control_attached {
	int status;                 /* RSHM_OK or a negative enum rshm_status */
	const char *error_text;     /* with a remedy; on success NULL, or why there are no hot reads */
	const char *segment_object; /* NULL: no hot reads */
	uint64_t segment_size;
	uint64_t entry_limit; /* of key + metadata + value, bytes */
	void *binding;        /* the hooks' own: comes back with connect() or release() exactly once */
};

/* An operator's wish about a tenant's dictionaries; all borrowed for the call. */
struct control_dictionary {
	uint16_t op; /* RSHM_CONTROL_DICT_… */
	const char *tenant;
	const char *content_type; /* NULL: not said */
	uint32_t id;              /* of _SHOW and _DROP */
};

/* A wish about the tenants of the backend; all borrowed for the call. */
struct control_tenant {
	uint16_t op; /* RSHM_CONTROL_TENANT_… */
	struct control_peer peer;
	const char *tenant; /* "" where the operation needs none; not checked */
	const char *json;   /* NULL: none */
	size_t json_len;
};

typedef void control_attached_fn(void *context, const struct control_attached *attached);
typedef void control_text_fn(void *context, int status, const char *json);

/*
 * What a hook is asked it answers exactly once, also after its deadline or after control_close(): the answer then goes
 * nowhere, and what it granted comes back through release().
 */
struct control_hooks {
	void *context;
	/* May this peer use this tenant? Answers through `done`, at once or later (bounded by the request's deadline). */
	void (*attach)(void *context, const struct control_attach *attach, control_attached_fn *done,
		       void *done_context);
	/*
	 * The client presented its ticket: `fd` (non-blocking, close-on-exec) is the doorbell connection and the hook's from now
	 * on; it creates the channel, sends the memfd, and keeps the socket for bells and end of file.
	 */
	void (*connect)(void *context, void *binding, const struct control_peer *peer, int fd, uint64_t channel_id);
	/* The ticket was never used. */
	void (*release)(void *context, void *binding);
	/*
	 * JSON documents: RSHM_CONTROL_STATUS, _STATS, _CLIENTS, from anybody, who is told only of what is his; _METRICS,
	 * _EVICTIONS_RESET, from operators. At once or later.
	 */
	void (*report)(void *context, uint16_t op, const struct control_peer *peer, control_text_fn *done,
		       void *done_context);
	/* RSHM_CONTROL_RELOAD, from the agent's own user or root only. Answers JSON with what changed, or an error text. */
	void (*reload)(void *context, control_text_fn *done, void *done_context);
	/* RSHM_CONTROL_DICT_…, from the same. JSON or an error text, at once or later. May be NULL. */
	void (*dictionary)(void *context, const struct control_dictionary *request, control_text_fn *done,
			   void *done_context);
	/* RSHM_CONTROL_TENANT_…, from administrators. JSON or an error text, at once or later. May be NULL. */
	void (*tenant)(void *context, const struct control_tenant *request, control_text_fn *done,
		       void *done_context);
};

/* Limits; every bound that a peer can press against. Copied. */
struct control_options {
	const char *control_path; /* both absolute, at most 107 bytes */
	const char *doorbell_path;
	mode_t socket_mode; /* 0660, or 0666 if tenants name users outside the agent's group */
	const char *agent_object;
	uint64_t agent_object_size;
	const struct tenant *administrators; /* whose users may ask about tenants; NULL: only operators. Borrowed */
	uint32_t message_bytes;              /* largest question */
	uint32_t answer_bytes;               /* largest answer */
	uint32_t handshake_timeout_ms;       /* hello, ticket, and each whole message */
	uint32_t request_timeout_ms;         /* hooks that answer late */
	uint32_t connections;                /* control connections in all */
	uint32_t connections_per_uid;
	uint32_t channels_per_uid; /* counted from accepted attach to control_channel_closed() */
	uint32_t clients;          /* channels in all */
	uint32_t attaches_per_second_per_uid;
	struct audit *audit; /* borrowed until closed; NULL: no audit log is kept */
};

/*
 * Opens both sockets and begins to serve. A socket file that a dead agent left is replaced (the instance lock, held by the
 * caller, proves it dead). On failure a text for people in `error`, nothing left behind once the loop has run.
 */
int control_create(uv_loop_t *loop, const struct control_options *options, const struct control_hooks *hooks,
		   struct control **ret, char *error, size_t error_len);

/* The channel of an earlier connect() hook has ended: gives its uid's place back. */
void control_channel_closed(struct control *control, uid_t uid);

/*
 * Stops accepting, drops connections and tickets, removes the socket files, then calls `closed` from the loop: at most 3 s
 * later, even if nng hangs.
 */
void control_close(struct control *control, void (*closed)(void *context), void *context);

/* Counters for status: monotonic since start. */
struct control_figures {
	uint64_t connections, refused_connections, requests, malformed, timed_out, attaches, refused_attaches,
		channels_open;
};
void control_figures(const struct control *control, struct control_figures *ret);

#endif
