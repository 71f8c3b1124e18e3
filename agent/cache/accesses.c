/*
 * accesses.c - a bounded, lossy table of accesses by key.
 *
 *   hash of the key ──▶ low 14 bits: a bucket of four places, one line;  high 32 bits: the fingerprint, never 0
 *
 *   bucket:  [ fingerprint | count | last_ms ]  x 4        fingerprint 0 = a free place
 *
 * Nothing is kept of the key but its hash, so a note costs one line of memory and no allocation. The hash is keyed with a
 * number drawn at start, so that no habit of naming keys fills one bucket. A table is allocated zeroed and whole; the kernel
 * gives it pages as buckets are used, so that the table of an idle tenant costs next to nothing.
 */
#include "agent/cache/accesses.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "shm/index.h"

struct place {
	uint32_t fingerprint;
	uint32_t count;
	uint64_t last_ms;
};

struct bucket {
	struct place places[ACCESSES_WAYS];
};
_Static_assert(sizeof(struct bucket) == 64, "a bucket is one line");
_Static_assert((ACCESSES_BUCKETS & (ACCESSES_BUCKETS - 1)) == 0, "buckets are chosen by bits of a hash");

struct accesses {
	uint64_t seed;
	struct bucket *buckets;
};

/* Where a key belongs. */
struct spot {
	struct bucket *bucket;
	uint32_t fingerprint;
};

struct accesses *accesses_create(void)
{
	struct accesses *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->buckets = calloc(ACCESSES_BUCKETS, sizeof(*table->buckets));
	if (!table->buckets) {
		free(table);
		return NULL;
	}
	randombytes_buf(&table->seed, sizeof(table->seed));
	return table;
}

void accesses_destroy(struct accesses **table)
{
	struct accesses *t = *table;

	*table = NULL;
	if (!t)
		return;
	free(t->buckets);
	free(t);
}

static struct spot spot_of(const struct accesses *table, const void *key, size_t key_len)
{
	uint64_t hash = rshm_hash(table->seed, key, key_len);
	uint32_t fingerprint = (uint32_t)(hash >> 32);

	return (struct spot){
		.bucket = &table->buckets[hash & (ACCESSES_BUCKETS - 1)],
		.fingerprint = fingerprint ? fingerprint : 1,
	};
}

static struct place *find_place(const struct spot *spot)
{
	for (size_t i = 0; i < ACCESSES_WAYS; i++)
		if (spot->bucket->places[i].fingerprint == spot->fingerprint)
			return &spot->bucket->places[i];
	return NULL;
}

/* A free place, or else the one of the key that was accessed longest ago. */
static struct place *make_place(struct bucket *bucket)
{
	struct place *oldest = &bucket->places[0];

	for (size_t i = 0; i < ACCESSES_WAYS; i++) {
		struct place *place = &bucket->places[i];

		if (place->fingerprint == 0)
			return place;
		if (place->last_ms < oldest->last_ms)
			oldest = place;
	}
	return oldest;
}

void accesses_note(struct accesses *table, const void *key, size_t key_len, uint64_t now_ms)
{
	struct spot spot = spot_of(table, key, key_len);
	struct place *place = find_place(&spot);

	if (!place) {
		place = make_place(spot.bucket);
		*place = (struct place){.fingerprint = spot.fingerprint};
	}
	place->count += place->count < UINT32_MAX;
	if (now_ms > place->last_ms)
		place->last_ms = now_ms;
}

bool accesses_get(const struct accesses *table, const void *key, size_t key_len, struct access_record *ret)
{
	struct spot spot = spot_of(table, key, key_len);
	const struct place *place = find_place(&spot);

	if (!place)
		return false;
	*ret = (struct access_record){.count = place->count, .last_ms = place->last_ms};
	return true;
}

void accesses_forget(struct accesses *table, const void *key, size_t key_len)
{
	struct spot spot = spot_of(table, key, key_len);
	struct place *place = find_place(&spot);

	if (place)
		memset(place, 0, sizeof(*place));
}

void accesses_forget_all(struct accesses *table)
{
	memset(table->buckets, 0, ACCESSES_BUCKETS * sizeof(*table->buckets));
}
