/*
 * spill_gone_test.c - what was invalidated, deleted or replaced while it lay on the disk tier must not come back from there:
 * by its tag, its prefix, its namespace or its key; here or by another agent; with the server there or away; and over a kill.
 */
#include <signal.h>

#include <hiredis/hiredis.h>

#include "tests/e2e/both_stores.h"

#define VALUE_BYTES 30000
#define ENTRIES 120
#define KEY_BYTES 24

static bool told_nothing; /* the fixture's agent is one whose copies live by age */

static const char *const *both_settings(void)
{
	static const char *const by_age[] = {"cache.max_memory_bytes=2600K",   "cache.segment_initial_bytes=1M",
					     "cache.enable_compression=false", "coherence.mode=ttl",
					     "coherence.max_age_ms=300",       NULL};
	static const char *const settings[] = {"cache.max_memory_bytes=2600K",    "cache.segment_initial_bytes=1M",
					       "cache.enable_compression=false",  "coherence.max_age_ms=60000",
					       "redis.retry_attempts=0",          "redis.command_timeout_ms=500",
					       "redis.connection_timeout_ms=500", NULL};

	return told_nothing ? by_age : settings;
}

static int setup_by_age(void **state)
{
	int status;

	told_nothing = true;
	status = both_setup_redis(state);
	told_nothing = false;
	return status;
}

/* Another agent before the same server. */
struct other {
	struct agent_process agent;
	riptide *handle;
};

static void start_other(struct other *other, const struct fixture *f, const char *mode)
{
	const char *const settings[] = {"agent.backend=redis", f->url, mode, "coherence.max_age_ms=60000", NULL};

	assert_int_equal(agent_process_start(&other->agent, settings), 0);
	assert_int_equal(e2e_open(&other->agent, NULL, 5000, &other->handle), RIPTIDE_OK);
}

static void stop_other(struct other *other)
{
	riptide_close(&other->handle);
	assert_int_equal(agent_process_stop_and_clean(&other->agent), 0);
}

static void make_value(char value[VALUE_BYTES], int number, int round)
{
	memset(value, 'a' + number % 26, VALUE_BYTES);
	snprintf(value, 64, "%d of round %d", number, round);
}

static int put(riptide *handle, const char *prefix, int number, int round, const char *tag)
{
	const char *const tags[] = {"all", tag};
	struct riptide_metadata metadata = {.tags = tags, .tag_count = 2};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = tag ? &metadata : NULL};
	char key[KEY_BYTES], value[VALUE_BYTES];

	snprintf(key, sizeof(key), "%s%d", prefix, number);
	make_value(value, number, round);
	return riptide_set(handle, key, strlen(key), value, sizeof(value), &options, NULL);
}

/* RIPTIDE_OK if the value is the one of the round, E2E_WRONG if it is another, else what get returned. */
static int check(riptide *handle, const char *prefix, int number, int round)
{
	char key[KEY_BYTES], expected[VALUE_BYTES];
	struct riptide_value value;
	int status;

	snprintf(key, sizeof(key), "%s%d", prefix, number);
	make_value(expected, number, round);
	status = riptide_get(handle, key, strlen(key), &value);
	if (status != RIPTIDE_OK)
		return status;
	if (value.length != sizeof(expected) || memcmp(value.data, expected, sizeof(expected)) != 0)
		status = E2E_WRONG;
	riptide_value_free(&value);
	return status;
}

static int count(riptide *handle, const char *prefix, int status)
{
	int found = 0;

	for (int i = 0; i < ENTRIES; i++)
		found += check(handle, prefix, i, 1) == status;
	return found;
}

static const char *tag_of(int number)
{
	return number % 2 ? "odd" : "even";
}

static void fill(struct fixture *f, const char *prefix, bool tagged)
{
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(put(f->handle, prefix, i, 1, tagged ? tag_of(i) : NULL), RIPTIDE_OK);
}

/* Others take their place in the ring: all of them are on disk. */
static void push_out(struct fixture *f)
{
	fill(f, "fill-", false);
	if (f->redis)
		assert_true(e2e_await(&f->agent, "workers.0.spill.total_spilled", ENTRIES, 10000) >= ENTRIES);
}

/* ---- tags --------------------------------------------------------------------------------------------------- */

