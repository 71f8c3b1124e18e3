/* index_test.c - from hashes to lines and words, and from words back to positions. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/index.h"

static void hash_is_xxh3_with_its_seed(void **state)
{
	/* Vectors of xxHash 0.8: segments outlive the program that made them, so the hash may never change. */
	(void)state;
	assert_true(rshm_hash(0, "", 0) == 0x2d06800538d394c2u);
	assert_true(rshm_hash(0, "a", 1) == 0xe6c632b61e964e1fu);
	assert_true(rshm_hash(0, "abc", 3) == 0x78af5f94892f3950u);
	assert_true(rshm_hash(1, "abc", 3) != rshm_hash(0, "abc", 3));
}

static void hash_reads_exactly_the_key(void **state)
{
	(void)state;
	/* Each key ends with its allocation, where the address sanitizer watches, at every alignment. */
	for (size_t length = 1; length < 600; length++) {
		unsigned char *exact = malloc(length), *shifted = malloc(length + 1);

		for (size_t i = 0; i < length; i++)
			exact[i] = shifted[i + 1] = (unsigned char)(i * 7 + length);
		assert_true(rshm_hash(5, exact, length) == rshm_hash(5, shifted + 1, length));
		if (length > 1)
			assert_true(rshm_hash(5, exact, length) != rshm_hash(5, exact, length - 1));
		free(exact);
		free(shifted);
	}
}

static void candidates_are_two_different_lines_of_the_index(void **state)
{
	static const uint32_t counts[] = {2, 3, 7, 86, 342, 1u << 20, UINT32_MAX};
	static const uint64_t corners[] = {0, UINT32_MAX, 1ull << 32, UINT64_MAX, UINT64_MAX - UINT32_MAX};

	(void)state;
	for (size_t c = 0; c < sizeof(counts) / sizeof(*counts); c++) {
		for (uint64_t i = 0; i < 20000; i++) {
			uint64_t hash = i < 5 ? corners[i] : rshm_hash(i, &i, sizeof(i));
			struct rshm_candidates lines = rshm_candidates(hash, counts[c]);

			assert_true(lines.first < counts[c] && lines.second < counts[c]);
			assert_true(lines.first != lines.second);
			assert_true((lines.tag & RSHM_POSITION_MASK) == 0);
			assert_true(lines.tag >> RSHM_POSITION_BITS == hash >> RSHM_POSITION_BITS);
		}
	}
}

static void lines_are_used_evenly(void **state)
{
	enum { LINES = 100, KEYS = 200000 };
	static uint32_t first[LINES], second[LINES];

	(void)state;
	for (unsigned int i = 0; i < KEYS; i++) {
		struct rshm_candidates c;
		char key[24];

		snprintf(key, sizeof(key), "user:%u", i);
		c = rshm_candidates(rshm_hash(1, key, strlen(key)), LINES);
		first[c.first]++;
		second[c.second]++;
	}
	/* 2000 each, give or take 45: six times that is no accident. */
	for (unsigned int i = 0; i < LINES; i++) {
		assert_in_range(first[i], KEYS / LINES - 270, KEYS / LINES + 270);
		assert_in_range(second[i], KEYS / LINES - 270, KEYS / LINES + 270);
	}
}

static void keys_of_one_first_line_have_many_second_ones(void **state)
{
	enum { LINES = 64 };
	uint64_t seconds = 0;

	(void)state;
	for (uint64_t i = 0; i < 100000; i++) {
		struct rshm_candidates c = rshm_candidates(rshm_hash(2, &i, sizeof(i)), LINES);

		if (c.first == 7)
			seconds |= 1ull << c.second;
	}
	assert_int_equal(__builtin_popcountll(seconds), LINES - 1);
}

static void word_gives_back_any_position_within_2_to_the_48_of_the_tail(void **state)
{
	static const uint64_t tails[] = {
		4096, (1ull << 48) - 1, 1ull << 48, (1ull << 48) + 5, (5ull << 48) - 3, UINT64_MAX - (1ull << 49)};
	static const uint64_t ahead[] = {0, 1, 2, 3, 4, 5, 1000, 1ull << 36, (1ull << 48) - 1};

	(void)state;
	for (size_t t = 0; t < sizeof(tails) / sizeof(*tails); t++) {
		for (size_t a = 0; a < sizeof(ahead) / sizeof(*ahead); a++) {
			uint64_t position = tails[t] + ahead[a], word = rshm_word(0xabcdull << 48, position);

			assert_true(rshm_word_position(word, tails[t]) == position);
			assert_true((word & ~RSHM_POSITION_MASK) == 0xabcdull << 48);
		}
	}
}

static void reclaimed_position_never_looks_live(void **state)
{
	(void)state;
	/* Behind the tail by up to the largest ring: the word then means a place far ahead of the head. */
	for (uint64_t behind = 1; behind <= RSHM_RING_MAX / RSHM_UNIT; behind *= 2) {
		uint64_t tail = (3ull << 48) + behind / 2;

		assert_true(rshm_word_position(rshm_word(0, tail - behind), tail) - tail > RSHM_RING_MAX / RSHM_UNIT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hash_is_xxh3_with_its_seed),
		cmocka_unit_test(hash_reads_exactly_the_key),
		cmocka_unit_test(candidates_are_two_different_lines_of_the_index),
		cmocka_unit_test(lines_are_used_evenly),
		cmocka_unit_test(keys_of_one_first_line_have_many_second_ones),
		cmocka_unit_test(word_gives_back_any_position_within_2_to_the_48_of_the_tail),
		cmocka_unit_test(reclaimed_position_never_looks_live),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
