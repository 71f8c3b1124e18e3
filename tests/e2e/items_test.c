/*
 * items_test.c - batches whose items differ in all that an item may bring, and values of 20 MiB, alone and in batches; on
 * both stores.
 *
 * How an item is stored is read from the store itself, past the agent: from the server, or from the bytes of the embedded
 * store's file, in which an envelope's head is looked for by its magic and the key after it.
 */
#include <hiredis/hiredis.h>

#include "agent/store/compress.h"
#include "agent/store/envelope.h"
#include "tests/e2e/acceptance.h"

#define STORED_KEY "riptide:v1:{default.0}:1:c:%s"
#define LARGE ((size_t)20 * MIB)

static int begin_all(void **state)
{
	acceptance_more[0] = "cache.max_entry_size_bytes=20M";
	acceptance_more[1] = "cache.max_memory_bytes=64M";
	return acceptance_begin(state);
}

static void *allocate(size_t length)
{
	void *bytes = malloc(length);

	assert_non_null(bytes);
	return bytes;
}

/* ---- what is stored ----------------------------------------------------------------------------------------- */

/* The algorithm in the first envelope of this key, -1 without one. */
static int algorithm_in(const unsigned char *bytes, size_t length, const char *key, uint32_t *ret_plain_size)
{
	const unsigned char *at = bytes, *end = bytes + length;
	size_t key_length = strlen(key);

	while ((at = memmem(at, (size_t)(end - at), "RPTE", 4)) != NULL) {
		uint16_t length_told = 0, tags = 0;

		if ((size_t)(end - at) < ENVELOPE_HEAD_BYTES)
			break;
		memcpy(&length_told, at + 40, 2);
		memcpy(&tags, at + 44, 2);
		if (length_told == key_length && tags <= ENVELOPE_TAGS_MAX &&
		    (size_t)(end - at) >= ENVELOPE_HEAD_BYTES + 8u * tags + key_length &&
		    memcmp(at + ENVELOPE_HEAD_BYTES + 8u * tags, key, key_length) == 0) {
			memcpy(ret_plain_size, at + 24, 4);
			return at[5];
		}
		at++;
	}
	return -1;
}

static int algorithm_in_server(const struct fixture *f, const char *key, uint32_t *ret_plain_size)
{
	redisContext *redis = redisConnectUnix(f->server.unix_path);
	redisReply *reply = redis && !redis->err ? redisCommand(redis, "GET " STORED_KEY, key) : NULL;
	int algorithm = -1;

	if (reply && reply->type == REDIS_REPLY_STRING)
		algorithm = algorithm_in((const unsigned char *)reply->str, reply->len, key, ret_plain_size);
	if (reply)
		freeReplyObject(reply);
	if (redis)
		redisFree(redis);
	return algorithm;
}

static int algorithm_in_file(const struct fixture *f, const char *key, uint32_t *ret_plain_size)
{
	char path[128];
	unsigned char *bytes;
	size_t length;
	int algorithm;
	FILE *file;

	snprintf(path, sizeof(path), "%s/store/data.mdb", f->agent.state_dir);
	file = fopen(path, "re");
	assert_non_null(file);
	assert_int_equal(fseek(file, 0, SEEK_END), 0);
	length = (size_t)ftell(file);
	rewind(file);
	bytes = allocate(length);
	length = fread(bytes, 1, length, file);
	fclose(file);
	algorithm = algorithm_in(bytes, length, key, ret_plain_size);
	free(bytes);
	return algorithm;
}

static void assert_stored_as(const struct fixture *f, const char *key, int algorithm, size_t length)
{
	uint32_t plain_size = 0;
	int found = f->redis ? algorithm_in_server(f, key, &plain_size) : algorithm_in_file(f, key, &plain_size);

	if (found != algorithm)
		fail_msg("%s is stored as %d, not %d", key, found, algorithm);
	assert_int_equal(plain_size, length);
}

/* ---- items that differ --------------------------------------------------------------------------------------- */

#define ITEMS 6
#define BODY 8000u /* above every threshold */

/* What one item of the batch brings. */
struct bring {
	const char *key;
	enum riptide_compression compression;
	int stored_as;
	uint64_t ttl_ms;
	uint64_t least_ms, most_ms; /* of what is left of it a moment later */
	struct riptide_metadata metadata;
};

