#include "tests/support/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAIRS_MAX 128u
#define CHUNK_BYTES 65536u
#define QUEUE_BYTES (4u << 20) /* of one way of a connection; then its sender waits */
#define TURN_MS 2

struct chunk {
	struct chunk *next;
	uint64_t due_ms;
	size_t length, sent;
	char bytes[];
};

struct way {
	struct chunk *first, *last;
	size_t queued;
	bool ended; /* its sender has hung up */
};

struct pair {
	int fds[LINK_WAYS]; /* where bytes of that way go: the server's, the agent's */
	struct way ways[LINK_WAYS];
	uint32_t number; /* of the connection, since the start */
};

struct link {
	pthread_t thread;
	int listener;
	char server_path[108];
	struct pair pairs[PAIRS_MAX];
	uint32_t pair_count, accepted;
	/* set by the test, read by the thread */
	uint32_t delay_ms[LINK_WAYS];
	uint32_t lag_ms[LINK_WAYS], lag_of, lag_which;
	bool held[LINK_WAYS];
	uint32_t cuts, cuts_done;
	bool end;
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void drop_chunk(struct way *way)
{
	struct chunk *chunk = way->first;

	way->queued -= chunk->length;
	way->first = chunk->next;
	if (!way->first)
		way->last = NULL;
	free(chunk);
}

static void close_pair(struct link *link, uint32_t index, bool reset)
{
	const struct linger abrupt = {.l_onoff = 1};
	struct pair *pair = &link->pairs[index];

	for (int w = 0; w < LINK_WAYS; w++) {
		while (pair->ways[w].first)
			drop_chunk(&pair->ways[w]);
		if (reset)
			(void)setsockopt(pair->fds[w], SOL_SOCKET, SO_LINGER, &abrupt, sizeof(abrupt));
		close(pair->fds[w]);
	}
	*pair = link->pairs[--link->pair_count];
}

static int connect_server(const struct link *link)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, link->server_path, sizeof(address.sun_path));
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	    fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static void take_connection(struct link *link)
{
	int agent = accept4(link->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int server = agent >= 0 && link->pair_count < PAIRS_MAX ? connect_server(link) : -1;

	if (server < 0) {
		if (agent >= 0)
			close(agent);
		return;
	}
	link->pairs[link->pair_count++] = (struct pair){.fds = {[LINK_TO_SERVER] = server, [LINK_TO_AGENT] = agent},
							.number = link->accepted++};
}

static uint32_t delay_of(const struct link *link, const struct pair *pair, enum link_way way)
{
	uint32_t of = __atomic_load_n(&link->lag_of, __ATOMIC_RELAXED);
	uint32_t delay_ms = __atomic_load_n(&link->delay_ms[way], __ATOMIC_RELAXED);

	if (of && pair->number % of == __atomic_load_n(&link->lag_which, __ATOMIC_RELAXED) % of)
		delay_ms += __atomic_load_n(&link->lag_ms[way], __ATOMIC_RELAXED);
	return delay_ms;
}

/* What has come at one end goes into the queue of the way to the other. */
static void take_bytes(struct link *link, struct pair *pair, enum link_way w)
{
	struct way *way = &pair->ways[w];
	struct chunk *chunk = malloc(sizeof(*chunk) + CHUNK_BYTES);
	ssize_t length;

	if (!chunk)
		abort();
	length = recv(pair->fds[!w], chunk->bytes, CHUNK_BYTES, MSG_DONTWAIT);
	if (length <= 0) {
		way->ended |= length == 0 || (errno != EAGAIN && errno != EINTR);
		free(chunk);
		return;
	}
	chunk->next = NULL;
	chunk->sent = 0;
	chunk->length = (size_t)length;
	chunk->due_ms = now_ms() + delay_of(link, pair, w);
	*(way->last ? &way->last->next : &way->first) = chunk;
	way->last = chunk;
	way->queued += chunk->length;
}

/* False: the receiver is gone. */
static bool give_bytes(struct pair *pair, enum link_way w, uint64_t now)
{
	struct way *way = &pair->ways[w];

	while (way->first && way->first->due_ms <= now) {
		struct chunk *chunk = way->first;
		ssize_t sent = send(pair->fds[w], chunk->bytes + chunk->sent, chunk->length - chunk->sent,
				    MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0)
			return errno == EAGAIN || errno == EINTR;
		chunk->sent += (size_t)sent;
		if (chunk->sent < chunk->length)
			return true;
		drop_chunk(way);
	}
	return true;
}

static bool serve_pair(struct link *link, struct pair *pair, const struct pollfd *polls)
{
	uint64_t now = now_ms();

	for (int w = 0; w < LINK_WAYS; w++) {
		struct way *way = &pair->ways[w];

		if (polls[!w].revents)
			take_bytes(link, pair, (enum link_way)w);
		if (__atomic_load_n(&link->held[w], __ATOMIC_RELAXED))
			continue;
		if (!give_bytes(pair, (enum link_way)w, now) || (way->ended && !way->first))
			return false;
	}
	return true;
}

static void turn(struct link *link)
{
	struct pollfd polls[1 + 2 * PAIRS_MAX];
	uint32_t count = link->pair_count;

	polls[0] = (struct pollfd){.fd = link->listener, .events = POLLIN};
	for (uint32_t i = 0; i < count; i++)
		for (int w = 0; w < LINK_WAYS; w++) {
			const struct way *from = &link->pairs[i].ways[!w];
			bool full = from->queued >= QUEUE_BYTES || from->ended;

			polls[1 + 2 * i + (uint32_t)w] =
				(struct pollfd){.fd = full ? -1 : link->pairs[i].fds[w], .events = POLLIN};
		}
	(void)poll(polls, 1 + 2 * count, TURN_MS);
	for (uint32_t i = count; i-- > 0;)
		if (!serve_pair(link, &link->pairs[i], &polls[1 + 2 * i]))
			close_pair(link, i, false);
	if (polls[0].revents)
		take_connection(link);
}

static void *carry(void *context)
{
	struct link *link = context;

	while (!__atomic_load_n(&link->end, __ATOMIC_ACQUIRE)) {
		uint32_t cuts = __atomic_load_n(&link->cuts, __ATOMIC_ACQUIRE);

		if (cuts != link->cuts_done) {
			while (link->pair_count > 0)
				close_pair(link, 0, true);
			__atomic_store_n(&link->cuts_done, cuts, __ATOMIC_RELEASE);
		}
		turn(link);
	}
	while (link->pair_count > 0)
		close_pair(link, 0, true);
	return NULL;
}

struct link *link_start(const char *server_path, uint16_t *ret_port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct link *link = calloc(1, sizeof(*link));
	socklen_t length = sizeof(address);

	if (!link)
		return NULL;
	snprintf(link->server_path, sizeof(link->server_path), "%s", server_path);
	link->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (link->listener < 0 || bind(link->listener, (struct sockaddr *)&address, length) < 0 ||
	    listen(link->listener, 64) < 0 || getsockname(link->listener, (struct sockaddr *)&address, &length) < 0 ||
	    pthread_create(&link->thread, NULL, carry, link) != 0) {
		fprintf(stderr, "no link: %s\n", strerror(errno));
		if (link->listener >= 0)
			close(link->listener);
		free(link);
		return NULL;
	}
	*ret_port = ntohs(address.sin_port);
	return link;
}

void link_stop(struct link *link)
{
	if (!link)
		return;
	__atomic_store_n(&link->end, true, __ATOMIC_RELEASE);
	pthread_join(link->thread, NULL);
	close(link->listener);
	free(link);
}

void link_delay(struct link *link, enum link_way way, uint32_t delay_ms)
{
	__atomic_store_n(&link->delay_ms[way], delay_ms, __ATOMIC_RELAXED);
}

void link_lag(struct link *link, enum link_way way, uint32_t lag_ms, uint32_t of, uint32_t which)
{
	__atomic_store_n(&link->lag_ms[way], lag_ms, __ATOMIC_RELAXED);
	__atomic_store_n(&link->lag_which, which, __ATOMIC_RELAXED);
	__atomic_store_n(&link->lag_of, of, __ATOMIC_RELAXED);
}

void link_hold(struct link *link, enum link_way way, bool held)
{
	__atomic_store_n(&link->held[way], held, __ATOMIC_RELAXED);
}

void link_cut(struct link *link)
{
	uint32_t wanted = __atomic_add_fetch(&link->cuts, 1, __ATOMIC_ACQ_REL);

	while (__atomic_load_n(&link->cuts_done, __ATOMIC_ACQUIRE) != wanted)
		(void)usleep(1000);
}
