/*
 * The stored form:
 *
 *	{"format": 1, "next_id": 3, "keys": [{"id": 2, "created_ms": ..., "master": "<id>", "wrapped": "<base64>"}, ...]}
 *
 * newest first; the first is for new writes. `wrapped` is nonce, encrypted key and MAC of XChaCha20-Poly1305; the additional
 * data are tenant and key id, so that a wrapped key is good for neither another tenant nor another id. Who can write to the
 * backend can take keys away or put an older document back, which loses data or brings a retired key back into use, but he
 * cannot bring in a key that he knows.
 *
 * Read strictly: one wrong member refuses the whole ring.
 */
#include "agent/tenant/keyring.h"

#include <endian.h>
#include <jansson.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/tenant/master_key.h"
#include "shm/msg.h"

#define FORMAT 1
#define TENANT_MAX 64u
#define NONCE_BYTES crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define WRAPPED_BYTES (NONCE_BYTES + SEAL_KEY_BYTES + crypto_aead_xchacha20poly1305_ietf_ABYTES)
#define BASE64 sodium_base64_VARIANT_ORIGINAL
#define ENCODED_BYTES sodium_base64_ENCODED_LEN(WRAPPED_BYTES, BASE64)
#define ADDITIONAL_MAX (64u + TENANT_MAX)

struct keyring {
	char tenant[TENANT_MAX + 1];
	struct seal_key
		keys[KEYRING_KEYS_MAX]; /* newest first; the bytes are in `secrets`, each in a place of its own */
	uint64_t created_ms[KEYRING_KEYS_MAX];
	size_t count, behind;
	uint32_t next_id;
	unsigned char (*secrets)[SEAL_KEY_BYTES]; /* sodium_malloc(): KEYRING_KEYS_MAX of them */
	bool taken[KEYRING_KEYS_MAX];             /* of `secrets` */
};

int keyring_create(const char *tenant, struct keyring **ret)
{
	struct keyring *ring = calloc(1, sizeof *ring);

	must(strlen(tenant) <= TENANT_MAX);
	if (ring == NULL)
		return RSHM_E_NOMEM;
	ring->secrets = sodium_allocarray(KEYRING_KEYS_MAX, SEAL_KEY_BYTES);
	if (ring->secrets == NULL) {
		free(ring);
		return RSHM_E_NOMEM;
	}
	memcpy(ring->tenant, tenant, strlen(tenant) + 1);
	ring->next_id = 1;
	*ret = ring;
	return RSHM_OK;
}

void keyring_destroy(struct keyring **ring)
{
	if (*ring == NULL)
		return;
	sodium_free((*ring)->secrets);
	free(*ring);
	*ring = NULL;
}

/* A free place; the caller knows that there is one. */
static unsigned char *take_secret(struct keyring *ring)
{
	size_t i = 0;

	while (i < KEYRING_KEYS_MAX && ring->taken[i])
		i++;
	must(i < KEYRING_KEYS_MAX);
	ring->taken[i] = true;
	return ring->secrets[i];
}

static void drop_secret(struct keyring *ring, const unsigned char *bytes)
{
	size_t i = (size_t)(bytes - ring->secrets[0]) / SEAL_KEY_BYTES;

	must(i < KEYRING_KEYS_MAX && ring->taken[i]);
	sodium_memzero(ring->secrets[i], SEAL_KEY_BYTES);
	ring->taken[i] = false;
}

int keyring_add(struct keyring *ring, uint64_t now_ms)
{
	unsigned char *bytes;

	if (ring->count == KEYRING_KEYS_MAX || ring->next_id == UINT32_MAX)
		return RSHM_E_FULL;
	bytes = take_secret(ring);
	randombytes_buf(bytes, SEAL_KEY_BYTES);
	memmove(ring->keys + 1, ring->keys, ring->count * sizeof ring->keys[0]);
	memmove(ring->created_ms + 1, ring->created_ms, ring->count * sizeof ring->created_ms[0]);
	ring->keys[0] = (struct seal_key){.id = ring->next_id++, .bytes = bytes};
	ring->created_ms[0] = now_ms;
	ring->count++;
	return RSHM_OK;
}

static size_t find_key(const struct keyring *ring, uint32_t id)
{
	size_t i = 0;

	while (i < ring->count && ring->keys[i].id != id)
		i++;
	return i;
}

void keyring_copy(struct keyring *ring, const struct keyring *from)
{
	must(ring->count == 0 && strcmp(ring->tenant, from->tenant) == 0);
	for (size_t i = 0; i < from->count; i++) {
		unsigned char *bytes = take_secret(ring);

		memcpy(bytes, from->keys[i].bytes, SEAL_KEY_BYTES);
		ring->keys[i] = (struct seal_key){.id = from->keys[i].id, .bytes = bytes};
		ring->created_ms[i] = from->created_ms[i];
	}
	ring->count = from->count;
	ring->next_id = from->next_id;
}

