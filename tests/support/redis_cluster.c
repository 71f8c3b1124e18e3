#include "tests/support/redis_cluster.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#define CLUSTER_START_MS 30000
#define CLUSTER_TRIES 3
#define CLUSTER_ARGUMENTS 8
#define COMMAND_TIMEOUT_MS 2000
#define MOVE_AGREE_MS 10000

static void sleep_ms(long ms)
{
	struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&pause, NULL);
}

bool redis_cluster_is_installed(void)
{
	return redis_server_is_installed() &&
	       (access("/usr/bin/redis-cli", X_OK) == 0 || access("/usr/local/bin/redis-cli", X_OK) == 0);
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static redisReply *ask_v(const struct redis_cluster *cluster, int server, const char *format, va_list arguments)
{
	struct timeval patience = {.tv_sec = COMMAND_TIMEOUT_MS / 1000, .tv_usec = COMMAND_TIMEOUT_MS % 1000 * 1000};
	redisContext *redis = redisConnectUnixWithTimeout(cluster->servers[server].unix_path, patience);
	redisReply *reply = NULL;

	if (redis != NULL && redis->err == 0) {
		(void)redisSetTimeout(redis, patience);
		reply = redisvCommand(redis, format, arguments);
	}
	if (redis != NULL)
		redisFree(redis);
	return reply;
}

static redisReply *ask(const struct redis_cluster *cluster, int server, const char *format, ...)
{
	va_list arguments;
	redisReply *reply;

	va_start(arguments, format);
	reply = ask_v(cluster, server, format, arguments);
	va_end(arguments);
	return reply;
}

long long redis_cluster_ask(const struct redis_cluster *cluster, int server, const char *format, ...)
{
	va_list arguments;
	redisReply *reply;
	long long number;

	va_start(arguments, format);
	reply = ask_v(cluster, server, format, arguments);
	va_end(arguments);
	number = reply != NULL && reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1;
	if (reply != NULL)
		freeReplyObject(reply);
	return number;
}

/* True if the answer is +OK; takes it over. */
static bool is_ok(redisReply *reply, const char *what)
{
	bool ok = reply != NULL && reply->type == REDIS_REPLY_STATUS;

	if (!ok)
		fprintf(stderr, "redis cluster: %s: %s\n", what,
			reply != NULL && reply->str != NULL ? reply->str : "no answer");
	if (reply != NULL)
		freeReplyObject(reply);
	return ok;
}

static int server_of_port(const struct redis_cluster *cluster, long long port)
{
	for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS; i++) {
		if (cluster->servers[i].port == port)
			return (int)i;
	}
	return -1;
}

/* Who has the slot, as one server says; -1: nobody. */
static int owner_says(const struct redis_cluster *cluster, int server, uint32_t slot)
{
	redisReply *reply = ask(cluster, server, "CLUSTER SLOTS");
	int owner = -1;

	for (size_t i = 0; reply != NULL && reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
		const redisReply *range = reply->element[i];

		if (range->element[0]->integer <= slot && slot <= range->element[1]->integer)
			owner = server_of_port(cluster, range->element[2]->element[1]->integer);
	}
	if (reply != NULL)
		freeReplyObject(reply);
	return owner;
}

int redis_cluster_owner(const struct redis_cluster *cluster, uint32_t slot)
{
	int votes[REDIS_CLUSTER_SERVERS] = {0}, best = -1;

	for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS; i++) {
		int owner = cluster->servers[i].pid > 0 ? owner_says(cluster, (int)i, slot) : -1;

		if (owner >= 0 && (++votes[owner] > (best >= 0 ? votes[best] : 0)))
			best = owner;
	}
	return best;
}

int redis_cluster_replica_of(const struct redis_cluster *cluster, int master)
{
	for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS; i++) {
		redisReply *reply = cluster->servers[i].pid > 0 ? ask(cluster, (int)i, "CLUSTER NODES") : NULL;
		bool found = false;

		for (char *line = reply != NULL ? reply->str : NULL; line != NULL && !found;
		     line = strchr(line, '\n')) {
			line += *line == '\n';
			if (strstr(line, "myself,slave ") != NULL) {
				const char *of = strstr(line, "myself,slave ") + strlen("myself,slave ");

				found = strncmp(of, cluster->ids[master], 40) == 0;
			}
		}
		if (reply != NULL)
			freeReplyObject(reply);
		if (found)
			return (int)i;
	}
	return -1;
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

