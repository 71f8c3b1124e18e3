/*
 * evictions.h - the bookkeeping of entries that left the cache: why, how many, how large, how long unused.
 *
 * One book per tenant and worker; all functions on its thread, none blocks. Reports merge the figures of several
 * books. Times are clock_monotonic_ms().
 */
#ifndef RIPTIDE_CACHE_EVICTIONS_H
#define RIPTIDE_CACHE_EVICTIONS_H

#include <stddef.h>
#include <stdint.h>

enum eviction_reason {
	EVICTION_CAPACITY,        /* the policy made room for a newer entry */
	EVICTION_EXPIRED,         /* its time was over */
	EVICTION_MANUAL,          /* deleted, invalidated, cleared */
	EVICTION_MEMORY_PRESSURE, /* memory was above its high-water mark */
	EVICTION_REASONS
};

/* For reports: "capacity", "expired", "manual", "memory_pressure". */
const char *eviction_reason_name(enum eviction_reason reason);

#define EVICTIONS_RECENT 10u
#define EVICTIONS_WINDOW_S 60u /* of the rate */
#define EVICTION_KEY_BYTES 32u /* kept of a key */
#define EVICTION_IDLE_UNKNOWN UINT64_MAX

struct eviction {
	uint64_t evicted_at_ms;
	uint64_t bytes;
	uint64_t idle_ms; /* since its last access; EVICTION_IDLE_UNKNOWN */
	enum eviction_reason reason;
	uint16_t key_len;                      /* of the whole key */
	unsigned char key[EVICTION_KEY_BYTES]; /* as much of it as fits; any bytes */
};

/* Exact since the book was made or reset, but for the rate. */
struct evictions_figures {
	uint64_t total, total_bytes;
	uint64_t count[EVICTION_REASONS], bytes[EVICTION_REASONS];
	uint64_t ever_count[EVICTION_REASONS], ever_bytes[EVICTION_REASONS]; /* a reset leaves these */
	double rate;          /* per second, over the last EVICTIONS_WINDOW_S or since the start if that is shorter */
	uint64_t idle_known;  /* evictions whose last access is known */
	uint64_t idle_ms_sum; /* of these */
	double idle_ms_average;                   /* of these; 0 without any */
	uint32_t recent_count;                    /* at most EVICTIONS_RECENT */
	struct eviction recent[EVICTIONS_RECENT]; /* newest first */
};

struct evictions;

/* NULL: no memory. */
struct evictions *evictions_create(uint64_t now_ms);
void evictions_destroy(struct evictions **book);

/* The key may be NULL with key_len 0; what is kept of it is copied. */
void evictions_record(struct evictions *book, enum eviction_reason reason, uint64_t bytes, uint64_t idle_ms,
		      const void *key, uint16_t key_len, uint64_t now_ms);

/* `count` entries at once, as a clear removes them: none of them is remembered, nor how long it was idle. */
void evictions_record_many(struct evictions *book, enum eviction_reason reason, uint64_t count, uint64_t bytes,
			   uint64_t now_ms);

void evictions_figures(const struct evictions *book, uint64_t now_ms, struct evictions_figures *ret);
/* Adds `from` to `into`, which is zeroed or filled by evictions_figures(). Any thread. */
void evictions_merge(struct evictions_figures *into, const struct evictions_figures *from);

void evictions_reset(struct evictions *book, uint64_t now_ms);

#endif
