/*
 * hot_priv.h - the frame of every hot read: enter, look, judge, count, leave. Inline, for a hit is some 100 ns in all.
 */
#ifndef RIPTIDE_HOT_PRIV_H
#define RIPTIDE_HOT_PRIV_H

#include <time.h>

#include "client-lib/riptide_priv.h"
#include "shm/index.h"
#include "shm/source.h"
#include "shm/touch.h"

/* Outcomes of a hot read besides RIPTIDE_… codes. */
#define RT_ASK 100      /* not here, or not to be believed: ask the agent */
#define RT_RELOCATE 101 /* the segment was retired, or there is none: find the present one, then look again */

#define RT_SAMPLE 64u /* one read in so many is timed; a power of two */

struct rt_look {
	struct rt_line *line;
	const struct rt_sight *sight; /* NULL before the first attach */
	struct rshm_shard *shard;
	uint64_t began_ns; /* 0: not timed */
	uint64_t now_ms;   /* set by rt_look_judge() */
};

/* From here on the thread uses a mapping, whose address it may load now. */
static inline void rt_enter(struct rt_line *line)
{
	rshm_store_relaxed(&line->calls, line->calls + 1);
	/* Pairs with the membarrier in rt_threads_have_moved_on(), which stands in for a fence here. */
	rshm_compiler_barrier();
	if (__builtin_expect(rt_fence_is_needed, 0))
		rshm_fence_seq_cst();
}

static inline void rt_leave(struct rt_line *line)
{
	/* Pairs with the acquire in rt_threads_have_moved_on(). */
	rshm_store_release(&line->calls, line->calls + 1);
}

static inline uint64_t rt_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The way in when this thread or this process is new. False: no hot reads for this thread. */
bool rt_look_prepare(riptide *handle, struct rt_look *look);

/* Begins a hot read; rt_look_end() must follow if it returns true. */
static inline bool rt_look_begin(riptide *handle, struct rt_look *look)
{
	struct rt_line *line = rt_thread.line;
	uint64_t shards;

	if (__builtin_expect(!rt_line_is_mine(line), 0))
		return rt_look_prepare(handle, look);
	rt_enter(line);
	/* Pairs with the release when a channel comes or goes. 0: a child of fork() at its first call. */
	shards = rshm_load_acquire(&handle->process->shards);
	if (__builtin_expect(!shards, 0)) {
		rt_leave(line);
		return rt_look_prepare(handle, look);
	}
	look->line = line;
	look->shard = (struct rshm_shard *)(uintptr_t)shards + line->shard;
	/* Pairs with the release in rt_sight_publish(). */
	look->sight = (const struct rt_sight *)(uintptr_t)rshm_load_acquire(&handle->sight);
	look->began_ns = line->reads++ % RT_SAMPLE ? 0 : rt_clock_ns();
	return true;
}

static inline void rt_look_end(const struct rt_look *look)
{
	rt_leave(look->line);
}

static inline bool rt_look_can_see(const struct rt_look *look)
{
	return look->sight && look->sight->reader.segment;
}

/*
 * Is what was found to be believed now? After the copy and rshm_still_valid(). RIPTIDE_OK, RIPTIDE_MISS, RIPTIDE_ESTALE or
 * RT_ASK. Counts what is no hit.
 */
static inline int rt_look_judge(struct rt_look *look, const struct rshm_found *found, uint32_t *ret_flags)
{
	const struct rshm_segment *segment = look->sight->reader.segment;
	enum rshm_policy policy = (enum rshm_policy)rshm_load_relaxed32(&segment->policy);
	uint32_t flags = rshm_control_flags(found->entry.control_a);
	enum rshm_freshness freshness;

	look->now_ms = rshm_now_ms();
	freshness = rshm_judge(look->sight->sources, found->entry.control_a, found->entry.control_b, policy,
			       rshm_load_relaxed(&segment->stale_limit_ms), look->now_ms);
	if (__builtin_expect(freshness == RSHM_VERIFIED && !(flags & (RSHM_FLAG_TAGGED | RSHM_FLAG_NEGATIVE)), 1)) {
		*ret_flags = RIPTIDE_HOT;
		return RIPTIDE_OK;
	}
	/* Tags are not checked here yet, so an entry that has some is left to the agent. */
	if (flags & RSHM_FLAG_TAGGED)
		return RT_ASK;
	switch (freshness) {
	case RSHM_VERIFIED:
		rshm_count(&look->shard->misses, 1, look->line->shard_is_shared);
		return RIPTIDE_MISS;
	case RSHM_EXPIRED:
		rshm_count(&look->shard->expired, 1, look->line->shard_is_shared);
		return RT_ASK;
	case RSHM_SERVE_STALE:
		if (flags & RSHM_FLAG_NEGATIVE)
			return RT_ASK;
		rshm_count(&look->shard->stale, 1, look->line->shard_is_shared);
		*ret_flags = RIPTIDE_HOT | RIPTIDE_STALE;
		return RIPTIDE_OK;
	case RSHM_REFUSE:
		return RIPTIDE_ESTALE;
	default:
		return RT_ASK;
	}
}

/* Counts a hit, its touch and, if it is timed, its latency. */
static inline void rt_look_hit(const struct rt_look *look, const struct rshm_found *found)
{
	bool shared = look->line->shard_is_shared;

	rshm_count(&look->shard->hits, 1, shared);
	rshm_count(&look->shard->hit_bytes, found->entry.value_len, shared);
	rshm_touch(look->shard, found->entry.position, found->entry.control_a, found->tail,
		   look->sight->reader.units);
	if (__builtin_expect(look->began_ns != 0, 0)) {
		rshm_sample(look->shard, rt_clock_ns() - look->began_ns);
		rshm_count(&look->shard->sampled, 1, shared);
	}
}

/* Turns what the ring said into what to do, counting misses. */
static inline int rt_look_missed(const struct rt_look *look, enum rshm_outcome outcome)
{
	bool shared = look->line->shard_is_shared;

	if (outcome == RSHM_LET_GO)
		return RT_RELOCATE;
	if (outcome == RSHM_LAPPED)
		rshm_count(&look->shard->retries, 1, shared);
	rshm_count(&look->shard->misses, 1, shared);
	return RT_ASK;
}

/* There is no segment to look at: the agent is asked, now and then, whether it has one. */
static inline int rt_look_blind(const struct rt_look *look)
{
	rshm_count(&look->shard->misses, 1, look->line->shard_is_shared);
	return look->sight ? RT_RELOCATE : RT_ASK;
}

static inline void rt_look_info(const struct rt_look *look, const struct rshm_found *found, uint32_t flags,
				struct riptide_info *ret)
{
	ret->version = found->entry.version;
	ret->age_ms = rt_age_ms(found->entry.version);
	ret->ttl_ms = found->entry.control_b == RSHM_NEVER ? RIPTIDE_NEVER : found->entry.control_b - look->now_ms;
	ret->flags = flags;
	ret->metadata_length = found->entry.metadata_len;
}

#endif
