/*
 * ring_writer_test.c - the writer against an exact model of what it holds, and against readers at the worst moments.
 *
 * The model learns of evictions through the drop callback alone, so a miss that nobody was told about fails. Kills are
 * the torture test's; races run here between threads on one mapping, for the thread sanitizer.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/index.h"
#include "shm/order.h"
#include "shm/ring.h"

#define SEED 99u
#define RING_BYTES (256u << 10)
#define HEADER_UNITS 3u
#define CHURN (RSHM_TSAN ? 6000u : 60000u)

struct fixture {
	unsigned char *object;
	struct rshm_geometry geometry;
	struct rshm_writer writer;
	struct rshm_reader reader;
};

static uint64_t random_state;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct rshm_header header = {.generation = 1};

	random_state = 0x9e3779b97f4a7c15u;
	rshm_geometry_plan(RING_BYTES, 1u << 20, &f->geometry);
	f->object = mmap(NULL, f->geometry.object_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (f->object == MAP_FAILED)
		return -1;
	rshm_writer_format(f->object, &f->geometry, &header, "default", SEED, &f->writer);
	rshm_writer_publish(&f->writer, RSHM_POLICY_MISS, 0);
	*state = f;
	return rshm_reader_init(f->object, f->geometry.object_size, &f->reader);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	munmap(f->object, f->geometry.object_size);
	free(f);
	return 0;
}

static int put(struct fixture *f, const char *key, const void *value, size_t length, uint64_t version)
{
	struct rshm_item item = {
		.key = key,
		.key_len = (uint16_t)strlen(key),
		.value = value,
		.value_len = (uint32_t)length,
		.version = version,
		.control_a = rshm_control_a(0, 0, 1),
		.control_b = RSHM_NEVER,
	};

	return rshm_writer_put(&f->writer, &item);
}

static enum rshm_outcome find(const struct fixture *f, const char *key, struct rshm_found *found)
{
	return rshm_find(&f->reader, rshm_hash(SEED, key, strlen(key)), key, strlen(key), found);
}

static uint64_t position_of(const struct fixture *f, const char *key)
{
	struct rshm_item item;
	uint64_t position = 0;

	assert_true(rshm_writer_find(&f->writer, key, strlen(key), &item, &position));
	return position;
}

/* Writes one entry of exactly this many units under a key of its own. */
static void put_units(struct fixture *f, uint64_t units, uint64_t number)
{
	static const char zeros[16384];
	char key[32];
	size_t key_len = (size_t)snprintf(key, sizeof(key), "%06lu", (unsigned long)number);
	size_t value_len = units * RSHM_UNIT - sizeof(struct rshm_entry) - key_len;

	assert_true(value_len <= sizeof(zeros));
	assert_int_equal(put(f, key, zeros, value_len, number + 1), RSHM_OK);
}

static uint64_t count_by_walk(const struct fixture *f)
{
	uint64_t entries = 0, cursor = 0, position;
	uint32_t steps = UINT32_MAX;
	struct rshm_item item;

	while (rshm_writer_walk(&f->writer, &cursor, &steps, &item, &position))
		entries++;
	return entries;
}

/* ---- the model ------------------------------------------------------------------------------------------------ */

#define MODEL_KEYS 700u

struct model {
	uint64_t version[MODEL_KEYS]; /* 0 = absent */
	uint64_t units[MODEL_KEYS];
	uint64_t drops;
};

static uint32_t model_number(const struct rshm_item *item)
{
	char text[16] = "";

	assert_true(item->key_len > 0 && item->key_len < sizeof(text));
	memcpy(text, item->key, item->key_len);
	return (uint32_t)strtoul(text, NULL, 10);
}

static void model_on_drop(void *context, const struct rshm_item *item, uint64_t position)
{
	struct model *model = context;
	uint32_t k = model_number(item);

	(void)position;
	assert_true(k < MODEL_KEYS);
	assert_true(model->version[k] != 0);
	assert_int_equal(item->version, model->version[k]);
	model->version[k] = 0;
	model->drops++;
}

