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
 * The server does not say when it has stopped to tell: when the writer is gone, the feed is silent and answers PING. So a
 * canary, a key of our own, is written through the pool every now and then. Its coming proves that what was executed before
 * it has been told; what we claim is a canary less, the time when the one before was to be sent. A canary that does not
 * come within half a lease breaks the feed. A canary that could not be sent is sent once more under another name, so that
 * the first, should it be executed after all, is nobody's proof.
 *
 * Losing the feed or the writer fences at once, and both are begun anew. A writer whose feed is lost answers what is in
 * flight before its successor begins. A connection lost with writes in flight fences too: they may be executed until its
 * CLIENT KILL is answered, and neither the writer nor anybody else is told of the writer's own. Where that cannot be had
 * there is no tracking.
 *
 * Callbacks may submit requests and close the store: after each, `tracking.feed` tells whether we go on.
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
#define CANARY_INTERVAL_MAX_MS 500u
#define CANARY_AGAIN_MS 20u
#define LEASE_MIN_MS 100u
#define ID_DIGITS 16u

static struct log_limit trouble_limit = LOG_LIMIT(20, 10000);
static struct log_limit mode_limit = LOG_LIMIT(20, 10000);

static uint64_t lease_ms(const struct redis_store *store)
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
static void id_make(char ret[static ID_DIGITS + 1])
{
	uint64_t random = 0;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
		random = clock_monotonic_ns() ^ ((uint64_t)getpid() << 40);
	snprintf(ret, ID_DIGITS + 1, "%016" PRIx64, random);
}

static void canary_reset(struct redis_store *store)
{
	struct redis_canary *canary = &store->tracking.canary;

	*canary = (struct redis_canary){.number = canary->number};
	id_make(canary->id);
}

