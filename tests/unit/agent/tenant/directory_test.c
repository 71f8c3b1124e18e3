/* directory_test.c - the list of ids, against a naive one. */
#include "agent/tenant/directory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))
#define LONGEST "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"
#define MODEL_IDS 400u

/* The sequence is the same every time. */
static uint32_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (uint32_t)(*state >> 16);
}

/* Short and long, with common beginnings; no two alike. */
static void model_id(uint32_t number, char id[RSHM_TENANT_MAX + 1])
{
	static const char *const before[] = {"", "a", "a-", "zz"}, *const after[] = {"", "", "", "-z"};

	snprintf(id, RSHM_TENANT_MAX + 1, "%s%u%s", before[number % 4], number, after[number % 4]);
	if (number % 16 == 7)
		memset(id + strlen(id), 'x', RSHM_TENANT_MAX - strlen(id));
	id[RSHM_TENANT_MAX] = '\0';
}

static void assert_sorted(const struct directory *d)
{
	for (size_t i = 1; i < d->count; i++)
		assert_true(strcmp(d->items[i - 1].id, d->items[i].id) < 0);
}

static void assert_comes_back(const struct directory *d)
{
	struct directory again = {.items = NULL};
	size_t length = 77;
	char *text = directory_encode(d, &length);

	assert_non_null(text);
	assert_int_equal(directory_decode(text, length, &again), RSHM_OK);
	assert_int_equal(again.count, d->count);
	for (size_t i = 0; i < d->count; i++) {
		assert_string_equal(again.items[i].id, d->items[i].id);
		assert_int_equal(again.items[i].entered_ms, d->items[i].entered_ms);
	}
	free(text);
	directory_fini(&again);
}

static void random_changes_leave_what_a_naive_model_says(void **state)
{
	struct directory d = {.items = NULL};
	uint64_t entered[MODEL_IDS] = {0}; /* 0: not there */
	uint64_t random = 88172645463325252ull;
	char id[RSHM_TENANT_MAX + 1];

	(void)state;
	for (uint32_t step = 1; step <= 20000; step++) {
		uint32_t number = next_random(&random) % MODEL_IDS;
		/* Grows for a while, then shrinks. */
		bool add = next_random(&random) % 10 < (step / 4000 % 2 ? 3u : 7u), found;
		size_t count = 0;

		model_id(number, id);
		(void)directory_find(&d, id, &found);
		assert_int_equal(found, entered[number] != 0);
		if (add) {
			assert_int_equal(directory_add(&d, id, step), RSHM_OK);
			entered[number] = entered[number] ? entered[number] : step;
		} else {
			assert_int_equal(directory_remove(&d, id), entered[number] != 0);
			entered[number] = 0;
		}
		if (step % 500)
			continue;
		for (uint32_t i = 0; i < MODEL_IDS; i++) {
			size_t at;

			model_id(i, id);
			at = directory_find(&d, id, &found);
			assert_int_equal(found, entered[i] != 0);
			assert_true(at <= d.count);
			assert_true(at == d.count || strcmp(d.items[at].id, id) >= 0);
			assert_true(at == 0 || strcmp(d.items[at - 1].id, id) < 0);
			count += found;
			if (found)
				assert_int_equal(d.items[at].entered_ms, entered[i]);
		}
		assert_int_equal(d.count, count);
		assert_sorted(&d);
		assert_comes_back(&d);
	}
	directory_fini(&d);
	assert_int_equal(d.count, 0);
	assert_null(d.items);
}

static void an_empty_list_is_an_empty_text(void **state)
{
	struct directory d = {.items = NULL};
	size_t length = 77;
	char *text = directory_encode(&d, &length);
	bool found = true;

	(void)state;
	assert_non_null(text);
	assert_int_equal(length, 0);
	free(text);
	assert_int_equal(directory_decode("", 0, &d), RSHM_OK);
	assert_int_equal(d.count, 0);
	assert_int_equal(directory_find(&d, "a", &found), 0);
	assert_false(found);
	assert_false(directory_remove(&d, "a"));
	directory_fini(&d);
	directory_fini(&d);
}

static void the_longest_line_is_kept_whole(void **state)
{
	static const char *const ids[] = {"0", "a", "a-", "a0", LONGEST};
	struct directory d = {.items = NULL};
	size_t length;
	char *text;

	(void)state;
	for (size_t i = COUNT(ids); i-- > 0;)
		assert_int_equal(directory_add(&d, ids[i], UINT64_MAX), RSHM_OK);
	text = directory_encode(&d, &length);
	assert_int_equal(length, 5 * 22 + 1 + 1 + 2 + 2 + 64);
	assert_memory_equal(text, "0 18446744073709551615\na 18446744073709551615\na- 1844", 53);
	assert_comes_back(&d);
	free(text);
	directory_fini(&d);
}

