/*
 * What happens to requests when the server is absent, dies, hangs, refuses, or ends connections.
 */
#include "tests/unit/agent/store/redis/fixture.h"

#include <fcntl.h>

#define LOAD 400u

static int prepare(void **state)
{
	*state = fixture_create();
	return 0;
}

static int without(void **state)
{
	fixture_destroy(*state);
	return 0;
}

static void start(struct fixture *f)
{
	assert_int_equal(redis_server_start(&f->server, NULL), 0);
	fixture_open(f);
	assert_int_equal(fixture_op(f, STORE_GET, "warm", 0), RSHM_MISS);
}

/* The server as this user of the given URL form sees it: what a GET is answered. */
__attribute__((format(printf, 2, 3))) static int login(struct fixture *f, const char *format, ...)
{
	va_list args;
	int status;

	va_start(args, format);
	vsnprintf(f->url, sizeof(f->url), format, args);
	va_end(args);
	fixture_open(f);
	status = fixture_op(f, STORE_GET, "k", 0);
	fixture_close(f);
	return status;
}

/* Sends stderr to a file while `run` runs, and returns what came. */
static char *logged_while(struct fixture *f, void (*run)(struct fixture *f))
{
	static char text[65536];
	char path[96];
	int saved = dup(STDERR_FILENO), fd;
	ssize_t length;

	snprintf(path, sizeof(path), "%s/stderr", f->server.folder);
	fd = open(path, O_RDWR | O_CREAT | O_APPEND, 0600);
	assert_true(fd >= 0 && saved >= 0);
	dup2(fd, STDERR_FILENO);
	run(f);
	dup2(saved, STDERR_FILENO);
	length = pread(fd, text, sizeof(text) - 1, 0);
	close(fd);
	close(saved);
	assert_true(length >= 0);
	text[length] = '\0';
	return text;
}

static void load_start(struct fixture *f, struct call *calls, uint64_t patience_ms)
{
	for (uint32_t i = 0; i < LOAD; i++) {
		calls[i].request.envelope = "value";
		calls[i].request.envelope_len = 5;
		call_start(f, &calls[i], i % 2 ? STORE_PUT : STORE_GET, "key", 3, patience_ms);
	}
}

/* Each is answered exactly once, and with a word that is true. */
static void load_check(struct fixture *f, struct call *calls, uint32_t counts[3])
{
	for (uint32_t i = 0; i < LOAD; i++) {
		int status = call_wait(f, &calls[i]);
		bool is_write = i % 2;

		if (status == RSHM_OK || (!is_write && status == RSHM_MISS))
			counts[0]++;
		else if (status == RSHM_E_AGAIN || status == RSHM_E_TIMEDOUT)
			counts[1]++;
		else if (is_write && status == RSHM_E_UNKNOWN)
			counts[2]++;
		else
			fail_msg("request %u was answered %d", i, status);
	}
	fixture_run_for(f, 20);
	for (uint32_t i = 0; i < LOAD; i++) {
		assert_int_equal(calls[i].answers, 1);
		call_fini(&calls[i]);
	}
}

static void wait_until_ready(struct fixture *f)
{
	for (int i = 0; i < 400; i++) {
		int status = fixture_op(f, STORE_GET, "probe", 0);

		if (status == RSHM_MISS)
			return;
		assert_true(status == RSHM_E_AGAIN || status == RSHM_E_TIMEDOUT);
		fixture_run_for(f, 10);
	}
	fail_msg("not ready again");
}

