/*
 * A page of LIST: one SCAN, and for hashed names the keys from their envelopes.
 *
 *	SCAN ─> plain names ─────────────────(begins as asked?)─────> result
 *	   └──> hashed names ─> GETRANGE ────(begins as asked?)─────> result
 *	            ^              │
 *	            └─ once more, if the key is longer than what was asked for
 *
 * A name that SCAN tells is believed only if keys.c makes the same name of the key it stands for; so no other tenant,
 * generation or space is listed, nor is what another program called nearly the same. Hashed names that hold a tombstone
 * or no envelope are left out; plain ones are not fetched, so tombstones among them are listed.
 *
 * SCAN's cursor needs no state in the server, so each page may go over another connection, and a page whose connection
 * is lost is asked for again as a whole.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/store/envelope.h"
#include "agent/store/redis/node.h"
#include "agent/store/redis/redis_priv.h"
#include "shm/msg.h"

#define LISTING_MAGIC 0x7265646cu
#define LISTING_CURSOR_MAX 20u     /* digits of 64 bits */
#define LISTING_COUNT_DEFAULT 100u /* names that SCAN looks at */
#define LISTING_COUNT_MAX 1024u
#define LISTING_ROUND_MAX 64u   /* GETRANGEs at a time */
#define LISTING_KEY_FIRST 1024u /* bytes of a key that are fetched before its length is known */
#define LISTING_RESULT_MAX (128u << 20)

/* A hashed name whose key is wanted. */
struct listing_name {
	struct listing_name *next;
	size_t wanted; /* bytes of the envelope */
	size_t length;
	char bytes[];
};

struct listing_names {
	struct listing_name *first, *last;
};

struct redis_listing {
	uint32_t magic;
	struct keys_pattern pattern;
	struct listing_names waiting, asked;
	unsigned char *result;
	size_t result_length, result_capacity;
	char cursor[LISTING_CURSOR_MAX]; /* where the next page begins */
	size_t cursor_length;
	int status; /* what went wrong first */
};

static struct redis_listing *listing_of(const struct store_request *request)
{
	struct redis_listing *listing = request->slot;

	must(listing != NULL && listing->magic == LISTING_MAGIC);
	return listing;
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

static void names_append(struct listing_names *names, struct listing_name *name)
{
	name->next = NULL;
	if (names->last != NULL)
		names->last->next = name;
	else
		names->first = name;
	names->last = name;
}

static struct listing_name *names_take(struct listing_names *names)
{
	struct listing_name *name = names->first;

	must(name != NULL);
	names->first = name->next;
	if (names->first == NULL)
		names->last = NULL;
	return name;
}

static void names_clear(struct listing_names *names)
{
	while (names->first != NULL)
		free(names_take(names));
}

static void listing_fail(struct redis_listing *listing, int status)
{
	if (listing->status == RSHM_OK)
		listing->status = status;
}

static void listing_want(struct redis_listing *listing, const char *bytes, size_t length)
{
	struct listing_name *name;

	/* What is longer was not made by keys.c. */
	if (length > KEYS_REDIS_MAX)
		return;
	name = malloc(sizeof(*name) + length);
	if (name == NULL) {
		listing_fail(listing, RSHM_E_NOMEM);
		return;
	}
	name->wanted = ENVELOPE_HEAD_BYTES + LISTING_KEY_FIRST;
	name->length = length;
	memcpy(name->bytes, bytes, length);
	names_append(&listing->waiting, name);
}

/* ---- result ---------------------------------------------------------------------------------------------------- */

/* Room for an item of `length` bytes behind the result; NULL if there is none. */
static unsigned char *listing_room(struct redis_listing *listing, size_t length)
{
	size_t needed = listing->result_length + length;
	unsigned char *result;

	if (needed > LISTING_RESULT_MAX) {
		listing_fail(listing, RSHM_E_TOOBIG);
		return NULL;
	}
	if (needed > listing->result_capacity) {
		result = realloc(listing->result, 2 * needed);
		if (result == NULL) {
			listing_fail(listing, RSHM_E_NOMEM);
			return NULL;
		}
		listing->result = result;
		listing->result_capacity = 2 * needed;
	}
	return listing->result + listing->result_length;
}

/* Whether the key begins as asked, and a Redis key of these bytes is its own. */
static bool key_is_listed(const struct redis_store *store, const struct store_name *asked, const void *key,
			  size_t key_len, const char *bytes, size_t length)
{
	struct store_name name = *asked;
	struct keys_redis own;

	if (key_len < asked->key_len || (asked->key_len > 0 && memcmp(key, asked->key, asked->key_len) != 0))
		return false;
	name.key = key;
	name.key_len = key_len;
	return keys_redis(&store->keys, &name, &own) == RSHM_OK && own.length == length &&
	       memcmp(own.bytes, bytes, length) == 0;
}

/* Adds the key that a name stands for, if it does. */
static void listing_add(const struct redis_store *store, struct store_request *request, const void *key,
			size_t key_len, const char *bytes, size_t length)
{
	struct redis_listing *listing = listing_of(request);
	uint16_t item = (uint16_t)key_len;
	unsigned char *to;

	if (!key_is_listed(store, &request->name, key, key_len, bytes, length))
		return;
	to = listing_room(listing, sizeof(item) + key_len);
	if (to == NULL)
		return;
	memcpy(to, &item, sizeof(item));
	memcpy(to + sizeof(item), key, key_len);
	listing->result_length += sizeof(item) + key_len;
}

int redis_listing_finish(struct store_request *request)
{
	struct redis_listing *listing = listing_of(request);

	if (listing->status != RSHM_OK)
		return listing->status;
	request->result = listing->result;
	request->result_len = listing->result_length;
	memcpy(request->cursor, listing->cursor, listing->cursor_length);
	request->cursor_len = listing->cursor_length;
	return RSHM_OK;
}

/* ---- the page -------------------------------------------------------------------------------------------------- */

static bool cursor_is_valid(const void *cursor, size_t length)
{
	const unsigned char *digits = cursor;

	if (length > LISTING_CURSOR_MAX)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (digits[i] < '0' || digits[i] > '9')
			return false;
	}
	return true;
}

