/*
 * index.h - from a key's hash to positions in the ring.
 *
 * Lines of eight words {tag 16 | position 48}; a key has two candidate lines and one word. The index is lossy: a word
 * proves nothing, the entry it leads to does. A word of 0 is empty; one whose position is no longer in the ring is dead
 * and counts as empty (positions start at the ring's size, so that 0 is never live).
 */
#ifndef RSHM_INDEX_H
#define RSHM_INDEX_H

#include "shm/layout.h"

#define RSHM_POSITION_BITS 48
#define RSHM_POSITION_MASK ((1ull << RSHM_POSITION_BITS) - 1)

/* Hash of a key, seeded per segment. XXH3 of 64 bits (xxHash 0.8). Any thread. */
uint64_t rshm_hash(uint64_t seed, const void *key, size_t key_len);

struct rshm_candidates {
	uint32_t first, second; /* numbers of lines; always different */
	uint64_t tag;           /* in place: already shifted to the top 16 bits */
};

/* The two lines of a hash. `bucket_count` >= 2. */
static inline struct rshm_candidates rshm_candidates(uint64_t hash, uint32_t bucket_count)
{
	/* Lemire's multiply-shift range reduction; the second hash is Knuth's multiplicative one of the first. */
	uint64_t mixed = (hash ^ hash >> 29) * 0x9e3779b97f4a7c15u;
	struct rshm_candidates c = {
		.first = (uint32_t)((hash & 0xffffffffu) * bucket_count >> 32),
		.second = (uint32_t)((mixed >> 32) * bucket_count >> 32),
		.tag = hash & ~RSHM_POSITION_MASK,
	};

	if (c.second == c.first)
		c.second = c.first + 1 < bucket_count ? c.first + 1 : 0;
	return c;
}

static inline uint64_t rshm_word(uint64_t tag, uint64_t position)
{
	return tag | (position & RSHM_POSITION_MASK);
}

/* The 64-bit position that a word means while the ring's tail is `tail`. */
static inline uint64_t rshm_word_position(uint64_t word, uint64_t tail)
{
	uint64_t position = (tail & ~RSHM_POSITION_MASK) | (word & RSHM_POSITION_MASK);

	return position < tail ? position + (1ull << RSHM_POSITION_BITS) : position;
}

#endif
