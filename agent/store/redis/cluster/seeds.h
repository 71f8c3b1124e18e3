/*
 * seeds.h - where a cluster is first asked, read from a URL.
 *
 *	redis+cluster://[[user]:password@]host[:port][,host[:port]...]
 *
 * User, password and hosts as in url.h; all nodes have the same login. A cluster has one database, so none is named.
 */
#ifndef RIPTIDE_STORE_REDIS_CLUSTER_SEEDS_H
#define RIPTIDE_STORE_REDIS_CLUSTER_SEEDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/text.h"
#include "agent/store/redis/cluster/slots.h"

#define CLUSTER_SEEDS_MAX 16u
#define CLUSTER_SCHEME "redis+cluster://"

struct cluster_seeds {
	uint32_t count;
	struct cluster_endpoint endpoints[CLUSTER_SEEDS_MAX];
	char user[256], password[1024]; /* as in struct redis_url */
};

/* RSHM_OK, or RSHM_E_INVALID with a sentence in `error` that repeats nothing of the URL. Afterwards cluster_seeds_wipe(). */
int cluster_seeds_parse(const char *url, struct cluster_seeds *ret, struct text *error);

/* The seeds as a URL without user and password. */
void cluster_seeds_describe(const struct cluster_seeds *seeds, struct text *text);

/* The URL of one node, with the login: a secret. False: it does not fit. */
bool cluster_seeds_node_url(const struct cluster_seeds *seeds, const struct cluster_endpoint *node, char *ret,
			    size_t size);

void cluster_seeds_wipe(struct cluster_seeds *seeds);

#endif
