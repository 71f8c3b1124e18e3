/*
 * acceptance_faults_test.c - where the original's code did not do what its README promised, the opposite of each: what a
 * cache on one host says it does, it does. Each case names the promise.
 *
 * Builds without compression are built and tested by `make COMPRESSION=0`; the last case holds in either.
 */
#include <pthread.h>

#include <hiredis/hiredis.h>

#include "tests/e2e/acceptance.h"

#define KEY_OF(key) "riptide:v1:{default.0}:1:c:" key
#define PATIENCE_MS 10000

#if defined(RIPTIDE_COMPRESSION) && !RIPTIDE_COMPRESSION
#define COMPRESSES false
#else
#define COMPRESSES true
#endif

/* An integer reply of the server itself; -1: none. `command` has words without blanks, as of printf. */
__attribute__((format(printf, 2, 3))) static long long ask_server(const struct fixture *f, const char *command, ...)
{
	redisContext *redis = redisConnectUnix(f->server.unix_path);
	redisReply *reply = NULL;
	long long number = -1;
	va_list arguments;

	va_start(arguments, command);
	if (redis && !redis->err)
		reply = redisvCommand(redis, command, arguments);
	va_end(arguments);
	if (reply && reply->type == REDIS_REPLY_INTEGER)
		number = reply->integer;
	if (reply)
		freeReplyObject(reply);
	if (redis)
		redisFree(redis);
	return number;
}

/* ---- 1, 2: compression ---------------------------------------------------------------------------------------- */

static void what_compresses_is_stored_compressed_and_read_back_whole(void **state)
{
	struct fixture *f = both_fixture(state);
	char text[10000];

	if (!COMPRESSES)
		skip();
	memset(text, 'x', sizeof(text));
	assert_int_equal(set(f->handle, "pressed", text, sizeof(text)), RIPTIDE_OK);
	if (f->redis)
		assert_in_range(ask_server(f, "STRLEN %s", KEY_OF("pressed")), 80, 600);
	assert_int_equal(has(f->handle, "pressed", text, sizeof(text)), RIPTIDE_OK);
	forget_hot_copies(f);
	assert_int_equal(has(f->handle, "pressed", text, sizeof(text)), RIPTIDE_OK);
}

static void the_compression_ratio_is_measured(void **state)
{
	struct fixture *f = both_fixture(state);
	unsigned char bytes[10000];
	double ratio;

	if (!COMPRESSES)
		skip();
	fill_random(bytes, sizeof(bytes), 11);
	assert_int_equal(set(f->handle, "random", bytes, sizeof(bytes)), RIPTIDE_OK);
	ratio = stats_of(f->handle).avg_compression_ratio;
	assert_true(ratio > 0.999 && ratio < 1.001);
	memset(bytes, 'x', sizeof(bytes));
	assert_int_equal(set(f->handle, "same", bytes, sizeof(bytes)), RIPTIDE_OK);
	ratio = stats_of(f->handle).avg_compression_ratio;
	assert_true(ratio > 0.49 && ratio < 0.55);
}

/* ---- 3: eviction ---------------------------------------------------------------------------------------------- */

#define PIECE 4000u
#define PIECES 600 /* more than twice what a tenant may have */

static int set_piece(riptide *handle, int number, uint64_t ttl_ms)
{
	struct riptide_set_options options = {.size = sizeof(options), .ttl_ms = ttl_ms};
	unsigned char bytes[PIECE];

	fill_random(bytes, sizeof(bytes), (uint64_t)number + 1);
	return riptide_set(handle, &number, sizeof(number), bytes, sizeof(bytes), &options, NULL);
}

static int has_piece(riptide *handle, int number)
{
	unsigned char bytes[PIECE], got[PIECE];
	size_t length = 0;
	int status = riptide_get_into(handle, &number, sizeof(number), got, sizeof(got), &length, NULL);

	fill_random(bytes, sizeof(bytes), (uint64_t)number + 1);
	if (status != RIPTIDE_OK)
		return status;
	return length == sizeof(bytes) && memcmp(got, bytes, sizeof(got)) == 0 ? RIPTIDE_OK : E2E_WRONG;
}

/*
 * Fills a tenant far beyond its memory. One entry is read all the while and lives longest, so that every policy but random
 * keeps it.
 */
