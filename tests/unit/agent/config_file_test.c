#include "agent/config_file.h"

#include <sys/types.h>

#include "agent/store/compress.h"
#include "tests/unit/agent/config_fixture.h"

static void config_file_sets_values_and_leaves_the_rest_at_default(void **state)
{
	struct config *config =
		load(write_file("t.conf", "cache {\n\tdefault_ttl_seconds = 1h\n\tkey_prefix = \"a.b\"\n}\n"
					  "agent { workers = 4 instance = 'x-1' }\n"),
		     NULL);

	(void)state;
	assert_int_equal(config->cache.default_ttl_seconds, 3600);
	assert_string_equal(config->cache.key_prefix, "a.b");
	assert_int_equal(config->agent.workers, 4);
	assert_string_equal(config->agent.instance, "x-1");
	assert_int_equal(config->redis.pool_size, 10);
	config_destroy(&config);
	assert_null(config);
}

static void config_file_counts_lines_behind_every_kind_of_comment(void **state)
{
	(void)state;
	check_error("# one\n// two\n/* three\n four */\ncache { # five\n\t/* six */ // six\n\tversion = v2 # seven\n"
		    "\tttl_jitter_percent = 51\n}\n",
		    ":8: cache.ttl_jitter_percent: \"51\" is too large; allowed is a number from 0 to 50");
	check_error("#\r\n#\r\ncache {\r\n  ttl_jitter_percent = x\r\n}\r\n",
		    ":4: cache.ttl_jitter_percent: \"x\" cannot be read; allowed is a number from 0 to 50");
}

static void config_file_keeps_comment_signs_inside_strings_and_words(void **state)
{
	struct config *config = load(write_file("t.conf", "redis { url = redis://host:1/2 } // url\n"
							  "agent { run_dir = \"/a#b//c/*d*/\" }\n"),
				     NULL);

	(void)state;
	assert_string_equal(config->redis.url, "redis://host:1/2");
	assert_string_equal(config->agent.run_dir, "/a#b//c/*d*/");
	config_destroy(&config);
}

static void config_file_names_the_brace_that_is_never_closed(void **state)
{
	(void)state;
	check_error("\n\ncache {\n\tversion = v2\n",
		    ":3: cache: the brace opened here is never closed; add a closing brace");
	check_error(
		"cache {\n\tversion = v2\n\nagent {\n}\n",
		":4: cache: a brace opens inside this section, which began at line 1; sections do not nest: is a closing "
		"brace missing?");
	check_error("cache {\n}\n}\n", ":3: this brace closes nothing; remove it");
	check_error("tenant \"a\" {\n users = {\"root\"\n",
		    ":2: tenant: the brace opened here is never closed; add a closing brace");
}

static void config_file_refuses_what_is_no_file(void **state)
{
	char expected[CONFIG_ERROR_MAX];

	(void)state;
	snprintf(expected, sizeof(expected), "%s:1: \"%s\" is a folder, not a file; name a file", folder, folder);
	assert_string_equal(load_error(folder, NULL), expected);
	assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
	snprintf(expected, sizeof(expected), "%s:1: \"%s\" is something else, not a file; name a file",
		 path_of("fifo"), path_of("fifo"));
	assert_string_equal(load_error(path_of("fifo"), NULL), expected);
	assert_non_null(strstr(load_error("/dev/null", NULL), "/dev/null:1: "));
}

static void config_file_may_be_absent_only_when_told_so(void **state)
{
	struct config_sources sources = {.file = path_of("none.conf"), .file_may_be_absent = true};
	struct config *config = NULL;
	char expected[CONFIG_ERROR_MAX];

	(void)state;
	assert_int_equal(config_load(&sources, &config, err, sizeof(err)), RSHM_OK);
	config_destroy(&config);
	snprintf(expected, sizeof(expected), "%s:1: \"%s\" cannot be opened: No such file or directory", sources.file,
		 sources.file);
	assert_string_equal(load_error(sources.file, NULL), expected);
}

