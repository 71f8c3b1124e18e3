/*
 * What others change: a feed that is told of it, a writer whose own writes it is not told of, and canaries.
 *
 *	OFF    nobody watches, or this server cannot and mode() said so; anew when another server answers
 *	 │
 *	WAITS ──> FEED ──────────────> WRITER ──────────────────────> WORKS: armed while no CLIENT KILL is outstanding
 *	 ^        connect, SUBSCRIBE   connect, CLIENT TRACKING ON       │
 *	 └─ back-off ┴────────────────────┴──────────────────────────────┘
 *
 * The server tells the feed of every change under the prefix, except for plain writes of the writer (NOLOOP). A second
 * tracked writer would not do: each is told of what the other wrote. So what NOLOOP does not cover, scripts and large
 * values that go through the pool, is noted in ours.c, and told as "maybe ours".
 *
 * Losing the feed or the writer fences at once, and both are begun anew. A writer whose feed is lost answers what is in
 * flight before its successor begins. A connection lost with writes in flight fences too: they may be executed until its
 * CLIENT KILL is answered, and neither the writer nor anybody else is told of the writer's own. Where that cannot be had
 * there is no tracking.
 *
 * Callbacks may submit requests and close the store: `closing`, or `tracking.feed`, tells whether we go on.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/redis/redis_priv.h"
#include "shm/msg.h"

#define TRACKING_CHANNEL "__redis__:invalidate"
#define TRACKING_SAME_TROUBLE_MS 10000u
#define TRACKING_DETECT_AGAIN_MS 300000u /* a refusal may have been passing, and ACLs change */
#define LEASE_MIN_MS 100u

static struct log_limit trouble_limit = LOG_LIMIT(20, 10000);
static struct log_limit mode_limit = LOG_LIMIT(20, 10000);

uint64_t redis_tracking_lease_ms(const struct redis_store *store)
{
	return store->config.lease_ms > LEASE_MIN_MS ? store->config.lease_ms : LEASE_MIN_MS;
}

/* ---- telling --------------------------------------------------------------------------------------------------- */

static void tracking_set_mode(struct redis_store *store, enum store_coherence mode)
{
	static const char *const names[] = {
		[STORE_TTL] = "ttl", [STORE_CHANNEL] = "channel", [STORE_TRACKING] = "tracking"};
	struct redis_tracking *tracking = &store->tracking;

	if (tracking->mode == mode && tracking->mode_told)
		return;
	tracking->mode = mode;
	tracking->mode_told = true;
	log_limited(&mode_limit, LOG_LEVEL_INFO, "redis", "%s: changes by others: mode %s", store->endpoint,
		    names[mode]);
	tracking->watcher.mode(tracking->watcher.context, mode);
}

/* An id that nobody else has. */
void redis_tracking_make_id(char ret[static REDIS_ID_DIGITS + 1])
{
	uint64_t random = 0;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
		random = clock_monotonic_ns() ^ ((uint64_t)getpid() << 40);
	snprintf(ret, REDIS_ID_DIGITS + 1, "%016" PRIx64, random);
}

static void tracking_fence(struct redis_store *store, bool armed, const char *why)
{
	struct redis_tracking *tracking = &store->tracking;

	tracking->armed = armed;
	tracking->fences += !armed;
	tracking->proven_ms = 0;
	redis_canary_reset(store);
	tracking->watcher.fenced(tracking->watcher.context, armed, why);
}

/* ---- coming and going ------------------------------------------------------------------------------------------ */

/* The log hears of it if it is news, else now and then. */
static void tracking_note_trouble(struct redis_store *store, const char *why)
{
	struct redis_tracking *tracking = &store->tracking;
	uint64_t now_ms = clock_monotonic_ms();

	if (strcmp(tracking->why, why) == 0 && now_ms - tracking->trouble_logged_ms < TRACKING_SAME_TROUBLE_MS)
		return;
	snprintf(tracking->why, sizeof(tracking->why), "%s", why);
	tracking->trouble_logged_ms = now_ms;
	log_limited(&trouble_limit, LOG_LEVEL_WARN, "redis", "%s: changes by others go untold: %s", store->endpoint,
		    why);
}

