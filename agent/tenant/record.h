/*
 * record.h - what is known of a tenant that was created while agents ran: one JSON document in the backend.
 *
 *	id, name, owner {id, name, email, organization}, plan, status, status_reason, isolation, encryption, hot,
 *	users, groups, token_required, quotas {name: integer}, rate_limits {name: limit}, policies [rule], cache {default_ttl_seconds, write_mode, eviction_policy, stale_policy},
 *	settings {anything}, tokens, created_ms, updated_ms
 *
 * Whoever creates or changes a tenant gives some of these members; the agent checks each, fills in the others, and refuses
 * what it does not know, because a misspelt quota would be none. What a backend holds is checked by the same rules when it is
 * read. Nothing here blocks; a record is one thread's.
 */
#ifndef RIPTIDE_TENANT_RECORD_H
#define RIPTIDE_TENANT_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "agent/tenant/token.h"
#include "shm/msg.h"

#define TENANT_RECORD_MAX (256u << 10) /* bytes of the document; some are kept free for a status and its reason */
#define TENANT_TEXT_MAX 256u           /* bytes of a name, an address, a reason */
#define TENANT_USERS_MAX 256u          /* of users, and of groups */
#define TENANT_QUOTAS_MAX 64u
#define TENANT_TOKENS_MAX 64u
#define TENANT_RESERVED_ID "-" /* where agents keep the registry itself; ids that begin so are refused */

enum tenant_status { TENANT_ACTIVE, TENANT_SUSPENDED, TENANT_DISABLED, TENANT_DELETING, TENANT_STATUSES };
enum tenant_plan { TENANT_FREE, TENANT_BASIC, TENANT_PROFESSIONAL, TENANT_ENTERPRISE, TENANT_CUSTOM, TENANT_PLANS };
enum tenant_isolation { TENANT_ISOLATION_NONE, TENANT_ISOLATION_LOGICAL, TENANT_ISOLATION_STRONG, TENANT_ISOLATIONS };

/* As the documents spell them. */
const char *tenant_status_name(enum tenant_status status);
const char *tenant_plan_name(enum tenant_plan plan);
const char *tenant_isolation_name(enum tenant_isolation isolation);

struct tenant_record {
	char id[RSHM_TENANT_MAX + 1];
	enum tenant_status status;
	enum tenant_plan plan;
	enum tenant_isolation isolation;
	bool encryption, hot, token_required;
	uint64_t version; /* of the stored entry that it was read from; 0 = not stored */
	json_t *document; /* complete */
};

/* For what a new tenant's document leaves out. Borrowed. */
struct tenant_defaults {
	enum tenant_isolation isolation;
	bool encryption;  /* of those whose isolation is strong */
	const char *user; /* who may use it if neither users nor groups are named; NULL: nobody */
	/* name: integer, of the plan; NULL: none */
	const json_t *quotas[TENANT_PLANS];
};

/*
 * A new tenant from what its creator gives, {} at the least: every member is checked, an id is made up if there is none
 * ("t" and 20 random characters), what is left out is filled in. `error` names the member that is wrong and what is right.
 * RSHM_E_INVALID, RSHM_E_TOOBIG, RSHM_E_NOMEM. The caller's: tenant_record_destroy().
 */
int tenant_record_create(const char *json, size_t length, const struct tenant_defaults *defaults, uint64_t now_ms,
			 struct tenant_record **ret, char *error, size_t error_len);

/* From a stored document. RSHM_E_CORRUPT: not one, or of another id; `error` says what is wrong. RSHM_E_NOMEM. */
int tenant_record_decode(const char *id, const void *bytes, size_t length, struct tenant_record **ret, char *error,
			 size_t error_len);

/*
 * The record with the members that `json` gives instead of its own, whole members each; null gives a member its default. Not
 * to be changed so: id, status, created_ms and the like. Errors as tenant_record_create().
 */
int tenant_record_update(const struct tenant_record *record, const char *json, size_t length,
			 const struct tenant_defaults *defaults, uint64_t now_ms, struct tenant_record **ret,
			 char *error, size_t error_len);

/* The record with another status. `reason` may be NULL; more than TENANT_TEXT_MAX bytes are cut. RSHM_E_NOMEM. */
int tenant_record_set_status(const struct tenant_record *record, enum tenant_status status, const char *reason,
			     uint64_t now_ms, struct tenant_record **ret);

/* Its tokens, the caller's to destroy. RSHM_E_CORRUPT, RSHM_E_FORMAT, RSHM_E_NOMEM. */
int tenant_record_tokens(const struct tenant_record *record, struct token_set **ret);
/* The record with these tokens. RSHM_E_NOMEM. */
int tenant_record_set_tokens(const struct tenant_record *record, const struct token_set *tokens, uint64_t now_ms,
			     struct tenant_record **ret);

void tenant_record_destroy(struct tenant_record **record);

/* The document as it is stored; the caller's to free(). NULL: no memory. */
char *tenant_record_encode(const struct tenant_record *record);

/* The document as people may see it, without hashes of tokens; a new reference, NULL: no memory. */
json_t *tenant_record_public(const struct tenant_record *record);

/* The limit of a quota; false: it has none. */
bool tenant_record_quota(const struct tenant_record *record, const char *name, uint64_t *ret);

/* [a-z0-9-]{1,64}, not beginning with '-'. */
bool tenant_id_is_valid(const char *id);

#endif
