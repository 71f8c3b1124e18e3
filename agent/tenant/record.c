/*
 * record.c - the document of a tenant: one table of its members, and what is allowed in each.
 *
 *	given by the creator  ─▶ each member known, changeable, right ─▶ defaults for the rest ─▶ complete ─▶ struct
 *	given by an update    ─▶ the same, over a copy of the document
 *	read from the backend ─▶ each member known and right, all there ─▶ struct
 */
#include "agent/tenant/record.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/text.h"
#include "agent/tenant/access_policy.h"
#include "agent/tenant/account.h"
#include "agent/tenant/tenant.h"

#define GENERATED_CHARACTERS 20u /* of 32: 100 bits */
/* Kept free by whoever creates or updates: a reason may come later, each byte of it as \u00XX, and longer numbers. */
#define STATUS_ROOM (TENANT_TEXT_MAX * 6 + 64)
#define NAME_SHOWN 40u                     /* bytes of an unknown member's name */
#define FAULT_BYTES (NAME_SHOWN * 4 + 64u) /* each of them as \xNN, and what is wrong */

static const char *const status_names[] = {"active", "suspended", "disabled", "deleting"};
static const char *const plan_names[] = {"free", "basic", "professional", "enterprise", "custom"};
static const char *const isolation_names[] = {"none", "logical", "strong"};
static const char *const write_modes[] = {"through", "behind"};
static const char *const evictions[] = {"lru", "lfu", "ttl", "random", "s3fifo"};
static const char *const stale_policies[] = {"miss", "stale", "error"};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

const char *tenant_status_name(enum tenant_status status)
{
	return status_names[status];
}

const char *tenant_plan_name(enum tenant_plan plan)
{
	return plan_names[plan];
}

const char *tenant_isolation_name(enum tenant_isolation isolation)
{
	return isolation_names[isolation];
}

bool tenant_id_is_valid(const char *id)
{
	return id[0] != '-' && text_is_name(id, RSHM_TENANT_MAX);
}

/* ---- members --------------------------------------------------------------------------------------------------- */

/* NULL if the value is right, else what is right. */
typedef const char *check_fn(const json_t *value);

static bool is_text(const json_t *value)
{
	return json_is_string(value) && json_string_length(value) <= TENANT_TEXT_MAX &&
	       strlen(json_string_value(value)) == json_string_length(value);
}

/* The place of a word in a list; -1. */
static int place_of(const json_t *value, const char *const *words, size_t count)
{
	for (size_t i = 0; i < count && json_is_string(value); i++)
		if (strcmp(json_string_value(value), words[i]) == 0)
			return (int)i;
	return -1;
}

static const char *check_id(const json_t *value)
{
	return json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value) &&
			       tenant_id_is_valid(json_string_value(value))
		       ? NULL
		       : "1 to 64 characters of a-z, 0-9 and '-', not beginning with '-'";
}

static const char *check_text(const json_t *value)
{
	return is_text(value) ? NULL : "a text of at most 256 bytes";
}

static const char *check_bool(const json_t *value)
{
	return json_is_boolean(value) ? NULL : "true or false";
}

static const char *check_plan(const json_t *value)
{
	return place_of(value, plan_names, COUNT(plan_names)) >= 0
		       ? NULL
		       : "one of free, basic, professional, enterprise, custom";
}

static const char *check_status(const json_t *value)
{
	return place_of(value, status_names, COUNT(status_names)) >= 0 ? NULL : "a status";
}

static const char *check_isolation(const json_t *value)
{
	return place_of(value, isolation_names, COUNT(isolation_names)) >= 0 ? NULL : "one of none, logical, strong";
}

static const char *check_time(const json_t *value)
{
	return json_is_integer(value) && json_integer_value(value) >= 0 ? NULL : "milliseconds since 1970";
}

