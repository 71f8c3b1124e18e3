/*
 * quota_test.c - limits and use by name, at the edges and against plain sums.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/tenant/quota.h"
#include "shm/msg.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MS UINT64_C(1000000)
#define MINUTE (60000 * MS)

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint64_t random_below(uint64_t bound)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * 0x2545f4914f6cdd1du >> 16) % bound;
}

static int setup(void **state)
{
	struct quota_set *set;

	if (quota_set_create(&set) != RSHM_OK)
		return -1;
	*state = set;
	return 0;
}

static int teardown(void **state)
{
	struct quota_set *set = *state;

	quota_set_destroy(&set);
	return set ? -1 : 0;
}

/* The status; `error` is set to "" first. */
static int set_limits(struct quota_set *set, const char *json, char error[QUOTA_ERROR_MAX])
{
	json_t *object = json_loads(json, JSON_DECODE_ANY, NULL);
	int status;

	assert_non_null(object);
	error[0] = '\0';
	status = quota_set_limits(set, object, error, QUOTA_ERROR_MAX);
	json_decref(object);
	return status;
}

static void limits(struct quota_set *set, const char *json)
{
	char error[QUOTA_ERROR_MAX];

	assert_int_equal(set_limits(set, json, error), RSHM_OK);
	assert_string_equal(error, "");
}

static struct quota_answer consume(struct quota_set *set, uint32_t number, uint64_t amount, uint64_t now_ns)
{
	struct quota_answer asked, answer;

	memset(&answer, 0xff, sizeof(answer));
	quota_ask(set, number, amount, now_ns, &asked);
	quota_consume(set, number, amount, now_ns, &answer);
	assert_int_equal(asked.allowed, answer.allowed);
	assert_int_equal(asked.has_limit, answer.has_limit);
	assert_int_equal(asked.limit, answer.limit);
	assert_int_equal(asked.use, answer.use);
	assert_int_equal(asked.retry_after_ms, answer.retry_after_ms);
	assert_string_equal(asked.name, answer.name);
	return answer;
}

static uint32_t number_of(const struct quota_set *set, const char *name)
{
	uint32_t number = UINT32_MAX;

	assert_int_equal(quota_find(set, name, &number), RSHM_OK);
	assert_string_equal(quota_name(set, number), name);
	return number;
}

static void what_has_no_limit_passes_and_is_counted(void **state)
{
	uint64_t limit = 77;

	assert_int_equal(quota_count(*state), QUOTA_KNOWN);
	for (uint32_t i = 0; i < QUOTA_KNOWN; i++) {
		assert_true(consume(*state, i, 500, 0).allowed);
		assert_false(consume(*state, i, 500, 0).has_limit);
		assert_false(quota_limit(*state, i, &limit));
		assert_int_equal(quota_use(*state, i, 0), i == QUOTA_OPERATIONS_PER_MINUTE ? 0 : 1000);
	}
	assert_int_equal(limit, 77);
	assert_true(consume(*state, QUOTA_CACHE_ENTRIES, UINT64_MAX, 0).allowed);
	assert_int_equal(quota_use(*state, QUOTA_CACHE_ENTRIES, 0), UINT64_MAX);
	limits(*state, "{\"storage_bytes\":1000}");
	assert_false(consume(*state, QUOTA_STORAGE_BYTES, 1, 0).allowed);
}

static void names_are_found_and_others_are_not(void **state)
{
	uint32_t number = 4242;

	limits(*state, "{\"zebra\":1,\"ant\":2,\"memory_bytes\":3,\"m_9\":4}");
	assert_int_equal(quota_count(*state), QUOTA_KNOWN + 3);
	assert_int_equal(number_of(*state, "memory_bytes"), QUOTA_MEMORY_BYTES);
	assert_int_equal(number_of(*state, "storage_bytes"), QUOTA_STORAGE_BYTES);
	assert_int_equal(number_of(*state, "operations_per_minute"), QUOTA_OPERATIONS_PER_MINUTE);
	assert_int_equal(number_of(*state, "data_transfer_bytes"), QUOTA_DATA_TRANSFER_BYTES);
	assert_int_equal(number_of(*state, "active_sessions"), QUOTA_ACTIVE_SESSIONS);
	assert_int_equal(number_of(*state, "cache_entries"), QUOTA_CACHE_ENTRIES);
	assert_true(number_of(*state, "ant") >= QUOTA_KNOWN);
	number_of(*state, "m_9");
	number_of(*state, "zebra");
	assert_int_equal(quota_find(*state, "", &number), RSHM_MISS);
	assert_int_equal(quota_find(*state, "an", &number), RSHM_MISS);
	assert_int_equal(quota_find(*state, "zebras", &number), RSHM_MISS);
	assert_int_equal(quota_find(*state, "Memory_bytes", &number), RSHM_MISS);
	assert_int_equal(number, 4242);
	limits(*state, "{}");
	assert_int_equal(quota_find(*state, "ant", &number), RSHM_MISS);
}

