/*
 * tags.h - does a hot copy still count, as far as its tags are concerned?
 *
 * A TAGGED entry's metadata begins with a struct rshm_tag_head and its pairs. Invalidating a tag changes the word of its slot,
 * and with that one store every copy that was published under the word's old value is gone for every reader.
 */
#ifndef RSHM_TAGS_H
#define RSHM_TAGS_H

#include <stdbool.h>

#include "shm/ring.h"

/* Bytes of the longest head with its pairs. */
#define RSHM_TAGS_BYTES_MAX (sizeof(struct rshm_tag_head) + RSHM_TAGS_HOT_MAX * sizeof(struct rshm_tag_pair))

/*
 * `metadata`: a private copy of what a TAGGED entry's metadata begins with, any bytes, any alignment; `metadata_len`: how long
 * the whole of it says to be, of which the first RSHM_TAGS_BYTES_MAX bytes (or all, if it is shorter) must be there. `words`:
 * RSHM_TAG_WORDS tag words, read with acquire. True if all pairs agree with them; *ret_skip is then the number of bytes that are not
 * the caller's to see. False: the entry is as good as missing. Any thread.
 */
bool rshm_tags_hold(const uint32_t *words, const void *metadata, size_t metadata_len, uint32_t *ret_skip);

/* The same with a reader's words. What it says counts only if rshm_still_valid() says so afterwards. */
static inline bool rshm_tags_valid(const struct rshm_reader *reader, const void *metadata, size_t metadata_len,
				   uint32_t *ret_skip)
{
	return rshm_tags_hold(reader->tags, metadata, metadata_len, ret_skip);
}

#endif
