/*
 * tenants.c - the life of a tenant of the backend on this host.
 *
 *	NONE ──record permits, somebody asks──▶ PREPARING ──▶ OPENING ──▶ OPEN
 *	  ▲     (users looked up on a pool      (worker)                    │ suspended, deleted, changed, unused
 *	  │      thread: that may ask a network)                            ▼
 *	  └──────── DRAINING ◀───────────── closed by the worker ◀────── CLOSING
 *	       (places of clients are still held)
 *
 * evaluate() decides what is next, after every event. Nothing is decided from a record that may have changed: `stale` is set by
 * the store's word of a change, by a fence, and by time where changes are not told; then the record is read first. A tenant
 * that is open stays so while the backend is away, but lets nobody new in.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/keys.h"
#include "agent/tenants_priv.h"
#include "shm/order.h"

#define REQUEST_MS 4000u /* below the control plane's patience */
#define PENDING_MAX 4096u
#define ORPHAN_MS 60000u
#define UNTOLD_TRUST_MS 1000u /* a record is good for so long where changes are not told */

bool live_is_permitted(const struct live_tenant *live)
{
	return live->record && live->record->status == TENANT_ACTIVE;
}

/* ---- the list --------------------------------------------------------------------------------------------------- */

static struct live_tenant *find(const struct agent *a, const char *id)
{
	for (struct live_tenant *live = a->live->first; live; live = live->next)
		if (strcmp(live->id, id) == 0)
			return live;
	return NULL;
}

struct live_tenant *live_find_or_make(struct agent *a, const char *id)
{
	struct live_tenant *live = find(a, id);

	if (live)
		return live;
	live = calloc(1, sizeof(*live));
	if (!live)
		return NULL;
	live->agent = a;
	live->stale = true;
	snprintf(live->id, sizeof(live->id), "%s", id);
	live->next = a->live->first;
	a->live->first = live;
	return live;
}

static void free_live(struct live_tenant *live)
{
	tenant_record_destroy(&live->record);
	live_forget_built(live);
	free(live);
}

/* Nothing of it is needed any more. */
static void forget(struct live_tenant *live)
{
	struct live_tenant **link = &live->agent->live->first;

	while (*link != live)
		link = &(*link)->next;
	*link = live->next;
	free_live(live);
}

bool live_tenants_have(const struct agent *a, const struct tenant *tenant)
{
	for (const struct live_tenant *live = a->live->first; live; live = live->next)
		if (live->tenant == tenant)
			return true;
	return false;
}

uint32_t live_tenant_worker(const struct agent *a, const char *id)
{
	return keys_shard(id, strlen(id), a->worker_count);
}

static void add_waiter(struct waiter **list, void (*done)(void *context), void *context)
{
	struct waiter *waiter = malloc(sizeof(*waiter));

	/* Without memory nothing is waited for. */
	if (!waiter) {
		done(context);
		return;
	}
	*waiter = (struct waiter){.next = *list, .done = done, .context = context};
	*list = waiter;
}

void live_release_waiters(struct waiter **list)
{
	struct waiter *waiter = *list;

	*list = NULL;
	while (waiter) {
		struct waiter *next = waiter->next;

		waiter->done(waiter->context);
		free(waiter);
		waiter = next;
	}
}

/* ---- the registry ----------------------------------------------------------------------------------------------- */

void live_doubt(struct live_tenant *live)
{
	live->stale = true;
	live->changed_while_reading = live->reading;
	live->retry_at_ms = 0;
}

static void doubt_all(struct live_tenants *lt)
{
	for (struct live_tenant *live = lt->first; live; live = live->next)
		live_doubt(live);
}

static void watch_on_mode(void *context, enum store_coherence mode)
{
	struct live_tenants *lt = context;

	lt->mode = mode;
	doubt_all(lt);
}

static void watch_on_fenced(void *context, bool armed, const char *why)
{
	struct live_tenants *lt = context;

	(void)why;
	lt->armed = armed;
	doubt_all(lt);
}

static void watch_on_proven(void *context, uint64_t complete_ms)
{
	struct live_tenants *lt = context;

	lt->proven_ms = complete_ms;
}

