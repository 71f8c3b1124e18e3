/*
 * feeds.h - what the nodes of a cluster tell of changes (store_watch()), as if one server told it.
 *
 * A feed counts while its node has a slot, or one is on its way there. The mode is the weakest that feeds that count have told.
 * They are armed as one when each of them is and every slot has an owner; a fence of any is a fence of all, and so is every
 * change of the slot map, for the new owner of a slot may have changed it before its feed was armed. A proof is as old as the
 * oldest of theirs. The worker's thread; callbacks of the watcher come from inside these functions.
 */
#ifndef RIPTIDE_STORE_REDIS_CLUSTER_FEEDS_H
#define RIPTIDE_STORE_REDIS_CLUSTER_FEEDS_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/store/store.h"

struct cluster_feeds;

/* Of one node; the caller's memory, zeroed, from add to remove. */
struct cluster_feed {
	struct cluster_feeds *feeds;
	struct cluster_feed *next, *prev;
	bool counts;
	bool known; /* it has told its mode */
	enum store_coherence mode;
	bool armed;
	uint64_t proven_ms; /* 0: not since it was armed */
};

/* Zeroed by the caller. */
struct cluster_feeds {
	struct cluster_feed *first;
	bool active; /* there is a watcher */
	struct store_watcher watcher;
	bool whole; /* every slot has an owner */
	/* as told */
	bool known;
	enum store_coherence mode;
	bool armed;
	uint64_t proven_ms;
	uint64_t changes, maybe_ours, fences;
};

/* From now on `watcher`, which is copied, is told. */
void cluster_feeds_begin(struct cluster_feeds *feeds, const struct store_watcher *watcher);

void cluster_feeds_add(struct cluster_feeds *feeds, struct cluster_feed *feed);
void cluster_feeds_remove(struct cluster_feed *feed);
/* What the node's store is to be watched with. */
struct store_watcher cluster_feed_watcher(struct cluster_feed *feed);

/*
 * Whether it counts has changed; cluster_feeds_on_map() follows, but where a slot is on its way to the node: that is a fence
 * until the node's feed is armed.
 */
void cluster_feed_expect(struct cluster_feed *feed);
/* The slot map has changed. */
void cluster_feeds_on_map(struct cluster_feeds *feeds, bool whole, const char *why);

void cluster_feeds_status(const struct cluster_feeds *feeds, struct store_feed *ret);

#endif
