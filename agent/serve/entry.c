/*
 * entry.c - the common course of operations on one key: pool, turn, store, end.
 *
 *   create ─▶ [turn for the key] ─▶ store ─▶ hot tier ─▶ done(op) ─▶ leave the turn, share ─▶ back to the pool
 *
 * The hot tier is changed before `done` answers the client: who has been told of a write finds it, or nothing older, in
 * shared memory. `done` reads the result where it lies (ring, store, op->payload) and must copy what it keeps.
 */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/cache/tags.h"
#include "agent/store/keys.h"
#include "agent/serve/serve_priv.h"

struct entry_op *entry_create(struct worker *worker, struct serve_tenant *tenant)
{
	struct entry_op *op = worker->spare_ops;

	if (op)
		worker->spare_ops = op->spare;
	else
		op = malloc(sizeof(*op));
	if (!op)
		return NULL;
	memset(op, 0, sizeof(*op));
	op->worker = worker;
	op->tenant = tenant;
	worker->operations++;
	tenant->operations++;
	return op;
}

static void release(struct entry_op *op)
{
	envelope_buffer_fini(&op->envelope);
	tagging_destroy(&op->tags);
	dictionary_unref(&op->dictionary);
	free(op->payload);
	free(op->held);
	free(op->kept_metadata);
	op->worker->operations--;
	op->tenant->operations--;
	op->spare = op->worker->spare_ops;
	op->worker->spare_ops = op;
}

static void count_end(struct entry_op *op)
{
	if (op->status < 0)
		op->tenant->counts.errors++;
}

/*
 * Whether reads that came later may have the same answer: not if it may be older than they are by more than readers are
 * promised, or was changed meanwhile.
 */
static bool may_share(const struct entry_op *op)
{
	const struct worker *worker = op->worker;

	if (worker->coherence == STORE_SOLE)
		return true;
	return inflight_may_publish(worker->inflight, &op->inflight, op->version, op->expiry_ms) &&
	       clock_monotonic_ms() - op->asked_ms < worker->lease.lease_ms / 2;
}

void entry_complete(struct entry_op *op, int status, bool share)
{
	op->status = status;
	count_end(op);
	op->done(op);
	if (op->entered)
		inflight_leave(op->worker->inflight, &op->inflight, share && may_share(op));
	release(op);
}

bool entry_deadline_passed(const struct entry_op *op)
{
	return clock_monotonic_ms() >= op->deadline_ms;
}

static void share_answer(struct inflight_op *waiting, struct inflight_op *first)
{
	struct entry_op *op = (struct entry_op *)waiting;
	const struct entry_op *from = (const struct entry_op *)first;

	op->entered = false; /* the table has taken it out already */
	op->answer_flags = from->answer_flags;
	op->version = from->version;
	op->remaining_ms = from->remaining_ms;
	op->result_metadata = from->result_metadata;
	op->result_metadata_len = from->result_metadata_len;
	op->result_value = from->result_value;
	op->result_value_len = from->result_value_len;
	if (from->result_value) {
		/* What was too old for the one before may do for this one, and the other way round. */
		entry_answer(op, false);
		return;
	}
	if (from->status == RSHM_MISS)
		op->tenant->counts.misses++;
	entry_complete(op, from->status, false);
}

void entry_take_turn(struct entry_op *op, bool is_read, void (*start)(struct inflight_op *op))
{
	int status;

	op->inflight.tenant = op->tenant;
	op->inflight.key = op->key;
	op->inflight.key_len = op->key_len;
	op->inflight.is_read = is_read;
	op->inflight.start = start;
	op->inflight.share = share_answer;
	op->entered = true;
	status = inflight_enter(op->worker->inflight, &op->inflight);
	if (status < 0) {
		op->entered = false;
		entry_complete(op, status, false);
	}
}

struct store_name entry_store_name(const struct tenant *tenant)
{
	return (struct store_name){
		.tenant = tenant->id,
		.tenant_number = tenant->number,
		.shards = tenant->shards,
		.space = 'c',
	};
}