static bool is_about(const struct store_change *change, const struct live_tenant *live)
{
	return change->kind != STORE_CHANGED_ENTRY || !change->key ||
	       (change->key_len == strlen(live->id) && memcmp(change->key, live->id, change->key_len) == 0);
}

static void watch_on_changed(void *context, const struct store_change *change)
{
	struct live_tenants *lt = context;
	struct live_tenant *next;

	for (struct live_tenant *live = lt->first; live; live = next) {
		next = live->next;
		if (!is_about(change, live))
			continue;
		live_doubt(live);
		/* At once: its readers may be reading what they no longer may. */
		live_evaluate(live);
	}
}

static int open_registry(struct live_tenants *lt, char *error, size_t error_len)
{
	struct agent *a = lt->agent;
	const struct store_watcher watcher = {
		.mode = watch_on_mode,
		.fenced = watch_on_fenced,
		.proven = watch_on_proven,
		.changed = watch_on_changed,
		.context = lt,
	};
	struct registry_options options = {
		.tenants_max = a->config->tenancy.max_tenants,
		.writer_id = a->serve.writer_id,
		.request_ms = REQUEST_MS,
		.pending_max = PENDING_MAX,
		.orphan_ms = ORPHAN_MS,
	};
	int status = stores_number_tenant(a, TENANT_RESERVED_ID, &options.tenant_number, &options.shards);

	if (status == RSHM_OK)
		status = stores_create_registry(a, &lt->store, error, error_len);
	if (status < 0)
		return status;
	options.shards = 1;
	lt->mode = STORE_TTL;
	if (!store_watch(lt->store, &watcher))
		lt->mode = STORE_SOLE;
	lt->tidy_at_ms = clock_monotonic_ms();
	return registry_open(lt->store, &a->hlc, &options, &lt->registry);
}

struct registry *live_tenants_registry(struct agent *a, char *error, size_t error_len)
{
	if (error_len > 0)
		error[0] = '\0';
	if (!a->live->registry && (a->live->closing || open_registry(a->live, error, error_len) < 0)) {
		if (error_len > 0 && error[0] == '\0')
			snprintf(error, error_len, "the registry of tenants cannot be opened now");
		return NULL;
	}
	return a->live->registry;
}

/* Would we have been told of a change? */
static bool changes_are_told(const struct live_tenants *lt)
{
	uint64_t now_ms = clock_monotonic_ms();

	return lt->mode == STORE_SOLE || (lt->mode == STORE_TRACKING && lt->armed &&
					  now_ms < lt->proven_ms + lt->agent->config->coherence.lease_ms);
}

bool live_is_fresh(const struct live_tenant *live)
{
	return live->known && !live->stale &&
	       (changes_are_told(live->agent->live) || clock_monotonic_ms() - live->read_ms < UNTOLD_TRUST_MS);
}

/* ---- reading the record ------------------------------------------------------------------------------------------ */

static void close_live(struct live_tenant *live);

static void read_on_failed(struct live_tenant *live, int status, const char *text)
{
	char why[320];

	snprintf(why, sizeof(why), "whether there is a tenant %s cannot be told now (%s); try again later", live->id,
		 text ? text : "the backend does not answer");
	live_refuse_all(live, status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT ? status : RSHM_E_AGAIN, why);
	live->retry_at_ms = clock_monotonic_ms() + TENANT_RETRY_MS;
	/* We changed it ourselves and cannot see what it says now: nobody is served until we can. */
	if (live->refreshes && live->state == LIVE_OPEN)
		close_live(live);
	else
		live_release_waiters(&live->refreshes);
}

static void record_on_read(void *context, int status, struct tenant_record *record, const char *text)
{
	struct live_tenant *live = context;

	live->reading = false;
	if (live->agent->live->closing) {
		tenant_record_destroy(&record);
		live_refuse_all(live, RSHM_E_CLOSED, "the agent is stopping");
		live_release_waiters(&live->refreshes);
		return;
	}
	if (status != RSHM_OK && status != RSHM_MISS) {
		read_on_failed(live, status, text);
	} else {
		live->fits &= live->record && record && live->record->version == record->version;
		tenant_record_destroy(&live->record);
		live->record = record;
		live->known = true;
		live->stale = live->changed_while_reading;
		live->read_ms = clock_monotonic_ms();
	}
	live_evaluate(live);
}