static bool model_keep(void *context, struct rshm_item *item, uint64_t position)
{
	(void)context;
	(void)position;
	return item->version % 5 == 0;
}

static void model_probe(struct fixture *f, const struct model *model, uint32_t k)
{
	static unsigned char copy[4096];
	struct rshm_found found;
	char key[16];
	enum rshm_outcome outcome;

	snprintf(key, sizeof(key), "%u", k);
	outcome = rshm_read(&f->reader, rshm_hash(SEED, key, strlen(key)), key, strlen(key), copy, sizeof(copy), NULL,
			    0, &found);
	assert_int_equal(outcome, model->version[k] ? RSHM_FOUND : RSHM_NOT_FOUND);
	if (outcome != RSHM_FOUND)
		return;
	assert_int_equal(found.entry.version, model->version[k]);
	for (uint32_t i = 0; i < found.entry.value_len; i++)
		if (copy[i] != (unsigned char)(model->version[k] + i))
			fail_msg("byte %u of key %u is not version %lu's", i, k, (unsigned long)model->version[k]);
}

static void model_change(struct fixture *f, struct model *model, uint64_t version)
{
	static unsigned char value[4096];
	uint32_t k = (uint32_t)(random_next() % MODEL_KEYS);
	size_t length = (size_t)(random_next() % (random_next() % 8 ? 200 : sizeof(value)));
	char key[16];

	snprintf(key, sizeof(key), "%u", k);
	if (random_next() % 16 == 0) {
		assert_int_equal(rshm_writer_remove(&f->writer, key, strlen(key)), model->version[k] != 0);
		model->version[k] = 0;
		return;
	}
	for (size_t i = 0; i < length; i++)
		value[i] = (unsigned char)(version + i);
	assert_int_equal(put(f, key, value, length, version), RSHM_OK);
	model->version[k] = version;
	model->units[k] = rshm_entry_bytes(strlen(key), 0, length) / RSHM_UNIT;
}

static void key_is_missed_only_after_its_eviction_was_told(void **state)
{
	struct fixture *f = *state;
	struct model *model = calloc(1, sizeof(*model));
	uint64_t entries = 0, units = 0;

	f->writer.drop = model_on_drop;
	f->writer.keep = model_keep;
	f->writer.context = model;
	for (uint64_t version = 1; version <= 100000; version++) {
		model_change(f, model, version);
		model_probe(f, model, (uint32_t)(random_next() % MODEL_KEYS));
	}
	for (uint32_t k = 0; k < MODEL_KEYS; k++) {
		model_probe(f, model, k);
		entries += model->version[k] != 0;
		units += model->version[k] ? model->units[k] : 0;
	}
	assert_int_equal(f->writer.live_entries, entries);
	assert_int_equal(f->writer.live_units, units);
	assert_int_equal(count_by_walk(f), entries);
	assert_int_equal(model->drops, f->writer.evictions + f->writer.displaced);
	assert_true(model->drops > 1000 && f->writer.reinsertions > 1000);
	free(model);
}

/* ---- the ring's end ------------------------------------------------------------------------------------------- */

/* Fills up until exactly `rest` units are left before the ring's end: of this lap, or of the next. */
static void go_to_rest(struct fixture *f, uint64_t rest, uint64_t *number)
{
	uint64_t limit = f->geometry.entry_limit / RSHM_UNIT;

	for (unsigned int puts = 0; puts < 100000; puts++) {
		uint64_t to_end = f->writer.units - (f->writer.head & (f->writer.units - 1));
		uint64_t gap = to_end >= rest ? to_end - rest : to_end;

		if (gap == 0)
			return;
		if (gap > limit)
			gap = gap - limit < HEADER_UNITS ? limit - HEADER_UNITS : limit;
		/* Where no entry is so small, the next lap will do. */
		put_units(f, gap < HEADER_UNITS ? HEADER_UNITS + 1 : gap, (*number)++);
	}
	fail_msg("no way to leave %lu units", (unsigned long)rest);
}

