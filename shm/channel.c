/*
 * channel.c - slots, bitmap and the armed word.
 *
 * Orderings, and what pairs with what:
 *   word := SUBMITTED (release, client)       → the worker's CAS to TAKEN (acquire): request and bytes are visible.
 *   word := ANSWERED (CAS, release, worker)   → the client's acquire load: answer and bytes are visible.
 *   submitted |= bit (acq_rel) → armed?       | seq_cst fence between, on both sides, in opposite order (Dekker): either
 *   armed := 1 → submitted?                   | the client sees armed and rings, or the worker sees the bit. Without
 *                                             | either fence a request can sleep for ever (tests/model shows it).
 *
 * The worker trusts no word. It moves a slot only by CAS from the exact value that its private table says it left
 * there (or that value with the waiting bit), so whatever else the client stores is found out and ends the channel.
 */
#include "shm/channel.h"

#include "shm/order.h"

static uint32_t make_word(uint32_t generation, uint32_t waiting, enum rshm_slot_state state)
{
	return generation << 4 | waiting | (uint32_t)state;
}

/* ---- client ------------------------------------------------------------------------------------------------- */

int rshm_channel_check(const void *object, uint64_t mapped_size)
{
	struct rshm_header header;

	if (mapped_size != sizeof(struct rshm_channel))
		return RSHM_E_CORRUPT;
	rshm_copy_out(&header, object, sizeof(header));
	if (header.magic != RSHM_CHANNEL_MAGIC || header.object_size != mapped_size)
		return RSHM_E_CORRUPT;
	return header.layout_major == RSHM_LAYOUT_MAJOR ? RSHM_OK : RSHM_E_UNSUPPORTED;
}

bool rshm_slot_begin(struct rshm_slot *slot)
{
	/* Acquire pairs with the worker's release when it freed an abandoned slot: it is done with the bytes. */
	uint32_t word = rshm_load_acquire32(&slot->word);

	if (RSHM_SLOT_STATE(word) != RSHM_SLOT_FREE)
		return false;
	rshm_store_relaxed32(&slot->word, make_word(RSHM_SLOT_GENERATION(word) + 1, 0, RSHM_SLOT_FILLING));
	return true;
}

void rshm_slot_continue(struct rshm_slot *slot)
{
	uint32_t word = rshm_load_relaxed32(&slot->word);

	rshm_store_relaxed32(&slot->word, make_word(RSHM_SLOT_GENERATION(word), 0, RSHM_SLOT_FILLING));
}

bool rshm_channel_submit(struct rshm_channel *channel, uint32_t number)
{
	struct rshm_slot *slot = &channel->slots[number];
	uint32_t word = rshm_load_relaxed32(&slot->word);

	/* Pairs with the CAS in rshm_slot_take(): whoever takes the slot sees request and bytes. */
	rshm_store_release32(&slot->word, make_word(RSHM_SLOT_GENERATION(word), 0, RSHM_SLOT_SUBMITTED));
	rshm_or_acq_rel32(&channel->submitted, 1u << number);
	/* Pairs with the fence in rshm_channel_arm(). */
	rshm_fence_seq_cst();
	return rshm_load_relaxed32(&channel->armed) != 0;
}

bool rshm_slot_is_answered(const struct rshm_slot *slot)
{
	/* Pairs with the CAS in rshm_slot_answer(). */
	return RSHM_SLOT_STATE(rshm_load_acquire32(&slot->word)) == RSHM_SLOT_ANSWERED;
}

bool rshm_slot_prepare_wait(struct rshm_slot *slot, uint32_t *ret_word)
{
	uint32_t word = rshm_load_acquire32(&slot->word);

	for (;;) {
		enum rshm_slot_state state = RSHM_SLOT_STATE(word);

		if (state != RSHM_SLOT_SUBMITTED && state != RSHM_SLOT_TAKEN)
			return false;
		if (word & RSHM_SLOT_WAITING) {
			*ret_word = word;
			return true;
		}
		/* A failed exchange loads the new word, and there are at most three states ahead. */
		(void)rshm_cas_acq_rel32(&slot->word, &word, word | RSHM_SLOT_WAITING);
		word = rshm_load_acquire32(&slot->word);
	}
}