static void read_record(struct live_tenant *live)
{
	char error[256];
	struct registry *registry;

	if (live->reading || clock_monotonic_ms() < live->retry_at_ms)
		return;
	registry = live_tenants_registry(live->agent, error, sizeof(error));
	live->changed_while_reading = false;
	if (registry) {
		live->reading = true;
		registry_get(registry, live->id, record_on_read, live);
	} else {
		read_on_failed(live, RSHM_E_AGAIN, error);
	}
}

/* ---- closing ---------------------------------------------------------------------------------------------------- */

void live_post(struct live_tenant *live, void (*handle)(struct mailbox_message *message), int status)
{
	struct live_message *opened = malloc(sizeof(*opened));
	bool posted;

	must(opened); /* an order whose end nobody hears of would hold its tenant for ever */
	*opened = (struct live_message){.message = {.handle = handle}, .live = live, .status = status};
	/* Bounded by the number of tenants, which is below the mailbox's limit while orders are answered one by one. */
	posted = mailbox_post(&live->agent->mailbox, &opened->message);
	if (!posted)
		free(opened);
	must(posted);
}

void live_drop(struct live_tenant *live)
{
	tenant_table_remove(live->agent->tenants, live->tenant);
	tenant_destroy(&live->tenant);
	live_forget_built(live);
	live->state = LIVE_NONE;
	live_release_waiters(&live->closes);
}

static void emptied_on_arrival(struct mailbox_message *message)
{
	struct live_message *emptied = (struct live_message *)message;

	live_release_waiters(&emptied->live->refreshes);
	free(emptied);
}

static void closed_on_arrival(struct mailbox_message *message)
{
	struct live_message *closed = (struct live_message *)message;
	struct live_tenant *live = closed->live;

	free(closed);
	live->state = LIVE_DRAINING;
	live_evaluate(live);
}

static void emptied_on_worker(void *context)
{
	live_post(context, emptied_on_arrival, RSHM_OK);
}

static void closed_on_worker(void *context)
{
	live_post(context, closed_on_arrival, RSHM_OK);
}

static void close_live(struct live_tenant *live)
{
	bool deleted = live->known && (!live->record || live->record->status == TENANT_DELETING);

	live->state = LIVE_CLOSING;
	live->order_due = !worker_close_tenant(live->agent->workers[live->tenant->worker], live->tenant, deleted,
					       emptied_on_worker, closed_on_worker, live);
}

void live_tenant_use(struct live_tenant *live)
{
	live->uses++;
}

void live_tenant_unuse(struct agent *a, struct live_tenant *live)
{
	must(live->uses > 0);
	live->uses--;
	live->idle_since_ms = clock_monotonic_ms();
	if (live->state == LIVE_DRAINING && !a->live->closing)
		live_evaluate(live);
}

/* ---- what is next --------------------------------------------------------------------------------------------------- */

/* Nobody may have the segment that was offered for it. */
static void discard_segment(struct live_tenant *live)
{
	struct rshm_map map;

	if (live->segment[0] == '\0')
		return;
	if (rshm_map_adopt(live->segment, &map) == RSHM_OK) {
		struct rshm_segment *segment = map.base;

		rshm_store_release(&segment->tail, segment->head);
		rshm_store_release32(&segment->state, RSHM_RETIRED);
		rshm_unmap(&map);
	}
	object_list_remove(live->agent->objects, live->segment);
	live->segment[0] = '\0';
}

static void evaluate_none(struct live_tenant *live)
{
	bool wanted = live->attaches || live->segment[0];

	live_release_waiters(&live->closes);
	if (live->stale && (wanted || live->refreshes)) {
		read_record(live);
		return;
	}
	live_release_waiters(&live->refreshes);
	if (live->known && !live_is_permitted(live))
		discard_segment(live);
	/* Who may be told of one that is forbidden is known when its users are. */
	if (live->known && live->record && live->record->status != TENANT_DELETING &&
	    (live->attaches || live->segment[0])) {
		if (clock_monotonic_ms() >= live->retry_at_ms)
			live_prepare(live);
		return;
	}
	if (live->known)
		live_refuse_unknown(live);
	if (!live->attaches && !live->reading && live->segment[0] == '\0' && live->uses == 0)
		forget(live);
}