int redis_listing_begin(const struct redis_store *store, struct store_request *request)
{
	struct redis_listing *listing;
	struct keys_pattern pattern;
	int status = keys_redis_pattern(&store->keys, &request->name, &pattern);

	redis_listing_destroy(&request->slot);
	if (status != RSHM_OK)
		return status;
	if (!cursor_is_valid(request->cursor, request->cursor_len))
		return RSHM_E_INVALID;
	listing = calloc(1, sizeof(*listing));
	if (listing == NULL)
		return RSHM_E_NOMEM;
	listing->magic = LISTING_MAGIC;
	listing->pattern = pattern;
	request->slot = listing;
	return RSHM_OK;
}

void redis_listing_put_scan(struct redis_output *output, const struct store_request *request)
{
	const struct redis_listing *listing = listing_of(request);
	uint32_t count = request->page_keys != 0 ? request->page_keys : LISTING_COUNT_DEFAULT;

	redis_output_command(output, 6, "SCAN");
	if (request->cursor_len > 0)
		redis_output_string(output, request->cursor, request->cursor_len);
	else
		redis_output_string(output, "0", 1);
	redis_output_string(output, "MATCH", 5);
	redis_output_string(output, listing->pattern.bytes, listing->pattern.length);
	redis_output_string(output, "COUNT", 5);
	redis_output_number(output, count < LISTING_COUNT_MAX ? count : LISTING_COUNT_MAX);
}

bool redis_listing_page_fits(const struct redis_reply *page)
{
	size_t position = 0, length;
	const char *cursor;

	return page->type == REDIS_REPLY_IS_PAGE && redis_reply_page_next(page, &position, &cursor, &length) &&
	       length > 0 && cursor_is_valid(cursor, length);
}

void redis_listing_on_page(const struct redis_store *store, struct store_request *request,
			   const struct redis_reply *page)
{
	struct redis_listing *listing = listing_of(request);
	size_t position = 0, length, key_at;
	const char *bytes;

	must(redis_reply_page_next(page, &position, &bytes, &length) && length <= sizeof(listing->cursor));
	listing->cursor_length = length == 1 && bytes[0] == '0' ? 0 : length;
	memcpy(listing->cursor, bytes, listing->cursor_length);
	while (listing->status == RSHM_OK && redis_reply_page_next(page, &position, &bytes, &length)) {
		switch (keys_redis_form(&store->keys, &request->name, bytes, length, &key_at)) {
		case KEYS_PLAIN:
			listing_add(store, request, bytes + key_at, length - key_at, bytes, length);
			break;
		case KEYS_HASHED:
			listing_want(listing, bytes, length);
			break;
		case KEYS_NAMESPACE:
		case KEYS_FOREIGN:
			break;
		}
	}
}

uint32_t redis_listing_put_names(struct redis_output *output, struct store_request *request)
{
	struct redis_listing *listing = listing_of(request);
	uint32_t count = 0;

	must(listing->asked.first == NULL);
	if (listing->status != RSHM_OK)
		return 0;
	for (; count < LISTING_ROUND_MAX && listing->waiting.first != NULL; count++) {
		struct listing_name *name = names_take(&listing->waiting);

		if (redis_node_is_asking(request))
			redis_output_command(output, 1, "ASKING");
		redis_output_command(output, 4, "GETRANGE");
		redis_output_string(output, name->bytes, name->length);
		redis_output_number(output, 0);
		redis_output_number(output, name->wanted - 1);
		names_append(&listing->asked, name);
	}
	return count;
}

/* True: its key is longer than what was asked for, and is asked for again. */
static bool listing_wants_more(struct redis_listing *listing, struct listing_name *name, size_t needed)
{
	if (needed <= name->wanted || name->wanted > ENVELOPE_HEAD_BYTES + LISTING_KEY_FIRST)
		return false;
	name->wanted = needed;
	names_append(&listing->waiting, name);
	return true;
}

void redis_listing_on_name(const struct redis_store *store, struct store_request *request,
			   const struct redis_reply *reply)
{
	struct redis_listing *listing = listing_of(request);
	struct listing_name *name = names_take(&listing->asked);
	struct envelope_head head;

	if (reply->type == REDIS_REPLY_IS_STRING &&
	    envelope_peek_head(reply->bytes, reply->length, &head) == RSHM_OK &&
	    (head.flags & ENVELOPE_FLAG_TOMBSTONE) == 0) {
		size_t key_at = envelope_key_offset(&head), needed = key_at + head.key_len;

		if (listing_wants_more(listing, name, needed))
			return;
		if (needed <= reply->length)
			listing_add(store, request, reply->bytes + key_at, head.key_len, name->bytes, name->length);
	}
	free(name);
}

void redis_listing_destroy(void **slot)
{
	struct redis_listing *listing = *slot;

	if (listing == NULL)
		return;
	must(listing->magic == LISTING_MAGIC);
	names_clear(&listing->waiting);
	names_clear(&listing->asked);
	free(listing->result);
	listing->magic = 0;
	free(listing);
	*slot = NULL;
}
