/*
 * embedded.h - the backend that needs no server: entries in an LMDB file of this host.
 *
 * One environment per agent, one store per worker. Reads happen at once on the worker's thread and call
 * `done` from inside store_submit(), with `result` lent straight from the map where the entry has one
 * piece. Writes go to one writer thread through a bounded queue; it commits all that wait in one
 * transaction and answers on the worker's loop. Whoever gets the answer of a write reads it from then on.
 *
 * What an acknowledged write survives:
 *
 *	sync       death of the agent (kill -9)   power loss, kernel crash
 *	always     yes                            yes
 *	interval   yes                            but the last sync_interval_ms; the file may be damaged
 *	none       yes                            not promised; the file may be damaged
 *
 * LMDB orders its pages only by syncing: without `always` a power loss may leave a newest root whose pages
 * never reached the disk. A start after such a loss therefore checks the whole file, in a child process,
 * and refuses a damaged one.
 */
#ifndef RIPTIDE_STORE_EMBEDDED_H
#define RIPTIDE_STORE_EMBEDDED_H

#include <stdint.h>
#include <uv.h>

#include "agent/base/text.h"

struct store;
struct embedded_env;

enum embedded_sync {
	EMBEDDED_SYNC_ALWAYS,
	EMBEDDED_SYNC_INTERVAL,
	EMBEDDED_SYNC_NONE,
};

/* Everything has a default: EMBEDDED_CONFIG_DEFAULTS, then set `path`. Live = taken over by reload. */
struct embedded_config {
	const char *path;  /* folder, made with mode 0700 if absent; its parent must exist. Copied */
	uint64_t map_size; /* bytes the file may have, 1 MiB at least; address space, not memory */
	enum embedded_sync sync;
	uint32_t sync_interval_ms;   /* live */
	uint32_t expire_interval_ms; /* live: how often expired entries are removed from the file */
	uint32_t expire_batch_max;   /* live: entries removed in one transaction */
	uint32_t commit_batch_max;   /* live: writes in one transaction */
	uint32_t queue_max;          /* live: writes that wait, of all workers; beyond: RSHM_E_AGAIN */
};

#define EMBEDDED_CONFIG_DEFAULTS                                                                                  \
	{                                                                                                         \
		.map_size = 16ull << 30, .sync = EMBEDDED_SYNC_INTERVAL, .sync_interval_ms = 1000,                \
		.expire_interval_ms = 1000, .expire_batch_max = 1000, .commit_batch_max = 512, .queue_max = 16384 \
	}

/*
 * Opens or makes the file and starts the writer thread. Blocks: may compact the file, or check it after a
 * crash of the machine. To be called before other threads exist, under the lock that keeps a second agent
 * away: nothing here notices one. On failure `error` gets one line that names the path and what to do.
 * RSHM_E_INVALID (configuration), RSHM_E_DENIED, RSHM_E_SYSTEM, RSHM_E_NOMEM (map does not fit),
 * RSHM_E_FULL, RSHM_E_FORMAT (of a newer program), RSHM_E_CORRUPT.
 */
int embedded_env_open(const struct embedded_config *config, struct embedded_env **ret, struct text *error);

/*
 * The number of a tenant, made and synced on first call for a name, never 0 and never given to another
 * name, not after the tenant is gone either. Any thread. Blocks while the writer commits: for start-up and
 * the creation of tenants. RSHM_E_INVALID (name), RSHM_E_FULL, RSHM_E_BACKEND.
 */
int embedded_env_tenant_number(struct embedded_env *env, const char *name, uint32_t *ret);

/*
 * Ends writer and file after all stores are closed. Blocks until what was committed is synced, whatever the
 * policy. Clears *env; NULL is fine.
 */
void embedded_env_close(struct embedded_env **env);

/* Transactions committed and writes in them since start. Any thread. For status and tests. */
void embedded_env_commits(const struct embedded_env *env, uint64_t *ret_commits, uint64_t *ret_writes);

/*
 * Makes the store of the worker that runs `loop`, on its thread. `env` outlives it. store_close() waits for
 * its queued writes and a sync. The `config` of reload is a struct embedded_config; the first reload serves
 * all stores of the env. RSHM_E_NOMEM, RSHM_E_SYSTEM.
 */
int embedded_store_create(struct embedded_env *env, uv_loop_t *loop, struct store **ret);

#endif
