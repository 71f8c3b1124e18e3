/* ring_test.c - the hot ring: reading, writing, reclaiming, adopting. Kills and races are the torture test's. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/index.h"
#include "shm/order.h"
#include "shm/ring.h"

#define SEED 4711u

struct fixture {
	void *object;
	struct rshm_geometry geometry;
	struct rshm_writer writer;
	struct rshm_reader reader;
};

static void open_ring(struct fixture *f, uint64_t ring_bytes, uint32_t limit)
{
	struct rshm_header header = {.generation = 1};

	rshm_geometry_plan(ring_bytes, limit, &f->geometry);
	f->object = aligned_alloc(RSHM_PAGE, f->geometry.object_size);
	assert_non_null(f->object);
	memset(f->object, 0, f->geometry.object_size);
	rshm_writer_format(f->object, &f->geometry, &header, "default", SEED, &f->writer);
	rshm_writer_publish(&f->writer, RSHM_POLICY_STALE, 60000);
	assert_int_equal(rshm_reader_init(f->object, f->geometry.object_size, &f->reader), RSHM_OK);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	open_ring(f, 256u << 10, 1u << 20);
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

static int put(struct fixture *f, const char *key, const void *value, size_t length, uint64_t version)
{
	struct rshm_item item = {
		.key = key,
		.key_len = (uint16_t)strlen(key),
		.metadata = "meta",
		.metadata_len = 4,
		.value = value,
		.value_len = (uint32_t)length,
		.version = version,
		.control_a = rshm_control_a(0, 3, 7),
		.control_b = RSHM_NEVER,
	};

	return rshm_writer_put(&f->writer, &item);
}

static enum rshm_outcome get(struct fixture *f, const char *key, void *value, size_t cap, struct rshm_found *found)
{
	return rshm_read(&f->reader, rshm_hash(SEED, key, strlen(key)), key, strlen(key), value, cap, NULL, 0, found);
}

/* ---- geometry and headers ----------------------------------------------------------------------------------- */

static void geometry_is_a_power_of_two_within_its_bounds(void **state)
{
	struct rshm_geometry g;

	(void)state;
	rshm_geometry_plan(1, 1u << 20, &g);
	assert_int_equal(g.ring_bytes, RSHM_RING_MIN);
	rshm_geometry_plan((1u << 20) + 1, 1u << 20, &g);
	assert_int_equal(g.ring_bytes, 2u << 20);
	assert_int_equal(g.entry_limit, (2u << 20) / 32);
	assert_int_equal(g.object_size, g.ring_offset + g.ring_bytes);
	rshm_geometry_plan(1ull << 30, 1u << 20, &g);
	assert_int_equal(g.entry_limit, 1u << 20);
}

static void reader_refuses_a_header_that_lies(void **state)
{
	struct fixture *f = *state;
	struct rshm_segment *s = f->object, sound = *s;
	struct rshm_reader reader;
	uint64_t size = f->geometry.object_size;

#define REFUSES(change, code)                                               \
	do {                                                                \
		change;                                                     \
		assert_int_equal(rshm_reader_init(s, size, &reader), code); \
		*s = sound;                                                 \
	} while (0)
	REFUSES(s->header.magic ^= 1, RSHM_E_CORRUPT);
	REFUSES(s->header.layout_major++, RSHM_E_UNSUPPORTED);
	REFUSES(s->header.object_size++, RSHM_E_CORRUPT);
	REFUSES(s->state = RSHM_INIT, RSHM_E_CLOSED);
	REFUSES(s->state = RSHM_RETIRED, RSHM_E_CLOSED);
	REFUSES(s->ring_bytes *= 2, RSHM_E_CORRUPT);
	REFUSES(s->ring_bytes += 16, RSHM_E_CORRUPT);
	REFUSES(s->ring_bytes = 0, RSHM_E_CORRUPT);
	REFUSES(s->ring_offset = UINT64_MAX - 4095, RSHM_E_CORRUPT);
	REFUSES(s->ring_offset += 1, RSHM_E_CORRUPT);
	REFUSES(s->index_offset = UINT64_MAX - 63, RSHM_E_CORRUPT);
	REFUSES(s->index_offset += 1, RSHM_E_CORRUPT);
	REFUSES(s->bucket_count = 1, RSHM_E_CORRUPT);
	REFUSES(s->bucket_count = UINT32_MAX, RSHM_E_CORRUPT);
	REFUSES(s->entry_limit = UINT32_MAX, RSHM_E_CORRUPT);
	REFUSES(s->entry_limit = 1, RSHM_E_CORRUPT);
	assert_int_equal(rshm_reader_init(s, size - 4096, &reader), RSHM_E_CORRUPT);
	assert_int_equal(rshm_reader_init(s, 100, &reader), RSHM_E_CORRUPT);
	assert_int_equal(rshm_reader_init(s, size, &reader), RSHM_OK);
}

