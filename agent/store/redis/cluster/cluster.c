/*
 * The store of a cluster: which node gets a request, and what happens when that one says it is not the right one.
 *
 *	submit ─> (slot of the key) ─> owner's store ─────────────────────────────────────> done
 *	   │                             ^     │ MOVED: the slot has this owner from now on
 *	   │                             └─────┤ ASK: this once, behind ASKING
 *	   ├─> waiting (no map yet) ─────^     └ too often ─> AGAIN
 *	   └─> deferred (refused, closed) ─> idle handle, next turn of the loop ─> done
 *
 * A node's store has queue, connections, retries, deadlines and the barrier of its own; here is nothing of these. What it is
 * given stays with it until it answers or its server redirects, and a redirected request changed nothing. What is known of
 * earlier tries goes with the request (node.h): a version condition that fails at the new owner after a try at the old one
 * that may have been executed is RSHM_E_UNKNOWN, as it is within one node. The old owner cannot execute that try later: it
 * refuses keys of slots that it has given away, and what a master does that was deposed meanwhile is thrown away when it
 * learns so.
 *
 * A slot without an owner is RSHM_E_AGAIN at once, one whose owner has no connection after the node's connect_grace_ms; both
 * make the map be asked for. Before the first map has come, requests wait as long.
 */
#include "agent/store/redis/cluster/cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/store/redis/cluster/cluster_priv.h"
#include "shm/msg.h"

#define CLUSTER_HANDLES 2u     /* timer, idle */
#define CLUSTER_TICK_MIN_MS 4u /* between two looks */
#define CLUSTER_REDIRECTS_MAX 1000u

static const struct metric metrics[STORE_CLUSTER_METRICS] = {
	[STORE_CLUSTER_MOVED] = {"cluster_moved_total", METRIC_COUNTER, "Requests that a node sent on for good."},
	[STORE_CLUSTER_ASKED] = {"cluster_asked_total", METRIC_COUNTER,
				 "Requests that a node sent on because their slot was on its way."},
	[STORE_CLUSTER_REFRESHES] = {"cluster_refreshes_total", METRIC_COUNTER, "Questions for the slot map."},
	[STORE_CLUSTER_REFRESH_FAILURES] = {"cluster_refresh_failures_total", METRIC_COUNTER,
					    "Questions for the slot map that brought none."},
	[STORE_CLUSTER_CHANGES] = {"cluster_map_changes_total", METRIC_COUNTER, "Changes of the slot map."},
	[STORE_CLUSTER_UNROUTED] =
		{"cluster_unrouted_total", METRIC_COUNTER,
		 "Requests that failed because their slot had no owner, or were sent on too often."},
};

static struct log_limit fault_limit = LOG_LIMIT(5, 10000);

static void cluster_on_timer(uv_timer_t *timer);
static void cluster_on_idle(uv_idle_t *idle);

struct cluster_store *cluster_of(struct store *store)
{
	struct cluster_store *cluster = (struct cluster_store *)(void *)store;

	must(cluster->magic == CLUSTER_STORE_MAGIC);
	return cluster;
}

uint64_t cluster_random(struct cluster_store *cluster, uint64_t limit)
{
	cluster->random ^= cluster->random << 13;
	cluster->random ^= cluster->random >> 7;
	cluster->random ^= cluster->random << 17;
	return cluster->random % limit;
}

/* ---- answering ------------------------------------------------------------------------------------------------- */

void cluster_defer(struct cluster_store *cluster, struct store_request *request, int status)
{
	request->result = NULL;
	request->result_len = 0;
	request->remaining_ms = 0;
	request->found_version = 0;
	request->accepted = false;
	request->slot = NULL;
	request->status = status;
	request_list_append(&cluster->deferred, request);
	if (!uv_is_closing((uv_handle_t *)&cluster->idle))
		(void)uv_idle_start(&cluster->idle, cluster_on_idle);
}

static void answer_deferred(struct cluster_store *cluster, uint32_t count)
{
	while (count-- > 0 && cluster->deferred.first != NULL) {
		struct store_request *request = cluster->deferred.first;

		request_list_remove(&cluster->deferred, request);
		cluster->failed += request->status < 0;
		request->done(request);
	}
}

/* ---- routing --------------------------------------------------------------------------------------------------- */

static bool waits_for_first_map(const struct cluster_store *cluster, uint64_t now_ms)
{
	return !cluster->has_map && now_ms - cluster->begun_ms < cluster->config.node.connect_grace_ms;
}

void cluster_route(struct cluster_store *cluster, struct store_request *request, uint32_t slot)
{
	struct cluster_node *owner = cluster_owner(cluster, slot);

	if (owner != NULL) {
		cluster_node_submit(owner, request);
		return;
	}
	metric_add(cluster->metrics, STORE_CLUSTER_UNROUTED, 1);
	cluster_refresh_want(cluster);
	cluster_defer(cluster, request, cluster->closing ? RSHM_E_CLOSED : RSHM_E_AGAIN);
}

