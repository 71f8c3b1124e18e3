/*
 * accesses.h - how often a key was read, and when last, as far as that is noted.
 *
 * A fixed amount of memory per table, however many keys there are: what was read longest ago makes room. One table per
 * tenant and worker; all functions on its thread, none blocks. Times are clock_monotonic_ms().
 */
#ifndef RIPTIDE_CACHE_ACCESSES_H
#define RIPTIDE_CACHE_ACCESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACCESSES_WAYS 4u        /* keys of a bucket; a bucket is one cache line */
#define ACCESSES_BUCKETS 16384u /* a power of two: 1 MiB, of which only what is used takes memory */

struct accesses;

/* NULL without memory. */
struct accesses *accesses_create(void);
void accesses_destroy(struct accesses **table);

/*
 * One access of a key at `now_ms`. A time earlier than the last one noted for the key counts, and leaves the later. In a
 * full bucket the key that was accessed longest ago is forgotten.
 */
void accesses_note(struct accesses *table, const void *key, size_t key_len, uint64_t now_ms);

struct access_record {
	uint32_t count;   /* noted since the key came into the table; stays at UINT32_MAX */
	uint64_t last_ms; /* the latest noted */
};

/*
 * False: nothing is known of the key. Keys are told apart by 46 bits of a keyed hash: a key that was never noted passes for
 * another one about once in 2^30 questions.
 */
bool accesses_get(const struct accesses *table, const void *key, size_t key_len, struct access_record *ret);

/* The key is gone; one of the same name begins anew. */
void accesses_forget(struct accesses *table, const void *key, size_t key_len);
void accesses_forget_all(struct accesses *table);

#endif
