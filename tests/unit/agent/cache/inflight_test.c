/* inflight_test.c - order, sharing and bounds of operations on one key. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cache/inflight.h"
#include "shm/msg.h"

static char trace[1024];
static struct inflight *table;

struct op {
	struct inflight_op base;
	char name;
	struct op *enters; /* while it is told its answer */
};

static void note(char what, char name)
{
	size_t n = strlen(trace);

	assert_true(n + 3 < sizeof(trace));
	trace[n] = what;
	trace[n + 1] = name;
	trace[n + 2] = '\0';
}

static void on_start(struct inflight_op *base)
{
	struct op *op = (struct op *)base;

	note('+', op->name);
}

static void on_share(struct inflight_op *base, struct inflight_op *first)
{
	struct op *op = (struct op *)base;

	(void)first;
	note('=', op->name);
	if (op->enters)
		assert_int_equal(inflight_enter(table, &op->enters->base), RSHM_OK);
}

static struct op make(const char *key, char name, bool is_read)
{
	struct op op = {
		.base = {.tenant = &table,
			 .key = key,
			 .key_len = strlen(key),
			 .is_read = is_read,
			 .start = on_start,
			 .share = on_share},
		.name = name,
	};

	return op;
}

static int setup(void **state)
{
	(void)state;
	trace[0] = '\0';
	table = inflight_create(64);
	return table ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	inflight_destroy(&table);
	return 0;
}

static void first_operation_starts_at_once(void **state)
{
	struct op a = make("k", 'a', true);

	(void)state;
	assert_int_equal(inflight_enter(table, &a.base), RSHM_OK);
	assert_string_equal(trace, "+a");
	assert_int_equal(inflight_count(table), 1);
	inflight_leave(table, &a.base, true);
	assert_int_equal(inflight_count(table), 0);
}

static void writes_of_a_key_keep_their_order(void **state)
{
	struct op a = make("k", 'a', false), b = make("k", 'b', false), c = make("k", 'c', false);

	(void)state;
	inflight_enter(table, &a.base);
	inflight_enter(table, &b.base);
	inflight_enter(table, &c.base);
	assert_string_equal(trace, "+a");
	inflight_leave(table, &a.base, true);
	assert_string_equal(trace, "+a+b");
	inflight_leave(table, &b.base, true);
	inflight_leave(table, &c.base, true);
	assert_string_equal(trace, "+a+b+c");
}

static void reads_behind_a_read_share_its_answer_up_to_the_next_write(void **state)
{
	struct op a = make("k", 'a', true), b = make("k", 'b', true), c = make("k", 'c', true),
		  w = make("k", 'w', false), d = make("k", 'd', true);

	(void)state;
	inflight_enter(table, &a.base);
	inflight_enter(table, &b.base);
	inflight_enter(table, &c.base);
	inflight_enter(table, &w.base);
	inflight_enter(table, &d.base);
	inflight_leave(table, &a.base, true);
	assert_string_equal(trace, "+a=b=c+w");
	inflight_leave(table, &w.base, false);
	assert_string_equal(trace, "+a=b=c+w+d");
	inflight_leave(table, &d.base, false);
}

static void answer_that_is_not_for_others_is_not_shared(void **state)
{
	struct op a = make("k", 'a', true), b = make("k", 'b', true);

	(void)state;
	inflight_enter(table, &a.base);
	inflight_enter(table, &b.base);
	inflight_leave(table, &a.base, false);
	assert_string_equal(trace, "+a+b");
	inflight_leave(table, &b.base, false);
}

static void other_keys_and_tenants_do_not_wait(void **state)
{
	struct op a = make("k", 'a', false), b = make("l", 'b', false), c = make("k", 'c', false);

	(void)state;
	c.base.tenant = trace;
	inflight_enter(table, &a.base);
	inflight_enter(table, &b.base);
	inflight_enter(table, &c.base);
	assert_string_equal(trace, "+a+b+c");
	inflight_leave(table, &a.base, false);
	inflight_leave(table, &b.base, false);
	inflight_leave(table, &c.base, false);
}

static void read_entered_while_answers_are_shared_asks_anew(void **state)
{
	struct op a = make("k", 'a', true), b = make("k", 'b', true), late = make("k", 'l', true);

	(void)state;
	b.enters = &late;
	inflight_enter(table, &a.base);
	inflight_enter(table, &b.base);
	inflight_leave(table, &a.base, true);
	assert_string_equal(trace, "+a=b+l");
	inflight_leave(table, &late.base, true);
}

static unsigned int quiet_starts;

static void start_quietly_and_end(struct inflight_op *base)
{
	quiet_starts++;
	inflight_leave(table, base, false);
}

static void long_line_of_operations_that_end_at_once_needs_no_stack(void **state)
{
	enum { COUNT = 500000 };
	struct op *ops = calloc(COUNT, sizeof(*ops));
	struct op first = make("k", 'f', false);

	(void)state;
	assert_non_null(ops);
	inflight_destroy(&table);
	table = inflight_create(COUNT + 1);
	assert_non_null(table);
	inflight_enter(table, &first.base);
	for (int i = 0; i < COUNT; i++) {
		ops[i] = make("k", 'x', false);
		ops[i].base.start = start_quietly_and_end;
		assert_int_equal(inflight_enter(table, &ops[i].base), RSHM_OK);
	}
	quiet_starts = 0;
	inflight_leave(table, &first.base, false);
	assert_int_equal(quiet_starts, COUNT);
	assert_int_equal(inflight_count(table), 0);
	free(ops);
}

