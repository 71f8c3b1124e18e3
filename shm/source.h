/*
 * source.h - is an entry of this source, epoch and expiry to be believed now?
 *
 * Each entry names the backend node it came from and that node's epoch at publication. The agent extends a source's
 * lease while the source's feed is proven to deliver, and raises its epoch when that proof is lost: one store then makes
 * all its entries unverified for every process.
 */
#ifndef RSHM_SOURCE_H
#define RSHM_SOURCE_H

#include <stdbool.h>

#include "shm/layout.h"

enum rshm_freshness {
	RSHM_VERIFIED,   /* serve it */
	RSHM_EXPIRED,    /* its time is over: a miss, whatever the policy */
	RSHM_UNVERIFIED, /* the policy says miss, or the stale limit is over: ask the agent */
	RSHM_SERVE_STALE,
	RSHM_REFUSE, /* the policy says error */
};

/*
 * Judges an entry's control words at `now_ms` (CLOCK_MONOTONIC_COARSE, read after the copy). `sources` is the table of
 * the agent object, RSHM_SOURCES long. Any thread, any process.
 */
enum rshm_freshness rshm_judge(const struct rshm_source *sources, uint64_t control_a, uint64_t control_b,
			       enum rshm_policy policy, uint64_t stale_limit_ms, uint64_t now_ms);

/* The source's present epoch. Any thread. */
uint64_t rshm_source_epoch(const struct rshm_source *source);

/* The agent's side; one thread per source. */
void rshm_source_extend(struct rshm_source *source, uint64_t lease_until_ms);
/*
 * Makes every entry of the source unverified. Returns the new epoch. The stale limit begins now, or when the lease ran out
 * if that was earlier, or where it began for entries that an earlier fence left unverified.
 */
uint64_t rshm_source_fence(struct rshm_source *source, uint64_t now_ms);
/* Every entry has the present epoch again: the next fence begins a stale limit of its own. */
void rshm_source_mark_clean(struct rshm_source *source);

#endif
