/*
 * warming.c - loading entries before they are asked for.
 *
 *	the hot set that the last run noted  ─┐
 *	a client's list, in pieces            ├─▶ pace (pace.h) ─▶ an ordinary get that counts neither as hit nor as miss
 *	a client's prefix, a page at a time  ─┘
 *
 * The hot set is loaded at start where shared memory could not be adopted. It is noted at an orderly stop, and every
 * warming.save_interval_seconds besides, for an agent that does not end in order: the keys are collected on the loop, some
 * thousand in a turn, and written on a pool thread.
 *
 * Where hot copies live by max_age only (nothing tells of foreign writes), loading what nobody asks for would be in vain.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/cache/hotset.h"
#include "agent/serve/serve_priv.h"

#define KEY_DEADLINE_MS 5000u
#define PAGE_KEYS 256u
#define PAGE_MARGIN_MS 150u /* so long before its deadline nothing more of a page is begun */
#define NOTE_STEPS 4096u    /* entries looked at in a turn */
#define PATH_BYTES 4200u

void warming_count(struct serve_tenant *tenant, int status)
{
	tenant->warmed.loaded += status == RSHM_OK;
	tenant->warmed.absent += status == RSHM_MISS;
	tenant->warmed.failed += status < 0;
}

/* ---- the hot set is noted ---------------------------------------------------------------------------------------- */

struct noting {
	struct serve_tenant *tenant;
	struct hotset_notes *notes;
	bool writing;
	char path[PATH_BYTES];
	uv_work_t work;
	int64_t result; /* keys, or an error */
	int error;      /* errno */
};

static bool path_of(const struct serve_tenant *tenant, char path[PATH_BYTES])
{
	const char *folder = tenant->worker->env->options.hot_set_folder;

	return folder && snprintf(path, PATH_BYTES, "%s/%s", folder, tenant->tenant->id) < (int)PATH_BYTES - 100;
}

static void tell_noted(const struct serve_tenant *tenant, const char *path, int64_t keys, int error)
{
	if (keys < 0)
		log_warn("serve", "tenant %s: the hot set is not noted: %s: %s", tenant->tenant->id, path,
			 keys == RSHM_E_NOMEM ? "no memory" : strerror(error));
	else
		log_info("serve", "tenant %s: noted the hot set, %lld keys", tenant->tenant->id, (long long)keys);
}

/* An agent that had nothing to serve, or never began, leaves the note of the one before. */
static bool has_something_to_note(const struct serve_tenant *tenant)
{
	struct hot_figures figures;

	hot_figures(tenant->hot, &figures);
	return tenant->worker->env->options.hot_set_max > 0 && figures.entries > 0 && !tenant->warming;
}

void warming_save(struct serve_tenant *tenant)
{
	char path[PATH_BYTES];
	int64_t keys;

	if (!has_something_to_note(tenant) || !path_of(tenant, path))
		return;
	keys = hotset_save(tenant->hot, path, tenant->worker->env->options.hot_set_max);
	tell_noted(tenant, path, keys, errno);
}

static void note_on_thread(uv_work_t *work)
{
	struct noting *n = work->data;

	n->result = hotset_notes_write(n->notes, n->path);
	n->error = errno;
}

static void end_noting(struct noting *n)
{
	n->tenant->noting = NULL;
	hotset_notes_destroy(&n->notes);
	free(n);
}

static void note_on_written(uv_work_t *work, int cancelled)
{
	struct noting *n = work->data;

	must(!cancelled);
	if (n->result < 0)
		tell_noted(n->tenant, n->path, n->result, n->error);
	end_noting(n);
}

static void begin_noting(struct serve_tenant *tenant)
{
	struct noting *n = calloc(1, sizeof(*n));

	if (!n)
		return;
	n->tenant = tenant;
	n->notes = hotset_notes_create(tenant->hot, tenant->worker->env->options.hot_set_max);
	if (!n->notes || !path_of(tenant, n->path)) {
		hotset_notes_destroy(&n->notes);
		free(n);
		return;
	}
	tenant->noting = n;
}

static void note_some(struct serve_tenant *tenant)
{
	struct noting *n = tenant->noting;
	int more = n->writing ? 1 : hotset_notes_take(n->notes, tenant->hot, NOTE_STEPS);

	if (n->writing || more > 0)
		return;
	if (more < 0) {
		tell_noted(tenant, n->path, more, ENOMEM);
		end_noting(n);
		return;
	}
	n->writing = true;
	n->work.data = n;
	must(uv_queue_work(&tenant->worker->loop, &n->work, note_on_thread, note_on_written) == 0);
}

