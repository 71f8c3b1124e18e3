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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "shm/layout.h"
#include "shm/order.h"
#include "tests/support/mini_agent.h"

/* A handle's life: open, agents that come and go, fork, descriptors that vanish, threads that end. */

struct fixture {
	struct mini_agent agent;
	riptide *handle;
};

static int open_handle(struct fixture *f, uint32_t timeout_ms)
{
	struct riptide_options options = {
		.size = sizeof(options), .timeout_ms = timeout_ms, .socket = f->agent.socket};

	return riptide_open(&options, &f->handle);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	mini_agent_start(&f->agent);
	if (open_handle(f, 3000) != RIPTIDE_OK)
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	riptide_close(&f->handle);
	mini_agent_stop(&f->agent);
	free(f);
	return 0;
}

static int put(riptide *handle, const char *key, const char *value)
{
	return riptide_set(handle, key, strlen(key), value, strlen(value), NULL, NULL);
}

/* True if the key's value is `value`; *ret_flags are its info's. */
static bool has(riptide *handle, const char *key, const char *value, uint32_t *ret_flags)
{
	struct riptide_info info;
	char buffer[64];
	size_t length = 0;
	int status = riptide_get_into(handle, key, strlen(key), buffer, sizeof(buffer), &length, &info);

	if (status == RIPTIDE_OK)
		*ret_flags = info.flags;
	return status == RIPTIDE_OK && length == strlen(value) && memcmp(buffer, value, length) == 0;
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Mappings of agent objects and segments in this process. */
static int count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	int count = 0;

	while (fgets(line, sizeof(line), maps))
		count += strstr(line, "/riptide.test.") != NULL;
	fclose(maps);
	return count;
}

static int count_doorbells(void)
{
	int count = 0;

	for (int fd = 100; fd < 200; fd++) {
		struct stat st;

		count += fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
	}
	return count;
}

/* ---- open --------------------------------------------------------------------------------------------------- */

static void open_without_an_agent_says_what_to_do(void **state)
{
	struct riptide_options options = {.size = sizeof(options), .socket = "/tmp/riptide-nobody.sock"};
	char text[300];
	riptide *handle = NULL;
	uint64_t began = now_ms();

	(void)state;
	assert_int_equal(riptide_open(&options, &handle), RIPTIDE_ENOAGENT);
	assert_true(now_ms() - began < 1000);
	assert_non_null(handle);
	assert_int_equal(riptide_last_error(handle, text, sizeof(text)), RIPTIDE_ENOAGENT);
	assert_string_equal(
		text, "open: the agent at /tmp/riptide-nobody.sock does not answer (No such file or directory); "
		      "start riptided or set RIPTIDE_SOCKET");
	assert_int_equal(put(handle, "k", "v"), RIPTIDE_ECLOSED);
	assert_int_equal(riptide_ping(handle, NULL), RIPTIDE_ECLOSED);
	assert_int_equal(riptide_get_batch(handle, NULL, 0), RIPTIDE_ECLOSED);
	riptide_close(&handle);
	assert_null(handle);
	riptide_close(&handle);
	riptide_close(NULL);
}

static void open_refuses_options_that_cannot_be(void **state)
{
	struct riptide_options options = {.size = 4};
	char tenant[80];
	riptide *handle;

	(void)state;
	assert_int_equal(riptide_open(&options, &handle), RIPTIDE_EINVALID);
	riptide_close(&handle);
	options.size = sizeof(options);
	memset(tenant, 'a', sizeof(tenant));
	tenant[79] = '\0';
	options.tenant = tenant;
	assert_int_equal(riptide_open(&options, &handle), RIPTIDE_EINVALID);
	riptide_close(&handle);
	assert_int_equal(riptide_open(NULL, NULL), RIPTIDE_EINVALID);
}

static void open_passes_the_agents_refusal_on(void **state)
{
	struct fixture *f = *state;
	char text[300];

	riptide_close(&f->handle);
	f->agent.knobs->refuse_attach = -RIPTIDE_EDENIED;
	assert_int_equal(open_handle(f, 500), RIPTIDE_EDENIED);
	(void)riptide_last_error(f->handle, text, sizeof(text));
	assert_string_equal(text, "open: the agent refuses tenant default: the mini agent says no");
	riptide_close(&f->handle);
	f->agent.knobs->refuse_attach = 0;
	f->agent.knobs->refuse_doorbell = -RIPTIDE_EAGAIN;
	assert_int_equal(open_handle(f, 500), RIPTIDE_EAGAIN);
	riptide_close(&f->handle);
	f->agent.knobs->refuse_doorbell = 0;
	f->agent.knobs->lie_about_owner = 1;
	assert_int_equal(open_handle(f, 500), RIPTIDE_EDENIED);
	riptide_close(&f->handle);
	assert_int_equal(count_mappings(), 0);
	assert_int_equal(count_doorbells(), 0);
}

