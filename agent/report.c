/*
 * report.c - what operators are told, as JSON: status, stats, clients.
 *
 * Everything is read from the agent object and the workers' snapshots, so a busy worker never delays an answer.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent_priv.h"
#include "agent/base/clock.h"
#include "shm/order.h"
#include "shm/source.h"

static json_int_t number(uint64_t value)
{
	return (json_int_t)value;
}

static json_t *figures_json(const struct rshm_figures *f)
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
	json_object_set_new(entry, "compression_ratio",
			    json_real(r->plain_bytes ? (double)r->stored_bytes / (double)r->plain_bytes : 1.0));
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

static json_t *tenants_json(struct agent *a)
{
	struct rshm_figures *all = rshm_agent_tenants(a->presence.agent);
	json_t *list = json_array();

	for (size_t i = 0; i < tenant_count(a->tenants); i++) {
		const struct tenant *tenant = tenant_at(a->tenants, i);
		struct rshm_figures copy, *f = &copy;
		struct tenant_report report;
		json_t *entry;

		rshm_copy_out(f, &all[tenant->place], sizeof(copy)); /* a worker may be writing them */
		entry = figures_json(f);

		json_object_set_new(entry, "tenant", json_string(tenant->id));
		json_object_set_new(entry, "worker", json_integer(tenant->worker));
		json_object_set_new(entry, "entries", json_integer(number(f->entries)));
		json_object_set_new(entry, "used_bytes", json_integer(number(f->used_bytes)));
		json_object_set_new(entry, "limit_bytes", json_integer(number(f->limit_bytes)));
		json_object_set_new(entry, "evictions", json_integer(number(f->evictions)));
		if (worker_tenant_report(a->workers[tenant->worker], tenant, &report))
			add_tenant_report(entry, &report);
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

/* All tenants together; percentiles are those of all sampled hits, not means of the tenants'. */
static json_t *total_json(struct agent *a)
{
	struct rshm_figures *all = rshm_agent_tenants(a->presence.agent), sum = {0};
	struct histogram *hit_ns = calloc(1, sizeof(*hit_ns));
	struct worker_report *report = calloc(1, sizeof(*report));
	json_t *entry = NULL;

	for (size_t i = 0; i < tenant_count(a->tenants); i++) {
		struct rshm_figures copy;

		rshm_copy_out(&copy, &all[tenant_at(a->tenants, i)->place], sizeof(copy));
		add_figures(&sum, &copy);
	}
	for (uint32_t i = 0; i < a->worker_count && hit_ns && report; i++) {
		worker_report(a->workers[i], report);
		histogram_merge(hit_ns, &report->hit_ns);
	}
	if (hit_ns && report) {
		sum.hit_ns_p50 = histogram_percentile(hit_ns, 50);
		sum.hit_ns_p99 = histogram_percentile(hit_ns, 99);
		entry = figures_json(&sum);
		json_object_set_new(entry, "hit_ns_p95", json_integer(number(histogram_percentile(hit_ns, 95))));
		json_object_set_new(entry, "avg_access_time_us", json_real((double)histogram_mean(hit_ns) / 1000));
		json_object_set_new(entry, "entries", json_integer(number(sum.entries)));
		json_object_set_new(entry, "used_bytes", json_integer(number(sum.used_bytes)));
		json_object_set_new(entry, "evictions", json_integer(number(sum.evictions)));
	}
	free(report);
	free(hit_ns);
	return entry ? entry : json_object();
}

static json_t *reset_evictions(struct agent *a)
{
	for (uint32_t i = 0; i < a->worker_count; i++)
		worker_reset_evictions(a->workers[i]);
	return json_pack("{s:b}", "reset", true);
}

static json_t *clients_json(struct agent *a)
{
	struct rshm_agent *agent = a->presence.agent;
	struct rshm_figures *all = rshm_agent_clients(agent, agent->tenant_capacity);
	json_t *list = json_array();

	for (uint32_t i = 0; i < agent->client_capacity; i++) {
		struct rshm_figures f;
		json_t *entry;

		if (__atomic_load_n(&all[i].in_use, __ATOMIC_ACQUIRE) == 0)
			continue;
		rshm_copy_out(&f, &all[i], sizeof(f)); /* a worker may be writing them */
		entry = figures_json(&f);
		json_object_set_new(entry, "channel", json_integer(number(f.in_use)));
		json_object_set_new(entry, "pid", json_integer(f.process_id));
		json_object_set_new(entry, "uid", json_integer(f.user_id));
		json_object_set_new(entry, "tenant", json_stringn(f.name, strnlen(f.name, 64)));
		json_object_set_new(entry, "program", json_stringn(f.program, strnlen(f.program, 47)));
		json_array_append_new(list, entry);
	}
	return list;
}

