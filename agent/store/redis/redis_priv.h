/*
 * redis_priv.h - what the files of this folder share.
 *
 *	redis.c       the store: submit, answer, retry, deadlines, close
 *	pool.c        which connections there are, which one takes a request, and the barrier before writes
 *	connection.c  one connection: connect, send, receive, lose
 *	greeting.c    what is said first on a connection
 *	command.c     requests as commands, and what their answers mean
 *	compose.c     how a request is put into words
 *	listing.c     the words and answers of LIST
 *	node.c        what is different if the server is a node of a cluster
 *	tracking.c    what others change: feed and writer, and whether they work
 *	canary.c      the proof that the feed tells everything
 *	told.c        what the feed is told
 *	ours.c        which changes may be echoes of our own
 *	failover.c    who the master is, where sentinels know
 *
 * Calls go down this list, except for redis_store_*(), redis_pool_*(), redis_tracking_*() and redis_failover_*(), which report upwards. All on
 * the worker's thread.
 */
#ifndef RIPTIDE_STORE_REDIS_PRIV_H
#define RIPTIDE_STORE_REDIS_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "agent/base/metric.h"
#include "agent/store/keys.h"
#include "agent/store/redis/node.h"
#include "agent/store/redis/ours.h"
#include "agent/store/redis/output.h"
#include "agent/store/redis/redis.h"
#include "agent/store/redis/reply.h"
#include "agent/store/redis/sentinel.h"
#include "agent/store/redis/url.h"
#include "agent/store/request_list.h"
#include "agent/store/store.h"

#define REDIS_STORE_MAGIC 0x72656473u
#define REDIS_CONNECTION_MAGIC 0x72656463u
#define REDIS_READ_BYTES (64u << 10)
#define REDIS_NEVER UINT64_MAX
#define REDIS_ATTEMPTS_RETRIES 0x0000ffffu /* in request->attempts: further tries; node.h has bits of its own */
#define REDIS_GENERATION_MAX (1ull << 53)  /* Lua counts exactly up to here */
#define REDIS_ID_DIGITS 16u
#define REDIS_FEED_REPLY_MAX (4u << 20) /* bytes of a message on the feed that are looked at */
#define REDIS_SENTINEL_REPLY_MAX (64u << 10)
#define REDIS_WRITER_VALUE_MAX (256u << 10) /* larger ones would keep the writer's others waiting */
#define REDIS_ATTEMPTS_UNKNOWN 0x80000000u  /* in request->attempts: an earlier try may have been executed */

enum redis_command {
	/* requests */
	REDIS_COMMAND_GET, /* GET and PTTL: two answers */
	REDIS_COMMAND_GET_ALONE,
	REDIS_COMMAND_HEAD,
	REDIS_COMMAND_SET,
	REDIS_COMMAND_REMOVE_EXPIRED, /* a PUT of what is expired */
	REDIS_COMMAND_DELETE,
	REDIS_COMMAND_TOUCH,
	REDIS_COMMAND_CHANGE, /* a conditional PUT or DELETE */
	REDIS_COMMAND_NAMESPACE,
	REDIS_COMMAND_SCAN,
	REDIS_COMMAND_NAMES, /* GETRANGE of some of a page's names: as many answers */
	REDIS_COMMAND_SLOTS,
	REDIS_COMMAND_ASKING, /* before a request, with a flight of its own */
	/* greeting */
	REDIS_COMMAND_AUTH,
	REDIS_COMMAND_SELECT,
	REDIS_COMMAND_SETNAME,
	REDIS_COMMAND_CLIENT_ID,
	REDIS_COMMAND_ROLE, /* INFO replication */
	REDIS_COMMAND_INFO,
	REDIS_COMMAND_SENTINEL, /* to a sentinel */
	/* the barrier's */
	REDIS_COMMAND_KILL,
	/* tracking's */
	REDIS_COMMAND_KILL_PROBE, /* of nobody: whether it is allowed */
	REDIS_COMMAND_TRACKING,
	REDIS_COMMAND_CANARY,
	REDIS_COMMAND_PUBLISH_PROBE,
};

/* How a command goes out where changes are published, and what became of it. */
enum redis_transaction {
	REDIS_TRANSACTION_NONE,
	REDIS_TRANSACTION_WHOLE,       /* MULTI, the command, PUBLISH, EXEC */
	REDIS_TRANSACTION_LOOSE,       /* MULTI was refused and the command was not: it was executed alone */
	REDIS_TRANSACTION_UNPUBLISHED, /* PUBLISH was refused: nothing was executed */
};

