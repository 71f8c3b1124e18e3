/*
 * crowd.c - many client processes at once: misses and write-through sets of 1 KiB.
 *
 * Each client is a process with one handle and one direct connection to the same redis-server. In each round every phase
 * has its slice; ratios are taken within the round. Redis: hot copies live 1 ms and each client walks through keys of its
 * own, so that a get is a miss; reads that shared memory served are not counted as operations.
 */
#include "bench/bench_crowd.h"
#include "bench/bench_row.h"

#define CLIENTS_MAX 16u
#define KEYS_EACH 5000u
#define SIZE 1024u
#define ROUNDS_MAX 16

enum phase {
	GET_OURS = 1,
	GET_DIRECT,
	SET_OURS,
	SET_DIRECT,
};

static struct bench_process *agent;
static bool with_redis;
static unsigned int rounds, slice_ms;

struct client {
	riptide *handle;
	redisContext *redis;
	char value[SIZE], buffer[SIZE];
};

static void *client_begin(uint32_t number)
{
	struct client *c = calloc(1, sizeof(*c));

	bench_need(c != NULL, "memory");
	c->handle = bench_open(agent);
	c->redis = bench_redis_connect();
	bench_value(c->value, SIZE, number);
	return c;
}

/* Returns whether it was the operation that is measured. */
static bool get_ours(struct client *c, const char *key)
{
	struct riptide_info info;
	size_t length;

	bench_ok(riptide_get_into(c->handle, key, BENCH_KEY, c->buffer, SIZE, &length, &info), "riptide_get_into");
	return !(info.flags & RIPTIDE_HOT);
}

static bool set_ours(struct client *c, const char *key)
{
	bench_ok(riptide_set(c->handle, key, BENCH_KEY, c->value, SIZE, NULL, NULL), "riptide_set");
	return true;
}

static bool get_direct(struct client *c, const char *key)
{
	redisReply *reply = redisCommand(c->redis, "GET direct:%b", key, (size_t)BENCH_KEY);

	bench_need(reply && reply->type != REDIS_REPLY_ERROR, "hiredis GET");
	if (reply->type == REDIS_REPLY_STRING && reply->len == SIZE)
		memcpy(c->buffer, reply->str, SIZE);
	freeReplyObject(reply);
	return true;
}

static bool set_direct(struct client *c, const char *key)
{
	redisReply *reply =
		redisCommand(c->redis, "SET direct:%b %b", key, (size_t)BENCH_KEY, c->value, (size_t)SIZE);

	bench_need(reply && reply->type == REDIS_REPLY_STATUS, "hiredis SET");
	freeReplyObject(reply);
	return true;
}

static void client_work(struct bench_crowd *crowd, struct bench_member *member, uint32_t number, uint32_t phase,
			void *own)
{
	static bool (*const operations[])(struct client *, const char *) = {
		[GET_OURS] = get_ours,
		[GET_DIRECT] = get_direct,
		[SET_OURS] = set_ours,
		[SET_DIRECT] = set_direct,
	};
	struct client *c = own;
	uint32_t cursor = 0;

	while (bench_phase(crowd) == phase) {
		char key[BENCH_KEY + 1];
		uint64_t began_ns;

		bench_key(key, number * KEYS_EACH + cursor++ % KEYS_EACH);
		began_ns = bench_now_ns();
		if (!operations[phase](c, key))
			continue;
		bench_note(member, bench_now_ns() - began_ns);
		bench_did(member, 1);
	}
}

static const struct bench_work working = {client_begin, client_work};

struct outcome {
	double rate[ROUNDS_MAX], p50[ROUNDS_MAX], p99[ROUNDS_MAX];
};

static double middle(const double *values)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, values, rounds * sizeof(*values));
	return bench_median(sorted, rounds);
}

static double ratio_of(const double *above, const double *below)
{
	double ratios[ROUNDS_MAX];

	for (unsigned int i = 0; i < rounds; i++)
		ratios[i] = below[i] > 0 ? above[i] / below[i] : 0;
	return bench_median(ratios, rounds);
}

static void run(struct outcome outcomes[], uint32_t clients)
{
	struct bench_crowd *crowd = bench_crowd_start(clients, &working, false);

	/* Keys that were never set would be quick to miss. */
	bench_crowd_rate(crowd, SET_DIRECT, slice_ms);
	for (unsigned int i = 0; i < rounds; i++) {
		for (enum phase phase = GET_OURS; phase <= SET_DIRECT; phase++) {
			if (phase == GET_OURS && !with_redis)
				continue;
			outcomes[phase].rate[i] = bench_crowd_rate(crowd, phase, slice_ms);
			outcomes[phase].p50[i] = bench_crowd_percentile(crowd, 50);
			outcomes[phase].p99[i] = bench_crowd_percentile(crowd, 99);
		}
	}
	bench_crowd_end(crowd);
}

static void show(const char *figure, const struct outcome *ours, const struct outcome *peer, const char *peer_name,
		 struct bench_bound must)
{
	char note[200];

	snprintf(note, sizeof(note), "latency p50 %.0f, p99 %.0f µs; %s p50 %.0f, p99 %.0f µs",
		 middle(ours->p50) / 1e3, middle(ours->p99) / 1e3, peer_name, middle(peer->p50) / 1e3,
		 middle(peer->p99) / 1e3);
	bench_print(&(struct bench_row){figure,
					BENCH_PER_SECOND,
					middle(ours->rate),
					peer_name,
					middle(peer->rate),
					ratio_of(ours->rate, peer->rate),
					must,
					{0},
					note});
}

static void load(uint32_t clients)
{
	riptide *handle = bench_open(agent);

	bench_load(handle, 0, clients * KEYS_EACH, SIZE);
	riptide_close(&handle);
}

static void measure_redis(void)
{
	static struct outcome many[SET_DIRECT + 1];
	char url[160];
	const char *const settings[] = {"agent.backend=redis", url, "coherence.mode=ttl", "coherence.max_age_ms=1",
					NULL};
	static const struct bench_bound twice = BENCH_RATIO_AT_LEAST(2);

	snprintf(url, sizeof(url), "redis.url=unix://%s", bench_world.redis.socket);
	with_redis = true;
	agent = bench_agent_start(settings);
	load(CLIENTS_MAX);
	run(many, CLIENTS_MAX);
	bench_heading("16 clients, Redis on a unix socket");
	show("get 1 KiB that misses, 16 clients", &many[GET_OURS], &many[GET_DIRECT], "hiredis GET", twice);
	show("set 1 KiB, written through, 16 clients", &many[SET_OURS], &many[SET_DIRECT], "hiredis SET", twice);
	bench_agents_stop();
}

static void measure_embedded(void)
{
	static struct outcome one[SET_DIRECT + 1], many[SET_DIRECT + 1];
	static const struct bench_bound none;

	with_redis = false;
	agent = bench_agent_start(NULL);
	run(one, 1);
	run(many, CLIENTS_MAX);
	bench_heading("Write-through into the embedded store (sync = interval)");
	show("set 1 KiB, 1 client", &one[SET_OURS], &one[SET_DIRECT], "hiredis SET", none);
	show("set 1 KiB, 16 clients", &many[SET_OURS], &many[SET_DIRECT], "hiredis SET", none);
	bench_agents_stop();
}

int main(void)
{
	bench_world_begin();
	rounds = bench_is_full() ? 9 : 3;
	slice_ms = bench_is_full() ? 1000 : 400;
	bench_redis_start();
	measure_redis();
	measure_embedded();
	return 0;
}
