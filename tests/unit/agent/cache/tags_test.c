/* tags_test.c - hostile metadata, remembered epochs, and the pairs of hot copies. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include <riptide/riptide.h>

#include "agent/cache/tags.h"
#include "shm/msg.h"

/* ---- metadata ----------------------------------------------------------------------------------------------- */

static unsigned char metadata[RSHM_METADATA_MAX + 16];
static size_t metadata_len;

static void add_field(int kind, const char *name, const void *value, size_t length)
{
	unsigned char *to = metadata + metadata_len;
	size_t name_length = strlen(name);

	assert_true(metadata_len + 5 + name_length + length <= sizeof(metadata));
	to[0] = (unsigned char)kind;
	to[1] = (unsigned char)name_length;
	to[2] = (unsigned char)(name_length >> 8);
	to[3] = (unsigned char)length;
	to[4] = (unsigned char)(length >> 8);
	memcpy(to + 5, name, name_length);
	memcpy(to + 5 + name_length, value, length);
	metadata_len += 5 + name_length + length;
}

static void add_tag(const char *tag)
{
	add_field(RIPTIDE_METADATA_TAG, "", tag, strlen(tag));
}

static int setup(void **state)
{
	(void)state;
	metadata_len = 0;
	return 0;
}

static void assert_tag(const struct tag *tag, const char *text)
{
	assert_int_equal(tag->length, strlen(text));
	assert_memory_equal(tag->bytes, text, tag->length);
}

static void tags_are_found_among_other_fields(void **state)
{
	struct tags tags;

	(void)state;
	add_field(RIPTIDE_METADATA_CONTENT_TYPE, "", "text/html", 9);
	add_tag("news");
	add_field(RIPTIDE_METADATA_ATTRIBUTE, "author", "ann", 3);
	add_field(200, "later", "kind", 4);
	add_tag("sport");
	add_field(RIPTIDE_METADATA_TAG, "", "a\0b", 3);
	assert_int_equal(tags_of_metadata(metadata, metadata_len, &tags), RSHM_OK);
	assert_int_equal(tags.count, 3);
	assert_tag(&tags.items[0], "news");
	assert_tag(&tags.items[1], "sport");
	assert_int_equal(tags.items[2].length, 3);
	assert_memory_equal(tags.items[2].bytes, "a\0b", 3);
}

static void metadata_without_tags_has_none(void **state)
{
	struct tags tags = {.count = 9};

	(void)state;
	assert_int_equal(tags_of_metadata(NULL, 0, &tags), RSHM_OK);
	assert_int_equal(tags.count, 0);
	add_field(RIPTIDE_METADATA_SOURCE, "", "", 0);
	tags.count = 9;
	assert_int_equal(tags_of_metadata(metadata, metadata_len, &tags), RSHM_OK);
	assert_int_equal(tags.count, 0);
}

static void sixty_four_tags_are_taken_and_one_more_refused(void **state)
{
	struct tags tags = {.count = 9};
	char text[8];

	(void)state;
	for (unsigned int i = 0; i < TAGS_MAX; i++) {
		snprintf(text, sizeof(text), "t%u", i);
		add_tag(text);
	}
	assert_int_equal(tags_of_metadata(metadata, metadata_len, &tags), RSHM_OK);
	assert_int_equal(tags.count, TAGS_MAX);
	assert_tag(&tags.items[63], "t63");
	add_tag("more");
	tags.count = 9;
	assert_int_equal(tags_of_metadata(metadata, metadata_len, &tags), RSHM_E_TOOBIG);
	assert_int_equal(tags.count, 9);
}

static void empty_tag_is_refused(void **state)
{
	struct tags tags = {.count = 9};

	(void)state;
	add_tag("");
	assert_int_equal(tags_of_metadata(metadata, metadata_len, &tags), RSHM_E_INVALID);
	assert_int_equal(tags.count, 9);
}

