#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "shm/order.h"
#include "tests/support/e2e.h"

/* Several processes on one cache: what one sets another sees at once; fork, closed and hijacked descriptors harm nobody. */

#define WORKERS 4
#define PASSES 100000u
#define PATIENCE_MS 40000

struct fixture {
	struct agent_process agent;
	riptide *handle;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (agent_process_start(&f->agent, NULL) < 0 || e2e_open(&f->agent, NULL, 5000, &f->handle) != RIPTIDE_OK)
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	riptide_close(&f->handle);
	status = agent_process_stop_and_clean(&f->agent);
	free(f);
	return status;
}

static void *shared_memory(size_t size)
{
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(base, MAP_FAILED);
	return base;
}

/* ---- sharing ------------------------------------------------------------------------------------------------ */

/* The handle was opened before the fork: first use attaches anew. */
static int work_and_count_failures(void *context)
{
	riptide *handle = context;
	struct riptide_stats stats = {.size = sizeof(stats)};
	char key[32], value[32];
	int failures = 0;

	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "own-%d-%d", (int)getpid(), i);
		snprintf(value, sizeof(value), "value %d", i);
		failures += e2e_put(handle, key, value) != RIPTIDE_OK;
		failures += e2e_check(handle, key, value, NULL) != RIPTIDE_OK;
		failures += e2e_check(handle, "parent", "before the fork", NULL) != RIPTIDE_OK;
	}
	failures += riptide_stats(handle, &stats) != RIPTIDE_OK;
	failures += stats.own_hits == 0;
	riptide_close(&handle);
	return failures > 250 ? 250 : failures;
}

static void forked_workers_share_the_cache(void **state)
{
	struct fixture *f = *state;
	pid_t workers[WORKERS];

	assert_int_equal(e2e_put(f->handle, "parent", "before the fork"), RIPTIDE_OK);
	for (int i = 0; i < WORKERS; i++)
		workers[i] = e2e_fork(work_and_count_failures, f->handle);
	for (int i = 0; i < WORKERS; i++)
		assert_int_equal(e2e_join(workers[i], PATIENCE_MS), 0);
	assert_int_equal(e2e_check(f->handle, "parent", "before the fork", NULL), RIPTIDE_OK);
	assert_true(e2e_await_exactly(&f->agent, "control.channels_open", 1, 3000));
	assert_int_equal(e2e_number(&f->agent, "control.attaches"), 1 + WORKERS);
	assert_int_equal(e2e_number(&f->agent, "workers.0.protocol_errors"), 0);
}

struct relay {
	riptide *handle;
	struct turns {
		uint64_t set, seen; /* rounds */
		uint64_t older, failed;
		uint32_t end;
	} * turns; /* shared */
};

static bool await_turn(const uint64_t *turn, uint64_t least, const uint32_t *end)
{
	while (rshm_load_acquire(turn) < least)
		if (rshm_load_relaxed32(end))
			return false;
		else
			rshm_pause();
	return true;
}

/* Reads the key the moment the other process says that its set has returned: the value must be that one. */
static int read_what_was_set(void *context)
{
	struct relay *relay = context;
	struct turns *turns = relay->turns;

	for (uint64_t round = 1; round <= PASSES && await_turn(&turns->set, round, &turns->end); round++) {
		uint64_t value = 0;
		size_t length;
		int status = riptide_get_into(relay->handle, "baton", 5, &value, sizeof(value), &length, NULL);

		if (status != RIPTIDE_OK)
			rshm_add_relaxed(&turns->failed, 1);
		else if (value != round)
			rshm_add_relaxed(&turns->older, 1);
		rshm_store_release(&turns->seen, round);
	}
	riptide_close(&relay->handle);
	return 0;
}

