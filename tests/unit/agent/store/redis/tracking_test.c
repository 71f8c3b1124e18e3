/*
 * Proofs that stop when feed, writer or server do, and come again when these do.
 */
#include "tests/unit/agent/store/redis/watch.h"

#include "tests/support/proxy.h"

static struct proxy *proxy; /* NULL: there is none */

static int without_proxy(void **state)
{
	int result = without(state);

	proxy_stop(proxy);
	proxy = NULL;
	return result;
}

static void proofs_follow_each_other_within_the_lease(void **state)
{
	struct fixture *f = *state;
	uint64_t armed_ms;

	open_armed(f);
	armed_ms = clock_monotonic_ms();
	assert_true(fixture_run(f, &watch.proofs, 1, LEASE_MS / 2));
	assert_true(watch.proven_ms + 20 >= armed_ms);
	for (int i = 0; i < 15; i++) {
		fixture_run_for(f, 100);
		assert_true(clock_monotonic_ms() - watch.proven_ms < LEASE_MS);
	}
	assert_true(watch.proofs >= 3);
	assert_int_equal(watch.fences, 0);
	assert_true(feed_of(f).armed);
	assert_int_equal(feed_of(f).mode, STORE_TRACKING);
	assert_true(feed_of(f).proof_age_ms < LEASE_MS);
	assert_true(feed_of(f).canaries >= 4);
}

static void lost_link_is_begun_anew(struct fixture *f, const char *name)
{
	open_armed(f);
	settle(f);
	assert_int_equal(admin(f, "CLIENT KILL ID %lld", client_id(f, name)), 1);
	assert_true(fixture_run(f, &watch.fences, 1, 3000));
	admin(f, "SET riptide:v1:{t1.0}:1:c:unheard v");
	assert_true(fixture_run(f, &watch.armings, 2, 5000));
	settle(f);
	admin(f, "SET riptide:v1:{t1.0}:1:c:heard v");
	assert_int_equal(fixture_put(f, "own", "value", 5, 0), RSHM_OK);
	settle(f);
	assert_foreign("heard");
	assert_null(find("own"));
	assert_int_equal(feed_of(f).fences, 1);
}

static void lost_feed_fences_and_is_begun_anew(void **state)
{
	lost_link_is_begun_anew(*state, "riptided-feed");
}

static void lost_writer_fences_and_is_begun_anew(void **state)
{
	lost_link_is_begun_anew(*state, "riptided-writer");
}

static void paused_server_proves_nothing_and_fences(void **state)
{
	struct fixture *f = *state;
	uint64_t paused_ms;

	open_armed(f);
	settle(f);
	redis_server_pause(&f->server);
	paused_ms = clock_monotonic_ms();
	assert_true(fixture_run(f, &watch.fences, 1, 2 * LEASE_MS));
	assert_true(watch.proven_ms <= paused_ms);
	assert_int_equal(feed_of(f).proof_age_ms, UINT64_MAX);
	fixture_run_for(f, 300);
	assert_false(watch.armed);
	redis_server_resume(&f->server);
	assert_true(fixture_run(f, &watch.armings, 2, 5000));
	settle(f);
}

/* The server is sent a command whose answer nobody waits for here. */
static redisContext *begin_sleep(struct fixture *f, const char *seconds)
{
	redisContext *context = redisConnectUnix(f->server.unix_path);
	int done = 0;

	redisAppendCommand(context, "DEBUG SLEEP %s", seconds);
	while (!done)
		assert_int_equal(redisBufferWrite(context, &done), REDIS_OK);
	return context;
}

static void server_that_sleeps_longer_than_half_a_lease_fences(void **state)
{
	struct fixture *f = *state;
	redisContext *context;

	open_armed(f);
	settle(f);
	context = begin_sleep(f, "0.15");
	fixture_run_for(f, 600);
	settle(f);
	assert_int_equal(watch.fences, 0);
	redisFree(context);
	context = begin_sleep(f, "1.8");
	assert_true(fixture_run(f, &watch.fences, 1, 3000));
	assert_true(fixture_run(f, &watch.armings, 2, 5000));
	settle(f);
	redisFree(context);
}

