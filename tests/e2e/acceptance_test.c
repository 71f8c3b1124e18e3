/*
 * acceptance_test.c - what the tests of the original ask of a cache, with their numbers, on both stores: the contract of
 * its storage port, its tests of the cache over Redis, and the workloads of its performance tests (results, not times).
 *
 * Of the contract, life times asked for and counting (5, 8, -2, no number) are in entries_test.c. A server that is not there:
 * redis_test.c. URLs that are none: failures_test.c. Warming: acceptance_faults_test.c. Sessions and checkpoints are here
 * what the cache knows them as: entries of some size, in some number, with a life time.
 */
#include <pthread.h>

#include "agent/store/compress.h"
#include "tests/e2e/acceptance.h"

#define TASKS 10

/* ---- the contract of the storage port ----------------------------------------------------------------------- */

static void contract_basic_operations(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(has(f->handle, "key", "", 0), RIPTIDE_MISS);
	assert_int_equal(set(f->handle, "key", "value1", 6), RIPTIDE_OK);
	assert_int_equal(has(f->handle, "key", "value1", 6), RIPTIDE_OK);
	assert_int_equal(set(f->handle, "key", "second", 6), RIPTIDE_OK);
	assert_int_equal(has(f->handle, "key", "second", 6), RIPTIDE_OK);
	assert_int_equal(riptide_delete(f->handle, "key", 3), RIPTIDE_OK);
	assert_int_equal(has(f->handle, "key", "second", 6), RIPTIDE_MISS);
}

static void contract_exists(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(riptide_exists(f->handle, "key", 3, NULL), RIPTIDE_MISS);
	assert_int_equal(set(f->handle, "key", "v", 1), RIPTIDE_OK);
	assert_int_equal(riptide_exists(f->handle, "key", 3, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_delete(f->handle, "key", 3), RIPTIDE_OK);
	assert_int_equal(riptide_exists(f->handle, "key", 3, NULL), RIPTIDE_MISS);
}

static void contract_a_life_of_one_second_is_over_after_it(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t began_ms = e2e_now_ms();
	int status;

	assert_int_equal(set_for(f->handle, "brief", "v", 1000), RIPTIDE_OK);
	status = has(f->handle, "brief", "v", 1);
	assert_true(status == RIPTIDE_OK || e2e_now_ms() - began_ms > 900);
	e2e_pause_ms(1100);
	assert_int_equal(has(f->handle, "brief", "v", 1), RIPTIDE_MISS);
	assert_int_equal(riptide_exists(f->handle, "brief", 5, NULL), RIPTIDE_MISS);
}

static void contract_many_at_once_keep_their_order_and_tell_what_is_missing(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_item sets[] = {
		{.key = "k1", .key_length = 2, .value = "value1", .value_length = 6},
		{.key = "k2", .key_length = 2, .value = "value2", .value_length = 6},
		{.key = "k3", .key_length = 2, .value = "value3", .value_length = 6},
	};
	struct riptide_item gets[] = {
		{.key = "k1", .key_length = 2},
		{.key = "missing", .key_length = 7},
		{.key = "k3", .key_length = 2},
		{.key = "k2", .key_length = 2},
	};

	assert_int_equal(riptide_set_batch(f->handle, sets, 3), RIPTIDE_OK);
	assert_int_equal(riptide_get_batch(f->handle, gets, 4), RIPTIDE_OK);
	assert_int_equal(gets[1].status, RIPTIDE_MISS);
	for (int i = 0; i < 4; i++)
		assert_int_equal(gets[i].status, i == 1 ? RIPTIDE_MISS : RIPTIDE_OK);
	assert_memory_equal(gets[0].result.data, "value1", 6);
	assert_memory_equal(gets[2].result.data, "value3", 6);
	assert_memory_equal(gets[3].result.data, "value2", 6);
	riptide_batch_free(gets, 4);
}

static void contract_many_deleted_at_once(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_item items[] = {
		{.key = "d1", .key_length = 2}, {.key = "none", .key_length = 4}, {.key = "d2", .key_length = 2}};

	for (int i = 1; i <= 3; i++)
		assert_int_equal(set(f->handle, i == 1 ? "d1" : i == 2 ? "d2" : "d3", "v", 1), RIPTIDE_OK);
	assert_int_equal(riptide_delete_batch(f->handle, items, 3), RIPTIDE_OK);
	assert_int_equal(items[0].status, RIPTIDE_OK);
	assert_int_equal(items[1].status, RIPTIDE_MISS);
	assert_int_equal(items[2].status, RIPTIDE_OK);
	assert_int_equal(has(f->handle, "d1", "v", 1), RIPTIDE_MISS);
	assert_int_equal(has(f->handle, "d2", "v", 1), RIPTIDE_MISS);
	assert_int_equal(has(f->handle, "d3", "v", 1), RIPTIDE_OK);
}

static void contract_expire_tells_whether_there_is_an_entry(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(set_for(f->handle, "key", "v", RIPTIDE_NEVER), RIPTIDE_OK);
	assert_int_equal(riptide_touch(f->handle, "key", 3, 1000), RIPTIDE_OK);
	assert_int_equal(riptide_touch(f->handle, "none", 4, 1000), RIPTIDE_MISS);
	e2e_pause_ms(1100);
	assert_int_equal(has(f->handle, "key", "v", 1), RIPTIDE_MISS);
}

static void contract_health(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_OK);
	assert_int_equal(e2e_await(&f->agent, "backend.ready", 1, 5000), 1);
}

