/*
 * access_policy_test.c - rules: what is refused when they are read, what they decide, and all of it against a plain list.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/tenant/access_policy.h"
#include "shm/msg.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define HOUR_MS UINT64_C(3600000)
#define DAY_MS (24 * HOUR_MS)

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint64_t random_below(uint64_t bound)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * 0x2545f4914f6cdd1du >> 16) % bound;
}

/* Midnight of Monday, 5 January 2026. */
static uint64_t monday(void)
{
	return UINT64_C(1767571200000);
}

static json_t *parse_json(const char *text)
{
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);

	assert_non_null(json);
	return json;
}

static struct access_policy *make(const char *text)
{
	struct access_policy *policy = NULL;
	char error[ACCESS_ERROR_MAX] = "none";
	json_t *json = parse_json(text);

	if (access_policy_parse(json, &policy, error, sizeof(error)) != RSHM_OK)
		fail_msg("%s", error);
	assert_string_equal(error, "none");
	json_decref(json);
	return policy;
}

static struct access_answer ask(const struct access_policy *policy, const char *key, const char *action, uid_t uid,
				bool read_only, uint64_t now_wall_ms)
{
	struct access_question question = {key, strlen(key), action, uid, read_only, now_wall_ms};
	struct access_answer answer;

	memset(&answer, 0xff, sizeof(answer));
	access_policy_check(policy, &question, &answer);
	return answer;
}

static bool allows(const struct access_policy *policy, const char *key, const char *action)
{
	return ask(policy, key, action, 1000, false, monday()).allowed;
}

/* ---- deciding ----------------------------------------------------------------------------------------------- */

static void without_rules_all_is_allowed(void **state)
{
	struct access_policy *policy = make("[]");
	struct access_answer answer = ask(policy, "doc:1", "Whatever is asked", 1000, true, 0);

	(void)state;
	assert_true(answer.allowed);
	assert_int_equal(answer.rule, -1);
	assert_null(answer.rule_name);
	assert_int_equal(access_policy_count(policy), 0);
	access_policy_destroy(&policy);
	assert_null(policy);
	access_policy_destroy(&policy);
}

static void with_rules_what_none_matches_is_denied(void **state)
{
	struct access_policy *policy =
		make("[{\"resource\":\"doc:*\",\"actions\":[\"read\"],\"effect\":\"allow\"},"
		     "{\"name\":\"one\",\"resource\":\"x\",\"actions\":[\"crawl:start\"],\"effect\":\"allow\"}]");
	struct access_answer answer = ask(policy, "doc:1", "read", 1000, false, 0);

	(void)state;
	assert_true(answer.allowed);
	assert_int_equal(answer.rule, 0);
	assert_string_equal(answer.rule_name, "rule 1");
	answer = ask(policy, "doc:1", "write", 1000, false, 0);
	assert_false(answer.allowed);
	assert_int_equal(answer.rule, -1);
	assert_null(answer.rule_name);
	assert_true(allows(policy, "doc:", "read"));
	assert_false(allows(policy, "doc", "read"));
	assert_false(allows(policy, "dod", "read"));
	assert_false(allows(policy, "", "read"));
	assert_true(allows(policy, "x", "crawl:start"));
	assert_string_equal(ask(policy, "x", "crawl:start", 1, false, 0).rule_name, "one");
	assert_false(allows(policy, "xy", "crawl:start"));
	assert_false(allows(policy, "x", "crawl:stop"));
	access_policy_destroy(&policy);
}

static void deny_wins_and_the_first_rule_that_decided_is_named(void **state)
{
	struct access_policy *policy = make(
		"[{\"name\":\"a\",\"resource\":\"*\",\"actions\":[\"*\"],\"effect\":\"allow\"},"
		"{\"name\":\"b\",\"resource\":\"secret:k\",\"actions\":[\"read\",\"write\"],\"effect\":\"allow\"},"
		"{\"name\":\"c\",\"resource\":\"secret:*\",\"actions\":[\"read\"],\"effect\":\"deny\"},"
		"{\"name\":\"d\",\"resource\":\"secret:k\",\"actions\":[\"read\"],\"effect\":\"deny\"},"
		"{\"name\":\"e\",\"resource\":\"doc\",\"actions\":[\"read\"],\"effect\":\"allow\"}]");

	(void)state;
	assert_string_equal(ask(policy, "secret:k", "read", 1, false, 0).rule_name, "c");
	assert_int_equal(ask(policy, "secret:k", "read", 1, false, 0).rule, 2);
	assert_false(allows(policy, "secret:k", "read"));
	assert_false(allows(policy, "secret:other", "read"));
	assert_true(allows(policy, "secret:k", "write"));
	assert_string_equal(ask(policy, "secret:k", "write", 1, false, 0).rule_name, "a");
	assert_string_equal(ask(policy, "doc", "read", 1, false, 0).rule_name, "a");
	assert_true(allows(policy, "doc", "delete"));
	access_policy_destroy(&policy);
}

