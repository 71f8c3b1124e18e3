/*
 * figures.c - draining what readers counted, and showing it.
 *
 * Readers count in their own shards and note some of the positions they touched; nothing they write is trusted beyond a
 * bound that follows from the time since the last drain. Touches go to the tenant's ring before it reclaims, so that
 * eviction knows the latest. Sums go to the agent object, where `riptidectl top` reads them even while we hang.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/cache/tags.h"
#include "agent/serve/rings.h"
#include "agent/serve/serve_priv.h"

#define IDLE_CREDITS_MS 1000u    /* credits that nobody used for so long are taken back */
#define READS_PER_MS_MAX 100000u /* of one shard: 10 ns a read */

static bool shard_is_quiet(const struct rshm_shard *shard, const struct rshm_seen *seen)
{
	return rshm_load_relaxed(&shard->hits) == seen->hits && rshm_load_relaxed(&shard->misses) == seen->misses &&
	       rshm_load_relaxed(&shard->touch_next) == seen->touch_next &&
	       rshm_load_relaxed(&shard->access_next) == seen->access_next;
}

static void add_latency(struct client *client, const struct rshm_drained *drained)
{
	if (!client->hit_ns)
		client->hit_ns = calloc(1, sizeof(*client->hit_ns));
	for (unsigned int i = 0; i < RSHM_LATENCY_CLASSES; i++) {
		/* A class is a power of two; its middle stands for it. */
		uint64_t ns = (3ull << i) / 2;

		if (drained->latency[i] == 0)
			continue;
		histogram_record_many(&client->tenant->hit_ns, ns, drained->latency[i]);
		histogram_record_many(&client->worker->totals.hit_ns, ns, drained->latency[i]);
		if (client->hit_ns)
			histogram_record_many(client->hit_ns, ns, drained->latency[i]);
	}
}

static void add_counts(struct serve_counts *counts, const struct rshm_drained *drained)
{
	counts->hits += drained->hits;
	counts->hot_hits += drained->hits;
	counts->hot_misses += drained->misses;
	counts->hit_bytes += drained->hit_bytes;
	counts->stale += drained->stale;
}

static void note_accesses(struct serve_tenant *tenant, const uint64_t *positions, uint32_t count, uint64_t now_ms)
{
	struct rshm_item item;

	for (uint32_t i = 0; i < count; i++)
		if (hot_item_at(tenant->hot, positions[i], &item))
			accesses_note(tenant->accesses, item.key, item.key_len, now_ms);
}

uint64_t figures_idle_ms(const struct serve_tenant *tenant, const void *key, size_t key_len, uint64_t now_ms)
{
	struct access_record record;

	if (!accesses_get(tenant->accesses, key, key_len, &record))
		return EVICTION_IDLE_UNKNOWN;
	return now_ms > record.last_ms ? now_ms - record.last_ms : 0;
}

void figures_drain_client(struct client *client)
{
	uint64_t now_ms = clock_monotonic_ms();
	uint64_t most = (now_ms - client->drained_ms + 10) * READS_PER_MS_MAX;

	for (unsigned int i = 0; i < RSHM_SHARDS; i++) {
		const struct rshm_shard *shard = &client->channel->shards[i];
		struct rshm_drained drained;

		if (shard_is_quiet(shard, &client->seen[i])) {
			if (now_ms - client->credits[i].active_ms > IDLE_CREDITS_MS)
				budget_credit(client, i, true);
			continue;
		}
		rshm_drain(shard, &client->seen[i], most, &drained);
		client->credits[i].active_ms = now_ms;
		budget_credit(client, i, false);
		add_counts(&client->tenant->counts, &drained);
		add_counts(&client->counts, &drained);
		client->counts.misses += drained.misses;
		/* Of all others the agent heard by a request. */
		client->tenant->counts.misses += drained.absent;
		add_latency(client, &drained);
		for (uint32_t t = 0; t < drained.touch_count; t++)
			hot_touch(client->tenant->hot, drained.touches[t]);
		note_accesses(client->tenant, drained.touches, drained.touch_count, now_ms);
		note_accesses(client->tenant, drained.accesses, drained.access_count, now_ms);
	}
	client->drained_ms = now_ms;
}

void figures_drain_tenant(void *context)
{
	struct serve_tenant *tenant = context;
	struct client *client = tenant->clients;

	if (!client)
		return;
	do {
		figures_drain_client(client);
		client = client->next;
	} while (client != tenant->clients);
}

static void publish_counts(struct rshm_figures *to, const struct serve_counts *counts, const struct histogram *hit_ns)
{
	rshm_store_relaxed(&to->hits, counts->hits);
	rshm_store_relaxed(&to->hit_bytes, counts->hit_bytes);
	rshm_store_relaxed(&to->misses, counts->misses);
	rshm_store_relaxed(&to->stale, counts->stale);
	rshm_store_relaxed(&to->sets, counts->sets);
	rshm_store_relaxed(&to->deletes, counts->deletes);
	rshm_store_relaxed(&to->requests, counts->requests);
	rshm_store_relaxed(&to->errors, counts->errors);
	if (hit_ns) {
		rshm_store_relaxed(&to->hit_ns_p50, histogram_percentile(hit_ns, 50));
		rshm_store_relaxed(&to->hit_ns_p99, histogram_percentile(hit_ns, 99));
	}
}

