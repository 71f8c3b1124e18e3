/*
 * Which nodes there are, and who has which slot.
 *
 * A node is made when something names it: a seed, the map, MOVED, ASK. One that has no slot, and was not used for some
 * seconds, is closed once it has answered all it was given; every request has a deadline, so that ends. Nodes without slots
 * are few at a time: a server that sends us from address to address gains nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/redis/cluster/cluster_priv.h"
#include "agent/store/redis/url.h"
#include "shm/msg.h"

#define NODES_LINGER_MS 5000u /* of a node without slots */
#define NODES_LOOK_MS 500u
#define NODES_IDLE_MAX 64u /* without slots, at a time */
#define NODES_DESCRIBE_MAX 3u

static struct log_limit map_limit = LOG_LIMIT(10, 10000);
static struct log_limit node_limit = LOG_LIMIT(5, 10000);

/* ---- one node -------------------------------------------------------------------------------------------------- */

static int node_on_divert(void *context, struct store_request *request, const char *error)
{
	return cluster_divert(context, request, error);
}

static void node_on_trouble(void *context)
{
	const struct cluster_node *node = context;

	cluster_refresh_want(node->cluster);
}

static const char *node_slot_tag(void *context)
{
	struct cluster_node *node = context;
	const uint16_t *owners = node->cluster->owners;

	if (node->slots == 0)
		return NULL;
	if (node->tag[0] != '\0' && owners[cluster_slot_of_key(node->tag, strlen(node->tag))] == node->index)
		return node->tag;
	return cluster_tag_find(owners, (uint16_t)node->index, node->tag) ? node->tag : NULL;
}

static int node_open(struct cluster_node *node)
{
	struct cluster_store *cluster = node->cluster;
	struct store_redis_config config = cluster->config.node;
	char url[REDIS_URL_MAX + 1], error[160] = "";
	int status = RSHM_E_INVALID;

	config.url = url;
	config.key_prefix = cluster->key_prefix;
	config.node = &node->hooks;
	if (cluster_seeds_node_url(&cluster->seeds, &node->endpoint, url, sizeof(url)))
		status = store_redis_create(cluster->loop, &config, &node->store, error, sizeof(error));
	explicit_bzero(url, sizeof(url));
	if (status != RSHM_OK)
		log_limited(&node_limit, LOG_LEVEL_ERROR, "redis", "cluster node %s:%u: %s", node->endpoint.host,
			    (unsigned)node->endpoint.port, error);
	return status;
}

static void node_watch(struct cluster_node *node)
{
	struct store_watcher watcher = cluster_feed_watcher(&node->feed);

	/* A store that tells nothing is one whose mode is not known. */
	(void)store_watch(node->store, &watcher);
}

void cluster_nodes_watch(struct cluster_store *cluster, const struct store_watcher *watcher)
{
	cluster_feeds_begin(&cluster->feeds, watcher);
	for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++) {
		if (cluster->nodes[i] != NULL)
			node_watch(cluster->nodes[i]);
	}
}

static struct cluster_node *node_create(struct cluster_store *cluster, const struct cluster_endpoint *endpoint)
{
	struct cluster_node *node;
	uint32_t index = 0;

	while (index < CLUSTER_NODES_MAX && cluster->nodes[index] != NULL)
		index++;
	if (cluster->closing || index == CLUSTER_NODES_MAX || cluster->idle_count >= NODES_IDLE_MAX)
		return NULL;
	node = calloc(1, sizeof(*node));
	if (node == NULL)
		return NULL;
	node->magic = CLUSTER_NODE_MAGIC;
	node->index = index;
	node->cluster = cluster;
	node->endpoint = *endpoint;
	node->hooks = (struct redis_node){
		.divert = node_on_divert, .trouble = node_on_trouble, .slot_tag = node_slot_tag, .context = node};
	node->used_ms = clock_monotonic_ms();
	if (node_open(node) != RSHM_OK) {
		free(node);
		return NULL;
	}
	cluster->handles++;
	cluster->nodes[index] = node;
	cluster->node_count++;
	cluster->idle_count++;
	cluster_wake(cluster, node->used_ms + NODES_LINGER_MS);
	cluster_feeds_add(&cluster->feeds, &node->feed);
	if (cluster->feeds.active)
		node_watch(node);
	return node;
}

