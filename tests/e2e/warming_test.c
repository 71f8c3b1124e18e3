/* warming_test.c - the hot set of one run is loaded by the next, where shared memory did not survive. */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "tests/e2e/both_stores.h"

#define KEYS 400

static const char *const *both_settings(void)
{
	static const char *const settings[] = {"warming.keys_per_second=100000", "cache.warming_batch_size=32", NULL};

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

/* Another host's writes would not be noticed: such copies live a second, and loading them would be in vain. */
static void without_a_feed_nothing_is_loaded_in_vain(void **state)
{
	struct fixture *f = both_fixture(state);

	fill(f);
	stop_and_start(f);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.warming.total"), 0);
	assert_int_equal(e2e_check(f->handle, "key-1", "warm", NULL), RIPTIDE_OK);
}

int main(void)
{
#define EMBEDDED(name) cmocka_unit_test_setup_teardown(name, both_setup_embedded, both_teardown)
	const struct CMUnitTest tests[] = {
		EMBEDDED(the_hot_set_is_hot_again_before_it_is_asked_for),
		EMBEDDED(what_is_gone_meanwhile_is_counted_absent),
		EMBEDDED(a_damaged_note_is_reported_and_not_loaded),
		cmocka_unit_test_setup_teardown(without_a_feed_nothing_is_loaded_in_vain, both_setup_redis,
						both_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
