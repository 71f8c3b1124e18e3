/*
 * tenant.c - tenants of the backend: create, show, change, suspend, delete, and their tokens. For the agent's own user and
 * root. A document is given as an argument, or with --file.
 */
#include "client-lib/ctl/ctl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/tlv.h"

#define DOCUMENT_MAX (256u << 10)
#define ID_WIDTH 32
#define PROGRESS_US 300000u

/* What the subcommands take after their name. */
enum takes { NO_ID, ID, ID_AND_TEXT, ID_AND_TOKEN, ID_AND_DOCUMENT };

static const struct action {
	const char *name;
	uint16_t op;
	enum takes takes;
	bool needs_yes;
} actions[] = {
	{"create", RSHM_CONTROL_TENANT_CREATE, ID_AND_DOCUMENT, false},
	{"get", RSHM_CONTROL_TENANT_GET, ID, false},
	{"list", RSHM_CONTROL_TENANT_LIST, NO_ID, false},
	{"update", RSHM_CONTROL_TENANT_UPDATE, ID_AND_DOCUMENT, false},
	{"suspend", RSHM_CONTROL_TENANT_SUSPEND, ID_AND_TEXT, false},
	{"resume", RSHM_CONTROL_TENANT_RESUME, ID, false},
	{"disable", RSHM_CONTROL_TENANT_DISABLE, ID_AND_TEXT, false},
	{"delete", RSHM_CONTROL_TENANT_DELETE, ID, true},
	{"access", RSHM_CONTROL_TENANT_ACCESS, ID_AND_DOCUMENT, false},
	{"keys", RSHM_CONTROL_TENANT_KEYS, ID, false},
	{"rotate-key", RSHM_CONTROL_TENANT_ROTATE_KEY, ID, false},
	{"rewrap", RSHM_CONTROL_TENANT_REWRAP, ID, false},
	{"tokens", RSHM_CONTROL_TENANT_TOKENS, ID, false},
	{"token-create", RSHM_CONTROL_TENANT_TOKEN_CREATE, ID_AND_DOCUMENT, false},
	{"token-rotate", RSHM_CONTROL_TENANT_TOKEN_ROTATE, ID_AND_TOKEN, false},
	{"token-revoke", RSHM_CONTROL_TENANT_TOKEN_REVOKE, ID_AND_TOKEN, false},
};

static const struct action *find_action(const char *name)
{
	for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	return NULL;
}

/* ---- the question ------------------------------------------------------------------------------------------------ */

static int ask(const struct ctl *ctl, uint16_t op, const char *tenant, const char *json, json_t **ret_document)
{
	size_t capacity = sizeof(struct rshm_control_header) + 64 + RSHM_TENANT_MAX + (json ? strlen(json) : 0);
	unsigned char *request = malloc(capacity);
	struct rshm_tlv_writer writer;
	int64_t length;
	int status;

	if (!request)
		return ctl_fail(CTL_ERROR, "no memory");
	rshm_tlv_begin(&writer, request, capacity, op, 0, 1);
	if (tenant)
		rshm_tlv_text(&writer, RSHM_TAG_TENANT, tenant);
	if (json)
		rshm_tlv_bytes(&writer, RSHM_TAG_JSON, json, strlen(json));
	length = rshm_tlv_finish(&writer);
	status = length < 0 ? ctl_fail(CTL_USAGE, "a tenant's id has at most %u characters", RSHM_TENANT_MAX)
			    : ctl_ask_with(ctl, request, (size_t)length, ret_document);
	free(request);
	return status;
}

/* The document of --file or of the argument; NULL after a message. */
static json_t *read_document(const struct ctl *ctl, const char *argument)
{
	json_error_t where;
	json_t *document;

	if (ctl->file)
		document = strcmp(ctl->file, "-") == 0 ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &where)
						       : json_load_file(ctl->file, JSON_REJECT_DUPLICATES, &where);
	else
		document = json_loads(argument ? argument : "{}", JSON_REJECT_DUPLICATES, &where);
	if (!json_is_object(document)) {
		ctl_fail(CTL_USAGE, "%s:%d:%d: %s", ctl->file ? ctl->file : "document", document ? 1 : where.line,
			 document ? 1 : where.column, document ? "no JSON object" : where.text);
		json_decref(document);
		return NULL;
	}
	return document;
}

