#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "tests/support/e2e.h"

/* Every call of the library against a real agent with the embedded store: what it returns, and the counters it moves. */

#define MIB (1u << 20)
#define THREADS 10
#define ROUNDS 300
#define BATCH 5000

static struct agent_process agent;

struct fixture {
	riptide *handle;
};

static int begin_all(void **state)
{
	static const char *const settings[] = {"cache.default_ttl_seconds=100", "cache.max_memory_bytes=8M", NULL};

	(void)state;
	return agent_process_start(&agent, settings);
}

static int end_all(void **state)
{
	(void)state;
	return agent_process_stop_and_clean(&agent);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (e2e_open(&agent, NULL, 5000, &f->handle) != RIPTIDE_OK)
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	riptide_close(&f->handle);
	free(f);
	return 0;
}

static struct riptide_stats stats_of(riptide *handle)
{
	struct riptide_stats stats = {.size = sizeof(stats)};

	assert_int_equal(riptide_stats(handle, &stats), RIPTIDE_OK);
	return stats;
}

static void assert_has(riptide *handle, const void *key, size_t key_length, const void *value, size_t length)
{
	struct riptide_value got;

	assert_int_equal(riptide_get(handle, key, key_length, &got), RIPTIDE_OK);
	assert_int_equal(got.length, length);
	assert_memory_equal(got.data, value, length);
	riptide_value_free(&got);
}

/* Bytes that tell their place, so that pieces in the wrong order are seen. */
static unsigned char *pattern(size_t length)
{
	unsigned char *bytes = malloc(length);

	assert_non_null(bytes);
	for (size_t i = 0; i < length; i++)
		bytes[i] = (unsigned char)(i * 2654435761u >> 13 ^ i >> 16);
	return bytes;
}

/* ---- single calls ------------------------------------------------------------------------------------------- */

static void ping_answers_and_tells_its_time(void **state)
{
	struct fixture *f = *state;
	uint64_t ns = 0;

	assert_int_equal(riptide_ping(f->handle, &ns), RIPTIDE_OK);
	assert_in_range(ns, 1, 2000000000);
}

static void what_was_set_is_read_back(void **state)
{
	struct fixture *f = *state;
	struct riptide_stats before = stats_of(f->handle);

	assert_int_equal(e2e_put(f->handle, "plain", "value"), RIPTIDE_OK);
	assert_has(f->handle, "plain", 5, "value", 5);
	assert_int_equal(e2e_check(f->handle, "plain", "value", NULL), RIPTIDE_OK);
	assert_int_equal(stats_of(f->handle).sets, before.sets + 1);
}

static void an_absent_key_is_a_miss_and_is_counted(void **state)
{
	struct fixture *f = *state;
	struct riptide_stats before = stats_of(f->handle), after;
	struct riptide_value value;

	for (int i = 0; i < 3; i++)
		assert_int_equal(riptide_get(f->handle, "absent", 6, &value), RIPTIDE_MISS);
	after = stats_of(f->handle);
	assert_int_equal(after.own_misses, before.own_misses + 3);
	assert_int_equal(after.misses, before.misses + 3);
}

static void a_get_after_a_set_comes_from_shared_memory(void **state)
{
	struct fixture *f = *state;
	struct riptide_stats before = stats_of(f->handle), after;
	struct riptide_info info;

	assert_int_equal(e2e_put(f->handle, "hot", "warm"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "hot", "warm", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "hot", "warm", &info), RIPTIDE_OK);
	assert_true(info.flags & RIPTIDE_HOT);
	assert_false(info.flags & RIPTIDE_STALE);
	after = stats_of(f->handle);
	assert_true(after.own_hits >= before.own_hits + 1);
	assert_true(after.hits >= before.hits + 1);
	assert_true(after.hit_bytes >= before.hit_bytes + 4);
}

static void what_only_the_store_has_becomes_hot_by_reading(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info;
	riptide *other;

	/* Far above the hot ring, so that the first keys leave it. */
	for (int i = 0; i < 2500; i++) {
		char key[32], value[4096];

		snprintf(key, sizeof(key), "churn-%d", i);
		memset(value, 'a' + i % 26, sizeof(value));
		assert_int_equal(riptide_set(f->handle, key, strlen(key), value, sizeof(value), NULL, NULL),
				 RIPTIDE_OK);
	}
	assert_int_equal(e2e_open(&agent, NULL, 5000, &other), RIPTIDE_OK);
	assert_true(stats_of(other).evictions > 0);
	assert_int_equal(riptide_exists(other, "churn-0", 7, &info), RIPTIDE_OK);
	for (int i = 0; i < 2; i++) {
		char value[4096];
		size_t length;

		assert_int_equal(riptide_get_into(other, "churn-0", 7, value, sizeof(value), &length, &info),
				 RIPTIDE_OK);
		assert_int_equal(length, sizeof(value));
		assert_int_equal(value[4095], 'a');
	}
	assert_true(info.flags & RIPTIDE_HOT);
	riptide_close(&other);
}

