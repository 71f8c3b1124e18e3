/*
 * op_set.c - writes of a whole value: through to the store, or behind (its journal), with a condition or without.
 *
 * The version is drawn when the key's turn has come, so that versions of a key grow in the order in which its writes are
 * applied. The hot copy is replaced after the store has acknowledged and before the client hears of it. Where the outcome is
 * not known, the copy is removed: the next read asks the store.
 *
 * The write of a loader (op_fetch.c) counts only while its ticket holds: one that comes too late would put an old value on
 * top of what was written meanwhile.
 */
#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/cache/loading.h"
#include "agent/serve/serve_priv.h"

/* Tells those who wait for the key to be loaded. */
static void end_loading(struct entry_op *op, int status)
{
	struct loading *loading = op->worker->loading;
	uint64_t now_ms = clock_monotonic_ms();
	enum loading_outcome outcome = LOADING_STORED;

	if (status < 0)
		outcome = LOADING_FAILED;
	else if (op->flags & RSHM_REQUEST_NEGATIVE)
		outcome = LOADING_NONE;
	if (op->ticket && loading_done(loading, op->tenant, op->key, op->key_len, op->ticket, outcome, now_ms))
		return;
	/* Another one loads by now, or nobody does: to them it is somebody else's write. */
	if (status == RSHM_OK || status == RSHM_E_UNKNOWN)
		loading_written(loading, op->tenant, op->key, op->key_len, now_ms);
}

static void set_complete(struct entry_op *op, int status)
{
	end_loading(op, status);
	entry_complete(op, status, false);
}

static void count_set(struct entry_op *op)
{
	struct envelope_head head;

	must(envelope_peek_head(op->envelope.bytes, op->envelope.length, &head) == RSHM_OK);
	op->tenant->counts.sets++;
	op->tenant->counts.plain_bytes += head.plain_size;
	op->tenant->counts.stored_bytes += head.stored_size;
	op->tenant->counts.dictionary_sets += head.dictionary_id != 0;
}

/* Somebody else has written: a copy of another version than the one that is there is old. */
static void set_on_conflict(struct entry_op *op)
{
	struct rshm_item item;

	op->version = op->store.found_version;
	if (hot_find(op->tenant->hot, op->key, op->key_len, &item) && item.version != op->version)
		hot_remove(op->tenant->hot, op->key, op->key_len);
}

static void retry_on_probed(struct entry_op *op, int status);

/* The store has an entry; but if a tag took it, the key is absent. */
static bool conflict_may_be_with_nothing(const struct entry_op *op)
{
	bool wants_absent =
		op->condition == STORE_IF_ABSENT || (op->condition == STORE_IF_VERSION && op->expected_version == 0);

	return wants_absent && op->store.found_version != 0 && op->sees_tags;
}

static void set_on_stored(struct store_request *request)
{
	struct entry_op *op = request->context;

	if (request->status != RSHM_CONFLICT)
		spilling_remove(op->tenant, op->key, op->key_len);
	if (request->status == RSHM_OK) {
		if (request->accepted)
			op->answer_flags |= RSHM_ANSWER_ACCEPTED;
		entry_publish(op, op->metadata, op->metadata_len, op->value, op->value_len);
		count_set(op);
	} else if (request->status == RSHM_CONFLICT && conflict_may_be_with_nothing(op)) {
		entry_probe(op, retry_on_probed);
		return;
	} else if (request->status == RSHM_CONFLICT) {
		set_on_conflict(op);
	} else if (request->status == RSHM_E_UNKNOWN) {
		hot_remove(op->tenant->hot, op->key, op->key_len);
	}
	op->written(op, request->status);
}

static struct envelope_compression compression_of(const struct entry_op *op)
{
	static const enum envelope_choice choices[] = {
		[RSHM_COMPRESS_NONE] = ENVELOPE_CHOOSE_NONE,
		[RSHM_COMPRESS_LZ4] = ENVELOPE_CHOOSE_LZ4,
		[RSHM_COMPRESS_ZSTD] = ENVELOPE_CHOOSE_ZSTD,
		[RSHM_COMPRESS_AUTO] = ENVELOPE_CHOOSE_AUTO,
	};
	struct envelope_compression compression = op->worker->env->options.compression;
	uint32_t wanted = rshm_change_compression(op->change);

	if (wanted != RSHM_COMPRESS_DEFAULT)
		compression.choice = choices[wanted];
	return compression;
}

static void write_envelope(struct entry_op *op, int status)
{
	struct envelope_compression compression = compression_of(op);
	struct dictionary *dictionary = dictionaries_for_write(op, compression.choice);
	struct envelope_input input = {
		.key = op->key,
		.key_len = op->key_len,
		.metadata = op->metadata,
		.metadata_len = op->metadata_len,
		.value = op->value,
		.value_len = op->value_len,
		.created_ms = clock_realtime_ms(),
		.expiry_ms = op->expiry_ms,
		.version = op->version,
		.writer_id = op->worker->env->writer_id,
	};

	/* Voided while the tags were asked for. */
	if (status == RSHM_OK && op->ticket &&
	    !loading_holds(op->worker->loading, op->tenant, op->key, op->key_len, op->ticket))
		status = RSHM_CONFLICT;
	if (status == RSHM_OK)
		tagging_fill(op->tags, &input);
	envelope_buffer_fini(&op->envelope);
	compression.dictionary = dictionary;
	if (status == RSHM_OK)
		status = envelope_encode(&input, &compression, &op->envelope);
	dictionary_unref(&dictionary);
	if (status != RSHM_OK) {
		op->written(op, status);
		return;
	}
	op->epoch = entry_epoch(op);
	entry_submit(op, STORE_PUT, set_on_stored);
}

