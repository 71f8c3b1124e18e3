/*
 * sentinel.h - which sentinels watch a master, read from a URL, and what they say of it.
 *
 *	redis+sentinel://[[user]:password@]host[:port][,host[:port]...]/name[/db]
 *
 * User, password and hosts as in url.h; the login is that of the servers, sentinels are asked without one. The port is
 * 26379 if absent. `name` is what the sentinels call the master: A-Z a-z 0-9 . - _. All functions: any thread, never block.
 */
#ifndef RIPTIDE_STORE_REDIS_SENTINEL_H
#define RIPTIDE_STORE_REDIS_SENTINEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/text.h"
#include "agent/store/redis/reply.h"
#include "agent/store/redis/url.h"

#define REDIS_SENTINEL_SCHEME "redis+sentinel://"
#define REDIS_SENTINELS_MAX 16u
#define REDIS_MASTER_NAME_MAX 64u

struct redis_address {
	char host[256]; /* without brackets */
	uint16_t port;
};

struct redis_sentinel_list {
	uint32_t count;
	struct redis_address addresses[REDIS_SENTINELS_MAX];
	char master[REDIS_MASTER_NAME_MAX + 1];
};

/* What a sentinel says. Believed is the one with the highest epoch: it grows with each failover. */
struct redis_sentinel_word {
	struct redis_address master;
	uint64_t epoch;
	bool down;         /* the sentinel itself holds it to be down: it names it, and does not vouch for it */
	bool failing_over; /* of the leader: the epoch may be the next master's already, the address is the last one's */
};

bool redis_sentinel_is_meant(const char *url);

/*
 * RSHM_OK: the sentinels, and in ret_server login and database of a server whose host is not known yet ("").
 * RSHM_E_INVALID with a sentence in `error` that repeats nothing of the URL. Afterwards redis_url_wipe() ret_server.
 */
int redis_sentinel_parse(const char *url, struct redis_sentinel_list *ret, struct redis_url *ret_server,
			 struct text *error);

/* "host:port". */
void redis_address_describe(const struct redis_address *address, struct text *text);

/* Reads the answer to SENTINEL MASTER, a tree. False: it is none, or its address cannot be. */
bool redis_sentinel_read(const struct redis_reply *reply, struct redis_sentinel_word *ret);

#endif
