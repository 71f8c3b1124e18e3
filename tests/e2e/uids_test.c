#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "shm/os/map.h"
#include "client-lib/control.h"
#include "shm/tlv.h"
#include "tests/support/e2e.h"
#include "tests/support/mini_agent.h"
#include "tests/support/raw_client.h"

/*
 * Users are kept apart by the kernel: real processes of real user ids. Children tell what went wrong by their exit status:
 * the number of the check that failed. Needs root.
 */

#define RED 1  /* user of tenant red */
#define BLUE 2 /* user of tenant blue */
#define STRANGER 4242
#define OVERFLOW 65534

struct fixture {
	struct agent_process agent;
	char config[64];
	struct raw_client red, blue; /* as root was told: names of objects */
};

static int write_config(const struct fixture *f, int user_of_red)
{
	FILE *file = fopen(f->config, "we");

	if (!file)
		return -1;
	fprintf(file, "tenant \"red\" {\n\tusers = {\"%d\"}\n}\ntenant \"blue\" {\n\tusers = {\"%d\"}\n}\n",
		user_of_red, BLUE);
	return fclose(file);
}

static int start(void **state, const char *more)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char setting[96];
	const char *settings[] = {setting, more, NULL};
	int fd;

	strcpy(f->config, "/tmp/riptide-uids.XXXXXX");
	fd = mkstemp(f->config);
	if (fd < 0 || close(fd) < 0 || write_config(f, RED) < 0)
		return -1;
	snprintf(setting, sizeof(setting), "config-file=%s", f->config);
	if (agent_process_start(&f->agent, settings) < 0)
		return -1;
	*state = f;
	return raw_attach(&f->red, f->agent.socket, "red") == RSHM_OK &&
			       raw_attach(&f->blue, f->agent.socket, "blue") == RSHM_OK
		       ? 0
		       : -1;
}

static int setup(void **state)
{
	return start(state, NULL);
}

/* Its objects outlive it, for a successor to adopt. */
static int setup_keeping(void **state)
{
	return start(state, "agent.keep_on_stop=true");
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	raw_close(&f->red);
	raw_close(&f->blue);
	status = agent_process_stop_and_clean(&f->agent);
	unlink(f->config);
	free(f);
	return status;
}

struct visit {
	struct fixture *fixture;
	uid_t uid;
	int (*act)(struct fixture *fixture);
};

static int visit_main(void *context)
{
	struct visit *visit = context;

	if (setgroups(0, NULL) < 0 || setresgid(visit->uid, visit->uid, visit->uid) < 0 ||
	    setresuid(visit->uid, visit->uid, visit->uid) < 0)
		return 250;
	return visit->act(visit->fixture);
}

/* The exit status of `act`, done by a process of that user. */
static int as(uid_t uid, struct fixture *fixture, int (*act)(struct fixture *fixture))
{
	struct visit visit = {.fixture = fixture, .uid = uid, .act = act};

	return e2e_join(e2e_fork(visit_main, &visit), 15000);
}

#define CHECK(number, condition)       \
	do {                           \
		if (!(condition))      \
			return number; \
	} while (0)

static int open_status(struct fixture *f, const char *tenant)
{
	riptide *handle;
	int status = e2e_open(&f->agent, tenant, 3000, &handle);

	riptide_close(&handle);
	return status;
}

/* ---- tenants ------------------------------------------------------------------------------------------------ */

static int use_red(struct fixture *f)
{
	struct riptide_info info = {.flags = 0};
	riptide *handle;

	CHECK(1, e2e_open(&f->agent, "red", 3000, &handle) == RIPTIDE_OK);
	CHECK(2, e2e_put(handle, "colour", "red") == RIPTIDE_OK);
	CHECK(3, e2e_check(handle, "colour", "red", &info) == RIPTIDE_OK);
	CHECK(4, e2e_check(handle, "colour", "red", &info) == RIPTIDE_OK);
	CHECK(5, info.flags & RIPTIDE_HOT);
	riptide_close(&handle);
	CHECK(6, open_status(f, "blue") == RIPTIDE_ENOTENANT);
	CHECK(7, open_status(f, "default") == RIPTIDE_ENOTENANT);
	return 0;
}

