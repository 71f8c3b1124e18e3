#include "agent/base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void text_parses_plain_numbers(void **state)
{
	uint64_t value;

	(void)state;
	assert_true(text_parse_u64("0", &value) && value == 0);
	assert_true(text_parse_u64("10", &value) && value == 10);
	assert_true(text_parse_u64("18446744073709551615", &value) && value == UINT64_MAX);
}

static void text_refuses_what_is_not_wholly_a_number(void **state)
{
	static const char *const bad[] = {"",
					  " 1",
					  "1 ",
					  "+1",
					  "-1",
					  "010",
					  "00",
					  "0x10",
					  "1.0",
					  "1e3",
					  "ten",
					  "18446744073709551616",
					  "99999999999999999999999"};
	uint64_t value = 77;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(text_parse_u64(bad[i], &value));
	assert_int_equal(value, 77);
}

static void text_parses_sizes_with_units(void **state)
{
	static const char *const bad[] = {"",       "M",    "64MB", "64m",       "64 M", "64Mi",
					  "64MiBx", "1.5G", "064M", "16777216T", "64iB"};
	uint64_t value;

	(void)state;
	assert_true(text_parse_size("64M", &value) && value == 64u << 20);
	assert_true(text_parse_size("20MiB", &value) && value == 20u << 20);
	assert_true(text_parse_size("1K", &value) && value == 1024);
	assert_true(text_parse_size("64G", &value) && value == 64ull << 30);
	assert_true(text_parse_size("1T", &value) && value == 1ull << 40);
	assert_true(text_parse_size("123", &value) && value == 123);
	value = 77;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(text_parse_size(bad[i], &value));
	assert_int_equal(value, 77);
}

static void text_parses_durations_with_units(void **state)
{
	static const char *const bad[] = {
		"", "s", "1 s", "1sec", "1S", "-1s", "01s", "1.5h", "18446744073709551615d"};
	uint64_t value;

	(void)state;
	assert_true(text_parse_duration("30", 1000, &value) && value == 30000);
	assert_true(text_parse_duration("30", 1, &value) && value == 30);
	assert_true(text_parse_duration("250ms", 1000, &value) && value == 250);
	assert_true(text_parse_duration("5s", 1, &value) && value == 5000);
	assert_true(text_parse_duration("2m", 1, &value) && value == 120000);
	assert_true(text_parse_duration("24h", 1, &value) && value == 86400000);
	assert_true(text_parse_duration("7d", 1, &value) && value == 604800000);
	value = 77;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(text_parse_duration(bad[i], 1, &value));
	assert_int_equal(value, 77);
}

static void text_parses_the_eight_words_of_a_boolean(void **state)
{
	bool value = false;

	(void)state;
	assert_true(text_parse_bool("true", &value) && value);
	assert_true(text_parse_bool("No", &value) && !value);
	assert_true(text_parse_bool("ON", &value) && value);
	assert_true(text_parse_bool("0", &value) && !value);
	assert_true(text_parse_bool("1", &value) && value);
	assert_false(text_parse_bool("maybe", &value));
	assert_false(text_parse_bool("", &value));
	assert_false(text_parse_bool("true ", &value));
	assert_true(value);
}

static void text_knows_names(void **state)
{
	(void)state;
	assert_true(text_is_name("tenant-1", 64));
	assert_true(text_is_name("abc", 3));
	assert_false(text_is_name("abcd", 3));
	assert_false(text_is_name("", 3));
	assert_false(text_is_name("../x", 64));
	assert_false(text_is_name("Abc", 64));
}

static void text_stays_inside_its_buffer(void **state)
{
	char bytes[9];
	struct text text;

	(void)state;
	bytes[8] = '!';
	text_init(&text, bytes, 8);
	text_append_string(&text, "abc");
	text_append_format(&text, "%d", 12);
	assert_string_equal(bytes, "abc12");
	assert_false(text.cut);
	text_append_format(&text, "%s", "345678");
	assert_string_equal(bytes, "abc1234");
	assert_true(text.cut);
	text_append(&text, "x", 1);
	assert_string_equal(bytes, "abc1234");
	assert_int_equal(bytes[8], '!');
}

static void check_escaped(const char *input, size_t length, const char *shown, const char *json)
{
	char bytes[256];
	struct text text;

	text_init(&text, bytes, sizeof(bytes));
	text_append_escaped(&text, input, length);
	assert_string_equal(bytes, shown);
	text_init(&text, bytes, sizeof(bytes));
	text_append_json(&text, input, length);
	assert_string_equal(bytes, json);
}

static void text_escapes_what_could_fake_a_line(void **state)
{
	(void)state;
	check_escaped("plain \xc3\xa9", 8, "plain \xc3\xa9", "plain \xc3\xa9");
	check_escaped("a\nb\r\t\\", 6, "a\\nb\\r\\t\\\\", "a\\nb\\r\\t\\\\");
	check_escaped("\x1b[31m\x7f", 6, "\\x1b[31m\\x7f", "\\u001b[31m\\u007f");
	check_escaped("\0x", 2, "\\x00x", "\\u0000x");
	check_escaped("\xc2\x9b"
		      "2J",
		      4, "\\xc2\\x9b2J", "\\u009b2J");
	check_escaped("\xff\xc0\xaf", 3, "\\xff\\xc0\\xaf", "\\ufffd\\ufffd\\ufffd");
	check_escaped("say \"hi\"", 8, "say \"hi\"", "say \\\"hi\\\"");
	check_escaped("\xed\xa0\x80", 3, "\\xed\\xa0\\x80", "\\ufffd\\ufffd\\ufffd");
	check_escaped("\xe2\x82", 2, "\\xe2\\x82", "\\ufffd\\ufffd");
}

static void text_cuts_no_escape_in_two(void **state)
{
	char bytes[6];
	struct text text;

	(void)state;
	text_init(&text, bytes, sizeof(bytes));
	text_append_escaped(&text, "abc\x01z", 5);
	assert_string_equal(bytes, "abc");
	assert_true(text.cut);
}

static void text_shows_sizes_that_parse_back(void **state)
{
	static const uint64_t sizes[] = {0,     1,         1023,        1024,       1025,
					 65536, 20u << 20, 64ull << 30, 1ull << 50, UINT64_MAX};
	char bytes[64];
	struct text text;
	uint64_t back;

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		text_init(&text, bytes, sizeof(bytes));
		text_append_size(&text, sizes[i]);
		assert_true(text_parse_size(bytes, &back));
		assert_int_equal(back, sizes[i]);
	}
	text_init(&text, bytes, sizeof(bytes));
	text_append_size(&text, 64u << 20);
	assert_string_equal(bytes, "64M");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_parses_plain_numbers),
		cmocka_unit_test(text_refuses_what_is_not_wholly_a_number),
		cmocka_unit_test(text_parses_sizes_with_units),
		cmocka_unit_test(text_parses_durations_with_units),
		cmocka_unit_test(text_parses_the_eight_words_of_a_boolean),
		cmocka_unit_test(text_knows_names),
		cmocka_unit_test(text_stays_inside_its_buffer),
		cmocka_unit_test(text_escapes_what_could_fake_a_line),
		cmocka_unit_test(text_cuts_no_escape_in_two),
		cmocka_unit_test(text_shows_sizes_that_parse_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
