/*
 * hot.c - reads of hot entries through the library, against a real agent whose ring a writer churns.
 *
 * The run is a sequence of rounds; in each round every contender has a slice of the same length, so that what disturbs the
 * machine disturbs all of them, and each ratio is taken within its round; the table shows medians over the rounds.
 *
 *   timed     this process, alone on the last CPU where there are several
 *   writer    a process that sets 200 entries every 4 ms, of the same distribution, on the ring under test or (control)
 *             on another agent's, which costs the machine the same and shares nothing with the reader
 *   peers     hiredis GET on a unix socket; LMDB mdb_get in this process and one transaction; memcpy from a private copy
 *
 * Two ways to time: 64 reads between two looks at the clock (p50, mean), and every read by itself (p50, p99), with the
 * measured cost of looking at the clock taken off.
 */
#include <lmdb.h>

#include "bench/bench_crowd.h"
#include "bench/bench_row.h"

#define KEYS 100000u
#define ORDER (1u << 20)
#define SKEW 0.99
#define BATCH 64
#define SINGLES 200000
#define BATCHES 40000
#define ROUNDS_MAX 32
#define WRITER_BATCH 200
#define WRITER_PERIOD_NS 4000000u
#define VALUE_MAX 1024

enum writer_phase {
	WRITE_HERE = 1,
	WRITE_ELSEWHERE = 2,
};

enum reader_phase {
	READ_SHARED = 1,
	READ_PRIVATE = 2,
};

static struct bench_process *agents[2]; /* the one under test, and another for controls */
static size_t value_size;
static char (*keys)[BENCH_KEY + 1];
static uint32_t *order;
static unsigned int rounds, slice_ms;

static riptide *handle;
static redisContext *redis;
static MDB_txn *lmdb_txn;
static MDB_dbi lmdb_dbi;
static unsigned char *copy; /* the values, number by number */
static unsigned char sink[VALUE_MAX];
static uint64_t not_found;

/* ---- the contenders ----------------------------------------------------------------------------------------- */

typedef void read_fn(uint32_t number);

static inline void read_ours(uint32_t number)
{
	size_t length;
	int status = riptide_get_into(handle, keys[number], BENCH_KEY, sink, sizeof(sink), &length, NULL);

	if (__builtin_expect(status != RIPTIDE_OK, 0)) {
		bench_ok(status, "riptide_get_into");
		not_found++;
	}
}

static inline void read_redis(uint32_t number)
{
	redisReply *reply = redisCommand(redis, "GET %b", keys[number], (size_t)BENCH_KEY);

	bench_need(reply && reply->type == REDIS_REPLY_STRING && (size_t)reply->len <= sizeof(sink), "hiredis GET");
	memcpy(sink, reply->str, (size_t)reply->len);
	freeReplyObject(reply);
}

static inline void read_lmdb(uint32_t number)
{
	MDB_val key = {BENCH_KEY, keys[number]}, value;

	bench_need(mdb_get(lmdb_txn, lmdb_dbi, &key, &value) == 0 && value.mv_size <= sizeof(sink), "mdb_get");
	bench_memcpy(sink, value.mv_data, value.mv_size);
}

static inline void read_copy(uint32_t number)
{
	bench_memcpy(sink, copy + (size_t)number * value_size, value_size);
}

/* Mean time of a read in each batch of 64; `ret_mean` over all. Returns p50. Inlined, so that `read` is no indirect call. */
static inline __attribute__((always_inline)) double time_batches(read_fn read, double *ret_mean)
{
	static double spans[BATCHES];
	static uint32_t cursor;
	uint64_t end_ns = bench_now_ns() + (uint64_t)slice_ms * 1000000, began = bench_tick(), first = began;
	size_t count = 0;

	do {
		uint64_t now;

		for (unsigned int i = 0; i < BATCH; i++)
			read(order[(cursor + i) % ORDER]);
		cursor += BATCH;
		now = bench_tick();
		spans[count++] = bench_span_ns(began, now) / BATCH;
		began = now;
	} while (count < BATCHES && (count % 16 || bench_now_ns() < end_ns));
	if (ret_mean)
		*ret_mean = bench_span_ns(first, began) / (double)(count * BATCH);
	return bench_median(spans, count);
}

struct singles {
	double p50, p99, p999;
};

