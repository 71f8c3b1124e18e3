/*
 * replay_trace.h - a trace of reads: from a CSV file, or made by name, the same on every machine.
 *
 * A request is a key and the bytes of its value at that time. Keys are numbers; those of a file are numbered as they come.
 */
#ifndef REPLAY_TRACE_H
#define REPLAY_TRACE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_time.h"
#include "shm/index.h"
#include "shm/ring.h"

#define TRACE_KEY 12u /* bytes of a key in the ring */

struct trace {
	uint32_t *key, *size; /* of each request */
	size_t count;
	uint32_t keys;      /* distinct keys are below this */
	uint64_t footprint; /* bytes of ring that one entry of every requested key takes */
};

static inline void trace_out_of_memory(void)
{
	fprintf(stderr, "replay: out of memory\n");
	exit(1);
}

static inline void *trace_array(size_t count, size_t size)
{
	void *array = calloc(count ? count : 1, size);

	if (!array)
		trace_out_of_memory();
	return array;
}

/* Bytes of ring that an entry of this trace takes. */
static inline uint64_t trace_entry_bytes(uint32_t size)
{
	return (rshm_entry_bytes(TRACE_KEY, 0, size) + RSHM_UNIT - 1) / RSHM_UNIT * RSHM_UNIT;
}

static inline void trace_measure(struct trace *trace)
{
	uint32_t *last = trace_array(trace->keys, sizeof(*last));

	for (size_t i = 0; i < trace->count; i++)
		last[trace->key[i]] = trace->size[i] + 1;
	trace->footprint = 0;
	for (uint32_t k = 0; k < trace->keys; k++)
		trace->footprint += last[k] ? trace_entry_bytes(last[k] - 1) : 0;
	free(last);
}

static inline void trace_free(struct trace *trace)
{
	free(trace->key);
	free(trace->size);
	*trace = (struct trace){0};
}

/* ---- made by name ------------------------------------------------------------------------------------------- */

enum trace_shape {
	TRACE_ZIPF,      /* independent draws */
	TRACE_DRIFT,     /* what is popular changes: the ranks move over the keys */
	TRACE_SCAN,      /* now and then a long run over keys that are asked for once */
	TRACE_LOOP,      /* a part goes round and round over the same keys */
	TRACE_SCAN_LOOP, /* both */
};

struct trace_recipe {
	const char *name;
	enum trace_shape shape;
	double skew;
	bool mixed; /* sizes: log-normal; else all alike */
	const char *what;
};

static const struct trace_recipe trace_recipes[] = {
	{"zipf-0.6", TRACE_ZIPF, 0.6, false, "Zipf 0.6"},
	{"zipf-0.8", TRACE_ZIPF, 0.8, false, "Zipf 0.8"},
	{"zipf-1.0", TRACE_ZIPF, 1.0, false, "Zipf 1.0"},
	{"zipf-1.2", TRACE_ZIPF, 1.2, false, "Zipf 1.2"},
	{"mixed", TRACE_ZIPF, 0.9, true, "Zipf 0.9, mixed sizes"},
	{"drift", TRACE_DRIFT, 0.9, false, "Zipf 0.9, the popular keys change all the time"},
	{"drift-mixed", TRACE_DRIFT, 1.0, true, "Zipf 1.0, the same, mixed sizes"},
	{"scan", TRACE_SCAN, 0.9, false, "Zipf 0.9, a third of the requests in scans of keys never seen before"},
	{"scan-mixed", TRACE_SCAN, 1.0, true, "Zipf 1.0, the same, mixed sizes"},
	{"loop", TRACE_LOOP, 0.9, false, "Zipf 0.9, a third of the requests go round over a tenth of the keys"},
	{"scan-loop", TRACE_SCAN_LOOP, 0.9, true, "Zipf 0.9, a quarter scans, a quarter round, mixed sizes"},
};
#define TRACE_RECIPES (sizeof(trace_recipes) / sizeof(trace_recipes[0]))

static inline double trace_uniform(uint64_t *state)
{
	return (double)(bench_random(state) >> 11) / 9007199254740992.0;
}

/* Log-normal around the mean, at most 16 times it; a key's size is the same in every run. */
static inline uint32_t trace_size_of(uint32_t key, uint32_t mean, bool mixed)
{
	uint64_t state = ((uint64_t)key + 1) * 0x9e3779b97f4a7c15u;
	double normal = -6, size;

	if (!mixed)
		return mean;
	(void)bench_random(&state);
	for (unsigned int i = 0; i < 12; i++)
		normal += trace_uniform(&state);
	size = mean * exp(normal - 0.5);
	return size < 16 ? 16 : size > 16.0 * mean ? 16 * mean : (uint32_t)size;
}

#define TRACE_SCAN_LEN 4096u  /* requests of a scan */
#define TRACE_DRIFT_STEPS 8.0 /* a trace's drift replaces the popular keys so many times */

/* What a request asks for, the draw of a popular key given. Numbers above `keys` are asked for once. */
struct trace_state {
	uint32_t keys, loop_next, scan_left, fresh;
	size_t count;
};

