/*
 * tenants_agents_test.c - tenants shared by two agents of one Redis: what one changes is true at the other within the bound,
 * and what is known goes on while the server is away.
 */
#include "tests/e2e/tenants.h"

#define BOUND_MS 2000

struct fixture {
	struct redis_server server;
	struct agent_process a, b;
	char url[160];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *settings[] = {"agent.backend=redis",
				  f->url,
				  "agent.workers=2",
				  "cache.segment_initial_bytes=1M",
				  "cache.max_memory_bytes=64M",
				  "coherence.mode=tracking",
				  "coherence.max_age_ms=60000",
				  "redis.command_timeout_ms=2500",
				  "redis.connection_timeout_ms=2500",
				  "limits.attaches_per_second_per_uid=100000",
				  NULL};

	*state = f;
	if (!redis_server_is_installed())
		return 0;
	if (redis_server_start(&f->server, NULL) < 0)
		return -1;
	snprintf(f->url, sizeof(f->url), "redis.url=unix://%s", f->server.unix_path);
	if (agent_process_start(&f->a, settings) < 0 || agent_process_start(&f->b, settings) < 0)
		return -1;
	return e2e_await_trust(&f->a) && e2e_await_trust(&f->b) ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status = 0;

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
	struct fixture *f = *state;

	if (!f->a.folder[0])
		skip();
	return f;
}

/* How long after `since_us` the reader still began a read that gave a value. */
static long outlived_ms(const struct reader *reader, uint64_t since_us)
{
	e2e_pause_ms(BOUND_MS + 500);
	return reader->reading->last_began_us > since_us ? (long)(reader->reading->last_began_us - since_us) / 1000
							 : 0;
}

static void what_one_creates_the_other_serves(void **state)
{
	struct fixture *f = fixture_of(state);
	riptide *on_a, *on_b;

	assert_int_equal(try_open(&f->b, "acme", NULL), RIPTIDE_ENOTENANT);
	create(&f->a, "acme", "");
	on_b = open_tenant(&f->b, "acme");
	on_a = open_tenant(&f->a, "acme");
	assert_int_equal(e2e_put(on_a, "k", "v"), RIPTIDE_OK);
	make_hot(on_b, "k", "v");
	assert_int_equal(e2e_put(on_b, "k", "w"), RIPTIDE_OK);
	assert_int_equal(e2e_await_check(on_a, "k", "w", RIPTIDE_OK, BOUND_MS), RIPTIDE_OK);
	/* One id, made once. */
	assert_true(TENANT(&f->b, CREATE, NULL, "{\"id\": \"acme\"}") < 0);
	assert_done(TENANT(&f->b, UPDATE, "acme", "{\"name\": \"from b\"}"));
	assert_done(TENANT(&f->a, GET, "acme", NULL));
	assert_said("from b");
	riptide_close(&on_a);
	riptide_close(&on_b);
}

static void hot_reads_end_on_the_other_host_within_the_bound(void **state)
{
	struct fixture *f = fixture_of(state);
	struct reader reader;
	riptide *on_a;

	create(&f->a, "acme", "");
	on_a = open_tenant(&f->a, "acme");
	assert_int_equal(e2e_put(on_a, "k", "v"), RIPTIDE_OK);
	reader_start(&reader, &f->b, "acme");
	for (int i = 0; i < 3; i++) {
		uint64_t suspended_us;
		long late_ms;

		assert_done(TENANT(&f->a, SUSPEND, "acme", "{\"reason\": \"not paid\"}"));
		suspended_us = now_us();
		late_ms = outlived_ms(&reader, suspended_us);
		print_message("suspended: the last hot read on the other host began %ld ms later\n", late_ms);
		assert_true(late_ms < BOUND_MS);
		assert_true(reader_is_told(&reader, RIPTIDE_EDENIED));
		assert_non_null(strstr(reader.reading->error, "suspended: not paid"));
		assert_done(TENANT(&f->a, RESUME, "acme", NULL));
		assert_true(reader_is_served(&reader, 5000));
	}
	reader_stop(&reader);
	riptide_close(&on_a);
}

