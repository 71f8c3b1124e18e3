/*
 * An agent on a real Redis that Sentinel watches: masters that are replaced, die or hang, sentinels that die, and those that
 * were never there. One group serves all cases, each under a key prefix of its own; each leaves it whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "riptide/riptide.h"
#include "tests/support/e2e.h"
#include "tests/support/redis_sentinel.h"

#define WHOLE_MS 30000
#define REPLACED_MS 20000

static struct redis_sentinel group;
static unsigned case_number;

struct fixture {
	struct agent_process agent;
	riptide *handle;
	char url[300], prefix[64];
};

static int start(struct fixture *f, const char *url)
{
	const char *settings[] = {"agent.backend=redis",
				  f->url,
				  f->prefix,
				  "redis.command_timeout_ms=1000",
				  "redis.connection_timeout_ms=500",
				  "redis.retry_max_delay_ms=200",
				  "redis.sentinel_refresh_ms=2000",
				  NULL};

	snprintf(f->url, sizeof(f->url), "redis.url=%s", url);
	snprintf(f->prefix, sizeof(f->prefix), "cache.key_prefix=case%u", ++case_number);
	if (agent_process_start(&f->agent, settings) < 0)
		return -1;
	return e2e_open(&f->agent, NULL, 3000, &f->handle) == RIPTIDE_OK ? 0 : -1;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	if (!redis_server_is_installed())
		return 0;
	if (redis_sentinel_await_whole(&group, WHOLE_MS) < 0 || start(f, group.url) < 0)
		return -1;
	return e2e_await(&f->agent, "backend.ready", 1, 5000) == 1 && e2e_await_trust(&f->agent) ? 0 : -1;
}

/* The case starts the agent. */
static int setup_bare(void **state)
{
	*state = calloc(1, sizeof(struct fixture));
	return !redis_server_is_installed() ? 0 : redis_sentinel_await_whole(&group, WHOLE_MS);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status = 0;

	if (f->agent.folder[0]) {
		riptide_close(&f->handle);
		status = agent_process_stop_and_clean(&f->agent);
	}
	free(f);
	return status;
}

static struct fixture *fixture(void **state)
{
	if (!redis_server_is_installed())
		skip();
	return *state;
}

/* What a server has under the case's prefix, written by whoever; "" if it has nothing. */
static void value_in(const struct fixture *f, int server, const char *key, char *ret, size_t size)
{
	redisContext *redis = redisConnectUnix(group.servers[server].unix_path);
	redisReply *reply = redisCommand(redis, "GET %s:v1:{default.0}:1:c:%s", strchr(f->prefix, '=') + 1, key);

	ret[0] = '\0';
	if (reply && reply->type == REDIS_REPLY_STRING)
		for (size_t i = 0; i < reply->len && i + 1 < size; i++) {
			ret[i] = reply->str[i] ? reply->str[i] : '.';
			ret[i + 1] = '\0';
		}
	if (reply)
		freeReplyObject(reply);
	redisFree(redis);
}

/* Deletes a key as a program would that knows nothing of us. */
static void delete_in(const struct fixture *f, int server, const char *key)
{
	redisContext *redis = redisConnectUnix(group.servers[server].unix_path);
	redisReply *reply = redisCommand(redis, "DEL %s:v1:{default.0}:1:c:%s", strchr(f->prefix, '=') + 1, key);

	assert_non_null(reply);
	assert_int_equal(reply->type, REDIS_REPLY_INTEGER);
	assert_int_equal(reply->integer, 1);
	freeReplyObject(reply);
	redisFree(redis);
}

/* Writes until it is taken again; what is refused meanwhile may be tried again, or its fate is unknown. */
static bool await_served(struct fixture *f, long patience_ms)
{
	uint64_t until_ms = e2e_now_ms() + (uint64_t)patience_ms;
	int status;

	while ((status = e2e_put(f->handle, "served", "yes")) != RIPTIDE_OK) {
		assert_true(status == RIPTIDE_EUNKNOWN || riptide_error_is_retryable(status));
		if (e2e_now_ms() > until_ms)
			return false;
		e2e_pause_ms(20);
	}
	return true;
}

static bool await_detail(const struct fixture *f, const char *wanted)
{
	char detail[256] = "";

	for (int i = 0; i < 200 && !strstr(detail, wanted); i++) {
		e2e_pause_ms(50);
		e2e_text(&f->agent, "backend.detail", detail, sizeof(detail));
	}
	if (!strstr(detail, wanted))
		print_message("status: %s\n", detail);
	return strstr(detail, wanted) != NULL;
}

