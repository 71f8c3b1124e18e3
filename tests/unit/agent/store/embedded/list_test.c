#include "tests/unit/agent/store/embedded/fixture.h"

#include "agent/store/keys.h"

#define KEYS_MAX 2000u
#define LONG_KEYS 600u /* more long keys than one page looks at */

/* Keys as listed, page by page, with what was seen on the way. */
struct listing {
	struct store_request page; /* name, page_keys and cursor; kept between pages */
	struct {
		unsigned char *bytes;
		size_t length;
	} keys[KEYS_MAX];
	uint32_t count, pages, empty_pages, largest_page;
};

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

static void listing_init(struct listing *l, const void *prefix, size_t prefix_len, uint32_t page_keys)
{
	struct call call;

	memset(l, 0, sizeof *l);
	call_init(&call, STORE_LIST, prefix, prefix_len);
	l->page = call.request;
	l->page.page_keys = page_keys;
}

static void listing_fini(struct listing *l)
{
	for (uint32_t i = 0; i < l->count; i++)
		free(l->keys[i].bytes);
	l->count = 0;
}

static void listing_take(struct listing *l, const struct call *call)
{
	uint32_t count = 0;

	for (size_t at = 0; at < call->length; count++) {
		uint16_t length;

		assert_true(call->length - at >= sizeof length);
		memcpy(&length, call->bytes + at, sizeof length);
		at += sizeof length;
		assert_true(call->length - at >= length && l->count < KEYS_MAX);
		l->keys[l->count].bytes = malloc(length + 1u);
		assert_non_null(l->keys[l->count].bytes);
		memcpy(l->keys[l->count].bytes, call->bytes + at, length);
		l->keys[l->count++].length = length;
		at += length;
	}
	l->pages++;
	l->empty_pages += count == 0;
	l->largest_page = count > l->largest_page ? count : l->largest_page;
}

/* One more page; false if it was the last. */
static bool listing_next(struct fixture *f, struct listing *l)
{
	struct call call = {.request = l->page};

	call.request.context = &call;
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_OK);
	listing_take(l, &call);
	free(call.bytes);
	assert_true(call.request.cursor_len <= STORE_CURSOR_MAX);
	memcpy(l->page.cursor, call.request.cursor, sizeof l->page.cursor);
	l->page.cursor_len = call.request.cursor_len;
	return l->page.cursor_len > 0;
}

static void listing_run(struct fixture *f, struct listing *l)
{
	while (listing_next(f, l))
		assert_true(l->pages <= 2 * KEYS_MAX);
}

static uint32_t times_listed(const struct listing *l, const void *key, size_t key_len)
{
	uint32_t times = 0;

	for (uint32_t i = 0; i < l->count; i++)
		times += l->keys[i].length == key_len && memcmp(l->keys[i].bytes, key, key_len) == 0;
	return times;
}

/* A put into any namespace. */
static void put_at(struct fixture *f, struct store_name name, uint16_t flags)
{
	struct envelope_input input = {
		.key = name.key, .key_len = name.key_len, .value = "v", .value_len = 1, .flags = flags};
	struct envelope_buffer buffer;
	struct call call;

	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	call_init(&call, STORE_PUT, name.key, name.key_len);
	call.request.name = name;
	call.request.envelope = buffer.bytes;
	call.request.envelope_len = buffer.length;
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_OK);
	envelope_buffer_fini(&buffer);
}

static void put_key(struct fixture *f, const void *key, size_t key_len)
{
	assert_int_equal(put(f, key, key_len, "v", 1, 0), RSHM_OK);
}

/* ---- what is listed ----------------------------------------------------------------------------------------- */

/* Keys that differ where a range could go wrong: bytes 0 and 255, one the beginning of another, lengths around 400. */
static const struct sample {
	const char *begin;
	size_t begin_len, length; /* filled up with 'x' */
} samples[] = {
	{"a", 1, 1},          {"ab", 2, 2},     {"ab\0", 3, 3},         {"ab\0c", 4, 4}, {"ab\xff", 3, 3},
	{"ab\xff\xff", 4, 4}, {"abc", 3, 3},    {"ac", 2, 2},           {"b", 1, 1},     {"\0", 1, 1},
	{"\0\0", 2, 2},       {"\xff", 1, 1},   {"\xff\xff\xff", 3, 3}, {"ab", 2, 399},  {"ab", 2, 400},
	{"ab", 2, 401},       {"abc", 3, 402},  {"abx\0", 4, 2000},     {"\0", 1, 500},  {"\xff\xff", 2, 500},
	{"ab", 2, 65534},     {"ab", 2, 65535}, {"b", 1, 65535},
};
#define SAMPLES (sizeof samples / sizeof samples[0])

