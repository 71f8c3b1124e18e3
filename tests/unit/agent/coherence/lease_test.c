/* Leases by proof, and checks that hold proofs up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/coherence/lease.h"

#define LEASE_MS 2000u

struct fixture {
	struct rshm_source source;
	struct lease lease;
};

static struct fixture begin(void)
{
	return (struct fixture){.source = {.epoch = 1, .clean = 1}};
}

static uint64_t until(const struct fixture *f)
{
	return f->source.lease_until_ms;
}

static void a_proof_extends_to_its_moment_and_a_lease(void **state)
{
	struct fixture f = begin();

	(void)state;
	lease_init(&f.lease, &f.source, LEASE_MS);
	assert_int_equal(until(&f), 0);
	lease_prove(&f.lease, 1000);
	assert_int_equal(until(&f), 3000);
	lease_prove(&f.lease, 1500);
	assert_int_equal(until(&f), 3500);
	lease_prove(&f.lease, 1200);
	assert_int_equal(until(&f), 3500);
}

static void a_proof_waits_for_the_checks_before_it_only(void **state)
{
	struct fixture f = begin();
	uint32_t before, after;

	(void)state;
	lease_init(&f.lease, &f.source, LEASE_MS);
	before = lease_begin_check(&f.lease);
	lease_prove(&f.lease, 1000);
	after = lease_begin_check(&f.lease);
	assert_int_equal(until(&f), 0);
	lease_end_check(&f.lease, before);
	assert_int_equal(until(&f), 3000);
	lease_end_check(&f.lease, after);
	assert_int_equal(lease_checks(&f.lease), 0);
	assert_int_equal(until(&f), 3000);
}

static void a_check_after_a_proof_does_not_let_it_through(void **state)
{
	struct fixture f = begin();
	uint32_t before, after;

	(void)state;
	lease_init(&f.lease, &f.source, LEASE_MS);
	before = lease_begin_check(&f.lease);
	lease_prove(&f.lease, 1000);
	after = lease_begin_check(&f.lease);
	lease_end_check(&f.lease, after);
	assert_int_equal(until(&f), 0);
	lease_end_check(&f.lease, before);
	assert_int_equal(until(&f), 3000);
}

static void the_latest_proof_takes_the_place_of_the_one_that_waited(void **state)
{
	struct fixture f = begin();
	uint32_t first, second, third;

	(void)state;
	lease_init(&f.lease, &f.source, LEASE_MS);
	first = lease_begin_check(&f.lease);
	lease_prove(&f.lease, 1000);
	second = lease_begin_check(&f.lease);
	lease_prove(&f.lease, 1500);
	lease_prove(&f.lease, 1700);
	lease_end_check(&f.lease, first);
	assert_int_equal(until(&f), 3000);
	third = lease_begin_check(&f.lease);
	lease_end_check(&f.lease, second);
	assert_int_equal(until(&f), 3700);
	lease_end_check(&f.lease, third);
	assert_int_equal(until(&f), 3700);
}

static void with_checks_always_pending_the_lease_goes_on(void **state)
{
	struct fixture f = begin();
	uint32_t last;

	(void)state;
	lease_init(&f.lease, &f.source, LEASE_MS);
	last = lease_begin_check(&f.lease);
	for (uint64_t now_ms = 1000; now_ms < 100000; now_ms += 100) {
		uint32_t next = lease_begin_check(&f.lease);

		lease_prove(&f.lease, now_ms);
		lease_end_check(&f.lease, last);
		last = next;
		assert_true(now_ms < 2000 || until(&f) + 1000 > now_ms + LEASE_MS);
		assert_true(until(&f) <= now_ms + LEASE_MS);
	}
	lease_end_check(&f.lease, last);
}

static void a_fence_voids_proofs_that_wait_and_later_ones_wait_for_all_older_checks(void **state)
{
	struct fixture f = begin();
	uint32_t first, second;

	(void)state;
	lease_init(&f.lease, &f.source, LEASE_MS);
	first = lease_begin_check(&f.lease);
	lease_prove(&f.lease, 1000);
	second = lease_begin_check(&f.lease);
	lease_prove(&f.lease, 1500);
	lease_fence(&f.lease, 1600);
	assert_int_equal(f.source.epoch, 2);
	lease_prove(&f.lease, 2000);
	lease_end_check(&f.lease, second);
	assert_int_equal(until(&f), 0);
	lease_end_check(&f.lease, first);
	assert_int_equal(until(&f), 4000);
}

/* Against the rule said plainly: the lease covers the latest proof such that no check that began before it is pending. */
static void random_orders_never_extend_past_a_pending_check(void **state)
{
	enum { STEPS = 200000, PENDING = 32 };
	struct fixture f = begin();
	struct {
		uint32_t check;
		uint64_t began;
		int pending;
	} checks[PENDING];
	uint64_t random = 88172645463325252ull;

	(void)state;
	memset(checks, 0, sizeof(checks));
	lease_init(&f.lease, &f.source, LEASE_MS);
	for (uint64_t step = 1; step <= STEPS; step++) {
		uint64_t least = UINT64_MAX;
		size_t i;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		i = random % PENDING;
		if (random >> 32 & 1)
			lease_prove(&f.lease, step);
		else if ((random >> 40) % 1000 == 0)
			lease_fence(&f.lease, step);
		else if (checks[i].pending)
			lease_end_check(&f.lease, checks[i].check), checks[i].pending = 0;
		else
			checks[i].check = lease_begin_check(&f.lease), checks[i].pending = 1, checks[i].began = step;
		for (i = 0; i < PENDING; i++)
			if (checks[i].pending && checks[i].began < least)
				least = checks[i].began;
		assert_true(f.source.lease_until_ms <= LEASE_MS || f.source.lease_until_ms - LEASE_MS < least);
	}
	assert_true(f.source.lease_until_ms > STEPS / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_proof_extends_to_its_moment_and_a_lease),
		cmocka_unit_test(a_proof_waits_for_the_checks_before_it_only),
		cmocka_unit_test(a_check_after_a_proof_does_not_let_it_through),
		cmocka_unit_test(the_latest_proof_takes_the_place_of_the_one_that_waited),
		cmocka_unit_test(with_checks_always_pending_the_lease_goes_on),
		cmocka_unit_test(a_fence_voids_proofs_that_wait_and_later_ones_wait_for_all_older_checks),
		cmocka_unit_test(random_orders_never_extend_past_a_pending_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
