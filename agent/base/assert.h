/*
 * assert.h - must(): a check of our own reasoning that stays on in release builds.
 *
 * A failed must() is a bug in this program, never a fault of its input: it names place and condition on stderr and
 * aborts, so that the service manager restarts us from a known state and a core file tells what happened.
 */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

#include <stdio.h>
#include <stdlib.h>

__attribute__((noreturn, cold, noinline, unused)) static void must_failed(const char *condition, const char *file,
									  int line)
{
	fprintf(stderr, "%s:%d: must hold but does not: %s\n", file, line, condition);
	abort();
}

/* The condition is evaluated exactly once, in every build. */
#define must(condition) (__builtin_expect(!!(condition), 1) ? (void)0 : must_failed(#condition, __FILE__, __LINE__))

#endif
