/* serve_priv.h - what the files of this folder share. Worker thread only, unless a field says otherwise. */
#ifndef RIPTIDE_SERVE_PRIV_H
#define RIPTIDE_SERVE_PRIV_H

#include <pthread.h>

#include "agent/base/histogram.h"
#include "agent/base/mailbox.h"
#include "agent/cache/accesses.h"
#include "agent/cache/inflight.h"
#include "agent/cache/loading.h"
#include "agent/coherence/lease.h"
#include "agent/coherence/revalidate.h"
#include "agent/serve/pace.h"
#include "agent/serve/serve.h"
#include "agent/tenant/account.h"
#include "shm/channel.h"
#include "shm/touch.h"

/* ---- entry operations: one key each, whatever asked for it (entry.c, op_*.c) ----------------------------------- */

struct entry_op;
typedef void entry_done_fn(struct entry_op *op);

/* What the tags of an entry are now (tagging.c). */
struct entry_tags;

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
	uint32_t flags;  /* RSHM_REQUEST_… */
	uint32_t change; /* rshm_change() */
	uint64_t expected_version, operand;
	uint64_t ticket; /* of a loader; 0 = none */
	entry_done_fn *done;
	void *context;
	/* under way */
	struct envelope_buffer envelope;
	void *payload; /* decompressed */
	struct entry_tags *tags;
	struct dictionary *dictionary; /* that the entry found names; referenced */
	struct entry_op *fetch_next;   /* of those that wait for it */
	void (*fetched)(struct entry_op *op, int status);
	void *held; /* a copy of what the store lent */
	size_t held_len;
	bool held_is_of_before; /* spilled by an earlier run: its removal may have been lost with it */
	void (*loaded)(struct entry_op *op, int status);
	void (*written)(struct entry_op *op, int status);
	void (*probed)(struct entry_op *op, int status);
	enum store_condition condition;
	bool behind;
	bool sees_tags;         /* a condition is to be judged by what readers see: not what a tag took */
	bool quiet;             /* neither hit nor miss: nobody asked for it yet */
	uint64_t found_version; /* of what the store has; 0 = nothing that lives */
	int load_status;
	/* incr */
	uint32_t attempts;
	int64_t number;
	char digits[24];
	const void *request_metadata;
	size_t request_metadata_len;
	void *kept_metadata;
	uint64_t epoch;
	uint64_t expiry_ms; /* wall clock */
	uint64_t control_b;
	bool entered;
	uint64_t asked_ms; /* when the store was asked last */
	/* result, lent during `done` */
	int status;
	uint32_t answer_flags;
	uint64_t version;
	uint64_t remaining_ms;
	uint64_t access_count, accessed_ms_ago; /* exists; RSHM_NEVER: no access is known */
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
void entry_incr(struct entry_op *op);
void entry_invalidate_tag(struct entry_op *op);
void entry_flush(struct entry_op *op);
/* Jobs that walk (op_many.c); they take no turn. */
void entry_invalidate_prefix(struct entry_op *op);
void entry_clear(struct entry_op *op);
void entry_warm_prefix(
	struct entry_op *op); /* warming.c; value in: a cursor, out: loaded, absent, failed u64, a cursor */

/*
 * What the store has of the key, checked and decoded into op->result_*, op->version, op->expiry_ms: RSHM_OK, RSHM_MISS, or an
 * error. op->found_version is good for a condition either way. The key's turn is held.
 */
void entry_load(struct entry_op *op, void (*then)(struct entry_op *op, int status));
/*
 * Whether the store has the key, its tags being looked at, too: RSHM_OK, RSHM_MISS, or an error; op->version, op->remaining_ms.
 * op->found_version is not 0 with RSHM_MISS if there is an entry whose tag was invalidated. Costs a head, with tags a value.
 */
