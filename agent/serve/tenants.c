/*
 * tenants.c - tenants of a worker come and go while it serves.
 *
 *   open    segment, books, disk tier: from then on clients can be connected
 *   close   clients dropped ─▶ what is under way comes back ─▶ off the list ─▶ revalidation ─▶ segment retired, its bytes
 *           overwritten ─▶ freed ─▶ [deleted: what was stored too late, erasing.c] ─▶ `done`
 *
 * A closing tenant takes no new work, and each step waits for what the one before still has under way, because
 * operations, store requests, channels and training all point here. Those have deadlines of their own, so the end comes; the
 * worker's tick looks for it. The list is read by other threads for reports: it changes under worker->lock.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/cache/loading.h"
#include "agent/cache/tags.h"
#include "agent/serve/dictionaries.h"
#include "agent/serve/rings.h"
#include "agent/serve/serve_priv.h"
#include "shm/order.h"

#define TAG_EPOCHS_MAX 65536u /* of a tenant, remembered */
#define TAG_EPOCHS_BYTES (8u << 20)

/* ---- open ---------------------------------------------------------------------------------------------------- */

static void drain_on_reclaim(void *context)
{
	static const uint64_t drain_ms = 5;        /* between drains while busy */
	static const uint64_t puts_per_drain = 16; /* of each client, sooner than that */
	struct serve_tenant *tenant = context;
	struct worker *worker = tenant->worker;
	uint64_t now_ms = clock_monotonic_ms();

	/* A client's touches fit 64 reads of one thread: soon enough that few are lost, seldom enough not to matter. */
	if (!tenant->clients || (now_ms - worker->drained_ms < drain_ms &&
				 ++tenant->puts_undrained < puts_per_drain * worker->client_count))
		return;
	tenant->puts_undrained = 0;
	worker->drained_ms = now_ms;
	figures_drain_tenant(tenant);
}

/* An entry leaves the ring to make room. */
static void drop_on_reclaim(void *context, const struct rshm_item *item, uint64_t position)
{
	struct serve_tenant *tenant = context;
	uint64_t now_ms = clock_monotonic_ms();
	bool expired = now_ms >= item->control_b && !tenant->worker->max_age_ms;
	enum eviction_reason reason = EVICTION_CAPACITY;

	(void)position;
	if (expired)
		reason = EVICTION_EXPIRED;
	else if (hot_is_short_of_memory(tenant->hot))
		reason = EVICTION_MEMORY_PRESSURE;
	evictions_record(tenant->evictions, reason,
			 rshm_entry_bytes(item->key_len, item->metadata_len, item->value_len),
			 figures_idle_ms(tenant, item->key, item->key_len, now_ms), item->key, item->key_len, now_ms);
	if (!expired)
		spilling_keep(tenant, item);
}

static int open_hot(struct serve_tenant *st, const char *adopt_name)
{
	const struct tenant *tenant = st->tenant;
	struct hot_settings settings = {
		.tenant = tenant->id,
		.limit_bytes = tenant->memory_bytes,
		.policy = tenant->stale_policy,
		.eviction = tenant->eviction,
		.negatives_max = tenant->negatives_max,
		.stale_limit_ms = tenant->stale_limit_ms,
		.users = tenant->users,
		.user_count = tenant->cold ? 0 : tenant->user_count,
		.groups = tenant->groups,
		.group_count = tenant->cold ? 0 : tenant->group_count,
	};

	(void)hot_open(st->worker->env->hot, &settings, &st->worker->loop, adopt_name, &st->hot);
	if (!st->hot)
		return RSHM_E_NOMEM;
	hot_set_reclaim_hook(st->hot, drain_on_reclaim, st);
	hot_set_drop_hook(st->hot, drop_on_reclaim, st);
	return RSHM_OK;
}

static void free_books(struct serve_tenant *tenant)
{
	tag_epochs_destroy(&tenant->tag_epochs);
	dictionaries_destroy(tenant);
	evictions_destroy(&tenant->evictions);
	accesses_destroy(&tenant->accesses);
	budget_destroy(tenant);
	sealing_destroy(tenant);
	warming_destroy(tenant);
}

static int open_books(struct serve_tenant *st)
{
	struct worker *worker = st->worker;
	struct store_name name = entry_store_name(st->tenant);

	st->tag_epochs = tag_epochs_create(TAG_EPOCHS_MAX, TAG_EPOCHS_BYTES);
	st->evictions = evictions_create(clock_monotonic_ms());
	st->accesses = accesses_create();
	if (!st->tag_epochs || !st->evictions || !st->accesses || dictionaries_create(st) < 0 ||
	    spilling_create(st, worker->spill) < 0 || budget_create(st) < 0 || sealing_create(st) < 0)
		return RSHM_E_NOMEM;
	warming_create(st);
	space_init(&st->space, st, worker->store, worker->env->options.inflight_max);
	histogram_init(&st->hit_ns);
	return revalidation_create(&worker->loop, st->hot, &st->space.base, &name, worker->index,
				   watching_source(worker), &worker->max_age_ms, &st->revalidation);
}

static void begin_figures(struct serve_tenant *st)
{
	struct rshm_agent *agent = st->worker->env->agent;

	must(st->tenant->place < agent->tenant_capacity);
	st->figures = rshm_agent_tenants(agent) + st->tenant->place;
	memset((char *)st->figures + sizeof(st->figures->in_use), 0, sizeof(*st->figures) - sizeof(uint64_t));
	memcpy(st->figures->name, st->tenant->id, sizeof(st->tenant->id));
	rshm_store_release(&st->figures->in_use, st->tenant->place + 1);
}