static void note_in_time(struct serve_tenant *tenant, uint64_t now_ms)
{
	uint64_t interval_ms = tenant->worker->env->options.hot_set_interval_ms;

	if (tenant->noting) {
		note_some(tenant);
		return;
	}
	if (interval_ms == 0 || now_ms - tenant->noted_ms < interval_ms)
		return;
	tenant->noted_ms = now_ms;
	if (has_something_to_note(tenant))
		begin_noting(tenant);
}

/* ---- and loaded --------------------------------------------------------------------------------------------------- */

struct warming {
	struct paced paced; /* first */
	struct serve_tenant *tenant;
	struct hotset set;
	uint32_t under_way;
	bool stopped;
};

static void end_warming(struct warming *w)
{
	struct serve_tenant *tenant = w->tenant;

	tenant->warming = NULL;
	log_info("serve", "tenant %s: warmed: %llu loaded, %llu absent, %llu failed", tenant->tenant->id,
		 (unsigned long long)tenant->warmed.loaded, (unsigned long long)tenant->warmed.absent,
		 (unsigned long long)tenant->warmed.failed);
	hotset_fini(&w->set);
	free(w);
}

static bool has_ended(const struct warming *w)
{
	return w->under_way == 0 && (w->stopped || w->set.at >= w->set.length);
}

static void key_on_done(struct entry_op *op)
{
	struct warming *w = op->context;
	struct serve_tenant *tenant = w->tenant;

	warming_count(tenant, op->status);
	w->under_way--;
	if (has_ended(w))
		end_warming(w);
	pace_leave(&tenant->pace, clock_monotonic_ms());
}

static void hot_set_on_turn(struct paced *paced, enum pace_turn turn)
{
	struct warming *w = (struct warming *)paced;
	struct serve_tenant *tenant = w->tenant;
	uint64_t now_ms = clock_monotonic_ms();
	struct entry_op *op = turn == PACE_GO ? entry_create(tenant->worker, tenant) : NULL;

	if (!op) {
		w->stopped = true;
		if (has_ended(w))
			end_warming(w);
		if (turn == PACE_GO)
			pace_leave(&tenant->pace, now_ms);
		return;
	}
	op->key = hotset_next(&w->set, &op->key_len);
	op->deadline_ms = now_ms + KEY_DEADLINE_MS;
	op->quiet = true;
	op->done = key_on_done;
	op->context = w;
	w->under_way++;
	if (w->set.at < w->set.length)
		pace_enter(&tenant->pace, &w->paced, now_ms);
	entry_get(op);
}

void warming_tick(struct serve_tenant *tenant, uint64_t now_ms)
{
	pace_tick(&tenant->pace, now_ms);
	note_in_time(tenant, now_ms);
}

void warming_create(struct serve_tenant *tenant)
{
	const struct serve_options *options = &tenant->worker->env->options;

	tenant->noted_ms = clock_monotonic_ms();
	pace_init(&tenant->pace, options->warming_keys_per_second, options->warming_batch, tenant->noted_ms);
}

void warming_begin(struct serve_tenant *tenant)
{
	const struct serve_options *options = &tenant->worker->env->options;
	struct hot_figures figures;
	struct warming *w;
	char path[PATH_BYTES];
	int status;

	hot_figures(tenant->hot, &figures);
	if (!options->warm_at_start || figures.adopted || !path_of(tenant, path))
		return;
	w = calloc(1, sizeof(*w));
	if (!w)
		return;
	status = hotset_load(path, &w->set);
	if (status != RSHM_OK || w->set.keys == 0) {
		if (status < 0)
			log_warn("serve", "tenant %s: the hot set in %s cannot be used (%s); it is not loaded",
				 tenant->tenant->id, path, status == RSHM_E_CORRUPT ? "damaged" : strerror(errno));
		hotset_fini(&w->set);
		free(w);
		return;
	}
	w->tenant = tenant;
	w->paced.start = hot_set_on_turn;
	tenant->warmed.total += w->set.keys;
	tenant->warming = w;
	pace_enter(&tenant->pace, &w->paced, clock_monotonic_ms());
}

void warming_stop(struct serve_tenant *tenant)
{
	pace_stop(&tenant->pace);
}

bool warming_is_quiet(const struct serve_tenant *tenant)
{
	return !pace_is_busy(&tenant->pace) && !tenant->warming && !(tenant->noting && tenant->noting->writing);
}

void warming_destroy(struct serve_tenant *tenant)
{
	if (tenant->warming) {
		hotset_fini(&tenant->warming->set);
		free(tenant->warming);
		tenant->warming = NULL;
	}
	if (tenant->noting)
		end_noting(tenant->noting);
}

/* ---- by prefix ---------------------------------------------------------------------------------------------------- */

/* A page of the keys that begin with the prefix, from a cursor on; the answer: counts, then where to go on. */
struct prefix_warming {
	struct paced paced; /* first */
	struct entry_op *op;
	struct store_request page;
	unsigned char *keys;
	size_t length, at;
	uint32_t under_way;
	struct {
		struct {
			uint64_t loaded, absent, failed;
		} counts;
		unsigned char cursor[STORE_CURSOR_MAX];
	} answer;
};

