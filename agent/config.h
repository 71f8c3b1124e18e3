/*
 * config.h - every option of the agent as one typed, immutable struct, and how it is loaded, printed and compared.
 *
 * A value comes from the last of these that names it: the default, the configuration file (then conf.d next to it), the
 * environment, the command line. The options, with ranges and explanations, stand in config_table.c; the struct mirrors that
 * table field by field, `section.option` being `config->section.option`.
 * After config_load() nothing changes a struct config: any thread may read it until its owner destroys it.
 */
#ifndef RIPTIDE_CONFIG_H
#define RIPTIDE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "agent/base/log.h"

#define CONFIG_FILE_DEFAULT "/etc/riptide/riptide.conf"
#define CONFIG_ERROR_MAX 1024 /* a buffer for error texts; only very long paths are cut */

enum config_backend { CONFIG_BACKEND_EMBEDDED, CONFIG_BACKEND_REDIS };
enum config_sync { CONFIG_SYNC_ALWAYS, CONFIG_SYNC_INTERVAL, CONFIG_SYNC_NONE };
enum config_compression {
	CONFIG_COMPRESSION_LZ4,
	CONFIG_COMPRESSION_ZSTD,
	CONFIG_COMPRESSION_AUTO,
	CONFIG_COMPRESSION_NONE
};
enum config_eviction {
	CONFIG_EVICTION_LRU,
	CONFIG_EVICTION_LFU,
	CONFIG_EVICTION_TTL,
	CONFIG_EVICTION_RANDOM,
	CONFIG_EVICTION_S3FIFO
};
enum config_write_mode { CONFIG_WRITE_THROUGH, CONFIG_WRITE_BEHIND };
enum config_coherence {
	CONFIG_COHERENCE_AUTO,
	CONFIG_COHERENCE_TRACKING,
	CONFIG_COHERENCE_CHANNEL,
	CONFIG_COHERENCE_TTL,
};

enum config_isolation { CONFIG_ISOLATION_NONE, CONFIG_ISOLATION_LOGICAL, CONFIG_ISOLATION_STRONG };
enum config_stale { CONFIG_STALE_MISS, CONFIG_STALE_STALE, CONFIG_STALE_ERROR };

/* A `tenant "name" { ... }` section, or the tenant "default", which always exists. */
struct config_tenant {
	char *name;             /* [a-z0-9-]{1,64} */
	char **users, **groups; /* as written; NULL-terminated, never NULL */
	/* the same as numbers; the agent's own where neither users nor groups are given */
	uid_t *uids;
	gid_t *gids;
	size_t uids_count, gids_count;
	uint64_t memory_bytes, default_ttl_seconds; /* the latter from cache.* unless set */
	enum config_stale stale_policy;             /* from coherence.* unless set */
	enum config_write_mode write_mode;          /* from cache.* unless set, as the next */
	enum config_eviction eviction_policy;
	struct config_origin *origins; /* private */
};