static unsigned char *sample_key(size_t i)
{
	unsigned char *key = malloc(samples[i].length);

	assert_non_null(key);
	memset(key, 'x', samples[i].length);
	memcpy(key, samples[i].begin, samples[i].begin_len);
	return key;
}

/* Exactly the samples that begin with the prefix, each once. */
static void assert_lists(struct fixture *f, const void *prefix, size_t prefix_len, uint32_t page_keys)
{
	static struct listing l;
	uint32_t expected = 0;

	listing_init(&l, prefix, prefix_len, page_keys);
	listing_run(f, &l);
	for (size_t i = 0; i < SAMPLES; i++) {
		unsigned char *key = sample_key(i);
		bool begins =
			samples[i].length >= prefix_len && (prefix_len == 0 || memcmp(key, prefix, prefix_len) == 0);

		assert_int_equal(times_listed(&l, key, samples[i].length), begins);
		expected += begins;
		free(key);
	}
	assert_int_equal(l.count, expected);
	assert_true(l.largest_page <= page_keys);
	assert_true(l.pages <= expected / page_keys + 2);
	listing_fini(&l);
}

static void put_samples(struct fixture *f)
{
	for (size_t i = 0; i < SAMPLES; i++) {
		unsigned char *key = sample_key(i);

		put_key(f, key, samples[i].length);
		free(key);
	}
}

static void keys_with_the_prefix_are_listed_and_no_others(void **state)
{
	static const uint32_t pages[] = {1, 2, 7, 1000, UINT32_MAX};
	struct fixture *f = *state;

	put_samples(f);
	for (size_t p = 0; p < sizeof pages / sizeof pages[0]; p++) {
		assert_lists(f, NULL, 0, pages[p]);
		assert_lists(f, "", 0, pages[p]);
		assert_lists(f, "a", 1, pages[p]);
		assert_lists(f, "ab", 2, pages[p]);
		assert_lists(f, "ab\0", 3, pages[p]);
		assert_lists(f, "ab\xff", 3, pages[p]);
		assert_lists(f, "\0", 1, pages[p]);
		assert_lists(f, "\xff", 1, pages[p]);
		assert_lists(f, "\xff\xff\xff\xff", 4, pages[p]);
		assert_lists(f, "nothing", 7, pages[p]);
		/* Each key is a prefix: of itself, and of some others. */
		for (size_t i = 0; i < SAMPLES; i++) {
			unsigned char *key = sample_key(i);

			assert_lists(f, key, samples[i].length, pages[p]);
			if (samples[i].length > 400)
				assert_lists(f, key, 400, pages[p]);
			free(key);
		}
	}
}

/* Without a long key behind them, and without a short one before. */
static void namespace_of_one_form_is_listed_whole(void **state)
{
	static struct listing l;
	struct fixture *f = *state;
	char key[500];

	memset(key, 'z', sizeof key);
	for (size_t key_len = 7; key_len <= sizeof key; key_len += sizeof key - 7) {
		for (unsigned i = 0; i < 20; i++) {
			(void)snprintf(key, 8, "k%06u", i);
			key[7] = 'z';
			put_key(f, key, key_len);
		}
		for (uint32_t page_keys = 1; page_keys <= 21; page_keys++) {
			listing_init(&l, "k", 1, page_keys);
			listing_run(f, &l);
			assert_int_equal(l.count, 20);
			assert_int_equal(l.pages, (20 + page_keys - 1) / page_keys);
			assert_int_equal(l.largest_page, page_keys < 20 ? page_keys : 20);
			listing_fini(&l);
		}
		for (unsigned i = 0; i < 20; i++) {
			(void)snprintf(key, 8, "k%06u", i);
			key[7] = 'z';
			assert_int_equal(simple(f, STORE_DELETE, key, key_len, 0), RSHM_OK);
		}
	}
}

static void listing_goes_on_after_reopening(void **state)
{
	static struct listing l;
	struct fixture *f = *state;

	put_samples(f);
	listing_init(&l, NULL, 0, 1);
	do {
		fixture_close(f);
		fixture_open(f);
	} while (listing_next(f, &l));
	assert_int_equal(l.count, SAMPLES);
	listing_fini(&l);
}

