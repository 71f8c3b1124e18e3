/*
 * policy_test.c - what each policy promises, on rings in ordinary memory with small traces that are the same in every run.
 *
 * Sizes: a ring of 256 KiB holds some 450 entries of 35 units. A lap is as many appends, copies included.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/cache/policy.h"

#define RING_BYTES (256u << 10)
#define VALUE 512u
#define LAP 460u /* puts that surely reach the tail of a ring without copies */
#define REINSERT_PERCENT 300u

struct fixture {
	void *object;
	struct rshm_geometry geometry;
	struct rshm_writer writer;
	struct policy *policy;
	uint64_t puts, told;
	uint32_t value_len;
};

static void open_ring(struct fixture *f, uint64_t bytes, enum hot_policy kind)
{
	struct rshm_header header = {.generation = 1};

	rshm_geometry_plan(bytes, 1u << 20, &f->geometry);
	f->object = calloc(1, f->geometry.object_size);
	assert_non_null(f->object);
	rshm_writer_format(f->object, &f->geometry, &header, "default", 7, &f->writer);
	rshm_writer_publish(&f->writer, RSHM_POLICY_MISS, 0);
	f->policy = policy_create(&f->writer, kind, REINSERT_PERCENT);
	assert_non_null(f->policy);
}

static void close_ring(struct fixture *f)
{
	policy_destroy(&f->policy);
	free(f->object);
	f->object = NULL;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	f->value_len = VALUE;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_ring(f);
	free(f);
	return 0;
}

static void put_until(struct fixture *f, const char *group, unsigned int number, uint64_t deadline_ms)
{
	static const char value[8 * VALUE];
	char key[32];
	struct rshm_item item = {
		.key = key,
		.key_len = (uint16_t)snprintf(key, sizeof(key), "%s%u", group, number),
		.value = value,
		.value_len = f->value_len,
		.version = ++f->puts,
		.control_a = rshm_control_a(0, 0, 1),
		.control_b = deadline_ms,
	};

	assert_int_equal(rshm_writer_put(&f->writer, &item), RSHM_OK);
}

static void put(struct fixture *f, const char *group, unsigned int number)
{
	put_until(f, group, number, RSHM_NEVER);
}

static bool look(struct fixture *f, const char *group, unsigned int number, struct rshm_item *ret,
		 uint64_t *ret_position)
{
	char key[32];
	size_t len = (size_t)snprintf(key, sizeof(key), "%s%u", group, number);

	return rshm_writer_find(&f->writer, key, len, ret, ret_position);
}

static unsigned int count(struct fixture *f, const char *group, unsigned int numbers)
{
	unsigned int found = 0;
	struct rshm_item item;
	uint64_t position;

	for (unsigned int i = 0; i < numbers; i++)
		found += look(f, group, i, &item, &position);
	return found;
}

static void touch(struct fixture *f, const char *group, unsigned int numbers)
{
	struct rshm_item item;
	uint64_t position;

	for (unsigned int i = 0; i < numbers; i++)
		if (look(f, group, i, &item, &position))
			assert_true(rshm_writer_touch(&f->writer, position));
}

/* Puts keys that nobody asks for again; `hot` entries are touched meanwhile, a dozen times a lap. */
static void churn(struct fixture *f, unsigned int puts, const char *hot, unsigned int hot_numbers)
{
	for (unsigned int i = 0; i < puts; i++) {
		if (hot && i % 40 == 0)
			touch(f, hot, hot_numbers);
		put(f, "churn", (unsigned int)f->puts);
	}
}

static uint32_t flags_of(struct fixture *f, const char *group, unsigned int number)
{
	struct rshm_item item;
	uint64_t position;

	assert_true(look(f, group, number, &item, &position));
	return rshm_control_flags(item.control_a);
}

/* ---- lru ---------------------------------------------------------------------------------------------------- */

static void lru_keeps_what_is_read_and_lets_the_rest_go(void **state)
{
	struct fixture *f = *state;

	open_ring(f, RING_BYTES, HOT_LRU);
	for (unsigned int i = 0; i < 50; i++) {
		put(f, "read", i);
		put(f, "idle", i);
	}
	churn(f, 10 * LAP, "read", 50);
	assert_int_equal(count(f, "read", 50), 50);
	assert_int_equal(count(f, "idle", 50), 0);
	/* Once nobody reads them they live for two laps at most. */
	churn(f, 2 * LAP, NULL, 0);
	assert_int_equal(count(f, "read", 50), 0);
}

