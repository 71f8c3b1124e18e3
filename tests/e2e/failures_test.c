#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "tests/support/e2e.h"

/*
 * What can be wrong with a machine or a command line: the agent says it in one line, ends with the right status, and leaves
 * nothing; or it runs without what is missing.
 */

#define PATIENCE_MS 15000
#define ARGUMENTS_MAX 24
#define NOBODY_SPECIAL 4242

struct fixture {
	char folder[48], run_dir[64], state_dir[64], instance[32];
};

struct outcome {
	int status; /* exit status; 1000 + signal; -1: it was still running and had to be killed */
	int lines;
	char text[4096];
};

static int setup(void **state)
{
	static int number;
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->folder, "/tmp/riptide-fail.XXXXXX");
	if (!mkdtemp(f->folder) || chmod(f->folder, 0755) < 0)
		return -1;
	snprintf(f->run_dir, sizeof(f->run_dir), "%s/run", f->folder);
	snprintf(f->state_dir, sizeof(f->state_dir), "%s/state", f->folder);
	snprintf(f->instance, sizeof(f->instance), "fail-%d-%d", (int)getpid(), ++number);
	*state = f;
	return 0;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st, (void)kind, (void)where;
	(void)remove(path);
	return 0;
}

static int count_objects(const struct fixture *f)
{
	struct agent_process agent = {.pid = 0};

	snprintf(agent.instance, sizeof(agent.instance), "%s", f->instance);
	return e2e_objects(&agent);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int objects = count_objects(f);
	struct agent_process left = {.pid = 0};

	/* A case that failed shall not leave what it found. */
	snprintf(left.instance, sizeof(left.instance), "%s", f->instance);
	(void)agent_process_stop_and_clean(&left);
	(void)nftw(f->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return objects == 0 ? 0 : -1;
}

/* ---- running it --------------------------------------------------------------------------------------------- */

struct run {
	uid_t uid;
	int output;
	const char *arguments[ARGUMENTS_MAX];
};

static int run_main(void *context)
{
	struct run *run = context;
	const char *build = getenv("RIPTIDE_BUILD_DIR");
	char program[512];
	int fd;

	/* Opened before the user changes: a stranger may not be able to reach the build folder. */
	snprintf(program, sizeof(program), "%s/riptided", build ? build : "build");
	fd = open(program, O_RDONLY);
	dup2(run->output, 1);
	dup2(run->output, 2);
	if (run->uid != 0 && (setgroups(0, NULL) < 0 || setresgid(run->uid, run->uid, run->uid) < 0 ||
			      setresuid(run->uid, run->uid, run->uid) < 0))
		return 251;
	fexecve(fd, (char *const *)run->arguments, environ);
	dprintf(2, "%s: %s\n", program, strerror(errno));
	return 252;
}

/* Runs riptided as `uid` (0: as the test) with these arguments, the last one NULL. */
static void run_agent(uid_t uid, struct outcome *ret, const char *const arguments[])
{
	struct run run = {.uid = uid, .arguments = {"riptided"}};
	FILE *output = tmpfile();
	size_t n;

	assert_non_null(output);
	for (int i = 0; arguments[i] && i + 2 < ARGUMENTS_MAX; i++)
		run.arguments[i + 1] = arguments[i];
	run.output = fileno(output);
	ret->status = e2e_join(e2e_fork(run_main, &run), PATIENCE_MS);
	rewind(output);
	n = fread(ret->text, 1, sizeof(ret->text) - 1, output);
	ret->text[n] = '\0';
	ret->lines = 0;
	for (size_t i = 0; i < n; i++)
		ret->lines += ret->text[i] == '\n';
	fclose(output);
}

/* The same with run folder, state folder and instance of the fixture, and one more setting. */
static void run_with(const struct fixture *f, uid_t uid, const char *setting, struct outcome *ret)
{
	char run_dir[96], state_dir[96], instance[64];
	const char *arguments[] = {"--no-config", "--set",  run_dir, "--set", state_dir,
				   "--set",       instance, "--set", setting, NULL};

	snprintf(run_dir, sizeof(run_dir), "agent.run_dir=%s", f->run_dir);
	snprintf(state_dir, sizeof(state_dir), "agent.state_dir=%s", f->state_dir);
	snprintf(instance, sizeof(instance), "agent.instance=%s", f->instance);
	run_agent(uid, ret, arguments);
}

static void assert_refused(const struct outcome *o, int status, const char *text)
{
	if (o->status != status || o->lines != 1 || !strstr(o->text, text))
		fail_msg("exit status %d, %d lines, without \"%s\" or otherwise wrong: %s", o->status, o->lines, text,
			 o->text);
}

static bool is_empty(const char *folder)
{
	DIR *d = opendir(folder);
	int count = 0;

	for (struct dirent *entry; d && (entry = readdir(d));)
		count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	if (d)
		closedir(d);
	return count == 0;
}

/* ---- folders ------------------------------------------------------------------------------------------------ */

static void a_missing_parent_folder_is_named(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome;
	char setting[128];

	snprintf(setting, sizeof(setting), "agent.run_dir=%s/missing/run", f->folder);
	run_with(f, 0, setting, &outcome);
	assert_refused(&outcome, 1, "/missing/run");
	assert_true(is_empty(f->folder));
}

static void a_run_folder_that_others_may_write_is_refused(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome;

	assert_int_equal(mkdir(f->run_dir, 0755), 0);
	assert_int_equal(chmod(f->run_dir, 0777), 0);
	run_with(f, 0, "agent.workers=1", &outcome);
	assert_refused(&outcome, 1, f->run_dir);
	assert_true(is_empty(f->run_dir));
}

static void a_run_folder_that_is_a_file_is_refused(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome;

	assert_int_equal(close(open(f->run_dir, O_CREAT | O_WRONLY, 0600)), 0);
	run_with(f, 0, "agent.workers=1", &outcome);
	assert_refused(&outcome, 1, f->run_dir);
}

static void a_run_folder_of_another_user_is_refused(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome;

	if (geteuid() != 0)
		skip();
	assert_int_equal(mkdir(f->run_dir, 0755), 0);
	run_with(f, NOBODY_SPECIAL, "agent.workers=1", &outcome);
	assert_refused(&outcome, 1, f->run_dir);
	assert_true(is_empty(f->run_dir));
}

static void a_run_folder_without_write_permission_is_refused(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome;

	if (geteuid() != 0)
		skip();
	assert_int_equal(mkdir(f->run_dir, 0755), 0);
	assert_int_equal(chown(f->run_dir, NOBODY_SPECIAL, NOBODY_SPECIAL), 0);
	assert_int_equal(chmod(f->run_dir, 0555), 0);
	run_with(f, NOBODY_SPECIAL, "agent.workers=1", &outcome);
	assert_refused(&outcome, 1, "Permission denied");
	assert_true(is_empty(f->run_dir));
}

static void a_state_folder_that_cannot_be_made_is_named(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome;

	assert_int_equal(close(open(f->state_dir, O_CREAT | O_WRONLY, 0600)), 0);
	run_with(f, 0, "agent.workers=1", &outcome);
	assert_refused(&outcome, 1, f->state_dir);
	assert_int_equal(count_objects(f), 0);
}

/* ---- sockets ------------------------------------------------------------------------------------------------ */

static void a_socket_path_that_is_taken_is_refused(void **state)
{
	static const char *const names[] = {"control.sock", "doorbell.sock"};
	struct fixture *f = *state;
	struct outcome outcome;
	char path[128];

	assert_int_equal(mkdir(f->run_dir, 0755), 0);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", f->run_dir, names[i]);
		assert_int_equal(mkdir(path, 0755), 0);
		run_with(f, 0, "agent.workers=1", &outcome);
		assert_refused(&outcome, 1, path);
		assert_int_equal(rmdir(path), 0);
		assert_int_equal(count_objects(f), 0);
		snprintf(path, sizeof(path), "%s/%s", f->run_dir, names[!i]);
		assert_int_equal(access(path, F_OK), -1);
	}
}

