/*
 * One thread serves all connections, one command at a time: what is not answered here goes to the server, whose answer is
 * waited for and handed on. So answers keep their order whoever gives them. What the server says unasked, to a subscriber,
 * is carried as it comes.
 *
 * Scripts go to the server inside a few lines that shadow redis.call and refuse keys that are not declared. EVALSHA of one
 * that was seen becomes EVAL of that; what was not seen goes on as it is, for the server does not know it either.
 */
#include "tests/support/dragonfly_peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define PAIRS_MAX 64u
#define WORDS_MAX 32u
#define SCRIPTS_MAX 8u
#define CHUNK_BYTES 65536u
#define SPAN_MAX (64u << 20) /* of one command or answer */
#define ANSWER_SECONDS 5
#define TURN_MS 5
#define NESTING_MAX 8

/* What no key was declared for is refused as by CheckKeysDeclared() of main_service.cc. */
static const char guard[] = "local riptide_call=redis.call "
			    "local redis={call=function(c,k,...) "
			    "for _,d in ipairs(KEYS) do if d==k then return riptide_call(c,k,...) end end "
			    "error('script tried accessing undeclared key, key: '..tostring(k)) end} ";

static const char info[] = "# Server\r\n"
			   "redis_version:7.4.0\r\n"
			   "dragonfly_version:df-v1.40.0\r\n"
			   "redis_mode:standalone\r\n"
			   "arch_bits:64\r\n"
			   "process_id:4711\r\n"
			   "os:Linux 6.1.0 x86_64\r\n"
			   "thread_count:4\r\n"
			   "multiplexing_api:iouring\r\n"
			   "tcp_port:6379\r\n"
			   "uptime_in_seconds:60\r\n"
			   "uptime_in_days:0\r\n";

/* What both have, of what anybody may send here. */
static const char *const forwarded[] = {
	"AUTH",     "DECR",     "DEL",     "DISCARD",   "ECHO", "EXEC",    "EXISTS",     "EXPIRE",
	"FLUSHALL", "FLUSHDB",  "GET",     "GETRANGE",  "HGET", "HINCRBY", "HSET",       "INCR",
	"MGET",     "MULTI",    "PERSIST", "PEXPIRE",   "PING", "PTTL",    "PUBLISH",    "SELECT",
	"SET",      "SETRANGE", "STRLEN",  "SUBSCRIBE", "TTL",  "UNLINK",  "UNSUBSCRIBE"};

struct bytes {
	char *at;
	size_t length, capacity;
};

struct word {
	const char *at;
	size_t length;
};

struct command {
	struct word words[WORDS_MAX];
	uint32_t count;
	size_t span; /* bytes of the whole */
};

struct script {
	char sha[41];
	char *text; /* guarded; owned */
	size_t length;
};

struct pair {
	int agent, server;
	struct bytes asked, answered;
};

struct dragonfly_peer {
	pthread_t thread;
	int listener, control; /* control: to the server, for SCRIPT LOAD */
	char server_path[108];
	struct pair pairs[PAIRS_MAX];
	uint32_t pair_count;
	struct script scripts[SCRIPTS_MAX];
	uint32_t script_count;
	struct bytes rewritten;
	struct dragonfly_counts counts; /* under the lock */
	pthread_mutex_t lock;
	/* set by the test, read by the thread; atomic */
	bool held, holds, end;
	uint32_t restarts, restarts_done, delay_ms;
};

/* ---- bytes --------------------------------------------------------------------------------------------------- */

static void bytes_reserve(struct bytes *bytes, size_t room)
{
	size_t needed = bytes->length + room;

	if (needed <= bytes->capacity)
		return;
	bytes->at = realloc(bytes->at, 2 * needed);
	if (!bytes->at)
		abort();
	bytes->capacity = 2 * needed;
}

static void bytes_add(struct bytes *bytes, const void *from, size_t length)
{
	bytes_reserve(bytes, length + 1);
	memcpy(bytes->at + bytes->length, from, length);
	bytes->length += length;
	bytes->at[bytes->length] = '\0';
}

static void bytes_take(struct bytes *bytes, size_t length)
{
	bytes->length -= length;
	memmove(bytes->at, bytes->at + length, bytes->length);
}

static void bytes_add_word(struct bytes *bytes, const void *word, size_t length)
{
	char head[32];

	bytes_add(bytes, head, (size_t)snprintf(head, sizeof(head), "$%zu\r\n", length));
	bytes_add(bytes, word, length);
	bytes_add(bytes, "\r\n", 2);
}