static void contract_a_value_of_one_mebibyte(void **state)
{
	struct fixture *f = both_fixture(state);
	unsigned char *bytes = malloc(MIB + 1);

	assert_non_null(bytes);
	fill_random(bytes, MIB + 1, 42);
	assert_int_equal(set(f->handle, "large", bytes, MIB), RIPTIDE_OK);
	assert_int_equal(has(f->handle, "large", bytes, MIB), RIPTIDE_OK);
	assert_int_equal(set(f->handle, "large", bytes, MIB + 1), RIPTIDE_ETOOBIG);
	forget_hot_copies(f);
	assert_int_equal(has(f->handle, "large", bytes, MIB), RIPTIDE_OK);
	free(bytes);
}

static void contract_bytes_that_are_no_text(void **state)
{
	static const unsigned char bytes[] = {0xff, 0xfe, 0x00, 0x01, 0x80, 0x7f};
	struct fixture *f = both_fixture(state);

	assert_int_equal(riptide_set(f->handle, bytes, sizeof(bytes), bytes, sizeof(bytes), NULL, NULL), RIPTIDE_OK);
	assert_int_equal(set(f->handle, "binary", bytes, sizeof(bytes)), RIPTIDE_OK);
	for (int i = 0; i < 2; i++) {
		struct riptide_value value;

		assert_int_equal(has(f->handle, "binary", bytes, sizeof(bytes)), RIPTIDE_OK);
		assert_int_equal(riptide_get(f->handle, bytes, sizeof(bytes), &value), RIPTIDE_OK);
		assert_int_equal(value.length, sizeof(bytes));
		assert_memory_equal(value.data, bytes, sizeof(bytes));
		riptide_value_free(&value);
		forget_hot_copies(f);
	}
}

static void contract_an_empty_value_is_not_an_absent_one(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(set(f->handle, "empty", "", 0), RIPTIDE_OK);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(has(f->handle, "empty", "", 0), RIPTIDE_OK);
		assert_int_equal(riptide_exists(f->handle, "empty", 5, NULL), RIPTIDE_OK);
		forget_hot_copies(f);
	}
}

/* ---- tasks at the same time --------------------------------------------------------------------------------- */

struct task {
	pthread_t thread;
	riptide *handle;
	int number, rounds;
	bool writes, reads;
	unsigned int failed;
};

static void *run_task(void *context)
{
	struct task *task = context;

	for (int i = 0; i < task->rounds; i++) {
		char key[32], value[32];

		snprintf(key, sizeof(key), "task-%d-%d", task->number, i);
		snprintf(value, sizeof(value), "value of %d, %d", task->number, i);
		if (task->writes)
			task->failed += e2e_put(task->handle, key, value) != RIPTIDE_OK;
		if (task->reads)
			task->failed += e2e_check(task->handle, key, value, NULL) != RIPTIDE_OK;
	}
	return NULL;
}

/* Calls that failed, of so many tasks at the same time. */
static unsigned int run_tasks(struct fixture *f, int count, int rounds, bool writes, bool reads)
{
	struct task tasks[50];
	unsigned int failed = 0;

	assert_in_range(count, 1, COUNT(tasks));
	for (int i = 0; i < count; i++) {
		tasks[i] = (struct task){
			.handle = f->handle, .number = i, .rounds = rounds, .writes = writes, .reads = reads};
		assert_int_equal(pthread_create(&tasks[i].thread, NULL, run_task, &tasks[i]), 0);
	}
	for (int i = 0; i < count; i++) {
		pthread_join(tasks[i].thread, NULL);
		failed += tasks[i].failed;
	}
	return failed;
}

