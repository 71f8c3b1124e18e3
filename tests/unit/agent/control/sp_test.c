#include "agent/control/sp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/msg.h"

#define BODY_MAX 1000u

static const unsigned char hello[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};

/* What a whole stream came to. */
struct outcome {
	int error;
	unsigned int hellos, messages;
	size_t body_length;     /* of the present message */
	size_t lengths[8];      /* of whole messages */
	unsigned char first[8]; /* first byte of each */
	unsigned char body[4 * BODY_MAX];
};

static void note_body(struct outcome *o, const struct sp_step *step)
{
	assert_true(o->body_length + step->body_length <= sizeof(o->body));
	if (step->body_length > 0)
		memcpy(o->body + o->body_length, step->body, step->body_length);
	o->body_length += step->body_length;
}

static void feed(struct sp *sp, struct outcome *o, const unsigned char *bytes, size_t length)
{
	struct sp_step step;
	size_t at = 0;

	while (o->error == 0) {
		int event = sp_feed(sp, bytes + at, length - at, &step);

		assert_true(step.used <= length - at);
		at += step.used;
		if (event < 0) {
			o->error = event;
		} else if (event == SP_EVENT_HELLO) {
			o->hellos++;
		} else if (event == SP_EVENT_MORE) {
			assert_int_equal(at, length);
			return;
		} else {
			note_body(o, &step);
			if (event == SP_EVENT_BODY)
				continue;
			if (o->messages < 8) {
				o->lengths[o->messages] = o->body_length;
				o->first[o->messages] = o->body[0];
			}
			o->messages++;
			o->body_length = 0;
		}
	}
}

/* Appends a frame; `hops` words, the last with the high bit. */
static size_t put_frame(unsigned char *to, unsigned int hops, const void *body, size_t body_length)
{
	uint64_t length = hops * 4u + body_length;
	size_t at = 0;

	to[at++] = 1;
	for (int shift = 56; shift >= 0; shift -= 8)
		to[at++] = (unsigned char)(length >> shift);
	for (unsigned int i = 1; i <= hops; i++) {
		to[at++] = i == hops ? 0x80 : 0;
		to[at++] = 0;
		to[at++] = 0;
		to[at++] = (unsigned char)i;
	}
	if (body_length > 0)
		memcpy(to + at, body, body_length);
	return at + body_length;
}

static size_t put_hello(unsigned char *to)
{
	memcpy(to, hello, sizeof(hello));
	return sizeof(hello);
}

static int error_of(const unsigned char *bytes, size_t length)
{
	struct outcome o = {0};
	struct sp sp;

	sp_init(&sp, BODY_MAX);
	feed(&sp, &o, bytes, length);
	return o.error;
}

static void every_split_of_a_stream_gives_the_same_messages(void **state)
{
	unsigned char stream[256];
	size_t length = put_hello(stream);

	(void)state;
	length += put_frame(stream + length, 1, "abc", 3);
	length += put_frame(stream + length, 3, "", 0);
	length += put_frame(stream + length, 2, "xyzw", 4);
	for (size_t first = 0; first <= length; first++)
		for (size_t second = first; second <= length; second++) {
			struct outcome o = {0};
			struct sp sp;

			sp_init(&sp, BODY_MAX);
			feed(&sp, &o, stream, first);
			feed(&sp, &o, stream + first, second - first);
			feed(&sp, &o, stream + second, length - second);
			assert_int_equal(o.error, 0);
			assert_int_equal(o.hellos, 1);
			assert_int_equal(o.messages, 3);
			assert_int_equal(o.lengths[0], 3);
			assert_int_equal(o.lengths[1], 0);
			assert_int_equal(o.lengths[2], 4);
			assert_int_equal(o.first[0], 'a');
			assert_int_equal(o.first[2], 'x');
			assert_true(sp_is_idle(&sp));
		}
}

static void byte_by_byte_the_machine_is_idle_only_between_frames(void **state)
{
	unsigned char stream[64];
	size_t length = put_hello(stream), hello_length = length;
	struct outcome o = {0};
	struct sp sp;

	(void)state;
	length += put_frame(stream + length, 1, "abc", 3);
	sp_init(&sp, BODY_MAX);
	for (size_t i = 0; i < length; i++) {
		assert_int_equal(sp_is_idle(&sp), i == hello_length);
		feed(&sp, &o, stream + i, 1);
	}
	assert_true(sp_is_idle(&sp));
	assert_int_equal(o.messages, 1);
}

static void answer_carries_the_backtrace_of_its_request(void **state)
{
	unsigned char stream[128], head[SP_HEAD_BYTES + SP_TRACE_MAX], wanted[128];
	struct outcome o = {0};
	struct sp sp;
	size_t length = put_hello(stream), head_length;

	(void)state;
	length += put_frame(stream + length, SP_HOPS_MAX, "q", 1);
	sp_init(&sp, BODY_MAX);
	feed(&sp, &o, stream, length);
	assert_int_equal(o.messages, 1);
	head_length = sp_answer_head(&sp, 5, head);
	assert_int_equal(head_length, sizeof(head));
	put_frame(wanted, SP_HOPS_MAX, "12345", 5);
	assert_memory_equal(head, wanted, head_length);
}

static void hello_of_another_kind_is_refused_at_its_first_wrong_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(hello); i++)
		for (unsigned int bit = 0; bit < 8; bit++) {
			unsigned char wrong[8];

			memcpy(wrong, hello, sizeof(hello));
			wrong[i] ^= (unsigned char)(1u << bit);
			assert_int_equal(error_of(wrong, i), 0);
			assert_int_equal(error_of(wrong, i + 1), RSHM_E_PROTOCOL);
		}
}

