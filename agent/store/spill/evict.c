/*
 * Making room: whole segments go, so that giving space back is unlinking a file.
 *
 * A segment that is empty goes at once (disk.c), one in which all is over goes when it is. Else, when room is needed, the
 * victim is
 *
 *	a mostly dead one, if there is any: what lives in it is copied to the newest segment (less than a quarter of it), or
 *	the oldest: only what was read since it came is copied, up to a quarter of it; the rest is evicted
 *
 * An index that is mostly free pages, because there were more and smaller entries once, is compacted before anything is evicted.
 *
 * A victim is emptied in slices of one transaction each, so that gets need not wait for it. The limit is kept at all times: a victim is
 * chosen while there still is room for what is copied and for the index to grow, see spill_evict_needed().
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/store/spill/disk.h"

#define EVICT_SLICE_MIN 16u
#define EVICT_SLICE_BYTES (4u << 20)
#define EVICT_DEAD_SHARE 4u /* lives less than 1/4: mostly dead */
#define EVICT_IDLE_MS 60000u
#define EVICT_PERIOD_MS 1000u
#define EVICT_INDEX_GROWTH_PER (12u << 10) /* bytes of pages that are copied for one entry, at worst */
#define EVICT_INDEX_GROWTH_MAX (512ull * EVICT_INDEX_GROWTH_PER)
/* Pages that a transaction sets free are used again two transactions later. */
#define EVICT_INDEX_GROWTHS 3u

/* What the index may grow by in one transaction. */
static uint64_t index_growth(const struct spill_disk *disk)
{
	uint64_t share = disk->limit_bytes / 32;

	return share < EVICT_INDEX_GROWTH_MAX ? share : EVICT_INDEX_GROWTH_MAX;
}

uint32_t spill_evict_slice(const struct spill_disk *disk)
{
	uint64_t slice = index_growth(disk) / EVICT_INDEX_GROWTH_PER;

	return slice < EVICT_SLICE_MIN ? EVICT_SLICE_MIN : (uint32_t)slice;
}

static uint64_t bytes_used(const struct spill_disk *disk)
{
	return disk->segment_total + spill_index_bytes(&disk->index);
}

bool spill_evict_needed(const struct spill_disk *disk, uint64_t bytes)
{
	return disk->usable &&
	       bytes_used(disk) + bytes + EVICT_INDEX_GROWTHS * index_growth(disk) + disk->segment_bytes / 4 >
		       disk->limit_bytes;
}

/* An eighth of the limit, more than half of it free, and there is room for the copy. */
static bool index_is_loose(const struct spill_disk *disk)
{
	uint64_t bytes = spill_index_bytes(&disk->index), used = bytes_used(disk), live;

	if (bytes <= disk->limit_bytes / 8 || clock_monotonic_ms() < disk->compact_due_ms)
		return false;
	live = spill_index_live_bytes(&disk->index);
	return live < bytes / 2 && used + live <= disk->limit_bytes;
}

/* ---- the victim --------------------------------------------------------------------------------------------- */

static bool mostly_dead(const struct spill_segment *segment)
{
	return segment->live_bytes < segment->size / EVICT_DEAD_SHARE;
}

static bool less_alive(const struct spill_segment *a, const struct spill_segment *b)
{
	return (double)a->live_bytes * (double)b->size < (double)b->live_bytes * (double)a->size;
}

/* Takes the next victim. False if there is no segment at all. */
static bool choose(struct spill_disk *disk)
{
	struct spill_segment *oldest, *deadest = NULL;
	uint64_t used = bytes_used(disk) + (EVICT_INDEX_GROWTHS - 1) * index_growth(disk);
	uint64_t room = used < disk->limit_bytes ? disk->limit_bytes - used : 0;

	if (disk->segment_count == 0)
		return false;
	oldest = &disk->segments[0];
	if (!oldest->sealed) {
		/* The only one: what comes next has a new one. */
		oldest->sealed = true;
		oldest->changed = true;
	}
	for (uint32_t i = 1; i < disk->segment_count; i++) {
		struct spill_segment *segment = &disk->segments[i];

		if (segment->sealed && mostly_dead(segment) && segment->live_bytes <= room &&
		    (deadest == NULL || less_alive(segment, deadest)))
			deadest = segment;
	}
	disk->victim_compact = deadest != NULL && !mostly_dead(oldest);
	disk->victim = disk->victim_compact ? deadest->number : oldest->number;
	disk->victim_budget = disk->victim_compact ? deadest->live_bytes : oldest->size / 4;
	if (disk->victim_budget > room)
		disk->victim_budget = room;
	return true;
}

/* ---- emptying it -------------------------------------------------------------------------------------------- */

