/* stores.c - opens the backend that the configuration names; the one place that knows both. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent_priv.h"
#include "agent/base/text.h"
#include "agent/lifecycle.h"
#include "agent/store/keys.h"
#include "agent/store/redis/redis.h"

static struct embedded_config embedded_settings(const struct config *c)
{
	static const enum embedded_sync syncs[] = {
		[CONFIG_SYNC_ALWAYS] = EMBEDDED_SYNC_ALWAYS,
		[CONFIG_SYNC_INTERVAL] = EMBEDDED_SYNC_INTERVAL,
		[CONFIG_SYNC_NONE] = EMBEDDED_SYNC_NONE,
	};
	struct embedded_config settings = EMBEDDED_CONFIG_DEFAULTS;

	settings.path = c->embedded.path;
	settings.map_size = c->embedded.map_size;
	settings.sync = syncs[c->embedded.sync];
	settings.sync_interval_ms = (uint32_t)c->embedded.sync_interval_ms;
	settings.expire_interval_ms = (uint32_t)c->embedded.expire_interval_ms;
	settings.commit_batch_max = c->embedded.commit_batch_max;
	settings.queue_max = c->limits.inflight_max;
	return settings;
}

int stores_open(struct agent *a, char *error, size_t error_len)
{
	struct embedded_config settings = embedded_settings(a->config);
	struct text text;
	int status;

	if (a->config->agent.backend != CONFIG_BACKEND_EMBEDDED)
		return RSHM_OK;
	status = lifecycle_prepare_dir(a->config->agent.state_dir, error, error_len);
	if (status < 0)
		return status;
	text_init(&text, error, error_len);
	return embedded_env_open(&settings, &a->embedded, &text);
}

int stores_number_tenants(struct agent *a, char *error, size_t error_len)
{
	for (size_t i = 0; i < tenant_count(a->tenants); i++) {
		struct tenant *tenant = tenant_at(a->tenants, i);
		int status = RSHM_OK;

		tenant->number = 1; /* Redis keys spell the tenant out */
		if (a->embedded)
			status = embedded_env_tenant_number(a->embedded, tenant->id, &tenant->number);
		if (status < 0) {
			snprintf(error, error_len, "tenant \"%s\": %s takes no number for it (status %d)", tenant->id,
				 a->config->embedded.path, status);
			return status;
		}
	}
	return RSHM_OK;
}

/* "v1" → 1; checked here because only the keys of the store care. */
static int key_version(const char *text, uint32_t *ret)
{
	uint64_t number;

	if (text[0] != 'v' || !text_parse_u64(text + 1, &number) || number == 0 || number > UINT32_MAX)
		return RSHM_E_INVALID;
	*ret = (uint32_t)number;
	return RSHM_OK;
}

static int create_redis(const struct config *c, uv_loop_t *loop, struct store **ret, char *error, size_t error_len)
{
	struct store_redis_config settings = STORE_REDIS_CONFIG_DEFAULTS;

	settings.url = c->redis.url;
	settings.key_prefix = c->cache.key_prefix;
	settings.pool_min = c->pool.min_size < c->redis.pool_size ? c->pool.min_size : c->redis.pool_size;
	settings.pool_max = c->redis.pool_size;
	settings.idle_timeout_ms = c->pool.idle_timeout_seconds * 1000;
	settings.lifetime_ms = c->pool.max_lifetime_seconds * 1000;
	settings.connect_timeout_ms = c->redis.connection_timeout_ms;
	settings.command_timeout_ms = c->redis.command_timeout_ms;
	settings.retry_attempts = c->redis.retry_attempts;
	settings.retry_delay_ms = c->redis.retry_delay_ms;
	settings.retry_max_delay_ms = c->redis.retry_max_delay_ms;
	settings.enable_pipelining = c->redis.enable_pipelining;
	settings.max_pipeline_size = c->redis.max_pipeline_size;
	settings.queue_max = c->limits.inflight_max;
	settings.envelope_max = c->cache.max_entry_size_bytes + (256u << 10);
	if (key_version(c->cache.version, &settings.key_version) < 0) {
		snprintf(error, error_len, "cache.version: \"%s\" is not v and a number from 1", c->cache.version);
		return RSHM_E_INVALID;
	}
	return store_redis_create(loop, &settings, ret, error, error_len);
}

int stores_create(void *agent, uv_loop_t *loop, struct store **ret, char *error, size_t error_len)
{
	struct agent *a = agent;

	if (a->embedded)
		return embedded_store_create(a->embedded, loop, ret);
	return create_redis(a->config, loop, ret, error, error_len);
}

void stores_close(struct agent *a)
{
	embedded_env_close(&a->embedded);
}
