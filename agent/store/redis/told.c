/*
 * What the feed is told, handed on to the watcher.
 *
 * A message of the server names any number of keys in the order of their bytes, not of time; so what a canary among them
 * proves is said when the whole message has been handed on. Keys that are not ours are skipped.
 *
 * Callbacks may submit requests and close the store: after each, `tracking.feed` tells whether we go on.
 */
#include <string.h>

#include "agent/base/clock.h"
#include "agent/store/redis/redis_priv.h"

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
	size_t canary_length = redis_canary_name(store, canary, sizeof(canary)), length;
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
		redis_canary_on_told(store);
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

	if (push->integer != REDIS_PAYLOAD_TEXT || !redis_reply_page_next(push, &position, &bytes, &length) ||
	    length <= REDIS_ID_DIGITS + 1 || bytes[REDIS_ID_DIGITS] != ':' ||
	    memcmp(bytes, store->tracking.id, REDIS_ID_DIGITS) == 0)
		return;
	tracking_on_key(store, bytes + REDIS_ID_DIGITS + 1, length - REDIS_ID_DIGITS - 1, false);
}

bool redis_tracking_on_push(struct redis_connection *connection, const struct redis_reply *push)
{
	struct redis_store *store = connection->store;
	struct redis_tracking *tracking = &store->tracking;
	size_t position = 0, kind_length, channel_length;
	char buffer[KEYS_PREFIX_MAX + 32];
	const char *kind, *channel;

	if (push->type == REDIS_REPLY_IS_ERROR && tracking->stage == REDIS_TRACKING_FEED) {
		redis_tracking_on_refused(store, "SUBSCRIBE", push);
		return true;
	}
	if (push->type != REDIS_REPLY_IS_PUSH || !redis_reply_page_next(push, &position, &kind, &kind_length) ||
	    !redis_reply_page_next(push, &position, &channel, &channel_length) ||
	    !text_is(channel, channel_length, redis_tracking_feed_channel(store, buffer)))
		return false;
	if (tracking->stage == REDIS_TRACKING_FEED) {
		if (!text_is(kind, kind_length, "subscribe"))
			return false;
		redis_tracking_on_subscribed(store);
		return true;
	}
	if (!text_is(kind, kind_length, "message"))
		return false;
	/*
	 * What is told before the server said that it would tell is covered by the fence that follows. A text was not
	 * sent by the server: somebody published it on this channel.
	 */
	if (tracking->stage == REDIS_TRACKING_WORKS && push->integer != REDIS_PAYLOAD_TEXT)
		tracking_on_keys(connection, push, position);
	else if (tracking->stage == REDIS_TRACKING_CHANNEL)
		channel_on_message(store, push, position);
	return true;
}
