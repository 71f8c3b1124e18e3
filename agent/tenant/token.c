/*
 * token.c - tokens of one tenant in an array, in order of creation.
 *
 * A secret has 256 random bits, so a fast hash of it is enough: nothing can be guessed from it, and there is nothing for a
 * slow password hash to make up for. What is kept is
 *
 *	BLAKE2b-256(key = secret, "riptide token 1" NUL tenant NUL id)
 *
 * Tenant and id are in the hash, so that a row which someone copies from one tenant's record into another's, or gives
 * another id, lets nobody in. Neither can hold a NUL, so no two pairs give the same bytes.
 *
 * Checking looks at every row whether or not it has found the id, and computes one hash and two comparisons either way; a
 * token that is not there is compared with a row of zeros, whose outcome is thrown away. Only whether a text is well-formed
 * shows in the time, and that is no secret. Revoked and expired count after the secret has been found right, so that a
 * verdict says nothing of tokens that the peer does not have.
 *
 * Secrets are on the stack of one function, wiped before it returns, and in the caller's buffer.
 */
#include "agent/tenant/token.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/text.h"

#define TOKEN_FORMAT 1
#define SECRET_BYTES 32u
#define HASH_BYTES 32u
#define ENCODED_LENGTH 43u /* base64url of either, without padding */
#define PREFIX "rt_"
#define PREFIX_LENGTH 3u
#define ID_ALPHABET "abcdefghijklmnopqrstuvwxyz234567"
#define ID_TRIES 8
#define BASE64 sodium_base64_VARIANT_URLSAFE_NO_PADDING

_Static_assert(TOKEN_TEXT_BYTES == PREFIX_LENGTH + TOKEN_ID_LENGTH + 1 + ENCODED_LENGTH + 1, "text of a token");
_Static_assert(SECRET_BYTES == HASH_BYTES, "one length of base64url for both");
_Static_assert(SECRET_BYTES >= crypto_generichash_KEYBYTES_MIN && SECRET_BYTES <= crypto_generichash_KEYBYTES_MAX,
	       "a secret is a key of BLAKE2b");

struct token {
	struct token_info info;
	unsigned char hash[HASH_BYTES];
	unsigned char previous[HASH_BYTES]; /* if info.grace_until_ms is not 0 */
};

struct token_set {
	char tenant[RSHM_TENANT_MAX + 1];
	uint32_t limit, count;
	struct token *tokens; /* `limit` of them */
};

static const char *const role_names[] = {"read_only", "tenant", "admin"};
static const char *const verdict_names[] = {"valid", "malformed", "unknown", "wrong secret", "expired", "revoked"};

#define ROLES (sizeof(role_names) / sizeof(role_names[0]))

const char *token_role_name(enum token_role role)
{
	must((size_t)role < ROLES);
	return role_names[role];
}

bool token_role_parse(const char *name, enum token_role *ret)
{
	for (size_t i = 0; i < ROLES; i++)
		if (strcmp(role_names[i], name) == 0) {
			*ret = (enum token_role)i;
			return true;
		}
	return false;
}

const char *token_verdict_name(enum token_verdict verdict)
{
	must((size_t)verdict < sizeof(verdict_names) / sizeof(verdict_names[0]));
	return verdict_names[verdict];
}

/* ---- sets --------------------------------------------------------------------------------------------------- */

int token_set_create(const char *tenant, uint32_t limit, struct token_set **ret)
{
	struct token_set *set;

	must(text_is_name(tenant, RSHM_TENANT_MAX) && limit >= 1 && limit <= TOKEN_SET_MAX);
	set = sodium_init() < 0 ? NULL : calloc(1, sizeof(*set));
	if (set)
		set->tokens = calloc(limit, sizeof(*set->tokens));
	if (!set || !set->tokens) {
		free(set);
		return RSHM_E_NOMEM;
	}
	strcpy(set->tenant, tenant);
	set->limit = limit;
	*ret = set;
	return RSHM_OK;
}

