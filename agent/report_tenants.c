/*
 * report_tenants.c - figures of tenants, one by one and together, under the names of the mission's statistics: total_keys,
 * memory_usage_bytes, hit_rate, miss_rate, avg_access_time_us, ops_per_second, eviction_count, avg_compression_ratio.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/agent_priv.h"
#include "agent/base/clock.h"
#include "agent/report.h"
#include "shm/order.h"

static json_int_t number(uint64_t value)
{
	return (json_int_t)value;
}

json_t *report_figures(const struct rshm_figures *f)
{
	uint64_t reads = f->hits + f->misses;

	return json_pack("{s:I s:I s:I s:I s:I s:I s:I s:I s:f s:I s:I}", "hits", number(f->hits), "hit_bytes",
			 number(f->hit_bytes), "misses", number(f->misses), "stale", number(f->stale), "sets",
			 number(f->sets), "deletes", number(f->deletes), "requests", number(f->requests), "errors",
			 number(f->errors), "hit_rate", reads ? (double)f->hits / (double)reads : 0.0, "hit_ns_p50",
			 number(f->hit_ns_p50), "hit_ns_p99", number(f->hit_ns_p99));
}

/* The key's bytes may be anything: other than printable ASCII is written \\xNN. */
static json_t *key_json(const unsigned char *key, size_t length)
{
	char text[4 * EVICTION_KEY_BYTES + 1], *to = text;

	for (size_t i = 0; i < length && i < EVICTION_KEY_BYTES; i++)
		to += key[i] >= ' ' && key[i] < 127 && key[i] != '\\' ? sprintf(to, "%c", key[i])
								      : sprintf(to, "\\x%02x", key[i]);
	*to = '\0';
	return json_string(text);
}

static json_t *evictions_json(const struct evictions_figures *f)
{
	json_t *reasons = json_object(), *recent = json_array();

	for (int reason = 0; reason < EVICTION_REASONS; reason++)
		json_object_set_new(
			reasons, eviction_reason_name((enum eviction_reason)reason),
			json_pack("{s:I s:I}", "count", number(f->count[reason]), "bytes", number(f->bytes[reason])));
	for (uint32_t i = 0; i < f->recent_count; i++) {
		const struct eviction *e = &f->recent[i];
		json_t *entry = json_pack("{s:s s:I s:o s:I}", "reason", eviction_reason_name(e->reason), "bytes",
					  number(e->bytes), "key", key_json(e->key, e->key_len), "ago_ms",
					  number(clock_monotonic_ms() - e->evicted_at_ms));

		if (e->idle_ms != EVICTION_IDLE_UNKNOWN)
			json_object_set_new(entry, "idle_ms", json_integer(number(e->idle_ms)));
		json_array_append_new(recent, entry);
	}
	return json_pack("{s:I s:I s:f s:f s:o s:o}", "total", number(f->total), "bytes", number(f->total_bytes),
			 "per_second", f->rate, "idle_ms_average", f->idle_ms_average, "reasons", reasons, "recent",
			 recent);
}

static void add_tenant_report(json_t *entry, const struct tenant_report *r)
{
	json_object_set_new(entry, "generation", json_integer(number(r->generation)));
	json_object_set_new(entry, "unswept_generations", json_integer(number(r->unswept_generations)));
	json_object_set_new(entry, "eviction_policy", json_string(policy_name(r->eviction)));
	json_object_set_new(entry, "negative_entries", json_integer(number(r->negatives)));
	json_object_set_new(entry, "tags_known", json_integer(number(r->tags_known)));
	json_object_set_new(entry, "quota_alerts", json_integer(number(r->alerts)));
	json_object_set_new(entry, "limited", json_integer(number(r->limited)));
	json_object_set_new(entry, "shadowed", json_integer(number(r->shadowed)));
	json_object_set_new(entry, "denied", json_integer(number(r->denied)));
	json_object_set_new(entry, "refused_entries", json_integer(number(r->refused_entries)));
	json_object_set_new(entry, "dictionary_sets", json_integer(number(r->dictionary_sets)));
	json_object_set_new(entry, "ops_per_second", json_real((double)r->operations_per_second_milli / 1000));
	json_object_set_new(entry, "avg_access_time_us", json_real((double)r->hit_ns_mean / 1000));
	json_object_set_new(entry, "hit_ns_p95", json_integer(number(r->hit_ns_p95)));
	json_object_set_new(entry, "warming",
			    json_pack("{s:b s:I s:I s:I s:I}", "running", r->warming, "loaded",
				      number(r->warmed.loaded), "absent", number(r->warmed.absent), "failed",
				      number(r->warmed.failed), "total", number(r->warmed.total)));
	json_object_set_new(entry, "eviction_figures", evictions_json(&r->evictions));
}

/* Ids of those that values are written with; `riptidectl dict list` tells more. */
static json_t *dictionaries_json(struct agent *a, const struct tenant *tenant)
{
	struct dictionary_info infos[DICTIONARY_REGISTRY_DEFAULT];
	size_t count = dictionary_list(a->dictionaries, tenant->id, infos, DICTIONARY_REGISTRY_DEFAULT);
	json_t *list = json_array();

	for (size_t i = 0; i < count && i < DICTIONARY_REGISTRY_DEFAULT; i++)
		if (!infos[i].retired)
			json_array_append_new(list, json_integer(infos[i].id));
	return list;
}

