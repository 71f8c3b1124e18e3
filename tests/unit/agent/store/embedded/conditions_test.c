#include "tests/unit/agent/store/embedded/fixture.h"

#include <pthread.h>

#define KEY "the key"
#define KEY_LEN 7u

/* A write, as far as these tests vary it. */
struct change {
	enum store_op op;
	enum store_condition condition;
	uint64_t expected_version;
	uint64_t version;
	uint32_t writer_id;
	uint16_t flags;
	uint64_t expiry_ms;
	size_t value_len; /* 0: 8 */
};

static int setup(void **state)
{
	static struct fixture f;

	fixture_init(&f);
	fixture_open(&f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fixture_close(f);
	fixture_fini(f);
	return 0;
}

static struct envelope_buffer change_envelope(const struct change *change, const void *value)
{
	struct envelope_input input = {
		.key = KEY,
		.key_len = KEY_LEN,
		.value = value,
		.value_len = change->value_len > 0 ? change->value_len : 8,
		.created_ms = clock_realtime_ms(),
		.expiry_ms = change->expiry_ms,
		.version = change->version,
		.writer_id = change->writer_id,
		.flags = change->flags,
	};
	struct envelope_buffer buffer;

	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	return buffer;
}

static void call_of_change(struct call *call, const struct change *change, const struct envelope_buffer *envelope)
{
	call_init(call, change->op, KEY, KEY_LEN);
	call->request.condition = change->condition;
	call->request.expected_version = change->expected_version;
	call->request.expiry_ms = change->expiry_ms;
	call->request.found_version = 12345;
	if (change->op == STORE_PUT) {
		call->request.envelope = envelope->bytes;
		call->request.envelope_len = envelope->length;
	}
}

/* Runs the change on KEY; the value is made of its version. *ret_found: found_version. */
static int run(struct fixture *f, const struct change *change, uint64_t *ret_found)
{
	unsigned char *value = make_noise(change->value_len + 8, change->version + 1);
	struct envelope_buffer buffer = change_envelope(change, value);
	struct call call;
	int status;

	call_of_change(&call, change, &buffer);
	status = call_run(&call, f->store, &f->loop);
	if (ret_found != NULL)
		*ret_found = call.request.found_version;
	assert_false(call.request.accepted);
	envelope_buffer_fini(&buffer);
	free(value);
	return status;
}

/* What stands there: RSHM_OK and its head, or RSHM_MISS. */
static int look(struct fixture *f, struct envelope_head *ret)
{
	struct envelope_view view;
	struct call call;

	call_init(&call, STORE_GET, KEY, KEY_LEN);
	if (call_run(&call, f->store, &f->loop) == RSHM_OK) {
		assert_int_equal(envelope_open(call.bytes, call.length, KEY, KEY_LEN, &view), RSHM_OK);
		*ret = view.head;
	}
	free(call.bytes);
	return call.status;
}

static void assert_version(struct fixture *f, uint64_t version)
{
	struct envelope_head head;

	assert_int_equal(look(f, &head), RSHM_OK);
	assert_int_equal(head.version, version);
}

static void assert_done(struct fixture *f, struct change change)
{
	assert_int_equal(run(f, &change, NULL), RSHM_OK);
	if (change.op == STORE_PUT)
		assert_version(f, change.version);
}

/* The change must be refused, name `found`, and leave everything as it was. */
static void assert_conflict(struct fixture *f, struct change change, uint64_t found)
{
	struct store_status before = status_of(f->store), after;
	struct envelope_head old = {0}, new = {0};
	uint64_t told = 1;
	int there = look(f, &old);

	assert_int_equal(run(f, &change, &told), RSHM_CONFLICT);
	assert_int_equal(told, found);
	assert_int_equal(look(f, &new), there);
	/* Up to the last member: what is behind it is nobody's. */
	assert_memory_equal(&old, &new, offsetof(struct envelope_head, algorithm) + sizeof old.algorithm);
	after = status_of(f->store);
	assert_int_equal(after.entries, before.entries);
	assert_int_equal(after.bytes, before.bytes);
	assert_int_equal(after.failed, before.failed);
}

/* Leaves an entry that is there and over. */
static void put_expired(struct fixture *f, uint64_t version)
{
	struct change change = {.op = STORE_PUT, .version = version, .expiry_ms = clock_realtime_ms() - 1};

	assert_int_equal(run(f, &change, NULL), RSHM_OK);
	assert_int_equal(status_of(f->store).entries, 1);
}

static void put_tombstone(struct fixture *f, uint64_t version)
{
	assert_done(f, (struct change){.op = STORE_PUT, .version = version, .flags = ENVELOPE_FLAG_TOMBSTONE});
}

static void if_absent_is_met_where_nothing_lives(void **state)
{
	struct change change = {.op = STORE_PUT, .condition = STORE_IF_ABSENT, .version = 7};
	struct fixture *f = *state;

	assert_done(f, change);
	change.version = 8;
	assert_conflict(f, change, 7);
	put_expired(f, 9);
	assert_done(f, change);
	put_tombstone(f, 10);
	change.version = 3;
	assert_done(f, change);
	assert_conflict(f, change, 3);
	assert_int_equal(status_of(f->store).entries, 1);
}

static void if_present_is_met_by_what_lives(void **state)
{
	struct change change = {.op = STORE_PUT, .condition = STORE_IF_PRESENT, .version = 7};
	struct fixture *f = *state;

	assert_conflict(f, change, 0);
	assert_int_equal(status_of(f->store).entries, 0);
	assert_done(f, (struct change){.op = STORE_PUT, .version = 9});
	assert_done(f, change);
	put_expired(f, 9);
	assert_conflict(f, change, 0);
	put_tombstone(f, 10);
	assert_conflict(f, change, 0);
	assert_done(f, (struct change){.op = STORE_PUT, .version = 0});
	assert_done(f, change);
}

static void if_version_is_met_by_exactly_that_version(void **state)
{
	struct change change = {.op = STORE_PUT, .condition = STORE_IF_VERSION, .expected_version = 5, .version = 6};
	struct fixture *f = *state;

	assert_conflict(f, change, 0);
	assert_done(f, (struct change){.op = STORE_PUT, .version = 5});
	assert_done(f, change);
	assert_conflict(f, change, 6);
	put_expired(f, 5);
	assert_conflict(f, change, 0);
	put_tombstone(f, 5);
	assert_conflict(f, change, 0);
}

static void if_version_0_is_met_where_nothing_lives(void **state)
{
	struct change change = {.op = STORE_PUT, .condition = STORE_IF_VERSION, .version = 6};
	struct fixture *f = *state;

	assert_done(f, change);
	assert_conflict(f, change, 6);
	put_expired(f, 5);
	assert_done(f, change);
	put_tombstone(f, 5);
	assert_done(f, change);
	/* One that has this version is there all the same. */
	assert_done(f, (struct change){.op = STORE_PUT, .version = 0});
	assert_conflict(f, change, 0);
}

static void if_older_lets_the_newest_write_win(void **state)
{
	struct change change = {.op = STORE_PUT, .condition = STORE_IF_OLDER, .version = 5, .writer_id = 100};
	struct fixture *f = *state;

	assert_done(f, change);
	assert_conflict(f, change, 5);
	change.version = 4;
	change.writer_id = UINT32_MAX;
	assert_conflict(f, change, 5);
	change.version = 5;
	change.writer_id = 99;
	assert_conflict(f, change, 5);
	change.writer_id = 0x80000001;
	assert_done(f, change);
	change.writer_id = 3;
	change.version = 6;
	assert_done(f, change);
	/* All 64 bits count, without sign. */
	change.version = UINT64_MAX;
	assert_done(f, change);
	change.version = 1ull << 63;
	assert_conflict(f, change, UINT64_MAX);
	/* What is over is no match for anything. */
	put_expired(f, UINT64_MAX);
	change.version = 1;
	assert_done(f, change);
}

static void if_older_respects_a_tombstone(void **state)
{
	struct change change = {.op = STORE_PUT, .condition = STORE_IF_OLDER, .version = 9};
	struct fixture *f = *state;

	put_tombstone(f, 10);
	assert_conflict(f, change, 0);
	change.version = 10;
	assert_conflict(f, change, 0);
	change.writer_id = 1;
	assert_done(f, change);
	/* And a tombstone is written like an entry. */
	change.flags = ENVELOPE_FLAG_TOMBSTONE;
	assert_conflict(f, change, 10);
	change.version = 11;
	assert_done(f, change);
	/* One that is over protects nothing any more. */
	change.expiry_ms = clock_realtime_ms() - 1;
	change.version = 12;
	assert_int_equal(run(f, &change, NULL), RSHM_OK);
	assert_done(f, (struct change){.op = STORE_PUT, .condition = STORE_IF_OLDER, .version = 2});
}

static void delete_if_version_takes_only_that_version(void **state)
{
	struct change change = {.op = STORE_DELETE, .condition = STORE_IF_VERSION, .expected_version = 5};
	struct fixture *f = *state;
	struct envelope_head head;

	assert_conflict(f, change, 0);
	assert_done(f, (struct change){.op = STORE_PUT, .version = 4});
	assert_conflict(f, change, 4);
	change.expected_version = 0;
	assert_conflict(f, change, 4);
	change.expected_version = 4;
	assert_done(f, change);
	assert_int_equal(look(f, &head), RSHM_MISS);
	assert_int_equal(status_of(f->store).entries, 0);
	/* Met by what is not there, and then there is nothing to delete. */
	change.expected_version = 0;
	assert_int_equal(run(f, &change, NULL), RSHM_MISS);
	put_expired(f, 5);
	assert_int_equal(run(f, &change, NULL), RSHM_MISS);
	put_tombstone(f, 5);
	assert_int_equal(run(f, &change, NULL), RSHM_MISS);
	assert_version(f, 5);
	change.expected_version = 5;
	assert_conflict(f, change, 0);
}

static void tombstone_is_read_as_it_is_but_neither_touched_nor_deleted(void **state)
{
	struct change put = {.op = STORE_PUT, .version = 5, .flags = ENVELOPE_FLAG_TOMBSTONE};
	struct fixture *f = *state;
	struct envelope_head head;
	struct call call;

	put.expiry_ms = clock_realtime_ms() + 60000;
	assert_done(f, put);
	assert_int_equal(look(f, &head), RSHM_OK);
	assert_int_equal(head.flags, ENVELOPE_FLAG_TOMBSTONE);
	call_init(&call, STORE_HEAD, KEY, KEY_LEN);
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_OK);
	assert_int_equal(envelope_peek_head(call.bytes, call.length, &head), RSHM_OK);
	assert_int_equal(head.flags, ENVELOPE_FLAG_TOMBSTONE);
	free(call.bytes);
	assert_int_equal(simple(f, STORE_TOUCH, KEY, KEY_LEN, 0), RSHM_MISS);
	assert_int_equal(look(f, &head), RSHM_OK);
	assert_int_equal(head.expiry_ms, put.expiry_ms);
	assert_int_equal(simple(f, STORE_DELETE, KEY, KEY_LEN, 0), RSHM_MISS);
	assert_int_equal(look(f, &head), RSHM_MISS);
	assert_int_equal(status_of(f->store).entries, 0);
}

