/*
 * presence.h - the agent object: what every client can see of us, and the leases it lives by. Main thread.
 */
#ifndef RIPTIDE_PRESENCE_H
#define RIPTIDE_PRESENCE_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/cache/objects.h"
#include "shm/layout.h"

struct presence {
	char name[RSHM_NAME_MAX];
	struct rshm_map map;
	struct rshm_agent *agent;
	bool adopted;
	uint64_t slept_ms;
};

/*
 * Adopts the agent object of a predecessor if boot, layout and capacities agree, else retires it and makes a new one.
 * On failure a one-line text.
 */
int presence_open(struct object_list *objects, const char *instance, uint32_t tenant_capacity,
		  uint32_t client_capacity, struct presence *ret, char *error, size_t error_len);

/* Begins the first lease; an adopted object's sources are fenced, for the store may be ahead of the rings. */
void presence_begin(struct presence *presence, uint64_t lease_ms);

/*
 * Extends the leases and the heartbeat; to be called more often than lease/2. True: the machine slept since the last call,
 * and every source has been fenced.
 */
bool presence_beat(struct presence *presence, uint64_t lease_ms);

/* Nothing is unverified any more. */
void presence_mark_clean(struct presence *presence);

/* `keep`: stays for the next agent; otherwise retired and unlinked. */
void presence_close(struct presence *presence, struct object_list *objects, bool keep);

#endif
