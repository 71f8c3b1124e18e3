#include "agent/base/hlc.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/base/clock.h"

#define THREADS 4
#define VERSIONS_PER_THREAD 50000

static void hlc_follows_the_wall_clock(void **state)
{
	struct hlc hlc;

	(void)state;
	hlc_init(&hlc, 0);
	assert_int_equal(hlc_ms(hlc_next_at(&hlc, 1000)), 1000);
	assert_int_equal(hlc_ms(hlc_next_at(&hlc, 5000)), 5000);
	assert_int_equal(hlc_counter(hlc_last(&hlc)), 0);
	uint64_t before = clock_realtime_ms();
	assert_true(hlc_ms(hlc_next(&hlc)) >= before);
}

static void hlc_counts_within_one_millisecond_and_carries(void **state)
{
	struct hlc hlc;
	uint64_t last = 0;

	(void)state;
	hlc_init(&hlc, 0);
	for (int i = 0; i < 70000; i++) {
		uint64_t next = hlc_next_at(&hlc, 1000);

		assert_true(next > last);
		last = next;
	}
	assert_int_equal(hlc_ms(last), 1001);
	assert_int_equal(hlc_counter(last), 70000 - 65536 - 1);
}

static void hlc_never_goes_backwards_with_the_wall_clock(void **state)
{
	struct hlc hlc;
	uint64_t first, second;

	(void)state;
	hlc_init(&hlc, 0);
	first = hlc_next_at(&hlc, 1000000);
	second = hlc_next_at(&hlc, 10);
	assert_int_equal(second, first + 1);
}

static void hlc_continues_above_the_floor_it_is_given(void **state)
{
	struct hlc hlc;
	uint64_t floor = (5000ull << 16) + 7;

	(void)state;
	hlc_init(&hlc, floor);
	assert_int_equal(hlc_next_at(&hlc, 4000), floor + 1);
}

static void hlc_next_is_larger_than_what_was_observed(void **state)
{
	struct hlc hlc;
	uint64_t remote = (9000ull << 16) + 3;

	(void)state;
	hlc_init(&hlc, 0);
	assert_true(hlc_observe_at(&hlc, remote, 5000));
	assert_int_equal(hlc_next_at(&hlc, 5000), remote + 1);
	assert_true(hlc_observe_at(&hlc, 1, 5000));
	assert_int_equal(hlc_next_at(&hlc, 5000), remote + 2);
}

static void hlc_refuses_versions_more_than_an_hour_ahead(void **state)
{
	struct hlc hlc;
	uint64_t now_ms = 1000000;

	(void)state;
	hlc_init(&hlc, 0);
	assert_true(hlc_observe_at(&hlc, (now_ms + HLC_DRIFT_MAX_MS) << 16, now_ms));
	uint64_t last = hlc_last(&hlc);
	assert_false(hlc_observe_at(&hlc, (now_ms + HLC_DRIFT_MAX_MS + 1) << 16, now_ms));
	assert_false(hlc_observe(&hlc, UINT64_MAX));
	assert_int_equal(hlc_last(&hlc), last);
}

struct worker {
	struct hlc *hlc;
	uint64_t *versions;
};

static void *worker_make_versions(void *argument)
{
	struct worker *worker = argument;

	for (size_t i = 0; i < VERSIONS_PER_THREAD; i++)
		worker->versions[i] = hlc_next(worker->hlc);
	return NULL;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

static void hlc_versions_of_many_threads_are_distinct_and_ordered(void **state)
{
	uint64_t *versions = calloc(THREADS * VERSIONS_PER_THREAD, sizeof(*versions));
	struct worker workers[THREADS];
	pthread_t threads[THREADS];
	struct hlc hlc;

	(void)state;
	assert_non_null(versions);
	hlc_init(&hlc, 0);
	for (size_t t = 0; t < THREADS; t++) {
		workers[t] = (struct worker){&hlc, versions + t * VERSIONS_PER_THREAD};
		assert_int_equal(pthread_create(&threads[t], NULL, worker_make_versions, &workers[t]), 0);
	}
	for (size_t t = 0; t < THREADS; t++)
		assert_int_equal(pthread_join(threads[t], NULL), 0);
	for (size_t i = 0; i < THREADS * VERSIONS_PER_THREAD; i++) {
		if (i % VERSIONS_PER_THREAD != 0)
			assert_true(versions[i] > versions[i - 1]);
	}
	qsort(versions, THREADS * VERSIONS_PER_THREAD, sizeof(*versions), compare_u64);
	for (size_t i = 1; i < THREADS * VERSIONS_PER_THREAD; i++)
		assert_true(versions[i] != versions[i - 1]);
	free(versions);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hlc_follows_the_wall_clock),
		cmocka_unit_test(hlc_counts_within_one_millisecond_and_carries),
		cmocka_unit_test(hlc_never_goes_backwards_with_the_wall_clock),
		cmocka_unit_test(hlc_continues_above_the_floor_it_is_given),
		cmocka_unit_test(hlc_next_is_larger_than_what_was_observed),
		cmocka_unit_test(hlc_refuses_versions_more_than_an_hour_ahead),
		cmocka_unit_test(hlc_versions_of_many_threads_are_distinct_and_ordered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
