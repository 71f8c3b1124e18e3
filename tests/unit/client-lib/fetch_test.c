#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "shm/layout.h"
#include "shm/order.h"
#include "tests/support/mini_agent.h"

/* One load per missing key: what the library asks, tells and returns, and with several processes. */

#define LOAD_ERROR (-1234)

/* Shared with children. */
struct play {
	uint32_t loads;
	int32_t result; /* of the loader */
	uint32_t pause_ms;
	uint32_t die;
	uint32_t without_bytes;
	uint32_t tagged;
};

struct fixture {
	struct mini_agent agent;
	riptide *handle;
	struct play *play;
	struct riptide_fetch_options options;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct riptide_options options = {.size = sizeof(options), .timeout_ms = 2000};

	mini_agent_start(&f->agent);
	options.socket = f->agent.socket;
	if (riptide_open(&options, &f->handle) != RIPTIDE_OK)
		return -1;
	f->play = mmap(NULL, sizeof(*f->play), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	f->options.size = sizeof(f->options);
	*state = f;
	return f->play == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	riptide_close(&f->handle);
	mini_agent_stop(&f->agent);
	munmap(f->play, sizeof(*f->play));
	free(f);
	return 0;
}

static void pause_ms(long ms)
{
	struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&pause, NULL);
}

static int load(void *context, const void *key, size_t key_length, struct riptide_loaded *ret)
{
	static const char *const tags[] = {"red"};
	static const struct riptide_metadata metadata = {.content_type = "text/plain", .tags = tags, .tag_count = 1};
	struct play *play = context;

	(void)key;
	(void)key_length;
	__atomic_add_fetch(&play->loads, 1, __ATOMIC_SEQ_CST);
	pause_ms(play->pause_ms);
	if (play->die)
		kill(getpid(), SIGKILL);
	*ret = (struct riptide_loaded){.data = play->without_bytes ? NULL : "loaded", .length = 6};
	if (play->tagged)
		ret->metadata = &metadata;
	return play->result;
}

static int fetch(struct fixture *f, const char *key, struct riptide_value *value)
{
	return riptide_fetch(f->handle, key, strlen(key), load, f->play, &f->options, value);
}

/* Fetches and expects the loaded value; returns its flags. */
static uint32_t fetch_loaded(struct fixture *f, const char *key)
{
	struct riptide_value value;
	uint32_t flags;

	assert_int_equal(fetch(f, key, &value), RIPTIDE_OK);
	assert_int_equal(value.length, 6);
	assert_string_equal(value.data, "loaded");
	flags = value.info.flags;
	riptide_value_free(&value);
	return flags;
}

static void a_hot_value_is_fetched_without_the_agent(void **state)
{
	struct fixture *f = *state;
	uint32_t requests;

	assert_int_equal(riptide_set(f->handle, "k", 1, "loaded", 6, NULL, NULL), RIPTIDE_OK);
	requests = f->agent.knobs->requests;
	assert_int_equal(fetch_loaded(f, "k"), RIPTIDE_HOT);
	assert_int_equal(f->agent.knobs->requests, requests);
	assert_int_equal(f->play->loads, 0);
}

