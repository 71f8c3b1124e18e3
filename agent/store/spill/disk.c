/*
 * What one get or one batch of changes does to index and segments. The tier's thread only.
 *
 *	put       record appended, then the index points to it; both before the loop is told
 *	remove    the index does not point to it any more; the bytes go with their segment
 *	get       index, record, and nothing is believed that is not whole
 *
 * Records are written before the transaction that makes them visible, so a process that dies in between leaves bytes that nobody
 * points to. A transaction that fails has no repair: since a removal must not be lost, everything is discarded and begun
 * anew. It costs misses, and it gives its room back to a disk that is full. A record that cannot be written costs only its own
 * entry; puts then pause for SPILL_RETRY_MS.
 *
 * `usable` is false while not even an empty index could be made: all gets miss and all puts are refused until it can.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/spill/spill_priv.h"
#include "shm/msg.h"

#define DISK_MAP_SLACK (64ull << 20)
#define DISK_COMPACT_RETRY_MS 60000u

static struct log_limit failure_limit = LOG_LIMIT(5, 10000);
static struct log_limit damage_limit = LOG_LIMIT(5, 10000);

void spill_disk_failed(struct spill_disk *disk, const char *what, int error)
{
	spill_count(&disk->counts.disk_errors, 1);
	log_limited(&failure_limit, LOG_LEVEL_WARN, SPILL_MODULE, "%s: cannot %s: %s", disk->path, what,
		    mdb_strerror(error));
}

void spill_disk_publish(struct spill_disk *disk)
{
	uint64_t bytes = disk->segment_total + (disk->usable ? spill_index_bytes(&disk->index) : 0);

	__atomic_store_n(&disk->counts.bytes_used, bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&disk->counts.entries, disk->entries, __ATOMIC_RELAXED);
}

static void puts_pause(struct spill_disk *disk)
{
	__atomic_store_n(&disk->counts.failing_until_ms, clock_monotonic_ms() + SPILL_RETRY_MS, __ATOMIC_RELAXED);
}

static bool puts_paused(const struct spill_disk *disk)
{
	return clock_monotonic_ms() < disk->counts.failing_until_ms;
}

/* ---- beginning anew ----------------------------------------------------------------------------------------- */

uint64_t spill_disk_map_bytes(const struct spill_disk *disk)
{
	return 2 * disk->limit_bytes + DISK_MAP_SLACK;
}

void spill_disk_forget_all(struct spill_disk *disk)
{
	spill_index_close(&disk->index);
	disk->usable = false;
	spill_segment_close_all(disk);
	for (uint32_t i = 0; i < disk->segment_count; i++)
		free(disk->segments[i].touched);
	disk->segment_count = 0;
	disk->segment_total = 0;
	disk->victim = 0;
	disk->entries = 0;
	spill_filter_clear(disk);
}

/* Makes an empty tier; what was there is gone, or the tier stays unusable. Returns an LMDB error. */
int spill_disk_make_empty(struct spill_disk *disk)
{
	MDB_txn *txn;
	int error = spill_folder_discard(disk);

	if (error == 0)
		error = spill_index_open(&disk->index, disk->path, spill_disk_map_bytes(disk));
	if (error == 0)
		error = mdb_txn_begin(disk->index.mdb, NULL, 0, &txn);
	if (error == 0) {
		error = spill_index_next_run(&disk->index, txn, &disk->run);
		if (error == 0)
			error = mdb_txn_commit(txn);
		else
			mdb_txn_abort(txn);
	}
	if (error == 0 && disk->keep)
		error = spill_folder_mark(disk, false);
	if (error != 0)
		spill_index_close(&disk->index);
	disk->usable = error == 0;
	spill_disk_publish(disk);
	return error;
}

void spill_disk_begin_anew(struct spill_disk *disk)
{
	int error;

	spill_disk_forget_all(disk);
	error = spill_disk_make_empty(disk);
	if (error != 0) {
		spill_disk_failed(disk, "begin anew", error);
		puts_pause(disk);
	}
}

static void give_up(struct spill_disk *disk, const char *what, int error)
{
	spill_disk_failed(disk, what, error);
	log_limited(&failure_limit, LOG_LEVEL_WARN, SPILL_MODULE,
		    "%s: its index cannot be written or read, so its %" PRIu64 " entries are discarded", disk->path,
		    disk->counts.entries);
	spill_count(&disk->counts.discards, 1);
	spill_disk_begin_anew(disk);
	puts_pause(disk);
}

