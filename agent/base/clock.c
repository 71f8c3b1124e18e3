#include "agent/base/clock.h"

#include <time.h>

#include "agent/base/assert.h"

static uint64_t clock_read_ns(clockid_t id)
{
	struct timespec now;

	must(clock_gettime(id, &now) == 0);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_ms(void)
{
	return clock_read_ns(CLOCK_MONOTONIC_COARSE) / 1000000u;
}

uint64_t clock_monotonic_ns(void)
{
	return clock_read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_realtime_ms(void)
{
	return clock_read_ns(CLOCK_REALTIME) / 1000000u;
}

uint64_t clock_slept_ms(void)
{
	uint64_t best = UINT64_MAX;

	/*
	 * Being preempted between the two readings only makes the difference larger, so the smallest of some tries is the
	 * truth to within microseconds.
	 */
	for (int i = 0; i < 4; i++) {
		uint64_t monotonic = clock_read_ns(CLOCK_MONOTONIC);
		uint64_t boottime = clock_read_ns(CLOCK_BOOTTIME);
		uint64_t slept = boottime > monotonic ? boottime - monotonic : 0;

		if (slept < best)
			best = slept;
	}
	return best / 1000000u;
}
