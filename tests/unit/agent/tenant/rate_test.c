/*
 * rate_test.c - GCRA: against the other form of the algorithm, over spans, and at the edges of 64 bits.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "agent/tenant/rate.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef unsigned __int128 u128;

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint64_t random_below(uint64_t bound)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * 0x2545f4914f6cdd1du >> 16) % bound;
}

static struct rate_answer take(struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, uint64_t quantity)
{
	struct rate_answer answer;

	memset(&answer, 0xff, sizeof(answer));
	rate_take(rate, limit, now_ns, quantity, &answer);
	return answer;
}

static struct rate_answer peek(const struct rate *rate, const struct rate_limit *limit, uint64_t now_ns,
			       uint64_t quantity)
{
	struct rate_answer answer;

	rate_peek(rate, limit, now_ns, quantity, &answer);
	return answer;
}

static void assert_answer(struct rate_answer a, bool limited, uint64_t limit, uint64_t remaining, uint64_t retry,
			  uint64_t reset)
{
	assert_int_equal(a.limited, limited);
	assert_int_equal(a.limit, limit);
	assert_int_equal(a.remaining, remaining);
	assert_int_equal(a.retry_after_ms, retry);
	assert_int_equal(a.reset_after_ms, reset);
}

static void a_burst_passes_and_the_next_waits_for_its_turn(void **state)
{
	const struct rate_limit limit = {.limit = 10, .period_ns = SECOND, .burst = 3};
	struct rate rate = {0};
	uint64_t now = 77 * SECOND;

	(void)state;
	assert_answer(take(&rate, &limit, now, 1), false, 3, 2, 0, 100);
	assert_answer(take(&rate, &limit, now, 2), false, 3, 0, 0, 300);
	assert_answer(take(&rate, &limit, now, 1), true, 3, 0, 100, 300);
	assert_answer(take(&rate, &limit, now + 99 * MS + MS / 2, 1), true, 3, 0, 1, 201);
	assert_answer(take(&rate, &limit, now + 100 * MS, 1), false, 3, 0, 0, 300);
	assert_answer(take(&rate, &limit, now + 300 * MS, 3), true, 3, 2, 100, 100);
	assert_answer(take(&rate, &limit, now + SECOND, 3), false, 3, 0, 0, 300);
	assert_int_equal(rate.limited, 3);
	assert_int_equal(rate.shadowed, 0);
}

static void without_a_burst_it_is_the_limit(void **state)
{
	const struct rate_limit limit = {.limit = 1000, .period_ns = 60 * SECOND};
	struct rate rate = {0};

	(void)state;
	assert_answer(take(&rate, &limit, 5, 1000), false, 1000, 0, 0, 60000);
	assert_answer(take(&rate, &limit, 5, 1), true, 1000, 0, 60, 60000);
}

static void more_than_the_burst_can_never_pass(void **state)
{
	const struct rate_limit limit = {.limit = 10, .period_ns = SECOND, .burst = 3};
	const struct rate_limit nothing = {.limit = 0, .period_ns = SECOND, .burst = 3};
	struct rate rate = {0};

	(void)state;
	assert_answer(take(&rate, &limit, SECOND, 4), true, 3, 3, RATE_NEVER, 0);
	assert_answer(take(&rate, &limit, SECOND, UINT64_MAX), true, 3, 3, RATE_NEVER, 0);
	assert_answer(take(&rate, &nothing, SECOND, 1), true, 0, 0, RATE_NEVER, 0);
	assert_int_equal(rate_grant(&rate, &nothing, SECOND, 7), 0);
	assert_int_equal(rate_charge(&rate, &nothing, SECOND, 7), 7);
	assert_answer(take(&rate, &limit, SECOND, 3), false, 3, 0, 0, 300);
}

static void quantity_zero_passes_always_and_tells(void **state)
{
	const struct rate_limit limit = {.limit = 10, .period_ns = SECOND, .burst = 3};
	const struct rate_limit nothing = {.limit = 0, .period_ns = SECOND};
	struct rate rate = {0};

	(void)state;
	assert_answer(take(&rate, &limit, 0, 0), false, 3, 3, 0, 0);
	assert_int_equal(rate_charge(&rate, &limit, 0, 5), 0);
	assert_answer(take(&rate, &limit, 0, 0), false, 3, 0, 0, 500);
	assert_answer(take(&rate, &nothing, 0, 0), false, 0, 0, 0, 0);
	assert_int_equal(rate.limited, 0);
}

static void peeking_changes_nothing(void **state)
{
	const struct rate_limit limit = {.limit = 10, .period_ns = SECOND, .burst = 3};
	struct rate rate = {0}, before;

	(void)state;
	take(&rate, &limit, SECOND, 2);
	before = rate;
	assert_answer(peek(&rate, &limit, SECOND + 50 * MS, 1), false, 3, 0, 0, 250);
	assert_answer(peek(&rate, &limit, SECOND + 50 * MS, 2), true, 3, 1, 50, 150);
	assert_memory_equal(&rate, &before, sizeof(rate));
	assert_int_equal(rate_level(&rate, &limit, SECOND + 50 * MS), 2);
	assert_int_equal(rate_level(&rate, &limit, SECOND + 100 * MS), 1);
	assert_memory_equal(&rate, &before, sizeof(rate));
}

/* The algorithm's other form, in parts of 1/limit ns: a theoretical arrival time. */
struct reference {
	u128 tat;
};

