/*
 * tenant.c - what one's own tenant allows, asked through the channel; and the tenants of the backend, for administrators: one
 * question to the control socket each.
 *
 * Documents go and come as JSON text, which the agent checks; nothing of it is looked at here. A question is sent once: what was
 * not answered in time may have happened, and saying it again is told as that (there is one already; there is none).
 */
#include <stdlib.h>
#include <string.h>

#include "client-lib/control.h"
#include "client-lib/riptide_priv.h"
#include "shm/tlv.h"

static int place_rule(struct rt_call *call)
{
	const struct riptide_access *access = call->context;

	if (call->answer.answer_len >= sizeof(access->rule) || call->answer.metadata_len)
		return RIPTIDE_EPROTOCOL;
	call->body_to = (unsigned char *)access->rule;
	return RIPTIDE_OK;
}

int riptide_validate_access(riptide *handle, const void *resource, size_t resource_length, const char *action,
			    struct riptide_access *ret_access)
{
	struct riptide_access access = {.allowed = 0};
	struct rt_call call;
	int status = rt_begin(handle, &call, "validate_access", RSHM_OP_CHECK_ACCESS);

	if (status < 0)
		return status;
	if (!action || !ret_access || resource_length > RSHM_KEY_MAX || (!resource && resource_length))
		return rt_fail(handle, RIPTIDE_EINVALID, call.verb, NULL, 0, NULL);
	call.key_length = resource_length;
	call.parts[0] = (struct rt_part){resource, resource_length};
	call.parts[2] = (struct rt_part){action, strlen(action)};
	call.place = place_rule;
	call.context = &access;
	status = rt_call(handle, &call);
	if (status < 0)
		return status;
	access.allowed = call.answer.version == 1;
	access.rule[call.answer.answer_len] = '\0';
	*ret_access = access;
	return RIPTIDE_OK;
}

_Static_assert(sizeof(struct riptide_quota) == sizeof(struct rshm_quota), "the answer, as it comes");
_Static_assert(sizeof(struct riptide_rate) == sizeof(struct rshm_rate), "the answer, as it comes");

static int place_words(struct rt_call *call)
{
	if (call->answer.answer_len != sizeof(struct rshm_quota) || call->answer.metadata_len)
		return RIPTIDE_EPROTOCOL;
	call->body_to = call->context;
	return RIPTIDE_OK;
}

int riptide_check_quota(riptide *handle, const char *name, uint64_t amount, enum riptide_quota_mode mode,
			struct riptide_quota *ret_quota)
{
	struct riptide_quota quota;
	struct rt_call call;
	int status = rt_begin_key(handle, &call, "check_quota", RSHM_OP_CHECK_QUOTA, name, name ? strlen(name) : 0);

	if (status < 0)
		return status;
	call.writes = mode != RIPTIDE_QUOTA_ASK;
	call.change = mode;
	call.operand = amount;
	call.place = place_words;
	call.context = &quota;
	status = rt_call(handle, &call);
	if (status == RIPTIDE_OK && ret_quota)
		*ret_quota = quota;
	return status;
}

_Static_assert(sizeof(struct rshm_rate) == sizeof(struct rshm_quota), "both are five words");

int riptide_rate(riptide *handle, const char *name, struct riptide_rate *ret_rate)
{
	struct riptide_rate rate;
	struct rt_call call;
	int status = rt_begin_key(handle, &call, "rate", RSHM_OP_RATE, name, name ? strlen(name) : 0);

	if (status < 0)
		return status;
	call.place = place_words;
	call.context = &rate;
	status = rt_call(handle, &call);
	if (status == RIPTIDE_OK && ret_rate)
		*ret_rate = rate;
	return status;
}

/* Takes the document, or the reason of a refusal, out of the answer. */
static int take_answer(riptide *handle, const char *verb, uint16_t op, const unsigned char *answer, size_t length,
		       char **ret_json)
{
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
	const char *text = NULL;
	size_t text_length = 0;
	struct rshm_tlv tlv;
	char why[RT_CONTROL_TEXT];

	if (rshm_tlv_open(&reader, answer, length, &header) < 0 || header.op != op)
		return rt_fail(handle, RIPTIDE_EPROTOCOL, verb, NULL, 0, NULL);
	while (rshm_tlv_next(&reader, &tlv) > 0) {
		if (tlv.tag != RSHM_TAG_JSON && tlv.tag != RSHM_TAG_ERROR_TEXT)
			continue;
		text = (const char *)tlv.value;
		text_length = tlv.length;
	}
	if (header.status < 0) {
		text_length = text_length < sizeof(why) ? text_length : sizeof(why) - 1;
		memcpy(why, text ? text : "", text_length);
		why[text_length] = '\0';
		return rt_fail(handle, header.status, verb, NULL, 0, why);
	}
	if (!ret_json)
		return RIPTIDE_OK;
	*ret_json = malloc(text_length + 1);
	if (!*ret_json)
		return rt_fail(handle, RIPTIDE_ENOMEM, verb, NULL, 0, NULL);
	if (text_length)
		memcpy(*ret_json, text, text_length);
	(*ret_json)[text_length] = '\0';
	return RIPTIDE_OK;
}

