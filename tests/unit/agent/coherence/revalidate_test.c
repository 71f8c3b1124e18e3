/* revalidate_test.c - after a fence, hot entries are what the store says, or gone; a real embedded store answers. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/text.h"
#include "agent/coherence/revalidate.h"
#include "agent/store/embedded/embedded.h"
#include "agent/store/envelope.h"

#define ENTRIES 500u

struct fixture {
	char dir[64], list_path[96], store_path[96];
	struct object_list *objects;
	struct hot_budget budget;
	struct hot_environment environment;
	struct hot_settings settings;
	struct rshm_source sources[RSHM_SOURCES];
	struct embedded_env *env;
	struct store *store;
	struct store_name name;
	uv_loop_t loop;
	struct hot *hot;
	struct revalidation *revalidation;
	uint32_t answers, closed;
	uint64_t max_age_ms;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct embedded_config config = EMBEDDED_CONFIG_DEFAULTS;
	char error[256];
	struct text text;

	if (!f || sodium_init() < 0)
		return -1;
	strcpy(f->dir, "/tmp/riptide-revalidate.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->list_path, sizeof(f->list_path), "%s/objects", f->dir);
	snprintf(f->store_path, sizeof(f->store_path), "%s/store", f->dir);
	config.path = f->store_path;
	config.map_size = 64u << 20;
	text_init(&text, error, sizeof(error));
	if (embedded_env_open(&config, &f->env, &text) < 0)
		return -1;
	uv_loop_init(&f->loop);
	if (embedded_store_create(f->env, &f->loop, &f->store) < 0 ||
	    object_list_open(f->list_path, &f->objects, error, sizeof(error)) < 0)
		return -1;
	f->budget.total = 64u << 20;
	f->environment = (struct hot_environment){
		.objects = f->objects,
		.budget = &f->budget,
		.sources = f->sources,
		.instance_name = "revalidate",
		.initial_bytes = 1u << 20,
		.entry_limit_bytes = 1u << 20,
		.reinsert_percent = 100,
	};
	f->settings = (struct hot_settings){.tenant = "default", .policy = RSHM_POLICY_MISS};
	for (unsigned int i = 0; i < RSHM_SOURCES; i++)
		f->sources[i] = (struct rshm_source){.epoch = 1, .clean = 1, .lease_until_ms = RSHM_NEVER};
	f->name = (struct store_name){
		.tenant = "default", .tenant_number = 1, .shards = 1, .generation = 1, .space = 'c'};
	if (hot_open(&f->environment, &f->settings, &f->loop, NULL, &f->hot) < 0)
		return -1;
	*state = f;
	return revalidation_create(&f->loop, f->hot, f->store, &f->name, 0, &f->sources[0], &f->max_age_ms,
				   &f->revalidation);
}

static void on_closed(void *context)
{
	((struct fixture *)context)->closed++;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	revalidation_close(f->revalidation, on_closed, f);
	while (f->closed < 1)
		uv_run(&f->loop, UV_RUN_ONCE);
	hot_close(f->hot, false, on_closed, f);
	store_close(f->store, on_closed, f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	embedded_env_close(&f->env);
	object_list_close(&f->objects);
	nftw(f->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	if (f->closed != 3 || uv_loop_close(&f->loop) != 0)
		return -1;
	free(f);
	return 0;
}

static void on_answer(struct store_request *request)
{
	struct fixture *f = request->context;

	f->answers++;
	assert_true(request->status >= 0);
}

/* Writes the entry to the store, or deletes it there (version 0). */
static void store_entry(struct fixture *f, const char *key, uint64_t version)
{
	struct envelope_input input = {
		.key = key, .key_len = strlen(key), .value = "v", .value_len = 1, .version = version};
	struct envelope_buffer buffer = {NULL, 0};
	struct store_request request = {
		.op = version ? STORE_PUT : STORE_DELETE,
		.name = f->name,
		.deadline_ms = clock_monotonic_ms() + 20000,
		.done = on_answer,
		.context = f,
	};

	if (version) {
		input.metadata = "";
		assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	}
	request.name.key = key;
	request.name.key_len = strlen(key);
	request.envelope = buffer.bytes;
	request.envelope_len = buffer.length;
	f->answers = 0;
	store_submit(f->store, &request);
	while (f->answers == 0)
		uv_run(&f->loop, UV_RUN_ONCE);
	envelope_buffer_fini(&buffer);
}

