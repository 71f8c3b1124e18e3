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
#include "agent/tenant/access_policy_priv.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "shm/msg.h"

#define DAY_MINUTES 1440u

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

static bool is_rule_of(const struct rule *rule, const struct pattern *pattern, bool as_prefix)
{
	return rule->is_prefix == as_prefix &&
	       compare_bytes(pattern->bytes, pattern->length, rule->resource, rule->length) == 0;
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

int access_policy_compile(struct access_policy *policy)
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

		own->bytes = policy->rules[rule].resource;
		own->length = policy->rules[rule].length;
		own->exact.first = rule;
		while (rule < count && is_rule_of(&policy->rules[rule], own, false))
			rule++;
		own->exact.last = own->prefix.first = rule;
		while (rule < count && is_rule_of(&policy->rules[rule], own, true))
			rule++;
		own->prefix.last = rule;
		own->parent = find_parent(policy, index);
	}
	policy->restricts_reads = may_refuse_reads(policy);
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
	free(p->actions);
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

bool access_is_action(const char *name, size_t length)
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
uint32_t access_find_action(const struct access_policy *policy, const char *name, size_t length)
{
	for (uint32_t i = 0; i < policy->action_count; i++)
		if (policy->actions[i].length == length && memcmp(policy->actions[i].name, name, length) == 0)
			return i;
	return NONE;
}

int access_compare_uids(const void *a, const void *b)
{
	uid_t x = *(const uid_t *)a, y = *(const uid_t *)b;

	return x < y ? -1 : x > y;
}

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
	if (c->uid_count && !bsearch(&question->uid, c->uids, c->uid_count, sizeof(*c->uids), access_compare_uids))
		return false;
	return !c->has_time || time_holds(c, question->now_wall_ms);
}

/* 0: it is no action at all. */
static uint64_t action_bit(const struct access_policy *policy, const char *name)
{
	size_t length = strlen(name);
	uint32_t place = access_find_action(policy, name, length);

	if (place != NONE)
		return UINT64_C(1) << place;
	return access_is_action(name, length) ? UINT64_C(1) << ACTION_OTHER : 0;
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

static void decide(const struct findings *found, struct access_answer *ret)
{
	const struct rule *decided = found->deny ? found->deny : found->allow;

	ret->allowed = decided && !decided->deny;
	ret->rule = decided ? (int32_t)decided->number : -1;
	ret->rule_name = decided ? decided->name : NULL;
}

void access_policy_check(const struct access_policy *policy, const struct access_question *question,
			 struct access_answer *ret)
{
	struct findings found = {NULL, NULL};
	uint64_t bit;

	must(policy->magic == ACCESS_POLICY_MAGIC);
	if (policy->rule_count == 0) {
		*ret = (struct access_answer){true, -1, NULL};
		return;
	}
	bit = action_bit(policy, question->action);
	if (bit)
		examine_patterns(policy, bit, question, &found);
	decide(&found, ret);
}

/* Does the rule speak of every key that begins so, or, if it denies, of any? */
static bool concerns_all(const struct rule *rule, const unsigned char *prefix, size_t length)
{
	size_t common = rule->length < length ? rule->length : length;

	if (common && memcmp(rule->resource, prefix, common) != 0)
		return false;
	if (rule->deny)
		return rule->is_prefix || rule->length >= length;
	return rule->is_prefix && rule->length <= length;
}

void access_policy_check_all(const struct access_policy *policy, const struct access_question *question,
			     struct access_answer *ret)
{
	struct findings found = {NULL, NULL};
	uint64_t bit;

	must(policy->magic == ACCESS_POLICY_MAGIC);
	if (policy->rule_count == 0) {
		*ret = (struct access_answer){true, -1, NULL};
		return;
	}
	bit = action_bit(policy, question->action);
	for (uint32_t i = 0; i < policy->rule_count; i++) {
		const struct span one = {i, i + 1};

		if (concerns_all(&policy->rules[i], question->resource, question->resource_length))
			examine(policy, &one, bit, question, &found);
	}
	decide(&found, ret);
}
