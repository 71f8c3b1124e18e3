/* entries_test.c - what can be done to an entry besides get, set and delete; the same on both stores. */
#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/order.h"
#include "tests/e2e/both_stores.h"

static const char *const *both_settings(void)
{
	static const char *const settings[] = {"cache.negative_entries_max=1000", NULL};

	return settings;
}

static int set_if(riptide *handle, const char *key, const char *value, enum riptide_condition condition,
		  uint64_t *ret_version)
{
	struct riptide_set_options options = {.size = sizeof(options), .condition = condition};

	return riptide_set(handle, key, strlen(key), value, strlen(value), &options, ret_version);
}

static int set_tagged(riptide *handle, const char *key, const char *value, const char *const *tags, size_t count)
{
	struct riptide_metadata metadata = {.source = "test", .tags = tags, .tag_count = count};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};

	return riptide_set(handle, key, strlen(key), value, strlen(value), &options, NULL);
}

static int cas(riptide *handle, const char *key, uint64_t version, const char *value, uint64_t *ret_version)
{
	return riptide_cas(handle, key, strlen(key), version, value, strlen(value), NULL, ret_version);
}

static uint64_t version_of(riptide *handle, const char *key)
{
	struct riptide_info info = {0};

	assert_int_equal(riptide_exists(handle, key, strlen(key), &info), RIPTIDE_OK);
	return info.version;
}

/* ---- conditions --------------------------------------------------------------------------------------------- */

static void a_set_may_ask_for_absence_or_presence(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t first, found;

	assert_int_equal(set_if(f->handle, "k", "none", RIPTIDE_IF_PRESENT, &found), RIPTIDE_CONFLICT);
	assert_int_equal(found, 0);
	assert_int_equal(e2e_check(f->handle, "k", "none", NULL), RIPTIDE_MISS);
	assert_int_equal(set_if(f->handle, "k", "one", RIPTIDE_IF_ABSENT, &first), RIPTIDE_OK);
	assert_int_equal(set_if(f->handle, "k", "two", RIPTIDE_IF_ABSENT, &found), RIPTIDE_CONFLICT);
	assert_int_equal(found, first);
	assert_int_equal(e2e_check(f->handle, "k", "one", NULL), RIPTIDE_OK);
	assert_int_equal(set_if(f->handle, "k", "three", RIPTIDE_IF_PRESENT, NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "k", "three", NULL), RIPTIDE_OK);
	assert_int_equal(riptide_delete(f->handle, "k", 1), RIPTIDE_OK);
	assert_int_equal(set_if(f->handle, "k", "four", RIPTIDE_IF_ABSENT, NULL), RIPTIDE_OK);
}

static void compare_and_set_takes_only_the_version_it_was_told(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t first, second, found = 1;

	assert_int_equal(cas(f->handle, "k", 12345, "x", &found), RIPTIDE_CONFLICT);
	assert_int_equal(found, 0);
	assert_int_equal(cas(f->handle, "k", 0, "one", &first), RIPTIDE_OK);
	assert_int_equal(version_of(f->handle, "k"), first);
	assert_int_equal(cas(f->handle, "k", 0, "again", &found), RIPTIDE_CONFLICT);
	assert_int_equal(found, first);
	assert_int_equal(cas(f->handle, "k", first, "two", &second), RIPTIDE_OK);
	assert_true(second > first);
	assert_int_equal(cas(f->handle, "k", first, "late", &found), RIPTIDE_CONFLICT);
	assert_int_equal(found, second);
	assert_int_equal(e2e_check(f->handle, "k", "two", NULL), RIPTIDE_OK);
}

