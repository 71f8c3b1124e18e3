/*
 * url.h - where a Redis server is and how to log in, read from a URL.
 *
 *	redis://[[user]:password@]host[:port][/db]     host: a name, IPv4, or IPv6 in brackets; port 6379, db 0 if absent
 *	unix://[[user]:password@]/path[?db=n]
 *
 * User, password, host and path may be percent-encoded. A password may hold any character but, in unix://, the two
 * characters "@/" together; those are encoded. All functions: any thread, never block.
 */
#ifndef RIPTIDE_STORE_REDIS_URL_H
#define RIPTIDE_STORE_REDIS_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/text.h"

#define REDIS_URL_MAX 2048u /* characters */

struct redis_url {
	bool is_unix;
	uint16_t port;
	uint32_t database;
	char host[256];      /* without brackets; empty if is_unix */
	char path[108];      /* empty unless is_unix */
	char user[256];      /* empty: none */
	char password[1024]; /* empty: none */
};

/*
 * RSHM_OK, or RSHM_E_INVALID with a sentence in `error` that repeats nothing of the URL, because any part of it may be the
 * password. `ret` holds the password afterwards: redis_url_wipe() it.
 */
int redis_url_parse(const char *url, struct redis_url *ret, struct text *error);

/* "redis://host:6379/0" or "unix:///path?db=0": never user or password. */
void redis_url_describe(const struct redis_url *url, struct text *text);

void redis_url_wipe(struct redis_url *url);

#endif