void token_set_destroy(struct token_set **set)
{
	if (*set) {
		free((*set)->tokens);
		free(*set);
	}
	*set = NULL;
}

static struct token *find(const struct token_set *set, const char *id)
{
	for (uint32_t i = 0; i < set->count; i++)
		if (strcmp(set->tokens[i].info.id, id) == 0)
			return &set->tokens[i];
	return NULL;
}

static bool has_expired(const struct token_info *info, uint64_t now_ms)
{
	return info->expires_ms != 0 && info->expires_ms <= now_ms;
}

static bool in_force(const struct token_info *info, uint64_t now_ms)
{
	return !info->revoked && !has_expired(info, now_ms);
}

size_t token_count(const struct token_set *set)
{
	return set->count;
}

void token_info(const struct token_set *set, size_t index, struct token_info *ret)
{
	must(index < set->count);
	*ret = set->tokens[index].info;
}

/* ---- secrets ------------------------------------------------------------------------------------------------ */

static void hash_secret(const char *tenant, const char *id, const unsigned char secret[SECRET_BYTES],
			unsigned char ret[HASH_BYTES])
{
	static const char domain[] = "riptide token 1";
	crypto_generichash_state state;

	crypto_generichash_init(&state, secret, SECRET_BYTES, HASH_BYTES);
	crypto_generichash_update(&state, (const unsigned char *)domain, sizeof(domain));
	crypto_generichash_update(&state, (const unsigned char *)tenant, strlen(tenant) + 1);
	crypto_generichash_update(&state, (const unsigned char *)id, strlen(id));
	crypto_generichash_final(&state, ret, HASH_BYTES);
	sodium_memzero(&state, sizeof(state));
}

/* Gives the token a secret and writes the text that shows it. */
static void renew(const struct token_set *set, struct token *token, char ret_text[TOKEN_TEXT_BYTES])
{
	unsigned char secret[SECRET_BYTES];
	char *at = ret_text;

	randombytes_buf(secret, sizeof(secret));
	hash_secret(set->tenant, token->info.id, secret, token->hash);
	memcpy(at, PREFIX, PREFIX_LENGTH);
	at += PREFIX_LENGTH;
	memcpy(at, token->info.id, TOKEN_ID_LENGTH);
	at += TOKEN_ID_LENGTH;
	*at++ = '_';
	(void)sodium_bin2base64(at, ENCODED_LENGTH + 1, secret, sizeof(secret), BASE64);
	sodium_memzero(secret, sizeof(secret));
}

/*
 * ENCODED_LENGTH characters, in the one form that encoding gives. libsodium's decoder takes some others as well: bytes above
 * 127 count as '_'.
 */
static bool decode(const char *text, unsigned char ret[SECRET_BYTES])
{
	char again[ENCODED_LENGTH + 1];
	size_t bytes;
	bool right = sodium_base642bin(ret, SECRET_BYTES, text, ENCODED_LENGTH, NULL, &bytes, NULL, BASE64) == 0 &&
		     bytes == SECRET_BYTES;

	if (right) {
		(void)sodium_bin2base64(again, sizeof(again), ret, SECRET_BYTES, BASE64);
		right = sodium_memcmp(again, text, ENCODED_LENGTH) == 0;
		sodium_memzero(again, sizeof(again));
	}
	return right;
}

static void draw_id(char ret[TOKEN_ID_LENGTH + 1])
{
	randombytes_buf(ret, TOKEN_ID_LENGTH);
	for (size_t i = 0; i < TOKEN_ID_LENGTH; i++)
		ret[i] = ID_ALPHABET[(unsigned char)ret[i] & 31];
	ret[TOKEN_ID_LENGTH] = '\0';
}

/* ---- life of a token ---------------------------------------------------------------------------------------- */