static void contract_ten_at_the_same_time(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(run_tasks(f, TASKS, 10, true, true), 0);
}

static void ten_sets_then_ten_gets_at_the_same_time(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(run_tasks(f, TASKS, 1, true, false), 0);
	assert_int_equal(run_tasks(f, TASKS, 1, false, true), 0);
}

static void fifty_sets_at_the_same_time(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(run_tasks(f, 50, 1, true, false), 0);
	assert_int_equal(run_tasks(f, 50, 1, false, true), 0);
}

/* ---- the cache over Redis ----------------------------------------------------------------------------------- */

static void an_entry_of_one_second_is_gone_after_two(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t began_ms = e2e_now_ms();
	int status;

	assert_int_equal(set_for(f->handle, "brief", "v", 1000), RIPTIDE_OK);
	status = has(f->handle, "brief", "v", 1);
	assert_true(status == RIPTIDE_OK || e2e_now_ms() - began_ms > 900);
	e2e_pause_ms(2000);
	assert_int_equal(has(f->handle, "brief", "v", 1), RIPTIDE_MISS);
}

static void a_life_time_of_its_own_and_the_default(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t ttl_ms;

	assert_int_equal(set_for(f->handle, "custom", "v", 3600000), RIPTIDE_OK);
	assert_int_equal(riptide_ttl(f->handle, "custom", 6, &ttl_ms), RIPTIDE_OK);
	assert_in_range(ttl_ms, 3500000, 3600000);
	assert_int_equal(set(f->handle, "default", "v", 1), RIPTIDE_OK);
	assert_int_equal(riptide_ttl(f->handle, "default", 7, &ttl_ms), RIPTIDE_OK);
	assert_in_range(ttl_ms, 200000, 300000);
}

static void tenants_have_values_of_their_own_under_the_same_key(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *one, *two;

	assert_int_equal(e2e_open(&f->agent, "tenant1", 5000, &one), RIPTIDE_OK);
	assert_int_equal(e2e_open(&f->agent, "tenant2", 5000, &two), RIPTIDE_OK);
	assert_int_equal(set(one, "shared_key", "tenant1_value", 13), RIPTIDE_OK);
	assert_int_equal(has(two, "shared_key", "", 0), RIPTIDE_MISS);
	assert_int_equal(has(f->handle, "shared_key", "", 0), RIPTIDE_MISS);
	assert_int_equal(set(two, "shared_key", "tenant2_value", 13), RIPTIDE_OK);
	assert_int_equal(has(one, "shared_key", "tenant1_value", 13), RIPTIDE_OK);
	assert_int_equal(has(two, "shared_key", "tenant2_value", 13), RIPTIDE_OK);
	/* What one tenant clears is its own. */
	assert_int_equal(riptide_clear(one), RIPTIDE_OK);
	assert_int_equal(has(one, "shared_key", "", 0), RIPTIDE_MISS);
	assert_int_equal(has(two, "shared_key", "tenant2_value", 13), RIPTIDE_OK);
	riptide_close(&one);
	riptide_close(&two);
}

/* "item-N" with JSON of its own number. */
static size_t item_value(int number, char value[128])
{
	return (size_t)snprintf(value, 128, "{\"id\":%d,\"name\":\"Item %d\",\"tags\":[\"a\",\"b\"],\"price\":%d.5}",
				number, number, number * 3);
}

static void put_items(struct fixture *f, int count)
{
	char key[16], value[128];

	for (int i = 0; i < count; i++) {
		snprintf(key, sizeof(key), "item-%d", i);
		assert_int_equal(set(f->handle, key, value, item_value(i, value)), RIPTIDE_OK);
	}
}

