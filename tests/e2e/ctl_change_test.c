/* ctl_change_test.c - the commands of riptidectl that change something: what they do, print and end with. */
#include "agent/store/compress.h"
#include "tests/e2e/ctl_fixture.h"

/* What the key has, as a client reads it; fails if it has something else. NULL: it is not there. */
static void expect(const char *key, const char *value)
{
	riptide *handle = open_handle();
	struct riptide_value found;
	int status = riptide_get(handle, key, strlen(key), &found);

	assert_int_equal(status, value ? RIPTIDE_OK : RIPTIDE_MISS);
	if (value) {
		assert_int_equal(found.length, strlen(value));
		assert_memory_equal(found.data, value, found.length);
		riptide_value_free(&found);
	}
	riptide_close(&handle);
}

static bool is_hot(const char *key)
{
	riptide *handle = open_handle();
	struct riptide_value found;
	bool hot;

	assert_int_equal(riptide_get(handle, key, strlen(key), &found), RIPTIDE_OK);
	hot = found.info.flags & RIPTIDE_HOT;
	riptide_value_free(&found);
	riptide_close(&handle);
	return hot;
}

static long long json_number(const char *name)
{
	json_t *d = json_of(run.out);
	long long number = member(d, name);

	json_decref(d);
	return number;
}

/* Each ends with 2, says what is wrong in one line, and changes nothing. */
static void expect_usage(const char *const *const *commands, size_t count, const char *const *texts)
{
	for (size_t i = 0; i < count; i++) {
		ctl_begin(NULL, NULL, commands[i]);
		assert_int_equal(ctl_end(), 2);
		assert_one_error_line();
		assert_says(run.err, texts[i]);
		assert_string_equal(run.out, "");
	}
}

#define COMMAND(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---- counting and life times -------------------------------------------------------------------------------- */

static void incr_adds_and_prints_the_sum(void **state)
{
	(void)state;
	assert_int_equal(ctl("incr", "n"), 0);
	assert_string_equal(run.out, "1\n");
	assert_int_equal(ctl("incr", "n", "41", "--json"), 0);
	assert_int_equal(json_number("value"), 42);
	assert_int_equal(ctl("incr", "--", "n", "-2"), 0);
	assert_string_equal(run.out, "40\n");
	expect("n", "40");
}

static void incr_refuses_what_is_no_number(void **state)
{
	(void)state;
	assert_int_equal(ctl("set", "text", "abc"), 0);
	assert_int_equal(ctl("incr", "text"), 1);
	assert_one_error_line();
	assert_says(run.err, "\"text\" is no whole number");
	assert_int_equal(ctl("set", "most", "9223372036854775807"), 0);
	assert_int_equal(ctl("incr", "most"), 1);
	expect("text", "abc");
	expect("most", "9223372036854775807");
}

static void incr_gives_a_new_counter_its_life_time(void **state)
{
	(void)state;
	assert_int_equal(ctl("incr", "brief", "--ttl", "50s"), 0);
	assert_int_equal(ctl("ttl", "brief", "--json"), 0);
	assert_in_range(json_number("ttl_ms"), 40000, 50000);
}

static void touch_changes_a_life_time_and_ttl_tells_it(void **state)
{
	json_t *d;

	(void)state;
	assert_int_equal(ctl("set", "k", "v"), 0);
	assert_int_equal(ctl("touch", "k", "90s"), 0);
	assert_int_equal(ctl("ttl", "k", "--json"), 0);
	assert_in_range(json_number("ttl_ms"), 80000, 90000);
	assert_int_equal(ctl("touch", "k", "never"), 0);
	assert_int_equal(ctl("ttl", "k"), 0);
	assert_string_equal(run.out, "never\n");
	assert_int_equal(ctl("ttl", "k", "--json"), 0);
	d = json_of(run.out);
	assert_true(json_is_null(json_object_get(d, "ttl_ms")));
	json_decref(d);
	assert_int_equal(ctl("touch", "k", "50ms"), 0);
	pause_ms(120);
	expect("k", NULL);
}

static void ttl_and_touch_of_an_absent_key_end_with_1(void **state)
{
	(void)state;
	assert_int_equal(ctl("ttl", "absent"), 1);
	assert_says(run.err, "\"absent\" is not there");
	assert_int_equal(ctl("touch", "absent", "5"), 1);
	assert_says(run.err, "\"absent\" is not there");
}

/* ---- conditions --------------------------------------------------------------------------------------------- */

static void a_condition_that_does_not_hold_changes_nothing(void **state)
{
	(void)state;
	assert_int_equal(ctl("set", "there", "old"), 0);
	assert_int_equal(ctl("set", "there", "new", "--if-absent"), 1);
	assert_says(run.err, "nothing was changed");
	assert_int_equal(ctl("set", "there", "new", "--if-version", "3"), 1);
	assert_int_equal(ctl("set", "missing", "new", "--if-present"), 1);
	assert_says(run.err, "\"missing\" is not there; nothing was changed");
	expect("there", "old");
	expect("missing", NULL);
}