/* A process that writes through B as long as it is let. */
struct writer {
	const struct agent_process *agent;
	volatile uint32_t *stop;
	bool behind;
};

static int write_on(void *context)
{
	const struct writer *w = context;
	struct riptide_set_options options = {.size = sizeof(options),
					      .write_mode = w->behind ? RIPTIDE_WRITE_BEHIND : RIPTIDE_WRITE_THROUGH};
	riptide *handle;
	char key[32];

	if (e2e_open(w->agent, "acme", 300, &handle) != RIPTIDE_OK)
		return 1;
	for (int i = 0; !*w->stop; i++) {
		int length = snprintf(key, sizeof(key), "w%d", i);

		if (riptide_set(handle, key, (size_t)length, "late", 4, &options, NULL) == RIPTIDE_OK && !w->stop[1])
			w->stop[1] = 1;
	}
	riptide_close(&handle);
	return 0;
}

static void delete_under_writes(struct fixture *f, bool behind)
{
	volatile uint32_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct writer writer = {.agent = &f->b, .stop = shared, .behind = behind};
	struct reader reader;
	uint64_t deleted_us;
	riptide *on_a;
	long late_ms;
	pid_t pid;

	create(&f->a, "acme", "");
	on_a = open_tenant(&f->a, "acme");
	assert_int_equal(e2e_put(on_a, "k", "v"), RIPTIDE_OK);
	reader_start(&reader, &f->b, "acme");
	pid = e2e_fork(write_on, &writer);
	while (!shared[1])
		e2e_pause_ms(1);
	e2e_pause_ms(200);
	assert_done(TENANT(&f->a, DELETE, "acme", NULL));
	deleted_us = now_us();
	late_ms = outlived_ms(&reader, deleted_us);
	print_message("deleted: the last hot read on the other host began %ld ms later\n", late_ms);
	assert_true(late_ms < BOUND_MS);
	assert_true(reader_is_told(&reader, RIPTIDE_ENOTENANT));
	shared[0] = 1;
	assert_int_equal(e2e_join(pid, 10000), 0);
	reader_stop(&reader);
	riptide_close(&on_a);
	create(&f->b, "acme", "");
	on_a = open_tenant(&f->a, "acme");
	assert_int_equal(e2e_check(on_a, "k", "v", NULL), RIPTIDE_MISS);
	assert_int_equal(e2e_check(on_a, "w0", "late", NULL), RIPTIDE_MISS);
	riptide_close(&on_a);
	assert_done(TENANT(&f->a, DELETE, "acme", NULL));
	if (server_keys(&f->server, "acme") != 1)
		fail_msg("left: %s", answer);
	munmap((void *)shared, 4096);
}

static void a_tenant_deleted_while_another_host_writes_leaves_nothing(void **state)
{
	delete_under_writes(fixture_of(state), false);
}

static void a_tenant_deleted_while_another_host_writes_behind_leaves_nothing(void **state)
{
	delete_under_writes(fixture_of(state), true);
}

static void without_the_server_the_open_go_on_and_the_new_are_told_to_retry(void **state)
{
	struct fixture *f = fixture_of(state);
	riptide *on_b;
	int status;

	create(&f->a, "acme", "");
	create(&f->a, "closed", "");
	on_b = open_tenant(&f->b, "acme");
	assert_int_equal(e2e_put(on_b, "k", "v"), RIPTIDE_OK);
	make_hot(on_b, "k", "v");
	redis_server_pause(&f->server);
	assert_int_equal(e2e_check(on_b, "k", "v", NULL), RIPTIDE_OK);
	e2e_pause_ms(3000);
	/* Neither closed nor refused: what is not hot is answered as without a server. */
	status = e2e_put(on_b, "k", "w");
	assert_true(status == RIPTIDE_EAGAIN || status == RIPTIDE_ETIMEDOUT || status == RIPTIDE_EUNKNOWN);
	assert_int_equal(try_open(&f->b, "closed", NULL), RIPTIDE_EAGAIN);
	assert_said("try again later");
	assert_true(TENANT(&f->a, CREATE, NULL, "{\"id\": \"late\"}") < 0);
	redis_server_resume(&f->server);
	/* What may have happened may happen when the server goes on. */
	assert_true(e2e_await_check(on_b, "k", "v", RIPTIDE_OK, status == RIPTIDE_EUNKNOWN ? 2000 : 10000) ==
			    RIPTIDE_OK ||
		    (status == RIPTIDE_EUNKNOWN && e2e_check(on_b, "k", "w", NULL) == RIPTIDE_OK));
	for (int i = 0; i < 200 && try_open(&f->b, "closed", NULL) != RIPTIDE_OK; i++)
		e2e_pause_ms(50);
	assert_int_equal(try_open(&f->b, "closed", NULL), RIPTIDE_OK);
	riptide_close(&on_b);
}

