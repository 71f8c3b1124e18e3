/*
 * ring_reclaim_test.c - what the writer grants its policy: copies within bounds, a gap no larger than needed, flags.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/index.h"
#include "shm/ring.h"

#define SEED 99u
#define RING_BYTES (8u << 20)
#define ENTRY_BYTES 512u
#define KEYS (RING_BYTES / ENTRY_BYTES * 2)

struct fixture {
	void *object;
	struct rshm_geometry geometry;
	struct rshm_writer writer;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct rshm_header header = {.generation = 1};

	if (!f)
		return -1;
	rshm_geometry_plan(RING_BYTES, 1u << 20, &f->geometry);
	f->object = calloc(1, f->geometry.object_size);
	if (!f->object)
		return -1;
	rshm_writer_format(f->object, &f->geometry, &header, "default", SEED, &f->writer);
	rshm_writer_publish(&f->writer, RSHM_POLICY_MISS, 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	free(f->object);
	free(f);
	return 0;
}

static const char zeros[200000];

static void put(struct fixture *f, const char *key, uint32_t value_len)
{
	struct rshm_item item = {
		.key = key,
		.key_len = (uint16_t)strlen(key),
		.value = zeros,
		.value_len = value_len,
		.version = 1,
		.control_a = rshm_control_a(0, 0, 1),
		.control_b = RSHM_NEVER,
	};

	assert_int_equal(rshm_writer_put(&f->writer, &item), RSHM_OK);
}

/* Entries of ENTRY_BYTES under the keys 0, 1, ...: twice what the ring holds. */
static void fill_ring(struct fixture *f)
{
	for (unsigned int i = 0; i < KEYS; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%08u", i);
		put(f, key, ENTRY_BYTES - (uint32_t)sizeof(struct rshm_entry) - 8);
	}
}

static bool keep_everything(void *context, struct rshm_item *item, uint64_t position)
{
	(void)context;
	(void)item;
	(void)position;
	return true;
}

static void put_copies_no_more_than_its_share(void **state)
{
	struct fixture *f = *state;
	uint64_t before;

	fill_ring(f);
	f->writer.keep = keep_everything;
	f->writer.reinsert_percent = 1000;
	f->writer.reinsert_credit = f->writer.units;
	for (unsigned int i = 0; i < 200; i++) {
		before = f->writer.reinsertions;
		put(f, "new", 8);
		assert_true((f->writer.reinsertions - before) * ENTRY_BYTES <= 256u << 10);
	}
	/* A large one needs room for itself. */
	f->writer.reinsert_credit = f->writer.units;
	before = f->writer.reinsertions;
	put(f, "new", 100000);
	assert_true((f->writer.reinsertions - before) * ENTRY_BYTES <= 17 * 100000);
	assert_true((f->writer.reinsertions - before) * ENTRY_BYTES >= 5 * 100000);
}

static void small_entries_fill_nearly_the_whole_ring(void **state)
{
	struct fixture *f = *state;

	fill_ring(f);
	/* The gap is a step and two entries, not two entry limits; up to a step more is free. */
	assert_true((f->writer.units - f->writer.live_units) * RSHM_UNIT <= 2 * (64u << 10) + 2 * ENTRY_BYTES);
}

static void successor_leaves_the_whole_gap_until_it_knows_the_entries(void **state)
{
	struct fixture *f = *state;
	struct rshm_writer adopted;

	fill_ring(f);
	assert_int_equal(rshm_writer_adopt(f->object, f->geometry.object_size, &adopted), RSHM_OK);
	f->writer = adopted;
	put(f, "new", 8);
	assert_true((f->writer.units - f->writer.live_units) * RSHM_UNIT >= 2 * (uint64_t)f->geometry.entry_limit);
	/* Two laps on, all entries are its own. */
	fill_ring(f);
	assert_true((f->writer.units - f->writer.live_units) * RSHM_UNIT <= 2 * (64u << 10) + 2 * ENTRY_BYTES);
}

static void large_entry_after_small_ones_drops_none_that_is_wanted(void **state)
{
	static bool wanted[KEYS];
	struct fixture *f = *state;
	uint64_t cursor = 0, position;
	uint32_t steps = UINT32_MAX, count = 0;
	struct rshm_item item;

	fill_ring(f);
	while (rshm_writer_walk(&f->writer, &cursor, &steps, &item, &position)) {
		char key[16] = "";

		memcpy(key, item.key, item.key_len);
		if (count++ % 3 == 0)
			wanted[atoi(key)] = rshm_writer_touch(&f->writer, position);
	}
	/* Without callbacks the writer keeps what is touched. Four of eight MiB are needed, a third of what goes is copied. */
	for (unsigned int i = 0; i < 20; i++) {
		char key[16];

		snprintf(key, sizeof(key), "large%u", i);
		put(f, key, sizeof(zeros));
	}
	assert_true(f->writer.reinsertions >= 3500);
	for (unsigned int i = 0; i < KEYS; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%08u", i);
		if (wanted[i])
			assert_true(rshm_writer_find(&f->writer, key, 8, &item, &position));
	}
}

struct entering {
	uint64_t asked, replaced, hash;
};

static uint32_t enter_main(void *context, uint64_t hash, const struct rshm_entry *replaced)
{
	struct entering *e = context;

	e->asked++;
	e->replaced += replaced && replaced->version == 1;
	e->hash = hash;
	return RSHM_FLAG_MAIN | RSHM_FLAG_TAGGED;
}

static void policy_gives_flags_of_its_own_to_what_a_put_brings(void **state)
{
	struct fixture *f = *state;
	struct entering e = {0};
	struct rshm_item item;
	uint64_t position;

	f->writer.enter = enter_main;
	f->writer.context = &e;
	put(f, "a", 1);
	assert_int_equal(e.asked, 1);
	assert_int_equal(e.replaced, 0);
	assert_true(e.hash == rshm_hash(SEED, "a", 1));
	assert_true(rshm_writer_find(&f->writer, "a", 1, &item, &position));
	assert_true(item.control_a == rshm_control_a(RSHM_FLAG_MAIN, 0, 1));
	put(f, "a", 1);
	assert_int_equal(e.asked, 2);
	assert_int_equal(e.replaced, 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(put_copies_no_more_than_its_share),
		CASE(small_entries_fill_nearly_the_whole_ring),
		CASE(successor_leaves_the_whole_gap_until_it_knows_the_entries),
		CASE(large_entry_after_small_ones_drops_none_that_is_wanted),
		CASE(policy_gives_flags_of_its_own_to_what_a_put_brings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