static void conditions_hold_for_values_in_pieces_and_after_reopening(void **state)
{
	struct change put = {.op = STORE_PUT, .version = 5, .value_len = 300000};
	struct change change = {.op = STORE_PUT, .condition = STORE_IF_VERSION, .version = 6, .value_len = 200000};
	struct fixture *f = *state;

	assert_done(f, put);
	change.expected_version = 4;
	assert_conflict(f, change, 5);
	fixture_close(f);
	fixture_open(f);
	assert_conflict(f, change, 5);
	change.expected_version = 5;
	assert_done(f, change);
	put.flags = ENVELOPE_FLAG_TOMBSTONE;
	put.version = 7;
	assert_done(f, put);
	fixture_close(f);
	fixture_open(f);
	change.condition = STORE_IF_PRESENT;
	assert_conflict(f, change, 0);
	change.condition = STORE_IF_OLDER;
	assert_conflict(f, change, 0);
	change.version = 8;
	assert_done(f, change);
}

static void what_is_no_condition_is_refused(void **state)
{
	struct change put = {.op = STORE_PUT, .version = 9, .condition = STORE_IF_OLDER + 1};
	struct change delete = {.op = STORE_DELETE};
	struct fixture *f = *state;
	unsigned char garbage[100] = {1, 2, 3};
	struct call call;

	assert_done(f, (struct change){.op = STORE_PUT, .version = 5});
	assert_int_equal(run(f, &put, NULL), RSHM_E_INVALID);
	for (int i = STORE_ALWAYS; i <= STORE_IF_OLDER + 1; i++) {
		delete.condition = (enum store_condition)i;
		if (i != STORE_ALWAYS && i != STORE_IF_VERSION)
			assert_int_equal(run(f, &delete, NULL), RSHM_E_INVALID);
	}
	/* A touch has none: it is not looked at. */
	call_init(&call, STORE_TOUCH, KEY, KEY_LEN);
	call.request.condition = STORE_IF_ABSENT;
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_OK);
	call_init(&call, STORE_PUT, KEY, KEY_LEN);
	call.request.condition = STORE_IF_OLDER;
	call.request.envelope = garbage;
	call.request.envelope_len = sizeof garbage;
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_E_INVALID);
	assert_version(f, 5);
}

