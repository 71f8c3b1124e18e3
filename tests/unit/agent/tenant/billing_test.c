#include "agent/tenant/billing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/msg.h"

#define GIB (UINT64_C(1) << 30)
#define KIB_IN_GIB (UINT64_C(1) << 20)

static char error[200];

static struct billing_prices parse(const char *text)
{
	struct billing_prices prices;

	if (billing_prices_parse(text, &prices, error, sizeof error) != RSHM_OK)
		fail_msg("%s: %s", text, error);
	return prices;
}

static void prices_are_read(void **state)
{
	struct billing_prices prices =
		parse(" base = 9.99,operations=0.20, transfer=0.09 , memory=0.001, storage=0.000001, compute=12");

	(void)state;
	assert_int_equal(prices.micro[BILLING_BASE], 9990000);
	assert_int_equal(prices.micro[BILLING_OPERATIONS], 200000);
	assert_int_equal(prices.micro[BILLING_TRANSFER], 90000);
	assert_int_equal(prices.micro[BILLING_MEMORY], 1000);
	assert_int_equal(prices.micro[BILLING_STORAGE], 1);
	assert_int_equal(prices.micro[BILLING_COMPUTE], 12000000);
	prices = parse("");
	for (int part = 0; part < BILLING_PARTS; part++)
		assert_int_equal(prices.micro[part], 0);
	prices = parse("compute=1000000000000.999999");
	assert_int_equal(prices.micro[BILLING_COMPUTE], UINT64_C(1000000000000999999));
	assert_int_equal(prices.micro[BILLING_BASE], 0);
}

static void what_is_no_price_is_refused_by_name(void **state)
{
	static const struct {
		const char *text, *named;
	} wrong[] = {
		{"disk=1", "disk"},
		{"base=1,base=2", "base"},
		{"base", "base"},
		{"base=", "base"},
		{"base=-1", "base"},
		{"base=1e3", "e3"},
		{"base=.5", "base"},
		{"base=5.", "base"},
		{"base=1.0000001", "base"},
		{"base=1000000000001", "base"},
		{"base=99999999999999999999999999", "base"},
		{"base=1;compute=2", ";compute"},
		{"base=1,", "comma"},
		{",base=1", "is none"},
		{"base=0x10", "x10"},
		{"BASE=1", "BASE"},
		{"basement=1", "basement"},
	};
	const struct billing_prices untouched = {{1, 2, 3, 4, 5, 6}};

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct billing_prices prices = untouched;

		if (billing_prices_parse(wrong[i].text, &prices, error, sizeof error) != RSHM_E_INVALID)
			fail_msg("\"%s\" was taken", wrong[i].text);
		if (!strstr(error, wrong[i].named))
			fail_msg("\"%s\": %s", wrong[i].text, error);
		assert_memory_equal(&prices, &untouched, sizeof prices);
	}
}

static void each_part_costs_what_its_unit_says(void **state)
{
	struct billing_prices prices =
		parse("base=5, operations=0.2, transfer=0.09, memory=0.01, storage=0.001, compute=3");
	const struct billing_use use = {
		.operations = 2500000,
		.transfer_bytes = 3 * GIB / 2,
		.memory_kib_seconds = 4 * KIB_IN_GIB * 1800,
		.storage_kib_seconds = 10 * KIB_IN_GIB * 3600,
		.compute_ns = UINT64_C(1200) * 1000000000,
	};
	struct billing_cost cost;

	(void)state;
	billing_cost(&prices, &use, &cost);
	assert_int_equal(cost.micro[BILLING_BASE], 5000000);
	assert_int_equal(cost.micro[BILLING_OPERATIONS], 500000);
	assert_int_equal(cost.micro[BILLING_TRANSFER], 135000);
	assert_int_equal(cost.micro[BILLING_MEMORY], 20000);
	assert_int_equal(cost.micro[BILLING_STORAGE], 10000);
	assert_int_equal(cost.micro[BILLING_COMPUTE], 1000000);
	assert_int_equal(cost.total, 6665000);
}

static void a_part_is_rounded_once_half_up(void **state)
{
	static const struct {
		uint64_t operations, micro;
	} cases[] = {{0, 0}, {1, 0}, {499999, 0}, {500000, 1}, {1499999, 1}, {1500000, 2}, {2000000, 2}};
	struct billing_prices prices = parse("operations=0.000001");
	struct billing_cost cost;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		billing_cost(&prices, &(struct billing_use){.operations = cases[i].operations}, &cost);
		assert_int_equal(cost.micro[BILLING_OPERATIONS], cases[i].micro);
	}
}

