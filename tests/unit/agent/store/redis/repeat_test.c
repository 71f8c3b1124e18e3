/*
 * Writes that were executed and whose answer was lost: which are sent again, and what is said of them.
 *
 * The server is stopped, gets the write, and the connection is given up. When it goes on it executes what it finds in
 * its socket, and only then meets the successor.
 */
#include "tests/unit/agent/store/redis/fixture.h"

#define KEY "riptide:v1:{t1.0}:1:c:k"

static int with_server(void **state)
{
	struct fixture *f = fixture_create();

	*state = f;
	f->config.command_timeout_ms = 300;
	f->config.connect_grace_ms = 5000;
	f->config.pool_min = 1;
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

static struct envelope_buffer make(uint64_t version, uint32_t writer)
{
	struct envelope_input input = {.key = "k",
				       .key_len = 1,
				       .value = &version,
				       .value_len = sizeof(version),
				       .version = version,
				       .writer_id = writer};
	struct envelope_buffer buffer;

	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	return buffer;
}

/* The server knows the scripts, and "k" is of version 5. */
static void begin(struct fixture *f)
{
	struct call call = {.request.condition = STORE_IF_VERSION, .request.expected_version = 1};
	struct envelope_buffer envelope = make(5, 1);

	call_start(f, &call, STORE_DELETE, "k", 1, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_CONFLICT);
	assert_int_equal(fixture_op(f, STORE_GENERATION, "k", 0), RSHM_OK);
	assert_int_equal(fixture_put(f, "k", envelope.bytes, envelope.length, 0), RSHM_OK);
	envelope_buffer_fini(&envelope);
	(void)admin(f, "CONFIG RESETSTAT");
}

/*
 * Sends `call` so that its answer is lost, and `foreign` (may be NULL), a command of somebody else, after it, which the
 * server reads before a second try. Returns what the call is answered.
 */
static int lose_answer(struct fixture *f, struct call *call, enum store_op op, const char *foreign)
{
	redisContext *other = redisConnectUnix(f->server.unix_path);
	int done = 0, status;

	assert_int_equal(other->err, 0);
	redis_server_pause(&f->server);
	call_start(f, call, op, "k", 1, 8000);
	fixture_run_for(f, 20);
	if (foreign != NULL) {
		assert_int_equal(redisAppendCommand(other, foreign), REDIS_OK);
		assert_int_equal(redisBufferWrite(other, &done), REDIS_OK);
		assert_true(done);
	}
	fixture_run_for(f, 500);
	assert_int_equal(fixture_metric(f, STORE_REDIS_CONNECTIONS_LOST), 1);
	redis_server_resume(&f->server);
	status = call_wait(f, call);
	fixture_run_for(f, 50);
	assert_int_equal(call->answers, 1);
	redisFree(other);
	return status;
}

static int lose_put(struct fixture *f, enum store_condition condition, uint64_t expected, uint64_t version,
		    const char *foreign, uint64_t *ret_found)
{
	struct envelope_buffer envelope = make(version, 1);
	struct call call = {.request = {.condition = condition,
					.expected_version = expected,
					.envelope = envelope.bytes,
					.envelope_len = envelope.length}};
	int status = lose_answer(f, &call, STORE_PUT, foreign);

	*ret_found = call.request.found_version;
	envelope_buffer_fini(&envelope);
	return status;
}

static void assert_version(struct fixture *f, uint64_t version)
{
	struct call call = {.answers = 0};
	struct envelope_head head;

	call_start(f, &call, STORE_HEAD, "k", 1, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_int_equal(envelope_peek_head(call.bytes, call.length, &head), RSHM_OK);
	assert_int_equal(head.version, version);
	call_fini(&call);
}

static void write_of_a_version_finds_its_own_first_try(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	uint64_t found;

	begin(f);
	assert_int_equal(lose_put(f, STORE_IF_VERSION, 5, 7, NULL, &found), RSHM_OK);
	assert_int_equal(command_calls(f, "evalsha"), 2);
	assert_int_equal(fixture_metric(f, STORE_REDIS_KILLS), 1);
	assert_int_equal(fixture_metric(f, STORE_REDIS_UNKNOWN_WRITES), 0);
	assert_version(f, 7);
}

static void newest_write_finds_its_own_first_try(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	uint64_t found;

	begin(f);
	assert_int_equal(lose_put(f, STORE_IF_OLDER, 0, 7, NULL, &found), RSHM_OK);
	assert_int_equal(command_calls(f, "evalsha"), 2);
	assert_version(f, 7);
}

static void write_of_a_version_that_finds_another_one_proves_nothing(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	uint64_t found;

	begin(f);
	/* Whichever of the two was first, the second try cannot tell. */
	assert_int_equal(lose_put(f, STORE_IF_VERSION, 5, 7, "DEL " KEY, &found), RSHM_E_UNKNOWN);
	assert_int_equal(command_calls(f, "evalsha"), 2);
	assert_int_equal(fixture_metric(f, STORE_REDIS_UNKNOWN_WRITES), 1);
}

static void overtaken_newest_write_is_a_conflict_either_way(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	uint64_t found;

	begin(f);
	/* The lowest byte of the version becomes 9; what else it changes nobody checks. */
	assert_int_equal(lose_put(f, STORE_IF_OLDER, 0, 7, "SETRANGE " KEY " 8 \t", &found), RSHM_CONFLICT);
	assert_int_equal(found, 9);
	assert_int_equal(command_calls(f, "evalsha"), 2);
	assert_version(f, 9);
}

static void removal_of_a_version_does_not_know_whose_absence_it_finds(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct call call = {.request.condition = STORE_IF_VERSION, .request.expected_version = 5};

	begin(f);
	assert_int_equal(lose_answer(f, &call, STORE_DELETE, NULL), RSHM_E_UNKNOWN);
	assert_int_equal(command_calls(f, "evalsha"), 2);
	assert_int_equal(fixture_op(f, STORE_GET, "k", 0), RSHM_MISS);
}

static void writes_without_a_version_are_sent_once(void **state)
{
	fixture_needs_metrics();
	static const struct {
		enum store_condition condition;
		bool present;
	} cases[] = {{STORE_IF_ABSENT, false}, {STORE_IF_PRESENT, true}, {STORE_IF_VERSION, false}};
	struct fixture *f = *state;
	uint64_t found;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin(f);
		if (!cases[i].present)
			(void)admin(f, "DEL " KEY);
		assert_int_equal(lose_put(f, cases[i].condition, 0, 7, NULL, &found), RSHM_E_UNKNOWN);
		assert_int_equal(command_calls(f, "evalsha"), 1);
		assert_int_equal(fixture_metric(f, STORE_REDIS_RETRIED), 0);
		assert_version(f, 7);
		fixture_close(f);
		fixture_open(f);
	}
}

static void next_generation_is_sent_once_and_swept_again(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct call next = {.answers = 0}, swept = {.request.swept = 1}, look = {.answers = 0};

	begin(f);
	assert_int_equal(lose_answer(f, &next, STORE_NEXT_GENERATION, NULL), RSHM_E_UNKNOWN);
	assert_int_equal(command_calls(f, "evalsha"), 1);
	fixture_close(f);
	fixture_open(f);
	begin(f);
	assert_int_equal(lose_answer(f, &swept, STORE_SWEPT, NULL), RSHM_OK);
	assert_int_equal(command_calls(f, "evalsha"), 2);
	call_start(f, &look, STORE_GENERATION, NULL, 0, 5000);
	assert_int_equal(call_wait(f, &look), RSHM_OK);
	assert_int_equal(look.request.generation, 2);
	assert_int_equal(look.request.swept, 1);
}

static void repeated_write_that_fails_otherwise_stays_unknown(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	uint64_t found;

	begin(f);
	assert_int_equal(admin(f, "HSET foreign a b"), 1);
	assert_int_equal(lose_put(f, STORE_IF_OLDER, 0, 7, "RENAME foreign " KEY, &found), RSHM_E_UNKNOWN);
	assert_int_equal(command_calls(f, "evalsha"), 2);
	assert_int_equal(admin(f, "HLEN " KEY), 1);
}

static void write_that_is_never_heard_of_again_is_unknown_at_its_deadline(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct envelope_buffer envelope = make(7, 1);
	struct call call = {.request = {.condition = STORE_IF_OLDER,
					.envelope = envelope.bytes,
					.envelope_len = envelope.length}};

	begin(f);
	redis_server_pause(&f->server);
	call_start(f, &call, STORE_PUT, "k", 1, 800);
	assert_int_equal(call_wait(f, &call), RSHM_E_UNKNOWN);
	assert_in_range(call.answered_ms - call.submitted_ms, 790, 1500);
	call_fini(&call);
	/* Closing does not claim that nothing happened either. */
	redis_server_resume(&f->server);
	fixture_run_for(f, 100);
	redis_server_pause(&f->server);
	call.request = (struct store_request){
		.condition = STORE_IF_OLDER, .envelope = envelope.bytes, .envelope_len = envelope.length};
	call_start(f, &call, STORE_PUT, "k", 1, 8000);
	fixture_run_for(f, 500);
	assert_int_equal(call.answers, 0);
	fixture_close(f);
	assert_int_equal(call.status, RSHM_E_UNKNOWN);
	redis_server_resume(&f->server);
	envelope_buffer_fini(&envelope);
}

int main(void)
{
#define REPEAT_TEST(name) cmocka_unit_test_setup_teardown(name, with_server, without)
	const struct CMUnitTest tests[] = {
		REPEAT_TEST(write_of_a_version_finds_its_own_first_try),
		REPEAT_TEST(newest_write_finds_its_own_first_try),
		REPEAT_TEST(write_of_a_version_that_finds_another_one_proves_nothing),
		REPEAT_TEST(overtaken_newest_write_is_a_conflict_either_way),
		REPEAT_TEST(removal_of_a_version_does_not_know_whose_absence_it_finds),
		REPEAT_TEST(writes_without_a_version_are_sent_once),
		REPEAT_TEST(next_generation_is_sent_once_and_swept_again),
		REPEAT_TEST(repeated_write_that_fails_otherwise_stays_unknown),
		REPEAT_TEST(write_that_is_never_heard_of_again_is_unknown_at_its_deadline),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
