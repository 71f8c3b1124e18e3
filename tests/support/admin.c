/* admin.c - control messages about tenants, made by hand so that they may be wrong in any way. */
#include "tests/support/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client-lib/control.h"
#include "shm/os/map.h"
#include "shm/tlv.h"

#define PATIENCE_MS 20000

static void copy_text(const struct rshm_tlv *tlv, char *text, size_t size)
{
	size_t length = tlv->length < size ? tlv->length : size - 1;

	memcpy(text, tlv->value, length);
	text[length] = '\0';
}

static int take_answer(const unsigned char *answer, size_t length, char *text, size_t size)
{
	struct rshm_control_header header = {.status = RSHM_E_PROTOCOL};
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;

	if (rshm_tlv_open(&reader, answer, length, &header) < 0)
		return RSHM_E_PROTOCOL;
	while (text && rshm_tlv_next(&reader, &tlv) > 0)
		if (tlv.tag == RSHM_TAG_JSON || tlv.tag == RSHM_TAG_ERROR_TEXT)
			copy_text(&tlv, text, size);
	return header.status;
}

int admin_ask_bytes(const struct agent_process *agent, uint16_t op, const char *tenant, const void *json,
		    size_t length, char *text, size_t size)
{
	size_t capacity = 256 + (tenant ? strlen(tenant) : 0) + (json ? length : 0), answered;
	unsigned char *message = malloc(capacity), *answer;
	char trouble[RT_CONTROL_TEXT];
	struct rshm_tlv_writer writer;
	int64_t written;
	int status = RSHM_E_NOAGENT;

	if (text)
		text[0] = '\0';
	if (!message)
		return RSHM_E_NOMEM;
	rshm_tlv_begin(&writer, message, capacity, op, 0, 1);
	if (tenant)
		rshm_tlv_text(&writer, RSHM_TAG_TENANT, tenant);
	if (json)
		rshm_tlv_bytes(&writer, RSHM_TAG_JSON, json, length);
	written = rshm_tlv_finish(&writer);
	if (written > 0)
		status = rt_control_ask(agent->socket, message, (size_t)written, rshm_now_ms() + PATIENCE_MS, &answer,
					&answered, NULL, trouble);
	if (status == RSHM_OK) {
		status = take_answer(answer, answered, text, size);
		free(answer);
	} else if (written > 0) {
		if (text)
			snprintf(text, size, "%s", trouble);
		status = RSHM_E_NOAGENT;
	}
	free(message);
	return status;
}

int admin_ask(const struct agent_process *agent, uint16_t op, const char *tenant, const char *json, char *text,
	      size_t size)
{
	return admin_ask_bytes(agent, op, tenant, json, json ? strlen(json) : 0, text, size);
}
