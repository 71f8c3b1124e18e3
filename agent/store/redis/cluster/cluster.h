/*
 * cluster.h - the backend that keeps entries in a Redis Cluster: one store of redis.h per master, and the map of slots.
 *
 * Each request has one key and goes to the master that has the key's slot. What a failure means stands in ../README.md; a slot
 * without a living master is RSHM_E_AGAIN until the map has a new one.
 */
#ifndef RIPTIDE_STORE_REDIS_CLUSTER_H
#define RIPTIDE_STORE_REDIS_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "agent/store/redis/redis.h"

struct store_cluster_config {
	struct store_redis_config
		node;           /* of each node; `url` is that of the cluster: seeds.h. `node` is not looked at */
	uint64_t refresh_ms;    /* between two looks at the slot map when nothing is amiss; a tenth more or less */
	uint32_t redirects_max; /* how often a request is sent on before it fails with RSHM_E_AGAIN; 1 .. 1000 */
};

#define STORE_CLUSTER_CONFIG_DEFAULTS                                                        \
	{                                                                                    \
		.node = STORE_REDIS_CONFIG_DEFAULTS, .refresh_ms = 10000, .redirects_max = 5 \
	}

/* What store_cluster_metrics() counts. */
enum store_cluster_metric {
	STORE_CLUSTER_MOVED,
	STORE_CLUSTER_ASKED,
	STORE_CLUSTER_REFRESHES,
	STORE_CLUSTER_REFRESH_FAILURES,
	STORE_CLUSTER_CHANGES,
	STORE_CLUSTER_UNROUTED,
	STORE_CLUSTER_METRICS
};

/* Whether the URL asks for this backend. */
bool store_cluster_is_meant(const char *url);

/*
 * As store_redis_create(): on the worker's thread, begins to look for the cluster; its absence is no error. reload() takes a
 * struct store_cluster_config.
 */
int store_cluster_create(uv_loop_t *loop, const struct store_cluster_config *config, struct store **ret, char *error,
			 size_t error_size);

/* Lent for the life of the store; may be read from any thread meanwhile. */
const struct metric_set *store_cluster_metrics(const struct store *store);

#endif
