/*
 * sealing.c - the keys of an open tenant that encrypts, and the envelopes that they seal and open.
 *
 *	request ─▶ space.c ─▶ sealed ─▶ journal, store           evicted ─▶ spilling.c ─▶ sealed ─▶ disk tier
 *	answer  ◀─ space.c ◀─ opened ◀─ journal, store           read    ◀─ spilling.c ◀─ opened ◀─ disk tier
 *
 * Until the ring is known, what needs it waits in space.c. Whoever opens a tenant first makes its ring. One that vanishes from
 * the backend while the tenant is open (evicted, deleted by hand) is stored again from memory, but not if it went with the tenant.
 */
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/serve/rings.h"
#include "agent/serve/serve_priv.h"
#include "agent/store/seal.h"

#define REFRESH_MS 60000u /* how long another agent's new key may go unused here */
#define RETRY_MS 500u
#define AGAIN_MS 1000u /* entries with a key that nobody has cost the backend a question a second */

struct sealing {
	struct keyring *ring; /* NULL: not known yet */
	struct ring_round round;
	bool asking;
	bool taken;        /* a newer ring than the one that is on its way */
	uint64_t asked_ms; /* when it was last known; 0: never */
	uint64_t retry_at_ms;
	uint64_t refused;
};

int sealing_create(struct serve_tenant *tenant)
{
	if (!tenant->tenant->encrypted)
		return RSHM_OK;
	tenant->sealing = calloc(1, sizeof(*tenant->sealing));
	return tenant->sealing ? RSHM_OK : RSHM_E_NOMEM;
}

void sealing_destroy(struct serve_tenant *tenant)
{
	if (tenant->sealing)
		keyring_destroy(&tenant->sealing->ring);
	free(tenant->sealing);
	tenant->sealing = NULL;
}

bool sealing_is_quiet(const struct serve_tenant *tenant)
{
	return !tenant->sealing || !tenant->sealing->asking;
}

bool sealing_is_ready(const struct serve_tenant *tenant)
{
	return !tenant->sealing || tenant->sealing->ring;
}

/* ---- the ring ------------------------------------------------------------------------------------------------- */

static int make_first(struct ring_round *round, struct keyring *ring)
{
	const struct serve_tenant *tenant = round->context;

	if (keyring_keys(ring).count > 0)
		return RSHM_MISS;
	if (!tenant->sealing->ring)
		return keyring_add(ring, clock_realtime_ms());
	if (round->destroyed)
		return RSHM_E_NOKEY;
	log_warn("serve", "tenant %s: its keys are gone from the backend; they are stored again", tenant->tenant->id);
	keyring_copy(ring, tenant->sealing->ring);
	return RSHM_OK;
}

void sealing_take(struct serve_tenant *tenant, const struct keyring *ring)
{
	struct sealing *s = tenant->sealing;
	struct keyring *copy;

	/* Without memory it is met when it is next asked for. */
	if (!s || keyring_keys(ring).count == 0 || keyring_create(tenant->tenant->id, &copy) < 0)
		return;
	keyring_copy(copy, ring);
	keyring_destroy(&s->ring);
	s->ring = copy;
	s->taken = s->asking;
	space_keys_told(&tenant->space, RSHM_OK);
}

static void ring_on_told(struct ring_round *round, int status)
{
	static struct log_limit limit = LOG_LIMIT(5, 60000);
	struct serve_tenant *tenant = round->context;
	struct sealing *s = tenant->sealing;

	s->asking = false;
	s->asked_ms = clock_monotonic_ms();
	if (status == RSHM_OK && s->taken) {
		keyring_destroy(&round->ring);
	} else if (status == RSHM_OK) {
		keyring_destroy(&s->ring);
		s->ring = round->ring;
		round->ring = NULL;
	} else {
		s->retry_at_ms = s->asked_ms + RETRY_MS;
		if (round->why[0] || status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT || status == RSHM_E_NOKEY)
			log_limited(&limit, LOG_LEVEL_ERROR, "serve", "tenant %s: its keys cannot be had: %s",
				    tenant->tenant->id,
				    round->why[0] ? round->why : "what the backend has of them is damaged or gone");
	}
	s->taken = false;
	space_keys_told(&tenant->space, status == RSHM_E_UNKNOWN ? RSHM_E_TIMEDOUT : status);
}

void sealing_ask(struct serve_tenant *tenant)
{
	struct sealing *s = tenant->sealing;

	if (!s || s->asking || tenant->space.closing)
		return;
	s->asking = true;
	s->round = (struct ring_round){
		.worker = tenant->worker,
		.tenant = tenant->tenant,
		.change = make_first,
		.done = ring_on_told,
		.context = tenant,
	};
	ring_round_begin(&s->round);
}

bool sealing_ask_again(struct serve_tenant *tenant)
{
	struct sealing *s = tenant->sealing;

	if (!s->asking && clock_monotonic_ms() - s->asked_ms < AGAIN_MS)
		return false;
	sealing_ask(tenant);
	return true;
}

void sealing_tick(struct serve_tenant *tenant, uint64_t now_ms)
{
	struct sealing *s = tenant->sealing;

	if (s && now_ms >= s->retry_at_ms && (!s->ring || now_ms - s->asked_ms >= REFRESH_MS))
		sealing_ask(tenant);
}

/* ---- envelopes ------------------------------------------------------------------------------------------------- */

static bool is_tombstone(const void *envelope, size_t length)
{
	struct envelope_head head;

	return envelope_peek_head(envelope, length, &head) == RSHM_OK && head.flags & ENVELOPE_FLAG_TOMBSTONE;
}

int sealing_seal(struct serve_tenant *tenant, const struct store_name *name, const void *envelope, size_t length,
		 struct envelope_buffer *ret)
{
	if (!tenant->sealing || is_tombstone(envelope, length))
		return RSHM_MISS;
	return seal_envelope(&keyring_keys(tenant->sealing->ring).keys[0], name, envelope, length, ret);
}

static int refuse(struct serve_tenant *tenant, int status, const char *why)
{
	static struct log_limit limit = LOG_LIMIT(5, 10000);

	tenant->sealing->refused++;
	log_limited(&limit, LOG_LEVEL_ERROR, "serve", "tenant %s: a stored entry is refused: %s", tenant->tenant->id,
		    why);
	return status;
}

int sealing_open(struct serve_tenant *tenant, const struct store_name *name, const void *envelope, size_t length,
		 struct envelope_buffer *ret)
{
	struct seal_keys keys;
	int status;

	if (!tenant->sealing || is_tombstone(envelope, length))
		return RSHM_MISS;
	keys = keyring_keys(tenant->sealing->ring);
	status = seal_open(&keys, name, envelope, length, ret);
	if (status == RSHM_E_INVALID)
		return refuse(tenant, RSHM_E_CORRUPT, "it is not encrypted, as all of this tenant's are");
	if (status == RSHM_E_CORRUPT)
		return refuse(tenant, status, "damaged, changed by others, or moved here from elsewhere");
	if (status == RSHM_E_NOKEY)
		return refuse(tenant, status, "its key is none of the tenant's");
	return status;
}

uint64_t sealing_refused(const struct serve_tenant *tenant)
{
	return tenant->sealing ? tenant->sealing->refused : 0;
}
