/*
 * warming.c - loading entries before they are asked for.
 *
 * At start, where shared memory could not be adopted, the hot set that the last run noted is loaded: a batch at a time, and
 * no faster than warming.keys_per_second, so that clients have the store for themselves. Each key is an ordinary get that
 * counts neither as hit nor as miss. (A client's warm call comes as a batch, op_batch.c, or as a prefix, here.)
 *
 * Where hot copies live by max_age only (nothing tells of foreign writes), loading what nobody asks for would be in vain.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/cache/hotset.h"
#include "agent/serve/serve_priv.h"
#include "agent/serve/walk.h"

#define KEY_DEADLINE_MS 5000u

struct warming {
	struct serve_tenant *tenant;
	struct hotset set;
	uint32_t under_way;
	uint64_t began_ms, started;
};

static bool path_of(const struct serve_tenant *tenant, char path[4200])
{
	const char *folder = tenant->worker->env->options.hot_set_folder;

	return folder && snprintf(path, 4200, "%s/%s", folder, tenant->tenant->id) < 4100;
}

void warming_save(struct serve_tenant *tenant)
{
	uint32_t keys_max = tenant->worker->env->options.hot_set_max;
	struct hot_figures figures;
	char path[4200];
	int64_t keys;

	/* An agent that had nothing to serve, or never began, leaves the note of the one before. */
	hot_figures(tenant->hot, &figures);
	if (keys_max == 0 || figures.entries == 0 || !path_of(tenant, path))
		return;
	keys = hotset_save(tenant->hot, path, keys_max);
	if (keys < 0)
		log_warn("serve", "tenant %s: the hot set is not noted: %s: %s", tenant->tenant->id, path,
			 keys == RSHM_E_NOMEM ? "no memory" : strerror(errno));
	else
		log_info("serve", "tenant %s: noted the hot set, %lld keys", tenant->tenant->id, (long long)keys);
}

static void end_warming(struct serve_tenant *tenant)
{
	struct warming *w = tenant->warming;

	tenant->warming = NULL;
	log_info("serve", "tenant %s: warmed: %llu loaded, %llu absent, %llu failed", tenant->tenant->id,
		 (unsigned long long)tenant->warmed.loaded, (unsigned long long)tenant->warmed.absent,
		 (unsigned long long)tenant->warmed.failed);
	hotset_fini(&w->set);
	free(w);
}

static void count(struct serve_tenant *tenant, int status)
{
	tenant->warmed.loaded += status == RSHM_OK;
	tenant->warmed.absent += status == RSHM_MISS;
	tenant->warmed.failed += status < 0;
}

static void key_on_done(struct entry_op *op)
{
	struct warming *w = op->context;

	count(w->tenant, op->status);
	w->under_way--;
}

static bool start_key(struct warming *w)
{
	struct serve_tenant *tenant = w->tenant;
	struct entry_op *op = entry_create(tenant->worker, tenant);

	if (!op)
		return false;
	op->key = hotset_next(&w->set, &op->key_len);
	op->deadline_ms = clock_monotonic_ms() + KEY_DEADLINE_MS;
	op->quiet = true;
	op->done = key_on_done;
	op->context = w;
	w->under_way++;
	w->started++;
	entry_get(op);
	return true;
}

void warming_tick(struct serve_tenant *tenant, uint64_t now_ms)
{
	const struct serve_options *options = &tenant->worker->env->options;
	struct warming *w = tenant->warming;
	uint64_t due;

	if (!w)
		return;
	due = (now_ms - w->began_ms) * options->warming_keys_per_second / 1000 + 1;
	while (w->set.at < w->set.length && w->started < due && w->under_way < options->warming_batch)
		if (!start_key(w))
			break;
	if (w->set.at >= w->set.length && w->under_way == 0)
		end_warming(tenant);
}

void warming_begin(struct serve_tenant *tenant)
{
	const struct serve_options *options = &tenant->worker->env->options;
	struct hot_figures figures;
	struct warming *w;
	char path[4200];
	int status;

	hot_figures(tenant->hot, &figures);
	if (!options->warm_at_start || figures.adopted || !path_of(tenant, path))
		return;
	w = calloc(1, sizeof(*w));
	if (!w)
		return;
	status = hotset_load(path, &w->set);
	if (status != RSHM_OK) {
		if (status < 0)
			log_warn("serve", "tenant %s: the hot set in %s cannot be used (%s); it is not loaded",
				 tenant->tenant->id, path, status == RSHM_E_CORRUPT ? "damaged" : strerror(errno));
		free(w);
		return;
	}
	w->tenant = tenant;
	w->began_ms = clock_monotonic_ms();
	tenant->warmed.total = w->set.keys;
	tenant->warming = w;
}

/* Its memory goes with the last key under way; closing waits for these. */
void warming_stop(struct serve_tenant *tenant)
{
	if (tenant->warming)
		tenant->warming->set.at = tenant->warming->set.length;
}

void warming_destroy(struct serve_tenant *tenant)
{
	if (!tenant->warming)
		return;
	hotset_fini(&tenant->warming->set);
	free(tenant->warming);
	tenant->warming = NULL;
}

/* ---- by prefix ---------------------------------------------------------------------------------------------- */

struct prefix_warming {
	struct walk walk; /* first */
	struct entry_op *op;
	struct warm_counts counts;
};

static void prefix_key_on_done(struct entry_op *op)
{
	struct prefix_warming *job = op->context;

	job->counts.total++;
	job->counts.loaded += op->status == RSHM_OK;
	job->counts.absent += op->status == RSHM_MISS;
	job->counts.failed += op->status < 0;
	walk_item_done(&job->walk, RSHM_OK);
}

static void prefix_on_key(struct walk *walk, const void *key, size_t key_len)
{
	struct prefix_warming *job = (struct prefix_warming *)walk;
	struct entry_op *op = entry_create(job->op->worker, job->op->tenant);

	if (!op) {
		walk_item_done(walk, RSHM_E_NOMEM);
		return;
	}
	op->key = key;
	op->key_len = key_len;
	op->deadline_ms = job->op->deadline_ms;
	op->quiet = true;
	op->done = prefix_key_on_done;
	op->context = job;
	entry_get(op);
}

static void prefix_on_walked(struct walk *walk, int status)
{
	struct prefix_warming *job = (struct prefix_warming *)walk;
	struct entry_op *op = job->op;

	op->result_value = &job->counts;
	op->result_value_len = 3 * sizeof(uint64_t);
	entry_complete(op, status, false);
	free(job);
}

void entry_warm_prefix(struct entry_op *op)
{
	struct prefix_warming *job = calloc(1, sizeof(*job));

	if (!job) {
		entry_complete(op, RSHM_E_NOMEM, false);
		return;
	}
	job->op = op;
	job->walk.store = &op->tenant->space.base;
	job->walk.name = entry_store_name(op->tenant->tenant);
	job->walk.name.key = op->key;
	job->walk.name.key_len = op->key_len;
	job->walk.deadline_ms = op->deadline_ms;
	job->walk.each = prefix_on_key;
	job->walk.done = prefix_on_walked;
	walk_start(&job->walk);
}
