/*
 * riptide.h - libriptide, the client of the RipTide agent.
 *
 * One handle per process, shared by any number of threads. After fork() the child may go on using the handle: it attaches
 * anew at its first call. Hot entries are read straight out of shared memory, with no system call and no lock; everything
 * else goes to the agent through a channel in shared memory and waits at most the handle's timeout.
 *
 * Every function returns RIPTIDE_OK, RIPTIDE_MISS (which is not an error) or a negative RIPTIDE_E…; results arrive through
 * ret_ parameters and are untouched on an error. No function aborts, prints, or changes the application's signals.
 * Keys and values are bytes: any value, length counted, keys 1 to 65,535 bytes. Unless said otherwise a function may be
 * called from any thread at any time between riptide_open() and riptide_close().
 *
 *	riptide *cache;
 *	char page[8192];
 *	size_t length;
 *
 *	if (riptide_open(NULL, &cache) < 0) ...
 *	if (riptide_get_into(cache, "home", 4, page, sizeof(page), &length, NULL) == RIPTIDE_MISS)
 *		riptide_set(cache, "home", 4, html, html_length, NULL, NULL);
 *	riptide_close(&cache);
 */
#ifndef RIPTIDE_H
#define RIPTIDE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RIPTIDE_VERSION "0.1.0"

#define RIPTIDE_OK 0
#define RIPTIDE_MISS 1     /* the key is not there */
#define RIPTIDE_CONFLICT 3 /* the condition of a write does not hold; nothing was changed */

/* The caller's fault: do not retry unchanged. */
#define RIPTIDE_EINVALID (-1)     /* an argument that cannot be served */
#define RIPTIDE_ETOOBIG (-2)      /* key, metadata, value or batch above its limit */
#define RIPTIDE_ETOOSMALL (-3)    /* the buffer is too small; *ret_length says what is needed */
#define RIPTIDE_EDENIED (-4)      /* this user, token or policy may not */
#define RIPTIDE_ENOTENANT (-5)    /* no such tenant, or not for this user */
#define RIPTIDE_EUNSUPPORTED (-6) /* agent and library do not speak the same version */
#define RIPTIDE_ECLOSED (-7)      /* the handle is closed, or the agent is shutting down */
#define RIPTIDE_EQUOTA (-8)       /* a quota of the tenant is used up; nothing was changed */
/* Passing trouble. */
#define RIPTIDE_EAGAIN (-20)    /* nothing was changed; try again */
#define RIPTIDE_EUNKNOWN (-21)  /* a write that may or may not have happened */
#define RIPTIDE_ETIMEDOUT (-22) /* the deadline passed; nothing was changed */
#define RIPTIDE_ENOAGENT (-23)  /* no agent answers on the socket */
#define RIPTIDE_EBACKEND (-24)  /* the store answered with an error of its own */
#define RIPTIDE_ENOMEM (-25)    /* no memory */
#define RIPTIDE_ESTALE (-26)    /* only an unverified copy exists and the tenant's policy refuses it */
#define RIPTIDE_EVOID (-27)     /* the view's bytes were reclaimed while it was held: read again */
#define RIPTIDE_ELIMITED \
	(-28) /* a rate limit of the tenant; nothing was changed, riptide_last_error() says when to retry */
/* Not to be trusted. */
#define RIPTIDE_ECORRUPT (-40)  /* the stored entry failed its checks */
#define RIPTIDE_EFORMAT (-41)   /* the stored entry is of a newer format */
#define RIPTIDE_EPROTOCOL (-42) /* agent and library misunderstood each other; the channel was dropped */
#define RIPTIDE_ESYSTEM (-43)   /* a system call failed; riptide_last_error() says which */
#define RIPTIDE_EFULL (-44)     /* the store has no room left */
#define RIPTIDE_ENODICT (-45)   /* the stored entry was compressed with a dictionary that is not there */
#define RIPTIDE_ENOKEY (-46)    /* the stored entry is encrypted, and the agent does not have its key */

typedef struct riptide riptide;

/* ---- handle ------------------------------------------------------------------------------------------------- */

