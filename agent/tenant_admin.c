/*
 * tenant_admin.c - what operators do with the tenants of the backend.
 *
 *	create   document ─▶ record ─▶ registry
 *	change   record ─▶ changed ─▶ stored if nobody else changed it meanwhile, else again ─▶ taken up here ─▶ answered
 *	delete   marked as deleting ─▶ closed here, by other agents at their watcher's word ─▶ everything erased ─▶ record removed
 *
 * A job is one request until its end. Whoever waits is answered when the job ends, a deletion that takes longer with what is
 * under way: it goes on, and is taken up by the next delete of the same tenant if this agent dies.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "agent/agent_priv.h"
#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/tenant_admin_priv.h"

#define CHANGE_ATTEMPTS 8u
#define GRACE_SECONDS_MAX (30u * 86400u)
#define TOKEN_TTL_SECONDS_MAX (10ull * 365 * 86400)

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static void destroy(struct job *job)
{
	for (size_t i = 0; i < job->count; i++)
		free(job->ids[i]);
	free(job->ids);
	json_decref(job->document);
	json_decref(job->answer);
	free(job->text);
	tenant_record_destroy(&job->record);
	tenant_destroy(&job->tenant);
	free(job);
}

void job_end(struct job *job, int status, const char *text)
{
	if (status == RSHM_MISS)
		status = RSHM_E_NOTENANT;
	/* What is met but not as wished is a refusal to whoever asks. */
	if (status == RSHM_CONFLICT)
		status = RSHM_E_INVALID;
	job->done(job->context, status, text ? text : "the backend did not take it; try again later");
	destroy(job);
}

/* Answers with a document, which it takes. */
void job_end_with(struct job *job, json_t *document)
{
	char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;

	json_decref(document);
	if (!text) {
		job_end(job, RSHM_E_NOMEM, "no memory");
		return;
	}
	job->done(job->context, RSHM_OK, text);
	/* It may hold a token, which is shown this once. */
	sodium_memzero(text, strlen(text));
	free(text);
	destroy(job);
}

json_t *job_described(const struct tenant_record *record)
{
	json_t *document = tenant_record_public(record);

	json_object_set_new(document, "source", json_string("backend"));
	return document;
}

struct registry *job_registry(struct job *job)
{
	char error[256];
	struct registry *registry = live_tenants_registry(job->agent, error, sizeof(error));

	if (!registry)
		job_end(job, RSHM_E_AGAIN, error);
	return registry;
}

/* What this release takes from nobody, because nothing would enforce it. */
static int refuse_promises(const struct agent *a, const struct tenant_record *record, char *error, size_t error_len)
{
	const json_t *quotas = json_object_get(record->document, "quotas");
	const char *name;
	json_t *limit;

	json_object_foreach((json_t *)quotas, name, limit)
	{
		if (strcmp(name, "storage_bytes") != 0 && strcmp(name, "cache_entries") != 0 &&
		    strcmp(name, "active_sessions") != 0)
			continue;
		snprintf(error, error_len, "\"quotas\": %s is not enforced by this release", name);
		return RSHM_E_INVALID;
	}
	if (!record->encryption || a->masters)
		return RSHM_OK;
	snprintf(error, error_len,
		 "\"encryption\" needs a master key, which this agent does not have; see encryption.master_key_file");
	return RSHM_E_INVALID;
}

/* ---- create ------------------------------------------------------------------------------------------------------ */

static void insert_on_done(void *context, int status, struct tenant_record *record, const char *text)
{
	struct job *job = context;

	if (status != RSHM_OK) {
		job_end(job, status, text);
		return;
	}
	log_info("agent", "tenant %s is created by %s", record->id, job->user);
	job->record = record;
	job_end_with(job, job_described(record));
}

/* What the configuration gives a tenant that says nothing. `quotas` goes with it: to json_decref(). */
static struct tenant_defaults defaults_of(const struct job *job, json_t **ret_quotas)
{
	const struct config *c = job->agent->config;
	struct tenant_defaults defaults = {
		.isolation = (enum tenant_isolation)c->tenancy.isolation_level,
		.encryption = c->tenancy.enable_encryption && job->agent->masters,
		.user = job->user,
	};
	const struct {
		const char *name;
		uint64_t value;
	} quotas[] = {
		{"memory_bytes", c->tenancy.default_memory_bytes},
		{"operations_per_minute", c->tenancy.default_operations_per_minute},
		{"data_transfer_bytes", c->tenancy.default_data_transfer_bytes},
	};

