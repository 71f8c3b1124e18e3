/*
 * rekeying.c - a tenant's keys are changed, and what older ones sealed is sealed anew.
 *
 *	ring: a key more, or wrapped anew ─▶ stored ─▶ the operator is answered ─▶ what the journal has accepted is stored ─▶
 *	every entry, tag and session of the generation in force, and the dictionaries: its head; if an older key sealed it, all
 *	of it, sealed by the newest, stored if nobody wrote it meanwhile ─▶ keys that nothing can need any more are destroyed
 *
 * An entry sealed anew keeps its version: copies in shared memory stay good, and a compare-and-set sees no change. A touch that
 * falls between the look and the write is lost.
 *
 * An older key can be needed as long as a host may replay a journal that it sealed, or not know yet of a newer one. It is
 * destroyed by the first pass that begins later than that after its successor was made, and refuses nothing. Copies on disk
 * tiers may still be sealed by it: they are misses then.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/serve/rings.h"
#include "agent/serve/serve_priv.h"
#include "agent/serve/walk.h"
#include "agent/store/dictionary.h"
#include "agent/store/seal.h"

#define WALK_MS (24u * 3600 * 1000)
#define REQUEST_MS 10000u
#define WHOLE_MAX 8u      /* envelopes that are in memory at a time */
#define NOTICE_MS 120000u /* until every agent has met a new key */

static const char spaces[] = {'c', 't', 's', DICTIONARY_SPACE};

struct rekeying_item {
	struct store_request request;
	struct rekeying *rekeying;
	struct rekeying_item *next; /* that waits for a place */
	struct envelope_buffer sealed;
	unsigned char key[];
};

struct rekeying {
	struct walk walk; /* first */
	struct worker *worker;
	struct worker_keys_order order;
	struct ring_round round;
	struct keyring *ring;
	struct store_name name;
	struct store_request request;
	size_t space;
	uint32_t whole; /* items that have, or are asking for, a whole envelope */
	struct rekeying_item *waiting;
	uint64_t begun_ms; /* wall clock */
	bool stored;       /* the ring was changed */
};

static void next_space(struct rekeying *r);

static void finish(struct rekeying *r, int status)
{
	const struct worker_keys_progress *p = r->order.progress;

	if (r->order.reseal)
		log_at(status < 0 ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "serve",
		       "tenant %s: resealing %s: %llu entries seen, %llu sealed anew, %llu refused",
		       r->order.tenant->id, status < 0 ? "ended early, rotate or reseal once more" : "is done",
		       (unsigned long long)p->seen, (unsigned long long)p->resealed, (unsigned long long)p->failed);
	keyring_destroy(&r->ring);
	r->order.ended(r->order.context, status);
	free(r);
}

/* ---- one entry -------------------------------------------------------------------------------------------------- */

static void start_whole(struct rekeying *r);

static void ask(struct rekeying_item *item, enum store_op op, store_done_fn *done)
{
	struct store_name name = item->request.name;

	item->request = (struct store_request){
		.op = op,
		.name = name,
		.head_bytes = SEAL_PEEK_BYTES(name.key_len),
		.skip_remaining = true,
		.deadline_ms = clock_monotonic_ms() + REQUEST_MS,
		.done = done,
		.context = item,
	};
}

static void end_item(struct rekeying_item *item, int status)
{
	struct rekeying *r = item->rekeying;

	envelope_buffer_fini(&item->sealed);
	free(item);
	walk_item_done(&r->walk, status);
}

/* Its place goes to the next one. */
static void end_whole(struct rekeying_item *item, int status)
{
	struct rekeying *r = item->rekeying;

	r->whole--;
	if (status == RSHM_E_CORRUPT || status == RSHM_E_NOKEY || status == RSHM_E_FORMAT ||
	    status == RSHM_E_INVALID) {
		r->order.progress->failed++;
		status = RSHM_OK;
	}
	start_whole(r);
	end_item(item, status);
}

static void item_on_stored(struct store_request *request)
{
	struct rekeying_item *item = request->context;

	if (request->status == RSHM_OK)
		item->rekeying->order.progress->resealed++;
	/* Not there any more, or written by somebody who had the newest key, or will be met by the next pass. */
	end_whole(item, request->status < 0 ? request->status : RSHM_OK);
}