void entry_probe(struct entry_op *op, void (*then)(struct entry_op *op, int status));
/* Writes op->value and op->metadata with op->condition, expiring at op->expiry_ms, and publishes. The key's turn is held. */
void entry_write(struct entry_op *op, void (*then)(struct entry_op *op, int status));
/* Puts a copy into the hot tier, if what it was made from still holds; else removes the older one. */
void entry_publish(struct entry_op *op, const void *metadata, size_t metadata_len, const void *value,
		   size_t value_len);
/* For op_*.c: the end of an operation. `share`: other reads of the key may have the same answer. */
void entry_complete(struct entry_op *op, int status, bool share);
/* The end of a read that found a value: a hit, or a miss to a caller who does not take one so old. */
void entry_answer(struct entry_op *op, bool share);
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

/* ---- tags (tagging.c) -------------------------------------------------------------------------------------------- */

/* Takes the tags of encoded metadata, with the hot tier's words as they are now; op->tags stays NULL if there are none. */
int tagging_begin(struct entry_op *op, const void *metadata, size_t metadata_len);
/* Finds their present epochs; `create`: a tag that is new gets one. */
void tagging_resolve(struct entry_op *op, bool create, void (*then)(struct entry_op *op, int status));
/* Was the envelope written under the tags' present epochs? */
bool tagging_matches(const struct entry_tags *tags, const struct envelope_view *view);
/*
 * The same in two steps for an entry of which the backend has told the head alone, TAGGING_HEAD_BYTES of it: what it says is noted
 * before the present epochs are asked for. RSHM_E_CORRUPT: the head has other tags.
 */
#define TAGGING_HEAD_BYTES (ENVELOPE_HEAD_BYTES + ENVELOPE_TAGS_MAX * sizeof(uint64_t))
int tagging_expect(struct entry_tags *tags, const void *head, size_t head_len);
bool tagging_matches_expected(const struct entry_tags *tags);
/*
 * What a copy that holds now, and goes to disk, takes along instead of epochs: the words of its tags' slots, as its hot form had
 * them. Returns how many; RSHM_E_INVALID. And whether none of them was bumped since: then no tag of it was invalidated here.
 */
int tagging_words(const struct serve_tenant *tenant, const void *metadata, size_t metadata_len,
		  uint64_t ret[ENVELOPE_TAGS_MAX]);
bool tagging_words_hold(const struct serve_tenant *tenant, const struct envelope_view *view);
/* Puts the epochs into the envelope to be; NULL: none. */
void tagging_fill(const struct entry_tags *tags, struct envelope_input *input);
/* Metadata of a hot entry, tags first; in memory of `tags`. RSHM_E_TOOBIG: such an entry cannot be hot. */
int tagging_hot_metadata(struct entry_tags *tags, const void *metadata, size_t metadata_len, const void **ret,
			 size_t *ret_len);
/* Are a hot entry's tags untouched since it was published? */
bool tagging_holds(const struct serve_tenant *tenant, const struct rshm_item *item);
/* Bytes of tags before the metadata proper of a hot entry. */
uint32_t tagging_prefix(const struct rshm_item *item);
void tagging_destroy(struct entry_tags **tags);

/* ---- dictionaries (dictionaries.c, training.c) -------------------------------------------------------------------- */

int dictionaries_create(struct serve_tenant *tenant);
/* No request and no training is under way. */
bool dictionaries_are_quiet(const struct serve_tenant *tenant);
/* Nothing is under way. */
void dictionaries_destroy(struct serve_tenant *tenant);
void dictionaries_tick(struct serve_tenant *tenant, uint64_t now_ms);
/* For the value of a write: the dictionary to compress it with, referenced, or NULL. Offers the value as a sample. */
struct dictionary *dictionaries_for_write(struct entry_op *op, enum envelope_choice choice);
/* The one with this id, if it is here: referenced, or NULL. */
struct dictionary *dictionaries_find(struct serve_tenant *tenant, uint32_t id);
/* Fetches it from the backend, into op->dictionary; `then` is called once, now or later. RSHM_E_NODICT: it has none. */
void dictionaries_fetch(struct entry_op *op, uint32_t id, void (*then)(struct entry_op *op, int status));
/* training.c. Answers through order->done, now or later. */
void training_order(struct serve_tenant *tenant, const struct worker_dictionary_order *order);