static bool server_is_whole(const struct redis_cluster *cluster, int server)
{
	redisReply *reply = ask(cluster, server, "CLUSTER INFO");
	bool whole = reply != NULL && reply->str != NULL && strstr(reply->str, "cluster_state:ok") != NULL;

	if (reply != NULL)
		freeReplyObject(reply);
	if (!whole)
		return false;
	reply = ask(cluster, server, "INFO replication");
	whole = reply != NULL && reply->str != NULL && strstr(reply->str, "master_link_status:down") == NULL;
	if (reply != NULL)
		freeReplyObject(reply);
	return whole;
}

/* Whether all that run say the same about some slots of each master. */
static bool servers_agree(const struct redis_cluster *cluster)
{
	for (uint32_t slot = 0; slot < REDIS_CLUSTER_SLOTS; slot += REDIS_CLUSTER_SLOTS / 8) {
		int owner = redis_cluster_owner(cluster, slot);

		if (owner < 0 || cluster->servers[owner].pid == 0)
			return false;
		for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS; i++) {
			if (cluster->servers[i].pid > 0 && owner_says(cluster, (int)i, slot) != owner)
				return false;
		}
	}
	return true;
}

int redis_cluster_await_whole(const struct redis_cluster *cluster, long patience_ms)
{
	for (long waited = 0; waited < patience_ms; waited += 50) {
		bool whole = true;

		for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS && whole; i++)
			whole = cluster->servers[i].pid == 0 || server_is_whole(cluster, (int)i);
		if (whole && servers_agree(cluster))
			return 0;
		sleep_ms(50);
	}
	fprintf(stderr, "redis cluster: not whole after %ld ms\n", patience_ms);
	return -1;
}

/* ---- starting -------------------------------------------------------------------------------------------------- */

static int start_server(struct redis_cluster *cluster, uint32_t i, const char *const arguments[])
{
	const char *extra[CLUSTER_ARGUMENTS] = {NULL};
	char port[8];

	for (size_t n = 0; n < CLUSTER_ARGUMENTS && arguments != NULL && arguments[n] != NULL; n++)
		extra[n] = arguments[n];
	for (int tries = 0; tries < CLUSTER_TRIES; tries++) {
		snprintf(port, sizeof(port), "%u", (unsigned)redis_server_free_port());
		if (redis_server_start_tcp(&cluster->servers[i], "--cluster-enabled", "yes", "--cluster-config-file",
					   "nodes.conf", "--cluster-node-timeout", "1500", "--cluster-port", port,
					   "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1",
					   extra[0], extra[1], extra[2], extra[3], extra[4], extra[5], extra[6],
					   extra[7], NULL) == 0)
			return 0;
	}
	return -1;
}

/* Runs redis-cli --cluster create; what it says goes into a file of the first server's folder. */
static int run_create(const struct redis_cluster *cluster)
{
	char ports[REDIS_CLUSTER_SERVERS][24], log[96];
	char cli[] = "redis-cli", option[] = "--cluster", create[] = "create", replicas[] = "--cluster-replicas",
	     one[] = "1", yes[] = "--cluster-yes";
	char *args[REDIS_CLUSTER_SERVERS + 8] = {cli, option, create};
	size_t count = 3;
	int status;
	pid_t pid;

	for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS; i++) {
		snprintf(ports[i], sizeof(ports[i]), "127.0.0.1:%u", (unsigned)cluster->servers[i].port);
		args[count++] = ports[i];
	}
	args[count++] = replicas;
	args[count++] = one;
	args[count++] = yes;
	snprintf(log, sizeof(log), "%s/create.log", cluster->servers[0].folder);
	pid = fork();
	if (pid == 0) {
		int out = open(log, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);

		if (out < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
			_exit(127);
		execvp(args[0], args);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "redis cluster: redis-cli --cluster create failed\n");
		return -1;
	}
	return 0;
}

