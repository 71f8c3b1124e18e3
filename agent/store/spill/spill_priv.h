/*
 * spill_priv.h - what passes between the loop and the thread of a tier, and the tier itself.
 */
#ifndef RIPTIDE_STORE_SPILL_PRIV_H
#define RIPTIDE_STORE_SPILL_PRIV_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/base/mailbox.h"
#include "agent/store/keys.h"
#include "agent/store/spill/disk.h"
#include "agent/store/spill/spill.h"

#define SPILL_MAGIC 0x5350494cu
#define SPILL_BUCKETS 8192u
#define SPILL_RANGES_MAX 64u
#define SPILL_ENVELOPE_MAX (72u << 20) /* bytes; above any envelope there is */
#define SPILL_RETRY_MS 5000u           /* puts pause after the disk failed */

/* ---- what passes between loop and thread -------------------------------------------------------------------- */

/* A whole key and its envelope. Loop only: `refs`; the bytes do not change. */
struct spill_blob {
	uint32_t refs;
	uint32_t key_len, length;
	unsigned char bytes[]; /* key, envelope */
};

enum spill_kind {
	SPILL_PUT,
	SPILL_REMOVE,
	SPILL_RANGE,
};

/* A change on its way to the disk. Fields of the first group: under lock until `taken`, then the thread's until finished. */
struct spill_op {
	struct spill_op *next;
	enum spill_kind kind;
	bool taken;
	bool again;              /* RANGE, under lock: once more when it is done */
	bool counted;            /* REMOVE: the loop has counted it among the removed */
	bool stored;             /* PUT: it is on the disk, if the transaction is */
	struct spill_blob *blob; /* PUT; the loop drops it */
	uint64_t version, expiry_ms, epoch, submitted_ns;
	uint32_t source;
	/* set once; RANGE: tenant 0 = all, generation = the last one it reaches */
	uint32_t tenant;
	uint64_t generation;
	char space;
	/* loop only */
	struct spill_op *chain; /* in its bucket, newest first, or in the list of ranges */
	uint64_t order, hash;
	/* set once */
	size_t key_len;
	unsigned char key[]; /* as in the index */
};

struct spill_op_list {
	struct spill_op *first, *last;
};

/* A get on its way. */
struct spill_get_op {
	struct spill_get_op *next; /* under lock */
	/* loop only; `request` is NULL once it was answered otherwise */
	struct spill_request *request;
	struct spill_get_op *later, *earlier;
	uint64_t hash, deadline_ms, submitted_ns;
	uint32_t tenant;
	uint64_t generation;
	char space;
	/* the thread's between taken and finished */
	int status;
	unsigned char *buffer; /* the record; the loop frees it */
	const void *envelope;  /* in it */
	size_t envelope_len;
	struct spill_entry entry;
	bool kept;
	/* set once */
	size_t name_len; /* of the whole key */
	struct keys_embedded key;
	unsigned char name[];
};

/* ---- the tier ----------------------------------------------------------------------------------------------- */

struct spill {
	uint32_t magic;
	/* set once */
	pthread_t thread;
	struct mailbox mailbox;
	uv_timer_t timer; /* runs until the earliest deadline of a get */
	struct spill_disk disk;
	/* loop only */
	struct spill_op *buckets[SPILL_BUCKETS];
	struct spill_op *ranges; /* pending ones */
	uint32_t range_count;
	uint64_t order, range_order; /* of the newest op, and of the newest range */
	uint64_t ops, op_bytes;      /* pending, and bytes of their blobs */
	struct spill_get_op *gets_first, *gets_last;
	uint32_t gets;
	uint64_t timer_due_ms;
	struct spill_op *discard; /* made at open, so that it never lacks */
	bool discard_pending;
	uint64_t puts, get_calls, restored, restore_ns, refused, removed, late, discards;
	uint32_t handles;
	bool closing;
	void (*closed)(void *context);
	void *closed_context;
	struct mailbox_message ended;
	/* under lock */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct spill_limits limits;
	struct spill_op_list queue, finished;
	struct spill_get_op *get_first, *get_last, *got_first, *got_last;
	uint64_t got_bytes; /* read and not yet lent */
	bool stopping, posted;
	struct mailbox_message message;
};

/* thread.c */
void *spill_thread_run(void *spill);
void spill_op_append(struct spill_op_list *list, struct spill_op *op);

/* pending.c */
enum spill_view {
	SPILL_VIEW_DISK,   /* nothing is pending: the disk knows */
	SPILL_VIEW_GONE,   /* removed, whatever the disk has */
	SPILL_VIEW_MEMORY, /* a newer put is on its way */
};
enum spill_view spill_pending_view(const struct spill *spill, const struct keys_embedded *key, uint64_t hash,
				   uint32_t tenant, uint64_t generation, struct spill_op **ret_put);
/* The thread is done with it. */
void spill_pending_finish(struct spill *spill, struct spill_op *op);
/* Nothing is in the tier, nor on its way to it. */
bool spill_is_empty(const struct spill *spill);
void spill_blob_unref(struct spill_blob *blob);

/* get.c */
void spill_get_finish(struct spill *spill, struct spill_get_op *get);
/* Answers all that wait with a miss. */
void spill_get_answer_all(struct spill *spill);
void spill_get_on_timer(uv_timer_t *timer);

#endif
