/*
 * tenant.h - who shares what: the tenants of this agent and the users that may use each.
 *
 * The registry is filled at start from the configuration and does not change while workers run; each tenant belongs to
 * one worker. All functions but tenant_registry_create(): any thread, never block.
 */
#ifndef RIPTIDE_TENANT_H
#define RIPTIDE_TENANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/cache/policy.h"
#include "shm/msg.h"

#define TENANT_OVERFLOW_UID 65534u /* what foreign uids read as across user namespaces: refused always */

struct tenant {
	/* set once */
	char id[RSHM_TENANT_MAX + 1];
	uint32_t number; /* the embedded store's short form */
	uint32_t shards;
	uint32_t worker;         /* index of its owner */
	uint32_t place;          /* of its figures in the agent object */
	uint64_t memory_bytes;   /* limit of its hot segment; 0 = the agent's total */
	uint64_t default_ttl_ms; /* 0 = entries do not expire */
	uint32_t ttl_jitter_percent;
	enum rshm_policy stale_policy;
	uint64_t stale_limit_ms;
	bool write_behind;        /* writes that do not say how are acknowledged from the journal */
	enum hot_policy eviction; /* at start; changed live in the tenant's tier */
	uint32_t negatives_max;   /* remembered absences */
	uid_t *users;
	size_t user_count;
	gid_t *groups;
	size_t group_count;
	uid_t *members; /* of the groups, as the user database had them at start */
	size_t member_count;
};

struct tenant_registry;

/* What the configuration says of one tenant; borrowed. */
struct tenant_settings {
	const char *id;
	const uid_t *users;
	size_t user_count;
	const gid_t *groups;
	size_t group_count;
	uint64_t memory_bytes, default_ttl_ms, stale_limit_ms;
	uint32_t ttl_jitter_percent;
	enum rshm_policy stale_policy;
	bool write_behind;
	enum hot_policy eviction;
	uint32_t negatives_max;
};

/*
 * Makes the registry; looks the members of the groups up in the user database (may block: start only). `workers` >= 1.
 * RSHM_E_NOMEM.
 */
int tenant_registry_create(const struct tenant_settings *settings, size_t count, uint32_t workers,
			   struct tenant_registry **ret);
void tenant_registry_destroy(struct tenant_registry **registry);

size_t tenant_count(const struct tenant_registry *registry);
struct tenant *tenant_at(struct tenant_registry *registry, size_t index);
/* NULL: there is none of this id. */
struct tenant *tenant_find(struct tenant_registry *registry, const char *id);

/* May a process of this user and primary group use the tenant? Root may; the overflow uid may not. */
bool tenant_permits(const struct tenant *tenant, uid_t uid, gid_t gid);

#endif