/* Ends feed and writer, which answers first what it has in flight. The stage says that they are not needed any more. */
static void tracking_drop(struct redis_store *store)
{
	struct redis_tracking *tracking = &store->tracking;
	struct redis_connection *writer = tracking->writer;

	must(tracking->stage <= REDIS_TRACKING_WAITS);
	if (tracking->feed != NULL)
		redis_connection_lose(tracking->feed, NULL, RSHM_OK);
	if (writer == NULL || writer->state == REDIS_CONNECTION_DRAINING)
		return;
	if (writer->state == REDIS_CONNECTION_READY && writer->flights.count > 0)
		redis_connection_drain(writer);
	else
		redis_connection_lose(writer, NULL, RSHM_OK);
}

void redis_tracking_fail(struct redis_store *store, const char *why)
{
	struct redis_tracking *tracking = &store->tracking;
	uint64_t now_ms = clock_monotonic_ms();

	tracking_note_trouble(store, why);
	/* Tracking may be possible by now. */
	if (tracking->stage == REDIS_TRACKING_CHANNEL)
		tracking->by_channel = store->config.coherence == STORE_REDIS_CHANNEL;
	tracking->stage = REDIS_TRACKING_WAITS;
	tracking->begin_ms = now_ms + redis_store_backoff(store, tracking->failures);
	tracking->failures += tracking->failures < UINT32_MAX;
	tracking_drop(store);
	redis_store_wake(store, tracking->begin_ms);
	if (tracking->armed)
		tracking_fence(store, false, tracking->why);
}

/* For a long while, or until another server answers, there is no more than TTL. */
void redis_tracking_give_up(struct redis_store *store, const char *why)
{
	struct redis_tracking *tracking = &store->tracking;

	tracking_note_trouble(store, why);
	tracking->publishes = false;
	tracking->stage = REDIS_TRACKING_OFF;
	tracking->server_number = store->pool.server_number;
	tracking->begin_ms = clock_monotonic_ms() + TRACKING_DETECT_AGAIN_MS;
	redis_store_wake(store, tracking->begin_ms);
	tracking_drop(store);
	if (tracking->armed)
		tracking_fence(store, false, tracking->why);
	if (!store->closing)
		tracking_set_mode(store, STORE_TTL);
}

/* The server cannot do what was begun: the next best. */
static void tracking_fall_back(struct redis_store *store, const char *why)
{
	struct redis_tracking *tracking = &store->tracking;

	if (store->config.coherence != STORE_REDIS_AUTO || tracking->by_channel) {
		redis_tracking_give_up(store, why);
		return;
	}
	tracking_note_trouble(store, why);
	snprintf(tracking->downgrade, sizeof(tracking->downgrade), "%s", why);
	tracking->by_channel = true;
	tracking->stage = REDIS_TRACKING_WAITS;
	tracking->begin_ms = clock_monotonic_ms();
	tracking_drop(store);
	redis_store_wake(store, tracking->begin_ms);
	if (tracking->armed)
		tracking_fence(store, false, tracking->why);
}

static void tracking_begin(struct redis_store *store, uint64_t now_ms)
{
	struct redis_tracking *tracking = &store->tracking;

	if (redis_connection_create(store, REDIS_ROLE_FEED, &tracking->feed) != RSHM_OK) {
		redis_tracking_fail(store, "no memory");
		return;
	}
	tracking->stage = REDIS_TRACKING_FEED;
	tracking->begin_ms = now_ms + 2 * store->config.connect_timeout_ms;
	redis_store_wake(store, tracking->begin_ms);
	redis_connection_begin(tracking->feed);
}

static void tracking_begin_writer(struct redis_store *store)
{
	struct redis_tracking *tracking = &store->tracking;

	if (!redis_failover_allows(store)) {
		redis_tracking_fail(store, "no sentinel has named the master since a loss");
		return;
	}
	if (redis_connection_create(store, REDIS_ROLE_WRITER, &tracking->writer) != RSHM_OK) {
		redis_tracking_fail(store, "no memory");
		return;
	}
	tracking->stage = REDIS_TRACKING_WRITER;
	redis_store_wake(store, clock_monotonic_ms() + store->config.connect_timeout_ms);
	redis_connection_begin(tracking->writer);
}

static void tracking_arm(struct redis_store *store)
{
	struct redis_tracking *tracking = &store->tracking;

	if (tracking->armed || store->pool.kills_count > 0)
		return;
	/* What the pool's other connections read, this feed does not cover. */
	redis_pool_keep_only(store, tracking->server_number);
	tracking->why[0] = '\0';
	tracking->publishes = false;
	tracking_set_mode(store, STORE_TRACKING);
	if (tracking->stage == REDIS_TRACKING_WORKS)
		tracking_fence(store, true, "feed and writer work");
	redis_store_wake(store, clock_monotonic_ms());
}