static void entry_that_does_not_fit_before_the_end_begins_at_the_start(void **state)
{
	struct fixture *f = *state;
	uint64_t limit = f->geometry.entry_limit / RSHM_UNIT, number = 0;
	struct rshm_writer next;

	for (uint64_t rest = 1; rest < limit; rest += rest < 20 ? 1 : 37) {
		uint64_t units = rest + 1 < HEADER_UNITS ? HEADER_UNITS : rest + 1, lap;
		char before[32], key[32];

		go_to_rest(f, rest, &number);
		lap = f->writer.head / f->writer.units;
		snprintf(before, sizeof(before), "%06lu", (unsigned long)number - 1);
		snprintf(key, sizeof(key), "%06lu", (unsigned long)number);
		put_units(f, units, number++);
		assert_int_equal(position_of(f, key), (lap + 1) * f->writer.units);
		assert_true(position_of(f, before) < (lap + 1) * f->writer.units);
		put_units(f, HEADER_UNITS, number++);
		assert_int_equal(count_by_walk(f), f->writer.live_entries);
		assert_int_equal(rshm_writer_adopt(f->object, f->geometry.object_size, &next), RSHM_OK);
		assert_int_equal(next.live_entries, f->writer.live_entries);
		assert_int_equal(next.live_units, f->writer.live_units);
	}
}

static void entry_that_ends_with_the_ring_needs_no_filler(void **state)
{
	struct fixture *f = *state;
	uint64_t number = 0;

	for (uint64_t rest = HEADER_UNITS; rest < 40; rest++) {
		char key[32];
		uint64_t start;

		go_to_rest(f, rest, &number);
		start = f->writer.head;
		snprintf(key, sizeof(key), "%06lu", (unsigned long)number);
		put_units(f, rest, number++);
		assert_int_equal(position_of(f, key), start);
		assert_int_equal(f->writer.head % f->writer.units, 0);
	}
}

/* ---- reclaim and displacement --------------------------------------------------------------------------------- */

static bool keep_special(void *context, struct rshm_item *item, uint64_t position)
{
	(void)context;
	(void)position;
	return item->key_len == 7 && memcmp(item->key, "special", 7) == 0;
}

static void kept_entry_is_the_same_at_its_new_place_but_untouched(void **state)
{
	struct fixture *f = *state;
	struct rshm_item item = {
		.key = "special",
		.key_len = 7,
		.metadata = "abc",
		.metadata_len = 3,
		.value = "value",
		.value_len = 5,
		.version = 1234,
		.control_a = rshm_control_a(RSHM_FLAG_TAGGED, 9, 77),
		.control_b = 5555,
	};
	struct rshm_item kept;
	uint64_t first, position;

	f->writer.keep = keep_special;
	assert_int_equal(rshm_writer_put(&f->writer, &item), RSHM_OK);
	first = position_of(f, "special");
	assert_true(rshm_writer_touch(&f->writer, first));
	for (uint64_t i = 0; i < 2000; i++)
		put_units(f, 40, i);
	assert_true(rshm_writer_find(&f->writer, "special", 7, &kept, &position));
	assert_true(position > first + f->writer.units);
	assert_int_equal(kept.version, 1234);
	assert_true(kept.control_a == rshm_control_a(RSHM_FLAG_TAGGED, 9, 77));
	assert_int_equal(kept.control_b, 5555);
	assert_int_equal(kept.value_len, 5);
	assert_memory_equal(kept.value, "value", 5);
	assert_int_equal(kept.metadata_len, 3);
	assert_memory_equal(kept.metadata, "abc", 3);
	assert_false(rshm_writer_touch(&f->writer, first));
}

