#include "agent/store/seal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "agent/store/envelope.h"
#include "agent/store/store.h"
#include "shm/msg.h"

#define NOW 1700000000000ull

static const char secret_value[] = "a value that nobody else may read: a value that nobody else may read";
static const char secret_metadata[] = "metadata that nobody else may read";
static const uint64_t epochs[] = {7, 0x0807060504030201};

static unsigned char key_bytes[2][SEAL_KEY_BYTES];
static const struct seal_key both[] = {{.id = 1, .bytes = key_bytes[0]}, {.id = 2, .bytes = key_bytes[1]}};
static const struct seal_keys keys = {both, 2}, first_only = {both, 1}, none = {NULL, 0};

static const struct store_name name = {
	.tenant = "acme", .generation = 3, .space = 'c', .key = "the key", .key_len = 7};

static struct envelope_input make_input(void)
{
	return (struct envelope_input){
		.key = name.key,
		.key_len = name.key_len,
		.metadata = secret_metadata,
		.metadata_len = sizeof secret_metadata,
		.value = secret_value,
		.value_len = sizeof secret_value,
		.created_ms = NOW,
		.expiry_ms = NOW + 5000,
		.version = 0x0102030405060708,
		.writer_id = 0xa1a2a3a4,
		.tag_epochs = epochs,
		.tag_count = 2,
	};
}

static struct envelope_buffer make_plain(void)
{
	struct envelope_input input = make_input();
	struct envelope_buffer plain;

	assert_int_equal(envelope_encode(&input, NULL, &plain), RSHM_OK);
	return plain;
}

static struct envelope_buffer make_sealed(const struct seal_key *key)
{
	struct envelope_buffer plain = make_plain(), sealed;

	assert_int_equal(seal_envelope(key, &name, plain.bytes, plain.length, &sealed), RSHM_OK);
	assert_int_equal(sealed.length, plain.length + ENVELOPE_BOX_BYTES);
	envelope_buffer_fini(&plain);
	return sealed;
}

/* What seal_open() says; that it gives nothing where it fails. */
static int try_open(const struct seal_keys *with, const struct store_name *as, const void *bytes, size_t length)
{
	struct envelope_buffer plain = {0};
	int status = seal_open(with, as, bytes, length, &plain);

	if (status < 0)
		assert_null(plain.bytes);
	envelope_buffer_fini(&plain);
	return status;
}

static void what_is_sealed_opens_again(void **state)
{
	struct envelope_buffer plain = make_plain(), sealed = make_sealed(&both[1]), opened;
	uint32_t id = 0;

	(void)state;
	assert_false(seal_is_sealed(plain.bytes, plain.length));
	assert_true(seal_is_sealed(sealed.bytes, sealed.length));
	assert_int_equal(seal_key_id(sealed.bytes, sealed.length, &id), RSHM_OK);
	assert_int_equal(id, 2);
	assert_int_equal(seal_open(&keys, &name, sealed.bytes, sealed.length, &opened), RSHM_OK);
	assert_int_equal(opened.length, plain.length);
	assert_memory_equal(opened.bytes, plain.bytes, plain.length);
	envelope_buffer_fini(&plain);
	envelope_buffer_fini(&sealed);
	envelope_buffer_fini(&opened);
}

static void nothing_of_value_and_metadata_can_be_read(void **state)
{
	struct envelope_buffer plain = make_plain(), sealed = make_sealed(&both[0]);

	(void)state;
	assert_non_null(memmem(plain.bytes, plain.length, "nobody else", 11));
	assert_null(memmem(sealed.bytes, sealed.length, "nobody else", 11));
	assert_null(memmem(sealed.bytes, sealed.length, key_bytes[0], 8));
	/* The key stands plain, as in the backend's own key. */
	assert_non_null(memmem(sealed.bytes, sealed.length, name.key, name.key_len));
	envelope_buffer_fini(&plain);
	envelope_buffer_fini(&sealed);
}

