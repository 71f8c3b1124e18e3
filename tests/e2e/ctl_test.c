/*
 * ctl_test.c - riptidectl against a real agent and against a hostile one: what it prints, and the status it ends with. What it
 * does on a terminal, and top, are in ctl_top_test.c.
 */
#include "tests/e2e/ctl_fixture.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "shm/tlv.h"

/* ---- data --------------------------------------------------------------------------------------------------- */

static void ping_measures_round_trips(void **state)
{
	json_t *d;

	(void)state;
	assert_int_equal(ctl("ping", "-c", "20"), 0);
	assert_says(run.out, "20 round trips: min ");
	assert_int_equal(ctl("ping", "-c5", "--json"), 0);
	d = json_of(run.out);
	assert_int_equal(member(d, "round_trips"), 5);
	assert_true(member(d, "min_ns") > 0);
	assert_true(member(d, "min_ns") <= member(d, "p50_ns") && member(d, "p50_ns") <= member(d, "max_ns"));
	json_decref(d);
}

static void get_returns_the_bytes_that_set_read(void **state)
{
	unsigned char bytes[4096];
	char path[128];

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 7 + i / 256);
	path_in(path, sizeof(path), "value");
	write_file(path, bytes, sizeof(bytes));
	assert_int_equal(ctl("set", "from-file", "--file", path), 0);
	assert_int_equal(ctl("get", "from-file"), 0);
	assert_int_equal(run.out_length, sizeof(bytes));
	assert_memory_equal(run.out, bytes, sizeof(bytes));
	ctl_begin(path, NULL, (const char *const[]){"set", "from-stdin", "-", NULL});
	assert_int_equal(ctl_end(), 0);
	assert_int_equal(ctl("get", "--raw", "from-stdin"), 0);
	assert_memory_equal(run.out, bytes, sizeof(bytes));
	assert_int_equal(ctl("set", "empty", ""), 0);
	assert_int_equal(ctl("get", "empty"), 0);
	assert_int_equal(run.out_length, 0);
}

static void get_of_an_absent_key_ends_with_1(void **state)
{
	json_t *d;

	(void)state;
	assert_int_equal(ctl("get", "no such \033key"), 1);
	assert_int_equal(run.out_length, 0);
	assert_one_error_line();
	assert_says(run.err, "\"no such \\x1bkey\" is not there");
	assert_int_equal(ctl("get", "absent", "--json"), 1);
	d = json_of(run.out);
	assert_true(json_is_false(json_object_get(d, "found")));
	json_decref(d);
}

static void get_shows_what_travels_with_a_value(void **state)
{
	json_t *d, *m;

	(void)state;
	assert_int_equal(
		ctl("set", "meta", "v", "--ttl", "60s", "--content-type", "text/plain", "--tag", "a", "--tag=b"), 0);
	assert_says(run.out, "stored 1 bytes, version ");
	assert_int_equal(ctl("get", "meta", "--meta"), 0);
	assert_string_equal(run.out, "v");
	assert_says(run.err, "  reads: none known\n");
	assert_says(run.err, "content_type: text/plain\n");
	assert_says(run.err, "tag: a\n");
	assert_int_equal(ctl("get", "meta", "--json"), 0);
	d = json_of(run.out);
	m = json_object_get(d, "metadata");
	assert_string_equal(json_string_value(json_object_get(d, "value")), "v");
	assert_true(member(d, "ttl_ms") > 0 && member(d, "ttl_ms") <= 60000);
	assert_string_equal(json_string_value(json_object_get(m, "content_type")), "text/plain");
	assert_int_equal(json_array_size(json_object_get(m, "tags")), 2);
	assert_null(json_object_get(d, "access_count"));
	json_decref(d);
	assert_int_equal(ctl("get", "meta", "--json", "--meta"), 0);
	d = json_of(run.out);
	assert_true(member(d, "access_count") >= 0);
	assert_non_null(json_object_get(d, "accessed_ms_ago"));
	json_decref(d);
	assert_int_equal(ctl("set", "meta", "v", "--ttl", "never"), 0);
	assert_int_equal(ctl("get", "meta", "--json"), 0);
	d = json_of(run.out);
	assert_true(json_is_null(json_object_get(d, "ttl_ms")));
	json_decref(d);
}

