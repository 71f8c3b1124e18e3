/* audit_test.c - what the agent's audit log holds after processes attached, were refused, and operators did things. */
#include "tests/e2e/ctl_fixture.h"

#include <sys/stat.h>

#include "tests/support/e2e.h"
#include "tests/support/raw_client.h"

#define FLOOD 300

static int start_with(const char *const settings[])
{
	if (agent_process_start(&the_agent, settings) < 0)
		return -1;
	strcpy(socket_path, the_agent.socket);
	return 0;
}

static int start_generous(void **state)
{
	static const char *const settings[] = {"limits.attaches_per_second_per_uid=100000", NULL};

	(void)state;
	return start_with(settings);
}

static int start_without(void **state)
{
	static const char *const settings[] = {"security.enable_audit_logging=false", NULL};

	(void)state;
	return start_with(settings);
}

static int start_telling_the_log(void **state)
{
	static const char *const settings[] = {"security.audit_to_log=true", NULL};

	(void)state;
	return start_with(settings);
}

/* The events that riptidectl shows; json_decref() them. */
static json_t *events(void)
{
	json_t *document, *list;

	assert_int_equal(ctl("audit", "--tail", "1000", "--json"), 0);
	document = json_of(run.out);
	assert_int_equal(member(document, "lost"), 0);
	assert_int_equal(member(document, "unreadable"), 0);
	list = json_incref(json_object_get(document, "events"));
	json_decref(document);
	return list;
}

/* The last event of this kind that ended so; lent. NULL: none. */
static const json_t *last_of(const json_t *list, const char *what, const char *result)
{
	for (size_t i = json_array_size(list); i-- > 0;) {
		const json_t *event = json_array_get(list, i);
		const char *its = json_string_value(json_object_get(event, "what"));
		const char *ended = json_string_value(json_object_get(event, "result"));

		if (its && ended && strcmp(its, what) == 0 && strcmp(ended, result) == 0)
			return event;
	}
	return NULL;
}

static void assert_member(const json_t *event, const char *name, const char *value)
{
	const char *its = json_string_value(json_object_get(event, name));

	assert_non_null(its);
	assert_string_equal(its, value);
}

static void assert_is_ours(const json_t *event, pid_t pid)
{
	assert_int_equal(member(event, "uid"), getuid());
	assert_int_equal(member(event, "gid"), getgid());
	assert_int_equal(member(event, "pid"), pid);
}

static void attach_refusal_and_reload_leave_a_line_each(void **state)
{
	struct raw_client client;
	riptide *handle = open_handle();
	json_t *list;
	const json_t *event;
	pid_t reloader;

	(void)state;
	assert_int_equal(raw_ask(&client, the_agent.socket, "no-such-tenant"), RIPTIDE_ENOTENANT);
	assert_int_equal(ctl("reload"), 0);
	reloader = run.pid;
	list = events();
	event = last_of(list, "attach", "ok");
	assert_non_null(event);
	assert_is_ours(event, getpid());
	assert_member(event, "tenant", "default");
	assert_member(event, "on", "program ctl-test");
	event = last_of(list, "attach", "no such tenant");
	assert_non_null(event);
	assert_is_ours(event, getpid());
	assert_member(event, "tenant", "no-such-tenant");
	assert_int_equal(member(event, "status"), RIPTIDE_ENOTENANT);
	assert_non_null(json_object_get(event, "detail"));
	event = last_of(list, "reload", "ok");
	assert_non_null(event);
	assert_is_ours(event, reloader);
	assert_member(event, "role", "admin");
	json_decref(list);
	riptide_close(&handle);
}

static void operators_leave_lines_and_lookers_do_not(void **state)
{
	json_t *list;
	const json_t *event;

	(void)state;
	assert_int_equal(ctl("evictions", "reset"), 0);
	assert_int_equal(ctl("dict", "show", "77"), 1);
	assert_int_equal(ctl("status"), 0);
	assert_int_equal(ctl("clients"), 0);
	list = events();
	assert_non_null(last_of(list, "evictions reset", "ok"));
	event = last_of(list, "dict show", "invalid");
	assert_non_null(event);
	assert_member(event, "tenant", "default");
	assert_member(event, "on", "dictionary 77");
	assert_null(last_of(list, "status", "ok"));
	assert_null(last_of(list, "clients", "ok"));
	json_decref(list);
	/* Reading it is told as well. */
	list = events();
	assert_non_null(last_of(list, "audit", "ok"));
	json_decref(list);
}