static void tracking_fence(struct redis_store *store, bool armed, const char *why)
{
	struct redis_tracking *tracking = &store->tracking;

	tracking->armed = armed;
	tracking->fences += !armed;
	tracking->proven_ms = 0;
	canary_reset(store);
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

static void tracking_fail(struct redis_store *store, const char *why)
{
	struct redis_tracking *tracking = &store->tracking;
	uint64_t now_ms = clock_monotonic_ms();

	tracking_note_trouble(store, why);
	tracking->stage = REDIS_TRACKING_WAITS;
	tracking->begin_ms = now_ms + redis_store_backoff(store, tracking->failures);
	tracking->failures += tracking->failures < UINT32_MAX;
	tracking_drop(store);
	redis_store_wake(store, tracking->begin_ms);
	if (tracking->armed)
		tracking_fence(store, false, tracking->why);
}

/* As long as this server lives there is no more than TTL. */
static void tracking_give_up(struct redis_store *store, const char *why)
{
	struct redis_tracking *tracking = &store->tracking;

	tracking_note_trouble(store, why);
	tracking->publishes = false;
	tracking->stage = REDIS_TRACKING_OFF;
	tracking->server_number = store->pool.server_number;
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
		tracking_give_up(store, why);
		return;
	}
	tracking_note_trouble(store, why);
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
		tracking_fail(store, "no memory");
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

	if (redis_connection_create(store, REDIS_ROLE_WRITER, &tracking->writer) != RSHM_OK) {
		tracking_fail(store, "no memory");
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
static const char *feed_channel(const struct redis_store *store, char buffer[static KEYS_PREFIX_MAX + 32])
{
	return store->tracking.by_channel ? redis_tracking_channel(store, buffer) : TRACKING_CHANNEL;
}

static void feed_on_ready(struct redis_connection *feed)
{
	struct redis_store *store = feed->store;

	char buffer[KEYS_PREFIX_MAX + 32];
	const char *channel = feed_channel(store, buffer);

	store->tracking.server_number = feed->server_number;
	if (feed->client_id == 0 && !store->tracking.by_channel) {
		tracking_give_up(store, "the server does not tell CLIENT ID");
		return;
	}
	redis_output_command(&feed->output, 2, "SUBSCRIBE");
	redis_output_string(&feed->output, channel, strlen(channel));
	if (feed->output.failed)
		tracking_fail(store, "no memory");
	else
		redis_connection_mark_dirty(feed);
}

static void writer_on_ready(struct redis_connection *writer)
{
	struct redis_store *store = writer->store;

	if (writer->server_number != store->tracking.server_number)
		tracking_fail(store, "feed and writer came to different servers");
	else if (redis_command_send_tracking(writer, store->tracking.feed->client_id) != RSHM_OK)
		tracking_fail(store, "no memory");
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
	if (tracking->stage > REDIS_TRACKING_WAITS)
		tracking_fail(store, reason != NULL ? reason : "the server is a replica");
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
		tracking_fail(store, "another server answers");
	if (tracking->stage <= REDIS_TRACKING_WAITS) {
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
static void tracking_on_error(struct redis_store *store, const char *what, const struct redis_reply *error)
{
	char why[96];

	snprintf(why, sizeof(why), "the server refused %s", what);
	redis_store_log_error(store, why, error);
	/* The feed was lost, and we have not heard yet. */
	if (redis_reply_verdict(error).retry || redis_reply_error_is(error, "ERR The client ID you want redirect"))
		tracking_fail(store, why);
	else
		tracking_fall_back(store, why);
}

/* The feed of mode CHANNEL is subscribed: whether we may publish. */
static void channel_probe(struct redis_store *store)
{
	struct redis_tracking *tracking = &store->tracking;
	struct redis_connection *connection = redis_pool_find(store, tracking->server_number);

	tracking->stage = REDIS_TRACKING_WRITER;
	if (connection == NULL || redis_command_send_publish_probe(connection) != RSHM_OK)
		tracking_fail(store, "no connection to publish on");
}

/* NULL: its connection was lost. */
static void channel_on_probed(struct redis_store *store, const struct redis_reply *reply)
{
	struct redis_tracking *tracking = &store->tracking;

	if (tracking->stage != REDIS_TRACKING_WRITER || !tracking->by_channel)
		return;
	if (reply == NULL) {
		tracking_fail(store, "the connection to publish on was lost");
	} else if (reply->type == REDIS_REPLY_IS_ERROR) {
		tracking_on_error(store, "MULTI, PUBLISH, EXEC", reply);
	} else {
		tracking->stage = REDIS_TRACKING_CHANNEL;
		tracking->publishes = true;
		tracking->failures = 0;
		tracking_set_mode(store, STORE_CHANNEL);
	}
}

void redis_tracking_on_unpublished(struct redis_store *store, const struct redis_reply *error)
{
	if (store->tracking.publishes)
		tracking_on_error(store, "PUBLISH", error);
}

/* ---- canaries -------------------------------------------------------------------------------------------------- */

static uint64_t canary_interval_ms(const struct redis_store *store)
{
	uint64_t quarter_ms = lease_ms(store) / 4;

	return quarter_ms < CANARY_INTERVAL_MAX_MS ? quarter_ms : CANARY_INTERVAL_MAX_MS;
}

static size_t canary_name(const struct redis_store *store, char *ret, size_t capacity)
{
	const struct redis_canary *canary = &store->tracking.canary;

	return (size_t)snprintf(ret, capacity, "%s:v%" PRIu32 ":canary:%s:%u", store->keys.prefix,
				store->keys.version, canary->id, (unsigned)(canary->number & 1));
}

/* Sends the one that is due, or the outstanding one again. */
static void canary_send(struct redis_store *store, uint64_t now_ms)
{
	struct redis_tracking *tracking = &store->tracking;
	struct redis_canary *canary = &tracking->canary;
	struct redis_connection *connection = redis_pool_find(store, tracking->server_number);
	char name[KEYS_REDIS_MAX];

	if (!canary->outstanding) {
		canary->outstanding = true;
		canary->begun_ms = now_ms;
		canary->number++;
		tracking->canaries++;
	}
	(void)canary_name(store, name, sizeof(name));
	canary->in_flight = connection != NULL && redis_command_send_canary(connection, name) == RSHM_OK;
	canary->due_ms = now_ms + CANARY_AGAIN_MS;
}

/* It was not executed, for all we know. */
static void canary_on_failure(struct redis_store *store, uint64_t pause_ms)
{
	struct redis_canary *canary = &store->tracking.canary;
	struct redis_canary failed = *canary;

	if (!store->tracking.armed || !canary->in_flight)
		return;
	canary_reset(store);
	canary->outstanding = failed.outstanding;
	canary->begun_ms = failed.begun_ms;
	canary->previous_ms = failed.previous_ms;
	canary->due_ms = clock_monotonic_ms() + pause_ms;
	redis_store_wake(store, canary->due_ms);
}

static void canary_on_told(struct redis_store *store)
{
	struct redis_tracking *tracking = &store->tracking;
	struct redis_canary *canary = &tracking->canary;
	uint64_t previous_ms = canary->previous_ms;

	canary->told = canary->outstanding = false;
	canary->previous_ms = canary->begun_ms;
	/* The second one comes at once, for it is the first that proves something. */
	canary->due_ms = previous_ms != 0 ? canary->begun_ms + canary_interval_ms(store) : 0;
	redis_store_wake(store, canary->due_ms);
	if (previous_ms == 0)
		return;
	tracking->failures = 0;
	tracking->proven_ms = previous_ms;
	tracking->watcher.proven(tracking->watcher.context, previous_ms);
}

static void canary_tick(struct redis_store *store, uint64_t now_ms)
{
	struct redis_canary *canary = &store->tracking.canary;
	uint64_t broken_ms = canary->begun_ms + lease_ms(store) / 2;

	if (canary->outstanding && broken_ms <= now_ms) {
		tracking_fail(store, "the feed does not tell of what we write");
		return;
	}
	if ((!canary->outstanding || !canary->in_flight) && canary->due_ms <= now_ms)
		canary_send(store, now_ms);
	broken_ms = canary->begun_ms + lease_ms(store) / 2;
	if (canary->outstanding)
		redis_store_wake(store, broken_ms);
	if (!canary->outstanding || !canary->in_flight)
		redis_store_wake(store, canary->due_ms);
}

/* NULL: its connection was lost. */
static void canary_on_error(struct redis_connection *connection, const struct redis_reply *error)
{
	struct redis_store *store = connection->store;

	if (error == NULL) {
		canary_on_failure(store, CANARY_AGAIN_MS);
		return;
	}
	canary_on_failure(store, canary_interval_ms(store));
	redis_store_log_error(store, "the server refused our canary", error);
	if (redis_reply_verdict(error).leave && connection->state == REDIS_CONNECTION_READY)
		redis_connection_drain(connection);
	if (redis_reply_error_is(error, "NOPERM") && store->tracking.armed)
		tracking_give_up(store, "the server's ACL forbids our canary");
}

void redis_tracking_on_reply(struct redis_connection *connection, enum redis_command command,
			     const struct redis_reply *reply)
{
	struct redis_store *store = connection->store;
	bool failed = reply == NULL || reply->type == REDIS_REPLY_IS_ERROR;

	if (command == REDIS_COMMAND_CANARY) {
		if (failed)
			canary_on_error(connection, reply);
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
			tracking_on_error(store, "CLIENT TRACKING", reply);
	} else if (failed) {
		redis_store_log_error(store, "the server refused CLIENT KILL", reply);
		tracking_give_up(store, "the server refused CLIENT KILL");
	} else if (connection->server_number == 0) {
		tracking_give_up(store, "the server does not tell its run_id");
	} else {
		store->tracking.stage = REDIS_TRACKING_WORKS;
		tracking_arm(store);
	}
}

/* ---- what the feed is told ------------------------------------------------------------------------------------- */

static void tracking_tell(struct redis_store *store, const struct store_change *change)
{
	struct redis_tracking *tracking = &store->tracking;

	tracking->changes++;
	tracking->maybe_ours += change->maybe_ours;
	tracking->watcher.changed(tracking->watcher.context, change);
}

static void tracking_on_key(struct redis_store *store, const char *bytes, size_t length, bool maybe_ours)
{
	struct store_change change = {.kind = STORE_CHANGED_ENTRY};
	struct keys_parsed parsed;
	enum keys_form form = keys_redis_parse(&store->keys, bytes, length, &parsed);

	if (form == KEYS_FOREIGN)
		return;
	if (form == KEYS_NAMESPACE)
		change.kind = STORE_CHANGED_NAMESPACE;
	change.tenant = parsed.tenant;
	change.tenant_len = parsed.tenant_len;
	change.generation = parsed.generation;
	change.space = parsed.space;
	change.key = parsed.key;
	change.key_len = parsed.key_len;
	change.maybe_ours = maybe_ours;
	tracking_tell(store, &change);
}

/* The keys of a message; the last callback may have ended the feed. */
static void tracking_on_keys(struct redis_connection *feed, const struct redis_reply *push, size_t position)
{
	static const struct store_change everything = {.kind = STORE_CHANGED_EVERYTHING};
	struct redis_store *store = feed->store;
	struct redis_tracking *tracking = &store->tracking;
	bool all = push->integer != REDIS_PAYLOAD_ITEMS;
	uint64_t now_ms = clock_monotonic_ms();
	char canary[KEYS_REDIS_MAX];
	size_t canary_length = canary_name(store, canary, sizeof(canary)), length;
	const char *bytes;

	if (all)
		tracking_tell(store, &everything);
	while (tracking->feed == feed && redis_reply_page_next(push, &position, &bytes, &length)) {
		if (length == canary_length && memcmp(bytes, canary, length) == 0)
			tracking->canary.told = tracking->armed && tracking->canary.outstanding;
		else if (!all)
			tracking_on_key(store, bytes, length,
					redis_ours_may_be(tracking->ours, bytes, length, now_ms));
	}
	/* Now that the whole message is told: its keys stand in the order of their bytes. */
	if (tracking->feed == feed && tracking->canary.told)
		canary_on_told(store);
}

static bool text_is(const char *bytes, size_t length, const char *text)
{
	return length == strlen(text) && memcmp(bytes, text, length) == 0;
}

/* A message of mode CHANNEL: the id of who sent it, a colon, a Redis key. */
static void channel_on_message(struct redis_store *store, const struct redis_reply *push, size_t position)
{
	const char *bytes;
	size_t length;

	if (push->integer != REDIS_PAYLOAD_ITEMS || !redis_reply_page_next(push, &position, &bytes, &length) ||
	    length <= ID_DIGITS + 1 || bytes[ID_DIGITS] != ':' || memcmp(bytes, store->tracking.id, ID_DIGITS) == 0)
		return;
	tracking_on_key(store, bytes + ID_DIGITS + 1, length - ID_DIGITS - 1, false);
}

bool redis_tracking_on_push(struct redis_connection *connection, const struct redis_reply *push)
{
	struct redis_store *store = connection->store;
	struct redis_tracking *tracking = &store->tracking;
	size_t position = 0, kind_length, channel_length;
	char buffer[KEYS_PREFIX_MAX + 32];
	const char *kind, *channel;

	if (push->type == REDIS_REPLY_IS_ERROR && tracking->stage == REDIS_TRACKING_FEED) {
		tracking_on_error(store, "SUBSCRIBE", push);
		return true;
	}
	if (push->type != REDIS_REPLY_IS_PUSH || !redis_reply_page_next(push, &position, &kind, &kind_length) ||
	    !redis_reply_page_next(push, &position, &channel, &channel_length) ||
	    !text_is(channel, channel_length, feed_channel(store, buffer)))
		return false;
	if (tracking->stage == REDIS_TRACKING_FEED) {
		if (!text_is(kind, kind_length, "subscribe"))
			return false;
		if (tracking->by_channel)
			channel_probe(store);
		else
			tracking_begin_writer(store);
		return true;
	}
	if (!text_is(kind, kind_length, "message"))
		return false;
	/* What is told before the server said that it would tell is covered by the fence that follows. */
	if (tracking->stage == REDIS_TRACKING_WORKS)
		tracking_on_keys(connection, push, position);
	else if (tracking->stage == REDIS_TRACKING_CHANNEL)
		channel_on_message(store, push, position);
	return true;
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
		redis_ours_end(store->tracking.ours, token, clock_monotonic_ms() + lease_ms(store));
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
	id_make(tracking->id);
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
	if (tracking->stage > REDIS_TRACKING_WAITS && !tracking->by_channel && store->pool.kill_impossible)
		tracking_give_up(store, "the server does not allow CLIENT ID, INFO or CLIENT KILL");
	if (tracking->stage == REDIS_TRACKING_OFF && tracking->server_number != store->pool.server_number) {
		tracking->stage = REDIS_TRACKING_WAITS;
		tracking->begin_ms = now_ms;
	}
	switch (tracking->stage) {
	case REDIS_TRACKING_OFF:
	case REDIS_TRACKING_CHANNEL:
		break;
	case REDIS_TRACKING_WAITS:
		/* The loss of the old writer wakes us, and so does the first connection of the pool. */
		if (tracking->writer != NULL || store->pool.ready == 0)
			break;
		if (tracking->begin_ms <= now_ms)
			tracking_begin(store, now_ms);
		else
			redis_store_wake(store, tracking->begin_ms);
		break;
	case REDIS_TRACKING_FEED:
	case REDIS_TRACKING_WRITER:
		if (tracking->begin_ms <= now_ms)
			tracking_fail(store, "no answer within the connect time-out");
		else
			redis_store_wake(store, tracking->begin_ms);
		break;
	case REDIS_TRACKING_WORKS:
		if (tracking->writer->state != REDIS_CONNECTION_READY)
			tracking_fail(store, "the server is a replica");
		else if (!tracking->armed)
			tracking_arm(store);
		if (tracking->armed)
			canary_tick(store, now_ms);
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
