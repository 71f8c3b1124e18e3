#include <stddef.h>
#include <string.h>

#include "agent/config.h"
#include "agent/config_option.h"

#define K 1024ull
#define M (1024ull * K)
#define G (1024ull * M)
#define T (1024ull * G)
#define DAY 86400ull

#define FIELD(section_, field_)                                                            \
	.name = #section_ "." #field_, .offset = offsetof(struct config, section_.field_), \
	.size = sizeof(((struct config *)0)->section_.field_)
#define TENANT_FIELD(field_)                                                         \
	.name = "tenant." #field_, .offset = offsetof(struct config_tenant, field_), \
	.size = sizeof(((struct config_tenant *)0)->field_)
#define RANGE(min_, max_) .min = (min_), .max = (max_)

static const char *const backend_words[] = {"embedded", "redis", NULL};
static const char *const level_words[] = {"error", "warn", "info", "debug", NULL};
static const char *const format_words[] = {"auto", "text", "json", NULL};
static const char *const sync_words[] = {"always", "interval", "none", NULL};
static const char *const compression_words[] = {"lz4", "zstd", "auto", "none", NULL};
static const char *const eviction_words[] = {"lru", "lfu", "ttl", "random", "s3fifo", NULL};
static const char *const write_mode_words[] = {"through", "behind", NULL};
static const char *const coherence_words[] = {"auto", "tracking", "channel", "ttl", NULL};
static const char *const isolation_words[] = {"none", "logical", "strong", NULL};
static const char *const stale_words[] = {"miss", "stale", "error", NULL};