/* Makes the document that goes with the request; NULL in *ret: none. */
static int make_document(const struct ctl *ctl, const struct action *action, const char *second, json_t **ret)
{
	*ret = NULL;
	if (action->takes == ID_AND_TEXT && second)
		*ret = json_pack("{s:s}", "reason", second);
	else if (action->takes == ID_AND_TOKEN)
		*ret = json_pack("{s:s}", "token", second);
	else if (action->takes == ID_AND_DOCUMENT)
		*ret = read_document(ctl, second);
	else
		return CTL_OK;
	return *ret || (action->takes == ID_AND_TEXT && !second) ? CTL_OK : CTL_USAGE;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static void print_cell(const char *text, int width)
{
	char cell[ID_WIDTH * 4 + 1];

	printf("%-*.*s  ", width, width, ctl_escaped(cell, sizeof(cell), text, strlen(text)));
}

static int list(const struct ctl *ctl)
{
	json_t *all = json_array(), *document, *item;
	char question[RSHM_TENANT_MAX + 32];
	const char *json = NULL;
	size_t i;

	for (;;) {
		int status = ask(ctl, RSHM_CONTROL_TENANT_LIST, NULL, json, &document);

		if (status != CTL_OK) {
			json_decref(all);
			return status;
		}
		json_array_extend(all, json_object_get(document, "tenants"));
		if (!json_is_string(json_object_get(document, "next")))
			break;
		snprintf(question, sizeof(question), "{\"after\": \"%.*s\"}", (int)RSHM_TENANT_MAX,
			 ctl_text(document, "next"));
		json = question;
		json_decref(document);
	}
	json_decref(document);
	if (ctl->json)
		return ctl_print_json(ctl, all);
	printf("%s%-*s  %-10s  %-13s  %-9s  %-13s  %s%s\n", ctl_bold(ctl), ID_WIDTH, "TENANT", "STATUS", "PLAN",
	       "ISOLATION", "SOURCE", "NAME", ctl_plain(ctl));
	json_array_foreach(all, i, item)
	{
		print_cell(ctl_text(item, "id"), ID_WIDTH);
		print_cell(ctl_text(item, "status"), 10);
		print_cell(json_object_get(item, "plan") ? ctl_text(item, "plan") : "-", 13);
		print_cell(json_object_get(item, "isolation") ? ctl_text(item, "isolation") : "-", 9);
		print_cell(ctl_text(item, "source"), 13);
		ctl_print_escaped(stdout, ctl_text(item, "name"), strlen(ctl_text(item, "name")), "");
		putchar('\n');
	}
	json_decref(all);
	return CTL_OK;
}

static int print_deleted(json_t *document)
{
	const json_t *removed = json_object_get(document, "removed");

	printf("deleted %s: %" PRIu64 " entries, %" PRIu64 " tags, %" PRIu64 " sessions, %" PRIu64 " dictionaries\n",
	       ctl_text(document, "id"), ctl_u64(removed, "entries"), ctl_u64(removed, "tags"),
	       ctl_u64(removed, "sessions"), ctl_u64(removed, "dictionaries"));
	json_decref(document);
	return CTL_OK;
}

/* New writes take the new key already; shows how what older ones sealed is sealed anew, until that is done. */
static int watch_resealing(const struct ctl *ctl, json_t *document)
{
	char *id = strdup(ctl_text(document, "id"));
	const json_t *resealing;
	int status = CTL_OK;

	while (id && json_is_true(json_object_get(json_object_get(document, "resealing"), "running"))) {
		json_decref(document);
		usleep(PROGRESS_US);
		status = ask(ctl, RSHM_CONTROL_TENANT_KEYS, id, NULL, &document);
		if (status != CTL_OK)
			break;
		resealing = json_object_get(document, "resealing");
		fprintf(stderr, "\r%" PRIu64 " entries seen, %" PRIu64 " sealed anew, %" PRIu64 " refused ",
			ctl_u64(resealing, "seen"), ctl_u64(resealing, "resealed"), ctl_u64(resealing, "refused"));
	}
	free(id);
	if (status != CTL_OK)
		return status;
	fputc('\n', stderr);
	if (json_integer_value(json_object_get(json_object_get(document, "resealing"), "status")) < 0) {
		json_decref(document);
		return ctl_fail(CTL_ERROR,
				"new writes take the new key, but not everything older could be sealed anew; the "
				"agent's log says why");
	}
	return ctl_print_json(ctl, document);
}

static int print_answer(const struct ctl *ctl, const struct action *action, json_t *document)
{
	bool makes_token =
		action->op == RSHM_CONTROL_TENANT_TOKEN_CREATE || action->op == RSHM_CONTROL_TENANT_TOKEN_ROTATE;

	if (!ctl->json && action->op == RSHM_CONTROL_TENANT_DELETE)
		return print_deleted(document);
	if (!ctl->json && makes_token) {
		printf("%s\n", ctl_text(document, "token"));
		fputs("riptidectl: this is shown once; keep it where only its user can read it\n", stderr);
		json_decref(document);
		return CTL_OK;
	}
	if (!ctl->json && action->op == RSHM_CONTROL_TENANT_ROTATE_KEY)
		return watch_resealing(ctl, document);
	return ctl_print_json(ctl, document);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int check_arguments(const struct ctl *ctl, const struct action *action)
{
	size_t count = ctl->argument_count - 1;
	bool may_lack_id = action->op == RSHM_CONTROL_TENANT_CREATE;
	size_t least = action->takes == NO_ID || may_lack_id ? 0 : action->takes == ID_AND_TOKEN ? 2 : 1;
	size_t most = action->takes == NO_ID ? 0 : action->takes == ID ? 1 : 2;

	if (count < least || count > most)
		return ctl_fail(CTL_USAGE, "tenant %s takes %zu to %zu arguments; see riptidectl tenant --help",
				action->name, least, most);
	if (ctl->file && action->takes != ID_AND_DOCUMENT)
		return ctl_fail(CTL_USAGE, "tenant %s takes no --file", action->name);
	if (action->needs_yes && !(ctl->given & CTL_YES))
		return ctl_fail(CTL_USAGE, "tenant %s removes everything of the tenant, on every host; say --yes",
				action->name);
	return CTL_OK;
}

int ctl_tenant(struct ctl *ctl)
{
	const struct action *action = find_action(ctl->arguments[0]);
	const char *id = ctl->argument_count > 1 ? ctl->arguments[1] : NULL;
	const char *second = ctl->argument_count > 2 ? ctl->arguments[2] : NULL;
	json_t *given, *document;
	char *json = NULL;
	int status;

	if (!action)
		return ctl_fail(CTL_USAGE, "there is no tenant %s; see riptidectl tenant --help", ctl->arguments[0]);
	status = check_arguments(ctl, action);
	if (status != CTL_OK)
		return status;
	if (action->takes == NO_ID)
		return list(ctl);
	/* create '{...}' lets the agent make up an id. */
	if (action->op == RSHM_CONTROL_TENANT_CREATE && id && id[0] == '{' && !second) {
		second = id;
		id = NULL;
	}
	status = make_document(ctl, action, second, &given);
	if (status != CTL_OK)
		return status;
	if (action->op == RSHM_CONTROL_TENANT_CREATE && id)
		json_object_set_new(given, "id", json_string(id));
	if (given)
		json = json_dumps(given, JSON_COMPACT);
	json_decref(given);
	if (json && strlen(json) > DOCUMENT_MAX)
		status = ctl_fail(CTL_USAGE, "the document has more than %u bytes", DOCUMENT_MAX);
	if (status == CTL_OK)
		status = ask(ctl, action->op, action->op == RSHM_CONTROL_TENANT_CREATE ? NULL : id, json, &document);
	free(json);
	return status == CTL_OK ? print_answer(ctl, action, document) : status;
}