static void a_missing_value_is_loaded_stored_and_returned(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value, again;
	const struct rshm_request *last = &f->agent.knobs->last;

	f->play->tagged = 1;
	f->options.ttl_ms = 60000;
	f->options.compression = RIPTIDE_COMPRESS_LZ4;
	f->options.write_mode = RIPTIDE_WRITE_BEHIND;
	assert_int_equal(fetch(f, "k", &value), RIPTIDE_OK);
	assert_int_equal(f->play->loads, 1);
	assert_int_equal(last->op, RSHM_OP_SET);
	assert_int_equal(last->flags, RSHM_REQUEST_TICKET);
	assert_int_equal(last->ttl_ms, 60000);
	assert_int_equal(last->change, rshm_change(RSHM_ALWAYS, RSHM_WRITE_BEHIND, RSHM_COMPRESS_LZ4));
	assert_string_equal(value.data, "loaded");
	assert_int_equal(value.info.ttl_ms, 60000);
	assert_int_equal(value.info.age_ms, 0);
	assert_int_equal(value.info.flags, 0);
	assert_int_equal(value.info.metadata_length, value.metadata_length);
	/* The same as a read gives. */
	assert_int_equal(riptide_get(f->handle, "k", 1, &again), RIPTIDE_OK);
	assert_true(again.info.version == value.info.version);
	assert_int_equal(again.length, value.length);
	assert_int_equal(again.metadata_length, value.metadata_length);
	assert_memory_equal(again.metadata, value.metadata, value.metadata_length);
	riptide_value_free(&value);
	riptide_value_free(&again);
	assert_int_equal(fetch_loaded(f, "k"), RIPTIDE_HOT);
	assert_int_equal(f->play->loads, 1);
}

static void the_agent_is_told_how_long_loading_may_take(void **state)
{
	struct fixture *f = *state;

	f->play->result = LOAD_ERROR;
	assert_int_equal(fetch(f, "k", &(struct riptide_value){.data = NULL}), LOAD_ERROR);
	assert_int_equal(f->agent.knobs->last.op, RSHM_OP_FETCH);
	assert_int_equal(f->agent.knobs->last.operand, 2000);
	f->options.load_timeout_ms = 77;
	assert_int_equal(fetch(f, "k", &(struct riptide_value){.data = NULL}), LOAD_ERROR);
	assert_int_equal(f->agent.knobs->last.operand, 77);
}

static void a_failed_load_gives_its_ticket_back(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value = {.length = 9};

	f->play->result = LOAD_ERROR;
	assert_int_equal(fetch(f, "k", &value), LOAD_ERROR);
	assert_int_equal(value.length, 9);
	assert_int_equal(riptide_last_error(f->handle, NULL, 0), LOAD_ERROR);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_FETCH_FAILED], 1);
	/* Codes that a loader may not return, bytes that are not there, metadata that cannot be: all give it back. */
	f->play->result = RIPTIDE_CONFLICT;
	assert_int_equal(fetch(f, "k", &value), RIPTIDE_EINVALID);
	f->play->result = RIPTIDE_OK;
	f->play->without_bytes = 1;
	assert_int_equal(fetch(f, "k", &value), RIPTIDE_EINVALID);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_FETCH_FAILED], 3);
	f->play->without_bytes = 0;
	(void)fetch_loaded(f, "k");
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_FETCH_FAILED], 3);
}

static void an_absence_is_remembered_only_on_request(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value = {.data = NULL};

	f->play->result = RIPTIDE_MISS;
	assert_int_equal(fetch(f, "k", &value), RIPTIDE_MISS);
	assert_int_equal(value.info.flags, 0);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_FETCH_FAILED], 1);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_SET], 0);
	f->options.negative_ttl_ms = 60000;
	assert_int_equal(fetch(f, "k", &value), RIPTIDE_MISS);
	assert_int_equal(f->agent.knobs->last.flags, RSHM_REQUEST_TICKET | RSHM_REQUEST_NEGATIVE);
	assert_int_equal(f->agent.knobs->last.ttl_ms, 60000);
	assert_int_equal(fetch(f, "k", &value), RIPTIDE_MISS);
	assert_int_equal(value.info.flags, RIPTIDE_NEGATIVE | RIPTIDE_HOT);
	assert_int_equal(f->play->loads, 2);
}

static void a_value_that_cannot_be_stored_is_returned(void **state)
{
	struct fixture *f = *state;

	f->agent.knobs->refuse_op = RSHM_OP_SET;
	f->agent.knobs->refuse_status = RSHM_E_BACKEND;
	(void)fetch_loaded(f, "k");
	f->agent.knobs->refuse_status = RSHM_CONFLICT;
	(void)fetch_loaded(f, "other");
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_SET], 2);
}

