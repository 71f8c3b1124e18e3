/* evictions_test.c - what the book of evictions says, figure by figure. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/cache/evictions.h"

#define START_MS 5000000u
#define SECONDS(n) ((uint64_t)(n)*1000)

static struct evictions *book;

static int setup(void **state)
{
	(void)state;
	book = evictions_create(START_MS);
	return book ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	evictions_destroy(&book);
	return book == NULL ? 0 : -1;
}

static void record_at(enum eviction_reason reason, uint64_t bytes, uint64_t idle_ms, uint64_t now_ms)
{
	evictions_record(book, reason, bytes, idle_ms, NULL, 0, now_ms);
}

static void record(enum eviction_reason reason, uint64_t bytes, uint64_t idle_ms)
{
	record_at(reason, bytes, idle_ms, START_MS);
}

static struct evictions_figures figures_at(uint64_t now_ms)
{
	struct evictions_figures figures;

	evictions_figures(book, now_ms, &figures);
	return figures;
}

static void assert_near(double value, double expected)
{
	assert_true(value > expected - 0.001 && value < expected + 0.001);
}

/* ---- the twelve of the original's acceptance suite, with its numbers ----------------------------------------- */

static void one_eviction_is_counted_with_size_and_idle_time(void **state)
{
	struct evictions_figures f;

	(void)state;
	record(EVICTION_CAPACITY, 1024, SECONDS(60));
	f = figures_at(START_MS);
	assert_int_equal(f.total, 1);
	assert_int_equal(f.total_bytes, 1024);
	assert_near(f.idle_ms_average, SECONDS(60));
	assert_int_equal(f.count[EVICTION_CAPACITY], 1);
	assert_int_equal(f.bytes[EVICTION_CAPACITY], 1024);
}

static void four_reasons_are_told_apart(void **state)
{
	static const uint64_t bytes[EVICTION_REASONS] = {2048, 1024, 4096, 512};
	struct evictions_figures f;

	(void)state;
	record(EVICTION_CAPACITY, 2048, SECONDS(120));
	record(EVICTION_EXPIRED, 1024, EVICTION_IDLE_UNKNOWN);
	record(EVICTION_MANUAL, 4096, SECONDS(30));
	record(EVICTION_MEMORY_PRESSURE, 512, SECONDS(300));
	f = figures_at(START_MS);
	assert_int_equal(f.total, 4);
	assert_int_equal(f.total_bytes, 2048 + 1024 + 4096 + 512);
	for (int i = 0; i < EVICTION_REASONS; i++) {
		assert_int_equal(f.count[i], 1);
		assert_int_equal(f.bytes[i], bytes[i]);
	}
}

static void ten_evictions_make_a_rate(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++)
		record(EVICTION_CAPACITY, 1024, SECONDS(60));
	assert_near(figures_at(START_MS + SECONDS(1)).rate, 10);
	assert_int_equal(figures_at(START_MS + SECONDS(1)).total, 10);
	assert_near(figures_at(START_MS + SECONDS(4)).rate, 2.5);
}

static void ten_of_fifteen_are_remembered_newest_first(void **state)
{
	struct evictions_figures f;

	(void)state;
	for (uint64_t i = 1; i <= 15; i++)
		record_at(EVICTION_CAPACITY, i * 1024, SECONDS(i), START_MS + i);
	f = figures_at(START_MS + 20);
	assert_int_equal(f.total, 15);
	assert_int_equal(f.recent_count, 10);
	for (uint64_t i = 0; i < 10; i++) {
		assert_int_equal(f.recent[i].bytes, (15 - i) * 1024);
		assert_int_equal(f.recent[i].evicted_at_ms, START_MS + 15 - i);
		assert_int_equal(f.recent[i].idle_ms, SECONDS(15 - i));
	}
}

static void evictions_of_two_books_add_up_in_a_summary(void **state)
{
	struct evictions *other = evictions_create(START_MS);
	struct evictions_figures sum = figures_at(START_MS), f;

	(void)state;
	assert_non_null(other);
	record(EVICTION_CAPACITY, 1024, SECONDS(60));
	evictions_record(other, EVICTION_EXPIRED, 2048, SECONDS(120), NULL, 0, START_MS);
	f = figures_at(START_MS);
	evictions_merge(&sum, &f);
	evictions_figures(other, START_MS, &f);
	evictions_merge(&sum, &f);
	assert_int_equal(sum.total, 2);
	assert_int_equal(sum.total_bytes, 3072);
	assert_int_equal(sum.ever_count[EVICTION_CAPACITY], 1);
	assert_int_equal(sum.ever_bytes[EVICTION_EXPIRED], 2048);
	evictions_destroy(&other);
}

