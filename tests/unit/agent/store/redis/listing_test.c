/*
 * Pages of keys from a real server.
 */
#include "tests/unit/agent/store/redis/fixture.h"

#include "agent/store/keys.h"

#define MANY 3000u

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

static struct store_name namespace_of(const char *tenant, uint32_t shards, uint64_t generation, char space)
{
	return (struct store_name){
		.tenant = tenant, .tenant_number = 1, .shards = shards, .generation = generation, .space = space};
}

static void submit(struct fixture *f, struct call *call, struct store_name name, const void *key, size_t key_len)
{
	call->fixture = f;
	call->request.name = name;
	call->request.name.key = key;
	call->request.name.key_len = key_len;
	if (call->request.deadline_ms == 0)
		call->request.deadline_ms = clock_monotonic_ms() + 60000;
	call->request.done = call_on_done;
	call->request.context = call;
	f->outstanding++;
	store_submit(f->store, &call->request);
}

/* Stores an envelope under a key. */
static void put_flagged(struct fixture *f, struct store_name name, const void *key, size_t key_len, uint16_t flags,
			uint16_t tags)
{
	static const uint64_t epochs[ENVELOPE_TAGS_MAX];
	struct envelope_input input = {.key = key,
				       .key_len = key_len,
				       .value = "value",
				       .value_len = 5,
				       .version = 1,
				       .writer_id = 1,
				       .flags = flags,
				       .tag_count = tags,
				       .tag_epochs = epochs};
	struct call call = {.request.op = STORE_PUT};
	struct envelope_buffer envelope;

	assert_int_equal(envelope_encode(&input, NULL, &envelope), RSHM_OK);
	call.request.envelope = envelope.bytes;
	call.request.envelope_len = envelope.length;
	submit(f, &call, name, key, key_len);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	call_fini(&call);
	envelope_buffer_fini(&envelope);
}

static void put(struct fixture *f, struct store_name name, const void *key, size_t key_len)
{
	put_flagged(f, name, key, key_len, 0, 0);
}

/* The keys of a whole listing, each once. */
struct listed {
	struct listed_key {
		size_t length;
		unsigned char *bytes;
	} * keys;
	uint32_t count, pages;
};

static int compare_keys(const void *a, const void *b)
{
	const struct listed_key *x = a, *y = b;
	int order = memcmp(x->bytes, y->bytes, x->length < y->length ? x->length : y->length);

	return order != 0 ? order : (x->length > y->length) - (x->length < y->length);
}

static void take_page(struct listed *listed, const unsigned char *bytes, size_t length)
{
	for (size_t at = 0; at < length;) {
		struct listed_key key;
		uint16_t key_len;

		assert_true(length - at >= sizeof(key_len));
		memcpy(&key_len, bytes + at, sizeof(key_len));
		at += sizeof(key_len);
		assert_true(key_len > 0 && length - at >= key_len);
		key.length = key_len;
		key.bytes = malloc(key_len);
		memcpy(key.bytes, bytes + at, key_len);
		at += key_len;
		listed->keys = realloc(listed->keys, (listed->count + 1) * sizeof(key));
		listed->keys[listed->count++] = key;
	}
}

static struct listed list(struct fixture *f, struct store_name name, const void *prefix, size_t prefix_len,
			  uint32_t page_keys)
{
	struct listed listed = {.count = 0};
	struct call call = {.request = {.op = STORE_LIST, .page_keys = page_keys}};
	uint32_t kept = 0;

	do {
		submit(f, &call, name, prefix, prefix_len);
		assert_int_equal(call_wait(f, &call), RSHM_OK);
		if (call.bytes != NULL)
			take_page(&listed, call.bytes, call.length);
		free(call.bytes);
		call.bytes = NULL;
		call.answers = 0;
		listed.pages++;
		assert_true(listed.pages < 100000);
	} while (call.request.cursor_len > 0);
	if (listed.count > 0)
		qsort(listed.keys, listed.count, sizeof(*listed.keys), compare_keys);
	for (uint32_t i = 0; i < listed.count; i++) {
		if (kept > 0 && compare_keys(&listed.keys[kept - 1], &listed.keys[i]) == 0)
			free(listed.keys[i].bytes);
		else
			listed.keys[kept++] = listed.keys[i];
	}
	listed.count = kept;
	return listed;
}

