/*
 * races_test.c - what was removed must not come back: by a load that began before, from the disk tier while the backend is
 * away, by a write that was cut off; and what ends in the middle of it must end well.
 */
#include <pthread.h>
#include <signal.h>

#include <hiredis/hiredis.h>

#include "tests/e2e/both_stores.h"

#define VALUE 30000u
#define SPILLED 40

static const char *const *both_settings(void)
{
	static const char *const settings[] = {"cache.max_memory_bytes=2600K",
					       "cache.segment_initial_bytes=1M",
					       "cache.enable_compression=false",
					       "cache.negative_entries_max=20",
					       "redis.retry_attempts=0",
					       "redis.command_timeout_ms=3000",
					       "redis.connection_timeout_ms=500",
					       "coherence.mode=ttl",
					       "coherence.max_age_ms=60000",
					       "agent.shutdown_timeout_seconds=1",
					       "performance.slow_threshold_ms=100",
					       NULL};

	return settings;
}

static char value[VALUE];

static void put(struct fixture *f, const char *key, size_t length, const char *tag, uint64_t ttl_ms)
{
	const char *const tags[] = {tag};
	struct riptide_metadata metadata = {.tags = tags, .tag_count = 1};
	struct riptide_set_options options = {
		.size = sizeof(options), .metadata = tag ? &metadata : NULL, .ttl_ms = ttl_ms};

	assert_int_equal(riptide_set(f->handle, key, strlen(key), value, length, &options, NULL), RIPTIDE_OK);
}

/* More than the ring holds: what was there before goes to the disk tier. */
static void push_out(struct fixture *f)
{
	char key[16];

	for (int i = 0; i < 150; i++) {
		snprintf(key, sizeof(key), "fill-%d", i);
		put(f, key, VALUE, NULL, 0);
	}
	/* There is a disk tier only before Redis; the embedded store is one. */
	if (f->redis)
		assert_true(e2e_await(&f->agent, "workers.0.spill.total_spilled", 60, 10000) >= 60);
}

static int count_found(struct fixture *f)
{
	int found = 0;
	char key[16];

	for (int i = 0; i < SPILLED; i++) {
		struct riptide_value got;

		snprintf(key, sizeof(key), "k-%d", i);
		if (riptide_get(f->handle, key, strlen(key), &got) != RIPTIDE_OK)
			continue;
		found++;
		riptide_value_free(&got);
	}
	return found;
}

static void put_many(struct fixture *f, const char *tag, uint64_t ttl_ms)
{
	char key[16];

	for (int i = 0; i < SPILLED; i++) {
		snprintf(key, sizeof(key), "k-%d", i);
		put(f, key, VALUE, tag, ttl_ms);
	}
}

/* ---- loads ---------------------------------------------------------------------------------------------------- */

/* Loads what was true before `meanwhile` happened. */
struct load {
	struct fixture *f;
	void (*meanwhile)(riptide *handle, const void *key, size_t key_length);
	int loads;
};

static int load_old(void *context, const void *key, size_t key_length, struct riptide_loaded *ret)
{
	static const char *const tags[] = {"red"};
	static const struct riptide_metadata metadata = {.tags = tags, .tag_count = 1};
	struct load *load = context;
	riptide *handle;

	*ret = (struct riptide_loaded){.data = "100", .length = 3, .metadata = &metadata};
	if (load->loads++ > 0)
		return RIPTIDE_MISS;
	assert_int_equal(e2e_open(&load->f->agent, NULL, 5000, &handle), RIPTIDE_OK);
	load->meanwhile(handle, key, key_length);
	riptide_close(&handle);
	return RIPTIDE_OK;
}

static void fetch_while(struct fixture *f, void (*meanwhile)(riptide *handle, const void *key, size_t key_length))
{
	struct load load = {.f = f, .meanwhile = meanwhile};
	struct riptide_fetch_options options = {.size = sizeof(options)};
	struct riptide_value got = {.data = NULL};

	if (riptide_fetch(f->handle, "key", 3, load_old, &load, &options, &got) == RIPTIDE_OK)
		riptide_value_free(&got);
	assert_true(load.loads > 0);
}

static void invalidate_tag(riptide *handle, const void *key, size_t key_length)
{
	(void)key;
	(void)key_length;
	assert_int_equal(riptide_invalidate_tag(handle, "red"), RIPTIDE_OK);
}

static void raise_by_seven(riptide *handle, const void *key, size_t key_length)
{
	int64_t sum;

	assert_int_equal(riptide_incr(handle, key, key_length, 7, NULL, &sum), RIPTIDE_OK);
	assert_int_equal(sum, 7);
}

static void a_load_that_began_before_a_tag_was_invalidated_is_not_stored(void **state)
{
	struct fixture *f = both_fixture(state);

	put(f, "other", 10, "red", 0);
	fetch_while(f, invalidate_tag);
	assert_int_equal(riptide_exists(f->handle, "key", 3, NULL), RIPTIDE_MISS);
}

