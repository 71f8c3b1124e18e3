/*
 * op_batch.c - many keys, one submission, one pipeline.
 *
 * The items of a body become operations like any other, a window of them at a time; the store sends all that were
 * submitted in one turn of the loop together. Results stand at the item's place, whatever order they arrive in, and the
 * answer goes out when the last one is there. An item whose value finds no staging memory left, or is too large for a
 * common answer, is answered RSHM_E_AGAIN: the client asks for it alone. The heads of the answer are reserved before
 * anything is changed, so that a batch of writes that has run can always say so.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/serve/serve_priv.h"

#define WARM_MARGIN_MS 150u  /* so long before its deadline a warming begins nothing more, and answers */
#define BATCH_WINDOW 1024u   /* items under way at a time; of a warming, what its pace allows */
#define BATCH_BIG (1u << 20) /* bytes of a value that is worth a request of its own */

struct batch_result {
	struct rshm_batch_item head;
	unsigned char *bytes; /* metadata ‖ value, staged */
};

struct batch {
	struct paced paced; /* first; of a warming */
	struct slot *slot;
	const unsigned char *next; /* in the body */
	uint32_t count, started, done;
	struct {
		uint64_t loaded, absent, failed, taken; /* of the items; so many of the first were begun */
	} warmed;
	bool starting, is_warming, cut; /* nothing more is begun */
	unsigned char *heads;           /* room for the answer of a batch without values */
	struct batch_result results[];
};

struct item_context {
	struct batch *batch;
	uint32_t index;
};

void batch_destroy(struct batch **batch)
{
	struct batch *b = *batch;

	*batch = NULL;
	if (!b)
		return;
	for (uint32_t i = 0; i < b->count; i++)
		free(b->results[i].bytes);
	free(b->heads);
	free(b);
}

static size_t answer_length(const struct batch *batch)
{
	size_t total = (size_t)batch->count * sizeof(struct rshm_batch_item);

	for (uint32_t i = 0; i < batch->count; i++)
		total += (size_t)batch->results[i].head.metadata_len + batch->results[i].head.value_len;
	return total;
}

/*
 * Leaves out big values, the largest first, until the answer fits staging memory twice: put together here, and kept
 * until the client has fetched it.
 */
static void leave_out_what_is_too_big(struct batch *batch)
{
	while (!staging_has_room(batch->slot, 2 * answer_length(batch))) {
		struct batch_result *largest = &batch->results[0];
		size_t bytes;

		for (uint32_t i = 1; i < batch->count; i++)
			if (batch->results[i].head.value_len > largest->head.value_len)
				largest = &batch->results[i];
		if (largest->head.value_len <= BATCH_BIG)
			return;
		bytes = (size_t)largest->head.metadata_len + largest->head.value_len;
		staging_give(batch->slot, largest->bytes, bytes);
		*largest = (struct batch_result){.head = {.status = RSHM_E_AGAIN}};
	}
}

static void answer_batch(struct batch *batch)
{
	struct slot *slot = batch->slot;
	struct client *client = slot->client;
	size_t total, at = 0;
	size_t heads = (size_t)batch->count * sizeof(struct rshm_batch_item);
	unsigned char *bytes = batch->heads;
	struct rshm_answer head = {.status = RSHM_OK};

	batch->heads = NULL;
	if (batch->is_warming) {
		batch->warmed.taken = batch->started;
		client->tenant->warmed.total += batch->started;
		request_answer(slot, &head, NULL, 0, &batch->warmed, sizeof(batch->warmed));
		free(bytes);
		client_unref(client);
		return;
	}
	leave_out_what_is_too_big(batch);
	total = answer_length(batch);
	if (total > heads) {
		free(bytes);
		bytes = total > UINT32_MAX ? NULL : staging_take(slot, total);
	}

	for (uint32_t i = 0; i < batch->count && bytes; i++) {
		const struct batch_result *r = &batch->results[i];
		size_t n = (size_t)r->head.metadata_len + r->head.value_len;

		memcpy(bytes + at, &r->head, sizeof(r->head));
		at += sizeof(r->head);
		if (n)
			memcpy(bytes + at, r->bytes, n);
		at += n;
	}
	if (bytes)
		request_answer(slot, &head, NULL, 0, bytes, total);
	else
		request_fail(slot, RSHM_E_AGAIN);
	free(bytes);
	client_unref(client);
}

