/*
 * spill_tenants_test.c - tenants that share a worker, a Redis and a disk tier: what one spilled is never found by another,
 * nor removed by another's clear.
 */
#include <fcntl.h>
#include <unistd.h>

#include "tests/e2e/both_stores.h"

#define VALUE_BYTES 30000
#define ENTRIES 100

static char config_path[64], config_setting[96];

static const char *const *both_settings(void)
{
	static const char *settings[] = {config_setting,
					 "agent.workers=1",
					 "cache.max_memory_bytes=8M",
					 "cache.segment_initial_bytes=1M",
					 "cache.enable_compression=false",
					 "coherence.max_age_ms=60000",
					 "redis.retry_attempts=0",
					 "redis.command_timeout_ms=500",
					 "redis.connection_timeout_ms=500",
					 NULL};

	return settings;
}

static int begin(void **state)
{
	unsigned int user = (unsigned int)geteuid();
	char text[400];
	int n, fd;

	(void)state;
	e2e_make_file(config_path, sizeof(config_path), "spill");
	snprintf(config_setting, sizeof(config_setting), "config-file=%s", config_path);
	n = snprintf(text, sizeof(text),
		     "tenant \"blue\" { users = {\"%u\"} memory_bytes = 1M }\n"
		     "tenant \"red\" { users = {\"%u\"} memory_bytes = 1M }\n",
		     user, user);
	fd = open(config_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		return -1;
	return close(fd);
}

static int end(void **state)
{
	(void)state;
	return unlink(config_path);
}

static riptide *open_tenant(struct fixture *f, const char *tenant)
{
	riptide *handle = NULL;

	assert_int_equal(e2e_open(&f->agent, tenant, 5000, &handle), RIPTIDE_OK);
	return handle;
}

/* More than the ring holds: the first ones leave it alive. */
static void fill(struct fixture *f, riptide *handle, char letter)
{
	int64_t before = e2e_number(&f->agent, "workers.0.spill.total_spilled");
	char value[VALUE_BYTES], key[16];

	memset(value, letter, sizeof(value));
	for (int i = 0; i < ENTRIES; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(riptide_set(handle, key, strlen(key), value, sizeof(value), NULL, NULL), RIPTIDE_OK);
	}
	assert_true(e2e_await(&f->agent, "workers.0.spill.total_spilled", before + ENTRIES / 3, 5000) > before);
}

/* How many of the keys are there; each must be of this letter. */
static int count(riptide *handle, char letter)
{
	struct riptide_value value;
	char key[16];
	int found = 0;

	for (int i = 0; i < ENTRIES; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		if (riptide_get(handle, key, strlen(key), &value) != RIPTIDE_OK)
			continue;
		assert_int_equal(value.length, VALUE_BYTES);
		assert_int_equal(*(const char *)value.data, letter);
		riptide_value_free(&value);
		found++;
	}
	return found;
}

static void what_one_tenant_spilled_no_other_finds(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *blue = open_tenant(f, "blue"), *red = open_tenant(f, "red");

	fill(f, red, 'r');
	/* Known to be absent, or never asked for: with the server away only the disk could have it. */
	assert_int_equal(riptide_exists(blue, "none", 4, NULL), RIPTIDE_MISS);
	redis_server_kill(&f->server);
	assert_true(count(red, 'r') > ENTRIES / 2);
	assert_int_equal(count(blue, 'b'), 0);
	assert_int_equal(redis_server_restart(&f->server), 0);
	riptide_close(&blue);
	riptide_close(&red);
}

static void clearing_one_tenant_leaves_what_another_spilled(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *blue = open_tenant(f, "blue"), *red = open_tenant(f, "red");

	fill(f, red, 'r');
	fill(f, blue, 'b');
	assert_int_equal(riptide_clear(blue), RIPTIDE_OK);
	redis_server_kill(&f->server);
	assert_true(count(red, 'r') > ENTRIES / 2);
	assert_int_equal(count(blue, 'b'), 0);
	assert_int_equal(redis_server_restart(&f->server), 0);
	riptide_close(&blue);
	riptide_close(&red);
}

int main(void)
{
#define REDIS(name) cmocka_unit_test_setup_teardown(name, both_setup_redis, both_teardown)
	const struct CMUnitTest tests[] = {
		REDIS(what_one_tenant_spilled_no_other_finds),
		REDIS(clearing_one_tenant_leaves_what_another_spilled),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
