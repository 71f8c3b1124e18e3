/*
 * batch.c - many keys, few submissions.
 *
 * A call's items are taken in order. What is hot is read at once; the rest goes out in submissions of at most 1 MiB of body
 * and RSHM_BATCH_MAX items, and the agent answers them item by item in the same order. An item too big for that travels
 * alone, as the single call would; a submission that the agent finds too big, or a get whose answers are, is halved. All submissions of a call share
 * its one deadline.
 *
 *	body and answer   { struct rshm_batch_item | key | metadata | value } ...
 */
#include <stdlib.h>
#include <string.h>

#include "client-lib/hot_priv.h"

#define BODY_MAX (1u << 20)
#define PENDING 1000 /* an item's status while nobody has answered it */

struct batch {
	/* set once */
	riptide *handle;
	const char *verb;
	uint16_t op;
	struct riptide_item *items;
	size_t count;
	uint64_t deadline_ms;
	/* per submission */
	size_t limit;      /* items; halved when the agent finds a submission too big */
	size_t begin, end; /* its items, and others between them that are not pending */
	uint32_t picked;
	unsigned char *body, *answer;
	size_t length, capacity;
};

/* ---- building ----------------------------------------------------------------------------------------------- */

static bool append(struct batch *b, const void *bytes, size_t length)
{
	if (b->capacity - b->length < length) {
		size_t capacity = b->capacity * 2 > b->length + length ? b->capacity * 2 : b->length + length;
		unsigned char *body = realloc(b->body, capacity);

		if (!body)
			return false;
		b->body = body;
		b->capacity = capacity;
	}
	if (length)
		memcpy(b->body + b->length, bytes, length);
	b->length += length;
	return true;
}

/* Appends one item. RIPTIDE_ETOOBIG: it has to travel alone. Other errors are the item's own. */
static int append_item(struct batch *b, const struct riptide_item *item)
{
	bool is_set = b->op == RSHM_OP_SET_BATCH;
	struct rshm_batch_item head = {.key_len = (uint16_t)item->key_length};
	struct rt_change change = {.metadata = NULL};
	size_t value_length = is_set ? item->value_length : 0, before = b->length;
	int status = RIPTIDE_OK;

	if (value_length > BODY_MAX)
		return RIPTIDE_ETOOBIG;
	if (is_set)
		status = rt_change_init(item->options, 0, &change);
	if (status < 0)
		return status == RIPTIDE_ETOOBIG ? RIPTIDE_EINVALID : status;
	head.value_len = (uint32_t)value_length;
	head.metadata_len = (uint16_t)change.metadata_length;
	head.ttl_ms = change.ttl_ms;
	head.flags = change.bits;
	if (b->length + sizeof(head) + item->key_length + change.metadata_length + value_length > BODY_MAX)
		status = RIPTIDE_ETOOBIG;
	else if (!append(b, &head, sizeof(head)) || !append(b, item->key, item->key_length) ||
		 !append(b, change.metadata, change.metadata_length) || !append(b, item->value, value_length))
		status = RIPTIDE_ENOMEM;
	if (status < 0)
		b->length = before;
	rt_change_fini(&change);
	return status;
}

/* Fills the body with the next pending items. Afterwards picked is 0 if the first of them has to travel alone, at `begin`. */
static void pick(struct batch *b)
{
	b->length = 0;
	b->picked = 0;
	for (b->end = b->begin; b->end < b->count && b->picked < b->limit; b->end++) {
		struct riptide_item *item = &b->items[b->end];
		int status;

		if (item->status != PENDING)
			continue;
		status = append_item(b, item);
		if (status == RIPTIDE_ETOOBIG) {
			if (b->picked == 0)
				b->begin = b->end;
			return;
		}
		if (status < 0)
			item->status = status;
		else
			b->picked++;
	}
}

/* ---- answers ------------------------------------------------------------------------------------------------ */

