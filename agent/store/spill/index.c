/*
 * The index: LMDB without a map that is written to, without syncing, and without its lock file, for only the tier's
 * thread uses it, one transaction at a time.
 *
 *	entries   key (keys.h) -> struct spill_entry
 *	places    segment u64 BE, offset u32 BE -> key, so that a segment can be emptied without reading it
 *	segments  number u64 BE -> live bytes, live entries, latest expiry (u64 each)
 *	meta      "run" -> u32, how often the folder was opened
 *
 * Numbers are the machine's own, as the whole folder is. What is read is checked for its size only; whoever follows it checks
 * the rest.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/store/spill/index.h"
#include "agent/store/spill/segment.h"

#define INDEX_TABLES 4u
#define INDEX_PAGES_BASE 4u /* two roots, the table of tables, the list of free pages */
#define PLACE_KEY 12u
#define RUN_KEY spill_val("run", 3)

static int tables_open(struct spill_index *index)
{
	MDB_txn *txn;
	int error = mdb_txn_begin(index->mdb, NULL, 0, &txn);

	if (error != 0)
		return error;
	error = mdb_dbi_open(txn, "meta", MDB_CREATE, &index->meta);
	if (error == 0)
		error = mdb_dbi_open(txn, "entries", MDB_CREATE, &index->entries);
	if (error == 0)
		error = mdb_dbi_open(txn, "places", MDB_CREATE, &index->places);
	if (error == 0)
		error = mdb_dbi_open(txn, "segments", MDB_CREATE, &index->segments);
	if (error != 0) {
		mdb_txn_abort(txn);
		return error;
	}
	return mdb_txn_commit(txn);
}

/* A file that is shorter than its root says would end in SIGBUS. */
static int length_check(const struct spill_index *index)
{
	struct stat info;
	int fd, error = mdb_env_get_fd(index->mdb, &fd);

	if (error != 0)
		return error;
	if (fstat(fd, &info) != 0)
		return errno;
	/* A new file has its root in memory only. */
	return info.st_size == 0 || (uint64_t)info.st_size >= spill_index_bytes(index) ? 0 : MDB_CORRUPTED;
}

int spill_index_open(struct spill_index *index, const char *path, uint64_t map_bytes)
{
	const unsigned flags = MDB_NOSYNC | MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD;
	int error = mdb_env_create(&index->mdb);

	if (error != 0)
		return error;
	error = mdb_env_set_maxdbs(index->mdb, INDEX_TABLES);
	if (error == 0)
		error = mdb_env_set_mapsize(index->mdb, map_bytes / 65536 * 65536);
	if (error == 0)
		error = mdb_env_open(index->mdb, path, flags, 0600);
	if (error == 0)
		error = length_check(index);
	if (error == 0)
		error = tables_open(index);
	if (error != 0)
		spill_index_close(index);
	return error;
}

void spill_index_close(struct spill_index *index)
{
	if (index->mdb != NULL)
		mdb_env_close(index->mdb);
	*index = (struct spill_index){0};
}

uint64_t spill_index_bytes(const struct spill_index *index)
{
	MDB_envinfo info;
	MDB_stat stats;

	if (mdb_env_info(index->mdb, &info) != 0 || mdb_env_stat(index->mdb, &stats) != 0)
		return 0;
	return ((uint64_t)info.me_last_pgno + 1) * stats.ms_psize;
}

uint64_t spill_index_live_bytes(const struct spill_index *index)
{
	const MDB_dbi tables[INDEX_TABLES] = {index->meta, index->entries, index->places, index->segments};
	uint64_t pages = 0, page_size = 0;
	MDB_stat stats;
	MDB_txn *txn;

	if (mdb_txn_begin(index->mdb, NULL, MDB_RDONLY, &txn) != 0)
		return spill_index_bytes(index);
	for (uint32_t i = 0; i < INDEX_TABLES; i++) {
		if (mdb_stat(txn, tables[i], &stats) != 0)
			continue;
		page_size = stats.ms_psize;
		pages += stats.ms_branch_pages + stats.ms_leaf_pages + stats.ms_overflow_pages;
	}
	mdb_txn_abort(txn);
	return (pages + INDEX_PAGES_BASE) * page_size;
}

