/*
 * quota.h - the named quotas of one tenant: limits, what is in use of each, and whether more would fit.
 *
 * Six names are known and always there, so that use is counted before anybody sets a limit; others are the user's. A
 * quota without a limit lets everything pass. All are amounts that are consumed and released, but operations_per_minute,
 * which is a rate (rate.h) with a burst of one minute: after a pause up to twice the limit may pass within a minute.
 * data_transfer_bytes is released by nobody; its owner assigns 0 to it where a period begins.
 *
 * All functions: one thread at a time per set, never block. Only create, set and to_json allocate. Times are monotonic
 * and matter for operations_per_minute only.
 */
#ifndef RIPTIDE_TENANT_QUOTA_H
#define RIPTIDE_TENANT_QUOTA_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/tenant/rate.h"

#define QUOTA_NAME_MAX 48u   /* characters: a-z, 0-9, _ */
#define QUOTA_CUSTOM_MAX 58u /* names of the user in one set */
#define QUOTA_ERROR_MAX 256u /* no error text is longer, with its NUL */

/* Numbers of the known quotas. Those of the user's follow, and hold until the next quota_set_limits(). */
enum quota_number {
	QUOTA_MEMORY_BYTES,
	QUOTA_STORAGE_BYTES,
	QUOTA_OPERATIONS_PER_MINUTE,
	QUOTA_DATA_TRANSFER_BYTES,
	QUOTA_ACTIVE_SESSIONS,
	QUOTA_CACHE_ENTRIES,
	QUOTA_KNOWN
};

struct quota_set;

struct quota_answer {
	bool allowed;
	bool has_limit;
	const char *name; /* until the next quota_set_limits() */
	uint64_t limit;   /* with has_limit */
	uint64_t use;     /* before what was asked */
	uint64_t asked;
	uint64_t retry_after_ms; /* of a rate that refused; RATE_NEVER: waiting does not help */
};

/* Without limits. RSHM_E_NOMEM. */
int quota_set_create(struct quota_set **ret);
void quota_set_destroy(struct quota_set **set);

/*
 * Replaces all limits by those of a JSON object {name: integer >= 0}, which is borrowed. Use is kept; a name of the user's
 * that is not in the object is forgotten with its use. Changes all or nothing. RSHM_E_INVALID, and `error` names quota and
 * fault; RSHM_E_NOMEM. `error_size` >= 1; the text is untouched on success.
 */
int quota_set_limits(struct quota_set *set, const json_t *object, char *error, size_t error_size);
/* {name: limit} of those that have one, as a new reference; NULL: no memory. */
json_t *quota_set_to_json(const struct quota_set *set);

/* Quotas have the numbers 0 to count - 1. */
uint32_t quota_count(const struct quota_set *set);
/* RSHM_MISS: there is none of this name, so nothing limits it. Any text may be asked. */
int quota_find(const struct quota_set *set, const char *name, uint32_t *ret_number);
const char *quota_name(const struct quota_set *set, uint32_t number);
/* False: it has no limit. */
bool quota_limit(const struct quota_set *set, uint32_t number, uint64_t *ret_limit);
/* Of the rate: operations that have not drained yet. */
uint64_t quota_use(const struct quota_set *set, uint32_t number, uint64_t now_ns);

/* Would it fit? Changes nothing. */
void quota_ask(const struct quota_set *set, uint32_t number, uint64_t amount, uint64_t now_ns,
	       struct quota_answer *ret);
/* Takes it if it fits, all or nothing. 0 fits always, even where more is in use than the limit. */
void quota_consume(struct quota_set *set, uint32_t number, uint64_t amount, uint64_t now_ns,
		   struct quota_answer *ret);
/* Adds what came to be without asking, beyond the limit if need be. */
void quota_charge(struct quota_set *set, uint32_t number, uint64_t amount, uint64_t now_ns);
/* Gives back; use ends at 0, for it may have been assigned anew meanwhile. To the rate: credits nobody used. */
void quota_release(struct quota_set *set, uint32_t number, uint64_t amount, uint64_t now_ns);
/* What a recount, or the beginning of a period, says is in use. Not of the rate. */
void quota_assign(struct quota_set *set, uint32_t number, uint64_t use);
/* Credits of the rate for hot reads: up to `wanted` operations are taken at once; see rate_grant(). All without a limit. */
uint64_t quota_grant_operations(struct quota_set *set, uint64_t wanted, uint64_t now_ns);

/* "Quota exceeded: memory_bytes: limit 1024, in use 900, asked 200", of a rate with ", retry after 50 ms". */
void quota_error_text(const struct quota_answer *answer, char *text, size_t size);

#endif