static int seal_anew(struct rekeying_item *item, struct envelope_head *head)
{
	const struct store_request *request = &item->request;
	struct seal_keys keys = keyring_keys(item->rekeying->ring);
	struct envelope_buffer plain;
	int status = envelope_peek_head(request->result, request->result_len, head);

	if (status < 0 || head->flags & ENVELOPE_FLAG_TOMBSTONE ||
	    (head->expiry_ms && head->expiry_ms <= clock_realtime_ms()))
		return status < 0 ? status : RSHM_MISS;
	status = seal_open(&keys, &request->name, request->result, request->result_len, &plain);
	if (status < 0)
		return status;
	status = seal_envelope(&keys.keys[0], &request->name, plain.bytes, plain.length, &item->sealed);
	envelope_buffer_fini(&plain);
	return status;
}

static void item_on_read(struct store_request *request)
{
	struct rekeying_item *item = request->context;
	struct envelope_head head;
	int status = request->status;

	if (status == RSHM_OK)
		status = seal_anew(item, &head);
	if (status != RSHM_OK) {
		end_whole(item, status < 0 ? status : RSHM_OK);
		return;
	}
	ask(item, STORE_PUT, item_on_stored);
	item->request.condition = STORE_IF_VERSION;
	item->request.expected_version = head.version;
	item->request.expiry_ms = head.expiry_ms;
	item->request.envelope = item->sealed.bytes;
	item->request.envelope_len = item->sealed.length;
	store_submit(item->rekeying->walk.store, &item->request);
}

static void start_whole(struct rekeying *r)
{
	while (r->waiting && r->whole < WHOLE_MAX) {
		struct rekeying_item *item = r->waiting;

		r->waiting = item->next;
		r->whole++;
		ask(item, STORE_GET, item_on_read);
		store_submit(r->walk.store, &item->request);
	}
}

static void item_on_head(struct store_request *request)
{
	struct rekeying_item *item = request->context;
	struct rekeying *r = item->rekeying;
	struct envelope_head head;
	uint32_t id;
	int status = request->status;

	if (status != RSHM_OK) {
		end_item(item, status < 0 ? status : RSHM_OK);
		return;
	}
	r->order.progress->seen++;
	status = seal_peek_key_id(request->result, request->result_len, &id);
	if (status == RSHM_OK && id != keyring_keys(r->ring).keys[0].id) {
		item->next = r->waiting;
		r->waiting = item;
		/* What ends at once must not end the walk under our hands. */
		r->walk.under_way++;
		start_whole(r);
		walk_item_done(&r->walk, RSHM_OK);
		return;
	}
	if (status < 0 && !(envelope_peek_head(request->result, request->result_len, &head) == RSHM_OK &&
			    head.flags & ENVELOPE_FLAG_TOMBSTONE))
		r->order.progress->failed++;
	end_item(item, RSHM_OK);
}

static void walk_on_key(struct walk *walk, const void *key, size_t key_len)
{
	struct rekeying *r = (struct rekeying *)walk;
	struct rekeying_item *item = calloc(1, sizeof(*item) + key_len);

	if (!item) {
		walk_item_done(walk, RSHM_E_NOMEM);
		return;
	}
	item->rekeying = r;
	memcpy(item->key, key, key_len);
	item->request.name = walk->name;
	item->request.name.key = item->key;
	item->request.name.key_len = key_len;
	ask(item, STORE_HEAD, item_on_head);
	store_submit(walk->store, &item->request);
}

/* ---- all of them -------------------------------------------------------------------------------------------------- */

/* Destroys keys whose successor is older than anything that may still be sealed by them. */
static int retire(struct ring_round *round, struct keyring *ring)
{
	struct rekeying *r = round->context;
	uint64_t age_ms = r->worker->env->options.key_need_ms + NOTICE_MS;
	int status = RSHM_MISS;

	for (size_t i = keyring_keys(ring).count; i-- > 1;) {
		uint32_t successor = keyring_keys(ring).keys[i - 1].id, id = keyring_keys(ring).keys[i].id;

		if (keyring_created_ms(ring, successor) + age_ms > r->begun_ms)
			continue;
		if (keyring_retire(ring, id) == RSHM_OK) {
			log_info("serve", "tenant %s: key %u is destroyed", r->order.tenant->id, id);
			status = RSHM_OK;
		}
	}
	return status;
}

static void ring_on_retired(struct ring_round *round, int status)
{
	struct rekeying *r = round->context;

	keyring_destroy(&round->ring);
	finish(r, status);
}

static void begin_round(struct rekeying *r, int (*change)(struct ring_round *round, struct keyring *ring),
			void (*done)(struct ring_round *round, int status))
{
	r->round = (struct ring_round){
		.worker = r->worker,
		.tenant = r->order.tenant,
		.change = change,
		.done = done,
		.context = r,
	};
	ring_round_begin(&r->round);
}

