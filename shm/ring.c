/*
 * ring.c - geometry and the reader's side of the hot ring.
 *
 *      position 0        tail                         head          tail + size
 *   ───────┬──────────────┬────────────────────────────┬──────────────┬─────────▶ never wraps; offset = position mod size
 *          │   reclaimed  │  published, never changed  │  free (gap)  │
 *   ───────┴──────────────┴────────────────────────────┴──────────────┴─────────
 *
 *   index line: │tag pos│tag pos│   0   │ …8 words       entry: position A B version lengths │ key │ metadata │ value
 *
 * A read: load tail (t0), look for a word of the tag in two lines, load the header once, compare the whole key, copy, and
 * then look whether tail has passed the position. That last check alone carries correctness: before it the writer's steps
 * are (1) tail past everything it will overwrite, (2) head, (3) a full fence, (4) bytes, (5) the index word; so whoever
 * copied one overwritten byte sees the tail that gave it up. Value bytes may imitate a header, which is why the position
 * check in step 3 is an early exit only.
 *
 * Deliberately absent: any write, any lock, any unbounded loop; a reader killed anywhere leaves nothing behind.
 */
#include "shm/ring.h"

#include "shm/index.h"
#include "shm/order.h"

#define RSHM_READ_ATTEMPTS 3
#define RSHM_HEADER_UNITS ((sizeof(struct rshm_entry) + RSHM_UNIT - 1) / RSHM_UNIT)

static uint64_t round_up(uint64_t value, uint64_t multiple)
{
	return (value + multiple - 1) / multiple * multiple;
}

void rshm_geometry_plan(uint64_t ring_bytes, uint32_t entry_limit_max, struct rshm_geometry *ret)
{
	uint64_t bytes = RSHM_RING_MIN, words;

	while (bytes < ring_bytes && bytes < RSHM_RING_MAX)
		bytes *= 2;
	words = bytes / RSHM_BYTES_PER_WORD;
	ret->ring_bytes = bytes;
	ret->bucket_count = (uint32_t)((words + RSHM_BUCKET_WORDS - 1) / RSHM_BUCKET_WORDS);
	ret->entry_limit = bytes / 32 < entry_limit_max ? (uint32_t)(bytes / 32) : entry_limit_max;
	ret->tag_offset = sizeof(struct rshm_segment);
	ret->index_offset = ret->tag_offset + RSHM_TAG_WORDS * sizeof(uint32_t);
	ret->ring_offset = round_up(ret->index_offset + (uint64_t)ret->bucket_count * RSHM_LINE, RSHM_PAGE);
	ret->object_size = ret->ring_offset + bytes;
}

static bool tags_fit(const struct rshm_segment *s)
{
	return s->tag_offset % RSHM_LINE == 0 && s->tag_offset >= sizeof(*s) && s->tag_offset < s->ring_offset &&
	       RSHM_TAG_WORDS * sizeof(uint32_t) <= s->ring_offset - s->tag_offset;
}

static bool geometry_fits(const struct rshm_segment *s, uint64_t mapped_size)
{
	bool ring_is_power = s->ring_bytes >= RSHM_RING_MIN && s->ring_bytes <= RSHM_RING_MAX &&
			     (s->ring_bytes & (s->ring_bytes - 1)) == 0;
	uint64_t index_end = s->index_offset + (uint64_t)s->bucket_count * RSHM_LINE;

	return ring_is_power && s->header.object_size == mapped_size && s->ring_offset % RSHM_PAGE == 0 &&
	       s->ring_offset <= mapped_size && s->ring_bytes == mapped_size - s->ring_offset &&
	       s->index_offset % RSHM_LINE == 0 && s->index_offset >= sizeof(*s) && s->index_offset < mapped_size &&
	       index_end <= s->ring_offset && s->bucket_count >= 2 && s->entry_limit >= sizeof(struct rshm_entry) &&
	       s->entry_limit <= s->ring_bytes / 4 && tags_fit(s);
}

/* Once per mapping: for size, not for speed. */
__attribute__((cold)) int rshm_reader_init(const void *object, uint64_t mapped_size, struct rshm_reader *ret)
{
	struct rshm_segment copy;

	if (mapped_size < sizeof(copy))
		return RSHM_E_CORRUPT;
	/* Checked and used from the copy alone. */
	rshm_copy_out(&copy, object, sizeof(copy));
	if (copy.header.magic != RSHM_SEGMENT_MAGIC)
		return RSHM_E_CORRUPT;
	if (copy.header.layout_major != RSHM_LAYOUT_MAJOR)
		return RSHM_E_UNSUPPORTED;
	if (copy.state != RSHM_LIVE)
		return RSHM_E_CLOSED;
	if (!geometry_fits(&copy, mapped_size))
		return RSHM_E_CORRUPT;
	ret->segment = object;
	ret->index = (const void *)((const unsigned char *)object + copy.index_offset);
	ret->ring = (const unsigned char *)object + copy.ring_offset;
	ret->tags = (const void *)((const unsigned char *)object + copy.tag_offset);
	ret->units = copy.ring_bytes / RSHM_UNIT;
	ret->hash_seed = copy.hash_seed;
	ret->bucket_count = copy.bucket_count;
	ret->entry_limit = copy.entry_limit;
	return RSHM_OK;
}

uint64_t rshm_entry_bytes(size_t key_len, size_t metadata_len, size_t value_len)
{
	return round_up(sizeof(struct rshm_entry) + (uint64_t)key_len + metadata_len + value_len, RSHM_UNIT);
}

