/*
 * coherence_test.c - two agents, as of two hosts, on one Redis server, and programs that know nothing of agents: what one
 * changes, the other's shared memory does not serve any more.
 *
 * Each case reads through host B until the change has come; how long that may take at most is the lease, typically it is
 * one way of the network. checker_test.c does the same under faults.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "riptide/riptide.h"
#include "tests/support/e2e.h"
#include "tests/support/redis_server.h"

#define KEY_OF(key) "riptide:v1:{default.0}:1:c:" key
#define LEASE_MS 2000

struct fixture {
	struct redis_server server;
	struct agent_process a, b;
	riptide *on_a, *on_b;
	redisContext *foreign;
	char url[160];
};

static int start_agents(struct fixture *f, const char *mode)
{
	const char *settings[] = {"agent.backend=redis",
				  f->url,
				  mode,
				  "coherence.stale_policy=miss",
				  "coherence.max_age_ms=1000",
				  "behind.flush_interval_ms=50",
				  NULL};

	snprintf(f->url, sizeof(f->url), "redis.url=unix://%s", f->server.unix_path);
	if (agent_process_start(&f->a, settings) < 0 || agent_process_start(&f->b, settings) < 0)
		return -1;
	if (!e2e_await_trust(&f->a) || !e2e_await_trust(&f->b))
		return -1;
	f->foreign = redisConnectUnix(f->server.unix_path);
	if (!f->foreign || f->foreign->err)
		return -1;
	return e2e_open(&f->a, NULL, 5000, &f->on_a) == RIPTIDE_OK &&
			       e2e_open(&f->b, NULL, 5000, &f->on_b) == RIPTIDE_OK
		       ? 0
		       : -1;
}

static int setup_mode(void **state, const char *mode)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	if (!redis_server_is_installed())
		return 0;
	return redis_server_start(&f->server, NULL) < 0 ? -1 : start_agents(f, mode);
}

static int setup(void **state)
{
	return setup_mode(state, "coherence.mode=tracking");
}

static int setup_channel(void **state)
{
	return setup_mode(state, "coherence.mode=channel");
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status = 0;

	riptide_close(&f->on_a);
	riptide_close(&f->on_b);
	if (f->foreign)
		redisFree(f->foreign);
	if (f->a.folder[0])
		status |= agent_process_stop_and_clean(&f->a);
	if (f->b.folder[0])
		status |= agent_process_stop_and_clean(&f->b);
	redis_server_stop(&f->server);
	free(f);
	return status;
}

static struct fixture *fixture_of(void **state)
{
	if (!redis_server_is_installed())
		skip();
	return *state;
}

__attribute__((format(printf, 2, 3))) static long long foreign(struct fixture *f, const char *command, ...)
{
	redisReply *reply;
	long long number;
	va_list arguments;

	va_start(arguments, command);
	reply = redisvCommand(f->foreign, command, arguments);
	va_end(arguments);
	assert_non_null(reply);
	assert_int_not_equal(reply->type, REDIS_REPLY_ERROR);
	number = reply->integer;
	freeReplyObject(reply);
	return number;
}

/* The key is hot and verified there. */
static void expect_hot(riptide *handle, const char *key, const char *value)
{
	struct riptide_info info = {.flags = 0};
	uint64_t until_ms = e2e_now_ms() + 5000;

	do
		assert_int_equal(e2e_check(handle, key, value, &info), RIPTIDE_OK);
	while ((info.flags & (RIPTIDE_HOT | RIPTIDE_STALE)) != RIPTIDE_HOT && e2e_now_ms() < until_ms);
	assert_int_equal(info.flags & (RIPTIDE_HOT | RIPTIDE_STALE), RIPTIDE_HOT);
}

static void expect_within_lease(riptide *handle, const char *key, const char *value, int status)
{
	uint64_t began_ms = e2e_now_ms();

	assert_int_equal(e2e_await_check(handle, key, value, status, 2 * LEASE_MS), status);
	assert_true(e2e_now_ms() - began_ms <= LEASE_MS);
}

static void put_on_both(struct fixture *f, const char *key, const char *value)
{
	assert_int_equal(e2e_put(f->on_a, key, value), RIPTIDE_OK);
	expect_within_lease(f->on_b, key, value, RIPTIDE_OK);
	expect_hot(f->on_a, key, value);
	expect_hot(f->on_b, key, value);
}

/* ---- agents ------------------------------------------------------------------------------------------------- */