static void without_a_segment_everything_goes_through_the_channel(void **state)
{
	struct fixture *f = *state;
	char text[300];
	uint32_t flags = 77;

	riptide_close(&f->handle);
	f->agent.knobs->no_segment = 1;
	assert_int_equal(open_handle(f, 500), RIPTIDE_OK);
	assert_int_equal(riptide_last_error(f->handle, text, sizeof(text)), RIPTIDE_OK);
	assert_string_equal(text, "open: no hot reads: another time namespace");
	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
	assert_true(has(f->handle, "k", "v", &flags));
	assert_int_equal(flags, 0);
}

static void an_object_of_another_user_is_not_read(void **state)
{
	struct fixture *f = *state;
	char path[160];
	uint32_t flags = 77;

	if (geteuid() != 0)
		skip();
	riptide_close(&f->handle);
	(void)snprintf(path, sizeof(path), "/dev/shm%s", f->agent.knobs->segment_name);
	assert_int_equal(chown(path, 12345, 12345), 0);
	assert_int_equal(open_handle(f, 500), RIPTIDE_OK);
	assert_int_equal(count_mappings(), 1);
	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
	assert_true(has(f->handle, "k", "v", &flags));
	assert_int_equal(flags, 0);
	riptide_close(&f->handle);
	(void)snprintf(path, sizeof(path), "/dev/shm%s", f->agent.knobs->agent_name);
	assert_int_equal(chown(path, 12345, 12345), 0);
	assert_int_equal(open_handle(f, 500), RIPTIDE_EDENIED);
}

/* ---- the agent comes and goes ------------------------------------------------------------------------------- */

static void hits_go_on_while_the_agent_is_dead(void **state)
{
	struct fixture *f = *state;
	uint32_t flags = 0;

	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
	mini_agent_kill(&f->agent);
	for (int i = 0; i < 1000; i++)
		assert_true(has(f->handle, "k", "v", &flags));
	assert_int_equal(flags, RIPTIDE_HOT);
}

static void an_outage_is_waited_for_once_and_then_fails_fast(void **state)
{
	struct fixture *f = *state;
	uint64_t began;
	char text[400];

	riptide_close(&f->handle);
	assert_int_equal(open_handle(f, 300), RIPTIDE_OK);
	mini_agent_kill(&f->agent);
	began = now_ms();
	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_ENOAGENT);
	assert_true(now_ms() - began >= 150 && now_ms() - began < 500);
	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_ENOAGENT);
	began = now_ms();
	for (int i = 0; i < 20; i++)
		assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_ENOAGENT);
	assert_true(now_ms() - began < 300);
	assert_int_equal(riptide_last_error(f->handle, text, sizeof(text)), RIPTIDE_ENOAGENT);
	assert_non_null(strstr(text, "set \"k\": the agent at "));
	mini_agent_restart(&f->agent);
	usleep(150000);
	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
}

static void a_restarted_agent_is_attached_to_by_the_next_write(void **state)
{
	struct fixture *f = *state;
	struct riptide_stats stats = {.size = sizeof(stats)};
	uint32_t flags;

	for (int round = 0; round < 5; round++) {
		assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
		assert_true(has(f->handle, "k", "v", &flags));
		mini_agent_kill(&f->agent);
		mini_agent_restart(&f->agent);
		assert_int_equal(put(f->handle, "k2", "w"), RIPTIDE_OK);
		assert_true(has(f->handle, "k2", "w", &flags));
		assert_int_equal(flags, RIPTIDE_HOT);
		/* Its objects are new ones: the old are unmapped, and not one doorbell too many is open. */
		assert_int_equal(count_mappings(), 2);
		assert_int_equal(count_doorbells(), 1);
	}
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_OK);
	assert_int_equal(stats.attaches, 6);
	assert_int_equal(stats.own_hits, 10);
}