static void a_batch_reads_what_a_batch_wrote(void **state)
{
	struct fixture *f = both_fixture(state);
	char keys[50][16], values[50][128];

	for (int count = 3; count <= 50; count = count == 3 ? 5 : count * 10) {
		struct riptide_item sets[50] = {{0}}, gets[50] = {{0}};

		for (int i = 0; i < count; i++) {
			sets[i].key = gets[i].key = keys[i];
			sets[i].key_length = gets[i].key_length =
				(size_t)snprintf(keys[i], sizeof(keys[i]), "item-%d", i);
			sets[i].value = values[i];
			sets[i].value_length = item_value(i + count, values[i]);
		}
		assert_int_equal(riptide_set_batch(f->handle, sets, (size_t)count), RIPTIDE_OK);
		assert_int_equal(riptide_get_batch(f->handle, gets, (size_t)count), RIPTIDE_OK);
		for (int i = 0; i < count; i++) {
			assert_int_equal(sets[i].status, RIPTIDE_OK);
			assert_int_equal(gets[i].status, RIPTIDE_OK);
			assert_int_equal(gets[i].result.length, strlen(values[i]));
			assert_string_equal(gets[i].result.data, values[i]);
		}
		riptide_batch_free(gets, (size_t)count);
	}
}

static void clear_removes_what_there_was_and_tells_zero_keys(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t removed = 0;
	char value[128];

	put_items(f, 5);
	assert_true(stats_of(f->handle).total_keys >= 5);
	assert_true(stats_of(f->handle).memory_usage_bytes > 0);
	assert_int_equal(riptide_invalidate_prefix(f->handle, "item-1", 6, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 1);
	assert_int_equal(riptide_clear(f->handle), RIPTIDE_OK);
	for (int i = 0; i < 5; i++) {
		char key[16];

		snprintf(key, sizeof(key), "item-%d", i);
		assert_int_equal(has(f->handle, key, value, item_value(i, value)), RIPTIDE_MISS);
	}
	assert_int_equal(stats_of(f->handle).total_keys, 0);
	forget_hot_copies(f);
	assert_int_equal(has(f->handle, "item-2", value, item_value(2, value)), RIPTIDE_MISS);
}

static void a_value_of_ten_thousand_characters(void **state)
{
	struct fixture *f = both_fixture(state);
	char text[10000];

	memset(text, 'x', sizeof(text));
	assert_int_equal(set(f->handle, "long", text, sizeof(text)), RIPTIDE_OK);
	assert_int_equal(has(f->handle, "long", text, sizeof(text)), RIPTIDE_OK);
	forget_hot_copies(f);
	assert_int_equal(has(f->handle, "long", text, sizeof(text)), RIPTIDE_OK);
}

static void a_number_of_64_bits_goes_there_and_back(void **state)
{
	static const int64_t numbers[] = {0, 1, -1, 42, INT64_MAX, INT64_MIN};
	struct fixture *f = both_fixture(state);

	for (size_t i = 0; i < COUNT(numbers); i++) {
		assert_int_equal(set(f->handle, "number", &numbers[i], sizeof(numbers[i])), RIPTIDE_OK);
		assert_int_equal(has(f->handle, "number", &numbers[i], sizeof(numbers[i])), RIPTIDE_OK);
	}
}

static void metadata_comes_back_from_the_store(void **state)
{
	static const char *const tags[] = {"test", "full"};
	static const struct riptide_pair attributes[] = {{"a", "1"}, {"b", ""}};
	const struct riptide_metadata metadata = {.version = "v1",
						  .content_type = "application/json",
						  .source = "test",
						  .tags = tags,
						  .tag_count = 2,
						  .attributes = attributes,
						  .attribute_count = 2};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};
	struct fixture *f = both_fixture(state);

	assert_int_equal(riptide_set(f->handle, "k", 1, "{}", 2, &options, NULL), RIPTIDE_OK);
	for (int i = 0; i < 2; i++) {
		struct riptide_value value;
		struct riptide_field field;
		size_t cursor = 0;
		int kinds[8] = {0};

		assert_int_equal(riptide_get(f->handle, "k", 1, &value), RIPTIDE_OK);
		while (riptide_metadata_next(value.metadata, value.metadata_length, &cursor, &field) == 1) {
			kinds[field.kind & 7]++;
			if (field.kind == RIPTIDE_METADATA_CONTENT_TYPE)
				assert_memory_equal(field.value, "application/json", field.value_length);
		}
		assert_int_equal(kinds[RIPTIDE_METADATA_VERSION], 1);
		assert_int_equal(kinds[RIPTIDE_METADATA_CONTENT_TYPE], 1);
		assert_int_equal(kinds[RIPTIDE_METADATA_SOURCE], 1);
		assert_int_equal(kinds[RIPTIDE_METADATA_TAG], 2);
		assert_int_equal(kinds[RIPTIDE_METADATA_ATTRIBUTE], 2);
		riptide_value_free(&value);
		forget_hot_copies(f);
	}
}

