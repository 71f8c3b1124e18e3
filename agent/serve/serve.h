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

#include "agent/base/hlc.h"
#include "agent/cache/hot.h"
#include "agent/store/envelope.h"
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
	uint64_t hot_max_age_ms;   /* 0 = no cap; else hot copies live no longer (no feed proves them) */
	uint64_t slow_ns;          /* slower requests are logged; 0 = never */
	uint64_t target_ns;        /* slower ones are counted */
	struct envelope_compression compression;
};

/* Shared by all workers, borrowed for their life. */
struct serve_environment {
	struct serve_options options;
	struct tenant_registry *tenants;
	const struct hot_environment *hot;
	struct rshm_agent *agent; /* sources and figures; each figure has one writer */
	uint32_t source;          /* number of the store's source */
	struct hlc *hlc;
	uint32_t writer_id;
	/* Makes the worker's store on its loop. Worker thread, may block. */
	int (*open_store)(void *context, uv_loop_t *loop, struct store **ret, char *error, size_t error_len);
	/* A channel has ended. Worker thread; must not block. */
	void (*channel_closed)(void *context, uid_t uid, uint32_t figures_index);
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
	pid_t pid;
	uint64_t channel_id;
	uint32_t figures_index;
	const struct tenant *tenant;
	char program[48];
};

/* Hands a client over. Any thread. False: the worker cannot take it; the caller still owns the descriptor. */
bool worker_connect(struct worker *worker, const struct worker_client *client);

/* The segment of a tenant of this worker; false if there is none now. Any thread. */
bool worker_locate(struct worker *worker, const struct tenant *tenant, char ret_name[RSHM_NAME_MAX],
		   uint64_t *ret_size);

/* Checks every hot entry against the store again (after the source was fenced). Any thread. */
void worker_revalidate(struct worker *worker);

/* A snapshot for reports, at most a quarter of a second old. Any thread. */
struct worker_report {
	struct store_status store;
	uint64_t requests, slow, over_target, ended_channels, protocol_errors;
	uint32_t channels, inflight;
	uint64_t staging_bytes, staging_refused;
	bool revalidating;
	uint64_t revalidated, revalidation_removed;
};
void worker_report(struct worker *worker, struct worker_report *ret);

#endif
