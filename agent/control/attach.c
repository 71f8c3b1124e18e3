/*
 * attach.c - a process asks to come in.
 *
 *	decode -> may it ask? (overflow uid, rate) -> do we understand each other? (layout, tenant's name)
 *	-> is there a place? -> the hook: may it use this tenant? -> a ticket
 *
 * Every attempt counts against the rate, refused ones too, so that tenants cannot be guessed at speed. A place is taken before
 * the hook is asked and given back by whatever goes wrong later: refusal, time-out, ticket not used, end of the channel.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/text.h"
#include "agent/control/control_priv.h"
#include "shm/layout.h"

#define OVERFLOW_UID 65534u /* stands for every user that a user namespace does not know */
#define CLOCK_TOLERANCE_MS 1000u
#define TOKEN_MAX 4096u
#define PROGRAM_BYTES 48u
#define ANSWER_BYTES 2048u
#define OBSTACLE_BYTES 256u
#define NO_HOT_READS_TEXT                                                                                                 \
	"the monotonic clocks of client and agent differ by more than a second (a time namespace?); values come through " \
	"the channel only"

struct wish {
	char tenant[RSHM_TENANT_MAX + 1];
	char program[PROGRAM_BYTES];
	const unsigned char *token;
	size_t token_length;
	uint64_t clock_ms;
	uint32_t layout_major;
	uint32_t seen; /* bit per tag */
};

static bool wish_has(const struct wish *wish, enum rshm_tag tag)
{
	return (wish->seen & 1u << tag) != 0;
}

static void take_program(struct wish *wish, const struct rshm_tlv *tlv)
{
	struct text text;

	text_init(&text, wish->program, sizeof(wish->program));
	text_append_escaped(&text, (const char *)tlv->value,
			    tlv->length < PROGRAM_BYTES ? tlv->length : PROGRAM_BYTES);
}

static bool take_tag(struct wish *wish, const struct rshm_tlv *tlv)
{
	if (tlv->tag >= 32)
		return true;
	/* Of two values one would be checked and the other used, sooner or later. */
	if (wish_has(wish, tlv->tag))
		return false;
	wish->seen |= 1u << tlv->tag;
	switch (tlv->tag) {
	case RSHM_TAG_TENANT:
		return rshm_tlv_get_text(tlv, wish->tenant, sizeof(wish->tenant));
	case RSHM_TAG_LAYOUT_MAJOR:
		return rshm_tlv_get_u32(tlv, &wish->layout_major);
	case RSHM_TAG_CLOCK_MS:
		return rshm_tlv_get_u64(tlv, &wish->clock_ms);
	case RSHM_TAG_CLIENT_NAME:
		take_program(wish, tlv);
		return true;
	case RSHM_TAG_TOKEN:
		wish->token = tlv->value;
		wish->token_length = tlv->length;
		return tlv->length <= TOKEN_MAX;
	default:
		return true;
	}
}

static int decode(struct rshm_tlv_reader *reader, struct wish *ret, uint16_t *ret_tag)
{
	struct rshm_tlv tlv;

	*ret = (struct wish){.seen = 0};
	while (rshm_tlv_next(reader, &tlv) > 0)
		if (!take_tag(ret, &tlv)) {
			*ret_tag = tlv.tag;
			return RSHM_E_PROTOCOL;
		}
	return RSHM_OK;
}

/* Why this attach is refused whatever the tenant says; RSHM_OK if it is not. `text` has OBSTACLE_BYTES. */
static int find_obstacle(struct control *control, struct user *user, const struct wish *wish, uid_t uid,
			 char text[OBSTACLE_BYTES])
{
	uint32_t rate = control->options.attaches_per_second_per_uid;

	if (uid == OVERFLOW_UID) {
		snprintf(text, OBSTACLE_BYTES,
			 "uid %u stands for users that are not known here; map the client's user into the "
			 "agent's user namespace",
			 uid);
		return RSHM_E_DENIED;
	}
	if (user == NULL || !user_may_attach(user, rate, clock_monotonic_ms())) {
		snprintf(text, OBSTACLE_BYTES,
			 "uid %u attaches more than %u times a second; wait, or raise "
			 "limits.attaches_per_second_per_uid",
			 (unsigned int)uid, rate);
		return RSHM_E_AGAIN;
	}
	if (!wish_has(wish, RSHM_TAG_LAYOUT_MAJOR) || wish->layout_major != RSHM_LAYOUT_MAJOR) {
		snprintf(text, OBSTACLE_BYTES,
			 "the client knows layout %u of shared memory, this agent %u; use a library of the "
			 "agent's release",
			 wish->layout_major, RSHM_LAYOUT_MAJOR);
		return RSHM_E_UNSUPPORTED;
	}
	if (!text_is_name(wish->tenant, RSHM_TENANT_MAX)) {
		snprintf(text, OBSTACLE_BYTES, "a tenant is named by 1 to %u characters of a-z, 0-9 and '-'",
			 RSHM_TENANT_MAX);
		return RSHM_E_INVALID;
	}
	return RSHM_OK;
}

static bool clock_differs(const struct wish *wish)
{
	uint64_t now_ms = clock_monotonic_ms();
	uint64_t apart_ms = wish->clock_ms > now_ms ? wish->clock_ms - now_ms : now_ms - wish->clock_ms;

	return !wish_has(wish, RSHM_TAG_CLOCK_MS) || apart_ms > CLOCK_TOLERANCE_MS;
}

/* ---- the hook's answer --------------------------------------------------------------------------------------- */