static void a_load_that_began_before_a_count_does_not_replace_it(void **state)
{
	struct fixture *f = both_fixture(state);

	fetch_while(f, raise_by_seven);
	assert_int_equal(e2e_check(f->handle, "key", "7", NULL), RIPTIDE_OK);
}

static int load_number(void *context, const void *key, size_t key_length, struct riptide_loaded *ret)
{
	(void)key;
	(void)key_length;
	*ret = (struct riptide_loaded){.data = ++*(int *)context == 1 ? "old" : "new", .length = 3};
	return RIPTIDE_OK;
}

static void a_soft_deadline_holds_wherever_the_value_is_read_from(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_fetch_options options = {.size = sizeof(options), .ttl_ms = 300, .stale_if_error_ms = 60000};
	struct riptide_value got;
	int loads = 0;

	assert_int_equal(riptide_fetch(f->handle, "soft", 4, load_number, &loads, &options, &got), RIPTIDE_OK);
	riptide_value_free(&got);
	e2e_pause_ms(500);
	assert_int_equal(riptide_get(f->handle, "soft", 4, &got), RIPTIDE_MISS);
	push_out(f);
	assert_int_equal(riptide_get(f->handle, "soft", 4, &got), RIPTIDE_MISS);
	push_out(f);
	options.stale_if_error_ms = 0;
	assert_int_equal(riptide_fetch(f->handle, "soft", 4, load_number, &loads, &options, &got), RIPTIDE_OK);
	assert_memory_equal(got.data, "new", 3);
	riptide_value_free(&got);
}

static int load_nothing(void *context, const void *key, size_t key_length, struct riptide_loaded *ret)
{
	(void)key;
	(void)key_length;
	(void)ret;
	++*(int *)context;
	return RIPTIDE_MISS;
}

static int loads_of_absent(struct fixture *f, const char *key, uint64_t remembered_ms)
{
	struct riptide_fetch_options options = {.size = sizeof(options), .negative_ttl_ms = remembered_ms};
	struct riptide_value got;
	int loads = 0;

	assert_int_equal(riptide_fetch(f->handle, key, strlen(key), load_nothing, &loads, &options, &got),
			 RIPTIDE_MISS);
	return loads;
}

static void absences_that_are_over_make_room_for_others(void **state)
{
	struct fixture *f = both_fixture(state);
	char key[16];

	for (int i = 0; i < 30; i++) {
		snprintf(key, sizeof(key), "brief-%d", i);
		(void)loads_of_absent(f, key, 50);
	}
	e2e_pause_ms(300);
	assert_int_equal(loads_of_absent(f, "absent", 60000), 1);
	assert_int_equal(loads_of_absent(f, "absent", 60000), 0);
}

/* ---- the disk tier, while the backend is away -------------------------------------------------------------------- */

static void what_a_tag_took_does_not_come_back_from_disk(void **state)
{
	struct fixture *f = both_fixture(state);

	put_many(f, "red", 0);
	push_out(f);
	assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
	redis_server_kill(&f->server);
	assert_int_equal(count_found(f), 0);
}

static void what_was_found_absent_does_not_come_back_from_disk(void **state)
{
	struct fixture *f = both_fixture(state);

	put_many(f, NULL, 2000);
	push_out(f);
	e2e_pause_ms(2500);
	assert_int_equal(count_found(f), 0);
	redis_server_kill(&f->server);
	assert_int_equal(count_found(f), 0);
}

/* ---- endings ------------------------------------------------------------------------------------------------------ */

struct client {
	struct fixture *f;
	int number;
};

static void *read_or_write(void *context)
{
	struct client *c = context;
	struct riptide_value got;
	riptide *handle;
	char key[16];

	if (e2e_open(&c->f->agent, NULL, 20000, &handle) != RIPTIDE_OK)
		return NULL;
	snprintf(key, sizeof(key), "k-%d", c->number / 2);
	if (c->number % 2) {
		/* In line behind the read of the same key. */
		e2e_pause_ms(150);
		(void)riptide_set(handle, key, strlen(key), value, VALUE, NULL, NULL);
	} else if (riptide_get(handle, key, strlen(key), &got) == RIPTIDE_OK) {
		riptide_value_free(&got);
	}
	riptide_close(&handle);
	return NULL;
}

static void an_agent_that_stops_under_reads_of_the_disk_tier_ends_well(void **state)
{
	struct fixture *f = both_fixture(state);
	struct client clients[40];
	pthread_t threads[40];

	put_many(f, NULL, 0);
	push_out(f);
	redis_server_pause(&f->server);
	for (int i = 0; i < 40; i++) {
		clients[i] = (struct client){.f = f, .number = i};
		assert_int_equal(pthread_create(&threads[i], NULL, read_or_write, &clients[i]), 0);
	}
	e2e_pause_ms(500);
	assert_true(e2e_stop(&f->agent));
	redis_server_resume(&f->server);
	for (int i = 0; i < 40; i++)
		pthread_join(threads[i], NULL);
}

