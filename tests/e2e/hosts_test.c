/*
 * hosts_test.c - a Redis server and two agents, each on a host of its own, and a network between them that loses packets
 * without a word, in one direction or both.
 *
 * What is cut here stays connected as far as both ends can tell, and both kernels deliver late what they could not deliver:
 * nothing but the lease ends what an agent believes, and nothing but killing the old connection ends what it once sent. The
 * program that stands for the truth is beside the server, on its unix socket, and never cut off.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "riptide/riptide.h"
#include "tests/support/e2e.h"
#include "tests/support/hosts.h"
#include "tests/support/link.h"
#include "tests/support/redis_server.h"

#define KEY_OF "riptide:v1:{default.0}:1:c:"
#define LEASE_MS 2000u
#define LATE_MS 400       /* how long what is said after the lease is looked at */
#define RECOVERY_MS 15000 /* connections are given up, made anew and armed */
#define CALL_MS 700u      /* of a handle */
#define DELAY_MS 200u
#define SERVER 0u
#define A 1u
#define B 2u
#define PORT "6379"
#define WRITES 9

struct fixture {
	struct hosts hosts;
	struct redis_server server;
	struct link *links[3]; /* of hosts that are far away */
	struct agent_process agents[3];
	riptide *on[3];
	redisContext *truth;
};

/* ---- the fixture -------------------------------------------------------------------------------------------- */

static int start_agent(struct fixture *f, uint32_t host, const char *stale_policy)
{
	char url[64], policy[64];
	const char *settings[] = {"agent.backend=redis",        url, "coherence.mode=tracking", policy,
				  "coherence.max_age_ms=60000", NULL};
	int status;

	snprintf(url, sizeof(url), "redis.url=redis://%s:" PORT, hosts_address(&f->hosts, SERVER));
	snprintf(policy, sizeof(policy), "coherence.stale_policy=%s", stale_policy);
	if (hosts_enter(&f->hosts, host) < 0)
		return -1;
	if (f->links[host] == NULL && strcmp(stale_policy, "far") == 0) {
		uint16_t port;

		snprintf(policy, sizeof(policy), "coherence.stale_policy=miss");
		f->links[host] = link_start(f->server.unix_path, &port);
		snprintf(url, sizeof(url), "redis.url=redis://127.0.0.1:%u", (unsigned)port);
	}
	status = agent_process_start(&f->agents[host], settings);
	if (hosts_leave(&f->hosts) < 0 || status < 0 || !e2e_await_trust(&f->agents[host]))
		return -1;
	return e2e_open(&f->agents[host], NULL, CALL_MS, &f->on[host]) == RIPTIDE_OK ? 0 : -1;
}

static int start_server(struct fixture *f)
{
	int status;

	if (hosts_enter(&f->hosts, SERVER) < 0)
		return -1;
	status = redis_server_start(&f->server, "--bind", hosts_address(&f->hosts, SERVER), "--port", PORT,
				    "--protected-mode", "no", NULL);
	if (hosts_leave(&f->hosts) < 0 || status < 0)
		return -1;
	f->truth = redisConnectUnix(f->server.unix_path);
	return f->truth && !f->truth->err ? 0 : -1;
}

static const char *why_not(void)
{
	return redis_server_is_installed() ? hosts_why_not() : "there is no redis-server";
}

static int setup_with(void **state, const char *stale_policy)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	if (why_not())
		return 0;
	if (hosts_create(&f->hosts, 3) < 0 || start_server(f) < 0)
		return -1;
	return start_agent(f, A, stale_policy) < 0 || start_agent(f, B, stale_policy) < 0 ? -1 : 0;
}

static int setup(void **state)
{
	return setup_with(state, "miss");
}

static int setup_stale(void **state)
{
	return setup_with(state, "stale");
}

static int setup_far(void **state)
{
	return setup_with(state, "far");
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status = 0;

	for (uint32_t host = 0; host < f->hosts.count; host++)
		status |= hosts_mend(&f->hosts, host);
	for (uint32_t host = A; host <= B; host++) {
		riptide_close(&f->on[host]);
		if (f->agents[host].folder[0])
			status |= agent_process_stop_and_clean(&f->agents[host]);
		link_stop(f->links[host]);
	}
	if (f->truth)
		redisFree(f->truth);
	redis_server_stop(&f->server);
	hosts_destroy(&f->hosts);
	free(f);
	return status;
}