static void what_one_host_writes_the_other_reads(void **state)
{
	struct fixture *f = fixture_of(state);
	char value[16];

	for (int i = 0; i < 50; i++) {
		snprintf(value, sizeof(value), "%d", i);
		put_on_both(f, "k", value);
		snprintf(value, sizeof(value), "back %d", i);
		assert_int_equal(e2e_put(f->on_b, "k", value), RIPTIDE_OK);
		expect_within_lease(f->on_a, "k", value, RIPTIDE_OK);
	}
	/* At once on the host that wrote, hot. */
	assert_int_equal(e2e_put(f->on_a, "k", "own"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->on_a, "k", "own", NULL), RIPTIDE_OK);
}

static void what_one_host_removes_the_other_misses(void **state)
{
	struct fixture *f = fixture_of(state);

	put_on_both(f, "gone", "v");
	assert_int_equal(riptide_delete(f->on_a, "gone", 4), RIPTIDE_OK);
	expect_within_lease(f->on_b, "gone", "v", RIPTIDE_MISS);
	/* And what is new where nothing was. */
	assert_int_equal(e2e_put(f->on_a, "gone", "again"), RIPTIDE_OK);
	expect_within_lease(f->on_b, "gone", "again", RIPTIDE_OK);
}

static void own_copies_stay_hot_while_only_we_write(void **state)
{
	struct fixture *f = fixture_of(state);
	struct riptide_info info;
	char value[16];

	/* Plain writes are not told back to us; scripted and large ones are, and their copies stay all the same. */
	for (int i = 0; i < 20; i++) {
		snprintf(value, sizeof(value), "%d", i);
		assert_int_equal(e2e_put(f->on_a, "own", value), RIPTIDE_OK);
		e2e_pause_ms(20);
		assert_int_equal(e2e_check(f->on_a, "own", value, &info), RIPTIDE_OK);
		assert_true(info.flags & RIPTIDE_HOT);
	}
	for (int i = 0; i < 20; i++) {
		int64_t count;

		assert_int_equal(riptide_incr(f->on_a, "count", sizeof("count") - 1, 1, NULL, &count), RIPTIDE_OK);
		e2e_pause_ms(20);
		snprintf(value, sizeof(value), "%d", i + 1);
		assert_int_equal(e2e_check(f->on_a, "count", value, NULL), RIPTIDE_OK);
	}
	expect_hot(f->on_a, "count", "20");
	e2e_pause_ms(100);
	assert_int_equal(e2e_check(f->on_a, "count", "20", &info), RIPTIDE_OK);
	assert_true(info.flags & RIPTIDE_HOT);
}

static void a_life_that_one_host_shortens_ends_on_the_other(void **state)
{
	struct fixture *f = fixture_of(state);

	for (int i = 0; i < 5; i++) {
		int64_t count;

		/* By a script of A's, so that what B does to it may be an echo. */
		assert_int_equal(riptide_delete(f->on_a, "brief", 5) < 0, 0);
		assert_int_equal(riptide_incr(f->on_a, "brief", 5, 7, NULL, &count), RIPTIDE_OK);
		expect_within_lease(f->on_b, "brief", "7", RIPTIDE_OK);
		expect_hot(f->on_a, "brief", "7");
		assert_int_equal(riptide_touch(f->on_b, "brief", 5, 300), RIPTIDE_OK);
		expect_within_lease(f->on_a, "brief", "7", RIPTIDE_MISS);
		assert_int_equal(e2e_check(f->on_b, "brief", "7", NULL), RIPTIDE_MISS);
	}
}

static void counts_of_two_hosts_add_up(void **state)
{
	struct fixture *f = fixture_of(state);
	int64_t count = 0;

	for (int i = 0; i < 100; i++) {
		assert_int_equal(riptide_incr(f->on_a, "sum", sizeof("sum") - 1, 1, NULL, &count), RIPTIDE_OK);
		assert_int_equal(riptide_incr(f->on_b, "sum", sizeof("sum") - 1, 1, NULL, &count), RIPTIDE_OK);
		assert_int_equal(count, 2 * i + 2);
	}
	expect_within_lease(f->on_a, "sum", "200", RIPTIDE_OK);
}

static int put_tagged(riptide *handle, const char *key, const char *value)
{
	const char *const tags[] = {"red"};
	struct riptide_metadata metadata = {.tags = tags, .tag_count = 1};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};

	return riptide_set(handle, key, strlen(key), value, strlen(value), &options, NULL);
}