static bool reference_take(struct reference *r, const struct rate_limit *limit, uint64_t now_ns, uint64_t quantity)
{
	u128 now = (u128)now_ns * limit->limit, tat = r->tat > now ? r->tat : now;
	u128 burst = limit->burst ? limit->burst : limit->limit;

	tat += (u128)quantity * limit->period_ns;
	if (quantity && tat - now > burst * limit->period_ns)
		return false;
	r->tat = tat;
	return true;
}

static void random_limit(struct rate_limit *limit)
{
	static const uint64_t periods[] = {1, 7, 1000, 999999937, SECOND, 60 * SECOND, 86400 * SECOND};
	static const uint64_t limits[] = {1, 3, 10, 1000, 999983, 10000000000};

	*limit = (struct rate_limit){.limit = limits[random_below(COUNT(limits))],
				     .period_ns = periods[random_below(COUNT(periods))],
				     .burst = random_below(3) ? 1 + random_below(1000) : 0};
}

static void decides_as_virtual_scheduling_does(void **state)
{
	unsigned int passed = 0, refused = 0;

	(void)state;
	for (unsigned int round = 0; round < 300; round++) {
		struct reference reference = {0};
		struct rate_limit limit;
		struct rate rate = {0};
		uint64_t now = random_below(SECOND), burst, pace;

		random_limit(&limit);
		burst = limit.burst ? limit.burst : limit.limit;
		pace = limit.period_ns / limit.limit + 1;
		for (unsigned int step = 0; step < 500; step++) {
			uint64_t quantity = random_below(4) ? random_below(3) : random_below(burst + 2);
			bool expected = reference_take(&reference, &limit, now, quantity);
			struct rate_answer answer = take(&rate, &limit, now, quantity);

			assert_int_equal(answer.limited, !expected);
			expected ? passed++ : refused++;
			now += random_below(2) ? random_below(2 * pace) : random_below(quantity * pace + 2);
		}
	}
	assert_true(passed > 10000);
	assert_true(refused > 10000);
}

static void retry_and_reset_are_exact_to_the_millisecond(void **state)
{
	unsigned int refused = 0;

	(void)state;
	for (unsigned int i = 0; i < 20000; i++) {
		struct rate_limit limit;
		struct rate rate = {0};
		struct rate_answer answer;
		uint64_t now = SECOND, burst, wanted;

		random_limit(&limit);
		burst = limit.burst ? limit.burst : limit.limit;
		rate_charge(&rate, &limit, now, random_below(2 * burst + 1));
		now += random_below(limit.period_ns);
		wanted = 1 + random_below(burst);
		answer = peek(&rate, &limit, now, 0);
		assert_int_equal(peek(&rate, &limit, now + answer.reset_after_ms * MS, 0).remaining, burst);
		if (answer.reset_after_ms)
			assert_true(peek(&rate, &limit, now + (answer.reset_after_ms - 1) * MS, 0).remaining < burst);
		answer = peek(&rate, &limit, now, wanted);
		if (!answer.limited) {
			assert_int_equal(answer.retry_after_ms, 0);
			continue;
		}
		refused++;
		assert_true(answer.retry_after_ms > 0);
		assert_false(peek(&rate, &limit, now + answer.retry_after_ms * MS, wanted).limited);
		assert_true(peek(&rate, &limit, now + (answer.retry_after_ms - 1) * MS, wanted).limited);
	}
	assert_true(refused > 1000);
}

