/*
 * watching.c - what others change in the store, and what that means for this worker's copies.
 *
 * The store's watcher tells of foreign changes, and how far its telling can be trusted (store.h). Here that becomes:
 *
 *   a change of a key     its hot copy goes, and an operation under way on it does not publish what it brings
 *   ... that may be ours  the store's version is read; only a copy of another version goes. Until that has come, readers'
 *                         trust is not extended (a check of lease.h)
 *   a change of a tag     its epoch is forgotten and its word bumped; a namespace's: its generation is asked for again
 *   a proof               readers may trust for a lease more
 *   a fence               all copies are unverified; when the feed is armed, each is compared with the store
 *
 * Where nothing is told, copies live by max_age_ms and the lease says only that the agent lives.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/cache/loading.h"
#include "agent/cache/tags.h"
#include "agent/serve/serve_priv.h"
#include "agent/store/envelope.h"

#define CHECKS_MAX 4096u /* under way in a worker; further changes that may be ours count as foreign */

static struct log_limit fence_limit = LOG_LIMIT(6, 10000);

/* A question for the version of a key that may have been changed by others. */
struct check {
	struct store_request request;
	struct serve_tenant *tenant;
	uint32_t held; /* of the lease */
	char space;
	size_t key_len;
	unsigned char key[];
};

struct rshm_source *watching_source(const struct worker *worker)
{
	return &worker->env->agent->sources[worker->index];
}

/* ---- copies that go ----------------------------------------------------------------------------------------- */

static void forget_entry(struct serve_tenant *tenant, const void *key, size_t key_len)
{
	struct worker *worker = tenant->worker;

	inflight_mark(worker->inflight, tenant, key, key_len);
	hot_remove(tenant->hot, key, key_len);
	spilling_remove(tenant, key, key_len);
	loading_written(worker->loading, tenant, key, key_len, clock_monotonic_ms());
}

static void forget_tag(struct serve_tenant *tenant, const struct tag *tag)
{
	tag_epochs_forget(tenant->tag_epochs, tag);
	hot_bump_tag(tenant->hot, tags_slot(tag));
}

static void forget(struct serve_tenant *tenant, char space, const void *key, size_t key_len)
{
	struct tag tag = {.bytes = key, .length = key_len};

	if (space == 'c')
		forget_entry(tenant, key, key_len);
	else if (space == 't')
		forget_tag(tenant, &tag);
}

static void forget_all(struct worker *worker)
{
	inflight_mark_all(worker->inflight);
	for (size_t i = 0; i < worker->tenant_count; i++) {
		struct serve_tenant *tenant = worker->tenants[i];

		hot_clear(tenant->hot);
		spilling_remove_generations(tenant, UINT64_MAX);
		tag_epochs_forget_all(tenant->tag_epochs);
		loading_forget(worker->loading, tenant);
		space_doubt(&tenant->space);
	}
}

/* ---- what may be ours ---------------------------------------------------------------------------------------- */

/*
 * What the store has now. The copy may stay if it is of a write of our own; two hosts can come to the same version, so the
 * writer must be us as well.
 */
static void take_entry_version(struct serve_tenant *tenant, const struct check *check,
			       const struct envelope_head *head)
{
	bool ours = head->version != 0 && head->writer_id == tenant->worker->env->writer_id;
	struct rshm_item item;

	if (!ours) {
		forget_entry(tenant, check->key, check->key_len);
		return;
	}
	inflight_note_version(tenant->worker->inflight, tenant, check->key, check->key_len, head->version,
			      head->expiry_ms);
	/* A touch leaves the version as it is. */
	if (!hot_find(tenant->hot, check->key, check->key_len, &item) ||
	    (item.version == head->version && !revalidation_outlives(&item, head)))
		return;
	hot_remove(tenant->hot, check->key, check->key_len);
	loading_written(tenant->worker->loading, tenant, check->key, check->key_len, clock_monotonic_ms());
}

static void take_tag_epoch(struct serve_tenant *tenant, const struct check *check, uint64_t epoch)
{
	struct tag tag = {.bytes = check->key, .length = check->key_len};
	struct tag_epoch known;

	if (!tag_epochs_get(tenant->tag_epochs, &tag, clock_monotonic_ms(), 0, &known) || known.epoch != epoch)
		forget_tag(tenant, &tag);
}