static void a_value_that_is_no_text_is_hexadecimal_in_json(void **state)
{
	json_t *d;

	(void)state;
	assert_int_equal(ctl("set", "bytes", "\xff\x01z"), 0);
	assert_int_equal(ctl("get", "bytes", "--json"), 0);
	d = json_of(run.out);
	assert_string_equal(json_string_value(json_object_get(d, "value_hex")), "ff017a");
	json_decref(d);
	assert_int_equal(ctl("get", "bytes", "--hex"), 0);
	assert_string_equal(run.out, "ff017a\n");
}

static void a_short_life_ends(void **state)
{
	(void)state;
	assert_int_equal(ctl("set", "brief", "v", "--ttl", "50ms"), 0);
	pause_ms(120);
	assert_int_equal(ctl("get", "brief"), 1);
}

static void del_tells_present_from_absent(void **state)
{
	json_t *d, *list;

	(void)state;
	assert_int_equal(ctl("set", "--", "-here", "v"), 0);
	assert_int_equal(ctl("del", "--", "-here"), 0);
	assert_string_equal(run.out, "deleted -here\n");
	assert_int_equal(ctl("set", "x", "v"), 0);
	assert_int_equal(ctl("del", "x", "y", "--json"), 1);
	d = json_of(run.out);
	list = json_object_get(d, "keys");
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "result")), "deleted");
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "result")), "absent");
	json_decref(d);
	assert_int_equal(ctl("get", "x"), 1);
}

/* ---- figures and reports ------------------------------------------------------------------------------------ */

static void stats_count_what_was_done(void **state)
{
	long long sets;
	json_t *d;

	(void)state;
	assert_int_equal(ctl("stats", "--json"), 0);
	d = json_of(run.out);
	sets = member(d, "sets");
	json_decref(d);
	assert_int_equal(ctl("set", "counted", "v"), 0);
	assert_int_equal(ctl("stats", "--json"), 0);
	d = json_of(run.out);
	assert_int_equal(member(d, "sets"), sets + 1);
	assert_string_equal(json_string_value(json_object_get(d, "tenant")), "default");
	json_decref(d);
	assert_int_equal(ctl("stats"), 0);
	assert_says(run.out, "tenant default\n");
	assert_says(run.out, "  evictions ");
	assert_says(run.out, "  left the cache ");
	assert_says(run.out, ", p95 ");
}

static void status_is_a_document_and_a_summary(void **state)
{
	char pid[32];
	json_t *d;

	(void)state;
	assert_int_equal(ctl("status", "--json"), 0);
	d = json_of(run.out);
	assert_int_equal(member(d, "pid"), the_agent.pid);
	assert_string_equal(json_string_value(json_object_get(d, "instance")), the_agent.instance);
	assert_true(json_array_size(json_object_get(d, "workers")) > 0);
	json_decref(d);
	assert_int_equal(ctl("status"), 0);
	snprintf(pid, sizeof(pid), "pid %ld,", (long)the_agent.pid);
	assert_says(run.out, pid);
	assert_says(run.out, the_agent.instance);
	assert_says(run.out, "embedded, ready");
	assert_says(run.out, "coherence  local");
	assert_null(strchr(run.out, '\033'));
}

static void watch_repeats_a_command(void **state)
{
	size_t lines = 0;

	(void)state;
	assert_int_equal(ctl("status", "--json", "--watch=0.1", "-n", "3"), 0);
	for (const char *at = run.out; (at = strchr(at, '\n')); at++)
		lines++;
	assert_int_equal(lines, 3);
}

static void clients_lists_attached_processes(void **state)
{
	riptide *handle = open_handle();
	char pid[32];
	json_t *d, *first;

	(void)state;
	assert_int_equal(ctl("clients", "--json"), 0);
	d = json_of(run.out);
	first = json_array_get(json_object_get(d, "clients"), 0);
	assert_int_equal(member(first, "pid"), getpid());
	assert_string_equal(json_string_value(json_object_get(first, "program")), "ctl-test");
	json_decref(d);
	assert_int_equal(ctl("clients"), 0);
	snprintf(pid, sizeof(pid), "%8ld ", (long)getpid());
	assert_says(run.out, pid);
	riptide_close(&handle);
}