static void evaluate_open(struct live_tenant *live)
{
	if (live->stale) {
		read_record(live);
		return;
	}
	if (!live_is_permitted(live) || (!live->fits && !live_fits(live))) {
		close_live(live);
		return;
	}
	live->fits = true;
	live_release_waiters(&live->refreshes);
	live_admit_all(live);
}

void live_evaluate(struct live_tenant *live)
{
	struct agent *a = live->agent;

	if (a->live->closing || a->stopping)
		return;
	if (live->state == LIVE_DRAINING && live->uses == 0)
		live_drop(live);
	if (live->state == LIVE_NONE)
		evaluate_none(live);
	else if (live->state == LIVE_OPEN)
		evaluate_open(live);
}

void live_tenants_refresh(struct agent *a, const char *id, void (*done)(void *context), void *context)
{
	struct live_tenant *live = find(a, id);

	if (!live) {
		done(context);
		return;
	}
	live_doubt(live);
	add_waiter(&live->refreshes, done, context);
	live_evaluate(live);
}

void live_tenants_await_closed(struct agent *a, const char *id, void (*then)(void *context), void *context)
{
	struct live_tenant *live = find(a, id);

	if (!live || live->state == LIVE_NONE)
		then(context);
	else
		add_waiter(&live->closes, then, context);
}

/* ---- beat, start, end ------------------------------------------------------------------------------------------------ */

static void beat(struct live_tenant *live, uint64_t now_ms)
{
	uint64_t idle_ms = live->agent->config->tenancy.idle_seconds * 1000;

	if (live->state == LIVE_CLOSING && live->order_due) {
		close_live(live);
		return;
	}
	if (live->state == LIVE_OPEN && live->uses == 0 && !live->attaches &&
	    now_ms - live->idle_since_ms > idle_ms) {
		close_live(live);
		return;
	}
	if (!live_is_fresh(live))
		live_doubt(live);
	live_evaluate(live);
}

static void tidy_on_done(void *context, int status, size_t count)
{
	struct live_tenants *lt = context;

	lt->tidying = false;
	if (status == RSHM_OK && count > 0)
		log_info("agent", "%zu ids of tenants that were never made are free again", count);
}

void live_tenants_beat(struct agent *a)
{
	struct live_tenants *lt = a->live;
	uint64_t now_ms = clock_monotonic_ms();
	struct live_tenant *next;

	for (struct live_tenant *live = lt->first; live; live = next) {
		next = live->next;
		beat(live, now_ms);
	}
	/* An hour between looks at what crashes left. */
	if (lt->registry && !lt->tidying && now_ms >= lt->tidy_at_ms) {
		lt->tidying = true;
		lt->tidy_at_ms = now_ms + 3600000;
		registry_tidy(lt->registry, tidy_on_done, lt);
	}
}

bool live_tenants_offer(struct agent *a, const char *id, const char *segment)
{
	struct live_tenant *live = tenant_id_is_valid(id) ? live_find_or_make(a, id) : NULL;

	if (!live || live->segment[0])
		return false;
	snprintf(live->segment, sizeof(live->segment), "%s", segment);
	return true;
}

int live_tenants_create(struct agent *a)
{
	a->live = calloc(1, sizeof(*a->live));
	if (!a->live)
		return RSHM_E_NOMEM;
	a->live->agent = a;
	return RSHM_OK;
}

void live_tenants_begin(struct agent *a)
{
	live_tenants_beat(a);
}

void live_tenants_close(struct agent *a, void (*closed)(void *context), void *context)
{
	struct live_tenants *lt = a->live;

	if (lt)
		lt->closing = true;
	if (lt && lt->store)
		store_close(lt->store, closed, context);
	else
		closed(context);
}

void live_tenants_destroy(struct agent *a)
{
	struct live_tenants *lt = a->live;

	a->live = NULL;
	if (!lt)
		return;
	if (lt->registry)
		registry_close(&lt->registry);
	while (lt->first) {
		struct live_tenant *live = lt->first;

		lt->first = live->next;
		live_refuse_all(live, RSHM_E_CLOSED, "the agent is stopping");
		live_release_waiters(&live->refreshes);
		live_release_waiters(&live->closes);
		free_live(live);
	}
	free(lt);
}