static void publish_tenant(struct serve_tenant *tenant)
{
	struct rshm_figures *to = tenant->figures;
	struct hot_figures hot;

	hot_figures(tenant->hot, &hot);
	publish_counts(to, &tenant->counts, &tenant->hit_ns);
	rshm_store_relaxed(&to->used_bytes, hot.used_bytes);
	rshm_store_relaxed(&to->limit_bytes, hot.limit_bytes);
	rshm_store_relaxed(&to->entries, hot.entries);
	rshm_store_relaxed(&to->evictions, hot.evictions);
}

static void publish_clients(struct serve_tenant *tenant)
{
	struct client *client = tenant->clients;

	if (!client)
		return;
	do {
		if (client->figures)
			publish_counts(client->figures, &client->counts, client->hit_ns);
		client = client->next;
	} while (client != tenant->clients);
}

uint64_t figures_rate(const struct serve_tenant *tenant)
{
	uint64_t operations = 0;

	for (uint32_t i = 0; i < 11; i++)
		if (i != tenant->rate_slot)
			operations += tenant->rate_operations[i];
	return operations * 100;
}

static void report_tenant(const struct serve_tenant *tenant, struct tenant_report *ret)
{
	const struct space *space = &tenant->space;
	struct hot_figures hot;
	struct budget_figures budget = budget_figures(tenant);

	*ret = (struct tenant_report){
		.generation = space->generation,
		.unswept_generations = space->generation ? space->generation - 1 - space->swept : 0,
		.plain_bytes = tenant->counts.plain_bytes,
		.stored_bytes = tenant->counts.stored_bytes,
		.spilled = tenant->counts.spilled,
		.restored = tenant->counts.restored,
		.denied = tenant->counts.denied,
		.refused_entries = sealing_refused(tenant),
		.limited = budget.limited,
		.shadowed = budget.shadowed,
		.alerts = budget.alerts,
		.dictionary_sets = tenant->counts.dictionary_sets,
		.operations_per_second_milli = figures_rate(tenant),
		.hit_ns_mean = histogram_mean(&tenant->hit_ns),
		.hit_ns_p50 = histogram_percentile(&tenant->hit_ns, 50),
		.hit_ns_p95 = histogram_percentile(&tenant->hit_ns, 95),
		.hit_ns_p99 = histogram_percentile(&tenant->hit_ns, 99),
		.warmed = tenant->warmed,
		.warming = tenant->warming || pace_is_busy(&tenant->pace),
		.tags_known = tag_epochs_count(tenant->tag_epochs),
	};
	evictions_figures(tenant->evictions, clock_monotonic_ms(), &ret->evictions);
	hot_figures(tenant->hot, &hot);
	ret->eviction = hot.eviction;
	ret->negatives = hot.negatives;
}

static void snapshot(struct worker *worker)
{
	struct worker_report *totals = &worker->totals;

	store_status(worker->store, &totals->store);
	totals->channels = worker->client_count;
	totals->inflight = inflight_count(worker->inflight);
	totals->staging_bytes = worker->staging_bytes;
	totals->revalidating = false;
	totals->revalidated = totals->revalidation_removed = 0;
	for (size_t i = 0; i < worker->tenant_count; i++) {
		struct revalidation_figures figures;

		revalidation_figures(worker->tenants[i]->revalidation, &figures);
		totals->revalidating |= !revalidation_is_clean(worker->tenants[i]->revalidation);
		totals->revalidated += figures.confirmed;
		totals->revalidation_removed += figures.removed;
	}
	totals->coherence = watching_report(worker);
	totals->loads = loading_keys(worker->loading);
	totals->loads_waiting = loading_waiting(worker->loading);
	totals->has_spill = worker->spill != NULL;
	if (worker->spill)
		spill_figures(worker->spill, &totals->spill);
	pthread_mutex_lock(&worker->lock);
	worker->snapshot = *totals;
	for (size_t i = 0; i < worker->tenant_count; i++)
		report_tenant(worker->tenants[i], &worker->tenants[i]->snapshot);
	pthread_mutex_unlock(&worker->lock);
}

void figures_publish(struct worker *worker)
{
	for (size_t i = 0; i < worker->tenant_count; i++) {
		publish_tenant(worker->tenants[i]);
		publish_clients(worker->tenants[i]);
	}
	snapshot(worker);
}

void figures_end_tenant(struct serve_tenant *tenant)
{
	struct ended_tenants *ended = &tenant->worker->totals.ended;
	const struct serve_counts *counts = &tenant->counts;
	struct evictions_figures evictions;

	ended->figures.hits += counts->hits;
	ended->figures.hit_bytes += counts->hit_bytes;
	ended->figures.misses += counts->misses;
	ended->figures.stale += counts->stale;
	ended->figures.sets += counts->sets;
	ended->figures.deletes += counts->deletes;
	ended->figures.requests += counts->requests;
	ended->figures.errors += counts->errors;
	ended->figures.evictions += rshm_load_relaxed(&tenant->figures->evictions);
	ended->plain_bytes += counts->plain_bytes;
	ended->stored_bytes += counts->stored_bytes;
	ended->spilled += counts->spilled;
	ended->restored += counts->restored;
	evictions_figures(tenant->evictions, clock_monotonic_ms(), &evictions);
	evictions_merge(&ended->evictions, &evictions);
}
