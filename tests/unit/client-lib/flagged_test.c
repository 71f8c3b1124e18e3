#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "shm/index.h"
#include "shm/order.h"
#include "shm/ring.h"
#include "shm/source.h"
#include "tests/support/mini_agent.h"

/* Hot entries that take more than a look at the clock: with tags, remembered absences, past a soft deadline. */

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

static void put_tagged(struct fixture *f, const char *key, const char *value, const char *tag)
{
	const char *const tags[] = {tag, "every"};
	struct riptide_metadata metadata = {.content_type = "text/plain", .tags = tags, .tag_count = 2};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};

	assert_int_equal(riptide_set(f->handle, key, strlen(key), value, strlen(value), &options, NULL), RIPTIDE_OK);
}

static int get(struct fixture *f, const char *key, struct riptide_info *info)
{
	char buffer[64];
	size_t length;

	return riptide_get_into(f->handle, key, strlen(key), buffer, sizeof(buffer), &length, info);
}

static uint32_t gets_taken(const struct fixture *f)
{
	return f->agent.knobs->taken[RSHM_OP_GET];
}

/* ---- tags --------------------------------------------------------------------------------------------------- */

static void a_tagged_entry_is_hot_and_its_pairs_are_hidden(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value;
	struct riptide_view view;
	struct riptide_field field;
	struct riptide_info info;
	size_t cursor = 0, length;
	char buffer[16];

	put_tagged(f, "k", "value", "red");
	assert_int_equal(riptide_get(f->handle, "k", 1, &value), RIPTIDE_OK);
	assert_int_equal(value.info.flags, RIPTIDE_HOT);
	assert_string_equal(value.data, "value");
	assert_int_equal(value.info.metadata_length, value.metadata_length);
	assert_int_equal(riptide_metadata_next(value.metadata, value.metadata_length, &cursor, &field), 1);
	assert_int_equal(field.kind, RIPTIDE_METADATA_CONTENT_TYPE);
	while (riptide_metadata_next(value.metadata, value.metadata_length, &cursor, &field) == 1)
		assert_int_equal(field.kind, RIPTIDE_METADATA_TAG);
	assert_int_equal(cursor, value.metadata_length);
	assert_int_equal(riptide_get_into(f->handle, "k", 1, buffer, 16, &length, &info), RIPTIDE_OK);
	assert_memory_equal(buffer, "value", 5);
	assert_int_equal(info.metadata_length, value.metadata_length);
	assert_int_equal(riptide_exists(f->handle, "k", 1, &info), RIPTIDE_OK);
	assert_int_equal(info.metadata_length, value.metadata_length);
	assert_int_equal(riptide_view(f->handle, "k", 1, &view), RIPTIDE_OK);
	assert_int_equal(view.length, 5);
	assert_memory_equal(view.data, "value", 5);
	assert_int_equal(view.info.flags, RIPTIDE_HOT);
	assert_int_equal(riptide_view_end(f->handle, &view), RIPTIDE_OK);
	assert_int_equal(f->agent.knobs->requests, 1);
	riptide_value_free(&value);
}

static void metadata_that_is_nothing_but_tags_is_given_whole(void **state)
{
	struct fixture *f = *state;
	const char *const tags[] = {"t"};
	struct riptide_metadata metadata = {.tags = tags, .tag_count = 1};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};
	struct riptide_value value;

	assert_int_equal(riptide_set(f->handle, "k", 1, NULL, 0, &options, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_get(f->handle, "k", 1, &value), RIPTIDE_OK);
	assert_int_equal(value.metadata_length, 6);
	assert_memory_equal(value.metadata, "\4\0\0\1\0t", 6);
	riptide_value_free(&value);
}