static void a_set_is_seen_at_once_in_another_process(void **state)
{
	struct fixture *f = *state;
	struct relay relay = {.handle = f->handle, .turns = shared_memory(sizeof(struct turns))};
	pid_t reader = e2e_fork(read_what_was_set, &relay);
	uint64_t until = e2e_now_ms() + PATIENCE_MS, round, failed = 0;

	for (round = 1; round <= PASSES && e2e_now_ms() < until; round++) {
		failed += riptide_set(f->handle, "baton", 5, &round, sizeof(round), NULL, NULL) != RIPTIDE_OK;
		rshm_store_release(&relay.turns->set, round);
		while (rshm_load_acquire(&relay.turns->seen) < round && e2e_now_ms() < until)
			rshm_pause();
	}
	rshm_store_release32(&relay.turns->end, 1);
	assert_int_equal(e2e_join(reader, PATIENCE_MS), 0);
	/* A loaded machine may not get through all rounds in time; far from all would test nothing. */
	assert_true(round > PASSES / 10);
	assert_int_equal(failed + relay.turns->failed, 0);
	assert_int_equal(relay.turns->older, 0);
	munmap(relay.turns, sizeof(*relay.turns));
}

static int delete_and_report(void *context)
{
	riptide *handle = context;
	int status = riptide_delete(handle, "victim", 6);

	return status == RIPTIDE_OK ? 0 : 1;
}

static void a_delete_is_seen_at_once_in_another_process(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 50; i++) {
		assert_int_equal(e2e_put(f->handle, "victim", "alive"), RIPTIDE_OK);
		assert_int_equal(e2e_check(f->handle, "victim", "alive", NULL), RIPTIDE_OK);
		assert_int_equal(e2e_join(e2e_fork(delete_and_report, f->handle), 5000), 0);
		assert_int_equal(e2e_check(f->handle, "victim", "alive", NULL), RIPTIDE_MISS);
	}
}

/* ---- fork --------------------------------------------------------------------------------------------------- */

struct load {
	pthread_t thread;
	riptide *handle;
	uint32_t end;
	unsigned long rounds, failures;
};

static void *load_main(void *context)
{
	struct load *load = context;

	for (unsigned long i = 0; !rshm_load_relaxed32(&load->end); i++) {
		char value[32];

		snprintf(value, sizeof(value), "%lu", i);
		load->failures += e2e_put(load->handle, "loaded", value) != RIPTIDE_OK;
		load->failures += e2e_check(load->handle, "steady", "as ever", NULL) != RIPTIDE_OK;
		load->rounds++;
	}
	return NULL;
}

static int use_after_fork(void *context)
{
	riptide *handle = context;
	int failures = e2e_check(handle, "steady", "as ever", NULL) != RIPTIDE_OK;

	failures += e2e_put(handle, "child", "was here") != RIPTIDE_OK;
	failures += e2e_check(handle, "child", "was here", NULL) != RIPTIDE_OK;
	riptide_close(&handle);
	return failures;
}

static void children_of_a_threaded_parent_work_at_once(void **state)
{
	struct fixture *f = *state;
	struct load loads[3];
	int failures = 0;

	assert_int_equal(e2e_put(f->handle, "steady", "as ever"), RIPTIDE_OK);
	for (int i = 0; i < 3; i++) {
		loads[i] = (struct load){.handle = f->handle};
		assert_int_equal(pthread_create(&loads[i].thread, NULL, load_main, &loads[i]), 0);
	}
	for (int i = 0; i < 60; i++)
		failures += e2e_join(e2e_fork(use_after_fork, f->handle), 10000) != 0;
	for (int i = 0; i < 3; i++) {
		rshm_store_relaxed32(&loads[i].end, 1);
		pthread_join(loads[i].thread, NULL);
		assert_int_equal(loads[i].failures, 0);
		assert_true(loads[i].rounds > 0);
	}
	assert_int_equal(failures, 0);
	assert_true(e2e_await_exactly(&f->agent, "control.channels_open", 1, 3000));
}

static int exit_without_using(void *context)
{
	(void)context;
	return 0;
}

