/* eviction_test.c - the eviction policy is the tenant's, and changes while the agent runs. */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "tests/e2e/both_stores.h"

static char config_path[64];
static char config_setting[96];

static const char *const *both_settings(void)
{
	static const char *settings[] = {config_setting, NULL};

	return settings;
}

static void write_config(const char *policy)
{
	char text[400];
	int n = snprintf(text, sizeof(text),
			 "cache { eviction_policy = %s max_memory_bytes = 2600K segment_initial_bytes = 1M }\n"
			 "tenant \"shop\" { users = {\"%u\"} eviction_policy = ttl }\n",
			 policy, (unsigned int)geteuid());
	int fd = open(config_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, (size_t)n), n);
	close(fd);
}

static int setup(void **state)
{
	e2e_make_file(config_path, sizeof(config_path), "eviction");
	snprintf(config_setting, sizeof(config_setting), "config-file=%s", config_path);
	write_config("lru");
	return both_setup_embedded(state);
}

static int teardown(void **state)
{
	unlink(config_path);
	return both_teardown(state);
}

static void expect_policy(struct fixture *f, const char *path, const char *policy)
{
	char now[32] = "";

	for (int i = 0; i < 100 && strcmp(now, policy) != 0; i++) {
		e2e_text(&f->agent, path, now, sizeof(now));
		e2e_pause_ms(20);
	}
	assert_string_equal(now, policy);
}

/* Twice as much as the ring can hold. */
static void overfill(struct fixture *f)
{
	char key[16], value[1000];

	memset(value, 'v', sizeof(value));
	for (int i = 0; i < 5000; i++) {
		snprintf(key, sizeof(key), "key-%d", i);
		assert_int_equal(riptide_set(f->handle, key, strlen(key), value, sizeof(value), NULL, NULL),
				 RIPTIDE_OK);
	}
}

static void a_reload_changes_the_policy_under_load(void **state)
{
	static const char *const policies[] = {"s3fifo", "lfu", "ttl", "random", "lru"};
	struct fixture *f = *state;

	expect_policy(f, "tenants.0.eviction_policy", "lru");
	expect_policy(f, "tenants.1.eviction_policy", "ttl");
	for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
		write_config(policies[i]);
		assert_int_equal(agent_process_kill(&f->agent, SIGHUP), 0);
		overfill(f);
		expect_policy(f, "tenants.0.eviction_policy", policies[i]);
		expect_policy(f, "tenants.1.eviction_policy", "ttl");
		assert_int_equal(riptide_exists(f->handle, "key-4999", 8, NULL), RIPTIDE_OK);
	}
	assert_true(e2e_number(&f->agent, "tenants.0.evictions") > 1000);
}

/* Sum over tenants, and a book that begins anew when an operator says so. */
static void totals_add_up_and_the_book_can_begin_anew(void **state)
{
	struct fixture *f = *state;
	char program[200];

	overfill(f);
	assert_true(e2e_await(&f->agent, "tenants.0.eviction_figures.total", 1000, 3000) >= 1000);
	assert_true(e2e_await(&f->agent, "total.sets", 5000, 3000) >= 5000);
	assert_int_equal(e2e_number(&f->agent, "total.evictions"), e2e_number(&f->agent, "tenants.0.evictions"));
	snprintf(program, sizeof(program), "\"$RIPTIDE_BUILD_DIR\"/riptidectl --socket %s evictions reset >/dev/null",
		 f->agent.socket);
	assert_int_equal(system(program), 0);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.eviction_figures.total", 0, 3000));
	snprintf(program, sizeof(program),
		 "\"$RIPTIDE_BUILD_DIR\"/riptidectl --socket %s evictions | grep -q capacity", f->agent.socket);
	assert_int_equal(system(program), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_reload_changes_the_policy_under_load, setup, teardown),
		cmocka_unit_test_setup_teardown(totals_add_up_and_the_book_can_begin_anew, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