static void keys_and_values_are_any_bytes(void **state)
{
	struct fixture *f = *state;
	unsigned char key[256], value[256];

	for (int i = 0; i < 256; i++) {
		key[i] = (unsigned char)(255 - i);
		value[i] = (unsigned char)i;
	}
	assert_int_equal(riptide_set(f->handle, key, sizeof(key), value, sizeof(value), NULL, NULL), RIPTIDE_OK);
	assert_has(f->handle, key, sizeof(key), value, sizeof(value));
	assert_int_equal(riptide_exists(f->handle, key, sizeof(key) - 1, NULL), RIPTIDE_MISS);
}

static void an_empty_value_is_a_value(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value;

	assert_int_equal(riptide_set(f->handle, "empty", 5, NULL, 0, NULL, NULL), RIPTIDE_OK);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(riptide_get(f->handle, "empty", 5, &value), RIPTIDE_OK);
		assert_int_equal(value.length, 0);
		assert_non_null(value.data);
		riptide_value_free(&value);
	}
}

static void a_value_of_20_mib_goes_there_and_back(void **state)
{
	struct fixture *f = *state;
	unsigned char *bytes = pattern(20 * MIB);

	assert_int_equal(riptide_set(f->handle, "large", 5, bytes, 20 * MIB, NULL, NULL), RIPTIDE_OK);
	assert_has(f->handle, "large", 5, bytes, 20 * MIB);
	assert_int_equal(riptide_delete(f->handle, "large", 5), RIPTIDE_OK);
	free(bytes);
}

static void a_value_above_20_mib_is_refused_and_changes_nothing(void **state)
{
	struct fixture *f = *state;
	unsigned char *bytes = pattern(20 * MIB + 1);

	assert_int_equal(e2e_put(f->handle, "too large", "before"), RIPTIDE_OK);
	assert_int_equal(riptide_set(f->handle, "too large", 9, bytes, 20 * MIB + 1, NULL, NULL), RIPTIDE_ETOOBIG);
	assert_has(f->handle, "too large", 9, "before", 6);
	assert_int_equal(stats_of(f->handle).attaches, 1);
	free(bytes);
}

static void sizes_around_every_boundary_go_there_and_back(void **state)
{
	static const size_t sizes[] = {
		1, 4095, 4096, 4097, 32 << 10, (64 << 10) - 1, 64 << 10, (64 << 10) + 4097, 69632, MIB, MIB + 1};
	struct fixture *f = *state;
	unsigned char *bytes = pattern(2 * MIB);

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_int_equal(riptide_set(f->handle, "sized", 5, bytes + i, sizes[i], NULL, NULL), RIPTIDE_OK);
		assert_has(f->handle, "sized", 5, bytes + i, sizes[i]);
		assert_has(f->handle, "sized", 5, bytes + i, sizes[i]);
	}
	free(bytes);
}

static void a_key_of_10000_characters_is_compared_whole(void **state)
{
	struct fixture *f = *state;
	char key[10000];

	memset(key, 'k', sizeof(key));
	assert_int_equal(riptide_set(f->handle, key, sizeof(key), "long", 4, NULL, NULL), RIPTIDE_OK);
	assert_has(f->handle, key, sizeof(key), "long", 4);
	key[9999] = 'x';
	assert_int_equal(riptide_exists(f->handle, key, sizeof(key), NULL), RIPTIDE_MISS);
	key[9999] = 'k';
	assert_int_equal(riptide_delete(f->handle, key, sizeof(key)), RIPTIDE_OK);
	assert_int_equal(riptide_exists(f->handle, key, sizeof(key), NULL), RIPTIDE_MISS);
}

