/*
 * metrics.c - everything that is counted, in the text format of Prometheus (version 0.0.4).
 *
 * A family is one block: its help, its type, then a line for each tenant or worker. So each family walks the list that it
 * tells about; the figures are read once before. Names of the mission's README where it gives one.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent_priv.h"
#include "agent/base/clock.h"
#include "agent/base/metric.h"
#include "agent/report.h"
#include "shm/order.h"

struct tenant_figures {
	const struct tenant *tenant;
	struct rshm_figures figures;
	struct tenant_report report;
};

struct exposition {
	FILE *out;
	struct agent *agent;
	struct tenant_figures *tenants;
	size_t tenant_count;
	struct worker_report *workers;
	uint32_t worker_count;
	struct report_sum *sum;
};

static void family(struct exposition *e, const char *name, const char *type, const char *help)
{
	fprintf(e->out, "# HELP riptide_%s %s\n# TYPE riptide_%s %s\n", name, help, name, type);
}

static void single(struct exposition *e, const char *name, const char *type, const char *help, double value)
{
	family(e, name, type, help);
	fprintf(e->out, "riptide_%s %.15g\n", name, value);
}

/* ---- tenants --------------------------------------------------------------------------------------------------- */

typedef uint64_t tenant_value_fn(const struct tenant_figures *t);

static void of_tenants(struct exposition *e, const char *name, const char *type, const char *help,
		       tenant_value_fn *value)
{
	family(e, name, type, help);
	for (size_t i = 0; i < e->tenant_count; i++)
		fprintf(e->out, "riptide_%s{tenant=\"%s\"} %" PRIu64 "\n", name, e->tenants[i].tenant->id,
			value(&e->tenants[i]));
}

#define TENANT_VALUE(name, expression)                       \
	static uint64_t name(const struct tenant_figures *t) \
	{                                                    \
		return (expression);                         \
	}
TENANT_VALUE(hits, t->figures.hits)
TENANT_VALUE(hit_bytes, t->figures.hit_bytes)
TENANT_VALUE(misses, t->figures.misses)
TENANT_VALUE(stale, t->figures.stale)
TENANT_VALUE(sets, t->figures.sets)
TENANT_VALUE(deletes, t->figures.deletes)
TENANT_VALUE(errors, t->figures.errors)
TENANT_VALUE(operations, t->figures.hits + t->figures.misses + t->figures.sets + t->figures.deletes)
TENANT_VALUE(entries, t->figures.entries)
TENANT_VALUE(used_bytes, t->figures.used_bytes)
TENANT_VALUE(limit_bytes, t->figures.limit_bytes)
TENANT_VALUE(denied, t->report.denied)
TENANT_VALUE(refused_entries, t->report.refused_entries)
TENANT_VALUE(limited, t->report.limited)
TENANT_VALUE(shadowed, t->report.shadowed)
TENANT_VALUE(alerts, t->report.alerts)
TENANT_VALUE(plain_bytes, t->report.plain_bytes)
TENANT_VALUE(stored_bytes, t->report.stored_bytes)
TENANT_VALUE(warming_is_running, t->report.warming)

static void tell_evictions(struct exposition *e)
{
	family(e, "cache_evictions_total", "counter", "Entries that left shared memory, by reason.");
	for (size_t i = 0; i < e->tenant_count; i++)
		for (int reason = 0; reason < EVICTION_REASONS; reason++)
			fprintf(e->out, "riptide_cache_evictions_total{tenant=\"%s\",reason=\"%s\"} %" PRIu64 "\n",
				e->tenants[i].tenant->id, eviction_reason_name((enum eviction_reason)reason),
				e->tenants[i].report.evictions.ever_count[reason]);
	family(e, "cache_evicted_bytes_total", "counter", "Bytes of the entries that left shared memory, by reason.");
	for (size_t i = 0; i < e->tenant_count; i++)
		for (int reason = 0; reason < EVICTION_REASONS; reason++)
			fprintf(e->out,
				"riptide_cache_evicted_bytes_total{tenant=\"%s\",reason=\"%s\"} %" PRIu64 "\n",
				e->tenants[i].tenant->id, eviction_reason_name((enum eviction_reason)reason),
				e->tenants[i].report.evictions.ever_bytes[reason]);
}