static bool await_master_in_status(const struct fixture *f, int server)
{
	char at[32];

	snprintf(at, sizeof(at), "127.0.0.1:%u/0", (unsigned)group.servers[server].port);
	return await_detail(f, at);
}

/*
 * Has the sentinels replace the master, and returns the new one. They may begin and give up, where one of them was still
 * busy with the failover before: then they are asked again.
 */
static int have_replaced(int old)
{
	int master = -1;

	for (int i = 0; i < 4 && master < 0; i++) {
		(void)redis_sentinel_failover(&group);
		master = redis_sentinel_await_replaced(&group, old, REPLACED_MS / 2);
	}
	assert_true(master >= 0);
	return master;
}

static void await_whole(void)
{
	assert_int_equal(redis_sentinel_await_whole(&group, WHOLE_MS), 0);
}

/* ---- cases ------------------------------------------------------------------------------------------------------ */

static void the_master_is_found_and_told(void **state)
{
	struct fixture *f = fixture(state);
	int master = redis_sentinel_master(&group);
	char detail[256], value[128];

	assert_int_equal(e2e_put(f->handle, "key", "value"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "key", "value", NULL), RIPTIDE_OK);
	value_in(f, master, "key", value, sizeof(value));
	assert_non_null(strstr(value, "value"));
	assert_true(await_master_in_status(f, master));
	e2e_text(&f->agent, "backend.detail", detail, sizeof(detail));
	assert_non_null(strstr(detail, "master " REDIS_SENTINEL_MASTER " at "));
	assert_non_null(strstr(detail, "by sentinel 127.0.0.1:"));
	assert_non_null(strstr(detail, " of 3"));
}

static void a_master_that_is_replaced_is_followed(void **state)
{
	struct fixture *f = fixture(state);
	int old = redis_sentinel_master(&group), master;
	char value[128];

	assert_int_equal(e2e_put(f->handle, "before", "failover"), RIPTIDE_OK);
	e2e_pause_ms(200);
	master = have_replaced(old);
	assert_true(await_master_in_status(f, master));
	assert_true(await_served(f, 3000));
	assert_int_equal(e2e_put(f->handle, "after", "failover"), RIPTIDE_OK);
	value_in(f, master, "after", value, sizeof(value));
	assert_non_null(strstr(value, "failover"));
	assert_int_equal(e2e_check(f->handle, "before", "failover", NULL), RIPTIDE_OK);
	await_whole();
}

static void a_master_that_dies_is_replaced(void **state)
{
	struct fixture *f = fixture(state);
	int old = redis_sentinel_master(&group), master;
	uint64_t began_ms = e2e_now_ms();
	char value[128];

	redis_server_kill(&group.servers[old]);
	assert_true(await_served(f, REPLACED_MS));
	print_message("served again after %llu ms\n", (unsigned long long)(e2e_now_ms() - began_ms));
	master = redis_sentinel_await_replaced(&group, old, REPLACED_MS);
	assert_true(master >= 0);
	assert_true(master >= 0 && master != old);
	/* It comes back, and is never written to. */
	assert_int_equal(redis_server_restart(&group.servers[old]), 0);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(e2e_put(f->handle, "other", "master"), RIPTIDE_OK);
		e2e_pause_ms(10);
	}
	value_in(f, master, "other", value, sizeof(value));
	assert_non_null(strstr(value, "master"));
	await_whole();
	assert_true(await_master_in_status(f, master));
}

static void a_master_that_hangs_is_replaced_and_left_alone_when_it_wakes(void **state)
{
	struct fixture *f = fixture(state);
	int old = redis_sentinel_master(&group), master;

	redis_server_pause(&group.servers[old]);
	assert_true(await_served(f, REPLACED_MS));
	master = redis_sentinel_await_replaced(&group, old, REPLACED_MS);
	assert_true(master >= 0);
	redis_server_resume(&group.servers[old]);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(e2e_put(f->handle, "still", "here"), RIPTIDE_OK);
		e2e_pause_ms(10);
	}
	assert_true(await_master_in_status(f, master));
	await_whole();
	assert_int_equal(e2e_check(f->handle, "still", "here", NULL), RIPTIDE_OK);
}