/* Every read by itself; a read that crosses to another process may choose its CPU, as the server may. */
static inline __attribute__((always_inline)) struct singles time_singles(read_fn read)
{
	static double spans[SINGLES];
	static uint32_t cursor;
	uint64_t end_ns = bench_now_ns() + (uint64_t)slice_ms * 1000000;
	struct singles ret;
	size_t count = 0;

	do {
		uint64_t began = bench_tick();

		read(order[cursor++ % ORDER]);
		spans[count++] = bench_span_ns(began, bench_tick());
	} while (count < SINGLES && (count % 16 || bench_now_ns() < end_ns));
	ret.p50 = bench_median(spans, count);
	ret.p99 = bench_percentile(spans, count, 99);
	ret.p999 = bench_percentile(spans, count, 99.9);
	return ret;
}

/* ---- the writer --------------------------------------------------------------------------------------------- */

struct writer {
	riptide *handles[2];
	char values[WRITER_BATCH][VALUE_MAX];
	uint32_t cursor;
};

static void *writer_begin(uint32_t number)
{
	struct writer *w = calloc(1, sizeof(*w));

	(void)number;
	bench_need(w != NULL, "memory");
	bench_pin(-1 - bench_timed_cpu());
	for (int i = 0; i < 2; i++)
		w->handles[i] = bench_open(agents[i]);
	return w;
}

static void write_some(struct writer *w, riptide *to)
{
	struct riptide_item items[WRITER_BATCH] = {0};

	for (unsigned int i = 0; i < WRITER_BATCH; i++) {
		uint32_t number = order[(ORDER / 2 + w->cursor++) % ORDER];

		bench_value(w->values[i], value_size, number);
		items[i].key = keys[number];
		items[i].key_length = BENCH_KEY;
		items[i].value = w->values[i];
		items[i].value_length = value_size;
	}
	bench_ok(riptide_set_batch(to, items, WRITER_BATCH), "riptide_set_batch");
	for (unsigned int i = 0; i < WRITER_BATCH; i++)
		bench_ok(items[i].status, "setting an item");
}

static void writer_work(struct bench_crowd *crowd, struct bench_member *member, uint32_t number, uint32_t phase,
			void *own)
{
	struct writer *w = own;
	uint64_t due_ns = bench_now_ns();

	(void)number;
	while (bench_phase(crowd) == phase) {
		uint64_t now_ns = bench_now_ns();

		write_some(w, w->handles[phase == WRITE_HERE ? 0 : 1]);
		bench_did(member, WRITER_BATCH);
		due_ns += WRITER_PERIOD_NS;
		/* A writer that cannot keep up does not make up for it in a burst. */
		if (due_ns + 4 * WRITER_PERIOD_NS < now_ns)
			due_ns = now_ns;
		now_ns = bench_now_ns();
		if (due_ns > now_ns)
			bench_pause_us((due_ns - now_ns) / 1000);
	}
}

static const struct bench_work writing = {writer_begin, writer_work};
static struct bench_crowd *writer;
static uint64_t writer_began_ns, writer_did;

static void writer_on(uint32_t phase)
{
	__atomic_store_n(&writer->phase, phase, __ATOMIC_RELEASE);
	bench_pause_us(BENCH_SETTLE_MS * 1000);
	writer_did = bench_crowd_done(writer);
	writer_began_ns = bench_now_ns();
}

/* Returns the rate it reached. */
static double writer_off(void)
{
	double rate =
		(double)(bench_crowd_done(writer) - writer_did) * 1e9 / (double)(bench_now_ns() - writer_began_ns);

	bench_crowd_settle(writer);
	return rate;
}

/* ---- the world ---------------------------------------------------------------------------------------------- */

static void fill_lmdb(void)
{
	char folder[80], value[VALUE_MAX];
	MDB_env *env;
	MDB_txn *txn;

	snprintf(folder, sizeof(folder), "%s/lmdb-%zu", bench_folder, value_size);
	bench_need(mkdir(folder, 0700) == 0 && mdb_env_create(&env) == 0 &&
			   mdb_env_set_mapsize(env, 1ul << 30) == 0 &&
			   mdb_env_open(env, folder, MDB_NOSYNC, 0600) == 0 &&
			   mdb_txn_begin(env, NULL, 0, &txn) == 0 && mdb_dbi_open(txn, NULL, 0, &lmdb_dbi) == 0,
		   "opening LMDB");
	for (uint32_t i = 0; i < KEYS; i++) {
		MDB_val k = {BENCH_KEY, keys[i]}, v = {value_size, value};

		bench_value(value, value_size, i);
		bench_need(mdb_put(txn, lmdb_dbi, &k, &v, MDB_APPEND) == 0, "mdb_put");
	}
	bench_need(mdb_txn_commit(txn) == 0 && mdb_txn_begin(env, NULL, MDB_RDONLY, &lmdb_txn) == 0, "LMDB commit");
}