static void tagged_entries_come_back_from_disk(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_value value;
	struct riptide_field field;
	size_t cursor = 0;

	fill(f, "k", true);
	push_out(f);
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f->handle, "k", i, 1), RIPTIDE_OK);
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_restored", ENTRIES / 2, 5000) >= ENTRIES / 2);
	assert_int_equal(e2e_number(&f->agent, "workers.0.spill.corrupt"), 0);
	push_out(f);
	assert_int_equal(riptide_get(f->handle, "k1", 2, &value), RIPTIDE_OK);
	assert_int_equal(riptide_metadata_next(value.metadata, value.metadata_length, &cursor, &field), 1);
	assert_memory_equal(field.value, "all", 3);
	assert_int_equal(riptide_metadata_next(value.metadata, value.metadata_length, &cursor, &field), 1);
	assert_memory_equal(field.value, "odd", 3);
	assert_int_equal(riptide_metadata_next(value.metadata, value.metadata_length, &cursor, &field), 0);
	riptide_value_free(&value);
}

static void a_tag_takes_its_entries_on_disk(void **state)
{
	struct fixture *f = both_fixture(state);

	fill(f, "k", true);
	push_out(f);
	assert_int_equal(riptide_invalidate_tag(f->handle, "odd"), RIPTIDE_OK);
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f->handle, "k", i, 1), i % 2 ? RIPTIDE_MISS : RIPTIDE_OK);
	/* What was written under the tag's new epoch is another matter. */
	assert_int_equal(put(f->handle, "k", 1, 2, "odd"), RIPTIDE_OK);
	push_out(f);
	assert_int_equal(check(f->handle, "k", 1, 2), RIPTIDE_OK);
	assert_int_equal(check(f->handle, "k", 3, 1), RIPTIDE_MISS);
}

static void another_agents_tag_takes_entries_on_this_ones_disk(void **state)
{
	struct fixture *f = both_fixture(state);
	struct other other;

	fill(f, "k", true);
	push_out(f);
	start_other(&other, f, "coherence.mode=auto");
	assert_int_equal(riptide_invalidate_tag(other.handle, "odd"), RIPTIDE_OK);
	/* The promise: no older value later than a lease. */
	e2e_pause_ms(2100);
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f->handle, "k", i, 1), i % 2 ? RIPTIDE_MISS : RIPTIDE_OK);
	stop_other(&other);
}

/*
 * Where nothing is told, an agent that has read the tag's new epoch still has entries of the old one in its ring, and they
 * leave it without the epoch that they were written under.
 */
static void entries_do_not_take_an_epoch_to_disk_that_is_not_theirs(void **state)
{
	struct fixture *f = both_fixture(state);
	struct other other;
	riptide *handle = f->handle;

	start_other(&other, f, "coherence.mode=ttl");
	/* The fixture's agent has hot copies that live by age, and asks for a tag's epoch as often. */
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(put(handle, "k", i, 1, "odd"), RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_tag(other.handle, "odd"), RIPTIDE_OK);
	e2e_pause_ms(400);
	assert_int_equal(put(handle, "new", 1, 1, "odd"), RIPTIDE_OK);
	push_out(f);
	assert_int_equal(count(handle, "k", RIPTIDE_MISS), ENTRIES);
	assert_int_equal(check(handle, "new", 1, 1), RIPTIDE_OK);
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_restored", 1, 5000) >= 1);
	stop_other(&other);
}

static void a_tag_invalidated_while_the_agent_was_dead_takes_entries_on_its_disk(void **state)
{
	struct fixture *f = both_fixture(state);
	struct other other = {.handle = NULL};

	fill(f, "k", true);
	push_out(f);
	if (f->redis)
		start_other(&other, f, "coherence.mode=auto");
	else
		assert_int_equal(riptide_invalidate_tag(f->handle, "odd"), RIPTIDE_OK);
	assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
	if (f->redis)
		assert_int_equal(riptide_invalidate_tag(other.handle, "odd"), RIPTIDE_OK);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	for (int i = 0; i < ENTRIES; i++)
		assert_int_equal(check(f->handle, "k", i, 1), i % 2 ? RIPTIDE_MISS : RIPTIDE_OK);
	if (!f->redis)
		return;
	/* What the run before left was of use. */
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_restored", ENTRIES / 4, 5000) >= ENTRIES / 4);
	stop_other(&other);
}

/* ---- prefix and namespace ----------------------------------------------------------------------------------- */