static void tell_warming(struct exposition *e)
{
	of_tenants(e, "warming_running", "gauge", "1 while entries are loaded before they are asked for.",
		   warming_is_running);
	family(e, "warming_keys_total", "counter",
	       "Keys that were to be loaded before they were asked for, by result.");
	for (size_t i = 0; i < e->tenant_count; i++) {
		const struct warm_counts *w = &e->tenants[i].report.warmed;
		const char *id = e->tenants[i].tenant->id;

		fprintf(e->out,
			"riptide_warming_keys_total{tenant=\"%s\",result=\"loaded\"} %" PRIu64 "\n"
			"riptide_warming_keys_total{tenant=\"%s\",result=\"absent\"} %" PRIu64 "\n"
			"riptide_warming_keys_total{tenant=\"%s\",result=\"failed\"} %" PRIu64 "\n",
			id, w->loaded, id, w->absent, id, w->failed);
	}
}

/* Of all tenants: 64 buckets for each of a thousand would be more than anybody reads. */
static void tell_access_time(struct exposition *e)
{
	static const uint64_t bounds_ns[] = {50,   100,  150,   200,    300,     500,     1000,
					     2000, 5000, 10000, 100000, 1000000, 5000000, 100000000};
	const struct histogram *h = &e->sum->hit_ns;
	const char *name = "cache_access_duration_seconds";

	family(e, name, "histogram", "Time of a hit, as clients sampled it.");
	for (size_t i = 0; i < sizeof(bounds_ns) / sizeof(bounds_ns[0]); i++)
		fprintf(e->out, "riptide_%s_bucket{le=\"%.9g\"} %" PRIu64 "\n", name, (double)bounds_ns[i] / 1e9,
			histogram_count_up_to(h, bounds_ns[i]));
	fprintf(e->out, "riptide_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, histogram_count(h));
	fprintf(e->out, "riptide_%s_sum %.9g\nriptide_%s_count %" PRIu64 "\n", name, (double)histogram_sum(h) / 1e9,
		name, histogram_count(h));
}

static void tell_tenants(struct exposition *e)
{
	of_tenants(e, "cache_hits_total", "counter", "Reads that found a live entry.", hits);
	of_tenants(e, "cache_misses_total", "counter", "Reads that found none.", misses);
	of_tenants(e, "cache_stale_reads_total", "counter", "Hits that were marked: the copy could not be verified.",
		   stale);
	of_tenants(e, "cache_hit_bytes_total", "counter", "Bytes of values that hits returned.", hit_bytes);
	of_tenants(e, "cache_sets_total", "counter", "Writes.", sets);
	of_tenants(e, "cache_deletes_total", "counter", "Deletes.", deletes);
	of_tenants(e, "cache_errors_total", "counter", "Operations that failed.", errors);
	of_tenants(e, "tenant_operations_total", "counter", "Reads, writes and deletes.", operations);
	of_tenants(e, "cache_entries", "gauge", "Entries in shared memory.", entries);
	of_tenants(e, "cache_memory_bytes", "gauge", "Shared memory that entries take.", used_bytes);
	of_tenants(e, "cache_memory_limit_bytes", "gauge", "What that may grow to.", limit_bytes);
	of_tenants(e, "cache_plain_bytes_total", "counter", "Bytes of values written, before compression.",
		   plain_bytes);
	of_tenants(e, "cache_stored_bytes_total", "counter", "Bytes of values written, as they are stored.",
		   stored_bytes);
	of_tenants(
		e, "tenant_refused_entries_total", "counter",
		"Stored entries that the tenant's keys do not open: changed by others, moved, or of a key that is gone.",
		refused_entries);
	of_tenants(e, "tenant_denied_total", "counter", "Requests that the tenant's rules refused.", denied);
	of_tenants(e, "tenant_limited_total", "counter", "Requests that a quota or rate limit refused.", limited);
	of_tenants(e, "tenant_quota_alerts_total", "counter", "Times that 90 % of a quota came to be used.", alerts);
	of_tenants(e, "tenant_shadowed_total", "counter",
		   "Times that a rate limit in shadow mode would have refused.", shadowed);
	tell_evictions(e);
	tell_warming(e);
	tell_access_time(e);
}

/* ---- workers --------------------------------------------------------------------------------------------------- */

typedef double worker_value_fn(const struct worker_report *r);

static void of_workers(struct exposition *e, const char *name, const char *type, const char *help,
		       worker_value_fn *value)
{
	family(e, name, type, help);
	for (uint32_t i = 0; i < e->worker_count; i++)
		fprintf(e->out, "riptide_%s{worker=\"%" PRIu32 "\"} %.15g\n", name, i, value(&e->workers[i]));
}

#define WORKER_VALUE(name, expression)                    \
	static double name(const struct worker_report *r) \
	{                                                 \
		return (double)(expression);              \
	}
WORKER_VALUE(channels, r->channels)
WORKER_VALUE(requests, r->requests)
WORKER_VALUE(slow, r->slow)
WORKER_VALUE(over_target, r->over_target)
WORKER_VALUE(protocol_errors, r->protocol_errors)
WORKER_VALUE(staging_bytes, r->staging_bytes)
WORKER_VALUE(backend_ready, r->store.ready)
WORKER_VALUE(backend_connections, r->store.connections)
WORKER_VALUE(backend_pending, r->store.pending)
WORKER_VALUE(backend_completed, r->store.completed)
WORKER_VALUE(backend_failed, r->store.failed)
WORKER_VALUE(backend_retried, r->store.retried)
WORKER_VALUE(backend_reconnects, r->store.reconnects)
WORKER_VALUE(cluster_nodes, r->store.nodes)
WORKER_VALUE(cluster_slots, r->store.slots)
WORKER_VALUE(cluster_moved, r->store.moved)
WORKER_VALUE(cluster_asked, r->store.asked)
WORKER_VALUE(feed_armed, r->store.feed.armed)
WORKER_VALUE(feed_changes, r->store.feed.changes)
WORKER_VALUE(feed_canaries, r->store.feed.canaries)
WORKER_VALUE(lease_remaining, (double)r->coherence.lease_remaining_ms / 1000)
WORKER_VALUE(epoch, r->coherence.epoch)
WORKER_VALUE(fences, r->coherence.fences)
WORKER_VALUE(checks, r->coherence.checks)
WORKER_VALUE(checks_pending, r->coherence.checks_pending)
WORKER_VALUE(revalidating, r->revalidating)
WORKER_VALUE(revalidated, r->revalidated)
WORKER_VALUE(revalidation_removed, r->revalidation_removed)
WORKER_VALUE(journal_records, r->store.journal.records)
WORKER_VALUE(journal_bytes, r->store.journal.bytes)
WORKER_VALUE(journal_age, (double)r->store.journal.oldest_ms / 1000)
WORKER_VALUE(journal_accepted, r->store.journal.accepted)
WORKER_VALUE(journal_coalesced, r->store.journal.coalesced)
WORKER_VALUE(journal_flushed, r->store.journal.flushed)
WORKER_VALUE(journal_replayed, r->store.journal.replayed)
WORKER_VALUE(journal_refused, r->store.journal.refused_full)
WORKER_VALUE(spill_bytes, r->spill.bytes_used)
WORKER_VALUE(spill_entries, r->spill.entries)

static void tell_workers(struct exposition *e)
{
	of_workers(e, "channels", "gauge", "Client processes that are connected.", channels);
	of_workers(e, "requests_total", "counter", "Requests that came through channels.", requests);
	of_workers(e, "slow_requests_total", "counter", "Requests above performance.slow_threshold_ms.", slow);
	of_workers(e, "over_target_total", "counter", "Requests above performance.target_cache_access_ms.",
		   over_target);
	of_workers(e, "protocol_errors_total", "counter", "Channels closed because the client broke the protocol.",
		   protocol_errors);
	of_workers(e, "staging_bytes", "gauge", "Memory of requests under way.", staging_bytes);
	of_workers(e, "backend_ready", "gauge", "1 if the backend answers.", backend_ready);
	of_workers(e, "backend_connections", "gauge", "Connections to the backend.", backend_connections);
	of_workers(e, "backend_pending", "gauge", "Requests at the backend.", backend_pending);
	/* Of a server, these are counters that a build with METRICS=0 does not have. */
	if (!RIPTIDE_METRICS && strcmp(e->workers[0].store.name, "embedded") != 0)
		return;
	of_workers(e, "backend_requests_total", "counter", "Requests that the backend answered.", backend_completed);
	of_workers(e, "backend_failures_total", "counter", "Requests that failed.", backend_failed);
	of_workers(e, "backend_retries_total", "counter", "Requests that were sent again.", backend_retried);
	of_workers(e, "backend_reconnects_total", "counter", "Connections made after one was lost.",
		   backend_reconnects);
}

static const char *mode_name(const struct coherence_report *c)
{
	static const char *const names[] = {[STORE_SOLE] = "local",
					    [STORE_TTL] = "ttl",
					    [STORE_CHANNEL] = "channel",
					    [STORE_TRACKING] = "tracking"};

	return c->known ? names[c->mode] : "unknown";
}

static void tell_coherence(struct exposition *e)
{
	family(e, "coherence_mode", "gauge", "How changes of others are learned: 1 for the mode in force.");
	for (uint32_t i = 0; i < e->worker_count; i++)
		fprintf(e->out, "riptide_coherence_mode{worker=\"%" PRIu32 "\",mode=\"%s\"} 1\n", i,
			mode_name(&e->workers[i].coherence));
	of_workers(e, "coherence_feed_armed", "gauge", "1 if the feed of changes works.", feed_armed);
	of_workers(e, "coherence_lease_seconds", "gauge", "How long hot copies are trusted without another proof.",
		   lease_remaining);
	of_workers(e, "coherence_epoch", "gauge", "Epoch of this worker's source; entries of others are unverified.",
		   epoch);
	of_workers(e, "coherence_fences_total", "counter", "Times that all copies became unverified.", fences);
	of_workers(e, "coherence_changes_total", "counter", "Changes that the feed told of.", feed_changes);
	of_workers(e, "coherence_canaries_total", "counter", "Proofs that the feed delivers.", feed_canaries);
	of_workers(e, "coherence_checks_total", "counter", "Changes looked at because they might be our own.",
		   checks);
	of_workers(e, "coherence_checks_pending", "gauge", "The same, now.", checks_pending);
	of_workers(e, "coherence_revalidating", "gauge", "1 while copies are compared with the backend.",
		   revalidating);
	of_workers(e, "coherence_revalidated_total", "counter", "Copies that the backend confirmed.", revalidated);
	of_workers(e, "coherence_revalidation_removed_total", "counter", "Copies that it did not.",
		   revalidation_removed);
}

static bool is_cluster(const struct exposition *e)
{
	for (uint32_t i = 0; i < e->worker_count; i++)
		if (e->workers[i].store.nodes)
			return true;
	return false;
}

static void tell_cluster(struct exposition *e)
{
	of_workers(e, "cluster_nodes", "gauge", "Nodes of the Redis Cluster that are in use.", cluster_nodes);
	of_workers(e, "cluster_slots", "gauge", "Slots that have an owner, of 16384.", cluster_slots);
	of_workers(e, "cluster_moved_total", "counter", "Requests that a node sent on for good.", cluster_moved);
	of_workers(e, "cluster_asked_total", "counter", "Requests that a node sent on for now.", cluster_asked);
}

static void tell_disk(struct exposition *e)
{
	of_workers(e, "journal_records", "gauge", "Writes accepted and not yet stored.", journal_records);
	of_workers(e, "journal_bytes", "gauge", "Their bytes.", journal_bytes);
	of_workers(e, "journal_oldest_seconds", "gauge", "Age of the oldest of them.", journal_age);
	of_workers(e, "journal_accepted_total", "counter", "Writes acknowledged from the journal.", journal_accepted);
	of_workers(e, "journal_coalesced_total", "counter",
		   "Of these, replaced by a newer one before they were stored.", journal_coalesced);
	of_workers(e, "journal_flushed_total", "counter", "Of these, stored.", journal_flushed);
	of_workers(e, "journal_replayed_total", "counter", "Writes taken over from before the start.",
		   journal_replayed);
	of_workers(e, "journal_refused_total", "counter", "Writes refused because the journal was full.",
		   journal_refused);
	if (!e->workers[0].has_spill)
		return;
	of_workers(e, "spill_bytes", "gauge", "Disk that spilled entries take.", spill_bytes);
	of_workers(e, "spill_entries", "gauge", "Entries on the disk tier.", spill_entries);
	family(e, "spillover_operations_total", "counter", "Entries that went to the disk tier, and came back.");
	for (uint32_t i = 0; i < e->worker_count; i++)
		fprintf(e->out,
			"riptide_spillover_operations_total{worker=\"%" PRIu32 "\",operation=\"spill\"} %" PRIu64 "\n"
			"riptide_spillover_operations_total{worker=\"%" PRIu32 "\",operation=\"restore\"} %" PRIu64
			"\n",
			i, e->workers[i].spill.total_spilled, i, e->workers[i].spill.total_restored);
}

/* ---- the agent -------------------------------------------------------------------------------------------------- */

static void tell_agent(struct exposition *e)
{
	struct agent *a = e->agent;
	struct control_figures control;

	control_figures(a->control, &control);
	family(e, "info", "gauge", "1; what runs.");
	fprintf(e->out, "riptide_info{version=\"%s\",instance=\"%s\"} 1\n", a->presence.agent->program_version,
		a->config->agent.instance);
	single(e, "uptime_seconds", "gauge", "Since the agent began to serve.",
	       (double)(clock_monotonic_ms() - a->started_ms) / 1000);
	single(e, "adoptions_total", "counter", "Times that shared memory outlived its agent.",
	       (double)a->presence.agent->restarts);
	single(e, "memory_bytes", "gauge", "Shared memory of all tenants.",
	       (double)__atomic_load_n(&a->budget.used, __ATOMIC_RELAXED));
	single(e, "memory_limit_bytes", "gauge", "What that may grow to.", (double)a->budget.total);
	single(e, "tenants", "gauge", "Tenants that are open on this host.", (double)e->tenant_count);
	single(e, "control_requests_total", "counter", "Requests of the control socket.", (double)control.requests);
	single(e, "control_malformed_total", "counter", "Messages that were none.", (double)control.malformed);
	single(e, "attaches_total", "counter", "Processes that were let in.", (double)control.attaches);
	single(e, "attaches_refused_total", "counter", "Processes that were not.", (double)control.refused_attaches);
}

static bool read_figures(struct exposition *e)
{
	struct agent *a = e->agent;
	struct rshm_figures *all = rshm_agent_tenants(a->presence.agent);
	size_t count = tenant_count(a->tenants);

	e->tenants = calloc(count + 1, sizeof(*e->tenants));
	e->workers = calloc(a->worker_count, sizeof(*e->workers));
	e->sum = report_sum(a);
	if (!e->tenants || !e->workers || !e->sum)
		return false;
	for (size_t i = 0; i < count; i++) {
		struct tenant_figures *t = &e->tenants[e->tenant_count];

		t->tenant = tenant_at(a->tenants, i);
		rshm_copy_out(&t->figures, &all[t->tenant->place],
			      sizeof(t->figures)); /* a worker may be writing them */
		e->tenant_count += worker_tenant_report(a->workers[t->tenant->worker], t->tenant, &t->report);
	}
	e->worker_count = a->worker_count;
	for (uint32_t i = 0; i < a->worker_count; i++)
		worker_report(a->workers[i], &e->workers[i]);
	return true;
}

char *metrics_text(struct agent *agent)
{
	struct exposition e = {.agent = agent};
	char *text = NULL;
	size_t length;

	e.out = read_figures(&e) ? open_memstream(&text, &length) : NULL;
	if (e.out) {
		tell_agent(&e);
		tell_tenants(&e);
		tell_workers(&e);
		tell_coherence(&e);
		if (is_cluster(&e))
			tell_cluster(&e);
		tell_disk(&e);
		if (fclose(e.out) != 0) {
			free(text);
			text = NULL;
		}
	}
	free(e.tenants);
	free(e.workers);
	free(e.sum);
	return text;
}
