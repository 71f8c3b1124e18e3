/* stores.c - opens the backend that the configuration names; the one place that knows both. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent_priv.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/lifecycle.h"
#include "agent/store/behind/behind.h"
#include "agent/store/keys.h"
#include "agent/store/redis/cluster/cluster.h"
#include "agent/store/redis/redis.h"
#include "agent/store/spill/spill.h"

#define CLUSTER_SHARDS 64u /* of a tenant on a cluster; another number would look for its entries elsewhere */

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

	/* The journal is there with either backend. */
	status = lifecycle_prepare_dir(a->config->agent.state_dir, error, error_len);
	if (status < 0 || a->config->agent.backend != CONFIG_BACKEND_EMBEDDED)
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
		/* Keys of a shard are one slot; a tenant that has many keeps all masters busy. */
		tenant->shards = !a->embedded && store_cluster_is_meant(a->config->redis.url) ? CLUSTER_SHARDS : 1;
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
	settings.sentinel_refresh_ms = c->redis.sentinel_refresh_ms;
	settings.sentinel_retry_ms = c->redis.sentinel_retry_ms;
	settings.coherence = (enum store_redis_coherence)c->coherence.mode;
	settings.lease_ms = c->coherence.lease_ms;
	settings.envelope_max = c->cache.max_entry_size_bytes + (256u << 10);
	if (key_version(c->cache.version, &settings.key_version) < 0) {
		snprintf(error, error_len, "cache.version: \"%s\" is not v and a number from 1", c->cache.version);
		return RSHM_E_INVALID;
	}
	if (store_cluster_is_meant(settings.url)) {
		struct store_cluster_config cluster = {
			.node = settings,
			.refresh_ms = c->redis.cluster_refresh_ms,
			.redirects_max = c->redis.cluster_redirects_max,
		};

		return store_cluster_create(loop, &cluster, ret, error, error_len);
	}
	return store_redis_create(loop, &settings, ret, error, error_len);
}

/* The tenant of a journaled write: numbers are the embedded store's and may be others than they were. */
static bool owns_tenant(void *context, struct store_name *name)
{
	const struct journal_owner *owner = context;
	const struct tenant *tenant = tenant_find(owner->agent->tenants, name->tenant);

	if (!tenant || tenant->worker != owner->worker)
		return false;
	name->tenant_number = tenant->number;
	name->shards = tenant->shards;
	return true;
}

static struct behind_config behind_settings(const struct config *c)
{
	static const enum behind_sync syncs[] = {
		[CONFIG_SYNC_ALWAYS] = BEHIND_SYNC_ALWAYS,
		[CONFIG_SYNC_INTERVAL] = BEHIND_SYNC_INTERVAL,
		[CONFIG_SYNC_NONE] = BEHIND_SYNC_NONE,
	};
	struct behind_config settings = BEHIND_CONFIG_DEFAULTS;

	settings.folder = c->behind.path;
	settings.worker_count = c->agent.workers;
	settings.sync = syncs[c->behind.sync];
	settings.sync_interval_ms = c->behind.sync_interval_ms;
	settings.max_bytes = c->behind.max_bytes;
	settings.max_records = c->behind.max_records;
	settings.flush_records = c->behind.flush_records;
	settings.flush_bytes = c->behind.flush_bytes;
	settings.flush_interval_ms = c->behind.flush_interval_ms;
	settings.flush_window = c->behind.flush_window;
	settings.segment_bytes = c->behind.segment_bytes;
	settings.max_replay_age_ms = c->behind.max_replay_age_seconds * 1000;
	return settings;
}

static void inner_on_closed(void *context)
{
	(void)context;
}

int stores_create(void *agent, uint32_t worker, uv_loop_t *loop, struct store **ret, char *error, size_t error_len)
{
	struct agent *a = agent;
	struct behind_config settings = behind_settings(a->config);
	struct behind_figures figures;
	struct store *inner = NULL;
	int status;

	if (a->embedded)
		status = embedded_store_create(a->embedded, loop, &inner);
	else
		status = create_redis(a->config, loop, &inner, error, error_len);
	if (status < 0) {
		if (error[0] == '\0')
			snprintf(error, error_len, "%s: a store of worker %u cannot be made (status %d)",
				 a->embedded ? "embedded" : "redis", worker, status);
		return status;
	}
	a->journal_owners[worker] = (struct journal_owner){.agent = a, .worker = worker};
	settings.worker = worker;
	settings.owns = owns_tenant;
	settings.owns_context = &a->journal_owners[worker];
	status = behind_create(&settings, loop, inner, ret, error, error_len);
	if (status < 0) {
		store_close(inner, inner_on_closed, NULL);
		return status;
	}
	/* A clock that was set back must not make new writes older than those that wait. */
	behind_figures(*ret, &figures);
	if (!hlc_observe(&a->hlc, figures.newest_version))
		log_warn(
			"agent",
			"the journal in %s has writes of a time to come; set the clock, or new writes are older than they",
			a->config->behind.path);
	return RSHM_OK;
}

/* Spilling to disk what the embedded store has on disk would gain nothing. */
int stores_open_spill(void *agent, uint32_t worker, uv_loop_t *loop, struct spill **ret, char *error,
		      size_t error_len)
{
	struct agent *a = agent;
	struct spill_config settings = SPILL_CONFIG_DEFAULTS;
	struct text text;
	char path[1200], identity[1200];
	int status;

	*ret = NULL;
	if (!a->config->spill.enabled || a->embedded)
		return RSHM_OK;
	status = lifecycle_prepare_dir(a->config->spill.path, error, error_len);
	if (status < 0)
		return status;
	snprintf(path, sizeof(path), "%s/%u", a->config->spill.path, worker);
	settings.path = path;
	settings.limits.bytes = a->config->spill.max_bytes;
	settings.keep = a->config->spill.keep;
	/* Of this backend, and of as many workers: else the folder has other entries under the same names. */
	snprintf(identity, sizeof(identity), "%u %s", a->config->agent.workers, a->config->redis.url);
	crypto_generichash(settings.identity, sizeof(settings.identity), (const unsigned char *)identity,
			   strlen(identity), NULL, 0);
	text_init(&text, error, error_len);
	return spill_open(&settings, loop, ret, &text);
}

void stores_close(struct agent *a)
{
	embedded_env_close(&a->embedded);
}
