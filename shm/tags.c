/*
 * tags.c - tag pairs of hot copies against the segment's tag words.
 *
 * A reader's order is: copy, compare the pairs of the copy with the words, look whether tail has passed the entry. The words
 * are read after the copy, so that a read that begins after an invalidation was acknowledged sees the new word. What the pairs
 * say of a copy that was overwritten meanwhile is discarded with it.
 */
#include "shm/tags.h"

#include "shm/order.h"

bool rshm_tags_hold(const uint32_t *words, const void *metadata, size_t metadata_len, uint32_t *ret_skip)
{
	const unsigned char *bytes = metadata;
	struct rshm_tag_head head;
	size_t length;

	if (metadata_len < sizeof(head))
		return false;
	memcpy(&head, bytes, sizeof(head));
	if (head.count > RSHM_TAGS_HOT_MAX)
		return false;
	length = sizeof(head) + head.count * sizeof(struct rshm_tag_pair);
	if (length > metadata_len)
		return false;
	for (uint32_t i = 0; i < head.count; i++) {
		struct rshm_tag_pair pair;

		memcpy(&pair, bytes + sizeof(head) + i * sizeof(pair), sizeof(pair));
		/* Pairs with whatever told the caller of the invalidation: the word was changed before that. */
		if (pair.slot >= RSHM_TAG_WORDS || rshm_load_acquire32(&words[pair.slot]) != pair.epoch)
			return false;
	}
	*ret_skip = (uint32_t)length;
	return true;
}
