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
#include "agent/tenant/numbers.h"
#include "agent/tenant/record.h"
#include "agent/tenants.h"

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

static int open_numbers(struct agent *a, char *error, size_t error_len)
{
	char path[1200];
	int status = lifecycle_prepare_dir(a->config->spill.path, error, error_len);

	if (status < 0)
		return status;
	snprintf(path, sizeof(path), "%s/tenants", a->config->spill.path);
	return tenant_numbers_open(path, &a->numbers, error, error_len);
}

int stores_open(struct agent *a, char *error, size_t error_len)
{
	struct embedded_config settings = embedded_settings(a->config);
	struct text text;
	int status;

	/* The journal is there with either backend. */
	status = lifecycle_prepare_dir(a->config->agent.state_dir, error, error_len);
	if (status < 0)
		return status;
	if (a->config->agent.backend != CONFIG_BACKEND_EMBEDDED)
		return a->config->spill.enabled ? open_numbers(a, error, error_len) : RSHM_OK;
	text_init(&text, error, error_len);
	return embedded_env_open(&settings, &a->embedded, &text);
}

int stores_number_tenant(struct agent *a, const char *id, uint32_t *ret_number, uint32_t *ret_shards)
{
	/* Keys of a shard are one slot; a tenant that has many keeps all masters busy. */
	*ret_shards = !a->embedded && store_cluster_is_meant(a->config->redis.url) ? CLUSTER_SHARDS : 1;
	/* Redis keys spell the tenant out; the disk tier does not. */
	*ret_number = 1;
	if (a->embedded)
		return embedded_env_tenant_number(a->embedded, id, ret_number);
	return a->numbers ? tenant_numbers_get(a->numbers, id, ret_number) : RSHM_OK;
}

int stores_number_tenants(struct agent *a, char *error, size_t error_len)
{
	for (size_t i = 0; i < tenant_count(a->tenants); i++) {
		struct tenant *tenant = tenant_at(a->tenants, i);
		int status = stores_number_tenant(a, tenant->id, &tenant->number, &tenant->shards);

		if (status < 0) {
			snprintf(error, error_len, "tenant \"%s\": %s takes no number for it (status %d)", tenant->id,
				 a->embedded ? a->config->embedded.path : a->config->spill.path, status);
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

static int create_redis(const struct config *c, const char *watch_tenant, uv_loop_t *loop, struct store **ret,
			char *error, size_t error_len)
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
	settings.watch_tenant = watch_tenant;
	/* The registry of tenants is asked seldom. */
	if (watch_tenant) {
		settings.pool_min = 0;
		settings.pool_max = 2;
	}
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

/*
 * The tenant of a journaled write: numbers are the embedded store's and may be others than they were. One that is not of the
 * configuration was created, and belongs to the worker that its id tells; nothing more of it is known here.
 */
static bool owns_tenant(void *context, struct store_name *name)
{
	const struct journal_owner *owner = context;
	struct agent *a = owner->agent;
	const struct tenant *tenant = tenant_find(a->tenants, name->tenant);

	if (tenant) {
		name->tenant_number = tenant->number;
		name->shards = tenant->shards;
		return tenant->worker == owner->worker;
	}
	return a->config->tenancy.enabled && tenant_id_is_valid(name->tenant) &&
	       live_tenant_worker(a, name->tenant) == owner->worker &&
	       stores_number_tenant(a, name->tenant, &name->tenant_number, &name->shards) == RSHM_OK;
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
		status = create_redis(a->config, NULL, loop, &inner, error, error_len);
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

int stores_create_registry(struct agent *a, struct store **ret, char *error, size_t error_len)
{
	int status;

	if (!a->embedded)
		return create_redis(a->config, TENANT_RESERVED_ID, &a->loop, ret, error, error_len);
	status = embedded_store_create(a->embedded, &a->loop, ret);
	if (status < 0)
		snprintf(error, error_len, "embedded: a store for tenants cannot be made (status %d)", status);
	return status;
}

/* Spilling to disk what the embedded store has on disk would gain nothing. */
int stores_open_spill(void *agent, uint32_t worker, uv_loop_t *loop, struct spill **ret, char *error,
		      size_t error_len)
{
	struct agent *a = agent;
	struct spill_config settings = SPILL_CONFIG_DEFAULTS;
	struct text text;
	unsigned char numbers[TENANT_NUMBERS_IDENTITY_BYTES];
	crypto_generichash_state hash;
	char path[1200];

	*ret = NULL;
	if (!a->config->spill.enabled || a->embedded)
		return RSHM_OK;
	snprintf(path, sizeof(path), "%s/%u", a->config->spill.path, worker);
	settings.path = path;
	settings.limits.bytes = a->config->spill.max_bytes;
	settings.keep = a->config->spill.keep;
	/* Of this backend, these numbers, and as many workers: else the folder has other entries under the same names. */
	tenant_numbers_identity(a->numbers, numbers);
	crypto_generichash_init(&hash, numbers, sizeof(numbers), sizeof(settings.identity));
	crypto_generichash_update(&hash, (const unsigned char *)&a->config->agent.workers,
				  sizeof(a->config->agent.workers));
	crypto_generichash_update(&hash, (const unsigned char *)a->config->redis.url, strlen(a->config->redis.url));
	crypto_generichash_final(&hash, settings.identity, sizeof(settings.identity));
	text_init(&text, error, error_len);
	return spill_open(&settings, loop, ret, &text);
}

void stores_close(struct agent *a)
{
	embedded_env_close(&a->embedded);
	tenant_numbers_close(&a->numbers);
}
