/*
 * tlv.h - control messages: a header of 16 bytes, then {tag u16, length u32, value}. Numbers stand in msg.h.
 *
 * Integers travel little-endian. A writer never overruns its buffer: it remembers that it did not fit. A reader checks
 * every length against what is there; unknown tags are the caller's to skip.
 */
#ifndef RSHM_TLV_H
#define RSHM_TLV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/msg.h"

struct rshm_tlv_writer {
	unsigned char *bytes;
	size_t capacity, length;
	bool overflow;
};

/* Begins a message with its header; the length is set by rshm_tlv_finish(). */
void rshm_tlv_begin(struct rshm_tlv_writer *writer, void *buffer, size_t capacity, uint16_t op, int status,
		    uint32_t request_id);
void rshm_tlv_bytes(struct rshm_tlv_writer *writer, enum rshm_tag tag, const void *value, size_t length);
void rshm_tlv_text(struct rshm_tlv_writer *writer, enum rshm_tag tag, const char *text);
void rshm_tlv_u32(struct rshm_tlv_writer *writer, enum rshm_tag tag, uint32_t value);
void rshm_tlv_u64(struct rshm_tlv_writer *writer, enum rshm_tag tag, uint64_t value);
/* Returns the length of the message, or RSHM_E_TOOBIG. */
int64_t rshm_tlv_finish(struct rshm_tlv_writer *writer);

struct rshm_tlv_reader {
	const unsigned char *bytes;
	size_t length, offset;
};

/* Reads and checks the header. RSHM_E_PROTOCOL: not a control message, or its length lies; RSHM_E_UNSUPPORTED: version. */
int rshm_tlv_open(struct rshm_tlv_reader *reader, const void *message, size_t length,
		  struct rshm_control_header *ret_header);

struct rshm_tlv {
	uint16_t tag;
	uint32_t length;
	const unsigned char *value; /* in the message */
};

/* The next tag: 1, 0 at the end, RSHM_E_PROTOCOL if what is left is no whole tag. */
int rshm_tlv_next(struct rshm_tlv_reader *reader, struct rshm_tlv *ret);

/* Values of a tag. False if the length is wrong or the text has a NUL or does not fit with its terminator. */
bool rshm_tlv_get_u32(const struct rshm_tlv *tlv, uint32_t *ret);
bool rshm_tlv_get_u64(const struct rshm_tlv *tlv, uint64_t *ret);
bool rshm_tlv_get_text(const struct rshm_tlv *tlv, char *buffer, size_t capacity);

#endif
