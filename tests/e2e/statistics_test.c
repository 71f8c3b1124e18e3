/* statistics_test.c - after a known workload every figure is what it must be; what is known of an entry and its reads. */
#include <fcntl.h>
#include <unistd.h>

#include "tests/e2e/both_stores.h"

#define VALUE_BYTES 1000u
#define HOT_LIMIT_BYTES (32u << 10) /* of a ring of 1 MiB */
#define PATIENCE_MS 5000

static char config_path[64];
static char config_setting[96];

static const char *const *both_settings(void)
{
	static const char *settings[] = {config_setting, NULL};

	return settings;
}

/*
 * Tenant "small" may not grow: what it loses, it loses for lack of room. "default" may, but there is no memory for it:
 * what it loses goes under pressure.
 */
static int write_config(void)
{
	char text[400];
	int n, fd;

	e2e_make_file(config_path, sizeof(config_path), "statistics");
	snprintf(config_setting, sizeof(config_setting), "config-file=%s", config_path);
	n = snprintf(text, sizeof(text),
		     "cache { max_memory_bytes = 4M segment_initial_bytes = 1M }\n"
		     "coherence { max_age_ms = 60000 }\n"
		     "tenant \"small\" { users = {\"%u\"} memory_bytes = 1M }\n",
		     (unsigned int)geteuid());
	fd = open(config_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		return -1;
	return close(fd);
}

static struct riptide_stats stats_of(riptide *handle)
{
	struct riptide_stats stats = {.size = sizeof(stats)};

	assert_int_equal(riptide_stats(handle, &stats), RIPTIDE_OK);
	return stats;
}

static struct riptide_description description_of(riptide *handle, const char *key)
{
	struct riptide_description about = {.size = sizeof(about)};

	assert_int_equal(riptide_describe(handle, key, strlen(key), &about), RIPTIDE_OK);
	return about;
}

/* What readers note arrives within a quarter of a second. */
static struct riptide_description description_with(riptide *handle, const char *key, uint64_t least)
{
	uint64_t until_ms = e2e_now_ms() + PATIENCE_MS;
	struct riptide_description about = description_of(handle, key);

	while (about.access_count < least && e2e_now_ms() < until_ms) {
		e2e_pause_ms(20);
		about = description_of(handle, key);
	}
	return about;
}

static void put_numbered(riptide *handle, const char *prefix, int number, uint64_t ttl_ms)
{
	struct riptide_set_options options = {.size = sizeof(options), .ttl_ms = ttl_ms};
	char key[24], value[VALUE_BYTES];

	snprintf(key, sizeof(key), "%s-%d", prefix, number);
	memset(value, 'v', sizeof(value));
	assert_int_equal(riptide_set(handle, key, strlen(key), value, sizeof(value), &options, NULL), RIPTIDE_OK);
}

static int get_numbered(riptide *handle, const char *prefix, int number)
{
	char key[24], value[VALUE_BYTES];
	size_t length;

	snprintf(key, sizeof(key), "%s-%d", prefix, number);
	return riptide_get_into(handle, key, strlen(key), value, sizeof(value), &length, NULL);
}

static void delete_numbered(riptide *handle, const char *prefix, int number)
{
	char key[24];

	snprintf(key, sizeof(key), "%s-%d", prefix, number);
	assert_int_equal(riptide_delete(handle, key, strlen(key)), RIPTIDE_OK);
}

static bool is_near(double value, double expected)
{
	return value > expected - 1e-9 && value < expected + 1e-9;
}

/* ---- figures ------------------------------------------------------------------------------------------------ */

#define SETS 100
#define READS 30 /* of each of them */
#define ABSENT 50
#define DELETES 20

static void run_workload(riptide *handle)
{
	for (int i = 0; i < SETS; i++)
		put_numbered(handle, "key", i, 0);
	for (int round = 0; round < READS; round++)
		for (int i = 0; i < SETS; i++)
			assert_int_equal(get_numbered(handle, "key", i), RIPTIDE_OK);
	for (int i = 0; i < ABSENT; i++)
		assert_int_equal(get_numbered(handle, "absent", i), RIPTIDE_MISS);
	for (int i = 0; i < DELETES; i++)
		delete_numbered(handle, "key", i);
}

static void figures_are_exact_after_a_known_workload(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_stats s = stats_of(f->handle);

	assert_int_equal(s.total_keys + s.hits + s.misses + s.sets + s.deletes + s.evictions, 0);
	assert_true(is_near(s.hit_rate, 0) && is_near(s.miss_rate, 0) && is_near(s.avg_compression_ratio, 1));
	run_workload(f->handle);
	s = stats_of(f->handle);
	assert_int_equal(s.total_keys, SETS - DELETES);
	assert_int_equal(s.sets, SETS);
	assert_int_equal(s.deletes, DELETES);
	assert_int_equal(s.hits, SETS * READS);
	assert_int_equal(s.misses, ABSENT);
	assert_int_equal(s.hit_bytes, SETS * READS * VALUE_BYTES);
	assert_int_equal(s.stale, 0);
	assert_true(is_near(s.hit_rate, (double)(SETS * READS) / (SETS * READS + ABSENT)));
	assert_true(is_near(s.hit_rate + s.miss_rate, 1));
	assert_in_range(s.memory_usage_bytes, (SETS - DELETES) * VALUE_BYTES, s.memory_limit_bytes);
	assert_int_equal(s.evictions, 0);
	assert_int_equal(s.evictions_manual, DELETES);
	assert_int_equal(s.evictions_capacity + s.evictions_expired + s.evictions_memory_pressure, 0);
	assert_in_range(s.evicted_bytes, DELETES * VALUE_BYTES, DELETES * (VALUE_BYTES + 100));
	assert_true(s.eviction_rate > 0);
	assert_int_equal(s.spilled + s.restored + s.journal_records, 0);
}

static void times_of_hits_are_in_order(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_stats s;

	run_workload(f->handle);
	s = stats_of(f->handle);
	assert_true(s.hit_ns_p50 > 0);
	assert_true(s.hit_ns_p50 <= s.hit_ns_p95);
	assert_true(s.hit_ns_p95 <= s.hit_ns_p99);
	assert_true(s.avg_access_time_us > 0 && s.avg_access_time_us < 1e6);
}

static void operations_are_told_per_second_of_the_last_ten(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t until_ms = e2e_now_ms() + PATIENCE_MS;
	double expected = (SETS + SETS * READS + ABSENT + DELETES) / 10.0;
	struct riptide_stats s;

	run_workload(f->handle);
	do {
		e2e_pause_ms(50);
		s = stats_of(f->handle);
	} while (!is_near(s.ops_per_second, expected) && e2e_now_ms() < until_ms);
	assert_true(is_near(s.ops_per_second, expected));
}

static void compression_shows_in_the_ratio(void **state)
{
	struct fixture *f = both_fixture(state);
	char value[8192];

#if defined(RIPTIDE_COMPRESSION) && !RIPTIDE_COMPRESSION
	skip();
#endif
	memset(value, 'c', sizeof(value));
	assert_int_equal(riptide_set(f->handle, "pressed", 7, value, sizeof(value), NULL, NULL), RIPTIDE_OK);
	assert_true(stats_of(f->handle).avg_compression_ratio < 0.1);
	assert_true(stats_of(f->handle).avg_compression_ratio > 0);
}

static void a_journal_that_waits_is_told(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_set_options options = {.size = sizeof(options), .write_mode = RIPTIDE_WRITE_BEHIND};
	uint64_t most = 0;

	for (int i = 0; i < 50 && most == 0; i++) {
		struct riptide_stats s;

		assert_int_equal(riptide_set(f->handle, "behind", 6, "v", 1, &options, NULL), RIPTIDE_OK);
		s = stats_of(f->handle);
		most = s.journal_records > most ? s.journal_records : most;
	}
	assert_true(most > 0);
	assert_int_equal(riptide_flush(f->handle), RIPTIDE_OK);
	assert_int_equal(stats_of(f->handle).journal_records, 0);
}

/* ---- evictions ---------------------------------------------------------------------------------------------- */

#define OVERFILL 3000 /* entries, in a ring with room for a thousand */

static void what_finds_no_room_goes_for_capacity(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_stats s;
	riptide *small;

	assert_int_equal(e2e_open(&f->agent, "small", 5000, &small), RIPTIDE_OK);
	for (int i = 0; i < OVERFILL; i++)
		put_numbered(small, "key", i, 0);
	s = stats_of(small);
	assert_true(s.evictions_capacity >= OVERFILL / 2);
	assert_int_equal(s.evictions_capacity, s.evictions);
	assert_int_equal(s.total_keys + s.evictions, OVERFILL);
	assert_int_equal(s.evictions_expired + s.evictions_manual + s.evictions_memory_pressure, 0);
	assert_true(s.evicted_bytes >= s.evictions * VALUE_BYTES);
	assert_true(s.eviction_rate > OVERFILL / 2 / 60.0);
	/* Each tenant has a book of its own. */
	assert_int_equal(stats_of(f->handle).evictions, 0);
	riptide_close(&small);
}

static void what_may_grow_and_finds_no_memory_goes_under_pressure(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_stats s;

	for (int i = 0; i < OVERFILL; i++)
		put_numbered(f->handle, "key", i, 0);
	s = stats_of(f->handle);
	assert_true(s.evictions_memory_pressure >= OVERFILL / 2);
	assert_int_equal(s.evictions_memory_pressure, s.evictions);
	assert_int_equal(s.evictions_expired + s.evictions_manual + s.evictions_capacity, 0);
}

static void what_is_past_its_time_goes_as_expired(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_stats s;
	riptide *small;

	assert_int_equal(e2e_open(&f->agent, "small", 5000, &small), RIPTIDE_OK);
	for (int i = 0; i < 200; i++)
		put_numbered(small, "short", i, 200);
	e2e_pause_ms(250);
	for (int i = 0; i < OVERFILL; i++)
		put_numbered(small, "key", i, 0);
	s = stats_of(small);
	/* A hot copy may also live shorter than its entry where others share the backend: there one cannot tell. */
	if (!f->redis)
		assert_int_equal(s.evictions_expired, 200);
	assert_true(s.evictions_capacity > 0);
	assert_int_equal(s.evictions_expired + s.evictions_capacity, s.evictions);
	riptide_close(&small);
}

#define LARGE_BYTES 20000u
#define LARGE 100 /* entries, in a ring with room for fifty */

/* The disk tier stands between shared memory and a server. */
static void what_goes_to_disk_and_comes_back_is_counted(void **state)
{
	struct fixture *f = both_fixture(state);
	static unsigned char value[LARGE_BYTES];
	struct riptide_stats s;
	riptide *small;
	size_t length;
	char key[16];

	assert_int_equal(e2e_open(&f->agent, "small", 5000, &small), RIPTIDE_OK);
	for (int i = 0; i < LARGE; i++) {
		snprintf(key, sizeof(key), "large-%d", i);
		assert_int_equal(riptide_set(small, key, strlen(key), value, sizeof(value), NULL, NULL), RIPTIDE_OK);
	}
	s = stats_of(small);
	assert_true(s.evictions > LARGE / 4);
	assert_int_equal(s.spilled, f->redis ? s.evictions : 0);
	assert_int_equal(s.restored, 0);
	for (int i = 0; i < 5; i++) {
		snprintf(key, sizeof(key), "large-%d", i);
		assert_int_equal(riptide_get_into(small, key, strlen(key), value, sizeof(value), &length, NULL),
				 RIPTIDE_OK);
	}
	assert_int_equal(stats_of(small).restored, f->redis ? 5 : 0);
	assert_int_equal(stats_of(f->handle).spilled, 0);
	riptide_close(&small);
}

static void an_eviction_knows_how_long_its_entry_was_idle(void **state)
{
	struct fixture *f = both_fixture(state);

	put_numbered(f->handle, "read", 0, 0);
	put_numbered(f->handle, "unread", 0, 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(get_numbered(f->handle, "read", 0), RIPTIDE_OK);
	assert_true(description_with(f->handle, "read-0", 1).access_count >= 1);
	e2e_pause_ms(100);
	delete_numbered(f->handle, "read", 0);
	delete_numbered(f->handle, "unread", 0);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.eviction_figures.total", 2, PATIENCE_MS));
	assert_in_range(e2e_number(&f->agent, "tenants.0.eviction_figures.recent.1.idle_ms"), 100, PATIENCE_MS);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.eviction_figures.recent.0.idle_ms"), -1);
	assert_in_range(e2e_number(&f->agent, "tenants.0.eviction_figures.recent.0.ago_ms"), 0, PATIENCE_MS);
}

/* ---- one entry ---------------------------------------------------------------------------------------------- */

static void describe_tells_what_was_written(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_set_options options = {.size = sizeof(options), .ttl_ms = 60000};
	struct riptide_description about;
	uint64_t version;

	assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, &options, &version), RIPTIDE_OK);
	about = description_of(f->handle, "k");
	assert_int_equal(about.version, version);
	assert_int_equal(about.created_ms, version >> 16);
	assert_in_range(about.ttl_ms, 30000, 60000);
	assert_in_range(about.age_ms, 0, PATIENCE_MS);
	/* Nobody has read it, and asking is not reading. */
	about = description_of(f->handle, "k");
	assert_int_equal(about.access_count, 0);
	assert_int_equal(about.accessed_ms_ago, RIPTIDE_NEVER);
	assert_int_equal(riptide_describe(f->handle, "absent", 6, &about), RIPTIDE_MISS);
}