#define UNIVERSE 4000u
#define REQUESTS 200000u

/* Exact LRU over entries of one size: a list through arrays, newest first; UNIVERSE is its head. */
struct exact {
	uint32_t newer[UNIVERSE + 1], older[UNIVERSE + 1], held, most;
	bool has[UNIVERSE];
};

static void exact_unlink(struct exact *e, uint32_t key)
{
	e->older[e->newer[key]] = e->older[key];
	e->newer[e->older[key]] = e->newer[key];
	e->held--;
	e->has[key] = false;
}

static bool exact_request(struct exact *e, uint32_t key)
{
	bool hit = e->has[key];

	if (hit)
		exact_unlink(e, key);
	else if (e->held == e->most)
		exact_unlink(e, e->newer[UNIVERSE]);
	e->newer[key] = UNIVERSE;
	e->older[key] = e->older[UNIVERSE];
	e->newer[e->older[UNIVERSE]] = key;
	e->older[UNIVERSE] = key;
	e->has[key] = true;
	e->held++;
	return hit;
}

static uint64_t random_state;

/* Skewed: the square of an even draw, so that a tenth of the keys get a third of the requests; moves on with time. */
static uint32_t next_key(unsigned int i)
{
	uint64_t even;

	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	even = (random_state >> 33) % UNIVERSE;
	return (uint32_t)((even * even / UNIVERSE * even / UNIVERSE + i / 400) % UNIVERSE);
}

static bool ring_request(struct fixture *f, uint32_t key)
{
	struct rshm_item item;
	uint64_t position;

	if (!look(f, "", key, &item, &position)) {
		put(f, "", key);
		return false;
	}
	/* What readers do not tell. */
	if (position - f->writer.tail <= f->writer.units / 8 * 7)
		assert_true(rshm_writer_touch(&f->writer, position));
	return true;
}

/* Hit ratios in a hundredth of a percent. */
static void compare_with_exact_lru(struct fixture *f, enum hot_policy kind, unsigned int *ret_ours,
				   unsigned int *ret_exact)
{
	struct exact *e = calloc(1, sizeof(*e));
	uint64_t ours = 0, exact = 0;

	assert_non_null(e);
	open_ring(f, RING_BYTES, kind);
	e->newer[UNIVERSE] = e->older[UNIVERSE] = UNIVERSE;
	/* Equal bytes: gap and fillers are the ring's own loss. Keys have three or four bytes. */
	e->most = RING_BYTES / (RSHM_UNIT * 35u);
	random_state = 1;
	for (unsigned int i = 0; i < REQUESTS; i++) {
		uint32_t key = next_key(i);

		exact += exact_request(e, key);
		ours += ring_request(f, key);
	}
	*ret_ours = (unsigned int)(ours * 10000 / REQUESTS);
	*ret_exact = (unsigned int)(exact * 10000 / REQUESTS);
	free(e);
}

static void lru_stays_within_a_point_of_exact_lru(void **state)
{
	unsigned int ours, exact;

	compare_with_exact_lru(*state, HOT_LRU, &ours, &exact);
	print_message("lru %u.%02u %%, exact %u.%02u %%\n", ours / 100, ours % 100, exact / 100, exact % 100);
	assert_in_range(exact, 1000, 9000);
	assert_in_range(ours + 100, exact, exact + 300);
}

static void s3fifo_is_no_worse_than_exact_lru_while_popularity_drifts(void **state)
{
	unsigned int ours, exact;

	compare_with_exact_lru(*state, HOT_S3FIFO, &ours, &exact);
	print_message("s3fifo %u.%02u %%, exact lru %u.%02u %%\n", ours / 100, ours % 100, exact / 100, exact % 100);
	assert_true(ours + 100 >= exact);
}

/* ---- lfu ---------------------------------------------------------------------------------------------------- */

static void lfu_prefers_the_often_read_to_the_lately_read(void **state)
{
	struct fixture *f = *state;

	open_ring(f, RING_BYTES, HOT_LFU);
	for (unsigned int i = 0; i < 200; i++)
		put(f, "often", i);
	churn(f, 10 * LAP, "often", 200);
	assert_int_equal(count(f, "often", 200), 200);
	assert_true(rshm_frequency(flags_of(f, "often", 0)) >= 8);
	/* Nobody reads the first any more; others, more than there is room for besides them, are read once each. */
	for (unsigned int i = 0; i < 3 * LAP; i++) {
		put(f, "lately", i);
		touch(f, "lately", 1);
		if (i >= 100) {
			struct rshm_item item;
			uint64_t position;

			if (look(f, "lately", i - 100, &item, &position))
				rshm_writer_touch(&f->writer, position);
		}
	}
	assert_true(count(f, "often", 200) >= 190);
}

