/*
 * What is said first on a connection, in one send: AUTH, SELECT, CLIENT SETNAME, CLIENT ID, INFO server. Where sentinels know
 * the master, INFO replication before the last one: a server that says that it is none is not used.
 *
 * AUTH and SELECT must succeed. The others serve people and the barrier of pool.c; a server that refuses them is used all
 * the same. An error of the login ends the connection, and requests are told RSHM_E_BACKEND until one succeeds.
 */
#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/redis/redis_priv.h"
#include "shm/msg.h"

/* The password may be in the server's words: only ours are logged. */
#define GREETING_WRONG_LOGIN "the server refused user or password of the URL"
#define GREETING_NO_LOGIN "the server wants a password, and the URL has none"
#define GREETING_LOADING "the server is loading its data"

static void greeting_add(struct redis_connection *connection, enum redis_command command)
{
	struct redis_flight flight = {.command = command, .replies_left = 1};

	if (!redis_flights_reserve(&connection->flights)) {
		connection->output.failed = true;
		return;
	}
	flight.end = connection->output.queued;
	flight.begun_ms = clock_monotonic_ms();
	redis_flights_push(&connection->flights, flight);
}

int redis_greeting_send(struct redis_connection *connection)
{
	static const char *const names[] = {[REDIS_ROLE_POOL] = "riptided",
					    [REDIS_ROLE_FEED] = "riptided-feed",
					    [REDIS_ROLE_WRITER] = "riptided-writer"};
	const struct redis_url *url = &connection->store->url;
	const char *name = connection->role == REDIS_ROLE_SENTINEL ? NULL : names[connection->role];
	struct redis_output *output = &connection->output;

	if (name == NULL)
		return redis_failover_greet(connection);
	if (url->password[0] != '\0') {
		redis_output_command(output, url->user[0] != '\0' ? 3 : 2, "AUTH");
		if (url->user[0] != '\0')
			redis_output_string(output, url->user, strlen(url->user));
		redis_output_string(output, url->password, strlen(url->password));
		greeting_add(connection, REDIS_COMMAND_AUTH);
	}
	if (url->database != 0) {
		redis_output_command(output, 2, "SELECT");
		redis_output_number(output, url->database);
		greeting_add(connection, REDIS_COMMAND_SELECT);
	}
	redis_output_command(output, 3, "CLIENT");
	redis_output_string(output, "SETNAME", 7);
	redis_output_string(output, name, strlen(name));
	greeting_add(connection, REDIS_COMMAND_SETNAME);
	redis_output_command(output, 2, "CLIENT");
	redis_output_string(output, "ID", 2);
	greeting_add(connection, REDIS_COMMAND_CLIENT_ID);
	if (connection->store->failover.sentinels.count > 0) {
		redis_output_command(output, 2, "INFO");
		redis_output_string(output, "replication", 11);
		greeting_add(connection, REDIS_COMMAND_ROLE);
	}
	redis_output_command(output, 2, "INFO");
	redis_output_string(output, "server", 6);
	greeting_add(connection, REDIS_COMMAND_INFO);
	if (output->failed)
		return RSHM_E_NOMEM;
	redis_connection_mark_dirty(connection);
	return RSHM_OK;
}

/* The value of "name:value\r\n" in an INFO text; what is not printable ASCII ends it. */
static void info_field(const char *info, const char *name, char *ret, size_t capacity)
{
	size_t length = strlen(name), used = 0;

	ret[0] = '\0';
	for (const char *line = info; line != NULL && *line != '\0'; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, length) != 0 || line[length] != ':')
			continue;
		for (const char *p = line + length + 1; *p > ' ' && *p < 0x7f && used + 1 < capacity; p++)
			ret[used++] = *p;
		ret[used] = '\0';
		return;
	}
}

