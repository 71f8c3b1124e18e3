/*
 * Opening and ending the shared environment, and the numbers of tenants.
 *
 * The map is larger than what puts may fill: a B-tree that copies pages needs free ones to delete anything,
 * so without a reserve a full file could never be emptied again. put_pages is where puts stop; deletes,
 * touches and the sweep go on.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/embedded/embedded_priv.h"

#define ENV_MAP_MIN (1ull << 20)
#define ENV_RESERVE_MIN (256ull << 10)
#define ENV_RESERVE_MAX (64ull << 20)

static int config_check(const struct embedded_config *config, struct text *error)
{
	const char *wrong = NULL;

	if (config->path == NULL || config->path[0] == '\0')
		wrong = "the path is empty";
	else if (config->map_size < ENV_MAP_MIN)
		wrong = "map_size is below 1 MiB";
	else if (config->map_size > SIZE_MAX / 2)
		wrong = "map_size is beyond the address space of this machine";
	else if (config->sync > EMBEDDED_SYNC_NONE)
		wrong = "sync is none of always, interval, none";
	else if (config->sync_interval_ms == 0 || config->expire_interval_ms == 0)
		wrong = "an interval is 0";
	else if (config->expire_batch_max == 0 || config->commit_batch_max == 0 || config->queue_max == 0)
		wrong = "a limit is 0";
	if (wrong == NULL)
		return RSHM_OK;
	text_append_format(error, "embedded store%s%s: %s", config->path == NULL ? "" : " ",
			   config->path == NULL ? "" : config->path, wrong);
	return RSHM_E_INVALID;
}

/* ---- opening ------------------------------------------------------------------------------------------------ */

static int env_map(struct embedded_env *env, const struct embedded_config *config, struct text *error)
{
	uint64_t reserve = config->map_size / 16;
	unsigned flags = MDB_NOTLS | (config->sync == EMBEDDED_SYNC_ALWAYS ? 0 : MDB_NOSYNC);
	MDB_envinfo info;
	MDB_stat stats;
	int failed, dead = 0;

	reserve = reserve < ENV_RESERVE_MIN ? ENV_RESERVE_MIN : reserve > ENV_RESERVE_MAX ? ENV_RESERVE_MAX : reserve;
	failed = mdb_env_create(&env->mdb);
	if (failed == 0)
		failed = mdb_env_set_maxdbs(env->mdb, EMBEDDED_TABLES_MAX);
	if (failed == 0)
		failed = mdb_env_set_maxreaders(env->mdb, EMBEDDED_READERS_MAX);
	if (failed == 0)
		failed = mdb_env_set_mapsize(env->mdb, config->map_size / 4096 * 4096);
	if (failed == 0)
		failed = mdb_env_open(env->mdb, env->path, flags, 0600);
	if (failed == 0)
		failed = mdb_env_info(env->mdb, &info);
	if (failed == 0)
		failed = mdb_env_stat(env->mdb, &stats);
	/* A map_size that was lowered below what is stored: LMDB took the larger one, without our reserve. */
	if (failed == 0 && ((uint64_t)info.me_last_pgno + 1) * stats.ms_psize + reserve > info.me_mapsize) {
		failed = mdb_env_set_mapsize(env->mdb, (info.me_last_pgno + 1) * stats.ms_psize + reserve);
		if (failed == 0)
			failed = mdb_env_info(env->mdb, &info);
	}
	if (failed == 0)
		failed = mdb_reader_check(env->mdb, &dead);
	if (failed != 0)
		return file_explain(env->path, "open", failed, error);
	env->map_size = info.me_mapsize;
	env->page_size = stats.ms_psize;
	env->put_pages = (config->map_size - reserve) / stats.ms_psize;
	return RSHM_OK;
}

