/*
 * The store: what a request goes through before and after a connection has it.
 *
 *	submit ─> reads | writes ──(pool_dispatch)──> a connection's flights ─> answer
 *	   │          ^                                      │
 *	   │          └── retrying (pause with back-off) <── lost unsent, a read, or "come back later"
 *	   └─> deferred (refused, expired, lost) ─> idle handle, next turn of the loop ─> answer
 *
 * Answers come on top of a received reply or of the idle handle, never on top of submit, and nothing here touches a request
 * after its `done`.
 *
 * Nothing ticks while nothing is due. wake_ms is a lower bound of everything that has a time: whoever waits for something
 * lowers it; when it passes, all is looked at once and the bound is found anew. With deadlines seconds away that is one look
 * in seconds, however many requests there are.
 */
#include "agent/store/redis/redis.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/redis/redis_priv.h"
#include "shm/msg.h"

#define STORE_TICK_MIN_MS 4u /* between two looks */
#define STORE_HANDLES 3u     /* timer, prepare, idle */

static const struct metric metrics[STORE_REDIS_METRICS] = {
	[STORE_REDIS_REQUESTS] = {"redis_requests_total", METRIC_COUNTER, "Requests answered."},
	[STORE_REDIS_FAILED] = {"redis_requests_failed_total", METRIC_COUNTER, "Requests answered with an error."},
	[STORE_REDIS_RETRIED] = {"redis_retries_total", METRIC_COUNTER, "Requests put back for another try."},
	[STORE_REDIS_REFUSED_QUEUE] = {"redis_queue_full_total", METRIC_COUNTER,
				       "Requests refused because too many were waiting."},
	[STORE_REDIS_UNKNOWN_WRITES] = {"redis_unknown_writes_total", METRIC_COUNTER,
					"Writes that were sent and whose answer never came."},
	[STORE_REDIS_TIMEOUTS] = {"redis_timeouts_total", METRIC_COUNTER, "Requests whose deadline passed."},
	[STORE_REDIS_CONNECTS] = {"redis_connects_total", METRIC_COUNTER, "Connections that became ready."},
	[STORE_REDIS_CONNECT_FAILURES] = {"redis_connect_failures_total", METRIC_COUNTER,
					  "Connections that did not become ready."},
	[STORE_REDIS_CONNECTIONS_LOST] = {"redis_connections_lost_total", METRIC_COUNTER,
					  "Ready connections that ended unasked."},
	[STORE_REDIS_PROTOCOL_ERRORS] = {"redis_protocol_errors_total", METRIC_COUNTER,
					 "Connections dropped because the server sent what cannot be."},
	[STORE_REDIS_KILLS] = {"redis_client_kills_total", METRIC_COUNTER,
			       "Old connections that the server was told to kill before further writes."},
	[STORE_REDIS_BYTES_SENT] = {"redis_sent_bytes_total", METRIC_COUNTER, "Bytes sent."},
	[STORE_REDIS_BYTES_RECEIVED] = {"redis_received_bytes_total", METRIC_COUNTER, "Bytes received."},
	[STORE_REDIS_SENDS] = {"redis_sends_total", METRIC_COUNTER, "Calls of send; one carries many commands."},
};

static struct log_limit error_limit = LOG_LIMIT(5, 10000);

static void store_on_timer(uv_timer_t *timer);
static void store_on_prepare(uv_prepare_t *prepare);
static void store_on_idle(uv_idle_t *idle);

static struct redis_store *redis_store_of(struct store *store)
{
	struct redis_store *redis = (struct redis_store *)(void *)store;

	must(redis->magic == REDIS_STORE_MAGIC);
	return redis;
}

/* ---- submitting ------------------------------------------------------------------------------------------------ */

/* What a request is told that finds no connection: 0 if it may wait for one. */
static int store_absence(const struct redis_store *store, uint64_t now_ms)
{
	const struct redis_pool *pool = &store->pool;

	if (pool->absent_ms == 0)
		return RSHM_OK;
	if (pool->refusal != RSHM_OK)
		return pool->refusal;
	return now_ms - pool->absent_ms < store->config.connect_grace_ms ? RSHM_OK : RSHM_E_AGAIN;
}