/* Written alike, so many bytes of it compress well. */
static void fill_text(char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		text[i] = "this text compresses. "[i % 22];
}

/* 612 B above the 512 B of these settings, and 2 KB. */
static void what_is_above_the_threshold_is_compressed_and_comes_back(void **state)
{
	static const size_t lengths[] = {612, 2048};
	struct fixture *f = both_fixture(state);
	char text[2048], key[16];

	fill_text(text, sizeof(text));
	assert_int_equal(set(f->handle, "below", text, 512), RIPTIDE_OK);
	assert_true(stats_of(f->handle).avg_compression_ratio == 1);
	for (size_t i = 0; i < COUNT(lengths); i++) {
		snprintf(key, sizeof(key), "above-%zu", lengths[i]);
		assert_int_equal(set(f->handle, key, text, lengths[i]), RIPTIDE_OK);
	}
	/* 512 B as they are, and less than a fifth of the rest. */
	if (RIPTIDE_COMPRESSION)
		assert_true(stats_of(f->handle).avg_compression_ratio < 0.35);
	forget_hot_copies(f);
	for (size_t i = 0; i < COUNT(lengths); i++) {
		snprintf(key, sizeof(key), "above-%zu", lengths[i]);
		assert_int_equal(has(f->handle, key, text, lengths[i]), RIPTIDE_OK);
	}
	assert_int_equal(has(f->handle, "below", text, 512), RIPTIDE_OK);
}

static int setup_low_threshold(void **state)
{
	acceptance_more[0] = "cache.compression_threshold_bytes=100";
	return both_setup_embedded(state);
}

static int setup_low_threshold_redis(void **state)
{
	acceptance_more[0] = "cache.compression_threshold_bytes=100";
	return both_setup_redis(state);
}

static void a_threshold_of_100_bytes_compresses_1000(void **state)
{
	struct riptide_set_options options = {.size = sizeof(options), .compression = RIPTIDE_COMPRESS_LZ4};
	struct fixture *f = both_fixture(state);
	char text[1000];

	fill_text(text, sizeof(text));
	assert_int_equal(riptide_set(f->handle, "lz4", 3, text, sizeof(text), &options, NULL), RIPTIDE_OK);
	assert_true(!RIPTIDE_COMPRESSION || stats_of(f->handle).avg_compression_ratio < 0.2);
	assert_int_equal(has(f->handle, "lz4", text, sizeof(text)), RIPTIDE_OK);
	forget_hot_copies(f);
	assert_int_equal(has(f->handle, "lz4", text, sizeof(text)), RIPTIDE_OK);
}

