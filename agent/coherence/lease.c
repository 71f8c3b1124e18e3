/*
 * lease.c - proofs wait for the checks that began before them.
 *
 * There are at most two kinds of pending checks: those that began before the waiting proof came (they hold it up), and those
 * that began after. When the first kind is used up the proof counts, and the latest proof that came meanwhile takes its
 * place; it is held up by all checks that are pending then, though some may have begun after it: late, but never wrong. As
 * every check ends within a bound, so does every wait.
 */
#include "agent/coherence/lease.h"

#include "agent/base/assert.h"

void lease_init(struct lease *lease, struct rshm_source *source, uint64_t lease_ms)
{
	*lease = (struct lease){.source = source, .lease_ms = lease_ms};
}

static void extend(struct lease *lease, uint64_t complete_ms)
{
	if (complete_ms <= lease->proven_ms)
		return;
	lease->proven_ms = complete_ms;
	rshm_source_extend(lease->source, complete_ms + lease->lease_ms);
}

void lease_prove(struct lease *lease, uint64_t complete_ms)
{
	if (lease->has_waiting) {
		if (!lease->has_latest || complete_ms > lease->latest_ms)
			lease->latest_ms = complete_ms;
		lease->has_latest = true;
		return;
	}
	if (lease_checks(lease) == 0) {
		extend(lease, complete_ms);
		return;
	}
	/* No proof waits: all pending checks are of the present round. */
	lease->has_waiting = true;
	lease->waiting_ms = complete_ms;
	lease->round++;
}

void lease_fence(struct lease *lease, uint64_t now_ms)
{
	rshm_source_fence(lease->source, now_ms);
	/* What waits proves nothing any more, but keeps its place: its checks are still older than those of the next round. */
	lease->waiting_ms = 0;
	lease->has_latest = false;
}

uint32_t lease_begin_check(struct lease *lease)
{
	lease->checks[lease->round & 1]++;
	return lease->round & 1;
}

static void settle(struct lease *lease)
{
	while (lease->has_waiting && lease->checks[~lease->round & 1] == 0) {
		extend(lease, lease->waiting_ms);
		lease->has_waiting = lease->has_latest;
		lease->waiting_ms = lease->latest_ms;
		lease->has_latest = false;
		if (lease->has_waiting)
			lease->round++;
	}
}

void lease_end_check(struct lease *lease, uint32_t check)
{
	must(check <= 1 && lease->checks[check] > 0);
	lease->checks[check]--;
	settle(lease);
}

uint32_t lease_checks(const struct lease *lease)
{
	return lease->checks[0] + lease->checks[1];
}
