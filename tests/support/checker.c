/* checker.c - clients, their values, the faults that any backend can meet, and the report. */
#include "tests/support/checker.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#include "riptide/riptide.h"
#include "shm/order.h"
#include "tests/support/e2e.h"

#define CHECKER_SERVERS_MAX 8u
#define VALUE_MAX 3000u
#define SHARED_BYTES 65536u
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct role {
	struct checker *checker;
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
	struct checker_counts *c = role->checker->counts;
	struct verdict verdict = ledger_judge(role->checker->ledger, key, number, began_ms, role->host);

	raise_to(&c->oldest_ms, verdict.age_ms);
	if (!verdict.violation)
		return;
	count(&c->violations);
	c->last_key = key;
	c->last_number = number;
	c->last_newer = verdict.newer;
	c->last_newer_ms = verdict.newer_ms;
	c->last_newer_host = verdict.newer_host;
	c->last_age_ms = verdict.age_ms;
	c->last_host = role->host;
}

static void read_one(struct role *role, riptide *handle, uint32_t key)
{
	struct checker_counts *c = role->checker->counts;
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
	struct checker_counts *c = role->checker->counts;

	count(&c->writes);
	if (status == RIPTIDE_OK || status == RIPTIDE_MISS) {
		ledger_done(role->checker->ledger, key, number, host);
	} else {
		/* Also what says that nothing was changed: the agent may have died with it. */
		ledger_unknown(role->checker->ledger, key, number);
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
	uint64_t number = ledger_begin(role->checker->ledger, key);
	uint32_t kind = next_random(random) % 64;

	length = make_value(value, key, number);
	note_outcome(role, host, key, number, write_own(handle, kind, name, name_length, value, length));
	if (kind < 8)
		count(&role->checker->counts->deletes);
}

/* A program that knows nothing of us, with a connection to each server. */
struct stranger {
	struct checker *checker;
	redisContext *servers[CHECKER_SERVERS_MAX];
};

static void stranger_leave(struct stranger *stranger, uint32_t server)
{
	if (stranger->servers[server])
		redisFree(stranger->servers[server]);
	stranger->servers[server] = NULL;
}

/* NULL: the server is away, or says that it is an error. */
__attribute__((format(printf, 3, 4))) static redisReply *stranger_ask(struct stranger *stranger, uint32_t server,
								      const char *format, ...)
{
	const struct timeval patience = {.tv_sec = 5};
	redisContext **redis = &stranger->servers[server];
	redisReply *reply = NULL;
	va_list arguments;

	if (!*redis) {
		*redis = redisConnectUnixWithTimeout(stranger->checker->servers[server].unix_path, patience);
		if (*redis && !(*redis)->err)
			(void)redisSetTimeout(*redis, patience);
	}
	va_start(arguments, format);
	if (*redis && !(*redis)->err)
		reply = redisvCommand(*redis, format, arguments);
	va_end(arguments);
	if (!reply)
		stranger_leave(stranger, server);
	if (reply && reply->type == REDIS_REPLY_ERROR) {
		freeReplyObject(reply);
		reply = NULL;
	}
	return reply;
}

/* The name of the key in a server, or where to put it. False: neither. */
static bool stranger_find(struct stranger *stranger, uint32_t server, uint32_t key, char name[64])
{
	redisReply *reply = stranger_ask(stranger, server, "KEYS riptide:v1:{default.*}:*:c:key-%u", (unsigned)key);
	bool found = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 &&
		     reply->element[0]->type == REDIS_REPLY_STRING && reply->element[0]->len < 64;

	if (found)
		memcpy(name, reply->element[0]->str, reply->element[0]->len + 1);
	else if (reply && stranger->checker->absent_name)
		found = snprintf(name, 64, "%s%u", stranger->checker->absent_name, (unsigned)key) < 64;
	if (reply)
		freeReplyObject(reply);
	return found;
}

static bool stranger_change(struct stranger *stranger, uint32_t key, uint32_t way)
{
	for (uint32_t i = 0; i < stranger->checker->server_count; i++) {
		redisReply *reply;
		char name[64];

		if (!stranger_find(stranger, i, key, name))
			continue;
		switch (way % 4) {
		case 0:
			reply = stranger_ask(stranger, i, "SET %s raw", name);
			break;
		case 1:
			reply = stranger_ask(stranger, i, "DEL %s", name);
			break;
		case 2:
			reply = stranger_ask(stranger, i, "PEXPIRE %s 1", name);
			break;
		default:
			reply = stranger_ask(stranger, i, "GETDEL %s", name);
			break;
		}
		if (!reply)
			continue;
		freeReplyObject(reply);
		return true;
	}
	return false;
}

/* What it writes is no value of ours. */
static void write_foreign(struct role *role, struct stranger *stranger, uint32_t key, uint64_t *random)
{
	uint64_t number = ledger_begin(role->checker->ledger, key);

	if (stranger_change(stranger, key, next_random(random))) {
		/* What dies at its time is not there at once. */
		e2e_pause_ms(2);
		ledger_done(role->checker->ledger, key, number, LEDGER_ANYWHERE);
		count(&role->checker->counts->foreign_writes);
	} else {
		ledger_unknown(role->checker->ledger, key, number);
		e2e_pause_ms(20);
	}
}

static riptide *open_patiently(struct role *role, uint32_t host)
{
	riptide *handle = NULL;

	while (!rshm_load_relaxed32(role->checker->end) &&
	       e2e_open(&role->checker->agents[host], NULL, 4000, &handle) != RIPTIDE_OK)
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
	while (!rshm_load_relaxed32(role->checker->end))
		read_one(role, handle, next_random(&random) % LEDGER_KEYS);
	riptide_close(&handle);
	return 0;
}

/* One of a writer's keys; the later ones seldom, so that nothing but the feed can end their copies in time. */
static uint32_t seldom(uint64_t *random)
{
	uint32_t keys = LEDGER_KEYS / CHECKER_WRITERS, key = next_random(random) % keys;

	key = key * (next_random(random) % keys) / keys;
	return key * (next_random(random) % keys) / keys;
}

/* Each write of a key takes another way, so that what one host does hides behind what another did just before. */
static int writer_main(void *context)
{
	struct role *role = context;
	uint64_t random = 88172645463325252ull + role->number * 104729u;
	riptide *handles[CHECKER_HOSTS];
	struct stranger stranger = {.checker = role->checker};

	close_range(3, ~0u, 0);
	signal(SIGPIPE, SIG_IGN); /* hiredis writes to connections that were killed */
	for (uint32_t host = 0; host < CHECKER_HOSTS; host++)
		handles[host] = open_patiently(role, host);
	while (!rshm_load_relaxed32(role->checker->end)) {
		uint32_t key = seldom(&random) * CHECKER_WRITERS + role->number;

		for (uint32_t times = 1 + next_random(&random) % 3; times > 0; times--) {
			uint32_t way = next_random(&random) % (2 * CHECKER_HOSTS + 1);

			if (way < 2 * CHECKER_HOSTS)
				write_one(role, way / 2, handles[way / 2], key, &random);
			else
				write_foreign(role, &stranger, key, &random);
		}
		e2e_pause_ms(1 + next_random(&random) % 8);
	}
	for (uint32_t i = 0; i < role->checker->server_count; i++)
		stranger_leave(&stranger, i);
	for (uint32_t host = 0; host < CHECKER_HOSTS; host++)
		riptide_close(&handles[host]);
	return 0;
}

/* ---- faults --------------------------------------------------------------------------------------------------- */

void checker_order(struct redis_server *server, const char *format, ...)
{
	redisContext *redis = redisConnectUnixWithTimeout(server->unix_path, (struct timeval){.tv_sec = 10});
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

static struct redis_server *choose_server(struct checker *checker, uint32_t random)
{
	return &checker->servers[random % checker->server_count];
}

void checker_kill_feeds(struct checker *checker, uint32_t random)
{
	checker_order(choose_server(checker, random), "CLIENT KILL TYPE pubsub");
}

void checker_kill_clients(struct checker *checker, uint32_t random)
{
	checker_order(choose_server(checker, random), "CLIENT KILL TYPE normal");
}

void checker_kill_one_client(struct checker *checker, uint32_t random)
{
	struct redis_server *server = choose_server(checker, random);
	redisContext *redis = redisConnectUnixWithTimeout(server->unix_path, (struct timeval){.tv_sec = 10});
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
		checker_order(server, "CLIENT KILL ID %lu", ids[random / 8 % ids_count]);
}

void checker_sleep_server(struct checker *checker, uint32_t random)
{
	checker_order(choose_server(checker, random), "DEBUG SLEEP 0.%u", (unsigned)(random / 8 % 9 + 1));
}

void checker_pause_server(struct checker *checker, uint32_t random)
{
	struct redis_server *server = choose_server(checker, random);

	redis_server_pause(server);
	e2e_pause_ms(20 + random / 8 % 3000);
	redis_server_resume(server);
}

void checker_forget_scripts(struct checker *checker, uint32_t random)
{
	checker_order(choose_server(checker, random), "SCRIPT FLUSH");
}

void checker_pause_agent(struct checker *checker, uint32_t random)
{
	struct agent_process *agent = &checker->agents[random % CHECKER_HOSTS];

	if (agent_process_kill(agent, SIGSTOP) < 0)
		abort();
	e2e_pause_ms(20 + random / 8 % 4000);
	if (agent_process_kill(agent, SIGCONT) < 0)
		abort();
}

void checker_restart_agent(struct checker *checker, uint32_t random)
{
	struct agent_process *agent = &checker->agents[random % CHECKER_HOSTS];

	if (random / 16 % 2 && agent_process_kill(agent, SIGTERM) < 0)
		abort();
	if (agent_process_restart(agent) < 0)
		abort();
}

/* ---- a run ---------------------------------------------------------------------------------------------------- */

static int start_host(struct checker *checker, size_t host, const char *url, const char *const settings[])
{
	const char *all[24] = {"agent.backend=redis",           url,
			       "redis.command_timeout_ms=1500", "redis.connection_timeout_ms=1000",
			       "redis.retry_max_delay_ms=200",  "agent.shutdown_timeout_seconds=2"};
	size_t n = 6;

	while (*settings && n < COUNT(all) - 1)
		all[n++] = *settings++;
	if (agent_process_start(&checker->agents[host], all) < 0)
		return -1;
	return e2e_await_trust(&checker->agents[host]) ? 0 : -1;
}

int checker_start(struct checker *checker, const char *const urls[CHECKER_HOSTS], const char *const settings[])
{
	void *shared = mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (shared == MAP_FAILED || checker->server_count > CHECKER_SERVERS_MAX)
		return -1;
	checker->counts = shared;
	checker->end = (uint32_t *)((char *)shared + SHARED_BYTES / 2);
	checker->ledger = ledger_create(CHECKER_LEASE_MS);
	if (!checker->ledger)
		return -1;
	for (size_t host = 0; host < CHECKER_HOSTS; host++)
		if (start_host(checker, host, urls[host], settings) < 0)
			return -1;
	return 0;
}

int checker_stop(struct checker *checker)
{
	int status = 0;

	if (checker->end)
		rshm_store_relaxed32(checker->end, 1);
	for (size_t i = 0; i < checker->child_count; i++) {
		int ended = e2e_join(checker->children[i], 30000);

		if (ended != 0)
			fprintf(stderr, "client %zu ended with %d\n", i, ended);
		status |= ended;
	}
	for (size_t host = 0; host < CHECKER_HOSTS; host++)
		if (checker->agents[host].folder[0])
			status |= agent_process_stop_and_clean(&checker->agents[host]);
	ledger_destroy(&checker->ledger);
	if (checker->counts)
		munmap(checker->counts, SHARED_BYTES);
	checker->counts = NULL;
	return status ? -1 : 0;
}

static void start_clients(struct checker *checker, struct role *roles)
{
	for (uint32_t i = 0; i < CHECKER_WRITERS; i++)
		roles[checker->child_count++] = (struct role){.checker = checker, .number = i, .writes = true};
	for (uint32_t i = 0; i < CHECKER_HOSTS * CHECKER_READERS; i++)
		roles[checker->child_count++] =
			(struct role){.checker = checker, .host = i % CHECKER_HOSTS, .number = i};
	for (size_t i = 0; i < checker->child_count; i++)
		checker->children[i] = e2e_fork(roles[i].writes ? writer_main : reader_main, &roles[i]);
}

static void report(const struct checker *checker)
{
	const struct checker_counts *c = checker->counts;

	printf("%llu reads: %llu verified (%llu hot), %llu stale, %llu misses, %llu errors; %llu wrong\n",
	       (unsigned long long)c->reads, (unsigned long long)c->verified, (unsigned long long)c->hot,
	       (unsigned long long)c->stale, (unsigned long long)c->misses, (unsigned long long)c->read_errors,
	       (unsigned long long)c->wrong);
	printf("%llu writes (%llu deletes): %llu unknown, %llu refused; %llu by foreign programs\n",
	       (unsigned long long)c->writes, (unsigned long long)c->deletes, (unsigned long long)c->unknown,
	       (unsigned long long)c->refused, (unsigned long long)c->foreign_writes);
	if (ledger_forgiven_ms(checker->ledger))
		printf("for %llu ms servers failed over, and may have lost what they took\n",
		       (unsigned long long)ledger_forgiven_ms(checker->ledger));
	printf("violations %llu, oldest value read as verified %llu ms after it was replaced (bound %u)\n",
	       (unsigned long long)c->violations, (unsigned long long)c->oldest_ms, CHECKER_LEASE_MS);
	if (!c->violations)
		return;
	printf("last: key %llu, %llu read on host %llu though %llu, by host %llu, was there for %llu ms\n",
	       (unsigned long long)c->last_key, (unsigned long long)c->last_number, (unsigned long long)c->last_host,
	       (unsigned long long)c->last_newer, (unsigned long long)c->last_newer_host,
	       (unsigned long long)c->last_age_ms);
	printf("that returned at %llu ms; the last failover was over at %llu ms\n",
	       (unsigned long long)c->last_newer_ms, (unsigned long long)ledger_forgiven_until_ms(checker->ledger));
}

static size_t choose_fault(const struct checker_fault *faults, size_t fault_count, uint64_t *random)
{
	uint32_t total = 0, at;
	size_t i = 0;

	for (size_t n = 0; n < fault_count; n++)
		total += faults[n].weight;
	at = next_random(random) % total;
	while (at >= faults[i].weight)
		at -= faults[i++].weight;
	return i;
}

static unsigned long setting(const char *name, unsigned long initial)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 10) : initial;
}