static void absent_server_fails_fast_and_is_found_when_it_comes(void **state)
{
	struct fixture *f = *state;
	struct call call = {.answers = 0};
	struct store_status status;

	assert_int_equal(redis_server_prepare(&f->server), 0);
	fixture_open(f);
	call_start(f, &call, STORE_GET, "k", 1, 60000);
	assert_int_equal(call_wait(f, &call), RSHM_E_AGAIN);
	assert_in_range(call.answered_ms - call.submitted_ms, f->config.connect_grace_ms - 20,
			f->config.connect_grace_ms + 500);
	call_fini(&call);
	call_start(f, &call, STORE_GET, "k", 1, 60000);
	assert_int_equal(call_wait(f, &call), RSHM_E_AGAIN);
	assert_in_range(call.answered_ms - call.submitted_ms, 0, 100);
	store_status(f->store, &status);
	assert_false(status.ready);
	assert_non_null(strstr(status.detail, "No such file"));
	assert_int_equal(redis_server_restart(&f->server), 0);
	wait_until_ready(f);
	assert_int_equal(fixture_put(f, "k", "v", 1, 0), RSHM_OK);
}

static void pool_without_least_size_connects_on_demand_and_recovers(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;

	f->config.pool_min = 0;
	f->config.idle_timeout_ms = 50;
	assert_int_equal(redis_server_prepare(&f->server), 0);
	fixture_open(f);
	fixture_run_for(f, 30);
	assert_int_equal(fixture_metric(f, STORE_REDIS_CONNECT_FAILURES), 0);
	assert_int_equal(fixture_op(f, STORE_GET, "k", 0), RSHM_E_AGAIN);
	assert_int_equal(redis_server_restart(&f->server), 0);
	wait_until_ready(f);
	fixture_run_for(f, 200);
	assert_int_equal(admin_clients(f, NULL), 0);
	assert_int_equal(fixture_op(f, STORE_GET, "k", 0), RSHM_MISS);
}

static void short_deadline_is_kept_while_no_connection_is_there(void **state)
{
	struct fixture *f = *state;
	struct call call = {.answers = 0};

	f->config.connect_grace_ms = 5000;
	assert_int_equal(redis_server_prepare(&f->server), 0);
	fixture_open(f);
	call_start(f, &call, STORE_PUT, "k", 1, 50);
	assert_int_equal(call_wait(f, &call), RSHM_E_TIMEDOUT);
	assert_in_range(call.answered_ms - call.submitted_ms, 45, 200);
}

static void killed_server_leaves_no_request_unanswered_and_comes_back(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct call *calls = calloc(LOAD, sizeof(*calls));
	uint32_t counts[3] = {0};

	start(f);
	for (int round = 0; round < 5; round++) {
		/* Stopped first, so that the kill meets requests that are sent. */
		redis_server_pause(&f->server);
		load_start(f, calls, 10000);
		fixture_run_for(f, 20);
		redis_server_kill(&f->server);
		load_check(f, calls, counts);
		assert_int_equal(redis_server_restart(&f->server), 0);
		wait_until_ready(f);
	}
	assert_int_equal(counts[0], 0);
	assert_true(counts[1] > 0 && counts[2] > 0);
	assert_int_equal(fixture_metric(f, STORE_REDIS_UNKNOWN_WRITES), counts[2]);
	/* The ids of a server that is gone are nobody's to kill. */
	assert_int_equal(fixture_metric(f, STORE_REDIS_KILLS), 0);
	free(calls);
}

static void hanging_server_does_not_hold_requests_beyond_their_deadline(void **state)
{
	struct fixture *f = *state;
	struct call *calls = calloc(LOAD, sizeof(*calls));
	uint32_t counts[3] = {0};

	f->config.command_timeout_ms = 60000;
	start(f);
	redis_server_pause(&f->server);
	load_start(f, calls, 200);
	for (uint32_t i = 0; i < LOAD; i++) {
		(void)call_wait(f, &calls[i]);
		assert_in_range(calls[i].answered_ms - calls[i].submitted_ms, 190, 400);
	}
	load_check(f, calls, counts);
	assert_int_equal(counts[0], 0);
	redis_server_resume(&f->server);
	wait_until_ready(f);
	free(calls);
}

