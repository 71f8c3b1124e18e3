/* account_test.c - what hosts share of a tenant's limits: read strictly, drawn, given back, and never more than the limit. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "agent/tenant/account.h"
#include "shm/msg.h"

#define NOW_MS UINT64_C(1795471028000) /* November 2026 */
#define HOUR_MS UINT64_C(3600000)

static struct account_limits *limits_of(const char *quotas, const char *rates)
{
	json_t *q = json_loads(quotas, 0, NULL), *r = json_loads(rates, 0, NULL);
	struct account_limits *limits = NULL;

	assert_non_null(q);
	assert_null(account_check_rate_limits(r));
	assert_int_equal(account_limits_create(q, r, &limits), RSHM_OK);
	json_decref(q);
	json_decref(r);
	return limits;
}

static void what_limits_nothing_here_is_no_account(void **state)
{
	(void)state;
	assert_null(limits_of("{}", "{}"));
	assert_null(limits_of(
		"{\"memory_bytes\": 5, \"storage_bytes\": 5, \"cache_entries\": 1, \"active_sessions\": 2}", "{}"));
}

static void rate_limits_are_read_strictly(void **state)
{
	static const char *const wrong[] = {
		"[]",
		"{\"reads\": {\"limit\": 1}}",
		"{\"operations\": 5}",
		"{\"operations\": {}}",
		"{\"operations\": {\"limit\": -1}}",
		"{\"operations\": {\"limit\": 1.5}}",
		"{\"operations\": {\"limit\": 1, \"period_seconds\": 0}}",
		"{\"operations\": {\"limit\": 1, \"period_seconds\": 86401}}",
		"{\"operations\": {\"limit\": 1, \"burst\": 0}}",
		"{\"operations\": {\"limit\": 1, \"shadow\": 1}}",
		"{\"bytes\": {\"limit\": 9223372036854775807}}",
		"{\"bytes\": {\"limit\": 1, \"per\": 1}}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		json_t *value = json_loads(wrong[i], 0, NULL);

		if (!account_check_rate_limits(value))
			fail_msg("accepted: %s", wrong[i]);
		json_decref(value);
	}
}

static void no_more_is_drawn_than_the_limit_and_what_goes_back_is_there_again(void **state)
{
	struct account_limits *limits =
		limits_of("{\"operations_per_minute\": 100, \"data_transfer_bytes\": 1000}",
			  "{\"operations\": {\"limit\": 10, \"period_seconds\": 3600, \"burst\": 40}}");
	struct account_draw draw = {.wanted = {60, 30, 7, 900}};
	const uint64_t back[ACCOUNT_KINDS] = {10, 5, 0, 400};
	struct account account;

	(void)state;
	assert_int_equal(account_init(&account), RSHM_OK);
	account_draw(&account, limits, NOW_MS, &draw);
	assert_int_equal(draw.granted[ACCOUNT_PER_MINUTE], 60);
	assert_int_equal(draw.granted[ACCOUNT_OPERATIONS], 30);
	assert_int_equal(draw.granted[ACCOUNT_BYTES], 0); /* not limited: nobody draws it */
	assert_int_equal(draw.granted[ACCOUNT_TRANSFER], 900);
	account_draw(&account, limits, NOW_MS, &draw);
	assert_int_equal(draw.granted[ACCOUNT_PER_MINUTE], 40);
	assert_int_equal(draw.granted[ACCOUNT_OPERATIONS], 10);
	assert_int_equal(draw.use[ACCOUNT_OPERATIONS], 30);
	assert_true(draw.retry_ms[ACCOUNT_OPERATIONS] > 0);
	assert_int_equal(draw.granted[ACCOUNT_TRANSFER], 100);
	account_draw(&account, limits, NOW_MS, &draw);
	assert_int_equal(draw.granted[ACCOUNT_PER_MINUTE] + draw.granted[ACCOUNT_OPERATIONS], 0);
	assert_int_equal(draw.granted[ACCOUNT_TRANSFER], 0);
	account_return(&account, limits, NOW_MS, back);
	account_draw(&account, limits, NOW_MS, &draw);
	assert_int_equal(draw.granted[ACCOUNT_PER_MINUTE], 10);
	assert_int_equal(draw.granted[ACCOUNT_OPERATIONS], 5);
	assert_int_equal(draw.granted[ACCOUNT_TRANSFER], 400);
	/* An hour later: ten more operations, and all of the minute's. */
	account_draw(&account, limits, NOW_MS + HOUR_MS, &draw);
	assert_int_equal(draw.granted[ACCOUNT_PER_MINUTE], 60);
	assert_int_equal(draw.granted[ACCOUNT_OPERATIONS], 10);
	assert_int_equal(draw.granted[ACCOUNT_TRANSFER], 0);
	account_fini(&account);
	account_limits_destroy(&limits);
}