static void damaged_record_meets_no_condition_but_if_older(void **state)
{
	struct change change = {.op = STORE_PUT, .version = 1};
	struct fixture *f = *state;

	assert_done(f, (struct change){.op = STORE_PUT, .version = 5});
	fixture_overwrite(f, "main", NULL, 0, "rubbish", 7);
	for (int i = STORE_IF_ABSENT; i <= STORE_IF_VERSION; i++) {
		change.condition = (enum store_condition)i;
		assert_int_equal(run(f, &change, NULL), RSHM_E_CORRUPT);
	}
	assert_int_equal(simple(f, STORE_GET, KEY, KEY_LEN, 0), RSHM_E_CORRUPT);
	change.condition = STORE_IF_OLDER;
	assert_done(f, change);
	assert_int_equal(status_of(f->store).entries, 1);
}

/* And the others of its transaction go through with it. */
static void entry_of_a_newer_program_meets_no_condition(void **state)
{
	enum { CALLS = 8 };
	struct change change = {.op = STORE_PUT, .version = 5};
	struct envelope_buffer newer, buffer;
	struct call calls[CALLS], call;
	struct fixture *f = *state;
	uint64_t commits, commits_after, writes;
	int release;
	pid_t child;

	newer = change_envelope(&change, "12345678");
	((unsigned char *)newer.bytes)[4] = ENVELOPE_FORMAT + 1;
	call_of_change(&call, &change, &newer);
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_OK);
	change.version = 9;
	buffer = change_envelope(&change, "12345678");
	embedded_env_commits(f->env, &commits, &writes);
	child = hold_writer(f, &release);
	for (int i = 0; i < CALLS; i++) {
		change.condition = (enum store_condition)(STORE_IF_ABSENT + i % 4);
		call_of_change(&calls[i], &change, &buffer);
		store_submit(f->store, &calls[i].request);
	}
	release_writer(child, release);
	for (int i = 0; i < CALLS; i++) {
		call_wait(&calls[i], &f->loop);
		assert_int_equal(calls[i].status, RSHM_E_FORMAT);
	}
	embedded_env_commits(f->env, &commits_after, &writes);
	assert_in_range(commits_after - commits, 1, 2);
	call_init(&call, STORE_GET, KEY, KEY_LEN);
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_OK);
	assert_int_equal(call.length, newer.length);
	assert_memory_equal(call.bytes, newer.bytes, newer.length);
	free(call.bytes);
	/* The new envelope is looked at as well. */
	assert_int_equal(simple(f, STORE_DELETE, KEY, KEY_LEN, 0), RSHM_OK);
	change.condition = STORE_IF_OLDER;
	call_of_change(&call, &change, &newer);
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_E_FORMAT);
	envelope_buffer_fini(&newer);
	envelope_buffer_fini(&buffer);
}