static struct fixture *fixture_of(void **state)
{
	const char *reason = why_not();

	if (reason) {
		print_message("skipped: %s\n", reason);
		skip();
	}
	return *state;
}

/* ---- expectations ------------------------------------------------------------------------------------------- */

/* The server has an entry of this key, and the text is in it. */
static bool server_has(struct fixture *f, const char *key, const char *text)
{
	redisReply *reply = redisCommand(f->truth, "GET " KEY_OF "%s", key);
	bool has;

	assert_non_null(reply);
	assert_int_not_equal(reply->type, REDIS_REPLY_ERROR);
	has = reply->type == REDIS_REPLY_STRING && memmem(reply->str, reply->len, text, strlen(text)) != NULL;
	freeReplyObject(reply);
	return has;
}

static void expect_soon(riptide *handle, const char *key, const char *value, long patience_ms)
{
	assert_int_equal(e2e_await_check(handle, key, value, RIPTIDE_OK, patience_ms), RIPTIDE_OK);
}

/* Put through one, hot and verified with the other. */
static void put_on_both(struct fixture *f, const char *key, const char *value)
{
	struct riptide_info info = {.flags = 0};
	uint64_t until_ms = e2e_now_ms() + 5000;

	assert_int_equal(e2e_put(f->on[A], key, value), RIPTIDE_OK);
	expect_soon(f->on[B], key, value, LEASE_MS);
	while ((info.flags & (RIPTIDE_HOT | RIPTIDE_STALE)) != RIPTIDE_HOT && e2e_now_ms() < until_ms)
		assert_int_equal(e2e_check(f->on[B], key, value, &info), RIPTIDE_OK);
	assert_int_equal(info.flags & (RIPTIDE_HOT | RIPTIDE_STALE), RIPTIDE_HOT);
}

struct reads {
	uint32_t verified, stale, refused; /* refused: an error that says so, or a miss */
};

/*
 * Reads for a while. `old` may be verified by reads that begin until `limit_ms`, any other value but `fresh` never;
 * `fresh`: NULL while nobody can know it.
 */
static struct reads read_for(riptide *handle, const char *key, const char *old, const char *fresh, uint64_t limit_ms,
			     long span_ms)
{
	struct reads reads = {.verified = 0};
	uint64_t began_ms, end_ms = e2e_now_ms() + (uint64_t)span_ms;

	while ((began_ms = e2e_now_ms()) < end_ms) {
		struct riptide_info info = {.flags = 0};
		char text[64];
		size_t length = 0;
		int status = riptide_get_into(handle, key, strlen(key), text, sizeof(text) - 1, &length, &info);

		e2e_pause_ms(2);
		if (status != RIPTIDE_OK) {
			assert_true(status == RIPTIDE_MISS || status == RIPTIDE_EAGAIN ||
				    status == RIPTIDE_ETIMEDOUT || status == RIPTIDE_ESTALE);
			reads.refused++;
			continue;
		}
		text[length] = '\0';
		if (info.flags & RIPTIDE_STALE) {
			reads.stale++;
			continue;
		}
		reads.verified++;
		if (fresh && strcmp(text, fresh) == 0)
			continue;
		assert_string_equal(text, old);
		if (began_ms > limit_ms)
			fail_msg("an old value verified %llu ms too late", (unsigned long long)(began_ms - limit_ms));
	}
	return reads;
}

typedef int (*trouble)(struct hosts *hosts, uint32_t host);

/*
 * B in trouble, A writes; what B may say before, and what it must say after. Returns what it said of two keys once its lease
 * was over: one that is as it was, and one that is not. (A mute one hears of that, and drops it at once.)
 */
static struct reads lose_touch(struct fixture *f, trouble make)
{
	struct reads early, late, idle;
	uint64_t limit_ms, mended_ms;

