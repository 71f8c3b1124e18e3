#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "shm/order.h"
#include "tests/support/e2e.h"

/*
 * The agent dies, stops, hangs, comes back: no wrong byte, no failed hot read, no acknowledged write lost.
 *
 * Readers and writers are processes of their own. Every key has one writer, which publishes in shared memory the number
 * of the last write it began and of the last that was acknowledged; a value is right if it names its key and a number from
 * [acknowledged before the read, begun after it].
 */

#define KEYS 64
#define READERS 2
#define WRITERS 2
#define KILLS 100

struct ledger {
	struct line {
		uint64_t begun, acknowledged;
	} keys[KEYS];
	uint64_t reads, hot, stale, misses, wrong, lost, read_errors, writes, unknown, refused, write_errors;
	int64_t last_error;
	uint32_t end;
};

struct fixture {
	struct agent_process agent;
	riptide *handle;
	struct ledger *ledger;
};

struct worker {
	struct fixture *fixture;
	int number;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->ledger = mmap(NULL, sizeof(*f->ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (f->ledger == MAP_FAILED || agent_process_start(&f->agent, NULL) < 0 ||
	    e2e_open(&f->agent, NULL, 8000, &f->handle) != RIPTIDE_OK)
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
	munmap(f->ledger, sizeof(*f->ledger));
	free(f);
	return status;
}

static void count(uint64_t *counter)
{
	rshm_add_relaxed(counter, 1);
}

/* ---- load --------------------------------------------------------------------------------------------------- */

#define VALUE_BYTES 200

/* The number, the key, and bytes that follow from both. */
static void fill(unsigned char value[VALUE_BYTES], uint64_t key, uint64_t number)
{
	memcpy(value, &key, 8);
	memcpy(value + 8, &number, 8);
	for (size_t i = 16; i < VALUE_BYTES; i++)
		value[i] = (unsigned char)(key * 31 + number * 17 + i);
}

static int set_number(riptide *handle, uint64_t key, uint64_t number)
{
	unsigned char value[VALUE_BYTES];

	fill(value, key, number);
	return riptide_set(handle, &key, sizeof(key), value, sizeof(value), NULL, NULL);
}

static void judge(struct ledger *ledger, uint64_t key, uint64_t least, const unsigned char *value, size_t length)
{
	unsigned char expected[VALUE_BYTES];
	uint64_t number;

	memcpy(&number, value + 8, 8);
	fill(expected, key, number);
	if (length != VALUE_BYTES || memcmp(value, expected, VALUE_BYTES) != 0)
		count(&ledger->wrong);
	else if (number < least || number > rshm_load_acquire(&ledger->keys[key].begun))
		count(&ledger->lost);
}

static void read_one(struct ledger *ledger, riptide *handle, uint64_t key)
{
	uint64_t least = rshm_load_acquire(&ledger->keys[key].acknowledged);
	struct riptide_info info = {.flags = 0};
	unsigned char value[VALUE_BYTES + 64];
	size_t length;
	int status = riptide_get_into(handle, &key, sizeof(key), value, sizeof(value), &length, &info);

	count(&ledger->reads);
	if (status == RIPTIDE_OK) {
		judge(ledger, key, least, value, length);
		if (info.flags & RIPTIDE_HOT)
			count(&ledger->hot);
		if (info.flags & RIPTIDE_STALE)
			count(&ledger->stale);
	} else if (status == RIPTIDE_MISS) {
		count(&ledger->misses);
	} else {
		ledger->last_error = status;
		count(&ledger->read_errors);
	}
}

static int reader_main(void *context)
{
	struct worker *w = context;
	struct ledger *ledger = w->fixture->ledger;
	riptide *handle = w->fixture->handle;

	for (uint64_t i = (uint64_t)w->number; !rshm_load_relaxed32(&ledger->end); i++)
		read_one(ledger, handle, i * 7 % KEYS);
	riptide_close(&handle);
	return 0;
}

static void write_one(struct ledger *ledger, riptide *handle, uint64_t key)
{
	struct line *line = &ledger->keys[key];
	uint64_t number = line->begun + 1;
	int status;

	rshm_store_release(&line->begun, number);
	status = set_number(handle, key, number);
	count(&ledger->writes);
	if (status == RIPTIDE_OK) {
		rshm_store_release(&line->acknowledged, number);
	} else if (status == RIPTIDE_EUNKNOWN) {
		count(&ledger->unknown);
	} else if (riptide_error_is_retryable(status)) {
		count(&ledger->refused);
	} else {
		ledger->last_error = status;
		count(&ledger->write_errors);
	}
}

static int writer_main(void *context)
{
	struct worker *w = context;
	struct ledger *ledger = w->fixture->ledger;
	riptide *handle = w->fixture->handle;

	for (uint64_t i = 0; !rshm_load_relaxed32(&ledger->end); i++)
		write_one(ledger, handle, (i * WRITERS + (uint64_t)w->number) % KEYS);
	riptide_close(&handle);
	return 0;
}

static void fill_all(struct fixture *f)
{
	for (uint64_t key = 0; key < KEYS; key++) {
		write_one(f->ledger, f->handle, key);
		assert_int_equal(f->ledger->keys[key].acknowledged, 1);
	}
}

static void report(const struct ledger *l)
{
	print_message(
		"%llu reads (%llu hot, %llu stale, %llu misses, %llu errors), %llu writes (%llu unknown, %llu refused, "
		"%llu errors; last %lld)\n",
		(unsigned long long)l->reads, (unsigned long long)l->hot, (unsigned long long)l->stale,
		(unsigned long long)l->misses, (unsigned long long)l->read_errors, (unsigned long long)l->writes,
		(unsigned long long)l->unknown, (unsigned long long)l->refused, (unsigned long long)l->write_errors,
		(long long)l->last_error);
}

static void assert_nothing_went_wrong(const struct ledger *l)
{
	assert_int_equal(l->wrong, 0);
	assert_int_equal(l->lost, 0);
	assert_int_equal(l->read_errors, 0);
	assert_int_equal(l->misses, 0);
	assert_int_equal(l->write_errors, 0);
	assert_true(l->hot > 0);
}

/* Every key has what was acknowledged last, or what was begun after it. */
static void assert_everything_acknowledged_is_there(struct fixture *f)
{
	/* The second time from shared memory. */
	for (int i = 0; i < 2; i++)
		for (uint64_t key = 0; key < KEYS; key++)
			read_one(f->ledger, f->handle, key);
	assert_nothing_went_wrong(f->ledger);
}

static void under_load(struct fixture *f, void (*disturb)(struct fixture *f))
{
	struct worker workers[READERS + WRITERS];
	pid_t pids[READERS + WRITERS];

	fill_all(f);
	for (int i = 0; i < READERS + WRITERS; i++) {
		workers[i] = (struct worker){.fixture = f, .number = i % WRITERS};
		pids[i] = e2e_fork(i < READERS ? reader_main : writer_main, &workers[i]);
	}
	disturb(f);
	rshm_store_relaxed32(&f->ledger->end, 1);
	for (int i = 0; i < READERS + WRITERS; i++)
		assert_int_equal(e2e_join(pids[i], 20000), 0);
	report(f->ledger);
}

/* ---- kill --------------------------------------------------------------------------------------------------- */

static void kill_and_restart_many_times(struct fixture *f)
{
	for (int i = 0; i < KILLS; i++) {
		e2e_pause_ms(20 + rand() % 150);
		assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
		e2e_pause_ms(rand() % 50);
		assert_int_equal(agent_process_restart(&f->agent), 0);
	}
	e2e_pause_ms(300);
}

static void a_hundred_kills_under_load_lose_and_break_nothing(void **state)
{
	struct fixture *f = *state;

	under_load(f, kill_and_restart_many_times);
	assert_everything_acknowledged_is_there(f);
	assert_int_equal(e2e_number(&f->agent, "adoptions"), KILLS);
	assert_int_equal(e2e_number(&f->agent, "workers.0.protocol_errors"), 0);
}

/* The hot copies alone must serve while nobody is there. */
static void hot_reads_go_on_while_the_agent_is_dead(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info;
	uint64_t until;

	fill_all(f);
	assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
	until = e2e_now_ms() + 3000; /* beyond the lease of 2 s */
	while (e2e_now_ms() < until)
		for (uint64_t key = 0; key < KEYS; key++)
			read_one(f->ledger, f->handle, key);
	assert_nothing_went_wrong(f->ledger);
	assert_int_equal(f->ledger->hot, f->ledger->reads);
	assert_true(f->ledger->stale > 0 && f->ledger->stale < f->ledger->reads);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_put(f->handle, "new", "life"), RIPTIDE_OK);
	assert_true(e2e_await_exactly(&f->agent, "coherence.revalidating", 0, 5000));
	assert_int_equal(e2e_check(f->handle, "new", "life", &info), RIPTIDE_OK);
	read_one(f->ledger, f->handle, 1);
	assert_nothing_went_wrong(f->ledger);
}

static void a_client_attaches_again_by_itself(void **state)
{
	struct riptide_stats stats = {.size = sizeof(stats)};
	struct fixture *f = *state;

	for (int i = 0; i < 3; i++) {
		assert_int_equal(agent_process_restart(&f->agent), 0);
		assert_int_equal(e2e_put(f->handle, "again", "here"), RIPTIDE_OK);
	}
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_OK);
	assert_int_equal(stats.attaches, 4);
}