static void a_tag_that_one_host_invalidates_is_gone_on_the_other(void **state)
{
	struct fixture *f = fixture_of(state);
	char key[16];

	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "red-%d", i);
		assert_int_equal(put_tagged(f->on_a, key, "v"), RIPTIDE_OK);
		expect_within_lease(f->on_b, key, "v", RIPTIDE_OK);
		expect_hot(f->on_b, key, "v");
	}
	put_on_both(f, "plain", "v");
	assert_int_equal(riptide_invalidate_tag(f->on_a, "red"), RIPTIDE_OK);
	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "red-%d", i);
		expect_within_lease(f->on_b, key, "v", RIPTIDE_MISS);
		assert_int_equal(e2e_check(f->on_a, key, "v", NULL), RIPTIDE_MISS);
	}
	assert_int_equal(e2e_check(f->on_b, "plain", "v", NULL), RIPTIDE_OK);
	assert_int_equal(put_tagged(f->on_b, "red-0", "new"), RIPTIDE_OK);
	expect_within_lease(f->on_a, "red-0", "new", RIPTIDE_OK);
	expect_hot(f->on_b, "red-0", "new");
}

static void what_one_host_clears_is_gone_on_the_other(void **state)
{
	struct fixture *f = fixture_of(state);

	for (int i = 0; i < 5; i++) {
		put_on_both(f, "one", "v");
		put_on_both(f, "two", "v");
		assert_int_equal(riptide_clear(f->on_a), RIPTIDE_OK);
		expect_within_lease(f->on_b, "one", "v", RIPTIDE_MISS);
		expect_within_lease(f->on_b, "two", "v", RIPTIDE_MISS);
	}
	put_on_both(f, "one", "new");
}

static void what_one_host_removes_by_prefix_is_gone_on_the_other(void **state)
{
	struct fixture *f = fixture_of(state);

	put_on_both(f, "user:1", "v");
	put_on_both(f, "user:2", "v");
	put_on_both(f, "item:1", "v");
	assert_int_equal(riptide_invalidate_prefix(f->on_a, "user:", 5, NULL), RIPTIDE_OK);
	expect_within_lease(f->on_b, "user:1", "v", RIPTIDE_MISS);
	expect_within_lease(f->on_b, "user:2", "v", RIPTIDE_MISS);
	assert_int_equal(e2e_check(f->on_b, "item:1", "v", NULL), RIPTIDE_OK);
}

static void a_newer_write_of_another_host_wins_over_one_in_the_journal(void **state)
{
	struct fixture *f = fixture_of(state);
	struct riptide_set_options behind = {.size = sizeof(behind), .write_mode = RIPTIDE_WRITE_BEHIND};

	for (int i = 0; i < 10; i++) {
		char value[16];

		snprintf(value, sizeof(value), "new %d", i);
		put_on_both(f, "late", "old");
		redis_server_pause(&f->server);
		assert_int_equal(riptide_set(f->on_a, "late", 4, "accepted", 8, &behind, NULL), RIPTIDE_OK);
		redis_server_resume(&f->server);
		/* Later by the clock, too. */
		e2e_pause_ms(5);
		assert_int_equal(e2e_put(f->on_b, "late", value), RIPTIDE_OK);
		(void)riptide_flush(f->on_a);
		expect_within_lease(f->on_a, "late", value, RIPTIDE_OK);
		expect_within_lease(f->on_b, "late", value, RIPTIDE_OK);
	}
}

#define LARGE 600000u /* above what goes through the tracked connection */

static int large_byte(riptide *handle)
{
	struct riptide_value value;
	int byte;

	assert_int_equal(riptide_get(handle, "large", 5, &value), RIPTIDE_OK);
	assert_int_equal(value.length, LARGE);
	byte = ((const char *)value.data)[0];
	assert_int_equal(((const char *)value.data)[LARGE - 1], byte);
	riptide_value_free(&value);
	return byte;
}

