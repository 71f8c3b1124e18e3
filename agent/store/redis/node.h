/*
 * node.h - what a cluster asks of the store of one of its nodes, beyond store.h.
 *
 * A node is a store_redis_create() whose configuration names a struct redis_node. It serves the requests that the cluster
 * gives it; what its server refuses because the key lives elsewhere goes back by redis_node.divert. All on the worker's thread.
 */
#ifndef RIPTIDE_STORE_REDIS_NODE_H
#define RIPTIDE_STORE_REDIS_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/store/store.h"

/* Hooks; the struct stays valid for the life of the store. */
struct redis_node {
	/*
	 * The server said MOVED or ASK: `error` is its line, lent, of any bytes. The request changed nothing. RSHM_OK: it was
	 * taken over, and given to another node, or to this one, by redis_node_submit(). Else it is answered with what is returned.
	 */
	int (*divert)(void *context, struct store_request *request, const char *error);
	/* Something happened that a new slot map may mend: a request failed, no connection is left. Must not submit. */
	void (*trouble)(void *context);
	/*
	 * For keys of the node's own that no other node may take: a text whose slot is the node's at this moment, to be put
	 * in braces behind the key prefix. Lent until the next call; NULL: the node has no slot.
	 */
	const char *(*slot_tag)(void *context);
	void *context;
};

/*
 * An op beside those of store.h: CLUSTER SLOTS. `result` is a sequence of items as REDIS_REPLY_IS_TREE of reply.h says, for
 * redis_node_item(). The name is not looked at.
 */
#define REDIS_NODE_SLOTS ((enum store_op)1000)

/* In request->attempts, for which redis_priv.h has other bits. */
#define REDIS_NODE_ASKING 0x40000000u /* each command is sent behind ASKING */
#define REDIS_NODE_REDIRECT 0x00010000u
#define REDIS_NODE_REDIRECTS 0x3fff0000u /* how often it was diverted */

static inline bool redis_node_is_asking(const struct store_request *request)
{
	return (request->attempts & REDIS_NODE_ASKING) != 0;
}

/*
 * As store_submit(), but of a request whose `attempts` are set: 0, or what a divert left there. What is known of earlier
 * tries stays known.
 */
void redis_node_submit(struct store *store, struct store_request *request);

/* Whether a connection is logged in. */
bool redis_node_is_ready(const struct store *store);
/* Requests that are not answered. */
uint64_t redis_node_pending(const struct store *store);

/* Takes the next item from *position, 0 at first. False: that was the last. */
bool redis_node_item(const void *result, size_t result_len, size_t *position, const char **ret_bytes,
		     size_t *ret_length);

#endif