static void listed_fini(struct listed *listed)
{
	for (uint32_t i = 0; i < listed->count; i++)
		free(listed->keys[i].bytes);
	free(listed->keys);
}

static bool has(const struct listed *listed, const void *bytes, size_t length)
{
	for (uint32_t i = 0; i < listed->count; i++) {
		if (listed->keys[i].length == length && memcmp(listed->keys[i].bytes, bytes, length) == 0)
			return true;
	}
	return false;
}

/* What a listing by this prefix has: these texts, in the order of their bytes, and nothing else. */
static void assert_lists(struct fixture *f, const char *prefix, const char *const *keys)
{
	struct listed listed = list(f, namespace_of("t1", 1, 1, 'c'), prefix, strlen(prefix), 1000);
	uint32_t count = 0;

	for (; keys[count] != NULL; count++) {
		if (!has(&listed, keys[count], strlen(keys[count])))
			fail_msg("prefix %s: no %s", prefix, keys[count]);
	}
	if (listed.count != count)
		fail_msg("prefix %s: %u keys", prefix, listed.count);
	listed_fini(&listed);
}

#define LISTS(prefix, ...) assert_lists(f, prefix, (const char *const[]){__VA_ARGS__})

static void empty_namespace_is_one_empty_listing(void **state)
{
	struct fixture *f = *state;
	struct listed listed = list(f, namespace_of("t1", 1, 1, 'c'), NULL, 0, 0);

	assert_int_equal(listed.count, 0);
	assert_int_equal(listed.pages, 1);
}

static void prefix_means_its_bytes_and_no_pattern(void **state)
{
	static const char *const keys[] = {"a",  "ab", "a*",  "a*b", "a?",     "a?c", "a[b]",  "a[b]c", "a]",
					   "a^", "a-", "a\\", "a\\", "a\\\\d", "b",   "*",     "?x",    "[a-z]",
					   "^",  "\\", "0",   "f0",  "{t1.0}", "{x",  "a:b:c", "#",     ":"};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		put(f, namespace_of("t1", 1, 1, 'c'), keys[i], strlen(keys[i]));
	LISTS("a", "a", "ab", "a*", "a*b", "a?", "a?c", "a[b]", "a[b]c", "a]", "a^", "a-", "a\\", "a\\\\d", "a:b:c",
	      NULL);
	LISTS("a*", "a*", "a*b", NULL);
	LISTS("a?", "a?", "a?c", NULL);
	LISTS("a[b]", "a[b]", "a[b]c", NULL);
	LISTS("a[", "a[b]", "a[b]c", NULL);
	LISTS("a]", "a]", NULL);
	LISTS("a^", "a^", NULL);
	LISTS("a-", "a-", NULL);
	LISTS("a\\", "a\\", "a\\\\d", NULL);
	LISTS("a\\\\", "a\\\\d", NULL);
	LISTS("*", "*", NULL);
	LISTS("?", "?x", NULL);
	LISTS("[", "[a-z]", NULL);
	LISTS("^", "^", NULL);
	LISTS("\\", "\\", NULL);
	LISTS("f", "f0", NULL);
	LISTS("0", "0", NULL);
	LISTS("{", "{t1.0}", "{x", NULL);
	LISTS("#", "#", NULL);
	LISTS(":", ":", NULL);
	LISTS("c", NULL);
	LISTS("abc", NULL);
}