static void publish(struct fixture *f, const char *key, uint64_t version)
{
	struct rshm_item item = {
		.key = key,
		.key_len = (uint16_t)strlen(key),
		.metadata = "",
		.value = "v",
		.value_len = 1,
		.version = version,
		.control_a = rshm_control_a(0, 0, rshm_source_epoch(&f->sources[0])),
		.control_b = RSHM_NEVER,
	};

	assert_int_equal(hot_put(f->hot, &item), RSHM_OK);
}

static void run_pass(struct fixture *f)
{
	revalidation_start(f->revalidation);
	for (unsigned int turn = 0; turn < 100000 && !revalidation_is_clean(f->revalidation); turn++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_true(revalidation_is_clean(f->revalidation));
}

static bool is_verified(struct fixture *f, const char *key)
{
	struct rshm_item item;

	return hot_find(f->hot, key, strlen(key), &item) && hot_judge(f->hot, &item) == RSHM_VERIFIED;
}

static void entries_are_confirmed_or_removed_as_the_store_says(void **state)
{
	struct fixture *f = *state;
	struct revalidation_figures figures;
	char key[32];

	for (unsigned int i = 0; i < ENTRIES; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		store_entry(f, key, 100 + i);
		publish(f, key, 100 + i);
	}
	for (unsigned int i = 0; i < ENTRIES; i += 5) {
		snprintf(key, sizeof(key), "key%u", i);
		store_entry(f, key, i % 2 ? 0 : 9000 + i); /* gone, or another version */
	}
	rshm_source_fence(&f->sources[0], clock_monotonic_ms());
	assert_false(is_verified(f, "key1"));
	run_pass(f);
	for (unsigned int i = 0; i < ENTRIES; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		assert_int_equal(is_verified(f, key), i % 5 != 0);
	}
	revalidation_figures(f->revalidation, &figures);
	assert_int_equal(figures.removed, ENTRIES / 5);
	assert_int_equal(figures.confirmed, ENTRIES - ENTRIES / 5);
}

static void second_fence_during_a_pass_leaves_nothing_verified_by_the_first(void **state)
{
	struct fixture *f = *state;
	char key[32];

	for (unsigned int i = 0; i < ENTRIES; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		store_entry(f, key, 100 + i);
		publish(f, key, 100 + i);
	}
	rshm_source_fence(&f->sources[0], clock_monotonic_ms());
	revalidation_start(f->revalidation);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	rshm_source_fence(&f->sources[0], clock_monotonic_ms());
	for (unsigned int i = 0; i < ENTRIES; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		assert_false(is_verified(f, key));
	}
	run_pass(f);
	assert_true(is_verified(f, "key0"));
}

static void entry_written_during_the_pass_stays_as_it_is(void **state)
{
	struct fixture *f = *state;

	store_entry(f, "key", 1);
	publish(f, "key", 1);
	rshm_source_fence(&f->sources[0], clock_monotonic_ms());
	store_entry(f, "key", 2);
	publish(f, "key", 2);
	run_pass(f);
	assert_true(is_verified(f, "key"));
}

static void end_in_the_middle_of_a_pass_is_clean(void **state)
{
	struct fixture *f = *state;
	char key[32];

	for (unsigned int i = 0; i < ENTRIES; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		publish(f, key, 1);
	}
	rshm_source_fence(&f->sources[0], clock_monotonic_ms());
	revalidation_start(f->revalidation);
	/* teardown closes it now */
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(entries_are_confirmed_or_removed_as_the_store_says),
		CASE(second_fence_during_a_pass_leaves_nothing_verified_by_the_first),
		CASE(entry_written_during_the_pass_stays_as_it_is),
		CASE(end_in_the_middle_of_a_pass_is_clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
