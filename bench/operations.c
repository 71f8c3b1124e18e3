/*
 * operations.c - each operation beside plain hiredis in one run, with the sizes, batches and numbers of clients of
 * the original's own performance tests: values of 1, 10 and 100 KB, batches of 10 to 200 keys, 1 to 16 processes,
 * written through and behind; and the embedded store under each of its `sync`, which has no peer.
 *
 * Each client is a process with one handle and one direct connection to the same redis-server over a unix socket.
 * Contenders take turns in short slices; ratios are taken within the round. A batch stands beside a pipeline of
 * single commands and beside MGET or MSET. A row says value size, keys in a call, clients; its note the latency of a
 * call. Rates are of keys. A single direct client has two slices, one where the scheduler puts it and one on the
 * server's CPU, and the better counts; ours has one, where the scheduler puts it.
 *
 *   get, cold    must pass the agent and the store. With Redis hot copies live 1 ms (coherence.mode=ttl, max_age_ms)
 *                and a client walks through keys of its own, so that one comes round much later; with the embedded
 *                store the ring is an eighth of what it walks through. What shared memory served nevertheless is
 *                neither counted nor timed, and its share is said.
 *   get, hot     from an agent that trusts its copies for an hour, with a ring that has room for all of them. What
 *                shared memory did not serve is left out in the same way.
 *   set, behind  a call that finds the journal full is repeated, and its latency runs on. What was accepted is
 *                flushed before the direct turn, so that the server has nothing else to do then.
 *
 * A slice ends by time, loading by count. Past SOFT_S no further round begins; at HARD_S the program gives up.
 */
#include "bench/bench_crowd.h"
#include "bench/bench_row.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KB 1024u
#define BATCH_MAX 200u
#define CELLS_MAX 8u
#define VALUE_MAX (100 * KB)
#define ROUNDS_MAX 16
#define PREFIX "direct:" /* of the direct connection's keys */
#define PREFIX_LENGTH (sizeof(PREFIX) - 1)
#define FLUSHED 20000u /* writes before a flush is timed */
#define SOFT_S 45u     /* of the quick run; the full one has ten times that */
#define HARD_S 60u

enum operation { GET_COLD, GET_HOT, SET, SET_BEHIND };
enum side { OURS, PIPELINE, MULTIPLE, SIDES };

/* A phase of the crowd is 1 + SIDES * cell + side. */
struct cell {
	enum operation operation;
	uint32_t size;
	uint32_t batch; /* keys; 1: the call for a single one */
};

static const struct cell cold_sizes[] = {
	{GET_COLD, 1 * KB, 1}, {GET_COLD, 10 * KB, 1}, {GET_COLD, 100 * KB, 1},
	{SET, 1 * KB, 1},      {SET, 10 * KB, 1},      {SET, 100 * KB, 1},
};
static const struct cell hot_sizes[] = {{GET_HOT, 1 * KB, 1}, {GET_HOT, 10 * KB, 1}, {GET_HOT, 100 * KB, 1}};
static const struct cell batches[] = {
	{GET_COLD, 1 * KB, 10}, {GET_COLD, 1 * KB, 50}, {GET_COLD, 1 * KB, 100}, {GET_COLD, 1 * KB, 200},
	{SET, 1 * KB, 10},      {SET, 1 * KB, 50},      {SET, 1 * KB, 100},      {SET, 1 * KB, 200},
};
static const struct cell crowds[] = {{GET_COLD, 1 * KB, 1}, {SET, 1 * KB, 1}};
static const struct cell behind[] = {{SET_BEHIND, 1 * KB, 1}};
static const struct cell embedded[] = {{GET_COLD, 1 * KB, 1}, {SET, 1 * KB, 1}, {SET, 1 * KB, 50}};

/* Keys of a client by level: those of 1, 10, 100 KB. */
static const uint32_t keys_of[] = {2000, 200, 100}, first_of[] = {0, 2000, 2200};
#define KEYS_EACH 2300u

struct outcome {
	double rate[ROUNDS_MAX], p50[ROUNDS_MAX], p99[ROUNDS_MAX];
	double together[ROUNDS_MAX]; /* 1: client and server shared a CPU; else 0 */
};

/* What members add to at the end of a phase; of the present crowd. */
struct tally {
	uint64_t calls;
	uint64_t left_out; /* keys */
	uint64_t repeated; /* calls that found the journal full */
};

