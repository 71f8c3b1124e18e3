#include "agent/store/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "agent/store/compress.h"
#include "shm/msg.h"
#include "tests/unit/agent/store/json_samples.h"

#if RIPTIDE_COMPRESSION
#include <lz4.h>
#include <zstd.h>
#endif

#define NOW 1700000000000ull

/* What a value becomes that compresses well: a build without compression stores it as it is. */
#define LZ4_HERE (RIPTIDE_COMPRESSION ? ENVELOPE_LZ4 : ENVELOPE_PLAIN)
#define ZSTD_HERE (RIPTIDE_COMPRESSION ? ENVELOPE_ZSTD : ENVELOPE_PLAIN)

static const struct envelope_compression lz4_always = {.choice = ENVELOPE_CHOOSE_LZ4, .threshold = 0};
static const struct envelope_compression zstd_always = {.choice = ENVELOPE_CHOOSE_ZSTD, .threshold = 0};

static struct envelope_input make_input(const void *value, size_t value_len)
{
	return (struct envelope_input){
		.key = "the key",
		.key_len = 7,
		.metadata = "meta",
		.metadata_len = 4,
		.value = value,
		.value_len = value_len,
		.created_ms = NOW,
		.expiry_ms = NOW + 5000,
		.version = 0x0102030405060708,
		.writer_id = 0xa1a2a3a4,
	};
}

/* The same bytes every time; xorshift does not compress. */
static unsigned char *make_noise(size_t length)
{
	unsigned char *bytes = malloc(length + 1);
	uint64_t state = 88172645463325252ull;

	assert_non_null(bytes);
	for (size_t i = 0; i < length; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		bytes[i] = (unsigned char)state;
	}
	return bytes;
}

