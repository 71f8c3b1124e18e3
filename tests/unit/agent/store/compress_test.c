#include "agent/store/compress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/msg.h"
#include "tests/unit/agent/store/json_samples.h"

#define DICTIONARY_ROOM ((size_t)16 << 10)

#define need_compression()                                                \
	do {                                                              \
		if (!RIPTIDE_COMPRESSION) {                               \
			print_message("this build has no compression\n"); \
			skip();                                           \
		}                                                         \
	} while (0)

static const size_t lengths[] = {1, 100, 1000, 4096, 100000, 1 << 20};

/* An exact allocation, so that the sanitizer sees each byte written beyond it. */
static void *exact(size_t length)
{
	void *bytes = malloc(length);

	assert_non_null(bytes);
	return bytes;
}

static char *make_text(size_t length)
{
	struct json_random random = {length + 1};
	char *text = exact(length + 1);

	json_fill(&random, text, length);
	return text;
}

static size_t lz4_length(const char *text, size_t length, int acceleration)
{
	size_t capacity = compress_lz4_bound(length);
	char *stored = exact(capacity), *plain = exact(length);
	size_t written = compress_lz4(text, length, acceleration, stored, capacity);

	assert_int_not_equal(written, 0);
	assert_int_equal(decompress_lz4(stored, written, plain, length), RSHM_OK);
	assert_memory_equal(plain, text, length);
	free(stored);
	free(plain);
	return written;
}

static size_t zstd_length(const char *text, size_t length, int level, const struct compress_dictionary *dictionary)
{
	size_t capacity = compress_zstd_bound(length);
	char *stored = exact(capacity), *plain = exact(length);
	size_t written = compress_zstd(text, length, level, dictionary, stored, capacity);

	assert_int_not_equal(written, 0);
	assert_int_equal(decompress_zstd(stored, written, dictionary, plain, length), RSHM_OK);
	assert_memory_equal(plain, text, length);
	free(stored);
	free(plain);
	return written;
}

static void every_acceleration_and_level_gives_back_what_was_put_in(void **state)
{
	static const int accelerations[] = {0, 1, 2, 8, 64}, levels[] = {0, -7, -1, 1, 3, 9, 19};

	(void)state;
	need_compression();
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		char *text = make_text(lengths[i]);

		for (size_t a = 0; a < sizeof accelerations / sizeof *accelerations; a++)
			(void)lz4_length(text, lengths[i], accelerations[a]);
		for (size_t l = 0; l < sizeof levels / sizeof *levels; l++)
			(void)zstd_length(text, lengths[i], levels[l], NULL);
		free(text);
	}
}

static void levels_change_the_length_and_0_is_the_default(void **state)
{
	size_t length = 100000;
	char *text;

	(void)state;
	need_compression();
	text = make_text(length);
	assert_int_equal(lz4_length(text, length, 0), lz4_length(text, length, 1));
	assert_true(lz4_length(text, length, 16) > lz4_length(text, length, 1));
	assert_int_equal(lz4_length(text, length, 1 << 20), lz4_length(text, length, COMPRESS_LZ4_ACCELERATION_MAX));
	assert_int_equal(lz4_length(text, length, -5), lz4_length(text, length, 1));
	assert_int_equal(zstd_length(text, length, 0, NULL), zstd_length(text, length, 3, NULL));
	assert_true(zstd_length(text, length, -5, NULL) > zstd_length(text, length, 3, NULL));
	assert_true(zstd_length(text, length, 3, NULL) > zstd_length(text, length, 19, NULL));
	assert_int_equal(zstd_length(text, length, 99, NULL),
			 zstd_length(text, length, COMPRESS_ZSTD_LEVEL_MAX, NULL));
	assert_int_equal(zstd_length(text, length, -99, NULL),
			 zstd_length(text, length, COMPRESS_ZSTD_LEVEL_MIN, NULL));
	free(text);
}

static void too_little_room_gives_nothing(void **state)
{
	size_t length = 5000;
	char *text, *room;

	(void)state;
	need_compression();
	text = make_text(length);
	for (size_t capacity = 1; capacity < 600; capacity += 7) {
		room = exact(capacity);
		assert_int_equal(compress_lz4(text, length, 0, room, capacity), 0);
		assert_int_equal(compress_zstd(text, length, 0, NULL, room, capacity), 0);
		free(room);
	}
	free(text);
}