/* Each in memory of exactly its length, so that a sanitizer sees what is read beyond. */
static int parse_exactly(const unsigned char *bytes, size_t length)
{
	unsigned char *copy = malloc(length ? length : 1);
	struct tags tags;
	uint64_t deadline_ms;
	int status, second;

	assert_non_null(copy);
	memcpy(copy, bytes, length);
	status = tags_of_metadata(copy, length, &tags);
	second = soft_deadline_of_metadata(copy, length, &deadline_ms);
	for (uint32_t i = 0; status == RSHM_OK && i < tags.count; i++) {
		assert_true(tags.items[i].bytes >= copy);
		assert_true(tags.items[i].bytes + tags.items[i].length <= copy + length);
	}
	free(copy);
	assert_true(second == RSHM_OK || second == RSHM_MISS || second == RSHM_E_INVALID);
	return status;
}

static void cut_metadata_is_malformed_at_every_length_but_the_fields_ends(void **state)
{
	size_t first_end;

	(void)state;
	add_field(RIPTIDE_METADATA_ATTRIBUTE, "name", "value", 5);
	first_end = metadata_len;
	add_tag("sport");
	for (size_t length = 0; length <= metadata_len; length++) {
		bool whole = length == 0 || length == first_end || length == metadata_len;

		assert_int_equal(parse_exactly(metadata, length), whole ? RSHM_OK : RSHM_E_INVALID);
	}
}

static void lengths_that_lie_are_malformed(void **state)
{
	static const unsigned char huge_value[] = {4, 0, 0, 255, 255, 'x'};
	static const unsigned char huge_name[] = {4, 255, 255, 1, 0, 'x'};
	static const unsigned char both[] = {4, 255, 255, 255, 255, 'x'};

	(void)state;
	assert_int_equal(parse_exactly(huge_value, sizeof(huge_value)), RSHM_E_INVALID);
	assert_int_equal(parse_exactly(huge_name, sizeof(huge_name)), RSHM_E_INVALID);
	assert_int_equal(parse_exactly(both, sizeof(both)), RSHM_E_INVALID);
}

static void random_bytes_never_lead_outside(void **state)
{
	unsigned char bytes[96];
	unsigned int taken = 0;

	(void)state;
	srand(4711);
	for (int round = 0; round < 200000; round++) {
		size_t length = (size_t)rand() % sizeof(bytes);

		/* Small numbers, so that some of it makes sense. */
		for (size_t i = 0; i < length; i++)
			bytes[i] = (unsigned char)(rand() % 4 ? rand() % 7 : rand());
		taken += parse_exactly(bytes, length) == RSHM_OK;
	}
	assert_true(taken > 1000);
}

static void longest_metadata_is_read(void **state)
{
	static char value[RSHM_METADATA_MAX - 5];
	struct tags tags;

	(void)state;
	memset(value, 'v', sizeof(value));
	add_field(RIPTIDE_METADATA_TAG, "", value, sizeof(value));
	assert_int_equal(metadata_len, RSHM_METADATA_MAX);
	assert_int_equal(tags_of_metadata(metadata, metadata_len, &tags), RSHM_OK);
	assert_int_equal(tags.count, 1);
	assert_int_equal(tags.items[0].length, sizeof(value));
}

static void soft_deadline_is_read_little_endian(void **state)
{
	uint64_t deadline_ms = 5;

	(void)state;
	add_tag("t");
	assert_int_equal(soft_deadline_of_metadata(metadata, metadata_len, &deadline_ms), RSHM_MISS);
	assert_int_equal(deadline_ms, 5);
	add_field(RIPTIDE_METADATA_SOFT_DEADLINE, "", "\x08\x07\x06\x05\x04\x03\x02\x81", 8);
	assert_int_equal(soft_deadline_of_metadata(metadata, metadata_len, &deadline_ms), RSHM_OK);
	assert_true(deadline_ms == 0x8102030405060708u);
}

