/*
 * What several options say together. A default gives way to what was set: whoever asks for a pool of one connection need not
 * know that min_size is two. Two values that were both set and contradict each other are an error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/config_priv.h"
#include "shm/msg.h"

static struct config_origin *config_origin_by_name(const struct config *config, const char *name)
{
	const struct config_option *option = config_option_find(name);

	must(option != NULL);
	return config_origin_of(config, option);
}

static bool config_is_set(const struct config *config, const char *name)
{
	return config_origin_by_name(config, name)->source != CONFIG_FROM_DEFAULT;
}

/* Notes that a value, which counts as a default, follows from another option. */
static int config_note_derived(struct config *config, const char *name, const char *from)
{
	struct config_origin *origin = config_origin_by_name(config, from);
	char place[4400];

	snprintf(place, sizeof(place), "from %s (%s)", from, config_origin_text(origin));
	return config_origin_set(config_origin_by_name(config, name), CONFIG_FROM_DEFAULT, place);
}

static int config_derive_path(struct config *config)
{
	size_t size = strlen(config->agent.state_dir) + sizeof("/store");
	char *path;

	if (config->embedded.path[0] != '\0')
		return RSHM_OK;
	path = malloc(size);
	if (path == NULL)
		return RSHM_E_NOMEM;
	snprintf(path, size, "%s/store", config->agent.state_dir);
	free(config->embedded.path);
	config->embedded.path = path;
	return config_note_derived(config, "embedded.path", "agent.state_dir");
}

int config_derive(struct config *config)
{
	int status = config_derive_path(config);

	if (status == RSHM_OK && !config_is_set(config, "agent.backend") && config_is_set(config, "redis.url")) {
		config->agent.backend = CONFIG_BACKEND_REDIS;
		status = config_note_derived(config, "agent.backend", "redis.url");
	}
	if (status == RSHM_OK && !config_is_set(config, "pool.min_size") &&
	    config->pool.min_size > config->redis.pool_size) {
		config->pool.min_size = config->redis.pool_size;
		status = config_note_derived(config, "pool.min_size", "redis.pool_size");
	}
	if (status == RSHM_OK && !config_is_set(config, "redis.retry_max_delay_ms") &&
	    config->redis.retry_max_delay_ms < config->redis.retry_delay_ms) {
		config->redis.retry_max_delay_ms = config->redis.retry_delay_ms;
		status = config_note_derived(config, "redis.retry_max_delay_ms", "redis.retry_delay_ms");
	}
	if (status == RSHM_OK && !config_is_set(config, "limits.tenant_staging_bytes") &&
	    config->limits.tenant_staging_bytes > config->limits.worker_staging_bytes) {
		config->limits.tenant_staging_bytes = config->limits.worker_staging_bytes;
		status = config_note_derived(config, "limits.tenant_staging_bytes", "limits.worker_staging_bytes");
	}
	return status;
}

static int config_refuse(const struct config *config, const char *name, const char *why, char *err, size_t err_size)
{
	snprintf(err, err_size, "%s: %s: %s", config_origin_text(config_origin_by_name(config, name)), name, why);
	return RSHM_E_INVALID;
}

int config_check(const struct config *config, char *err, size_t err_size)
{
	if (config->tenancy.enabled && config->tenancy.max_tenants == 0)
		return config_refuse(config, "tenancy.max_tenants",
				     "Maximum tenants must be greater than 0 when multi-tenancy is enabled; "
				     "allowed is a number from 1, or tenancy.enabled = false",
				     err, err_size);
	if (config->pool.min_size > config->redis.pool_size)
		return config_refuse(config, "pool.min_size",
				     "is larger than redis.pool_size; allowed is at most redis.pool_size", err,
				     err_size);
	if (config->redis.retry_max_delay_ms < config->redis.retry_delay_ms)
		return config_refuse(config, "redis.retry_max_delay_ms",
				     "is smaller than redis.retry_delay_ms; allowed is at least redis.retry_delay_ms",
				     err, err_size);
	if (config->limits.tenant_staging_bytes > config->limits.worker_staging_bytes)
		return config_refuse(config, "limits.tenant_staging_bytes",
				     "is larger than limits.worker_staging_bytes; allowed is at most that", err,
				     err_size);
	return RSHM_OK;
}
