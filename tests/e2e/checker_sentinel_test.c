/*
 * checker_sentinel_test.c - coherence of three agents on one Redis that Sentinel watches, while its master is replaced, hangs
 * and dies, sentinels die, everything is flushed, connections are killed, and agents are paused and killed
 * (tests/support/checker.h).
 *
 * A replaced master takes with it what its replica had not got yet, and goes on to take writes until it hears of it: Redis
 * says so. Only for such times the ledger forgives.
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
#include "tests/support/redis_sentinel.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LAG_MS 1000u /* a replica has what its master took so long ago */
#define DOWN_MS 3000u
#define WHOLE_MS 40000
#define REPLACED_MS 60000

static struct redis_sentinel group;
static int master_known; /* what faults have made of it */

/* Where sentinels replaced the master by themselves, because nobody was let run for long, nothing can be judged. */
static int master_now(void)
{
	int master = redis_sentinel_master(&group);

	if (master != master_known) {
		print_message("the master was replaced without a fault of ours: this machine stood still\n");
		skip();
	}
	return master;
}

/* At the end of a fault that left the master as it was. */
static void await_whole(struct checker *checker)
{
	if (redis_sentinel_await_whole(&group, WHOLE_MS) < 0)
		checker->over = true;
	else
		(void)master_now();
}

/*
 * Waits until another one is the master, nobody else holds itself to be one, and whoever wrote to such a one has heard that it was
 * done. Sentinels that cannot agree on a busy machine end the run.
 */
static void await_replaced(struct checker *checker, int master)
{
	if (redis_sentinel_await_replaced(&group, master, REPLACED_MS) < 0 ||
	    redis_sentinel_await_one_master(&group, WHOLE_MS) < 0)
		checker->over = true;
	master_known = redis_sentinel_master(&group);
	e2e_pause_ms(LAG_MS);
}

/* ---- faults --------------------------------------------------------------------------------------------------- */

static void replace_master(struct checker *checker, uint32_t random)
{
	int master = master_now();

	(void)random;
	ledger_forgive_begin(checker->ledger, e2e_now_ms() - LAG_MS);
	if (redis_sentinel_failover(&group) == 0)
		await_replaced(checker, master);
	ledger_forgive_end(checker->ledger);
	await_whole(checker);
}

static void kill_master(struct checker *checker, uint32_t random)
{
	int master = master_now();

	ledger_forgive_begin(checker->ledger, e2e_now_ms() - LAG_MS);
	redis_server_kill(&group.servers[master]);
	await_replaced(checker, master);
	ledger_forgive_end(checker->ledger);
	e2e_pause_ms(random % 500);
	/* It has nothing, so strangers find nothing to change there before it is a replica. */
	if (redis_server_restart(&group.servers[master]) < 0)
		abort();
	await_whole(checker);
}

static void hang_master(struct checker *checker, uint32_t random)
{
	int master = master_now();

	ledger_forgive_begin(checker->ledger, e2e_now_ms() - LAG_MS);
	redis_server_pause(&group.servers[master]);
	checker->over = redis_sentinel_await_replaced(&group, master, REPLACED_MS) < 0;
	e2e_pause_ms(random % 500);
	redis_server_resume(&group.servers[master]);
	await_replaced(checker, master);
	ledger_forgive_end(checker->ledger);
	await_whole(checker);
}

/* For less than it takes sentinels to replace it. */
static void pause_master(struct checker *checker, uint32_t random)
{
	int master = master_now();

	redis_server_pause(&group.servers[master]);
	e2e_pause_ms(20 + random % 1500);
	redis_server_resume(&group.servers[master]);
	await_whole(checker);
}

static void kill_sentinel(struct checker *checker, uint32_t random)
{
	struct redis_server *sentinel = &group.sentinels[random % REDIS_SENTINEL_SENTINELS];

	redis_server_kill(sentinel);
	e2e_pause_ms(random / 8 % 1000);
	if (redis_server_restart(sentinel) < 0)
		abort();
	await_whole(checker);
}

static void flush_master(struct checker *checker, uint32_t random)
{
	(void)random;
	ledger_flush_begin(checker->ledger);
	checker_order(&group.servers[master_now()], "FLUSHALL");
	ledger_flush_done(checker->ledger);
}

static const struct checker_fault faults[] = {
	{"masters replaced", replace_master, 3},
	{"masters killed", kill_master, 2},
	{"masters hung", hang_master, 2},
	{"masters paused", pause_master, 4},
	{"sentinels killed", kill_sentinel, 2},
	{"all flushed", flush_master, 4},
	{"feeds killed", checker_kill_feeds, 6},
	{"clients killed", checker_kill_clients, 5},
	{"one client killed", checker_kill_one_client, 10},
	{"scripts forgotten", checker_forget_scripts, 1},
	{"agent paused", checker_pause_agent, 4},
	{"agent restarted", checker_restart_agent, 4},
};

/* ---- the run -------------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
	static const char *const arguments[] = {"--enable-debug-command", "yes", NULL};
	static const char *const settings[] = {"redis.sentinel_refresh_ms=2000", NULL};
	static char url[300];
	const char *const urls[CHECKER_HOSTS] = {url, url, url};
	struct checker *checker = calloc(1, sizeof(*checker));

	*state = checker;
	if (!redis_server_is_installed())
		return 0;
	if (redis_sentinel_start(&group, DOWN_MS, arguments) < 0)
		return -1;
	snprintf(url, sizeof(url), "redis.url=%s", group.url);
	checker->servers = group.servers;
	checker->server_count = REDIS_SENTINEL_SERVERS;
	return checker_start(checker, urls, settings);
}

static int teardown(void **state)
{
	struct checker *checker = *state;
	int status = checker_stop(checker);

	redis_sentinel_stop(&group);
	free(checker);
	return status;
}

static void no_older_value_is_verified_for_longer_than_a_lease_behind_sentinels(void **state)
{
	int status;

	if (!redis_server_is_installed())
		skip();
	status = checker_run(*state, faults, COUNT(faults), 20);
	if (!((struct checker *)*state)->over)
		(void)master_now();
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_older_value_is_verified_for_longer_than_a_lease_behind_sentinels,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