static void the_same_entry_is_sealed_differently_each_time(void **state)
{
	struct envelope_buffer one = make_sealed(&both[0]), two = make_sealed(&both[0]);
	size_t behind_key = ENVELOPE_HEAD_BYTES + sizeof epochs + name.key_len;

	(void)state;
	assert_memory_not_equal((char *)one.bytes + behind_key + ENVELOPE_BOX_NONCE,
				(char *)two.bytes + behind_key + ENVELOPE_BOX_NONCE, 24);
	assert_memory_not_equal((char *)one.bytes + behind_key + ENVELOPE_BOX_BYTES,
				(char *)two.bytes + behind_key + ENVELOPE_BOX_BYTES, sizeof secret_value);
	envelope_buffer_fini(&one);
	envelope_buffer_fini(&two);
}

static void who_does_not_know_of_keys_gets_no_sealed_bytes(void **state)
{
	struct envelope_buffer sealed = make_sealed(&both[0]);
	struct envelope_view view = {0};
	struct envelope_head head;

	(void)state;
	assert_int_equal(envelope_peek_head(sealed.bytes, sealed.length, &head), RSHM_OK);
	assert_int_equal(head.version, 0x0102030405060708);
	assert_int_equal(envelope_length(&head), sealed.length);
	assert_int_equal(envelope_open(sealed.bytes, sealed.length, name.key, name.key_len, &view), RSHM_E_NOKEY);
	assert_null(view.payload);
	envelope_buffer_fini(&sealed);
}

static void without_its_key_it_says_so(void **state)
{
	struct envelope_buffer sealed = make_sealed(&both[1]);

	(void)state;
	assert_int_equal(try_open(&first_only, &name, sealed.bytes, sealed.length), RSHM_E_NOKEY);
	assert_int_equal(try_open(&none, &name, sealed.bytes, sealed.length), RSHM_E_NOKEY);
	assert_int_equal(try_open(&keys, &name, sealed.bytes, sealed.length), RSHM_OK);
	envelope_buffer_fini(&sealed);
}

/* Each bit, by a liar who mends the checksum. The 16 bytes of expiry and bucket are a touch's. */
static void every_flipped_bit_is_found(void **state)
{
	struct envelope_buffer sealed = make_sealed(&both[0]);
	unsigned char *bytes = sealed.bytes, *copy = malloc(sealed.length);
	size_t key_id_at = ENVELOPE_HEAD_BYTES + sizeof epochs + name.key_len;

	(void)state;
	assert_non_null(copy);
	for (size_t bit = 0; bit < sealed.length * 8; bit++) {
		size_t at = bit / 8;
		int status;

		memcpy(copy, bytes, sealed.length);
		copy[at] ^= (unsigned char)(1u << bit % 8);
		if (at >= ENVELOPE_OFFSET_EXPIRY && at < ENVELOPE_OFFSET_CHECKSUM) {
			assert_int_equal(try_open(&keys, &name, copy, sealed.length), RSHM_OK);
			continue;
		}
		/* The checksum alone finds it while it is only rot (a head may be refused before). */
		status = try_open(&keys, &name, copy, sealed.length);
		assert_true(status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT);
		envelope_set_checksum(copy, sealed.length);
		status = try_open(&keys, &name, copy, sealed.length);
		if (at >= ENVELOPE_OFFSET_CHECKSUM && at < ENVELOPE_HEAD_BYTES)
			assert_int_equal(status, RSHM_OK);
		else if (at >= key_id_at && at < key_id_at + 4)
			assert_true(status == RSHM_E_NOKEY || status == RSHM_E_CORRUPT);
		else
			assert_true(status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT);
	}
	free(copy);
	envelope_buffer_fini(&sealed);
}

static void the_id_of_another_key_is_not_enough(void **state)
{
	struct envelope_buffer sealed = make_sealed(&both[0]);
	unsigned char *bytes = sealed.bytes;

	(void)state;
	bytes[ENVELOPE_HEAD_BYTES + sizeof epochs + name.key_len] = 2;
	envelope_set_checksum(bytes, sealed.length);
	assert_int_equal(try_open(&keys, &name, bytes, sealed.length), RSHM_E_CORRUPT);
	envelope_buffer_fini(&sealed);
}

static void it_opens_nowhere_else(void **state)
{
	struct envelope_buffer sealed = make_sealed(&both[0]);
	struct store_name elsewhere[5] = {name, name, name, name, name};

	(void)state;
	elsewhere[0].tenant = "acme2";
	elsewhere[1].generation = 4;
	elsewhere[2].space = 'd';
	elsewhere[3].key = "the kez";
	elsewhere[4].key_len = 6;
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(try_open(&keys, &elsewhere[i], sealed.bytes, sealed.length), RSHM_E_CORRUPT);
	envelope_buffer_fini(&sealed);
}

