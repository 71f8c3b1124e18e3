/*
 * The life of the store: create, the ticking of its clock, close.
 *
 * Nothing ticks while nothing is accepted, waits, or is to be synced. Closing goes through its phases in
 * behind_close_step(): flush until all is stored or the time is up, answer who still waits, sync, close the inner
 * store (which ends what is in flight), close the handles.
 */
#include "agent/store/behind/behind.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/behind/behind_priv.h"
#include "shm/msg.h"

#define BEHIND_TICK_MS 10u
#define BEHIND_WINDOW_MAX 65536u

static void behind_on_idle(uv_idle_t *idle);
static void behind_on_timer(uv_timer_t *timer);
static void behind_on_prepare(uv_prepare_t *prepare);

/* ---- time ----------------------------------------------------------------------------------------------------- */

void behind_wake(struct behind_store *store)
{
	if (!uv_is_active((uv_handle_t *)&store->timer) && !uv_is_closing((uv_handle_t *)&store->timer))
		(void)uv_timer_start(&store->timer, behind_on_timer, BEHIND_TICK_MS, BEHIND_TICK_MS);
}

void behind_marks_pending(struct behind_store *store)
{
	if (!uv_is_active((uv_handle_t *)&store->prepare) && !uv_is_closing((uv_handle_t *)&store->prepare))
		(void)uv_prepare_start(&store->prepare, behind_on_prepare);
}

void behind_turn(struct behind_store *store)
{
	if (!uv_is_active((uv_handle_t *)&store->idle))
		(void)uv_idle_start(&store->idle, behind_on_idle);
}

static void behind_on_idle(uv_idle_t *idle)
{
	struct behind_store *store = idle->data;

	behind_run_deferred(store);
	if (store->deferred.count == 0)
		(void)uv_idle_stop(idle);
}

static void behind_on_prepare(uv_prepare_t *prepare)
{
	struct behind_store *store = prepare->data;

	(void)uv_prepare_stop(prepare);
	/* What the disk does not take is tried again by the timer. */
	if (!journal_write_marks(&store->journal))
		behind_wake(store);
}

static bool has_nothing_to_do(const struct behind_store *store)
{
	return store->phase == BEHIND_OPEN && store->depth_records == 0 &&
	       store->earliest_deadline_ms == UINT64_MAX && !journal_has_marks(&store->journal) &&
	       !journal_needs_sync(&store->journal);
}

static void behind_on_timer(uv_timer_t *timer)
{
	struct behind_store *store = timer->data;
	uint64_t now_ms = clock_monotonic_ms();

	if (store->earliest_deadline_ms <= now_ms)
		behind_expire(store, now_ms, false);
	(void)journal_write_marks(&store->journal);
	behind_flush_trigger(store, now_ms, false);
	behind_flush_pump(store);
	if (store->phase < BEHIND_SYNCING && now_ms - store->synced_ms >= store->config.sync_interval_ms &&
	    journal_needs_sync(&store->journal))
		behind_sync_begin(store);
	if (store->phase == BEHIND_FLUSHING)
		behind_close_step(store);
	else if (has_nothing_to_do(store))
		(void)uv_timer_stop(timer);
}

/* ---- closing -------------------------------------------------------------------------------------------------- */

static void behind_on_handle_closed(uv_handle_t *handle)
{
	struct behind_store *store = handle->data;
	void (*closed)(void *context) = store->closed;
	void *context = store->closed_context;

	if (--store->handles > 0)
		return;
	if (store->depth_records > 0)
		log_info(FOLDER_MODULE, "%" PRIu64 " accepted writes stay in %s for the next start",
			 store->depth_records, folder_path(store->journal.folder));
	journal_fini(&store->journal);
	behind_table_fini(&store->table);
	behind_flush_fini(store);
	store->magic = 0;
	free(store);
	if (closed != NULL)
		closed(context);
}

