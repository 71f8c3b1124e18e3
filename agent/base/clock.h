/*
 * clock.h - the clocks of the agent, each with the one use it is meant for.
 *
 * All functions: any thread, never block, never fail.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

/*
 * CLOCK_MONOTONIC_COARSE in ms: the clock of deadlines, also of those that other processes read. Costs 6-8 ns and lags
 * the fine clock by up to one tick (1-10 ms).
 */
uint64_t clock_monotonic_ms(void);

/* CLOCK_MONOTONIC in ns, for measuring how long something took. Never compare it with the coarse clock. */
uint64_t clock_monotonic_ns(void);

/* CLOCK_REALTIME in ms since 1970: for people and for what outlives this boot. May step in both directions. */
uint64_t clock_realtime_ms(void);

/*
 * BOOTTIME - MONOTONIC in ms: how long the machine has slept since it was started. Two readings without a sleep in
 * between differ by at most 1 ms; who watches for sleep takes a growth of 10 ms and more as one.
 */
uint64_t clock_slept_ms(void);

#endif
