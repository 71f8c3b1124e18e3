/*
 * tenants.c - operations on the tenants of the backend: who may ask, and what is handed to the hook.
 *
 * What a document says is the hook's to check; here it is bytes that came from a peer.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/text.h"
#include "agent/control/control_priv.h"
#include "agent/tenant/tenant.h"

static bool read_tags(struct rshm_tlv_reader *reader, char tenant[RSHM_TENANT_MAX + 1], struct control_tenant *ret)
{
	struct rshm_tlv tlv;
	bool right = true;

	while (right && rshm_tlv_next(reader, &tlv) > 0) {
		if (tlv.tag == RSHM_TAG_TENANT) {
			right = tenant[0] == '\0' && rshm_tlv_get_text(&tlv, tenant, RSHM_TENANT_MAX + 1);
		} else if (tlv.tag == RSHM_TAG_JSON) {
			right = !ret->json;
			ret->json = (const char *)tlv.value;
			ret->json_len = tlv.length;
		}
	}
	return right;
}

/* Root, the agent's own user, and whom the configuration names. */
static bool may_administer(struct connection *connection, const struct rshm_control_header *header)
{
	const struct tenant *administrators = connection->control->options.administrators;

	if (peer_is_operator(&connection->peer) ||
	    (administrators && tenant_permits(administrators, connection->peer.uid, connection->peer.gid)))
		return true;
	answer_refusal(
		connection, header, RSHM_E_DENIED,
		"only root, the agent's own user (uid %u) and members of the group tenancy.administrators may ask "
		"about tenants, not uid %u",
		(unsigned int)geteuid(), (unsigned int)connection->peer.uid);
	return false;
}

static bool needs_tenant(uint16_t op)
{
	return op != RSHM_CONTROL_TENANT_CREATE && op != RSHM_CONTROL_TENANT_LIST;
}

void tenant_begin(struct connection *connection, const struct rshm_control_header *header,
		  struct rshm_tlv_reader *reader)
{
	const struct control_hooks *hooks = &connection->control->hooks;
	struct control_tenant asked = {.op = header->op, .peer = connection->peer};
	char tenant[RSHM_TENANT_MAX + 1] = "";
	bool right = read_tags(reader, tenant, &asked);
	struct request *r;

	if (right && text_is_name(tenant, RSHM_TENANT_MAX))
		snprintf(connection->object.tenant, sizeof(connection->object.tenant), "%s", tenant);
	if (!may_administer(connection, header))
		return;
	if (!right || (needs_tenant(header->op) && !text_is_name(tenant, RSHM_TENANT_MAX))) {
		answer_refusal(connection, header, RSHM_E_INVALID,
			       "one tenant is needed, named by 1 to %u characters of a-z, 0-9 and '-'",
			       RSHM_TENANT_MAX);
		return;
	}
	if (!hooks->tenant) {
		answer_refusal(connection, header, RSHM_E_UNSUPPORTED, "this agent has no tenants but its own");
		return;
	}
	r = request_begin(connection, header);
	if (!r)
		return;
	asked.tenant = tenant;
	hooks->tenant(hooks->context, &asked, request_on_text, r);
}