void entry_submit(struct entry_op *op, enum store_op what, store_done_fn *done)
{
	op->asked_ms = clock_monotonic_ms();
	op->store = (struct store_request){
		.op = what,
		.name = entry_store_name(op->tenant->tenant),
		.envelope = op->envelope.bytes,
		.envelope_len = op->envelope.length,
		.condition = op->condition,
		.expected_version = op->expected_version,
		.behind = op->behind,
		.expiry_ms = op->expiry_ms,
		.deadline_ms = op->deadline_ms,
		.head_bytes = op->held ? TAGGING_HEAD_BYTES : ENVELOPE_HEAD_BYTES,
		/* A copy that lives by max_age need not know what a foreign EXPIRE did to its key. */
		.skip_remaining = op->worker->max_age_ms != 0,
		.done = done,
		.context = op,
	};
	op->store.name.key = op->key;
	op->store.name.key_len = op->key_len;
	store_submit(&op->tenant->space.base, &op->store);
}

uint64_t entry_expiry_ms(const struct entry_op *op, uint64_t ttl_ms)
{
	const struct tenant *tenant = op->tenant->tenant;

	if (ttl_ms == RSHM_TTL_DEFAULT)
		ttl_ms = tenant->default_ttl_ms ? tenant->default_ttl_ms : RSHM_NEVER;
	if (ttl_ms == RSHM_NEVER)
		return 0;
	/* Jitter shortens, so that nothing outlives what was asked for. */
	if (tenant->ttl_jitter_percent && ttl_ms >= 100)
		ttl_ms -= ttl_ms / 100 * randombytes_uniform(tenant->ttl_jitter_percent + 1);
	if (ttl_ms > UINT64_MAX / 4)
		return 0;
	return clock_realtime_ms() + ttl_ms;
}

uint64_t entry_hot_deadline(const struct entry_op *op, uint64_t expiry_ms)
{
	uint64_t max_age = op->worker->max_age_ms;
	uint64_t wall = clock_realtime_ms(), deadline = RSHM_NEVER;

	if (expiry_ms)
		deadline = clock_monotonic_ms() + (expiry_ms > wall ? expiry_ms - wall : 0);
	/* Changes of long keys are told without the key (store_change). */
	if (op->key_len > KEYS_PLAIN_MAX && op->worker->coherence == STORE_TRACKING)
		max_age = op->worker->env->options.hot_max_age_ms < op->worker->lease.lease_ms
				  ? op->worker->env->options.hot_max_age_ms
				  : op->worker->lease.lease_ms;
	if (max_age && op->asked_ms + max_age < deadline)
		deadline = op->asked_ms + max_age;
	return deadline;
}

uint64_t entry_epoch(const struct entry_op *op)
{
	return rshm_source_epoch(watching_source(op->worker));
}

void entry_publish(struct entry_op *op, const void *metadata, size_t metadata_len, const void *value,
		   size_t value_len)
{
	struct serve_tenant *tenant = op->tenant;
	uint64_t soft_deadline;
	uint32_t flags = 0;
	struct rshm_item item;
	int status = RSHM_OK;

	if (metadata_len && soft_deadline_of_metadata(metadata, metadata_len, &soft_deadline) == RSHM_OK)
		flags |= RSHM_FLAG_SOFT;
	if (op->tags) {
		flags |= RSHM_FLAG_TAGGED;
		status = tagging_hot_metadata(op->tags, metadata, metadata_len, &metadata, &metadata_len);
	}
	/* Fenced, cleared, or changed by others between question and answer: only the caller gets the result. */
	if (status < 0 || op->epoch != entry_epoch(op) || op->store.name.generation != tenant->space.generation ||
	    (op->entered && !inflight_may_publish(op->worker->inflight, &op->inflight, op->version, op->expiry_ms))) {
		hot_remove(tenant->hot, op->key, op->key_len);
		return;
	}
	item = (struct rshm_item){
		.key = op->key,
		.metadata = metadata,
		.value = value,
		.value_len = (uint32_t)value_len,
		.key_len = (uint16_t)op->key_len,
		.metadata_len = (uint16_t)metadata_len,
		.version = op->version,
		.control_a = rshm_control_a(flags, op->worker->index, op->epoch),
		.control_b = entry_hot_deadline(op, op->expiry_ms),
	};
	(void)hot_put(tenant->hot, &item);
}