static void route_by_op(struct cluster_store *cluster, struct store_request *request)
{
	if (request->op == STORE_LIST)
		cluster_walk_begin(cluster, request);
	else
		cluster_route(cluster, request, cluster_slot_of_request(request));
}

static void cluster_submit(struct store *base, struct store_request *request)
{
	struct cluster_store *cluster = cluster_of(base);
	uint64_t now_ms;

	request->attempts = 0;
	if (cluster->closing || request->op == STORE_FLUSH) {
		/* There is no journal: nothing was accepted that is not stored. */
		cluster_defer(cluster, request, cluster->closing ? RSHM_E_CLOSED : RSHM_OK);
		return;
	}
	if (cluster->has_map) {
		route_by_op(cluster, request);
		return;
	}
	now_ms = clock_monotonic_ms();
	if (waits_for_first_map(cluster, now_ms) && cluster->waiting.count < cluster->config.node.queue_max) {
		request_list_append(&cluster->waiting, request);
		cluster_wake(cluster, cluster->begun_ms + cluster->config.node.connect_grace_ms);
		cluster_wake(cluster, request->deadline_ms);
		return;
	}
	metric_add(cluster->metrics, STORE_CLUSTER_UNROUTED, 1);
	cluster_defer(cluster, request, RSHM_E_AGAIN);
}

void cluster_resume(struct cluster_store *cluster)
{
	/* What comes back here waits no more, for there is a map. */
	while (cluster->waiting.first != NULL) {
		struct store_request *request = cluster->waiting.first;

		request_list_remove(&cluster->waiting, request);
		route_by_op(cluster, request);
	}
}

static void expire_waiting(struct cluster_store *cluster, uint64_t now_ms)
{
	bool may_wait = waits_for_first_map(cluster, now_ms) && !cluster->closing;
	struct store_request *request = cluster->waiting.first, *next;

	for (; request != NULL; request = next) {
		bool expired = request->deadline_ms <= now_ms;

		next = request->next;
		if (may_wait && !expired) {
			cluster_wake(cluster, request->deadline_ms);
			cluster_wake(cluster, cluster->begun_ms + cluster->config.node.connect_grace_ms);
			continue;
		}
		request_list_remove(&cluster->waiting, request);
		cluster_defer(cluster, request,
			      cluster->closing ? RSHM_E_CLOSED
			      : expired        ? RSHM_E_TIMEDOUT
					       : RSHM_E_AGAIN);
	}
}

/* ---- redirections ---------------------------------------------------------------------------------------------- */

static int divert_to(struct cluster_store *cluster, struct store_request *request,
		     const struct cluster_redirect *redirect)
{
	struct cluster_node *target = cluster_node_at(cluster, &redirect->to);

	if (target == NULL)
		return RSHM_E_AGAIN;
	request->attempts &= ~REDIS_NODE_ASKING;
	request->attempts += REDIS_NODE_REDIRECT;
	if (redirect->ask) {
		metric_add(cluster->metrics, STORE_CLUSTER_ASKED, 1);
		request->attempts |= REDIS_NODE_ASKING;
		cluster_feed_expect(&target->feed);
	} else {
		metric_add(cluster->metrics, STORE_CLUSTER_MOVED, 1);
		cluster_assign(cluster, redirect->slot, target);
		cluster_refresh_want(cluster);
	}
	if (!cluster_walk_takes(request, redirect))
		cluster_node_submit(target, request);
	return RSHM_OK;
}

int cluster_divert(struct cluster_node *node, struct store_request *request, const char *error)
{
	struct cluster_store *cluster = node->cluster;
	uint32_t redirects = (request->attempts & REDIS_NODE_REDIRECTS) / REDIS_NODE_REDIRECT;
	struct cluster_redirect redirect;
	int status = RSHM_OK;

	if (request->op == REDIS_NODE_SLOTS)
		return RSHM_E_BACKEND;
	/* A node speaks for the slot that it was asked for, and for no other. */
	if (cluster_redirect_read(error, node->endpoint.host, &redirect) != RSHM_OK ||
	    redirect.slot != cluster_slot_of_request(request)) {
		log_limited(&fault_limit, LOG_LEVEL_ERROR, "redis",
			    "cluster node %s:%u: a redirection that cannot be (%.200s)", node->endpoint.host,
			    (unsigned)node->endpoint.port, error);
		return RSHM_E_BACKEND;
	}
	if (redirects >= cluster->config.redirects_max)
		status = RSHM_E_AGAIN;
	else if (request->deadline_ms <= clock_monotonic_ms())
		status = RSHM_E_TIMEDOUT;
	if (status == RSHM_OK)
		status = divert_to(cluster, request, &redirect);
	if (status == RSHM_E_AGAIN) {
		metric_add(cluster->metrics, STORE_CLUSTER_UNROUTED, 1);
		cluster_refresh_want(cluster);
	}
	return status;
}