static bool is_label(const char *label)
{
	size_t length = strlen(label);

	if (length > TOKEN_LABEL_MAX)
		return false;
	for (size_t i = 0, step; i < length; i += step) {
		step = text_utf8_length(label + i, length - i);
		/* C0, DEL; C1 is two bytes. */
		if (step == 0 || (unsigned char)label[i] < 0x20 || label[i] == 0x7f ||
		    ((unsigned char)label[i] == 0xc2 && (unsigned char)label[i + 1] < 0xa0))
			return false;
	}
	return true;
}

/* What later tokens follow up on. False: all are in force. */
static bool drop_oldest_dead(struct token_set *set, uint64_t now_ms)
{
	for (uint32_t i = 0; i < set->count; i++) {
		if (in_force(&set->tokens[i].info, now_ms))
			continue;
		set->count--;
		memmove(&set->tokens[i], &set->tokens[i + 1], (set->count - i) * sizeof(set->tokens[0]));
		return true;
	}
	return false;
}

int token_create(struct token_set *set, enum token_role role, const char *label, uint64_t expires_ms, uint64_t now_ms,
		 char ret_text[TOKEN_TEXT_BYTES])
{
	struct token token = {.info = {.role = role, .created_ms = now_ms, .expires_ms = expires_ms}};

	if ((size_t)role >= ROLES || !is_label(label) || (expires_ms != 0 && expires_ms <= now_ms) ||
	    expires_ms > INT64_MAX || now_ms > INT64_MAX)
		return RSHM_E_INVALID;
	for (int i = 0; i == 0 || find(set, token.info.id); i++) {
		if (i == ID_TRIES)
			return RSHM_E_SYSTEM; /* the source of randomness is broken */
		draw_id(token.info.id);
	}
	if (set->count == set->limit && !drop_oldest_dead(set, now_ms))
		return RSHM_E_AGAIN;
	strcpy(token.info.label, label);
	renew(set, &token, ret_text);
	set->tokens[set->count++] = token;
	return RSHM_OK;
}

int token_rotate(struct token_set *set, const char *id, uint64_t grace_ms, uint64_t now_ms,
		 char ret_text[TOKEN_TEXT_BYTES])
{
	struct token *token = find(set, id);

	if (!token || !in_force(&token->info, now_ms) || grace_ms > TOKEN_GRACE_MS_MAX ||
	    now_ms > INT64_MAX - TOKEN_GRACE_MS_MAX)
		return RSHM_E_INVALID;
	memcpy(token->previous, token->hash, HASH_BYTES);
	token->info.grace_until_ms = grace_ms != 0 ? now_ms + grace_ms : 0;
	renew(set, token, ret_text);
	return RSHM_OK;
}

int token_revoke(struct token_set *set, const char *id)
{
	struct token *token = find(set, id);

	if (!token)
		return RSHM_E_INVALID;
	token->info.revoked = true;
	token->info.grace_until_ms = 0;
	return RSHM_OK;
}

/* Is the secret of this hash still good for something? */
static bool keeps(const struct token *token, const unsigned char hash[HASH_BYTES], uint64_t now_ms)
{
	return sodium_memcmp(token->hash, hash, HASH_BYTES) == 0 ||
	       (token->info.grace_until_ms > now_ms && sodium_memcmp(token->previous, hash, HASH_BYTES) == 0);
}

bool token_set_bars(const struct token_set *before, const struct token_set *now, uint64_t now_ms)
{
	for (uint32_t i = 0; i < before->count; i++) {
		const struct token *token = &before->tokens[i], *later = NULL;

		if (!in_force(&token->info, now_ms))
			continue;
		for (uint32_t k = 0; k < now->count && !later; k++)
			if (strcmp(now->tokens[k].info.id, token->info.id) == 0)
				later = &now->tokens[k];
		if (!later || later->info.revoked || !keeps(later, token->hash, now_ms) ||
		    (token->info.grace_until_ms > now_ms && !keeps(later, token->previous, now_ms)))
			return true;
	}
	return false;
}

/* ---- checking ----------------------------------------------------------------------------------------------- */