int keyring_retire(struct keyring *ring, uint32_t id)
{
	size_t at = find_key(ring, id);

	if (at == ring->count)
		return RSHM_MISS;
	if (at == 0)
		return RSHM_E_INVALID;
	drop_secret(ring, ring->keys[at].bytes);
	ring->count--;
	memmove(ring->keys + at, ring->keys + at + 1, (ring->count - at) * sizeof ring->keys[0]);
	memmove(ring->created_ms + at, ring->created_ms + at + 1, (ring->count - at) * sizeof ring->created_ms[0]);
	return RSHM_OK;
}

struct seal_keys keyring_keys(const struct keyring *ring)
{
	return (struct seal_keys){.keys = ring->keys, .count = ring->count};
}

uint64_t keyring_created_ms(const struct keyring *ring, uint32_t id)
{
	size_t at = find_key(ring, id);

	return at < ring->count ? ring->created_ms[at] : 0;
}

size_t keyring_behind(const struct keyring *ring)
{
	return ring->behind;
}

/* ---- wrapping ----------------------------------------------------------------------------------------------- */

/* Returns the length. */
static size_t make_additional(const struct keyring *ring, uint32_t id, unsigned char ret[ADDITIONAL_MAX])
{
	static const char purpose[] = "riptide data key 1";
	uint32_t wire = htole32(id);
	size_t tenant_len = strlen(ring->tenant) + 1;

	memcpy(ret, purpose, sizeof purpose);
	memcpy(ret + sizeof purpose, &wire, sizeof wire);
	memcpy(ret + sizeof purpose + sizeof wire, ring->tenant, tenant_len);
	return sizeof purpose + sizeof wire + tenant_len;
}

static void wrap_key(const struct keyring *ring, const struct seal_key *key, const unsigned char *master,
		     char ret[ENCODED_BYTES])
{
	unsigned char additional[ADDITIONAL_MAX], wrapped[WRAPPED_BYTES];
	size_t additional_len = make_additional(ring, key->id, additional);

	randombytes_buf(wrapped, NONCE_BYTES);
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(wrapped + NONCE_BYTES, NULL, key->bytes, SEAL_KEY_BYTES,
							 additional, additional_len, NULL, wrapped, master);
	(void)sodium_bin2base64(ret, ENCODED_BYTES, wrapped, sizeof wrapped, BASE64);
}

static bool unwrap_key(const struct keyring *ring, uint32_t id, const char *text, size_t length,
		       const unsigned char *master, unsigned char *ret)
{
	unsigned char additional[ADDITIONAL_MAX], wrapped[WRAPPED_BYTES];
	size_t bytes = 0, additional_len = make_additional(ring, id, additional);

	return sodium_base642bin(wrapped, sizeof wrapped, text, length, NULL, &bytes, NULL, BASE64) == 0 &&
	       bytes == sizeof wrapped &&
	       crypto_aead_xchacha20poly1305_ietf_decrypt(ret, NULL, NULL, wrapped + NONCE_BYTES,
							  WRAPPED_BYTES - NONCE_BYTES, additional, additional_len,
							  wrapped, master) == 0;
}

static json_t *pack_key(const struct keyring *ring, size_t at, const struct master_keys *masters)
{
	const char *master_id = master_keys_id(masters, 0);
	char wrapped[ENCODED_BYTES];

	wrap_key(ring, &ring->keys[at], master_keys_find(masters, master_id), wrapped);
	return json_pack("{s:I, s:I, s:s, s:s}", "id", (json_int_t)ring->keys[at].id, "created_ms",
			 (json_int_t)ring->created_ms[at], "master", master_id, "wrapped", wrapped);
}

