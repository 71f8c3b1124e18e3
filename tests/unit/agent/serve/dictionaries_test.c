/* dictionaries_test.c - the index of a tenant's dictionaries, as it is stored; which samples suffice. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "agent/serve/dictionaries.h"

static struct dictionary_index index_of(uint32_t count)
{
	struct dictionary_index index = {.count = 0};

	for (uint32_t i = 0; i < count; i++)
		dictionary_index_set(&index, 1000 + i, i % 3 == 0);
	return index;
}

static void an_index_comes_back_as_it_was_stored(void **state)
{
	static const uint32_t counts[] = {0, 1, 7, DICTIONARY_INDEX_MAX};

	(void)state;
	for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
		struct dictionary_index index = index_of(counts[c]), back = {.count = 99};
		struct envelope_buffer envelope = {0};
		uint64_t version = 0;

		assert_int_equal(dictionary_index_encode(&index, 42, 7, &envelope), RSHM_OK);
		assert_int_equal(dictionary_index_decode(envelope.bytes, envelope.length, &back, &version), RSHM_OK);
		assert_int_equal(version, 42);
		assert_int_equal(back.count, counts[c]);
		for (uint32_t i = 0; i < counts[c]; i++) {
			assert_int_equal(back.items[i].id, 1000 + i);
			assert_int_equal(back.items[i].retired, i % 3 == 0);
		}
		envelope_buffer_fini(&envelope);
	}
}

static void a_damaged_index_is_refused_and_changes_nothing(void **state)
{
	struct dictionary_index index = index_of(5), back = {.count = 99};
	struct envelope_buffer envelope = {0};
	uint64_t version = 1;

	(void)state;
	assert_int_equal(dictionary_index_encode(&index, 42, 7, &envelope), RSHM_OK);
	for (size_t length = 0; length < envelope.length; length++)
		assert_true(dictionary_index_decode(envelope.bytes, length, &back, &version) < 0);
	((unsigned char *)envelope.bytes)[envelope.length - 1] ^= 1;
	assert_int_equal(dictionary_index_decode(envelope.bytes, envelope.length, &back, &version), RSHM_E_CORRUPT);
	assert_int_equal(back.count, 99);
	assert_int_equal(version, 1);
	envelope_buffer_fini(&envelope);
}

static int decode_value(const char *key, size_t value_len, struct dictionary_index *ret)
{
	static const unsigned char value[DICTIONARY_INDEX_MAX * 8 + 8];
	struct envelope_input input = {
		.key = key, .key_len = strlen(key), .value = value, .value_len = value_len, .version = 1};
	struct envelope_buffer envelope = {0};
	unsigned char *exactly;
	uint64_t version;
	int status;

	assert_int_equal(envelope_encode(&input, NULL, &envelope), RSHM_OK);
	exactly = malloc(envelope.length);
	assert_non_null(exactly);
	memcpy(exactly, envelope.bytes, envelope.length);
	status = dictionary_index_decode(exactly, envelope.length, ret, &version);
	free(exactly);
	envelope_buffer_fini(&envelope);
	return status;
}

static void an_index_of_a_wrong_size_or_name_is_refused(void **state)
{
	struct dictionary_index back;

	(void)state;
	assert_int_equal(decode_value(DICTIONARY_INDEX_KEY, 7, &back), RSHM_E_CORRUPT);
	assert_int_equal(decode_value(DICTIONARY_INDEX_KEY, DICTIONARY_INDEX_MAX * 8 + 8, &back), RSHM_E_CORRUPT);
	assert_int_equal(decode_value(DICTIONARY_INDEX_KEY, DICTIONARY_INDEX_MAX * 8, &back), RSHM_OK);
	assert_int_equal(decode_value("other", 8, &back), RSHM_E_CORRUPT);
}

static void setting_an_id_again_changes_it_where_it_stands(void **state)
{
	struct dictionary_index index = index_of(4);

	(void)state;
	dictionary_index_set(&index, 1001, true);
	assert_int_equal(index.count, 4);
	assert_int_equal(index.items[1].id, 1001);
	assert_true(index.items[1].retired);
}

static void a_full_index_gives_up_a_retired_one_first_and_else_the_oldest(void **state)
{
	struct dictionary_index index = {.count = 0};

	(void)state;
	for (uint32_t i = 0; i < DICTIONARY_INDEX_MAX; i++)
		dictionary_index_set(&index, 1 + i, i == 100);
	dictionary_index_set(&index, 9001, false);
	assert_int_equal(index.count, DICTIONARY_INDEX_MAX);
	assert_int_equal(index.items[99].id, 100);
	assert_int_equal(index.items[100].id, 102);
	assert_int_equal(index.items[DICTIONARY_INDEX_MAX - 1].id, 9001);
	dictionary_index_set(&index, 9002, true);
	assert_int_equal(index.items[0].id, 2);
	assert_int_equal(index.items[DICTIONARY_INDEX_MAX - 1].id, 9002);
	assert_true(index.items[DICTIONARY_INDEX_MAX - 1].retired);
	/* One that is there needs no room. */
	dictionary_index_set(&index, 3, true);
	assert_int_equal(index.items[0].id, 2);
	assert_int_equal(index.count, DICTIONARY_INDEX_MAX);
}

static void samples_suffice_by_number_or_by_bytes(void **state)
{
	struct serve_options options = {.dictionary_samples_min = 500, .dictionary_sample_bytes = 2 << 20};

	(void)state;
	assert_false(serve_samples_suffice(&options, 499, 1000));
	assert_true(serve_samples_suffice(&options, 500, 1000));
	assert_false(serve_samples_suffice(&options, 100, (1 << 20) - 1));
	assert_true(serve_samples_suffice(&options, 100, 1 << 20));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_index_comes_back_as_it_was_stored),
		cmocka_unit_test(a_damaged_index_is_refused_and_changes_nothing),
		cmocka_unit_test(an_index_of_a_wrong_size_or_name_is_refused),
		cmocka_unit_test(setting_an_id_again_changes_it_where_it_stands),
		cmocka_unit_test(a_full_index_gives_up_a_retired_one_first_and_else_the_oldest),
		cmocka_unit_test(samples_suffice_by_number_or_by_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