static void check_on_done(struct store_request *request)
{
	struct check *check = request->context;
	struct serve_tenant *tenant = check->tenant;
	struct worker *worker = tenant->worker;
	struct envelope_head head = {0};
	int status = request->status;

	if (status == RSHM_OK)
		status = envelope_peek_head(request->result, request->result_len, &head);
	if (head.flags & ENVELOPE_FLAG_TOMBSTONE)
		head.version = 0;
	/* No answer, or none that we can read: whatever it is, it is not our copy. */
	if (status < 0)
		forget(tenant, check->space, check->key, check->key_len);
	else if (check->space == 'c')
		take_entry_version(tenant, check, &head);
	else
		take_tag_epoch(tenant, check, head.version);
	lease_end_check(&worker->lease, check->held);
	free(check);
}

static bool begin_check(struct serve_tenant *tenant, const struct store_change *change)
{
	struct worker *worker = tenant->worker;
	struct check *check = NULL;

	if (lease_checks(&worker->lease) < CHECKS_MAX)
		check = calloc(1, sizeof(*check) + change->key_len);
	if (!check)
		return false;
	check->tenant = tenant;
	check->space = change->space;
	check->key_len = change->key_len;
	memcpy(check->key, change->key, change->key_len);
	check->held = lease_begin_check(&worker->lease);
	check->request = (struct store_request){
		.op = STORE_HEAD,
		.name = entry_store_name(tenant->tenant),
		.head_bytes = ENVELOPE_HEAD_BYTES,
		.deadline_ms = clock_monotonic_ms() + worker->lease.lease_ms / 2,
		.done = check_on_done,
		.context = check,
	};
	check->request.name.generation = change->generation;
	check->request.name.space = change->space;
	check->request.name.key = check->key;
	check->request.name.key_len = check->key_len;
	worker->checks++;
	store_submit(&tenant->space.base, &check->request);
	return true;
}

/* ---- the watcher --------------------------------------------------------------------------------------------- */

static int compare_names(const char *a, size_t a_len, const char *b)
{
	int order = strncmp(a, b, a_len);

	return order != 0 ? order : -(b[a_len] != '\0');
}

static struct serve_tenant *find_tenant(const struct worker *worker, const char *id, size_t id_len)
{
	size_t low = 0, high = worker->tenant_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		struct serve_tenant *tenant = worker->by_name[middle];
		int order = compare_names(id, id_len, tenant->tenant->id);