static void config_file_refuses_bytes_that_are_no_text(void **state)
{
	static const char nul[] = "cache {\n\tversion = \"v\0002\"\n}\n";
	char expected[CONFIG_ERROR_MAX];
	const char *path = write_bytes("t.conf", nul, sizeof(nul) - 1);

	(void)state;
	snprintf(expected, sizeof(expected), "%s:2: a NUL byte; this is not a text file", path);
	assert_string_equal(load_error(path, NULL), expected);
	check_error("\n# \x1b[31m\n", ":2: the control character 0x1b; remove it");
}

static void config_file_refuses_more_than_a_mebibyte(void **state)
{
	size_t size = 2 << 20;
	char *big = malloc(size), expected[CONFIG_ERROR_MAX];
	const char *path;

	(void)state;
	assert_non_null(big);
	memset(big, '\n', size);
	path = write_bytes("t.conf", big, size);
	snprintf(expected, sizeof(expected), "%s:1: the file is larger than 1 MiB; split it into conf.d", path);
	assert_string_equal(load_error(path, NULL), expected);
	path = write_bytes("t.conf", big, CONFIG_FILE_MAX);
	struct config *config = load(path, NULL);
	config_destroy(&config);
	free(big);
}

static void config_file_refuses_octal_and_other_doubtful_numbers(void **state)
{
	(void)state;
	check_error("agent {\n\tworkers = 010\n}\n",
		    ":2: agent.workers: \"010\" cannot be read; allowed is a number from 1 to 64");
	check_error_begins("agent { workers = nan }", ":1: agent.workers: \"nan\" cannot be read; ");
	check_error_begins("agent { workers = 0x2 }", ":1: agent.workers: \"0x2\" cannot be read; ");
	check_error_begins("agent { workers = -1 }", ":1: agent.workers: \"-1\" cannot be read; ");
	check_error_begins("agent { workers = \" 1\" }", ":1: agent.workers: \" 1\" cannot be read; ");
	check_error_begins("agent { workers = \"\" }", ":1: agent.workers: \"\" cannot be read; ");
	check_error_begins("agent { workers = 18446744073709551617 }", ":1: agent.workers: ");
}

static void config_file_names_unknown_options_and_sections(void **state)
{
	(void)state;
	check_error("log {\n\tlevel = info\n\tcolour = red\n}\n",
		    ":3: log.colour: no such option; this section has level, format");
	check_error("\nlogs {\n\tlevel = info\n}\n", ":2: logs: no such section");
	check_error("level = info\n", ":1: level: stands in no section; write section { option = value }");
	check_error("tenant {\n}\n", ":1: tenant: has no name; write tenant \"name\" { ... }");
	check_error("cache \"x\" {\n}\n", ":1: cache: takes no name; write cache { ... }");
}

static void config_file_tells_what_is_wrong_with_the_grammar(void **state)
{
	(void)state;
	check_error("cache {\n version\n v2\n}\n", ":3: cache: missing equal sign after option 'version'");
	check_error("cache {\n version =\n}\n",
		    ":3: cache: a value is missing, or something stands where it cannot; write option = value");
	check_error("cache {\n version = \"v2\n}\n", ":2: this string is not closed on its line; end it with \"");
	check_error("cache {\n version = v2;\n}\n", ":2: the character ; must stand in quotes, or be left out");
	check_error("/* never\nclosed", ":1: this comment is never closed; end it with */");
	check_error("cache { version = \"\\x41\" }",
		    ":1: this escape is not known; allowed are \\\\, \\\", \\n, \\t");
	check_error_begins("agent {\n run_dir = '/a\\'\n}\ntenant \"x\" { users = {'1'} }\n",
			   ":2: a backslash in single quotes; ");
	check_error_begins("agent { run_dir = \"/a\\nb\" }\n",
			   ":1: agent.run_dir: \"/a\\nb\" has a control character; ");
	check_error_begins("include(\"a\\nb\")\n", ":1: include: ");
	check_error_begins("cache { version = \"${HOME}\" }", ":1: variables are not replaced in this file; ");
	check_error_begins("cache { version = ${HOME} }", ":1: variables are not replaced in this file; ");
	check_error_begins("cache { version = {a} }", ":1: cache: ");
	check_error_begins("tenant \"a\" { users = {{\"root\"}} }", ":1: tenant: a brace opens inside this section");
}

