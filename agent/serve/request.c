/*
 * request.c - from a submitted slot to an answer, piece by piece.
 *
 *   take ─▶ new request ─▶ whole body here? ── no ─▶ RECEIVING: answer CONTINUE, wait for the next piece
 *                               │ yes
 *                               ▼
 *                          EXECUTING ─▶ request_answer() ─▶ fits one piece? ── no ─▶ ANSWERING: wait for FETCH
 *                                                               │ yes
 *                                                               ▼
 *                                                             IDLE
 *
 * The body is copied out of the channel before anything looks at it. What a slot may do next stands in our `struct slot`,
 * never in shared memory: a piece out of order, a second submission of a slot under way, a word we did not leave there ends
 * the channel. A slot that was given up comes back as a new request of another generation, which frees what it had.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/serve/serve_priv.h"
#include "shm/os/futex.h"

#define DEADLINE_MAX_MS 600000u /* no caller waits longer than ten minutes */
#define REQUEST_COST 512u       /* bytes that a request counts besides its body */
#define SLOW_KEY_MAX 64u        /* bytes of a key in the log of slow requests */
#define BODY_POOLED RSHM_INLINE /* bodies up to this come from the worker's pool */

/* ---- memory ------------------------------------------------------------------------------------------------- */

bool staging_has_room(const struct slot *slot, size_t bytes)
{
	const struct worker *worker = slot->client->worker;
	const struct serve_options *options = &worker->env->options;

	return worker->staging_bytes + bytes <= options->worker_staging_bytes &&
	       slot->client->tenant->staging_bytes + bytes <= options->tenant_staging_bytes &&
	       slot->client->staging_bytes + bytes <= options->channel_staging_bytes;
}

static void staging_discount(struct slot *slot, size_t bytes)
{
	slot->client->worker->staging_bytes -= bytes;
	slot->client->tenant->staging_bytes -= bytes;
	slot->client->staging_bytes -= bytes;
	slot->staged -= bytes;
}

void *staging_take(struct slot *slot, size_t bytes)
{
	struct worker *worker = slot->client->worker;
	void *memory;

	if (!staging_has_room(slot, bytes)) {
		worker->totals.staging_refused++;
		return NULL;
	}
	memory = malloc(bytes ? bytes : 1);
	if (!memory)
		return NULL;
	worker->staging_bytes += bytes;
	slot->client->tenant->staging_bytes += bytes;
	slot->client->staging_bytes += bytes;
	slot->staged += bytes;
	return memory;
}

void staging_give(struct slot *slot, void *memory, size_t bytes)
{
	free(memory);
	staging_discount(slot, bytes);
}

static unsigned char *body_take(struct slot *slot, size_t bytes)
{
	struct worker *worker = slot->client->worker;
	struct spare_body *spare = worker->spare_bodies;

	if (bytes > BODY_POOLED)
		return staging_take(slot, bytes);
	if (!spare)
		return malloc(BODY_POOLED);
	worker->spare_bodies = spare->next;
	return (unsigned char *)spare;
}

static void body_give(struct slot *slot)
{
	struct worker *worker = slot->client->worker;

	if (!slot->body)
		return;
	if (slot->request.body_len > BODY_POOLED) {
		free(slot->body);
	} else {
		struct spare_body *spare = (void *)slot->body;

		spare->next = worker->spare_bodies;
		worker->spare_bodies = spare;
	}
	slot->body = NULL;
}

void slot_clear(struct slot *slot)
{
	batch_destroy(&slot->batch);
	body_give(slot);
	free(slot->answer);
	slot->answer = NULL;
	staging_discount(slot, slot->staged);
	slot->phase = SLOT_IDLE;
}

/* ---- answers ------------------------------------------------------------------------------------------------ */

/* Returns whether the client has it, or can have it. */
static bool send_word(struct slot *slot, const struct rshm_answer *answer)
{
	struct client *client = slot->client;

	switch (rshm_slot_answer(client->channel, slot->number, slot->generation, answer)) {
	case RSHM_ANSWER_QUIET:
		return true;
	case RSHM_ANSWER_WAKE:
		rshm_futex_wake(&client->channel->slots[slot->number].word);
		return true;
	case RSHM_ANSWER_GONE:
		slot_clear(slot);
		break;
	case RSHM_ANSWER_BROKEN:
		client_drop(client, "it changed a slot that was ours");
		break;
	}
	return false;
}

