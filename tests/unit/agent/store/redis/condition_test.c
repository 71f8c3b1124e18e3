/*
 * Conditional writes against a real server.
 */
#include "tests/unit/agent/store/redis/fixture.h"

#define KEY "riptide:v1:{t1.0}:1:c:k"

static int with_server(void **state)
{
	struct fixture *f = fixture_create();

	*state = f;
	if (redis_server_start(&f->server, NULL) != 0)
		return -1;
	fixture_open(f);
	return 0;
}

static int without(void **state)
{
	fixture_destroy(*state);
	return 0;
}

/* Envelopes of the key "k" that nobody frees by hand: of version, writer and flags, with a value that tells them. */
static struct envelope_buffer make(uint64_t version, uint32_t writer, uint16_t flags, uint64_t expiry_ms)
{
	struct envelope_input input = {.key = "k",
				       .key_len = 1,
				       .value = &version,
				       .value_len = sizeof(version),
				       .created_ms = 1,
				       .expiry_ms = expiry_ms,
				       .version = version,
				       .writer_id = writer,
				       .flags = flags};
	struct envelope_buffer buffer;

	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	return buffer;
}

static int put_if(struct fixture *f, enum store_condition condition, uint64_t expected,
		  const struct envelope_buffer *envelope, uint64_t expiry_ms, uint64_t *ret_found)
{
	struct call call = {.request = {.condition = condition,
					.expected_version = expected,
					.envelope = envelope->bytes,
					.envelope_len = envelope->length,
					.expiry_ms = expiry_ms}};
	int status;

	call_start(f, &call, STORE_PUT, "k", 1, 5000);
	status = call_wait(f, &call);
	*ret_found = call.request.found_version;
	return status;
}

static int delete_if(struct fixture *f, enum store_condition condition, uint64_t expected, uint64_t *ret_found)
{
	struct call call = {.request = {.condition = condition, .expected_version = expected}};
	int status;

	call_start(f, &call, STORE_DELETE, "k", 1, 5000);
	status = call_wait(f, &call);
	*ret_found = call.request.found_version;
	return status;
}

/* What may be there before a write. The entries are of version 5, writer 2. */
enum before {
	ABSENT,
	LIVE,
	DEAD,    /* a tombstone */
	EXPIRED, /* to its readers; the server still has it */
	GONE,    /* it was there until the server's clock ended it */
	FOREIGN,
	EMPTY,
	NEWER, /* of a newer program */
	BEFORES
};

static void bring_about(struct fixture *f, enum before before)
{
	uint64_t now_ms = clock_realtime_ms();
	struct envelope_buffer envelope =
		make(5, 2, before == DEAD ? ENVELOPE_FLAG_TOMBSTONE : 0, before == EXPIRED ? now_ms - 1 : 0);

	assert_true(fixture_op(f, STORE_DELETE, "k", 0) >= 0);
	switch (before) {
	case ABSENT:
		break;
	case FOREIGN:
		assert_int_equal(fixture_put(f, "k", "somebody's", 10, 0), RSHM_OK);
		break;
	case EMPTY:
		assert_int_equal(fixture_put(f, "k", "", 0, 0), RSHM_OK);
		break;
	case GONE:
		assert_int_equal(fixture_put(f, "k", envelope.bytes, envelope.length, clock_realtime_ms() + 20),
				 RSHM_OK);
		fixture_run_for(f, 40);
		break;
	case NEWER:
		((unsigned char *)envelope.bytes)[4] = ENVELOPE_FORMAT + 1;
		assert_int_equal(fixture_put(f, "k", envelope.bytes, envelope.length, 0), RSHM_OK);
		break;
	default:
		assert_int_equal(fixture_put(f, "k", envelope.bytes, envelope.length, 0), RSHM_OK);
		break;
	}
	envelope_buffer_fini(&envelope);
}

/* What stands there, for a comparison; RSHM_MISS if nothing does. */
static int look(struct fixture *f, struct call *call)
{
	call_start(f, call, STORE_GET, "k", 1, 5000);
	return call_wait(f, call);
}

#define X RSHM_CONFLICT
#define F RSHM_E_FORMAT

