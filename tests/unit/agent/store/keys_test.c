#include "agent/store/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/store/store.h"
#include "shm/msg.h"

static const struct keys_options defaults = {KEYS_PREFIX_DEFAULT, KEYS_VERSION_DEFAULT};

static struct store_name make_name(const void *key, size_t key_len)
{
	return (struct store_name){
		.tenant = "acme",
		.tenant_number = 0x01020304,
		.shards = 1,
		.generation = 7,
		.space = 'c',
		.key = key,
		.key_len = key_len,
	};
}

static void assert_redis_key(const struct store_name *name, const char *expected, size_t length)
{
	struct keys_redis key;

	assert_int_equal(keys_redis(&defaults, name, &key), RSHM_OK);
	assert_int_equal(key.length, length);
	assert_memory_equal(key.bytes, expected, length);
}

static void redis_key_is_readable(void **state)
{
	struct store_name name = make_name("user:42", 7);
	struct keys_options options = {"my-app:cache", 12};
	struct keys_redis key;
	static const char own[] = "my-app:cache:v12:{acme.0}:7:s:user:42";

	(void)state;
	assert_redis_key(&name, "riptide:v1:{acme.0}:7:c:user:42", 31);
	name.space = 's';
	assert_int_equal(keys_redis(&options, &name, &key), RSHM_OK);
	assert_int_equal(key.length, sizeof own - 1);
	assert_memory_equal(key.bytes, own, sizeof own - 1);
}

static void redis_key_keeps_any_byte(void **state)
{
	struct store_name name = make_name("a\0}\r\n{\xff", 7);

	(void)state;
	assert_redis_key(&name, "riptide:v1:{acme.0}:7:c:a\0}\r\n{\xff", 31);
}

static void redis_key_hashes_only_above_400_bytes(void **state)
{
	/* BLAKE2b-256 of 401 times 'k', as Python's hashlib gives it. */
	static const char hashed[] =
		"riptide:v1:{acme.0}:7:c#4552af1f6cc684a9dc24b03d23fa63a43ff1249e1e7e4ea9d53bebc48875900a";
	char bytes[401];
	struct store_name name = make_name(bytes, 400);
	struct keys_redis key;

	(void)state;
	memset(bytes, 'k', sizeof bytes);
	assert_int_equal(keys_redis(&defaults, &name, &key), RSHM_OK);
	assert_int_equal(key.length, 24 + 400);
	assert_memory_equal(key.bytes + 24, bytes, 400);
	name.key_len = 401;
	assert_redis_key(&name, hashed, sizeof hashed - 1);
}

static void no_plain_key_spells_a_hashed_one(void **state)
{
	char bytes[500];
	struct store_name long_name = make_name(bytes, sizeof bytes), name;
	struct keys_redis hashed, plain;
	struct keys_embedded hashed_short, plain_short;

	(void)state;
	memset(bytes, 'k', sizeof bytes);
	assert_int_equal(keys_redis(&defaults, &long_name, &hashed), RSHM_OK);
	/* Try every tail of the hashed key as a key of its own. */
	for (size_t i = 0; i < hashed.length; i++) {
		name = make_name(hashed.bytes + i, hashed.length - i);
		assert_int_equal(keys_redis(&defaults, &name, &plain), RSHM_OK);
		assert_false(plain.length == hashed.length && memcmp(plain.bytes, hashed.bytes, plain.length) == 0);
	}
	assert_int_equal(keys_embedded(&long_name, &hashed_short), RSHM_OK);
	for (size_t i = 0; i < hashed_short.length; i++) {
		name = make_name(hashed_short.bytes + i, hashed_short.length - i);
		assert_int_equal(keys_embedded(&name, &plain_short), RSHM_OK);
		assert_false(plain_short.length == hashed_short.length &&
			     memcmp(plain_short.bytes, hashed_short.bytes, plain_short.length) == 0);
	}
}

static void shard_of_a_key_is_fixed_and_below_the_count(void **state)
{
	int seen[64] = {0}, used = 0;

	(void)state;
	assert_int_equal(keys_shard("x", 1, 0), 0);
	assert_int_equal(keys_shard("x", 1, 1), 0);
	/* XXH3-64 of "user:42" modulo 64; stored keys depend on it. */
	assert_int_equal(keys_shard("user:42", 7, 64), 42);
	for (uint32_t i = 0; i < 1000; i++) {
		uint32_t shard = keys_shard(&i, sizeof i, 64);

		assert_true(shard < 64);
		used += seen[shard]++ == 0;
	}
	assert_int_equal(used, 64);
}

