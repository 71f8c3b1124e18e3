#include "tests/unit/agent/store/spill/fixture.h"

#include <dirent.h>
#include <sys/stat.h>

/* Bytes of all files in the folder. */
static uint64_t folder_bytes(const struct fixture *f)
{
	DIR *list = opendir(f->path);
	const struct dirent *file;
	uint64_t bytes = 0;

	assert_non_null(list);
	while ((file = readdir(list)) != NULL) {
		struct stat info;

		if (fstatat(dirfd(list), file->d_name, &info, 0) == 0 && S_ISREG(info.st_mode))
			bytes += (uint64_t)info.st_size;
	}
	closedir(list);
	return bytes;
}

static void small_tier(struct fixture *f)
{
	f->config.limits.bytes = 8 * MiB;
	f->config.segment_bytes = 1 << 20;
	fixture_open(f);
}

static void assert_bound_is_held(struct fixture *f)
{
	assert_true(figures(f).bytes_used <= figures(f).bytes_limit);
	assert_true(folder_bytes(f) <= figures(f).bytes_limit);
}

static uint64_t wait_until_below(struct fixture *f, uint64_t bytes)
{
	for (int i = 0; i < 1500 && figures(f).bytes_used > bytes; i++) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		usleep(10000);
	}
	return figures(f).bytes_used;
}

static void bound_is_held_and_the_oldest_goes_first(void **state)
{
	struct fixture *f = *state;
	struct spill_figures now;

	small_tier(f);
	for (uint64_t key = 0; key < 4000; key++) {
		put_surely(f, key, 1, 10000);
		if (key % 10 == 0)
			assert_bound_is_held(f);
	}
	settle(f);
	assert_bound_is_held(f);
	now = figures(f);
	print_message("40 MB through 8 MiB: %d entries, %d evicted, %d bytes\n", (int)now.entries, (int)now.evicted,
		      (int)now.bytes_used);
	assert_true(now.entries * 10000 > 4 * MiB);
	assert_int_equal(now.entries + now.evicted, 4000);
	assert_int_equal(now.refused, 0);
	for (uint64_t key = 0; key < 4000; key += 13)
		assert_int_equal(get(f, key), key >= 4000 - now.entries ? 1 : 0);
	fixture_close(f);
}

static void what_is_read_survives_the_eviction_of_its_segment(void **state)
{
	struct fixture *f = *state;
	uint64_t hits = 0;

	small_tier(f);
	for (uint64_t key = 0; key < 4000; key++) {
		put_surely(f, key, 1, 10000);
		if (key % 200 == 199) {
			settle(f);
			for (uint64_t hot = 0; hot < 20; hot++)
				hits += get(f, hot * 3);
		}
	}
	assert_int_equal(hits, 20 * 20);
	assert_true(figures(f).copied >= 20);
	/* The others of their time are gone. */
	assert_int_equal(get(f, 1), 0);
	assert_bound_is_held(f);
	/* Hot ones do not crowd out everything: a quarter of a segment is copied at most. */
	for (uint64_t key = 5000; key < 9000; key++) {
		put_surely(f, key, 1, 10000);
		settle(f);
		assert_int_equal(get(f, key), 1);
	}
	assert_true(figures(f).evicted > 4000);
	assert_bound_is_held(f);
	fixture_close(f);
}

static void mostly_dead_segments_go_before_older_ones(void **state)
{
	struct fixture *f = *state;

	small_tier(f);
	/* Five segments of a hundred. */
	for (uint64_t key = 0; key < 500; key++)
		put_surely(f, key, 1, 10000);
	settle(f);
	assert_int_equal(figures(f).evicted, 0);
	for (uint64_t key = 210; key < 400; key++)
		if (key % 10 != 0)
			removed(f, key);
	for (uint64_t key = 500; key < 760; key++)
		put_surely(f, key, 1, 10000);
	settle(f);
	assert_int_equal(figures(f).evicted, 0);
	assert_true(figures(f).copied > 0);
	for (uint64_t key = 0; key < 760; key++)
		assert_int_equal(get(f, key), key >= 210 && key < 400 && key % 10 != 0 ? 0 : 1);
	assert_bound_is_held(f);
	fixture_close(f);
}

static void empty_segments_give_their_room_back_at_once(void **state)
{
	struct fixture *f = *state;

	small_tier(f);
	for (uint64_t key = 0; key < 450; key++)
		put_surely(f, key, 1, 10000);
	settle(f);
	assert_true(figures(f).bytes_used > 4 * MiB);
	for (uint64_t key = 0; key < 450; key++)
		removed(f, key);
	settle(f);
	assert_int_equal(figures(f).entries, 0);
	/* The one that is written to stays. */
	assert_true(figures(f).bytes_used < 2 * MiB);
	assert_true(folder_bytes(f) < 2 * MiB);
	fixture_close(f);
}

static void segments_in_which_all_is_over_go_by_themselves(void **state)
{
	struct fixture *f = *state;
	unsigned char *bytes = value_make(10000, 1, 1);
	struct store_name name;
	uint64_t expiry_ms;

	small_tier(f);
	expiry_ms = clock_realtime_ms() + 3000;
	for (uint64_t key = 0; key < 300; key++) {
		name = name_of(&key, sizeof key);
		assert_int_equal(spill_put(f->spill, &name, bytes, 10000 - key, 1, expiry_ms + key, 1, 1), RSHM_OK);
	}
	settle(f);
	/* All of them, unless the machine took longer to write them than they lived. */
	assert_in_range(figures(f).total_spilled, 100, 300);
	assert_true(wait_until_below(f, MiB) < MiB);
	assert_int_equal(figures(f).expired, figures(f).total_spilled);
	assert_int_equal(figures(f).entries, 0);
	free(bytes);
	fixture_close(f);
}