static const char *check_owner(const json_t *value)
{
	static const char *const names[] = {"id", "name", "email", "organization"};
	const char *key;
	json_t *item;

	if (!json_is_object(value))
		return "an object with id, name, email, organization";
	json_object_foreach((json_t *)value, key, item)
	{
		json_t *name = json_string(key);
		bool known = place_of(name, names, COUNT(names)) >= 0;

		json_decref(name);
		if (!known || !is_text(item))
			return "an object with id, name, email, organization, each a text of at most 256 bytes";
	}
	return NULL;
}

/* The greatest number means none, and the overflow number stands for everybody that the kernel cannot show. */
static bool is_person(json_int_t number)
{
	return number >= 0 && number < UINT32_MAX && number != (json_int_t)TENANT_OVERFLOW_UID;
}

static const char *check_people(const json_t *value)
{
	size_t index;
	json_t *item;

	if (!json_is_array(value) || json_array_size(value) > TENANT_USERS_MAX)
		return "a list of at most 256 names or numbers";
	json_array_foreach(value, index, item)
	{
		if (json_is_integer(item) ? !is_person(json_integer_value(item))
					  : !is_text(item) || json_string_length(item) == 0)
			return "a list of names, or numbers from 0 to 4294967294, of which 65534 is nobody's";
	}
	return NULL;
}

static bool is_quota_name(const char *name)
{
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");

	return length > 0 && length <= 48 && name[length] == '\0';
}

static const char *check_quotas(const json_t *value)
{
	const char *key;
	json_t *item;

	if (!json_is_object(value) || json_object_size(value) > TENANT_QUOTAS_MAX)
		return "an object of at most 64 quotas";
	json_object_foreach((json_t *)value, key, item)
	{
		if (!is_quota_name(key))
			return "an object whose names have 1 to 48 characters of a-z, 0-9 and '_'";
		if (!json_is_integer(item) || json_integer_value(item) < 0)
			return "an object of whole numbers from 0";
	}
	return NULL;
}

static const char *check_cache(const json_t *value)
{
	const char *key;
	json_t *item;

	if (!json_is_object(value))
		return "an object";
	json_object_foreach((json_t *)value, key, item)
	{
		bool right = false;

		if (strcmp(key, "default_ttl_seconds") == 0)
			right = json_is_integer(item) && json_integer_value(item) >= 0 &&
				json_integer_value(item) <= 315360000;
		else if (strcmp(key, "write_mode") == 0)
			right = place_of(item, write_modes, COUNT(write_modes)) >= 0;
		else if (strcmp(key, "eviction_policy") == 0)
			right = place_of(item, evictions, COUNT(evictions)) >= 0;
		else if (strcmp(key, "stale_policy") == 0)
			right = place_of(item, stale_policies, COUNT(stale_policies)) >= 0;
		if (!right)
			return "an object with default_ttl_seconds (0 to 315360000), write_mode (through, behind), "
			       "eviction_policy (lru, lfu, ttl, random, s3fifo), stale_policy (miss, stale, error)";
	}
	return NULL;
}

/* What is in it, token_set_from_json() says when it is used. */
static const char *check_tokens(const json_t *value)
{
	return json_is_object(value) || json_is_array(value) || json_is_null(value) ? NULL : "a set of tokens";
}

static const char *check_settings(const json_t *value)
{
	return json_is_object(value) ? NULL : "an object";
}

/* What is wrong with a rule, explain_policies() says. */
static const char *check_policies(const json_t *value)
{
	struct access_policy *policy = NULL;
	char error[ACCESS_ERROR_MAX];

	if (access_policy_parse(value, &policy, error, sizeof(error)) < 0)
		return "a list of rules";
	access_policy_destroy(&policy);
	return NULL;
}

static void explain_policies(const json_t *value, char *what, size_t size)
{
	struct access_policy *policy = NULL;
	char error[ACCESS_ERROR_MAX] = "no memory";

	(void)access_policy_parse(value, &policy, error, sizeof(error));
	access_policy_destroy(&policy);
	snprintf(what, size, "must be a list of rules: %s", error);
}

