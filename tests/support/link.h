/*
 * link.h - a network between an agent and a Redis server: a thread on a port of 127.0.0.1 that carries bytes both ways, and
 * carries them late, holds them back, or cuts when told. It knows nothing of what it carries.
 *
 * All functions are for one thread of the test. Children forked while it runs share its descriptors; let them not matter.
 */
#ifndef TESTS_SUPPORT_LINK_H
#define TESTS_SUPPORT_LINK_H

#include <stdbool.h>
#include <stdint.h>

enum link_way {
	LINK_TO_SERVER,
	LINK_TO_AGENT,
	LINK_WAYS,
};

struct link;

/* Listens on *ret_port and connects to the server's unix socket for each connection. NULL after a line on stderr. */
struct link *link_start(const char *server_path, uint16_t *ret_port);
/* NULL is fine. */
void link_stop(struct link *link);

/* What enters from now on leaves so much later. */
void link_delay(struct link *link, enum link_way way, uint32_t delay_ms);
/*
 * The same, besides, for one connection in `of`, those whose number in the order of their beginning is `which` modulo `of`: what
 * the server said on one connection comes after what it said later on another. `of` = 0: no more.
 */
void link_lag(struct link *link, enum link_way way, uint32_t lag_ms, uint32_t of, uint32_t which);
/* Nothing leaves that way until it is released. New connections are held as well. */
void link_hold(struct link *link, enum link_way way, bool held);
/* Resets all connections there are; what was under way is lost. */
void link_cut(struct link *link);

#endif
