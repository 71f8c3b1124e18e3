/*
 * revalidate.c - a pass over the hot tier with a window of head reads.
 *
 * A probe remembers key and version of the entry it asks about and the epoch it was asked in. Its answer counts only for
 * that version and that epoch: an entry replaced meanwhile is another version, a source fenced meanwhile another epoch, and
 * both leave the entry to the next pass. Entries that could not be asked about (the store is away) stay unverified; the
 * pass begins again after a pause until none is left.
 */
#include "agent/coherence/revalidate.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"

#define STEPS_PER_TURN 512u
#define RETRY_MS 1000u
#define GRAIN_MS 20u /* between the clocks that deadlines are told by */
#define PROBE_DEADLINE_MS 5000u

struct probe {
	struct store_request request;
	struct revalidation *owner;
	uint64_t version, epoch, control_b;
	uint32_t flags;
	size_t key_len;
	unsigned char key[];
};

struct revalidation {
	struct hot *hot;
	struct store *store;
	struct store_name name;
	uint32_t source_number;
	const struct rshm_source *source;
	const uint64_t *max_age_ms;
	uv_idle_t walker;
	uv_timer_t retry;
	uint64_t cursor, growths;
	uint32_t under_way, open_handles;
	bool walking, missed, clean, closing;
	uint64_t checked_before; /* the pass */
	struct revalidation_figures figures;
	void (*closed)(void *context);
	void *closed_context;
};

static uint64_t present_epoch(const struct revalidation *r)
{
	return rshm_source_epoch(r->source);
}

static void close_on_handle(uv_handle_t *handle)
{
	struct revalidation *r = handle->data;

	if (--r->open_handles > 0)
		return;
	r->closed(r->closed_context);
	free(r);
}

static void close_if_done(struct revalidation *r)
{
	if (!r->closing || r->under_way > 0)
		return;
	uv_close((uv_handle_t *)&r->walker, close_on_handle);
	uv_close((uv_handle_t *)&r->retry, close_on_handle);
}

static void retry_on_timer(uv_timer_t *timer)
{
	revalidation_start(timer->data);
}

static void finish_pass(struct revalidation *r)
{
	r->figures.running = false;
	if (r->missed) {
		uv_timer_start(&r->retry, retry_on_timer, RETRY_MS, 0);
		return;
	}
	r->clean = true;
	if (r->figures.checked == r->checked_before)
		return;
	log_info("coherence", "tenant %s: revalidated: %llu confirmed, %llu removed", r->name.tenant,
		 (unsigned long long)r->figures.confirmed, (unsigned long long)r->figures.removed);
}

bool revalidation_outlives(const struct rshm_item *item, const struct envelope_head *head)
{
	uint64_t now_ms = clock_realtime_ms(), left_ms = head->expiry_ms > now_ms ? head->expiry_ms - now_ms : 0;

	return head->expiry_ms != 0 && item->control_b > clock_monotonic_ms() + left_ms + GRAIN_MS;
}

static void settle(struct revalidation *r, const struct probe *probe, int status, const struct envelope_head *head)
{
	uint64_t control_a = rshm_control_a(probe->flags, r->source_number, probe->epoch);
	struct rshm_item item;

	r->figures.checked++;
	if (!hot_find(r->hot, probe->key, probe->key_len, &item) || item.version != probe->version)
		return;
	if (status == RSHM_OK && head->version == probe->version && !revalidation_outlives(&item, head)) {
		if (probe->epoch != present_epoch(r))
			r->missed = true;
		else if (hot_patch(r->hot, probe->key, probe->key_len, probe->version, control_a, probe->control_b))
			r->figures.confirmed++;
		return;
	}
	hot_remove(r->hot, probe->key, probe->key_len);
	r->figures.removed++;
}

static void probe_on_done(struct store_request *request)
{
	struct probe *probe = request->context;
	struct revalidation *r = probe->owner;
	struct envelope_head head = {0};
	int status = request->status;

	if (status == RSHM_OK)
		status = envelope_peek_head(request->result, request->result_len, &head);
	if (status == RSHM_OK || status == RSHM_MISS || status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT) {
		settle(r, probe, status, &head);
	} else {
		r->missed = true;
		r->figures.failed++;
	}
	r->under_way--;
	free(probe);
	if (r->closing)
		close_if_done(r);
	else if (!r->walking && r->under_way == 0 && r->figures.running)
		finish_pass(r);
}

