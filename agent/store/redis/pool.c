/*
 * Which connections there are, and which one takes a request.
 *
 * Requests gather on few connections, because those of one connection share a send: the first one that has less than a
 * short pipeline takes the next request, beyond that the one with the least. A connection that is in the middle of a large
 * value counts as full, so that a small one need not wait behind it. Where none is free another is opened, up to the most;
 * what stays idle above the least is closed.
 *
 * Connections are opened one after the other. While none is ready the attempts back off, without end; requests wait
 * connect_grace_ms for one and then fail fast (redis.c).
 *
 * The barrier. A write that was sent on a connection we lost may sit in the server's socket and be executed later than a
 * newer write of ours. So the lost connection's CLIENT ID is noted; while such notes exist no write goes out on any
 * connection, and the next thing sent is CLIENT KILL ID for each. An id means something only in the life of the server
 * that gave it: notes fall when INFO tells another run_id, for that server's clients died with it. Where the server cannot
 * tell ids, tells nobody any more who it is, or refuses the kill, the log says so once, and writes go on without the barrier.
 */
#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/redis/redis_priv.h"
#include "shm/msg.h"

#define POOL_GATHER_MAX 32u /* requests in flight up to which the first connection takes all */
#define POOL_OUTPUT_MAX (64u << 10)
#define POOL_KILL_RETRY_MS 100u
#define POOL_NO_IDS "the server does not tell CLIENT ID and run_id"
#define POOL_SAME_TROUBLE_MS 10000u

static struct log_limit trouble_limit = LOG_LIMIT(20, 10000);
static struct log_limit refusal_limit = LOG_LIMIT(20, 10000); /* a person must act: not crowded out by the others */
static struct log_limit ready_limit = LOG_LIMIT(3, 10000);

/* ---- choosing -------------------------------------------------------------------------------------------------- */

static bool connection_is_congested(const struct redis_connection *connection)
{
	const struct redis_output *output = &connection->output;

	return (connection->blocked && output->queued - output->sent > POOL_OUTPUT_MAX) ||
	       redis_reader_is_busy(connection->reader);
}

static uint32_t pool_pipeline_max(const struct redis_store *store)
{
	return store->config.enable_pipelining ? store->config.max_pipeline_size : 1;
}

/* NULL: all are full. *ret_crowded: another connection would serve it better. */
static struct redis_connection *pool_pick(const struct redis_store *store, bool *ret_crowded)
{
	uint32_t most = pool_pipeline_max(store);
	struct redis_connection *best = NULL, *congested = NULL;

	*ret_crowded = false;
	for (struct redis_connection *c = store->pool.first; c != NULL; c = c->next) {
		if (c->state != REDIS_CONNECTION_READY || c->flights.count >= most)
			continue;
		if (connection_is_congested(c)) {
			congested = c;
			continue;
		}
		if (c->flights.count < POOL_GATHER_MAX)
			return c;
		if (best == NULL || c->flights.count < best->flights.count)
			best = c;
	}
	*ret_crowded = best == NULL;
	return best != NULL ? best : congested;
}

/* The writes that may go out on the pool's connections. NULL: none. */
static struct request_list *pool_next_writes(struct redis_store *store)
{
	if (store->pool.kills_count > 0)
		return NULL;
	if (store->writes.count > 0)
		return &store->writes;
	return store->tracked.count > 0 && redis_tracking_writer(store) == NULL ? &store->tracked : NULL;
}

/* The list whose turn it is: they take turns while both have something that may go. */
static struct request_list *pool_next_list(struct redis_store *store, bool *turn)
{
	struct request_list *writes = pool_next_writes(store);

	*turn = !*turn;
	if (writes != NULL && (*turn || store->reads.count == 0))
		return writes;
	return store->reads.count > 0 ? &store->reads : NULL;
}

static void pool_send(struct redis_connection *connection, struct request_list *list)
{
	struct redis_store *store = connection->store;
	struct store_request *request = list->first;
	int status;

	request_list_remove(list, request);
	status = redis_command_send(connection, request);
	if (status != RSHM_OK)
		redis_store_defer(store, request, status);
}