/* Tells a new file from one of ours, one of a newer program, and one of somebody else. */
static int format_check(struct embedded_env *env, MDB_txn *txn, struct text *error)
{
	MDB_val name = record_val("format", 6), value = {0, NULL};
	uint32_t format = htole32(EMBEDDED_FORMAT);
	MDB_dbi root;
	MDB_stat stats = {0};
	int failed = mdb_dbi_open(txn, NULL, 0, &root);

	if (failed == 0)
		failed = mdb_stat(txn, root, &stats);
	if (failed == 0 && stats.ms_entries == 0) {
		value = (MDB_val){sizeof format, &format};
		failed = mdb_dbi_open(txn, "meta", MDB_CREATE, &env->tables.meta);
		if (failed == 0)
			failed = mdb_put(txn, env->tables.meta, &name, &value, 0);
	} else if (failed == 0) {
		failed = mdb_dbi_open(txn, "meta", 0, &env->tables.meta);
		if (failed == 0)
			failed = mdb_get(txn, env->tables.meta, &name, &value);
	}
	if (failed == MDB_NOTFOUND || failed == MDB_INCOMPATIBLE || (failed == 0 && value.mv_size != sizeof format))
		failed = MDB_INVALID;
	if (failed != 0)
		return file_explain(env->path, "use", failed, error);
	memcpy(&format, value.mv_data, sizeof format);
	if (le32toh(format) > EMBEDDED_FORMAT || format == 0) {
		text_append_format(
			error,
			"embedded store: %s is of format %u, this program knows up to %u; use the newer program,"
			" or move the folder away to start empty",
			env->path, le32toh(format), EMBEDDED_FORMAT);
		return RSHM_E_FORMAT;
	}
	return RSHM_OK;
}

static int tables_open(struct embedded_env *env, struct text *error)
{
	struct record_tables *tables = &env->tables;
	MDB_txn *txn;
	int status, failed = mdb_txn_begin(env->mdb, NULL, 0, &txn);

	if (failed != 0)
		return file_explain(env->path, "use", failed, error);
	status = format_check(env, txn, error);
	if (status < 0) {
		mdb_txn_abort(txn);
		return status;
	}
	failed = mdb_dbi_open(txn, "tenants", MDB_CREATE, &tables->tenants);
	if (failed == 0)
		failed = mdb_dbi_open(txn, "main", MDB_CREATE, &tables->main);
	if (failed == 0)
		failed = mdb_dbi_open(txn, "chunks", MDB_CREATE, &tables->chunks);
	if (failed == 0)
		failed = mdb_dbi_open(txn, "expiry", MDB_CREATE, &tables->expiry);
	if (failed == 0 && record_counts_load(txn, tables, &env->counts) != RSHM_OK)
		failed = MDB_CORRUPTED;
	if (failed != 0) {
		mdb_txn_abort(txn);
		return file_explain(env->path, "use", failed, error);
	}
	failed = mdb_txn_commit(txn);
	if (failed == 0)
		failed = mdb_env_sync(env->mdb, 1);
	return failed == 0 ? RSHM_OK : file_explain(env->path, "write", failed, error);
}

/* The agent's signals are for its control loop. */
static int writer_start(struct embedded_env *env, struct text *error)
{
	pthread_condattr_t attributes;
	sigset_t all, old;
	int failed;

	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	must(pthread_mutex_init(&env->lock, NULL) == 0 && pthread_cond_init(&env->wake, &attributes) == 0);
	(void)pthread_condattr_destroy(&attributes);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	failed = pthread_create(&env->writer, NULL, writer_run, env);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (failed == 0)
		return RSHM_OK;
	(void)pthread_cond_destroy(&env->wake);
	(void)pthread_mutex_destroy(&env->lock);
	text_append_format(error, "embedded store %s: cannot start its writer thread: %s", env->path,
			   strerror(failed));
	return RSHM_E_SYSTEM;
}

static int env_setup(struct embedded_env *env, const struct embedded_config *config, struct text *error)
{
	uint64_t now_ms = clock_monotonic_ms();
	int status = file_prepare(env->path, error);

	if (status == RSHM_OK)
		status = file_check(env->path, error);
	if (status != RSHM_OK)
		return status;
	file_compact(env->path);
	if (config->sync != EMBEDDED_SYNC_ALWAYS)
		status = file_mark_dirty(env->path, error);
	if (status == RSHM_OK)
		status = env_map(env, config, error);
	if (status == RSHM_OK)
		status = tables_open(env, error);
	if (status != RSHM_OK)
		return status;
	/* Earlier commits may have been made without syncing; all are synced now. */
	if (config->sync == EMBEDDED_SYNC_ALWAYS)
		file_mark_clean(env->path);
	env->entries = env->counts.entries;
	env->bytes = env->counts.bytes;
	env->sync_due_ms = now_ms + config->sync_interval_ms;
	env->sweep_due_ms = now_ms;
	return writer_start(env, error);
}

static void env_free(struct embedded_env *env)
{
	if (env->mdb != NULL)
		mdb_env_close(env->mdb);
	free(env->path);
	free(env);
}