static void a_limit_is_reached_and_not_passed(void **state)
{
	struct quota_answer answer;
	char text[QUOTA_ERROR_MAX];

	limits(*state, "{\"memory_bytes\":1024}");
	assert_true(consume(*state, QUOTA_MEMORY_BYTES, 900, 0).allowed);
	answer = consume(*state, QUOTA_MEMORY_BYTES, 200, 0);
	assert_false(answer.allowed);
	quota_error_text(&answer, text, sizeof(text));
	assert_string_equal(text, "Quota exceeded: memory_bytes: limit 1024, in use 900, asked 200");
	quota_error_text(&answer, text, 8);
	assert_string_equal(text, "Quota e");
	assert_int_equal(quota_use(*state, QUOTA_MEMORY_BYTES, 0), 900);
	assert_true(consume(*state, QUOTA_MEMORY_BYTES, 124, 0).allowed);
	assert_false(consume(*state, QUOTA_MEMORY_BYTES, 1, 0).allowed);
	assert_false(consume(*state, QUOTA_MEMORY_BYTES, UINT64_MAX, 0).allowed);
	assert_true(consume(*state, QUOTA_MEMORY_BYTES, 0, 0).allowed);
	quota_release(*state, QUOTA_MEMORY_BYTES, 24, 0);
	assert_true(consume(*state, QUOTA_MEMORY_BYTES, 24, 0).allowed);
	quota_release(*state, QUOTA_MEMORY_BYTES, UINT64_MAX, 0);
	assert_int_equal(quota_use(*state, QUOTA_MEMORY_BYTES, 0), 0);
}

static void use_beyond_a_limit_refuses_more_and_shrinks(void **state)
{
	limits(*state, "{\"storage_bytes\":100,\"cache_entries\":0}");
	quota_charge(*state, QUOTA_STORAGE_BYTES, 150, 0);
	assert_false(consume(*state, QUOTA_STORAGE_BYTES, 1, 0).allowed);
	assert_true(consume(*state, QUOTA_STORAGE_BYTES, 0, 0).allowed);
	quota_release(*state, QUOTA_STORAGE_BYTES, 60, 0);
	assert_true(consume(*state, QUOTA_STORAGE_BYTES, 10, 0).allowed);
	quota_assign(*state, QUOTA_STORAGE_BYTES, UINT64_MAX);
	assert_false(consume(*state, QUOTA_STORAGE_BYTES, UINT64_MAX, 0).allowed);
	quota_charge(*state, QUOTA_STORAGE_BYTES, UINT64_MAX, 0);
	assert_int_equal(quota_use(*state, QUOTA_STORAGE_BYTES, 0), UINT64_MAX);
	quota_assign(*state, QUOTA_STORAGE_BYTES, 0);
	assert_true(consume(*state, QUOTA_STORAGE_BYTES, 100, 0).allowed);
	assert_false(consume(*state, QUOTA_CACHE_ENTRIES, 1, 0).allowed);
}

static void use_survives_new_limits(void **state)
{
	limits(*state, "{\"memory_bytes\":100,\"crawls\":10,\"jobs\":5}");
	consume(*state, QUOTA_MEMORY_BYTES, 80, 0);
	consume(*state, QUOTA_ACTIVE_SESSIONS, 3, 0);
	consume(*state, number_of(*state, "crawls"), 7, 0);
	consume(*state, number_of(*state, "jobs"), 5, 0);
	limits(*state, "{\"active_sessions\":3,\"crawls\":7,\"a_new_one\":1}");
	assert_int_equal(quota_use(*state, QUOTA_MEMORY_BYTES, 0), 80);
	assert_true(consume(*state, QUOTA_MEMORY_BYTES, 80, 0).allowed);
	assert_false(consume(*state, QUOTA_ACTIVE_SESSIONS, 1, 0).allowed);
	assert_false(consume(*state, number_of(*state, "crawls"), 1, 0).allowed);
	limits(*state, "{\"jobs\":5,\"crawls\":8}");
	assert_true(consume(*state, number_of(*state, "jobs"), 5, 0).allowed);
	assert_true(consume(*state, number_of(*state, "crawls"), 1, 0).allowed);
}

