/*
 * proxy.c - between an agent and its redis-server, well-behaved or not.
 *
 * One thread polls all connections. Each direction is cut into whole messages, always, so that a behaviour may begin and end
 * between any two of them. A behaviour is handed over under a lock and taken at the top of a turn; the test waits for that,
 * so it knows from where on it holds. Everything else belongs to the thread, but two counters.
 */
#include "tests/support/proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64
#define BUFFER_BYTES (256u << 10)
#define GREETING_MESSAGES 3u
#define TURN_MS 5
#define SWAPPED 4u /* replies that are held to be swapped: two answers of two parts */
#define CORRUPT_BEHIND 100u

struct stream {
	unsigned char bytes[BUFFER_BYTES];
	size_t length;
	uint32_t messages; /* whole ones so far */
};

struct pair {
	int agent, server;
	bool ended, reset; /* to be closed at the end of the turn; so that the agent gets a reset */
	bool deaf;         /* nothing goes to the server any more */
	bool mute;         /* nothing goes to the agent any more */
	struct stream requests, replies;
	struct stream out; /* to the agent */
	struct stream held;
	size_t held_lengths[SWAPPED];
	uint32_t held_count;
};

struct proxy {
	pthread_t thread;
	pthread_mutex_t lock; /* of next, orders */
	struct proxy_behaviour next;
	uint32_t orders, taken;                    /* taken: atomic */
	uint32_t spoiled, connections_count, stop; /* atomic */
	/* the thread's */
	struct proxy_behaviour now;
	int listener;
	struct sockaddr_un server;
	struct pair *pairs[CONNECTIONS_MAX];
};

/* ---- messages ----------------------------------------------------------------------------------------------- */

/* Length of the first message if it has come as a whole, else 0. */
static size_t message_length(const unsigned char *bytes, size_t length)
{
	size_t at = 0;

	for (long long open = 1; open > 0; open--) {
		const unsigned char *end = at < length ? memchr(bytes + at, '\n', length - at) : NULL;
		long long number;
		size_t next;

		if (!end)
			return 0;
		next = (size_t)(end - bytes) + 1;
		number = strtoll((const char *)bytes + at + 1, NULL, 10);
		if (bytes[at] == '*' && number > 0)
			open += number;
		if (bytes[at] == '$' && number >= 0)
			next += (size_t)number + 2;
		at = next;
	}
	return at <= length ? at : 0;
}

static void append(struct pair *pair, struct stream *stream, const void *bytes, size_t length)
{
	if (length > sizeof(stream->bytes) - stream->length) {
		pair->ended = true;
		return;
	}
	memcpy(stream->bytes + stream->length, bytes, length);
	stream->length += length;
}

static void take_off(struct stream *stream, size_t length)
{
	stream->length -= length;
	memmove(stream->bytes, stream->bytes + length, stream->length);
}

static void send_all(struct pair *pair, int fd, const unsigned char *bytes, size_t length)
{
	while (length > 0 && !pair->ended) {
		ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);

		if (sent <= 0) {
			pair->ended = true;
			return;
		}
		bytes += sent;
		length -= (size_t)sent;
	}
}

/* Sends what waits for the agent; one byte of it if the manner is to be slow. */
static void flush_out(const struct proxy *proxy, struct pair *pair)
{
	size_t length = pair->out.length;

	if (proxy->now.manner == PROXY_SLOW && length > 1)
		length = 1;
	if (!pair->mute)
		send_all(pair, pair->agent, pair->out.bytes, length);
	take_off(&pair->out, length);
}

/* ---- misbehaviour ------------------------------------------------------------------------------------------- */

static void count_shot(struct proxy *proxy)
{
	__atomic_add_fetch(&proxy->spoiled, 1, __ATOMIC_RELAXED);
	if (proxy->now.shots > 0 && --proxy->now.shots == 0)
		proxy->now.manner = PROXY_PASS;
}

static void put_text(const struct proxy *proxy, struct pair *pair)
{
	const struct proxy_behaviour *now = &proxy->now;

	append(pair, &pair->out, now->text, now->text_length ? now->text_length : strlen(now->text));
}

static void on_request(struct proxy *proxy, struct pair *pair, const unsigned char *bytes, size_t length)
{
	bool spared = pair->requests.messages++ < GREETING_MESSAGES && !proxy->now.greeting_too;
	enum proxy_manner manner = spared ? PROXY_PASS : proxy->now.manner;

	if (pair->deaf)
		return;
	switch (manner) {
	case PROXY_DROP:
		pair->deaf = true;
		break;
	case PROXY_ANSWER:
		put_text(proxy, pair);
		break;
	case PROXY_REFUSE:
		pair->ended = pair->reset = true;
		break;
	default:
		send_all(pair, pair->server, bytes, length);
		return;
	}
	count_shot(proxy);
}