/* Conditions see what was written before in the same transaction. */
static void one_of_many_that_wait_together_wins(void **state)
{
	enum { CALLS = 50 };
	struct change change = {.op = STORE_PUT, .condition = STORE_IF_ABSENT};
	struct envelope_buffer buffers[CALLS];
	struct call calls[CALLS];
	struct fixture *f = *state;
	int release;
	pid_t child = hold_writer(f, &release);

	for (int i = 0; i < CALLS; i++) {
		change.version = (uint64_t)i + 1;
		buffers[i] = change_envelope(&change, "12345678");
		call_of_change(&calls[i], &change, &buffers[i]);
		store_submit(f->store, &calls[i].request);
	}
	release_writer(child, release);
	for (int i = 0; i < CALLS; i++) {
		call_wait(&calls[i], &f->loop);
		assert_int_equal(calls[i].status, i == 0 ? RSHM_OK : RSHM_CONFLICT);
		assert_int_equal(calls[i].request.found_version, i == 0 ? 0 : 1);
		envelope_buffer_fini(&buffers[i]);
	}
	assert_version(f, 1);
}

/* A refused write asks for no room: a full store tells of the conflict. */
static void conflict_comes_before_want_of_room(void **state)
{
	struct change big = {.op = STORE_PUT, .version = 6, .value_len = 3 << 20};
	struct fixture f;

	(void)state;
	fixture_init(&f);
	f.config.map_size = 2 << 20;
	fixture_open(&f);
	assert_done(&f, (struct change){.op = STORE_PUT, .version = 5});
	big.condition = STORE_IF_PRESENT;
	assert_int_equal(run(&f, &big, NULL), RSHM_E_FULL);
	big.condition = STORE_IF_ABSENT;
	assert_conflict(&f, big, 5);
	fixture_close(&f);
	fixture_fini(&f);
}

