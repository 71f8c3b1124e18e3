#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "shm/layout.h"
#include "tests/support/mini_agent.h"

/* Conditional and counting changes, life times, many entries at once: what is asked of the agent, and what is made of it. */

struct fixture {
	struct mini_agent agent;
	riptide *handle;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct riptide_options options = {.size = sizeof(options), .timeout_ms = 2000};

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

static void put(struct fixture *f, const char *key, const char *value)
{
	assert_int_equal(riptide_set(f->handle, key, strlen(key), value, strlen(value), NULL, NULL), RIPTIDE_OK);
}

static void expect(struct fixture *f, const char *key, const char *value)
{
	char buffer[64];
	size_t length;

	assert_int_equal(riptide_get_into(f->handle, key, strlen(key), buffer, sizeof(buffer), &length, NULL),
			 RIPTIDE_OK);
	assert_int_equal(length, strlen(value));
	assert_memory_equal(buffer, value, length);
}

static void a_set_tells_the_agent_how_it_is_to_be_done(void **state)
{
	struct fixture *f = *state;
	uint32_t flags = 99;
	struct riptide_set_options options = {
		.size = sizeof(options),
		.ttl_ms = 12345,
		.condition = RIPTIDE_IF_ABSENT,
		.write_mode = RIPTIDE_WRITE_BEHIND,
		.compression = RIPTIDE_COMPRESS_ZSTD,
		.ret_flags = &flags,
	};
	const struct rshm_request *last = &f->agent.knobs->last;

	assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, &options, NULL), RIPTIDE_OK);
	assert_int_equal(last->change, rshm_change(RSHM_IF_ABSENT, RSHM_WRITE_BEHIND, RSHM_COMPRESS_ZSTD));
	assert_int_equal(last->ttl_ms, 12345);
	assert_int_equal(flags, RIPTIDE_ACCEPTED);
	options.condition = RIPTIDE_ALWAYS;
	options.write_mode = RIPTIDE_WRITE_THROUGH;
	assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, &options, NULL), RIPTIDE_OK);
	assert_int_equal(flags, 0);
}

static void a_condition_that_does_not_hold_is_a_conflict(void **state)
{
	struct fixture *f = *state;
	uint32_t flags = 99;
	struct riptide_set_options absent = {sizeof(absent), .condition = RIPTIDE_IF_ABSENT, .ret_flags = &flags};
	struct riptide_set_options present = {sizeof(present), .condition = RIPTIDE_IF_PRESENT};
	uint64_t first = 0, version = 77;

	assert_int_equal(riptide_set(f->handle, "k", 1, "1", 1, &present, &version), RIPTIDE_CONFLICT);
	assert_int_equal(version, 0);
	assert_int_equal(riptide_set(f->handle, "k", 1, "2", 1, &absent, &first), RIPTIDE_OK);
	flags = 99;
	assert_int_equal(riptide_set(f->handle, "k", 1, "3", 1, &absent, &version), RIPTIDE_CONFLICT);
	assert_true(version == first);
	assert_int_equal(flags, 99);
	expect(f, "k", "2");
	assert_int_equal(riptide_set(f->handle, "k", 1, "4", 1, &present, NULL), RIPTIDE_OK);
	expect(f, "k", "4");
}