	put_on_both(f, "idle", "same");
	put_on_both(f, "k", "old");
	assert_int_equal(make(&f->hosts, B), 0);
	limit_ms = e2e_now_ms() + LEASE_MS;
	assert_int_equal(e2e_put(f->on[A], "k", "new"), RIPTIDE_OK);
	early = read_for(f->on[B], "idle", "same", NULL, limit_ms, LEASE_MS);
	/* Not by chance: B went on believing what it had a proof for. */
	assert_true(early.verified > 0);
	idle = read_for(f->on[B], "idle", "same", NULL, limit_ms, LATE_MS);
	late = read_for(f->on[B], "k", "old", NULL, limit_ms, LATE_MS);
	late.stale += idle.stale;
	late.refused += idle.refused;
	assert_int_equal(e2e_check(f->on[A], "k", "new", NULL), RIPTIDE_OK);
	assert_int_equal(hosts_mend(&f->hosts, B), 0);
	mended_ms = e2e_now_ms();
	while (e2e_check(f->on[B], "k", "new", NULL) != RIPTIDE_OK && e2e_now_ms() - mended_ms < RECOVERY_MS)
		(void)read_for(f->on[B], "k", "old", "new", limit_ms, 10);
	assert_int_equal(e2e_check(f->on[B], "k", "new", NULL), RIPTIDE_OK);
	print_message("the new value %llu ms after mending\n", (unsigned long long)(e2e_now_ms() - mended_ms));
	(void)read_for(f->on[B], "k", "old", "new", limit_ms, 300);
	/* And as before. */
	assert_true(e2e_await_trust(&f->agents[B]));
	put_on_both(f, "k", "later");
	return late;
}

/* ---- the hosts themselves ----------------------------------------------------------------------------------- */

/* A connect from a host to the server's: 0, an error, or ETIMEDOUT when nothing has come in so long. */
static int connect_from(struct fixture *f, uint32_t host, int patience_ms)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(6379)};
	struct pollfd ready = {.events = POLLOUT};
	socklen_t length = sizeof(int);
	int error = ETIMEDOUT;

	assert_int_equal(inet_pton(AF_INET, hosts_address(&f->hosts, SERVER), &to.sin_addr), 1);
	assert_int_equal(hosts_enter(&f->hosts, host), 0);
	ready.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(hosts_leave(&f->hosts), 0);
	assert_true(ready.fd >= 0);
	if (connect(ready.fd, (struct sockaddr *)&to, sizeof(to)) == 0)
		error = 0;
	else if (errno != EINPROGRESS)
		error = errno;
	else if (poll(&ready, 1, patience_ms) > 0)
		assert_int_equal(getsockopt(ready.fd, SOL_SOCKET, SO_ERROR, &error, &length), 0);
	close(ready.fd);
	return error;
}

static void a_host_in_trouble_cannot_connect_and_is_told_nothing(void **state)
{
	static const trouble troubles[] = {hosts_cut, hosts_deafen, hosts_mute};
	struct fixture *f = fixture_of(state);

	for (size_t i = 0; i < sizeof(troubles) / sizeof(troubles[0]); i++) {
		assert_int_equal(connect_from(f, B, 2000), 0);
		assert_int_equal(troubles[i](&f->hosts, B), 0);
		assert_int_equal(connect_from(f, B, 300), ETIMEDOUT);
		/* Others are not in trouble. */
		assert_int_equal(connect_from(f, A, 2000), 0);
		assert_int_equal(hosts_mend(&f->hosts, B), 0);
	}
	assert_int_equal(connect_from(f, B, 2000), 0);
}

/* ---- agents ------------------------------------------------------------------------------------------------- */

static void each_reads_what_the_other_wrote(void **state)
{
	struct fixture *f = fixture_of(state);
	char value[32];

	for (int i = 0; i < 20; i++) {
		snprintf(value, sizeof(value), "there %d", i);
		put_on_both(f, "k", value);
		snprintf(value, sizeof(value), "back %d", i);
		assert_int_equal(e2e_put(f->on[B], "k", value), RIPTIDE_OK);
		expect_soon(f->on[A], "k", value, LEASE_MS);
	}
}

static void a_host_that_is_cut_off_verifies_nothing_after_its_lease(void **state)
{
	struct reads late = lose_touch(fixture_of(state), hosts_cut);

	assert_int_equal(late.stale, 0);
	assert_true(late.refused > 0);
}