	*ret_quotas = json_object();
	for (size_t i = 0; i < sizeof(quotas) / sizeof(quotas[0]); i++)
		if (quotas[i].value)
			json_object_set_new(*ret_quotas, quotas[i].name, json_integer((json_int_t)quotas[i].value));
	for (int plan = 0; plan < TENANT_PLANS; plan++)
		defaults.quotas[plan] = plan == TENANT_CUSTOM ? NULL : *ret_quotas;
	return defaults;
}

static void create(struct job *job)
{
	const struct config *c = job->agent->config;
	json_t *quotas;
	struct tenant_defaults defaults = defaults_of(job, &quotas);
	struct tenant_record *record;
	struct registry *registry;
	char error[400];
	int status = tenant_record_create(job->text ? job->text : "{}", job->text ? job->text_len : 2, &defaults,
					  clock_realtime_ms(), &record, error, sizeof(error));

	json_decref(quotas);
	if (status == RSHM_OK) {
		status = refuse_promises(job->agent, record, error, sizeof(error));
		if (status < 0)
			tenant_record_destroy(&record);
	}
	if (status < 0) {
		job_end(job, status, error);
		return;
	}
	if (config_find_tenant(c, record->id)) {
		snprintf(error, sizeof(error), "tenant %s is one of the configuration; take another id", record->id);
		tenant_record_destroy(&record);
		job_end(job, RSHM_E_INVALID, error);
		return;
	}
	registry = job_registry(job);
	if (registry)
		registry_insert(registry, record, insert_on_done, job);
	else
		tenant_record_destroy(&record);
}

/* ---- change ------------------------------------------------------------------------------------------------------ */

static void change(struct job *job);
static void begin_delete(struct job *job);

static void change_on_applied(void *context)
{
	struct job *job = context;
	json_t *document;

	/* At the agent's end nobody is left to wait for. */
	if (job->op == RSHM_CONTROL_TENANT_DELETE) {
		if (job->agent->stopping)
			job_end(job, RSHM_E_CLOSED, "the agent is stopping; delete it once more");
		else
			begin_delete(job);
		return;
	}
	document = job_described(job->record);
	if (job->answer)
		json_object_update(document, job->answer);
	job_end_with(job, document);
}

static void change_on_stored(void *context, int status, struct tenant_record *record, const char *text)
{
	struct job *job = context;

	if (status == RSHM_CONFLICT && ++job->attempts < CHANGE_ATTEMPTS) {
		json_decref(job->answer);
		job->answer = NULL;
		change(job);
		return;
	}
	if (status != RSHM_OK) {
		job_end(job, status, text);
		return;
	}
	tenant_record_destroy(&job->record);
	job->record = record;
	live_tenants_refresh(job->agent, job->id, change_on_applied, job);
}

static const char *reason_of(const struct job *job)
{
	return json_string_value(json_object_get(job->document, "reason"));
}

static int refuse(char *error, size_t error_len, const char *text)
{
	snprintf(error, error_len, "%s", text);
	return RSHM_E_INVALID;
}

/* What a request may say: a misspelt limit of a token would be none. Ends with no name. */
struct given {
	const char *name;
	json_type type;
};

static int check_given(const struct job *job, const struct given *given, char *error, size_t error_len)
{
	const char *name;
	struct text text;
	json_t *value;

	json_object_foreach(job->document, name, value)
	{
		const struct given *g = given;

		while (g->name && strcmp(g->name, name) != 0)
			g++;
		if (g->name && json_typeof(value) == g->type)
			continue;
		text_init(&text, error, error_len);
		text_append_string(&text, "\"");
		text_append_escaped(&text, name, strnlen(name, 48));
		text_append_string(&text, !g->name                 ? "\" is nothing that can be said here"
					  : g->type == JSON_STRING ? "\" must be a text"
								   : "\" must be a whole number");
		return RSHM_E_INVALID;
	}
	return RSHM_OK;
}