/* `given`: by whom creates or updates; else by agents alone. `initial` NULL: depends, or must be there. */
static const struct member {
	const char *name;
	check_fn *check;
	bool given, updated;
	const char *initial; /* JSON */
} members[] = {
	{"id", check_id, true, false, NULL},
	{"name", check_text, true, true, NULL},
	{"owner", check_owner, true, true, "{}"},
	{"plan", check_plan, true, true, "\"free\""},
	{"isolation", check_isolation, true, false, NULL},
	{"encryption", check_bool, true, false, NULL},
	{"hot", check_bool, true, true, "true"},
	{"users", check_people, true, true, "[]"},
	{"groups", check_people, true, true, "[]"},
	{"token_required", check_bool, true, true, "false"},
	{"quotas", check_quotas, true, true, NULL},
	{"rate_limits", account_check_rate_limits, true, true, "{}"},
	{"policies", check_policies, true, true, "[]"},
	{"cache", check_cache, true, true, "{}"},
	{"settings", check_settings, true, true, "{}"},
	{"status", check_status, false, false, "\"active\""},
	{"status_reason", check_text, false, false, "\"\""},
	{"tokens", check_tokens, false, false, "null"},
	{"created_ms", check_time, false, false, NULL},
	{"updated_ms", check_time, false, false, NULL},
};

static const struct member *find_member(const char *name)
{
	for (size_t i = 0; i < COUNT(members); i++)
		if (strcmp(members[i].name, name) == 0)
			return &members[i];
	return NULL;
}

/* ---- documents ------------------------------------------------------------------------------------------------- */

static int put(json_t *document, const char *name, json_t *value)
{
	return json_object_set_new(document, name, value) == 0 ? RSHM_OK : RSHM_E_NOMEM;
}

static json_t *initial_of(const struct member *member)
{
	return json_loads(member->initial, JSON_DECODE_ANY, NULL);
}

static int parse_given(const char *json, size_t length, json_t **ret, char *error, size_t error_len)
{
	json_error_t where;
	struct text text;
	json_t *given;

	if (length > TENANT_RECORD_MAX) {
		snprintf(error, error_len, "the document has %zu bytes; at most %u are allowed", length,
			 TENANT_RECORD_MAX);
		return RSHM_E_TOOBIG;
	}
	given = json_loadb(json, length, JSON_REJECT_DUPLICATES, &where);
	if (!json_is_object(given)) {
		text_init(&text, error, error_len);
		if (given) {
			text_append_string(&text, "the document is no JSON object");
		} else {
			text_append_format(&text, "line %d, column %d: ", where.line, where.column);
			text_append_escaped(&text, where.text, strlen(where.text));
		}
		json_decref(given);
		return RSHM_E_INVALID;
	}
	*ret = given;
	return RSHM_OK;
}

static void refuse_member(const char *name, const char *what, char *error, size_t error_len)
{
	struct text text;

	text_init(&text, error, error_len);
	text_append_string(&text, "\"");
	text_append_escaped(&text, name, strnlen(name, NAME_SHOWN));
	text_append_format(&text, "\" %s", what);
}

/* Each member that is given, checked, into `document`; null removes one. */
static int take_given(const json_t *given, bool update, json_t *document, char *error, size_t error_len)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)given, key, value)
	{
		const struct member *member = find_member(key);
		const char *right;
		char what[320];

		if (!member || !member->given) {
			refuse_member(key, "is nothing that a tenant can be given", error, error_len);
			return RSHM_E_INVALID;
		}
		if (update && !member->updated) {
			refuse_member(key, "cannot be changed; create another tenant", error, error_len);
			return RSHM_E_INVALID;
		}
		if (json_is_null(value)) {
			json_object_del(document, key);
			continue;
		}
		right = member->check(value);
		if (right) {
			snprintf(what, sizeof(what), "must be %s", right);
			if (member->check == check_policies)
				explain_policies(value, what, sizeof(what));
			refuse_member(key, what, error, error_len);
			return RSHM_E_INVALID;
		}
		if (json_object_set(document, key, value) < 0)
			return RSHM_E_NOMEM;
	}
	return RSHM_OK;
}

