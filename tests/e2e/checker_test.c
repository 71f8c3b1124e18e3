/*
 * checker_test.c - the promise of coherence under faults: several agents, as of several hosts, on one Redis server, many
 * clients, programs that know nothing of agents; links that are late, held and cut, connections that are killed, servers and
 * agents that are paused, killed and started again, everything flushed. Meanwhile all that is read as verified is judged by
 * the ledger (tests/support/ledger.h).
 *
 * RIPTIDE_CHECKER_SECONDS lengthens the run (10 in make check), RIPTIDE_CHECKER_SEED repeats its faults, though not their
 * moments.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "riptide/riptide.h"
#include "shm/order.h"
#include "tests/support/e2e.h"
#include "tests/support/ledger.h"
#include "tests/support/link.h"
#include "tests/support/redis_server.h"

#define HOSTS 3u
#define READERS 2u /* of each host */
#define WRITERS 4u
#define LEASE_MS 2000u
#define VALUE_MAX 3000u
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* What all processes count. */
struct counts {
	uint64_t reads, hot, verified, stale, misses, read_errors, wrong;
	uint64_t writes, unknown, refused, foreign_writes, deletes;
	uint64_t violations, oldest_ms, excused;
	uint64_t last_key, last_number, last_newer, last_age_ms, last_host; /* of a violation */
};

struct fixture {
	struct redis_server server;
	struct agent_process agents[HOSTS];
	struct link *links[HOSTS];
	char urls[HOSTS][64];
	struct ledger *ledger;
	struct counts *counts;
	uint32_t *end;
	pid_t children[HOSTS * READERS + WRITERS];
	size_t child_count;
};

struct role {
	struct fixture *f;
	uint32_t host, number;
	bool writes;
};

/* ---- values --------------------------------------------------------------------------------------------------- */

static uint32_t next_random(uint64_t *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return (uint32_t)(*random >> 24);
}

static size_t key_name(uint32_t key, char name[16])
{
	return (size_t)snprintf(name, 16, "key-%u", (unsigned)key);
}

/* Its size, too, tells one number from another. */
static size_t make_value(char value[VALUE_MAX], uint32_t key, uint64_t number)
{
	size_t head = (size_t)snprintf(value, VALUE_MAX, "%u:%llu:", (unsigned)key, (unsigned long long)number);
	size_t length = head + number * 37 % (VALUE_MAX - head);

	memset(value + head, 'a' + (int)(number % 26), length - head);
	return length;
}

static bool value_is_whole(const char *value, size_t length, uint32_t key, uint64_t *ret_number)
{
	char expected[VALUE_MAX];
	unsigned long long number;
	unsigned int of_key;

	if (sscanf(value, "%u:%llu:", &of_key, &number) != 2 || of_key != key)
		return false;
	*ret_number = number;
	return make_value(expected, key, number) == length && memcmp(expected, value, length) == 0;
}

/* ---- clients -------------------------------------------------------------------------------------------------- */