static void an_invalidated_tag_makes_its_entries_missing(void **state)
{
	struct fixture *f = *state;
	struct riptide_item item = {.key = "red:1", .key_length = 5};
	struct riptide_value value;
	struct riptide_view view;
	struct riptide_stats stats = {.size = sizeof(stats)};

	put_tagged(f, "red:1", "1", "red");
	put_tagged(f, "blue:1", "2", "blue");
	assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
	assert_int_equal(get(f, "red:1", NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_get(f->handle, "red:1", 5, &value), RIPTIDE_MISS);
	assert_int_equal(riptide_view(f->handle, "red:1", 5, &view), RIPTIDE_MISS);
	assert_int_equal(riptide_exists(f->handle, "red:1", 5, NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_get_batch(f->handle, &item, 1), RIPTIDE_OK);
	assert_int_equal(item.status, RIPTIDE_MISS);
	/* Each was asked of the agent, and each was a miss. */
	assert_int_equal(gets_taken(f), 3);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_EXISTS], 1);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_GET_BATCH], 1);
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_OK);
	assert_int_equal(stats.own_misses, 5);
	assert_int_equal(get(f, "blue:1", NULL), RIPTIDE_OK);
	assert_int_equal(gets_taken(f), 3);
	/* A tag of both. */
	assert_int_equal(riptide_invalidate_tag(f->handle, "every"), RIPTIDE_OK);
	assert_int_equal(get(f, "blue:1", NULL), RIPTIDE_MISS);
	put_tagged(f, "red:1", "3", "red");
	assert_int_equal(get(f, "red:1", NULL), RIPTIDE_OK);
}