static void *clear(void *context)
{
	struct fixture *f = context;

	return (void *)(intptr_t)riptide_clear(f->handle);
}

static void what_was_begun_before_a_stop_is_ended(void **state)
{
	struct fixture *f = both_fixture(state);
	pthread_t thread;
	void *status = (void *)1;

	put(f, "key", 10, NULL, 0);
	redis_server_pause(&f->server);
	assert_int_equal(pthread_create(&thread, NULL, clear, f), 0);
	e2e_pause_ms(100);
	assert_int_equal(kill(f->agent.pid, SIGTERM), 0);
	e2e_pause_ms(100);
	redis_server_resume(&f->server);
	pthread_join(thread, &status);
	assert_int_equal((int)(intptr_t)status, RIPTIDE_OK);
}

static void *get_slow(void *context)
{
	struct fixture *f = context;

	return (void *)(intptr_t)riptide_exists(f->handle, "slow key", 8, NULL);
}

static void a_slow_request_is_logged_with_its_key(void **state)
{
	struct fixture *f = both_fixture(state);
	pthread_t thread;

	assert_false(agent_process_log_has(&f->agent, "slow: tenant default"));
	redis_server_pause(&f->server);
	assert_int_equal(pthread_create(&thread, NULL, get_slow, f), 0);
	e2e_pause_ms(300);
	redis_server_resume(&f->server);
	pthread_join(thread, NULL);
	assert_true(agent_process_log_has(&f->agent, "exists \"slow key\" took "));
	assert_true(e2e_await(&f->agent, "workers.0.slow", 1, 2000) >= 1);
}

static int load_slowly(void *context, const void *key, size_t key_length, struct riptide_loaded *ret)
{
	(void)context;
	(void)key;
	(void)key_length;
	e2e_pause_ms(1500);
	*ret = (struct riptide_loaded){.data = "1", .length = 1};
	return RIPTIDE_OK;
}

static void *fetch_slowly(void *context)
{
	struct fixture *f = context;
	struct riptide_fetch_options options = {.size = sizeof(options)};
	struct riptide_value got;
	riptide *handle;

	assert_int_equal(e2e_open(&f->agent, NULL, 8000, &handle), RIPTIDE_OK);
	if (riptide_fetch(handle, "p:key", 5, load_slowly, NULL, &options, &got) == RIPTIDE_OK)
		riptide_value_free(&got);
	riptide_close(&handle);
	return NULL;
}

static void order(redisContext *redis, const char *command)
{
	redisReply *reply = redisCommand(redis, command);

	assert_non_null(reply);
	assert_int_not_equal(reply->type, REDIS_REPLY_ERROR);
	freeReplyObject(reply);
}

static void a_prefix_whose_deletes_are_refused_wakes_who_waits_for_its_keys(void **state)
{
	struct fixture *f = both_fixture(state);
	redisContext *redis = redisConnectUnix(f->server.unix_path);
	pthread_t threads[2];
	uint64_t removed;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&threads[i], NULL, fetch_slowly, f), 0);
		e2e_pause_ms(200);
	}
	/* Somebody else stores the key while it is loaded here, and the server lets nobody delete it. */
	put(f, "p:kex", 10, NULL, 0);
	order(redis, "RENAME riptide:v1:{default.0}:1:c:p:kex riptide:v1:{default.0}:1:c:p:key");
	order(redis, "ACL SETUSER default -del -unlink -eval -evalsha");
	assert_int_equal(riptide_invalidate_prefix(f->handle, "p:", 2, &removed), RIPTIDE_EBACKEND);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	order(redis, "ACL SETUSER default +@all");
	redisFree(redis);
	assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_OK);
}

#define REDIS(test) cmocka_unit_test_setup_teardown(test, both_setup_redis, both_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(a_load_that_began_before_a_tag_was_invalidated_is_not_stored),
		BOTH_STORES(a_load_that_began_before_a_count_does_not_replace_it),
		BOTH_STORES(a_soft_deadline_holds_wherever_the_value_is_read_from),
		BOTH_STORES(absences_that_are_over_make_room_for_others),
		REDIS(what_a_tag_took_does_not_come_back_from_disk),
		REDIS(what_was_found_absent_does_not_come_back_from_disk),
		REDIS(an_agent_that_stops_under_reads_of_the_disk_tier_ends_well),
		REDIS(what_was_begun_before_a_stop_is_ended),
		REDIS(a_slow_request_is_logged_with_its_key),
		REDIS(a_prefix_whose_deletes_are_refused_wakes_who_waits_for_its_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
