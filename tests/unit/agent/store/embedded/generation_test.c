#include "tests/unit/agent/store/embedded/fixture.h"

#include <pthread.h>
#include <signal.h>

static int setup(void **state)
{
	static struct fixture f;

	fixture_init(&f);
	fixture_open(&f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fixture_close(f);
	fixture_fini(f);
	return 0;
}

static int space_ask(struct fixture *f, enum store_op op, uint32_t tenant_number, uint64_t swept, struct call *ret)
{
	call_init(ret, op, NULL, 0);
	ret->request.name.tenant_number = tenant_number;
	ret->request.name.generation = 0;
	ret->request.swept = swept;
	return call_run(ret, f->store, &f->loop);
}

static void assert_space(struct fixture *f, uint32_t tenant_number, uint64_t generation, uint64_t swept)
{
	struct call call;

	assert_int_equal(space_ask(f, STORE_GENERATION, tenant_number, 77, &call), RSHM_OK);
	assert_int_equal(call.request.generation, generation);
	assert_int_equal(call.request.swept, swept);
}

static void assert_next(struct fixture *f, uint32_t tenant_number, uint64_t generation, uint64_t swept)
{
	struct call call;

	assert_int_equal(space_ask(f, STORE_NEXT_GENERATION, tenant_number, 77, &call), RSHM_OK);
	assert_int_equal(call.request.generation, generation);
	assert_int_equal(call.request.swept, swept);
}

static void assert_swept(struct fixture *f, uint32_t tenant_number, uint64_t swept, uint64_t generation,
			 uint64_t in_force)
{
	struct call call;

	assert_int_equal(space_ask(f, STORE_SWEPT, tenant_number, swept, &call), RSHM_OK);
	assert_int_equal(call.request.generation, generation);
	assert_int_equal(call.request.swept, in_force);
	assert_space(f, tenant_number, generation, in_force);
}

static void generations_count_up_per_tenant_and_over_reopening(void **state)
{
	struct fixture *f = *state;

	assert_space(f, 1, 1, 0);
	assert_space(f, UINT32_MAX, 1, 0);
	assert_next(f, 1, 2, 0);
	assert_next(f, 1, 3, 0);
	assert_next(f, 256, 2, 0);
	assert_space(f, 1, 3, 0);
	assert_space(f, 2, 1, 0);
	fixture_close(f);
	fixture_open(f);
	assert_space(f, 1, 3, 0);
	assert_space(f, 256, 2, 0);
	assert_space(f, 2, 1, 0);
	assert_next(f, 1, 4, 0);
	assert_int_equal(status_of(f->store).entries, 0);
}

static void swept_never_goes_down(void **state)
{
	struct fixture *f = *state;

	assert_swept(f, 1, 0, 1, 0);
	/* What is in force is never swept. */
	assert_swept(f, 1, 1, 1, 0);
	assert_next(f, 1, 2, 0);
	assert_next(f, 1, 3, 0);
	assert_next(f, 1, 4, 0);
	assert_swept(f, 1, 2, 4, 2);
	assert_swept(f, 1, 1, 4, 2);
	assert_swept(f, 1, 0, 4, 2);
	assert_swept(f, 1, 4, 4, 2);
	assert_swept(f, 1, UINT64_MAX, 4, 2);
	fixture_close(f);
	fixture_open(f);
	assert_swept(f, 1, 1, 4, 2);
	assert_swept(f, 1, 3, 4, 3);
	assert_next(f, 1, 5, 3);
	assert_space(f, 2, 1, 0);
}

static void namespaces_that_cannot_be_are_refused(void **state)
{
	uint64_t unordered[2] = {3, 3}, last[2] = {UINT64_MAX, 0};
	struct fixture *f = *state;
	struct call call;

	assert_int_equal(space_ask(f, STORE_GENERATION, 0, 0, &call), RSHM_E_INVALID);
	assert_int_equal(space_ask(f, STORE_NEXT_GENERATION, 0, 0, &call), RSHM_E_INVALID);
	assert_int_equal(space_ask(f, STORE_SWEPT, 0, 0, &call), RSHM_E_INVALID);
	fixture_overwrite(f, "meta", "space\0\0\0\1", 9, "short", 5);
	fixture_overwrite(f, "meta", "space\0\0\0\2", 9, unordered, sizeof unordered);
	fixture_overwrite(f, "meta", "space\0\0\0\3", 9, last, sizeof last);
	for (uint32_t tenant = 1; tenant <= 3; tenant++) {
		assert_int_equal(space_ask(f, STORE_GENERATION, tenant, 0, &call), RSHM_E_CORRUPT);
		assert_int_equal(space_ask(f, STORE_NEXT_GENERATION, tenant, 0, &call), RSHM_E_CORRUPT);
		assert_int_equal(space_ask(f, STORE_SWEPT, tenant, 1, &call), RSHM_E_CORRUPT);
	}
	assert_next(f, 4, 2, 0);
}

/* The child tells of each new generation and is killed on the way. */
static void acknowledged_generations_survive_a_kill(void **state)
{
	struct fixture f;
	uint64_t told = 1, next;

	(void)state;
	fixture_init(&f);
	for (int i = 0; i < 5; i++) {
		int pipes[2], status;
		struct call call;
		pid_t child;

		assert_int_equal(pipe(pipes), 0);
		child = fork();
		assert_true(child >= 0);
		if (child == 0) {
			fixture_open(&f);
			for (;;)
				if (space_ask(&f, STORE_NEXT_GENERATION, 1, 0, &call) != RSHM_OK ||
				    write(pipes[1], &call.request.generation, 8) != 8)
					_exit(1);
		}
		close(pipes[1]);
		for (int j = 0; j < 20; j++) {
			assert_int_equal(read(pipes[0], &next, sizeof next), sizeof next);
			assert_true(next > told);
			told = next;
		}
		kill(child, SIGKILL);
		while (read(pipes[0], &next, sizeof next) == sizeof next)
			told = next;
		close(pipes[0]);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		fixture_open(&f);
		assert_int_equal(space_ask(&f, STORE_GENERATION, 1, 0, &call), RSHM_OK);
		/* At most one was made and not told. */
		assert_in_range(call.request.generation, told, told + 1);
		told = call.request.generation;
		fixture_close(&f);
	}
	fixture_fini(&f);
}

#define ROUNDS 1000u

/* Assertions of cmocka belong to the main thread: mistakes are counted. */
struct worker {
	struct embedded_env *env;
	uint64_t mistakes;
	uint64_t generations[ROUNDS];
};

static void worker_on_done(struct store_request *request)
{
	*(bool *)request->context = true;
}

static void *worker_run(void *context)
{
	struct worker *worker = context;
	struct store *store;
	bool closed = false;
	uv_loop_t loop;

	if (uv_loop_init(&loop) != 0 || embedded_store_create(worker->env, &loop, &store) != RSHM_OK) {
		worker->mistakes++;
		return NULL;
	}
	for (uint32_t i = 0; i < ROUNDS; i++) {
		bool done = false;
		struct store_request request = {
			.op = STORE_NEXT_GENERATION,
			.name = {.tenant = "default", .tenant_number = 1, .shards = 1},
			.deadline_ms = clock_monotonic_ms() + 60000,
			.done = worker_on_done,
			.context = &done,
		};

		store_submit(store, &request);
		while (!done)
			uv_run(&loop, UV_RUN_ONCE);
		worker->mistakes += request.status != RSHM_OK;
		worker->generations[i] = request.generation;
	}
	store_close(store, fixture_on_closed, &closed);
	while (!closed)
		uv_run(&loop, UV_RUN_ONCE);
	worker->mistakes += uv_loop_close(&loop) != 0;
	return NULL;
}

static void two_workers_never_get_the_same_generation(void **state)
{
	static struct worker workers[2];
	static bool seen[2 * ROUNDS + 2];
	struct fixture *f = *state;
	pthread_t threads[2];

	for (int i = 0; i < 2; i++) {
		workers[i].env = f->env;
		assert_int_equal(pthread_create(&threads[i], NULL, worker_run, &workers[i]), 0);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(workers[i].mistakes, 0);
		for (uint32_t j = 0; j < ROUNDS; j++) {
			assert_in_range(workers[i].generations[j], 2, 2 * ROUNDS + 1);
			assert_false(seen[workers[i].generations[j]]);
			seen[workers[i].generations[j]] = true;
		}
	}
	assert_space(f, 1, 2 * ROUNDS + 1, 0);
}

/* Nothing stands in a journal here: the writer, stuck with an earlier write, is not waited for. */
static void flush_is_answered_at_once_but_not_from_inside_submit(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer buffer = envelope_of("k", 1, "v", 1, 0);
	struct call write, flush;
	int release;
	pid_t child = hold_writer(f, &release);

	call_init(&write, STORE_PUT, "k", 1);
	write.request.envelope = buffer.bytes;
	write.request.envelope_len = buffer.length;
	write.request.behind = true;
	store_submit(f->store, &write.request);
	call_init(&flush, STORE_FLUSH, NULL, 0);
	store_submit(f->store, &flush.request);
	assert_false(flush.done);
	call_wait(&flush, &f->loop);
	assert_int_equal(flush.status, RSHM_OK);
	assert_false(write.done);
	release_writer(child, release);
	call_wait(&write, &f->loop);
	assert_int_equal(write.status, RSHM_OK);
	/* Written through, though it was asked to go behind. */
	assert_false(write.request.accepted);
	assert_int_equal(get_expect(f, "k", 1, "v", 1), RSHM_OK);
	envelope_buffer_fini(&buffer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(generations_count_up_per_tenant_and_over_reopening),
		TEST(swept_never_goes_down),
		TEST(namespaces_that_cannot_be_are_refused),
		cmocka_unit_test(acknowledged_generations_survive_a_kill),
		TEST(two_workers_never_get_the_same_generation),
		TEST(flush_is_answered_at_once_but_not_from_inside_submit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