/* Whoever can write to the backend gives the envelope of one key the other's name inside, too. */
static void a_value_under_another_keys_name_is_refused(void **state)
{
	struct envelope_buffer sealed = make_sealed(&both[0]);
	struct store_name other = name;

	(void)state;
	other.key = "a key!!";
	memcpy((char *)sealed.bytes + ENVELOPE_HEAD_BYTES + sizeof epochs, other.key, other.key_len);
	envelope_set_checksum(sealed.bytes, sealed.length);
	assert_int_equal(try_open(&keys, &other, sealed.bytes, sealed.length), RSHM_E_CORRUPT);
	envelope_buffer_fini(&sealed);
}

static void a_touch_leaves_it_good(void **state)
{
	struct envelope_buffer sealed = make_sealed(&both[0]), opened;
	struct envelope_view view;

	(void)state;
	envelope_set_expiry(sealed.bytes, NOW, NOW + 9000);
	assert_int_equal(seal_open(&keys, &name, sealed.bytes, sealed.length, &opened), RSHM_OK);
	assert_int_equal(envelope_open(opened.bytes, opened.length, name.key, name.key_len, &view), RSHM_OK);
	assert_int_equal(view.head.expiry_ms, NOW + 9000);
	assert_memory_equal(view.metadata, secret_metadata, sizeof secret_metadata);
	envelope_buffer_fini(&sealed);
	envelope_buffer_fini(&opened);
}

static void what_is_cut_off_is_corrupt(void **state)
{
	struct envelope_buffer sealed = make_sealed(&both[0]);

	(void)state;
	for (size_t length = 0; length < sealed.length; length++) {
		/* Its own allocation, so that a read behind the end is found. */
		unsigned char *copy = malloc(length + (length == 0));

		assert_non_null(copy);
		memcpy(copy, sealed.bytes, length);
		if (length >= ENVELOPE_HEAD_BYTES)
			envelope_set_checksum(copy, length);
		assert_int_equal(try_open(&keys, &name, copy, length), RSHM_E_CORRUPT);
		free(copy);
	}
	envelope_buffer_fini(&sealed);
}

static void the_flag_alone_makes_nothing_sealed_or_plain(void **state)
{
	struct envelope_buffer plain = make_plain(), sealed = make_sealed(&both[0]);
	struct envelope_view view;

	(void)state;
	envelope_set_flags(plain.bytes, ENVELOPE_FLAG_SEALED);
	envelope_set_checksum(plain.bytes, plain.length);
	assert_int_equal(try_open(&keys, &name, plain.bytes, plain.length), RSHM_E_CORRUPT);
	envelope_set_flags(sealed.bytes, 0);
	envelope_set_checksum(sealed.bytes, sealed.length);
	assert_int_equal(envelope_open(sealed.bytes, sealed.length, NULL, 0, &view), RSHM_E_CORRUPT);
	envelope_set_flags(sealed.bytes, ENVELOPE_FLAG_SEALED | ENVELOPE_FLAG_TOMBSTONE);
	envelope_set_checksum(sealed.bytes, sealed.length);
	assert_int_equal(try_open(&keys, &name, sealed.bytes, sealed.length), RSHM_E_CORRUPT);
	envelope_buffer_fini(&plain);
	envelope_buffer_fini(&sealed);
}

static void what_cannot_be_sealed_is_refused(void **state)
{
	struct envelope_buffer plain = make_plain(), sealed = make_sealed(&both[0]), ret = {0};
	struct envelope_input input = make_input();
	struct envelope_buffer tombstone;

	(void)state;
	assert_int_equal(seal_envelope(&both[0], &name, sealed.bytes, sealed.length, &ret), RSHM_E_NOKEY);
	assert_int_equal(seal_envelope(&both[0], &name, plain.bytes, plain.length - 1, &ret), RSHM_E_CORRUPT);
	assert_int_equal(try_open(&keys, &name, plain.bytes, plain.length), RSHM_E_INVALID);
	input.flags = ENVELOPE_FLAG_SEALED;
	assert_int_equal(envelope_encode(&input, NULL, &ret), RSHM_E_INVALID);
	input.flags = ENVELOPE_FLAG_TOMBSTONE;
	assert_int_equal(envelope_encode(&input, NULL, &tombstone), RSHM_OK);
	assert_int_equal(seal_envelope(&both[0], &name, tombstone.bytes, tombstone.length, &ret), RSHM_E_INVALID);
	assert_null(ret.bytes);
	envelope_buffer_fini(&plain);
	envelope_buffer_fini(&sealed);
	envelope_buffer_fini(&tombstone);
}