static json_t *backend_json(const struct store_status *s)
{
	return json_pack("{s:s s:b s:s s:i s:i s:I s:I s:I s:I s:I s:I s:I}", "name", s->name, "ready", s->ready,
			 "detail", s->detail, "connections", (int)s->connections, "connections_max",
			 (int)s->connections_max, "pending", number(s->pending), "completed", number(s->completed),
			 "failed", number(s->failed), "retried", number(s->retried), "reconnects",
			 number(s->reconnects), "entries", number(s->entries), "bytes", number(s->bytes));
}

static json_t *spill_json(const struct spill_figures *f)
{
	return json_pack("{s:I s:I s:I s:I s:f s:f s:I s:I s:I s:I s:I s:I s:I}", "total_spilled",
			 number(f->total_spilled), "total_restored", number(f->total_restored), "spill_operations",
			 number(f->spill_operations), "restore_operations", number(f->restore_operations),
			 "avg_spill_time_ms", f->avg_spill_time_ms, "avg_restore_time_ms", f->avg_restore_time_ms,
			 "bytes_used", number(f->bytes_used), "bytes_limit", number(f->bytes_limit), "entries",
			 number(f->entries), "evicted", number(f->evicted), "refused", number(f->refused), "corrupt",
			 number(f->corrupt), "removed", number(f->removed));
}

static json_t *journal_json(const struct store_journal *j)
{
	return json_pack("{s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I}", "records", number(j->records), "bytes",
			 number(j->bytes), "oldest_ms", number(j->oldest_ms), "accepted", number(j->accepted),
			 "coalesced", number(j->coalesced), "flushed", number(j->flushed), "superseded",
			 number(j->superseded), "replayed", number(j->replayed), "refused_full",
			 number(j->refused_full), "too_old", number(j->too_old), "flush_failures",
			 number(j->flush_failures));
}

static const char *mode_name(const struct coherence_report *c)
{
	static const char *const names[] = {[STORE_SOLE] = "local",
					    [STORE_TTL] = "ttl",
					    [STORE_CHANNEL] = "channel",
					    [STORE_TRACKING] = "tracking"};

	return c->known ? names[c->mode] : "unknown";
}

/* One worker's: what its store's feed tells, and what came of it. */
static json_t *feed_json(const struct worker_report *r)
{
	const struct coherence_report *c = &r->coherence;
	const struct store_feed *f = &r->store.feed;

	return json_pack("{s:s s:b s:o s:I s:I s:I s:I s:I s:I s:I s:I s:I}", "mode", mode_name(c), "armed", f->armed,
			 "proof_age_ms",
			 f->proof_age_ms == UINT64_MAX ? json_null() : json_integer((json_int_t)f->proof_age_ms),
			 "lease_remaining_ms", number(c->lease_remaining_ms), "epoch", number(c->epoch), "changes",
			 number(f->changes), "maybe_ours", number(f->maybe_ours), "canaries", number(f->canaries),
			 "fences", number(c->fences), "checks", number(c->checks), "checks_pending",
			 number(c->checks_pending), "revalidated", number(r->revalidated));
}

static json_t *workers_json(struct agent *a)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < a->worker_count; i++) {
		struct worker_report r;
		json_t *entry;

		worker_report(a->workers[i], &r);
		entry = json_pack("{s:i s:i s:i s:I s:I s:I s:I s:I s:I s:I s:b s:I s:I s:o}", "worker", (int)i,
				  "channels", (int)r.channels, "inflight", (int)r.inflight, "requests",
				  number(r.requests), "slow", number(r.slow), "over_target", number(r.over_target),
				  "ended_channels", number(r.ended_channels), "protocol_errors",
				  number(r.protocol_errors), "staging_bytes", number(r.staging_bytes),
				  "staging_refused", number(r.staging_refused), "revalidating", r.revalidating,
				  "revalidated", number(r.revalidated), "revalidation_removed",
				  number(r.revalidation_removed), "backend", backend_json(&r.store));
		json_object_set_new(entry, "loads", json_integer(r.loads));
		json_object_set_new(entry, "loads_waiting", json_integer(r.loads_waiting));
		json_object_set_new(entry, "coherence", feed_json(&r));
		json_object_set_new(entry, "journal", journal_json(&r.store.journal));
		if (r.has_spill)
			json_object_set_new(entry, "spill", spill_json(&r.spill));
		json_array_append_new(list, entry);
	}
	return list;
}