static int use_blue(struct fixture *f)
{
	riptide *handle;

	CHECK(1, e2e_open(&f->agent, "blue", 3000, &handle) == RIPTIDE_OK);
	CHECK(2, e2e_check(handle, "colour", "red", NULL) == RIPTIDE_MISS);
	CHECK(3, e2e_put(handle, "colour", "blue") == RIPTIDE_OK);
	riptide_close(&handle);
	return 0;
}

static int find_red_unchanged(struct fixture *f)
{
	riptide *handle;

	CHECK(1, e2e_open(&f->agent, "red", 3000, &handle) == RIPTIDE_OK);
	CHECK(2, e2e_check(handle, "colour", "red", NULL) == RIPTIDE_OK);
	riptide_close(&handle);
	return 0;
}

static void tenants_serve_their_own_users_only(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(as(RED, f, use_red), 0);
	assert_int_equal(as(BLUE, f, use_blue), 0);
	assert_int_equal(as(RED, f, find_red_unchanged), 0);
	assert_true(e2e_number(&f->agent, "control.refused_attaches") >= 2);
}

static int be_refused_everywhere(struct fixture *f)
{
	CHECK(1, open_status(f, "red") == RIPTIDE_ENOTENANT);
	CHECK(2, open_status(f, "blue") == RIPTIDE_ENOTENANT);
	CHECK(3, open_status(f, "default") == RIPTIDE_ENOTENANT);
	/* A tenant that is not there is answered alike: names cannot be probed. */
	CHECK(4, open_status(f, "no-such-tenant") == RIPTIDE_ENOTENANT);
	return 0;
}

static void a_stranger_is_refused_everywhere(void **state)
{
	assert_int_equal(as(STRANGER, *state, be_refused_everywhere), 0);
}

static int be_refused_as_overflow(struct fixture *f)
{
	CHECK(1, open_status(f, "red") == RIPTIDE_EDENIED);
	CHECK(2, open_status(f, "default") == RIPTIDE_EDENIED);
	return 0;
}

static void the_overflow_uid_is_refused(void **state)
{
	assert_int_equal(as(OVERFLOW, *state, be_refused_as_overflow), 0);
}

/* ---- objects ------------------------------------------------------------------------------------------------ */

static int look_at_objects(struct fixture *f)
{
	struct rshm_map map;
	char path[128];

	CHECK(1, shm_open(f->blue.segment, O_RDONLY, 0) < 0 && errno == EACCES);
	CHECK(2, rshm_map_read(f->red.segment, f->red.segment_size, 0, &map) == RSHM_OK);
	CHECK(3, mprotect(map.base, map.size, PROT_READ | PROT_WRITE) < 0);
	CHECK(4, shm_open(f->red.segment, O_RDWR, 0) < 0 && errno == EACCES);
	CHECK(5, shm_open(f->red.agent_object, O_RDONLY, 0) >= 0);
	CHECK(6, shm_open(f->red.agent_object, O_RDWR, 0) < 0 && errno == EACCES);
	CHECK(7, shm_unlink(f->red.segment) < 0);
	snprintf(path, sizeof(path), "%s/objects", f->agent.run_dir);
	CHECK(8, open(path, O_RDONLY) < 0 && errno == EACCES);
	snprintf(path, sizeof(path), "%s/lock", f->agent.run_dir);
	CHECK(9, open(path, O_RDONLY) < 0 && errno == EACCES);
	CHECK(10, unlink(f->agent.socket) < 0);
	CHECK(11, open(f->agent.state_dir, O_RDONLY | O_DIRECTORY) < 0 || access(f->agent.state_dir, W_OK) < 0);
	return 0;
}

