#include "agent/tenant/keyring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/tenant/master_key.h"
#include "shm/msg.h"

#define NOW 1700000000000ull

static char folder[] = "/tmp/riptide-keyring-XXXXXX";
static char paths[3][64]; /* of three master keys */
static char error[512];

static void write_file(const char *path, const void *bytes, size_t length, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, length), (ssize_t)length);
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(close(fd), 0);
}

static int make_files(void **state)
{
	(void)state;
	if (sodium_init() < 0 || mkdtemp(folder) == NULL)
		return -1;
	for (size_t i = 0; i < 3; i++) {
		unsigned char bytes[MASTER_KEY_BYTES];

		(void)snprintf(paths[i], sizeof paths[i], "%s/master-%zu", folder, i);
		randombytes_buf(bytes, sizeof bytes);
		write_file(paths[i], bytes, sizeof bytes, 0400);
	}
	return 0;
}

static int remove_files(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++)
		(void)unlink(paths[i]);
	return rmdir(folder);
}

/* The files with these numbers, the first as current one. */
static struct master_keys *load(size_t count, const size_t *numbers)
{
	const char *former[3] = {NULL};
	struct master_keys *keys = NULL;

	for (size_t i = 1; i < count; i++)
		former[i - 1] = paths[numbers[i]];
	assert_int_equal(master_keys_load(paths[numbers[0]], former, count - 1, &keys, error, sizeof error), RSHM_OK);
	return keys;
}

static struct keyring *make_ring(size_t count)
{
	struct keyring *ring = NULL;

	assert_int_equal(keyring_create("acme", &ring), RSHM_OK);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(keyring_add(ring, NOW + i), RSHM_OK);
	return ring;
}

static char *encode(const struct keyring *ring, const struct master_keys *masters)
{
	char *text = NULL;

	assert_int_equal(keyring_encode(ring, masters, &text), RSHM_OK);
	return text;
}

static int try_decode(const char *tenant, const struct master_keys *masters, const char *text, size_t length)
{
	struct keyring *ring = NULL;
	int status;

	error[0] = 0;
	status = keyring_decode(tenant, masters, text, length, &ring, error, sizeof error);
	assert_true((status == RSHM_OK) == (ring != NULL));
	assert_true((status == RSHM_OK) == (error[0] == 0));
	keyring_destroy(&ring);
	return status;
}

/* ---- the master key's file ---------------------------------------------------------------------------------- */

static void assert_refused(const char *path, int expected, const char *why)
{
	struct master_keys *keys = NULL;

	error[0] = 0;
	assert_int_equal(master_keys_load(path, NULL, 0, &keys, error, sizeof error), expected);
	assert_null(keys);
	assert_non_null(strstr(error, path));
	assert_non_null(strstr(error, why));
}

static void a_master_key_is_32_bytes_or_64_digits(void **state)
{
	unsigned char bytes[MASTER_KEY_BYTES];
	char hex[2 * MASTER_KEY_BYTES + 3], path[80];
	const char *ids[3];
	struct master_keys *keys[3];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/hex", folder);
	randombytes_buf(bytes, sizeof bytes);
	(void)sodium_bin2hex(hex, sizeof hex, bytes, sizeof bytes);
	hex[64] = hex[65] = '\n';
	for (size_t i = 0; i < 3; i++) {
		if (i == 0)
			write_file(path, bytes, sizeof bytes, 0600);
		else
			write_file(path, hex, 63 + i, 0400);
		assert_int_equal(master_keys_load(path, NULL, 0, &keys[i], error, sizeof error), RSHM_OK);
		ids[i] = master_keys_id(keys[i], 0);
		assert_string_equal(ids[i], ids[0]);
		assert_memory_equal(master_keys_find(keys[i], ids[i]), bytes, sizeof bytes);
		assert_null(master_keys_id(keys[i], 1));
		assert_null(master_keys_find(keys[i], "0000000000000000"));
		(void)unlink(path);
	}
	for (size_t i = 0; i < 3; i++)
		master_keys_destroy(&keys[i]);
	write_file(path, hex, 66, 0400);
	assert_refused(path, RSHM_E_INVALID, "32 random bytes");
	(void)unlink(path);
	for (size_t length = 0; length < 64; length++) {
		if (length == 32)
			continue;
		write_file(path, hex, length, 0400);
		assert_refused(path, RSHM_E_INVALID, "32 random bytes");
		(void)unlink(path);
	}
	hex[10] = 'x';
	write_file(path, hex, 64, 0400);
	assert_refused(path, RSHM_E_INVALID, "32 random bytes");
	(void)unlink(path);
	memset(bytes, 0, sizeof bytes);
	write_file(path, bytes, sizeof bytes, 0400);
	assert_refused(path, RSHM_E_INVALID, "32 random bytes");
	(void)unlink(path);
}