static void a_prefix_tells_how_many_it_removed(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t removed = 0;

	put_items(f, 3);
	assert_int_equal(set(f->handle, "other", "v", 1), RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_prefix(f->handle, "item-", 5, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 3);
	assert_int_equal(riptide_exists(f->handle, "item-0", 6, NULL), RIPTIDE_MISS);
	assert_int_equal(has(f->handle, "other", "v", 1), RIPTIDE_OK);
}

static int setup_small_entries(void **state)
{
	acceptance_more[0] = "cache.max_entry_size_bytes=1000";
	return both_setup_embedded(state);
}

static int setup_small_entries_redis(void **state)
{
	acceptance_more[0] = "cache.max_entry_size_bytes=1000";
	return both_setup_redis(state);
}

static int teardown_more(void **state)
{
	memset(acceptance_more, 0, sizeof(acceptance_more));
	return both_teardown(state);
}

/* In batches, too, which the original forgot. */
static void values_above_the_limit_are_refused_and_those_below_are_not(void **state)
{
	struct fixture *f = both_fixture(state);
	char bytes[10000];
	struct riptide_item items[] = {
		{.key = "b512", .key_length = 4, .value = bytes, .value_length = 512},
		{.key = "b2048", .key_length = 5, .value = bytes, .value_length = 2048},
		{.key = "b1000", .key_length = 5, .value = bytes, .value_length = 1000},
	};

	memset(bytes, 'x', sizeof(bytes)); /* compresses well: the limit is on the value */
	assert_int_equal(set(f->handle, "k", bytes, 10000), RIPTIDE_ETOOBIG);
	assert_int_equal(set(f->handle, "k", bytes, 2048), RIPTIDE_ETOOBIG);
	assert_int_equal(set(f->handle, "k", bytes, 1001), RIPTIDE_ETOOBIG);
	assert_int_equal(riptide_exists(f->handle, "k", 1, NULL), RIPTIDE_MISS);
	assert_int_equal(set(f->handle, "k", bytes, 1000), RIPTIDE_OK);
	assert_int_equal(set(f->handle, "k", bytes, 512), RIPTIDE_OK);
	assert_int_equal(has(f->handle, "k", bytes, 512), RIPTIDE_OK);
	assert_int_equal(riptide_set_batch(f->handle, items, 3), RIPTIDE_OK);
	assert_int_equal(items[0].status, RIPTIDE_OK);
	assert_int_equal(items[1].status, RIPTIDE_ETOOBIG);
	assert_int_equal(items[2].status, RIPTIDE_OK);
}

/* ---- the workloads of the performance tests ------------------------------------------------------------------ */

/* About 1 KB of JSON. */
static size_t document(int number, char text[1200])
{
	size_t length = (size_t)snprintf(text, 1200, "{\"id\":%d,\"body\":\"", number);

	while (length < 1000)
		length += (size_t)snprintf(text + length, 1200 - length, "paragraph %d of %d; ", (int)length, number);
	return length + (size_t)snprintf(text + length, 1200 - length, "\"}");
}

static void hundred_writes_and_reads_of_a_document(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_stats before = stats_of(f->handle), after;
	char key[16], text[1200];

	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "doc-%d", i);
		assert_int_equal(set(f->handle, key, text, document(i, text)), RIPTIDE_OK);
	}
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "doc-%d", i);
		assert_int_equal(has(f->handle, key, text, document(i, text)), RIPTIDE_OK);
		assert_int_equal(has(f->handle, "doc-7", text, document(7, text)), RIPTIDE_OK);
	}
	after = stats_of(f->handle);
	assert_int_equal(after.sets - before.sets, 100);
	assert_int_equal(after.hits - before.hits, 200);
	assert_int_equal(after.misses, before.misses);
}

static void ten_tasks_of_ten_reads(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(run_tasks(f, TASKS, 10, true, false), 0);
	assert_int_equal(run_tasks(f, TASKS, 10, false, true), 0);
}

static void five_kilobytes_that_compress(void **state)
{
	struct fixture *f = both_fixture(state);
	char text[5 * 1024 + 1200];
	size_t length = 0;

	while (length < (size_t)5 * 1024)
		length += document(1, text + length);
	assert_int_equal(set(f->handle, "page", text, length), RIPTIDE_OK);
	forget_hot_copies(f);
	assert_int_equal(has(f->handle, "page", text, length), RIPTIDE_OK);
}

static void memory_grows_with_entries_and_clear_gives_it_back(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t before = stats_of(f->handle).memory_usage_bytes;
	unsigned char bytes[1024];
	char key[16];

	fill_random(bytes, sizeof(bytes), 7);
	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "kb-%d", i);
		assert_int_equal(set(f->handle, key, bytes, sizeof(bytes)), RIPTIDE_OK);
	}
	assert_int_equal(stats_of(f->handle).total_keys, 20);
	assert_true(stats_of(f->handle).memory_usage_bytes >= before + 20 * sizeof(bytes));
	assert_int_equal(riptide_clear(f->handle), RIPTIDE_OK);
	assert_int_equal(stats_of(f->handle).total_keys, 0);
}

/* Of user `number`. */
static size_t session(int number, char text[1200])
{
	return (size_t)snprintf(
		text, 1200, "{\"user\":\"user-%d\",\"status\":\"active\",\"data\":{\"key1\":\"value1\",\"key2\":%d}}",
		number, 42 + number);
}

static void fifty_sessions_are_created_and_read(void **state)
{
	struct fixture *f = both_fixture(state);
	char key[24], text[1200];

	for (int i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "session-%d", i);
		text[session(i, text)] = '\0';
		assert_int_equal(set_for(f->handle, key, text, 3600000), RIPTIDE_OK);
	}
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 50; i++) {
			uint64_t ttl_ms = 0;

			snprintf(key, sizeof(key), "session-%d", i);
			assert_int_equal(has(f->handle, key, text, session(i, text)), RIPTIDE_OK);
			assert_int_equal(riptide_ttl(f->handle, key, strlen(key), &ttl_ms), RIPTIDE_OK);
			assert_in_range(ttl_ms, 3500000, 3600000);
		}
		forget_hot_copies(f);
	}
}