static void config_file_checks_values_that_a_later_one_replaces(void **state)
{
	(void)state;
	check_error_begins("agent {\n\tworkers = 99\n\tworkers = 2\n}\n", ":2: agent.workers: \"99\" is too large; ");
}

static void config_file_does_not_repeat_a_password(void **state)
{
	(void)state;
	check_error_begins("redis {\n url = \"redis://u:s3cret@host:99999\"\n}\n",
			   ":2: redis.url: has a port that is not a number");
	assert_null(strstr(err, "s3cret"));
	check_error_begins("redis {\n url = redis://u:x =s3cret/1@host\n}\n", ":2: redis");
	assert_null(strstr(err, "s3cret"));
}

static void config_file_includes_relative_to_itself_where_it_stands(void **state)
{
	const char *path;
	struct config *config;

	(void)state;
	assert_int_equal(mkdir(path_of("sub"), 0700), 0);
	write_file("sub/b.conf", "agent { workers = 3 spin_us = 3 }\ninclude('c.conf')\n");
	write_file("sub/c.conf", "agent { shutdown_timeout_seconds = 3 }\n");
	path = write_file("t.conf",
			  "agent { workers = 2 spin_us = 2 } include ( \"sub/b.conf\" ) agent { spin_us = 4 }\n");
	config = load(path, NULL);
	assert_int_equal(config->agent.workers, 3);
	assert_int_equal(config->agent.spin_us, 4);
	assert_int_equal(config->agent.shutdown_timeout_seconds, 3);
	config_destroy(&config);
}

static void config_file_keeps_line_numbers_around_includes(void **state)
{
	(void)state;
	write_file("b.conf", "\n\n");
	check_error(
		"# a\ninclude(\"b.conf\")\ncache {\n}\ninclude(\"b.conf\") cache {\n\tversion = \"a b\"\n}\n",
		":6: cache.version: \"a b\" has a character that keys cannot have; allowed is 1 to 32 characters of A-Z, "
		"a-z, 0-9 and _.-");
	char expected[CONFIG_ERROR_MAX];
	write_file("b.conf", "\n\nagent {\n\n workers = x }\n");
	const char *path = write_file("t.conf", "include(\"b.conf\")\n");
	snprintf(expected, sizeof(expected), "%s:5: agent.workers: ", path_of("b.conf"));
	load_error(path, NULL);
	assert_memory_equal(err, expected, strlen(expected));
}

static void config_file_ends_include_loops(void **state)
{
	char expected[CONFIG_ERROR_MAX];
	const char *path;

	(void)state;
	path = write_file("t.conf", "\ninclude(\"t.conf\")\n");
	snprintf(expected, sizeof(expected), "%s:2: include: \"%s\" includes itself; remove one of the includes",
		 path, path);
	assert_string_equal(load_error(path, NULL), expected);
	write_file("a.conf", "\n\ninclude(\"t.conf\")\n");
	write_file("t.conf", "include(\"a.conf\")\n");
	snprintf(expected, sizeof(expected), "%s:3: include: \"%s\" includes itself; remove one of the includes",
		 path_of("a.conf"), path);
	assert_string_equal(load_error(path, NULL), expected);
}

