/*
 * op_get.c - the story of a get that missed in shared memory.
 *
 *   the ring after all (appended meanwhile, or the client may not read it)?  answer
 *   else take the key's turn: whoever asked first asks the store, the others share the answer
 *   found: check the envelope, publish if nothing happened to the key or the source since, answer
 *   absent: remove what the ring may still have, answer MISS
 *   the store is away: an unverified copy, marked stale, if the tenant's policy allows it
 */
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/serve/serve_priv.h"

static void take_item(struct entry_op *op, const struct rshm_item *item)
{
	uint64_t now_ms = clock_monotonic_ms();

	op->version = item->version;
	op->result_metadata = item->metadata;
	op->result_metadata_len = item->metadata_len;
	op->result_value = item->value;
	op->result_value_len = item->value_len;
	op->remaining_ms = RSHM_NEVER;
	if (item->control_b != RSHM_NEVER)
		op->remaining_ms = item->control_b > now_ms ? item->control_b - now_ms : 0;
}

/* Answers from the ring if there is a copy fit to serve. */
static bool answer_from_hot(struct entry_op *op, bool stale_will_do)
{
	struct rshm_item item;
	enum rshm_freshness freshness;

	if (!hot_find(op->tenant->hot, op->key, op->key_len, &item))
		return false;
	freshness = hot_judge(op->tenant->hot, &item);
	if (freshness != RSHM_VERIFIED && !(stale_will_do && freshness == RSHM_SERVE_STALE))
		return false;
	take_item(op, &item);
	if (freshness == RSHM_SERVE_STALE) {
		op->answer_flags |= RSHM_ANSWER_STALE;
		op->tenant->counts.stale++;
	}
	op->tenant->counts.hits++;
	op->tenant->counts.hit_bytes += item.value_len;
	entry_complete(op, RSHM_OK, false);
	return true;
}

static void publish(struct entry_op *op, const struct envelope_view *view)
{
	struct rshm_item item = {
		.key = op->key,
		.metadata = view->metadata,
		.value = op->result_value,
		.value_len = view->head.plain_size,
		.key_len = (uint16_t)op->key_len,
		.metadata_len = view->head.metadata_len,
		.version = view->head.version,
		.control_a = rshm_control_a(0, op->worker->env->source, op->epoch),
		.control_b = op->control_b,
	};

	/* The source was fenced between question and answer: only the caller gets the result. */
	if (op->epoch != entry_epoch(op))
		hot_remove(op->tenant->hot, op->key, op->key_len);
	else
		(void)hot_put(op->tenant->hot, &item);
}

static int decode(struct entry_op *op, struct envelope_view *view)
{
	int status = envelope_open(op->store.result, op->store.result_len, op->key, op->key_len, view);

	if (status < 0)
		return status;
	if (view->head.algorithm == ENVELOPE_PLAIN) {
		op->result_value = view->payload;
	} else {
		op->payload = malloc(view->head.plain_size ? view->head.plain_size : 1);
		if (!op->payload)
			return RSHM_E_NOMEM;
		status = envelope_payload(view, op->payload, view->head.plain_size);
		op->result_value = op->payload;
	}
	op->result_value_len = view->head.plain_size;
	op->result_metadata = view->metadata;
	op->result_metadata_len = view->head.metadata_len;
	op->version = view->head.version;
	return status;
}

/* The server's own clock may shorten the life of an entry, never lengthen it. */
static void set_remaining(struct entry_op *op, uint64_t expiry_ms)
{
	uint64_t now_ms = clock_realtime_ms();

	if (op->store.remaining_ms && (!expiry_ms || now_ms + op->store.remaining_ms < expiry_ms))
		expiry_ms = now_ms + op->store.remaining_ms;
	op->control_b = entry_hot_deadline(op, expiry_ms);
	op->remaining_ms = RSHM_NEVER;
	if (expiry_ms)
		op->remaining_ms = expiry_ms > now_ms ? expiry_ms - now_ms : 0;
}

static void complete_miss(struct entry_op *op)
{
	hot_remove(op->tenant->hot, op->key, op->key_len);
	op->tenant->counts.misses++;
	entry_complete(op, RSHM_MISS, true);
}

static void get_on_found(struct entry_op *op)
{
	struct envelope_view view;
	int status = decode(op, &view);

	if (status < 0) {
		static struct log_limit limit = LOG_LIMIT(5, 10000);

		log_limited(&limit, LOG_LEVEL_ERROR, "serve",
			    "tenant %s: a stored entry is refused: %s; delete or rewrite the key",
			    op->tenant->tenant->id,
			    status == RSHM_E_FORMAT ? "written by a newer version" : "damaged");
		entry_complete(op, status, true);
		return;
	}
	set_remaining(op, view.head.expiry_ms);
	if (op->remaining_ms == 0) {
		complete_miss(op);
		return;
	}
	publish(op, &view);
	op->tenant->counts.hits++;
	op->tenant->counts.hit_bytes += op->result_value_len;
	entry_complete(op, RSHM_OK, true);
}

static void get_on_stored(struct store_request *request)
{
	struct entry_op *op = request->context;
	int status = request->status;

	if (status == RSHM_OK) {
		get_on_found(op);
	} else if (status == RSHM_MISS) {
		complete_miss(op);
	} else if (!answer_from_hot(op, !(op->flags & RSHM_REQUEST_FRESH))) {
		entry_complete(op, status == RSHM_E_UNKNOWN ? RSHM_E_TIMEDOUT : status, true);
	}
}

static void get_on_turn(struct inflight_op *turn)
{
	struct entry_op *op = (struct entry_op *)turn;

	if (entry_deadline_passed(op)) {
		entry_complete(op, RSHM_E_TIMEDOUT, false);
		return;
	}
	if (!(op->flags & RSHM_REQUEST_FRESH) && answer_from_hot(op, false))
		return;
	op->epoch = entry_epoch(op);
	entry_submit(op, STORE_GET, get_on_stored);
}

void entry_get(struct entry_op *op)
{
	if (!(op->flags & RSHM_REQUEST_FRESH) && answer_from_hot(op, false))
		return;
	entry_take_turn(op, true, get_on_turn);
}
