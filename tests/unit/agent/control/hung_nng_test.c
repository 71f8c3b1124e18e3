/*
 * The agent must be able to stop while nng hangs. All of nng's threads are held in callbacks of the test, so nothing of the
 * control plane comes back from nng. What is then left allocated on purpose is no leak to report: the program leaves by _exit().
 */
#include "tests/unit/agent/control/control_fixture.h"

#include <nng/nng.h>
#include <nng/supplemental/util/platform.h>

#define HOLDERS 512 /* more than nng has threads on any machine of ours */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static _Atomic unsigned int held;

static void hold(void *context)
{
	(void)context;
	held++;
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
}

static void close_ends_in_time_while_nng_hangs(void **state)
{
	static nng_aio *holders[HOLDERS];
	static struct plane p;
	unsigned int before;
	uint64_t begun_ms;
	int idle, asking;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	idle = peer_open(&p);
	asking = peer_open(&p);
	assert_int_equal(peer_op(asking, RSHM_CONTROL_PING), RSHM_OK);
	pthread_mutex_lock(&gate);
	for (int i = 0; i < HOLDERS; i++) {
		must(nng_aio_alloc(&holders[i], hold, NULL) == 0);
		nng_sleep_aio(1, holders[i]);
	}
	do {
		before = held;
		sleep_ms(100);
	} while (before == 0 || held != before);
	assert_true(held < HOLDERS);
	begun_ms = clock_monotonic_ms();
	plane_do(&p, job_close, NULL);
	pthread_join(p.thread, NULL);
	assert_in_range(clock_monotonic_ms() - begun_ms, 2900, 4000);
	/* The sockets are gone all the same, and when nng goes on, what it still brings harms nobody. */
	assert_int_equal(rmdir(p.folder), 0);
	pthread_mutex_unlock(&gate);
	assert_true(peer_is_closed_within(idle, 1000));
	for (int i = 0; i < HOLDERS; i++)
		nng_aio_free(holders[i]);
	close(idle);
	close(asking);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(close_ends_in_time_while_nng_hangs),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	fflush(NULL);
	_exit(failed);
}