static int by_tenant_id(const void *a, const void *b)
{
	const struct serve_tenant *const *left = a, *const *right = b;

	return strcmp((*left)->tenant->id, (*right)->tenant->id);
}

static void enter(struct worker *worker, struct serve_tenant *st)
{
	pthread_mutex_lock(&worker->lock);
	worker->tenants[worker->tenant_count] = st;
	worker->by_name[worker->tenant_count++] = st;
	qsort(worker->by_name, worker->tenant_count, sizeof(*worker->by_name), by_tenant_id);
	pthread_mutex_unlock(&worker->lock);
}

static void hot_on_abandoned(void *context)
{
	free(context);
}

int tenants_open(struct worker *worker, const struct tenant *tenant, const char *adopt_name)
{
	struct serve_tenant *st;
	int status;

	must(worker->tenant_count < worker->env->agent->tenant_capacity);
	st = calloc(1, sizeof(*st));
	if (!st)
		return RSHM_E_NOMEM;
	st->tenant = tenant;
	st->worker = worker;
	status = open_hot(st, adopt_name);
	if (status == RSHM_OK)
		status = open_books(st);
	if (status < 0) {
		free_books(st);
		spilling_destroy(st);
		if (st->hot)
			hot_close(st->hot, false, hot_on_abandoned, st);
		else
			free(st);
		return status;
	}
	begin_figures(st);
	enter(worker, st);
	if (adopt_name)
		watching_verify(st);
	if (worker->warming_begun)
		warming_begin(st);
	return RSHM_OK;
}

struct serve_tenant *tenants_find(struct worker *worker, const struct tenant *tenant)
{
	for (size_t i = 0; i < worker->tenant_count; i++)
		if (worker->tenants[i]->tenant == tenant)
			return worker->tenants[i];
	return NULL;
}

/* ---- close --------------------------------------------------------------------------------------------------- */

static void leave(struct worker *worker, const struct serve_tenant *st)
{
	size_t kept = 0, named = 0, awake = 0;

	for (size_t i = 0; i < worker->awake_tenants; i++)
		if (worker->awake[i] != st)
			worker->awake[awake++] = worker->awake[i];
	worker->awake_tenants = awake;

	pthread_mutex_lock(&worker->lock);
	for (size_t i = 0; i < worker->tenant_count; i++) {
		if (worker->tenants[i] != st)
			worker->tenants[kept++] = worker->tenants[i];
		if (worker->by_name[i] != st)
			worker->by_name[named++] = worker->by_name[i];
	}
	must(kept + 1 == worker->tenant_count && named == kept);
	worker->tenant_count = kept;
	/* What it did is in the totals from the moment on that it is not in the list. */
	worker->snapshot.ended = worker->totals.ended;
	pthread_mutex_unlock(&worker->lock);
}

static bool is_quiet(const struct serve_tenant *st)
{
	return st->operations == 0 && st->space.pending == 0 && st->client_objects == 0 && !st->sweep &&
	       dictionaries_are_quiet(st) && warming_is_quiet(st) && budget_is_quiet(st) && sealing_is_quiet(st);
}

static void hot_on_closed(void *context)
{
	struct serve_tenant *st = context;
	struct worker *worker = st->worker;
	const struct tenant *tenant = st->tenant;
	uint64_t generation = st->space.generation;
	struct tenant_end end = st->end;

	free_books(st);
	free(st);
	worker->tenants_ending--;
	if (end.deleted)
		erasing_rest_begin(worker, tenant, generation, end.done, end.context);
	else
		end.done(end.context);
}

static void revalidation_on_closed(void *context)
{
	struct serve_tenant *st = context;

	spilling_destroy(st);
	hot_close(st->hot, false, hot_on_closed, st);
}

void tenants_close(struct serve_tenant *st, bool deleted, void (*done)(void *context), void *context)
{
	must(!st->end.done);
	st->end = (struct tenant_end){.done = done, .context = context, .deleted = deleted};
	if (st->worker->closing)
		return; /* all of this is done for every tenant */
	warming_stop(st);
	while (st->clients)
		client_drop(st->clients, NULL);
	budget_stop(st, !deleted);
	/* Whoever still has it mapped finds nothing more in it. */
	hot_clear(st->hot);
	space_stop(&st->space);
}

void tenants_tick(struct worker *worker)
{
	for (size_t i = 0; i < worker->tenant_count;) {
		struct serve_tenant *st = worker->tenants[i];

		if (!st->end.done || !is_quiet(st)) {
			i++;
			continue;
		}
		/* From here on its parts go one by one: nobody may meet it any more. */
		figures_end_tenant(st);
		rshm_store_release(&st->figures->in_use, 0);
		leave(worker, st);
		loading_forget(worker->loading, st);
		worker->tenants_ending++;
		revalidation_close(st->revalidation, revalidation_on_closed, st);
	}
}

bool tenants_are_ending(const struct worker *worker)
{
	return worker->tenants_ending > 0;
}

void tenants_free(struct worker *worker)
{
	for (size_t i = 0; i < worker->tenant_count; i++) {
		struct serve_tenant *st = worker->tenants[i];
		struct tenant_end end = st->end;

		free_books(st);
		free(st);
		/* The worker's end was its end, too. */
		if (end.done)
			end.done(end.context);
	}
	free(worker->tenants);
	free(worker->by_name);
	free(worker->awake);
}
