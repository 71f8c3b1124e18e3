/*
 * redis_sentinel.h - a real master with two replicas, watched by three real sentinels, on ephemeral ports of 127.0.0.1.
 *
 * Made with Debian's redis-server. Everything blocks, with a bound. All die with the test; redis_sentinel_stop() leaves
 * nothing behind. Return 0 unless said, or -1 after a line on stderr. Servers and sentinels are named by their places; server
 * 0 is the master at first. Two sentinels must hold it to be down before they replace it.
 */
#ifndef TESTS_SUPPORT_REDIS_SENTINEL_H
#define TESTS_SUPPORT_REDIS_SENTINEL_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/support/redis_server.h"

#define REDIS_SENTINEL_SERVERS 3u
#define REDIS_SENTINEL_SENTINELS 3u
#define REDIS_SENTINEL_MASTER "main"

struct redis_sentinel {
	struct redis_server servers[REDIS_SENTINEL_SERVERS];
	struct redis_server sentinels[REDIS_SENTINEL_SENTINELS];
	char url[256]; /* redis+sentinel://, of all three */
};

/*
 * A master that is silent for `down_ms` is held to be down: more than processes here may have to wait for a CPU. Further
 * arguments of each server, as of redis_server_start(), end with NULL.
 */
int redis_sentinel_start(struct redis_sentinel *group, unsigned int down_ms, const char *const arguments[]);
void redis_sentinel_stop(struct redis_sentinel *group);

/*
 * Waits until all servers and sentinels that run agree on a master that runs, replicas follow it, and sentinels would replace
 * it.
 */
int redis_sentinel_await_whole(const struct redis_sentinel *group, long patience_ms);

/* The server that the sentinels that run hold to be the master; -1: they disagree, or none runs. */
int redis_sentinel_master(const struct redis_sentinel *group);
/* Waits until it is another one than `old`, which says so itself. Returns it, or -1. */
int redis_sentinel_await_replaced(const struct redis_sentinel *group, int old, long patience_ms);
/* Waits until all that run but the master say that they are replicas: two may be promoted, and an old one knows nothing. */
int redis_sentinel_await_one_master(const struct redis_sentinel *group, long patience_ms);
/* Replaces the master that runs, in good order. 0: it has begun. */
int redis_sentinel_failover(const struct redis_sentinel *group);

#endif