static void embedded_key_has_these_bytes_and_sorts_by_tenant_and_generation(void **state)
{
	static const unsigned char golden[] = {1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 7, 'c', 0, 'a', 0, 'b'};
	struct store_name name = make_name("a\0b", 3);
	struct keys_embedded key, other;

	(void)state;
	assert_int_equal(keys_embedded(&name, &key), RSHM_OK);
	assert_int_equal(key.length, sizeof golden);
	assert_memory_equal(key.bytes, golden, sizeof golden);
	name.generation = 0x100;
	assert_int_equal(keys_embedded(&name, &other), RSHM_OK);
	assert_true(memcmp(key.bytes, other.bytes, 12) < 0);
	name.tenant_number = 0x01020400;
	assert_int_equal(keys_embedded(&name, &key), RSHM_OK);
	assert_true(memcmp(other.bytes, key.bytes, 12) < 0);
}

static void embedded_key_stays_below_the_limit_of_lmdb(void **state)
{
	static unsigned char bytes[RSHM_KEY_MAX];
	struct keys_embedded key;

	(void)state;
	for (size_t length = 1; length <= RSHM_KEY_MAX; length += length < 450 ? 1 : 4999) {
		struct store_name name = make_name(bytes, length);

		assert_int_equal(keys_embedded(&name, &key), RSHM_OK);
		/* The expiry index puts eight bytes before it. */
		assert_true(key.length + 8 <= 511);
		assert_int_equal(key.length, KEYS_EMBEDDED_HEAD + (length <= 400 ? length : 32));
	}
}

static void names_that_cannot_be_are_refused(void **state)
{
	static unsigned char bytes[RSHM_KEY_MAX + 1];
	static const char *const tenants[] = {
		"",    "A",   "a b", "a:b",
		"a}b", "a.b", NULL,  "0123456789012345678901234567890123456789012345678901234567890123x"};
	struct store_name name;
	struct keys_redis redis;
	struct keys_embedded embedded;

	(void)state;
	for (size_t i = 0; i < sizeof tenants / sizeof *tenants; i++) {
		name = make_name("k", 1);
		name.tenant = tenants[i];
		assert_int_equal(keys_redis(&defaults, &name, &redis), RSHM_E_INVALID);
	}
	name = make_name("k", 0);
	assert_int_equal(keys_redis(&defaults, &name, &redis), RSHM_E_INVALID);
	assert_int_equal(keys_embedded(&name, &embedded), RSHM_E_INVALID);
	name = make_name(bytes, sizeof bytes);
	assert_int_equal(keys_redis(&defaults, &name, &redis), RSHM_E_TOOBIG);
	assert_int_equal(keys_embedded(&name, &embedded), RSHM_E_TOOBIG);
	name = make_name("k", 1);
	name.generation = 0;
	assert_int_equal(keys_redis(&defaults, &name, &redis), RSHM_E_INVALID);
	name.generation = 1;
	name.space = ':';
	assert_int_equal(keys_redis(&defaults, &name, &redis), RSHM_E_INVALID);
	name.space = 'c';
	name.tenant_number = 0;
	assert_int_equal(keys_embedded(&name, &embedded), RSHM_E_INVALID);
}

static void the_longest_of_everything_fits(void **state)
{
	static const struct keys_options options = {
		"0123456789012345678901234567890123456789012345678901234567890123", UINT32_MAX};
	unsigned char bytes[400] = {0};
	struct store_name name = make_name(bytes, sizeof bytes);
	struct keys_pattern pattern;
	struct keys_redis key;
	size_t key_at;

	(void)state;
	name.tenant = "0123456789012345678901234567890123456789012345678901234567890123";
	name.shards = UINT32_MAX;
	name.generation = UINT64_MAX;
	assert_int_equal(keys_options_check(&options), RSHM_OK);
	assert_int_equal(keys_redis(&options, &name, &key), RSHM_OK);
	assert_true(key.length <= KEYS_REDIS_MAX);
	assert_int_equal(keys_redis_pattern(&options, &name, &pattern), RSHM_OK);
	assert_true(pattern.length <= KEYS_PATTERN_MAX);
	assert_int_equal(keys_redis_form(&options, &name, key.bytes, key.length, &key_at), KEYS_PLAIN);
	assert_int_equal(key.length - key_at, sizeof bytes);
	assert_int_equal(keys_redis_tenant(&options, name.tenant, &key), RSHM_OK);
}