static void keys_outside_their_limits_are_refused(void **state)
{
	struct fixture *f = *state;
	char *key = calloc(1, 65536);

	assert_int_equal(riptide_set(f->handle, "", 0, "v", 1, NULL, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_set(f->handle, key, 65536, "v", 1, NULL, NULL), RIPTIDE_ETOOBIG);
	assert_int_equal(riptide_set(f->handle, key, 65535, "v", 1, NULL, NULL), RIPTIDE_OK);
	assert_has(f->handle, key, 65535, "v", 1);
	free(key);
}

static void delete_tells_whether_there_was_an_entry(void **state)
{
	struct fixture *f = *state;
	struct riptide_stats before = stats_of(f->handle);
	struct riptide_value value;

	assert_int_equal(e2e_put(f->handle, "gone", "soon"), RIPTIDE_OK);
	assert_int_equal(riptide_delete(f->handle, "gone", 4), RIPTIDE_OK);
	assert_int_equal(riptide_get(f->handle, "gone", 4, &value), RIPTIDE_MISS);
	assert_int_equal(riptide_exists(f->handle, "gone", 4, NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_delete(f->handle, "gone", 4), RIPTIDE_MISS);
	assert_true(stats_of(f->handle).deletes >= before.deletes + 1);
}

static void versions_grow_with_every_write(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info;
	uint64_t last = 0, version = 0;

	for (int i = 0; i < 100; i++) {
		assert_int_equal(riptide_set(f->handle, "versioned", 9, &i, sizeof(i), NULL, &version), RIPTIDE_OK);
		assert_true(version > last);
		assert_int_equal(riptide_exists(f->handle, "versioned", 9, &info), RIPTIDE_OK);
		assert_true(info.version == version);
		last = version;
	}
}

static void a_buffer_that_is_too_small_is_told_the_length(void **state)
{
	struct fixture *f = *state;
	char buffer[4] = "abc";
	size_t length = 0;

	assert_int_equal(e2e_put(f->handle, "ten", "0123456789"), RIPTIDE_OK);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(riptide_get_into(f->handle, "ten", 3, buffer, sizeof(buffer), &length, NULL),
				 RIPTIDE_ETOOSMALL);
		assert_int_equal(length, 10);
		assert_string_equal(buffer, "abc");
	}
	assert_int_equal(riptide_get_into(f->handle, "ten", 3, NULL, 0, &length, NULL), RIPTIDE_ETOOSMALL);
}

static void a_view_shows_the_bytes_in_place(void **state)
{
	struct fixture *f = *state;
	struct riptide_view view, second;

	assert_int_equal(e2e_put(f->handle, "viewed", "in place"), RIPTIDE_OK);
	assert_int_equal(riptide_view(f->handle, "viewed", 6, &view), RIPTIDE_OK);
	assert_int_equal(view.length, 8);
	assert_memory_equal(view.data, "in place", 8);
	assert_int_equal(riptide_view(f->handle, "viewed", 6, &second), RIPTIDE_EINVALID);
	assert_int_equal(riptide_view_end(f->handle, &view), RIPTIDE_OK);
	assert_int_equal(riptide_view(f->handle, "nothing there", 13, &view), RIPTIDE_MISS);
}

static void a_view_of_reclaimed_bytes_is_void(void **state)
{
	struct fixture *f = *state;
	struct riptide_view view;
	char value[65536] = {0};
	riptide *writer;

	assert_int_equal(e2e_open(&agent, NULL, 5000, &writer), RIPTIDE_OK);
	assert_int_equal(e2e_put(f->handle, "reclaimed", "bytes"), RIPTIDE_OK);
	assert_int_equal(riptide_view(f->handle, "reclaimed", 9, &view), RIPTIDE_OK);
	for (int i = 0; i < 400; i++)
		assert_int_equal(riptide_set(writer, &i, sizeof(i), value, 32000, NULL, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_view_end(f->handle, &view), RIPTIDE_EVOID);
	assert_int_equal(e2e_check(f->handle, "reclaimed", "bytes", NULL), RIPTIDE_OK);
	riptide_close(&writer);
}

/* ---- life time ---------------------------------------------------------------------------------------------- */

static void an_entry_ends_with_its_ttl(void **state)
{
	struct riptide_set_options options = {.size = sizeof(options), .ttl_ms = 200};
	struct fixture *f = *state;
	struct riptide_info info;

	assert_int_equal(riptide_set(f->handle, "short", 5, "life", 4, &options, NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "short", "life", &info), RIPTIDE_OK);
	assert_in_range(info.ttl_ms, 1, 200);
	e2e_pause_ms(230);
	assert_int_equal(e2e_check(f->handle, "short", "life", NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_exists(f->handle, "short", 5, NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_delete(f->handle, "short", 5), RIPTIDE_MISS);
}

static void without_a_ttl_the_configured_default_holds(void **state)
{
	struct riptide_set_options never = {.size = sizeof(never), .ttl_ms = RIPTIDE_NEVER};
	struct fixture *f = *state;
	struct riptide_info info;

	assert_int_equal(e2e_put(f->handle, "default", "ttl"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "default", "ttl", &info), RIPTIDE_OK);
	assert_in_range(info.ttl_ms, 95000, 100000);
	assert_int_equal(riptide_set(f->handle, "default", 7, "ttl", 3, &never, NULL), RIPTIDE_OK);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(e2e_check(f->handle, "default", "ttl", &info), RIPTIDE_OK);
		assert_true(info.ttl_ms == RIPTIDE_NEVER);
	}
}

static void touch_gives_a_new_life_time_and_keeps_the_value(void **state)
{
	struct fixture *f = *state;
	struct riptide_info info;

	assert_int_equal(e2e_put(f->handle, "touched", "same"), RIPTIDE_OK);
	assert_int_equal(riptide_touch(f->handle, "touched", 7, 5000), RIPTIDE_OK);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(e2e_check(f->handle, "touched", "same", &info), RIPTIDE_OK);
		assert_in_range(info.ttl_ms, 4000, 5000);
	}
	assert_int_equal(riptide_touch(f->handle, "touched", 7, 150), RIPTIDE_OK);
	e2e_pause_ms(180);
	assert_int_equal(e2e_check(f->handle, "touched", "same", NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_touch(f->handle, "touched", 7, 5000), RIPTIDE_MISS);
}

/* ---- metadata ----------------------------------------------------------------------------------------------- */

static bool field_is(const struct riptide_field *field, int kind, const char *name, const char *value)
{
	return field->kind == kind && field->name_length == strlen(name) &&
	       memcmp(field->name, name, field->name_length) == 0 && field->value_length == strlen(value) &&
	       memcmp(field->value, value, field->value_length) == 0;
}

static int count_known_fields(const struct riptide_value *value)
{
	struct riptide_field field;
	size_t cursor = 0;
	int known = 0;

	while (riptide_metadata_next(value->metadata, value->metadata_length, &cursor, &field) == 1)
		known += field_is(&field, RIPTIDE_METADATA_VERSION, "", "v7") ||
			 field_is(&field, RIPTIDE_METADATA_CONTENT_TYPE, "", "text/html") ||
			 field_is(&field, RIPTIDE_METADATA_SOURCE, "", "origin") ||
			 field_is(&field, RIPTIDE_METADATA_TAG, "", "red") ||
			 field_is(&field, RIPTIDE_METADATA_TAG, "", "blue") ||
			 field_is(&field, RIPTIDE_METADATA_ATTRIBUTE, "language", "de");
	return known;
}

static void metadata_travels_with_the_value(void **state)
{
	static const char *const tags[] = {"red", "blue"};
	static const struct riptide_pair attributes[] = {{"language", "de"}};
	static const struct riptide_metadata metadata = {
		.version = "v7",
		.content_type = "text/html",
		.source = "origin",
		.tags = tags,
		.tag_count = 2,
		.attributes = attributes,
		.attribute_count = 1,
	};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};
	struct fixture *f = *state;
	struct riptide_value value;

	assert_int_equal(riptide_set(f->handle, "dressed", 7, "body", 4, &options, NULL), RIPTIDE_OK);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(riptide_get(f->handle, "dressed", 7, &value), RIPTIDE_OK);
		assert_memory_equal(value.data, "body", 4);
		assert_int_equal(count_known_fields(&value), 6);
		assert_int_equal(value.info.metadata_length, value.metadata_length);
		riptide_value_free(&value);
	}
}

/* ---- batches ------------------------------------------------------------------------------------------------ */

struct batch {
	struct riptide_item items[BATCH];
	char keys[BATCH][24], values[BATCH][32];
};

static struct batch *make_batch(void)
{
	struct batch *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	for (int i = 0; i < BATCH; i++) {
		b->items[i].key = b->keys[i];
		b->items[i].key_length = (size_t)snprintf(b->keys[i], sizeof(b->keys[i]), "batch-%d", i);
		b->items[i].value = b->values[i];
		b->items[i].value_length = (size_t)snprintf(b->values[i], sizeof(b->values[i]), "value of %d", i);
	}
	return b;
}

static void a_batch_of_5000_reports_each_key(void **state)
{
	struct fixture *f = *state;
	struct batch *b = make_batch();

	assert_int_equal(riptide_set_batch(f->handle, b->items, BATCH), RIPTIDE_OK);
	for (int i = 0; i < BATCH; i++)
		assert_int_equal(b->items[i].status, RIPTIDE_OK);
	assert_int_equal(riptide_delete_batch(f->handle, b->items, BATCH / 2), RIPTIDE_OK);
	for (int i = 0; i < BATCH / 2; i++)
		assert_int_equal(b->items[i].status, RIPTIDE_OK);
	assert_int_equal(riptide_get_batch(f->handle, b->items, BATCH), RIPTIDE_OK);
	for (int i = 0; i < BATCH; i++) {
		assert_int_equal(b->items[i].status, i < BATCH / 2 ? RIPTIDE_MISS : RIPTIDE_OK);
		if (i < BATCH / 2)
			continue;
		assert_int_equal(b->items[i].result.length, strlen(b->values[i]));
		assert_memory_equal(b->items[i].result.data, b->values[i], strlen(b->values[i]));
	}
	riptide_batch_free(b->items, BATCH);
	free(b);
}

static void a_batch_with_one_bad_item_serves_the_others(void **state)
{
	struct fixture *f = *state;
	struct riptide_item items[3] = {
		{.key = "b1", .key_length = 2, .value = "1", .value_length = 1},
		{.key = "", .key_length = 0, .value = "2", .value_length = 1},
		{.key = "b3", .key_length = 2, .value = "3", .value_length = 1},
	};

	assert_int_equal(riptide_set_batch(f->handle, items, 3), RIPTIDE_OK);
	assert_int_equal(items[0].status, RIPTIDE_OK);
	assert_int_equal(items[1].status, RIPTIDE_EINVALID);
	assert_int_equal(items[2].status, RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "b3", "3", NULL), RIPTIDE_OK);
}