static void an_entry_is_found_by_its_position_while_it_lives(void **state)
{
	struct fixture *f = *state;
	struct rshm_item item;
	uint64_t first, second;

	put(f, "k", "one", 3, 1);
	first = position_of(f, "k");
	assert_true(rshm_writer_at(&f->writer, first, &item));
	assert_int_equal(item.key_len, 1);
	assert_memory_equal(item.key, "k", 1);
	assert_int_equal(item.version, 1);
	assert_memory_equal(item.value, "one", 3);
	/* Clients name positions: what is no entry's, or no living one's, is refused. */
	item.version = 99;
	assert_false(rshm_writer_at(&f->writer, first + 1, &item));
	assert_false(rshm_writer_at(&f->writer, UINT64_MAX, &item));
	assert_false(rshm_writer_at(&f->writer, f->writer.head, &item));
	put(f, "k", "two", 3, 2);
	second = position_of(f, "k");
	assert_false(rshm_writer_at(&f->writer, first, &item));
	assert_int_equal(item.version, 99);
	assert_true(rshm_writer_at(&f->writer, second, &item));
	assert_int_equal(item.version, 2);
	assert_true(rshm_writer_remove(&f->writer, "k", 1));
	assert_false(rshm_writer_at(&f->writer, second, &item));
}

static void appends_go_on_when_the_policy_wants_to_keep_everything(void **state)
{
	struct fixture *f = *state;
	uint64_t limit = f->geometry.entry_limit / RSHM_UNIT;

	f->writer.keep = model_keep;
	for (uint32_t percent = 0; percent <= 100000; percent = percent ? percent * 10 : 100) {
		f->writer.reinsert_percent = percent;
		for (uint64_t i = 0; i < 2000; i++)
			put_units(f, HEADER_UNITS + random_next() % (limit - HEADER_UNITS), i % 300 * 5 + 4);
		assert_int_equal(count_by_walk(f), f->writer.live_entries);
		assert_true(f->writer.reinsert_credit <= f->writer.units);
	}
}

/* Fills both lines of `hash` with words of live entries; returns how many keys it made. */
static unsigned int fill_lines(struct fixture *f, struct rshm_candidates lines, char keys[][16])
{
	unsigned int n = 0;

	for (unsigned int i = 0; n < 2 * RSHM_BUCKET_WORDS; i++) {
		char key[16];
		struct rshm_candidates c;

		snprintf(key, sizeof(key), "f%u", i);
		c = rshm_candidates(rshm_hash(SEED, key, strlen(key)), f->geometry.bucket_count);
		if ((c.first != lines.first || c.second != lines.second) &&
		    (c.first != lines.second || c.second != lines.first))
			continue;
		assert_int_equal(put(f, key, "x", 1, n + 1), RSHM_OK);
		memcpy(keys[n++], key, sizeof(key));
	}
	return n;
}

static void full_lines_displace_the_oldest_untouched_entry(void **state)
{
	struct fixture *f = *state;
	static char keys[2 * RSHM_BUCKET_WORDS][16];
	struct rshm_found found;
	const char *newcomer = "newcomer";
	uint64_t hash = rshm_hash(SEED, newcomer, strlen(newcomer));
	unsigned int n = fill_lines(f, rshm_candidates(hash, f->geometry.bucket_count), keys);

	/* The two oldest are touched, so the third has to go. */
	assert_true(rshm_writer_touch(&f->writer, position_of(f, keys[0])));
	assert_true(rshm_writer_touch(&f->writer, position_of(f, keys[1])));
	assert_int_equal(put(f, newcomer, "y", 1, 100), RSHM_OK);
	assert_int_equal(f->writer.displaced, 1);
	assert_int_equal(find(f, newcomer, &found), RSHM_FOUND);
	for (unsigned int i = 0; i < n; i++)
		assert_int_equal(find(f, keys[i], &found), i == 2 ? RSHM_NOT_FOUND : RSHM_FOUND);
	assert_int_equal(f->writer.live_entries, n);
}

/* ---- walking ---------------------------------------------------------------------------------------------------- */

static void walk_stops_after_its_steps_and_goes_on_where_it_stopped(void **state)
{
	struct fixture *f = *state;
	uint64_t cursor = 0, position, last = 0;
	unsigned int seen = 0, calls = 0;
	struct rshm_item item;

	for (uint64_t i = 0; i < 300; i++)
		put_units(f, 10, i % 200);
	while (cursor < f->writer.head) {
		uint32_t steps = 1;

		assert_true(calls++ < 10000);
		if (!rshm_writer_walk(&f->writer, &cursor, &steps, &item, &position))
			continue;
		assert_true(position > last);
		assert_int_equal(model_number(&item) + 1, item.version);
		last = position;
		seen++;
	}
	assert_int_equal(seen, 200);
	cursor = UINT64_MAX;
	calls = UINT32_MAX;
	assert_false(rshm_writer_walk(&f->writer, &cursor, &calls, &item, &position));
}