static void fill_redis(void)
{
	char value[VALUE_MAX];

	redis = bench_redis_connect();
	for (uint32_t i = 0; i < KEYS; i++) {
		redisReply *reply;

		bench_value(value, value_size, i);
		redisAppendCommand(redis, "SET %b %b", keys[i], (size_t)BENCH_KEY, value, value_size);
		for (uint32_t n = 0; (i + 1) % 500 == 0 && n < 500; n++) {
			bench_need(redisGetReply(redis, (void **)&reply) == REDIS_OK, "hiredis SET");
			freeReplyObject(reply);
		}
	}
}

/* In memory like the ring's: shared, in pages of the same size. Else huge pages would be what is measured. */
static void fill_copy(void)
{
	copy = mmap(NULL, KEYS * value_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bench_need(copy != MAP_FAILED, "memory");
	for (uint32_t i = 0; i < KEYS; i++)
		bench_value((char *)copy + i * value_size, value_size, i);
}

static void prepare(size_t size)
{
	static const char *const settings[] = {"cache.max_memory_bytes=1G", NULL};

	value_size = size;
	bench_pin(-1 - bench_timed_cpu());
	for (int i = 0; i < 2; i++) {
		riptide *loader;

		agents[i] = bench_agent_start(settings);
		loader = bench_open(agents[i]);
		bench_load(loader, 0, KEYS, size);
		riptide_close(&loader);
	}
	writer = bench_crowd_start(1, &writing, false);
	bench_pin(bench_timed_cpu());
	fill_lmdb();
	fill_redis();
	fill_copy();
	handle = bench_open(agents[0]);
	/* Every key is read once, so that nothing is met for the first time while it is timed. */
	for (uint32_t i = 0; i < KEYS; i++) {
		read_ours(i);
		read_lmdb(i);
		read_copy(i);
	}
}

static void put_away(void)
{
	MDB_env *env = mdb_txn_env(lmdb_txn);

	bench_crowd_end(writer);
	riptide_close(&handle);
	redisFree(redis);
	mdb_txn_abort(lmdb_txn);
	mdb_env_close(env);
	munmap(copy, KEYS * value_size);
	bench_agents_stop();
}

static uint64_t misses(void)
{
	struct riptide_stats stats = {.size = sizeof(stats)};

	bench_ok(riptide_stats(handle, &stats), "riptide_stats");
	return stats.own_misses;
}

/* ---- rows --------------------------------------------------------------------------------------------------- */

struct results {
	double batch_p50[ROUNDS_MAX], batch_mean[ROUNDS_MAX], quiet_p50[ROUNDS_MAX], redis_p50[ROUNDS_MAX];
	double lmdb_p50[ROUNDS_MAX], copy_p50[ROUNDS_MAX], copy_mean[ROUNDS_MAX], rate[ROUNDS_MAX];
	double single_p50[ROUNDS_MAX], p99[ROUNDS_MAX], p999[ROUNDS_MAX], quiet_p99[ROUNDS_MAX];
	double quiet_again_p99[ROUNDS_MAX], elsewhere_p99[ROUNDS_MAX], redis_quiet_p50[ROUNDS_MAX],
		redis_apart_p50[ROUNDS_MAX];
	double missed_percent;
};

static void run_round(struct results *r, unsigned int n)
{
	struct singles single;

	r->quiet_p50[n] = time_batches(read_ours, NULL);
	r->quiet_p99[n] = time_singles(read_ours).p99;
	writer_on(WRITE_HERE);
	r->batch_p50[n] = time_batches(read_ours, &r->batch_mean[n]);
	r->copy_p50[n] = time_batches(read_copy, &r->copy_mean[n]);
	single = time_singles(read_ours);
	r->single_p50[n] = single.p50;
	r->p99[n] = single.p99;
	r->p999[n] = single.p999;
	r->lmdb_p50[n] = time_batches(read_lmdb, NULL);
	bench_unpin();
	r->redis_p50[n] = time_singles(read_redis).p50;
	bench_pin(bench_timed_cpu());
	r->rate[n] = writer_off();
	writer_on(WRITE_ELSEWHERE);
	r->elsewhere_p99[n] = time_singles(read_ours).p99;
	writer_off();
	r->quiet_again_p99[n] = time_singles(read_ours).p99;
	bench_unpin();
	r->redis_quiet_p50[n] = time_singles(read_redis).p50;
	bench_pin(bench_timed_cpu());
	bench_pin_process(bench_world.redis.pid, -1 - bench_timed_cpu());
	r->redis_apart_p50[n] = time_singles(read_redis).p50;
	bench_pin_process(bench_world.redis.pid, INT_MIN);
}

static double ratio_of(const double *above, const double *below)
{
	double ratios[ROUNDS_MAX];

	for (unsigned int i = 0; i < rounds; i++)
		ratios[i] = below[i] > 0 ? above[i] / below[i] : 0;
	return bench_median(ratios, rounds);
}

/* The median of a copy: the rounds keep their order. */
static double middle(const double *values)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, values, rounds * sizeof(*values));
	return bench_median(sorted, rounds);
}

