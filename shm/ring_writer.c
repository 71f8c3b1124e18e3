/*
 * ring_writer.c - the one writer of a hot ring: append, reclaim, adopt.
 *
 * Every append follows the same five steps (ring.c has the picture and says why):
 *   1 tail past what will be overwritten   2 head past the new entry   3 full fence   4 bytes   5 index word (release)
 * Killed after 2 and before 5, the log has a hole of arbitrary bytes that no word names; so nothing here trusts the log:
 * whatever walks it takes a header only if it names its own position and fits, and a dead header can never be re-inserted
 * because only an entry that its key's word still names counts as live. Bytes in a hole can imitate a header with a length
 * that reaches beyond the hole; so in what was adopted only the lengths of live entries are believed (units_to_next()).
 *
 * Reclaiming keeps a gap free between head and tail + size (gap_units()), so that what the policy keeps is copied to the
 * head (an append that needs no new room) before tail moves: no kept key vanishes meanwhile. Re-inserted bytes are paid from
 * a credit that appends earn, which bounds write amplification and guarantees progress; and no put pays for more than
 * RSHM_COPIES_PER_PUT_BYTES of them, which bounds how long it takes.
 *
 * The private head and tail are the truth; the shared words are output. Readers never write, so nothing read back from
 * the segment can have been changed by another process; adoption is the one moment when it is checked all the same.
 */
#include "shm/ring.h"

#include "shm/index.h"
#include "shm/order.h"

#define RSHM_RECLAIM_STEP_BYTES (64u << 10)    /* or a 64th of a small ring */
#define RSHM_COPIES_PER_PUT_BYTES (256u << 10) /* or 16 times the put, if that is more */
#define RSHM_HEADER_UNITS ((sizeof(struct rshm_entry) + RSHM_UNIT - 1) / RSHM_UNIT)

/* ---- small helpers ------------------------------------------------------------------------------------------ */

static uint64_t to_units(uint64_t bytes)
{
	return (bytes + RSHM_UNIT - 1) / RSHM_UNIT;
}

static unsigned char *place_of(const struct rshm_writer *w, uint64_t position)
{
	return w->ring + (position & (w->units - 1)) * RSHM_UNIT;
}

static uint64_t units_to_end(const struct rshm_writer *w, uint64_t position)
{
	return w->units - (position & (w->units - 1));
}

static uint64_t step_units(const struct rshm_writer *w)
{
	uint64_t most = RSHM_RECLAIM_STEP_BYTES / RSHM_UNIT;

	return w->units / 64 < most ? w->units / 64 : most;
}

/* The largest entry that can be in the ring. */
static uint64_t largest_units(const struct rshm_writer *w)
{
	return w->largest > w->largest_before ? w->largest : w->largest_before;
}

/*
 * What stays free behind head: so much that a copy of the largest entry in the ring and a filler before it find room at any
 * time, and a step's copies mostly without moving tail for each. Two entry limits at most.
 */
static uint64_t gap_units(const struct rshm_writer *w)
{
	uint64_t wanted = step_units(w) + 2 * largest_units(w), most = 2 * to_units(w->entry_limit);

#ifdef RSHM_TORTURE
	/* A gap hides what goes wrong when bytes follow close behind tail; so every other lap does without. */
	if (w->head / w->units % 2)
		return 0;
#endif
	return wanted < most ? wanted : most;
}

static uint64_t free_units(const struct rshm_writer *w)
{
	return w->tail + w->units - w->head;
}

static uint64_t *line_of(const struct rshm_writer *w, uint32_t bucket)
{
	return w->index + (uint64_t)bucket * RSHM_BUCKET_WORDS;
}

static bool position_is_live(const struct rshm_writer *w, uint64_t position)
{
	return position >= w->tail && position < w->head;
}