static void a_file_in_place_of_the_socket_is_not_removed(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome;
	char path[128];

	assert_int_equal(mkdir(f->run_dir, 0755), 0);
	snprintf(path, sizeof(path), "%s/control.sock", f->run_dir);
	assert_int_equal(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
	run_with(f, 0, "agent.workers=1", &outcome);
	assert_refused(&outcome, 1, path);
	assert_int_equal(access(path, F_OK), 0);
}

static void a_run_folder_too_long_for_sockets_is_a_bad_option(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome;
	char setting[200];

	snprintf(setting, sizeof(setting), "agent.run_dir=%s/%0*d", f->folder, 100, 0);
	run_with(f, 0, setting, &outcome);
	assert_refused(&outcome, 2, "agent.run_dir");
	assert_true(is_empty(f->folder));
}

/* ---- command line and configuration -------------------------------------------------------------------------- */

static void bad_options_end_with_status_2_and_one_line(void **state)
{
	static const struct {
		const char *setting, *text;
	} bad[] = {
		{"nosuch.option=1", "no such option"},
		{"agent.workers=0", "agent.workers"},
		{"agent.workers=many", "agent.workers"},
		{"agent.workers", "section.option=value"},
		{"cache.max_entry_size_bytes=0", "cache.max_entry_size_bytes"},
		{"embedded.sync=perhaps", "embedded.sync"},
		{"redis.url=ftp://somewhere", "redis.url"},
		{"redis.url=redis://host:99999999", "redis.url"},
		{"redis.url=", "redis.url"},
		{"agent.instance=../../etc", "agent.instance"},
		{"agent.instance=", "agent.instance"},
	};
	struct fixture *f = *state;
	struct outcome outcome;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		run_with(f, 0, bad[i].setting, &outcome);
		assert_refused(&outcome, 2, bad[i].text);
	}
	assert_true(is_empty(f->folder));
}

