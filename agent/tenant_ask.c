/*
 * tenant_ask.c - what operators ask about tenants, which changes nothing: records, tokens, what rules say, the list.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/tenant_admin_priv.h"

#define LIST_LIMIT_DEFAULT 100u

static json_t *tokens_json(const struct tenant_record *record)
{
	struct token_set *tokens;
	json_t *list = json_array();

	if (tenant_record_tokens(record, &tokens) < 0)
		return list;
	for (size_t i = 0; i < token_count(tokens); i++) {
		struct token_info info;

		token_info(tokens, i, &info);
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:b}", "id", info.id, "label",
						      info.label, "role", token_role_name(info.role), "created_ms",
						      (json_int_t)info.created_ms, "expires_ms",
						      (json_int_t)info.expires_ms, "grace_until_ms",
						      (json_int_t)info.grace_until_ms, "revoked", info.revoked));
	}
	token_set_destroy(&tokens);
	return list;
}

/* What the tenant's rules say of the action that the request describes. NULL: no memory; `text` says what is wrong with it. */
static json_t *access_json(const struct job *job, const struct tenant_record *record, const char **text)
{
	const char *action = json_string_value(json_object_get(job->document, "action"));
	const json_t *resource = json_object_get(job->document, "resource");
	const char *role_name = json_string_value(json_object_get(job->document, "role"));
	json_int_t uid = json_integer_value(json_object_get(job->document, "uid"));
	enum token_role role = TOKEN_TENANT;
	struct access_policy *policy = NULL;
	struct access_question question = {.action = action, .now_wall_ms = clock_realtime_ms()};
	struct access_answer answer;
	char error[ACCESS_ERROR_MAX];
	json_t *document;

	*text = NULL;
	if (!action || !resource || uid < 0 || uid >= UINT32_MAX ||
	    (role_name && !token_role_parse(role_name, &role))) {
		*text = "\"action\" and \"resource\" are needed; \"uid\" is a number, \"role\" one of read_only, tenant, "
			"admin";
		return NULL;
	}
	question.resource = json_string_value(resource);
	question.resource_length = json_string_length(resource);
	question.uid = (uid_t)uid;
	question.read_only = role == TOKEN_READ_ONLY;
	if (access_policy_parse(json_object_get(record->document, "policies"), &policy, error, sizeof(error)) < 0)
		return NULL;
	access_policy_check(policy, &question, &answer);
	document =
		json_pack("{s:s, s:b, s:s?}", "id", record->id, "allowed", answer.allowed, "rule", answer.rule_name);
	access_policy_destroy(&policy);
	return document;
}

static void answer_access(struct job *job)
{
	const char *text;
	json_t *document = access_json(job, job->record, &text);

	if (text)
		job_end(job, RSHM_E_INVALID, text);
	else
		job_end_with(job, document);
}

static void get_on_done(void *context, int status, struct tenant_record *record, const char *text)
{
	struct job *job = context;

	if (status != RSHM_OK) {
		job_end(job, status, text);
		return;
	}
	job->record = record;
	if (job->op == RSHM_CONTROL_TENANT_KEYS || job->op == RSHM_CONTROL_TENANT_REWRAP ||
	    job->op == RSHM_CONTROL_TENANT_ROTATE_KEY) {
		tenant_keys_ask(job, record);
		return;
	}
	if (job->op == RSHM_CONTROL_TENANT_ACCESS) {
		answer_access(job);
		return;
	}
	job_end_with(job, job->op == RSHM_CONTROL_TENANT_TOKENS
				  ? json_pack("{s:s, s:o}", "id", job->id, "tokens", tokens_json(record))
				  : job_described(record));
}

static json_t *configured_json(const struct config_tenant *tenant)
{
	return json_pack("{s:s, s:s, s:s, s:s}", "id", tenant->name, "name", tenant->name, "status", "active",
			 "source", "configuration");
}

void tenant_ask(struct job *job)
{
	const struct config_tenant *configured = config_find_tenant(job->agent->config, job->id);
	struct registry *registry;

	if (configured && job->op == RSHM_CONTROL_TENANT_GET) {
		job_end_with(job, configured_json(configured));
		return;
	}
	registry = job_registry(job);
	if (registry)
		registry_get(registry, job->id, get_on_done, job);
}