enum rshm_slot_state rshm_slot_abandon(struct rshm_slot *slot)
{
	uint32_t word = rshm_load_acquire32(&slot->word);

	for (;;) {
		enum rshm_slot_state state = RSHM_SLOT_STATE(word);

		if (state != RSHM_SLOT_SUBMITTED && state != RSHM_SLOT_TAKEN)
			return state;
		/* The state is part of the exchanged word, so what is returned is what it was. */
		if (rshm_cas_acq_rel32(&slot->word, &word,
				       make_word(RSHM_SLOT_GENERATION(word), 0, RSHM_SLOT_ABANDONED)))
			return state;
	}
}

void rshm_slot_release(struct rshm_slot *slot)
{
	uint32_t word = rshm_load_relaxed32(&slot->word);

	rshm_store_release32(&slot->word, make_word(RSHM_SLOT_GENERATION(word), 0, RSHM_SLOT_FREE));
}

bool rshm_slot_is_free(const struct rshm_slot *slot)
{
	return RSHM_SLOT_STATE(rshm_load_acquire32(&slot->word)) == RSHM_SLOT_FREE;
}

/* ---- pieces ------------------------------------------------------------------------------------------------- */

/* The stretch of shared memory at `offset` of a piece; *ret_length bytes of it are contiguous. */
static unsigned char *piece_stretch(struct rshm_channel *channel, uint32_t number, const struct rshm_request *layout,
				    size_t offset, size_t *ret_length)
{
	size_t block;

	if (offset < RSHM_INLINE) {
		*ret_length = RSHM_INLINE - offset;
		return channel->slots[number].bytes + offset;
	}
	block = (offset - RSHM_INLINE) / RSHM_BLOCK;
	offset = (offset - RSHM_INLINE) % RSHM_BLOCK;
	*ret_length = RSHM_BLOCK - offset;
	return channel->blocks[layout->blocks[block]] + offset;
}

void rshm_piece_write(struct rshm_channel *channel, uint32_t number, const struct rshm_request *layout, size_t offset,
		      const void *from, size_t length)
{
	const unsigned char *bytes = from;

	while (length > 0) {
		size_t room;
		unsigned char *to = piece_stretch(channel, number, layout, offset, &room);
		size_t n = length < room ? length : room;

		rshm_copy_in(to, bytes, n);
		bytes += n;
		offset += n;
		length -= n;
	}
}

void rshm_piece_read(struct rshm_channel *channel, uint32_t number, const struct rshm_request *layout, size_t offset,
		     void *to, size_t length)
{
	unsigned char *bytes = to;

	while (length > 0) {
		size_t room;
		const unsigned char *from = piece_stretch(channel, number, layout, offset, &room);
		size_t n = length < room ? length : room;

		rshm_copy_out(bytes, from, n);
		bytes += n;
		offset += n;
		length -= n;
	}
}

/* ---- worker ------------------------------------------------------------------------------------------------- */

void rshm_channel_format(void *object, const struct rshm_header *header, uint64_t channel_id)
{
	struct rshm_channel *channel = object;

	channel->header = *header;
	channel->header.magic = RSHM_CHANNEL_MAGIC;
	channel->header.layout_major = RSHM_LAYOUT_MAJOR;
	channel->header.layout_minor = RSHM_LAYOUT_MINOR;
	channel->header.object_size = sizeof(*channel);
	channel->channel_id = channel_id;
	for (unsigned int i = 0; i < RSHM_SHARDS; i++)
		channel->shards[i].stop_hits = channel->shards[i].stop_bytes = UINT64_MAX;
	rshm_store_release32(&channel->armed, 1);
}

uint32_t rshm_channel_pending(struct rshm_channel *channel)
{
	if (rshm_load_relaxed32(&channel->submitted) == 0)
		return 0;
	return rshm_exchange_acq_rel32(&channel->submitted, 0);
}