static void a_master_key_that_others_may_read_is_refused(void **state)
{
	static const mode_t wrong[] = {0440, 0404, 0604, 0620, 0666};
	unsigned char bytes[MASTER_KEY_BYTES] = {1};
	char path[80];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/mode", folder);
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		write_file(path, bytes, sizeof bytes, wrong[i]);
		assert_refused(path, RSHM_E_DENIED, "mode 0400 or 0600");
		(void)unlink(path);
	}
	if (geteuid() == 0) {
		write_file(path, bytes, sizeof bytes, 0400);
		assert_int_equal(chown(path, 12345, 0), 0);
		assert_refused(path, RSHM_E_DENIED, "belongs to user 12345");
		(void)unlink(path);
	}
}

static void a_master_key_is_a_regular_file(void **state)
{
	char path[80];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/odd", folder);
	assert_refused(path, RSHM_E_SYSTEM, "No such file");
	assert_int_equal(symlink(paths[0], path), 0);
	assert_refused(path, RSHM_E_DENIED, "symbolic link");
	(void)unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_refused(path, RSHM_E_DENIED, "no regular file");
	(void)unlink(path);
	assert_refused(folder, RSHM_E_DENIED, "no regular file");
}

static void the_same_master_key_twice_is_a_mistake(void **state)
{
	const char *former[] = {paths[1], paths[0]};
	struct master_keys *keys = NULL;

	(void)state;
	assert_int_equal(master_keys_load(paths[0], former, 2, &keys, error, sizeof error), RSHM_E_INVALID);
	assert_non_null(strstr(error, "the same key"));
	assert_int_equal(master_keys_load(paths[0], former, MASTER_KEY_FORMER_MAX + 1, &keys, error, sizeof error),
			 RSHM_E_INVALID);
	assert_null(keys);
}

/* ---- the ring ----------------------------------------------------------------------------------------------- */

static void a_ring_comes_back_from_its_stored_form(void **state)
{
	struct master_keys *masters = load(1, (size_t[]){0});
	struct keyring *ring = make_ring(3), *again = NULL;
	struct seal_keys before = keyring_keys(ring), after;
	char *text = encode(ring, masters);

	(void)state;
	assert_int_equal(keyring_decode("acme", masters, text, strlen(text), &again, error, sizeof error), RSHM_OK);
	after = keyring_keys(again);
	assert_int_equal(after.count, 3);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(after.keys[i].id, 3 - i);
		assert_int_equal(before.keys[i].id, 3 - i);
		assert_memory_equal(after.keys[i].bytes, before.keys[i].bytes, SEAL_KEY_BYTES);
		assert_int_equal(keyring_created_ms(again, (uint32_t)(3 - i)), NOW + 2 - i);
	}
	assert_int_equal(keyring_created_ms(again, 9), 0);
	assert_int_equal(keyring_behind(again), 0);
	free(text);
	keyring_destroy(&ring);
	keyring_destroy(&again);
	master_keys_destroy(&masters);
}

static void the_stored_form_shows_no_key(void **state)
{
	struct master_keys *masters = load(1, (size_t[]){0});
	struct keyring *ring = make_ring(2);
	struct seal_keys keys = keyring_keys(ring);
	char *text = encode(ring, masters), *again = encode(ring, masters);
	char hex[2 * SEAL_KEY_BYTES + 1], base64[64];

	(void)state;
	assert_string_not_equal(text, again);
	for (size_t i = 0; i < 3; i++) {
		const unsigned char *bytes =
			i < 2 ? keys.keys[i].bytes : master_keys_find(masters, master_keys_id(masters, 0));

		(void)sodium_bin2hex(hex, sizeof hex, bytes, SEAL_KEY_BYTES);
		(void)sodium_bin2base64(base64, sizeof base64, bytes, SEAL_KEY_BYTES, sodium_base64_VARIANT_ORIGINAL);
		hex[16] = base64[12] = 0;
		assert_null(strstr(text, hex));
		assert_null(strstr(text, base64));
	}
	free(text);
	free(again);
	keyring_destroy(&ring);
	master_keys_destroy(&masters);
}

