#include "tests/support/redis_sentinel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#include "tests/support/e2e.h"

#define START_MS 30000
#define TRIES 3

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static redisReply *ask(const struct redis_server *server, const char *command)
{
	const struct timeval patience = {.tv_sec = 2};
	redisContext *redis;
	redisReply *reply = NULL;

	if (server->pid <= 0)
		return NULL;
	redis = redisConnectUnixWithTimeout(server->unix_path, patience);
	if (redis != NULL && redis->err == 0) {
		(void)redisSetTimeout(redis, patience);
		reply = redisCommand(redis, command);
	}
	if (redis != NULL)
		redisFree(redis);
	return reply;
}

static bool says(const struct redis_server *server, const char *command, const char *what)
{
	redisReply *reply = ask(server, command);
	bool found = reply != NULL && reply->str != NULL && strstr(reply->str, what) != NULL;

	if (reply != NULL)
		freeReplyObject(reply);
	return found;
}

/* The port of the master as a sentinel says; 0: it says nothing. */
static unsigned long master_port(const struct redis_server *sentinel)
{
	redisReply *reply = ask(sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME " REDIS_SENTINEL_MASTER);
	unsigned long port = 0;

	if (reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2)
		port = strtoul(reply->element[1]->str, NULL, 10);
	if (reply != NULL)
		freeReplyObject(reply);
	return port;
}

int redis_sentinel_master(const struct redis_sentinel *group)
{
	unsigned long port = 0;

	for (uint32_t i = 0; i < REDIS_SENTINEL_SENTINELS; i++) {
		unsigned long said = master_port(&group->sentinels[i]);

		if (group->sentinels[i].pid > 0 && (said == 0 || (port != 0 && said != port)))
			return -1;
		port = said ? said : port;
	}
	for (uint32_t i = 0; i < REDIS_SENTINEL_SERVERS; i++)
		if (group->servers[i].port == port)
			return (int)i;
	return -1;
}

int redis_sentinel_await_replaced(const struct redis_sentinel *group, int old, long patience_ms)
{
	uint64_t until_ms = e2e_now_ms() + (uint64_t)patience_ms;

	while (e2e_now_ms() < until_ms) {
		int master = redis_sentinel_master(group);

		if (master >= 0 && master != old && says(&group->servers[master], "INFO replication", "role:master"))
			return master;
		e2e_pause_ms(20);
	}
	fprintf(stderr, "redis sentinel: the master was not replaced\n");
	return -1;
}

static bool is_only_master(const struct redis_sentinel *group, int master)
{
	for (uint32_t i = 0; i < REDIS_SENTINEL_SERVERS; i++)
		if (group->servers[i].pid > 0 && (int)i != master &&
		    !says(&group->servers[i], "INFO replication", "role:slave"))
			return false;
	return master >= 0;
}

int redis_sentinel_await_one_master(const struct redis_sentinel *group, long patience_ms)
{
	uint64_t until_ms = e2e_now_ms() + (uint64_t)patience_ms;

	while (e2e_now_ms() < until_ms) {
		if (is_only_master(group, redis_sentinel_master(group)))
			return 0;
		e2e_pause_ms(20);
	}
	fprintf(stderr, "redis sentinel: there are several masters\n");
	return -1;
}

int redis_sentinel_failover(const struct redis_sentinel *group)
{
	for (uint32_t i = 0; i < REDIS_SENTINEL_SENTINELS; i++)
		if (says(&group->sentinels[i], "SENTINEL FAILOVER " REDIS_SENTINEL_MASTER, "OK"))
			return 0;
	return -1;
}

static bool is_whole(const struct redis_sentinel *group)
{
	int master = redis_sentinel_master(group);
	char link[64];

	if (master < 0 || !says(&group->servers[master], "INFO replication", "role:master"))
		return false;
	snprintf(link, sizeof(link), "master_port:%u", (unsigned)group->servers[master].port);
	for (uint32_t i = 0; i < REDIS_SENTINEL_SERVERS; i++) {
		const struct redis_server *server = &group->servers[i];

		if (server->pid > 0 && (int)i != master &&
		    !(says(server, "INFO replication", link) &&
		      says(server, "INFO replication", "master_link_status:up")))
			return false;
	}
	/* They know each other, and a replica to promote. */
	for (uint32_t i = 0; i < REDIS_SENTINEL_SENTINELS; i++)
		if (group->sentinels[i].pid > 0 &&
		    (!says(&group->sentinels[i], "SENTINEL CKQUORUM " REDIS_SENTINEL_MASTER, "OK") ||
		     !says(&group->sentinels[i], "INFO sentinel", "status=ok") ||
		     !says(&group->sentinels[i], "INFO sentinel", "slaves=2,sentinels=3")))
			return false;
	return true;
}

int redis_sentinel_await_whole(const struct redis_sentinel *group, long patience_ms)
{
	uint64_t until_ms = e2e_now_ms() + (uint64_t)patience_ms;

	while (e2e_now_ms() < until_ms) {
		if (is_whole(group))
			return 0;
		e2e_pause_ms(50);
	}
	fprintf(stderr, "redis sentinel: servers and sentinels do not agree\n");
	return -1;
}

/* ---- beginning and ending -------------------------------------------------------------------------------------- */

/*
 * A sentinel is the same program with a file that it keeps its knowledge in, in memory: it waits for each fsync() of it, and one
 * that waits for seconds, on a disk that others write to, does nothing for half a minute then (tilt), or two are elected.
 */
static int start_sentinel(struct redis_server *sentinel, uint16_t master_port, unsigned int down_ms)
{
	char path[128];
	FILE *file;

	if (redis_server_prepare_in(sentinel, "/dev/shm") != 0)
		return -1;
	sentinel->port = redis_server_free_port();
	snprintf(path, sizeof(path), "%s/sentinel.conf", sentinel->folder);
	file = fopen(path, "w");
	if (file == NULL)
		return -1;
	fprintf(file,
		"bind 127.0.0.1\nport %u\ndir %s\nlogfile %s/sentinel.log\nunixsocket %s\n"
		"sentinel monitor " REDIS_SENTINEL_MASTER " 127.0.0.1 %u 2\n"
		"sentinel down-after-milliseconds " REDIS_SENTINEL_MASTER " %u\n"
		"sentinel failover-timeout " REDIS_SENTINEL_MASTER " 3000\n"
		"sentinel parallel-syncs " REDIS_SENTINEL_MASTER " 2\n",
		(unsigned)sentinel->port, sentinel->folder, sentinel->folder, sentinel->unix_path,
		(unsigned)master_port, down_ms);
	if (fclose(file) != 0)
		return -1;
	for (size_t i = 1; sentinel->args[i] != NULL; i++) {
		free(sentinel->args[i]);
		sentinel->args[i] = NULL;
	}
	sentinel->args[1] = strdup(path);
	sentinel->args[2] = strdup("--sentinel");
	return redis_server_restart(sentinel);
}

static int start_server(struct redis_sentinel *group, uint32_t i, const char *const arguments[])
{
	const char *a[4] = {NULL};
	char port[8];

	for (size_t n = 0; n < 4 && arguments != NULL && arguments[n] != NULL; n++)
		a[n] = arguments[n];
	if (i == 0)
		return redis_server_start_tcp(&group->servers[0], "--repl-diskless-sync-delay", "0",
					      "--repl-ping-replica-period", "1", a[0], a[1], a[2], a[3], NULL);
	snprintf(port, sizeof(port), "%u", (unsigned)group->servers[0].port);
	return redis_server_start_tcp(&group->servers[i], "--replicaof", "127.0.0.1", port,
				      "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", a[0],
				      a[1], a[2], a[3], NULL);
}

static int try_start(struct redis_sentinel *group, unsigned int down_ms, const char *const arguments[])
{
	memset(group, 0, sizeof(*group));
	for (uint32_t i = 0; i < REDIS_SENTINEL_SERVERS; i++)
		if (start_server(group, i, arguments) != 0)
			return -1;
	for (uint32_t i = 0; i < REDIS_SENTINEL_SENTINELS; i++)
		if (start_sentinel(&group->sentinels[i], group->servers[0].port, down_ms) != 0)
			return -1;
	snprintf(group->url, sizeof(group->url),
		 "redis+sentinel://127.0.0.1:%u,127.0.0.1:%u,127.0.0.1:%u/" REDIS_SENTINEL_MASTER,
		 (unsigned)group->sentinels[0].port, (unsigned)group->sentinels[1].port,
		 (unsigned)group->sentinels[2].port);
	return redis_sentinel_await_whole(group, START_MS);
}

int redis_sentinel_start(struct redis_sentinel *group, unsigned int down_ms, const char *const arguments[])
{
	/* Somebody else may take a port in between. */
	for (int i = 0; i < TRIES; i++) {
		if (try_start(group, down_ms, arguments) == 0)
			return 0;
		redis_sentinel_stop(group);
	}
	return -1;
}

void redis_sentinel_stop(struct redis_sentinel *group)
{
	for (uint32_t i = 0; i < REDIS_SENTINEL_SENTINELS; i++)
		redis_server_stop(&group->sentinels[i]);
	for (uint32_t i = 0; i < REDIS_SENTINEL_SERVERS; i++)
		redis_server_stop(&group->servers[i]);
}
