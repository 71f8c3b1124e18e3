/* audit_test.c - lines that are whole, bounded, kept as long as they should be, and never missing without a word. */
#include "agent/control/audit.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/log.h"
#include "agent/control/audit_limit.h"
#include "shm/msg.h"

#define DAY_MS 86400000ull
#define NOON 1714564800000ull /* 2024-05-01 12:00 UTC */

struct fixture {
	char parent[64], folder[80];
	struct audit *audit;
};

static void open_audit(struct fixture *f, uint32_t retention_days, uint64_t wall_ms)
{
	struct audit_options options = {.folder = f->folder, .retention_days = retention_days};
	char error[512] = "";

	if (audit_open(&options, wall_ms, &f->audit, error, sizeof(error)) != RSHM_OK)
		fail_msg("%s", error);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	strcpy(f->parent, "/tmp/riptide-audit-XXXXXX");
	if (!mkdtemp(f->parent))
		return -1;
	snprintf(f->folder, sizeof(f->folder), "%s/audit", f->parent);
	log_setup(LOG_FORMAT_TEXT, LOG_LEVEL_ERROR);
	open_audit(f, 30, NOON);
	*state = f;
	return 0;
}

static void in_folder(const struct fixture *f, const char *name, char path[160])
{
	snprintf(path, 160, "%s/%s", f->folder, name);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	DIR *folder = opendir(f->folder);
	const struct dirent *entry;
	char path[160];

	audit_close(&f->audit, NOON);
	while (folder && (entry = readdir(folder)) != NULL)
		if (entry->d_name[0] != '.' && strlen(entry->d_name) < 64) {
			snprintf(path, sizeof(path), "%s/%.63s", f->folder, entry->d_name);
			unlink(path);
		}
	if (folder)
		closedir(folder);
	rmdir(f->folder);
	if (rmdir(f->parent) != 0)
		return -1;
	free(f);
	return 0;
}

static void write_plain(struct fixture *f, uint64_t wall_ms, const char *what)
{
	struct audit_event event = {.wall_ms = wall_ms, .uid = 33, .gid = 34, .pid = 35, .what = what};

	audit_write(f->audit, &event);
}

static size_t content(const struct fixture *f, const char *name, char *to, size_t size)
{
	char path[160];
	ssize_t n;
	int fd;

	in_folder(f, name, path);
	fd = open(path, O_RDONLY);
	n = fd < 0 ? 0 : read(fd, to, size - 1);
	if (fd >= 0)
		close(fd);
	to[n > 0 ? n : 0] = '\0';
	return n > 0 ? (size_t)n : 0;
}

static json_t *only_line(const struct fixture *f, const char *name)
{
	char text[16384];
	size_t length = content(f, name, text, sizeof(text));
	json_t *line = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

	assert_true(length > 0 && text[length - 1] == '\n' && strchr(text, '\n') == text + length - 1);
	assert_non_null(line);
	return line;
}

static bool is_there(const struct fixture *f, const char *name)
{
	char path[160];

	in_folder(f, name, path);
	return access(path, F_OK) == 0;
}

static struct audit_figures figures(const struct fixture *f)
{
	struct audit_figures figures;

	audit_figures(f->audit, &figures);
	return figures;
}

/* ---- lines -------------------------------------------------------------------------------------------------- */

