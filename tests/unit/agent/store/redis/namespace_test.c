/*
 * The generations of tenants, and FLUSH, which has nothing to wait for.
 */
#include "tests/unit/agent/store/redis/fixture.h"

#define HASH "riptide:v1:{t1.0}:n"

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

static void submit(struct fixture *f, struct call *call, enum store_op op, const char *tenant, uint64_t swept)
{
	*call = (struct call){.fixture = f,
			      .request = {.op = op,
					  .name = {.tenant = tenant, .tenant_number = 1, .shards = 8},
					  .swept = swept,
					  .generation = 99,
					  .deadline_ms = clock_monotonic_ms() + 5000,
					  .done = call_on_done,
					  .context = call}};
	f->outstanding++;
	store_submit(f->store, &call->request);
	assert_int_equal(call->answers, 0);
}

static int ask(struct fixture *f, enum store_op op, const char *tenant, uint64_t swept)
{
	struct call call;

	submit(f, &call, op, tenant, swept);
	return call_wait(f, &call);
}

static void assert_namespace(struct fixture *f, enum store_op op, const char *tenant, uint64_t generation,
			     uint64_t swept)
{
	struct call call;

	submit(f, &call, op, tenant, 0);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_int_equal(call.request.generation, generation);
	assert_int_equal(call.request.swept, swept);
}

static void new_tenant_has_the_first_generation_and_costs_nothing(void **state)
{
	struct fixture *f = *state;

	assert_namespace(f, STORE_GENERATION, "t1", 1, 0);
	assert_int_equal(admin(f, "DBSIZE"), 0);
}

static void generations_of_tenants_grow_apart(void **state)
{
	struct fixture *f = *state;

	assert_namespace(f, STORE_NEXT_GENERATION, "t1", 2, 0);
	assert_namespace(f, STORE_NEXT_GENERATION, "t1", 3, 0);
	assert_namespace(f, STORE_NEXT_GENERATION, "t2", 2, 0);
	assert_namespace(f, STORE_GENERATION, "t1", 3, 0);
	assert_namespace(f, STORE_GENERATION, "t2", 2, 0);
	assert_namespace(f, STORE_GENERATION, "t", 1, 0);
	assert_int_equal(admin(f, "HEXISTS " HASH " g"), 1);
	assert_int_equal(admin(f, "HINCRBY " HASH " g 0"), 2);
}

static void swept_is_never_lowered(void **state)
{
	struct fixture *f = *state;
	struct call call;

	for (int i = 0; i < 12; i++)
		assert_int_equal(ask(f, STORE_NEXT_GENERATION, "t1", 0), RSHM_OK);
	/* Compared as numbers: 9 is less than 10. */
	assert_int_equal(ask(f, STORE_SWEPT, "t1", 9), RSHM_OK);
	assert_namespace(f, STORE_GENERATION, "t1", 13, 9);
	assert_int_equal(ask(f, STORE_SWEPT, "t1", 10), RSHM_OK);
	submit(f, &call, STORE_SWEPT, "t1", 3);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_int_equal(call.request.swept, 10);
	assert_int_equal(call.request.generation, 13);
	assert_namespace(f, STORE_NEXT_GENERATION, "t1", 14, 10);
	assert_int_equal(ask(f, STORE_SWEPT, "t1", UINT64_MAX), RSHM_E_INVALID);
	assert_namespace(f, STORE_GENERATION, "t1", 14, 10);
}

