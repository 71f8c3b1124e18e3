/* spill_test.c - what memory pressure evicts alive goes to disk, and comes back; never instead of something newer. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#include "tests/e2e/both_stores.h"

#define VALUE_BYTES 30000
#define ENTRIES 200

static const char *const *both_settings(void)
{
	static const char *const settings[] = {"cache.max_memory_bytes=2600K",    "cache.segment_initial_bytes=1M",
					       "cache.enable_compression=false",  "coherence.max_age_ms=60000",
					       "redis.retry_attempts=0",          "redis.command_timeout_ms=500",
					       "redis.connection_timeout_ms=500", NULL};

	return settings;
}

static void make_value(char value[VALUE_BYTES], int number, int round)
{
	memset(value, 'a' + number % 26, VALUE_BYTES);
	snprintf(value, 64, "%d of round %d", number, round);
}

static int put(struct fixture *f, int number, int round)
{
	char key[16], value[VALUE_BYTES];

	snprintf(key, sizeof(key), "k%d", number);
	make_value(value, number, round);
	return riptide_set(f->handle, key, strlen(key), value, sizeof(value), NULL, NULL);
}

/* RIPTIDE_OK if the value is the one of the round, E2E_WRONG if it is another, else what get returned. */
static int check(struct fixture *f, int number, int round, uint32_t *ret_flags)
{
	char key[16], expected[VALUE_BYTES];
	struct riptide_value value;
	int status;

	snprintf(key, sizeof(key), "k%d", number);
	make_value(expected, number, round);
	status = riptide_get(f->handle, key, strlen(key), &value);
	if (status != RIPTIDE_OK)
		return status;
	if (ret_flags)
		*ret_flags = value.info.flags;
	if (value.length != sizeof(expected) || memcmp(value.data, expected, sizeof(expected)) != 0)
		status = E2E_WRONG;
	riptide_value_free(&value);
	return status;
}

static void fill(struct fixture *f, int round)
{
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(put(f, i, round), RIPTIDE_OK);
}

static void evicted_entries_come_back_from_disk(void **state)
{
	struct fixture *f = both_fixture(state);

	fill(f, 1);
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_spilled", ENTRIES / 2, 5000) >= ENTRIES / 2);
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f, i, 1, NULL), RIPTIDE_OK);
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_restored", ENTRIES / 4, 5000) >= ENTRIES / 4);
	assert_int_equal(e2e_number(&f->agent, "workers.0.spill.corrupt"), 0);
}

static void a_spilled_value_never_hides_a_newer_one(void **state)
{
	struct fixture *f = both_fixture(state);
	redisContext *redis;
	redisReply *reply;

	fill(f, 1);
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_spilled", ENTRIES / 2, 5000) >= ENTRIES / 2);
	/* Written, deleted by ourselves, and removed behind our back. */
	assert_int_equal(put(f, 3, 2), RIPTIDE_OK);
	assert_int_equal(riptide_delete(f->handle, "k5", 2), RIPTIDE_OK);
	redis = redisConnectUnix(f->server.unix_path);
	reply = redisCommand(redis, "DEL riptide:v1:{default.0}:1:c:k7");
	assert_int_equal(reply->integer, 1);
	freeReplyObject(reply);
	redisFree(redis);
	/* Out of the ring again. */
	for (int i = 100; i < ENTRIES; i++)
		assert_int_equal(put(f, i, 2), RIPTIDE_OK);
	assert_int_equal(check(f, 3, 2, NULL), RIPTIDE_OK);
	assert_int_equal(check(f, 5, 1, NULL), RIPTIDE_MISS);
	assert_int_equal(check(f, 7, 1, NULL), RIPTIDE_MISS);
	assert_int_equal(check(f, 9, 1, NULL), RIPTIDE_OK);
}

static void while_the_server_is_away_the_disk_serves_marked_copies(void **state)
{
	struct fixture *f = both_fixture(state);
	uint32_t flags = 0;
	int served = 0;

	fill(f, 1);
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_spilled", ENTRIES / 2, 5000) >= ENTRIES / 2);
	assert_int_equal(riptide_delete(f->handle, "k1", 2), RIPTIDE_OK);
	redis_server_kill(&f->server);
	for (int i = 0; i < 20; i++) {
		int status = check(f, i, 1, &flags);

		assert_int_not_equal(status, E2E_WRONG);
		served += status == RIPTIDE_OK && (flags & RIPTIDE_STALE);
	}
	assert_true(served >= 15);
	assert_int_not_equal(check(f, 1, 1, NULL), RIPTIDE_OK);
	assert_int_equal(redis_server_restart(&f->server), 0);
}

static void after_a_restart_spilled_values_are_confirmed_before_use(void **state)
{
	struct fixture *f = both_fixture(state);

	fill(f, 1);
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_spilled", ENTRIES / 2, 5000) >= ENTRIES / 2);
	assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f, i, 1, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_clear(f->handle), RIPTIDE_OK);
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f, i, 1, NULL), RIPTIDE_MISS);
}

int main(void)
{
#define REDIS(name) cmocka_unit_test_setup_teardown(name, both_setup_redis, both_teardown)
	const struct CMUnitTest tests[] = {
		REDIS(evicted_entries_come_back_from_disk),
		REDIS(a_spilled_value_never_hides_a_newer_one),
		REDIS(while_the_server_is_away_the_disk_serves_marked_copies),
		REDIS(after_a_restart_spilled_values_are_confirmed_before_use),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
