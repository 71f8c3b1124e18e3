/*
 * serve.h - the data plane: workers that answer request channels.
 *
 * A worker is a thread with a libuv loop of its own. It owns some tenants: their hot tiers, their clients' channels, and a
 * store instance for each. Everything a worker owns is touched on its thread only; what others may call says so.
 */
#ifndef RIPTIDE_SERVE_H
#define RIPTIDE_SERVE_H

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include "agent/base/histogram.h"
#include "agent/base/hlc.h"
#include "agent/cache/evictions.h"
#include "agent/cache/hot.h"
#include "agent/store/dictionary_sampler.h"
#include "agent/store/envelope.h"
#include "agent/store/spill/spill.h"
#include "agent/store/store.h"
#include "agent/tenant/tenant.h"
#include "shm/layout.h"

/* Bounds and times; copied from the configuration. */
struct serve_options {
	uint32_t spin_us;           /* polling before an idle channel is let go */
	uint32_t requests_per_turn; /* per channel */
	uint32_t bytes_per_turn;    /* per channel */
	uint32_t bells_per_second;  /* per channel */
	uint64_t worker_staging_bytes, tenant_staging_bytes, channel_staging_bytes;
	uint32_t piece_timeout_ms; /* between two pieces of a body or an answer */
	uint64_t max_entry_bytes;  /* of a value */
	uint32_t inflight_max;     /* operations per worker */
	uint64_t hot_max_age_ms;   /* hot copies of what others may change untold live no longer */
	uint64_t lease_ms;         /* readers' trust in shared memory after the last proof */
	uint64_t slow_ns;          /* slower requests are logged; 0 = never */
	uint64_t target_ns;        /* slower ones are counted */
	struct envelope_compression compression;
	bool warm_at_start;
	uint32_t warming_batch, warming_keys_per_second, hot_set_max;
	uint64_t hot_set_interval_ms; /* 0: the hot set is noted at the end only */
	const char *hot_set_folder;   /* NULL: it is neither noted nor loaded */
	uint64_t spill_read_bytes;    /* larger values are looked for on disk before the backend is asked for them */
	/* dictionaries: trained from so many samples, or half of so many bytes of them */
	uint32_t dictionary_samples_min;
	uint64_t dictionary_sample_bytes;
	uint32_t dictionary_bytes;
	bool dictionary_auto_train;
	uint64_t dictionary_retrain_ms; /* age at which one is trained anew; 0 = never */
	uint64_t key_need_ms;           /* so long after its successor was made a key may still be needed */
	uint64_t dictionary_refresh_ms; /* between two looks at what other agents trained */
};

/* A request that the tenant's rules refused. Texts are cut; what is not printable is written \xNN. */
struct serve_refusal {
	const char *tenant;
	uid_t uid;
	gid_t gid;
	pid_t pid;
	bool read_only;
	const char *action, *resource, *why;
};

/* Shared by all workers, borrowed for their life. */
struct master_keys;

struct serve_environment {
	struct serve_options options;
	struct tenant_table *tenants;
	const struct hot_environment *hot;
	struct rshm_agent *agent; /* sources and figures; each figure has one writer */
	struct hlc *hlc;
	uint32_t writer_id;
	const struct master_keys *masters; /* of tenants that encrypt; NULL: there are none */
	struct dictionary_registry *dictionaries;
	struct dictionary_sampler *sampler; /* NULL: dictionaries are only for reading */
	/* Makes the store of worker `index` on its loop. Worker thread, may block. */
	int (*open_store)(void *context, uint32_t index, uv_loop_t *loop, struct store **ret, char *error,
			  size_t error_len);
	/* Opens the disk tier of worker `index`; NULL in *ret: there is none. Worker thread, may block. */
	int (*open_spill)(void *context, uint32_t index, uv_loop_t *loop, struct spill **ret, char *error,
			  size_t error_len);
	/* A channel has ended. Worker thread; must not block. */
	void (*channel_closed)(void *context, uid_t uid, uint32_t figures_index);
	/* For the audit log; texts are lent. Worker thread; must not block. At most some tens a second and worker. */
	void (*refused)(void *context, const struct serve_refusal *refusal);
	void *context;
};