static void soft_deadline_of_wrong_length_or_twice_is_malformed(void **state)
{
	uint64_t deadline_ms = 5;

	(void)state;
	add_field(RIPTIDE_METADATA_SOFT_DEADLINE, "", "1234567", 7);
	assert_int_equal(soft_deadline_of_metadata(metadata, metadata_len, &deadline_ms), RSHM_E_INVALID);
	metadata_len = 0;
	add_field(RIPTIDE_METADATA_SOFT_DEADLINE, "", "123456789", 9);
	assert_int_equal(soft_deadline_of_metadata(metadata, metadata_len, &deadline_ms), RSHM_E_INVALID);
	metadata_len = 0;
	add_field(RIPTIDE_METADATA_SOFT_DEADLINE, "", "12345678", 8);
	add_field(RIPTIDE_METADATA_SOFT_DEADLINE, "", "12345678", 8);
	assert_int_equal(soft_deadline_of_metadata(metadata, metadata_len, &deadline_ms), RSHM_E_INVALID);
	assert_int_equal(deadline_ms, 5);
}

static void content_type_is_found_once_or_not_at_all(void **state)
{
	const char *type = "none";
	size_t length = 4;

	(void)state;
	assert_int_equal(content_type_of_metadata(metadata, 0, &type, &length), RSHM_MISS);
	add_tag("t");
	assert_int_equal(content_type_of_metadata(metadata, metadata_len, &type, &length), RSHM_MISS);
	assert_string_equal(type, "none");
	add_field(RIPTIDE_METADATA_CONTENT_TYPE, "", "text/html", 9);
	assert_int_equal(content_type_of_metadata(metadata, metadata_len, &type, &length), RSHM_OK);
	assert_int_equal(length, 9);
	assert_memory_equal(type, "text/html", 9);
	assert_int_equal(content_type_of_metadata(metadata, metadata_len - 1, &type, &length), RSHM_E_INVALID);
	add_field(RIPTIDE_METADATA_CONTENT_TYPE, "", "", 0);
	assert_int_equal(content_type_of_metadata(metadata, metadata_len, &type, &length), RSHM_E_INVALID);
	assert_int_equal(length, 9);
}

/* ---- what the backend says ---------------------------------------------------------------------------------- */

static struct tag tag_of(const char *text)
{
	return (struct tag){(const unsigned char *)text, strlen(text)};
}

static void put(struct tag_epochs *epochs, const char *text, uint64_t epoch, uint64_t now_ms)
{
	struct tag tag = tag_of(text);

	assert_int_equal(tag_epochs_put(epochs, &tag, epoch, tag_epochs_stamp(epochs, &tag), now_ms), RSHM_OK);
}

/* 0: not known. */
static uint64_t get(struct tag_epochs *epochs, const char *text, uint64_t now_ms, uint64_t max_age_ms)
{
	struct tag tag = tag_of(text);
	struct tag_epoch found = {0};

	return tag_epochs_get(epochs, &tag, now_ms, max_age_ms, &found) ? found.epoch : 0;
}

static void epoch_is_remembered_replaced_and_forgotten(void **state)
{
	struct tag_epochs *epochs = tag_epochs_create(10, 1000);
	struct tag news = tag_of("news");
	struct tag_epoch found;

	(void)state;
	assert_non_null(epochs);
	assert_int_equal(get(epochs, "news", 1, 0), 0);
	put(epochs, "news", 41, 1);
	put(epochs, "sport", 50, 2);
	put(epochs, "news", 42, 7);
	assert_true(tag_epochs_get(epochs, &news, 9, 0, &found));
	assert_int_equal(found.epoch, 42);
	assert_int_equal(found.known_at_ms, 7);
	assert_int_equal(tag_epochs_count(epochs), 2);
	tag_epochs_forget(epochs, &news);
	assert_int_equal(get(epochs, "news", 9, 0), 0);
	assert_int_equal(get(epochs, "sport", 9, 0), 50);
	tag_epochs_forget(epochs, &news);
	assert_int_equal(tag_epochs_count(epochs), 1);
	tag_epochs_destroy(&epochs);
	assert_null(epochs);
	tag_epochs_destroy(&epochs);
}

