/*
 * presence.h - the agent object: what every client can see of us. Main thread.
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

/*
 * Says that we live. An adopted object's sources are fenced, for the store may be ahead of the rings; from then on they are
 * the workers', so call it before these start.
 */
void presence_begin(struct presence *presence);

/* The heartbeat. True: the machine slept since the last call, and the workers must be told. */
bool presence_beat(struct presence *presence);

/* `keep`: stays for the next agent; otherwise retired and unlinked. */
void presence_close(struct presence *presence, struct object_list *objects, bool keep);

#endif