/* What a tenant's tier may find from the agent before. */
struct serve_adoption {
	const struct tenant *tenant;
	char name[RSHM_NAME_MAX];
};

struct worker;

/*
 * Starts worker `index` and waits until it serves. `adoptions` names the segments to adopt; those of other workers are
 * skipped. On failure a text and nothing left behind. Main thread.
 */
int worker_start(const struct serve_environment *environment, uint32_t index, const struct serve_adoption *adoptions,
		 size_t adoption_count, struct worker **ret, char *error, size_t error_len);

/*
 * Begins the end: takes no more requests, answers what is under way until `drain_ms` are over, then closes. `keep`: segments
 * stay for the next agent. worker_join() waits for it. Main thread.
 */
void worker_stop(struct worker *worker, uint32_t drain_ms, bool keep);
void worker_join(struct worker **worker);

/* A client to serve: its doorbell connection, and where its figures go. */
struct worker_client {
	int fd;
	uid_t uid;
	gid_t gid;
	pid_t pid;
	uint64_t channel_id;
	uint32_t figures_index;
	const struct tenant *tenant;
	bool read_only;    /* writes are refused */
	uint64_t until_ms; /* wall clock: then its channel is closed; 0: never */
	char program[48];
};

/* Hands a client over. Any thread. False: the worker cannot take it; the caller still owns the descriptor. */
bool worker_connect(struct worker *worker, const struct worker_client *client);

/* The segment of a tenant of this worker; false if there is none now. Any thread. */
bool worker_locate(struct worker *worker, const struct tenant *tenant, char ret_name[RSHM_NAME_MAX],
		   uint64_t *ret_size);

/*
 * Opens a tenant of this worker that came after its start, or closes one: its clients are dropped and its segment is emptied at
 * once (`emptied`), then retired when all that was under way has come back (`closed`); what is stored stays, but for what came
 * too late for the sweep of the host that deleted it, if it is `deleted`. The tenant must
 * live until `closed`. `adopt_name` is copied; NULL: a fresh segment. Callbacks come once each, on the worker's thread, for
 * they must not block; after `opened` with an error the tenant is not open. Any thread. False: the worker cannot take the order
 * now, nothing will be called.
 */
typedef void tenant_opened_fn(void *context, int status);
typedef void tenant_closed_fn(void *context);
bool worker_open_tenant(struct worker *worker, const struct tenant *tenant, const char *adopt_name,
			tenant_opened_fn *opened, void *context);
bool worker_close_tenant(struct worker *worker, const struct tenant *tenant, bool deleted, tenant_closed_fn *emptied,
			 tenant_closed_fn *closed, void *context);

/* What was removed of a tenant. */
struct erase_counts {
	uint64_t entries, tags, sessions, dictionaries;
};

/*
 * Removes all that the backend and the worker's disk tier hold of a tenant, which is not open and stays until `erased`, once,
 * on the worker's thread. With an error a part of it is gone; begun anew it goes on. Any thread. False: as above.
 */
typedef void tenant_erased_fn(void *context, int status, const struct erase_counts *counts);
bool worker_erase_tenant(struct worker *worker, const struct tenant *tenant, tenant_erased_fn *erased, void *context);

/* How far a change of keys has come. Written by the worker, read by any thread. */
struct worker_keys_progress {
	_Atomic uint64_t seen, resealed, failed;
};

/* What is known of a tenant's keys, newest first; the first is for new writes. */
struct worker_keys {
	size_t count, behind; /* behind: wrapped by a former master key */
	struct {
		uint32_t id;
		uint64_t created_ms;
	} keys[8];
};

/* What is to be done with the keys of a tenant that encrypts, open or not. */
struct worker_keys_order {
	const struct tenant *tenant; /* stays until `ended` */
	bool rotate;                 /* a new key for new writes */
	bool rewrap;                 /* by the current master key */
	bool reseal; /* what older keys sealed; then keys that nothing can need any more are destroyed */
	struct worker_keys_progress *progress;
	/* The ring is changed, or could not be: `why` says what is wrong. `keys` is lent, NULL unless RSHM_OK. */
	void (*changed)(void *context, int status, const struct worker_keys *keys, const char *why);
	/* The end of it all, with the status of the resealing. */
	void (*ended)(void *context, int status);
	void *context;
};
/* Callbacks once each, in this order, on the worker's thread, for they must not block. Any thread. False: as above. */
bool worker_change_keys(struct worker *worker, const struct worker_keys_order *order);

