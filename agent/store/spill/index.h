/*
 * index.h - where the entries are: LMDB tables, see index.c. The tier's thread only.
 *
 * All functions that return int return an LMDB error; after one of a write (not MDB_NOTFOUND) the transaction is to be
 * aborted. Keys are those of keys_embedded().
 */
#ifndef RIPTIDE_STORE_SPILL_INDEX_H
#define RIPTIDE_STORE_SPILL_INDEX_H

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "agent/store/keys.h"

struct spill_disk;
struct spill_segment;

/* As found in the index. */
struct spill_entry {
	uint64_t segment;
	uint32_t offset, length; /* of the record */
	uint64_t version, expiry_ms, checksum, epoch;
	uint32_t source;
	uint32_t run; /* number of the run that put it */
};
_Static_assert(sizeof(struct spill_entry) == 56, "stored as it is: no holes");

struct spill_index {
	MDB_env *mdb;
	MDB_dbi meta, entries, places, segments;
};

int spill_index_open(struct spill_index *index, const char *path, uint64_t map_bytes);
void spill_index_close(struct spill_index *index);
uint64_t spill_index_bytes(const struct spill_index *index);
/* Without the pages that are free. */
uint64_t spill_index_live_bytes(const struct spill_index *index);
/* Writes a copy without them. */
int spill_index_copy(const struct spill_index *index, int fd);
/* The tables hold what was put by other runs: adds one to the number of runs. */
int spill_index_next_run(struct spill_index *index, MDB_txn *txn, uint32_t *ret);
int spill_index_find(const struct spill_index *index, MDB_txn *txn, const void *key, size_t key_len,
		     struct spill_entry *ret);
int spill_index_put(const struct spill_index *index, MDB_txn *txn, const void *key, size_t key_len,
		    const struct spill_entry *entry, bool new_place);
int spill_index_remove(const struct spill_index *index, MDB_txn *txn, const void *key, size_t key_len,
		       const struct spill_entry *entry);
int spill_index_save_segment(const struct spill_index *index, MDB_txn *txn, const struct spill_segment *segment);
int spill_index_drop_segment(const struct spill_index *index, MDB_txn *txn, uint64_t number);
/* Reads a row of the segments, the first with a number of at least `from`. */
int spill_index_load_segment(const struct spill_index *index, MDB_txn *txn, uint64_t from, struct spill_segment *ret);
/* The first entry of a segment that has an offset of at least `from`. The key is copied. */
int spill_index_next_place(const struct spill_index *index, MDB_txn *txn, uint64_t segment, uint32_t from,
			   uint32_t *ret_offset, struct keys_embedded *ret_key);
/* The first key of a tenant (0 = any) whose generation is at most `generation_max`. */
int spill_index_next_in_range(const struct spill_index *index, MDB_txn *txn, uint32_t tenant, uint64_t generation_max,
			      struct keys_embedded *ret_key);

/* Calls `visit` for each key. */
int spill_index_visit(const struct spill_index *index, MDB_txn *txn, struct spill_disk *disk,
		      void (*visit)(struct spill_disk *disk, const void *key, size_t key_len));

static inline MDB_val spill_val(const void *bytes, size_t length)
{
	MDB_val val = {.mv_size = length};

	memcpy(&val.mv_data, &bytes, sizeof bytes);
	return val;
}

#endif