static int make_id(json_t *document)
{
	static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
	unsigned char random[GENERATED_CHARACTERS];
	char id[GENERATED_CHARACTERS + 2] = "t";

	randombytes_buf(random, sizeof(random));
	for (unsigned int i = 0; i < GENERATED_CHARACTERS; i++)
		id[i + 1] = alphabet[random[i] % 32];
	return put(document, "id", json_string(id));
}

/* The plan's quotas, the tenant's own before them. */
static int fill_quotas(json_t *document, const struct tenant_defaults *defaults, char *error, size_t error_len)
{
	json_t *own = json_object_get(document, "quotas"), *quotas;
	int plan = place_of(json_object_get(document, "plan"), plan_names, COUNT(plan_names));

	must(plan >= 0);
	quotas = defaults->quotas[plan] ? json_deep_copy(defaults->quotas[plan]) : json_object();
	if (!quotas || (own && json_object_update(quotas, own) < 0)) {
		json_decref(quotas);
		return RSHM_E_NOMEM;
	}
	if (json_object_size(quotas) > TENANT_QUOTAS_MAX) {
		snprintf(error, error_len, "\"quotas\" must be, together with those of the plan, at most %u",
			 TENANT_QUOTAS_MAX);
		json_decref(quotas);
		return RSHM_E_INVALID;
	}
	return put(document, "quotas", quotas);
}

static int fill_users(json_t *document, const char *user)
{
	if (!user || json_object_get(document, "users") || json_object_get(document, "groups"))
		return RSHM_OK;
	return put(document, "users", json_pack("[s]", user));
}

/* What has one default for everybody. */
static int fill_plain(json_t *document)
{
	int status = RSHM_OK;

	for (size_t i = 0; i < COUNT(members) && status == RSHM_OK; i++)
		if (members[i].initial && !json_object_get(document, members[i].name))
			status = put(document, members[i].name, initial_of(&members[i]));
	if (status == RSHM_OK && !json_object_get(document, "name"))
		status = json_object_set(document, "name", json_object_get(document, "id")) < 0 ? RSHM_E_NOMEM
												: RSHM_OK;
	if (status == RSHM_OK && !json_object_get(document, "quotas"))
		status = put(document, "quotas", json_object());
	return status;
}

static int fill_new(json_t *document, const struct tenant_defaults *defaults, uint64_t now_ms, char *error,
		    size_t error_len)
{
	int status = RSHM_OK;

	if (!json_object_get(document, "id"))
		status = make_id(document);
	if (status == RSHM_OK && !json_object_get(document, "isolation"))
		status = put(document, "isolation", json_string(isolation_names[defaults->isolation]));
	if (status == RSHM_OK && !json_object_get(document, "encryption"))
		status = put(document, "encryption",
			     json_boolean(defaults->encryption &&
					  place_of(json_object_get(document, "isolation"), isolation_names,
						   COUNT(isolation_names)) == TENANT_ISOLATION_STRONG));
	if (status == RSHM_OK)
		status = fill_users(document, defaults->user);
	if (status == RSHM_OK && !json_object_get(document, "plan"))
		status = put(document, "plan", json_string(plan_names[TENANT_FREE]));
	if (status == RSHM_OK)
		status = fill_quotas(document, defaults, error, error_len);
	if (status == RSHM_OK)
		status = fill_plain(document);
	if (status == RSHM_OK)
		status = put(document, "created_ms", json_integer((json_int_t)now_ms));
	if (status == RSHM_OK)
		status = put(document, "updated_ms", json_integer((json_int_t)now_ms));
	return status;
}