/* ---- entries ------------------------------------------------------------------------------------------------ */

static void entry_comes_back_with_all_it_had(void **state)
{
	struct fixture *f = *state;
	struct rshm_found found;
	char value[16], metadata[8];

	assert_int_equal(put(f, "key", "hello", 5, 42), RSHM_OK);
	assert_int_equal(rshm_read(&f->reader, rshm_hash(SEED, "key", 3), "key", 3, value, sizeof(value), metadata,
				   sizeof(metadata), &found),
			 RSHM_FOUND);
	assert_memory_equal(value, "hello", 5);
	assert_memory_equal(metadata, "meta", 4);
	assert_int_equal(found.entry.value_len, 5);
	assert_int_equal(found.entry.version, 42);
	assert_int_equal(rshm_control_source(found.entry.control_a), 3);
	assert_int_equal(rshm_control_epoch(found.entry.control_a), 7);
	assert_true(rshm_still_valid(&f->reader, &found));
	assert_int_equal(get(f, "kez", value, sizeof(value), &found), RSHM_NOT_FOUND);
}

static void buffer_too_small_tells_the_length_and_copies_nothing(void **state)
{
	struct fixture *f = *state;
	struct rshm_found found;
	char value[4] = "abc";

	put(f, "key", "hello", 5, 1);
	assert_int_equal(get(f, "key", value, 3, &found), RSHM_FOUND);
	assert_int_equal(found.entry.value_len, 5);
	assert_string_equal(value, "abc");
}

static void newer_value_takes_the_place_of_the_older(void **state)
{
	struct fixture *f = *state;
	struct rshm_found found;
	char value[8];

	put(f, "key", "one", 3, 1);
	put(f, "key", "two", 3, 2);
	assert_int_equal(get(f, "key", value, sizeof(value), &found), RSHM_FOUND);
	assert_int_equal(found.entry.version, 2);
	assert_int_equal(f->writer.live_entries, 1);
	assert_true(rshm_writer_remove(&f->writer, "key", 3));
	assert_int_equal(get(f, "key", value, sizeof(value), &found), RSHM_NOT_FOUND);
	assert_false(rshm_writer_remove(&f->writer, "key", 3));
	assert_int_equal(f->writer.live_entries, 0);
	assert_int_equal(f->writer.live_units, 0);
}

static void ring_refuses_entry_larger_than_its_limit(void **state)
{
	struct fixture *f = *state;
	char *large = calloc(1, f->geometry.entry_limit);

	assert_int_equal(put(f, "key", large, f->geometry.entry_limit, 1), RSHM_E_TOOBIG);
	assert_int_equal(put(f, "key", large, f->geometry.entry_limit - 64, 1), RSHM_OK);
	assert_int_equal(put(f, "", large, 1, 1), RSHM_E_TOOBIG);
	free(large);
}

static void found_value_is_always_the_newest_over_many_laps(void **state)
{
	enum { KEYS = 300, ROUNDS = 100000 };
	struct fixture *f = *state;
	static uint64_t newest[KEYS];
	static char value[3000], copy[3000];
	uint64_t hits = 0;

	memset(newest, 0, sizeof(newest));
	srand(1);
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		struct rshm_found found;
		unsigned int k = (unsigned int)rand() % KEYS, probe = (unsigned int)rand() % KEYS;
		size_t length = (size_t)rand() % sizeof(value);
		char key[64];

		snprintf(key, sizeof(key), "key-%0*u", (int)(k % 40) + 4, k);
		memset(value, (int)(round & 0xff), length);
		assert_int_equal(put(f, key, value, length, round), RSHM_OK);
		newest[k] = round;
		snprintf(key, sizeof(key), "key-%0*u", (int)(probe % 40) + 4, probe);
		if (get(f, key, copy, sizeof(copy), &found) != RSHM_FOUND)
			continue;
		hits++;
		assert_int_equal(found.entry.version, newest[probe]);
		for (uint32_t i = 0; i < found.entry.value_len; i++)
			assert_int_equal((unsigned char)copy[i], newest[probe] & 0xff);
	}
	assert_true(f->writer.head / f->writer.units > 500); /* laps */
	assert_true(hits > ROUNDS / 10);
}

