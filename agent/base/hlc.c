#include "agent/base/hlc.h"

#include "agent/base/clock.h"

void hlc_init(struct hlc *hlc, uint64_t floor)
{
	hlc->first = 0;
	hlc->is_identified = false;
	__atomic_store_n(&hlc->last, floor, __ATOMIC_RELAXED);
}

void hlc_identify(struct hlc *hlc, uint32_t writer_id)
{
	/* 14 bits; the mixing is Knuth's multiplicative hash (The Art of Computer Programming, 6.4). */
	hlc->first = (uint16_t)((writer_id * 2654435761u) >> 18);
	hlc->is_identified = true;
}

static uint64_t after(const struct hlc *hlc, uint64_t last)
{
	uint64_t next;

	if (!hlc->is_identified)
		return last + 1;
	next = (last & ~0xffull) | (hlc->first & 0xffu);
	return next > last ? next : next + 0x100;
}

uint64_t hlc_next(struct hlc *hlc)
{
	return hlc_next_at(hlc, clock_realtime_ms());
}

bool hlc_observe(struct hlc *hlc, uint64_t remote)
{
	return hlc_observe_at(hlc, remote, clock_realtime_ms());
}

uint64_t hlc_next_at(struct hlc *hlc, uint64_t now_ms)
{
	uint64_t wall = now_ms << 16 | hlc->first;
	uint64_t last = __atomic_load_n(&hlc->last, __ATOMIC_RELAXED);
	uint64_t next;

	/*
	 * A full counter carries into the milliseconds: the clock then runs ahead of the wall by what was made above what a
	 * millisecond holds, and the wall catches up. The version is all that is exchanged, so relaxed order suffices.
	 */
	do {
		next = wall > last ? wall : after(hlc, last);
	} while (!__atomic_compare_exchange_n(&hlc->last, &last, next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return next;
}

bool hlc_observe_at(struct hlc *hlc, uint64_t remote, uint64_t now_ms)
{
	uint64_t last = __atomic_load_n(&hlc->last, __ATOMIC_RELAXED);

	if (hlc_ms(remote) > now_ms + HLC_DRIFT_MAX_MS)
		return false;
	while (remote > last) {
		if (__atomic_compare_exchange_n(&hlc->last, &last, remote, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			break;
	}
	return true;
}

uint64_t hlc_last(const struct hlc *hlc)
{
	return __atomic_load_n(&hlc->last, __ATOMIC_RELAXED);
}
