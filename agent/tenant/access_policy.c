/*
 * access_policy.c - rules, compiled into one sorted list of patterns.
 *
 * Every pattern that occurs stands once in `patterns`, in the order of its bytes, with the rules that name it: those that
 * want exactly it, and those that want it as a prefix ("*" is the empty prefix). Of all patterns that are prefixes of a
 * key, the longest is the key's predecessor in that order or a prefix of the predecessor: what stands between a prefix
 * and the key begins with the prefix, too. So each pattern remembers the longest other one that is a prefix of it and has
 * prefix rules (`parent`), and a check is one binary search and a walk up the parents. Once one of these is a prefix of
 * the key, all above it are.
 *
 *	patterns   ""  "doc:"  "doc:a"  "doc:b:"       key "doc:b:7": predecessor "doc:b:", matches; then "doc:", then ""
 *	parent     -   ""      "doc:"   "doc:"         key "doc:c":   predecessor "doc:b:", no match; then "doc:", then ""
 *
 * Names of actions become bits of a word, so most rules of a pattern are passed over with one `and`. The last bit stands
 * for all names that no rule mentions; only "*" has it. Conditions are looked at last, and only of a rule that would
 * change the answer: a deny below the best deny so far, or an allow below the best allow while nothing denies.
 *
 * The JSON is kept as compact text, a fraction of what its objects would take.
 */
#include "agent/tenant/access_policy.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/text.h"
#include "shm/msg.h"

#define ACCESS_POLICY_MAGIC 0x41434350u
#define NONE UINT32_MAX
#define ACTION_READ 0u   /* place of "read" among the names, and its bit */
#define ACTION_OTHER 63u /* bit of the names that no rule mentions */
#define ACTION_NAMES_MAX 63u
#define DAY_MINUTES 1440u
#define EVERY_DAY 0x7fu

struct action {
	size_t length;
	char name[ACCESS_ACTION_MAX + 1];
};

struct conditions {
	bool has_time, has_role;
	bool read_only;    /* with has_role */
	uint8_t days;      /* bit 0: Monday */
	uint16_t from, to; /* minutes of the day; equal: all of it */
	size_t uid_count;  /* 0: anybody */
	uid_t *uids;       /* sorted */
};

struct rule {
	uint64_t actions; /* bits */
	uint32_t number;  /* its place in the array, from 0 */
	bool deny;
	bool is_conditional;
	bool is_prefix;
	uint32_t length;
	unsigned char *resource; /* decoded, without the star */
	struct conditions conditions;
	char name[ACCESS_NAME_MAX + 1];
};

/* Rules first to last - 1 of `rules`. */
struct span {
	uint32_t first, last;
};

struct pattern {
	const unsigned char *bytes; /* of a rule */
	uint32_t length;
	uint32_t parent; /* index, or NONE */
	struct span exact, prefix;
};

struct access_policy {
	uint32_t magic;
	bool restricts_reads;
	uint32_t action_count, rule_count, pattern_count;
	struct action actions[ACTION_NAMES_MAX];
	struct rule *rules;       /* by pattern, exact before prefix, number */
	struct pattern *patterns; /* by bytes */
	char *source;
};

_Static_assert(4 + ACCESS_CUSTOM_ACTIONS_MAX == ACTION_NAMES_MAX, "a bit for each name and one for the others");

/* ---- errors ------------------------------------------------------------------------------------------------- */

/* Who is being parsed, for the error text. */
struct parser {
	struct access_policy *policy;
	struct rule *rule;
	char *error;
	size_t error_size;
};

static int vfail(struct parser *p, const char *member, const char *format, va_list arguments)
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

	if (!value) {
		snprintf(p->rule->name, sizeof(p->rule->name), "rule %u", p->rule->number + 1);
		return RSHM_OK;
	}
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