static void prefixes_with_braces_are_refused(void **state)
{
	static const char *const bad[] = {
		"",   "a{b", "a}b", "a b",
		"a*", "a\n", NULL,  "0123456789012345678901234567890123456789012345678901234567890123x"};

	(void)state;
	assert_int_equal(keys_options_check(&defaults), RSHM_OK);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct keys_options options = {bad[i], 1};

		assert_int_equal(keys_options_check(&options), RSHM_E_INVALID);
	}
	assert_int_equal(keys_options_check(&(struct keys_options){"a", 0}), RSHM_E_INVALID);
}

/* Whether the pattern of this prefix is these characters. */
static void assert_pattern(struct store_name name, const void *prefix, size_t prefix_len, const char *text,
			   size_t length)
{
	struct keys_pattern pattern;

	name.key = prefix;
	name.key_len = prefix_len;
	assert_int_equal(keys_redis_pattern(&defaults, &name, &pattern), RSHM_OK);
	assert_int_equal(pattern.length, length);
	assert_memory_equal(pattern.bytes, text, length);
}

static void pattern_lets_the_prefix_and_every_hash_pass(void **state)
{
#define TEXT(text) text, sizeof(text) - 1
	struct store_name name = make_name(NULL, 0);
	char expected[KEYS_PATTERN_MAX] = "riptide:v1:{shop.0}:7:c[#:]";
	unsigned char prefix[402];
	size_t length = strlen(expected);

	(void)state;
	name.tenant = "shop";
	assert_pattern(name, NULL, 0, TEXT("riptide:v1:{shop.0}:7:c[#:]*"));
	assert_pattern(name, TEXT("a:\xff"), TEXT("riptide:v1:{shop.0}:7:c[#:][0-9a-fa][0-9a-f:][0-9a-f\xff]*"));
	/* What means something in a pattern or a class of one. */
	assert_pattern(name, TEXT("*?[]^-\\\0"),
		       TEXT("riptide:v1:{shop.0}:7:c[#:]?????"
			    "???*"));
	/* A hash has 64 digits: what is beyond is not looked at. */
	memset(prefix, 'k', sizeof(prefix));
	for (int i = 0; i < 64; i++, length += 9)
		memcpy(expected + length, "[0-9a-fk]", 9);
	expected[length++] = '*';
	assert_pattern(name, prefix, 64, expected, length);
	assert_pattern(name, prefix, 400, expected, length);
	assert_pattern(name, prefix, 401, TEXT("riptide:v1:{shop.0}:7:c#*"));
	name.shards = 2;
	assert_pattern(name, NULL, 0, TEXT("riptide:v1:{shop.*}:7:c[#:]*"));
#undef TEXT
}

static void patterns_of_impossible_namespaces_are_refused(void **state)
{
	static const char *const tenants[] = {"", "A", "a*", "a{", NULL};
	struct store_name name = make_name(NULL, 0);
	unsigned char prefix[1] = {0};
	struct keys_pattern pattern;
	struct keys_redis key;

	(void)state;
	for (size_t i = 0; i < sizeof tenants / sizeof *tenants; i++) {
		name.tenant = tenants[i];
		assert_int_equal(keys_redis_pattern(&defaults, &name, &pattern), RSHM_E_INVALID);
		assert_int_equal(keys_redis_tenant(&defaults, tenants[i], &key), RSHM_E_INVALID);
	}
	name = make_name(prefix, RSHM_KEY_MAX + 1);
	assert_int_equal(keys_redis_pattern(&defaults, &name, &pattern), RSHM_E_TOOBIG);
	name = make_name(NULL, 1);
	assert_int_equal(keys_redis_pattern(&defaults, &name, &pattern), RSHM_E_INVALID);
	name = make_name(prefix, 1);
	name.generation = 0;
	assert_int_equal(keys_redis_pattern(&defaults, &name, &pattern), RSHM_E_INVALID);
}