static void memory_per_entry_stays_below_64_bytes(void **state)
{
	struct fixture *f = *state;
	char key[17], value[64] = {0};
	double ring, index;

	free(f->object);
	open_ring(f, 4u << 20, 1u << 20);
	for (unsigned int i = 0; i < 20000; i++) {
		snprintf(key, sizeof(key), "key%013u", i);
		put(f, key, value, sizeof(value), i + 1);
	}
	assert_int_equal(f->writer.live_entries, 20000);
	ring = (double)rshm_writer_live_bytes(&f->writer) / 20000 - 16 - 64 - 4;
	index = (double)rshm_writer_live_bytes(&f->writer) / 20000 / RSHM_BYTES_PER_WORD * 8;
	print_message("beyond key, metadata and value: %.1f bytes of ring, %.1f of index\n", ring, index);
	assert_true(ring + index <= 64);
}

/* ---- eviction ----------------------------------------------------------------------------------------------- */

static void touched_entries_outlive_untouched_ones(void **state)
{
	struct fixture *f = *state;
	static char value[1000];
	struct rshm_found found;
	char key[32], copy[1000];
	unsigned int kept = 0, cold = 0;

	for (unsigned int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		put(f, key, value, sizeof(value), i + 1);
	}
	for (unsigned int round = 0; round < 2000; round++) {
		for (unsigned int i = 0; i < 20; i++) {
			struct rshm_item item;
			uint64_t position;

			snprintf(key, sizeof(key), "key%u", i);
			if (rshm_writer_find(&f->writer, key, strlen(key), &item, &position))
				rshm_writer_touch(&f->writer, position);
		}
		snprintf(key, sizeof(key), "other%u", round);
		put(f, key, value, sizeof(value), 1000 + round);
	}
	for (unsigned int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		if (get(f, key, copy, sizeof(copy), &found) == RSHM_FOUND)
			i < 20 ? kept++ : cold++;
	}
	assert_int_equal(kept, 20);
	assert_int_equal(cold, 0);
	assert_true(f->writer.reinsertions > 100);
}

static void reinsertion_never_exceeds_what_appends_earned(void **state)
{
	struct fixture *f = *state;
	static char value[1000];
	char key[32];

	f->writer.reinsert_percent = 0;
	for (unsigned int i = 0; i < 2000; i++) {
		struct rshm_item item;
		uint64_t position;

		snprintf(key, sizeof(key), "key%u", i);
		put(f, key, value, sizeof(value), i + 1);
		if (rshm_writer_find(&f->writer, key, strlen(key), &item, &position))
			rshm_writer_touch(&f->writer, position);
	}
	assert_int_equal(f->writer.reinsertions, 0);
	assert_true(f->writer.evictions > 1000);
}

struct watch {
	struct fixture *f;
	uint32_t stop;
	uint64_t reads, misses;
};

static void *watch_key(void *context)
{
	struct watch *w = context;
	char copy[64];
	struct rshm_found found;

	while (!rshm_load_relaxed32(&w->stop)) {
		enum rshm_outcome outcome = get(w->f, "hot", copy, sizeof(copy), &found);

		w->reads++;
		if (outcome != RSHM_FOUND && outcome != RSHM_LAPPED)
			w->misses++;
	}
	return NULL;
}

static void touched_key_never_vanishes_for_a_reader_while_the_ring_churns(void **state)
{
	struct fixture *f = *state;
	struct watch w = {.f = f};
	static char value[500];
	pthread_t thread;
	char key[32];

	put(f, "hot", "v", 1, 1);
	assert_int_equal(pthread_create(&thread, NULL, watch_key, &w), 0);
	for (unsigned int i = 0; i < 60000; i++) {
		struct rshm_item item;
		uint64_t position;

		if (i % 50 == 0 && rshm_writer_find(&f->writer, "hot", 3, &item, &position))
			rshm_writer_touch(&f->writer, position);
		snprintf(key, sizeof(key), "key%u", i % 5000);
		put(f, key, value, sizeof(value), i + 2);
	}
	rshm_store_relaxed32(&w.stop, 1);
	pthread_join(thread, NULL);
	assert_true(w.reads > 100);
	assert_int_equal(w.misses, 0);
}

static void full_lines_displace_and_keep_counting_right(void **state)
{
	struct fixture *f = *state;
	char key[32];
	uint64_t entries = 0, cursor = 0, position;
	uint32_t steps = UINT32_MAX;
	struct rshm_item item;

	/* Entries of 64 bytes want more words than the index has: one per 96 bytes of ring. */
	for (unsigned int i = 0; i < 20000; i++) {
		snprintf(key, sizeof(key), "%u", i);
		put(f, key, "x", 1, i + 1);
	}
	assert_true(f->writer.displaced > 0);
	while (rshm_writer_walk(&f->writer, &cursor, &steps, &item, &position))
		entries++;
	assert_int_equal(entries, f->writer.live_entries);
}