static void start_items(struct batch *batch);

/* The answer goes out when nothing is under way and nothing more will be. */
static void item_on_warmed(struct batch *batch, int status)
{
	struct serve_tenant *tenant = batch->slot->client->tenant;

	warming_count(tenant, status);
	if (batch->done == batch->started && (batch->cut || batch->started == batch->count))
		answer_batch(batch);
	pace_leave(&tenant->pace, clock_monotonic_ms());
}

static void item_on_done(struct entry_op *op)
{
	struct item_context *item = op->context;
	struct batch *batch = item->batch;
	struct batch_result *r = &batch->results[item->index];
	size_t n = op->result_metadata_len + op->result_value_len;

	free(item);
	if (batch->is_warming) {
		batch->warmed.loaded += op->status == RSHM_OK;
		batch->warmed.absent += op->status == RSHM_MISS;
		batch->warmed.failed += op->status < 0;
		n = 0;
	}
	r->head.status = op->status;
	r->head.flags = op->answer_flags;
	r->head.version = op->version;
	r->head.ttl_ms = op->remaining_ms;
	if (op->status == RSHM_OK && n > 0) {
		r->bytes = batch->slot->client->dropped ? NULL : staging_take(batch->slot, n);
		if (r->bytes) {
			r->head.metadata_len = (uint16_t)op->result_metadata_len;
			r->head.value_len = (uint32_t)op->result_value_len;
			if (op->result_metadata_len)
				memcpy(r->bytes, op->result_metadata, op->result_metadata_len);
			if (op->result_value_len)
				memcpy(r->bytes + op->result_metadata_len, op->result_value, op->result_value_len);
		} else {
			r->head.status = RSHM_E_AGAIN;
		}
	}
	batch->done++;
	if (batch->is_warming)
		item_on_warmed(batch, op->status);
	else if (!batch->starting)
		start_items(batch);
}

static bool run_item(struct batch *batch)
{
	struct slot *slot = batch->slot;
	struct item_context *context = malloc(sizeof(*context));
	struct entry_op *op = context ? entry_create(slot->client->worker, slot->client->tenant) : NULL;
	struct rshm_batch_item head;

	if (!op) {
		free(context);
		return false;
	}
	memcpy(&head, batch->next, sizeof(head));
	context->batch = batch;
	context->index = batch->started++;
	op->key = batch->next + sizeof(head);
	op->key_len = head.key_len;
	op->metadata = batch->next + sizeof(head) + head.key_len;
	op->metadata_len = head.metadata_len;
	op->value = batch->next + sizeof(head) + head.key_len + head.metadata_len;
	op->value_len = head.value_len;
	batch->next += sizeof(head) + head.key_len + (size_t)head.metadata_len + head.value_len;
	op->ttl_ms = head.ttl_ms;
	op->deadline_ms = slot->request.deadline_ms;
	op->flags = slot->request.flags & ~(RSHM_REQUEST_TICKET | RSHM_REQUEST_NEGATIVE);
	op->change = head.flags;
	op->expected_version = head.version;
	op->quiet = batch->is_warming;
	op->done = item_on_done;
	op->context = context;
	if (slot->request.op == RSHM_OP_GET_BATCH || batch->is_warming)
		entry_get(op);
	else if (slot->request.op == RSHM_OP_SET_BATCH)
		entry_set(op);
	else
		entry_delete(op);
	return true;
}

