/*
 * What each operation does to a real server.
 */
#include "tests/unit/agent/store/redis/fixture.h"

#include "agent/store/redis/script.h"

#define MANY 10000u
#define BIG (20u << 20)

static int with_server(void **state)
{
	struct fixture *f = fixture_create();

	*state = f;
	if (redis_server_start(&f->server, "--maxclients", "200", NULL) != 0)
		return -1;
	f->config.connect_timeout_ms = 1000;
	fixture_open(f);
	return 0;
}

static int without(void **state)
{
	fixture_destroy(*state);
	return 0;
}

static void absent_key_is_a_miss_for_every_operation(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fixture_op(f, STORE_GET, "k", 0), RSHM_MISS);
	assert_int_equal(fixture_op(f, STORE_HEAD, "k", 0), RSHM_MISS);
	assert_int_equal(fixture_op(f, STORE_DELETE, "k", 0), RSHM_MISS);
	assert_int_equal(fixture_op(f, STORE_TOUCH, "k", clock_realtime_ms() + 5000), RSHM_MISS);
	assert_int_equal(admin(f, "DBSIZE"), 0);
}

static void entry_comes_back_byte_for_byte_under_its_readable_key(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fixture_put(f, "user:1", "a\0b\r\nc", 6, 0), RSHM_OK);
	assert_stored(f, "user:1", "a\0b\r\nc", 6);
	assert_int_equal(admin(f, "EXISTS riptide:v1:{t1.0}:1:c:user:1"), 1);
	assert_int_equal(admin(f, "PTTL riptide:v1:{t1.0}:1:c:user:1"), -1);
}

static void server_tells_the_life_that_is_left(void **state)
{
	struct fixture *f = *state;
	struct call call = {.answers = 0};
	long long left_ms;

	assert_int_equal(fixture_put(f, "k", "v", 1, clock_realtime_ms() + 60000), RSHM_OK);
	left_ms = admin(f, "PTTL riptide:v1:{t1.0}:1:c:k");
	assert_in_range(left_ms, 55000, 60000);
	call_start(f, &call, STORE_GET, "k", 1, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_in_range(call.remaining_ms, 55000, 60000);
	call_fini(&call);
	assert_int_equal(fixture_put(f, "k", "v", 1, 0), RSHM_OK);
	call_start(f, &call, STORE_GET, "k", 1, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_int_equal(call.remaining_ms, 0);
	call_fini(&call);
	assert_int_equal(fixture_put(f, "k", "v", 1, clock_realtime_ms() + 30), RSHM_OK);
	fixture_run_for(f, 60);
	assert_int_equal(fixture_op(f, STORE_GET, "k", 0), RSHM_MISS);
}

static void get_that_skips_the_life_left_is_one_command(void **state)
{
	struct fixture *f = *state;
	struct call there = {.request = {.skip_remaining = true}}, absent = {.request = {.skip_remaining = true}};

	assert_int_equal(fixture_put(f, "k", "v", 1, clock_realtime_ms() + 60000), RSHM_OK);
	(void)admin(f, "CONFIG RESETSTAT");
	call_start(f, &there, STORE_GET, "k", 1, 5000);
	assert_int_equal(call_wait(f, &there), RSHM_OK);
	assert_true(there.length > 0);
	assert_int_equal(there.remaining_ms, 0);
	call_start(f, &absent, STORE_GET, "l", 1, 5000);
	assert_int_equal(call_wait(f, &absent), RSHM_MISS);
	assert_int_equal(command_calls(f, "get"), 2);
	assert_int_equal(command_calls(f, "pttl"), 0);
	call_fini(&there);
	call_fini(&absent);
}

static void put_of_an_expired_entry_removes_what_was_there(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fixture_put(f, "k", "v", 1, 0), RSHM_OK);
	assert_int_equal(fixture_put(f, "k", "w", 1, clock_realtime_ms() - 1), RSHM_OK);
	assert_int_equal(fixture_op(f, STORE_GET, "k", 0), RSHM_MISS);
	assert_int_equal(admin(f, "DBSIZE"), 0);
}

static void expiry_beyond_all_time_is_accepted(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fixture_put(f, "k", "v", 1, UINT64_MAX), RSHM_OK);
	assert_stored(f, "k", "v", 1);
}

