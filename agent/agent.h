/*
 * agent.h - the whole agent: wires the parts to each other, starts them in order and ends them in reverse.
 */
#ifndef RIPTIDE_AGENT_H
#define RIPTIDE_AGENT_H

#include <stddef.h>

#include "agent/config.h"

struct agent;

/*
 * Starts everything; returns when clients are served. `sources` (borrowed) is read again on reload. Takes `config` over,
 * also on failure. Blocks. On failure one line in `error`, nothing left running; what a predecessor left in shared memory
 * stays for another try.
 */
int agent_start(const struct config_sources *sources, struct config *config, struct agent **ret, char *error,
		size_t error_len);

/* Serves until SIGTERM or SIGINT, drains, and frees everything. Returns the exit status: 0, or 1 if something was lost. */
int agent_run(struct agent **agent);

/* Removes the shared objects that a stopped instance left for its successor. Refuses while one runs. */
int agent_forget(const struct config *config, char *error, size_t error_len);

#endif
