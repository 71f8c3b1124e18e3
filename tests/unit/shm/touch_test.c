/* touch_test.c - counters and touches that a reader leaves, drained by somebody who believes nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "shm/touch.h"

static struct rshm_shard shard;
static struct rshm_seen seen;
static struct rshm_drained drained;

static int setup(void **state)
{
	(void)state;
	memset(&shard, 0, sizeof(shard));
	memset(&seen, 0, sizeof(seen));
	return 0;
}

static void counters_arrive_once(void **state)
{
	(void)state;
	rshm_count(&shard.hits, 5, false);
	rshm_count(&shard.hits, 2, true);
	rshm_count(&shard.hit_bytes, 700, false);
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.hits, 7);
	assert_int_equal(drained.hit_bytes, 700);
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.hits, 0);
}

static void counter_that_leaps_or_goes_back_is_bounded(void **state)
{
	(void)state;
	shard.hits = UINT64_MAX;
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.hits, 1000);
	shard.hits = 10;
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.hits, 0);
	shard.hits = 12;
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.hits, 2);
}

static void only_old_unmarked_entries_are_noted(void **state)
{
	(void)state;
	rshm_touch(&shard, 1010, 0, 1000, 100);
	rshm_touch(&shard, 1090, 0, 1000, 100);
	rshm_touch(&shard, 1020, RSHM_FLAG_TOUCHED, 1000, 100);
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.touch_count, 1);
	assert_int_equal(drained.touches[0], 1010);
}

static void touches_beyond_the_ring_are_lost_and_only_those(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < RSHM_TOUCHES + 10; i++)
		rshm_touch(&shard, 1000 + i % 50, 0, 1000, 100);
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.touch_count, RSHM_TOUCHES);
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.touch_count, 0);
	shard.touch_next -= 5; /* a hostile writer */
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_true(drained.touch_count <= RSHM_TOUCHES);
}

static void sampled_reads_have_a_place_of_their_own(void **state)
{
	(void)state;
	rshm_touch(&shard, 1010, 0, 1000, 100);
	for (uint64_t i = 0; i < RSHM_ACCESSES + 10; i++)
		rshm_note_access(&shard, i);
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.touch_count, 1);
	assert_int_equal(drained.touches[0], 1010);
	assert_int_equal(drained.access_count, RSHM_ACCESSES);
	assert_int_equal(drained.accesses[0], RSHM_ACCESSES + 9);
	assert_int_equal(drained.accesses[RSHM_ACCESSES - 1], 10);
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.access_count, 0);
	shard.access_next -= 5; /* a hostile writer */
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_true(drained.access_count <= RSHM_ACCESSES);
}

static void latencies_fall_into_powers_of_two(void **state)
{
	(void)state;
	rshm_sample(&shard, 0);
	rshm_sample(&shard, 1);
	rshm_sample(&shard, 100);
	rshm_sample(&shard, 127);
	rshm_sample(&shard, 128);
	rshm_sample(&shard, UINT64_MAX);
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.latency[0], 2);
	assert_int_equal(drained.latency[6], 2);
	assert_int_equal(drained.latency[7], 1);
	assert_int_equal(drained.latency[RSHM_LATENCY_CLASSES - 1], 1);
}

static void latency_counter_may_wrap_and_is_capped(void **state)
{
	(void)state;
	shard.latency[3] = UINT32_MAX;
	rshm_drain(&shard, &seen, UINT64_MAX, &drained);
	assert_int_equal(drained.latency[3], UINT32_MAX);
	shard.latency[3] = 4; /* five more */
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.latency[3], 5);
	shard.latency[3] = 3; /* backwards looks like a leap */
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.latency[3], 1000);
}

static void every_counter_is_drained_and_capped_by_itself(void **state)
{
	(void)state;
	shard = (struct rshm_shard){
		.hits = 1, .hit_bytes = 1ull << 40, .misses = 2000, .stale = 3, .expired = 4, .retries = 5};
	rshm_drain(&shard, &seen, 1000, &drained);
	assert_int_equal(drained.hits, 1);
	assert_int_equal(drained.hit_bytes, 1000u << 16);
	assert_int_equal(drained.misses, 1000);
	assert_int_equal(drained.stale, 3);
	assert_int_equal(drained.expired, 4);
	assert_int_equal(drained.retries, 5);
}

#define THREADS 3u
#define COUNTS 50000u

static void *count_in_the_shared_shard(void *context)
{
	for (uint32_t i = 0; i < COUNTS; i++) {
		rshm_count(&shard.hits, 1, true);
		if (context) {
			rshm_count(&shard.misses, 1, false);
			rshm_touch(&shard, 1000 + i % 50, 0, 1000, 100);
			rshm_sample(&shard, 64);
		}
	}
	return NULL;
}

static void nothing_counted_is_lost_while_it_is_drained(void **state)
{
	uint64_t hits = 0, misses = 0, samples = 0;
	pthread_t threads[THREADS];

	(void)state;
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_in_the_shared_shard, i == 0 ? &shard : NULL),
				 0);
	for (unsigned int i = 0; i < 2000; i++) {
		rshm_drain(&shard, &seen, UINT64_MAX >> 16, &drained);
		hits += drained.hits;
		misses += drained.misses;
		samples += drained.latency[6];
		for (uint32_t k = 0; k < drained.touch_count; k++)
			assert_in_range(drained.touches[k], 1000, 1049);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	rshm_drain(&shard, &seen, UINT64_MAX >> 16, &drained);
	assert_int_equal(hits + drained.hits, THREADS * COUNTS);
	assert_int_equal(misses + drained.misses, COUNTS);
	assert_int_equal(samples + drained.latency[6], COUNTS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(counters_arrive_once, setup),
		cmocka_unit_test_setup(counter_that_leaps_or_goes_back_is_bounded, setup),
		cmocka_unit_test_setup(only_old_unmarked_entries_are_noted, setup),
		cmocka_unit_test_setup(touches_beyond_the_ring_are_lost_and_only_those, setup),
		cmocka_unit_test_setup(sampled_reads_have_a_place_of_their_own, setup),
		cmocka_unit_test_setup(latencies_fall_into_powers_of_two, setup),
		cmocka_unit_test_setup(latency_counter_may_wrap_and_is_capped, setup),
		cmocka_unit_test_setup(every_counter_is_drained_and_capped_by_itself, setup),
		cmocka_unit_test_setup(nothing_counted_is_lost_while_it_is_drained, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