static void a_line_says_who_did_what_to_what_with_what_result(void **state)
{
	struct fixture *f = *state;
	struct audit_event event = {
		.wall_ms = NOON + 7,
		.uid = 33,
		.gid = 34,
		.pid = 35,
		.role = "admin",
		.what = "dict drop",
		.tenant = "shop",
		.on = "dictionary 7",
		.detail = "no such dictionary",
		.status = RSHM_E_INVALID,
	};
	char path[160];
	struct stat st;
	json_t *line, *wanted;

	audit_write(f->audit, &event);
	line = only_line(f, "audit-2024-05-01.jsonl");
	wanted = json_pack("{s:s s:i s:i s:i s:s s:s s:s s:s s:s s:i s:s}", "time", "2024-05-01T12:00:00.007Z", "uid",
			   33, "gid", 34, "pid", 35, "role", "admin", "what", "dict drop", "tenant", "shop", "on",
			   "dictionary 7", "result", "invalid", "status", -1, "detail", "no such dictionary");
	assert_true(json_equal(line, wanted));
	json_decref(line);
	json_decref(wanted);
	in_folder(f, "audit-2024-05-01.jsonl", path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(f->folder, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static void an_event_of_nobody_names_no_user(void **state)
{
	struct fixture *f = *state;
	json_t *line;

	audit_write(f->audit, &(struct audit_event){.wall_ms = NOON, .by_nobody = true, .what = "reload"});
	line = only_line(f, "audit-2024-05-01.jsonl");
	assert_null(json_object_get(line, "uid"));
	assert_null(json_object_get(line, "tenant"));
	assert_string_equal(json_string_value(json_object_get(line, "result")), "ok");
	json_decref(line);
}

static void what_a_peer_sends_cannot_fake_a_line_or_a_member(void **state)
{
	struct fixture *f = *state;
	struct audit_event event = {
		.wall_ms = NOON,
		.what = "attach",
		.tenant = "a\",\"uid\":0}\n{\"what\":\"reload\"}\n",
		.on = "\xff\xfe\x01\x7f\xc2\x9b\\",
	};
	json_t *line;

	audit_write(f->audit, &event);
	line = only_line(f, "audit-2024-05-01.jsonl");
	assert_string_equal(json_string_value(json_object_get(line, "tenant")), event.tenant);
	assert_string_equal(json_string_value(json_object_get(line, "on")),
			    "\xef\xbf\xbd\xef\xbf\xbd\x01\x7f\xc2\x9b\\");
	json_decref(line);
}

static void the_longest_texts_are_cut_and_still_one_line(void **state)
{
	static char long_text[4096], wide_text[4096];
	struct fixture *f = *state;
	struct audit_event event = {
		.wall_ms = NOON,
		.uid = UINT32_MAX,
		.gid = UINT32_MAX,
		.pid = INT32_MIN,
		.role = long_text,
		.what = long_text,
		.tenant = long_text,
		.on = wide_text,
		.detail = long_text,
		.status = -9999,
	};
	json_t *line;

	memset(long_text, 1, sizeof(long_text) - 1);
	for (size_t i = 0; i + 3 < sizeof(wide_text); i += 3)
		memcpy(wide_text + i, "\xe2\x82\xac", 3);
	audit_write(f->audit, &event);
	line = only_line(f, "audit-2024-05-01.jsonl");
	assert_int_equal(json_string_length(json_object_get(line, "tenant")), 64);
	assert_int_equal(json_string_length(json_object_get(line, "detail")), 512);
	/* 42 whole characters of three bytes fit into 128. */
	assert_int_equal(json_string_length(json_object_get(line, "on")), 126);
	json_decref(line);
}

/* ---- days --------------------------------------------------------------------------------------------------- */

static void each_day_has_a_file_and_old_ones_go(void **state)
{
	struct fixture *f = *state;
	char path[160];

	audit_close(&f->audit, NOON);
	open_audit(f, 2, NOON);
	for (unsigned int day = 0; day < 3; day++)
		write_plain(f, NOON + day * DAY_MS, "x");
	in_folder(f, "audit-2020-02-30.jsonl", path); /* no day, so not ours */
	close(open(path, O_WRONLY | O_CREAT, 0600));
	in_folder(f, "audit-2020-01-01.jsonl.gz", path);
	close(open(path, O_WRONLY | O_CREAT, 0600));
	audit_tick(f->audit, NOON + 2 * DAY_MS);
	assert_true(is_there(f, "audit-2024-05-01.jsonl"));
	audit_tick(f->audit, NOON + 3 * DAY_MS);
	assert_false(is_there(f, "audit-2024-05-01.jsonl"));
	assert_true(is_there(f, "audit-2024-05-02.jsonl"));
	assert_true(is_there(f, "audit-2024-05-03.jsonl"));
	assert_true(is_there(f, "audit-2020-02-30.jsonl"));
	assert_true(is_there(f, "audit-2020-01-01.jsonl.gz"));
	/* At start likewise. */
	audit_close(&f->audit, NOON);
	open_audit(f, 2, NOON + 4 * DAY_MS);
	assert_false(is_there(f, "audit-2024-05-02.jsonl"));
	assert_true(is_there(f, "audit-2024-05-03.jsonl"));
}

static void a_clock_that_is_set_back_goes_on_in_the_file_of_that_day(void **state)
{
	struct fixture *f = *state;
	char text[4096];

	write_plain(f, NOON, "first");
	write_plain(f, NOON + DAY_MS, "second");
	write_plain(f, NOON + 1, "third");
	(void)content(f, "audit-2024-05-01.jsonl", text, sizeof(text));
	assert_non_null(strstr(text, "first"));
	assert_non_null(strstr(text, "third"));
	assert_null(strstr(text, "second"));
}

/* ---- what goes wrong ---------------------------------------------------------------------------------------- */

static void let_files_grow_to(rlim_t bytes)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void lines_that_do_not_fit_are_counted_and_told_by_the_next(void **state)
{
	struct fixture *f = *state;
	struct audit_figures now;
	char *tail, text[4096];
	json_t *document, *events, *last;

	signal(SIGXFSZ, SIG_IGN);
	write_plain(f, NOON, "before");
	let_files_grow_to(content(f, "audit-2024-05-01.jsonl", text, sizeof(text)) + 10);
	for (int i = 0; i < 3; i++)
		write_plain(f, NOON, "lost");
	now = figures(f);
	let_files_grow_to(RLIM_INFINITY);
	assert_int_equal(now.written, 1);
	assert_int_equal(now.lost, 3);
	write_plain(f, NOON, "after");
	write_plain(f, NOON, "later");
	assert_int_equal(audit_tail(f->audit, 10, 65536, &tail), RSHM_OK);
	document = json_loads(tail, 0, NULL);
	free(tail);
	events = json_object_get(document, "events");
	assert_int_equal(json_array_size(events), 3);
	last = json_array_get(events, 1);
	assert_string_equal(json_string_value(json_object_get(last, "what")), "after");
	assert_int_equal(json_integer_value(json_object_get(last, "lost")), 3);
	assert_null(json_object_get(json_array_get(events, 2), "lost"));
	assert_int_equal(json_integer_value(json_object_get(document, "unreadable")), 1);
	assert_int_equal(json_integer_value(json_object_get(document, "lost")), 3);
	json_decref(document);
	signal(SIGXFSZ, SIG_DFL);
}

static void a_line_that_a_predecessor_did_not_end_stays_alone(void **state)
{
	struct fixture *f = *state;
	char path[160], text[4096];
	int fd;

	in_folder(f, "audit-2024-05-01.jsonl", path);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, "{\"time\"", 7), 7);
	close(fd);
	write_plain(f, NOON, "next");
	(void)content(f, "audit-2024-05-01.jsonl", text, sizeof(text));
	assert_int_equal(strncmp(text, "{\"time\"\n{\"time\":\"2024", 21), 0);
}

static void a_file_removed_under_our_hands_is_made_again(void **state)
{
	struct fixture *f = *state;
	char path[160];

	write_plain(f, NOON, "first");
	in_folder(f, "audit-2024-05-01.jsonl", path);
	assert_int_equal(unlink(path), 0);
	write_plain(f, NOON, "second");
	json_decref(only_line(f, "audit-2024-05-01.jsonl"));
	assert_int_equal(figures(f).lost, 0);
}

static void a_link_in_place_of_the_file_is_not_followed(void **state)
{
	struct fixture *f = *state;
	char path[160], target[160];

	in_folder(f, "audit-2024-05-01.jsonl", path);
	in_folder(f, "target", target);
	assert_int_equal(symlink(target, path), 0);
	write_plain(f, NOON, "first");
	assert_false(is_there(f, "target"));
	assert_int_equal(figures(f).lost, 1);
	assert_int_equal(unlink(path), 0);
	write_plain(f, NOON, "second");
	assert_int_equal(figures(f).written, 1);
}

static void a_folder_that_others_may_write_to_is_refused(void **state)
{
	struct fixture *f = *state;
	struct audit_options options = {.folder = f->folder, .retention_days = 1};
	struct audit *none = NULL;
	char error[512] = "";

	assert_int_equal(chmod(f->folder, 0770), 0);
	assert_int_equal(audit_open(&options, NOON, &none, error, sizeof(error)), RSHM_E_DENIED);
	assert_null(none);
	assert_non_null(strstr(error, "0770"));
	options.folder = "/nonexistent/audit";
	assert_int_equal(audit_open(&options, NOON, &none, error, sizeof(error)), RSHM_E_SYSTEM);
	assert_null(none);
}

/* ---- bounds ------------------------------------------------------------------------------------------------- */

static void a_flood_of_one_user_becomes_a_summary_and_leaves_others_alone(void **state)
{
	struct fixture *f = *state;
	struct audit_event event = {
		.wall_ms = NOON, .limited = true, .uid = 7, .what = "attach", .status = RSHM_E_NOTENANT};
	struct audit_figures now;
	char *tail;
	json_t *document, *last;

	for (int i = 0; i < 1000; i++)
		audit_write(f->audit, &event);
	now = figures(f);
	/* 40 at once, and 2 for each second that this took. */
	assert_in_range(now.written, 40, 100);
	assert_int_equal(now.written + now.suppressed, 1000);
	event.uid = 8;
	audit_write(f->audit, &event);
	event.uid = 7;
	event.limited = false;
	audit_write(f->audit, &event);
	assert_int_equal(figures(f).written, now.written + 2);
	audit_close(&f->audit, NOON);
	open_audit(f, 30, NOON);
	assert_int_equal(audit_tail(f->audit, 1, 65536, &tail), RSHM_OK);
	document = json_loads(tail, 0, NULL);
	free(tail);
	last = json_array_get(json_object_get(document, "events"), 0);
	assert_string_equal(json_string_value(json_object_get(last, "what")), "suppressed");
	assert_int_equal(json_integer_value(json_object_get(last, "uid")), 7);
	assert_int_equal(json_integer_value(json_object_get(last, "refused")), now.suppressed);
	assert_int_equal(json_integer_value(json_object_get(last, "accepted")), 0);
	json_decref(document);
}

static void a_user_gets_its_lines_back_with_time(void **state)
{
	struct audit_limit limit = {0};
	struct audit_suppressed s;
	uint64_t now_ms = 1000000;
	int admitted = 0;

	(void)state;
	for (int i = 0; i < 50; i++)
		admitted += audit_limit_admit(&limit, 7, true, now_ms);
	assert_int_equal(admitted, 40);
	assert_false(audit_limit_take(&limit, false, now_ms + AUDIT_LIMIT_SUMMARY_MS - 1, &s));
	assert_true(audit_limit_take(&limit, false, now_ms + AUDIT_LIMIT_SUMMARY_MS, &s));
	assert_int_equal(s.refused, 10);
	assert_int_equal(s.uid, 7);
	assert_int_equal(s.over_ms, AUDIT_LIMIT_SUMMARY_MS);
	assert_false(audit_limit_take(&limit, true, now_ms, &s));
	assert_true(audit_limit_admit(&limit, 7, true, now_ms + 500));
	assert_false(audit_limit_admit(&limit, 7, true, now_ms + 500));
	/* What is accepted costs less. */
	for (admitted = 0; audit_limit_admit(&limit, 8, false, now_ms);)
		admitted++;
	assert_int_equal(admitted, 400);
}

static void any_number_of_users_causes_a_bounded_number_of_lines(void **state)
{
	struct audit_limit limit = {0};
	struct audit_suppressed s;
	uint64_t now_ms = 1000000, admitted = 0, summed_up = 0, summaries = 0;

	(void)state;
	for (uid_t uid = 0; uid < 65536; uid++)
		admitted += audit_limit_admit(&limit, uid, true, now_ms);
	assert_int_equal(admitted, AUDIT_LIMIT_USERS + 40);
	while (audit_limit_take(&limit, true, now_ms, &s)) {
		summed_up += s.refused;
		summaries++;
		assert_true(s.several);
	}
	assert_int_equal(summaries, 1);
	assert_int_equal(admitted + summed_up, 65536);
	/* Places come back. */
	assert_true(audit_limit_admit(&limit, 70000, true, now_ms + AUDIT_LIMIT_BURST_MS));
	assert_false(audit_limit_take(&limit, true, now_ms, &s));
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

static void expect_tail(const struct fixture *f, uint32_t count, size_t bytes_max, size_t wanted, const char *first)
{
	char *text;
	json_t *document, *events;

	assert_int_equal(audit_tail(f->audit, count, bytes_max, &text), RSHM_OK);
	document = json_loads(text, 0, NULL);
	free(text);
	events = json_object_get(document, "events");
	assert_int_equal(json_array_size(events), wanted);
	assert_int_equal(json_integer_value(json_object_get(document, "unreadable")), 0);
	if (wanted > 0)
		assert_string_equal(json_string_value(json_object_get(json_array_get(events, 0), "what")), first);
	json_decref(document);
}

static void the_tail_reaches_back_over_days_and_keeps_to_its_bounds(void **state)
{
	struct fixture *f = *state;
	char text[4096];
	size_t line;

	expect_tail(f, 20, 65536, 0, NULL);
	write_plain(f, NOON, "a");
	line = content(f, "audit-2024-05-01.jsonl", text, sizeof(text));
	write_plain(f, NOON, "b");
	write_plain(f, NOON + DAY_MS, "c");
	write_plain(f, NOON + DAY_MS, "d");
	expect_tail(f, 20, 65536, 4, "a");
	expect_tail(f, 3, 65536, 3, "b");
	expect_tail(f, 1, 65536, 1, "d");
	/* Whole lines only. */
	expect_tail(f, 20, line, 0, NULL);
	expect_tail(f, 20, line + 1, 1, "d");
	expect_tail(f, 20, 2 * line, 2, "c");
	expect_tail(f, 20, 3 * line + line / 2, 3, "b");
}

/* Children write at the same time; no line is mixed with another. */
static void lines_of_several_processes_never_mix(void **state)
{
	struct fixture *f = *state;
	pid_t children[4];
	char *text;
	json_t *document;

	for (int c = 0; c < 4; c++) {
		children[c] = fork();
		if (children[c] == 0) {
			for (int i = 0; i < 100; i++)
				write_plain(f, NOON, "line");
			_exit(figures(f).lost == 0 ? 0 : 1);
		}
	}
	for (int c = 0; c < 4; c++) {
		int status;

		assert_int_equal(waitpid(children[c], &status, 0), children[c]);
		assert_int_equal(status, 0);
	}
	assert_int_equal(audit_tail(f->audit, 1000, 1u << 20, &text), RSHM_OK);
	document = json_loads(text, 0, NULL);
	free(text);
	assert_int_equal(json_array_size(json_object_get(document, "events")), 400);
	assert_int_equal(json_integer_value(json_object_get(document, "unreadable")), 0);
	json_decref(document);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FOLDER(a_line_says_who_did_what_to_what_with_what_result),
		WITH_FOLDER(an_event_of_nobody_names_no_user),
		WITH_FOLDER(what_a_peer_sends_cannot_fake_a_line_or_a_member),
		WITH_FOLDER(the_longest_texts_are_cut_and_still_one_line),
		WITH_FOLDER(each_day_has_a_file_and_old_ones_go),
		WITH_FOLDER(a_clock_that_is_set_back_goes_on_in_the_file_of_that_day),
		WITH_FOLDER(lines_that_do_not_fit_are_counted_and_told_by_the_next),
		WITH_FOLDER(a_line_that_a_predecessor_did_not_end_stays_alone),
		WITH_FOLDER(a_file_removed_under_our_hands_is_made_again),
		WITH_FOLDER(a_link_in_place_of_the_file_is_not_followed),
		WITH_FOLDER(a_folder_that_others_may_write_to_is_refused),
		WITH_FOLDER(a_flood_of_one_user_becomes_a_summary_and_leaves_others_alone),
		cmocka_unit_test(a_user_gets_its_lines_back_with_time),
		cmocka_unit_test(any_number_of_users_causes_a_bounded_number_of_lines),
		WITH_FOLDER(the_tail_reaches_back_over_days_and_keeps_to_its_bounds),
		WITH_FOLDER(lines_of_several_processes_never_mix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
