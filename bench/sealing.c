/*
 * sealing.c - what encryption costs an entry on its way to the store and back, beside what the envelope costs anyway.
 *
 * Write: envelope_encode() alone, and with seal_envelope() behind it. Read: envelope_open() and the value's copy, and the same
 * behind seal_open(). Both ways are taken in turn in one run, values are random bytes, which no compression shortens.
 */
#include <sodium.h>

#include "agent/store/envelope.h"
#include "agent/store/seal.h"
#include "agent/store/store.h"
#include "bench/bench_row.h"
#include "bench/bench_time.h"
#include "bench/bench_world.h"

#define ROUNDS 2000u

static double plain_write[ROUNDS], sealed_write[ROUNDS], plain_read[ROUNDS], sealed_read[ROUNDS];

static void measure_round(unsigned int round, const struct seal_keys *keys, const struct store_name *name,
			  const unsigned char *value, size_t length, unsigned char *sink)
{
	struct envelope_input input = {
		.key = name->key,
		.key_len = name->key_len,
		.value = value,
		.value_len = length,
		.created_ms = 1,
		.version = 1,
		.writer_id = 1,
	};
	struct envelope_buffer plain, sealed, opened;
	struct envelope_view view;
	uint64_t began, encoded, sealing, reading, read, opening, end;

	began = bench_tick();
	bench_ok(envelope_encode(&input, NULL, &plain), "envelope_encode");
	encoded = bench_tick();
	bench_ok(seal_envelope(&keys->keys[0], name, plain.bytes, plain.length, &sealed), "seal_envelope");
	sealing = bench_tick();
	reading = bench_tick();
	bench_ok(envelope_open(plain.bytes, plain.length, name->key, name->key_len, &view), "envelope_open");
	bench_ok(envelope_payload(&view, sink, length), "envelope_payload");
	read = bench_tick();
	memset(sink, 0, length);
	opening = bench_tick();
	bench_ok(seal_open(keys, name, sealed.bytes, sealed.length, &opened), "seal_open");
	bench_ok(envelope_open(opened.bytes, opened.length, name->key, name->key_len, &view), "envelope_open");
	bench_ok(envelope_payload(&view, sink, length), "envelope_payload");
	end = bench_tick();
	bench_need(memcmp(sink, value, length) == 0, "an entry came back changed");
	plain_write[round] = bench_span_ns(began, encoded);
	sealed_write[round] = plain_write[round] + bench_span_ns(encoded, sealing);
	plain_read[round] = bench_span_ns(reading, read);
	sealed_read[round] = bench_span_ns(opening, end);
	envelope_buffer_fini(&plain);
	envelope_buffer_fini(&sealed);
	envelope_buffer_fini(&opened);
}

static void print_way(const char *what, const char *size, double *sealed, double *plain, unsigned int rounds)
{
	double ours = bench_median(sealed, rounds), theirs = bench_median(plain, rounds);
	char figure[80];

	snprintf(figure, sizeof(figure), "entry %s, encrypted, %s", what, size);
	bench_print(&(struct bench_row){.figure = figure,
					.unit = BENCH_NS,
					.ours = ours,
					.peer_name = "plain",
					.peer = theirs,
					.ratio = ours / theirs});
}

int main(void)
{
	static const struct {
		size_t length;
		const char *name;
	} sizes[] = {{64, "64 B"}, {1024, "1 KiB"}, {16384, "16 KiB"}, {131072, "128 KiB"}, {1048576, "1 MiB"}};
	unsigned char secret[SEAL_KEY_BYTES], *value = malloc(1u << 20), *sink = malloc(1u << 20);
	struct seal_key key = {.id = 1, .bytes = secret};
	struct seal_keys keys = {.keys = &key, .count = 1};
	struct store_name name = {.tenant = "bench",
				  .tenant_number = 1,
				  .shards = 1,
				  .generation = 1,
				  .space = 'c',
				  .key = "bench:entry",
				  .key_len = 11};

	bench_need(value && sink && sodium_init() >= 0, "memory");
	bench_world_begin();
	bench_clock_init();
	bench_pin(bench_timed_cpu());
	randombytes_buf(secret, sizeof(secret));
	randombytes_buf(value, 1u << 20);
	bench_heading("Encryption of an entry");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned int rounds = sizes[i].length > 100000 ? ROUNDS / 10 : ROUNDS;

		for (unsigned int round = 0; round < rounds; round++)
			measure_round(round, &keys, &name, value, sizes[i].length, sink);
		print_way("write", sizes[i].name, sealed_write, plain_write, rounds);
		print_way("read", sizes[i].name, sealed_read, plain_read, rounds);
	}
	free(value);
	free(sink);
	return 0;
}