/* Feed and writer are tracking.c's, the sentinel is failover.c's, and none a member of the pool. */
enum redis_role {
	REDIS_ROLE_POOL,
	REDIS_ROLE_FEED,   /* is pushed what others change */
	REDIS_ROLE_WRITER, /* what is written here is not pushed to our own feed */
	REDIS_ROLE_SENTINEL,
};

/* A command that was put into the output of a connection and is not answered. */
struct redis_flight {
	struct store_request *request; /* NULL: the store's own command, or a read that nobody waits for any more */
	struct redis_reply *value;     /* GET: the first answer; NAMES: the first error */
	uint64_t end;                  /* redis_output.queued behind it */
	uint64_t begun_ms;
	uint64_t client_id; /* KILL */
	enum redis_command command;
	uint32_t replies_left;
	uint32_t ours; /* token of ours.h, 0: none */
	enum redis_transaction transaction;
};

/* A ring of them, oldest first. */
struct redis_flights {
	struct redis_flight *ring;
	uint32_t capacity; /* a power of two, or 0 */
	uint32_t first, count;
};

enum redis_connection_state {
	REDIS_CONNECTION_RESOLVING,
	REDIS_CONNECTION_CONNECTING,
	REDIS_CONNECTION_GREETING,
	REDIS_CONNECTION_READY,
	REDIS_CONNECTION_DRAINING, /* takes no more requests; closed when the last one is answered */
	REDIS_CONNECTION_CLOSED,   /* no longer the pool's; freed when its handles are closed */
};

struct redis_connection {
	uint32_t magic;
	enum redis_connection_state state;
	enum redis_role role;
	struct redis_store *store;
	struct redis_connection *next, *prev; /* of the pool */
	struct redis_connection *dirty_next;
	bool dirty;   /* has something to send in this turn */
	bool blocked; /* the socket took no more: waits until it is writable */
	bool resolving;
	int fd;
	uv_poll_t *poll; /* of `fd` */
	uint32_t polls;  /* that are not closed: one per address that was tried */
	uv_getaddrinfo_t resolve;
	struct addrinfo *addresses, *address;
	struct redis_reader *reader;
	struct redis_output output;
	struct redis_flights flights;
	uint64_t begun_ms, retire_ms, idle_since_ms;
	uint64_t client_id;     /* 0: not known */
	uint32_t server_number; /* redis_pool.server_number when it was greeted; 0: not known */
};

/* A connection of ours that was lost with writes in flight: its server side must be dead before the next write. */
struct redis_kill {
	uint64_t client_id;
	bool sent;
};

struct redis_pool {
	struct redis_connection *first, *last;
	uint32_t count;           /* all but closed ones */
	uint32_t ready;           /* of these, READY */
	uint32_t connecting;      /* of these, not yet ready: one at a time */
	uint32_t failures;        /* of connecting, in a row */
	bool ran_empty;           /* the last one was closed, and not lost */
	uint64_t connect_ms;      /* not before: back-off */
	uint64_t absent_ms;       /* since when a connection is wanted and none is ready; 0: not so */
	int refusal;              /* 0, or what requests are told while the server refuses our log-in */
	struct redis_kill *kills; /* one per connection that may write: pool_max + 1 */
	uint32_t kills_count;
	uint32_t kills_server; /* the server_number that gave the ids */
	bool kill_impossible;  /* said once */
	/* of the server that answered last */
	uint32_t server_number; /* grows when run_id changes */
	char run_id[64];
	char server[64];   /* "redis 7.0.15 standalone" */
	char trouble[160]; /* why the last connection failed */
	uint64_t trouble_logged_ms;
};

enum redis_tracking_stage {
	REDIS_TRACKING_OFF,     /* nobody watches, or the mode is TTL until begin_ms or another server */
	REDIS_TRACKING_WAITS,   /* until begin_ms, and for the pool */
	REDIS_TRACKING_FEED,    /* the feed connects, logs in, subscribes */
	REDIS_TRACKING_WRITER,  /* the writer connects, logs in, asks for tracking */
	REDIS_TRACKING_CHANNEL, /* the feed is told what other agents publish; there is no writer */
	REDIS_TRACKING_WORKS,   /* both work; armed unless writes may still run on a lost connection */
};