static const char *name_of(uint16_t op)
{
	static const char *const names[] = {
		[RSHM_OP_GET] = "get",
		[RSHM_OP_SET] = "set",
		[RSHM_OP_DELETE] = "delete",
		[RSHM_OP_EXISTS] = "exists",
		[RSHM_OP_TOUCH] = "touch",
		[RSHM_OP_GET_BATCH] = "get_batch",
		[RSHM_OP_SET_BATCH] = "set_batch",
		[RSHM_OP_DELETE_BATCH] = "delete_batch",
		[RSHM_OP_PING] = "ping",
		[RSHM_OP_STATS] = "stats",
		[RSHM_OP_LOCATE] = "locate",
		[RSHM_OP_INCR] = "incr",
		[RSHM_OP_FETCH] = "fetch",
		[RSHM_OP_FETCH_FAILED] = "fetch_failed",
		[RSHM_OP_INVALIDATE_TAG] = "invalidate_tag",
		[RSHM_OP_INVALIDATE_PREFIX] = "invalidate_prefix",
		[RSHM_OP_CLEAR] = "clear",
		[RSHM_OP_FLUSH] = "flush",
		[RSHM_OP_WARM] = "warm",
		[RSHM_OP_WARM_PREFIX] = "warm_prefix",
		[RSHM_OP_CHECK_ACCESS] = "check_access",
		[RSHM_OP_CHECK_QUOTA] = "check_quota",
		[RSHM_OP_RATE] = "rate",
	};

	return op < sizeof(names) / sizeof(names[0]) && names[op] ? names[op] : "of no name";
}

static void note_latency(struct slot *slot)
{
	struct client *client = slot->client;
	struct worker *worker = client->worker;
	const struct serve_options *options = &worker->env->options;
	uint64_t took_ns = clock_monotonic_ns() - slot->began_ns;
	static struct log_limit limit = LOG_LIMIT(10, 10000);
	char buffer[4 * SLOW_KEY_MAX + 1];
	struct text key;

	/* Warming takes its time on purpose. */
	if (slot->request.op == RSHM_OP_WARM || slot->request.op == RSHM_OP_WARM_PREFIX)
		return;
	if (options->target_ns && took_ns > options->target_ns)
		worker->totals.over_target++;
	if (!options->slow_ns || took_ns <= options->slow_ns)
		return;
	worker->totals.slow++;
	text_init(&key, buffer, sizeof(buffer));
	if (slot->body)
		text_append_escaped(&key, (const char *)slot->body,
				    slot->request.key_len < SLOW_KEY_MAX ? slot->request.key_len : SLOW_KEY_MAX);
	log_limited(&limit, LOG_LEVEL_WARN, "serve", "slow: tenant %s, channel %llu, %s \"%s\" took %llu us",
		    client->tenant->tenant->id, (unsigned long long)client->channel_id, name_of(slot->request.op),
		    buffer, (unsigned long long)(took_ns / 1000));
}

/* Copies bytes [from, from + n) of metadata ‖ value to the start of the piece. */
static void write_parts(struct slot *slot, const void *metadata, size_t metadata_len, const void *value, size_t n)
{
	struct rshm_channel *channel = slot->client->channel;
	size_t first = metadata_len < n ? metadata_len : n;

	rshm_piece_write(channel, slot->number, &slot->piece, 0, metadata, first);
	rshm_piece_write(channel, slot->number, &slot->piece, first, value, n - first);
}