/* Reads the entry at a position of [tail, head). False if there is no whole entry or filler that names this position. */
static bool entry_at(const struct rshm_writer *w, uint64_t position, struct rshm_entry *ret, uint64_t *ret_units)
{
	uint64_t bytes;

	if (units_to_end(w, position) < RSHM_HEADER_UNITS)
		return false;
	memcpy(ret, place_of(w, position), sizeof(*ret));
	if (ret->position != position)
		return false;
	bytes = sizeof(*ret) + (uint64_t)ret->key_len + ret->metadata_len + ret->value_len;
	*ret_units = to_units(bytes);
	if (*ret_units > units_to_end(w, position) || *ret_units > w->head - position)
		return false;
	return (rshm_control_flags(ret->control_a) & RSHM_FLAG_FILLER) || bytes <= w->entry_limit;
}

static void item_of(const struct rshm_writer *w, const struct rshm_entry *entry, struct rshm_item *ret)
{
	const unsigned char *bytes = place_of(w, entry->position) + sizeof(*entry);

	*ret = (struct rshm_item){
		.key = bytes,
		.metadata = bytes + entry->key_len,
		.value = bytes + entry->key_len + entry->metadata_len,
		.value_len = entry->value_len,
		.key_len = entry->key_len,
		.metadata_len = entry->metadata_len,
		.version = entry->version,
		.control_a = entry->control_a,
		.control_b = entry->control_b,
	};
}

/* ---- the index ---------------------------------------------------------------------------------------------- */

/* The word of a key, or NULL. */
static uint64_t *find_word(const struct rshm_writer *w, uint64_t hash, const void *key, size_t key_len,
			   struct rshm_entry *ret, uint64_t *ret_units)
{
	struct rshm_candidates c = rshm_candidates(hash, w->bucket_count);
	uint64_t *lines[2] = {line_of(w, c.first), line_of(w, c.second)};

	for (unsigned int i = 0; i < 2 * RSHM_BUCKET_WORDS; i++) {
		uint64_t *word = &lines[i / RSHM_BUCKET_WORDS][i % RSHM_BUCKET_WORDS];
		uint64_t position;

		if (*word == 0 || (*word & ~RSHM_POSITION_MASK) != c.tag)
			continue;
		position = rshm_word_position(*word, w->tail);
		if (!position_is_live(w, position) || !entry_at(w, position, ret, ret_units))
			continue;
		if (ret->key_len == key_len && memcmp(place_of(w, position) + sizeof(*ret), key, key_len) == 0)
			return word;
	}
	return NULL;
}

/* The word that names exactly this entry, or NULL: only then is the entry live. */
static uint64_t *word_naming(const struct rshm_writer *w, const struct rshm_entry *entry)
{
	const void *key = place_of(w, entry->position) + sizeof(*entry);
	uint64_t hash = rshm_hash(w->hash_seed, key, entry->key_len);
	struct rshm_candidates c = rshm_candidates(hash, w->bucket_count);
	uint64_t *lines[2] = {line_of(w, c.first), line_of(w, c.second)};
	uint64_t wanted = rshm_word(c.tag, entry->position);

	for (unsigned int i = 0; i < 2 * RSHM_BUCKET_WORDS; i++) {
		uint64_t *word = &lines[i / RSHM_BUCKET_WORDS][i % RSHM_BUCKET_WORDS];

		if (*word == wanted)
			return word;
	}
	return NULL;
}

/*
 * Walks one place of the log: *ret_word is the word of the live entry there, or NULL. Returns the units to the next place.
 * What this writer wrote has lengths to go by; below trusted_from, only those of entries that the index names.
 */
static uint64_t units_to_next(const struct rshm_writer *w, uint64_t position, struct rshm_entry *ret,
			      uint64_t **ret_word)
{
	uint64_t units;

	*ret_word = NULL;
	if (!entry_at(w, position, ret, &units))
		return 1;
	if (!(rshm_control_flags(ret->control_a) & RSHM_FLAG_FILLER))
		*ret_word = word_naming(w, ret);
	return *ret_word || position >= w->trusted_from ? units : 1;
}

