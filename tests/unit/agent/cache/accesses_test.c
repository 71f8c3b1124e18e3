/* accesses_test.c - what the table of accesses remembers, and what it forgets first. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "agent/cache/accesses.h"

#define START_MS 1000000u
#define PLACES (ACCESSES_BUCKETS * ACCESSES_WAYS)

static struct accesses *table;

static int setup(void **state)
{
	(void)state;
	table = accesses_create();
	return table ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	accesses_destroy(&table);
	return table == NULL ? 0 : -1;
}

static void note(const char *key, uint64_t now_ms)
{
	accesses_note(table, key, strlen(key), now_ms);
}

static bool get(const char *key, struct access_record *ret)
{
	return accesses_get(table, key, strlen(key), ret);
}

static void a_key_that_was_never_read_is_unknown(void **state)
{
	struct access_record record = {.count = 7};

	(void)state;
	assert_false(get("a", &record));
	note("b", START_MS);
	assert_false(get("a", &record));
	assert_int_equal(record.count, 7);
}

static void accesses_are_counted_with_the_time_of_the_last(void **state)
{
	struct access_record record;

	(void)state;
	for (uint64_t i = 0; i < 100; i++)
		note("a", START_MS + i);
	note("b", START_MS);
	assert_true(get("a", &record));
	assert_int_equal(record.count, 100);
	assert_int_equal(record.last_ms, START_MS + 99);
	assert_true(get("b", &record));
	assert_int_equal(record.count, 1);
	assert_int_equal(record.last_ms, START_MS);
}

static void an_access_told_late_counts_and_leaves_the_later_time(void **state)
{
	struct access_record record;

	(void)state;
	note("a", START_MS + 50);
	note("a", START_MS);
	assert_true(get("a", &record));
	assert_int_equal(record.count, 2);
	assert_int_equal(record.last_ms, START_MS + 50);
}

static void keys_are_bytes_of_any_kind(void **state)
{
	static const char one[] = {'a', 0, 'b'}, two[] = {'a', 0, 'c'};
	struct access_record record;

	(void)state;
	accesses_note(table, one, sizeof(one), START_MS);
	assert_true(accesses_get(table, one, sizeof(one), &record));
	assert_false(accesses_get(table, two, sizeof(two), &record));
	assert_false(accesses_get(table, one, 1, &record));
}

static void a_forgotten_key_begins_anew(void **state)
{
	struct access_record record;

	(void)state;
	note("a", START_MS);
	note("a", START_MS);
	note("b", START_MS);
	accesses_forget(table, "a", 1);
	accesses_forget(table, "unknown", 7);
	assert_false(get("a", &record));
	assert_true(get("b", &record));
	note("a", START_MS + 5);
	assert_true(get("a", &record));
	assert_int_equal(record.count, 1);
}

static void all_can_be_forgotten(void **state)
{
	struct access_record record;

	(void)state;
	note("a", START_MS);
	note("b", START_MS);
	accesses_forget_all(table);
	assert_false(get("a", &record));
	assert_false(get("b", &record));
	note("a", START_MS);
	assert_true(get("a", &record));
}

/* Notes keys 0 .. count - 1, each a millisecond later. */
static void note_many(uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		accesses_note(table, &i, sizeof(i), START_MS + i);
}

static uint32_t known_of(uint32_t from, uint32_t to)
{
	struct access_record record;
	uint32_t known = 0;

	for (uint32_t i = from; i < to; i++)
		known += accesses_get(table, &i, sizeof(i), &record) && record.last_ms == START_MS + i;
	return known;
}

static void a_table_that_is_half_full_knows_nearly_all(void **state)
{
	(void)state;
	note_many(PLACES / 2);
	assert_true(known_of(0, PLACES / 2) > PLACES / 2 / 100 * 93);
}

static void what_was_read_longest_ago_makes_room(void **state)
{
	(void)state;
	note_many(8 * PLACES);
	/* It cannot know more than it has places, and what it knows is what came last. */
	assert_int_equal(known_of(0, PLACES), 0);
	assert_true(known_of(7 * PLACES, 8 * PLACES) > PLACES / 2);
	assert_true(known_of(0, 8 * PLACES) <= PLACES);
	assert_true(known_of(8 * PLACES - 1, 8 * PLACES) == 1);
}

static void a_key_that_is_read_again_and_again_stays(void **state)
{
	struct access_record record;

	(void)state;
	/* So often that hardly ever as many others as a bucket has places come to its bucket in between. */
	for (uint32_t i = 0; i < 4 * PLACES; i++) {
		if (i % 256 == 0)
			note("hot", START_MS + i);
		accesses_note(table, &i, sizeof(i), START_MS + i);
	}
	assert_true(get("hot", &record));
	assert_int_equal(record.count, 4 * PLACES / 256);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_key_that_was_never_read_is_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(accesses_are_counted_with_the_time_of_the_last, setup, teardown),
		cmocka_unit_test_setup_teardown(an_access_told_late_counts_and_leaves_the_later_time, setup,
						teardown),
		cmocka_unit_test_setup_teardown(keys_are_bytes_of_any_kind, setup, teardown),
		cmocka_unit_test_setup_teardown(a_forgotten_key_begins_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(all_can_be_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(a_table_that_is_half_full_knows_nearly_all, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_read_longest_ago_makes_room, setup, teardown),
		cmocka_unit_test_setup_teardown(a_key_that_is_read_again_and_again_stays, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