/* ---- time ------------------------------------------------------------------------------------------------------ */

static void cluster_arm(struct cluster_store *cluster, uint64_t least_ms)
{
	uint64_t now_ms = clock_monotonic_ms();
	uint64_t delay_ms = cluster->wake_ms > now_ms ? cluster->wake_ms - now_ms : 0;

	if (cluster->wake_ms == CLUSTER_NEVER || cluster->closing)
		(void)uv_timer_stop(&cluster->timer);
	else
		(void)uv_timer_start(&cluster->timer, cluster_on_timer, delay_ms > least_ms ? delay_ms : least_ms, 0);
}

void cluster_wake(struct cluster_store *cluster, uint64_t at_ms)
{
	if (at_ms >= cluster->wake_ms || cluster->closing)
		return;
	cluster->wake_ms = at_ms;
	cluster_arm(cluster, 1);
}

static void cluster_on_timer(uv_timer_t *timer)
{
	struct cluster_store *cluster = timer->data;
	uint64_t now_ms = clock_monotonic_ms();

	cluster->wake_ms = CLUSTER_NEVER;
	cluster_refresh_tick(cluster, now_ms);
	cluster_nodes_tick(cluster, now_ms);
	expire_waiting(cluster, now_ms);
	cluster_arm(cluster, CLUSTER_TICK_MIN_MS);
}

/* ---- ending ---------------------------------------------------------------------------------------------------- */

static void cluster_destroy(struct cluster_store *cluster)
{
	metric_set_destroy(&cluster->metrics);
	cluster_seeds_wipe(&cluster->seeds);
	cluster->magic = 0;
	free(cluster);
}

void cluster_on_handle_closed(struct cluster_store *cluster)
{
	void (*closed)(void *context) = cluster->closed;
	void *context = cluster->closed_context;

	must(cluster->handles > 0);
	if (--cluster->handles > 0 || !cluster->closing)
		return;
	while (cluster->deferred.first != NULL)
		answer_deferred(cluster, cluster->deferred.count);
	cluster_destroy(cluster);
	if (closed != NULL)
		closed(context);
}

static void cluster_on_own_closed(uv_handle_t *handle)
{
	cluster_on_handle_closed(handle->data);
}

static void cluster_on_idle(uv_idle_t *idle)
{
	struct cluster_store *cluster = idle->data;

	/* What is deferred meanwhile has its own turn. */
	answer_deferred(cluster, cluster->deferred.count);
	if (cluster->deferred.count > 0)
		return;
	(void)uv_idle_stop(idle);
	if (!cluster->closing || uv_is_closing((uv_handle_t *)idle))
		return;
	uv_close((uv_handle_t *)&cluster->timer, cluster_on_own_closed);
	uv_close((uv_handle_t *)&cluster->idle, cluster_on_own_closed);
}

static void cluster_close(struct store *base, void (*closed)(void *context), void *context)
{
	struct cluster_store *cluster = cluster_of(base);

	must(!cluster->closing);
	cluster->closing = true;
	cluster->closed = closed;
	cluster->closed_context = context;
	cluster_nodes_close(cluster);
	expire_waiting(cluster, clock_monotonic_ms());
	(void)uv_timer_stop(&cluster->timer);
	(void)uv_idle_start(&cluster->idle, cluster_on_idle);
}

/* ---- watching -------------------------------------------------------------------------------------------------- */

static void cluster_watch(struct store *base, const struct store_watcher *watcher)
{
	cluster_nodes_watch(cluster_of(base), watcher);
}

/* ---- telling --------------------------------------------------------------------------------------------------- */

static void cluster_status(struct store *base, struct store_status *ret)
{
	struct cluster_store *cluster = cluster_of(base);
	struct text detail;

	memset(ret, 0, sizeof(*ret));
	ret->name = base->ops->name;
	ret->ready = cluster->has_map && !cluster_is_troubled(cluster);
	ret->pending = cluster->waiting.count + cluster->deferred.count;
	ret->failed = cluster->failed;
	ret->nodes = cluster->node_count - cluster->idle_count;
	ret->slots = cluster->has_map ? cluster->covered : 0;
	ret->moved = metric_value(cluster->metrics, STORE_CLUSTER_MOVED);
	ret->asked = metric_value(cluster->metrics, STORE_CLUSTER_ASKED);
	cluster_nodes_status(cluster, ret);
	cluster_feeds_status(&cluster->feeds, &ret->feed);
	text_init(&detail, ret->detail, sizeof(ret->detail));
	if (cluster->has_map)
		text_append_format(&detail, "%" PRIu32 " nodes, %" PRIu32 " of %u slots, map %" PRIu64 " s old; ",
				   ret->nodes, ret->slots, CLUSTER_SLOTS,
				   (clock_monotonic_ms() - cluster->map_ms) / 1000);
	if (cluster->has_map && RIPTIDE_METRICS)
		text_append_format(&detail, "%" PRIu64 " moved, %" PRIu64 " asked; ", ret->moved, ret->asked);
	if (!cluster->has_map)
		text_append_string(&detail, "not ready, no node has told the slot map; ");
	cluster_nodes_describe(cluster, &detail);
	cluster_seeds_describe(&cluster->seeds, &detail);
}