static void a_sum_costs_what_its_terms_do_but_for_rounding(void **state)
{
	struct billing_prices prices = parse("operations=0.37, transfer=1.23, memory=0.7, storage=0.3, compute=9.1");

	(void)state;
	srandom(7);
	for (int i = 0; i < 20000; i++) {
		struct billing_use a, b, both;
		struct billing_cost of_a, of_b, of_both;
		uint64_t *words[] = {(uint64_t *)&a, (uint64_t *)&b, (uint64_t *)&both};

		for (size_t n = 0; n < sizeof a / sizeof(uint64_t); n++) {
			words[0][n] = (uint64_t)random() << (random() % 20);
			words[1][n] = (uint64_t)random() << (random() % 20);
			words[2][n] = words[0][n] + words[1][n];
		}
		billing_cost(&prices, &a, &of_a);
		billing_cost(&prices, &b, &of_b);
		billing_cost(&prices, &both, &of_both);
		for (int part = 0; part < BILLING_PARTS; part++)
			assert_in_range(of_both.micro[part] + 1 - of_a.micro[part] - of_b.micro[part], 0, 2);
	}
}

static void what_does_not_fit_stays_at_the_largest(void **state)
{
	struct billing_prices prices = parse("transfer=1000000000000, operations=1000000000000");
	struct billing_cost cost;

	(void)state;
	billing_cost(&prices, &(struct billing_use){.transfer_bytes = UINT64_MAX, .operations = UINT64_MAX}, &cost);
	assert_int_equal(cost.micro[BILLING_TRANSFER], UINT64_MAX);
	assert_int_equal(cost.micro[BILLING_OPERATIONS], UINT64_MAX);
	assert_int_equal(cost.total, UINT64_MAX);
}

static void months_begin_and_end_where_the_calendar_says(void **state)
{
	/* date -u -d 2024-02-01 +%s */
	static const struct {
		uint64_t at_s, begin_s, end_s;
	} months[] = {
		{1706745600, 1706745600, 1709251200}, /* 2024-02, a leap year */
		{1709251199, 1706745600, 1709251200}, /* its last second */
		{1709251200, 1709251200, 1711929600}, /* 2024-03 */
		{1677000000, 1675209600, 1677628800}, /* 2023-02 */
		{1704067199, 1701388800, 1704067200}, /* 2023-12 */
		{1704067200, 1704067200, 1706745600}, /* 2024-01 */
		{0, 0, 2678400},
		{951782400, 949363200, 951868800},     /* 2000-02-29 */
		{4107542400, 4107542400, 4110220800u}, /* 2100-03: 2100 has no 29th of February */
	};
	uint64_t begin_ms, end_ms;

	(void)state;
	for (size_t i = 0; i < sizeof months / sizeof months[0]; i++) {
		billing_period_of(months[i].at_s * 1000 + 999, &begin_ms, &end_ms);
		assert_int_equal(begin_ms, months[i].begin_s * 1000);
		assert_int_equal(end_ms, months[i].end_s * 1000);
	}
	billing_period_before(1704067200000, &begin_ms, &end_ms);
	assert_int_equal(begin_ms, 1701388800000);
	assert_int_equal(end_ms, 1704067200000);
}

static void a_projection_goes_on_as_before(void **state)
{
	const struct billing_use use = {.operations = 100, .transfer_bytes = 7, .compute_ns = UINT64_MAX};
	struct billing_use all = billing_project(&use, 1000, 2000, 5000);

	(void)state;
	assert_int_equal(all.operations, 400);
	assert_int_equal(all.transfer_bytes, 28);
	assert_int_equal(all.compute_ns, UINT64_MAX);
	assert_int_equal(billing_project(&use, 1000, 1000, 5000).operations, 100);
	assert_int_equal(billing_project(&use, 1000, 5000, 5000).operations, 100);
}

static void money_is_written_with_two_decimals_or_more(void **state)
{
	static const struct {
		uint64_t micro;
		const char *text;
	} cases[] = {
		{0, "0.00"},
		{1, "0.000001"},
		{10, "0.00001"},
		{1000000, "1.00"},
		{12345678, "12.345678"},
		{12340000, "12.34"},
		{12300000, "12.30"},
		{UINT64_MAX, "18446744073709.551615"},
	};
	char text[BILLING_MONEY_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		billing_format(cases[i].micro, text);
		assert_string_equal(text, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prices_are_read),
		cmocka_unit_test(what_is_no_price_is_refused_by_name),
		cmocka_unit_test(each_part_costs_what_its_unit_says),
		cmocka_unit_test(a_part_is_rounded_once_half_up),
		cmocka_unit_test(a_sum_costs_what_its_terms_do_but_for_rounding),
		cmocka_unit_test(what_does_not_fit_stays_at_the_largest),
		cmocka_unit_test(months_begin_and_end_where_the_calendar_says),
		cmocka_unit_test(a_projection_goes_on_as_before),
		cmocka_unit_test(money_is_written_with_two_decimals_or_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