static void walk_ends_although_puts_overtake_its_cursor(void **state)
{
	struct fixture *f = *state;
	uint64_t cursor = 0, position, number = 0;
	struct rshm_item item;
	unsigned int seen = 0;

	for (; number < 500; number++)
		put_units(f, 30, number);
	for (unsigned int calls = 0; calls < 3000; calls++) {
		uint32_t steps = 2;

		if (rshm_writer_walk(&f->writer, &cursor, &steps, &item, &position)) {
			assert_true(position >= f->writer.tail && position < f->writer.head);
			assert_int_equal(model_number(&item) + 1, item.version);
			seen++;
		}
		for (unsigned int i = 0; i < 5 && calls < 2000; i++)
			put_units(f, 30, number++);
	}
	assert_true(seen > 500);
	assert_int_equal(cursor, f->writer.head);
}

/* ---- what a killed writer leaves -------------------------------------------------------------------------------- */

/*
 * The hole of a writer that died after storing head: old bytes, and these claim to be headers of their future positions,
 * as an entry, or as a filler that spans what will be written next.
 */
static void leave_forged_hole(struct fixture *f, uint32_t flags, uint32_t value_len)
{
	uint64_t start = f->writer.head;
	struct rshm_segment *s = (void *)f->object;

	for (uint64_t unit = 0; unit < 100; unit += HEADER_UNITS + 1) {
		struct rshm_entry forged = {
			.position = start + unit,
			.control_a = flags,
			.control_b = RSHM_NEVER,
			.version = 666,
			.value_len = value_len,
			.key_len = 3,
		};
		unsigned char *place = f->writer.ring + (forged.position & (f->writer.units - 1)) * RSHM_UNIT;

		memcpy(place, &forged, sizeof(forged));
		memcpy(place + sizeof(forged), "key", 3);
	}
	s->head = start + 100;
}

/* Whatever lengths the hole holds, nothing comes to life, only the newest is read, and no entry is lost count of. */
static void forged_hole_misleads_neither_reader_nor_successor(void **state)
{
	static const struct {
		uint32_t flags, value_len;
	} forgeries[] = {{0, 5}, {RSHM_FLAG_FILLER, 0}, {0, 4000}, {RSHM_FLAG_FILLER, 150000}};
	struct fixture *f = *state;
	uint64_t number = 0;

	for (unsigned int i = 0; i < sizeof(forgeries) / sizeof(*forgeries); i++) {
		struct rshm_found found;

		go_to_rest(f, 16000, &number);
		leave_forged_hole(f, forgeries[i].flags, forgeries[i].value_len);
		assert_int_equal(rshm_writer_adopt(f->object, f->geometry.object_size, &f->writer), RSHM_OK);
		for (uint64_t k = 0; k < 1200; k++) {
			char key[32];

			snprintf(key, sizeof(key), "%06lu", (unsigned long)number);
			put_units(f, 20, number++);
			assert_int_equal(find(f, key, &found), RSHM_FOUND);
			assert_int_equal(found.entry.version, number);
			assert_int_equal(find(f, "key", &found), RSHM_NOT_FOUND);
			assert_false(rshm_writer_remove(&f->writer, "key", 3));
			assert_int_equal(count_by_walk(f), f->writer.live_entries);
		}
	}
}

/* ---- readers at the worst moment ------------------------------------------------------------------------------ */

/* The page of the entry being read is closed, and the ring laps while the reader stands before it. */
static struct fixture *lapped;
static uint64_t lapped_position;
static uint64_t *colliding_word, colliding_tag;
static volatile sig_atomic_t lap_count;