/* ---- the links ------------------------------------------------------------------------------------------------- */

const char *redis_tracking_channel(const struct redis_store *store, char ret[static KEYS_PREFIX_MAX + 32])
{
	snprintf(ret, KEYS_PREFIX_MAX + 32, "%s:v%" PRIu32 ":changes", store->keys.prefix, store->keys.version);
	return ret;
}

/* What the feed subscribes to. */
const char *redis_tracking_feed_channel(const struct redis_store *store, char buffer[static KEYS_PREFIX_MAX + 32])
{
	return store->tracking.by_channel ? redis_tracking_channel(store, buffer) : TRACKING_CHANNEL;
}

static void feed_on_ready(struct redis_connection *feed)
{
	struct redis_store *store = feed->store;

	char buffer[KEYS_PREFIX_MAX + 32];
	const char *channel = redis_tracking_feed_channel(store, buffer);

	store->tracking.server_number = feed->server_number;
	if (feed->client_id == 0 && !store->tracking.by_channel) {
		redis_tracking_give_up(store, "the server does not tell CLIENT ID");
		return;
	}
	redis_output_command(&feed->output, 2, "SUBSCRIBE");
	redis_output_string(&feed->output, channel, strlen(channel));
	if (feed->output.failed)
		redis_tracking_fail(store, "no memory");
	else
		redis_connection_mark_dirty(feed);
}

static void writer_on_ready(struct redis_connection *writer)
{
	struct redis_store *store = writer->store;

	if (writer->server_number != store->tracking.server_number)
		redis_tracking_fail(store, "feed and writer came to different servers");
	else if (redis_command_send_tracking(writer, store->tracking.feed->client_id) != RSHM_OK)
		redis_tracking_fail(store, "no memory");
}

void redis_tracking_on_ready(struct redis_connection *connection)
{
	metric_add(connection->store->metrics, STORE_REDIS_CONNECTS, 1);
	if (connection->role == REDIS_ROLE_FEED)
		feed_on_ready(connection);
	else
		writer_on_ready(connection);
}

void redis_tracking_on_lost(struct redis_connection *connection, enum redis_connection_state state,
			    const char *reason)
{
	struct redis_store *store = connection->store;
	struct redis_tracking *tracking = &store->tracking;

	*(connection->role == REDIS_ROLE_FEED ? &tracking->feed : &tracking->writer) = NULL;
	if (store->closing)
		return;
	redis_pool_count_loss(store, state, reason != NULL);
	if (reason != NULL)
		redis_failover_doubt(store);
	if (tracking->stage > REDIS_TRACKING_WAITS)
		redis_tracking_fail(store, reason != NULL ? reason : "the server is a replica");
	redis_store_wake(store, clock_monotonic_ms());
}

void redis_tracking_on_server(struct redis_store *store)
{
	struct redis_tracking *tracking = &store->tracking;
	const struct redis_connection *feed = tracking->feed;

	if (!tracking->watched || store->closing)
		return;
	if (tracking->stage > REDIS_TRACKING_WAITS && feed->server_number != 0 &&
	    feed->server_number != store->pool.server_number)
		redis_tracking_fail(store, "another server answers");
	/* It has not subscribed yet. */
	if (tracking->stage <= REDIS_TRACKING_FEED) {
		tracking->by_channel = store->config.coherence == STORE_REDIS_CHANNEL;
		tracking->publishes = false;
	}
	redis_store_wake(store, clock_monotonic_ms());
}

void redis_tracking_on_writes_lost(struct redis_store *store)
{
	if (store->tracking.armed && !store->closing)
		tracking_fence(store, false, "a connection with writes in flight was lost");
}

/* What a refused command of ours means. */
void redis_tracking_on_refused(struct redis_store *store, const char *what, const struct redis_reply *error)
{
	/* Not: the feed was lost, and we have not heard yet. */
	bool cannot = redis_reply_error_is(error, "NOPERM") ||
		      (redis_reply_error_is(error, "ERR ") &&
		       !redis_reply_error_is(error, "ERR The client ID you want redirect"));
	char why[96];

	snprintf(why, sizeof(why), "the server refused %s", what);
	redis_store_log_error(store, why, error);
	if (cannot || redis_reply_error_is(error, "EXECABORT"))
		tracking_fall_back(store, why);
	else
		redis_tracking_fail(store, why);
}