static void a_reload_by_signal_names_no_user(void **state)
{
	const json_t *event = NULL;
	json_t *list = NULL;

	(void)state;
	assert_int_equal(agent_process_kill(&the_agent, SIGHUP), 0);
	for (int i = 0; i < 200; i++) {
		json_decref(list);
		list = events();
		event = last_of(list, "reload", "ok");
		if (event && json_object_get(event, "on"))
			break;
		pause_ms(20);
	}
	assert_non_null(event);
	assert_member(event, "on", "SIGHUP");
	assert_null(json_object_get(event, "uid"));
	json_decref(list);
}

static void the_file_is_for_the_agents_user_alone(void **state)
{
	char folder[128], path[192], name[64];
	time_t now = time(NULL);
	struct tm parts;
	struct stat st;

	(void)state;
	assert_int_equal(ctl("reload"), 0);
	snprintf(folder, sizeof(folder), "%s/audit", the_agent.state_dir);
	assert_int_equal(stat(folder, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	strftime(name, sizeof(name), "audit-%Y-%m-%d.jsonl", gmtime_r(&now, &parts));
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	if (stat(path, &st) != 0) {
		/* Midnight was between. */
		now -= 86400;
		strftime(name, sizeof(name), "audit-%Y-%m-%d.jsonl", gmtime_r(&now, &parts));
		snprintf(path, sizeof(path), "%s/%s", folder, name);
	}
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_true(st.st_size > 0);
}

static void it_is_shown_to_people_without_anything_that_moves_a_terminal(void **state)
{
	struct raw_client client;

	(void)state;
	assert_int_equal(raw_ask(&client, the_agent.socket, "a\033[2J"), RIPTIDE_EINVALID);
	assert_int_equal(ctl("audit", "--tail", "1"), 0);
	assert_says(run.out, "attach: invalid");
	assert_says(run.out, "tenant a\\x1b[2J");
	assert_null(strchr(run.out, '\033'));
	assert_int_equal(ctl("audit", "--tail", "0"), 2);
	assert_int_equal(ctl("audit", "--tail", "1001"), 2);
	assert_int_equal(ctl("status", "--tail", "5"), 2);
}

/* The operator is this very user: what it does is told all the same. */
static void a_flood_of_refusals_leaves_a_bounded_number_of_lines(void **state)
{
	struct raw_client client;
	uint64_t begun_ms = e2e_now_ms(), allowed;
	int64_t before = e2e_number(&the_agent, "audit.written"), written, suppressed;
	json_t *list;
	pid_t reloader;

	(void)state;
	for (int i = 0; i < FLOOD; i++)
		assert_int_equal(raw_ask(&client, the_agent.socket, "no-such-tenant"), RIPTIDE_ENOTENANT);
	written = e2e_number(&the_agent, "audit.written") - before;
	suppressed = e2e_number(&the_agent, "audit.suppressed");
	/* 40 at once and 2 a second, and a summary every ten. */
	allowed = 40 + (e2e_now_ms() - begun_ms) * 21 / 10000 + 2;
	assert_in_range(written, 1, allowed);
	assert_true(suppressed >= FLOOD - written);
	assert_int_equal(e2e_number(&the_agent, "audit.lost"), 0);
	assert_int_equal(ctl("reload"), 0);
	reloader = run.pid;
	list = events();
	assert_is_ours(last_of(list, "reload", "ok"), reloader);
	json_decref(list);
}

static void switched_off_there_is_none(void **state)
{
	char folder[128];

	(void)state;
	assert_int_equal(ctl("reload"), 0);
	assert_int_equal(ctl("audit"), 6);
	assert_one_error_line();
	assert_says(run.err, "security.enable_audit_logging");
	snprintf(folder, sizeof(folder), "%s/audit", the_agent.state_dir);
	assert_int_not_equal(access(folder, F_OK), 0);
}

static void the_log_is_told_when_asked(void **state)
{
	(void)state;
	assert_int_equal(ctl("reload"), 0);
	assert_true(agent_process_log_has(&the_agent, "audit: reload by uid"));
}

int main(void)
{
	const struct CMUnitTest with[] = {
		cmocka_unit_test(attach_refusal_and_reload_leave_a_line_each),
		cmocka_unit_test(operators_leave_lines_and_lookers_do_not),
		cmocka_unit_test(the_file_is_for_the_agents_user_alone),
		cmocka_unit_test(it_is_shown_to_people_without_anything_that_moves_a_terminal),
		cmocka_unit_test(a_flood_of_refusals_leaves_a_bounded_number_of_lines),
		cmocka_unit_test(a_reload_by_signal_names_no_user),
	};
	const struct CMUnitTest apart[] = {
		cmocka_unit_test_setup_teardown(switched_off_there_is_none, start_without, stop_agent),
		cmocka_unit_test_setup_teardown(the_log_is_told_when_asked, start_telling_the_log, stop_agent),
	};
	int failed = cmocka_run_group_tests(with, start_generous, stop_agent);

	return failed + cmocka_run_group_tests(apart, NULL, NULL);
}
