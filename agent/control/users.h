/*
 * users.h - what each user id has open, and how fast it attaches.
 *
 * Main loop only, never blocks. A user is kept while anything of it is open or its rate has not been paid back.
 */
#ifndef CONTROL_USERS_H
#define CONTROL_USERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define USERS_BUCKETS 256u

struct user {
	struct user *next; /* of its bucket */
	uid_t uid;
	uint32_t connections; /* to the control socket */
	uint32_t rings;       /* connections to the doorbell that have not become channels */
	uint32_t places;      /* channels, tickets, and attaches that are being decided */
	uint64_t paid_until_us;
};

struct users {
	struct user *buckets[USERS_BUCKETS];
	uint32_t count, limit;
};

void users_init(struct users *users, uint32_t limit);
void users_fini(struct users *users);

/* Finds or makes the user. NULL: no memory, or `limit` users are busy. The caller counts something up, or calls users_put(). */
struct user *users_get(struct users *users, uid_t uid);
/* Finds; NULL if nothing is known of it. */
struct user *users_find(const struct users *users, uid_t uid);
/* To be called after something of the user was counted down; it may be gone then. */
void users_put(struct users *users, struct user *user);

/* True if the user may attach once more now; counts it. A second's worth may come at once. */
bool user_may_attach(struct user *user, uint32_t per_second, uint64_t now_ms);

#endif
