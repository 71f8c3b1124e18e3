/*
 * What several options say together. A default gives way to what was set: whoever asks for a pool of one connection need not
 * know that min_size is two. Two values that were both set and contradict each other are an error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/config_priv.h"
#include "agent/store/compress.h"
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

/* An empty path is a folder of state_dir. */
static int config_derive_path(struct config *config, char **path, const char *folder, const char *option)
{
	size_t size = strlen(config->agent.state_dir) + strlen(folder) + 2;
	char *derived;

	if ((*path)[0] != '\0')
		return RSHM_OK;
	derived = malloc(size);
	if (derived == NULL)
		return RSHM_E_NOMEM;
	snprintf(derived, size, "%s/%s", config->agent.state_dir, folder);
	free(*path);
	*path = derived;
	return config_note_derived(config, option, "agent.state_dir");
}

int config_derive(struct config *config)
{
	int status = config_derive_path(config, &config->embedded.path, "store", "embedded.path");

	if (status == RSHM_OK)
		status = config_derive_path(config, &config->behind.path, "journal", "behind.path");
	if (status == RSHM_OK)
		status = config_derive_path(config, &config->spill.path, "spill", "spill.path");

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
	if (status == RSHM_OK && !RIPTIDE_COMPRESSION && !config_is_set(config, "cache.compression_algorithm")) {
		config->cache.compression_algorithm = CONFIG_COMPRESSION_NONE;
		status = config_origin_set(config_origin_by_name(config, "cache.compression_algorithm"),
					   CONFIG_FROM_DEFAULT, "this build has no compression");
	}
	return status;
}

/* The option that asks a build without compression for it, or NULL. */
static const char *config_unbuilt_compression(const struct config *config)
{
	if (RIPTIDE_COMPRESSION || !config->cache.enable_compression)
		return NULL;
	if (config->cache.compression_algorithm != CONFIG_COMPRESSION_NONE)
		return "cache.compression_algorithm";
	return config_is_set(config, "cache.enable_compression") &&
			       !config_is_set(config, "cache.compression_algorithm")
		       ? "cache.enable_compression"
		       : NULL;
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
	if (config_unbuilt_compression(config) != NULL)
		return config_refuse(config, config_unbuilt_compression(config),
				     "this build has no compression; allowed is cache.compression_algorithm = none",
				     err, err_size);
	return RSHM_OK;
}
