/*
 * dispatch.c - from a message to its answer.
 *
 * What the control plane knows itself is answered at once. For the rest a `request` is made and a hook asked, which
 * may answer within the call, later, too late, or never:
 *
 *	asked --hook answers--> answered, freed
 *	asked --deadline--> answered RSHM_E_TIMEDOUT --hook answers--> freed, what it granted is released
 *	asked --control_close()--> nobody waits any more --hook answers--> freed, what it granted is released
 *
 * A request that only its hook still has counts against a limit, so hooks that never answer cost a bounded amount of
 * memory and then refusals. Every refusal carries a text for people that says what to do.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/control/control_priv.h"
#include "agent/store/dictionary.h"

#define TAG_BYTES 6u
#define TEXT_MAX 512u
#define AUDIT_LINES 20u               /* if a request does not say how many */
#define AUDIT_READ_BYTES (256u << 10) /* of files, on the main loop */

/* ---- answers ------------------------------------------------------------------------------------------------- */

void answer_written(struct connection *connection, struct rshm_tlv_writer *writer)
{
	int64_t length = rshm_tlv_finish(writer);

	must(length > 0);
	connection_answer(connection, writer->bytes, (size_t)length);
}

/* An answer with one text, or none. */
static void answer_text(struct connection *connection, uint16_t op, uint32_t id, int status, enum rshm_tag tag,
			const char *text)
{
	size_t capacity = sizeof(struct rshm_control_header) + TAG_BYTES + (text != NULL ? strlen(text) : 0);
	unsigned char *bytes = malloc(capacity);
	struct rshm_tlv_writer writer;

	if (bytes == NULL) {
		log_error("control", "no memory for an answer; connection closed");
		listener_drop(connection->control, connection);
		return;
	}
	rshm_tlv_begin(&writer, bytes, capacity, op, status, id);
	if (text != NULL)
		rshm_tlv_text(&writer, tag, text);
	answer_written(connection, &writer);
}

void answer_status(struct connection *connection, uint16_t op, uint32_t id, int status, const char *text)
{
	answer_text(connection, op, id, status, RSHM_TAG_ERROR_TEXT, text);
}