static bool request_is_sound(const struct rshm_request *r)
{
	if (r->block_count > RSHM_SLOT_BLOCKS || r->piece_len > rshm_piece_capacity(r->block_count))
		return false;
	for (unsigned int i = 0; i < r->block_count; i++)
		if (r->blocks[i] >= RSHM_BLOCKS)
			return false;
	if (r->flags & RSHM_REQUEST_FETCH)
		return true;
	return r->offset <= r->body_len && r->piece_len <= r->body_len - r->offset &&
	       r->metadata_len <= r->body_len && r->key_len <= r->body_len - r->metadata_len;
}

enum rshm_take rshm_slot_take(struct rshm_channel *channel, uint32_t number, struct rshm_request *ret_request,
			      uint32_t *ret_generation)
{
	struct rshm_slot *slot = &channel->slots[number];
	uint32_t word = rshm_load_acquire32(&slot->word);

	/* The client changes the word at most twice more (waiting, abandoned); a bound ends a hostile one's game. */
	for (int attempt = 0; attempt < 4; attempt++) {
		enum rshm_slot_state state = RSHM_SLOT_STATE(word);

		if (state == RSHM_SLOT_ABANDONED) {
			if (rshm_cas_acq_rel32(&slot->word, &word,
					       make_word(RSHM_SLOT_GENERATION(word), 0, RSHM_SLOT_FREE)))
				return RSHM_NOTHING;
			continue;
		}
		if (state != RSHM_SLOT_SUBMITTED)
			return RSHM_NOTHING;
		/* Acquire: pairs with the client's release in rshm_channel_submit(). */
		if (!rshm_cas_acq_rel32(
			    &slot->word, &word,
			    make_word(RSHM_SLOT_GENERATION(word), word & RSHM_SLOT_WAITING, RSHM_SLOT_TAKEN)))
			continue;
		rshm_copy_out(ret_request, &slot->request, sizeof(*ret_request));
		*ret_generation = RSHM_SLOT_GENERATION(word);
		return request_is_sound(ret_request) ? RSHM_TAKEN : RSHM_BROKEN;
	}
	return RSHM_BROKEN;
}

enum rshm_answered rshm_slot_answer(struct rshm_channel *channel, uint32_t number, uint32_t generation,
				    const struct rshm_answer *answer)
{
	struct rshm_slot *slot = &channel->slots[number];
	uint32_t word = rshm_load_relaxed32(&slot->word);

	rshm_copy_in(&slot->answer, answer, sizeof(*answer));
	for (int attempt = 0; attempt < 4; attempt++) {
		uint32_t waiting = word & RSHM_SLOT_WAITING;

		if (word == make_word(generation, 0, RSHM_SLOT_ABANDONED)) {
			if (rshm_cas_acq_rel32(&slot->word, &word, make_word(generation, 0, RSHM_SLOT_FREE)))
				return RSHM_ANSWER_GONE;
			continue;
		}
		if (word != make_word(generation, waiting, RSHM_SLOT_TAKEN))
			return RSHM_ANSWER_BROKEN;
		/* Release: pairs with the client's acquire load in rshm_slot_is_answered(). */
		if (rshm_cas_acq_rel32(&slot->word, &word, make_word(generation, 0, RSHM_SLOT_ANSWERED)))
			return waiting ? RSHM_ANSWER_WAKE : RSHM_ANSWER_QUIET;
	}
	return RSHM_ANSWER_BROKEN;
}

bool rshm_channel_arm(struct rshm_channel *channel)
{
	rshm_store_relaxed32(&channel->armed, 1);
	/* Pairs with the fence in rshm_channel_submit(). */
	rshm_fence_seq_cst();
	return rshm_load_relaxed32(&channel->submitted) != 0;
}

void rshm_channel_disarm(struct rshm_channel *channel)
{
	rshm_store_relaxed32(&channel->armed, 0);
}
