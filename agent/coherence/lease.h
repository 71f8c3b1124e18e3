/*
 * lease.h - how long readers may take a source's entries for verified.
 *
 * A lease is extended by proof: when the store's feed shows that all changes answered at some moment have been told, readers
 * may trust until that moment + lease_ms. A change that was told but is still being looked into (a check) is not applied
 * yet, so a proof that came after it waits until it is. Losing the feed fences the source: one store makes all its entries
 * unverified. Pure bookkeeping; one thread, the source's owner.
 */
#ifndef RIPTIDE_COHERENCE_LEASE_H
#define RIPTIDE_COHERENCE_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/source.h"

struct lease {
	struct rshm_source *source;
	uint64_t lease_ms;
	uint64_t proven_ms; /* complete_ms of the proof that counts; 0: none */
	/* A proof that waits for the checks that began before it; the latest one that came after it waits behind. */
	bool has_waiting, has_latest;
	uint64_t waiting_ms, latest_ms; /* complete_ms of these */
	uint32_t round;                 /* of checks: those that begin while a proof waits are of the next */
	uint32_t checks[2];             /* pending, by the parity of their round */
};

void lease_init(struct lease *lease, struct rshm_source *source, uint64_t lease_ms);

/* Everything that was answered at `complete_ms` has been told (store_watcher.proven). A smaller one than before changes nothing. */
void lease_prove(struct lease *lease, uint64_t complete_ms);

/* All entries are unverified; proofs that wait are void. Checks stay pending. */
void lease_fence(struct lease *lease, uint64_t now_ms);

/* A change that was told is looked into; what is returned ends it. Every check ends. */
uint32_t lease_begin_check(struct lease *lease);
void lease_end_check(struct lease *lease, uint32_t check);

uint32_t lease_checks(const struct lease *lease);

#endif
