#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "tests/support/mini_agent.h"

/* The encoded form of metadata: read byte by byte, and written by a set. */

static void walking_reads_every_kind(void **state)
{
	static const unsigned char bytes[] = {
		1,  0, 0, 3, 0, '1', '.', '0', /* version */
		4,  0, 0, 0, 0,                /* an empty tag */
		5,  1, 0, 2, 0, 'a', 'b', 'c', /* attribute a = bc */
		99, 0, 0, 1, 0, '?',           /* of a later version */
	};
	struct riptide_field field;
	size_t cursor = 0;

	(void)state;
	assert_int_equal(riptide_metadata_next(bytes, sizeof(bytes), &cursor, &field), 1);
	assert_int_equal(field.kind, RIPTIDE_METADATA_VERSION);
	assert_int_equal(field.name_length, 0);
	assert_int_equal(field.value_length, 3);
	assert_memory_equal(field.value, "1.0", 3);
	assert_int_equal(riptide_metadata_next(bytes, sizeof(bytes), &cursor, &field), 1);
	assert_int_equal(field.kind, RIPTIDE_METADATA_TAG);
	assert_int_equal(field.value_length, 0);
	assert_int_equal(riptide_metadata_next(bytes, sizeof(bytes), &cursor, &field), 1);
	assert_int_equal(field.kind, RIPTIDE_METADATA_ATTRIBUTE);
	assert_memory_equal(field.name, "a", 1);
	assert_memory_equal(field.value, "bc", 2);
	assert_int_equal(riptide_metadata_next(bytes, sizeof(bytes), &cursor, &field), 1);
	assert_int_equal(field.kind, 99);
	assert_int_equal(riptide_metadata_next(bytes, sizeof(bytes), &cursor, &field), 0);
	assert_int_equal(cursor, sizeof(bytes));
}

static void walking_refuses_what_is_cut_short(void **state)
{
	static const unsigned char bytes[] = {5, 1, 0, 2, 0, 'a', 'b', 'c'};
	struct riptide_field field;

	(void)state;
	for (size_t length = 1; length < sizeof(bytes); length++) {
		/* An exact copy, so that a read beyond it is found out. */
		unsigned char *copy = malloc(length);
		size_t cursor = 0;

		memcpy(copy, bytes, length);
		assert_int_equal(riptide_metadata_next(copy, length, &cursor, &field), RIPTIDE_ECORRUPT);
		assert_int_equal(cursor, 0);
		free(copy);
	}
}

static void walking_refuses_a_cursor_beyond_the_end(void **state)
{
	static const unsigned char bytes[5] = {1, 0, 0, 0, 0};
	struct riptide_field field;
	size_t cursor = 6;

	(void)state;
	assert_int_equal(riptide_metadata_next(bytes, 5, &cursor, &field), RIPTIDE_ECORRUPT);
	cursor = SIZE_MAX;
	assert_int_equal(riptide_metadata_next(bytes, 5, &cursor, &field), RIPTIDE_ECORRUPT);
	assert_int_equal(riptide_metadata_next(bytes, 5, NULL, &field), RIPTIDE_EINVALID);
	cursor = 0;
	assert_int_equal(riptide_metadata_next(NULL, 0, &cursor, &field), 0);
	assert_int_equal(riptide_metadata_next(NULL, 5, &cursor, &field), RIPTIDE_EINVALID);
}

static void any_bytes_are_walked_without_harm(void **state)
{
	uint64_t x = 88172645463325252u;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		size_t length = (size_t)(x % 64), cursor = 0;
		unsigned char *bytes = malloc(length + 1);
		struct riptide_field field;
		int status;

		for (size_t i = 0; i < length; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			bytes[i] = (unsigned char)(x & (x >> 8) & 15);
		}
		while ((status = riptide_metadata_next(bytes, length, &cursor, &field)) == 1)
			assert_true(field.value + field.value_length <= (const char *)bytes + length);
		assert_true(status == 0 || status == RIPTIDE_ECORRUPT);
		free(bytes);
		x = x * 6364136223846793005u + 1;
	}
}

struct fixture {
	struct mini_agent agent;
	riptide *handle;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct riptide_options options = {.size = sizeof(options)};

	mini_agent_start(&f->agent);
	options.socket = f->agent.socket;
	*state = f;
	return riptide_open(&options, &f->handle);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	riptide_close(&f->handle);
	mini_agent_stop(&f->agent);
	free(f);
	return 0;
}