static void node_on_closed(void *context)
{
	struct cluster_node *node = context;
	struct cluster_store *cluster = node->cluster;

	must(node->magic == CLUSTER_NODE_MAGIC);
	node->magic = 0;
	free(node);
	cluster_on_handle_closed(cluster);
}

static void past_add(struct store_status *past, const struct store_status *status)
{
	past->completed += status->completed;
	past->failed += status->failed;
	past->retried += status->retried;
	past->reconnects += status->reconnects;
}

static void node_close(struct cluster_node *node)
{
	struct cluster_store *cluster = node->cluster;
	struct store_status status;

	store_status(node->store, &status);
	past_add(&cluster->past, &status);
	cluster_feeds_remove(&node->feed);
	cluster->nodes[node->index] = NULL;
	cluster->node_count--;
	cluster->idle_count -= node->slots == 0;
	if (cluster->refresh.asked == node)
		cluster->refresh.asked = NULL;
	store_close(node->store, node_on_closed, node);
}

/* ---- finding --------------------------------------------------------------------------------------------------- */

struct cluster_node *cluster_node_at(struct cluster_store *cluster, const struct cluster_endpoint *endpoint)
{
	uint32_t seen = 0;

	for (uint32_t i = 0; i < CLUSTER_NODES_MAX && seen < cluster->node_count; i++) {
		struct cluster_node *node = cluster->nodes[i];

		if (node == NULL)
			continue;
		if (cluster_endpoint_equals(&node->endpoint, endpoint))
			return node;
		seen++;
	}
	return node_create(cluster, endpoint);
}

struct cluster_node *cluster_owner(const struct cluster_store *cluster, uint32_t slot)
{
	uint16_t owner = cluster->owners[slot];

	return owner != CLUSTER_NOBODY ? cluster->nodes[owner] : NULL;
}

void cluster_node_submit(struct cluster_node *node, struct store_request *request)
{
	must(node->magic == CLUSTER_NODE_MAGIC);
	node->used_ms = clock_monotonic_ms();
	redis_node_submit(node->store, request);
}

/* ---- the map --------------------------------------------------------------------------------------------------- */

static void slot_give(struct cluster_store *cluster, uint32_t slot, struct cluster_node *owner)
{
	struct cluster_node *before = cluster_owner(cluster, slot);

	if (before != NULL && --before->slots == 0) {
		cluster->idle_count++;
		before->feed.counts = false;
		before->used_ms = clock_monotonic_ms();
		cluster_wake(cluster, before->used_ms + NODES_LINGER_MS);
	}
	if (owner != NULL && owner->slots++ == 0) {
		cluster->idle_count--;
		owner->feed.counts = true;
	}
	cluster->covered += (owner != NULL) - (before != NULL);
	cluster->owners[slot] = owner != NULL ? (uint16_t)owner->index : CLUSTER_NOBODY;
}

static void tell_feeds(struct cluster_store *cluster, const char *why)
{
	if (!cluster->closing)
		cluster_feeds_on_map(&cluster->feeds, cluster->covered == CLUSTER_SLOTS, why);
}

void cluster_assign(struct cluster_store *cluster, uint32_t slot, struct cluster_node *owner)
{
	if (cluster_owner(cluster, slot) == owner)
		return;
	slot_give(cluster, slot, owner);
	metric_add(cluster->metrics, STORE_CLUSTER_CHANGES, 1);
	tell_feeds(cluster, "a slot has moved");
}

/* Slots whose owner is another one now. */
static uint32_t map_adopt(struct cluster_store *cluster, const struct cluster_map *map, struct cluster_node **nodes)
{
	uint32_t changed = 0;

	for (uint32_t slot = 0; slot < CLUSTER_SLOTS; slot++) {
		uint16_t owner = map->owners[slot];
		struct cluster_node *node = owner != CLUSTER_NOBODY ? nodes[owner] : NULL;

		if (cluster_owner(cluster, slot) == node)
			continue;
		slot_give(cluster, slot, node);
		changed++;
	}
	return changed;
}