int embedded_env_open(const struct embedded_config *config, struct embedded_env **ret, struct text *error)
{
	struct embedded_env *env;
	int status = config_check(config, error);

	if (status < 0)
		return status;
	env = calloc(1, sizeof *env);
	if (env == NULL || (env->path = strdup(config->path)) == NULL) {
		free(env);
		text_append_string(error, "embedded store: no memory");
		return RSHM_E_NOMEM;
	}
	env->magic = EMBEDDED_ENV_MAGIC;
	env->sync = config->sync;
	env->limits = *config;
	env->limits.path = NULL;
	status = env_setup(env, config, error);
	if (status < 0) {
		env_free(env);
		return status;
	}
	*ret = env;
	return RSHM_OK;
}

void embedded_env_close(struct embedded_env **env_pointer)
{
	struct embedded_env *env = *env_pointer;

	if (env == NULL)
		return;
	must(env->magic == EMBEDDED_ENV_MAGIC);
	*env_pointer = NULL;
	(void)pthread_mutex_lock(&env->lock);
	env->stopping = true;
	(void)pthread_cond_signal(&env->wake);
	(void)pthread_mutex_unlock(&env->lock);
	(void)pthread_join(env->writer, NULL);
	must(env->queue.count == 0);
	(void)pthread_cond_destroy(&env->wake);
	(void)pthread_mutex_destroy(&env->lock);
	env->magic = 0;
	env_free(env);
}

void embedded_env_commits(const struct embedded_env *env, uint64_t *ret_commits, uint64_t *ret_writes)
{
	*ret_commits = __atomic_load_n(&env->commits, __ATOMIC_RELAXED);
	*ret_writes = __atomic_load_n(&env->writes, __ATOMIC_RELAXED);
}

/* ---- tenants ------------------------------------------------------------------------------------------------ */

static int number_get(MDB_txn *txn, MDB_dbi table, const char *name, uint32_t *ret)
{
	MDB_val key = record_val(name, strlen(name)), value = {0, NULL};
	uint32_t number;
	int error = mdb_get(txn, table, &key, &value);

	if (error != 0)
		return error;
	if (value.mv_size != sizeof number)
		return MDB_CORRUPTED;
	memcpy(&number, value.mv_data, sizeof number);
	if (number == 0)
		return MDB_CORRUPTED;
	*ret = le32toh(number);
	return 0;
}

static int number_put(MDB_txn *txn, MDB_dbi table, const char *name, uint32_t number)
{
	uint32_t stored = htole32(number);
	MDB_val key = record_val(name, strlen(name)), value = {sizeof stored, &stored};

	return mdb_put(txn, table, &key, &value, 0);
}

/* In a write transaction: takes the next number. Returns an LMDB error. */
static int number_make(struct embedded_env *env, MDB_txn *txn, const char *name, uint32_t *ret)
{
	uint32_t next = 1;
	int error = number_get(txn, env->tables.meta, "tenant_next", &next);

	if (error != 0 && error != MDB_NOTFOUND)
		return error;
	if (next == UINT32_MAX)
		return MDB_MAP_FULL;
	error = number_put(txn, env->tables.tenants, name, next);
	if (error == 0)
		error = number_put(txn, env->tables.meta, "tenant_next", next + 1);
	*ret = next;
	return error;
}

int embedded_env_tenant_number(struct embedded_env *env, const char *name, uint32_t *ret)
{
	uint32_t number = 0;
	MDB_txn *txn;
	bool made = false;
	int error;

	must(env->magic == EMBEDDED_ENV_MAGIC);
	if (name == NULL || !text_is_name(name, RSHM_TENANT_MAX))
		return RSHM_E_INVALID;
	error = mdb_txn_begin(env->mdb, NULL, 0, &txn);
	if (error != 0)
		return record_status(error);
	error = number_get(txn, env->tables.tenants, name, &number);
	if (error == MDB_NOTFOUND) {
		error = number_make(env, txn, name, &number);
		made = true;
	}
	if (error != 0 || !made) {
		mdb_txn_abort(txn);
	} else {
		error = mdb_txn_commit(txn);
		/* Losing it to a power cut could give the number to another tenant, and that one the entries. */
		if (error == 0)
			error = mdb_env_sync(env->mdb, 1);
	}
	if (error != 0)
		return record_status(error);
	*ret = number;
	return RSHM_OK;
}
