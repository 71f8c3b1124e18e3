#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "shm/layout.h"
#include "shm/order.h"
#include "tests/support/mini_agent.h"

/* What goes through the channel: pieces, batches, deadlines, many threads, an agent that misbehaves. */

#define TIMEOUT_MS 300u

struct fixture {
	struct mini_agent agent;
	riptide *handle;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct riptide_options options = {.size = sizeof(options), .timeout_ms = 30000};

	mini_agent_start(&f->agent);
	options.socket = f->agent.socket;
	if (riptide_open(&options, &f->handle) != RIPTIDE_OK)
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	riptide_close(&f->handle);
	mini_agent_stop(&f->agent);
	free(f);
	return 0;
}

/* The same handle with little patience. */
static void reopen_impatient(struct fixture *f, uint32_t timeout_ms)
{
	struct riptide_options options = {
		.size = sizeof(options), .timeout_ms = timeout_ms, .socket = f->agent.socket};

	riptide_close(&f->handle);
	assert_int_equal(riptide_open(&options, &f->handle), RIPTIDE_OK);
}

static uint64_t elapsed_ms(struct timespec since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)((now.tv_sec - since.tv_sec) * 1000 + (now.tv_nsec - since.tv_nsec) / 1000000);
}

static unsigned char *pattern(size_t length, unsigned int seed)
{
	unsigned char *bytes = malloc(length + 1);

	for (size_t i = 0; i < length; i++)
		bytes[i] = (unsigned char)((i * 2654435761u + seed) >> 7);
	return bytes;
}

static void values_of_every_size_come_back_whole(void **state)
{
	static const size_t sizes[] = {0, 1, 4093, 4096, 4097, 8192, 69627, 69632, 69700, 200000, 2u << 20};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned char *bytes = pattern(sizes[i], (unsigned int)i);
		struct riptide_value value;
		uint64_t version = 0;

		assert_int_equal(riptide_set(f->handle, "big", 3, bytes, sizes[i], NULL, &version), RIPTIDE_OK);
		assert_true(version > 0);
		assert_int_equal(riptide_get(f->handle, "big", 3, &value), RIPTIDE_OK);
		assert_int_equal(value.length, sizes[i]);
		assert_memory_equal(value.data, bytes, sizes[i]);
		assert_true(value.info.version == version);
		riptide_value_free(&value);
		free(bytes);
	}
	assert_true(f->agent.knobs->pieces > f->agent.knobs->requests);
}

static void big_metadata_is_cut_from_the_value_in_the_right_place(void **state)
{
	struct fixture *f = *state;
	unsigned char *bytes = pattern(300000, 1), *copy = malloc(300000);
	char *text = malloc(60001);
	struct riptide_metadata metadata = {.source = text};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};
	struct riptide_value value;
	struct riptide_info info;
	size_t length;

	memset(text, 'm', 60000);
	text[60000] = '\0';
	assert_int_equal(riptide_set(f->handle, "k", 1, bytes, 300000, &options, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_get(f->handle, "k", 1, &value), RIPTIDE_OK);
	assert_int_equal(value.length, 300000);
	assert_memory_equal(value.data, bytes, 300000);
	assert_int_equal(value.metadata_length, 60005);
	assert_memory_equal((char *)value.metadata + 5, text, 60000);
	assert_int_equal(riptide_get_into(f->handle, "k", 1, copy, 300000, &length, &info), RIPTIDE_OK);
	assert_int_equal(length, 300000);
	assert_int_equal(info.metadata_length, 60005);
	assert_memory_equal(copy, bytes, 300000);
	assert_int_equal(riptide_get_into(f->handle, "k", 1, copy, 299999, &length, &info), RIPTIDE_ETOOSMALL);
	assert_int_equal(length, 300000);
	riptide_value_free(&value);
	free(bytes);
	free(copy);
	free(text);
}

static void an_entry_above_the_agents_limit_is_refused_unsent(void **state)
{
	struct fixture *f = *state;
	char *bytes = malloc((20u << 20) + 1);

	memset(bytes, 1, (20u << 20) + 1);
	assert_int_equal(riptide_set(f->handle, "k", 1, bytes, (20u << 20) + 1, NULL, NULL), RIPTIDE_ETOOBIG);
	assert_int_equal(f->agent.knobs->requests, 0);
	free(bytes);
}

