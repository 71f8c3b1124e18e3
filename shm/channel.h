/*
 * channel.h - the request channel between one client process and its worker.
 *
 * 32 slots, each with its request and its answer. A slot's word is {generation 28 | waiting 1 | state 3}; the generation
 * is new for every request, so that a late answer never meets another one. Which slots are free the client keeps in private
 * memory; what is in flight the worker keeps in private memory; the shared word only passes them between the two.
 *
 *             client                    worker
 *   FREE ──────────▶ FILLING ─▶ SUBMITTED ──────▶ TAKEN ─────▶ ANSWERED ─▶ FREE (client)
 *                       ▲            │              │              │
 *                       └── next ────┼──────────────┼── piece ◀────┘   same generation
 *                                    ▼              ▼
 *                                 ABANDONED (client's deadline) ──▶ FREE (worker)
 *
 * Nothing here allocates, blocks or calls the system: who must be woken or rung is told to the caller.
 */
#ifndef RSHM_CHANNEL_H
#define RSHM_CHANNEL_H

#include <stdbool.h>

#include "shm/layout.h"

enum rshm_slot_state {
	RSHM_SLOT_FREE = 0,
	RSHM_SLOT_FILLING = 1,
	RSHM_SLOT_SUBMITTED = 2,
	RSHM_SLOT_TAKEN = 3,
	RSHM_SLOT_ANSWERED = 4,
	RSHM_SLOT_ABANDONED = 5,
};

#define RSHM_SLOT_WAITING 0x8u
#define RSHM_SLOT_STATE(word) ((enum rshm_slot_state)((word)&0x7u))
#define RSHM_SLOT_GENERATION(word) ((word) >> 4)

/* ---- client ------------------------------------------------------------------------------------------------- */

/*
 * Checks a freshly mapped channel: magic, layout, size. RSHM_E_CORRUPT or RSHM_E_UNSUPPORTED.
 */
int rshm_channel_check(const void *object, uint64_t mapped_size);

/* Begins a new request in a slot that is FREE (the caller's free list says so). False if the word is not FREE. */
bool rshm_slot_begin(struct rshm_slot *slot);

/* Goes on with the same request after an answer: next piece of the body or of the answer. */
void rshm_slot_continue(struct rshm_slot *slot);

/*
 * Hands slot `number` to the worker: everything written to its request and bytes before is visible to whoever takes it.
 * Returns true if the bell must be rung.
 */
bool rshm_channel_submit(struct rshm_channel *channel, uint32_t number);

/* True once the answer is there; it may then be read. */
bool rshm_slot_is_answered(const struct rshm_slot *slot);

/*
 * Announces that the caller is going to sleep on the slot's word. True: sleep while the word equals *ret_word; false:
 * the answer came meanwhile (or the slot is not ours to wait for).
 */
bool rshm_slot_prepare_wait(struct rshm_slot *slot, uint32_t *ret_word);

/*
 * Gives the request up. Returns the state it was in at that moment: SUBMITTED (nobody had taken it) or TAKEN, and the worker
 * will free the slot; ANSWERED, the answer came after all; anything else, the peer broke it.
 */
enum rshm_slot_state rshm_slot_abandon(struct rshm_slot *slot);

/* ANSWERED → FREE. */
void rshm_slot_release(struct rshm_slot *slot);

/* An abandoned slot that the worker has freed may be used again. */
bool rshm_slot_is_free(const struct rshm_slot *slot);

/* Copies between private memory and the slot's bytes followed by its blocks. `offset` counts through both. */
void rshm_piece_write(struct rshm_channel *channel, uint32_t number, const struct rshm_request *layout, size_t offset,
		      const void *from, size_t length);
void rshm_piece_read(struct rshm_channel *channel, uint32_t number, const struct rshm_request *layout, size_t offset,
		     void *to, size_t length);

/* Bytes that a piece can hold with this many blocks. */
static inline size_t rshm_piece_capacity(uint32_t block_count)
{
	return RSHM_INLINE + (size_t)block_count * RSHM_BLOCK;
}

/* ---- worker ------------------------------------------------------------------------------------------------- */

/* Makes a channel of fresh zeroed memory. `header` complete but magic, layout and size. */
void rshm_channel_format(void *object, const struct rshm_header *header, uint64_t channel_id);

/* The slots submitted since the last call, a bit each. */
uint32_t rshm_channel_pending(struct rshm_channel *channel);

enum rshm_take {
	RSHM_TAKEN, /* *ret_request is a private copy, its lengths, offsets and block numbers are within the channel */
	RSHM_NOTHING, /* abandoned meanwhile (freed now), or the bit lied: go on */
	RSHM_BROKEN,  /* fields that no correct client writes: drop the channel */
};

/* Takes slot `number`. */
enum rshm_take rshm_slot_take(struct rshm_channel *channel, uint32_t number, struct rshm_request *ret_request,
			      uint32_t *ret_generation);

enum rshm_answered {
	RSHM_ANSWER_QUIET,  /* delivered; nobody sleeps on it */
	RSHM_ANSWER_WAKE,   /* delivered; wake the slot's futex */
	RSHM_ANSWER_GONE,   /* the client had abandoned it: the slot is free again, forget the request */
	RSHM_ANSWER_BROKEN, /* the word is not what we left: drop the channel */
};

/*
 * Answers the request taken with `generation`. The bytes of the piece must have been written by rshm_piece_write() with the
 * worker's own copy of the request before.
 */
enum rshm_answered rshm_slot_answer(struct rshm_channel *channel, uint32_t number, uint32_t generation,
				    const struct rshm_answer *answer);

/* Lets the channel sleep: clients ring from now on. True if something was submitted meanwhile: disarm and look. */
bool rshm_channel_arm(struct rshm_channel *channel);
void rshm_channel_disarm(struct rshm_channel *channel);

#endif
