/*
 * access_policy.h - who may do what to which keys of one tenant: an ordered list of rules, compiled.
 *
 * A rule is a JSON object; what is in brackets may be left out, any other member is refused:
 *
 *	name        [text, 1 to 64 bytes without control characters; "rule N", N from 1]
 *	resource    an exact key, "prefix*", or "*". Keys are bytes: \xNN, \\ and \* (of the text, beneath JSON's own escapes)
 *	            stand for what cannot be written otherwise; a star before the end is refused
 *	actions     list of "read", "write", "delete", "admin", names of the application ([a-z0-9_.:-]{1,48}), or "*" for all
 *	effect      "allow" or "deny"
 *	conditions  [all of them must hold for the rule to match]
 *	  time        [{from, to: "HH:MM" UTC, `to` not included; days: list of "mon" to "sun"}; either pair or days may be left
 *	              out. A window with from > to goes on over midnight and belongs to the day on which it began]
 *	  peer_uids   [list of user ids, of which the caller's must be one]
 *	  read_only   [true: the rule is for callers of the read-only role; false: for all others. Which actions a rule is for
 *	              say its actions]
 *
 * Deny wins over allow, whatever the order. Where there are rules and none matches, the answer is no; without any rule it is
 * yes. An action that is no name in the sense above matches no rule, not even "*".
 *
 * A policy does not change once it is made: any thread may ask it. Nothing here blocks.
 */
#ifndef RIPTIDE_TENANT_ACCESS_POLICY_H
#define RIPTIDE_TENANT_ACCESS_POLICY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ACCESS_RULES_MAX 1000u
#define ACCESS_NAME_MAX 64u           /* bytes of a rule's name */
#define ACCESS_RESOURCE_MAX 1024u     /* bytes of a pattern; longer keys are matched by prefixes and "*" only */
#define ACCESS_ACTION_MAX 48u         /* characters of an action's name */
#define ACCESS_RULE_ACTIONS_MAX 64u   /* of one rule */
#define ACCESS_CUSTOM_ACTIONS_MAX 59u /* different names of the application's actions in one policy */
#define ACCESS_UIDS_MAX 64u           /* of one rule */
#define ACCESS_ERROR_MAX 256u         /* no error text is longer, with its NUL */

struct access_policy;

/*
 * Makes a policy of a JSON array of rules, which is borrowed. RSHM_E_INVALID, and `error` says which rule and member is wrong
 * and how; RSHM_E_NOMEM. `error_size` >= 1; the text is untouched on success.
 */
int access_policy_parse(const json_t *array, struct access_policy **ret, char *error, size_t error_size);
void access_policy_destroy(struct access_policy **policy);

/* The rules as they were given, as a new reference; NULL: no memory. */
json_t *access_policy_to_json(const struct access_policy *policy);
size_t access_policy_count(const struct access_policy *policy);

struct access_question {
	const void *resource; /* a key; NULL with length 0 for what is no key: only "*" matches that */
	size_t resource_length;
	const char *action;
	uid_t uid;            /* of the calling process, from the kernel */
	bool read_only;       /* the caller's role */
	uint64_t now_wall_ms; /* since 1970, UTC */
};

struct access_answer {
	bool allowed;
	int32_t rule;          /* the first one that decided, from 0; -1: none did */
	const char *rule_name; /* lives as long as the policy; NULL: none */
};

void access_policy_check(const struct access_policy *policy, const struct access_question *question,
			 struct access_answer *ret);

/*
 * The same of all keys that begin with `resource` (length 0: of all keys): allowed only if a rule allows each of them and none
 * denies any.
 */
void access_policy_check_all(const struct access_policy *policy, const struct access_question *question,
			     struct access_answer *ret);

/*
 * Could "read" ever be refused, to anybody, at any time? False only where that is certain: there is no rule, or one without
 * conditions allows to read "*" and none denies to read.
 */
bool access_policy_restricts_reads(const struct access_policy *policy);

#endif