static void a_condition_that_holds_lets_it_through(void **state)
{
	char version[24];

	(void)state;
	assert_int_equal(ctl("set", "cond", "1", "--if-absent", "--json"), 0);
	snprintf(version, sizeof(version), "%lld", json_number("version"));
	assert_int_equal(ctl("set", "cond", "2", "--if-version", version), 0);
	assert_int_equal(ctl("set", "cond", "3", "--if-version", version), 1);
	assert_int_equal(ctl("set", "cond", "4", "--if-present"), 0);
	expect("cond", "4");
	assert_int_equal(ctl("set", "cond0", "1", "--if-version", "0"), 0);
	expect("cond0", "1");
}

static void a_write_behind_is_accepted_and_flushed(void **state)
{
	json_t *d;

	(void)state;
	assert_int_equal(ctl("set", "behind", "v", "--behind", "--json"), 0);
	d = json_of(run.out);
	assert_true(json_is_true(json_object_get(d, "accepted")));
	json_decref(d);
	assert_int_equal(ctl("flush"), 0);
	assert_string_equal(run.out, "flushed\n");
	assert_int_equal(ctl("flush", "--json"), 0);
	d = json_of(run.out);
	assert_true(json_is_true(json_object_get(d, "flushed")));
	json_decref(d);
	expect("behind", "v");
}

static void a_value_comes_from_a_file_or_stdin(void **state)
{
	char path[128];

	(void)state;
	path_in(path, sizeof(path), "value");
	write_file(path, "from a file", 11);
	assert_int_equal(ctl("set", "file", "--file", path), 0);
	expect("file", "from a file");
	ctl_begin(path, NULL, COMMAND("set", "stdin"));
	assert_int_equal(ctl_end(), 0);
	expect("stdin", "from a file");
	assert_int_equal(ctl("set", "file", "--file", "/nonexistent"), 6);
	assert_says(run.err, "/nonexistent");
	expect("file", "from a file");
}

/* ---- removing many ------------------------------------------------------------------------------------------ */

static void del_by_prefix_and_by_tag_take_what_they_name(void **state)
{
	(void)state;
	assert_int_equal(ctl("set", "user:1", "v"), 0);
	assert_int_equal(ctl("set", "user:2", "v", "--tag", "red"), 0);
	assert_int_equal(ctl("set", "item:1", "v", "--tag", "red"), 0);
	assert_int_equal(ctl("set", "item:2", "v"), 0);
	assert_int_equal(ctl("del", "--prefix", "user:"), 0);
	assert_string_equal(run.out, "removed 2\n");
	expect("user:1", NULL);
	expect("user:2", NULL);
	expect("item:1", "v");
	assert_int_equal(ctl("del", "--tag", "red"), 0);
	expect("item:1", NULL);
	expect("item:2", "v");
	assert_int_equal(ctl("del", "--prefix", "user:"), 0);
	assert_string_equal(run.out, "removed 0\n");
}

static void clear_wants_to_be_meant(void **state)
{
	json_t *d;

	(void)state;
	assert_int_equal(ctl("set", "one", "v"), 0);
	assert_int_equal(ctl("clear"), 2);
	assert_one_error_line();
	assert_says(run.err, "--yes");
	expect("one", "v");
	assert_int_equal(ctl("clear", "--yes", "--json"), 0);
	d = json_of(run.out);
	assert_true(json_is_true(json_object_get(d, "cleared")));
	json_decref(d);
	expect("one", NULL);
}

/* ---- warming ------------------------------------------------------------------------------------------------ */

static void warm_brings_keys_into_shared_memory(void **state)
{
	char path[128];

	(void)state;
	assert_int_equal(ctl("set", "w1", "v"), 0);
	assert_int_equal(ctl("set", "w2", "v"), 0);
	/* What a restart without shared memory leaves cold. */
	assert_int_equal(agent_process_kill(&the_agent, SIGTERM), 0);
	path_in(path, sizeof(path), "state/hot/default");
	(void)unlink(path);
	assert_int_equal(agent_process_restart(&the_agent), 0);
	assert_int_equal(ctl("warm", "w1", "absent"), 1);
	assert_string_equal(run.out, "2 keys: 1 loaded, 1 absent, 0 failed\n");
	assert_true(is_hot("w1"));
	path_in(path, sizeof(path), "keys");
	write_file(path, "w1\nw2\n", 6);
	assert_int_equal(ctl("warm", "--file", path, "--json"), 0);
	assert_int_equal(json_number("loaded"), 2);
	assert_int_equal(json_number("total"), 2);
	assert_true(is_hot("w2"));
	assert_int_equal(ctl("warm", "--prefix", "w"), 0);
	assert_string_equal(run.out, "2 keys: 2 loaded, 0 absent, 0 failed\n");
}

