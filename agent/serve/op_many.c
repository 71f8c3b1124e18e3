/*
 * op_many.c - what concerns many entries at once: a prefix, a namespace, a tag, everything accepted.
 *
 *   prefix  walks the backend's keys; each is deleted like any other, hot copy and spilled copy included
 *   clear   makes another generation of the namespace the present one: one command for any number of entries, and the hot
 *           tier is emptied before the answer; what the old generation holds is swept in the background, and by the next
 *           agent if this one dies
 *   tag     gives the tag another epoch (tagging.c says what that does)
 *   flush   a barrier behind everything that the journal has accepted for the tenant
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/cache/loading.h"
#include "agent/cache/tags.h"
#include "agent/serve/serve_priv.h"
#include "agent/serve/walk.h"

#define HOT_STEPS 8192u /* entries of the ring that are looked at in a turn of the loop: about a millisecond */

/* ---- prefix ------------------------------------------------------------------------------------------------- */

struct prefix_job {
	struct walk walk; /* first */
	struct entry_op *op;
	uint64_t removed;
	/* through the ring */
	uv_idle_t idle;
	uint64_t cursor;
	int status;
};

static void prefix_on_deleted(struct entry_op *op)
{
	struct prefix_job *job = op->context;

	job->removed += op->status == RSHM_OK;
	walk_item_done(&job->walk, op->status);
}

static void prefix_on_key(struct walk *walk, const void *key, size_t key_len)
{
	struct prefix_job *job = (struct prefix_job *)walk;
	struct entry_op *op = entry_create(job->op->worker, job->op->tenant);

	if (!op) {
		walk_item_done(walk, RSHM_E_NOMEM);
		return;
	}
	op->key = key;
	op->key_len = key_len;
	op->deadline_ms = job->op->deadline_ms;
	op->change = rshm_change(RSHM_ALWAYS, RSHM_WRITE_THROUGH, RSHM_COMPRESS_DEFAULT);
	op->done = prefix_on_deleted;
	op->context = job;
	entry_delete(op);
}

static void idle_on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void end_prefix(struct prefix_job *job, int status)
{
	struct entry_op *op = job->op;

	op->version = job->removed;
	/* A part of it happened. */
	if (status < 0 && job->removed > 0)
		status = RSHM_E_UNKNOWN;
	spilling_invalidate_prefix(op->tenant, op->key, op->key_len);
	loading_forget(op->worker->loading, op->tenant);
	uv_close((uv_handle_t *)&job->idle, idle_on_closed);
	entry_complete(op, status, false);
}

/*
 * Absences and copies whose original is gone stand only in the ring. A large one takes a tenth of a second to look through, so it
 * is done in slices, between which others are served. What is published meanwhile comes from the backend, where the prefix is
 * gone; what the writer moves to the head, the walk meets there.
 */
static void remove_some(uv_idle_t *idle)
{
	struct prefix_job *job = idle->data;
	struct entry_op *op = job->op;
	struct hot *hot = op->tenant->hot;
	uint32_t steps = HOT_STEPS;
	struct rshm_item item;

	while (hot_walk(hot, &job->cursor, &steps, &item))
		if (item.key_len >= op->key_len && memcmp(item.key, op->key, op->key_len) == 0)
			hot_remove(hot, item.key, item.key_len);
	if (steps > 0)
		end_prefix(job, job->status);
	else if (entry_deadline_passed(op))
		end_prefix(job, job->status < 0 ? job->status : RSHM_E_TIMEDOUT);
}

static void prefix_on_walked(struct walk *walk, int status)
{
	struct prefix_job *job = (struct prefix_job *)walk;

	job->status = status;
	uv_idle_start(&job->idle, remove_some);
}

void entry_invalidate_prefix(struct entry_op *op)
{
	struct prefix_job *job = calloc(1, sizeof(*job));

	if (!job) {
		entry_complete(op, RSHM_E_NOMEM, false);
		return;
	}
	job->op = op;
	uv_idle_init(&op->worker->loop, &job->idle);
	job->idle.data = job;
	job->walk.store = &op->tenant->space.base;
	job->walk.name = entry_store_name(op->tenant->tenant);
	job->walk.name.key = op->key;
	job->walk.name.key_len = op->key_len;
	job->walk.deadline_ms = op->deadline_ms;
	job->walk.each = prefix_on_key;
	job->walk.done = prefix_on_walked;
	walk_start(&job->walk);
}

/* ---- clear -------------------------------------------------------------------------------------------------- */

static void clear_on_stored(struct store_request *request)
{
	struct entry_op *op = request->context;
	struct serve_tenant *tenant = op->tenant;

	if (request->status == RSHM_OK) {
		/* What was asked for before this is not the last word. */
		tenant->space.doubts++;
		tag_epochs_forget_all(tenant->tag_epochs);
		space_set_generation(&tenant->space, request->generation, request->swept);
		/* What is being loaded may be from before. */
		loading_forget(op->worker->loading, tenant);
	} else if (request->status == RSHM_E_UNKNOWN) {
		/* Perhaps another generation is in force: ask before anything else. */
		hot_clear(tenant->hot);
		tag_epochs_forget_all(tenant->tag_epochs);
		tenant->space.generation = 0;
		loading_forget(op->worker->loading, tenant);
	}
	entry_complete(op, request->status, false);
}

