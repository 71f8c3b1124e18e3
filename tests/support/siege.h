/*
 * siege.h - an agent under attack: the agent, a witness that is served all the while, and what must be as it was after each
 * case: agent alive, witness without one error, channels closed, staging memory, descriptors and heap given back.
 */
#ifndef TESTS_SUPPORT_SIEGE_H
#define TESTS_SUPPORT_SIEGE_H

#include <stdint.h>

#include "tests/support/e2e.h"
#include "tests/support/raw_client.h"

struct siege {
	struct agent_process agent;
	struct e2e_witness witness;
	/* before the present case */
	pid_t pid;
	int descriptors;
	long resident_kib;
	int64_t protocol_errors;
};

/* Starts agent and witness. 0 or -1. */
int siege_begin(struct siege *siege, const char *const settings[]);
int siege_end(struct siege *siege);

/* Around each case. -1 and a line on stderr if something is not as it was. Closes all descriptors that a case left open. */
int siege_begin_case(struct siege *siege);
int siege_end_case(struct siege *siege);

/* Attaches to the default tenant; fails the test if it cannot. */
void siege_attach(struct siege *siege, struct raw_client *ret);

#endif