static void end_page(struct prefix_warming *job, int status)
{
	struct entry_op *op = job->op;

	op->result_value = &job->answer;
	op->result_value_len = sizeof(job->answer.counts) + job->page.cursor_len;
	entry_complete(op, status, false);
	free(job->keys);
	free(job);
}

static const void *next_key(struct prefix_warming *job, size_t *ret_len)
{
	const unsigned char *key = job->keys + job->at + sizeof(uint16_t);
	uint16_t length;

	memcpy(&length, job->keys + job->at, sizeof(length));
	job->at += sizeof(length) + length;
	*ret_len = length;
	return key;
}

/* What is left is counted as failed: the agent did not get to it. */
static void give_up(struct prefix_warming *job)
{
	size_t length;

	while (job->at < job->length) {
		(void)next_key(job, &length);
		job->answer.counts.failed++;
		job->op->tenant->warmed.failed++;
	}
}

static void prefix_key_on_done(struct entry_op *op)
{
	struct prefix_warming *job = op->context;
	struct serve_tenant *tenant = op->tenant;

	job->answer.counts.loaded += op->status == RSHM_OK;
	job->answer.counts.absent += op->status == RSHM_MISS;
	job->answer.counts.failed += op->status < 0;
	warming_count(tenant, op->status);
	job->under_way--;
	if (job->under_way == 0 && job->at >= job->length)
		end_page(job, RSHM_OK);
	pace_leave(&tenant->pace, clock_monotonic_ms());
}

static void prefix_on_turn(struct paced *paced, enum pace_turn turn)
{
	struct prefix_warming *job = (struct prefix_warming *)paced;
	struct serve_tenant *tenant = job->op->tenant;
	uint64_t now_ms = clock_monotonic_ms();
	struct entry_op *op = turn == PACE_GO ? entry_create(tenant->worker, tenant) : NULL;

	if (!op) {
		give_up(job);
		if (job->under_way == 0)
			end_page(job, turn == PACE_STOPPED ? RSHM_E_CLOSED : RSHM_OK);
		if (turn == PACE_GO)
			pace_leave(&tenant->pace, now_ms);
		return;
	}
	op->key = next_key(job, &op->key_len);
	op->deadline_ms = job->op->deadline_ms;
	op->quiet = true;
	op->done = prefix_key_on_done;
	op->context = job;
	job->under_way++;
	if (job->at < job->length)
		pace_enter(&tenant->pace, &job->paced, now_ms);
	entry_get(op);
}

static uint64_t count_keys(const struct prefix_warming *job)
{
	uint64_t keys = 0;

	for (size_t at = 0; at < job->length; keys++) {
		uint16_t length;

		memcpy(&length, job->keys + at, sizeof(length));
		at += sizeof(length) + length;
	}
	return keys;
}

static void page_on_listed(struct store_request *page)
{
	struct prefix_warming *job = page->context;
	struct serve_tenant *tenant = job->op->tenant;

	if (page->status != RSHM_OK) {
		end_page(job, page->status);
		return;
	}
	memcpy(job->answer.cursor, page->cursor, page->cursor_len);
	if (page->result_len == 0) {
		end_page(job, RSHM_OK);
		return;
	}
	job->keys = malloc(page->result_len);
	if (!job->keys) {
		end_page(job, RSHM_E_NOMEM);
		return;
	}
	memcpy(job->keys, page->result, page->result_len);
	job->length = page->result_len;
	tenant->warmed.total += count_keys(job);
	pace_enter(&tenant->pace, &job->paced, clock_monotonic_ms());
}

void entry_warm_prefix(struct entry_op *op)
{
	struct prefix_warming *job = op->value_len <= STORE_CURSOR_MAX ? calloc(1, sizeof(*job)) : NULL;

	if (!job) {
		entry_complete(op, op->value_len <= STORE_CURSOR_MAX ? RSHM_E_NOMEM : RSHM_E_INVALID, false);
		return;
	}
	job->op = op;
	job->paced.start = prefix_on_turn;
	job->paced.until_ms = op->deadline_ms - PAGE_MARGIN_MS;
	job->page = (struct store_request){
		.op = STORE_LIST,
		.name = entry_store_name(op->tenant->tenant),
		.page_keys = PAGE_KEYS,
		.deadline_ms = op->deadline_ms,
		.done = page_on_listed,
		.context = job,
		.cursor_len = op->value_len,
	};
	job->page.name.key = op->key;
	job->page.name.key_len = op->key_len;
	if (op->value_len)
		memcpy(job->page.cursor, op->value, op->value_len);
	store_submit(&op->tenant->space.base, &job->page);
}