static void command_timeout_ends_connections_and_reads_are_asked_again(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct call call = {.answers = 0};

	f->config.command_timeout_ms = 150;
	f->config.connect_timeout_ms = 150;
	f->config.connect_grace_ms = 3000;
	start(f);
	redis_server_pause(&f->server);
	call_start(f, &call, STORE_GET, "k", 1, 8000);
	fixture_run_for(f, 400);
	assert_int_equal(call.answers, 0);
	assert_in_range(fixture_metric(f, STORE_REDIS_CONNECTIONS_LOST), 1, 2);
	redis_server_resume(&f->server);
	assert_int_equal(call_wait(f, &call), RSHM_MISS);
	assert_true(fixture_metric(f, STORE_REDIS_RETRIED) >= 1);
}

static void impatient_read_does_not_cost_the_others_their_connection(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct call impatient = {.answers = 0}, write = {.request.envelope = "v", .request.envelope_len = 1};

	start(f);
	redis_server_pause(&f->server);
	call_start(f, &impatient, STORE_GET, "k", 1, 50);
	call_start(f, &write, STORE_PUT, "k", 1, 5000);
	assert_int_equal(call_wait(f, &impatient), RSHM_E_TIMEDOUT);
	redis_server_resume(&f->server);
	assert_int_equal(call_wait(f, &write), RSHM_OK);
	assert_int_equal(fixture_metric(f, STORE_REDIS_CONNECTIONS_LOST), 0);
	assert_stored(f, "k", "v", 1);
	assert_int_equal(impatient.answers, 1);
}

static void timed_out_write_is_never_executed_after_a_newer_one(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;

	f->config.pool_min = f->config.pool_max = 4;
	f->config.connect_grace_ms = 3000;
	start(f);
	for (uint32_t round = 0; round < 20; round++) {
		struct call old = {.request.envelope = "old", .request.envelope_len = 3};
		struct call new = {.request.envelope = &round, .request.envelope_len = sizeof(round)};

		redis_server_pause(&f->server);
		call_start(f, &old, STORE_PUT, "k", 1, 30);
		assert_int_equal(call_wait(f, &old), RSHM_E_UNKNOWN);
		call_start(f, &new, STORE_PUT, "k", 1, 8000);
		fixture_run_for(f, 10);
		redis_server_resume(&f->server);
		assert_int_equal(call_wait(f, &new), RSHM_OK);
		fixture_run_for(f, 10);
		assert_stored(f, "k", &round, sizeof(round));
	}
	assert_in_range(fixture_metric(f, STORE_REDIS_KILLS), 20, 40);
}

static void run_two_timed_out_writes(struct fixture *f)
{
	for (int i = 0; i < 2; i++) {
		struct call old = {.request.envelope = "old", .request.envelope_len = 3};

		redis_server_pause(&f->server);
		call_start(f, &old, STORE_PUT, "k", 1, 30);
		assert_int_equal(call_wait(f, &old), RSHM_E_UNKNOWN);
		redis_server_resume(&f->server);
		assert_int_equal(fixture_put(f, "k", "new", 3, 0), RSHM_OK);
	}
}

static void refused_kill_is_said_once_and_writes_go_on(void **state)
{
	struct fixture *f = *state;
	const char *log, *first;

	assert_int_equal(redis_server_start(&f->server, "--user", "default", "off", "--user", "u", "on", ">pw", "~*",
					    "+@all", "-client|kill", NULL),
			 0);
	snprintf(f->url, sizeof(f->url), "unix://u:pw@%s", f->server.unix_path);
	fixture_open(f);
	assert_int_equal(fixture_op(f, STORE_GET, "warm", 0), RSHM_MISS);
	log = logged_while(f, run_two_timed_out_writes);
	first = strstr(log, "CLIENT KILL is not allowed");
	assert_non_null(first);
	assert_null(strstr(first + 1, "CLIENT KILL is not allowed"));
}