static void keys_of_any_bytes_are_listed_by_any_bytes(void **state)
{
	struct fixture *f = *state;
	struct store_name name = namespace_of("t1", 1, 1, 'c');
	struct listed listed;

	for (unsigned first = 0; first < 256; first++) {
		unsigned char key[2] = {(unsigned char)first, 0};

		put(f, name, key, 2);
		key[1] = '\n';
		put(f, name, key, 2);
	}
	for (unsigned first = 0; first < 256; first++) {
		unsigned char key[2] = {(unsigned char)first, '\n'};

		listed = list(f, name, key, 1, 1000);
		assert_int_equal(listed.count, 2);
		assert_true(has(&listed, key, 2));
		listed_fini(&listed);
		listed = list(f, name, key, 2, 1000);
		assert_int_equal(listed.count, 1);
		assert_true(has(&listed, key, 2));
		listed_fini(&listed);
	}
	listed = list(f, name, NULL, 0, 100);
	assert_int_equal(listed.count, 512);
	listed_fini(&listed);
}

static void long_keys_are_listed_by_what_their_envelopes_say(void **state)
{
	static const size_t lengths[] = {399, 400, 401, 402, 1024, 1025, 1500, 4096, 65535};
	const size_t count = sizeof(lengths) / sizeof(lengths[0]);
	struct store_name name = namespace_of("t1", 1, 1, 'c');
	unsigned char *key = make_noise(65536);
	struct fixture *f = *state;
	struct listed listed;

	for (size_t i = 0; i < count; i++)
		put_flagged(f, name, key, lengths[i], 0, i % 2 ? ENVELOPE_TAGS_MAX : 0);
	/* Others that are as long, and begin with another byte. */
	key[0] ^= 1;
	for (size_t i = 0; i < count; i++)
		put(f, name, key, lengths[i]);
	key[0] ^= 1;
	for (size_t prefix_len = 0; prefix_len < 65536; prefix_len = prefix_len * 3 + 1) {
		uint32_t expected = 0;

		listed = list(f, name, key, prefix_len, 1000);
		for (size_t i = 0; i < count; i++) {
			assert_int_equal(has(&listed, key, lengths[i]), prefix_len <= lengths[i]);
			expected += prefix_len <= lengths[i];
		}
		assert_int_equal(listed.count, prefix_len == 0 ? 2 * expected : expected);
		listed_fini(&listed);
	}
	listed = list(f, name, key, 65535, 1000);
	assert_int_equal(listed.count, 1);
	listed_fini(&listed);
	free(key);
}

static void three_thousand_keys_come_in_pages(void **state)
{
	struct fixture *f = *state;
	struct store_name name = namespace_of("t1", 1, 1, 'c');
	struct call *calls = calloc(MANY, sizeof(*calls));
	char(*keys)[512] = calloc(MANY, sizeof(*keys));
	struct envelope_buffer *envelopes = calloc(MANY, sizeof(*envelopes));
	struct listed listed;

	for (uint32_t i = 0; i < MANY; i++) {
		/* Each third one is so long that it is hashed. */
		int length = snprintf(keys[i], sizeof(keys[i]), "%s:%u:%0*d", i % 2 ? "odd" : "even", i,
				      i % 3 == 0 ? 450 : 1, 0);
		struct envelope_input input = {.key = keys[i], .key_len = (size_t)length, .version = 1};

		assert_int_equal(envelope_encode(&input, NULL, &envelopes[i]), RSHM_OK);
		calls[i].request.op = STORE_PUT;
		calls[i].request.envelope = envelopes[i].bytes;
		calls[i].request.envelope_len = envelopes[i].length;
		submit(f, &calls[i], name, keys[i], (size_t)length);
	}
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(call_wait(f, &calls[i]), RSHM_OK);
		envelope_buffer_fini(&envelopes[i]);
	}
	listed = list(f, name, NULL, 0, 100);
	assert_int_equal(listed.count, MANY);
	assert_in_range(listed.pages, MANY / 200, MANY / 100 + 1);
	for (uint32_t i = 0; i < MANY; i++)
		assert_true(has(&listed, keys[i], strlen(keys[i])));
	listed_fini(&listed);
	listed = list(f, name, "odd:", 4, 500);
	assert_int_equal(listed.count, MANY / 2);
	assert_in_range(listed.pages, 2, 7);
	for (uint32_t i = 1; i < MANY; i += 2)
		assert_true(has(&listed, keys[i], strlen(keys[i])));
	listed_fini(&listed);
	free(calls);
	free(keys);
	free(envelopes);
}