static void count(uint64_t *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

static void raise_to(uint64_t *word, uint64_t value)
{
	uint64_t seen = rshm_load_relaxed(word);

	while (seen < value &&
	       !__atomic_compare_exchange_n(word, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

static void judge(struct role *role, uint32_t key, uint64_t number, uint64_t began_ms)
{
	struct counts *c = role->f->counts;
	struct verdict verdict = ledger_judge(role->f->ledger, key, number, began_ms, role->host);

	raise_to(&c->oldest_ms, verdict.age_ms);
	if (!verdict.violation)
		return;
	count(&c->violations);
	c->last_key = key;
	c->last_number = number;
	c->last_newer = verdict.newer;
	c->last_age_ms = verdict.age_ms;
	c->last_host = role->host;
}

static void read_one(struct role *role, riptide *handle, uint32_t key)
{
	struct counts *c = role->f->counts;
	struct riptide_info info = {.flags = 0};
	char name[16], value[VALUE_MAX + 1];
	size_t name_length = key_name(key, name), length = 0;
	uint64_t began_ms = e2e_now_ms(), number;
	int status = riptide_get_into(handle, name, name_length, value, VALUE_MAX, &length, &info);

	count(&c->reads);
	if (status == RIPTIDE_MISS) {
		count(&c->misses);
		return;
	}
	/* A program that knows nothing of us has put something else there: an error, as it must be. */
	if (status != RIPTIDE_OK) {
		count(&c->read_errors);
		return;
	}
	value[length] = '\0';
	if (!value_is_whole(value, length, key, &number)) {
		count(&c->wrong);
		return;
	}
	if (info.flags & RIPTIDE_STALE) {
		count(&c->stale);
		return;
	}
	count(&c->verified);
	if (info.flags & RIPTIDE_HOT)
		count(&c->hot);
	judge(role, key, number, began_ms);
}

static void note_outcome(struct role *role, uint32_t host, uint32_t key, uint64_t number, int status)
{
	struct counts *c = role->f->counts;

	count(&c->writes);
	if (status == RIPTIDE_OK || status == RIPTIDE_MISS) {
		ledger_done(role->f->ledger, key, number, host);
	} else {
		/* Also what says that nothing was changed: the agent may have died with it. */
		ledger_unknown(role->f->ledger, key, number);
		count(status == RIPTIDE_EUNKNOWN ? &c->unknown : &c->refused);
	}
}

static int write_own(riptide *handle, uint32_t kind, const char *name, size_t name_length, const char *value,
		     size_t length)
{
	struct riptide_set_options present = {.size = sizeof(present), .condition = RIPTIDE_IF_PRESENT};
	int status;

	if (kind < 8)
		return riptide_delete(handle, name, name_length);
	if (kind < 40)
		return riptide_set(handle, name, name_length, value, length, NULL, NULL);
	/* By a script, if there is something to replace. */
	status = riptide_set(handle, name, name_length, value, length, &present, NULL);
	if (status != RIPTIDE_CONFLICT)
		return status;
	return riptide_set(handle, name, name_length, value, length, NULL, NULL);
}

static void write_one(struct role *role, uint32_t host, riptide *handle, uint32_t key, uint64_t *random)
{
	char name[16], value[VALUE_MAX];
	size_t name_length = key_name(key, name), length;
	uint64_t number = ledger_begin(role->f->ledger, key);
	uint32_t kind = next_random(random) % 64;

	length = make_value(value, key, number);
	note_outcome(role, host, key, number, write_own(handle, kind, name, name_length, value, length));
	if (kind < 8)
		count(&role->f->counts->deletes);
}

/* A program that knows nothing of us: what it writes is no value of ours. */
static void write_foreign(struct role *role, redisContext **redis, uint32_t key, uint64_t *random)
{
	static const char *const commands[] = {
		"SET riptide:v1:{default.0}:1:c:key-%u raw", "DEL riptide:v1:{default.0}:1:c:key-%u",
		"PEXPIRE riptide:v1:{default.0}:1:c:key-%u 1", "GETDEL riptide:v1:{default.0}:1:c:key-%u"};
	uint64_t number = ledger_begin(role->f->ledger, key);
	const struct timeval patience = {.tv_sec = 10};
	redisReply *reply = NULL;

	if (!*redis) {
		*redis = redisConnectUnixWithTimeout(role->f->server.unix_path, patience);
		if (*redis && !(*redis)->err)
			(void)redisSetTimeout(*redis, patience);
	}
	if (*redis && !(*redis)->err)
		reply = redisCommand(*redis, commands[next_random(random) % COUNT(commands)], (unsigned)key);
	/* What dies at its time is not there at once. */
	if (reply && reply->type != REDIS_REPLY_ERROR) {
		e2e_pause_ms(2);
		ledger_done(role->f->ledger, key, number, LEDGER_ANYWHERE);
		count(&role->f->counts->foreign_writes);
	} else {
		ledger_unknown(role->f->ledger, key, number);
		if (*redis)
			redisFree(*redis);
		*redis = NULL;
		e2e_pause_ms(20);
	}
	if (reply)
		freeReplyObject(reply);
}

static riptide *open_patiently(struct role *role, uint32_t host)
{
	riptide *handle = NULL;

	while (!rshm_load_relaxed32(role->f->end) &&
	       e2e_open(&role->f->agents[host], NULL, 4000, &handle) != RIPTIDE_OK)
		e2e_pause_ms(50);
	return handle;
}

static int reader_main(void *context)
{
	struct role *role = context;
	uint64_t random = 88172645463325252ull + role->number * 7919u;
	riptide *handle;

	/* The descriptors of the links are the parent's. */
	close_range(3, ~0u, 0);
	handle = open_patiently(role, role->host);
	while (!rshm_load_relaxed32(role->f->end))
		read_one(role, handle, next_random(&random) % LEDGER_KEYS);
	riptide_close(&handle);
	return 0;
}

/* One of a writer's keys; the later ones seldom, so that nothing but the feed can end their copies in time. */
static uint32_t seldom(uint64_t *random)
{
	uint32_t keys = LEDGER_KEYS / WRITERS, key = next_random(random) % keys;

	key = key * (next_random(random) % keys) / keys;
	return key * (next_random(random) % keys) / keys;
}

/* Each write of a key takes another way, so that what one host does hides behind what another did just before. */
static int writer_main(void *context)
{
	struct role *role = context;
	uint64_t random = 88172645463325252ull + role->number * 104729u;
	riptide *handles[HOSTS];
	redisContext *redis = NULL;

	close_range(3, ~0u, 0);
	signal(SIGPIPE, SIG_IGN); /* hiredis writes to connections that were killed */
	for (uint32_t host = 0; host < HOSTS; host++)
		handles[host] = open_patiently(role, host);
	while (!rshm_load_relaxed32(role->f->end)) {
		uint32_t key = seldom(&random) * WRITERS + role->number;

		for (uint32_t times = 1 + next_random(&random) % 3; times > 0; times--) {
			uint32_t way = next_random(&random) % (2 * HOSTS + 1);

			if (way < 2 * HOSTS)
				write_one(role, way / 2, handles[way / 2], key, &random);
			else
				write_foreign(role, &redis, key, &random);
		}
		e2e_pause_ms(1 + next_random(&random) % 8);
	}
	if (redis)
		redisFree(redis);
	for (uint32_t host = 0; host < HOSTS; host++)
		riptide_close(&handles[host]);
	return 0;
}

/* ---- faults --------------------------------------------------------------------------------------------------- */

/* A command on a connection of its own, which the faults do not meet. */
__attribute__((format(printf, 2, 3))) static void order_server(struct fixture *f, const char *format, ...)
{
	redisContext *redis = redisConnectUnixWithTimeout(f->server.unix_path, (struct timeval){.tv_sec = 10});
	redisReply *reply;
	va_list arguments;

	va_start(arguments, format);
	reply = redis && !redis->err ? redisvCommand(redis, format, arguments) : NULL;
	va_end(arguments);
	if (reply)
		freeReplyObject(reply);
	if (redis)
		redisFree(redis);
}

static void kill_pub_sub(struct fixture *f, uint32_t random)
{
	(void)random;
	order_server(f, "CLIENT KILL TYPE pubsub");
}

static void kill_all_clients(struct fixture *f, uint32_t random)
{
	(void)random;
	order_server(f, "CLIENT KILL TYPE normal");
}

static void kill_one_client(struct fixture *f, uint32_t random)
{
	redisContext *redis = redisConnectUnixWithTimeout(f->server.unix_path, (struct timeval){.tv_sec = 10});
	redisReply *reply = redis && !redis->err ? redisCommand(redis, "CLIENT LIST") : NULL;
	unsigned long ids[256];
	size_t ids_count = 0;

	if (reply && reply->type == REDIS_REPLY_STRING)
		for (char *p = reply->str; p && ids_count < COUNT(ids); p = strstr(p, "\nid="), p = p ? p + 1 : NULL)
			ids[ids_count++] = strtoul(p + 3, NULL, 10);
	if (reply)
		freeReplyObject(reply);
	if (redis)
		redisFree(redis);
	if (ids_count)
		order_server(f, "CLIENT KILL ID %lu", ids[random % ids_count]);
}

static void pause_server(struct fixture *f, uint32_t random)
{
	redis_server_pause(&f->server);
	e2e_pause_ms(20 + random % 3000);
	redis_server_resume(&f->server);
}

static void restart_server(struct fixture *f, uint32_t random)
{
	ledger_flush_begin(f->ledger);
	redis_server_kill(&f->server);
	e2e_pause_ms(random % 500);
	assert_int_equal(redis_server_restart(&f->server), 0);
}

static void flush_server(struct fixture *f, uint32_t random)
{
	ledger_flush_begin(f->ledger);
	order_server(f, random % 2 ? "FLUSHALL" : "FLUSHDB ASYNC");
	ledger_flush_done(f->ledger);
}

static void sleep_server(struct fixture *f, uint32_t random)
{
	order_server(f, "DEBUG SLEEP 0.%u", (unsigned)(random % 9 + 1));
}

static void forget_scripts(struct fixture *f, uint32_t random)
{
	(void)random;
	order_server(f, "SCRIPT FLUSH");
}

static void delay_link(struct fixture *f, uint32_t random)
{
	struct link *link = f->links[random % HOSTS];
	enum link_way way = random / 8 % LINK_WAYS;

	link_delay(link, way, 5 + random % 400);
	e2e_pause_ms(100 + random % 1500);
	link_delay(link, way, 0);
}

static void hold_link(struct fixture *f, uint32_t random)
{
	struct link *link = f->links[random % HOSTS];
	bool both = random / 64 % 3 == 0;
	enum link_way way = random / 8 % LINK_WAYS;

	link_hold(link, way, true);
	if (both)
		link_hold(link, !way, true);
	e2e_pause_ms(50 + random % 4000);
	if (random / 16 % 2)
		link_cut(link);
	link_hold(link, LINK_TO_SERVER, false);
	link_hold(link, LINK_TO_AGENT, false);
}

static void cut_link(struct fixture *f, uint32_t random)
{
	link_cut(f->links[random % HOSTS]);
}

static void pause_agent(struct fixture *f, uint32_t random)
{
	struct agent_process *agent = &f->agents[random % HOSTS];

	assert_int_equal(agent_process_kill(agent, SIGSTOP), 0);
	e2e_pause_ms(20 + random % 4000);
	assert_int_equal(agent_process_kill(agent, SIGCONT), 0);
}

static void restart_agent(struct fixture *f, uint32_t random)
{
	struct agent_process *agent = &f->agents[random % HOSTS];

	if (random / 16 % 2)
		assert_int_equal(agent_process_kill(agent, SIGTERM), 0);
	assert_int_equal(agent_process_restart(agent), 0);
}

static const struct fault {
	const char *name;
	void (*cause)(struct fixture *f, uint32_t random);
	uint32_t weight;
} faults[] = {
	{"feeds killed", kill_pub_sub, 3},
	{"clients killed", kill_all_clients, 3},
	{"one client killed", kill_one_client, 10},
	{"server paused", pause_server, 3},
	{"server killed", restart_server, 1},
	{"server flushed", flush_server, 3},
	{"server slept", sleep_server, 2},
	{"scripts forgotten", forget_scripts, 1},
	{"link delayed", delay_link, 6},
	{"link held", hold_link, 6},
	{"link cut", cut_link, 4},
	{"agent paused", pause_agent, 2},
	{"agent restarted", restart_agent, 2},
};

static size_t choose_fault(uint64_t *random)
{
	uint32_t total = 0, at;
	size_t i = 0;

	for (size_t n = 0; n < COUNT(faults); n++)
		total += faults[n].weight;
	at = next_random(random) % total;
	while (at >= faults[i].weight)
		at -= faults[i++].weight;
	return i;
}

/* ---- a run ---------------------------------------------------------------------------------------------------- */

static int start_host(struct fixture *f, size_t host)
{
	const char *settings[] = {"agent.backend=redis",
				  f->urls[host],
				  "redis.command_timeout_ms=1500",
				  "redis.connection_timeout_ms=1000",
				  "redis.retry_max_delay_ms=200",
				  "agent.shutdown_timeout_seconds=2",
				  NULL};
	uint16_t port;

	f->links[host] = link_start(f->server.unix_path, &port);
	snprintf(f->urls[host], sizeof(f->urls[host]), "redis.url=redis://127.0.0.1:%u", (unsigned)port);
	if (!f->links[host] || agent_process_start(&f->agents[host], settings) < 0)
		return -1;
	return e2e_await_trust(&f->agents[host]) ? 0 : -1;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	void *shared = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	*state = f;
	f->counts = shared;
	f->end = (uint32_t *)((char *)shared + 32768);
	f->ledger = ledger_create(LEASE_MS);
	if (!redis_server_is_installed())
		return 0;
	if (redis_server_start(&f->server, "--enable-debug-command", "yes", NULL) < 0)
		return -1;
	for (size_t host = 0; host < HOSTS; host++)
		if (start_host(f, host) < 0)
			return -1;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status = 0;

	rshm_store_relaxed32(f->end, 1);
	for (size_t i = 0; i < f->child_count; i++) {
		int ended = e2e_join(f->children[i], 30000);

		if (ended != 0)
			print_message("client %zu ended with %d\n", i, ended);
		status |= ended;
	}
	for (size_t host = 0; host < HOSTS; host++) {
		if (f->agents[host].folder[0])
			status |= agent_process_stop_and_clean(&f->agents[host]);
		link_stop(f->links[host]);
	}
	redis_server_stop(&f->server);
	ledger_destroy(&f->ledger);
	munmap(f->counts, 65536);
	free(f);
	return status;
}

static void start_clients(struct fixture *f, struct role *roles)
{
	for (uint32_t i = 0; i < WRITERS; i++)
		roles[f->child_count++] = (struct role){.f = f, .number = i, .writes = true};
	for (uint32_t i = 0; i < HOSTS * READERS; i++)
		roles[f->child_count++] = (struct role){.f = f, .host = i % HOSTS, .number = i};
	for (size_t i = 0; i < f->child_count; i++)
		f->children[i] = e2e_fork(roles[i].writes ? writer_main : reader_main, &roles[i]);
}

static void report(const struct counts *c, const uint32_t *caused)
{
	print_message("%llu reads: %llu verified (%llu hot), %llu stale, %llu misses, %llu errors; %llu wrong\n",
		      (unsigned long long)c->reads, (unsigned long long)c->verified, (unsigned long long)c->hot,
		      (unsigned long long)c->stale, (unsigned long long)c->misses, (unsigned long long)c->read_errors,
		      (unsigned long long)c->wrong);
	print_message("%llu writes (%llu deletes): %llu unknown, %llu refused; %llu by foreign programs\n",
		      (unsigned long long)c->writes, (unsigned long long)c->deletes, (unsigned long long)c->unknown,
		      (unsigned long long)c->refused, (unsigned long long)c->foreign_writes);
	for (size_t i = 0; i < COUNT(faults); i++)
		print_message("%s%u %s", i ? ", " : "faults: ", (unsigned)caused[i], faults[i].name);
	print_message("\nviolations %llu, oldest value read as verified %llu ms after it was replaced (bound %u)\n",
		      (unsigned long long)c->violations, (unsigned long long)c->oldest_ms, LEASE_MS);
	if (c->violations)
		print_message("last: key %llu, %llu read on host %llu though %llu was there for %llu ms\n",
			      (unsigned long long)c->last_key, (unsigned long long)c->last_number,
			      (unsigned long long)c->last_host, (unsigned long long)c->last_newer,
			      (unsigned long long)c->last_age_ms);
}

static unsigned long setting(const char *name, unsigned long initial)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 10) : initial;
}

static void no_older_value_is_verified_for_longer_than_a_lease_whatever_happens(void **state)
{
	struct fixture *f = *state;
	uint64_t until_ms = e2e_now_ms() + 1000 * setting("RIPTIDE_CHECKER_SECONDS", 10);
	uint64_t random = 0x9e3779b97f4a7c15ull ^ setting("RIPTIDE_CHECKER_SEED", (unsigned long)getpid());
	struct role roles[HOSTS * READERS + WRITERS];
	uint32_t caused[COUNT(faults)] = {0};

	if (!redis_server_is_installed())
		skip();
	start_clients(f, roles);
	e2e_pause_ms(1500);
	while (e2e_now_ms() < until_ms && f->counts->violations == 0) {
		size_t fault = choose_fault(&random);

		faults[fault].cause(f, next_random(&random));
		caused[fault]++;
		e2e_pause_ms(next_random(&random) % 800);
	}
	/* All is well again, and stays so. */
	e2e_pause_ms(1500);
	rshm_store_relaxed32(f->end, 1);
	report(f->counts, caused);
	assert_int_equal(f->counts->violations, 0);
	assert_int_equal(f->counts->wrong, 0);
	assert_true(f->counts->hot > 1000);
	assert_true(f->counts->foreign_writes > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_older_value_is_verified_for_longer_than_a_lease_whatever_happens,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
