/*
 * operations.c - the operations with the sizes, batches and numbers of clients of the original's own performance tests: values
 * of 1, 10 and 100 KB, batches of 10 to 200 keys, 1 to 16 client processes, written through, behind, and with sync=always.
 *
 * Each client is a process with one handle and one direct connection to the same redis-server over a unix socket. Ours and
 * direct take turns within each round; ratios are taken within the round. Redis: hot copies live 1 ms and clients walk through
 * keys of their own, so that a get passes the agent; reads that shared memory served are not counted. Rates are of keys.
 */
#include "bench/bench_crowd.h"
#include "bench/bench_row.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define BATCH_MAX 200u
#define KEYS_EACH 4000u /* of a client */
#define VALUE_MAX (100u << 10)
#define ROUNDS_MAX 16

enum operation { GET, SET, SET_BEHIND };

/* A phase of the crowd is 1 + 2 * cell, or one more for the direct one. */
struct cell {
	const char *figure;
	enum operation operation;
	size_t size;
	uint32_t batch; /* keys; 1: the call for a single one */
};

static const struct cell sizes[] = {
	{"get 1 KB through the agent", GET, 1u << 10, 1},
	{"get 10 KB", GET, 10u << 10, 1},
	{"get 100 KB", GET, 100u << 10, 1},
	{"set 1 KB, written through", SET, 1u << 10, 1},
	{"set 10 KB", SET, 10u << 10, 1},
	{"set 100 KB", SET, 100u << 10, 1},
};

static const struct cell batches[] = {
	{"get, 10 keys of 1 KB", GET, 1u << 10, 10}, {"get, 50 keys", GET, 1u << 10, 50},
	{"get, 100 keys", GET, 1u << 10, 100},       {"get, 200 keys", GET, 1u << 10, 200},
	{"set, 10 keys of 1 KB", SET, 1u << 10, 10}, {"set, 50 keys", SET, 1u << 10, 50},
	{"set, 100 keys", SET, 1u << 10, 100},       {"set, 200 keys", SET, 1u << 10, 200},
};

static const struct cell crowds[] = {
	{"get 1 KB", GET, 1u << 10, 1},
	{"set 1 KB, written through", SET, 1u << 10, 1},
};

static const struct cell writes_behind[] = {
	{"set 1 KB, behind", SET_BEHIND, 1u << 10, 1},
};

static const struct cell embedded_cells[] = {
	{"get 1 KB through the agent", GET, 1u << 10, 1},
	{"set 1 KB", SET, 1u << 10, 1},
	{"set, 50 keys of 1 KB", SET, 1u << 10, 50},
};

static struct bench_process *agent;
static const struct cell *cells; /* of the present crowd */
static unsigned int rounds, slice_ms;

struct client {
	riptide *handle;
	redisContext *redis;
	uint32_t first_key, cursor;
	struct riptide_item items[BATCH_MAX];
	char keys[BATCH_MAX][BENCH_KEY + 1];
	char value[VALUE_MAX], buffer[VALUE_MAX];
};

/* ---- operations ------------------------------------------------------------------------------------------------ */

/* Each size has keys of its own, of a tenth of the number for each tenfold size. */
static void next_keys(struct client *c, const struct cell *cell)
{
	uint32_t level = cell->size >= 100u << 10 ? 2 : cell->size >= 10u << 10 ? 1 : 0;
	uint32_t keys = level == 2 ? KEYS_EACH / 40 : level == 1 ? KEYS_EACH / 10 : KEYS_EACH;

	for (uint32_t i = 0; i < cell->batch; i++)
		bench_key(c->keys[i], c->first_key + level * KEYS_EACH + c->cursor++ % keys);
}

static void fill_items(struct client *c, const struct cell *cell)
{
	memset(c->items, 0, cell->batch * sizeof(c->items[0]));
	for (uint32_t i = 0; i < cell->batch; i++) {
		c->items[i].key = c->keys[i];
		c->items[i].key_length = BENCH_KEY;
		if (cell->operation == GET)
			continue;
		c->items[i].value = c->value;
		c->items[i].value_length = cell->size;
	}
}

/* Returns how many keys count. */
static uint32_t batch_ours(struct client *c, const struct cell *cell)
{
	uint32_t cold = 0;

	fill_items(c, cell);
	if (cell->operation != GET) {
		bench_ok(riptide_set_batch(c->handle, c->items, cell->batch), "riptide_set_batch");
		for (uint32_t i = 0; i < cell->batch; i++)
			bench_ok(c->items[i].status, "setting an item");
		return cell->batch;
	}
	bench_ok(riptide_get_batch(c->handle, c->items, cell->batch), "riptide_get_batch");
	for (uint32_t i = 0; i < cell->batch; i++) {
		bench_need(c->items[i].status == RIPTIDE_OK && c->items[i].result.length == cell->size,
			   "getting an item");
		cold += !(c->items[i].result.info.flags & RIPTIDE_HOT);
	}
	riptide_batch_free(c->items, cell->batch);
	return cold;
}