static void an_action_that_is_no_name_passes_no_rule(void **state)
{
	struct access_policy *policy = make("[{\"resource\":\"*\",\"actions\":[\"*\"],\"effect\":\"allow\"},"
					    "{\"resource\":\"secret\",\"actions\":[\"read\"],\"effect\":\"deny\"}]");
	char longest[ACCESS_ACTION_MAX + 2];

	(void)state;
	memset(longest, 'a', sizeof(longest));
	longest[ACCESS_ACTION_MAX] = '\0';
	assert_true(allows(policy, "secret", "any.other_name:of-9"));
	assert_true(allows(policy, "secret", longest));
	longest[ACCESS_ACTION_MAX] = 'a';
	longest[ACCESS_ACTION_MAX + 1] = '\0';
	assert_false(allows(policy, "secret", longest));
	assert_false(allows(policy, "secret", "READ"));
	assert_false(allows(policy, "secret", "read "));
	assert_false(allows(policy, "secret", "*"));
	assert_false(allows(policy, "secret", ""));
	access_policy_destroy(&policy);
}

static void keys_are_bytes(void **state)
{
	struct access_policy *policy =
		make("[{\"resource\":\"a\\\\x00b\",\"actions\":[\"read\"],\"effect\":\"allow\"},"
		     "{\"resource\":\"\\\\xfF\\\\xFe*\",\"actions\":[\"read\"],\"effect\":\"allow\"},"
		     "{\"resource\":\"star\\\\*\",\"actions\":[\"read\"],\"effect\":\"allow\"},"
		     "{\"resource\":\"back\\\\\\\\*\",\"actions\":[\"read\"],\"effect\":\"allow\"}]");
	struct access_question question = {"a\0b", 3, "read", 1, false, 0};
	struct access_answer answer;

	(void)state;
	access_policy_check(policy, &question, &answer);
	assert_int_equal(answer.rule, 0);
	question.resource_length = 2;
	access_policy_check(policy, &question, &answer);
	assert_false(answer.allowed);
	question.resource = "\xff\xfe\0\0";
	question.resource_length = 4;
	access_policy_check(policy, &question, &answer);
	assert_int_equal(answer.rule, 1);
	assert_true(allows(policy, "star*", "read"));
	assert_false(allows(policy, "star", "read"));
	assert_false(allows(policy, "stars", "read"));
	assert_true(allows(policy, "back\\", "read"));
	assert_true(allows(policy, "back\\slash", "read"));
	question = (struct access_question){NULL, 0, "read", 1, false, 0};
	access_policy_check(policy, &question, &answer);
	assert_false(answer.allowed);
	access_policy_destroy(&policy);
}

static void a_key_of_any_length_may_be_asked(void **state)
{
	struct access_policy *policy = make("[{\"resource\":\"aaa*\",\"actions\":[\"read\"],\"effect\":\"allow\"},"
					    "{\"resource\":\"*\",\"actions\":[\"write\"],\"effect\":\"allow\"}]");
	struct access_question question = {.resource_length = RSHM_KEY_MAX, .action = "read"};
	struct access_answer answer;
	char *key = malloc(RSHM_KEY_MAX);

	(void)state;
	assert_non_null(key);
	memset(key, 'a', RSHM_KEY_MAX);
	question.resource = key;
	access_policy_check(policy, &question, &answer);
	assert_int_equal(answer.rule, 0);
	question = (struct access_question){.action = "write"};
	access_policy_check(policy, &question, &answer);
	assert_int_equal(answer.rule, 1);
	free(key);
	access_policy_destroy(&policy);
}