/* The key that we write to see that it is told. Its names alternate. */
struct redis_canary {
	char id[REDIS_ID_DIGITS + 1]; /* hexadecimal; another one each time the feed is begun */
	uint64_t number;              /* of the one last sent */
	bool outstanding;             /* `number` was to be sent, and is not told yet */
	bool in_flight;               /* and is on its way: else it must be sent again */
	bool told;                    /* in the message at hand */
	uint64_t begun_ms;            /* when it was first to be sent */
	uint64_t previous_ms; /* the same of the one before, which was told; 0: there is none since it was armed */
	uint64_t due_ms;      /* when the next is sent, or this one again */
};

struct redis_tracking {
	/* set once */
	bool watched;
	struct store_watcher watcher;
	struct redis_ours *ours;
	enum redis_tracking_stage stage;
	enum store_coherence mode;
	bool mode_told;
	bool armed;
	bool by_channel;              /* what is begun is mode CHANNEL */
	bool publishes;               /* writes are told to other agents */
	char id[REDIS_ID_DIGITS + 1]; /* hexadecimal: whose messages are our own */
	struct redis_connection *feed, *writer;
	uint32_t server_number; /* that feed and writer, or the verdict of OFF, belong to */
	uint32_t failures;      /* in a row */
	uint64_t begin_ms;      /* WAITS: not before. FEED, WRITER: not after */
	uint64_t proven_ms;     /* 0: nothing since it was armed */
	struct redis_canary canary;
	uint64_t changes, maybe_ours, canaries, fences;
	char why[160];       /* it is not armed, or not tracking */
	char downgrade[160]; /* why the mode is CHANNEL, though the best was asked for */
	uint64_t trouble_logged_ms;
};

/* Who the master is. No sentinels: the URL says it. */
struct redis_failover {
	struct redis_sentinel_list sentinels; /* set once */
	struct redis_address master;          /* port 0: not known yet */
	uint64_t epoch;                       /* of the word that was believed */
	uint32_t lower;                       /* a bit for each sentinel that has said a lower one since */
	struct redis_connection *talk;        /* with a sentinel, or NULL */
	struct redis_address asked;           /* where it is */
	uint32_t asked_index, next;           /* of the list */
	bool talks;                           /* the last one asked has answered */
	uint64_t doubts;                      /* losses so far; of these, before the question; before one answered */
	uint64_t doubts_asked, doubts_settled;
	uint32_t failures;         /* of asking, in a row */
	uint64_t begun_ms, due_ms; /* the last question, the next one */
	char trouble[160], logged[160];
	uint64_t logged_ms;
};

struct redis_store {
	struct store store; /* first */
	uint32_t magic;
	/* set once */
	uv_loop_t *loop;
	struct redis_url url;
	char endpoint[192];
	char key_prefix[KEYS_PREFIX_MAX + 1];
	struct keys_options keys;
	struct metric_set *metrics;
	char *read_buffer; /* REDIS_READ_BYTES */
	/* changes by reload */
	struct store_redis_config config; /* its texts are not valid */

	uv_timer_t timer;
	uv_prepare_t prepare; /* active while connections are dirty */
	uv_idle_t idle;       /* active while answers are deferred */
	uint64_t wake_ms;     /* nothing is due before */
	uint64_t random;
	struct redis_pool pool;
	struct redis_tracking tracking;
	struct redis_failover failover;
	struct redis_connection *dirty;
	struct request_list reads, writes; /* wait for a connection */
	struct request_list tracked;       /* writes that the writer takes where there is one */
	struct request_list retrying;      /* wait for their pause to end, which request->state tells */
	struct request_list deferred;      /* answered in the next turn, with request->status */
	uint64_t pending;
	bool no_unlink;
	bool closing;
	uint32_t handles; /* connections and own handles that are not closed yet */
	void (*closed)(void *context);
	void *closed_context;
};

/* IF_VERSION 0 is IF_ABSENT: no entry has that version. */
static inline enum store_condition redis_request_condition(const struct store_request *request)
{
	if (request->condition == STORE_IF_VERSION && request->expected_version == 0)
		return STORE_IF_ABSENT;
	return request->condition;
}