/* The header, once, into `ret`; the words may be torn against each other. */
static void load_entry(const unsigned char *place, struct rshm_entry *ret)
{
	const uint64_t *words = (const void *)place;
	uint64_t packed;
	struct {
		uint32_t value;
		uint16_t key, metadata;
	} lengths;

	ret->position = rshm_load_relaxed(&words[0]);
	/* A before B: pairs with rshm_writer_patch(), which stores B before A (release). */
	ret->control_a = rshm_load_acquire(&words[1]);
	ret->control_b = rshm_load_relaxed(&words[2]);
	ret->version = rshm_load_relaxed(&words[3]);
	packed = rshm_load_relaxed(&words[4]);
	memcpy(&lengths, &packed, sizeof(lengths));
	ret->value_len = lengths.value;
	ret->key_len = lengths.key;
	ret->metadata_len = lengths.metadata;
}

/* Does the word lead to an entry of this key? Fills `ret`. */
static bool word_leads_to(const struct rshm_reader *reader, uint64_t position, const void *key, size_t key_len,
			  struct rshm_found *ret)
{
	uint64_t offset_units = position & (reader->units - 1);
	const unsigned char *place = reader->ring + offset_units * RSHM_UNIT;
	uint64_t bytes;

	if (offset_units + RSHM_HEADER_UNITS > reader->units)
		return false;
	load_entry(place, &ret->entry);
	if (ret->entry.position != position || ret->entry.key_len != key_len)
		return false;
	bytes = sizeof(struct rshm_entry) + key_len + ret->entry.metadata_len + (uint64_t)ret->entry.value_len;
	if (bytes > reader->entry_limit || bytes > (reader->units - offset_units) * RSHM_UNIT)
		return false;
	ret->bytes = place + sizeof(struct rshm_entry);
	return !rshm_differs(key, ret->bytes, key_len);
}

/* One pass over both lines. *ret_suspect: a word had the tag and led nowhere; the entry may have moved meanwhile. */
static bool find_once(const struct rshm_reader *reader, uint64_t hash, const void *key, size_t key_len,
		      struct rshm_found *ret, bool *ret_suspect)
{
	struct rshm_candidates c = rshm_candidates(hash, reader->bucket_count);
	const uint64_t *lines[2] = {reader->index + (uint64_t)c.first * RSHM_BUCKET_WORDS,
				    reader->index + (uint64_t)c.second * RSHM_BUCKET_WORDS};

	__builtin_prefetch(lines[1]);
	for (unsigned int i = 0; i < 2 * RSHM_BUCKET_WORDS; i++) {
		/* Pairs with the release of the word in ring_writer.c: who sees the word sees the entry's bytes. */
		uint64_t word = rshm_load_acquire(&lines[i / RSHM_BUCKET_WORDS][i % RSHM_BUCKET_WORDS]);
		uint64_t position;

		if ((word & ~RSHM_POSITION_MASK) != c.tag || word == 0)
			continue;
		position = rshm_word_position(word, ret->tail);
		if (position - ret->tail < reader->units && word_leads_to(reader, position, key, key_len, ret))
			return true;
		*ret_suspect = true;
	}
	return false;
}

/* Has the tail passed `position`? Everything read before is ordered before this load. */
static bool tail_has_passed(const struct rshm_reader *reader, uint64_t position)
{
	/* Pairs with the writer's full fence between storing tail and overwriting: a fence, for an acquire load would not
	 * order the copy before it. */
	rshm_fence_acquire();
#if RSHM_MUTANT == 1
	(void)reader;
	(void)position;
	return false;
#else
	return position < rshm_load_relaxed(&reader->segment->tail);
#endif
}

enum rshm_outcome rshm_find(const struct rshm_reader *reader, uint64_t hash, const void *key, size_t key_len,
			    struct rshm_found *ret)
{
	for (int attempt = 0; attempt < RSHM_READ_ATTEMPTS; attempt++) {
		bool suspect = false;

		/* Pairs with the store of tail when the ring is reclaimed. */
		ret->tail = rshm_load_acquire(&reader->segment->tail);
		if (rshm_load_relaxed32(&reader->segment->state) != RSHM_LIVE)
			return RSHM_LET_GO;
		if (find_once(reader, hash, key, key_len, ret, &suspect))
			return RSHM_FOUND;
		/* A reader that slept between tail and word finds words beyond its window, or entries overwritten. */
		rshm_fence_acquire();
		if (!suspect || rshm_load_relaxed(&reader->segment->tail) == ret->tail)
			return RSHM_NOT_FOUND;
	}
	return RSHM_LAPPED;
}

bool rshm_still_valid(const struct rshm_reader *reader, const struct rshm_found *found)
{
	return !tail_has_passed(reader, found->entry.position);
}

enum rshm_outcome rshm_read(const struct rshm_reader *reader, uint64_t hash, const void *key, size_t key_len,
			    void *value, size_t value_cap, void *metadata, size_t metadata_cap,
			    struct rshm_found *ret)
{
	for (int attempt = 0; attempt < RSHM_READ_ATTEMPTS; attempt++) {
		enum rshm_outcome outcome = rshm_find(reader, hash, key, key_len, ret);
		const struct rshm_entry *entry = &ret->entry;

		if (outcome != RSHM_FOUND)
			return outcome;
		if (entry->value_len <= value_cap)
			rshm_copy_out(value, ret->bytes + key_len + entry->metadata_len, entry->value_len);
		if (metadata && entry->metadata_len <= metadata_cap)
			rshm_copy_out(metadata, ret->bytes + key_len, entry->metadata_len);
		if (rshm_still_valid(reader, ret))
			return RSHM_FOUND;
	}
	return RSHM_LAPPED;
}