static void account_gone(struct rshm_writer *w, uint64_t units)
{
	w->live_entries--;
	w->live_units -= units;
}

/* Both lines are full of live words: the oldest untouched entry of the pair goes, or the oldest of all. */
static uint64_t *displace_one(struct rshm_writer *w, uint64_t *const lines[2])
{
	uint64_t *victim = NULL;
	uint64_t victim_rank = RSHM_NEVER, victim_units = 0;
	struct rshm_entry victim_entry = {0};

	for (unsigned int i = 0; i < 2 * RSHM_BUCKET_WORDS; i++) {
		uint64_t *word = &lines[i / RSHM_BUCKET_WORDS][i % RSHM_BUCKET_WORDS];
		struct rshm_entry entry;
		uint64_t units, rank;

		if (!entry_at(w, rshm_word_position(*word, w->tail), &entry, &units))
			return word;
		rank = entry.position - w->tail;
		if (rshm_control_flags(entry.control_a) & RSHM_FLAG_TOUCHED)
			rank += w->units;
		if (rank < victim_rank) {
			victim = word;
			victim_rank = rank;
			victim_entry = entry;
			victim_units = units;
		}
	}
	if (w->drop) {
		struct rshm_item item;

		item_of(w, &victim_entry, &item);
		w->drop(w->context, &item, victim_entry.position);
	}
	account_gone(w, victim_units);
	w->displaced++;
	return victim;
}

/* A place for a new word: the emptier line's first free one. */
static uint64_t *free_word(struct rshm_writer *w, uint64_t hash)
{
	struct rshm_candidates c = rshm_candidates(hash, w->bucket_count);
	uint64_t *lines[2] = {line_of(w, c.first), line_of(w, c.second)};
	uint64_t *first_free[2] = {NULL, NULL};
	unsigned int used[2] = {0, 0};

	for (unsigned int i = 0; i < 2 * RSHM_BUCKET_WORDS; i++) {
		unsigned int l = i / RSHM_BUCKET_WORDS;
		uint64_t *word = &lines[l][i % RSHM_BUCKET_WORDS];

		if (*word != 0 && position_is_live(w, rshm_word_position(*word, w->tail)))
			used[l]++;
		else if (!first_free[l])
			first_free[l] = word;
	}
	if (used[0] + used[1] == 2 * RSHM_BUCKET_WORDS)
		return displace_one(w, lines);
	return used[1] < used[0] ? first_free[1] : first_free[0];
}

/* ---- append ------------------------------------------------------------------------------------------------- */

static void write_bytes(struct rshm_writer *w, uint64_t position, const struct rshm_item *item)
{
	unsigned char *place = place_of(w, position);
	struct rshm_entry entry = {
		.position = position,
		.control_a = item->control_a,
		.control_b = item->control_b,
		.version = item->version,
		.value_len = item->value_len,
		.key_len = item->key_len,
		.metadata_len = item->metadata_len,
	};

	rshm_copy_in(place, &entry, sizeof(entry));
	place += sizeof(entry);
	rshm_copy_in(place, item->key, item->key_len);
	rshm_copy_in(place + item->key_len, item->metadata, item->metadata_len);
	rshm_copy_in(place + item->key_len + item->metadata_len, item->value, item->value_len);
}

static void write_filler(struct rshm_writer *w, uint64_t position, uint64_t units)
{
	struct rshm_entry filler = {
		.position = position,
		.control_a = RSHM_FLAG_FILLER,
		.value_len = (uint32_t)(units * RSHM_UNIT - sizeof(filler)),
	};

	if (units >= RSHM_HEADER_UNITS)
		rshm_copy_in(place_of(w, position), &filler, sizeof(filler));
}