/* ---- increments from two workers ---------------------------------------------------------------------------- */

#define INCREMENTS 2000u

/* Assertions of cmocka belong to the main thread: mistakes are counted. */
struct counter {
	struct embedded_env *env;
	uint32_t number;
	uint64_t mistakes, conflicts;
};

struct step {
	struct store_request request;
	bool done;
	uint64_t version, value;
};

static void step_on_done(struct store_request *request)
{
	struct step *step = request->context;
	struct envelope_view view;

	step->done = true;
	if (request->op != STORE_GET || request->status != RSHM_OK)
		return;
	if (envelope_open(request->result, request->result_len, KEY, KEY_LEN, &view) == RSHM_OK &&
	    view.head.plain_size == sizeof step->value) {
		memcpy(&step->value, view.payload, sizeof step->value);
		step->version = view.head.version;
	}
}

static int step_run(struct step *step, struct store *store, uv_loop_t *loop, enum store_op op,
		    const struct envelope_buffer *buffer)
{
	uint64_t expected = step->version;

	step->done = false;
	step->request = (struct store_request){
		.op = op,
		.name = {.tenant = "default",
			 .tenant_number = 1,
			 .shards = 1,
			 .generation = 1,
			 .space = 'c',
			 .key = KEY,
			 .key_len = KEY_LEN},
		.condition = STORE_IF_VERSION,
		.expected_version = expected,
		.envelope = buffer != NULL ? buffer->bytes : NULL,
		.envelope_len = buffer != NULL ? buffer->length : 0,
		.deadline_ms = clock_monotonic_ms() + 60000,
		.done = step_on_done,
		.context = step,
	};
	store_submit(store, &step->request);
	while (!step->done)
		uv_run(loop, UV_RUN_ONCE);
	return step->request.status;
}