struct riptide_options {
	size_t size;        /* sizeof(struct riptide_options): later versions add fields behind */
	const char *socket; /* control socket; NULL: $RIPTIDE_SOCKET, else /run/riptide/control.sock */
	const char *tenant; /* NULL: $RIPTIDE_TENANT, else "default" */
	const void *token;  /* for tenants that ask for one; NULL: none */
	size_t token_length;
	uint32_t timeout_ms; /* deadline of every call; 0: 5,000 */
	uint32_t
		spin_us; /* how long a waiting call polls before it sleeps; 0: 20; it switches itself off when it does not pay */
	const char *name; /* shown by `riptidectl clients`; NULL: the program's name */
};

/*
 * Attaches to the agent. `options` may be NULL; everything in it is copied. Blocks at most timeout_ms. RIPTIDE_ENOAGENT:
 * no agent; EDENIED, ENOTENANT: not for this user. On an error *ret_handle is still set to a handle that only serves
 * riptide_last_error() and riptide_close(), or NULL if there was no memory for it.
 */
int riptide_open(const struct riptide_options *options, riptide **ret_handle);

/*
 * Detaches and frees; *handle becomes NULL. NULL and half-open handles are accepted. No other call may be under way, no
 * view held.
 */
void riptide_close(riptide **handle);

/* A constant text for a code. Never NULL. */
const char *riptide_strerror(int code);

/* The category of a code, as the metrics and logs name it ("redis", "timeout", …), and whether a retry may help. */
const char *riptide_error_category(int code);
int riptide_error_is_retryable(int code);

/*
 * Copies what went wrong last on this handle (any thread's) to `buffer`, with place and remedy; at most `capacity` bytes,
 * NUL-terminated. Returns the code of that error, RIPTIDE_OK if there was none.
 */
int riptide_last_error(riptide *handle, char *buffer, size_t capacity);

/* The library's version, RIPTIDE_VERSION of its build. */
const char *riptide_version(void);

/* ---- read --------------------------------------------------------------------------------------------------- */

#define RIPTIDE_STALE 0x1u    /* info.flags: unverified; the agent has lost touch with the store, or was restarted */
#define RIPTIDE_HOT 0x2u      /* info.flags: read from shared memory */
#define RIPTIDE_NEGATIVE 0x4u /* info.flags, with RIPTIDE_MISS: a remembered absence (see riptide_fetch()) */
#define RIPTIDE_NEVER UINT64_MAX

struct riptide_info {
	uint64_t version; /* of the entry: milliseconds since 1970 << 16 | counter; larger is newer */
	uint64_t age_ms;
	uint64_t ttl_ms; /* remaining; RIPTIDE_NEVER: does not expire */
	uint32_t flags;
	uint32_t metadata_length;
};

/*
 * Reads into the caller's buffer. *ret_length: bytes of the value, also with RIPTIDE_ETOOSMALL (nothing is copied then).
 * `ret_info` may be NULL. A hit makes no system call and no allocation.
 */
int riptide_get_into(riptide *handle, const void *key, size_t key_length, void *buffer, size_t capacity,
		     size_t *ret_length, struct riptide_info *ret_info);

/* A value in memory of its own. */
struct riptide_value {
	void *data; /* never NULL after RIPTIDE_OK; a NUL byte follows the value */
	size_t length;
	void *metadata; /* encoded; riptide_metadata_next() reads it; in the same allocation as `data` */
	size_t metadata_length;
	struct riptide_info info;
};

/* Reads into memory that the library allocates; free it with riptide_value_free(). */
int riptide_get(riptide *handle, const void *key, size_t key_length, struct riptide_value *ret_value);
void riptide_value_free(struct riptide_value *value);

/* A value in place, in shared memory or, when it is not hot, in a copy. */
struct riptide_view {
	const void *
		data; /* may be overwritten at any moment: parse with care, and believe it only after riptide_view_end() */
	size_t length;
	struct riptide_info info;
	void *reserved[8]; /* the library's */
};

/*
 * Shows the bytes of a hot entry where they lie. Between view and view_end the thread may not close the handle; it may hold
 * one view at a time (RIPTIDE_EINVALID otherwise).
 */
int riptide_view(riptide *handle, const void *key, size_t key_length, struct riptide_view *ret_view);

/* Ends the view. RIPTIDE_OK: all bytes were valid the whole time; RIPTIDE_EVOID: discard what was made of them. */
int riptide_view_end(riptide *handle, struct riptide_view *view);