/* Small plain writes have one connection, if tracking works; how many may be in flight there is all the same. */
static void pool_dispatch_tracked(struct redis_store *store)
{
	struct redis_connection *writer = redis_tracking_writer(store);

	while (store->tracked.count > 0 && store->pool.kills_count == 0 && writer != NULL &&
	       writer->flights.count < pool_pipeline_max(store))
		pool_send(writer, &store->tracked);
}

static void pool_open_one(struct redis_store *store)
{
	struct redis_pool *pool = &store->pool;
	struct redis_connection *connection;
	uint64_t now_ms = clock_monotonic_ms();

	if (store->closing || pool->connecting > 0 || pool->count >= store->config.pool_max)
		return;
	if (pool->ran_empty) {
		pool->ran_empty = false;
		redis_failover_on_empty(store);
	}
	if (!redis_failover_allows(store))
		return;
	if (now_ms < pool->connect_ms) {
		redis_store_wake(store, pool->connect_ms);
		return;
	}
	if (redis_connection_create(store, REDIS_ROLE_POOL, &connection) != RSHM_OK) {
		pool->connect_ms = now_ms + redis_store_backoff(store, pool->failures++);
		redis_store_wake(store, pool->connect_ms);
		return;
	}
	connection->prev = pool->last;
	*(pool->last != NULL ? &pool->last->next : &pool->first) = connection;
	pool->last = connection;
	pool->count++;
	pool->connecting++;
	redis_store_wake(store, now_ms + store->config.connect_timeout_ms);
	redis_connection_begin(connection);
}

void redis_pool_dispatch(struct redis_store *store)
{
	struct redis_pool *pool = &store->pool;
	struct request_list *list;
	bool crowded = false, turn = false;

	pool_dispatch_tracked(store);
	while ((list = pool_next_list(store, &turn)) != NULL) {
		struct redis_connection *connection = pool_pick(store, &crowded);

		if (connection == NULL)
			break;
		pool_send(connection, list);
	}
	if (list == NULL && !crowded)
		return;
	if (pool->ready == 0 && pool->absent_ms == 0) {
		pool->absent_ms = clock_monotonic_ms();
		redis_store_wake(store, pool->absent_ms + store->config.connect_grace_ms);
	}
	pool_open_one(store);
}

/* ---- the barrier ----------------------------------------------------------------------------------------------- */

static void pool_give_up_barrier(struct redis_store *store, const char *why)
{
	struct redis_pool *pool = &store->pool;

	if (!pool->kill_impossible)
		log_warn("redis",
			 "%s: %s; a write that timed out may still be executed after a newer one of the same key",
			 store->endpoint, why);
	pool->kill_impossible = true;
	pool->kills_count = 0;
}

void redis_pool_add_kill(struct redis_connection *connection)
{
	struct redis_store *store = connection->store;
	struct redis_pool *pool = &store->pool;

	if (store->closing)
		return;
	if (connection->client_id == 0 || connection->server_number == 0) {
		pool_give_up_barrier(store, POOL_NO_IDS);
		return;
	}
	/* Ids of a server that is no more. */
	if (connection->server_number != pool->server_number || pool->kill_impossible)
		return;
	must(pool->kills_count < store->config.pool_max + 1);
	pool->kills_server = pool->server_number;
	pool->kills[pool->kills_count++] = (struct redis_kill){.client_id = connection->client_id};
}

static struct redis_kill *pool_find_kill(struct redis_pool *pool, uint64_t client_id)
{
	for (uint32_t i = 0; i < pool->kills_count; i++) {
		if (pool->kills[i].client_id == client_id)
			return &pool->kills[i];
	}
	return NULL;
}

void redis_pool_unsend_kill(struct redis_store *store, uint64_t client_id)
{
	struct redis_kill *kill = pool_find_kill(&store->pool, client_id);

	if (kill != NULL)
		kill->sent = false;
}

static void pool_send_kills(struct redis_store *store)
{
	struct redis_pool *pool = &store->pool;
	struct redis_connection *connection = pool->first;
	bool nameless = false;

	for (; connection != NULL; connection = connection->next) {
		if (connection->state != REDIS_CONNECTION_READY)
			continue;
		if (connection->server_number == pool->server_number)
			break;
		nameless |= connection->server_number == 0;
	}
	if (connection == NULL) {
		if (pool->kills_count > 0 && nameless)
			pool_give_up_barrier(store, POOL_NO_IDS);
		return;
	}
	for (uint32_t i = 0; i < pool->kills_count; i++) {
		if (pool->kills[i].sent)
			continue;
		if (redis_command_send_kill(connection, pool->kills[i].client_id) != RSHM_OK) {
			redis_store_wake(store, clock_monotonic_ms() + POOL_KILL_RETRY_MS);
			return;
		}
		pool->kills[i].sent = true;
		metric_add(store->metrics, STORE_REDIS_KILLS, 1);
	}
}

