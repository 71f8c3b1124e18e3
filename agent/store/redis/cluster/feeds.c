#include "agent/store/redis/cluster/feeds.h"

#include "agent/base/clock.h"

/* ---- as one ---------------------------------------------------------------------------------------------------- */

static bool all_are_armed(const struct cluster_feeds *feeds)
{
	bool any = false;

	for (const struct cluster_feed *feed = feeds->first; feed != NULL; feed = feed->next) {
		if (feed->counts && !feed->armed)
			return false;
		any |= feed->counts;
	}
	return any && feeds->whole;
}

/* The oldest proof; 0: one of them has none. */
static uint64_t oldest_proof(const struct cluster_feeds *feeds)
{
	uint64_t oldest_ms = UINT64_MAX;

	for (const struct cluster_feed *feed = feeds->first; feed != NULL; feed = feed->next) {
		if (feed->counts && feed->proven_ms < oldest_ms)
			oldest_ms = feed->proven_ms;
	}
	return oldest_ms != UINT64_MAX ? oldest_ms : 0;
}

static void tell_fence(struct cluster_feeds *feeds, const char *why)
{
	feeds->armed = false;
	feeds->proven_ms = 0;
	feeds->fences++;
	feeds->watcher.fenced(feeds->watcher.context, false, why);
}

static void tell_mode(struct cluster_feeds *feeds)
{
	enum store_coherence weakest = STORE_TRACKING;
	bool known = false;

	for (const struct cluster_feed *feed = feeds->first; feed != NULL; feed = feed->next) {
		if (!feed->counts || !feed->known)
			continue;
		known = true;
		if (feed->mode < weakest)
			weakest = feed->mode;
	}
	if (!known || (feeds->known && feeds->mode == weakest))
		return;
	if (feeds->armed && weakest != STORE_TRACKING)
		tell_fence(feeds, "a node cannot tell of all changes");
	feeds->known = true;
	feeds->mode = weakest;
	feeds->watcher.mode(feeds->watcher.context, weakest);
}

static void tell_armed(struct cluster_feeds *feeds, const char *why)
{
	if (feeds->armed || !feeds->known || feeds->mode != STORE_TRACKING || !all_are_armed(feeds))
		return;
	feeds->armed = true;
	feeds->watcher.fenced(feeds->watcher.context, true, why);
}

static void tell_proof(struct cluster_feeds *feeds)
{
	uint64_t proven_ms = oldest_proof(feeds);

	if (!feeds->armed || proven_ms <= feeds->proven_ms)
		return;
	feeds->proven_ms = proven_ms;
	feeds->watcher.proven(feeds->watcher.context, proven_ms);
}

/* ---- what a node tells ----------------------------------------------------------------------------------------- */

static void feed_on_mode(void *context, enum store_coherence mode)
{
	struct cluster_feed *feed = context;

	feed->known = true;
	feed->mode = mode;
	if (mode != STORE_TRACKING)
		feed->armed = false;
	tell_mode(feed->feeds);
}

static void feed_on_fenced(void *context, bool armed, const char *why)
{
	struct cluster_feed *feed = context;

	feed->armed = armed;
	feed->proven_ms = 0;
	if (armed)
		tell_armed(feed->feeds, why);
	else if (feed->counts)
		tell_fence(feed->feeds, why);
}

static void feed_on_proven(void *context, uint64_t complete_ms)
{
	struct cluster_feed *feed = context;

	feed->proven_ms = complete_ms;
	tell_proof(feed->feeds);
}

static void feed_on_changed(void *context, const struct store_change *change)
{
	struct cluster_feeds *feeds = ((struct cluster_feed *)context)->feeds;

	feeds->changes++;
	feeds->maybe_ours += change->maybe_ours;
	feeds->watcher.changed(feeds->watcher.context, change);
}

struct store_watcher cluster_feed_watcher(struct cluster_feed *feed)
{
	return (struct store_watcher){.mode = feed_on_mode,
				      .fenced = feed_on_fenced,
				      .proven = feed_on_proven,
				      .changed = feed_on_changed,
				      .context = feed};
}

/* ---- coming and going ------------------------------------------------------------------------------------------ */

void cluster_feeds_begin(struct cluster_feeds *feeds, const struct store_watcher *watcher)
{
	feeds->active = true;
	feeds->watcher = *watcher;
}

void cluster_feeds_add(struct cluster_feeds *feeds, struct cluster_feed *feed)
{
	feed->feeds = feeds;
	feed->prev = NULL;
	feed->next = feeds->first;
	if (feed->next != NULL)
		feed->next->prev = feed;
	feeds->first = feed;
}

void cluster_feeds_remove(struct cluster_feed *feed)
{
	*(feed->prev != NULL ? &feed->prev->next : &feed->feeds->first) = feed->next;
	if (feed->next != NULL)
		feed->next->prev = feed->prev;
	feed->counts = false;
}

void cluster_feed_expect(struct cluster_feed *feed)
{
	feed->counts = true;
	if (feed->feeds->active && feed->feeds->armed && !feed->armed)
		tell_fence(feed->feeds, "a slot is on its way to a node without a feed");
}

void cluster_feeds_on_map(struct cluster_feeds *feeds, bool whole, const char *why)
{
	feeds->whole = whole;
	if (!feeds->active)
		return;
	if (feeds->armed)
		tell_fence(feeds, why);
	tell_mode(feeds);
	tell_armed(feeds, why);
	tell_proof(feeds);
}

void cluster_feeds_status(const struct cluster_feeds *feeds, struct store_feed *ret)
{
	ret->mode = feeds->known ? feeds->mode : STORE_TTL;
	ret->armed = feeds->armed;
	ret->proof_age_ms = feeds->proven_ms != 0 ? clock_monotonic_ms() - feeds->proven_ms : UINT64_MAX;
	ret->changes = feeds->changes;
	ret->maybe_ours = feeds->maybe_ours;
	ret->fences = feeds->fences;
}