static void batches_of_large_values_are_cut_to_fit(void **state)
{
	struct fixture *f = *state;
	unsigned char *bytes = pattern(MIB);
	struct riptide_item items[40] = {{.key = NULL}};
	char keys[40][8];

	for (int i = 0; i < 40; i++) {
		items[i].key = keys[i];
		items[i].key_length = (size_t)snprintf(keys[i], sizeof(keys[i]), "big-%d", i);
		items[i].value = bytes + i;
		items[i].value_length = MIB - 40;
	}
	assert_int_equal(riptide_set_batch(f->handle, items, 40), RIPTIDE_OK);
	for (int i = 0; i < 40; i++)
		assert_int_equal(items[i].status, RIPTIDE_OK);
	assert_int_equal(riptide_get_batch(f->handle, items, 40), RIPTIDE_OK);
	for (int i = 0; i < 40; i++) {
		assert_int_equal(items[i].status, RIPTIDE_OK);
		assert_int_equal(items[i].result.length, MIB - 40);
		assert_memory_equal(items[i].result.data, bytes + i, MIB - 40);
	}
	riptide_batch_free(items, 40);
	assert_int_equal(riptide_delete_batch(f->handle, items, 40), RIPTIDE_OK);
	free(bytes);
}

/* ---- threads ------------------------------------------------------------------------------------------------ */

