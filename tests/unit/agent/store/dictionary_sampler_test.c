#include "agent/store/dictionary_sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <sodium.h>

#include "agent/store/compress.h"
#include "tests/unit/agent/store/json_samples.h"

#define JSON "application/json"

static struct dictionary_sampler *make_sampler(size_t stream_bytes, size_t stream_max, uint64_t idle_ms)
{
	struct dictionary_sampler_options options = {
		.stream_bytes = stream_bytes, .stream_max = stream_max, .sample_max = 2048, .idle_ms = idle_ms};
	struct dictionary_sampler *sampler;

	assert_int_equal(dictionary_sampler_create(&options, &sampler), RSHM_OK);
	return sampler;
}

static void sampler_keeps_its_bound_with_lengths_of_all_kinds(void **state)
{
	struct dictionary_sampler *sampler = make_sampler(50000, 0, 0);
	struct json_samples text = json_samples_make(1, 1, 4096);
	struct json_random random = {3};
	struct dictionary_stream stream;
	size_t sampled = 0;

	(void)state;
	for (size_t i = 0; i < 20000; i++) {
		size_t length = json_draw(&random, 3000);

		dictionary_sampler_feed(sampler, "acme", JSON, strlen(JSON), text.bytes, length);
		sampled += length >= DICTIONARY_SAMPLE_MIN && length <= 2048;
		if (i % 100 == 0 && sampled > 0) {
			assert_int_equal(dictionary_sampler_list(sampler, &stream, 1), 1);
			assert_true(stream.bytes + stream.count * 48 <= 50000);
			assert_int_equal(stream.seen, sampled);
		}
	}
	/* And it is nearly used up. */
	assert_true(stream.bytes + stream.count * 48 > 40000);
	assert_string_equal(stream.tenant, "acme");
	assert_string_equal(stream.content_type, JSON);
	dictionary_sampler_destroy(&sampler);
	assert_null(sampler);
	json_samples_free(&text);
}

static void sampler_keeps_early_and_late_values_alike(void **state)
{
	struct dictionary_sampler *sampler = make_sampler(100000, 0, 0);
	struct dictionary_samples samples;
	uint32_t value[64] = {0};
	size_t early = 0;

	(void)state;
	/* 328 samples of 256 bytes fit; the 10 000 values carry their numbers. */
	for (value[0] = 0; value[0] < 10000; value[0]++)
		dictionary_sampler_feed(sampler, "acme", JSON, strlen(JSON), value, sizeof value);
	assert_int_equal(dictionary_sampler_copy(sampler, "acme", JSON, &samples), RSHM_OK);
	assert_int_equal(samples.count, 328);
	assert_int_equal(samples.total, 328 * 256);
	for (size_t i = 0; i < samples.count; i++) {
		uint32_t number;

		assert_int_equal(samples.sizes[i], sizeof value);
		memcpy(&number, (char *)samples.bytes + i * sizeof value, sizeof number);
		early += number < 5000;
	}
	/* Half of them but for chance: six standard deviations. */
	assert_in_range(early, 164 - 55, 164 + 55);
	dictionary_samples_fini(&samples);
	assert_null(samples.bytes);
	dictionary_sampler_destroy(&sampler);
}