static void lap_under_the_reader(int signal_number)
{
	uint64_t number = 5000, collision = 0, window_end = lapped->writer.tail + lapped->writer.units;

	(void)signal_number;
	if (lap_count++ > 0)
		_Exit(3);
	mprotect(lapped->object, lapped->geometry.object_size, PROT_READ | PROT_WRITE);
	while (lapped->writer.head < lapped_position + lapped->writer.units + 200) {
		/* An entry that is still there when the reader goes on, within what it takes for the ring. */
		if (lapped->writer.head + 20 <= window_end)
			collision = lapped->writer.head;
		put_units(lapped, 20, number++);
	}
	*colliding_word = rshm_word(colliding_tag, collision);
}

static void kept_key_is_found_although_another_word_has_its_tag(void **state)
{
	struct fixture *f = *state;
	uint64_t hash = rshm_hash(SEED, "hot", 3);
	struct rshm_candidates c = rshm_candidates(hash, f->geometry.bucket_count);
	struct sigaction action = {.sa_handler = lap_under_the_reader}, before;
	struct rshm_found found;
	uintptr_t page;

	/* In a page of its own, away from the header that the reader looks at first. */
	for (uint64_t i = 0; i < 30; i++)
		put_units(f, 20, i);
	put(f, "hot", "v", 1, 7);
	lapped = f;
	lap_count = 0;
	lapped_position = position_of(f, "hot");
	rshm_writer_touch(&f->writer, lapped_position);
	/* The last word that a reader of this key looks at. */
	colliding_word = &f->writer.index[(uint64_t)c.second * RSHM_BUCKET_WORDS + RSHM_BUCKET_WORDS - 1];
	colliding_tag = c.tag;
	page = (uintptr_t)(f->writer.ring + (lapped_position & (f->writer.units - 1)) * RSHM_UNIT) & ~(uintptr_t)4095;
	assert_int_equal(sigaction(SIGSEGV, &action, &before), 0);
	assert_int_equal(mprotect((void *)page, 4096, PROT_NONE), 0);
	assert_int_equal(find(f, "hot", &found), RSHM_FOUND);
	assert_int_equal(sigaction(SIGSEGV, &before, NULL), 0);
	assert_int_equal(lap_count, 1);
	assert_int_equal(found.entry.version, 7);
	assert_true(found.entry.position > lapped_position);
}

/* An entry whose A ends one page and whose B begins the next: writing to B's page stops the writer in between. */
static uint64_t old_control_a;
static const uint64_t *control_words;

static void look_between_the_stores(int signal_number)
{
	(void)signal_number;
	if (lap_count++ > 0 || rshm_load_relaxed(&control_words[1]) != old_control_a)
		_Exit(3);
	mprotect(lapped->object, lapped->geometry.object_size, PROT_READ | PROT_WRITE);
}

/* Puts "key" where its header's second word is the last of a page. */
static uint64_t put_across_a_page(struct fixture *f)
{
	uint64_t number = 0, position;

	go_to_rest(f, f->writer.units - 1023, &number); /* three pages and 255 units after the start */
	put(f, "key", "v", 1, 1);
	position = position_of(f, "key");
	assert_int_equal(position % (RSHM_PAGE / RSHM_UNIT), RSHM_PAGE / RSHM_UNIT - 1);
	return position;
}

static void expiry_is_patched_before_the_epoch(void **state)
{
	struct fixture *f = *state;
	uint64_t position = put_across_a_page(f), new_control_a = rshm_control_a(0, 0, 5);
	struct sigaction action = {.sa_handler = look_between_the_stores}, before;
	unsigned char *place = f->writer.ring + (position & (f->writer.units - 1)) * RSHM_UNIT;

	lapped = f;
	lap_count = 0;
	control_words = (const void *)place;
	old_control_a = control_words[1];
	assert_int_equal(sigaction(SIGSEGV, &action, &before), 0);
	assert_int_equal(mprotect(place + RSHM_UNIT, RSHM_PAGE, PROT_READ), 0);
	assert_true(rshm_writer_patch(&f->writer, position, 1, new_control_a, 777));
	assert_int_equal(sigaction(SIGSEGV, &before, NULL), 0);
	assert_int_equal(lap_count, 1);
	assert_true(control_words[1] == new_control_a && control_words[2] == 777);
}

struct race {
	struct fixture *f;
	uint32_t stop;
	uint64_t reads, faults;
};

