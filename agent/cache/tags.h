/*
 * tags.h - what the tags of an entry mean: reading them out of metadata, what the backend says of their epochs, and
 * the words in shared memory by which one store makes all entries of a tag missing.
 *
 * Readers of metadata and the slot functions: any thread, no state. A tag_epochs belongs to one tenant and one
 * worker. Nothing here blocks.
 */
#ifndef RIPTIDE_CACHE_TAGS_H
#define RIPTIDE_CACHE_TAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/layout.h"

/* ---- metadata ----------------------------------------------------------------------------------------------- */

#define TAGS_MAX 64u /* of one entry */

struct tag {
	const unsigned char *bytes; /* in the metadata; not NUL-terminated */
	size_t length;              /* 1 and more */
};

struct tags {
	uint32_t count;
	struct tag items[TAGS_MAX]; /* in the order of the metadata; the same tag may come twice */
};

/*
 * The tags in encoded metadata (its format: client-lib/metadata.c), which may be any bytes. RSHM_E_INVALID:
 * malformed, or an empty tag; RSHM_E_TOOBIG: more than TAGS_MAX. `ret` borrows from `metadata`.
 */
int tags_of_metadata(const void *metadata, size_t length, struct tags *ret);

/*
 * The soft deadline in encoded metadata, ms since 1970. RSHM_MISS: none; RSHM_E_INVALID: malformed, not of 8 bytes,
 * or more than one.
 */
int soft_deadline_of_metadata(const void *metadata, size_t length, uint64_t *ret_deadline_ms);

/*
 * The content type in encoded metadata, any bytes, not NUL-terminated. RSHM_MISS: none; RSHM_E_INVALID: malformed, or more
 * than one. *ret borrows from `metadata`.
 */
int content_type_of_metadata(const void *metadata, size_t length, const char **ret, size_t *ret_length);

/* ---- what the backend says ---------------------------------------------------------------------------------- */

/* A bounded memory of the epochs of a tenant's tags; what was used least recently goes first. */
struct tag_epochs;

struct tag_epoch {
	uint64_t epoch;
	uint64_t known_at_ms;
};

/* At most so many tags, and so many bytes of them. NULL without memory. */
struct tag_epochs *tag_epochs_create(uint32_t limit, uint64_t limit_bytes);
void tag_epochs_destroy(struct tag_epochs **epochs);

/* False: not known, or known for `max_age_ms` and longer (0: any age will do). Times: clock_monotonic_ms(). */
bool tag_epochs_get(struct tag_epochs *epochs, const struct tag *tag, uint64_t now_ms, uint64_t max_age_ms,
		    struct tag_epoch *ret);

/*
 * Take a stamp when the backend is asked, and bring it with the answer: tag_epochs_put() refuses with RSHM_CONFLICT
 * if the tag was forgotten in between (rarely: if another one was), because the answer may be older than that.
 * RSHM_E_TOOBIG: longer than all tags together may be; RSHM_E_NOMEM. A refused epoch is good for the operation that
 * asked, and no other.
 */
uint32_t tag_epochs_stamp(const struct tag_epochs *epochs, const struct tag *tag);
int tag_epochs_put(struct tag_epochs *epochs, const struct tag *tag, uint64_t epoch, uint32_t stamp, uint64_t now_ms);

/* The tag was invalidated, here (when the backend has acknowledged it) or by others. */
void tag_epochs_forget(struct tag_epochs *epochs, const struct tag *tag);
/* We cannot know what was invalidated: the feed was lost, or the namespace is a new one. */
void tag_epochs_forget_all(struct tag_epochs *epochs);

uint32_t tag_epochs_count(const struct tag_epochs *epochs);

/* ---- shared memory ------------------------------------------------------------------------------------------ */

#define TAGS_PREFIX_MAX (sizeof(struct rshm_tag_head) + RSHM_TAGS_HOT_MAX * sizeof(struct rshm_tag_pair))

/* The tag's word in each segment: 0 .. RSHM_TAG_WORDS - 1. The same in every build, for segments are adopted. */
uint32_t tags_slot(const struct tag *tag);

/*
 * What the metadata of the entry's hot copy begins with; *ret_length is 0 without tags. `words` are the
 * RSHM_TAG_WORDS words of the segment, which only the calling thread changes. Call it in the turn of the loop in
 * which the entry's epochs were found valid: the words are sampled here. RSHM_E_TOOBIG: more than RSHM_TAGS_HOT_MAX
 * slots, the entry cannot be hot.
 */
int tags_hot_prefix(const struct tags *tags, const uint32_t *words, unsigned char ret_bytes[TAGS_PREFIX_MAX],
		    size_t *ret_length);

#endif
