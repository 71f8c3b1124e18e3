/*
 * Who the master is, as Redis Sentinel says.
 *
 * One sentinel at a time is talked to: it is asked SENTINEL MASTER, and then subscribed to +switch-master, so that we hear of
 * a failover at once. The next one is asked when this one is lost or silent, when a connection to the master is lost or the
 * server there says that it is none, and every sentinel_refresh_ms; not more often than every sentinel_retry_ms, and not
 * before a question is answered or its time is up.
 *
 * After a loss nobody connects to the master before a sentinel, asked since, has named it once more: a master that died and
 * was started again holds itself to be one, with whatever it has, until sentinels reach it. A sentinel that holds it to be
 * down itself names it and settles nothing; the others are asked, and this one again. A pool that ran empty would not have
 * noticed a loss: it asks when it wants a connection, the sentinel that answered last.
 *
 * Sentinels may have slept, so a word whose epoch is lower than that of the last one believed is taken only if there is no
 * connection to the master, and every sentinel has said no better: they may all be new. The leader of a failover has the next
 * epoch already and still the last address; its word does not count until it is done. Each connection asks its server for its
 * role before it is used: a word that is out of date costs a connect, never a write to a replica.
 *
 * Another master is another server: all connections to the old one end, its feed with them, which fences; what was in flight
 * there is unknown. The old one, should it come back, is not written to, because nobody is connected to it. Its clients are
 * no concern of the barrier (pool.c): what they still bring is lost when it becomes a replica.
 */
#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/redis/redis_priv.h"
#include "shm/msg.h"

#define FAILOVER_SAME_TROUBLE_MS 60000u
#define FAILOVER_CHANNEL "+switch-master"

static struct log_limit master_limit = LOG_LIMIT(10, 10000);
static struct log_limit trouble_limit = LOG_LIMIT(10, 10000);

bool redis_failover_allows(const struct redis_store *store)
{
	const struct redis_failover *failover = &store->failover;

	return failover->sentinels.count == 0 ||
	       (failover->master.port != 0 && failover->doubts_settled == failover->doubts);
}

bool redis_failover_spares(const struct redis_store *store)
{
	return store->failover.sentinels.count == 0 || (store->failover.talks && redis_failover_allows(store));
}

const struct redis_address *redis_failover_asked(const struct redis_store *store)
{
	return &store->failover.asked;
}

void redis_failover_describe(const struct redis_store *store, struct text *text)
{
	const struct redis_failover *failover = &store->failover;

	text_append_format(text, "master %s", failover->sentinels.master);
	if (failover->master.port == 0)
		return;
	text_append_string(text, " at ");
	redis_address_describe(&failover->master, text);
	text_append_format(text, "/%u", (unsigned)store->url.database);
}

void redis_failover_status(const struct redis_store *store, struct text *text)
{
	const struct redis_failover *failover = &store->failover;

	if (failover->sentinels.count == 0)
		return;
	if (failover->talks) {
		text_append_string(text, ", by sentinel ");
		redis_address_describe(&failover->asked, text);
		text_append_format(text, " of %u", (unsigned)failover->sentinels.count);
	} else {
		text_append_format(text, ", no sentinel of %u answers", (unsigned)failover->sentinels.count);
	}
	if (failover->trouble[0] != '\0')
		text_append_format(text, " (%s)", failover->trouble);
}

/* Not later than `at_ms`. */
static void schedule(struct redis_store *store, uint64_t at_ms)
{
	if (at_ms < store->failover.due_ms)
		store->failover.due_ms = at_ms;
	redis_store_wake(store, store->failover.due_ms);
}

/* As soon as may be. */
static void schedule_soon(struct redis_store *store)
{
	uint64_t now_ms = clock_monotonic_ms(), at_ms = store->failover.begun_ms + store->config.sentinel_retry_ms;

	schedule(store, at_ms > now_ms ? at_ms : now_ms);
}

void redis_failover_doubt(struct redis_store *store)
{
	if (store->failover.sentinels.count == 0 || store->closing)
		return;
	store->failover.doubts++;
	schedule_soon(store);
}

void redis_failover_on_empty(struct redis_store *store)
{
	/* The one that answered is as good as the next, and there. */
	if (store->failover.talks)
		store->failover.next = store->failover.asked_index;
	redis_failover_doubt(store);
}