static void a_user_opens_the_own_segment_read_only_and_no_other(void **state)
{
	assert_int_equal(as(RED, *state, look_at_objects), 0);
}

static int look_for_data_on_disk(struct fixture *f)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/store/data.mdb", f->agent.state_dir);
	CHECK(1, open(path, O_RDONLY) < 0 && errno == EACCES);
	return 0;
}

static void the_stores_files_are_the_agents_alone(void **state)
{
	assert_int_equal(as(RED, *state, look_for_data_on_disk), 0);
}

/* Through /proc: neither the agent's descriptors and memory, nor those of the process that has the channel. */
static int look_into_proc(struct fixture *f)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getppid(), f->blue.memfd);
	CHECK(1, open(path, O_RDWR) < 0 && errno == EACCES);
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)f->agent.pid);
	CHECK(2, opendir(path) == NULL && errno == EACCES);
	snprintf(path, sizeof(path), "/proc/%d/map_files", (int)f->agent.pid);
	CHECK(3, opendir(path) == NULL);
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)f->agent.pid);
	CHECK(4, open(path, O_RDONLY) < 0);
	return 0;
}

static void channels_of_others_are_out_of_reach_through_proc(void **state)
{
	assert_int_equal(as(RED, *state, look_into_proc), 0);
}

/* How many objects of the agent this process may open, besides the agent's own, which everybody may read. */
static int count_readable(const struct fixture *f)
{
	char prefix[64], name[300];
	DIR *folder = opendir("/dev/shm");
	int readable = 0;

	snprintf(prefix, sizeof(prefix), "riptide.%s.", f->agent.instance);
	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		int fd;

		snprintf(name, sizeof(name), "/%s", entry->d_name);
		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0 || strcmp(name, f->red.agent_object) == 0)
			continue;
		fd = shm_open(name, O_RDONLY, 0);
		readable += fd >= 0;
		if (fd >= 0)
			close(fd);
	}
	if (folder)
		closedir(folder);
	return readable;
}

static int put_as_red(struct fixture *f)
{
	riptide *handle;

	CHECK(1, e2e_open(&f->agent, "red", 3000, &handle) == RIPTIDE_OK);
	CHECK(2, e2e_put(handle, "secret", "of red") == RIPTIDE_OK);
	riptide_close(&handle);
	CHECK(3, count_readable(f) == 1);
	return 0;
}

static int find_as_the_new_red(struct fixture *f)
{
	riptide *handle;

	CHECK(1, e2e_open(&f->agent, "red", 3000, &handle) == RIPTIDE_OK);
	CHECK(2, e2e_check(handle, "secret", "of red", NULL) == RIPTIDE_OK);
	riptide_close(&handle);
	CHECK(3, count_readable(f) == 1);
	return 0;
}

static int be_shut_out(struct fixture *f)
{
	CHECK(1, open_status(f, "red") == RIPTIDE_ENOTENANT);
	CHECK(2, shm_open(f->red.segment, O_RDONLY, 0) < 0);
	CHECK(3, count_readable(f) == 0);
	return 0;
}

static void stop_and_start_again(struct fixture *f, int user_of_red)
{
	raw_close(&f->red);
	raw_close(&f->blue);
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	assert_int_equal(write_config(f, user_of_red), 0);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_number(&f->agent, "adoptions"), 1);
}

/* The segment of before is still there with its old users: it must not be served from again. */
static void a_successor_shuts_out_who_is_no_user_any_more(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(as(RED, f, put_as_red), 0);
	stop_and_start_again(f, STRANGER);
	assert_int_equal(as(STRANGER, f, find_as_the_new_red), 0);
	assert_int_equal(as(RED, f, be_shut_out), 0);
}

