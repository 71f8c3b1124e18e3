/*
 * A long random sequence of everything at once, beside a model of what must be so: an answer is a miss, or exactly what the
 * model holds at the moment of the answer. A small tier with a small queue, so that eviction, refusal, discarding and
 * reopening happen all the time.
 */
#include "tests/unit/agent/store/spill/fixture.h"

#define KEYS 3000
#define IN_FLIGHT 64
#define STEPS 50000

static uint64_t model[KEYS]; /* version that may be there, 0 = none */

struct slot {
	struct spill_request request;
	uint64_t key;
	bool busy;
};

static struct slot slots[IN_FLIGHT];
static uint64_t hits, misses, kept;

static void slot_on_done(struct spill_request *request)
{
	struct slot *slot = request->context;
	static unsigned char expected[400000];

	slot->busy = false;
	if (request->status == RSHM_MISS) {
		misses++;
		return;
	}
	assert_int_equal(request->status, RSHM_OK);
	assert_int_equal(request->version, model[slot->key]);
	assert_int_equal(request->epoch, request->version + 7);
	assert_true(request->result_len <= sizeof expected);
	value_fill(expected, request->result_len, slot->key, request->version);
	assert_memory_equal(request->result, expected, request->result_len);
	hits++;
	kept += request->kept;
}

/* Half of the keys belong to tenant 1, half to 2; each in generations 1 to 3. */
static struct store_name model_name(const uint64_t *key)
{
	return name_in(1 + *key % 2, 1 + *key % 3, key, sizeof *key);
}

static size_t random_length(void)
{
	switch (rand() % 20) {
	case 0:
		return (size_t)rand() % 300000;
	case 1:
		return 0;
	default:
		return (size_t)rand() % 20000;
	}
}

static void model_put(struct fixture *f, uint64_t key, uint64_t version)
{
	struct store_name name = model_name(&key);
	size_t length = random_length();
	unsigned char *bytes = value_make(length, key, version);
	int status = spill_put(f->spill, &name, bytes, length, version, 0, 3, version + 7);

	assert_true(status == RSHM_OK || status == RSHM_E_AGAIN);
	model[key] = status == RSHM_OK ? version : 0;
	free(bytes);
}

static void model_get(struct fixture *f, uint64_t key)
{
	struct slot *slot = &slots[rand() % IN_FLIGHT];

	if (slot->busy)
		return;
	slot->key = key;
	slot->busy = true;
	slot->request.name = model_name(&slot->key);
	slot->request.deadline_ms = clock_monotonic_ms() + (rand() % 50 == 0 ? 5 : 30000);
	slot->request.done = slot_on_done;
	slot->request.context = slot;
	spill_get(f->spill, &slot->request);
}

static void model_remove(struct fixture *f, uint64_t key)
{
	struct store_name name = model_name(&key);

	spill_remove(f->spill, &name);
	model[key] = 0;
}

static void model_range(struct fixture *f, uint32_t tenant, uint64_t generation_max)
{
	spill_remove_generations(f->spill, tenant, generation_max);
	for (uint64_t key = 0; key < KEYS; key++)
		if (1 + key % 2 == tenant && 1 + key % 3 <= generation_max)
			model[key] = 0;
}

static void model_step(struct fixture *f, uint64_t version)
{
	/* A few keys are hot. */
	uint64_t key = (uint64_t)rand() % (rand() % 2 ? 200 : KEYS);
	int what = rand() % 1000;

	if (what < 350)
		model_put(f, key, version);
	else if (what < 700)
		model_get(f, key);
	else if (what < 800)
		model_remove(f, key);
	else if (what < 801)
		model_range(f, 1 + (uint32_t)rand() % 2, 1 + (uint64_t)rand() % 3);
	else if (what == 801 && rand() % 4 == 0) {
		spill_remove_all(f->spill);
		memset(model, 0, sizeof model);
	} else if (what < 900)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	else if (what < 930)
		settle(f);
}

static void run(struct fixture *f, bool keep)
{
	struct spill_figures now;
	uint64_t evicted = 0, refused = 0, discards = 0, corrupt = 0;

	f->config.keep = keep;
	f->config.limits.bytes = 8 * MiB;
	f->config.limits.queue_max = 40;
	f->config.limits.queue_bytes = 1 << 20;
	f->config.segment_bytes = 1 << 20;
	hits = misses = kept = 0;
	memset(model, 0, sizeof model);
	srand(keep ? 17 : 4);
	for (uint64_t version = 1; version <= STEPS; version++) {
		if (f->spill == NULL)
			fixture_open(f);
		model_step(f, version);
		if (version % 5000 != 0)
			continue;
		now = figures(f);
		assert_true(now.bytes_used <= now.bytes_limit);
		fixture_close(f);
		if (!keep)
			memset(model, 0, sizeof model);
		evicted += now.evicted;
		refused += now.refused;
		discards += now.discards;
		corrupt += now.corrupt;
	}
	for (int i = 0; i < IN_FLIGHT; i++)
		assert_false(slots[i].busy);
	print_message("%d hits (%d kept from the run before), %d misses, %d evicted, %d refused, %d discards\n",
		      (int)hits, (int)kept, (int)misses, (int)evicted, (int)refused, (int)discards);
	assert_true(hits > STEPS / 50 && evicted > 0 && refused > 0);
	assert_int_equal(corrupt, 0);
	assert_true(keep ? kept > 0 : kept == 0);
}

static void every_answer_is_the_newest_or_a_miss(void **state)
{
	run(*state, false);
}

static void every_answer_is_the_newest_or_a_miss_over_clean_restarts(void **state)
{
	run(*state, true);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_answer_is_the_newest_or_a_miss),
		T(every_answer_is_the_newest_or_a_miss_over_clean_restarts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
