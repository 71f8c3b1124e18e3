/*
 * revalidate.h - after its source was fenced, a tier's entries are compared with the store, head by head.
 *
 * Equal version: the entry gets the present epoch and is verified again; another version, or none: it is removed. Works in
 * the background of the worker's loop, a bounded number of reads at a time. Worker thread.
 */
#ifndef RIPTIDE_COHERENCE_REVALIDATE_H
#define RIPTIDE_COHERENCE_REVALIDATE_H

#include <stdbool.h>
#include <uv.h>

#include "agent/cache/hot.h"
#include "agent/store/envelope.h"
#include "agent/store/store.h"

#define REVALIDATION_WINDOW 128u /* heads asked for at a time */

struct revalidation;

struct revalidation_figures {
	bool running;
	uint64_t checked, confirmed, removed, failed;
};

/*
 * All borrowed for the life of the revalidation; `name` is copied: all of a tenant's entry names but the key. What is
 * confirmed lives at most *max_age_ms from then on; 0 = no cap.
 */
int revalidation_create(uv_loop_t *loop, struct hot *hot, struct store *store, const struct store_name *name,
			uint32_t source_number, const struct rshm_source *source, const uint64_t *max_age_ms,
			struct revalidation **ret);

/* Whether a copy lives longer than the store's entry, whose head this is: somebody has shortened its life, or removed its end. */
bool revalidation_outlives(const struct rshm_item *item, const struct envelope_head *head);

/* Begins a pass, or begins anew if one runs. */
void revalidation_start(struct revalidation *revalidation);

/* True once a pass ended with every entry of the present epoch. */
bool revalidation_is_clean(const struct revalidation *revalidation);
void revalidation_figures(const struct revalidation *revalidation, struct revalidation_figures *ret);

/* Stops; `closed` is called from the loop when its last read has come back. */
void revalidation_close(struct revalidation *revalidation, void (*closed)(void *context), void *context);

#endif
