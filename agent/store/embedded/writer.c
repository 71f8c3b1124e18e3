/*
 * The one thread that changes the file.
 *
 *	take all that waits (up to commit_batch_max, 32 MiB) -> one transaction -> commit -> answer
 *
 * While one batch is committed the next one gathers: the busier the store, the larger its batches, with no
 * delay added when it is idle. If the transaction of a batch fails, nothing of it has happened, and each
 * write is tried in a transaction of its own: so one value that does not fit fails alone.
 *
 * Between batches the thread syncs (policy interval), removes expired entries in slices, and clears the
 * reader places of processes that died (an operator's mdb_stat). It never holds the lock of the queue while
 * it works on the file.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/embedded/embedded_priv.h"
#include "agent/store/keys.h"

#define WRITER_BATCH_BYTES (32u << 20)
#define WRITER_IDLE_MS 60000u
#define WRITER_BASE_PAGES 16u /* of a transaction, beyond the entries themselves */

static struct log_limit writer_limit = LOG_LIMIT(5, 10000);

/* ---- taking ------------------------------------------------------------------------------------------------- */

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Under lock: sleeps until there is work or something is due. */
static void writer_wait(struct embedded_env *env)
{
	uint64_t now_ms = clock_monotonic_ms(), due_ms = env->sweep_due_ms;
	uint64_t wait_ms;
	struct timespec until;

	if (env->sync == EMBEDDED_SYNC_INTERVAL && env->unsynced)
		due_ms = min_u64(due_ms, env->sync_due_ms);
	if (env->queue.count > 0 || env->stopping || due_ms <= now_ms)
		return;
	wait_ms = min_u64(due_ms - now_ms, WRITER_IDLE_MS);
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(wait_ms / 1000);
	until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	(void)pthread_cond_timedwait(&env->wake, &env->lock, &until);
}

/* Takes a batch off the queue. False if there is none and never will be. */
static bool writer_take(struct embedded_env *env, struct request_list *ret, struct embedded_config *ret_limits)
{
	struct request_list batch = {0};
	uint64_t bytes = 0;
	bool go_on;

	(void)pthread_mutex_lock(&env->lock);
	writer_wait(env);
	while (env->queue.first != NULL && batch.count < env->limits.commit_batch_max && bytes < WRITER_BATCH_BYTES) {
		struct store_request *request = env->queue.first;

		env->queue.first = request->next;
		if (env->queue.first == NULL)
			env->queue.last = NULL;
		else
			env->queue.first->prev = NULL;
		env->queue.count--;
		if (request->state == EMBEDDED_QUEUED)
			request->state = EMBEDDED_TAKEN;
		bytes += request->op == STORE_PUT ? request->envelope_len : 0;
		request_list_append(&batch, request);
	}
	go_on = batch.count > 0 || !env->stopping;
	*ret_limits = env->limits;
	(void)pthread_mutex_unlock(&env->lock);
	*ret = batch;
	return go_on;
}

/* ---- a transaction ------------------------------------------------------------------------------------------ */

/* LMDB says EIO when a write was cut short, which is what a full disk does. */
static int writer_status(struct embedded_env *env, int status)
{
	struct statvfs info;

	if (status == RSHM_E_BACKEND && statvfs(env->path, &info) == 0 &&
	    (uint64_t)info.f_bavail * info.f_frsize < WRITER_BATCH_BYTES)
		return RSHM_E_FULL;
	return status;
}

static int txn_begin(struct embedded_env *env, struct record_txn *ret)
{
	struct record_txn txn = {.tables = &env->tables, .counts = env->counts, .now_ms = clock_realtime_ms()};
	int error = mdb_txn_begin(env->mdb, NULL, 0, &txn.txn);

	if (error == MDB_PANIC && __atomic_exchange_n(&env->broken, 1, __ATOMIC_RELAXED) == 0)
		log_error(
			EMBEDDED_MODULE,
			"%s: writing its root failed, so nothing can be written any more; check the disk, restart the agent",
			env->path);
	if (error != 0)
		return writer_status(env, record_status(error));
	*ret = txn;
	return RSHM_OK;
}

