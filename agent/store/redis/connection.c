/*
 * One connection.
 *
 *	RESOLVING ─> CONNECTING ─> GREETING ─> READY ─> DRAINING ─┐
 *	     └────────────┴────────────┴─────────┴────────────────┴─> CLOSED ─> freed
 *
 * Commands collect in `output` and leave in one send before the loop waits (uv_prepare): what all clients asked for during
 * a turn shares it. Writability is watched only after the socket refused bytes. Answers come in the order of the flights;
 * anything else ends the connection, and with it the flights, so an answer that is late never meets a new request.
 *
 * Losing a connection decides about each flight: a command whose last byte the kernel did not take cannot have been
 * executed; a write that went out as a whole is RSHM_E_UNKNOWN, unless it is one that may be sent again (command.c);
 * reads may be asked again. A read whose own deadline passes is answered and its flight kept, so that one impatient
 * reader does not cost the others their connection. A write whose deadline passes ends the connection, because only
 * then can the barrier (pool.c) order it before the next write.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/store/redis/redis_priv.h"
#include "shm/msg.h"

#define CONNECTION_VECTORS 64u
#define CONNECTION_READS_PER_TURN 16u /* of REDIS_READ_BYTES: then the others have their turn */
#define TLS_ALERT 0x15 /* the first byte of what a server of TLS says to us; no answer of RESP begins with it */
#define CONNECTION_FLIGHTS_FIRST 64u

static void connection_on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *addresses);
static void connection_on_event(uv_poll_t *poll, int status, int events);

/* ---- connecting ------------------------------------------------------------------------------------------------ */

static void connection_free(struct redis_connection *connection)
{
	struct redis_store *store = connection->store;

	must(connection->state == REDIS_CONNECTION_CLOSED && !connection->dirty && connection->flights.count == 0);
	uv_freeaddrinfo(connection->addresses);
	redis_reader_destroy(&connection->reader);
	redis_output_reset(&connection->output);
	free(connection->flights.ring);
	connection->magic = 0;
	free(connection);
	redis_store_on_handle_closed(store);
}

/* Frees a closed connection once libuv knows nothing of it any more. */
static void connection_release(struct redis_connection *connection)
{
	if (connection->state == REDIS_CONNECTION_CLOSED && connection->polls == 0 && !connection->resolving)
		connection_free(connection);
}

static void connection_on_closed(uv_handle_t *handle)
{
	struct redis_connection *connection = handle->data;

	free(handle);
	connection->polls--;
	connection_release(connection);
}

/* Lets go of the descriptor and its watch. */
static void connection_hang_up(struct redis_connection *connection)
{
	if (connection->poll != NULL)
		uv_close((uv_handle_t *)connection->poll, connection_on_closed);
	connection->poll = NULL;
	if (connection->fd >= 0)
		close(connection->fd);
	connection->fd = -1;
}

static int connection_watch(struct redis_connection *connection)
{
	int events = UV_READABLE;

	if (connection->state == REDIS_CONNECTION_CONNECTING)
		events = UV_WRITABLE;
	else if (connection->blocked)
		events |= UV_WRITABLE;
	return uv_poll_start(connection->poll, events, connection_on_event);
}

/* Begins to connect to one address. 0, or an errno. */
static int connection_dial(struct redis_connection *connection, const struct sockaddr *address, socklen_t length)
{
	int one = 1, fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error;
	uv_poll_t *poll;

	if (fd < 0)
		return errno;
	if (address->sa_family != AF_UNIX) {
		/* Both only make things better. */
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	}
	if (connect(fd, address, length) != 0 && errno != EINPROGRESS) {
		error = errno;
		close(fd);
		return error;
	}
	poll = malloc(sizeof(*poll));
	error = poll != NULL ? uv_poll_init(connection->store->loop, poll, fd) : UV_ENOMEM;
	if (error != 0) {
		free(poll);
		close(fd);
		return -error;
	}
	poll->data = connection;
	connection->poll = poll;
	connection->polls++;
	connection->fd = fd;
	connection->state = REDIS_CONNECTION_CONNECTING;
	return -connection_watch(connection);
}

