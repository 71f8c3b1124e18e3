#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "agent/base/metric.h"
#include "riptide/riptide.h"
#include "shm/order.h"
#include "tests/support/e2e.h"
#include "tests/support/redis_server.h"

/* A real redis-server behind the agent: what it holds, that it may be absent, die and come back, and be changed by others. */

#define KEY_OF(key) "riptide:v1:{default.0}:1:c:" key

struct fixture {
	struct redis_server server;
	struct agent_process agent;
	riptide *handle;
	char url[160];
};

static int start_agent(struct fixture *f, const char *mode)
{
	const char *settings[] = {"agent.backend=redis",
				  f->url,
				  mode,
				  "redis.command_timeout_ms=500",
				  "redis.retry_attempts=1",
				  "redis.retry_max_delay_ms=200",
				  "redis.connection_timeout_ms=500",
				  NULL};

	snprintf(f->url, sizeof(f->url), "redis.url=unix://%s", f->server.unix_path);
	if (agent_process_start(&f->agent, settings) < 0)
		return -1;
	return e2e_open(&f->agent, NULL, 3000, &f->handle) == RIPTIDE_OK ? 0 : -1;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	if (redis_server_start(&f->server, NULL) < 0 || start_agent(f, "coherence.mode=tracking") < 0)
		return -1;
	return e2e_await_trust(&f->agent) ? 0 : -1;
}

static int setup_ttl(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	if (redis_server_start(&f->server, NULL) < 0 || start_agent(f, "coherence.mode=ttl") < 0)
		return -1;
	return e2e_await_trust(&f->agent) ? 0 : -1;
}

static int setup_without_server(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	return redis_server_prepare(&f->server) < 0 ? -1 : start_agent(f, "coherence.mode=auto");
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	riptide_close(&f->handle);
	status = agent_process_stop_and_clean(&f->agent);
	redis_server_stop(&f->server);
	free(f);
	return status;
}

/* An integer reply of a command of the test's own connection. */
static long long ask(const struct fixture *f, const char *command, const char *key)
{
	redisContext *redis = redisConnectUnix(f->server.unix_path);
	redisReply *reply = redis && !redis->err ? redisCommand(redis, "%s %s", command, key) : NULL;
	long long number = reply && reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1;

	if (reply)
		freeReplyObject(reply);
	if (redis)
		redisFree(redis);
	return number;
}

/* Puts the envelope of one key under another, or removes a key, behind the agent's back. */
static void copy_behind_its_back(const struct fixture *f, const char *from, const char *to)
{
	redisContext *redis = redisConnectUnix(f->server.unix_path);
	redisReply *reply;

	assert_non_null(redis);
	reply = redisCommand(redis, "GET %s", from);
	assert_non_null(reply);
	assert_int_equal(reply->type, REDIS_REPLY_STRING);
	freeReplyObject(redisCommand(redis, "SET %s %b", to, reply->str, reply->len));
	freeReplyObject(reply);
	redisFree(redis);
}

/* ---- contents ----------------------------------------------------------------------------------------------- */

static void entries_stand_under_readable_keys(void **state)
{
	struct fixture *f = *state;
	long long ttl;

	assert_int_equal(e2e_put(f->handle, "greeting", "hello"), RIPTIDE_OK);
	assert_int_equal(ask(f, "EXISTS", KEY_OF("greeting")), 1);
	assert_true(ask(f, "STRLEN", KEY_OF("greeting")) > 5);
	ttl = ask(f, "PTTL", KEY_OF("greeting"));
	assert_true(ttl > 86390000 && ttl <= 86400000);
	assert_int_equal(riptide_delete(f->handle, "greeting", 8), RIPTIDE_OK);
	assert_int_equal(ask(f, "EXISTS", KEY_OF("greeting")), 0);
}

static void hot_reads_do_not_reach_the_server(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info = {.flags = 0};
	char mode[16];

	assert_int_equal(e2e_put(f->handle, "hot", "copy"), RIPTIDE_OK);
	for (int i = 0; i < 100; i++)
		assert_int_equal(e2e_check(f->handle, "hot", "copy", &info), RIPTIDE_OK);
	assert_true(info.flags & RIPTIDE_HOT);
	e2e_text(&f->agent, "coherence.mode", mode, sizeof(mode));
	assert_string_equal(mode, "tracking");
	assert_int_equal(e2e_number(&f->agent, "coherence.max_age_ms"), 0);
	/* They last, too. */
	e2e_pause_ms(1500);
	assert_int_equal(e2e_check(f->handle, "hot", "copy", &info), RIPTIDE_OK);
	assert_int_equal(info.flags & (RIPTIDE_HOT | RIPTIDE_STALE), RIPTIDE_HOT);
}