static void config_file_bounds_the_depth_of_includes(void **state)
{
	char name[32], text[64], expected[CONFIG_ERROR_MAX];

	(void)state;
	for (int i = 0; i < CONFIG_INCLUDE_DEPTH_MAX + 1; i++) {
		snprintf(name, sizeof(name), "%d.conf", i);
		snprintf(text, sizeof(text), "include(\"%d.conf\")\n", i + 1);
		write_file(name, text);
	}
	snprintf(expected, sizeof(expected), "%s/7.conf:1: include: deeper than 8 files; put them side by side",
		 folder);
	assert_string_equal(load_error(path_of("0.conf"), NULL), expected);
}

static void config_file_tells_which_include_is_missing(void **state)
{
	char rest[CONFIG_ERROR_MAX];

	(void)state;
	snprintf(rest, sizeof(rest), ":2: include: \"%s/none.conf\" is not there; correct the path", folder);
	check_error("\ninclude(\"none.conf\")\n", rest);
	snprintf(rest, sizeof(rest), ":1: \"%s/.\" is a folder, not a file; name a file", folder);
	check_error("include(\".\")\n", rest);
	check_error_begins("include(none.conf)\n", ":1: include: the path must be a string");
	check_error_begins("cache { include(\"x\") }\n", ":1: cache: an include must stand outside of sections");
	struct config *config = load(write_file("t.conf", "include(\"none-*.conf\")\n"), NULL);
	config_destroy(&config);
}

static void config_file_reads_conf_d_in_the_order_of_names(void **state)
{
	struct config *config;
	char *text;

	(void)state;
	assert_int_equal(mkdir(path_of("conf.d"), 0700), 0);
	write_file("conf.d/20-b.conf", "agent { workers = 20 }\n");
	write_file("conf.d/10-a.conf", "agent { workers = 10 spin_us = 10 }\n");
	write_file("conf.d/30-c.txt", "agent { workers = 30 }\n");
	config = load(write_file("t.conf", "agent { workers = 1 spin_us = 1 instance = t }\n"), NULL);
	assert_int_equal(config->agent.workers, 20);
	assert_int_equal(config->agent.spin_us, 10);
	assert_string_equal(config->agent.instance, "t");
	text = printed(config);
	assert_non_null(strstr(text, "conf.d/20-b.conf:1\n"));
	free(text);
	config_destroy(&config);
}

static void config_file_does_not_read_an_included_conf_d_twice(void **state)
{
	struct config *config;

	(void)state;
	assert_int_equal(mkdir(path_of("conf.d"), 0700), 0);
	write_file("conf.d/a.conf", "tenant \"a\" { users = {\"root\"} }\n");
	config = load(write_file("t.conf", "include(\"conf.d/*.conf\")\nagent { workers = 2 }\n"), NULL);
	assert_int_equal(config->tenants_count, 2);
	config_destroy(&config);
}

static void config_file_bounds_words_and_nesting(void **state)
{
	size_t size = 600000;
	char *text = malloc(size + 1);

	(void)state;
	assert_non_null(text);
	for (size_t i = 0; i + 2 <= size; i += 2)
		memcpy(text + i, "a{", 2);
	text[size] = '\0';
	check_error_begins(text, ":1: a: a brace opens inside this section");
	memset(text, 'a', size);
	check_error(text, ":1: this word is longer than 4096 bytes");
	memset(text, '{', size);
	check_error_begins(text, ":1: this brace opens no section");
	text[0] = '"';
	check_error(text, ":1: this string is not closed on its line; end it with \"");
	free(text);
}

/* ---- mutations ---- */

