/* audit.c - the last lines of the audit log. For the agent's own user and root. */
#include "client-lib/ctl/ctl.h"

#include <inttypes.h>
#include <string.h>

#include "shm/tlv.h"

/* " name value", or nothing. */
static void print_member(const json_t *event, const char *name)
{
	const json_t *value = json_object_get(event, name);

	if (json_is_string(value)) {
		printf("  %s ", name);
		ctl_print_escaped(stdout, json_string_value(value), json_string_length(value), "");
	} else if (json_is_integer(value)) {
		printf("  %s %" JSON_INTEGER_FORMAT, name, json_integer_value(value));
	}
}

static void print_event(const struct ctl *ctl, const json_t *event)
{
	static const char *const members[] = {"role", "tenant", "on",      "uid",      "gid",
					      "pid",  "detail", "refused", "accepted", "over_ms"};
	const char *time = ctl_text(event, "time"), *what = ctl_text(event, "what");
	const json_t *result = json_object_get(event, "result");

	ctl_print_escaped(stdout, time, strlen(time), "");
	printf("  %s", ctl_bold(ctl));
	ctl_print_escaped(stdout, what, strlen(what), "");
	if (json_is_string(result)) {
		fputs(": ", stdout);
		ctl_print_escaped(stdout, json_string_value(result), json_string_length(result), "");
	}
	fputs(ctl_plain(ctl), stdout);
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		print_member(event, members[i]);
	if (ctl_u64(event, "lost") > 0)
		printf("  (%" PRIu64 " lines before this one are lost)", ctl_u64(event, "lost"));
	putchar('\n');
}

int ctl_audit(struct ctl *ctl)
{
	unsigned char request[64];
	struct rshm_tlv_writer writer;
	json_t *document, *events, *event;
	size_t i;
	int status;

	rshm_tlv_begin(&writer, request, sizeof(request), RSHM_CONTROL_AUDIT, 0, 1);
	rshm_tlv_u32(&writer, RSHM_TAG_LINES, ctl->tail);
	status = ctl_ask_with(ctl, request, (size_t)rshm_tlv_finish(&writer), &document);
	if (status != CTL_OK)
		return status;
	if (ctl->json)
		return ctl_print_json(ctl, document);
	events = json_object_get(document, "events");
	json_array_foreach(events, i, event) print_event(ctl, event);
	if (ctl_u64(document, "unreadable") > 0)
		printf("%" PRIu64 " torn lines left out\n", ctl_u64(document, "unreadable"));
	json_decref(document);
	return CTL_OK;
}