static uint32_t get_u32(const void *bytes, size_t offset)
{
	const unsigned char *p = (const unsigned char *)bytes + offset;

	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_u32(void *bytes, size_t offset, uint32_t value)
{
	unsigned char *p = (unsigned char *)bytes + offset;

	for (int i = 0; i < 4; i++)
		p[i] = (unsigned char)(value >> (8 * i));
}

/* What a liar does who can compute checksums. */
static void mend_checksum(struct envelope_buffer *buffer)
{
	unsigned char *bytes = buffer->bytes;
	uint64_t sum = XXH3_64bits_withSeed(bytes + ENVELOPE_HEAD_BYTES, buffer->length - ENVELOPE_HEAD_BYTES,
					    XXH3_64bits(bytes, ENVELOPE_OFFSET_EXPIRY));

	put_u32(bytes, ENVELOPE_OFFSET_CHECKSUM, (uint32_t)sum);
	put_u32(bytes, ENVELOPE_OFFSET_CHECKSUM + 4, (uint32_t)(sum >> 32));
}

static void assert_round_trip(const void *value, size_t length, const struct envelope_compression *compression,
			      unsigned algorithm)
{
	struct envelope_input input = make_input(value, length);
	struct envelope_buffer buffer;
	struct envelope_view view;
	unsigned char *plain = malloc(length + 1);

	assert_non_null(plain);
	assert_int_equal(envelope_encode(&input, compression, &buffer), RSHM_OK);
	assert_int_equal(envelope_open(buffer.bytes, buffer.length, "the key", 7, &view), RSHM_OK);
	assert_int_equal(view.head.algorithm, algorithm);
	assert_int_equal(view.head.plain_size, length);
	assert_int_equal(view.head.version, 0x0102030405060708);
	assert_int_equal(view.head.writer_id, 0xa1a2a3a4);
	assert_int_equal(view.head.created_ms, NOW);
	assert_int_equal(view.head.expiry_ms, NOW + 5000);
	assert_int_equal(view.head.metadata_len, 4);
	assert_memory_equal(view.key, "the key", 7);
	assert_memory_equal(view.metadata, "meta", 4);
	assert_int_equal(envelope_length(&view.head), buffer.length);
	plain[length] = 0x5a;
	assert_int_equal(envelope_payload(&view, plain, length), RSHM_OK);
	if (length > 0) {
		assert_memory_equal(plain, value, length);
		assert_int_equal(envelope_payload(&view, plain, length - 1), RSHM_E_TOOSMALL);
	}
	assert_int_equal(plain[length], 0x5a);
	free(plain);
	envelope_buffer_fini(&buffer);
	assert_null(buffer.bytes);
}

static void envelope_returns_what_was_put_in(void **state)
{
	unsigned char zeros[5000] = {0};

	(void)state;
	assert_round_trip("value", 5, NULL, ENVELOPE_PLAIN);
	assert_round_trip("", 0, NULL, ENVELOPE_PLAIN);
	assert_round_trip(NULL, 0, &lz4_always, ENVELOPE_PLAIN);
	assert_round_trip(NULL, 0, &zstd_always, ENVELOPE_PLAIN);
	assert_round_trip("a\0b\xff\n", 5, NULL, ENVELOPE_PLAIN);
	assert_round_trip(zeros, sizeof zeros, NULL, ENVELOPE_PLAIN);
	assert_round_trip(zeros, sizeof zeros, &lz4_always, LZ4_HERE);
	assert_round_trip(zeros, sizeof zeros, &zstd_always, ZSTD_HERE);
}

static void envelope_carries_twenty_mebibytes(void **state)
{
	size_t length = 20u << 20;
	unsigned char *noise = make_noise(length);
	unsigned char *text = calloc(1, length);

	(void)state;
	assert_non_null(text);
	for (size_t i = 0; i < length; i += 16)
		text[i] = noise[i];
	assert_round_trip(noise, length, &lz4_always, ENVELOPE_PLAIN);
	assert_round_trip(noise, length, &zstd_always, ENVELOPE_PLAIN);
	assert_round_trip(text, length, &lz4_always, LZ4_HERE);
	assert_round_trip(text, length, &zstd_always, ZSTD_HERE);
	free(noise);
	free(text);
}

static void envelope_accepts_the_longest_key_and_metadata_and_refuses_longer(void **state)
{
	unsigned char *bytes = make_noise(ENVELOPE_VALUE_MAX + 1);
	struct envelope_input input = make_input(bytes, 10);
	struct envelope_buffer buffer;
	struct envelope_view view;

	(void)state;
	input.key = input.metadata = bytes;
	input.key_len = RSHM_KEY_MAX;
	input.metadata_len = RSHM_METADATA_MAX;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	assert_int_equal(envelope_open(buffer.bytes, buffer.length, bytes, RSHM_KEY_MAX, &view), RSHM_OK);
	assert_memory_equal(view.metadata, bytes, RSHM_METADATA_MAX);
	envelope_buffer_fini(&buffer);
	input.key_len = RSHM_KEY_MAX + 1;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_E_TOOBIG);
	input.key_len = 0;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_E_INVALID);
	input.key_len = 1;
	input.metadata_len = RSHM_METADATA_MAX + 1;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_E_TOOBIG);
	input.metadata_len = 0;
	input.value_len = ENVELOPE_VALUE_MAX + 1;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_E_TOOBIG);
	assert_null(buffer.bytes);
	free(bytes);
}

