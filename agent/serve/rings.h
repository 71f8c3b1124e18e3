/*
 * rings.h - tenants that encrypt: their ring of keys in the backend, and the envelopes on their way to it and back.
 *
 * A ring (agent/tenant/keyring.h) is one entry of the reserved tenant. Agents read it when they open the tenant, when an entry
 * names a key that they do not know, and once a minute; whoever changes it stores it by compare-and-set. Worker thread; nothing
 * blocks.
 */
#ifndef RIPTIDE_SERVE_RINGS_H
#define RIPTIDE_SERVE_RINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/store/envelope.h"
#include "agent/store/store.h"
#include "agent/tenant/keyring.h"

struct worker;
struct worker_keys_order;
struct serve_tenant;
struct tenant;

#define RING_SPACE 'k' /* of the reserved tenant; the key is the tenant's id */

/* ---- one look at a ring, and one change (rings.c) ---------------------------------------------------------------- */

/* Embedded by its owner, who sets the first part and zeroes the rest. */
struct ring_round {
	struct worker *worker;
	const struct tenant *tenant;
	/*
	 * What becomes of the ring, which is empty if the backend has none: RSHM_OK: it was changed and is to be stored; RSHM_MISS:
	 * it stays as it is; an error ends the round. Called again on what another agent made of it meanwhile.
	 */
	int (*change)(struct ring_round *round, struct keyring *ring);
	/* The end. `ring` is as the backend has it if RSHM_OK; whoever sets it to NULL keeps it. */
	void (*done)(struct ring_round *round, int status);
	void *context;
	struct keyring *ring;
	bool destroyed; /* there was a ring, and the tenant was deleted */
	char why[256];  /* what is wrong, for people, without secrets; empty: nothing more is known than the status */
	/* the round's */
	struct store_request request;
	struct envelope_buffer envelope;
	uint64_t version;
	uint32_t attempts;
};

void ring_round_begin(struct ring_round *round);

/*
 * A request that puts a mark in the place of a tenant's ring, if there is one: what its keys sealed is noise from then on, and no
 * agent that still knows them stores them again. The mark goes by itself after a day. The caller sets `done` and `context`
 * and submits; `envelope` has to stay until `done`. RSHM_CONFLICT: there was none. RSHM_E_NOMEM.
 */
int ring_removal(const struct worker *worker, const struct tenant *tenant, struct envelope_buffer *envelope,
		 struct store_request *ret);

/* ---- of an open tenant (sealing.c); all do nothing where nothing is encrypted ---------------------------------------- */

int sealing_create(struct serve_tenant *tenant);
void sealing_destroy(struct serve_tenant *tenant);
/* No round is under way. */
bool sealing_is_quiet(const struct serve_tenant *tenant);
void sealing_tick(struct serve_tenant *tenant, uint64_t now_ms);

/* This is the ring now, which is copied. */
void sealing_take(struct serve_tenant *tenant, const struct keyring *ring);

/* The keys are known, or none are needed. */
bool sealing_is_ready(const struct serve_tenant *tenant);
/* Asks the backend for them; space_keys_told() is called when it has answered. */
void sealing_ask(struct serve_tenant *tenant);
/* The same because an entry takes a key that is not known. False: that was asked a moment ago. */
bool sealing_ask_again(struct serve_tenant *tenant);

/*
 * A plain envelope, sealed, into `ret`; RSHM_MISS: it is to be stored as it is. The keys are known. Errors of seal_envelope().
 */
int sealing_seal(struct serve_tenant *tenant, const struct store_name *name, const void *envelope, size_t length,
		 struct envelope_buffer *ret);
/*
 * The other way. RSHM_MISS: it may be used as it is. RSHM_E_CORRUPT, RSHM_E_NOKEY and a plain envelope that should be sealed,
 * which is RSHM_E_CORRUPT too, are counted and logged. RSHM_E_FORMAT, RSHM_E_NOMEM.
 */
int sealing_open(struct serve_tenant *tenant, const struct store_name *name, const void *envelope, size_t length,
		 struct envelope_buffer *ret);
/* Entries that were refused. */
uint64_t sealing_refused(const struct serve_tenant *tenant);

/* ---- changes of keys (rekeying.c) ------------------------------------------------------------------------------------- */

void rekeying_begin(struct worker *worker, const struct worker_keys_order *order);

#endif
