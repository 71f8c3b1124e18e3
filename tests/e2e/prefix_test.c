/*
 * prefix_test.c - invalidating a prefix removes it from the ring a slice at a time, while others write and the ring grows;
 * when the call returns, no reader gets an entry of the prefix that was there when it began.
 */
#include <pthread.h>

#include <hiredis/hiredis.h>

#include "tests/e2e/both_stores.h"

#define ENTRIES 20000
#define BATCH 200
#define KEY_BYTES 24

/* Nobody tells the agent that a key is gone: copies stay whose original is not there. */
static const char *const *both_settings(void)
{
	static const char *const settings[] = {"cache.segment_initial_bytes=1M", "coherence.mode=ttl",
					       "coherence.max_age_ms=600000", NULL};

	return settings;
}

static void put_some(riptide *handle, const char *prefix, int first)
{
	struct riptide_item items[BATCH] = {{.key = NULL}};
	char keys[BATCH][KEY_BYTES];

	for (int i = 0; i < BATCH; i++) {
		snprintf(keys[i], KEY_BYTES, "%s%d", prefix, first + i);
		items[i].key = keys[i];
		items[i].key_length = strlen(keys[i]);
		items[i].value = "value";
		items[i].value_length = 5;
	}
	assert_int_equal(riptide_set_batch(handle, items, BATCH), RIPTIDE_OK);
}

static int count_found(riptide *handle, const char *prefix, int entries)
{
	struct riptide_value value;
	int found = 0;
	char key[KEY_BYTES];

	for (int i = 0; i < entries; i++) {
		snprintf(key, sizeof(key), "%s%d", prefix, i);
		if (riptide_get(handle, key, strlen(key), &value) != RIPTIDE_OK)
			continue;
		found++;
		riptide_value_free(&value);
	}
	return found;
}

struct writer {
	struct fixture *f;
	int stop;
	int written;
};

/* Writes, reads and invalidates, what has nothing to do with the prefix. */
static void *write_others(void *context)
{
	struct writer *w = context;
	uint64_t removed;
	riptide *handle;

	if (e2e_open(&w->f->agent, NULL, 5000, &handle) != RIPTIDE_OK)
		return NULL;
	while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
		put_some(handle, "w-", w->written);
		w->written += BATCH;
		if (w->written % (BATCH * 50) == 0)
			assert_int_equal(riptide_invalidate_prefix(handle, "v-", 2, &removed), RIPTIDE_OK);
	}
	riptide_close(&handle);
	return NULL;
}

static void forget_all(const struct fixture *f)
{
	redisContext *redis = redisConnectUnix(f->server.unix_path);
	redisReply *reply = redisCommand(redis, "FLUSHALL");

	assert_non_null(reply);
	assert_int_equal(reply->type, REDIS_REPLY_STATUS);
	freeReplyObject(reply);
	redisFree(redis);
}

static void copies_without_an_original_go_from_the_ring_while_others_write(void **state)
{
	struct fixture *f = both_fixture(state);
	struct writer writer = {.f = f};
	pthread_t thread;
	uint64_t removed = 1;

	for (int i = 0; i < ENTRIES; i += BATCH)
		put_some(f->handle, "k-", i);
	forget_all(f);
	/* All but what the growing ring has lost. */
	assert_true(count_found(f->handle, "k-", ENTRIES) > ENTRIES / 10 * 9);
	assert_int_equal(pthread_create(&thread, NULL, write_others, &writer), 0);
	e2e_pause_ms(50);
	assert_int_equal(riptide_invalidate_prefix(f->handle, "k-", 2, &removed), RIPTIDE_OK);
	__atomic_store_n(&writer.stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	assert_int_equal(removed, 0);
	assert_int_equal(count_found(f->handle, "k-", ENTRIES), 0);
	assert_true(writer.written > 0);
	assert_int_equal(count_found(f->handle, "w-", writer.written), writer.written);
}

/* What is begun is ended, whole, before the ring is left to the next agent. */
static void *invalidate(void *context)
{
	struct fixture *f = context;

	return (void *)(intptr_t)riptide_invalidate_prefix(f->handle, "k-", 2, NULL);
}

static void an_agent_that_stops_while_it_walks_the_ring_ends_well(void **state)
{
	struct fixture *f = both_fixture(state);
	void *status = (void *)1;
	pthread_t thread;

	for (int i = 0; i < ENTRIES; i += BATCH)
		put_some(f->handle, "k-", i);
	if (f->redis)
		forget_all(f);
	assert_int_equal(pthread_create(&thread, NULL, invalidate, f), 0);
	e2e_pause_ms(2);
	assert_true(e2e_stop(&f->agent));
	pthread_join(thread, &status);
	assert_true((int)(intptr_t)status <= RIPTIDE_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(copies_without_an_original_go_from_the_ring_while_others_write,
						both_setup_redis, both_teardown),
		BOTH_STORES(an_agent_that_stops_while_it_walks_the_ring_ends_well),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
