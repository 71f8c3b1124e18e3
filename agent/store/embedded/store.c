/*
 * What a worker sees: reads inline, writes by way of the queue.
 *
 *	submit ── read ──────────────────────────────────────────────> done
 *	       └─ write -> env->queue -> writer thread -> finished -> mailbox -> done
 *	       └─ refused, or a flush -> deferred -> idle handle, next turn of the loop ──> done
 *
 * A `done` that runs on top of a read may submit the next read: each depth has a read transaction of its
 * own, so that the inner read sees the newest state and does not end the outer one's. Beyond the fourth
 * depth reads are deferred too, which bounds the stack.
 *
 * A write belongs to the queue until the writer takes it. While it waits, its worker's timer may take it
 * out again when its deadline passes. Once taken it is answered when the disk answers; a disk that hangs
 * holds it beyond its deadline, because the writer reads its envelope and only the disk knows the outcome.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/store/embedded/embedded_priv.h"
#include "agent/store/keys.h"

#define STORE_DEPTH_MAX (sizeof((struct embedded_store *)0)->readers / sizeof(MDB_txn *))
#define STORE_TIMER_MS 10u

static void store_on_finished(struct mailbox_message *message);
static void store_on_idle(uv_idle_t *idle);
static void store_on_timer(uv_timer_t *timer);
static void store_end(struct embedded_store *store);

static struct embedded_store *embedded_store_of(struct store *store)
{
	return (struct embedded_store *)(void *)store;
}

/* ---- answering ---------------------------------------------------------------------------------------------- */

/* The request is the caller's again when this returns. */
static void store_answer(struct embedded_store *store, struct store_request *request, int status)
{
	must(store->pending > 0);
	store->pending--;
	store->completed++;
	store->failed += status < 0;
	request->status = status;
	request->done(request);
}