static void long_keys_and_large_values_are_not_read_old_for_longer_than_a_lease(void **state)
{
	struct fixture *f = fixture_of(state);
	char *large = malloc(LARGE), key[600];

	memset(key, 'k', sizeof(key) - 1);
	key[sizeof(key) - 1] = '\0';
	for (int i = 0; i < 6; i++) {
		riptide *writer = i % 2 ? f->on_b : f->on_a, *reader = i % 2 ? f->on_a : f->on_b;

		assert_int_equal(e2e_put(f->on_a, key, i % 2 ? "one" : "two"), RIPTIDE_OK);
		expect_within_lease(f->on_b, key, i % 2 ? "one" : "two", RIPTIDE_OK);
		memset(large, 'a' + i, LARGE);
		assert_int_equal(riptide_set(writer, "large", 5, large, LARGE, NULL, NULL), RIPTIDE_OK);
		assert_int_equal(large_byte(writer), 'a' + i);
		for (uint64_t until_ms = e2e_now_ms() + LEASE_MS; large_byte(reader) != 'a' + i;)
			assert_true(e2e_now_ms() < until_ms);
	}
	free(large);
}

/* ---- programs that know nothing of us ------------------------------------------------------------------------- */

static void what_a_foreign_program_does_to_a_key_is_noticed(void **state)
{
	struct fixture *f = fixture_of(state);

	put_on_both(f, "k", "v");
	foreign(f, "DEL " KEY_OF("k"));
	expect_within_lease(f->on_a, "k", "v", RIPTIDE_MISS);
	expect_within_lease(f->on_b, "k", "v", RIPTIDE_MISS);
	put_on_both(f, "k", "v");
	foreign(f, "PEXPIRE " KEY_OF("k") " 300");
	expect_within_lease(f->on_a, "k", "v", RIPTIDE_MISS);
	expect_within_lease(f->on_b, "k", "v", RIPTIDE_MISS);
	put_on_both(f, "k", "v");
	foreign(f, "SET " KEY_OF("k") " no-envelope");
	expect_within_lease(f->on_a, "k", "v", RIPTIDE_ECORRUPT);
	expect_within_lease(f->on_b, "k", "v", RIPTIDE_ECORRUPT);
	put_on_both(f, "k", "v");
	put_on_both(f, "other", "w");
	foreign(f, "RENAME " KEY_OF("other") " elsewhere");
	expect_within_lease(f->on_b, "other", "w", RIPTIDE_MISS);
	put_on_both(f, "k", "v");
	foreign(f, "FLUSHALL");
	expect_within_lease(f->on_a, "k", "v", RIPTIDE_MISS);
	expect_within_lease(f->on_b, "k", "v", RIPTIDE_MISS);
}

static void a_remembered_absence_ends_when_somebody_writes(void **state)
{
	struct fixture *f = fixture_of(state);

	for (int i = 0; i < 10; i++) {
		assert_int_equal(e2e_check(f->on_b, "new", "v", NULL), RIPTIDE_MISS);
		assert_int_equal(e2e_put(f->on_a, "new", "v"), RIPTIDE_OK);
		expect_within_lease(f->on_b, "new", "v", RIPTIDE_OK);
		assert_int_equal(riptide_delete(f->on_a, "new", 3), RIPTIDE_OK);
		expect_within_lease(f->on_b, "new", "v", RIPTIDE_MISS);
	}
}

/* ---- losses --------------------------------------------------------------------------------------------------- */

/* What an operator sees of B. */
static void show_status(struct fixture *f, char *out, size_t size)
{
	const char *build = getenv("RIPTIDE_BUILD_DIR");
	char command[512];
	size_t length;
	FILE *pipe;

	snprintf(command, sizeof(command), "RIPTIDE_SOCKET=%s %s/riptidectl status", f->b.socket,
		 build ? build : "build");
	pipe = popen(command, "re");
	assert_non_null(pipe);
	length = fread(out, 1, size - 1, pipe);
	out[length] = '\0';
	assert_int_equal(pclose(pipe), 0);
}

/* Sooner or later: figures are some time old. */
static void expect_status_to_say(struct fixture *f, const char *text)
{
	char out[8192];

	for (int i = 0; i < 100; i++) {
		show_status(f, out, sizeof(out));
		if (strstr(out, text))
			return;
		e2e_pause_ms(50);
	}
	fail_msg("\"%s\" is not in %s", text, out);
}