/* RIPTIDE_OK if the key is there, else RIPTIDE_MISS. `ret_info` may be NULL. */
int riptide_exists(riptide *handle, const void *key, size_t key_length, struct riptide_info *ret_info);

struct riptide_description {
	size_t size; /* set by the caller: sizeof(struct riptide_description) */
	uint64_t version;
	uint64_t created_ms; /* when it was written, milliseconds since 1970 */
	uint64_t age_ms, ttl_ms;
	/*
	 * Reads that the agent of this host knows of: all that it answered itself, samples of the hot ones, a quarter of a second
	 * late. So there were as many or more. A deleted key begins anew; one of very many may be forgotten.
	 */
	uint64_t access_count;
	uint64_t accessed_ms_ago; /* since the latest of them; RIPTIDE_NEVER: not known */
};

/*
 * What there is to say of an entry besides its value; asks the store, through the agent. RIPTIDE_MISS if the key is not there.
 * Does not count as a read.
 */
int riptide_describe(riptide *handle, const void *key, size_t key_length, struct riptide_description *ret);

/* ---- write -------------------------------------------------------------------------------------------------- */

struct riptide_pair {
	const char *name, *value;
};

/* What travels with a value and comes back with it. Borrowed for the call. NULL and 0: none. */
struct riptide_metadata {
	const char *version, *content_type, *source;
	const char *const *tags;
	size_t tag_count;
	const struct riptide_pair *attributes;
	size_t attribute_count;
};

enum riptide_condition { RIPTIDE_ALWAYS, RIPTIDE_IF_ABSENT, RIPTIDE_IF_PRESENT };

enum riptide_write_mode {
	RIPTIDE_WRITE_DEFAULT, /* the tenant's, cache.write_mode */
	RIPTIDE_WRITE_THROUGH, /* returns when the store has it */
	RIPTIDE_WRITE_BEHIND,  /* returns when it stands in the agent's journal; riptide_flush() waits for the rest */
};

enum riptide_compression {
	RIPTIDE_COMPRESS_DEFAULT, /* as configured */
	RIPTIDE_COMPRESS_NONE,
	RIPTIDE_COMPRESS_LZ4,
	RIPTIDE_COMPRESS_ZSTD,
	RIPTIDE_COMPRESS_AUTO,
};

struct riptide_set_options {
	size_t size;                             /* sizeof(struct riptide_set_options) */
	uint64_t ttl_ms;                         /* 0: the tenant's default; RIPTIDE_NEVER: does not expire */
	const struct riptide_metadata *metadata; /* NULL: none */
	enum riptide_condition condition;        /* not met: RIPTIDE_CONFLICT */
	enum riptide_write_mode write_mode;
	enum riptide_compression compression;
	uint32_t *ret_flags; /* NULL, or set to RIPTIDE_ACCEPTED or 0 when the call returns RIPTIDE_OK */
};

#define RIPTIDE_ACCEPTED 0x1u /* written behind: durable in the agent's journal, not yet in the store */

/*
 * Writes; when it returns RIPTIDE_OK, no reader on this host gets an older value. `options` and `ret_version` may be NULL.
 * RIPTIDE_CONFLICT: *ret_version is the version that is there, 0 if none. RIPTIDE_EUNKNOWN: the write may have happened.
 */
int riptide_set(riptide *handle, const void *key, size_t key_length, const void *value, size_t value_length,
		const struct riptide_set_options *options, uint64_t *ret_version);

/* RIPTIDE_OK if there was an entry, RIPTIDE_MISS if not; either way there is none afterwards. */
int riptide_delete(riptide *handle, const void *key, size_t key_length);

/* Gives an entry a new life time from now (as set_options.ttl_ms). RIPTIDE_MISS if there is none. */
int riptide_touch(riptide *handle, const void *key, size_t key_length, uint64_t ttl_ms);

/* Remaining life time of an entry, from the store; RIPTIDE_NEVER: it does not expire. RIPTIDE_MISS if there is none. */
int riptide_ttl(riptide *handle, const void *key, size_t key_length, uint64_t *ret_ttl_ms);

/*
 * Compare and set: writes if the entry still has `expected_version` (info.version of a read, *ret_version of a write; 0: if
 * there is none). RIPTIDE_CONFLICT: it does not; *ret_version is what it has, 0 if there is none. options->condition must be
 * RIPTIDE_ALWAYS. Always written through.
 */
