/*
 * ring.h - the hot ring: a log in a ring with a lossy index. One writer, any number of readers on read-only mappings.
 *
 * Reader: rshm_reader_init() once per mapping, then rshm_read(), or rshm_find() … rshm_still_valid() for bytes in place.
 * Writer: rshm_writer_format() or rshm_writer_adopt() once, then puts and removes from one thread (ring_writer.c).
 * No function here allocates, blocks, calls the system or writes to a reader's mapping.
 */
#ifndef RSHM_RING_H
#define RSHM_RING_H

#include <stdbool.h>

#include "shm/layout.h"

/* ---- geometry ----------------------------------------------------------------------------------------------- */

struct rshm_geometry {
	uint64_t object_size, ring_bytes, ring_offset, index_offset, tag_offset;
	uint32_t bucket_count, entry_limit;
};

/*
 * The layout for a ring of `ring_bytes` (rounded up to a power of two, RSHM_RING_MIN at the least). `entry_limit_max` caps
 * the hot limit of one entry, which is ring/32 otherwise.
 */
void rshm_geometry_plan(uint64_t ring_bytes, uint32_t entry_limit_max, struct rshm_geometry *ret);

/* ---- readers ------------------------------------------------------------------------------------------------ */

/* A reader's private, checked view of a segment. Immutable after rshm_reader_init(); shared by threads. */
struct rshm_reader {
	const struct rshm_segment *segment;
	const uint64_t *index;
	const unsigned char *ring;
	const uint32_t *tags; /* RSHM_TAG_WORDS words */
	uint64_t units;       /* of the ring; a power of two */
	uint64_t hash_seed;
	uint32_t bucket_count, entry_limit;
};

/*
 * Checks the header of an object of `mapped_size` bytes and fills `ret`. RSHM_E_UNSUPPORTED: another layout;
 * RSHM_E_CORRUPT: a geometry that does not fit; RSHM_E_CLOSED: retired or not yet live.
 */
int rshm_reader_init(const void *object, uint64_t mapped_size, struct rshm_reader *ret);

/* An entry as one read saw it: private, checked against limits. */
struct rshm_found {
	struct rshm_entry entry;
	const unsigned char *bytes; /* in the ring: key, metadata, value */
	uint64_t tail;              /* when it was found */
};

enum rshm_outcome {
	RSHM_FOUND,     /* valid as long as rshm_still_valid() */
	RSHM_NOT_FOUND, /* ask the agent */
	RSHM_LAPPED,    /* reclaimed under our hands three times: ask the agent, answer inline */
	RSHM_LET_GO,    /* the segment is retired: attach anew */
};

/* Finds `key` (hash by rshm_hash() with the reader's seed). Its bytes may be reclaimed at any moment. */
enum rshm_outcome rshm_find(const struct rshm_reader *reader, uint64_t hash, const void *key, size_t key_len,
			    struct rshm_found *ret);

/* True if nothing read from `found->bytes` before this call had been reclaimed. The check that carries correctness. */
bool rshm_still_valid(const struct rshm_reader *reader, const struct rshm_found *found);

/*
 * Finds and copies: the value to `value` if it fits `value_cap`, the metadata to `metadata` if it is not NULL and fits.
 * RSHM_FOUND also if a buffer is too small: compare ret->entry's lengths. At most 3 attempts.
 */
enum rshm_outcome rshm_read(const struct rshm_reader *reader, uint64_t hash, const void *key, size_t key_len,
			    void *value, size_t value_cap, void *metadata, size_t metadata_cap,
			    struct rshm_found *ret);

/* ---- the writer --------------------------------------------------------------------------------------------- */

/* What a put brings, or what the ring holds; all borrowed. */
struct rshm_item {
	const void *key, *metadata, *value;
	uint32_t value_len;
	uint16_t key_len, metadata_len;
	uint64_t version;
	uint64_t control_a, control_b;
};

/*
 * The policy. keep: asked for each live entry about to be reclaimed: copy it to the head? It may change RSHM_FLAGS_POLICY of
 * item->control_a, which the copy gets. drop: told about each live entry that goes. enter: asked for the flags (of
 * RSHM_FLAGS_POLICY) of each entry that a put brings, besides those it comes with; `replaced` is the older one, or NULL.
 */
typedef bool rshm_keep_fn(void *context, struct rshm_item *item, uint64_t position);
typedef void rshm_drop_fn(void *context, const struct rshm_item *item, uint64_t position);
typedef uint32_t rshm_enter_fn(void *context, uint64_t hash, const struct rshm_entry *replaced);

