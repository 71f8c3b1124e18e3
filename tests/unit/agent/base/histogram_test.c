#include "agent/base/histogram.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static double relative_error(uint64_t answer, uint64_t truth)
{
	return fabs((double)answer - (double)truth) / (double)truth;
}

static void histogram_is_exact_for_small_values(void **state)
{
	struct histogram h;

	(void)state;
	for (uint64_t value = 0; value < 64; value++) {
		histogram_init(&h);
		histogram_record(&h, value);
		histogram_record(&h, 1000000);
		assert_int_equal(histogram_percentile(&h, 50), value);
	}
}

static void histogram_is_within_two_percent_over_its_whole_range(void **state)
{
	struct histogram h;

	(void)state;
	for (uint64_t value = 64; value <= HISTOGRAM_VALUE_MAX; value += 1 + value / 37) {
		histogram_init(&h);
		histogram_record(&h, value);
		histogram_record(&h, HISTOGRAM_VALUE_MAX);
		assert_true(relative_error(histogram_percentile(&h, 50), value) <= 0.016);
	}
}

static void histogram_clamps_what_is_longer_than_a_minute(void **state)
{
	struct histogram h;

	(void)state;
	histogram_init(&h);
	histogram_record(&h, UINT64_MAX);
	assert_int_equal(histogram_max(&h), HISTOGRAM_VALUE_MAX);
	assert_true(relative_error(histogram_percentile(&h, 100), HISTOGRAM_VALUE_MAX) <= 0.016);
}

static void histogram_answers_nothing_when_empty(void **state)
{
	struct histogram h;

	(void)state;
	histogram_init(&h);
	assert_int_equal(histogram_percentile(&h, 99), 0);
	assert_int_equal(histogram_mean(&h), 0);
	assert_int_equal(histogram_count(&h), 0);
}

static void histogram_finds_percentiles_of_a_known_row(void **state)
{
	struct histogram h;

	(void)state;
	histogram_init(&h);
	for (uint64_t value = 1; value <= 10000; value++)
		histogram_record(&h, value * 1000);
	assert_int_equal(histogram_count(&h), 10000);
	assert_int_equal(histogram_mean(&h), 5000500);
	assert_int_equal(histogram_max(&h), 10000000);
	assert_true(relative_error(histogram_percentile(&h, 50), 5000000) <= 0.03);
	assert_true(relative_error(histogram_percentile(&h, 99), 9900000) <= 0.03);
	assert_true(relative_error(histogram_percentile(&h, 99.9), 9990000) <= 0.03);
	assert_true(relative_error(histogram_percentile(&h, 0), 1000) <= 0.03);
	assert_true(histogram_percentile(&h, 100) <= 10000000);
	assert_true(fabs((double)histogram_count_up_to(&h, 5000000) - 5000) <= 160);
}

static void histogram_merge_equals_recording_into_one(void **state)
{
	struct histogram one, a, b;

	(void)state;
	histogram_init(&one);
	histogram_init(&a);
	histogram_init(&b);
	for (uint64_t i = 0; i < 5000; i++) {
		uint64_t value = i * i * 31 % 90000000;

		histogram_record(&one, value);
		histogram_record(i & 1 ? &a : &b, value);
	}
	histogram_merge(&a, &b);
	assert_memory_equal(&a, &one, sizeof(one));
}

static void histogram_weighs_samples(void **state)
{
	struct histogram h;

	(void)state;
	histogram_init(&h);
	histogram_record_many(&h, 10, 64);
	histogram_record_many(&h, 20, 36);
	assert_int_equal(histogram_count(&h), 100);
	assert_int_equal(histogram_sum(&h), 640 + 720);
	assert_int_equal(histogram_percentile(&h, 64), 10);
	assert_int_equal(histogram_percentile(&h, 65), 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(histogram_is_exact_for_small_values),
		cmocka_unit_test(histogram_is_within_two_percent_over_its_whole_range),
		cmocka_unit_test(histogram_clamps_what_is_longer_than_a_minute),
		cmocka_unit_test(histogram_answers_nothing_when_empty),
		cmocka_unit_test(histogram_finds_percentiles_of_a_known_row),
		cmocka_unit_test(histogram_merge_equals_recording_into_one),
		cmocka_unit_test(histogram_weighs_samples),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