/* The worst of all workers: each has a feed of its own. */
static json_t *coherence_json(struct agent *a)
{
	struct coherence_report worst = {.mode = STORE_SOLE, .known = true, .lease_remaining_ms = UINT64_MAX};
	const char *mode = NULL;
	bool revalidating = false;

	for (uint32_t i = 0; i < a->worker_count; i++) {
		struct worker_report r;
		const struct coherence_report *c = &r.coherence;

		worker_report(a->workers[i], &r);
		/* The less is told, the smaller the number; sole is none of them. */
		if (!mode || !c->known || (worst.known && c->mode < worst.mode))
			mode = mode_name(c), worst.mode = c->mode, worst.known = c->known;
		if (c->lease_remaining_ms < worst.lease_remaining_ms)
			worst.lease_remaining_ms = c->lease_remaining_ms;
		if (c->max_age_ms > worst.max_age_ms)
			worst.max_age_ms = c->max_age_ms;
		if (c->epoch > worst.epoch)
			worst.epoch = c->epoch;
		worst.changes += c->changes;
		worst.checks += c->checks;
		worst.checks_pending += c->checks_pending;
		worst.fences += c->fences;
		revalidating |= r.revalidating;
	}
	return json_pack("{s:s s:I s:I s:I s:I s:b s:I s:I s:I s:I}", "mode", mode, "max_age_ms",
			 number(worst.max_age_ms), "lease_ms", number(a->config->coherence.lease_ms),
			 "lease_remaining_ms", number(worst.lease_remaining_ms), "epoch", number(worst.epoch),
			 "revalidating", revalidating, "changes", number(worst.changes), "checks",
			 number(worst.checks), "checks_pending", number(worst.checks_pending), "fences",
			 number(worst.fences));
}

static json_t *control_json(struct agent *a)
{
	struct control_figures f;

	control_figures(a->control, &f);
	return json_pack("{s:I s:I s:I s:I s:I s:I s:I s:I}", "connections", number(f.connections),
			 "refused_connections", number(f.refused_connections), "requests", number(f.requests),
			 "malformed", number(f.malformed), "timed_out", number(f.timed_out), "attaches",
			 number(f.attaches), "refused_attaches", number(f.refused_attaches), "channels_open",
			 number(f.channels_open));
}

static json_t *audit_json(struct agent *a)
{
	struct audit_figures f = {0};

	if (a->audit)
		audit_figures(a->audit, &f);
	return json_pack("{s:b s:I s:I s:I}", "enabled", a->audit != NULL, "written", number(f.written), "lost",
			 number(f.lost), "suppressed", number(f.suppressed));
}

static json_t *status_json(struct agent *a)
{
	struct worker_report first;

	worker_report(a->workers[0], &first);
	return json_pack("{s:s s:s s:i s:I s:I s:i s:o s:o s:{s:I s:I} s:o s:o s:o s:o s:o}", "version",
			 a->presence.agent->program_version, "instance", a->config->agent.instance, "pid",
			 (int)getpid(), "uptime_ms", number(clock_monotonic_ms() - a->started_ms), "adoptions",
			 number(a->presence.agent->restarts), "workers_count", (int)a->worker_count, "backend",
			 backend_json(&first.store), "coherence", coherence_json(a), "memory", "used_bytes",
			 number(__atomic_load_n(&a->budget.used, __ATOMIC_RELAXED)), "total_bytes",
			 number(a->budget.total), "control", control_json(a), "audit", audit_json(a), "workers",
			 workers_json(a), "total", total_json(a), "tenants", tenants_json(a));
}

void report_hook(void *agent, uint16_t op, control_text_fn *done, void *done_context)
{
	struct agent *a = agent;
	json_t *document;
	char *text;

	if (op == RSHM_CONTROL_STATUS)
		document = status_json(a);
	else if (op == RSHM_CONTROL_CLIENTS)
		document = json_pack("{s:o}", "clients", clients_json(a));
	else if (op == RSHM_CONTROL_EVICTIONS_RESET)
		document = reset_evictions(a);
	else
		document = json_pack("{s:o s:o}", "total", total_json(a), "tenants", tenants_json(a));
	text = document ? json_dumps(document, JSON_COMPACT) : NULL;
	if (text)
		done(done_context, RSHM_OK, text);
	else
		done(done_context, RSHM_E_NOMEM, "no memory for the report");
	free(text);
	json_decref(document);
}