/* Keys of the case in a server that holds itself to be the master; 0 if it is none. */
static long long keys_of_master(const struct fixture *f, int server)
{
	redisContext *redis = redisConnectUnix(group.servers[server].unix_path);
	redisReply *keys, *role;
	long long count = 0;

	/* Executed one behind the other. */
	assert_int_equal(redisAppendCommand(redis, "KEYS %s:v1:{default*:c:*", strchr(f->prefix, '=') + 1), REDIS_OK);
	assert_int_equal(redisAppendCommand(redis, "ROLE"), REDIS_OK);
	assert_int_equal(redisGetReply(redis, (void **)&keys), REDIS_OK);
	assert_int_equal(redisGetReply(redis, (void **)&role), REDIS_OK);
	if (strcmp(role->element[0]->str, "master") == 0)
		count = (long long)keys->elements;
	freeReplyObject(keys);
	freeReplyObject(role);
	redisFree(redis);
	return count;
}

/* It holds itself to be the master until sentinels reach it; what it takes until then will be lost. */
static void a_master_that_was_started_again_is_not_written_to(void **state)
{
	struct fixture *f = fixture(state);
	int old = redis_sentinel_master(&group), master;
	uint64_t until_ms;
	char value[128];

	assert_int_equal(agent_process_kill(&f->agent, SIGSTOP), 0);
	redis_server_kill(&group.servers[old]);
	master = redis_sentinel_await_replaced(&group, old, REPLACED_MS);
	assert_true(master >= 0);
	assert_int_equal(redis_server_restart(&group.servers[old]), 0);
	assert_int_equal(agent_process_kill(&f->agent, SIGCONT), 0);
	until_ms = e2e_now_ms() + 5000;
	while (e2e_put(f->handle, "served", "yes") != RIPTIDE_OK && e2e_now_ms() < until_ms)
		assert_int_equal(keys_of_master(f, old), 0);
	assert_int_equal(keys_of_master(f, old), 0);
	value_in(f, master, "served", value, sizeof(value));
	assert_non_null(strstr(value, "yes"));
	await_whole();
}

static void hot_copies_are_verified_again_on_the_new_master(void **state)
{
	struct fixture *f = fixture(state);
	int old = redis_sentinel_master(&group), master;
	struct riptide_info info = {.flags = 0};
	uint64_t until_ms;
	int status;

	assert_int_equal(e2e_put(f->handle, "hot", "copy"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "hot", "copy", &info), RIPTIDE_OK);
	assert_true(info.flags & RIPTIDE_HOT);
	e2e_pause_ms(200);
	master = have_replaced(old);
	assert_true(await_master_in_status(f, master));
	/* Verified once more, without having been asked for. */
	until_ms = e2e_now_ms() + 10000;
	do {
		e2e_pause_ms(20);
		status = e2e_check(f->handle, "hot", "copy", &info);
	} while (e2e_now_ms() < until_ms &&
		 (status != RIPTIDE_OK || (info.flags & (RIPTIDE_HOT | RIPTIDE_STALE)) != RIPTIDE_HOT));
	assert_int_equal(status, RIPTIDE_OK);
	assert_int_equal(info.flags & (RIPTIDE_HOT | RIPTIDE_STALE), RIPTIDE_HOT);
	assert_true(e2e_await_trust(&f->agent));
	/* And what others do there is heard of. */
	delete_in(f, master, "hot");
	assert_int_equal(e2e_await_check(f->handle, "hot", "copy", RIPTIDE_MISS, 2000), RIPTIDE_MISS);
	await_whole();
}

