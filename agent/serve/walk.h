/*
 * walk.h - over all keys of a namespace that begin with a prefix, page by page, a window of them at a time.
 *
 * Used to invalidate by prefix, to warm by prefix, and to sweep what a cleared namespace left. Worker thread.
 */
#ifndef RIPTIDE_SERVE_WALK_H
#define RIPTIDE_SERVE_WALK_H

#include <stdbool.h>

#include "agent/store/store.h"

#define WALK_PAGE_KEYS 256u /* asked for at a time, and under way at most */

/* Embedded by its owner, who fills the first part and zeroes the rest. */
struct walk {
	struct store *store;
	struct store_name name; /* key: the prefix, borrowed until `done` */
	uint64_t deadline_ms;
	/* Does something to a key, which stays until walk_item_done(). */
	void (*each)(struct walk *walk, const void *key, size_t key_len);
	/* The end: RSHM_OK, or the first error of a page or an item. The walk may be freed in it. */
	void (*done)(struct walk *walk, int status);
	/* the walk's */
	struct store_request page;
	unsigned char *keys;
	size_t keys_len, at;
	uint32_t under_way;
	bool running; /* within the loop that starts items */
	int status;
};

void walk_start(struct walk *walk);
/* Once for each key, from `each` or later. A negative status ends the walk when what is under way has come back. */
void walk_item_done(struct walk *walk, int status);

#endif