static void values_in_pieces_are_listed_too(void **state)
{
	static struct listing l;
	struct fixture *f = *state;
	unsigned char *value = make_noise(300000, 1);
	unsigned char key[1000];

	memset(key, 'k', sizeof key);
	assert_int_equal(put(f, key, sizeof key, value, 300000, 0), RSHM_OK);
	assert_int_equal(put(f, key, 10, value, 300000, 0), RSHM_OK);
	listing_init(&l, key, 3, 10);
	listing_run(f, &l);
	assert_int_equal(l.count, 2);
	assert_int_equal(times_listed(&l, key, 10), 1);
	assert_int_equal(times_listed(&l, key, sizeof key), 1);
	listing_fini(&l);
	listing_init(&l, "other", 5, 10);
	listing_run(f, &l);
	assert_int_equal(l.count, 0);
	free(value);
}

static void foreign_tenants_generations_and_spaces_are_never_listed(void **state)
{
	static struct listing l;
	struct fixture *f = *state;
	unsigned char key[500];
	struct store_name own = {.tenant = "default",
				 .tenant_number = 300,
				 .shards = 1,
				 .generation = 300,
				 .space = 'k',
				 .key = key,
				 .key_len = sizeof key};
	static const size_t lengths[] = {1, 400, 401, 500};

	memset(key, 'f', sizeof key);
	for (size_t i = 0; i < 4; i++) {
		struct store_name name = own;

		name.key_len = lengths[i];
		for (int by = -1; by <= 1; by += 2) {
			name = own;
			name.key_len = lengths[i];
			name.tenant_number += (uint32_t)by;
			put_at(f, name, 0);
			name.tenant_number = own.tenant_number;
			name.generation += (uint64_t)by;
			put_at(f, name, 0);
			name.generation = own.generation;
			name.space = (char)(own.space + by);
			put_at(f, name, 0);
		}
	}
	for (uint32_t page_keys = 1; page_keys < 20; page_keys += 6) {
		listing_init(&l, key, 0, page_keys);
		l.page.name = own;
		l.page.name.key_len = 0;
		listing_run(f, &l);
		assert_int_equal(l.count, 0);
	}
	own.key_len = 1;
	put_at(f, own, 0);
	own.key_len = 401;
	put_at(f, own, 0);
	for (size_t prefix_len = 0; prefix_len <= 1; prefix_len++) {
		listing_init(&l, key, 0, 1);
		l.page.name = own;
		l.page.name.key_len = prefix_len;
		listing_run(f, &l);
		assert_int_equal(l.count, 2);
		assert_int_equal(times_listed(&l, key, 1), 1);
		assert_int_equal(times_listed(&l, key, 401), 1);
		listing_fini(&l);
	}
}

/* Whoever empties a namespace must find them. */
static void tombstones_are_listed(void **state)
{
	static struct listing l;
	struct fixture *f = *state;
	struct call call;
	unsigned char key[500];

	memset(key, 't', sizeof key);
	call_init(&call, STORE_PUT, key, sizeof key);
	put_at(f, call.request.name, ENVELOPE_FLAG_TOMBSTONE);
	call.request.name.key_len = 5;
	put_at(f, call.request.name, ENVELOPE_FLAG_TOMBSTONE);
	listing_init(&l, NULL, 0, 10);
	listing_run(f, &l);
	assert_int_equal(l.count, 2);
	for (uint32_t i = 0; i < l.count; i++)
		assert_int_equal(simple(f, STORE_DELETE, l.keys[i].bytes, l.keys[i].length, 0), RSHM_MISS);
	listing_fini(&l);
	listing_init(&l, NULL, 0, 10);
	listing_run(f, &l);
	assert_int_equal(l.count, 0);
	assert_int_equal(status_of(f->store).entries, 0);
}

/* ---- pages -------------------------------------------------------------------------------------------------- */

static size_t numbered_key(char key[32], char letter, unsigned number)
{
	return (size_t)snprintf(key, 32, "%c%06u", letter, number);
}