static void lfu_forgets_what_nobody_reads_any_more(void **state)
{
	struct fixture *f = *state;

	open_ring(f, RING_BYTES, HOT_LFU);
	for (unsigned int i = 0; i < 100; i++)
		put(f, "old", i);
	churn(f, 10 * LAP, "old", 100);
	assert_int_equal(count(f, "old", 100), 100);
	churn(f, 200 * LAP, NULL, 0);
	assert_int_equal(count(f, "old", 100), 0);
}

/* ---- ttl and random ----------------------------------------------------------------------------------------- */

static void ttl_lets_go_first_what_expires_soonest(void **state)
{
	struct fixture *f = *state;
	uint64_t now_ms = clock_monotonic_ms();

	open_ring(f, RING_BYTES, HOT_TTL);
	for (unsigned int i = 0; i < 100; i++) {
		put_until(f, "soon", i, now_ms + 600000 + i);
		put_until(f, "late", i, now_ms + 90000000 + i);
	}
	/* Touches do not help. */
	for (unsigned int i = 0; i < 2 * LAP; i++) {
		touch(f, "soon", 100);
		put_until(f, "churn", i, now_ms + 3600000 + i);
	}
	assert_int_equal(count(f, "soon", 100), 0);
	assert_true(count(f, "late", 100) >= 80);
}

static void ttl_goes_by_touches_where_all_expire_together(void **state)
{
	struct fixture *f = *state;

	open_ring(f, RING_BYTES, HOT_TTL);
	for (unsigned int i = 0; i < 50; i++) {
		put(f, "read", i);
		put(f, "idle", i);
	}
	churn(f, 5 * LAP, "read", 50);
	assert_int_equal(count(f, "read", 50), 50);
	assert_int_equal(count(f, "idle", 50), 0);
}

static void random_asks_neither_for_age_nor_for_touches(void **state)
{
	struct fixture *f = *state;
	unsigned int read, idle;

	open_ring(f, RING_BYTES, HOT_RANDOM);
	for (unsigned int i = 0; i < 200; i++) {
		put(f, "read", i);
		put(f, "idle", i);
	}
	/* The tail passes each of them once. */
	churn(f, LAP / 4 * 3, "read", 200);
	read = count(f, "read", 200);
	idle = count(f, "idle", 200);
	assert_in_range(read, 50, 199);
	assert_in_range(idle, 50, 199);
	assert_true(read < idle + 40 && idle < read + 40);
}

/* ---- s3fifo ------------------------------------------------------------------------------------------------- */

/* Hot entries of a ring that has made some laps. */
static void warm_up(struct fixture *f, unsigned int hot)
{
	for (unsigned int i = 0; i < hot; i++)
		put(f, "hot", i);
	churn(f, 10 * LAP, "hot", hot);
	assert_int_equal(count(f, "hot", hot), hot);
}

static void s3fifo_keeps_its_hot_entries_through_a_scan_that_lru_does_not_survive(void **state)
{
	struct fixture *f = *state;

	open_ring(f, RING_BYTES, HOT_LRU);
	warm_up(f, 200);
	churn(f, 2 * LAP, NULL, 0);
	assert_int_equal(count(f, "hot", 200), 0);
	close_ring(f);

	open_ring(f, RING_BYTES, HOT_S3FIFO);
	warm_up(f, 200);
	churn(f, 2 * LAP, NULL, 0);
	assert_int_equal(count(f, "hot", 200), 200);
}

static void s3fifo_keeps_what_is_read_now_and_then_from_one_time_keys(void **state)
{
	struct fixture *f = *state;

	open_ring(f, RING_BYTES, HOT_S3FIFO);
	warm_up(f, 200);
	/* Each is read once in some three laps. */
	for (unsigned int i = 0; i < 100; i++) {
		churn(f, 700, NULL, 0);
		touch(f, "hot", 200);
	}
	assert_true(count(f, "hot", 200) >= 190);
}

static void s3fifo_lets_go_first_what_is_new_and_not_read(void **state)
{
	struct fixture *f = *state;

	open_ring(f, RING_BYTES, HOT_S3FIFO);
	warm_up(f, 200);
	put(f, "new", 0);
	put(f, "read", 0);
	churn(f, LAP / 4, "read", 1);
	churn(f, LAP / 4 * 3, NULL, 0);
	assert_int_equal(count(f, "new", 1), 0);
	assert_int_equal(count(f, "read", 1), 1);
	assert_true(flags_of(f, "read", 0) & RSHM_FLAG_MAIN);
}