#define MINUTE 60000u

static const char *const red[] = {"red"};
static const char *const red_and_blue[] = {"red", "blue"};
static const struct riptide_pair languages[] = {{"language", "de"}, {"empty", ""}};

/* The tenant's default is lz4 for 300 s. */
static const struct bring brings[ITEMS] = {
	{"bare", RIPTIDE_COMPRESS_DEFAULT, ENVELOPE_LZ4, 0, 4 * MINUTE, 5 * MINUTE, {0}},
	{"plain",
	 RIPTIDE_COMPRESS_NONE,
	 ENVELOPE_PLAIN,
	 20 * MINUTE,
	 19 * MINUTE,
	 20 * MINUTE,
	 {.content_type = "text/plain", .tags = red, .tag_count = 1}},
	{"fast",
	 RIPTIDE_COMPRESS_LZ4,
	 ENVELOPE_LZ4,
	 40 * MINUTE,
	 39 * MINUTE,
	 40 * MINUTE,
	 {.version = "v2", .source = "origin", .tags = red_and_blue, .tag_count = 2}},
	{"small",
	 RIPTIDE_COMPRESS_ZSTD,
	 ENVELOPE_ZSTD,
	 RIPTIDE_NEVER,
	 RIPTIDE_NEVER,
	 RIPTIDE_NEVER,
	 {.attributes = languages, .attribute_count = 2}},
	{"chosen",
	 RIPTIDE_COMPRESS_AUTO,
	 ENVELOPE_LZ4,
	 60 * MINUTE,
	 59 * MINUTE,
	 60 * MINUTE,
	 {.source = "elsewhere"}},
	{"brief", RIPTIDE_COMPRESS_ZSTD, ENVELOPE_ZSTD, 1500, 0, 1500, {.content_type = "text/html"}},
};

/* Text of the item's own. */
static void fill_body(char body[BODY], int number)
{
	for (size_t at = 0; at < BODY; at++)
		body[at] = "The quick brown fox. "[(at + at / 500) % 21];
	body[0] = (char)('0' + number);
	body[BODY - 1] = (char)('0' + number);
}

static void describe_items(struct riptide_item items[ITEMS], struct riptide_set_options options[ITEMS],
			   char bodies[ITEMS][BODY])
{
	for (int i = 0; i < ITEMS; i++) {
		fill_body(bodies[i], i);
		options[i] = (struct riptide_set_options){.size = sizeof(options[i]),
							  .ttl_ms = brings[i].ttl_ms,
							  .metadata = i ? &brings[i].metadata : NULL,
							  .compression = brings[i].compression};
		items[i] = (struct riptide_item){.key = brings[i].key,
						 .key_length = strlen(brings[i].key),
						 .value = bodies[i],
						 .value_length = BODY,
						 .options = i ? &options[i] : NULL};
	}
}

static bool is_text(const struct riptide_field *field, const char *text)
{
	return text && field->value_length == strlen(text) && memcmp(field->value, text, field->value_length) == 0;
}

/* The field is the next of its kind in what was given. */
static bool was_given(const struct riptide_field *field, const struct riptide_metadata *given, size_t *tags,
		      size_t *attributes)
{
	const struct riptide_pair *pair;

	switch (field->kind) {
	case RIPTIDE_METADATA_VERSION:
		return is_text(field, given->version);
	case RIPTIDE_METADATA_CONTENT_TYPE:
		return is_text(field, given->content_type);
	case RIPTIDE_METADATA_SOURCE:
		return is_text(field, given->source);
	case RIPTIDE_METADATA_TAG:
		return *tags < given->tag_count && is_text(field, given->tags[(*tags)++]);
	case RIPTIDE_METADATA_ATTRIBUTE:
		if (*attributes >= given->attribute_count)
			return false;
		pair = &given->attributes[(*attributes)++];
		return field->name_length == strlen(pair->name) &&
		       memcmp(field->name, pair->name, field->name_length) == 0 && is_text(field, pair->value);
	default:
		return false;
	}
}

