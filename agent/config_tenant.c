/*
 * Sections of tenants. A section opens once per name, over all files; its options are those of the second table. What it does
 * not say it takes from the agent's own options. Users and groups are looked up here, at load, so that a misspelt name is an
 * error with its line and not a client that is turned away at night.
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/config_priv.h"
#include "shm/msg.h"

#define CONFIG_DEFAULT_TENANT "default"
#define CONFIG_OVERFLOW_ID 65534u /* what the kernel shows for users that it cannot show */
#define CONFIG_USER_BUFFER_MAX 65536

/* The row of a tenant's option: where its origin stands. The place of the section itself comes behind the last one. */
static struct config_origin *config_tenant_origin(const struct config_tenant *tenant, size_t index)
{
	return &tenant->origins[index];
}

static struct config_tenant *config_tenant_find(struct config *config, const char *name)
{
	for (size_t i = 0; i < config->tenants_count; i++) {
		if (strcmp(config->tenants[i].name, name) == 0)
			return &config->tenants[i];
	}
	return NULL;
}

static void config_tenant_free(struct config_tenant *tenant)
{
	size_t count;
	const struct config_option *options = config_tenant_options(&count);

	for (size_t i = 0; i < count; i++)
		config_option_clear(&options[i], tenant);
	config_origins_free(&tenant->origins, count + 1);
	free(tenant->uids);
	free(tenant->gids);
	free(tenant->name);
}

void config_tenants_free(struct config *config)
{
	for (size_t i = 0; i < config->tenants_count; i++)
		config_tenant_free(&config->tenants[i]);
	free(config->tenants);
	config->tenants = NULL;
	config->tenants_count = 0;
}

static int config_tenant_init(struct config_tenant *tenant, const char *name, const char *place)
{
	size_t count;
	const struct config_option *options = config_tenant_options(&count);
	char why[CONFIG_ERROR_MAX];
	int status = RSHM_OK;

	tenant->name = strdup(name);
	tenant->origins = calloc(count + 1, sizeof(*tenant->origins));
	if (tenant->name == NULL || tenant->origins == NULL)
		return RSHM_E_NOMEM;
	if (place != NULL)
		status = config_origin_set(config_tenant_origin(tenant, count), CONFIG_FROM_FILE, place);
	for (size_t i = 0; i < count && status == RSHM_OK; i++) {
		if (options[i].type == CONFIG_LIST)
			status = config_option_store_list(&options[i], tenant, NULL, 0);
		else if (options[i].initial != NULL)
			status = config_option_store(&options[i], tenant, options[i].initial, why, sizeof(why));
	}
	return status;
}

/* `place` is NULL for one that no file names. */
static int config_tenant_add(struct config *config, const char *name, const char *place)
{
	struct config_tenant *more = realloc(config->tenants, (config->tenants_count + 1) * sizeof(*config->tenants));

	if (more == NULL)
		return RSHM_E_NOMEM;
	config->tenants = more;
	more[config->tenants_count] = (struct config_tenant){0};
	return config_tenant_init(&more[config->tenants_count++], name, place);
}

static int config_tenant_open(struct config *config, const struct config_statement *statement, char *err,
			      size_t err_size)
{
	const struct config_tenant *known = config_tenant_find(config, statement->title);
	char place[4200];
	size_t count;

	config_tenant_options(&count);
	snprintf(place, sizeof(place), "%s:%u", statement->file, statement->line);
	if (!text_is_name(statement->title, RSHM_TENANT_MAX)) {
		struct text text;

		text_init(&text, err, err_size);
		text_append_string(&text, "\"");
		text_append_escaped(&text, statement->title, strnlen(statement->title, 80));
		text_append_string(&text,
				   "\" is no name of a tenant; allowed are 1 to 64 characters of a-z, 0-9 and -");
		return RSHM_E_INVALID;
	}
	if (known != NULL) {
		snprintf(err, err_size, "\"%s\" was defined already at %s; keep one of the two", known->name,
			 config_origin_text(config_tenant_origin(known, count)));
		return RSHM_E_INVALID;
	}
	return config_tenant_add(config, statement->title, place);
}

int config_tenant_take(struct config *config, const struct config_statement *statement, char *err, size_t err_size)
{
	struct config_tenant *tenant;
	size_t count, index = 0;
	const struct config_option *options = config_tenant_options(&count);
	char place[4200];
	int status;

	if (statement->option == NULL)
		return config_tenant_open(config, statement, err, err_size);
	tenant = config_tenant_find(config, statement->title);
	if (tenant == NULL) {
		snprintf(err, err_size, "belongs to no section that opened; check the quotes before it");
		return RSHM_E_INVALID;
	}
	while (index < count && strcmp(options[index].name + strlen("tenant."), statement->option) != 0)
		index++;
	must(index < count);
	if (options[index].type == CONFIG_LIST) {
		if (statement->values_count > options[index].max) {
			snprintf(err, err_size, "has more than %u entries; use a group",
				 (unsigned)options[index].max);
			return RSHM_E_INVALID;
		}
		status =
			config_option_store_list(&options[index], tenant, statement->values, statement->values_count);
	} else {
		status = config_option_store(&options[index], tenant, statement->values[0], err, err_size);
	}
	if (status != RSHM_OK)
		return status;
	snprintf(place, sizeof(place), "%s:%u", statement->file, statement->line);
	return config_origin_set(config_tenant_origin(tenant, index), CONFIG_FROM_FILE, place);
}

