/*
 * tenant.c - tenants and the table of them.
 *
 * The members of groups become numbers once: a look-up in the user database may ask the network and must not happen on a
 * loop. What the kernel enforces (the ACL of a segment) and what attach checks are made from the same numbers.
 */
#include "agent/tenant/tenant.h"

#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/text.h"

#define LOOKUP_BYTES (1u << 20) /* of a group with many members */

struct tenant_table {
	struct tenant **tenants;
	bool *places; /* taken */
	size_t count, capacity;
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
	tenant->cold = s->cold;
	tenant->encrypted = s->encrypted;
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

static int build_policy(const struct tenant_settings *s, struct tenant *tenant)
{
	char error[ACCESS_ERROR_MAX];
	int status;

	if (json_array_size(s->policies) == 0)
		return RSHM_OK;
	status = access_policy_parse(s->policies, &tenant->policy, error, sizeof(error));
	if (status == RSHM_OK)
		tenant->cold |= access_policy_restricts_reads(tenant->policy);
	return status;
}

int tenant_create(const struct tenant_settings *settings, struct tenant **ret)
{
	struct tenant *tenant = calloc(1, sizeof(*tenant));
	char *scratch = malloc(2 * LOOKUP_BYTES);
	int status = tenant && scratch ? build_tenant(settings, tenant, scratch) : RSHM_E_NOMEM;

	free(scratch);
	if (status == RSHM_OK)
		status = build_policy(settings, tenant);
	if (status == RSHM_OK && settings->quotas)
		status = account_limits_create(settings->quotas, settings->rate_limits, &tenant->limits);
	if (status < 0)
		tenant_destroy(&tenant);
	else
		*ret = tenant;
	return status;
}

void tenant_destroy(struct tenant **tenant)
{
	struct tenant *t = *tenant;

	*tenant = NULL;
	if (!t)
		return;
	free(t->users);
	free(t->groups);
	free(t->members);
	access_policy_destroy(&t->policy);
	account_limits_destroy(&t->limits);
	free(t);
}

int tenant_table_create(size_t capacity, struct tenant_table **ret)
{
	struct tenant_table *table = calloc(1, sizeof(*table));

	if (!table)
		return RSHM_E_NOMEM;
	table->capacity = capacity;
	table->tenants = calloc(capacity, sizeof(struct tenant *));
	table->places = calloc(capacity, sizeof(bool));
	if (!table->tenants || !table->places) {
		tenant_table_destroy(&table);
		return RSHM_E_NOMEM;
	}
	*ret = table;
	return RSHM_OK;
}

void tenant_table_destroy(struct tenant_table **table)
{
	struct tenant_table *t = *table;

	*table = NULL;
	if (!t)
		return;
	for (size_t i = 0; i < t->count; i++)
		tenant_destroy(&t->tenants[i]);
	free(t->tenants);
	free(t->places);
	free(t);
}

int tenant_table_add(struct tenant_table *table, struct tenant *tenant)
{
	uint32_t place = 0;

	if (table->count == table->capacity)
		return RSHM_E_FULL;
	while (table->places[place])
		place++;
	table->places[place] = true;
	tenant->place = place;
	table->tenants[table->count++] = tenant;
	return RSHM_OK;
}

void tenant_table_remove(struct tenant_table *table, struct tenant *tenant)
{
	size_t at = 0;

	while (at < table->count && table->tenants[at] != tenant)
		at++;
	must(at < table->count);
	table->places[tenant->place] = false;
	table->tenants[at] = table->tenants[--table->count];
}

size_t tenant_count(const struct tenant_table *table)
{
	return table->count;
}

struct tenant *tenant_at(struct tenant_table *table, size_t index)
{
	must(index < table->count);
	return table->tenants[index];
}

struct tenant *tenant_find(struct tenant_table *table, const char *id)
{
	for (size_t i = 0; i < table->count; i++)
		if (strcmp(table->tenants[i]->id, id) == 0)
			return table->tenants[i];
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