static void an_expired_entry_counts_as_absent(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_set_options options = {.size = sizeof(options), .ttl_ms = 150};

	assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, &options, NULL), RIPTIDE_OK);
	assert_int_equal(set_if(f->handle, "k", "no", RIPTIDE_IF_ABSENT, NULL), RIPTIDE_CONFLICT);
	e2e_pause_ms(300);
	assert_int_equal(set_if(f->handle, "k", "no", RIPTIDE_IF_PRESENT, NULL), RIPTIDE_CONFLICT);
	assert_int_equal(set_if(f->handle, "k", "yes", RIPTIDE_IF_ABSENT, NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "k", "yes", NULL), RIPTIDE_OK);
}

/* ---- life time ---------------------------------------------------------------------------------------------- */

static void the_life_time_can_be_asked_and_changed(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_set_options options = {.size = sizeof(options), .ttl_ms = 10000};
	uint64_t ttl, later;

	assert_int_equal(riptide_ttl(f->handle, "k", 1, &ttl), RIPTIDE_MISS);
	assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, &options, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_ttl(f->handle, "k", 1, &ttl), RIPTIDE_OK);
	assert_in_range(ttl, 5000, 10000);
	e2e_pause_ms(30);
	assert_int_equal(riptide_ttl(f->handle, "k", 1, &later), RIPTIDE_OK);
	assert_true(later < ttl);
	assert_int_equal(riptide_touch(f->handle, "k", 1, 60000), RIPTIDE_OK);
	assert_int_equal(riptide_ttl(f->handle, "k", 1, &ttl), RIPTIDE_OK);
	assert_in_range(ttl, 50000, 60000);
	assert_int_equal(riptide_touch(f->handle, "k", 1, RIPTIDE_NEVER), RIPTIDE_OK);
	assert_int_equal(riptide_ttl(f->handle, "k", 1, &ttl), RIPTIDE_OK);
	assert_int_equal(ttl, RIPTIDE_NEVER);
	assert_int_equal(riptide_touch(f->handle, "other", 5, 60000), RIPTIDE_MISS);
}

/* ---- counting ----------------------------------------------------------------------------------------------- */