/* Keys with even numbers stay. Others go, above all the one the cursor names; new ones come before and behind it. */
static void changes_between_pages_lose_none_of_those_who_stay(void **state)
{
	static struct listing l;
	struct fixture *f = *state;
	enum { KEYS = 100 };
	uint32_t cursors_removed = 0;
	char key[32];
	size_t length;
	bool more;

	for (unsigned i = 0; i < KEYS; i++) {
		length = numbered_key(key, 'k', 10 * i + i % 2);
		put_key(f, key, length);
	}
	listing_init(&l, "k", 1, 3);
	do {
		more = listing_next(f, &l);
		if (l.count > 0 && l.keys[l.count - 1].bytes[6] % 2 == 1) {
			assert_int_equal(simple(f, STORE_DELETE, l.keys[l.count - 1].bytes, 7, 0), RSHM_OK);
			cursors_removed++;
		}
		if (l.pages < 30) {
			length = numbered_key(key, 'k', 10 * l.pages + 3);
			put_key(f, key, length);
			length = numbered_key(key, 'k', 30 * l.pages + 45);
			put_key(f, key, length);
		}
		/* From the far end too: every second page one that is still to come. */
		if (l.pages % 2 == 0 && l.pages < KEYS / 4) {
			length = numbered_key(key, 'k', 10 * (KEYS - 1 - l.pages) + 1);
			assert_int_equal(simple(f, STORE_DELETE, key, length, 0), RSHM_OK);
		}
		assert_true(l.pages < 10 * KEYS);
	} while (more);
	for (unsigned i = 0; i < KEYS; i += 2) {
		length = numbered_key(key, 'k', 10 * i);
		assert_int_equal(times_listed(&l, key, length), 1);
	}
	assert_true(cursors_removed > 0 && l.pages > KEYS / 3);
	listing_fini(&l);
}

/* As an invalidation of a prefix does. */
static void deleting_each_page_empties_the_namespace(void **state)
{
	static struct listing l;
	struct fixture *f = *state;
	uint32_t deleted = 0;
	bool more;

	put_samples(f);
	listing_init(&l, NULL, 0, 2);
	do {
		more = listing_next(f, &l);
		for (uint32_t i = 0; i < l.count; i++, deleted++)
			assert_int_equal(simple(f, STORE_DELETE, l.keys[i].bytes, l.keys[i].length, 0), RSHM_OK);
		listing_fini(&l);
	} while (more);
	assert_int_equal(deleted, SAMPLES);
	assert_int_equal(status_of(f->store).entries, 0);
}

static void page_looks_at_a_bounded_number_of_long_keys(void **state)
{
	static struct listing l;
	struct fixture *f = *state;
	char key[500];

	memset(key, 'y', sizeof key);
	for (unsigned i = 0; i < LONG_KEYS; i++) {
		(void)numbered_key(key, 'a', i);
		put_key(f, key, sizeof key);
	}
	listing_init(&l, "b", 1, 10);
	listing_run(f, &l);
	assert_int_equal(l.count, 0);
	assert_int_equal(l.pages, 2);
	put_key(f, "b", 1);
	listing_init(&l, "b", 1, 10);
	listing_run(f, &l);
	assert_int_equal(l.count, 1);
	listing_fini(&l);
	listing_init(&l, "a", 1, KEYS_MAX);
	listing_run(f, &l);
	assert_int_equal(l.count, LONG_KEYS);
	listing_fini(&l);
}

/* Keys that fill a page by their bytes, in records of one piece and of several. */
static void page_has_a_bounded_number_of_bytes(void **state)
{
	static struct listing l, other;
	struct fixture *f = *state;
	unsigned char *key = make_noise(65535, 3);

	for (size_t key_len = 60000; key_len <= 65535; key_len += 5535) {
		for (unsigned i = 0; i < 40; i++) {
			key[0] = (unsigned char)i;
			put_key(f, key, key_len);
		}
		listing_init(&l, NULL, 0, 1000);
		listing_run(f, &l);
		assert_int_equal(l.count, 40);
		assert_in_range(l.pages, 3, 4);
		assert_in_range(l.largest_page, 1, 18);
		/* What must be copied to be looked at counts though it is not listed. */
		listing_init(&other, "\xff", 1, 1000);
		listing_run(f, &other);
		assert_int_equal(other.count, 0);
		assert_in_range(other.pages, key_len == 65535 ? 3 : 1, key_len == 65535 ? 4 : 1);
		for (uint32_t i = 0; i < l.count; i++)
			assert_int_equal(simple(f, STORE_DELETE, l.keys[i].bytes, key_len, 0), RSHM_OK);
		listing_fini(&l);
	}
	free(key);
}

static void empty_namespace_is_one_empty_page(void **state)
{
	static struct listing l;
	struct fixture *f = *state;

	listing_init(&l, NULL, 0, 10);
	listing_run(f, &l);
	assert_int_equal(l.count, 0);
	assert_int_equal(l.pages, 1);
}

/* ---- refused, damaged, nested ------------------------------------------------------------------------------- */

static int list_status(struct fixture *f, const struct store_request *request)
{
	struct call call = {.request = *request};

	call.request.context = &call;
	(void)call_run(&call, f->store, &f->loop);
	if (call.status < 0) {
		assert_null(call.bytes);
		assert_int_equal(call.request.cursor_len, request->cursor_len);
		assert_memory_equal(call.request.cursor, request->cursor, sizeof request->cursor);
	}
	free(call.bytes);
	return call.status;
}