/* redis.c */
static inline bool redis_request_is_write(const struct store_request *request)
{
	return request->op != REDIS_NODE_SLOTS && request->op != STORE_GET && request->op != STORE_HEAD &&
	       request->op != STORE_LIST && request->op != STORE_GENERATION;
}
/* Where a request waits. */
struct request_list *redis_store_queue(struct redis_store *store, const struct store_request *request);
/* Nothing later than `at_ms` will be missed. */
void redis_store_wake(struct redis_store *store, uint64_t at_ms);
/* Answers now; not from inside submit. */
void redis_store_answer(struct redis_store *store, struct store_request *request, int status);
/* Answers in the next turn. */
void redis_store_defer(struct redis_store *store, struct store_request *request, int status);
/* The request changed nothing: once more after a pause, or `status` if that may not be. */
void redis_store_retry(struct redis_store *store, struct store_request *request, int status);
/* A pause of base * 2^attempts ms, capped by the options, between half of it and all. */
uint64_t redis_store_backoff(struct redis_store *store, uint32_t attempts);
/* Connections are dirty: flushes them before the loop waits. */
void redis_store_want_flush(struct redis_store *store);
/* Logs an error answer, rate-limited and without our password. */
void redis_store_log_error(struct redis_store *store, const char *advice, const struct redis_reply *error);
/* Begins a request whose attempts are set. */
void redis_store_take(struct redis_store *store, struct store_request *request);
/* A handle of the store, or a connection with all of its, is closed. */
void redis_store_on_handle_closed(struct redis_store *store);

/* pool.c */
/* Sends what waits, as far as connections can take it, and opens one if they cannot. */
void redis_pool_dispatch(struct redis_store *store);
/* What is due: time-outs, connects, retirements. */
void redis_pool_tick(struct redis_store *store, uint64_t now_ms);
void redis_pool_on_ready(struct redis_connection *connection);
/* Takes the connection out of the pool; `reason` is for people, `refusal` as in redis_pool. */
void redis_pool_on_lost(struct redis_connection *connection, enum redis_connection_state state, const char *reason,
			int refusal);
/* Writes may run on the other side of this lost connection: none goes out before they cannot. */
void redis_pool_add_kill(struct redis_connection *connection);
void redis_pool_on_kill(struct redis_store *store, uint64_t client_id, const struct redis_reply *reply);
/* The connection with `client_id`'s KILL in flight was lost. */
void redis_pool_unsend_kill(struct redis_store *store, uint64_t client_id);
/* The connection takes no more requests, and ends when it has answered the last. */
void redis_pool_retire(struct redis_connection *connection);
void redis_pool_close(struct redis_store *store);
/* For a command of the store's own, on any ready connection of the server with this number; NULL: none has room. */
struct redis_connection *redis_pool_find(const struct redis_store *store, uint32_t server_number);
/* Retires the connections to other servers. */
void redis_pool_keep_only(struct redis_store *store, uint32_t server_number);
/* Notes that a connection could not be made or was lost. */
void redis_pool_count_loss(struct redis_store *store, enum redis_connection_state state, bool unasked);

/* node.c */
/* Whether the server of a cluster says that the key lives elsewhere. */
bool redis_node_diverts(const struct redis_store *store, const struct redis_reply *reply);
/* False: the request is still the store's, and the error means what it does elsewhere. */
bool redis_node_divert(struct redis_store *store, struct store_request *request, const struct redis_reply *error);
/* Something that a new slot map may mend. */
void redis_node_note(const struct redis_store *store, int status);

/* failover.c; all do nothing, or allow, where the URL names the server */
/* Whether connections may be made to where the URL, or the last word of a sentinel, says the server is. */
bool redis_failover_allows(const struct redis_store *store);
/* Whether a connection that is closed could be made again: they are allowed, and a sentinel answers. */
bool redis_failover_spares(const struct redis_store *store);
/* What the store is called in status and log: the master, and where it is if that is known. */
void redis_failover_describe(const struct redis_store *store, struct text *text);
/* Which sentinel says so, for the status. */
void redis_failover_status(const struct redis_store *store, struct text *text);
/* A connection to the master was lost, or the server there is none: asks soon. */
void redis_failover_doubt(struct redis_store *store);
/* A pool that ran empty, and would not have noticed a loss, wants a connection: asks soon. */
void redis_failover_on_empty(struct redis_store *store);
/* What is due. */
void redis_failover_tick(struct redis_store *store, uint64_t now_ms);
void redis_failover_close(struct redis_store *store);
/* Where the sentinel is that is being asked. */
const struct redis_address *redis_failover_asked(const struct redis_store *store);
/* Of the sentinel's connection: it stands (RSHM_E_NOMEM); its answer, which may lose it; what it was pushed; its end. */
int redis_failover_greet(struct redis_connection *sentinel);
void redis_failover_on_reply(struct redis_connection *sentinel, const struct redis_reply *reply);
bool redis_failover_on_push(struct redis_connection *sentinel, const struct redis_reply *push);
void redis_failover_on_lost(struct redis_connection *sentinel, const char *reason);