static void transferred_bytes_begin_anew_with_the_month(void **state)
{
	struct account_limits *limits = limits_of("{\"data_transfer_bytes\": 1000}", "{}");
	uint64_t left_ms = account_month_left_ms(NOW_MS), december_ms = NOW_MS + left_ms;
	struct account_draw draw = {.wanted = {0, 0, 0, 1000}};
	struct account account;

	(void)state;
	assert_true(left_ms < 31 * 24 * HOUR_MS);
	assert_int_equal(account_month_left_ms(december_ms), 31 * 24 * HOUR_MS);
	/* The February of 2028. */
	assert_int_equal(account_month_left_ms(UINT64_C(1832976000000)), 29 * 24 * HOUR_MS);
	assert_int_equal(account_init(&account), RSHM_OK);
	account_draw(&account, limits, december_ms - 1, &draw);
	assert_int_equal(draw.granted[ACCOUNT_TRANSFER], 1000);
	assert_int_equal(draw.retry_ms[ACCOUNT_TRANSFER], 1);
	account_draw(&account, limits, december_ms, &draw);
	assert_int_equal(draw.granted[ACCOUNT_TRANSFER], 1000);
	/* A host whose clock is behind draws from the new month, too. */
	account_draw(&account, limits, december_ms - 1, &draw);
	assert_int_equal(draw.granted[ACCOUNT_TRANSFER], 0);
	account_fini(&account);
	account_limits_destroy(&limits);
}

static void named_quotas_are_all_or_nothing_and_never_below_zero(void **state)
{
	struct account_limits *limits = limits_of("{\"crawls\": 10}", "{}");
	struct account_answer answer;
	struct account account;

	(void)state;
	assert_int_equal(account_init(&account), RSHM_OK);
	assert_int_equal(account_use(&account, limits, "crawls", 11, ACCOUNT_CONSUME, &answer), RSHM_OK);
	assert_false(answer.allowed);
	assert_int_equal(account_use(&account, limits, "crawls", 10, ACCOUNT_CONSUME, &answer), RSHM_OK);
	assert_true(answer.allowed);
	assert_int_equal(account_use(&account, limits, "crawls", UINT64_MAX, ACCOUNT_ASK, &answer), RSHM_OK);
	assert_false(answer.allowed);
	assert_int_equal(account_use(&account, limits, "crawls", UINT64_MAX, ACCOUNT_RELEASE, &answer), RSHM_OK);
	assert_int_equal(account_use(&account, limits, "crawls", 0, ACCOUNT_ASK, &answer), RSHM_OK);
	assert_int_equal(answer.use, 0);
	assert_int_equal(account_use(&account, limits, "other", 5, ACCOUNT_CONSUME, &answer), RSHM_OK);
	assert_true(answer.allowed);
	assert_false(answer.has_limit);
	account_fini(&account);
	account_limits_destroy(&limits);
}

static void what_is_stored_comes_back_and_what_is_damaged_is_refused(void **state)
{
	struct account_limits *limits = limits_of("{\"crawls\": 10, \"operations_per_minute\": 100}", "{}");
	struct account_draw draw = {.wanted = {70, 0, 0, 0}};
	struct account account, again;
	struct account_answer answer;
	char *text;

	(void)state;
	assert_int_equal(account_init(&account), RSHM_OK);
	account_draw(&account, limits, NOW_MS, &draw);
	assert_int_equal(account_use(&account, limits, "crawls", 4, ACCOUNT_CONSUME, &answer), RSHM_OK);
	text = account_encode(&account);
	assert_int_equal(account_decode(text, strlen(text), &again), RSHM_OK);
	account_draw(&again, limits, NOW_MS, &draw);
	assert_int_equal(draw.granted[ACCOUNT_PER_MINUTE], 30);
	assert_int_equal(account_use(&again, limits, "crawls", 0, ACCOUNT_ASK, &answer), RSHM_OK);
	assert_int_equal(answer.use, 4);
	account_fini(&again);
	account_fini(&account);
	/* Each byte another: an account, or refused; nothing else. */
	for (size_t i = 0, length = strlen(text); i < length; i++) {
		char kept = text[i];

		for (int other = 1; other < 256; other += 5) {
			text[i] = (char)(kept ^ other);
			if (account_decode(text, length, &again) == RSHM_OK) {
				account_draw(&again, limits, NOW_MS, &draw);
				assert_true(draw.granted[ACCOUNT_PER_MINUTE] <= 100);
				account_fini(&again);
			}
		}
		text[i] = kept;
		assert_int_equal(account_decode(text, i, &again), RSHM_E_CORRUPT);
	}
	free(text);
	account_limits_destroy(&limits);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_limits_nothing_here_is_no_account),
		cmocka_unit_test(rate_limits_are_read_strictly),
		cmocka_unit_test(no_more_is_drawn_than_the_limit_and_what_goes_back_is_there_again),
		cmocka_unit_test(transferred_bytes_begin_anew_with_the_month),
		cmocka_unit_test(named_quotas_are_all_or_nothing_and_never_below_zero),
		cmocka_unit_test(what_is_stored_comes_back_and_what_is_damaged_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