/* ---- the disk tier (spilling.c); all do nothing where there is none ---------------------------------------------- */

int spilling_create(struct serve_tenant *tenant, struct spill *tier);
void spilling_destroy(struct serve_tenant *tenant);
/* Keeps what leaves the ring alive. */
void spilling_keep(struct serve_tenant *tenant, const struct rshm_item *item);
/* Nothing older than what follows may come back. */
void spilling_remove(struct serve_tenant *tenant, const void *key, size_t key_len);
void spilling_remove_generations(struct serve_tenant *tenant, uint64_t generation_max);
/* A prefix was invalidated: of what the backend did not list, because it had lost it, nothing older is served any more. */
void spilling_invalidate_prefix(struct serve_tenant *tenant, const void *prefix, size_t prefix_len);
/* May a copy of this version be served while nobody can be asked? */
bool spilling_may_serve(const struct serve_tenant *tenant, const void *key, size_t key_len, uint64_t version);
/* Is it worth a look at the disk before the backend? */
bool spilling_may_have(struct serve_tenant *tenant, const void *key, size_t key_len);
/* found: op->held is the envelope. */
void spilling_read(struct entry_op *op, void (*then)(struct entry_op *op, bool found));

/* ---- tenants, clients, slots ------------------------------------------------------------------------------------ */

struct serve_counts {
	uint64_t hits, misses, sets, deletes, requests, errors, hit_bytes, stale, hot_hits, hot_misses;
	uint64_t denied; /* by the tenant's policy */
	uint64_t dictionary_sets;
	uint64_t plain_bytes, stored_bytes;
	uint64_t spilled, restored;
};

/* A tenant's view of the store (space.c). */
struct space {
	struct store base;
	struct serve_tenant *tenant;
	struct store *backend;
	uint64_t generation, swept; /* 0 = not known yet */
	uint64_t known_at_ms, retry_at_ms;
	uint64_t doubts, asked_doubts; /* changes told; of these, before the last question */
	uint32_t held;                 /* of the lease, while doubted */
	struct store_request *waiting;
	uint32_t waiting_count, waiting_max;
	uint64_t pending; /* requests at the backend */
	bool asking, closing, doubted;
	struct store_request question;
};

/* Of a tenant that is being closed (tenants.c). */
struct tenant_end {
	void (*done)(void *context); /* NULL: it is not */
	void *context;
	bool deleted; /* what it stored late goes, too */
};

struct serve_tenant {
	const struct tenant *tenant;
	struct worker *worker;
	struct tenant_end end;
	uint64_t operations; /* entry_create()d and not ended */
	uint32_t awake_clients;
	bool listed_awake;       /* in worker->awake */
	uint32_t client_objects; /* the dropped ones included, as long as they have memory */
	struct hot *hot;
	struct space space;
	struct sweep *sweep; /* under way, or NULL */
	struct spilling *spilling;
	struct sealing *sealing; /* NULL: it does not encrypt */
	struct dictionaries *dictionaries;
	uint64_t away_since_ms;  /* the backend; 0 = it answers */
	struct pace pace;        /* of all that warms */
	struct warming *warming; /* the hot set, under way, or NULL */
	struct noting *noting;   /* the same */
	uint64_t noted_ms;
	struct warm_counts warmed;
	struct tag_epochs *tag_epochs;
	struct revalidation *revalidation;
	bool verify_due;              /* a revalidation begins when the generation is known */
	struct rshm_figures *figures; /* in the agent object */
	struct serve_counts counts;
	struct histogram hit_ns;
	uint64_t staging_bytes;
	int64_t deficit;              /* of the round robin, in bytes */
	struct client *clients;       /* a ring; NULL = none */
	uint64_t rate_operations[11]; /* per second, the last one running */
	uint32_t rate_slot;
	struct evictions *evictions;
	uint64_t puts_undrained;
	struct accesses *accesses;
	struct budget *budget;         /* NULL: nothing is limited */
	struct tenant_report snapshot; /* under worker->lock */
};