static void reload_says_that_nothing_changed(void **state)
{
	json_t *d;

	(void)state;
	assert_int_equal(ctl("reload"), 0);
	assert_string_equal(run.out, "reloaded; nothing changed\n");
	assert_int_equal(ctl("reload", "--json"), 0);
	d = json_of(run.out);
	assert_true(json_is_array(json_object_get(d, "changes")));
	json_decref(d);
}

/* ---- a hostile agent ---------------------------------------------------------------------------------------- */

/* A REP peer that answers every request with these bytes, or with a document. Returns its pid. */
static pid_t answer_with(const char *bytes, const char *document)
{
	static const unsigned char hello[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	unsigned char request[256], frame[1024] = {1};
	int fd, listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pid_t pid;

	path_in(socket_path, sizeof(socket_path), "evil.sock");
	strcpy(address.sun_path, socket_path);
	unlink(socket_path);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 4), 0);
	fflush(NULL);
	pid = fork();
	if (pid != 0) {
		close(listener);
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(60);
	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		struct rshm_tlv_writer writer;
		size_t length = strlen(bytes);

		(void)!recv(fd, request, 8, MSG_WAITALL);
		(void)!send(fd, hello, 8, MSG_NOSIGNAL);
		(void)!recv(fd, request, 13 + 16, MSG_WAITALL);
		memcpy(frame + 9, request + 9, 4);
		memcpy(frame + 13, bytes, length);
		if (document) {
			rshm_tlv_begin(&writer, frame + 13, sizeof(frame) - 13, RSHM_CONTROL_STATUS, 0, 1);
			rshm_tlv_bytes(&writer, RSHM_TAG_JSON, document, strlen(document));
			length = (size_t)rshm_tlv_finish(&writer);
		}
		frame[7] = (unsigned char)((length + 4) >> 8);
		frame[8] = (unsigned char)(length + 4);
		(void)!send(fd, frame, 13 + length, MSG_NOSIGNAL);
		close(fd);
	}
	_exit(0);
}

static void end_answering(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	unlink(socket_path);
	strcpy(socket_path, the_agent.socket);
}

static void texts_of_an_agent_are_escaped(void **state)
{
	pid_t pid = answer_with("", "{\"version\":\"1\\u001b[2J\\u009b2J\",\"pid\":\"text\",\"backend\":[],"
				    "\"tenants\":[{\"tenant\":\"\\u001b]0;x\\u0007\"},7],\"workers\":{}}");
	int status = ctl("status");

	(void)state;
	end_answering(pid);
	assert_int_equal(status, 0);
	assert_null(strchr(run.out, '\033'));
	assert_null(strchr(run.out, '\007'));
	assert_null(strstr(run.out, "\302\233"));
	assert_says(run.out, "1\\x1b[2J\\xc2\\x9b2J");
}

static void answers_that_are_none_end_with_6(void **state)
{
	static const char *const documents[] = {NULL, "[1]", "{\"a\":1,", "{\"a\":1,\"a\":2}", ""};

	(void)state;
	for (size_t i = 0; i < sizeof(documents) / sizeof(documents[0]); i++) {
		pid_t pid = answer_with("garbage", documents[i]);
		int status = ctl("status", "--timeout-ms", "2000");

		end_answering(pid);
		assert_int_equal(status, 6);
		assert_one_error_line();
		assert_int_equal(run.out_length, 0);
	}
}

/* ---- what goes wrong ---------------------------------------------------------------------------------------- */

