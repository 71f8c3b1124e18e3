#include "agent/store/dictionary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <sodium.h>
#include <xxhash.h>

#include "agent/store/compress.h"
#include "agent/store/envelope.h"
#include "tests/unit/agent/store/json_samples.h"

#define JSON "application/json"
#define NOW 1700000000000ull

#if RIPTIDE_COMPRESSION

static struct dictionary *train_for(const char *tenant, const char *type, uint64_t created_ms, uint64_t seed)
{
	struct json_samples samples = json_samples_make(seed, 600, 1024);
	struct dictionary_training training = {
		.tenant = tenant,
		.content_type = type,
		.created_ms = created_ms,
		.samples = samples.bytes,
		.sizes = samples.sizes,
		.count = samples.count,
		.max_bytes = 16u << 10,
	};
	struct dictionary *dictionary = NULL;

	assert_int_equal(dictionary_train(&training, &dictionary), RSHM_OK);
	json_samples_free(&samples);
	return dictionary;
}

static struct envelope_buffer encode(const void *value, size_t length, const struct envelope_compression *compression)
{
	struct envelope_input input = {.key = "k", .key_len = 1, .value = value, .value_len = length};
	struct envelope_buffer buffer;

	assert_int_equal(envelope_encode(&input, compression, &buffer), RSHM_OK);
	return buffer;
}

static struct envelope_view open_with(const struct envelope_buffer *buffer, const struct dictionary *dictionary)
{
	struct envelope_view view;

	assert_int_equal(envelope_open(buffer->bytes, buffer->length, "k", 1, &view), RSHM_OK);
	assert_null(view.dictionary);
	view.dictionary = dictionary;
	return view;
}

static struct envelope_head round_trip(const void *value, size_t length,
				       const struct envelope_compression *compression)
{
	struct envelope_buffer buffer = encode(value, length, compression);
	struct envelope_view view = open_with(&buffer, compression->dictionary);
	char *plain = malloc(length + 1);

	assert_non_null(plain);
	assert_int_equal(envelope_payload(&view, plain, length), RSHM_OK);
	assert_memory_equal(plain, value, length);
	free(plain);
	envelope_buffer_fini(&buffer);
	return view.head;
}

/* ---- entries ------------------------------------------------------------------------------------------------ */

static void dictionary_leaves_less_of_unseen_values_than_plain_zstd(void **state)
{
	struct dictionary *dictionary = train_for("acme", JSON, NOW, 1);
	struct envelope_compression with = {.choice = ENVELOPE_CHOOSE_ZSTD, .dictionary = dictionary};
	struct envelope_compression without = {.choice = ENVELOPE_CHOOSE_ZSTD};
	struct json_samples unseen = json_samples_make(2, 200, 1024);
	size_t with_bytes = 0, without_bytes = 0;

	(void)state;
	for (size_t i = 0; i < unseen.count; i++) {
		struct envelope_head head = round_trip(unseen.bytes + i * 1024, 1024, &with);

		assert_int_equal(head.algorithm, ENVELOPE_ZSTD);
		assert_int_equal(head.dictionary_id, dictionary_id(dictionary));
		with_bytes += head.stored_size;
		head = round_trip(unseen.bytes + i * 1024, 1024, &without);
		assert_int_equal(head.dictionary_id, 0);
		without_bytes += head.stored_size;
	}
	/* Not only less: at most three quarters. */
	assert_true(with_bytes * 4 < without_bytes * 3);
	json_samples_free(&unseen);
	dictionary_unref(&dictionary);
	assert_null(dictionary);
}