static void list_next(struct job *job);

static void list_on_record(void *context, int status, struct tenant_record *record, const char *text)
{
	struct job *job = context;
	json_t *list = json_object_get(job->answer, "tenants");

	(void)text;
	if (status == RSHM_OK)
		json_array_append_new(
			list, json_pack("{s:s, s:O, s:s, s:s, s:s, s:O, s:s}", "id", record->id, "name",
					json_object_get(record->document, "name"), "status",
					tenant_status_name(record->status), "plan", tenant_plan_name(record->plan),
					"isolation", tenant_isolation_name(record->isolation), "created_ms",
					json_object_get(record->document, "created_ms"), "source", "backend"));
	else if (status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT)
		json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "id", job->ids[job->at - 1], "status",
						      "damaged", "source", "backend"));
	tenant_record_destroy(&record);
	/* Being created, or just deleted: not listed. */
	if (status < 0 && status != RSHM_E_CORRUPT && status != RSHM_E_FORMAT)
		job->status = status;
	job->answered = true;
	if (!job->is_asking)
		list_next(job);
}

/* As far as the store answers at once, in a loop: a long list would be a deep stack. */
static void list_next(struct job *job)
{
	char error[256];
	struct registry *registry = live_tenants_registry(job->agent, error, sizeof(error));

	while (job->at < job->count && registry && job->status >= 0) {
		job->answered = false;
		job->is_asking = true;
		registry_get(registry, job->ids[job->at++], list_on_record, job);
		job->is_asking = false;
		if (!job->answered)
			return;
	}
	if (job->status < 0) {
		job_end(job, job->status, NULL);
		return;
	}
	json_object_set_new(job->answer, "total",
			    json_integer((json_int_t)(job->total + job->agent->config->tenants_count)));
	json_object_set_new(job->answer, "next", job->more ? json_string(job->ids[job->count - 1]) : json_null());
	job_end_with(job, json_incref(job->answer));
}

static void list_on_ids(void *context, int status, const char *const *ids, size_t count, size_t total)
{
	struct job *job = context;
	size_t limit = json_is_integer(json_object_get(job->document, "limit"))
			       ? (size_t)json_integer_value(json_object_get(job->document, "limit"))
			       : LIST_LIMIT_DEFAULT;

	if (status < 0) {
		job_end(job, status, NULL);
		return;
	}
	job->ids = calloc(count + 1, sizeof(*job->ids));
	for (size_t i = 0; i < count && job->ids; i++) {
		job->ids[i] = strdup(ids[i]);
		if (!job->ids[i])
			break;
		job->count++;
	}
	if (job->count < count) {
		job_end(job, RSHM_E_NOMEM, "no memory");
		return;
	}
	job->total = total;
	job->more = count > 0 && count == limit;
	list_next(job);
}

void tenant_ask_list(struct job *job)
{
	const json_t *after = json_object_get(job->document, "after"),
		     *limit = json_object_get(job->document, "limit");
	const struct config *c = job->agent->config;
	struct registry *registry;
	json_t *tenants;

	if ((after && !json_is_string(after)) ||
	    (limit && (!json_is_integer(limit) || json_integer_value(limit) < 1 ||
		       json_integer_value(limit) > (json_int_t)REGISTRY_PAGE_MAX))) {
		job_end(job, RSHM_E_INVALID, "\"after\" is an id, \"limit\" a number from 1 to 1000");
		return;
	}
	tenants = json_array();
	for (size_t i = 0; !after && i < c->tenants_count; i++)
		json_array_append_new(tenants, configured_json(&c->tenants[i]));
	job->answer = json_pack("{s:o}", "tenants", tenants);
	registry = job->answer ? job_registry(job) : NULL;
	if (registry)
		registry_list(registry, after ? json_string_value(after) : NULL,
			      limit ? (size_t)json_integer_value(limit) : LIST_LIMIT_DEFAULT, list_on_ids, job);
}