static void cut(struct proxy *proxy, struct pair *pair, const unsigned char *bytes, size_t length)
{
	enum proxy_manner manner = proxy->now.manner;

	append(pair, &pair->out, bytes, proxy->now.after < length ? proxy->now.after : length);
	/* Before the agent can notice. */
	count_shot(proxy);
	flush_out(proxy, pair);
	pair->mute = pair->deaf = true;
	if (manner == PROXY_CUT_HALF) {
		(void)shutdown(pair->agent, SHUT_WR);
		return;
	}
	pair->ended = true;
	pair->reset = manner == PROXY_CUT_RESET;
}

static void release_held(struct pair *pair)
{
	append(pair, &pair->out, pair->held.bytes, pair->held.length);
	pair->held.length = 0;
	pair->held_count = 0;
}

static void hold(struct proxy *proxy, struct pair *pair, const unsigned char *bytes, size_t length)
{
	size_t first;

	append(pair, &pair->held, bytes, length);
	pair->held_lengths[pair->held_count++] = length;
	if (pair->held_count < SWAPPED)
		return;
	first = pair->held_lengths[0] + pair->held_lengths[1];
	append(pair, &pair->out, pair->held.bytes + first, pair->held.length - first);
	append(pair, &pair->out, pair->held.bytes, first);
	pair->held.length = 0;
	pair->held_count = 0;
	count_shot(proxy);
}

static void corrupt(struct proxy *proxy, struct pair *pair, const unsigned char *bytes, size_t length)
{
	size_t head = (size_t)((const unsigned char *)memchr(bytes, '\n', length) - bytes) + 1, place;

	append(pair, &pair->out, bytes, length);
	if (bytes[0] != '$' || length < head + CORRUPT_BEHIND + 3 || pair->ended)
		return;
	place = head + CORRUPT_BEHIND + proxy_spoiled(proxy) * 7919u % (length - head - 2 - CORRUPT_BEHIND);
	pair->out.bytes[pair->out.length - length + place] ^= 0x20;
	count_shot(proxy);
}

static void on_reply(struct proxy *proxy, struct pair *pair, const unsigned char *bytes, size_t length)
{
	bool spared = pair->replies.messages++ < GREETING_MESSAGES && !proxy->now.greeting_too;
	enum proxy_manner manner = spared || pair->mute ? PROXY_PASS : proxy->now.manner;

	if (manner != PROXY_SWAP)
		release_held(pair);
	switch (manner) {
	case PROXY_SWALLOW:
		pair->mute = true;
		count_shot(proxy);
		break;
	case PROXY_CUT_RESET:
	case PROXY_CUT_END:
	case PROXY_CUT_HALF:
		cut(proxy, pair, bytes, length);
		break;
	case PROXY_EXTRA:
		append(pair, &pair->out, bytes, length);
		put_text(proxy, pair);
		count_shot(proxy);
		break;
	case PROXY_SWAP:
		hold(proxy, pair, bytes, length);
		break;
	case PROXY_CORRUPT:
		corrupt(proxy, pair, bytes, length);
		break;
	default:
		append(pair, &pair->out, bytes, length);
	}
}

/* ---- connections -------------------------------------------------------------------------------------------- */

