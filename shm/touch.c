/* touch.c - draining a shard that its writer never stops writing. */
#include "shm/touch.h"

static uint64_t advance(const uint64_t *counter, uint64_t *seen, uint64_t most)
{
	uint64_t now = rshm_load_relaxed(counter), delta;

	if (now <= *seen) {
		*seen = now;
		return 0;
	}
	delta = now - *seen;
	*seen = now;
	return delta < most ? delta : most;
}

static void drain_latency(const struct rshm_shard *shard, struct rshm_seen *seen, uint64_t most,
			  struct rshm_drained *ret)
{
	for (unsigned int i = 0; i < RSHM_LATENCY_CLASSES; i++) {
		uint32_t now = rshm_load_relaxed32(&shard->latency[i]);
		uint32_t delta = now - seen->latency[i]; /* the counter wraps */

		seen->latency[i] = now;
		ret->latency[i] = delta < most ? delta : (uint32_t)most;
	}
}

/* The positions noted since *seen in a ring of `size`, newest first; returns how many. */
static uint32_t drain_positions(const uint64_t *ring, uint32_t size, const uint64_t *ring_next, uint64_t *seen,
				uint64_t *ret)
{
	/* Pairs with the release in rshm_touch() and rshm_note_access(). */
	uint64_t next = rshm_load_acquire(ring_next);
	uint64_t count = next - *seen;

	if (count > size)
		count = size;
	for (uint64_t i = 0; i < count; i++)
		ret[i] = rshm_load_relaxed(&ring[(next - 1 - i) % size]);
	*seen = next;
	return (uint32_t)count;
}

void rshm_drain(const struct rshm_shard *shard, struct rshm_seen *seen, uint64_t most, struct rshm_drained *ret)
{
	ret->hits = advance(&shard->hits, &seen->hits, most);
	ret->hit_bytes = advance(&shard->hit_bytes, &seen->hit_bytes, most << 16);
	ret->misses = advance(&shard->misses, &seen->misses, most);
	ret->absent = advance(&shard->absent, &seen->absent, most);
	ret->stale = advance(&shard->stale, &seen->stale, most);
	ret->expired = advance(&shard->expired, &seen->expired, most);
	ret->retries = advance(&shard->retries, &seen->retries, most);
	drain_latency(shard, seen, most, ret);
	ret->touch_count =
		drain_positions(shard->touches, RSHM_TOUCHES, &shard->touch_next, &seen->touch_next, ret->touches);
	ret->access_count = drain_positions(shard->accesses, RSHM_ACCESSES, &shard->access_next, &seen->access_next,
					    ret->accesses);
}
