/*
 * spill.h - the disk tier: what memory pressure evicted while it was alive, until somebody asks for it again.
 *
 * One tier per worker, made, used and ended on the thread of that worker's uv loop. Nothing here but spill_open() blocks:
 * one thread of the tier does all that touches the disk, and answers on the loop. It is a cache and nothing else: whatever goes
 * wrong with the disk (full, slow, damaged) costs a later miss and is counted, never an error to a reader and never a wrong
 * byte. What it holds are whole envelopes, as a backend holds them; it never looks into them.
 *
 * Order, as the loop sees it: a get sees every put, remove and remove_generations that was called before it, at once,
 * however far the disk is behind; and one called after the get and before its answer turns the answer into a miss or into the
 * newer put. So nothing that was removed is ever handed out.
 *
 * The folder is the tier's own. Files in it that are not the tier's are left alone, with a message.
 */
#ifndef RIPTIDE_STORE_SPILL_H
#define RIPTIDE_STORE_SPILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "agent/base/text.h"
#include "agent/store/store.h"

struct spill;

#define SPILL_IDENTITY_BYTES 16u
#define SPILL_BYTES_MIN (8ull << 20)

/* What spill_reload() may change. */
struct spill_limits {
	/* On disk, index and segments, SPILL_BYTES_MIN at least. An envelope above a quarter of it is refused. */
	uint64_t bytes;
	uint64_t queue_bytes; /* of envelopes that wait to be written, but always one; beyond: refused */
	uint32_t
		queue_max; /* puts and removals that wait; beyond: puts are refused, beyond 4 times it all is discarded */
	uint32_t gets_max; /* gets that wait; beyond: a miss at once */
};

/* Everything has a default: SPILL_CONFIG_DEFAULTS, then set `path`. */
struct spill_config {
	const char *path; /* folder, made with mode 0700 if absent; its parent must exist. Copied */
	struct spill_limits limits;
	uint32_t segment_bytes; /* of one file, at most; an eighth of limits.bytes if that is less */
	/*
	 * Keep what an earlier run left, if it was of the same `identity` (name it after the backend) and this machine was
	 * not restarted since, or the run ended by spill_close(). Without it the content is discarded at open and at close.
	 */
	bool keep;
	unsigned char identity[SPILL_IDENTITY_BYTES];
};

#define SPILL_CONFIG_DEFAULTS                                                                                    \
	{                                                                                                        \
		.limits = {.bytes = 1ull << 30, .queue_bytes = 64u << 20, .queue_max = 16384, .gets_max = 4096}, \
		.segment_bytes = 64u << 20,                                                                      \
	}

/* Exact since spill_open(), or "now" where that is said. The first six have the names of the product's metrics. */
struct spill_figures {
	uint64_t total_spilled;      /* envelopes that reached the disk */
	uint64_t total_restored;     /* gets that were answered with bytes */
	uint64_t spill_operations;   /* calls of spill_put() */
	uint64_t restore_operations; /* calls of spill_get() */
	double avg_spill_time_ms;    /* from spill_put() until it is on the disk, of total_spilled */
	double avg_restore_time_ms;  /* from spill_get() to the answer, of total_restored */
	uint64_t bytes_used;         /* now: files of the index and of the segments */
	uint64_t bytes_limit;        /* now */
	uint64_t entries;            /* now: in the index, expired ones included until they are met */
	uint64_t waiting;            /* now: puts, removals and gets not yet done */
	uint64_t waiting_bytes;      /* now: of envelopes */
	uint64_t unchanged;   /* of total_spilled: the very bytes were there, nothing was written but the index */
	uint64_t copied;      /* entries that were read since and survived the eviction of their segment */
	uint64_t evicted;     /* entries that went for lack of room */
	uint64_t expired;     /* entries that were met, or went with their segment, after their time */
	uint64_t refused;     /* puts: queue full, too large, no memory, disk full */
	uint64_t corrupt;     /* entries that failed their checks; each was a miss and is removed */
	uint64_t removed;     /* entries that spill_remove() and spill_remove_generations() found */
	uint64_t late;        /* gets whose deadline passed: a miss */
	uint64_t disk_errors; /* calls of the system or of LMDB that failed */
	uint64_t discards;    /* of everything: removals beyond the bound, or an index that cannot be written */
};

struct spill_request;
typedef void spill_done_fn(struct spill_request *request);

/* The caller's memory from spill_get() until `done`, which is called exactly once. */
struct spill_request {
	/* set by the caller */
	struct store_name name; /* tenant's text may be NULL; its key is needed during spill_get() only */
	uint64_t
		deadline_ms; /* clock_monotonic_ms(); a miss when it passes, kept by the loop's clock also if the disk hangs */
	spill_done_fn *done;
	void *context;

	/* set before `done` */
	int status;         /* RSHM_OK or RSHM_MISS, nothing else */
	const void *result; /* the envelope; lent until `done` returns */
	size_t result_len;
	uint64_t version, expiry_ms, epoch; /* as they were put */
	uint32_t source;
	bool kept; /* put by an earlier run of the program: to be verified whatever its epoch says */
	void *get; /* the tier's */
};

/*
 * Opens or makes the folder and starts the thread. Blocks: removes what is not kept. To be called under the lock that keeps
 * a second agent away; a folder in use is noticed all the same. On failure `error` gets one line that names the path and
 * what to do. RSHM_E_INVALID (configuration), RSHM_E_DENIED, RSHM_E_FULL, RSHM_E_AGAIN (in use), RSHM_E_SYSTEM,
 * RSHM_E_NOMEM. What is damaged is no failure: it is discarded.
 */
int spill_open(const struct spill_config *config, uv_loop_t *loop, struct spill **ret, struct text *error);

/*
 * Keeps a copy of the envelope on disk, in place of an older one of this name. Returns RSHM_OK (taken; it may still be
 * lost to a failing disk), or RSHM_E_AGAIN (queue full, disk failing), RSHM_E_TOOBIG, RSHM_E_INVALID (name), RSHM_E_NOMEM:
 * then the name is not in the tier any more, an older envelope neither. `expiry_ms`: wall clock, 0 = never.
 */
int spill_put(struct spill *spill, const struct store_name *name, const void *envelope, size_t length,
	      uint64_t version, uint64_t expiry_ms, uint32_t source, uint64_t epoch);

/* Asks for an envelope. `done` may be called from inside. What is found stays in the tier until it is removed or evicted. */
void spill_get(struct spill *spill, struct spill_request *request);

/*
 * The name is in the tier no more. Cannot fail. Costs next to nothing while the tier is empty. A process that is killed before
 * the disk has followed may find the entry again in its next run, if it keeps: `kept` tells.
 */
void spill_remove(struct spill *spill, const struct store_name *name);

/* As spill_remove(), for all names of the tenant (not 0) up to `generation_max`; UINT64_MAX = the whole tenant. */
void spill_remove_generations(struct spill *spill, uint32_t tenant_number, uint64_t generation_max);

/* As spill_remove(), for everything there is. */
void spill_remove_all(struct spill *spill);

void spill_figures(struct spill *spill, struct spill_figures *ret);

/* Takes over new limits; a lower `bytes` evicts in the background. RSHM_E_INVALID: nothing is changed. */
int spill_reload(struct spill *spill, const struct spill_limits *limits);

/*
 * Ends the tier: gets that wait are answered with a miss before it returns; if it keeps, what was put is written and synced; then
 * `closed` is called from the loop, after which the tier is gone. The loop must run until then.
 */
void spill_close(struct spill *spill, void (*closed)(void *context), void *context);

#endif