static uint32_t one_ours(struct client *c, const struct cell *cell)
{
	struct riptide_set_options options = {.size = sizeof(options),
					      .write_mode = cell->operation == SET_BEHIND ? RIPTIDE_WRITE_BEHIND
											  : RIPTIDE_WRITE_THROUGH};
	struct riptide_info info;
	size_t length;
	int status;

	if (cell->operation == GET) {
		bench_ok(riptide_get_into(c->handle, c->keys[0], BENCH_KEY, c->buffer, sizeof(c->buffer), &length,
					  &info),
			 "riptide_get_into");
		bench_need(length == cell->size, "a value of another length");
		return !(info.flags & RIPTIDE_HOT);
	}
	status = riptide_set(c->handle, c->keys[0], BENCH_KEY, c->value, cell->size, &options, NULL);
	/* The journal is full: its writer is held to what the server takes. */
	if (cell->operation == SET_BEHIND && status == RIPTIDE_EAGAIN) {
		bench_pause_us(200);
		return 0;
	}
	bench_ok(status, "riptide_set");
	return 1;
}

static uint32_t ours(struct client *c, const struct cell *cell)
{
	return cell->batch == 1 ? one_ours(c, cell) : batch_ours(c, cell);
}

/* One pipeline. */
static uint32_t direct(struct client *c, const struct cell *cell)
{
	for (uint32_t i = 0; i < cell->batch; i++) {
		if (cell->operation == GET)
			redisAppendCommand(c->redis, "GET direct:%b", c->keys[i], (size_t)BENCH_KEY);
		else
			redisAppendCommand(c->redis, "SET direct:%b %b", c->keys[i], (size_t)BENCH_KEY, c->value,
					   cell->size);
	}
	for (uint32_t i = 0; i < cell->batch; i++) {
		redisReply *reply = NULL;

		bench_need(redisGetReply(c->redis, (void **)&reply) == REDIS_OK && reply->type != REDIS_REPLY_ERROR,
			   "hiredis");
		if (cell->operation == GET) {
			bench_need(reply->type == REDIS_REPLY_STRING && (size_t)reply->len == cell->size,
				   "a direct value");
			memcpy(c->buffer, reply->str, cell->size);
		}
		freeReplyObject(reply);
	}
	return cell->batch;
}

/* ---- crowds ---------------------------------------------------------------------------------------------------- */

static void *client_begin(uint32_t number)
{
	struct client *c = calloc(1, sizeof(*c));

	bench_need(c != NULL, "memory");
	c->handle = bench_open(agent);
	c->redis = bench_redis_connect();
	c->first_key = number * 3 * KEYS_EACH;
	bench_value(c->value, sizeof(c->value), number);
	return c;
}

/* Each side has every key of the cell before it is read. */
static void load(struct client *c, const struct cell *cell, bool is_direct)
{
	struct cell loading = *cell;

	loading.operation = SET;
	c->cursor = 0;
	for (uint32_t n = 0; n < KEYS_EACH; n += loading.batch) {
		next_keys(c, &loading);
		(void)(is_direct ? direct : ours)(c, &loading);
		if (cell->size > 1u << 10 && n >= KEYS_EACH / 10)
			break;
	}
}