static int keep_result(struct riptide_item *item, const struct rshm_batch_item *head, const unsigned char *metadata)
{
	struct riptide_value *result = &item->result;
	int status = rt_value_alloc(head->value_len, head->metadata_len, result);

	if (status < 0)
		return status;
	memcpy(result->data, metadata + head->metadata_len, head->value_len);
	if (head->metadata_len)
		memcpy(result->metadata, metadata, head->metadata_len);
	item->value = result->data;
	item->value_length = result->length;
	return RIPTIDE_OK;
}

static void take_answer(const struct batch *b, struct riptide_item *item, const struct rshm_batch_item *head,
			const unsigned char *metadata)
{
	const struct rshm_answer answer = {
		.status = head->status,
		.flags = head->flags,
		.metadata_len = head->metadata_len,
		.version = head->version,
		.ttl_ms = head->ttl_ms,
	};

	item->status = head->status;
	item->version = head->version;
	if (b->op == RSHM_OP_SET_BATCH && head->status == RIPTIDE_OK)
		rt_tell_flags(item->options, head->flags);
	if (b->op != RSHM_OP_GET_BATCH || head->status < 0)
		return;
	rt_info_of_answer(&answer, &item->result.info);
	if (head->status == RIPTIDE_OK)
		item->status = keep_result(item, head, metadata);
}

/* Gives every item of the submission its answer. RIPTIDE_EPROTOCOL if the answer does not fit the question. */
static int distribute(struct batch *b, size_t length)
{
	const unsigned char *at = b->answer;

	for (size_t i = b->begin; i < b->end; i++) {
		struct riptide_item *item = &b->items[i];
		struct rshm_batch_item head;
		uint64_t bytes;

		if (item->status != PENDING)
			continue;
		if (length < sizeof(head))
			return RIPTIDE_EPROTOCOL;
		memcpy(&head, at, sizeof(head));
		bytes = sizeof(head) + (uint64_t)head.key_len + head.metadata_len + head.value_len;
		if (bytes > length || !rt_status_is_known(head.status))
			return RIPTIDE_EPROTOCOL;
		take_answer(b, item, &head, at + sizeof(head) + head.key_len);
		at += bytes;
		length -= bytes;
	}
	return length == 0 ? RIPTIDE_OK : RIPTIDE_EPROTOCOL;
}

static int place_answer(struct rt_call *call)
{
	struct batch *b = call->context;

	free(b->answer);
	b->answer = malloc((size_t)call->answer.answer_len + 1);
	call->body_to = b->answer;
	/* Items carry metadata of their own; of the answer as a whole there is none. */
	if (call->answer.metadata_len)
		return RIPTIDE_EPROTOCOL;
	return b->answer ? RIPTIDE_OK : RIPTIDE_ENOMEM;
}

/* ---- submitting --------------------------------------------------------------------------------------------- */

/* One item by itself. */
static int travel_alone(struct batch *b, struct riptide_item *item)
{
	struct riptide_value value;
	int status;

	if (b->op == RSHM_OP_SET_BATCH)
		return rt_set(b->handle, item->key, item->key_length, item->value, item->value_length, item->options,
			      b->deadline_ms, &item->version);
	if (b->op == RSHM_OP_DELETE_BATCH)
		return rt_delete(b->handle, item->key, item->key_length, b->deadline_ms);
	status = rt_ask_value(b->handle, item->key, item->key_length, b->deadline_ms, &value);
	if (status == RIPTIDE_OK) {
		item->result = value;
		item->value = value.data;
		item->value_length = value.length;
	} else if (status == RIPTIDE_MISS) {
		item->result.info = value.info;
	}
	return status;
}

/* Runs what pick() has prepared. */
static int submit(struct batch *b)
{
	struct rt_call call;
	int status;

	rt_call_init(&call, b->verb, b->op, NULL, 0, b->deadline_ms);
	call.writes = b->op != RSHM_OP_GET_BATCH;
	call.items = b->picked;
	call.parts[0] = (struct rt_part){b->body, b->length};
	call.place = place_answer;
	call.context = b;
	status = rt_call_run(b->handle, &call);
	if ((status == RIPTIDE_ETOOBIG || (status == RIPTIDE_EAGAIN && !call.writes)) && b->picked > 1) {
		b->limit = b->picked / 2;
		return RIPTIDE_OK;
	}
	if (status == RIPTIDE_OK)
		status = distribute(b, call.answer.answer_len);
	if (status == RIPTIDE_MISS)
		status = RIPTIDE_EPROTOCOL;
	if (status < 0)
		return rt_fail(b->handle, status, b->verb, NULL, 0, call.trouble);
	b->begin = b->end;
	return RIPTIDE_OK;
}

