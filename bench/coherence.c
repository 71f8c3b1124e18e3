/*
 * coherence.c - two agents, as of two hosts, on one redis-server: how soon the one knows what the other wrote, what that
 * costs, and how long trust takes to come back.
 *
 * For each mode that tells of changes there are four agents on the server: a pair A and B of that mode; one of mode ttl, which
 * is told of nothing, and one of the mode that nobody else listens to, both under other key prefixes.
 *
 *   delay     a client of A sets a key that is hot on B; a process polls it through B, alone on the last CPU where there are
 *             several, all else kept off it. Blocks of that alternate with blocks of plain PUBLISH and SUBSCRIBE
 *   writes    processes with a handle to each A and a connection to the server; each round has a slice of each contender
 *   reads     two processes read Zipf-distributed through B, while a third rewrites a tenth of the keys each second: through
 *             A, through an agent of which B is told nothing (control), not at all
 *   restart   B stops and begins again with all keys hot; its lease is watched in shared memory and a hundredth of the keys is
 *             read until none of them is marked stale
 *
 * Ratios are taken within a round or between neighbouring blocks; the table shows medians.
 */
#include "bench/bench_crowd.h"
#include "bench/bench_row.h"
#include "client-lib/control.h"
#include "shm/order.h"
#include "shm/tlv.h"
#include "shm/os/map.h"

#define PATIENCE_NS (20ull * 1000000000)
#define TTL_AGE_MS 20 /* of copies in mode ttl; the others outlive the run */
#define VALUE 64u
#define WRITTEN 1024u
#define KEYS_EACH 1000u
#define CLIENTS_MAX 8u
#define KEYS 100000u
#define ORDER (1u << 20)
#define SKEW 0.99
#define BATCH 64u
#define NOTED 8u /* one batch in so many is noted */
#define REWRITTEN (KEYS / 10)
#define REWRITE_BATCH 100u
#define READERS 2u
#define ROUNDS_MAX 16
#define REVALIDATION_PIPELINE 128u

struct pair {
	const char *mode, *prefix;
	struct bench_process *a, *b;
};

/* Nothing is promised of any of these figures. */
static void show(const char *figure, enum bench_unit unit, double ours, const char *peer_name, double peer,
		 double ratio, const char *note)
{
	bench_print(&(struct bench_row){
		.figure = figure,
		.unit = unit,
		.ours = ours,
		.peer_name = peer_name,
		.peer = peer,
		.ratio = ratio,
		.note = note,
	});
}

/* ---- agents --------------------------------------------------------------------------------------------------- */

static json_t *status_of(const struct bench_process *agent)
{
	unsigned char message[64], *answer = NULL;
	char trouble[RT_CONTROL_TEXT] = "";
	struct rshm_control_header header;
	struct rshm_tlv_writer writer;
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;
	json_t *status = NULL;
	size_t length;

	rshm_tlv_begin(&writer, message, sizeof(message), RSHM_CONTROL_STATUS, 0, 1);
	length = (size_t)rshm_tlv_finish(&writer);
	bench_ok(
		rt_control_ask(agent->socket, message, length, rshm_now_ms() + 5000, &answer, &length, NULL, trouble),
		"asking an agent for its status");
	if (rshm_tlv_open(&reader, answer, length, &header) == RSHM_OK && header.status == RSHM_OK)
		while (rshm_tlv_next(&reader, &tlv) > 0)
			if (tlv.tag == RSHM_TAG_JSON)
				status = json_loadb((const char *)tlv.value, tlv.length, 0, NULL);
	free(answer);
	bench_need(status != NULL, "an agent's status");
	return status;
}

struct trust {
	bool leased, verified;
	uint64_t confirmed, removed;
};

static struct trust trust_of(const struct bench_process *agent, const char *mode)
{
	json_t *status = status_of(agent), *worker;
	const json_t *coherence = json_object_get(status, "coherence");
	const char *name = json_string_value(json_object_get(coherence, "mode"));
	struct trust trust = {.leased = json_integer_value(json_object_get(coherence, "lease_remaining_ms")) > 0 &&
					name && strcmp(name, mode) == 0,
			      .verified = json_is_false(json_object_get(coherence, "revalidating"))};
	size_t i;

	json_array_foreach(json_object_get(status, "workers"), i, worker)
	{
		trust.confirmed += (uint64_t)json_integer_value(json_object_get(worker, "revalidated"));
		trust.removed += (uint64_t)json_integer_value(json_object_get(worker, "revalidation_removed"));
	}
	json_decref(status);
	return trust;
}