static void hot_reads_are_sampled(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_description about;

	put_numbered(f->handle, "key", 1, 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(get_numbered(f->handle, "key", 1), RIPTIDE_OK);
	assert_int_equal(stats_of(f->handle).own_hits, 1000);
	about = description_with(f->handle, "key-1", 2);
	assert_in_range(about.access_count, 2, 1000);
	assert_in_range(about.accessed_ms_ago, 0, PATIENCE_MS);
	e2e_pause_ms(300);
	assert_in_range(description_of(f->handle, "key-1").accessed_ms_ago, 300, PATIENCE_MS);
}

static void what_the_agent_answers_itself_is_counted_one_by_one(void **state)
{
	struct fixture *f = both_fixture(state);
	unsigned char *value = calloc(2, HOT_LIMIT_BYTES);
	struct riptide_description about;
	struct riptide_value got;

	assert_non_null(value);
	assert_int_equal(riptide_set(f->handle, "large", 5, value, 2 * HOT_LIMIT_BYTES, NULL, NULL), RIPTIDE_OK);
	for (int i = 0; i < 7; i++) {
		assert_int_equal(riptide_get(f->handle, "large", 5, &got), RIPTIDE_OK);
		assert_false(got.info.flags & RIPTIDE_HOT);
		riptide_value_free(&got);
	}
	about = description_of(f->handle, "large");
	assert_int_equal(about.access_count, 7);
	assert_in_range(about.accessed_ms_ago, 0, PATIENCE_MS);
	free(value);
}

static void a_deleted_key_begins_anew(void **state)
{
	struct fixture *f = both_fixture(state);

	for (int clear = 0; clear < 2; clear++) {
		put_numbered(f->handle, "key", 1, 0);
		for (int i = 0; i < 1000; i++)
			assert_int_equal(get_numbered(f->handle, "key", 1), RIPTIDE_OK);
		assert_true(description_with(f->handle, "key-1", 1).access_count >= 1);
		/* Nothing is on its way any more. */
		e2e_pause_ms(600);
		if (clear)
			assert_int_equal(riptide_clear(f->handle), RIPTIDE_OK);
		else
			delete_numbered(f->handle, "key", 1);
		put_numbered(f->handle, "key", 1, 0);
		assert_int_equal(description_of(f->handle, "key-1").access_count, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(figures_are_exact_after_a_known_workload),
		BOTH_STORES(times_of_hits_are_in_order),
		BOTH_STORES(operations_are_told_per_second_of_the_last_ten),
		BOTH_STORES(compression_shows_in_the_ratio),
		BOTH_STORES(a_journal_that_waits_is_told),
		BOTH_STORES(what_finds_no_room_goes_for_capacity),
		BOTH_STORES(what_may_grow_and_finds_no_memory_goes_under_pressure),
		BOTH_STORES(what_is_past_its_time_goes_as_expired),
		BOTH_STORES(what_goes_to_disk_and_comes_back_is_counted),
		BOTH_STORES(an_eviction_knows_how_long_its_entry_was_idle),
		BOTH_STORES(describe_tells_what_was_written),
		BOTH_STORES(hot_reads_are_sampled),
		BOTH_STORES(what_the_agent_answers_itself_is_counted_one_by_one),
		BOTH_STORES(a_deleted_key_begins_anew),
	};
	int failed;

	if (write_config() < 0)
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(config_path);
	return failed;
}
