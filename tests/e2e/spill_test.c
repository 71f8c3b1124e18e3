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

static int put_tagged(riptide *handle, int number, int round, const char *tag)
{
	const char *const tags[] = {tag, "all"};
	struct riptide_metadata metadata = {.content_type = "text/plain", .tags = tags, .tag_count = 2};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};
	char key[16], value[VALUE_BYTES];

	snprintf(key, sizeof(key), "k%d", number);
	make_value(value, number, round);
	return riptide_set(handle, key, strlen(key), value, sizeof(value), tag ? &options : NULL, NULL);
}

static int put(struct fixture *f, int number, int round)
{
	return put_tagged(f->handle, number, round, NULL);
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

/* ---- tags ------------------------------------------------------------------------------------------------------- */

/* Odd numbers have the tag "odd", even ones "even", all have "all". */
static void fill_tagged(struct fixture *f)
{
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(put_tagged(f->handle, i, 1, i % 2 ? "odd" : "even"), RIPTIDE_OK);
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_spilled", ENTRIES / 2, 5000) >= ENTRIES / 2);
}

static void tagged_entries_come_back_from_disk_too(void **state)
{
	struct fixture *f = both_fixture(state);

	fill_tagged(f);
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f, i, 1, NULL), RIPTIDE_OK);
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_restored", ENTRIES / 4, 5000) >= ENTRIES / 4);
	/* And are hot again under their tags. */
	assert_int_equal(riptide_invalidate_tag(f->handle, "all"), RIPTIDE_OK);
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f, i, 1, NULL), RIPTIDE_MISS);
}

static void a_tag_that_was_invalidated_takes_the_disk_with_it(void **state)
{
	struct fixture *f = both_fixture(state);

	fill_tagged(f);
	assert_int_equal(riptide_invalidate_tag(f->handle, "odd"), RIPTIDE_OK);
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f, i, 1, NULL), i % 2 ? RIPTIDE_MISS : RIPTIDE_OK);
}

/* Nobody can be asked: what was acknowledged before must hold all the same. */
static void not_while_the_server_is_away_either(void **state)
{
	struct fixture *f = both_fixture(state);
	uint32_t flags = 0;
	int served = 0;

	fill_tagged(f);
	assert_int_equal(riptide_invalidate_tag(f->handle, "odd"), RIPTIDE_OK);
	redis_server_kill(&f->server);
	for (int i = 0; i < 40; i++) {
		int status = check(f, i, 1, &flags);

		assert_int_not_equal(status, E2E_WRONG);
		if (i % 2)
			assert_int_not_equal(status, RIPTIDE_OK);
		served += status == RIPTIDE_OK && (flags & RIPTIDE_STALE);
	}
	assert_true(served >= 15);
	assert_int_equal(redis_server_restart(&f->server), 0);
}

static void another_agents_invalidation_reaches_what_we_spilled(void **state)
{
	struct fixture *f = both_fixture(state);
	struct agent_process other;
	const char *const settings[] = {"agent.backend=redis", f->url, NULL};
	riptide *theirs;

	fill_tagged(f);
	assert_int_equal(agent_process_start(&other, settings), 0);
	assert_true(e2e_await_trust(&other));
	assert_int_equal(e2e_open(&other, NULL, 5000, &theirs), RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_tag(theirs, "odd"), RIPTIDE_OK);
	/* And a tagged value of theirs in the place of one that we spilled. */
	assert_int_equal(put_tagged(theirs, 2, 2, "odd"), RIPTIDE_OK);
	e2e_pause_ms(2200); /* the lease */
	for (int i = 0; i < ENTRIES; i++)
		if (i != 2)
			assert_int_equal(check(f, i, 1, NULL), i % 2 ? RIPTIDE_MISS : RIPTIDE_OK);
	assert_int_equal(check(f, 2, 2, NULL), RIPTIDE_OK);
	riptide_close(&theirs);
	assert_int_equal(agent_process_stop_and_clean(&other), 0);
}

static void after_sigkill_an_invalidated_tag_stays_invalidated(void **state)
{
	struct fixture *f = both_fixture(state);

	fill_tagged(f);
	assert_int_equal(riptide_invalidate_tag(f->handle, "odd"), RIPTIDE_OK);
	assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f, i, 1, NULL), i % 2 ? RIPTIDE_MISS : RIPTIDE_OK);
}

/* ---- many at once, with the server away -------------------------------------------------------------------------- */

/* What could not be done is told, and done or not done as a whole; nothing older than an acknowledgement comes back. */
static void what_fails_while_the_server_is_away_is_told(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t removed;

	fill_tagged(f);
	redis_server_kill(&f->server);
	assert_true(riptide_clear(f->handle) < 0);
	assert_true(riptide_invalidate_prefix(f->handle, "k", 1, &removed) < 0);
	assert_true(riptide_invalidate_tag(f->handle, "odd") < 0);
	assert_true(put(f, 1, 2) < 0);
	for (int i = 0; i < 20; i++)
		assert_int_not_equal(check(f, i, 1, NULL), E2E_WRONG);
	assert_int_equal(redis_server_restart(&f->server), 0);
	for (int i = 0; i < 250 && check(f, 0, 1, NULL) != RIPTIDE_MISS; i++)
		e2e_pause_ms(20);
	/* The server lost everything: so did we. */
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f, i, 1, NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_clear(f->handle), RIPTIDE_OK);
	assert_int_equal(put(f, 1, 3), RIPTIDE_OK);
	assert_int_equal(check(f, 1, 3, NULL), RIPTIDE_OK);
}

static void a_prefix_takes_the_disk_with_it(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t removed = 0;
	uint32_t flags;

	fill(f, 1);
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_spilled", ENTRIES / 2, 5000) >= ENTRIES / 2);
	assert_int_equal(riptide_invalidate_prefix(f->handle, "k1", 2, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 1 + 10 + 100);
	redis_server_kill(&f->server);
	for (int i = 0; i < ENTRIES; i++)
		if (i == 1 || i / 10 == 1 || i / 100 == 1)
			assert_int_not_equal(check(f, i, 1, &flags), RIPTIDE_OK);
	assert_int_equal(redis_server_restart(&f->server), 0);
}

int main(void)
{
#define REDIS(name) cmocka_unit_test_setup_teardown(name, both_setup_redis, both_teardown)
	const struct CMUnitTest tests[] = {
		REDIS(evicted_entries_come_back_from_disk),
		REDIS(a_spilled_value_never_hides_a_newer_one),
		REDIS(while_the_server_is_away_the_disk_serves_marked_copies),
		REDIS(after_a_restart_spilled_values_are_confirmed_before_use),
		REDIS(tagged_entries_come_back_from_disk_too),
		REDIS(a_tag_that_was_invalidated_takes_the_disk_with_it),
		REDIS(not_while_the_server_is_away_either),
		REDIS(another_agents_invalidation_reaches_what_we_spilled),
		REDIS(after_sigkill_an_invalidated_tag_stays_invalidated),
		REDIS(what_fails_while_the_server_is_away_is_told),
		REDIS(a_prefix_takes_the_disk_with_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
