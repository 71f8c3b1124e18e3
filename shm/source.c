/*
 * source.c - freshness of entries.
 *
 * Who reads what: readers load lease, then epoch; the agent, fencing, stores `fenced_at_ms` first and the epoch last
 * (release), so that a reader who sees the new epoch (acquire) also sees since when. The lease word alone may be old by
 * the time it is used: a lease is a promise until its end, so an older one only ends earlier.
 */
#include "shm/source.h"

#include "shm/order.h"

static enum rshm_freshness judge_unverified(enum rshm_policy policy, uint64_t since_ms, uint64_t stale_limit_ms,
					    uint64_t now_ms)
{
	if (policy == RSHM_POLICY_ERROR)
		return RSHM_REFUSE;
	if (policy != RSHM_POLICY_STALE || now_ms < since_ms || now_ms - since_ms > stale_limit_ms)
		return RSHM_UNVERIFIED;
	return RSHM_SERVE_STALE;
}

enum rshm_freshness rshm_judge(const struct rshm_source *sources, uint64_t control_a, uint64_t control_b,
			       enum rshm_policy policy, uint64_t stale_limit_ms, uint64_t now_ms)
{
	const struct rshm_source *source;
	uint64_t epoch, lease_until_ms;

	if (now_ms >= control_b)
		return RSHM_EXPIRED;
	source = &sources[rshm_control_source(control_a) % RSHM_SOURCES];
	/* Lease first: pairs with the release in rshm_source_extend(). Who sees a lease that began after a fence sees the
	 * fence's epoch; the other way round an older entry could live on under its successors' lease. */
	lease_until_ms = rshm_load_acquire(&source->lease_until_ms);
	/* Pairs with the release in rshm_source_fence(). */
	epoch = rshm_load_acquire(&source->epoch);
	if ((uint32_t)epoch != rshm_control_epoch(control_a))
		return judge_unverified(policy, rshm_load_relaxed(&source->fenced_at_ms), stale_limit_ms, now_ms);
	if (now_ms >= lease_until_ms)
		return judge_unverified(policy, lease_until_ms, stale_limit_ms, now_ms);
	return RSHM_VERIFIED;
}

uint64_t rshm_source_epoch(const struct rshm_source *source)
{
	/* Pairs with the release in rshm_source_fence(). */
	return rshm_load_acquire(&source->epoch);
}

void rshm_source_extend(struct rshm_source *source, uint64_t lease_until_ms)
{
	rshm_store_release(&source->lease_until_ms, lease_until_ms);
}

uint64_t rshm_source_fence(struct rshm_source *source, uint64_t now_ms)
{
	uint64_t epoch = rshm_load_relaxed(&source->epoch) + 1;
	uint64_t lease_until_ms = rshm_load_relaxed(&source->lease_until_ms);

	if (rshm_load_relaxed(&source->clean)) {
		rshm_store_relaxed(&source->fenced_at_ms, lease_until_ms < now_ms ? lease_until_ms : now_ms);
		rshm_store_relaxed(&source->clean, 0);
	}
	/* Pairs with the acquire in rshm_judge(): who sees this epoch sees since when. */
	rshm_store_release(&source->epoch, epoch);
	return epoch;
}

void rshm_source_mark_clean(struct rshm_source *source)
{
	rshm_store_relaxed(&source->clean, 1);
}