static void adding_twice_keeps_the_first_time(void **state)
{
	struct directory d = {.items = NULL};

	(void)state;
	assert_int_equal(directory_add(&d, "a", 5), RSHM_OK);
	assert_int_equal(directory_add(&d, "a", 9), RSHM_OK);
	assert_int_equal(d.count, 1);
	assert_int_equal(d.items[0].entered_ms, 5);
	directory_fini(&d);
}

#define TEXT(text)                     \
	{                              \
		text, sizeof(text) - 1 \
	}

static const struct {
	const char *text;
	size_t length;
} damaged[] = {
	TEXT("a"),
	TEXT("a 5"),
	TEXT("\n"),
	TEXT(" \n"),
	TEXT("a\n"),
	TEXT("a \n"),
	TEXT(" 5\n"),
	TEXT("a  5\n"),
	TEXT("a 5 \n"),
	TEXT("a 5\r\n"),
	TEXT("a\t5\n"),
	TEXT(" a 5\n"),
	TEXT("a 05\n"),
	TEXT("a +5\n"),
	TEXT("a -5\n"),
	TEXT("a 5x\n"),
	TEXT("a 18446744073709551616\n"),
	TEXT("a 00000000000000000000000000000000000005\n"),
	TEXT("A 5\n"),
	TEXT("- 5\n"),
	TEXT("-a 5\n"),
	TEXT("a/b 5\n"),
	TEXT(LONGEST "z 5\n"),
	TEXT("a\0 5\n"),
	TEXT("a\0b 5\n"),
	TEXT("a 5\0\n"),
	TEXT("a 5\0junk\n"),
	TEXT("\0\n"),
	TEXT("a 5\n\0"),
	TEXT("a 5\n\n"),
	TEXT("a 5\nb 6"),
	TEXT("b 5\na 6\n"),
	TEXT("a 5\na 5\n"),
	TEXT("a 5\nb 6\nb 7\n"),
};

static int decode(const char *text, size_t length, struct directory *ret)
{
	char *copy = malloc(length + !length);
	int status;

	/* Of exactly that length: whoever reads on is caught by the sanitizer. */
	assert_non_null(copy);
	memcpy(copy, text, length);
	status = directory_decode(copy, length, ret);
	free(copy);
	return status;
}

static void a_damaged_text_is_refused_whole(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(damaged); i++) {
		struct directory d = {.items = NULL};

		if (decode(damaged[i].text, damaged[i].length, &d) != RSHM_E_CORRUPT)
			fail_msg("taken: %s", damaged[i].text);
		assert_null(d.items);
		assert_int_equal(d.count, 0);
	}
}

/* Any other byte at any place: refused, or read and then written as exactly what it said. */
static void what_is_accepted_is_understood_to_the_last_byte(void **state)
{
	char text[] = "0 1\na 22\nab 333\nzz-9 18446744073709551615\n";
	size_t length = sizeof(text) - 1, written;

	(void)state;
	for (size_t i = 0; i < length; i++)
		for (int c = 0; c < 256; c++) {
			struct directory d = {.items = NULL};
			char was = text[i], *again;

			text[i] = (char)c;
			if (decode(text, length, &d) == RSHM_OK) {
				again = directory_encode(&d, &written);
				assert_int_equal(written, length);
				assert_memory_equal(again, text, length);
				free(again);
			}
			directory_fini(&d);
			text[i] = was;
		}
	for (size_t cut = 0; cut < length; cut++) {
		struct directory d = {.items = NULL};
		bool at_line_end = cut == 0 || text[cut - 1] == '\n';

		assert_int_equal(decode(text, cut, &d), at_line_end ? RSHM_OK : RSHM_E_CORRUPT);
		directory_fini(&d);
	}
}

static void a_hundred_thousand_ids_fit(void **state)
{
	struct directory d = {.items = NULL};
	char id[RSHM_TENANT_MAX + 1];
	bool found;

	(void)state;
	for (uint32_t i = 0; i < 100000; i++) {
		snprintf(id, sizeof(id), "t%06u", i);
		assert_int_equal(directory_add(&d, id, i), RSHM_OK);
	}
	assert_comes_back(&d);
	assert_int_equal(directory_find(&d, "t050000", &found), 50000);
	assert_true(found);
	assert_int_equal(directory_find(&d, "t0500000", &found), 50001);
	assert_false(found);
	assert_int_equal(directory_find(&d, "z", &found), 100000);
	directory_fini(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_changes_leave_what_a_naive_model_says),
		cmocka_unit_test(an_empty_list_is_an_empty_text),
		cmocka_unit_test(the_longest_line_is_kept_whole),
		cmocka_unit_test(adding_twice_keeps_the_first_time),
		cmocka_unit_test(a_damaged_text_is_refused_whole),
		cmocka_unit_test(what_is_accepted_is_understood_to_the_last_byte),
		cmocka_unit_test(a_hundred_thousand_ids_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