/* ---- control words, clear, retire ----------------------------------------------------------------------------- */

static void patch_changes_the_entry_of_that_version_only(void **state)
{
	struct fixture *f = *state;
	struct rshm_item item;
	struct rshm_found found;
	uint64_t position;
	char copy[8];

	put(f, "key", "v", 1, 9);
	assert_true(rshm_writer_find(&f->writer, "key", 3, &item, &position));
	assert_false(rshm_writer_patch(&f->writer, position, 8, 1, 1));
	assert_true(rshm_writer_patch(&f->writer, position, 9, rshm_control_a(0, 1, 2), 777));
	assert_int_equal(get(f, "key", copy, sizeof(copy), &found), RSHM_FOUND);
	assert_int_equal(found.entry.control_b, 777);
	assert_int_equal(rshm_control_epoch(found.entry.control_a), 2);
	put(f, "key", "w", 1, 10);
	assert_false(rshm_writer_patch(&f->writer, position, 0, 1, 1)); /* no word names it any more */
}

static void touch_of_any_number_harms_nothing(void **state)
{
	struct fixture *f = *state;
	struct rshm_found found;
	uint64_t x = 88172645463325252u;
	char copy[8];

	put(f, "key", "v", 1, 9);
	for (unsigned int i = 0; i < 1000000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		(void)rshm_writer_touch(&f->writer, i % 2 ? x : f->writer.tail + x % (2 * f->writer.units));
	}
	assert_int_equal(get(f, "key", copy, sizeof(copy), &found), RSHM_FOUND);
	assert_memory_equal(copy, "v", 1);
}

static void clear_empties_and_retire_sends_readers_away(void **state)
{
	struct fixture *f = *state;
	struct rshm_found before, found;
	char copy[8];

	put(f, "key", "v", 1, 9);
	assert_int_equal(get(f, "key", copy, sizeof(copy), &before), RSHM_FOUND);
	rshm_writer_clear(&f->writer);
	assert_int_equal(get(f, "key", copy, sizeof(copy), &found), RSHM_NOT_FOUND);
	assert_false(rshm_still_valid(&f->reader, &before));
	put(f, "key", "w", 1, 10);
	assert_int_equal(get(f, "key", copy, sizeof(copy), &found), RSHM_FOUND);
	rshm_writer_retire(&f->writer);
	assert_int_equal(get(f, "key", copy, sizeof(copy), &found), RSHM_LET_GO);
}

/* ---- adoption ----------------------------------------------------------------------------------------------- */

static void successor_finds_every_entry_and_goes_on(void **state)
{
	struct fixture *f = *state;
	struct rshm_writer next;
	struct rshm_found found;
	static char value[500];
	char key[32], copy[500];

	for (unsigned int i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		put(f, key, value, sizeof(value), i + 1);
	}
	assert_int_equal(rshm_writer_adopt(f->object, f->geometry.object_size, &next), RSHM_OK);
	assert_int_equal(next.live_entries, f->writer.live_entries);
	assert_int_equal(next.live_units, f->writer.live_units);
	assert_int_equal(next.head, f->writer.head);
	f->writer = next;
	for (unsigned int i = 3000; i < 9000; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		put(f, key, value, sizeof(value), i + 1);
		assert_int_equal(get(f, key, copy, sizeof(copy), &found), RSHM_FOUND);
	}
}

static void corrupt_index_words_are_zeroed_at_adoption(void **state)
{
	struct fixture *f = *state;
	uint64_t *index = (uint64_t *)((unsigned char *)f->object + f->geometry.index_offset);
	size_t words = (size_t)f->geometry.bucket_count * RSHM_BUCKET_WORDS;
	struct rshm_found found;
	static char value[300];
	char key[32], copy[300];

	for (unsigned int i = 0; i < 500; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		put(f, key, value, sizeof(value), i + 1);
	}
	srand(7);
	for (size_t i = 0; i < words; i += 1 + (size_t)rand() % 3)
		index[i] = (uint64_t)rand() << 40 ^ (uint64_t)rand() << 20 ^ (uint64_t)rand();
	assert_int_equal(rshm_writer_adopt(f->object, f->geometry.object_size, &f->writer), RSHM_OK);
	for (unsigned int i = 0; i < 500; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		if (get(f, key, copy, sizeof(copy), &found) == RSHM_FOUND)
			assert_int_equal(found.entry.version, i + 1);
		put(f, key, value, sizeof(value), 1000 + i);
		assert_int_equal(get(f, key, copy, sizeof(copy), &found), RSHM_FOUND);
		assert_int_equal(found.entry.version, 1000 + i);
	}
}