/* connection.c */
/* RSHM_E_NOMEM. */
int redis_connection_create(struct redis_store *store, enum redis_role role, struct redis_connection **ret);
/*
 * Begins to connect. Whatever fails, now or later, is told by redis_pool_on_lost() or redis_tracking_on_lost(), and the
 * connection is gone.
 */
void redis_connection_begin(struct redis_connection *connection);
/* Answers, retries or gives up what is in flight, and closes. */
void redis_connection_lose(struct redis_connection *connection, const char *reason, int refusal);
/* The same once the last command is answered; it takes no more. READY only. */
void redis_connection_drain(struct redis_connection *connection);
/* The same because the server is the wrong one. */
void redis_connection_leave(struct redis_connection *connection);
/* Ends what has timed out, and tells when to look again. May lose the connection. */
void redis_connection_tick(struct redis_connection *connection, uint64_t now_ms);
/* The output has something new: sent before the loop waits. */
void redis_connection_mark_dirty(struct redis_connection *connection);
void redis_connection_flush(struct redis_connection *connection);
/* False without memory. */
bool redis_flights_reserve(struct redis_flights *flights);
void redis_flights_push(struct redis_flights *flights, struct redis_flight flight);
struct redis_flight redis_flights_pop(struct redis_flights *flights);
static inline struct redis_flight *redis_flights_at(struct redis_flights *flights, uint32_t index)
{
	return &flights->ring[(flights->first + index) & (flights->capacity - 1)];
}

/* greeting.c */
/* RSHM_OK or RSHM_E_NOMEM. */
int redis_greeting_send(struct redis_connection *connection);
/* The answer to a command of the greeting. May lose the connection or make it ready. */
void redis_greeting_on_reply(struct redis_connection *connection, enum redis_command command,
			     const struct redis_reply *reply);

/* command.c */
/* Whether a write may be sent again though an earlier try may have been executed. */
bool redis_command_is_repeatable(const struct store_request *request);
/* RSHM_OK: in flight. Else nothing was done: the name cannot be used, the envelope is too big, no memory. */
int redis_command_send(struct redis_connection *connection, struct store_request *request);
int redis_command_send_kill(struct redis_connection *connection, uint64_t client_id);
/* CLIENT TRACKING of all under the prefix, told to the connection with `feed_id`; CLIENT KILL of nobody. RSHM_E_NOMEM. */
int redis_command_send_tracking(struct redis_connection *connection, uint64_t feed_id);
/* SET of a canary. RSHM_E_NOMEM. */
int redis_command_send_canary(struct redis_connection *connection, const char *key);
/* A transaction that publishes nothing, twice: whether it is allowed. RSHM_E_NOMEM. */
int redis_command_send_publish_probe(struct redis_connection *connection);
/* The shape of a flight's next answer. */
enum redis_shape redis_command_shape(const struct redis_flight *flight);
/* Takes over `reply`. False: it is not what was asked for. */
bool redis_command_on_reply(struct redis_connection *connection, struct redis_reply *reply);

/* compose.c */
/*
 * Whether the request can be served, with the one key that it is about; LIST has none, and begins its page.
 * RSHM_E_INVALID, RSHM_E_TOOBIG, RSHM_E_NOMEM.
 */
int redis_compose_prepare(const struct redis_store *store, struct store_request *request, struct keys_redis *ret_key);
/* Adds to the connection's output, which notes what fails. `whole_script`: EVAL instead of EVALSHA. */
enum redis_command redis_compose(struct redis_connection *connection, const struct store_request *request,
				 const struct keys_redis *key, bool whole_script);

/* listing.c: a page of LIST; its state hangs on request->slot */
/* Begins the page anew. RSHM_E_INVALID (namespace, cursor), RSHM_E_TOOBIG, RSHM_E_NOMEM. */
int redis_listing_begin(const struct redis_store *store, struct store_request *request);
void redis_listing_put_scan(struct redis_output *output, const struct store_request *request);
/* Whether a page of SCAN is one: it has a cursor. */
bool redis_listing_page_fits(const struct redis_reply *page);
/* The page of SCAN has come. */
void redis_listing_on_page(const struct redis_store *store, struct store_request *request,
			   const struct redis_reply *page);