/* Keeps what did not fit the first piece. */
static bool keep_rest(struct slot *slot, const void *metadata, size_t metadata_len, const void *value,
		      size_t value_len, size_t sent)
{
	size_t rest = metadata_len + value_len - sent;
	size_t from_metadata = sent < metadata_len ? metadata_len - sent : 0;
	size_t value_from = sent > metadata_len ? sent - metadata_len : 0;

	slot->answer = staging_take(slot, rest);
	if (!slot->answer)
		return false;
	if (from_metadata)
		memcpy(slot->answer, (const unsigned char *)metadata + sent, from_metadata);
	memcpy(slot->answer + from_metadata, (const unsigned char *)value + value_from, rest - from_metadata);
	slot->answer_kept = (uint32_t)sent;
	slot->answer_sent = (uint32_t)sent;
	slot->answer_len = (uint32_t)(sent + rest);
	return true;
}

bool request_answer(struct slot *slot, const struct rshm_answer *head, const void *metadata, size_t metadata_len,
		    const void *value, size_t value_len)
{
	size_t total = metadata_len + value_len, capacity = rshm_piece_capacity(slot->piece.block_count);
	size_t first = total < capacity ? total : capacity;
	struct rshm_answer answer = *head;

	slot->client->active_ns = clock_monotonic_ns();
	note_latency(slot);
	if (slot->client->dropped) {
		slot_clear(slot);
		return false;
	}
	if (first < total && !keep_rest(slot, metadata, metadata_len, value, value_len, first)) {
		request_fail(slot, RSHM_E_AGAIN);
		return false;
	}
	budget_charge_answer(slot->client->tenant, total);
	write_parts(slot, metadata, metadata_len, value, first);
	answer.answer_len = (uint32_t)total;
	answer.metadata_len = (uint32_t)metadata_len;
	answer.offset = 0;
	answer.piece_len = (uint32_t)first;
	slot->head = answer;
	slot->piece_ms = clock_monotonic_ms();
	if (first < total)
		slot->phase = SLOT_ANSWERING;
	else
		slot_clear(slot);
	return send_word(slot, &answer);
}

void request_refuse(struct slot *slot, int status, const char *text)
{
	struct rshm_answer head = {.status = status};
	size_t capacity = rshm_piece_capacity(slot->piece.block_count), length = text ? strlen(text) : 0;

	(void)request_answer(slot, &head, NULL, 0, text, length < capacity ? length : capacity);
}

void request_fail(struct slot *slot, int status)
{
	request_refuse(slot, status, NULL);
}

static void answer_next_piece(struct slot *slot)
{
	size_t capacity = rshm_piece_capacity(slot->piece.block_count);
	size_t left = slot->answer_len - slot->answer_sent, n = left < capacity ? left : capacity;

	rshm_piece_write(slot->client->channel, slot->number, &slot->piece, 0,
			 slot->answer + (slot->answer_sent - slot->answer_kept), n);
	slot->head.offset = slot->answer_sent;
	slot->head.piece_len = (uint32_t)n;
	slot->answer_sent += (uint32_t)n;
	if (slot->answer_sent == slot->answer_len)
		slot_clear(slot);
	(void)send_word(slot, &slot->head);
}

/* ---- single operations -------------------------------------------------------------------------------------- */

static void single_on_done(struct entry_op *op)
{
	struct slot *slot = op->context;
	struct client *client = slot->client;
	struct rshm_answer head = {
		.status = op->status,
		.flags = op->answer_flags,
		.version = op->version,
		.ttl_ms = op->remaining_ms,
		.access_count = op->access_count,
		.accessed_ms_ago = op->accessed_ms_ago,
	};

	if (op->status == RSHM_OK)
		request_answer(slot, &head, op->result_metadata, op->result_metadata_len, op->result_value,
			       op->result_value_len);
	else
		request_answer(slot, &head, NULL, 0, NULL, 0);
	client_unref(client);
}

