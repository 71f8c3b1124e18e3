/*
 * both_stores.h - the same tests against an agent with the embedded store and one with a real redis-server.
 *
 * A test program lists its cases with BOTH_STORES(case); on a machine without redis-server the second half is skipped.
 */
#ifndef TESTS_E2E_BOTH_STORES_H
#define TESTS_E2E_BOTH_STORES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "tests/support/e2e.h"
#include "tests/support/redis_server.h"

struct fixture {
	struct redis_server server; /* unused with the embedded store */
	bool redis;
	struct agent_process agent;
	riptide *handle;
	char url[160];
};

/* Settings of the test program besides the backend's; NULL-terminated. */
static const char *const *both_settings(void);

static int both_start(void **state, bool redis)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *settings[32];
	size_t n = 0;

	*state = f;
	f->redis = redis;
	if (redis && !redis_server_is_installed())
		return 0;
	if (redis) {
		if (redis_server_start(&f->server, NULL) < 0)
			return -1;
		snprintf(f->url, sizeof(f->url), "redis.url=unix://%s", f->server.unix_path);
		settings[n++] = "agent.backend=redis";
		settings[n++] = f->url;
	}
	for (const char *const *s = both_settings(); *s && n < 31; s++)
		settings[n++] = *s;
	settings[n] = NULL;
	if (agent_process_start(&f->agent, settings) < 0)
		return -1;
	if (!e2e_await_trust(&f->agent))
		return -1;
	return e2e_open(&f->agent, NULL, 5000, &f->handle) == RIPTIDE_OK ? 0 : -1;
}

__attribute__((unused)) static int both_setup_embedded(void **state)
{
	return both_start(state, false);
}

__attribute__((unused)) static int both_setup_redis(void **state)
{
	return both_start(state, true);
}

static int both_teardown(void **state)
{
	struct fixture *f = *state;
	int status = 0;

	if (f->agent.folder[0]) {
		riptide_close(&f->handle);
		status = agent_process_stop_and_clean(&f->agent);
	}
	redis_server_stop(&f->server);
	free(f);
	return status;
}

/* The fixture of a case; skips it where there is no redis-server. */
static inline struct fixture *both_fixture(void **state)
{
	struct fixture *f = *state;

	if (!f->agent.folder[0])
		skip();
	return f;
}

#define BOTH_STORES(name)                                                      \
	{#name " [embedded]", name, both_setup_embedded, both_teardown, NULL}, \
	{                                                                      \
#name " [redis]", name, both_setup_redis, both_teardown, NULL  \
	}

#endif