/* Ends a transaction either way. Returns `status`, or why the commit failed. */
static int txn_end(struct embedded_env *env, struct record_txn *txn, int status, uint32_t writes)
{
	struct record_counts stored = env->counts;
	int error;

	if (status >= 0 && memcmp(&stored, &txn->counts, sizeof stored) != 0)
		status = record_counts_save(txn);
	if (status < 0) {
		mdb_txn_abort(txn->txn);
		return writer_status(env, status);
	}
	error = mdb_txn_commit(txn->txn);
	if (error != 0) {
		log_limited(&writer_limit, LOG_LEVEL_ERROR, EMBEDDED_MODULE, "%s: cannot commit: %s", env->path,
			    mdb_strerror(error));
		return writer_status(env, record_status(error));
	}
	env->counts = txn->counts;
	env->unsynced = env->sync != EMBEDDED_SYNC_ALWAYS;
	__atomic_store_n(&env->entries, env->counts.entries, __ATOMIC_RELAXED);
	__atomic_store_n(&env->bytes, env->counts.bytes, __ATOMIC_RELAXED);
	__atomic_fetch_add(&env->commits, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&env->writes, writes, __ATOMIC_RELAXED);
	return RSHM_OK;
}

/* ---- room --------------------------------------------------------------------------------------------------- */

/* Bytes that a put takes in the file, as well as can be told. */
static uint64_t put_bytes(const struct embedded_env *env, const struct store_request *request)
{
	uint64_t bytes = RECORD_HEAD + request->envelope_len + 2 * (uint64_t)request->name.key_len + 32;

	if (request->name.key_len > KEYS_PLAIN_MAX)
		bytes = RECORD_HEAD + request->envelope_len + 2 * KEYS_PLAIN_MAX;
	if (bytes > env->page_size / 2)
		return (bytes / env->page_size + 1) * env->page_size;
	return bytes + bytes / 2;
}

/* LMDB shows its list of free pages only to readers; this one must end before the transaction that reuses them. */
static uint64_t free_bytes(struct embedded_env *env)
{
	uint64_t pages = 0;
	MDB_txn *txn;

	if (mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &txn) != 0)
		return 0;
	if (file_free_pages(txn, &pages) != 0)
		pages = 0;
	mdb_txn_abort(txn);
	return pages > WRITER_BASE_PAGES ? (pages - WRITER_BASE_PAGES) * env->page_size : 0;
}

/*
 * Bytes that puts may take in the next transaction. Free pages are counted only when the file has grown to
 * its limit.
 */
static uint64_t put_room(struct embedded_env *env, uint64_t wanted)
{
	MDB_envinfo info;
	uint64_t used, room;

	(void)mdb_env_info(env->mdb, &info);
	used = (uint64_t)info.me_last_pgno + 1 + WRITER_BASE_PAGES;
	room = used < env->put_pages ? (env->put_pages - used) * env->page_size : 0;
	return wanted > room ? room + free_bytes(env) : room;
}

/* ---- a batch ------------------------------------------------------------------------------------------------ */

static bool is_write(const struct store_request *request)
{
	return request->state == EMBEDDED_TAKEN;
}

static int apply_entry(struct record_txn *txn, struct store_request *request, uint64_t bytes, uint64_t *room)
{
	struct record_condition condition = {request->condition, request->expected_version, request->envelope};
	struct keys_embedded key;
	int status = keys_embedded(&request->name, &key);

	if (status < 0)
		return status;
	if (request->op == STORE_TOUCH)
		return record_touch(txn, key.bytes, key.length, request->expiry_ms);
	status = record_check(txn, key.bytes, key.length, &condition, &request->found_version);
	if (status != RSHM_OK)
		return status;
	if (request->op == STORE_DELETE) {
		/* Without an entry there is nothing to do; a tombstone stays what it is. */
		if (request->condition == STORE_IF_VERSION && request->expected_version == 0)
			return RSHM_MISS;
		return record_delete(txn, key.bytes, key.length);
	}
	if (bytes > *room)
		return RSHM_E_FULL;
	*room -= bytes;
	return record_put(txn, key.bytes, key.length, request->envelope, request->envelope_len, request->expiry_ms);
}