/* All that was given and nothing else. */
static void assert_metadata(const struct riptide_value *value, const struct riptide_metadata *given)
{
	size_t cursor = 0, tags = 0, attributes = 0, fields = 0;
	struct riptide_field field;
	int status;

	while ((status = riptide_metadata_next(value->metadata, value->metadata_length, &cursor, &field)) == 1) {
		assert_true(was_given(&field, given, &tags, &attributes));
		fields++;
	}
	assert_int_equal(status, 0);
	assert_int_equal(fields, !!given->version + !!given->content_type + !!given->source + given->tag_count +
					 given->attribute_count);
	assert_int_equal(value->info.metadata_length, value->metadata_length);
}

static void assert_items_come_back(struct fixture *f, const struct riptide_item *sets, int count)
{
	struct riptide_item gets[ITEMS] = {{0}};

	/* In another order than they were written. */
	for (int i = 0; i < count; i++) {
		gets[i].key = brings[count - 1 - i].key;
		gets[i].key_length = strlen(gets[i].key);
	}
	assert_int_equal(riptide_get_batch(f->handle, gets, (size_t)count), RIPTIDE_OK);
	for (int i = 0; i < count; i++) {
		const struct bring *bring = &brings[count - 1 - i];
		const struct riptide_item *set = &sets[count - 1 - i];

		assert_int_equal(gets[i].status, RIPTIDE_OK);
		assert_int_equal(gets[i].result.length, BODY);
		assert_memory_equal(gets[i].result.data, set->value, BODY);
		assert_int_equal(gets[i].value_length, BODY);
		assert_ptr_equal(gets[i].value, gets[i].result.data);
		assert_int_equal(gets[i].result.info.version, set->version);
		assert_in_range(gets[i].result.info.ttl_ms, bring->least_ms, bring->most_ms);
		assert_metadata(&gets[i].result, &bring->metadata);
	}
	riptide_batch_free(gets, (size_t)count);
}

static void each_item_keeps_life_time_metadata_and_compression_of_its_own(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_set_options options[ITEMS];
	struct riptide_item items[ITEMS];
	static char bodies[ITEMS][BODY];

	describe_items(items, options, bodies);
	assert_int_equal(riptide_set_batch(f->handle, items, ITEMS), RIPTIDE_OK);
	for (int i = 0; i < ITEMS; i++) {
		assert_int_equal(items[i].status, RIPTIDE_OK);
		assert_true(items[i].version > 0);
		assert_stored_as(f, brings[i].key, RIPTIDE_COMPRESSION ? brings[i].stored_as : ENVELOPE_PLAIN, BODY);
	}
	/* From shared memory once it has been read, then from the store; the brief one is over by then. */
	assert_items_come_back(f, items, ITEMS - 1);
	assert_items_come_back(f, items, ITEMS - 1);
	e2e_pause_ms(1600);
	assert_int_equal(riptide_get_batch(f->handle, &items[ITEMS - 1], 1), RIPTIDE_OK);
	assert_int_equal(items[ITEMS - 1].status, RIPTIDE_MISS);
	forget_hot_copies(f);
	assert_items_come_back(f, items, ITEMS - 1);
}

static void a_tag_takes_the_items_of_a_batch_that_have_it(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_set_options options[ITEMS];
	struct riptide_item items[ITEMS];
	static char bodies[ITEMS][BODY];

	describe_items(items, options, bodies);
	assert_int_equal(riptide_set_batch(f->handle, items, ITEMS - 1), RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_tag(f->handle, "blue"), RIPTIDE_OK);
	assert_int_equal(riptide_get_batch(f->handle, items, ITEMS - 1), RIPTIDE_OK);
	for (int i = 0; i < ITEMS - 1; i++)
		assert_int_equal(items[i].status, strcmp(brings[i].key, "fast") == 0 ? RIPTIDE_MISS : RIPTIDE_OK);
	riptide_batch_free(items, ITEMS - 1);
	assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
	assert_int_equal(riptide_get_batch(f->handle, items, ITEMS - 1), RIPTIDE_OK);
	for (int i = 0; i < ITEMS - 1; i++)
		assert_int_equal(items[i].status, i == 1 || i == 2 ? RIPTIDE_MISS : RIPTIDE_OK);
	riptide_batch_free(items, ITEMS - 1);
}