/* True if there is an index to work on. */
static bool disk_is_usable(struct spill_disk *disk)
{
	if (!disk->usable && !puts_paused(disk))
		spill_disk_begin_anew(disk);
	return disk->usable;
}

void spill_disk_limit(struct spill_disk *disk, uint64_t bytes)
{
	int error;

	disk->limit_bytes = bytes;
	disk->segment_bytes = bytes / 8 < disk->segment_bytes_max ? bytes / 8 : disk->segment_bytes_max;
	if (!disk->usable)
		return;
	error = mdb_env_set_mapsize(disk->index.mdb, spill_disk_map_bytes(disk) / 65536 * 65536);
	if (error != 0)
		give_up(disk, "change the size of its map", error);
}

/* ---- compacting the index -------------------------------------------------------------------------------------- */

static int write_copy(struct spill_disk *disk)
{
	int fd = spill_folder_new_index(disk), error;

	if (fd < 0)
		return errno;
	error = spill_index_copy(&disk->index, fd);
	if (close(fd) != 0 && error == 0)
		error = errno;
	return error;
}

void spill_disk_compact(struct spill_disk *disk)
{
	uint64_t before = spill_index_bytes(&disk->index);
	int error = write_copy(disk);

	if (error != 0) {
		spill_folder_drop_new_index(disk);
		disk->compact_due_ms = clock_monotonic_ms() + DISK_COMPACT_RETRY_MS;
		spill_disk_failed(disk, "compact its index", error);
		return;
	}
	spill_index_close(&disk->index);
	error = spill_folder_swap_index(disk);
	if (error == 0)
		error = spill_index_open(&disk->index, disk->path, spill_disk_map_bytes(disk));
	if (error != 0) {
		give_up(disk, "open its compacted index", error);
		return;
	}
	spill_disk_publish(disk);
	log_info(SPILL_MODULE, "%s: compacted its index from %" PRIu64 " to %" PRIu64 " KiB", disk->path,
		 before >> 10, spill_index_bytes(&disk->index) >> 10);
}

/* ---- transactions ------------------------------------------------------------------------------------------- */

bool spill_disk_begin(struct spill_disk *disk, MDB_txn **ret)
{
	int error = mdb_txn_begin(disk->index.mdb, NULL, 0, ret);

	if (error == 0)
		return true;
	give_up(disk, "begin a transaction", error);
	return false;
}

static bool segment_is_over(const struct spill_segment *segment)
{
	return segment->sealed && segment->live == 0;
}

/* Writes the rows of segments that changed. An empty one has none any more. */
static int save_rows(struct spill_disk *disk, MDB_txn *txn)
{
	struct keys_embedded key;
	uint32_t offset;
	int error = 0;

	for (uint32_t i = 0; error == 0 && i < disk->segment_count; i++) {
		struct spill_segment *segment = &disk->segments[i];

		if (!segment->changed)
			continue;
		/* Counts that were damaged may be too low: what still has entries is left to eviction. */
		if (segment_is_over(segment) &&
		    spill_index_next_place(&disk->index, txn, segment->number, 0, &offset, &key) == 0)
			segment->live = 1;
		error = segment_is_over(segment) ? spill_index_drop_segment(&disk->index, txn, segment->number)
						 : spill_index_save_segment(&disk->index, txn, segment);
	}
	return error;
}

static void unlink_empty(struct spill_disk *disk)
{
	uint32_t i = 0;

	while (i < disk->segment_count) {
		struct spill_segment *segment = &disk->segments[i];
		bool over = segment->changed && segment_is_over(segment);

		segment->changed = false;
		if (!over) {
			i++;
			continue;
		}
		if (disk->victim == segment->number)
			disk->victim = 0;
		spill_segment_unlink(disk, segment->number);
	}
}

bool spill_disk_end(struct spill_disk *disk, MDB_txn *txn, int error)
{
	if (error == 0)
		error = save_rows(disk, txn);
	if (error == 0)
		error = mdb_txn_commit(txn);
	else
		mdb_txn_abort(txn);
	if (error != 0) {
		give_up(disk, "change its index", error);
		return false;
	}
	unlink_empty(disk);
	spill_disk_publish(disk);
	return true;
}

