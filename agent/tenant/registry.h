/*
 * registry.h - the tenants of a backend, shared by all its agents.
 *
 * Each tenant is one entry, its record (record.h), under the reserved tenant TENANT_RESERVED_ID; one more entry, the
 * directory, lists the ids and is what makes `tenants_max` hold for all agents together: an id is entered there, by
 * compare-and-set, before its record is written, and leaves after it. An agent that dies between the two leaves an id without a
 * record, which registry_tidy() removes. While the directory is damaged, tenants are neither made nor removed.
 *
 * Belongs to the loop of its store; nothing blocks. Each call answers once through `done`, from the loop or from within the
 * call, at the latest a little after `request_ms` for each step at the backend; inserts and removes wait for each other, and
 * one that is not begun after `request_ms` is RSHM_E_TIMEDOUT. Statuses beside those of the store:
 * RSHM_MISS (no such tenant), RSHM_CONFLICT (there is one already, or it was changed meanwhile), RSHM_E_FULL (tenants_max),
 * RSHM_E_CORRUPT; `text` says more for people, or is NULL.
 */
#ifndef RIPTIDE_TENANT_REGISTRY_H
#define RIPTIDE_TENANT_REGISTRY_H

#include <stddef.h>
#include <stdint.h>

#include "agent/base/hlc.h"
#include "agent/store/store.h"
#include "agent/tenant/record.h"

#define REGISTRY_SPACE 'r'
#define REGISTRY_PAGE_MAX 1000u /* ids of one registry_list() */

struct registry;

struct registry_options {
	uint32_t tenants_max;
	uint32_t writer_id;
	uint32_t request_ms;  /* for each step at the backend */
	uint32_t pending_max; /* calls under way and waiting; beyond: RSHM_E_AGAIN */
	uint64_t
		orphan_ms; /* an id without a record for so long was left by a crash; far above request_ms and what clocks differ */
	uint32_t tenant_number, shards; /* of the reserved tenant, as in struct store_name */
};

/* `store` and `hlc` are borrowed. RSHM_E_NOMEM. */
int registry_open(struct store *store, struct hlc *hlc, const struct registry_options *options,
		  struct registry **ret);

/* Nothing is under way: the store has been closed, and with it everything was answered. */
void registry_close(struct registry **registry);

/* `record` is the callee's from then on; NULL unless RSHM_OK. */
typedef void registry_record_fn(void *context, int status, struct tenant_record *record, const char *text);

/* `id` need not be valid. */
void registry_get(struct registry *registry, const char *id, registry_record_fn *done, void *context);
/* Takes the record of a new tenant and gives it back with its version. */
void registry_insert(struct registry *registry, struct tenant_record *record, registry_record_fn *done,
		     void *context);
/* Takes the record of a tenant, stores it if the stored one is of record->version still, and gives it back. */
void registry_replace(struct registry *registry, struct tenant_record *record, registry_record_fn *done,
		      void *context);
/*
 * Takes the record of a tenant and removes it if the stored one is of its version still; gives none back. RSHM_OK once the
 * record is gone, even if its id could not be taken out of the directory: that is left to registry_tidy().
 */
void registry_remove(struct registry *registry, struct tenant_record *record, registry_record_fn *done,
		     void *context);

/* The ids behind `after` (NULL: from the first) in order, at most `limit`; `total` counts all. The list is lent. */
typedef void registry_list_fn(void *context, int status, const char *const *ids, size_t count, size_t total);
void registry_list(struct registry *registry, const char *after, size_t limit, registry_list_fn *done, void *context);

/* Removes ids that were left without a record. `count` of them. */
typedef void registry_tidy_fn(void *context, int status, size_t count);
void registry_tidy(struct registry *registry, registry_tidy_fn *done, void *context);

#endif