static void note_trouble(struct redis_store *store, const char *what)
{
	struct redis_failover *failover = &store->failover;
	char trouble[sizeof(failover->trouble)];
	struct text text;

	text_init(&text, trouble, sizeof(trouble));
	text_append_string(&text, "sentinel ");
	redis_address_describe(&failover->asked, &text);
	text_append_format(&text, ": %s", what);
	if (strcmp(trouble, failover->logged) != 0 ||
	    clock_monotonic_ms() - failover->logged_ms >= FAILOVER_SAME_TROUBLE_MS) {
		memcpy(failover->logged, trouble, sizeof(trouble));
		failover->logged_ms = clock_monotonic_ms();
		log_limited(&trouble_limit, LOG_LEVEL_WARN, "redis", "%s: %s", store->endpoint, trouble);
	}
	memcpy(failover->trouble, trouble, sizeof(trouble));
}

/* ---- the master ------------------------------------------------------------------------------------------------ */

static void move_to(struct redis_store *store, const struct redis_address *master)
{
	struct redis_tracking *tracking = &store->tracking;
	struct redis_pool *pool = &store->pool;
	const char *reason = "another server is the master now";
	struct text text;

	store->failover.master = *master;
	memcpy(store->url.host, master->host, sizeof(store->url.host));
	store->url.port = master->port;
	text_init(&text, store->endpoint, sizeof(store->endpoint));
	redis_failover_describe(store, &text);
	log_limited(&master_limit, LOG_LEVEL_INFO, "redis", "%s, epoch %llu", store->endpoint,
		    (unsigned long long)store->failover.epoch);
	if (tracking->writer != NULL)
		redis_connection_lose(tracking->writer, reason, RSHM_OK);
	if (tracking->feed != NULL)
		redis_connection_lose(tracking->feed, reason, RSHM_OK);
	while (pool->first != NULL)
		redis_connection_lose(pool->first, reason, RSHM_OK);
	pool->failures = 0;
	pool->connect_ms = 0;
	/* What the old one could not do says nothing of this one. */
	pool->kill_impossible = false;
	redis_store_wake(store, clock_monotonic_ms());
}

static void take_word(struct redis_store *store, const struct redis_sentinel_word *word)
{
	struct redis_failover *failover = &store->failover;

	if (word->failing_over)
		return;
	if (word->epoch < failover->epoch) {
		failover->lower |= 1u << failover->asked_index;
		if (store->pool.ready > 0)
			failover->lower = 0;
		if (failover->lower != (1u << failover->sentinels.count) - 1)
			return;
	}
	failover->lower = 0;
	failover->epoch = word->epoch;
	if (word->master.port != failover->master.port || strcmp(word->master.host, failover->master.host) != 0) {
		move_to(store, &word->master);
		/* All doubts were of the old one. */
		failover->doubts_asked = failover->doubts;
		failover->doubts += word->down;
	}
	if (!word->down)
		failover->doubts_settled = failover->doubts_asked;
	else if (!redis_failover_allows(store))
		note_trouble(store, "it holds the master to be down");
	redis_store_wake(store, clock_monotonic_ms());
}

/* ---- the sentinel ---------------------------------------------------------------------------------------------- */

int redis_failover_greet(struct redis_connection *sentinel)
{
	const struct redis_failover *failover = &sentinel->store->failover;
	struct redis_flight flight = {.command = REDIS_COMMAND_SENTINEL, .replies_left = 1};

	if (!redis_flights_reserve(&sentinel->flights))
		return RSHM_E_NOMEM;
	redis_output_command(&sentinel->output, 3, "SENTINEL");
	redis_output_string(&sentinel->output, "MASTER", 6);
	redis_output_string(&sentinel->output, failover->sentinels.master, strlen(failover->sentinels.master));
	if (sentinel->output.failed)
		return RSHM_E_NOMEM;
	flight.end = sentinel->output.queued;
	flight.begun_ms = clock_monotonic_ms();
	redis_flights_push(&sentinel->flights, flight);
	redis_connection_mark_dirty(sentinel);
	return RSHM_OK;
}

static void subscribe(struct redis_connection *sentinel)
{
	redis_output_command(&sentinel->output, 2, "SUBSCRIBE");
	redis_output_string(&sentinel->output, FAILOVER_CHANNEL, strlen(FAILOVER_CHANNEL));
	if (sentinel->output.failed) {
		redis_connection_lose(sentinel, "no memory", RSHM_OK);
		return;
	}
	sentinel->state = REDIS_CONNECTION_READY;
	redis_connection_mark_dirty(sentinel);
}

