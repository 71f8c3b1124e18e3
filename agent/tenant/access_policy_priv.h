/*
 * access_policy_priv.h - a compiled policy, shared by what parses rules and what compiles and asks them.
 */
#ifndef RIPTIDE_TENANT_ACCESS_POLICY_PRIV_H
#define RIPTIDE_TENANT_ACCESS_POLICY_PRIV_H

#include "agent/tenant/access_policy.h"

#define ACCESS_POLICY_MAGIC 0x41434350u
#define NONE UINT32_MAX
#define ACTION_READ 0u   /* place of "read" among the names, and its bit */
#define ACTION_OTHER 63u /* bit of the names that no rule mentions */
#define ACTION_NAMES_MAX 63u

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
	struct action *actions;
	struct rule *rules;       /* by pattern, exact before prefix, number */
	struct pattern *patterns; /* by bytes */
	char *source;
};

_Static_assert(4 + ACCESS_CUSTOM_ACTIONS_MAX == ACTION_NAMES_MAX, "a bit for each name and one for the others");

/* a-z, 0-9 and _.:- */
bool access_is_action(const char *name, size_t length);
/* Place of a name among the policy's; NONE: no rule mentions it. */
uint32_t access_find_action(const struct access_policy *policy, const char *name, size_t length);
int access_compare_uids(const void *a, const void *b);
/* Sorts the rules and makes the patterns of them. RSHM_E_NOMEM. */
int access_policy_compile(struct access_policy *policy);

#endif
