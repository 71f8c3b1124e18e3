/*
 * tags.c - tags of metadata, epochs of tags, and the pairs in front of a hot copy.
 *
 * An entry is valid as long as none of its tags has got a new epoch since it was written. Two things tell us: the
 * backend, whose word tag_epochs remembers, and the segment's tag words, by which hot copies are judged without
 * asking anybody. Several tags share a word; that only costs misses.
 *
 * tag_epochs is a hash table whose entries also stand in one ring from the most to the least recently used. The
 * danger is an answer of the backend that was under way while the tag was invalidated: remembered, it would make
 * dead entries live for ever. So forgetting a tag changes a counter that the tag shares with a few others, and an
 * epoch is only taken with the reading of the counter from before the question. The counters are few because a
 * false alarm costs one more question.
 */
#include "agent/cache/tags.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "agent/base/assert.h"

/* ---- metadata ----------------------------------------------------------------------------------------------- */

#define FIELD_HEAD 5u
#define FIELD_CONTENT_TYPE 2u
#define FIELD_TAG 4u
#define FIELD_SOFT_DEADLINE 6u

struct field {
	unsigned int kind;
	const unsigned char *value;
	size_t length;
};

/* RSHM_OK with a field, RSHM_MISS at the end, RSHM_E_INVALID if the bytes are no metadata. */
static int next_field(const unsigned char *bytes, size_t length, size_t *cursor, struct field *ret)
{
	size_t at = *cursor, name_length, value_length;

	if (at == length)
		return RSHM_MISS;
	if (length - at < FIELD_HEAD)
		return RSHM_E_INVALID;
	name_length = bytes[at + 1] | (size_t)bytes[at + 2] << 8;
	value_length = bytes[at + 3] | (size_t)bytes[at + 4] << 8;
	if (name_length + value_length > length - at - FIELD_HEAD)
		return RSHM_E_INVALID;
	*ret = (struct field){bytes[at], bytes + at + FIELD_HEAD + name_length, value_length};
	*cursor = at + FIELD_HEAD + name_length + value_length;
	return RSHM_OK;
}

int tags_of_metadata(const void *metadata, size_t length, struct tags *ret)
{
	struct tags tags;
	struct field field;
	size_t cursor = 0;
	int status;

	tags.count = 0;
	while ((status = next_field(metadata, length, &cursor, &field)) == RSHM_OK) {
		if (field.kind != FIELD_TAG)
			continue;
		if (field.length == 0)
			return RSHM_E_INVALID;
		if (tags.count == TAGS_MAX)
			return RSHM_E_TOOBIG;
		tags.items[tags.count++] = (struct tag){field.value, field.length};
	}
	if (status != RSHM_MISS)
		return status;
	ret->count = tags.count;
	memcpy(ret->items, tags.items, tags.count * sizeof(tags.items[0]));
	return RSHM_OK;
}

static uint64_t read_u64(const unsigned char *bytes)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < 8; i++)
		value |= (uint64_t)bytes[i] << 8 * i;
	return value;
}

int soft_deadline_of_metadata(const void *metadata, size_t length, uint64_t *ret_deadline_ms)
{
	uint64_t deadline_ms = 0;
	struct field field;
	size_t cursor = 0;
	bool found = false;
	int status;

	while ((status = next_field(metadata, length, &cursor, &field)) == RSHM_OK) {
		if (field.kind != FIELD_SOFT_DEADLINE)
			continue;
		if (field.length != 8 || found)
			return RSHM_E_INVALID;
		deadline_ms = read_u64(field.value);
		found = true;
	}
	if (status != RSHM_MISS)
		return status;
	if (!found)
		return RSHM_MISS;
	*ret_deadline_ms = deadline_ms;
	return RSHM_OK;
}

int content_type_of_metadata(const void *metadata, size_t length, const char **ret, size_t *ret_length)
{
	struct field field, found = {.value = NULL};
	size_t cursor = 0;
	int status;

	while ((status = next_field(metadata, length, &cursor, &field)) == RSHM_OK) {
		if (field.kind != FIELD_CONTENT_TYPE)
			continue;
		if (found.value)
			return RSHM_E_INVALID;
		found = field;
	}
	if (status != RSHM_MISS || !found.value)
		return status;
	*ret = (const char *)found.value;
	*ret_length = found.length;
	return RSHM_OK;
}

