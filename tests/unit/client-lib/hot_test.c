#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "shm/layout.h"
#include "shm/order.h"
#include "shm/source.h"
#include "tests/support/mini_agent.h"

/* Reading out of shared memory: what is served, what is not, and what the agent is asked for. */

struct fixture {
	struct mini_agent agent;
	riptide *handle;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct riptide_options options = {.size = sizeof(options), .timeout_ms = 2000};

	mini_agent_start(&f->agent);
	options.socket = f->agent.socket;
	if (riptide_open(&options, &f->handle) != RIPTIDE_OK)
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	riptide_close(&f->handle);
	mini_agent_stop(&f->agent);
	free(f);
	return 0;
}

static void put(struct fixture *f, const char *key, const char *value)
{
	assert_int_equal(riptide_set(f->handle, key, strlen(key), value, strlen(value), NULL, NULL), RIPTIDE_OK);
}

static uint32_t gets_taken(const struct fixture *f)
{
	return f->agent.knobs->taken[RSHM_OP_GET];
}

static void a_hot_entry_is_read_without_the_agent(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info;
	char buffer[64];
	size_t length;

	put(f, "user:1", "ada");
	assert_int_equal(riptide_get_into(f->handle, "user:1", 6, buffer, sizeof(buffer), &length, &info),
			 RIPTIDE_OK);
	assert_int_equal(length, 3);
	assert_memory_equal(buffer, "ada", 3);
	assert_int_equal(info.flags, RIPTIDE_HOT);
	assert_true(info.ttl_ms == RIPTIDE_NEVER);
	assert_true(info.age_ms < 10000);
	assert_int_equal(gets_taken(f), 0);
}

static void a_missing_key_is_a_miss_told_by_the_agent(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value = {.data = NULL};
	size_t length = 77;

	assert_int_equal(riptide_get_into(f->handle, "no", 2, NULL, 0, &length, NULL), RIPTIDE_MISS);
	assert_int_equal(length, 77);
	assert_int_equal(riptide_get(f->handle, "no", 2, &value), RIPTIDE_MISS);
	assert_null(value.data);
	assert_int_equal(gets_taken(f), 2);
}

static void a_small_buffer_tells_the_length_it_needs(void **state)
{
	struct fixture *f = *state;
	char buffer[4] = "abc";
	size_t length = 0;

	put(f, "k", "12345");
	assert_int_equal(riptide_get_into(f->handle, "k", 1, buffer, sizeof(buffer), &length, NULL),
			 RIPTIDE_ETOOSMALL);
	assert_int_equal(length, 5);
	assert_string_equal(buffer, "abc");
	assert_int_equal(riptide_get_into(f->handle, "k", 1, NULL, 0, &length, NULL), RIPTIDE_ETOOSMALL);
}

static void an_empty_value_is_a_value(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value;
	size_t length = 9;

	assert_int_equal(riptide_set(f->handle, "e", 1, NULL, 0, NULL, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_get_into(f->handle, "e", 1, NULL, 0, &length, NULL), RIPTIDE_OK);
	assert_int_equal(length, 0);
	assert_int_equal(riptide_get(f->handle, "e", 1, &value), RIPTIDE_OK);
	assert_non_null(value.data);
	assert_int_equal(((char *)value.data)[0], 0);
	riptide_value_free(&value);
}

static void metadata_comes_back_with_the_value(void **state)
{
	struct fixture *f = *state;
	struct riptide_metadata metadata = {.version = "1.0", .content_type = "text/plain"};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};
	struct riptide_value value;
	struct riptide_field field;
	size_t cursor = 0;

	assert_int_equal(riptide_set(f->handle, "m", 1, "v", 1, &options, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_get(f->handle, "m", 1, &value), RIPTIDE_OK);
	assert_int_equal(value.info.flags, RIPTIDE_HOT);
	assert_int_equal(value.info.metadata_length, value.metadata_length);
	assert_int_equal(riptide_metadata_next(value.metadata, value.metadata_length, &cursor, &field), 1);
	assert_int_equal(field.kind, RIPTIDE_METADATA_VERSION);
	assert_memory_equal(field.value, "1.0", 3);
	riptide_value_free(&value);
	assert_int_equal(gets_taken(f), 0);
}

static void exists_tells_of_hot_and_of_absent_keys(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info;

	put(f, "k", "v");
	assert_int_equal(riptide_exists(f->handle, "k", 1, &info), RIPTIDE_OK);
	assert_int_equal(info.flags, RIPTIDE_HOT);
	assert_int_equal(riptide_exists(f->handle, "x", 1, NULL), RIPTIDE_MISS);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_EXISTS], 1);
}

