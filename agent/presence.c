/*
 * presence.c - the agent object, made or adopted, and its heartbeat.
 *
 * Adoption counts `restarts`: a client that remembers another number knows that its channel died with the agent that gave
 * it. Epochs go on from where they were, so that no entry of before can pass for verified.
 */
#include "agent/presence.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "shm/order.h"
#include "shm/source.h"

#define SLEEP_MS 50u /* growth of BOOTTIME - MONOTONIC that means the machine slept */

static bool is_adoptable(const struct rshm_map *map, uint32_t tenant_capacity, uint32_t client_capacity)
{
	const struct rshm_agent *agent = map->base;
	uint8_t boot_id[16];

	return rshm_boot_id(boot_id) == RSHM_OK && map->size == rshm_agent_size(tenant_capacity, client_capacity) &&
	       agent->header.magic == RSHM_AGENT_MAGIC && agent->header.layout_major == RSHM_LAYOUT_MAJOR &&
	       agent->header.object_size == map->size && agent->state == RSHM_LIVE &&
	       agent->tenant_capacity == tenant_capacity && agent->client_capacity == client_capacity &&
	       memcmp(agent->header.boot_id, boot_id, sizeof(boot_id)) == 0;
}

static void take_over(struct presence *p, const char *name)
{
	struct rshm_agent *agent = p->map.base;
	struct rshm_figures *clients = rshm_agent_clients(agent, agent->tenant_capacity);

	snprintf(p->name, sizeof(p->name), "%s", name);
	p->agent = agent;
	p->adopted = true;
	/* All channels of the predecessor are gone, and so are its tenants until they are opened again. */
	for (uint32_t i = 0; i < agent->client_capacity; i++)
		rshm_store_relaxed(&clients[i].in_use, 0);
	for (uint32_t i = 0; i < agent->tenant_capacity; i++)
		rshm_store_relaxed(&rshm_agent_tenants(agent)[i].in_use, 0);
	agent->process_id = (uint32_t)getpid();
	rshm_store_release(&agent->restarts, agent->restarts + 1);
}

static int create(struct presence *p, struct object_list *objects, const char *instance, uint32_t tenant_capacity,
		  uint32_t client_capacity)
{
	uint64_t size = rshm_agent_size(tenant_capacity, client_capacity);
	struct rshm_agent *agent;
	int fd, status = object_list_add(objects, OBJECT_AGENT, instance, "-", p->name);

	if (status < 0)
		return status;
	status = rshm_map_create(p->name, size, &p->map, &fd);
	if (status < 0) {
		int saved = errno;

		object_list_remove(objects, p->name);
		errno = saved;
		return status;
	}
	/* Everybody may read it: liveness and figures, no values. Its name is told at attach only. */
	if (fchmod(fd, 0644) < 0)
		log_warn("agent", "%s: others cannot read the agent object: %s", p->name, strerror(errno));
	close(fd);
	agent = p->map.base;
	agent->header.magic = RSHM_AGENT_MAGIC;
	agent->header.layout_major = RSHM_LAYOUT_MAJOR;
	agent->header.layout_minor = RSHM_LAYOUT_MINOR;
	agent->header.object_size = size;
	randombytes_buf(agent->header.instance, sizeof(agent->header.instance));
	randombytes_buf(&agent->header.generation, sizeof(agent->header.generation));
	status = rshm_boot_id(agent->header.boot_id);
	agent->tenant_capacity = tenant_capacity;
	agent->client_capacity = client_capacity;
	snprintf(agent->instance_name, sizeof(agent->instance_name), "%s", instance);
	agent->process_id = (uint32_t)getpid();
	for (unsigned int i = 0; i < RSHM_SOURCES; i++) {
		agent->sources[i].epoch = 1;
		agent->sources[i].clean = 1;
	}
	p->agent = agent;
	return status;
}

static void adopt_or_discard(struct presence *p, struct object_list *objects, const char *name,
			     uint32_t tenant_capacity, uint32_t client_capacity)
{
	int status = rshm_map_adopt(name, &p->map);

	if (status == RSHM_OK && !p->agent && is_adoptable(&p->map, tenant_capacity, client_capacity)) {
		take_over(p, name);
		return;
	}
	if (status == RSHM_OK) {
		struct rshm_agent *old = p->map.base;

		if (old->header.magic == RSHM_AGENT_MAGIC && p->map.size >= sizeof(*old))
			rshm_store_release32(&old->state, RSHM_RETIRED);
		rshm_unmap(&p->map);
	}
	object_list_remove(objects, name);
}

int presence_open(struct object_list *objects, const char *instance, uint32_t tenant_capacity,
		  uint32_t client_capacity, struct presence *ret, char *error, size_t error_len)
{
	struct object_entry *entries;
	size_t count = object_list_copy(objects, &entries);
	int status = RSHM_OK;

	*ret = (struct presence){.slept_ms = clock_slept_ms()};
	for (size_t i = 0; i < count; i++)
		if (entries[i].kind == OBJECT_AGENT && !ret->adopted)
			adopt_or_discard(ret, objects, entries[i].name, tenant_capacity, client_capacity);
	free(entries);
	if (!ret->adopted)
		status = create(ret, objects, instance, tenant_capacity, client_capacity);
	if (status < 0) {
		snprintf(error, error_len, "no shared memory for the agent object (%llu KiB in /dev/shm): %s",
			 (unsigned long long)(rshm_agent_size(tenant_capacity, client_capacity) >> 10),
			 strerror(errno));
		return status;
	}
#ifdef RIPTIDE_VERSION
	snprintf(ret->agent->program_version, sizeof(ret->agent->program_version), "%s", RIPTIDE_VERSION);
#endif
	return RSHM_OK;
}

void presence_begin(struct presence *p)
{
	uint64_t now_ms = clock_monotonic_ms();

	rshm_store_relaxed(&p->agent->started_ms, now_ms);
	for (unsigned int i = 0; i < RSHM_SOURCES && p->adopted; i++)
		rshm_source_fence(&p->agent->sources[i], now_ms);
	rshm_store_relaxed(&p->agent->heartbeat_ms, now_ms);
	rshm_store_release32(&p->agent->state, RSHM_LIVE);
}

bool presence_beat(struct presence *p)
{
	uint64_t slept_ms = clock_slept_ms();
	bool slept = slept_ms > p->slept_ms + SLEEP_MS;

	p->slept_ms = slept_ms;
	rshm_store_relaxed(&p->agent->heartbeat_ms, clock_monotonic_ms());
	return slept;
}

void presence_close(struct presence *p, struct object_list *objects, bool keep)
{
	if (!p->agent)
		return;
	if (!keep) {
		rshm_store_release32(&p->agent->state, RSHM_RETIRED);
		object_list_remove(objects, p->name);
	}
	rshm_unmap(&p->map);
	p->agent = NULL;
}
