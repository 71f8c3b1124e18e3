/*
 * LIST over the masters that have a shard of the tenant.
 *
 * A pass lists one master from its first page to its last. It completes the shards whose slots that master had when the pass
 * began and has when it ends; to see the latter, each of them is probed with a key that nobody has:
 *
 *	no such key     the slot is there and goes nowhere: all its keys were listed
 *	ASK             the slot is on its way: what has left is at the target, which has a pass of its own next
 *	MOVED           the slot has another owner: that one has a pass
 *
 * A key that is there from first to last page is listed at least once: it was at the master of the pass all the time, or
 * at the target when the target's pass began, because keys of a slot travel in one direction only.
 *
 * Which pass this is, and which shards are left, stands in the cursor, so nothing is kept between two pages:
 *
 *	1 u8 | phase u8 | passes u8 | shard bytes u8 | id of the master u64 | left | in this pass | cursor of the master
 *
 * where `left` and `in this pass` are one bit per shard. Cursors come from our own callers, and are checked all the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/store/redis/cluster/cluster_priv.h"
#include "shm/msg.h"

#define WALK_MAGIC 0x636c776bu
#define WALK_SHARDS_MAX 1024u
#define WALK_PASSES_MAX 200u
#define WALK_HEAD 12u
#define WALK_NATIVE_MAX 32u

_Static_assert(WALK_HEAD + 2 * WALK_SHARDS_MAX / 8 + WALK_NATIVE_MAX <= STORE_CURSOR_MAX, "a cursor fits");

enum walk_phase {
	WALK_LISTING,
	WALK_LISTING_TARGET, /* of a slot on its way: behind ASKING */
	WALK_PROBING,
	WALK_PROBING_TARGET,
	WALK_PHASES
};

struct walk {
	uint32_t magic;
	struct cluster_store *cluster;
	struct store_request *outer;
	struct store_request inner;
	uint32_t shards, shard; /* how many; which one is being probed */
	char probe[16];
	/* the cursor */
	enum walk_phase phase;
	uint32_t passes;
	uint64_t master;
	unsigned char left[WALK_SHARDS_MAX / 8], in_pass[WALK_SHARDS_MAX / 8];
	unsigned char native[WALK_NATIVE_MAX];
	size_t native_len;
	/* the pass after this one, if a probe was answered by ASK */
	bool has_target;
	struct cluster_endpoint target;
	unsigned char in_target[WALK_SHARDS_MAX / 8];
};

static bool bit_get(const unsigned char *bits, uint32_t index)
{
	return (bits[index / 8] >> index % 8 & 1) != 0;
}

static void bit_set(unsigned char *bits, uint32_t index, bool value)
{
	unsigned char mask = (unsigned char)(1u << index % 8);

	bits[index / 8] = (unsigned char)(value ? bits[index / 8] | mask : bits[index / 8] & ~mask);
}

static uint32_t walk_next(const struct walk *walk, const unsigned char *bits, uint32_t from)
{
	while (from < walk->shards && !bit_get(bits, from))
		from++;
	return from;
}

/* FNV-1a of the address: the same for all agents, for as long as the node is there. */
static uint64_t endpoint_id(const struct cluster_endpoint *endpoint)
{
	uint64_t id = 14695981039346656037u;

	for (const char *p = endpoint->host; *p != '\0'; p++)
		id = (id ^ (unsigned char)*p) * 1099511628211u;
	id = (id ^ (endpoint->port & 0xff)) * 1099511628211u;
	return (id ^ (endpoint->port >> 8)) * 1099511628211u;
}

static struct cluster_node *walk_find_master(const struct walk *walk)
{
	for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++) {
		struct cluster_node *node = walk->cluster->nodes[i];

		if (node != NULL && endpoint_id(&node->endpoint) == walk->master)
			return node;
	}
	return NULL;
}

static bool walk_is_asking(const struct walk *walk)
{
	return walk->phase == WALK_LISTING_TARGET || walk->phase == WALK_PROBING_TARGET;
}

/* ---- the cursor ------------------------------------------------------------------------------------------------ */

static bool cursor_read(struct walk *walk)
{
	const struct store_request *request = walk->outer;
	const unsigned char *p = request->cursor;
	size_t bytes = (walk->shards + 7) / 8, head = WALK_HEAD + 2 * bytes;

	if (request->cursor_len == 0) {
		for (uint32_t shard = 0; shard < walk->shards; shard++)
			bit_set(walk->left, shard, true);
		return true;
	}
	if (request->cursor_len < head || request->cursor_len > head + WALK_NATIVE_MAX || p[0] != 1 ||
	    p[1] >= WALK_PHASES || p[2] == 0 || p[3] != bytes)
		return false;
	walk->phase = p[1];
	walk->passes = p[2];
	memcpy(&walk->master, p + 4, sizeof(walk->master));
	memcpy(walk->left, p + WALK_HEAD, bytes);
	memcpy(walk->in_pass, p + WALK_HEAD + bytes, bytes);
	walk->native_len = request->cursor_len - head;
	memcpy(walk->native, p + head, walk->native_len);
	return true;
}