bool store_cluster_is_meant(const char *url)
{
	return strncmp(url, CLUSTER_SCHEME, strlen(CLUSTER_SCHEME)) == 0;
}

const struct metric_set *store_cluster_metrics(const struct store *base)
{
	const struct cluster_store *cluster = (const struct cluster_store *)(const void *)base;

	must(cluster->magic == CLUSTER_STORE_MAGIC);
	return cluster->metrics;
}

/* ---- beginning ------------------------------------------------------------------------------------------------- */

static void cluster_reload(struct store *base, const void *config)
{
	struct cluster_store *cluster = cluster_of(base);
	const struct store_cluster_config *from = config;

	for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++) {
		if (cluster->nodes[i] != NULL)
			cluster->nodes[i]->store->ops->reload(cluster->nodes[i]->store, &from->node);
	}
	cluster->config = *from;
	cluster->config.node.url = cluster->config.node.key_prefix = NULL;
	cluster_refresh_want(cluster);
}

static const struct store_ops cluster_ops = {
	.name = "redis-cluster",
	.submit = cluster_submit,
	.status = cluster_status,
	.close = cluster_close,
	.watch = cluster_watch,
	.reload = cluster_reload,
};

static int config_check(const struct store_cluster_config *config, struct text *error)
{
	if (config->refresh_ms >= 1 && config->redirects_max >= 1 && config->redirects_max <= CLUSTER_REDIRECTS_MAX)
		return store_redis_check(&config->node, error);
	text_append_format(error, "the map must be refreshed every 1 ms at most often, redirections are 1 to %u",
			   CLUSTER_REDIRECTS_MAX);
	return RSHM_E_INVALID;
}

static void cluster_init(struct cluster_store *cluster, uv_loop_t *loop, const struct store_cluster_config *config)
{
	cluster->store.ops = &cluster_ops;
	cluster->magic = CLUSTER_STORE_MAGIC;
	cluster->loop = loop;
	cluster->config = *config;
	snprintf(cluster->key_prefix, sizeof(cluster->key_prefix), "%s", config->node.key_prefix);
	cluster->config.node.url = cluster->config.node.key_prefix = NULL;
	for (uint32_t slot = 0; slot < CLUSTER_SLOTS; slot++)
		cluster->owners[slot] = CLUSTER_NOBODY;
	if (getrandom(&cluster->random, sizeof(cluster->random), GRND_NONBLOCK) != sizeof(cluster->random) ||
	    cluster->random == 0)
		cluster->random = clock_monotonic_ns() | 1;
	cluster->begun_ms = clock_monotonic_ms();
	cluster->wake_ms = CLUSTER_NEVER;
	/* None of these can fail. */
	(void)uv_timer_init(loop, &cluster->timer);
	(void)uv_idle_init(loop, &cluster->idle);
	cluster->timer.data = cluster->idle.data = cluster;
	cluster->handles = CLUSTER_HANDLES;
	cluster->refresh.next_seed = (uint32_t)cluster_random(cluster, cluster->seeds.count);
	cluster_wake(cluster, cluster->begun_ms);
}

int store_cluster_create(uv_loop_t *loop, const struct store_cluster_config *config, struct store **ret, char *error,
			 size_t error_size)
{
	struct cluster_store *cluster;
	struct text text;
	int status;

	text_init(&text, error, error_size);
	status = config_check(config, &text);
	if (status != RSHM_OK)
		return status;
	cluster = calloc(1, sizeof(*cluster));
	if (cluster == NULL)
		return RSHM_E_NOMEM;
	cluster->metrics = metric_set_create("cluster", metrics, STORE_CLUSTER_METRICS);
	status = cluster->metrics != NULL ? cluster_seeds_parse(config->node.url, &cluster->seeds, &text)
					  : RSHM_E_NOMEM;
	if (status != RSHM_OK) {
		cluster_destroy(cluster);
		return status;
	}
	cluster_init(cluster, loop, config);
	*ret = &cluster->store;
	return RSHM_OK;
}
