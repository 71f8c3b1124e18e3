/*
 * store.h - what a backend does for the agent: one interface, two backends (embedded/, redis/), and a
 * layer that can lie over either (behind/).
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
	STORE_PUT,  /* envelope replaces what was there if `condition` holds; expires at `expiry_ms` */
	STORE_DELETE, /* if `condition` holds (ALWAYS, IF_VERSION); -> RSHM_OK if there was one, RSHM_MISS if not */
	STORE_TOUCH, /* new `expiry_ms` in the envelope's head and in the backend's own clock; -> RSHM_OK or RSHM_MISS */
	/*
	 * A page of the keys of a namespace (tenant, generation, space) that begin with name.key (key_len may be 0): `result`
	 * is a sequence of {u16 length, key}, native-endian. Begins where `cursor` says, and leaves there where to go on;
	 * cursor_len 0 = from the start, and afterwards = that was the last page. A page may be empty and not be the last. About
	 * `page_keys` keys. Whoever is there from first to last page is listed at least once; what is written or removed
	 * meanwhile may or may not be. Expired ones may be listed.
	 */
	STORE_LIST,
	/*
	 * The tenant's namespace: -> RSHM_OK, `generation` in force and `swept`, the last older one of which nothing is left
	 * (0 = none). A tenant that is new to the backend has generation 1, swept 0.
	 */
	STORE_GENERATION,
	STORE_NEXT_GENERATION, /* adds 1, atomically for all agents; -> as STORE_GENERATION */
	STORE_SWEPT,           /* notes that nothing is left of generations up to `swept`; never lowers it */
	/* Everything accepted before (see `behind`) of this tenant is stored: -> RSHM_OK. Stores without a journal: at once. */
	STORE_FLUSH,
};

/*
 * Evaluated and applied in one step against the live entry of the key; an expired one, and one with ENVELOPE_FLAG_TOMBSTONE,
 * counts as absent (but IF_OLDER compares with a tombstone's version). Not met: RSHM_CONFLICT, nothing is changed, and
 * `found_version` is the live entry's version, 0 if there is none.
 */
enum store_condition {
	STORE_ALWAYS,
	STORE_IF_ABSENT,
	STORE_IF_PRESENT,
	STORE_IF_VERSION, /* version is exactly `expected_version`; 0: as IF_ABSENT */
	STORE_IF_OLDER,   /* absent, or (version, writer id) is less than the envelope's: the newest write wins */
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

#define STORE_CURSOR_MAX 432u /* bytes; a backend's own affair */

struct store_request;
typedef void store_done_fn(struct store_request *request);

struct store_request {
	/* set by the caller */
	enum store_op op;
	struct store_name name;
	enum store_condition condition; /* PUT, DELETE */
	uint64_t expected_version;
	/*
	 * PUT, DELETE: acknowledge when it stands in the journal of the write-behind layer (behind/), not when it is stored.
	 * DELETE carries a tombstone in `envelope`. Stores without a journal write through.
	 */
	bool behind;
	const void *envelope; /* PUT: borrowed until `done` */
	size_t envelope_len;
	uint64_t expiry_ms;   /* PUT, TOUCH: wall clock (Unix epoch); 0 = never */
	uint64_t deadline_ms; /* clock_monotonic_ms() of agent/base/clock.h */
	uint32_t page_keys;   /* LIST */
	size_t head_bytes;    /* HEAD: how much of the envelope is wanted */
	bool skip_remaining;  /* GET: remaining_ms is not wanted, which may spare the backend a command */
	store_done_fn *done;
	void *context;

	/* set by the store before `done`; `result` is lent until `done` returns */
	int status;
	const void *result;
	size_t result_len;
	uint64_t remaining_ms;      /* GET: the server's own remaining life time; 0 = unknown or unlimited */
	uint64_t found_version;     /* RSHM_CONFLICT */
	bool accepted;              /* PUT, DELETE: it stands in the journal only */
	uint64_t generation, swept; /* *GENERATION, SWEPT (there an input) */
	unsigned char cursor[STORE_CURSOR_MAX]; /* LIST, in and out */
	size_t cursor_len;