void redis_pool_on_kill(struct redis_store *store, uint64_t client_id, const struct redis_reply *reply)
{
	struct redis_pool *pool = &store->pool;
	struct redis_kill *kill = pool_find_kill(pool, client_id);

	if (kill == NULL)
		return;
	if (reply->type == REDIS_REPLY_IS_ERROR && redis_reply_verdict(reply).retry) {
		kill->sent = false;
		redis_store_wake(store, clock_monotonic_ms() + POOL_KILL_RETRY_MS);
		return;
	}
	if (reply->type == REDIS_REPLY_IS_ERROR) {
		redis_store_log_error(store, "the server refused CLIENT KILL", reply);
		pool_give_up_barrier(store, "CLIENT KILL is not allowed");
	} else {
		/* Killed, or not there any more. */
		*kill = pool->kills[--pool->kills_count];
	}
	/* Tracking may go on. */
	redis_store_wake(store, clock_monotonic_ms());
	redis_pool_dispatch(store);
}

/* ---- coming and going ------------------------------------------------------------------------------------------ */

void redis_pool_on_ready(struct redis_connection *connection)
{
	struct redis_store *store = connection->store;
	struct redis_pool *pool = &store->pool;
	uint64_t lifetime_ms = store->config.lifetime_ms;

	must(pool->connecting > 0);
	pool->connecting--;
	pool->ready++;
	metric_add(store->metrics, STORE_REDIS_CONNECTS, 1);
	if (pool->absent_ms != 0 || pool->ready == 1)
		log_limited(&ready_limit, LOG_LEVEL_INFO, "redis", "%s: ready, %s", store->endpoint, pool->server);
	pool->failures = 0;
	pool->connect_ms = 0;
	pool->absent_ms = 0;
	pool->refusal = RSHM_OK;
	pool->trouble[0] = '\0';
	connection->idle_since_ms = clock_monotonic_ms();
	if (lifetime_ms != 0) {
		/* Connections that began together end apart. */
		store->random = store->random * 6364136223846793005u + 1442695040888963407u;
		connection->retire_ms =
			connection->begun_ms + lifetime_ms - (store->random >> 33) % (lifetime_ms / 10 + 1);
	}
	if (connection->server_number != 0 && pool->kills_count > 0 && pool->kills_server != pool->server_number)
		pool->kills_count = 0;
	pool_send_kills(store);
	redis_pool_dispatch(store);
	redis_store_wake(store, clock_monotonic_ms());
}

void redis_pool_retire(struct redis_connection *connection)
{
	struct redis_pool *pool = &connection->store->pool;

	must(connection->state == REDIS_CONNECTION_READY);
	connection->state = REDIS_CONNECTION_DRAINING;
	pool->ready--;
	redis_store_wake(connection->store, clock_monotonic_ms());
}

/* Why there is no connection, in the status and in the log: there at once if it is news, else now and then. */
static void pool_note_trouble(struct redis_store *store, const char *reason)
{
	struct redis_pool *pool = &store->pool;
	uint64_t now_ms = clock_monotonic_ms();
	bool refused = pool->refusal != RSHM_OK;

	if (strcmp(pool->trouble, reason) == 0 && now_ms - pool->trouble_logged_ms < POOL_SAME_TROUBLE_MS)
		return;
	snprintf(pool->trouble, sizeof(pool->trouble), "%s", reason);
	pool->trouble_logged_ms = now_ms;
	log_limited(refused ? &refusal_limit : &trouble_limit, refused ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN, "redis",
		    "%s: %s%s", store->endpoint, reason, pool->ready == 0 ? "; trying again" : "");
}

void redis_pool_count_loss(struct redis_store *store, enum redis_connection_state state, bool unasked)
{
	if (state < REDIS_CONNECTION_READY)
		metric_add(store->metrics, STORE_REDIS_CONNECT_FAILURES, 1);
	else if (unasked)
		metric_add(store->metrics, STORE_REDIS_CONNECTIONS_LOST, 1);
}