int cluster_apply(struct cluster_store *cluster, const struct cluster_map *map)
{
	struct cluster_node **nodes;
	uint32_t changed;

	/* A node that was taken out of its cluster knows of nobody. */
	if (map->covered == 0 && cluster->has_map && cluster->covered > 0)
		return RSHM_E_INVALID;
	nodes = calloc(map->count + 1, sizeof(struct cluster_node *));
	if (nodes == NULL)
		return RSHM_E_NOMEM;
	for (uint32_t i = 0; i < map->count; i++) {
		nodes[i] = cluster_node_at(cluster, &map->endpoints[i]);
		/* Those of a large map are not idle while the rest is made. */
		if (nodes[i] != NULL && nodes[i]->slots == 0 && cluster->idle_count >= NODES_IDLE_MAX)
			(void)map_adopt(cluster, map, nodes);
	}
	changed = map_adopt(cluster, map, nodes);
	free(nodes);
	cluster->map_ms = clock_monotonic_ms();
	if (changed > 0 || !cluster->has_map) {
		metric_add(cluster->metrics, STORE_CLUSTER_CHANGES, 1);
		log_limited(&map_limit, LOG_LEVEL_INFO, "redis",
			    "slot map: %" PRIu32 " masters have %" PRIu32 " of %u slots, %" PRIu32 " changed",
			    map->count, cluster->covered, CLUSTER_SLOTS, changed);
	}
	cluster->has_map = true;
	if (changed > 0)
		tell_feeds(cluster, "the slot map has changed");
	cluster_resume(cluster);
	return RSHM_OK;
}

bool cluster_is_troubled(const struct cluster_store *cluster)
{
	if (cluster->covered < CLUSTER_SLOTS)
		return true;
	for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++) {
		const struct cluster_node *node = cluster->nodes[i];

		if (node != NULL && node->slots > 0 && !redis_node_is_ready(node->store))
			return true;
	}
	return false;
}

/* ---- ends ------------------------------------------------------------------------------------------------------ */

void cluster_nodes_tick(struct cluster_store *cluster, uint64_t now_ms)
{
	bool counted = false;

	if (cluster->idle_count == 0)
		return;
	for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++) {
		struct cluster_node *node = cluster->nodes[i];

		if (node == NULL || node->slots > 0)
			continue;
		if (node->used_ms + NODES_LINGER_MS > now_ms) {
			cluster_wake(cluster, node->used_ms + NODES_LINGER_MS);
		} else if (redis_node_pending(node->store) > 0) {
			cluster_wake(cluster, now_ms + NODES_LOOK_MS);
		} else {
			counted |= node->feed.counts;
			node_close(node);
		}
	}
	if (counted)
		tell_feeds(cluster, "a slot has not moved");
}

void cluster_nodes_close(struct cluster_store *cluster)
{
	for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++) {
		if (cluster->nodes[i] != NULL)
			node_close(cluster->nodes[i]);
	}
}

void cluster_nodes_describe(const struct cluster_store *cluster, struct text *text)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++) {
		const struct cluster_node *node = cluster->nodes[i];

		if (node == NULL || node->slots == 0 || redis_node_is_ready(node->store))
			continue;
		if (count++ < NODES_DESCRIBE_MAX)
			text_append_format(text, "%s:%u not ready; ", node->endpoint.host,
					   (unsigned)node->endpoint.port);
	}
	if (count > NODES_DESCRIBE_MAX)
		text_append_format(text, "and %" PRIu32 " more; ", count - NODES_DESCRIBE_MAX);
}

void cluster_nodes_status(const struct cluster_store *cluster, struct store_status *ret)
{
	past_add(ret, &cluster->past);
	for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++) {
		const struct cluster_node *node = cluster->nodes[i];
		struct store_status status;

		if (node == NULL)
			continue;
		store_status(node->store, &status);
		past_add(ret, &status);
		ret->connections += status.connections;
		ret->connections_max += status.connections_max;
		ret->pending += status.pending;
	}
}
