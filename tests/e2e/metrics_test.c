/*
 * metrics_test.c - what `riptidectl metrics` and `stats --all` say is what happened: per tenant and together, of processes that
 * have ended too, of tenants that were closed too, whatever was reset.
 */
#include "tests/e2e/ctl_fixture.h"

#include "tests/support/e2e.h"
#include "tests/support/redis_server.h"

#define PROCESSES 3
#define SETS 40
#define READS 200 /* of those that are there */
#define ABSENT 30
#define DELETES 10

static char config_path[64];

static int write_config(void)
{
	char text[300];
	int n, fd;

	e2e_make_file(config_path, sizeof(config_path), "metrics");
	n = snprintf(text, sizeof(text), "tenant \"shop\" { users = {\"%u\"} memory_bytes = 1M }\n",
		     (unsigned int)geteuid());
	fd = open(config_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		return -1;
	return close(fd);
}

static int start_two_tenants(void **state)
{
	char setting[96];
	const char *const settings[] = {setting, "cache.segment_initial_bytes=1M", "tenancy.idle_seconds=1", NULL};

	(void)state;
	if (write_config() < 0)
		return -1;
	snprintf(setting, sizeof(setting), "config-file=%s", config_path);
	if (agent_process_start(&the_agent, settings) < 0)
		return -1;
	strcpy(socket_path, the_agent.socket);
	return 0;
}

static int stop_two_tenants(void **state)
{
	(void)unlink(config_path);
	return stop_agent(state);
}

/* ---- the work, by processes that end ---------------------------------------------------------------------------- */

static int work(void *context)
{
	const char *tenant = context;
	char key[32], value[100];
	riptide *handle;
	size_t length;
	int wrong = e2e_open(&the_agent, tenant, 5000, &handle) != RIPTIDE_OK;

	memset(value, 'v', sizeof(value));
	for (int i = 0; i < SETS && !wrong; i++) {
		snprintf(key, sizeof(key), "%d-%d", (int)getpid(), i);
		wrong |= riptide_set(handle, key, strlen(key), value, sizeof(value), NULL, NULL) != RIPTIDE_OK;
	}
	for (int i = 0; i < READS && !wrong; i++) {
		snprintf(key, sizeof(key), "%d-%d", (int)getpid(), i % SETS);
		wrong |=
			riptide_get_into(handle, key, strlen(key), value, sizeof(value), &length, NULL) != RIPTIDE_OK;
	}
	for (int i = 0; i < ABSENT && !wrong; i++) {
		snprintf(key, sizeof(key), "absent-%d-%d", (int)getpid(), i);
		wrong |= riptide_get_into(handle, key, strlen(key), value, sizeof(value), &length, NULL) !=
			 RIPTIDE_MISS;
	}
	for (int i = 0; i < DELETES && !wrong; i++) {
		snprintf(key, sizeof(key), "%d-%d", (int)getpid(), i);
		wrong |= riptide_delete(handle, key, strlen(key)) != RIPTIDE_OK;
	}
	riptide_close(&handle);
	return wrong;
}

static void let_work(const char *tenant, int processes)
{
	pid_t pids[8];

	for (int i = 0; i < processes; i++)
		pids[i] = e2e_fork(work, (void *)(uintptr_t)tenant);
	for (int i = 0; i < processes; i++)
		assert_int_equal(e2e_join(pids[i], PATIENCE_MS), 0);
}

/* ---- what is told ------------------------------------------------------------------------------------------------ */

/* The value of a line; -1: there is none. */
static double metric(const char *name)
{
	char start[200];
	const char *line;

	assert_int_equal(ctl("metrics"), 0);
	snprintf(start, sizeof(start), "\n%s ", name);
	line = strstr(run.out, start);
	return line ? strtod(line + strlen(start), NULL) : -1;
}

static void await_metric(const char *name, double wanted)
{
	double value = -1;

	for (int i = 0; i < 250 && value != wanted; i++) {
		value = metric(name);
		if (value != wanted)
			pause_ms(20);
	}
	if (value != wanted)
		fail_msg("%s is %g, not %g", name, value, wanted);
}

static void await_tenant(const char *tenant, int processes)
{
	char name[128];

#define AWAIT(metric_, value)                                                               \
	do {                                                                                \
		snprintf(name, sizeof(name), "riptide_" metric_ "{tenant=\"%s\"}", tenant); \
		await_metric(name, (double)(value));                                        \
	} while (0)
	AWAIT("cache_hits_total", processes * READS);
	AWAIT("cache_misses_total", processes * ABSENT);
	AWAIT("cache_sets_total", processes * SETS);
	AWAIT("cache_deletes_total", processes * DELETES);
	AWAIT("cache_hit_bytes_total", processes * READS * 100);
	AWAIT("tenant_operations_total", processes * (READS + ABSENT + SETS + DELETES));
	AWAIT("cache_plain_bytes_total", processes * SETS * 100);
	AWAIT("cache_errors_total", 0);
#undef AWAIT
}

static void figures_are_exact_after_processes_have_ended(void **state)
{
	(void)state;
	let_work("default", PROCESSES);
	let_work("shop", 1);
	await_tenant("default", PROCESSES);
	await_tenant("shop", 1);
	assert_true(metric("riptide_cache_access_duration_seconds_bucket{le=\"+Inf\"}") ==
		    metric("riptide_cache_access_duration_seconds_count"));
	assert_true(metric("riptide_cache_access_duration_seconds_count") > 0);
}

static void the_total_has_the_names_and_the_sum(void **state)
{
	static const char *const names[] = {"total_keys",     "memory_usage_bytes",   "hit_rate",
					    "miss_rate",      "avg_access_time_us",   "ops_per_second",
					    "eviction_count", "avg_compression_ratio"};
	const json_t *total, *tenant;
	json_t *document;
	size_t i;

	(void)state;
	let_work("default", 1);
	let_work("shop", 1);
	await_tenant("default", 1);
	await_tenant("shop", 1);
	assert_int_equal(ctl("stats", "--all", "--json"), 0);
	document = json_of(run.out);
	total = json_object_get(document, "total");
	for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
		assert_true(json_is_number(json_object_get(total, names[k])));
		json_array_foreach(json_object_get(document, "tenants"), i, tenant)
			assert_true(json_is_number(json_object_get(tenant, names[k])));
	}
	assert_int_equal(member(total, "hits"), 2 * READS);
	assert_int_equal(member(total, "misses"), 2 * ABSENT);
	assert_int_equal(member(total, "total_keys"), member(total, "entries"));
	assert_true(json_number_value(json_object_get(total, "hit_rate")) +
			    json_number_value(json_object_get(total, "miss_rate")) >
		    0.999);
	json_decref(document);
	assert_int_equal(ctl("stats", "--all"), 0);
	assert_says(run.out, "shop");
	assert_says(run.out, "total");
}