static void measure(size_t size, struct results *r)
{
	uint64_t missed, reads = 0;

	prepare(size);
	time_batches(read_ours, NULL);
	missed = misses();
	for (unsigned int i = 0; i < rounds; i++)
		run_round(r, i);
	reads = (uint64_t)((double)slice_ms * 1e6 / middle(r->batch_p50)) * rounds * 3;
	r->missed_percent = (double)(misses() - missed) * 100 / (double)reads;
}

/* A row whose figures are medians. The ratio says how much faster ours is, or how much longer it takes. */
struct line {
	const char *figure;
	const double *ours;
	const char *peer_name;
	const double *peer;
	enum { FASTER, LONGER } ratio;
	struct bench_bound must, goal;
	const char *note;
};

static void print_line(const struct line *l)
{
	bench_print(&(struct bench_row){.figure = l->figure,
					.unit = BENCH_NS,
					.ours = middle(l->ours),
					.peer_name = l->peer_name,
					.peer = middle(l->peer),
					.ratio = l->ratio == FASTER ? ratio_of(l->peer, l->ours)
								    : ratio_of(l->ours, l->peer),
					.must = l->must,
					.goal = l->goal,
					.note = l->note});
}

#define SHOW(...) print_line(&(struct line){__VA_ARGS__})

static const char *conditions(const struct results *r)
{
	static char note[300];

	snprintf(
		note, sizeof(note),
		"writer reached %.1f k sets/s; %.3f %% of the reads were misses; one by one p50 %.0f, p99 %.0f, p99.9 %.0f ns "
		"(%.0f ns of clock taken off)",
		middle(r->rate) / 1e3, r->missed_percent, middle(r->single_p50), middle(r->p99), middle(r->p999),
		bench_clock.cost_ns);
	return note;
}

static void show_64(const struct results *r)
{
	SHOW("hot get 64 B, p50, writer at 50 k sets/s", r->batch_p50, "memcpy", r->copy_p50, LONGER,
	     BENCH_OURS_AT_MOST(150), BENCH_OURS_AT_MOST(100), conditions(r));
	SHOW("  no writer", r->quiet_p50, "memcpy", r->copy_p50, LONGER, .note = NULL);
	SHOW("hot get 64 B, times faster than hiredis", r->batch_p50, "hiredis GET", r->redis_p50, FASTER,
	     BENCH_RATIO_AT_LEAST(200), .note = "the writer runs beside both");
	SHOW("  no writer", r->quiet_p50, "hiredis GET", r->redis_quiet_p50, FASTER, .note = NULL);
	SHOW("  no writer, server on another CPU than client", r->quiet_p50, "hiredis GET", r->redis_apart_p50,
	     FASTER, .note = "else both may share one, which spares the wake-up of the other");
	SHOW("hot get 64 B, times faster than LMDB", r->batch_p50, "mdb_get", r->lmdb_p50, FASTER,
	     .goal = BENCH_RATIO_AT_LEAST(1), .note = "in process, in one transaction, copied out");
}