static void dictionary_serves_values_up_to_a_bound_and_lowers_the_threshold_of_small_ones(void **state)
{
	struct dictionary *dictionary = train_for("acme", JSON, NOW, 1);
	struct json_samples text = json_samples_make(3, 1, 200000);
	static const struct {
		enum envelope_choice choice;
		size_t threshold, dictionary_threshold, length;
		unsigned algorithm;
		bool uses_dictionary;
	} cases[] = {
		{ENVELOPE_CHOOSE_ZSTD, 1024, 0, 256, ENVELOPE_PLAIN, false},
		{ENVELOPE_CHOOSE_ZSTD, 1024, 0, 257, ENVELOPE_ZSTD, true},
		{ENVELOPE_CHOOSE_AUTO, 1024, 0, 256, ENVELOPE_PLAIN, false},
		{ENVELOPE_CHOOSE_AUTO, 1024, 0, 257, ENVELOPE_ZSTD, true},
		{ENVELOPE_CHOOSE_LZ4, 1024, 0, 1024, ENVELOPE_PLAIN, false},
		{ENVELOPE_CHOOSE_LZ4, 1024, 0, 4000, ENVELOPE_LZ4, false},
		{ENVELOPE_CHOOSE_NONE, 0, 1, 4000, ENVELOPE_PLAIN, false},
		/* Another threshold than the default counts, unless the dictionary's own is set too. */
		{ENVELOPE_CHOOSE_ZSTD, 1025, 0, 1025, ENVELOPE_PLAIN, false},
		{ENVELOPE_CHOOSE_ZSTD, 1025, 0, 1026, ENVELOPE_ZSTD, true},
		{ENVELOPE_CHOOSE_ZSTD, 200, 0, 201, ENVELOPE_ZSTD, true},
		{ENVELOPE_CHOOSE_ZSTD, 1024, 500, 500, ENVELOPE_PLAIN, false},
		{ENVELOPE_CHOOSE_ZSTD, 1024, 500, 501, ENVELOPE_ZSTD, true},
		{ENVELOPE_CHOOSE_ZSTD, 1 << 20, 500, 4095, ENVELOPE_ZSTD, true},
		{ENVELOPE_CHOOSE_ZSTD, 1 << 20, 500, 4096, ENVELOPE_PLAIN, false},
		{ENVELOPE_CHOOSE_ZSTD, 1024, 0, ENVELOPE_DICTIONARY_MAX, ENVELOPE_ZSTD, true},
		{ENVELOPE_CHOOSE_ZSTD, 1024, 0, ENVELOPE_DICTIONARY_MAX + 1, ENVELOPE_ZSTD, false},
		{ENVELOPE_CHOOSE_AUTO, 1024, 0, ENVELOPE_AUTO_DICTIONARY_MAX, ENVELOPE_ZSTD, true},
		{ENVELOPE_CHOOSE_AUTO, 1024, 0, ENVELOPE_AUTO_DICTIONARY_MAX + 1, ENVELOPE_LZ4, false},
		{ENVELOPE_CHOOSE_AUTO, 1024, 0, ENVELOPE_AUTO_LZ4_MAX, ENVELOPE_LZ4, false},
		{ENVELOPE_CHOOSE_AUTO, 1024, 0, ENVELOPE_AUTO_LZ4_MAX + 1, ENVELOPE_ZSTD, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct envelope_compression compression = {
			.choice = cases[i].choice,
			.threshold = cases[i].threshold,
			.dictionary = dictionary,
			.dictionary_threshold = cases[i].dictionary_threshold,
		};
		struct envelope_head head = round_trip(text.bytes, cases[i].length, &compression);

		assert_int_equal(head.algorithm, cases[i].algorithm);
		assert_int_equal(head.dictionary_id, cases[i].uses_dictionary ? dictionary_id(dictionary) : 0);
	}
	json_samples_free(&text);
	dictionary_unref(&dictionary);
}

static void ten_percent_rule_holds_with_a_dictionary_too(void **state)
{
	struct dictionary *dictionary = train_for("acme", JSON, NOW, 1);
	struct envelope_compression compression = {.choice = ENVELOPE_CHOOSE_ZSTD, .dictionary = dictionary};
	struct json_random random = {5};
	unsigned char value[1000], scratch[2000];
	int seen[2] = {0}, border = 0;

	(void)state;
	for (size_t i = 0; i < sizeof value; i++)
		value[i] = (unsigned char)json_draw(&random, 256);
	for (size_t zeros = 0; zeros < 300; zeros++) {
		size_t stored;

		if (zeros > 0)
			value[zeros - 1] = 0;
		stored = compress_zstd(value, sizeof value, 0, dictionary_prepared(dictionary), scratch,
				       sizeof scratch);
		assert_int_equal(round_trip(value, sizeof value, &compression).dictionary_id,
				 stored < 900 ? dictionary_id(dictionary) : 0);
		seen[stored < 900]++;
		border += stored == 899 || stored == 900;
	}
	assert_true(seen[0] > 0 && seen[1] > 0 && border > 0);
	dictionary_unref(&dictionary);
}

static void entry_without_its_dictionary_has_an_error_of_its_own(void **state)
{
	struct dictionary *right = train_for("acme", JSON, NOW, 1), *wrong = train_for("acme", JSON, NOW, 2);
	struct envelope_compression compression = {.choice = ENVELOPE_CHOOSE_AUTO, .dictionary = right};
	struct json_samples text = json_samples_make(3, 1, 1024);
	struct envelope_buffer buffer = encode(text.bytes, 1024, &compression);
	struct envelope_view view = open_with(&buffer, NULL);
	char plain[1024];

	(void)state;
	memset(plain, '-', sizeof plain);
	assert_int_not_equal(dictionary_id(right), dictionary_id(wrong));
	assert_int_equal(envelope_payload(&view, plain, sizeof plain), RSHM_E_NODICT);
	view.dictionary = wrong;
	assert_int_equal(envelope_payload(&view, plain, sizeof plain), RSHM_E_NODICT);
	assert_int_equal(plain[0], '-');
	assert_int_equal(plain[1023], '-');
	view.dictionary = right;
	assert_int_equal(envelope_payload(&view, plain, sizeof plain - 1), RSHM_E_TOOSMALL);
	assert_int_equal(envelope_payload(&view, plain, sizeof plain), RSHM_OK);
	assert_memory_equal(plain, text.bytes, 1024);
	envelope_buffer_fini(&buffer);
	json_samples_free(&text);
	dictionary_unref(&right);
	dictionary_unref(&wrong);
}

static void mend_checksum(struct envelope_buffer *buffer)
{
	unsigned char *bytes = buffer->bytes;
	uint64_t sum = XXH3_64bits_withSeed(bytes + ENVELOPE_HEAD_BYTES, buffer->length - ENVELOPE_HEAD_BYTES,
					    XXH3_64bits(bytes, ENVELOPE_OFFSET_EXPIRY));

	for (size_t i = 0; i < 8; i++)
		bytes[ENVELOPE_OFFSET_CHECKSUM + i] = (unsigned char)(sum >> (8 * i));
}

/* Two dictionaries of one id can only come from a liar. */
static void other_bytes_under_the_same_id_are_noticed(void **state)
{
	struct dictionary *right = train_for("acme", JSON, NOW, 1), *wrong = train_for("acme", JSON, NOW, 2);
	struct envelope_compression compression = {.choice = ENVELOPE_CHOOSE_AUTO, .dictionary = right};
	struct json_samples text = json_samples_make(3, 1, 1024);
	struct envelope_buffer buffer = encode(text.bytes, 1024, &compression);
	struct envelope_view view;
	char plain[1024];

	(void)state;
	for (size_t i = 0; i < 4; i++)
		((unsigned char *)buffer.bytes)[36 + i] = (unsigned char)(dictionary_id(wrong) >> (8 * i));
	mend_checksum(&buffer);
	view = open_with(&buffer, wrong);
	assert_int_equal(envelope_payload(&view, plain, sizeof plain), RSHM_E_CORRUPT);
	envelope_buffer_fini(&buffer);
	json_samples_free(&text);
	dictionary_unref(&right);
	dictionary_unref(&wrong);
}

/* Flips under a right checksum: the check at the end of the frame still tells. */
static void flipped_payload_gives_the_right_bytes_or_none(void **state)
{
	struct dictionary *dictionary = train_for("acme", JSON, NOW, 1);
	struct envelope_compression compression = {.choice = ENVELOPE_CHOOSE_ZSTD, .dictionary = dictionary};
	struct json_samples text = json_samples_make(3, 1, 1024);
	struct json_random random = {17};
	size_t refused = 0;
	char plain[1024];

	(void)state;
	for (size_t round = 0; round < 3000; round++) {
		struct envelope_buffer buffer = encode(text.bytes, 1024, &compression);
		size_t payload = buffer.length - ENVELOPE_HEAD_BYTES - 1;
		struct envelope_view view;
		int status;

		for (size_t flips = 0; flips <= round % 3; flips++)
			((unsigned char *)
				 buffer.bytes)[ENVELOPE_HEAD_BYTES + 1 + json_draw(&random, (unsigned)payload)] ^=
				(unsigned char)(1u << json_draw(&random, 8));
		mend_checksum(&buffer);
		view = open_with(&buffer, dictionary);
		status = envelope_payload(&view, plain, sizeof plain);
		if (status == RSHM_OK)
			assert_memory_equal(plain, text.bytes, 1024);
		else
			assert_int_equal(status, RSHM_E_CORRUPT);
		refused += status != RSHM_OK;
		envelope_buffer_fini(&buffer);
	}
	assert_true(refused > 2800);
	json_samples_free(&text);
	dictionary_unref(&dictionary);
}

/* ---- training and the record -------------------------------------------------------------------------------- */

static void training_checks_what_it_gets(void **state)
{
	struct json_samples samples = json_samples_make(1, 600, 1024);
	struct dictionary_training good = {.tenant = "acme",
					   .content_type = "",
					   .samples = samples.bytes,
					   .sizes = samples.sizes,
					   .count = samples.count,
					   .max_bytes = 4096};
	struct dictionary_training training;
	struct dictionary *dictionary = NULL;
	struct dictionary_info info;
	char longer[80];

	(void)state;
	memset(longer, 'x', sizeof longer);
	longer[65] = '\0';
	training = good;
	training.tenant = longer;
	assert_int_equal(dictionary_train(&training, &dictionary), RSHM_E_INVALID);
	training = good;
	training.content_type = longer;
	assert_int_equal(dictionary_train(&training, &dictionary), RSHM_E_INVALID);
	training = good;
	training.max_bytes = DICTIONARY_BYTES_MAX + 1;
	assert_int_equal(dictionary_train(&training, &dictionary), RSHM_E_TOOBIG);
	training = good;
	training.count = 3;
	assert_int_equal(dictionary_train(&training, &dictionary), RSHM_E_INVALID);
	assert_null(dictionary);
	longer[64] = '\0';
	training = good;
	training.content_type = longer;
	training.created_ms = NOW;
	assert_int_equal(dictionary_train(&training, &dictionary), RSHM_OK);
	dictionary_describe(dictionary, &info);
	assert_int_not_equal(info.id, 0);
	assert_int_equal(info.id, dictionary_id(dictionary));
	assert_string_equal(info.tenant, "acme");
	assert_string_equal(info.content_type, longer);
	assert_int_equal(info.created_ms, NOW);
	assert_in_range(info.length, 256, 4096);
	assert_true(info.memory > info.length);
	dictionary_unref(&dictionary);
	json_samples_free(&samples);
}

static void record_brings_back_the_same_dictionary(void **state)
{
	struct dictionary *dictionary = train_for("acme", JSON, NOW, 1), *back = NULL;
	struct envelope_compression compression = {.choice = ENVELOPE_CHOOSE_ZSTD, .dictionary = dictionary};
	struct json_samples text = json_samples_make(3, 1, 1024);
	struct envelope_buffer entry = encode(text.bytes, 1024, &compression), record;
	struct envelope_view view;
	struct dictionary_info info, back_info;
	char plain[1024], key[DICTIONARY_KEY_MAX];
	bool retired = true;

	(void)state;
	assert_int_equal(dictionary_encode(dictionary, false, 77, 5, &record), RSHM_OK);
	assert_int_equal(envelope_open(record.bytes, record.length, key,
				       dictionary_key(dictionary_id(dictionary), key), &view),
			 RSHM_OK);
	assert_int_equal(view.head.version, 77);
	assert_int_equal(view.head.writer_id, 5);
	assert_int_equal(view.head.expiry_ms, 0);
	assert_int_equal(
		dictionary_decode(record.bytes, record.length, "acme", dictionary_id(dictionary), 0, &back, &retired),
		RSHM_OK);
	assert_false(retired);
	dictionary_describe(dictionary, &info);
	dictionary_describe(back, &back_info);
	assert_memory_equal(&info, &back_info, sizeof info);
	view = open_with(&entry, back);
	assert_int_equal(envelope_payload(&view, plain, sizeof plain), RSHM_OK);
	assert_memory_equal(plain, text.bytes, 1024);
	envelope_buffer_fini(&record);
	dictionary_unref(&back);

	assert_int_equal(dictionary_encode(dictionary, true, 78, 5, &record), RSHM_OK);
	assert_int_equal(dictionary_decode(record.bytes, record.length, "acme", 0, 0, &back, &retired), RSHM_OK);
	assert_true(retired);
	dictionary_unref(&back);
	envelope_buffer_fini(&record);
	envelope_buffer_fini(&entry);
	json_samples_free(&text);
	dictionary_unref(&dictionary);
}

static int decode_status(const struct envelope_buffer *record, const char *tenant, uint32_t id)
{
	struct dictionary *dictionary = NULL;
	bool retired;
	int status = dictionary_decode(record->bytes, record->length, tenant, id, 0, &dictionary, &retired);

	assert_int_equal(dictionary != NULL, status == RSHM_OK);
	dictionary_unref(&dictionary);
	return status;
}

static void record_that_lies_is_refused(void **state)
{
	/* Offsets in the record, what is put there, and the answer under a right checksum. */
	static const struct {
		size_t at;
		unsigned char byte;
		int expected;
	} lies[] = {
		{0, 'X', RSHM_E_CORRUPT},   {4, 0, RSHM_E_CORRUPT},  {4, 2, RSHM_E_FORMAT},   {5, 2, RSHM_E_FORMAT},
		{6, 15, RSHM_E_CORRUPT},    {6, 17, RSHM_E_CORRUPT}, {7, 1, RSHM_E_CORRUPT},  {20, 1, RSHM_E_CORRUPT},
		{22, 0x7f, RSHM_E_CORRUPT}, {23, 1, RSHM_E_CORRUPT}, {24, 0, RSHM_E_CORRUPT}, {40, 0, RSHM_E_CORRUPT},
	};
	struct dictionary *dictionary = train_for("acme", JSON, NOW, 1);
	uint32_t id = dictionary_id(dictionary);
	struct envelope_buffer record;
	size_t before, whole;
	char key[DICTIONARY_KEY_MAX];
	unsigned char *bytes;

	(void)state;
	assert_int_equal(dictionary_encode(dictionary, false, 1, 1, &record), RSHM_OK);
	bytes = record.bytes;
	before = ENVELOPE_HEAD_BYTES + dictionary_key(id, key);
	assert_int_equal(decode_status(&record, "acme", id), RSHM_OK);
	assert_int_equal(decode_status(&record, "acme", id ^ 1), RSHM_E_CORRUPT);
	assert_int_equal(decode_status(&record, "", id), RSHM_E_INVALID);
	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
		unsigned char old = bytes[before + lies[i].at];

		assert_int_not_equal(old, lies[i].byte);
		bytes[before + lies[i].at] = lies[i].byte;
		assert_int_equal(decode_status(&record, "acme", id), RSHM_E_CORRUPT);
		mend_checksum(&record);
		assert_int_equal(decode_status(&record, "acme", id), lies[i].expected);
		bytes[before + lies[i].at] = old;
		mend_checksum(&record);
	}
	/* The id of the record and the key of its envelope must agree. */
	bytes[before + 16] ^= 1;
	mend_checksum(&record);
	assert_int_equal(decode_status(&record, "acme", 0), RSHM_E_CORRUPT);
	bytes[before + 16] ^= 1;
	mend_checksum(&record);
	whole = record.length;
	for (record.length = 0; record.length < whole; record.length += 1 + record.length / 50)
		assert_int_equal(decode_status(&record, "acme", id), RSHM_E_CORRUPT);
	record.length = whole;
	assert_int_equal(decode_status(&record, "acme", id), RSHM_OK);
	envelope_buffer_fini(&record);
	dictionary_unref(&dictionary);
}