static void stores_of_several_agents_never_share_a_new_generation(void **state)
{
	struct fixture *f = *state;
	struct store *first = f->store, *second;
	struct call calls[64];
	bool seen[66] = {false};

	fixture_open(f);
	second = f->store;
	for (int i = 0; i < 64; i++) {
		f->store = i % 2 ? first : second;
		submit(f, &calls[i], STORE_NEXT_GENERATION, "t1", 0);
		if (i == 32)
			(void)admin(f, "SCRIPT FLUSH SYNC");
	}
	for (int i = 0; i < 64; i++) {
		assert_int_equal(call_wait(f, &calls[i]), RSHM_OK);
		assert_in_range(calls[i].request.generation, 2, 65);
		assert_false(seen[calls[i].request.generation]);
		seen[calls[i].request.generation] = true;
	}
	f->store = second;
	assert_namespace(f, STORE_GENERATION, "t1", 65, 0);
	fixture_close(f);
	f->store = first;
	assert_namespace(f, STORE_GENERATION, "t1", 65, 0);
}

static void entries_of_an_older_generation_are_out_of_sight(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fixture_put(f, "k", "v", 1, 0), RSHM_OK);
	assert_namespace(f, STORE_NEXT_GENERATION, "t1", 2, 0);
	assert_int_equal(admin(f, "EXISTS riptide:v1:{t1.0}:1:c:k"), 1);
	assert_int_equal(admin(f, "EXISTS riptide:v1:{t1.0}:2:c:k"), 0);
}

static void what_is_no_namespace_is_told(void **state)
{
	static const char *const fields[][2] = {{"g", "x"}, {"g", "-1"}, {"g", "1.5"}, {"g", "99999999999999999999"},
						{"s", "x"}, {"s", "-3"}, {"g", "1 2"}, {"g", ""}};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		(void)admin(f, "DEL " HASH);
		assert_int_equal(admin(f, "HSET " HASH " %s %s", fields[i][0], fields[i][1]), 1);
		assert_int_equal(ask(f, STORE_GENERATION, "t1", 0), RSHM_E_CORRUPT);
	}
	(void)admin(f, "DEL " HASH);
	(void)admin(f, "SET " HASH " 7");
	assert_int_equal(ask(f, STORE_GENERATION, "t1", 0), RSHM_E_BACKEND);
	assert_int_equal(ask(f, STORE_NEXT_GENERATION, "t1", 0), RSHM_E_BACKEND);
	assert_int_equal(ask(f, STORE_SWEPT, "t1", 1), RSHM_E_BACKEND);
	assert_int_equal(ask(f, STORE_GENERATION, "T1", 0), RSHM_E_INVALID);
	assert_int_equal(ask(f, STORE_GENERATION, "", 0), RSHM_E_INVALID);
}

static void flush_is_answered_at_once_even_without_a_server(void **state)
{
	struct fixture *f = *state;
	struct call call;

	assert_int_equal(ask(f, STORE_FLUSH, "t1", 0), RSHM_OK);
	redis_server_pause(&f->server);
	submit(f, &call, STORE_FLUSH, "t1", 0);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_in_range(call.answered_ms, call.request.deadline_ms - 5000, call.request.deadline_ms - 4000);
	redis_server_resume(&f->server);
	assert_int_equal(admin(f, "DBSIZE"), 0);
}

static void unknown_operation_is_refused_and_sends_nothing(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fixture_put(f, "k", "v", 1, 0), RSHM_OK);
	assert_int_equal(fixture_op(f, (enum store_op)99, "k", 0), RSHM_E_INVALID);
	assert_stored(f, "k", "v", 1);
}

int main(void)
{
#define NAMESPACE_TEST(name) cmocka_unit_test_setup_teardown(name, with_server, without)
	const struct CMUnitTest tests[] = {
		NAMESPACE_TEST(new_tenant_has_the_first_generation_and_costs_nothing),
		NAMESPACE_TEST(generations_of_tenants_grow_apart),
		NAMESPACE_TEST(swept_is_never_lowered),
		NAMESPACE_TEST(stores_of_several_agents_never_share_a_new_generation),
		NAMESPACE_TEST(entries_of_an_older_generation_are_out_of_sight),
		NAMESPACE_TEST(what_is_no_namespace_is_told),
		NAMESPACE_TEST(flush_is_answered_at_once_even_without_a_server),
		NAMESPACE_TEST(unknown_operation_is_refused_and_sends_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
