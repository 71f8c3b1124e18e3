/* ctl_top_test.c - riptidectl top, which needs no answer of the agent, and what riptidectl does on a terminal. */
#include "tests/e2e/ctl_fixture.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>

#include "shm/os/map.h"

/* ---- top ---------------------------------------------------------------------------------------------------- */

/* The last line of the output. */
static json_t *last_frame(void)
{
	char *end = run.out + run.out_length;

	assert_true(run.out_length > 1 && end[-1] == '\n');
	end[-1] = '\0';
	end = strrchr(run.out, '\n');
	return json_of(end ? end + 1 : run.out);
}

static void top_shows_rates(void **state)
{
	riptide *handle = open_handle();
	char value[16];
	size_t length;
	json_t *d, *tenant, *client;

	(void)state;
	assert_int_equal(riptide_set(handle, "hot", 3, "v", 1, NULL, NULL), RIPTIDE_OK);
	CTL("top", "-n", "4", "--watch=0.6", "--json");
	for (int i = 0; i < 250; i++) {
		assert_int_equal(riptide_get_into(handle, "hot", 3, value, sizeof(value), &length, NULL), RIPTIDE_OK);
		pause_ms(10);
	}
	assert_int_equal(ctl_end(), 0);
	d = last_frame();
	tenant = json_array_get(json_object_get(d, "tenants"), 0);
	client = json_array_get(json_object_get(d, "clients"), 0);
	assert_true(json_is_true(json_object_get(d, "alive")));
	assert_true(member(d, "lease_remaining_ms") > 0);
	assert_int_equal(member(d, "pid"), the_agent.pid);
	assert_true(json_number_value(json_object_get(tenant, "hits_per_second")) > 1);
	assert_int_equal(member(client, "pid"), getpid());
	assert_true(json_number_value(json_object_get(client, "hits_per_second")) > 1);
	json_decref(d);
	riptide_close(&handle);
}

static void top_works_while_the_agent_hangs(void **state)
{
	json_t *d;

	(void)state;
	assert_int_equal(ctl("top", "-n", "1"), 0);
	assert_says(run.out, " left - epoch ");
	assert_int_equal(agent_process_kill(&the_agent, SIGSTOP), 0);
	pause_ms(1800);
	assert_int_equal(ctl("top", "-n", "2", "--watch=0.2"), 0);
	assert_says(run.out, "agent: no heartbeat for ");
	assert_says(run.out, "\ndefault ");
	assert_null(strchr(run.out, '\033'));
	assert_int_equal(ctl("top", "-n", "1", "--json"), 0);
	d = last_frame();
	assert_true(json_is_false(json_object_get(d, "alive")));
	assert_true(member(d, "heartbeat_age_ms") >= 1500);
	json_decref(d);
	/* The others need an answer. */
	assert_int_equal(ctl("status", "--timeout-ms", "200"), 5);
	assert_one_error_line();
	assert_int_equal(ctl("get", "hot", "--timeout-ms", "200"), 5);
	assert_one_error_line();
	assert_int_equal(agent_process_kill(&the_agent, SIGCONT), 0);
	assert_int_equal(ctl("ping", "-c", "1"), 0);
}

/* The first agent retires its object; its successor makes another. */
static void top_follows_the_next_agent(void **state)
{
	struct agent_process other;
	pid_t first;
	json_t *d;

	(void)state;
	assert_int_equal(agent_process_start(&other, NULL), 0);
	strcpy(socket_path, other.socket);
	first = other.pid;
	CTL("top", "-n", "30", "--watch=0.1", "--json");
	pause_ms(300);
	/* It ends and retires its object; the next one makes another. */
	assert_int_equal(agent_process_kill(&other, SIGTERM), 0);
	pause_ms(300);
	assert_int_equal(agent_process_restart(&other), 0);
	assert_int_equal(ctl_end(), 0);
	strcpy(socket_path, the_agent.socket);
	d = last_frame();
	assert_int_equal(member(d, "pid"), other.pid);
	assert_int_not_equal(member(d, "pid"), first);
	assert_true(json_is_true(json_object_get(d, "alive")));
	json_decref(d);
	assert_int_equal(agent_process_stop_and_clean(&other), 0);
}

/* A run directory whose list names `object`. */
static void list_object(const char *object)
{
	char path[128], line[160];

	path_in(path, sizeof(path), "fake");
	mkdir(path, 0755);
	path_in(path, sizeof(path), "fake/objects");
	snprintf(line, sizeof(line), "segment default /riptide.other\nagent - %s\n", object);
	write_file(path, line, strlen(line));
	path_in(socket_path, sizeof(socket_path), "fake/control.sock");
}

static void top_refuses_what_is_no_agent_object(void **state)
{
	static const unsigned char garbage[sizeof(struct rshm_agent) * 2] = {1, 2, 3};
	char name[RSHM_NAME_MAX], path[128];
	int fd, statuses[4];

	(void)state;
	snprintf(name, sizeof(name), "/riptide.%s.garbage", the_agent.instance);
	fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	assert_int_equal(write(fd, garbage, sizeof(garbage)), (ssize_t)sizeof(garbage));
	list_object(name);
	statuses[0] = ctl("top", "-n", "1");
	assert_int_equal(ftruncate(fd, 10), 0);
	statuses[1] = ctl("top", "-n", "1");
	shm_unlink(name);
	close(fd);
	statuses[2] = ctl("top", "-n", "1");
	list_object("/../etc/passwd");
	statuses[3] = ctl("top", "-n", "1");
	path_in(path, sizeof(path), "fake/objects");
	unlink(path);
	strcpy(socket_path, the_agent.socket);
	assert_int_equal(statuses[0], 6);
	assert_int_equal(statuses[1], 4);
	assert_int_equal(statuses[2], 3);
	assert_int_equal(statuses[3], 3);
}

