/*
 * tenants.h - the tenants of the backend as this agent serves them. Main loop; nothing blocks unless said.
 *
 * A tenant is opened when a process first asks for it, kept in step with its record, and closed when it is suspended, deleted,
 * changed in what its segment was made from, or not used for a while. The registry's connections are made when something is
 * first asked of it: an agent that serves only tenants of its configuration has none.
 */
#ifndef RIPTIDE_TENANTS_H
#define RIPTIDE_TENANTS_H

#include <stdbool.h>

#include "agent/control/control.h"
#include "agent/tenant/registry.h"

struct agent;
struct tenant;
struct live_tenant;
struct live_tenants;

/* RSHM_E_NOMEM. */
int live_tenants_create(struct agent *agent);
/* The workers run: what was offered is taken up. */
void live_tenants_begin(struct agent *agent);
/* Asks for nothing more; `closed` is called from the loop when the store is closed. The workers have ended. */
void live_tenants_close(struct agent *agent, void (*closed)(void *context), void *context);
/* After the loop. */
void live_tenants_destroy(struct agent *agent);
void live_tenants_beat(struct agent *agent);

/* A segment of a predecessor, to be adopted when its tenant is found fit to be open, else removed. False: no memory. */
bool live_tenants_offer(struct agent *agent, const char *id, const char *segment);

/* Which worker serves a tenant of the backend: its id alone decides, in every run. */
uint32_t live_tenant_worker(const struct agent *agent, const char *id);
/* Sets its numbers and shards. */
int live_tenant_number(struct agent *agent, struct tenant *tenant);
/* Is it one of ours, not of the configuration? */
bool live_tenants_have(const struct agent *agent, const struct tenant *tenant);
/* Opens its store when first asked for. NULL: that failed, `error` says why. */
struct registry *live_tenants_registry(struct agent *agent, char *error, size_t error_len);

/* As the control plane's hook; the tenant is none of the configuration. */
void live_tenants_attach(struct agent *agent, const struct control_attach *attach, control_attached_fn *done,
			 void *done_context);
/* A place for a client is held; see struct client_place. */
void live_tenant_use(struct live_tenant *live);
void live_tenant_unuse(struct agent *agent, struct live_tenant *live);

/*
 * The record of the tenant was changed by us: it is read again, and `done` called, once, when no reader of this host finds
 * anything that it forbids.
 */
void live_tenants_refresh(struct agent *agent, const char *id, void (*done)(void *context), void *context);
/* Calls `then`, once, when nothing of the tenant is open here; its record forbids its use. */
void live_tenants_await_closed(struct agent *agent, const char *id, void (*then)(void *context), void *context);

/* tenant_keys.c: reads the master key, if there is one; with a text what is wrong with it. Blocks on the disk. */
int tenant_keys_open(struct agent *agent, char *error, size_t error_len);
/* After the workers. */
void tenant_keys_forget(struct agent *agent);

/* tenant_admin.c: the control plane's hook. */
void tenant_admin_hook(void *agent, const struct control_tenant *request, control_text_fn *done, void *done_context);

#endif
