#include "agent/store/keys.h"

#include <endian.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/store/store.h"
#include "shm/msg.h"

#define KEYS_HASH_BYTES 32u
#define KEYS_FORM_PLAIN 0u
#define KEYS_FORM_HASHED 1u

#define PATTERN_KEY_MAX 64u    /* bytes of a prefix that a pattern looks at: a hash has no more digits */
#define PATTERN_CLASS_BYTES 9u /* of "[0-9a-fx]" */

/* prefix ":v" version ":{" tenant "." shard "}:" generation ":" space, then ':' and a plain key or '#' and a hash. */
_Static_assert(KEYS_PREFIX_MAX + 2 + 10 + 2 + RSHM_TENANT_MAX + 1 + 10 + 2 + 20 + 1 + 1 + 1 + KEYS_PLAIN_MAX <=
		       KEYS_REDIS_MAX,
	       "the longest Redis key fits");
_Static_assert(KEYS_EMBEDDED_HEAD == 4 + 8 + 1 + 1, "head of an embedded key");

static bool is_prefix_character(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("_.:-", c) != NULL);
}

int keys_options_check(const struct keys_options *options)
{
	size_t length = 0;

	if (options->prefix == NULL || options->version == 0)
		return RSHM_E_INVALID;
	while (length <= KEYS_PREFIX_MAX && is_prefix_character(options->prefix[length]))
		length++;
	if (length == 0 || length > KEYS_PREFIX_MAX || options->prefix[length] != '\0')
		return RSHM_E_INVALID;
	return RSHM_OK;
}

uint32_t keys_shard(const void *key, size_t key_len, uint32_t shards)
{
	return shards <= 1 ? 0 : (uint32_t)(XXH3_64bits(key, key_len) % shards);
}

/* What both forms ask of a name. */
static int name_check(const struct store_name *name)
{
	if (name->key == NULL || name->key_len == 0 || name->generation == 0 || name->space < 'a' ||
	    name->space > 'z')
		return RSHM_E_INVALID;
	return name->key_len > RSHM_KEY_MAX ? RSHM_E_TOOBIG : RSHM_OK;
}

/* The same of one that may have an empty key. */
static int namespace_check(const struct store_name *name)
{
	struct store_name some = *name;

	if (some.key_len == 0) {
		some.key = "";
		some.key_len = 1;
	}
	return name_check(&some);
}

