/*
 * What a watcher hears of a real server: foreign changes of every kind, and of its own writes only those that may hide one.
 */
#include "tests/unit/agent/store/redis/watch.h"

/* ---- what is told --------------------------------------------------------------------------------------------------- */

static void foreign_changes_of_every_kind_are_told(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(admin(f, "SET riptide:v1:{t1.0}:1:c:deleted v"), -1);
	admin(f, "SET riptide:v1:{t1.0}:1:c:expired v PX 600");
	admin(f, "SET riptide:v1:{t1.0}:1:c:shortened v");
	admin(f, "SET riptide:v1:{t1.0}:1:c:renamed v");
	open_armed(f);
	admin(f, "SET riptide:v1:{t1.0}:1:c:set v");
	admin(f, "APPEND riptide:v1:{t1.0}:1:c:grown v");
	admin(f, "DEL riptide:v1:{t1.0}:1:c:deleted");
	admin(f, "PEXPIRE riptide:v1:{t1.0}:1:c:shortened 100000");
	admin(f, "RENAME riptide:v1:{t1.0}:1:c:renamed riptide:v1:{t1.0}:1:c:other");
	fixture_run_for(f, 800);
	settle(f);
	assert_foreign("set");
	assert_foreign("grown");
	assert_foreign("deleted");
	assert_foreign("shortened");
	assert_foreign("renamed");
	assert_foreign("other");
	assert_foreign("expired");
	assert_int_equal(watch.count, 7);
	assert_int_equal(watch.fences, 0);
	assert_int_equal(feed_of(f).changes, 7);
}

static void flushing_tells_that_everything_changed(void **state)
{
	struct fixture *f = *state;

	open_armed(f);
	admin(f, "FLUSHALL");
	assert_true(fixture_run(f, &watch.everything, 1, 5000));
	admin(f, "FLUSHDB");
	assert_true(fixture_run(f, &watch.everything, 2, 5000));
	settle(f);
	assert_int_equal(watch.count, 2);
}

static void names_of_nobody_are_not_told_and_others_say_what_they_are(void **state)
{
	struct fixture *f = *state;

	open_armed(f);
	admin(f, "SET riptide:v1:nobody v");
	admin(f, "SET riptide:v1:{t1.0}:0:c:k v");
	admin(f, "SET riptide:v1:canary:0123456789abcdef:0 v");
	admin(f, "SET riptide:v2:{t1.0}:1:c:k v");
	admin(f, "SET something v");
	assert_int_equal(admin(f, "PUBLISH __redis__:invalidate riptide:v1:{t1.0}:1:c:k"), 1);
	admin(f, "HSET riptide:v1:{t1.0}:n g 4");
	admin(f, "SET riptide:v1:{other-1.3}:77:t#%s v",
	      "4552af1f6cc684a9dc24b03d23fa63a43ff1249e1e7e4ea9d53bebc48875900a");
	settle(f);
	assert_int_equal(watch.count, 2);
	assert_int_equal(watch.seen[0].kind, STORE_CHANGED_NAMESPACE);
	assert_string_equal(watch.seen[0].tenant, "t1");
	assert_int_equal(watch.seen[1].kind, STORE_CHANGED_ENTRY);
	assert_string_equal(watch.seen[1].tenant, "other-1");
	assert_int_equal(watch.seen[1].generation, 77);
	assert_int_equal(watch.seen[1].space, 't');
	assert_false(watch.seen[1].has_key);
}

static void ten_thousand_changes_of_one_transaction_are_told(void **state)
{
	struct fixture *f = *state;
	redisContext *context = redisConnectUnix(f->server.unix_path);
	void *reply;

	open_armed(f);
	redisAppendCommand(context, "MULTI");
	for (int i = 0; i < 10000; i++)
		redisAppendCommand(context, "SET riptide:v1:{t1.0}:1:c:k%d v", i);
	redisAppendCommand(context, "EXEC");
	for (int i = 0; i < 10002; i++) {
		assert_int_equal(redisGetReply(context, &reply), REDIS_OK);
		freeReplyObject(reply);
	}
	redisFree(context);
	settle(f);
	assert_int_equal(watch.everything, 0);
	assert_int_equal(watch.count, 10000);
	assert_foreign("k0");
	assert_foreign("k9999");
	assert_int_equal(watch.fences, 0);
}

static void message_beyond_the_limit_means_everything(void **state)
{
	struct fixture *f = *state;
	redisContext *context = redisConnectUnix(f->server.unix_path);
	char *long_name = calloc(1, 65537);
	redisReply *reply;

	open_armed(f);
	memset(long_name, 'x', 65536);
	reply = redisCommand(context, "EVAL %s 0 %s",
			     "for i=1,100 do redis.call('SET','riptide:v1:{'..ARGV[1]..i,'v') end", long_name);
	assert_int_equal(reply->type, REDIS_REPLY_NIL);
	freeReplyObject(reply);
	redisFree(context);
	free(long_name);
	assert_true(fixture_run(f, &watch.everything, 1, 5000));
	settle(f);
	assert_int_equal(watch.count, 1);
	assert_int_equal(watch.fences, 0);
}