static void without_tracking_hot_copies_live_by_their_age(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info = {.flags = 0};
	char mode[16];

	e2e_text(&f->agent, "coherence.mode", mode, sizeof(mode));
	assert_string_equal(mode, "ttl");
	assert_int_equal(e2e_number(&f->agent, "coherence.max_age_ms"), 1000);
	assert_int_equal(e2e_put(f->handle, "hot", "copy"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "hot", "copy", &info), RIPTIDE_OK);
	assert_int_equal(info.flags & (RIPTIDE_HOT | RIPTIDE_STALE), RIPTIDE_HOT);
	e2e_pause_ms(1200);
	assert_int_equal(e2e_check(f->handle, "hot", "copy", &info), RIPTIDE_OK);
	assert_false(info.flags & RIPTIDE_HOT);
}

static void large_values_and_batches_go_through(void **state)
{
	struct fixture *f = *state;
	size_t length = 20u << 20;
	char *bytes = malloc(length);
	struct riptide_value value;
	struct riptide_item items[500];
	char keys[500][16];

	memset(bytes, 'L', length);
	bytes[length - 1] = '!';
	assert_int_equal(riptide_set(f->handle, "large", 5, bytes, length, NULL, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_get(f->handle, "large", 5, &value), RIPTIDE_OK);
	assert_int_equal(value.length, length);
	assert_memory_equal(value.data, bytes, length);
	riptide_value_free(&value);
	free(bytes);
	memset(items, 0, sizeof(items));
	for (int i = 0; i < 500; i++)
		items[i] = (struct riptide_item){
			.key = keys[i],
			.key_length = (size_t)snprintf(keys[i], sizeof(keys[i]), "many-%d", i),
			.value = keys[i],
			.value_length = strlen(keys[i]),
		};
	assert_int_equal(riptide_set_batch(f->handle, items, 500), RIPTIDE_OK);
	for (int i = 0; i < 500; i++)
		assert_int_equal(items[i].status, RIPTIDE_OK);
	assert_int_equal(ask(f, "EXISTS", KEY_OF("many-499")), 1);
}

/* ---- other writers ------------------------------------------------------------------------------------------ */

static void a_foreign_change_is_seen_after_max_age(void **state)
{
	struct fixture *f = *state;
	uint64_t began;

	assert_int_equal(e2e_put(f->handle, "mine", "old"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "mine", "old", NULL), RIPTIDE_OK);
	began = e2e_now_ms();
	{
		redisContext *redis = redisConnectUnix(f->server.unix_path);

		freeReplyObject(redisCommand(redis, "DEL %s", KEY_OF("mine")));
		redisFree(redis);
	}
	assert_int_equal(e2e_await_check(f->handle, "mine", "old", RIPTIDE_MISS, 5000), RIPTIDE_MISS);
	assert_true(e2e_now_ms() - began < 1500);
}

/* An envelope under a key that is not its own is somebody's mistake or mischief: it is not that key's value. */
static void an_envelope_of_another_key_is_not_returned(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value;
	int status;

	assert_int_equal(e2e_put(f->handle, "original", "secret"), RIPTIDE_OK);
	copy_behind_its_back(f, KEY_OF("original"), KEY_OF("forged"));
	status = riptide_get(f->handle, "forged", 6, &value);
	assert_true(status == RIPTIDE_ECORRUPT || status == RIPTIDE_MISS);
	assert_int_equal(e2e_put(f->handle, "forged", "own"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "forged", "own", NULL), RIPTIDE_OK);
}

static void bytes_that_are_no_envelope_are_not_returned(void **state)
{
	struct fixture *f = *state;
	redisContext *redis = redisConnectUnix(f->server.unix_path);
	struct riptide_value value;

	freeReplyObject(redisCommand(redis, "SET %s %s", KEY_OF("junk"), "these bytes are no envelope at all"));
	freeReplyObject(redisCommand(redis, "LPUSH %s %s", KEY_OF("list"), "wrong type"));
	redisFree(redis);
	assert_int_equal(riptide_get(f->handle, "junk", 4, &value), RIPTIDE_ECORRUPT);
	assert_int_equal(riptide_get(f->handle, "list", 4, &value), RIPTIDE_EBACKEND);
	assert_int_equal(e2e_put(f->handle, "junk", "mended"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "junk", "mended", NULL), RIPTIDE_OK);
}

/* ---- absence ------------------------------------------------------------------------------------------------ */

static void an_absent_server_is_told_and_waited_for(void **state)
{
	struct fixture *f = *state;
	char detail[256];
	int status;

	assert_int_equal(e2e_number(&f->agent, "backend.ready"), 0);
	e2e_text(&f->agent, "backend.detail", detail, sizeof(detail));
	assert_true(strlen(detail) > 0);
	status = e2e_put(f->handle, "early", "bird");
	assert_int_equal(status, RIPTIDE_EAGAIN);
	assert_true(riptide_error_is_retryable(status));
	status = e2e_check(f->handle, "early", "bird", NULL);
	assert_true(status < 0 && riptide_error_is_retryable(status));
	assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_OK);
	assert_int_equal(redis_server_restart(&f->server), 0);
	assert_int_equal(e2e_await(&f->agent, "backend.ready", 1, 10000), 1);
	assert_int_equal(e2e_put(f->handle, "early", "bird"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "early", "bird", NULL), RIPTIDE_OK);
}