static void average_idle_time_is_of_all(void **state)
{
	(void)state;
	record(EVICTION_CAPACITY, 1024, SECONDS(100));
	record(EVICTION_CAPACITY, 1024, SECONDS(200));
	record(EVICTION_CAPACITY, 1024, SECONDS(300));
	assert_near(figures_at(START_MS).idle_ms_average, SECONDS(200));
	record(EVICTION_CAPACITY, 1024, EVICTION_IDLE_UNKNOWN);
	assert_near(figures_at(START_MS).idle_ms_average, SECONDS(200));
	assert_int_equal(figures_at(START_MS).idle_known, 3);
}

static void without_access_times_the_average_is_zero(void **state)
{
	struct evictions_figures f;

	(void)state;
	record(EVICTION_EXPIRED, 1024, EVICTION_IDLE_UNKNOWN);
	record(EVICTION_EXPIRED, 2048, EVICTION_IDLE_UNKNOWN);
	f = figures_at(START_MS);
	assert_int_equal(f.total, 2);
	assert_int_equal(f.total_bytes, 3072);
	assert_near(f.idle_ms_average, 0);
	assert_true(f.recent[0].idle_ms == EVICTION_IDLE_UNKNOWN);
}

static void reset_clears_all_but_what_metrics_tell(void **state)
{
	struct evictions_figures f;

	(void)state;
	for (int i = 0; i < 5; i++)
		record(EVICTION_CAPACITY, 1024, SECONDS(60));
	assert_int_equal(figures_at(START_MS).total, 5);
	evictions_reset(book, START_MS + 10);
	f = figures_at(START_MS + 10);
	assert_int_equal(f.total + f.total_bytes + f.recent_count + f.idle_known + f.idle_ms_sum, 0);
	for (int i = 0; i < EVICTION_REASONS; i++)
		assert_int_equal(f.count[i] + f.bytes[i], 0);
	assert_near(f.rate, 0);
	assert_near(f.idle_ms_average, 0);
	assert_int_equal(f.ever_count[EVICTION_CAPACITY], 5);
	assert_int_equal(f.ever_bytes[EVICTION_CAPACITY], 5 * 1024);
	record_at(EVICTION_MANUAL, 7, 1, START_MS + 11);
	assert_int_equal(figures_at(START_MS + 11).total, 1);
	assert_int_equal(figures_at(START_MS + 11).recent_count, 1);
	assert_int_equal(figures_at(START_MS + 11).ever_count[EVICTION_MANUAL], 1);
	evictions_reset(book, START_MS + 12);
	assert_int_equal(figures_at(START_MS + 12).ever_count[EVICTION_CAPACITY], 5);
	assert_int_equal(figures_at(START_MS + 12).ever_bytes[EVICTION_MANUAL], 7);
}

static void memory_pressure_is_summed_up(void **state)
{
	struct evictions_figures f;

	(void)state;
	for (uint64_t i = 1; i <= 20; i++)
		record(EVICTION_MEMORY_PRESSURE, 4096 * i, SECONDS(10 * i));
	f = figures_at(START_MS);
	assert_int_equal(f.total, 20);
	assert_int_equal(f.count[EVICTION_MEMORY_PRESSURE], 20);
	assert_int_equal(f.bytes[EVICTION_MEMORY_PRESSURE], 4096 * 210);
	assert_int_equal(f.total_bytes, 4096 * 210);
}

static void mixed_reasons_add_up(void **state)
{
	static const uint64_t counts[EVICTION_REASONS] = {5, 3, 2, 1};
	struct evictions_figures f;

	(void)state;
	for (int reason = 0; reason < EVICTION_REASONS; reason++)
		for (uint64_t i = 0; i < counts[reason]; i++)
			record((enum eviction_reason)reason, 1024, SECONDS(60));
	f = figures_at(START_MS);
	assert_int_equal(f.total, 11);
	for (int reason = 0; reason < EVICTION_REASONS; reason++)
		assert_int_equal(f.count[reason], counts[reason]);
}