int riptide_cas(riptide *handle, const void *key, size_t key_length, uint64_t expected_version, const void *value,
		size_t value_length, const struct riptide_set_options *options, uint64_t *ret_version);

/*
 * Adds `delta` to a value that is a decimal 64-bit number in text ("17", "-3"); a missing one counts as 0 and gets the life
 * time of `options`, an existing one keeps its own and its metadata. No update is lost, whoever else counts. `options` and
 * `ret_value` may be NULL. RIPTIDE_EINVALID: the value is no number, or the sum does not fit.
 */
int riptide_incr(riptide *handle, const void *key, size_t key_length, int64_t delta,
		 const struct riptide_set_options *options, int64_t *ret_value);

/* Waits until everything that the agent accepted for this tenant before (RIPTIDE_ACCEPTED) is in the store. */
int riptide_flush(riptide *handle);

/* ---- load once ---------------------------------------------------------------------------------------------- */

/* What a loader found; borrowed until it is called again or riptide_fetch() returns. */
struct riptide_loaded {
	const void *data;
	size_t length;
	const struct riptide_metadata *metadata; /* NULL: none */
	uint64_t ttl_ms;                         /* 0: of the fetch options */
};

/*
 * Produces the value of a missing key: RIPTIDE_OK with *ret_loaded filled, RIPTIDE_MISS if there is none, or a negative code of
 * the caller's choice, which riptide_fetch() returns. Runs on the calling thread and may use the handle.
 */
typedef int riptide_load_fn(void *context, const void *key, size_t key_length, struct riptide_loaded *ret_loaded);

struct riptide_fetch_options {
	size_t size;              /* sizeof(struct riptide_fetch_options) */
	uint64_t ttl_ms;          /* as in set options */
	uint64_t load_timeout_ms; /* another process loads once the first took so long; 0: the handle's timeout */
	uint64_t negative_ttl_ms; /* how long an absence is remembered on this host; 0: not at all */
	uint64_t
		stale_while_refresh_ms; /* so long after its ttl a value is given to all but the one who loads it anew */
	uint64_t stale_if_error_ms;     /* so long after its ttl a value is given, marked stale, when loading fails */
	enum riptide_write_mode write_mode;
	enum riptide_compression compression;
};

/*
 * Reads the key; if it is missing, exactly one of all callers on this host loads and stores it, and the others wait for that
 * (each at most its handle's timeout). A loader that fails, dies or takes too long is followed by the next one waiting.
 * `options` may be NULL. The stale options take effect where ttl_ms is a number of milliseconds, neither the default nor
 * RIPTIDE_NEVER. Without an agent, the loader is called all the same. Returns what a get would, or the loader's error; free
 * the value with riptide_value_free().
 */
int riptide_fetch(riptide *handle, const void *key, size_t key_length, riptide_load_fn *load, void *context,
		  const struct riptide_fetch_options *options, struct riptide_value *ret_value);

/* ---- many at once, by what they have in common --------------------------------------------------------------- */

/* Every entry that was written with this tag (riptide_metadata.tags) is gone when it returns; takes the same time for any number. */
int riptide_invalidate_tag(riptide *handle, const char *tag);

/* Removes every entry whose key begins with these bytes; walks the store. *ret_removed may be NULL. */
int riptide_invalidate_prefix(riptide *handle, const void *prefix, size_t prefix_length, uint64_t *ret_removed);

/* Removes every entry of the tenant, on every host, in one step; the room is given back in the background. */
int riptide_clear(riptide *handle);

struct riptide_item;
struct riptide_warmed {
	uint64_t loaded, absent, failed; /* so far, of `total` */
	uint64_t total;                  /* 0: not known yet */
};

/*
 * Brings entries into shared memory before they are asked for, no faster than the agent's warming.keys_per_second. Goes out in
 * pieces, of which each has the handle's timeout. Blocks; counts in *ret_warmed, also when it fails midway.
 */
int riptide_warm(riptide *handle, const struct riptide_item *items, size_t count, struct riptide_warmed *ret_warmed);

/* How far something went that goes in pieces. Begins with length 0; length 0 afterwards is the end. */
#define RIPTIDE_CURSOR_MAX 432u
struct riptide_cursor {
	uint32_t length;
	unsigned char bytes[RIPTIDE_CURSOR_MAX]; /* opaque */
};