static void a_view_shows_the_bytes_and_ends_well(void **state)
{
	struct fixture *f = *state;
	struct riptide_view view, second;

	put(f, "k", "value");
	assert_int_equal(riptide_view(f->handle, "k", 1, &view), RIPTIDE_OK);
	assert_int_equal(view.length, 5);
	assert_memory_equal(view.data, "value", 5);
	assert_int_equal(riptide_view(f->handle, "k", 1, &second), RIPTIDE_EINVALID);
	assert_int_equal(riptide_view_end(f->handle, &view), RIPTIDE_OK);
	assert_int_equal(riptide_view_end(f->handle, &view), RIPTIDE_EINVALID);
}

static void a_view_whose_bytes_were_reclaimed_is_void(void **state)
{
	struct fixture *f = *state;
	struct riptide_view view;
	char *big = calloc(1, 100000), key[16];

	put(f, "k", "value");
	assert_int_equal(riptide_view(f->handle, "k", 1, &view), RIPTIDE_OK);
	for (int i = 0; i < 100; i++) {
		(void)snprintf(key, sizeof(key), "big%d", i);
		assert_int_equal(riptide_set(f->handle, key, strlen(key), big, 100000, NULL, NULL), RIPTIDE_OK);
	}
	free(big);
	assert_int_equal(riptide_view_end(f->handle, &view), RIPTIDE_EVOID);
}

static void a_view_outlives_its_segment(void **state)
{
	struct fixture *f = *state;
	struct riptide_view view;
	size_t length;

	put(f, "k", "value");
	assert_int_equal(riptide_view(f->handle, "k", 1, &view), RIPTIDE_OK);
	rshm_store_release32(&f->agent.knobs->grow, 1);
	while (rshm_load_acquire32(&f->agent.knobs->grow))
		rshm_pause();
	put(f, "k2", "v");
	/* This read lets the retired segment go, but for the view. */
	assert_int_equal(riptide_get_into(f->handle, "k2", 2, NULL, 0, &length, NULL), RIPTIDE_ETOOSMALL);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_LOCATE], 1);
	assert_int_equal(gets_taken(f), 0);
	assert_int_equal(((const char *)view.data)[0], 'v');
	assert_int_equal(riptide_view_end(f->handle, &view), RIPTIDE_EVOID);
}