static void an_entry_without_value_and_metadata_is_sealed_too(void **state)
{
	struct envelope_input input = {.key = name.key, .key_len = name.key_len, .created_ms = NOW, .version = 1};
	struct envelope_buffer plain, sealed, opened;

	(void)state;
	assert_int_equal(envelope_encode(&input, NULL, &plain), RSHM_OK);
	assert_int_equal(seal_envelope(&both[0], &name, plain.bytes, plain.length, &sealed), RSHM_OK);
	assert_int_equal(seal_open(&keys, &name, sealed.bytes, sealed.length, &opened), RSHM_OK);
	assert_memory_equal(opened.bytes, plain.bytes, plain.length);
	envelope_set_flags(sealed.bytes, ENVELOPE_FLAG_SEALED);
	((unsigned char *)sealed.bytes)[ENVELOPE_OFFSET_VERSION] = 2;
	envelope_set_checksum(sealed.bytes, sealed.length);
	assert_int_equal(try_open(&keys, &name, sealed.bytes, sealed.length), RSHM_E_CORRUPT);
	envelope_buffer_fini(&plain);
	envelope_buffer_fini(&sealed);
	envelope_buffer_fini(&opened);
}

/* Many changes at once, the checksum mended: never a value, never a read outside. */
static void random_damage_never_opens(void **state)
{
	struct envelope_buffer sealed = make_sealed(&both[0]);
	unsigned char *copy = malloc(sealed.length);

	(void)state;
	assert_non_null(copy);
	for (int round = 0; round < 50000; round++) {
		uint32_t changes = 1 + randombytes_uniform(8);

		memcpy(copy, sealed.bytes, sealed.length);
		for (uint32_t i = 0; i < changes; i++)
			copy[randombytes_uniform((uint32_t)sealed.length)] = (unsigned char)randombytes_random();
		/* What a touch or the checksum may change does not count as damage. */
		memcpy(copy + ENVELOPE_OFFSET_EXPIRY, (char *)sealed.bytes + ENVELOPE_OFFSET_EXPIRY,
		       ENVELOPE_HEAD_BYTES - ENVELOPE_OFFSET_EXPIRY);
		if (memcmp(copy, sealed.bytes, sealed.length) == 0)
			continue;
		envelope_set_checksum(copy, sealed.length);
		assert_true(try_open(&keys, &name, copy, sealed.length) < 0);
	}
	free(copy);
	envelope_buffer_fini(&sealed);
}

static int make_keys(void **state)
{
	(void)state;
	if (sodium_init() < 0)
		return -1;
	randombytes_buf(key_bytes, sizeof key_bytes);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_sealed_opens_again),
		cmocka_unit_test(nothing_of_value_and_metadata_can_be_read),
		cmocka_unit_test(the_same_entry_is_sealed_differently_each_time),
		cmocka_unit_test(who_does_not_know_of_keys_gets_no_sealed_bytes),
		cmocka_unit_test(without_its_key_it_says_so),
		cmocka_unit_test(every_flipped_bit_is_found),
		cmocka_unit_test(the_id_of_another_key_is_not_enough),
		cmocka_unit_test(it_opens_nowhere_else),
		cmocka_unit_test(a_value_under_another_keys_name_is_refused),
		cmocka_unit_test(a_touch_leaves_it_good),
		cmocka_unit_test(what_is_cut_off_is_corrupt),
		cmocka_unit_test(the_flag_alone_makes_nothing_sealed_or_plain),
		cmocka_unit_test(what_cannot_be_sealed_is_refused),
		cmocka_unit_test(an_entry_without_value_and_metadata_is_sealed_too),
		cmocka_unit_test(random_damage_never_opens),
	};

	return cmocka_run_group_tests(tests, make_keys, NULL);
}