/* The same for all keys that begin with these bytes, or a piece of them at a time; then what a piece counts is added. */
int riptide_warm_prefix_next(riptide *handle, const void *prefix, size_t prefix_length, struct riptide_cursor *cursor,
			     struct riptide_warmed *warmed);
int riptide_warm_prefix(riptide *handle, const void *prefix, size_t prefix_length, struct riptide_warmed *ret_warmed);

/* ---- batches ------------------------------------------------------------------------------------------------ */

/*
 * One item; the caller fills what its operation needs, the library the rest. Zero what is not used.
 * Any number of items in a call, which answers RIPTIDE_OK if every item was tried: look at each status.
 */
struct riptide_item {
	const void *key;
	size_t key_length;
	const void *value; /* set: to write. get: data of `result` */
	size_t value_length;
	const struct riptide_set_options *options; /* set: NULL or this item's own */
	int status;                                /* out: as the single call would have returned */
	struct riptide_value result;               /* get, out: free with riptide_batch_free() */
	uint64_t version;                          /* set, out */
};

int riptide_get_batch(riptide *handle, struct riptide_item *items, size_t count);
int riptide_set_batch(riptide *handle, struct riptide_item *items, size_t count);
int riptide_delete_batch(riptide *handle, struct riptide_item *items, size_t count);

/* Frees the results of a get batch; the array stays the caller's. */
void riptide_batch_free(struct riptide_item *items, size_t count);

/* ---- metadata ----------------------------------------------------------------------------------------------- */

#define RIPTIDE_METADATA_VERSION 1
#define RIPTIDE_METADATA_CONTENT_TYPE 2
#define RIPTIDE_METADATA_SOURCE 3
#define RIPTIDE_METADATA_TAG 4
#define RIPTIDE_METADATA_ATTRIBUTE 5
#define RIPTIDE_METADATA_SOFT_DEADLINE 6 /* the library's own: 8 bytes, ms since 1970; see riptide_fetch() */

struct riptide_field {
	int kind;         /* RIPTIDE_METADATA_… ; kinds of later versions may come, skip them */
	const char *name; /* attributes; else empty. Not NUL-terminated */
	size_t name_length;
	const char *value; /* not NUL-terminated */
	size_t value_length;
};

/*
 * Walks encoded metadata. *cursor starts at 0. Returns 1 with a field, 0 at the end, RIPTIDE_ECORRUPT if the bytes are no
 * metadata. `ret_field` points into `metadata`. Any thread; needs no handle.
 */
int riptide_metadata_next(const void *metadata, size_t length, size_t *cursor, struct riptide_field *ret_field);

/* ---- about -------------------------------------------------------------------------------------------------- */

/* One round trip to the agent. RIPTIDE_OK, and its time in nanoseconds if `ret_ns` is not NULL. */
int riptide_ping(riptide *handle, uint64_t *ret_ns);

struct riptide_stats {
	size_t size; /* set by the caller: sizeof(struct riptide_stats) */
	/* the tenant's, on this host, since the agent began (surviving restarts as far as adoption does) */
	uint64_t total_keys;         /* hot entries */
	uint64_t memory_usage_bytes; /* of the hot ring */
	uint64_t memory_limit_bytes;
	uint64_t hits, misses, stale, sets, deletes, evictions;
	uint64_t hit_bytes;
	double hit_rate, miss_rate;   /* of all reads; 0 when there were none */
	double avg_access_time_us;    /* of sampled hot reads */
	double ops_per_second;        /* over the last 10 seconds */
	double avg_compression_ratio; /* stored / plain of what was written; 1 when nothing was */
	uint64_t hit_ns_p50, hit_ns_p99;
	/* this handle's own */
	uint64_t own_hits, own_misses, own_retries, attaches;
	/* the tenant's again; from here on later versions add fields, and fill what `size` has room for */
	uint64_t hit_ns_p95;
	/* Entries that left shared memory, by reason: for room, past their time, deleted, with memory.total used up. */
	uint64_t evictions_capacity, evictions_expired, evictions_manual, evictions_memory_pressure;
	uint64_t evicted_bytes;   /* of all these */
	double eviction_rate;     /* of all these, per second, over the last minute */
	uint64_t spilled;         /* evicted entries that went to the disk tier */
	uint64_t restored;        /* reads that found theirs there */
	uint64_t journal_records; /* writes accepted, not yet stored; of all tenants on one thread of the agent */
};