static void frame_of_an_unknown_type_is_refused(void **state)
{
	unsigned char stream[64];
	size_t length = put_hello(stream);

	(void)state;
	put_frame(stream + length, 1, "abc", 3);
	for (unsigned int type = 0; type < 256; type++) {
		stream[length] = (unsigned char)type;
		assert_int_equal(error_of(stream, length + 1), type == 1 ? 0 : RSHM_E_PROTOCOL);
	}
}

static void body_of_the_limit_passes_and_one_byte_more_does_not(void **state)
{
	static unsigned char stream[2 * BODY_MAX], body[BODY_MAX + 1];
	size_t length = put_hello(stream), whole;
	struct outcome o = {0};
	struct sp sp;

	(void)state;
	whole = length + put_frame(stream + length, 1, body, BODY_MAX);
	sp_init(&sp, BODY_MAX);
	feed(&sp, &o, stream, whole);
	assert_int_equal(o.error, 0);
	assert_int_equal(o.lengths[0], BODY_MAX);
	put_frame(stream + length, 1, body, BODY_MAX + 1);
	/* Known as soon as head and backtrace are there, before any of the body. */
	assert_int_equal(error_of(stream, length + 9 + 4), RSHM_E_TOOBIG);
}

static void length_that_lies_is_refused_with_the_head(void **state)
{
	unsigned char stream[32];
	size_t length = put_hello(stream);

	(void)state;
	stream[length] = 1;
	memset(stream + length + 1, 0xff, 8);
	assert_int_equal(error_of(stream, length + 9), RSHM_E_TOOBIG);
	memset(stream + length + 1, 0, 8);
	for (unsigned int tiny = 0; tiny < 4; tiny++) {
		stream[length + 8] = (unsigned char)tiny;
		assert_int_equal(error_of(stream, length + 9), RSHM_E_PROTOCOL);
	}
}

static void backtrace_without_an_end_is_refused(void **state)
{
	unsigned char stream[256];
	size_t length = put_hello(stream), whole;

	(void)state;
	/* It does not end before its frame does. */
	whole = length + put_frame(stream + length, 2, "", 0);
	stream[length + 9 + 4] = 0;
	assert_int_equal(error_of(stream, whole), RSHM_E_PROTOCOL);
	/* Half a word is left. */
	put_frame(stream + length, 1, "ab", 2);
	stream[length + 9] = 0;
	assert_int_equal(error_of(stream, length + 9 + 4), RSHM_E_PROTOCOL);
	/* One hop too many. */
	whole = length + put_frame(stream + length, SP_HOPS_MAX + 1, "abc", 3);
	assert_int_equal(error_of(stream, whole), RSHM_E_PROTOCOL);
	whole = length + put_frame(stream + length, SP_HOPS_MAX, "abc", 3);
	assert_int_equal(error_of(stream, whole), 0);
}

static void after_an_error_nothing_is_taken_any_more(void **state)
{
	struct sp_step step;
	struct sp sp;

	(void)state;
	sp_init(&sp, BODY_MAX);
	assert_int_equal(sp_feed(&sp, "x", 1, &step), RSHM_E_PROTOCOL);
	assert_int_equal(sp_feed(&sp, hello, sizeof(hello), &step), RSHM_E_PROTOCOL);
	assert_int_equal(step.used, 0);
	assert_int_equal(sp_feed(&sp, hello, 0, &step), RSHM_E_PROTOCOL);
}

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint32_t random_u32(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 16);
}

/* Starts as a good stream, so that every state is reached, then goes wrong by a byte or at random. */
static void one_million_streams_of_garbage_end_in_order(void **state)
{
	unsigned char good[128], stream[128];
	size_t good_length = put_hello(good);
	unsigned int errors = 0, messages = 0;

	(void)state;
	good_length += put_frame(good + good_length, 2, "abcdef", 6);
	good_length += put_frame(good + good_length, 1, "ghi", 3);
	for (unsigned int round = 0; round < 1000000; round++) {
		struct sp_step step;
		struct sp sp;
		size_t at = 0, cut = random_u32() % good_length;
		int event = SP_EVENT_MORE;

		memcpy(stream, good, sizeof(good));
		for (size_t i = cut; i < good_length; i++)
			if (i == cut || round % 2 == 0)
				stream[i] = (unsigned char)random_u32();
		sp_init(&sp, 64);
		while (at < good_length && event >= 0) {
			size_t piece = 1 + random_u32() % (good_length - at);

			event = sp_feed(&sp, stream + at, piece, &step);
			assert_true(step.used <= piece && step.body_length <= step.used);
			assert_true(event < 0 || step.used > 0);
			messages += event == SP_EVENT_MESSAGE;
			at += step.used;
		}
		assert_true(event >= 0 || event == RSHM_E_PROTOCOL || event == RSHM_E_TOOBIG);
		errors += event < 0;
	}
	assert_true(errors > 100000);
	assert_true(messages > 100000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_split_of_a_stream_gives_the_same_messages),
		cmocka_unit_test(byte_by_byte_the_machine_is_idle_only_between_frames),
		cmocka_unit_test(answer_carries_the_backtrace_of_its_request),
		cmocka_unit_test(hello_of_another_kind_is_refused_at_its_first_wrong_byte),
		cmocka_unit_test(frame_of_an_unknown_type_is_refused),
		cmocka_unit_test(body_of_the_limit_passes_and_one_byte_more_does_not),
		cmocka_unit_test(length_that_lies_is_refused_with_the_head),
		cmocka_unit_test(backtrace_without_an_end_is_refused),
		cmocka_unit_test(after_an_error_nothing_is_taken_any_more),
		cmocka_unit_test(one_million_streams_of_garbage_end_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