static void a_successor_with_the_same_users_goes_on_with_their_segment(void **state)
{
	struct fixture *f = *state;
	char segment[RSHM_NAME_MAX];

	assert_int_equal(as(RED, f, put_as_red), 0);
	memcpy(segment, f->red.segment, sizeof(segment));
	stop_and_start_again(f, RED);
	assert_int_equal(as(RED, f, find_as_the_new_red), 0);
	assert_int_equal(raw_attach(&f->red, f->agent.socket, "red"), RSHM_OK);
	assert_string_equal(f->red.segment, segment);
}

/* ---- tickets ------------------------------------------------------------------------------------------------ */

/* Uses a ticket that root has been issued. */
static int show_the_stolen_ticket(struct fixture *f)
{
	struct raw_client thief = f->blue;

	thief.bell = thief.memfd = -1;
	thief.channel = NULL;
	CHECK(1, raw_ring(&thief, thief.ticket, RAW_TICKET_BYTES) == RSHM_OK);
	CHECK(2, raw_welcome(&thief) == RSHM_E_DENIED);
	return 0;
}

static void a_ticket_shown_by_another_user_opens_nothing(void **state)
{
	struct fixture *f = *state;
	struct raw_client owner;

	raw_close(&f->blue);
	assert_int_equal(raw_ask(&owner, f->agent.socket, "blue"), RSHM_OK);
	f->blue = owner;
	assert_int_equal(as(RED, f, show_the_stolen_ticket), 0);
	/* It was stolen, so it serves nobody any more. */
	assert_int_equal(raw_ring(&owner, owner.ticket, RAW_TICKET_BYTES), RSHM_OK);
	assert_int_equal(raw_welcome(&owner), RSHM_E_DENIED);
	raw_close(&owner);
	assert_true(agent_process_log_has(&f->agent, "the ticket was issued to another user"));
	/* The channel of red is all that is open. */
	assert_true(e2e_await_exactly(&f->agent, "control.channels_open", 1, 5000));
}

/* ---- squatters ---------------------------------------------------------------------------------------------- */

static int open_mini(const struct mini_agent *agent, riptide **ret)
{
	struct riptide_options options = {.size = sizeof(options), .socket = agent->socket, .timeout_ms = 1000};

	return riptide_open(&options, ret);
}

static void give_away(const char *object, uid_t uid)
{
	char path[160];

	snprintf(path, sizeof(path), "/dev/shm%s", object);
	assert_int_equal(chown(path, uid, uid), 0);
	assert_int_equal(chmod(path, 0666), 0);
}

/* Objects under the very names that the agent tells, but another user's: a squatter's, who could write into them. */
static void a_squatters_objects_are_not_read(void **state)
{
	struct mini_agent agent;
	struct riptide_info info = {.flags = 0};
	riptide *handle;
	char text[400];

	(void)state;
	mini_agent_start(&agent);
	give_away(agent.knobs->segment_name, STRANGER);
	assert_int_equal(open_mini(&agent, &handle), RIPTIDE_OK);
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(e2e_check(handle, "k", "v", &info), RIPTIDE_OK);
		assert_false(info.flags & RIPTIDE_HOT);
	}
	riptide_close(&handle);
	give_away(agent.knobs->agent_name, STRANGER);
	assert_int_equal(open_mini(&agent, &handle), RIPTIDE_EDENIED);
	assert_int_equal(riptide_last_error(handle, text, sizeof(text)), RIPTIDE_EDENIED);
	assert_true(strlen(text) > 0);
	riptide_close(&handle);
	mini_agent_stop(&agent);
}

static void needs_root(void **state)
{
	(void)state;
	print_message("not root: nothing is tested here\n");
	skip();
}

/* ---- reports ---------------------------------------------------------------------------------------------------- */