/* The feed of mode CHANNEL is subscribed: whether we may publish. */
static void channel_probe(struct redis_store *store)
{
	struct redis_tracking *tracking = &store->tracking;
	struct redis_connection *connection = redis_pool_find(store, tracking->server_number);

	tracking->stage = REDIS_TRACKING_WRITER;
	if (connection == NULL || redis_command_send_publish_probe(connection) != RSHM_OK)
		redis_tracking_fail(store, "no connection to publish on");
}

void redis_tracking_on_subscribed(struct redis_store *store)
{
	if (store->tracking.by_channel)
		channel_probe(store);
	else
		tracking_begin_writer(store);
}

/* NULL: its connection was lost. */
static void channel_on_probed(struct redis_store *store, const struct redis_reply *reply)
{
	struct redis_tracking *tracking = &store->tracking;

	if (tracking->stage != REDIS_TRACKING_WRITER || !tracking->by_channel)
		return;
	if (reply == NULL) {
		redis_tracking_fail(store, "the connection to publish on was lost");
	} else if (reply->type == REDIS_REPLY_IS_ERROR) {
		redis_tracking_on_refused(store, "MULTI, PUBLISH, EXEC", reply);
	} else {
		tracking->stage = REDIS_TRACKING_CHANNEL;
		tracking->publishes = true;
		tracking->failures = 0;
		snprintf(tracking->why, sizeof(tracking->why), "%s",
			 store->config.coherence == STORE_REDIS_AUTO ? tracking->downgrade : "");
		tracking_set_mode(store, STORE_CHANNEL);
	}
}