static void a_password_in_a_bad_url_is_not_repeated(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome;

	run_with(f, 0, "redis.url=ftp://user:hunter2@somewhere", &outcome);
	assert_int_equal(outcome.status, 2);
	assert_null(strstr(outcome.text, "hunter2"));
}

static void unknown_arguments_end_with_status_2(void **state)
{
	static const char *const unknown[] = {"--no-such-option", NULL};
	static const char *const surplus[] = {"--no-config", "start", NULL};
	struct outcome outcome;

	(void)state;
	run_agent(0, &outcome, unknown);
	assert_int_equal(outcome.status, 2);
	assert_non_null(strstr(outcome.text, "--help"));
	run_agent(0, &outcome, surplus);
	assert_refused(&outcome, 2, "start");
}

static void a_configuration_that_cannot_be_read_is_named(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome;
	char path[96];
	const char *arguments[] = {"-c", path, NULL};

	snprintf(path, sizeof(path), "%s/absent.conf", f->folder);
	run_agent(0, &outcome, arguments);
	assert_refused(&outcome, 2, path);
	snprintf(path, sizeof(path), "%s", f->folder);
	run_agent(0, &outcome, arguments);
	assert_refused(&outcome, 2, path);
	if (geteuid() != 0)
		return;
	snprintf(path, sizeof(path), "%s/secret.conf", f->folder);
	assert_int_equal(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
	run_agent(NOBODY_SPECIAL, &outcome, arguments);
	assert_refused(&outcome, 2, path);
}

static void a_mistake_in_the_configuration_has_file_and_line(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome;
	char path[96], place[112];
	const char *arguments[] = {"-c", path, NULL};
	FILE *file;

	snprintf(path, sizeof(path), "%s/bad.conf", f->folder);
	file = fopen(path, "we");
	assert_non_null(file);
	fputs("# a comment\nagent {\n\tinstance = \"x\"\n\tworkers = 0\n}\n", file);
	fclose(file);
	run_agent(0, &outcome, arguments);
	snprintf(place, sizeof(place), "%s:4", path);
	assert_refused(&outcome, 2, place);
}

/* ---- small memory, small disk: in a mount namespace of the child's own --------------------------------------- */

#define CHECK(condition)                                                                \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			return 1;                                                       \
		}                                                                       \
	} while (0)

struct small {
	struct fixture *fixture;
	const char *mount_point, *options;
	int (*act)(struct fixture *fixture);
};

static int small_main(void *context)
{
	struct small *small = context;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("small", small->mount_point, "tmpfs", 0, small->options) < 0)
		return 77;
	return small->act(small->fixture);
}

static void with_small(struct fixture *f, const char *mount_point, const char *options,
		       int (*act)(struct fixture *fixture))
{
	struct small small = {.fixture = f, .mount_point = mount_point, .options = options, .act = act};
	int status;

	if (geteuid() != 0) {
		print_message("not root: nothing is tested here\n");
		skip();
	}
	status = e2e_join(e2e_fork(small_main, &small), 60000);
	if (status == 77) {
		print_message("this machine permits no mount namespaces: nothing is tested here\n");
		skip();
	}
	assert_int_equal(status, 0);
}