/* ---- what the backend says ---------------------------------------------------------------------------------- */

#define TAG_EPOCHS_MAGIC 0x54455043u
#define STAMPS 256u /* a power of two */
#define CHAINS_MIN 16u
#define CHAINS_MAX (1u << 20)

struct known_tag {
	struct known_tag *chain;
	struct known_tag *newer, *older; /* in the ring of all */
	uint64_t hash;
	struct tag_epoch epoch;
	size_t length;
	unsigned char bytes[];
};

struct tag_epochs {
	uint32_t magic;
	/* set once */
	uint32_t limit;
	uint64_t limit_bytes;
	uint64_t seed;
	uint32_t mask;
	/* changing */
	uint32_t count;
	uint64_t bytes;
	struct known_tag *newest; /* its `newer` is the oldest; NULL: none */
	struct known_tag **chains;
	uint32_t stamps[STAMPS];
};

struct tag_epochs *tag_epochs_create(uint32_t limit, uint64_t limit_bytes)
{
	struct tag_epochs *epochs = calloc(1, sizeof(*epochs));
	uint32_t chains = CHAINS_MIN;

	must(limit > 0);
	if (!epochs)
		return NULL;
	while (chains < limit && chains < CHAINS_MAX)
		chains *= 2;
	epochs->magic = TAG_EPOCHS_MAGIC;
	epochs->limit = limit;
	epochs->limit_bytes = limit_bytes;
	epochs->mask = chains - 1;
	epochs->chains = calloc(chains, sizeof(struct known_tag *));
	if (!epochs->chains) {
		free(epochs);
		return NULL;
	}
	must(getrandom(&epochs->seed, sizeof(epochs->seed), 0) == (ssize_t)sizeof(epochs->seed));
	return epochs;
}

static uint64_t hash_of(const struct tag_epochs *epochs, const struct tag *tag)
{
	must(epochs->magic == TAG_EPOCHS_MAGIC);
	return XXH3_64bits_withSeed(tag->bytes, tag->length, epochs->seed);
}

static struct known_tag *find(const struct tag_epochs *epochs, uint64_t hash, const struct tag *tag)
{
	for (struct known_tag *k = epochs->chains[hash & epochs->mask]; k; k = k->chain)
		if (k->hash == hash && k->length == tag->length && memcmp(k->bytes, tag->bytes, tag->length) == 0)
			return k;
	return NULL;
}

static void insert_newest(struct tag_epochs *epochs, struct known_tag *known)
{
	struct known_tag *newest = epochs->newest;

	if (newest) {
		known->older = newest;
		known->newer = newest->newer;
		newest->newer->older = known;
		newest->newer = known;
	} else {
		known->older = known->newer = known;
	}
	epochs->newest = known;
}

static void take_out(struct tag_epochs *epochs, struct known_tag *known)
{
	if (known->older == known) {
		epochs->newest = NULL;
		return;
	}
	known->newer->older = known->older;
	known->older->newer = known->newer;
	if (epochs->newest == known)
		epochs->newest = known->older;
}

static void discard(struct tag_epochs *epochs, struct known_tag *known)
{
	struct known_tag **link = &epochs->chains[known->hash & epochs->mask];

	while (*link != known)
		link = &(*link)->chain;
	*link = known->chain;
	take_out(epochs, known);
	epochs->count--;
	epochs->bytes -= known->length;
	free(known);
}

static void discard_all(struct tag_epochs *epochs)
{
	while (epochs->newest)
		discard(epochs, epochs->newest);
}

void tag_epochs_destroy(struct tag_epochs **epochs)
{
	if (!*epochs)
		return;
	must((*epochs)->magic == TAG_EPOCHS_MAGIC);
	discard_all(*epochs);
	free((*epochs)->chains);
	(*epochs)->magic = 0;
	free(*epochs);
	*epochs = NULL;
}

bool tag_epochs_get(struct tag_epochs *epochs, const struct tag *tag, uint64_t now_ms, uint64_t max_age_ms,
		    struct tag_epoch *ret)
{
	struct known_tag *known = find(epochs, hash_of(epochs, tag), tag);

	if (!known)
		return false;
	if (max_age_ms > 0 && now_ms > known->epoch.known_at_ms && now_ms - known->epoch.known_at_ms >= max_age_ms)
		return false;
	take_out(epochs, known);
	insert_newest(epochs, known);
	*ret = known->epoch;
	return true;
}

