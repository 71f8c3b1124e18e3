/* serve_priv.h - what the files of this folder share. Worker thread only, unless a field says otherwise. */
#ifndef RIPTIDE_SERVE_PRIV_H
#define RIPTIDE_SERVE_PRIV_H

#include <pthread.h>

#include "agent/base/histogram.h"
#include "agent/base/mailbox.h"
#include "agent/cache/inflight.h"
#include "agent/coherence/revalidate.h"
#include "agent/serve/serve.h"
#include "shm/channel.h"
#include "shm/touch.h"

/* ---- entry operations: one key each, whatever asked for it (entry.c, op_*.c) ----------------------------------- */

struct entry_op;
typedef void entry_done_fn(struct entry_op *op);

struct entry_op {
	struct inflight_op inflight; /* first: the table hands it back */
	struct store_request store;
	struct worker *worker;
	struct serve_tenant *tenant;
	struct entry_op *spare; /* in the worker's pool */
	/* input, borrowed until `done` returns */
	const void *key, *metadata, *value;
	size_t key_len, metadata_len, value_len;
	uint64_t ttl_ms;
	uint64_t deadline_ms;
	uint32_t flags; /* RSHM_REQUEST_… */
	entry_done_fn *done;
	void *context;
	/* under way */
	struct envelope_buffer envelope;
	void *payload; /* decompressed */
	uint64_t epoch;
	uint64_t expiry_ms; /* wall clock */
	uint64_t control_b;
	bool entered;
	/* result, lent during `done` */
	int status;
	uint32_t answer_flags;
	uint64_t version;
	uint64_t remaining_ms;
	const void *result_metadata, *result_value;
	size_t result_metadata_len, result_value_len;
};

/* An operation of the tenant, zeroed; NULL without memory. entry_complete() gives it back to the pool. */
struct entry_op *entry_create(struct worker *worker, struct serve_tenant *tenant);

/* Each begins its operation and calls op->done once, now or later; afterwards the operation is gone. */
void entry_get(struct entry_op *op);
void entry_set(struct entry_op *op);
void entry_delete(struct entry_op *op);
void entry_touch(struct entry_op *op);
void entry_exists(struct entry_op *op);

/* For op_*.c: the end of an operation. `share`: other reads of the key may have the same answer. */
void entry_complete(struct entry_op *op, int status, bool share);
/* Takes the operation's turn for its key; `start` runs when it comes, unless the deadline has passed. */
void entry_take_turn(struct entry_op *op, bool is_read, void (*start)(struct inflight_op *op));
bool entry_deadline_passed(const struct entry_op *op);
void entry_submit(struct entry_op *op, enum store_op what, store_done_fn *done);
/* Wall-clock expiry for a ttl as requests carry it. 0 = never. */
uint64_t entry_expiry_ms(const struct entry_op *op, uint64_t ttl_ms);
/* The hot deadline (monotonic) of what expires at `expiry_ms` on the wall clock. */
uint64_t entry_hot_deadline(const struct entry_op *op, uint64_t expiry_ms);
/* The tenant's part of every store name. */
struct store_name entry_store_name(const struct tenant *tenant);
/* The present epoch of the store's source. */
uint64_t entry_epoch(const struct entry_op *op);

/* ---- tenants, clients, slots ------------------------------------------------------------------------------------ */

struct serve_counts {
	uint64_t hits, misses, sets, deletes, requests, errors, hit_bytes, stale, hot_hits, hot_misses;
	uint64_t plain_bytes, stored_bytes;
};

struct serve_tenant {
	const struct tenant *tenant;
	struct hot *hot;
	struct revalidation *revalidation;
	struct rshm_figures *figures; /* in the agent object */
	struct serve_counts counts;
	struct histogram hit_ns;
	uint64_t staging_bytes;
	int64_t deficit;              /* of the round robin, in bytes */
	struct client *clients;       /* a ring; NULL = none */
	uint64_t rate_operations[11]; /* per second, the last one running */
	uint32_t rate_slot;
};

