/*
 * The server does not say when it has stopped to tell: when the writer is gone, the feed is silent and answers PING. So a
 * canary, a key of our own, is written through the pool every now and then. Its coming proves that what was executed before
 * it has been told; what we claim is a canary less, the time when the one before was to be sent. A canary that does not
 * come within half a lease breaks the feed. A canary that could not be sent is sent once more under another name, so that
 * the first, should it be executed after all, is nobody's proof.
 */
#include <inttypes.h>
#include <stdio.h>

#include "agent/base/clock.h"
#include "agent/store/redis/redis_priv.h"
#include "shm/msg.h"

#define CANARY_INTERVAL_MAX_MS 500u
#define CANARY_REFUSALS_MAX 3u
#define CANARY_AGAIN_MS 20u /* until one that could not be sent is sent again */

void redis_canary_reset(struct redis_store *store)
{
	struct redis_canary *canary = &store->tracking.canary;

	*canary = (struct redis_canary){.number = canary->number};
	redis_tracking_make_id(canary->id);
}

static uint64_t canary_interval_ms(const struct redis_store *store)
{
	uint64_t quarter_ms = redis_tracking_lease_ms(store) / 4;

	return quarter_ms < CANARY_INTERVAL_MAX_MS ? quarter_ms : CANARY_INTERVAL_MAX_MS;
}

size_t redis_canary_name(const struct redis_store *store, char *ret, size_t capacity)
{
	const struct redis_canary *canary = &store->tracking.canary;
	const struct redis_node *node = store->config.node;
	const char *tag = node != NULL ? node->slot_tag(node->context) : NULL;

	/* In a cluster, of a slot that this node has. */
	return (size_t)snprintf(ret, capacity, "%s:v%" PRIu32 ":canary:%s%s%s%s:%u", store->keys.prefix,
				store->keys.version, tag != NULL ? "{" : "", tag != NULL ? tag : "",
				tag != NULL ? "}" : "", canary->id, (unsigned)(canary->number & 1));
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
	(void)redis_canary_name(store, name, sizeof(name));
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
	redis_canary_reset(store);
	canary->outstanding = failed.outstanding;
	canary->begun_ms = failed.begun_ms;
	canary->previous_ms = failed.previous_ms;
	canary->due_ms = clock_monotonic_ms() + pause_ms;
	redis_store_wake(store, canary->due_ms);
}

void redis_canary_on_told(struct redis_store *store)
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

void redis_canary_tick(struct redis_store *store, uint64_t now_ms)
{
	struct redis_canary *canary = &store->tracking.canary;
	uint64_t broken_ms = canary->begun_ms + redis_tracking_lease_ms(store) / 2;

	if (canary->outstanding && broken_ms <= now_ms) {
		redis_tracking_fail(store, "the feed does not tell of what we write");
		return;
	}
	if ((!canary->outstanding || !canary->in_flight) && canary->due_ms <= now_ms)
		canary_send(store, now_ms);
	broken_ms = canary->begun_ms + redis_tracking_lease_ms(store) / 2;
	if (canary->outstanding)
		redis_store_wake(store, broken_ms);
	if (!canary->outstanding || !canary->in_flight)
		redis_store_wake(store, canary->due_ms);
}

void redis_canary_on_answer(struct redis_connection *connection, const struct redis_reply *reply)
{
	struct redis_store *store = connection->store;

	if (reply == NULL) {
		canary_on_failure(store, CANARY_AGAIN_MS);
		return;
	}
	if (reply->type != REDIS_REPLY_IS_ERROR)
		return;
	canary_on_failure(store, canary_interval_ms(store));
	redis_store_log_error(store, "the server refused our canary", reply);
	if (redis_reply_verdict(reply).leave && connection->state == REDIS_CONNECTION_READY)
		redis_connection_leave(connection);
	if (!redis_reply_error_is(reply, "NOPERM") || !store->tracking.armed)
		return;
	/* Nothing has been proven since so many times. */
	if (store->tracking.failures >= CANARY_REFUSALS_MAX)
		redis_tracking_give_up(store, "the server's ACL forbids our canary");
	else
		redis_tracking_fail(store, "the server's ACL forbids our canary");
}