/* Units that an append of `units` takes at the present head, the rest of the ring before its end included. */
static uint64_t units_with_filler(const struct rshm_writer *w, uint64_t units)
{
	uint64_t rest = units_to_end(w, w->head);

	return rest < units ? rest + units : units;
}

/* The largest entry of this lap and of the one before: all that can be in the ring. */
static void note_size(struct rshm_writer *w, uint64_t units, bool begins_lap)
{
	if (begins_lap) {
		w->largest_before = w->largest;
		w->largest = 0;
	}
	if (units > w->largest)
		w->largest = units;
}

/*
 * Steps 2 to 5; step 1 is done: the room is free. `word` is where the index names the entry, or NULL to find a place.
 * `item` may lie in the ring itself (a re-insertion), but never in the free room.
 */
static void append(struct rshm_writer *w, uint64_t hash, const struct rshm_item *item, uint64_t *word)
{
	uint64_t units = to_units(rshm_entry_bytes(item->key_len, item->metadata_len, item->value_len));
	uint64_t filler = units_with_filler(w, units) - units;
	uint64_t start = w->head, position = w->head + filler;
	uint64_t name;

	note_size(w, units, filler || (position & (w->units - 1)) == 0);
	w->head = position + units;
#if RSHM_MUTANT != 4
	rshm_store_relaxed(&w->segment->head, w->head);
#endif
	RSHM_TORTURE_POINT(2);
	if (!word || RSHM_MUTANT == 5)
		word = free_word(w, hash);
	name = rshm_word(hash & ~RSHM_POSITION_MASK, position);
#if RSHM_MUTANT == 3
	rshm_store_release(word, name);
#endif
	/* Pairs with the readers' acquire fence before they look at tail: whoever sees a byte written below sees the tail
	 * that gave its place up. Full, because memcpy may use non-temporal stores. */
	rshm_fence_seq_cst();
	RSHM_TORTURE_POINT(3);
	if (filler)
		write_filler(w, start, filler);
	write_bytes(w, position, item);
	RSHM_TORTURE_POINT(4);
	/* Pairs with the readers' acquire load of the word: who sees it sees the bytes. */
	rshm_store_release(word, name);
	RSHM_TORTURE_POINT(5);
#if RSHM_MUTANT == 4
	rshm_store_relaxed(&w->segment->head, w->head);
#endif
#if RSHM_MUTANT == 2
	rshm_store_release(&w->segment->tail, w->tail);
#endif
	w->live_entries++;
	w->live_units += units;
}

/* ---- reclaim ------------------------------------------------------------------------------------------------ */

static bool wants_keep(struct rshm_writer *w, struct rshm_item *item, uint64_t position)
{
	if (w->keep)
		return w->keep(w->context, item, position);
	return (rshm_control_flags(item->control_a) & RSHM_FLAG_TOUCHED) != 0;
}

static void move_tail(struct rshm_writer *w, uint64_t position)
{
	w->tail = position;
	RSHM_TORTURE_POINT(1);
#if RSHM_MUTANT != 2
	/* Pairs with the readers' acquire load of tail; ordered before the bytes by the fence in append(). */
	rshm_store_release(&w->segment->tail, w->tail);
#endif
}

/*
 * Room to copy an entry at `position` to the head. Where the gap is used up, what lies before it is given back first. A gap
 * was left for the largest entry, so this fails only for a dead writer's ring that is as good as full.
 */
static bool has_room_to_keep(struct rshm_writer *w, uint64_t position, uint64_t units)
{
	if (free_units(w) < units_with_filler(w, units))
		move_tail(w, position);
	return free_units(w) >= units_with_filler(w, units);
}