static void who_is_there_throughout_is_listed_while_others_come_and_go(void **state)
{
	struct fixture *f = *state;
	struct store_name name = namespace_of("t1", 1, 1, 'c');
	struct call call = {.request = {.op = STORE_LIST, .page_keys = 50}};
	struct listed listed = {.count = 0};
	char key[16];

	for (int i = 0; i < 500; i++)
		put(f, name, key, (size_t)snprintf(key, sizeof(key), "stays%d", i));
	for (int round = 0;; round++) {
		submit(f, &call, name, "stays", 5);
		assert_int_equal(call_wait(f, &call), RSHM_OK);
		if (call.bytes != NULL)
			take_page(&listed, call.bytes, call.length);
		free(call.bytes);
		call.bytes = NULL;
		call.answers = 0;
		if (call.request.cursor_len == 0)
			break;
		/* The server's table grows meanwhile. */
		for (int i = 0; i < 100; i++)
			put(f, name, key, (size_t)snprintf(key, sizeof(key), "new%d.%d", round, i));
		snprintf(key, sizeof(key), "new%d.0", round);
		assert_int_equal(fixture_op(f, STORE_DELETE, key, 0), RSHM_OK);
	}
	for (int i = 0; i < 500; i++)
		assert_true(has(&listed, key, (size_t)snprintf(key, sizeof(key), "stays%d", i)));
	listed_fini(&listed);
}

static void other_namespaces_are_never_listed(void **state)
{
	/* Keys that spell another namespace's, as far as keys may. */
	static const char *const tricks[] = {"}:1:c:mine", "x}:1:c:mine", "0}:1:c:mine", ":1:c:mine"};
	static const char *const tenants[] = {"t1", "t", "t11", "t1-"};
	struct fixture *f = *state;
	char long_key[500];
	struct listed listed;

	memset(long_key, 'm', sizeof(long_key));
	for (size_t tenant = 0; tenant < 4; tenant++) {
		for (int other = 0; other < 4; other++) {
			struct store_name name = namespace_of(tenants[tenant], tenant == 1 ? 5 : 1, other & 1 ? 2 : 1,
							      other & 2 ? 's' : 'c');

			if (tenant == 0 && other == 0)
				continue;
			put(f, name, "mine", 4);
			put(f, name, long_key, sizeof(long_key));
			for (size_t i = 0; i < 4; i++)
				put(f, name, tricks[i], strlen(tricks[i]));
		}
	}
	(void)admin(f, "SET riptide:v1:{t1.0}:1:c:somebody 1");
	(void)admin(f, "SET riptide:v1:{t1.7}:1:c:othershard 1");
	(void)admin(f, "SET riptide:v1:{t1.00}:1:c:nearly 1");
	(void)admin(f, "SET riptide:v1:{t1.0}:1:c#short 1");
	(void)admin(f, "HSET riptide:v1:{t1.0}:1:c#hash a b");
	(void)admin(f, "SET riptide:v1:{t1.0}:1:c 1");
	(void)admin(f, "SET riptide:v1:{t1.0}:1:c: 1");
	(void)admin(f, "SET riptide:v2:{t1.0}:1:c:other 1");
	(void)admin(f, "HSET riptide:v1:{t1.0}:n g 1");
	for (uint32_t shards = 1; shards <= 64; shards += 63) {
		listed = list(f, namespace_of("t1", shards, 1, 'c'), NULL, 0, 1000);
		/* A plain name is believed without a look at what it holds; of these, the one in its shard. */
		assert_int_equal(listed.count, shards == 1 ? 1 : 0);
		listed_fini(&listed);
	}
}