void redis_pool_on_lost(struct redis_connection *connection, enum redis_connection_state state, const char *reason,
			int refusal)
{
	struct redis_store *store = connection->store;
	struct redis_pool *pool = &store->pool;
	uint64_t now_ms = clock_monotonic_ms();

	*(connection->prev != NULL ? &connection->prev->next : &pool->first) = connection->next;
	*(connection->next != NULL ? &connection->next->prev : &pool->last) = connection->prev;
	pool->count--;
	if (state == REDIS_CONNECTION_READY)
		pool->ready--;
	else if (state < REDIS_CONNECTION_READY)
		pool->connecting--;
	if (store->closing)
		return;
	pool->ran_empty = pool->count == 0 && reason == NULL;
	if (pool->ready == 0 && pool->absent_ms == 0 && reason != NULL)
		pool->absent_ms = now_ms;
	redis_pool_count_loss(store, state, reason != NULL);
	if (state < REDIS_CONNECTION_READY) {
		pool->refusal = refusal;
		pool->connect_ms = now_ms + redis_store_backoff(store, pool->failures);
		pool->failures += pool->failures < UINT32_MAX;
	}
	if (reason != NULL) {
		pool_note_trouble(store, reason);
		redis_failover_doubt(store);
	}
	if (pool->ready == 0)
		redis_node_note(store, RSHM_E_AGAIN);
	redis_store_wake(store, now_ms);
}

struct redis_connection *redis_pool_find(const struct redis_store *store, uint32_t server_number)
{
	struct redis_connection *best = NULL;

	for (struct redis_connection *c = store->pool.first; c != NULL; c = c->next) {
		if (c->state == REDIS_CONNECTION_READY && c->server_number == server_number &&
		    !connection_is_congested(c) && (best == NULL || c->flights.count < best->flights.count))
			best = c;
	}
	return best;
}

void redis_pool_keep_only(struct redis_store *store, uint32_t server_number)
{
	for (struct redis_connection *c = store->pool.first; c != NULL; c = c->next) {
		if (c->state == REDIS_CONNECTION_READY && c->server_number != server_number)
			redis_pool_retire(c);
	}
}

void redis_pool_close(struct redis_store *store)
{
	while (store->pool.first != NULL)
		redis_connection_lose(store->pool.first, NULL, RSHM_OK);
}

/* ---- what is due ----------------------------------------------------------------------------------------------- */

/* Retires what is too old, or idle and more than the least. */
static void pool_look_at(struct redis_store *store, struct redis_connection *connection, uint64_t now_ms)
{
	uint64_t idle_ms = store->config.idle_timeout_ms;
	bool spare = store->pool.ready > store->config.pool_min && idle_ms != 0 && connection->flights.count == 0;

	if (connection->state != REDIS_CONNECTION_READY)
		return;
	/* There would be no other; the word that allows one wakes us. */
	if (!redis_failover_spares(store))
		return;
	if (connection->retire_ms <= now_ms || (spare && connection->idle_since_ms + idle_ms <= now_ms)) {
		redis_pool_retire(connection);
		return;
	}
	redis_store_wake(store, connection->retire_ms);
	if (spare)
		redis_store_wake(store, connection->idle_since_ms + idle_ms);
	else if (store->pool.ready > store->config.pool_min && idle_ms != 0)
		redis_store_wake(store, now_ms + idle_ms);
}

void redis_pool_tick(struct redis_store *store, uint64_t now_ms)
{
	struct redis_pool *pool = &store->pool;
	struct redis_connection *connection, *next;
	uint32_t wanted;

	for (connection = pool->first; connection != NULL; connection = next) {
		next = connection->next;
		pool_look_at(store, connection, now_ms);
		if (connection->state == REDIS_CONNECTION_DRAINING && connection->flights.count == 0)
			redis_connection_lose(connection, NULL, RSHM_OK);
		else
			redis_connection_tick(connection, now_ms);
	}
	if (pool->kills_count > 0)
		pool_send_kills(store);
	wanted = store->config.pool_min;
	if (wanted == 0 && (pool->absent_ms != 0 || redis_tracking_wants_pool(store)))
		wanted = 1;
	if (pool->ready + pool->connecting < wanted)
		pool_open_one(store);
}