struct load {
	struct counts {
		uint64_t sets, refused, unknown, bad_sets, gets, hot, wrong, unavailable, bad_gets;
		int64_t last;
		uint32_t end;
	} * counts; /* shared */
	riptide *handle;
};

static void get_once(struct load *load, const char *value)
{
	struct riptide_info info = {.flags = 0};
	int status = e2e_check(load->handle, "loaded", value, &info);
	struct counts *c = load->counts;

	c->gets++;
	c->hot += status == RIPTIDE_OK && (info.flags & RIPTIDE_HOT);
	c->wrong += status == E2E_WRONG;
	if (status < 0 && riptide_error_is_retryable(status)) {
		c->unavailable++;
	} else if (status < 0) {
		c->bad_gets++;
		c->last = status;
	}
}

/* Sets, then reads what must be there if the set was acknowledged. */
static int load_main(void *context)
{
	struct load *load = context;
	struct counts *c = load->counts;
	char value[32];

	for (uint64_t i = 0; !rshm_load_relaxed32(&c->end); i++) {
		int status;

		snprintf(value, sizeof(value), "%llu", (unsigned long long)i);
		status = e2e_put(load->handle, "loaded", value);
		c->sets++;
		c->refused += status == RIPTIDE_EAGAIN || status == RIPTIDE_ETIMEDOUT;
		c->unknown += status == RIPTIDE_EUNKNOWN;
		if (status == RIPTIDE_OK) {
			get_once(load, value);
		} else if (!riptide_error_is_retryable(status) && status != RIPTIDE_EUNKNOWN) {
			c->bad_sets++;
			c->last = status;
		}
	}
	riptide_close(&load->handle);
	return 0;
}