static void wrong_usage_ends_with_2(void **state)
{
	static const char *const lines[][5] = {
		{NULL},
		{"frob\033", NULL},
		{"get", NULL},
		{"get", "a", "b", NULL},
		{"set", NULL},
		{"set", "a", "b", "c", NULL},
		{"del", NULL},
		{"ping", "a", NULL},
		{"get", "a", "--ttl", "5s", NULL},
		{"get", "a", "--nonsense", NULL},
		{"set", "a", "b", "--ttl=5x", NULL},
		{"set", "a", "b", "--ttl=0", NULL},
		{"set", "a", "b", "--ttl=99999999999999999999", NULL},
		{"ping", "-c", "0", NULL},
		{"ping", "-c", NULL},
		{"ping", "--timeout-ms=-1", NULL},
		{"top", "--sort", "x", NULL},
		{"top", "--watch=0", NULL},
		{"top", "--watch=nan", NULL},
		{"get", "a", "--raw", "--hex", NULL},
		{"get", "", NULL},
		{"help", "frob", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		ctl_begin(NULL, NULL, lines[i]);
		if (ctl_end() != 2)
			fail_msg("line %zu ends with %d: %s", i, run.status, run.err);
		assert_one_error_line();
		assert_null(strchr(run.err, '\033'));
	}
}

static void help_and_version_go_to_stdout(void **state)
{
	static const char *const names[] = {"ping",  "status",  "get", "set",   "del",
					    "stats", "clients", "top", "reload"};

	(void)state;
	assert_int_equal(ctl("--help"), 0);
	assert_says(run.out, "0 ok - 1 miss or negative answer - 2 usage - 3 no agent - 4 denied - 5 timed out");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(ctl("help", names[i]), 0);
		assert_says(run.out, names[i]);
		assert_int_equal(ctl(names[i], "--help"), 0);
		assert_says(run.out, names[i]);
	}
	assert_int_equal(ctl("--version"), 0);
	assert_string_equal(run.out, "riptidectl " RIPTIDE_VERSION "\n");
}

static void no_agent_ends_with_3(void **state)
{
	static const char *const lines[][4] = {
		{"ping", NULL},  {"status", NULL},  {"get", "k", NULL}, {"set", "k", "v", NULL},  {"del", "k", NULL},
		{"stats", NULL}, {"clients", NULL}, {"reload", NULL},   {"top", "-n", "1", NULL},
	};

	(void)state;
	path_in(socket_path, sizeof(socket_path), "nobody.sock");
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		ctl_begin(NULL, NULL, lines[i]);
		if (ctl_end() != 3)
			fail_msg("%s ends with %d: %s", lines[i][0], run.status, run.err);
		assert_one_error_line();
		assert_says(run.err, "start riptided");
	}
	strcpy(socket_path, the_agent.socket);
	assert_int_equal(ctl("ping", "--socket", "/nonexistent/control.sock"), 3);
}

static void an_unknown_tenant_is_denied(void **state)
{
	(void)state;
	assert_int_equal(ctl("get", "k", "--tenant", "nobody"), 4);
	assert_one_error_line();
	assert_int_equal(ctl("get", "k", "--token-file", "/nonexistent"), 6);
	assert_one_error_line();
	assert_int_equal(ctl("get", "k", "--token-file", "/dev/null"), 2);
}

static void a_full_disk_is_an_error(void **state)
{
	(void)state;
	assert_int_equal(ctl("set", "big", "value"), 0);
	ctl_begin(NULL, "/dev/full", (const char *const[]){"get", "big", NULL});
	assert_int_equal(ctl_end(), 6);
	assert_says(run.err, "stdout cannot be written");
	ctl_begin(NULL, "/dev/full", (const char *const[]){"top", "-n", "3", "--watch=0.1", NULL});
	assert_int_equal(ctl_end(), 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ping_measures_round_trips),
		cmocka_unit_test(get_returns_the_bytes_that_set_read),
		cmocka_unit_test(get_of_an_absent_key_ends_with_1),
		cmocka_unit_test(get_shows_what_travels_with_a_value),
		cmocka_unit_test(a_value_that_is_no_text_is_hexadecimal_in_json),
		cmocka_unit_test(a_short_life_ends),
		cmocka_unit_test(del_tells_present_from_absent),
		cmocka_unit_test(stats_count_what_was_done),
		cmocka_unit_test(status_is_a_document_and_a_summary),
		cmocka_unit_test(watch_repeats_a_command),
		cmocka_unit_test(clients_lists_attached_processes),
		cmocka_unit_test(reload_says_that_nothing_changed),
		cmocka_unit_test(texts_of_an_agent_are_escaped),
		cmocka_unit_test(answers_that_are_none_end_with_6),
		cmocka_unit_test(wrong_usage_ends_with_2),
		cmocka_unit_test(help_and_version_go_to_stdout),
		cmocka_unit_test(no_agent_ends_with_3),
		cmocka_unit_test(an_unknown_tenant_is_denied),
		cmocka_unit_test(a_full_disk_is_an_error),
	};

	return cmocka_run_group_tests(tests, start_agent, stop_agent);
}
