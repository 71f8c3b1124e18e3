/*
 * What is surely not on the disk, so that neither the misses nor the writes of a cache, which are many, need the tier's
 * thread: a table of counters by hash of the key. 0 = no entry has this hash.
 *
 * The tier's thread counts, the loop reads. An entry that moves is counted twice for a moment, never not at all. A put that
 * is under way is not counted yet; the loop knows it by itself. A counter that reached its end stays there.
 *
 * One byte per KiB of the limit: at 4 KiB an entry, 22 of 100 keys that are absent are asked for in vain.
 */
#include <stdlib.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/store/spill/disk.h"
#include "shm/msg.h"

#define FILTER_MIN (64u << 10)
#define FILTER_MAX (16u << 20)
#define FILTER_BYTES_PER 1024u
#define FILTER_FULL 255u

uint64_t spill_filter_hash(const void *key, size_t key_len)
{
	return XXH3_64bits(key, key_len);
}

int spill_filter_make(struct spill_disk *disk, uint64_t limit_bytes)
{
	uint64_t size = FILTER_MIN;

	while (size < FILTER_MAX && size < limit_bytes / FILTER_BYTES_PER)
		size *= 2;
	disk->filter = calloc(1, size);
	disk->filter_mask = size - 1;
	return disk->filter == NULL ? RSHM_E_NOMEM : RSHM_OK;
}

static uint8_t *counter_of(const struct spill_disk *disk, const void *key, size_t key_len)
{
	return &disk->filter[spill_filter_hash(key, key_len) & disk->filter_mask];
}

void spill_filter_add(struct spill_disk *disk, const void *key, size_t key_len)
{
	uint8_t *counter = counter_of(disk, key, key_len);

	if (*counter < FILTER_FULL)
		__atomic_store_n(counter, (uint8_t)(*counter + 1), __ATOMIC_RELAXED);
}

void spill_filter_drop(struct spill_disk *disk, const void *key, size_t key_len)
{
	uint8_t *counter = counter_of(disk, key, key_len);

	if (*counter<FILTER_FULL && * counter> 0)
		__atomic_store_n(counter, (uint8_t)(*counter - 1), __ATOMIC_RELAXED);
}

void spill_filter_clear(struct spill_disk *disk)
{
	for (uint64_t i = 0; disk->filter != NULL && i <= disk->filter_mask; i++)
		__atomic_store_n(&disk->filter[i], 0, __ATOMIC_RELAXED);
}

bool spill_filter_excludes(const struct spill_disk *disk, uint64_t hash)
{
	/* What a put counted before it left the table of pending ones is seen: the lock was in between. */
	return __atomic_load_n(&disk->filter[hash & disk->filter_mask], __ATOMIC_RELAXED) == 0;
}
