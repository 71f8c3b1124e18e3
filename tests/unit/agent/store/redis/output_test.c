#include "agent/store/redis/output.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STREAM_MAX (16u << 20)

static uint64_t random_state = 88172645463325252ull;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* Takes at most `limit` bytes as a socket would, and appends them to `sink`. */
static size_t drain(struct redis_output *output, size_t limit, size_t vectors_max, unsigned char *sink)
{
	struct iovec vectors[8];
	size_t count = redis_output_vectors(output, vectors, vectors_max), taken = 0;

	for (size_t i = 0; i < count && taken < limit; i++) {
		size_t step = vectors[i].iov_len < limit - taken ? vectors[i].iov_len : limit - taken;

		memcpy(sink + taken, vectors[i].iov_base, step);
		taken += step;
	}
	redis_output_advance(output, taken);
	return taken;
}

static void command_has_the_form_of_the_protocol(void **state)
{
	static const char expected[] = "*4\r\n$3\r\nSET\r\n$3\r\na\0b\r\n$0\r\n\r\n$20\r\n18446744073709551615\r\n";
	struct redis_output output = {.bytes = NULL};
	unsigned char sink[256];

	(void)state;
	redis_output_command(&output, 4, "SET");
	redis_output_string(&output, "a\0b", 3);
	redis_output_string(&output, NULL, 0);
	redis_output_number(&output, UINT64_MAX);
	assert_int_equal(output.queued, sizeof(expected) - 1);
	assert_int_equal(drain(&output, sizeof(sink), 8, sink), sizeof(expected) - 1);
	assert_memory_equal(sink, expected, sizeof(expected) - 1);
	assert_int_equal(drain(&output, sizeof(sink), 8, sink), 0);
	redis_output_reset(&output);
}

static void rollback_takes_back_a_command_and_what_it_lent(void **state)
{
	struct redis_output output = {.bytes = NULL};
	char *large = calloc(1, REDIS_OUTPUT_COPY_MAX + 1);
	struct redis_output_mark mark;
	unsigned char sink[64];

	(void)state;
	redis_output_command(&output, 1, "A");
	mark = redis_output_mark(&output);
	redis_output_command(&output, 2, "B");
	redis_output_lend(&output, large, REDIS_OUTPUT_COPY_MAX + 1);
	redis_output_rollback(&output, mark);
	assert_int_equal(output.queued, 11);
	assert_int_equal(drain(&output, sizeof(sink), 8, sink), 11);
	assert_memory_equal(sink, "*1\r\n$1\r\nA\r\n", 11);
	assert_int_equal(output.sent, output.queued);
	redis_output_reset(&output);
	free(large);
}

/* Arguments of all lengths go in while a socket of many moods takes them out. */
static void any_partial_sends_give_the_same_stream(void **state)
{
	static const size_t lengths[] = {0, 1, 100, 5000, REDIS_OUTPUT_COPY_MAX, REDIS_OUTPUT_COPY_MAX + 1, 200000};
	struct redis_output output = {.bytes = NULL};
	unsigned char *sink = malloc(STREAM_MAX), *expected = malloc(STREAM_MAX), *noise = malloc(200000);
	size_t got = 0, made = 0;

	(void)state;
	for (size_t i = 0; i < 200000; i++)
		noise[i] = (unsigned char)next_random();
	for (int i = 0; i < 300; i++) {
		size_t length = lengths[next_random() % 7], from = next_random() % (200000 - length + 1);

		redis_output_command(&output, 2, "X");
		redis_output_lend(&output, noise + from, length);
		made += (size_t)sprintf((char *)expected + made, "*2\r\n$1\r\nX\r\n$%zu\r\n", length);
		memcpy(expected + made, noise + from, length);
		made += length;
		memcpy(expected + made, "\r\n", 2);
		made += 2;
		for (uint64_t sends = next_random() % 4; sends > 0; sends--)
			got += drain(&output, next_random() % 100000, 2 + next_random() % 7, sink + got);
		assert_int_equal(output.queued, made);
		assert_int_equal(output.sent, got);
	}
	while (got < made)
		got += drain(&output, 1 + next_random() % 300000, 8, sink + got);
	assert_int_equal(got, made);
	assert_memory_equal(sink, expected, made);
	/* Nothing is kept that was sent. */
	assert_int_equal(output.length, 0);
	assert_int_equal(output.lent_count, 0);
	redis_output_reset(&output);
	free(sink);
	free(expected);
	free(noise);
}

static void output_that_never_runs_empty_does_not_grow(void **state)
{
	struct redis_output output = {.bytes = NULL};
	unsigned char *sink = malloc(STREAM_MAX);
	char value[1000] = "";

	(void)state;
	for (int i = 0; i < 20000; i++) {
		redis_output_command(&output, 2, "X");
		redis_output_string(&output, value, sizeof(value));
		if (i > 100)
			(void)drain(&output, 1019, 8, sink);
	}
	assert_true(output.queued > output.sent);
	assert_in_range(output.capacity, 1, 1 << 20);
	redis_output_reset(&output);
	free(sink);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(command_has_the_form_of_the_protocol),
		cmocka_unit_test(rollback_takes_back_a_command_and_what_it_lent),
		cmocka_unit_test(any_partial_sends_give_the_same_stream),
		cmocka_unit_test(output_that_never_runs_empty_does_not_grow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