static void start_agent(const struct pair *pair, struct bench_process **ret, bool again)
{
	char url[160], mode[60], age[60], prefix[60];
	const char *const settings[] = {"agent.backend=redis",
					url,
					mode,
					age,
					prefix,
					"cache.max_memory_bytes=512M",
					"cache.segment_initial_bytes=32M",
					"agent.keep_on_stop=true",
					NULL};

	snprintf(url, sizeof(url), "redis.url=unix://%s", bench_world.redis.socket);
	snprintf(mode, sizeof(mode), "coherence.mode=%s", pair->mode);
	snprintf(age, sizeof(age), "coherence.max_age_ms=%d", strcmp(pair->mode, "ttl") == 0 ? TTL_AGE_MS : 3600000);
	snprintf(prefix, sizeof(prefix), "cache.key_prefix=%s", pair->prefix);
	if (again)
		bench_agent_launch(*ret, settings);
	else
		*ret = bench_agent_start(settings);
}

static void await_trust(const struct bench_process *agent, const char *mode)
{
	uint64_t until_ns = bench_now_ns() + PATIENCE_NS;

	while (!trust_of(agent, mode).leased) {
		errno = 0;
		bench_need(bench_now_ns() < until_ns, "waiting for the agent's mode and lease");
		bench_pause_us(10000);
	}
}

static void start_pair(struct pair *pair, const char *mode, const char *prefix)
{
	*pair = (struct pair){.mode = mode, .prefix = prefix};
	start_agent(pair, &pair->a, false);
	start_agent(pair, &pair->b, false);
	await_trust(pair->a, mode);
	await_trust(pair->b, mode);
}

/* This process, those it will start, the server and the agents. */
static void place_all(int cpu)
{
	bench_pin(cpu);
	bench_pin_process(bench_world.redis.pid, cpu);
	for (unsigned int i = 0; i < bench_world.agent_count; i++)
		bench_pin_process(bench_world.agents[i].pid, cpu);
}

/* ---- delay ---------------------------------------------------------------------------------------------------- */

#define DELAY_ROUNDS_MAX 2000u
#define DELAY_BLOCK_MAX 100u
#define DELAY_KEY "delay"

/* What the parent and one other process share. Numbers of rounds; each is written by one of the two. */
struct watch {
	_Alignas(128) uint32_t wanted; /* the parent's */
	_Alignas(128) uint32_t ready, seen;
	uint64_t last_old_ns; /* when the last read that gave the old value began */
	uint64_t new_ns, message_ns;
};

static void await_number(const uint32_t *word, uint32_t number, pid_t child, const char *what)
{
	uint64_t until_ns = bench_now_ns() + PATIENCE_NS;

	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != number) {
		errno = 0;
		bench_need(bench_now_ns() < until_ns && (child == 0 || waitpid(child, NULL, WNOHANG) == 0), what);
		bench_pause_us(20);
	}
}

static void set_number(riptide *handle, uint32_t number)
{
	char value[VALUE] = "";

	memcpy(value, &number, sizeof(number));
	bench_ok(riptide_set(handle, DELAY_KEY, sizeof(DELAY_KEY) - 1, value, VALUE, NULL, NULL), "riptide_set");
}

#define NO_NUMBER UINT32_MAX

/* The number that B has, NO_NUMBER if it has none; `ret_hot`: verified, from shared memory. */
static uint32_t get_number(riptide *handle, bool *ret_hot)
{
	struct riptide_info info = {.flags = 0};
	uint32_t number = NO_NUMBER;
	char value[VALUE];
	size_t length = 0;
	int status = riptide_get_into(handle, DELAY_KEY, sizeof(DELAY_KEY) - 1, value, VALUE, &length, &info);

	bench_ok(status, "riptide_get_into");
	if (status == RIPTIDE_OK)
		memcpy(&number, value, sizeof(number));
	*ret_hot = status == RIPTIDE_OK && (info.flags & (RIPTIDE_HOT | RIPTIDE_STALE)) == RIPTIDE_HOT;
	return number;
}

/* The process on B: makes the key hot, then reads it without a pause until it is the new one. */
static void poll_rounds(struct watch *watch, const struct bench_process *agent)
{
	riptide *handle = bench_open(agent);

	for (uint32_t round = 1;; round++) {
		uint64_t last_old_ns = 0, now_ns;
		bool hot = false;

		while (__atomic_load_n(&watch->wanted, __ATOMIC_ACQUIRE) != round)
			bench_pause_us(50);
		while (get_number(handle, &hot) != round - 1 || !hot)
			bench_pause_us(20);
		__atomic_store_n(&watch->ready, round, __ATOMIC_RELEASE);
		for (;;) {
			uint64_t began_ns = bench_now_ns();
			uint32_t number = get_number(handle, &hot);

			if (number == round)
				break;
			if (number != round - 1 && number != NO_NUMBER)
				bench_die("reading on B", "neither the old value nor the new one");
			if (number != NO_NUMBER)
				last_old_ns = began_ns;
		}
		now_ns = bench_now_ns();
		watch->last_old_ns = last_old_ns;
		watch->new_ns = now_ns;
		__atomic_store_n(&watch->seen, round, __ATOMIC_RELEASE);
	}
}

