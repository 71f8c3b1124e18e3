/* warming_test.c - the hot set of one run is loaded by the next, where shared memory did not survive. */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/e2e/both_stores.h"

#define KEYS 400

#define MANY 3000

static const char *pace = "warming.keys_per_second=100000", *interval = "warming.save_interval_seconds=0";

static const char *const *both_settings(void)
{
	static const char *settings[] = {NULL, NULL, "cache.warming_batch_size=32", "coherence.max_age_ms=60000",
					 NULL};

	settings[0] = pace;
	settings[1] = interval;
	return settings;
}

static void fill(struct fixture *f)
{
	char key[16];

	for (int i = 0; i < KEYS; i++) {
		snprintf(key, sizeof(key), "key-%d", i);
		assert_int_equal(e2e_put(f->handle, key, "warm"), RIPTIDE_OK);
	}
}

/* Without the segments: as after a reboot. */
static void stop_and_start(struct fixture *f)
{
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_number(&f->agent, "adoptions"), 0);
}

static void the_hot_set_is_hot_again_before_it_is_asked_for(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info;
	char key[16];

	fill(f);
	stop_and_start(f);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.warming.loaded", KEYS, 10000));
	assert_int_equal(e2e_number(&f->agent, "tenants.0.warming.total"), KEYS);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.warming.failed"), 0);
	/* Nobody has asked for anything: neither hits nor misses. */
	assert_int_equal(e2e_number(&f->agent, "tenants.0.hits"), 0);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.misses"), 0);
	for (int i = 0; i < KEYS; i++) {
		snprintf(key, sizeof(key), "key-%d", i);
		assert_int_equal(e2e_check(f->handle, key, "warm", &info), RIPTIDE_OK);
		assert_true(info.flags & RIPTIDE_HOT);
	}
}

static void what_is_gone_meanwhile_is_counted_absent(void **state)
{
	struct fixture *f = *state;
	struct riptide_set_options brief = {.size = sizeof(brief), .ttl_ms = 300};
	char key[16];

	for (int i = 0; i < KEYS; i++) {
		snprintf(key, sizeof(key), "key-%d", i);
		assert_int_equal(riptide_set(f->handle, key, strlen(key), "v", 1, i % 2 ? &brief : NULL, NULL),
				 RIPTIDE_OK);
	}
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	e2e_pause_ms(400);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.warming.running", 0, 10000));
	assert_int_equal(e2e_number(&f->agent, "tenants.0.warming.loaded"), KEYS / 2);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.warming.absent"), KEYS / 2);
}

static void a_damaged_note_is_reported_and_not_loaded(void **state)
{
	struct fixture *f = *state;
	char path[160];
	int fd;

	fill(f);
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	snprintf(path, sizeof(path), "%s/hot/default", f->agent.state_dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "garbage", 7, 100), 7);
	close(fd);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.warming.total"), 0);
	assert_true(agent_process_log_has(&f->agent, "cannot be used (damaged)"));
	assert_int_equal(e2e_check(f->handle, "key-1", "warm", NULL), RIPTIDE_OK);
}

/* Written in batches; `prefix` and a number. */
static void fill_many(struct fixture *f, const char *prefix, int count)
{
	static char keys[100][32];
	struct riptide_item items[100];

	for (int done = 0; done < count; done += 100) {
		memset(items, 0, sizeof(items));
		for (int i = 0; i < 100; i++) {
			items[i].key = keys[i];
			items[i].key_length = (size_t)snprintf(keys[i], sizeof(keys[i]), "%s%d", prefix, done + i);
			items[i].value = "value";
			items[i].value_length = 5;
		}
		assert_int_equal(riptide_set_batch(f->handle, items, 100), RIPTIDE_OK);
	}
}

