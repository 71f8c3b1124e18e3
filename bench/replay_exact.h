/*
 * replay_exact.h - the yardsticks: exact LRU, exact LFU, and Belady's MIN, over the same bytes.
 *
 * Each holds at most `capacity` bytes; an entry counts what it takes in the ring. A request for a key that is held in another
 * size misses and replaces it. What is larger than the capacity is never held.
 *   LRU  the least recently used goes.
 *   LFU  the least often used since it came in goes; among equals the least recently used.
 *   MIN  knows the future: that goes whose next use is furthest away, and a new one that is itself that one does not come in.
 *        Optimal where all entries take the same; for mixed sizes, where the optimum is NP-hard, a strong yardstick only.
 * All three are one heap that yields the next to go, differently ordered.
 */
#ifndef REPLAY_EXACT_H
#define REPLAY_EXACT_H

#include "bench/replay_trace.h"

enum exact_kind { EXACT_LRU, EXACT_LFU, EXACT_MIN };

struct exact_hits {
	uint64_t requests, hits, bytes, hit_bytes;
};

static inline void exact_count(struct exact_hits *hits, bool counts, uint32_t size, bool hit)
{
	if (!counts)
		return;
	hits->requests++;
	hits->bytes += size;
	hits->hits += hit;
	hits->hit_bytes += hit ? size : 0;
}

#define EXACT_ABSENT UINT32_MAX
#define EXACT_NEVER UINT32_MAX

/* Least `rank` on top; `place` finds a key in the heap. */
struct exact_heap {
	uint32_t *key, *place; /* by place in the heap; by key */
	uint64_t *rank;        /* by key */
	uint32_t *size;        /* by key: of the held value */
	uint32_t *uses;        /* by key: since it came in */
	uint32_t count;
	uint64_t used, capacity;
};

static inline void exact_set(struct exact_heap *heap, uint32_t at, uint32_t key)
{
	heap->key[at] = key;
	heap->place[key] = at;
}

static inline void exact_sift(struct exact_heap *heap, uint32_t at)
{
	uint32_t key = heap->key[at];
	uint64_t rank = heap->rank[key];

	for (uint32_t up = (at - 1) / 2; at > 0 && heap->rank[heap->key[up]] > rank; up = (at - 1) / 2) {
		exact_set(heap, at, heap->key[up]);
		at = up;
	}
	for (uint32_t down = 2 * at + 1; down < heap->count; down = 2 * at + 1) {
		if (down + 1 < heap->count && heap->rank[heap->key[down + 1]] < heap->rank[heap->key[down]])
			down++;
		if (heap->rank[heap->key[down]] >= rank)
			break;
		exact_set(heap, at, heap->key[down]);
		at = down;
	}
	exact_set(heap, at, key);
}

static inline void exact_leave(struct exact_heap *heap, uint32_t key)
{
	uint32_t at = heap->place[key], last = heap->key[--heap->count];

	heap->used -= trace_entry_bytes(heap->size[key]);
	heap->place[key] = EXACT_ABSENT;
	if (last == key)
		return;
	exact_set(heap, at, last);
	exact_sift(heap, at);
}

static inline void exact_enter(struct exact_heap *heap, uint32_t key, uint32_t size, uint64_t rank)
{
	heap->size[key] = size;
	heap->rank[key] = rank;
	heap->used += trace_entry_bytes(size);
	exact_set(heap, heap->count++, key);
	exact_sift(heap, heap->count - 1);
}

/* When each request's key is asked for next; EXACT_NEVER: not again. The caller frees it. */
static inline uint32_t *exact_next_uses(const struct trace *trace)
{
	uint32_t *next = trace_array(trace->count, sizeof(*next)), *seen = trace_array(trace->keys, sizeof(*seen));

	memset(seen, 0xff, trace->keys * sizeof(*seen));
	for (size_t i = trace->count; i-- > 0;) {
		next[i] = seen[trace->key[i]];
		seen[trace->key[i]] = (uint32_t)i;
	}
	free(seen);
	return next;
}

static inline uint64_t exact_rank(const struct exact_heap *heap, enum exact_kind kind, uint32_t key, size_t i,
				  const uint32_t *next)
{
	switch (kind) {
	case EXACT_LRU:
		return i;
	case EXACT_LFU:
		return (uint64_t)heap->uses[key] << 32 | (uint32_t)i;
	case EXACT_MIN:
		break;
	}
	return UINT32_MAX - next[i];
}

static inline void exact_miss(struct exact_heap *heap, uint32_t key, uint32_t size, uint64_t rank, bool may_refuse)
{
	uint64_t bytes = trace_entry_bytes(size);

	if (bytes > heap->capacity)
		return;
	while (heap->used + bytes > heap->capacity) {
		if (may_refuse && heap->rank[heap->key[0]] >= rank)
			return;
		exact_leave(heap, heap->key[0]);
	}
	exact_enter(heap, key, size, rank);
}

static inline struct exact_hits exact_replay(const struct trace *trace, const uint32_t *next, enum exact_kind kind,
					     uint64_t capacity, size_t warm)
{
	uint32_t keys = trace->keys;
	struct exact_heap heap = {
		.key = trace_array(keys, 4),
		.place = trace_array(keys, 4),
		.rank = trace_array(keys, 8),
		.size = trace_array(keys, 4),
		.uses = trace_array(keys, 4),
		.capacity = capacity,
	};
	struct exact_hits hits = {0};

	memset(heap.place, 0xff, keys * sizeof(*heap.place));
	for (size_t i = 0; i < trace->count; i++) {
		uint32_t key = trace->key[i], size = trace->size[i];
		bool held = heap.place[key] != EXACT_ABSENT, hit = held && heap.size[key] == size;

		heap.uses[key] = held ? heap.uses[key] + 1 : 1;
		exact_count(&hits, i >= warm, size, hit);
		if (hit) {
			heap.rank[key] = exact_rank(&heap, kind, key, i, next);
			exact_sift(&heap, heap.place[key]);
			continue;
		}
		if (held)
			exact_leave(&heap, key);
		exact_miss(&heap, key, size, exact_rank(&heap, kind, key, i, next), kind == EXACT_MIN);
	}
	free(heap.key);
	free(heap.place);
	free(heap.rank);
	free(heap.size);
	free(heap.uses);
	return hits;
}

#endif