static void *watch_control_words(void *context)
{
	struct race *race = context;

	while (!rshm_load_relaxed32(&race->stop)) {
		struct rshm_found found;

		if (find(race->f, "key", &found) != RSHM_FOUND)
			continue;
		race->reads++;
		if (found.entry.control_b < rshm_control_epoch(found.entry.control_a))
			race->faults++;
	}
	return NULL;
}

static void who_sees_a_patched_epoch_sees_its_expiry(void **state)
{
	struct race race = {.f = *state};
	pthread_t thread;
	uint64_t position;

	position = put_across_a_page(race.f);
	assert_true(rshm_writer_patch(&race.f->writer, position, 1, rshm_control_a(0, 0, 1), 1));
	assert_int_equal(pthread_create(&thread, NULL, watch_control_words, &race), 0);
	for (uint32_t i = 2; i < 40 * CHURN; i++)
		assert_true(rshm_writer_patch(&race.f->writer, position, 1, rshm_control_a(0, 0, i), i));
	rshm_store_relaxed32(&race.stop, 1);
	pthread_join(thread, NULL);
	assert_true(race.reads > 0);
	assert_int_equal(race.faults, 0);
}

#define RACE_KEYS 64u

static void *check_values(void *context)
{
	struct race *race = context;
	uint64_t copy[200], newest[RACE_KEYS] = {0};

	for (uint32_t i = 0; !rshm_load_relaxed32(&race->stop); i++) {
		uint32_t k = i % RACE_KEYS;
		char key[16];
		struct rshm_found found;
		uint64_t hash;

		snprintf(key, sizeof(key), "%u", k);
		hash = rshm_hash(SEED, key, strlen(key));
		if (rshm_read(&race->f->reader, hash, key, strlen(key), copy, sizeof(copy), NULL, 0, &found) !=
		    RSHM_FOUND)
			continue;
		race->reads++;
		race->faults += found.entry.version < newest[k] || found.entry.version % RACE_KEYS != k;
		newest[k] = found.entry.version;
		for (uint32_t w = 0; w < found.entry.value_len / 8 && w < 200; w++)
			race->faults += copy[w] != found.entry.version * 31 + w;
	}
	return NULL;
}

static void readers_see_whole_values_that_never_grow_older(void **state)
{
	struct race races[2] = {{.f = *state}, {.f = *state}};
	pthread_t threads[2];
	uint64_t value[200];

	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, check_values, &races[i]), 0);
	for (uint64_t version = 1; version <= 5 * CHURN; version++) {
		size_t words = (size_t)(random_next() % 200);
		char key[16];

		snprintf(key, sizeof(key), "%u", (unsigned int)(version % RACE_KEYS));
		for (size_t w = 0; w < words; w++)
			value[w] = version * 31 + w;
		put(*state, key, value, words * 8, version);
	}
	for (unsigned int i = 0; i < 2; i++) {
		rshm_store_relaxed32(&races[i].stop, 1);
		pthread_join(threads[i], NULL);
		assert_true(races[i].reads > 100);
		assert_int_equal(races[i].faults, 0);
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(key_is_missed_only_after_its_eviction_was_told),
		CASE(entry_that_does_not_fit_before_the_end_begins_at_the_start),
		CASE(entry_that_ends_with_the_ring_needs_no_filler),
		CASE(an_entry_is_found_by_its_position_while_it_lives),
		CASE(kept_entry_is_the_same_at_its_new_place_but_untouched),
		CASE(appends_go_on_when_the_policy_wants_to_keep_everything),
		CASE(full_lines_displace_the_oldest_untouched_entry),
		CASE(walk_stops_after_its_steps_and_goes_on_where_it_stopped),
		CASE(walk_ends_although_puts_overtake_its_cursor),
		CASE(forged_hole_misleads_neither_reader_nor_successor),
		CASE(kept_key_is_found_although_another_word_has_its_tag),
		CASE(expiry_is_patched_before_the_epoch),
		CASE(who_sees_a_patched_epoch_sees_its_expiry),
		CASE(readers_see_whole_values_that_never_grow_older),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
