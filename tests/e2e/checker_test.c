/*
 * checker_test.c - coherence of three agents on one Redis server, while links are late, held and cut, connections are killed,
 * server and agents are paused, killed and started again, and everything is flushed (tests/support/checker.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/support/checker.h"
#include "tests/support/e2e.h"
#include "tests/support/link.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct redis_server server;
static struct link *links[CHECKER_HOSTS];

/* ---- faults --------------------------------------------------------------------------------------------------- */

static void restart_server(struct checker *checker, uint32_t random)
{
	(void)checker;
	redis_server_kill(&server);
	e2e_pause_ms(random % 500);
	assert_int_equal(redis_server_restart(&server), 0);
}

static void flush_server(struct checker *checker, uint32_t random)
{
	ledger_flush_begin(checker->ledger);
	checker_order(&server, random % 2 ? "FLUSHALL" : "FLUSHDB ASYNC");
	ledger_flush_done(checker->ledger);
}

static void delay_link(struct checker *checker, uint32_t random)
{
	struct link *link = links[random % CHECKER_HOSTS];
	enum link_way way = random / 8 % LINK_WAYS;

	(void)checker;
	link_delay(link, way, 5 + random % 400);
	e2e_pause_ms(100 + random % 1500);
	link_delay(link, way, 0);
}

/* Answers to reads come long after the word of changes that were made later, or the other way round. */
static void lag_link(struct checker *checker, uint32_t random)
{
	struct link *link = links[random % CHECKER_HOSTS];
	enum link_way way = random / 8 % LINK_WAYS;

	(void)checker;
	link_lag(link, way, 5 + random % 400, 2 + random / 16 % 3, random / 64);
	e2e_pause_ms(500 + random % 3000);
	link_lag(link, way, 0, 0, 0);
}

static void hold_link(struct checker *checker, uint32_t random)
{
	struct link *link = links[random % CHECKER_HOSTS];
	bool both = random / 64 % 3 == 0;
	enum link_way way = random / 8 % LINK_WAYS;

	(void)checker;
	link_hold(link, way, true);
	if (both)
		link_hold(link, !way, true);
	e2e_pause_ms(50 + random % 4000);
	if (random / 16 % 2)
		link_cut(link);
	link_hold(link, LINK_TO_SERVER, false);
	link_hold(link, LINK_TO_AGENT, false);
}

static void cut_link(struct checker *checker, uint32_t random)
{
	(void)checker;
	link_cut(links[random % CHECKER_HOSTS]);
}

static const struct checker_fault faults[] = {
	{"feeds killed", checker_kill_feeds, 3},
	{"clients killed", checker_kill_clients, 3},
	{"one client killed", checker_kill_one_client, 10},
	{"server paused", checker_pause_server, 3},
	{"server killed", restart_server, 1},
	{"server flushed", flush_server, 3},
	{"server slept", checker_sleep_server, 2},
	{"scripts forgotten", checker_forget_scripts, 1},
	{"link delayed", delay_link, 6},
	{"connections late", lag_link, 6},
	{"link held", hold_link, 6},
	{"link cut", cut_link, 4},
	{"agent paused", checker_pause_agent, 2},
	{"agent restarted", checker_restart_agent, 2},
};

/* ---- the run -------------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
	static const char *const settings[] = {NULL};
	struct checker *checker = calloc(1, sizeof(*checker));
	const char *urls[CHECKER_HOSTS];
	static char texts[CHECKER_HOSTS][64];

	*state = checker;
	if (!redis_server_is_installed())
		return 0;
	if (redis_server_start(&server, "--enable-debug-command", "yes", NULL) < 0)
		return -1;
	for (size_t host = 0; host < CHECKER_HOSTS; host++) {
		uint16_t port;

		links[host] = link_start(server.unix_path, &port);
		if (!links[host])
			return -1;
		snprintf(texts[host], sizeof(texts[host]), "redis.url=redis://127.0.0.1:%u", (unsigned)port);
		urls[host] = texts[host];
	}
	checker->servers = &server;
	checker->server_count = 1;
	checker->absent_name = "riptide:v1:{default.0}:1:c:key-";
	return checker_start(checker, urls, settings);
}

static int teardown(void **state)
{
	struct checker *checker = *state;
	int status = checker_stop(checker);

	for (size_t host = 0; host < CHECKER_HOSTS; host++)
		link_stop(links[host]);
	redis_server_stop(&server);
	free(checker);
	return status;
}

static void no_older_value_is_verified_for_longer_than_a_lease_whatever_happens(void **state)
{
	if (!redis_server_is_installed())
		skip();
	assert_int_equal(checker_run(*state, faults, COUNT(faults), 10), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_older_value_is_verified_for_longer_than_a_lease_whatever_happens,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