static void envelope_refuses_every_changed_byte_but_those_of_the_expiry(void **state)
{
	unsigned char value[300];
	struct envelope_input input = make_input(value, sizeof value);
	const struct envelope_compression *choices[] = {NULL, &lz4_always, &zstd_always};

	(void)state;
	for (size_t i = 0; i < sizeof value; i++)
		value[i] = (unsigned char)(i % 7);
	for (size_t c = 0; c < 3; c++) {
		struct envelope_buffer buffer;
		struct envelope_view view;
		unsigned char *bytes;

		assert_int_equal(envelope_encode(&input, choices[c], &buffer), RSHM_OK);
		bytes = buffer.bytes;
		for (size_t i = 0; i < buffer.length; i++) {
			unsigned char old = bytes[i];
			int free_field = i >= ENVELOPE_OFFSET_EXPIRY && i < ENVELOPE_OFFSET_CHECKSUM;

			for (unsigned change = 1; change < 256; change++) {
				int status;

				bytes[i] = (unsigned char)(old ^ change);
				status = envelope_open(bytes, buffer.length, NULL, 0, &view);
				if (free_field)
					assert_int_equal(status, RSHM_OK);
				else
					assert_true(status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT);
			}
			bytes[i] = old;
		}
		assert_int_equal(envelope_open(bytes, buffer.length, NULL, 0, &view), RSHM_OK);
		envelope_buffer_fini(&buffer);
	}
}

static void envelope_refuses_every_truncation_and_what_is_too_long(void **state)
{
	struct envelope_input input = make_input("some value", 10);
	struct envelope_buffer buffer;
	struct envelope_view view;

	(void)state;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	for (size_t length = 0; length <= buffer.length + 1; length++) {
		/* An exact copy, so that the sanitizer sees any look beyond the end. */
		unsigned char *copy = calloc(1, length + (length == 0));
		int status;

		assert_non_null(copy);
		memcpy(copy, buffer.bytes, length < buffer.length ? length : buffer.length);
		status = envelope_open(copy, length, NULL, 0, &view);
		assert_int_equal(status, length == buffer.length ? RSHM_OK : RSHM_E_CORRUPT);
		free(copy);
	}
	envelope_buffer_fini(&buffer);
}

static void envelope_refuses_another_key(void **state)
{
	struct envelope_input input = make_input("v", 1);
	struct envelope_buffer buffer;
	struct envelope_view view;

	(void)state;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	assert_int_equal(envelope_open(buffer.bytes, buffer.length, "the kez", 7, &view), RSHM_E_CORRUPT);
	assert_int_equal(envelope_open(buffer.bytes, buffer.length, "the ke", 6, &view), RSHM_E_CORRUPT);
	assert_int_equal(envelope_open(buffer.bytes, buffer.length, "the keym", 8, &view), RSHM_E_CORRUPT);
	envelope_buffer_fini(&buffer);
}

static void envelope_refuses_newer_formats_by_a_code_of_their_own(void **state)
{
	/* format, algorithm, flags, dictionary id, tag count, reserved */
	static const size_t offsets[] = {4, 5, 6, 36, 44, 46};
	struct envelope_input input = make_input("v", 1);
	struct envelope_buffer buffer;
	struct envelope_view view;
	struct envelope_head head;

	(void)state;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
		unsigned char *at = (unsigned char *)buffer.bytes + offsets[i], old = *at;

		*at = 77;
		mend_checksum(&buffer);
		assert_int_equal(envelope_open(buffer.bytes, buffer.length, NULL, 0, &view), RSHM_E_FORMAT);
		assert_int_equal(envelope_peek_head(buffer.bytes, buffer.length, &head), RSHM_E_FORMAT);
		*at = old;
	}
	envelope_buffer_fini(&buffer);
}