static int be_refused_for_memory(struct fixture *f)
{
	struct outcome outcome;

	run_with(f, 0, "agent.workers=1", &outcome);
	if (outcome.status != 1 || outcome.lines != 1 || !strstr(outcome.text, "/dev/shm")) {
		fprintf(stderr, "exit status %d: %s", outcome.status, outcome.text);
		return 1;
	}
	CHECK(is_empty("/dev/shm"));
	return 0;
}

static void without_room_for_its_own_object_the_agent_says_so(void **state)
{
	with_small(*state, "/dev/shm", "size=64k", be_refused_for_memory);
}

static int check_served(const struct agent_process *agent, uint32_t wanted_flags, uint32_t unwanted_flags)
{
	struct riptide_info info = {.flags = 0};
	riptide *handle;

	CHECK(e2e_open(agent, NULL, 3000, &handle) == RIPTIDE_OK);
	for (int i = 0; i < 100; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%d", i);
		CHECK(e2e_put(handle, key, key) == RIPTIDE_OK);
		CHECK(e2e_check(handle, key, key, &info) == RIPTIDE_OK);
		CHECK(e2e_check(handle, key, key, &info) == RIPTIDE_OK);
		CHECK((info.flags & wanted_flags) == wanted_flags && !(info.flags & unwanted_flags));
	}
	CHECK(riptide_delete(handle, "k1", 2) == RIPTIDE_OK);
	CHECK(e2e_check(handle, "k1", "k1", NULL) == RIPTIDE_MISS);
	riptide_close(&handle);
	return 0;
}

static int be_served_without_hot_reads(struct fixture *f)
{
	struct agent_process agent;
	int status;

	(void)f;
	CHECK(agent_process_start(&agent, NULL) == 0);
	status = check_served(&agent, 0, RIPTIDE_HOT);
	return agent_process_stop_and_clean(&agent) == 0 ? status : 1;
}

static void without_room_for_a_segment_everything_goes_through_the_agent(void **state)
{
	with_small(*state, "/dev/shm", "size=1m", be_served_without_hot_reads);
}

static int fill_and_be_served(const struct agent_process *agent)
{
	static char value[16384];
	riptide *handle;

	CHECK(e2e_open(agent, NULL, 3000, &handle) == RIPTIDE_OK);
	for (int i = 0; i < 2000; i++) {
		CHECK(riptide_set(handle, &i, sizeof(i), value, sizeof(value), NULL, NULL) == RIPTIDE_OK);
		CHECK(riptide_exists(handle, &i, sizeof(i), NULL) == RIPTIDE_OK);
	}
	riptide_close(&handle);
	return check_served(agent, RIPTIDE_HOT, 0);
}

/* The segment starts and cannot grow. The file system is full for others too: nobody may die of it. */
static int be_served_by_a_segment_that_cannot_grow(struct fixture *f)
{
	struct agent_process agent;
	int status;

	(void)f;
	CHECK(agent_process_start(&agent, NULL) == 0);
	status = fill_and_be_served(&agent);
	return agent_process_stop_and_clean(&agent) == 0 ? status : 1;
}

static void a_segment_that_cannot_grow_goes_on_serving(void **state)
{
	with_small(*state, "/dev/shm", "size=4m", be_served_by_a_segment_that_cannot_grow);
}

static int set_number(riptide *handle, int key)
{
	static unsigned char value[65536];

	/* Not to be compressed. */
	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (unsigned char)(rand() >> 7);
	return riptide_set(handle, &key, sizeof(key), value, sizeof(value), NULL, NULL);
}

static int fill_the_disk(const struct agent_process *agent)
{
	struct riptide_value value;
	uint64_t until;
	riptide *handle;
	int count = 0, status = RIPTIDE_OK;

	CHECK(e2e_open(agent, NULL, 5000, &handle) == RIPTIDE_OK);
	while (count < 2000 && (status = set_number(handle, count)) == RIPTIDE_OK)
		count++;
	CHECK(status == RIPTIDE_EFULL);
	CHECK(count > 20);
	/* What is there stays there, what was refused is not. */
	for (int i = 0; i < count; i++) {
		CHECK(riptide_get(handle, &i, sizeof(i), &value) == RIPTIDE_OK);
		CHECK(value.length == 65536);
		riptide_value_free(&value);
	}
	CHECK(riptide_get(handle, &count, sizeof(count), &value) == RIPTIDE_MISS);
	for (int i = 0; i < count; i++)
		CHECK(riptide_delete(handle, &i, sizeof(i)) == RIPTIDE_OK);
	until = e2e_now_ms() + 10000;
	while ((status = set_number(handle, 1)) == RIPTIDE_EFULL && e2e_now_ms() < until)
		e2e_pause_ms(50);
	CHECK(status == RIPTIDE_OK);
	for (int i = 0; i < count / 2; i++)
		CHECK(set_number(handle, i) == RIPTIDE_OK);
	CHECK(e2e_put(handle, "still", "here") == RIPTIDE_OK);
	CHECK(e2e_check(handle, "still", "here", NULL) == RIPTIDE_OK);
	riptide_close(&handle);
	return 0;
}

