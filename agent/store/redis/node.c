#include "agent/store/redis/node.h"

#include <string.h>

#include "agent/base/assert.h"
#include "agent/store/redis/redis_priv.h"
#include "shm/msg.h"

_Static_assert((REDIS_ATTEMPTS_RETRIES & REDIS_NODE_REDIRECTS) == 0 &&
		       ((REDIS_ATTEMPTS_RETRIES | REDIS_NODE_REDIRECTS) &
			(REDIS_NODE_ASKING | REDIS_ATTEMPTS_UNKNOWN)) == 0,
	       "bits of their own in request->attempts");

static struct redis_store *node_of(struct store *base)
{
	struct redis_store *store = (struct redis_store *)(void *)base;

	must(store->magic == REDIS_STORE_MAGIC);
	return store;
}

void redis_node_submit(struct store *base, struct store_request *request)
{
	redis_store_take(node_of(base), request);
}

bool redis_node_is_ready(const struct store *base)
{
	const struct redis_store *store = (const struct redis_store *)(const void *)base;

	must(store->magic == REDIS_STORE_MAGIC);
	return store->pool.ready > 0;
}

uint64_t redis_node_pending(const struct store *base)
{
	const struct redis_store *store = (const struct redis_store *)(const void *)base;

	must(store->magic == REDIS_STORE_MAGIC);
	return store->pending;
}

bool redis_node_item(const void *result, size_t result_len, size_t *position, const char **ret_bytes,
		     size_t *ret_length)
{
	const char *bytes = result;
	uint32_t length;

	if (result_len - *position < sizeof(length))
		return false;
	memcpy(&length, bytes + *position, sizeof(length));
	must(length <= result_len - *position - sizeof(length));
	*ret_bytes = bytes + *position + sizeof(length);
	*ret_length = length;
	*position += sizeof(length) + length;
	return true;
}

bool redis_node_diverts(const struct redis_store *store, const struct redis_reply *reply)
{
	return store->config.node != NULL && reply->type == REDIS_REPLY_IS_ERROR &&
	       (redis_reply_error_is(reply, "MOVED ") || redis_reply_error_is(reply, "ASK "));
}

bool redis_node_divert(struct redis_store *store, struct store_request *request, const struct redis_reply *error)
{
	const struct redis_node *node = store->config.node;
	int status;

	if (store->closing || request->op == STORE_LIST || !redis_node_diverts(store, error))
		return false;
	status = node->divert(node->context, request, error->bytes);
	if (status != RSHM_OK) {
		redis_store_answer(store, request, status);
		return true;
	}
	must(store->pending > 0);
	store->pending--;
	return true;
}

void redis_node_note(const struct redis_store *store, int status)
{
	const struct redis_node *node = store->config.node;

	if (node != NULL && !store->closing &&
	    (status == RSHM_E_AGAIN || status == RSHM_E_TIMEDOUT || status == RSHM_E_UNKNOWN))
		node->trouble(node->context);
}