uint32_t tag_epochs_stamp(const struct tag_epochs *epochs, const struct tag *tag)
{
	return epochs->stamps[hash_of(epochs, tag) % STAMPS];
}

static int learn(struct tag_epochs *epochs, const struct tag *tag, uint64_t hash, const struct tag_epoch *epoch)
{
	struct known_tag *known;

	if (tag->length > epochs->limit_bytes)
		return RSHM_E_TOOBIG;
	known = malloc(sizeof(*known) + tag->length);
	if (!known)
		return RSHM_E_NOMEM;
	while (epochs->newest &&
	       (epochs->count >= epochs->limit || epochs->bytes + tag->length > epochs->limit_bytes))
		discard(epochs, epochs->newest->newer);
	*known = (struct known_tag){
		.chain = epochs->chains[hash & epochs->mask],
		.hash = hash,
		.epoch = *epoch,
		.length = tag->length,
	};
	memcpy(known->bytes, tag->bytes, tag->length);
	epochs->chains[hash & epochs->mask] = known;
	epochs->count++;
	epochs->bytes += tag->length;
	insert_newest(epochs, known);
	return RSHM_OK;
}

int tag_epochs_put(struct tag_epochs *epochs, const struct tag *tag, uint64_t epoch, uint32_t stamp, uint64_t now_ms)
{
	const struct tag_epoch fresh = {.epoch = epoch, .known_at_ms = now_ms};
	uint64_t hash = hash_of(epochs, tag);
	struct known_tag *known;

	if (epochs->stamps[hash % STAMPS] != stamp)
		return RSHM_CONFLICT;
	known = find(epochs, hash, tag);
	if (!known)
		return learn(epochs, tag, hash, &fresh);
	known->epoch = fresh;
	take_out(epochs, known);
	insert_newest(epochs, known);
	return RSHM_OK;
}

void tag_epochs_forget(struct tag_epochs *epochs, const struct tag *tag)
{
	uint64_t hash = hash_of(epochs, tag);
	struct known_tag *known = find(epochs, hash, tag);

	epochs->stamps[hash % STAMPS]++;
	if (known)
		discard(epochs, known);
}

void tag_epochs_forget_all(struct tag_epochs *epochs)
{
	must(epochs->magic == TAG_EPOCHS_MAGIC);
	for (uint32_t i = 0; i < STAMPS; i++)
		epochs->stamps[i]++;
	discard_all(epochs);
}

uint32_t tag_epochs_count(const struct tag_epochs *epochs)
{
	return epochs->count;
}

/* ---- shared memory ------------------------------------------------------------------------------------------ */

uint32_t tags_slot(const struct tag *tag)
{
	return (uint32_t)(XXH3_64bits(tag->bytes, tag->length) % RSHM_TAG_WORDS);
}

static bool has_slot(const struct rshm_tag_pair *pairs, uint32_t count, uint32_t slot)
{
	for (uint32_t i = 0; i < count; i++)
		if (pairs[i].slot == slot)
			return true;
	return false;
}

int tags_hot_prefix(const struct tags *tags, const uint32_t *words, unsigned char ret_bytes[TAGS_PREFIX_MAX],
		    size_t *ret_length)
{
	struct rshm_tag_pair pairs[RSHM_TAGS_HOT_MAX];
	struct rshm_tag_head head = {0};

	must(tags->count <= TAGS_MAX);
	for (uint32_t i = 0; i < tags->count; i++) {
		uint32_t slot = tags_slot(&tags->items[i]);

		if (has_slot(pairs, head.count, slot))
			continue;
		if (head.count == RSHM_TAGS_HOT_MAX)
			return RSHM_E_TOOBIG;
		pairs[head.count++] = (struct rshm_tag_pair){.slot = slot, .epoch = words[slot]};
	}
	*ret_length = 0;
	if (head.count == 0)
		return RSHM_OK;
	/* It will stand at any address in the ring, so it is bytes here. */
	memcpy(ret_bytes, &head, sizeof(head));
	memcpy(ret_bytes + sizeof(head), pairs, head.count * sizeof(pairs[0]));
	*ret_length = sizeof(head) + head.count * sizeof(pairs[0]);
	return RSHM_OK;
}