static void an_agent_that_adopts_keeps_the_mappings(void **state)
{
	struct fixture *f = *state;
	uint32_t flags = 0;

	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
	f->agent.knobs->adopt = 1;
	mini_agent_kill(&f->agent);
	mini_agent_restart(&f->agent);
	assert_true(has(f->handle, "k", "v", &flags));
	assert_int_equal(f->agent.knobs->attaches, 1);
	assert_int_equal(put(f->handle, "k2", "w"), RIPTIDE_OK);
	assert_int_equal(f->agent.knobs->attaches, 2);
	assert_true(has(f->handle, "k", "v", &flags));
	assert_int_equal(flags, RIPTIDE_HOT);
	assert_int_equal(count_mappings(), 2);
}

static void a_write_taken_by_a_dying_agent_is_not_repeated(void **state)
{
	struct fixture *f = *state;
	pid_t first = f->agent.pid;

	f->agent.knobs->die_on_take = RSHM_OP_SET;
	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_EUNKNOWN);
	assert_int_equal(waitpid(first, NULL, 0), first);
	f->agent.knobs->die_on_take = 0;
	mini_agent_restart(&f->agent);
	assert_int_equal(riptide_exists(f->handle, "k", 1, NULL), RIPTIDE_MISS);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_SET], 1);
}

struct reviver {
	struct fixture *fixture;
	uint32_t done;
};

/* Starts the agent again as soon as it has died of a get. The thread lives on, for the agent dies with it. */
static void *revive(void *context)
{
	struct reviver *reviver = context;
	struct mini_agent *agent = &reviver->fixture->agent;

	waitpid(agent->pid, NULL, 0);
	agent->knobs->die_on_take = 0;
	mini_agent_restart(agent);
	while (!rshm_load_acquire32(&reviver->done))
		usleep(1000);
	return NULL;
}

static void a_read_taken_by_a_dying_agent_is_repeated(void **state)
{
	struct fixture *f = *state;
	struct reviver reviver = {.fixture = f};
	struct riptide_value value;
	pthread_t thread;

	f->agent.knobs->die_on_take = RSHM_OP_GET;
	assert_int_equal(pthread_create(&thread, NULL, revive, &reviver), 0);
	assert_int_equal(riptide_get(f->handle, "x", 1, &value), RIPTIDE_MISS);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_GET], 2);
	assert_int_equal(f->agent.knobs->attaches, 2);
	rshm_store_release32(&reviver.done, 1);
	pthread_join(thread, NULL);
}

static void a_request_not_taken_by_a_dying_agent_goes_to_the_next(void **state)
{
	struct fixture *f = *state;
	struct reviver reviver = {.fixture = f};
	struct timespec pause = {.tv_nsec = 20000000};
	pthread_t thread;
	pid_t killer;

	f->agent.knobs->hold = 1;
	assert_int_equal(pthread_create(&thread, NULL, revive, &reviver), 0);
	killer = fork();
	if (killer == 0) {
		nanosleep(&pause, NULL);
		kill(f->agent.pid, SIGKILL);
		f->agent.knobs->hold = 0;
		_exit(0);
	}
	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
	waitpid(killer, NULL, 0);
	assert_int_equal(riptide_exists(f->handle, "k", 1, NULL), RIPTIDE_OK);
	rshm_store_release32(&reviver.done, 1);
	pthread_join(thread, NULL);
}

struct hammer {
	riptide *handle;
	uint32_t stop, hits, wrong, failed_hits;
};

static void *hammer_run(void *context)
{
	struct hammer *h = context;

	while (!rshm_load_relaxed32(&h->stop)) {
		char buffer[16];
		size_t length;
		int status = riptide_get_into(h->handle, "k", 1, buffer, sizeof(buffer), &length, NULL);

		h->hits += status == RIPTIDE_OK;
		h->failed_hits += status < 0;
		h->wrong += status == RIPTIDE_OK && (length != 1 || buffer[0] != 'v');
	}
	return NULL;
}