/* ---- registry ----------------------------------------------------------------------------------------------- */

struct misses {
	struct dictionary_registry *registry;
	struct dictionary *supply; /* added when asked for, as a fetch would */
	unsigned count;
	uint32_t id;
	char tenant[RSHM_TENANT_MAX + 1];
};

static void note_missing(void *context, const char *tenant, uint32_t id)
{
	struct misses *misses = context;

	misses->count++;
	misses->id = id;
	snprintf(misses->tenant, sizeof misses->tenant, "%s", tenant);
	if (misses->supply != NULL)
		dictionary_add(misses->registry, misses->supply, false);
}

static struct dictionary_registry *make_registry(size_t max_count, struct misses *misses)
{
	struct dictionary_registry_options options = {.max_count = max_count};
	struct dictionary_registry *registry;

	if (misses != NULL) {
		options.missing = note_missing;
		options.context = misses;
	}
	assert_int_equal(dictionary_registry_create(&options, &registry), RSHM_OK);
	if (misses != NULL)
		misses->registry = registry;
	return registry;
}

/* The id that would be chosen, 0 for none. */
static uint32_t chosen(struct dictionary_registry *registry, const char *tenant, const char *type)
{
	struct dictionary *dictionary = dictionary_choose(registry, tenant, type, strlen(type));
	uint32_t id = dictionary != NULL ? dictionary_id(dictionary) : 0;

	dictionary_unref(&dictionary);
	return id;
}