static void overfill(struct fixture *f, const char *tenant)
{
	struct riptide_info info = {.flags = 0};
	struct riptide_stats stats;
	riptide *handle;

	assert_int_equal(e2e_open(&f->agent, tenant, 5000, &handle), RIPTIDE_OK);
	assert_int_equal(set_for(handle, "favourite", "kept", 3600000), RIPTIDE_OK);
	for (int i = 0; i < PIECES; i++) {
		assert_int_equal(set_piece(handle, i, 60000), RIPTIDE_OK);
		for (int k = 0; k < 3; k++)
			assert_int_equal(e2e_check(handle, "favourite", "kept", &info), RIPTIDE_OK);
		if (i % 20 == 19)
			e2e_pause_ms(15); /* what was read is noted in passing */
		stats = stats_of(handle);
		assert_true(stats.memory_usage_bytes <= stats.memory_limit_bytes);
		assert_true(stats.memory_limit_bytes <= MIB + MIB / 12);
	}
	assert_true(stats.evictions >= PIECES / 2);
	if (strcmp(tenant, "random") != 0)
		assert_true(info.flags & RIPTIDE_HOT);
	/* What left memory is not lost. */
	for (int i = 0; i < PIECES; i++)
		assert_int_equal(has_piece(handle, i), RIPTIDE_OK);
	riptide_close(&handle);
}

static void memory_stays_within_its_limit_by_the_policy_that_was_chosen(void **state)
{
	static const char *const policies[] = {"lru", "lfu", "ttl", "random", "s3fifo"};
	struct fixture *f = both_fixture(state);
	char path[64], name[16];

	for (size_t i = 0; i < COUNT(policies); i++)
		overfill(f, policies[i]);
	for (int i = 0; i < 8; i++) {
		char policy[16];

		snprintf(path, sizeof(path), "tenants.%d.tenant", i);
		e2e_text(&f->agent, path, name, sizeof(name));
		snprintf(path, sizeof(path), "tenants.%d.eviction_policy", i);
		e2e_text(&f->agent, path, policy, sizeof(policy));
		for (size_t k = 0; k < COUNT(policies); k++)
			if (strcmp(name, policies[k]) == 0)
				assert_string_equal(policy, name);
	}
	assert_true(e2e_number(&f->agent, "memory.used_bytes") <= e2e_number(&f->agent, "memory.total_bytes"));
	assert_true(e2e_number(&f->agent, "memory.total_bytes") <= 10 * (int64_t)MIB);
}

/* ---- 4: accesses ---------------------------------------------------------------------------------------------- */

static void five_reads_are_counted_as_five_and_dated(void **state)
{
	struct riptide_description about = {.size = sizeof(about)};
	struct fixture *f = both_fixture(state);
	char *bytes = calloc(1, MIB); /* too large for shared memory: the agent sees every read */

	assert_non_null(bytes);
	assert_int_equal(set(f->handle, "read", bytes, MIB), RIPTIDE_OK);
	assert_int_equal(riptide_describe(f->handle, "read", 4, &about), RIPTIDE_OK);
	assert_int_equal(about.access_count, 0);
	assert_true(about.accessed_ms_ago == RIPTIDE_NEVER);
	for (int i = 0; i < 5; i++)
		assert_int_equal(has(f->handle, "read", bytes, MIB), RIPTIDE_OK);
	assert_int_equal(riptide_describe(f->handle, "read", 4, &about), RIPTIDE_OK);
	assert_int_equal(about.access_count, 5);
	assert_true(about.accessed_ms_ago != RIPTIDE_NEVER);
	free(bytes);
}

/* ---- 5: warming ----------------------------------------------------------------------------------------------- */

static void warming_loads_what_is_not_in_memory_and_counts_only_that(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_item items[12] = {{0}};
	struct riptide_warmed warmed;
	struct riptide_info info;
	char keys[12][16];

	for (int i = 0; i < 12; i++) {
		items[i].key = keys[i];
		items[i].key_length = (size_t)snprintf(keys[i], sizeof(keys[i]), "warm-%d", i);
		if (i < 10)
			assert_int_equal(e2e_put(f->handle, keys[i], "warm"), RIPTIDE_OK);
	}
	forget_hot_copies(f);
	assert_int_equal(stats_of(f->handle).total_keys, 0);
	assert_int_equal(riptide_warm(f->handle, items, 12, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.loaded, 10);
	assert_int_equal(warmed.absent, 2);
	assert_int_equal(warmed.failed, 0);
	assert_int_equal(stats_of(f->handle).total_keys, 10);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(e2e_check(f->handle, keys[i], "warm", &info), RIPTIDE_OK);
		assert_true(info.flags & RIPTIDE_HOT);
	}
}