/* ---- users and groups ---- */

/* RSHM_OK with the number, RSHM_MISS if there is no such user, or a negative code. */
static int config_find_uid(const char *name, char *buffer, uint64_t *ret)
{
	struct passwd entry, *found = NULL;
	int error = getpwnam_r(name, &entry, buffer, CONFIG_USER_BUFFER_MAX, &found);

	if (found == NULL)
		return error == ENOMEM ? RSHM_E_NOMEM : RSHM_MISS;
	*ret = found->pw_uid;
	return RSHM_OK;
}

static int config_find_gid(const char *name, char *buffer, uint64_t *ret)
{
	struct group entry, *found = NULL;
	int error = getgrnam_r(name, &entry, buffer, CONFIG_USER_BUFFER_MAX, &found);

	if (found == NULL)
		return error == ENOMEM ? RSHM_E_NOMEM : RSHM_MISS;
	*ret = found->gr_gid;
	return RSHM_OK;
}

/* A user's or group's number, by number or name. */
static int config_resolve_one(const char *name, bool group, uint64_t *ret, const char **ret_fault)
{
	char *buffer;
	int status;

	if (text_parse_u64(name, ret)) {
		*ret_fault = *ret > UINT32_MAX - 1 ? "is too large a number" : NULL;
	} else {
		buffer = malloc(CONFIG_USER_BUFFER_MAX);
		if (buffer == NULL)
			return RSHM_E_NOMEM;
		status = group ? config_find_gid(name, buffer, ret) : config_find_uid(name, buffer, ret);
		free(buffer);
		if (status < 0)
			return status;
		*ret_fault = status == RSHM_MISS ? "is not known on this machine" : NULL;
	}
	if (*ret_fault == NULL && *ret == CONFIG_OVERFLOW_ID)
		*ret_fault = "is what the kernel shows for everybody that it cannot show";
	return *ret_fault == NULL ? RSHM_OK : RSHM_E_INVALID;
}

/* Numbers for all of `names`; uid_t and gid_t are the same type on Linux, which the assertion holds. */
static int config_resolve(char *const *names, bool group, uid_t **ret_ids, size_t *ret_count, char *err,
			  size_t err_size)
{
	size_t count = 0;
	uid_t *ids;

	_Static_assert(sizeof(uid_t) == sizeof(gid_t) && (uid_t)-1 == (gid_t)-1, "uid_t and gid_t are one type");
	while (names[count] != NULL)
		count++;
	ids = calloc(count + 1, sizeof(*ids));
	if (ids == NULL)
		return RSHM_E_NOMEM;
	for (size_t i = 0; i < count; i++) {
		const char *fault = NULL;
		uint64_t id = 0;
		int status = config_resolve_one(names[i], group, &id, &fault);

		if (status != RSHM_OK) {
			struct text text;

			free(ids);
			text_init(&text, err, err_size);
			text_append_string(&text, "\"");
			text_append_escaped(&text, names[i], strnlen(names[i], 64));
			text_append_format(&text, "\" %s; allowed are names and numbers of %s",
					   fault != NULL ? fault : "", group ? "groups" : "users");
			return status;
		}
		ids[i] = (uid_t)id;
	}
	*ret_ids = ids;
	*ret_count = count;
	return RSHM_OK;
}

/* The default tenant without users and groups serves the agent's own. */
static int config_tenant_own_ids(struct config_tenant *tenant)
{
	tenant->uids = malloc(sizeof(*tenant->uids));
	tenant->gids = malloc(sizeof(*tenant->gids));
	if (tenant->uids == NULL || tenant->gids == NULL)
		return RSHM_E_NOMEM;
	tenant->uids[0] = geteuid();
	tenant->gids[0] = getegid();
	tenant->uids_count = tenant->gids_count = 1;
	return RSHM_OK;
}

/* ---- when all is read ---- */

static int config_tenant_fail(const struct config_tenant *tenant, size_t index, const char *why, char *err,
			      size_t err_size)
{
	size_t count;
	const struct config_option *options = config_tenant_options(&count);
	const struct config_origin *origin = config_tenant_origin(tenant, index);

	if (origin->place == NULL)
		origin = config_tenant_origin(tenant, count);
	if (index < count)
		snprintf(err, err_size, "%s: %s: tenant \"%s\": %s", config_origin_text(origin), options[index].name,
			 tenant->name, why);
	else
		snprintf(err, err_size, "%s: tenant: \"%s\" %s", config_origin_text(origin), tenant->name, why);
	return RSHM_E_INVALID;
}