/* What the agent had no room for in a common answer is fetched alone. */
static void fetch_big_ones(struct batch *b)
{
	for (size_t i = 0; b->op == RSHM_OP_GET_BATCH && i < b->count; i++)
		if (b->items[i].status == RIPTIDE_EAGAIN && rshm_now_ms() < b->deadline_ms)
			b->items[i].status = travel_alone(b, &b->items[i]);
}

static int run(struct batch *b)
{
	int status = RIPTIDE_OK;

	while (status == RIPTIDE_OK && b->begin < b->count) {
		struct riptide_item *first;

		pick(b);
		if (b->picked > 0) {
			status = submit(b);
			continue;
		}
		if (b->end == b->count)
			break;
		first = &b->items[b->begin++];
		first->status = travel_alone(b, first);
	}
	for (size_t i = 0; i < b->count; i++)
		if (b->items[i].status == PENDING)
			b->items[i].status = status;
	if (status == RIPTIDE_OK)
		fetch_big_ones(b);
	free(b->body);
	free(b->answer);
	return status;
}

static void prepare_item(struct batch *b, struct riptide_item *item)
{
	item->status = rt_check_key(b->handle, b->verb, item->key, item->key_length);
	if (item->status == RIPTIDE_OK && b->op == RSHM_OP_SET_BATCH && !item->value && item->value_length)
		item->status = RIPTIDE_EINVALID;
	if (item->status != RIPTIDE_OK)
		return;
	item->status = PENDING;
	if (b->op != RSHM_OP_GET_BATCH)
		return;
	memset(&item->result, 0, sizeof(item->result));
	item->value = NULL;
	item->value_length = 0;
	item->status = rt_look_value(b->handle, item->key, item->key_length, NULL, &item->result);
	if (item->status == RT_RELOCATE && rt_relocate(b->handle, b->deadline_ms))
		item->status = rt_look_value(b->handle, item->key, item->key_length, NULL, &item->result);
	if (item->status >= RT_ASK)
		item->status = PENDING;
	if (item->status == RIPTIDE_OK) {
		item->value = item->result.data;
		item->value_length = item->result.length;
	}
}

static int batch(riptide *handle, const char *verb, uint16_t op, struct riptide_item *items, size_t count)
{
	struct batch b = {
		.handle = handle,
		.verb = verb,
		.op = op,
		.items = items,
		.count = count,
		.limit = RSHM_BATCH_MAX,
	};

	int status = rt_check_open(handle, verb);

	if (status < 0)
		return status;
	if (!items && count)
		return rt_fail(handle, RIPTIDE_EINVALID, verb, NULL, 0, "the items are missing");
	b.deadline_ms = rt_deadline_ms(handle);
	for (size_t i = 0; i < count; i++)
		prepare_item(&b, &items[i]);
	return run(&b);
}

int riptide_get_batch(riptide *handle, struct riptide_item *items, size_t count)
{
	return batch(handle, "get_batch", RSHM_OP_GET_BATCH, items, count);
}

int riptide_set_batch(riptide *handle, struct riptide_item *items, size_t count)
{
	return batch(handle, "set_batch", RSHM_OP_SET_BATCH, items, count);
}

int riptide_delete_batch(riptide *handle, struct riptide_item *items, size_t count)
{
	return batch(handle, "delete_batch", RSHM_OP_DELETE_BATCH, items, count);
}

void riptide_batch_free(struct riptide_item *items, size_t count)
{
	for (size_t i = 0; items && i < count; i++) {
		if (items[i].value == items[i].result.data)
			items[i].value = NULL;
		free(items[i].result.data);
		memset(&items[i].result, 0, sizeof(items[i].result));
	}
}