/* False: the other end is gone, or silent for too long. */
static bool receive(int fd, struct bytes *bytes)
{
	ssize_t got;

	bytes_reserve(bytes, CHUNK_BYTES + 1);
	do
		got = recv(fd, bytes->at + bytes->length, CHUNK_BYTES, 0);
	while (got < 0 && errno == EINTR);
	if (got <= 0 || bytes->length > SPAN_MAX)
		return false;
	bytes->length += (size_t)got;
	return true;
}

static bool send_all(int fd, const char *from, size_t length)
{
	while (length > 0) {
		ssize_t sent = send(fd, from, length, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		from += sent;
		length -= (size_t)sent;
	}
	return true;
}

/* ---- the protocol -------------------------------------------------------------------------------------------- */

/* The number of a line such as "$12\r\n". 0: not there yet; else the bytes of the line. */
static size_t line_number(const char *at, size_t length, long long *ret)
{
	const char *end = length > 1 ? memchr(at, '\n', length) : NULL;

	if (!end)
		return 0;
	*ret = strtoll(at + 1, NULL, 10);
	return (size_t)(end - at) + 1;
}

/* Bytes of the answer that begins here; 0: more of it is to come. */
static size_t answer_span(const char *at, size_t length, int depth)
{
	long long number;
	size_t span = line_number(at, length, &number);

	if (span == 0 || depth > NESTING_MAX)
		return 0;
	if (at[0] == '$' && number >= 0) {
		span += (size_t)number + 2;
		return span <= length ? span : 0;
	}
	for (long long i = 0; at[0] == '*' && i < number; i++) {
		size_t part = answer_span(at + span, length - span, depth + 1);

		if (part == 0)
			return 0;
		span += part;
	}
	return span;
}

/* Finds the words of the command that begins there. False: more of it is to come, or it is none. */
static bool command_read(const struct bytes *from, struct command *ret)
{
	long long count, size = 0;
	size_t at = from->length > 0 && from->at[0] == '*' ? line_number(from->at, from->length, &count) : 0;

	if (at == 0 || count < 1 || count > (long long)WORDS_MAX)
		return false;
	ret->count = (uint32_t)count;
	for (uint32_t i = 0; i < ret->count; i++) {
		size_t line = line_number(from->at + at, from->length - at, &size);

		if (line == 0 || size < 0 || at + line + (size_t)size + 2 > from->length)
			return false;
		ret->words[i] = (struct word){from->at + at + line, (size_t)size};
		at += line + (size_t)size + 2;
	}
	ret->span = at;
	return true;
}

static bool word_is(const struct command *command, uint32_t index, const char *text)
{
	return index < command->count && command->words[index].length == strlen(text) &&
	       strncasecmp(command->words[index].at, text, strlen(text)) == 0;
}

/* ---- the server ---------------------------------------------------------------------------------------------- */

static int connect_server(const struct dragonfly_peer *peer)
{
	const struct timeval patience = {.tv_sec = ANSWER_SECONDS};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, peer->server_path, sizeof(address.sun_path));
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Has the server answer; the answer is the first of `answered`. 0: there is none. */
static size_t ask_server(int fd, const char *from, size_t length, struct bytes *answered)
{
	size_t span = 0;

	if (!send_all(fd, from, length))
		return 0;
	while ((span = answer_span(answered->at, answered->length, 0)) == 0)
		if (!receive(fd, answered))
			return 0;
	return span;
}

static bool forward(struct pair *pair, const char *from, size_t length)
{
	size_t span = ask_server(pair->server, from, length, &pair->answered);
	bool sent = span > 0 && send_all(pair->agent, pair->answered.at, span);

	if (sent)
		bytes_take(&pair->answered, span);
	return sent;
}

static bool answer(struct pair *pair, const char *text)
{
	return send_all(pair->agent, text, strlen(text));
}

static void count(struct dragonfly_peer *peer, uint32_t *counter)
{
	pthread_mutex_lock(&peer->lock);
	(*counter)++;
	pthread_mutex_unlock(&peer->lock);
}

/* ---- what DragonflyDB answers in its own way ------------------------------------------------------------------ */

static bool answer_unknown(struct dragonfly_peer *peer, struct pair *pair, const struct command *command)
{
	const struct word *name = &command->words[0];
	char text[160];

	pthread_mutex_lock(&peer->lock);
	if (peer->counts.unknown++ == 0)
		snprintf(peer->counts.first_unknown, sizeof(peer->counts.first_unknown), "%.*s %.*s",
			 (int)(name->length % 32), name->at, command->count > 1 ? (int)(name[1].length % 24) : 0,
			 command->count > 1 ? name[1].at : "");
	pthread_mutex_unlock(&peer->lock);
	snprintf(text, sizeof(text), "-ERR unknown command `%.*s`\r\n", (int)(name->length % 64), name->at);
	return answer(pair, text);
}

/* server_family.cc, ServerFamily::Client() and ClientKill(). */
static bool answer_client(struct dragonfly_peer *peer, struct pair *pair, const struct command *command)
{
	char text[160];

	if (word_is(command, 1, "TRACKING")) {
		count(peer, &peer->counts.tracking);
		return answer(pair,
			      "-ERR Client tracking is currently not supported for RESP2. Please use RESP3.\r\n");
	}
	if (word_is(command, 1, "KILL")) {
		if (command->count != 4 || !word_is(command, 2, "ID") ||
		    strtoull(command->words[3].at, NULL, 10) > UINT32_MAX)
			return answer(pair, "-ERR syntax error\r\n");
		count(peer, &peer->counts.kills);
		return forward(pair, pair->asked.at, command->span);
	}
	if (word_is(command, 1, "SETNAME") || word_is(command, 1, "ID") || word_is(command, 1, "GETNAME") ||
	    word_is(command, 1, "LIST"))
		return forward(pair, pair->asked.at, command->span);
	if (word_is(command, 1, "SETINFO"))
		return answer(pair, "+OK\r\n");
	count(peer, &peer->counts.unknown);
	snprintf(text, sizeof(text),
		 "-ERR Unknown subcommand or wrong number of arguments for '%.*s'. Try CLIENT HELP.\r\n",
		 command->count > 1 ? (int)(command->words[1].length % 32) : 0,
		 command->count > 1 ? command->words[1].at : "");
	return answer(pair, text);
}

static bool answer_info(struct pair *pair)
{
	char text[sizeof(info) + 32];

	snprintf(text, sizeof(text), "$%zu\r\n%s\r\n", strlen(info), info);
	return answer(pair, text);
}

/* generic_family.cc, ScanGeneric(): the lowest ten bits of a cursor are the number of a shard. */
static bool answer_scan(struct dragonfly_peer *peer, struct pair *pair, const struct command *command)
{
	uint64_t cursor = command->count > 1 ? strtoull(command->words[1].at, NULL, 10) >> 10 : 0;
	struct bytes *out = &peer->rewritten;
	size_t span, line, head;
	char text[64];
	long long size = 0;

	count(peer, &peer->counts.scans);
	out->length = 0;
	bytes_add(out, text, (size_t)snprintf(text, sizeof(text), "*%u\r\n", (unsigned)command->count));
	bytes_add_word(out, "SCAN", 4);
	bytes_add_word(out, text, (size_t)snprintf(text, sizeof(text), "%" PRIu64, cursor));
	for (uint32_t i = 2; i < command->count; i++)
		bytes_add_word(out, command->words[i].at, command->words[i].length);
	span = ask_server(pair->server, out->at, out->length, &pair->answered);
	if (span == 0)
		return false;
	out->length = 0;
	if (strncmp(pair->answered.at, "*2\r\n$", 5) != 0) {
		bytes_add(out, pair->answered.at, span);
	} else {
		line = line_number(pair->answered.at + 4, span - 4, &size);
		head = 4 + line + (size_t)size + 2;
		cursor = strtoull(pair->answered.at + 4 + line, NULL, 10);
		if (cursor != 0)
			cursor = cursor << 10 | 1;
		bytes_add(out, "*2\r\n", 4);
		bytes_add_word(out, text, (size_t)snprintf(text, sizeof(text), "%" PRIu64, cursor));
		bytes_add(out, pair->answered.at + head, span - head);
	}
	bytes_take(&pair->answered, span);
	return send_all(pair->agent, out->at, out->length);
}

/* ---- scripts ------------------------------------------------------------------------------------------------- */

static struct script *script_find(struct dragonfly_peer *peer, const struct word *sha)
{
	for (uint32_t i = 0; i < peer->script_count; i++)
		if (sha->length == 40 && strncasecmp(peer->scripts[i].sha, sha->at, 40) == 0)
			return &peer->scripts[i];
	return NULL;
}

/* The server tells the name under which EVALSHA will ask for it. */
static struct script *script_learn(struct dragonfly_peer *peer, const struct word *text)
{
	struct bytes asked = {0}, answered = {0};
	struct script *script = NULL;
	struct word sha;

	bytes_add(&asked, "*3\r\n", 4);
	bytes_add_word(&asked, "SCRIPT", 6);
	bytes_add_word(&asked, "LOAD", 4);
	bytes_add_word(&asked, text->at, text->length);
	if (ask_server(peer->control, asked.at, asked.length, &answered) == 5 + 40 + 2) {
		sha = (struct word){answered.at + 5, 40};
		script = script_find(peer, &sha);
		if (!script && peer->script_count < SCRIPTS_MAX) {
			script = &peer->scripts[peer->script_count++];
			memcpy(script->sha, sha.at, 40);
			script->length = strlen(guard) + text->length;
			script->text = malloc(script->length);
			if (!script->text)
				abort();
			memcpy(script->text, guard, strlen(guard));
			memcpy(script->text + strlen(guard), text->at, text->length);
		}
	}
	free(asked.at);
	free(answered.at);
	return script;
}

static bool answer_script(struct dragonfly_peer *peer, struct pair *pair, const struct command *command)
{
	bool whole = word_is(command, 0, "EVAL");
	struct script *script = command->count < 3 ? NULL
				: whole            ? script_learn(peer, &command->words[1])
						   : script_find(peer, &command->words[1]);
	struct bytes *out = &peer->rewritten;
	char text[32];

	if (!script && whole)
		return answer(pair, "-ERR the test's peer could not load the script\r\n");
	if (!script && command->count >= 3) {
		/* Unknown here; the server may know it from before, so it is asked for one that nobody has. */
		static const char nobody[] = "*3\r\n$7\r\nEVALSHA\r\n$40\r\n"
					     "0000000000000000000000000000000000000000\r\n$1\r\n0\r\n";

		return forward(pair, nobody, strlen(nobody));
	}
	if (!script)
		return forward(pair, pair->asked.at, command->span);
	count(peer, &peer->counts.scripts);
	out->length = 0;
	bytes_add(out, text, (size_t)snprintf(text, sizeof(text), "*%u\r\n", (unsigned)command->count));
	bytes_add_word(out, "EVAL", 4);
	bytes_add_word(out, script->text, script->length);
	for (uint32_t i = 2; i < command->count; i++)
		bytes_add_word(out, command->words[i].at, command->words[i].length);
	return forward(pair, out->at, out->length);
}

/* ---- serving ------------------------------------------------------------------------------------------------- */

/* False: the connection is over. */
static bool answer_command(struct dragonfly_peer *peer, struct pair *pair, const struct command *command)
{
	if (word_is(command, 0, "CLIENT"))
		return answer_client(peer, pair, command);
	if (word_is(command, 0, "INFO"))
		return answer_info(pair);
	if (word_is(command, 0, "SCAN"))
		return answer_scan(peer, pair, command);
	if (word_is(command, 0, "EVAL") || word_is(command, 0, "EVALSHA"))
		return answer_script(peer, pair, command);
	if (word_is(command, 0, "CLUSTER"))
		return answer(pair, "-ERR Cluster is disabled. Enabled via passing --cluster_mode=emulated|yes\r\n");
	if (word_is(command, 0, "PUBLISH"))
		count(peer, &peer->counts.published);
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		if (word_is(command, 0, forwarded[i]))
			return forward(pair, pair->asked.at, command->span);
	return answer_unknown(peer, pair, command);
}

static bool serve_agent(struct dragonfly_peer *peer, struct pair *pair)
{
	struct command command;

	if (!receive(pair->agent, &pair->asked))
		return false;
	while (command_read(&pair->asked, &command)) {
		(void)usleep(1000 * __atomic_load_n(&peer->delay_ms, __ATOMIC_RELAXED));
		if (!answer_command(peer, pair, &command))
			return false;
		bytes_take(&pair->asked, command.span);
	}
	return true;
}

/* What a subscriber is told, or the end. */
static bool serve_server(struct pair *pair)
{
	if (!receive(pair->server, &pair->answered) ||
	    !send_all(pair->agent, pair->answered.at, pair->answered.length))
		return false;
	pair->answered.length = 0;
	return true;
}

static void close_pair(struct dragonfly_peer *peer, uint32_t index)
{
	struct pair *pair = &peer->pairs[index];

	close(pair->agent);
	close(pair->server);
	free(pair->asked.at);
	free(pair->answered.at);
	*pair = peer->pairs[--peer->pair_count];
}

static void take_connection(struct dragonfly_peer *peer)
{
	const struct timeval patience = {.tv_sec = ANSWER_SECONDS};
	const int on = 1;
	int agent = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);
	int server = agent >= 0 && peer->pair_count < PAIRS_MAX ? connect_server(peer) : -1;

	if (server < 0) {
		if (agent >= 0)
			close(agent);
		return;
	}
	(void)setsockopt(agent, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	(void)setsockopt(agent, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	peer->pairs[peer->pair_count++] = (struct pair){.agent = agent, .server = server};
}

static void serve_turn(struct dragonfly_peer *peer)
{
	struct pollfd polls[1 + 2 * PAIRS_MAX];
	uint32_t pairs = peer->pair_count;
	bool held = __atomic_load_n(&peer->held, __ATOMIC_ACQUIRE);

	__atomic_store_n(&peer->holds, held, __ATOMIC_RELEASE);
	polls[0] = (struct pollfd){.fd = peer->listener, .events = POLLIN};
	for (uint32_t i = 0; i < pairs; i++) {
		polls[1 + 2 * i] = (struct pollfd){.fd = held ? -1 : peer->pairs[i].agent, .events = POLLIN};
		polls[2 + 2 * i] = (struct pollfd){.fd = held ? -1 : peer->pairs[i].server, .events = POLLIN};
	}
	(void)poll(polls, 1 + 2 * pairs, TURN_MS);
	for (uint32_t i = pairs; i-- > 0;)
		if ((polls[2 + 2 * i].revents && !serve_server(&peer->pairs[i])) ||
		    (polls[1 + 2 * i].revents && !serve_agent(peer, &peer->pairs[i])))
			close_pair(peer, i);
	if (polls[0].revents)
		take_connection(peer);
}

static void forget_all(struct dragonfly_peer *peer)
{
	while (peer->pair_count > 0)
		close_pair(peer, 0);
	while (peer->script_count > 0)
		free(peer->scripts[--peer->script_count].text);
}

static void *serve(void *context)
{
	struct dragonfly_peer *peer = context;

	while (!__atomic_load_n(&peer->end, __ATOMIC_ACQUIRE)) {
		uint32_t restarts = __atomic_load_n(&peer->restarts, __ATOMIC_ACQUIRE);

		if (restarts != peer->restarts_done) {
			forget_all(peer);
			__atomic_store_n(&peer->restarts_done, restarts, __ATOMIC_RELEASE);
		}
		serve_turn(peer);
	}
	forget_all(peer);
	return NULL;
}

/* ---- for the test -------------------------------------------------------------------------------------------- */

static int listen_somewhere(uint16_t *ret_port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, length) == 0 && listen(fd, 64) == 0 &&
	    getsockname(fd, (struct sockaddr *)&address, &length) == 0) {
		*ret_port = ntohs(address.sin_port);
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

static void destroy(struct dragonfly_peer *peer)
{
	if (peer->listener >= 0)
		close(peer->listener);
	if (peer->control >= 0)
		close(peer->control);
	pthread_mutex_destroy(&peer->lock);
	free(peer->rewritten.at);
	free(peer);
}

struct dragonfly_peer *dragonfly_peer_start(const char *server_path, uint16_t *ret_port)
{
	struct dragonfly_peer *peer = calloc(1, sizeof(*peer));

	if (!peer)
		return NULL;
	snprintf(peer->server_path, sizeof(peer->server_path), "%s", server_path);
	pthread_mutex_init(&peer->lock, NULL);
	peer->listener = listen_somewhere(ret_port);
	peer->control = connect_server(peer);
	if (peer->listener < 0 || peer->control < 0 || pthread_create(&peer->thread, NULL, serve, peer) != 0) {
		fprintf(stderr, "no dragonfly peer: %s\n", strerror(errno));
		destroy(peer);
		return NULL;
	}
	return peer;
}

void dragonfly_peer_stop(struct dragonfly_peer *peer)
{
	if (!peer)
		return;
	__atomic_store_n(&peer->end, true, __ATOMIC_RELEASE);
	pthread_join(peer->thread, NULL);
	destroy(peer);
}

void dragonfly_peer_hold(struct dragonfly_peer *peer, bool held)
{
	__atomic_store_n(&peer->held, held, __ATOMIC_RELEASE);
	while (__atomic_load_n(&peer->holds, __ATOMIC_ACQUIRE) != held)
		(void)usleep(1000);
}

void dragonfly_peer_delay(struct dragonfly_peer *peer, uint32_t delay_ms)
{
	__atomic_store_n(&peer->delay_ms, delay_ms, __ATOMIC_RELAXED);
}

void dragonfly_peer_restart(struct dragonfly_peer *peer)
{
	uint32_t wanted = __atomic_add_fetch(&peer->restarts, 1, __ATOMIC_ACQ_REL);

	while (__atomic_load_n(&peer->restarts_done, __ATOMIC_ACQUIRE) != wanted)
		(void)usleep(1000);
}

void dragonfly_peer_counts(struct dragonfly_peer *peer, struct dragonfly_counts *ret)
{
	pthread_mutex_lock(&peer->lock);
	*ret = peer->counts;
	pthread_mutex_unlock(&peer->lock);
}