struct client {
	riptide *handle;
	redisContext *redis;
	uint32_t cursor, loaded; /* a bit for each level and side */
	uint64_t repeated;
	const char *keys[BATCH_MAX]; /* of the present call; with PREFIX */
	struct riptide_item items[BATCH_MAX];
	const char *words[2 * BATCH_MAX + 1];
	size_t lengths[2 * BATCH_MAX + 1];
	char names[KEYS_EACH][PREFIX_LENGTH + BENCH_KEY + 1];
	char value[VALUE_MAX], buffer[VALUE_MAX];
};

static struct bench_process *agent;
static bool has_peer; /* of the present agent */
static const struct cell *cells;
static struct tally *tallies; /* one a phase, shared with the members */
static struct outcome outcomes[CELLS_MAX][SIDES];
static unsigned int rounds, rounds_done, slice_ms, unmeasured;
static uint64_t no_more_rounds_ns;
static const struct bench_bound none;

static bool is_get(const struct cell *cell)
{
	return cell->operation == GET_COLD || cell->operation == GET_HOT;
}

static uint32_t level_of(const struct cell *cell)
{
	return cell->size >= 100 * KB ? 2 : cell->size >= 10 * KB ? 1 : 0;
}

static bool takes_part(const struct cell *cell, enum side side)
{
	return side == OURS || (has_peer && (side == PIPELINE || cell->batch > 1));
}

/* ---- ours ------------------------------------------------------------------------------------------------------ */

static void next_keys(struct client *c, const struct cell *cell)
{
	uint32_t level = level_of(cell);

	for (uint32_t i = 0; i < cell->batch; i++)
		c->keys[i] = c->names[first_of[level] + c->cursor++ % keys_of[level]];
}

static bool is_counted(const struct cell *cell, const struct riptide_info *info)
{
	return (cell->operation == GET_HOT) == ((info->flags & RIPTIDE_HOT) != 0);
}

/* These return how many keys count. */
static uint32_t get_one(struct client *c, const struct cell *cell)
{
	struct riptide_info info;
	size_t length;
	int status = riptide_get_into(c->handle, c->keys[0] + PREFIX_LENGTH, BENCH_KEY, c->buffer, sizeof(c->buffer),
				      &length, &info);

	bench_ok(status, "riptide_get_into");
	bench_need(status == RIPTIDE_OK && length == cell->size, "a key that is missing or of another length");
	return is_counted(cell, &info);
}

static uint32_t set_one(struct client *c, const struct cell *cell)
{
	struct riptide_set_options options = {.size = sizeof(options), .write_mode = RIPTIDE_WRITE_THROUGH};
	int status;

	if (cell->operation == SET_BEHIND)
		options.write_mode = RIPTIDE_WRITE_BEHIND;
	for (unsigned int i = 0; i < 10000; i++) {
		status = riptide_set(c->handle, c->keys[0] + PREFIX_LENGTH, BENCH_KEY, c->value, cell->size, &options,
				     NULL);
		if (status != RIPTIDE_EAGAIN || cell->operation != SET_BEHIND)
			break;
		/* The journal is full: its writer is held to what the server takes. */
		c->repeated++;
		bench_pause_us(200);
	}
	bench_ok(status, "riptide_set");
	return 1;
}

static void fill_items(struct client *c, const struct cell *cell)
{
	memset(c->items, 0, cell->batch * sizeof(c->items[0]));
	for (uint32_t i = 0; i < cell->batch; i++) {
		c->items[i].key = c->keys[i] + PREFIX_LENGTH;
		c->items[i].key_length = BENCH_KEY;
		c->items[i].value = is_get(cell) ? NULL : c->value;
		c->items[i].value_length = is_get(cell) ? 0 : cell->size;
	}
}

static uint32_t get_many(struct client *c, const struct cell *cell)
{
	uint32_t counted = 0;

	fill_items(c, cell);
	bench_ok(riptide_get_batch(c->handle, c->items, cell->batch), "riptide_get_batch");
	for (uint32_t i = 0; i < cell->batch; i++) {
		bench_need(c->items[i].status == RIPTIDE_OK && c->items[i].result.length == cell->size,
			   "an item that is missing or of another length");
		counted += is_counted(cell, &c->items[i].result.info);
	}
	riptide_batch_free(c->items, cell->batch);
	return counted;
}