/* ---- 6: connections ------------------------------------------------------------------------------------------- */

static int setup_pool(void **state)
{
	static const char *const settings[] = {"redis.pool_size=3", "pool.min_size=2", "redis.max_pipeline_size=2",
					       "agent.workers=1"};

	memcpy(acceptance_more + 2, settings, sizeof(settings));
	return both_setup_redis(state);
}

static int teardown_pool(void **state)
{
	memset(acceptance_more + 2, 0, sizeof(acceptance_more) - 2 * sizeof(acceptance_more[0]));
	return both_teardown(state);
}

/* Connections of the agent, as the server sees them. */
static int count_connections(const struct fixture *f)
{
	redisContext *redis = redisConnectUnix(f->server.unix_path);
	redisReply *reply = redisCommand(redis, "CLIENT LIST");
	int count = 0;

	assert_non_null(reply);
	for (const char *at = reply->str; (at = strstr(at, "name=riptided")); at++)
		count++;
	freeReplyObject(reply);
	redisFree(redis);
	return count;
}

struct asker {
	pthread_t thread;
	riptide *handle;
	uint32_t *stop;
	unsigned int asked, failed;
	int last;
};

/* Asks the store, never shared memory. */
static void *ask_ttl(void *context)
{
	struct asker *asker = context;

	while (!__atomic_load_n(asker->stop, __ATOMIC_RELAXED)) {
		uint64_t ttl_ms;
		int status = riptide_ttl(asker->handle, "asked", 5, &ttl_ms);

		asker->asked++;
		if (status != RIPTIDE_OK) {
			asker->failed++;
			asker->last = status;
		}
	}
	return NULL;
}

static void connections_are_pooled_bounded_and_replaced_under_their_users(void **state)
{
	struct fixture *f = both_fixture(state);
	struct asker askers[10];
	uint32_t stop = 0;
	int most = 0;

	assert_int_equal(e2e_put(f->handle, "asked", "v"), RIPTIDE_OK);
	for (size_t i = 0; i < COUNT(askers); i++) {
		askers[i] = (struct asker){.handle = f->handle, .stop = &stop};
		assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_ttl, &askers[i]), 0);
	}
	for (int round = 0; round < 30; round++) {
		int now = count_connections(f);

		most = now > most ? now : most;
		if (round % 5 == 4)
			assert_true(ask_server(f, "CLIENT KILL TYPE normal") > 0);
		e2e_pause_ms(50);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (size_t i = 0; i < COUNT(askers); i++)
		pthread_join(askers[i].thread, NULL);
	for (size_t i = 0; i < COUNT(askers); i++) {
		assert_int_equal(askers[i].failed ? askers[i].last : RIPTIDE_OK, RIPTIDE_OK);
		assert_true(askers[i].asked > 0);
	}
	/* Three of the pool, the feed, the writer, and one writer that still answers what it was sent. */
	assert_in_range(most, 2, 6);
}

/* ---- 7: spilling ---------------------------------------------------------------------------------------------- */

#define SPILLED 700
#define SPILLED_BYTES 30000u

static void what_memory_has_no_room_for_goes_to_disk_and_comes_back(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t until_ms = e2e_now_ms() + PATIENCE_MS;
	unsigned char *bytes = malloc(SPILLED_BYTES);

	assert_non_null(bytes);
	for (int i = 0; i < SPILLED; i++) {
		fill_random(bytes, SPILLED_BYTES, (uint64_t)i + 1);
		assert_int_equal(riptide_set(f->handle, &i, sizeof(i), bytes, SPILLED_BYTES, NULL, NULL), RIPTIDE_OK);
	}
	while (stats_of(f->handle).spilled < SPILLED / 4 && e2e_now_ms() < until_ms)
		e2e_pause_ms(20);
	assert_true(stats_of(f->handle).spilled >= SPILLED / 4);
	for (int i = 0; i < SPILLED; i++) {
		struct riptide_value value;

		fill_random(bytes, SPILLED_BYTES, (uint64_t)i + 1);
		assert_int_equal(riptide_get(f->handle, &i, sizeof(i), &value), RIPTIDE_OK);
		assert_int_equal(value.length, SPILLED_BYTES);
		assert_memory_equal(value.data, bytes, SPILLED_BYTES);
		riptide_value_free(&value);
	}
	assert_true(stats_of(f->handle).restored > 0);
	assert_true(stats_of(f->handle).memory_usage_bytes <= 10 * (uint64_t)MIB);
	free(bytes);
}