/* ---- records --------------------------------------------------------------------------------------------------- */

/* Takes the reference to a complete document, also on failure. */
static int make_record(json_t *document, uint64_t version, struct tenant_record **ret)
{
	struct tenant_record *record = calloc(1, sizeof(*record));

	if (!record) {
		json_decref(document);
		return RSHM_E_NOMEM;
	}
	record->document = document;
	record->version = version;
	snprintf(record->id, sizeof(record->id), "%s", json_string_value(json_object_get(document, "id")));
	record->status =
		(enum tenant_status)place_of(json_object_get(document, "status"), status_names, COUNT(status_names));
	record->plan = (enum tenant_plan)place_of(json_object_get(document, "plan"), plan_names, COUNT(plan_names));
	record->isolation = (enum tenant_isolation)place_of(json_object_get(document, "isolation"), isolation_names,
							    COUNT(isolation_names));
	record->encryption = json_is_true(json_object_get(document, "encryption"));
	record->hot = json_is_true(json_object_get(document, "hot"));
	record->token_required = json_is_true(json_object_get(document, "token_required"));
	*ret = record;
	return RSHM_OK;
}

static int finish(json_t *document, int status, uint64_t version, struct tenant_record **ret, char *error,
		  size_t error_len)
{
	if (status == RSHM_OK && json_dumpb(document, NULL, 0, JSON_COMPACT) > TENANT_RECORD_MAX - STATUS_ROOM) {
		snprintf(error, error_len, "the tenant's document would have more than %u bytes",
			 TENANT_RECORD_MAX - STATUS_ROOM);
		status = RSHM_E_TOOBIG;
	}
	if (status == RSHM_OK)
		return make_record(document, version, ret);
	if (status == RSHM_E_NOMEM)
		snprintf(error, error_len, "no memory");
	json_decref(document);
	return status;
}

int tenant_record_create(const char *json, size_t length, const struct tenant_defaults *defaults, uint64_t now_ms,
			 struct tenant_record **ret, char *error, size_t error_len)
{
	json_t *given, *document;
	int status = parse_given(json, length, &given, error, error_len);

	if (status < 0)
		return status;
	document = json_object();
	status = document ? take_given(given, false, document, error, error_len) : RSHM_E_NOMEM;
	if (status == RSHM_OK)
		status = fill_new(document, defaults, now_ms, error, error_len);
	json_decref(given);
	return finish(document, status, 0, ret, error, error_len);
}

int tenant_record_update(const struct tenant_record *record, const char *json, size_t length,
			 const struct tenant_defaults *defaults, uint64_t now_ms, struct tenant_record **ret,
			 char *error, size_t error_len)
{
	json_t *given, *document;
	int status = parse_given(json, length, &given, error, error_len);

	if (status < 0)
		return status;
	document = json_deep_copy(record->document);
	status = document ? take_given(given, true, document, error, error_len) : RSHM_E_NOMEM;
	if (status == RSHM_OK && !json_object_get(document, "plan"))
		status = put(document, "plan", json_string(plan_names[TENANT_FREE]));
	/* It took what it had back: then those of the plan are its own again. */
	if (status == RSHM_OK && !json_object_get(document, "quotas"))
		status = fill_quotas(document, defaults, error, error_len);
	if (status == RSHM_OK)
		status = fill_plain(document);
	if (status == RSHM_OK)
		status = put(document, "updated_ms", json_integer((json_int_t)now_ms));
	json_decref(given);
	return finish(document, status, record->version, ret, error, error_len);
}

/* At most TENANT_TEXT_MAX bytes of a reason, cut between two characters. */
static json_t *make_reason(const char *reason)
{
	size_t length = strlen(reason), kept = 0, step;

	while (kept < length) {
		step = text_utf8_length(reason + kept, length - kept);
		if (step == 0)
			return json_string("(unreadable)");
		if (kept + step > TENANT_TEXT_MAX)
			break;
		kept += step;
	}
	return json_stringn(reason, kept);
}