static void a_prefix_takes_its_entries_on_disk(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t removed = 0;

	fill(f, "k", false);
	push_out(f);
	assert_int_equal(riptide_invalidate_prefix(f->handle, "k", 1, &removed), RIPTIDE_OK);
	assert_int_equal(removed, ENTRIES);
	assert_int_equal(count(f->handle, "k", RIPTIDE_MISS), ENTRIES);
	if (f->redis)
		redis_server_kill(&f->server);
	assert_int_equal(count(f->handle, "k", RIPTIDE_OK), 0);
}

/* What the server lost is not listed when the prefix is walked. */
static void a_prefix_takes_from_disk_what_the_server_has_no_more(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t removed = 1;

	fill(f, "k", false);
	push_out(f);
	redis_server_kill(&f->server);
	assert_true(count(f->handle, "k", RIPTIDE_OK) > ENTRIES / 2);
	assert_int_equal(redis_server_restart(&f->server), 0);
	for (int i = 0; i < 50 && riptide_invalidate_prefix(f->handle, "k", 1, &removed) != RIPTIDE_OK; i++)
		e2e_pause_ms(100);
	assert_int_equal(removed, 0);
	redis_server_kill(&f->server);
	assert_int_equal(count(f->handle, "k", RIPTIDE_OK), 0);
}

static void a_prefix_that_cannot_be_invalidated_is_told_and_not_served_from_disk(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t removed = 0;

	fill(f, "k", false);
	fill(f, "l", false);
	push_out(f);
	redis_server_kill(&f->server);
	assert_true(count(f->handle, "k", RIPTIDE_OK) > ENTRIES / 2);
	assert_true(riptide_invalidate_prefix(f->handle, "k", 1, &removed) < 0);
	assert_int_equal(count(f->handle, "k", RIPTIDE_OK), 0);
	assert_true(count(f->handle, "l", RIPTIDE_OK) > ENTRIES / 2);
	/* More prefixes than are remembered: what is not remembered any more counts as gone, too. */
	for (int i = 0; i < 16; i++)
		assert_true(riptide_invalidate_prefix(f->handle, "other", 5, &removed) < 0);
	assert_int_equal(count(f->handle, "k", RIPTIDE_OK), 0);
}

static void a_namespace_that_cannot_be_cleared_stays_and_one_that_was_is_gone(void **state)
{
	struct fixture *f = both_fixture(state);

	fill(f, "k", true);
	push_out(f);
	if (f->redis) {
		redis_server_pause(&f->server);
		assert_true(riptide_clear(f->handle) < 0);
		redis_server_resume(&f->server);
	}
	assert_int_equal(riptide_clear(f->handle), RIPTIDE_OK);
	assert_int_equal(count(f->handle, "k", RIPTIDE_MISS), ENTRIES);
	if (f->redis)
		redis_server_kill(&f->server);
	assert_int_equal(count(f->handle, "k", RIPTIDE_OK), 0);
}

/* The server has the command, and nobody knows whether it was done. */
static void after_a_clear_with_unknown_outcome_nothing_is_served_from_disk(void **state)
{
	struct fixture *f = both_fixture(state);

	fill(f, "k", false);
	push_out(f);
	redis_server_pause(&f->server);
	assert_true(riptide_clear(f->handle) < 0);
	assert_int_equal(count(f->handle, "k", RIPTIDE_OK), 0);
	redis_server_resume(&f->server);
}

/* ---- keys --------------------------------------------------------------------------------------------------- */