/* One live entry at the tail: copied to the head if policy, credit and room allow, dropped otherwise. */
static void pass_entry(struct rshm_writer *w, const struct rshm_entry *entry, uint64_t *word, uint64_t units)
{
	struct rshm_item item;

	item_of(w, entry, &item);
	account_gone(w, units);
	if (w->reinsert_credit >= units && w->put_credit >= units && wants_keep(w, &item, entry->position) &&
	    has_room_to_keep(w, entry->position, units)) {
		w->reinsert_credit -= units;
		w->put_credit -= units;
		w->reinsertions++;
		item.control_a &= ~(uint64_t)RSHM_FLAG_TOUCHED;
		append(w, rshm_hash(w->hash_seed, item.key, item.key_len), &item, word);
		return;
	}
	w->evictions++;
	if (w->drop)
		w->drop(w->context, &item, entry->position);
}

/* Now entries go because their copies cannot be paid for, not because nobody wants them: no more of them than needed. */
static bool is_short_of_credit(const struct rshm_writer *w)
{
	return w->reinsert_credit < largest_units(w) || w->put_credit < largest_units(w);
}

/* Moves tail by a step, keeping what the policy keeps; less only where credit is short and `wanted` units are free. */
static void reclaim_step(struct rshm_writer *w, uint64_t wanted)
{
	uint64_t position = w->tail, stop = w->head;
	uint64_t target = w->tail + step_units(w);

	while (position < stop && position < target) {
		struct rshm_entry entry;
		uint64_t *word;
		uint64_t units = units_to_next(w, position, &entry, &word);

		if (word)
			pass_entry(w, &entry, word, units);
		position += units;
		if (is_short_of_credit(w) && free_units(w) + (position - w->tail) >= wanted)
			break;
	}
	move_tail(w, position);
}

static void make_room(struct rshm_writer *w, uint64_t units)
{
	uint64_t most = RSHM_COPIES_PER_PUT_BYTES / RSHM_UNIT;

	w->put_credit = 16 * units > most ? 16 * units : most;
	while (free_units(w) < units_with_filler(w, units) + gap_units(w))
		reclaim_step(w, units_with_filler(w, units) + gap_units(w));
}

/* A lap's worth: policies that overdraw for a while come to their senses before the credit makes the choice for them. */
static uint64_t credit_most(const struct rshm_writer *w)
{
	return w->units;
}

static void earn_credit(struct rshm_writer *w, uint64_t units)
{
	w->reinsert_credit += units * w->reinsert_percent / 100;
	if (w->reinsert_credit > credit_most(w))
		w->reinsert_credit = credit_most(w);
}

/* ---- public ------------------------------------------------------------------------------------------------- */

static void take_geometry(struct rshm_writer *w, void *object, const struct rshm_segment *s)
{
	*w = (struct rshm_writer){
		.segment = object,
		.index = (void *)((unsigned char *)object + s->index_offset),
		.ring = (unsigned char *)object + s->ring_offset,
		.units = s->ring_bytes / RSHM_UNIT,
		.hash_seed = s->hash_seed,
		.bucket_count = s->bucket_count,
		.entry_limit = s->entry_limit,
		.reinsert_percent = 100,
	};
}

void rshm_writer_format(void *object, const struct rshm_geometry *geometry, const struct rshm_header *header,
			const char *tenant, uint64_t hash_seed, struct rshm_writer *ret)
{
	struct rshm_segment *s = object;

	s->header = *header;
	s->header.magic = RSHM_SEGMENT_MAGIC;
	s->header.layout_major = RSHM_LAYOUT_MAJOR;
	s->header.layout_minor = RSHM_LAYOUT_MINOR;
	s->header.object_size = geometry->object_size;
	for (size_t i = 0; i + 1 < sizeof(s->tenant) && tenant[i]; i++)
		s->tenant[i] = tenant[i];
	s->hash_seed = hash_seed;
	s->ring_bytes = geometry->ring_bytes;
	s->ring_offset = geometry->ring_offset;
	s->index_offset = geometry->index_offset;
	s->tag_offset = geometry->tag_offset;
	s->bucket_count = geometry->bucket_count;
	s->entry_limit = geometry->entry_limit;
	take_geometry(ret, object, s);
	/* Positions start at the ring's size, so that an index word of 0 is never live. */
	ret->head = ret->tail = ret->units;
	rshm_store_relaxed(&s->tail, ret->tail);
	rshm_store_relaxed(&s->head, ret->head);
}