/* What is confirmed now is as old as now. */
static uint64_t deadline_of(const struct revalidation *r, const struct rshm_item *item)
{
	uint64_t capped_ms = clock_monotonic_ms() + *r->max_age_ms;

	return *r->max_age_ms && capped_ms < item->control_b ? capped_ms : item->control_b;
}

static void ask(struct revalidation *r, const struct rshm_item *item)
{
	struct probe *probe = calloc(1, sizeof(*probe) + item->key_len);

	if (!probe) {
		r->missed = true;
		return;
	}
	probe->owner = r;
	probe->version = item->version;
	probe->epoch = present_epoch(r);
	probe->control_b = deadline_of(r, item);
	probe->flags = rshm_control_flags(item->control_a);
	probe->key_len = item->key_len;
	memcpy(probe->key, item->key, item->key_len);
	probe->request = (struct store_request){
		.op = STORE_HEAD,
		.name = r->name,
		.head_bytes = ENVELOPE_HEAD_BYTES,
		.deadline_ms = clock_monotonic_ms() + PROBE_DEADLINE_MS,
		.done = probe_on_done,
		.context = probe,
	};
	probe->request.name.key = probe->key;
	probe->request.name.key_len = probe->key_len;
	r->under_way++;
	store_submit(r->store, &probe->request);
}

static bool is_unverified(const struct revalidation *r, const struct rshm_item *item)
{
	return rshm_control_epoch(item->control_a) != (uint32_t)present_epoch(r) ||
	       rshm_control_source(item->control_a) != r->source_number;
}

/* Its version does not tell what became of its tags meanwhile: the next read asks. */
static void forget_tagged(struct revalidation *r, const struct rshm_item *item)
{
	hot_remove(r->hot, item->key, item->key_len);
	r->figures.checked++;
	r->figures.removed++;
}

static void walker_on_turn(uv_idle_t *idle)
{
	struct revalidation *r = idle->data;
	uint32_t steps = STEPS_PER_TURN;
	struct hot_figures figures;
	struct rshm_item item;

	hot_figures(r->hot, &figures);
	if (figures.growths != r->growths) {
		/* Another ring, other positions. */
		r->growths = figures.growths;
		r->cursor = 0;
	}
	while (r->under_way < REVALIDATION_WINDOW) {
		if (!hot_walk(r->hot, &r->cursor, &steps, &item)) {
			if (steps == 0)
				return;
			r->walking = false;
			uv_idle_stop(&r->walker);
			if (r->under_way == 0)
				finish_pass(r);
			return;
		}
		if (!is_unverified(r, &item))
			continue;
		if (rshm_control_flags(item.control_a) & RSHM_FLAG_TAGGED)
			forget_tagged(r, &item);
		else
			ask(r, &item);
	}
}

int revalidation_create(uv_loop_t *loop, struct hot *hot, struct store *store, const struct store_name *name,
			uint32_t source_number, const struct rshm_source *source, const uint64_t *max_age_ms,
			struct revalidation **ret)
{
	struct revalidation *r = calloc(1, sizeof(*r));

	if (!r)
		return RSHM_E_NOMEM;
	r->hot = hot;
	r->store = store;
	r->name = *name;
	r->source_number = source_number;
	r->source = source;
	r->max_age_ms = max_age_ms;
	r->clean = true;
	uv_idle_init(loop, &r->walker);
	uv_timer_init(loop, &r->retry);
	r->walker.data = r;
	r->retry.data = r;
	r->open_handles = 2;
	*ret = r;
	return RSHM_OK;
}

void revalidation_start(struct revalidation *r)
{
	if (r->closing)
		return;
	r->cursor = 0;
	r->missed = false;
	r->clean = false;
	r->walking = true;
	r->checked_before = r->figures.checked;
	r->figures.running = true;
	uv_timer_stop(&r->retry);
	uv_idle_start(&r->walker, walker_on_turn);
}

bool revalidation_is_clean(const struct revalidation *r)
{
	return r->clean;
}

void revalidation_figures(const struct revalidation *r, struct revalidation_figures *ret)
{
	*ret = r->figures;
}

void revalidation_close(struct revalidation *r, void (*closed)(void *context), void *context)
{
	r->closing = true;
	r->closed = closed;
	r->closed_context = context;
	uv_idle_stop(&r->walker);
	uv_timer_stop(&r->retry);
	close_if_done(r);
}
