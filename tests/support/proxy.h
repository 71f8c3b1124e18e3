/*
 * proxy.h - a Redis server that misbehaves when told: a thread on a port of 127.0.0.1 between an agent and a real server.
 *
 * What it says is never what a real server could not say on a broken network or by a fault of its own, with one limit: RESP has
 * no numbers, so an answer of the right type, at the right moment, to the wrong question cannot be told from the right one. So
 * it never goes on with a connection that it has taken a message from.
 *
 * It reads whole messages of RESP2 in both directions, so that it can take away, put in, cut or change one at a time. All
 * functions are for one thread of the test, and their waits are bounded. The thread's descriptors are shared by children that
 * are forked while it runs, so cases of it use threads.
 */
#ifndef TESTS_SUPPORT_PROXY_H
#define TESTS_SUPPORT_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum proxy_manner {
	PROXY_PASS,
	PROXY_SLOW, /* replies come byte by byte, a millisecond each */
	/* to requests, which the server never sees then */
	PROXY_DROP,   /* no answer to it, nor to any after it; the connection stays */
	PROXY_ANSWER, /* `text` instead of the server's reply */
	PROXY_REFUSE, /* the connection is reset */
	/* to replies; the server has executed the request */
	PROXY_SWALLOW,   /* nor any after it; the connection stays, and what is asked is done */
	PROXY_CUT_RESET, /* `after` bytes of it, then a reset */
	PROXY_CUT_END,   /* `after` bytes of it, then both directions end */
	PROXY_CUT_HALF,  /* `after` bytes of it, then this direction ends; what comes is read and forgotten */
	PROXY_EXTRA,     /* `text` behind each reply */
	PROXY_SWAP,      /* the third and fourth reply before the first and second */
	PROXY_CORRUPT,   /* a byte behind the 100th of each longer string is another */
	/* at once */
	PROXY_PUSH, /* `text` on every connection, then well-behaved */
};

struct proxy_behaviour {
	enum proxy_manner manner;
	const char *text;
	size_t text_length; /* 0: up to its NUL */
	size_t after;
	uint32_t shots;       /* so many messages, then well-behaved; 0: until told otherwise */
	bool greeting_too;    /* also to the first messages of a connection, which log the agent in */
	bool hang_up_at_once; /* all connections there are */
};

struct proxy;

/* Listens on *ret_port and connects to the server's socket for each connection. NULL after a line on stderr. */
struct proxy *proxy_start(const char *server_path, uint16_t *ret_port);
/* NULL is fine. */
void proxy_stop(struct proxy *proxy);

/* What comes after its return meets the new behaviour. NULL: well-behaved. */
void proxy_behave(struct proxy *proxy, const struct proxy_behaviour *behaviour);

/* Messages that the behaviour now set, or the one before, has spoiled. */
uint32_t proxy_spoiled(const struct proxy *proxy);
/* Connections accepted so far. */
uint32_t proxy_connections(const struct proxy *proxy);

#endif
