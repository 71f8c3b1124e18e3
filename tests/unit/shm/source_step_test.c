/* source_step_test.c - an entry is judged while the agent fences and renews, at every instruction of the judgement. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "shm/order.h"
#include "shm/source.h"
#include "tests/unit/shm/stepping.h"

#define NOW_MS 10000u
#define LIMIT_MS 1000u

struct judgement {
	struct rshm_source sources[RSHM_SOURCES];
	enum rshm_policy policy;
	uint64_t change_at;
	bool changed;
	enum rshm_freshness verdict;
};

static void judge(void *context)
{
	struct judgement *j = context;

	j->verdict = rshm_judge(j->sources, rshm_control_a(0, 0, 1), RSHM_NEVER, j->policy, LIMIT_MS, NOW_MS);
}

/* The feed was lost long ago; it is back now: older entries are fenced, then the lease begins anew. */
static bool fence_and_renew(void *context, uint64_t step)
{
	struct judgement *j = context;

	if (step < j->change_at)
		return true;
	j->changed = true;
	rshm_source_fence(&j->sources[0], NOW_MS);
	rshm_source_extend(&j->sources[0], NOW_MS + 2000);
	return false;
}

/* At no moment was the entry verified: first its lease was over, then its epoch. */
static void entry_is_never_verified_by_a_lease_of_the_epoch_after_it(void **state)
{
	struct judgement j;
	uint64_t instructions = 0;

	(void)state;
	if (!stepping_is_possible())
		skip();
	for (int policy = RSHM_POLICY_MISS; policy <= RSHM_POLICY_ERROR; policy++) {
		for (uint64_t at = 0;; at++) {
			memset(&j, 0, sizeof(j));
			j.policy = (enum rshm_policy)policy;
			j.change_at = at;
			j.sources[0].epoch = 1;
			j.sources[0].clean = 1;
			j.sources[0].lease_until_ms = NOW_MS - LIMIT_MS - 5;
			step_through(judge, fence_and_renew, &j);
			if (!j.changed)
				break;
			instructions++;
			if (j.verdict != (policy == RSHM_POLICY_ERROR ? RSHM_REFUSE : RSHM_UNVERIFIED))
				fail_msg("policy %d, changed after instruction %u: verdict %d", policy,
					 (unsigned int)at, (int)j.verdict);
		}
	}
	assert_true(instructions > 30);
}

struct race {
	struct rshm_source sources[RSHM_SOURCES];
	uint64_t round; /* entries of this epoch lost their lease before it was stored */
	uint32_t stop;
};

static void *lose_and_renew(void *context)
{
	struct race *race = context;

	for (uint64_t epoch = 1; !rshm_load_relaxed32(&race->stop); epoch++) {
		rshm_source_extend(&race->sources[0], 0);
		rshm_store_release(&race->round, epoch);
		rshm_source_fence(&race->sources[0], NOW_MS);
		rshm_source_extend(&race->sources[0], NOW_MS + 2000);
	}
	return NULL;
}

static void no_thread_sees_an_entry_outlive_its_epoch(void **state)
{
	static struct race race;
	unsigned int verified = 0;
	pthread_t thread;

	(void)state;
	race.sources[0].epoch = 1;
	assert_int_equal(pthread_create(&thread, NULL, lose_and_renew, &race), 0);
	for (unsigned int i = 0; i < (RSHM_TSAN ? 200000u : 3000000u); i++) {
		uint64_t epoch = rshm_load_acquire(&race.round);

		verified += epoch && rshm_judge(race.sources, rshm_control_a(0, 0, epoch), RSHM_NEVER,
						RSHM_POLICY_MISS, 0, NOW_MS) == RSHM_VERIFIED;
	}
	rshm_store_relaxed32(&race.stop, 1);
	pthread_join(thread, NULL);
	assert_int_equal(verified, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entry_is_never_verified_by_a_lease_of_the_epoch_after_it),
		cmocka_unit_test(no_thread_sees_an_entry_outlive_its_epoch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
