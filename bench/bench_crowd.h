/*
 * bench_crowd.h - processes that all do one thing for a while, then another.
 *
 * A member is a forked process that runs the caller's work function for as long as the phase lasts; the parent sets the
 * phase, sleeps, and reads the counters. All of it lies in memory that they share; members poll for the next phase.
 */
#ifndef BENCH_CROWD_H
#define BENCH_CROWD_H

#include "bench/bench_world.h"

#define BENCH_MEMBERS 32
#define BENCH_SAMPLES 8192 /* of a member; later ones overwrite earlier ones */
#define BENCH_SETTLE_MS 20 /* from the start of a phase, before counting begins */

struct bench_member {
	_Alignas(128) uint64_t done; /* operations; grows during a phase */
	uint64_t sample_count;
	uint32_t phase_seen;
	float samples[BENCH_SAMPLES]; /* ns */
};

struct bench_crowd {
	_Alignas(128) uint32_t phase; /* 0: wait */
	uint32_t count;
	pid_t pids[BENCH_MEMBERS];
	struct bench_member members[BENCH_MEMBERS];
};

#define BENCH_LEAVE UINT32_MAX

static inline uint32_t bench_phase(const struct bench_crowd *crowd)
{
	return __atomic_load_n(&crowd->phase, __ATOMIC_ACQUIRE);
}

static inline void bench_did(struct bench_member *member, uint64_t operations)
{
	__atomic_store_n(&member->done, member->done + operations, __ATOMIC_RELAXED);
}

static inline void bench_note(struct bench_member *member, uint64_t ns)
{
	member->samples[member->sample_count++ % BENCH_SAMPLES] = (float)ns;
}

/* What a member is: `begin` makes its connections, `work` runs until bench_phase() is another than `phase`. */
struct bench_work {
	void *(*begin)(uint32_t number);
	void (*work)(struct bench_crowd *crowd, struct bench_member *member, uint32_t number, uint32_t phase,
		     void *own);
};

static inline void bench_member_run(struct bench_crowd *crowd, uint32_t number, const struct bench_work *work)
{
	struct bench_member *member = &crowd->members[number];
	void *own = work->begin(number);

	for (;;) {
		uint32_t phase = bench_phase(crowd);

		if (phase != 0 && phase != BENCH_LEAVE) {
			__atomic_store_n(&member->phase_seen, phase, __ATOMIC_RELEASE);
			member->sample_count = 0;
			work->work(crowd, member, number, phase, own);
		}
		__atomic_store_n(&member->phase_seen, phase, __ATOMIC_RELEASE);
		if (phase == BENCH_LEAVE)
			_exit(0);
		bench_pause_us(1000);
	}
}

/* All members have seen that there is nothing to do. */
static inline void bench_crowd_settle(struct bench_crowd *crowd)
{
	__atomic_store_n(&crowd->phase, 0, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < crowd->count; i++) {
		while (__atomic_load_n(&crowd->members[i].phase_seen, __ATOMIC_ACQUIRE) != 0) {
			int status = 0;

			if (waitpid(crowd->pids[i], &status, WNOHANG) != 0)
				bench_die("a member of the crowd ended",
					  WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "by itself");
			bench_pause_us(1000);
		}
	}
}

/* `count` members, each on CPU `number % CPUs` if `spread`. */
static inline struct bench_crowd *bench_crowd_start(uint32_t count, const struct bench_work *work, bool spread)
{
	struct bench_crowd *crowd =
		mmap(NULL, sizeof(*crowd), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	bench_need(crowd != MAP_FAILED && count <= BENCH_MEMBERS, "memory");
	crowd->count = count;
	for (uint32_t i = 0; i < count; i++) {
		pid_t pid;

		crowd->members[i].phase_seen = 1;
		pid = bench_fork();
		if (pid != 0) {
			crowd->pids[i] = pid;
			continue;
		}
		if (spread)
			bench_pin((int)(i % (uint32_t)sysconf(_SC_NPROCESSORS_ONLN)));
		bench_member_run(crowd, i, work);
	}
	bench_crowd_settle(crowd);
	return crowd;
}

static inline uint64_t bench_crowd_done(const struct bench_crowd *crowd)
{
	uint64_t done = 0;

	for (uint32_t i = 0; i < crowd->count; i++)
		done += __atomic_load_n(&crowd->members[i].done, __ATOMIC_RELAXED);
	return done;
}

/* Runs a phase and returns operations per second, of all members together. */
static inline double bench_crowd_rate(struct bench_crowd *crowd, uint32_t phase, uint32_t ms)
{
	uint64_t done, began_ns;
	double seconds;

	__atomic_store_n(&crowd->phase, phase, __ATOMIC_RELEASE);
	bench_pause_us(BENCH_SETTLE_MS * 1000);
	began_ns = bench_now_ns();
	done = bench_crowd_done(crowd);
	bench_pause_us((uint64_t)ms * 1000);
	done = bench_crowd_done(crowd) - done;
	seconds = (double)(bench_now_ns() - began_ns) / 1e9;
	bench_crowd_settle(crowd);
	return (double)done / seconds;
}

/* A percentile of what all members noted in the last phase. */
static inline double bench_crowd_percentile(const struct bench_crowd *crowd, double percent)
{
	double *all = malloc(crowd->count * BENCH_SAMPLES * sizeof(*all)), value;
	size_t count = 0;

	bench_need(all != NULL, "memory");
	for (uint32_t i = 0; i < crowd->count; i++) {
		const struct bench_member *member = &crowd->members[i];

		for (uint64_t n = 0; n < member->sample_count && n < BENCH_SAMPLES; n++)
			all[count++] = member->samples[n];
	}
	value = bench_percentile(all, count, percent);
	free(all);
	return value;
}

static inline void bench_crowd_end(struct bench_crowd *crowd)
{
	__atomic_store_n(&crowd->phase, BENCH_LEAVE, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < crowd->count; i++)
		waitpid(crowd->pids[i], NULL, 0);
	munmap(crowd, sizeof(*crowd));
}

#endif