static void counting_goes_up_and_down_and_refuses_what_is_no_number(void **state)
{
	struct fixture *f = both_fixture(state);
	int64_t value = 0;

	assert_int_equal(riptide_incr(f->handle, "n", 1, 5, NULL, &value), RIPTIDE_OK);
	assert_int_equal(value, 5);
	assert_int_equal(riptide_incr(f->handle, "n", 1, 3, NULL, &value), RIPTIDE_OK);
	assert_int_equal(value, 8);
	assert_int_equal(riptide_incr(f->handle, "n", 1, -10, NULL, &value), RIPTIDE_OK);
	assert_int_equal(value, -2);
	assert_int_equal(e2e_check(f->handle, "n", "-2", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_put(f->handle, "text", "12 monkeys"), RIPTIDE_OK);
	assert_int_equal(riptide_incr(f->handle, "text", 4, 1, NULL, &value), RIPTIDE_EINVALID);
	assert_int_equal(e2e_check(f->handle, "text", "12 monkeys", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_put(f->handle, "n", "9223372036854775807"), RIPTIDE_OK);
	assert_int_equal(riptide_incr(f->handle, "n", 1, 1, NULL, &value), RIPTIDE_EINVALID);
	assert_int_equal(riptide_incr(f->handle, "n", 1, -1, NULL, &value), RIPTIDE_OK);
	assert_true(value == INT64_MAX - 1);
}

static void counting_keeps_life_time_and_metadata(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_metadata metadata = {.content_type = "text/counter"};
	struct riptide_set_options options = {.size = sizeof(options), .ttl_ms = 60000, .metadata = &metadata};
	struct riptide_value value;
	uint64_t ttl;

	assert_int_equal(riptide_set(f->handle, "n", 1, "41", 2, &options, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_incr(f->handle, "n", 1, 1, NULL, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_get(f->handle, "n", 1, &value), RIPTIDE_OK);
	assert_string_equal(value.data, "42");
	assert_true(value.metadata_length > 0);
	riptide_value_free(&value);
	assert_int_equal(riptide_ttl(f->handle, "n", 1, &ttl), RIPTIDE_OK);
	assert_in_range(ttl, 30000, 60000);
}

#define COUNTERS 6
#define COUNTS 150

static int count_up(void *context)
{
	struct fixture *f = context;

	for (int i = 0; i < COUNTS; i++)
		if (riptide_incr(f->handle, "shared", 6, 1, NULL, NULL) != RIPTIDE_OK)
			return 1;
	return 0;
}

static void no_count_of_many_processes_is_lost(void **state)
{
	struct fixture *f = both_fixture(state);
	pid_t pids[COUNTERS];
	int64_t value;

	for (int i = 0; i < COUNTERS; i++)
		pids[i] = e2e_fork(count_up, f);
	for (int i = 0; i < COUNTERS; i++)
		assert_int_equal(e2e_join(pids[i], 30000), 0);
	assert_int_equal(riptide_incr(f->handle, "shared", 6, 0, NULL, &value), RIPTIDE_OK);
	assert_int_equal(value, COUNTERS * COUNTS);
}

/* ---- tags --------------------------------------------------------------------------------------------------- */

static const char *const red[] = {"red"}, *const red_and_big[] = {"red", "big"}, *const blue[] = {"blue"};

static void a_tag_takes_all_its_entries_with_it_and_no_other(void **state)
{
	struct fixture *f = both_fixture(state);
	char key[32];

	for (int i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "red-%d", i);
		assert_int_equal(set_tagged(f->handle, key, "r", red, 1), RIPTIDE_OK);
	}
	assert_int_equal(set_tagged(f->handle, "both", "b", red_and_big, 2), RIPTIDE_OK);
	assert_int_equal(set_tagged(f->handle, "blue", "b", blue, 1), RIPTIDE_OK);
	assert_int_equal(e2e_put(f->handle, "plain", "p"), RIPTIDE_OK);
	for (int i = 0; i < 50; i++) {
		struct riptide_info info;

		snprintf(key, sizeof(key), "red-%d", i);
		assert_int_equal(e2e_check(f->handle, key, "r", &info), RIPTIDE_OK);
		assert_true(info.flags & RIPTIDE_HOT);
	}
	assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
	for (int i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "red-%d", i);
		assert_int_equal(e2e_check(f->handle, key, "r", NULL), RIPTIDE_MISS);
	}
	assert_int_equal(e2e_check(f->handle, "both", "b", NULL), RIPTIDE_MISS);
	assert_int_equal(e2e_check(f->handle, "blue", "b", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "plain", "p", NULL), RIPTIDE_OK);
	/* Written anew it lives, until the next time. */
	assert_int_equal(set_tagged(f->handle, "red-0", "new", red, 1), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "red-0", "new", NULL), RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "red-0", "new", NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_invalidate_tag(f->handle, "never heard of"), RIPTIDE_OK);
}

static void what_a_tag_took_is_absent_to_every_operation(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_set_options absent = {.size = sizeof(absent), .condition = RIPTIDE_IF_ABSENT};
	struct riptide_set_options present = {.size = sizeof(present), .condition = RIPTIDE_IF_PRESENT};
	uint64_t ttl, version = 7;

	assert_int_equal(set_tagged(f->handle, "k", "old", red, 1), RIPTIDE_OK);
	assert_int_equal(riptide_exists(f->handle, "k", 1, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_touch(f->handle, "k", 1, 50000), RIPTIDE_OK);
	assert_int_equal(riptide_set(f->handle, "k", 1, "older", 5, &absent, NULL), RIPTIDE_CONFLICT);
	assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
	assert_int_equal(riptide_exists(f->handle, "k", 1, NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_ttl(f->handle, "k", 1, &ttl), RIPTIDE_MISS);
	assert_int_equal(riptide_touch(f->handle, "k", 1, 50000), RIPTIDE_MISS);
	assert_int_equal(riptide_set(f->handle, "k", 1, "new", 3, &present, &version), RIPTIDE_CONFLICT);
	assert_int_equal(version, 0);
	assert_int_equal(e2e_check(f->handle, "k", "old", NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_set(f->handle, "k", 1, "new", 3, &absent, NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "k", "new", NULL), RIPTIDE_OK);
	assert_int_equal(riptide_set(f->handle, "k", 1, "newer", 5, &present, NULL), RIPTIDE_OK);
	assert_int_equal(set_tagged(f->handle, "cas", "old", red, 1), RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
	assert_int_equal(riptide_cas(f->handle, "cas", 3, 0, "new", 3, NULL, &version), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "cas", "new", NULL), RIPTIDE_OK);
	assert_int_equal(riptide_cas(f->handle, "cas", 3, 0, "newer", 5, NULL, NULL), RIPTIDE_CONFLICT);
}

static void what_a_tag_took_stays_gone_after_the_agent_was_killed(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(set_tagged(f->handle, "k", "old", red, 1), RIPTIDE_OK);
	assert_int_equal(set_tagged(f->handle, "other", "stays", blue, 1), RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_check(f->handle, "k", "old", NULL), RIPTIDE_MISS);
	assert_int_equal(e2e_check(f->handle, "other", "stays", NULL), RIPTIDE_OK);
}

static void tags_come_back_with_the_entry(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(set_tagged(f->handle, "k", "v", red_and_big, 2), RIPTIDE_OK);
	for (int i = 0; i < 2; i++) {
		struct riptide_value value;
		struct riptide_field field;
		size_t cursor = 0, tags = 0;

		assert_int_equal(riptide_get(f->handle, "k", 1, &value), RIPTIDE_OK);
		while (riptide_metadata_next(value.metadata, value.metadata_length, &cursor, &field) == 1)
			tags += field.kind == RIPTIDE_METADATA_TAG;
		assert_int_equal(tags, 2);
		assert_int_equal(value.length, 1);
		assert_int_equal(value.info.metadata_length, value.metadata_length);
		riptide_value_free(&value);
		/* Once from the ring, once from the store. */
		assert_int_equal(agent_process_restart(&f->agent), 0);
	}
}

/* Invalidations race with sets and gets: what was set before an invalidation that was acknowledged is not read after it. */
struct race {
	struct fixture *f;
	uint64_t *floor; /* number of the last write before the last acknowledged invalidation */
	uint32_t *stop;
};

static int read_while_invalidated(void *context)
{
	struct race *r = context;

	while (!rshm_load_relaxed32(r->stop)) {
		uint64_t least = rshm_load_acquire(r->floor), number;
		size_t length;
		int status = riptide_get_into(r->f->handle, "raced", 5, &number, sizeof(number), &length, NULL);

		if (status == RIPTIDE_OK && number <= least)
			return 1;
		if (status != RIPTIDE_OK && status != RIPTIDE_MISS)
			return 2;
	}
	return 0;
}

static void no_reader_gets_what_a_tag_has_taken(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_metadata metadata = {.tags = red, .tag_count = 1};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};
	void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct race race = {.f = f, .floor = shared, .stop = (uint32_t *)shared + 16};
	pid_t pids[2];

	for (int i = 0; i < 2; i++)
		pids[i] = e2e_fork(read_while_invalidated, &race);
	for (uint64_t number = 1; number <= 600; number++) {
		assert_int_equal(riptide_set(f->handle, "raced", 5, &number, sizeof(number), &options, NULL),
				 RIPTIDE_OK);
		if (number % 3)
			continue;
		assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
		rshm_store_release(race.floor, number);
	}
	rshm_store_relaxed32(race.stop, 1);
	for (int i = 0; i < 2; i++)
		assert_int_equal(e2e_join(pids[i], 10000), 0);
	munmap(shared, 4096);
}

/* ---- prefix and clear --------------------------------------------------------------------------------------- */

static void a_prefix_takes_what_begins_with_it_and_nothing_else(void **state)
{
	struct fixture *f = both_fixture(state);
	unsigned char long_key[900];
	uint64_t removed = 0;
	char key[32];

	memset(long_key, 'u', sizeof(long_key));
	memcpy(long_key, "user:", 5);
	for (int i = 0; i < 700; i++) {
		snprintf(key, sizeof(key), "user:%d", i);
		assert_int_equal(e2e_put(f->handle, key, "x"), RIPTIDE_OK);
	}
	assert_int_equal(riptide_set(f->handle, long_key, sizeof(long_key), "x", 1, NULL, NULL), RIPTIDE_OK);
	assert_int_equal(e2e_put(f->handle, "user", "stays"), RIPTIDE_OK);
	assert_int_equal(e2e_put(f->handle, "users:1", "stays"), RIPTIDE_OK);
	assert_int_equal(e2e_put(f->handle, "u*er:[1]?", "stays"), RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_prefix(f->handle, "user:", 5, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 701);
	for (int i = 0; i < 700; i++) {
		snprintf(key, sizeof(key), "user:%d", i);
		assert_int_equal(e2e_check(f->handle, key, "x", NULL), RIPTIDE_MISS);
	}
	assert_int_equal(riptide_exists(f->handle, long_key, sizeof(long_key), NULL), RIPTIDE_MISS);
	assert_int_equal(e2e_check(f->handle, "user", "stays", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "users:1", "stays", NULL), RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_prefix(f->handle, "u*er:[", 6, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 1);
	assert_int_equal(e2e_check(f->handle, "users:1", "stays", NULL), RIPTIDE_OK);
}

static void clear_removes_everything_and_new_entries_live(void **state)
{
	struct fixture *f = both_fixture(state);
	char key[32];

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 300; i++) {
			snprintf(key, sizeof(key), "key-%d", i);
			assert_int_equal(set_tagged(f->handle, key, "x", red, (size_t)(i & 1)), RIPTIDE_OK);
		}
		assert_int_equal(e2e_check(f->handle, "key-7", "x", NULL), RIPTIDE_OK);
		assert_int_equal(riptide_clear(f->handle), RIPTIDE_OK);
		for (int i = 0; i < 300; i++) {
			snprintf(key, sizeof(key), "key-%d", i);
			assert_int_equal(e2e_check(f->handle, key, "x", NULL), RIPTIDE_MISS);
		}
	}
	assert_int_equal(e2e_put(f->handle, "key-1", "new"), RIPTIDE_OK);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_check(f->handle, "key-1", "new", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "key-2", "x", NULL), RIPTIDE_MISS);
	/* What the old generations held is swept in the background. */
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.unswept_generations", 0, 10000));
}

/* ---- batches ------------------------------------------------------------------------------------------------ */

static void items_of_a_batch_have_conditions_and_life_times_of_their_own(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_set_options absent = {.size = sizeof(absent), .condition = RIPTIDE_IF_ABSENT};
	struct riptide_set_options brief = {.size = sizeof(brief), .ttl_ms = 5000};
	struct riptide_item items[3] = {
		{.key = "a", .key_length = 1, .value = "1", .value_length = 1, .options = &absent},
		{.key = "b", .key_length = 1, .value = "2", .value_length = 1, .options = &brief},
		{.key = "c", .key_length = 1, .value = "3", .value_length = 1},
	};
	uint64_t ttl;

	assert_int_equal(e2e_put(f->handle, "a", "0"), RIPTIDE_OK);
	assert_int_equal(riptide_set_batch(f->handle, items, 3), RIPTIDE_OK);
	assert_int_equal(items[0].status, RIPTIDE_CONFLICT);
	assert_int_equal(items[1].status, RIPTIDE_OK);
	assert_int_equal(items[2].status, RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "a", "0", NULL), RIPTIDE_OK);
	assert_int_equal(riptide_ttl(f->handle, "b", 1, &ttl), RIPTIDE_OK);
	assert_in_range(ttl, 1, 5000);
	assert_int_equal(riptide_ttl(f->handle, "c", 1, &ttl), RIPTIDE_OK);
	assert_true(ttl > 80000000);
}

static void warming_brings_entries_into_shared_memory(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_item items[600] = {{0}};
	struct riptide_warmed warmed;
	struct riptide_info info;
	char keys[600][16];

	for (int i = 0; i < 600; i++) {
		snprintf(keys[i], sizeof(keys[i]), "w%d", i);
		items[i].key = keys[i];
		items[i].key_length = strlen(keys[i]);
		if (i < 500)
			assert_int_equal(e2e_put(f->handle, keys[i], "warm"), RIPTIDE_OK);
	}
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_true(e2e_await_trust(&f->agent));
	assert_int_equal(riptide_warm(f->handle, items, 600, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.total, 600);
	assert_int_equal(warmed.loaded, 500);
	assert_int_equal(warmed.absent, 100);
	assert_int_equal(warmed.failed, 0);
	for (int i = 0; i < 500; i++) {
		assert_int_equal(e2e_check(f->handle, keys[i], "warm", &info), RIPTIDE_OK);
		assert_true(info.flags & RIPTIDE_HOT);
	}
}

static void warming_by_prefix_takes_what_begins_with_it(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_warmed warmed;
	struct riptide_info info;
	char key[16];

	for (int i = 0; i < 300; i++) {
		snprintf(key, sizeof(key), "%s:%d", i % 3 ? "warm" : "cold", i);
		assert_int_equal(e2e_put(f->handle, key, "v"), RIPTIDE_OK);
	}
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	/* Nothing noted, nothing kept: all is cold. */
	snprintf(f->url, sizeof(f->url), "%s/hot/default", f->agent.state_dir);
	(void)unlink(f->url);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_true(e2e_await_trust(&f->agent));
	assert_int_equal(riptide_warm_prefix(f->handle, "warm:", 5, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.loaded, 200);
	assert_int_equal(warmed.total, 200);
	assert_int_equal(e2e_check(f->handle, "warm:1", "v", &info), RIPTIDE_OK);
	assert_true(info.flags & RIPTIDE_HOT);
	assert_int_equal(e2e_check(f->handle, "cold:0", "v", &info), RIPTIDE_OK);
	assert_false(info.flags & RIPTIDE_HOT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(a_set_may_ask_for_absence_or_presence),
		BOTH_STORES(compare_and_set_takes_only_the_version_it_was_told),
		BOTH_STORES(an_expired_entry_counts_as_absent),
		BOTH_STORES(the_life_time_can_be_asked_and_changed),
		BOTH_STORES(counting_goes_up_and_down_and_refuses_what_is_no_number),
		BOTH_STORES(counting_keeps_life_time_and_metadata),
		BOTH_STORES(no_count_of_many_processes_is_lost),
		BOTH_STORES(a_tag_takes_all_its_entries_with_it_and_no_other),
		BOTH_STORES(what_a_tag_took_is_absent_to_every_operation),
		BOTH_STORES(what_a_tag_took_stays_gone_after_the_agent_was_killed),
		BOTH_STORES(tags_come_back_with_the_entry),
		BOTH_STORES(no_reader_gets_what_a_tag_has_taken),
		BOTH_STORES(a_prefix_takes_what_begins_with_it_and_nothing_else),
		BOTH_STORES(clear_removes_everything_and_new_entries_live),
		BOTH_STORES(items_of_a_batch_have_conditions_and_life_times_of_their_own),
		BOTH_STORES(warming_brings_entries_into_shared_memory),
		BOTH_STORES(warming_by_prefix_takes_what_begins_with_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
