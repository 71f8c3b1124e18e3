/*
 * rings.c - a tenant's ring of keys: read, changed, and stored if nobody else changed it meanwhile.
 */
#include "agent/serve/rings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/serve/serve_priv.h"
#include "agent/tenant/record.h"

#define REQUEST_MS 5000u
#define ATTEMPTS 8u
#define MARK_MS (24u * 3600 * 1000) /* by then every agent knows that the tenant is gone */

static void read_ring(struct ring_round *round);

static struct store_name name_of(const struct tenant *tenant)
{
	return (struct store_name){
		.tenant = TENANT_RESERVED_ID,
		.tenant_number = tenant->registry_number,
		.shards = 1,
		.generation = 1,
		.space = RING_SPACE,
		.key = tenant->id,
		.key_len = strlen(tenant->id),
	};
}

static void end(struct ring_round *round, int status)
{
	envelope_buffer_fini(&round->envelope);
	if (status < 0)
		keyring_destroy(&round->ring);
	round->done(round, status);
}

static void ask(struct ring_round *round, enum store_op op, store_done_fn *done)
{
	round->request = (struct store_request){
		.op = op,
		.name = name_of(round->tenant),
		.skip_remaining = true,
		.deadline_ms = clock_monotonic_ms() + REQUEST_MS,
		.done = done,
		.context = round,
	};
}

static void ring_on_stored(struct store_request *request)
{
	struct ring_round *round = request->context;

	if (request->status == RSHM_CONFLICT && ++round->attempts < ATTEMPTS) {
		read_ring(round);
		return;
	}
	end(round, request->status == RSHM_CONFLICT ? RSHM_E_AGAIN : request->status);
}

static int make_envelope(const struct worker *worker, const struct tenant *tenant, const char *text,
			 uint64_t expiry_ms, struct envelope_buffer *ret)
{
	struct envelope_compression plain = {.choice = ENVELOPE_CHOOSE_NONE};
	struct envelope_input input = {
		.key = tenant->id,
		.key_len = strlen(tenant->id),
		.value = text,
		.value_len = strlen(text),
		.created_ms = clock_realtime_ms(),
		.expiry_ms = expiry_ms,
		.version = hlc_next(worker->env->hlc),
		.writer_id = worker->env->writer_id,
	};

	envelope_buffer_fini(ret);
	return envelope_encode(&input, &plain, ret);
}

int ring_removal(const struct worker *worker, const struct tenant *tenant, struct envelope_buffer *envelope,
		 struct store_request *ret)
{
	uint64_t expiry_ms = clock_realtime_ms() + MARK_MS;
	int status = make_envelope(worker, tenant, "", expiry_ms, envelope);

	if (status < 0)
		return status;
	*ret = (struct store_request){
		.op = STORE_PUT,
		.name = name_of(tenant),
		.condition = STORE_IF_PRESENT,
		.envelope = envelope->bytes,
		.envelope_len = envelope->length,
		.expiry_ms = expiry_ms,
		.deadline_ms = clock_monotonic_ms() + REQUEST_MS,
	};
	return RSHM_OK;
}

static void write_ring(struct ring_round *round)
{
	char *text;
	int status = keyring_encode(round->ring, round->worker->env->masters, &text);

	if (status == RSHM_OK) {
		status = make_envelope(round->worker, round->tenant, text, 0, &round->envelope);
		free(text);
	}
	if (status < 0) {
		end(round, status);
		return;
	}
	ask(round, STORE_PUT, ring_on_stored);
	round->request.condition = round->version ? STORE_IF_VERSION : STORE_IF_ABSENT;
	round->request.expected_version = round->version;
	round->request.envelope = round->envelope.bytes;
	round->request.envelope_len = round->envelope.length;
	store_submit(round->worker->store, &round->request);
}

/* What the backend has of the ring, checked. */
static int decode(struct ring_round *round)
{
	const struct store_request *request = &round->request;
	struct envelope_view view;
	char *text;
	int status =
		envelope_open(request->result, request->result_len, request->name.key, request->name.key_len, &view);

	if (status < 0)
		return status;
	if (view.head.plain_size > KEYRING_TEXT_MAX)
		return RSHM_E_CORRUPT;
	round->version = view.head.version;
	round->destroyed = view.head.plain_size == 0;
	if (round->destroyed)
		return keyring_create(round->tenant->id, &round->ring);
	text = malloc((size_t)view.head.plain_size + 1);
	if (!text)
		return RSHM_E_NOMEM;
	status = envelope_payload(&view, text, view.head.plain_size);
	if (status == RSHM_OK)
		status = keyring_decode(round->tenant->id, round->worker->env->masters, text, view.head.plain_size,
					&round->ring, round->why, sizeof(round->why));
	free(text);
	return status;
}

static void ring_on_read(struct store_request *request)
{
	struct ring_round *round = request->context;
	int status = request->status;

	round->version = 0;
	round->destroyed = false;
	keyring_destroy(&round->ring);
	if (status == RSHM_OK)
		status = decode(round);
	else if (status == RSHM_MISS)
		status = keyring_create(round->tenant->id, &round->ring);
	if (status == RSHM_OK) {
		status = round->change(round, round->ring);
		if (status == RSHM_OK) {
			write_ring(round);
			return;
		}
		if (status == RSHM_MISS)
			status = RSHM_OK;
	}
	end(round, status);
}

static void read_ring(struct ring_round *round)
{
	ask(round, STORE_GET, ring_on_read);
	store_submit(round->worker->store, &round->request);
}

void ring_round_begin(struct ring_round *round)
{
	round->why[0] = '\0';
	round->attempts = 0;
	if (!round->worker->env->masters) {
		snprintf(round->why, sizeof(round->why),
			 "tenant %s is encrypted, and this agent has no master key; see encryption.master_key_file",
			 round->tenant->id);
		end(round, RSHM_E_NOKEY);
		return;
	}
	read_ring(round);
}