enum slot_phase {
	SLOT_IDLE,
	SLOT_RECEIVING, /* pieces of a body */
	SLOT_EXECUTING,
	SLOT_ANSWERING, /* pieces of an answer */
};

struct batch;

#define SLOT_OF_LOADING(op) ((struct slot *)((char *)(op)-offsetof(struct slot, loading)))

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
	struct loading_op loading; /* a fetch that waits for its turn to load */
	uint64_t began_ns;
	uint64_t piece_ms;        /* when the last piece came or went */
	struct slot *parked_next; /* waits for quotas */
	struct rshm_quota quota;  /* what came of a question for one */
};

/* How far a shard's reader may go; the same stands in the shard, where the reader can write. */
struct credit {
	uint64_t stop_hits, stop_bytes;
	uint64_t active_ms; /* when it was last seen to read */
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
	gid_t gid;
	pid_t pid;
	uint64_t channel_id;
	uint32_t figures_index;
	struct rshm_figures *figures;
	uint32_t references; /* operations under way, and one for being connected */
	uint32_t handles;    /* open uv handles */
	uint32_t pending;    /* submitted slots not yet taken */
	bool awake, dropped, read_only;
	uint64_t until_ms; /* wall clock; 0: it may stay */
	uint64_t staging_bytes;
	uint64_t active_ns; /* last request */
	uint64_t bell_window_ms;
	uint32_t bells;
	struct serve_counts counts;
	struct histogram *hit_ns; /* made with the first sample */
	struct loading_owner loading;
	struct slot slots[RSHM_SLOTS];
	struct rshm_seen seen[RSHM_SHARDS];
	struct credit credits[RSHM_SHARDS]; /* of a tenant with limits */
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
	struct serve_tenant **tenants; /* room for all places; changed under `lock` */
	size_t tenant_count;
	size_t tenants_ending;         /* have left the list, and still have parts */
	struct serve_tenant **by_name; /* the same by id */
	struct inflight *inflight;
	struct loading *loading;
	struct spill *spill; /* NULL = off */
	/* what others change (watching.c) */
	struct lease lease;
	enum store_coherence coherence;
	bool coherence_known;
	bool clean; /* no entry of an older epoch is left */
	bool warming_begun;
	uint64_t max_age_ms; /* of hot copies; 0 = no cap */
	uint64_t changes, checks, fences;
	/* loop */
	struct mailbox mailbox;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_idle_t idle;
	uv_timer_t timer;
	uv_timer_t tick;
	uv_timer_t drain_timer;
	struct entry_op *spare_ops;
	uint64_t operations; /* entry_create()d and not ended */
	struct spare_body *spare_bodies;
	uint32_t awake_count, client_count, next_tenant;
	/* Tenants with awake clients, and some that had: turns need not look at all that are open. */
	struct serve_tenant **awake;
	size_t awake_tenants;
	uint64_t staging_bytes, drained_ms;
	bool stopping, keep, closing;
	uint64_t drain_until_ms;
	size_t tenants_open, revalidations_open;
	uint32_t figures_tick;
	uint64_t refusals_since_ms; /* told to the audit log in this second */
	uint32_t refusals;
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

/* tenants.c */
/* Opens one of this worker's; blocks for the allocation of its first ring. `adopt_name` may be NULL. RSHM_E_NOMEM. */
int tenants_open(struct worker *worker, const struct tenant *tenant, const char *adopt_name);
struct serve_tenant *tenants_find(struct worker *worker, const struct tenant *tenant);
/*
 * Drops its clients, takes no new work, and retires its segment; `done` is called on the worker's thread when nothing of it
 * is left here, at the latest when the worker ends.
 */
void tenants_close(struct serve_tenant *tenant, bool deleted, void (*done)(void *context), void *context);
void tenants_tick(struct worker *worker);
/* Is one in its last steps, which wait for nobody? */
bool tenants_are_ending(const struct worker *worker);
void tenants_free(struct worker *worker);

/* erasing.c */
void erasing_begin(struct worker *worker, const struct tenant *tenant, tenant_erased_fn *done, void *context);
/* Removes what this host stored too late for the sweep of another. `generation`: that was in force here; 0: none. */
void erasing_rest_begin(struct worker *worker, const struct tenant *tenant, uint64_t generation,
			void (*done)(void *context), void *context);

/* watching.c */
/* Begins to hear of foreign changes; the tenants are open. RSHM_E_NOMEM. */
int watching_begin(struct worker *worker);
void watching_tick(struct worker *worker, uint64_t now_ms);
/* A tenant came after the last fence, with copies of before it: they are compared with the store. */
void watching_verify(struct serve_tenant *tenant);
/* The machine slept: nothing is known of what happened meanwhile. */
void watching_slept(struct worker *worker);
/* The store is closed. */
void watching_end(struct worker *worker);
struct coherence_report watching_report(const struct worker *worker);
/* The source of all that this worker publishes. */
struct rshm_source *watching_source(const struct worker *worker);

/* space.c */
void space_init(struct space *space, struct serve_tenant *tenant, struct store *backend, uint32_t waiting_max);
/* Takes up what the backend says; another generation than before empties the hot tier. */
void space_set_generation(struct space *space, uint64_t generation, uint64_t swept);
void space_tick(struct space *space, uint64_t now_ms);
/* Another agent may have made a generation: asks for it. Readers' trust is not extended until the answer is there. */
void space_doubt(struct space *space);
/* The tenant's keys are known, or could not be had. */
void space_keys_told(struct space *space, int status);
/* Answers what waits with RSHM_E_CLOSED. */
void space_stop(struct space *space);

/* warming.c */
void warming_create(struct serve_tenant *tenant);
void warming_begin(struct serve_tenant *tenant);
void warming_tick(struct serve_tenant *tenant, uint64_t now_ms);
/* One more key was warmed, by whatever source. */
void warming_count(struct serve_tenant *tenant, int status);
/* Starts no further key. */
void warming_stop(struct serve_tenant *tenant);
/* No key and no file is under way. */
bool warming_is_quiet(const struct serve_tenant *tenant);
void warming_destroy(struct serve_tenant *tenant);
/* Notes the hot set for the next run. Blocks on the disk. */
void warming_save(struct serve_tenant *tenant);

/* op_many.c: removes what generations before the present one still hold. */
void sweep_start(struct serve_tenant *tenant);

/* client.c */
int client_connect(struct worker *worker, const struct worker_client *from);
void client_drop(struct client *client, const char *why);
void client_wake(struct client *client);
void client_ref(struct client *client);
void client_unref(struct client *client);

/* request.c: takes what is submitted, within the limits of a turn. Returns bytes of cost. */
uint32_t request_serve(struct client *client, uint32_t requests, uint32_t bytes);
/* Answers a slot and frees what it held. Metadata and value are copied at once. False: the client will not have it. */
bool request_answer(struct slot *slot, const struct rshm_answer *head, const void *metadata, size_t metadata_len,
		    const void *value, size_t value_len);
void request_fail(struct slot *slot, int status);
/* Does what the request wants; it may. */
void request_dispatch(struct slot *slot);
/* The same with a text for people, of which the caller's library takes what fits one piece. `text` may be NULL. */
void request_refuse(struct slot *slot, int status, const char *text);
/* Staging memory of a slot, bounded per worker and tenant; NULL beyond. */
void *staging_take(struct slot *slot, size_t bytes);
bool staging_has_room(const struct slot *slot, size_t bytes);
/* Gives so many bytes back before the slot is cleared, which gives back the rest. `memory` is theirs. */
void staging_give(struct slot *slot, void *memory, size_t bytes);
void slot_clear(struct slot *slot);

/* access.c: asks the tenant's policy. False: the request is refused, or the item is, and counted. */
bool access_permits(struct slot *slot);
bool access_permits_item(struct slot *slot, const void *key, size_t key_len);
/* RSHM_OP_CHECK_ACCESS */
void access_execute(struct slot *slot);

/* budget.c: rates and quotas. All do nothing where nothing is limited. */
int budget_create(struct serve_tenant *tenant);
/* It is quiet, or the store is closed. */
void budget_destroy(struct serve_tenant *tenant);
/* Takes what the request costs. False: it was refused, or waits and goes on later through request_dispatch(). */
bool budget_admit(struct slot *slot);
/* The request waits for a round of the shared account; then quota_answer(). The tenant has limits. */
void budget_wait(struct slot *slot);
void budget_charge_answer(struct serve_tenant *tenant, uint64_t bytes);
/* Before the client has its channel. */
void budget_begin_client(struct client *client);
/* A shard was drained, or is idle: moves where its reader has to stop. */
void budget_credit(struct client *client, unsigned int shard, bool idle);
void budget_tick(struct serve_tenant *tenant, uint64_t now_ms);
/* Answers who waits, lets nobody in any more, and gives back what is left. */
void budget_stop(struct serve_tenant *tenant, bool give_back);
bool budget_is_quiet(const struct serve_tenant *tenant);
struct budget_figures {
	uint64_t limited, shadowed, alerts;
};
/* So much of a quota is used that the operator is told, and telling him. */
uint64_t budget_alert_level(uint64_t limit);
void budget_alert(struct serve_tenant *tenant, const char *name, uint64_t use, uint64_t limit);
struct budget_figures budget_figures(const struct serve_tenant *tenant);
struct budget_state {
	uint64_t limit, use; /* use: of all hosts, with what they have drawn, when this one last drew */
	uint64_t have;       /* drawn by this host and not used */
	uint64_t retry_ms;
	struct rate_answer rate; /* of a rate */
};
void budget_state(const struct serve_tenant *tenant, enum account_kind kind, struct budget_state *ret);
bool budget_take(struct serve_tenant *tenant, enum account_kind kind, uint64_t amount);
void budget_give(struct serve_tenant *tenant, enum account_kind kind, uint64_t amount);

/* op_quota.c: RSHM_OP_CHECK_QUOTA, RSHM_OP_RATE */
void quota_execute(struct slot *slot);
/* What it takes out of the purses; adds to `cost`. */
void quota_cost(const struct slot *slot, uint64_t cost[ACCOUNT_KINDS]);
/* In a round: does what the slot asks of a named quota. May be called again on the account that another agent changed. */
void quota_apply(struct slot *slot, struct account *account, const struct account_limits *limits);
/* After it. `status`: of the backend. */
void quota_answer(struct slot *slot, int status);

/* op_fetch.c */
void fetch_execute(struct slot *slot);
/* What the client loads passes on to others, and what it has waiting is forgotten. */
void fetch_drop_client(struct client *client);

/* op_batch.c, op_about.c */
void batch_execute(struct slot *slot);
void batch_destroy(struct batch **batch);
void about_execute(struct slot *slot);

/* figures.c */
void figures_drain_client(struct client *client);
void figures_drain_tenant(void *tenant);
void figures_publish(struct worker *worker);
/* Its counts go on counting in the worker's totals. */
void figures_end_tenant(struct serve_tenant *tenant);
/* Since the last access of the key that is known; EVICTION_IDLE_UNKNOWN. */
uint64_t figures_idle_ms(const struct serve_tenant *tenant, const void *key, size_t key_len, uint64_t now_ms);
/* Operations per 1,000 seconds, over the last ten. */
uint64_t figures_rate(const struct serve_tenant *tenant);

#endif