static void operations_per_minute_are_a_rate(void **state)
{
	struct quota_answer answer;
	char text[QUOTA_ERROR_MAX];
	uint64_t now = 7 * MINUTE;

	limits(*state, "{\"operations_per_minute\":10}");
	for (unsigned int i = 0; i < 10; i++) {
		answer = consume(*state, QUOTA_OPERATIONS_PER_MINUTE, 1, now);
		assert_true(answer.allowed);
		assert_int_equal(answer.use, i);
	}
	answer = consume(*state, QUOTA_OPERATIONS_PER_MINUTE, 1, now);
	assert_false(answer.allowed);
	assert_int_equal(answer.retry_after_ms, 6000);
	quota_error_text(&answer, text, sizeof(text));
	assert_string_equal(
		text, "Quota exceeded: operations_per_minute: limit 10, in use 10, asked 1, retry after 6000 ms");
	answer = consume(*state, QUOTA_OPERATIONS_PER_MINUTE, 11, now);
	assert_int_equal(answer.retry_after_ms, RATE_NEVER);
	quota_error_text(&answer, text, sizeof(text));
	assert_string_equal(text, "Quota exceeded: operations_per_minute: limit 10, in use 10, asked 11");
	assert_false(consume(*state, QUOTA_OPERATIONS_PER_MINUTE, 1, now + 5999 * MS).allowed);
	assert_true(consume(*state, QUOTA_OPERATIONS_PER_MINUTE, 1, now + 6000 * MS).allowed);
	limits(*state, "{\"operations_per_minute\":20}");
	assert_int_equal(quota_use(*state, QUOTA_OPERATIONS_PER_MINUTE, now + 6000 * MS), 10);
	assert_true(consume(*state, QUOTA_OPERATIONS_PER_MINUTE, 10, now + 6000 * MS).allowed);
	limits(*state, "{\"operations_per_minute\":0}");
	assert_false(consume(*state, QUOTA_OPERATIONS_PER_MINUTE, 1, now + MINUTE).allowed);
}

static void operations_are_granted_returned_and_charged(void **state)
{
	const uint32_t operations = QUOTA_OPERATIONS_PER_MINUTE;

	assert_int_equal(quota_grant_operations(*state, 1000, 0), 1000);
	quota_charge(*state, operations, 5, 0);
	quota_release(*state, operations, 5, 0);
	limits(*state, "{\"operations_per_minute\":100}");
	assert_int_equal(quota_use(*state, operations, 0), 0);
	assert_int_equal(quota_grant_operations(*state, 64, 0), 64);
	assert_int_equal(quota_grant_operations(*state, 64, 0), 36);
	assert_int_equal(quota_grant_operations(*state, 64, 0), 0);
	quota_release(*state, operations, 30, 0);
	assert_true(consume(*state, operations, 30, 0).allowed);
	assert_false(consume(*state, operations, 1, 0).allowed);
	quota_charge(*state, operations, 50, 0);
	assert_int_equal(quota_use(*state, operations, 0), 150);
	assert_int_equal(consume(*state, operations, 1, 0).retry_after_ms, 51 * 600);
}

static const struct {
	const char *json, *error;
} wrong[] = {
	{"[]", "must be an object of names and limits"},
	{"null", "must be an object of names and limits"},
	{"{\"memory_bytes\":-1}", "memory_bytes: a limit is an integer from 0 to 9223372036854775807"},
	{"{\"memory_bytes\":1.0}", "memory_bytes: a limit is an integer from 0 to 9223372036854775807"},
	{"{\"memory_bytes\":\"1\"}", "memory_bytes: a limit is an integer from 0 to 9223372036854775807"},
	{"{\"memory_bytes\":null}", "memory_bytes: a limit is an integer from 0 to 9223372036854775807"},
	{"{\"\":1}", "\"\": a name has 1 to 48 characters of a-z, 0-9 and _"},
	{"{\"Memory\":1}", "\"Memory\": a name has 1 to 48 characters of a-z, 0-9 and _"},
	{"{\"a\\nb\":1}", "\"a\\nb\": a name has 1 to 48 characters of a-z, 0-9 and _"},
	{"{\"a_name_of_49_characters_that_is_one_more_than_okay\":1}",
	 "\"a_name_of_49_characters_that_is_one_more_than_okay\": a name has 1 to 48 characters of a-z, 0-9 and _"},
};

static void wrong_limits_are_refused_and_change_nothing(void **state)
{
	char error[QUOTA_ERROR_MAX];
	uint64_t limit;

	limits(*state, "{\"memory_bytes\":5,\"own\":6}");
	for (size_t i = 0; i < COUNT(wrong); i++) {
		assert_int_equal(set_limits(*state, wrong[i].json, error), RSHM_E_INVALID);
		assert_string_equal(error, wrong[i].error);
	}
	assert_true(quota_limit(*state, QUOTA_MEMORY_BYTES, &limit));
	assert_int_equal(limit, 5);
	assert_true(quota_limit(*state, number_of(*state, "own"), &limit));
	assert_int_equal(limit, 6);
}

