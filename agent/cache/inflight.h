/*
 * inflight.h - one record per key in flight: operations on a key run one after the other.
 *
 * Reads that find their key busy wait and then share the answer of the read before them (one load per missing key on the
 * host, however many ask); writes keep their order, so that what is published last is what the store holds. One table
 * per worker; all functions on its thread.
 */
#ifndef RIPTIDE_CACHE_INFLIGHT_H
#define RIPTIDE_CACHE_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct inflight;
struct inflight_key;

/* To be embedded in an operation. */
struct inflight_op {
	/* the caller's, before inflight_enter() */
	const void *tenant; /* identity only */
	const void *key;    /* borrowed until inflight_leave() */
	size_t key_len;
	bool is_read;
	void (*start)(struct inflight_op *op); /* the key is yours; leave when done */
	/* A read before this one ended: take its answer (`first` is still whole). Only called for reads. */
	void (*share)(struct inflight_op *op, struct inflight_op *first);
	/* the table's */
	struct inflight_op *next;
	struct inflight_key *record;
};

/* At most `limit` operations at a time. NULL without memory. */
struct inflight *inflight_create(uint32_t limit);
/* Nothing may be in flight. */
void inflight_destroy(struct inflight **table);

/* Starts the operation at once if its key is free, else when its turn comes. RSHM_E_AGAIN: the table is full. */
int inflight_enter(struct inflight *table, struct inflight_op *op);

/*
 * Ends an operation. `share_result`: it was a read whose answer is good for others: the reads waiting directly behind it
 * get it now. Then the next one in line starts, possibly before this returns.
 */
void inflight_leave(struct inflight *table, struct inflight_op *op, bool share_result);

/*
 * Somebody else has changed the key: the operation whose turn it is must not publish what it brings, nor share it. Those that
 * wait begin later, and are not concerned.
 */
void inflight_mark(struct inflight *table, const void *tenant, const void *key, size_t key_len);
/* The same for all keys of all tenants. */
void inflight_mark_all(struct inflight *table);
/*
 * The store had this version of the key (0: nothing), expiring then (wall clock; 0: never), after a change that may have been
 * the operation's own: it must not publish another one, nor one that lives longer.
 */
void inflight_note_version(struct inflight *table, const void *tenant, const void *key, size_t key_len,
			   uint64_t version, uint64_t expiry_ms);

/* Whether the operation, whose turn it is, may publish this version with this expiry (wall clock; 0: never). */
bool inflight_may_publish(const struct inflight *table, const struct inflight_op *op, uint64_t version,
			  uint64_t expiry_ms);

uint32_t inflight_count(const struct inflight *table);

#endif
