/*
 * ctl_fixture.h - runs riptidectl for the tests beside this file, against one agent that serves most of their cases.
 *
 * Every process that a case starts is waited for, at most PATIENCE_MS, and then killed.
 */
#ifndef TESTS_E2E_CTL_FIXTURE_H
#define TESTS_E2E_CTL_FIXTURE_H

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "tests/support/agent_process.h"

#define PATIENCE_MS 30000
#define OUTPUT_MAX (256u << 10)

static struct agent_process the_agent;
static char socket_path[108]; /* what riptidectl gets as RIPTIDE_SOCKET */

/* ---- running it --------------------------------------------------------------------------------------------- */

struct run {
	pid_t pid;
	int status; /* exit status; 1000 + signal; -1: it hung */
	char out[OUTPUT_MAX], err[8192];
	size_t out_length;
};
static struct run run;

static inline void pause_ms(long ms)
{
	struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&span, NULL);
}

static inline void become_ctl(const char *const arguments[])
{
	char program[512];
	const char *list[32] = {"riptidectl"}, *build = getenv("RIPTIDE_BUILD_DIR");
	int count = 1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(program, sizeof(program), "%s/riptidectl", build ? build : "build");
	while (arguments[count - 1] && count < 31) {
		list[count] = arguments[count - 1];
		count++;
	}
	unsetenv("RIPTIDE_TENANT");
	setenv("RIPTIDE_SOCKET", socket_path, 1);
	setenv("TERM", "xterm", 1);
	execv(program, (char *const *)list);
	_exit(126);
}

static inline int wait_for(pid_t pid)
{
	int status;

	for (int waited_ms = 0; waited_ms < PATIENCE_MS; waited_ms += 2) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
		pause_ms(2);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

static inline size_t read_file(const char *path, char *to, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, to, size - 1);

	if (fd >= 0)
		close(fd);
	to[n > 0 ? n : 0] = '\0';
	return n > 0 ? (size_t)n : 0;
}

static inline void path_in(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/%s", the_agent.folder, name);
}

static inline void write_file(const char *path, const void *bytes, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, length), (ssize_t)length);
	close(fd);
}

/* Starts it with its output in files. `in`: NULL is /dev/null. */
static inline void ctl_begin(const char *in, const char *out, const char *const arguments[])
{
	char err[128], to[128];

	path_in(err, sizeof(err), "err");
	path_in(to, sizeof(to), "out");
	fflush(NULL);
	run.pid = fork();
	if (run.pid == 0) {
		dup2(open(in ? in : "/dev/null", O_RDONLY), 0);
		dup2(open(out ? out : to, O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
		dup2(open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
		become_ctl(arguments);
	}
	assert_true(run.pid > 0);
}

/* Ends with the exit status; the output stands in `run`. What it says on stderr is always whole lines. */
static inline int ctl_end(void)
{
	char path[128];
	size_t length;

	run.status = wait_for(run.pid);
	path_in(path, sizeof(path), "out");
	run.out_length = read_file(path, run.out, sizeof(run.out));
	path_in(path, sizeof(path), "err");
	length = read_file(path, run.err, sizeof(run.err));
	assert_true(length == 0 || run.err[length - 1] == '\n');
	return run.status;
}

#define CTL(...) ctl_begin(NULL, NULL, (const char *const[]){__VA_ARGS__, NULL})
#define ctl(...) (CTL(__VA_ARGS__), ctl_end())

static inline void assert_says(const char *output, const char *text)
{
	if (!strstr(output, text))
		fail_msg("\"%s\" is not in: %s", text, output);
}

/* One error line with our name. */
static inline void assert_one_error_line(void)
{
	assert_int_equal(strncmp(run.err, "riptidectl: ", 12), 0);
	assert_ptr_equal(strchr(run.err, '\n'), run.err + strlen(run.err) - 1);
}

static inline json_t *json_of(const char *text)
{
	json_error_t error;
	json_t *document = json_loads(text, JSON_REJECT_DUPLICATES, &error);

	if (!document)
		fail_msg("no JSON (%s): %s", error.text, text);
	return document;
}

static inline long long member(const json_t *document, const char *name)
{
	const json_t *value = json_object_get(document, name);

	if (!json_is_integer(value))
		fail_msg("\"%s\" is no integer", name);
	return json_integer_value(value);
}

static inline riptide *open_handle(void)
{
	struct riptide_options options = {.size = sizeof(options), .socket = the_agent.socket, .name = "ctl-test"};
	riptide *handle;

	assert_int_equal(riptide_open(&options, &handle), RIPTIDE_OK);
	return handle;
}

static inline int start_agent(void **state)
{
	(void)state;
	if (agent_process_start(&the_agent, NULL) < 0)
		return -1;
	strcpy(socket_path, the_agent.socket);
	return 0;
}

static inline int stop_agent(void **state)
{
	(void)state;
	return agent_process_stop_and_clean(&the_agent);
}

#endif