static void one_sentinel_is_enough_and_none_is_no_harm(void **state)
{
	struct fixture *f = fixture(state);
	char detail[256];

	for (int i = 0; i < 3; i++) {
		redis_server_kill(&group.sentinels[i]);
		for (int n = 0; n < 40; n++) {
			assert_int_equal(e2e_put(f->handle, "a", "b"), RIPTIDE_OK);
			e2e_pause_ms(20);
		}
	}
	e2e_pause_ms(500);
	e2e_text(&f->agent, "backend.detail", detail, sizeof(detail));
	assert_non_null(strstr(detail, "no sentinel of 3 answers"));
	assert_int_equal(e2e_number(&f->agent, "backend.ready"), 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(redis_server_restart(&group.sentinels[i]), 0);
	assert_true(await_detail(f, "by sentinel"));
	await_whole();
}

/* Not all were masters when they were first started. */
static void restart_as_master(int server)
{
	redisContext *redis;
	redisReply *reply;

	assert_int_equal(redis_server_restart(&group.servers[server]), 0);
	redis = redisConnectUnix(group.servers[server].unix_path);
	reply = redisCommand(redis, "REPLICAOF NO ONE");
	assert_non_null(reply);
	assert_int_equal(reply->type, REDIS_REPLY_STATUS);
	freeReplyObject(reply);
	redisFree(redis);
}

/* One sentinel replaces nobody: it holds the master to be down until it is back, and then it is used, empty as it is. */
static void a_master_that_nobody_replaces_is_used_again_once_it_is_held_to_be_up(void **state)
{
	struct fixture *f = fixture(state);
	int master = redis_sentinel_master(&group), status;

	redis_server_kill(&group.sentinels[0]);
	redis_server_kill(&group.sentinels[1]);
	redis_server_kill(&group.servers[master]);
	assert_true(await_detail(f, "it holds the master to be down"));
	status = e2e_put(f->handle, "not", "yet");
	assert_true(status < 0 && riptide_error_is_retryable(status));
	restart_as_master(master);
	assert_true(await_served(f, 15000));
	assert_true(await_master_in_status(f, master));
	assert_true(keys_of_master(f, master) > 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(redis_server_restart(&group.sentinels[i]), 0);
	await_whole();
}

static void an_agent_without_sentinels_waits_for_them(void **state)
{
	struct fixture *f = fixture(state);
	char detail[256];
	int status;

	for (int i = 0; i < 3; i++)
		redis_server_kill(&group.sentinels[i]);
	assert_int_equal(start(f, group.url), 0);
	e2e_pause_ms(500);
	assert_int_equal(e2e_number(&f->agent, "backend.ready"), 0);
	e2e_text(&f->agent, "backend.detail", detail, sizeof(detail));
	assert_non_null(strstr(detail, "no sentinel of 3 answers"));
	assert_non_null(strstr(detail, "cannot connect"));
	status = e2e_put(f->handle, "too", "early");
	assert_true(status < 0 && riptide_error_is_retryable(status));
	assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_OK);
	for (int i = 0; i < 3; i++)
		assert_int_equal(redis_server_restart(&group.sentinels[i]), 0);
	assert_true(await_served(f, 5000));
	await_whole();
}

static void a_master_that_no_sentinel_knows_is_told(void **state)
{
	struct fixture *f = fixture(state);
	char url[300], detail[256];

	snprintf(url, sizeof(url), "%.*s/somebody", (int)(strrchr(group.url, '/') - group.url), group.url);
	assert_int_equal(start(f, url), 0);
	e2e_pause_ms(500);
	assert_int_equal(e2e_number(&f->agent, "backend.ready"), 0);
	e2e_text(&f->agent, "backend.detail", detail, sizeof(detail));
	assert_non_null(strstr(detail, "master somebody"));
	assert_non_null(strstr(detail, "it knows no master of this name"));
}

static void servers_that_are_no_sentinels_are_told(void **state)
{
	struct fixture *f = fixture(state);
	char url[300], detail[256];

	snprintf(url, sizeof(url), "redis+sentinel://127.0.0.1:%u/main", (unsigned)group.servers[0].port);
	assert_int_equal(start(f, url), 0);
	e2e_pause_ms(500);
	assert_int_equal(e2e_number(&f->agent, "backend.ready"), 0);
	e2e_text(&f->agent, "backend.detail", detail, sizeof(detail));
	assert_non_null(strstr(detail, "it is no sentinel"));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define BARE(test) cmocka_unit_test_setup_teardown(test, setup_bare, teardown)

static int start_group(void **state)
{
	(void)state;
	return redis_server_is_installed() ? redis_sentinel_start(&group, 2500, NULL) : 0;
}

static int stop_group(void **state)
{
	(void)state;
	redis_sentinel_stop(&group);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(the_master_is_found_and_told),
		CASE(a_master_that_is_replaced_is_followed),
		CASE(a_master_that_dies_is_replaced),
		CASE(a_master_that_hangs_is_replaced_and_left_alone_when_it_wakes),
		CASE(a_master_that_was_started_again_is_not_written_to),
		CASE(hot_copies_are_verified_again_on_the_new_master),
		CASE(one_sentinel_is_enough_and_none_is_no_harm),
		CASE(a_master_that_nobody_replaces_is_used_again_once_it_is_held_to_be_up),
		BARE(an_agent_without_sentinels_waits_for_them),
		BARE(a_master_that_no_sentinel_knows_is_told),
		BARE(servers_that_are_no_sentinels_are_told),
	};

	return cmocka_run_group_tests(tests, start_group, stop_group);
}