static void envelope_refuses_sizes_that_lie_under_a_right_checksum(void **state)
{
	unsigned char zeros[5000] = {0}, plain[8192];
	struct envelope_input input = make_input(zeros, sizeof zeros);
	static const uint32_t lies[] = {
		0, 1, 4999, 5001, 6000, 8192, ENVELOPE_VALUE_MAX, ENVELOPE_VALUE_MAX + 1, UINT32_MAX};
	const struct envelope_compression *choices[] = {NULL, &lz4_always, &zstd_always};

	(void)state;
	for (size_t c = 0; c < 3; c++) {
		struct envelope_buffer buffer;

		assert_int_equal(envelope_encode(&input, choices[c], &buffer), RSHM_OK);
		for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
			for (size_t offset = 24; offset <= 28; offset += 4) {
				struct envelope_view view;
				uint32_t old = get_u32(buffer.bytes, offset);
				int status;

				put_u32(buffer.bytes, offset, lies[i]);
				mend_checksum(&buffer);
				status = envelope_open(buffer.bytes, buffer.length, NULL, 0, &view);
				if (status == RSHM_OK && view.head.plain_size <= sizeof plain)
					status = envelope_payload(&view, plain, sizeof plain);
				else if (status == RSHM_OK)
					status = RSHM_E_TOOSMALL;
				assert_true(status == RSHM_E_CORRUPT || status == RSHM_E_TOOSMALL);
				put_u32(buffer.bytes, offset, old);
			}
		}
		envelope_buffer_fini(&buffer);
	}
}

#if RIPTIDE_COMPRESSION
static void envelope_survives_payloads_of_garbage(void **state)
{
	unsigned char zeros[5000] = {0}, plain[5000], *noise = make_noise(4096);
	struct envelope_input input = make_input(zeros, sizeof zeros);
	const struct envelope_compression *choices[] = {&lz4_always, &zstd_always};
	int refused = 0;

	(void)state;
	for (size_t round = 0; round < 2000; round++) {
		struct envelope_buffer buffer;
		struct envelope_view view;
		unsigned char *payload;

		assert_int_equal(envelope_encode(&input, choices[round % 2], &buffer), RSHM_OK);
		payload = (unsigned char *)buffer.bytes + ENVELOPE_HEAD_BYTES + 11;
		payload[round % (buffer.length - ENVELOPE_HEAD_BYTES - 11)] ^= noise[round] | 1;
		mend_checksum(&buffer);
		assert_int_equal(envelope_open(buffer.bytes, buffer.length, NULL, 0, &view), RSHM_OK);
		refused += envelope_payload(&view, plain, sizeof plain) == RSHM_E_CORRUPT;
		envelope_buffer_fini(&buffer);
	}
	assert_true(refused > 1000);
	free(noise);
}
#endif

static struct envelope_head head_of(const void *value, size_t length, const struct envelope_compression *compression)
{
	struct envelope_input input = make_input(value, length);
	struct envelope_buffer buffer;
	struct envelope_head head;

	assert_int_equal(envelope_encode(&input, compression, &buffer), RSHM_OK);
	assert_int_equal(envelope_peek_head(buffer.bytes, buffer.length, &head), RSHM_OK);
	envelope_buffer_fini(&buffer);
	return head;
}

static unsigned algorithm_of(const void *value, size_t length, const struct envelope_compression *compression)
{
	return head_of(value, length, compression).algorithm;
}

static void envelope_compresses_only_above_the_threshold(void **state)
{
	unsigned char zeros[1025] = {0};
	struct envelope_compression compression = {.choice = ENVELOPE_CHOOSE_LZ4,
						   .threshold = ENVELOPE_THRESHOLD_DEFAULT};

	(void)state;
	assert_int_equal(algorithm_of(zeros, 1024, &compression), ENVELOPE_PLAIN);
	assert_int_equal(algorithm_of(zeros, 1025, &compression), LZ4_HERE);
	compression.threshold = 0;
	assert_int_equal(algorithm_of(zeros, 100, &compression), LZ4_HERE);
	compression.threshold = 1024;
	compression.choice = ENVELOPE_CHOOSE_NONE;
	assert_int_equal(algorithm_of(zeros, 1025, &compression), ENVELOPE_PLAIN);
}