static bool is_action(const char *name, size_t length)
{
	if (length == 0 || length > ACCESS_ACTION_MAX)
		return false;
	for (size_t i = 0; i < length; i++) {
		bool plain = (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9');

		if (!plain && !memchr("_.:-", name[i], 4))
			return false;
	}
	return true;
}

/* NONE: no rule mentions it. */
static uint32_t find_action(const struct access_policy *policy, const char *name, size_t length)
{
	for (uint32_t i = 0; i < policy->action_count; i++)
		if (policy->actions[i].length == length && memcmp(policy->actions[i].name, name, length) == 0)
			return i;
	return NONE;
}

static void add_action(struct access_policy *policy, const char *name)
{
	struct action *action = &policy->actions[policy->action_count++];

	action->length = strlen(name);
	memcpy(action->name, name, action->length + 1);
}

static int parse_action(struct parser *p, const json_t *value)
{
	const char *name = plain_text(value);
	uint32_t place;

	if (name && strcmp(name, "*") == 0) {
		p->rule->actions = UINT64_MAX;
		return RSHM_OK;
	}
	if (!name || !is_action(name, strlen(name)))
		return fail(p, "actions", "must be \"*\" or names of a-z, 0-9 and _.:- with at most %u characters",
			    ACCESS_ACTION_MAX);
	place = find_action(p->policy, name, strlen(name));
	if (place == NONE) {
		if (p->policy->action_count == ACTION_NAMES_MAX)
			return fail(p, "actions",
				    "more than %u names besides read, write, delete, admin in all rules",
				    ACCESS_CUSTOM_ACTIONS_MAX);
		place = p->policy->action_count;
		add_action(p->policy, name);
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

static int compare_uids(const void *a, const void *b)
{
	uid_t x = *(const uid_t *)a, y = *(const uid_t *)b;

	return x < y ? -1 : x > y;
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
	qsort(c->uids, count, sizeof(*c->uids), compare_uids);
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

/* ---- compiling ---------------------------------------------------------------------------------------------- */

static int compare_bytes(const void *a, size_t a_length, const void *b, size_t b_length)
{
	size_t common = a_length < b_length ? a_length : b_length;
	int order = common ? memcmp(a, b, common) : 0;

	return order ? order : a_length < b_length ? -1 : a_length > b_length;
}

static int compare_rules(const void *a, const void *b)
{
	const struct rule *x = a, *y = b;
	int order = compare_bytes(x->resource, x->length, y->resource, y->length);

	if (order)
		return order;
	if (x->is_prefix != y->is_prefix)
		return x->is_prefix ? 1 : -1;
	return x->number < y->number ? -1 : 1;
}

static bool begins_with(const void *bytes, size_t length, const struct pattern *prefix)
{
	return prefix->length <= length && (prefix->length == 0 || memcmp(bytes, prefix->bytes, prefix->length) == 0);
}

static bool is_empty(const struct span *span)
{
	return span->first == span->last;
}

/* The longest proper prefix among the patterns before it: the one just before, or one of that one's parents. */
static uint32_t find_parent(const struct access_policy *policy, uint32_t index)
{
	const struct pattern *own = &policy->patterns[index];
	uint32_t candidate = index - 1; /* NONE for the first */

	while (candidate != NONE && (is_empty(&policy->patterns[candidate].prefix) ||
				     !begins_with(own->bytes, own->length, &policy->patterns[candidate])))
		candidate = policy->patterns[candidate].parent;
	return candidate;
}

static int compile(struct access_policy *policy)
{
	uint32_t count = policy->rule_count, rule = 0;

	if (count == 0)
		return RSHM_OK;
	qsort(policy->rules, count, sizeof(*policy->rules), compare_rules);
	policy->patterns = calloc(count, sizeof(*policy->patterns));
	if (!policy->patterns)
		return RSHM_E_NOMEM;
	while (rule < count) {
		uint32_t index = policy->pattern_count++;
		struct pattern *own = &policy->patterns[index];
		const struct rule *head = &policy->rules[rule];

		own->bytes = head->resource;
		own->length = head->length;
		own->exact.first = rule;
		while (rule < count && !policy->rules[rule].is_prefix &&
		       compare_bytes(own->bytes, own->length, policy->rules[rule].resource,
				     policy->rules[rule].length) == 0)
			rule++;
		own->exact.last = own->prefix.first = rule;
		while (rule < count && policy->rules[rule].is_prefix &&
		       compare_bytes(own->bytes, own->length, policy->rules[rule].resource,
				     policy->rules[rule].length) == 0)
			rule++;
		own->prefix.last = rule;
		own->parent = find_parent(policy, index);
	}
	return RSHM_OK;
}

static bool may_refuse_reads(const struct access_policy *policy)
{
	uint64_t read = UINT64_C(1) << ACTION_READ;
	bool all_may_read = policy->rule_count == 0;

	for (uint32_t i = 0; i < policy->rule_count; i++) {
		const struct rule *rule = &policy->rules[i];

		if (!(rule->actions & read))
			continue;
		if (rule->deny)
			return true;
		all_may_read = all_may_read || (rule->is_prefix && rule->length == 0 && !rule->is_conditional);
	}
	return !all_may_read;
}

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
	}
	return status;
}

int access_policy_parse(const json_t *array, struct access_policy **ret, char *error, size_t error_size)
{
	static const char *const known[] = {"read", "write", "delete", "admin"};
	struct access_policy *policy;
	int status;

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
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		add_action(policy, known[i]);
	status = parse_rules(policy, array, error, error_size);
	if (status == RSHM_OK)
		status = compile(policy);
	if (status == RSHM_OK && !(policy->source = json_dumps(array, JSON_COMPACT)))
		status = RSHM_E_NOMEM;
	if (status != RSHM_OK) {
		access_policy_destroy(&policy);
		return status;
	}
	policy->restricts_reads = may_refuse_reads(policy);
	*ret = policy;
	return RSHM_OK;
}

void access_policy_destroy(struct access_policy **policy)
{
	struct access_policy *p = *policy;

	*policy = NULL;
	if (!p)
		return;
	must(p->magic == ACCESS_POLICY_MAGIC);
	for (uint32_t i = 0; i < p->rule_count; i++) {
		free(p->rules[i].resource);
		free(p->rules[i].conditions.uids);
	}
	free(p->rules);
	free(p->patterns);
	free(p->source);
	p->magic = 0;
	free(p);
}

json_t *access_policy_to_json(const struct access_policy *policy)
{
	return json_loads(policy->source, 0, NULL);
}

size_t access_policy_count(const struct access_policy *policy)
{
	return policy->rule_count;
}

bool access_policy_restricts_reads(const struct access_policy *policy)
{
	return policy->restricts_reads;
}

/* ---- checking ----------------------------------------------------------------------------------------------- */

static bool time_holds(const struct conditions *c, uint64_t now_wall_ms)
{
	uint64_t minutes = now_wall_ms / 60000;
	unsigned int minute = (unsigned int)(minutes % DAY_MINUTES);
	unsigned int day = (unsigned int)((minutes / DAY_MINUTES + 3) % 7); /* the first of 1970 was a Thursday */

	if (c->from > c->to && minute < c->to)
		day = (day + 6) % 7;
	else if (c->from > c->to ? minute < c->from : c->from < c->to && (minute < c->from || minute >= c->to))
		return false;
	return c->days & 1u << day;
}

static bool conditions_hold(const struct conditions *c, const struct access_question *question)
{
	if (c->has_role && c->read_only != question->read_only)
		return false;
	if (c->uid_count && !bsearch(&question->uid, c->uids, c->uid_count, sizeof(*c->uids), compare_uids))
		return false;
	return !c->has_time || time_holds(c, question->now_wall_ms);
}

/* 0: it is no action at all. */
static uint64_t action_bit(const struct access_policy *policy, const char *name)
{
	size_t length = strlen(name);
	uint32_t place = find_action(policy, name, length);

	if (place != NONE)
		return UINT64_C(1) << place;
	return is_action(name, length) ? UINT64_C(1) << ACTION_OTHER : 0;
}

/* The first matching rule of each effect so far; of allow only while there is none of deny. */
struct findings {
	const struct rule *deny, *allow;
};

static void examine(const struct access_policy *policy, const struct span *span, uint64_t bit,
		    const struct access_question *question, struct findings *found)
{
	for (uint32_t i = span->first; i < span->last; i++) {
		const struct rule *rule = &policy->rules[i], **best = rule->deny ? &found->deny : &found->allow;

		if (!(rule->actions & bit) || (!rule->deny && found->deny) ||
		    (*best && (*best)->number < rule->number))
			continue;
		if (!rule->is_conditional || conditions_hold(&rule->conditions, question))
			*best = rule;
	}
}

/* The last pattern that does not come after the key; NONE. */
static uint32_t find_predecessor(const struct access_policy *policy, const void *key, size_t length)
{
	uint32_t low = 0, high = policy->pattern_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct pattern *pattern = &policy->patterns[middle];

		if (compare_bytes(pattern->bytes, pattern->length, key, length) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low - 1;
}

static size_t common_length(const struct pattern *pattern, const unsigned char *key, size_t length)
{
	size_t most = pattern->length < length ? pattern->length : length, common = 0;

	while (common < most && pattern->bytes[common] == key[common])
		common++;
	return common;
}

static void examine_patterns(const struct access_policy *policy, uint64_t bit, const struct access_question *question,
			     struct findings *found)
{
	uint32_t index = find_predecessor(policy, question->resource, question->resource_length);
	size_t common;

	if (index == NONE)
		return;
	common = common_length(&policy->patterns[index], question->resource, question->resource_length);
	if (common == question->resource_length && policy->patterns[index].length == common)
		examine(policy, &policy->patterns[index].exact, bit, question, found);
	for (; index != NONE; index = policy->patterns[index].parent)
		if (policy->patterns[index].length <= common)
			examine(policy, &policy->patterns[index].prefix, bit, question, found);
}

void access_policy_check(const struct access_policy *policy, const struct access_question *question,
			 struct access_answer *ret)
{
	struct findings found = {NULL, NULL};
	const struct rule *decided;
	uint64_t bit;

	must(policy->magic == ACCESS_POLICY_MAGIC);
	if (policy->rule_count == 0) {
		*ret = (struct access_answer){true, -1, NULL};
		return;
	}
	bit = action_bit(policy, question->action);
	if (bit)
		examine_patterns(policy, bit, question, &found);
	decided = found.deny ? found.deny : found.allow;
	ret->allowed = decided && !decided->deny;
	ret->rule = decided ? (int32_t)decided->number : -1;
	ret->rule_name = decided ? decided->name : NULL;
}