static void restarted_server_is_watched_again(void **state)
{
	struct fixture *f = *state;

	open_armed(f);
	settle(f);
	redis_server_kill(&f->server);
	assert_true(fixture_run(f, &watch.fences, 1, 3000));
	fixture_run_for(f, 300);
	assert_int_equal(redis_server_restart(&f->server), 0);
	assert_true(fixture_run(f, &watch.armings, 2, 5000));
	admin(f, "SET riptide:v1:{t1.0}:1:c:k v");
	settle(f);
	assert_foreign("k");
	assert_int_equal(watch.modes, 1);
}

static void absent_server_is_tried_with_pauses(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	uint64_t failures;

	open_armed(f);
	redis_server_kill(&f->server);
	fixture_run_for(f, 1000);
	failures = fixture_metric(f, STORE_REDIS_CONNECT_FAILURES);
	assert_true(failures > 2 && failures < 80);
	assert_int_equal(watch.fences, 1);
}

static void lost_connection_with_a_script_in_flight_fences_until_it_is_killed(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	unsigned char small[SMALL + ENVELOPE_HEAD_BYTES];
	struct call put = {.request.envelope = small,
			   .request.envelope_len = sizeof(small),
			   .request.condition = STORE_IF_ABSENT};
	long long writer, feed;

	open_armed(f);
	settle(f);
	writer = client_id(f, "riptided-writer");
	feed = client_id(f, "riptided-feed");
	make_envelope(small, sizeof(small), 5);
	admin(f, "CLIENT PAUSE 300 WRITE");
	call_start(f, &put, STORE_PUT, "k", 1, 100);
	assert_int_equal(call_wait(f, &put), RSHM_E_UNKNOWN);
	assert_true(fixture_run(f, &watch.fences, 1, 3000));
	assert_true(fixture_run(f, &watch.armings, 2, 5000));
	assert_int_equal(fixture_metric(f, STORE_REDIS_KILLS), 1);
	/* Nothing was wrong with these two. */
	assert_int_equal(client_id(f, "riptided-writer"), writer);
	assert_int_equal(client_id(f, "riptided-feed"), feed);
	admin(f, "CLIENT UNPAUSE");
	settle(f);
}

static void lost_writers_write_never_overtakes_a_newer_one(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct call old = {.request.envelope = "old", .request.envelope_len = 3};
	struct call new = {.request.envelope = "new", .request.envelope_len = 3};

	open_armed(f);
	assert_int_equal(fixture_put(f, "k", "first", 5, 0), RSHM_OK);
	redis_server_pause(&f->server);
	call_start(f, &old, STORE_PUT, "k", 1, 100);
	assert_int_equal(call_wait(f, &old), RSHM_E_UNKNOWN);
	assert_false(watch.armed);
	call_start(f, &new, STORE_PUT, "k", 1, 5000);
	fixture_run_for(f, 50);
	assert_int_equal(new.answers, 0);
	redis_server_resume(&f->server);
	assert_int_equal(call_wait(f, &new), RSHM_OK);
	fixture_run_for(f, 100);
	assert_stored(f, "k", "new", 3);
	assert_int_equal(fixture_metric(f, STORE_REDIS_KILLS), 1);
	assert_true(fixture_run(f, &watch.armings, 2, 5000));
	settle(f);
}