int spill_disk_release(struct spill_disk *disk, MDB_txn *txn, const void *key, size_t key_len,
		       const struct spill_entry *entry)
{
	spill_segment_count(disk, entry, false);
	spill_filter_drop(disk, key, key_len);
	return spill_index_remove(&disk->index, txn, key, key_len, entry);
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

/* Removes an entry that was found to be of no use. */
static void forget(struct spill_disk *disk, const struct spill_get_op *get, uint64_t *counter)
{
	MDB_txn *txn;

	if (!spill_disk_begin(disk, &txn))
		return;
	if (spill_disk_end(disk, txn, spill_disk_release(disk, txn, get->key.bytes, get->key.length, &get->entry)))
		spill_count(counter, 1);
}

static bool record_is_of(const struct spill_record *record, const struct spill_get_op *get)
{
	return record->tenant == get->tenant && record->generation == get->generation &&
	       record->space == get->space && record->key_len == get->name_len &&
	       memcmp(record->key, get->name, get->name_len) == 0;
}

/* Reads the record that the index names. 0, an errno, or -1 if it is damaged. */
static int read_record(struct spill_disk *disk, struct spill_get_op *get, struct spill_record *ret)
{
	uint32_t length = get->entry.length;
	int error;

	if (length < SPILL_RECORD_HEAD || length > SPILL_RECORD_HEAD + RSHM_KEY_MAX + SPILL_ENVELOPE_MAX ||
	    spill_segment_of(disk, get->entry.segment) == NULL)
		return -1;
	get->buffer = malloc(length);
	if (get->buffer == NULL)
		return ENOMEM;
	error = spill_segment_read(disk, &get->entry, get->buffer);
	if (error != 0)
		return error;
	return spill_record_open(get->buffer, length, get->entry.checksum, ret) ? 0 : -1;
}

static int find_entry(struct spill_disk *disk, struct spill_get_op *get)
{
	MDB_txn *txn;
	int error = mdb_txn_begin(disk->index.mdb, NULL, MDB_RDONLY, &txn);

	if (error != 0)
		return error;
	error = spill_index_find(&disk->index, txn, get->key.bytes, get->key.length, &get->entry);
	mdb_txn_abort(txn);
	return error;
}

void spill_disk_get(struct spill_disk *disk, struct spill_get_op *get)
{
	struct spill_record record;
	int error;

	get->status = RSHM_MISS;
	if (!disk->usable)
		return;
	error = find_entry(disk, get);
	if (error == MDB_NOTFOUND)
		return;
	if (error != 0) {
		give_up(disk, "read its index", error);
		return;
	}
	if (spill_expired(get->entry.expiry_ms, clock_realtime_ms())) {
		forget(disk, get, &disk->counts.expired);
		return;
	}
	error = read_record(disk, get, &record);
	if (error == -1) {
		log_limited(&damage_limit, LOG_LEVEL_WARN, SPILL_MODULE,
			    "%s: segment %016" PRIx64 " is damaged at %" PRIu32 "; the entry is a miss", disk->path,
			    get->entry.segment, get->entry.offset);
		forget(disk, get, &disk->counts.corrupt);
		return;
	}
	if (error != 0) {
		spill_disk_failed(disk, "read a segment", error);
		return;
	}
	if (!record_is_of(&record, get))
		return;
	spill_segment_touch(spill_segment_of(disk, get->entry.segment), get->entry.offset);
	get->envelope = record.envelope;
	get->envelope_len = record.envelope_len;
	get->kept = get->entry.run != disk->run;
	get->status = RSHM_OK;
}

/* ---- changing ----------------------------------------------------------------------------------------------- */

/* Appends and indexes; `old` is what the index had, or NULL. Returns an LMDB error. */
static int put_new(struct spill_disk *disk, MDB_txn *txn, struct spill_op *op, const struct spill_record *record,
		   const struct spill_entry *old)
{
	struct spill_entry entry = {
		.version = op->version,
		.expiry_ms = op->expiry_ms,
		.epoch = op->epoch,
		.source = op->source,
		.run = disk->run,
	};
	int written = spill_segment_append(disk, record, &entry), error = 0;

	if (old != NULL)
		error = spill_disk_release(disk, txn, op->key, op->key_len, old);
	if (written != 0) {
		spill_disk_failed(disk, "write a segment", written);
		puts_pause(disk);
		return error;
	}
	if (error != 0)
		return error;
	spill_segment_count(disk, &entry, true);
	spill_filter_add(disk, op->key, op->key_len);
	op->stored = true;
	return spill_index_put(&disk->index, txn, op->key, op->key_len, &entry, true);
}

/* The same bytes are there: what went to memory and comes back unchanged is not written again. */
static int put_unchanged(struct spill_disk *disk, MDB_txn *txn, struct spill_op *op, struct spill_entry entry)
{
	struct spill_segment *segment = spill_segment_of(disk, entry.segment);
	uint64_t expiry_ms = op->expiry_ms == 0 ? UINT64_MAX : op->expiry_ms;

	entry.version = op->version;
	entry.expiry_ms = op->expiry_ms;
	entry.epoch = op->epoch;
	entry.source = op->source;
	entry.run = disk->run;
	if (segment->expiry_max_ms < expiry_ms) {
		segment->expiry_max_ms = expiry_ms;
		segment->changed = true;
	}
	op->stored = true;
	spill_count(&disk->counts.unchanged, 1);
	return spill_index_put(&disk->index, txn, op->key, op->key_len, &entry, false);
}

static int apply_put(struct spill_disk *disk, MDB_txn *txn, struct spill_op *op, const struct spill_entry *old)
{
	const struct spill_record record = {
		.tenant = op->tenant,
		.generation = op->generation,
		.space = op->space,
		.key = op->blob->bytes,
		.key_len = op->blob->key_len,
		.envelope = op->blob->bytes + op->blob->key_len,
		.envelope_len = op->blob->length,
	};

	if (old != NULL && old->length == spill_record_length(&record) &&
	    spill_segment_of(disk, old->segment) != NULL && old->checksum == spill_record_checksum(&record))
		return put_unchanged(disk, txn, op, *old);
	return put_new(disk, txn, op, &record, old);
}

static int apply_one(struct spill_disk *disk, MDB_txn *txn, struct spill_op *op, bool dropped)
{
	struct spill_entry old;
	int error = spill_index_find(&disk->index, txn, op->key, op->key_len, &old);
	bool found = error == 0;

	if (error != 0 && error != MDB_NOTFOUND)
		return error;
	if (op->kind == SPILL_PUT && !dropped && !puts_paused(disk))
		return apply_put(disk, txn, op, found ? &old : NULL);
	if (!found)
		return 0;
	if (op->kind == SPILL_REMOVE && !op->counted)
		spill_count(&disk->counts.removed, 1);
	return spill_disk_release(disk, txn, op->key, op->key_len, &old);
}

/* Counts what became of the puts. */
static void count_puts(struct spill_disk *disk, const struct spill_op *first, bool committed)
{
	uint64_t now_ns = clock_monotonic_ns();

	for (const struct spill_op *op = first; op != NULL; op = op->next) {
		if (op->kind != SPILL_PUT)
			continue;
		if (op->stored && committed) {
			spill_count(&disk->counts.spill_ns, now_ns - op->submitted_ns);
			spill_count(&disk->counts.spilled, 1);
		} else {
			spill_count(&disk->counts.refused, 1);
		}
	}
}

void spill_disk_apply(struct spill_disk *disk, struct spill_op *first, bool dropped)
{
	MDB_txn *txn;
	int error = 0;
	bool committed = false;

	if (disk_is_usable(disk) && spill_disk_begin(disk, &txn)) {
		for (struct spill_op *op = first; op != NULL && error == 0; op = op->next)
			error = apply_one(disk, txn, op, dropped);
		committed = spill_disk_end(disk, txn, error);
	}
	count_puts(disk, first, committed);
}

bool spill_disk_range(struct spill_disk *disk, const struct spill_op *op)
{
	struct keys_embedded key;
	struct spill_entry entry;
	MDB_txn *txn;
	uint32_t removed = 0, slice = spill_evict_slice(disk);
	int error = 0;

	if (!disk->usable)
		return false;
	if (op->tenant == 0) {
		spill_count(&disk->counts.removed, disk->counts.entries);
		spill_disk_begin_anew(disk);
		return false;
	}
	if (!spill_disk_begin(disk, &txn))
		return false;
	while (removed < slice && error == 0) {
		error = spill_index_next_in_range(&disk->index, txn, op->tenant, op->generation, &key);
		if (error == 0)
			error = spill_index_find(&disk->index, txn, key.bytes, key.length, &entry);
		if (error == 0)
			error = spill_disk_release(disk, txn, key.bytes, key.length, &entry);
		removed += error == 0;
	}
	if (spill_disk_end(disk, txn, error == MDB_NOTFOUND ? 0 : error))
		spill_count(&disk->counts.removed, removed);
	return error == 0;
}