/* ---- 8: integrity --------------------------------------------------------------------------------------------- */

/* An object of eight members, in another order each time. */
static size_t make_object(int number, char text[400])
{
	size_t length = (size_t)snprintf(text, 400, "{");

	for (int i = 0; i < 8; i++) {
		int member = (i * 5 + number) % 8;

		length += (size_t)snprintf(text + length, 400 - length, "\"key%d\":\"value %d of %d\",", member,
					   member, number);
	}
	text[length - 1] = '}';
	return length;
}

/* By every way there is to read. */
static void read_object(riptide *handle, const char *key, const char *text, size_t length)
{
	struct riptide_item item = {.key = key, .key_length = strlen(key)};
	struct riptide_view view;
	char buffer[400];
	size_t got = 0;

	assert_int_equal(has(handle, key, text, length), RIPTIDE_OK);
	assert_int_equal(riptide_get_into(handle, key, strlen(key), buffer, sizeof(buffer), &got, NULL), RIPTIDE_OK);
	assert_int_equal(got, length);
	assert_memory_equal(buffer, text, length);
	assert_int_equal(riptide_view(handle, key, strlen(key), &view), RIPTIDE_OK);
	assert_int_equal(view.length, length);
	assert_memory_equal(view.data, text, length);
	assert_int_equal(riptide_view_end(handle, &view), RIPTIDE_OK);
	assert_int_equal(riptide_get_batch(handle, &item, 1), RIPTIDE_OK);
	assert_int_equal(item.status, RIPTIDE_OK);
	assert_int_equal(item.result.length, length);
	assert_memory_equal(item.result.data, text, length);
	riptide_batch_free(&item, 1);
}

static void fifty_objects_are_never_called_corrupt_however_they_are_read(void **state)
{
	struct fixture *f = both_fixture(state);
	char key[16], text[400];

	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 50; i++) {
			size_t length = make_object(i, text);

			snprintf(key, sizeof(key), "object-%d", i);
			if (round == 0)
				assert_int_equal(set(f->handle, key, text, length), RIPTIDE_OK);
			read_object(f->handle, key, text, length);
		}
		forget_hot_copies(f);
	}
}

#define EXPIRY_AT 48 /* in the envelope */
#define EXPIRY_BYTES 16

/* One byte of it at a time is another; hot copies are gone, so all comes from the server. */
static void a_changed_byte_in_the_store_is_noticed(void **state)
{
	struct fixture *f = both_fixture(state);
	char text[400];
	size_t length = make_object(1, text);
	long long stored;
	redisContext *redis;
	redisReply *whole;

	assert_int_equal(set(f->handle, "k", text, length), RIPTIDE_OK);
	stored = ask_server(f, "STRLEN %s", KEY_OF("k"));
	assert_true(stored > (long long)length);
	redis = redisConnectUnix(f->server.unix_path);
	whole = redisCommand(redis, "GET %s", KEY_OF("k"));
	assert_int_equal(whole->type, REDIS_REPLY_STRING);
	for (long long place = 0; place < stored; place += 3) {
		struct riptide_value value;
		int status;

		whole->str[place] ^= 0x04;
		freeReplyObject(redisCommand(redis, "SET %s %b", KEY_OF("k"), whole->str, whole->len));
		whole->str[place] ^= 0x04;
		e2e_pause_ms(5); /* coherence.max_age_ms is 1 */
		status = riptide_get(f->handle, "k", 1, &value);
		/* All is covered but the time of expiry, which a touch changes in place. */
		if (place >= EXPIRY_AT && place < EXPIRY_AT + EXPIRY_BYTES) {
			assert_true(status == RIPTIDE_OK || status == RIPTIDE_MISS);
			if (status == RIPTIDE_OK) {
				assert_int_equal(value.length, length);
				assert_memory_equal(value.data, text, length);
				riptide_value_free(&value);
			}
			continue;
		}
		assert_true(status == RIPTIDE_ECORRUPT || status == RIPTIDE_EFORMAT);
	}
	freeReplyObject(redisCommand(redis, "SET %s %b", KEY_OF("k"), whole->str, whole->len));
	assert_int_equal(e2e_await_check(f->handle, "k", "", E2E_WRONG, PATIENCE_MS),
			 E2E_WRONG); /* it is there again */
	freeReplyObject(whole);
	redisFree(redis);
}