static void a_prefix_of_thousands_goes_in_pieces(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_cursor cursor = {.length = 0};
	struct riptide_warmed warmed = {0};
	int pieces = 0;

	fill_many(f, "many:", MANY);
	fill_many(f, "more:", 100);
	do {
		uint64_t before = warmed.total;

		assert_int_equal(riptide_warm_prefix_next(f->handle, "many:", 5, &cursor, &warmed), RIPTIDE_OK);
		/* Nobody waits for all of them before anything is told. */
		assert_true(warmed.total - before <= MANY / 2);
		pieces++;
	} while (cursor.length > 0);
	assert_true(pieces > 3);
	assert_int_equal(warmed.loaded, MANY);
	assert_int_equal(warmed.absent + warmed.failed, 0);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.warming.loaded", MANY, 5000));
	assert_int_equal(e2e_number(&f->agent, "tenants.0.warming.total"), MANY);
	assert_int_equal(riptide_warm_prefix(f->handle, "more:", 5, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.total, 100);
	assert_int_equal(riptide_warm_prefix(f->handle, "none:", 5, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.total, 0);
}

static void a_cursor_that_is_none_of_ours_is_refused(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_cursor cursor;
	struct riptide_warmed warmed = {0};

	fill_many(f, "many:", 100);
	for (uint32_t length = 1; length <= RIPTIDE_CURSOR_MAX; length += 43) {
		cursor.length = length;
		memset(cursor.bytes, (int)length, sizeof(cursor.bytes));
		assert_int_not_equal(riptide_warm_prefix_next(f->handle, "many:", 5, &cursor, &warmed), RIPTIDE_OK);
	}
	cursor.length = RIPTIDE_CURSOR_MAX + 1;
	assert_int_equal(riptide_warm_prefix_next(f->handle, "many:", 5, &cursor, &warmed), RIPTIDE_EINVALID);
	assert_int_equal(warmed.total, 0);
	assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_OK);
}

/* Lower bounds only: whoever is slower is not wrong. */
static void no_source_is_faster_than_the_pace(void **state)
{
	static char keys[500][32];
	struct fixture *f = both_fixture(state);
	struct riptide_item items[500];
	struct riptide_warmed warmed;
	uint64_t began_ms;

	fill_many(f, "many:", 500);
	memset(items, 0, sizeof(items));
	for (int i = 0; i < 500; i++) {
		items[i].key = keys[i];
		items[i].key_length = (size_t)snprintf(keys[i], sizeof(keys[i]), "many:%d", i);
	}
	began_ms = e2e_now_ms();
	assert_int_equal(riptide_warm(f->handle, items, 500, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.loaded, 500);
	/* 50 may have been saved up. */
	assert_true(e2e_now_ms() - began_ms >= 850);
	began_ms = e2e_now_ms();
	assert_int_equal(riptide_warm_prefix(f->handle, "many:", 5, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.loaded, 500);
	assert_true(e2e_now_ms() - began_ms >= 850);
}

/* At ten keys a second a piece of a hundred takes longer than the handle waits: it comes in parts. */
static void a_list_that_takes_longer_than_the_timeout_still_ends(void **state)
{
	static char keys[30][32];
	struct fixture *f = both_fixture(state);
	struct riptide_item items[30];
	struct riptide_warmed warmed;
	riptide *hasty;

	assert_int_equal(e2e_open(&f->agent, NULL, 1000, &hasty), RIPTIDE_OK);
	fill_many(f, "many:", 100);
	memset(items, 0, sizeof(items));
	for (int i = 0; i < 30; i++) {
		items[i].key = keys[i];
		items[i].key_length = (size_t)snprintf(keys[i], sizeof(keys[i]), i < 28 ? "many:%d" : "none:%d", i);
	}
	items[7].key_length = 0;
	assert_int_equal(riptide_warm(hasty, items, 30, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.loaded, 27);
	assert_int_equal(warmed.absent, 2);
	assert_int_equal(warmed.failed, 1);
	riptide_close(&hasty);
}

static void remove_segments(const struct fixture *f)
{
	char path[128], line[512], kind[32], tenant[80], name[128];
	FILE *list;

	snprintf(path, sizeof(path), "%s/objects", f->agent.run_dir);
	list = fopen(path, "re");
	assert_non_null(list);
	while (fgets(line, sizeof(line), list))
		if (sscanf(line, "%31s %79s %127s", kind, tenant, name) == 3 && strcmp(tenant, "-") != 0)
			assert_int_equal(shm_unlink(name), 0);
	fclose(list);
}

static void an_agent_that_was_killed_has_noted_its_hot_set(void **state)
{
	struct fixture *f = both_fixture(state);
	char path[160];

	fill(f);
	snprintf(path, sizeof(path), "%s/hot/default", f->agent.state_dir);
	for (int i = 0; i < 100 && access(path, R_OK) != 0; i++)
		e2e_pause_ms(100);
	assert_int_equal(access(path, R_OK), 0);
	/* The note that is there may be of the first keys; the next one has them all. */
	e2e_pause_ms(2500);
	assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
	remove_segments(f);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.warming.loaded", KEYS, 10000));
}

/* Another host's writes would not be noticed: such copies live a second, and loading them would be in vain. */
static void without_a_feed_nothing_is_loaded_in_vain(void **state)
{
	struct fixture *f = both_fixture(state);

	fill(f);
	stop_and_start(f);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.warming.total"), 0);
	assert_int_equal(e2e_check(f->handle, "key-1", "warm", NULL), RIPTIDE_OK);
}

static int setup_slow_embedded(void **state)
{
	pace = "warming.keys_per_second=500";
	return both_setup_embedded(state);
}

static int setup_slow_redis(void **state)
{
	pace = "warming.keys_per_second=500";
	return both_setup_redis(state);
}

static int setup_slowest(void **state)
{
	pace = "warming.keys_per_second=10";
	return both_setup_embedded(state);
}

static int setup_noting(void **state)
{
	interval = "warming.save_interval_seconds=1";
	return both_setup_embedded(state);
}

static int teardown(void **state)
{
	pace = "warming.keys_per_second=100000";
	interval = "warming.save_interval_seconds=0";
	return both_teardown(state);
}

int main(void)
{
#define EMBEDDED(name) cmocka_unit_test_setup_teardown(name, both_setup_embedded, both_teardown)
	const struct CMUnitTest tests[] = {
		EMBEDDED(the_hot_set_is_hot_again_before_it_is_asked_for),
		EMBEDDED(what_is_gone_meanwhile_is_counted_absent),
		EMBEDDED(a_damaged_note_is_reported_and_not_loaded),
		BOTH_STORES(a_prefix_of_thousands_goes_in_pieces),
		BOTH_STORES(a_cursor_that_is_none_of_ours_is_refused),
		cmocka_unit_test_setup_teardown(no_source_is_faster_than_the_pace, setup_slow_embedded, teardown),
		cmocka_unit_test_setup_teardown(no_source_is_faster_than_the_pace, setup_slow_redis, teardown),
		cmocka_unit_test_setup_teardown(a_list_that_takes_longer_than_the_timeout_still_ends, setup_slowest,
						teardown),
		cmocka_unit_test_setup_teardown(an_agent_that_was_killed_has_noted_its_hot_set, setup_noting,
						teardown),
		cmocka_unit_test_setup_teardown(without_a_feed_nothing_is_loaded_in_vain, both_setup_redis,
						both_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