static void all_shards_of_a_tenant_are_listed(void **state)
{
	struct fixture *f = *state;
	struct store_name name = namespace_of("t1", 64, 3, 'c');
	char key[600];
	struct listed listed;

	memset(key, 'k', sizeof(key));
	for (int i = 0; i < 200; i++) {
		int length = snprintf(key, sizeof(key), "k%d", i);

		key[length] = '-';
		put(f, name, key, i % 2 ? 600u : (size_t)length);
	}
	listed = list(f, name, "k", 1, 1000);
	assert_int_equal(listed.count, 200);
	listed_fini(&listed);
	listed = list(f, name, "k1", 2, 1000);
	assert_int_equal(listed.count, 1 + 10 + 100);
	listed_fini(&listed);
}

static void long_key_that_is_deleted_or_damaged_is_left_out(void **state)
{
	struct fixture *f = *state;
	struct store_name name = namespace_of("t1", 1, 1, 'c');
	struct keys_options options = {"riptide", 1};
	struct keys_redis redis;
	struct listed listed;
	char key[500], text[KEYS_REDIS_MAX + 1];

	memset(key, 'k', sizeof(key));
	put(f, name, key, 499);
	put_flagged(f, name, key, 498, ENVELOPE_FLAG_TOMBSTONE, 0);
	for (size_t length = 494; length < 498; length++) {
		put(f, name, key, length);
		name.key = key;
		name.key_len = length;
		assert_int_equal(keys_redis(&options, &name, &redis), RSHM_OK);
		memcpy(text, redis.bytes, redis.length);
		text[redis.length] = '\0';
		if (length == 497) /* its key says another one */
			(void)admin(f, "SETRANGE %s 72 x", text);
		else if (length == 496) /* cut off in its key */
			(void)admin(f, "SET %s RPTE", text);
		else if (length == 495)
			(void)admin(f, "SETRANGE %s 4 x", text);
		else
			(void)admin(f, "UNLINK %s", text);
	}
	listed = list(f, name, NULL, 0, 1000);
	assert_int_equal(listed.count, 1);
	assert_true(has(&listed, key, 499));
	listed_fini(&listed);
}

static void cursor_and_prefix_of_the_caller_are_checked(void **state)
{
	static const char *const cursors[] = {"x", "-1", "1 2", "123456789012345678901", "0\r\nFLUSHALL\r\n"};
	struct fixture *f = *state;
	struct call call = {.answers = 0};
	char key[1] = {'k'};

	for (size_t i = 0; i < sizeof(cursors) / sizeof(cursors[0]); i++) {
		call.request.op = STORE_LIST;
		memcpy(call.request.cursor, cursors[i], strlen(cursors[i]));
		call.request.cursor_len = strlen(cursors[i]);
		submit(f, &call, namespace_of("t1", 1, 1, 'c'), NULL, 0);
		assert_int_equal(call_wait(f, &call), RSHM_E_INVALID);
		call_fini(&call);
	}
	call.request.op = STORE_LIST;
	call.request.cursor_len = STORE_CURSOR_MAX + 1;
	submit(f, &call, namespace_of("t1", 1, 1, 'c'), NULL, 0);
	assert_int_equal(call_wait(f, &call), RSHM_E_INVALID);
	call_fini(&call);
	call.request.op = STORE_LIST;
	submit(f, &call, namespace_of("T1", 1, 1, 'c'), NULL, 0);
	assert_int_equal(call_wait(f, &call), RSHM_E_INVALID);
	call_fini(&call);
	call.request.op = STORE_LIST;
	submit(f, &call, namespace_of("t1", 1, 0, 'c'), key, 1);
	assert_int_equal(call_wait(f, &call), RSHM_E_INVALID);
	call_fini(&call);
	call.request.op = STORE_LIST;
	submit(f, &call, namespace_of("t1", 1, 1, 'c'), key, 65536);
	assert_int_equal(call_wait(f, &call), RSHM_E_TOOBIG);
	call_fini(&call);
}