/* Tries the addresses of the name that are left, each with a handle of its own: libuv's keeps to one descriptor. */
static void connection_dial_next(struct redis_connection *connection, int error)
{
	char reason[128];

	while (connection->address != NULL) {
		const struct addrinfo *address = connection->address;

		connection->address = address->ai_next;
		error = connection_dial(connection, address->ai_addr, address->ai_addrlen);
		if (error == 0)
			return;
		connection_hang_up(connection);
	}
	snprintf(reason, sizeof(reason), "cannot connect: %s", strerror(error));
	redis_connection_lose(connection, reason, RSHM_OK);
}

static void connection_on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *addresses)
{
	struct redis_connection *connection = resolve->data;
	char reason[128];

	connection->resolving = false;
	connection->addresses = connection->address = addresses;
	if (connection->state == REDIS_CONNECTION_CLOSED) {
		connection_release(connection);
		return;
	}
	if (status == 0) {
		connection_dial_next(connection, EHOSTUNREACH);
		return;
	}
	snprintf(reason, sizeof(reason), "cannot find the host: %s", uv_strerror(status));
	redis_connection_lose(connection, reason, RSHM_OK);
}

int redis_connection_create(struct redis_store *store, enum redis_role role, struct redis_connection **ret)
{
	static const size_t reply_max[] = {
		[REDIS_ROLE_FEED] = REDIS_FEED_REPLY_MAX, [REDIS_ROLE_SENTINEL] = REDIS_SENTINEL_REPLY_MAX};
	struct redis_connection *connection = calloc(1, sizeof(*connection));

	_Static_assert(sizeof(reply_max) / sizeof(reply_max[0]) == REDIS_ROLE_SENTINEL + 1, "one per role");
	if (connection == NULL)
		return RSHM_E_NOMEM;
	connection->reader = redis_reader_create(reply_max[role] ? reply_max[role] : store->config.envelope_max);
	if (connection->reader == NULL) {
		free(connection);
		return RSHM_E_NOMEM;
	}
	connection->magic = REDIS_CONNECTION_MAGIC;
	connection->role = role;
	connection->store = store;
	connection->fd = -1;
	connection->begun_ms = connection->idle_since_ms = clock_monotonic_ms();
	connection->retire_ms = REDIS_NEVER;
	store->handles++;
	*ret = connection;
	return RSHM_OK;
}

static int connection_start(struct redis_connection *connection)
{
	struct redis_store *store = connection->store;
	const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct sockaddr_un local = {.sun_family = AF_UNIX};
	struct redis_address to = {.port = store->url.port};
	char port[8];
	int error;

	connection->resolve.data = connection;
	if (connection->role == REDIS_ROLE_SENTINEL)
		to = *redis_failover_asked(store);
	else
		memcpy(to.host, store->url.host, sizeof(to.host));
	if (store->url.is_unix) {
		memcpy(local.sun_path, store->url.path, sizeof(local.sun_path));
		return connection_dial(connection, (const struct sockaddr *)&local, sizeof(local));
	}
	snprintf(port, sizeof(port), "%u", (unsigned)to.port);
	error = uv_getaddrinfo(store->loop, &connection->resolve, connection_on_resolved, to.host, port, &hints);
	connection->resolving = error == 0;
	return -error;
}

void redis_connection_begin(struct redis_connection *connection)
{
	char reason[128];
	int error = connection_start(connection);

	if (error == 0)
		return;
	snprintf(reason, sizeof(reason), "cannot connect: %s", strerror(error));
	redis_connection_lose(connection, reason, RSHM_OK);
}

