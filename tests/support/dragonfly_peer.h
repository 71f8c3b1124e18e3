/*
 * dragonfly_peer.h - what an agent hears from DragonflyDB, over a real redis-server: a thread on a port of 127.0.0.1 that reads
 * commands, answers those itself which DragonflyDB answers in its own way, and has the server answer the rest.
 *
 * As DragonflyDB does (commit f8eca6d of 2026-08-22): INFO server tells redis_version and dragonfly_version and no run_id;
 * CLIENT TRACKING is refused on RESP2; CLIENT knows few subcommands, and KILL ID takes 32 bits; there is no FUNCTION and, by
 * default, no CLUSTER; scripts may touch no key that is not declared; SCAN's cursors are large. Commands that are not in the
 * peer's table are unknown, and counted.
 *
 * All functions are for one thread of the test. Children forked while it runs share its descriptors; let them not matter.
 */
#ifndef TESTS_SUPPORT_DRAGONFLY_PEER_H
#define TESTS_SUPPORT_DRAGONFLY_PEER_H

#include <stdbool.h>
#include <stdint.h>

struct dragonfly_peer;

/* What it was asked for since it was started. */
struct dragonfly_counts {
	uint32_t tracking; /* CLIENT TRACKING, refused */
	uint32_t kills;    /* CLIENT KILL ID, executed */
	uint32_t scripts;  /* EVAL and EVALSHA, executed */
	uint32_t published;
	uint32_t scans;   /* pages */
	uint32_t unknown; /* commands that DragonflyDB does not have */
	char first_unknown[64];
};

/* Listens on *ret_port and connects to the server's unix socket for each connection. NULL after a line on stderr. */
struct dragonfly_peer *dragonfly_peer_start(const char *server_path, uint16_t *ret_port);
/* Ends the thread and waits for it. NULL is fine. */
void dragonfly_peer_stop(struct dragonfly_peer *peer);

/* Held: connections are taken, and nothing is read or answered. Returns when it is so. */
void dragonfly_peer_hold(struct dragonfly_peer *peer, bool held);
/* Each command waits so long before it is looked at. */
void dragonfly_peer_delay(struct dragonfly_peer *peer, uint32_t delay_ms);
/* All connections end, and scripts are forgotten, as in a restart; the data stay, as from a snapshot. */
void dragonfly_peer_restart(struct dragonfly_peer *peer);

void dragonfly_peer_counts(struct dragonfly_peer *peer, struct dragonfly_counts *ret);

#endif