void rshm_writer_publish(struct rshm_writer *writer, enum rshm_policy policy, uint64_t stale_limit_ms)
{
	rshm_store_relaxed32(&writer->segment->policy, policy);
	rshm_store_relaxed(&writer->segment->stale_limit_ms, stale_limit_ms);
	/* Pairs with the state check of readers and of rshm_reader_init(): who sees LIVE sees the geometry. */
	rshm_store_release32(&writer->segment->state, RSHM_LIVE);
}

/* Does the word lead to a live entry whose key hashes to this line and tag? */
static bool word_is_sound(const struct rshm_writer *w, uint32_t bucket, uint64_t word, uint64_t *ret_units)
{
	uint64_t position = rshm_word_position(word, w->tail), hash;
	struct rshm_candidates c;
	struct rshm_entry entry;

	if (!position_is_live(w, position) || !entry_at(w, position, &entry, ret_units) || entry.key_len == 0)
		return false;
	if (rshm_control_flags(entry.control_a) & RSHM_FLAG_FILLER)
		return false;
	hash = rshm_hash(w->hash_seed, place_of(w, position) + sizeof(entry), entry.key_len);
	c = rshm_candidates(hash, w->bucket_count);
	return c.tag == (word & ~RSHM_POSITION_MASK) && (c.first == bucket || c.second == bucket);
}

int rshm_writer_adopt(void *object, uint64_t mapped_size, struct rshm_writer *ret)
{
	struct rshm_segment *s = object;
	struct rshm_reader checked;
	int status = rshm_reader_init(object, mapped_size, &checked);

	if (status < 0)
		return status;
	take_geometry(ret, object, s);
	ret->tail = rshm_load_acquire(&s->tail);
	ret->head = rshm_load_relaxed(&s->head);
	if (ret->tail < ret->units || ret->head < ret->tail || ret->head - ret->tail > ret->units)
		return RSHM_E_CORRUPT;
	ret->trusted_from = ret->head;
	/* Nothing is known of what the dead writer appended; and what it would have kept, its successor keeps. */
	ret->largest = to_units(ret->entry_limit);
	ret->reinsert_credit = credit_most(ret);
	for (uint32_t bucket = 0; bucket < ret->bucket_count; bucket++) {
		for (unsigned int i = 0; i < RSHM_BUCKET_WORDS; i++) {
			uint64_t *word = &line_of(ret, bucket)[i];
			uint64_t units;

			if (*word == 0)
				continue;
			if (!word_is_sound(ret, bucket, *word, &units)) {
				rshm_store_release(word, 0);
				continue;
			}
			ret->live_entries++;
			ret->live_units += units;
		}
	}
	return RSHM_OK;
}

int rshm_writer_put(struct rshm_writer *writer, const struct rshm_item *item)
{
	uint64_t bytes = rshm_entry_bytes(item->key_len, item->metadata_len, item->value_len);
	uint64_t units = to_units(bytes), old_units, hash;
	struct rshm_item entering;
	struct rshm_entry old;
	uint64_t *word;

	if (bytes > writer->entry_limit || item->key_len == 0)
		return RSHM_E_TOOBIG;
	make_room(writer, units);
	earn_credit(writer, units);
	hash = rshm_hash(writer->hash_seed, item->key, item->key_len);
	/* Looked up after make_room(), which may have moved or dropped the old entry. */
	word = find_word(writer, hash, item->key, item->key_len, &old, &old_units);
	if (word)
		account_gone(writer, old_units);
	entering = *item;
	if (writer->enter)
		entering.control_a |= writer->enter(writer->context, hash, word ? &old : NULL) & RSHM_FLAGS_POLICY;
	append(writer, hash, &entering, word);
	return RSHM_OK;
}

