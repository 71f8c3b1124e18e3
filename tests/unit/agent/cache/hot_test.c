/* hot_test.c - a tenant's tier in real shared memory: put, grow, adopt, give up. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/cache/hot.h"
#include "shm/index.h"

struct fixture {
	char dir[64], list_path[80];
	struct object_list *objects;
	struct hot_budget budget;
	struct hot_environment environment;
	struct hot_settings settings;
	struct rshm_source sources[RSHM_SOURCES];
	uv_loop_t loop;
	struct hot *hot;
	bool closed;
};

static void open_tier(struct fixture *f, const char *adopt)
{
	assert_int_equal(hot_open(&f->environment, &f->settings, &f->loop, adopt, &f->hot), RSHM_OK);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char error[256];

	if (!f || sodium_init() < 0)
		return -1;
	strcpy(f->dir, "/tmp/riptide-hot.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->list_path, sizeof(f->list_path), "%s/objects", f->dir);
	if (object_list_open(f->list_path, &f->objects, error, sizeof(error)) < 0)
		return -1;
	f->budget.total = 64u << 20;
	f->environment = (struct hot_environment){
		.objects = f->objects,
		.budget = &f->budget,
		.sources = f->sources,
		.instance_name = "hottest",
		.initial_bytes = 1u << 20,
		.entry_limit_bytes = 1u << 20,
		.reinsert_percent = 100,
	};
	randombytes_buf(f->environment.instance, 16);
	rshm_boot_id(f->environment.boot_id);
	f->settings =
		(struct hot_settings){.tenant = "default", .policy = RSHM_POLICY_STALE, .stale_limit_ms = 60000};
	f->sources[0].epoch = 1;
	f->sources[0].lease_until_ms = RSHM_NEVER;
	uv_loop_init(&f->loop);
	*state = f;
	return 0;
}

static void on_closed(void *context)
{
	((struct fixture *)context)->closed = true;
}

static void close_tier(struct fixture *f, bool keep)
{
	f->closed = false;
	hot_close(f->hot, keep, on_closed, f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(f->closed);
	f->hot = NULL;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct object_entry *left;
	size_t count;

	if (f->hot)
		close_tier(f, false);
	count = object_list_copy(f->objects, &left);
	for (size_t i = 0; i < count; i++)
		object_list_remove(f->objects, left[i].name);
	free(left);
	object_list_close(&f->objects);
	unlink(f->list_path);
	rmdir(f->dir);
	if (uv_loop_close(&f->loop) != 0)
		return -1;
	free(f);
	return count == 0 ? 0 : -1;
}

static int put(struct fixture *f, const char *key, const void *value, size_t length, uint64_t version)
{
	struct rshm_item item = {
		.key = key,
		.key_len = (uint16_t)strlen(key),
		.value = value,
		.value_len = (uint32_t)length,
		.version = version,
		.control_a = rshm_control_a(0, 0, 1),
		.control_b = RSHM_NEVER,
	};

	return hot_put(f->hot, &item);
}

static bool has(struct fixture *f, const char *key, uint64_t version)
{
	struct rshm_item item;

	return hot_find(f->hot, key, strlen(key), &item) && item.version == version;
}

static void entry_put_is_found_and_removed(void **state)
{
	struct fixture *f = *state;

	open_tier(f, NULL);
	assert_int_equal(put(f, "a", "one", 3, 1), RSHM_OK);
	assert_true(has(f, "a", 1));
	assert_int_equal(put(f, "a", "two", 3, 2), RSHM_OK);
	assert_true(has(f, "a", 2));
	assert_true(hot_remove(f->hot, "a", 1));
	assert_false(has(f, "a", 2));
	assert_false(hot_remove(f->hot, "a", 1));
}

static void entry_above_the_limit_replaces_the_older_copy_by_nothing(void **state)
{
	struct fixture *f = *state;
	char *large = calloc(1, 1u << 20);

	open_tier(f, NULL);
	assert_int_equal(put(f, "a", "small", 5, 1), RSHM_OK);
	assert_int_equal(put(f, "a", large, 1u << 20, 2), RSHM_E_TOOBIG);
	assert_false(has(f, "a", 1));
	free(large);
}

/* Lets the tier grow if it has lost entries: the memory comes from another thread, which may be slow. */
static void await_growth(struct fixture *f, uint64_t *evictions)
{
	struct hot_figures before, now;

	hot_figures(f->hot, &before);
	if (before.evictions == *evictions)
		return;
	*evictions = before.evictions;
	for (unsigned int i = 0; i < 5000; i++) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		hot_figures(f->hot, &now);
		if (now.growths > before.growths)
			return;
		usleep(1000);
	}
	fail_msg("entries are lost, and the tier does not grow");
}