int checker_run(struct checker *checker, const struct checker_fault *faults, size_t fault_count,
		unsigned long seconds)
{
	uint64_t until_ms = e2e_now_ms() + 1000 * setting("RIPTIDE_CHECKER_SECONDS", seconds);
	uint64_t random = 0x9e3779b97f4a7c15ull ^ setting("RIPTIDE_CHECKER_SEED", (unsigned long)getpid());
	struct role roles[CHECKER_HOSTS * CHECKER_READERS + CHECKER_WRITERS];
	const struct checker_counts *c = checker->counts;
	uint32_t caused[32] = {0};

	start_clients(checker, roles);
	e2e_pause_ms(1500);
	while (e2e_now_ms() < until_ms && c->violations == 0 && !checker->over) {
		size_t fault = choose_fault(faults, fault_count, &random);

		faults[fault].cause(checker, next_random(&random));
		caused[fault % COUNT(caused)]++;
		e2e_pause_ms(next_random(&random) % 800);
	}
	/* All is well again, and stays so. */
	e2e_pause_ms(1500);
	rshm_store_relaxed32(checker->end, 1);
	for (size_t i = 0; i < fault_count; i++)
		printf("%s%u %s", i ? ", " : "faults: ", (unsigned)caused[i], faults[i].name);
	printf("\n");
	report(checker);
	fflush(stdout);
	return c->violations == 0 && c->wrong == 0 && c->hot > 1000 && c->foreign_writes > 0 ? 0 : -1;
}
