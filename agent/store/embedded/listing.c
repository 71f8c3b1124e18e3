/*
 * What STORE_LIST and the *_GENERATION requests need: the keys of a namespace page by page, and a tenant's record.
 *
 * Plain keys of a namespace lie together and in order, so a prefix is a range of `main`, and a page of them touches
 * no value. Long keys stand under their hash, in a range of their own behind the plain ones; whether one begins
 * with the prefix is seen in its envelope only, so a bounded number of them is looked at for one page.
 *
 * The cursor is the last LMDB key looked at, which need not be there any more: a page begins behind it. Tombstones
 * and expired entries are listed like others, for whoever empties a namespace must find them.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/store/embedded/record.h"
#include "agent/store/keys.h"

#define LIST_KEYS_MAX 4096u       /* of a page */
#define LIST_BYTES_MAX (1u << 20) /* of a page, about; also of what is copied to see long keys */
#define LIST_LONG_MAX 512u        /* long keys looked at for one page */
#define LIST_NAMESPACE_BYTES 13u  /* of an LMDB key: tenant, generation, space; its form follows */
#define SPACE_KEY_BYTES 9u

_Static_assert(KEYS_EMBEDDED_MAX <= STORE_CURSOR_MAX, "a cursor holds any LMDB key");
_Static_assert(LIST_NAMESPACE_BYTES + 1 == KEYS_EMBEDDED_HEAD, "the form is the last byte of a key's head");

struct page {
	MDB_txn *txn;
	const struct record_tables *tables;
	const struct store_name *name;
	uint32_t keys_max;
	struct keys_embedded last; /* length 0: from the start, and in the end: that was all */
	unsigned char *bytes;
	size_t length, capacity, copied;
	uint32_t keys, looks;
};

static bool page_is_full(const struct page *page)
{
	return page->keys >= page->keys_max || page->looks >= LIST_LONG_MAX || page->length >= LIST_BYTES_MAX ||
	       page->copied >= LIST_BYTES_MAX;
}

static int page_add(struct page *page, const void *key, size_t key_len)
{
	uint16_t length = (uint16_t)key_len;

	must(key_len <= RSHM_KEY_MAX);
	if (page->length + sizeof length + key_len > page->capacity) {
		size_t capacity = 2 * (page->capacity + sizeof length + key_len) + 1024;
		unsigned char *larger = realloc(page->bytes, capacity);

		if (larger == NULL)
			return RSHM_E_NOMEM;
		page->bytes = larger;
		page->capacity = capacity;
	}
	memcpy(page->bytes + page->length, &length, sizeof length);
	memcpy(page->bytes + page->length + sizeof length, key, key_len);
	page->length += sizeof length + key_len;
	page->keys++;
	return RSHM_OK;
}

static int page_add_if_prefixed(struct page *page, const unsigned char *key, size_t key_len)
{
	const struct store_name *name = page->name;

	if (key_len < name->key_len || (name->key_len > 0 && memcmp(key, name->key, name->key_len) != 0))
		return RSHM_OK;
	return page_add(page, key, key_len);
}

/* A long key stands in the envelope. Of a damaged one nobody knows it any more: it is passed over. */
static int page_look(struct page *page, const MDB_val *lmdb_key)
{
	struct envelope_head head;
	struct record record = {0};
	unsigned char *copy;
	size_t offset;
	int status = record_find(page->txn, page->tables, lmdb_key->mv_data, lmdb_key->mv_size, &record);

	page->looks++;
	if (status != RSHM_OK)
		return status == RSHM_E_CORRUPT ? RSHM_OK : status;
	if (envelope_peek_head(record.envelope, ENVELOPE_HEAD_BYTES, &head) != RSHM_OK)
		return RSHM_OK;
	offset = envelope_key_offset(&head);
	if (head.key_len <= KEYS_PLAIN_MAX || record.length < offset + head.key_len)
		return RSHM_OK;
	if (record.kind == RECORD_WHOLE)
		return page_add_if_prefixed(page, (const unsigned char *)record.envelope + offset, head.key_len);
	page->copied += offset + head.key_len;
	copy = malloc(offset + head.key_len);
	if (copy == NULL)
		return RSHM_E_NOMEM;
	status = record_copy(page->txn, page->tables, &record, copy, offset + head.key_len);
	if (status == RSHM_OK)
		status = page_add_if_prefixed(page, copy + offset, head.key_len);
	free(copy);
	return status == RSHM_E_CORRUPT ? RSHM_OK : status;
}

/* The first key of the range that is behind the last one looked at. Returns an LMDB error. */
static int range_begin(const struct page *page, MDB_cursor *cursor, const struct keys_embedded *range, MDB_val *ret)
{
	bool goes_on = page->last.length > 0 && memcmp(page->last.bytes, range->bytes, KEYS_EMBEDDED_HEAD) == 0;
	const struct keys_embedded *from = goes_on ? &page->last : range;
	MDB_val key = record_val(from->bytes, from->length), value;
	int error = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);

	if (error == 0 && goes_on && key.mv_size == from->length &&
	    memcmp(key.mv_data, from->bytes, from->length) == 0)
		error = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
	*ret = key;
	return error;
}