/* What an error means; the words of the sentinel are its own, and are not repeated. */
static const char *refusal_of(const struct redis_reply *error)
{
	if (redis_reply_error_is(error, "ERR No such master"))
		return "it knows no master of this name";
	if (redis_reply_error_is(error, "NOAUTH"))
		return "it wants a password; sentinels are asked without one";
	if (redis_reply_error_is(error, "ERR unknown command"))
		return "it is no sentinel";
	return "it refused SENTINEL MASTER";
}

void redis_failover_on_reply(struct redis_connection *sentinel, const struct redis_reply *reply)
{
	struct redis_store *store = sentinel->store;
	struct redis_failover *failover = &store->failover;
	uint64_t refresh_ms = store->config.sentinel_refresh_ms;
	struct redis_sentinel_word word;

	if (reply->type == REDIS_REPLY_IS_ERROR) {
		redis_connection_lose(sentinel, refusal_of(reply), RSHM_OK);
		return;
	}
	if (!redis_sentinel_read(reply, &word)) {
		redis_connection_lose(sentinel, "its answer is none", RSHM_OK);
		return;
	}
	failover->talks = true;
	failover->failures = 0;
	failover->trouble[0] = '\0';
	schedule(store, clock_monotonic_ms() + refresh_ms - refresh_ms / 10 + store->random % (refresh_ms / 5 + 1));
	subscribe(sentinel);
	take_word(store, &word);
	if (!redis_failover_allows(store))
		schedule_soon(store);
}

bool redis_failover_on_push(struct redis_connection *sentinel, const struct redis_reply *push)
{
	struct redis_store *store = sentinel->store;
	struct redis_failover *failover = &store->failover;
	size_t position = 0, length, name_length = strlen(failover->sentinels.master);
	const char *bytes;

	if (push->type != REDIS_REPLY_IS_PUSH || !redis_reply_page_next(push, &position, &bytes, &length) ||
	    !redis_reply_page_next(push, &position, &bytes, &length))
		return false;
	if (push->integer != REDIS_PAYLOAD_TEXT)
		return true;
	/* "name old-host old-port new-host new-port": asked again, for the epoch; the same one, for it knows. */
	if (redis_reply_page_next(push, &position, &bytes, &length) && length > name_length &&
	    memcmp(bytes, failover->sentinels.master, name_length) == 0 && bytes[name_length] == ' ') {
		failover->next = failover->asked_index;
		schedule_soon(store);
	}
	return true;
}

void redis_failover_on_lost(struct redis_connection *sentinel, const char *reason)
{
	struct redis_store *store = sentinel->store;
	struct redis_failover *failover = &store->failover;

	failover->talk = NULL;
	if (store->closing || reason == NULL)
		return;
	failover->talks = false;
	note_trouble(store, reason);
	schedule(store, clock_monotonic_ms() + redis_store_backoff(store, failover->failures));
	failover->failures += failover->failures < UINT32_MAX;
}

static void begin(struct redis_store *store, uint64_t now_ms)
{
	struct redis_failover *failover = &store->failover;

	if (failover->talk != NULL)
		redis_connection_lose(failover->talk, NULL, RSHM_OK);
	failover->asked_index = failover->next;
	failover->asked = failover->sentinels.addresses[failover->next];
	failover->next = (failover->next + 1) % failover->sentinels.count;
	failover->begun_ms = now_ms;
	failover->doubts_asked = failover->doubts;
	failover->due_ms = REDIS_NEVER;
	if (redis_connection_create(store, REDIS_ROLE_SENTINEL, &failover->talk) != RSHM_OK) {
		failover->talk = NULL;
		schedule(store, now_ms + store->config.retry_max_delay_ms);
		return;
	}
	redis_store_wake(store, now_ms + store->config.connect_timeout_ms);
	redis_connection_begin(failover->talk);
}

void redis_failover_tick(struct redis_store *store, uint64_t now_ms)
{
	struct redis_failover *failover = &store->failover;

	if (failover->sentinels.count == 0 || store->closing)
		return;
	if (failover->talk != NULL)
		redis_connection_tick(failover->talk, now_ms);
	if (failover->talk != NULL && failover->talk->state != REDIS_CONNECTION_READY)
		return;
	if (failover->due_ms <= now_ms)
		begin(store, now_ms);
	else if (failover->due_ms != REDIS_NEVER)
		redis_store_wake(store, failover->due_ms);
}

void redis_failover_close(struct redis_store *store)
{
	if (store->failover.talk != NULL)
		redis_connection_lose(store->failover.talk, NULL, RSHM_OK);
}