static void epoch_known_too_long_is_not_given(void **state)
{
	struct tag_epochs *epochs = tag_epochs_create(10, 1000);

	(void)state;
	assert_non_null(epochs);
	put(epochs, "news", 41, 1000);
	assert_int_equal(get(epochs, "news", 1000, 1), 41);
	assert_int_equal(get(epochs, "news", 1499, 500), 41);
	assert_int_equal(get(epochs, "news", 1500, 500), 0);
	assert_int_equal(get(epochs, "news", UINT64_MAX, 0), 41);
	/* A reading from before is not an age of centuries. */
	assert_int_equal(get(epochs, "news", 999, 500), 41);
	put(epochs, "news", 42, 1500);
	assert_int_equal(get(epochs, "news", 1500, 500), 42);
	tag_epochs_destroy(&epochs);
}

static void least_recently_used_tag_goes_first(void **state)
{
	struct tag_epochs *epochs = tag_epochs_create(3, 1000);

	(void)state;
	assert_non_null(epochs);
	put(epochs, "a", 1, 0);
	put(epochs, "b", 2, 0);
	put(epochs, "c", 3, 0);
	assert_int_equal(get(epochs, "a", 0, 0), 1);
	put(epochs, "b", 4, 0);
	put(epochs, "d", 5, 0);
	assert_int_equal(get(epochs, "c", 0, 0), 0);
	put(epochs, "e", 6, 0);
	assert_int_equal(get(epochs, "a", 0, 0), 0);
	assert_int_equal(get(epochs, "b", 0, 0), 4);
	assert_int_equal(get(epochs, "d", 0, 0), 5);
	assert_int_equal(get(epochs, "e", 0, 0), 6);
	assert_int_equal(tag_epochs_count(epochs), 3);
	tag_epochs_destroy(&epochs);
}

static void bytes_of_tags_have_a_bound(void **state)
{
	struct tag_epochs *epochs = tag_epochs_create(100, 10);
	struct tag long_tag = tag_of("elevenbytes");

	(void)state;
	assert_non_null(epochs);
	put(epochs, "1234", 1, 0);
	put(epochs, "5678", 2, 0);
	assert_int_equal(tag_epochs_put(epochs, &long_tag, 9, tag_epochs_stamp(epochs, &long_tag), 0), RSHM_E_TOOBIG);
	assert_int_equal(tag_epochs_count(epochs), 2);
	put(epochs, "abc", 3, 0);
	assert_int_equal(get(epochs, "1234", 0, 0), 0);
	assert_int_equal(get(epochs, "5678", 0, 0), 2);
	put(epochs, "tenletters", 4, 0);
	assert_int_equal(tag_epochs_count(epochs), 1);
	assert_int_equal(get(epochs, "tenletters", 0, 0), 4);
	tag_epochs_destroy(&epochs);
}

static void answer_from_before_the_invalidation_is_not_remembered(void **state)
{
	struct tag_epochs *epochs = tag_epochs_create(10, 1000);
	struct tag news = tag_of("news"), sport = tag_of("sport");
	uint32_t asked, asked_too;

	(void)state;
	assert_non_null(epochs);
	asked = tag_epochs_stamp(epochs, &news);
	tag_epochs_forget(epochs, &news);
	assert_int_equal(tag_epochs_put(epochs, &news, 41, asked, 0), RSHM_CONFLICT);
	assert_int_equal(get(epochs, "news", 0, 0), 0);
	asked = tag_epochs_stamp(epochs, &news);
	asked_too = tag_epochs_stamp(epochs, &sport);
	tag_epochs_forget_all(epochs);
	assert_int_equal(tag_epochs_put(epochs, &news, 41, asked, 0), RSHM_CONFLICT);
	assert_int_equal(tag_epochs_put(epochs, &sport, 41, asked_too, 0), RSHM_CONFLICT);
	put(epochs, "news", 42, 0);
	assert_int_equal(get(epochs, "news", 0, 0), 42);
	tag_epochs_destroy(&epochs);
}