static void a_value_too_big_to_be_hot_is_viewed_in_a_copy(void **state)
{
	struct fixture *f = *state;
	struct riptide_view view;
	char *big = malloc(500000);

	memset(big, 'x', 500000);
	assert_int_equal(riptide_set(f->handle, "big", 3, big, 500000, NULL, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_view(f->handle, "big", 3, &view), RIPTIDE_OK);
	assert_int_equal(view.length, 500000);
	assert_memory_equal(view.data, big, 500000);
	assert_int_equal(view.info.flags & RIPTIDE_HOT, 0);
	assert_int_equal(riptide_view_end(f->handle, &view), RIPTIDE_OK);
	free(big);
}

static void a_lease_that_ran_out_is_served_stale_and_marked(void **state)
{
	struct fixture *f = *state;
	struct rshm_map map;
	struct rshm_agent *object = mini_agent_object(&f->agent, &map);
	struct riptide_info info;
	struct riptide_value value;

	put(f, "k", "v");
	rshm_source_extend(&object->sources[0], rshm_now_ms() - 1);
	assert_int_equal(riptide_get(f->handle, "k", 1, &value), RIPTIDE_OK);
	assert_int_equal(value.info.flags, RIPTIDE_HOT | RIPTIDE_STALE);
	riptide_value_free(&value);
	rshm_source_extend(&object->sources[0], rshm_now_ms() + 60000);
	assert_int_equal(riptide_exists(f->handle, "k", 1, &info), RIPTIDE_OK);
	assert_int_equal(info.flags, RIPTIDE_HOT);
	rshm_unmap(&map);
}

static void set_policy(const struct fixture *f, enum rshm_policy policy)
{
	struct rshm_map map;
	struct rshm_segment *segment;

	assert_int_equal(rshm_map_adopt(f->agent.knobs->segment_name, &map), 0);
	segment = map.base;
	rshm_store_relaxed32(&segment->policy, policy);
	rshm_unmap(&map);
}

static void the_policy_decides_about_a_fenced_source(void **state)
{
	struct fixture *f = *state;
	struct rshm_map map;
	struct rshm_agent *object = mini_agent_object(&f->agent, &map);
	char buffer[8], text[200];
	size_t length;

	put(f, "k", "v");
	(void)rshm_source_fence(&object->sources[0], rshm_now_ms());
	set_policy(f, RSHM_POLICY_ERROR);
	assert_int_equal(riptide_get_into(f->handle, "k", 1, buffer, 8, &length, NULL), RIPTIDE_ESTALE);
	assert_int_equal(riptide_last_error(f->handle, text, sizeof(text)), RIPTIDE_ESTALE);
	set_policy(f, RSHM_POLICY_MISS);
	assert_int_equal(gets_taken(f), 0);
	assert_int_equal(riptide_get_into(f->handle, "k", 1, buffer, 8, &length, NULL), RIPTIDE_OK);
	assert_int_equal(gets_taken(f), 1);
	rshm_unmap(&map);
}

static void hits_misses_and_retries_are_counted(void **state)
{
	struct fixture *f = *state;
	struct riptide_stats stats = {.size = sizeof(stats)};
	char buffer[8];
	size_t length;

	put(f, "k", "v");
	for (int i = 0; i < 500; i++)
		assert_int_equal(riptide_get_into(f->handle, "k", 1, buffer, 8, &length, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_get_into(f->handle, "x", 1, buffer, 8, &length, NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_OK);
	assert_int_equal(stats.own_hits, 500);
	assert_int_equal(stats.own_misses, 1);
	assert_int_equal(stats.attaches, 1);
	assert_int_equal(stats.total_keys, 1);
	assert_true(stats.hit_rate > 0.74 && stats.hit_rate < 0.76);
	assert_true(stats.ops_per_second > 1.4 && stats.ops_per_second < 1.6);
	assert_true(stats.avg_compression_ratio > 0.24 && stats.avg_compression_ratio < 0.26);
	/* This agent is one that does not know the later figures. */
	assert_int_equal(stats.hit_ns_p95, 0);
	assert_int_equal(stats.evicted_bytes, 0);
	assert_int_equal(stats.journal_records, 0);
	stats.size = 8;
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_EINVALID);
}

/* The struct ended there in the first version. */
#define FIRST_STATS_SIZE offsetof(struct riptide_stats, hit_ns_p95)

static void stats_fill_what_an_older_caller_has_room_for(void **state)
{
	struct fixture *f = *state;
	struct riptide_stats stats;

	put(f, "k", "v");
	memset(&stats, 0x5a, sizeof(stats));
	stats.size = FIRST_STATS_SIZE;
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_OK);
	assert_int_equal(stats.size, FIRST_STATS_SIZE);
	assert_int_equal(stats.total_keys, 1);
	assert_int_equal(stats.attaches, 1);
	for (const char *p = (const char *)&stats.hit_ns_p95; p < (const char *)(&stats + 1); p++)
		assert_int_equal(*p, 0x5a);
	stats.size = FIRST_STATS_SIZE - 1;
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_EINVALID);
	stats.size = FIRST_STATS_SIZE + 8;
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_OK);
	assert_int_equal(stats.hit_ns_p95, 0);
	assert_int_not_equal(stats.evictions_capacity, 0);
}

static void describe_asks_the_agent_and_checks_its_arguments(void **state)
{
	struct fixture *f = *state;
	struct riptide_description about = {.size = sizeof(about)};
	struct riptide_info info;

	put(f, "k", "v");
	assert_int_equal(riptide_exists(f->handle, "k", 1, &info), RIPTIDE_OK);
	assert_int_equal(riptide_describe(f->handle, "k", 1, &about), RIPTIDE_OK);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_EXISTS], 1);
	assert_int_equal(about.size, sizeof(about));
	assert_int_equal(about.version, info.version);
	assert_int_equal(about.created_ms, info.version >> 16);
	about.version = 17;
	assert_int_equal(riptide_describe(f->handle, "x", 1, &about), RIPTIDE_MISS);
	assert_int_equal(about.version, 17);
	assert_int_equal(riptide_describe(f->handle, "", 0, &about), RIPTIDE_EINVALID);
	assert_int_equal(riptide_describe(f->handle, "k", 1, NULL), RIPTIDE_EINVALID);
	about.size--;
	assert_int_equal(riptide_describe(f->handle, "k", 1, &about), RIPTIDE_EINVALID);
}