static void envelope_auto_takes_lz4_up_to_100_kib_and_zstd_above(void **state)
{
	unsigned char *zeros = calloc(1, ENVELOPE_AUTO_LZ4_MAX + 1);
	struct envelope_compression compression = {.choice = ENVELOPE_CHOOSE_AUTO,
						   .threshold = ENVELOPE_THRESHOLD_DEFAULT};

	(void)state;
	assert_int_equal(algorithm_of(zeros, ENVELOPE_AUTO_LZ4_MAX, &compression), LZ4_HERE);
	assert_int_equal(algorithm_of(zeros, ENVELOPE_AUTO_LZ4_MAX + 1, &compression), ZSTD_HERE);
	free(zeros);
}

#if RIPTIDE_COMPRESSION
/* Sweeps the share of zeros through the border and holds each decision against the library's own result. */
static void envelope_compresses_exactly_when_less_than_nine_tenths_are_left(void **state)
{
	enum { LENGTH = 2000 };
	unsigned char *value = make_noise(LENGTH), *scratch = malloc(ZSTD_compressBound(LENGTH) + 1000);
	int seen[2][2] = {{0}}, border = 0;

	(void)state;
	for (size_t zeros = 0; zeros < 400; zeros++) {
		size_t lz4, zstd;

		if (zeros > 0)
			value[zeros - 1] = 0;
		lz4 = (size_t)LZ4_compress_default((char *)value, (char *)scratch, LENGTH, LZ4_compressBound(LENGTH));
		zstd = ZSTD_compress(scratch, ZSTD_compressBound(LENGTH), value, LENGTH, 3);
		assert_int_equal(algorithm_of(value, LENGTH, &lz4_always),
				 lz4 < 1800 ? ENVELOPE_LZ4 : ENVELOPE_PLAIN);
		assert_int_equal(algorithm_of(value, LENGTH, &zstd_always),
				 zstd < 1800 ? ENVELOPE_ZSTD : ENVELOPE_PLAIN);
		seen[0][lz4 < 1800]++;
		seen[1][zstd < 1800]++;
		border += lz4 == 1799 || lz4 == 1800 || zstd == 1799 || zstd == 1800;
	}
	assert_true(seen[0][0] && seen[0][1] && seen[1][0] && seen[1][1]);
	assert_true(border >= 2);
	free(value);
	free(scratch);
}

static void envelope_takes_the_level_of_each_call(void **state)
{
	size_t length = 50000, lengths[2][3];
	struct json_samples samples = json_samples_make(1, 1, length);
	const char *value = samples.bytes;
	static const int accelerations[] = {0, 1, 16}, levels[] = {0, 3, 19};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct envelope_compression lz4 = {.choice = ENVELOPE_CHOOSE_LZ4,
						   .lz4_acceleration = accelerations[i]};
		struct envelope_compression zstd = {.choice = ENVELOPE_CHOOSE_ZSTD, .zstd_level = levels[i]};

		assert_round_trip(value, length, &lz4, ENVELOPE_LZ4);
		assert_round_trip(value, length, &zstd, ENVELOPE_ZSTD);
		lengths[0][i] = head_of(value, length, &lz4).stored_size;
		lengths[1][i] = head_of(value, length, &zstd).stored_size;
	}
	assert_int_equal(lengths[0][0], lengths[0][1]);
	assert_true(lengths[0][2] > lengths[0][1]);
	assert_int_equal(lengths[1][0], lengths[1][1]);
	assert_true(lengths[1][2] < lengths[1][1]);
	json_samples_free(&samples);
}
#else

/* Of a program that can compress, under a right checksum. */
static void envelope_of_a_compressing_program_opens_but_its_value_is_refused(void **state)
{
	struct envelope_input input = make_input("value", 5);
	struct envelope_buffer buffer;
	struct envelope_view view;
	char plain[5] = "-----";

	(void)state;
	for (unsigned char algorithm = ENVELOPE_LZ4; algorithm <= ENVELOPE_ZSTD; algorithm++) {
		assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
		((unsigned char *)buffer.bytes)[5] = algorithm;
		mend_checksum(&buffer);
		assert_int_equal(envelope_open(buffer.bytes, buffer.length, "the key", 7, &view), RSHM_OK);
		assert_int_equal(envelope_payload(&view, plain, sizeof plain), RSHM_E_FORMAT);
		assert_memory_equal(plain, "-----", 5);
		envelope_buffer_fini(&buffer);
	}
}
#endif

