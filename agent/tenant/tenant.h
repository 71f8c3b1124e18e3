/*
 * tenant.h - who shares what: the tenants that this agent serves, and the users that may use each.
 *
 * Those of the configuration are in the table from start to end; others come when they are first used and go when they are
 * suspended or deleted. A tenant does not change while it is here, and belongs to one worker. The table is the main
 * thread's once workers run; a tenant may be read by any thread that was given it. Only tenant_create() blocks.
 */
#ifndef RIPTIDE_TENANT_H
#define RIPTIDE_TENANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/cache/policy.h"
#include "agent/tenant/access_policy.h"
#include "agent/tenant/account.h"
#include "shm/msg.h"

#define TENANT_OVERFLOW_UID 65534u /* what foreign uids read as across user namespaces: refused always */

struct tenant {
	char id[RSHM_TENANT_MAX + 1];
	uint32_t number; /* short form of the embedded store and the disk tier */
	uint32_t shards;
	uint32_t worker;         /* index of its owner */
	uint32_t place;          /* of its figures in the agent object */
	uint64_t memory_bytes;   /* limit of its hot segment; 0 = the agent's total */
	uint64_t default_ttl_ms; /* 0 = entries do not expire */
	uint32_t ttl_jitter_percent;
	enum rshm_policy stale_policy;
	uint64_t stale_limit_ms;
	bool write_behind;             /* writes that do not say how are acknowledged from the journal */
	enum hot_policy eviction;      /* at start; changed live in the tenant's tier */
	uint32_t negatives_max;        /* remembered absences */
	bool cold;                     /* its processes map no segment: every read passes the agent */
	bool encrypted;                /* what is stored of it is sealed */
	struct access_policy *policy;  /* NULL: there are no rules */
	struct account_limits *limits; /* NULL: nothing of what is drawn is limited */
	uint32_t registry_number;      /* of the reserved tenant in the embedded store */
	uid_t *users;
	size_t user_count;
	gid_t *groups;
	size_t group_count;
	uid_t *members; /* of the groups, as the user database had them at start */
	size_t member_count;
};

struct tenant_table;

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
	bool cold, encrypted;
	const json_t *policies;             /* rules; NULL: none */
	const json_t *quotas, *rate_limits; /* of the record; NULL: none */
};

/*
 * A tenant of its own; looks the members of its groups up in the user database, which may block. It is cold if its rules may
 * refuse to read, whatever the settings say. Number, shards, worker and place are the caller's to set. RSHM_E_NOMEM;
 * RSHM_E_INVALID: `policies` are not rules.
 */
int tenant_create(const struct tenant_settings *settings, struct tenant **ret);
void tenant_destroy(struct tenant **tenant);

/* A table for at most `capacity` tenants. RSHM_E_NOMEM. */
int tenant_table_create(size_t capacity, struct tenant_table **ret);
/* With all its tenants. */
void tenant_table_destroy(struct tenant_table **table);

/* Takes the tenant in and gives it a place that no other has. RSHM_E_FULL: the tenant stays the caller's. */
int tenant_table_add(struct tenant_table *table, struct tenant *tenant);
/* Gives the tenant back. */
void tenant_table_remove(struct tenant_table *table, struct tenant *tenant);

size_t tenant_count(const struct tenant_table *table);
/* Adding and removing changes the order. */
struct tenant *tenant_at(struct tenant_table *table, size_t index);
/* NULL: there is none of this id. */
struct tenant *tenant_find(struct tenant_table *table, const char *id);

/* May a process of this user and primary group use the tenant? Root may; the overflow uid may not. */
bool tenant_permits(const struct tenant *tenant, uid_t uid, gid_t gid);

#endif
