/*
 * many.c - many entries by what they have in common, and many brought into shared memory.
 *
 * Invalidations are writes: one that was taken and not answered may have happened (RIPTIDE_EUNKNOWN), and saying it again is
 * right. Warming goes out in small pieces, each with a deadline of its own, so that a long list neither fails for its length
 * nor keeps silent: what was counted so far always stands in the caller's struct.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "client-lib/riptide_priv.h"

#define WARM_ITEMS 256u         /* of a piece */
#define WARM_BYTES (256u << 10) /* of a piece, before its last item */
#define WARM_BODY (WARM_BYTES + sizeof(struct rshm_batch_item) + RSHM_KEY_MAX)

/* Runs a write about the keys that `length` bytes stand for. */
static int change_many(riptide *handle, struct rt_call *call, const void *bytes, size_t length)
{
	call->writes = true;
	call->key = bytes;
	call->key_length = length;
	call->parts[0] = (struct rt_part){bytes, length};
	return rt_call(handle, call);
}

int riptide_invalidate_tag(riptide *handle, const char *tag)
{
	size_t length = tag ? strlen(tag) : 0;
	struct rt_call call;
	int status = rt_begin(handle, &call, "invalidate_tag", RSHM_OP_INVALIDATE_TAG);

	if (status < 0)
		return status;
	if (length == 0 || length > RT_TAG_MAX)
		return rt_fail(handle, length ? RIPTIDE_ETOOBIG : RIPTIDE_EINVALID, call.verb, tag, length,
			       "a tag has 1 to 255 bytes");
	return change_many(handle, &call, tag, length);
}

static int check_prefix(riptide *handle, const char *verb, const void *prefix, size_t length)
{
	if ((prefix || length == 0) && length <= RSHM_KEY_MAX)
		return RIPTIDE_OK;
	return rt_fail(handle, prefix ? RIPTIDE_ETOOBIG : RIPTIDE_EINVALID, verb, prefix, length,
		       "a prefix has 0 to 65535 bytes");
}

int riptide_invalidate_prefix(riptide *handle, const void *prefix, size_t prefix_length, uint64_t *ret_removed)
{
	struct rt_call call;
	int status = rt_begin(handle, &call, "invalidate_prefix", RSHM_OP_INVALIDATE_PREFIX);

	if (status == RIPTIDE_OK)
		status = check_prefix(handle, call.verb, prefix, prefix_length);
	if (status == RIPTIDE_OK)
		status = change_many(handle, &call, prefix, prefix_length);
	if (status == RIPTIDE_OK && ret_removed)
		*ret_removed = call.answer.version;
	return status;
}

int riptide_clear(riptide *handle)
{
	struct rt_call call;
	int status = rt_begin(handle, &call, "clear", RSHM_OP_CLEAR);

	return status < 0 ? status : change_many(handle, &call, NULL, 0);
}

/* ---- warm --------------------------------------------------------------------------------------------------- */

/* The answer to a list, as it travels; `taken`: so many of the first items were begun. */
struct warm_counts {
	uint64_t loaded, absent, failed, taken;
};

/* The answer to a prefix: counts, then where to go on. */
struct warm_page {
	uint64_t loaded, absent, failed;
	unsigned char cursor[RIPTIDE_CURSOR_MAX];
};

/* Some of the caller's items, as they travel. */
struct warm_piece {
	unsigned char *body; /* WARM_BODY bytes */
	size_t length;
	size_t count;              /* items that it covers, those with bad keys included */
	uint32_t picked;           /* items that travel */
	uint16_t ends[WARM_ITEMS]; /* items covered before each that travels */
};

/* Fills the piece with the first of `left` items. */
static void pick(struct warm_piece *piece, const struct riptide_item *items, size_t left)
{
	piece->length = piece->count = piece->picked = 0;
	while (piece->count < left && piece->count < UINT16_MAX && piece->picked < WARM_ITEMS &&
	       piece->length < WARM_BYTES) {
		const struct riptide_item *item = &items[piece->count++];
		struct rshm_batch_item head = {.key_len = (uint16_t)item->key_length};

		if (!item->key || item->key_length == 0 || item->key_length > RSHM_KEY_MAX)
			continue;
		piece->ends[piece->picked] = (uint16_t)(piece->count - 1);
		memcpy(piece->body + piece->length, &head, sizeof(head));
		memcpy(piece->body + piece->length + sizeof(head), item->key, item->key_length);
		piece->length += sizeof(head) + item->key_length;
		piece->picked++;
	}
}

static int place_counts(struct rt_call *call)
{
	if (call->answer.answer_len != sizeof(struct warm_counts) || call->answer.metadata_len)
		return RIPTIDE_EPROTOCOL;
	call->body_to = call->context;
	return RIPTIDE_OK;
}