static void an_agent_without_room_does_not_stop_the_loader(void **state)
{
	struct fixture *f = *state;

	f->agent.knobs->refuse_op = RSHM_OP_FETCH;
	f->agent.knobs->refuse_status = RSHM_E_AGAIN;
	(void)fetch_loaded(f, "k");
	/* Stored without a ticket. */
	assert_int_equal(f->agent.knobs->last.op, RSHM_OP_SET);
	assert_int_equal(f->agent.knobs->last.flags, 0);
	assert_int_equal(f->play->loads, 1);
	/* Other errors are what a get would return. */
	f->agent.knobs->refuse_status = RSHM_E_CORRUPT;
	assert_int_equal(fetch(f, "x", &(struct riptide_value){.data = NULL}), RIPTIDE_ECORRUPT);
	f->agent.knobs->refuse_status = RSHM_E_TIMEDOUT;
	assert_int_equal(fetch(f, "x", &(struct riptide_value){.data = NULL}), RIPTIDE_ETIMEDOUT);
	assert_int_equal(f->play->loads, 1);
}

static void without_an_agent_the_loader_goes_on(void **state)
{
	struct fixture *f = *state;
	struct riptide_options options = {.size = sizeof(options), .timeout_ms = 200};
	struct timespec began, ended;

	riptide_close(&f->handle);
	options.socket = f->agent.socket;
	assert_int_equal(riptide_open(&options, &f->handle), RIPTIDE_OK);
	mini_agent_kill(&f->agent);
	(void)fetch_loaded(f, "k");
	clock_gettime(CLOCK_MONOTONIC, &began);
	for (int i = 0; i < 5; i++)
		(void)fetch_loaded(f, "k");
	clock_gettime(CLOCK_MONOTONIC, &ended);
	assert_int_equal(f->play->loads, 6);
	/* Known to be away, it is hardly waited for. */
	assert_true((ended.tv_sec - began.tv_sec) * 1000 + (ended.tv_nsec - began.tv_nsec) / 1000000 < 2000);
}

/* ---- with others -------------------------------------------------------------------------------------------- */

static pid_t fork_fetch(struct fixture *f, const char *key)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct riptide_value value;
		int status = fetch(f, key, &value);

		_exit(status == RIPTIDE_OK ? strcmp(value.data, "loaded") != 0 : 100);
	}
	return pid;
}

