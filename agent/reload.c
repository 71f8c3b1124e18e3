/*
 * reload.c - reads the whole configuration again, and applies what can be applied to a running agent.
 *
 * A bad file changes nothing. A changed option that needs a restart keeps its old value until then, and is named.
 */
#include <jansson.h>
#include <stdlib.h>

#include "agent/agent_priv.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/lifecycle.h"

static void list_change(void *context, const struct config_change *change)
{
	json_t *list = context;

	json_array_append_new(list,
			      json_pack("{s:s s:s? s:s? s:s}", "option", change->name, "before", change->before,
					"after", change->after, "effect", change->live ? "applied" : "restart"));
	log_info("config", "%s: %s: %s -> %s", change->live ? "applied" : "needs a restart", change->name,
		 change->before ? change->before : "(none)", change->after ? change->after : "(none)");
}

static void apply_eviction(struct agent *a, const struct config *fresh)
{
	a->config->cache.eviction_policy = fresh->cache.eviction_policy;
	for (size_t i = 0; i < a->config->tenants_count; i++) {
		struct config_tenant *now = &a->config->tenants[i];
		const struct config_tenant *then = config_find_tenant(fresh, now->name);
		const struct tenant *tenant = tenant_find(a->tenants, now->name);

		if (!then || !tenant || then->eviction_policy == now->eviction_policy)
			continue;
		now->eviction_policy = then->eviction_policy;
		worker_set_eviction(a->workers[tenant->worker], tenant, (enum hot_policy)then->eviction_policy);
	}
}

/* The options whose table entry says `live`. */
static void apply(struct agent *a, const struct config *fresh)
{
	a->config->log.level = fresh->log.level;
	a->config->log.format = fresh->log.format;
	a->config->agent.shutdown_timeout_seconds = fresh->agent.shutdown_timeout_seconds;
	log_setup(fresh->log.format, fresh->log.level);
	apply_eviction(a, fresh);
}

void reload_hook(void *agent, control_text_fn *done, void *done_context)
{
	struct agent *a = agent;
	char error[CONFIG_ERROR_MAX];
	struct config *fresh = NULL;
	json_t *changes;
	char *text;

	lifecycle_notify_reloading();
	if (config_load(a->sources, &fresh, error, sizeof(error)) < 0) {
		log_error("config", "not reloaded, the old configuration stays in force: %s", error);
		lifecycle_notify_ready("serving; the last reload failed");
		done(done_context, RSHM_E_INVALID, error);
		return;
	}
	changes = json_array();
	config_compare(a->config, fresh, list_change, changes);
	apply(a, fresh);
	config_destroy(&fresh);
	lifecycle_notify_ready("serving");
	changes = json_pack("{s:o}", "changes", changes);
	text = json_dumps(changes, JSON_COMPACT);
	done(done_context, text ? RSHM_OK : RSHM_E_NOMEM, text ? text : "no memory for the report");
	free(text);
	json_decref(changes);
}

static void tell_audit(void *context, int status, const char *json)
{
	struct agent *a = context;
	struct audit_event event = {
		.wall_ms = clock_realtime_ms(),
		.by_nobody = true, /* a signal's sender is not known */
		.what = "reload",
		.on = "SIGHUP",
		.detail = status < 0 ? json : NULL,
		.status = status,
	};

	audit_write(a->audit, &event);
}

void reload_now(struct agent *agent)
{
	reload_hook(agent, tell_audit, agent);
}