static void keys_of_any_bytes_and_lengths_are_kept_apart(void **state)
{
	struct fixture *f = *state;
	static const size_t lengths[] = {1, 2, 255, 256, 400, 401, 4096, 65535};
	unsigned char *key = make_noise(65536);
	struct call call = {.answers = 0};

	key[0] = '\0';
	key[1] = '\n';
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		call.request.envelope = &lengths[i];
		call.request.envelope_len = sizeof(lengths[i]);
		call_start(f, &call, STORE_PUT, key, lengths[i], 5000);
		assert_int_equal(call_wait(f, &call), RSHM_OK);
		call_fini(&call);
	}
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		call_start(f, &call, STORE_GET, key, lengths[i], 5000);
		assert_int_equal(call_wait(f, &call), RSHM_OK);
		assert_memory_equal(call.bytes, &lengths[i], sizeof(lengths[i]));
		call_fini(&call);
	}
	call_start(f, &call, STORE_GET, key, 65536, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_E_TOOBIG);
	call_fini(&call);
	call_start(f, &call, STORE_GET, key, 0, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_E_INVALID);
	free(key);
}

static void head_returns_the_beginning_only(void **state)
{
	struct fixture *f = *state;
	unsigned char *noise = make_noise(100000);
	struct call call = {.request.head_bytes = 500};

	assert_int_equal(fixture_put(f, "k", noise, 100000, 0), RSHM_OK);
	call_start(f, &call, STORE_HEAD, "k", 1, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_int_equal(call.length, 500);
	assert_memory_equal(call.bytes, noise, 500);
	call_fini(&call);
	call_start(f, &call, STORE_HEAD, "k", 1, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_int_equal(call.length, ENVELOPE_HEAD_BYTES);
	call_fini(&call);
	free(noise);
}

static void delete_tells_whether_there_was_one(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fixture_put(f, "k", "v", 1, 0), RSHM_OK);
	assert_int_equal(fixture_op(f, STORE_DELETE, "k", 0), RSHM_OK);
	assert_int_equal(fixture_op(f, STORE_DELETE, "k", 0), RSHM_MISS);
}

static struct envelope_buffer make_envelope(uint64_t expiry_ms)
{
	struct envelope_input input = {.key = "k",
				       .key_len = 1,
				       .value = "value",
				       .value_len = 5,
				       .created_ms = clock_realtime_ms(),
				       .expiry_ms = expiry_ms,
				       .version = 7};
	struct envelope_buffer buffer;

	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	return buffer;
}

/* Touches "k" and checks what is stored then. */
static void assert_touched(struct fixture *f, uint64_t expiry_ms)
{
	struct call call = {.answers = 0};
	struct envelope_view view;

	assert_int_equal(fixture_op(f, STORE_TOUCH, "k", expiry_ms), RSHM_OK);
	call_start(f, &call, STORE_GET, "k", 1, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_int_equal(envelope_open(call.bytes, call.length, "k", 1, &view), RSHM_OK);
	assert_int_equal(view.head.expiry_ms, expiry_ms);
	assert_int_equal(view.head.expiry_bucket == 0, expiry_ms == 0);
	if (expiry_ms == 0)
		assert_int_equal(call.remaining_ms, 0);
	else
		assert_in_range(call.remaining_ms, expiry_ms - clock_realtime_ms() - 2000,
				expiry_ms - clock_realtime_ms() + 100);
	call_fini(&call);
}

static void touch_changes_head_and_server_clock_together(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer envelope = make_envelope(clock_realtime_ms() + 5000);

	assert_int_equal(fixture_put(f, "k", envelope.bytes, envelope.length, clock_realtime_ms() + 5000), RSHM_OK);
	assert_touched(f, clock_realtime_ms() + 600000);
	assert_touched(f, 0);
	admin(f, "SCRIPT FLUSH SYNC");
	assert_touched(f, clock_realtime_ms() + 30000);
	assert_int_equal(fixture_op(f, STORE_TOUCH, "k", clock_realtime_ms() - 1), RSHM_OK);
	assert_int_equal(fixture_op(f, STORE_GET, "k", 0), RSHM_MISS);
	assert_int_equal(fixture_op(f, STORE_TOUCH, "k", clock_realtime_ms() - 1), RSHM_MISS);
	envelope_buffer_fini(&envelope);
}

static void touch_leaves_what_is_no_envelope_alone(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer envelope = make_envelope(0);

	assert_int_equal(fixture_put(f, "k", "short", 5, 0), RSHM_OK);
	assert_int_equal(fixture_op(f, STORE_TOUCH, "k", clock_realtime_ms() + 5000), RSHM_E_CORRUPT);
	assert_stored(f, "k", "short", 5);
	((unsigned char *)envelope.bytes)[4] = 2;
	assert_int_equal(fixture_put(f, "k", envelope.bytes, envelope.length, 0), RSHM_OK);
	assert_int_equal(fixture_op(f, STORE_TOUCH, "k", clock_realtime_ms() + 5000), RSHM_E_FORMAT);
	assert_stored(f, "k", envelope.bytes, envelope.length);
	envelope_buffer_fini(&envelope);
}

static void scripts_are_called_by_the_hashes_that_the_server_computes(void **state)
{
	struct fixture *f = *state;
	redisContext *context = redisConnectUnix(f->server.unix_path);

	for (int i = 0; i < REDIS_SCRIPTS; i++) {
		redisReply *reply = redisCommand(context, "SCRIPT LOAD %s", redis_scripts[i].text);

		assert_non_null(reply);
		assert_string_equal(reply->str, redis_scripts[i].sha);
		freeReplyObject(reply);
	}
	redisFree(context);
}

static void value_of_20_mib_travels_whole(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	unsigned char *noise = make_noise(BIG);

	for (int i = 0; i < 3; i++) {
		noise[0] = (unsigned char)i;
		assert_int_equal(fixture_put(f, "big", noise, BIG, 0), RSHM_OK);
		assert_int_equal(fixture_put(f, "small", "v", 1, 0), RSHM_OK);
		assert_stored(f, "big", noise, BIG);
		assert_stored(f, "small", "v", 1);
	}
	assert_int_equal(fixture_put(f, "big", noise, f->config.envelope_max + 1, 0), RSHM_E_TOOBIG);
	assert_int_equal(fixture_metric(f, STORE_REDIS_CONNECTIONS_LOST), 0);
	free(noise);
}

static void foreign_value_above_the_limit_is_refused_and_the_rest_goes_on(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;

	admin(f, "SETRANGE riptide:v1:{t1.0}:1:c:k %d x", 30 << 20);
	assert_int_equal(fixture_op(f, STORE_GET, "k", 0), RSHM_E_BACKEND);
	assert_int_equal(fixture_metric(f, STORE_REDIS_PROTOCOL_ERRORS), 1);
	assert_int_equal(fixture_put(f, "other", "v", 1, 0), RSHM_OK);
}

static void ten_thousand_requests_of_one_turn_share_their_sends(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct call *calls = calloc(MANY, sizeof(*calls));
	char(*keys)[16] = calloc(MANY, sizeof(*keys));

	assert_int_equal(fixture_op(f, STORE_GET, "warm", 0), RSHM_MISS);
	for (uint32_t i = 0; i < MANY; i++) {
		snprintf(keys[i], sizeof(keys[i]), "key%u", i);
		calls[i].request.envelope = keys[i];
		calls[i].request.envelope_len = strlen(keys[i]);
		call_start(f, &calls[i], STORE_PUT, keys[i], strlen(keys[i]), 20000);
	}
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(call_wait(f, &calls[i]), RSHM_OK);
		call_fini(&calls[i]);
		call_start(f, &calls[i], STORE_GET, keys[i], strlen(keys[i]), 20000);
	}
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(call_wait(f, &calls[i]), RSHM_OK);
		assert_int_equal(calls[i].length, strlen(keys[i]));
		assert_memory_equal(calls[i].bytes, keys[i], strlen(keys[i]));
		call_fini(&calls[i]);
	}
	assert_int_equal(admin(f, "DBSIZE"), MANY);
	assert_in_range(fixture_metric(f, STORE_REDIS_SENDS), 1, 2 * MANY / 5);
	assert_int_equal(fixture_metric(f, STORE_REDIS_RETRIED), 0);
	free(keys);
	free(calls);
}