		if (order == 0)
			return tenant;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

static void change_entry(struct serve_tenant *tenant, const struct store_change *change)
{
	/* Another generation is either swept or not yet ours. */
	if (change->generation != tenant->space.generation || (change->space != 'c' && change->space != 't'))
		return;
	/* Copies of long keys live by max_age_ms (entry_hot_deadline()); tags are never so long, or nobody knows which. */
	if (!change->key) {
		if (change->space == 't') {
			tag_epochs_forget_all(tenant->tag_epochs);
			hot_clear(tenant->hot);
		}
		return;
	}
	if (!change->maybe_ours || !begin_check(tenant, change))
		forget(tenant, change->space, change->key, change->key_len);
}

static void watch_on_changed(void *context, const struct store_change *change)
{
	struct worker *worker = context;
	struct serve_tenant *tenant;

	if (worker->closing)
		return;
	worker->changes++;
	if (change->kind == STORE_CHANGED_EVERYTHING) {
		forget_all(worker);
		return;
	}
	tenant = find_tenant(worker, change->tenant, change->tenant_len);
	if (!tenant)
		return;
	if (change->kind == STORE_CHANGED_NAMESPACE)
		space_doubt(&tenant->space);
	else
		change_entry(tenant, change);
}

static void watch_on_proven(void *context, uint64_t complete_ms)
{
	struct worker *worker = context;

	if (worker->coherence == STORE_TRACKING && !worker->closing)
		lease_prove(&worker->lease, complete_ms);
}

/* Each tenant's copies are compared with the store as soon as it is known which generation they must be of. */
static void verify_all(struct worker *worker)
{
	for (size_t i = 0; i < worker->tenant_count; i++) {
		worker->tenants[i]->verify_due = true;
		space_doubt(&worker->tenants[i]->space);
	}
}

void watching_verify(struct serve_tenant *tenant)
{
	struct worker *worker = tenant->worker;

	/* Before the first mode is known: take_mode() and the first fence do it for all. */
	if (!worker->coherence_known)
		return;
	tenant->verify_due = true;
	worker->clean = false;
	space_doubt(&tenant->space);
}

static void fence(struct worker *worker)
{
	lease_fence(&worker->lease, clock_monotonic_ms());
	for (size_t i = 0; i < worker->tenant_count; i++)
		tag_epochs_forget_all(worker->tenants[i]->tag_epochs);
	worker->clean = false;
	worker->fences++;
}

/* Once, when copies last: those of a few seconds are not worth it. */
static void begin_warming(struct worker *worker)
{
	if (worker->warming_begun)
		return;
	worker->warming_begun = true;
	for (size_t i = 0; i < worker->tenant_count; i++)
		warming_begin(worker->tenants[i]);
}

static void watch_on_fenced(void *context, bool armed, const char *why)
{
	struct worker *worker = context;

	if (worker->closing)
		return;
	fence(worker);
	log_limited(&fence_limit, LOG_LEVEL_INFO, "coherence", "worker %u: %s: %s", worker->index,
		    armed ? "hot copies are being verified" : "hot copies are unverified", why);
	if (!armed)
		return;
	verify_all(worker);
	begin_warming(worker);
}

static const char *name_of(enum store_coherence mode)
{
	static const char *const names[] = {[STORE_SOLE] = "sole",
					    [STORE_TTL] = "ttl",
					    [STORE_CHANNEL] = "channel",
					    [STORE_TRACKING] = "tracking"};

	return names[mode];
}

static void take_mode(struct worker *worker, enum store_coherence mode)
{
	uint64_t capped_ms = worker->env->options.hot_max_age_ms;

	worker->coherence = mode;
	worker->coherence_known = true;
	worker->max_age_ms = mode == STORE_SOLE || mode == STORE_TRACKING ? 0 : capped_ms;
	if (mode != STORE_SOLE)
		log_info("coherence", "worker %u: mode %s", worker->index, name_of(mode));
	/* What was published in trust of being told is unverified now, and gets an age when it is confirmed. */
	fence(worker);
	if (mode != STORE_TRACKING)
		verify_all(worker);
	if (mode == STORE_SOLE)
		begin_warming(worker);
}

static void watch_on_mode(void *context, enum store_coherence mode)
{
	struct worker *worker = context;

	if (!worker->closing && (mode != worker->coherence || !worker->coherence_known))
		take_mode(worker, mode);
}

/* ---- the worker's side ---------------------------------------------------------------------------------------- */

int watching_begin(struct worker *worker)
{
	const struct store_watcher watcher = {
		.mode = watch_on_mode,
		.fenced = watch_on_fenced,
		.proven = watch_on_proven,
		.changed = watch_on_changed,
		.context = worker,
	};

	lease_init(&worker->lease, watching_source(worker), worker->env->options.lease_ms);
	/* Where there was none before, the first lease ends now: that is since when copies may be stale. */
	if (watching_source(worker)->lease_until_ms == 0)
		rshm_source_extend(watching_source(worker), clock_monotonic_ms());
	worker->coherence = STORE_TTL;
	worker->max_age_ms = worker->env->options.hot_max_age_ms;
	if (!store_watch(worker->store, &watcher))
		take_mode(worker, STORE_SOLE);
	return RSHM_OK;
}

void watching_tick(struct worker *worker, uint64_t now_ms)
{
	bool clean = true;

	/* Nobody proves anything here: the lease only says that we live. */
	if (worker->coherence_known && worker->coherence != STORE_TRACKING)
		lease_prove(&worker->lease, now_ms);
	if (worker->clean)
		return;
	for (size_t i = 0; i < worker->tenant_count; i++)
		clean &= !worker->tenants[i]->verify_due && revalidation_is_clean(worker->tenants[i]->revalidation);
	if (!clean || !worker->coherence_known)
		return;
	/* A later fence begins a stale limit of its own. */
	worker->clean = true;
	rshm_source_mark_clean(watching_source(worker));
}

struct coherence_report watching_report(const struct worker *worker)
{
	uint64_t now_ms = clock_monotonic_ms();
	uint64_t until_ms = worker->lease.proven_ms ? worker->lease.proven_ms + worker->lease.lease_ms : 0;

	return (struct coherence_report){
		.mode = worker->coherence,
		.known = worker->coherence_known,
		.epoch = rshm_source_epoch(watching_source(worker)),
		.lease_remaining_ms = until_ms > now_ms ? until_ms - now_ms : 0,
		.max_age_ms = worker->max_age_ms,
		.changes = worker->changes,
		.checks = worker->checks,
		.checks_pending = lease_checks(&worker->lease),
		.fences = worker->fences,
	};
}

void watching_slept(struct worker *worker)
{
	fence(worker);
	verify_all(worker);
}
