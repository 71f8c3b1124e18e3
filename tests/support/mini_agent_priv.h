/* mini_agent_priv.h - what the small agent's loop (mini_agent.c) and its operations (mini_agent_ops.c) share. */
#ifndef TESTS_SUPPORT_MINI_AGENT_PRIV_H
#define TESTS_SUPPORT_MINI_AGENT_PRIV_H

#include "shm/channel.h"
#include "shm/ring.h"
#include "tests/support/mini_agent.h"

#define MINI_CHANNELS_MAX 64

struct stored {
	struct stored *next;
	unsigned char *bytes; /* key, metadata, value */
	size_t key_len, metadata_len, value_len;
	uint64_t version, ttl_ms;
};

struct mini_slot {
	struct rshm_request request, piece;
	uint32_t generation, have;
	unsigned char *body, *answer;
	size_t answer_len, metadata_len;
	struct rshm_answer head;
	uint32_t waits; /* for the key to be loaded */
};

struct mini_channel {
	int fd;
	struct rshm_map map;
	struct rshm_channel *shared;
	struct mini_slot slots[RSHM_SLOTS];
};

struct mini {
	struct mini_knobs *knobs;
	int control, doorbell;
	char doorbell_path[96];
	struct rshm_map agent_map, segment_map;
	struct rshm_agent *agent;
	struct rshm_writer writer;
	struct stored *stored;
	struct mini_channel *channels[MINI_CHANNELS_MAX];
	unsigned char tickets_told[16][16]; /* the latest */
	uint32_t tickets_count;
	uint64_t version, next_channel;
	/* the one load under way; ticket 0: none */
	struct mini_channel *loader;
	uint64_t load_ticket, tickets;
	unsigned char *load_key;
	size_t load_key_len;
};
extern struct mini mini;

/* Ends the agent's process, which the test then notices. */
void mini_need(int condition, const char *what);

/* Executes a request whose body is there: fills the slot's answer, or sets `waits`. */
void mini_execute(struct mini_channel *channel, struct mini_slot *slot);

#endif