enum slot_phase {
	SLOT_IDLE,
	SLOT_RECEIVING, /* pieces of a body */
	SLOT_EXECUTING,
	SLOT_ANSWERING, /* pieces of an answer */
};

struct batch;

/* The worker's truth about a slot; the shared word is checked against it. */
struct slot {
	struct client *client;
	enum slot_phase phase;
	uint32_t number, generation;
	struct rshm_request request; /* as first submitted */
	struct rshm_request piece;   /* as last submitted: its blocks are where bytes go */
	unsigned char *body;
	uint32_t body_have;
	uint64_t staged;       /* bytes accounted */
	unsigned char *answer; /* what is left to send */
	uint32_t answer_len, answer_sent, answer_kept;
	struct rshm_answer head;
	struct batch *batch;
	uint64_t began_ns;
	uint64_t piece_ms; /* when the last piece came or went */
};

struct client {
	struct worker *worker;
	struct serve_tenant *tenant;
	struct client *next, *prev; /* of the tenant's ring */
	struct rshm_map map;
	struct rshm_channel *channel;
	uv_poll_t bell;
	uv_poll_t death;
	int fd, pidfd;
	uid_t uid;
	uint64_t channel_id;
	uint32_t figures_index;
	struct rshm_figures *figures;
	uint32_t references; /* operations under way, and one for being connected */
	uint32_t handles;    /* open uv handles */
	uint32_t pending;    /* submitted slots not yet taken */
	bool awake, dropped;
	uint64_t staging_bytes;
	uint64_t active_ns; /* last request */
	uint64_t bell_window_ms;
	uint32_t bells;
	struct serve_counts counts;
	struct histogram *hit_ns; /* made with the first sample */
	struct slot slots[RSHM_SLOTS];
	struct rshm_seen seen[RSHM_SHARDS];
	uint64_t drained_ms;
};

/* A pooled request body that is not in use. */
struct spare_body {
	struct spare_body *next;
};

struct worker {
	/* set once */
	const struct serve_environment *env;
	uint32_t index;
	pthread_t thread;
	uv_loop_t loop;
	struct store *store;
	struct serve_tenant *tenants;
	size_t tenant_count;
	struct inflight *inflight;
	/* loop */
	struct mailbox mailbox;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_idle_t idle;
	uv_timer_t timer;
	uv_timer_t drain_timer;
	struct entry_op *spare_ops;
	struct spare_body *spare_bodies;
	uint32_t awake_count, client_count, next_tenant;
	uint64_t staging_bytes, drained_ms;
	bool stopping, keep, closing;
	uint64_t drain_until_ms;
	size_t tenants_open, revalidations_open, tenant_figures_first;
	uint32_t figures_tick;
	struct worker_report totals;
	/* start-up hand-shake and snapshot */
	pthread_mutex_t lock;
	pthread_cond_t ready;
	int start_status; /* 1 = not yet */
	char start_error[256];
	const struct serve_adoption *adoptions;
	size_t adoption_count;
	struct worker_report snapshot;
};

/* client.c */
int client_connect(struct worker *worker, const struct worker_client *from);
void client_drop(struct client *client, const char *why);
void client_wake(struct client *client);
void client_ref(struct client *client);
void client_unref(struct client *client);

/* request.c: takes what is submitted, within the limits of a turn. Returns bytes of cost. */
uint32_t request_serve(struct client *client, uint32_t requests, uint32_t bytes);
/* Answers a slot and frees what it held. Metadata and value are copied at once. */
void request_answer(struct slot *slot, const struct rshm_answer *head, const void *metadata, size_t metadata_len,
		    const void *value, size_t value_len);
void request_fail(struct slot *slot, int status);
/* Staging memory of a slot, bounded per worker and tenant; NULL beyond. */
void *staging_take(struct slot *slot, size_t bytes);
void slot_clear(struct slot *slot);

/* op_batch.c, op_about.c */
void batch_execute(struct slot *slot);
void batch_destroy(struct batch **batch);
void about_execute(struct slot *slot);

/* figures.c */
void figures_drain_client(struct client *client);
void figures_drain_tenant(void *tenant);
void figures_publish(struct worker *worker);

#endif
