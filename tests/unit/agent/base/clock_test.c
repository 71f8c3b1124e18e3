#include "agent/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

static void clock_monotonic_never_goes_backwards(void **state)
{
	uint64_t ms = clock_monotonic_ms(), ns = clock_monotonic_ns();

	(void)state;
	for (int i = 0; i < 10000; i++) {
		uint64_t next_ms = clock_monotonic_ms(), next_ns = clock_monotonic_ns();

		assert_true(next_ms >= ms);
		assert_true(next_ns >= ns);
		ms = next_ms;
		ns = next_ns;
	}
}

static void clock_measures_a_pause(void **state)
{
	struct timespec pause = {.tv_nsec = 30 * 1000 * 1000};
	uint64_t ms = clock_monotonic_ms(), ns = clock_monotonic_ns();

	(void)state;
	assert_int_equal(nanosleep(&pause, NULL), 0);
	assert_true(clock_monotonic_ns() - ns >= 30u * 1000 * 1000);
	/* The coarse clock may lag by a tick at both ends. */
	assert_true(clock_monotonic_ms() - ms >= 19);
}

static void clock_realtime_agrees_with_time(void **state)
{
	uint64_t before = (uint64_t)time(NULL);
	uint64_t now_s = clock_realtime_ms() / 1000;

	(void)state;
	/* time() reads the coarse clock, which may lag a tick behind. */
	assert_true(now_s >= before && now_s <= before + 2);
}

static void clock_slept_is_steady_while_the_machine_is_awake(void **state)
{
	uint64_t slept = clock_slept_ms();

	(void)state;
	for (int i = 0; i < 1000; i++) {
		uint64_t again = clock_slept_ms();

		assert_true(again + 1 >= slept && again <= slept + 5);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clock_monotonic_never_goes_backwards),
		cmocka_unit_test(clock_measures_a_pause),
		cmocka_unit_test(clock_realtime_agrees_with_time),
		cmocka_unit_test(clock_slept_is_steady_while_the_machine_is_awake),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