static bool is_known(struct dictionary_registry *registry, const char *tenant, uint32_t id)
{
	struct dictionary *dictionary = dictionary_find(registry, tenant, id);
	bool known = dictionary != NULL;

	assert_true(!known || dictionary_id(dictionary) == id);
	dictionary_unref(&dictionary);
	return known;
}

static void registry_chooses_the_newest_of_exactly_tenant_and_type(void **state)
{
	struct dictionary_registry *registry = make_registry(0, NULL);
	struct dictionary *old = train_for("acme", JSON, NOW, 1), *new = train_for("acme", JSON, NOW + 1, 2);
	struct dictionary *other = train_for("other", JSON, NOW + 2, 3), *untyped = train_for("acme", "", NOW + 3, 4);
	struct dictionary_info infos[4];

	(void)state;
	assert_int_equal(chosen(registry, "acme", JSON), 0);
	dictionary_add(registry, new, false);
	dictionary_add(registry, old, false);
	dictionary_add(registry, other, false);
	dictionary_add(registry, untyped, false);
	assert_int_equal(chosen(registry, "acme", JSON), dictionary_id(new));
	assert_int_equal(chosen(registry, "acme", ""), dictionary_id(untyped));
	assert_int_equal(chosen(registry, "other", JSON), dictionary_id(other));
	assert_int_equal(chosen(registry, "other", ""), 0);
	assert_int_equal(chosen(registry, "acme", "application/jso"), 0);
	assert_int_equal(chosen(registry, "acm", JSON), 0);
	assert_null(dictionary_choose(registry, "acme", JSON, 1000));

	assert_int_equal(dictionary_list(registry, "acme", infos, 4), 3);
	assert_int_equal(infos[0].id, dictionary_id(old));
	assert_int_equal(infos[1].id, dictionary_id(new));
	assert_int_equal(infos[2].id, dictionary_id(untyped));
	assert_int_equal(dictionary_list(registry, NULL, infos, 1), 4);

	/* Retired or forgotten, the next one takes its place; a retired one is still read with. */
	assert_int_equal(dictionary_retire(registry, "acme", dictionary_id(new)), RSHM_OK);
	assert_int_equal(chosen(registry, "acme", JSON), dictionary_id(old));
	assert_true(is_known(registry, "acme", dictionary_id(new)));
	assert_int_equal(dictionary_list(registry, "acme", infos, 4), 3);
	assert_true(infos[1].retired && !infos[0].retired);
	dictionary_add(registry, new, false);
	assert_int_equal(chosen(registry, "acme", JSON), dictionary_id(new));
	dictionary_add(registry, new, true);
	assert_int_equal(chosen(registry, "acme", JSON), dictionary_id(old));
	assert_int_equal(dictionary_list(registry, NULL, infos, 4), 4);
	assert_int_equal(dictionary_forget(registry, "acme", dictionary_id(old)), RSHM_OK);
	assert_int_equal(chosen(registry, "acme", JSON), 0);
	assert_int_equal(dictionary_forget(registry, "acme", dictionary_id(old)), RSHM_MISS);
	assert_int_equal(dictionary_retire(registry, "acme", dictionary_id(old)), RSHM_MISS);
	assert_int_equal(dictionary_forget(registry, "acme", dictionary_id(other)), RSHM_MISS);
	dictionary_registry_destroy(&registry);
	dictionary_unref(&old);
	dictionary_unref(&new);
	dictionary_unref(&other);
	dictionary_unref(&untyped);
}