/* ---- our own -------------------------------------------------------------------------------------------------------- */

static void own_plain_writes_are_not_told(void **state)
{
	struct fixture *f = *state;
	char key[16], long_key[450];
	struct call calls[200];

	memset(calls, 0, sizeof(calls));
	memset(long_key, 'l', sizeof(long_key));
	open_armed(f);
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "k%d", i % 20);
		assert_int_equal(fixture_put(f, key, "value", 5, i % 2 ? clock_realtime_ms() + 60000 : 0), RSHM_OK);
	}
	for (int i = 0; i < 200; i++) {
		calls[i].request.envelope = "value";
		calls[i].request.envelope_len = 5;
		call_start(f, &calls[i], STORE_PUT, long_key, 100 + (size_t)i, 5000);
	}
	for (int i = 0; i < 200; i++)
		assert_int_equal(call_wait(f, &calls[i]), RSHM_OK);
	assert_int_equal(fixture_op(f, STORE_DELETE, "k1", 0), RSHM_OK);
	assert_int_equal(fixture_put(f, "k2", "value", 5, 1), RSHM_OK); /* expired already */
	settle(f);
	assert_int_equal(watch.count, 0);
	admin(f, "SET riptide:v1:{t1.0}:1:c:k0 v");
	settle(f);
	assert_int_equal(watch.count, 1);
	assert_foreign("k0");
}

static void scripted_and_large_writes_are_told_as_maybe_ours(void **state)
{
	struct fixture *f = *state;
	unsigned char small[SMALL + ENVELOPE_HEAD_BYTES], *large = malloc(LARGE);
	struct call put = {.request.envelope = small,
			   .request.envelope_len = sizeof(small),
			   .request.condition = STORE_IF_ABSENT};

	open_armed(f);
	make_envelope(small, sizeof(small), 5);
	make_envelope(large, LARGE, 6);
	call_start(f, &put, STORE_PUT, "scripted", 8, 5000);
	assert_int_equal(call_wait(f, &put), RSHM_OK);
	assert_int_equal(fixture_put(f, "large", large, LARGE, 0), RSHM_OK);
	assert_int_equal(fixture_put(f, "touched", small, sizeof(small), 0), RSHM_OK);
	assert_int_equal(fixture_op(f, STORE_TOUCH, "touched", clock_realtime_ms() + 60000), RSHM_OK);
	assert_int_equal(fixture_op(f, STORE_NEXT_GENERATION, "any", 0), RSHM_OK);
	settle(f);
	assert_int_equal(watch.count, 4);
	for (uint32_t i = 0; i < watch.count; i++)
		assert_true(watch.seen[i].maybe_ours);
	assert_non_null(find("scripted"));
	assert_non_null(find("large"));
	assert_non_null(find("touched"));
	assert_int_equal(feed_of(f).maybe_ours, 4);
	free(large);
}

static void foreign_write_behind_a_scripted_one_is_told_too(void **state)
{
	struct fixture *f = *state;
	unsigned char small[SMALL + ENVELOPE_HEAD_BYTES];
	struct call put = {.request.envelope = small,
			   .request.envelope_len = sizeof(small),
			   .request.condition = STORE_IF_ABSENT};

	open_armed(f);
	make_envelope(small, sizeof(small), 5);
	call_start(f, &put, STORE_PUT, "k", 1, 5000);
	assert_int_equal(call_wait(f, &put), RSHM_OK);
	admin(f, "SET riptide:v1:{t1.0}:1:c:k foreign");
	assert_true(fixture_run(f, &watch.count, 2, 5000));
	assert_true(watch.seen[0].maybe_ours && watch.seen[1].maybe_ours);
	/* A lease later it cannot be an echo any more. */
	fixture_run_for(f, LEASE_MS + 100);
	admin(f, "SET riptide:v1:{t1.0}:1:c:k again");
	settle(f);
	assert_int_equal(watch.count, 3);
	assert_foreign("k");
}

static void store_may_be_closed_from_a_callback(void **state)
{
	struct fixture *f = *state;

	open_armed(f);
	watch.close_at_change = true;
	admin(f, "MSET riptide:v1:{t1.0}:1:c:a v riptide:v1:{t1.0}:1:c:b v");
	uv_timer_start(&f->guard, fixture_on_guard, 5, 5);
	for (int i = 0; i < 400 && !f->closed; i++)
		uv_run(&f->loop, UV_RUN_ONCE);
	uv_timer_stop(&f->guard);
	assert_true(f->closed);
	assert_int_equal(watch.count, 1);
	f->store = NULL;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, with_server, without)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(foreign_changes_of_every_kind_are_told),
		TEST(flushing_tells_that_everything_changed),
		TEST(names_of_nobody_are_not_told_and_others_say_what_they_are),
		TEST(ten_thousand_changes_of_one_transaction_are_told),
		TEST(message_beyond_the_limit_means_everything),
		TEST(own_plain_writes_are_not_told),
		TEST(scripted_and_large_writes_are_told_as_maybe_ours),
		TEST(foreign_write_behind_a_scripted_one_is_told_too),
		TEST(store_may_be_closed_from_a_callback),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