static uint32_t set_many(struct client *c, const struct cell *cell)
{
	fill_items(c, cell);
	bench_ok(riptide_set_batch(c->handle, c->items, cell->batch), "riptide_set_batch");
	for (uint32_t i = 0; i < cell->batch; i++)
		bench_ok(c->items[i].status, "setting an item");
	return cell->batch;
}

/* ---- hiredis --------------------------------------------------------------------------------------------------- */

static void word(struct client *c, int *count, const char *text, size_t length)
{
	c->words[*count] = text;
	c->lengths[(*count)++] = length;
}

static void append(struct client *c, const struct cell *cell, enum side side, uint32_t first, uint32_t keys)
{
	static const char *const commands[2][2] = {{"SET", "GET"}, {"MSET", "MGET"}};
	const char *command = commands[side == MULTIPLE][is_get(cell)];
	int count = 0;

	word(c, &count, command, strlen(command));
	for (uint32_t i = first; i < first + keys; i++) {
		word(c, &count, c->keys[i], PREFIX_LENGTH + BENCH_KEY);
		if (!is_get(cell))
			word(c, &count, c->value, cell->size);
	}
	bench_need(redisAppendCommandArgv(c->redis, count, c->words, c->lengths) == REDIS_OK, "hiredis");
}

static void take_value(struct client *c, const struct cell *cell, const redisReply *reply)
{
	bench_need(reply->type == REDIS_REPLY_STRING && (size_t)reply->len == cell->size, "a direct value");
	memcpy(c->buffer, reply->str, cell->size);
}

static void take_reply(struct client *c, const struct cell *cell, enum side side)
{
	redisReply *reply = NULL;

	bench_need(redisGetReply(c->redis, (void **)&reply) == REDIS_OK && reply->type != REDIS_REPLY_ERROR,
		   "hiredis");
	if (is_get(cell) && side == PIPELINE) {
		take_value(c, cell, reply);
	} else if (is_get(cell)) {
		bench_need(reply->type == REDIS_REPLY_ARRAY && reply->elements == cell->batch, "MGET");
		for (uint32_t i = 0; i < cell->batch; i++)
			take_value(c, cell, reply->element[i]);
	}
	freeReplyObject(reply);
}

static uint32_t direct(struct client *c, const struct cell *cell, enum side side)
{
	uint32_t commands = side == MULTIPLE ? 1 : cell->batch, keys = cell->batch / commands;

	for (uint32_t i = 0; i < commands; i++)
		append(c, cell, side, i, keys);
	for (uint32_t i = 0; i < commands; i++)
		take_reply(c, cell, side);
	return cell->batch;
}

/* ---- members of the crowd -------------------------------------------------------------------------------------- */

static uint32_t call(struct client *c, const struct cell *cell, enum side side)
{
	if (side != OURS)
		return direct(c, cell, side);
	if (is_get(cell))
		return (cell->batch == 1 ? get_one : get_many)(c, cell);
	return (cell->batch == 1 ? set_one : set_many)(c, cell);
}

static void *client_begin(uint32_t number)
{
	struct client *c = calloc(1, sizeof(*c));

	bench_need(c != NULL, "memory");
	c->handle = bench_open(agent);
	c->redis = has_peer ? bench_redis_connect() : NULL;
	for (uint32_t i = 0; i < KEYS_EACH; i++) {
		memcpy(c->names[i], PREFIX, PREFIX_LENGTH);
		bench_key(c->names[i] + PREFIX_LENGTH, number * KEYS_EACH + i);
	}
	bench_value(c->value, sizeof(c->value), number);
	return c;
}

/* Each side has every key of that size before one is read. */
static void load_once(struct client *c, const struct cell *cell, enum side side)
{
	struct cell loading = {SET, cell->size, cell->size > KB ? 10 : BATCH_MAX};
	uint32_t bit = 1u << (2 * level_of(cell) + (side != OURS));

	if (!is_get(cell) || c->loaded & bit)
		return;
	c->loaded |= bit;
	c->cursor = 0;
	for (uint32_t n = 0; n < keys_of[level_of(cell)]; n += loading.batch) {
		next_keys(c, &loading);
		(void)call(c, &loading, side == OURS ? OURS : PIPELINE);
	}
	c->cursor = 0;
}