/* Takes no room worth counting. The generation in force is not swept, whoever says so. */
static int apply_space(struct record_txn *txn, struct store_request *request)
{
	struct record_space space;
	int status = record_space_load(txn->txn, txn->tables, request->name.tenant_number, &space);

	if (status < 0)
		return status;
	if (request->op == STORE_NEXT_GENERATION)
		space.generation++;
	else if (request->swept > space.swept && request->swept < space.generation)
		space.swept = request->swept;
	request->generation = space.generation;
	request->swept = space.swept;
	return record_space_save(txn, request->name.tenant_number, &space);
}

static int apply_one(struct record_txn *txn, struct store_request *request, uint64_t bytes, uint64_t *room)
{
	switch (request->op) {
	case STORE_PUT:
	case STORE_DELETE:
	case STORE_TOUCH:
		return apply_entry(txn, request, bytes, room);
	case STORE_NEXT_GENERATION:
	case STORE_SWEPT:
		return apply_space(txn, request);
	case STORE_GET:
	case STORE_HEAD:
	case STORE_LIST:
	case STORE_GENERATION:
	case STORE_FLUSH:
		break;
	}
	must(!"a read in the writer's queue");
	return RSHM_E_INVALID;
}

/* Whether a status tells of this request only and leaves the transaction sound. */
static bool status_is_own(int status, bool had_room)
{
	return status >= 0 || status == RSHM_E_INVALID || status == RSHM_E_TOOBIG || status == RSHM_E_CORRUPT ||
	       status == RSHM_E_FORMAT || (status == RSHM_E_FULL && !had_room);
}

/* Adds up what the puts of a transaction want. */
static uint64_t wanted_bytes(const struct embedded_env *env, const struct store_request *first,
			     const struct store_request *end)
{
	uint64_t wanted = 0;

	for (const struct store_request *request = first; request != end; request = request->next)
		wanted += is_write(request) && request->op == STORE_PUT ? put_bytes(env, request) : 0;
	return wanted;
}

/*
 * Runs requests from `first` up to `end` (excluded) in one transaction, which happens whole or not at all.
 * What is overdue by the time the file is ours is left out and gets RSHM_E_TIMEDOUT, whatever becomes of
 * the rest.
 */
static int run_transaction(struct embedded_env *env, struct store_request *first, const struct store_request *end)
{
	struct record_txn txn = {0};
	uint64_t now_ms, room = put_room(env, wanted_bytes(env, first, end));
	uint32_t writes = 0;
	int status = txn_begin(env, &txn);

	if (status < 0)
		return status;
	now_ms = clock_monotonic_ms();
	for (struct store_request *request = first; request != end && status >= 0; request = request->next) {
		uint64_t bytes = request->op == STORE_PUT ? put_bytes(env, request) : 0;
		bool had_room = bytes <= room;

		if (!is_write(request))
			continue;
		if (request->deadline_ms <= now_ms) {
			request->status = RSHM_E_TIMEDOUT;
			continue;
		}
		request->status = apply_one(&txn, request, bytes, &room);
		if (!status_is_own(request->status, had_room))
			status = request->status;
		writes++;
	}
	return txn_end(env, &txn, status, writes);
}

/* After a failed commit the file may be broken; then nobody knows which root is on the disk. */
static int status_after_failure(struct embedded_env *env, int status)
{
	struct record_txn txn = {0};

	if (txn_begin(env, &txn) == RSHM_OK)
		mdb_txn_abort(txn.txn);
	return __atomic_load_n(&env->broken, __ATOMIC_RELAXED) ? RSHM_E_UNKNOWN : status;
}