/* What begins with `range`, until the page is full. *ret_end: there is no more. */
static int list_range(struct page *page, MDB_cursor *cursor, const struct keys_embedded *range, bool *ret_end)
{
	bool hashed = range->bytes[LIST_NAMESPACE_BYTES] != 0;
	MDB_val key, value;
	int error = range_begin(page, cursor, range, &key), status;

	*ret_end = false;
	while (error == 0 && key.mv_size >= range->length && memcmp(key.mv_data, range->bytes, range->length) == 0) {
		if (page_is_full(page))
			return RSHM_OK;
		if (key.mv_size > sizeof page->last.bytes)
			return RSHM_E_CORRUPT;
		status = hashed ? page_look(page, &key)
				: page_add(page, (const unsigned char *)key.mv_data + KEYS_EMBEDDED_HEAD,
					   key.mv_size - KEYS_EMBEDDED_HEAD);
		if (status < 0)
			return status;
		memcpy(page->last.bytes, key.mv_data, key.mv_size);
		page->last.length = key.mv_size;
		error = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
	}
	if (error != 0 && error != MDB_NOTFOUND)
		return record_status(error);
	*ret_end = true;
	return RSHM_OK;
}

/* Plain keys, then long ones. `range` is the head of a plain one. */
static int list_forms(struct page *page, MDB_cursor *cursor, struct keys_embedded *range)
{
	bool plain_is_over = page->last.length > 0 && page->last.bytes[LIST_NAMESPACE_BYTES] != 0;
	int status = RSHM_OK;
	bool end = true;

	range->length = KEYS_EMBEDDED_HEAD;
	if (!plain_is_over && page->name->key_len <= KEYS_PLAIN_MAX) {
		if (page->name->key_len > 0)
			memcpy(range->bytes + range->length, page->name->key, page->name->key_len);
		range->length += page->name->key_len;
		end = false;
		status = list_range(page, cursor, range, &end);
		range->length = KEYS_EMBEDDED_HEAD;
	}
	if (status < 0 || !end)
		return status;
	range->bytes[LIST_NAMESPACE_BYTES] = 1;
	status = list_range(page, cursor, range, &end);
	if (end)
		page->last.length = 0;
	return status;
}

/* The head of the namespace's plain keys, and where the caller's cursor stands in it. */
static int list_prepare(struct page *page, const struct record_list *list, struct keys_embedded *ret_range)
{
	struct store_name some = *list->name;
	int status;

	if (list->page_keys == 0 || (some.key == NULL && some.key_len > 0))
		return RSHM_E_INVALID;
	if (some.key_len > RSHM_KEY_MAX)
		return RSHM_E_TOOBIG;
	some.key = "x";
	some.key_len = 1;
	status = keys_embedded(&some, ret_range);
	if (status < 0 || *list->cursor_len == 0)
		return status;
	if (*list->cursor_len <= KEYS_EMBEDDED_HEAD || *list->cursor_len > KEYS_EMBEDDED_MAX ||
	    memcmp(list->cursor, ret_range->bytes, LIST_NAMESPACE_BYTES) != 0 ||
	    list->cursor[LIST_NAMESPACE_BYTES] > 1)
		return RSHM_E_INVALID;
	memcpy(page->last.bytes, list->cursor, *list->cursor_len);
	page->last.length = *list->cursor_len;
	return RSHM_OK;
}

int record_list(MDB_txn *txn, const struct record_tables *tables, const struct record_list *list, void **ret_bytes,
		size_t *ret_length)
{
	struct page page = {
		.txn = txn,
		.tables = tables,
		.name = list->name,
		.keys_max = list->page_keys < LIST_KEYS_MAX ? list->page_keys : LIST_KEYS_MAX,
	};
	struct keys_embedded range;
	MDB_cursor *cursor;
	int status = list_prepare(&page, list, &range);

	if (status < 0)
		return status;
	status = record_status(mdb_cursor_open(txn, tables->main, &cursor));
	if (status < 0)
		return status;
	status = list_forms(&page, cursor, &range);
	mdb_cursor_close(cursor);
	if (status < 0) {
		free(page.bytes);
		return status;
	}
	memcpy(list->cursor, page.last.bytes, page.last.length);
	*list->cursor_len = page.last.length;
	*ret_bytes = page.bytes;
	*ret_length = page.length;
	return RSHM_OK;
}

/* ---- the namespace ------------------------------------------------------------------------------------------ */

static MDB_val space_key(unsigned char bytes[SPACE_KEY_BYTES], uint32_t tenant_number)
{
	uint32_t number = htobe32(tenant_number);

	memcpy(bytes, "space", 5);
	memcpy(bytes + 5, &number, 4);
	return record_val(bytes, SPACE_KEY_BYTES);
}

int record_space_load(MDB_txn *txn, const struct record_tables *tables, uint32_t tenant_number,
		      struct record_space *ret)
{
	unsigned char bytes[SPACE_KEY_BYTES];
	MDB_val key = space_key(bytes, tenant_number), value;
	uint64_t stored[2];
	struct record_space space;
	int error;

	if (tenant_number == 0)
		return RSHM_E_INVALID;
	error = mdb_get(txn, tables->meta, &key, &value);
	if (error == MDB_NOTFOUND) {
		*ret = (struct record_space){.generation = 1};
		return RSHM_OK;
	}
	if (error != 0)
		return record_status(error);
	if (value.mv_size != sizeof stored)
		return RSHM_E_CORRUPT;
	memcpy(stored, value.mv_data, sizeof stored);
	space = (struct record_space){.generation = le64toh(stored[0]), .swept = le64toh(stored[1])};
	if (space.generation <= space.swept || space.generation == UINT64_MAX)
		return RSHM_E_CORRUPT;
	*ret = space;
	return RSHM_OK;
}

int record_space_save(struct record_txn *txn, uint32_t tenant_number, const struct record_space *space)
{
	uint64_t stored[2] = {htole64(space->generation), htole64(space->swept)};
	unsigned char bytes[SPACE_KEY_BYTES];
	MDB_val key = space_key(bytes, tenant_number), value = {sizeof stored, stored};

	return record_status(mdb_put(txn->txn, txn->tables->meta, &key, &value, 0));
}
