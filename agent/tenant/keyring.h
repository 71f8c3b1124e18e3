/*
 * keyring.h - the data keys of one tenant: made, wrapped by the master key for the backend, unwrapped, retired.
 *
 * The plain keys lie in memory like the master key's (master_key.h). Any one thread at a time per ring; once nothing changes
 * it, any number may read. Nothing here blocks or logs.
 */
#ifndef RIPTIDE_KEYRING_H
#define RIPTIDE_KEYRING_H

#include <stddef.h>
#include <stdint.h>

#include "agent/store/seal.h"

#define KEYRING_KEYS_MAX 8u
#define KEYRING_TEXT_MAX 8192u /* bytes of the stored form */

struct keyring;
struct master_keys;

/* An empty ring of a tenant, whose id is copied. RSHM_E_NOMEM. */
int keyring_create(const char *tenant, struct keyring **ret);

/* Wipes, frees and clears; NULL is fine. */
void keyring_destroy(struct keyring **ring);

/* A new random key, which new writes take from now on. Ids are never used twice. RSHM_E_FULL: retire one first. */
int keyring_add(struct keyring *ring, uint64_t now_ms);

/* Puts the keys of a ring of the same tenant into an empty one. */
void keyring_copy(struct keyring *ring, const struct keyring *from);

/*
 * Destroys a key: what it sealed can never be opened again, once the stored form without it has replaced the one before.
 * RSHM_MISS (there is none), RSHM_E_INVALID (new writes take it).
 */
int keyring_retire(struct keyring *ring, uint32_t id);

/* All keys, lent until the ring changes; the first is the one for new writes. */
struct seal_keys keyring_keys(const struct keyring *ring);

/* When a key of the ring was made, wall clock; 0: it is none. */
uint64_t keyring_created_ms(const struct keyring *ring, uint32_t id);

/*
 * The stored form: JSON in which every key is wrapped anew by the current master key. `ret` is the caller's to free().
 * RSHM_E_INVALID (the ring is empty), RSHM_E_NOMEM.
 */
int keyring_encode(const struct keyring *ring, const struct master_keys *masters, char **ret);

/*
 * Reads the stored form of a tenant's ring, which may be anything. On failure a text in `error`, without secrets.
 * RSHM_E_NOKEY (wrapped by a master key that is not here; the text names it), RSHM_E_CORRUPT (damaged, changed, of another
 * tenant), RSHM_E_FORMAT (of a newer program), RSHM_E_NOMEM.
 */
int keyring_decode(const char *tenant, const struct master_keys *masters, const char *text, size_t length,
		   struct keyring **ret, char *error, size_t error_len);

/* How many keys of a decoded ring a former master key had wrapped: 0 = keyring_encode() would change nothing of weight. */
size_t keyring_behind(const struct keyring *ring);

#endif