static void delete_and_touch_tell_whether_there_was_an_entry(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(riptide_delete(f->handle, "k", 1), RIPTIDE_MISS);
	assert_int_equal(riptide_touch(f->handle, "k", 1, 1000), RIPTIDE_MISS);
	assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, NULL, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_touch(f->handle, "k", 1, 1000), RIPTIDE_OK);
	assert_int_equal(riptide_delete(f->handle, "k", 1), RIPTIDE_OK);
	assert_int_equal(riptide_exists(f->handle, "k", 1, NULL), RIPTIDE_MISS);
}

static void ping_tells_its_time(void **state)
{
	struct fixture *f = *state;
	uint64_t ns = 0;

	assert_int_equal(riptide_ping(f->handle, &ns), RIPTIDE_OK);
	assert_true(ns > 0 && ns < 5000000000u);
}

/* ---- batches ------------------------------------------------------------------------------------------------ */

#define ITEMS 1500

static void fill(struct riptide_item *items, char (*keys)[16], const unsigned char *values)
{
	memset(items, 0, ITEMS * sizeof(*items));
	for (int i = 0; i < ITEMS; i++) {
		items[i].key_length = (size_t)snprintf(keys[i], 16, "item-%d", i);
		items[i].key = keys[i];
		items[i].value = values + i;
		items[i].value_length = (size_t)i;
	}
}

static void batches_larger_than_a_submission_are_answered_item_by_item(void **state)
{
	struct fixture *f = *state;
	struct riptide_item *items = calloc(ITEMS, sizeof(*items));
	char(*keys)[16] = calloc(ITEMS, 16);
	unsigned char *values = pattern(2 * ITEMS, 5);

	fill(items, keys, values);
	assert_int_equal(riptide_set_batch(f->handle, items, ITEMS), RIPTIDE_OK);
	for (int i = 0; i < ITEMS; i++)
		assert_true(items[i].status == RIPTIDE_OK && items[i].version > 0);
	assert_true(f->agent.knobs->taken[RSHM_OP_SET_BATCH] > 1);
	fill(items, keys, values);
	items[7].key = "absent";
	items[7].key_length = 6;
	items[8].key_length = 0;
	f->agent.knobs->batch_limit = 100;
	assert_int_equal(riptide_get_batch(f->handle, items, ITEMS), RIPTIDE_OK);
	for (int i = 0; i < ITEMS; i++) {
		int expected = i == 7 ? RIPTIDE_MISS : i == 8 ? RIPTIDE_EINVALID : RIPTIDE_OK;

		assert_int_equal(items[i].status, expected);
		if (expected != RIPTIDE_OK)
			continue;
		assert_int_equal(items[i].value_length, i);
		assert_memory_equal(items[i].value, values + i, (size_t)i);
	}
	riptide_batch_free(items, ITEMS);
	fill(items, keys, values);
	assert_int_equal(riptide_delete_batch(f->handle, items, ITEMS), RIPTIDE_OK);
	for (int i = 0; i < ITEMS; i++)
		assert_int_equal(items[i].status, RIPTIDE_OK);
	assert_int_equal(riptide_delete_batch(f->handle, items, 10), RIPTIDE_OK);
	assert_int_equal(items[0].status, RIPTIDE_MISS);
	free(items);
	free(keys);
	free(values);
}

static void an_item_too_big_for_a_submission_travels_alone(void **state)
{
	struct fixture *f = *state;
	unsigned char *big = pattern(3u << 20, 3);
	struct riptide_item items[3] = {
		{.key = "a", .key_length = 1, .value = "1", .value_length = 1},
		{.key = "b", .key_length = 1, .value = big, .value_length = 3u << 20},
		{.key = "c", .key_length = 1, .value = "3", .value_length = 1},
	};

	assert_int_equal(riptide_set_batch(f->handle, items, 3), RIPTIDE_OK);
	for (int i = 0; i < 3; i++)
		assert_int_equal(items[i].status, RIPTIDE_OK);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_SET], 1);
	assert_int_equal(riptide_get_batch(f->handle, items, 3), RIPTIDE_OK);
	assert_int_equal(items[1].result.length, 3u << 20);
	assert_memory_equal(items[1].result.data, big, 3u << 20);
	assert_memory_equal(items[2].result.data, "3", 2);
	riptide_batch_free(items, 3);
	assert_null(items[1].value);
	free(big);
}