void redis_tracking_on_unpublished(struct redis_store *store, const struct redis_reply *error)
{
	if (store->tracking.publishes)
		redis_tracking_on_refused(store, "PUBLISH", error);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

void redis_tracking_on_reply(struct redis_connection *connection, enum redis_command command,
			     const struct redis_reply *reply)
{
	struct redis_store *store = connection->store;
	bool failed = reply == NULL || reply->type == REDIS_REPLY_IS_ERROR;

	if (command == REDIS_COMMAND_CANARY) {
		redis_canary_on_answer(connection, reply);
		return;
	}
	if (command == REDIS_COMMAND_PUBLISH_PROBE) {
		channel_on_probed(store, reply);
		return;
	}
	/* An older writer that is on its way out. */
	if (connection->state != REDIS_CONNECTION_READY || store->tracking.stage != REDIS_TRACKING_WRITER)
		return;
	if (command == REDIS_COMMAND_TRACKING) {
		if (failed)
			redis_tracking_on_refused(store, "CLIENT TRACKING", reply);
	} else if (failed) {
		redis_store_log_error(store, "the server refused CLIENT KILL", reply);
		redis_tracking_give_up(store, "the server refused CLIENT KILL");
	} else if (connection->server_number == 0) {
		redis_tracking_give_up(store, "the server does not tell its run_id");
	} else {
		store->tracking.stage = REDIS_TRACKING_WORKS;
		tracking_arm(store);
	}
}

/* ---- what is ours ---------------------------------------------------------------------------------------------- */

/* Whether NOLOOP covers it on the writer. */
static bool request_is_plain(const struct store_request *request)
{
	return (request->op == STORE_PUT || request->op == STORE_DELETE) && request->condition == STORE_ALWAYS;
}

bool redis_tracking_takes(const struct redis_store *store, const struct store_request *request)
{
	return store->tracking.watched && request_is_plain(request) &&
	       (request->op == STORE_DELETE || request->envelope_len <= REDIS_WRITER_VALUE_MAX);
}

struct redis_connection *redis_tracking_writer(const struct redis_store *store)
{
	struct redis_connection *writer = store->tracking.writer;
	bool works = store->tracking.stage == REDIS_TRACKING_WORKS && writer->state == REDIS_CONNECTION_READY;

	return works ? writer : NULL;
}

uint32_t redis_tracking_note(const struct redis_connection *connection, const struct store_request *request,
			     const struct keys_redis *key)
{
	struct redis_tracking *tracking = &connection->store->tracking;

	if (tracking->ours == NULL || !redis_request_is_write(request) || connection->role == REDIS_ROLE_WRITER)
		return 0;
	return redis_ours_begin(tracking->ours, key->bytes, key->length);
}

void redis_tracking_forget(struct redis_store *store, uint32_t token)
{
	if (token != 0)
		redis_ours_end(store->tracking.ours, token, clock_monotonic_ms() + redis_tracking_lease_ms(store));
}

/* ---- beginning, time, ending ----------------------------------------------------------------------------------- */

void redis_tracking_watch(struct redis_store *store, const struct store_watcher *watcher)
{
	struct redis_tracking *tracking = &store->tracking;

	must(!tracking->watched);
	tracking->watched = true;
	tracking->watcher = *watcher;
	if (store->config.coherence == STORE_REDIS_TTL) {
		tracking_set_mode(store, STORE_TTL);
		return;
	}
	tracking->ours = redis_ours_create();
	if (tracking->ours == NULL) {
		tracking_note_trouble(store, "no memory");
		tracking_set_mode(store, STORE_TTL);
		return;
	}
	redis_tracking_make_id(tracking->id);
	tracking->by_channel = store->config.coherence == STORE_REDIS_CHANNEL;
	tracking->stage = REDIS_TRACKING_WAITS;
	redis_store_wake(store, clock_monotonic_ms());
}

bool redis_tracking_wants_pool(const struct redis_store *store)
{
	return store->tracking.stage != REDIS_TRACKING_OFF;
}

/* May lose it. */
static void link_tick(struct redis_connection *link, uint64_t now_ms)
{
	if (link == NULL)
		return;
	if (link->state == REDIS_CONNECTION_DRAINING && link->flights.count == 0)
		redis_connection_lose(link, NULL, RSHM_OK);
	else
		redis_connection_tick(link, now_ms);
}

void redis_tracking_tick(struct redis_store *store, uint64_t now_ms)
{
	struct redis_tracking *tracking = &store->tracking;

	if (tracking->ours == NULL)
		return;
	link_tick(tracking->feed, now_ms);
	link_tick(tracking->writer, now_ms);
	if (store->closing)
		return;
	if (tracking->stage > REDIS_TRACKING_WAITS && !tracking->by_channel && store->pool.kill_impossible)
		tracking_fall_back(store, "the server does not allow CLIENT ID, INFO or CLIENT KILL");
	if (tracking->stage == REDIS_TRACKING_OFF &&
	    (tracking->server_number != store->pool.server_number || tracking->begin_ms <= now_ms)) {
		tracking->by_channel = store->config.coherence == STORE_REDIS_CHANNEL;
		tracking->stage = REDIS_TRACKING_WAITS;
		tracking->begin_ms = now_ms;
	}
	switch (tracking->stage) {
	case REDIS_TRACKING_OFF:
		redis_store_wake(store, tracking->begin_ms);
		break;
	case REDIS_TRACKING_CHANNEL:
		break;
	case REDIS_TRACKING_WAITS:
		/* The loss of the old writer wakes us, and so does the first connection of the pool. */
		if (tracking->writer != NULL || store->pool.ready == 0 || !redis_failover_allows(store))
			break;
		if (tracking->begin_ms <= now_ms)
			tracking_begin(store, now_ms);
		else
			redis_store_wake(store, tracking->begin_ms);
		break;
	case REDIS_TRACKING_FEED:
	case REDIS_TRACKING_WRITER:
		if (tracking->begin_ms <= now_ms)
			redis_tracking_fail(store, "no answer within the connect time-out");
		else
			redis_store_wake(store, tracking->begin_ms);
		break;
	case REDIS_TRACKING_WORKS:
		if (tracking->writer->state != REDIS_CONNECTION_READY)
			redis_tracking_fail(store, "the server is a replica");
		else if (!tracking->armed)
			tracking_arm(store);
		if (tracking->armed)
			redis_canary_tick(store, now_ms);
		break;
	}
}

void redis_tracking_status(const struct redis_store *store, struct store_feed *ret)
{
	const struct redis_tracking *tracking = &store->tracking;

	ret->mode = tracking->mode;
	ret->armed = tracking->armed;
	ret->proof_age_ms = tracking->proven_ms != 0 ? clock_monotonic_ms() - tracking->proven_ms : UINT64_MAX;
	ret->changes = tracking->changes;
	ret->maybe_ours = tracking->maybe_ours;
	ret->canaries = tracking->canaries;
	ret->fences = tracking->fences;
}

void redis_tracking_close(struct redis_store *store)
{
	struct redis_tracking *tracking = &store->tracking;

	tracking->stage = REDIS_TRACKING_OFF;
	tracking->armed = false;
	if (tracking->feed != NULL)
		redis_connection_lose(tracking->feed, NULL, RSHM_OK);
	if (tracking->writer != NULL)
		redis_connection_lose(tracking->writer, NULL, RSHM_OK);
}

void redis_tracking_destroy(struct redis_store *store)
{
	redis_ours_destroy(&store->tracking.ours);
}