/* By `enum before`: what a write of version 7, writer 1 is answered, and the version it is told. */
static const struct expectation {
	enum store_condition condition;
	uint64_t expected;
	int put[BEFORES], remove[BEFORES];
	uint64_t found[BEFORES];
} expectations[] = {
	{STORE_IF_ABSENT, 0, {0, X, 0, 0, 0, X, X, F}, {0}, {0, 5}},
	{STORE_IF_PRESENT, 0, {X, 0, X, X, X, 0, 0, F}, {0}, {0}},
	{STORE_IF_VERSION, 5, {X, 0, X, X, X, X, X, F}, {X, 0, X, X, X, X, X, F}, {0}},
	{STORE_IF_VERSION, 6, {X, X, X, X, X, X, X, F}, {X, X, X, X, X, X, X, F}, {0, 5}},
	{STORE_IF_VERSION, 0, {0, X, 0, 0, 0, X, X, F}, {1, X, 1, 1, 1, X, X, F}, {0, 5}},
	{STORE_IF_OLDER, 0, {0, 0, 0, 0, 0, 0, 0, F}, {0}, {0}},
};

/* `expected` for the status; changed or not, what stands there afterwards must agree with it. */
static void check_put(struct fixture *f, const struct expectation *e, enum before before)
{
	struct envelope_buffer envelope = make(7, 1, 0, 0);
	struct call old = {.answers = 0}, new = {.answers = 0};
	uint64_t found = 99;
	int status, was_there;

	bring_about(f, before);
	was_there = look(f, &old);
	status = put_if(f, e->condition, e->expected, &envelope, 0, &found);
	if (status != e->put[before])
		fail_msg("PUT, condition %d %d, before %d: %d", e->condition, (int)e->expected, before, status);
	if (status == RSHM_CONFLICT)
		assert_int_equal(found, e->found[before]);
	if (status == RSHM_OK) {
		assert_stored(f, "k", envelope.bytes, envelope.length);
	} else {
		assert_int_equal(look(f, &new), was_there);
		assert_int_equal(new.length, old.length);
		if (was_there == RSHM_OK)
			assert_memory_equal(new.bytes, old.bytes, old.length);
	}
	call_fini(&old);
	call_fini(&new);
	envelope_buffer_fini(&envelope);
}

static void every_condition_is_judged_by_what_is_there(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(expectations) / sizeof(expectations[0]); i++) {
		for (int before = 0; before < BEFORES; before++)
			check_put(f, &expectations[i], (enum before)before);
	}
}

static void removal_may_ask_for_a_version_and_for_nothing_else(void **state)
{
	struct fixture *f = *state;
	uint64_t found;

	for (size_t i = 0; i < sizeof(expectations) / sizeof(expectations[0]); i++) {
		const struct expectation *e = &expectations[i];

		for (int before = 0; before < BEFORES; before++) {
			struct call call = {.answers = 0};
			int status, was_there;

			bring_about(f, (enum before)before);
			was_there = look(f, &call);
			call_fini(&call);
			status = delete_if(f, e->condition, e->expected, &found);
			if (e->condition != STORE_IF_VERSION)
				assert_int_equal(status, RSHM_E_INVALID);
			else if (status != e->remove[before])
				fail_msg("DELETE, version %d, before %d: %d", (int)e->expected, before, status);
			if (status == RSHM_CONFLICT)
				assert_int_equal(found, e->found[before]);
			assert_int_equal(look(f, &call), status == RSHM_OK ? RSHM_MISS : was_there);
			call_fini(&call);
		}
	}
}

#undef X
#undef F