static void a_batch_reads_from_the_segment_that_replaced_the_old(void **state)
{
	struct fixture *f = *state;
	struct riptide_item items[2] = {{.key = "a", .key_length = 1}, {.key = "b", .key_length = 1}};

	rshm_store_release32(&f->agent.knobs->grow, 1);
	while (rshm_load_acquire32(&f->agent.knobs->grow))
		rshm_pause();
	put(f, "a", "1");
	put(f, "b", "2");
	assert_int_equal(riptide_get_batch(f->handle, items, 2), RIPTIDE_OK);
	assert_int_equal(items[0].result.info.flags, RIPTIDE_HOT);
	assert_memory_equal(items[1].result.data, "2", 2);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_LOCATE], 1);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_GET_BATCH], 0);
	riptide_batch_free(items, 2);
}

#define READERS 40 /* more than shards */
#define READS 2000

static void *read_often(void *handle)
{
	char buffer[8];
	size_t length;

	for (int i = 0; i < READS; i++)
		if (riptide_get_into(handle, "k", 1, buffer, sizeof(buffer), &length, NULL) != RIPTIDE_OK)
			return NULL;
	return handle;
}

static void hits_of_more_threads_than_shards_are_counted_exactly(void **state)
{
	struct fixture *f = *state;
	struct riptide_stats stats = {.size = sizeof(stats)};
	pthread_t threads[READERS];

	put(f, "k", "v");
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_often, f->handle), 0);
	for (int i = 0; i < READERS; i++) {
		void *result;

		pthread_join(threads[i], &result);
		assert_non_null(result);
	}
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_OK);
	assert_int_equal(stats.own_hits, READERS * READS);
}

static void arguments_are_checked(void **state)
{
	struct fixture *f = *state;
	static const char long_key[65536];
	struct riptide_set_options options = {.size = 3};
	size_t length;
	char text[200];

	assert_int_equal(riptide_get_into(NULL, "k", 1, NULL, 0, &length, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_get_into(f->handle, "k", 0, NULL, 0, &length, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_get_into(f->handle, NULL, 1, NULL, 0, &length, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_get_into(f->handle, long_key, sizeof(long_key), NULL, 0, &length, NULL),
			 RIPTIDE_ETOOBIG);
	assert_int_equal(riptide_get_into(f->handle, "k", 1, NULL, 5, &length, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_set(f->handle, "k\n\"", 3, NULL, 1, NULL, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_last_error(f->handle, text, sizeof(text)), RIPTIDE_EINVALID);
	assert_string_equal(text, "set \"k\\x0a\\x22\": the value is missing");
	assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, &options, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_last_error(f->handle, NULL, 0), RIPTIDE_EINVALID);
	assert_int_equal(f->agent.knobs->requests, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_hot_entry_is_read_without_the_agent),
		CASE(a_missing_key_is_a_miss_told_by_the_agent),
		CASE(a_small_buffer_tells_the_length_it_needs),
		CASE(an_empty_value_is_a_value),
		CASE(metadata_comes_back_with_the_value),
		CASE(exists_tells_of_hot_and_of_absent_keys),
		CASE(a_view_shows_the_bytes_and_ends_well),
		CASE(a_view_whose_bytes_were_reclaimed_is_void),
		CASE(a_view_outlives_its_segment),
		CASE(a_value_too_big_to_be_hot_is_viewed_in_a_copy),
		CASE(a_lease_that_ran_out_is_served_stale_and_marked),
		CASE(the_policy_decides_about_a_fenced_source),
		CASE(hits_misses_and_retries_are_counted),
		CASE(stats_fill_what_an_older_caller_has_room_for),
		CASE(describe_asks_the_agent_and_checks_its_arguments),
		CASE(a_batch_reads_from_the_segment_that_replaced_the_old),
		CASE(hits_of_more_threads_than_shards_are_counted_exactly),
		CASE(arguments_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
