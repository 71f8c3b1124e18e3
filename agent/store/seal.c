/*
 * Sealing is a way from a whole envelope to a whole envelope: whoever makes or reads envelopes knows plain ones only, and
 * stores, journal and disk tier carry the sealed ones without a look inside, since head and key stand where they always
 * stand.
 *
 *	plain    head | tag epochs | key |                        metadata | payload
 *	sealed   head | tag epochs | key | key id | nonce | MAC | encrypted (metadata | payload)
 *
 * The payload was compressed before. The checksum is made anew over what is stored: it finds rot cheaply, before a key is
 * looked for, and proves nothing; the MAC does.
 *
 * The additional data are not one piece of memory (the expiry lies in between) and may be 64 KiB, so their BLAKE2b-256
 * stands for them. Everything of variable length is preceded by its length, here or in the head.
 *
 * A nonce is random: with 192 bits no agent needs to know of another's, and a key is good for far more entries than there
 * can be.
 */
#include "agent/store/seal.h"

#include <endian.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/store/envelope.h"
#include "agent/store/store.h"
#include "shm/msg.h"

#define ADDITIONAL_BYTES 32u
#define BOUND_HEAD ENVELOPE_OFFSET_EXPIRY /* bytes of the head that are bound */

_Static_assert(SEAL_KEY_BYTES == crypto_aead_xchacha20poly1305_ietf_KEYBYTES, "key");
_Static_assert(ENVELOPE_BOX_MAC - ENVELOPE_BOX_NONCE == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, "nonce");
_Static_assert(ENVELOPE_BOX_BYTES - ENVELOPE_BOX_MAC == crypto_aead_xchacha20poly1305_ietf_ABYTES, "MAC");

static const unsigned char purpose[] = "riptide envelope 1";

static void hash_u64(crypto_generichash_state *state, uint64_t value)
{
	uint64_t wire = htole64(value);

	(void)crypto_generichash_update(state, (const unsigned char *)&wire, sizeof wire);
}

/* `envelope` is a sealed one as far as its flags go; of it, head, tag epochs and key are read. */
static void make_additional(const struct store_name *name, uint32_t key_id, const unsigned char *envelope,
			    size_t behind_key, unsigned char ret[ADDITIONAL_BYTES])
{
	size_t tenant_len = strlen(name->tenant);
	crypto_generichash_state state;

	(void)crypto_generichash_init(&state, NULL, 0, ADDITIONAL_BYTES);
	(void)crypto_generichash_update(&state, purpose, sizeof purpose);
	hash_u64(&state, tenant_len);
	(void)crypto_generichash_update(&state, (const unsigned char *)name->tenant, tenant_len);
	hash_u64(&state, name->generation);
	hash_u64(&state, (unsigned char)name->space);
	hash_u64(&state, key_id);
	(void)crypto_generichash_update(&state, envelope, BOUND_HEAD);
	(void)crypto_generichash_update(&state, envelope + ENVELOPE_HEAD_BYTES, behind_key - ENVELOPE_HEAD_BYTES);
	(void)crypto_generichash_final(&state, ret, ADDITIONAL_BYTES);
}

static size_t behind_key_of(const struct envelope_head *head)
{
	return envelope_key_offset(head) + head->key_len;
}

static void check_name(const struct store_name *name)
{
	must(name->tenant != NULL && name->generation > 0 && name->key != NULL && name->key_len > 0);
}

int seal_envelope(const struct seal_key *key, const struct store_name *name, const void *envelope, size_t length,
		  struct envelope_buffer *ret)
{
	unsigned char *bytes, *box, additional[ADDITIONAL_BYTES];
	struct envelope_view view;
	size_t before, secret_len;
	uint32_t id;
	int status;