void entry_clear(struct entry_op *op)
{
	entry_submit(op, STORE_NEXT_GENERATION, clear_on_stored);
}

/* ---- sweep -------------------------------------------------------------------------------------------------- */

#define SWEEP_DEADLINE_MS (24u * 3600 * 1000) /* of a whole generation; each request has its own */
#define SWEEP_REQUEST_MS 5000u

static const char sweep_spaces[] = {'c', 't'};

struct sweep {
	struct walk walk; /* first */
	struct serve_tenant *tenant;
	size_t space;
	uint64_t removed;
	struct store_request swept;
};

struct sweep_item {
	struct store_request request;
	struct sweep *sweep;
};

static void sweep_next(struct sweep *sweep);

static void sweep_end(struct sweep *sweep)
{
	sweep->tenant->sweep = NULL;
	free(sweep);
}

static void sweep_on_removed(struct store_request *request)
{
	struct sweep_item *item = request->context;
	struct sweep *sweep = item->sweep;
	int status = request->status;

	free(item);
	sweep->removed += status == RSHM_OK;
	/* Not gone is what matters; what cannot be removed now is met again by the next sweep. */
	walk_item_done(&sweep->walk, status);
}

static void sweep_on_key(struct walk *walk, const void *key, size_t key_len)
{
	struct sweep *sweep = (struct sweep *)walk;
	struct sweep_item *item = calloc(1, sizeof(*item));

	if (!item) {
		walk_item_done(walk, RSHM_E_NOMEM);
		return;
	}
	item->sweep = sweep;
	item->request.op = STORE_DELETE;
	item->request.name = walk->name;
	item->request.name.key = key;
	item->request.name.key_len = key_len;
	item->request.deadline_ms = clock_monotonic_ms() + SWEEP_REQUEST_MS;
	item->request.done = sweep_on_removed;
	item->request.context = item;
	store_submit(walk->store, &item->request);
}

static void sweep_on_noted(struct store_request *request)
{
	struct sweep *sweep = request->context;
	struct space *space = &sweep->tenant->space;

	if (request->status == RSHM_OK) {
		log_info("serve", "tenant %s: generation %llu is swept, %llu entries", sweep->tenant->tenant->id,
			 (unsigned long long)space->swept + 1, (unsigned long long)sweep->removed);
		space->swept++;
		sweep->space = 0;
		sweep->removed = 0;
		sweep_next(sweep);
	} else {
		sweep_end(sweep);
	}
}

static void note_swept(struct sweep *sweep)
{
	sweep->swept = (struct store_request){
		.op = STORE_SWEPT,
		.name = entry_store_name(sweep->tenant->tenant),
		.swept = sweep->tenant->space.swept + 1,
		.deadline_ms = clock_monotonic_ms() + SWEEP_REQUEST_MS,
		.done = sweep_on_noted,
		.context = sweep,
	};
	store_submit(&sweep->tenant->space.base, &sweep->swept);
}

static void sweep_on_walked(struct walk *walk, int status)
{
	struct sweep *sweep = (struct sweep *)walk;

	if (status < 0) {
		sweep_end(sweep);
		return;
	}
	sweep->space++;
	sweep_next(sweep);
}

static void sweep_next(struct sweep *sweep)
{
	struct space *space = &sweep->tenant->space;

	if (space->closing || space->swept + 1 >= space->generation) {
		sweep_end(sweep);
	} else if (sweep->space == sizeof(sweep_spaces)) {
		note_swept(sweep);
	} else {
		sweep->walk = (struct walk){
			.store = &space->base,
			.name = entry_store_name(sweep->tenant->tenant),
			.deadline_ms = clock_monotonic_ms() + SWEEP_DEADLINE_MS,
			.each = sweep_on_key,
			.done = sweep_on_walked,
		};
		sweep->walk.name.generation = space->swept + 1;
		sweep->walk.name.space = sweep_spaces[sweep->space];
		walk_start(&sweep->walk);
	}
}

void sweep_start(struct serve_tenant *tenant)
{
	struct sweep *sweep;

	if (tenant->sweep || tenant->space.closing)
		return;
	sweep = calloc(1, sizeof(*sweep));
	if (!sweep)
		return;
	sweep->tenant = tenant;
	tenant->sweep = sweep;
	sweep_next(sweep);
}

/* ---- flush -------------------------------------------------------------------------------------------------- */

static void flush_on_stored(struct store_request *request)
{
	entry_complete(request->context, request->status, false);
}

void entry_flush(struct entry_op *op)
{
	entry_submit(op, STORE_FLUSH, flush_on_stored);
}