/* The mission's names, beside those of the parts. */
static void add_names(json_t *entry, const struct rshm_figures *f, const struct evictions_figures *evictions,
		      uint64_t plain_bytes, uint64_t stored_bytes)
{
	uint64_t reads = f->hits + f->misses, left = 0;

	for (int reason = 0; reason < EVICTION_REASONS; reason++)
		left += evictions->ever_count[reason];

	json_object_set_new(entry, "total_keys", json_integer(number(f->entries)));
	json_object_set_new(entry, "memory_usage_bytes", json_integer(number(f->used_bytes)));
	json_object_set_new(entry, "miss_rate", json_real(reads ? (double)f->misses / (double)reads : 0.0));
	json_object_set_new(entry, "eviction_count", json_integer(number(left)));
	json_object_set_new(entry, "avg_compression_ratio",
			    json_real(plain_bytes ? (double)stored_bytes / (double)plain_bytes : 1.0));
}

json_t *report_tenants(struct agent *a, const struct control_peer *peer)
{
	struct rshm_figures *all = rshm_agent_tenants(a->presence.agent);
	json_t *list = json_array();

	for (size_t i = 0; i < tenant_count(a->tenants); i++) {
		const struct tenant *tenant = tenant_at(a->tenants, i);
		struct rshm_figures copy, *f = &copy;
		struct tenant_report report;
		json_t *entry;

		if (peer && !tenant_permits(tenant, peer->uid, peer->gid))
			continue;
		rshm_copy_out(f, &all[tenant->place], sizeof(copy)); /* a worker may be writing them */
		entry = report_figures(f);

		json_object_set_new(entry, "tenant", json_string(tenant->id));
		json_object_set_new(entry, "worker", json_integer(tenant->worker));
		json_object_set_new(entry, "entries", json_integer(number(f->entries)));
		json_object_set_new(entry, "used_bytes", json_integer(number(f->used_bytes)));
		json_object_set_new(entry, "limit_bytes", json_integer(number(f->limit_bytes)));
		json_object_set_new(entry, "evictions", json_integer(number(f->evictions)));
		if (worker_tenant_report(a->workers[tenant->worker], tenant, &report)) {
			add_tenant_report(entry, &report);
			add_names(entry, f, &report.evictions, report.plain_bytes, report.stored_bytes);
		}
		json_object_set_new(entry, "dictionaries", dictionaries_json(a, tenant));
		json_array_append_new(list, entry);
	}
	return list;
}

static void add_figures(struct rshm_figures *sum, const struct rshm_figures *f)
{
	sum->hits += f->hits;
	sum->hit_bytes += f->hit_bytes;
	sum->misses += f->misses;
	sum->stale += f->stale;
	sum->sets += f->sets;
	sum->deletes += f->deletes;
	sum->requests += f->requests;
	sum->errors += f->errors;
	sum->entries += f->entries;
	sum->used_bytes += f->used_bytes;
	sum->evictions += f->evictions;
}

struct report_sum *report_sum(struct agent *a)
{
	struct rshm_figures *all = rshm_agent_tenants(a->presence.agent);
	struct worker_report *report = calloc(1, sizeof(*report));
	struct report_sum *sum = calloc(1, sizeof(*sum));

	if (!report || !sum) {
		free(report);
		free(sum);
		return NULL;
	}
	for (size_t i = 0; i < tenant_count(a->tenants); i++) {
		const struct tenant *tenant = tenant_at(a->tenants, i);
		struct tenant_report one;
		struct rshm_figures copy;

		if (!worker_tenant_report(a->workers[tenant->worker], tenant, &one))
			continue;
		rshm_copy_out(&copy, &all[tenant->place], sizeof(copy));
		add_figures(&sum->figures, &copy);
		sum->plain_bytes += one.plain_bytes;
		sum->stored_bytes += one.stored_bytes;
		sum->operations_per_second_milli += one.operations_per_second_milli;
		evictions_merge(&sum->evictions, &one.evictions);
	}
	for (uint32_t i = 0; i < a->worker_count; i++) {
		worker_report(a->workers[i], report);
		add_figures(&sum->figures, &report->ended.figures);
		sum->plain_bytes += report->ended.plain_bytes;
		sum->stored_bytes += report->ended.stored_bytes;
		evictions_merge(&sum->evictions, &report->ended.evictions);
		/* Percentiles are those of all sampled hits, not means of the tenants'. */
		histogram_merge(&sum->hit_ns, &report->hit_ns);
	}
	sum->figures.hit_ns_p50 = histogram_percentile(&sum->hit_ns, 50);
	sum->figures.hit_ns_p99 = histogram_percentile(&sum->hit_ns, 99);
	free(report);
	return sum;
}

json_t *report_total(struct agent *a, const struct control_peer *peer)
{
	struct report_sum *sum = report_sum(a);
	json_t *entry;

	if (!sum)
		return json_object();
	entry = report_figures(&sum->figures);
	add_names(entry, &sum->figures, &sum->evictions, sum->plain_bytes, sum->stored_bytes);
	json_object_set_new(entry, "ops_per_second", json_real((double)sum->operations_per_second_milli / 1000));
	json_object_set_new(entry, "avg_access_time_us", json_real((double)histogram_mean(&sum->hit_ns) / 1000));
	json_object_set_new(entry, "hit_ns_p95", json_integer(number(histogram_percentile(&sum->hit_ns, 95))));
	json_object_set_new(entry, "entries", json_integer(number(sum->figures.entries)));
	json_object_set_new(entry, "used_bytes", json_integer(number(sum->figures.used_bytes)));
	json_object_set_new(entry, "evictions", json_integer(number(sum->figures.evictions)));
	/* The last ones are told with their keys. */
	if (!peer)
		json_object_set_new(entry, "eviction_figures", evictions_json(&sum->evictions));
	free(sum);
	return entry;
}
