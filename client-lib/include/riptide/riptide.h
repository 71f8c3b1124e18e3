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
#define RIPTIDE_MISS 1 /* the key is not there */

/* The caller's fault: do not retry unchanged. */
#define RIPTIDE_EINVALID (-1)     /* an argument that cannot be served */
#define RIPTIDE_ETOOBIG (-2)      /* key, metadata, value or batch above its limit */
#define RIPTIDE_ETOOSMALL (-3)    /* the buffer is too small; *ret_length says what is needed */
#define RIPTIDE_EDENIED (-4)      /* this user, token or policy may not */
#define RIPTIDE_ENOTENANT (-5)    /* no such tenant, or not for this user */
#define RIPTIDE_EUNSUPPORTED (-6) /* agent and library do not speak the same version */
#define RIPTIDE_ECLOSED (-7)      /* the handle is closed, or the agent is shutting down */
/* Passing trouble. */
#define RIPTIDE_EAGAIN (-20)    /* nothing was changed; try again */
#define RIPTIDE_EUNKNOWN (-21)  /* a write that may or may not have happened */
#define RIPTIDE_ETIMEDOUT (-22) /* the deadline passed; nothing was changed */
#define RIPTIDE_ENOAGENT (-23)  /* no agent answers on the socket */
#define RIPTIDE_EBACKEND (-24)  /* the store answered with an error of its own */
#define RIPTIDE_ENOMEM (-25)    /* no memory */
#define RIPTIDE_ESTALE (-26)    /* only an unverified copy exists and the tenant's policy refuses it */
#define RIPTIDE_EVOID (-27)     /* the view's bytes were reclaimed while it was held: read again */
/* Not to be trusted. */
#define RIPTIDE_ECORRUPT (-40)  /* the stored entry failed its checks */
#define RIPTIDE_EFORMAT (-41)   /* the stored entry is of a newer format */
#define RIPTIDE_EPROTOCOL (-42) /* agent and library misunderstood each other; the channel was dropped */
#define RIPTIDE_ESYSTEM (-43)   /* a system call failed; riptide_last_error() says which */
#define RIPTIDE_EFULL (-44)     /* the store has no room left */

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

#define RIPTIDE_STALE 0x1u /* info.flags: unverified; the agent has lost touch with the store, or was restarted */
#define RIPTIDE_HOT 0x2u   /* info.flags: read from shared memory */
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

struct riptide_set_options {
	size_t size;                             /* sizeof(struct riptide_set_options) */
	uint64_t ttl_ms;                         /* 0: the tenant's default; RIPTIDE_NEVER: does not expire */
	const struct riptide_metadata *metadata; /* NULL: none */
};

/*
 * Writes through to the store; when it returns RIPTIDE_OK, no reader on this host gets an older value. `options` and
 * `ret_version` may be NULL. RIPTIDE_EUNKNOWN: the write may have happened.
 */
int riptide_set(riptide *handle, const void *key, size_t key_length, const void *value, size_t value_length,
		const struct riptide_set_options *options, uint64_t *ret_version);

/* RIPTIDE_OK if there was an entry, RIPTIDE_MISS if not; either way there is none afterwards. */
int riptide_delete(riptide *handle, const void *key, size_t key_length);

/* Gives an entry a new life time from now (as set_options.ttl_ms). RIPTIDE_MISS if there is none. */
int riptide_touch(riptide *handle, const void *key, size_t key_length, uint64_t ttl_ms);

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
};

int riptide_stats(riptide *handle, struct riptide_stats *ret_stats);

#ifdef __cplusplus
}
#endif

#endif
