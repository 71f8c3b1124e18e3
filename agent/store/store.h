/*
 * store.h - what a backend does for the agent: one interface, two backends (embedded/, redis/).
 *
 * A store belongs to one worker: it is created, used and destroyed on the thread of that worker's uv loop, and calls
 * back only there. Nothing here blocks. What several workers share (an LMDB environment) the backend shares behind
 * this interface.
 *
 * A request is the caller's memory from store_submit() until its `done` is called, exactly once, never from inside
 * store_submit() for the redis backend and possibly from inside it for reads of the embedded one (callers must cope
 * with both). Each request is answered at the latest shortly after `deadline_ms`.
 *
 * Errors of a request, by what the caller may conclude:
 *   RSHM_E_AGAIN, RSHM_E_TIMEDOUT   nothing was changed (not connected, queue full, deadline before sending)
 *   RSHM_E_UNKNOWN                  a write was sent and its answer never came
 *   RSHM_E_BACKEND                  the server refused; the text is in the log, rate-limited
 *   RSHM_E_FULL                     no room (disk, map size, maxmemory): nothing was changed
 *   RSHM_E_CORRUPT                  the backend's own structure is damaged for this key
 * Requests on one key may run side by side: whoever needs an order (cache/inflight does) submits one after the other.
 */
#ifndef RIPTIDE_STORE_H
#define RIPTIDE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

enum store_op {
	STORE_GET,  /* -> RSHM_OK with the whole envelope in `result`, or RSHM_MISS */
	STORE_HEAD, /* -> RSHM_OK with at least the envelope's fixed head, key and metadata if they fit `head_bytes` */
	STORE_PUT,  /* envelope replaces what was there; expires at `expiry_ms` */
	STORE_DELETE, /* -> RSHM_OK if there was one, RSHM_MISS if not */
	STORE_TOUCH, /* new `expiry_ms` in the envelope's head and in the backend's own clock; -> RSHM_OK or RSHM_MISS */
};

/* Where an entry lives. The tenant's text and the key are borrowed until `done`. */
struct store_name {
	const char *tenant;     /* [a-z0-9-]{1,64}, NUL-terminated */
	uint32_t tenant_number; /* the embedded store's short form; unique per tenant, never 0 */
	uint32_t shards;        /* of the tenant; >= 1 */
	uint64_t generation;    /* namespace generation of the tenant; >= 1 */
	char space;             /* 'c' cache entries; 's', 't', 'l' come with sessions, tags, ledger */
	const void *key;
	size_t key_len; /* 1 .. RSHM_KEY_MAX */
};

struct store_request;
typedef void store_done_fn(struct store_request *request);

struct store_request {
	/* set by the caller */
	enum store_op op;
	struct store_name name;
	const void *envelope; /* PUT: borrowed until `done` */
	size_t envelope_len;
	uint64_t expiry_ms;   /* PUT, TOUCH: wall clock (Unix epoch); 0 = never */
	uint64_t deadline_ms; /* clock_monotonic_ms() of agent/base/clock.h */
	size_t head_bytes;    /* HEAD: how much of the envelope is wanted */
	bool skip_remaining;  /* GET: remaining_ms is not wanted, which may spare the backend a command */
	store_done_fn *done;
	void *context;

	/* set by the store before `done`; `result` is lent until `done` returns */
	int status;
	const void *result;
	size_t result_len;
	uint64_t remaining_ms; /* GET: the server's own remaining life time; 0 = unknown or unlimited */

	/* the store's, opaque to the caller */
	struct store_request *next, *prev;
	void *slot;
	uint32_t attempts;
	uint32_t state;
};

/* What `riptidectl status` tells of a backend. */
struct store_status {
	const char *name; /* "embedded", "redis" */
	bool ready;       /* answers now */
	char detail[256]; /* endpoint without secrets; since when and why not ready; server and version */
	uint32_t connections, connections_max;
	uint64_t pending; /* requests not yet answered */
	uint64_t completed, failed, retried, reconnects;
	uint64_t entries, bytes; /* as far as the backend knows; 0 = not known */
};

struct store;

/* A backend. All functions: the worker's thread, non-blocking unless said. */
struct store_ops {
	const char *name;
	/* Starts `request`. */
	void (*submit)(struct store *store, struct store_request *request);
	/* Fills `ret`; never fails. */
	void (*status)(struct store *store, struct store_status *ret);
	/*
	 * Ends the store: what is pending is answered (RSHM_E_CLOSED, or RSHM_E_UNKNOWN for a write under way) before `closed` is
	 * called from the loop, after which the store is gone. Writes that were acknowledged are as durable as the backend promises.
	 */
	void (*close)(struct store *store, void (*closed)(void *context), void *context);
	/* Applies what `config_compare` reported as live for this backend. May be NULL. */
	void (*reload)(struct store *store, const void *config);
};

/* Backends begin their own struct with this. */
struct store {
	const struct store_ops *ops;
};

static inline void store_submit(struct store *store, struct store_request *request)
{
	store->ops->submit(store, request);
}

static inline void store_status(struct store *store, struct store_status *ret)
{
	store->ops->status(store, ret);
}

static inline void store_close(struct store *store, void (*closed)(void *context), void *context)
{
	store->ops->close(store, closed, context);
}

#endif
