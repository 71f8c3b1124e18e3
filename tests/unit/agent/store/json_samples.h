/* json_samples.h - values as applications store them: JSON lists of like records, the same ones in every run. */
#ifndef JSON_SAMPLES_H
#define JSON_SAMPLES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct json_random {
	uint64_t state; /* not 0 */
};

static inline unsigned json_draw(struct json_random *random, unsigned below)
{
	random->state ^= random->state << 13;
	random->state ^= random->state >> 7;
	random->state ^= random->state << 17;
	return (unsigned)(random->state >> 20) % below;
}

/* One of a thousand words. */
static inline const char *json_word(struct json_random *random)
{
	static const char *const parts[] = {"ba", "con", "der", "el", "fir", "gan", "ho", "in", "ka", "lor"};
	static char words[16][16];
	static unsigned next;
	char *word = words[next++ % 16];

	snprintf(word, sizeof(words[0]), "%s%s%s", parts[json_draw(random, 10)], parts[json_draw(random, 10)],
		 parts[json_draw(random, 10)]);
	return word;
}

/* Writes exactly `length` characters, and a NUL behind them; the last record is cut off. */
static inline void json_fill(struct json_random *random, char *to, size_t length)
{
	size_t used = (size_t)snprintf(to, length + 1, "{\"page\":1,\"items\":[");

	while (used < length)
		used += (size_t)snprintf(
			to + used, length + 1 - used,
			"{\"id\":%u%u,\"name\":\"%s %s\",\"email\":\"%s@%s.example.com\",\"active\":%s,"
			"\"balance\":%u.%02u,\"created_at\":\"2024-%02u-%02uT%02u:%02u:%02uZ\","
			"\"address\":{\"street\":\"%u %s street\",\"city\":\"%s\",\"zip\":\"%05u\"},"
			"\"tags\":[\"%s\",\"%s\"],\"note\":\"%s %s %s %s\"},",
			json_draw(random, 1000000), json_draw(random, 1000000), json_word(random), json_word(random),
			json_word(random), json_word(random), json_draw(random, 5) ? "true" : "false",
			json_draw(random, 10000), json_draw(random, 100), 1 + json_draw(random, 12),
			1 + json_draw(random, 28), json_draw(random, 24), json_draw(random, 60),
			json_draw(random, 60), 1 + json_draw(random, 999), json_word(random), json_word(random),
			json_draw(random, 100000), json_word(random), json_word(random), json_word(random),
			json_word(random), json_word(random), json_word(random));
}

struct json_samples {
	char *bytes;
	size_t *sizes;
	size_t count;
};

/* `count` samples of `length` bytes one after the other. */
static inline struct json_samples json_samples_make(uint64_t seed, size_t count, size_t length)
{
	struct json_samples samples = {malloc(count * length + 1), malloc(count * sizeof(size_t)), count};
	struct json_random random = {seed};

	assert_non_null(samples.bytes);
	assert_non_null(samples.sizes);
	for (size_t i = 0; i < count; i++) {
		json_fill(&random, samples.bytes + i * length, length);
		samples.sizes[i] = length;
	}
	return samples;
}

static inline void json_samples_free(struct json_samples *samples)
{
	free(samples->bytes);
	free(samples->sizes);
}

#endif