int keyring_encode(const struct keyring *ring, const struct master_keys *masters, char **ret)
{
	json_t *keys, *document;
	char *text = NULL;

	if (ring->count == 0)
		return RSHM_E_INVALID;
	keys = json_array();
	for (size_t i = 0; i < ring->count; i++)
		if (json_array_append_new(keys, pack_key(ring, i, masters)) < 0) {
			json_decref(keys);
			return RSHM_E_NOMEM;
		}
	document = json_pack("{s:i, s:I, s:o}", "format", FORMAT, "next_id", (json_int_t)ring->next_id, "keys", keys);
	if (document != NULL)
		text = json_dumps(document, JSON_COMPACT);
	json_decref(document);
	if (text == NULL)
		return RSHM_E_NOMEM;
	must(strlen(text) <= KEYRING_TEXT_MAX);
	*ret = text;
	return RSHM_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

struct reading {
	struct keyring *ring;
	const struct master_keys *masters;
	char *error;
	size_t error_len;
};

static int refuse(const struct reading *r, int status, const char *why)
{
	(void)snprintf(r->error, r->error_len, "keys of tenant %s: %s", r->ring->tenant, why);
	return status;
}

/* A master key's id as it may stand in a text: it comes from the backend. */
static bool is_master_id(const char *id)
{
	return strlen(id) == MASTER_KEY_ID_BYTES - 1 && strspn(id, "0123456789abcdef") == MASTER_KEY_ID_BYTES - 1;
}

static int refuse_master(const struct reading *r, const char *id)
{
	(void)snprintf(
		r->error, r->error_len,
		"keys of tenant %s: wrapped by master key %s, which this agent does not have (its own is %s); see "
		"encryption.master_key_file and encryption.former_master_key_file",
		r->ring->tenant, id, master_keys_id(r->masters, 0));
	return RSHM_E_NOKEY;
}

/* Keys come newest first, so ids fall. */
static bool id_fits(const struct keyring *ring, json_int_t id)
{
	json_int_t below = ring->count == 0 ? (json_int_t)ring->next_id : (json_int_t)ring->keys[ring->count - 1].id;

	return id > 0 && id < below;
}

static int read_key(const struct reading *r, json_t *member)
{
	struct keyring *ring = r->ring;
	const char *master_id, *wrapped;
	const unsigned char *master;
	json_int_t id, created_ms;
	unsigned char *bytes;
	size_t wrapped_len;

	if (json_unpack_ex(member, NULL, JSON_STRICT, "{s:I, s:I, s:s, s:s%}", "id", &id, "created_ms", &created_ms,
			   "master", &master_id, "wrapped", &wrapped, &wrapped_len) < 0 ||
	    !id_fits(ring, id) || created_ms < 0 || !is_master_id(master_id))
		return refuse(r, RSHM_E_CORRUPT, "damaged");
	master = master_keys_find(r->masters, master_id);
	if (master == NULL)
		return refuse_master(r, master_id);
	bytes = take_secret(ring);
	if (!unwrap_key(ring, (uint32_t)id, wrapped, wrapped_len, master, bytes))
		return refuse(r, RSHM_E_CORRUPT, "a wrapped key was changed, or is another tenant's");
	ring->keys[ring->count] = (struct seal_key){.id = (uint32_t)id, .bytes = bytes};
	ring->created_ms[ring->count++] = (uint64_t)created_ms;
	if (strcmp(master_id, master_keys_id(r->masters, 0)) != 0)
		ring->behind++;
	return RSHM_OK;
}

static int read_document(const struct reading *r, json_t *document)
{
	json_t *keys, *format = json_object_get(document, "format");
	json_int_t next_id;
	int version, status = RSHM_OK;

	if (json_is_integer(format) && json_integer_value(format) > FORMAT)
		return refuse(r, RSHM_E_FORMAT, "written by a newer program");
	if (json_unpack_ex(document, NULL, JSON_STRICT, "{s:i, s:I, s:o}", "format", &version, "next_id", &next_id,
			   "keys", &keys) < 0 ||
	    version != FORMAT || next_id < 2 || next_id > UINT32_MAX || !json_is_array(keys) ||
	    json_array_size(keys) == 0 || json_array_size(keys) > KEYRING_KEYS_MAX)
		return refuse(r, RSHM_E_CORRUPT, "damaged");
	r->ring->next_id = (uint32_t)next_id;
	for (size_t i = 0; i < json_array_size(keys) && status == RSHM_OK; i++)
		status = read_key(r, json_array_get(keys, i));
	return status;
}

int keyring_decode(const char *tenant, const struct master_keys *masters, const char *text, size_t length,
		   struct keyring **ret, char *error, size_t error_len)
{
	struct reading r = {.masters = masters, .error = error, .error_len = error_len};
	json_t *document;
	int status = keyring_create(tenant, &r.ring);

	if (status < 0) {
		(void)snprintf(error, error_len, "keys of tenant %s: no memory", tenant);
		return status;
	}
	document = length > KEYRING_TEXT_MAX ? NULL : json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
	status = document == NULL ? refuse(&r, RSHM_E_CORRUPT, "damaged") : read_document(&r, document);
	json_decref(document);
	if (status < 0) {
		keyring_destroy(&r.ring);
		return status;
	}
	*ret = r.ring;
	return RSHM_OK;
}