/* Copies a record to the newest segment. 0 or an LMDB error; `ret_copied` tells whether the entry has moved. */
static int copy(struct spill_disk *disk, MDB_txn *txn, const struct keys_embedded *key, const struct spill_entry *old,
		bool *ret_copied)
{
	struct spill_entry entry = *old;
	struct spill_record record;
	unsigned char *bytes = malloc(old->length);
	int error = 0;

	if (bytes == NULL)
		return 0;
	if (spill_segment_read(disk, old, bytes) != 0 ||
	    !spill_record_open(bytes, old->length, old->checksum, &record)) {
		spill_count(&disk->counts.corrupt, 1);
	} else if ((error = spill_segment_append(disk, &record, &entry)) != 0) {
		spill_disk_failed(disk, "write a segment", error);
		error = 0;
	} else {
		spill_filter_add(disk, key->bytes, key->length);
		error = spill_disk_release(disk, txn, key->bytes, key->length, old);
		if (error == 0)
			error = spill_index_put(&disk->index, txn, key->bytes, key->length, &entry, true);
		spill_segment_count(disk, &entry, true);
		disk->victim_budget -= old->length;
		*ret_copied = true;
	}
	free(bytes);
	return error;
}

static bool worth_copying(struct spill_disk *disk, const struct spill_entry *entry)
{
	const struct spill_segment *segment = spill_segment_of(disk, entry->segment);

	return entry->length >= SPILL_RECORD_HEAD && entry->length <= disk->victim_budget && segment != NULL &&
	       (disk->victim_compact || spill_segment_touched(segment, entry->offset));
}

/* One entry of the victim: copied, or gone. Returns an LMDB error. `ret_bytes` grows by what was copied. */
static int leave(struct spill_disk *disk, MDB_txn *txn, uint32_t offset, const struct keys_embedded *key,
		 uint64_t now_ms, uint64_t *ret_bytes)
{
	struct spill_entry entry;
	bool copied = false;
	int error = spill_index_find(&disk->index, txn, key->bytes, key->length, &entry);

	if (error != 0 && error != MDB_NOTFOUND)
		return error;
	if (error == MDB_NOTFOUND || entry.segment != disk->victim || entry.offset != offset)
		return MDB_CORRUPTED; /* a place without its entry */
	if (!spill_expired(entry.expiry_ms, now_ms) && worth_copying(disk, &entry)) {
		error = copy(disk, txn, key, &entry, &copied);
		*ret_bytes += entry.length;
	}
	if (copied) {
		spill_count(&disk->counts.copied, 1);
		return error;
	}
	spill_count(spill_expired(entry.expiry_ms, now_ms) ? &disk->counts.expired : &disk->counts.evicted, 1);
	return error != 0 ? error : spill_disk_release(disk, txn, key->bytes, key->length, &entry);
}

static void victim_is_empty(struct spill_disk *disk)
{
	struct spill_segment *segment = spill_segment_of(disk, disk->victim);

	if (segment != NULL) {
		disk->entries -= segment->live;
		segment->live = 0;
		segment->changed = true;
	}
	disk->victim = 0;
}

bool spill_evict_step(struct spill_disk *disk)
{
	struct keys_embedded key;
	uint64_t now_ms = clock_realtime_ms(), bytes = 0;
	uint32_t offset, slice = spill_evict_slice(disk);
	MDB_txn *txn;
	int error = 0;

	if (!disk->usable)
		return false;
	if (disk->victim == 0 && index_is_loose(disk)) {
		spill_disk_compact(disk);
		return disk->usable;
	}
	if (disk->victim == 0 && !choose(disk)) {
		/* Nothing is left but an index that grew and does not shrink. */
		spill_disk_begin_anew(disk);
		return false;
	}
	if (!spill_disk_begin(disk, &txn))
		return false;
	for (uint32_t i = 0; i < slice && bytes < EVICT_SLICE_BYTES && error == 0; i++) {
		error = spill_index_next_place(&disk->index, txn, disk->victim, 0, &offset, &key);
		if (error == 0)
			error = leave(disk, txn, offset, &key, now_ms, &bytes);
	}
	if (error == MDB_NOTFOUND) {
		victim_is_empty(disk);
		error = 0;
	}
	return spill_disk_end(disk, txn, error);
}

/* ---- what is over ------------------------------------------------------------------------------------------- */

static struct spill_segment *find_over(struct spill_disk *disk, uint64_t now_ms, uint64_t *ret_next_ms)
{
	for (uint32_t i = 0; i < disk->segment_count; i++) {
		struct spill_segment *segment = &disk->segments[i];

		if (segment->live > 0 && segment->expiry_max_ms <= now_ms)
			return segment;
		if (segment->live > 0 && segment->expiry_max_ms < *ret_next_ms)
			*ret_next_ms = segment->expiry_max_ms;
	}
	return NULL;
}

uint64_t spill_evict_expired(struct spill_disk *disk)
{
	uint64_t now_ms = clock_realtime_ms(), next_ms = now_ms + EVICT_IDLE_MS;
	struct spill_segment *segment;

	if (!disk->usable)
		return EVICT_IDLE_MS;
	segment = disk->victim == 0 ? find_over(disk, now_ms, &next_ms) : NULL;
	if (segment != NULL) {
		segment->sealed = true;
		disk->victim = segment->number;
		disk->victim_compact = false;
		disk->victim_budget = 0;
	}
	/* A victim that is left half emptied goes on here; so does a limit that was lowered. */
	if (disk->victim != 0 || spill_evict_needed(disk, 0))
		return spill_evict_step(disk) ? 0 : EVICT_PERIOD_MS;
	return next_ms - now_ms < EVICT_PERIOD_MS ? EVICT_PERIOD_MS : next_ms - now_ms;
}
