/*
 * admission.c - from an attaching process to a channel: may it, where is its segment, who serves it.
 *
 * A binding carries the decision from attach to connect, across the client's way to the doorbell.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent_priv.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/tenants.h"

struct binding {
	const struct tenant *tenant;
	struct live_tenant *live;
	struct admission_terms terms;
	uint32_t place;
	char program[48];
};

static bool take_place(struct agent *a, struct live_tenant *live, uint32_t *ret)
{
	for (uint32_t i = 0; i < a->client_place_count; i++) {
		if (a->client_places[i].taken)
			continue;
		a->client_places[i] = (struct client_place){.taken = true, .live = live};
		if (live)
			live_tenant_use(live);
		*ret = i;
		return true;
	}
	return false;
}

static void give_place(struct agent *a, uint32_t place)
{
	struct live_tenant *live = a->client_places[place].live;

	a->client_places[place] = (struct client_place){.taken = false};
	if (live)
		live_tenant_unuse(a, live);
}

static void refuse(control_attached_fn *done, void *context, int status, const char *text)
{
	struct control_attached attached = {.status = status, .error_text = text};

	done(context, &attached);
}

void admission_accept(struct agent *a, const struct tenant *tenant, struct live_tenant *live,
		      const struct control_attach *attach, const struct admission_terms *terms,
		      control_attached_fn *done, void *done_context)
{
	struct binding *binding = calloc(1, sizeof(*binding));
	struct control_attached attached = {
		.status = RSHM_OK,
		.entry_limit = a->config->cache.max_entry_size_bytes + RSHM_KEY_MAX + RSHM_METADATA_MAX,
		.binding = binding,
	};
	char name[RSHM_NAME_MAX];

	if (!binding || !take_place(a, live, &binding->place)) {
		free(binding);
		refuse(done, done_context, RSHM_E_AGAIN, "no place for another client; raise limits.max_clients");
		return;
	}
	binding->tenant = tenant;
	binding->live = live;
	binding->terms = *terms;
	snprintf(binding->program, sizeof(binding->program), "%s", attach->program);
	if (!attach->clock_differs && !tenant->cold &&
	    worker_locate(a->workers[tenant->worker], tenant, name, &attached.segment_size))
		attached.segment_object = name;
	done(done_context, &attached);
}

void admission_refuse(const struct control_attach *attach, control_attached_fn *done, void *done_context)
{
	char text[256];

	/* The same answer for a tenant that is not there and one that is not for this user: names are not to be probed. */
	snprintf(
		text, sizeof(text),
		"Invalid tenant access: tenant %s not found or access denied for uid %u; see the users and groups of its "
		"tenant section or record",
		attach->tenant, (unsigned int)attach->peer.uid);
	refuse(done, done_context, RSHM_E_NOTENANT, text);
}

void admission_attach(void *agent, const struct control_attach *attach, control_attached_fn *done, void *done_context)
{
	struct agent *a = agent;
	const struct tenant *tenant = tenant_find(a->tenants, attach->tenant);

	if (a->live && (!tenant || live_tenants_have(a, tenant)))
		live_tenants_attach(a, attach, done, done_context);
	else if (tenant && tenant_permits(tenant, attach->peer.uid, attach->peer.gid))
		admission_accept(a, tenant, NULL, attach, &(struct admission_terms){.read_only = false}, done,
				 done_context);
	else
		admission_refuse(attach, done, done_context);
}

void admission_connect(void *agent, void *binding, const struct control_peer *peer, int fd, uint64_t channel_id)
{
	struct agent *a = agent;
	struct binding *b = binding;
	struct worker_client client = {
		.fd = fd,
		.uid = peer->uid,
		.gid = peer->gid,
		.pid = peer->pid,
		.channel_id = channel_id,
		.figures_index = b->place,
		.tenant = b->tenant,
		.read_only = b->terms.read_only,
		.until_ms = b->terms.until_ms,
	};

	memcpy(client.program, b->program, sizeof(client.program));
	if (!worker_connect(a->workers[b->tenant->worker], &client)) {
		log_warn("agent", "uid %u: the worker of tenant %s is too busy for another channel",
			 (unsigned int)peer->uid, b->tenant->id);
		close(fd);
		control_channel_closed(a->control, peer->uid);
		give_place(a, b->place);
	}
	free(b);
}

void admission_release(void *agent, void *binding)
{
	struct agent *a = agent;
	struct binding *b = binding;

	give_place(a, b->place);
	free(b);
}

/* ---- ends of channels --------------------------------------------------------------------------------------- */

struct closed_message {
	struct mailbox_message message; /* first */
	struct agent *agent;
	uid_t uid;
	uint32_t place;
};

static void closed_on_arrival(struct mailbox_message *message)
{
	struct closed_message *closed = (struct closed_message *)message;
	struct agent *a = closed->agent;

	give_place(a, closed->place);
	if (a->control)
		control_channel_closed(a->control, closed->uid);
	free(closed);
}

void admission_channel_closed(void *agent, uid_t uid, uint32_t figures_index)
{
	struct agent *a = agent;
	struct closed_message *closed = malloc(sizeof(*closed));

	if (!closed)
		return;
	*closed = (struct closed_message){
		.message = {.handle = closed_on_arrival},
		.agent = a,
		.uid = uid,
		.place = figures_index,
	};
	/* Bounded by the number of channels, which is below the mailbox's limit. */
	if (!mailbox_post(&a->mailbox, &closed->message))
		free(closed);
}

/* ---- refusals of the data plane, for the audit log ------------------------------------------------------------- */

struct refused_message {
	struct mailbox_message message; /* first */
	struct agent *agent;
	uint64_t wall_ms;
	uid_t uid;
	gid_t gid;
	pid_t pid;
	bool read_only;
	char tenant[RSHM_TENANT_MAX + 1], what[33], on[129], why[129];
};

static void refused_on_arrival(struct mailbox_message *message)
{
	struct refused_message *refused = (struct refused_message *)message;

	audit_write(refused->agent->audit, &(struct audit_event){
						   .wall_ms = refused->wall_ms,
						   .limited = true,
						   .uid = refused->uid,
						   .gid = refused->gid,
						   .pid = refused->pid,
						   .role = refused->read_only ? "read_only" : NULL,
						   .what = refused->what,
						   .tenant = refused->tenant,
						   .on = refused->on,
						   .detail = refused->why,
						   .status = RSHM_E_DENIED,
					   });
	free(refused);
}

void admission_refused(void *agent, const struct serve_refusal *refusal)
{
	struct agent *a = agent;
	struct refused_message *refused = a->audit ? malloc(sizeof(*refused)) : NULL;

	/* Without memory it is in the log and in the counters only. */
	if (!refused)
		return;
	*refused = (struct refused_message){
		.message = {.handle = refused_on_arrival},
		.agent = a,
		.wall_ms = clock_realtime_ms(),
		.uid = refusal->uid,
		.gid = refusal->gid,
		.pid = refusal->pid,
		.read_only = refusal->read_only,
	};
	snprintf(refused->tenant, sizeof(refused->tenant), "%s", refusal->tenant);
	snprintf(refused->what, sizeof(refused->what), "%s", refusal->action);
	snprintf(refused->on, sizeof(refused->on), "key %.124s", refusal->resource);
	snprintf(refused->why, sizeof(refused->why), "%s", refusal->why);
	if (!mailbox_post(&a->mailbox, &refused->message))
		free(refused);
}
