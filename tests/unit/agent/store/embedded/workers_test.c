#include "tests/unit/agent/store/embedded/fixture.h"

#include <pthread.h>

#define ROUNDS 3000
#define WIDTH 16

/*
 * Each worker has its own loop, store and keys, and reads the other's. Every answer is checked at once:
 * what it wrote it must read; what the other wrote must be whole.
 */
struct worker {
	struct embedded_env *env;
	uint32_t number;
	uint64_t mistakes, foreign_hits;
};

/* Assertions of cmocka belong to the main thread: mistakes are counted. */
struct item {
	struct store_request request;
	bool done;
	uint32_t key[2], value[8];
	struct envelope_buffer buffer;
	struct worker *worker;
	bool foreign;
};

static void item_on_read(struct store_request *request)
{
	struct item *item = request->context;
	struct envelope_view view;

	item->done = true;
	if (request->status == RSHM_MISS && item->foreign)
		return;
	if (request->status != RSHM_OK ||
	    envelope_open(request->result, request->result_len, item->key, sizeof item->key, &view) != RSHM_OK ||
	    view.head.plain_size != sizeof item->value) {
		item->worker->mistakes++;
		return;
	}
	item->worker->foreign_hits += item->foreign;
	if (!item->foreign)
		item->worker->mistakes += memcmp(view.payload, item->value, sizeof item->value) != 0;
}

static void item_on_done(struct store_request *request)
{
	struct item *item = request->context;

	item->done = true;
	item->worker->mistakes += request->status != RSHM_OK;
}

static void item_start(struct item *item, struct store *store, enum store_op op, store_done_fn *done)
{
	item->done = false;
	item->request = (struct store_request){
		.op = op,
		.name = {.tenant = "default",
			 .tenant_number = 1,
			 .shards = 1,
			 .generation = 1,
			 .space = 'c',
			 .key = item->key,
			 .key_len = sizeof item->key},
		.envelope = item->buffer.bytes,
		.envelope_len = item->buffer.length,
		.deadline_ms = clock_monotonic_ms() + 60000,
		.done = done,
		.context = item,
	};
	store_submit(store, &item->request);
}

static void wait_all(struct item items[WIDTH], uv_loop_t *loop)
{
	for (int i = 0; i < WIDTH; i++)
		while (!items[i].done)
			uv_run(loop, UV_RUN_ONCE);
}

static void worker_round(struct worker *worker, struct store *store, uv_loop_t *loop, uint32_t round)
{
	struct item items[WIDTH];

	memset(items, 0, sizeof items);
	for (uint32_t i = 0; i < WIDTH; i++) {
		struct envelope_input input = {
			.key = items[i].key, .key_len = 8, .value = items[i].value, .value_len = 32};

		items[i].worker = worker;
		items[i].key[0] = worker->number;
		items[i].key[1] = (round * WIDTH + i) % 200;
		for (int j = 0; j < 8; j++)
			items[i].value[j] = round * 1000 + i;
		worker->mistakes += envelope_encode(&input, NULL, &items[i].buffer) != RSHM_OK;
		item_start(&items[i], store, STORE_PUT, item_on_done);
	}
	wait_all(items, loop);
	for (uint32_t i = 0; i < WIDTH; i++)
		item_start(&items[i], store, STORE_GET, item_on_read);
	wait_all(items, loop);
	for (uint32_t i = 0; i < WIDTH; i++) {
		envelope_buffer_fini(&items[i].buffer);
		items[i].key[0] = !worker->number;
		items[i].foreign = true;
		item_start(&items[i], store, STORE_GET, item_on_read);
	}
	wait_all(items, loop);
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
	for (uint32_t round = 0; round < ROUNDS; round++)
		worker_round(worker, store, &loop, round);
	store_close(store, fixture_on_closed, &closed);
	while (!closed)
		uv_run(&loop, UV_RUN_ONCE);
	worker->mistakes += uv_loop_close(&loop) != 0;
	return NULL;
}

static void two_workers_write_and_read_side_by_side(void **state)
{
	struct worker workers[2] = {{.number = 0}, {.number = 1}};
	pthread_t threads[2];
	uint64_t commits, writes;
	struct fixture f;

	(void)state;
	fixture_init(&f);
	f.config.expire_interval_ms = 5;
	f.config.sync = EMBEDDED_SYNC_INTERVAL;
	f.config.sync_interval_ms = 10;
	fixture_open(&f);
	for (int i = 0; i < 2; i++) {
		workers[i].env = f.env;
		assert_int_equal(pthread_create(&threads[i], NULL, worker_run, &workers[i]), 0);
	}
	for (int i = 0; i < 100; i++) {
		uint32_t number;
		char name[16];

		snprintf(name, sizeof name, "tenant-%d", i);
		assert_int_equal(embedded_env_tenant_number(f.env, name, &number), RSHM_OK);
		assert_int_equal(number, i + 1);
		(void)status_of(f.store);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(workers[0].mistakes, 0);
	assert_int_equal(workers[1].mistakes, 0);
	assert_true(workers[0].foreign_hits > 0 && workers[1].foreign_hits > 0);
	assert_int_equal(status_of(f.store).entries, 400);
	embedded_env_commits(f.env, &commits, &writes);
	assert_int_equal(writes, 2 * ROUNDS * WIDTH);
	assert_true(commits < writes / 2);
	print_message("%lu writes in %lu commits\n", (unsigned long)writes, (unsigned long)commits);
	fixture_close(&f);
	fixture_fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_workers_write_and_read_side_by_side),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
