/* source_test.c - leases, epochs, expiry: what may be believed. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "shm/source.h"

static struct rshm_source sources[RSHM_SOURCES];

static int setup(void **state)
{
	(void)state;
	memset(sources, 0, sizeof(sources));
	for (unsigned int i = 0; i < RSHM_SOURCES; i++) {
		sources[i].epoch = 1;
		sources[i].clean = 1;
		sources[i].lease_until_ms = 10000;
	}
	return 0;
}

static enum rshm_freshness judge(uint64_t epoch, uint64_t expiry, enum rshm_policy policy, uint64_t now_ms)
{
	return rshm_judge(sources, rshm_control_a(0, 5, epoch), expiry, policy, 1000, now_ms);
}

static void entry_under_its_lease_is_verified(void **state)
{
	(void)state;
	assert_int_equal(judge(1, RSHM_NEVER, RSHM_POLICY_MISS, 9999), RSHM_VERIFIED);
	assert_int_equal(judge(1, 5000, RSHM_POLICY_MISS, 4999), RSHM_VERIFIED);
}

static void deadline_ends_an_entry_whatever_the_policy(void **state)
{
	(void)state;
	for (int policy = RSHM_POLICY_MISS; policy <= RSHM_POLICY_ERROR; policy++)
		assert_int_equal(judge(1, 5000, (enum rshm_policy)policy, 5000), RSHM_EXPIRED);
}

static void policy_decides_when_the_lease_has_run_out(void **state)
{
	(void)state;
	assert_int_equal(judge(1, RSHM_NEVER, RSHM_POLICY_MISS, 10000), RSHM_UNVERIFIED);
	assert_int_equal(judge(1, RSHM_NEVER, RSHM_POLICY_ERROR, 10000), RSHM_REFUSE);
	assert_int_equal(judge(1, RSHM_NEVER, RSHM_POLICY_STALE, 10000), RSHM_SERVE_STALE);
	assert_int_equal(judge(1, RSHM_NEVER, RSHM_POLICY_STALE, 11000), RSHM_SERVE_STALE);
	assert_int_equal(judge(1, RSHM_NEVER, RSHM_POLICY_STALE, 11001), RSHM_UNVERIFIED);
}

static void fence_makes_older_epochs_unverified_and_spares_other_sources(void **state)
{
	(void)state;
	assert_int_equal(rshm_source_fence(&sources[5], 3000), 2);
	assert_int_equal(rshm_source_epoch(&sources[5]), 2);
	assert_int_equal(judge(1, RSHM_NEVER, RSHM_POLICY_STALE, 3500), RSHM_SERVE_STALE);
	assert_int_equal(judge(1, RSHM_NEVER, RSHM_POLICY_STALE, 4001), RSHM_UNVERIFIED);
	assert_int_equal(judge(2, RSHM_NEVER, RSHM_POLICY_STALE, 3500), RSHM_VERIFIED);
	assert_int_equal(rshm_judge(sources, rshm_control_a(0, 6, 1), RSHM_NEVER, RSHM_POLICY_MISS, 0, 3500),
			 RSHM_VERIFIED);
}

static void stale_limit_does_not_begin_anew_while_old_entries_are_left(void **state)
{
	(void)state;
	rshm_source_fence(&sources[5], 3000);
	rshm_source_fence(&sources[5], 3900);
	assert_int_equal(judge(1, RSHM_NEVER, RSHM_POLICY_STALE, 4001), RSHM_UNVERIFIED);
	rshm_source_mark_clean(&sources[5]);
	rshm_source_fence(&sources[5], 4500);
	assert_int_equal(judge(3, RSHM_NEVER, RSHM_POLICY_STALE, 5400), RSHM_SERVE_STALE);
}

static void stale_limit_begins_when_the_lease_ended_if_that_was_earlier(void **state)
{
	(void)state;
	rshm_source_fence(&sources[5], 15000);
	rshm_source_extend(&sources[5], 20000);
	assert_int_equal(judge(1, RSHM_NEVER, RSHM_POLICY_STALE, 11000), RSHM_SERVE_STALE);
	assert_int_equal(judge(1, RSHM_NEVER, RSHM_POLICY_STALE, 15001), RSHM_UNVERIFIED);
}

static void source_number_beyond_the_table_stays_inside_it(void **state)
{
	(void)state;
	assert_int_equal(rshm_judge(sources, rshm_control_a(0, 0xffff, 1), RSHM_NEVER, RSHM_POLICY_MISS, 0, 1),
			 RSHM_VERIFIED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(entry_under_its_lease_is_verified, setup),
		cmocka_unit_test_setup(deadline_ends_an_entry_whatever_the_policy, setup),
		cmocka_unit_test_setup(policy_decides_when_the_lease_has_run_out, setup),
		cmocka_unit_test_setup(fence_makes_older_epochs_unverified_and_spares_other_sources, setup),
		cmocka_unit_test_setup(stale_limit_does_not_begin_anew_while_old_entries_are_left, setup),
		cmocka_unit_test_setup(stale_limit_begins_when_the_lease_ended_if_that_was_earlier, setup),
		cmocka_unit_test_setup(source_number_beyond_the_table_stays_inside_it, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
