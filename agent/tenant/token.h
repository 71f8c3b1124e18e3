/*
 * token.h - the access tokens of one tenant: made, checked, rotated, revoked, listed, and stored as JSON.
 *
 * A token is shown once, as the text rt_<id>_<secret>; the set keeps the id, which is public, and a hash of the secret
 * that is good for this id in this tenant alone. It adds to the check of the user id and does not replace it.
 *
 * All functions: any one thread at a time per set, never block. Times are of the wall clock, in ms since 1970, handed in.
 * Nothing here logs; ids may be logged, secrets and texts may not.
 */
#ifndef RIPTIDE_TOKEN_H
#define RIPTIDE_TOKEN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/msg.h"

#define TOKEN_ID_LENGTH 12u  /* of a-z and 2-7 */
#define TOKEN_TEXT_BYTES 60u /* "rt_", id, '_', 43 characters of base64url, NUL */
#define TOKEN_LABEL_MAX 64u  /* bytes of UTF-8 without control characters */
#define TOKEN_SET_MAX 1024u  /* the most that a caller may allow a tenant */
#define TOKEN_GRACE_MS_MAX (30u * 86400000ull)

enum token_role { TOKEN_READ_ONLY, TOKEN_TENANT, TOKEN_ADMIN };

/* "read_only", "tenant", "admin". */
const char *token_role_name(enum token_role role);
/* False: no role is called so; *ret is untouched. */
bool token_role_parse(const char *name, enum token_role *ret);

struct token_set;

/* An empty set of at most `limit` tokens (1 to TOKEN_SET_MAX) of a tenant, whose id is copied. RSHM_E_NOMEM. */
int token_set_create(const char *tenant, uint32_t limit, struct token_set **ret);
/* Frees and clears *set; NULL is fine. */
void token_set_destroy(struct token_set **set);

/* ---- life of a token ---------------------------------------------------------------------------------------- */

/*
 * Makes a token. `ret_text` gets the one copy of its secret: whoever called wipes it with sodium_memzero() as soon as it
 * was shown. `label` is for people and may be empty; `expires_ms` is 0 (never) or later than `now_ms`. In a full set it takes
 * the place of the oldest one that is revoked or expired. RSHM_E_INVALID; RSHM_E_AGAIN: `limit` tokens are in force.
 */
int token_create(struct token_set *set, enum token_role role, const char *label, uint64_t expires_ms, uint64_t now_ms,
		 char ret_text[TOKEN_TEXT_BYTES]);

/*
 * A new secret for a token in force, with id, role and expiry as they are. The one it had goes on being valid for `grace_ms`
 * (0: not at all; at most TOKEN_GRACE_MS_MAX); one that was in its own grace ends now. `ret_text` as above.
 * RSHM_E_INVALID: no such token, it is revoked or expired, or the grace is too long.
 */
int token_rotate(struct token_set *set, const char *id, uint64_t grace_ms, uint64_t now_ms,
		 char ret_text[TOKEN_TEXT_BYTES]);

/* For good, at once, and with what is in its grace. It stays listed until its place is needed. RSHM_E_INVALID: no such. */
int token_revoke(struct token_set *set, const char *id);

/* ---- checking ----------------------------------------------------------------------------------------------- */

enum token_verdict {
	TOKEN_VALID,
	TOKEN_MALFORMED, /* not the text of any token */
	TOKEN_UNKNOWN,   /* no token of this tenant has the id */
	TOKEN_WRONG,     /* the id has another secret */
	TOKEN_EXPIRED,   /* the right secret, too late; also one whose grace is over */
	TOKEN_REVOKED,   /* the right secret */
};

/* For the audit log: "valid", "unknown", … */
const char *token_verdict_name(enum token_verdict verdict);

struct token_checked {
	enum token_verdict verdict;   /* for the audit log alone: the peer is told RSHM_E_DENIED and nothing else */
	char id[TOKEN_ID_LENGTH + 1]; /* that was shown, of its alphabet; empty if malformed. Likewise */
	enum token_role role;         /* if valid */
	bool in_grace;                /* if valid: by a secret that was rotated away */
	uint64_t until_ms;            /* if valid: when it, or its grace, is over; 0: never */
};

/*
 * May whoever shows these bytes come in? RSHM_OK or RSHM_E_DENIED; *ret is filled either way. Takes the same time for every
 * well-formed text, whatever the id and secret are.
 */
int token_verify(const struct token_set *set, const void *text, size_t length, uint64_t now_ms,
		 struct token_checked *ret);

/* Does a secret that is in force in `before` let nobody in by `now`, which was made of it later? Expiry does not count. */
bool token_set_bars(const struct token_set *before, const struct token_set *now, uint64_t now_ms);

/* ---- listing and storing ------------------------------------------------------------------------------------ */

struct token_info {
	char id[TOKEN_ID_LENGTH + 1];
	char label[TOKEN_LABEL_MAX + 1];
	enum token_role role;
	uint64_t created_ms, expires_ms; /* 0: never expires */
	uint64_t grace_until_ms;         /* 0: no rotated secret is valid */
	bool revoked;
};

size_t token_count(const struct token_set *set);
/* `index` below token_count(), in order of creation. */
void token_info(const struct token_set *set, size_t index, struct token_info *ret);

/* For the tenant's record: without anything that would let someone in. A new reference, or NULL without memory. */
json_t *token_set_to_json(const struct token_set *set);
/*
 * Reads what token_set_to_json() made of a set of this tenant; the document is borrowed and not trusted: whatever is
 * missing, unknown, of the wrong type or range, twice there, of another tenant or beyond `limit` is RSHM_E_CORRUPT. A later
 * format is RSHM_E_FORMAT. RSHM_E_NOMEM.
 */
int token_set_from_json(const json_t *document, const char *tenant, uint32_t limit, struct token_set **ret);

#endif