static void s3fifo_remembers_what_went_and_for_a_while_only(void **state)
{
	struct fixture *f = *state;

	open_ring(f, RING_BYTES, HOT_S3FIFO);
	put(f, "back", 0);
	put(f, "back", 1);
	churn(f, LAP + 100, NULL, 0);
	assert_int_equal(count(f, "back", 2), 0);
	put(f, "back", 0);
	assert_true(flags_of(f, "back", 0) & RSHM_FLAG_MAIN);
	put(f, "never", 0);
	assert_false(flags_of(f, "never", 0) & RSHM_FLAG_MAIN);
	churn(f, 10 * LAP, NULL, 0);
	put(f, "back", 1);
	assert_false(flags_of(f, "back", 1) & RSHM_FLAG_MAIN);
}

static void s3fifo_remembers_no_more_entries_than_the_ring_holds(void **state)
{
	struct fixture *f = *state;

	/* Some 60 entries, and a ghost with places for 512. */
	f->value_len = 8 * VALUE;
	open_ring(f, RING_BYTES, HOT_S3FIFO);
	put(f, "back", 0);
	put(f, "back", 1);
	churn(f, 90, NULL, 0);
	assert_int_equal(count(f, "back", 2), 0);
	put(f, "back", 0);
	assert_true(flags_of(f, "back", 0) & RSHM_FLAG_MAIN);
	churn(f, 90, NULL, 0);
	put(f, "back", 1);
	assert_false(flags_of(f, "back", 1) & RSHM_FLAG_MAIN);
}

static void s3fifo_gives_new_entries_more_room_when_they_come_back(void **state)
{
	struct fixture *f = *state;
	unsigned int hits = 0;

	open_ring(f, RING_BYTES, HOT_S3FIFO);
	warm_up(f, 300);
	/* Nobody reads these any more. New keys are asked for once more after 200 others, which a quarter of the ring cannot
	 * hold, and never again. */
	for (unsigned int i = 401; i < 200 * LAP; i++) {
		unsigned int number = i % 2 ? i - 401 : i;
		struct rshm_item item;
		uint64_t position;

		if (!look(f, "wave", number, &item, &position)) {
			put(f, "wave", number);
			continue;
		}
		hits += i >= 100 * LAP;
		assert_true(rshm_writer_touch(&f->writer, position));
	}
	assert_int_equal(count(f, "hot", 300), 0);
	assert_true(hits >= 45 * LAP);
}

/* ---- all ---------------------------------------------------------------------------------------------------- */

static void expired_entries_are_kept_by_no_policy(void **state)
{
	struct fixture *f = *state;
	uint64_t now_ms = clock_monotonic_ms();

	for (unsigned int kind = 0; kind < HOT_POLICIES; kind++) {
		open_ring(f, RING_BYTES, kind);
		for (unsigned int i = 0; i < 50; i++)
			put_until(f, "over", i, now_ms);
		churn(f, LAP + 100, "over", 50);
		assert_int_equal(count(f, "over", 50), 0);
		if (kind + 1 < HOT_POLICIES)
			close_ring(f);
	}
}

static void policy_changes_while_the_ring_is_in_use(void **state)
{
	struct fixture *f = *state;

	open_ring(f, RING_BYTES, HOT_LRU);
	warm_up(f, 200);
	policy_set_kind(f->policy, HOT_S3FIFO);
	churn(f, LAP, "hot", 200);
	churn(f, 2 * LAP, NULL, 0);
	assert_int_equal(count(f, "hot", 200), 200);
	policy_set_kind(f->policy, HOT_LRU);
	churn(f, 2 * LAP, NULL, 0);
	assert_int_equal(count(f, "hot", 200), 0);
	for (unsigned int kind = 0; kind < HOT_POLICIES; kind++) {
		policy_set_kind(f->policy, kind);
		churn(f, LAP, NULL, 0);
		assert_true(f->writer.live_entries > 300);
	}
}

static void successor_knows_what_the_flags_remember(void **state)
{
	struct fixture *f = *state;
	struct rshm_writer adopted;

	open_ring(f, RING_BYTES, HOT_S3FIFO);
	warm_up(f, 200);
	policy_destroy(&f->policy);
	assert_int_equal(rshm_writer_adopt(f->object, f->geometry.object_size, &adopted), RSHM_OK);
	f->writer = adopted;
	f->policy = policy_create(&f->writer, HOT_S3FIFO, REINSERT_PERCENT);
	churn(f, 2 * LAP, NULL, 0);
	assert_int_equal(count(f, "hot", 200), 200);
}

