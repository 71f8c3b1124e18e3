#include "agent/base/metric.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { HITS, LEVEL, ACCESS_NS, METRICS };

static const struct metric table[METRICS] = {
	[HITS] = {"hits_total", METRIC_COUNTER, "Reads that found something."},
	[LEVEL] = {"level", METRIC_GAUGE, "What is there now."},
	[ACCESS_NS] = {"access_duration", METRIC_HISTOGRAM, "How long a read took."},
};

static void metric_set_keeps_counters_gauges_and_histograms(void **state)
{
	struct metric_set *set = metric_set_create("test", table, METRICS);

	(void)state;
	if (!RIPTIDE_METRICS)
		skip();
	assert_non_null(set);
	assert_int_equal(metric_value(set, HITS), 0);
	metric_add(set, HITS, 2);
	metric_add(set, HITS, 3);
	metric_put(set, LEVEL, 10);
	metric_add(set, LEVEL, 5);
	metric_subtract(set, LEVEL, 1);
	metric_observe(set, ACCESS_NS, 50);
	assert_int_equal(metric_value(set, HITS), 5);
	assert_int_equal(metric_value(set, LEVEL), 14);
	assert_int_equal(metric_value(set, ACCESS_NS), 1);
	assert_int_equal(histogram_percentile(metric_histogram(set, ACCESS_NS), 50), 50);
	metric_set_destroy(&set);
	assert_null(set);
	metric_set_destroy(&set);
}

static void metric_set_describes_itself(void **state)
{
	struct metric_set *set = metric_set_create("test", table, METRICS);
	size_t count = 0;

	(void)state;
	assert_string_equal(metric_set_module(set), "test");
	assert_ptr_equal(metric_set_table(set, &count), table);
	assert_int_equal(count, METRICS);
	metric_set_destroy(&set);
}

static void metric_set_merges_and_resets(void **state)
{
	struct metric_set *a = metric_set_create("test", table, METRICS);
	struct metric_set *b = metric_set_create("test", table, METRICS);

	(void)state;
	if (!RIPTIDE_METRICS)
		skip();
	metric_add(a, HITS, 1);
	metric_add(b, HITS, 10);
	metric_put(b, LEVEL, 7);
	metric_observe(a, ACCESS_NS, 100);
	metric_observe(b, ACCESS_NS, 300);
	metric_set_merge(a, b);
	assert_int_equal(metric_value(a, HITS), 11);
	assert_int_equal(metric_value(a, LEVEL), 7);
	assert_int_equal(histogram_sum(metric_histogram(a, ACCESS_NS)), 400);
	assert_int_equal(metric_value(b, HITS), 10);
	metric_set_reset(a);
	assert_int_equal(metric_value(a, HITS), 0);
	assert_int_equal(metric_value(a, ACCESS_NS), 0);
	metric_set_destroy(&a);
	metric_set_destroy(&b);
}

static void *add_many(void *set)
{
	for (int i = 0; i < 100000; i++) {
		metric_add(set, HITS, 1);
		metric_observe(set, ACCESS_NS, (uint64_t)i);
	}
	return NULL;
}

static void metric_set_loses_nothing_between_threads(void **state)
{
	struct metric_set *set = metric_set_create("test", table, METRICS);
	pthread_t threads[4];

	(void)state;
	if (!RIPTIDE_METRICS)
		skip();
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, set), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(metric_value(set, HITS), 400000);
	assert_int_equal(metric_value(set, ACCESS_NS), 400000);
	metric_set_destroy(&set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(metric_set_keeps_counters_gauges_and_histograms),
		cmocka_unit_test(metric_set_describes_itself),
		cmocka_unit_test(metric_set_merges_and_resets),
		cmocka_unit_test(metric_set_loses_nothing_between_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