static int join(pid_t pid)
{
	int status = 0;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

#define CROWD 8

static void many_processes_load_once(void **state)
{
	struct fixture *f = *state;
	pid_t pids[CROWD];

	f->play->pause_ms = 300;
	for (int i = 0; i < CROWD; i++)
		pids[i] = fork_fetch(f, "k");
	for (int i = 0; i < CROWD; i++)
		assert_int_equal(join(pids[i]), 0);
	assert_int_equal(f->play->loads, 1);
}

static void a_loader_that_dies_is_followed_by_one_who_waits(void **state)
{
	struct fixture *f = *state;
	pid_t dying, waiting;

	f->play->pause_ms = 200;
	f->play->die = 1;
	dying = fork_fetch(f, "k");
	assert_int_equal(mini_agent_await(&f->play->loads, 1), 1);
	waiting = fork_fetch(f, "k");
	assert_int_equal(mini_agent_await(&f->agent.knobs->taken[RSHM_OP_FETCH], 2), 2);
	pause_ms(100);
	assert_int_equal(join(dying), 1000 + SIGKILL);
	f->play->die = 0;
	assert_int_equal(join(waiting), 0);
	assert_int_equal(f->play->loads, 2);
}

static void who_waited_in_vain_does_not_load(void **state)
{
	struct fixture *f = *state;
	pid_t slow;
	struct riptide_value value;

	f->play->pause_ms = 2600;
	slow = fork_fetch(f, "k");
	assert_int_equal(mini_agent_await(&f->play->loads, 1), 1);
	assert_int_equal(fetch(f, "k", &value), RIPTIDE_ETIMEDOUT);
	assert_int_equal(f->play->loads, 1);
	assert_int_equal(join(slow), 0);
}

/* ---- old values --------------------------------------------------------------------------------------------- */

/* Stores a value whose ttl is over. */
static void grow_old(struct fixture *f)
{
	f->options.ttl_ms = 30;
	(void)fetch_loaded(f, "k");
	pause_ms(60);
	f->play->loads = 0;
}

static void an_old_value_is_given_while_another_one_refreshes_it(void **state)
{
	struct fixture *f = *state;
	pid_t slow;

	f->options.stale_while_refresh_ms = 60000;
	grow_old(f);
	f->options.ttl_ms = 60000;
	f->play->pause_ms = 500;
	slow = fork_fetch(f, "k");
	assert_int_equal(mini_agent_await(&f->play->loads, 1), 1);
	assert_int_equal(fetch_loaded(f, "k") & RIPTIDE_STALE, RIPTIDE_STALE);
	assert_int_equal(f->play->loads, 1);
	assert_int_equal(join(slow), 0);
	assert_int_equal(fetch_loaded(f, "k"), RIPTIDE_HOT);
	assert_int_equal(f->play->loads, 1);
}

static void an_old_value_that_is_not_hot_is_refreshed_too(void **state)
{
	struct fixture *f = *state;

	f->agent.knobs->cold = 1;
	f->options.stale_while_refresh_ms = 60000;
	grow_old(f);
	f->options.ttl_ms = 60000;
	assert_int_equal(fetch_loaded(f, "k"), 0);
	assert_int_equal(f->play->loads, 1);
	/* The new one has a new deadline: fresh, from the store. */
	assert_int_equal(fetch_loaded(f, "k"), 0);
	assert_int_equal(f->play->loads, 1);
}

static void beyond_the_window_the_old_value_is_not_given(void **state)
{
	struct fixture *f = *state;
	pid_t slow;

	f->options.stale_while_refresh_ms = 60000;
	grow_old(f);
	f->options.stale_while_refresh_ms = 1;
	f->play->pause_ms = 300;
	slow = fork_fetch(f, "k");
	assert_int_equal(mini_agent_await(&f->play->loads, 1), 1);
	f->options.ttl_ms = 60000;
	/* It waits for the new one instead. */
	assert_int_equal(fetch_loaded(f, "k") & RIPTIDE_STALE, 0);
	assert_int_equal(f->play->loads, 1);
	assert_int_equal(join(slow), 0);
}

static void an_old_value_is_given_when_loading_fails(void **state)
{
	struct fixture *f = *state;

	f->options.stale_if_error_ms = 60000;
	grow_old(f);
	f->play->result = LOAD_ERROR;
	assert_int_equal(fetch_loaded(f, "k") & RIPTIDE_STALE, RIPTIDE_STALE);
	assert_int_equal(f->play->loads, 1);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_FETCH_FAILED], 1);
	/* Not when it is too old, nor when the loader says that there is none. */
	f->options.stale_if_error_ms = 1;
	assert_int_equal(fetch(f, "k", &(struct riptide_value){.data = NULL}), LOAD_ERROR);
	f->options.stale_if_error_ms = 60000;
	f->play->result = RIPTIDE_MISS;
	assert_int_equal(fetch(f, "k", &(struct riptide_value){.data = NULL}), RIPTIDE_MISS);
	f->options.stale_if_error_ms = 0;
	f->play->result = LOAD_ERROR;
	assert_int_equal(fetch(f, "k", &(struct riptide_value){.data = NULL}), LOAD_ERROR);
}

