/* reload_test.c - SIGHUP at moments when there is nothing to reload: while the agent stops, and while it starts. */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/both_stores.h"

#define APPLIED "applied: "

static char config_path[64];
static char config_setting[96];

static const char *const *both_settings(void)
{
	static const char *settings[] = {config_setting, "agent.workers=2", "agent.keep_on_stop=true", NULL};

	return settings;
}

/* Two tenants, so that two workers have one each. */
static void write_config(const char *policy)
{
	char text[400];
	unsigned int user = (unsigned int)geteuid();
	int n = snprintf(text, sizeof(text),
			 "tenant \"one\" { users = {\"%u\"} eviction_policy = lru }\n"
			 "tenant \"two\" { users = {\"%u\"} eviction_policy = %s }\n",
			 user, user, policy);
	int fd = open(config_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, (size_t)n), n);
	close(fd);
}

static void name_config(void)
{
	e2e_make_file(config_path, sizeof(config_path), "reload");
	snprintf(config_setting, sizeof(config_setting), "config-file=%s", config_path);
	write_config("lru");
}

static int setup_embedded(void **state)
{
	name_config();
	return both_setup_embedded(state);
}

static int setup_redis(void **state)
{
	name_config();
	return both_setup_redis(state);
}

static int teardown(void **state)
{
	unlink(config_path);
	return both_teardown(state);
}

static bool log_comes_to_have(const struct fixture *f, const char *text)
{
	for (int i = 0; i < 250; i++) {
		if (agent_process_log_has(&f->agent, text))
			return true;
		e2e_pause_ms(20);
	}
	return false;
}

/* What the others look for in vain is there when a reload is taken up. */
static void a_reload_is_taken_up_while_the_agent_serves(void **state)
{
	struct fixture *f = both_fixture(state);

	write_config("lfu");
	assert_int_equal(agent_process_kill(&f->agent, SIGHUP), 0);
	assert_true(log_comes_to_have(f, APPLIED));
	assert_int_equal(e2e_put(f->handle, "k", "v"), RIPTIDE_OK);
}

/* ---- while it stops ------------------------------------------------------------------------------------------- */

static int put_into_silence(void *context)
{
	const struct fixture *f = context;
	riptide *handle;
	int status = e2e_open(&f->agent, "one", 15000, &handle);

	if (status == RIPTIDE_OK)
		status = e2e_put(handle, "k", "v2");
	riptide_close(&handle);
	return status == RIPTIDE_OK ? 0 : 1;
}

/* One worker drains, as its write waits for a silent server; the other one, which has nothing to do, is gone. */
static void a_reload_while_the_agent_stops_is_not_taken_up(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;
	pid_t writer;

	assert_int_equal(e2e_open(&f->agent, "one", 5000, &handle), RIPTIDE_OK);
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	redis_server_pause(&f->server);
	writer = e2e_fork(put_into_silence, f);
	e2e_pause_ms(500);
	assert_int_equal(kill(f->agent.pid, SIGTERM), 0);
	assert_true(log_comes_to_have(f, "stopping: draining"));
	e2e_pause_ms(300);
	write_config("lfu");
	for (int i = 0; i < 5; i++) {
		assert_int_equal(kill(f->agent.pid, SIGHUP), 0);
		e2e_pause_ms(100);
		/* Still draining: it is the stop that the signals met. */
		assert_int_equal(waitpid(f->agent.pid, NULL, WNOHANG), 0);
	}
	redis_server_resume(&f->server);
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	assert_true(WIFEXITED(f->agent.wait_status));
	assert_int_equal(WEXITSTATUS(f->agent.wait_status), 0);
	assert_false(agent_process_log_has(&f->agent, APPLIED));
	assert_int_equal(e2e_join(writer, 20000), 0);
	riptide_close(&handle);
}

/* ---- while it starts ------------------------------------------------------------------------------------------ */

/* The agent that took the lock of the run directory last; 0: none. */
static pid_t last_agent(const struct agent_process *agent)
{
	char path[96], text[32] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/lock", agent->run_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return (pid_t)atoi(text);
}

struct obstacle {
	const struct agent_process *agent;
	pid_t before; /* the agent of before */
	int ready;    /* a pipe: told when the lock is held */
};

/* Holds the lock of the store's file, at which the next agent waits in the middle of its start, and signals that agent. */
static int hold_the_store_and_signal(void *context)
{
	const struct obstacle *obstacle = context;
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	char path[128];
	pid_t pid;
	int fd;

	snprintf(path, sizeof(path), "%s/store/lock.mdb", obstacle->agent->state_dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fcntl(fd, F_SETLK, &lock) < 0 || write(obstacle->ready, "!", 1) != 1)
		return 1;
	for (int i = 0; i < 1000 && last_agent(obstacle->agent) == obstacle->before; i++)
		e2e_pause_ms(10);
	pid = last_agent(obstacle->agent);
	e2e_pause_ms(300);
	/* It waits for us still: nobody can attach. */
	if (pid == obstacle->before || access(obstacle->agent->socket, F_OK) == 0)
		return 2;
	for (int i = 0; i < 3; i++) {
		if (kill(pid, SIGHUP) < 0)
			return 3;
		e2e_pause_ms(50);
	}
	return 0;
}

static void a_reload_while_the_agent_starts_does_not_end_it(void **state)
{
	struct fixture *f = both_fixture(state);
	struct obstacle obstacle = {.agent = &f->agent, .before = f->agent.pid};
	int ends[2];
	char byte;
	pid_t holder;

	assert_int_equal(e2e_put(f->handle, "k", "v"), RIPTIDE_OK);
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	unlink(f->agent.socket);
	assert_int_equal(pipe(ends), 0);
	obstacle.ready = ends[1];
	holder = e2e_fork(hold_the_store_and_signal, &obstacle);
	close(ends[1]);
	assert_int_equal(read(ends[0], &byte, 1), 1);
	close(ends[0]);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_join(holder, 10000), 0);
	assert_int_equal(e2e_check(f->handle, "k", "v", NULL), RIPTIDE_OK);
	/* From now on there is something to reload. */
	write_config("lfu");
	assert_int_equal(agent_process_kill(&f->agent, SIGHUP), 0);
	assert_true(log_comes_to_have(f, APPLIED));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_reload_is_taken_up_while_the_agent_serves, setup_embedded,
						teardown),
		cmocka_unit_test_setup_teardown(a_reload_while_the_agent_starts_does_not_end_it, setup_embedded,
						teardown),
		cmocka_unit_test_setup_teardown(a_reload_while_the_agent_stops_is_not_taken_up, setup_redis,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
