/*
 * Asking for the slot map: one question at a time.
 *
 * When nothing is amiss, every refresh_ms, a tenth more or less. After MOVED, and whenever a request failed or a node was
 * lost, soon, but not more often than REFRESH_LEAST_MS; while slots have no owner or owners no connection, every
 * REFRESH_TROUBLED_MS. Masters with a connection are asked in turn, and the seeds where there are none or they do not answer. An
 * answer that is none, or of a node that is no longer of the cluster, changes nothing, and the next one is asked.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/redis/cluster/cluster_priv.h"
#include "shm/msg.h"

#define REFRESH_LEAST_MS 100u
#define REFRESH_TROUBLED_MS 500u
#define REFRESH_PATIENCE_MS 1000u
#define REFRESH_PAUSE_MAX_MS 2000u
#define REFRESH_SEED_EVERY 3u /* failures */

static struct log_limit fault_limit = LOG_LIMIT(5, 10000);

/* Not later than after this pause. */
static void refresh_schedule(struct cluster_store *cluster, uint64_t pause_ms)
{
	uint64_t due_ms = clock_monotonic_ms() + pause_ms;

	/* Somebody may have asked for it meanwhile. */
	if (due_ms < cluster->refresh.due_ms)
		cluster->refresh.due_ms = due_ms;
	cluster_wake(cluster, cluster->refresh.due_ms);
}

void cluster_refresh_want(struct cluster_store *cluster)
{
	struct cluster_refresh *refresh = &cluster->refresh;
	uint64_t now_ms = clock_monotonic_ms(), due_ms = refresh->begun_ms + REFRESH_LEAST_MS;

	if (due_ms < now_ms)
		due_ms = now_ms;
	due_ms += cluster_random(cluster, REFRESH_LEAST_MS / 4);
	/* A failed question has a pause of its own. */
	if (cluster->closing || refresh->due_ms <= due_ms || refresh->failures > 0)
		return;
	refresh->due_ms = due_ms;
	cluster_wake(cluster, due_ms);
}

static void refresh_fail(struct cluster_store *cluster, const char *why)
{
	struct cluster_refresh *refresh = &cluster->refresh;
	uint64_t pause_ms = (uint64_t)REFRESH_LEAST_MS << (refresh->failures < 5 ? refresh->failures : 5);

	metric_add(cluster->metrics, STORE_CLUSTER_REFRESH_FAILURES, 1);
	if (why != NULL)
		log_limited(&fault_limit, LOG_LEVEL_WARN, "redis", "slot map: %s", why);
	refresh->failures += refresh->failures < UINT32_MAX;
	if (pause_ms > REFRESH_PAUSE_MAX_MS)
		pause_ms = REFRESH_PAUSE_MAX_MS;
	refresh_schedule(cluster, pause_ms / 2 + cluster_random(cluster, pause_ms / 2 + 1));
}

static int refresh_take(struct cluster_store *cluster, const struct store_request *request)
{
	struct cluster_map *map = NULL;
	int status = request->status;

	if (status == RSHM_OK && cluster->refresh.asked != NULL)
		status = cluster_map_read(request->result, request->result_len, cluster->refresh.asked->endpoint.host,
					  &map);
	if (status == RSHM_OK && map != NULL)
		status = cluster_apply(cluster, map);
	free(map);
	return status;
}

static void refresh_on_done(struct store_request *request)
{
	struct cluster_store *cluster = request->context;
	struct cluster_refresh *refresh = &cluster->refresh;
	uint64_t pause_ms = cluster->config.refresh_ms;
	int status;

	refresh->running = false;
	if (cluster->closing)
		return;
	metric_add(cluster->metrics, STORE_CLUSTER_REFRESHES, 1);
	status = refresh_take(cluster, request);
	refresh->asked = NULL;
	if (status != RSHM_OK) {
		refresh_fail(cluster, status == RSHM_E_PROTOCOL  ? "a node sent what is no slot map"
				      : status == RSHM_E_INVALID ? "a node knows of no slots; it is not believed"
				      : status == RSHM_E_BACKEND ? "a node refused CLUSTER SLOTS"
								 : NULL);
		return;
	}
	refresh->failures = 0;
	if (cluster_is_troubled(cluster) && pause_ms > REFRESH_TROUBLED_MS)
		pause_ms = REFRESH_TROUBLED_MS;
	refresh_schedule(cluster, pause_ms - pause_ms / 10 + cluster_random(cluster, pause_ms / 5 + 1));
}

/* The next master with a connection, or NULL. */
static struct cluster_node *refresh_next_node(struct cluster_store *cluster)
{
	for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++) {
		struct cluster_node *node = cluster->nodes[cluster->refresh.next_node++ % CLUSTER_NODES_MAX];

		if (node != NULL && node->slots > 0 && redis_node_is_ready(node->store))
			return node;
	}
	return NULL;
}

void cluster_refresh_tick(struct cluster_store *cluster, uint64_t now_ms)
{
	struct cluster_refresh *refresh = &cluster->refresh;
	struct cluster_node *node = NULL;

	if (refresh->running || cluster->closing)
		return;
	if (refresh->due_ms > now_ms) {
		cluster_wake(cluster, refresh->due_ms);
		return;
	}
	if (refresh->failures % REFRESH_SEED_EVERY != REFRESH_SEED_EVERY - 1)
		node = refresh_next_node(cluster);
	if (node == NULL)
		node = cluster_node_at(cluster,
				       &cluster->seeds.endpoints[refresh->next_seed++ % cluster->seeds.count]);
	refresh->begun_ms = now_ms;
	refresh->due_ms = CLUSTER_NEVER;
	if (node == NULL) {
		refresh_fail(cluster, NULL);
		return;
	}
	memset(&refresh->request, 0, sizeof(refresh->request));
	refresh->request.op = REDIS_NODE_SLOTS;
	refresh->request.deadline_ms = now_ms + REFRESH_PATIENCE_MS;
	refresh->request.done = refresh_on_done;
	refresh->request.context = cluster;
	refresh->running = true;
	refresh->asked = node;
	cluster_node_submit(node, &refresh->request);
}