static void what_a_closed_tenant_did_stays_in_the_total(void **state)
{
	json_t *document;

	(void)state;
	assert_int_equal(ctl("tenant", "create", "guest"), 0);
	let_work("guest", 1);
	/* tenancy.idle_seconds is 1. */
	await_metric("riptide_tenants", 2);
	assert_int_equal(ctl("stats", "--all", "--json"), 0);
	document = json_of(run.out);
	assert_int_equal(json_array_size(json_object_get(document, "tenants")), 2);
	assert_int_equal(member(json_object_get(document, "total"), "hits"), READS);
	assert_int_equal(member(json_object_get(document, "total"), "sets"), SETS);
	json_decref(document);
}

/* More than a ring of 1 MiB holds. */
static void fill_shop(void)
{
	static char value[20000];
	char key[16];
	riptide *handle;

	assert_int_equal(e2e_open(&the_agent, "shop", 5000, &handle), RIPTIDE_OK);
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "big-%d", i);
		assert_int_equal(riptide_set(handle, key, strlen(key), value, sizeof(value), NULL, NULL), RIPTIDE_OK);
	}
	riptide_close(&handle);
}

static void evictions_are_told_by_reason_and_survive_a_reset(void **state)
{
	const char *name = "riptide_cache_evictions_total{tenant=\"shop\",reason=\"capacity\"}";
	double before = 0;

	(void)state;
	fill_shop();
	for (int i = 0; i < 250 && before < 100; i++)
		before = metric(name);
	assert_true(before >= 100);
	pause_ms(400);
	before = metric(name);
	assert_true(metric("riptide_cache_evicted_bytes_total{tenant=\"shop\",reason=\"capacity\"}") >=
		    before * 20000);
	assert_int_equal(ctl("evictions", "reset"), 0);
	pause_ms(400);
	assert_true(metric(name) == before);
	assert_int_equal(ctl("evictions", "--json"), 0);
	assert_null(strstr(run.out, "\"total\":200"));
	assert_true(metric("riptide_cache_evictions_total{tenant=\"default\",reason=\"capacity\"}") == 0);
}