/* Read, add one, write if nobody else did meanwhile. */
static void increment(struct counter *counter, struct store *store, uv_loop_t *loop)
{
	for (;;) {
		struct step step = {.done = false};
		uint64_t value;
		struct envelope_input input = {
			.key = KEY, .key_len = KEY_LEN, .value = &value, .value_len = sizeof value};
		struct envelope_buffer buffer;
		int status = step_run(&step, store, loop, STORE_GET, NULL);

		counter->mistakes += status != RSHM_OK && status != RSHM_MISS;
		value = step.value + 1;
		input.version = step.version + 1;
		input.writer_id = counter->number;
		counter->mistakes += envelope_encode(&input, NULL, &buffer) != RSHM_OK;
		status = step_run(&step, store, loop, STORE_PUT, &buffer);
		envelope_buffer_fini(&buffer);
		if (status == RSHM_OK)
			return;
		/* Whoever came first has a newer version. */
		counter->mistakes += status != RSHM_CONFLICT || step.request.found_version <= step.version;
		counter->conflicts++;
		if (counter->mistakes > 0)
			return;
	}
}

static void *counter_run(void *context)
{
	struct counter *counter = context;
	struct store *store;
	bool closed = false;
	uv_loop_t loop;

	if (uv_loop_init(&loop) != 0 || embedded_store_create(counter->env, &loop, &store) != RSHM_OK) {
		counter->mistakes++;
		return NULL;
	}
	for (uint32_t i = 0; i < INCREMENTS; i++)
		increment(counter, store, &loop);
	store_close(store, fixture_on_closed, &closed);
	while (!closed)
		uv_run(&loop, UV_RUN_ONCE);
	counter->mistakes += uv_loop_close(&loop) != 0;
	return NULL;
}

static uint64_t count_side_by_side(const struct fixture *f)
{
	struct counter counters[2] = {{.number = 1}, {.number = 2}};
	pthread_t threads[2];

	for (int i = 0; i < 2; i++) {
		counters[i].env = f->env;
		assert_int_equal(pthread_create(&threads[i], NULL, counter_run, &counters[i]), 0);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(counters[0].mistakes, 0);
	assert_int_equal(counters[1].mistakes, 0);
	return counters[0].conflicts + counters[1].conflicts;
}

static void increments_of_two_workers_lose_nothing(void **state)
{
	uint64_t value = 0, conflicts = 0;
	struct fixture *f = *state;

	/* Until they did meet, or this has shown nothing: a busy machine may run one after the other. */
	for (int round = 0; round < 50 && conflicts == 0; round++) {
		conflicts = count_side_by_side(f);
		value += 2 * INCREMENTS;
		assert_int_equal(get_expect(f, KEY, KEY_LEN, &value, sizeof value), RSHM_OK);
		assert_version(f, value);
	}
	assert_true(conflicts > 0);
	print_message("%lu conflicts\n", (unsigned long)conflicts);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(if_absent_is_met_where_nothing_lives),
		TEST(if_present_is_met_by_what_lives),
		TEST(if_version_is_met_by_exactly_that_version),
		TEST(if_version_0_is_met_where_nothing_lives),
		TEST(if_older_lets_the_newest_write_win),
		TEST(if_older_respects_a_tombstone),
		TEST(delete_if_version_takes_only_that_version),
		TEST(tombstone_is_read_as_it_is_but_neither_touched_nor_deleted),
		TEST(conditions_hold_for_values_in_pieces_and_after_reopening),
		TEST(what_is_no_condition_is_refused),
		TEST(damaged_record_meets_no_condition_but_if_older),
		TEST(entry_of_a_newer_program_meets_no_condition),
		TEST(one_of_many_that_wait_together_wins),
		cmocka_unit_test(conflict_comes_before_want_of_room),
		TEST(increments_of_two_workers_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
