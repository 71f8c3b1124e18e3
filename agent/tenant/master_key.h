/*
 * master_key.h - the keys that wrap the tenants' data keys: the current one, and former ones that only unwrap.
 *
 * They come from files alone, never from arguments or the environment, and lie in memory that is locked as far as the
 * system's limit allows, kept out of core dumps and wiped at the end. Any thread may read a set; nothing here logs.
 */
#ifndef RIPTIDE_MASTER_KEY_H
#define RIPTIDE_MASTER_KEY_H

#include <stddef.h>

#define MASTER_KEY_BYTES 32u
#define MASTER_KEY_FORMER_MAX 7u
#define MASTER_KEY_ID_BYTES 17u /* 16 hex digits and NUL */

struct master_keys;

/*
 * Reads the current key from `path` and the former ones from `former`. A file has 32 bytes, or 64 hex digits with or without a
 * line feed; it is a regular file, no symbolic link, of this user or root, and nobody else may read it. Blocks on the disk;
 * sodium_init() was called. On failure a text in `error` that names the file and never its content. RSHM_E_SYSTEM (cannot be
 * read), RSHM_E_DENIED (owner, mode, kind), RSHM_E_INVALID (content, the same key twice, too many), RSHM_E_NOMEM.
 */
int master_keys_load(const char *path, const char *const *former, size_t former_count, struct master_keys **ret,
		     char *error, size_t error_len);

/* Wipes, frees and clears; NULL is fine. */
void master_keys_destroy(struct master_keys **keys);

/* Public name of a key: a hash that tells nothing of it. `index` 0 is the current one; NULL: there are no more. */
const char *master_keys_id(const struct master_keys *keys, size_t index);

/* MASTER_KEY_BYTES of the key that is called so, lent as long as the set lives; NULL: it is none of these. */
const unsigned char *master_keys_find(const struct master_keys *keys, const char *id);

#endif