static void warming_is_counted_whoever_asks_for_it(void **state)
{
	(void)state;
	let_work("default", 1);
	assert_int_equal(ctl("warm", "none-1", "none-2"), 1);
	await_metric("riptide_warming_keys_total{tenant=\"default\",result=\"absent\"}", 2);
	assert_int_equal(ctl("warm", "--prefix", ""), 0);
	await_metric("riptide_warming_keys_total{tenant=\"default\",result=\"loaded\"}", SETS - DELETES);
	await_metric("riptide_warming_running{tenant=\"default\"}", 0);
}

/* ---- the text ------------------------------------------------------------------------------------------------------ */

static bool is_name(const char *text, size_t length)
{
	return length > 8 && strncmp(text, "riptide_", 8) == 0 &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") >= length;
}

/* Each line is a comment of a family, or a sample of the family before it with a number. */
static void the_text_is_what_prometheus_reads(void **state)
{
	char family[128] = "", *rest, *line;
	int families = 0, samples = 0;

	(void)state;
	let_work("shop", 1);
	assert_int_equal(ctl("metrics"), 0);
	for (line = strtok_r(run.out, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		size_t length = strcspn(line, "{ ");
		const char *value = strrchr(line, ' ');
		char *end;

		if (strncmp(line, "# HELP ", 7) == 0) {
			length = strcspn(line + 7, " ");
			snprintf(family, sizeof(family), "%.*s", (int)length, line + 7);
			assert_true(is_name(family, length));
			families++;
			continue;
		}
		if (strncmp(line, "# TYPE ", 7) == 0) {
			assert_int_equal(strncmp(line + 7, family, strlen(family)), 0);
			continue;
		}
		assert_true(is_name(line, length));
		assert_int_equal(strncmp(line, family, strlen(family)), 0);
		assert_non_null(value);
		(void)strtod(value + 1, &end);
		assert_true(end > value + 1 && *end == '\0');
		samples++;
	}
	assert_true(families > 40 && samples > 60);
}

/* ---- with a server ------------------------------------------------------------------------------------------------- */

static void coherence_is_told_of_each_worker(void **state)
{
	struct redis_server server = {0};
	char url[160];
	const char *const settings[] = {"agent.backend=redis", url, "agent.workers=2", NULL};

	(void)state;
	if (!redis_server_is_installed())
		skip();
	assert_int_equal(redis_server_start(&server, NULL), 0);
	snprintf(url, sizeof(url), "redis.url=unix://%s", server.unix_path);
	assert_int_equal(agent_process_start(&the_agent, settings), 0);
	strcpy(socket_path, the_agent.socket);
	assert_true(e2e_await_trust(&the_agent));
	await_metric("riptide_coherence_feed_armed{worker=\"0\"}", 1);
	await_metric("riptide_coherence_feed_armed{worker=\"1\"}", 1);
	assert_true(metric("riptide_coherence_mode{worker=\"0\",mode=\"tracking\"}") == 1);
	assert_true(metric("riptide_coherence_lease_seconds{worker=\"1\"}") > 0);
	assert_true(metric("riptide_coherence_canaries_total{worker=\"1\"}") > 0);
	assert_true(metric("riptide_backend_ready{worker=\"0\"}") == 1);
	redis_server_kill(&server);
	await_metric("riptide_coherence_feed_armed{worker=\"0\"}", 0);
	await_metric("riptide_backend_ready{worker=\"0\"}", 0);
	assert_int_equal(redis_server_restart(&server), 0);
	await_metric("riptide_coherence_feed_armed{worker=\"0\"}", 1);
	assert_true(metric("riptide_coherence_fences_total{worker=\"0\"}") >= 1);
	assert_int_equal(agent_process_stop_and_clean(&the_agent), 0);
	redis_server_stop(&server);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, start_two_tenants, stop_two_tenants)
	const struct CMUnitTest tests[] = {
		CASE(figures_are_exact_after_processes_have_ended),
		CASE(the_total_has_the_names_and_the_sum),
		CASE(what_a_closed_tenant_did_stays_in_the_total),
		CASE(evictions_are_told_by_reason_and_survive_a_reset),
		CASE(warming_is_counted_whoever_asks_for_it),
		CASE(the_text_is_what_prometheus_reads),
		cmocka_unit_test(coherence_is_told_of_each_worker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