static void forgetting_all_leaves_none(void **state)
{
	struct tag_epochs *epochs = tag_epochs_create(2000, 100000);
	char text[16];

	(void)state;
	assert_non_null(epochs);
	for (unsigned int i = 0; i < 5000; i++) {
		snprintf(text, sizeof(text), "tag-%u", i);
		put(epochs, text, i + 1, 0);
	}
	assert_int_equal(tag_epochs_count(epochs), 2000);
	for (unsigned int i = 0; i < 5000; i++) {
		snprintf(text, sizeof(text), "tag-%u", i);
		assert_int_equal(get(epochs, text, 0, 0), i < 3000 ? 0 : i + 1);
	}
	tag_epochs_forget_all(epochs);
	assert_int_equal(tag_epochs_count(epochs), 0);
	assert_int_equal(get(epochs, "tag-4999", 0, 0), 0);
	put(epochs, "tag-4999", 1, 0);
	tag_epochs_destroy(&epochs);
}

/* ---- shared memory ------------------------------------------------------------------------------------------ */

static void slots_are_spread_and_never_change(void **state)
{
	static uint32_t taken[RSHM_TAG_WORDS];
	uint32_t most = 0;
	char text[16];
	struct tag tag = tag_of("news");

	(void)state;
	/* XXH3 of the bytes modulo 4096; a segment is adopted by later builds, so these numbers are for good. */
	assert_int_equal(tags_slot(&tag), 0xcea6a9c08ead0124u % 4096);
	tag = tag_of("");
	assert_int_equal(tags_slot(&tag), 0x2d06800538d394c2u % 4096);
	for (unsigned int i = 0; i < 40960; i++) {
		snprintf(text, sizeof(text), "tag-%u", i);
		tag = tag_of(text);
		assert_true(tags_slot(&tag) < RSHM_TAG_WORDS);
		taken[tags_slot(&tag)]++;
	}
	for (unsigned int i = 0; i < RSHM_TAG_WORDS; i++)
		most = taken[i] > most ? taken[i] : most;
	assert_true(most < 40); /* mean 10 */
}

static uint32_t words[RSHM_TAG_WORDS];
static unsigned char prefix[TAGS_PREFIX_MAX];

static void assert_pair(unsigned int number, uint32_t slot, uint32_t epoch)
{
	struct rshm_tag_pair pair;

	memcpy(&pair, prefix + sizeof(struct rshm_tag_head) + number * sizeof(pair), sizeof(pair));
	assert_int_equal(pair.slot, slot);
	assert_int_equal(pair.epoch, epoch);
}

/* Tags "0", "1", … of which no two share a slot. */
static char distinct_texts[TAGS_MAX][12];
static void distinct_tags(struct tags *tags, uint32_t count)
{
	unsigned int number = 0;

	for (tags->count = 0; tags->count < count; number++) {
		struct tag *tag = &tags->items[tags->count];
		bool is_new = true;

		snprintf(distinct_texts[tags->count], sizeof(distinct_texts[0]), "%u", number);
		*tag = tag_of(distinct_texts[tags->count]);
		for (uint32_t i = 0; i < tags->count; i++)
			is_new = is_new && tags_slot(&tags->items[i]) != tags_slot(tag);
		tags->count += is_new;
	}
}