#define MANY 4000 /* heads of answers that do not fit one piece */

struct many {
	riptide *handle;
	struct riptide_item items[MANY];
	char keys[MANY][16];
	int status;
};

static void *set_many(void *context)
{
	static const struct riptide_set_options absent = {.size = sizeof(absent), .condition = RIPTIDE_IF_ABSENT};
	struct many *many = context;

	for (int i = 0; i < MANY; i++) {
		many->items[i].key = many->keys[i];
		many->items[i].key_length = (size_t)snprintf(many->keys[i], sizeof(many->keys[i]), "once-%d", i);
		many->items[i].value = "v";
		many->items[i].value_length = 1;
		many->items[i].options = &absent;
	}
	many->status = riptide_set_batch(many->handle, many->items, MANY);
	return NULL;
}

/* It was answered, so it has happened: it is not sent to the agent's successor, and nobody is told that it is undone. */
static void a_batch_write_whose_answer_was_cut_short_is_not_repeated(void **state)
{
	struct fixture *f = *state;
	struct many *many = calloc(1, sizeof(*many));
	pthread_t thread;
	siginfo_t ended;

	assert_non_null(many);
	many->handle = f->handle;
	f->agent.knobs->die_on_rest = RSHM_OP_SET_BATCH;
	assert_int_equal(pthread_create(&thread, NULL, set_many, many), 0);
	assert_int_equal(waitid(P_PID, (id_t)f->agent.pid, &ended, WEXITED), 0);
	f->agent.knobs->die_on_rest = 0;
	mini_agent_restart(&f->agent);
	pthread_join(thread, NULL);
	assert_int_equal(many->status, RIPTIDE_EUNKNOWN);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(many->items[i].status, RIPTIDE_EUNKNOWN);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_SET_BATCH], 1);
	assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_OK);
	free(many);
}

/* ---- time --------------------------------------------------------------------------------------------------- */

static void a_request_never_taken_times_out_and_changed_nothing(void **state)
{
	struct fixture *f = *state;
	struct timespec began;

	reopen_impatient(f, TIMEOUT_MS);
	f->agent.knobs->hold = 1;
	clock_gettime(CLOCK_MONOTONIC, &began);
	assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, NULL, NULL), RIPTIDE_ETIMEDOUT);
	assert_true(elapsed_ms(began) >= TIMEOUT_MS - 20 && elapsed_ms(began) < TIMEOUT_MS + 200);
	f->agent.knobs->hold = 0;
	assert_int_equal(riptide_get(f->handle, "k", 1, &(struct riptide_value){.data = NULL}), RIPTIDE_MISS);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_SET], 0);
}

static void a_write_taken_and_not_answered_may_have_happened(void **state)
{
	struct fixture *f = *state;
	struct timespec began;
	struct riptide_value value;

	reopen_impatient(f, TIMEOUT_MS);
	f->agent.knobs->take_only = 1;
	clock_gettime(CLOCK_MONOTONIC, &began);
	assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, NULL, NULL), RIPTIDE_EUNKNOWN);
	assert_true(elapsed_ms(began) < TIMEOUT_MS + 200);
	assert_int_equal(riptide_delete(f->handle, "k", 1), RIPTIDE_EUNKNOWN);
	assert_int_equal(riptide_get(f->handle, "k", 1, &value), RIPTIDE_ETIMEDOUT);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_SET], 1);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_DELETE], 1);
}

static void all_slots_given_up_still_ends_in_time(void **state)
{
	struct fixture *f = *state;
	struct timespec began;

	reopen_impatient(f, 60);
	f->agent.knobs->take_only = 1;
	for (unsigned int i = 0; i < RSHM_SLOTS + 1; i++) {
		clock_gettime(CLOCK_MONOTONIC, &began);
		assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_ETIMEDOUT);
		assert_true(elapsed_ms(began) < 260);
	}
}

static void slots_given_up_come_back(void **state)
{
	struct fixture *f = *state;

	reopen_impatient(f, 60);
	f->agent.knobs->hold = 1;
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_ETIMEDOUT);
	f->agent.knobs->hold = 0;
	for (unsigned int i = 0; i < 4 * RSHM_SLOTS; i++)
		assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_OK);
}

/* ---- many threads ------------------------------------------------------------------------------------------- */

