/*
 * An entry is one record in `main`; what does not fit one chunk continues in `chunks`, under an id that is
 * never reused, so that chunks are always appended at the table's end and a replaced value never mixes with
 * its successor. A chunked record keeps the envelope's head in `main`, where a touch can rewrite it without
 * touching the chunks.
 *
 * A writer's transaction is all or nothing, and a reader's sees one moment: so a record and its chunks
 * always belong together. What does not is damage, reported as RSHM_E_CORRUPT and mended by the next put or
 * delete of the key; the chunks of a damaged record are lost space until the file is made anew.
 *
 * The index of expiry times holds a pair for each entry that expires. It is exact, but the sweep believes
 * only the record.
 */
#include "agent/store/embedded/record.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/store/keys.h"

#define RECORD_SWEEP_BYTES (64u << 20) /* removed in one transaction, at most */
#define EXPIRY_KEY_MAX (8 + KEYS_EMBEDDED_MAX)
#define COUNTS_KEY ((MDB_val){6, (void *)(uintptr_t) "counts"})

struct chunk_key {
	unsigned char bytes[12];
};

int record_status(int mdb_error)
{
	switch (mdb_error) {
	case MDB_NOTFOUND:
		return RSHM_MISS;
	case MDB_MAP_FULL:
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return RSHM_E_FULL;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
		return RSHM_E_CORRUPT;
	case MDB_READERS_FULL:
	case MDB_TXN_FULL:
		return RSHM_E_AGAIN;
	case ENOMEM:
		return RSHM_E_NOMEM;
	default:
		return mdb_error == 0 ? RSHM_OK : RSHM_E_BACKEND;
	}
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

static int record_decode(const MDB_val *value, struct record *ret)
{
	const unsigned char *bytes = value->mv_data;
	struct record record;
	uint32_t length;
	uint64_t expiry, id;

	if (value->mv_size < RECORD_HEAD)
		return RSHM_E_CORRUPT;
	memcpy(&length, bytes + 4, 4);
	memcpy(&expiry, bytes + 8, 8);
	record = (struct record){.kind = bytes[0], .length = le32toh(length), .expiry_ms = le64toh(expiry)};
	if (record.length < ENVELOPE_HEAD_BYTES || record.length > RECORD_ENVELOPE_MAX)
		return RSHM_E_CORRUPT;
	if (record.kind == RECORD_WHOLE) {
		if (value->mv_size != RECORD_HEAD + (size_t)record.length)
			return RSHM_E_CORRUPT;
		record.envelope = bytes + RECORD_HEAD;
	} else if (record.kind == RECORD_CHUNKED) {
		if (value->mv_size != RECORD_HEAD + 8 + ENVELOPE_HEAD_BYTES)
			return RSHM_E_CORRUPT;
		memcpy(&id, bytes + RECORD_HEAD, 8);
		record.chunk_id = le64toh(id);
		record.envelope = bytes + RECORD_HEAD + 8;
	} else {
		return RSHM_E_CORRUPT;
	}
	*ret = record;
	return RSHM_OK;
}

int record_find(MDB_txn *txn, const struct record_tables *tables, const void *key, size_t key_len, struct record *ret)
{
	MDB_val name = record_val(key, key_len), value = {0, NULL};
	int error = mdb_get(txn, tables->main, &name, &value);

	return error != 0 ? record_status(error) : record_decode(&value, ret);
}

bool record_expired(const struct record *record, uint64_t now_ms)
{
	return record->expiry_ms != 0 && record->expiry_ms <= now_ms;
}

static struct chunk_key chunk_key_make(uint64_t id, uint32_t number)
{
	struct chunk_key key;
	uint64_t big_id = htobe64(id);
	uint32_t big_number = htobe32(number);

	memcpy(key.bytes, &big_id, 8);
	memcpy(key.bytes + 8, &big_number, 4);
	return key;
}

/* Bytes of the envelope that lie in chunk `number`. */
static size_t chunk_length(uint32_t envelope_len, uint32_t number)
{
	size_t offset = ENVELOPE_HEAD_BYTES + (size_t)number * RECORD_CHUNK;
	size_t left = envelope_len > offset ? envelope_len - offset : 0;

	return left < RECORD_CHUNK ? left : RECORD_CHUNK;
}

int record_copy(MDB_txn *txn, const struct record_tables *tables, const struct record *record, void *destination,
		size_t length)
{
	unsigned char *to = destination;
	size_t offset = record->kind == RECORD_WHOLE ? record->length : ENVELOPE_HEAD_BYTES;

	if (length > record->length)
		length = record->length;
	memcpy(to, record->envelope, length < offset ? length : offset);
	for (uint32_t number = 0; offset < length; number++) {
		struct chunk_key key = chunk_key_make(record->chunk_id, number);
		MDB_val name = {sizeof key.bytes, key.bytes}, value = {0, NULL};
		int error = mdb_get(txn, tables->chunks, &name, &value);
		size_t part;

		if (error == MDB_NOTFOUND || (error == 0 && value.mv_size != chunk_length(record->length, number)))
			return RSHM_E_CORRUPT;
		if (error != 0)
			return record_status(error);
		part = length - offset < value.mv_size ? length - offset : value.mv_size;
		memcpy(to + offset, value.mv_data, part);
		offset += part;
	}
	return RSHM_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

static MDB_val expiry_key_make(unsigned char bytes[EXPIRY_KEY_MAX], uint64_t expiry_ms, const void *key,
			       size_t key_len)
{
	uint64_t big_expiry = htobe64(expiry_ms);

	must(key_len <= KEYS_EMBEDDED_MAX);
	memcpy(bytes, &big_expiry, 8);
	memcpy(bytes + 8, key, key_len);
	return (MDB_val){8 + key_len, bytes};
}

static int expiry_add(struct record_txn *txn, uint64_t expiry_ms, const void *key, size_t key_len)
{
	unsigned char bytes[EXPIRY_KEY_MAX];
	MDB_val name = expiry_key_make(bytes, expiry_ms, key, key_len), nothing = {0, NULL};

	return expiry_ms == 0 ? 0 : mdb_put(txn->txn, txn->tables->expiry, &name, &nothing, 0);
}

static int expiry_remove(struct record_txn *txn, uint64_t expiry_ms, const void *key, size_t key_len)
{
	unsigned char bytes[EXPIRY_KEY_MAX];
	MDB_val name = expiry_key_make(bytes, expiry_ms, key, key_len);
	int error = expiry_ms == 0 ? 0 : mdb_del(txn->txn, txn->tables->expiry, &name, NULL);

	return error == MDB_NOTFOUND ? 0 : error;
}

static int chunks_put(struct record_txn *txn, uint64_t id, const unsigned char *envelope, uint32_t length)
{
	size_t part, offset = ENVELOPE_HEAD_BYTES;
	int error = 0;

	for (uint32_t number = 0; error == 0 && (part = chunk_length(length, number)) > 0; number++) {
		struct chunk_key key = chunk_key_make(id, number);
		MDB_val name = {sizeof key.bytes, key.bytes};
		MDB_val value = record_val(envelope + offset, part);

		error = mdb_put(txn->txn, txn->tables->chunks, &name, &value, MDB_APPEND);
		offset += part;
	}
	return error;
}

static int chunks_remove(struct record_txn *txn, const struct record *record)
{
	for (uint32_t number = 0; chunk_length(record->length, number) > 0; number++) {
		struct chunk_key key = chunk_key_make(record->chunk_id, number);
		MDB_val name = {sizeof key.bytes, key.bytes};
		int error = mdb_del(txn->txn, txn->tables->chunks, &name, NULL);

		if (error != 0 && error != MDB_NOTFOUND)
			return error;
	}
	return 0;
}

/* Takes away all that belongs to a record but the record itself. */
static int record_release(struct record_txn *txn, const void *key, size_t key_len, const struct record *record)
{
	uint64_t bytes = key_len + record->length;
	int error = expiry_remove(txn, record->expiry_ms, key, key_len);

	if (error == 0 && record->kind == RECORD_CHUNKED)
		error = chunks_remove(txn, record);
	/* After damage the counts may be too low already. */
	txn->counts.entries -= txn->counts.entries > 0;
	txn->counts.bytes -= bytes < txn->counts.bytes ? bytes : txn->counts.bytes;
	return error;
}

/* Stores `record` and the part of its envelope that belongs into `main`. */
static int main_put(struct record_txn *txn, const void *key, size_t key_len, const struct record *record)
{
	bool whole = record->kind == RECORD_WHOLE;
	size_t part = whole ? record->length : ENVELOPE_HEAD_BYTES;
	MDB_val name = record_val(key, key_len), value = {RECORD_HEAD + (whole ? 0 : 8) + part, NULL};
	uint32_t length = htole32(record->length);
	uint64_t expiry = htole64(record->expiry_ms), id = htole64(record->chunk_id);
	int error = mdb_put(txn->txn, txn->tables->main, &name, &value, MDB_RESERVE);
	unsigned char *to = value.mv_data;

	if (error != 0)
		return error;
	memset(to, 0, RECORD_HEAD);
	to[0] = (unsigned char)record->kind;
	memcpy(to + 4, &length, 4);
	memcpy(to + 8, &expiry, 8);
	if (!whole)
		memcpy(to + RECORD_HEAD, &id, 8);
	memcpy(to + RECORD_HEAD + (whole ? 0 : 8), record->envelope, part);
	return 0;
}

static bool is_older(const struct envelope_head *head, const struct envelope_head *than)
{
	return head->version != than->version ? head->version < than->version : head->writer_id < than->writer_id;
}

/* Whether the record holds a tombstone. One whose envelope cannot be read is taken for an entry. */
static bool record_is_tombstone(const struct record *record)
{
	struct envelope_head head;

	return envelope_peek_head(record->envelope, ENVELOPE_HEAD_BYTES, &head) == RSHM_OK &&
	       (head.flags & ENVELOPE_FLAG_TOMBSTONE) != 0;
}

/* IF_OLDER: a tombstone counts, and what is damaged is older than all. */
static int check_older(const struct envelope_head *head, int found, const void *envelope)
{
	struct envelope_head new;
	int status = envelope_peek_head(envelope, ENVELOPE_HEAD_BYTES, &new);

	if (status < 0)
		return status == RSHM_E_CORRUPT ? RSHM_E_INVALID : status;
	if (found < 0)
		return found == RSHM_E_CORRUPT ? RSHM_OK : found;
	return found == RSHM_MISS || is_older(head, &new) ? RSHM_OK : RSHM_CONFLICT;
}

int record_check(struct record_txn *txn, const void *key, size_t key_len, const struct record_condition *condition,
		 uint64_t *ret_found)
{
	struct envelope_head head = {0};
	struct record record = {0};
	uint64_t version; /* of the live entry */
	int status, found;
	bool live;

	if (condition->condition == STORE_ALWAYS)
		return RSHM_OK;
	found = record_find(txn->txn, txn->tables, key, key_len, &record);
	if (found == RSHM_OK && record_expired(&record, txn->now_ms))
		found = RSHM_MISS;
	if (found == RSHM_OK)
		found = envelope_peek_head(record.envelope, ENVELOPE_HEAD_BYTES, &head);
	live = found == RSHM_OK && !(head.flags & ENVELOPE_FLAG_TOMBSTONE);
	version = live ? head.version : 0;
	if (condition->condition == STORE_IF_OLDER)
		status = check_older(&head, found, condition->envelope);
	else if (found < 0)
		status = found;
	else if (condition->condition == STORE_IF_ABSENT ||
		 (condition->condition == STORE_IF_VERSION && condition->expected_version == 0))
		status = live ? RSHM_CONFLICT : RSHM_OK;
	else if (condition->condition == STORE_IF_PRESENT)
		status = live ? RSHM_OK : RSHM_CONFLICT;
	else
		status = version == condition->expected_version ? RSHM_OK : RSHM_CONFLICT;
	if (status == RSHM_CONFLICT)
		*ret_found = version;
	return status;
}

int record_put(struct record_txn *txn, const void *key, size_t key_len, const void *envelope, size_t envelope_len,
	       uint64_t expiry_ms)
{
	struct record new = {
		.kind = envelope_len <= RECORD_CHUNK ? RECORD_WHOLE : RECORD_CHUNKED,
		.length = (uint32_t)envelope_len,
		.expiry_ms = expiry_ms,
		.envelope = envelope,
	};
	struct record old = {0};
	int error = 0, found = record_find(txn->txn, txn->tables, key, key_len, &old);

	must(envelope_len >= ENVELOPE_HEAD_BYTES && envelope_len <= RECORD_ENVELOPE_MAX);
	if (found < 0 && found != RSHM_E_CORRUPT)
		return found;
	if (found == RSHM_OK)
		error = record_release(txn, key, key_len, &old);
	else if (found == RSHM_E_CORRUPT)
		txn->counts.entries -= txn->counts.entries > 0;
	if (error == 0 && new.kind == RECORD_CHUNKED) {
		new.chunk_id = txn->counts.chunk_next++;
		error = chunks_put(txn, new.chunk_id, envelope, new.length);
	}
	if (error == 0)
		error = main_put(txn, key, key_len, &new);
	if (error == 0)
		error = expiry_add(txn, expiry_ms, key, key_len);
	txn->counts.entries++;
	txn->counts.bytes += key_len + envelope_len;
	return record_status(error);
}

int record_delete(struct record_txn *txn, const void *key, size_t key_len)
{
	MDB_val name = record_val(key, key_len);
	struct record old = {0};
	bool absent = false;
	int error = 0, found = record_find(txn->txn, txn->tables, key, key_len, &old);

	if (found == RSHM_MISS || (found < 0 && found != RSHM_E_CORRUPT))
		return found;
	if (found == RSHM_OK) {
		absent = record_expired(&old, txn->now_ms) || record_is_tombstone(&old);
		error = record_release(txn, key, key_len, &old);
	} else {
		txn->counts.entries -= txn->counts.entries > 0;
	}
	if (error == 0)
		error = mdb_del(txn->txn, txn->tables->main, &name, NULL);
	return error == 0 && absent ? RSHM_MISS : record_status(error);
}

int record_touch(struct record_txn *txn, const void *key, size_t key_len, uint64_t expiry_ms)
{
	struct record record = {0};
	uint64_t old_ms;
	size_t part;
	void *copy;
	int error, status = record_find(txn->txn, txn->tables, key, key_len, &record);

	if (status != RSHM_OK)
		return status;
	if (record_expired(&record, txn->now_ms) || record_is_tombstone(&record))
		return RSHM_MISS;
	part = record.kind == RECORD_WHOLE ? record.length : ENVELOPE_HEAD_BYTES;
	copy = malloc(part);
	if (copy == NULL)
		return RSHM_E_NOMEM;
	/* The envelope lies in the map, and any change of the transaction may take it away: copy first. */
	must(record.envelope != NULL);
	memcpy(copy, record.envelope, part);
	envelope_set_expiry(copy, txn->now_ms, expiry_ms);
	old_ms = record.expiry_ms;
	record.envelope = copy;
	record.expiry_ms = expiry_ms;
	error = expiry_remove(txn, old_ms, key, key_len);
	if (error == 0)
		error = main_put(txn, key, key_len, &record);
	if (error == 0)
		error = expiry_add(txn, expiry_ms, key, key_len);
	free(copy);
	return record_status(error);
}

/* ---- expiry ------------------------------------------------------------------------------------------------- */

/* Removes the entry that a pair of the index names, if it still has that expiry. `ret_bytes` grows by its size. */
static int sweep_one(struct record_txn *txn, uint64_t expiry_ms, const void *key, size_t key_len, uint64_t *ret_bytes)
{
	MDB_val name = record_val(key, key_len);
	struct record record = {0};
	int error, found = record_find(txn->txn, txn->tables, key, key_len, &record);

	if (found == RSHM_OK && record.expiry_ms == expiry_ms) {
		*ret_bytes += record.length;
		error = record_release(txn, key, key_len, &record);
		if (error == 0)
			error = mdb_del(txn->txn, txn->tables->main, &name, NULL);
		return record_status(error);
	}
	if (found < 0 && found != RSHM_E_CORRUPT)
		return found;
	return record_status(expiry_remove(txn, expiry_ms, key, key_len));
}

/* The oldest pair of the index, copied out. RSHM_MISS if there is none that is over. */
static int sweep_next(struct record_txn *txn, MDB_cursor *cursor, unsigned char copy[EXPIRY_KEY_MAX],
		      size_t *ret_length, uint64_t *ret_expiry_ms)
{
	MDB_val name, value;
	int error = mdb_cursor_get(cursor, &name, &value, MDB_FIRST);
	uint64_t expiry_ms;

	if (error != 0)
		return record_status(error);
	if (name.mv_size <= 8 || name.mv_size > EXPIRY_KEY_MAX)
		return RSHM_E_CORRUPT;
	memcpy(copy, name.mv_data, name.mv_size);
	memcpy(&expiry_ms, copy, 8);
	if (be64toh(expiry_ms) > txn->now_ms)
		return RSHM_MISS;
	*ret_length = name.mv_size;
	*ret_expiry_ms = be64toh(expiry_ms);
	return RSHM_OK;
}

int record_sweep(struct record_txn *txn, uint32_t limit, uint32_t *ret_removed, bool *ret_more)
{
	uint64_t bytes = 0, expiry_ms = 0;
	uint32_t removed = 0;
	unsigned char copy[EXPIRY_KEY_MAX];
	size_t length = 0;
	MDB_cursor *cursor;
	int status = record_status(mdb_cursor_open(txn->txn, txn->tables->expiry, &cursor));

	if (status < 0)
		return status;
	while ((status = sweep_next(txn, cursor, copy, &length, &expiry_ms)) != RSHM_MISS) {
		if (status == RSHM_OK && (removed == limit || bytes >= RECORD_SWEEP_BYTES))
			break;
		if (status == RSHM_OK)
			status = sweep_one(txn, expiry_ms, copy + 8, length - 8, &bytes);
		else if (status == RSHM_E_CORRUPT)
			status = record_status(mdb_cursor_del(cursor, 0));
		if (status < 0)
			break;
		removed++;
	}
	mdb_cursor_close(cursor);
	if (status < 0)
		return status;
	*ret_more = status == RSHM_OK;
	*ret_removed = removed;
	return RSHM_OK;
}

/* ---- counts ------------------------------------------------------------------------------------------------- */

int record_counts_load(MDB_txn *txn, const struct record_tables *tables, struct record_counts *ret)
{
	MDB_val name = record_val("counts", 6), value = {0, NULL};
	uint64_t stored[3];
	int error = mdb_get(txn, tables->meta, &name, &value);

	if (error == MDB_NOTFOUND) {
		*ret = (struct record_counts){.chunk_next = 1};
		return RSHM_OK;
	}
	if (error != 0)
		return record_status(error);
	if (value.mv_size != sizeof stored)
		return RSHM_E_CORRUPT;
	memcpy(stored, value.mv_data, sizeof stored);
	*ret = (struct record_counts){le64toh(stored[0]), le64toh(stored[1]), le64toh(stored[2])};
	return RSHM_OK;
}

int record_counts_save(struct record_txn *txn)
{
	uint64_t stored[3] = {htole64(txn->counts.entries), htole64(txn->counts.bytes),
			      htole64(txn->counts.chunk_next)};
	MDB_val name = record_val("counts", 6), value = {sizeof stored, stored};

	return record_status(mdb_put(txn->txn, txn->tables->meta, &name, &value, 0));
}