static void write_welcome(const struct control *control, const struct control_attached *attached, const char *text,
			  const unsigned char *ticket, uint64_t channel_id, struct rshm_tlv_writer *writer)
{
	rshm_tlv_bytes(writer, RSHM_TAG_TICKET, ticket, CONTROL_TICKET_BYTES);
	rshm_tlv_text(writer, RSHM_TAG_DOORBELL, control->doorbell_path);
	rshm_tlv_text(writer, RSHM_TAG_AGENT_OBJECT, control->agent_object);
	rshm_tlv_u64(writer, RSHM_TAG_AGENT_SIZE, control->options.agent_object_size);
	rshm_tlv_u32(writer, RSHM_TAG_AGENT_UID, (uint32_t)geteuid());
	if (attached->segment_object != NULL) {
		rshm_tlv_text(writer, RSHM_TAG_SEGMENT_OBJECT, attached->segment_object);
		rshm_tlv_u64(writer, RSHM_TAG_SEGMENT_SIZE, attached->segment_size);
	}
	rshm_tlv_u64(writer, RSHM_TAG_ENTRY_LIMIT, attached->entry_limit);
	rshm_tlv_u64(writer, RSHM_TAG_CHANNEL_ID, channel_id);
	if (text != NULL)
		rshm_tlv_text(writer, RSHM_TAG_ERROR_TEXT, text);
}

static void welcome(struct connection *connection, const struct rshm_control_header *header,
		    const struct control_attached *attached, const char *text)
{
	struct control *control = connection->control;
	uint64_t channel_id = control->next_channel_id++;
	size_t capacity = ANSWER_BYTES + strlen(control->agent_object) + (text != NULL ? strlen(text) : 0) +
			  (attached->segment_object != NULL ? strlen(attached->segment_object) : 0);
	unsigned char ticket[CONTROL_TICKET_BYTES], *bytes = malloc(capacity);
	struct rshm_tlv_writer writer;

	if (bytes == NULL ||
	    doorbell_issue(control, attached->binding, connection->peer.uid, channel_id, ticket) < 0) {
		free(bytes);
		control->figures.refused_attaches++;
		control->hooks.release(control->hooks.context, attached->binding);
		control_give_place(control, connection->peer.uid);
		answer_refusal(connection, header, RSHM_E_NOMEM, "the agent has no memory left for another client");
		return;
	}
	control->figures.attaches++;
	event_of_request(control, &connection->peer, header->op, &connection->object, RSHM_OK, NULL);
	rshm_tlv_begin(&writer, bytes, capacity, header->op, RSHM_OK, header->request_id);
	write_welcome(control, attached, text, ticket, channel_id, &writer);
	answer_written(connection, &writer);
}

static void attach_on_done(void *context, const struct control_attached *attached)
{
	struct request *r = context;
	struct rshm_control_header header = {.op = r->op, .request_id = r->id};
	struct control *control = r->control;
	struct connection *connection = r->connection;
	const char *text = attached->error_text;

	if (attached->status == RSHM_OK && text == NULL && r->clock_differs)
		text = NO_HOT_READS_TEXT;
	if (connection == NULL && attached->status == RSHM_OK)
		r->release(r->hooks_context, attached->binding);
	if (control != NULL && (connection == NULL || attached->status != RSHM_OK)) {
		control->figures.refused_attaches++;
		control_give_place(control, r->peer.uid);
	}
	(void)request_end(r);
	if (connection == NULL)
		return;
	if (attached->status == RSHM_OK)
		welcome(connection, &header, attached, text);
	else
		answer_refusal(connection, &header, attached->status, "%s",
			       text != NULL ? text : "the agent gave no reason");
}

/* ---- the question -------------------------------------------------------------------------------------------- */

static void ask_hook(struct connection *connection, const struct rshm_control_header *header, const struct wish *wish)
{
	struct control *control = connection->control;
	struct request *r = request_begin(connection, header);
	struct control_attach attach = {
		.peer = connection->peer,
		.tenant = wish->tenant,
		.program = wish->program,
		.token = wish->token,
		.token_len = wish->token_length,
		.clock_differs = clock_differs(wish),
	};

	if (r == NULL) {
		control->figures.refused_attaches++;
		control_give_place(control, attach.peer.uid);
		return;
	}
	r->clock_differs = attach.clock_differs;
	control->hooks.attach(control->hooks.context, &attach, attach_on_done, r);
}

static void name_object(struct event_object *object, const struct wish *wish)
{
	snprintf(object->tenant, sizeof(object->tenant), "%s", wish->tenant);
	if (wish->program[0] != '\0')
		snprintf(object->about, sizeof(object->about), "program %s", wish->program);
}

void attach_begin(struct connection *connection, const struct rshm_control_header *header,
		  struct rshm_tlv_reader *reader)
{
	struct control *control = connection->control;
	uid_t uid = connection->peer.uid;
	const char *reason;
	char text[OBSTACLE_BYTES];
	struct wish wish;
	uint16_t tag = 0;
	int status = decode(reader, &wish, &tag);

	name_object(&connection->object, &wish);
	if (status < 0) {
		snprintf(text, sizeof(text), "tag %u is given twice, or has a value that it cannot have", tag);
		control->figures.malformed++;
	} else {
		status = find_obstacle(control, connection->user, &wish, uid, text);
	}
	if (status == RSHM_OK && !control_take_place(control, connection->user, &reason)) {
		snprintf(text, sizeof(text), "%s", reason);
		status = RSHM_E_AGAIN;
	}
	if (status == RSHM_OK) {
		ask_hook(connection, header, &wish);
		return;
	}
	control->figures.refused_attaches++;
	answer_refusal(connection, header, status, "%s", text);
}