static void cursor_write(const struct walk *walk)
{
	struct store_request *request = walk->outer;
	unsigned char *p = request->cursor;
	size_t bytes = (walk->shards + 7) / 8, head = WALK_HEAD + 2 * bytes;

	p[0] = 1;
	p[1] = (unsigned char)walk->phase;
	p[2] = (unsigned char)walk->passes;
	p[3] = (unsigned char)bytes;
	memcpy(p + 4, &walk->master, sizeof(walk->master));
	memcpy(p + WALK_HEAD, walk->left, bytes);
	memcpy(p + WALK_HEAD + bytes, walk->in_pass, bytes);
	memcpy(p + head, walk->native, walk->native_len);
	request->cursor_len = head + walk->native_len;
}

/* ---- ends ------------------------------------------------------------------------------------------------------ */

/* Answers with what inner has, from inside a node's answer. */
static void walk_finish(struct walk *walk, int status)
{
	struct store_request *outer = walk->outer;

	outer->status = status;
	outer->result = status == RSHM_OK ? walk->inner.result : NULL;
	outer->result_len = status == RSHM_OK ? walk->inner.result_len : 0;
	walk->magic = 0;
	outer->slot = NULL;
	outer->done(outer);
	free(walk);
}

/* The same, from where nobody may be answered. */
static void walk_finish_later(struct walk *walk, int status)
{
	cluster_defer(walk->cluster, walk->outer, status);
	walk->magic = 0;
	free(walk);
}

/* ---- a page ---------------------------------------------------------------------------------------------------- */

static void walk_on_page(struct store_request *inner)
{
	struct walk *walk = inner->context;

	must(walk->magic == WALK_MAGIC);
	if (inner->status == RSHM_OK && inner->cursor_len > sizeof(walk->native))
		inner->status = RSHM_E_BACKEND;
	if (inner->status == RSHM_OK) {
		walk->native_len = inner->cursor_len;
		memcpy(walk->native, inner->cursor, inner->cursor_len);
		if (inner->cursor_len == 0)
			walk->phase = walk_is_asking(walk) ? WALK_PROBING_TARGET : WALK_PROBING;
		cursor_write(walk);
	}
	walk_finish(walk, inner->status);
}

static void walk_list(struct walk *walk, struct cluster_node *node)
{
	struct store_request *inner = &walk->inner;

	inner->op = STORE_LIST;
	inner->name = walk->outer->name;
	inner->attempts = walk_is_asking(walk) ? REDIS_NODE_ASKING : 0;
	inner->cursor_len = walk->native_len;
	memcpy(inner->cursor, walk->native, walk->native_len);
	inner->done = walk_on_page;
	cluster_node_submit(node, inner);
}

/* A pass over the owner of the first shard that is left. */
static int walk_begin_pass(struct walk *walk)
{
	uint32_t first = walk_next(walk, walk->left, 0);
	const char *tenant = walk->outer->name.tenant;
	struct cluster_node *owner = cluster_owner(walk->cluster, cluster_slot_of_shard(tenant, first));

	if (owner == NULL || ++walk->passes > WALK_PASSES_MAX) {
		cluster_refresh_want(walk->cluster);
		return RSHM_E_AGAIN;
	}
	walk->phase = WALK_LISTING;
	walk->master = endpoint_id(&owner->endpoint);
	walk->native_len = 0;
	memset(walk->in_pass, 0, sizeof(walk->in_pass));
	for (uint32_t i = first; i < walk->shards; i++) {
		if (bit_get(walk->left, i) && cluster_owner(walk->cluster, cluster_slot_of_shard(tenant, i)) == owner)
			bit_set(walk->in_pass, i, true);
	}
	walk_list(walk, owner);
	return RSHM_OK;
}

/* A pass over the target of slots that are on their way. */
static int walk_begin_target(struct walk *walk)
{
	struct cluster_node *node = cluster_node_at(walk->cluster, &walk->target);

	if (node == NULL || ++walk->passes > WALK_PASSES_MAX)
		return RSHM_E_AGAIN;
	walk->phase = WALK_LISTING_TARGET;
	walk->master = endpoint_id(&node->endpoint);
	walk->native_len = 0;
	memcpy(walk->in_pass, walk->in_target, sizeof(walk->in_pass));
	walk_list(walk, node);
	return RSHM_OK;
}