static void client_work(struct bench_crowd *crowd, struct bench_member *member, uint32_t number, uint32_t phase,
			void *own)
{
	const struct cell *cell = &cells[(phase - 1) / 2];
	bool is_direct = (phase - 1) % 2;
	struct client *c = own;
	static uint64_t loaded;

	(void)number;
	if (cell->operation == GET && !(loaded & 1ull << phase)) {
		loaded |= 1ull << phase;
		load(c, cell, is_direct);
	}
	while (bench_phase(crowd) == phase) {
		uint64_t began_ns;
		uint32_t counted;

		next_keys(c, cell);
		began_ns = bench_now_ns();
		counted = (is_direct ? direct : ours)(c, cell);
		if (!counted)
			continue;
		bench_note(member, bench_now_ns() - began_ns);
		bench_did(member, counted);
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

static void show(const struct cell *cell, const struct outcome *mine, const struct outcome *theirs,
		 struct bench_bound must)
{
	double ratios[ROUNDS_MAX];
	char note[200];

	for (unsigned int i = 0; i < rounds; i++)
		ratios[i] = theirs->rate[i] > 0 ? mine->rate[i] / theirs->rate[i] : 0;
	snprintf(note, sizeof(note), "a call p50 %.0f, p99 %.0f µs; hiredis p50 %.0f, p99 %.0f µs",
		 middle(mine->p50) / 1e3, middle(mine->p99) / 1e3, middle(theirs->p50) / 1e3,
		 middle(theirs->p99) / 1e3);
	bench_print(&(struct bench_row){cell->figure,
					BENCH_PER_SECOND,
					middle(mine->rate),
					"hiredis",
					middle(theirs->rate),
					bench_median(ratios, rounds),
					must,
					{0},
					note});
}

static void note_phase(struct bench_crowd *crowd, uint32_t phase, struct outcome *outcome, unsigned int round)
{
	outcome->rate[round] = bench_crowd_rate(crowd, phase, slice_ms);
	outcome->p50[round] = bench_crowd_percentile(crowd, 50);
	outcome->p99[round] = bench_crowd_percentile(crowd, 99);
}

static void measure(const char *heading, const struct cell *of, uint32_t count, uint32_t clients,
		    struct bench_bound must)
{
	static struct outcome mine[16], theirs[16];
	struct bench_crowd *crowd;

	bench_need(count <= COUNT(mine), "room for the cells");
	cells = of;
	crowd = bench_crowd_start(clients, &working, false);
	/* Once for nothing: reads load their keys. */
	for (uint32_t phase = 1; phase <= 2 * count; phase++)
		if (of[(phase - 1) / 2].operation == GET)
			(void)bench_crowd_rate(crowd, phase, slice_ms);
	for (unsigned int round = 0; round < rounds; round++)
		for (uint32_t cell = 0; cell < count; cell++) {
			note_phase(crowd, 1 + 2 * cell, &mine[cell], round);
			note_phase(crowd, 2 + 2 * cell, &theirs[cell], round);
		}
	bench_crowd_end(crowd);
	bench_heading(heading);
	for (uint32_t cell = 0; cell < count; cell++)
		show(&of[cell], &mine[cell], &theirs[cell], must);
}

/* What a flush still has to do after a second of writes behind, and how long it takes. */
static void measure_flush(void)
{
	riptide *handle = bench_open(agent);
	struct riptide_set_options behind = {.size = sizeof(behind), .write_mode = RIPTIDE_WRITE_BEHIND};
	static char value[1024];
	uint64_t began_ns = bench_now_ns(), written = 0, flush_ns;
	char key[BENCH_KEY + 1], note[120];

	while (bench_now_ns() - began_ns < 1000000000ull) {
		bench_key(key, (uint32_t)(written % KEYS_EACH));
		if (riptide_set(handle, key, BENCH_KEY, value, sizeof(value), &behind, NULL) == RIPTIDE_OK)
			written++;
	}
	began_ns = bench_now_ns();
	bench_ok(riptide_flush(handle), "riptide_flush");
	flush_ns = bench_now_ns() - began_ns;
	snprintf(note, sizeof(note), "after a second of %llu writes behind, which are coalesced by key",
		 (unsigned long long)written);
	bench_print(&(struct bench_row){"flush", BENCH_NS, (double)flush_ns, NULL, 0, 0, {0}, {0}, note});
	riptide_close(&handle);
}

static void measure_redis(void)
{
	char url[160];
	const char *const settings[] = {"agent.backend=redis", url, "coherence.mode=ttl", "coherence.max_age_ms=1",
					NULL};
	static const struct bench_bound none, threefold = BENCH_RATIO_AT_LEAST(3);

	snprintf(url, sizeof(url), "redis.url=unix://%s", bench_world.redis.socket);
	agent = bench_agent_start(settings);
	measure("Redis on a unix socket, one client", sizes, COUNT(sizes), 1, none);
	measure("Batches in one call, beside one pipeline; one client", batches, COUNT(batches), 1, none);
	measure("1 KB, 4 clients", crowds, COUNT(crowds), 4, none);
	measure("1 KB, 16 clients", crowds, COUNT(crowds), 16, none);
	measure("Written behind, one client", writes_behind, COUNT(writes_behind), 1, none);
	measure("Written behind, 16 clients", writes_behind, COUNT(writes_behind), 16, threefold);
	measure_flush();
	bench_agents_stop();
}

static void measure_behind_always(void)
{
	char url[160];
	const char *const settings[] = {"agent.backend=redis", url, "coherence.mode=ttl", "coherence.max_age_ms=1",
					"behind.sync=always",  NULL};
	static const struct bench_bound none;

	snprintf(url, sizeof(url), "redis.url=unix://%s", bench_world.redis.socket);
	agent = bench_agent_start(settings);
	measure("Written behind, behind.sync=always, 16 clients", writes_behind, COUNT(writes_behind), 16, none);
	bench_agents_stop();
}

static void measure_embedded(const char *sync, const char *heading, const struct cell *of, uint32_t count)
{
	const char *const settings[] = {sync, "cache.max_memory_bytes=2M", "cache.segment_initial_bytes=1M", NULL};
	static const struct bench_bound none;

	agent = bench_agent_start(settings);
	measure(heading, of, count, 1, none);
	bench_agents_stop();
}

int main(void)
{
	bench_world_begin();
	rounds = bench_is_full() ? 7 : 3;
	slice_ms = bench_is_full() ? 500 : 120;
	bench_redis_start();
	measure_redis();
	measure_behind_always();
	measure_embedded("embedded.sync=none", "Embedded store, sync=none, beside Redis; one client", embedded_cells,
			 COUNT(embedded_cells));
	measure_embedded("embedded.sync=interval", "Embedded store, sync=interval", embedded_cells,
			 COUNT(embedded_cells));
	/* Each write waits for the disk: loading keys to read would take a minute. */
	measure_embedded("embedded.sync=always", "Embedded store, sync=always", embedded_cells + 1,
			 COUNT(embedded_cells) - 1);
	return 0;
}