static void only_the_exact_size_and_the_whole_of_it_is_decompressed(void **state)
{
	size_t length = 5000;
	char *text, *lz4, *zstd;
	size_t lz4_len, zstd_len;

	(void)state;
	need_compression();
	text = make_text(length);
	lz4 = exact(compress_lz4_bound(length));
	zstd = exact(compress_zstd_bound(length));
	lz4_len = compress_lz4(text, length, 0, lz4, compress_lz4_bound(length));
	zstd_len = compress_zstd(text, length, 0, NULL, zstd, compress_zstd_bound(length));
	for (size_t size = length - 3; size <= length + 3; size++) {
		char *plain = exact(size);
		int expected = size == length ? RSHM_OK : RSHM_E_CORRUPT;

		assert_int_equal(decompress_lz4(lz4, lz4_len, plain, size), expected);
		assert_int_equal(decompress_zstd(zstd, zstd_len, NULL, plain, size), expected);
		free(plain);
	}
	for (size_t cut = 0; cut < zstd_len || cut < lz4_len; cut++) {
		char *plain = exact(length), *part = exact(cut + 1);

		if (cut < lz4_len) {
			memcpy(part, lz4, cut);
			assert_int_equal(decompress_lz4(part, cut, plain, length), RSHM_E_CORRUPT);
		}
		if (cut < zstd_len) {
			memcpy(part, zstd, cut);
			assert_int_equal(decompress_zstd(part, cut, NULL, plain, length), RSHM_E_CORRUPT);
		}
		free(plain);
		free(part);
	}
	free(text);
	free(lz4);
	free(zstd);
}

/* zstd would decompress both, one after the other. */
static void two_frames_in_place_of_one_are_refused(void **state)
{
	char *text, stored[8000], plain[4000];
	size_t first, second;

	(void)state;
	need_compression();
	text = make_text(sizeof plain);
	first = compress_zstd(text, 2000, 0, NULL, stored, 4000);
	second = compress_zstd(text + 2000, 2000, 0, NULL, stored + first, 4000);
	assert_true(first > 0 && second > 0);
	assert_int_equal(decompress_zstd(stored, first, NULL, plain, 2000), RSHM_OK);
	assert_int_equal(decompress_zstd(stored, first + second, NULL, plain, 4000), RSHM_E_CORRUPT);
	free(text);
}

static size_t train(uint64_t seed, void *bytes)
{
	struct json_samples samples = json_samples_make(seed, 600, 1024);
	size_t length = 0;

	assert_int_equal(compress_train(samples.bytes, samples.sizes, samples.count, bytes, DICTIONARY_ROOM, &length),
			 RSHM_OK);
	json_samples_free(&samples);
	return length;
}

static void a_dictionary_shortens_what_resembles_it(void **state)
{
	char *bytes, *text;
	struct compress_dictionary *dictionary;
	size_t length;

	(void)state;
	need_compression();
	bytes = exact(DICTIONARY_ROOM);
	length = train(7, bytes);
	assert_in_range(length, 1000, DICTIONARY_ROOM);
	assert_int_equal(compress_dictionary_create(bytes, length, 0, &dictionary), RSHM_OK);
	free(bytes);
	assert_true(compress_dictionary_memory(dictionary) > length);
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		text = make_text(lengths[i]);
		if (lengths[i] >= 100 && lengths[i] <= 4096)
			assert_true(zstd_length(text, lengths[i], 0, dictionary) <
				    zstd_length(text, lengths[i], 0, NULL));
		else
			(void)zstd_length(text, lengths[i], 0, dictionary);
		free(text);
	}
	compress_dictionary_destroy(&dictionary);
	assert_null(dictionary);
	compress_dictionary_destroy(&dictionary);
}

static void another_dictionary_or_none_is_noticed(void **state)
{
	char *bytes, *text, stored[4096], plain[1024];
	struct compress_dictionary *right, *wrong;
	size_t length;

	(void)state;
	need_compression();
	bytes = exact(DICTIONARY_ROOM);
	assert_int_equal(compress_dictionary_create(bytes, train(7, bytes), 0, &right), RSHM_OK);
	length = train(8, bytes);
	assert_int_equal(compress_dictionary_create(bytes, length, 0, &wrong), RSHM_OK);
	text = make_text(1024);
	length = compress_zstd(text, 1024, 0, right, stored, sizeof stored);
	assert_in_range(length, 1, 1000);
	assert_int_equal(decompress_zstd(stored, length, wrong, plain, 1024), RSHM_E_CORRUPT);
	assert_int_equal(decompress_zstd(stored, length, NULL, plain, 1024), RSHM_E_CORRUPT);
	assert_int_equal(decompress_zstd(stored, length, right, plain, 1024), RSHM_OK);
	assert_memory_equal(plain, text, 1024);
	/* A context that used a dictionary forgets it. */
	(void)zstd_length(text, 1024, 0, NULL);
	free(text);
	free(bytes);
	compress_dictionary_destroy(&right);
	compress_dictionary_destroy(&wrong);
}