static void another_process_sees_the_invalidation_at_once(void **state)
{
	struct fixture *f = *state;
	int orders[2], answers[2], status;
	char byte;
	pid_t pid;

	put_tagged(f, "k", "v", "red");
	assert_int_equal(pipe(orders), 0);
	assert_int_equal(pipe(answers), 0);
	pid = fork();
	if (pid == 0) {
		byte = (char)get(f, "k", NULL);
		_exit(write(answers[1], &byte, 1) != 1 || read(orders[0], &byte, 1) != 1 ||
		      get(f, "k", NULL) != RIPTIDE_MISS);
	}
	assert_int_equal(read(answers[0], &byte, 1), 1);
	assert_int_equal(byte, RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
	assert_int_equal(write(orders[1], &byte, 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	for (int i = 0; i < 2; i++) {
		close(orders[i]);
		close(answers[i]);
	}
}

/* The segment as its owner may map it. */
static struct rshm_segment *segment_of(const struct fixture *f, struct rshm_map *map)
{
	assert_int_equal(rshm_map_adopt(f->agent.knobs->segment_name, map), 0);
	return map->base;
}

/* Finds the bytes of "k" in the ring: its metadata comes first. */
static unsigned char *metadata_of(const struct rshm_map *map, struct rshm_found *found)
{
	struct rshm_reader reader;

	assert_int_equal(rshm_reader_init(map->base, map->size, &reader), RSHM_OK);
	assert_int_equal(rshm_find(&reader, rshm_hash(reader.hash_seed, "k", 1), "k", 1, found), RSHM_FOUND);
	return (unsigned char *)(uintptr_t)found->bytes + 1;
}

static void pairs_that_lie_are_asked_about(void **state)
{
	struct fixture *f = *state;
	struct rshm_map map;
	struct rshm_found found;
	unsigned char *metadata;
	uint32_t bad;

	put_tagged(f, "k", "v", "red");
	(void)segment_of(f, &map);
	metadata = metadata_of(&map, &found);
	assert_int_equal(get(f, "k", NULL), RIPTIDE_OK);
	assert_int_equal(gets_taken(f), 0);
	bad = RSHM_TAG_WORDS;
	memcpy(metadata + sizeof(struct rshm_tag_head), &bad, 4);
	assert_int_equal(get(f, "k", NULL), RIPTIDE_OK);
	bad = UINT32_MAX;
	memcpy(metadata, &bad, 4);
	assert_int_equal(get(f, "k", NULL), RIPTIDE_OK);
	bad = RSHM_TAGS_HOT_MAX;
	memcpy(metadata, &bad, 4);
	assert_int_equal(get(f, "k", NULL), RIPTIDE_OK);
	assert_int_equal(gets_taken(f), 3);
	rshm_unmap(&map);
}

static void an_unverified_tagged_entry_is_still_judged_by_its_tags(void **state)
{
	struct fixture *f = *state;
	struct rshm_map map;
	struct rshm_agent *object = mini_agent_object(&f->agent, &map);
	struct riptide_info info;

	put_tagged(f, "k", "v", "red");
	rshm_source_extend(&object->sources[0], rshm_now_ms() - 1);
	assert_int_equal(get(f, "k", &info), RIPTIDE_OK);
	assert_int_equal(info.flags, RIPTIDE_HOT | RIPTIDE_STALE);
	assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
	assert_int_equal(get(f, "k", &info), RIPTIDE_MISS);
	assert_int_equal(gets_taken(f), 1);
	rshm_unmap(&map);
}

/* ---- absences ----------------------------------------------------------------------------------------------- */

static int find_nothing(void *context, const void *key, size_t key_length, struct riptide_loaded *ret)
{
	(void)context;
	(void)key;
	(void)key_length;
	(void)ret;
	return RIPTIDE_MISS;
}

static void remember_absence(struct fixture *f, const char *key, uint64_t ttl_ms)
{
	struct riptide_fetch_options options = {.size = sizeof(options), .negative_ttl_ms = ttl_ms};
	struct riptide_value value;

	assert_int_equal(riptide_fetch(f->handle, key, strlen(key), find_nothing, NULL, &options, &value),
			 RIPTIDE_MISS);
}

static void a_remembered_absence_is_a_miss_without_the_agent(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info = {.version = 1};
	struct riptide_value value = {.data = &info, .length = 3};
	struct riptide_view view = {.length = 3};
	struct riptide_item item = {.key = "no", .key_length = 2};
	struct riptide_stats stats = {.size = sizeof(stats)};
	uint32_t requests;

	remember_absence(f, "no", 60000);
	requests = f->agent.knobs->requests;
	assert_int_equal(get(f, "no", &info), RIPTIDE_MISS);
	assert_int_equal(info.flags, RIPTIDE_NEGATIVE | RIPTIDE_HOT);
	assert_int_equal(info.version, 0);
	assert_int_equal(get(f, "no", NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_get(f->handle, "no", 2, &value), RIPTIDE_MISS);
	assert_int_equal(value.info.flags, RIPTIDE_NEGATIVE | RIPTIDE_HOT);
	assert_ptr_equal(value.data, &info);
	assert_int_equal(riptide_view(f->handle, "no", 2, &view), RIPTIDE_MISS);
	assert_int_equal(view.info.flags, RIPTIDE_NEGATIVE | RIPTIDE_HOT);
	assert_int_equal(view.length, 3);
	assert_int_equal(riptide_exists(f->handle, "no", 2, &info), RIPTIDE_MISS);
	assert_int_equal(info.flags, RIPTIDE_NEGATIVE | RIPTIDE_HOT);
	assert_int_equal(riptide_get_batch(f->handle, &item, 1), RIPTIDE_OK);
	assert_int_equal(item.status, RIPTIDE_MISS);
	assert_int_equal(item.result.info.flags, RIPTIDE_NEGATIVE | RIPTIDE_HOT);
	riptide_batch_free(&item, 1);
	assert_int_equal(f->agent.knobs->requests, requests);
	assert_int_equal(riptide_stats(f->handle, &stats), RIPTIDE_OK);
	/* One more was the fetch's own look. */
	assert_int_equal(stats.own_misses, 7);
	assert_int_equal(stats.own_hits, 0);
}

static void an_absence_that_is_over_or_unverified_is_asked_about(void **state)
{
	struct fixture *f = *state;
	struct rshm_map map;
	struct rshm_agent *object = mini_agent_object(&f->agent, &map);
	struct timespec pause = {.tv_nsec = 80000000};
	struct riptide_info info = {.flags = 99};

	remember_absence(f, "brief", 40);
	nanosleep(&pause, NULL);
	assert_int_equal(get(f, "brief", &info), RIPTIDE_MISS);
	assert_int_equal(info.flags, 0);
	assert_int_equal(gets_taken(f), 1);
	remember_absence(f, "long", 60000);
	rshm_source_extend(&object->sources[0], rshm_now_ms() - 1);
	assert_int_equal(get(f, "long", &info), RIPTIDE_MISS);
	assert_int_equal(info.flags, 0);
	assert_int_equal(gets_taken(f), 2);
	rshm_unmap(&map);
}

/* ---- soft deadlines ----------------------------------------------------------------------------------------- */

static int find_value(void *context, const void *key, size_t key_length, struct riptide_loaded *ret)
{
	(void)context;
	(void)key;
	(void)key_length;
	*ret = (struct riptide_loaded){.data = "soft", .length = 4};
	return RIPTIDE_OK;
}

/* Stores a value that lives for a minute beyond its ttl. */
static void store_soft(struct fixture *f, const char *key, uint64_t ttl_ms)
{
	struct riptide_fetch_options options = {
		.size = sizeof(options), .ttl_ms = ttl_ms, .stale_if_error_ms = 60000};
	struct riptide_value value;

	assert_int_equal(riptide_fetch(f->handle, key, strlen(key), find_value, NULL, &options, &value), RIPTIDE_OK);
	riptide_value_free(&value);
}

static void past_its_soft_deadline_a_value_is_missing(void **state)
{
	struct fixture *f = *state;
	struct timespec pause = {.tv_nsec = 150000000};
	struct riptide_info info;
	struct riptide_value value = {.data = NULL};
	struct riptide_view view;
	uint32_t requests;

	store_soft(f, "k", 100);
	requests = f->agent.knobs->requests;
	assert_int_equal(get(f, "k", &info), RIPTIDE_OK);
	assert_int_equal(info.flags, RIPTIDE_HOT);
	/* What is left is what is left of the ttl. */
	assert_true(info.ttl_ms <= 100);
	nanosleep(&pause, NULL);
	assert_int_equal(get(f, "k", &info), RIPTIDE_MISS);
	assert_int_equal(info.flags, 0);
	assert_int_equal(riptide_get(f->handle, "k", 1, &value), RIPTIDE_MISS);
	assert_null(value.data);
	assert_int_equal(riptide_view(f->handle, "k", 1, &view), RIPTIDE_MISS);
	assert_int_equal(riptide_exists(f->handle, "k", 1, NULL), RIPTIDE_MISS);
	assert_int_equal(f->agent.knobs->requests, requests);
}

static void the_soft_deadline_is_a_field_of_the_metadata(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value;
	struct riptide_field field;
	size_t cursor = 0;

	store_soft(f, "k", 30000);
	assert_int_equal(riptide_get(f->handle, "k", 1, &value), RIPTIDE_OK);
	assert_int_equal(riptide_metadata_next(value.metadata, value.metadata_length, &cursor, &field), 1);
	assert_int_equal(field.kind, RIPTIDE_METADATA_SOFT_DEADLINE);
	assert_int_equal(field.value_length, 8);
	assert_int_equal(field.name_length, 0);
	assert_int_equal(riptide_metadata_next(value.metadata, value.metadata_length, &cursor, &field), 0);
	riptide_value_free(&value);
}

static void metadata_that_lies_about_a_soft_deadline_does_no_harm(void **state)
{
	struct fixture *f = *state;
	struct rshm_map map;
	struct rshm_found found;
	unsigned char *metadata, whole[13];

	store_soft(f, "k", 30000);
	(void)segment_of(f, &map);
	metadata = metadata_of(&map, &found);
	assert_int_equal(found.entry.metadata_len, sizeof(whole));
	memcpy(whole, metadata, sizeof(whole));
	for (size_t i = 0; i < 5; i++) {
		metadata[i] = 0xff;
		assert_int_equal(get(f, "k", NULL), RIPTIDE_OK);
		metadata[i] = whole[i];
	}
	/* At 0 there is none; long ago it is over. */
	memset(metadata + 5, 0, 8);
	assert_int_equal(get(f, "k", NULL), RIPTIDE_OK);
	metadata[5] = 1;
	assert_int_equal(get(f, "k", NULL), RIPTIDE_MISS);
	memset(metadata + 5, 0xff, 8);
	assert_int_equal(get(f, "k", NULL), RIPTIDE_OK);
	rshm_unmap(&map);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_tagged_entry_is_hot_and_its_pairs_are_hidden),
		CASE(metadata_that_is_nothing_but_tags_is_given_whole),
		CASE(an_invalidated_tag_makes_its_entries_missing),
		CASE(another_process_sees_the_invalidation_at_once),
		CASE(pairs_that_lie_are_asked_about),
		CASE(an_unverified_tagged_entry_is_still_judged_by_its_tags),
		CASE(a_remembered_absence_is_a_miss_without_the_agent),
		CASE(an_absence_that_is_over_or_unverified_is_asked_about),
		CASE(past_its_soft_deadline_a_value_is_missing),
		CASE(the_soft_deadline_is_a_field_of_the_metadata),
		CASE(metadata_that_lies_about_a_soft_deadline_does_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