void entry_write(struct entry_op *op, void (*then)(struct entry_op *op, int status))
{
	int status = tagging_begin(op, op->metadata, op->metadata_len);

	op->written = then;
	op->version = hlc_next(op->worker->env->hlc);
	if (status < 0)
		then(op, status);
	else if (op->tags)
		tagging_resolve(op, true, write_envelope);
	else
		write_envelope(op, RSHM_OK);
}

/* An entry that a tag took is replaced if it is still that one. */
static void retry_on_probed(struct entry_op *op, int status)
{
	if (status == RSHM_MISS && !entry_deadline_passed(op)) {
		op->condition = op->found_version ? STORE_IF_VERSION : STORE_IF_ABSENT;
		op->expected_version = op->found_version;
		/* Once: who comes in between has won. */
		op->sees_tags = false;
		op->expiry_ms = entry_expiry_ms(op, op->ttl_ms);
		entry_write(op, op->written);
	} else if (status == RSHM_OK) {
		op->store.found_version = op->found_version;
		set_on_conflict(op);
		op->written(op, RSHM_CONFLICT);
	} else {
		op->written(op, status == RSHM_MISS ? RSHM_E_TIMEDOUT : status);
	}
}

/* A remembered absence lives in memory only: a negative entry of the ring. */
static void put_negative(struct entry_op *op)
{
	struct rshm_item item;

	op->asked_ms = clock_monotonic_ms();
	item = (struct rshm_item){
		.key = op->key,
		.key_len = (uint16_t)op->key_len,
		.version = hlc_next(op->worker->env->hlc),
		.control_a = rshm_control_a(RSHM_FLAG_NEGATIVE, op->worker->index, entry_epoch(op)),
		.control_b = entry_hot_deadline(op, op->expiry_ms ? op->expiry_ms : clock_realtime_ms()),
	};

	(void)hot_put(op->tenant->hot, &item);
	set_complete(op, RSHM_OK);
}

/* To be replaced only if it is there: what a tag took is not, though the store has it. */
static void set_on_probed(struct entry_op *op, int status)
{
	if (status == RSHM_OK) {
		op->expiry_ms = entry_expiry_ms(op, op->ttl_ms);
		entry_write(op, set_complete);
		return;
	}
	op->version = 0;
	if (status == RSHM_MISS) {
		hot_remove(op->tenant->hot, op->key, op->key_len);
		status = RSHM_CONFLICT;
	}
	set_complete(op, status);
}

static void set_on_turn(struct inflight_op *turn)
{
	struct entry_op *op = (struct entry_op *)turn;

	if (entry_deadline_passed(op)) {
		set_complete(op, RSHM_E_TIMEDOUT);
		return;
	}
	if (op->ticket && !loading_holds(op->worker->loading, op->tenant, op->key, op->key_len, op->ticket)) {
		entry_complete(op, RSHM_CONFLICT, false);
		return;
	}
	op->expiry_ms = entry_expiry_ms(op, op->ttl_ms);
	op->sees_tags = true;
	if (op->flags & RSHM_REQUEST_NEGATIVE)
		put_negative(op);
	else if (op->condition == STORE_IF_PRESENT)
		entry_probe(op, set_on_probed);
	else
		entry_write(op, set_complete);
}

/* What the request asks for, as far as it can be served. */
static int take_change(struct entry_op *op)
{
	static const enum store_condition conditions[] = {
		[RSHM_ALWAYS] = STORE_ALWAYS,
		[RSHM_IF_ABSENT] = STORE_IF_ABSENT,
		[RSHM_IF_PRESENT] = STORE_IF_PRESENT,
		[RSHM_IF_VERSION] = STORE_IF_VERSION,
	};
	uint32_t condition = rshm_change_condition(op->change), mode = rshm_change_mode(op->change);

	if (condition > RSHM_IF_VERSION || mode > RSHM_WRITE_BEHIND ||
	    rshm_change_compression(op->change) > RSHM_COMPRESS_AUTO)
		return RSHM_E_INVALID;
	/* A remembered absence is a loader's to tell. */
	if ((op->flags & RSHM_REQUEST_NEGATIVE) && (!op->ticket || op->value_len || op->metadata_len))
		return RSHM_E_INVALID;
	op->condition = conditions[condition];
	if (mode == RSHM_WRITE_DEFAULT)
		op->behind = op->tenant->tenant->write_behind;
	else
		op->behind = mode == RSHM_WRITE_BEHIND;
	/* A condition is judged by the store. */
	if (op->condition != STORE_ALWAYS)
		op->behind = false;
	return RSHM_OK;
}

void entry_set(struct entry_op *op)
{
	int status = take_change(op);

	if (op->value_len > op->worker->env->options.max_entry_bytes)
		status = RSHM_E_TOOBIG;
	if (status < 0)
		set_complete(op, status);
	else
		entry_take_turn(op, false, set_on_turn);
}