static int check_document(const struct job *job, char *error, size_t error_len)
{
	static const struct given list[] = {{"after", JSON_STRING}, {"limit", JSON_INTEGER}, {NULL, JSON_NULL}};
	static const struct given reason[] = {{"reason", JSON_STRING}, {NULL, JSON_NULL}};
	static const struct given made[] = {
		{"role", JSON_STRING}, {"label", JSON_STRING}, {"ttl_seconds", JSON_INTEGER}, {NULL, JSON_NULL}};
	static const struct given rotated[] = {
		{"token", JSON_STRING}, {"grace_seconds", JSON_INTEGER}, {NULL, JSON_NULL}};
	static const struct given revoked[] = {{"token", JSON_STRING}, {NULL, JSON_NULL}};
	static const struct given access[] = {{"action", JSON_STRING},
					      {"resource", JSON_STRING},
					      {"uid", JSON_INTEGER},
					      {"role", JSON_STRING},
					      {NULL, JSON_NULL}};
	static const struct given nothing[] = {{NULL, JSON_NULL}};

	switch (job->op) {
	case RSHM_CONTROL_TENANT_CREATE:
	case RSHM_CONTROL_TENANT_UPDATE:
		return RSHM_OK; /* told where records are made */
	case RSHM_CONTROL_TENANT_LIST:
		return check_given(job, list, error, error_len);
	case RSHM_CONTROL_TENANT_SUSPEND:
	case RSHM_CONTROL_TENANT_DISABLE:
	case RSHM_CONTROL_TENANT_DELETE:
		return check_given(job, reason, error, error_len);
	case RSHM_CONTROL_TENANT_TOKEN_CREATE:
		return check_given(job, made, error, error_len);
	case RSHM_CONTROL_TENANT_TOKEN_ROTATE:
		return check_given(job, rotated, error, error_len);
	case RSHM_CONTROL_TENANT_TOKEN_REVOKE:
		return check_given(job, revoked, error, error_len);
	case RSHM_CONTROL_TENANT_ACCESS:
		return check_given(job, access, error, error_len);
	default:
		return check_given(job, nothing, error, error_len);
	}
}

/* What the request makes of the tokens; the text of a new one into the answer. */
static int change_tokens(struct job *job, struct token_set *tokens, char *error, size_t error_len)
{
	const char *id = json_string_value(json_object_get(job->document, "token"));
	const char *label = json_string_value(json_object_get(job->document, "label"));
	const char *role_name = json_string_value(json_object_get(job->document, "role"));
	json_int_t ttl = json_integer_value(json_object_get(job->document, "ttl_seconds"));
	json_int_t grace = json_integer_value(json_object_get(job->document, "grace_seconds"));
	uint64_t now_ms = clock_realtime_ms();
	enum token_role role = TOKEN_TENANT;
	char text[TOKEN_TEXT_BYTES];
	int status;

	if (role_name && !token_role_parse(role_name, &role))
		return refuse(error, error_len, "\"role\" must be one of read_only, tenant, admin");
	if (ttl < 0 || (uint64_t)ttl > TOKEN_TTL_SECONDS_MAX || grace < 0 || grace > GRACE_SECONDS_MAX)
		return refuse(error, error_len,
			      "\"ttl_seconds\" is at most ten years, \"grace_seconds\" thirty days");
	if (job->op != RSHM_CONTROL_TENANT_TOKEN_CREATE && !id)
		return refuse(error, error_len, "\"token\" must be the id of one of the tenant's tokens");
	if (job->op == RSHM_CONTROL_TENANT_TOKEN_REVOKE) {
		status = token_revoke(tokens, id);
	} else {
		status = job->op == RSHM_CONTROL_TENANT_TOKEN_CREATE
				 ? token_create(tokens, role, label ? label : "",
						ttl ? now_ms + (uint64_t)ttl * 1000 : 0, now_ms, text)
				 : token_rotate(tokens, id, (uint64_t)grace * 1000, now_ms, text);
		if (status == RSHM_OK)
			job->answer = json_pack("{s:s}", "token", text);
		sodium_memzero(text, sizeof(text));
	}
	if (status == RSHM_E_INVALID)
		return refuse(error, error_len,
			      "there is no such token, or its label is longer than 64 bytes; see tenant tokens");
	if (status == RSHM_E_AGAIN)
		return refuse(error, error_len, "the tenant has all the tokens it may have; revoke one");
	return status;
}

