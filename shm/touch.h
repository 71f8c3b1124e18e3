/*
 * touch.h - what readers tell the agent: exact counters, sampled latencies, and some of the positions they touched.
 *
 * A shard belongs to one thread of the client; threads beyond the shards share the last one and add atomically. The agent
 * drains all of it from time to time. No line here is written by two threads but the last shard's.
 */
#ifndef RSHM_TOUCH_H
#define RSHM_TOUCH_H

#include <stdbool.h>

#include "shm/layout.h"
#include "shm/order.h"

/* Adds to a counter of a shard. `shared`: the last shard, which several threads use. */
static inline void rshm_count(uint64_t *counter, uint64_t n, bool shared)
{
	if (shared)
		rshm_add_relaxed(counter, n);
	else
		rshm_store_relaxed(counter, rshm_load_relaxed(counter) + n);
}

/* Is it worth knowing that an entry was read? If it is not yet marked and not in the ring's newest eighth. */
static inline bool rshm_touch_is_due(uint64_t position, uint64_t control_a, uint64_t tail, uint64_t ring_units)
{
	return !(control_a & RSHM_FLAG_TOUCHED) && position - tail <= ring_units / 8 * 7;
}

/* Notes that an entry was read, if that is due. Lossy. */
static inline void rshm_touch(struct rshm_shard *shard, uint64_t position, uint64_t control_a, uint64_t tail,
			      uint64_t ring_units)
{
	uint64_t next;

	if (!rshm_touch_is_due(position, control_a, tail, ring_units))
		return;
	next = rshm_load_relaxed(&shard->touch_next);
	rshm_store_relaxed(&shard->touches[next % RSHM_TOUCHES], position);
	/* Pairs with the acquire in rshm_drain(). */
	rshm_store_release(&shard->touch_next, next + 1);
}

/*
 * Notes a sampled read that is no touch, for the access times of entries. It has a place of its own, because such samples
 * would push the touches out. Lossy.
 */
static inline void rshm_note_access(struct rshm_shard *shard, uint64_t position)
{
	uint64_t next = rshm_load_relaxed(&shard->access_next);

	rshm_store_relaxed(&shard->accesses[next % RSHM_ACCESSES], position);
	/* Pairs with the acquire in rshm_drain(). */
	rshm_store_release(&shard->access_next, next + 1);
}

/* Counts one sampled latency in its power-of-two class. */
static inline void rshm_sample(struct rshm_shard *shard, uint64_t nanoseconds)
{
	uint32_t class = nanoseconds ? 63u - (uint32_t)__builtin_clzll(nanoseconds) : 0;
	uint32_t *counter = &shard->latency[class < RSHM_LATENCY_CLASSES ? class : RSHM_LATENCY_CLASSES - 1];

	rshm_store_relaxed32(counter, rshm_load_relaxed32(counter) + 1);
}

/* What the agent has seen of one shard so far; private to it. */
struct rshm_seen {
	uint64_t hits, hit_bytes, misses, absent, stale, expired, retries, touch_next, access_next;
	uint32_t latency[RSHM_LATENCY_CLASSES];
};

/* What is new in a shard since `seen`. */
struct rshm_drained {
	uint64_t hits, hit_bytes, misses, absent, stale, expired, retries;
	uint32_t latency[RSHM_LATENCY_CLASSES];
	uint32_t touch_count, access_count;
	uint64_t touches[RSHM_TOUCHES];
	uint64_t accesses[RSHM_ACCESSES];
};

/*
 * Reads a shard and moves `seen` on. The client may write anything at any time: a counter that goes backwards counts as
 * unchanged, and one that leaps is capped at `most` (events that can have happened since the last drain).
 */
void rshm_drain(const struct rshm_shard *shard, struct rshm_seen *seen, uint64_t most, struct rshm_drained *ret);

#endif
