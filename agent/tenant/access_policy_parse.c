/*
 * access_policy_parse.c - rules from JSON, checked member by member: whatever is not understood is refused, because a rule
 * that is read otherwise than it was meant protects nothing. The error text names rule, member and what is wrong.
 */
#include "agent/tenant/access_policy_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/text.h"
#include "shm/msg.h"

#define EVERY_DAY 0x7fu

/* ---- errors ------------------------------------------------------------------------------------------------- */

/* Who is being parsed, for the error text. */
struct parser {
	struct access_policy *policy;
	struct rule *rule;
	char *error;
	size_t error_size;
};

__attribute__((format(printf, 3, 0))) static int vfail(struct parser *p, const char *member, const char *format,
						       va_list arguments)
{
	char bytes[ACCESS_ERROR_MAX];
	struct text text;

	text_init(&text, bytes, sizeof(bytes));
	text_append_format(&text, "rule %u", p->rule->number + 1);
	if (p->rule->name[0]) {
		text_append_string(&text, " \"");
		text_append_escaped(&text, p->rule->name, strlen(p->rule->name));
		text_append_string(&text, "\"");
	}
	text_append_format(&text, ": %s: ", member);
	text_append_formatv(&text, format, arguments);
	snprintf(p->error, p->error_size, "%s", bytes);
	return RSHM_E_INVALID;
}

__attribute__((format(printf, 3, 4))) static int fail(struct parser *p, const char *member, const char *format, ...)
{
	va_list arguments;
	int status;

	va_start(arguments, format);
	status = vfail(p, member, format, arguments);
	va_end(arguments);
	return status;
}

/* `names` ends with NULL; `where` is the object's path. */
static int only_members(struct parser *p, json_t *object, const char *where, const char *const *names)
{
	char shown[80];
	struct text text;
	const char *name;
	json_t *value;

	json_object_foreach(object, name, value)
	{
		const char *const *known = names;

		while (*known && strcmp(*known, name) != 0)
			known++;
		if (*known)
			continue;
		text_init(&text, shown, sizeof(shown));
		text_append_escaped(&text, name, strlen(name));
		return fail(p, where, "there is no member \"%s\"", shown);
	}
	return RSHM_OK;
}

/* NULL if it is no text, or one with a NUL in it. */
static const char *plain_text(const json_t *value)
{
	const char *text = json_string_value(value);

	return text && strlen(text) == json_string_length(value) ? text : NULL;
}

/* ---- members of a rule -------------------------------------------------------------------------------------- */

static bool has_control(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	return false;
}