static void greeting_on_info(struct redis_connection *connection, const struct redis_reply *reply)
{
	struct redis_pool *pool = &connection->store->pool;
	char run_id[sizeof(pool->run_id)], version[24], mode[16];
	const char *name = "redis";
	bool is_new = false;

	if (reply->type == REDIS_REPLY_IS_STRING) {
		info_field(reply->bytes, "run_id", run_id, sizeof(run_id));
		info_field(reply->bytes, "redis_mode", mode, sizeof(mode));
		info_field(reply->bytes, "valkey_version", version, sizeof(version));
		if (version[0] != '\0')
			name = "valkey";
		else
			info_field(reply->bytes, "dragonfly_version", version, sizeof(version));
		if (version[0] == '\0')
			info_field(reply->bytes, "redis_version", version, sizeof(version));
		else if (strcmp(name, "valkey") != 0)
			name = "dragonfly";
		snprintf(pool->server, sizeof(pool->server), "%s %s %s", name, version, mode);
		if (run_id[0] != '\0') {
			if (strcmp(run_id, pool->run_id) != 0) {
				pool->server_number++;
				pool->kill_impossible = false;
				/* Its ids mean others. */
				pool->kills_count = 0;
				is_new = true;
			}
			memcpy(pool->run_id, run_id, sizeof(run_id));
			connection->server_number = pool->server_number;
		}
	} else {
		snprintf(pool->server, sizeof(pool->server), "server of unknown version");
	}
	connection->state = REDIS_CONNECTION_READY;
	if (is_new)
		redis_tracking_on_server(connection->store);
	/* It may have been dropped because of the server that it found. */
	if (connection->state != REDIS_CONNECTION_READY)
		return;
	if (connection->role == REDIS_ROLE_POOL)
		redis_pool_on_ready(connection);
	else
		redis_tracking_on_ready(connection);
}

/* Of a server that does not tell, the sentinel's word is good enough. */
static void greeting_on_role(struct redis_connection *connection, const struct redis_reply *reply)
{
	char role[16] = "";

	if (reply->type == REDIS_REPLY_IS_STRING)
		info_field(reply->bytes, "role", role, sizeof(role));
	if (role[0] != '\0' && strcmp(role, "master") != 0)
		redis_connection_lose(connection, "the server is not the master any more, or not yet", RSHM_OK);
}

/* Whether the login may go on. False: the connection is lost. */
static bool greeting_check(struct redis_connection *connection, enum redis_command command,
			   const struct redis_reply *reply)
{
	char reason[96];

	if (reply->type != REDIS_REPLY_IS_ERROR)
		return true;
	if (command == REDIS_COMMAND_AUTH && !redis_reply_error_is(reply, "LOADING")) {
		redis_connection_lose(connection, GREETING_WRONG_LOGIN, RSHM_E_BACKEND);
		return false;
	}
	if (redis_reply_error_is(reply, "NOAUTH")) {
		redis_connection_lose(connection, GREETING_NO_LOGIN, RSHM_E_BACKEND);
		return false;
	}
	if (redis_reply_error_is(reply, "LOADING")) {
		redis_connection_lose(connection, GREETING_LOADING, RSHM_OK);
		return false;
	}
	if (redis_reply_error_is(reply, "ERR max number of clients")) {
		redis_connection_lose(connection, "the server has reached its maxclients", RSHM_OK);
		return false;
	}
	if (command == REDIS_COMMAND_SELECT) {
		snprintf(reason, sizeof(reason), "the server refused database %u of the URL",
			 (unsigned)connection->store->url.database);
		redis_connection_lose(connection, reason, RSHM_E_BACKEND);
		return false;
	}
	return true;
}

void redis_greeting_on_reply(struct redis_connection *connection, enum redis_command command,
			     const struct redis_reply *reply)
{
	must(connection->state == REDIS_CONNECTION_GREETING);
	if (command == REDIS_COMMAND_SENTINEL) {
		redis_failover_on_reply(connection, reply);
		return;
	}
	if (!greeting_check(connection, command, reply))
		return;
	if (command == REDIS_COMMAND_CLIENT_ID && reply->type == REDIS_REPLY_IS_INTEGER && reply->integer > 0)
		connection->client_id = (uint64_t)reply->integer;
	else if (command == REDIS_COMMAND_ROLE)
		greeting_on_role(connection, reply);
	else if (command == REDIS_COMMAND_INFO)
		greeting_on_info(connection, reply);
}
