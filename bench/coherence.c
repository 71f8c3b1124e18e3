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
#include "bench/coherence_agents.h"
#include "bench/coherence_delay.h"
#include "bench/coherence_restart.h"

/* ---- writes --------------------------------------------------------------------------------------------------- */

enum write_phase {
	SET_TOLD = 1,
	SET_ALONE,
	SET_TTL,
	SET_DIRECT,
	WRITE_PHASES,
};

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