/* Answers in the next turn of the loop. */
static void store_defer(struct embedded_store *store, struct store_request *request, enum embedded_state state,
			int status)
{
	request->state = state;
	request->status = status;
	request_list_append(&store->deferred, request);
	(void)uv_idle_start(&store->idle, store_on_idle);
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

static int reader_begin(struct embedded_store *store, MDB_txn **ret)
{
	MDB_txn **txn = &store->readers[store->depth];
	int error = *txn == NULL ? mdb_txn_begin(store->env->mdb, NULL, MDB_RDONLY, txn) : mdb_txn_renew(*txn);

	if (error != 0)
		return record_status(error);
	*ret = *txn;
	return RSHM_OK;
}

/* Finds the entry and lends what is asked for; `ret_copy` is to be freed after that. */
static int read_entry(struct embedded_store *store, MDB_txn *txn, struct store_request *request, void **ret_copy)
{
	struct keys_embedded key;
	struct record record;
	uint64_t now_ms;
	size_t length;
	int status = keys_embedded(&request->name, &key);

	if (status == RSHM_OK)
		status = record_find(txn, &store->env->tables, key.bytes, key.length, &record);
	if (status != RSHM_OK)
		return status;
	now_ms = record.expiry_ms == 0 ? 0 : clock_realtime_ms();
	if (record_expired(&record, now_ms))
		return RSHM_MISS;
	length = record.length;
	if (request->op == STORE_HEAD && request->head_bytes < length)
		length = request->head_bytes > ENVELOPE_HEAD_BYTES ? request->head_bytes : ENVELOPE_HEAD_BYTES;
	request->result = record.envelope;
	if (record.kind == RECORD_CHUNKED && length > ENVELOPE_HEAD_BYTES) {
		void *copy = malloc(length);

		if (copy == NULL)
			return RSHM_E_NOMEM;
		request->result = *ret_copy = copy;
		status = record_copy(txn, &store->env->tables, &record, copy, length);
	}
	request->result_len = length;
	request->remaining_ms = record.expiry_ms == 0 ? 0 : record.expiry_ms - now_ms;
	return status;
}

static int read_list(struct embedded_store *store, MDB_txn *txn, struct store_request *request, void **ret_copy)
{
	struct record_list list = {
		.name = &request->name,
		.page_keys = request->page_keys,
		.cursor = request->cursor,
		.cursor_len = &request->cursor_len,
	};
	int status = record_list(txn, &store->env->tables, &list, ret_copy, &request->result_len);

	request->result = *ret_copy;
	return status;
}

static int read_space(struct embedded_store *store, MDB_txn *txn, struct store_request *request)
{
	struct record_space space;
	int status = record_space_load(txn, &store->env->tables, request->name.tenant_number, &space);

	if (status == RSHM_OK) {
		request->generation = space.generation;
		request->swept = space.swept;
	}
	return status;
}

static int read_any(struct embedded_store *store, MDB_txn *txn, struct store_request *request, void **ret_copy)
{
	if (request->op == STORE_LIST)
		return read_list(store, txn, request, ret_copy);
	if (request->op == STORE_GENERATION)
		return read_space(store, txn, request);
	return read_entry(store, txn, request, ret_copy);
}

static void store_read(struct embedded_store *store, struct store_request *request)
{
	MDB_txn *txn = NULL;
	void *copy = NULL;
	int status = reader_begin(store, &txn);

	if (status == RSHM_OK)
		status = read_any(store, txn, request, &copy);
	if (status != RSHM_OK) {
		request->result = NULL;
		request->result_len = 0;
	}
	store->depth++;
	store_answer(store, request, status);
	store->depth--;
	free(copy);
	if (txn != NULL)
		mdb_txn_reset(txn);
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

static int write_check(const struct store_request *request)
{
	if (request->op == STORE_DELETE && request->condition != STORE_ALWAYS &&
	    request->condition != STORE_IF_VERSION)
		return RSHM_E_INVALID;
	if (request->op != STORE_PUT)
		return RSHM_OK;
	if (request->condition > STORE_IF_OLDER)
		return RSHM_E_INVALID;
	if (request->envelope == NULL || request->envelope_len < ENVELOPE_HEAD_BYTES)
		return RSHM_E_INVALID;
	return request->envelope_len > RECORD_ENVELOPE_MAX ? RSHM_E_TOOBIG : RSHM_OK;
}

/* False if the queue is full. A barrier always has room. */
static bool queue_append(struct embedded_env *env, struct store_request *request)
{
	bool room;

	(void)pthread_mutex_lock(&env->lock);
	room = request->state == EMBEDDED_BARRIER || env->queue.count < env->limits.queue_max;
	if (room) {
		request_list_append(&env->queue, request);
		/* The writer sleeps only on an empty queue. */
		if (env->queue.count == 1)
			(void)pthread_cond_signal(&env->wake);
	}
	(void)pthread_mutex_unlock(&env->lock);
	return room;
}

static void store_write(struct embedded_store *store, struct store_request *request)
{
	uint64_t deadline_ms = request->deadline_ms;
	int status = write_check(request);

	request->slot = store;
	request->state = EMBEDDED_QUEUED;
	if (status < 0) {
		store_defer(store, request, EMBEDDED_DEFERRED_ANSWER, status);
	} else if (!queue_append(store->env, request)) {
		store_defer(store, request, EMBEDDED_DEFERRED_ANSWER, RSHM_E_AGAIN);
	} else {
		if (deadline_ms < store->earliest_deadline_ms)
			store->earliest_deadline_ms = deadline_ms;
		if (!uv_is_active((uv_handle_t *)&store->timer))
			(void)uv_timer_start(&store->timer, store_on_timer, STORE_TIMER_MS, STORE_TIMER_MS);
	}
}

static bool is_read(const struct store_request *request)
{
	return request->op == STORE_GET || request->op == STORE_HEAD || request->op == STORE_LIST ||
	       request->op == STORE_GENERATION;
}

static void embedded_submit(struct store *base, struct store_request *request)
{
	struct embedded_store *store = embedded_store_of(base);

	store->pending++;
	request->result = NULL;
	request->result_len = 0;
	request->remaining_ms = 0;
	request->found_version = 0;
	request->accepted = false;
	if (store->closing)
		store_defer(store, request, EMBEDDED_DEFERRED_ANSWER, RSHM_E_CLOSED);
	else if (request->op == STORE_FLUSH)
		store_defer(store, request, EMBEDDED_DEFERRED_ANSWER, RSHM_OK);
	else if (!is_read(request))
		store_write(store, request);
	else if (store->depth < STORE_DEPTH_MAX)
		store_read(store, request);
	else
		store_defer(store, request, EMBEDDED_DEFERRED_READ, RSHM_OK);
}

void embedded_store_finish(struct embedded_env *env, struct request_list *finished)
{
	struct store_request *request = finished->first, *next;

	/* Posting under the lock: a store cannot take its answers, and then end, before the post has returned. */
	(void)pthread_mutex_lock(&env->lock);
	for (; request != NULL; request = next) {
		struct embedded_store *store = request->slot;

		next = request->next;
		request_list_append(&store->finished, request);
		if (!store->posted) {
			store->posted = true;
			must(mailbox_post(&store->mailbox, &store->message));
		}
	}
	(void)pthread_mutex_unlock(&env->lock);
}

static void store_on_finished(struct mailbox_message *message)
{
	struct embedded_store *store =
		(struct embedded_store *)(void *)((char *)message - offsetof(struct embedded_store, message));
	struct store_request *request, *next;
	bool barrier = false;

	(void)pthread_mutex_lock(&store->env->lock);
	request = store->finished.first;
	store->finished = (struct request_list){0};
	store->posted = false;
	(void)pthread_mutex_unlock(&store->env->lock);
	for (; request != NULL; request = next) {
		next = request->next;
		if (request == &store->barrier)
			barrier = true;
		else
			store_answer(store, request, request->status);
	}
	if (barrier)
		store_end(store);
}

/* ---- deadlines and deferred answers ------------------------------------------------------------------------- */

/* Takes this store's overdue writes out of the queue and notes when the next one will be overdue. */
static struct request_list take_overdue(struct embedded_store *store, uint64_t now_ms)
{
	struct embedded_env *env = store->env;
	struct request_list overdue = {0};
	struct store_request *request, *next;

	store->earliest_deadline_ms = UINT64_MAX;
	(void)pthread_mutex_lock(&env->lock);
	for (request = env->queue.first; request != NULL; request = next) {
		next = request->next;
		if (request->slot != store || request->state != EMBEDDED_QUEUED)
			continue;
		if (request->deadline_ms <= now_ms) {
			request_list_remove(&env->queue, request);
			request_list_append(&overdue, request);
		} else if (request->deadline_ms < store->earliest_deadline_ms) {
			store->earliest_deadline_ms = request->deadline_ms;
		}
	}
	(void)pthread_mutex_unlock(&env->lock);
	return overdue;
}

static void store_on_timer(uv_timer_t *timer)
{
	struct embedded_store *store = timer->data;
	uint64_t now_ms = clock_monotonic_ms();
	struct request_list overdue;
	struct store_request *next;

	if (store->pending == 0) {
		(void)uv_timer_stop(timer);
		store->earliest_deadline_ms = UINT64_MAX;
		return;
	}
	if (store->earliest_deadline_ms > now_ms)
		return;
	overdue = take_overdue(store, now_ms);
	for (struct store_request *request = overdue.first; request != NULL; request = next) {
		next = request->next;
		store_answer(store, request, RSHM_E_TIMEDOUT);
	}
}

static void store_run_deferred(struct embedded_store *store)
{
	struct store_request *request = store->deferred.first, *next;

	store->deferred = (struct request_list){0};
	for (; request != NULL; request = next) {
		next = request->next;
		if (request->state == EMBEDDED_DEFERRED_READ)
			store_read(store, request);
		else
			store_answer(store, request, request->status);
	}
}

static void store_on_idle(uv_idle_t *idle)
{
	struct embedded_store *store = idle->data;

	store_run_deferred(store);
	if (store->deferred.count == 0)
		(void)uv_idle_stop(idle);
}

/* ---- life --------------------------------------------------------------------------------------------------- */

static void embedded_status(struct store *base, struct store_status *ret)
{
	static const char *const policies[] = {"always", "interval", "none"};
	struct embedded_store *store = embedded_store_of(base);
	struct embedded_env *env = store->env;
	bool broken = __atomic_load_n(&env->broken, __ATOMIC_RELAXED) != 0;
	MDB_envinfo info;

	(void)mdb_env_info(env->mdb, &info);
	*ret = (struct store_status){
		.name = "embedded",
		.ready = !broken,
		.pending = store->pending,
		.completed = store->completed,
		.failed = store->failed,
		.entries = __atomic_load_n(&env->entries, __ATOMIC_RELAXED),
		.bytes = __atomic_load_n(&env->bytes, __ATOMIC_RELAXED),
	};
	(void)snprintf(ret->detail, sizeof ret->detail, "%s%s, file %" PRIu64 " of %" PRIu64 " MiB, sync %s",
		       broken ? "writing failed, restart the agent; " : "", env->path,
		       ((uint64_t)info.me_last_pgno + 1) * env->page_size >> 20, env->map_size >> 20,
		       policies[env->sync]);
}

static void embedded_reload(struct store *base, const void *context)
{
	struct embedded_env *env = embedded_store_of(base)->env;
	const struct embedded_config *config = context;

	(void)pthread_mutex_lock(&env->lock);
	env->limits = *config;
	env->limits.path = NULL;
	(void)pthread_cond_signal(&env->wake);
	(void)pthread_mutex_unlock(&env->lock);
}

static void embedded_close(struct store *base, void (*closed)(void *context), void *context)
{
	struct embedded_store *store = embedded_store_of(base);

	must(!store->closing);
	store->closing = true;
	store->closed = closed;
	store->closed_context = context;
	store->barrier.state = EMBEDDED_BARRIER;
	store->barrier.slot = store;
	store->barrier.op = STORE_TOUCH;
	must(queue_append(store->env, &store->barrier));
}

static void store_handle_closed(struct embedded_store *store)
{
	if (--store->handles > 0)
		return;
	for (size_t i = 0; i < STORE_DEPTH_MAX; i++)
		if (store->readers[i] != NULL)
			mdb_txn_abort(store->readers[i]);
	if (store->closed != NULL)
		store->closed(store->closed_context);
	free(store);
}

static void store_on_handle_closed(uv_handle_t *handle)
{
	store_handle_closed(handle->data);
}

static void store_on_mailbox_closed(void *context)
{
	store_handle_closed(context);
}

/* All writes are answered; what was refused meanwhile is answered here. */
static void store_end(struct embedded_store *store)
{
	while (store->deferred.count > 0)
		store_run_deferred(store);
	must(store->pending == 0);
	store->handles = 3;
	mailbox_close(&store->mailbox, store_on_mailbox_closed, store);
	uv_close((uv_handle_t *)&store->idle, store_on_handle_closed);
	uv_close((uv_handle_t *)&store->timer, store_on_handle_closed);
}

static const struct store_ops embedded_ops = {
	.name = "embedded",
	.submit = embedded_submit,
	.status = embedded_status,
	.close = embedded_close,
	.reload = embedded_reload,
};

int embedded_store_create(struct embedded_env *env, uv_loop_t *loop, struct store **ret)
{
	struct embedded_store *store = calloc(1, sizeof *store);

	must(env->magic == EMBEDDED_ENV_MAGIC);
	if (store == NULL)
		return RSHM_E_NOMEM;
	store->base.ops = &embedded_ops;
	store->env = env;
	store->earliest_deadline_ms = UINT64_MAX;
	store->message.handle = store_on_finished;
	if (!mailbox_init(&store->mailbox, loop, 1)) {
		free(store);
		return RSHM_E_SYSTEM;
	}
	(void)uv_idle_init(loop, &store->idle);
	(void)uv_timer_init(loop, &store->timer);
	store->idle.data = store->timer.data = store;
	*ret = &store->base;
	return RSHM_OK;
}