struct rshm_writer {
	/* set once */
	struct rshm_segment *segment;
	uint64_t *index;
	unsigned char *ring;
	uint64_t units;
	uint64_t hash_seed;
	uint32_t bucket_count, entry_limit;
	rshm_keep_fn *keep;   /* NULL: keep the touched ones */
	rshm_drop_fn *drop;   /* NULL: nobody wants to know */
	rshm_enter_fn *enter; /* NULL: none */
	void *context;
	uint32_t reinsert_percent; /* re-inserted bytes per 100 appended ones */
	/* the writer's truth; the shared copies are output only */
	uint64_t head, tail;
	uint64_t largest, largest_before; /* units of the largest entry appended in this lap and in the one before */
	uint64_t trusted_from;            /* from here on the log is this writer's own; before it, a dead one's */
	uint64_t live_entries, live_units;
	uint64_t reinsert_credit; /* units that may still be re-inserted */
	uint64_t put_credit;      /* of them, for the sake of the put at hand */
	uint64_t evictions, reinsertions, displaced;
};

/*
 * Makes a segment of fresh zeroed memory (state INIT; rshm_writer_publish() makes it LIVE). `geometry` as planned for the
 * object, `header` complete but magic, layout and size, which are filled in.
 */
void rshm_writer_format(void *object, const struct rshm_geometry *geometry, const struct rshm_header *header,
			const char *tenant, uint64_t hash_seed, struct rshm_writer *ret);
void rshm_writer_publish(struct rshm_writer *writer, enum rshm_policy policy, uint64_t stale_limit_ms);

/*
 * Takes over a LIVE segment that a dead writer left: checks header and counters, scans the index, zeroes words that do not
 * lead to an entry of that hash, counts what lives. [tail, head) is not written; writing goes on at head.
 * RSHM_E_UNSUPPORTED, RSHM_E_CORRUPT or RSHM_E_CLOSED as rshm_reader_init(): then retire it.
 */
int rshm_writer_adopt(void *object, uint64_t mapped_size, struct rshm_writer *ret);

/* Puts the entry in the place of any older one of its key. RSHM_E_TOOBIG above the entry limit (nothing changed). */
int rshm_writer_put(struct rshm_writer *writer, const struct rshm_item *item);

/* Removes the key's word. Returns true if there was one. */
bool rshm_writer_remove(struct rshm_writer *writer, const void *key, size_t key_len);

/* Finds a live entry; `ret` points into the ring, good until the next put. */
bool rshm_writer_find(const struct rshm_writer *writer, const void *key, size_t key_len, struct rshm_item *ret,
		      uint64_t *ret_position);

/*
 * Changes the control words of a live entry: B first, then A. False if the position is not a live entry's, or (with
 * `version` not 0) it has another version.
 */
bool rshm_writer_patch(struct rshm_writer *writer, uint64_t position, uint64_t version, uint64_t control_a,
		       uint64_t control_b);

/* The live entry at a position, which may be any number (clients send it); `ret` as of rshm_writer_find(). */
bool rshm_writer_at(const struct rshm_writer *writer, uint64_t position, struct rshm_item *ret);

/* Marks the entry at a position touched. The position may be any number (clients send it). */
bool rshm_writer_touch(struct rshm_writer *writer, uint64_t position);

/*
 * Walks live entries in the order of the log. *cursor starts at 0; false at the end. Puts between calls are allowed; what is
 * reclaimed or appended meanwhile may or may not be seen. `steps` bounds the entries looked at, live or not.
 */
bool rshm_writer_walk(const struct rshm_writer *writer, uint64_t *cursor, uint32_t *steps, struct rshm_item *ret,
		      uint64_t *ret_position);

/* Empties the ring: tail := head. */
void rshm_writer_clear(struct rshm_writer *writer);

/* RETIRED, then emptied. Readers let go at their next call. */
void rshm_writer_retire(struct rshm_writer *writer);

/* Bytes of ring occupied by live entries. */
uint64_t rshm_writer_live_bytes(const struct rshm_writer *writer);

/* Bytes of ring that an entry of this size takes. */
uint64_t rshm_entry_bytes(size_t key_len, size_t metadata_len, size_t value_len);

/*
 * The hot limits of the torture test: which safety of the protocol a test build leaves out. 0 in every real build.
 * 1 no tail check · 2 tail stored after the bytes · 3 index word before the bytes · 4 head after the index word ·
 * 5 a second word for a key instead of replacing the first
 */
#ifndef RSHM_MUTANT
#define RSHM_MUTANT 0
#endif

/* Between two steps of an append the torture test's build yields, waits or dies; every other build does nothing. */
#ifdef RSHM_TORTURE
void torture_point(int point);
#define RSHM_TORTURE_POINT(number) torture_point(number)
#else
#define RSHM_TORTURE_POINT(number) ((void)0)
#endif

#endif
