/*
 * redis_cluster.h - a real Redis Cluster for a test: three masters and three replicas on ephemeral ports of 127.0.0.1.
 *
 * Made with Debian's redis-server and redis-cli. Everything blocks, with a bound. The servers die with the test;
 * redis_cluster_stop() leaves nothing behind. Return 0 unless said, or -1 after a line on stderr. Servers are named by
 * their place in `servers`: the first three are masters at first.
 */
#ifndef TESTS_SUPPORT_REDIS_CLUSTER_H
#define TESTS_SUPPORT_REDIS_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/support/redis_server.h"

#define REDIS_CLUSTER_SERVERS 6u
#define REDIS_CLUSTER_MASTERS 3u
#define REDIS_CLUSTER_SLOTS 16384u

struct redis_cluster {
	struct redis_server servers[REDIS_CLUSTER_SERVERS];
	char ids[REDIS_CLUSTER_SERVERS][41]; /* that the servers gave themselves */
	char url[256];                       /* redis+cluster://, of the three masters */
};

/* Whether redis-server and redis-cli are there. */
bool redis_cluster_is_installed(void);

/* Further arguments of each server, as of redis_server_start(), end with NULL. */
int redis_cluster_start(struct redis_cluster *cluster, const char *const arguments[]);
void redis_cluster_stop(struct redis_cluster *cluster);

/* Waits until all servers that run find the cluster whole, and agree on who has what. */
int redis_cluster_await_whole(const struct redis_cluster *cluster, long patience_ms);

/* The server that has the slot, as most of those that run say; -1: none. */
int redis_cluster_owner(const struct redis_cluster *cluster, uint32_t slot);
/* A running replica of a master, or -1. */
int redis_cluster_replica_of(const struct redis_cluster *cluster, int master);

/* Moving a slot, in the steps of redis-cli: announced, some keys or all, done. `redis_cluster_move_keys` returns how many. */
int redis_cluster_begin_move(const struct redis_cluster *cluster, uint32_t slot, int from, int to);
int redis_cluster_move_keys(const struct redis_cluster *cluster, uint32_t slot, int from, int to, int most);
int redis_cluster_end_move(const struct redis_cluster *cluster, uint32_t slot, int from, int to);

/* What a command of a test's own connection answers, as an integer; -1: something else. `format` as of redisCommand(). */
long long redis_cluster_ask(const struct redis_cluster *cluster, int server, const char *format, ...);

#endif