static int with_tokens(struct job *job, const struct tenant_record *record, struct tenant_record **ret, char *error,
		       size_t error_len)
{
	struct token_set *tokens;
	int status = tenant_record_tokens(record, &tokens);

	if (status < 0)
		return status;
	status = change_tokens(job, tokens, error, error_len);
	if (status == RSHM_OK)
		status = tenant_record_set_tokens(record, tokens, clock_realtime_ms(), ret);
	token_set_destroy(&tokens);
	return status;
}

static int updated_record(struct job *job, const struct tenant_record *record, struct tenant_record **ret,
			  char *error, size_t error_len)
{
	json_t *quotas;
	struct tenant_defaults defaults = defaults_of(job, &quotas);
	int status = tenant_record_update(record, job->text ? job->text : "{}", job->text ? job->text_len : 2,
					  &defaults, clock_realtime_ms(), ret, error, error_len);

	json_decref(quotas);
	return status;
}

static int changed_record(struct job *job, const struct tenant_record *record, struct tenant_record **ret,
			  char *error, size_t error_len)
{
	uint64_t now_ms = clock_realtime_ms();

	if (record->status == TENANT_DELETING && job->op != RSHM_CONTROL_TENANT_DELETE)
		return refuse(error, error_len, "the tenant is being deleted");
	switch (job->op) {
	case RSHM_CONTROL_TENANT_UPDATE:
		return updated_record(job, record, ret, error, error_len);
	case RSHM_CONTROL_TENANT_SUSPEND:
		return tenant_record_set_status(record, TENANT_SUSPENDED, reason_of(job), now_ms, ret);
	case RSHM_CONTROL_TENANT_DISABLE:
		return tenant_record_set_status(record, TENANT_DISABLED, reason_of(job), now_ms, ret);
	case RSHM_CONTROL_TENANT_RESUME:
		return tenant_record_set_status(record, TENANT_ACTIVE, NULL, now_ms, ret);
	case RSHM_CONTROL_TENANT_DELETE:
		return tenant_record_set_status(record, TENANT_DELETING, reason_of(job), now_ms, ret);
	default:
		return with_tokens(job, record, ret, error, error_len);
	}
}

static void change_on_read(void *context, int status, struct tenant_record *record, const char *text)
{
	struct job *job = context;
	struct tenant_record *changed;
	char error[400] = "";

	if (status != RSHM_OK) {
		job_end(job, status, text);
		return;
	}
	status = changed_record(job, record, &changed, error, sizeof(error));
	tenant_record_destroy(&record);
	if (status == RSHM_OK && job->op == RSHM_CONTROL_TENANT_UPDATE) {
		status = refuse_promises(job->agent, changed, error, sizeof(error));
		if (status < 0)
			tenant_record_destroy(&changed);
	}
	if (status < 0)
		job_end(job, status, error[0] ? error : "no memory, or the tenant's record is damaged");
	else
		registry_replace(live_tenants_registry(job->agent, error, sizeof(error)), changed, change_on_stored,
				 job);
}

static void change(struct job *job)
{
	struct registry *registry = job_registry(job);

	if (registry)
		registry_get(registry, job->id, change_on_read, job);
}

/* ---- delete ------------------------------------------------------------------------------------------------------ */

static void record_on_removed(void *context, int status, struct tenant_record *record, const char *text)
{
	struct job *job = context;

	(void)record;
	(void)text;
	if (status < 0 && status != RSHM_MISS) {
		job_end(job, status,
			"everything of the tenant is removed but its record; delete it once more when the backend answers");
		return;
	}
	log_info("agent",
		 "tenant %s is deleted by %s: %" PRIu64 " entries, %" PRIu64 " tags, %" PRIu64 " sessions, %" PRIu64
		 " dictionaries",
		 job->id, job->user, job->counts.entries, job->counts.tags, job->counts.sessions,
		 job->counts.dictionaries);
	job_end_with(job, json_pack("{s:s, s:s, s:{s:I, s:I, s:I, s:I}}", "id", job->id, "status", "deleted",
				    "removed", "entries", (json_int_t)job->counts.entries, "tags",
				    (json_int_t)job->counts.tags, "sessions", (json_int_t)job->counts.sessions,
				    "dictionaries", (json_int_t)job->counts.dictionaries));
}

struct erased_message {
	struct mailbox_message message; /* first */
	struct job *job;
};