static void registry_tells_what_is_missing(void **state)
{
	struct misses misses = {.count = 0};
	struct dictionary_registry *registry = make_registry(0, &misses);
	struct dictionary *dictionary = train_for("acme", JSON, NOW, 1);
	uint32_t id = dictionary_id(dictionary);

	(void)state;
	assert_false(is_known(registry, "acme", id));
	assert_int_equal(misses.count, 1);
	assert_int_equal(misses.id, id);
	assert_string_equal(misses.tenant, "acme");
	/* One that is added from within is found by the next look-up. */
	misses.supply = dictionary;
	assert_false(is_known(registry, "acme", id));
	misses.supply = NULL;
	assert_true(is_known(registry, "acme", id));
	assert_int_equal(misses.count, 2);
	/* Another tenant's is not found by its number. */
	assert_false(is_known(registry, "other", id));
	assert_int_equal(misses.count, 3);
	assert_string_equal(misses.tenant, "other");
	/* Nothing is missed when there is none to compress with. */
	assert_int_equal(chosen(registry, "other", JSON), 0);
	assert_int_equal(misses.count, 3);
	dictionary_registry_destroy(&registry);
	dictionary_unref(&dictionary);
}

static void full_registry_lets_those_go_that_can_be_fetched_again(void **state)
{
	struct dictionary_registry *registry = make_registry(3, NULL);
	struct dictionary *outdated = train_for("acme", JSON, NOW, 1), *current = train_for("acme", JSON, NOW + 1, 2);
	struct dictionary *text = train_for("acme", "text/plain", NOW, 3),
			  *html = train_for("acme", "text/html", NOW, 4);
	struct dictionary *more = train_for("acme", "text/css", NOW, 5);

	(void)state;
	dictionary_add(registry, current, false);
	dictionary_add(registry, text, false);
	dictionary_add(registry, outdated, false);
	assert_true(is_known(registry, "acme", dictionary_id(outdated)));
	/* Full: the outdated one goes although it was asked for last. */
	dictionary_add(registry, html, false);
	assert_int_equal(dictionary_list(registry, NULL, NULL, 0), 3);
	assert_false(is_known(registry, "acme", dictionary_id(outdated)));
	/* Then the one that was not asked for longest. */
	assert_int_equal(chosen(registry, "acme", JSON), dictionary_id(current));
	dictionary_add(registry, more, false);
	assert_int_equal(dictionary_list(registry, NULL, NULL, 0), 3);
	assert_int_equal(chosen(registry, "acme", "text/plain"), 0);
	assert_int_equal(chosen(registry, "acme", "text/html"), dictionary_id(html));
	assert_int_equal(chosen(registry, "acme", "text/css"), dictionary_id(more));
	assert_int_equal(chosen(registry, "acme", JSON), dictionary_id(current));
	dictionary_registry_destroy(&registry);
	dictionary_unref(&outdated);
	dictionary_unref(&current);
	dictionary_unref(&text);
	dictionary_unref(&html);
	dictionary_unref(&more);
}