static int store_admit(struct redis_store *store, const struct store_request *request)
{
	uint64_t now_ms = clock_monotonic_ms();

	if (store->closing)
		return RSHM_E_CLOSED;
	if (request->op == STORE_FLUSH)
		return RSHM_OK;
	if (request->deadline_ms <= now_ms)
		return RSHM_E_TIMEDOUT;
	if (store->reads.count + store->writes.count + store->tracked.count + store->retrying.count >=
	    store->config.queue_max) {
		metric_add(store->metrics, STORE_REDIS_REFUSED_QUEUE, 1);
		return RSHM_E_AGAIN;
	}
	return store_absence(store, now_ms);
}

struct request_list *redis_store_queue(struct redis_store *store, const struct store_request *request)
{
	if (!redis_request_is_write(request))
		return &store->reads;
	return redis_tracking_takes(store, request) ? &store->tracked : &store->writes;
}

void redis_store_take(struct redis_store *store, struct store_request *request)
{
	int status = store_admit(store, request);

	request->status = RSHM_OK;
	request->result = NULL;
	request->result_len = 0;
	request->remaining_ms = 0;
	request->found_version = 0;
	request->accepted = false;
	request->slot = NULL;
	store->pending++;
	/* There is no journal: nothing was accepted that is not stored. */
	if (status != RSHM_OK || request->op == STORE_FLUSH) {
		redis_store_defer(store, request, status);
		return;
	}
	request_list_append(redis_store_queue(store, request), request);
	redis_store_wake(store, request->deadline_ms);
	redis_pool_dispatch(store);
}

static void store_submit_redis(struct store *base, struct store_request *request)
{
	request->attempts = 0;
	redis_store_take(redis_store_of(base), request);
}

/* ---- answering ------------------------------------------------------------------------------------------------- */

void redis_store_answer(struct redis_store *store, struct store_request *request, int status)
{
	void *slot = request->slot;

	must(store->pending > 0);
	store->pending--;
	/* Whatever became of the last try, an earlier one may have been executed. */
	if (status < 0 && (request->attempts & REDIS_ATTEMPTS_UNKNOWN) != 0)
		status = RSHM_E_UNKNOWN;
	metric_add(store->metrics, STORE_REDIS_REQUESTS, 1);
	if (status < 0)
		metric_add(store->metrics, STORE_REDIS_FAILED, 1);
	if (status == RSHM_E_UNKNOWN)
		metric_add(store->metrics, STORE_REDIS_UNKNOWN_WRITES, 1);
	else if (status == RSHM_E_TIMEDOUT)
		metric_add(store->metrics, STORE_REDIS_TIMEOUTS, 1);
	redis_node_note(store, status);
	request->status = status;
	request->done(request);
	redis_listing_destroy(&slot);
}

void redis_store_defer(struct redis_store *store, struct store_request *request, int status)
{
	request->status = status;
	request_list_append(&store->deferred, request);
	if (!uv_is_closing((uv_handle_t *)&store->idle))
		(void)uv_idle_start(&store->idle, store_on_idle);
}

void redis_store_retry(struct redis_store *store, struct store_request *request, int status)
{
	uint32_t attempts = request->attempts & REDIS_ATTEMPTS_RETRIES;
	uint64_t due_ms = clock_monotonic_ms() + redis_store_backoff(store, attempts);

	if (store->closing) {
		redis_store_defer(store, request, RSHM_E_CLOSED);
		return;
	}
	if (attempts >= store->config.retry_attempts || due_ms >= request->deadline_ms) {
		redis_store_defer(store, request, status);
		return;
	}
	redis_node_note(store, RSHM_E_AGAIN);
	request->attempts++;
	request->state = (uint32_t)due_ms;
	metric_add(store->metrics, STORE_REDIS_RETRIED, 1);
	request_list_append(&store->retrying, request);
	redis_store_wake(store, due_ms);
}

uint64_t redis_store_backoff(struct redis_store *store, uint32_t attempts)
{
	uint64_t most_ms = store->config.retry_max_delay_ms, pause_ms = store->config.retry_delay_ms;

	while (attempts-- > 0 && pause_ms < most_ms)
		pause_ms *= 2;
	if (pause_ms > most_ms)
		pause_ms = most_ms;
	/* xorshift: spreads the agents of many hosts, and needs no secrecy. */
	store->random ^= store->random << 13;
	store->random ^= store->random >> 7;
	store->random ^= store->random << 17;
	return pause_ms / 2 + store->random % (pause_ms / 2 + 1);
}

void redis_store_log_error(struct redis_store *store, const char *advice, const struct redis_reply *error)
{
	/* A server knows the password it was sent, and could have it written into our log. */
	bool tells = store->url.password[0] != '\0' &&
		     memmem(error->bytes, error->length, store->url.password, strlen(store->url.password)) != NULL;

	log_limited(&error_limit, LOG_LEVEL_ERROR, "redis", "%s: %s (%.200s)", store->endpoint, advice,
		    tells ? "its text is withheld" : error->bytes);
}