static void subscribe_rounds(struct watch *watch)
{
	redisContext *redis = bench_redis_connect();
	redisReply *reply = redisCommand(redis, "SUBSCRIBE bench");

	bench_need(reply && reply->type == REDIS_REPLY_ARRAY, "SUBSCRIBE");
	freeReplyObject(reply);
	__atomic_store_n(&watch->ready, 1, __ATOMIC_RELEASE);
	for (uint32_t round = 1;; round++) {
		bench_need(redisGetReply(redis, (void **)&reply) == REDIS_OK, "a message");
		watch->message_ns = bench_now_ns();
		freeReplyObject(reply);
		__atomic_store_n(&watch->seen, round, __ATOMIC_RELEASE);
	}
}

struct delay {
	struct watch *ours, *plain;
	pid_t poller, subscriber;
	riptide *on_a;
	redisContext *redis;
	uint64_t random;
	uint32_t round, pause_us; /* the set comes up to so much later than all is ready */
	size_t count, block_count;
	/* From the beginning of the set or the PUBLISH; `after`: since the set returned. */
	double new_ns[DELAY_ROUNDS_MAX], old_ns[DELAY_ROUNDS_MAX], after_ns[DELAY_ROUNDS_MAX],
		plain_ns[DELAY_ROUNDS_MAX];
	double new_ratio[DELAY_ROUNDS_MAX], old_ratio[DELAY_ROUNDS_MAX]; /* of blocks */
};

static double since(uint64_t at_ns, uint64_t began_ns)
{
	return at_ns > began_ns ? (double)(at_ns - began_ns) : 0;
}

static void one_set(struct delay *d)
{
	uint32_t round = ++d->round;
	uint64_t began_ns, ended_ns;

	__atomic_store_n(&d->ours->wanted, round, __ATOMIC_RELEASE);
	await_number(&d->ours->ready, round, d->poller, "waiting for a hot copy");
	bench_pause_us(50 + bench_random(&d->random) % d->pause_us);
	began_ns = bench_now_ns();
	set_number(d->on_a, round);
	ended_ns = bench_now_ns();
	await_number(&d->ours->seen, round, d->poller, "waiting for the new value");
	d->new_ns[d->count] = since(d->ours->new_ns, began_ns);
	d->old_ns[d->count] = since(d->ours->last_old_ns, began_ns);
	d->after_ns[d->count] = since(d->ours->last_old_ns, ended_ns);
}

static double one_message(struct delay *d, uint32_t round)
{
	uint64_t began_ns;
	redisReply *reply;

	bench_pause_us(50 + bench_random(&d->random) % 200);
	began_ns = bench_now_ns();
	reply = redisCommand(d->redis, "PUBLISH bench %u", round);
	bench_need(reply && reply->type == REDIS_REPLY_INTEGER && reply->integer == 1, "PUBLISH");
	freeReplyObject(reply);
	await_number(&d->plain->seen, round, d->subscriber, "waiting for a message");
	return since(d->plain->message_ns, began_ns);
}

static double percentile_of(const double *values, size_t count, double percent)
{
	double sorted[DELAY_ROUNDS_MAX];

	memcpy(sorted, values, count * sizeof(*values));
	return bench_percentile(sorted, count, percent);
}

static void delay_block(struct delay *d, size_t length)
{
	size_t first = d->count;
	double plain;

	for (size_t i = 0; i < length; i++, d->count++)
		one_set(d);
	for (size_t i = first; i < d->count; i++)
		d->plain_ns[i] = one_message(d, (uint32_t)i + 1);
	plain = percentile_of(d->plain_ns + first, length, 50);
	d->new_ratio[d->block_count] = percentile_of(d->new_ns + first, length, 50) / plain;
	d->old_ratio[d->block_count++] = percentile_of(d->old_ns + first, length, 50) / plain;
}

