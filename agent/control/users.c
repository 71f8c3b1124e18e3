/*
 * users.c - a small hash table of user ids.
 *
 * One person with subordinate ids can appear under 65,536 of them, so the table has a limit of its own; those who only
 * have a rate to pay back are forgotten first. The rate is GCRA: `paid_until_us` is when the attaches so far will have been
 * paid for, and one more is allowed while that is less than a second ahead.
 */
#include "agent/control/users.h"

#include <stdlib.h>

#include "agent/base/assert.h"

#define SECOND_US 1000000u

void users_init(struct users *users, uint32_t limit)
{
	*users = (struct users){.limit = limit};
}

void users_fini(struct users *users)
{
	for (uint32_t i = 0; i < USERS_BUCKETS; i++)
		while (users->buckets[i] != NULL) {
			struct user *user = users->buckets[i];

			users->buckets[i] = user->next;
			free(user);
		}
	users->count = 0;
}

static struct user **bucket_of(struct users *users, uid_t uid)
{
	return &users->buckets[(uid ^ uid >> 8 ^ uid >> 16) % USERS_BUCKETS];
}

static bool user_has_nothing_open(const struct user *user)
{
	return user->connections == 0 && user->rings == 0 && user->places == 0;
}

static void forget(struct users *users, struct user *user)
{
	struct user **at = bucket_of(users, user->uid);

	while (*at != user) {
		must(*at != NULL);
		at = &(*at)->next;
	}
	*at = user->next;
	users->count--;
	free(user);
}

static void forget_idle(struct users *users)
{
	for (uint32_t i = 0; i < USERS_BUCKETS; i++)
		for (struct user *user = users->buckets[i], *next; user != NULL; user = next) {
			next = user->next;
			if (user_has_nothing_open(user))
				forget(users, user);
		}
}

struct user *users_find(const struct users *users, uid_t uid)
{
	struct user *user = *bucket_of((struct users *)users, uid);

	while (user != NULL && user->uid != uid)
		user = user->next;
	return user;
}

struct user *users_get(struct users *users, uid_t uid)
{
	struct user *user = users_find(users, uid), **bucket = bucket_of(users, uid);

	if (user != NULL)
		return user;
	if (users->count >= users->limit)
		forget_idle(users);
	if (users->count >= users->limit)
		return NULL;
	user = calloc(1, sizeof(*user));
	if (user == NULL)
		return NULL;
	user->uid = uid;
	user->next = *bucket;
	*bucket = user;
	users->count++;
	return user;
}

void users_put(struct users *users, struct user *user)
{
	if (user_has_nothing_open(user) && user->paid_until_us == 0)
		forget(users, user);
}

bool user_may_attach(struct user *user, uint32_t per_second, uint64_t now_ms)
{
	uint64_t now_us = now_ms * 1000;

	if (user->paid_until_us < now_us)
		user->paid_until_us = now_us;
	if (user->paid_until_us + SECOND_US / per_second > now_us + SECOND_US)
		return false;
	user->paid_until_us += SECOND_US / per_second;
	return true;
}