static void windows_of_time_end_before_their_last_minute(void **state)
{
	struct access_policy *policy =
		make("[{\"resource\":\"*\",\"actions\":[\"read\"],\"effect\":\"allow\",\"conditions\":"
		     "{\"time\":{\"from\":\"08:30\",\"to\":\"17:00\",\"days\":[\"mon\",\"fri\"]}}}]");
	uint64_t from = 8 * HOUR_MS + HOUR_MS / 2, to = 17 * HOUR_MS;

	(void)state;
	for (unsigned int day = 0; day < 14; day++) {
		uint64_t midnight = monday() + day * DAY_MS;
		bool open = day % 7 == 0 || day % 7 == 4;

		assert_false(ask(policy, "k", "read", 1, false, midnight + from - 1).allowed);
		assert_int_equal(ask(policy, "k", "read", 1, false, midnight + from).allowed, open);
		assert_int_equal(ask(policy, "k", "read", 1, false, midnight + to - 1).allowed, open);
		assert_false(ask(policy, "k", "read", 1, false, midnight + to).allowed);
	}
	access_policy_destroy(&policy);
}

static void windows_over_midnight_belong_to_the_day_they_began(void **state)
{
	struct access_policy *policy =
		make("[{\"resource\":\"*\",\"actions\":[\"read\"],\"effect\":\"allow\",\"conditions\":"
		     "{\"time\":{\"from\":\"22:00\",\"to\":\"06:00\",\"days\":[\"sun\"]}}}]");

	(void)state;
	assert_true(ask(policy, "k", "read", 1, false, monday() + 6 * HOUR_MS - 1).allowed);
	assert_false(ask(policy, "k", "read", 1, false, monday() + 6 * HOUR_MS).allowed);
	assert_false(ask(policy, "k", "read", 1, false, monday() + 23 * HOUR_MS).allowed);
	assert_false(ask(policy, "k", "read", 1, false, monday() - 2 * HOUR_MS - 1).allowed);
	assert_true(ask(policy, "k", "read", 1, false, monday() - 2 * HOUR_MS).allowed);
	assert_false(ask(policy, "k", "read", 1, false, monday() - 24 * HOUR_MS).allowed);
	ask(policy, "k", "read", 1, false, 0);
	ask(policy, "k", "read", 1, false, UINT64_MAX);
	access_policy_destroy(&policy);
}

static void conditions_on_caller_and_role_must_all_hold(void **state)
{
	struct access_policy *policy = make(
		"[{\"resource\":\"*\",\"actions\":[\"read\"],\"effect\":\"allow\"},"
		"{\"name\":\"ro\",\"resource\":\"*\",\"actions\":[\"write\"],\"effect\":\"allow\",\"conditions\":"
		"{\"read_only\":false,\"peer_uids\":[7,5,4294967294]}},"
		"{\"name\":\"kept\",\"resource\":\"s\",\"actions\":[\"read\"],\"effect\":\"deny\",\"conditions\":"
		"{\"read_only\":true}},{\"resource\":\"e\",\"actions\":[\"admin\"],\"effect\":\"allow\",\"conditions\":{}}]");

	(void)state;
	assert_true(ask(policy, "k", "write", 5, false, 0).allowed);
	assert_true(ask(policy, "k", "write", 4294967294u, false, 0).allowed);
	assert_false(ask(policy, "k", "write", 5, true, 0).allowed);
	assert_false(ask(policy, "k", "write", 6, false, 0).allowed);
	assert_true(ask(policy, "s", "read", 6, false, 0).allowed);
	assert_string_equal(ask(policy, "s", "read", 6, true, 0).rule_name, "kept");
	assert_true(ask(policy, "e", "admin", 6, true, 0).allowed);
	access_policy_destroy(&policy);
}

/* ---- could a read be refused -------------------------------------------------------------------------------- */

static bool restricts(const char *text)
{
	struct access_policy *policy = make(text);
	bool answer = access_policy_restricts_reads(policy);

	access_policy_destroy(&policy);
	return answer;
}

