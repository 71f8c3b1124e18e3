/*
 * cluster_priv.h - what the files of this folder share.
 *
 *	cluster.c   the store: submit, redirections, close
 *	nodes.c     which nodes there are, and who has which slot
 *	refresh.c   asking for the slot map
 *	walk.c      LIST over all masters that have a shard of the tenant
 *	feeds.c     what the nodes tell of changes, as one
 *
 * All on the worker's thread.
 */
#ifndef RIPTIDE_STORE_REDIS_CLUSTER_PRIV_H
#define RIPTIDE_STORE_REDIS_CLUSTER_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "agent/base/metric.h"
#include "agent/base/text.h"
#include "agent/store/keys.h"
#include "agent/store/redis/cluster/cluster.h"
#include "agent/store/redis/cluster/feeds.h"
#include "agent/store/redis/cluster/seeds.h"
#include "agent/store/redis/cluster/slots.h"
#include "agent/store/redis/node.h"
#include "agent/store/request_list.h"
#include "agent/store/store.h"

#define CLUSTER_STORE_MAGIC 0x636c7573u
#define CLUSTER_NODE_MAGIC 0x636c6e6fu
#define CLUSTER_NEVER UINT64_MAX

struct cluster_store;

struct cluster_node {
	uint32_t magic;
	uint32_t index; /* in cluster_store.nodes */
	struct cluster_store *cluster;
	struct cluster_endpoint endpoint;
	struct store *store;
	struct redis_node hooks;
	uint32_t slots;            /* that it owns; 0: closed when it has been idle for a while */
	uint64_t used_ms;          /* when it last was given something */
	char tag[CLUSTER_TAG_MAX]; /* of slot_tag */
	struct cluster_feed feed;
};

struct cluster_refresh {
	struct store_request request;
	bool running;
	struct cluster_node *asked;
	uint64_t begun_ms, due_ms;
	uint32_t next_node, next_seed; /* whose turn it is */
	uint32_t failures;             /* in a row */
};

struct cluster_store {
	struct store store; /* first */
	uint32_t magic;
	/* set once */
	uv_loop_t *loop;
	struct cluster_seeds seeds;
	char key_prefix[KEYS_PREFIX_MAX + 1];
	struct metric_set *metrics;
	/* changes by reload */
	struct store_cluster_config config; /* its URL is not valid */

	uv_timer_t timer;
	uv_idle_t idle; /* active while answers are deferred */
	uint64_t wake_ms;
	uint64_t random;
	struct cluster_node *nodes[CLUSTER_NODES_MAX]; /* NULL: free */
	uint32_t node_count, idle_count;               /* all; of these, without a slot */
	uint16_t owners[CLUSTER_SLOTS];                /* indexes of nodes, or CLUSTER_NOBODY */
	uint32_t covered;
	bool has_map;
	uint64_t map_ms;   /* when it was last confirmed */
	uint64_t begun_ms; /* of the store */
	struct cluster_refresh refresh;
	struct cluster_feeds feeds;
	struct request_list waiting;  /* for the first map */
	struct request_list deferred; /* answered in the next turn, with request->status */
	struct store_status past;     /* counts of nodes that are no more */
	uint64_t failed;              /* answered here with an error */
	uint64_t trouble_logged_ms;
	bool closing;
	uint32_t handles; /* own handles and stores of nodes that are not closed yet */
	void (*closed)(void *context);
	void *closed_context;
};

/* cluster.c */
struct cluster_store *cluster_of(struct store *store);
/* Nothing later than `at_ms` will be missed. */
void cluster_wake(struct cluster_store *cluster, uint64_t at_ms);
/* Answers in the next turn, a request that no node has. */
void cluster_defer(struct cluster_store *cluster, struct store_request *request, int status);
/* Gives the request, whose `attempts` are set, to the owner of its slot, or answers it. */
void cluster_route(struct cluster_store *cluster, struct store_request *request, uint32_t slot);
/* What waited for the first map is given to nodes. */
void cluster_resume(struct cluster_store *cluster);
/* Below `limit`; spreads agents of many hosts, and is no secret. */
uint64_t cluster_random(struct cluster_store *cluster, uint64_t limit);
/* A handle of the store, or the store of a node, is closed. */
void cluster_on_handle_closed(struct cluster_store *cluster);
/* MOVED or ASK: as divert of struct redis_node. */
int cluster_divert(struct cluster_node *node, struct store_request *request, const char *error);

/* nodes.c */
/* The node at this address, which is made if there is none. NULL: too many, or no memory. */
struct cluster_node *cluster_node_at(struct cluster_store *cluster, const struct cluster_endpoint *endpoint);
/* The owner of a slot, or NULL. */
struct cluster_node *cluster_owner(const struct cluster_store *cluster, uint32_t slot);
void cluster_node_submit(struct cluster_node *node, struct store_request *request);
/* MOVED told this owner. */
void cluster_assign(struct cluster_store *cluster, uint32_t slot, struct cluster_node *owner);
/* Takes over a map. RSHM_E_INVALID: it is empty, and the one in force is not. */
int cluster_apply(struct cluster_store *cluster, const struct cluster_map *map);
/* Begins to tell of changes. */
void cluster_nodes_watch(struct cluster_store *cluster, const struct store_watcher *watcher);
/* Whether slots have no owner, or owners no connection. */
bool cluster_is_troubled(const struct cluster_store *cluster);
/* Closes nodes that are of no use any more. */
void cluster_nodes_tick(struct cluster_store *cluster, uint64_t now_ms);
void cluster_nodes_close(struct cluster_store *cluster);
/* Appends which owners have no connection. */
void cluster_nodes_describe(const struct cluster_store *cluster, struct text *text);
void cluster_nodes_status(const struct cluster_store *cluster, struct store_status *ret);

/* refresh.c */
/* The map may be wrong: asks soon. */
void cluster_refresh_want(struct cluster_store *cluster);
void cluster_refresh_tick(struct cluster_store *cluster, uint64_t now_ms);

/* walk.c */
void cluster_walk_begin(struct cluster_store *cluster, struct store_request *request);
/* Whether it is a walk's probe, which is told of redirections and takes itself back. */
bool cluster_walk_takes(struct store_request *request, const struct cluster_redirect *redirect);

#endif