/* Asks for the keys behind hashed names, some at a time. How many; 0: redis_listing_finish() may be called. */
uint32_t redis_listing_put_names(struct redis_output *output, struct store_request *request);
/* The answer to the oldest of them that has none. */
void redis_listing_on_name(const struct redis_store *store, struct store_request *request,
			   const struct redis_reply *reply);
/* Sets result and cursor of the request. RSHM_E_NOMEM, RSHM_E_TOOBIG: of anything since it began. */
int redis_listing_finish(struct store_request *request);
/* Clears *slot; NULL is fine. */
void redis_listing_destroy(void **slot);

/* tracking.c */
void redis_tracking_watch(struct redis_store *store, const struct store_watcher *watcher);
void redis_tracking_close(struct redis_store *store);
void redis_tracking_destroy(struct redis_store *store);
void redis_tracking_status(const struct redis_store *store, struct store_feed *ret);
/* What is due. */
void redis_tracking_tick(struct redis_store *store, uint64_t now_ms);
/* Whether the pool must have a connection for it. */
bool redis_tracking_wants_pool(const struct redis_store *store);
/* Whether the request goes to the writer if there is one. */
bool redis_tracking_takes(const struct redis_store *store, const struct store_request *request);
/* The writer, or NULL: what it would take goes to the pool. It may be full. */
struct redis_connection *redis_tracking_writer(const struct redis_store *store);
/* A write that our feed may tell us of is being sent on the connection: a token for the flight, or 0. */
uint32_t redis_tracking_note(const struct redis_connection *connection, const struct store_request *request,
			     const struct keys_redis *key);
/* The flight is over. */
void redis_tracking_forget(struct redis_store *store, uint32_t token);
/* Feed or writer is logged in. May lose it. */
void redis_tracking_on_ready(struct redis_connection *connection);
void redis_tracking_on_lost(struct redis_connection *connection, enum redis_connection_state state,
			    const char *reason);
/* Writes may run on the other side of a lost connection. */
void redis_tracking_on_writes_lost(struct redis_store *store);
/* Another answered than before. */
void redis_tracking_on_server(struct redis_store *store);
/* The server refused a command of tracking's: once more, or the next best mode. */
void redis_tracking_on_refused(struct redis_store *store, const char *what, const struct redis_reply *error);
/* The feed's subscription stands. */
void redis_tracking_on_subscribed(struct redis_store *store);
/* Feed or writer do not work: fences, and begins both anew after a pause. */
void redis_tracking_fail(struct redis_store *store, const char *why);
/* For a long while, or until another server answers, there is no more than TTL. */
void redis_tracking_give_up(struct redis_store *store, const char *why);
uint64_t redis_tracking_lease_ms(const struct redis_store *store);
/* Hexadecimal digits that nobody else has. */
void redis_tracking_make_id(char ret[static REDIS_ID_DIGITS + 1]);
/* What the feed subscribes to. */
const char *redis_tracking_feed_channel(const struct redis_store *store, char buffer[static KEYS_PREFIX_MAX + 32]);

/* The channel of mode CHANNEL. */
const char *redis_tracking_channel(const struct redis_store *store, char ret[static KEYS_PREFIX_MAX + 32]);
/* PUBLISH is not allowed any more. */
void redis_tracking_on_unpublished(struct redis_store *store, const struct redis_reply *error);
/* The answer to a command of tracking's; NULL: there will be none. May lose the connection. */
void redis_tracking_on_reply(struct redis_connection *connection, enum redis_command command,
			     const struct redis_reply *reply);

/* canary.c */
/* There is none, and the next has another name. */
void redis_canary_reset(struct redis_store *store);
/* Sends what is due. The feed may turn out to be broken. While armed. */
void redis_canary_tick(struct redis_store *store, uint64_t now_ms);
/* Writes the key of the one last sent; returns its length. */
size_t redis_canary_name(const struct redis_store *store, char *ret, size_t capacity);
void redis_canary_on_told(struct redis_store *store);
/* The answer to its SET; NULL: its connection was lost. */
void redis_canary_on_answer(struct redis_connection *connection, const struct redis_reply *reply);

/* told.c */
/* What the feed was sent; lent. False: it cannot be. May lose the connection. */
bool redis_tracking_on_push(struct redis_connection *connection, const struct redis_reply *push);

#endif