static void a_child_that_only_exits_leaves_the_parents_channel_alone(void **state)
{
	struct fixture *f = *state;
	struct riptide_stats stats = {.size = sizeof(stats)};

	for (int i = 0; i < 20; i++) {
		assert_int_equal(e2e_join(e2e_fork(exit_without_using, NULL), 5000), 0);
		assert_int_equal(e2e_put(f->handle, "after", "exit"), RIPTIDE_OK);
	}
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_OK);
	assert_int_equal(stats.attaches, 1);
}

static int fork_again(void *context)
{
	riptide *handle = context;
	int failures = e2e_check(handle, "steady", "as ever", NULL) != RIPTIDE_OK;

	return failures + (e2e_join(e2e_fork(use_after_fork, handle), 10000) != 0);
}

static void grandchildren_work_too(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(e2e_put(f->handle, "steady", "as ever"), RIPTIDE_OK);
	assert_int_equal(e2e_join(e2e_fork(fork_again, f->handle), 20000), 0);
}

/* A view is held by the parent while a child comes and goes: the child's close must not take the parent's mapping. */
static void a_view_held_across_a_fork_stays_the_parents(void **state)
{
	struct fixture *f = *state;
	struct riptide_view view;

	assert_int_equal(e2e_put(f->handle, "steady", "as ever"), RIPTIDE_OK);
	assert_int_equal(riptide_view(f->handle, "steady", 6, &view), RIPTIDE_OK);
	assert_int_equal(e2e_join(e2e_fork(use_after_fork, f->handle), 10000), 0);
	assert_memory_equal(view.data, "as ever", 7);
	assert_int_equal(riptide_view_end(f->handle, &view), RIPTIDE_OK);
}

/* ---- descriptors -------------------------------------------------------------------------------------------- */

static int close_everything_and_go_on(void *context)
{
	riptide *handle;
	int failures = 0;

	if (e2e_open(context, NULL, 5000, &handle) != RIPTIDE_OK)
		return 1;
	failures += e2e_put(handle, "kept", "through it all") != RIPTIDE_OK;
	for (int i = 0; i < 5; i++) {
		close_range(3, ~0u, 0);
		failures += e2e_check(handle, "kept", "through it all", NULL) != RIPTIDE_OK;
		e2e_pause_ms(
			100); /* long enough for the worker to let the channel sleep: the next call has to ring */
		failures += e2e_put(handle, "after", "closing") != RIPTIDE_OK;
		failures += e2e_check(handle, "after", "closing", NULL) != RIPTIDE_OK;
	}
	riptide_close(&handle);
	return failures;
}

static void an_application_that_closes_all_descriptors_goes_on(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(e2e_join(e2e_fork(close_everything_and_go_on, &f->agent), 20000), 0);
	assert_true(e2e_await_exactly(&f->agent, "control.channels_open", 1, 3000));
}