/* The next item's answer is no, and the rest goes on. */
static void refuse_item(struct batch *batch, const struct rshm_batch_item *head)
{
	batch->results[batch->started++].head.status = RSHM_E_DENIED;
	batch->done++;
	batch->next += sizeof(*head) + head->key_len + (size_t)head->metadata_len + head->value_len;
	if (!batch->is_warming)
		return;
	batch->warmed.failed++;
	item_on_warmed(batch, RSHM_E_DENIED);
}

static bool start_item(struct batch *batch)
{
	struct rshm_batch_item head;

	memcpy(&head, batch->next, sizeof(head));
	if (access_permits_item(batch->slot, batch->next + sizeof(head), head.key_len))
		return run_item(batch);
	refuse_item(batch, &head);
	return true;
}

/* Fills the window; answers when all are done. Items may end before they return: `starting` keeps this a loop. */
static void start_items(struct batch *batch)
{
	bool starved = false;

	batch->starting = true;
	while (batch->started < batch->count && batch->started - batch->done < BATCH_WINDOW && !starved)
		starved = !start_item(batch);
	batch->starting = false;
	if (starved && batch->started == batch->done) {
		/* No memory and nothing under way that would bring us back here: the rest is told to try again. */
		for (uint32_t i = batch->started; i < batch->count; i++)
			batch->results[i].head.status = RSHM_E_AGAIN;
		batch->started = batch->done = batch->count;
	}
	if (batch->done == batch->count)
		answer_batch(batch);
}

/* A warming's turn to begin with an item. What it has no time or memory for, the client sends again. */
static void warming_on_turn(struct paced *paced, enum pace_turn turn)
{
	struct batch *batch = (struct batch *)paced;
	struct client *client = batch->slot->client;
	struct pace *pace = &client->tenant->pace;
	bool is_last = batch->started + 1 == batch->count;

	if (turn == PACE_GO && !client->dropped && start_item(batch)) {
		/* The last item may have ended it all. */
		if (!is_last)
			pace_enter(pace, &batch->paced, clock_monotonic_ms());
		return;
	}
	batch->cut = true;
	if (batch->done == batch->started)
		answer_batch(batch);
	if (turn == PACE_GO)
		pace_leave(pace, clock_monotonic_ms());
}

/* Do `items` whole items, and nothing else, make up the body? */
static bool body_is_sound(const struct slot *slot)
{
	const struct rshm_request *r = &slot->request;
	size_t at = 0;

	for (uint32_t i = 0; i < r->items; i++) {
		struct rshm_batch_item head;

		if (r->body_len - at < sizeof(head))
			return false;
		memcpy(&head, slot->body + at, sizeof(head));
		at += sizeof(head);
		if (head.key_len == 0 ||
		    (uint64_t)head.key_len + head.metadata_len + head.value_len > r->body_len - at)
			return false;
		at += (size_t)head.key_len + head.metadata_len + head.value_len;
	}
	return at == r->body_len;
}

void batch_execute(struct slot *slot)
{
	uint32_t count = slot->request.items;
	struct batch *batch;

	if (count == 0 || count > RSHM_BATCH_MAX || !body_is_sound(slot)) {
		request_fail(slot, RSHM_E_INVALID);
		return;
	}
	batch = calloc(1, sizeof(*batch) + count * sizeof(batch->results[0]));
	if (!batch) {
		request_fail(slot, RSHM_E_NOMEM);
		return;
	}
	batch->slot = slot;
	batch->next = slot->body;
	batch->count = count;
	slot->batch = batch;
	batch->heads = staging_take(slot, (size_t)count * sizeof(struct rshm_batch_item));
	if (!batch->heads) {
		request_fail(slot, RSHM_E_AGAIN);
		return;
	}
	client_ref(slot->client);
	batch->is_warming = slot->request.op == RSHM_OP_WARM;
	batch->paced.start = warming_on_turn;
	batch->paced.until_ms = slot->request.deadline_ms - WARM_MARGIN_MS;
	if (batch->is_warming)
		pace_enter(&slot->client->tenant->pace, &batch->paced, clock_monotonic_ms());
	else
		start_items(batch);
}