static void remembered_entry_has_all_its_fields(void **state)
{
	uint64_t now_ms = clock_monotonic_ms();
	struct evictions_figures f;

	(void)state;
	evictions_reset(book, now_ms);
	evictions_record(book, EVICTION_CAPACITY, 8192, SECONDS(240), "page:1", 6, clock_monotonic_ms());
	f = figures_at(clock_monotonic_ms());
	assert_int_equal(f.recent_count, 1);
	assert_int_equal(f.recent[0].reason, EVICTION_CAPACITY);
	assert_int_equal(f.recent[0].bytes, 8192);
	assert_int_equal(f.recent[0].idle_ms, SECONDS(240));
	assert_int_equal(f.recent[0].key_len, 6);
	assert_memory_equal(f.recent[0].key, "page:1", 6);
	assert_true(clock_monotonic_ms() - f.recent[0].evicted_at_ms < 2000);
}

/* ---- more ---------------------------------------------------------------------------------------------------- */

static void many_at_once_are_counted_and_none_is_remembered(void **state)
{
	struct evictions_figures f;

	(void)state;
	record(EVICTION_EXPIRED, 10, SECONDS(1));
	evictions_record_many(book, EVICTION_MANUAL, 120, 6000, START_MS + 2000);
	f = figures_at(START_MS + 2000);
	assert_int_equal(f.total, 121);
	assert_int_equal(f.total_bytes, 6010);
	assert_int_equal(f.count[EVICTION_MANUAL], 120);
	assert_int_equal(f.bytes[EVICTION_MANUAL], 6000);
	assert_int_equal(f.ever_count[EVICTION_MANUAL], 120);
	assert_int_equal(f.recent_count, 1);
	assert_int_equal(f.idle_known, 1);
	assert_near(f.rate, 60.5);
}

static void long_keys_are_cut_and_old_ones_leave_nothing(void **state)
{
	static const unsigned char zeros[EVICTION_KEY_BYTES];
	unsigned char key[EVICTION_KEY_BYTES + 8];
	struct evictions_figures f;

	(void)state;
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (unsigned char)(200 + i);
	for (unsigned int i = 0; i < EVICTIONS_RECENT; i++)
		evictions_record(book, EVICTION_CAPACITY, 1, 1, key, sizeof(key), START_MS);
	f = figures_at(START_MS);
	assert_int_equal(f.recent[0].key_len, sizeof(key));
	assert_memory_equal(f.recent[0].key, key, EVICTION_KEY_BYTES);
	record(EVICTION_CAPACITY, 1, 1);
	f = figures_at(START_MS);
	assert_int_equal(f.recent[0].key_len, 0);
	assert_memory_equal(f.recent[0].key, zeros, sizeof(zeros));
	assert_int_equal(f.recent[1].key_len, sizeof(key));
}

static void sums_are_exact_however_many(void **state)
{
	enum { COUNT = 100000 };
	struct evictions_figures f;

	(void)state;
	for (uint64_t i = 0; i < COUNT; i++)
		record_at((enum eviction_reason)(i % EVICTION_REASONS), i, i, START_MS + i);
	f = figures_at(START_MS + COUNT);
	assert_int_equal(f.total, COUNT);
	assert_int_equal(f.total_bytes, (uint64_t)COUNT * (COUNT - 1) / 2);
	assert_near(f.idle_ms_average, (COUNT - 1) / 2.0);
	for (int i = 0; i < EVICTION_REASONS; i++)
		assert_int_equal(f.count[i], COUNT / EVICTION_REASONS);
}

static void rate_is_of_the_last_minute_only(void **state)
{
	/* Twenty a second for ten minutes, each second's at its begin. */
	(void)state;
	for (uint64_t s = 0; s < 600; s++)
		for (int i = 0; i < 20; i++)
			record_at(EVICTION_CAPACITY, 1, 1, START_MS + SECONDS(s));
	assert_near(figures_at(START_MS + SECONDS(600) - 1).rate, 60 * 20 * 1000.0 / 59999);
	assert_near(figures_at(START_MS + SECONDS(630) - 1).rate, 30 * 20 * 1000.0 / 59999);
	assert_near(figures_at(START_MS + SECONDS(659)).rate, 0);
	assert_near(figures_at(START_MS + SECONDS(100000)).rate, 0);
	assert_int_equal(figures_at(START_MS + SECONDS(100000)).total, 12000);
	/* The places of the ring are used again. */
	record_at(EVICTION_CAPACITY, 1, 1, START_MS + SECONDS(100000));
	assert_near(figures_at(START_MS + SECONDS(100001)).rate, 1000.0 / 60000);
}