static inline uint32_t trace_next(struct trace_state *s, const struct trace_recipe *recipe, uint32_t drawn, size_t i,
				  uint64_t *seed)
{
	bool scans = recipe->shape == TRACE_SCAN || recipe->shape == TRACE_SCAN_LOOP;
	bool loops = recipe->shape == TRACE_LOOP || recipe->shape == TRACE_SCAN_LOOP;
	uint32_t share = recipe->shape == TRACE_SCAN_LOOP ? 4 : 3;

	if (scans && s->scan_left == 0 && bench_random(seed) % (TRACE_SCAN_LEN * (share - 1)) == 0)
		s->scan_left = TRACE_SCAN_LEN;
	if (s->scan_left > 0 && bench_random(seed) % 8 != 0) {
		s->scan_left--;
		return s->keys + s->fresh++;
	}
	if (loops && bench_random(seed) % share == 0)
		return s->loop_next++ % (s->keys / 10);
	if (recipe->shape == TRACE_DRIFT) {
		/* Each key's popularity passes to another key at a time of its own. */
		double when = (double)((drawn * 2654435761u) & 0xffffffu) / 0x1000000;
		uint32_t turn = (uint32_t)((double)i / (double)s->count * TRACE_DRIFT_STEPS + when);

		return (drawn + turn * (s->keys / 16 + 1)) % s->keys;
	}
	return drawn;
}

/* `keys` keys with values of `mean` bytes. The caller frees it. */
static inline void trace_make(const struct trace_recipe *recipe, uint32_t keys, uint32_t mean, size_t count,
			      struct trace *ret)
{
	struct trace_state s = {.keys = keys, .count = count};
	uint64_t seed = 20240601;
	uint32_t *drawn = bench_zipf(keys, recipe->skew, count, seed);

	if (!drawn)
		trace_out_of_memory();
	*ret = (struct trace){.key = drawn, .size = trace_array(count, sizeof(*ret->size)), .count = count};
	for (size_t i = 0; i < count; i++) {
		ret->key[i] = trace_next(&s, recipe, drawn[i], i, &seed);
		ret->size[i] = trace_size_of(ret->key[i], mean, recipe->mixed);
	}
	ret->keys = keys + s.fresh;
	trace_measure(ret);
}

/* ---- from a file -------------------------------------------------------------------------------------------- */

/* Numbers for the keys of a file: open addressing over their 64-bit hashes. */
struct trace_names {
	uint64_t *hash;
	uint32_t *number;
	size_t capacity;
	uint32_t count;
};

static inline void trace_names_grow(struct trace_names *names)
{
	struct trace_names old = *names;

	names->capacity = old.capacity ? old.capacity * 2 : 1u << 16;
	names->hash = trace_array(names->capacity, sizeof(*names->hash));
	names->number = trace_array(names->capacity, sizeof(*names->number));
	for (size_t i = 0; i < old.capacity; i++) {
		size_t at = old.hash[i] & (names->capacity - 1);

		if (!old.hash[i])
			continue;
		while (names->hash[at])
			at = (at + 1) & (names->capacity - 1);
		names->hash[at] = old.hash[i];
		names->number[at] = old.number[i];
	}
	free(old.hash);
	free(old.number);
}

static inline uint32_t trace_number_of(struct trace_names *names, const char *key, size_t len)
{
	uint64_t hash = rshm_hash(1, key, len) | 1;
	size_t at;

	if ((size_t)names->count * 2 >= names->capacity)
		trace_names_grow(names);
	for (at = hash & (names->capacity - 1); names->hash[at]; at = (at + 1) & (names->capacity - 1))
		if (names->hash[at] == hash)
			return names->number[at];
	names->hash[at] = hash;
	names->number[at] = names->count;
	return names->count++;
}

static inline void trace_append(struct trace *trace, size_t *capacity, uint32_t key, uint32_t size)
{
	if (trace->count == *capacity) {
		*capacity = *capacity ? *capacity * 2 : 1u << 16;
		trace->key = realloc(trace->key, *capacity * sizeof(*trace->key));
		trace->size = realloc(trace->size, *capacity * sizeof(*trace->size));
		if (!trace->key || !trace->size)
			trace_out_of_memory();
	}
	trace->key[trace->count] = key;
	trace->size[trace->count++] = size;
}

/* Lines of "time,key,size"; a first line that has no number for its size is a heading. 0, or the line that is wrong. */
static inline size_t trace_read(FILE *file, struct trace *ret)
{
	struct trace_names names = {0};
	size_t capacity = 0, line_number = 0, wrong = 0, room = 0;
	char *line = NULL;

	*ret = (struct trace){0};
	while (!wrong && getline(&line, &room, file) >= 0) {
		char *key = strchr(line, ','), *comma = strrchr(line, ','), *end = NULL;
		unsigned long size = comma && comma != key ? strtoul(comma + 1, &end, 10) : 0;

		line_number++;
		if (line[strspn(line, " \t\r\n")] == '\0')
			continue;
		if (!end || end == comma + 1 || end[strspn(end, " \t\r\n")] != '\0' || size > 1u << 30)
			wrong = line_number == 1 ? 0 : line_number;
		else
			trace_append(ret, &capacity, trace_number_of(&names, key + 1, (size_t)(comma - key - 1)),
				     (uint32_t)size);
	}
	ret->keys = names.count;
	free(line);
	free(names.hash);
	free(names.number);
	if (!wrong)
		trace_measure(ret);
	return wrong;
}

#endif
