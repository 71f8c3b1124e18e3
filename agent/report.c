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
#include "agent/report.h"
#include "agent/base/clock.h"
#include "agent/base/metric.h"
#include "shm/order.h"
#include "shm/source.h"

static json_int_t number(uint64_t value)
{
	return (json_int_t)value;
}

static json_t *reset_evictions(struct agent *a)
{
	for (uint32_t i = 0; i < a->worker_count; i++)
		worker_reset_evictions(a->workers[i]);
	return json_pack("{s:b}", "reset", true);
}

static json_t *clients_json(struct agent *a, const struct control_peer *peer)
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
		if (peer && f.user_id != peer->uid)
			continue;
		entry = report_figures(&f);
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
	json_t *entry =
		json_pack("{s:s s:b s:s s:i s:i s:I s:I s:I}", "name", s->name, "ready", s->ready, "detail",
			  s->detail, "connections", (int)s->connections, "connections_max", (int)s->connections_max,
			  "pending", number(s->pending), "entries", number(s->entries), "bytes", number(s->bytes));

	/* Of a server, these are counters that a build with METRICS=0 does not have. */
	if (RIPTIDE_METRICS || strcmp(s->name, "embedded") == 0) {
		json_object_set_new(entry, "completed", json_integer(number(s->completed)));
		json_object_set_new(entry, "failed", json_integer(number(s->failed)));
		json_object_set_new(entry, "retried", json_integer(number(s->retried)));
		json_object_set_new(entry, "reconnects", json_integer(number(s->reconnects)));
	}
	if (s->nodes)
		json_object_set_new(entry, "cluster",
				    json_pack("{s:I s:I s:I s:I}", "nodes", number(s->nodes), "slots",
					      number(s->slots), "moved", number(s->moved), "asked",
					      number(s->asked)));
	return entry;
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

static json_t *status_json(struct agent *a, const struct control_peer *peer)
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
			 workers_json(a), "total", report_total(a, peer), "tenants", report_tenants(a, peer));
}

static json_t *metrics_json(struct agent *a)
{
	char *text = metrics_text(a);
	json_t *document = text ? json_pack("{s:s}", "text", text) : NULL;

	free(text);
	return document;
}

void report_hook(void *agent, uint16_t op, const struct control_peer *asking, control_text_fn *done,
		 void *done_context)
{
	bool by_operator = asking->uid == 0 || asking->uid == geteuid();
	const struct control_peer *peer = by_operator ? NULL : asking;
	struct agent *a = agent;
	json_t *document;
	char *text;

	if (op == RSHM_CONTROL_STATUS)
		document = status_json(a, peer);
	else if (op == RSHM_CONTROL_METRICS)
		document = metrics_json(a);
	else if (op == RSHM_CONTROL_CLIENTS)
		document = json_pack("{s:o}", "clients", clients_json(a, peer));
	else if (op == RSHM_CONTROL_EVICTIONS_RESET)
		document = reset_evictions(a);
	else
		document = json_pack("{s:o s:o}", "total", report_total(a, peer), "tenants", report_tenants(a, peer));
	text = document ? json_dumps(document, JSON_COMPACT) : NULL;
	if (text)
		done(done_context, RSHM_OK, text);
	else
		done(done_context, RSHM_E_NOMEM, "no memory for the report");
	free(text);
	json_decref(document);
}