static int setup_always_ask(void **state)
{
	acceptance_more[2] = "coherence.max_age_ms=1";
	return both_setup_redis(state);
}

/* ---- 27: write-behind ----------------------------------------------------------------------------------------- */

static void write_behind_is_acknowledged_before_the_store_has_it_and_coalesced(void **state)
{
	uint32_t flags = 0;
	struct riptide_set_options options = {
		.size = sizeof(options), .write_mode = RIPTIDE_WRITE_BEHIND, .ret_flags = &flags};
	struct fixture *f = both_fixture(state);
	char value[16], path[64];

	for (int i = 0; i < 100; i++) {
		snprintf(value, sizeof(value), "%d", i);
		assert_int_equal(riptide_set(f->handle, "behind", 6, value, strlen(value), &options, NULL),
				 RIPTIDE_OK);
		assert_true(flags & RIPTIDE_ACCEPTED);
		assert_int_equal(e2e_check(f->handle, "behind", value, NULL), RIPTIDE_OK);
	}
	assert_true(stats_of(f->handle).journal_records > 0);
	if (f->redis)
		assert_int_equal(ask_server(f, "EXISTS %s", KEY_OF("behind")), 0);
	assert_int_equal(riptide_flush(f->handle), RIPTIDE_OK);
	assert_int_equal(stats_of(f->handle).journal_records, 0);
	if (f->redis)
		assert_int_equal(ask_server(f, "EXISTS %s", KEY_OF("behind")), 1);
	snprintf(path, sizeof(path), "workers.%d.journal.coalesced", (int)e2e_number(&f->agent, "tenants.0.worker"));
	assert_true(e2e_await(&f->agent, path, 90, PATIENCE_MS) >= 90);
	forget_hot_copies(f);
	assert_int_equal(e2e_check(f->handle, "behind", "99", NULL), RIPTIDE_OK);
}

/* ---- 29: builds ----------------------------------------------------------------------------------------------- */

static void a_build_compresses_if_and_only_if_it_was_told_to(void **state)
{
	struct fixture *f = both_fixture(state);
	char text[10000];

	memset(text, 'x', sizeof(text));
	assert_int_equal(set(f->handle, "k", text, sizeof(text)), RIPTIDE_OK);
	assert_int_equal(has(f->handle, "k", text, sizeof(text)), RIPTIDE_OK);
	assert_int_equal(stats_of(f->handle).avg_compression_ratio < 0.5, COMPRESSES);
	if (f->redis)
		assert_int_equal(ask_server(f, "STRLEN %s", KEY_OF("k")) < 10000, COMPRESSES);
	forget_hot_copies(f);
	assert_int_equal(has(f->handle, "k", text, sizeof(text)), RIPTIDE_OK);
}

static int begin(void **state)
{
	acceptance_more[0] = "cache.warming_batch_size=5";
	acceptance_more[1] = "behind.flush_interval_ms=3600000";
	return acceptance_begin(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(what_compresses_is_stored_compressed_and_read_back_whole),
		BOTH_STORES(the_compression_ratio_is_measured),
		BOTH_STORES(memory_stays_within_its_limit_by_the_policy_that_was_chosen),
		BOTH_STORES(five_reads_are_counted_as_five_and_dated),
		BOTH_STORES(warming_loads_what_is_not_in_memory_and_counts_only_that),
		cmocka_unit_test_setup_teardown(connections_are_pooled_bounded_and_replaced_under_their_users,
						setup_pool, teardown_pool),
		cmocka_unit_test_setup_teardown(what_memory_has_no_room_for_goes_to_disk_and_comes_back,
						both_setup_redis, both_teardown),
		BOTH_STORES(fifty_objects_are_never_called_corrupt_however_they_are_read),
		cmocka_unit_test_setup_teardown(a_changed_byte_in_the_store_is_noticed, setup_always_ask,
						teardown_pool),
		BOTH_STORES(write_behind_is_acknowledged_before_the_store_has_it_and_coalesced),
		BOTH_STORES(a_build_compresses_if_and_only_if_it_was_told_to),
	};

	return cmocka_run_group_tests(tests, begin, acceptance_end);
}
