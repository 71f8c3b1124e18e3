/* tlv_test.c - control messages: what is written is read, and nothing else is believed. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "shm/tlv.h"

static int64_t make_message(unsigned char *buffer, size_t capacity)
{
	struct rshm_tlv_writer writer;

	rshm_tlv_begin(&writer, buffer, capacity, RSHM_CONTROL_ATTACH, RSHM_E_AGAIN, 0xdeadbeef);
	rshm_tlv_text(&writer, RSHM_TAG_TENANT, "shop");
	rshm_tlv_u32(&writer, RSHM_TAG_LAYOUT_MAJOR, 7);
	rshm_tlv_bytes(&writer, RSHM_TAG_TICKET, "0123456789abcdef", 16);
	rshm_tlv_u64(&writer, RSHM_TAG_AGENT_SIZE, 1ull << 40);
	rshm_tlv_text(&writer, RSHM_TAG_ERROR_TEXT, "");
	return rshm_tlv_finish(&writer);
}

static void message_is_read_as_it_was_written(void **state)
{
	unsigned char buffer[256];
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;
	int64_t length = make_message(buffer, sizeof(buffer));
	char text[8];
	uint32_t u32;
	uint64_t u64;

	(void)state;
	assert_true(length > 0);
	assert_int_equal(rshm_tlv_open(&reader, buffer, (size_t)length, &header), RSHM_OK);
	assert_int_equal(header.op, RSHM_CONTROL_ATTACH);
	assert_int_equal(header.status, RSHM_E_AGAIN);
	assert_int_equal(header.request_id, 0xdeadbeef);
	assert_int_equal(rshm_tlv_next(&reader, &tlv), 1);
	assert_true(rshm_tlv_get_text(&tlv, text, sizeof(text)));
	assert_string_equal(text, "shop");
	assert_false(rshm_tlv_get_text(&tlv, text, 4));
	assert_int_equal(rshm_tlv_next(&reader, &tlv), 1);
	assert_true(rshm_tlv_get_u32(&tlv, &u32));
	assert_int_equal(u32, 7);
	assert_false(rshm_tlv_get_u64(&tlv, &u64));
	assert_int_equal(rshm_tlv_next(&reader, &tlv), 1);
	assert_int_equal(tlv.length, 16);
	assert_int_equal(rshm_tlv_next(&reader, &tlv), 1);
	assert_true(rshm_tlv_get_u64(&tlv, &u64));
	assert_true(u64 == 1ull << 40);
	assert_int_equal(rshm_tlv_next(&reader, &tlv), 1);
	assert_int_equal(tlv.length, 0);
	assert_int_equal(rshm_tlv_next(&reader, &tlv), 0);
}

static void message_that_does_not_fit_is_never_half_sent(void **state)
{
	unsigned char buffer[256];
	int64_t whole = make_message(buffer, sizeof(buffer));

	(void)state;
	for (size_t capacity = 0; capacity < (size_t)whole; capacity++)
		assert_int_equal(make_message(buffer, capacity), RSHM_E_TOOBIG);
	assert_int_equal(make_message(buffer, (size_t)whole), whole);
}

static void truncation_at_any_byte_is_noticed(void **state)
{
	unsigned char buffer[256];
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
	int64_t whole = make_message(buffer, sizeof(buffer));

	(void)state;
	for (size_t length = 0; length < (size_t)whole; length++)
		assert_int_equal(rshm_tlv_open(&reader, buffer, length, &header), RSHM_E_PROTOCOL);
	buffer[2]++;
	assert_int_equal(rshm_tlv_open(&reader, buffer, (size_t)whole, &header), RSHM_E_UNSUPPORTED);
	buffer[0]++;
	assert_int_equal(rshm_tlv_open(&reader, buffer, (size_t)whole, &header), RSHM_E_PROTOCOL);
}

static void tag_longer_than_the_rest_is_refused(void **state)
{
	unsigned char buffer[256];
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;
	int64_t whole = make_message(buffer, sizeof(buffer));

	(void)state;
	memset(buffer + sizeof(header) + 2, 0xff, 4);
	assert_int_equal(rshm_tlv_open(&reader, buffer, (size_t)whole, &header), RSHM_OK);
	assert_int_equal(rshm_tlv_next(&reader, &tlv), RSHM_E_PROTOCOL);
}

static void random_bytes_never_lead_outside_the_message(void **state)
{
	unsigned char *bytes = malloc(64);

	(void)state;
	srand(3);
	for (unsigned int i = 0; i < 1000000; i++) {
		size_t length = (size_t)rand() % 65;
		unsigned char *exact = malloc(length ? length : 1);
		struct rshm_control_header header;
		struct rshm_tlv_reader reader;
		struct rshm_tlv tlv;

		make_message(bytes, 64);
		memcpy(exact, bytes, length);
		for (unsigned int k = 0; k < 6 && length > 16; k++)
			exact[16 + (size_t)rand() % (length - 16)] = (unsigned char)rand();
		if (length >= 16) {
			exact[12] = (unsigned char)(length - 16);
			exact[13] = exact[14] = exact[15] = 0;
		}
		if (rshm_tlv_open(&reader, exact, length, &header) == RSHM_OK)
			while (rshm_tlv_next(&reader, &tlv) == 1)
				assert_true(tlv.value + tlv.length <= exact + length);
		free(exact);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(message_is_read_as_it_was_written),
		cmocka_unit_test(message_that_does_not_fit_is_never_half_sent),
		cmocka_unit_test(truncation_at_any_byte_is_noticed),
		cmocka_unit_test(tag_longer_than_the_rest_is_refused),
		cmocka_unit_test(random_bytes_never_lead_outside_the_message),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