/* ---- time ------------------------------------------------------------------------------------------------------ */

static void store_arm(struct redis_store *store, uint64_t least_ms)
{
	uint64_t now_ms = clock_monotonic_ms();
	uint64_t delay_ms = store->wake_ms > now_ms ? store->wake_ms - now_ms : 0;

	if (store->wake_ms == REDIS_NEVER || store->closing)
		(void)uv_timer_stop(&store->timer);
	else
		(void)uv_timer_start(&store->timer, store_on_timer, delay_ms > least_ms ? delay_ms : least_ms, 0);
}

void redis_store_wake(struct redis_store *store, uint64_t at_ms)
{
	if (at_ms >= store->wake_ms)
		return;
	store->wake_ms = at_ms;
	store_arm(store, 1);
}

/* Answers what has waited too long, or at all if `absence` says so. */
static void store_expire(struct redis_store *store, struct request_list *list, uint64_t now_ms, int absence)
{
	struct store_request *request = list->first, *next;

	for (; request != NULL; request = next) {
		bool expired = request->deadline_ms <= now_ms;

		next = request->next;
		if (expired || absence != RSHM_OK) {
			request_list_remove(list, request);
			redis_store_defer(store, request, expired ? RSHM_E_TIMEDOUT : absence);
		} else {
			redis_store_wake(store, request->deadline_ms);
		}
	}
}

static void store_resume_retries(struct redis_store *store, uint64_t now_ms)
{
	struct store_request *request = store->retrying.first, *next;

	for (; request != NULL; request = next) {
		/* Pauses are short: the lower half of the clock is enough to compare. */
		int32_t left_ms = (int32_t)(request->state - (uint32_t)now_ms);

		next = request->next;
		if (left_ms > 0) {
			redis_store_wake(store, now_ms + (uint64_t)left_ms);
			continue;
		}
		request_list_remove(&store->retrying, request);
		request_list_append(redis_store_queue(store, request), request);
	}
}

static void store_on_timer(uv_timer_t *timer)
{
	struct redis_store *store = timer->data;
	uint64_t now_ms = clock_monotonic_ms();
	int absence;

	store->wake_ms = REDIS_NEVER;
	redis_pool_tick(store, now_ms);
	redis_tracking_tick(store, now_ms);
	redis_failover_tick(store, now_ms);
	store_expire(store, &store->retrying, now_ms, RSHM_OK);
	store_resume_retries(store, now_ms);
	absence = store_absence(store, now_ms);
	if (store->pool.absent_ms != 0 && absence == RSHM_OK)
		redis_store_wake(store, store->pool.absent_ms + store->config.connect_grace_ms);
	store_expire(store, &store->reads, now_ms, absence);
	store_expire(store, &store->writes, now_ms, absence);
	store_expire(store, &store->tracked, now_ms, absence);
	redis_pool_dispatch(store);
	store_arm(store, STORE_TICK_MIN_MS);
}

void redis_store_want_flush(struct redis_store *store)
{
	(void)uv_prepare_start(&store->prepare, store_on_prepare);
}

static void store_on_prepare(uv_prepare_t *prepare)
{
	struct redis_store *store = prepare->data;

	while (store->dirty != NULL) {
		struct redis_connection *connection = store->dirty;

		store->dirty = connection->dirty_next;
		connection->dirty = false;
		redis_connection_flush(connection);
	}
	(void)uv_prepare_stop(prepare);
}

/* ---- ending ---------------------------------------------------------------------------------------------------- */

static void store_destroy(struct redis_store *store)
{
	metric_set_destroy(&store->metrics);
	redis_url_wipe(&store->url);
	free(store->pool.kills);
	redis_tracking_destroy(store);
	free(store->read_buffer);
	store->magic = 0;
	free(store);
}

void redis_store_on_handle_closed(struct redis_store *store)
{
	void (*closed)(void *context) = store->closed;
	void *context = store->closed_context;

	must(store->handles > 0);
	if (--store->handles > 0 || !store->closing)
		return;
	while (store->deferred.first != NULL) {
		struct store_request *request = store->deferred.first;

		request_list_remove(&store->deferred, request);
		redis_store_answer(store, request, request->status);
	}
	must(store->pending == 0);
	store_destroy(store);
	if (closed != NULL)
		closed(context);
}