/* What the peer has shown, if it is well-formed. The id goes to `ret_id`, also if the secret is not. */
static bool read_text(const char *text, size_t length, char ret_id[TOKEN_ID_LENGTH + 1],
		      unsigned char ret_secret[SECRET_BYTES])
{
	const char *id, *secret;

	if (length != TOKEN_TEXT_BYTES - 1)
		return false;
	id = text + PREFIX_LENGTH;
	secret = id + TOKEN_ID_LENGTH + 1;
	if (memcmp(text, PREFIX, PREFIX_LENGTH) != 0 || secret[-1] != '_')
		return false;
	for (size_t i = 0; i < TOKEN_ID_LENGTH; i++)
		if (id[i] == '\0' || !strchr(ID_ALPHABET, id[i]))
			return false;
	if (!decode(secret, ret_secret))
		return false;
	memcpy(ret_id, id, TOKEN_ID_LENGTH);
	ret_id[TOKEN_ID_LENGTH] = '\0';
	return true;
}

static enum token_verdict judge(const struct token_set *set, const char *id, const unsigned char secret[SECRET_BYTES],
				uint64_t now_ms, struct token_checked *ret)
{
	static const struct token nobody;
	const struct token *token = &nobody;
	unsigned char hash[HASH_BYTES];
	bool is_present, is_previous;

	for (uint32_t i = 0; i < set->count; i++)
		if (sodium_memcmp(set->tokens[i].info.id, id, TOKEN_ID_LENGTH) == 0)
			token = &set->tokens[i];
	hash_secret(set->tenant, id, secret, hash);
	is_present = sodium_memcmp(token->hash, hash, HASH_BYTES) == 0;
	is_previous = sodium_memcmp(token->previous, hash, HASH_BYTES) == 0;
	sodium_memzero(hash, sizeof(hash));
	if (token == &nobody)
		return TOKEN_UNKNOWN;
	/* A secret that was never rotated away has a row of zeros as its previous one, which is nobody's hash. */
	if (!is_present && !is_previous)
		return TOKEN_WRONG;
	if (token->info.revoked)
		return TOKEN_REVOKED;
	if (has_expired(&token->info, now_ms) || (!is_present && token->info.grace_until_ms <= now_ms))
		return TOKEN_EXPIRED;
	ret->role = token->info.role;
	ret->in_grace = !is_present;
	ret->until_ms = token->info.expires_ms;
	if (!is_present && (ret->until_ms == 0 || token->info.grace_until_ms < ret->until_ms))
		ret->until_ms = token->info.grace_until_ms;
	return TOKEN_VALID;
}

int token_verify(const struct token_set *set, const void *text, size_t length, uint64_t now_ms,
		 struct token_checked *ret)
{
	unsigned char secret[SECRET_BYTES];

	*ret = (struct token_checked){.verdict = TOKEN_MALFORMED};
	if (read_text(text, length, ret->id, secret))
		ret->verdict = judge(set, ret->id, secret, now_ms, ret);
	sodium_memzero(secret, sizeof(secret));
	return ret->verdict == TOKEN_VALID ? RSHM_OK : RSHM_E_DENIED;
}

/* ---- storing ------------------------------------------------------------------------------------------------ */

static json_t *hash_to_json(const unsigned char hash[HASH_BYTES])
{
	char text[ENCODED_LENGTH + 1];

	return json_string(sodium_bin2base64(text, sizeof(text), hash, HASH_BYTES, BASE64));
}

static json_t *token_to_json(const struct token *token)
{
	const struct token_info *info = &token->info;
	json_t *row =
		json_pack("{s:s s:s s:s s:I s:I s:b s:o}", "id", info->id, "label", info->label, "role",
			  role_names[info->role], "created_ms", (json_int_t)info->created_ms, "expires_ms",
			  (json_int_t)info->expires_ms, "revoked", info->revoked, "hash", hash_to_json(token->hash));

	if (row && info->grace_until_ms != 0 &&
	    (json_object_set_new(row, "previous_hash", hash_to_json(token->previous)) < 0 ||
	     json_object_set_new(row, "grace_until_ms", json_integer((json_int_t)info->grace_until_ms)) < 0)) {
		json_decref(row);
		return NULL;
	}
	return row;
}