/* ---- dictionaries and the eviction book --------------------------------------------------------------------- */

static void dict_tells_what_is_lacking(void **state)
{
	json_t *d;

	(void)state;
	assert_int_equal(ctl("dict", "list", "--json"), 0);
	d = json_of(run.out);
	assert_int_equal(json_array_size(json_object_get(d, "dictionaries")), 0);
	json_decref(d);
	assert_int_equal(ctl("dict", "train"), 1);
	assert_one_error_line();
	assert_says(run.err, RIPTIDE_COMPRESSION ? "samples" : "no compression");
	assert_int_equal(ctl("dict", "show", "5"), 1);
	assert_says(run.err, "no dictionary 5");
	assert_int_equal(ctl("dict", "drop", "5"), 1);
	assert_says(run.err, "no dictionary 5");
}

static void evictions_are_told_and_reset(void **state)
{
	json_t *d;

	(void)state;
	assert_int_equal(ctl("evictions"), 0);
	assert_says(run.out, "policy s3fifo");
	assert_says(run.out, "memory_pressure");
	assert_int_equal(ctl("evictions", "reset", "--json"), 0);
	d = json_of(run.out);
	assert_true(json_is_true(json_object_get(d, "reset")));
	json_decref(d);
}

/* ---- what is refused ---------------------------------------------------------------------------------------- */

static void wrong_usage_changes_nothing_and_ends_with_2(void **state)
{
	const char *const *const commands[] = {
		COMMAND("incr"),
		COMMAND("incr", "kept", "x"),
		COMMAND("incr", "kept", "99999999999999999999"),
		COMMAND("ttl"),
		COMMAND("touch", "kept"),
		COMMAND("touch", "kept", "5x"),
		COMMAND("set", "kept", "v", "--if-absent", "--if-present"),
		COMMAND("set", "kept", "v", "--if-version", "x"),
		COMMAND("del"),
		COMMAND("del", "--prefix", "kept", "kept"),
		COMMAND("warm"),
		COMMAND("warm", "kept", "--prefix", "kept"),
		COMMAND("dict"),
		COMMAND("dict", "drop", "x"),
		COMMAND("dict", "burn"),
		COMMAND("evictions", "later"),
		COMMAND("flush", "now"),
		COMMAND("clear", "all"),
	};
	static const char *const texts[] = {"incr",    "\"x\"", "whole number", "ttl",     "touch",      "5x",
					    "exclude", "\"x\"", "a key",        "exclude", "warm takes", "warm takes",
					    "dict",    "\"x\"", "burn",         "reset",   "flush",      "clear"};

	(void)state;
	assert_int_equal(ctl("set", "kept", "as it was"), 0);
	expect_usage(commands, sizeof(commands) / sizeof(commands[0]), texts);
	expect("kept", "as it was");
}

static void without_an_agent_they_end_with_3(void **state)
{
	const char *const *const commands[] = {
		COMMAND("incr", "k"),      COMMAND("touch", "k", "5"),
		COMMAND("clear", "--yes"), COMMAND("flush"),
		COMMAND("warm", "k"),      COMMAND("dict", "list"),
		COMMAND("evictions"),      COMMAND("del", "--prefix", "k"),
	};
	char kept[sizeof(socket_path)];

	(void)state;
	memcpy(kept, socket_path, sizeof(kept));
	snprintf(socket_path, sizeof(socket_path), "/nonexistent/control.sock");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		ctl_begin(NULL, NULL, commands[i]);
		assert_int_equal(ctl_end(), 3);
		assert_one_error_line();
		assert_says(run.err, "/nonexistent/control.sock");
	}
	memcpy(socket_path, kept, sizeof(kept));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(incr_adds_and_prints_the_sum),
		cmocka_unit_test(incr_refuses_what_is_no_number),
		cmocka_unit_test(incr_gives_a_new_counter_its_life_time),
		cmocka_unit_test(touch_changes_a_life_time_and_ttl_tells_it),
		cmocka_unit_test(ttl_and_touch_of_an_absent_key_end_with_1),
		cmocka_unit_test(a_condition_that_does_not_hold_changes_nothing),
		cmocka_unit_test(a_condition_that_holds_lets_it_through),
		cmocka_unit_test(a_write_behind_is_accepted_and_flushed),
		cmocka_unit_test(a_value_comes_from_a_file_or_stdin),
		cmocka_unit_test(del_by_prefix_and_by_tag_take_what_they_name),
		cmocka_unit_test(warm_brings_keys_into_shared_memory),
		cmocka_unit_test(dict_tells_what_is_lacking),
		cmocka_unit_test(evictions_are_told_and_reset),
		cmocka_unit_test(wrong_usage_changes_nothing_and_ends_with_2),
		cmocka_unit_test(without_an_agent_they_end_with_3),
		cmocka_unit_test(clear_wants_to_be_meant),
	};

	return cmocka_run_group_tests(tests, start_agent, stop_agent);
}