static int set(struct fixture *f, const struct riptide_metadata *metadata)
{
	struct riptide_set_options options = {.size = sizeof(options), .metadata = metadata};

	return riptide_set(f->handle, "k", 1, "v", 1, &options, NULL);
}

static void expect_field(const struct riptide_value *value, size_t *cursor, int kind, const char *name,
			 const char *text)
{
	struct riptide_field field;

	assert_int_equal(riptide_metadata_next(value->metadata, value->metadata_length, cursor, &field), 1);
	assert_int_equal(field.kind, kind);
	assert_int_equal(field.name_length, strlen(name));
	assert_memory_equal(field.name, name, strlen(name));
	assert_int_equal(field.value_length, strlen(text));
	assert_memory_equal(field.value, text, strlen(text));
}

static void all_that_a_set_brings_comes_back(void **state)
{
	static const char *const tags[] = {"red", "big"};
	static const struct riptide_pair attributes[] = {{"lang", "de"}, {"", "nameless"}};
	struct riptide_metadata metadata = {"7", "text/html", "crawler", tags, 2, attributes, 2};
	struct riptide_value value;
	size_t cursor = 0;

	assert_int_equal(set(*state, &metadata), RIPTIDE_OK);
	assert_int_equal(riptide_get(((struct fixture *)*state)->handle, "k", 1, &value), RIPTIDE_OK);
	expect_field(&value, &cursor, RIPTIDE_METADATA_VERSION, "", "7");
	expect_field(&value, &cursor, RIPTIDE_METADATA_CONTENT_TYPE, "", "text/html");
	expect_field(&value, &cursor, RIPTIDE_METADATA_SOURCE, "", "crawler");
	expect_field(&value, &cursor, RIPTIDE_METADATA_TAG, "", "red");
	expect_field(&value, &cursor, RIPTIDE_METADATA_TAG, "", "big");
	expect_field(&value, &cursor, RIPTIDE_METADATA_ATTRIBUTE, "lang", "de");
	expect_field(&value, &cursor, RIPTIDE_METADATA_ATTRIBUTE, "", "nameless");
	assert_int_equal(cursor, value.metadata_length);
	riptide_value_free(&value);
}

static void metadata_has_at_most_65535_bytes(void **state)
{
	char *text = malloc(65536);
	struct riptide_metadata metadata = {.source = text};

	memset(text, 'x', 65535);
	text[65530] = '\0';
	assert_int_equal(set(*state, &metadata), RIPTIDE_OK);
	text[65530] = 'x';
	text[65531] = '\0';
	assert_int_equal(set(*state, &metadata), RIPTIDE_ETOOBIG);
	free(text);
}

static void a_tag_has_1_to_255_bytes(void **state)
{
	char text[257];
	const char *const tags[] = {text};
	struct riptide_metadata metadata = {.tags = tags, .tag_count = 1};

	memset(text, 't', 256);
	text[256] = '\0';
	assert_int_equal(set(*state, &metadata), RIPTIDE_ETOOBIG);
	text[255] = '\0';
	assert_int_equal(set(*state, &metadata), RIPTIDE_OK);
	text[0] = '\0';
	assert_int_equal(set(*state, &metadata), RIPTIDE_EINVALID);
}

static void lists_without_members_are_refused(void **state)
{
	static const char *const tags[] = {NULL};
	static const struct riptide_pair attributes[] = {{"a", NULL}};

	assert_int_equal(set(*state, &(struct riptide_metadata){.tag_count = 1}), RIPTIDE_EINVALID);
	assert_int_equal(set(*state, &(struct riptide_metadata){.tags = tags, .tag_count = 1}), RIPTIDE_EINVALID);
	assert_int_equal(set(*state, &(struct riptide_metadata){.attributes = attributes, .attribute_count = 1}),
			 RIPTIDE_EINVALID);
	assert_int_equal(set(*state, &(struct riptide_metadata){.tags = tags}), RIPTIDE_OK);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(walking_reads_every_kind),
		cmocka_unit_test(walking_refuses_what_is_cut_short),
		cmocka_unit_test(walking_refuses_a_cursor_beyond_the_end),
		cmocka_unit_test(any_bytes_are_walked_without_harm),
		CASE(all_that_a_set_brings_comes_back),
		CASE(metadata_has_at_most_65535_bytes),
		CASE(a_tag_has_1_to_255_bytes),
		CASE(lists_without_members_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
