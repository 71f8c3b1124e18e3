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

/* The way in when this thread or this process is new (judge.c). False: no hot reads for this thread. */
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

/* May the thread go on reading by itself? Its own counters stand beside, in the same line. */
static inline bool rt_look_has_credit(const struct rt_look *look)
{
	return rshm_load_relaxed(&look->shard->hits) < rshm_load_relaxed(&look->shard->stop_hits) &&
	       rshm_load_relaxed(&look->shard->hit_bytes) < rshm_load_relaxed(&look->shard->stop_bytes);
}

static inline bool rt_look_can_see(const struct rt_look *look)
{
	return look->sight && look->sight->reader.segment && rt_look_has_credit(look);
}

/* Entries that take more than a look at the clock. */
#define RT_FLAGS_CLOSE (RSHM_FLAG_TAGGED | RSHM_FLAG_NEGATIVE | RSHM_FLAG_SOFT)

/* The rest of rt_look_judge(), for all but verified entries without such flags (judge.c). */
int rt_look_judge_closely(struct rt_look *look, struct rshm_found *found, enum rshm_freshness freshness,
			  uint32_t *ret_flags, uint64_t *soft_ms);

/*
 * Is what was found to be believed now? After the copy and rshm_still_valid(). RIPTIDE_OK, RIPTIDE_MISS (*ret_flags says
 * whether a remembered one), RIPTIDE_ESTALE or RT_ASK. Counts what is no hit. Afterwards `found` is what the caller may see:
 * `bytes` and `metadata_len` without tag pairs, `control_b` no later than a soft deadline. `soft_ms` as rt_look_value().
 */
static inline int rt_look_judge(struct rt_look *look, struct rshm_found *found, uint32_t *ret_flags,
				uint64_t *soft_ms)
{
	const struct rshm_segment *segment = look->sight->reader.segment;
	enum rshm_policy policy = (enum rshm_policy)rshm_load_relaxed32(&segment->policy);
	enum rshm_freshness freshness;

	look->now_ms = rshm_now_ms();
	freshness = rshm_judge(look->sight->sources, found->entry.control_a, found->entry.control_b, policy,
			       rshm_load_relaxed(&segment->stale_limit_ms), look->now_ms);
	if (__builtin_expect(freshness == RSHM_VERIFIED && !(found->entry.control_a & RT_FLAGS_CLOSE), 1)) {
		*ret_flags = RIPTIDE_HOT;
		return RIPTIDE_OK;
	}
	return rt_look_judge_closely(look, found, freshness, ret_flags, soft_ms);
}

/* The rare parts of rt_look_hit() (judge.c): counts in a shard that threads share; notes how long the read has taken. */
void rt_look_count_shared(const struct rt_look *look, uint32_t value_len);
void rt_look_sample(const struct rt_look *look, const struct rshm_found *found);

/* Counts a hit, its touch and, if it is timed, its latency. */
static inline void rt_look_hit(const struct rt_look *look, const struct rshm_found *found)
{
	if (__builtin_expect(look->line->shard_is_shared, 0)) {
		rt_look_count_shared(look, found->entry.value_len);
	} else {
		rshm_count(&look->shard->hits, 1, false);
		rshm_count(&look->shard->hit_bytes, found->entry.value_len, false);
	}
	rshm_touch(look->shard, found->entry.position, found->entry.control_a, found->tail,
		   look->sight->reader.units);
	if (__builtin_expect(look->began_ns != 0, 0))
		rt_look_sample(look, found);
}

/* Turns what the ring said into what to do, counting misses (judge.c). */
int rt_look_missed(const struct rt_look *look, enum rshm_outcome outcome);

/* Ends a look for which there is no segment: the agent is asked, now and then, whether it has one; or no credit (judge.c). */
int rt_look_blind(const struct rt_look *look);

/* What there is to say of a hit (get.c). */
void rt_look_info(const struct rt_look *look, const struct rshm_found *found, uint32_t flags,
		  struct riptide_info *ret);

#endif