static void hot_prefix_names_each_slot_with_its_word(void **state)
{
	struct rshm_tag_head head;
	struct tags tags;
	size_t length = 99;

	(void)state;
	distinct_tags(&tags, 2);
	words[tags_slot(&tags.items[0])] = 0xfffffffeu;
	words[tags_slot(&tags.items[1])] = 7;
	assert_int_equal(tags_hot_prefix(&tags, words, prefix, &length), RSHM_OK);
	assert_int_equal(length, sizeof(head) + 2 * sizeof(struct rshm_tag_pair));
	memcpy(&head, prefix, sizeof(head));
	assert_int_equal(head.count, 2);
	assert_int_equal(head.reserved, 0);
	assert_pair(0, tags_slot(&tags.items[0]), 0xfffffffeu);
	assert_pair(1, tags_slot(&tags.items[1]), 7);
}

static void tags_of_one_slot_take_one_pair(void **state)
{
	struct tags tags;
	size_t length = 99;

	(void)state;
	distinct_tags(&tags, 2);
	tags.items[2] = tags.items[0];
	tags.items[3] = tags.items[1];
	tags.count = 4;
	assert_int_equal(tags_hot_prefix(&tags, words, prefix, &length), RSHM_OK);
	assert_int_equal(length, sizeof(struct rshm_tag_head) + 2 * sizeof(struct rshm_tag_pair));
}

static void entry_without_tags_has_no_prefix(void **state)
{
	struct tags tags = {.count = 0};
	size_t length = 99;

	(void)state;
	assert_int_equal(tags_hot_prefix(&tags, words, prefix, &length), RSHM_OK);
	assert_int_equal(length, 0);
}

static void sixteen_slots_are_hot_and_one_more_is_not(void **state)
{
	struct tags tags;
	size_t length = 99;

	(void)state;
	distinct_tags(&tags, RSHM_TAGS_HOT_MAX);
	assert_int_equal(tags_hot_prefix(&tags, words, prefix, &length), RSHM_OK);
	assert_int_equal(length, TAGS_PREFIX_MAX);
	assert_pair(RSHM_TAGS_HOT_MAX - 1, tags_slot(&tags.items[RSHM_TAGS_HOT_MAX - 1]),
		    words[tags_slot(&tags.items[RSHM_TAGS_HOT_MAX - 1])]);
	distinct_tags(&tags, RSHM_TAGS_HOT_MAX + 1);
	length = 99;
	assert_int_equal(tags_hot_prefix(&tags, words, prefix, &length), RSHM_E_TOOBIG);
	assert_int_equal(length, 99);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(tags_are_found_among_other_fields, setup),
		cmocka_unit_test_setup(metadata_without_tags_has_none, setup),
		cmocka_unit_test_setup(sixty_four_tags_are_taken_and_one_more_refused, setup),
		cmocka_unit_test_setup(empty_tag_is_refused, setup),
		cmocka_unit_test_setup(cut_metadata_is_malformed_at_every_length_but_the_fields_ends, setup),
		cmocka_unit_test_setup(lengths_that_lie_are_malformed, setup),
		cmocka_unit_test_setup(random_bytes_never_lead_outside, setup),
		cmocka_unit_test_setup(longest_metadata_is_read, setup),
		cmocka_unit_test_setup(soft_deadline_is_read_little_endian, setup),
		cmocka_unit_test_setup(soft_deadline_of_wrong_length_or_twice_is_malformed, setup),
		cmocka_unit_test_setup(content_type_is_found_once_or_not_at_all, setup),
		cmocka_unit_test(epoch_is_remembered_replaced_and_forgotten),
		cmocka_unit_test(epoch_known_too_long_is_not_given),
		cmocka_unit_test(least_recently_used_tag_goes_first),
		cmocka_unit_test(bytes_of_tags_have_a_bound),
		cmocka_unit_test(answer_from_before_the_invalidation_is_not_remembered),
		cmocka_unit_test(forgetting_all_leaves_none),
		cmocka_unit_test(slots_are_spread_and_never_change),
		cmocka_unit_test(hot_prefix_names_each_slot_with_its_word),
		cmocka_unit_test(tags_of_one_slot_take_one_pair),
		cmocka_unit_test(entry_without_tags_has_no_prefix),
		cmocka_unit_test(sixteen_slots_are_hot_and_one_more_is_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