static int note_ids(struct redis_cluster *cluster)
{
	for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS; i++) {
		redisReply *reply = ask(cluster, (int)i, "CLUSTER MYID");

		if (reply == NULL || reply->type != REDIS_REPLY_STRING) {
			fprintf(stderr, "redis cluster: a server has no id\n");
			return -1;
		}
		snprintf(cluster->ids[i], sizeof(cluster->ids[i]), "%s", reply->str);
		freeReplyObject(reply);
	}
	snprintf(cluster->url, sizeof(cluster->url), "redis+cluster://127.0.0.1:%u,127.0.0.1:%u,127.0.0.1:%u",
		 (unsigned)cluster->servers[0].port, (unsigned)cluster->servers[1].port,
		 (unsigned)cluster->servers[2].port);
	return 0;
}

int redis_cluster_start(struct redis_cluster *cluster, const char *const arguments[])
{
	int result = 0;

	memset(cluster, 0, sizeof(*cluster));
	for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS && result == 0; i++)
		result = start_server(cluster, i, arguments);
	if (result == 0)
		result = run_create(cluster);
	if (result == 0)
		result = note_ids(cluster);
	if (result == 0)
		result = redis_cluster_await_whole(cluster, CLUSTER_START_MS);
	if (result != 0)
		redis_cluster_stop(cluster);
	return result;
}

void redis_cluster_stop(struct redis_cluster *cluster)
{
	for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS; i++)
		redis_server_stop(&cluster->servers[i]);
}

/* ---- moving slots ---------------------------------------------------------------------------------------------- */

int redis_cluster_begin_move(const struct redis_cluster *cluster, uint32_t slot, int from, int to)
{
	bool ok = is_ok(ask(cluster, to, "CLUSTER SETSLOT %u IMPORTING %s", (unsigned)slot, cluster->ids[from]),
			"SETSLOT IMPORTING") &&
		  is_ok(ask(cluster, from, "CLUSTER SETSLOT %u MIGRATING %s", (unsigned)slot, cluster->ids[to]),
			"SETSLOT MIGRATING");

	return ok ? 0 : -1;
}

int redis_cluster_move_keys(const struct redis_cluster *cluster, uint32_t slot, int from, int to, int most)
{
	redisReply *keys = ask(cluster, from, "CLUSTER GETKEYSINSLOT %u %d", (unsigned)slot, most);
	int moved = 0;

	for (size_t i = 0; keys != NULL && keys->type == REDIS_REPLY_ARRAY && i < keys->elements && moved >= 0; i++) {
		redisReply *reply = ask(cluster, from, "MIGRATE 127.0.0.1 %u %b 0 1000 REPLACE",
					(unsigned)cluster->servers[to].port, keys->element[i]->str,
					(size_t)keys->element[i]->len);

		moved = is_ok(reply, "MIGRATE") ? moved + 1 : -1;
	}
	if (keys != NULL)
		freeReplyObject(keys);
	return moved;
}

/* Whether all that run say that the server has the slot. */
static bool all_say(const struct redis_cluster *cluster, uint32_t slot, int owner)
{
	for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS; i++) {
		if (cluster->servers[i].pid > 0 && owner_says(cluster, (int)i, slot) != owner)
			return false;
	}
	return true;
}

/*
 * Two moves in opposite directions that follow each other faster than the nodes hear of them can leave a slot that nobody
 * claims: each master's claim is weighed by an epoch that both raised. So all are told, until they agree.
 */
int redis_cluster_end_move(const struct redis_cluster *cluster, uint32_t slot, int from, int to)
{
	for (long waited = 0; waited < MOVE_AGREE_MS; waited += 20) {
		bool ok = is_ok(ask(cluster, to, "CLUSTER SETSLOT %u NODE %s", (unsigned)slot, cluster->ids[to]),
				"SETSLOT NODE") &&
			  is_ok(ask(cluster, from, "CLUSTER SETSLOT %u NODE %s", (unsigned)slot, cluster->ids[to]),
				"SETSLOT NODE");

		if (!ok)
			return -1;
		for (int i = 0; i < 10; i++) {
			if (all_say(cluster, slot, to))
				return 0;
			sleep_ms(20);
			waited += 20;
		}
	}
	fprintf(stderr, "redis cluster: the servers do not agree on slot %u\n", (unsigned)slot);
	return -1;
}