static void a_killed_agent_is_no_agent_until_the_next_one(void **state)
{
	struct agent_process other;
	static const char *const settings[] = {"agent.keep_on_stop=true", NULL};
	json_t *d;

	(void)state;
	assert_int_equal(agent_process_start(&other, settings), 0);
	strcpy(socket_path, other.socket);
	assert_int_equal(ctl("set", "kept", "v"), 0);
	assert_int_equal(agent_process_kill(&other, SIGKILL), 0);
	assert_int_equal(ctl("get", "kept"), 3);
	assert_int_equal(ctl("top", "-n", "1"), 0);
	assert_int_equal(agent_process_restart(&other), 0);
	assert_int_equal(ctl("get", "kept"), 0);
	assert_string_equal(run.out, "v");
	assert_int_equal(ctl("status", "--json"), 0);
	d = json_of(run.out);
	assert_int_equal(member(d, "adoptions"), 1);
	json_decref(d);
	strcpy(socket_path, the_agent.socket);
	assert_int_equal(agent_process_stop_and_clean(&other), 0);
}

/* ---- terminals ---------------------------------------------------------------------------------------------- */

/* Starts it on a new terminal of 24 x 80 that is its controlling one. Returns our end of it. */
static int ctl_on_terminal(const char *const arguments[], struct termios *ret_before)
{
	struct winsize size = {.ws_row = 24, .ws_col = 80};
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave;

	assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(slave >= 0);
	ioctl(master, TIOCSWINSZ, &size);
	assert_int_equal(tcgetattr(master, ret_before), 0);
	fflush(NULL);
	run.pid = fork();
	if (run.pid == 0) {
		setsid();
		ioctl(slave, TIOCSCTTY, 0);
		dup2(slave, 0);
		dup2(slave, 1);
		dup2(slave, 2);
		become_ctl(arguments);
	}
	/* Our own copy stays open: without one, what was written could be lost with the terminal. */
	run.out_length = 0;
	run.out[0] = '\0';
	run.status = slave;
	return master;
}

/* Reads what the terminal got until it has `text`, at most some seconds. */
static bool terminal_shows(int master, const char *text)
{
	for (int i = 0; i < 300 && !strstr(run.out, text); i++) {
		struct pollfd entry = {.fd = master, .events = POLLIN};
		ssize_t n = poll(&entry, 1, 50) > 0
				    ? read(master, run.out + run.out_length, sizeof(run.out) - 1 - run.out_length)
				    : 0;

		for (ssize_t k = 0; k < n; k++)
			if (run.out[run.out_length + (size_t)k] == '\0')
				run.out[run.out_length + (size_t)k] = '?';
		run.out_length += n > 0 ? (size_t)n : 0;
		run.out[run.out_length] = '\0';
	}
	return strstr(run.out, text) != NULL;
}

static void assert_terminal_is_restored(int master, const struct termios *before, int status, int wanted)
{
	struct termios after;

	assert_int_equal(tcgetattr(master, &after), 0);
	assert_int_equal(after.c_lflag, before->c_lflag);
	assert_int_equal(after.c_iflag, before->c_iflag);
	assert_true(terminal_shows(master, "\033[?25h\033[?1049l"));
	assert_int_equal(status, wanted);
}

static void top_takes_keys_and_gives_the_terminal_back(void **state)
{
	struct termios before;
	int slave, status, master = ctl_on_terminal((const char *const[]){"top", NULL}, &before);

	(void)state;
	slave = run.status;
	assert_true(terminal_shows(master, "\033[?1049h"));
	assert_true(terminal_shows(master, "agent: alive"));
	assert_true(terminal_shows(master, "q quit"));
	assert_int_equal(write(master, "nq", 2), 2);
	status = wait_for(run.pid);
	assert_terminal_is_restored(master, &before, status, 0);
	close(slave);
	close(master);
}

static void top_gives_the_terminal_back_when_it_is_ended(void **state)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGSEGV};

	(void)state;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		struct termios before;
		int slave, status, master = ctl_on_terminal((const char *const[]){"top", NULL}, &before);

		slave = run.status;
		assert_true(terminal_shows(master, "q quit"));
		kill(run.pid, signals[i]);
		status = wait_for(run.pid);
		assert_terminal_is_restored(master, &before, status, 1000 + signals[i]);
		close(slave);
		close(master);
	}
}

static void a_terminal_does_not_obey_a_value(void **state)
{
	struct termios before;
	int master;

	(void)state;
	assert_int_equal(ctl("set", "evil", "a\033]0;owned\007\302\233b\342\200\256c\xff-end"), 0);
	master = ctl_on_terminal((const char *const[]){"get", "evil", NULL}, &before);
	assert_true(terminal_shows(master, "-end"));
	assert_int_equal(wait_for(run.pid), 0);
	assert_null(strchr(run.out, '\033'));
	assert_null(strchr(run.out, '\007'));
	assert_says(run.out, "a\\x1b]0;owned\\x07\\xc2\\x9bb\\xe2\\x80\\xaec\\xff-end");
	close(run.status);
	close(master);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(top_shows_rates),
		cmocka_unit_test(top_works_while_the_agent_hangs),
		cmocka_unit_test(top_follows_the_next_agent),
		cmocka_unit_test(top_refuses_what_is_no_agent_object),
		cmocka_unit_test(a_killed_agent_is_no_agent_until_the_next_one),
		cmocka_unit_test(top_takes_keys_and_gives_the_terminal_back),
		cmocka_unit_test(top_gives_the_terminal_back_when_it_is_ended),
		cmocka_unit_test(a_terminal_does_not_obey_a_value),
	};

	return cmocka_run_group_tests(tests, start_agent, stop_agent);
}