int spill_index_copy(const struct spill_index *index, int fd)
{
	return mdb_env_copyfd2(index->mdb, fd, MDB_CP_COMPACT);
}

int spill_index_next_run(struct spill_index *index, MDB_txn *txn, uint32_t *ret)
{
	MDB_val name = RUN_KEY, value;
	uint32_t run = 0;
	int error = mdb_get(txn, index->meta, &name, &value);

	if (error == 0 && value.mv_size != sizeof run)
		return MDB_CORRUPTED;
	if (error == 0)
		memcpy(&run, value.mv_data, sizeof run);
	else if (error != MDB_NOTFOUND)
		return error;
	run++;
	value = spill_val(&run, sizeof run);
	error = mdb_put(txn, index->meta, &name, &value, 0);
	if (error == 0)
		*ret = run;
	return error;
}

/* ---- entries ------------------------------------------------------------------------------------------------ */

static MDB_val place_key(unsigned char bytes[PLACE_KEY], uint64_t segment, uint32_t offset)
{
	uint64_t big_segment = htobe64(segment);
	uint32_t big_offset = htobe32(offset);

	memcpy(bytes, &big_segment, 8);
	memcpy(bytes + 8, &big_offset, 4);
	return (MDB_val){PLACE_KEY, bytes};
}

int spill_index_find(const struct spill_index *index, MDB_txn *txn, const void *key, size_t key_len,
		     struct spill_entry *ret)
{
	MDB_val name = spill_val(key, key_len), value;
	int error = mdb_get(txn, index->entries, &name, &value);

	if (error != 0)
		return error;
	if (value.mv_size != sizeof *ret)
		return MDB_CORRUPTED;
	memcpy(ret, value.mv_data, sizeof *ret);
	return 0;
}

int spill_index_put(const struct spill_index *index, MDB_txn *txn, const void *key, size_t key_len,
		    const struct spill_entry *entry, bool new_place)
{
	unsigned char bytes[PLACE_KEY];
	MDB_val name = spill_val(key, key_len), value = spill_val(entry, sizeof *entry), place;
	int error = mdb_put(txn, index->entries, &name, &value, 0);

	if (error != 0 || !new_place)
		return error;
	place = place_key(bytes, entry->segment, entry->offset);
	name = spill_val(key, key_len);
	return mdb_put(txn, index->places, &place, &name, 0);
}

int spill_index_remove(const struct spill_index *index, MDB_txn *txn, const void *key, size_t key_len,
		       const struct spill_entry *entry)
{
	unsigned char bytes[PLACE_KEY];
	MDB_val name = spill_val(key, key_len), place = place_key(bytes, entry->segment, entry->offset);
	int error = mdb_del(txn, index->entries, &name, NULL);

	if (error != 0 && error != MDB_NOTFOUND)
		return error;
	error = mdb_del(txn, index->places, &place, NULL);
	return error == MDB_NOTFOUND ? 0 : error;
}

/* Copies a key that stands in a table. */
static int key_copy(const MDB_val *from, struct keys_embedded *ret)
{
	if (from->mv_size <= KEYS_EMBEDDED_HEAD || from->mv_size > KEYS_EMBEDDED_MAX)
		return MDB_CORRUPTED;
	memcpy(ret->bytes, from->mv_data, from->mv_size);
	ret->length = from->mv_size;
	return 0;
}

/* Finds the first pair of a table that does not come before `name`. */
static int seek(MDB_txn *txn, MDB_dbi table, MDB_val *name, MDB_val *value)
{
	MDB_cursor *cursor;
	int error = mdb_cursor_open(txn, table, &cursor);

	if (error != 0)
		return error;
	error = mdb_cursor_get(cursor, name, value, MDB_SET_RANGE);
	mdb_cursor_close(cursor);
	return error;
}