static void keys_are_retired_and_ids_never_come_back(void **state)
{
	struct master_keys *masters = load(1, (size_t[]){0});
	struct keyring *ring = make_ring(KEYRING_KEYS_MAX), *again = NULL;
	unsigned char newest[SEAL_KEY_BYTES];
	char *text;

	(void)state;
	assert_int_equal(keyring_add(ring, NOW), RSHM_E_FULL);
	assert_int_equal(keyring_retire(ring, KEYRING_KEYS_MAX), RSHM_E_INVALID);
	assert_int_equal(keyring_retire(ring, 99), RSHM_MISS);
	memcpy(newest, keyring_keys(ring).keys[0].bytes, sizeof newest);
	for (uint32_t id = 1; id < KEYRING_KEYS_MAX; id++) {
		const unsigned char *place = keyring_keys(ring).keys[keyring_keys(ring).count - 1].bytes;

		assert_false(sodium_is_zero(place, SEAL_KEY_BYTES));
		assert_int_equal(keyring_retire(ring, id), RSHM_OK);
		assert_true(sodium_is_zero(place, SEAL_KEY_BYTES));
	}
	assert_int_equal(keyring_keys(ring).count, 1);
	assert_memory_equal(keyring_keys(ring).keys[0].bytes, newest, sizeof newest);
	text = encode(ring, masters);
	assert_int_equal(keyring_decode("acme", masters, text, strlen(text), &again, error, sizeof error), RSHM_OK);
	assert_int_equal(keyring_add(again, NOW), RSHM_OK);
	assert_int_equal(keyring_keys(again).keys[0].id, KEYRING_KEYS_MAX + 1);
	assert_memory_equal(keyring_keys(again).keys[1].bytes, newest, sizeof newest);
	free(text);
	keyring_destroy(&ring);
	keyring_destroy(&again);
	master_keys_destroy(&masters);
}

static void keys_are_wrapped_anew_by_another_master_key(void **state)
{
	struct master_keys *old = load(1, (size_t[]){0}), *both = load(2, (size_t[]){1, 0});
	struct master_keys *new = load(1, (size_t[]){1}), *other = load(1, (size_t[]){2});
	struct keyring *ring = make_ring(2), *again = NULL;
	char *text = encode(ring, old), *rewrapped;

	(void)state;
	assert_int_equal(try_decode("acme", new, text, strlen(text)), RSHM_E_NOKEY);
	assert_non_null(strstr(error, master_keys_id(old, 0)));
	assert_non_null(strstr(error, "former_master_key_file"));
	assert_int_equal(keyring_decode("acme", both, text, strlen(text), &again, error, sizeof error), RSHM_OK);
	assert_int_equal(keyring_behind(again), 2);
	rewrapped = encode(again, both);
	keyring_destroy(&again);
	assert_int_equal(try_decode("acme", other, rewrapped, strlen(rewrapped)), RSHM_E_NOKEY);
	assert_int_equal(try_decode("acme", old, rewrapped, strlen(rewrapped)), RSHM_E_NOKEY);
	assert_int_equal(keyring_decode("acme", new, rewrapped, strlen(rewrapped), &again, error, sizeof error),
			 RSHM_OK);
	assert_int_equal(keyring_behind(again), 0);
	for (size_t i = 0; i < 2; i++)
		assert_memory_equal(keyring_keys(again).keys[i].bytes, keyring_keys(ring).keys[i].bytes,
				    SEAL_KEY_BYTES);
	free(text);
	free(rewrapped);
	keyring_destroy(&ring);
	keyring_destroy(&again);
	master_keys_destroy(&old);
	master_keys_destroy(&both);
	master_keys_destroy(&new);
	master_keys_destroy(&other);
}

static void a_wrapped_key_is_good_for_its_tenant_and_id_alone(void **state)
{
	struct master_keys *masters = load(1, (size_t[]){0});
	struct keyring *ring = make_ring(1);
	char *text = NULL, *id;

	(void)state;
	assert_int_equal(keyring_encode(ring, masters, &text), RSHM_OK);
	id = strstr(text, "\"id\":1");
	assert_int_equal(try_decode("acme", masters, text, strlen(text)), RSHM_OK);
	assert_int_equal(try_decode("acme2", masters, text, strlen(text)), RSHM_E_CORRUPT);
	assert_int_equal(try_decode("acm", masters, text, strlen(text)), RSHM_E_CORRUPT);
	assert_non_null(id);
	/* As its next_id allows: the id's own MAC refuses it. */
	*(strstr(text, "next_id\":") + 9) = '3';
	assert_int_equal(try_decode("acme", masters, text, strlen(text)), RSHM_OK);
	id[5] = '2';
	assert_int_equal(try_decode("acme", masters, text, strlen(text)), RSHM_E_CORRUPT);
	assert_non_null(strstr(error, "changed"));
	free(text);
	keyring_destroy(&ring);
	master_keys_destroy(&masters);
}

