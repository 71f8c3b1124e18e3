/*
 * stepping.h - runs code one machine instruction at a time, and calls the test between any two.
 *
 * What another process can do to shared memory, or a SIGKILL can leave there, it can at every instruction; with the
 * processor's single-step trap a test tries them all instead of waiting for luck. x86-64, and not the thread sanitizer,
 * which delays signals: elsewhere stepping_is_possible() is false.
 */
#ifndef STEPPING_H
#define STEPPING_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "shm/order.h"

#if defined(__x86_64__) && !RSHM_TSAN

#define STEPPING_TRAP_FLAG 0x100

/* Called after instruction number `step` (from 0). False: the rest runs at full speed. */
typedef bool stepping_fn(void *context, uint64_t step);

static struct {
	stepping_fn *between;
	void *context;
	uint64_t step;
	volatile sig_atomic_t running;
} stepping;

static inline bool stepping_is_possible(void)
{
	return true;
}

static void stepping_on_trap(int signal_number, siginfo_t *info, void *registers)
{
	ucontext_t *u = registers;

	(void)signal_number;
	(void)info;
	if (stepping.running && stepping.between(stepping.context, stepping.step++))
		u->uc_mcontext.gregs[REG_EFL] |= STEPPING_TRAP_FLAG;
	else
		u->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)STEPPING_TRAP_FLAG;
}

/* Runs code(context), and between(context, n) after each of its instructions. Returns how many there were. */
static inline uint64_t step_through(void (*code)(void *context), stepping_fn *between, void *context)
{
	struct sigaction action = {.sa_sigaction = stepping_on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER}, before;

	stepping.between = between;
	stepping.context = context;
	stepping.step = 0;
	sigaction(SIGTRAP, &action, &before);
	stepping.running = 1;
	__asm__ __volatile__("int3" ::: "memory");
	code(context);
	stepping.running = 0;
	/* Two instructions more end the stepping if it is still on. */
	__asm__ __volatile__("nop\n\tnop" ::: "memory");
	sigaction(SIGTRAP, &before, NULL);
	return stepping.step;
}

#else

typedef bool stepping_fn(void *context, uint64_t step);

static inline bool stepping_is_possible(void)
{
	return false;
}

static inline uint64_t step_through(void (*code)(void *context), stepping_fn *between, void *context)
{
	(void)between;
	code(context);
	return 0;
}

#endif

#endif