	/* of a layer between caller and store that wants to know of the end (serve/space.c): whom and what it stands for */
	store_done_fn *layer_done;
	void *layer;
	const void *layer_plain; /* PUT: what `envelope` was before it was sealed; NULL: it was not */
	size_t layer_plain_len;
	bool layer_again; /* asked once more, with newer keys */

	/* the store's, opaque to the caller */
	struct store_request *next, *prev;
	void *slot;
	uint32_t attempts;
	uint32_t state;
};

/* ---- changes that others make ------------------------------------------------------------------------------- */

/* What a watcher hears of changes that are not this worker's own. */
enum store_coherence {
	STORE_SOLE,     /* there are none: nobody else writes here */
	STORE_TTL,      /* nothing: copies are good for their age */
	STORE_CHANNEL,  /* what other agents write, mostly; copies are good for their age */
	STORE_TRACKING, /* everything, as far as `proven` says */
};

enum store_change_kind {
	STORE_CHANGED_ENTRY,      /* one entry: tenant, generation, space, key */
	STORE_CHANGED_NAMESPACE,  /* the generation in force of a tenant, or what is swept */
	STORE_CHANGED_EVERYTHING, /* FLUSHALL, FLUSHDB: any name may be gone; no other member is set */
};

/* All pointers are lent until the callback returns. */
struct store_change {
	enum store_change_kind kind;
	const char *tenant; /* not NUL-terminated */
	size_t tenant_len;
	uint64_t generation;
	char space;
	const void *key; /* NULL: a key above KEYS_PLAIN_MAX bytes, of which the backend told only a hash */
	size_t key_len;
	/*
	 * It may be an echo of a write of our own (one that is answered, in flight, or whose outcome is unknown), or a foreign
	 * one that hides behind it. Whoever holds a copy compares its version with the store's.
	 */
	bool maybe_ours;
};

/*
 * Callbacks on the worker's thread, never from inside store_submit(). In the order in which the backend told; but a reply to
 * a request may come before or after a change that was made before or after it.
 */
struct store_watcher {
	/*
	 * What will be told from now on. Not known before the first call, which may come from inside store_watch(): then nothing is
	 * told. After STORE_TRACKING always `fenced` as well.
	 */
	void (*mode)(void *context, enum store_coherence mode);
	/*
	 * Changes up to this moment may have gone untold: what was asked of the store before, answered or not, proves nothing.
	 * Told when a feed or a connection with writes in flight is lost, and once more when nothing of it can happen any more
	 * and a feed works (`armed`): what is asked from then on is covered. While not armed there is no `proven`.
	 */
	void (*fenced)(void *context, bool armed, const char *why);
	/* All changes that had been answered, to whomever, at `complete_ms` (clock_monotonic_ms()) have been told. */
	void (*proven)(void *context, uint64_t complete_ms);
	void (*changed)(void *context, const struct store_change *change);
	void *context;
};

/* Levels, and counts since the store was made. */
struct store_feed {
	enum store_coherence mode;
	bool armed;
	uint64_t
		proof_age_ms; /* since complete_ms of the last `proven`; UINT64_MAX: there was none since it was armed */
	uint64_t changes, maybe_ours, canaries, fences;
};

/* Of a store with a journal (behind/); levels, then counts since it was opened. */
struct store_journal {
	uint64_t records, bytes; /* accepted, not yet stored */
	uint64_t oldest_ms;      /* age of the oldest of these; 0 = none */
	uint64_t accepted, coalesced, flushed;
	uint64_t superseded; /* something newer was in the store */
	uint64_t replayed, refused_full, too_old, flush_failures;
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
	uint32_t nodes, slots;   /* of a cluster: in use, and with an owner, of 16,384 */
	uint64_t moved, asked;   /* of a cluster: requests that a node sent on */
	struct store_journal journal;
	struct store_feed feed;
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
	/* Begins to tell `watcher`, which is copied, of changes. Called once, before the first request. May be NULL: STORE_SOLE. */
	void (*watch)(struct store *store, const struct store_watcher *watcher);
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

/* False: a STORE_SOLE, which tells nothing. */
static inline bool store_watch(struct store *store, const struct store_watcher *watcher)
{
	if (store->ops->watch)
		store->ops->watch(store, watcher);
	return store->ops->watch != NULL;
}

static inline void store_close(struct store *store, void (*closed)(void *context), void *context)
{
	store->ops->close(store, closed, context);
}

#endif