static void full_table_refuses(void **state)
{
	struct op ops[65];

	(void)state;
	for (int i = 0; i < 64; i++) {
		ops[i] = make("k", 'a', false);
		assert_int_equal(inflight_enter(table, &ops[i].base), RSHM_OK);
	}
	ops[64] = make("other", 'z', false);
	assert_int_equal(inflight_enter(table, &ops[64].base), RSHM_E_AGAIN);
	for (int i = 0; i < 64; i++)
		inflight_leave(table, &ops[i].base, false);
}

/* ---- what others change ---------------------------------------------------------------------------------------- */

static void a_change_stops_only_the_operation_whose_turn_it_is(void **state)
{
	struct op a = make("k", 'a', true), b = make("k", 'b', true), other = make("l", 'o', true);

	(void)state;
	inflight_enter(table, &a.base);
	inflight_enter(table, &b.base);
	inflight_enter(table, &other.base);
	assert_true(inflight_may_publish(table, &a.base, 1, 0));
	inflight_mark(table, &table, "k", 1);
	inflight_mark(table, &table, "nobody", 6);
	inflight_mark(table, &a, "l", 1); /* of another tenant */
	assert_false(inflight_may_publish(table, &a.base, 1, 0));
	assert_true(inflight_may_publish(table, &other.base, 1, 0));
	inflight_leave(table, &a.base, false);
	assert_true(inflight_may_publish(table, &b.base, 1, 0));
	inflight_leave(table, &b.base, false);
	inflight_leave(table, &other.base, false);
}

static void a_change_of_everything_stops_all_that_have_begun(void **state)
{
	struct op a = make("k", 'a', true), b = make("k", 'b', true), other = make("l", 'o', true);

	(void)state;
	inflight_enter(table, &a.base);
	inflight_enter(table, &b.base);
	inflight_mark_all(table);
	inflight_enter(table, &other.base);
	assert_false(inflight_may_publish(table, &a.base, 1, 0));
	assert_true(inflight_may_publish(table, &other.base, 1, 0));
	inflight_leave(table, &a.base, false);
	assert_true(inflight_may_publish(table, &b.base, 1, 0));
	inflight_leave(table, &b.base, false);
	inflight_leave(table, &other.base, false);
}

static void a_version_that_was_seen_lets_only_that_one_be_published(void **state)
{
	struct op a = make("k", 'a', false);

	(void)state;
	inflight_note_version(table, &table, "k", 1, 3, 0); /* nobody is there */
	inflight_enter(table, &a.base);
	assert_true(inflight_may_publish(table, &a.base, 5, 0));
	inflight_note_version(table, &table, "k", 1, 5, 0);
	assert_true(inflight_may_publish(table, &a.base, 5, 0));
	assert_false(inflight_may_publish(table, &a.base, 4, 0));
	inflight_note_version(table, &table, "k", 1, 5, 0);
	assert_true(inflight_may_publish(table, &a.base, 5, 0));
	inflight_note_version(table, &table, "k", 1, 6, 0);
	assert_false(inflight_may_publish(table, &a.base, 5, 0));
	assert_false(inflight_may_publish(table, &a.base, 6, 0));
	inflight_leave(table, &a.base, false);
}

static void a_life_that_was_shortened_is_not_published_longer(void **state)
{
	struct op a = make("k", 'a', true);

	(void)state;
	inflight_enter(table, &a.base);
	inflight_note_version(table, &table, "k", 1, 5, 1000);
	assert_true(inflight_may_publish(table, &a.base, 5, 1000));
	assert_true(inflight_may_publish(table, &a.base, 5, 900));
	assert_false(inflight_may_publish(table, &a.base, 5, 1001));
	assert_false(inflight_may_publish(table, &a.base, 5, 0));
	inflight_leave(table, &a.base, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(first_operation_starts_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(writes_of_a_key_keep_their_order, setup, teardown),
		cmocka_unit_test_setup_teardown(reads_behind_a_read_share_its_answer_up_to_the_next_write, setup,
						teardown),
		cmocka_unit_test_setup_teardown(answer_that_is_not_for_others_is_not_shared, setup, teardown),
		cmocka_unit_test_setup_teardown(other_keys_and_tenants_do_not_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(read_entered_while_answers_are_shared_asks_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(long_line_of_operations_that_end_at_once_needs_no_stack, setup,
						teardown),
		cmocka_unit_test_setup_teardown(full_table_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(a_change_stops_only_the_operation_whose_turn_it_is, setup, teardown),
		cmocka_unit_test_setup_teardown(a_change_of_everything_stops_all_that_have_begun, setup, teardown),
		cmocka_unit_test_setup_teardown(a_life_that_was_shortened_is_not_published_longer, setup, teardown),
		cmocka_unit_test_setup_teardown(a_version_that_was_seen_lets_only_that_one_be_published, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