static void store_on_own_closed(uv_handle_t *handle)
{
	redis_store_on_handle_closed(handle->data);
}

static void store_on_idle(uv_idle_t *idle)
{
	struct redis_store *store = idle->data;

	/* What is deferred meanwhile has its own turn: a caller that tries again at once does not stop the loop. */
	for (uint32_t left = store->deferred.count; left > 0; left--) {
		struct store_request *request = store->deferred.first;

		request_list_remove(&store->deferred, request);
		redis_store_answer(store, request, request->status);
	}
	if (store->deferred.count > 0)
		return;
	(void)uv_idle_stop(idle);
	if (!store->closing || uv_is_closing((uv_handle_t *)idle))
		return;
	uv_close((uv_handle_t *)&store->timer, store_on_own_closed);
	uv_close((uv_handle_t *)&store->prepare, store_on_own_closed);
	uv_close((uv_handle_t *)&store->idle, store_on_own_closed);
}

static void store_give_back(struct redis_store *store, struct request_list *list)
{
	while (list->first != NULL) {
		struct store_request *request = list->first;

		request_list_remove(list, request);
		redis_store_defer(store, request, RSHM_E_CLOSED);
	}
}

static void store_close_redis(struct store *base, void (*closed)(void *context), void *context)
{
	struct redis_store *store = redis_store_of(base);

	must(!store->closing);
	store->closing = true;
	store->closed = closed;
	store->closed_context = context;
	redis_failover_close(store);
	redis_tracking_close(store);
	redis_pool_close(store);
	store_give_back(store, &store->reads);
	store_give_back(store, &store->writes);
	store_give_back(store, &store->tracked);
	store_give_back(store, &store->retrying);
	(void)uv_timer_stop(&store->timer);
	(void)uv_idle_start(&store->idle, store_on_idle);
}

/* ---- watching -------------------------------------------------------------------------------------------------- */

static void store_watch_redis(struct store *base, const struct store_watcher *watcher)
{
	redis_tracking_watch(redis_store_of(base), watcher);
}

/* ---- telling --------------------------------------------------------------------------------------------------- */

static void store_status_redis(struct store *base, struct store_status *ret)
{
	struct redis_store *store = redis_store_of(base);
	const struct redis_pool *pool = &store->pool;
	struct text detail;

	memset(ret, 0, sizeof(*ret));
	ret->name = base->ops->name;
	ret->ready = pool->ready > 0;
	ret->connections = pool->count;
	ret->connections_max = store->config.pool_max;
	ret->pending = store->pending;
	ret->completed = metric_value(store->metrics, STORE_REDIS_REQUESTS);
	ret->failed = metric_value(store->metrics, STORE_REDIS_FAILED);
	ret->retried = metric_value(store->metrics, STORE_REDIS_RETRIED);
	ret->reconnects = metric_value(store->metrics, STORE_REDIS_CONNECTIONS_LOST);
	redis_tracking_status(store, &ret->feed);
	text_init(&detail, ret->detail, sizeof(ret->detail));
	text_append_string(&detail, store->endpoint);
	redis_failover_status(store, &detail);
	if (pool->ready > 0) {
		text_append_format(&detail, ", %s", pool->server);
		if (pool->kills_count > 0)
			text_append_string(&detail, ", writes wait until a lost connection is killed");
		if (store->tracking.why[0] != '\0')
			text_append_format(&detail, ", changes by others: %s", store->tracking.why);
		return;
	}
	text_append_string(&detail, ", not ready");
	if (pool->absent_ms != 0)
		text_append_format(&detail, " for %" PRIu64 " s", (clock_monotonic_ms() - pool->absent_ms) / 1000);
	if (pool->trouble[0] != '\0')
		text_append_format(&detail, ": %s", pool->trouble);
}

const struct metric_set *store_redis_metrics(const struct store *base)
{
	const struct redis_store *store = (const struct redis_store *)(const void *)base;

	must(store->magic == REDIS_STORE_MAGIC);
	return store->metrics;
}

/* ---- beginning ------------------------------------------------------------------------------------------------- */