static void execute_single(struct slot *slot, void (*run)(struct entry_op *op), bool needs_key)
{
	const struct rshm_request *r = &slot->request;
	struct client *client = slot->client;
	struct entry_op *op;

	if (needs_key && r->key_len == 0) {
		request_fail(slot, RSHM_E_INVALID);
		return;
	}
	op = entry_create(client->worker, client->tenant);
	if (!op) {
		request_fail(slot, RSHM_E_NOMEM);
		return;
	}
	op->key = slot->body;
	op->key_len = r->key_len;
	op->metadata = slot->body + r->key_len;
	op->metadata_len = r->metadata_len;
	op->value = slot->body + r->key_len + r->metadata_len;
	op->value_len = r->body_len - r->key_len - r->metadata_len;
	op->ttl_ms = r->ttl_ms;
	op->deadline_ms = r->deadline_ms;
	op->flags = r->flags;
	op->change = r->change;
	op->expected_version = r->version;
	op->operand = r->operand;
	if (r->flags & RSHM_REQUEST_TICKET)
		op->ticket = r->version;
	op->done = single_on_done;
	op->context = slot;
	client_ref(client);
	run(op);
}

/* What a token for reading alone may not: all that changes an entry, and a fetch, which ends in a write. */
static bool changes_something(uint16_t op)
{
	switch (op) {
	case RSHM_OP_SET:
	case RSHM_OP_DELETE:
	case RSHM_OP_TOUCH:
	case RSHM_OP_INCR:
	case RSHM_OP_FETCH:
	case RSHM_OP_FETCH_FAILED:
	case RSHM_OP_INVALIDATE_TAG:
	case RSHM_OP_INVALIDATE_PREFIX:
	case RSHM_OP_CLEAR:
	case RSHM_OP_SET_BATCH:
	case RSHM_OP_DELETE_BATCH:
		return true;
	default:
		return false;
	}
}

void request_dispatch(struct slot *slot)
{
	switch (slot->request.op) {
	case RSHM_OP_GET:
		execute_single(slot, entry_get, true);
		break;
	case RSHM_OP_SET:
		slot->client->counts.sets++;
		execute_single(slot, entry_set, true);
		break;
	case RSHM_OP_DELETE:
		slot->client->counts.deletes++;
		execute_single(slot, entry_delete, true);
		break;
	case RSHM_OP_TOUCH:
		execute_single(slot, entry_touch, true);
		break;
	case RSHM_OP_EXISTS:
		execute_single(slot, entry_exists, true);
		break;
	case RSHM_OP_INCR:
		slot->client->counts.sets++;
		execute_single(slot, entry_incr, true);
		break;
	case RSHM_OP_FETCH:
	case RSHM_OP_FETCH_FAILED:
		fetch_execute(slot);
		break;
	case RSHM_OP_INVALIDATE_TAG:
		execute_single(slot, entry_invalidate_tag, true);
		break;
	case RSHM_OP_INVALIDATE_PREFIX:
		execute_single(slot, entry_invalidate_prefix, false);
		break;
	case RSHM_OP_CLEAR:
		execute_single(slot, entry_clear, false);
		break;
	case RSHM_OP_FLUSH:
		execute_single(slot, entry_flush, false);
		break;
	case RSHM_OP_WARM_PREFIX:
		execute_single(slot, entry_warm_prefix, false);
		break;
	case RSHM_OP_WARM:
	case RSHM_OP_GET_BATCH:
	case RSHM_OP_SET_BATCH:
	case RSHM_OP_DELETE_BATCH:
		batch_execute(slot);
		break;
	case RSHM_OP_CHECK_ACCESS:
		access_execute(slot);
		break;
	case RSHM_OP_CHECK_QUOTA:
	case RSHM_OP_RATE:
		quota_execute(slot);
		break;
	case RSHM_OP_PING:
	case RSHM_OP_STATS:
	case RSHM_OP_LOCATE:
		about_execute(slot);
		break;
	default:
		request_fail(slot, RSHM_E_UNSUPPORTED);
	}
}

static void execute(struct slot *slot)
{
	slot->phase = SLOT_EXECUTING;
	slot->client->counts.requests++;
	slot->client->tenant->counts.requests++;
	slot->client->worker->totals.requests++;
	if (slot->client->read_only && changes_something(slot->request.op)) {
		request_refuse(slot, RSHM_E_DENIED, "the token is for reading alone");
		return;
	}
	if (access_permits(slot) && budget_admit(slot))
		request_dispatch(slot);
}