bool rshm_writer_remove(struct rshm_writer *writer, const void *key, size_t key_len)
{
	uint64_t hash = rshm_hash(writer->hash_seed, key, key_len), units;
	struct rshm_entry entry;
	uint64_t *word = find_word(writer, hash, key, key_len, &entry, &units);

	if (!word)
		return false;
	account_gone(writer, units);
	/* Visible before the acknowledgement that follows it: the answer's state change is a release of its own. */
	rshm_store_release(word, 0);
	return true;
}

bool rshm_writer_find(const struct rshm_writer *writer, const void *key, size_t key_len, struct rshm_item *ret,
		      uint64_t *ret_position)
{
	struct rshm_entry entry;
	uint64_t units;

	if (!find_word(writer, rshm_hash(writer->hash_seed, key, key_len), key, key_len, &entry, &units))
		return false;
	item_of(writer, &entry, ret);
	*ret_position = entry.position;
	return true;
}

/* The live entry at a position that may be any number. */
static bool live_entry_at(const struct rshm_writer *w, uint64_t position, struct rshm_entry *ret)
{
	uint64_t units;

	return position_is_live(w, position) && entry_at(w, position, ret, &units) &&
	       !(rshm_control_flags(ret->control_a) & RSHM_FLAG_FILLER) && word_naming(w, ret);
}

bool rshm_writer_patch(struct rshm_writer *writer, uint64_t position, uint64_t version, uint64_t control_a,
		       uint64_t control_b)
{
	struct rshm_entry entry;
	uint64_t *words;

	if (!live_entry_at(writer, position, &entry) || (version && entry.version != version))
		return false;
	words = (void *)place_of(writer, position);
	rshm_store_relaxed(&words[2], control_b);
	/* Pairs with the readers' acquire load of A: who sees the new A sees the new B. */
	rshm_store_release(&words[1], control_a);
	return true;
}

bool rshm_writer_at(const struct rshm_writer *writer, uint64_t position, struct rshm_item *ret)
{
	struct rshm_entry entry;

	if (!live_entry_at(writer, position, &entry))
		return false;
	item_of(writer, &entry, ret);
	return true;
}

bool rshm_writer_touch(struct rshm_writer *writer, uint64_t position)
{
	struct rshm_entry entry;
	uint64_t *words;

	if (!live_entry_at(writer, position, &entry))
		return false;
	words = (void *)place_of(writer, position);
	rshm_store_relaxed(&words[1], entry.control_a | RSHM_FLAG_TOUCHED);
	return true;
}

bool rshm_writer_walk(const struct rshm_writer *writer, uint64_t *cursor, uint32_t *steps, struct rshm_item *ret,
		      uint64_t *ret_position)
{
	uint64_t position = *cursor < writer->tail ? writer->tail : *cursor;

	while (position < writer->head && *steps) {
		struct rshm_entry entry;
		uint64_t *word;
		uint64_t units = units_to_next(writer, position, &entry, &word);

		(*steps)--;
		if (word) {
			item_of(writer, &entry, ret);
			*ret_position = position;
			*cursor = position + units;
			return true;
		}
		position += units;
	}
	*cursor = position;
	return false;
}

void rshm_writer_clear(struct rshm_writer *writer)
{
	writer->tail = writer->head;
	writer->live_entries = 0;
	writer->live_units = 0;
	rshm_store_release(&writer->segment->tail, writer->tail);
}

void rshm_writer_retire(struct rshm_writer *writer)
{
	rshm_store_release32(&writer->segment->state, RSHM_RETIRED);
	rshm_writer_clear(writer);
}

uint64_t rshm_writer_live_bytes(const struct rshm_writer *writer)
{
	return writer->live_units * RSHM_UNIT;
}