static void a_server_killed_under_load_comes_back(void **state)
{
	struct fixture *f = *state;
	struct load load = {.handle = f->handle};
	pid_t pid;

	load.counts = mmap(NULL, sizeof(*load.counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(load.counts, MAP_FAILED);
	pid = e2e_fork(load_main, &load);
	for (int i = 0; i < 3; i++) {
		e2e_pause_ms(400);
		redis_server_kill(&f->server);
		e2e_pause_ms(300);
		assert_int_equal(redis_server_restart(&f->server), 0);
		assert_int_equal(e2e_await(&f->agent, "backend.ready", 1, 10000), 1);
	}
	e2e_pause_ms(400);
	rshm_store_relaxed32(&load.counts->end, 1);
	assert_int_equal(e2e_join(pid, 20000), 0);
	print_message(
		"%llu sets (%llu refused, %llu unknown), %llu gets (%llu hot, %llu unavailable); last bad %lld\n",
		(unsigned long long)load.counts->sets, (unsigned long long)load.counts->refused,
		(unsigned long long)load.counts->unknown, (unsigned long long)load.counts->gets,
		(unsigned long long)load.counts->hot, (unsigned long long)load.counts->unavailable,
		(long long)load.counts->last);
	assert_int_equal(load.counts->wrong, 0);
	assert_int_equal(load.counts->bad_sets + load.counts->bad_gets, 0);
	assert_true(load.counts->refused + load.counts->unknown > 0);
	assert_int_equal(e2e_put(f->handle, "after", "all"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "after", "all", NULL), RIPTIDE_OK);
	assert_true(!RIPTIDE_METRICS || e2e_number(&f->agent, "backend.reconnects") >= 3);
	munmap(load.counts, sizeof(*load.counts));
}

static void without_the_server_tracked_copies_are_marked(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info;
	uint64_t began;

	assert_int_equal(e2e_put(f->handle, "survivor", "alive"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "survivor", "alive", &info), RIPTIDE_OK);
	assert_int_equal(info.flags & (RIPTIDE_HOT | RIPTIDE_STALE), RIPTIDE_HOT);
	redis_server_kill(&f->server);
	/* The agent notices the loss at once; without it the lease would end. */
	began = e2e_now_ms();
	do
		assert_int_equal(e2e_check(f->handle, "survivor", "alive", &info), RIPTIDE_OK);
	while (!(info.flags & RIPTIDE_STALE) && e2e_now_ms() - began < 3000);
	assert_true(info.flags & RIPTIDE_STALE);
	assert_int_equal(redis_server_restart(&f->server), 0);
	/* The server came back without it: the copy is compared, and goes. */
	assert_int_equal(e2e_await_check(f->handle, "survivor", "alive", RIPTIDE_MISS, 10000), RIPTIDE_MISS);
}

static void hot_reads_go_on_without_the_server_for_max_age(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info;
	uint64_t began;
	int status, good = 0;

	assert_int_equal(e2e_put(f->handle, "survivor", "alive"), RIPTIDE_OK);
	began = e2e_now_ms();
	redis_server_kill(&f->server);
	while (e2e_now_ms() - began < 700) {
		assert_int_equal(e2e_check(f->handle, "survivor", "alive", &info), RIPTIDE_OK);
		assert_true(info.flags & RIPTIDE_HOT);
		good++;
	}
	assert_true(good > 100);
	/* Later only a marked copy, or an error that may be retried: never as if all were well. */
	e2e_pause_ms(800);
	status = e2e_check(f->handle, "survivor", "alive", &info);
	assert_true((status == RIPTIDE_OK && (info.flags & RIPTIDE_STALE)) ||
		    (status < 0 && riptide_error_is_retryable(status)));
	status = e2e_put(f->handle, "survivor", "changed");
	assert_true(status == RIPTIDE_EAGAIN || status == RIPTIDE_EUNKNOWN);
	assert_int_equal(redis_server_restart(&f->server), 0);
	assert_int_equal(e2e_await(&f->agent, "backend.ready", 1, 10000), 1);
	assert_int_equal(e2e_put(f->handle, "survivor", "again"), RIPTIDE_OK);
}

static void a_hanging_server_costs_a_deadline(void **state)
{
	struct fixture *f = *state;
	uint64_t began;
	int status;

	assert_int_equal(e2e_put(f->handle, "k", "1"), RIPTIDE_OK);
	redis_server_pause(&f->server);
	began = e2e_now_ms();
	status = e2e_put(f->handle, "k", "2");
	assert_true(e2e_now_ms() - began < 3500);
	assert_true(status == RIPTIDE_EUNKNOWN || status == RIPTIDE_EAGAIN);
	redis_server_resume(&f->server);
	began = e2e_now_ms();
	while ((status = e2e_put(f->handle, "k", "3")) != RIPTIDE_OK && e2e_now_ms() - began < 8000)
		e2e_pause_ms(50);
	assert_int_equal(status, RIPTIDE_OK);
	/* The write that hung is older: it must not come back over the newer one. */
	e2e_pause_ms(1200);
	assert_int_equal(e2e_check(f->handle, "k", "3", NULL), RIPTIDE_OK);
}

/* ---- the agent's own death ---------------------------------------------------------------------------------- */

static void a_restarted_agent_finds_its_entries_again(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(e2e_put(f->handle, "kept", "by redis"), RIPTIDE_OK);
	assert_int_equal(e2e_put(f->handle, "changed", "before"), RIPTIDE_OK);
	assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
	assert_int_equal(e2e_check(f->handle, "kept", "by redis", NULL), RIPTIDE_OK);
	copy_behind_its_back(f, KEY_OF("kept"), KEY_OF("other"));
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_put(f->handle, "changed", "after"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "changed", "after", NULL), RIPTIDE_OK);
	e2e_pause_ms(1200);
	assert_int_equal(e2e_check(f->handle, "kept", "by redis", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_number(&f->agent, "adoptions"), 1);
}

static void skip_without_a_server(void **state)
{
	(void)state;
	print_message("redis-server is not installed: nothing is tested here\n");
	skip();
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(entries_stand_under_readable_keys),
		CASE(hot_reads_do_not_reach_the_server),
		cmocka_unit_test_setup_teardown(without_tracking_hot_copies_live_by_their_age, setup_ttl, teardown),
		CASE(large_values_and_batches_go_through),
		CASE(a_foreign_change_is_seen_after_max_age),
		CASE(an_envelope_of_another_key_is_not_returned),
		CASE(bytes_that_are_no_envelope_are_not_returned),
		cmocka_unit_test_setup_teardown(an_absent_server_is_told_and_waited_for, setup_without_server,
						teardown),
		cmocka_unit_test_setup_teardown(hot_reads_go_on_without_the_server_for_max_age, setup_ttl, teardown),
		CASE(without_the_server_tracked_copies_are_marked),
		CASE(a_hanging_server_costs_a_deadline),
		CASE(a_restarted_agent_finds_its_entries_again),
		CASE(a_server_killed_under_load_comes_back),
	};
#undef CASE
	const struct CMUnitTest none[] = {cmocka_unit_test(skip_without_a_server)};

	if (!redis_server_is_installed())
		return cmocka_run_group_tests(none, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
