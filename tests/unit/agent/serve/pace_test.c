/* pace_test.c - how many begin when, in which order, and who is told to stop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/serve/pace.h"

struct source {
	struct paced paced; /* first */
	struct pace *pace;
	uint64_t now_ms;
	uint32_t left, begun, late, stopped;
	bool comes_back; /* at once, as from a store that answers within the call */
};

static void on_turn(struct paced *paced, enum pace_turn turn)
{
	struct source *s = (struct source *)paced;

	s->late += turn == PACE_LATE;
	s->stopped += turn == PACE_STOPPED;
	if (turn != PACE_GO)
		return;
	s->begun++;
	if (--s->left > 0)
		pace_enter(s->pace, &s->paced, s->now_ms);
	if (s->comes_back)
		pace_leave(s->pace, s->now_ms);
}

static void enter(struct source *s, struct pace *pace, uint32_t keys, uint64_t now_ms)
{
	*s = (struct source){.paced = {.start = on_turn}, .pace = pace, .left = keys, .now_ms = now_ms};
	s->comes_back = true;
	pace_enter(pace, &s->paced, now_ms);
}

static void tick(struct source *s, uint64_t now_ms)
{
	s->now_ms = now_ms;
	pace_tick(s->pace, now_ms);
}

static void no_more_begin_than_the_rate_allows(void **state)
{
	struct pace pace;
	struct source s;

	(void)state;
	pace_init(&pace, 1000, 100, 5000);
	enter(&s, &pace, 100000, 5000);
	assert_int_equal(s.begun, 1);
	for (uint64_t ms = 1; ms <= 3000; ms++)
		tick(&s, 5000 + ms);
	assert_in_range(s.begun, 2990, 3001);
	/* After a pause a tenth of a second's worth at most. */
	tick(&s, 20000);
	assert_in_range(s.begun, 3090, 3102);
}

static void slow_rates_are_kept_too(void **state)
{
	struct pace pace;
	struct source s;

	(void)state;
	pace_init(&pace, 3, 100, 0);
	enter(&s, &pace, 100, 0);
	for (uint64_t ms = 50; ms <= 10000; ms += 50)
		tick(&s, ms);
	assert_in_range(s.begun, 30, 31);
}

static void no_more_are_under_way_than_a_batch(void **state)
{
	struct pace pace;
	struct source s;

	(void)state;
	pace_init(&pace, 1000000, 7, 0);
	enter(&s, &pace, 1, 0);
	s.comes_back = false;
	s.left = 50;
	pace_enter(&pace, &s.paced, 0);
	tick(&s, 100);
	assert_int_equal(s.begun, 1 + 7);
	pace_leave(&pace, 100);
	pace_leave(&pace, 100);
	assert_int_equal(s.begun, 1 + 9);
}

static void sources_take_turns(void **state)
{
	struct pace pace;
	struct source a, b;

	(void)state;
	pace_init(&pace, 1000, 10, 0);
	enter(&a, &pace, 1000, 0);
	enter(&b, &pace, 1000, 0);
	for (uint64_t ms = 1; ms <= 500; ms++) {
		a.now_ms = ms;
		tick(&b, ms);
	}
	assert_in_range(a.begun, 245, 255);
	assert_in_range(b.begun, 245, 255);
}

static void who_waits_too_long_is_told_and_the_others_go_on(void **state)
{
	struct pace pace;
	struct source a, b, c;

	(void)state;
	pace_init(&pace, 1, 10, 0);
	enter(&a, &pace, 5, 0);
	b = (struct source){
		.paced = {.start = on_turn, .until_ms = 400}, .pace = &pace, .left = 5, .comes_back = true};
	c = (struct source){
		.paced = {.start = on_turn, .until_ms = 60000}, .pace = &pace, .left = 1, .comes_back = true};
	pace_enter(&pace, &b.paced, 0);
	pace_enter(&pace, &c.paced, 0);
	tick(&a, 399);
	assert_int_equal(b.late, 0);
	tick(&a, 400);
	assert_int_equal(b.late, 1);
	assert_int_equal(b.begun, 0);
	for (uint64_t ms = 1000; ms <= 10000; ms += 100)
		tick(&a, ms);
	assert_int_equal(a.begun, 5);
	assert_int_equal(c.begun, 1);
	assert_false(pace_is_busy(&pace));
	/* The line is whole after one was taken out of its end. */
	enter(&c, &pace, 1, 20000);
	assert_int_equal(c.begun, 1);
}

static void stopping_tells_all_and_those_that_come_later(void **state)
{
	struct pace pace;
	struct source a, b;

	(void)state;
	pace_init(&pace, 1, 10, 0);
	enter(&a, &pace, 5, 0);
	assert_int_equal(a.begun, 1);
	pace_stop(&pace);
	assert_int_equal(a.stopped, 1);
	enter(&b, &pace, 5, 0);
	assert_int_equal(b.stopped, 1);
	assert_int_equal(b.begun, 0);
	assert_false(pace_is_busy(&pace));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_more_begin_than_the_rate_allows),
		cmocka_unit_test(slow_rates_are_kept_too),
		cmocka_unit_test(no_more_are_under_way_than_a_batch),
		cmocka_unit_test(sources_take_turns),
		cmocka_unit_test(who_waits_too_long_is_told_and_the_others_go_on),
		cmocka_unit_test(stopping_tells_all_and_those_that_come_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
