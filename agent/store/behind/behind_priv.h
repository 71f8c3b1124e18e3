/*
 * behind_priv.h - what the files of this folder share.
 *
 *	behind.c   life: create, the timer, close
 *	request.c  who is answered from here, who passes, who waits, and for what
 *	flush.c    accepted records on their way to the inner store
 *	replay.c   journals of before the start
 *	table.c    entries by name
 */
#ifndef BEHIND_PRIV_H
#define BEHIND_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "agent/base/assert.h"
#include "agent/store/behind/behind.h"
#include "agent/store/behind/format.h"
#include "agent/store/behind/journal.h"
#include "agent/store/envelope.h"
#include "agent/store/request_list.h"
#include "agent/store/store.h"

#define BEHIND_MAGIC 0x42454849u
#define BEHIND_DEPTH_MAX 4u /* reads answered on top of each other */

/* What a request waits for; its `state`. */
enum behind_wait {
	BEHIND_WAIT_ANSWER, /* for the next turn, to be answered with its `status` */
	BEHIND_WAIT_READ,   /* for the next turn, to be read */
	BEHIND_WAIT_PASS,   /* for the next turn, to go to the inner store */
	BEHIND_WAIT_ENTRY,  /* for what happens to its key before */
	BEHIND_WAIT_MARKS,  /* for the disk, to go through; `slot` is its entry */
	BEHIND_WAIT_ACK,    /* for the disk, to be acknowledged */
	BEHIND_WAIT_FLUSH,  /* for a barrier */
};

/*
 * A key that has an accepted record, or a write on its way through. The order of what happens to it:
 * `flying`, then `record`, then `waiters`, of which one at a time is `through`.
 */
struct behind_entry {
	/* table.c */
	struct behind_entry *chain;
	uint64_t hash;
	/* flush.c */
	struct behind_entry *prev, *next;
	bool queued, urgent;
	struct behind_record *flying; /* being written to the inner store */
	struct behind_record *record; /* newer than that; lives in the queue unless something is flying */
	/* request.c */
	struct behind_entry *blocked_prev, *blocked_next; /* those with waiters */
	struct request_list waiters;
	struct store_request *through;
	store_done_fn *through_done;
	void *through_context;
	/* replay.c */
	bool settled;
	uint64_t settled_version;
	uint32_t settled_writer;
	size_t source; /* index of the old file that `record` is from */

	struct behind_store *store;
	struct store_name name; /* lent from below */
	char tenant[65];
	unsigned char key[];
};

struct behind_table {
	struct behind_entry **buckets;
	size_t bucket_count, count; /* a power of two */
	uint64_t seed;
};

/* A write to the inner store. */
struct behind_flight {
	struct store_request request;
	struct behind_store *store;
	struct behind_entry *entry;       /* NULL: free */
	struct envelope_buffer tombstone; /* made for an expired record */
	struct behind_flight *next;
};

/* FLUSH, and the first page of LIST. */
struct behind_barrier {
	struct behind_barrier *next;
	struct store_request *request;
	uint64_t order; /* records accepted up to here */
	uint64_t left;  /* so many of them are not stored */
};

enum behind_phase {
	BEHIND_OPEN,
	BEHIND_FLUSHING, /* store_close() was called */
	BEHIND_SYNCING,  /* flushed, or not in time */
	BEHIND_ENDING,   /* the inner store closes, then the handles */
};

