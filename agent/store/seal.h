/*
 * seal.h - an envelope's metadata and payload encrypted where they are stored, and opened again.
 *
 * XChaCha20-Poly1305 under a random nonce of 24 bytes. The additional data are tenant, generation, space, key id, and the
 * envelope itself as far as it stays plain: the head up to the expiry (version, flags, algorithm, sizes, times, writer,
 * dictionary), tag epochs, key. So nothing sealed can be moved to another tenant, key or version, or read in another
 * way. Expiry and expiry bucket are outside, since a touch rewrites them in place.
 *
 * What it does not hide: the key, how long metadata and value are, when they were written. What it cannot tell: that an
 * older sealed envelope of the same entry was put back.
 *
 * No function blocks or logs; all may be called from any thread, after sodium_init().
 */
#ifndef RIPTIDE_STORE_SEAL_H
#define RIPTIDE_STORE_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct envelope_buffer;
struct store_name;

#define SEAL_KEY_BYTES 32u

/* A data key. The bytes are borrowed. */
struct seal_key {
	uint32_t id;                /* of the tenant's keys; never 0 */
	const unsigned char *bytes; /* SEAL_KEY_BYTES */
};

/* The keys of a tenant. Borrowed; at most a handful, so they are looked through. */
struct seal_keys {
	const struct seal_key *keys;
	size_t count;
};

/* Whether the first bytes of an envelope, ENVELOPE_HEAD_BYTES at least, say that it is sealed. False as well if it is none. */
bool seal_is_sealed(const void *envelope, size_t length);

/*
 * Seals a plain envelope of `name`, whose tenant, generation, space and key must be set, into a new one, the caller's from
 * then on, ENVELOPE_BOX_BYTES longer. RSHM_E_INVALID: it is a tombstone, which has nothing to seal and stays plain;
 * RSHM_E_CORRUPT, RSHM_E_FORMAT, RSHM_E_NOKEY (it is sealed): as envelope_open(); RSHM_E_NOMEM.
 */
int seal_envelope(const struct seal_key *key, const struct store_name *name, const void *envelope, size_t length,
		  struct envelope_buffer *ret);

/*
 * Opens a sealed envelope of `name` into a plain one, the caller's from then on: what seal_envelope() was given, but for a
 * touch since. RSHM_E_INVALID (it is not sealed), RSHM_E_NOKEY (none of `keys` has its key id), RSHM_E_CORRUPT
 * (damaged, changed, or moved here from elsewhere), RSHM_E_FORMAT, RSHM_E_NOMEM.
 */
int seal_open(const struct seal_keys *keys, const struct store_name *name, const void *envelope, size_t length,
	      struct envelope_buffer *ret);

/* The id of the key that a sealed envelope takes. Errors as seal_open(). For who re-seals. */
int seal_key_id(const void *envelope, size_t length, uint32_t *ret);

/* The same as the first bytes of it say, so many or all; nothing is checked but where it stands. */
#define SEAL_PEEK_BYTES(key_len) (72u + 64u * 8u + (key_len) + 44u) /* head, tag epochs, key, box */
int seal_peek_key_id(const void *bytes, size_t length, uint32_t *ret);

#endif