static void store_reload_redis(struct store *base, const void *config)
{
	struct redis_store *store = redis_store_of(base);
	const struct store_redis_config *from = config;
	struct store_redis_config *to = &store->config;

	to->idle_timeout_ms = from->idle_timeout_ms;
	to->lifetime_ms = from->lifetime_ms;
	to->connect_timeout_ms = from->connect_timeout_ms;
	to->command_timeout_ms = from->command_timeout_ms;
	to->connect_grace_ms = from->connect_grace_ms;
	to->retry_attempts = from->retry_attempts;
	to->retry_delay_ms = from->retry_delay_ms;
	to->retry_max_delay_ms = from->retry_max_delay_ms;
	to->enable_pipelining = from->enable_pipelining;
	to->max_pipeline_size = from->max_pipeline_size > 0 ? from->max_pipeline_size : 1;
	to->queue_max = from->queue_max > 0 ? from->queue_max : 1;
	/* Times may have become shorter. */
	redis_store_wake(store, clock_monotonic_ms());
}

static const struct store_ops redis_ops = {
	.name = "redis",
	.submit = store_submit_redis,
	.status = store_status_redis,
	.close = store_close_redis,
	.watch = store_watch_redis,
	.reload = store_reload_redis,
};

int store_redis_check(const struct store_redis_config *config, struct text *error)
{
	struct keys_options keys = {config->key_prefix, config->key_version};

	if (config->pool_max < 1 || config->pool_max > STORE_REDIS_POOL_MAX || config->pool_min > config->pool_max)
		text_append_format(error, "the pool must have 1 to %u connections at most, and not more at least",
				   STORE_REDIS_POOL_MAX);
	else if (config->max_pipeline_size < 1 || config->queue_max < 1 || config->envelope_max < 1)
		text_append_string(error, "max_pipeline_size, queue and entry size must be at least 1");
	else if (keys_options_check(&keys) != RSHM_OK)
		text_append_format(error, "the key prefix must be 1 to %u of A-Z a-z 0-9 _ . : -, its version not 0",
				   KEYS_PREFIX_MAX);
	else
		return RSHM_OK;
	return RSHM_E_INVALID;
}

static void store_init_handles(struct redis_store *store)
{
	/* None of these can fail. */
	(void)uv_timer_init(store->loop, &store->timer);
	(void)uv_prepare_init(store->loop, &store->prepare);
	(void)uv_idle_init(store->loop, &store->idle);
	store->timer.data = store->prepare.data = store->idle.data = store;
	store->handles = STORE_HANDLES;
}

static int store_parse_url(struct redis_store *store, const char *url, struct text *error)
{
	if (redis_sentinel_is_meant(url))
		return redis_sentinel_parse(url, &store->failover.sentinels, &store->url, error);
	return redis_url_parse(url, &store->url, error);
}

int store_redis_create(uv_loop_t *loop, const struct store_redis_config *config, struct store **ret, char *error,
		       size_t error_size)
{
	struct redis_store *store;
	struct text text;

	text_init(&text, error, error_size);
	if (store_redis_check(config, &text) != RSHM_OK)
		return RSHM_E_INVALID;
	store = calloc(1, sizeof(*store));
	if (store == NULL || store_parse_url(store, config->url, &text) != RSHM_OK) {
		free(store);
		return store == NULL ? RSHM_E_NOMEM : RSHM_E_INVALID;
	}
	store->store.ops = &redis_ops;
	store->magic = REDIS_STORE_MAGIC;
	store->loop = loop;
	store->config = *config;
	store->config.url = store->config.key_prefix = NULL;
	text_init(&text, store->endpoint, sizeof(store->endpoint));
	if (store->failover.sentinels.count > 0)
		redis_failover_describe(store, &text);
	else
		redis_url_describe(&store->url, &text);
	snprintf(store->key_prefix, sizeof(store->key_prefix), "%s", config->key_prefix);
	store->keys = (struct keys_options){store->key_prefix, config->key_version};
	store->metrics = metric_set_create("redis", metrics, STORE_REDIS_METRICS);
	store->read_buffer = malloc(REDIS_READ_BYTES);
	store->pool.kills = calloc(config->pool_max + 1, sizeof(store->pool.kills[0]));
	if (store->metrics == NULL || store->read_buffer == NULL || store->pool.kills == NULL) {
		store_destroy(store);
		text_init(&text, error, error_size);
		text_append_string(&text, "no memory for the store");
		return RSHM_E_NOMEM;
	}
	if (getrandom(&store->random, sizeof(store->random), GRND_NONBLOCK) != sizeof(store->random) ||
	    store->random == 0)
		store->random = clock_monotonic_ns() | 1;
	store->wake_ms = REDIS_NEVER;
	store->tracking.mode = STORE_TTL;
	store_init_handles(store);
	redis_store_wake(store, clock_monotonic_ms());
	*ret = &store->store;
	return RSHM_OK;
}