	check_name(name);
	must(key->id != 0);
	status = envelope_open(envelope, length, name->key, name->key_len, &view);
	if (status < 0)
		return status;
	if (view.head.flags & ENVELOPE_FLAG_TOMBSTONE)
		return RSHM_E_INVALID;
	bytes = malloc(length + ENVELOPE_BOX_BYTES);
	if (bytes == NULL)
		return RSHM_E_NOMEM;
	before = behind_key_of(&view.head);
	secret_len = length - before;
	memcpy(bytes, envelope, before);
	envelope_set_flags(bytes, view.head.flags | ENVELOPE_FLAG_SEALED);
	make_additional(name, key->id, bytes, before, additional);
	box = bytes + before;
	id = htole32(key->id);
	memcpy(box + ENVELOPE_BOX_KEY_ID, &id, sizeof id);
	randombytes_buf(box + ENVELOPE_BOX_NONCE, crypto_aead_xchacha20poly1305_ietf_NPUBBYTES);
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
		box + ENVELOPE_BOX_BYTES, box + ENVELOPE_BOX_MAC, NULL, view.metadata, secret_len, additional,
		sizeof additional, NULL, box + ENVELOPE_BOX_NONCE, key->bytes);
	envelope_set_checksum(bytes, length + ENVELOPE_BOX_BYTES);
	*ret = (struct envelope_buffer){.bytes = bytes, .length = length + ENVELOPE_BOX_BYTES};
	return RSHM_OK;
}

static uint32_t box_key_id(const struct envelope_view *view)
{
	uint32_t id;

	memcpy(&id, (const unsigned char *)view->box + ENVELOPE_BOX_KEY_ID, sizeof id);
	return le32toh(id);
}

static const struct seal_key *find_key(const struct seal_keys *keys, uint32_t id)
{
	for (size_t i = 0; i < keys->count; i++)
		if (keys->keys[i].id == id)
			return &keys->keys[i];
	return NULL;
}

/* Decrypts what stands behind the box of `view` to `destination`. */
static int open_box(const struct seal_key *key, const struct envelope_view *view, const unsigned char *additional,
		    unsigned char *destination)
{
	const unsigned char *box = view->box;

	if (crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
		    destination, NULL, box + ENVELOPE_BOX_BYTES,
		    (size_t)view->head.metadata_len + view->head.stored_size, box + ENVELOPE_BOX_MAC, additional,
		    ADDITIONAL_BYTES, box + ENVELOPE_BOX_NONCE, key->bytes) != 0)
		return RSHM_E_CORRUPT;
	return RSHM_OK;
}

int seal_open(const struct seal_keys *keys, const struct store_name *name, const void *envelope, size_t length,
	      struct envelope_buffer *ret)
{
	unsigned char *bytes, additional[ADDITIONAL_BYTES];
	const struct seal_key *key;
	struct envelope_view view;
	size_t before;
	int status;

	check_name(name);
	status = envelope_open_sealed(envelope, length, name->key, name->key_len, &view);
	if (status < 0)
		return status;
	key = find_key(keys, box_key_id(&view));
	if (key == NULL)
		return RSHM_E_NOKEY;
	bytes = malloc(length - ENVELOPE_BOX_BYTES);
	if (bytes == NULL)
		return RSHM_E_NOMEM;
	before = behind_key_of(&view.head);
	make_additional(name, key->id, envelope, before, additional);
	memcpy(bytes, envelope, before);
	status = open_box(key, &view, additional, bytes + before);
	if (status < 0) {
		free(bytes);
		return status;
	}
	envelope_set_flags(bytes, view.head.flags & (uint16_t)~ENVELOPE_FLAG_SEALED);
	envelope_set_checksum(bytes, length - ENVELOPE_BOX_BYTES);
	*ret = (struct envelope_buffer){.bytes = bytes, .length = length - ENVELOPE_BOX_BYTES};
	return RSHM_OK;
}

bool seal_is_sealed(const void *envelope, size_t length)
{
	struct envelope_head head;

	return envelope_peek_head(envelope, length, &head) == RSHM_OK && (head.flags & ENVELOPE_FLAG_SEALED) != 0;
}

int seal_peek_key_id(const void *bytes, size_t length, uint32_t *ret)
{
	struct envelope_head head;
	uint32_t id;
	size_t at;
	int status = envelope_peek_head(bytes, length, &head);

	if (status < 0)
		return status;
	if (!(head.flags & ENVELOPE_FLAG_SEALED))
		return RSHM_E_INVALID;
	at = behind_key_of(&head) + ENVELOPE_BOX_KEY_ID;
	if (at + sizeof id > length)
		return RSHM_E_CORRUPT;
	memcpy(&id, (const unsigned char *)bytes + at, sizeof id);
	*ret = le32toh(id);
	return RSHM_OK;
}

int seal_key_id(const void *envelope, size_t length, uint32_t *ret)
{
	struct envelope_view view;
	int status = envelope_open_sealed(envelope, length, NULL, 0, &view);

	if (status == RSHM_OK)
		*ret = box_key_id(&view);
	return status;
}