/* The status of the answer to a question without arguments; *ret_text, which is to be freed, is its text. */
static int question(const struct fixture *f, uint16_t op, char **ret_text)
{
	unsigned char message[64], *answer;
	struct rshm_control_header header = {.status = 0};
	struct rshm_tlv_writer writer;
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;
	char trouble[RT_CONTROL_TEXT];
	size_t length;
	int64_t n;

	rshm_tlv_begin(&writer, message, sizeof(message), op, 0, 1);
	n = rshm_tlv_finish(&writer);
	*ret_text = NULL;
	if (rt_control_ask(f->agent.socket, message, (size_t)n, rshm_now_ms() + 5000, &answer, &length, NULL,
			   trouble) < 0 ||
	    rshm_tlv_open(&reader, answer, length, &header) < 0)
		return RSHM_E_PROTOCOL;
	/* No end of a string stands behind it. */
	if (rshm_tlv_next(&reader, &tlv) > 0)
		*ret_text = calloc(1, tlv.length + 1);
	if (*ret_text)
		memcpy(*ret_text, tlv.value, tlv.length);
	free(answer);
	return *ret_text ? header.status : RSHM_E_PROTOCOL;
}

/* 0: the text names red, and blue nowhere. */
static int names_red_alone(struct fixture *f, uint16_t op)
{
	char *text;
	int wrong = question(f, op, &text) != RSHM_OK;

	if (!wrong)
		wrong = (strstr(text, "\"red\"") ? 0 : 2) | (strstr(text, "blue") ? 4 : 0) |
			(strstr(text, "\"recent\"") && strstr(text, "secret-of-blue") ? 8 : 0);
	free(text);
	return wrong;
}

static int asks_for_reports(struct fixture *f)
{
	riptide *handle;
	char *text;
	int wrong = e2e_open(&f->agent, "red", 5000, &handle) != RIPTIDE_OK;

	wrong |= names_red_alone(f, RSHM_CONTROL_STATUS) | names_red_alone(f, RSHM_CONTROL_STATS) << 2 |
		 names_red_alone(f, RSHM_CONTROL_CLIENTS) << 4;
	if (question(f, RSHM_CONTROL_METRICS, &text) != RSHM_E_DENIED)
		wrong |= 128;
	free(text);
	riptide_close(&handle);
	return wrong;
}

static void nobody_is_told_of_tenants_that_are_not_his(void **state)
{
	struct fixture *f = *state;
	riptide *blue;
	char *text;

	assert_int_equal(e2e_open(&f->agent, "blue", 5000, &blue), RIPTIDE_OK);
	assert_int_equal(e2e_put(blue, "secret-of-blue", "v"), RIPTIDE_OK);
	assert_int_equal(riptide_delete(blue, "secret-of-blue", 14), RIPTIDE_OK);
	assert_int_equal(as(RED, f, asks_for_reports), 0);
	/* Operators are told of all. */
	assert_int_equal(question(f, RSHM_CONTROL_STATS, &text), RSHM_OK);
	assert_non_null(strstr(text, "\"blue\""));
	free(text);
	riptide_close(&blue);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(tenants_serve_their_own_users_only),
		CASE(a_stranger_is_refused_everywhere),
		CASE(the_overflow_uid_is_refused),
		CASE(a_user_opens_the_own_segment_read_only_and_no_other),
		CASE(the_stores_files_are_the_agents_alone),
		CASE(channels_of_others_are_out_of_reach_through_proc),
		CASE(a_ticket_shown_by_another_user_opens_nothing),
		cmocka_unit_test_setup_teardown(nobody_is_told_of_tenants_that_are_not_his, setup, teardown),
		cmocka_unit_test_setup_teardown(a_successor_shuts_out_who_is_no_user_any_more, setup_keeping,
						teardown),
		cmocka_unit_test_setup_teardown(a_successor_with_the_same_users_goes_on_with_their_segment,
						setup_keeping, teardown),
		cmocka_unit_test(a_squatters_objects_are_not_read),
	};
#undef CASE
	const struct CMUnitTest none[] = {cmocka_unit_test(needs_root)};

	return geteuid() == 0 ? cmocka_run_group_tests(tests, NULL, NULL) : cmocka_run_group_tests(none, NULL, NULL);
}