struct behind_store {
	struct store base;
	uint32_t magic;
	/* set once */
	uv_loop_t *loop;
	struct store *inner;
	struct store_watcher watcher; /* of the caller; zeroed: none */
	struct behind_config config;  /* live options change; `folder` is not kept */
	/* modules */
	struct journal journal;
	struct behind_table table;
	/* flush.c */
	struct behind_flight *flights, *free_flights;
	uint32_t flying;
	struct behind_entry *queue_first, *queue_last;
	uint64_t queued_records, queued_bytes, depth_records, depth_bytes;
	uint64_t order;         /* of the newest record */
	uint64_t flush_through; /* what is older is to be flushed now */
	uint64_t paused_until_ms;
	uint32_t failures; /* in a row */
	uint64_t random;
	bool pumping;
	struct behind_barrier *barriers;
	/* request.c */
	struct behind_entry *blocked;
	struct request_list deferred;                /* to be answered in the next turn */
	struct request_list sync_next, sync_covered; /* for a round of syncing: the next one, the one under way */
	uint64_t earliest_deadline_ms;
	uint64_t synced_ms; /* when the last round began */
	uint32_t depth;     /* of reads */
	/* behind.c */
	uv_timer_t timer;
	uv_idle_t idle;
	uv_prepare_t prepare;
	uint32_t handles;
	enum behind_phase phase;
	uint64_t close_by_ms;
	void (*closed)(void *context);
	void *closed_context;
	struct behind_figures counts;
	uint64_t pending, completed, failed;
};

/* ---- table.c ---- */

/* False without memory. */
bool behind_table_init(struct behind_table *table);
/* Frees entries and their records, which must have no requests any more. */
void behind_table_fini(struct behind_table *table);
struct behind_entry *behind_table_find(const struct behind_table *table, const struct store_name *name);
/* A new entry of that name, which has none. NULL without memory. */
struct behind_entry *behind_table_insert(struct behind_table *table, const struct store_name *name);
void behind_table_remove(struct behind_table *table, struct behind_entry *entry);
/* All entries: the first one after `entry`, NULL = from the start. Order means nothing; do not change the table meanwhile. */
struct behind_entry *behind_table_next(const struct behind_table *table, const struct behind_entry *entry);

/* ---- flush.c ---- */

/* False without memory. */
bool behind_flush_init(struct behind_store *store);
void behind_flush_fini(struct behind_store *store);
/* The record stands in the journal; it becomes the newest of its key. Takes the caller's reference. */
void behind_flush_accept(struct behind_store *store, struct behind_entry *entry, struct behind_record *record);
/* The same for what replay has taken over; nothing is started. */
void behind_flush_enqueue(struct behind_store *store, struct behind_entry *entry, struct behind_record *record);
/* Somebody waits for this key. */
void behind_flush_hurry(struct behind_store *store, struct behind_entry *entry);
/* Begins what is due: by count, bytes, age, or `all`. */
void behind_flush_trigger(struct behind_store *store, uint64_t now_ms, bool all);
void behind_flush_pump(struct behind_store *store);
/* Age of the oldest record in ms. */
uint64_t behind_flush_age(const struct behind_store *store, uint64_t now_ms);

/* ---- request.c ---- */

void behind_submit(struct store *base, struct store_request *request);
/* An entry has lost its last record. It may be gone afterwards. */
void behind_entry_clean(struct behind_store *store, struct behind_entry *entry);
/* A record of this name that was accepted at `order` is stored, or need not be. */
void behind_barriers_step(struct behind_store *store, const struct store_name *name, uint64_t order);
/* Begins a round of syncing for all who wait for one, unless one is under way: then they wait for the next. */
void behind_sync_begin(struct behind_store *store);
/* A journal_synced_fn. */
void behind_on_synced(void *context, bool ok);
/* Answers who has waited too long, or `all`; finds the next deadline. */
void behind_expire(struct behind_store *store, uint64_t now_ms, bool all);
/* The answers of this turn of the loop. */
void behind_run_deferred(struct behind_store *store);

/* ---- behind.c ---- */

static inline struct behind_store *behind_store_of(struct store *base)
{
	struct behind_store *store = (struct behind_store *)(void *)base;

	must(store->magic == BEHIND_MAGIC);
	return store;
}

/* Something waits for a time. */
void behind_wake(struct behind_store *store);
/* Something waits for the next turn of the loop. */
void behind_turn(struct behind_store *store);
/* Marks have come up that are to be written in this turn of the loop. */
void behind_marks_pending(struct behind_store *store);
/* Goes on with closing, if it can. */
void behind_close_step(struct behind_store *store);

/* ---- replay.c ---- */

int behind_replay(struct behind_store *store, char *error, size_t error_len);

#endif