static void burst_in_the_first_moment_is_spread_over_a_second(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++)
		record(EVICTION_CAPACITY, 1, 1);
	assert_near(figures_at(START_MS).rate, 10);
	assert_near(figures_at(START_MS + 500).rate, 10);
}

static void merged_figures_are_in_order_and_weighted(void **state)
{
	struct evictions *other = evictions_create(START_MS);
	struct evictions_figures a, b, sum = {0};

	(void)state;
	assert_non_null(other);
	for (uint64_t i = 0; i < 8; i++)
		record_at(EVICTION_CAPACITY, 100 + i, 1000, START_MS + 2 * i);
	for (uint64_t i = 0; i < 4; i++)
		evictions_record(other, EVICTION_MANUAL, 200 + i, 4000, NULL, 0, START_MS + 2 * i + 1);
	a = figures_at(START_MS + SECONDS(2));
	evictions_figures(other, START_MS + SECONDS(2), &b);
	evictions_merge(&sum, &a);
	assert_int_equal(sum.total, 8);
	assert_int_equal(sum.recent_count, 8);
	evictions_merge(&sum, &b);
	assert_int_equal(sum.total, 12);
	assert_near(sum.rate, 6);
	assert_near(sum.idle_ms_average, (8 * 1000 + 4 * 4000) / 12.0);
	assert_int_equal(sum.recent_count, EVICTIONS_RECENT);
	for (uint32_t i = 1; i < EVICTIONS_RECENT; i++)
		assert_true(sum.recent[i - 1].evicted_at_ms > sum.recent[i].evicted_at_ms);
	assert_int_equal(sum.recent[0].bytes, 107);
	assert_int_equal(sum.recent[4].bytes, 203);
	evictions_destroy(&other);
}

static void reasons_have_the_names_of_the_reports(void **state)
{
	static const char *const names[EVICTION_REASONS] = {"capacity", "expired", "manual", "memory_pressure"};

	(void)state;
	for (int i = 0; i < EVICTION_REASONS; i++)
		assert_string_equal(eviction_reason_name((enum eviction_reason)i), names[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_eviction_is_counted_with_size_and_idle_time, setup, teardown),
		cmocka_unit_test_setup_teardown(four_reasons_are_told_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(ten_evictions_make_a_rate, setup, teardown),
		cmocka_unit_test_setup_teardown(ten_of_fifteen_are_remembered_newest_first, setup, teardown),
		cmocka_unit_test_setup_teardown(evictions_of_two_books_add_up_in_a_summary, setup, teardown),
		cmocka_unit_test_setup_teardown(average_idle_time_is_of_all, setup, teardown),
		cmocka_unit_test_setup_teardown(without_access_times_the_average_is_zero, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_clears_all_but_what_metrics_tell, setup, teardown),
		cmocka_unit_test_setup_teardown(memory_pressure_is_summed_up, setup, teardown),
		cmocka_unit_test_setup_teardown(mixed_reasons_add_up, setup, teardown),
		cmocka_unit_test_setup_teardown(remembered_entry_has_all_its_fields, setup, teardown),
		cmocka_unit_test_setup_teardown(many_at_once_are_counted_and_none_is_remembered, setup, teardown),
		cmocka_unit_test_setup_teardown(long_keys_are_cut_and_old_ones_leave_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(sums_are_exact_however_many, setup, teardown),
		cmocka_unit_test_setup_teardown(rate_is_of_the_last_minute_only, setup, teardown),
		cmocka_unit_test_setup_teardown(burst_in_the_first_moment_is_spread_over_a_second, setup, teardown),
		cmocka_unit_test_setup_teardown(merged_figures_are_in_order_and_weighted, setup, teardown),
		cmocka_unit_test_setup_teardown(reasons_have_the_names_of_the_reports, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