static void a_segment_is_removed_when_another_agent_suspended_its_tenant_meanwhile(void **state)
{
	struct fixture *f = fixture_of(state);
	int before = e2e_objects(&f->b);
	riptide *on_b;

	create(&f->a, "acme", "");
	create(&f->a, "gone", "");
	on_b = open_tenant(&f->b, "acme");
	assert_int_equal(e2e_put(on_b, "k", "v"), RIPTIDE_OK);
	make_hot(on_b, "k", "v");
	riptide_close(&on_b);
	assert_int_equal(try_open(&f->b, "gone", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_objects(&f->b), before + 2);
	assert_int_equal(agent_process_kill(&f->b, SIGKILL), 0);
	assert_done(TENANT(&f->a, SUSPEND, "acme", NULL));
	assert_done(TENANT(&f->a, DELETE, "gone", NULL));
	assert_int_equal(agent_process_restart(&f->b), 0);
	for (int i = 0; i < 500 && e2e_objects(&f->b) > before; i++)
		e2e_pause_ms(10);
	assert_int_equal(e2e_objects(&f->b), before);
	assert_int_equal(try_open(&f->b, "acme", NULL), RIPTIDE_EDENIED);
	assert_int_equal(try_open(&f->b, "gone", NULL), RIPTIDE_ENOTENANT);
	assert_done(TENANT(&f->a, RESUME, "acme", NULL));
	on_b = open_tenant(&f->b, "acme");
	make_hot(on_b, "k", "v");
	riptide_close(&on_b);
}

struct creator {
	const struct agent_process *agent;
	uint64_t start_ms;
};

static int create_many(void *context)
{
	const struct creator *creator = context;
	const struct agent_process *agent = creator->agent;
	char json[32];
	int made = 0;

	while (e2e_now_ms() < creator->start_ms)
		e2e_pause_ms(1);
	for (int i = 0; i < 30; i++) {
		snprintf(json, sizeof(json), "{\"id\": \"t%d\"}", i);
		made += TENANT(agent, CREATE, NULL, json) == RSHM_OK;
	}
	return made;
}

static void both_create_the_same_ids_at_once_and_each_is_made_once(void **state)
{
	struct fixture *f = fixture_of(state);
	struct creator a = {&f->a, e2e_now_ms() + 200}, b = {&f->b, a.start_ms};
	pid_t on_a = e2e_fork(create_many, &a), on_b = e2e_fork(create_many, &b);
	int by_a = e2e_join(on_a, 30000), by_b = e2e_join(on_b, 30000);

	print_message("%d made by one, %d by the other\n", by_a, by_b);
	assert_int_equal(by_a + by_b, 30);
	assert_done(TENANT(&f->a, LIST, NULL, NULL));
	assert_said("\"t29\"");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_one_creates_the_other_serves, setup, teardown),
		cmocka_unit_test_setup_teardown(hot_reads_end_on_the_other_host_within_the_bound, setup, teardown),
		cmocka_unit_test_setup_teardown(a_tenant_deleted_while_another_host_writes_leaves_nothing, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_tenant_deleted_while_another_host_writes_behind_leaves_nothing,
						setup, teardown),
		cmocka_unit_test_setup_teardown(without_the_server_the_open_go_on_and_the_new_are_told_to_retry,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_segment_is_removed_when_another_agent_suspended_its_tenant_meanwhile, setup, teardown),
		cmocka_unit_test_setup_teardown(both_create_the_same_ids_at_once_and_each_is_made_once, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