static void page_whose_connection_is_lost_is_asked_for_again(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct store_name name = namespace_of("t1", 1, 1, 'c');
	char key[500];

	fixture_close(f);
	f->config.connect_grace_ms = 3000;
	f->config.retry_attempts = 50;
	fixture_open(f);
	memset(key, 'k', sizeof(key));
	for (size_t length = 1; length < 500; length += 2)
		put(f, name, key, length);
	for (int round = 0; round < 40; round++) {
		struct call calls[20] = {{.answers = 0}};
		struct listed listed = {.count = 0};

		for (int i = 0; i < 20; i++) {
			calls[i].request.op = STORE_LIST;
			calls[i].request.page_keys = 1000;
			submit(f, &calls[i], name, "k", 1);
		}
		for (int turn = 0; turn < round % 4; turn++)
			uv_run(&f->loop, UV_RUN_NOWAIT);
		(void)admin(f, "CLIENT KILL TYPE normal SKIPME yes");
		for (int i = 0; i < 20; i++) {
			assert_int_equal(call_wait(f, &calls[i]), RSHM_OK);
			assert_int_equal(calls[i].request.cursor_len, 0);
			take_page(&listed, calls[i].bytes, calls[i].length);
			call_fini(&calls[i]);
			assert_int_equal(listed.count, 250 * (i + 1));
		}
		listed_fini(&listed);
	}
	assert_true(fixture_metric(f, STORE_REDIS_RETRIED) > 0);
}

static void page_that_nobody_waits_for_any_more_harms_nobody(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct store_name name = namespace_of("t1", 1, 1, 'c');
	struct call calls[10] = {{.answers = 0}};
	char key[500];

	memset(key, 'k', sizeof(key));
	for (size_t length = 401; length < 500; length++)
		put(f, name, key, length);
	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < 10; i++) {
			calls[i].request.op = STORE_LIST;
			calls[i].request.page_keys = 1000;
			calls[i].request.deadline_ms = clock_monotonic_ms() + 30;
			submit(f, &calls[i], name, NULL, 0);
		}
		for (int turn = 0; turn < round % 4; turn++)
			uv_run(&f->loop, UV_RUN_NOWAIT);
		redis_server_pause(&f->server);
		for (int i = 0; i < 10; i++) {
			int status = call_wait(f, &calls[i]);

			assert_true(status == RSHM_OK || status == RSHM_E_TIMEDOUT);
			call_fini(&calls[i]);
		}
		redis_server_resume(&f->server);
		put(f, name, "k", 1);
		fixture_run_for(f, 5);
	}
	assert_int_equal(fixture_metric(f, STORE_REDIS_CONNECTIONS_LOST), 0);
}

int main(void)
{
#define LISTING_TEST(name) cmocka_unit_test_setup_teardown(name, with_server, without)
	const struct CMUnitTest tests[] = {
		LISTING_TEST(empty_namespace_is_one_empty_listing),
		LISTING_TEST(prefix_means_its_bytes_and_no_pattern),
		LISTING_TEST(keys_of_any_bytes_are_listed_by_any_bytes),
		LISTING_TEST(long_keys_are_listed_by_what_their_envelopes_say),
		LISTING_TEST(three_thousand_keys_come_in_pages),
		LISTING_TEST(who_is_there_throughout_is_listed_while_others_come_and_go),
		LISTING_TEST(other_namespaces_are_never_listed),
		LISTING_TEST(all_shards_of_a_tenant_are_listed),
		LISTING_TEST(long_key_that_is_deleted_or_damaged_is_left_out),
		LISTING_TEST(cursor_and_prefix_of_the_caller_are_checked),
		LISTING_TEST(page_whose_connection_is_lost_is_asked_for_again),
		LISTING_TEST(page_that_nobody_waits_for_any_more_harms_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
