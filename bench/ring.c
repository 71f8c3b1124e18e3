/*
 * ring.c - the hot ring alone, in one process and without an agent: what the protocol itself costs.
 *
 * A segment in ordinary shared memory, 100,000 entries, reads in Zipf order. Beside it, what the machine charges for the
 * same walk: a memcpy of the same bytes where they lie in the ring, in the same order, without any look-up. The difference
 * between this table and the one of hot.c is what the library adds: handle, thread line, counters, clock, expiry, lease.
 */
#include "bench/bench_row.h"
#include "bench/bench_world.h"
#include "shm/index.h"
#include "shm/ring.h"

#define KEYS 100000u
#define ORDER (1u << 20)
#define BATCH 64
#define ROUNDS_MAX 32
#define READS 400000u

static unsigned int rounds;
static char (*keys)[BENCH_KEY + 1];
static uint32_t *order;
static struct rshm_writer writer;
static struct rshm_reader reader;
static const unsigned char **places; /* of each value in the ring */
static unsigned char sink[1024];

static void build(size_t size)
{
	struct rshm_geometry geometry;
	struct rshm_header header = {0};
	unsigned char *object;
	char value[1024];

	rshm_geometry_plan(KEYS * rshm_entry_bytes(BENCH_KEY, 0, size) * 2, 1u << 20, &geometry);
	object = mmap(NULL, geometry.object_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bench_need(object != MAP_FAILED, "memory");
	rshm_writer_format(object, &geometry, &header, "bench", 42, &writer);
	rshm_writer_publish(&writer, RSHM_POLICY_MISS, 0);
	for (uint32_t i = 0; i < KEYS; i++) {
		struct rshm_item item = {.key = keys[i],
					 .key_len = BENCH_KEY,
					 .value = value,
					 .value_len = (uint32_t)size,
					 .version = i + 1,
					 .control_b = RSHM_NEVER};

		bench_value(value, size, i);
		bench_ok(rshm_writer_put(&writer, &item), "rshm_writer_put");
	}
	bench_ok(rshm_reader_init(object, geometry.object_size, &reader), "rshm_reader_init");
	for (uint32_t i = 0; i < KEYS; i++) {
		struct rshm_found found;

		bench_need(rshm_find(&reader, rshm_hash(reader.hash_seed, keys[i], BENCH_KEY), keys[i], BENCH_KEY,
				     &found) == RSHM_FOUND,
			   "an entry of the ring");
		places[i] = found.bytes + BENCH_KEY;
	}
}

static inline void read_ring(uint32_t number, size_t size)
{
	struct rshm_found found;
	uint64_t hash = rshm_hash(reader.hash_seed, keys[number], BENCH_KEY);

	(void)size;
	bench_need(rshm_read(&reader, hash, keys[number], BENCH_KEY, sink, sizeof(sink), NULL, 0, &found) ==
			   RSHM_FOUND,
		   "an entry of the ring");
}

static inline void read_place(uint32_t number, size_t size)
{
	bench_memcpy(sink, places[number], size);
}

static inline void read_hash(uint32_t number, size_t size)
{
	uint64_t hash = rshm_hash(reader.hash_seed, keys[number], BENCH_KEY);

	(void)size;
	__asm__ volatile("" : : "r"(hash) : "memory");
}

static void put_again(uint32_t number, size_t size)
{
	struct rshm_item item = {.key = keys[number],
				 .key_len = BENCH_KEY,
				 .value = sink,
				 .value_len = (uint32_t)size,
				 .version = 1ull << 32,
				 .control_b = RSHM_NEVER};

	bench_ok(rshm_writer_put(&writer, &item), "rshm_writer_put");
}

static inline __attribute__((always_inline)) double mean_ns(void (*operation)(uint32_t, size_t), size_t size,
							    uint32_t count)
{
	static uint32_t cursor;
	uint64_t began = bench_tick();

	for (uint32_t i = 0; i < count; i++)
		operation(order[cursor++ % ORDER], size);
	return bench_span_ns(began, bench_tick()) / count;
}

static void measure(const char *what, size_t size)
{
	double ring[ROUNDS_MAX], place[ROUNDS_MAX], hash[ROUNDS_MAX], put[ROUNDS_MAX], ratio[ROUNDS_MAX],
		put_ratio[ROUNDS_MAX];
	char figure[2][60], note[80];

	build(size);
	for (unsigned int i = 0; i < rounds; i++) {
		ring[i] = mean_ns(read_ring, size, READS);
		place[i] = mean_ns(read_place, size, READS);
		hash[i] = mean_ns(read_hash, size, READS);
		ratio[i] = ring[i] / place[i];
	}
	for (unsigned int i = 0; i < rounds; i++) {
		put[i] = mean_ns(put_again, size, READS / 4);
		put_ratio[i] = put[i] / place[i];
	}
	snprintf(figure[0], sizeof(figure[0]), "ring read %s, mean", what);
	snprintf(figure[1], sizeof(figure[1]), "ring put %s, mean", what);
	snprintf(note, sizeof(note), "of it %.1f ns for the hash of the key", bench_median(hash, rounds));
	bench_print(&(struct bench_row){figure[0],
					BENCH_NS,
					bench_median(ring, rounds),
					"memcpy in place",
					bench_median(place, rounds),
					bench_median(ratio, rounds),
					{0},
					{0},
					note});
	bench_print(&(struct bench_row){figure[1],
					BENCH_NS,
					bench_median(put, rounds),
					"memcpy in place",
					bench_median(place, rounds),
					bench_median(put_ratio, rounds),
					{0},
					{0},
					"replacing, with reclaiming"});
	munmap(writer.segment, writer.segment->header.object_size);
}

int main(void)
{
	bench_world_begin();
	rounds = bench_is_full() ? 25 : 5;
	keys = malloc(KEYS * sizeof(*keys));
	places = malloc(KEYS * sizeof(*places));
	order = bench_zipf(KEYS, 0.99, ORDER, 42);
	bench_need(keys && places && order, "memory");
	for (uint32_t i = 0; i < KEYS; i++)
		bench_key(keys[i], i);
	bench_pin(bench_timed_cpu());
	bench_heading("The ring alone: 100,000 keys, Zipf 0.99, one process, no agent");
	measure("64 B", 64);
	measure("1 KiB", 1024);
	free(order);
	free(places);
	free(keys);
	return 0;
}
