#include "agent/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* Each test writes to a memory file that stands in for stderr; what arrived is read back afterwards. */
static int capture_saved, capture_file;

static int capture_begin(void **state)
{
	(void)state;
	capture_file = memfd_create("log", MFD_CLOEXEC);
	capture_saved = dup(STDERR_FILENO);
	if (capture_file < 0 || capture_saved < 0 || dup2(capture_file, STDERR_FILENO) < 0)
		return -1;
	log_setup(LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
	return 0;
}

static int capture_end(void **state)
{
	(void)state;
	dup2(capture_saved, STDERR_FILENO);
	close(capture_saved);
	close(capture_file);
	return 0;
}

static const char *captured(void)
{
	static char bytes[1 << 20];
	ssize_t length = pread(capture_file, bytes, sizeof(bytes) - 1, 0);

	assert_true(length >= 0);
	bytes[length] = '\0';
	return bytes;
}

static size_t count_lines(const char *text)
{
	size_t lines = 0;

	for (; *text != '\0'; text++)
		lines += *text == '\n';
	return lines;
}

static void log_writes_one_text_line_with_time_level_and_module(void **state)
{
	unsigned year, month, day, hour, minute, second, ms;
	int end = 0;

	(void)state;
	log_warn("store", "disk %d%% full", 93);
	assert_int_equal(sscanf(captured(), "%4u-%2u-%2uT%2u:%2u:%2u.%3uZ warn  store: %n", &year, &month, &day,
				&hour, &minute, &second, &ms, &end),
			 7);
	assert_true(end > 0);
	assert_string_equal(captured() + end, "disk 93% full\n");
}

static void log_writes_json_lines(void **state)
{
	(void)state;
	log_setup(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
	log_error("control", "peer said \"%s\"", "a\nb\xff");
	assert_true(strncmp(captured(), "{\"time\":\"2", 10) == 0);
	assert_non_null(strstr(captured(), "\"level\":\"error\",\"module\":\"control\","
					   "\"message\":\"peer said \\\"a\\nb\\ufffd\\\"\"}\n"));
	assert_int_equal(count_lines(captured()), 1);
}

static void log_escapes_what_would_fake_a_line(void **state)
{
	(void)state;
	log_info("control", "name %s", "x\n2026-01-01T00:00:00.000Z error store: all lost\x1b[2J");
	assert_int_equal(count_lines(captured()), 1);
	assert_null(strchr(captured(), '\x1b'));
	assert_non_null(strstr(captured(), "x\\n2026"));
}

static void log_level_changes_take_effect_at_once(void **state)
{
	int evaluated = 0;

	(void)state;
	log_debug("a", "hidden %d", ++evaluated);
	assert_int_equal(evaluated, 0);
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("a", "shown %d", ++evaluated);
	log_set_level(LOG_LEVEL_ERROR);
	log_warn("a", "hidden %d", ++evaluated);
	log_write(LOG_LEVEL_INFO, "a", "hidden too");
	assert_int_equal(count_lines(captured()), 1);
	assert_non_null(strstr(captured(), "shown 1"));
	assert_false(log_enabled(LOG_LEVEL_WARN));
}

static void log_cuts_long_lines_and_says_so(void **state)
{
	char long_text[20000], escapes[20000];

	(void)state;
	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	memset(escapes, '\x01', sizeof(escapes) - 1);
	escapes[sizeof(escapes) - 1] = '\0';
	log_info("a", "%s", long_text);
	log_info("a", "%s", escapes);
	assert_int_equal(count_lines(captured()), 2);
	assert_true(strlen(captured()) <= 2 * 4096);
	assert_non_null(strstr(captured(), "[cut]\n"));
	assert_int_equal(strcmp(captured() + strlen(captured()) - 6, "[cut]\n"), 0);
}

static void log_json_stays_closed_when_cut(void **state)
{
	char escapes[8000];

	(void)state;
	memset(escapes, '\x01', sizeof(escapes) - 1);
	escapes[sizeof(escapes) - 1] = '\0';
	log_setup(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
	log_info("a", "%s", escapes);
	assert_string_equal(captured() + strlen(captured()) - 10, "1 [cut]\"}\n");
}

static void log_limited_counts_what_it_suppressed(void **state)
{
	static struct log_limit limit = LOG_LIMIT(3, 100);
	struct timespec pause = {.tv_nsec = 150 * 1000 * 1000};
	size_t first;

	(void)state;
	/* The burst may straddle two intervals, which doubles what may pass. */
	for (int i = 0; i < 50; i++)
		log_limited(&limit, LOG_LEVEL_WARN, "a", "burst");
	first = count_lines(captured());
	assert_in_range(first, 3, 6);
	assert_int_equal(limit.suppressed <= 47 && limit.suppressed >= 1, 1);
	assert_int_equal(nanosleep(&pause, NULL), 0);
	uint64_t pending = limit.suppressed;
	char expected[64];
	log_limited(&limit, LOG_LEVEL_WARN, "a", "later");
	snprintf(expected, sizeof(expected), "later (%" PRIu64 " like it suppressed)\n", pending);
	assert_non_null(strstr(captured(), expected));
	assert_int_equal(limit.suppressed, 0);
}

static void *log_many(void *argument)
{
	for (int i = 0; i < 500; i++)
		log_info("thread", "%s line %d", (const char *)argument, i);
	return NULL;
}

static void log_lines_of_threads_do_not_mix(void **state)
{
	char names[4][40] = {"aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc", "dddddddddddddddd"};
	pthread_t threads[4];
	char *line, *rest;
	size_t lines = 0;

	(void)state;
	assert_true(fcntl(capture_file, F_SETFL, O_APPEND) == 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, log_many, names[i]), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	char *copy = strdup(captured());
	for (line = strtok_r(copy, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
		char name[32];
		int number;

		assert_int_equal(sscanf(line, "%*s info thread: %16[a-d] line %d", name, &number), 2);
		assert_int_equal(strspn(name, (char[]){name[0], 0}), 16);
		lines++;
	}
	free(copy);
	assert_int_equal(lines, 2000);
}

static void log_counts_lines_that_would_block(void **state)
{
	uint64_t lost = log_lost();
	int pipes[2];

	(void)state;
	assert_int_equal(pipe2(pipes, O_NONBLOCK), 0);
	assert_true(dup2(pipes[1], STDERR_FILENO) >= 0);
	for (int i = 0; i < 5000; i++)
		log_info("a", "filling a pipe that nobody reads, line %d", i);
	assert_true(dup2(capture_file, STDERR_FILENO) >= 0);
	assert_true(log_lost() > lost);
	close(pipes[0]);
	close(pipes[1]);
}

static void log_ignores_a_journal_that_is_not_our_stderr(void **state)
{
	(void)state;
	assert_int_equal(setenv("JOURNAL_STREAM", "9:12345678", 1), 0);
	log_setup(LOG_FORMAT_AUTO, LOG_LEVEL_INFO);
	log_info("a", "goes to stderr");
	assert_non_null(strstr(captured(), "goes to stderr\n"));
	unsetenv("JOURNAL_STREAM");
}

static void log_keeps_errno(void **state)
{
	(void)state;
	errno = ENOSPC;
	log_info("a", "does it?");
	assert_int_equal(errno, ENOSPC);
}

#define captured_test(f) cmocka_unit_test_setup_teardown(f, capture_begin, capture_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		captured_test(log_writes_one_text_line_with_time_level_and_module),
		captured_test(log_writes_json_lines),
		captured_test(log_escapes_what_would_fake_a_line),
		captured_test(log_level_changes_take_effect_at_once),
		captured_test(log_cuts_long_lines_and_says_so),
		captured_test(log_json_stays_closed_when_cut),
		captured_test(log_limited_counts_what_it_suppressed),
		captured_test(log_lines_of_threads_do_not_mix),
		captured_test(log_counts_lines_that_would_block),
		captured_test(log_ignores_a_journal_that_is_not_our_stderr),
		captured_test(log_keeps_errno),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