static bool tenant_is_valid(const char *tenant)
{
	size_t length = 0;

	if (tenant == NULL)
		return false;
	for (; tenant[length] != '\0'; length++) {
		char c = tenant[length];

		if (length == RSHM_TENANT_MAX || !((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
			return false;
	}
	return length > 0;
}

static void key_hash(const struct store_name *name, unsigned char hash[KEYS_HASH_BYTES])
{
	must(crypto_generichash(hash, KEYS_HASH_BYTES, name->key, name->key_len, NULL, 0) == 0);
}

int keys_redis(const struct keys_options *options, const struct store_name *name, struct keys_redis *ret)
{
	int status = name_check(name), length;

	if (status < 0)
		return status;
	if (!tenant_is_valid(name->tenant))
		return RSHM_E_INVALID;
	length = snprintf(ret->bytes, sizeof ret->bytes, "%s:v%u:{%s.%u}:%llu:%c", options->prefix, options->version,
			  name->tenant, keys_shard(name->key, name->key_len, name->shards),
			  (unsigned long long)name->generation, name->space);
	must(length > 0 && (size_t)length + 1 + KEYS_PLAIN_MAX <= sizeof ret->bytes);
	if (name->key_len <= KEYS_PLAIN_MAX) {
		ret->bytes[length++] = ':';
		memcpy(ret->bytes + length, name->key, name->key_len);
		ret->length = (size_t)length + name->key_len;
	} else {
		unsigned char hash[KEYS_HASH_BYTES];

		key_hash(name, hash);
		ret->bytes[length++] = '#';
		(void)sodium_bin2hex(ret->bytes + length, sizeof ret->bytes - (size_t)length, hash, sizeof hash);
		ret->length = (size_t)length + 2 * sizeof hash;
	}
	return RSHM_OK;
}

int keys_redis_tenant(const struct keys_options *options, const char *tenant, struct keys_redis *ret)
{
	int length;

	if (!tenant_is_valid(tenant))
		return RSHM_E_INVALID;
	length =
		snprintf(ret->bytes, sizeof ret->bytes, "%s:v%u:{%s.0}:n", options->prefix, options->version, tenant);
	must(length > 0 && (size_t)length < sizeof ret->bytes);
	ret->length = (size_t)length;
	return RSHM_OK;
}

/*
 * One pattern for both forms: each byte of the prefix stands in a class of its own together with the hexadecimal
 * digits, so that every hash passes too. Servers differ in how they escape within a class; what means something there
 * is therefore a '?', which passes more. The options' prefix and the tenant have no such character.
 */
static size_t pattern_add_prefix(char *to, const unsigned char *key, size_t key_len)
{
	static const char class[PATTERN_CLASS_BYTES] = {'[', '0', '-', '9', 'a', '-', 'f', 0, ']'};
	size_t length = 0;

	for (size_t i = 0; i < key_len && i < PATTERN_KEY_MAX; i++) {
		if (key[i] == '\0' || strchr("[]^-\\*?", key[i]) != NULL) {
			to[length++] = '?';
			continue;
		}
		memcpy(to + length, class, PATTERN_CLASS_BYTES);
		to[length + PATTERN_CLASS_BYTES - 2] = (char)key[i];
		length += PATTERN_CLASS_BYTES;
	}
	return length;
}

int keys_redis_pattern(const struct keys_options *options, const struct store_name *name, struct keys_pattern *ret)
{
	bool has_plain = name->key_len <= KEYS_PLAIN_MAX;
	int status = namespace_check(name), length;

	if (status < 0)
		return status;
	if (!tenant_is_valid(name->tenant))
		return RSHM_E_INVALID;
	length = snprintf(ret->bytes, sizeof ret->bytes, "%s:v%u:{%s.%s}:%llu:%c%s", options->prefix,
			  options->version, name->tenant, name->shards <= 1 ? "0" : "*",
			  (unsigned long long)name->generation, name->space, has_plain ? "[#:]" : "#");
	must(length > 0 && (size_t)length + PATTERN_KEY_MAX * PATTERN_CLASS_BYTES + 1 <= sizeof ret->bytes);
	ret->length = (size_t)length;
	if (has_plain)
		ret->length += pattern_add_prefix(ret->bytes + ret->length, name->key, name->key_len);
	ret->bytes[ret->length++] = '*';
	return RSHM_OK;
}

enum keys_form keys_redis_form(const struct keys_options *options, const struct store_name *name, const void *bytes,
			       size_t length, size_t *ret_key_at)
{
	char head[KEYS_REDIS_MAX], tail[32];
	int head_length = snprintf(head, sizeof head, "%s:v%u:{%s.", options->prefix, options->version, name->tenant);
	int tail_length = snprintf(tail, sizeof tail, "}:%llu:%c", (unsigned long long)name->generation, name->space);
	const char *text = bytes;
	size_t at = (size_t)head_length;

	must(head_length > 0 && at < sizeof head && tail_length > 0 && (size_t)tail_length < sizeof tail);
	if (length < at || memcmp(text, head, at) != 0)
		return KEYS_FOREIGN;
	while (at < length && text[at] >= '0' && text[at] <= '9')
		at++;
	if (length - at < (size_t)tail_length + 1 || memcmp(text + at, tail, (size_t)tail_length) != 0)
		return KEYS_FOREIGN;
	at += (size_t)tail_length;
	if (text[at] != ':' && text[at] != '#')
		return KEYS_FOREIGN;
	*ret_key_at = at + 1;
	return text[at] == ':' ? KEYS_PLAIN : KEYS_HASHED;
}

int keys_embedded(const struct store_name *name, struct keys_embedded *ret)
{
	uint32_t tenant = htobe32(name->tenant_number);
	uint64_t generation = htobe64(name->generation);
	int status = name_check(name);

	if (status < 0)
		return status;
	if (name->tenant_number == 0)
		return RSHM_E_INVALID;
	memcpy(ret->bytes, &tenant, 4);
	memcpy(ret->bytes + 4, &generation, 8);
	ret->bytes[12] = (unsigned char)name->space;
	if (name->key_len <= KEYS_PLAIN_MAX) {
		ret->bytes[13] = KEYS_FORM_PLAIN;
		memcpy(ret->bytes + KEYS_EMBEDDED_HEAD, name->key, name->key_len);
		ret->length = KEYS_EMBEDDED_HEAD + name->key_len;
	} else {
		ret->bytes[13] = KEYS_FORM_HASHED;
		key_hash(name, ret->bytes + KEYS_EMBEDDED_HEAD);
		ret->length = KEYS_EMBEDDED_HEAD + KEYS_HASH_BYTES;
	}
	return RSHM_OK;
}