static void a_key_changed_while_its_older_value_is_on_disk_is_not_served_from_there(void **state)
{
	struct fixture *f = both_fixture(state);
	int status;

	fill(f, "k", false);
	push_out(f);
	assert_int_equal(put(f->handle, "k", 1, 2, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_delete(f->handle, "k2", 2), RIPTIDE_OK);
	assert_int_equal(riptide_touch(f->handle, "k3", 2, 300), RIPTIDE_OK);
	push_out(f);
	e2e_pause_ms(400);
	if (f->redis)
		redis_server_kill(&f->server);
	status = check(f->handle, "k", 1, 2);
	assert_true(status == RIPTIDE_OK || (f->redis && status < 0));
	assert_int_not_equal(check(f->handle, "k", 2, 1), RIPTIDE_OK);
	assert_int_not_equal(check(f->handle, "k", 3, 1), RIPTIDE_OK);
}

static void a_write_whose_outcome_nobody_knows_leaves_nothing_older_on_disk(void **state)
{
	struct fixture *f = both_fixture(state);

	fill(f, "k", false);
	push_out(f);
	/* The server has the commands when it is killed, or not. */
	redis_server_pause(&f->server);
	assert_int_equal(riptide_delete(f->handle, "k2", 2), RIPTIDE_EUNKNOWN);
	assert_true(put(f->handle, "k", 1, 2, NULL) < 0);
	redis_server_kill(&f->server);
	assert_int_not_equal(check(f->handle, "k", 1, 1), RIPTIDE_OK);
	assert_int_not_equal(check(f->handle, "k", 2, 1), RIPTIDE_OK);
	assert_int_equal(check(f->handle, "k", 5, 1), RIPTIDE_OK);
}

/* The journal has taken them: they count as done, whatever is on disk. */
static void what_was_accepted_while_the_server_is_away_hides_what_is_on_disk(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_set_options options = {.size = sizeof(options), .write_mode = RIPTIDE_WRITE_BEHIND};
	char value[VALUE_BYTES];

	fill(f, "k", true);
	push_out(f);
	redis_server_kill(&f->server);
	make_value(value, 1, 2);
	assert_int_equal(riptide_set(f->handle, "k1", 2, value, sizeof(value), &options, NULL), RIPTIDE_OK);
	assert_int_equal(check(f->handle, "k", 1, 2), RIPTIDE_OK);
	assert_int_equal(redis_server_restart(&f->server), 0);
	assert_int_equal(riptide_flush(f->handle), RIPTIDE_OK);
	assert_int_equal(check(f->handle, "k", 1, 2), RIPTIDE_OK);
}

static void what_others_deleted_is_not_served_from_disk_when_the_server_goes(void **state)
{
	struct fixture *f = both_fixture(state);
	redisContext *redis;
	redisReply *reply;

	fill(f, "k", false);
	push_out(f);
	redis = redisConnectUnix(f->server.unix_path);
	reply = redisCommand(redis, "DEL riptide:v1:{default.0}:1:c:k7");
	assert_int_equal(reply->integer, 1);
	freeReplyObject(reply);
	redisFree(redis);
	/* Told within a lease. */
	e2e_pause_ms(2100);
	redis_server_kill(&f->server);
	assert_int_equal(check(f->handle, "k", 8, 1), RIPTIDE_OK);
	assert_int_not_equal(check(f->handle, "k", 7, 1), RIPTIDE_OK);
}

static void what_expired_on_disk_is_not_served_when_the_server_goes(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_set_options options = {.size = sizeof(options), .ttl_ms = 3000};
	char value[VALUE_BYTES];

	make_value(value, 0, 1);
	assert_int_equal(riptide_set(f->handle, "t0", 2, value, sizeof(value), &options, NULL), RIPTIDE_OK);
	fill(f, "k", false);
	push_out(f);
	e2e_pause_ms(3100);
	redis_server_kill(&f->server);
	assert_int_not_equal(check(f->handle, "t", 0, 1), RIPTIDE_OK);
}

int main(void)
{
#define REDIS(name) cmocka_unit_test_setup_teardown(name, both_setup_redis, both_teardown)
	const struct CMUnitTest tests[] = {
		REDIS(tagged_entries_come_back_from_disk),
		BOTH_STORES(a_tag_takes_its_entries_on_disk),
		REDIS(another_agents_tag_takes_entries_on_this_ones_disk),
		cmocka_unit_test_setup_teardown(entries_do_not_take_an_epoch_to_disk_that_is_not_theirs, setup_by_age,
						both_teardown),
		BOTH_STORES(a_tag_invalidated_while_the_agent_was_dead_takes_entries_on_its_disk),
		BOTH_STORES(a_prefix_takes_its_entries_on_disk),
		REDIS(a_prefix_takes_from_disk_what_the_server_has_no_more),
		REDIS(a_prefix_that_cannot_be_invalidated_is_told_and_not_served_from_disk),
		BOTH_STORES(a_namespace_that_cannot_be_cleared_stays_and_one_that_was_is_gone),
		REDIS(after_a_clear_with_unknown_outcome_nothing_is_served_from_disk),
		BOTH_STORES(a_key_changed_while_its_older_value_is_on_disk_is_not_served_from_there),
		REDIS(a_write_whose_outcome_nobody_knows_leaves_nothing_older_on_disk),
		REDIS(what_was_accepted_while_the_server_is_away_hides_what_is_on_disk),
		REDIS(what_others_deleted_is_not_served_from_disk_when_the_server_goes),
		REDIS(what_expired_on_disk_is_not_served_when_the_server_goes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
