/*
 * op_fetch.c - one load per missing key on the host, however many ask.
 *
 *   read ─▶ there: answer
 *        └▶ missing: enter the table of loads
 *                     first ─▶ answer RSHM_LOAD and a ticket: this client loads, and comes back with SET or FETCH_FAILED
 *                     later ─▶ wait ─▶ stored: read again   failed, dead or too slow: this one loads   absent: answer MISS
 *
 * A slot that waits is EXECUTING, like one whose request is with the store; its loading_op lies in it. A refresh (there is
 * an old value, which is good enough to go on with) never waits: it loads, or is told that another one does.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/cache/loading.h"
#include "agent/serve/serve_priv.h"

static bool fetch_answer(struct slot *slot, const struct rshm_answer *head)
{
	struct client *client = slot->client;
	bool delivered = request_answer(slot, head, NULL, 0, NULL, 0);

	client_unref(client);
	return delivered;
}

static void fetch_end(struct slot *slot, int status)
{
	struct rshm_answer head = {.status = status};

	(void)fetch_answer(slot, &head);
}

/* Says "load it". Who cannot be told will not load: the next one. */
static void fetch_load(struct slot *slot, uint64_t ticket)
{
	struct rshm_answer head = {.status = RSHM_LOAD, .version = ticket};
	struct client *client = slot->client;
	size_t key_len = slot->request.key_len;
	void *key = malloc(key_len);

	if (key)
		memcpy(key, slot->body, key_len); /* the answer frees it */
	client_ref(client);
	if (!fetch_answer(slot, &head) && key)
		(void)loading_done(client->worker->loading, client->tenant, key, key_len, ticket, LOADING_FAILED,
				   clock_monotonic_ms());
	client_unref(client);
	free(key);
}

static void fetch_on_load(struct loading_op *loading, uint64_t ticket)
{
	struct slot *slot = SLOT_OF_LOADING(loading);

	fetch_load(slot, ticket);
}

static void fetch_read(struct slot *slot);

static void fetch_on_waited(struct loading_op *loading, enum loading_answer answer)
{
	struct slot *slot = SLOT_OF_LOADING(loading);
	struct rshm_answer absent = {.status = RSHM_MISS, .flags = RSHM_ANSWER_NEGATIVE};

	switch (answer) {
	case LOADING_READ_AGAIN:
		fetch_read(slot);
		break;
	case LOADING_ABSENT:
		(void)fetch_answer(slot, &absent);
		break;
	case LOADING_TIMED_OUT:
		fetch_end(slot, RSHM_E_TIMEDOUT);
		break;
	}
}

static void set_loading(struct slot *slot)
{
	const struct rshm_request *r = &slot->request;

	slot->loading.tenant = slot->client->tenant;
	slot->loading.key = slot->body;
	slot->loading.key_len = r->key_len;
	slot->loading.owner = &slot->client->loading;
	slot->loading.load_timeout_ms = r->operand;
	slot->loading.deadline_ms = r->deadline_ms;
	slot->loading.become_loader = fetch_on_load;
	slot->loading.answer = fetch_on_waited;
}

static void fetch_wait(struct slot *slot)
{
	struct loading *table = slot->client->worker->loading;
	int status;

	/* Nobody is left to load or to be told. */
	if (slot->client->dropped) {
		fetch_end(slot, RSHM_E_CLOSED);
		return;
	}
	set_loading(slot);
	status = loading_enter(table, &slot->loading, clock_monotonic_ms());
	if (status < 0)
		fetch_end(slot, status);
}

static void fetch_on_read(struct entry_op *op)
{
	struct slot *slot = op->context;
	struct client *client = slot->client;
	struct rshm_answer head = {
		.status = op->status,
		.flags = op->answer_flags,
		.version = op->version,
		.ttl_ms = op->remaining_ms,
	};

	if (op->status == RSHM_OK) {
		request_answer(slot, &head, op->result_metadata, op->result_metadata_len, op->result_value,
			       op->result_value_len);
		client_unref(client);
	} else if (op->status == RSHM_MISS && !(op->answer_flags & RSHM_ANSWER_NEGATIVE)) {
		fetch_wait(slot);
	} else {
		(void)fetch_answer(slot, &head);
	}
}

static void fetch_read(struct slot *slot)
{
	struct client *client = slot->client;
	struct entry_op *op = client->dropped ? NULL : entry_create(client->worker, client->tenant);

	if (!op) {
		fetch_end(slot, client->dropped ? RSHM_E_CLOSED : RSHM_E_NOMEM);
		return;
	}
	op->key = slot->body;
	op->key_len = slot->request.key_len;
	op->deadline_ms = slot->request.deadline_ms;
	op->flags = slot->request.flags & (RSHM_REQUEST_FRESH | RSHM_REQUEST_SOFT_TOO);
	op->done = fetch_on_read;
	op->context = slot;
	entry_get(op);
}

static void fetch_refresh(struct slot *slot)
{
	struct loading *table = slot->client->worker->loading;
	uint64_t ticket;
	int status;

	set_loading(slot);
	status = loading_try_begin(table, &slot->loading, clock_monotonic_ms(), &ticket);
	if (status == RSHM_OK)
		fetch_load(slot, ticket);
	else
		fetch_end(slot, status);
}

void fetch_execute(struct slot *slot)
{
	const struct rshm_request *r = &slot->request;
	struct client *client = slot->client;
	bool held;

	if (r->key_len == 0 || r->key_len > r->body_len) {
		request_fail(slot, RSHM_E_INVALID);
		return;
	}
	client_ref(client);
	if (r->op == RSHM_OP_FETCH_FAILED) {
		held = loading_done(client->worker->loading, client->tenant, slot->body, r->key_len, r->version,
				    LOADING_FAILED, clock_monotonic_ms());
		fetch_end(slot, held ? RSHM_OK : RSHM_CONFLICT);
	} else if (r->flags & RSHM_REQUEST_REFRESH) {
		fetch_refresh(slot);
	} else {
		fetch_read(slot);
	}
}

void fetch_drop_client(struct client *client)
{
	uint32_t waiting = 0;

	for (unsigned int i = 0; i < RSHM_SLOTS; i++)
		if (loading_is_waiting(&client->slots[i].loading))
			waiting |= 1u << i;
	loading_owner_gone(client->worker->loading, &client->loading, clock_monotonic_ms());
	/* They vanished without a callback, and were the last to know these slots. */
	for (unsigned int i = 0; i < RSHM_SLOTS; i++) {
		if (!(waiting & 1u << i))
			continue;
		slot_clear(&client->slots[i]);
		client_unref(client);
	}
}