static int config_tenant_inherit(const struct config *config, struct config_tenant *tenant)
{
	size_t count;
	const struct config_option *options = config_tenant_options(&count);
	char value[CONFIG_ERROR_MAX], why[CONFIG_ERROR_MAX], place[128];
	int status = RSHM_OK;

	for (size_t i = 0; i < count && status == RSHM_OK; i++) {
		struct text text;

		if (options[i].inherits == NULL || config_tenant_origin(tenant, i)->place != NULL)
			continue;
		text_init(&text, value, sizeof(value));
		config_option_format(config_option_find(options[i].inherits), config, false, &text);
		status = config_option_store(&options[i], tenant, value, why, sizeof(why));
		must(status != RSHM_E_INVALID);
		snprintf(place, sizeof(place), "from %s", options[i].inherits);
		if (status == RSHM_OK)
			status = config_origin_set(config_tenant_origin(tenant, i), CONFIG_FROM_DEFAULT, place);
	}
	return status;
}

/* The rows of the table that the checks below speak of. */
enum { TENANT_USERS = 0, TENANT_GROUPS = 1, TENANT_MEMORY = 2 };

/* A tenant's memory holds at least its first segment. */
static int config_tenant_fit_memory(const struct config *config, struct config_tenant *tenant, char *err,
				    size_t err_size)
{
	if (tenant->memory_bytes == 0 || tenant->memory_bytes >= config->cache.segment_initial_bytes)
		return RSHM_OK;
	return config_tenant_fail(tenant, TENANT_MEMORY,
				  "is smaller than cache.segment_initial_bytes; allowed is at least that, or 0", err,
				  err_size);
}

static int config_tenant_finish(const struct config *config, struct config_tenant *tenant, char *err, size_t err_size)
{
	bool is_default = strcmp(tenant->name, CONFIG_DEFAULT_TENANT) == 0;
	char why[CONFIG_ERROR_MAX] = "";
	size_t count;
	int status;

	config_tenant_options(&count);
	status = config_tenant_fit_memory(config, tenant, err, err_size);
	if (status == RSHM_OK)
		status = config_tenant_inherit(config, tenant);
	if (status != RSHM_OK)
		return status;
	if (tenant->users[0] == NULL && tenant->groups[0] == NULL) {
		if (is_default)
			return config_tenant_own_ids(tenant);
		return config_tenant_fail(tenant, count, "has neither users nor groups; name who may attach", err,
					  err_size);
	}
	status = config_resolve(tenant->users, false, &tenant->uids, &tenant->uids_count, why, sizeof(why));
	if (status == RSHM_E_INVALID)
		return config_tenant_fail(tenant, TENANT_USERS, why, err, err_size);
	if (status != RSHM_OK)
		return status;
	status = config_resolve(tenant->groups, true, &tenant->gids, &tenant->gids_count, why, sizeof(why));
	if (status == RSHM_E_INVALID)
		return config_tenant_fail(tenant, TENANT_GROUPS, why, err, err_size);
	return status;
}

static int config_tenant_order(const void *a, const void *b)
{
	const char *left = ((const struct config_tenant *)a)->name, *right = ((const struct config_tenant *)b)->name;
	int left_default = strcmp(left, CONFIG_DEFAULT_TENANT) == 0,
	    right_default = strcmp(right, CONFIG_DEFAULT_TENANT) == 0;

	if (left_default != right_default)
		return right_default - left_default;
	return strcmp(left, right);
}

int config_tenants_finish(struct config *config, char *err, size_t err_size)
{
	int status = RSHM_OK;
	size_t count;

	config_tenant_options(&count);
	if (config_tenant_find(config, CONFIG_DEFAULT_TENANT) == NULL)
		status = config_tenant_add(config, CONFIG_DEFAULT_TENANT, NULL);
	if (status != RSHM_OK)
		return status;
	qsort(config->tenants, config->tenants_count, sizeof(*config->tenants), config_tenant_order);
	if (config->tenants_count > 1 && !config->tenancy.enabled)
		return config_tenant_fail(&config->tenants[1], count,
					  "is defined but tenancy.enabled is false; enable it or remove the section",
					  err, err_size);
	if (config->tenancy.enabled && config->tenants_count > config->tenancy.max_tenants)
		return config_tenant_fail(
			&config->tenants[config->tenants_count - 1], count,
			"is one more than tenancy.max_tenants allows (\"default\" counts); raise it", err, err_size);
	for (size_t i = 0; i < config->tenants_count && status == RSHM_OK; i++)
		status = config_tenant_finish(config, &config->tenants[i], err, err_size);
	return status;
}
