/*
 * many.c - many entries by what they have in common, and many brought into shared memory.
 *
 * Invalidations are writes: one that was taken and not answered may have happened (RIPTIDE_EUNKNOWN), and saying it again is
 * right. Warming goes out in small pieces, each with a deadline of its own, so that a long list neither fails for its length
 * nor keeps silent: what was counted so far always stands in the caller's struct.
 */
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

/* The answer, as it travels. */
struct warm_counts {
	uint64_t loaded, absent, failed;
};

/* Some of the caller's items, as they travel. */
struct warm_piece {
	unsigned char *body; /* WARM_BODY bytes */
	size_t length;
	size_t count;    /* items that it covers, those with bad keys included */
	uint32_t picked; /* items that travel */
};

/* Fills the piece with the first of `left` items. */
static void pick(struct warm_piece *piece, const struct riptide_item *items, size_t left)
{
	piece->length = piece->count = piece->picked = 0;
	while (piece->count < left && piece->picked < WARM_ITEMS && piece->length < WARM_BYTES) {
		const struct riptide_item *item = &items[piece->count++];
		struct rshm_batch_item head = {.key_len = (uint16_t)item->key_length};

		if (!item->key || item->key_length == 0 || item->key_length > RSHM_KEY_MAX)
			continue;
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

/* Runs a call that answers with counts. RIPTIDE_EPROTOCOL: they do not add up to at most `items`. */
static int count(riptide *handle, struct rt_call *call, uint64_t items, struct warm_counts *ret)
{
	int status;

	call->place = place_counts;
	call->context = ret;
	status = rt_call(handle, call);
	if (status < 0)
		return status;
	if (status > 0 || ret->loaded > items || ret->absent > items - ret->loaded)
		return rt_fail(handle, RIPTIDE_EPROTOCOL, "warm", NULL, 0, NULL);
	return RIPTIDE_OK;
}

static int warm_piece(riptide *handle, const struct warm_piece *piece, struct riptide_warmed *warmed)
{
	struct warm_counts counts = {0, 0, 0};
	struct rt_call call;
	int status;

	rt_call_init(&call, "warm", RSHM_OP_WARM, NULL, 0, rt_deadline_ms(handle));
	call.items = piece->picked;
	call.parts[0] = (struct rt_part){piece->body, piece->length};
	status = piece->picked ? count(handle, &call, piece->picked, &counts) : RIPTIDE_OK;
	if (status < 0)
		return status;
	warmed->loaded += counts.loaded;
	warmed->absent += counts.absent;
	/* Whatever the agent did not get to, and what cannot be a key. */
	warmed->failed += piece->count - counts.loaded - counts.absent;
	return RIPTIDE_OK;
}

int riptide_warm(riptide *handle, const struct riptide_item *items, size_t count, struct riptide_warmed *ret_warmed)
{
	struct riptide_warmed nobody = {0}, *warmed = ret_warmed ? ret_warmed : &nobody;
	struct warm_piece piece;
	int status = rt_check_open(handle, "warm");

	if (status < 0)
		return status;
	piece.body = items || count == 0 ? malloc(WARM_BODY) : NULL;
	if (!piece.body)
		return rt_fail(handle, items ? RIPTIDE_ENOMEM : RIPTIDE_EINVALID, "warm", NULL, 0, NULL);
	*warmed = (struct riptide_warmed){.total = count};
	for (size_t done = 0; done < count && status == RIPTIDE_OK; done += piece.count) {
		pick(&piece, items + done, count - done);
		status = warm_piece(handle, &piece, warmed);
	}
	free(piece.body);
	return status;
}

int riptide_warm_prefix(riptide *handle, const void *prefix, size_t prefix_length, struct riptide_warmed *ret_warmed)
{
	struct warm_counts counts = {0, 0, 0};
	struct rt_call call;
	int status = rt_begin(handle, &call, "warm_prefix", RSHM_OP_WARM_PREFIX);

	if (status == RIPTIDE_OK)
		status = check_prefix(handle, call.verb, prefix, prefix_length);
	if (status < 0)
		return status;
	call.key = prefix;
	call.key_length = prefix_length;
	call.parts[0] = (struct rt_part){prefix, prefix_length};
	status = count(handle, &call, UINT64_MAX, &counts);
	if (status == RIPTIDE_OK && ret_warmed)
		*ret_warmed = (struct riptide_warmed){
			.loaded = counts.loaded,
			.absent = counts.absent,
			.failed = counts.failed,
			.total = counts.loaded + counts.absent + counts.failed,
		};
	return status;
}