static void a_host_that_is_cut_off_may_say_what_is_stale_if_it_says_so(void **state)
{
	struct reads late = lose_touch(fixture_of(state), hosts_cut);

	assert_true(late.stale > 0);
}

static void a_host_that_hears_nothing_verifies_nothing_after_its_lease(void **state)
{
	assert_int_equal(lose_touch(fixture_of(state), hosts_deafen).stale, 0);
}

static void a_host_that_is_not_heard_verifies_nothing_after_its_lease(void **state)
{
	assert_int_equal(lose_touch(fixture_of(state), hosts_mute).stale, 0);
}

static void a_server_that_is_cut_off_comes_back_to_all(void **state)
{
	struct fixture *f = fixture_of(state);
	uint64_t cut_ms;

	put_on_both(f, "k", "old");
	assert_int_equal(hosts_cut(&f->hosts, SERVER), 0);
	cut_ms = e2e_now_ms();
	/* Nobody can have changed it, and still nobody may go on vouching for it. */
	(void)read_for(f->on[A], "k", "old", NULL, cut_ms + LEASE_MS, LEASE_MS);
	for (uint32_t host = A; host <= B; host++) {
		struct reads late = read_for(f->on[host], "k", "old", NULL, cut_ms + LEASE_MS, LATE_MS);

		assert_true(late.refused > 0);
		assert_int_equal(late.verified + late.stale, 0);
	}
	assert_int_equal(hosts_mend(&f->hosts, SERVER), 0);
	expect_soon(f->on[A], "k", "old", RECOVERY_MS);
	expect_soon(f->on[B], "k", "old", RECOVERY_MS);
	assert_true(e2e_await_trust(&f->agents[A]));
	assert_true(e2e_await_trust(&f->agents[B]));
	put_on_both(f, "k", "new");
	assert_int_equal(e2e_put(f->on[B], "k", "newer"), RIPTIDE_OK);
	expect_soon(f->on[A], "k", "newer", LEASE_MS);
}

/* Repeats a put until it is acknowledged. */
static void put_at_last(riptide *handle, const char *key, const char *value)
{
	uint64_t until_ms = e2e_now_ms() + RECOVERY_MS;
	int status;

	while ((status = e2e_put(handle, key, value)) != RIPTIDE_OK && e2e_now_ms() < until_ms)
		e2e_pause_ms(20);
	assert_int_equal(status, RIPTIDE_OK);
}

static void writes_that_meet_a_cut_are_told_as_they_turn_out(void **state)
{
	struct fixture *f = fixture_of(state);
	int outcomes[WRITES], acknowledged = 0, unknown = 0;
	char key[16];

	for (int i = 0; i < WRITES; i++) {
		/* The first while all is well; then the server hears them and is not heard; then nothing at all. */
		if (i == WRITES / 3)
			assert_int_equal(hosts_deafen(&f->hosts, B), 0);
		if (i == WRITES / 3 + 2)
			assert_int_equal(hosts_cut(&f->hosts, B), 0);
		snprintf(key, sizeof(key), "w%d", i);
		outcomes[i] = e2e_put(f->on[B], key, "written");
		acknowledged += outcomes[i] == RIPTIDE_OK;
		unknown += outcomes[i] == RIPTIDE_EUNKNOWN;
		assert_true(outcomes[i] == RIPTIDE_OK || outcomes[i] == RIPTIDE_EAGAIN ||
			    outcomes[i] == RIPTIDE_ETIMEDOUT || outcomes[i] == RIPTIDE_EUNKNOWN);
		if (i >= WRITES / 3)
			assert_int_not_equal(outcomes[i], RIPTIDE_OK);
		/* One direction: it got there, and B cannot know. */
		if (i == WRITES / 3)
			assert_true(server_has(f, key, "written"));
	}
	print_message("%d acknowledged, %d unknown, %d refused\n", acknowledged, unknown,
		      WRITES - acknowledged - unknown);
	assert_int_equal(acknowledged, WRITES / 3);
	assert_true(unknown > 0);
	assert_int_equal(hosts_mend(&f->hosts, B), 0);
	put_at_last(f->on[B], "after", "v");
	for (int i = 0; i < WRITES; i++) {
		snprintf(key, sizeof(key), "w%d", i);
		if (outcomes[i] == RIPTIDE_EUNKNOWN)
			continue;
		/* What was acknowledged is there; what was refused is not, "nothing was changed". */
		assert_int_equal(server_has(f, key, "written"), outcomes[i] == RIPTIDE_OK);
	}
}