static int use_a_small_disk(struct fixture *f)
{
	char setting[96];
	const char *settings[] = {setting, NULL};
	struct agent_process agent;
	int status;

	snprintf(setting, sizeof(setting), "agent.state_dir=%s", f->state_dir);
	CHECK(agent_process_start(&agent, settings) == 0);
	status = fill_the_disk(&agent);
	if (agent_process_stop_and_clean(&agent) != 0)
		status = 1;
	return status;
}

static void a_full_disk_refuses_writes_and_recovers(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mkdir(f->state_dir, 0700), 0);
	with_small(f, f->state_dir, "size=24m,mode=700", use_a_small_disk);
}

static int restart_on_a_full_disk(const struct fixture *f, struct agent_process *agent)
{
	riptide *handle;
	int key = 0, fd;
	char path[96];

	CHECK(e2e_open(agent, NULL, 5000, &handle) == RIPTIDE_OK);
	CHECK(set_number(handle, key) == RIPTIDE_OK);
	CHECK(e2e_put(handle, "before", "it was full") == RIPTIDE_OK);
	snprintf(path, sizeof(path), "%s/ballast", f->state_dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	CHECK(fd >= 0);
	for (int i = 0; i < 64; i++)
		(void)!posix_fallocate(fd, (off_t)i << 19, 1 << 19);
	close(fd);
	CHECK(agent_process_restart(agent) == 0);
	CHECK(e2e_check(handle, "before", "it was full", NULL) == RIPTIDE_OK);
	riptide_close(&handle);
	return 0;
}

static int use_a_disk_that_is_full_at_start(struct fixture *f)
{
	char setting[96];
	const char *settings[] = {setting, NULL};
	struct agent_process agent;
	int status;

	snprintf(setting, sizeof(setting), "agent.state_dir=%s", f->state_dir);
	CHECK(agent_process_start(&agent, settings) == 0);
	status = restart_on_a_full_disk(f, &agent);
	if (agent_process_stop_and_clean(&agent) != 0)
		status = 1;
	return status;
}

static void a_disk_that_is_full_at_start_still_serves_what_it_has(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mkdir(f->state_dir, 0700), 0);
	with_small(f, f->state_dir, "size=24m,mode=700", use_a_disk_that_is_full_at_start);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(bad_options_end_with_status_2_and_one_line),
		CASE(a_password_in_a_bad_url_is_not_repeated),
		CASE(unknown_arguments_end_with_status_2),
		CASE(a_configuration_that_cannot_be_read_is_named),
		CASE(a_mistake_in_the_configuration_has_file_and_line),
		CASE(a_missing_parent_folder_is_named),
		CASE(a_run_folder_that_others_may_write_is_refused),
		CASE(a_run_folder_that_is_a_file_is_refused),
		CASE(a_run_folder_of_another_user_is_refused),
		CASE(a_run_folder_without_write_permission_is_refused),
		CASE(a_run_folder_too_long_for_sockets_is_a_bad_option),
		CASE(a_state_folder_that_cannot_be_made_is_named),
		CASE(a_socket_path_that_is_taken_is_refused),
		CASE(a_file_in_place_of_the_socket_is_not_removed),
		CASE(without_room_for_its_own_object_the_agent_says_so),
		CASE(without_room_for_a_segment_everything_goes_through_the_agent),
		CASE(a_segment_that_cannot_grow_goes_on_serving),
		CASE(a_full_disk_refuses_writes_and_recovers),
		CASE(a_disk_that_is_full_at_start_still_serves_what_it_has),
	};
#undef CASE

	return cmocka_run_group_tests(tests, NULL, NULL);
}