static int parse_name(struct parser *p, const json_t *value)
{
	const char *name = plain_text(value);

	if (!value)
		return RSHM_OK;
	if (!name || !*name || has_control(name))
		return fail(p, "name", "must be text without control characters");
	if (strlen(name) > ACCESS_NAME_MAX)
		return fail(p, "name", "is longer than %u bytes", ACCESS_NAME_MAX);
	memcpy(p->rule->name, name, strlen(name) + 1);
	return RSHM_OK;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Length of the escape at `text` and the byte it stands for; 0: it is none. */
static size_t decode_escape(const char *text, unsigned char *ret)
{
	int high, low;

	if (text[1] == '\\' || text[1] == '*') {
		*ret = (unsigned char)text[1];
		return 2;
	}
	if (text[1] != 'x' || (high = hex_digit(text[2])) < 0 || (low = hex_digit(text[3])) < 0)
		return 0;
	*ret = (unsigned char)(high << 4 | low);
	return 4;
}

static int decode_resource(struct parser *p, const char *text, unsigned char *bytes)
{
	struct rule *rule = p->rule;

	while (*text) {
		unsigned char byte = (unsigned char)*text;
		size_t used = 1;

		if (*text == '*' && text[1])
			return fail(p, "resource", "a star may only stand at the end; \\* is one of a key");
		if (*text == '*') {
			rule->is_prefix = true;
			break;
		}
		if (*text == '\\' && (used = decode_escape(text, &byte)) == 0)
			return fail(p, "resource", "after a backslash comes \\, * or xNN");
		if (rule->length == ACCESS_RESOURCE_MAX)
			return fail(p, "resource", "is longer than %u bytes", ACCESS_RESOURCE_MAX);
		bytes[rule->length++] = byte;
		text += used;
	}
	return RSHM_OK;
}

static int parse_resource(struct parser *p, const json_t *value)
{
	const char *text = plain_text(value);
	unsigned char bytes[ACCESS_RESOURCE_MAX];
	int status;

	if (!text || !*text)
		return fail(p, "resource", "must be a key, a prefix with a star, or \"*\"");
	status = decode_resource(p, text, bytes);
	if (status != RSHM_OK)
		return status;
	p->rule->resource = malloc(p->rule->length + 1);
	if (!p->rule->resource)
		return RSHM_E_NOMEM;
	memcpy(p->rule->resource, bytes, p->rule->length);
	return RSHM_OK;
}

static int add_action(struct access_policy *policy, const char *name)
{
	struct action *actions = realloc(policy->actions, (policy->action_count + 1) * sizeof(*actions));

	if (!actions)
		return RSHM_E_NOMEM;
	policy->actions = actions;
	actions += policy->action_count++;
	actions->length = strlen(name);
	memcpy(actions->name, name, actions->length + 1);
	return RSHM_OK;
}

static int parse_action(struct parser *p, const json_t *value)
{
	const char *name = plain_text(value);
	uint32_t place;

	if (name && strcmp(name, "*") == 0) {
		p->rule->actions = UINT64_MAX;
		return RSHM_OK;
	}
	if (!name || !access_is_action(name, strlen(name)))
		return fail(p, "actions", "must be \"*\" or names of a-z, 0-9 and _.:- with at most %u characters",
			    ACCESS_ACTION_MAX);
	place = access_find_action(p->policy, name, strlen(name));
	if (place == NONE) {
		if (p->policy->action_count == ACTION_NAMES_MAX)
			return fail(p, "actions",
				    "more than %u names besides read, write, delete, admin in all rules",
				    ACCESS_CUSTOM_ACTIONS_MAX);
		place = p->policy->action_count;
		if (add_action(p->policy, name) != RSHM_OK)
			return RSHM_E_NOMEM;
	}
	p->rule->actions |= UINT64_C(1) << place;
	return RSHM_OK;
}

static int parse_actions(struct parser *p, const json_t *value)
{
	size_t count = json_array_size(value);
	int status = RSHM_OK;

	if (!json_is_array(value) || count == 0)
		return fail(p, "actions", "must be a list of at least one action");
	if (count > ACCESS_RULE_ACTIONS_MAX)
		return fail(p, "actions", "are more than %u", ACCESS_RULE_ACTIONS_MAX);
	for (size_t i = 0; i < count && status == RSHM_OK; i++)
		status = parse_action(p, json_array_get(value, i));
	return status;
}

static int parse_effect(struct parser *p, const json_t *value)
{
	const char *effect = plain_text(value);

	if (!effect || (strcmp(effect, "allow") != 0 && strcmp(effect, "deny") != 0))
		return fail(p, "effect", "must be \"allow\" or \"deny\"");
	p->rule->deny = effect[0] == 'd';
	return RSHM_OK;
}

/* ---- conditions --------------------------------------------------------------------------------------------- */

static int parse_minute(struct parser *p, const char *member, const json_t *value, uint16_t *ret)
{
	const char *text = plain_text(value);
	unsigned int hour, minute;

	if (!text || strlen(text) != 5 || text[2] != ':' || strspn(text, "0123456789") != 2 ||
	    strspn(text + 3, "0123456789") != 2)
		return fail(p, member, "must be \"HH:MM\"");
	hour = (unsigned int)(text[0] - '0') * 10 + (unsigned int)(text[1] - '0');
	minute = (unsigned int)(text[3] - '0') * 10 + (unsigned int)(text[4] - '0');
	if (hour > 23 || minute > 59)
		return fail(p, member, "must be 00:00 to 23:59");
	*ret = (uint16_t)(hour * 60 + minute);
	return RSHM_OK;
}

static int parse_days(struct parser *p, const json_t *value, uint8_t *ret)
{
	static const char *const names[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};
	uint8_t days = 0;

	for (size_t i = 0; i < json_array_size(value) && i < 8; i++) {
		const char *name = plain_text(json_array_get(value, i));
		unsigned int day = 0;

		while (name && day < 7 && strcmp(name, names[day]) != 0)
			day++;
		if (!name || day == 7 || (days & 1u << day))
			return fail(p, "conditions.time.days",
				    "must be of mon, tue, wed, thu, fri, sat, sun, each once");
		days |= (uint8_t)(1u << day);
	}
	if (days == 0)
		return fail(p, "conditions.time.days", "must be a list of at least one day");
	*ret = days;
	return RSHM_OK;
}

static int parse_time(struct parser *p, json_t *time)
{
	static const char *const members[] = {"from", "to", "days", NULL};
	struct conditions *c = &p->rule->conditions;
	const json_t *from = json_object_get(time, "from"), *to = json_object_get(time, "to"),
		     *days = json_object_get(time, "days");
	int status;

	if (!json_is_object(time))
		return fail(p, "conditions.time", "must be an object");
	status = only_members(p, time, "conditions.time", members);
	if (status != RSHM_OK)
		return status;
	if (!from != !to || (!from && !days))
		return fail(p, "conditions.time", "needs from and to, or days, or all three");
	c->has_time = true;
	c->days = EVERY_DAY;
	if (from) {
		status = parse_minute(p, "conditions.time.from", from, &c->from);
		if (status == RSHM_OK)
			status = parse_minute(p, "conditions.time.to", to, &c->to);
		if (status == RSHM_OK && c->from == c->to)
			status =
				fail(p, "conditions.time", "from and to are the same; leave both out for whole days");
	}
	return status == RSHM_OK && days ? parse_days(p, days, &c->days) : status;
}

static int parse_uids(struct parser *p, const json_t *list)
{
	struct conditions *c = &p->rule->conditions;
	size_t count = json_array_size(list);

	if (!json_is_array(list) || count == 0)
		return fail(p, "conditions.peer_uids", "must be a list of at least one user id");
	if (count > ACCESS_UIDS_MAX)
		return fail(p, "conditions.peer_uids", "are more than %u", ACCESS_UIDS_MAX);
	c->uids = malloc(count * sizeof(*c->uids));
	if (!c->uids)
		return RSHM_E_NOMEM;
	for (size_t i = 0; i < count; i++) {
		const json_t *value = json_array_get(list, i);
		json_int_t uid = json_integer_value(value);

		/* The largest number is the kernel's word for no user. */
		if (!json_is_integer(value) || uid < 0 || uid >= UINT32_MAX)
			return fail(p, "conditions.peer_uids", "must be user ids: 0 to 4294967294");
		c->uids[c->uid_count++] = (uid_t)uid;
	}
	qsort(c->uids, count, sizeof(*c->uids), access_compare_uids);
	return RSHM_OK;
}

static int parse_conditions(struct parser *p, json_t *object)
{
	static const char *const members[] = {"time", "peer_uids", "read_only", NULL};
	struct conditions *c = &p->rule->conditions;
	json_t *time = json_object_get(object, "time");
	const json_t *uids = json_object_get(object, "peer_uids"), *role = json_object_get(object, "read_only");
	int status;

	if (!object)
		return RSHM_OK;
	if (!json_is_object(object))
		return fail(p, "conditions", "must be an object");
	status = only_members(p, object, "conditions", members);
	if (status == RSHM_OK && time)
		status = parse_time(p, time);
	if (status == RSHM_OK && uids)
		status = parse_uids(p, uids);
	if (status == RSHM_OK && role && !json_is_boolean(role))
		status = fail(p, "conditions.read_only", "must be true or false");
	if (status != RSHM_OK)
		return status;
	c->has_role = role != NULL;
	c->read_only = json_is_true(role);
	p->rule->is_conditional = time || uids || role;
	return RSHM_OK;
}

static int parse_rule(struct parser *p, json_t *object)
{
	static const char *const members[] = {"name", "resource", "actions", "effect", "conditions", NULL};
	int status;

	if (!json_is_object(object))
		return fail(p, "rule", "must be an object");
	status = parse_name(p, json_object_get(object, "name"));
	if (status == RSHM_OK)
		status = only_members(p, object, "rule", members);
	if (status == RSHM_OK)
		status = parse_resource(p, json_object_get(object, "resource"));
	if (status == RSHM_OK)
		status = parse_actions(p, json_object_get(object, "actions"));
	if (status == RSHM_OK)
		status = parse_effect(p, json_object_get(object, "effect"));
	return status == RSHM_OK ? parse_conditions(p, json_object_get(object, "conditions")) : status;
}

/* ---- all of it ---------------------------------------------------------------------------------------------- */

static int parse_rules(struct access_policy *policy, const json_t *array, char *error, size_t error_size)
{
	struct parser parser = {.policy = policy, .error = error, .error_size = error_size};
	size_t count = json_array_size(array);
	int status = RSHM_OK;

	policy->rules = calloc(count + 1, sizeof(*policy->rules));
	if (!policy->rules)
		return RSHM_E_NOMEM;
	for (size_t i = 0; i < count && status == RSHM_OK; i++) {
		parser.rule = &policy->rules[policy->rule_count++];
		parser.rule->number = (uint32_t)i;
		status = parse_rule(&parser, json_array_get(array, i));
		if (!parser.rule->name[0])
			snprintf(parser.rule->name, sizeof(parser.rule->name), "rule %zu", i + 1);
	}
	return status;
}

int access_policy_parse(const json_t *array, struct access_policy **ret, char *error, size_t error_size)
{
	static const char *const known[] = {"read", "write", "delete", "admin"};
	struct access_policy *policy;
	int status = RSHM_OK;

	if (!json_is_array(array) || json_array_size(array) > ACCESS_RULES_MAX) {
		snprintf(error, error_size,
			 json_is_array(array) ? "more than %u rules" : "must be a list of at most %u rules",
			 ACCESS_RULES_MAX);
		return RSHM_E_INVALID;
	}
	policy = calloc(1, sizeof(*policy));
	if (!policy)
		return RSHM_E_NOMEM;
	policy->magic = ACCESS_POLICY_MAGIC;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]) && status == RSHM_OK; i++)
		status = add_action(policy, known[i]);
	if (status == RSHM_OK)
		status = parse_rules(policy, array, error, error_size);
	if (status == RSHM_OK)
		status = access_policy_compile(policy);
	if (status == RSHM_OK && !(policy->source = json_dumps(array, JSON_COMPACT)))
		status = RSHM_E_NOMEM;
	if (status != RSHM_OK) {
		access_policy_destroy(&policy);
		return status;
	}
	*ret = policy;
	return RSHM_OK;
}