static void behind_on_inner_closed(void *context)
{
	struct behind_store *store = context;

	must(store->flying == 0 && !store->journal.syncing);
	while (store->deferred.count > 0)
		behind_run_deferred(store);
	must(store->pending == 0);
	store->handles = 3;
	uv_close((uv_handle_t *)&store->timer, behind_on_handle_closed);
	uv_close((uv_handle_t *)&store->idle, behind_on_handle_closed);
	uv_close((uv_handle_t *)&store->prepare, behind_on_handle_closed);
}

/* Flushed, or not in time -> nobody waits any more -> synced -> the inner store closes. */
void behind_close_step(struct behind_store *store)
{
	if (store->phase == BEHIND_FLUSHING) {
		bool flushed = store->depth_records == 0 && store->blocked == NULL && store->sync_next.count == 0 &&
			       store->sync_covered.count == 0;

		if (!flushed && clock_monotonic_ms() < store->close_by_ms)
			return;
		store->phase = BEHIND_SYNCING;
		behind_expire(store, 0, true);
		(void)uv_timer_stop(&store->timer);
	}
	if (store->journal.syncing || store->phase != BEHIND_SYNCING)
		return;
	if (store->depth_records > 0 && journal_needs_sync(&store->journal) && store->journal.round_ok) {
		behind_sync_begin(store);
		return;
	}
	store->phase = BEHIND_ENDING;
	store_close(store->inner, behind_on_inner_closed, store);
}