#define EVENTS 400u

static void no_span_lets_more_pass_than_burst_and_pace(void **state)
{
	static uint64_t times[EVENTS], amounts[EVENTS];

	(void)state;
	for (unsigned int round = 0; round < 30; round++) {
		struct rate_limit limit;
		struct rate rate = {0};
		uint64_t now = 0, burst;
		unsigned int count = 0;

		random_limit(&limit);
		burst = limit.burst ? limit.burst : limit.limit;
		for (unsigned int i = 0; i < EVENTS; i++) {
			uint64_t wanted = 1 + random_below(burst);

			now += random_below((uint64_t)((u128)limit.period_ns * wanted / limit.limit) + 2);
			if (take(&rate, &limit, now, wanted).limited)
				continue;
			times[count] = now;
			amounts[count++] = wanted;
		}
		assert_true(count > 10);
		for (unsigned int from = 0; from < count; from++) {
			u128 sum = 0;

			for (unsigned int to = from; to < count; to++) {
				sum += amounts[to];
				assert_true(sum * limit.period_ns <=
					    (u128)burst * limit.period_ns +
						    (u128)(times[to] - times[from]) * limit.limit);
			}
		}
	}
}

static void units_of_less_than_a_nanosecond_are_not_rounded_away(void **state)
{
	/* 10 GB/s: a tenth of a nanosecond a byte. */
	const struct rate_limit limit = {.limit = 10000000000, .period_ns = SECOND, .burst = 1000};
	struct rate rate = {0};
	uint64_t passed = 0;

	(void)state;
	for (uint64_t now = 0; now < 10000; now++)
		for (unsigned int i = 0; i < 12; i++)
			passed += !take(&rate, &limit, now, 1).limited;
	assert_int_equal(passed, 1000 + 10 * 9999);
}

static void shadow_mode_counts_what_the_limit_would_refuse(void **state)
{
	struct rate_limit limit = {.limit = 100, .period_ns = SECOND, .burst = 5}, shadow = limit;
	struct rate real = {0}, shadowed = {0};
	uint64_t now = 0;

	(void)state;
	shadow.shadow = true;
	for (unsigned int i = 0; i < 5000; i++) {
		uint64_t quantity = random_below(7);
		struct rate_answer a = take(&real, &limit, now, quantity),
				   b = take(&shadowed, &shadow, now, quantity);

		assert_false(b.limited);
		assert_int_equal(b.would_limit, a.limited);
		assert_int_equal(a.would_limit, a.limited);
		assert_int_equal(b.retry_after_ms, a.retry_after_ms);
		assert_int_equal(b.remaining, a.remaining);
		now += random_below(40 * MS);
	}
	assert_true(real.limited > 500);
	assert_int_equal(shadowed.shadowed, real.limited);
	assert_int_equal(shadowed.limited, 0);
}

static void shadow_mode_grants_all_credits(void **state)
{
	const struct rate_limit limit = {.limit = 10, .period_ns = SECOND, .burst = 10, .shadow = true};
	struct rate rate = {0};

	(void)state;
	assert_int_equal(rate_grant(&rate, &limit, 0, 8), 8);
	assert_int_equal(rate_grant(&rate, &limit, 0, 8), 8);
	assert_int_equal(rate.shadowed, 0);
	assert_int_equal(rate_level(&rate, &limit, 0), 16);
	assert_int_equal(rate_grant(&rate, &limit, 0, UINT64_MAX), UINT64_MAX);
	assert_int_equal(rate.shadowed, 1);
	assert_int_equal(rate_level(&rate, &limit, 0), 20);
}

