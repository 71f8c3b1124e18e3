/*
 * admin.h - an operator of tenants, without riptidectl: one document to the control socket, and what is answered.
 *
 * No function asserts; every wait is bounded. Any process may ask; who is refused is the agent's to say.
 */
#ifndef TESTS_SUPPORT_ADMIN_H
#define TESTS_SUPPORT_ADMIN_H

#include <stddef.h>
#include <stdint.h>

#include "tests/support/agent_process.h"

/*
 * Asks `op` (RSHM_CONTROL_TENANT_...) of `tenant` (NULL: none) with `length` bytes of document (`json` NULL: none). Returns the
 * status of the answer, RSHM_E_NOAGENT without one. `text`, if not NULL, gets the answer's document or its error text, cut to
 * `size`.
 */
int admin_ask_bytes(const struct agent_process *agent, uint16_t op, const char *tenant, const void *json,
		    size_t length, char *text, size_t size);
/* The same with a text. */
int admin_ask(const struct agent_process *agent, uint16_t op, const char *tenant, const char *json, char *text,
	      size_t size);

#endif