static void verified_again_after_a_loss_of_connections(void **state)
{
	struct fixture *f = fixture_of(state);
	static const char *const losses[] = {"pubsub", "normal"};

	for (size_t i = 0; i < 6; i++) {
		char value[16];

		snprintf(value, sizeof(value), "v%zu", i);
		put_on_both(f, "k", value);
		put_on_both(f, "same", "as ever");
		foreign(f, "CLIENT KILL TYPE %s SKIPME yes", losses[i % 2]);
		/* While nothing is told. */
		snprintf(value, sizeof(value), "w%zu", i);
		while (e2e_put(f->on_a, "k", value) != RIPTIDE_OK)
			e2e_pause_ms(10);
		expect_within_lease(f->on_b, "k", value, RIPTIDE_OK);
		expect_hot(f->on_b, "same", "as ever");
		expect_hot(f->on_a, "same", "as ever");
	}
	assert_true(e2e_number(&f->b, "coherence.fences") >= 6);
	expect_status_to_say(f, "tracking, lease ");
	expect_status_to_say(f, "feeds 1 of 1 armed, oldest proof ");
	expect_status_to_say(f, "verified again ");
}

static void a_paused_server_ends_trust_and_a_resumed_one_renews_it(void **state)
{
	struct fixture *f = fixture_of(state);
	struct riptide_info info;
	uint64_t began_ms;
	int status;

	put_on_both(f, "k", "v");
	redis_server_pause(&f->server);
	began_ms = e2e_now_ms();
	/* Policy miss: as soon as trust ends the agent is asked, which cannot answer. */
	do
		status = e2e_check(f->on_b, "k", "v", &info);
	while (status == RIPTIDE_OK && e2e_now_ms() - began_ms < 2 * LEASE_MS);
	assert_true(status < 0);
	redis_server_resume(&f->server);
	assert_int_equal(e2e_await_check(f->on_b, "k", "v", RIPTIDE_OK, 10000), RIPTIDE_OK);
	expect_hot(f->on_b, "k", "v");
}

static void status_tells_of_changes_and_mode(void **state)
{
	struct fixture *f = fixture_of(state);
	char mode[16];

	put_on_both(f, "k", "v");
	assert_true(e2e_await(&f->b, "coherence.changes", 1, 2000) >= 1);
	e2e_text(&f->b, "coherence.mode", mode, sizeof(mode));
	assert_string_equal(mode, "tracking");
	assert_in_range(e2e_number(&f->b, "coherence.lease_remaining_ms"), 1, LEASE_MS);
	assert_int_equal(e2e_number(&f->b, "workers.0.coherence.armed"), 1);
	assert_in_range(e2e_number(&f->b, "workers.0.coherence.proof_age_ms"), 0, LEASE_MS);
	assert_true(e2e_number(&f->b, "workers.0.coherence.canaries") >= 2);
	assert_int_equal(e2e_number(&f->b, "workers.0.coherence.checks_pending"), 0);
}

static void agents_tell_each_other_in_channel_mode(void **state)
{
	struct fixture *f = fixture_of(state);
	char mode[16], value[16];

	e2e_text(&f->b, "coherence.mode", mode, sizeof(mode));
	assert_string_equal(mode, "channel");
	for (int i = 0; i < 30; i++) {
		snprintf(value, sizeof(value), "%d", i);
		assert_int_equal(e2e_put(f->on_a, "k", value), RIPTIDE_OK);
		expect_within_lease(f->on_b, "k", value, RIPTIDE_OK);
	}
	assert_int_equal(riptide_delete(f->on_a, "k", 1), RIPTIDE_OK);
	expect_within_lease(f->on_b, "k", value, RIPTIDE_MISS);
	assert_true(e2e_await(&f->b, "coherence.changes", 20, 2000) >= 20);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(what_one_host_writes_the_other_reads),
		CASE(what_one_host_removes_the_other_misses),
		CASE(own_copies_stay_hot_while_only_we_write),
		CASE(a_life_that_one_host_shortens_ends_on_the_other),
		CASE(counts_of_two_hosts_add_up),
		CASE(a_tag_that_one_host_invalidates_is_gone_on_the_other),
		CASE(what_one_host_clears_is_gone_on_the_other),
		CASE(what_one_host_removes_by_prefix_is_gone_on_the_other),
		CASE(a_newer_write_of_another_host_wins_over_one_in_the_journal),
		CASE(long_keys_and_large_values_are_not_read_old_for_longer_than_a_lease),
		CASE(what_a_foreign_program_does_to_a_key_is_noticed),
		CASE(a_remembered_absence_ends_when_somebody_writes),
		CASE(verified_again_after_a_loss_of_connections),
		CASE(a_paused_server_ends_trust_and_a_resumed_one_renews_it),
		CASE(status_tells_of_changes_and_mode),
		cmocka_unit_test_setup_teardown(agents_tell_each_other_in_channel_mode, setup_channel, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
