/*
 * seed.c - the tables of the original's README ("Benchmark Results", "Concurrent Access Performance"), with ours beside.
 *
 * The original is a Rust crate in front of Redis. Its figures were published without a generator and come from another
 * machine: they stand in the note of each row for orientation, and no ratio is taken from them. Ours and direct hiredis are measured here, in
 * one run, against one redis-server on a unix socket. Values are random bytes, so compression wins nothing for us.
 */
#include "bench/bench_crowd.h"
#include "bench/bench_row.h"

#define KEYS 1000u
#define BATCH 10u
#define SIZE_MAX_KB 100u
#define ROUNDS_MAX 16

static unsigned int rounds, repeats;
static struct bench_process *agent;
static riptide *handle;
static redisContext *redis;
static char value[SIZE_MAX_KB << 10], buffer[SIZE_MAX_KB << 10];
static uint32_t cursor;

struct table_row {
	const char *figure, *claim;
	size_t size;
	void (*ours)(size_t size), (*direct)(size_t size);
	unsigned int share; /* of the repeats, for slow ones: 1 in so many */
};

static void next_key(char key[BENCH_KEY + 1], uint32_t base)
{
	bench_key(key, base + cursor++ % KEYS);
}

static void set_ours(size_t size)
{
	char key[BENCH_KEY + 1];

	next_key(key, KEYS);
	bench_ok(riptide_set(handle, key, BENCH_KEY, value, size, NULL, NULL), "riptide_set");
}

static void set_direct(size_t size)
{
	char key[BENCH_KEY + 1];
	redisReply *reply;

	next_key(key, KEYS);
	reply = redisCommand(redis, "SET direct:%b %b", key, (size_t)BENCH_KEY, value, size);
	bench_need(reply && reply->type == REDIS_REPLY_STATUS, "hiredis SET");
	freeReplyObject(reply);
}

static void get_ours(size_t size)
{
	char key[BENCH_KEY + 1];
	size_t length;

	next_key(key, 0);
	bench_ok(riptide_get_into(handle, key, BENCH_KEY, buffer, sizeof(buffer), &length, NULL), "riptide_get_into");
	bench_need(length == size, "a value of another length");
}

static void get_direct(size_t size)
{
	char key[BENCH_KEY + 1];
	redisReply *reply;

	next_key(key, 0);
	reply = redisCommand(redis, "GET direct:%b", key, (size_t)BENCH_KEY);
	bench_need(reply && reply->type == REDIS_REPLY_STRING && (size_t)reply->len == size, "hiredis GET");
	memcpy(buffer, reply->str, size);
	freeReplyObject(reply);
}

static void absent_ours(size_t size)
{
	char key[BENCH_KEY + 1];

	next_key(key, 10 * KEYS);
	bench_need(riptide_get_into(handle, key, BENCH_KEY, buffer, sizeof(buffer), &size, NULL) == RIPTIDE_MISS,
		   "a miss");
}

static void absent_direct(size_t size)
{
	char key[BENCH_KEY + 1];
	redisReply *reply;

	(void)size;
	next_key(key, 10 * KEYS);
	reply = redisCommand(redis, "GET direct:%b", key, (size_t)BENCH_KEY);
	bench_need(reply && reply->type == REDIS_REPLY_NIL, "hiredis GET");
	freeReplyObject(reply);
}

static void fill_items(struct riptide_item items[BATCH], char keys[BATCH][BENCH_KEY + 1], size_t size)
{
	memset(items, 0, BATCH * sizeof(*items));
	for (unsigned int i = 0; i < BATCH; i++) {
		next_key(keys[i], 0);
		items[i].key = keys[i];
		items[i].key_length = BENCH_KEY;
		items[i].value = size ? value : NULL;
		items[i].value_length = size;
	}
}

static void batch_set_ours(size_t size)
{
	struct riptide_item items[BATCH];
	char keys[BATCH][BENCH_KEY + 1];

	fill_items(items, keys, size);
	bench_ok(riptide_set_batch(handle, items, BATCH), "riptide_set_batch");
	for (unsigned int i = 0; i < BATCH; i++)
		bench_ok(items[i].status, "setting an item");
}

static void batch_get_ours(size_t size)
{
	struct riptide_item items[BATCH];
	char keys[BATCH][BENCH_KEY + 1];

	fill_items(items, keys, 0);
	bench_ok(riptide_get_batch(handle, items, BATCH), "riptide_get_batch");
	for (unsigned int i = 0; i < BATCH; i++)
		bench_need(items[i].status == RIPTIDE_OK && items[i].result.length == size, "getting an item");
	riptide_batch_free(items, BATCH);
}

/* One pipeline of ten. */
static void batch_direct(bool set, size_t size)
{
	for (unsigned int i = 0; i < BATCH; i++) {
		char key[BENCH_KEY + 1];

		next_key(key, 0);
		if (set)
			redisAppendCommand(redis, "SET direct:%b %b", key, (size_t)BENCH_KEY, value, size);
		else
			redisAppendCommand(redis, "GET direct:%b", key, (size_t)BENCH_KEY);
	}
	for (unsigned int i = 0; i < BATCH; i++) {
		redisReply *reply = NULL;

		bench_need(redisGetReply(redis, (void **)&reply) == REDIS_OK && reply->type != REDIS_REPLY_ERROR,
			   "hiredis pipeline");
		freeReplyObject(reply);
	}
}

static void batch_set_direct(size_t size)
{
	batch_direct(true, size);
}