struct task {
	pthread_t thread;
	riptide *handle;
	int number;
	unsigned long wrong;
};

/* Its own keys must be as it left them; the common one must be somebody's whole value. */
static void *set_and_get(void *context)
{
	struct task *task = context;
	char key[32], value[64], common[64];
	size_t length;
	int who, round;

	for (int i = 0; i < ROUNDS; i++) {
		snprintf(key, sizeof(key), "thread-%d-%d", task->number, i % 7);
		snprintf(value, sizeof(value), "%d says %d", task->number, i);
		task->wrong += e2e_put(task->handle, key, value) != RIPTIDE_OK;
		task->wrong += e2e_put(task->handle, "common", value) != RIPTIDE_OK;
		task->wrong += e2e_check(task->handle, key, value, NULL) != RIPTIDE_OK;
		task->wrong += riptide_get_into(task->handle, "common", 6, common, sizeof(common) - 1, &length,
						NULL) != RIPTIDE_OK;
		common[length] = '\0';
		task->wrong += sscanf(common, "%d says %d", &who, &round) != 2 || who < 0 || who >= THREADS;
	}
	return NULL;
}

static void ten_threads_share_a_handle(void **state)
{
	struct fixture *f = *state;
	struct task tasks[THREADS];
	unsigned long wrong = 0;

	for (int i = 0; i < THREADS; i++) {
		tasks[i] = (struct task){.handle = f->handle, .number = i};
		assert_int_equal(pthread_create(&tasks[i].thread, NULL, set_and_get, &tasks[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(tasks[i].thread, NULL);
		wrong += tasks[i].wrong;
	}
	assert_int_equal(wrong, 0);
	assert_int_equal(stats_of(f->handle).attaches, 1);
}

/* ---- about -------------------------------------------------------------------------------------------------- */

static void status_and_statistics_agree(void **state)
{
	struct fixture *f = *state;
	struct riptide_stats stats;
	char name[32];

	assert_int_equal(e2e_put(f->handle, "counted", "once"), RIPTIDE_OK);
	stats = stats_of(f->handle);
	assert_true(stats.total_keys > 0);
	assert_true(stats.memory_usage_bytes > 0 && stats.memory_usage_bytes <= stats.memory_limit_bytes);
	assert_true(stats.hit_rate >= 0 && stats.hit_rate <= 1);
	assert_true(e2e_await(&agent, "tenants.0.sets", (int64_t)stats.sets, 2000) >= (int64_t)stats.sets);
	e2e_text(&agent, "backend.name", name, sizeof(name));
	assert_string_equal(name, "embedded");
	assert_int_equal(e2e_number(&agent, "backend.ready"), 1);
}

static void an_unknown_tenant_is_refused_with_a_remedy(void **state)
{
	int64_t refused = e2e_number(&agent, "control.refused_attaches");
	char text[400];
	riptide *other;

	(void)state;
	assert_int_equal(e2e_open(&agent, "nobody", 1000, &other), RIPTIDE_ENOTENANT);
	assert_int_equal(riptide_last_error(other, text, sizeof(text)), RIPTIDE_ENOTENANT);
	assert_non_null(strstr(text, "nobody"));
	riptide_close(&other);
	assert_int_equal(e2e_number(&agent, "control.refused_attaches"), refused + 1);
}

static void closing_gives_the_channel_back(void **state)
{
	struct fixture *f = *state;
	int64_t channels;
	riptide *other;

	(void)f;
	assert_true(e2e_await_exactly(&agent, "control.channels_open", 1, 3000));
	channels = e2e_number(&agent, "control.channels_open");
	assert_int_equal(e2e_open(&agent, NULL, 1000, &other), RIPTIDE_OK);
	assert_int_equal(e2e_number(&agent, "control.channels_open"), channels + 1);
	riptide_close(&other);
	assert_true(e2e_await_exactly(&agent, "control.channels_open", channels, 3000));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(ping_answers_and_tells_its_time),
		CASE(what_was_set_is_read_back),
		CASE(an_absent_key_is_a_miss_and_is_counted),
		CASE(a_get_after_a_set_comes_from_shared_memory),
		CASE(keys_and_values_are_any_bytes),
		CASE(an_empty_value_is_a_value),
		CASE(delete_tells_whether_there_was_an_entry),
		CASE(versions_grow_with_every_write),
		CASE(a_buffer_that_is_too_small_is_told_the_length),
		CASE(keys_outside_their_limits_are_refused),
		CASE(a_key_of_10000_characters_is_compared_whole),
		CASE(sizes_around_every_boundary_go_there_and_back),
		CASE(a_value_of_20_mib_goes_there_and_back),
		CASE(a_value_above_20_mib_is_refused_and_changes_nothing),
		CASE(a_view_shows_the_bytes_in_place),
		CASE(a_view_of_reclaimed_bytes_is_void),
		CASE(what_only_the_store_has_becomes_hot_by_reading),
		CASE(an_entry_ends_with_its_ttl),
		CASE(without_a_ttl_the_configured_default_holds),
		CASE(touch_gives_a_new_life_time_and_keeps_the_value),
		CASE(metadata_travels_with_the_value),
		CASE(a_batch_of_5000_reports_each_key),
		CASE(a_batch_with_one_bad_item_serves_the_others),
		CASE(batches_of_large_values_are_cut_to_fit),
		CASE(ten_threads_share_a_handle),
		CASE(status_and_statistics_agree),
		CASE(an_unknown_tenant_is_refused_with_a_remedy),
		CASE(closing_gives_the_channel_back),
	};
#undef CASE

	return cmocka_run_group_tests(tests, begin_all, end_all);
}
