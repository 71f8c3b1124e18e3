/*
 * events.c - what the audit log is told of the control plane: every refusal, and every operation that lets someone in,
 * changes something, or reads what is not for everybody. Successful PING, DETACH, STATUS, STATS and CLIENTS are not told.
 */
#include <stdio.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/control/control_priv.h"

#define NAME_BYTES 24u

bool peer_is_operator(const struct control_peer *peer)
{
	return peer->uid == 0 || peer->uid == geteuid();
}

/* NULL: no operation of ours. */
static const char *operation_name(uint16_t op)
{
	switch (op) {
	case RSHM_CONTROL_ATTACH:
		return "attach";
	case RSHM_CONTROL_DETACH:
		return "detach";
	case RSHM_CONTROL_PING:
		return "ping";
	case RSHM_CONTROL_STATUS:
		return "status";
	case RSHM_CONTROL_STATS:
		return "stats";
	case RSHM_CONTROL_CLIENTS:
		return "clients";
	case RSHM_CONTROL_RELOAD:
		return "reload";
	case RSHM_CONTROL_DICT_LIST:
		return "dict list";
	case RSHM_CONTROL_DICT_TRAIN:
		return "dict train";
	case RSHM_CONTROL_DICT_SHOW:
		return "dict show";
	case RSHM_CONTROL_DICT_DROP:
		return "dict drop";
	case RSHM_CONTROL_EVICTIONS_RESET:
		return "evictions reset";
	case RSHM_CONTROL_AUDIT:
		return "audit";
	case RSHM_CONTROL_METRICS:
		return "metrics";
	case RSHM_CONTROL_TENANT_CREATE:
		return "tenant create";
	case RSHM_CONTROL_TENANT_GET:
		return "tenant get";
	case RSHM_CONTROL_TENANT_LIST:
		return "tenant list";
	case RSHM_CONTROL_TENANT_UPDATE:
		return "tenant update";
	case RSHM_CONTROL_TENANT_SUSPEND:
		return "tenant suspend";
	case RSHM_CONTROL_TENANT_RESUME:
		return "tenant resume";
	case RSHM_CONTROL_TENANT_DISABLE:
		return "tenant disable";
	case RSHM_CONTROL_TENANT_DELETE:
		return "tenant delete";
	case RSHM_CONTROL_TENANT_TOKENS:
		return "token list";
	case RSHM_CONTROL_TENANT_TOKEN_CREATE:
		return "token create";
	case RSHM_CONTROL_TENANT_TOKEN_ROTATE:
		return "token rotate";
	case RSHM_CONTROL_TENANT_TOKEN_REVOKE:
		return "token revoke";
	case RSHM_CONTROL_TENANT_ROTATE_KEY:
		return "tenant rotate-key";
	case RSHM_CONTROL_TENANT_REWRAP:
		return "tenant rewrap";
	case RSHM_CONTROL_TENANT_KEYS:
		return "tenant keys";
	case RSHM_CONTROL_TENANT_ACCESS:
		return "tenant access";
	default:
		return NULL;
	}
}

static bool is_everybodys(uint16_t op)
{
	return (op >= RSHM_CONTROL_DETACH && op <= RSHM_CONTROL_CLIENTS) || op == RSHM_CONTROL_METRICS;
}

static bool is_operators(uint16_t op)
{
	return operation_name(op) && op != RSHM_CONTROL_ATTACH && !is_everybodys(op);
}

static const char *text_or_null(const char *text)
{
	return text[0] != '\0' ? text : NULL;
}

void event_of_request(struct control *control, const struct control_peer *peer, uint16_t op,
		      const struct event_object *object, int status, const char *detail)
{
	const char *name = operation_name(op);
	bool by_operator = is_operators(op) && peer_is_operator(peer);
	char number[NAME_BYTES];
	struct audit_event event = {
		.wall_ms = clock_realtime_ms(),
		/* What an operator does is told each time: it cannot be hidden behind a flood of the same user. */
		.limited = !by_operator,
		.uid = peer->uid,
		.gid = peer->gid,
		.pid = peer->pid,
		.role = by_operator ? "admin" : NULL,
		.what = name,
		.tenant = text_or_null(object->tenant),
		.on = text_or_null(object->about),
		.detail = detail,
		.status = status,
	};

	if (status >= 0 && is_everybodys(op))
		return;
	if (!name) {
		snprintf(number, sizeof(number), "operation %u", (unsigned int)op);
		event.what = number;
	}
	audit_write(control->options.audit, &event);
}

void event_of_connection(struct control *control, const struct control_peer *peer, const char *what, int status,
			 const char *detail)
{
	struct audit_event event = {
		.wall_ms = clock_realtime_ms(),
		.limited = true,
		.uid = peer->uid,
		.gid = peer->gid,
		.pid = peer->pid,
		.what = what,
		.detail = detail,
		.status = status,
	};

	audit_write(control->options.audit, &event);
}