static void erased_on_arrival(struct mailbox_message *message)
{
	struct job *job = ((struct erased_message *)message)->job;
	struct registry *registry;
	struct tenant_record *record = job->record;

	free(message);
	if (job->status < 0) {
		job_end(job, job->status,
			"the tenant is marked as being deleted, and not everything could be removed; delete it once more");
		return;
	}
	registry = job_registry(job);
	if (!registry)
		return;
	job->record = NULL;
	registry_remove(registry, record, record_on_removed, job);
}

static void erased_on_worker(void *context, int status, const struct erase_counts *counts)
{
	struct job *job = context;
	struct erased_message *erased = malloc(sizeof(*erased));
	bool posted;

	must(erased);
	job->status = status;
	job->counts = *counts;
	*erased = (struct erased_message){.message = {.handle = erased_on_arrival}, .job = job};
	posted = mailbox_post(&job->agent->mailbox, &erased->message);
	if (!posted)
		free(erased);
	must(posted);
}

static void delete_on_closed(void *context)
{
	struct job *job = context;
	struct agent *a = job->agent;
	struct tenant_settings settings = {.id = job->id};
	int status = a->stopping ? RSHM_E_CLOSED : tenant_create(&settings, &job->tenant);

	if (status == RSHM_OK)
		status = live_tenant_number(a, job->tenant);
	if (status < 0 ||
	    !worker_erase_tenant(a->workers[live_tenant_worker(a, job->id)], job->tenant, erased_on_worker, job))
		job_end(job, status < 0 ? status : RSHM_E_AGAIN,
			"the agent cannot erase the tenant now; delete it once more");
}

static void begin_delete(struct job *job)
{
	live_tenants_await_closed(job->agent, job->id, delete_on_closed, job);
}

/* ---- the hook ---------------------------------------------------------------------------------------------------- */

static int take_document(struct job *job, const struct control_tenant *request)
{
	if (!request->json)
		return RSHM_OK;
	job->text = malloc(request->json_len + 1);
	if (!job->text)
		return RSHM_E_NOMEM;
	memcpy(job->text, request->json, request->json_len);
	job->text[request->json_len] = '\0';
	job->text_len = request->json_len;
	job->document = json_loadb(job->text, job->text_len, JSON_REJECT_DUPLICATES, NULL);
	/* The documents of records are checked, and told about, where records are. */
	if (request->op != RSHM_CONTROL_TENANT_CREATE && request->op != RSHM_CONTROL_TENANT_UPDATE &&
	    !json_is_object(job->document))
		return RSHM_E_INVALID;
	return RSHM_OK;
}

void tenant_admin_hook(void *agent, const struct control_tenant *request, control_text_fn *done, void *done_context)
{
	struct agent *a = agent;
	struct job *job = calloc(1, sizeof(*job));
	char error[128] = "the document is no JSON object";
	int status;

	if (!job) {
		done(done_context, RSHM_E_NOMEM, "no memory");
		return;
	}
	job->agent = a;
	job->op = request->op;
	job->done = done;
	job->context = done_context;
	snprintf(job->id, sizeof(job->id), "%s", request->tenant);
	snprintf(job->user, sizeof(job->user), "%u", (unsigned int)request->peer.uid);
	status = take_document(job, request);
	if (status == RSHM_OK)
		status = check_document(job, error, sizeof(error));
	if (status < 0)
		job_end(job, status, status == RSHM_E_NOMEM ? "no memory" : error);
	else if (request->op == RSHM_CONTROL_TENANT_CREATE)
		create(job);
	else if (request->op == RSHM_CONTROL_TENANT_LIST)
		tenant_ask_list(job);
	else if (request->op == RSHM_CONTROL_TENANT_GET || request->op == RSHM_CONTROL_TENANT_TOKENS ||
		 request->op == RSHM_CONTROL_TENANT_ACCESS)
		tenant_ask(job);
	else if (config_find_tenant(a->config, job->id))
		job_end(job, RSHM_E_INVALID, "the tenant is one of the configuration; change it there");
	else if (request->op == RSHM_CONTROL_TENANT_KEYS || request->op == RSHM_CONTROL_TENANT_REWRAP ||
		 request->op == RSHM_CONTROL_TENANT_ROTATE_KEY)
		tenant_ask(job);
	else
		change(job);
}