static json_t *many_names(unsigned int count)
{
	json_t *object = json_object();
	char name[32];

	for (unsigned int i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "quota_%u", i);
		json_object_set_new(object, name, json_integer((json_int_t)i));
	}
	json_object_set_new(object, "cache_entries", json_integer(INT64_MAX));
	return object;
}

static void limits_come_back_as_json_and_names_are_bounded(void **state)
{
	json_t *most = many_names(QUOTA_CUSTOM_MAX), *too_many = many_names(QUOTA_CUSTOM_MAX + 1), *back;
	char error[QUOTA_ERROR_MAX], name[32];
	uint64_t limit = 0;

	assert_int_equal(quota_set_limits(*state, most, error, sizeof(error)), RSHM_OK);
	back = quota_set_to_json(*state);
	assert_true(json_equal(back, most));
	assert_int_equal(quota_count(*state), QUOTA_KNOWN + QUOTA_CUSTOM_MAX);
	for (unsigned int i = 0; i < QUOTA_CUSTOM_MAX; i++) {
		snprintf(name, sizeof(name), "quota_%u", i);
		assert_true(quota_limit(*state, number_of(*state, name), &limit));
		assert_int_equal(limit, i);
	}
	assert_int_equal(quota_set_limits(*state, too_many, error, sizeof(error)), RSHM_E_INVALID);
	assert_non_null(strstr(error, ": more than 58 names besides the known ones"));
	assert_int_equal(quota_count(*state), QUOTA_KNOWN + QUOTA_CUSTOM_MAX);
	json_decref(back);
	json_decref(most);
	json_decref(too_many);
}

static const char *const plain_names[] = {"memory_bytes", "storage_bytes", "active_sessions", "mine", "yours"};

struct plain {
	uint64_t limit, use; /* limit UINT64_MAX: none */
};

static void change_limits(struct quota_set *set, struct plain *plain)
{
	json_t *object = json_object();
	char error[QUOTA_ERROR_MAX];

	for (size_t i = 0; i < COUNT(plain_names); i++) {
		plain[i].limit = i < 3 && random_below(4) == 0 ? UINT64_MAX : random_below(1000);
		if (plain[i].limit != UINT64_MAX)
			json_object_set_new(object, plain_names[i], json_integer((json_int_t)plain[i].limit));
	}
	assert_int_equal(quota_set_limits(set, object, error, sizeof(error)), RSHM_OK);
	json_decref(object);
}

static void decides_as_plain_sums_do(void **state)
{
	struct plain plain[COUNT(plain_names)] = {0};
	unsigned int allowed = 0, refused = 0;

	change_limits(*state, plain);
	for (unsigned int step = 0; step < 200000; step++) {
		size_t i = random_below(COUNT(plain_names));
		uint32_t number = number_of(*state, plain_names[i]);
		uint64_t amount = random_below(200);
		bool fits = amount == 0 || plain[i].use + amount <= plain[i].limit;

		switch (random_below(5)) {
		case 0:
		case 1:
			assert_int_equal(consume(*state, number, amount, 0).allowed, fits);
			plain[i].use += fits ? amount : 0;
			fits ? allowed++ : refused++;
			break;
		case 2:
		case 3:
			quota_release(*state, number, amount, 0);
			plain[i].use = amount < plain[i].use ? plain[i].use - amount : 0;
			break;
		case 4:
			if (random_below(20) == 0)
				quota_charge(*state, number, amount, 0), plain[i].use += amount;
			else if (random_below(20) == 0)
				quota_assign(*state, number, amount), plain[i].use = amount;
			else if (random_below(20) == 0)
				change_limits(*state, plain);
			break;
		}
		assert_int_equal(quota_use(*state, number_of(*state, plain_names[i]), 0), plain[i].use);
	}
	assert_true(allowed > 10000);
	assert_true(refused > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_has_no_limit_passes_and_is_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(names_are_found_and_others_are_not, setup, teardown),
		cmocka_unit_test_setup_teardown(a_limit_is_reached_and_not_passed, setup, teardown),
		cmocka_unit_test_setup_teardown(use_beyond_a_limit_refuses_more_and_shrinks, setup, teardown),
		cmocka_unit_test_setup_teardown(use_survives_new_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(operations_per_minute_are_a_rate, setup, teardown),
		cmocka_unit_test_setup_teardown(operations_are_granted_returned_and_charged, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_limits_are_refused_and_change_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(limits_come_back_as_json_and_names_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(decides_as_plain_sums_do, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
