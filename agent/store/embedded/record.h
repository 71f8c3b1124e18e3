/*
 * record.h - how entries lie in the LMDB tables, and what reading and changing one takes inside a transaction.
 *
 *	meta     "format" -> u32 LE, "counts" -> struct record_counts, "tenant_next" -> u32 LE,
 *	         "space" and tenant number u32 BE -> generation u64 LE, swept u64 LE
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
#include "agent/store/store.h"
#include "shm/msg.h"

#define RECORD_HEAD 16u
/* 64 KiB less the page header of LMDB, so that a chunk fills 16 pages and not one byte of a 17th. */
#define RECORD_CHUNK 65520u
#define RECORD_ENVELOPE_MAX                                                                        \
	((size_t)ENVELOPE_HEAD_BYTES + 8 * ENVELOPE_TAGS_MAX + RSHM_KEY_MAX + ENVELOPE_BOX_BYTES + \
	 RSHM_METADATA_MAX + ENVELOPE_VALUE_MAX)

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

/* A condition of a write, store.h. */
struct record_condition {
	enum store_condition condition;
	uint64_t expected_version;
	const void *envelope; /* the one to be put: IF_OLDER compares with it */
};
/*
 * Does it hold? RSHM_OK, or RSHM_CONFLICT and *ret_found, the live entry's version. RSHM_E_INVALID, RSHM_E_FORMAT if
 * that needs an envelope that is none, or of a newer program. A damaged record gives way to IF_OLDER, and is
 * RSHM_E_CORRUPT for the others.
 */
int record_check(struct record_txn *txn, const void *key, size_t key_len, const struct record_condition *condition,
		 uint64_t *ret_found);

int record_put(struct record_txn *txn, const void *key, size_t key_len, const void *envelope, size_t envelope_len,
	       uint64_t expiry_ms);
/*
 * Both: RSHM_MISS if there is none, or an expired one, or a tombstone. A delete removes these too, a touch leaves
 * them as they are.
 */
int record_delete(struct record_txn *txn, const void *key, size_t key_len);
int record_touch(struct record_txn *txn, const void *key, size_t key_len, uint64_t expiry_ms);
/*
 * Removes expired entries, `limit` at most; `ret_more` tells whether others are left. RSHM_OK also if there
 * was none.
 */
int record_sweep(struct record_txn *txn, uint32_t limit, uint32_t *ret_removed, bool *ret_more);

/* listing.c: a tenant's namespace; a new one has generation 1, swept 0. RSHM_E_INVALID for tenant number 0. */
struct record_space {
	uint64_t generation, swept;
};
int record_space_load(MDB_txn *txn, const struct record_tables *tables, uint32_t tenant_number,
		      struct record_space *ret);
int record_space_save(struct record_txn *txn, uint32_t tenant_number, const struct record_space *space);

/*
 * listing.c: a page of keys, as STORE_LIST, in memory that is the caller's afterwards (NULL if there is none). What
 * it looks at is bounded, so a page may hold less than asked for, or nothing, and not be the last. A failure leaves
 * the cursor as it was. RSHM_E_INVALID (name, page_keys 0, cursor of another namespace), RSHM_E_TOOBIG (prefix).
 */
struct record_list {
	const struct store_name *name; /* its key is the prefix */
	uint32_t page_keys;
	unsigned char *cursor; /* STORE_CURSOR_MAX */
	size_t *cursor_len;
};
int record_list(MDB_txn *txn, const struct record_tables *tables, const struct record_list *list, void **ret_bytes,
		size_t *ret_length);

/* The counts as stored; all zero (but chunk_next) in a new file. */
int record_counts_load(MDB_txn *txn, const struct record_tables *tables, struct record_counts *ret);
int record_counts_save(struct record_txn *txn);

#endif
