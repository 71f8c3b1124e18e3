/*
 * hot.h - the hot tier of one tenant: its segment in shared memory, and the larger one it grows into.
 *
 * Belongs to one worker; all functions on its thread unless said. A tier without memory (/dev/shm full) works as an empty
 * one: puts are refused, reads go to the store.
 */
#ifndef RIPTIDE_CACHE_HOT_H
#define RIPTIDE_CACHE_HOT_H

#include <stdbool.h>
#include <uv.h>

#include "agent/cache/objects.h"
#include "agent/cache/policy.h"
#include "shm/ring.h"
#include "shm/source.h"

/* Memory that all hot tiers of the agent share. Any thread. */
struct hot_budget {
	uint64_t total; /* bytes; set once */
	uint64_t used;  /* atomic */
};

/* Set once, shared by all tiers of an agent; borrowed. */
struct hot_environment {
	struct object_list *objects;
	struct hot_budget *budget;
	const struct rshm_source *sources; /* the agent object's */
	const char *instance_name;
	uint8_t instance[16];
	uint8_t boot_id[16];
	uint64_t initial_bytes;     /* of a tier's first ring */
	uint32_t entry_limit_bytes; /* cap of one hot entry */
	uint32_t reinsert_percent;
};

/* Set once per tier; borrowed. */
struct hot_settings {
	const char *tenant;
	uint64_t limit_bytes;     /* of the ring; its index takes a twelfth more. 0: the budget alone limits */
	enum rshm_policy policy;  /* for what cannot be verified */
	enum hot_policy eviction; /* what goes first when there is no room */
	uint32_t negatives_max;   /* remembered absences; further ones are not kept */
	uint64_t stale_limit_ms;
	const uid_t *users;
	size_t user_count;
	const gid_t *groups;
	size_t group_count;
};

struct hot;

/*
 * Opens the tier: adopts the segment `adopt_name` if it is not NULL and sound (otherwise that object is removed), else
 * makes a fresh one. Blocks for the allocation of the first ring. RSHM_E_NOMEM leaves an empty tier that tries again
 * later; other errors only if nothing at all can be done.
 */
int hot_open(const struct hot_environment *environment, const struct hot_settings *settings, uv_loop_t *loop,
	     const char *adopt_name, struct hot **ret);

/*
 * Ends the tier. `keep`: the segment stays for the next agent to adopt; otherwise it is retired and unlinked. `closed` is
 * called from the loop when growth under way has ended, too.
 */
void hot_close(struct hot *hot, bool keep, void (*closed)(void *context), void *context);

/* What clients map; false if there is no segment. Any thread. */
bool hot_locate(struct hot *hot, char ret_name[RSHM_NAME_MAX], uint64_t *ret_size);

/* The entry of a key; points into the ring, good until the next change of the tier. */
bool hot_find(const struct hot *hot, const void *key, size_t key_len, struct rshm_item *ret);
enum rshm_freshness hot_judge(const struct hot *hot, const struct rshm_item *item);

/*
 * Publishes. RSHM_E_TOOBIG (above the hot limit), RSHM_E_FULL (an absence beyond negatives_max) and RSHM_E_NOMEM: any older
 * copy of the key is removed instead.
 */
int hot_put(struct hot *hot, const struct rshm_item *item);
bool hot_remove(struct hot *hot, const void *key, size_t key_len);
/* New control words for the key's entry if it has this version. */
bool hot_patch(struct hot *hot, const void *key, size_t key_len, uint64_t version, uint64_t control_a,
	       uint64_t control_b);
/* A client says it read this position; any number is safe. */
void hot_touch(struct hot *hot, uint64_t position);
/* The live entry at a position, which may be any number; `ret` as of hot_find(). */
bool hot_item_at(const struct hot *hot, uint64_t position, struct rshm_item *ret);
void hot_clear(struct hot *hot);

/*
 * The words of the tags' slots (RSHM_TAG_WORDS of them) in the segment that readers use; NULL without one. Bumping one makes
 * every hot entry that was published under it missing, for every reader, when it returns.
 */
const uint32_t *hot_tag_words(const struct hot *hot);
void hot_bump_tag(struct hot *hot, uint32_t slot);

/* As rshm_writer_walk(). */
bool hot_walk(const struct hot *hot, uint64_t *cursor, uint32_t *steps, struct rshm_item *ret);

/* Called before entries are reclaimed, so that the latest touches count. */
void hot_set_reclaim_hook(struct hot *hot, void (*hook)(void *context), void *context);

/*
 * Told about each live entry that goes to make room, not about what is removed, replaced or cleared. The item is good during
 * the call, which must not change the tier.
 */
void hot_set_drop_hook(struct hot *hot, rshm_drop_fn *hook, void *context);

/* True if the tier would grow and the memory of all tiers is used up. */
bool hot_is_short_of_memory(const struct hot *hot);

/* Another eviction policy, at once. What is known of the entries so far goes on counting. */
void hot_set_policy(struct hot *hot, enum hot_policy policy);

struct hot_figures {
	uint64_t negatives; /* of the entries: remembered absences */
	uint64_t entries, used_bytes, ring_bytes, limit_bytes, evictions, reinsertions, growths;
	enum hot_policy eviction;
	bool adopted;
};
void hot_figures(const struct hot *hot, struct hot_figures *ret);

#endif
