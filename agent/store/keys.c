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

static bool is_tenant_character(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

static bool tenant_is_valid(const char *tenant)
{
	size_t length = 0;

	if (tenant == NULL)
		return false;
	for (; tenant[length] != '\0'; length++) {
		if (length == RSHM_TENANT_MAX || !is_tenant_character(tenant[length]))
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

/* Takes a decimal number as it is printed, at most `most`, from *text. */
static bool take_number(const char **text, const char *end, uint64_t most, uint64_t *ret)
{
	const char *p = *text;
	uint64_t number = 0;

	for (; p < end && *p >= '0' && *p <= '9'; p++) {
		uint64_t digit = (uint64_t)(*p - '0');

		if ((number == 0 && p > *text) || number > (most - digit) / 10)
			return false;
		number = number * 10 + digit;
	}
	if (p == *text)
		return false;
	*text = p;
	*ret = number;
	return true;
}

static bool take_text(const char **text, const char *end, const char *wanted)
{
	size_t length = strlen(wanted);

	if ((size_t)(end - *text) < length || memcmp(*text, wanted, length) != 0)
		return false;
	*text += length;
	return true;
}

/* The tenant and its shard, up to the colon behind the braces. */
static bool take_tenant(const struct keys_options *options, const char **text, const char *end,
			struct keys_parsed *ret)
{
	uint64_t version, shard;

	if (!take_text(text, end, options->prefix) || !take_text(text, end, ":v") ||
	    !take_number(text, end, UINT32_MAX, &version) || version != options->version ||
	    !take_text(text, end, ":{"))
		return false;
	ret->tenant = *text;
	while (*text < end && is_tenant_character(**text))
		(*text)++;
	ret->tenant_len = (size_t)(*text - ret->tenant);
	if (ret->tenant_len == 0 || ret->tenant_len > RSHM_TENANT_MAX || !take_text(text, end, ".") ||
	    !take_number(text, end, UINT32_MAX, &shard) || !take_text(text, end, "}:"))
		return false;
	ret->shard = (uint32_t)shard;
	return true;
}

static bool is_hash(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
			return false;
	}
	return length == 2 * KEYS_HASH_BYTES;
}

/* What stands behind the generation: space, form, and the key or its hash. */
static enum keys_form parse_entry(const char *text, const char *end, struct keys_parsed *ret)
{
	size_t left = (size_t)(end - text);

	if (left < 3 || text[0] < 'a' || text[0] > 'z')
		return KEYS_FOREIGN;
	ret->space = text[0];
	if (text[1] == '#')
		return is_hash(text + 2, left - 2) ? KEYS_HASHED : KEYS_FOREIGN;
	if (text[1] != ':' || left - 2 > KEYS_PLAIN_MAX)
		return KEYS_FOREIGN;
	ret->key = text + 2;
	ret->key_len = left - 2;
	return KEYS_PLAIN;
}

enum keys_form keys_redis_parse(const struct keys_options *options, const void *bytes, size_t length,
				struct keys_parsed *ret)
{
	const char *text = bytes, *end = text + length;
	struct keys_parsed parsed = {.tenant = NULL};
	enum keys_form form = KEYS_FOREIGN;

	if (length == 0 || !take_tenant(options, &text, end, &parsed))
		return KEYS_FOREIGN;
	if (end - text == 1 && *text == 'n')
		form = parsed.shard == 0 ? KEYS_NAMESPACE : KEYS_FOREIGN;
	else if (take_number(&text, end, UINT64_MAX, &parsed.generation) && parsed.generation > 0 &&
		 take_text(&text, end, ":"))
		form = parse_entry(text, end, &parsed);
	if (form != KEYS_FOREIGN)
		*ret = parsed;
	return form;
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
