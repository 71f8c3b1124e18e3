/*
 * redis.h - the backend that keeps entries in a Redis or Valkey server: a pool of connections on the worker's loop.
 *
 * Commands of all clients share the connections and leave in one send per connection and turn of the loop. A server that
 * is absent, gone or hangs never stops the agent: requests fail fast with RSHM_E_AGAIN, and the pool reconnects for ever.
 * README.md tells what is retried, what is not, and what a lost write connection means.
 */
#ifndef RIPTIDE_STORE_REDIS_H
#define RIPTIDE_STORE_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct metric_set;
struct store;
struct redis_node;
struct text;

/* How changes by others are noticed (store_watch()). */
enum store_redis_coherence {
	STORE_REDIS_AUTO,     /* the best that the server at hand can do */
	STORE_REDIS_TRACKING, /* CLIENT TRACKING; where the server cannot, as TTL, and the log says so */
	STORE_REDIS_CHANNEL,  /* PUBLISH and SUBSCRIBE among agents */
	STORE_REDIS_TTL,
};

/* Everything has a default: STORE_REDIS_CONFIG_DEFAULTS. Texts are copied. Live = taken over by reload. */
struct store_redis_config {
	const char *url;        /* of url.h or sentinel.h */
	const char *key_prefix; /* of keys.h, as is the next */
	uint32_t key_version;
	uint32_t pool_min;        /* connections that stay open, 0 .. pool_max */
	uint32_t pool_max;        /* connections at most, 1 .. STORE_REDIS_POOL_MAX */
	uint64_t idle_timeout_ms; /* live: connections above pool_min, unused so long, are closed; 0 = never */
	uint64_t lifetime_ms;     /* live: a connection of that age is replaced, up to a tenth earlier; 0 = never */
	uint64_t connect_timeout_ms; /* live: for name, connect, log-in */
	uint64_t command_timeout_ms; /* live: a command sent so long ago and not answered ends its connection */
	uint64_t
		connect_grace_ms; /* live: how long requests wait for a connection before they fail with RSHM_E_AGAIN */
	uint32_t retry_attempts;     /* live: further tries of a read, or of a write that cannot have been executed */
	uint64_t retry_delay_ms;     /* live: before the first; doubles, with jitter */
	uint64_t retry_max_delay_ms; /* live: of requests and of connecting */
	bool enable_pipelining;      /* live: false is a max_pipeline_size of 1 */
	uint32_t max_pipeline_size;  /* live: requests in flight on one connection */
	uint32_t queue_max;          /* live: requests that wait to be sent; beyond: RSHM_E_AGAIN */
	enum store_redis_coherence coherence;
	const char *watch_tenant; /* lent: only changes of this tenant are asked for; NULL: all */
	uint64_t
		sentinel_refresh_ms; /* between two questions to sentinels when nothing is amiss; a tenth more or less */
	uint64_t sentinel_retry_ms;    /* between two questions at least, while something is amiss */
	uint64_t lease_ms;             /* of the watcher: canaries come every quarter of it, 500 ms at most */
	size_t envelope_max;           /* bytes of an envelope; larger ones are neither written nor read */
	const struct redis_node *node; /* of node.h, lent: this server is a node of a cluster; else NULL */
};

#define STORE_REDIS_POOL_MAX 1024u

#define STORE_REDIS_CONFIG_DEFAULTS                                                                                  \
	{                                                                                                            \
		.url = "redis://localhost:6379", .key_prefix = "riptide", .key_version = 1, .pool_min = 2,           \
		.pool_max = 10, .idle_timeout_ms = 600000, .lifetime_ms = 3600000, .connect_timeout_ms = 5000,       \
		.command_timeout_ms = 5000, .connect_grace_ms = 250, .retry_attempts = 3, .retry_delay_ms = 100,     \
		.retry_max_delay_ms = 2000, .enable_pipelining = true, .max_pipeline_size = 100, .queue_max = 16384, \
		.envelope_max = 21u << 20, .lease_ms = 2000, .sentinel_refresh_ms = 10000, .sentinel_retry_ms = 200  \
	}

/* What store_redis_metrics() counts. */
enum store_redis_metric {
	STORE_REDIS_REQUESTS,
	STORE_REDIS_FAILED,
	STORE_REDIS_RETRIED,
	STORE_REDIS_REFUSED_QUEUE,
	STORE_REDIS_UNKNOWN_WRITES,
	STORE_REDIS_TIMEOUTS,
	STORE_REDIS_CONNECTS,
	STORE_REDIS_CONNECT_FAILURES,
	STORE_REDIS_CONNECTIONS_LOST,
	STORE_REDIS_PROTOCOL_ERRORS,
	STORE_REDIS_KILLS,
	STORE_REDIS_BYTES_SENT,
	STORE_REDIS_BYTES_RECEIVED,
	STORE_REDIS_SENDS,
	STORE_REDIS_METRICS
};

/*
 * Makes the store of the worker that runs `loop`, on its thread, and begins to connect; a server that is not there is no
 * error. On failure `error` (of `error_size` bytes, at least 1) gets one line without secrets. reload() takes a struct
 * store_redis_config whose url, prefix, pool sizes and envelope_max are not looked at.
 * RSHM_E_INVALID (configuration), RSHM_E_NOMEM.
 */
int store_redis_create(uv_loop_t *loop, const struct store_redis_config *config, struct store **ret, char *error,
		       size_t error_size);

/* What store_redis_create() says of a configuration, but for its URL, as one line in `error`. RSHM_E_INVALID. */
int store_redis_check(const struct store_redis_config *config, struct text *error);

/* Lent for the life of the store; may be read from any thread meanwhile. */
const struct metric_set *store_redis_metrics(const struct store *store);

#endif