/* ---- probes ---------------------------------------------------------------------------------------------------- */

static void walk_on_probe(struct store_request *inner);

/* A key of that shard that nobody has: no entries have this space. */
static void walk_probe(struct walk *walk, struct cluster_node *node)
{
	struct store_request *inner = &walk->inner;
	uint32_t number = 0;

	do {
		snprintf(walk->probe, sizeof(walk->probe), "%u", (unsigned)number++);
	} while (keys_shard(walk->probe, strlen(walk->probe), walk->shards) != walk->shard);
	inner->op = STORE_HEAD;
	inner->name = walk->outer->name;
	inner->name.space = 'p';
	inner->name.key = walk->probe;
	inner->name.key_len = strlen(walk->probe);
	inner->attempts = walk_is_asking(walk) ? REDIS_NODE_ASKING : 0;
	inner->done = walk_on_probe;
	cluster_node_submit(node, inner);
}

/* The next shard of this pass is probed; after the last one, the next pass begins. RSHM_MISS: all are done. */
static int walk_go_on(struct walk *walk)
{
	struct cluster_node *node = walk_find_master(walk);

	walk->shard = walk_next(walk, walk->in_pass, walk->shard);
	if (walk->shard < walk->shards && node != NULL) {
		walk_probe(walk, node);
		return RSHM_OK;
	}
	if (walk->has_target)
		return walk_begin_target(walk);
	if (walk_next(walk, walk->left, 0) == walk->shards)
		return RSHM_MISS;
	return walk_begin_pass(walk);
}

static void walk_on_probe(struct store_request *inner)
{
	struct walk *walk = inner->context;
	int status = inner->status;

	must(walk->magic == WALK_MAGIC);
	if (status == RSHM_OK || status == RSHM_MISS) {
		bit_set(walk->left, walk->shard++, false);
		status = walk_go_on(walk);
	}
	if (status == RSHM_OK)
		return;
	if (status == RSHM_MISS) {
		walk->outer->cursor_len = 0;
		inner->result = NULL;
		inner->result_len = 0;
		status = RSHM_OK;
	}
	walk_finish(walk, status);
}

bool cluster_walk_takes(struct store_request *request, const struct cluster_redirect *redirect)
{
	struct walk *walk = request->context;
	int status;

	if (request->done != walk_on_probe)
		return false;
	must(walk->magic == WALK_MAGIC);
	if (redirect->ask && (!walk->has_target || cluster_endpoint_equals(&walk->target, &redirect->to))) {
		walk->has_target = true;
		walk->target = redirect->to;
		bit_set(walk->in_target, walk->shard, true);
	}
	walk->shard++;
	status = walk_go_on(walk);
	if (status != RSHM_OK) {
		must(status != RSHM_MISS); /* this shard is left */
		walk_finish_later(walk, status);
	}
	return true;
}

/* ---- beginning ------------------------------------------------------------------------------------------------- */

void cluster_walk_begin(struct cluster_store *cluster, struct store_request *request)
{
	struct walk *walk = calloc(1, sizeof(*walk));
	struct cluster_node *node;
	int status = RSHM_OK;

	if (walk == NULL) {
		cluster_defer(cluster, request, RSHM_E_NOMEM);
		return;
	}
	walk->magic = WALK_MAGIC;
	walk->cluster = cluster;
	walk->outer = request;
	walk->shards = request->name.shards > 1 ? request->name.shards : 1;
	walk->inner.deadline_ms = request->deadline_ms;
	walk->inner.page_keys = request->page_keys;
	walk->inner.context = walk;
	if (walk->shards > WALK_SHARDS_MAX || request->name.tenant == NULL || !cursor_read(walk)) {
		walk_finish_later(walk, RSHM_E_INVALID);
		return;
	}
	node = walk->passes > 0 ? walk_find_master(walk) : NULL;
	/* A master that is gone has no pass any more: what was left is left. */
	if (node == NULL)
		status = walk_next(walk, walk->left, 0) < walk->shards ? walk_begin_pass(walk) : RSHM_E_INVALID;
	else if (walk->phase == WALK_LISTING || walk->phase == WALK_LISTING_TARGET)
		walk_list(walk, node);
	else
		status = walk_go_on(walk);
	if (status != RSHM_OK)
		walk_finish_later(walk, status == RSHM_MISS ? RSHM_E_INVALID : status);
}
