/*
 * op_change.c - delete, touch, exists: what changes or asks about an entry without carrying its value.
 *
 * After a delete or a touch the hot copy is removed or patched before the answer. A touch whose store command has an unknown
 * outcome removes it; the next read brings the entry back with the deadline that the store has.
 */
#include "agent/base/clock.h"
#include "agent/serve/serve_priv.h"

/* ---- delete ------------------------------------------------------------------------------------------------- */

static void delete_on_stored(struct store_request *request)
{
	struct entry_op *op = request->context;
	bool certain = request->status >= 0;

	if (certain || request->status == RSHM_E_UNKNOWN)
		hot_remove(op->tenant->hot, op->key, op->key_len);
	if (certain)
		op->tenant->counts.deletes++;
	entry_complete(op, request->status, false);
}

static void delete_on_turn(struct inflight_op *turn)
{
	struct entry_op *op = (struct entry_op *)turn;

	if (entry_deadline_passed(op))
		entry_complete(op, RSHM_E_TIMEDOUT, false);
	else
		entry_submit(op, STORE_DELETE, delete_on_stored);
}

void entry_delete(struct entry_op *op)
{
	entry_take_turn(op, false, delete_on_turn);
}

/* ---- touch -------------------------------------------------------------------------------------------------- */

static void touch_on_stored(struct store_request *request)
{
	struct entry_op *op = request->context;
	struct hot *hot = op->tenant->hot;
	struct rshm_item item;

	if (request->status == RSHM_OK && hot_find(hot, op->key, op->key_len, &item)) {
		uint64_t deadline = entry_hot_deadline(op, op->expiry_ms);

		/* A copy that lives by max_age keeps its age: touching proves nothing about its value. */
		if (op->worker->env->options.hot_max_age_ms && item.control_b < deadline)
			deadline = item.control_b;
		(void)hot_patch(hot, op->key, op->key_len, item.version, item.control_a, deadline);
	} else if (request->status == RSHM_MISS || request->status == RSHM_E_UNKNOWN) {
		hot_remove(hot, op->key, op->key_len);
	}
	entry_complete(op, request->status, false);
}

static void touch_on_turn(struct inflight_op *turn)
{
	struct entry_op *op = (struct entry_op *)turn;

	if (entry_deadline_passed(op)) {
		entry_complete(op, RSHM_E_TIMEDOUT, false);
		return;
	}
	op->expiry_ms = entry_expiry_ms(op, op->ttl_ms);
	entry_submit(op, STORE_TOUCH, touch_on_stored);
}

void entry_touch(struct entry_op *op)
{
	entry_take_turn(op, false, touch_on_turn);
}

/* ---- exists ------------------------------------------------------------------------------------------------- */

static void exists_on_stored(struct store_request *request)
{
	struct entry_op *op = request->context;
	struct envelope_head head;
	int status = request->status;

	if (status == RSHM_OK)
		status = envelope_peek_head(request->result, request->result_len, &head);
	if (status == RSHM_OK) {
		uint64_t now_ms = clock_realtime_ms();

		op->version = head.version;
		op->remaining_ms = RSHM_NEVER;
		if (head.expiry_ms && head.expiry_ms <= now_ms)
			status = RSHM_MISS;
		else if (head.expiry_ms)
			op->remaining_ms = head.expiry_ms - now_ms;
	}
	entry_complete(op, status, false);
}

static void exists_on_turn(struct inflight_op *turn)
{
	struct entry_op *op = (struct entry_op *)turn;

	if (entry_deadline_passed(op))
		entry_complete(op, RSHM_E_TIMEDOUT, false);
	else
		entry_submit(op, STORE_HEAD, exists_on_stored);
}

void entry_exists(struct entry_op *op)
{
	entry_take_turn(op, false, exists_on_turn);
}