static int place_page(struct rt_call *call)
{
	uint32_t length = call->answer.answer_len;

	if (length < offsetof(struct warm_page, cursor) || length > sizeof(struct warm_page) ||
	    call->answer.metadata_len)
		return RIPTIDE_EPROTOCOL;
	call->body_to = call->context;
	return RIPTIDE_OK;
}

static int protocol_error(riptide *handle)
{
	return rt_fail(handle, RIPTIDE_EPROTOCOL, "warm", NULL, 0, NULL);
}

/* *ret_taken: how many of the caller's items are done with. */
static int warm_piece(riptide *handle, const struct warm_piece *piece, struct riptide_warmed *warmed,
		      size_t *ret_taken)
{
	struct warm_counts counts = {.taken = piece->picked};
	struct rt_call call;
	int status;

	rt_call_init(&call, "warm", RSHM_OP_WARM, NULL, 0, rt_deadline_ms(handle));
	call.items = piece->picked;
	call.parts[0] = (struct rt_part){piece->body, piece->length};
	call.place = place_counts;
	call.context = &counts;
	status = piece->picked ? rt_call(handle, &call) : RIPTIDE_OK;
	if (status < 0)
		return status;
	if (status > 0 || counts.taken > piece->picked || counts.loaded > counts.taken ||
	    counts.absent > counts.taken - counts.loaded)
		return protocol_error(handle);
	/* What could not be begun in time goes out again; keys that are none are in no piece but the whole one. */
	*ret_taken = counts.taken == piece->picked ? piece->count : piece->ends[counts.taken];
	if (*ret_taken == 0)
		return rt_fail(handle, RIPTIDE_ETIMEDOUT, "warm", NULL, 0, "not one key could be begun in time");
	warmed->loaded += counts.loaded;
	warmed->absent += counts.absent;
	warmed->failed += *ret_taken - counts.loaded - counts.absent;
	return RIPTIDE_OK;
}

int riptide_warm(riptide *handle, const struct riptide_item *items, size_t count, struct riptide_warmed *ret_warmed)
{
	struct riptide_warmed nobody = {0}, *warmed = ret_warmed ? ret_warmed : &nobody;
	struct warm_piece piece;
	int status = rt_check_open(handle, "warm");
	size_t taken = 0;

	if (status < 0)
		return status;
	piece.body = items || count == 0 ? malloc(WARM_BODY) : NULL;
	if (!piece.body)
		return rt_fail(handle, items ? RIPTIDE_ENOMEM : RIPTIDE_EINVALID, "warm", NULL, 0, NULL);
	*warmed = (struct riptide_warmed){.total = count};
	for (size_t done = 0; done < count && status == RIPTIDE_OK; done += taken) {
		pick(&piece, items + done, count - done);
		status = warm_piece(handle, &piece, warmed, &taken);
	}
	free(piece.body);
	return status;
}

int riptide_warm_prefix_next(riptide *handle, const void *prefix, size_t prefix_length, struct riptide_cursor *cursor,
			     struct riptide_warmed *warmed)
{
	struct warm_page page = {.loaded = 0};
	struct rt_call call;
	int status = rt_begin(handle, &call, "warm_prefix", RSHM_OP_WARM_PREFIX);

	if (status == RIPTIDE_OK)
		status = check_prefix(handle, call.verb, prefix, prefix_length);
	if (status == RIPTIDE_OK && cursor->length > sizeof(cursor->bytes))
		status = rt_fail(handle, RIPTIDE_EINVALID, call.verb, NULL, 0, "the cursor is not one of ours");
	if (status < 0)
		return status;
	call.key = prefix;
	call.key_length = prefix_length;
	call.parts[0] = (struct rt_part){prefix, prefix_length};
	call.parts[2] = (struct rt_part){cursor->bytes, cursor->length};
	call.place = place_page;
	call.context = &page;
	status = rt_call(handle, &call);
	if (status < 0)
		return status;
	if (status > 0)
		return protocol_error(handle);
	cursor->length = call.answer.answer_len - (uint32_t)offsetof(struct warm_page, cursor);
	memcpy(cursor->bytes, page.cursor, cursor->length);
	warmed->loaded += page.loaded;
	warmed->absent += page.absent;
	warmed->failed += page.failed;
	warmed->total += page.loaded + page.absent + page.failed;
	return RIPTIDE_OK;
}

int riptide_warm_prefix(riptide *handle, const void *prefix, size_t prefix_length, struct riptide_warmed *ret_warmed)
{
	struct riptide_warmed nobody = {0}, *warmed = ret_warmed ? ret_warmed : &nobody;
	struct riptide_cursor cursor = {.length = 0};
	int status;

	*warmed = (struct riptide_warmed){0};
	do
		status = riptide_warm_prefix_next(handle, prefix, prefix_length, &cursor, warmed);
	while (status == RIPTIDE_OK && cursor.length > 0);
	return status;
}