static void overwritten_entry_keeps_what_was_known_of_its_key(void **state)
{
	struct fixture *f = *state;

	open_ring(f, RING_BYTES, HOT_S3FIFO);
	warm_up(f, 1);
	put(f, "hot", 0);
	assert_true(flags_of(f, "hot", 0) & RSHM_FLAG_MAIN);
	put(f, "once", 0);
	touch(f, "once", 1);
	put(f, "once", 0);
	assert_int_equal(rshm_frequency(flags_of(f, "once", 0)), 1);
	assert_false(flags_of(f, "once", 0) & RSHM_FLAG_TOUCHED);
}

static void count_told(void *context, const struct rshm_item *item, uint64_t position)
{
	struct fixture *f = context;

	assert_true(item->key_len > 0);
	assert_true(position < f->writer.head);
	f->told++;
}

static void each_entry_that_makes_room_is_told_once(void **state)
{
	struct fixture *f = *state;

	for (unsigned int kind = 0; kind < HOT_POLICIES; kind++) {
		open_ring(f, RING_BYTES, kind);
		policy_set_drop_hook(f->policy, count_told, f);
		f->puts = f->told = 0;
		churn(f, 5 * LAP, "churn", 1000);
		assert_true(f->told > 0);
		assert_int_equal(f->told, f->writer.evictions + f->writer.displaced);
		assert_int_equal(f->puts, f->told + f->writer.live_entries);
		if (kind + 1 < HOT_POLICIES)
			close_ring(f);
	}
}

static void memory_is_bounded_by_the_size_of_the_ring(void **state)
{
	struct fixture *f = *state;

	for (uint64_t bytes = RSHM_RING_MIN; bytes <= 64u << 20; bytes *= 4) {
		open_ring(f, bytes, HOT_S3FIFO);
		assert_true(policy_memory(f->policy) <= bytes / 128 + 4096);
		policy_set_kind(f->policy, HOT_LFU);
		assert_true(policy_memory(f->policy) <= 4096);
		if (bytes * 4 <= 64u << 20)
			close_ring(f);
	}
}

static void policies_have_the_names_of_the_option(void **state)
{
	struct fixture *f = *state;

	open_ring(f, RING_BYTES, HOT_LRU);
	assert_string_equal(policy_name(HOT_LRU), "lru");
	assert_string_equal(policy_name(HOT_LFU), "lfu");
	assert_string_equal(policy_name(HOT_TTL), "ttl");
	assert_string_equal(policy_name(HOT_RANDOM), "random");
	assert_string_equal(policy_name(HOT_S3FIFO), "s3fifo");
	assert_string_equal(policy_name(HOT_POLICIES), "unknown");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(lru_keeps_what_is_read_and_lets_the_rest_go),
		CASE(lru_stays_within_a_point_of_exact_lru),
		CASE(s3fifo_is_no_worse_than_exact_lru_while_popularity_drifts),
		CASE(lfu_prefers_the_often_read_to_the_lately_read),
		CASE(lfu_forgets_what_nobody_reads_any_more),
		CASE(ttl_lets_go_first_what_expires_soonest),
		CASE(ttl_goes_by_touches_where_all_expire_together),
		CASE(random_asks_neither_for_age_nor_for_touches),
		CASE(s3fifo_keeps_its_hot_entries_through_a_scan_that_lru_does_not_survive),
		CASE(s3fifo_keeps_what_is_read_now_and_then_from_one_time_keys),
		CASE(s3fifo_lets_go_first_what_is_new_and_not_read),
		CASE(s3fifo_remembers_what_went_and_for_a_while_only),
		CASE(s3fifo_remembers_no_more_entries_than_the_ring_holds),
		CASE(s3fifo_gives_new_entries_more_room_when_they_come_back),
		CASE(expired_entries_are_kept_by_no_policy),
		CASE(policy_changes_while_the_ring_is_in_use),
		CASE(successor_knows_what_the_flags_remember),
		CASE(overwritten_entry_keeps_what_was_known_of_its_key),
		CASE(each_entry_that_makes_room_is_told_once),
		CASE(memory_is_bounded_by_the_size_of_the_ring),
		CASE(policies_have_the_names_of_the_option),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