struct user {
	pthread_t thread;
	struct dictionary_registry *registry;
	const char *text;
	bool stop; /* atomic */
	size_t rounds, with_dictionary, mistakes;
};

static void *use_dictionaries(void *context)
{
	struct user *user = context;
	char plain[1024];

	while (!__atomic_load_n(&user->stop, __ATOMIC_RELAXED)) {
		struct dictionary *dictionary = dictionary_choose(user->registry, "acme", JSON, strlen(JSON)), *found;
		struct envelope_compression compression = {.choice = ENVELOPE_CHOOSE_ZSTD, .dictionary = dictionary};
		struct envelope_input input = {.key = "k", .key_len = 1, .value = user->text, .value_len = 1024};
		struct envelope_buffer buffer;
		struct envelope_view view;

		user->mistakes += envelope_encode(&input, &compression, &buffer) != RSHM_OK ||
				  envelope_open(buffer.bytes, buffer.length, "k", 1, &view) != RSHM_OK;
		found = view.head.dictionary_id == 0
				? NULL
				: dictionary_find(user->registry, "acme", view.head.dictionary_id);
		/* It may have been forgotten meanwhile; what this thread holds is as good. */
		view.dictionary = found != NULL ? found : dictionary;
		user->mistakes += envelope_payload(&view, plain, sizeof plain) != RSHM_OK ||
				  memcmp(plain, user->text, sizeof plain) != 0;
		user->with_dictionary += view.head.dictionary_id != 0;
		user->rounds++;
		dictionary_unref(&found);
		dictionary_unref(&dictionary);
		envelope_buffer_fini(&buffer);
	}
	return NULL;
}

