/* siege.c - what every attack has to leave as it was. */
#include "tests/support/siege.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Of the agent's heap: allocators keep some of the 64 MiB that staging may take. */
#define GROWTH_KIB_MAX (96 << 10)

int siege_begin(struct siege *siege, const char *const settings[])
{
	if (agent_process_start(&siege->agent, settings) < 0)
		return -1;
	return e2e_witness_start(&siege->witness, &siege->agent);
}

int siege_end(struct siege *siege)
{
	bool well = e2e_witness_stop(&siege->witness);

	return agent_process_stop_and_clean(&siege->agent) == 0 && well ? 0 : -1;
}

int siege_begin_case(struct siege *siege)
{
	/* The witness has one channel; whatever a case before left has to be gone first. */
	if (!e2e_await_exactly(&siege->agent, "control.channels_open", 1, 5000))
		return -1;
	siege->pid = siege->agent.pid;
	siege->descriptors = e2e_descriptors(siege->pid);
	siege->resident_kib = e2e_resident_kib(siege->pid);
	siege->protocol_errors = e2e_number(&siege->agent, "workers.0.protocol_errors");
	return 0;
}

/* Address sanitizer keeps what was freed for a while. */
static bool heap_may_grow(void)
{
	const char *sanitizer = getenv("RIPTIDE_SAN");

	return sanitizer && sanitizer[0];
}

static bool descriptors_are_back(const struct siege *siege)
{
	for (int i = 0; i < 100; i++) {
		if (e2e_descriptors(siege->pid) <= siege->descriptors)
			return true;
		e2e_pause_ms(50);
	}
	return false;
}

int siege_end_case(struct siege *siege)
{
	/* A case that failed left its channels open; the next one shall not suffer for it. */
	int left = close_range(3, ~0u, 0);
	bool well = left == 0 && e2e_witness_is_well(&siege->witness, 10000);
	bool alive = kill(siege->pid, 0) == 0 && waitpid(siege->pid, NULL, WNOHANG) == 0;
	bool closed = e2e_await_exactly(&siege->agent, "control.channels_open", 1, 10000);
	bool freed = e2e_await_exactly(&siege->agent, "workers.0.staging_bytes", 0, 5000);
	bool same = descriptors_are_back(siege);
	long grown = heap_may_grow() ? 0 : e2e_resident_kib(siege->pid) - siege->resident_kib;

	if (well && alive && closed && freed && same && grown <= GROWTH_KIB_MAX)
		return 0;
	fprintf(stderr,
		"witness well %d, agent alive %d, channels closed %d, staging freed %d, descriptors back %d (%d were, %d are), heap "
		"grown by %ld KiB\n",
		well, alive, closed, freed, same, siege->descriptors, e2e_descriptors(siege->pid), grown);
	return -1;
}

void siege_attach(struct siege *siege, struct raw_client *ret)
{
	assert_int_equal(raw_attach(ret, siege->agent.socket, "default"), RSHM_OK);
}
