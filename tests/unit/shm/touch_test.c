/* touch_test.c - counters and touches that a reader leaves, drained by somebody who believes nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
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
	rshm_touch(&shard, 1060, 0, 1000, 100);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(counters_arrive_once, setup),
		cmocka_unit_test_setup(counter_that_leaps_or_goes_back_is_bounded, setup),
		cmocka_unit_test_setup(only_old_unmarked_entries_are_noted, setup),
		cmocka_unit_test_setup(touches_beyond_the_ring_are_lost_and_only_those, setup),
		cmocka_unit_test_setup(latencies_fall_into_powers_of_two, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