static void dictionary_is_replaced_while_threads_use_it(void **state)
{
	struct dictionary_registry *registry = make_registry(2, NULL);
	struct json_samples text = json_samples_make(3, 1, 1024);
	struct dictionary *first = train_for("acme", JSON, NOW, 1);
	struct envelope_buffer record;
	struct user users[2] = {0};

	(void)state;
	assert_int_equal(dictionary_encode(first, false, 1, 1, &record), RSHM_OK);
	for (size_t i = 0; i < 2; i++) {
		users[i].registry = registry;
		users[i].text = text.bytes;
		assert_int_equal(pthread_create(&users[i].thread, NULL, use_dictionaries, &users[i]), 0);
	}
	/* Each round another object of the same id, and now and then none at all. */
	for (size_t round = 0; round < 300; round++) {
		struct dictionary *again = NULL;
		bool retired;

		assert_int_equal(dictionary_decode(record.bytes, record.length, "acme", 0, 0, &again, &retired),
				 RSHM_OK);
		dictionary_add(registry, again, round % 5 == 1);
		dictionary_unref(&again);
		if (round % 7 == 3)
			assert_int_equal(dictionary_forget(registry, "acme", dictionary_id(first)), RSHM_OK);
	}
	for (size_t i = 0; i < 2; i++) {
		__atomic_store_n(&users[i].stop, true, __ATOMIC_RELAXED);
		assert_int_equal(pthread_join(users[i].thread, NULL), 0);
		assert_int_equal(users[i].mistakes, 0);
		assert_true(users[i].rounds > 0 && users[i].with_dictionary > 0);
	}
	envelope_buffer_fini(&record);
	dictionary_registry_destroy(&registry);
	dictionary_registry_destroy(&registry);
	json_samples_free(&text);
	dictionary_unref(&first);
}