static bool is_socket(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* Puts files of its own over whatever sockets the library has, goes on, and finds its files as they were. */
static int hijack_and_look(void *context)
{
	char path[128];
	int hijacked[64], count = 0, failures = 0;
	struct stat st;
	riptide *handle;

	if (e2e_open(context, NULL, 5000, &handle) != RIPTIDE_OK || e2e_put(handle, "a", "1") != RIPTIDE_OK)
		return 1;
	snprintf(path, sizeof(path), "%s/hijack", ((struct agent_process *)context)->folder);
	for (int fd = 3; fd < 1024 && count < 64; fd++) {
		int file;

		if (!is_socket(fd))
			continue;
		file = open(path, O_RDWR | O_CREAT | O_APPEND, 0600);
		if (file < 0 || dup2(file, fd) != fd)
			return 2;
		if (file != fd)
			close(file);
		hijacked[count++] = fd;
	}
	failures += count == 0; /* then this case tests nothing */
	e2e_pause_ms(100);
	failures += e2e_put(handle, "b", "2") != RIPTIDE_OK;
	failures += e2e_check(handle, "b", "2", NULL) != RIPTIDE_OK;
	riptide_close(&handle);
	for (int i = 0; i < count; i++)
		failures += fstat(hijacked[i], &st) < 0 || st.st_size != 0;
	return failures;
}

static void descriptors_put_over_the_librarys_are_neither_written_nor_closed(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(e2e_join(e2e_fork(hijack_and_look, &f->agent), 20000), 0);
}

static int count_low_descriptors(void *context)
{
	int before, after, failures = 0;
	riptide *handle;

	close_range(3, ~0u, 0); /* what the test's own caller may have left open */
	before = open("/dev/null", O_RDONLY);
	close(before);
	if (e2e_open(context, NULL, 5000, &handle) != RIPTIDE_OK || e2e_put(handle, "a", "1") != RIPTIDE_OK)
		return 1;
	after = open("/dev/null", O_RDONLY);
	failures += after != before;
	close(after);
	for (int fd = 3; fd < 1024; fd++) {
		int flags = fcntl(fd, F_GETFD);

		failures += flags >= 0 && (fd < 100 || !(flags & FD_CLOEXEC));
	}
	riptide_close(&handle);
	return failures;
}

static void the_library_takes_no_low_descriptor_and_leaks_none_to_exec(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(e2e_join(e2e_fork(count_low_descriptors, &f->agent), 10000), 0);
}

static int open_and_close_many_times(void *context)
{
	int before = e2e_descriptors(getpid());
	riptide *handle;

	for (int i = 0; i < 50; i++) {
		if (e2e_open(context, NULL, 5000, &handle) != RIPTIDE_OK || e2e_put(handle, "a", "1") != RIPTIDE_OK)
			return 1;
		riptide_close(&handle);
	}
	return e2e_descriptors(getpid()) == before ? 0 : 2;
}

static void opening_and_closing_leaves_no_descriptor(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(e2e_join(e2e_fork(open_and_close_many_times, &f->agent), 20000), 0);
	assert_true(e2e_await_exactly(&f->agent, "control.channels_open", 1, 3000));
}

/* ---- signals ------------------------------------------------------------------------------------------------ */

/* Waits until it is told that the agent is dead, then makes calls that would ring: none may raise SIGPIPE. */
static int call_a_dead_agent(void *context)
{
	struct agent_process *agent = context;
	struct sigaction action;
	riptide *handle;

	if (e2e_open(agent, NULL, 300, &handle) != RIPTIDE_OK || e2e_put(handle, "a", "1") != RIPTIDE_OK)
		return 1;
	if (sigaction(SIGPIPE, NULL, &action) < 0 || action.sa_handler != SIG_DFL)
		return 2;
	kill(agent->pid, SIGKILL);
	for (int i = 0; i < 3; i++) {
		e2e_pause_ms(50);
		if (e2e_put(handle, "b", "2") == RIPTIDE_OK)
			return 3;
	}
	riptide_close(&handle);
	return 0;
}

static void a_dying_agent_raises_no_signal_in_its_clients(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(e2e_join(e2e_fork(call_a_dead_agent, &f->agent), 20000), 0);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_put(f->handle, "a", "2"), RIPTIDE_OK);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(forked_workers_share_the_cache),
		CASE(a_delete_is_seen_at_once_in_another_process),
		CASE(a_set_is_seen_at_once_in_another_process),
		CASE(a_child_that_only_exits_leaves_the_parents_channel_alone),
		CASE(grandchildren_work_too),
		CASE(a_view_held_across_a_fork_stays_the_parents),
		CASE(children_of_a_threaded_parent_work_at_once),
		CASE(an_application_that_closes_all_descriptors_goes_on),
		CASE(descriptors_put_over_the_librarys_are_neither_written_nor_closed),
		CASE(the_library_takes_no_low_descriptor_and_leaks_none_to_exec),
		CASE(opening_and_closing_leaves_no_descriptor),
		CASE(a_dying_agent_raises_no_signal_in_its_clients),
	};
#undef CASE

	signal(SIGPIPE, SIG_DFL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
