/*
 * bench_time.h - clocks, order statistics, and the keys a benchmark asks for.
 *
 * Single durations are taken with the processor's time stamp where there is one (its cost is measured and subtracted), long
 * ones with CLOCK_MONOTONIC. One thread; bench_clock_init() first.
 */
#ifndef BENCH_TIME_H
#define BENCH_TIME_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

static inline uint64_t bench_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void bench_pause_us(uint64_t us)
{
	struct timespec span = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};

	nanosleep(&span, NULL);
}

/* Ticks of the finest clock, ordered against the loads and stores around it. */
static inline uint64_t bench_tick(void)
{
#if defined(__x86_64__)
	uint64_t tick;

	_mm_lfence();
	tick = __rdtsc();
	_mm_lfence();
	return tick;
#else
	return bench_now_ns();
#endif
}

struct bench_clock {
	double ns_per_tick;
	double cost_ns; /* of a pair of bench_tick(); taken off every single duration */
};

static struct bench_clock bench_clock;

static inline int bench_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Sorts `values` and returns the one that `percent` of them do not exceed; 0 for none. */
static inline double bench_percentile(double *values, size_t count, double percent)
{
	size_t rank = (size_t)ceil((double)count * percent / 100);

	if (count == 0)
		return 0;
	qsort(values, count, sizeof(*values), bench_compare);
	return values[rank ? (rank > count ? count : rank) - 1 : 0];
}

static inline double bench_median(double *values, size_t count)
{
	return bench_percentile(values, count, 50);
}

static inline double bench_mean(const double *values, size_t count)
{
	double sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += values[i];
	return count ? sum / (double)count : 0;
}

static inline void bench_clock_init(void)
{
	double cost[1001];
	uint64_t began_ns = bench_now_ns(), began = bench_tick(), ended;

	while (bench_now_ns() - began_ns < 50000000)
		;
	ended = bench_tick();
	bench_clock.ns_per_tick = (double)(bench_now_ns() - began_ns) / (double)(ended - began);
	for (unsigned int i = 0; i < 1001; i++) {
		uint64_t a = bench_tick(), b = bench_tick();

		cost[i] = (double)(b - a) * bench_clock.ns_per_tick;
	}
	bench_clock.cost_ns = bench_median(cost, 1001);
}

/* A single duration without the cost of taking it. */
static inline double bench_span_ns(uint64_t began, uint64_t ended)
{
	double ns = (double)(ended - began) * bench_clock.ns_per_tick - bench_clock.cost_ns;

	return ns > 0 ? ns : 0;
}

/*
 * The library's memcpy, which dispatches on the processor: the compiler would put `rep movs` in its place where it can guess a
 * bound of the size, at several times the cost.
 */
static void *(*volatile bench_memcpy)(void *, const void *, size_t) = memcpy;

/* ---- what is asked for -------------------------------------------------------------------------------------- */

/* xorshift64*: fast, and the same on every machine. */
static inline uint64_t bench_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1du;
}

/*
 * `count` numbers below `keys`, Zipf-distributed with exponent `skew`; which number is popular is random. NULL: no memory.
 * The caller frees it.
 */
static inline uint32_t *bench_zipf(uint32_t keys, double skew, size_t count, uint64_t seed)
{
	uint32_t *order = malloc(count * sizeof(*order)), *rank = malloc(keys * sizeof(*rank));
	double *below = malloc(keys * sizeof(*below)), sum = 0;

	for (uint32_t i = 0; order && rank && below && i < keys; i++) {
		uint32_t other = (uint32_t)(bench_random(&seed) % (i + 1));

		rank[i] = rank[other];
		rank[other] = i;
		sum += 1 / pow(i + 1, skew);
		below[i] = sum;
	}
	for (size_t n = 0; order && rank && below && n < count; n++) {
		double wanted = (double)(bench_random(&seed) >> 11) / 9007199254740992.0 * sum;
		uint32_t low = 0, high = keys - 1;

		while (low < high) {
			uint32_t middle = low + (high - low) / 2;

			if (below[middle] < wanted)
				low = middle + 1;
			else
				high = middle;
		}
		order[n] = rank[low];
	}
	free(rank);
	free(below);
	return order;
}

#define BENCH_KEY 12 /* bytes of a key */

static inline void bench_key(char key[BENCH_KEY + 1], uint32_t number)
{
	snprintf(key, BENCH_KEY + 1, "doc:%08u", number % 100000000u);
}

/* Bytes that name their key and do not compress to nothing. */
static inline void bench_value(char *value, size_t length, uint32_t number)
{
	uint64_t state = (uint64_t)number + 1;

	for (size_t i = 0; i < length; i += 8) {
		uint64_t word = bench_random(&state);

		memcpy(value + i, &word, length - i < 8 ? length - i : 8);
	}
}

#endif