static void items_have_conditions_and_write_modes_of_their_own(void **state)
{
	static const enum riptide_condition conditions[] = {RIPTIDE_ALWAYS,     RIPTIDE_ALWAYS,
							    RIPTIDE_IF_ABSENT,  RIPTIDE_IF_ABSENT,
							    RIPTIDE_IF_PRESENT, RIPTIDE_IF_PRESENT};
	static const int expected[] = {RIPTIDE_OK,       RIPTIDE_OK, RIPTIDE_OK,
				       RIPTIDE_CONFLICT, RIPTIDE_OK, RIPTIDE_CONFLICT};
	static const char *const keys[] = {"through", "behind", "new", "there", "there too", "not there"};
	struct fixture *f = both_fixture(state);
	struct riptide_set_options options[ITEMS] = {{0}};
	struct riptide_item items[ITEMS] = {{0}};
	uint32_t flags[ITEMS];
	uint64_t there = 0;

	assert_int_equal(riptide_set(f->handle, "there", 5, "old", 3, NULL, &there), RIPTIDE_OK);
	assert_int_equal(e2e_put(f->handle, "there too", "old"), RIPTIDE_OK);
	for (int i = 0; i < ITEMS; i++) {
		flags[i] = 0x55;
		options[i] = (struct riptide_set_options){.size = sizeof(options[i]),
							  .condition = conditions[i],
							  .write_mode = i == 1 ? RIPTIDE_WRITE_BEHIND
									       : RIPTIDE_WRITE_THROUGH,
							  .ret_flags = &flags[i]};
		items[i] = (struct riptide_item){.key = keys[i],
						 .key_length = strlen(keys[i]),
						 .value = "new",
						 .value_length = 3,
						 .options = &options[i]};
	}
	assert_int_equal(riptide_set_batch(f->handle, items, ITEMS), RIPTIDE_OK);
	for (int i = 0; i < ITEMS; i++) {
		assert_int_equal(items[i].status, expected[i]);
		/* Only of what was written is there something to tell. */
		assert_int_equal(flags[i], expected[i] != RIPTIDE_OK ? 0x55 : i == 1 ? RIPTIDE_ACCEPTED : 0);
	}
	assert_int_equal(items[3].version, there);
	assert_int_equal(items[5].version, 0);
	assert_int_equal(riptide_flush(f->handle), RIPTIDE_OK);
	forget_hot_copies(f);
	for (int i = 0; i < ITEMS; i++)
		assert_int_equal(e2e_check(f->handle, keys[i], i == 3 ? "old" : "new", NULL),
				 i == 5 ? RIPTIDE_MISS : RIPTIDE_OK);
}

/* ---- 20 MiB -------------------------------------------------------------------------------------------------- */

static void a_value_of_20_mib_is_set_read_replaced_and_deleted(void **state)
{
	struct fixture *f = both_fixture(state);
	unsigned char *bytes = allocate(LARGE + 1);

	fill_random(bytes, LARGE + 1, 20);
	assert_int_equal(set(f->handle, "large", bytes, LARGE), RIPTIDE_OK);
	assert_int_equal(has(f->handle, "large", bytes, LARGE), RIPTIDE_OK);
	/* Its restarts: one that was told to stop, and one that was killed. */
	forget_hot_copies(f);
	assert_int_equal(has(f->handle, "large", bytes, LARGE), RIPTIDE_OK);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(has(f->handle, "large", bytes, LARGE), RIPTIDE_OK);
	assert_int_equal(set(f->handle, "large", bytes + 1, LARGE), RIPTIDE_OK);
	assert_int_equal(has(f->handle, "large", bytes + 1, LARGE), RIPTIDE_OK);
	assert_int_equal(set(f->handle, "large", bytes, LARGE + 1), RIPTIDE_ETOOBIG);
	forget_hot_copies(f);
	assert_int_equal(has(f->handle, "large", bytes + 1, LARGE), RIPTIDE_OK);
	assert_int_equal(set(f->handle, "large", "small", 5), RIPTIDE_OK);
	assert_int_equal(has(f->handle, "large", "small", 5), RIPTIDE_OK);
	assert_int_equal(set(f->handle, "large", bytes, LARGE), RIPTIDE_OK);
	assert_int_equal(riptide_delete(f->handle, "large", 5), RIPTIDE_OK);
	assert_int_equal(riptide_exists(f->handle, "large", 5, NULL), RIPTIDE_MISS);
	forget_hot_copies(f);
	assert_int_equal(has(f->handle, "large", bytes, LARGE), RIPTIDE_MISS);
	free(bytes);
}

