/*
 * tenants_admit.c - processes that ask for a tenant of the backend: they wait until what is known of it is fresh, then are let in
 * or refused. A user who may not is told the same as for a tenant that is not there,
 * whatever state it is in.
 */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/tenants_priv.h"

static void free_waiting(struct waiting *waiting)
{
	sodium_memzero(waiting->token, sizeof(waiting->token));
	free(waiting);
}

static void answer_waiting(struct waiting *waiting, int status, const char *text)
{
	struct control_attached attached = {.status = status, .error_text = text};

	waiting->done(waiting->context, &attached);
	free_waiting(waiting);
}

void live_refuse_all(struct live_tenant *live, int status, const char *text)
{
	struct waiting *waiting = live->attaches;

	live->attaches = NULL;
	while (waiting) {
		struct waiting *next = waiting->next;

		answer_waiting(waiting, status, text);
		waiting = next;
	}
}

static void refuse_forbidden(const struct live_tenant *live, struct waiting *waiting)
{
	const char *reason = json_string_value(json_object_get(live->record->document, "status_reason"));
	struct waiting *next;
	char text[400];

	snprintf(text, sizeof(text), "tenant %s is %s%s%s", live->id, tenant_status_name(live->record->status),
		 reason && reason[0] ? ": " : "", reason ? reason : "");
	for (; waiting; waiting = next) {
		next = waiting->next;
		answer_waiting(waiting, RSHM_E_DENIED, text);
	}
}

/* RSHM_OK, or why a peer that is of the right user is not let in. */
static int check_token(const struct live_tenant *live, const struct control_attach *attach,
		       struct admission_terms *ret)
{
	struct token_checked checked = {.role = TOKEN_TENANT};
	struct token_set *tokens;
	int status;

	*ret = (struct admission_terms){.read_only = false};
	if (attach->token_len == 0)
		return live->record->token_required ? RSHM_E_DENIED : RSHM_OK;
	status = tenant_record_tokens(live->record, &tokens);
	if (status < 0)
		return status;
	status = token_verify(tokens, attach->token, attach->token_len, clock_realtime_ms(), &checked);
	token_set_destroy(&tokens);
	if (status < 0)
		log_warn("agent", "uid %u, tenant %s: token %s is %s", (unsigned int)attach->peer.uid, live->id,
			 checked.id, token_verdict_name(checked.verdict));
	ret->read_only = checked.role == TOKEN_READ_ONLY;
	ret->until_ms = checked.until_ms;
	return status;
}

/* Refuses it, which frees it, and returns true, or finds that it may come in. */
static bool refuse_if_wrong(struct live_tenant *live, struct waiting *waiting, struct admission_terms *ret)
{
	const struct control_attach *attach = &waiting->attach;
	char text[160];
	int status;

	if (!tenant_permits(live->tenant, attach->peer.uid, attach->peer.gid)) {
		admission_refuse(attach, waiting->done, waiting->context);
		free_waiting(waiting);
		return true;
	}
	status = check_token(live, attach, ret);
	if (status == RSHM_OK)
		return false;
	snprintf(text, sizeof(text), "tenant %s: %s", live->id,
		 attach->token_len == 0 ? "a token is required; give one when the handle is opened"
					: "this token is not accepted");
	answer_waiting(waiting, status, text);
	return true;
}

void live_admit_all(struct live_tenant *live)
{
	while (live->attaches) {
		struct waiting *waiting = live->attaches;
		struct admission_terms terms;

		live->attaches = waiting->next;
		if (refuse_if_wrong(live, waiting, &terms))
			continue;
		admission_accept(live->agent, live->tenant, live, &waiting->attach, &terms, waiting->done,
				 waiting->context);
		free_waiting(waiting);
	}
}

bool live_sift(struct live_tenant *live)
{
	struct waiting *waiting = live->attaches, *forbidden = NULL;
	struct admission_terms terms;
	bool left = false;

	live->attaches = NULL;
	while (waiting) {
		struct waiting *next = waiting->next, **list = &live->attaches;

		if (!waiting->considered || !refuse_if_wrong(live, waiting, &terms)) {
			if (waiting->considered && !live_is_permitted(live))
				list = &forbidden;
			else
				left |= waiting->considered;
			waiting->next = *list;
			*list = waiting;
		}
		waiting = next;
	}
	refuse_forbidden(live, forbidden);
	return left;
}

void live_tenants_attach(struct agent *a, const struct control_attach *attach, control_attached_fn *done,
			 void *done_context)
{
	struct control_attached attached = {.status = RSHM_E_NOMEM, .error_text = "the agent has no memory left"};
	struct waiting *waiting = calloc(1, sizeof(*waiting));
	struct live_tenant *live;

	if (!tenant_id_is_valid(attach->tenant) || attach->token_len > TOKEN_BYTES_MAX) {
		free(waiting);
		admission_refuse(attach, done, done_context);
		return;
	}
	live = waiting ? live_find_or_make(a, attach->tenant) : NULL;
	if (!live) {
		free(waiting);
		done(done_context, &attached);
		return;
	}
	waiting->attach = *attach;
	snprintf(waiting->tenant, sizeof(waiting->tenant), "%s", attach->tenant);
	snprintf(waiting->program, sizeof(waiting->program), "%s", attach->program);
	if (attach->token_len > 0)
		memcpy(waiting->token, attach->token, attach->token_len);
	waiting->attach.tenant = waiting->tenant;
	waiting->attach.program = waiting->program;
	waiting->attach.token = waiting->token;
	waiting->done = done;
	waiting->context = done_context;
	waiting->next = live->attaches;
	live->attaches = waiting;
	if (!live_is_fresh(live))
		live_doubt(live);
	live_evaluate(live);
}

void live_refuse_unknown(struct live_tenant *live)
{
	while (live->attaches) {
		struct waiting *waiting = live->attaches;

		live->attaches = waiting->next;
		admission_refuse(&waiting->attach, waiting->done, waiting->context);
		free_waiting(waiting);
	}
}