static void behind_close(struct store *base, void (*closed)(void *context), void *context)
{
	struct behind_store *store = behind_store_of(base);

	must(store->phase == BEHIND_OPEN);
	store->closed = closed;
	store->closed_context = context;
	store->phase = BEHIND_FLUSHING;
	store->close_by_ms = clock_monotonic_ms() + store->config.close_timeout_ms;
	behind_flush_trigger(store, clock_monotonic_ms(), true);
	behind_flush_pump(store);
	behind_wake(store);
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

static void behind_status(struct store *base, struct store_status *ret)
{
	struct behind_store *store = behind_store_of(base);
	struct behind_figures figures;

	store_status(store->inner, ret);
	ret->pending += store->pending;
	ret->completed += store->completed;
	ret->failed += store->failed;
	behind_figures(base, &figures);
	ret->journal = (struct store_journal){
		.records = figures.depth_records,
		.bytes = figures.depth_bytes,
		.oldest_ms = figures.oldest_age_ms,
		.accepted = figures.accepted,
		.coalesced = figures.coalesced,
		.flushed = figures.flushed,
		.superseded = figures.conflicts,
		.replayed = figures.replayed,
		.refused_full = figures.refused_full,
		.too_old = figures.too_old,
		.flush_failures = figures.flush_failures,
	};
}

/* The config is one of the inner store. */
static void behind_reload_inner(struct store *base, const void *config)
{
	struct store *inner = behind_store_of(base)->inner;

	if (inner->ops->reload != NULL)
		inner->ops->reload(inner, config);
}

void behind_reload(struct store *base, const struct behind_config *config)
{
	struct behind_config *mine = &behind_store_of(base)->config;

	mine->max_bytes = config->max_bytes;
	mine->max_records = config->max_records;
	mine->flush_records = config->flush_records;
	mine->flush_bytes = config->flush_bytes;
	mine->flush_interval_ms = config->flush_interval_ms;
	mine->flush_timeout_ms = config->flush_timeout_ms;
	mine->retry_delay_ms = config->retry_delay_ms;
	mine->retry_max_delay_ms = config->retry_max_delay_ms;
	mine->sync_interval_ms = config->sync_interval_ms;
	mine->max_replay_age_ms = config->max_replay_age_ms;
	mine->close_timeout_ms = config->close_timeout_ms;
}

void behind_figures(const struct store *base, struct behind_figures *ret)
{
	const struct behind_store *store = (const struct behind_store *)(const void *)base;

	must(store->magic == BEHIND_MAGIC);
	*ret = store->counts;
	ret->depth_records = store->depth_records;
	ret->depth_bytes = store->depth_bytes;
	ret->oldest_age_ms = store->depth_records > 0 ? behind_flush_age(store, clock_monotonic_ms()) : 0;
	ret->journal_bytes = store->journal.bytes;
	ret->sync_failures = store->journal.sync_failures;
	ret->files_aside += store->journal.files_aside;
}

/* What the inner store tells goes straight to the caller, who hears from flush.c, too. */
static void behind_watch(struct store *base, const struct store_watcher *watcher)
{
	struct behind_store *store = behind_store_of(base);

	store->watcher = *watcher;
	if (!store_watch(store->inner, watcher))
		watcher->mode(watcher->context, STORE_SOLE);
}

static const struct store_ops behind_ops = {
	.name = "behind",
	.submit = behind_submit,
	.status = behind_status,
	.close = behind_close,
	.watch = behind_watch,
	.reload = behind_reload_inner,
};

static int check_config(const struct behind_config *c, char *error, size_t error_len)
{
	const char *what = NULL;

	if (c->folder == NULL || c->folder[0] == '\0')
		what = "no folder";
	else if (c->owns == NULL || c->worker >= c->worker_count)
		what = "worker and worker_count do not fit";
	else if (c->flush_window == 0 || c->flush_window > BEHIND_WINDOW_MAX)
		what = "flush_window must be 1 to 65536";
	else if (c->segment_bytes < 4096 || c->max_bytes < 16384)
		what = "segment_bytes must be at least 4 KiB, max_bytes at least 16 KiB";
	else if (c->max_records == 0 || c->flush_records == 0 || c->flush_bytes == 0 || c->flush_timeout_ms == 0)
		what = "max_records, flush_records, flush_bytes, flush_timeout must not be 0";
	else if (c->retry_delay_ms == 0 || c->retry_max_delay_ms < c->retry_delay_ms || c->max_replay_age_ms == 0)
		what = "retry_delay and max_replay_age must not be 0, retry_max_delay not less than retry_delay";
	if (what == NULL)
		return RSHM_OK;
	(void)snprintf(error, error_len, "write-behind: %s", what);
	return RSHM_E_INVALID;
}

static int setup(struct behind_store *store, char *error, size_t error_len)
{
	struct folder *folder = NULL;
	int status = folder_acquire(store->config.folder, store->config.worker, store->config.worker_count, &folder,
				    error, error_len);

	if (status != RSHM_OK)
		return status;
	status = journal_init(&store->journal, &store->config, store->loop, folder, behind_on_synced, store);
	if (status != RSHM_OK) {
		folder_release(&folder);
	} else if (!behind_table_init(&store->table) || !behind_flush_init(store)) {
		status = RSHM_E_NOMEM;
	} else {
		return behind_replay(store, error, error_len);
	}
	(void)snprintf(error, error_len, "write-behind: no memory");
	return status;
}

int behind_create(const struct behind_config *config, uv_loop_t *loop, struct store *inner, struct store **ret,
		  char *error, size_t error_len)
{
	struct behind_store *store;
	int status = check_config(config, error, error_len);

	if (status != RSHM_OK)
		return status;
	store = calloc(1, sizeof *store);
	if (store == NULL) {
		(void)snprintf(error, error_len, "write-behind: no memory");
		return RSHM_E_NOMEM;
	}
	*store = (struct behind_store){
		.base.ops = &behind_ops,
		.magic = BEHIND_MAGIC,
		.loop = loop,
		.inner = inner,
		.config = *config,
		.earliest_deadline_ms = UINT64_MAX,
	};
	status = setup(store, error, error_len);
	store->config.folder = NULL;
	if (status != RSHM_OK) {
		if (store->journal.folder != NULL)
			journal_fini(&store->journal);
		behind_table_fini(&store->table);
		behind_flush_fini(store);
		free(store);
		return status;
	}
	(void)uv_timer_init(loop, &store->timer);
	(void)uv_idle_init(loop, &store->idle);
	(void)uv_prepare_init(loop, &store->prepare);
	store->timer.data = store->idle.data = store->prepare.data = store;
	if (store->depth_records > 0) {
		behind_flush_trigger(store, clock_monotonic_ms(), true);
		behind_wake(store);
	}
	*ret = &store->base;
	return RSHM_OK;
}