static void a_batch_takes_values_of_20_mib_among_others(void **state)
{
	struct fixture *f = both_fixture(state);
	unsigned char *bytes = allocate(LARGE + 2);
	struct riptide_item items[5] = {
		{.key = "first", .key_length = 5, .value = "1", .value_length = 1},
		{.key = "large", .key_length = 5, .value = bytes, .value_length = LARGE},
		{.key = "too large", .key_length = 9, .value = bytes, .value_length = LARGE + 1},
		{.key = "last", .key_length = 4, .value = "5", .value_length = 1},
		{.key = "large too", .key_length = 9, .value = bytes + 1, .value_length = LARGE},
	};

	fill_random(bytes, LARGE + 2, 21);
	assert_int_equal(riptide_set_batch(f->handle, items, 5), RIPTIDE_OK);
	for (int i = 0; i < 5; i++)
		assert_int_equal(items[i].status, i == 2 ? RIPTIDE_ETOOBIG : RIPTIDE_OK);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(riptide_get_batch(f->handle, items, 5), RIPTIDE_OK);
		for (int i = 0; i < 5; i++)
			assert_int_equal(items[i].status, i == 2 ? RIPTIDE_MISS : RIPTIDE_OK);
		assert_int_equal(items[0].result.length, 1);
		assert_int_equal(items[1].result.length, LARGE);
		assert_memory_equal(items[1].result.data, bytes, LARGE);
		assert_memory_equal(items[3].result.data, "5", 1);
		assert_int_equal(items[4].result.length, LARGE);
		assert_memory_equal(items[4].result.data, bytes + 1, LARGE);
		riptide_batch_free(items, 5);
		forget_hot_copies(f);
	}
	assert_int_equal(riptide_delete_batch(f->handle, items, 5), RIPTIDE_OK);
	for (int i = 0; i < 5; i++)
		assert_int_equal(items[i].status, i == 2 ? RIPTIDE_MISS : RIPTIDE_OK);
	assert_int_equal(has(f->handle, "large", bytes, LARGE), RIPTIDE_MISS);
	free(bytes);
}

/* Text of that size goes through the compressor whole. */
static void a_value_of_20_mib_that_compresses_comes_back_whole(void **state)
{
	static const enum riptide_compression ways[] = {RIPTIDE_COMPRESS_LZ4, RIPTIDE_COMPRESS_ZSTD,
							RIPTIDE_COMPRESS_AUTO};
	static const int stored_as[] = {ENVELOPE_LZ4, ENVELOPE_ZSTD, ENVELOPE_ZSTD};
	struct fixture *f = both_fixture(state);
	char *bytes = allocate(LARGE), key[16];

	for (size_t i = 0; i < LARGE; i++)
		bytes[i] = "A long text, and longer. "[(i + i / 4099) % 25];
	for (int i = 0; i < 3; i++) {
		struct riptide_set_options options = {.size = sizeof(options), .compression = ways[i]};

		snprintf(key, sizeof(key), "text-%d", i);
		assert_int_equal(riptide_set(f->handle, key, strlen(key), bytes, LARGE, &options, NULL), RIPTIDE_OK);
		/* The embedded store keeps the head of so large an entry apart from its key. */
		if (f->redis)
			assert_stored_as(f, key, RIPTIDE_COMPRESSION ? stored_as[i] : ENVELOPE_PLAIN, LARGE);
		assert_true(!RIPTIDE_COMPRESSION || stats_of(f->handle).avg_compression_ratio < 0.1);
	}
	forget_hot_copies(f);
	for (int i = 0; i < 3; i++) {
		snprintf(key, sizeof(key), "text-%d", i);
		assert_int_equal(has(f->handle, key, bytes, LARGE), RIPTIDE_OK);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(each_item_keeps_life_time_metadata_and_compression_of_its_own),
		BOTH_STORES(a_tag_takes_the_items_of_a_batch_that_have_it),
		BOTH_STORES(items_have_conditions_and_write_modes_of_their_own),
		BOTH_STORES(a_value_of_20_mib_is_set_read_replaced_and_deleted),
		BOTH_STORES(a_batch_takes_values_of_20_mib_among_others),
		BOTH_STORES(a_value_of_20_mib_that_compresses_comes_back_whole),
	};

	return cmocka_run_group_tests(tests, begin_all, acceptance_end);
}