/* Any byte of what is stored, changed: refused, or the very keys that were stored (numbers that no MAC covers). */
static void changed_bytes_bring_in_no_other_key(void **state)
{
	struct master_keys *masters = load(1, (size_t[]){0});
	struct keyring *ring = make_ring(2);
	char *text = encode(ring, masters);
	size_t length = strlen(text), refused = 0;

	(void)state;
	for (size_t bit = 0; bit < length * 8; bit++) {
		struct keyring *found = NULL;

		text[bit / 8] ^= (char)(1u << bit % 8);
		if (keyring_decode("acme", masters, text, length, &found, error, sizeof error) == RSHM_OK) {
			assert_int_equal(keyring_keys(found).count, 2);
			for (size_t i = 0; i < 2; i++) {
				assert_int_equal(keyring_keys(found).keys[i].id, 2 - i);
				assert_memory_equal(keyring_keys(found).keys[i].bytes,
						    keyring_keys(ring).keys[i].bytes, SEAL_KEY_BYTES);
			}
			keyring_destroy(&found);
		} else {
			refused++;
		}
		text[bit / 8] ^= (char)(1u << bit % 8);
	}
	/* Free to change are the digits of two times and of next_id. */
	assert_true(refused > length * 8 - 8 * (13 + 13 + 1));
	for (size_t cut = 0; cut < length; cut++)
		assert_int_equal(try_decode("acme", masters, text, cut), RSHM_E_CORRUPT);
	free(text);
	keyring_destroy(&ring);
	master_keys_destroy(&masters);
}

static void what_is_no_ring_is_refused(void **state)
{
	static const struct {
		const char *text;
		int status;
	} wrong[] = {
		{"", RSHM_E_CORRUPT},
		{"[]", RSHM_E_CORRUPT},
		{"{\"format\":2}", RSHM_E_FORMAT},
		{"{\"format\":1,\"next_id\":2,\"keys\":[]}", RSHM_E_CORRUPT},
		{"{\"format\":1,\"next_id\":2,\"keys\":{}}", RSHM_E_CORRUPT},
		{"{\"format\":1,\"next_id\":2,\"keys\":[1]}", RSHM_E_CORRUPT},
		{"{\"format\":1,\"next_id\":2,\"keys\":[1,1,1,1,1,1,1,1,1]}", RSHM_E_CORRUPT},
		{"{\"format\":1,\"next_id\":4294967296,\"keys\":[1]}", RSHM_E_CORRUPT},
		{"{\"format\":1,\"next_id\":2,\"keys\":[{\"id\":1,\"created_ms\":1,\"master\":\"%s%s%n\","
		 "\"wrapped\":\"\"}]}",
		 RSHM_E_CORRUPT},
	};
	struct master_keys *masters = load(1, (size_t[]){0});
	struct keyring *empty = make_ring(0);
	char *text = NULL, *large = calloc(1, KEYRING_TEXT_MAX + 1);

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_int_equal(try_decode("acme", masters, wrong[i].text, strlen(wrong[i].text)), wrong[i].status);
	assert_non_null(large);
	memset(large, ' ', KEYRING_TEXT_MAX + 1);
	assert_int_equal(try_decode("acme", masters, large, KEYRING_TEXT_MAX + 1), RSHM_E_CORRUPT);
	assert_int_equal(keyring_encode(empty, masters, &text), RSHM_E_INVALID);
	assert_null(text);
	free(large);
	keyring_destroy(&empty);
	master_keys_destroy(&masters);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_master_key_is_32_bytes_or_64_digits),
		cmocka_unit_test(a_master_key_that_others_may_read_is_refused),
		cmocka_unit_test(a_master_key_is_a_regular_file),
		cmocka_unit_test(the_same_master_key_twice_is_a_mistake),
		cmocka_unit_test(a_ring_comes_back_from_its_stored_form),
		cmocka_unit_test(the_stored_form_shows_no_key),
		cmocka_unit_test(keys_are_retired_and_ids_never_come_back),
		cmocka_unit_test(keys_are_wrapped_anew_by_another_master_key),
		cmocka_unit_test(a_wrapped_key_is_good_for_its_tenant_and_id_alone),
		cmocka_unit_test(changed_bytes_bring_in_no_other_key),
		cmocka_unit_test(what_is_no_ring_is_refused),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
