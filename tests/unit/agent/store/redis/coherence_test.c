/*
 * Servers that allow less than tracking, and agents that tell each other.
 */
#include "tests/unit/agent/store/redis/watch.h"

static struct store *other; /* of a second agent; NULL: there is none */

static void other_close(struct fixture *f)
{
	struct store *own = f->store;

	f->store = other;
	other = NULL;
	fixture_close(f);
	f->store = own;
}

static int without_both(void **state)
{
	if (other != NULL)
		other_close(*state);
	return without(state);
}

static void refused_client_kill_means_ttl(void **state)
{
	struct fixture *f = *state;

	admin(f, "ACL SETUSER default -client|kill");
	open_watched(f);
	assert_true(fixture_run(f, &watch.modes, 1, 5000));
	assert_int_equal(watch.mode, STORE_TTL);
	fixture_run_for(f, 500);
	assert_int_equal(watch.modes, 1);
	assert_int_equal(client_id(f, "riptided-feed"), 0);
	assert_int_equal(client_id(f, "riptided-writer"), 0);
	assert_int_equal(fixture_put(f, "k", "value", 5, 0), RSHM_OK);
}

static void refused_canary_means_ttl(void **state)
{
	struct fixture *f = *state;

	admin(f, "ACL SETUSER default resetkeys ~riptide:v1:{*");
	open_armed(f);
	assert_true(fixture_run(f, &watch.modes, 2, 5000));
	assert_int_equal(watch.mode, STORE_TTL);
	assert_int_equal(watch.fences, 4);
	assert_int_equal(client_id(f, "riptided-feed"), 0);
}

static void other_open(struct fixture *f)
{
	char error[256] = "";

	f->config.url = f->url;
	if (store_redis_create(&f->loop, &f->config, &other, error, sizeof(error)) != RSHM_OK)
		fail_msg("%s", error);
}

static uint32_t other_fences;

static void other_on_mode(void *context, enum store_coherence mode)
{
	*(enum store_coherence *)context = mode;
}

static void other_on_fenced(void *context, bool armed, const char *why)
{
	(void)context;
	(void)why;
	other_fences += !armed;
}

static void other_on_proven(void *context, uint64_t complete_ms)
{
	(void)context;
	(void)complete_ms;
}

static void other_on_changed(void *context, const struct store_change *change)
{
	(void)context;
	(void)change;
}