/* The deleted must stay deleted, and the newer value must win, whatever is left in the hot ring. */
static void what_was_acknowledged_before_a_kill_holds_after_it(void **state)
{
	struct fixture *f = *state;
	char key[32];

	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "fate-%d", i);
		assert_int_equal(e2e_put(f->handle, key, "first"), RIPTIDE_OK);
		assert_int_equal(i % 2 ? e2e_put(f->handle, key, "second")
				       : riptide_delete(f->handle, key, strlen(key)),
				 RIPTIDE_OK);
	}
	assert_int_equal(agent_process_restart(&f->agent), 0);
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "fate-%d", i);
		assert_int_equal(e2e_check(f->handle, key, "second", NULL), i % 2 ? RIPTIDE_OK : RIPTIDE_MISS);
	}
}

/* ---- stop ---------------------------------------------------------------------------------------------------- */

static void stop_and_restart(struct fixture *f)
{
	for (int i = 0; i < 5; i++) {
		e2e_pause_ms(200);
		assert_true(e2e_stop(&f->agent));
		assert_int_equal(agent_process_restart(&f->agent), 0);
	}
	e2e_pause_ms(200);
}

static int setup_keeping(void **state)
{
	static const char *const settings[] = {"agent.keep_on_stop=true", NULL};
	struct fixture *f = calloc(1, sizeof(*f));

	f->ledger = mmap(NULL, sizeof(*f->ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (f->ledger == MAP_FAILED || agent_process_start(&f->agent, settings) < 0 ||
	    e2e_open(&f->agent, NULL, 8000, &f->handle) != RIPTIDE_OK)
		return -1;
	*state = f;
	return 0;
}

static void a_successor_takes_over_from_an_agent_that_was_told_to_stop(void **state)
{
	struct fixture *f = *state;

	under_load(f, stop_and_restart);
	assert_everything_acknowledged_is_there(f);
	assert_int_equal(e2e_number(&f->agent, "adoptions"), 5);
	assert_true(agent_process_log_has(&f->agent, "took over from a predecessor"));
}

static void a_stopped_agent_that_keeps_nothing_removes_its_objects(void **state)
{
	struct fixture *f = *state;

	fill_all(f);
	assert_true(e2e_objects(&f->agent) >= 2);
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	assert_int_equal(e2e_objects(&f->agent), 0);
	assert_int_equal(access(f->agent.socket, F_OK), -1);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_everything_acknowledged_is_there(f);
	assert_int_equal(e2e_number(&f->agent, "adoptions"), 0);
}

static void objects_do_not_pile_up_over_kills(void **state)
{
	struct fixture *f = *state;
	int before;

	fill_all(f);
	before = e2e_objects(&f->agent);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(agent_process_restart(&f->agent), 0);
		assert_int_equal(e2e_put(f->handle, "a", "b"), RIPTIDE_OK);
	}
	assert_true(e2e_objects(&f->agent) <= before);
}

/* ---- two of them -------------------------------------------------------------------------------------------- */

static int run_second_agent(void *context)
{
	const struct agent_process *agent = context;
	char program[512], output[128];
	const char *build = getenv("RIPTIDE_BUILD_DIR");
	char *arguments[2 * AGENT_PROCESS_SETTINGS + 3];
	int n = 0, fd;

	snprintf(program, sizeof(program), "%s/riptided", build ? build : "build");
	snprintf(output, sizeof(output), "%s/second", agent->folder);
	fd = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	dup2(fd, 1);
	dup2(fd, 2);
	arguments[n++] = program;
	arguments[n++] = (char *)"--no-config";
	for (int i = 0; i < agent->setting_count; i++) {
		arguments[n++] = (char *)"--set";
		arguments[n++] = agent->settings[i];
	}
	arguments[n] = NULL;
	execv(program, arguments);
	return 127;
}

static void a_second_agent_of_the_instance_is_refused(void **state)
{
	struct fixture *f = *state;
	char path[128], text[2048], pid[32];
	int objects = e2e_objects(&f->agent), lines = 0;
	FILE *file;
	size_t n;

	assert_int_equal(e2e_put(f->handle, "a", "b"), RIPTIDE_OK);
	assert_int_equal(e2e_join(e2e_fork(run_second_agent, &f->agent), 10000), 1);
	snprintf(path, sizeof(path), "%s/second", f->agent.folder);
	file = fopen(path, "re");
	assert_non_null(file);
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[n] = '\0';
	for (size_t i = 0; i < n; i++)
		lines += text[i] == '\n';
	snprintf(pid, sizeof(pid), "pid %d", (int)f->agent.pid);
	assert_int_equal(lines, 1);
	assert_non_null(strstr(text, pid));
	assert_int_equal(e2e_objects(&f->agent), objects);
	assert_int_equal(e2e_check(f->handle, "a", "b", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_put(f->handle, "still", "served"), RIPTIDE_OK);
}

/* ---- hang ---------------------------------------------------------------------------------------------------- */

static void a_hanging_agent_costs_a_deadline_and_no_hot_read(void **state)
{
	struct fixture *f = *state;
	uint64_t began, took;
	riptide *hasty;
	int status;

	fill_all(f);
	assert_int_equal(e2e_open(&f->agent, NULL, 300, &hasty), RIPTIDE_OK);
	read_one(f->ledger, hasty, 0);
	assert_int_equal(agent_process_kill(&f->agent, SIGSTOP), 0);
	/* The signal has been sent; its last thread stops a little later. */
	e2e_pause_ms(100);
	began = e2e_now_ms();
	for (int i = 0; i < 10; i++) {
		uint64_t call = e2e_now_ms();

		status = e2e_put(hasty, "into", "the void");
		took = e2e_now_ms() - call;
		if (status != RIPTIDE_EUNKNOWN && status != RIPTIDE_ETIMEDOUT)
			fail_msg("status %d (%s)", status, riptide_strerror(status));
		assert_true(took < 800);
		for (uint64_t key = 0; key < KEYS; key++)
			read_one(f->ledger, hasty, key);
	}
	assert_true(e2e_now_ms() - began >= 2900);
	assert_nothing_went_wrong(f->ledger);
	assert_true(f->ledger->stale > 0);
	assert_int_equal(agent_process_kill(&f->agent, SIGCONT), 0);
	assert_int_equal(e2e_put(f->handle, "after", "the pause"), RIPTIDE_OK);
	assert_int_equal(e2e_put(hasty, "after", "the pause too"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "after", "the pause too", NULL), RIPTIDE_OK);
	riptide_close(&hasty);
	assert_everything_acknowledged_is_there(f);
	assert_int_equal(e2e_number(&f->agent, "adoptions"), 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(a_client_attaches_again_by_itself),
		CASE(what_was_acknowledged_before_a_kill_holds_after_it),
		CASE(a_second_agent_of_the_instance_is_refused),
		CASE(a_stopped_agent_that_keeps_nothing_removes_its_objects),
		CASE(objects_do_not_pile_up_over_kills),
		CASE(hot_reads_go_on_while_the_agent_is_dead),
		CASE(a_hanging_agent_costs_a_deadline_and_no_hot_read),
		cmocka_unit_test_setup_teardown(a_successor_takes_over_from_an_agent_that_was_told_to_stop,
						setup_keeping, teardown),
		CASE(a_hundred_kills_under_load_lose_and_break_nothing),
	};
#undef CASE

	srand((unsigned int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