void answer_refusal(struct connection *connection, const struct rshm_control_header *header, int status,
		    const char *format, ...)
{
	static struct log_limit limit = LOG_LIMIT(10, 10000);
	char text[TEXT_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	log_limited(&limit, LOG_LEVEL_WARN, "control", "request %u of uid %u, process %d refused (%d): %s",
		    (unsigned int)header->op, (unsigned int)connection->peer.uid, (int)connection->peer.pid, status,
		    text);
	event_of_request(connection->control, &connection->peer, header->op, &connection->object, status, text);
	answer_status(connection, header->op, header->request_id, status, text);
}

/* ---- requests that hooks answer ------------------------------------------------------------------------------- */

struct request *request_begin(struct connection *connection, const struct rshm_control_header *header)
{
	struct control *control = connection->control;
	struct request *r = NULL;

	if (control->request_count < control->options.connections * 2)
		r = calloc(1, sizeof(*r));
	if (r == NULL) {
		answer_refusal(connection, header, RSHM_E_AGAIN,
			       "too many requests are under way in the agent; try again later");
		return NULL;
	}
	r->control = control;
	r->connection = connection;
	r->peer = connection->peer;
	r->object = connection->object;
	r->op = header->op;
	r->id = header->request_id;
	r->deadline_ms = clock_monotonic_ms() + control->options.request_timeout_ms;
	r->release = control->hooks.release;
	r->hooks_context = control->hooks.context;
	r->next = control->requests;
	if (r->next != NULL)
		r->next->previous = r;
	control->requests = r;
	control->request_count++;
	connection->request = r;
	control_need_tick(control);
	return r;
}

struct connection *request_end(struct request *r)
{
	struct connection *connection = r->connection;
	struct control *control = r->control;

	if (connection != NULL)
		connection->request = NULL;
	if (control != NULL) {
		if (r->next != NULL)
			r->next->previous = r->previous;
		if (r->previous != NULL)
			r->previous->next = r->next;
		else
			control->requests = r->next;
		control->request_count--;
	}
	free(r);
	return connection;
}

void dispatch_tick(struct control *control, uint64_t now_ms)
{
	struct request *next;

	for (struct request *r = control->requests; r != NULL; r = next) {
		struct connection *connection = r->connection;

		next = r->next;
		if (connection == NULL || r->deadline_ms > now_ms)
			continue;
		connection->request = NULL;
		r->connection = NULL;
		control->figures.timed_out++;
		answer_refusal(connection, &(struct rshm_control_header){.op = r->op, .request_id = r->id},
			       RSHM_E_TIMEDOUT, "the agent could not answer within %u ms; try again later",
			       control->options.request_timeout_ms);
	}
}

void dispatch_abandon(struct control *control)
{
	struct request *next;

	for (struct request *r = control->requests; r != NULL; r = next) {
		next = r->next;
		if (r->connection != NULL)
			r->connection->request = NULL;
		r->connection = NULL;
		r->control = NULL;
		r->next = r->previous = NULL;
	}
	control->requests = NULL;
	control->request_count = 0;
}

/* ---- operators' requests -------------------------------------------------------------------------------------- */

void request_on_text(void *context, int status, const char *json)
{
	struct request *r = context;
	struct rshm_control_header header = {.op = r->op, .request_id = r->id};
	struct connection *connection = r->connection;
	size_t length = json != NULL ? strlen(json) : 0, limit;

	/* A refusal is told where it is answered. */
	if (r->control != NULL && (status >= 0 || connection == NULL))
		event_of_request(r->control, &r->peer, r->op, &r->object, status,
				 connection == NULL ? "when nobody waited for the answer any more" : NULL);
	(void)request_end(r);
	if (connection == NULL)
		return;
	limit = connection->control->options.answer_bytes;
	if (status < 0)
		answer_refusal(connection, &header, status, "%s", json != NULL ? json : "the agent gave no reason");
	else if (length + TAG_BYTES + sizeof(header) > limit)
		answer_refusal(connection, &header, RSHM_E_TOOBIG,
			       "the answer has %zu bytes; raise limits.control_answer_bytes (%zu)", length, limit);
	else
		answer_text(connection, header.op, header.request_id, status, RSHM_TAG_JSON, json);
}

static void report_begin(struct connection *connection, const struct rshm_control_header *header)
{
	const struct control_hooks *hooks = &connection->control->hooks;
	struct request *r = request_begin(connection, header);

	if (r != NULL)
		hooks->report(hooks->context, header->op, &r->peer, request_on_text, r);
}

bool admit_operator(struct connection *connection, const struct rshm_control_header *header, const char *what)
{
	if (peer_is_operator(&connection->peer))
		return true;
	answer_refusal(connection, header, RSHM_E_DENIED,
		       "only root and the agent's own user (uid %u) may %s, not uid %u", (unsigned int)geteuid(),
		       what, (unsigned int)connection->peer.uid);
	return false;
}

static void reload_begin(struct connection *connection, const struct rshm_control_header *header)
{
	const struct control_hooks *hooks = &connection->control->hooks;
	struct request *r;

	if (!admit_operator(connection, header, "reload"))
		return;
	r = request_begin(connection, header);
	if (r == NULL)
		return;
	log_info("control", "reload asked for by uid %u, process %d", (unsigned int)connection->peer.uid,
		 (int)connection->peer.pid);
	hooks->reload(hooks->context, request_on_text, r);
}

struct dictionary_tags {
	char tenant[RSHM_TENANT_MAX + 1], content_type[DICTIONARY_TYPE_MAX + 1];
	bool has_type, has_id;
	uint32_t id;
};

static bool read_dictionary_tags(struct rshm_tlv_reader *reader, struct dictionary_tags *ret)
{
	struct rshm_tlv tlv;
	bool right = true;

	*ret = (struct dictionary_tags){.tenant = ""};
	while (right && rshm_tlv_next(reader, &tlv) > 0) {
		if (tlv.tag == RSHM_TAG_TENANT)
			right = rshm_tlv_get_text(&tlv, ret->tenant, sizeof(ret->tenant));
		else if (tlv.tag == RSHM_TAG_CONTENT_TYPE)
			right = ret->has_type = rshm_tlv_get_text(&tlv, ret->content_type, sizeof(ret->content_type));
		else if (tlv.tag == RSHM_TAG_DICTIONARY_ID)
			right = ret->has_id = rshm_tlv_get_u32(&tlv, &ret->id);
	}
	return right;
}

static void name_dictionary(struct event_object *object, const struct dictionary_tags *tags)
{
	snprintf(object->tenant, sizeof(object->tenant), "%s", tags->tenant);
	if (tags->has_id)
		snprintf(object->about, sizeof(object->about), "dictionary %u", tags->id);
	else if (tags->has_type)
		snprintf(object->about, sizeof(object->about), "content type %s", tags->content_type);
}

static void dictionary_begin(struct connection *connection, const struct rshm_control_header *header,
			     struct rshm_tlv_reader *reader)
{
	const struct control_hooks *hooks = &connection->control->hooks;
	struct control_dictionary asked = {.op = header->op};
	struct dictionary_tags tags;
	struct request *r;
	bool right = read_dictionary_tags(reader, &tags);

	name_dictionary(&connection->object, &tags);
	if (!admit_operator(connection, header, "ask about dictionaries"))
		return;
	if (!right || tags.tenant[0] == '\0' ||
	    (!tags.has_id && (header->op == RSHM_CONTROL_DICT_SHOW || header->op == RSHM_CONTROL_DICT_DROP))) {
		answer_refusal(
			connection, header, RSHM_E_INVALID,
			"a tenant is needed, to show and drop the number of a dictionary, too; a content type has at "
			"most %u bytes",
			DICTIONARY_TYPE_MAX);
		return;
	}
	r = hooks->dictionary ? request_begin(connection, header) : NULL;
	if (!hooks->dictionary)
		answer_refusal(connection, header, RSHM_E_UNSUPPORTED, "this agent has no dictionaries");
	if (!r)
		return;
	asked.tenant = tags.tenant;
	asked.content_type = tags.has_type ? tags.content_type : NULL;
	asked.id = tags.id;
	hooks->dictionary(hooks->context, &asked, request_on_text, r);
}

/* ---- the audit log ------------------------------------------------------------------------------------------- */

static void audit_begin(struct connection *connection, const struct rshm_control_header *header,
			struct rshm_tlv_reader *reader)
{
	struct control *control = connection->control;
	uint32_t lines = AUDIT_LINES;
	struct rshm_tlv tlv;
	bool right = true;
	struct request *r;
	char *json = NULL;
	size_t bytes_max = control->options.answer_bytes / 2;
	int status;

	while (right && rshm_tlv_next(reader, &tlv) > 0)
		if (tlv.tag == RSHM_TAG_LINES)
			right = rshm_tlv_get_u32(&tlv, &lines);
	if (!admit_operator(connection, header, "read the audit log"))
		return;
	if (!right || lines == 0 || lines > AUDIT_TAIL_MAX) {
		answer_refusal(connection, header, RSHM_E_INVALID, "1 to %u lines of the audit log can be asked for",
			       AUDIT_TAIL_MAX);
		return;
	}
	if (control->options.audit == NULL) {
		answer_refusal(connection, header, RSHM_E_UNSUPPORTED,
			       "this agent keeps no audit log; see security.enable_audit_logging");
		return;
	}
	r = request_begin(connection, header);
	if (r == NULL)
		return;
	status = audit_tail(control->options.audit, lines,
			    bytes_max < AUDIT_READ_BYTES ? bytes_max : AUDIT_READ_BYTES, &json);
	request_on_text(r, status, status < 0 ? "the audit log cannot be read" : json);
	free(json);
}

/* ---- dispatch ------------------------------------------------------------------------------------------------ */

/* The header of a message that rshm_tlv_open() refuses, if there is one to answer to. */
static bool salvage_header(const unsigned char *body, size_t length, struct rshm_control_header *ret)
{
	if (length < sizeof(*ret) || (body[0] | body[1] << 8) != (int)RSHM_CONTROL_MAGIC)
		return false;
	*ret = (struct rshm_control_header){
		.op = (uint16_t)(body[4] | body[5] << 8),
		.request_id = (uint32_t)body[8] | (uint32_t)body[9] << 8 | (uint32_t)body[10] << 16 |
			      (uint32_t)body[11] << 24,
	};
	return true;
}

static void refuse_undecodable(struct connection *connection, int status)
{
	static struct log_limit limit = LOG_LIMIT(10, 10000);
	struct control *control = connection->control;
	struct rshm_control_header header;

	control->figures.malformed++;
	if (!salvage_header(connection->body, connection->body_length, &header)) {
		log_limited(&limit, LOG_LEVEL_WARN, "control",
			    "connection of uid %u, process %d closed: %zu bytes that are no control message",
			    (unsigned int)connection->peer.uid, (int)connection->peer.pid, connection->body_length);
		event_of_connection(control, &connection->peer, "connection", status, "no control message");
		listener_drop(control, connection);
	} else if (status == RSHM_E_UNSUPPORTED) {
		answer_refusal(connection, &header, status,
			       "this agent speaks version %u of the control protocol; use a client of its release",
			       RSHM_CONTROL_VERSION);
	} else {
		answer_refusal(connection, &header, RSHM_E_PROTOCOL,
			       "the message's length is not what its header says");
	}
}

/* Every tag is whole; what they mean is the operation's. */
static bool tags_are_whole(struct rshm_tlv_reader reader)
{
	struct rshm_tlv tlv;
	int more;

	do
		more = rshm_tlv_next(&reader, &tlv);
	while (more > 0);
	return more == 0;
}

void dispatch_message(struct connection *connection)
{
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
	int status = rshm_tlv_open(&reader, connection->body, connection->body_length, &header);

	connection->object = (struct event_object){.tenant = ""};
	if (status < 0) {
		refuse_undecodable(connection, status);
		return;
	}
	if (!tags_are_whole(reader)) {
		connection->control->figures.malformed++;
		answer_refusal(connection, &header, RSHM_E_PROTOCOL,
			       "a tag of the message is longer than the message");
		return;
	}
	switch (header.op) {
	case RSHM_CONTROL_ATTACH:
		attach_begin(connection, &header, &reader);
		break;
	case RSHM_CONTROL_DETACH: /* a channel ends with its doorbell connection; this is a courtesy */
	case RSHM_CONTROL_PING:
		answer_status(connection, header.op, header.request_id, RSHM_OK, NULL);
		break;
	case RSHM_CONTROL_STATUS:
	case RSHM_CONTROL_STATS:
	case RSHM_CONTROL_CLIENTS:
		report_begin(connection, &header);
		break;
	case RSHM_CONTROL_RELOAD:
		reload_begin(connection, &header);
		break;
	case RSHM_CONTROL_METRICS:
		if (admit_operator(connection, &header, "read all metrics"))
			report_begin(connection, &header);
		break;
	case RSHM_CONTROL_EVICTIONS_RESET:
		if (admit_operator(connection, &header, "reset figures"))
			report_begin(connection, &header);
		break;
	case RSHM_CONTROL_DICT_LIST:
	case RSHM_CONTROL_DICT_TRAIN:
	case RSHM_CONTROL_DICT_SHOW:
	case RSHM_CONTROL_DICT_DROP:
		dictionary_begin(connection, &header, &reader);
		break;
	case RSHM_CONTROL_TENANT_CREATE:
	case RSHM_CONTROL_TENANT_GET:
	case RSHM_CONTROL_TENANT_LIST:
	case RSHM_CONTROL_TENANT_UPDATE:
	case RSHM_CONTROL_TENANT_SUSPEND:
	case RSHM_CONTROL_TENANT_RESUME:
	case RSHM_CONTROL_TENANT_DISABLE:
	case RSHM_CONTROL_TENANT_DELETE:
	case RSHM_CONTROL_TENANT_TOKENS:
	case RSHM_CONTROL_TENANT_TOKEN_CREATE:
	case RSHM_CONTROL_TENANT_TOKEN_ROTATE:
	case RSHM_CONTROL_TENANT_TOKEN_REVOKE:
	case RSHM_CONTROL_TENANT_ROTATE_KEY:
	case RSHM_CONTROL_TENANT_REWRAP:
	case RSHM_CONTROL_TENANT_KEYS:
	case RSHM_CONTROL_TENANT_ACCESS:
		tenant_begin(connection, &header, &reader);
		break;
	case RSHM_CONTROL_AUDIT:
		audit_begin(connection, &header, &reader);
		break;
	default:
		answer_refusal(connection, &header, RSHM_E_UNSUPPORTED,
			       "this agent does not know operation %u; it may be older than its client", header.op);
	}
}