#else

static void build_without_compression_has_no_dictionaries(void **state)
{
	static const unsigned char record[] = {'R', 'P', 'T', 'D', 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0,
					       42,  0,   0,   0,   8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8};
	struct envelope_input input = {.key = "42", .key_len = 2, .value = record, .value_len = sizeof record};
	struct json_samples samples = json_samples_make(1, 100, 1024);
	struct dictionary_training training = {.tenant = "acme",
					       .content_type = JSON,
					       .samples = samples.bytes,
					       .sizes = samples.sizes,
					       .count = samples.count};
	struct dictionary *dictionary = NULL;
	struct envelope_buffer buffer;
	bool retired;

	(void)state;
	assert_int_equal(dictionary_train(&training, &dictionary), RSHM_E_FORMAT);
	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	assert_int_equal(dictionary_decode(buffer.bytes, buffer.length, "acme", 42, 0, &dictionary, &retired),
			 RSHM_E_FORMAT);
	assert_null(dictionary);
	envelope_buffer_fini(&buffer);
	json_samples_free(&samples);
}

#endif

static void record_keys_are_decimal(void **state)
{
	char key[DICTIONARY_KEY_MAX];

	(void)state;
	assert_int_equal(dictionary_key(1, key), 1);
	assert_string_equal(key, "1");
	assert_int_equal(dictionary_key(UINT32_MAX, key), 10);
	assert_string_equal(key, "4294967295");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#if RIPTIDE_COMPRESSION
		cmocka_unit_test(dictionary_leaves_less_of_unseen_values_than_plain_zstd),
		cmocka_unit_test(dictionary_serves_values_up_to_a_bound_and_lowers_the_threshold_of_small_ones),
		cmocka_unit_test(ten_percent_rule_holds_with_a_dictionary_too),
		cmocka_unit_test(entry_without_its_dictionary_has_an_error_of_its_own),
		cmocka_unit_test(other_bytes_under_the_same_id_are_noticed),
		cmocka_unit_test(flipped_payload_gives_the_right_bytes_or_none),
		cmocka_unit_test(training_checks_what_it_gets),
		cmocka_unit_test(record_brings_back_the_same_dictionary),
		cmocka_unit_test(record_that_lies_is_refused),
		cmocka_unit_test(registry_chooses_the_newest_of_exactly_tenant_and_type),
		cmocka_unit_test(registry_tells_what_is_missing),
		cmocka_unit_test(full_registry_lets_those_go_that_can_be_fetched_again),
		cmocka_unit_test(dictionary_is_replaced_while_threads_use_it),
#else
		cmocka_unit_test(build_without_compression_has_no_dictionaries),
#endif
		cmocka_unit_test(record_keys_are_decimal),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