static void write_once_info_is_refused(struct fixture *f)
{
	struct call old = {.request.envelope = "old", .request.envelope_len = 3};

	admin(f, "ACL SETUSER default -info");
	redis_server_pause(&f->server);
	call_start(f, &old, STORE_PUT, "k", 1, 30);
	assert_int_equal(call_wait(f, &old), RSHM_E_UNKNOWN);
	redis_server_resume(&f->server);
	assert_int_equal(fixture_put(f, "k", "new", 3, 0), RSHM_OK);
}

/* The lost connection told its CLIENT ID, and the next one cannot tell whether it still means it. */
static void writes_go_on_at_a_server_that_refuses_info_from_now_on(void **state)
{
	struct fixture *f = *state;

	f->config.pool_min = f->config.pool_max = 1;
	f->config.connect_grace_ms = 3000;
	start(f);
	assert_non_null(
		strstr(logged_while(f, write_once_info_is_refused), "the server does not tell CLIENT ID and run_id"));
	assert_stored(f, "k", "new", 3);
}

static void connections_killed_under_load_lose_nothing_but_their_writes(void **state)
{
	struct fixture *f = *state;
	struct call *calls = calloc(LOAD, sizeof(*calls));
	uint32_t counts[3] = {0};

	f->config.connect_grace_ms = 3000;
	f->config.pool_min = 4;
	start(f);
	for (int round = 0; round < 10; round++) {
		load_start(f, calls, 10000);
		uv_run(&f->loop, UV_RUN_NOWAIT);
		assert_true(admin(f, "CLIENT KILL TYPE normal SKIPME yes") >= 1);
		load_check(f, calls, counts);
	}
	assert_true(counts[0] >= LOAD);
	assert_int_equal(counts[1], 0);
	wait_until_ready(f);
	assert_int_equal(fixture_put(f, "k", "v", 1, 0), RSHM_OK);
	assert_stored(f, "k", "v", 1);
	free(calls);
}

static void run_wrong_logins(struct fixture *f)
{
	const char *path = f->server.unix_path;

	assert_int_equal(login(f, "unix://%s", path), RSHM_E_BACKEND);
	assert_int_equal(login(f, "unix://:hunter3@%s", path), RSHM_E_BACKEND);
	assert_int_equal(login(f, "unix://nobody:hunter3@%s", path), RSHM_E_BACKEND);
	assert_int_equal(login(f, "redis://alice:hunter3@127.0.0.1:%u", f->server.port), RSHM_E_BACKEND);
}

static void run_wrong_database(struct fixture *f)
{
	assert_int_equal(login(f, "unix://alice:hunter2@%s?db=99", f->server.unix_path), RSHM_E_BACKEND);
}

static void login_works_over_tcp_and_wrong_ones_are_named_without_secrets(void **state)
{
	struct fixture *f = *state;
	const char *log;

	assert_int_equal(redis_server_start_tcp(&f->server, "--requirepass", "hunter0", "--user", "alice", "on",
						">hunter2", "~*", "+@all", NULL),
			 0);
	assert_int_equal(login(f, "redis://alice:hunter2@127.0.0.1:%u/3", f->server.port), RSHM_MISS);
	assert_int_equal(login(f, "redis://alice:%%68unter2@localhost:%u", f->server.port), RSHM_MISS);
	assert_int_equal(login(f, "redis://:hunter0@127.0.0.1:%u", f->server.port), RSHM_MISS);
	assert_int_equal(login(f, "unix://alice:hunter2@%s?db=15", f->server.unix_path), RSHM_MISS);
	log = logged_while(f, run_wrong_logins);
	assert_null(strstr(log, "hunter"));
	assert_non_null(strstr(log, "wants a password"));
	assert_non_null(strstr(log, "refused user or password"));
	log = logged_while(f, run_wrong_database);
	assert_null(strstr(log, "hunter"));
	assert_non_null(strstr(log, "refused database 99"));
}