static void writes_under_way_survive_a_lost_feed(void **state)
{
	struct fixture *f = *state;
	struct call put = {.request.envelope = "value", .request.envelope_len = 5};

	open_armed(f);
	admin(f, "CLIENT PAUSE 200 WRITE");
	call_start(f, &put, STORE_PUT, "k", 1, 5000);
	fixture_run_for(f, 20);
	assert_int_equal(admin(f, "CLIENT KILL ID %lld", client_id(f, "riptided-feed")), 1);
	assert_true(fixture_run(f, &watch.fences, 1, 3000));
	assert_int_equal(put.answers, 0);
	assert_int_equal(call_wait(f, &put), RSHM_OK);
	assert_true(fixture_run(f, &watch.armings, 2, 5000));
	settle(f);
}

/* ---- a proxy in between ---------------------------------------------------------------------------------------- */

/* The agent's connections go through it, ours do not. */
static void through_proxy(struct fixture *f)
{
	uint16_t port;

	proxy = proxy_start(f->server.unix_path, &port);
	assert_non_null(proxy);
	snprintf(f->url, sizeof(f->url), "redis://127.0.0.1:%u", (unsigned)port);
	f->config.command_timeout_ms = 1000;
	open_armed(f);
	settle(f);
}

/* What comes while the proxy behaves so is no proof, and afterwards all is well again. */
static void assert_unproven_while(struct fixture *f, const struct proxy_behaviour *behaviour)
{
	uint64_t from_ms;

	through_proxy(f);
	proxy_behave(proxy, behaviour);
	from_ms = clock_monotonic_ms();
	assert_true(fixture_run(f, &watch.fences, 1, 2 * LEASE_MS));
	admin(f, "SET riptide:v1:{t1.0}:1:c:unheard v");
	fixture_run_for(f, 500);
	assert_true(watch.proven_ms <= from_ms + 50);
	proxy_behave(proxy, NULL);
	assert_true(fixture_run(f, &watch.armings, 2, 10000));
	settle(f);
	admin(f, "SET riptide:v1:{t1.0}:1:c:heard v");
	settle(f);
	assert_foreign("heard");
}

static void replies_that_are_swallowed_prove_nothing(void **state)
{
	assert_unproven_while(*state, &(struct proxy_behaviour){.manner = PROXY_SWALLOW, .greeting_too = true});
}

static void requests_that_are_dropped_prove_nothing(void **state)
{
	assert_unproven_while(*state, &(struct proxy_behaviour){.manner = PROXY_DROP, .greeting_too = true});
}

static void direction_that_is_cut_proves_nothing(void **state)
{
	assert_unproven_while(*state, &(struct proxy_behaviour){.manner = PROXY_CUT_HALF, .greeting_too = true});
}

static void nonsense_on_the_feed_fences(void **state)
{
	struct fixture *f = *state;
	const struct proxy_behaviour push = {.manner = PROXY_PUSH,
					     .text = "*3\r\n$7\r\nmessage\r\n$5\r\nother\r\n$1\r\nx\r\n"};

	through_proxy(f);
	proxy_behave(proxy, &push);
	assert_true(fixture_run(f, &watch.fences, 1, 2000));
	assert_true(fixture_run(f, &watch.armings, 2, 5000));
	settle(f);
	assert_int_equal(watch.count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, with_server, without_proxy)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(proofs_follow_each_other_within_the_lease),
		TEST(lost_feed_fences_and_is_begun_anew),
		TEST(lost_writer_fences_and_is_begun_anew),
		TEST(paused_server_proves_nothing_and_fences),
		TEST(server_that_sleeps_longer_than_half_a_lease_fences),
		TEST(restarted_server_is_watched_again),
		TEST(absent_server_is_tried_with_pauses),
		TEST(lost_connection_with_a_script_in_flight_fences_until_it_is_killed),
		TEST(lost_writers_write_never_overtakes_a_newer_one),
		TEST(writes_under_way_survive_a_lost_feed),
		TEST(replies_that_are_swallowed_prove_nothing),
		TEST(requests_that_are_dropped_prove_nothing),
		TEST(direction_that_is_cut_proves_nothing),
		TEST(nonsense_on_the_feed_fences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