int tenant_record_set_status(const struct tenant_record *record, enum tenant_status status, const char *reason,
			     uint64_t now_ms, struct tenant_record **ret)
{
	json_t *document = json_deep_copy(record->document);

	if (!document || put(document, "status", json_string(status_names[status])) < 0 ||
	    put(document, "status_reason", make_reason(reason ? reason : "")) < 0 ||
	    put(document, "updated_ms", json_integer((json_int_t)now_ms)) < 0) {
		json_decref(document);
		return RSHM_E_NOMEM;
	}
	return make_record(document, record->version, ret);
}

/* All members are there, known and right. */
static const char *find_fault(const json_t *document, char *buffer, size_t size)
{
	const char *key;
	json_t *value;

	if (!json_is_object(document))
		return "no object";
	json_object_foreach((json_t *)document, key, value)
	{
		const struct member *member = find_member(key);

		if (!member || member->check(value)) {
			refuse_member(key, member ? "is not as it must be" : "is not known to this release", buffer,
				      size);
			return buffer;
		}
	}
	for (size_t i = 0; i < COUNT(members); i++) {
		if (!json_object_get(document, members[i].name)) {
			snprintf(buffer, size, "\"%s\" is missing", members[i].name);
			return buffer;
		}
	}
	return NULL;
}

int tenant_record_decode(const char *id, const void *bytes, size_t length, struct tenant_record **ret, char *error,
			 size_t error_len)
{
	json_t *document =
		length <= TENANT_RECORD_MAX ? json_loadb(bytes, length, JSON_REJECT_DUPLICATES, NULL) : NULL;
	char buffer[FAULT_BYTES];
	const char *fault = document ? find_fault(document, buffer, sizeof(buffer)) : "no JSON";

	if (!fault && strcmp(json_string_value(json_object_get(document, "id")), id) != 0)
		fault = "of another id";
	if (fault) {
		snprintf(error, error_len, "the record of tenant %s in the backend cannot be used: %s", id, fault);
		json_decref(document);
		return RSHM_E_CORRUPT;
	}
	return make_record(document, 0, ret);
}

void tenant_record_destroy(struct tenant_record **record)
{
	struct tenant_record *r = *record;

	*record = NULL;
	if (!r)
		return;
	json_decref(r->document);
	free(r);
}

char *tenant_record_encode(const struct tenant_record *record)
{
	return json_dumps(record->document, JSON_COMPACT);
}

json_t *tenant_record_public(const struct tenant_record *record)
{
	json_t *document = json_deep_copy(record->document);

	json_object_del(document, "tokens");
	return document;
}

int tenant_record_tokens(const struct tenant_record *record, struct token_set **ret)
{
	const json_t *tokens = json_object_get(record->document, "tokens");

	if (json_is_null(tokens))
		return token_set_create(record->id, TENANT_TOKENS_MAX, ret);
	return token_set_from_json(tokens, record->id, TENANT_TOKENS_MAX, ret);
}

int tenant_record_set_tokens(const struct tenant_record *record, const struct token_set *tokens, uint64_t now_ms,
			     struct tenant_record **ret)
{
	json_t *document = json_deep_copy(record->document);

	if (!document || put(document, "tokens", token_set_to_json(tokens)) < 0 ||
	    put(document, "updated_ms", json_integer((json_int_t)now_ms)) < 0) {
		json_decref(document);
		return RSHM_E_NOMEM;
	}
	return make_record(document, record->version, ret);
}

bool tenant_record_quota(const struct tenant_record *record, const char *name, uint64_t *ret)
{
	const json_t *value = json_object_get(json_object_get(record->document, "quotas"), name);

	if (!value)
		return false;
	*ret = (uint64_t)json_integer_value(value);
	return true;
}