static void envelope_carries_tags_and_flags(void **state)
{
	uint64_t epochs[ENVELOPE_TAGS_MAX];
	struct envelope_input input = make_input("value", 5);
	struct envelope_buffer buffer;
	struct envelope_view view;

	(void)state;
	for (size_t i = 0; i < ENVELOPE_TAGS_MAX; i++)
		epochs[i] = 0x0101010101010101u * i + 7;
	input.tag_epochs = epochs;
	for (uint16_t count = 0; count <= ENVELOPE_TAGS_MAX; count++) {
		char plain[5];

		input.tag_count = count;
		input.flags = count % 2 ? ENVELOPE_FLAG_TOMBSTONE : 0;
		assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
		assert_int_equal(buffer.length, ENVELOPE_HEAD_BYTES + 8u * count + 7 + 4 + 5);
		assert_int_equal(envelope_open(buffer.bytes, buffer.length, "the key", 7, &view), RSHM_OK);
		assert_int_equal(view.head.tag_count, count);
		assert_int_equal(view.head.flags, input.flags);
		assert_int_equal(envelope_key_offset(&view.head), ENVELOPE_HEAD_BYTES + 8u * count);
		for (size_t i = 0; i < count; i++)
			assert_int_equal(envelope_tag_epoch(&view, i), epochs[i]);
		assert_memory_equal(view.metadata, "meta", 4);
		assert_int_equal(envelope_payload(&view, plain, 5), RSHM_OK);
		assert_memory_equal(plain, "value", 5);
		envelope_buffer_fini(&buffer);
	}
	input.tag_count = ENVELOPE_TAGS_MAX + 1;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_E_TOOBIG);
	input.tag_count = 1;
	input.flags = 2;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_E_INVALID);
	assert_null(buffer.bytes);
}

/* A head that promises more tags, or fewer, than there are moves key and lengths: no look beyond the end. */
static void envelope_refuses_tag_counts_that_lie_under_a_right_checksum(void **state)
{
	uint64_t epochs[2] = {1, 2};
	struct envelope_input input = make_input("value", 5);
	struct envelope_buffer buffer;
	struct envelope_view view;

	(void)state;
	input.tag_epochs = epochs;
	input.tag_count = 2;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	for (unsigned count = 0; count <= ENVELOPE_TAGS_MAX + 1; count++) {
		int expected = count == 2 ? RSHM_OK : count <= ENVELOPE_TAGS_MAX ? RSHM_E_CORRUPT : RSHM_E_FORMAT;

		((unsigned char *)buffer.bytes)[44] = (unsigned char)count;
		mend_checksum(&buffer);
		assert_int_equal(envelope_open(buffer.bytes, buffer.length, NULL, 0, &view), expected);
	}
	envelope_buffer_fini(&buffer);
}

/* Any bits flipped anywhere: the value as it was, or an error, never a crash and never other bytes. */
static void envelope_gives_the_right_bytes_or_none_whatever_is_flipped(void **state)
{
	unsigned char value[600], plain[600], copy[1000], *noise = make_noise(200000);
	uint64_t epochs[3] = {5, 6, 7};
	struct envelope_input input = make_input(value, sizeof value);
	const struct envelope_compression *choices[] = {NULL, &lz4_always, &zstd_always};
	size_t at = 0, refused = 0;

	(void)state;
	for (size_t i = 0; i < sizeof value; i++)
		value[i] = "eeettaoin \n"[noise[i] % 11];
	input.tag_epochs = epochs;
	input.tag_count = 3;
	for (size_t round = 0; round < 15000; round++) {
		struct envelope_buffer buffer;
		struct envelope_view view;
		int status;

		assert_int_equal(envelope_encode(&input, choices[round % 3], &buffer), RSHM_OK);
		assert_true(buffer.length <= sizeof copy);
		memcpy(copy, buffer.bytes, buffer.length);
		for (size_t flips = 0; flips <= round % 4; flips++, at += 3)
			copy[(noise[at] | (size_t)noise[at + 1] << 8) % buffer.length] ^= 1u << noise[at + 2] % 8;
		status = envelope_open(copy, buffer.length, "the key", 7, &view);
		if (status == RSHM_OK)
			status = envelope_payload(&view, plain, sizeof plain);
		if (status == RSHM_OK)
			assert_memory_equal(plain, value, sizeof value);
		refused += status != RSHM_OK;
		envelope_buffer_fini(&buffer);
	}
	assert_in_range(refused, 10000, 14999);
	free(noise);
}