static const struct config_option options[] = {
	{FIELD(agent, instance), .type = CONFIG_NAME, .initial = "default", RANGE(1, 32),
	 .help = "Name of this agent on its host. Two agents run side by side if names and folders differ."},
	{FIELD(agent, run_dir), .type = CONFIG_PATH, .initial = "/run/riptide", RANGE(1, 80),
	 .help = "Folder of the sockets and the lock. Its mode decides who can reach the agent at all."},
	{FIELD(agent, state_dir), .type = CONFIG_PATH, .initial = "/var/lib/riptide", RANGE(1, 1024),
	 .help = "Folder of what outlives the agent."},
	{FIELD(agent, workers), .type = CONFIG_COUNT, .initial = "1", RANGE(1, 64),
	 .help = "Threads that serve requests. Each tenant belongs to one of them."},
	{FIELD(agent, shutdown_timeout_seconds), .type = CONFIG_SECONDS, .live = true, .initial = "30",
	 RANGE(1, 3600), .environment = "STATE_SHUTDOWN_TIMEOUT_SECONDS",
	 .help = "How long a stopping agent finishes what it has begun before it gives up."},
	{FIELD(agent, spin_us), .type = CONFIG_COUNT, .initial = "50", RANGE(0, 1000),
	 .help = "Microseconds that an idle worker polls before it sleeps. 0: it sleeps at once."},
	{FIELD(agent, backend), .type = CONFIG_WORD, .initial = "embedded", .words = backend_words,
	 .help = "Where entries are kept. If this is set nowhere but redis.url is, it is redis."},
	{FIELD(agent, keep_on_stop), .type = CONFIG_BOOL, .initial = "true",
	 .help = "Leave the hot entries in shared memory when stopping, for the next agent to take over."},

	{FIELD(log, level), .type = CONFIG_WORD, .live = true, .initial = "info", .words = level_words,
	 .help = "The least important lines that are written."},
	{FIELD(log, format), .type = CONFIG_WORD, .live = true, .initial = "auto", .words = format_words,
	 .help = "auto: the systemd journal if it is there, else text on stderr."},

	{FIELD(redis, url), .type = CONFIG_URL, .initial = "redis://localhost:6379", RANGE(1, 1024),
	 .environment = "REDIS_URL", .below = "Redis URL cannot be empty",
	 .help = "Where the server is: redis://host:port, unix:///path, redis+cluster://host:port,host:port for a "
		 "cluster, of which some nodes are enough, or redis+sentinel://host:port,host:port/name for the master "
		 "that sentinels know by that name. A password in it is masked wherever the URL is shown."},
	{FIELD(redis, pool_size), .type = CONFIG_COUNT, .initial = "10", RANGE(1, 1024),
	 .environment = "REDIS_POOL_SIZE", .environment_alias = "POOL_MAX_SIZE",
	 .help = "Connections at most, of each worker, to each node of a cluster."},
	{FIELD(redis, connection_timeout_ms), .type = CONFIG_MS, .initial = "5000", RANGE(1, 600000),
	 .environment = "REDIS_CONNECTION_TIMEOUT_MS", .help = "How long connecting and logging in may take."},
	{FIELD(redis, command_timeout_ms), .type = CONFIG_MS, .initial = "5000", RANGE(1, 600000),
	 .environment = "REDIS_COMMAND_TIMEOUT_MS",
	 .help = "How long a command may wait for its reply before its connection counts as dead."},
	{FIELD(redis, retry_attempts), .type = CONFIG_COUNT, .initial = "3", RANGE(0, 100),
	 .environment = "REDIS_RETRY_ATTEMPTS",
	 .help = "How often a command that was not sent, or may safely be sent again, is tried once more."},
	{FIELD(redis, retry_delay_ms), .type = CONFIG_MS, .initial = "100", RANGE(1, 60000),
	 .environment = "REDIS_RETRY_DELAY_MS",
	 .help = "Pause before the first further try; it doubles, with jitter, from try to try."},
	{FIELD(redis, retry_max_delay_ms), .type = CONFIG_MS, .initial = "2000", RANGE(1, 600000),
	 .help = "The longest pause between two tries, of commands and of connecting."},
	{FIELD(redis, enable_pipelining), .type = CONFIG_BOOL, .initial = "true",
	 .environment = "REDIS_ENABLE_PIPELINING",
	 .help = "Send further commands before the replies to earlier ones have come."},
	{FIELD(redis, max_pipeline_size), .type = CONFIG_COUNT, .initial = "100", RANGE(1, 10000),
	 .environment = "REDIS_MAX_PIPELINE_SIZE",
	 .help = "Commands at most that wait for replies on one connection."},
	{FIELD(redis, cluster_refresh_ms), .type = CONFIG_MS, .initial = "10000", RANGE(100, 3600000),
	 .help = "Time between two looks at which node of a cluster has which keys, when nothing is amiss."},
	{FIELD(redis, cluster_redirects_max), .type = CONFIG_COUNT, .initial = "5", RANGE(1, 100),
	 .help = "How often the nodes of a cluster may send a command on before it fails."},
	{FIELD(redis, sentinel_refresh_ms), .type = CONFIG_MS, .initial = "10000", RANGE(100, 3600000),
	 .help = "Time between two questions to sentinels who the master is, when nothing is amiss."},
	{FIELD(redis, sentinel_retry_ms), .type = CONFIG_MS, .initial = "200", RANGE(10, 600000),
	 .help = "The shortest time between two questions to sentinels, however much is amiss."},

	{FIELD(pool, min_size), .type = CONFIG_COUNT, .initial = "2", RANGE(0, 1024), .environment = "POOL_MIN_SIZE",
	 .help = "Connections that each worker keeps open, to each node of a cluster. The most is "
		 "redis.pool_size."},
	{FIELD(pool, idle_timeout_seconds), .type = CONFIG_SECONDS, .initial = "600", RANGE(0, 30 * DAY),
	 .environment = "POOL_IDLE_TIMEOUT_SECONDS",
	 .help = "A connection above min_size that was idle so long is closed. 0: never."},
	{FIELD(pool, max_lifetime_seconds), .type = CONFIG_SECONDS, .initial = "3600", RANGE(0, 365 * DAY),
	 .environment = "POOL_MAX_LIFETIME_SECONDS", .help = "A connection of that age is replaced. 0: never."},

	{FIELD(embedded, path), .type = CONFIG_PATH, .initial = "", RANGE(0, 1024),
	 .help = "Folder of the embedded store. Empty: \"store\" in agent.state_dir."},
	{FIELD(embedded, sync), .type = CONFIG_WORD, .initial = "interval", .words = sync_words,
	 .help = "When writes reach the disk: always (before they are acknowledged), interval, or none "
		 "(when the kernel likes). All three survive the agent's death; the machine's, only always."},
	{FIELD(embedded, sync_interval_ms), .type = CONFIG_MS, .initial = "1000", RANGE(10, 600000),
	 .help = "Time between two synchronisations with sync = interval."},
	{FIELD(embedded, map_size), .type = CONFIG_SIZE, .initial = "64G", RANGE(1 * M, 16 * T),
	 .help = "The size the store can grow to. The file is sparse and takes only what is used."},
	{FIELD(embedded, expire_interval_ms), .type = CONFIG_MS, .initial = "1000", RANGE(10, 600000),
	 .help = "Time between two sweeps that remove expired entries."},
	{FIELD(embedded, commit_batch_max), .type = CONFIG_COUNT, .initial = "1024", RANGE(1, 65536),
	 .help = "Writes at most that share one commit."},

	{FIELD(cache, default_ttl_seconds), .type = CONFIG_SECONDS, .initial = "86400", RANGE(0, 3650 * DAY),
	 .environment = "CACHE_DEFAULT_TTL_SECONDS",
	 .help = "Life time of entries that are written without one. 0: they do not expire."},
	{FIELD(cache, max_entry_size_bytes), .type = CONFIG_SIZE, .initial = "20M", RANGE(1, 64 * M),
	 .environment = "CACHE_MAX_ENTRY_SIZE_BYTES", .below = "Maximum entry size must be greater than 0",
	 .help = "The largest value that is taken."},
	{FIELD(cache, hot_entry_limit_bytes), .type = CONFIG_SIZE, .initial = "1M", RANGE(4 * K, 64 * M),
	 .help = "Larger entries are not kept in shared memory; neither are those above a 32nd of the ring."},
	{FIELD(cache, key_prefix), .type = CONFIG_KEY_PART, .initial = "riptide", RANGE(1, 64),
	 .environment = "CACHE_KEY_PREFIX",
	 .help = "What all keys in a server begin with. Agents share entries only under equal prefixes."},
	{FIELD(cache, version), .type = CONFIG_KEY_PART, .initial = "v1", RANGE(1, 32),
	 .environment = "CACHE_VERSION", .help = "Second part of all keys. A new one begins with an empty cache."},
	{FIELD(cache, enable_compression), .type = CONFIG_BOOL, .initial = "true",
	 .environment = "CACHE_ENABLE_COMPRESSION", .environment_alias = "ENABLE_COMPRESSION",
	 .help = "Compress stored values. Hot copies in shared memory are always plain."},
	{FIELD(cache, compression_threshold_bytes), .type = CONFIG_SIZE, .initial = "1K", RANGE(0, 1 * G),
	 .environment = "CACHE_COMPRESSION_THRESHOLD_BYTES",
	 .help = "Values up to this size are stored as they are. If it is left at its default, values below 4 KiB that a "
		 "dictionary is there for are compressed from 256 bytes on."},
	{FIELD(cache, compression_algorithm), .type = CONFIG_WORD, .initial = "lz4", .words = compression_words,
	 .environment = "CACHE_COMPRESSION_ALGORITHM",
	 .help = "auto: lz4 up to 100 KiB, zstd above; zstd with a dictionary up to 16 KiB."},
	{FIELD(cache, zstd_level), .type = CONFIG_COUNT, .initial = "3", RANGE(1, 19),
	 .help = "How hard zstd tries. Each step packs a little more and takes longer; reading is as fast."},
	{FIELD(cache, lz4_acceleration), .type = CONFIG_COUNT, .initial = "1", RANGE(1, 64),
	 .help = "How much lz4 hurries. Each step is faster and packs less."},
	{FIELD(cache, eviction_policy), .type = CONFIG_WORD, .live = true, .initial = "s3fifo",
	 .words = eviction_words, .environment = "CACHE_EVICTION_POLICY",
	 .help = "What leaves shared memory first when there is no room."},
	{FIELD(cache, write_mode), .type = CONFIG_WORD, .initial = "through", .words = write_mode_words,
	 .help = "Writes that do not say how: through (acknowledged by the store) or behind (acknowledged by the "
		 "journal, stored a little later)."},
	{FIELD(cache, negative_entries_max), .type = CONFIG_COUNT, .initial = "10000", RANGE(0, 100000000),
	 .help = "Remembered absences of a tenant at most. 0: none are remembered."},
	{FIELD(cache, enable_warming), .type = CONFIG_BOOL, .initial = "true", .environment = "CACHE_ENABLE_WARMING",
	 .help = "Load the hot set of the last run at start, where shared memory itself could not be kept."},
	{FIELD(cache, warming_batch_size), .type = CONFIG_COUNT, .initial = "100", RANGE(1, 10000),
	 .environment = "CACHE_WARMING_BATCH_SIZE",
	 .help = "Keys that are under way at a time while entries are loaded before they are asked for."},
	{FIELD(cache, max_memory_bytes), .type = CONFIG_SIZE, .initial = "0", RANGE(0, 16 * T),
	 .environment = "CACHE_MAX_MEMORY_BYTES",
	 .help = "Shared memory of all tenants together. 0: half of what is free in /dev/shm at start."},
	{FIELD(cache, segment_initial_bytes), .type = CONFIG_SIZE, .initial = "1M", RANGE(64 * K, 1 * G),
	 .help = "Shared memory that a tenant begins with. It doubles up to the tenant's memory_bytes."},
	{FIELD(cache, reinsert_ratio_percent), .type = CONFIG_COUNT, .initial = "300", RANGE(0, 1000),
	 .help = "Bytes of used entries that are kept at most, per 100 bytes of new ones, when room is made."},
	{FIELD(cache, ttl_jitter_percent), .type = CONFIG_COUNT, .initial = "0", RANGE(0, 50),
	 .help = "Life times are shortened by a random part of up to this, so that entries that were "
		 "written together do not expire together."},

	{FIELD(behind, path), .type = CONFIG_PATH, .initial = "", RANGE(0, 1024),
	 .help = "Folder of the write-behind journal. Empty: \"journal\" in agent.state_dir."},
	{FIELD(behind, sync), .type = CONFIG_WORD, .initial = "interval", .words = sync_words,
	 .help = "When the journal reaches the disk: always (before a write is acknowledged), interval, or none. All "
		 "three survive the agent's death; the machine's, only always."},
	{FIELD(behind, sync_interval_ms), .type = CONFIG_MS, .initial = "1000", RANGE(10, 600000),
	 .help = "Time between two synchronisations with sync = interval."},
	{FIELD(behind, max_bytes), .type = CONFIG_SIZE, .initial = "256M", RANGE(1 * M, 16 * T),
	 .help = "Journal of one worker at most. When it is full, writes are told to retry."},
	{FIELD(behind, max_records), .type = CONFIG_COUNT, .initial = "100000", RANGE(1, 100000000),
	 .help = "Accepted writes of one worker that are not yet stored, at most."},
	{FIELD(behind, flush_records), .type = CONFIG_COUNT, .initial = "1000", RANGE(1, 100000000),
	 .help = "So many accepted writes are stored without waiting for flush_interval_ms."},
	{FIELD(behind, flush_bytes), .type = CONFIG_SIZE, .initial = "1M", RANGE(1, 1 * T),
	 .help = "So many bytes of them, likewise."},
	{FIELD(behind, flush_interval_ms), .type = CONFIG_MS, .initial = "1000", RANGE(1, 3600000),
	 .help = "How long an accepted write waits for others before it is stored."},
	{FIELD(behind, flush_window), .type = CONFIG_COUNT, .initial = "128", RANGE(1, 65536),
	 .help = "Writes on their way from the journal to the store at a time."},
	{FIELD(behind, segment_bytes), .type = CONFIG_SIZE, .initial = "16M", RANGE(64 * K, 1 * G),
	 .help = "Size of one journal file."},
	{FIELD(behind, max_replay_age_seconds), .type = CONFIG_SECONDS, .initial = "3600", RANGE(60, 30 * DAY),
	 .help = "Accepted writes that could not be stored for so long are set aside and reported. Deletes leave a "
		 "mark in the store for the same time."},

	{FIELD(spill, enabled), .type = CONFIG_BOOL, .initial = "true",
	 .help = "Keep what leaves shared memory for lack of room on disk. Used with the Redis backend; the embedded "
		 "store is on disk itself. Entries with tags are not kept there."},
	{FIELD(spill, path), .type = CONFIG_PATH, .initial = "", RANGE(0, 1024),
	 .help = "Folder of the spilled entries. Empty: \"spill\" in agent.state_dir."},
	{FIELD(spill, max_bytes), .type = CONFIG_SIZE, .initial = "1G", RANGE(8 * M, 16 * T),
	 .help = "Disk space of one worker's spilled entries; the oldest go first."},
	{FIELD(spill, read_bytes), .type = CONFIG_SIZE, .initial = "16K", RANGE(0, 64 * M),
	 .help = "Larger spilled values are read from disk once the server has confirmed their version; smaller ones "
		 "are asked of the server, and read from disk only while it is away."},
	{FIELD(spill, keep), .type = CONFIG_BOOL, .initial = "true",
	 .help = "Keep them over a restart. Either way each is compared with the store before it is used."},

	{FIELD(warming, hot_set_max), .type = CONFIG_COUNT, .initial = "100000", RANGE(0, 100000000),
	 .help = "Keys of the hot set that are noted, to be loaded at the next start. 0: none."},
	{FIELD(warming, save_interval_seconds), .type = CONFIG_SECONDS, .initial = "300", RANGE(0, 30 * DAY),
	 .help = "How often they are noted, for an agent that does not end in order. 0: only when it stops."},
	{FIELD(warming, keys_per_second), .type = CONFIG_COUNT, .initial = "20000", RANGE(1, 100000000),
	 .help = "How fast a tenant's entries are loaded before they are asked for: the hot set at start, and "
		 "what riptide_warm and riptidectl warm name, together."},

	{FIELD(dictionary, enabled), .type = CONFIG_BOOL, .initial = "true",
	 .help = "Write with zstd dictionaries where there are any, and sample values to train them from: those that "
		 "are written with zstd or auto. What was written with one is read either way."},
	{FIELD(dictionary, auto_train), .type = CONFIG_BOOL, .initial = "false",
	 .help = "Train one for each tenant and content type as soon as there are enough samples. Otherwise "
		 "riptidectl dict train does."},
	{FIELD(dictionary, size_bytes), .type = CONFIG_SIZE, .initial = "112K", RANGE(1 * K, 112 * K),
	 .help = "Size of a dictionary at most; it is no larger than a tenth of its samples either."},
	{FIELD(dictionary, sample_bytes), .type = CONFIG_SIZE, .initial = "2M", RANGE(64 * K, 64 * M),
	 .help = "Samples that are kept of one tenant and content type, of at most 16 such pairs."},
	{FIELD(dictionary, train_samples_min), .type = CONFIG_COUNT, .initial = "500", RANGE(10, 1000000),
	 .help = "So many samples are enough to train from; half of sample_bytes of large ones are, too."},
	{FIELD(dictionary, retrain_seconds), .type = CONFIG_SECONDS, .initial = "604800", RANGE(0, 3650 * DAY),
	 .help = "With auto_train a dictionary of that age gives way to one of newer samples. Old ones are kept in the "
		 "backend, for entries may name them. 0: never."},
	{FIELD(dictionary, refresh_seconds), .type = CONFIG_SECONDS, .initial = "60", RANGE(1, DAY),
	 .help = "How often the backend is asked what other agents have trained or dropped, and whether it still has "
		 "those in use."},

	{FIELD(coherence, mode), .type = CONFIG_WORD, .initial = "auto", .words = coherence_words,
	 .help = "How changes that others make in Redis reach hot copies. tracking: the server tells each one; channel: "
		 "agents tell each other; ttl: copies live by max_age_ms. auto: the first of these that the server can do."},
	{FIELD(coherence, max_age_ms), .type = CONFIG_MS, .initial = "1000", RANGE(1, 3600000),
	 .help = "How long a hot copy of a value from Redis is used before the server is asked again, where the server "
		 "does not tell of changes; with tracking only copies of keys above 400 bytes live by it."},
	{FIELD(coherence, lease_ms), .type = CONFIG_MS, .initial = "2000", RANGE(100, 60000),
	 .help = "How long readers trust shared memory after the last proof that all changes have arrived, or without a "
		 "sign of life from the agent. No value that was replaced longer ago is read as verified."},
	{FIELD(coherence, stale_policy), .type = CONFIG_WORD, .initial = "stale", .words = stale_words,
	 .help = "What a read gets that finds only a copy that cannot be verified: a miss, the stale copy "
		 "(marked), or an error."},
	{FIELD(coherence, stale_limit_ms), .type = CONFIG_MS, .initial = "60000", RANGE(0, 30 * DAY * 1000),
	 .help = "No copy is served as stale for longer than this."},

	{FIELD(tenancy, enabled), .type = CONFIG_BOOL, .initial = "true", .environment = "TENANT_ENABLED",
	 .environment_alias = "ENABLE_MULTI_TENANCY",
	 .help = "Serve tenants of their own keys, memory and users. false: only the tenant \"default\"."},
	{FIELD(tenancy, max_tenants), .type = CONFIG_COUNT, .initial = "1000", RANGE(0, 100000),
	 .environment = "TENANT_MAX_TENANTS", .help = "Tenants at most, \"default\" included."},
	{FIELD(tenancy, isolation_level), .type = CONFIG_WORD, .initial = "strong", .words = isolation_words,
	 .environment = "TENANT_ISOLATION_LEVEL",
	 .help = "Isolation of a tenant that is created without saying which."},
	{FIELD(tenancy, enable_encryption), .type = CONFIG_BOOL, .initial = "true",
	 .environment = "TENANT_ENABLE_ENCRYPTION",
	 .help = "A tenant of isolation strong that is created without a word about encryption encrypts, where there is a "
		 "master key (encryption.master_key_file)."},
	{FIELD(tenancy, administrators), .type = CONFIG_KEY_PART, .initial = "", RANGE(0, 64),
	 .help = "A group whose members may create and change tenants, besides root and the agent's own user. Who "
		 "belongs to it is looked up when the agent starts."},
	{FIELD(tenancy, default_memory_bytes), .type = CONFIG_SIZE, .initial = "0", RANGE(0, 16 * T),
	 .help = "The quota memory_bytes of a created tenant that has none of its own and is not of the plan custom. "
		 "0: none."},
	{FIELD(tenancy, default_operations_per_minute), .type = CONFIG_COUNT, .initial = "0", RANGE(0, 4000000000),
	 .help = "The same of operations_per_minute."},
	{FIELD(tenancy, default_data_transfer_bytes), .type = CONFIG_SIZE, .initial = "0", RANGE(0, 1024 * T),
	 .help = "The same of data_transfer_bytes, in a calendar month."},
	{FIELD(tenancy, idle_seconds), .type = CONFIG_SECONDS, .initial = "600", RANGE(1, 30 * DAY),
	 .help = "A created tenant that no process uses gives its shared memory back after this time."},

	{FIELD(encryption, master_key_file), .type = CONFIG_PATH, .initial = "", RANGE(0, 4095),
	 .help = "The key that wraps the keys of tenants that encrypt: a file of 32 bytes or 64 hex digits that only "
		 "root or the agent's user can read. Empty: the service manager's credential riptide-master-key, if "
		 "there is one."},
	{FIELD(encryption, former_master_key_file), .type = CONFIG_PATH, .initial = "", RANGE(0, 4095),
	 .help = "The master key of before, until riptidectl tenant rewrap has wrapped every tenant's keys anew."},

	{FIELD(limits, inflight_max), .type = CONFIG_COUNT, .initial = "65536", RANGE(64, 1048576),
	 .help = "Operations under way in one worker; further ones are told to retry."},
	{FIELD(limits, max_clients), .type = CONFIG_COUNT, .initial = "1024", RANGE(1, 65536),
	 .help = "Client processes at most."},
	{FIELD(limits, attaches_per_second_per_uid), .type = CONFIG_COUNT, .initial = "200", RANGE(1, 1000000),
	 .help = "Attaches a second of one user; further ones are told to retry."},
	{FIELD(limits, channels_per_uid), .type = CONFIG_COUNT, .initial = "256", RANGE(1, 65536),
	 .help = "Client processes of one user at most."},
	{FIELD(limits, connections_per_uid), .type = CONFIG_COUNT, .initial = "64", RANGE(1, 65536),
	 .help = "Open control connections of one user at most."},
	{FIELD(limits, bells_per_second), .type = CONFIG_COUNT, .initial = "100000", RANGE(1, 100000000),
	 .help = "Wake-ups a second that one client may cause."},
	{FIELD(limits, worker_staging_bytes), .type = CONFIG_SIZE, .initial = "64M", RANGE(1 * M, 1 * T),
	 .help = "Memory of a worker for requests under way."},
	{FIELD(limits, tenant_staging_bytes), .type = CONFIG_SIZE, .initial = "32M", RANGE(1 * M, 1 * T),
	 .help = "The part of it that one tenant can take."},
	{FIELD(limits, channel_staging_bytes), .type = CONFIG_SIZE, .initial = "24M", RANGE(64 * K, 16 * G),
	 .help = "The same for one client process, so that it cannot take all of its tenant's."},
	{FIELD(limits, piece_timeout_ms), .type = CONFIG_MS, .initial = "5000", RANGE(100, 600000),
	 .help = "A large value whose next piece does not come within this time is given up."},
	{FIELD(limits, requests_per_turn), .type = CONFIG_COUNT, .initial = "16", RANGE(1, 1024),
	 .help = "Requests taken from one client before the next one has its turn."},
	{FIELD(limits, bytes_per_turn), .type = CONFIG_SIZE, .initial = "256K", RANGE(4 * K, 1 * G),
	 .help = "Bytes taken from one client before the next one has its turn."},
	{FIELD(limits, control_message_bytes), .type = CONFIG_SIZE, .initial = "1M", RANGE(1 * K, 64 * M),
	 .help = "The largest question on the control socket."},
	{FIELD(limits, control_answer_bytes), .type = CONFIG_SIZE, .initial = "16M", RANGE(4 * K, 16 * M),
	 .help = "The largest answer: a thousand open tenants take about 1.5M in the metrics."},
	{FIELD(limits, handshake_timeout_ms), .type = CONFIG_MS, .initial = "2000", RANGE(10, 60000),
	 .help = "How long a new connection may take to say what it wants."},

	{FIELD(performance, target_cache_access_ms), .type = CONFIG_MS, .initial = "5", RANGE(1, 100),
	 .environment = "PERF_TARGET_CACHE_ACCESS_MS", .below = "Target cache access time must be greater than 0",
	 .above = "Target cache access time should be less than 100ms for optimal performance",
	 .help = "Accesses that took longer are counted as having missed the target."},
	{FIELD(performance, slow_threshold_ms), .type = CONFIG_MS, .initial = "100", RANGE(1, 3600000),
	 .environment = "PERF_SLOW_THRESHOLD_MS", .help = "Requests that took longer are written to the log."},
	{FIELD(performance, enable_slow_log), .type = CONFIG_BOOL, .initial = "true",
	 .environment = "PERF_ENABLE_SLOW_LOG", .help = "Whether slow requests are written to the log."},

	{FIELD(security, enable_audit_logging), .type = CONFIG_BOOL, .initial = "true",
	 .environment = "SECURITY_ENABLE_AUDIT_LOGGING",
	 .help = "Note who attached, who was refused and what operators did: a line each, in a file a day of the folder "
		 "\"audit\" in agent.state_dir. riptidectl audit shows the last ones."},
	{FIELD(security, audit_retention_days), .type = CONFIG_COUNT, .initial = "30", RANGE(1, 3650),
	 .environment = "SECURITY_AUDIT_RETENTION_DAYS",
	 .help = "Files of days before that are removed. Today's comes on top."},
	{FIELD(security, audit_to_log), .type = CONFIG_BOOL, .initial = "false",
	 .help = "Write the same to the log too, at level info, from where the journal can send it elsewhere."},
};