struct config {
	struct {
		char *instance, *run_dir, *state_dir;
		uint32_t workers;
		uint64_t shutdown_timeout_seconds;
		uint32_t spin_us;
		enum config_backend backend;
		bool keep_on_stop;
	} agent;
	struct {
		enum log_level level;
		enum log_format format;
	} log;
	struct {
		char *url;
		uint32_t pool_size; /* connections per worker and node at most */
		uint64_t connection_timeout_ms, command_timeout_ms;
		uint32_t retry_attempts;
		uint64_t retry_delay_ms, retry_max_delay_ms;
		bool enable_pipelining;
		uint32_t max_pipeline_size;
		uint64_t cluster_refresh_ms;
		uint32_t cluster_redirects_max;
		uint64_t sentinel_refresh_ms, sentinel_retry_ms;
	} redis;
	struct {
		uint32_t min_size;
		uint64_t idle_timeout_seconds, max_lifetime_seconds;
	} pool;
	struct {
		char *path; /* never empty after loading */
		enum config_sync sync;
		uint64_t sync_interval_ms, map_size, expire_interval_ms;
		uint32_t commit_batch_max;
	} embedded;
	struct {
		uint64_t default_ttl_seconds /* 0 = none */, max_entry_size_bytes, hot_entry_limit_bytes;
		char *key_prefix, *version;
		bool enable_compression;
		uint64_t compression_threshold_bytes;
		enum config_compression compression_algorithm;
		enum config_eviction eviction_policy;
		uint64_t max_memory_bytes /* 0 = half of what is free in /dev/shm at start */, segment_initial_bytes;
		uint32_t reinsert_ratio_percent, ttl_jitter_percent, negative_entries_max, warming_batch_size;
		uint32_t zstd_level, lz4_acceleration;
		enum config_write_mode write_mode;
		bool enable_warming;
	} cache;
	struct {
		char *path; /* never empty after loading */
		enum config_sync sync;
		uint64_t sync_interval_ms, max_bytes, flush_bytes, flush_interval_ms, segment_bytes;
		uint32_t max_records, flush_records, flush_window;
		uint64_t max_replay_age_seconds;
	} behind;
	struct {
		bool enabled, keep;
		char *path; /* never empty after loading */
		uint64_t max_bytes, read_bytes;
	} spill;
	struct {
		uint32_t hot_set_max, keys_per_second;
		uint64_t save_interval_seconds;
	} warming;
	struct {
		bool enabled, auto_train;
		uint64_t size_bytes, sample_bytes;
		uint32_t train_samples_min;
		uint64_t retrain_seconds, refresh_seconds;
	} dictionary;
	struct {
		uint64_t max_age_ms, lease_ms, stale_limit_ms;
		enum config_stale stale_policy;
		enum config_coherence mode;
	} coherence;
	struct {
		bool enabled, enable_encryption;
		uint32_t max_tenants;
		enum config_isolation isolation_level;
		uint64_t default_memory_bytes, default_data_transfer_bytes; /* 0: none */
		uint32_t default_operations_per_minute;                     /* the same */
		char *administrators;                                       /* a group's name; empty: none */
		uint64_t idle_seconds;
	} tenancy;
	struct {
		char *master_key_file, *former_master_key_file; /* empty: none */
	} encryption;
	struct {
		uint32_t inflight_max, max_clients, attaches_per_second_per_uid, channels_per_uid,
			connections_per_uid;
		uint32_t bells_per_second, requests_per_turn;
		uint64_t worker_staging_bytes, tenant_staging_bytes, channel_staging_bytes, piece_timeout_ms;
		uint64_t bytes_per_turn, control_message_bytes, control_answer_bytes, handshake_timeout_ms;
	} limits;
	struct {
		uint64_t target_cache_access_ms, slow_threshold_ms;
		bool enable_slow_log;
	} performance;
	struct {
		bool enable_audit_logging, audit_to_log;
		uint32_t audit_retention_days;
	} security;

	struct config_tenant *tenants; /* "default" first, the others by name */
	size_t tenants_count;
	struct config_origin *origins; /* private: where each value came from */
};

struct config_sources {
	const char *file;               /* NULL: no file, no conf.d */
	bool file_may_be_absent;        /* true for the default path, false for one that the user gave */
	const char *const *environment; /* as `environ` (a cast adds the const); NULL: none */
	const char *const *settings;    /* "section.option=value" of the command line, in order */
	size_t settings_count;
};

/*
 * Reads, checks and composes all sources. Blocks on files and on the user database. Any thread; calls wait for each other,
 * since the parser below has only one state. On failure `err` says in one line where, what and what would be right
 * (`file:line: section.option: what is wrong; what is allowed`, without secrets), and *ret stays untouched.
 * RSHM_E_INVALID, RSHM_E_NOMEM.
 */
int config_load(const struct config_sources *sources, struct config **ret, char *err, size_t err_size);
/* Frees and clears *config; NULL is fine. */
void config_destroy(struct config **config);

/* NULL if there is no tenant of that name. Lent for the life of `config`. */
const struct config_tenant *config_find_tenant(const struct config *config, const char *name);

/*
 * Writes all values in force with their origins, secrets masked, in the syntax of the configuration file. False if `out`
 * reported an error.
 */
bool config_print(const struct config *config, FILE *out);

/* `live` says whether a running agent can apply the change. Texts are lent for the call, secrets masked. */
struct config_change {
	const char *name;           /* "cache.default_ttl_seconds", "tenant \"shop\".users", "tenant \"shop\"" */
	const char *before, *after; /* NULL: the tenant was not there, is not there any more */
	bool live;
};
typedef void config_change_fn(void *context, const struct config_change *change);
/* Calls `changed` for every value that differs; returns how many. */
size_t config_compare(const struct config *before, const struct config *after, config_change_fn *changed,
		      void *context);

#endif