static void a_write_from_before_a_cut_does_not_overtake_one_from_after_it(void **state)
{
	struct fixture *f = fixture_of(state);
	int status;

	put_on_both(f, "k", "zero");
	assert_int_equal(hosts_cut(&f->hosts, B), 0);
	/* In flight: B's kernel has it, and will send it until the server has it or B's connection is no more. */
	status = e2e_put(f->on[B], "k", "first");
	assert_true(status == RIPTIDE_EUNKNOWN || status == RIPTIDE_ETIMEDOUT || status == RIPTIDE_EAGAIN);
	assert_int_equal(e2e_put(f->on[A], "k", "second"), RIPTIDE_OK);
	assert_false(server_has(f, "k", "first"));
	e2e_pause_ms(1500);
	assert_int_equal(hosts_mend(&f->hosts, B), 0);
	put_at_last(f->on[B], "k", "third");
	assert_int_equal(e2e_put(f->on[A], "k", "fourth"), RIPTIDE_OK);
	/* Longer than the kernel waits before it tries again. */
	for (uint64_t until_ms = e2e_now_ms() + 4000; e2e_now_ms() < until_ms; e2e_pause_ms(20))
		assert_true(server_has(f, "k", "fourth"));
	assert_int_equal(e2e_check(f->on[A], "k", "fourth", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->on[B], "k", "fourth", NULL), RIPTIDE_OK);
}

static void hosts_far_from_the_server_work_and_keep_the_lease(void **state)
{
	struct fixture *f = fixture_of(state);
	struct riptide_info info = {.flags = 0};
	char value[32];

	for (uint32_t host = A; host <= B; host++) {
		link_delay(f->links[host], LINK_TO_SERVER, DELAY_MS);
		link_delay(f->links[host], LINK_TO_AGENT, DELAY_MS);
	}
	for (int i = 0; i < 3; i++) {
		uint64_t began_ms = e2e_now_ms();

		snprintf(value, sizeof(value), "far %d", i);
		assert_int_equal(e2e_put(f->on[A], "k", value), RIPTIDE_OK);
		/* It has really been there and back. */
		assert_true(e2e_now_ms() - began_ms >= 2 * DELAY_MS);
		expect_soon(f->on[B], "k", value, LEASE_MS);
	}
	/* Proofs are late, but they come: copies stay verified without a question. */
	for (uint64_t until_ms = e2e_now_ms() + LEASE_MS + 500; e2e_now_ms() < until_ms; e2e_pause_ms(10)) {
		assert_int_equal(e2e_check(f->on[B], "k", value, &info), RIPTIDE_OK);
		assert_int_equal(info.flags & RIPTIDE_STALE, 0);
	}
	assert_int_equal(info.flags & RIPTIDE_HOT, RIPTIDE_HOT);
}

#define CASE(test, setup) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_host_in_trouble_cannot_connect_and_is_told_nothing, setup),
		CASE(each_reads_what_the_other_wrote, setup),
		CASE(a_host_that_is_cut_off_verifies_nothing_after_its_lease, setup),
		CASE(a_host_that_is_cut_off_may_say_what_is_stale_if_it_says_so, setup_stale),
		CASE(a_host_that_hears_nothing_verifies_nothing_after_its_lease, setup),
		CASE(a_host_that_is_not_heard_verifies_nothing_after_its_lease, setup),
		CASE(a_server_that_is_cut_off_comes_back_to_all, setup),
		CASE(writes_that_meet_a_cut_are_told_as_they_turn_out, setup),
		CASE(a_write_from_before_a_cut_does_not_overtake_one_from_after_it, setup),
		CASE(hosts_far_from_the_server_work_and_keep_the_lease, setup_far),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