static void connection_on_connected(struct redis_connection *connection)
{
	int error = 0;
	socklen_t length = sizeof(error);

	if (getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
		error = errno;
	if (error != 0) {
		connection_hang_up(connection);
		connection_dial_next(connection, error);
		return;
	}
	connection->state = REDIS_CONNECTION_GREETING;
	if (connection_watch(connection) != 0 || redis_greeting_send(connection) != RSHM_OK)
		redis_connection_lose(connection, "no memory", RSHM_OK);
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

void redis_connection_mark_dirty(struct redis_connection *connection)
{
	struct redis_store *store = connection->store;

	if (connection->dirty || connection->blocked)
		return;
	connection->dirty = true;
	connection->dirty_next = store->dirty;
	store->dirty = connection;
	redis_store_want_flush(store);
}

static void connection_unmark_dirty(struct redis_connection *connection)
{
	struct redis_connection **link = &connection->store->dirty;

	if (!connection->dirty)
		return;
	while (*link != connection)
		link = &(*link)->dirty_next;
	*link = connection->dirty_next;
	connection->dirty = false;
}

static void connection_set_blocked(struct redis_connection *connection, bool blocked)
{
	if (connection->blocked == blocked)
		return;
	connection->blocked = blocked;
	if (connection_watch(connection) != 0)
		redis_connection_lose(connection, "cannot watch the socket", RSHM_OK);
}

void redis_connection_flush(struct redis_connection *connection)
{
	struct iovec vectors[CONNECTION_VECTORS];
	char reason[128];

	for (;;) {
		struct msghdr message = {.msg_iov = vectors};
		ssize_t sent;

		message.msg_iovlen = redis_output_vectors(&connection->output, vectors, CONNECTION_VECTORS);
		if (message.msg_iovlen == 0) {
			connection_set_blocked(connection, false);
			return;
		}
		sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN) {
			connection_set_blocked(connection, true);
			return;
		}
		if (sent < 0)
			break;
		metric_add(connection->store->metrics, STORE_REDIS_SENDS, 1);
		metric_add(connection->store->metrics, STORE_REDIS_BYTES_SENT, (uint64_t)sent);
		redis_output_advance(&connection->output, (size_t)sent);
	}
	snprintf(reason, sizeof(reason), "connection lost: %s", strerror(errno));
	redis_connection_lose(connection, reason, RSHM_OK);
}

/* ---- receiving ------------------------------------------------------------------------------------------------- */

/* Drops a connection whose server sends what cannot be. */
static void connection_refuse(struct redis_connection *connection, const char *fault)
{
	struct store_request *culprit = NULL;
	char reason[128];

	metric_add(connection->store->metrics, STORE_REDIS_PROTOCOL_ERRORS, 1);
	/* What was answered with this is not asked again: it would be answered the same. */
	if (connection->flights.count > 0) {
		struct redis_flight *flight = redis_flights_at(&connection->flights, 0);

		if (flight->request != NULL && !redis_request_is_write(flight->request)) {
			culprit = flight->request;
			flight->request = NULL;
		}
	}
	snprintf(reason, sizeof(reason), "the server sent %s", fault);
	if (culprit != NULL)
		redis_store_defer(connection->store, culprit, RSHM_E_BACKEND);
	redis_connection_lose(connection, reason, RSHM_OK);
}

/* A feed that is logged in, and a sentinel that has answered, ask for nothing any more, and are told. */
static bool connection_is_fed(const struct redis_connection *connection)
{
	return (connection->role == REDIS_ROLE_FEED || connection->role == REDIS_ROLE_SENTINEL) &&
	       connection->state == REDIS_CONNECTION_READY;
}

static int connection_next_reply(struct redis_connection *connection, struct redis_reply **ret)
{
	enum redis_shape shape = REDIS_SHAPE_PLAIN;

	if (connection_is_fed(connection))
		shape = REDIS_SHAPE_PUSH;
	else if (connection->flights.count > 0)
		shape = redis_command_shape(redis_flights_at(&connection->flights, 0));
	return redis_reader_next(connection->reader, shape, ret);
}

/* Takes over `reply`. False: it cannot be. */
static bool connection_take_push(struct redis_connection *connection, struct redis_reply *reply)
{
	bool fits = connection->role == REDIS_ROLE_SENTINEL ? redis_failover_on_push(connection, reply)
							    : redis_tracking_on_push(connection, reply);

	free(reply);
	return fits;
}

/* Hands on the answers that have come as a whole. False: the connection is closed. */
static bool connection_take_replies(struct redis_connection *connection)
{
	struct redis_reply *reply = NULL;
	int status;

	while ((status = connection_next_reply(connection, &reply)) == RSHM_OK) {
		bool fits;

		if (connection->flights.count == 0 && !connection_is_fed(connection)) {
			free(reply);
			connection_refuse(connection, "an answer that nobody asked for");
			return false;
		}
		fits = connection_is_fed(connection) ? connection_take_push(connection, reply)
						     : redis_command_on_reply(connection, reply);
		if (!fits) {
			connection_refuse(connection, "an answer of the wrong kind");
			return false;
		}
		if (connection->state == REDIS_CONNECTION_CLOSED)
			return false;
	}
	if (status == RSHM_E_PROTOCOL) {
		connection_refuse(connection, redis_reader_fault(connection->reader));
		return false;
	}
	if (status == RSHM_E_NOMEM) {
		redis_connection_lose(connection, "no memory", RSHM_OK);
		return false;
	}
	return true;
}

static void connection_on_readable(struct redis_connection *connection)
{
	struct redis_store *store = connection->store;
	char reason[128];

	for (uint32_t i = 0; i < CONNECTION_READS_PER_TURN; i++) {
		ssize_t length = recv(connection->fd, store->read_buffer, REDIS_READ_BYTES, MSG_DONTWAIT);

		if (length < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (length <= 0) {
			snprintf(reason, sizeof(reason), "connection lost: %s",
				 length == 0 ? "closed by the server" : strerror(errno));
			redis_connection_lose(connection, reason, RSHM_OK);
			return;
		}
		metric_add(store->metrics, STORE_REDIS_BYTES_RECEIVED, (uint64_t)length);
		if (connection->state == REDIS_CONNECTION_GREETING && store->read_buffer[0] == TLS_ALERT) {
			redis_connection_lose(connection, "this port speaks TLS, which this version does not",
					      RSHM_OK);
			return;
		}
		if (redis_reader_feed(connection->reader, store->read_buffer, (size_t)length) != RSHM_OK) {
			redis_connection_lose(connection, "no memory", RSHM_OK);
			return;
		}
		if (!connection_take_replies(connection))
			return;
		if ((size_t)length < REDIS_READ_BYTES)
			break;
	}
	if (connection->flights.count == 0) {
		connection->idle_since_ms = clock_monotonic_ms();
		if (connection->state == REDIS_CONNECTION_DRAINING) {
			redis_connection_lose(connection, NULL, RSHM_OK);
			return;
		}
	}
	redis_pool_dispatch(store);
}

static void connection_on_event(uv_poll_t *poll, int status, int events)
{
	struct redis_connection *connection = poll->data;

	must(connection->magic == REDIS_CONNECTION_MAGIC && connection->state != REDIS_CONNECTION_CLOSED);
	if (connection->state == REDIS_CONNECTION_CONNECTING) {
		connection_on_connected(connection);
		return;
	}
	if (status < 0) {
		/* What came before the end still counts. */
		connection_on_readable(connection);
		if (connection->state != REDIS_CONNECTION_CLOSED)
			redis_connection_lose(connection, "connection lost", RSHM_OK);
		return;
	}
	if (events & UV_WRITABLE) {
		connection->blocked = false;
		redis_connection_mark_dirty(connection);
		if (connection_watch(connection) != 0) {
			redis_connection_lose(connection, "cannot watch the socket", RSHM_OK);
			return;
		}
	}
	if (events & UV_READABLE)
		connection_on_readable(connection);
}

/* ---- ending ---------------------------------------------------------------------------------------------------- */

/* Decides about a command that will not be answered any more. True: it may still run in the server. */
static bool connection_give_up(struct redis_connection *connection, struct redis_flight *flight, uint64_t now_ms)
{
	struct redis_store *store = connection->store;
	struct store_request *request = flight->request;
	bool sent = flight->end <= connection->output.sent;

	free(flight->value);
	redis_tracking_forget(store, flight->ours);
	if (flight->command == REDIS_COMMAND_KILL)
		redis_pool_unsend_kill(store, flight->client_id);
	else if (flight->command == REDIS_COMMAND_CANARY || flight->command == REDIS_COMMAND_PUBLISH_PROBE)
		redis_tracking_on_reply(connection, flight->command, NULL);
	if (request == NULL)
		return false;
	if (sent && redis_request_is_write(request)) {
		request->attempts |= REDIS_ATTEMPTS_UNKNOWN;
		if (redis_command_is_repeatable(request))
			redis_store_retry(store, request, RSHM_E_UNKNOWN);
		else
			redis_store_defer(store, request, RSHM_E_UNKNOWN);
		return true;
	}
	if (request->deadline_ms <= now_ms)
		redis_store_defer(store, request, RSHM_E_TIMEDOUT);
	else
		redis_store_retry(store, request, RSHM_E_AGAIN);
	return false;
}

void redis_connection_lose(struct redis_connection *connection, const char *reason, int refusal)
{
	enum redis_connection_state state = connection->state;
	struct redis_store *store = connection->store;
	uint64_t now_ms = clock_monotonic_ms();
	bool may_run = false;

	must(state != REDIS_CONNECTION_CLOSED);
	connection->state = REDIS_CONNECTION_CLOSED;
	connection_unmark_dirty(connection);
	while (connection->flights.count > 0) {
		struct redis_flight flight = redis_flights_pop(&connection->flights);

		may_run |= connection_give_up(connection, &flight, now_ms);
	}
	if (may_run)
		redis_pool_add_kill(connection);
	if (connection->role == REDIS_ROLE_POOL)
		redis_pool_on_lost(connection, state, reason, refusal);
	else if (connection->role == REDIS_ROLE_SENTINEL)
		redis_failover_on_lost(connection, reason);
	else
		redis_tracking_on_lost(connection, state, reason);
	if (may_run)
		redis_tracking_on_writes_lost(store);
	if (connection->resolving)
		(void)uv_cancel((uv_req_t *)&connection->resolve);
	connection_hang_up(connection);
	connection_release(connection);
}

void redis_connection_drain(struct redis_connection *connection)
{
	if (connection->role == REDIS_ROLE_POOL) {
		redis_pool_retire(connection);
		return;
	}
	must(connection->state == REDIS_CONNECTION_READY);
	connection->state = REDIS_CONNECTION_DRAINING;
	redis_store_wake(connection->store, clock_monotonic_ms());
}

void redis_connection_leave(struct redis_connection *connection)
{
	redis_failover_doubt(connection->store);
	redis_connection_drain(connection);
}

void redis_connection_tick(struct redis_connection *connection, uint64_t now_ms)
{
	struct redis_store *store = connection->store;
	uint64_t patience_ms = store->config.command_timeout_ms;

	if (connection->state < REDIS_CONNECTION_READY) {
		uint64_t until_ms = connection->begun_ms + store->config.connect_timeout_ms;

		if (until_ms <= now_ms)
			redis_connection_lose(connection, "no answer within the connect time-out", RSHM_OK);
		else
			redis_store_wake(store, until_ms);
		return;
	}
	for (uint32_t i = 0; i < connection->flights.count; i++) {
		struct redis_flight *flight = redis_flights_at(&connection->flights, i);
		struct store_request *request = flight->request;

		if (request != NULL && request->deadline_ms <= now_ms && !redis_request_is_write(request)) {
			flight->request = NULL;
			redis_store_defer(store, request, RSHM_E_TIMEDOUT);
		} else if (request != NULL && request->deadline_ms <= now_ms) {
			redis_connection_lose(connection, "no answer within a write's deadline", RSHM_OK);
			return;
		}
		if (flight->begun_ms + patience_ms <= now_ms) {
			redis_connection_lose(connection, "no answer within the command time-out", RSHM_OK);
			return;
		}
		redis_store_wake(store, flight->begun_ms + patience_ms);
		if (flight->request != NULL)
			redis_store_wake(store, flight->request->deadline_ms);
	}
}

/* ---- flights --------------------------------------------------------------------------------------------------- */

bool redis_flights_reserve(struct redis_flights *flights)
{
	uint32_t capacity = flights->capacity != 0 ? flights->capacity * 2 : CONNECTION_FLIGHTS_FIRST;
	struct redis_flight *ring;

	if (flights->count < flights->capacity)
		return true;
	ring = malloc(capacity * sizeof(*ring));
	if (ring == NULL)
		return false;
	for (uint32_t i = 0; i < flights->count; i++)
		ring[i] = *redis_flights_at(flights, i);
	free(flights->ring);
	flights->ring = ring;
	flights->capacity = capacity;
	flights->first = 0;
	return true;
}

void redis_flights_push(struct redis_flights *flights, struct redis_flight flight)
{
	must(flights->count < flights->capacity);
	flights->count++;
	*redis_flights_at(flights, flights->count - 1) = flight;
}

struct redis_flight redis_flights_pop(struct redis_flights *flights)
{
	struct redis_flight flight;

	must(flights->count > 0);
	flight = *redis_flights_at(flights, 0);
	flights->first = (flights->first + 1) & (flights->capacity - 1);
	flights->count--;
	return flight;
}
