/*
 * keys.h - how an entry is called in a backend.
 *
 * Redis, readable in redis-cli, any byte allowed in the key:
 *
 *	prefix:v1:{tenant.shard}:generation:c:key        keys of up to KEYS_PLAIN_MAX bytes
 *	prefix:v1:{tenant.shard}:generation:c#<64 hex>   longer ones: BLAKE2b-256 of the key
 *
 * The braces make ledger, tags and entries of a shard one slot of a cluster. The two forms differ in the
 * byte after the space letter, whose place is fixed by what stands before it: the prefix has no brace,
 * tenant and numbers no colon. So no plain key, whatever its bytes, can spell a hashed one.
 *
 *	prefix:v1:{tenant.0}:n                           the tenant's namespace: a hash {g generation - 1, s swept}
 *
 * Embedded, binary and ordered by tenant, generation and space:
 *
 *	tenant number u32 BE | generation u64 BE | space | form (0 plain, 1 hashed) | key or 32 bytes of BLAKE2b-256
 *
 * The whole key stands in the envelope and is compared there. No function blocks; all may be called from
 * any thread. The agent calls sodium_init() once at start for the fast hash; without it a slower one gives
 * the same result.
 */
#ifndef RIPTIDE_STORE_KEYS_H
#define RIPTIDE_STORE_KEYS_H

#include <stddef.h>
#include <stdint.h>

struct store_name;

#define KEYS_PLAIN_MAX 400u /* bytes of a key that stands plain */
#define KEYS_PREFIX_MAX 64u /* characters */
#define KEYS_REDIS_MAX 640u /* bytes of any Redis key made here */
#define KEYS_EMBEDDED_HEAD 14u
#define KEYS_EMBEDDED_MAX (KEYS_EMBEDDED_HEAD + KEYS_PLAIN_MAX)

/* Same for all agents of one backend. */
struct keys_options {
	const char *prefix; /* [A-Za-z0-9_.:-]{1,64}; default KEYS_PREFIX_DEFAULT */
	uint32_t version;   /* the 1 of "v1"; default KEYS_VERSION_DEFAULT */
};
#define KEYS_PREFIX_DEFAULT "riptide"
#define KEYS_VERSION_DEFAULT 1u

struct keys_redis {
	size_t length;
	char bytes[KEYS_REDIS_MAX]; /* followed by no NUL */
};

#define KEYS_PATTERN_MAX 832u

/* For MATCH of SCAN. */
struct keys_pattern {
	size_t length;
	char bytes[KEYS_PATTERN_MAX]; /* followed by no NUL */
};

enum keys_form {
	KEYS_FOREIGN, /* nothing of this namespace */
	KEYS_PLAIN,
	KEYS_HASHED,
	KEYS_NAMESPACE, /* a tenant's hash {g, s} */
};

struct keys_embedded {
	size_t length;
	unsigned char bytes[KEYS_EMBEDDED_MAX];
};

/* RSHM_OK, or RSHM_E_INVALID if the prefix or version cannot be used. For the configuration. */
int keys_options_check(const struct keys_options *options);

/* The shard of a key, 0 .. shards - 1: XXH3-64 of its bytes modulo `shards` (0 counts as 1). */
uint32_t keys_shard(const void *key, size_t key_len, uint32_t shards);

/*
 * The name as a Redis key. `options` passed keys_options_check().
 * RSHM_E_INVALID (tenant id, space, empty key, generation 0), RSHM_E_TOOBIG (key above RSHM_KEY_MAX).
 */
int keys_redis(const struct keys_options *options, const struct store_name *name, struct keys_redis *ret);

/* The Redis key of a tenant's namespace. RSHM_E_INVALID (tenant id). */
int keys_redis_tenant(const struct keys_options *options, const char *tenant, struct keys_redis *ret);

/*
 * A pattern that matches the Redis keys of all entries of name's tenant, generation and space whose keys begin with
 * name.key (key_len may be 0), and some others. RSHM_E_INVALID, RSHM_E_TOOBIG as keys_redis().
 */
int keys_redis_pattern(const struct keys_options *options, const struct store_name *name, struct keys_pattern *ret);

/*
 * What a Redis key is in name's tenant, generation and space; name.key is not looked at. KEYS_PLAIN: the entry's key
 * is what follows the first *ret_key_at bytes. KEYS_HASHED: it stands in the envelope only. Whether the rest is as
 * keys_redis() makes it, that function tells. `name` passed keys_redis_pattern().
 */
enum keys_form keys_redis_form(const struct keys_options *options, const struct store_name *name, const void *bytes,
			       size_t length, size_t *ret_key_at);

/* What a Redis key is, taken apart. Pointers into it. */
struct keys_parsed {
	const char *tenant; /* not NUL-terminated; [a-z0-9-]{1,64} */
	size_t tenant_len;
	uint32_t shard;
	uint64_t generation;
	char space;
	const void *key; /* KEYS_PLAIN */
	size_t key_len;
};

/*
 * Takes apart what keys_redis() and keys_redis_tenant() make. KEYS_NAMESPACE: only the tenant is set. KEYS_HASHED: no key.
 * KEYS_FOREIGN: neither made it, *ret is untouched. Any bytes may come.
 */
enum keys_form keys_redis_parse(const struct keys_options *options, const void *bytes, size_t length,
				struct keys_parsed *ret);

/* The name as an LMDB key. Errors as above; here the tenant's number must not be 0, its text is not looked at. */
int keys_embedded(const struct store_name *name, struct keys_embedded *ret);

#endif
