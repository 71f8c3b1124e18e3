#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/tags.h"

/* Tag pairs in front of a hot copy's metadata, against the words of the segment. */

#define WORDS RSHM_TAG_WORDS

static uint32_t words[WORDS];

/* Writes a head that says `count`, and as many pairs as `pairs` has. Returns the bytes. */
static size_t write_pairs(unsigned char *to, uint32_t count, const struct rshm_tag_pair *pairs, size_t present)
{
	struct rshm_tag_head head = {.count = count};

	memcpy(to, &head, sizeof(head));
	memcpy(to + sizeof(head), pairs, present * sizeof(*pairs));
	return sizeof(head) + present * sizeof(*pairs);
}

static int setup(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < WORDS; i++)
		words[i] = i * 7;
	return 0;
}

static void pairs_that_agree_hold_and_are_skipped(void **state)
{
	const struct rshm_tag_pair pairs[2] = {{3, 21}, {WORDS - 1, (WORDS - 1) * 7}};
	unsigned char bytes[64] = {0};
	size_t length = write_pairs(bytes + 1, 2, pairs, 2);
	uint32_t skip = 0;

	(void)state;
	/* At an odd address, with metadata of the caller's behind. */
	assert_true(rshm_tags_hold(words, bytes + 1, length + 5, &skip));
	assert_int_equal(skip, 24);
	assert_true(rshm_tags_hold(words, bytes + 1, length, &skip));
}

static void one_changed_word_is_enough(void **state)
{
	const struct rshm_tag_pair pairs[2] = {{3, 21}, {9, 63}};
	unsigned char bytes[64];
	size_t length = write_pairs(bytes, 2, pairs, 2);
	uint32_t skip = 77;

	(void)state;
	words[9]++;
	assert_false(rshm_tags_hold(words, bytes, length, &skip));
	assert_int_equal(skip, 77);
	words[9]--;
	words[10]++;
	assert_true(rshm_tags_hold(words, bytes, length, &skip));
}

static void a_slot_beyond_the_words_is_not_looked_up(void **state)
{
	struct rshm_tag_pair pair = {WORDS, 0};
	unsigned char bytes[64];
	uint32_t skip;

	(void)state;
	assert_false(rshm_tags_hold(words, bytes, write_pairs(bytes, 1, &pair, 1), &skip));
	pair.slot = UINT32_MAX;
	assert_false(rshm_tags_hold(words, bytes, write_pairs(bytes, 1, &pair, 1), &skip));
}

static void a_count_that_lies_is_refused(void **state)
{
	const struct rshm_tag_pair pairs[RSHM_TAGS_HOT_MAX + 1] = {{0, 0}};
	unsigned char *bytes;
	uint32_t skip;

	(void)state;
	for (size_t length = 0; length < sizeof(struct rshm_tag_head) + 2 * sizeof(pairs[0]); length++) {
		unsigned char whole[64];

		write_pairs(whole, 2, pairs, 2);
		/* Memory that ends where the metadata does. */
		bytes = malloc(length ? length : 1);
		memcpy(bytes, whole, length);
		assert_false(rshm_tags_hold(words, bytes, length, &skip));
		free(bytes);
	}
	bytes = malloc(sizeof(struct rshm_tag_head) + sizeof(pairs));
	assert_false(rshm_tags_hold(words, bytes,
				    write_pairs(bytes, RSHM_TAGS_HOT_MAX + 1, pairs, RSHM_TAGS_HOT_MAX + 1), &skip));
	assert_true(
		rshm_tags_hold(words, bytes, write_pairs(bytes, RSHM_TAGS_HOT_MAX, pairs, RSHM_TAGS_HOT_MAX), &skip));
	assert_int_equal(skip, RSHM_TAGS_BYTES_MAX);
	assert_false(rshm_tags_hold(words, bytes, write_pairs(bytes, UINT32_MAX, pairs, 1), &skip));
	free(bytes);
}

/* ---- of a segment ------------------------------------------------------------------------------------------- */

struct object {
	unsigned char *bytes;
	struct rshm_geometry geometry;
	struct rshm_writer writer;
};

static void make_object(struct object *o)
{
	const struct rshm_header header = {.generation = 1};

	rshm_geometry_plan(RSHM_RING_MIN, 1u << 20, &o->geometry);
	o->bytes = aligned_alloc(RSHM_PAGE, o->geometry.object_size);
	memset(o->bytes, 0, o->geometry.object_size);
	rshm_writer_format(o->bytes, &o->geometry, &header, "default", 42, &o->writer);
	rshm_writer_publish(&o->writer, RSHM_POLICY_MISS, 0);
}

static void a_reader_finds_the_words_of_its_segment(void **state)
{
	const struct rshm_tag_pair pair = {WORDS - 1, 5};
	unsigned char bytes[64];
	size_t length = write_pairs(bytes, 1, &pair, 1);
	struct rshm_reader reader;
	struct object o;
	uint32_t skip;

	(void)state;
	make_object(&o);
	assert_int_equal(rshm_reader_init(o.bytes, o.geometry.object_size, &reader), RSHM_OK);
	assert_false(rshm_tags_valid(&reader, bytes, length, &skip));
	((uint32_t *)(void *)(o.bytes + o.geometry.tag_offset))[WORDS - 1] = 5;
	assert_true(rshm_tags_valid(&reader, bytes, length, &skip));
	free(o.bytes);
}

static void tag_words_that_do_not_fit_make_a_segment_corrupt(void **state)
{
	struct rshm_segment *segment;
	struct rshm_reader reader;
	struct object o;

	(void)state;
	make_object(&o);
	segment = (void *)o.bytes;
	const uint64_t offsets[] = {0,
				    sizeof(*segment) - RSHM_LINE,
				    sizeof(*segment) + 4,
				    segment->ring_offset,
				    segment->ring_offset - WORDS * sizeof(uint32_t) + RSHM_LINE,
				    o.geometry.object_size,
				    UINT64_MAX - RSHM_LINE + 1};

	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		segment->tag_offset = offsets[i];
		assert_int_equal(rshm_reader_init(o.bytes, o.geometry.object_size, &reader), RSHM_E_CORRUPT);
	}
	segment->tag_offset = o.geometry.tag_offset;
	assert_int_equal(rshm_reader_init(o.bytes, o.geometry.object_size, &reader), RSHM_OK);
	free(o.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(pairs_that_agree_hold_and_are_skipped, setup),
		cmocka_unit_test_setup(one_changed_word_is_enough, setup),
		cmocka_unit_test_setup(a_slot_beyond_the_words_is_not_looked_up, setup),
		cmocka_unit_test_setup(a_count_that_lies_is_refused, setup),
		cmocka_unit_test_setup(a_reader_finds_the_words_of_its_segment, setup),
		cmocka_unit_test_setup(tag_words_that_do_not_fit_make_a_segment_corrupt, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