/* ---- taking ------------------------------------------------------------------------------------------------- */

static uint64_t body_limit(const struct worker *worker)
{
	return worker->env->options.max_entry_bytes + RSHM_KEY_MAX + RSHM_METADATA_MAX +
	       sizeof(struct rshm_batch_item) + 1;
}

/* The piece that was just taken belongs to the body; copies it and goes on. */
static void receive(struct slot *slot)
{
	const struct rshm_request *piece = &slot->piece;

	rshm_piece_read(slot->client->channel, slot->number, piece, 0, slot->body + slot->body_have,
			piece->piece_len);
	slot->body_have += piece->piece_len;
	if (slot->body_have == slot->request.body_len) {
		execute(slot);
	} else {
		struct rshm_answer more = {.status = RSHM_CONTINUE, .offset = slot->body_have};

		slot->phase = SLOT_RECEIVING;
		(void)send_word(slot, &more);
	}
}

static void begin_request(struct slot *slot, const struct rshm_request *piece, uint32_t generation)
{
	uint64_t now_ms = clock_monotonic_ms();

	slot_clear(slot);
	slot->generation = generation;
	slot->request = *piece;
	slot->piece = *piece;
	slot->body_have = 0;
	slot->began_ns = clock_monotonic_ns();
	if (slot->request.deadline_ms > now_ms + DEADLINE_MAX_MS)
		slot->request.deadline_ms = now_ms + DEADLINE_MAX_MS;
	if (piece->body_len > body_limit(slot->client->worker)) {
		request_fail(slot, RSHM_E_TOOBIG);
		return;
	}
	slot->body = body_take(slot, piece->body_len);
	if (!slot->body) {
		slot->request.body_len = 0;
		request_fail(slot, RSHM_E_AGAIN);
		return;
	}
	receive(slot);
}

static bool continues_body(const struct slot *slot, const struct rshm_request *piece, uint32_t generation)
{
	return slot->phase == SLOT_RECEIVING && generation == slot->generation && piece->offset == slot->body_have &&
	       piece->body_len == slot->request.body_len && piece->op == slot->request.op && piece->piece_len > 0;
}

static bool continues_answer(const struct slot *slot, const struct rshm_request *piece, uint32_t generation)
{
	return slot->phase == SLOT_ANSWERING && generation == slot->generation && piece->offset == slot->answer_sent;
}

static void take_piece(struct slot *slot, const struct rshm_request *piece, uint32_t generation)
{
	slot->piece_ms = clock_monotonic_ms();
	if (slot->phase == SLOT_EXECUTING) {
		client_drop(slot->client, "it submitted a slot that was under way");
	} else if (piece->flags & RSHM_REQUEST_FETCH) {
		slot->piece = *piece;
		if (continues_answer(slot, piece, generation))
			answer_next_piece(slot);
		else
			client_drop(slot->client, "it fetched a piece out of order");
	} else if (piece->offset == 0) {
		begin_request(slot, piece, generation);
	} else if (continues_body(slot, piece, generation)) {
		slot->piece = *piece;
		receive(slot);
	} else {
		client_drop(slot->client, "it sent a piece out of order");
	}
}

uint32_t request_serve(struct client *client, uint32_t requests, uint32_t bytes)
{
	uint32_t cost = 0;

	client->pending |= rshm_channel_pending(client->channel);
	while (client->pending && requests > 0 && cost < bytes && !client->dropped) {
		uint32_t number = (uint32_t)__builtin_ctz(client->pending), generation;
		struct rshm_request piece;

		client->pending &= client->pending - 1;
		requests--;
		switch (rshm_slot_take(client->channel, number, &piece, &generation)) {
		case RSHM_TAKEN:
			cost += REQUEST_COST + piece.piece_len;
			take_piece(&client->slots[number], &piece, generation);
			break;
		case RSHM_NOTHING:
			cost += REQUEST_COST;
			break;
		case RSHM_BROKEN:
			client_drop(client, "a request has fields that no client writes");
			break;
		}
	}
	if (cost > 0)
		client->active_ns = clock_monotonic_ns();
	return cost;
}
