/*
 * record.h - how entries lie in the LMDB tables, and what reading and changing one takes inside a transaction.
 *
 *	meta     "format" -> u32 LE, "counts" -> struct record_counts, "tenant_next" -> u32 LE
 *	tenants  name -> u32 LE
 *	main     key (keys.h) -> head, then the envelope, or chunk id and the first ENVELOPE_HEAD_BYTES of the envelope
 *	chunks   chunk id u64 BE, number u32 BE -> the next RECORD_CHUNK bytes of the envelope
 *	expiry   expiry u64 BE (ms), key -> nothing
 *
 * Head, 16 bytes, little-endian: kind u8 (1 whole, 2 chunked) | 3 reserved | envelope length u32 | expiry
 * u64 (ms).
 *
 * All functions work in the caller's transaction and return RSHM_OK, RSHM_MISS, RSHM_E_CORRUPT, or a
 * negative status from record_status(); after a negative one other than RSHM_E_CORRUPT a write transaction
 * is to be aborted.
 */
#ifndef RIPTIDE_STORE_EMBEDDED_RECORD_H
#define RIPTIDE_STORE_EMBEDDED_RECORD_H

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "agent/store/envelope.h"
#include "shm/msg.h"

#define RECORD_HEAD 16u
/* 64 KiB less the page header of LMDB, so that a chunk fills 16 pages and not one byte of a 17th. */
#define RECORD_CHUNK 65520u
#define RECORD_ENVELOPE_MAX ((size_t)ENVELOPE_HEAD_BYTES + RSHM_KEY_MAX + RSHM_METADATA_MAX + ENVELOPE_VALUE_MAX)

enum record_kind {
	RECORD_WHOLE = 1,
	RECORD_CHUNKED = 2,
};

struct record_tables {
	MDB_dbi meta, tenants, main, chunks, expiry;
};

/* Kept in memory by the writer and stored with each commit. Stored as three u64 LE. */
struct record_counts {
	uint64_t entries;
	uint64_t bytes;      /* keys and envelopes */
	uint64_t chunk_next; /* id of the next chunked entry */
};

/* A record as found. The pointer leads into the map and ends with the next change or the transaction. */
struct record {
	enum record_kind kind;
	uint32_t length;
	uint64_t expiry_ms;
	uint64_t chunk_id;    /* chunked */
	const void *envelope; /* whole: all of it; chunked: the first ENVELOPE_HEAD_BYTES */
};

/* A write transaction and what it will do to the counts. */
struct record_txn {
	MDB_txn *txn;
	const struct record_tables *tables;
	struct record_counts counts;
	uint64_t now_ms; /* wall clock */
};

/* LMDB takes names and values without const, and changes neither. */
static inline MDB_val record_val(const void *bytes, size_t length)
{
	MDB_val val = {.mv_size = length};

	memcpy(&val.mv_data, &bytes, sizeof bytes);
	return val;
}

/* What an LMDB or system error means to a caller. Negative always; EIO is RSHM_E_BACKEND. */
int record_status(int mdb_error);

int record_find(MDB_txn *txn, const struct record_tables *tables, const void *key, size_t key_len,
		struct record *ret);
bool record_expired(const struct record *record, uint64_t now_ms);
/* Copies the first `length` bytes of the envelope, at most record->length, to `destination`. */
int record_copy(MDB_txn *txn, const struct record_tables *tables, const struct record *record, void *destination,
		size_t length);

int record_put(struct record_txn *txn, const void *key, size_t key_len, const void *envelope, size_t envelope_len,
	       uint64_t expiry_ms);
int record_delete(struct record_txn *txn, const void *key, size_t key_len);
int record_touch(struct record_txn *txn, const void *key, size_t key_len, uint64_t expiry_ms);
/*
 * Removes expired entries, `limit` at most; `ret_more` tells whether others are left. RSHM_OK also if there
 * was none.
 */
int record_sweep(struct record_txn *txn, uint32_t limit, uint32_t *ret_removed, bool *ret_more);

/* The counts as stored; all zero (but chunk_next) in a new file. */
int record_counts_load(MDB_txn *txn, const struct record_tables *tables, struct record_counts *ret);
int record_counts_save(struct record_txn *txn);

#endif