static void value_goes_over_tcp_in_the_chosen_database(void **state)
{
	struct fixture *f = *state;
	unsigned char *noise = make_noise(3 << 20);

	assert_int_equal(redis_server_start_tcp(&f->server, NULL), 0);
	snprintf(f->url, sizeof(f->url), "redis://127.0.0.1:%u/5", f->server.port);
	fixture_open(f);
	assert_int_equal(fixture_put(f, "k", noise, 3 << 20, 0), RSHM_OK);
	assert_stored(f, "k", noise, 3 << 20);
	assert_int_equal(admin(f, "DBSIZE"), 0);
	assert_int_equal(fixture_op(f, STORE_DELETE, "k", 0), RSHM_OK);
	free(noise);
}

static void refused_port_and_unknown_host_are_retryable(void **state)
{
	struct fixture *f = *state;

	f->config.connect_grace_ms = 100;
	assert_int_equal(login(f, "redis://127.0.0.1:1"), RSHM_E_AGAIN);
	assert_int_equal(login(f, "redis://host.invalid"), RSHM_E_AGAIN);
}

static void full_and_read_only_servers_are_told_apart(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	char *value = calloc(1, 4096);

	start(f);
	assert_int_equal(fixture_put(f, "k", "v", 1, 0), RSHM_OK);
	admin(f, "CONFIG SET maxmemory 1");
	assert_int_equal(fixture_put(f, "l", value, 4096, 0), RSHM_E_FULL);
	assert_stored(f, "k", "v", 1);
	admin(f, "CONFIG SET maxmemory 0");
	admin(f, "CONFIG SET replica-serve-stale-data yes");
	admin(f, "REPLICAOF 127.0.0.1 1");
	assert_int_equal(fixture_put(f, "l", value, 4096, 0), RSHM_E_AGAIN);
	assert_int_equal(fixture_metric(f, STORE_REDIS_UNKNOWN_WRITES), 0);
	admin(f, "REPLICAOF NO ONE");
	wait_until_ready(f);
	assert_int_equal(fixture_put(f, "l", value, 4096, 0), RSHM_OK);
	free(value);
}

static void cluster_that_is_down_is_retryable(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;

	assert_int_equal(redis_server_start_tcp(&f->server, "--cluster-enabled", "yes", NULL), 0);
	fixture_open(f);
	assert_int_equal(fixture_op(f, STORE_GET, "k", 0), RSHM_E_AGAIN);
	assert_int_equal(fixture_metric(f, STORE_REDIS_RETRIED), f->config.retry_attempts);
}

static void pool_grows_to_its_limit_and_shrinks_when_idle(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct call calls[50] = {{.answers = 0}};

	f->config.pool_min = 1;
	f->config.pool_max = 3;
	f->config.enable_pipelining = false;
	f->config.idle_timeout_ms = 300;
	start(f);
	fixture_run_for(f, 50);
	assert_int_equal(admin_clients(f, NULL), 1);
	admin(f, "CLIENT PAUSE 400 WRITE");
	for (int i = 0; i < 50; i++) {
		calls[i].request.envelope = "v";
		calls[i].request.envelope_len = 1;
		call_start(f, &calls[i], STORE_PUT, "k", 1, 5000);
	}
	fixture_run_for(f, 200);
	assert_int_equal(admin_clients(f, NULL), 3);
	for (int i = 0; i < 50; i++)
		assert_int_equal(call_wait(f, &calls[i]), RSHM_OK);
	assert_int_equal(admin_clients(f, NULL), 3);
	fixture_run_for(f, 800);
	assert_int_equal(admin_clients(f, NULL), 1);
	assert_int_equal(fixture_metric(f, STORE_REDIS_CONNECTIONS_LOST), 0);
}