static const struct config_option tenant_options[] = {
	{TENANT_FIELD(users), .type = CONFIG_LIST, .initial = "", RANGE(0, 256),
	 .help = "Users that may attach, by name or number."},
	{TENANT_FIELD(groups), .type = CONFIG_LIST, .initial = "", RANGE(0, 256),
	 .help = "Groups whose members may attach, by name or number."},
	{TENANT_FIELD(memory_bytes), .type = CONFIG_SIZE, .initial = "0", RANGE(0, 16 * T),
	 .help = "What the ring of the tenant's hot entries may grow to; its index takes a twelfth more. 0: to "
		 "cache.max_memory_bytes."},
	{TENANT_FIELD(default_ttl_seconds), .type = CONFIG_SECONDS, .inherits = "cache.default_ttl_seconds",
	 RANGE(0, 3650 * DAY), .help = "As cache.default_ttl_seconds, for this tenant."},
	{TENANT_FIELD(write_mode), .type = CONFIG_WORD, .inherits = "cache.write_mode", .words = write_mode_words,
	 .help = "As cache.write_mode, for this tenant."},
	{TENANT_FIELD(eviction_policy), .type = CONFIG_WORD, .live = true, .inherits = "cache.eviction_policy",
	 .words = eviction_words, .help = "As cache.eviction_policy, for this tenant."},
	{TENANT_FIELD(stale_policy), .type = CONFIG_WORD, .inherits = "coherence.stale_policy", .words = stale_words,
	 .help = "As coherence.stale_policy, for this tenant."},
};

const struct config_option *config_options(size_t *ret_count)
{
	*ret_count = sizeof(options) / sizeof(options[0]);
	return options;
}

const struct config_option *config_tenant_options(size_t *ret_count)
{
	*ret_count = sizeof(tenant_options) / sizeof(tenant_options[0]);
	return tenant_options;
}

const struct config_option *config_option_find(const char *name)
{
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		if (strcmp(options[i].name, name) == 0)
			return &options[i];
	}
	return NULL;
}