static void options_that_mean_nothing_are_refused_unsent(void **state)
{
	struct fixture *f = *state;
	struct riptide_set_options wrong[] = {
		{.size = sizeof(wrong[0]) - 1},
		{.size = sizeof(wrong[0]), .condition = (enum riptide_condition)3},
		{.size = sizeof(wrong[0]), .write_mode = (enum riptide_write_mode)3},
		{.size = sizeof(wrong[0]), .compression = (enum riptide_compression)5},
		{.size = sizeof(wrong[0]), .condition = (enum riptide_condition) - 1},
	};
	struct riptide_set_options absent = {sizeof(absent), .condition = RIPTIDE_IF_ABSENT};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, &wrong[i], NULL), RIPTIDE_EINVALID);
		assert_int_equal(riptide_cas(f->handle, "k", 1, 0, "v", 1, &wrong[i], NULL), RIPTIDE_EINVALID);
		assert_int_equal(riptide_incr(f->handle, "k", 1, 1, &wrong[i], NULL), RIPTIDE_EINVALID);
	}
	assert_int_equal(riptide_cas(f->handle, "k", 1, 0, "v", 1, &absent, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_incr(f->handle, "k", 1, 1, &absent, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_cas(f->handle, "k", 1, 0, NULL, 1, NULL, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_cas(f->handle, "k", 0, 0, "v", 1, NULL, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_ttl(f->handle, "k", 1, NULL), RIPTIDE_EINVALID);
	assert_int_equal(f->agent.knobs->requests, 0);
}

static void compare_and_set_goes_by_the_version(void **state)
{
	struct fixture *f = *state;
	struct riptide_set_options behind = {sizeof(behind), .write_mode = RIPTIDE_WRITE_BEHIND};
	uint64_t first = 0, second = 0, seen = 0;

	assert_int_equal(riptide_cas(f->handle, "k", 1, 5, "0", 1, NULL, &seen), RIPTIDE_CONFLICT);
	assert_int_equal(seen, 0);
	assert_int_equal(riptide_cas(f->handle, "k", 1, 0, "1", 1, NULL, &first), RIPTIDE_OK);
	assert_int_equal(riptide_cas(f->handle, "k", 1, 0, "2", 1, NULL, &seen), RIPTIDE_CONFLICT);
	assert_true(seen == first);
	assert_int_equal(riptide_cas(f->handle, "k", 1, first, "3", 1, &behind, &second), RIPTIDE_OK);
	assert_true(second > first);
	/* Always through: what is accepted has not been compared. */
	assert_int_equal(rshm_change_mode(f->agent.knobs->last.change), RSHM_WRITE_THROUGH);
	assert_int_equal(rshm_change_condition(f->agent.knobs->last.change), RSHM_IF_VERSION);
	assert_int_equal(riptide_cas(f->handle, "k", 1, first, "4", 1, NULL, NULL), RIPTIDE_CONFLICT);
	expect(f, "k", "3");
}

static void incr_returns_the_new_number(void **state)
{
	struct fixture *f = *state;
	struct riptide_set_options options = {sizeof(options), .ttl_ms = 60000};
	int64_t value = 0;
	char text[200];

	assert_int_equal(riptide_incr(f->handle, "n", 1, 5, &options, &value), RIPTIDE_OK);
	assert_int_equal(value, 5);
	assert_int_equal(f->agent.knobs->last.ttl_ms, 60000);
	assert_int_equal(riptide_incr(f->handle, "n", 1, -8, NULL, &value), RIPTIDE_OK);
	assert_true(value == -3);
	assert_int_equal(riptide_incr(f->handle, "n", 1, 0, NULL, NULL), RIPTIDE_OK);
	expect(f, "n", "-3");
	put(f, "t", "text");
	value = 42;
	assert_int_equal(riptide_incr(f->handle, "t", 1, 1, NULL, &value), RIPTIDE_EINVALID);
	assert_int_equal(value, 42);
	assert_int_equal(riptide_last_error(f->handle, text, sizeof(text)), RIPTIDE_EINVALID);
}

static void an_incr_taken_and_not_answered_is_not_repeated(void **state)
{
	struct fixture *f = *state;

	f->agent.knobs->die_on_take = RSHM_OP_INCR;
	assert_int_equal(riptide_incr(f->handle, "n", 1, 1, NULL, NULL), RIPTIDE_EUNKNOWN);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_INCR], 1);
}

static void ttl_asks_the_store_for_what_is_left(void **state)
{
	struct fixture *f = *state;
	struct riptide_set_options options = {sizeof(options), .ttl_ms = 5000};
	uint64_t ttl = 7;

	assert_int_equal(riptide_ttl(f->handle, "k", 1, &ttl), RIPTIDE_MISS);
	assert_int_equal(ttl, 7);
	put(f, "k", "v");
	assert_int_equal(riptide_ttl(f->handle, "k", 1, &ttl), RIPTIDE_OK);
	assert_true(ttl == RIPTIDE_NEVER);
	assert_int_equal(riptide_set(f->handle, "k", 1, "v", 1, &options, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_ttl(f->handle, "k", 1, &ttl), RIPTIDE_OK);
	assert_int_equal(ttl, 5000);
	assert_true(f->agent.knobs->last.flags & RSHM_REQUEST_FRESH);
}

static void items_of_a_batch_have_options_of_their_own(void **state)
{
	struct fixture *f = *state;
	uint32_t flags = 99;
	struct riptide_set_options absent = {sizeof(absent), .condition = RIPTIDE_IF_ABSENT};
	struct riptide_set_options behind = {sizeof(behind), .write_mode = RIPTIDE_WRITE_BEHIND, .ret_flags = &flags};
	struct riptide_item items[3] = {
		{.key = "a", .key_length = 1, .value = "1", .value_length = 1, .options = &absent},
		{.key = "b", .key_length = 1, .value = "2", .value_length = 1, .options = &behind},
		{.key = "c", .key_length = 1, .value = "3", .value_length = 1},
	};

	put(f, "a", "old");
	assert_int_equal(riptide_set_batch(f->handle, items, 3), RIPTIDE_OK);
	assert_int_equal(items[0].status, RIPTIDE_CONFLICT);
	assert_int_equal(items[1].status, RIPTIDE_OK);
	assert_int_equal(items[2].status, RIPTIDE_OK);
	assert_int_equal(flags, RIPTIDE_ACCEPTED);
	expect(f, "a", "old");
	expect(f, "b", "2");
}

/* ---- many --------------------------------------------------------------------------------------------------- */

static void a_prefix_and_a_whole_namespace_go_at_once(void **state)
{
	struct fixture *f = *state;
	uint64_t removed = 0;

	put(f, "user:1", "a");
	put(f, "user:2", "b");
	put(f, "page:1", "c");
	assert_int_equal(riptide_invalidate_prefix(f->handle, "user:", 5, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 2);
	assert_int_equal(riptide_exists(f->handle, "user:1", 6, NULL), RIPTIDE_MISS);
	expect(f, "page:1", "c");
	assert_int_equal(riptide_invalidate_prefix(f->handle, NULL, 0, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 1);
	put(f, "page:1", "c");
	assert_int_equal(riptide_clear(f->handle), RIPTIDE_OK);
	assert_int_equal(riptide_exists(f->handle, "page:1", 6, NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_flush(f->handle), RIPTIDE_OK);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_FLUSH], 1);
}

static void arguments_about_many_are_checked(void **state)
{
	struct fixture *f = *state;
	static char long_tag[257];
	char *long_prefix = malloc(65536);
	struct riptide_warmed warmed;

	memset(long_tag, 't', 256);
	memset(long_prefix, 'p', 65536);
	assert_int_equal(riptide_invalidate_tag(f->handle, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_invalidate_tag(f->handle, ""), RIPTIDE_EINVALID);
	assert_int_equal(riptide_invalidate_tag(f->handle, long_tag), RIPTIDE_ETOOBIG);
	assert_int_equal(riptide_invalidate_prefix(f->handle, NULL, 1, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_invalidate_prefix(f->handle, long_prefix, 65536, NULL), RIPTIDE_ETOOBIG);
	assert_int_equal(riptide_warm(f->handle, NULL, 1, &warmed), RIPTIDE_EINVALID);
	assert_int_equal(riptide_warm_prefix(f->handle, NULL, 1, &warmed), RIPTIDE_EINVALID);
	assert_int_equal(riptide_clear(NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_flush(NULL), RIPTIDE_EINVALID);
	assert_int_equal(f->agent.knobs->requests, 0);
	assert_int_equal(riptide_invalidate_prefix(f->handle, long_prefix, 65535, NULL), RIPTIDE_OK);
	long_tag[255] = '\0';
	assert_int_equal(riptide_invalidate_tag(f->handle, long_tag), RIPTIDE_OK);
	free(long_prefix);
}

static void an_invalidation_taken_and_not_answered_may_have_happened(void **state)
{
	struct fixture *f = *state;
	uint64_t removed = 9;

	f->agent.knobs->die_on_take = RSHM_OP_INVALIDATE_PREFIX;
	assert_int_equal(riptide_invalidate_prefix(f->handle, "p", 1, &removed), RIPTIDE_EUNKNOWN);
	assert_int_equal(removed, 9);
}

#define WARM_KEYS 1000

static void warming_goes_in_pieces_and_counts(void **state)
{
	struct fixture *f = *state;
	struct riptide_item *items = calloc(WARM_KEYS, sizeof(*items));
	char(*keys)[16] = calloc(WARM_KEYS, 16);
	struct riptide_warmed warmed = {.loaded = 5};
	struct riptide_info info;

	f->agent.knobs->cold = 1;
	for (int i = 0; i < WARM_KEYS; i++) {
		items[i].key_length = (size_t)snprintf(keys[i], 16, "key-%d", i);
		items[i].key = keys[i];
		if (i % 10 != 0)
			put(f, keys[i], "v");
	}
	items[7].key_length = 0;
	items[8].key = NULL;
	assert_int_equal(riptide_warm(f->handle, items, WARM_KEYS, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.total, WARM_KEYS);
	assert_int_equal(warmed.loaded, WARM_KEYS / 10 * 9 - 2);
	assert_int_equal(warmed.absent, WARM_KEYS / 10);
	assert_int_equal(warmed.failed, 2);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_WARM], 4);
	assert_int_equal(riptide_exists(f->handle, "key-999", 7, &info), RIPTIDE_OK);
	assert_int_equal(info.flags, RIPTIDE_HOT);
	assert_int_equal(riptide_warm(f->handle, items, 0, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.total, 0);
	assert_int_equal(riptide_warm_prefix(f->handle, "key-9", 5, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.loaded, 1 + 9 + 90);
	assert_int_equal(warmed.total, warmed.loaded);
	free(items);
	free(keys);
}

static void warming_with_long_keys_stays_within_a_submission(void **state)
{
	struct fixture *f = *state;
	struct riptide_item items[40];
	struct riptide_warmed warmed;
	char *keys = malloc(40 * 65535ul);

	memset(items, 0, sizeof(items));
	memset(keys, 'k', 40 * 65535ul);
	for (int i = 0; i < 40; i++) {
		items[i].key = keys + i * 65535;
		items[i].key_length = 65535;
		keys[i * 65535] = (char)i;
	}
	assert_int_equal(riptide_warm(f->handle, items, 40, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.absent, 40);
	assert_true(f->agent.knobs->taken[RSHM_OP_WARM] >= 8);
	free(keys);
}

static void what_the_agent_had_no_time_for_is_sent_again(void **state)
{
	static char keys[50][16];
	struct fixture *f = *state;
	struct riptide_item items[50];
	struct riptide_warmed warmed;

	for (int i = 0; i < 50; i++) {
		items[i] = (struct riptide_item){.key = keys[i]};
		items[i].key_length = (size_t)snprintf(keys[i], sizeof(keys[i]), "key-%d", i);
		if (i % 2)
			put(f, keys[i], "v");
	}
	/* Keys that are none stand where the agent stops, and at the ends. */
	items[0].key_length = items[21].key_length = items[22].key_length = items[49].key_length = 0;
	f->agent.knobs->warm_limit = 10;
	assert_int_equal(riptide_warm(f->handle, items, 50, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.failed, 4);
	assert_int_equal(warmed.loaded, 23);
	assert_int_equal(warmed.absent, 23);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_WARM], 5);
}

static void warming_that_fails_midway_tells_how_far_it_came(void **state)
{
	struct fixture *f = *state;
	struct riptide_item items[600];
	struct riptide_warmed warmed = {.loaded = 9};

	for (int i = 0; i < 600; i++)
		items[i] = (struct riptide_item){.key = "k", .key_length = 1};
	f->agent.knobs->refuse_op = RSHM_OP_WARM;
	f->agent.knobs->refuse_status = RSHM_E_BACKEND;
	assert_int_equal(riptide_warm(f->handle, items, 600, &warmed), RIPTIDE_EBACKEND);
	assert_int_equal(warmed.loaded + warmed.absent + warmed.failed, 0);
	assert_int_equal(warmed.total, 600);
	assert_int_equal(f->agent.knobs->taken[RSHM_OP_WARM], 1);
	/* An answer without its counts. */
	f->agent.knobs->refuse_status = RSHM_OK;
	assert_int_equal(riptide_warm(f->handle, items, 600, NULL), RIPTIDE_EPROTOCOL);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_set_tells_the_agent_how_it_is_to_be_done),
		CASE(a_condition_that_does_not_hold_is_a_conflict),
		CASE(options_that_mean_nothing_are_refused_unsent),
		CASE(compare_and_set_goes_by_the_version),
		CASE(incr_returns_the_new_number),
		CASE(an_incr_taken_and_not_answered_is_not_repeated),
		CASE(ttl_asks_the_store_for_what_is_left),
		CASE(items_of_a_batch_have_options_of_their_own),
		CASE(a_prefix_and_a_whole_namespace_go_at_once),
		CASE(arguments_about_many_are_checked),
		CASE(an_invalidation_taken_and_not_answered_may_have_happened),
		CASE(warming_goes_in_pieces_and_counts),
		CASE(warming_with_long_keys_stays_within_a_submission),
		CASE(what_the_agent_had_no_time_for_is_sent_again),
		CASE(warming_that_fails_midway_tells_how_far_it_came),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