static void batch_get_direct(size_t size)
{
	batch_direct(false, size);
}

static const struct table_row table[] = {
	{"cache set 1 KB", "1.2 ms", 1u << 10, set_ours, set_direct, 1},
	{"cache set 10 KB", "1.8 ms", 10u << 10, set_ours, set_direct, 2},
	{"cache set 100 KB", "3.5 ms", 100u << 10, set_ours, set_direct, 10},
	{"cache get (hit) 1 KB", "0.8 ms", 1u << 10, get_ours, get_direct, 1},
	{"cache get (miss)", "0.6 ms", 0, absent_ours, absent_direct, 1},
	{"batch set, 10 of 1 KB", "2.5 ms", 1u << 10, batch_set_ours, batch_set_direct, 2},
	{"batch get, 10 of 1 KB", "1.9 ms", 1u << 10, batch_get_ours, batch_get_direct, 2},
};

static double mean_ns(void (*operation)(size_t), size_t size, unsigned int count)
{
	uint64_t began_ns = bench_now_ns();

	for (unsigned int i = 0; i < count; i++)
		operation(size);
	return (double)(bench_now_ns() - began_ns) / count;
}

static void load_both(void)
{
	bench_load(handle, 0, KEYS, 1u << 10);
	cursor = 0;
	for (uint32_t i = 0; i < KEYS / BATCH; i++)
		batch_direct(true, 1u << 10);
}

static void measure_table(void)
{
	bench_heading("The original's table: mean latency, one client, Redis on a unix socket");
	for (unsigned int n = 0; n < sizeof(table) / sizeof(table[0]); n++) {
		const struct table_row *t = &table[n];
		double ours[ROUNDS_MAX], direct[ROUNDS_MAX], ratios[ROUNDS_MAX];
		char note[100];

		for (unsigned int i = 0; i < rounds; i++) {
			ours[i] = mean_ns(t->ours, t->size, repeats / t->share);
			direct[i] = mean_ns(t->direct, t->size, repeats / t->share);
			ratios[i] = direct[i] / ours[i];
		}
		snprintf(note, sizeof(note), "the original's README says %s", t->claim);
		bench_print(&(struct bench_row){t->figure,
						BENCH_NS,
						bench_median(ours, rounds),
						"hiredis",
						bench_median(direct, rounds),
						bench_median(ratios, rounds),
						{0},
						{0},
						note});
	}
}

/* ---- concurrent access: reads of 1,000 keys, as the original's benchmark had them ------------------------------- */

enum phase {
	READ_OURS = 1,
	READ_DIRECT,
};

static void *reader_begin(uint32_t number)
{
	cursor = number * 97;
	handle = bench_open(agent);
	redis = bench_redis_connect();
	return NULL;
}

static void reader_work(struct bench_crowd *crowd, struct bench_member *member, uint32_t number, uint32_t phase,
			void *own)
{
	(void)number;
	(void)own;
	while (bench_phase(crowd) == phase) {
		for (unsigned int i = 0; i < BATCH; i++) {
			if (phase == READ_OURS)
				get_ours(1u << 10);
			else
				get_direct(1u << 10);
		}
		bench_did(member, BATCH);
	}
}

static void measure_concurrent(void)
{
	static const struct bench_work reading = {reader_begin, reader_work};
	static const struct {
		uint32_t clients;
		const char *claim;
	} steps[] = {{1, "1,250/s"}, {4, "4,200/s"}, {8, "7,800/s"}, {16, "12,400/s"}};
	unsigned int slice_ms = bench_is_full() ? 500 : 200;

	bench_heading("The original's concurrent access: gets of 1 KB over 1,000 keys, client processes");
	for (unsigned int n = 0; n < sizeof(steps) / sizeof(steps[0]); n++) {
		struct bench_crowd *crowd = bench_crowd_start(steps[n].clients, &reading, false);
		double ours[ROUNDS_MAX], direct[ROUNDS_MAX], ratios[ROUNDS_MAX];
		char figure[40], note[100];

		for (unsigned int i = 0; i < rounds; i++) {
			ours[i] = bench_crowd_rate(crowd, READ_OURS, slice_ms);
			direct[i] = bench_crowd_rate(crowd, READ_DIRECT, slice_ms);
			ratios[i] = ours[i] / direct[i];
		}
		bench_crowd_end(crowd);
		snprintf(figure, sizeof(figure), "%u client%s", steps[n].clients, steps[n].clients == 1 ? "" : "s");
		snprintf(note, sizeof(note), "the original's README says %s", steps[n].claim);
		bench_print(&(struct bench_row){figure,
						BENCH_PER_SECOND,
						bench_median(ours, rounds),
						"hiredis GET",
						bench_median(direct, rounds),
						bench_median(ratios, rounds),
						{0},
						{0},
						note});
	}
}

int main(void)
{
	char url[160];
	const char *const settings[] = {"agent.backend=redis", url, NULL};

	bench_world_begin();
	rounds = bench_is_full() ? 9 : 3;
	repeats = bench_is_full() ? 5000 : 1500;
	bench_redis_start();
	snprintf(url, sizeof(url), "redis.url=unix://%s", bench_world.redis.socket);
	agent = bench_agent_start(settings);
	handle = bench_open(agent);
	redis = bench_redis_connect();
	bench_value(value, sizeof(value), 1);
	load_both();
	measure_table();
	load_both();
	measure_concurrent();
	riptide_close(&handle);
	redisFree(redis);
	return 0;
}
