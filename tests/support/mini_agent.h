/*
 * mini_agent.h - a small agent for tests of the library: a process of its own that speaks the whole protocol (control
 * socket, doorbell, channel, segment) over real shared memory, with a store that is a list, and does what its knobs say.
 */
#ifndef TESTS_SUPPORT_MINI_AGENT_H
#define TESTS_SUPPORT_MINI_AGENT_H

#include <stdint.h>
#include <sys/types.h>

#include "shm/layout.h"
#include "shm/os/map.h"

/* Shared with the agent's process. Set by the test, at any time; 0 is the ordinary behaviour. */
struct mini_knobs {
	uint32_t hold;            /* take nothing */
	uint32_t take_only;       /* take, and never answer */
	uint32_t die_on_take;     /* exit after taking a request of this op */
	uint32_t die_on_rest;     /* exit when a client comes for the rest of an answer to a request of this op */
	uint32_t refuse_attach;   /* answer attaches with this status, as a positive number */
	uint32_t refuse_doorbell; /* the same at the doorbell */
	uint32_t no_segment;      /* offer no segment, with a text that says why */
	uint32_t adopt;           /* at the next start: go on with the objects of the one before */
	uint32_t grow;            /* retire the segment and serve from a new one; done when 0 again */
	uint32_t drop_all;        /* close all doorbells; done when 0 again */
	uint32_t lie_about_owner; /* AGENT_UID of somebody else */
	uint32_t bad_answer;      /* answers whose lengths lie */
	uint32_t batch_limit;     /* refuse batches of more items as too big */
	uint32_t warm_limit;      /* take no more items of a list to warm; 0: all */
	uint32_t cold;            /* put nothing into shared memory */
	uint32_t refuse_op;       /* answer requests of this op with ... */
	int32_t refuse_status;
	/* by the agent */
	uint32_t ready;
	uint32_t attaches, requests, bells, pieces, channels, gone;
	uint32_t taken[32];       /* requests by op */
	struct rshm_request last; /* the latest request that was no FETCH_FAILED */
	uint64_t agent_size, segment_size;
	char agent_name[RSHM_NAME_MAX], segment_name[RSHM_NAME_MAX];
};

struct mini_agent {
	pid_t pid;
	char folder[64], socket[96];
	struct mini_knobs *knobs;
};

/* Makes a folder and starts the agent; returns when it listens. Ends the test if it cannot. */
void mini_agent_start(struct mini_agent *agent);
/* SIGKILL. Its objects stay, for another start to adopt. */
void mini_agent_kill(struct mini_agent *agent);
/* Starts it again on the same sockets. */
void mini_agent_restart(struct mini_agent *agent);
/* Ends it and removes everything. */
void mini_agent_stop(struct mini_agent *agent);

/* Maps the agent's object read-write, as its owner may: to end leases, fence, retire. */
struct rshm_agent *mini_agent_object(const struct mini_agent *agent, struct rshm_map *map);

/* Waits until *counter is at least `least`, at most some seconds. Returns the counter. */
uint32_t mini_agent_await(const uint32_t *counter, uint32_t least);

#endif
