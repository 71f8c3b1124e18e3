/*
 * op_change.c - delete, touch, exists: what changes or asks about an entry without carrying its value.
 *
 * After a delete or a touch the hot copy is removed or patched before the answer. A touch whose store command has an unknown
 * outcome removes it; the next read brings the entry back with the deadline that the store has.
 */
#include "agent/base/clock.h"
#include "agent/cache/loading.h"
#include "agent/serve/serve_priv.h"

/* ---- delete ------------------------------------------------------------------------------------------------- */

/* In the book of what left shared memory. */
static void note_removed(const struct entry_op *op)
{
	uint64_t now_ms = clock_monotonic_ms();
	struct rshm_item item;

	if (hot_find(op->tenant->hot, op->key, op->key_len, &item))
		evictions_record(op->tenant->evictions, EVICTION_MANUAL,
				 rshm_entry_bytes(item.key_len, item.metadata_len, item.value_len),
				 figures_idle_ms(op->tenant, op->key, op->key_len, now_ms), item.key, item.key_len,
				 now_ms);
	accesses_forget(op->tenant->accesses, op->key, op->key_len);
}

static void delete_on_stored(struct store_request *request)
{
	struct entry_op *op = request->context;
	bool certain = request->status >= 0;

	if (certain || request->status == RSHM_E_UNKNOWN) {
		note_removed(op);
		hot_remove(op->tenant->hot, op->key, op->key_len);
		spilling_remove(op->tenant, op->key, op->key_len);
	}
	if (request->status == RSHM_OK)
		op->tenant->counts.deletes++;
	if (request->accepted)
		op->answer_flags |= RSHM_ANSWER_ACCEPTED;
	/* Who loads the key at this moment may bring what was there before. */
	if (certain || request->status == RSHM_E_UNKNOWN)
		loading_written(op->worker->loading, op->tenant, op->key, op->key_len, clock_monotonic_ms());
	entry_complete(op, request->status, false);
}

/* What the journal keeps in the place of the entry. */
static int make_tombstone(struct entry_op *op)
{
	struct envelope_input input = {
		.key = op->key,
		.key_len = op->key_len,
		.created_ms = clock_realtime_ms(),
		.version = hlc_next(op->worker->env->hlc),
		.writer_id = op->worker->env->writer_id,
		.flags = ENVELOPE_FLAG_TOMBSTONE,
	};

	return envelope_encode(&input, NULL, &op->envelope);
}

static void delete_on_turn(struct inflight_op *turn)
{
	struct entry_op *op = (struct entry_op *)turn;
	uint32_t mode = rshm_change_mode(op->change);
	int status = RSHM_OK;

	op->behind = mode == RSHM_WRITE_BEHIND || (mode == RSHM_WRITE_DEFAULT && op->tenant->tenant->write_behind);
	if (entry_deadline_passed(op))
		status = RSHM_E_TIMEDOUT;
	else if (op->behind)
		status = make_tombstone(op);
	if (status < 0)
		entry_complete(op, status, false);
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

	if (request->status == RSHM_OK && hot_find(hot, op->key, op->key_len, &item) &&
	    !inflight_may_publish(op->worker->inflight, &op->inflight, item.version, op->expiry_ms)) {
		/* Somebody else has touched or written it meanwhile. */
		hot_remove(hot, op->key, op->key_len);
	} else if (request->status == RSHM_OK && hot_find(hot, op->key, op->key_len, &item)) {
		uint64_t deadline = entry_hot_deadline(op, op->expiry_ms);

		/* A copy that lives by max_age keeps its age: touching proves nothing about its value. */
		if (op->worker->max_age_ms && item.control_b < deadline)
			deadline = item.control_b;
		(void)hot_patch(hot, op->key, op->key_len, item.version, item.control_a, deadline);
	} else if (request->status == RSHM_MISS || request->status == RSHM_E_UNKNOWN) {
		hot_remove(hot, op->key, op->key_len);
	}
	/* What is on disk has the expiry of before. */
	if (request->status >= 0 || request->status == RSHM_E_UNKNOWN)
		spilling_remove(op->tenant, op->key, op->key_len);
	entry_complete(op, request->status, false);
}

/* What a tag took is not there, whatever the store says. */
static void touch_on_probed(struct entry_op *op, int status)
{
	if (status != RSHM_OK) {
		entry_complete(op, status, false);
		return;
	}
	op->expiry_ms = entry_expiry_ms(op, op->ttl_ms);
	entry_submit(op, STORE_TOUCH, touch_on_stored);
}

static void touch_on_turn(struct inflight_op *turn)
{
	struct entry_op *op = (struct entry_op *)turn;

	if (entry_deadline_passed(op))
		entry_complete(op, RSHM_E_TIMEDOUT, false);
	else
		entry_probe(op, touch_on_probed);
}

void entry_touch(struct entry_op *op)
{
	entry_take_turn(op, false, touch_on_turn);
}

/* ---- exists ------------------------------------------------------------------------------------------------- */

/* Of hot reads what has been drained, which a timer does several times a second. */
static void tell_accesses(struct entry_op *op)
{
	struct serve_tenant *tenant = op->tenant;
	struct access_record record = {.count = 0};

	(void)accesses_get(tenant->accesses, op->key, op->key_len, &record);
	op->access_count = record.count;
	op->accessed_ms_ago = figures_idle_ms(tenant, op->key, op->key_len, clock_monotonic_ms());
}
_Static_assert(EVICTION_IDLE_UNKNOWN == RSHM_NEVER, "not known is told as it is kept");

static void exists_on_probed(struct entry_op *op, int status)
{
	if (status == RSHM_OK)
		tell_accesses(op);
	entry_complete(op, status, false);
}

static void exists_on_turn(struct inflight_op *turn)
{
	struct entry_op *op = (struct entry_op *)turn;

	if (entry_deadline_passed(op))
		entry_complete(op, RSHM_E_TIMEDOUT, false);
	else
		entry_probe(op, exists_on_probed);
}

void entry_exists(struct entry_op *op)
{
	entry_take_turn(op, false, exists_on_turn);
}