static void client_work(struct bench_crowd *crowd, struct bench_member *member, uint32_t number, uint32_t phase,
			void *own)
{
	const struct cell *cell = &cells[(phase - 1) / SIDES];
	enum side side = (phase - 1) % SIDES;
	struct tally mine = {0};
	struct client *c = own;

	(void)number;
	/* Else the crowd would not wait for the loading and the flush. */
	__atomic_store_n(&member->phase_seen, phase, __ATOMIC_RELEASE);
	load_once(c, cell, side);
	c->repeated = 0;
	while (bench_phase(crowd) == phase) {
		uint64_t began;
		uint32_t counted;
		double ns;

		next_keys(c, cell);
		began = bench_tick();
		counted = call(c, cell, side);
		ns = bench_span_ns(began, bench_tick());
		mine.calls++;
		mine.left_out += cell->batch - counted;
		if (!counted)
			continue;
		bench_note(member, (uint64_t)ns);
		bench_did(member, counted);
	}
	if (cell->operation == SET_BEHIND && side == OURS)
		bench_ok(riptide_flush(c->handle), "riptide_flush");
	__atomic_fetch_add(&tallies[phase].calls, mine.calls, __ATOMIC_RELAXED);
	__atomic_fetch_add(&tallies[phase].left_out, mine.left_out, __ATOMIC_RELAXED);
	__atomic_fetch_add(&tallies[phase].repeated, c->repeated, __ATOMIC_RELAXED);
}

static const struct bench_work working = {client_begin, client_work};

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static double middle(const double *values)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, values, rounds_done * sizeof(*values));
	return bench_median(sorted, rounds_done);
}

static double ratio_of(const double *above, const double *below)
{
	double ratios[ROUNDS_MAX];

	for (unsigned int i = 0; i < rounds_done; i++)
		ratios[i] = below[i] > 0 ? above[i] / below[i] : 0;
	return bench_median(ratios, rounds_done);
}

static void name_row(char *figure, size_t room, const struct cell *cell, uint32_t clients)
{
	static const char *const names[] = {"get, cold", "get, hot", "set", "set, behind"};

	snprintf(figure, room, "%-11s %3u KB x %-3u %2u client%s", names[cell->operation], cell->size / KB,
		 cell->batch, clients, clients == 1 ? "" : "s");
}

static const char *peer_of(const struct cell *cell, enum side side)
{
	if (side == MULTIPLE)
		return is_get(cell) ? "hiredis MGET" : "hiredis MSET";
	if (cell->batch > 1)
		return is_get(cell) ? "hiredis GET pipeline" : "hiredis SET pipeline";
	return is_get(cell) ? "hiredis GET" : "hiredis SET";
}

/* What was not counted, or had to wait. */
static void tell_rest(char *note, size_t room, const struct cell *cell, const struct tally *tally)
{
	double keys = (double)tally->calls * cell->batch;

	if (is_get(cell))
		snprintf(note, room, "; %.2f %% of the reads were %s and are left out",
			 keys > 0 ? 100 * (double)tally->left_out / keys : 0,
			 cell->operation == GET_HOT ? "not hot" : "hot");
	else if (cell->operation == SET_BEHIND)
		snprintf(note, room, "; the journal was full %llu times in %llu calls",
			 (unsigned long long)tally->repeated, (unsigned long long)tally->calls);
}

/* One row for each peer; one without where there is none. */
static void show(uint32_t number, uint32_t clients, struct bench_bound must)
{
	const struct cell *cell = &cells[number];
	const struct outcome *ours = &outcomes[number][OURS];
	char figure[80], note[300];

	name_row(figure, sizeof(figure), cell, clients);
	for (enum side side = PIPELINE; side < SIDES; side++) {
		const struct outcome *peer = &outcomes[number][side];
		struct bench_row row = {.figure = figure,
					.unit = BENCH_PER_SECOND,
					.ours = middle(ours->rate),
					.must = must,
					.note = note};
		int length;

		if (!takes_part(cell, side) && (has_peer || side == MULTIPLE))
			continue;
		unmeasured += row.ours <= 0;
		length = snprintf(note, sizeof(note), "a call: p50 %.2f, p99 %.2f µs", middle(ours->p50) / 1e3,
				  middle(ours->p99) / 1e3);

		if (takes_part(cell, side)) {
			row.peer_name = peer_of(cell, side);
			row.peer = middle(peer->rate);
			row.ratio = ratio_of(ours->rate, peer->rate);
			unmeasured += row.peer <= 0;
			length += snprintf(note + length, sizeof(note) - (size_t)length,
					   "; hiredis p50 %.1f, p99 %.1f µs%s", middle(peer->p50) / 1e3,
					   middle(peer->p99) / 1e3,
					   middle(peer->together) > 0 ? " on the server's CPU" : "");
		}
		tell_rest(note + length, sizeof(note) - (size_t)length, cell, &tallies[1 + SIDES * number + OURS]);
		bench_print(&row);
	}
}