int spill_index_next_place(const struct spill_index *index, MDB_txn *txn, uint64_t segment, uint32_t from,
			   uint32_t *ret_offset, struct keys_embedded *ret_key)
{
	unsigned char bytes[PLACE_KEY];
	MDB_val name = place_key(bytes, segment, from), value;
	uint32_t offset;
	int error = seek(txn, index->places, &name, &value);

	if (error != 0)
		return error;
	if (name.mv_size != PLACE_KEY)
		return MDB_CORRUPTED;
	if (memcmp(name.mv_data, bytes, 8) != 0)
		return MDB_NOTFOUND;
	memcpy(&offset, (const unsigned char *)name.mv_data + 8, 4);
	error = key_copy(&value, ret_key);
	if (error == 0)
		*ret_offset = be32toh(offset);
	return error;
}

int spill_index_next_in_range(const struct spill_index *index, MDB_txn *txn, uint32_t tenant, uint64_t generation_max,
			      struct keys_embedded *ret_key)
{
	uint32_t big_tenant = htobe32(tenant);
	uint64_t generation;
	MDB_val name = spill_val(&big_tenant, sizeof big_tenant), value;
	int error = seek(txn, index->entries, &name, &value);

	if (error != 0)
		return error;
	error = key_copy(&name, ret_key);
	if (error != 0 || tenant == 0)
		return error;
	memcpy(&generation, ret_key->bytes + 4, 8);
	if (memcmp(ret_key->bytes, &big_tenant, 4) != 0 || be64toh(generation) > generation_max)
		return MDB_NOTFOUND;
	return 0;
}

int spill_index_visit(const struct spill_index *index, MDB_txn *txn, struct spill_disk *disk,
		      void (*visit)(struct spill_disk *disk, const void *key, size_t key_len))
{
	MDB_cursor *cursor;
	MDB_val name, value;
	int error = mdb_cursor_open(txn, index->entries, &cursor);

	if (error != 0)
		return error;
	while ((error = mdb_cursor_get(cursor, &name, &value, MDB_NEXT)) == 0)
		visit(disk, name.mv_data, name.mv_size);
	mdb_cursor_close(cursor);
	return error == MDB_NOTFOUND ? 0 : error;
}

/* ---- segments ----------------------------------------------------------------------------------------------- */

int spill_index_save_segment(const struct spill_index *index, MDB_txn *txn, const struct spill_segment *segment)
{
	uint64_t number = htobe64(segment->number);
	uint64_t row[3] = {segment->live_bytes, segment->live, segment->expiry_max_ms};
	MDB_val name = {sizeof number, &number}, value = {sizeof row, row};

	return mdb_put(txn, index->segments, &name, &value, 0);
}

int spill_index_drop_segment(const struct spill_index *index, MDB_txn *txn, uint64_t number)
{
	uint64_t big = htobe64(number);
	MDB_val name = {sizeof big, &big};
	int error = mdb_del(txn, index->segments, &name, NULL);

	return error == MDB_NOTFOUND ? 0 : error;
}

int spill_index_load_segment(const struct spill_index *index, MDB_txn *txn, uint64_t from, struct spill_segment *ret)
{
	uint64_t number = htobe64(from), row[3];
	MDB_val name = {sizeof number, &number}, value;
	int error = seek(txn, index->segments, &name, &value);

	if (error != 0)
		return error;
	if (name.mv_size != sizeof number || value.mv_size != sizeof row)
		return MDB_CORRUPTED;
	memcpy(&number, name.mv_data, sizeof number);
	memcpy(row, value.mv_data, sizeof row);
	*ret = (struct spill_segment){
		.number = be64toh(number),
		.live_bytes = row[0],
		.live = row[1],
		.expiry_max_ms = row[2],
		.sealed = true,
	};
	return 0;
}