static int ask(riptide *handle, const char *verb, uint16_t op, const char *tenant, const char *json, char **ret_json)
{
	size_t json_length = json ? strlen(json) : 0, capacity = 256 + json_length, answer_length;
	int status = rt_check_open(handle, verb);
	unsigned char *message, *answer;
	char trouble[RT_CONTROL_TEXT] = "";
	struct rshm_tlv_writer writer;
	int64_t length;

	if (status < 0)
		return status;
	message = malloc(capacity);
	if (!message)
		return rt_fail(handle, RIPTIDE_ENOMEM, verb, NULL, 0, NULL);
	rshm_tlv_begin(&writer, message, capacity, op, 0, 1);
	if (tenant)
		rshm_tlv_text(&writer, RSHM_TAG_TENANT, tenant);
	if (json)
		rshm_tlv_bytes(&writer, RSHM_TAG_JSON, json, json_length);
	length = rshm_tlv_finish(&writer);
	if (length < 0)
		status = rt_fail(handle, RIPTIDE_EINVALID, verb, NULL, 0, "the tenant's id is too long");
	else
		status = rt_control_ask(handle->socket, message, (size_t)length, rt_deadline_ms(handle), &answer,
					&answer_length, NULL, trouble);
	free(message);
	if (status < 0)
		return length < 0 ? status : rt_fail(handle, status, verb, NULL, 0, trouble);
	status = take_answer(handle, verb, op, answer, answer_length, ret_json);
	free(answer);
	return status;
}

/* {"reason": "…"}, the caller's to free. */
static char *reason_json(const char *reason)
{
	static const char head[] = "{\"reason\":\"", tail[] = "\"}";
	char *json = malloc(sizeof(head) + sizeof(tail) + 6 * strlen(reason)), *to;

	if (!json)
		return NULL;
	to = stpcpy(json, head);
	for (; *reason; reason++) {
		unsigned char c = (unsigned char)*reason;

		if (c < ' ')
			c = ' ';
		if (c == '"' || c == '\\')
			*to++ = '\\';
		*to++ = (char)c;
	}
	strcpy(to, tail);
	return json;
}

static int ask_with_reason(riptide *handle, const char *verb, uint16_t op, const char *tenant, const char *reason)
{
	char *json = reason ? reason_json(reason) : NULL;
	int status = ask(handle, verb, op, tenant, json, NULL);

	free(json);
	return status;
}

int riptide_tenant_create(riptide *handle, const char *json, char **ret_json)
{
	return ask(handle, "tenant_create", RSHM_CONTROL_TENANT_CREATE, NULL, json, ret_json);
}

int riptide_tenant_get(riptide *handle, const char *tenant, char **ret_json)
{
	return ask(handle, "tenant_get", RSHM_CONTROL_TENANT_GET, tenant, NULL, ret_json);
}

int riptide_tenant_list(riptide *handle, const char *json, char **ret_json)
{
	return ask(handle, "tenant_list", RSHM_CONTROL_TENANT_LIST, NULL, json, ret_json);
}

int riptide_tenant_update(riptide *handle, const char *tenant, const char *json, char **ret_json)
{
	return ask(handle, "tenant_update", RSHM_CONTROL_TENANT_UPDATE, tenant, json, ret_json);
}

int riptide_tenant_suspend(riptide *handle, const char *tenant, const char *reason)
{
	return ask_with_reason(handle, "tenant_suspend", RSHM_CONTROL_TENANT_SUSPEND, tenant, reason);
}

int riptide_tenant_resume(riptide *handle, const char *tenant)
{
	return ask(handle, "tenant_resume", RSHM_CONTROL_TENANT_RESUME, tenant, NULL, NULL);
}

int riptide_tenant_delete(riptide *handle, const char *tenant, char **ret_json)
{
	return ask(handle, "tenant_delete", RSHM_CONTROL_TENANT_DELETE, tenant, NULL, ret_json);
}