json_t *token_set_to_json(const struct token_set *set)
{
	json_t *rows = json_array();

	for (uint32_t i = 0; i < set->count && rows; i++)
		if (json_array_append_new(rows, token_to_json(&set->tokens[i])) < 0) {
			json_decref(rows);
			rows = NULL;
		}
	return rows ? json_pack("{s:i s:s s:o}", "format", TOKEN_FORMAT, "tenant", set->tenant, "tokens", rows)
		    : NULL;
}

static bool is_id(const char *id)
{
	return strlen(id) == TOKEN_ID_LENGTH && strspn(id, ID_ALPHABET) == TOKEN_ID_LENGTH;
}

static bool token_from_json(json_t *row, struct token *ret)
{
	const char *id, *label, *role, *hash, *previous = NULL;
	size_t hash_length, previous_length = 0;
	json_int_t created_ms, expires_ms, grace_until_ms = 0;
	int revoked;

	if (json_unpack_ex(row, NULL, JSON_STRICT, "{s:s s:s s:s s:I s:I s:b s:s% s?s% s?I}", "id", &id, "label",
			   &label, "role", &role, "created_ms", &created_ms, "expires_ms", &expires_ms, "revoked",
			   &revoked, "hash", &hash, &hash_length, "previous_hash", &previous, &previous_length,
			   "grace_until_ms", &grace_until_ms) < 0)
		return false;
	*ret = (struct token){.info = {.created_ms = (uint64_t)created_ms,
				       .expires_ms = (uint64_t)expires_ms,
				       .grace_until_ms = (uint64_t)grace_until_ms,
				       .revoked = revoked != 0}};
	if (!is_id(id) || !is_label(label) || !token_role_parse(role, &ret->info.role) || created_ms < 0 ||
	    (expires_ms != 0 && expires_ms <= created_ms) || hash_length != ENCODED_LENGTH ||
	    !decode(hash, ret->hash))
		return false;
	/* Both or neither, and none that a revoked token could still be used by. */
	if ((previous != NULL) != (grace_until_ms > 0) || grace_until_ms < 0 || (previous && revoked) ||
	    (previous && (previous_length != ENCODED_LENGTH || !decode(previous, ret->previous))))
		return false;
	strcpy(ret->info.id, id);
	strcpy(ret->info.label, label);
	return true;
}

int token_set_from_json(const json_t *document, const char *tenant, uint32_t limit, struct token_set **ret)
{
	const json_t *format = json_object_get(document, "format");
	struct token_set *set;
	const char *owner;
	json_t *rows, *row;
	size_t i;
	int version, status;

	if (json_is_integer(format) && json_integer_value(format) > TOKEN_FORMAT)
		return RSHM_E_FORMAT;
	/* jansson takes what it only reads without const. */
	if (json_unpack_ex((json_t *)(uintptr_t)document, NULL, JSON_STRICT, "{s:i s:s s:o}", "format", &version,
			   "tenant", &owner, "tokens", &rows) < 0 ||
	    version != TOKEN_FORMAT || strcmp(owner, tenant) != 0 || !json_is_array(rows) ||
	    json_array_size(rows) > limit)
		return RSHM_E_CORRUPT;
	status = token_set_create(tenant, limit, &set);
	if (status < 0)
		return status;
	json_array_foreach(rows, i, row)
	{
		struct token token;

		if (!token_from_json(row, &token) || find(set, token.info.id)) {
			token_set_destroy(&set);
			return RSHM_E_CORRUPT;
		}
		set->tokens[set->count++] = token;
	}
	*ret = set;
	return RSHM_OK;
}