/* A slice on a shared CPU does not replace a better one. */
static void measure_slice(struct bench_crowd *crowd, uint32_t phase, struct outcome *outcome, unsigned int round,
			  bool together)
{
	double rate = bench_crowd_rate(crowd, phase, slice_ms);

	if (together && rate <= outcome->rate[round])
		return;
	outcome->rate[round] = rate;
	outcome->p50[round] = bench_crowd_percentile(crowd, 50);
	outcome->p99[round] = bench_crowd_percentile(crowd, 99);
	outcome->together[round] = together;
}

static void measure_round(struct bench_crowd *crowd, uint32_t count, unsigned int round)
{
	for (uint32_t cell = 0; cell < count; cell++)
		for (enum side side = OURS; side < SIDES; side++) {
			uint32_t phase = 1 + SIDES * cell + side;

			if (!takes_part(&cells[cell], side))
				continue;
			measure_slice(crowd, phase, &outcomes[cell][side], round, false);
			if (side == OURS || crowd->count > 1)
				continue;
			bench_pin_process(crowd->pids[0], bench_timed_cpu());
			bench_pin_process(bench_world.redis.pid, bench_timed_cpu());
			measure_slice(crowd, phase, &outcomes[cell][side], round, true);
			bench_pin_process(crowd->pids[0], INT_MIN);
			bench_pin_process(bench_world.redis.pid, INT_MIN);
		}
}

/* Leaves the outcomes behind. */
static void measure(const char *heading, const struct cell *of, uint32_t count, uint32_t clients,
		    struct bench_bound must)
{
	struct bench_crowd *crowd;
	uint32_t whole_ms = slice_ms;

	bench_need(count <= CELLS_MAX, "room for the cells");
	cells = of;
	crowd = bench_crowd_start(clients, &working, false);
	/* Once for nothing: keys get loaded, and hot. */
	slice_ms = 30;
	measure_round(crowd, count, 0);
	slice_ms = whole_ms;
	memset(tallies, 0, (1 + SIDES * CELLS_MAX) * sizeof(*tallies));
	for (rounds_done = 0; rounds_done < rounds; rounds_done++) {
		if (rounds_done > 0 && bench_now_ns() > no_more_rounds_ns)
			break;
		measure_round(crowd, count, rounds_done);
	}
	bench_crowd_end(crowd);
	if (heading)
		bench_heading(heading);
	for (uint32_t cell = 0; cell < count; cell++)
		show(cell, clients, must);
}

/* ---- what is measured ------------------------------------------------------------------------------------------ */

static void begin_redis(const char *coherence, const char *more)
{
	char url[160];
	const char *const settings[] = {"agent.backend=redis", url, "coherence.mode=ttl", coherence, more, NULL};

	snprintf(url, sizeof(url), "redis.url=unix://%s", bench_world.redis.socket);
	agent = bench_agent_start(settings);
	has_peer = true;
}

/* After the one client's: what the design asks of its latency. */
static void show_behind_latency(void)
{
	const struct outcome *ours = &outcomes[0][OURS], *peer = &outcomes[0][PIPELINE];
	static const struct bench_bound fifth = BENCH_RATIO_AT_MOST(0.2);

	bench_print(&(struct bench_row){"set, behind, p50 of a call", BENCH_NS, middle(ours->p50), "hiredis SET",
					middle(peer->p50), ratio_of(ours->p50, peer->p50), fifth, none, NULL});
}