static void newest_version_wins_whatever_its_bytes_and_the_writer_decides_a_tie(void **state)
{
	static const struct {
		uint64_t version;
		uint32_t writer;
	} sorted[] = {{1, 1},
		      {1, 0x80},
		      {1, 0x0100},
		      {1, UINT32_MAX},
		      {0x7f, 0},
		      {0x80, 0},
		      {0xff, 9},
		      {0x100, 1},
		      {0x0a0d00, 3},
		      {1ull << 53, 1},
		      {(1ull << 53) + 1, 0},
		      {0x7fffffffffffffff, 1},
		      {0x8000000000000000, 1},
		      {UINT64_MAX, 0},
		      {UINT64_MAX, 1}};
	const size_t count = sizeof(sorted) / sizeof(sorted[0]);
	struct fixture *f = *state;
	uint64_t found;

	for (size_t i = 0; i < count * count * 2; i++) {
		size_t there = i / 2 / count, write = i / 2 % count;
		bool dead = i % 2;
		struct envelope_buffer old =
			make(sorted[there].version, sorted[there].writer, dead ? ENVELOPE_FLAG_TOMBSTONE : 0, 0);
		struct envelope_buffer new = make(sorted[write].version, sorted[write].writer, 0, 0);

		assert_int_equal(fixture_put(f, "k", old.bytes, old.length, 0), RSHM_OK);
		if (there < write) {
			assert_int_equal(put_if(f, STORE_IF_OLDER, 0, &new, 0, &found), RSHM_OK);
			assert_stored(f, "k", new.bytes, new.length);
		} else {
			assert_int_equal(put_if(f, STORE_IF_OLDER, 0, &new, 0, &found), RSHM_CONFLICT);
			assert_int_equal(found, dead ? 0 : sorted[there].version);
			assert_stored(f, "k", old.bytes, old.length);
		}
		envelope_buffer_fini(&old);
		envelope_buffer_fini(&new);
	}
}

static void whole_64_bits_of_the_version_are_compared(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer old = make((1ull << 62) + 1, 1, 0, 0), new = make((1ull << 62) + 2, 1, 0, 0);
	uint64_t found;

	assert_int_equal(fixture_put(f, "k", old.bytes, old.length, 0), RSHM_OK);
	assert_int_equal(put_if(f, STORE_IF_VERSION, 1ull << 62, &new, 0, &found), RSHM_CONFLICT);
	assert_int_equal(found, (1ull << 62) + 1);
	assert_int_equal(put_if(f, STORE_IF_VERSION, found, &new, 0, &found), RSHM_OK);
	assert_int_equal(delete_if(f, STORE_IF_VERSION, (1ull << 62) + 1, &found), RSHM_CONFLICT);
	assert_int_equal(found, (1ull << 62) + 2);
	assert_int_equal(delete_if(f, STORE_IF_VERSION, found, &found), RSHM_OK);
	envelope_buffer_fini(&old);
	envelope_buffer_fini(&new);
}

static void conditional_write_sets_and_ends_the_life_of_an_entry(void **state)
{
	struct fixture *f = *state;
	uint64_t now_ms = clock_realtime_ms(), found;
	struct envelope_buffer timed = make(5, 1, 0, now_ms + 60000), lasting = make(6, 1, 0, 0);
	struct envelope_buffer expired = make(7, 1, 0, now_ms - 1);

	assert_int_equal(put_if(f, STORE_IF_ABSENT, 0, &timed, now_ms + 60000, &found), RSHM_OK);
	assert_in_range(admin(f, "PTTL " KEY), 50000, 60000);
	assert_int_equal(put_if(f, STORE_IF_VERSION, 5, &lasting, 0, &found), RSHM_OK);
	assert_int_equal(admin(f, "PTTL " KEY), -1);
	assert_int_equal(put_if(f, STORE_IF_VERSION, 5, &expired, now_ms - 1, &found), RSHM_CONFLICT);
	assert_stored(f, "k", lasting.bytes, lasting.length);
	assert_int_equal(put_if(f, STORE_IF_VERSION, 6, &expired, now_ms - 1, &found), RSHM_OK);
	assert_int_equal(admin(f, "EXISTS " KEY), 0);
	envelope_buffer_fini(&timed);
	envelope_buffer_fini(&lasting);
	envelope_buffer_fini(&expired);
}