static void what_is_no_dictionary_is_refused(void **state)
{
	struct compress_dictionary *dictionary = NULL;
	unsigned char *bytes;
	size_t length;

	(void)state;
	need_compression();
	bytes = exact(DICTIONARY_ROOM);
	length = train(7, bytes);
	for (size_t cut = 0; cut < 12; cut++)
		assert_int_equal(compress_dictionary_create(bytes, cut, 0, &dictionary), RSHM_E_CORRUPT);
	for (size_t i = 0; i < 4; i++) {
		bytes[i] ^= 1;
		assert_int_equal(compress_dictionary_create(bytes, length, 0, &dictionary), RSHM_E_CORRUPT);
		bytes[i] ^= 1;
	}
	memset(bytes + 8, 0xff, 32);
	assert_int_equal(compress_dictionary_create(bytes, length, 0, &dictionary), RSHM_E_CORRUPT);
	assert_null(dictionary);
	free(bytes);
}

static void damaged_dictionaries_never_crash(void **state)
{
	struct json_random random = {99};
	unsigned char *good, *bytes;
	char *text, stored[4096], plain[1024];
	size_t length;
	int refused = 0, used = 0;

	(void)state;
	need_compression();
	good = exact(DICTIONARY_ROOM);
	length = train(7, good);
	text = make_text(1024);
	bytes = exact(length);
	for (int round = 0; round < 500; round++) {
		struct compress_dictionary *dictionary;
		size_t written;

		memcpy(bytes, good, length);
		for (int i = 0; i < 3; i++)
			bytes[8 + json_draw(&random, 200)] ^= (unsigned char)(1 + json_draw(&random, 255));
		if (compress_dictionary_create(bytes, length, 0, &dictionary) != RSHM_OK) {
			refused++;
			continue;
		}
		written = compress_zstd(text, 1024, 0, dictionary, stored, sizeof stored);
		if (written != 0) {
			assert_int_equal(decompress_zstd(stored, written, dictionary, plain, 1024), RSHM_OK);
			assert_memory_equal(plain, text, 1024);
			used++;
		}
		compress_dictionary_destroy(&dictionary);
	}
	assert_true(refused > 0 && used > 0);
	free(text);
	free(bytes);
	free(good);
}

static void too_few_samples_do_not_train(void **state)
{
	struct json_samples samples;
	char *bytes;
	size_t length = 0;

	(void)state;
	need_compression();
	samples = json_samples_make(1, 600, 1024);
	bytes = exact(DICTIONARY_ROOM);
	assert_int_equal(compress_train(samples.bytes, samples.sizes, 0, bytes, DICTIONARY_ROOM, &length),
			 RSHM_E_INVALID);
	assert_int_equal(compress_train(samples.bytes, samples.sizes, 2, bytes, DICTIONARY_ROOM, &length),
			 RSHM_E_INVALID);
	assert_int_equal(compress_train(samples.bytes, samples.sizes, 600, bytes, 10, &length), RSHM_E_INVALID);
	assert_int_equal(length, 0);
	json_samples_free(&samples);
	free(bytes);
}

#if !RIPTIDE_COMPRESSION
static void a_build_without_compression_says_so(void **state)
{
	struct compress_dictionary *dictionary = NULL;
	char bytes[64] = {0};
	size_t size = 32, length = 0;

	(void)state;
	assert_int_equal(compress_lz4(bytes, 32, 0, bytes + 32, 32), 0);
	assert_int_equal(compress_zstd(bytes, 32, 0, NULL, bytes + 32, 32), 0);
	assert_int_equal(decompress_lz4(bytes, 32, bytes + 32, 32), RSHM_E_FORMAT);
	assert_int_equal(decompress_zstd(bytes, 32, NULL, bytes + 32, 32), RSHM_E_FORMAT);
	assert_int_equal(compress_dictionary_create(bytes, 64, 0, &dictionary), RSHM_E_FORMAT);
	assert_int_equal(compress_train(bytes, &size, 1, bytes, 64, &length), RSHM_E_FORMAT);
	assert_null(dictionary);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_acceleration_and_level_gives_back_what_was_put_in),
		cmocka_unit_test(levels_change_the_length_and_0_is_the_default),
		cmocka_unit_test(too_little_room_gives_nothing),
		cmocka_unit_test(only_the_exact_size_and_the_whole_of_it_is_decompressed),
		cmocka_unit_test(two_frames_in_place_of_one_are_refused),
		cmocka_unit_test(a_dictionary_shortens_what_resembles_it),
		cmocka_unit_test(another_dictionary_or_none_is_noticed),
		cmocka_unit_test(what_is_no_dictionary_is_refused),
		cmocka_unit_test(damaged_dictionaries_never_crash),
		cmocka_unit_test(too_few_samples_do_not_train),
#if !RIPTIDE_COMPRESSION
		cmocka_unit_test(a_build_without_compression_says_so),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