int riptide_stats(riptide *handle, struct riptide_stats *ret_stats);

/* ---- access --------------------------------------------------------------------------------------------------- */

struct riptide_access {
	int allowed;
	char rule[65]; /* the name of the rule that decided; empty: none did */
};

/*
 * May this process, by the rules of its tenant, do this? `action` is "read", "write", "delete", "admin", or a name of the
 * application's own; `resource` is a key, or whatever the application calls so, and may be empty. RIPTIDE_OK is an answer, not
 * a yes. The agent asks the same rules before each operation; this is for asking beforehand, and for actions of the
 * application.
 */
int riptide_validate_access(riptide *handle, const void *resource, size_t resource_length, const char *action,
			    struct riptide_access *ret_access);

/* ---- quotas and rates ------------------------------------------------------------------------------------------ */

enum riptide_quota_mode { RIPTIDE_QUOTA_ASK, RIPTIDE_QUOTA_CONSUME, RIPTIDE_QUOTA_RELEASE };

struct riptide_quota {
	uint64_t allowed;   /* 1: it fits, and with RIPTIDE_QUOTA_CONSUME was taken; 0 */
	uint64_t has_limit; /* 0: nothing limits it */
	uint64_t limit;
	uint64_t use;            /* of all hosts, before what was asked */
	uint64_t retry_after_ms; /* 0: not known, or it passed */
};

/*
 * Asks for `amount` of one of the tenant's quotas ("memory_bytes", "operations_per_minute", "data_transfer_bytes", or a name of
 * the tenant's own), takes it, or gives it back. All or nothing; true for all hosts together. RIPTIDE_OK is an answer, not a
 * yes. RIPTIDE_EAGAIN: the backend, where it is counted, is away.
 */
int riptide_check_quota(riptide *handle, const char *name, uint64_t amount, enum riptide_quota_mode mode,
			struct riptide_quota *ret_quota);

struct riptide_rate {
	uint64_t limited; /* 1: nothing passes now */
	uint64_t limit;   /* the most that passes at once; UINT64_MAX: it is not limited */
	uint64_t remaining;
	uint64_t retry_after_ms, reset_after_ms; /* until something passes; until `remaining` is `limit` */
};

/* How much of "operations_per_minute", "operations" or "bytes" is left to the tenant now. Takes nothing. */
int riptide_rate(riptide *handle, const char *name, struct riptide_rate *ret_rate);

/* ---- tenants, for administrators ------------------------------------------------------------------------------- */

/*
 * The tenants of the backend, which all agents share. For root and the agent's own user; RIPTIDE_EDENIED for others.
 *
 * Documents are JSON texts; conf/tenant.md lists their members. Each call is one question to the agent's control socket, within
 * the handle's timeout, and blocks that long. *ret_json is the tenant's document, the caller's to free(); it may be NULL.
 * RIPTIDE_ENOTENANT: there is none. RIPTIDE_EINVALID: the document is wrong, or there is a tenant of that id already;
 * riptide_last_error() names the member and what is right. RIPTIDE_EFULL: tenancy.max_tenants.
 */

/* {"id", "name", "owner", "plan", "quotas", …}, each of them optional; without an id one is made up. */
int riptide_tenant_create(riptide *handle, const char *json, char **ret_json);
int riptide_tenant_get(riptide *handle, const char *tenant, char **ret_json);
/* `json` may be NULL, or {"after": id, "limit": 1 to 1000}. {"tenants": [...], "total": n, "next": id or null}. */
int riptide_tenant_list(riptide *handle, const char *json, char **ret_json);
/* The members that are given replace those of the tenant; null takes one back to its default. */
int riptide_tenant_update(riptide *handle, const char *tenant, const char *json, char **ret_json);
/* Nobody on this host reads or writes anything of it when this returns, on others soon; `reason` may be NULL. */
int riptide_tenant_suspend(riptide *handle, const char *tenant, const char *reason);
int riptide_tenant_resume(riptide *handle, const char *tenant);
/* With everything that was stored for it, on every host; the document says how much that was. */
int riptide_tenant_delete(riptide *handle, const char *tenant, char **ret_json);

#ifdef __cplusplus
}
#endif

#endif