static void show_churn(const struct results *r, const char *figure)
{
	SHOW(figure, r->p99, "without", r->quiet_p99, LONGER, BENCH_RATIO_AT_MOST(2), BENCH_RATIO_AT_MOST(1.2), NULL);
	SHOW("  control: that writer on another ring", r->elsewhere_p99, "without", r->quiet_p99, LONGER,
	     .note = NULL);
	SHOW("  control: without a writer, once more", r->quiet_again_p99, "without", r->quiet_p99, LONGER,
	     .note = NULL);
}

static void show_1k(const struct results *r)
{
	SHOW("hot get 1 KiB, mean, writer at 50 k sets/s", r->batch_mean, "memcpy", r->copy_mean, LONGER,
	     BENCH_RATIO_AT_MOST(2), BENCH_RATIO_AT_MOST(1.5), conditions(r));
	SHOW("  p50", r->batch_p50, "memcpy", r->copy_p50, LONGER, .note = NULL);
	SHOW("  p50, no writer", r->quiet_p50, "memcpy", r->copy_p50, LONGER, .note = NULL);
	SHOW("hot get 1 KiB, times faster than hiredis", r->batch_p50, "hiredis GET", r->redis_p50, FASTER,
	     .note = NULL);
	SHOW("hot get 1 KiB, times faster than LMDB", r->batch_p50, "mdb_get", r->lmdb_p50, FASTER, .note = NULL);
}

/* ---- two readers -------------------------------------------------------------------------------------------- */

static void *reader_begin(uint32_t number)
{
	static riptide *handles[2];

	/* READ_SHARED: both on the first agent's ring; READ_PRIVATE: each on one of its own. */
	handles[0] = bench_open(agents[0]);
	handles[1] = bench_open(agents[number]);
	return handles;
}

static void reader_work(struct bench_crowd *crowd, struct bench_member *member, uint32_t number, uint32_t phase,
			void *own)
{
	uint32_t cursor = number * (ORDER / 2);

	handle = ((riptide **)own)[phase == READ_SHARED ? 0 : 1];
	while (bench_phase(crowd) == phase) {
		for (unsigned int i = 0; i < BATCH; i++)
			read_ours(order[cursor++ % ORDER]);
		bench_did(member, BATCH);
	}
}

static void measure_two_readers(void)
{
	static const struct bench_work reading = {reader_begin, reader_work};
	struct bench_crowd *readers = bench_crowd_start(2, &reading, true);
	double shared[ROUNDS_MAX], private[ROUNDS_MAX];

	bench_crowd_rate(readers, READ_PRIVATE, slice_ms);
	for (unsigned int i = 0; i < rounds; i++) {
		bool first = i % 2;

		if (first)
			shared[i] = bench_crowd_rate(readers, READ_SHARED, slice_ms);
		private[i] = bench_crowd_rate(readers, READ_PRIVATE, slice_ms);
		if (!first)
			shared[i] = bench_crowd_rate(readers, READ_SHARED, slice_ms);
	}
	bench_crowd_end(readers);
	bench_print(&(struct bench_row){"two readers on one ring, 64 B",
					BENCH_PER_SECOND,
					middle(shared),
					"on two rings",
					middle(private),
					ratio_of(shared, private),
					BENCH_RATIO_AT_LEAST(0.95),
					{0},
					"both together, each on a CPU of its own where there are two"});
}

int main(void)
{
	static struct results small, large;

	bench_world_begin();
	rounds = bench_is_full() ? 25 : 9;
	slice_ms = bench_is_full() ? 300 : 120;
	keys = malloc(KEYS * sizeof(*keys));
	order = bench_zipf(KEYS, SKEW, ORDER, 42);
	bench_need(keys && order, "memory");
	for (uint32_t i = 0; i < KEYS; i++)
		bench_key(keys[i], i);
	bench_redis_start();
	bench_heading("Hot reads: 100,000 keys, Zipf 0.99, one reader");
	measure(64, &small);
	show_64(&small);
	show_churn(&small, "hot get 64 B, p99 with a writer");
	measure_two_readers();
	put_away();
	measure(1024, &large);
	show_1k(&large);
	show_churn(&large, "hot get 1 KiB, p99 with a writer");
	put_away();
	free(order);
	free(keys);
	return 0;
}