static void envelope_touch_changes_the_expiry_and_nothing_else(void **state)
{
	struct envelope_input input = make_input("value", 5);
	struct envelope_buffer buffer;
	struct envelope_view before, after;

	(void)state;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	assert_int_equal(envelope_open(buffer.bytes, buffer.length, "the key", 7, &before), RSHM_OK);
	envelope_set_expiry(buffer.bytes, NOW, NOW + 7200001);
	assert_int_equal(envelope_open(buffer.bytes, buffer.length, "the key", 7, &after), RSHM_OK);
	assert_int_equal(after.head.expiry_ms, NOW + 7200001);
	assert_int_equal(after.head.expiry_bucket, (1700007201 + 59) / 60 * 60);
	assert_int_equal(after.head.version, before.head.version);
	assert_int_equal(after.head.checksum, before.head.checksum);
	envelope_buffer_fini(&buffer);
}

static void expiry_buckets_are_a_second_wide_below_an_hour_and_a_minute_above(void **state)
{
	(void)state;
	assert_int_equal(envelope_expiry_bucket(NOW, 0), 0);
	assert_int_equal(envelope_expiry_bucket(NOW, NOW + 1), 1700000001);
	assert_int_equal(envelope_expiry_bucket(NOW, NOW + 1000), 1700000001);
	assert_int_equal(envelope_expiry_bucket(NOW, NOW + 1001), 1700000002);
	assert_int_equal(envelope_expiry_bucket(NOW, NOW + 3599999), 1700003600);
	assert_int_equal(envelope_expiry_bucket(NOW, NOW + 3600000), 1700003640);
	assert_int_equal(envelope_expiry_bucket(NOW, NOW - 5000), 1699999995);
	assert_true(envelope_expiry_bucket(NOW, UINT64_MAX) >= UINT64_MAX / 1000);
}

/* These bytes are in databases out there: the format is changed by a new format number, not by editing this test. */
static void envelope_has_these_bytes(void **state)
{
	static const unsigned char golden[] = {
		'R',  'P',  'T',  'E',  1,    0,    0,    0,    /* magic, format, algorithm, flags */
		0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, /* version */
		0x00, 0x68, 0xe5, 0xcf, 0x8b, 0x01, 0x00, 0x00, /* created */
		3,    0,    0,    0,    3,    0,    0,    0,    /* sizes */
		0xa4, 0xa3, 0xa2, 0xa1, 0,    0,    0,    0,    /* writer, dictionary */
		7,    0,    4,    0,    0,    0,    0,    0,    /* key, metadata, tags, reserved */
		0x88, 0x7b, 0xe5, 0xcf, 0x8b, 0x01, 0x00, 0x00, /* expiry */
		0x05, 0xf1, 0x53, 0x65, 0x00, 0x00, 0x00, 0x00, /* bucket */
		0xe1, 0x12, 0x4d, 0x22, 0xf7, 0xa3, 0xd2, 0x60, /* XXH3-64 */
		't',  'h',  'e',  ' ',  'k',  'e',  'y',  'm',  'e', 't', 'a', 'x', 'y', 'z',
	};
	struct envelope_input input = make_input("xyz", 3);
	struct envelope_buffer buffer;

	(void)state;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	assert_int_equal(buffer.length, sizeof golden);
	assert_memory_equal(buffer.bytes, golden, sizeof golden);
	envelope_buffer_fini(&buffer);
}