struct state_of_session {
	int64_t numbers[100];
	char text[512];
};

/* Twenty of 100 numbers and 512 B of text each, in one batch; all read back by another agent. */
static void twenty_states_of_sessions_survive_their_agent(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_item items[20] = {{0}};
	static struct state_of_session states[20];
	char keys[20][24];

	for (int i = 0; i < 20; i++) {
		for (int k = 0; k < 100; k++)
			states[i].numbers[k] = (int64_t)i * 1000 + k;
		memset(states[i].text, 'a' + i, sizeof(states[i].text));
		items[i].key = keys[i];
		items[i].key_length = (size_t)snprintf(keys[i], sizeof(keys[i]), "state-%d", i);
		items[i].value = &states[i];
		items[i].value_length = sizeof(states[i]);
	}
	assert_int_equal(riptide_set_batch(f->handle, items, 20), RIPTIDE_OK);
	for (int i = 0; i < 20; i++)
		assert_int_equal(items[i].status, RIPTIDE_OK);
	forget_hot_copies(f);
	assert_int_equal(riptide_get_batch(f->handle, items, 20), RIPTIDE_OK);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(items[i].status, RIPTIDE_OK);
		assert_int_equal(items[i].result.length, sizeof(states[i]));
		assert_memory_equal(items[i].result.data, &states[i], sizeof(states[i]));
	}
	riptide_batch_free(items, 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(contract_basic_operations),
		BOTH_STORES(contract_exists),
		BOTH_STORES(contract_a_life_of_one_second_is_over_after_it),
		BOTH_STORES(contract_many_at_once_keep_their_order_and_tell_what_is_missing),
		BOTH_STORES(contract_many_deleted_at_once),
		BOTH_STORES(contract_expire_tells_whether_there_is_an_entry),
		BOTH_STORES(contract_health),
		BOTH_STORES(contract_a_value_of_one_mebibyte),
		BOTH_STORES(contract_bytes_that_are_no_text),
		BOTH_STORES(contract_ten_at_the_same_time),
		BOTH_STORES(contract_an_empty_value_is_not_an_absent_one),
		BOTH_STORES(ten_sets_then_ten_gets_at_the_same_time),
		BOTH_STORES(fifty_sets_at_the_same_time),
		BOTH_STORES(an_entry_of_one_second_is_gone_after_two),
		BOTH_STORES(a_life_time_of_its_own_and_the_default),
		BOTH_STORES(tenants_have_values_of_their_own_under_the_same_key),
		BOTH_STORES(a_batch_reads_what_a_batch_wrote),
		BOTH_STORES(clear_removes_what_there_was_and_tells_zero_keys),
		BOTH_STORES(a_value_of_ten_thousand_characters),
		BOTH_STORES(a_number_of_64_bits_goes_there_and_back),
		BOTH_STORES(metadata_comes_back_from_the_store),
		{"values_above_the_limit_are_refused_and_those_below_are_not [embedded]",
		 values_above_the_limit_are_refused_and_those_below_are_not, setup_small_entries, teardown_more,
		 NULL},
		{"values_above_the_limit_are_refused_and_those_below_are_not [redis]",
		 values_above_the_limit_are_refused_and_those_below_are_not, setup_small_entries_redis, teardown_more,
		 NULL},
		BOTH_STORES(what_is_above_the_threshold_is_compressed_and_comes_back),
		{"a_threshold_of_100_bytes_compresses_1000 [embedded]", a_threshold_of_100_bytes_compresses_1000,
		 setup_low_threshold, teardown_more, NULL},
		{"a_threshold_of_100_bytes_compresses_1000 [redis]", a_threshold_of_100_bytes_compresses_1000,
		 setup_low_threshold_redis, teardown_more, NULL},
		BOTH_STORES(a_prefix_tells_how_many_it_removed),
		BOTH_STORES(hundred_writes_and_reads_of_a_document),
		BOTH_STORES(ten_tasks_of_ten_reads),
		BOTH_STORES(five_kilobytes_that_compress),
		BOTH_STORES(memory_grows_with_entries_and_clear_gives_it_back),
		BOTH_STORES(fifty_sessions_are_created_and_read),
		BOTH_STORES(twenty_states_of_sessions_survive_their_agent),
	};

	return cmocka_run_group_tests(tests, acceptance_begin, acceptance_end);
}
