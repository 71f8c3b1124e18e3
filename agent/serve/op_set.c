/*
 * op_set.c - a write through to the store.
 *
 * The version is drawn when the key's turn has come, so that versions of a key grow in the order in which its writes are
 * applied. The hot copy is replaced after the store has acknowledged and before the client hears of it. Where the outcome is
 * not known, the copy is removed: the next read asks the store.
 */
#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/serve/serve_priv.h"

static void publish(struct entry_op *op)
{
	struct rshm_item item = {
		.key = op->key,
		.metadata = op->metadata,
		.value = op->value,
		.value_len = (uint32_t)op->value_len,
		.key_len = (uint16_t)op->key_len,
		.metadata_len = (uint16_t)op->metadata_len,
		.version = op->version,
		.control_a = rshm_control_a(0, op->worker->env->source, op->epoch),
		.control_b = entry_hot_deadline(op, op->expiry_ms),
	};

	if (op->epoch != entry_epoch(op))
		hot_remove(op->tenant->hot, op->key, op->key_len);
	else
		(void)hot_put(op->tenant->hot, &item);
}

static void set_on_stored(struct store_request *request)
{
	struct entry_op *op = request->context;
	struct envelope_head head;

	if (request->status == RSHM_OK) {
		publish(op);
		must(envelope_peek_head(op->envelope.bytes, op->envelope.length, &head) == RSHM_OK);
		op->tenant->counts.sets++;
		op->tenant->counts.plain_bytes += head.plain_size;
		op->tenant->counts.stored_bytes += head.stored_size;
	} else if (request->status == RSHM_E_UNKNOWN) {
		hot_remove(op->tenant->hot, op->key, op->key_len);
	}
	entry_complete(op, request->status, false);
}

static void set_on_turn(struct inflight_op *turn)
{
	struct entry_op *op = (struct entry_op *)turn;
	const struct serve_environment *env = op->worker->env;
	struct envelope_input input;
	int status;

	if (entry_deadline_passed(op)) {
		entry_complete(op, RSHM_E_TIMEDOUT, false);
		return;
	}
	op->version = hlc_next(env->hlc);
	op->expiry_ms = entry_expiry_ms(op, op->ttl_ms);
	input = (struct envelope_input){
		.key = op->key,
		.key_len = op->key_len,
		.metadata = op->metadata,
		.metadata_len = op->metadata_len,
		.value = op->value,
		.value_len = op->value_len,
		.created_ms = clock_realtime_ms(),
		.expiry_ms = op->expiry_ms,
		.version = op->version,
		.writer_id = env->writer_id,
	};
	status = envelope_encode(&input, &env->options.compression, &op->envelope);
	if (status < 0) {
		entry_complete(op, status, false);
		return;
	}
	op->epoch = entry_epoch(op);
	entry_submit(op, STORE_PUT, set_on_stored);
}

void entry_set(struct entry_op *op)
{
	if (op->value_len > op->worker->env->options.max_entry_bytes)
		entry_complete(op, RSHM_E_TOOBIG, false);
	else
		entry_take_turn(op, false, set_on_turn);
}