#define THREADS 48 /* more than slots */
#define ROUNDS 20

struct runner {
	riptide *handle;
	unsigned int number;
	const char *wrong;
};

static void *run(void *context)
{
	struct runner *runner = context;
	unsigned char *bytes = pattern(30000, runner->number);
	char key[16];

	for (unsigned int i = 0; i < ROUNDS && !runner->wrong; i++) {
		size_t length = (i * 7919 + runner->number * 104729) % 30000;
		int n = snprintf(key, sizeof(key), "t%u-%u", runner->number, i % 3);
		struct riptide_value value;

		if (riptide_set(runner->handle, key, (size_t)n, bytes, length, NULL, NULL) != RIPTIDE_OK)
			runner->wrong = "set";
		else if (riptide_get(runner->handle, key, (size_t)n, &value) != RIPTIDE_OK)
			runner->wrong = "get";
		else if (value.length != length || memcmp(value.data, bytes, length) != 0)
			runner->wrong = "value";
		else
			riptide_value_free(&value);
	}
	free(bytes);
	return NULL;
}

static void more_threads_than_slots_and_blocks_are_all_served(void **state)
{
	struct fixture *f = *state;
	struct runner runners[THREADS];
	pthread_t threads[THREADS];

	for (unsigned int i = 0; i < THREADS; i++) {
		runners[i] = (struct runner){f->handle, i, NULL};
		assert_int_equal(pthread_create(&threads[i], NULL, run, &runners[i]), 0);
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_string_equal(runners[i].wrong ? runners[i].wrong : "", "");
	}
}

static void *ping_for_ever(void *handle)
{
	for (;;) {
		(void)riptide_ping(handle, NULL);
		pthread_testcancel();
	}
	return NULL;
}

static void a_cancelled_thread_leaves_the_handle_usable(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	for (int i = 0; i < 10; i++) {
		struct timespec pause = {.tv_nsec = 300000 * i};

		assert_int_equal(pthread_create(&thread, NULL, ping_for_ever, f->handle), 0);
		nanosleep(&pause, NULL);
		/* A call under way runs to its end. */
		pthread_cancel(thread);
		pthread_join(thread, NULL);
		assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_OK);
	}
}

/* ---- a peer that breaks the rules --------------------------------------------------------------------------- */

static void an_answer_whose_lengths_lie_drops_the_channel(void **state)
{
	struct fixture *f = *state;
	struct riptide_value value;

	assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, NULL, NULL), RIPTIDE_OK);
	f->agent.knobs->bad_answer = 1;
	assert_int_equal(riptide_get(f->handle, "x", 1, &value), RIPTIDE_EPROTOCOL);
	f->agent.knobs->bad_answer = 0;
	assert_int_equal(riptide_get(f->handle, "x", 1, &value), RIPTIDE_MISS);
	assert_int_equal(f->agent.knobs->attaches, 2);
}

static void a_dropped_channel_is_attached_anew(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 5; i++) {
		rshm_store_release32(&f->agent.knobs->drop_all, 1);
		while (rshm_load_acquire32(&f->agent.knobs->drop_all))
			rshm_pause();
		assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, NULL, NULL), RIPTIDE_OK);
	}
	assert_int_equal(f->agent.knobs->attaches, 6);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(values_of_every_size_come_back_whole),
		CASE(big_metadata_is_cut_from_the_value_in_the_right_place),
		CASE(an_entry_above_the_agents_limit_is_refused_unsent),
		CASE(delete_and_touch_tell_whether_there_was_an_entry),
		CASE(ping_tells_its_time),
		CASE(batches_larger_than_a_submission_are_answered_item_by_item),
		CASE(a_batch_write_whose_answer_was_cut_short_is_not_repeated),
		CASE(an_item_too_big_for_a_submission_travels_alone),
		CASE(a_request_never_taken_times_out_and_changed_nothing),
		CASE(a_write_taken_and_not_answered_may_have_happened),
		CASE(all_slots_given_up_still_ends_in_time),
		CASE(slots_given_up_come_back),
		CASE(more_threads_than_slots_and_blocks_are_all_served),
		CASE(a_cancelled_thread_leaves_the_handle_usable),
		CASE(an_answer_whose_lengths_lie_drops_the_channel),
		CASE(a_dropped_channel_is_attached_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
