/*
 * account.h - what a tenant may use in a time, and what all hosts together have used: limits, and the entry that they share.
 *
 * Four kinds are drawn ahead of need in slices, by each agent for its own clients: operations per minute (a quota), operations
 * and bytes (rate limits), and the bytes transferred in a calendar month, UTC (a quota). Quotas of the user's own names are
 * asked, consumed and released one by one.
 *
 * The entry is a small JSON document in the backend, changed by compare-and-set. Its times are of the wall clock: hosts whose
 * clocks differ by d count as much more or less as drains in d. Pure memory; nothing blocks.
 */
#ifndef RIPTIDE_TENANT_ACCOUNT_H
#define RIPTIDE_TENANT_ACCOUNT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/tenant/rate.h"

#define ACCOUNT_SPACE 'b'             /* of its entry, under the reserved tenant */
#define ACCOUNT_BYTES_MAX (64u << 10) /* of the entry */
#define ACCOUNT_NAMES_MAX 64u         /* quotas of the user's own */

enum account_kind { ACCOUNT_PER_MINUTE, ACCOUNT_OPERATIONS, ACCOUNT_BYTES, ACCOUNT_TRANSFER, ACCOUNT_KINDS };
#define ACCOUNT_RATES ACCOUNT_TRANSFER /* kinds before it are rates */

/* As records name them: operations_per_minute, operations, bytes, data_transfer_bytes. */
const char *account_kind_name(enum account_kind kind);

struct account_limits {
	bool limited[ACCOUNT_KINDS];
	struct rate_limit rates[ACCOUNT_RATES];
	uint64_t transfer; /* bytes in a month */
	json_t *named;     /* name: limit */
};

/* NULL if a record's rate_limits are right, else what is right. */
const char *account_check_rate_limits(const json_t *value);
/*
 * Of the quotas and rate limits of a record, which are right and borrowed. *ret is NULL if they limit nothing that is counted
 * here. RSHM_E_NOMEM.
 */
int account_limits_create(const json_t *quotas, const json_t *rate_limits, struct account_limits **ret);
void account_limits_destroy(struct account_limits **limits);
/* The burst of a rate, or the month's bytes. */
uint64_t account_limit(const struct account_limits *limits, enum account_kind kind);

struct account {
	struct rate rates[ACCOUNT_RATES];
	uint32_t month; /* of `transfer`: years since 1970 * 12 + months */
	uint64_t transfer;
	json_t *used; /* name: amount */
};

/* An empty one. RSHM_E_NOMEM. */
int account_init(struct account *account);
void account_fini(struct account *account);
/* The stored text; *ret is not initialised before. RSHM_E_CORRUPT, RSHM_E_NOMEM. */
int account_decode(const void *bytes, size_t length, struct account *ret);
/* The caller's to free(); NULL: no memory. */
char *account_encode(const struct account *account);

struct account_draw {
	uint64_t wanted[ACCOUNT_KINDS];
	/* what came of it */
	uint64_t granted[ACCOUNT_KINDS];  /* 0 to wanted */
	uint64_t use[ACCOUNT_KINDS];      /* before */
	uint64_t retry_ms[ACCOUNT_KINDS]; /* with less than wanted: when the rest may be there; RATE_NEVER */
	bool shadowed[ACCOUNT_KINDS];     /* granted in shadow mode only */
};

void account_draw(struct account *account, const struct account_limits *limits, uint64_t now_wall_ms,
		  struct account_draw *draw);
/* Gives back what was drawn and not used. */
void account_return(struct account *account, const struct account_limits *limits, uint64_t now_wall_ms,
		    const uint64_t amounts[ACCOUNT_KINDS]);
/* What a rate would answer; nothing is taken. */
void account_peek(const struct account *account, const struct account_limits *limits, enum account_kind kind,
		  uint64_t now_wall_ms, struct rate_answer *ret);
/* Until the month of data_transfer_bytes is over. */
uint64_t account_month_left_ms(uint64_t now_wall_ms);

enum account_mode { ACCOUNT_ASK, ACCOUNT_CONSUME, ACCOUNT_RELEASE };

struct account_answer {
	bool allowed, has_limit;
	uint64_t limit, use; /* use: before what was asked */
};

/* A quota of the user's own. What has no limit is allowed and not counted. RSHM_E_NOMEM. */
int account_use(struct account *account, const struct account_limits *limits, const char *name, uint64_t amount,
		enum account_mode mode, struct account_answer *ret);

#endif