static void credits_are_taken_at_once_and_given_back(void **state)
{
	const struct rate_limit limit = {.limit = 10, .period_ns = SECOND, .burst = 10};
	struct rate rate = {0};

	(void)state;
	assert_int_equal(rate_grant(&rate, &limit, 0, 8), 8);
	assert_int_equal(rate_grant(&rate, &limit, 0, 8), 2);
	assert_int_equal(rate.limited, 0);
	assert_int_equal(rate_grant(&rate, &limit, 0, 8), 0);
	assert_int_equal(rate.limited, 1);
	assert_int_equal(rate_grant(&rate, &limit, 0, 0), 0);
	assert_int_equal(rate.limited, 1);
	rate_return(&rate, &limit, 0, 3);
	assert_answer(take(&rate, &limit, 0, 3), false, 10, 0, 0, 1000);
	rate_return(&rate, &limit, 500 * MS, 8);
	assert_answer(peek(&rate, &limit, 500 * MS, 0), false, 10, 10, 0, 0);
	rate_return(&rate, &limit, 500 * MS, UINT64_MAX);
	assert_answer(take(&rate, &limit, 500 * MS, 10), false, 10, 0, 0, 1000);
}

/* Eight processes that get, burn and give back; each second counts what was burnt in all. */
static void overshoot_is_at_most_the_credits_in_hands(void **state)
{
	const struct rate_limit limit = {.limit = 1000, .period_ns = SECOND, .burst = 100};
	struct rate rate = {0};
	uint64_t held[8] = {0}, burnt = 0, held_max = 0, now = 0;

	(void)state;
	for (unsigned int step = 0; step < 100000; step++) {
		uint64_t *own = &held[random_below(8)], sum = 0, part = *own ? 1 + random_below(*own) : 0;

		if (*own == 0) {
			*own = rate_grant(&rate, &limit, now, 32);
		} else if (random_below(4)) {
			burnt += part;
			*own -= part;
		} else {
			rate_return(&rate, &limit, now, *own);
			*own = 0;
		}
		for (unsigned int i = 0; i < 8; i++)
			sum += held[i];
		held_max = sum > held_max ? sum : held_max;
		now += random_below(5 * MS);
		assert_true((u128)burnt * SECOND <= ((u128)100 + held_max) * SECOND + (u128)now * 1000);
	}
	assert_true(held_max <= 8 * 32);
	/* And it is no brake: most of the pace was used. */
	assert_true((u128)burnt * SECOND > (u128)now * 500);
}

static void a_charge_makes_the_next_wait_and_the_debt_is_bounded(void **state)
{
	const struct rate_limit limit = {.limit = 10, .period_ns = SECOND, .burst = 10};
	struct rate rate = {0};

	(void)state;
	assert_int_equal(rate_charge(&rate, &limit, 0, 15), 0);
	assert_answer(take(&rate, &limit, 0, 1), true, 10, 0, 600, 1500);
	assert_int_equal(rate_level(&rate, &limit, 0), 15);
	assert_int_equal(rate_charge(&rate, &limit, 0, 8), 3);
	assert_int_equal(rate_charge(&rate, &limit, 0, UINT64_MAX), UINT64_MAX);
	assert_answer(take(&rate, &limit, 0, 10), true, 10, 0, 2000, 2000);
	assert_answer(take(&rate, &limit, 2000 * MS, 10), false, 10, 0, 0, 1000);
}

static void what_was_used_survives_a_change_of_the_limit(void **state)
{
	const struct rate_limit minute = {.limit = 60, .period_ns = 60 * SECOND};
	const struct rate_limit faster = {.limit = 600, .period_ns = 60 * SECOND};
	const struct rate_limit slower = {.limit = 6, .period_ns = 60 * SECOND};
	const struct rate_limit other_period = {.limit = 1, .period_ns = SECOND, .burst = 60};
	const struct rate_limit nothing = {.limit = 0, .period_ns = 1};
	struct rate rate = {0};
	uint64_t now = SECOND;

	(void)state;
	take(&rate, &minute, now, 40);
	assert_answer(peek(&rate, &minute, now, 0), false, 60, 20, 0, 40000);
	assert_answer(peek(&rate, &faster, now, 0), false, 600, 560, 0, 4000);
	assert_answer(peek(&rate, &other_period, now, 0), false, 60, 20, 0, 40000);
	/* 5.25 units left: the part of a unit is the same in a period of other length. */
	now += 34750 * MS;
	assert_answer(take(&rate, &minute, now, 0), false, 60, 54, 0, 5250);
	assert_answer(take(&rate, &other_period, now, 0), false, 60, 54, 0, 5250);
	assert_answer(take(&rate, &minute, now, 20), false, 60, 34, 0, 25250);
	/* Lowered, it waits no longer than the largest debt. */
	assert_answer(peek(&rate, &nothing, now, 1), true, 0, 0, RATE_NEVER, 0);
	assert_answer(take(&rate, &nothing, now, 1), true, 0, 0, RATE_NEVER, 0);
	assert_answer(take(&rate, &slower, now, 1), true, 6, 0, 70000, 120000);
	assert_answer(take(&rate, &minute, now, 0), false, 60, 48, 0, 12000);
}