static void tombstone_is_written_and_read_like_any_envelope(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer tombstone = make(9, 1, ENVELOPE_FLAG_TOMBSTONE, 0), late = make(8, 1, 0, 0);
	struct call call = {.answers = 0};
	uint64_t found;

	assert_int_equal(fixture_put(f, "k", late.bytes, late.length, 0), RSHM_OK);
	assert_int_equal(put_if(f, STORE_IF_OLDER, 0, &tombstone, clock_realtime_ms() + 5000, &found), RSHM_OK);
	assert_stored(f, "k", tombstone.bytes, tombstone.length);
	call_start(f, &call, STORE_HEAD, "k", 1, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_memory_equal(call.bytes, tombstone.bytes, ENVELOPE_HEAD_BYTES);
	call_fini(&call);
	/* The write that the deletion overtook stays away. */
	assert_int_equal(put_if(f, STORE_IF_OLDER, 0, &late, 0, &found), RSHM_CONFLICT);
	assert_stored(f, "k", tombstone.bytes, tombstone.length);
	envelope_buffer_fini(&tombstone);
	envelope_buffer_fini(&late);
}

static void condition_without_an_envelope_is_refused(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer envelope = {.bytes = (char[]){"short"}, .length = 5};
	uint64_t found;

	assert_int_equal(put_if(f, STORE_IF_ABSENT, 0, &envelope, 0, &found), RSHM_E_INVALID);
	assert_int_equal(put_if(f, (enum store_condition)99, 0, &envelope, 0, &found), RSHM_E_INVALID);
	assert_int_equal(admin(f, "DBSIZE"), 0);
}

static void what_is_no_string_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer envelope = make(7, 1, 0, 0);
	uint64_t found;

	assert_int_equal(admin(f, "HSET " KEY " a b"), 1);
	for (int condition = STORE_IF_ABSENT; condition <= STORE_IF_OLDER; condition++)
		assert_int_equal(put_if(f, (enum store_condition)condition, 1, &envelope, 0, &found), RSHM_E_BACKEND);
	assert_int_equal(admin(f, "HLEN " KEY), 1);
	envelope_buffer_fini(&envelope);
}

static void only_conditions_cost_a_script(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer envelope = make(7, 1, 0, 0);
	uint64_t found;

	assert_int_equal(put_if(f, STORE_IF_ABSENT, 0, &envelope, 0, &found), RSHM_OK);
	(void)admin(f, "CONFIG RESETSTAT");
	assert_int_equal(put_if(f, STORE_ALWAYS, 0, &envelope, 0, &found), RSHM_OK);
	assert_int_equal(delete_if(f, STORE_ALWAYS, 0, &found), RSHM_OK);
	assert_int_equal(command_calls(f, "set"), 1);
	assert_int_equal(command_calls(f, "unlink"), 1);
	assert_int_equal(command_calls(f, "evalsha"), 0);
	assert_int_equal(command_calls(f, "eval"), 0);
	assert_int_equal(put_if(f, STORE_IF_ABSENT, 0, &envelope, 0, &found), RSHM_OK);
	assert_int_equal(command_calls(f, "evalsha"), 1);
	assert_int_equal(command_calls(f, "eval"), 0);
	envelope_buffer_fini(&envelope);
}

static void value_of_20_mib_goes_through_the_script(void **state)
{
	struct fixture *f = *state;
	unsigned char *noise = make_noise(20u << 20);
	struct envelope_input input = {
		.key = "k", .key_len = 1, .value = noise, .value_len = 20u << 20, .version = 7, .writer_id = 1};
	struct envelope_buffer envelope;
	uint64_t found;

	assert_int_equal(envelope_encode(&input, NULL, &envelope), RSHM_OK);
	for (int round = 0; round < 2; round++) {
		(void)admin(f, "SCRIPT FLUSH SYNC");
		(void)admin(f, "FLUSHALL");
		assert_int_equal(put_if(f, STORE_IF_ABSENT, 0, &envelope, 0, &found), RSHM_OK);
		assert_stored(f, "k", envelope.bytes, envelope.length);
	}
	envelope_buffer_fini(&envelope);
	free(noise);
}

static void full_server_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer envelope = make(7, 1, 0, 0);
	uint64_t found;

	admin(f, "CONFIG SET maxmemory 1");
	assert_int_equal(put_if(f, STORE_IF_OLDER, 0, &envelope, 0, &found), RSHM_E_FULL);
	admin(f, "CONFIG SET maxmemory 0");
	assert_int_equal(admin(f, "DBSIZE"), 0);
	envelope_buffer_fini(&envelope);
}