static void segments_are_replaced_under_reading_threads(void **state)
{
	struct fixture *f = *state;
	struct hammer hammers[3];
	pthread_t threads[3];

	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
	for (int i = 0; i < 3; i++) {
		hammers[i] = (struct hammer){.handle = f->handle};
		pthread_create(&threads[i], NULL, hammer_run, &hammers[i]);
	}
	for (int round = 0; round < 30; round++) {
		if (round % 3 == 0) {
			mini_agent_kill(&f->agent);
			mini_agent_restart(&f->agent);
		} else {
			rshm_store_release32(&f->agent.knobs->grow, 1);
			while (rshm_load_acquire32(&f->agent.knobs->grow))
				usleep(100);
		}
		assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
		usleep(3000);
	}
	for (int i = 0; i < 3; i++) {
		rshm_store_relaxed32(&hammers[i].stop, 1);
		pthread_join(threads[i], NULL);
		assert_int_equal(hammers[i].wrong, 0);
		assert_int_equal(hammers[i].failed_hits, 0);
		assert_true(hammers[i].hits > 100);
	}
	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
	assert_true(count_mappings() <= 3);
}

/* ---- fork --------------------------------------------------------------------------------------------------- */

/* Runs `body` in a child; returns what it returned. */
static int in_child(int (*body)(struct fixture *f), struct fixture *f)
{
	int status;
	pid_t child = fork();

	if (child == 0)
		_exit(body(f));
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int child_reads_and_writes(struct fixture *f)
{
	uint32_t flags = 0, attaches = f->agent.knobs->attaches;

	if (!has(f->handle, "k", "v", &flags) || flags != RIPTIDE_HOT)
		return 1;
	if (f->agent.knobs->attaches != attaches || count_doorbells() != 0)
		return 2;
	if (put(f->handle, "child", "c") != RIPTIDE_OK)
		return 3;
	if (f->agent.knobs->attaches != attaches + 1 || count_doorbells() != 1)
		return 4;
	riptide_close(&f->handle);
	return count_mappings() == 0 ? 0 : 5;
}

static void a_child_reads_at_once_and_attaches_when_it_must(void **state)
{
	struct fixture *f = *state;
	uint32_t flags;

	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
	assert_int_equal(in_child(child_reads_and_writes, f), 0);
	assert_true(has(f->handle, "child", "c", &flags));
	assert_int_equal(put(f->handle, "k", "w"), RIPTIDE_OK);
	/* Its own channel served the parent throughout. */
	assert_int_equal(f->agent.knobs->attaches, 2);
}

static int child_ends_a_view(struct fixture *f)
{
	uint32_t flags;

	/* The parent's view is held below; here the agent is attached to, and a new segment mapped. */
	rshm_store_release32(&f->agent.knobs->grow, 1);
	while (rshm_load_acquire32(&f->agent.knobs->grow))
		usleep(100);
	if (put(f->handle, "n", "n") != RIPTIDE_OK || !has(f->handle, "n", "n", &flags))
		return 1;
	return 0;
}

static void a_view_held_over_fork_stays_readable(void **state)
{
	struct fixture *f = *state;
	struct riptide_view view;
	int status;
	pid_t child;

	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
	assert_int_equal(riptide_view(f->handle, "k", 1, &view), RIPTIDE_OK);
	child = fork();
	if (child == 0) {
		int wrong = child_ends_a_view(f);

		if (((const char *)view.data)[0] == '\0')
			wrong = 2;
		if (riptide_view_end(f->handle, &view) != RIPTIDE_EVOID)
			wrong = 3;
		riptide_close(&f->handle);
		_exit(wrong);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(riptide_view_end(f->handle, &view), RIPTIDE_EVOID);
}

static void *writer_run(void *context)
{
	struct hammer *h = context;

	for (unsigned int i = 0; !rshm_load_relaxed32(&h->stop); i++) {
		h->wrong += put(h->handle, "k", "v") != RIPTIDE_OK;
		h->wrong += riptide_exists(h->handle, "absent", 6, NULL) != RIPTIDE_MISS;
	}
	return NULL;
}

static int child_of_threads(struct fixture *f)
{
	uint32_t flags;

	for (int i = 0; i < 3; i++)
		if (put(f->handle, "k", "v") != RIPTIDE_OK || !has(f->handle, "k", "v", &flags))
			return 1;
	return 0;
}

static void children_of_a_process_whose_threads_hold_locks_work(void **state)
{
	struct fixture *f = *state;
	struct hammer hammers[4];
	pthread_t threads[4];

	for (int i = 0; i < 4; i++) {
		hammers[i] = (struct hammer){.handle = f->handle};
		pthread_create(&threads[i], NULL, writer_run, &hammers[i]);
	}
	for (int i = 0; i < 40; i++)
		assert_int_equal(in_child(child_of_threads, f), 0);
	for (int i = 0; i < 4; i++) {
		rshm_store_relaxed32(&hammers[i].stop, 1);
		pthread_join(threads[i], NULL);
		assert_int_equal(hammers[i].wrong, 0);
	}
}

static int grandchild(struct fixture *f)
{
	return put(f->handle, "k", "v") == RIPTIDE_OK ? in_child(child_of_threads, f) : 9;
}

static void a_child_may_fork_too(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(in_child(grandchild, f), 0);
}

/* ---- descriptors and threads -------------------------------------------------------------------------------- */

static void an_application_that_closes_all_descriptors_is_served(void **state)
{
	struct fixture *f = *state;
	int pipes[2], null;
	struct stat before, after;

	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
	for (int fd = 3; fd < 256; fd++)
		close(fd);
	/* An agent that is awake needs no bell, and may serve a call before it sees that the doorbell is gone. */
	for (int i = 0; i < 100 && count_doorbells() == 0; i++)
		assert_int_equal(put(f->handle, "k", "w"), RIPTIDE_OK);
	assert_int_equal(count_doorbells(), 1);
	/* Now with others in their place. */
	for (int fd = 3; fd < 256; fd++)
		close(fd);
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_int_equal(dup2(null, 100), 100);
	assert_int_equal(fstat(100, &before), 0);
	assert_int_equal(put(f->handle, "k", "x"), RIPTIDE_OK);
	riptide_close(&f->handle);
	assert_int_equal(fstat(100, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	close(100);
	close(null);
	close(pipes[0]);
	close(pipes[1]);
}

static void *short_life(void *context)
{
	uint32_t flags;

	return has(context, "k", "v", &flags) ? context : NULL;
}

static void threads_that_end_give_their_place_back(void **state)
{
	struct fixture *f = *state;
	struct riptide_stats stats = {.size = sizeof(stats)};

	assert_int_equal(put(f->handle, "k", "v"), RIPTIDE_OK);
	/* More than there are places. */
	for (int i = 0; i < 4500; i++) {
		pthread_t thread;
		void *result;

		assert_int_equal(pthread_create(&thread, NULL, short_life, f->handle), 0);
		pthread_join(thread, &result);
		assert_non_null(result);
	}
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_OK);
	assert_int_equal(stats.own_hits, 4500);
	assert_int_equal(stats.own_misses, 0);
}

static void two_handles_of_a_process_do_not_meet(void **state)
{
	struct fixture *f = *state;
	struct fixture second = {.agent = f->agent};
	uint32_t flags;

	assert_int_equal(open_handle(&second, 1000), RIPTIDE_OK);
	assert_int_equal(put(second.handle, "k", "v"), RIPTIDE_OK);
	assert_true(has(f->handle, "k", "v", &flags));
	riptide_close(&second.handle);
	assert_true(has(f->handle, "k", "v", &flags));
	assert_int_equal(put(f->handle, "k", "w"), RIPTIDE_OK);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(open_without_an_agent_says_what_to_do),
		cmocka_unit_test(open_refuses_options_that_cannot_be),
		CASE(open_passes_the_agents_refusal_on),
		CASE(without_a_segment_everything_goes_through_the_channel),
		CASE(an_object_of_another_user_is_not_read),
		CASE(hits_go_on_while_the_agent_is_dead),
		CASE(an_outage_is_waited_for_once_and_then_fails_fast),
		CASE(a_restarted_agent_is_attached_to_by_the_next_write),
		CASE(an_agent_that_adopts_keeps_the_mappings),
		CASE(a_write_taken_by_a_dying_agent_is_not_repeated),
		CASE(a_read_taken_by_a_dying_agent_is_repeated),
		CASE(a_request_not_taken_by_a_dying_agent_goes_to_the_next),
		CASE(segments_are_replaced_under_reading_threads),
		CASE(a_child_reads_at_once_and_attaches_when_it_must),
		CASE(a_view_held_over_fork_stays_readable),
		CASE(children_of_a_process_whose_threads_hold_locks_work),
		CASE(a_child_may_fork_too),
		CASE(an_application_that_closes_all_descriptors_is_served),
		CASE(threads_that_end_give_their_place_back),
		CASE(two_handles_of_a_process_do_not_meet),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