static void full_queue_refuses_and_changes_nothing(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct call calls[60] = {{.answers = 0}};
	uint32_t refused = 0;

	fixture_close(f);
	f->config.pool_max = 2;
	f->config.max_pipeline_size = 5;
	f->config.queue_max = 20;
	fixture_open(f);
	fixture_run_for(f, 100);
	assert_int_equal(admin_clients(f, NULL), 2);
	for (uint32_t i = 0; i < 60; i++)
		call_start(f, &calls[i], STORE_GET, "k", 1, 5000);
	for (uint32_t i = 0; i < 60; i++) {
		int status = call_wait(f, &calls[i]);

		assert_true(status == RSHM_MISS || status == RSHM_E_AGAIN);
		refused += status == RSHM_E_AGAIN;
	}
	assert_int_equal(refused, 60 - 2 * 5 - 20);
	assert_int_equal(fixture_metric(f, STORE_REDIS_REFUSED_QUEUE), refused);
}

static void reload_changes_what_is_live(void **state)
{
	struct fixture *f = *state;
	struct store_redis_config config = f->config;
	struct call calls[4] = {{.answers = 0}};

	fixture_run_for(f, 100);
	assert_int_equal(admin_clients(f, NULL), 2);
	config.queue_max = 1;
	config.enable_pipelining = false;
	f->store->ops->reload(f->store, &config);
	/* One on each of two connections, one in the queue, one too many. */
	for (int i = 0; i < 4; i++)
		call_start(f, &calls[i], STORE_GET, "k", 1, 5000);
	for (int i = 0; i < 4; i++)
		assert_int_equal(call_wait(f, &calls[i]), i < 3 ? RSHM_MISS : RSHM_E_AGAIN);
}