static void form_of_a_redis_key_is_told_within_its_namespace_only(void **state)
{
	static const struct {
		const char *text;
		enum keys_form form;
	} cases[] = {
		{"riptide:v1:{shop.0}:7:c:key", KEYS_PLAIN},
		{"riptide:v1:{shop.63}:7:c:", KEYS_PLAIN},
		{"riptide:v1:{shop.0}:7:c#key", KEYS_HASHED},
		{"riptide:v1:{shop.0}:7:c#", KEYS_HASHED},
		{"riptide:v1:{shop.0}:7:c", KEYS_FOREIGN},
		{"riptide:v1:{shop.0}:7:cc:key", KEYS_FOREIGN},
		{"riptide:v1:{shop.0}:7:s:key", KEYS_FOREIGN},
		{"riptide:v1:{shop.0}:70:c:key", KEYS_FOREIGN},
		{"riptide:v1:{shop.0}:8:c:7:c:key", KEYS_FOREIGN},
		{"riptide:v1:{shop.0}:8:c:}:7:c:key", KEYS_FOREIGN},
		{"riptide:v1:{shop.x}:7:c:key", KEYS_FOREIGN},
		{"riptide:v1:{shop2.0}:7:c:key", KEYS_FOREIGN},
		{"riptide:v2:{shop.0}:7:c:key", KEYS_FOREIGN},
		{"riptide:v1:{shop.", KEYS_FOREIGN},
		{"riptide:v1:{shop.0", KEYS_FOREIGN},
		{"riptide:v1:{shop.0}:n", KEYS_FOREIGN},
		{"", KEYS_FOREIGN},
	};
	struct store_name name = make_name(NULL, 0);

	(void)state;
	name.tenant = "shop";
	name.generation = 7;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t length = strlen(cases[i].text), key_at = 0;
		/* Of exactly that length, so that a sanitizer sees what is read beyond. */
		char *text = malloc(length + 1);

		memcpy(text + 1, cases[i].text, length);
		assert_int_equal(keys_redis_form(&defaults, &name, text + 1, length, &key_at), cases[i].form);
		if (cases[i].form != KEYS_FOREIGN)
			assert_true(cases[i].text[key_at - 1] == (cases[i].form == KEYS_PLAIN ? ':' : '#'));
		free(text);
	}
}

static void namespace_of_a_tenant_has_a_key_in_its_first_shard(void **state)
{
	struct keys_redis key;

	(void)state;
	assert_int_equal(keys_redis_tenant(&defaults, "shop", &key), RSHM_OK);
	assert_int_equal(key.length, strlen("riptide:v1:{shop.0}:n"));
	assert_memory_equal(key.bytes, "riptide:v1:{shop.0}:n", key.length);
}

static enum keys_form parse(const char *text, struct keys_parsed *ret)
{
	return keys_redis_parse(&defaults, text, strlen(text), ret);
}

static void redis_key_is_taken_apart_as_it_was_made(void **state)
{
	static const size_t lengths[] = {1, 7, 400, 401};
	struct keys_options options = {"my-app:v1:c.1_", 4294967295u};
	char bytes[401];

	(void)state;
	memset(bytes, ':', sizeof bytes);
	memcpy(bytes, "\0}#\n:", 5);
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		struct store_name name = make_name(bytes, lengths[i]);
		struct keys_parsed parsed;
		struct keys_redis key;

		name.tenant = "a-0";
		name.shards = 64;
		name.generation = UINT64_MAX;
		name.space = 't';
		assert_int_equal(keys_redis(&options, &name, &key), RSHM_OK);
		assert_int_equal(keys_redis_parse(&options, key.bytes, key.length, &parsed),
				 lengths[i] <= KEYS_PLAIN_MAX ? KEYS_PLAIN : KEYS_HASHED);
		assert_int_equal(parsed.tenant_len, 3);
		assert_memory_equal(parsed.tenant, "a-0", 3);
		assert_int_equal(parsed.shard, keys_shard(bytes, lengths[i], 64));
		assert_true(parsed.generation == UINT64_MAX);
		assert_int_equal(parsed.space, 't');
		if (lengths[i] > KEYS_PLAIN_MAX) {
			assert_null(parsed.key);
			continue;
		}
		assert_int_equal(parsed.key_len, lengths[i]);
		assert_memory_equal(parsed.key, bytes, lengths[i]);
	}
}

static void redis_key_of_a_namespace_is_taken_apart(void **state)
{
	struct keys_parsed parsed = {.generation = 9};
	struct keys_redis key;

	(void)state;
	assert_int_equal(keys_redis_tenant(&defaults, "acme", &key), RSHM_OK);
	assert_int_equal(keys_redis_parse(&defaults, key.bytes, key.length, &parsed), KEYS_NAMESPACE);
	assert_int_equal(parsed.tenant_len, 4);
	assert_memory_equal(parsed.tenant, "acme", 4);
	assert_int_equal(parsed.generation, 0);
	assert_null(parsed.key);
}

