/*
 * checker_cluster_test.c - coherence of three agents on one Redis Cluster, while masters are replaced in good order, hang and
 * die, replicas die, slots move, nodes are flushed, connections are killed, and agents are paused and killed
 * (tests/support/checker.h).
 *
 * A master that is replaced because it died or hung takes with it what its replica had not got yet: Redis says so. Only for
 * such times the ledger forgives; a replacement in good order, and slots that move, lose nothing.
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
#include "tests/support/redis_cluster.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LAG_MS 1000u /* a replica has what its master took so long ago */
#define WHOLE_MS 30000
#define SHARDS 64u

static struct redis_cluster cluster;

static uint32_t slot_of_shard(uint32_t shard)
{
	return (uint32_t)redis_cluster_ask(&cluster, 0, "CLUSTER KEYSLOT {default.%u}", (unsigned)shard);
}

static void await_whole(void)
{
	if (redis_cluster_await_whole(&cluster, WHOLE_MS) < 0)
		abort();
}

/* A master of some shard, and its slot. */
static int choose_master(uint32_t random, uint32_t *ret_slot)
{
	*ret_slot = slot_of_shard(random % SHARDS);
	return redis_cluster_owner(&cluster, *ret_slot);
}

/* Waits until another server has the slot. */
static void await_replaced(int master, uint32_t slot)
{
	for (int i = 0; i < 600 && redis_cluster_owner(&cluster, slot) == master; i++)
		e2e_pause_ms(20);
}

/* ---- faults --------------------------------------------------------------------------------------------------- */

static void replace_master(struct checker *checker, uint32_t random)
{
	uint32_t slot;
	int master = choose_master(random, &slot), replica = redis_cluster_replica_of(&cluster, master);

	(void)checker;
	if (replica < 0)
		return;
	checker_order(&cluster.servers[replica], "CLUSTER FAILOVER");
	await_replaced(master, slot);
	await_whole();
}

static void kill_master(struct checker *checker, uint32_t random)
{
	uint32_t slot;
	int master = choose_master(random, &slot);

	ledger_forgive_begin(checker->ledger, e2e_now_ms() - LAG_MS);
	redis_server_kill(&cluster.servers[master]);
	await_replaced(master, slot);
	ledger_forgive_end(checker->ledger);
	e2e_pause_ms(random % 500);
	if (redis_server_restart(&cluster.servers[master]) < 0)
		abort();
	await_whole();
}

static void hang_master(struct checker *checker, uint32_t random)
{
	uint32_t slot;
	int master = choose_master(random, &slot);

	ledger_forgive_begin(checker->ledger, e2e_now_ms() - LAG_MS);
	redis_server_pause(&cluster.servers[master]);
	await_replaced(master, slot);
	e2e_pause_ms(random % 500);
	redis_server_resume(&cluster.servers[master]);
	await_whole();
	ledger_forgive_end(checker->ledger);
}

/* For less than it takes the others to replace it. */
static void pause_master(struct checker *checker, uint32_t random)
{
	uint32_t slot;
	int master = choose_master(random, &slot);

	(void)checker;
	redis_server_pause(&cluster.servers[master]);
	e2e_pause_ms(20 + random % 700);
	redis_server_resume(&cluster.servers[master]);
	await_whole();
}

static void kill_replica(struct checker *checker, uint32_t random)
{
	uint32_t slot;
	int replica = redis_cluster_replica_of(&cluster, choose_master(random, &slot));

	(void)checker;
	if (replica < 0)
		return;
	redis_server_kill(&cluster.servers[replica]);
	e2e_pause_ms(random % 1000);
	if (redis_server_restart(&cluster.servers[replica]) < 0)
		abort();
	await_whole();
}

static void move_slot(struct checker *checker, uint32_t random)
{
	uint32_t slot, other;
	int from = choose_master(random, &slot), to = choose_master(random / 64, &other);

	(void)checker;
	if (from == to || redis_cluster_begin_move(&cluster, slot, from, to) < 0)
		return;
	e2e_pause_ms(random % 300);
	while (redis_cluster_move_keys(&cluster, slot, from, to, 2) > 0)
		e2e_pause_ms(random % 50);
	if (redis_cluster_end_move(&cluster, slot, from, to) < 0)
		abort();
	await_whole();
}

static void flush_all(struct checker *checker, uint32_t random)
{
	(void)random;
	ledger_flush_begin(checker->ledger);
	for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS; i++)
		checker_order(&cluster.servers[i], "FLUSHALL");
	ledger_flush_done(checker->ledger);
}

static const struct checker_fault faults[] = {
	{"masters replaced", replace_master, 4},
	{"masters killed", kill_master, 3},
	{"masters hung", hang_master, 2},
	{"masters paused", pause_master, 3},
	{"replicas killed", kill_replica, 1},
	{"slots moved", move_slot, 6},
	{"all flushed", flush_all, 3},
	{"feeds killed", checker_kill_feeds, 4},
	{"clients killed", checker_kill_clients, 4},
	{"one client killed", checker_kill_one_client, 8},
	{"scripts forgotten", checker_forget_scripts, 1},
	{"agent paused", checker_pause_agent, 3},
	{"agent restarted", checker_restart_agent, 3},
};

/* ---- the run -------------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
	static const char *const arguments[] = {"--enable-debug-command", "yes", NULL};
	static const char *const settings[] = {"redis.cluster_refresh_ms=2000", NULL};
	static char url[300];
	const char *const urls[CHECKER_HOSTS] = {url, url, url};
	struct checker *checker = calloc(1, sizeof(*checker));

	*state = checker;
	if (!redis_cluster_is_installed())
		return 0;
	if (redis_cluster_start(&cluster, arguments) < 0 || redis_cluster_await_whole(&cluster, WHOLE_MS) < 0)
		return -1;
	snprintf(url, sizeof(url), "redis.url=%s", cluster.url);
	checker->servers = cluster.servers;
	checker->server_count = REDIS_CLUSTER_SERVERS;
	return checker_start(checker, urls, settings);
}

static int teardown(void **state)
{
	struct checker *checker = *state;
	int status = checker_stop(checker);

	redis_cluster_stop(&cluster);
	free(checker);
	return status;
}

static void no_older_value_is_verified_for_longer_than_a_lease_on_a_cluster(void **state)
{
	if (!redis_cluster_is_installed())
		skip();
	assert_int_equal(checker_run(*state, faults, COUNT(faults), 20), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_older_value_is_verified_for_longer_than_a_lease_on_a_cluster,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
