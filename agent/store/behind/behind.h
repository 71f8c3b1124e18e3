/*
 * behind.h - write-behind: a store that lies over another one and acknowledges writes from a journal.
 *
 * A PUT or DELETE with `behind` and no condition is answered RSHM_OK, `accepted` set, as soon as it stands in a
 * journal file of this worker. A table in memory answers reads of the key from then on; the write reaches the inner
 * store later, together with others, and only if nothing newer is there. Everything else passes, after what was
 * accepted before it on the same key. README.md has the argument.
 *
 * What an acknowledged write survives before it has reached the inner store:
 *
 *	sync       death of the agent (kill -9)   power loss, kernel crash
 *	always     yes                            yes
 *	interval   yes                            but the last sync_interval_ms
 *	none       yes                            not promised
 *
 * Requests are answered as store.h says. In particular, for accepted writes:
 *   RSHM_E_AGAIN     the journal is full (max_bytes, max_records), or a record of the key with a greater version waits:
 *                    nothing was changed
 *   RSHM_E_FULL      its disk is full: nothing was changed
 *   RSHM_E_BACKEND   its disk failed: nothing was changed; the text is in the log
 *   RSHM_E_UNKNOWN   sync = always: it stands in the journal, but the disk failed, or took longer than the deadline
 * RSHM_E_TIMEDOUT of a request that had to wait behind an accepted write: it never began.
 *
 * All functions: the thread of the worker's loop.
 */
#ifndef RIPTIDE_STORE_BEHIND_H
#define RIPTIDE_STORE_BEHIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct store;
struct store_name;

enum behind_sync {
	BEHIND_SYNC_ALWAYS,   /* acknowledged after fdatasync; those that wait share one */
	BEHIND_SYNC_INTERVAL, /* fdatasync every sync_interval_ms */
	BEHIND_SYNC_NONE,     /* the kernel writes when it likes */
};

/* Everything has a default: BEHIND_CONFIG_DEFAULTS, then set folder, worker, worker_count, owns. Live = taken over by reload. */
struct behind_config {
	/*
	 * Holds the journals of all workers; made with mode 0700 if absent, its parent must exist. Copied. All stores
	 * of the process that name the same folder have the same worker_count and different workers, 0 to
	 * worker_count - 1.
	 */
	const char *folder;
	uint32_t worker, worker_count;
	/*
	 * Replay: does this worker serve name->tenant? Exactly one worker of the process says yes for each tenant
	 * that exists. `name` comes with tenant_number and shards as they were journaled; what may have changed since
	 * is to be corrected.
	 */
	bool (*owns)(void *context, struct store_name *name);
	void *owns_context;
	enum behind_sync sync;
	uint64_t
		segment_bytes; /* a journal file that has grown so large, or to max_bytes / 4, is followed by another */
	uint32_t flush_window; /* writes in flight to the inner store */

	uint64_t max_bytes;          /* live: journal files of this worker; marks of what is stored may come on top */
	uint64_t max_records;        /* live: accepted, not yet stored */
	uint64_t flush_records;      /* live: so many waiting begin a flush */
	uint64_t flush_bytes;        /* live: or so many bytes */
	uint64_t flush_interval_ms;  /* live: or the oldest being so old */
	uint64_t flush_timeout_ms;   /* live: deadline of a write to the inner store */
	uint64_t retry_delay_ms;     /* live: after a failed flush; doubles, with jitter */
	uint64_t retry_max_delay_ms; /* live */
	uint64_t sync_interval_ms;   /* live */
	uint64_t max_replay_age_ms;  /* live: older records are not stored any more; so long live tombstones */
	uint64_t close_timeout_ms;   /* live: how long store_close() tries to flush */
};

#define BEHIND_CONFIG_DEFAULTS                                                                                    \
	{                                                                                                         \
		.worker_count = 1, .sync = BEHIND_SYNC_INTERVAL, .segment_bytes = 16u << 20, .flush_window = 128, \
		.max_bytes = 256u << 20, .max_records = 100000, .flush_records = 1000, .flush_bytes = 1u << 20,   \
		.flush_interval_ms = 1000, .flush_timeout_ms = 10000, .retry_delay_ms = 50,                       \
		.retry_max_delay_ms = 5000, .sync_interval_ms = 1000, .max_replay_age_ms = 3600000,               \
		.close_timeout_ms = 5000                                                                          \
	}

/* Levels, and counts since create. */
struct behind_figures {
	uint64_t depth_records;  /* accepted and not yet stored */
	uint64_t depth_bytes;    /* of these */
	uint64_t oldest_age_ms;  /* of these; 0 = none */
	uint64_t journal_bytes;  /* files of this worker, with what is stored already */
	uint64_t accepted;       /* acknowledged from the journal */
	uint64_t coalesced;      /* replaced by a newer one of their key before they were stored */
	uint64_t flushed;        /* stored */
	uint64_t conflicts;      /* not stored, because something newer was there */
	uint64_t replayed;       /* taken over from journals of before the start */
	uint64_t refused_full;   /* not accepted: RSHM_E_AGAIN or RSHM_E_FULL */
	uint64_t too_old;        /* given up for their age; the file is set aside */
	uint64_t rejected;       /* given up because the inner store cannot take them; the file is set aside */
	uint64_t flush_failures; /* attempts that failed and are repeated */
	uint64_t sync_failures;
	uint64_t torn_tails;  /* journal files of before the start that ended in the middle of a record */
	uint64_t files_aside; /* renamed to aside-…, for a person to look at */
	/*
	 * The greatest version in the journals of before the start. The clock that makes versions must be beyond it
	 * before the first write: a version below that of a record of the key that waits is refused.
	 */
	uint64_t newest_version;
};

/*
 * Makes the store of one worker over `inner`, which is its own from then on; after a failure it is still the
 * caller's. Blocks: reads the journals that are there, takes over the records of the tenants that `owns` names, and
 * syncs them. On failure `error` (of `error_len` bytes, at least 1) gets one line that says what to do.
 *
 * To be called for all workers before any of them serves requests. Nothing but the lock taken on the folder keeps a
 * second process away. A worker closed and made again while others live replays nothing: its records wait for the
 * next start.
 *
 * RSHM_E_INVALID (configuration), RSHM_E_DENIED (folder: another owner, or open to others), RSHM_E_AGAIN (another
 * process uses it), RSHM_E_FULL (no room to take records over), RSHM_E_SYSTEM, RSHM_E_NOMEM.
 *
 * store_close() flushes until all is stored or close_timeout_ms has passed; the rest stays in the journal for the
 * next start. Then it closes `inner`. `reload` of the store hands its config to `inner`: for this layer there is
 * behind_reload().
 */
int behind_create(const struct behind_config *config, uv_loop_t *loop, struct store *inner, struct store **ret,
		  char *error, size_t error_len);

/* Takes over the live options. */
void behind_reload(struct store *store, const struct behind_config *config);

void behind_figures(const struct store *store, struct behind_figures *ret);

#endif