/* As above, of a tombstone with two tags. */
static void envelope_with_tags_has_these_bytes(void **state)
{
	static const unsigned char golden[] = {
		'R', 'P', 'T', 'E', 1, 0, 1, 0, /* magic, format, algorithm, flags */
		1,   0,   0,   0,   0, 0, 0, 0, /* version */
		2,   0,   0,   0,   0, 0, 0, 0, /* created */
		0,   0,   0,   0,   0, 0, 0, 0, /* sizes */
		3,   0,   0,   0,   0, 0, 0, 0, /* writer, dictionary */
		1,   0,   0,   0,   2, 0, 0, 0, /* key, metadata, tags, reserved */
		0,   0,   0,   0,   0, 0, 0, 0, /* expiry */
		0,   0,   0,   0,   0, 0, 0, 0, /* bucket */
	};
	static const unsigned char body[] = {8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0, 'k'};
	uint64_t epochs[] = {0x0102030405060708, 9};
	struct envelope_input input = {.key = "k",
				       .key_len = 1,
				       .created_ms = 2,
				       .version = 1,
				       .writer_id = 3,
				       .flags = ENVELOPE_FLAG_TOMBSTONE,
				       .tag_count = 2,
				       .tag_epochs = epochs};
	struct envelope_buffer buffer;

	(void)state;
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	assert_int_equal(buffer.length, ENVELOPE_HEAD_BYTES + sizeof body);
	assert_memory_equal(buffer.bytes, golden, sizeof golden);
	assert_memory_equal((unsigned char *)buffer.bytes + ENVELOPE_HEAD_BYTES, body, sizeof body);
	envelope_buffer_fini(&buffer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(envelope_returns_what_was_put_in),
		cmocka_unit_test(envelope_has_these_bytes),
		cmocka_unit_test(envelope_with_tags_has_these_bytes),
		cmocka_unit_test(envelope_carries_twenty_mebibytes),
		cmocka_unit_test(envelope_accepts_the_longest_key_and_metadata_and_refuses_longer),
		cmocka_unit_test(envelope_refuses_every_changed_byte_but_those_of_the_expiry),
		cmocka_unit_test(envelope_refuses_every_truncation_and_what_is_too_long),
		cmocka_unit_test(envelope_refuses_another_key),
		cmocka_unit_test(envelope_refuses_newer_formats_by_a_code_of_their_own),
		cmocka_unit_test(envelope_refuses_sizes_that_lie_under_a_right_checksum),
		cmocka_unit_test(envelope_compresses_only_above_the_threshold),
		cmocka_unit_test(envelope_auto_takes_lz4_up_to_100_kib_and_zstd_above),
#if RIPTIDE_COMPRESSION
		cmocka_unit_test(envelope_compresses_exactly_when_less_than_nine_tenths_are_left),
		cmocka_unit_test(envelope_takes_the_level_of_each_call),
		cmocka_unit_test(envelope_survives_payloads_of_garbage),
#else
		cmocka_unit_test(envelope_of_a_compressing_program_opens_but_its_value_is_refused),
#endif
		cmocka_unit_test(envelope_carries_tags_and_flags),
		cmocka_unit_test(envelope_refuses_tag_counts_that_lie_under_a_right_checksum),
		cmocka_unit_test(envelope_gives_the_right_bytes_or_none_whatever_is_flipped),
		cmocka_unit_test(envelope_touch_changes_the_expiry_and_nothing_else),
		cmocka_unit_test(expiry_buckets_are_a_second_wide_below_an_hour_and_a_minute_above),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
