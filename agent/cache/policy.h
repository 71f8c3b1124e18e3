/*
 * policy.h - what leaves a hot ring first.
 *
 * The ring reclaims at its tail; there the policy says of each live entry whether it is copied to the head or goes. Of reads
 * it knows what readers tell: that an entry has been touched since it was appended. What it remembers of an entry stands in
 * the entry's flags (RSHM_FLAGS_POLICY), so that a successor that adopts the ring goes on with it.
 *
 * One policy per ring, used by the ring's worker only; nothing here blocks.
 */
#ifndef RIPTIDE_CACHE_POLICY_H
#define RIPTIDE_CACHE_POLICY_H

#include "shm/ring.h"

/* What goes first. The numbers are those of the option's words. */
enum hot_policy {
	HOT_LRU,    /* what has not been read for the longest time */
	HOT_LFU,    /* what was found read least often */
	HOT_TTL,    /* what expires soonest; as HOT_LRU where all expire together */
	HOT_RANDOM, /* anything */
	HOT_S3FIFO, /* what is new and not soon read again, then what is seldom read */
	HOT_POLICIES
};

/* For reports and options: "lru", "lfu", "ttl", "random", "s3fifo". */
const char *policy_name(enum hot_policy kind);

struct policy;

/*
 * Makes a policy and puts it in charge of the ring: sets the writer's callbacks and reinsert_percent. The writer must stay
 * where it is. NULL: no memory; then the writer goes on alone and keeps what is touched.
 */
struct policy *policy_create(struct rshm_writer *writer, enum hot_policy kind, uint32_t reinsert_percent);
/* The writer must not be used after it. */
void policy_destroy(struct policy **policy);

/* Takes effect with the next reclaimed entry. What the flags remember serves all kinds. NULL: nothing happens. */
void policy_set_kind(struct policy *policy, enum hot_policy kind);

/* Tells of each live entry that goes to make room; not of what is removed, replaced or cleared. NULL hook: nobody. */
void policy_set_drop_hook(struct policy *policy, rshm_drop_fn *hook, void *context);

/* Bytes that the policy holds outside the ring: at most a 128th of the ring's size, and 4 KiB. */
size_t policy_memory(const struct policy *policy);

#endif
