/*
 * slots.h - the slot of a key, and what servers of a cluster say about slots.
 *
 * Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/ and the page of CLUSTER SLOTS. Servers are
 * not trusted: whatever they send is checked and bounded. Pure functions; any thread.
 */
#ifndef RIPTIDE_STORE_REDIS_CLUSTER_SLOTS_H
#define RIPTIDE_STORE_REDIS_CLUSTER_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store_request;

#define CLUSTER_SLOTS 16384u
#define CLUSTER_NODES_MAX 1024u /* masters; the specification knows no more */
#define CLUSTER_NOBODY 0xffffu  /* owns a slot that no node serves */
#define CLUSTER_HOST_MAX 255u

/* The slot of a Redis key: CRC16 of what stands between its first '{' and the next '}', if that is not empty, else of all. */
uint32_t cluster_slot_of_key(const void *key, size_t length);
/* The slot of {tenant.shard}. */
uint32_t cluster_slot_of_shard(const char *tenant, uint32_t shard);
/* The slot of the one Redis key that a request is about; not LIST and FLUSH, which have none. */
uint32_t cluster_slot_of_request(const struct store_request *request);

#define CLUSTER_TAG_MAX 16u

/*
 * A short text that lies, in braces, in a slot of this owner; `ret` has CLUSTER_TAG_MAX bytes. False: none was found, as when
 * it has no slot.
 */
bool cluster_tag_find(const uint16_t owners[CLUSTER_SLOTS], uint16_t owner, char *ret);

struct cluster_endpoint {
	char host[CLUSTER_HOST_MAX + 1];
	uint16_t port;
};

bool cluster_endpoint_equals(const struct cluster_endpoint *a, const struct cluster_endpoint *b);

/* Which master has which slot. */
struct cluster_map {
	uint32_t count;                 /* of endpoints */
	uint32_t covered;               /* slots that have an owner */
	uint16_t owners[CLUSTER_SLOTS]; /* indexes of endpoints, or CLUSTER_NOBODY */
	struct cluster_endpoint endpoints[CLUSTER_NODES_MAX];
};

/*
 * Reads an answer to CLUSTER SLOTS, flattened as REDIS_NODE_SLOTS of node.h says. `asked_host` is the host that answered, which
 * servers that do not know their own address leave out. RSHM_OK with a map, the caller's to free(); RSHM_E_NOMEM;
 * RSHM_E_PROTOCOL if it is no such answer.
 */
int cluster_map_read(const void *items, size_t length, const char *asked_host, struct cluster_map **ret);

struct cluster_redirect {
	bool ask; /* else moved */
	uint32_t slot;
	struct cluster_endpoint to;
};

/* Reads "MOVED slot host:port" or "ASK slot host:port". RSHM_E_PROTOCOL. */
int cluster_redirect_read(const char *error, const char *asked_host, struct cluster_redirect *ret);

#endif