static void foreign_redis_keys_are_told_from_ours(void **state)
{
	static const char *const foreign[] = {
		"",
		"riptide",
		"riptide:v1:",
		"riptide:v1:canary:0123456789abcdef:0",
		"other:v1:{acme.0}:7:c:k",
		"riptide:v2:{acme.0}:7:c:k",
		"riptide:v01:{acme.0}:7:c:k",
		"riptide:v1:acme.0:7:c:k",
		"riptide:v1:{.0}:7:c:k",
		"riptide:v1:{Acme.0}:7:c:k",
		"riptide:v1:{acme}:7:c:k",
		"riptide:v1:{acme.}:7:c:k",
		"riptide:v1:{acme.00}:7:c:k",
		"riptide:v1:{acme.4294967296}:7:c:k",
		"riptide:v1:{acme.0}:0:c:k",
		"riptide:v1:{acme.0}:07:c:k",
		"riptide:v1:{acme.0}:18446744073709551616:c:k",
		"riptide:v1:{acme.0}:99999999999999999999:c:k",
		"riptide:v1:{acme.0}::c:k",
		"riptide:v1:{acme.0}:7:C:k",
		"riptide:v1:{acme.0}:7:c:",
		"riptide:v1:{acme.0}:7:c",
		"riptide:v1:{acme.0}:7:cc:k",
		"riptide:v1:{acme.0}:7:c#k",
		"riptide:v1:{acme.0}:7:c#4552AF1F6CC684A9DC24B03D23FA63A43FF1249E1E7E4EA9D53BEBC48875900A",
		"riptide:v1:{acme.0}:7:c#4552af1f6cc684a9dc24b03d23fa63a43ff1249e1e7e4ea9d53bebc48875900a0",
		"riptide:v1:{acme.1}:n",
		"riptide:v1:{acme.0}:n:",
		"riptide:v1:{acme.0}:",
	};
	static const char whole[] = "riptide:v1:{acme.0}:7:c:k";
	struct keys_parsed parsed = {.generation = 9};
	char bytes[KEYS_REDIS_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
		if (parse(foreign[i], &parsed) != KEYS_FOREIGN)
			fail_msg("%s", foreign[i]);
	}
	for (size_t length = 0; length < sizeof whole - 1; length++)
		assert_int_equal(keys_redis_parse(&defaults, whole, length, &parsed), KEYS_FOREIGN);
	/* Longer than a plain key, and a tenant longer than any. */
	memset(bytes, 'k', sizeof bytes);
	memcpy(bytes, whole, 24);
	assert_int_equal(keys_redis_parse(&defaults, bytes, 24 + KEYS_PLAIN_MAX, &parsed), KEYS_PLAIN);
	assert_int_equal(keys_redis_parse(&defaults, bytes, 24 + KEYS_PLAIN_MAX + 1, &parsed), KEYS_FOREIGN);
	parsed.generation = 9;
	memset(bytes, 'k', sizeof bytes);
	memcpy(bytes, whole, 12);
	memcpy(bytes + 12 + RSHM_TENANT_MAX, ".0}:7:c:k", 9);
	assert_int_equal(keys_redis_parse(&defaults, bytes, 12 + RSHM_TENANT_MAX + 9, &parsed), KEYS_PLAIN);
	parsed.generation = 9;
	bytes[12 + RSHM_TENANT_MAX] = 'k';
	memcpy(bytes + 13 + RSHM_TENANT_MAX, ".0}:7:c:k", 9);
	assert_int_equal(keys_redis_parse(&defaults, bytes, 13 + RSHM_TENANT_MAX + 9, &parsed), KEYS_FOREIGN);
	/* Nothing was touched. */
	assert_int_equal(parsed.generation, 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(redis_key_is_readable),
		cmocka_unit_test(redis_key_keeps_any_byte),
		cmocka_unit_test(redis_key_hashes_only_above_400_bytes),
		cmocka_unit_test(no_plain_key_spells_a_hashed_one),
		cmocka_unit_test(shard_of_a_key_is_fixed_and_below_the_count),
		cmocka_unit_test(embedded_key_has_these_bytes_and_sorts_by_tenant_and_generation),
		cmocka_unit_test(embedded_key_stays_below_the_limit_of_lmdb),
		cmocka_unit_test(names_that_cannot_be_are_refused),
		cmocka_unit_test(the_longest_of_everything_fits),
		cmocka_unit_test(prefixes_with_braces_are_refused),
		cmocka_unit_test(pattern_lets_the_prefix_and_every_hash_pass),
		cmocka_unit_test(patterns_of_impossible_namespaces_are_refused),
		cmocka_unit_test(form_of_a_redis_key_is_told_within_its_namespace_only),
		cmocka_unit_test(namespace_of_a_tenant_has_a_key_in_its_first_shard),
		cmocka_unit_test(redis_key_is_taken_apart_as_it_was_made),
		cmocka_unit_test(redis_key_of_a_namespace_is_taken_apart),
		cmocka_unit_test(foreign_redis_keys_are_told_from_ours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