static void delay_begin(struct delay *d, const struct pair *pair)
{
	struct watch *shared =
		mmap(NULL, 2 * sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	bench_need(shared != MAP_FAILED, "memory");
	*d = (struct delay){.ours = &shared[0], .plain = &shared[1], .random = 1};
	d->on_a = bench_open(pair->a);
	d->redis = bench_redis_connect();
	set_number(d->on_a, 0);
	d->poller = bench_fork();
	if (d->poller == 0) {
		bench_pin(bench_timed_cpu());
		poll_rounds(d->ours, pair->b);
	}
	d->subscriber = bench_fork();
	if (d->subscriber == 0)
		subscribe_rounds(d->plain);
	await_number(&d->plain->ready, 1, d->subscriber, "SUBSCRIBE");
}

static void delay_end(struct delay *d)
{
	pid_t children[] = {d->poller, d->subscriber};

	for (int i = 0; i < 2; i++) {
		kill(children[i], SIGKILL);
		waitpid(children[i], NULL, 0);
	}
	munmap(d->ours, 2 * sizeof(*d->ours));
	riptide_close(&d->on_a);
	redisFree(d->redis);
}

static void delay_row(const char *figure, const struct delay *d, const double *ours, const double *ratios,
		      const char *add)
{
	char note[300];

	snprintf(note, sizeof(note), "p99 %.0f, max %.0f µs; pub/sub p99 %.0f, max %.0f µs; %zu rounds%s",
		 percentile_of(ours, d->count, 99) / 1e3, percentile_of(ours, d->count, 100) / 1e3,
		 percentile_of(d->plain_ns, d->count, 99) / 1e3, percentile_of(d->plain_ns, d->count, 100) / 1e3,
		 d->count, add);
	show(figure, BENCH_NS, percentile_of(ours, d->count, 50), "pub/sub message",
	     percentile_of(d->plain_ns, d->count, 50), percentile_of(ratios, d->block_count, 50), note);
}

static void measure_delay(const struct pair *pair)
{
	static struct delay d;
	bool is_ttl = strcmp(pair->mode, "ttl") == 0;
	size_t rounds = is_ttl ? 100 : DELAY_ROUNDS_MAX, block = is_ttl ? 10 : DELAY_BLOCK_MAX, after = 0;
	char figure[80], note[160], add[80] = "";

	place_all(-1 - bench_timed_cpu());
	delay_begin(&d, pair);
	d.pause_us = is_ttl ? TTL_AGE_MS * 1000 : 200;
	while (d.count < rounds)
		delay_block(&d, block);
	delay_end(&d);
	place_all(INT_MIN);
	if (is_ttl)
		snprintf(add, sizeof(add), "; max_age_ms=%d bounds it", TTL_AGE_MS);
	snprintf(figure, sizeof(figure), "%s: set on A, new value read on B, p50", pair->mode);
	delay_row(figure, &d, d.new_ns, d.new_ratio, add);
	delay_row("  old value read for the last time, p50", &d, d.old_ns, d.old_ratio, add);
	for (size_t i = 0; i < d.count; i++)
		after += d.after_ns[i] > 0;
	snprintf(note, sizeof(note), "in %.1f %% of the rounds at all; p99 %.0f, max %.0f µs",
		 100.0 * (double)after / (double)d.count, percentile_of(d.after_ns, d.count, 99) / 1e3,
		 percentile_of(d.after_ns, d.count, 100) / 1e3);
	show("  old value read after the set returned, p50", BENCH_NS, percentile_of(d.after_ns, d.count, 50), NULL,
	     0, 0, note);
}

/* ---- writes --------------------------------------------------------------------------------------------------- */

enum write_phase {
	SET_TOLD = 1,
	SET_ALONE,
	SET_TTL,
	SET_DIRECT,
	WRITE_PHASES,
};

static struct pair told, ttl, alone; /* `alone` is an A without a B */

struct client {
	riptide *handles[SET_DIRECT];
	redisContext *redis;
	char value[WRITTEN];
};

static void *client_begin(uint32_t number)
{
	struct client *c = calloc(1, sizeof(*c));

	bench_need(c != NULL, "memory");
	c->handles[SET_TOLD] = bench_open(told.a);
	c->handles[SET_ALONE] = bench_open(alone.a);
	c->handles[SET_TTL] = bench_open(ttl.a);
	c->redis = bench_redis_connect();
	bench_value(c->value, WRITTEN, number);
	return c;
}

static void set_direct(struct client *c, const char *key)
{
	redisReply *reply =
		redisCommand(c->redis, "SET direct:%b %b", key, (size_t)BENCH_KEY, c->value, (size_t)WRITTEN);

	bench_need(reply && reply->type == REDIS_REPLY_STATUS, "hiredis SET");
	freeReplyObject(reply);
}

static void client_work(struct bench_crowd *crowd, struct bench_member *member, uint32_t number, uint32_t phase,
			void *own)
{
	struct client *c = own;
	uint32_t cursor = 0;

	while (bench_phase(crowd) == phase) {
		char key[BENCH_KEY + 1];
		uint64_t began_ns;

		bench_key(key, KEYS + number * KEYS_EACH + cursor++ % KEYS_EACH);
		began_ns = bench_now_ns();
		if (phase == SET_DIRECT)
			set_direct(c, key);
		else
			bench_ok(riptide_set(c->handles[phase], key, BENCH_KEY, c->value, WRITTEN, NULL, NULL),
				 "riptide_set");
		bench_note(member, bench_now_ns() - began_ns);
		bench_did(member, 1);
	}
}

struct outcome {
	double rate[ROUNDS_MAX], p50[ROUNDS_MAX], p99[ROUNDS_MAX], share[ROUNDS_MAX];
};

static unsigned int rounds, slice_ms;

static double ratio_of(const double *above, const double *below)
{
	double ratios[ROUNDS_MAX];

	for (unsigned int i = 0; i < rounds; i++)
		ratios[i] = below[i] > 0 ? above[i] / below[i] : 0;
	return bench_median(ratios, rounds);
}

static void take(struct outcome *outcome, unsigned int round, struct bench_crowd *crowd, uint32_t phase)
{
	outcome->rate[round] = bench_crowd_rate(crowd, phase, slice_ms);
	outcome->p50[round] = bench_crowd_percentile(crowd, 50);
	outcome->p99[round] = bench_crowd_percentile(crowd, 99);
}

static void write_row(const char *figure, const struct outcome *ours, const struct outcome *peer,
		      const char *peer_name)
{
	char note[200];

	snprintf(note, sizeof(note), "latency p50 %.0f, p99 %.0f µs; %s p50 %.0f, p99 %.0f µs",
		 percentile_of(ours->p50, rounds, 50) / 1e3, percentile_of(ours->p99, rounds, 50) / 1e3, peer_name,
		 percentile_of(peer->p50, rounds, 50) / 1e3, percentile_of(peer->p99, rounds, 50) / 1e3);
	show(figure, BENCH_PER_SECOND, percentile_of(ours->rate, rounds, 50), peer_name,
	     percentile_of(peer->rate, rounds, 50), ratio_of(ours->rate, peer->rate), note);
}

static void measure_writes(uint32_t clients)
{
	static const struct bench_work writing = {client_begin, client_work};
	static struct outcome outcomes[WRITE_PHASES];
	struct bench_crowd *crowd = bench_crowd_start(clients, &writing, false);
	char figure[80];

	for (uint32_t phase = SET_TOLD; phase < WRITE_PHASES; phase++)
		bench_crowd_rate(crowd, phase, 50);
	for (unsigned int round = 0; round < rounds; round++) {
		for (uint32_t phase = SET_TOLD; phase < WRITE_PHASES; phase++)
			take(&outcomes[phase], round, crowd, phase);
	}
	bench_crowd_end(crowd);
	snprintf(figure, sizeof(figure), "%s: set 1 KiB, %u client%s", told.mode, clients, clients == 1 ? "" : "s");
	write_row(figure, &outcomes[SET_TOLD], &outcomes[SET_TTL], "mode ttl");
	write_row("  without B", &outcomes[SET_ALONE], &outcomes[SET_TTL], "mode ttl");
	write_row("  beside hiredis", &outcomes[SET_TOLD], &outcomes[SET_DIRECT], "hiredis SET");
	write_row("  mode ttl beside hiredis", &outcomes[SET_TTL], &outcomes[SET_DIRECT], "hiredis SET");
}

/* ---- restart -------------------------------------------------------------------------------------------------- */

/* Heads of all keys as a plain client would read them, pipelined; per second. */
static double plain_heads(void)
{
	redisContext *redis = bench_redis_connect();
	uint64_t began_ns = bench_now_ns();
	redisReply *reply;

	for (uint32_t i = 0; i < KEYS; i += REVALIDATION_PIPELINE) {
		uint32_t some = KEYS - i < REVALIDATION_PIPELINE ? KEYS - i : REVALIDATION_PIPELINE;

		for (uint32_t n = 0; n < some; n++) {
			char key[BENCH_KEY + 1];

			bench_key(key, i + n);
			redisAppendCommand(redis, "GETRANGE %s:v1:{default.0}:1:c:%s 0 71", told.prefix, key);
		}
		for (uint32_t n = 0; n < some; n++) {
			bench_need(redisGetReply(redis, (void **)&reply) == REDIS_OK &&
					   reply->type == REDIS_REPLY_STRING && reply->len == 72,
				   "GETRANGE");
			freeReplyObject(reply);
		}
	}
	redisFree(redis);
	return KEYS * 1e9 / (double)(bench_now_ns() - began_ns);
}

/* The freshness of all that B has from the server, where readers look at it. */
static const struct rshm_source *map_source(const struct bench_process *agent)
{
	const struct rshm_agent *object = MAP_FAILED;
	char prefix[48], name[300];
	DIR *folder = opendir("/dev/shm");

	snprintf(prefix, sizeof(prefix), "riptide.%s.", agent->instance);
	for (struct dirent *entry; folder && object == MAP_FAILED && (entry = readdir(folder));) {
		int fd;

		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		snprintf(name, sizeof(name), "/%s", entry->d_name);
		fd = shm_open(name, O_RDONLY | O_CLOEXEC, 0);
		bench_need(fd >= 0, name);
		object = mmap(NULL, sizeof(*object), PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (object != MAP_FAILED && object->header.magic != RSHM_AGENT_MAGIC) {
			munmap((void *)object, sizeof(*object));
			object = MAP_FAILED;
		}
	}
	if (folder)
		closedir(folder);
	bench_need(object != MAP_FAILED, "finding the agent's object in shared memory");
	return object->sources;
}

static bool is_verified(riptide *handle, uint32_t number)
{
	struct riptide_info info = {.flags = 0};
	char key[BENCH_KEY + 1], value[VALUE];
	size_t length;

	bench_key(key, number);
	bench_ok(riptide_get_into(handle, key, BENCH_KEY, value, VALUE, &length, &info), "riptide_get_into");
	return (info.flags & (RIPTIDE_HOT | RIPTIDE_STALE)) == RIPTIDE_HOT;
}

static double verified_percent(const struct bench_process *agent)
{
	riptide *handle = bench_open(agent);
	uint32_t verified = 0;

	for (uint32_t i = 0; i < KEYS; i++)
		verified += is_verified(handle, i);
	riptide_close(&handle);
	return 100.0 * verified / KEYS;
}

struct restart {
	double up_ns, lease_ns, verified_ns; /* since the agent was begun */
	double rate, heads;
	uint64_t count; /* entries that its pass looked at */
};

/*
 * The lease counts when the new agent has extended it by a proof of its own; it may well find one that is still running. Which
 * entries are verified is seen by reading every hundredth key, in the order in which the pass walks: a copy that is not gets
 * the mark of a stale one, and the agent does not hear of it.
 */
static void await_verified(struct restart *r, uint64_t began_ns, const struct rshm_source *source, uint64_t lease_ms)
{
	riptide *handle = bench_open(told.b);

	for (uint32_t next = 0; r->lease_ns == 0 || r->verified_ns == 0;) {
		double passed_ns;

		while (next < KEYS && is_verified(handle, next))
			next += 100;
		passed_ns = since(bench_now_ns(), began_ns);
		if (r->verified_ns == 0 && next >= KEYS)
			r->verified_ns = passed_ns;
		if (r->lease_ns == 0 && __atomic_load_n(&source->lease_until_ms, __ATOMIC_ACQUIRE) > lease_ms)
			r->lease_ns = passed_ns;
		errno = 0;
		bench_need(passed_ns < (double)PATIENCE_NS, "waiting for trust after a restart");
		bench_pause_us(500);
	}
	riptide_close(&handle);
}

static struct restart restart_once(void)
{
	const struct rshm_source *source = map_source(told.b);
	struct restart r = {0};
	uint64_t began_ns, lease_ms;
	struct trust trust;

	bench_stop(told.b);
	lease_ms = __atomic_load_n(&source->lease_until_ms, __ATOMIC_ACQUIRE);
	began_ns = bench_now_ns();
	start_agent(&told, &told.b, true);
	r.up_ns = since(bench_now_ns(), began_ns);
	await_verified(&r, began_ns, source, lease_ms);
	munmap((char *)source - offsetof(struct rshm_agent, sources), sizeof(struct rshm_agent));
	/* The figures of a status are up to 250 ms old. */
	do {
		bench_pause_us(50000);
		trust = trust_of(told.b, told.mode);
		bench_need(since(bench_now_ns(), began_ns) < (double)PATIENCE_NS, "the status after a restart");
	} while (!trust.verified);
	r.count = trust.confirmed + trust.removed;
	r.rate = (double)r.count * 1e9 / (r.verified_ns - r.up_ns);
	r.heads = plain_heads();
	return r;
}

static void measure_restart(void)
{
	double up[ROUNDS_MAX], lease[ROUNDS_MAX], verified[ROUNDS_MAX], rate[ROUNDS_MAX], heads[ROUNDS_MAX];
	double hot_before = verified_percent(told.b);
	struct restart r = {0};
	char note[200];

	for (unsigned int i = 0; i < rounds; i++) {
		r = restart_once();
		up[i] = r.up_ns;
		lease[i] = r.lease_ns;
		verified[i] = r.verified_ns;
		rate[i] = r.rate;
		heads[i] = r.heads;
	}
	snprintf(note, sizeof(note), "the first of its own proofs; %.1f ms until a client could attach; %u restarts",
		 bench_median(up, rounds) / 1e6, rounds);
	show("restart, until the lease is there", BENCH_NS, bench_median(lease, rounds), NULL, 0, 0, note);
	snprintf(note, sizeof(note), "%llu entries; hot and verified: %.1f %% of the keys before, %.1f %% after",
		 (unsigned long long)r.count, hot_before, verified_percent(told.b));
	show("restart, until all is verified", BENCH_NS, bench_median(verified, rounds), NULL, 0, 0, note);
	show("  entries verified, since clients can attach", BENCH_PER_SECOND, percentile_of(rate, rounds, 50),
	     "hiredis GETRANGE x 128", percentile_of(heads, rounds, 50), ratio_of(rate, heads), NULL);
}

/* ---- reads ---------------------------------------------------------------------------------------------------- */

enum read_phase {
	READ_QUIET = 1,
	READ_TOLD,
	READ_UNTOLD,
	READ_PHASES,
};

/* Of one member, for the parent to read. */
struct tally {
	_Alignas(128) uint64_t reads, hot, written;
};

static struct tally *tallies;
static uint32_t *order;

struct reader {
	riptide *on_b, *rewriters[READ_PHASES];
	uint32_t cursor;
};

static void *reader_begin(uint32_t number)
{
	struct reader *r = calloc(1, sizeof(*r));

	bench_need(r != NULL, "memory");
	r->on_b = bench_open(told.b);
	r->rewriters[READ_TOLD] = bench_open(told.a);
	r->rewriters[READ_UNTOLD] = bench_open(ttl.a);
	r->cursor = number * (ORDER / 3);
	return r;
}

static void rewrite(struct reader *r, struct tally *tally, riptide *to)
{
	struct riptide_item items[REWRITE_BATCH] = {0};
	char keys[REWRITE_BATCH][BENCH_KEY + 1], value[VALUE];

	bench_value(value, VALUE, r->cursor);
	for (uint32_t i = 0; i < REWRITE_BATCH; i++) {
		bench_key(keys[i], r->cursor++ % KEYS);
		items[i].key = keys[i];
		items[i].key_length = BENCH_KEY;
		items[i].value = value;
		items[i].value_length = VALUE;
	}
	bench_ok(riptide_set_batch(to, items, REWRITE_BATCH), "riptide_set_batch");
	for (uint32_t i = 0; i < REWRITE_BATCH; i++)
		bench_ok(items[i].status, "setting an item");
	tally->written += REWRITE_BATCH;
}

static void rewriter_work(struct bench_crowd *crowd, struct reader *r, struct tally *tally, uint32_t phase)
{
	const uint64_t period_ns = 1000000000ull * REWRITE_BATCH / REWRITTEN;
	uint64_t due_ns = bench_now_ns();

	while (bench_phase(crowd) == phase) {
		uint64_t now_ns = bench_now_ns();

		if (now_ns < due_ns || !r->rewriters[phase]) {
			bench_pause_us(1000);
			continue;
		}
		rewrite(r, tally, r->rewriters[phase]);
		/* One that cannot keep up does not make up for it in a burst. */
		due_ns = due_ns + 4 * period_ns < now_ns ? now_ns : due_ns + period_ns;
	}
}

static void reader_work(struct bench_crowd *crowd, struct bench_member *member, uint32_t number, uint32_t phase,
			void *own)
{
	struct tally *tally = &tallies[number];
	struct reader *r = own;

	*tally = (struct tally){0};
	if (number == READERS) {
		rewriter_work(crowd, r, tally, phase);
		return;
	}
	for (uint32_t batch = 0; bench_phase(crowd) == phase; batch++) {
		uint64_t began = bench_tick();
		uint32_t hot = 0;

		for (uint32_t i = 0; i < BATCH; i++) {
			struct riptide_info info = {.flags = 0};
			char key[BENCH_KEY + 1], value[VALUE];
			size_t length;

			memcpy(key, "doc:00000000", sizeof(key));
			for (uint32_t n = order[r->cursor++ % ORDER], at = BENCH_KEY - 1; n; n /= 10)
				key[at--] = (char)('0' + n % 10);
			bench_ok(riptide_get_into(r->on_b, key, BENCH_KEY, value, VALUE, &length, &info),
				 "riptide_get_into");
			hot += (info.flags & (RIPTIDE_HOT | RIPTIDE_STALE)) == RIPTIDE_HOT;
		}
		if (batch % NOTED == 0)
			bench_note(member, (uint64_t)(bench_span_ns(began, bench_tick()) / BATCH));
		tally->reads += BATCH;
		tally->hot += hot;
		bench_did(member, hot);
	}
}

static void read_row(const char *figure, const struct outcome *ours, const struct outcome *quiet,
		     const char *peer_name, double written)
{
	char note[200];

	snprintf(note, sizeof(note),
		 "%.3f %% hot; mean of 64 reads p50 %.0f, p99 %.0f ns; rewritten %.1f %% of the keys a second",
		 percentile_of(ours->share, rounds, 50), percentile_of(ours->p50, rounds, 50),
		 percentile_of(ours->p99, rounds, 50), written);
	show(figure, BENCH_PER_SECOND, percentile_of(ours->rate, rounds, 50), peer_name,
	     percentile_of(quiet->rate, rounds, 50), ratio_of(ours->rate, quiet->rate), note);
}

static void measure_reads(void)
{
	static const struct bench_work reading = {reader_begin, reader_work};
	static struct outcome outcomes[READ_PHASES];
	double written[READ_PHASES] = {0};
	struct bench_crowd *crowd;

	order = bench_zipf(KEYS, SKEW, ORDER, 7);
	tallies = mmap(NULL, (READERS + 1) * sizeof(*tallies), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		       0);
	bench_need(order && tallies != MAP_FAILED, "memory");
	crowd = bench_crowd_start(READERS + 1, &reading, false);
	for (unsigned int round = 0; round < rounds; round++) {
		for (uint32_t phase = READ_QUIET; phase < READ_PHASES; phase++) {
			uint64_t began_ns = bench_now_ns(), reads = 0, hot = 0;

			take(&outcomes[phase], round, crowd, phase);
			for (uint32_t i = 0; i < READERS; i++)
				reads += tallies[i].reads, hot += tallies[i].hot;
			outcomes[phase].share[round] = 100.0 * (double)hot / (double)(reads ? reads : 1);
			written[phase] += 100.0 * 1e9 * (double)tallies[READERS].written / KEYS / rounds /
					  (double)(bench_now_ns() - began_ns);
		}
	}
	bench_crowd_end(crowd);
	munmap(tallies, (READERS + 1) * sizeof(*tallies));
	free(order);
	read_row("two readers on B, A rewrites", &outcomes[READ_TOLD], &outcomes[READ_QUIET], "without",
		 written[READ_TOLD]);
	read_row("  control: rewrites of which B is not told", &outcomes[READ_UNTOLD], &outcomes[READ_QUIET],
		 "without", written[READ_UNTOLD]);
	read_row("  without, beside that control", &outcomes[READ_QUIET], &outcomes[READ_UNTOLD], "of which not told",
		 0);
	read_row("  told, beside that control", &outcomes[READ_TOLD], &outcomes[READ_UNTOLD], "of which not told",
		 written[READ_TOLD]);
}

/* ---- all ------------------------------------------------------------------------------------------------------ */

/* All that B of the pair without news was there for is done; its place is taken by an agent of `mode` that has no other. */
static void start_alone(const char *mode)
{
	alone = (struct pair){.mode = mode, .prefix = "alone", .a = ttl.b};
	bench_stop(alone.a);
	bench_remove_objects(alone.a->instance);
	start_agent(&alone, &alone.a, true);
	await_trust(alone.a, mode);
}

static void measure_tracking(void)
{
	riptide *loader;

	bench_heading("Coherence by tracking: agents A and B on one redis-server");
	start_pair(&told, "tracking", "told");
	start_pair(&ttl, "ttl", "aside");
	measure_delay(&told);
	measure_delay(&ttl);
	start_alone("tracking");
	measure_writes(1);
	measure_writes(CLIENTS_MAX);
	loader = bench_open(told.b);
	bench_load(loader, 0, KEYS, VALUE);
	riptide_close(&loader);
	bench_heading("Coherence by tracking: 100,000 keys of 64 B, hot on B");
	measure_restart();
	measure_reads();
	bench_agents_stop();
}

static void measure_channel(void)
{
	bench_heading("Coherence by channel: agents A and B on one redis-server");
	start_pair(&told, "channel", "told-2");
	start_pair(&ttl, "ttl", "aside-2");
	measure_delay(&told);
	start_alone("channel");
	measure_writes(1);
	measure_writes(CLIENTS_MAX);
	bench_agents_stop();
}

int main(void)
{
	bench_world_begin();
	rounds = bench_is_full() ? 9 : 7;
	slice_ms = bench_is_full() ? 1000 : 100;
	bench_redis_start();
	measure_tracking();
	measure_channel();
	return 0;
}