static void impossible_head_and_tail_are_refused(void **state)
{
	struct fixture *f = *state;
	struct rshm_segment *s = f->object;
	struct rshm_writer next;
	uint64_t head = s->head, tail = s->tail;

	s->head = tail - 1;
	assert_int_equal(rshm_writer_adopt(s, f->geometry.object_size, &next), RSHM_E_CORRUPT);
	s->head = tail + f->writer.units + 1;
	assert_int_equal(rshm_writer_adopt(s, f->geometry.object_size, &next), RSHM_E_CORRUPT);
	s->head = head;
	s->tail = 3;
	assert_int_equal(rshm_writer_adopt(s, f->geometry.object_size, &next), RSHM_E_CORRUPT);
	s->tail = tail;
	s->state = RSHM_RETIRED;
	assert_int_equal(rshm_writer_adopt(s, f->geometry.object_size, &next), RSHM_E_CLOSED);
}

/* A value made of headers that claim the positions they lie at, with a key that somebody may ask for. */
static void forged_headers_inside_values_mislead_nobody(void **state)
{
	struct fixture *f = *state;
	static unsigned char value[4096];
	struct rshm_found found;
	char key[32], copy[4096];

	for (unsigned int round = 0; round < 2000; round++) {
		uint64_t start = f->writer.head;

		for (size_t at = 0; at + 64 <= sizeof(value); at += 16) {
			struct rshm_entry forged = {
				.position = start + (48 + at) / 16,
				.control_b = RSHM_NEVER,
				.version = 666,
				.value_len = 8,
				.key_len = 6,
			};

			if (at % 64 == 0) {
				memcpy(value + at, &forged, sizeof(forged));
				memcpy(value + at + sizeof(forged), "victimBAD", 9);
			}
		}
		snprintf(key, sizeof(key), "k%u", round % 40);
		put(f, key, value, sizeof(value), round + 1);
		if (round % 10 == 0)
			put(f, "victim", "good", 4, round + 1);
		if (get(f, "victim", copy, sizeof(copy), &found) == RSHM_FOUND) {
			assert_int_not_equal(found.entry.version, 666);
			assert_memory_equal(copy, "good", 4);
		}
		if (round % 100 == 0)
			assert_int_equal(rshm_writer_adopt(f->object, f->geometry.object_size, &f->writer), RSHM_OK);
	}
}

static void word_rebuilds_positions_across_its_48_bits(void **state)
{
	uint64_t tail = (1ull << 48) - 10;

	(void)state;
	assert_int_equal(rshm_word_position(rshm_word(0, tail + 3), tail), tail + 3);
	assert_int_equal(rshm_word_position(rshm_word(0, tail + 20), tail), tail + 20);
	assert_true(rshm_word_position(rshm_word(0, tail - 1), tail) > tail + (1ull << 40));
	for (uint32_t buckets = 2; buckets < 50; buckets++) {
		for (uint64_t h = 0; h < 200; h++) {
			struct rshm_candidates c = rshm_candidates(h * 0x9e3779b97f4a7c15u, buckets);

			assert_true(c.first < buckets && c.second < buckets && c.first != c.second);
		}
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(geometry_is_a_power_of_two_within_its_bounds),
		CASE(reader_refuses_a_header_that_lies),
		CASE(entry_comes_back_with_all_it_had),
		CASE(buffer_too_small_tells_the_length_and_copies_nothing),
		CASE(newer_value_takes_the_place_of_the_older),
		CASE(ring_refuses_entry_larger_than_its_limit),
		CASE(found_value_is_always_the_newest_over_many_laps),
		CASE(memory_per_entry_stays_below_64_bytes),
		CASE(touched_entries_outlive_untouched_ones),
		CASE(reinsertion_never_exceeds_what_appends_earned),
		CASE(touched_key_never_vanishes_for_a_reader_while_the_ring_churns),
		CASE(full_lines_displace_and_keep_counting_right),
		CASE(patch_changes_the_entry_of_that_version_only),
		CASE(touch_of_any_number_harms_nothing),
		CASE(clear_empties_and_retire_sends_readers_away),
		CASE(successor_finds_every_entry_and_goes_on),
		CASE(corrupt_index_words_are_zeroed_at_adoption),
		CASE(impossible_head_and_tail_are_refused),
		CASE(forged_headers_inside_values_mislead_nobody),
		CASE(word_rebuilds_positions_across_its_48_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