static uint64_t random_state;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static size_t mutate(char *text, size_t length, size_t room)
{
	static const char *const pieces[] = {"{",
					     "}",
					     "\"",
					     "'",
					     "=",
					     "+=",
					     ",",
					     "(",
					     ")",
					     "#",
					     "//",
					     "/*",
					     "*/",
					     "\\",
					     "${",
					     "\n",
					     "include(\"t.conf\")",
					     "tenant \"a\" {",
					     "users = {",
					     "010",
					     "nan",
					     "\xff",
					     "\r"};
	size_t at = random_next() % (length + 1), count;

	switch (random_next() % 4) {
	case 0:
		if (at < length)
			text[at] = (char)random_next();
		return length;
	case 1:
		count = random_next() % 40;
		count = count > length - at ? length - at : count;
		memmove(text + at, text + at + count, length - at - count);
		return length - count;
	case 2: {
		const char *piece = pieces[random_next() % (sizeof(pieces) / sizeof(pieces[0]))];

		count = strlen(piece);
		if (length + count > room)
			return length;
		memmove(text + at + count, text + at, length - at);
		memcpy(text + at, piece, count);
		return length + count;
	}
	default:
		count = random_next() % 200;
		count = count > length - at ? length - at : count;
		if (length + count > room)
			return length;
		memmove(text + at + count, text + at, length - at);
		return length + count;
	}
}

/* What a build without compression refuses in the shipped file, in as many bytes. */
static void do_without_compression(char *text)
{
	static const char lz4[] = "compression_algorithm = lz4", none[] = "compression_algorithm =none";
	char *line = strstr(text, lz4);

	assert_non_null(line);
	memcpy(line, none, strlen(lz4));
}

static void config_file_survives_mutations_of_the_shipped_file(void **state)
{
	size_t length, accepted = 0, room = 40000;
	char *original = read_whole(SHIPPED_FILE, &length), *text = malloc(room);
	struct config *config = NULL;
	const char *path = path_of("t.conf");
	struct config_sources sources = {.file = path};

	(void)state;
	assert_non_null(text);
	assert_true(length < room);
	uncomment(original);
	if (!RIPTIDE_COMPRESSION)
		do_without_compression(original);
	random_state = 0x9e3779b97f4a7c15u;
	for (int i = 0; i < 20000; i++) {
		size_t size = length;

		memcpy(text, original, length);
		for (uint64_t n = 1 + random_next() % 3; n > 0; n--)
			size = mutate(text, size, room);
		write_bytes("t.conf", text, size);
		if (config_load(&sources, &config, err, sizeof(err)) == RSHM_OK) {
			accepted++;
			config_destroy(&config);
		} else {
			/* Every refusal names a place in a file that we know, on one line. */
			assert_memory_equal(err, folder, strlen(folder));
			assert_null(strchr(err, '\n'));
		}
	}
	/* Many mutations fall into comments: if none passed, or all, nothing was tried. */
	assert_in_range(accepted, 1000, 19000);
	free(text);
	free(original);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		folder_test(config_file_sets_values_and_leaves_the_rest_at_default),
		folder_test(config_file_counts_lines_behind_every_kind_of_comment),
		folder_test(config_file_keeps_comment_signs_inside_strings_and_words),
		folder_test(config_file_names_the_brace_that_is_never_closed),
		folder_test(config_file_refuses_what_is_no_file),
		folder_test(config_file_may_be_absent_only_when_told_so),
		folder_test(config_file_refuses_bytes_that_are_no_text),
		folder_test(config_file_refuses_more_than_a_mebibyte),
		folder_test(config_file_refuses_octal_and_other_doubtful_numbers),
		folder_test(config_file_names_unknown_options_and_sections),
		folder_test(config_file_tells_what_is_wrong_with_the_grammar),
		folder_test(config_file_checks_values_that_a_later_one_replaces),
		folder_test(config_file_does_not_repeat_a_password),
		folder_test(config_file_includes_relative_to_itself_where_it_stands),
		folder_test(config_file_keeps_line_numbers_around_includes),
		folder_test(config_file_ends_include_loops),
		folder_test(config_file_bounds_the_depth_of_includes),
		folder_test(config_file_tells_which_include_is_missing),
		folder_test(config_file_reads_conf_d_in_the_order_of_names),
		folder_test(config_file_does_not_read_an_included_conf_d_twice),
		folder_test(config_file_bounds_words_and_nesting),
		folder_test(config_file_survives_mutations_of_the_shipped_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