static void many_small_entries_have_an_index_of_sane_size(void **state)
{
	struct fixture *f = *state;
	const uint64_t count = 100000;
	uint64_t start_ms = clock_monotonic_ms(), put_ms, index_bytes;
	struct stat info;
	char path[128];

	f->config.keep = true;
	fixture_open(f);
	for (uint64_t key = 0; key < count; key++)
		put_surely(f, key, 1, 100);
	settle(f);
	put_ms = clock_monotonic_ms() - start_ms;
	assert_int_equal(figures(f).entries, count);
	snprintf(path, sizeof path, "%s/data.mdb", f->path);
	assert_int_equal(stat(path, &info), 0);
	index_bytes = (uint64_t)info.st_size;
	start_ms = clock_monotonic_ms();
	for (uint64_t key = 0; key < count; key += 2)
		assert_int_equal(get(f, key), 1);
	print_message("%d entries of 100 B in %d ms, %d gets in %d ms, one at a time; index %d KiB\n", (int)count,
		      (int)put_ms, (int)count / 2, (int)(clock_monotonic_ms() - start_ms), (int)(index_bytes >> 10));
	assert_true(index_bytes < count * 400);
	start_ms = clock_monotonic_ms();
	fixture_close(f);
	fixture_open(f);
	print_message("closed and opened in %d ms\n", (int)(clock_monotonic_ms() - start_ms));
	assert_int_equal(figures(f).entries, count);
	for (uint64_t key = 0; key < count; key += 7)
		assert_int_equal(get(f, key), 1);
	spill_remove_generations(f->spill, 1, 1);
	settle(f);
	assert_int_equal(figures(f).entries, 0);
	fixture_close(f);
}

static void index_that_grew_leaves_room_for_large_entries(void **state)
{
	struct fixture *f = *state;
	uint64_t present = 0;

	small_tier(f);
	for (uint64_t key = 0; key < 60000; key++) {
		put_surely(f, key, 1, 10);
		if (key % 100 == 0)
			assert_bound_is_held(f);
	}
	settle(f);
	print_message("60000 entries of 10 B through 8 MiB: %d left\n", (int)figures(f).entries);
	assert_true(figures(f).entries > 5000);
	assert_int_equal(get(f, 59999), 1);
	for (uint64_t key = 100000; key < 101000; key++)
		put_surely(f, key, 1, 20000);
	settle(f);
	for (uint64_t key = 100000; key < 101000; key++)
		present += get(f, key);
	print_message("then 20 MB of 20 kB: %d of 1000 left\n", (int)present);
	assert_true(present * 20000 > 5 * MiB);
	assert_int_equal(get(f, 100999), 1);
	assert_bound_is_held(f);
	fixture_close(f);
}

static void lower_limit_evicts_and_a_higher_one_makes_room(void **state)
{
	struct fixture *f = *state;
	struct spill_limits limits;

	f->config.limits.bytes = 64 * MiB;
	f->config.segment_bytes = 1 << 20;
	fixture_open(f);
	for (uint64_t key = 0; key < 4000; key++)
		put_surely(f, key, 1, 10000);
	settle(f);
	assert_int_equal(figures(f).entries, 4000);
	limits = f->config.limits;
	limits.bytes = 8 * MiB;
	assert_int_equal(spill_reload(f->spill, &limits), RSHM_OK);
	assert_true(wait_until_below(f, 8 * MiB) <= 8 * MiB);
	assert_bound_is_held(f);
	assert_int_equal(get(f, 3999), 1);
	assert_int_equal(get(f, 1), 0);
	limits.bytes = 32 * MiB;
	assert_int_equal(spill_reload(f->spill, &limits), RSHM_OK);
	for (uint64_t key = 10000; key < 12000; key++)
		put_surely(f, key, 1, 10000);
	settle(f);
	for (uint64_t key = 10000; key < 12000; key += 11)
		assert_int_equal(get(f, key), 1);
	fixture_close(f);
}

/* An entry of a quarter of the limit is the largest there is, and it finds room. */
static void largest_entries_find_room(void **state)
{
	struct fixture *f = *state;

	small_tier(f);
	for (uint64_t key = 0; key < 600; key++)
		put_surely(f, key, 1, 10000);
	for (uint64_t key = 1000; key < 1020; key++) {
		put_surely(f, key, 1, 2 * MiB - 100);
		settle(f);
		assert_int_equal(get(f, key), 1);
		assert_bound_is_held(f);
	}
	assert_int_equal(figures(f).refused, 0);
	fixture_close(f);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(bound_is_held_and_the_oldest_goes_first),
		T(what_is_read_survives_the_eviction_of_its_segment),
		T(mostly_dead_segments_go_before_older_ones),
		T(empty_segments_give_their_room_back_at_once),
		T(segments_in_which_all_is_over_go_by_themselves),
		T(many_small_entries_have_an_index_of_sane_size),
		T(index_that_grew_leaves_room_for_large_entries),
		T(lower_limit_evicts_and_a_higher_one_makes_room),
		T(largest_entries_find_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