static void tier_grows_when_wanted_entries_are_lost_and_keeps_them_all(void **state)
{
	struct fixture *f = *state;
	char value[1000], key[32], before[RSHM_NAME_MAX], after[RSHM_NAME_MAX];
	struct hot_figures figures;
	uint64_t size, evictions = 0;
	unsigned int missing = 0;

	memset(value, 'v', sizeof(value));
	open_tier(f, NULL);
	assert_true(hot_locate(f->hot, before, &size));
	for (unsigned int i = 0; i < 8000; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		assert_int_equal(put(f, key, value, sizeof(value), i + 1), RSHM_OK);
		await_growth(f, &evictions);
	}
	hot_figures(f->hot, &figures);
	assert_true(figures.growths >= 3);
	assert_true(hot_locate(f->hot, after, &size));
	assert_string_not_equal(before, after);
	for (unsigned int i = 0; i < 8000; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		missing += !has(f, key, i + 1);
	}
	/* What the small rings lost before they had grown is gone; what came later is not. */
	assert_true(missing < 800);
	assert_int_equal(figures.entries, 8000 - missing);
}

static void tier_does_not_grow_above_its_limit(void **state)
{
	struct fixture *f = *state;
	char value[1000], key[32];
	struct hot_figures figures;

	memset(value, 'v', sizeof(value));
	f->settings.limit_bytes = 3u << 20;
	open_tier(f, NULL);
	for (unsigned int i = 0; i < 8000; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		put(f, key, value, sizeof(value), i + 1);
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	hot_figures(f->hot, &figures);
	assert_true(figures.ring_bytes <= 2u << 20);
	assert_true(figures.evictions > 1000);
	assert_true(has(f, "key7999", 8000));
}

static void successor_adopts_what_was_kept(void **state)
{
	struct fixture *f = *state;
	char name[RSHM_NAME_MAX], again[RSHM_NAME_MAX];
	uint64_t size;
	struct hot_figures figures;

	open_tier(f, NULL);
	put(f, "a", "one", 3, 7);
	assert_true(hot_locate(f->hot, name, &size));
	close_tier(f, true);
	assert_int_equal(f->budget.used, 0);
	open_tier(f, name);
	assert_true(hot_locate(f->hot, again, &size));
	assert_string_equal(name, again);
	assert_true(has(f, "a", 7));
	hot_figures(f->hot, &figures);
	assert_true(figures.adopted);
}

static void segment_of_another_instance_is_retired_and_replaced(void **state)
{
	struct fixture *f = *state;
	char name[RSHM_NAME_MAX], again[RSHM_NAME_MAX];
	struct rshm_map reader;
	const struct rshm_segment *segment;
	uint64_t size;

	open_tier(f, NULL);
	put(f, "a", "one", 3, 7);
	assert_true(hot_locate(f->hot, name, &size));
	assert_int_equal(rshm_map_read(name, size, geteuid(), &reader), RSHM_OK);
	close_tier(f, true);
	f->environment.instance[0] ^= 1;
	open_tier(f, name);
	assert_true(hot_locate(f->hot, again, &size));
	assert_string_not_equal(name, again);
	assert_false(has(f, "a", 7));
	/* Who still reads the old one is told to let go. */
	segment = reader.base;
	assert_int_equal(segment->state, RSHM_RETIRED);
	rshm_unmap(&reader);
}

static void tier_without_memory_refuses_and_gets_some_later(void **state)
{
	struct fixture *f = *state;
	char name[RSHM_NAME_MAX];
	uint64_t size;

	f->budget.total = 1000;
	assert_int_equal(hot_open(&f->environment, &f->settings, &f->loop, NULL, &f->hot), RSHM_E_NOMEM);
	assert_non_null(f->hot);
	assert_false(hot_locate(f->hot, name, &size));
	assert_int_equal(put(f, "a", "one", 3, 1), RSHM_E_NOMEM);
	assert_false(has(f, "a", 1));
	assert_false(hot_remove(f->hot, "a", 1));
	assert_int_equal(f->budget.used, 0);
}

static void a_first_size_that_leaves_no_room_for_the_index_is_halved(void **state)
{
	struct fixture *f = *state;

	f->environment.initial_bytes = f->budget.total;
	open_tier(f, NULL);
	assert_int_equal(put(f, "a", "one", 3, 1), RSHM_OK);
	assert_true(has(f, "a", 1));
	assert_in_range(f->budget.used, f->budget.total / 4, f->budget.total);
	close_tier(f, false);
}

static void judge_follows_lease_epoch_and_expiry(void **state)
{
	struct fixture *f = *state;
	struct rshm_item item = {.control_a = rshm_control_a(0, 0, 1), .control_b = RSHM_NEVER};

	open_tier(f, NULL);
	assert_int_equal(hot_judge(f->hot, &item), RSHM_VERIFIED);
	f->sources[0].lease_until_ms = clock_monotonic_ms() - 1;
	assert_int_equal(hot_judge(f->hot, &item), RSHM_SERVE_STALE);
	f->sources[0].lease_until_ms = clock_monotonic_ms() - 70000;
	assert_int_equal(hot_judge(f->hot, &item), RSHM_UNVERIFIED);
	f->sources[0].lease_until_ms = RSHM_NEVER;
	item.control_b = clock_monotonic_ms();
	assert_int_equal(hot_judge(f->hot, &item), RSHM_EXPIRED);
}

/* ---- eviction ------------------------------------------------------------------------------------------------- */

#define HOT_KEYS 200u /* of some 950 entries that the ring holds */

/* As a client does: finds the hot keys in shared memory and tells the positions. */
static void read_hot_keys(struct fixture *f)
{
	char name[RSHM_NAME_MAX], key[32];
	struct rshm_reader reader;
	struct rshm_found found;
	struct rshm_map map;
	uint64_t size;

	assert_true(hot_locate(f->hot, name, &size));
	assert_int_equal(rshm_map_read(name, size, getuid(), &map), RSHM_OK);
	assert_int_equal(rshm_reader_init(map.base, map.size, &reader), RSHM_OK);
	for (unsigned int i = 0; i < HOT_KEYS; i++) {
		size_t len = (size_t)snprintf(key, sizeof(key), "hot%u", i);

		if (rshm_find(&reader, rshm_hash(reader.hash_seed, key, len), key, len, &found) == RSHM_FOUND)
			hot_touch(f->hot, found.entry.position);
	}
	rshm_unmap(&map);
}

static void churn(struct fixture *f, unsigned int puts, bool reads)
{
	static unsigned int number;
	static const char value[1000];
	char key[32];

	for (unsigned int i = 0; i < puts; i++) {
		if (reads && i % 100 == 0)
			read_hot_keys(f);
		snprintf(key, sizeof(key), "churn%u", number++);
		assert_int_equal(put(f, key, value, sizeof(value), number), RSHM_OK);
	}
}

static unsigned int count_hot_keys(struct fixture *f)
{
	unsigned int count = 0;
	char key[32];

	for (unsigned int i = 0; i < HOT_KEYS; i++) {
		snprintf(key, sizeof(key), "hot%u", i);
		count += has(f, key, 1);
	}
	return count;
}

static void open_full_tier(struct fixture *f, enum hot_policy eviction)
{
	static const char value[1000];
	char key[32];

	f->environment.reinsert_percent = 300;
	f->settings.limit_bytes = 1u << 20;
	f->settings.eviction = eviction;
	open_tier(f, NULL);
	for (unsigned int i = 0; i < HOT_KEYS; i++) {
		snprintf(key, sizeof(key), "hot%u", i);
		assert_int_equal(put(f, key, value, sizeof(value), 1), RSHM_OK);
	}
	churn(f, 8000, true);
	assert_int_equal(count_hot_keys(f), HOT_KEYS);
}

static void eviction_policy_is_the_tenants_and_changes_live(void **state)
{
	struct fixture *f = *state;

	open_full_tier(f, HOT_LRU);
	hot_set_policy(f->hot, HOT_S3FIFO);
	churn(f, 2000, true);
	/* A scan of two rings: s3fifo does not mind, lru loses everything. */
	churn(f, 2000, false);
	assert_int_equal(count_hot_keys(f), HOT_KEYS);
	hot_set_policy(f->hot, HOT_LRU);
	churn(f, 2000, false);
	assert_int_equal(count_hot_keys(f), 0);
}

static void successor_goes_on_with_what_the_policy_knew(void **state)
{
	struct fixture *f = *state;
	char name[RSHM_NAME_MAX];
	uint64_t size;

	open_full_tier(f, HOT_S3FIFO);
	assert_true(hot_locate(f->hot, name, &size));
	close_tier(f, true);
	open_tier(f, name);
	churn(f, 2000, false);
	assert_int_equal(count_hot_keys(f), HOT_KEYS);
}

struct told {
	uint64_t count, bytes;
};

static void count_dropped(void *context, const struct rshm_item *item, uint64_t position)
{
	struct told *told = context;

	assert_true(position > 0);
	told->count++;
	told->bytes += item->value_len;
}

static void what_makes_room_is_told_and_nothing_else(void **state)
{
	struct fixture *f = *state;
	struct told told = {0};
	struct hot_figures figures;
	char key[32];

	open_full_tier(f, HOT_S3FIFO);
	hot_figures(f->hot, &figures);
	hot_set_drop_hook(f->hot, count_dropped, &told);
	told.count = figures.evictions;
	told.bytes = figures.evictions * 1000;
	churn(f, 3000, false);
	hot_figures(f->hot, &figures);
	assert_int_equal(told.count, figures.evictions);
	assert_int_equal(told.bytes, figures.evictions * 1000);
	for (unsigned int i = 0; i < 10; i++) {
		snprintf(key, sizeof(key), "hot%u", i);
		assert_true(hot_remove(f->hot, key, strlen(key)));
	}
	hot_clear(f->hot);
	assert_int_equal(told.count, figures.evictions);
}

static void policy_serves_on_after_the_tier_has_grown(void **state)
{
	struct fixture *f = *state;
	struct told told = {0};
	struct hot_figures figures;
	uint64_t evictions = 0;

	f->settings.limit_bytes = 4u << 20;
	f->settings.eviction = HOT_LFU;
	open_tier(f, NULL);
	hot_set_drop_hook(f->hot, count_dropped, &told);
	for (unsigned int i = 0; i < 200; i++) {
		churn(f, 100, false);
		hot_figures(f->hot, &figures);
		if (figures.growths < 2)
			await_growth(f, &evictions);
		if (figures.growths == 1)
			hot_set_policy(f->hot, HOT_S3FIFO);
	}
	hot_figures(f->hot, &figures);
	assert_int_equal(figures.growths, 2);
	assert_true(told.count > 10000);
	assert_true(told.count <= figures.evictions);
}

static void object_list_survives_garbage_in_its_file(void **state)
{
	struct fixture *f = *state;
	struct object_list *list;
	struct object_entry *entries;
	char error[256];
	FILE *file = fopen(f->list_path, "w");

	fputs("segment default /riptide.hottest.0123\nsegment ../evil /riptide.x.1\nsegment default /etc/passwd\n"
	      "agent - /riptide.hottest.4567\nnonsense\n\n",
	      file);
	fclose(file);
	assert_int_equal(object_list_open(f->list_path, &list, error, sizeof(error)), RSHM_OK);
	assert_int_equal(object_list_copy(list, &entries), 2);
	assert_string_equal(entries[0].name, "/riptide.hottest.0123");
	assert_int_equal(entries[1].kind, OBJECT_AGENT);
	free(entries);
	object_list_close(&list);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(entry_put_is_found_and_removed),
		CASE(entry_above_the_limit_replaces_the_older_copy_by_nothing),
		CASE(tier_grows_when_wanted_entries_are_lost_and_keeps_them_all),
		CASE(tier_does_not_grow_above_its_limit),
		CASE(successor_adopts_what_was_kept),
		CASE(segment_of_another_instance_is_retired_and_replaced),
		CASE(tier_without_memory_refuses_and_gets_some_later),
		CASE(a_first_size_that_leaves_no_room_for_the_index_is_halved),
		CASE(judge_follows_lease_epoch_and_expiry),
		CASE(eviction_policy_is_the_tenants_and_changes_live),
		CASE(successor_goes_on_with_what_the_policy_knew),
		CASE(what_makes_room_is_told_and_nothing_else),
		CASE(policy_serves_on_after_the_tier_has_grown),
		CASE(object_list_survives_garbage_in_its_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