static void run_batch(struct embedded_env *env, struct request_list *batch)
{
	bool was_broken = __atomic_load_n(&env->broken, __ATOMIC_RELAXED) != 0;
	int status = run_transaction(env, batch->first, NULL);

	if (status >= 0)
		return;
	status = was_broken ? RSHM_E_BACKEND : status_after_failure(env, status);
	for (struct store_request *request = batch->first; request != NULL; request = request->next) {
		int alone = status;

		if (!is_write(request))
			continue;
		if (status != RSHM_E_UNKNOWN && !was_broken && batch->count > 1) {
			alone = run_transaction(env, request, request->next);
			if (alone < 0)
				alone = status_after_failure(env, alone);
		}
		if (alone < 0)
			request->status = alone;
	}
}

/* ---- upkeep ------------------------------------------------------------------------------------------------- */

static void writer_sync(struct embedded_env *env, uint32_t interval_ms)
{
	int error = env->unsynced ? mdb_env_sync(env->mdb, 1) : 0;

	if (error == 0)
		env->unsynced = false;
	else
		log_limited(&writer_limit, LOG_LEVEL_ERROR, EMBEDDED_MODULE, "%s: cannot sync: %s", env->path,
			    mdb_strerror(error));
	env->sync_due_ms = clock_monotonic_ms() + interval_ms;
}

/* One slice. If more is left it is due again at once, after the writes that came meanwhile. */
static void writer_sweep(struct embedded_env *env, const struct embedded_config *limits)
{
	struct record_txn txn = {0};
	uint32_t removed = 0;
	bool more = false;
	int status = txn_begin(env, &txn);

	if (status == RSHM_OK) {
		status = record_sweep(&txn, limits->expire_batch_max, &removed, &more);
		if (status == RSHM_OK && removed == 0)
			mdb_txn_abort(txn.txn);
		else
			status = txn_end(env, &txn, status, 0);
	}
	if (status < 0)
		log_limited(&writer_limit, LOG_LEVEL_WARN, EMBEDDED_MODULE,
			    "%s: cannot remove expired entries now (status %d); trying again", env->path, status);
	env->sweep_due_ms = clock_monotonic_ms() + (status == RSHM_OK && more ? 0 : limits->expire_interval_ms);
}

static void writer_upkeep(struct embedded_env *env, const struct embedded_config *limits)
{
	uint64_t now_ms = clock_monotonic_ms();
	int dead = 0;

	if (env->sync == EMBEDDED_SYNC_INTERVAL && env->unsynced && env->sync_due_ms <= now_ms)
		writer_sync(env, limits->sync_interval_ms);
	/* A shorter interval of a reload takes effect at once. */
	env->sweep_due_ms = min_u64(env->sweep_due_ms, now_ms + limits->expire_interval_ms);
	if (env->sweep_due_ms > now_ms)
		return;
	/* A reader that died pins the pages that the sweep sets free. */
	if (mdb_reader_check(env->mdb, &dead) == 0 && dead > 0)
		log_info(EMBEDDED_MODULE, "%s: cleared %d readers that died", env->path, dead);
	writer_sweep(env, limits);
}

static bool has_barrier(const struct request_list *batch)
{
	for (const struct store_request *request = batch->first; request != NULL; request = request->next)
		if (request->state == EMBEDDED_BARRIER)
			return true;
	return false;
}

void *writer_run(void *context)
{
	struct embedded_env *env = context;
	struct embedded_config limits;
	struct request_list batch;

	(void)pthread_setname_np(pthread_self(), "riptide-lmdb");
	while (writer_take(env, &batch, &limits)) {
		bool barrier = has_barrier(&batch);

		if (batch.count > 0)
			run_batch(env, &batch);
		if (barrier)
			writer_sync(env, limits.sync_interval_ms);
		embedded_store_finish(env, &batch);
		writer_upkeep(env, &limits);
	}
	writer_sync(env, limits.sync_interval_ms);
	if (!env->unsynced)
		file_mark_clean(env->path);
	return NULL;
}