static void what_cannot_be_listed_is_refused(void **state)
{
	static struct listing l;
	struct fixture *f = *state;
	struct store_request good, bad;
	unsigned char *prefix = make_noise(65536, 1);

	put_samples(f);
	listing_init(&l, "a", 1, 1);
	assert_true(listing_next(f, &l));
	good = l.page;
	assert_int_equal(list_status(f, &good), RSHM_OK);
	bad = good, bad.page_keys = 0;
	assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	bad = good, bad.name.tenant_number = 0;
	assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	bad = good, bad.name.generation = 0;
	assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	bad = good, bad.name.space = '!';
	assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	bad = good, bad.name.key = NULL;
	assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	bad = good, bad.name.key = prefix, bad.name.key_len = 65536;
	assert_int_equal(list_status(f, &bad), RSHM_E_TOOBIG);
	/* A cursor of another namespace, and what is none at all. */
	bad = good, bad.name.tenant_number = 2;
	assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	bad = good, bad.name.generation = 2;
	assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	bad = good, bad.name.space = 's';
	assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	bad = good, bad.cursor[13] = 2;
	assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	for (size_t length = 1; length <= KEYS_EMBEDDED_HEAD; length++) {
		bad = good, bad.cursor_len = length;
		assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	}
	bad = good, bad.cursor_len = STORE_CURSOR_MAX;
	assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	bad = good, bad.cursor_len = SIZE_MAX;
	assert_int_equal(list_status(f, &bad), RSHM_E_INVALID);
	listing_fini(&l);
	free(prefix);
}

/* A plain key is known without its record; a long one is not. */
static void damaged_records_do_not_end_a_listing(void **state)
{
	static struct listing l;
	struct fixture *f = *state;
	unsigned char key[500];

	memset(key, 'd', sizeof key);
	put_key(f, "a", 1);
	put_key(f, "b", 1);
	fixture_overwrite(f, "main", NULL, 0, "rubbish", 7);
	put_key(f, key, sizeof key);
	fixture_overwrite(f, "main", NULL, 0, "rubbish", 7);
	listing_init(&l, NULL, 0, 1);
	listing_run(f, &l);
	assert_int_equal(l.count, 2);
	assert_int_equal(times_listed(&l, "b", 1), 1);
	listing_fini(&l);
}

struct nested {
	struct fixture *f;
	struct store_request requests[8];
	uint32_t done;
};

/* Each page that comes asks for the next one from inside. */
static void nested_on_done(struct store_request *request)
{
	struct nested *nested = request->context;
	size_t result_len = request->result_len;
	uint16_t length;

	assert_int_equal(request->status, RSHM_OK);
	nested->done++;
	if (nested->done < 8) {
		nested->requests[nested->done] = nested->requests[0];
		store_submit(nested->f->store, &nested->requests[nested->done]);
	}
	/* Its own result is still lent. */
	assert_int_equal(result_len, sizeof length + 1);
	memcpy(&length, request->result, sizeof length);
	assert_int_equal(length, 1);
	assert_memory_equal((const char *)request->result + sizeof length, "a", 1);
}

static void pages_are_listed_from_inside_answers(void **state)
{
	struct fixture *f = *state;
	struct nested nested = {.f = f};
	struct call call;

	put_key(f, "a", 1);
	call_init(&call, STORE_LIST, NULL, 0);
	nested.requests[0] = call.request;
	nested.requests[0].page_keys = 5;
	nested.requests[0].done = nested_on_done;
	nested.requests[0].context = &nested;
	store_submit(f->store, &nested.requests[0]);
	while (nested.done < 8)
		uv_run(&f->loop, UV_RUN_ONCE);
	assert_int_equal(status_of(f->store).pending, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(keys_with_the_prefix_are_listed_and_no_others),
		TEST(namespace_of_one_form_is_listed_whole),
		TEST(listing_goes_on_after_reopening),
		TEST(values_in_pieces_are_listed_too),
		TEST(foreign_tenants_generations_and_spaces_are_never_listed),
		TEST(tombstones_are_listed),
		TEST(changes_between_pages_lose_none_of_those_who_stay),
		TEST(deleting_each_page_empties_the_namespace),
		TEST(page_looks_at_a_bounded_number_of_long_keys),
		TEST(page_has_a_bounded_number_of_bytes),
		TEST(empty_namespace_is_one_empty_page),
		TEST(what_cannot_be_listed_is_refused),
		TEST(damaged_records_do_not_end_a_listing),
		TEST(pages_are_listed_from_inside_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
