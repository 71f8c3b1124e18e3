/*
 * access.c - may this client do this? The tenant's policy, asked before a request has any effect.
 *
 *	read     get, exists, ttl, warm, and the read half of a fetch
 *	write    set, touch, incr, compare-and-set, and the write half of a fetch
 *	delete   delete, and a prefix or everything: only if each key that they may meet may be deleted
 *
 * A tag may be on any key, so who invalidates one must be allowed to write all. Items of a batch are asked about one by one,
 * and the others go on. What is about no key (ping, statistics, where the segment is, a flush, a loader that gives up) is free.
 *
 * Reads of shared memory are not asked about: a tenant whose policy may refuse any of them is cold (tenant.h).
 */
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/serve/serve_priv.h"

#define SHOWN_KEY 64u       /* bytes of a key in a log or an answer */
#define TOLD_PER_SECOND 50u /* refusals, to the audit log */

/* What is asked of a policy; `all`: of every key that begins so. */
struct wish {
	const char *action;
	const void *key;
	size_t key_len;
	bool all;
};

static struct access_answer judge(const struct client *client, const struct wish *wish)
{
	const struct access_question question = {
		.resource = wish->key,
		.resource_length = wish->key_len,
		.action = wish->action,
		.uid = client->uid,
		.read_only = client->read_only,
		.now_wall_ms = clock_realtime_ms(),
	};
	struct access_answer answer;

	if (wish->all)
		access_policy_check_all(client->tenant->tenant->policy, &question, &answer);
	else
		access_policy_check(client->tenant->tenant->policy, &question, &answer);
	return answer;
}

static bool may_tell(struct worker *worker)
{
	uint64_t now_ms = clock_monotonic_ms();

	if (now_ms - worker->refusals_since_ms >= 1000) {
		worker->refusals_since_ms = now_ms;
		worker->refusals = 0;
	}
	return worker->refusals++ < TOLD_PER_SECOND;
}

static void note_refusal(struct client *client, const struct wish *wish, const struct access_answer *answer)
{
	static struct log_limit limit = LOG_LIMIT(10, 10000);
	const struct serve_environment *env = client->worker->env;
	char buffer[4 * SHOWN_KEY + 2], why[ACCESS_NAME_MAX + 8];
	struct text key;

	client->tenant->counts.denied++;
	text_init(&key, buffer, sizeof(buffer));
	text_append_escaped(&key, wish->key, wish->key_len < SHOWN_KEY ? wish->key_len : SHOWN_KEY);
	if (wish->all)
		text_append_string(&key, "*");
	snprintf(why, sizeof(why), "%s%s", answer->rule_name ? "rule " : "no rule",
		 answer->rule_name ? answer->rule_name : "");
	log_limited(&limit, LOG_LEVEL_WARN, "serve", "tenant %s: uid %u may not %s \"%s\": %s",
		    client->tenant->tenant->id, (unsigned int)client->uid, wish->action, buffer, why);
	if (may_tell(client->worker))
		env->refused(env->context, &(struct serve_refusal){.tenant = client->tenant->tenant->id,
								   .uid = client->uid,
								   .gid = client->gid,
								   .pid = client->pid,
								   .read_only = client->read_only,
								   .action = wish->action,
								   .resource = buffer,
								   .why = why});
}

static bool permits(struct slot *slot, const struct wish *wish)
{
	struct access_answer answer = judge(slot->client, wish);
	char text[160 + ACCESS_NAME_MAX];

	if (answer.allowed)
		return true;
	note_refusal(slot->client, wish, &answer);
	if (answer.rule_name)
		snprintf(text, sizeof(text), "the tenant's rule \"%s\" denies to %s it", answer.rule_name,
			 wish->action);
	else
		snprintf(text, sizeof(text), "no rule of the tenant allows to %s it", wish->action);
	request_refuse(slot, RSHM_E_DENIED, text);
	return false;
}

/* Two of them: a fetch ends in a write. Ends with no action. */
static void wishes_of(const struct slot *slot, struct wish ret[3])
{
	const struct rshm_request *r = &slot->request;
	struct wish own = {.key = slot->body, .key_len = r->key_len};

	memset(ret, 0, 3 * sizeof(ret[0]));
	switch (r->op) {
	case RSHM_OP_GET:
	case RSHM_OP_EXISTS:
		own.action = "read";
		break;
	case RSHM_OP_FETCH:
		ret[1] = own;
		ret[1].action = "write";
		own.action = "read";
		break;
	case RSHM_OP_SET:
	case RSHM_OP_TOUCH:
	case RSHM_OP_INCR:
		own.action = "write";
		break;
	case RSHM_OP_DELETE:
		own.action = "delete";
		break;
	case RSHM_OP_INVALIDATE_TAG:
		own = (struct wish){.action = "write", .all = true};
		break;
	case RSHM_OP_INVALIDATE_PREFIX:
		own.action = "delete";
		own.all = true;
		break;
	case RSHM_OP_CLEAR:
		own = (struct wish){.action = "delete", .all = true};
		break;
	case RSHM_OP_WARM_PREFIX:
		own.action = "read";
		own.all = true;
		break;
	default:
		break;
	}
	ret[0] = own;
}

bool access_permits(struct slot *slot)
{
	struct wish wishes[3];

	if (!slot->client->tenant->tenant->policy)
		return true;
	wishes_of(slot, wishes);
	for (const struct wish *wish = wishes; wish->action; wish++)
		if (!permits(slot, wish))
			return false;
	return true;
}

bool access_permits_item(struct slot *slot, const void *key, size_t key_len)
{
	const uint16_t op = slot->request.op;
	struct wish wish = {.action = "read", .key = key, .key_len = key_len};
	struct access_answer answer;

	if (!slot->client->tenant->tenant->policy)
		return true;
	if (op == RSHM_OP_SET_BATCH)
		wish.action = "write";
	else if (op == RSHM_OP_DELETE_BATCH)
		wish.action = "delete";
	answer = judge(slot->client, &wish);
	if (!answer.allowed)
		note_refusal(slot->client, &wish, &answer);
	return answer.allowed;
}

void access_execute(struct slot *slot)
{
	const struct rshm_request *r = &slot->request;
	size_t action_len = r->body_len - r->key_len - r->metadata_len;
	struct access_answer answer = {.allowed = true};
	const struct client *client = slot->client;
	struct rshm_answer head = {.status = RSHM_OK};
	char action[ACCESS_ACTION_MAX + 1];

	if (action_len == 0 || action_len > ACCESS_ACTION_MAX || r->metadata_len != 0) {
		request_refuse(slot, RSHM_E_INVALID, "an action has 1 to 48 characters");
		return;
	}
	memcpy(action, slot->body + r->key_len, action_len);
	action[action_len] = '\0';
	if (client->tenant->tenant->policy)
		answer = judge(client, &(struct wish){.action = action, .key = slot->body, .key_len = r->key_len});
	/* What a token for reading alone forbids, no rule allows. */
	if (client->read_only && strcmp(action, "read") != 0)
		answer = (struct access_answer){.rule_name = "(a token for reading)"};
	head.version = answer.allowed;
	(void)request_answer(slot, &head, NULL, 0, answer.rule_name, answer.rule_name ? strlen(answer.rule_name) : 0);
}
