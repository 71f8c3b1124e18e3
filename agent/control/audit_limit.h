/*
 * audit_limit.h - how many lines of the audit log one user may cause: pure, time is handed in.
 *
 * Main loop only, never blocks, never allocates.
 */
#ifndef AUDIT_LIMIT_H
#define AUDIT_LIMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define AUDIT_LIMIT_USERS 256u
#define AUDIT_LIMIT_BURST_MS 20000u   /* what may be owed: 400 accepted, or 40 refused */
#define AUDIT_LIMIT_ACCEPTED_MS 50u   /* what a line costs: 20 a second for ever, */
#define AUDIT_LIMIT_REFUSED_MS 500u   /* or 2 a second */
#define AUDIT_LIMIT_SUMMARY_MS 10000u /* between two summaries of one user */

struct audit_limit_user {
	uid_t uid;
	uint64_t paid_until_ms;
	uint64_t since_ms; /* of what was suppressed */
	uint64_t accepted, refused;
};

/* Zeroed is empty. */
struct audit_limit {
	struct audit_limit_user users[AUDIT_LIMIT_USERS];
	struct audit_limit_user others; /* all those for whom there is no place, together */
};

/* May this line be written? If not, it is counted for the next summary. */
bool audit_limit_admit(struct audit_limit *limit, uid_t uid, bool refused, uint64_t now_ms);

struct audit_suppressed {
	bool several; /* uid means nothing: many users at once */
	uid_t uid;
	uint64_t accepted, refused, over_ms;
};

/* The next summary that is due, or with `all` the next one there is. False: no more. */
bool audit_limit_take(struct audit_limit *limit, bool all, uint64_t now_ms, struct audit_suppressed *ret);

#endif