/* The machine slept: every hot entry is unverified until it was compared with the store. Any thread, may block shortly. */
void worker_slept(struct worker *worker);

/* Another eviction policy for a tenant of this worker, soon. Any thread. */
void worker_set_eviction(struct worker *worker, const struct tenant *tenant, enum hot_policy eviction);

/* Called once, on the worker's thread, for it must not block. `info` is lent, NULL unless RSHM_OK; `text` says what to do. */
typedef void dictionary_done_fn(void *context, int status, const struct dictionary_info *info, const char *text);

/* A dictionary to be trained from what is sampled of `content_type`, or, if `drop`, `id` to be retired. */
struct worker_dictionary_order {
	const struct tenant *tenant; /* of this worker */
	bool drop;
	uint32_t id;
	char content_type[DICTIONARY_TYPE_MAX + 1];
	dictionary_done_fn *done;
	void *context;
};
/* Any thread. False: the worker cannot take it, `done` will not be called. */
bool worker_change_dictionary(struct worker *worker, const struct worker_dictionary_order *order);
/* Do these samples suffice to train from? */
bool serve_samples_suffice(const struct serve_options *options, uint64_t count, uint64_t bytes);

/* The eviction books of all its tenants begin anew, soon. Any thread. */
void worker_reset_evictions(struct worker *worker);

/* A snapshot for reports, at most a quarter of a second old. Any thread. */
struct worker_report {
	struct store_status store;
	uint64_t requests, slow, over_target, ended_channels, protocol_errors;
	uint32_t channels, inflight;
	uint64_t staging_bytes, staging_refused;
	bool revalidating;
	uint64_t revalidated, revalidation_removed;
	struct coherence_report {
		enum store_coherence mode;
		bool known; /* what the backend can do */
		uint64_t epoch, lease_remaining_ms, max_age_ms;
		uint64_t changes, checks, checks_pending,
			fences; /* of others; that may be ours; now; since the start */
	} coherence;
	uint32_t loads, loads_waiting; /* keys being loaded by clients, and fetches that wait for them */
	bool has_spill;
	struct spill_figures spill;
	struct histogram hit_ns; /* of all its tenants, the closed ones included, as is the next */
	struct ended_tenants {
		struct rshm_figures figures;
		uint64_t plain_bytes, stored_bytes, spilled, restored;
		struct evictions_figures evictions;
	} ended;
};
void worker_report(struct worker *worker, struct worker_report *ret);

/* Of loading what was not asked for yet: the hot set at start, and clients' lists and prefixes. */
struct warm_counts {
	uint64_t loaded, absent, failed, total;
};

/* The same of one tenant of this worker, besides what its figures in the agent object say. */
struct tenant_report {
	uint64_t generation, unswept_generations; /* 0 = not known yet */
	uint64_t plain_bytes, stored_bytes;       /* of values written, before and after compression */
	uint64_t spilled, restored;               /* evicted entries that went to the disk tier, and came back */
	uint64_t denied;                          /* requests and items that the tenant's rules refused */
	uint64_t limited;                         /* requests that a quota or rate refused */
	uint64_t shadowed;        /* times that something was drawn which only the shadow mode let pass */
	uint64_t alerts;          /* times that 90 % of a quota came to be used */
	uint64_t refused_entries; /* that the tenant's keys do not open */
	uint64_t dictionary_sets; /* values written that took a dictionary */
	uint64_t operations_per_second_milli;
	uint64_t hit_ns_mean, hit_ns_p50, hit_ns_p95, hit_ns_p99;
	uint64_t tags_known;
	struct warm_counts warmed;
	bool warming;
	enum hot_policy eviction;
	uint64_t negatives; /* remembered absences */
	struct evictions_figures evictions;
};
/* False: not a tenant of this worker. */
bool worker_tenant_report(struct worker *worker, const struct tenant *tenant, struct tenant_report *ret);

#endif