static void a_clock_that_steps_back_gives_nothing(void **state)
{
	const struct rate_limit limit = {.limit = 10, .period_ns = SECOND, .burst = 10};
	struct rate rate = {0};

	(void)state;
	take(&rate, &limit, 10 * SECOND, 10);
	assert_answer(take(&rate, &limit, 9 * SECOND, 1), true, 10, 0, 100, 1000);
	assert_answer(take(&rate, &limit, 10 * SECOND, 1), true, 10, 0, 100, 1000);
	assert_answer(take(&rate, &limit, 10 * SECOND + 100 * MS, 1), false, 10, 0, 0, 1000);
}

/* All steps with these numbers, in all orders of magnitude; the sanitizers watch, the invariants are checked. */
static void nothing_overflows(void **state)
{
	static const uint64_t edges[] = {
		0, 1, 2, SECOND, UINT64_C(1) << 32, UINT64_C(1) << 63, UINT64_MAX - 1, UINT64_MAX};
	struct rate rate = {0};

	(void)state;
	for (unsigned int i = 0; i < 500000; i++) {
		struct rate_limit limit = {.limit = edges[random_below(COUNT(edges))],
					   .period_ns = edges[1 + random_below(COUNT(edges) - 1)],
					   .burst = edges[random_below(COUNT(edges))],
					   .shadow = random_below(8) == 0};
		uint64_t burst = limit.limit == 0 ? 0 : limit.burst ? limit.burst : limit.limit;
		uint64_t now = edges[random_below(COUNT(edges))], quantity = edges[random_below(COUNT(edges))];
		struct rate_answer answer = peek(&rate, &limit, now, quantity), after;
		bool fits = quantity <= peek(&rate, &limit, now, 0).remaining;

		assert_int_equal(answer.limit, burst);
		assert_true(answer.remaining <= burst);
		assert_int_equal(answer.would_limit, !fits);
		assert_int_equal(answer.limited, !fits && !limit.shadow);
		assert_int_equal(answer.retry_after_ms == RATE_NEVER, quantity > burst);
		assert_true(answer.reset_after_ms < RATE_NEVER);
		switch (random_below(5)) {
		case 0:
		case 1:
			after = take(&rate, &limit, now, quantity);
			assert_int_equal(after.remaining, answer.remaining);
			assert_int_equal(peek(&rate, &limit, now, 0).remaining, after.remaining);
			break;
		case 2:
			assert_true(rate_grant(&rate, &limit, now, quantity) <= quantity);
			break;
		case 3:
			rate_return(&rate, &limit, now, quantity);
			break;
		case 4:
			assert_true(rate_charge(&rate, &limit, now, quantity) <= quantity);
			break;
		}
		if (random_below(100) == 0)
			rate = (struct rate){0};
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_burst_passes_and_the_next_waits_for_its_turn),
		cmocka_unit_test(without_a_burst_it_is_the_limit),
		cmocka_unit_test(more_than_the_burst_can_never_pass),
		cmocka_unit_test(quantity_zero_passes_always_and_tells),
		cmocka_unit_test(peeking_changes_nothing),
		cmocka_unit_test(decides_as_virtual_scheduling_does),
		cmocka_unit_test(retry_and_reset_are_exact_to_the_millisecond),
		cmocka_unit_test(no_span_lets_more_pass_than_burst_and_pace),
		cmocka_unit_test(units_of_less_than_a_nanosecond_are_not_rounded_away),
		cmocka_unit_test(shadow_mode_counts_what_the_limit_would_refuse),
		cmocka_unit_test(shadow_mode_grants_all_credits),
		cmocka_unit_test(credits_are_taken_at_once_and_given_back),
		cmocka_unit_test(overshoot_is_at_most_the_credits_in_hands),
		cmocka_unit_test(a_charge_makes_the_next_wait_and_the_debt_is_bounded),
		cmocka_unit_test(what_was_used_survives_a_change_of_the_limit),
		cmocka_unit_test(a_clock_that_steps_back_gives_nothing),
		cmocka_unit_test(nothing_overflows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