static void old_connections_are_replaced_without_a_failure(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	unsigned long long first, later;

	f->config.lifetime_ms = 300;
	start(f);
	fixture_run_for(f, 100);
	assert_int_equal(admin_clients(f, &first), 2);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(fixture_op(f, STORE_GET, "k", 0), RSHM_MISS);
		fixture_run_for(f, 10);
	}
	assert_in_range(admin_clients(f, &later), 1, 3);
	assert_true(later >= first + 4);
	assert_int_equal(fixture_metric(f, STORE_REDIS_CONNECTIONS_LOST), 0);
}

static void closing_answers_what_is_pending_truthfully(void **state)
{
	struct fixture *f = *state;
	struct call *calls = calloc(LOAD, sizeof(*calls));

	f->config.pool_max = 2;
	start(f);
	redis_server_pause(&f->server);
	load_start(f, calls, 10000);
	fixture_run_for(f, 20);
	fixture_close(f);
	redis_server_resume(&f->server);
	for (uint32_t i = 0; i < LOAD; i++) {
		/* Two pipelines of 100 were sent; of these, every other one is a write. */
		assert_int_equal(calls[i].answers, 1);
		assert_true(calls[i].status == RSHM_E_CLOSED || (i % 2 && calls[i].status == RSHM_E_UNKNOWN));
	}
	free(calls);
}

static void bad_configuration_is_refused_in_one_line(void **state)
{
	struct fixture *f = *state;
	struct store_redis_config config = f->config;
	struct store *store = NULL;
	char error[256];

	config.url = "rediss://:hunter2@h";
	assert_int_equal(store_redis_create(&f->loop, &config, &store, error, sizeof(error)), RSHM_E_INVALID);
	assert_non_null(strstr(error, "TLS"));
	assert_null(strstr(error, "hunter2"));
	config = f->config;
	config.pool_min = 11;
	assert_int_equal(store_redis_create(&f->loop, &config, &store, error, sizeof(error)), RSHM_E_INVALID);
	assert_non_null(strstr(error, "pool"));
	config = f->config;
	config.key_prefix = "a{b";
	assert_int_equal(store_redis_create(&f->loop, &config, &store, error, sizeof(error)), RSHM_E_INVALID);
	assert_non_null(strstr(error, "prefix"));
	assert_null(store);
}

int main(void)
{
#define FAILURE_TEST(name) cmocka_unit_test_setup_teardown(name, prepare, without)
	const struct CMUnitTest tests[] = {
		FAILURE_TEST(absent_server_fails_fast_and_is_found_when_it_comes),
		FAILURE_TEST(pool_without_least_size_connects_on_demand_and_recovers),
		FAILURE_TEST(short_deadline_is_kept_while_no_connection_is_there),
		FAILURE_TEST(killed_server_leaves_no_request_unanswered_and_comes_back),
		FAILURE_TEST(hanging_server_does_not_hold_requests_beyond_their_deadline),
		FAILURE_TEST(command_timeout_ends_connections_and_reads_are_asked_again),
		FAILURE_TEST(impatient_read_does_not_cost_the_others_their_connection),
		FAILURE_TEST(timed_out_write_is_never_executed_after_a_newer_one),
		FAILURE_TEST(refused_kill_is_said_once_and_writes_go_on),
		FAILURE_TEST(writes_go_on_at_a_server_that_refuses_info_from_now_on),
		FAILURE_TEST(connections_killed_under_load_lose_nothing_but_their_writes),
		FAILURE_TEST(login_works_over_tcp_and_wrong_ones_are_named_without_secrets),
		FAILURE_TEST(value_goes_over_tcp_in_the_chosen_database),
		FAILURE_TEST(refused_port_and_unknown_host_are_retryable),
		FAILURE_TEST(full_and_read_only_servers_are_told_apart),
		FAILURE_TEST(cluster_that_is_down_is_retryable),
		FAILURE_TEST(pool_grows_to_its_limit_and_shrinks_when_idle),
		FAILURE_TEST(old_connections_are_replaced_without_a_failure),
		FAILURE_TEST(closing_answers_what_is_pending_truthfully),
		FAILURE_TEST(bad_configuration_is_refused_in_one_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
