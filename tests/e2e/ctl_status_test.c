/* ctl_status_test.c - `riptidectl status`: the journal, the disk tier and the hot set stand there while they are in use. */
#include "agent/base/metric.h"
#include "tests/e2e/ctl_fixture.h"
#include "tests/support/e2e.h"
#include "tests/support/redis_server.h"

#define VALUE_BYTES 30000
#define ENTRIES 120

static struct redis_server server;

static int start_with_redis(void **state)
{
	static char url[160];
	const char *const settings[] = {"agent.backend=redis",
					url,
					"cache.max_memory_bytes=2600K",
					"cache.segment_initial_bytes=1M",
					"cache.enable_compression=false",
					"warming.keys_per_second=1",
					NULL};

	(void)state;
	if (!redis_server_is_installed())
		return 0;
	if (redis_server_start(&server, NULL) < 0)
		return -1;
	snprintf(url, sizeof(url), "redis.url=unix://%s", server.unix_path);
	if (agent_process_start(&the_agent, settings) < 0)
		return -1;
	strcpy(socket_path, the_agent.socket);
	return e2e_await_trust(&the_agent) ? 0 : -1;
}

static int stop_with_redis(void **state)
{
	int status = the_agent.folder[0] ? stop_agent(state) : 0;

	redis_server_stop(&server);
	return status;
}

static void put(riptide *handle, int number, enum riptide_write_mode mode)
{
	struct riptide_set_options options = {.size = sizeof(options), .write_mode = mode};
	char key[16], value[VALUE_BYTES];

	memset(value, 'v', sizeof(value));
	snprintf(key, sizeof(key), "k%d", number);
	assert_int_equal(riptide_set(handle, key, strlen(key), value, sizeof(value), &options, NULL), RIPTIDE_OK);
}

static void what_is_not_in_use_is_not_told(void **state)
{
	(void)state;
	if (!the_agent.folder[0])
		skip();
	assert_int_equal(ctl("status"), 0);
	assert_null(strstr(run.out, "\n  journal "));
	assert_null(strstr(run.out, "\n  spill "));
	assert_null(strstr(run.out, "\n  warming "));
	/* Counters that the build does not have are not told as 0. */
	assert_int_equal(strstr(run.out, "completed ") != NULL, RIPTIDE_METRICS);
	assert_says(run.out, " connections ");
}

static void journal_spill_and_warming_are_told(void **state)
{
	riptide *handle;

	(void)state;
	if (!the_agent.folder[0])
		skip();
	handle = open_handle();
	for (int i = 0; i < ENTRIES; i++)
		put(handle, i, RIPTIDE_WRITE_THROUGH);
	assert_true(e2e_await(&the_agent, "workers.0.spill.total_spilled", 10, 10000) >= 10);
	redis_server_pause(&server);
	put(handle, 1, RIPTIDE_WRITE_BEHIND);
	put(handle, 2, RIPTIDE_WRITE_BEHIND);
	assert_int_equal(e2e_await(&the_agent, "workers.0.journal.records", 2, 5000), 2);
	assert_int_equal(ctl("status"), 0);
	assert_says(run.out, "\n  journal    writes waiting 2, ");
	assert_says(run.out, ", the oldest for ");
	assert_says(run.out, "; accepted 2, ");
	assert_says(run.out, "\n  spill      entries ");
	assert_says(run.out, " of 1.0 GiB; spilled ");
	assert_null(strstr(run.out, "\n  warming "));
	redis_server_resume(&server);
	assert_int_equal(riptide_flush(handle), RIPTIDE_OK);
	assert_true(e2e_await_exactly(&the_agent, "workers.0.journal.records", 0, 5000));
	assert_int_equal(ctl("status"), 0);
	assert_says(run.out, "\n  journal    writes waiting 0, ");
	assert_null(strstr(run.out, ", the oldest for "));
	riptide_close(&handle);
	/* One key a second: it is under way for a minute. */
	assert_int_equal(agent_process_kill(&the_agent, SIGTERM), 0);
	assert_int_equal(agent_process_restart(&the_agent), 0);
	assert_true(e2e_await(&the_agent, "tenants.0.warming.loaded", 1, 10000) >= 1);
	assert_int_equal(ctl("status"), 0);
	assert_says(run.out, "\n  warming    default: loaded ");
	assert_says(run.out, ", absent 0, failed 0 of ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_in_use_is_not_told),
		cmocka_unit_test(journal_spill_and_warming_are_told),
	};

	return cmocka_run_group_tests(tests, start_with_redis, stop_with_redis);
}