static void scripts_run_on_a_cluster_node(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer envelope = make(7, 1, 0, 0);
	struct call call = {.answers = 0};
	uint64_t found;

	fixture_close(f);
	redis_server_stop(&f->server);
	f->url[0] = '\0';
	assert_int_equal(redis_server_start_tcp(&f->server, "--cluster-enabled", "yes", NULL), 0);
	admin(f, "CLUSTER ADDSLOTSRANGE 0 16383");
	f->config.retry_attempts = 100;
	fixture_open(f);
	assert_int_equal(put_if(f, STORE_IF_ABSENT, 0, &envelope, 0, &found), RSHM_OK);
	assert_int_equal(put_if(f, STORE_IF_ABSENT, 0, &envelope, 0, &found), RSHM_CONFLICT);
	assert_int_equal(delete_if(f, STORE_IF_VERSION, 7, &found), RSHM_OK);
	call_start(f, &call, STORE_NEXT_GENERATION, NULL, 0, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_int_equal(call.request.generation, 2);
	call_fini(&call);
	envelope_buffer_fini(&envelope);
}

/* ---- races ----------------------------------------------------------------------------------------------------- */

#define ADDERS 8u     /* half of them in each store */
#define ADDITIONS 50u /* of each */

/* Adds 1 to the number in "k" again and again: get, compute, compare and set. */
struct adder {
	struct store_request request;
	struct race *race;
	struct store *store;
	uint32_t number; /* its writer id; makes its versions its own */
	uint32_t turns, added, unknown;
	uint64_t value;
	struct envelope_buffer envelope;
};

struct race {
	struct adder adders[ADDERS];
	uint32_t finished, conflicts;
};

static void adder_get(struct adder *adder);

static void adder_on_put(struct store_request *request)
{
	struct adder *adder = request->context;

	envelope_buffer_fini(&adder->envelope);
	if (request->status == RSHM_OK)
		adder->added++;
	else if (request->status == RSHM_E_UNKNOWN)
		adder->unknown++;
	else if (request->status == RSHM_CONFLICT)
		adder->race->conflicts++;
	else
		assert_true(request->status == RSHM_E_AGAIN || request->status == RSHM_E_TIMEDOUT);
	adder_get(adder);
}

static void adder_on_get(struct store_request *request)
{
	struct adder *adder = request->context;
	uint64_t value = 0, version = 0;
	struct envelope_view view;

	if (request->status == RSHM_OK) {
		assert_int_equal(envelope_open(request->result, request->result_len, "k", 1, &view), RSHM_OK);
		assert_int_equal(envelope_payload(&view, &value, sizeof(value)), RSHM_OK);
		version = view.head.version;
	} else if (request->status != RSHM_MISS) {
		adder_get(adder);
		return;
	}
	adder->value = value + 1;
	adder->envelope = (struct envelope_buffer){NULL, 0};
	assert_int_equal(
		envelope_encode(&(struct envelope_input){.key = "k",
							 .key_len = 1,
							 .value = &adder->value,
							 .value_len = sizeof(adder->value),
							 .version = (uint64_t)adder->turns << 8 | adder->number,
							 .writer_id = adder->number},
				NULL, &adder->envelope),
		RSHM_OK);
	*request = (struct store_request){.op = STORE_PUT,
					  .name = request->name,
					  .condition = STORE_IF_VERSION,
					  .expected_version = version,
					  .envelope = adder->envelope.bytes,
					  .envelope_len = adder->envelope.length,
					  .deadline_ms = clock_monotonic_ms() + 5000,
					  .done = adder_on_put,
					  .context = adder};
	store_submit(adder->store, request);
}

static void adder_get(struct adder *adder)
{
	adder->turns++;
	if (adder->added + adder->unknown >= ADDITIONS) {
		adder->race->finished++;
		return;
	}
	adder->request = (struct store_request){.op = STORE_GET,
						.name = {.tenant = "t1",
							 .tenant_number = 1,
							 .shards = 1,
							 .generation = 1,
							 .space = 'c',
							 .key = "k",
							 .key_len = 1},
						.deadline_ms = clock_monotonic_ms() + 5000,
						.done = adder_on_get,
						.context = adder};
	store_submit(adder->store, &adder->request);
}

static uint64_t stored_number(struct fixture *f)
{
	struct call call = {.answers = 0};
	struct envelope_view view;
	uint64_t value;

	assert_int_equal(look(f, &call), RSHM_OK);
	assert_int_equal(envelope_open(call.bytes, call.length, "k", 1, &view), RSHM_OK);
	assert_int_equal(envelope_payload(&view, &value, sizeof(value)), RSHM_OK);
	call_fini(&call);
	return value;
}

/* All add at once through two stores, disturbed now and then. Checks the sum; returns how many are unknown. */
static uint32_t race_run(struct fixture *f, struct race *race, void (*disturb)(struct fixture *f))
{
	struct store *first = f->store, *second;
	uint32_t added = 0, unknown = 0;
	uint64_t value;

	fixture_open(f);
	second = f->store;
	for (uint32_t i = 0; i < ADDERS; i++) {
		race->adders[i] = (struct adder){.race = race, .store = i % 2 ? first : second, .number = i + 1};
		adder_get(&race->adders[i]);
	}
	for (int i = 0; i < 3000 && !fixture_run(f, &race->finished, ADDERS, 10); i++) {
		if (disturb != NULL && i < 30)
			disturb(f);
	}
	assert_int_equal(race->finished, ADDERS);
	for (uint32_t i = 0; i < ADDERS; i++) {
		added += race->adders[i].added;
		unknown += race->adders[i].unknown;
	}
	fixture_close(f);
	f->store = first;
	value = stored_number(f);
	assert_in_range(value, added, added + unknown);
	assert_int_equal(added + unknown, ADDERS * ADDITIONS);
	return unknown;
}

static void two_stores_lose_no_update_of_a_counter(void **state)
{
	struct fixture *f = *state;
	struct race race = {.finished = 0};

	assert_int_equal(race_run(f, &race, NULL), 0);
	assert_true(race.conflicts > 0);
	assert_int_equal(stored_number(f), ADDERS * ADDITIONS);
}

static void forget_scripts(struct fixture *f)
{
	(void)admin(f, "SCRIPT FLUSH SYNC");
}

static void scripts_that_the_server_forgets_are_sent_again(void **state)
{
	struct fixture *f = *state;
	struct race race = {.finished = 0};

	assert_int_equal(race_run(f, &race, forget_scripts), 0);
	assert_true(command_calls(f, "eval") > 2);
	assert_int_equal(stored_number(f), ADDERS * ADDITIONS);
}

static void kill_connections(struct fixture *f)
{
	(void)admin(f, "CLIENT KILL TYPE normal SKIPME yes");
}

static void killed_connections_count_nothing_twice(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct race race = {.finished = 0};

	fixture_close(f);
	f->config.connect_grace_ms = 3000;
	f->config.pool_min = 4;
	f->config.retry_attempts = 10;
	fixture_open(f);
	(void)race_run(f, &race, kill_connections);
	assert_true(fixture_metric(f, STORE_REDIS_CONNECTIONS_LOST) > 10);
}

int main(void)
{
#define CONDITION_TEST(name) cmocka_unit_test_setup_teardown(name, with_server, without)
	const struct CMUnitTest tests[] = {
		CONDITION_TEST(every_condition_is_judged_by_what_is_there),
		CONDITION_TEST(removal_may_ask_for_a_version_and_for_nothing_else),
		CONDITION_TEST(newest_version_wins_whatever_its_bytes_and_the_writer_decides_a_tie),
		CONDITION_TEST(whole_64_bits_of_the_version_are_compared),
		CONDITION_TEST(conditional_write_sets_and_ends_the_life_of_an_entry),
		CONDITION_TEST(tombstone_is_written_and_read_like_any_envelope),
		CONDITION_TEST(condition_without_an_envelope_is_refused),
		CONDITION_TEST(what_is_no_string_is_left_alone),
		CONDITION_TEST(only_conditions_cost_a_script),
		CONDITION_TEST(value_of_20_mib_goes_through_the_script),
		CONDITION_TEST(full_server_changes_nothing),
		CONDITION_TEST(scripts_run_on_a_cluster_node),
		CONDITION_TEST(two_stores_lose_no_update_of_a_counter),
		CONDITION_TEST(scripts_that_the_server_forgets_are_sent_again),
		CONDITION_TEST(killed_connections_count_nothing_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