static void quiet_store_wakes_for_nothing(void **state)
{
	struct fixture *f = *state;
	struct call call = {.answers = 0};

	f->config.lifetime_ms = 0;
	f->config.command_timeout_ms = 200;
	f->store->ops->reload(f->store, &f->config);
	call_start(f, &call, STORE_GET, "k", 1, 200);
	assert_int_equal(call_wait(f, &call), RSHM_MISS);
	/* Connecting may take a while: until then there is something to look at once. After it there is nothing. */
	fixture_run_for(f, f->config.connect_timeout_ms + 300);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_backend_timeout(&f->loop), -1);
}

static void server_without_unlink_is_sent_del(void **state)
{
	struct fixture *f = *state;

	fixture_close(f);
	redis_server_stop(&f->server);
	f->url[0] = '\0';
	assert_int_equal(redis_server_start(&f->server, "--rename-command", "UNLINK", "", NULL), 0);
	fixture_open(f);
	assert_int_equal(fixture_put(f, "k", "v", 1, 0), RSHM_OK);
	assert_int_equal(fixture_op(f, STORE_DELETE, "k", 0), RSHM_OK);
	assert_int_equal(fixture_op(f, STORE_DELETE, "k", 0), RSHM_MISS);
}

static void status_tells_server_version_and_connections(void **state)
{
	struct fixture *f = *state;
	struct store_status status;

	assert_int_equal(fixture_op(f, STORE_GET, "k", 0), RSHM_MISS);
	fixture_run_for(f, 50);
	store_status(f->store, &status);
	assert_string_equal(status.name, "redis");
	assert_true(status.ready);
	assert_int_equal(status.connections, 2);
	assert_int_equal(status.connections_max, 10);
	assert_int_equal(status.completed, RIPTIDE_METRICS ? 1 : 0);
	assert_int_equal(status.pending, 0);
	assert_non_null(strstr(status.detail, "standalone"));
	assert_non_null(strstr(status.detail, f->server.unix_path));
}

int main(void)
{
#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, with_server, without)
	const struct CMUnitTest tests[] = {
		STORE_TEST(absent_key_is_a_miss_for_every_operation),
		STORE_TEST(entry_comes_back_byte_for_byte_under_its_readable_key),
		STORE_TEST(server_tells_the_life_that_is_left),
		STORE_TEST(get_that_skips_the_life_left_is_one_command),
		STORE_TEST(put_of_an_expired_entry_removes_what_was_there),
		STORE_TEST(expiry_beyond_all_time_is_accepted),
		STORE_TEST(keys_of_any_bytes_and_lengths_are_kept_apart),
		STORE_TEST(head_returns_the_beginning_only),
		STORE_TEST(delete_tells_whether_there_was_one),
		STORE_TEST(touch_changes_head_and_server_clock_together),
		STORE_TEST(touch_leaves_what_is_no_envelope_alone),
		STORE_TEST(scripts_are_called_by_the_hashes_that_the_server_computes),
		STORE_TEST(value_of_20_mib_travels_whole),
		STORE_TEST(foreign_value_above_the_limit_is_refused_and_the_rest_goes_on),
		STORE_TEST(ten_thousand_requests_of_one_turn_share_their_sends),
		STORE_TEST(full_queue_refuses_and_changes_nothing),
		STORE_TEST(reload_changes_what_is_live),
		STORE_TEST(quiet_store_wakes_for_nothing),
		STORE_TEST(server_without_unlink_is_sent_del),
		STORE_TEST(status_tells_server_version_and_connections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
