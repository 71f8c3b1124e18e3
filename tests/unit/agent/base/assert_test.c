#include "agent/base/assert.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void must_passes_and_evaluates_once(void **state)
{
	int calls = 0;

	(void)state;
	must(++calls == 1);
	assert_int_equal(calls, 1);
}

static void must_names_place_and_condition_and_aborts(void **state)
{
	char text[512] = "";
	int pipes[2], status;
	size_t length = 0;
	ssize_t got;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		dup2(pipes[1], STDERR_FILENO);
		must(1 + 1 == 3);
		_exit(0);
	}
	close(pipes[1]);
	while ((got = read(pipes[0], text + length, sizeof(text) - 1 - length)) > 0)
		length += (size_t)got;
	close(pipes[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_non_null(strstr(text, "assert_test.c:"));
	assert_non_null(strstr(text, "1 + 1 == 3"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(must_passes_and_evaluates_once),
		cmocka_unit_test(must_names_place_and_condition_and_aborts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