static void sampler_tells_tenants_and_types_apart_within_a_number_of_pairs(void **state)
{
	struct dictionary_sampler *sampler = make_sampler(10000, 3, 3600000);
	struct dictionary_samples samples;
	struct dictionary_stream streams[3];
	char value[100], longer[80];

	(void)state;
	memset(longer, 'x', sizeof longer);
	longer[65] = '\0';
	memset(value, 'a', sizeof value);
	dictionary_sampler_feed(sampler, "acme", JSON, strlen(JSON), value, sizeof value);
	memset(value, 'b', sizeof value);
	dictionary_sampler_feed(sampler, "acme", NULL, 0, value, sizeof value);
	memset(value, 'c', sizeof value);
	dictionary_sampler_feed(sampler, "other", JSON, strlen(JSON), value, sizeof value);
	/* No room for a fourth pair, and nothing to sample in these. */
	dictionary_sampler_feed(sampler, "fourth", JSON, strlen(JSON), value, sizeof value);
	dictionary_sampler_feed(sampler, "acme", longer, 65, value, sizeof value);
	dictionary_sampler_feed(sampler, longer, JSON, strlen(JSON), value, sizeof value);
	dictionary_sampler_feed(sampler, "acme", "a\0b", 3, value, sizeof value);
	dictionary_sampler_feed(sampler, "acme", JSON, strlen(JSON), value, DICTIONARY_SAMPLE_MIN - 1);
	assert_int_equal(dictionary_sampler_list(sampler, streams, 3), 3);
	assert_int_equal(dictionary_sampler_copy(sampler, "fourth", JSON, &samples), RSHM_MISS);
	assert_int_equal(dictionary_sampler_copy(sampler, "acme", JSON, &samples), RSHM_OK);
	assert_int_equal(samples.count, 1);
	assert_int_equal(((char *)samples.bytes)[0], 'a');
	dictionary_samples_fini(&samples);
	assert_int_equal(dictionary_sampler_copy(sampler, "acme", "", &samples), RSHM_OK);
	assert_int_equal(((char *)samples.bytes)[99], 'b');
	dictionary_samples_fini(&samples);
	/* A pair that is forgotten makes room. */
	assert_int_equal(dictionary_sampler_forget(sampler, "acme", JSON), RSHM_OK);
	assert_int_equal(dictionary_sampler_forget(sampler, "acme", JSON), RSHM_MISS);
	dictionary_sampler_feed(sampler, "fourth", JSON, strlen(JSON), value, sizeof value);
	assert_int_equal(dictionary_sampler_copy(sampler, "fourth", JSON, &samples), RSHM_OK);
	dictionary_samples_fini(&samples);
	assert_int_equal(dictionary_sampler_copy(sampler, "other", JSON, &samples), RSHM_OK);
	assert_int_equal(((char *)samples.bytes)[0], 'c');
	dictionary_samples_fini(&samples);
	dictionary_sampler_destroy(&sampler);
}

static void idle_pair_of_the_sampler_gives_way(void **state)
{
	struct dictionary_sampler *sampler = make_sampler(10000, 1, 1);
	struct dictionary_samples samples;
	char value[100] = "x";

	(void)state;
	dictionary_sampler_feed(sampler, "acme", JSON, strlen(JSON), value, sizeof value);
	for (int i = 0; i < 1000 && dictionary_sampler_copy(sampler, "other", JSON, &samples) == RSHM_MISS; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
		dictionary_sampler_feed(sampler, "other", JSON, strlen(JSON), value, sizeof value);
	}
	assert_int_equal(samples.count, 1);
	dictionary_samples_fini(&samples);
	assert_int_equal(dictionary_sampler_copy(sampler, "acme", JSON, &samples), RSHM_MISS);
	dictionary_sampler_destroy(&sampler);
}

static void sampler_refuses_options_that_make_no_sense(void **state)
{
	static const struct dictionary_sampler_options bad[] = {
		{.stream_bytes = 1000},
		{.stream_bytes = 1000, .sample_max = 1000},
		{.stream_bytes = (size_t)1 << 30},
		{.stream_max = 100000},
	};
	struct dictionary_sampler *sampler = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(dictionary_sampler_create(&bad[i], &sampler), RSHM_E_INVALID);
	assert_null(sampler);
	dictionary_sampler_destroy(&sampler);
}

static void dictionary_is_trained_from_what_the_sampler_kept(void **state)
{
	struct dictionary_sampler *sampler = make_sampler(300000, 0, 0);
	struct json_samples text = json_samples_make(1, 2000, 1024);
	struct dictionary_samples samples;
	struct dictionary_training training = {.tenant = "acme", .content_type = JSON, .max_bytes = 8192};
	struct dictionary *dictionary = NULL;

	(void)state;
	for (size_t i = 0; i < text.count; i++)
		dictionary_sampler_feed(sampler, "acme", JSON, strlen(JSON), text.bytes + i * 1024, 1024);
	assert_int_equal(dictionary_sampler_copy(sampler, "acme", JSON, &samples), RSHM_OK);
	training.samples = samples.bytes;
	training.sizes = samples.sizes;
	training.count = samples.count;
	assert_int_equal(dictionary_train(&training, &dictionary), RIPTIDE_COMPRESSION ? RSHM_OK : RSHM_E_FORMAT);
	assert_int_equal(dictionary != NULL, RIPTIDE_COMPRESSION);
	dictionary_unref(&dictionary);
	dictionary_samples_fini(&samples);
	dictionary_sampler_destroy(&sampler);
	json_samples_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sampler_keeps_its_bound_with_lengths_of_all_kinds),
		cmocka_unit_test(sampler_keeps_early_and_late_values_alike),
		cmocka_unit_test(sampler_tells_tenants_and_types_apart_within_a_number_of_pairs),
		cmocka_unit_test(idle_pair_of_the_sampler_gives_way),
		cmocka_unit_test(sampler_refuses_options_that_make_no_sense),
		cmocka_unit_test(dictionary_is_trained_from_what_the_sampler_kept),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
