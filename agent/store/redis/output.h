/*
 * output.h - what a connection has still to send: commands in the form of the Redis protocol.
 *
 * Short arguments are copied; long ones are lent, and must stay until they are sent or the output is reset. Memory that
 * runs out sets `failed`; the caller then goes back to its mark. One thread; nothing blocks.
 */
#ifndef RIPTIDE_STORE_REDIS_OUTPUT_H
#define RIPTIDE_STORE_REDIS_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define REDIS_OUTPUT_COPY_MAX (32u << 10) /* bytes of an argument that is copied */

/* An argument of somebody else, which belongs before bytes[at]. */
struct redis_output_lent {
	const void *bytes;
	size_t length, at;
};

/* All zero is an empty output. */
struct redis_output {
	char *bytes;
	size_t length, capacity;
	size_t position; /* of `bytes`: what stands before it is sent */
	struct redis_output_lent *lent;
	size_t lent_count, lent_capacity;
	size_t lent_first, lent_position; /* the first one not sent as a whole, and what is sent of it */
	uint64_t queued, sent;            /* bytes since reset, lent ones too */
	bool failed;
};

struct redis_output_mark {
	size_t length, lent_count;
	uint64_t queued;
};

/* A command of `count` words, the first of which is `name`; count - 1 calls of the others follow. */
void redis_output_command(struct redis_output *output, uint32_t count, const char *name);
void redis_output_string(struct redis_output *output, const void *bytes, size_t length);
void redis_output_number(struct redis_output *output, uint64_t number);
/* Lends `bytes` if they are long. */
void redis_output_lend(struct redis_output *output, const void *bytes, size_t length);

struct redis_output_mark redis_output_mark(const struct redis_output *output);
/* Takes back what was added since the mark, of which nothing may be sent yet, and clears `failed`. */
void redis_output_rollback(struct redis_output *output, struct redis_output_mark mark);

/* Fills at most `count` vectors with what is to be sent next; returns how many. 0: all is sent. */
size_t redis_output_vectors(const struct redis_output *output, struct iovec *vectors, size_t count);
void redis_output_advance(struct redis_output *output, size_t sent);

/* Back to all zero; frees. */
void redis_output_reset(struct redis_output *output);

#endif