static void put_through(struct fixture *f, struct store *store, const char *key, struct store_request request)
{
	struct call call = {.request = request};
	struct store *own = f->store;

	f->store = store;
	call_start(f, &call, request.op, key, strlen(key), 5000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	call_fini(&call);
	f->store = own;
}

static void agents_tell_each_other(struct fixture *f)
{
	enum store_coherence other_mode = STORE_SOLE;
	const struct store_watcher other_watcher = {.mode = other_on_mode,
						    .fenced = other_on_fenced,
						    .proven = other_on_proven,
						    .changed = other_on_changed,
						    .context = &other_mode};
	unsigned char small[SMALL + ENVELOPE_HEAD_BYTES], *large = malloc(LARGE);

	make_envelope(small, sizeof(small), 5);
	make_envelope(large, LARGE, 6);
	open_watched(f);
	assert_true(fixture_run(f, &watch.modes, 1, 5000));
	assert_int_equal(watch.mode, STORE_CHANNEL);
	other_open(f);
	assert_true(store_watch(other, &other_watcher));
	fixture_run_for(f, 300);
	assert_int_equal(other_mode, STORE_CHANNEL);

	assert_int_equal(fixture_put(f, "own", "value", 5, 0), RSHM_OK);
	assert_stored(f, "own", "value", 5);
	put_through(f, other, "put",
		    (struct store_request){.op = STORE_PUT, .envelope = small, .envelope_len = sizeof(small)});
	put_through(f, other, "large",
		    (struct store_request){.op = STORE_PUT, .envelope = large, .envelope_len = LARGE});
	put_through(f, other, "absent",
		    (struct store_request){.op = STORE_PUT,
					   .condition = STORE_IF_ABSENT,
					   .envelope = small,
					   .envelope_len = sizeof(small)});
	put_through(f, other, "put", (struct store_request){.op = STORE_TOUCH, .expiry_ms = 0});
	put_through(f, other, "put", (struct store_request){.op = STORE_DELETE});
	put_through(f, other, "any", (struct store_request){.op = STORE_NEXT_GENERATION});
	/* Scripts that the server does not know yet are sent, and published, twice. */
	assert_true(fixture_run(f, &watch.count, 9, 5000));
	fixture_run_for(f, 50);
	assert_int_equal(watch.count, 9);
	assert_null(find("own"));
	assert_foreign("put");
	assert_foreign("absent");
	assert_int_equal(watch.seen[8].kind, STORE_CHANGED_NAMESPACE);
	assert_stored(f, "large", large, LARGE);
	assert_int_equal(fixture_op(f, STORE_GET, "put", 0), RSHM_MISS);
	assert_int_equal(watch.fences + watch.armings + watch.proofs + other_fences, 0);
	other_close(f);
	free(large);
}

static void refused_tracking_means_channel(void **state)
{
	struct fixture *f = *state;

	admin(f, "ACL SETUSER default -client|tracking");
	agents_tell_each_other(f);
	assert_int_equal(client_id(f, "riptided-writer"), 0);
}

static void configured_channel_asks_for_no_tracking(void **state)
{
	struct fixture *f = *state;

	f->config.coherence = STORE_REDIS_CHANNEL;
	agents_tell_each_other(f);
	assert_int_equal(command_calls(f, "client|tracking"), 0);
}

static void refused_publish_means_ttl(void **state)
{
	struct fixture *f = *state;

	admin(f, "ACL SETUSER default -client|tracking -publish");
	open_watched(f);
	assert_true(fixture_run(f, &watch.modes, 1, 5000));
	assert_int_equal(watch.mode, STORE_TTL);
	assert_int_equal(fixture_put(f, "k", "value", 5, 0), RSHM_OK);
	assert_int_equal(client_id(f, "riptided-feed"), 0);
}

static void refused_channels_mean_ttl(void **state)
{
	struct fixture *f = *state;

	admin(f, "ACL SETUSER default resetchannels");
	open_watched(f);
	assert_true(fixture_run(f, &watch.modes, 1, 5000));
	assert_int_equal(watch.mode, STORE_TTL);
	assert_int_equal(fixture_put(f, "k", "value", 5, 0), RSHM_OK);
}

static void demanded_tracking_that_is_refused_means_ttl(void **state)
{
	struct fixture *f = *state;

	f->config.coherence = STORE_REDIS_TRACKING;
	admin(f, "ACL SETUSER default -client|tracking");
	open_watched(f);
	assert_true(fixture_run(f, &watch.modes, 1, 5000));
	assert_int_equal(watch.mode, STORE_TTL);
}

static void publish_refused_later_loses_no_write(void **state)
{
	struct fixture *f = *state;

	f->config.coherence = STORE_REDIS_CHANNEL;
	open_watched(f);
	assert_true(fixture_run(f, &watch.modes, 1, 5000));
	admin(f, "ACL SETUSER default -publish");
	assert_int_equal(fixture_put(f, "k", "value", 5, 0), RSHM_OK);
	assert_stored(f, "k", "value", 5);
	assert_int_equal(watch.mode, STORE_TTL);
}

static void write_that_is_executed_without_its_transaction_is_unknown(void **state)
{
	struct fixture *f = *state;

	f->config.coherence = STORE_REDIS_CHANNEL;
	open_watched(f);
	assert_true(fixture_run(f, &watch.modes, 1, 5000));
	admin(f, "ACL SETUSER default -multi");
	assert_int_equal(fixture_put(f, "k", "value", 5, 0), RSHM_E_UNKNOWN);
	admin(f, "ACL SETUSER default +multi -set");
	assert_int_equal(fixture_put(f, "k", "other", 5, 0), RSHM_E_BACKEND);
	admin(f, "ACL SETUSER default +set");
	assert_stored(f, "k", "value", 5);
	admin(f, "CONFIG SET maxmemory 1");
	assert_int_equal(fixture_put(f, "k", "other", 5, 0), RSHM_E_FULL);
	admin(f, "CONFIG SET maxmemory 0");
	assert_int_equal(fixture_put(f, "k", "other", 5, 0), RSHM_OK);
	assert_stored(f, "k", "other", 5);
}

static void lost_channel_is_subscribed_again(void **state)
{
	struct fixture *f = *state;

	f->config.coherence = STORE_REDIS_CHANNEL;
	open_watched(f);
	assert_true(fixture_run(f, &watch.modes, 1, 5000));
	assert_int_equal(admin(f, "CLIENT KILL ID %lld", client_id(f, "riptided-feed")), 1);
	fixture_run_for(f, 500);
	assert_int_equal(admin(f, "PUBLISH riptide:v1:changes 0123456789abcdef:riptide:v1:{t1.0}:1:c:k"), 1);
	assert_true(fixture_run(f, &watch.count, 1, 1000));
	assert_foreign("k");
	assert_int_equal(watch.modes, 1);
	/* What nobody of ours has sent. */
	admin(f, "PUBLISH riptide:v1:changes x");
	admin(f, "PUBLISH riptide:v1:changes 0123456789abcdef:");
	admin(f, "PUBLISH riptide:v1:changes 0123456789abcdef:something");
	admin(f, "PUBLISH riptide:v1:changes 0123456789abcdef-riptide:v1:{t1.0}:1:c:k");
	fixture_run_for(f, 100);
	assert_int_equal(watch.count, 1);
	assert_true(client_id(f, "riptided-feed") != 0);
}

static void configured_ttl_opens_nothing(void **state)
{
	struct fixture *f = *state;

	f->config.coherence = STORE_REDIS_TTL;
	open_watched(f);
	assert_int_equal(fixture_put(f, "k", "value", 5, 0), RSHM_OK);
	fixture_run_for(f, 300);
	assert_int_equal(watch.modes, 1);
	assert_int_equal(watch.mode, STORE_TTL);
	assert_int_equal(feed_of(f).mode, STORE_TTL);
	assert_int_equal(admin_clients(f, NULL), 2);
}

static void unwatched_store_opens_nothing(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	assert_int_equal(fixture_put(f, "k", "value", 5, 0), RSHM_OK);
	fixture_run_for(f, 300);
	assert_int_equal(admin_clients(f, NULL), 2);
	assert_int_equal(command_calls(f, "set"), 1);
}

static void replica_never_proves(void **state)
{
	struct fixture *f = *state;

	admin(f, "REPLICAOF 127.0.0.1 1");
	open_watched(f);
	fixture_run_for(f, 2000);
	assert_int_equal(watch.proofs, 0);
	assert_int_equal(watch.proven_ms, 0);
	assert_true(command_calls(f, "client|tracking") < 20);
	admin(f, "REPLICAOF NO ONE");
	assert_true(fixture_run(f, &watch.proofs, 1, 10000));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, with_server, without_both)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(refused_client_kill_means_ttl),
		TEST(refused_canary_means_ttl),
		TEST(refused_tracking_means_channel),
		TEST(configured_channel_asks_for_no_tracking),
		TEST(refused_publish_means_ttl),
		TEST(refused_channels_mean_ttl),
		TEST(demanded_tracking_that_is_refused_means_ttl),
		TEST(publish_refused_later_loses_no_write),
		TEST(write_that_is_executed_without_its_transaction_is_unknown),
		TEST(lost_channel_is_subscribed_again),
		TEST(configured_ttl_opens_nothing),
		TEST(unwatched_store_opens_nothing),
		TEST(replica_never_proves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