static void space_on_walked(struct walk *walk, int status)
{
	struct rekeying *r = (struct rekeying *)walk;

	if (status < 0) {
		finish(r, status);
		return;
	}
	r->space++;
	next_space(r);
}

static void next_space(struct rekeying *r)
{
	if (r->space < sizeof(spaces)) {
		r->walk = (struct walk){
			.store = r->worker->store,
			.name = r->name,
			.deadline_ms = clock_monotonic_ms() + WALK_MS,
			.each = walk_on_key,
			.done = space_on_walked,
		};
		r->walk.name.space = spaces[r->space];
		if (spaces[r->space] == DICTIONARY_SPACE)
			r->walk.name.generation = 1;
		walk_start(&r->walk);
	} else if (r->order.progress->failed > 0) {
		finish(r, RSHM_OK);
	} else {
		begin_round(r, retire, ring_on_retired);
	}
}

static void ask_store(struct rekeying *r, enum store_op op, store_done_fn *done)
{
	r->request = (struct store_request){
		.op = op,
		.name = r->name,
		.deadline_ms = clock_monotonic_ms() + REQUEST_MS,
		.done = done,
		.context = r,
	};
	store_submit(r->worker->store, &r->request);
}

static void generation_on_known(struct store_request *request)
{
	struct rekeying *r = request->context;

	r->name.generation = request->generation;
	if (request->status < 0)
		finish(r, request->status);
	else
		next_space(r);
}

static void journal_on_flushed(struct store_request *request)
{
	struct rekeying *r = request->context;

	if (request->status < 0)
		finish(r, request->status);
	else
		ask_store(r, STORE_GENERATION, generation_on_known);
}

/* ---- the ring --------------------------------------------------------------------------------------------------- */

static int change_ring(struct ring_round *round, struct keyring *ring)
{
	struct rekeying *r = round->context;
	int status = RSHM_MISS;

	if (r->order.rotate)
		status = keyring_add(ring, clock_realtime_ms());
	else if (r->order.rewrap && keyring_behind(ring) > 0)
		status = RSHM_OK;
	r->stored = status == RSHM_OK;
	return status;
}

static struct worker_keys describe(const struct rekeying *r)
{
	const struct keyring *ring = r->ring;
	struct seal_keys all = keyring_keys(ring);
	/* Whatever is stored is wrapped by the current master key. */
	struct worker_keys keys = {.count = all.count, .behind = r->stored ? 0 : keyring_behind(ring)};

	for (size_t i = 0; i < all.count; i++) {
		keys.keys[i].id = all.keys[i].id;
		keys.keys[i].created_ms = keyring_created_ms(ring, all.keys[i].id);
	}
	return keys;
}

static void ring_on_changed(struct ring_round *round, int status)
{
	struct rekeying *r = round->context;
	struct serve_tenant *open = NULL;
	struct worker_keys keys;

	r->ring = round->ring;
	round->ring = NULL;
	if (status < 0) {
		r->order.reseal = false;
		r->order.changed(
			r->order.context, status, NULL,
			status == RSHM_E_FULL
				? "the tenant has all the keys it may have; reseal, and rotate when the oldest is gone"
				: round->why);
		finish(r, status);
		return;
	}
	/* New writes take the new key from now on, in time for what they may meet of others. */
	for (size_t i = 0; i < r->worker->tenant_count && !open; i++)
		if (strcmp(r->worker->tenants[i]->tenant->id, r->order.tenant->id) == 0)
			open = r->worker->tenants[i];
	if (open)
		sealing_take(open, r->ring);
	keys = describe(r);
	r->order.changed(r->order.context, RSHM_OK, &keys, NULL);
	if (!r->order.reseal)
		finish(r, RSHM_OK);
	else
		ask_store(r, STORE_FLUSH, journal_on_flushed);
}

void rekeying_begin(struct worker *worker, const struct worker_keys_order *order)
{
	struct rekeying *r = worker->closing ? NULL : calloc(1, sizeof(*r));

	if (!r) {
		int status = worker->closing ? RSHM_E_CLOSED : RSHM_E_NOMEM;

		order->changed(order->context, status, NULL, "");
		order->ended(order->context, status);
		return;
	}
	r->worker = worker;
	r->order = *order;
	r->name = entry_store_name(order->tenant);
	r->begun_ms = clock_realtime_ms();
	begin_round(r, change_ring, ring_on_changed);
}