/* Writes keys behind, each once so that none is coalesced, and times the flush. */
static void measure_flush(void)
{
	struct riptide_set_options options = {.size = sizeof(options), .write_mode = RIPTIDE_WRITE_BEHIND};
	riptide *handle = bench_open(agent);
	uint64_t began_ns = bench_now_ns(), written_ns, flush_ns;
	char key[BENCH_KEY + 1], note[160], value[KB];
	uint32_t written = 0;

	bench_value(value, sizeof(value), 1);
	while (written < FLUSHED && bench_now_ns() - began_ns < 2000000000u) {
		int status;

		bench_key(key, 50000000 + written);
		status = riptide_set(handle, key, BENCH_KEY, value, sizeof(value), &options, NULL);
		if (status == RIPTIDE_EAGAIN) {
			bench_pause_us(200);
			continue;
		}
		bench_ok(status, "riptide_set");
		written++;
	}
	written_ns = bench_now_ns() - began_ns;
	began_ns = bench_now_ns();
	bench_ok(riptide_flush(handle), "riptide_flush");
	flush_ns = bench_now_ns() - began_ns;
	snprintf(note, sizeof(note),
		 "after %u writes of 1 KB behind in %.0f ms, one client, each key once; together %.1f k/s", written,
		 (double)written_ns / 1e6, written * 1e6 / (double)(written_ns + flush_ns));
	bench_print(&(struct bench_row){"riptide_flush() until it returns", BENCH_NS, (double)flush_ns, NULL, 0, 0,
					none, none, note});
	riptide_close(&handle);
}

static void measure_behind(void)
{
	static const struct bench_bound threefold = BENCH_RATIO_AT_LEAST(3);

	begin_redis("coherence.max_age_ms=1", NULL);
	measure("Written behind; what is accepted, before it is flushed", behind, COUNT(behind), 1, none);
	show_behind_latency();
	measure_flush();
	measure(NULL, behind, COUNT(behind), 16, threefold);
	bench_agents_stop();
	begin_redis("coherence.max_age_ms=1", "behind.sync=always");
	measure("Written behind, behind.sync=always", behind, COUNT(behind), 1, none);
	measure(NULL, behind, COUNT(behind), 16, none);
	bench_agents_stop();
}

static void measure_redis(void)
{
	begin_redis("coherence.max_age_ms=1", NULL);
	measure("Redis on a unix socket, single keys", cold_sizes, COUNT(cold_sizes), 1, none);
	measure("Batches in one call", batches, COUNT(batches), 1, none);
	measure("Clients, each a process", crowds, COUNT(crowds), 1, none);
	measure(NULL, crowds, COUNT(crowds), 4, none);
	measure(NULL, crowds, COUNT(crowds), 16, none);
	bench_agents_stop();
	begin_redis("coherence.max_age_ms=3600000", "cache.segment_initial_bytes=32M");
	measure("Hot, from shared memory", hot_sizes, COUNT(hot_sizes), 1, none);
	bench_agents_stop();
}

static void measure_embedded(const char *sync, const char *heading)
{
	/* All memory is twice the ring, which does not come to be where its index finds no room. */
	const char *const settings[] = {sync, "cache.max_memory_bytes=512K", "cache.segment_initial_bytes=256K",
					NULL};

	agent = bench_agent_start(settings);
	has_peer = false;
	measure(heading, embedded, COUNT(embedded), 1, none);
	bench_agents_stop();
}

int main(void)
{
	uint32_t times = bench_is_full() ? 10 : 1;

	bench_world_begin();
	signal(SIGALRM, bench_on_signal);
	alarm(HARD_S * times);
	no_more_rounds_ns = bench_now_ns() + SOFT_S * 1000000000ull * times;
	rounds = bench_is_full() ? 9 : 3;
	slice_ms = bench_is_full() ? 300 : 80;
	tallies = mmap(NULL, (1 + SIDES * CELLS_MAX) * sizeof(*tallies), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bench_need(tallies != MAP_FAILED, "memory");
	bench_redis_start();
	measure_redis();
	measure_behind();
	measure_embedded("embedded.sync=none", "Embedded store, sync=none; it has no peer");
	measure_embedded("embedded.sync=interval", "Embedded store, sync=interval, of 1 s: many a slice sees none");
	measure_embedded("embedded.sync=always", "Embedded store, sync=always");
	if (rounds_done < rounds)
		printf("The time was up: the last rows have fewer than %u rounds.\n", rounds);
	if (unmeasured)
		fprintf(stderr, "bench: %u rates were nothing: no call counted within its slices\n", unmeasured);
	return unmeasured ? 1 : 0;
}