static void stale_options_store_a_longer_life_and_a_soft_deadline(void **state)
{
	struct fixture *f = *state;
	const struct rshm_request *last = &f->agent.knobs->last;

	f->options.ttl_ms = 1000;
	f->options.stale_while_refresh_ms = 5000;
	f->options.stale_if_error_ms = 9000;
	(void)fetch_loaded(f, "a");
	assert_int_equal(last->ttl_ms, 10000);
	assert_int_equal(last->metadata_len, 13);
	f->options.stale_if_error_ms = UINT64_MAX;
	(void)fetch_loaded(f, "b");
	assert_true(last->ttl_ms == RSHM_NEVER);
	/* Without a ttl in numbers there is nothing that could be over. */
	f->options.ttl_ms = 0;
	(void)fetch_loaded(f, "c");
	assert_int_equal(last->ttl_ms, RSHM_TTL_DEFAULT);
	assert_int_equal(last->metadata_len, 0);
	f->options.ttl_ms = RIPTIDE_NEVER;
	(void)fetch_loaded(f, "d");
	assert_true(last->ttl_ms == RSHM_NEVER);
	assert_int_equal(last->metadata_len, 0);
}

static int load_from_handle(void *context, const void *key, size_t key_length, struct riptide_loaded *ret)
{
	struct fixture *f = context;
	static char bytes[16];
	size_t length;

	if (riptide_get_into(f->handle, "source", 6, bytes, sizeof(bytes), &length, NULL) != RIPTIDE_OK ||
	    riptide_set(f->handle, "seen", 4, key, key_length, NULL, NULL) != RIPTIDE_OK)
		return LOAD_ERROR;
	*ret = (struct riptide_loaded){.data = bytes, .length = length, .ttl_ms = 777};
	return RIPTIDE_OK;
}

static void the_loader_may_use_the_handle_and_name_a_ttl(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value;

	assert_int_equal(riptide_set(f->handle, "source", 6, "bytes", 5, NULL, NULL), RIPTIDE_OK);
	f->options.ttl_ms = 60000;
	assert_int_equal(riptide_fetch(f->handle, "k", 1, load_from_handle, f, &f->options, &value), RIPTIDE_OK);
	assert_string_equal(value.data, "bytes");
	assert_int_equal(value.info.ttl_ms, 777);
	assert_int_equal(f->agent.knobs->last.ttl_ms, 777);
	assert_int_equal(riptide_exists(f->handle, "seen", 4, NULL), RIPTIDE_OK);
	riptide_value_free(&value);
}

static void arguments_are_checked(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value;

	assert_int_equal(riptide_fetch(f->handle, "", 0, load, NULL, NULL, &value), RIPTIDE_EINVALID);
	assert_int_equal(riptide_fetch(f->handle, "k", 1, NULL, NULL, NULL, &value), RIPTIDE_EINVALID);
	assert_int_equal(riptide_fetch(f->handle, "k", 1, load, f->play, NULL, NULL), RIPTIDE_EINVALID);
	f->options.size--;
	assert_int_equal(fetch(f, "k", &value), RIPTIDE_EINVALID);
	f->options.size++;
	f->options.write_mode = (enum riptide_write_mode)9;
	assert_int_equal(fetch(f, "k", &value), RIPTIDE_EINVALID);
	assert_int_equal(f->play->loads, 0);
	assert_int_equal(f->agent.knobs->requests, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_hot_value_is_fetched_without_the_agent),
		CASE(a_missing_value_is_loaded_stored_and_returned),
		CASE(the_agent_is_told_how_long_loading_may_take),
		CASE(a_failed_load_gives_its_ticket_back),
		CASE(an_absence_is_remembered_only_on_request),
		CASE(a_value_that_cannot_be_stored_is_returned),
		CASE(an_agent_without_room_does_not_stop_the_loader),
		CASE(without_an_agent_the_loader_goes_on),
		CASE(many_processes_load_once),
		CASE(a_loader_that_dies_is_followed_by_one_who_waits),
		CASE(who_waited_in_vain_does_not_load),
		CASE(an_old_value_is_given_while_another_one_refreshes_it),
		CASE(an_old_value_that_is_not_hot_is_refreshed_too),
		CASE(beyond_the_window_the_old_value_is_not_given),
		CASE(an_old_value_is_given_when_loading_fails),
		CASE(stale_options_store_a_longer_life_and_a_soft_deadline),
		CASE(the_loader_may_use_the_handle_and_name_a_ttl),
		CASE(arguments_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