static void close_pair(struct proxy *proxy, int number)
{
	struct pair *pair = proxy->pairs[number];
	struct linger at_once = {.l_onoff = 1};

	if (pair->reset)
		setsockopt(pair->agent, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	else
		(void)shutdown(pair->agent, SHUT_RDWR);
	close(pair->agent);
	(void)shutdown(pair->server, SHUT_RDWR);
	close(pair->server);
	free(pair);
	proxy->pairs[number] = NULL;
}

static void accept_agent(struct proxy *proxy)
{
	struct timeval patience = {.tv_sec = 2};
	struct pair *pair = NULL;
	int fd = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC), number = 0, yes = 1;

	while (number < CONNECTIONS_MAX && proxy->pairs[number])
		number++;
	if (fd >= 0 && number < CONNECTIONS_MAX)
		pair = calloc(1, sizeof(*pair));
	if (!pair) {
		if (fd >= 0)
			close(fd);
		return;
	}
	pair->agent = fd;
	pair->server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(pair->server, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	proxy->pairs[number] = pair;
	__atomic_add_fetch(&proxy->connections_count, 1, __ATOMIC_RELAXED);
	if (connect(pair->server, (struct sockaddr *)&proxy->server, sizeof(proxy->server)) < 0)
		close_pair(proxy, number);
}

static void receive(struct proxy *proxy, struct pair *pair, int fd, struct stream *stream)
{
	ssize_t got =
		recv(fd, stream->bytes + stream->length, sizeof(stream->bytes) - 1 - stream->length, MSG_DONTWAIT);
	size_t length;

	if (got <= 0) { /* a message above the buffer ends the pair, too */
		pair->ended = true;
		return;
	}
	stream->length += (size_t)got;
	stream->bytes[stream->length] = '\0';
	while (!pair->ended && (length = message_length(stream->bytes, stream->length)) > 0) {
		if (fd == pair->agent)
			on_request(proxy, pair, stream->bytes, length);
		else
			on_reply(proxy, pair, stream->bytes, length);
		take_off(stream, length);
		stream->bytes[stream->length] = '\0';
	}
}

/* Takes an order of the test, if there is one. */
static void take_order(struct proxy *proxy)
{
	pthread_mutex_lock(&proxy->lock);
	if (proxy->taken != proxy->orders) {
		proxy->now = proxy->next;
		__atomic_store_n(&proxy->spoiled, 0, __ATOMIC_RELAXED);
		for (int i = 0; i < CONNECTIONS_MAX; i++) {
			if (proxy->pairs[i] && proxy->now.manner == PROXY_PUSH && !proxy->pairs[i]->mute)
				put_text(proxy, proxy->pairs[i]);
			if (proxy->pairs[i] && proxy->now.hang_up_at_once)
				close_pair(proxy, i);
			else if (proxy->pairs[i] && proxy->now.manner != PROXY_SWAP)
				release_held(proxy->pairs[i]);
		}
		__atomic_store_n(&proxy->taken, proxy->orders, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&proxy->lock);
}

static void turn(struct proxy *proxy)
{
	struct pollfd watched[1 + 2 * CONNECTIONS_MAX] = {{.fd = proxy->listener, .events = POLLIN}};
	bool slow = false;

	for (int i = 0; i < CONNECTIONS_MAX; i++) {
		struct pair *pair = proxy->pairs[i];

		watched[1 + 2 * i] = (struct pollfd){.fd = pair ? pair->agent : -1, .events = POLLIN};
		watched[2 + 2 * i] = (struct pollfd){.fd = pair ? pair->server : -1, .events = POLLIN};
		slow |= pair && pair->out.length > 0;
	}
	(void)poll(watched, 1 + 2 * CONNECTIONS_MAX, slow ? 1 : TURN_MS);
	take_order(proxy);
	for (int i = 0; i < CONNECTIONS_MAX; i++) {
		struct pair *pair = proxy->pairs[i];

		if (!pair)
			continue;
		if (watched[1 + 2 * i].revents)
			receive(proxy, pair, pair->agent, &pair->requests);
		if (watched[2 + 2 * i].revents && !pair->ended)
			receive(proxy, pair, pair->server, &pair->replies);
		if (!pair->ended)
			flush_out(proxy, pair);
		if (pair->ended)
			close_pair(proxy, i);
	}
	if (watched[0].revents)
		accept_agent(proxy);
}

static void *proxy_run(void *context)
{
	struct proxy *proxy = context;

	while (!__atomic_load_n(&proxy->stop, __ATOMIC_RELAXED))
		turn(proxy);
	return NULL;
}

/* ---- the test's side ---------------------------------------------------------------------------------------- */

struct proxy *proxy_start(const char *server_path, uint16_t *ret_port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct proxy *proxy = calloc(1, sizeof(*proxy));
	socklen_t length = sizeof(address);

	if (!proxy)
		return NULL;
	proxy->server.sun_family = AF_UNIX;
	snprintf(proxy->server.sun_path, sizeof(proxy->server.sun_path), "%s", server_path);
	pthread_mutex_init(&proxy->lock, NULL);
	proxy->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(proxy->listener, (struct sockaddr *)&address, length) < 0 || listen(proxy->listener, 64) < 0 ||
	    getsockname(proxy->listener, (struct sockaddr *)&address, &length) < 0 ||
	    pthread_create(&proxy->thread, NULL, proxy_run, proxy) != 0) {
		perror("proxy");
		close(proxy->listener);
		free(proxy);
		return NULL;
	}
	*ret_port = ntohs(address.sin_port);
	return proxy;
}

void proxy_stop(struct proxy *proxy)
{
	if (!proxy)
		return;
	__atomic_store_n(&proxy->stop, 1, __ATOMIC_RELAXED);
	pthread_join(proxy->thread, NULL);
	for (int i = 0; i < CONNECTIONS_MAX; i++)
		if (proxy->pairs[i])
			close_pair(proxy, i);
	close(proxy->listener);
	pthread_mutex_destroy(&proxy->lock);
	free(proxy);
}

void proxy_behave(struct proxy *proxy, const struct proxy_behaviour *behaviour)
{
	static const struct proxy_behaviour well = {.manner = PROXY_PASS};
	struct timespec pause = {.tv_nsec = 500000};
	uint32_t order;

	pthread_mutex_lock(&proxy->lock);
	proxy->next = behaviour ? *behaviour : well;
	order = ++proxy->orders;
	pthread_mutex_unlock(&proxy->lock);
	for (int i = 0; i < 20000 && __atomic_load_n(&proxy->taken, __ATOMIC_ACQUIRE) != order; i++)
		nanosleep(&pause, NULL);
}

uint32_t proxy_spoiled(const struct proxy *proxy)
{
	return __atomic_load_n(&proxy->spoiled, __ATOMIC_RELAXED);
}

uint32_t proxy_connections(const struct proxy *proxy)
{
	return __atomic_load_n(&proxy->connections_count, __ATOMIC_RELAXED);
}
