/*
 * tenant.c - the registry of tenants.
 *
 * The members of groups become numbers once, at start: a look-up in the user database may ask the network and must not happen
 * on a loop. What the kernel enforces (the ACL of a segment) and what attach checks are made from the same numbers.
 */
#include "agent/tenant/tenant.h"

#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/text.h"

#define LOOKUP_BYTES (1u << 20) /* of a group with many members */

struct tenant_registry {
	struct tenant *tenants;
	size_t count;
};

static int append_id(uid_t **list, size_t *count, uid_t id)
{
	uid_t *grown;

	for (size_t i = 0; i < *count; i++)
		if ((*list)[i] == id)
			return RSHM_OK;
	grown = realloc(*list, (*count + 1) * sizeof(**list));
	if (!grown)
		return RSHM_E_NOMEM;
	grown[(*count)++] = id;
	*list = grown;
	return RSHM_OK;
}

/* `scratch` holds the group in its first half, a user in the second. */
static int add_members(struct tenant *tenant, gid_t gid, char *scratch)
{
	struct group group, *found = NULL;

	if (getgrgid_r(gid, &group, scratch, LOOKUP_BYTES, &found) != 0 || !found)
		return RSHM_OK; /* a number without a name has no listed members */
	for (char **member = found->gr_mem; *member; member++) {
		struct passwd entry, *user = NULL;
		int status;

		if (getpwnam_r(*member, &entry, scratch + LOOKUP_BYTES, LOOKUP_BYTES, &user) != 0 || !user)
			continue; /* a member that no longer exists cannot attach */
		status = append_id(&tenant->members, &tenant->member_count, user->pw_uid);
		if (status < 0)
			return status;
	}
	return RSHM_OK;
}

static int build_tenant(const struct tenant_settings *s, struct tenant *tenant, char *scratch)
{
	int status = RSHM_OK;

	must(text_is_name(s->id, RSHM_TENANT_MAX));
	memcpy(tenant->id, s->id, strlen(s->id) + 1);
	tenant->shards = 1;
	tenant->write_behind = s->write_behind;
	tenant->eviction = s->eviction;
	tenant->negatives_max = s->negatives_max;
	tenant->memory_bytes = s->memory_bytes;
	tenant->default_ttl_ms = s->default_ttl_ms;
	tenant->ttl_jitter_percent = s->ttl_jitter_percent;
	tenant->stale_policy = s->stale_policy;
	tenant->stale_limit_ms = s->stale_limit_ms;
	for (size_t i = 0; i < s->user_count && status == RSHM_OK; i++)
		status = append_id(&tenant->users, &tenant->user_count, s->users[i]);
	for (size_t i = 0; i < s->group_count && status == RSHM_OK; i++) {
		status = append_id(&tenant->groups, &tenant->group_count, s->groups[i]);
		if (status == RSHM_OK)
			status = add_members(tenant, s->groups[i], scratch);
	}
	return status;
}

int tenant_registry_create(const struct tenant_settings *settings, size_t count, uint32_t workers,
			   struct tenant_registry **ret)
{
	struct tenant_registry *registry = calloc(1, sizeof(*registry));
	char *scratch = malloc(2 * LOOKUP_BYTES);
	int status = RSHM_OK;

	if (registry)
		registry->tenants = calloc(count ? count : 1, sizeof(*registry->tenants));
	if (!scratch || !registry || !registry->tenants)
		status = RSHM_E_NOMEM;
	for (size_t i = 0; i < count && status == RSHM_OK; i++) {
		registry->count = i + 1;
		registry->tenants[i].worker = (uint32_t)(i % workers);
		registry->tenants[i].place = (uint32_t)i;
		status = build_tenant(&settings[i], &registry->tenants[i], scratch);
	}
	free(scratch);
	if (status < 0)
		tenant_registry_destroy(&registry);
	else
		*ret = registry;
	return status;
}

void tenant_registry_destroy(struct tenant_registry **registry)
{
	struct tenant_registry *r = *registry;

	*registry = NULL;
	if (!r)
		return;
	for (size_t i = 0; i < r->count; i++) {
		free(r->tenants[i].users);
		free(r->tenants[i].groups);
		free(r->tenants[i].members);
	}
	free(r->tenants);
	free(r);
}

size_t tenant_count(const struct tenant_registry *registry)
{
	return registry->count;
}

struct tenant *tenant_at(struct tenant_registry *registry, size_t index)
{
	must(index < registry->count);
	return &registry->tenants[index];
}

struct tenant *tenant_find(struct tenant_registry *registry, const char *id)
{
	for (size_t i = 0; i < registry->count; i++)
		if (strcmp(registry->tenants[i].id, id) == 0)
			return &registry->tenants[i];
	return NULL;
}

static bool contains(const uid_t *list, size_t count, uid_t id)
{
	for (size_t i = 0; i < count; i++)
		if (list[i] == id)
			return true;
	return false;
}

bool tenant_permits(const struct tenant *tenant, uid_t uid, gid_t gid)
{
	if (uid == TENANT_OVERFLOW_UID)
		return false;
	return uid == 0 || contains(tenant->users, tenant->user_count, uid) ||
	       contains(tenant->groups, tenant->group_count, gid) ||
	       contains(tenant->members, tenant->member_count, uid);
}
