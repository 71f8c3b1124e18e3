/*
 * audit_limit.c - GCRA per user, in a table of fixed size.
 *
 * A line moves `paid_until_ms` on by what it costs, and is suppressed if that would be more than a burst ahead of now.
 * Refusals cost ten times as much, for they are what a peer can cause without being let in. A place is free when its user
 * has paid and nothing of it waits for a summary. One person with subordinate ids can have 65,536 users: those who find no
 * place share one, so that lines per second are bounded for any number of them.
 */
#include "agent/control/audit_limit.h"

#include <stddef.h>

static bool is_free(const struct audit_limit_user *user, uint64_t now_ms)
{
	return user->paid_until_ms <= now_ms && user->accepted == 0 && user->refused == 0;
}

static struct audit_limit_user *place_of(struct audit_limit *limit, uid_t uid, uint64_t now_ms)
{
	struct audit_limit_user *place = NULL;

	for (uint32_t i = 0; i < AUDIT_LIMIT_USERS; i++) {
		struct audit_limit_user *user = &limit->users[i];

		if (is_free(user, now_ms))
			place = place ? place : user;
		else if (user->uid == uid)
			return user;
	}
	if (!place)
		return &limit->others;
	*place = (struct audit_limit_user){.uid = uid};
	return place;
}

bool audit_limit_admit(struct audit_limit *limit, uid_t uid, bool refused, uint64_t now_ms)
{
	struct audit_limit_user *user = place_of(limit, uid, now_ms);
	uint64_t cost_ms = refused ? AUDIT_LIMIT_REFUSED_MS : AUDIT_LIMIT_ACCEPTED_MS;

	if (user->paid_until_ms < now_ms)
		user->paid_until_ms = now_ms;
	if (user->paid_until_ms + cost_ms <= now_ms + AUDIT_LIMIT_BURST_MS) {
		user->paid_until_ms += cost_ms;
		return true;
	}
	if (user->accepted == 0 && user->refused == 0)
		user->since_ms = now_ms;
	if (refused)
		user->refused++;
	else
		user->accepted++;
	return false;
}

static bool take(struct audit_limit_user *user, bool all, uint64_t now_ms, struct audit_suppressed *ret)
{
	if (user->accepted == 0 && user->refused == 0)
		return false;
	if (!all && now_ms - user->since_ms < AUDIT_LIMIT_SUMMARY_MS)
		return false;
	*ret = (struct audit_suppressed){
		.uid = user->uid,
		.accepted = user->accepted,
		.refused = user->refused,
		.over_ms = now_ms - user->since_ms,
	};
	user->accepted = user->refused = 0;
	return true;
}

bool audit_limit_take(struct audit_limit *limit, bool all, uint64_t now_ms, struct audit_suppressed *ret)
{
	for (uint32_t i = 0; i < AUDIT_LIMIT_USERS; i++)
		if (take(&limit->users[i], all, now_ms, ret))
			return true;
	if (!take(&limit->others, all, now_ms, ret))
		return false;
	ret->several = true;
	return true;
}
