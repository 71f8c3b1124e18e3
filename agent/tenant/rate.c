/*
 * rate.c - GCRA in its second form, the leaky bucket of continuous state.
 *
 * ITU-T I.371 (annex A) gives the algorithm in two forms that decide alike: virtual scheduling, which keeps a theoretical
 * arrival time (TAT), and the leaky bucket, which keeps a level and when it was right. Known rate limiters keep the TAT
 * (throttled and its description at brandur.org/rate-limiting, redis-cell, whose five-value answer is ours). We keep the
 * level, in units, for two reasons. A TAT counts time: after a limit is raised tenfold, thirty seconds of backlog would
 * stay thirty seconds, where thirty units should be gone ten times sooner. And a unit may take less than a nanosecond
 * (bytes at 10 GB/s), which a TAT in nanoseconds rounds to nothing or to ten times too much.
 *
 *	TAT - now = level * period / limit	(the time until all is drained)
 *
 * The level is level + fraction / period_ns, exact: a nanosecond drains `limit` parts, a unit has `period_ns` parts, so
 * products are of two 64-bit numbers and nothing is rounded but when the period itself changes (less than one part).
 * Where a limit changes, what has been used stays used, and drains at the new pace from the last call on.
 *
 * The level never exceeds twice the burst: a limit that is lowered makes nobody wait longer than the largest debt does.
 */
#include "agent/tenant/rate.h"

#include "agent/base/assert.h"

typedef unsigned __int128 u128;

static uint64_t capacity(const struct rate_limit *limit)
{
	if (limit->limit == 0)
		return 0;
	return limit->burst ? limit->burst : limit->limit;
}

static uint64_t level_max(const struct rate_limit *limit)
{
	uint64_t burst = capacity(limit);

	return burst > UINT64_MAX / 2 ? UINT64_MAX : 2 * burst;
}

/* A fraction counts as a unit: what is not all there cannot be taken. */
static uint64_t level_up(const struct rate *rate)
{
	return rate->fraction && rate->level != UINT64_MAX ? rate->level + 1 : rate->level;
}

static uint64_t remaining(const struct rate *rate, const struct rate_limit *limit)
{
	uint64_t burst = capacity(limit), used = level_up(rate);

	return used < burst ? burst - used : 0;
}

static void empty(struct rate *rate)
{
	rate->level = 0;
	rate->fraction = 0;
}

static void drain(struct rate *rate, const struct rate_limit *limit, uint64_t elapsed_ns)
{
	u128 parts = (u128)elapsed_ns * limit->limit;
	u128 units = parts / limit->period_ns;
	uint64_t rest = (uint64_t)(parts % limit->period_ns);
	bool borrows = rest > rate->fraction;

	if (units + borrows > rate->level) {
		empty(rate);
		return;
	}
	rate->level -= (uint64_t)units + borrows;
	rate->fraction = borrows ? rate->fraction + (limit->period_ns - rest) : rate->fraction - rest;
}

/* Brings the state to now and under this limit. Under a limit of 0 it waits as it is for a better one. */
static void settle(struct rate *rate, const struct rate_limit *limit, uint64_t now_ns)
{
	uint64_t elapsed_ns = now_ns > rate->at_ns ? now_ns - rate->at_ns : 0;

	must(limit->period_ns > 0);
	if (limit->limit == 0)
		return;
	rate->at_ns += elapsed_ns;
	if (rate->fraction && rate->period_ns != limit->period_ns)
		rate->fraction = (uint64_t)((u128)rate->fraction * limit->period_ns / rate->period_ns);
	rate->period_ns = limit->period_ns;
	if (elapsed_ns && (rate->level || rate->fraction))
		drain(rate, limit, elapsed_ns);
	if (rate->level >= level_max(limit)) {
		rate->level = level_max(limit);
		rate->fraction = 0;
	}
}

/* How long `units` and the fraction take to drain. The limit is not 0. */
static uint64_t drain_ms(const struct rate *rate, const struct rate_limit *limit, uint64_t units)
{
	u128 parts = (u128)units * limit->period_ns + rate->fraction;
	u128 ns = parts / limit->limit + (parts % limit->limit != 0);
	u128 ms = ns / 1000000 + (ns % 1000000 != 0);

	return ms < RATE_NEVER ? (uint64_t)ms : RATE_NEVER - 1;
}

static uint64_t retry_after_ms(const struct rate *rate, const struct rate_limit *limit, uint64_t quantity)
{
	uint64_t burst = capacity(limit);

	if (quantity > burst)
		return RATE_NEVER;
	return drain_ms(rate, limit, (uint64_t)((u128)rate->level + quantity - burst));
}

/* Of a settled state; says whether the quantity is to be taken. */
static bool judge(const struct rate *rate, const struct rate_limit *limit, uint64_t quantity, struct rate_answer *ret)
{
	bool fits = quantity == 0 || quantity <= remaining(rate, limit);

	ret->would_limit = !fits;
	ret->limited = !fits && !limit->shadow;
	ret->limit = capacity(limit);
	ret->retry_after_ms = fits ? 0 : retry_after_ms(rate, limit, quantity);
	return fits;
}

static void tell_rest(const struct rate *rate, const struct rate_limit *limit, struct rate_answer *ret)
{
	ret->remaining = remaining(rate, limit);
	ret->reset_after_ms = limit->limit ? drain_ms(rate, limit, rate->level) : 0;
}

static void count_refusal(struct rate *rate, const struct rate_limit *limit)
{
	if (limit->shadow)
		rate->shadowed++;
	else
		rate->limited++;
}

void rate_take(struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, uint64_t quantity,
	       struct rate_answer *ret)
{
	settle(rate, limit, now_ns);
	/* The shadow mode takes nothing either where the limit would not have, so it counts what the limit would refuse. */
	if (judge(rate, limit, quantity, ret))
		rate->level += quantity;
	else
		count_refusal(rate, limit);
	tell_rest(rate, limit, ret);
}

void rate_peek(const struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, uint64_t quantity,
	       struct rate_answer *ret)
{
	struct rate copy = *rate;

	rate_take(&copy, limit, now_ns, quantity, ret);
}

uint64_t rate_grant(struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, uint64_t wanted)
{
	uint64_t granted;

	settle(rate, limit, now_ns);
	granted = remaining(rate, limit);
	if (granted > wanted)
		granted = wanted;
	if (wanted && !granted)
		count_refusal(rate, limit);
	rate->level += granted;
	if (!limit->shadow)
		return granted;
	rate_charge(rate, limit, now_ns, wanted - granted);
	return wanted;
}

void rate_return(struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, uint64_t quantity)
{
	settle(rate, limit, now_ns);
	if (quantity > rate->level)
		empty(rate);
	else
		rate->level -= quantity;
}

uint64_t rate_charge(struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, uint64_t quantity)
{
	uint64_t most = level_max(limit), room;

	settle(rate, limit, now_ns);
	if (limit->limit == 0)
		return quantity;
	room = most - level_up(rate);
	rate->level += quantity < room ? quantity : room;
	return quantity < room ? 0 : quantity - room;
}

uint64_t rate_level(const struct rate *rate, const struct rate_limit *limit, uint64_t now_ns)
{
	struct rate copy = *rate;

	settle(&copy, limit, now_ns);
	return level_up(&copy);
}
