/*
 * rate.h - how much of one quantity may pass in a time: the generic cell rate algorithm (GCRA).
 *
 * From idle `burst` units pass at once; after that `limit` units in `period_ns`, evenly, so that in any span S at most
 * burst + limit * S / period pass. The state is plain memory of its owner, all zero = idle; the limit is handed in with
 * every call and may be another one each time. Times are monotonic and the caller's, units are what he likes.
 *
 * All functions: one thread at a time per `struct rate`, never block, never allocate. No value of any argument overflows.
 */
#ifndef RIPTIDE_TENANT_RATE_H
#define RIPTIDE_TENANT_RATE_H

#include <stdbool.h>
#include <stdint.h>

#define RATE_NEVER UINT64_MAX /* waiting does not help */

struct rate_limit {
	uint64_t limit;     /* units per period; 0 = nothing passes, whatever `burst` says */
	uint64_t period_ns; /* at least 1 */
	uint64_t burst;     /* units that pass at once from idle; 0 = as many as `limit` */
	bool shadow;        /* nothing is refused, what would have been is counted */
};

struct rate {
	uint64_t level;     /* whole units that have not drained yet */
	uint64_t fraction;  /* of one more unit, in parts of period_ns; less than it */
	uint64_t period_ns; /* of the limit that `fraction` was made with */
	uint64_t at_ns;     /* when level and fraction were right */
	uint64_t limited;   /* counts questions that were refused */
	uint64_t shadowed;  /* counts questions that passed in shadow mode only */
};

/* Times are rounded up: after them the same question passes, if nobody else took anything meanwhile. */
struct rate_answer {
	bool limited;
	bool would_limit;   /* `limited`, or only the shadow mode kept it from that */
	uint64_t limit;     /* the most that `remaining` can be: the burst */
	uint64_t remaining; /* what would pass now */
	uint64_t
		retry_after_ms; /* 0: it passed; RATE_NEVER: more than the burst, can never pass; in shadow mode as without */
	uint64_t reset_after_ms; /* until `remaining` is `limit` again */
};

/* Takes all of `quantity` or nothing. A quantity of 0 passes always and only tells. */
void rate_take(struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, uint64_t quantity,
	       struct rate_answer *ret);
/* What rate_take() would answer; takes and counts nothing. */
void rate_peek(const struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, uint64_t quantity,
	       struct rate_answer *ret);

/*
 * Credits: takes up to `wanted` units at once for somebody who then uses them without asking; returns how many, 0 to
 * `wanted`; 0 counts as refused. They do not age: who uses them late lets as many more pass at that time as he held. In
 * shadow mode all that is wanted is granted and what was not there is charged.
 */
uint64_t rate_grant(struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, uint64_t wanted);
/* Gives credits back that were not used. What drained meanwhile is not given twice: the level ends at 0. */
void rate_return(struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, uint64_t quantity);

/*
 * Charges what was consumed without asking. It may go beyond the burst, so that those who ask next wait; the debt is at
 * most one more burst. Returns the units beyond that, which are forgiven: all of them under a limit of 0.
 */
uint64_t rate_charge(struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, uint64_t quantity);

/* Units in use now, rounded up; above the burst while there is a debt. */
uint64_t rate_level(const struct rate *rate, const struct rate_limit *limit, uint64_t now_ns);

#endif
