/*
 * op_quota.c - an application asks for quotas and rates itself: what is left, takes some, gives it back.
 *
 * Quotas of the user's own names are counted in the account that all hosts share, in the round that the request waits for.
 * Operations per minute and transferred bytes come out of the purse that all requests of the tenant here share.
 */
#include <string.h>

#include "agent/serve/serve_priv.h"

static bool is_named(const struct slot *slot, const char *name)
{
	return slot->request.key_len == strlen(name) && memcmp(slot->body, name, slot->request.key_len) == 0;
}

/* Of those that are limited; ACCOUNT_KINDS: none of them. */
static enum account_kind kind_of(const struct slot *slot, enum account_kind last)
{
	const struct account_limits *limits = slot->client->tenant->tenant->limits;
	enum account_kind kind = ACCOUNT_PER_MINUTE;

	while (kind <= last && !(limits && limits->limited[kind] && is_named(slot, account_kind_name(kind))))
		kind++;
	return kind <= last ? kind : ACCOUNT_KINDS;
}

/* The two rates that are limited per operation and byte are no quotas. */
static enum account_kind quota_kind(const struct slot *slot)
{
	enum account_kind kind = kind_of(slot, ACCOUNT_TRANSFER);

	return kind == ACCOUNT_OPERATIONS || kind == ACCOUNT_BYTES ? ACCOUNT_KINDS : kind;
}

static bool has_name(const struct slot *slot, char name[RSHM_QUOTA_NAME_MAX + 1])
{
	const struct account_limits *limits = slot->client->tenant->tenant->limits;

	memcpy(name, slot->body, slot->request.key_len);
	name[slot->request.key_len] = '\0';
	return limits && strlen(name) == slot->request.key_len && json_object_get(limits->named, name) != NULL;
}

void quota_cost(const struct slot *slot, uint64_t cost[ACCOUNT_KINDS])
{
	enum account_kind kind = quota_kind(slot);

	if (kind != ACCOUNT_KINDS && slot->request.change == ACCOUNT_CONSUME)
		cost[kind] = slot->request.operand;
}

static void answer(struct slot *slot, const void *words, size_t size)
{
	struct rshm_answer head = {.status = RSHM_OK};

	(void)request_answer(slot, &head, NULL, 0, words, size);
}

void quota_apply(struct slot *slot, struct account *account, const struct account_limits *limits)
{
	struct rshm_quota *quota = &slot->quota;
	char name[RSHM_QUOTA_NAME_MAX + 1];
	struct account_answer use;

	if (slot->request.op != RSHM_OP_CHECK_QUOTA || !has_name(slot, name))
		return;
	if (account_use(account, limits, name, slot->request.operand, (enum account_mode)slot->request.change, &use) <
	    0)
		use = (struct account_answer){.allowed = false};
	*quota = (struct rshm_quota){
		.allowed = use.allowed, .has_limit = use.has_limit, .limit = use.limit, .use = use.use};
}

/* Of operations per minute, or of transferred bytes; the purses are filled. */
static void answer_purse(struct slot *slot, enum account_kind kind)
{
	struct serve_tenant *tenant = slot->client->tenant;
	struct rshm_quota quota = {.has_limit = 1};
	uint64_t amount = slot->request.operand, left;
	struct budget_state state;

	budget_state(tenant, kind, &state);
	left = state.use < state.limit ? state.limit - state.use : 0;
	quota.limit = state.limit;
	/* What this host has drawn is not used yet. */
	quota.use = state.use > state.have ? state.use - state.have : 0;
	quota.allowed = amount <= left + state.have;
	if (slot->request.change == ACCOUNT_CONSUME)
		quota.allowed = budget_take(tenant, kind, amount);
	else if (slot->request.change == ACCOUNT_RELEASE)
		budget_give(tenant, kind, amount);
	quota.retry_after_ms = quota.allowed ? 0 : state.retry_ms;
	answer(slot, &quota, sizeof(quota));
}

static void answer_rate(struct slot *slot, enum account_kind kind)
{
	struct budget_state state;
	struct rshm_rate rate;

	budget_state(slot->client->tenant, kind, &state);
	rate = (struct rshm_rate){
		.limited = state.rate.remaining + state.have == 0,
		.limit = state.limit,
		.remaining = state.rate.remaining + state.have,
		.retry_after_ms = state.have ? 0 : state.rate.retry_after_ms,
		.reset_after_ms = state.rate.reset_after_ms,
	};
	answer(slot, &rate, sizeof(rate));
}

/* A quota of the application's own. */
static void answer_named(struct slot *slot)
{
	const struct rshm_quota *quota = &slot->quota;
	uint64_t level = budget_alert_level(quota->limit), now = quota->use + slot->request.operand;
	char name[RSHM_QUOTA_NAME_MAX + 1];

	if (slot->request.change == ACCOUNT_CONSUME && quota->allowed && quota->use < level && now >= level &&
	    has_name(slot, name))
		budget_alert(slot->client->tenant, name, now, quota->limit);
	answer(slot, quota, sizeof(*quota));
}

void quota_answer(struct slot *slot, int status)
{
	enum account_kind kind = slot->request.op == RSHM_OP_RATE ? kind_of(slot, ACCOUNT_BYTES) : quota_kind(slot);

	if (slot->request.op == RSHM_OP_RATE)
		answer_rate(slot, kind);
	else if (kind != ACCOUNT_KINDS)
		answer_purse(slot, kind);
	else if (status < 0)
		request_refuse(slot, RSHM_E_AGAIN, "the backend, where the quota is counted, does not answer");
	else
		answer_named(slot);
}

static void answer_memory(struct slot *slot)
{
	struct rshm_quota quota = {.has_limit = 1};
	struct hot_figures figures;

	hot_figures(slot->client->tenant->hot, &figures);
	quota.limit = figures.limit_bytes;
	quota.use = figures.used_bytes;
	quota.allowed = quota.use <= quota.limit && slot->request.operand <= quota.limit - quota.use;
	answer(slot, &quota, sizeof(quota));
}

void quota_execute(struct slot *slot)
{
	static const struct rshm_quota unlimited = {.allowed = 1};
	static const struct rshm_rate unlimited_rate = {.limit = UINT64_MAX, .remaining = UINT64_MAX};
	const struct rshm_request *r = &slot->request;
	char name[RSHM_QUOTA_NAME_MAX + 1];

	if (r->key_len == 0 || r->key_len > RSHM_QUOTA_NAME_MAX || r->change > ACCOUNT_RELEASE ||
	    r->operand > INT64_MAX / 4) {
		request_refuse(slot, RSHM_E_INVALID,
			       "a quota has a name of 1 to 48 characters, and an amount below 2^61");
		return;
	}
	if (r->op == RSHM_OP_RATE) {
		if (kind_of(slot, ACCOUNT_BYTES) == ACCOUNT_KINDS)
			answer(slot, &unlimited_rate, sizeof(unlimited_rate));
		else
			budget_wait(slot);
	} else if (quota_kind(slot) != ACCOUNT_KINDS || has_name(slot, name)) {
		budget_wait(slot);
	} else if (is_named(slot, "memory_bytes")) {
		if (r->change == ACCOUNT_ASK)
			answer_memory(slot);
		else
			request_refuse(slot, RSHM_E_INVALID,
				       "memory_bytes is counted by the agent; it can be asked alone");
	} else {
		answer(slot, &unlimited, sizeof(unlimited));
	}
}
