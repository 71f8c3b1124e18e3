/* futex_test.c - sleeping and waking on a shared word, between processes. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/order.h"
#include "shm/os/futex.h"

static uint32_t *words;

static int setup(void **state)
{
	(void)state;
	words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return words == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	return munmap(words, 4096);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static void word_that_changed_already_is_not_slept_on(void **state)
{
	uint64_t before = now_ms();

	(void)state;
	words[0] = 5;
	rshm_futex_wait(&words[0], 4, 60000);
	assert_true(now_ms() - before < 10000);
}

static void sleep_ends_with_its_time(void **state)
{
	uint64_t before = now_ms();

	(void)state;
	words[0] = 5;
	rshm_futex_wait(&words[0], 5, 1); /* may end early: spurious wake-ups are allowed */
	while (now_ms() - before < 1100) {
		uint64_t left = 1100 - (now_ms() - before);

		rshm_futex_wait(&words[0], 5, left < 1100 ? (uint32_t)left : 1);
	}
	assert_true(now_ms() - before < 10000);
}

static void time_of_nothing_looks_once(void **state)
{
	uint64_t before = now_ms();

	(void)state;
	words[0] = 5;
	rshm_futex_wait(&words[0], 5, 0);
	assert_true(now_ms() - before < 10000);
}

static void wake_without_a_sleeper_does_nothing(void **state)
{
	(void)state;
	words[0] = 7;
	rshm_futex_wake(&words[0]);
	assert_int_equal(words[0], 7);
}

static void on_alarm(int signal_number)
{
	(void)signal_number;
}

static void signal_ends_a_sleep_like_any_wake(void **state)
{
	struct sigaction action = {.sa_handler = on_alarm}, before_action;
	struct itimerval timer = {.it_value = {.tv_usec = 50000}, .it_interval = {.tv_usec = 50000}}, off = {0};
	uint64_t before = now_ms();

	(void)state;
	words[0] = 5;
	assert_int_equal(sigaction(SIGALRM, &action, &before_action), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
	rshm_futex_wait(&words[0], 5, 60000);
	assert_int_equal(setitimer(ITIMER_REAL, &off, NULL), 0);
	assert_int_equal(sigaction(SIGALRM, &before_action, NULL), 0);
	assert_true(now_ms() - before < 20000);
}

/* Sleeps until words[0] is no longer `value`; 0 in time, 1 not. */
static int sleep_through(uint32_t value)
{
	uint64_t end = now_ms() + 60000;

	while (rshm_load_acquire32(&words[0]) == value && now_ms() < end)
		rshm_futex_wait(&words[0], value, 60000);
	return rshm_load_acquire32(&words[0]) == value;
}

static void one_wake_reaches_all_sleepers_of_other_processes(void **state)
{
	enum { SLEEPERS = 4 };
	pid_t pids[SLEEPERS];
	uint64_t before;

	(void)state;
	words[0] = 1;
	for (unsigned int i = 0; i < SLEEPERS; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0) {
			rshm_store_release32(&words[8 + i], 1);
			_exit(sleep_through(1));
		}
	}
	for (unsigned int i = 0; i < SLEEPERS; i++)
		while (!rshm_load_acquire32(&words[8 + i]))
			usleep(1000);
	usleep(100000); /* asleep by now, or about to find the word changed */
	before = now_ms();
	rshm_store_release32(&words[0], 2);
	rshm_futex_wake(&words[0]);
	for (unsigned int i = 0; i < SLEEPERS; i++) {
		int code = -1;

		assert_int_equal(waitpid(pids[i], &code, 0), pids[i]);
		assert_int_equal(code, 0);
	}
	assert_true(now_ms() - before < 30000); /* by the wake, not by the end of their time */
}

static void two_processes_hand_a_word_to_and_fro(void **state)
{
	enum { TURNS = 2000 };
	pid_t pid;
	int code = -1;

	(void)state;
	words[0] = 0;
	pid = fork();
	assert_true(pid >= 0);
	for (uint32_t turn = 0; turn < TURNS; turn++) {
		if ((turn % 2 == 1) != (pid == 0)) {
			if (sleep_through(turn)) {
				if (pid == 0)
					_exit(1);
				fail_msg("turn %u never ended", turn);
			}
			continue;
		}
		rshm_store_release32(&words[0], turn + 1);
		rshm_futex_wake(&words[0]);
	}
	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, &code, 0), pid);
	assert_int_equal(code, 0);
	assert_int_equal(words[0], TURNS);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(word_that_changed_already_is_not_slept_on),
		CASE(sleep_ends_with_its_time),
		CASE(time_of_nothing_looks_once),
		CASE(wake_without_a_sleeper_does_nothing),
		CASE(signal_ends_a_sleep_like_any_wake),
		CASE(one_wake_reaches_all_sleepers_of_other_processes),
		CASE(two_processes_hand_a_word_to_and_fro),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
