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

static json_t *tenants_json(struct agent *a)
{
	struct rshm_figures *all = rshm_agent_tenants(a->presence.agent);
	json_t *list = json_array();

	for (size_t i = 0; i < tenant_count(a->tenants); i++) {
		const struct tenant *tenant = tenant_at(a->tenants, i);
		struct rshm_figures copy, *f = &copy;
		json_t *entry;

		rshm_copy_out(f, &all[i], sizeof(copy)); /* a worker may be writing them */
		entry = figures_json(f);

		json_object_set_new(entry, "tenant", json_string(tenant->id));
		json_object_set_new(entry, "worker", json_integer(tenant->worker));
		json_object_set_new(entry, "entries", json_integer(number(f->entries)));
		json_object_set_new(entry, "used_bytes", json_integer(number(f->used_bytes)));
		json_object_set_new(entry, "limit_bytes", json_integer(number(f->limit_bytes)));
		json_object_set_new(entry, "evictions", json_integer(number(f->evictions)));
		json_array_append_new(list, entry);
	}
	return list;
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

static json_t *workers_json(struct agent *a)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < a->worker_count; i++) {
		struct worker_report r;

		worker_report(a->workers[i], &r);
		json_array_append_new(list,
				      json_pack("{s:i s:i s:i s:I s:I s:I s:I s:I s:I s:I s:b s:I s:I s:o}", "worker",
						(int)i, "channels", (int)r.channels, "inflight", (int)r.inflight,
						"requests", number(r.requests), "slow", number(r.slow), "over_target",
						number(r.over_target), "ended_channels", number(r.ended_channels),
						"protocol_errors", number(r.protocol_errors), "staging_bytes",
						number(r.staging_bytes), "staging_refused", number(r.staging_refused),
						"revalidating", r.revalidating, "revalidated", number(r.revalidated),
						"revalidation_removed", number(r.revalidation_removed), "backend",
						backend_json(&r.store)));
	}
	return list;
}

/* With one host's embedded store nobody else writes; with Redis, hot copies are as old as max_age at most. */
static json_t *coherence_json(struct agent *a)
{
	const struct rshm_source *source = &a->presence.agent->sources[a->serve.source];
	bool redis = a->config->agent.backend == CONFIG_BACKEND_REDIS;
	uint64_t now_ms = clock_monotonic_ms(), until = source->lease_until_ms;

	return json_pack("{s:s s:I s:I s:I s:I s:b}", "mode", redis ? "ttl" : "local", "max_age_ms",
			 number(redis ? a->config->coherence.max_age_ms : 0), "lease_ms",
			 number(a->config->coherence.lease_ms), "lease_remaining_ms",
			 number(until > now_ms ? until - now_ms : 0), "epoch", number(rshm_source_epoch(source)),
			 "revalidating", a->revalidating);
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

static json_t *status_json(struct agent *a)
{
	struct worker_report first;

	worker_report(a->workers[0], &first);
	return json_pack("{s:s s:s s:i s:I s:I s:i s:o s:o s:{s:I s:I} s:o s:o s:o}", "version",
			 a->presence.agent->program_version, "instance", a->config->agent.instance, "pid",
			 (int)getpid(), "uptime_ms", number(clock_monotonic_ms() - a->started_ms), "adoptions",
			 number(a->presence.agent->restarts), "workers_count", (int)a->worker_count, "backend",
			 backend_json(&first.store), "coherence", coherence_json(a), "memory", "used_bytes",
			 number(__atomic_load_n(&a->budget.used, __ATOMIC_RELAXED)), "total_bytes",
			 number(a->budget.total), "control", control_json(a), "workers", workers_json(a), "tenants",
			 tenants_json(a));
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
	else
		document = json_pack("{s:o}", "tenants", tenants_json(a));
	text = document ? json_dumps(document, JSON_COMPACT) : NULL;
	if (text)
		done(done_context, RSHM_OK, text);
	else
		done(done_context, RSHM_E_NOMEM, "no memory for the report");
	free(text);
	json_decref(document);
}