static void reads_are_free_only_where_that_is_certain(void **state)
{
#define ALL_READ "{\"resource\":\"*\",\"actions\":[\"read\"],\"effect\":\"allow\"}"
	(void)state;
	assert_false(restricts("[]"));
	assert_false(restricts("[" ALL_READ "]"));
	assert_false(restricts("[" ALL_READ ",{\"resource\":\"x\",\"actions\":[\"write\"],\"effect\":\"deny\"}]"));
	assert_true(restricts("[" ALL_READ ",{\"resource\":\"x\",\"actions\":[\"*\"],\"effect\":\"deny\"}]"));
	assert_true(restricts(
		"[{\"resource\":\"x\",\"actions\":[\"read\"],\"effect\":\"deny\",\"conditions\":{\"read_only\":"
		"true}}," ALL_READ "]"));
	assert_true(restricts("[{\"resource\":\"*\",\"actions\":[\"write\"],\"effect\":\"allow\"}]"));
	assert_true(restricts("[{\"resource\":\"a*\",\"actions\":[\"read\"],\"effect\":\"allow\"}]"));
	assert_true(restricts("[{\"resource\":\"\\\\*\",\"actions\":[\"read\"],\"effect\":\"allow\"}]"));
	assert_true(restricts(
		"[{\"resource\":\"*\",\"actions\":[\"read\"],\"effect\":\"allow\",\"conditions\":{\"peer_uids\":["
		"5]}}]"));
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

static const struct {
	const char *json, *error;
} wrong[] = {
	{"{}", "must be a list of at most 1000 rules"},
	{"[5]", "rule 1: rule: must be an object"},
	{"[{}]", "rule 1: resource: must be a key, a prefix with a star, or \"*\""},
	{"[{\"name\":5}]", "rule 1: name: must be text without control characters"},
	{"[{\"name\":\"\"}]", "rule 1: name: must be text without control characters"},
	{"[{\"name\":\"a\\u001bb\"}]", "rule 1: name: must be text without control characters"},
	{"[{\"name\":\"x\",\"effekt\\u001b\":1}]", "rule 1 \"x\": rule: there is no member \"effekt\\x1b\""},
	{"[{\"resource\":\"\"}]", "rule 1: resource: must be a key, a prefix with a star, or \"*\""},
	{"[{\"resource\":\"a*b\"}]", "rule 1: resource: a star may only stand at the end; \\* is one of a key"},
	{"[{\"resource\":\"**\"}]", "rule 1: resource: a star may only stand at the end; \\* is one of a key"},
	{"[{\"resource\":\"a\\\\\"}]", "rule 1: resource: after a backslash comes \\, * or xNN"},
	{"[{\"resource\":\"a\\\\x1\"}]", "rule 1: resource: after a backslash comes \\, * or xNN"},
	{"[{\"resource\":\"a\\\\x1g\"}]", "rule 1: resource: after a backslash comes \\, * or xNN"},
	{"[{\"resource\":\"a\"}]", "rule 1: actions: must be a list of at least one action"},
	{"[{\"resource\":\"a\",\"actions\":\"read\"}]", "rule 1: actions: must be a list of at least one action"},
	{"[{\"resource\":\"a\",\"actions\":[]}]", "rule 1: actions: must be a list of at least one action"},
	{"[{\"resource\":\"a\",\"actions\":[\"Read\"]}]",
	 "rule 1: actions: must be \"*\" or names of a-z, 0-9 and _.:- with at most 48 characters"},
	{"[{\"resource\":\"a\",\"actions\":[\"read\",1]}]",
	 "rule 1: actions: must be \"*\" or names of a-z, 0-9 and _.:- with at most 48 characters"},
	{"[{\"resource\":\"a\",\"actions\":[\"read\"]}]", "rule 1: effect: must be \"allow\" or \"deny\""},
	{"[{\"resource\":\"a\",\"actions\":[\"read\"],\"effect\":\"Allow\"}]",
	 "rule 1: effect: must be \"allow\" or \"deny\""},
};

#define CONDITIONS(text) \
	"[{\"name\":\"n\",\"resource\":\"a\",\"actions\":[\"read\"],\"effect\":\"deny\",\"conditions\":" text "}]"
#define TIME(text) CONDITIONS("{\"time\":" text "}")
static const struct {
	const char *json, *error;
} wrong_conditions[] = {
	{CONDITIONS("null"), "conditions: must be an object"},
	{CONDITIONS("{\"ip\":1}"), "conditions: there is no member \"ip\""},
	{CONDITIONS("{\"read_only\":1}"), "conditions.read_only: must be true or false"},
	{CONDITIONS("{\"peer_uids\":5}"), "conditions.peer_uids: must be a list of at least one user id"},
	{CONDITIONS("{\"peer_uids\":[]}"), "conditions.peer_uids: must be a list of at least one user id"},
	{CONDITIONS("{\"peer_uids\":[1.0]}"), "conditions.peer_uids: must be user ids: 0 to 4294967294"},
	{CONDITIONS("{\"peer_uids\":[5,-1]}"), "conditions.peer_uids: must be user ids: 0 to 4294967294"},
	{CONDITIONS("{\"peer_uids\":[4294967295]}"), "conditions.peer_uids: must be user ids: 0 to 4294967294"},
	{TIME("5"), "conditions.time: must be an object"},
	{TIME("{}"), "conditions.time: needs from and to, or days, or all three"},
	{TIME("{\"from\":\"10:00\"}"), "conditions.time: needs from and to, or days, or all three"},
	{TIME("{\"to\":\"10:00\",\"days\":[\"mon\"]}"), "conditions.time: needs from and to, or days, or all three"},
	{TIME("{\"zone\":\"CET\"}"), "conditions.time: there is no member \"zone\""},
	{TIME("{\"from\":\"10:00\",\"to\":\"10:00\"}"),
	 "conditions.time: from and to are the same; leave both out for whole days"},
	{TIME("{\"from\":\"1000\",\"to\":\"11:00\"}"), "conditions.time.from: must be \"HH:MM\""},
	{TIME("{\"from\":\"10:0\",\"to\":\"11:00\"}"), "conditions.time.from: must be \"HH:MM\""},
	{TIME("{\"from\":\"10:-1\",\"to\":\"11:00\"}"), "conditions.time.from: must be \"HH:MM\""},
	{TIME("{\"from\":\"10:00\",\"to\":\"24:00\"}"), "conditions.time.to: must be 00:00 to 23:59"},
	{TIME("{\"from\":\"10:00\",\"to\":\"23:60\"}"), "conditions.time.to: must be 00:00 to 23:59"},
	{TIME("{\"days\":[]}"), "conditions.time.days: must be a list of at least one day"},
	{TIME("{\"days\":\"mon\"}"), "conditions.time.days: must be a list of at least one day"},
	{TIME("{\"days\":[\"mon\",\"Tue\"]}"),
	 "conditions.time.days: must be of mon, tue, wed, thu, fri, sat, sun, each once"},
	{TIME("{\"days\":[\"mon\",\"mon\"]}"),
	 "conditions.time.days: must be of mon, tue, wed, thu, fri, sat, sun, each once"},
	{TIME("{\"days\":[\"mon\",\"tue\",\"wed\",\"thu\",\"fri\",\"sat\",\"sun\",5]}"),
	 "conditions.time.days: must be of mon, tue, wed, thu, fri, sat, sun, each once"},
};

/* Takes the JSON over. */
static void assert_refused(json_t *json, const char *expected)
{
	struct access_policy *policy = (void *)0x1;
	char error[ACCESS_ERROR_MAX] = "none";

	assert_int_equal(access_policy_parse(json, &policy, error, sizeof(error)), RSHM_E_INVALID);
	assert_string_equal(error, expected);
	assert_ptr_equal(policy, (void *)0x1);
	json_decref(json);
}

static void what_is_not_understood_is_refused_by_name(void **state)
{
	char expected[ACCESS_ERROR_MAX], tiny[8];
	struct access_policy *policy;

	(void)state;
	for (size_t i = 0; i < COUNT(wrong); i++)
		assert_refused(parse_json(wrong[i].json), wrong[i].error);
	for (size_t i = 0; i < COUNT(wrong_conditions); i++) {
		snprintf(expected, sizeof(expected), "rule 1 \"n\": %s", wrong_conditions[i].error);
		assert_refused(parse_json(wrong_conditions[i].json), expected);
	}
	assert_int_equal(access_policy_parse(NULL, &policy, tiny, sizeof(tiny)), RSHM_E_INVALID);
	assert_string_equal(tiny, "must be");
}

static json_t *rule_of(const char *name, const char *resource, size_t actions, size_t uids)
{
	json_t *rule = json_object(), *list = json_array(), *ids = json_array();

	for (size_t i = 0; i < actions; i++)
		json_array_append_new(list, json_sprintf("act%zu", i));
	for (size_t i = 0; i < uids; i++)
		json_array_append_new(ids, json_integer((json_int_t)i));
	json_object_set_new(rule, "name", json_string(name));
	json_object_set_new(rule, "resource", json_string(resource));
	json_object_set_new(rule, "actions", list);
	json_object_set_new(rule, "effect", json_string("allow"));
	json_object_set_new(rule, "conditions", json_pack("{s:o}", "peer_uids", ids));
	return rule;
}

static void assert_bound(json_t *rule, const char *error)
{
	struct access_policy *policy;
	char text[ACCESS_ERROR_MAX];
	json_t *array = json_array();

	json_array_append_new(array, rule);
	if (error) {
		assert_refused(array, error);
		return;
	}
	assert_int_equal(access_policy_parse(array, &policy, text, sizeof(text)), RSHM_OK);
	access_policy_destroy(&policy);
	json_decref(array);
}

static void everything_has_a_bound(void **state)
{
	char name[ACCESS_NAME_MAX + 2] = "", resource[ACCESS_RESOURCE_MAX + 3] = "";
	json_t *array = json_array(), *nul = json_stringn("a\0b", 3);

	(void)state;
	memset(name, 'n', ACCESS_NAME_MAX);
	memset(resource, 'r', ACCESS_RESOURCE_MAX);
	assert_bound(rule_of(name, resource, 59, 64), NULL);
	resource[ACCESS_RESOURCE_MAX] = '*';
	assert_bound(rule_of("x", resource, 59, 64), NULL);
	assert_bound(rule_of("x", "r", 60, 1),
		     "rule 1 \"x\": actions: more than 59 names besides read, write, delete, admin in all rules");
	assert_bound(rule_of("x", "r", 65, 1), "rule 1 \"x\": actions: are more than 64");
	assert_bound(rule_of("x", "r", 1, 65), "rule 1 \"x\": conditions.peer_uids: are more than 64");
	name[ACCESS_NAME_MAX] = 'n';
	assert_bound(rule_of(name, "r", 1, 1), "rule 1: name: is longer than 64 bytes");
	resource[ACCESS_RESOURCE_MAX] = 'r';
	assert_bound(rule_of("x", resource, 1, 1), "rule 1 \"x\": resource: is longer than 1024 bytes");
	assert_bound(json_pack("{s:o}", "resource", nul),
		     "rule 1: resource: must be a key, a prefix with a star, or \"*\"");
	for (size_t i = 0; i < ACCESS_RULES_MAX + 1; i++)
		json_array_append_new(array, rule_of("x", "r", 1, 1));
	assert_refused(array, "more than 1000 rules");
}

static bool all_allowed(const struct access_policy *policy, const char *prefix, const char *action)
{
	const struct access_question question = {
		.resource = prefix, .resource_length = strlen(prefix), .action = action, .uid = 1000};
	struct access_answer answer;

	access_policy_check_all(policy, &question, &answer);
	return answer.allowed;
}

static void all_keys_of_a_prefix_are_allowed_by_one_rule_and_denied_by_none(void **state)
{
	struct access_policy *policy =
		make("[{\"resource\":\"doc:*\",\"actions\":[\"delete\"],\"effect\":\"allow\"},"
		     "{\"resource\":\"doc:a:*\",\"actions\":[\"delete\"],\"effect\":\"deny\"},"
		     "{\"resource\":\"doc:b:7\",\"actions\":[\"delete\"],\"effect\":\"deny\"},"
		     "{\"resource\":\"one\",\"actions\":[\"delete\"],\"effect\":\"allow\"},"
		     "{\"resource\":\"night:*\",\"actions\":[\"delete\"],\"effect\":\"allow\",\"conditions\":"
		     "{\"peer_uids\":[7]}}]");
	struct access_policy *none = make("[]"), *everything;

	(void)state;
	assert_true(all_allowed(policy, "doc:c", "delete"));
	assert_false(all_allowed(policy, "doc:c", "read"));
	assert_false(all_allowed(policy, "doc:", "delete"));
	assert_false(all_allowed(policy, "doc:a", "delete"));
	assert_false(all_allowed(policy, "doc:a:1", "delete"));
	assert_false(all_allowed(policy, "doc:b:", "delete"));
	assert_false(all_allowed(policy, "doc:b:7", "delete"));
	assert_true(all_allowed(policy, "doc:b:7x", "delete"));
	assert_false(all_allowed(policy, "do", "delete"));
	assert_false(all_allowed(policy, "", "delete"));
	assert_false(all_allowed(policy, "one", "delete"));
	assert_false(all_allowed(policy, "night:", "delete"));
	assert_true(all_allowed(none, "", "delete"));
	everything = make("[{\"resource\":\"*\",\"actions\":[\"*\"],\"effect\":\"allow\"}]");
	assert_true(all_allowed(everything, "", "delete"));
	access_policy_destroy(&policy);
	access_policy_destroy(&none);
	access_policy_destroy(&everything);
}

static void rules_are_given_back_as_they_came(void **state)
{
	const char *text =
		"[{\"name\":\"n\",\"resource\":\"a\\\\x00*\",\"actions\":[\"read\",\"x\"],\"effect\":\"deny\","
		"\"conditions\":{\"time\":{\"days\":[\"sun\"]},\"read_only\":false}},"
		"{\"resource\":\"é\",\"actions\":[\"*\"],\"effect\":\"allow\"}]";
	struct access_policy *policy = make(text);
	json_t *original = parse_json(text), *back = access_policy_to_json(policy);

	(void)state;
	assert_true(json_equal(original, back));
	json_decref(original);
	json_decref(back);
	access_policy_destroy(&policy);
}

/* ---- against a plain list ----------------------------------------------------------------------------------- */

struct plain_rule {
	char resource[8];
	size_t length;
	bool prefix, deny;
	unsigned int actions; /* bits of action_names; 0: all */
	int read_only;        /* -1: either */
	int uid;              /* -1: any; else it and the next one */
	int from, to, day;    /* minutes, -1: none; day -1: all */
};

static const char *const action_names[] = {"read", "write", "delete", "admin", "export", "import"};
static const char *const day_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"}; /* as tm_wday */

static void random_plain(struct plain_rule *r)
{
	static const char letters[] = {'a', 'b', '*', '\xff', '\0', '\\'};

	memset(r, 0, sizeof(*r));
	r->prefix = random_below(2);
	r->length = random_below(6) + !r->prefix;
	for (size_t i = 0; i < r->length; i++)
		r->resource[i] = letters[random_below(3) ? random_below(2) : random_below(COUNT(letters))];
	r->deny = random_below(4) == 0;
	r->actions = random_below(4) ? (unsigned int)(1 + random_below(63)) : 0;
	r->read_only = (int)random_below(6);
	r->read_only = r->read_only > 1 ? -1 : r->read_only;
	r->uid = random_below(3) ? -1 : (int)random_below(4);
	r->from = random_below(3) ? -1 : (int)random_below(1440);
	r->to = r->from < 0 ? -1 : (r->from + 1 + (int)random_below(1439)) % 1440;
	r->day = random_below(4) ? -1 : (int)random_below(7);
}

static json_t *plain_to_json(const struct plain_rule *r)
{
	char resource[64] = "";
	json_t *actions = json_array(), *conditions = json_object(), *time = json_object();

	for (size_t i = 0; i < r->length; i++)
		snprintf(resource + strlen(resource), sizeof(resource) - strlen(resource),
			 r->resource[i] == 'a' ? "a" : "\\x%02x", (unsigned char)r->resource[i]);
	if (r->prefix)
		strcat(resource, "*");
	for (size_t i = 0; i < COUNT(action_names); i++)
		if (r->actions & 1u << i)
			json_array_append_new(actions, json_string(action_names[i]));
	if (!r->actions)
		json_array_append_new(actions, json_string("*"));
	if (r->from >= 0) {
		json_object_set_new(time, "from", json_sprintf("%02d:%02d", r->from / 60, r->from % 60));
		json_object_set_new(time, "to", json_sprintf("%02d:%02d", r->to / 60, r->to % 60));
	}
	if (r->day >= 0)
		json_object_set_new(time, "days", json_pack("[s]", day_names[r->day]));
	if (json_object_size(time))
		json_object_set(conditions, "time", time);
	json_decref(time);
	if (r->read_only >= 0)
		json_object_set_new(conditions, "read_only", json_boolean(r->read_only));
	if (r->uid >= 0)
		json_object_set_new(conditions, "peer_uids", json_pack("[i, i]", r->uid + 1, r->uid));
	return json_pack("{s:s, s:o, s:s, s:o}", "resource", resource, "actions", actions, "effect",
			 r->deny ? "deny" : "allow", "conditions", conditions);
}

static bool plain_time_holds(const struct plain_rule *r, uint64_t now_wall_ms)
{
	time_t seconds = (time_t)(now_wall_ms / 1000);
	struct tm tm;
	int minute;

	gmtime_r(&seconds, &tm);
	minute = tm.tm_hour * 60 + tm.tm_min;
	if (r->from < 0)
		return r->day < 0 || r->day == tm.tm_wday;
	if (r->from < r->to)
		return minute >= r->from && minute < r->to && (r->day < 0 || r->day == tm.tm_wday);
	if (minute >= r->from)
		return r->day < 0 || r->day == tm.tm_wday;
	return minute < r->to && (r->day < 0 || r->day == (tm.tm_wday + 6) % 7);
}

/* `action` is a place in action_names or, above, a name that no rule has. */
static bool plain_matches(const struct plain_rule *r, const struct access_question *q, unsigned int action)
{
	if (r->prefix ? q->resource_length < r->length : q->resource_length != r->length)
		return false;
	return memcmp(q->resource, r->resource, r->length) == 0 && (!r->actions || r->actions & 1u << action) &&
	       (r->read_only < 0 || r->read_only == q->read_only) &&
	       (r->uid < 0 || q->uid == (uid_t)r->uid || q->uid == (uid_t)r->uid + 1) &&
	       plain_time_holds(r, q->now_wall_ms);
}

static struct access_answer plain_check(const struct plain_rule *rules, size_t count, const struct access_question *q,
					unsigned int action)
{
	for (int deny = 1; deny >= 0; deny--)
		for (size_t i = 0; i < count; i++)
			if (rules[i].deny == deny && plain_matches(&rules[i], q, action))
				return (struct access_answer){.allowed = !deny, .rule = (int32_t)i};
	return (struct access_answer){.allowed = count == 0, .rule = -1};
}

static void check_random_questions(const struct access_policy *policy, const struct plain_rule *rules, size_t count,
				   unsigned int *decided)
{
	for (unsigned int i = 0; i < 300; i++) {
		unsigned int action = (unsigned int)random_below(COUNT(action_names) + 1);
		struct plain_rule key;
		struct access_question question;
		struct access_answer answer, expected;

		random_plain(&key);
		question = (struct access_question){.resource = key.resource,
						    .resource_length = key.length,
						    .action = action < COUNT(action_names) ? action_names[action]
											   : "unheard-of",
						    .uid = (uid_t)random_below(6),
						    .read_only = random_below(2),
						    .now_wall_ms = random_below(10000 * DAY_MS)};
		expected = plain_check(rules, count, &question, action);
		access_policy_check(policy, &question, &answer);
		assert_int_equal(answer.allowed, expected.allowed);
		assert_int_equal(answer.rule, expected.rule);
		assert_true(expected.rule < 0 || answer.rule_name);
		if (!access_policy_restricts_reads(policy) && action == 0)
			assert_true(answer.allowed);
		decided[expected.rule < 0 ? 0 : expected.allowed ? 1 : 2]++;
	}
}

static void decides_as_a_plain_list_of_rules_does(void **state)
{
	static struct plain_rule rules[ACCESS_RULES_MAX];
	unsigned int decided[3] = {0, 0, 0}; /* nobody, allowed, denied */

	(void)state;
	for (unsigned int round = 0; round < 1000; round++) {
		size_t count = round % 50 == 49 ? 1 + random_below(ACCESS_RULES_MAX) : random_below(20);
		struct access_policy *policy;
		char error[ACCESS_ERROR_MAX] = "";
		json_t *array = json_array();

		for (size_t i = 0; i < count; i++) {
			random_plain(&rules[i]);
			json_array_append_new(array, plain_to_json(&rules[i]));
		}
		if (access_policy_parse(array, &policy, error, sizeof(error)) != RSHM_OK)
			fail_msg("%s", error);
		check_random_questions(policy, rules, count, decided);
		access_policy_destroy(&policy);
		json_decref(array);
	}
	for (size_t i = 0; i < COUNT(decided); i++)
		assert_true(decided[i] > 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_rules_all_is_allowed),
		cmocka_unit_test(with_rules_what_none_matches_is_denied),
		cmocka_unit_test(deny_wins_and_the_first_rule_that_decided_is_named),
		cmocka_unit_test(an_action_that_is_no_name_passes_no_rule),
		cmocka_unit_test(keys_are_bytes),
		cmocka_unit_test(a_key_of_any_length_may_be_asked),
		cmocka_unit_test(windows_of_time_end_before_their_last_minute),
		cmocka_unit_test(windows_over_midnight_belong_to_the_day_they_began),
		cmocka_unit_test(conditions_on_caller_and_role_must_all_hold),
		cmocka_unit_test(reads_are_free_only_where_that_is_certain),
		cmocka_unit_test(what_is_not_understood_is_refused_by_name),
		cmocka_unit_test(everything_has_a_bound),
		cmocka_unit_test(all_keys_of_a_prefix_are_allowed_by_one_rule_and_denied_by_none),
		cmocka_unit_test(rules_are_given_back_as_they_came),
		cmocka_unit_test(decides_as_a_plain_list_of_rules_does),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
