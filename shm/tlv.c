/* tlv.c - control messages, byte by byte and therefore the same on every machine. */
#include "shm/tlv.h"

#include <string.h>

#define TLV_HEAD 6u
#define TLV_TEXT_MAX (1u << 24)

static void put_le(unsigned char *to, uint64_t value, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		to[i] = (unsigned char)(value >> 8 * i);
}

static uint64_t get_le(const unsigned char *from, size_t bytes)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes; i++)
		value |= (uint64_t)from[i] << 8 * i;
	return value;
}

void rshm_tlv_begin(struct rshm_tlv_writer *writer, void *buffer, size_t capacity, uint16_t op, int status,
		    uint32_t request_id)
{
	*writer = (struct rshm_tlv_writer){.bytes = buffer, .capacity = capacity};
	if (capacity < sizeof(struct rshm_control_header)) {
		writer->overflow = true;
		return;
	}
	put_le(writer->bytes, RSHM_CONTROL_MAGIC, 2);
	writer->bytes[2] = RSHM_CONTROL_VERSION;
	writer->bytes[3] = 0;
	put_le(writer->bytes + 4, op, 2);
	put_le(writer->bytes + 6, (uint16_t)(int16_t)status, 2);
	put_le(writer->bytes + 8, request_id, 4);
	writer->length = sizeof(struct rshm_control_header);
}

void rshm_tlv_bytes(struct rshm_tlv_writer *writer, enum rshm_tag tag, const void *value, size_t length)
{
	unsigned char *to = writer->bytes + writer->length;

	if (writer->overflow || length > UINT32_MAX || writer->capacity - writer->length < TLV_HEAD ||
	    writer->capacity - writer->length - TLV_HEAD < length) {
		writer->overflow = true;
		return;
	}
	put_le(to, tag, 2);
	put_le(to + 2, length, 4);
	if (length)
		memcpy(to + TLV_HEAD, value, length);
	writer->length += TLV_HEAD + length;
}

void rshm_tlv_text(struct rshm_tlv_writer *writer, enum rshm_tag tag, const char *text)
{
	/* memchr, not strlen: shm/ imports nothing but mem*; longer text than this is a bug of the caller's. */
	const char *end = memchr(text, '\0', TLV_TEXT_MAX);

	if (end)
		rshm_tlv_bytes(writer, tag, text, (size_t)(end - text));
	else
		writer->overflow = true;
}

void rshm_tlv_u32(struct rshm_tlv_writer *writer, enum rshm_tag tag, uint32_t value)
{
	unsigned char bytes[4];

	put_le(bytes, value, sizeof(bytes));
	rshm_tlv_bytes(writer, tag, bytes, sizeof(bytes));
}

void rshm_tlv_u64(struct rshm_tlv_writer *writer, enum rshm_tag tag, uint64_t value)
{
	unsigned char bytes[8];

	put_le(bytes, value, sizeof(bytes));
	rshm_tlv_bytes(writer, tag, bytes, sizeof(bytes));
}

int64_t rshm_tlv_finish(struct rshm_tlv_writer *writer)
{
	if (writer->overflow)
		return RSHM_E_TOOBIG;
	put_le(writer->bytes + 12, writer->length - sizeof(struct rshm_control_header), 4);
	return (int64_t)writer->length;
}

int rshm_tlv_open(struct rshm_tlv_reader *reader, const void *message, size_t length,
		  struct rshm_control_header *ret_header)
{
	const unsigned char *bytes = message;
	struct rshm_control_header header;

	if (length < sizeof(header))
		return RSHM_E_PROTOCOL;
	header.magic = (uint16_t)get_le(bytes, 2);
	header.version = bytes[2];
	header.flags = bytes[3];
	header.op = (uint16_t)get_le(bytes + 4, 2);
	header.status = (int16_t)get_le(bytes + 6, 2);
	header.request_id = (uint32_t)get_le(bytes + 8, 4);
	header.length = (uint32_t)get_le(bytes + 12, 4);
	if (header.magic != RSHM_CONTROL_MAGIC || header.length != length - sizeof(header))
		return RSHM_E_PROTOCOL;
	if (header.version != RSHM_CONTROL_VERSION)
		return RSHM_E_UNSUPPORTED;
	*ret_header = header;
	*reader = (struct rshm_tlv_reader){.bytes = bytes, .length = length, .offset = sizeof(header)};
	return RSHM_OK;
}

int rshm_tlv_next(struct rshm_tlv_reader *reader, struct rshm_tlv *ret)
{
	size_t left = reader->length - reader->offset;
	const unsigned char *at = reader->bytes + reader->offset;
	uint32_t length;

	if (left == 0)
		return 0;
	if (left < TLV_HEAD)
		return RSHM_E_PROTOCOL;
	length = (uint32_t)get_le(at + 2, 4);
	if (length > left - TLV_HEAD)
		return RSHM_E_PROTOCOL;
	ret->tag = (uint16_t)get_le(at, 2);
	ret->length = length;
	ret->value = at + TLV_HEAD;
	reader->offset += TLV_HEAD + length;
	return 1;
}

bool rshm_tlv_get_u32(const struct rshm_tlv *tlv, uint32_t *ret)
{
	if (tlv->length != 4)
		return false;
	*ret = (uint32_t)get_le(tlv->value, 4);
	return true;
}

bool rshm_tlv_get_u64(const struct rshm_tlv *tlv, uint64_t *ret)
{
	if (tlv->length != 8)
		return false;
	*ret = get_le(tlv->value, 8);
	return true;
}

bool rshm_tlv_get_text(const struct rshm_tlv *tlv, char *buffer, size_t capacity)
{
	if (tlv->length >= capacity)
		return false;
	for (uint32_t i = 0; i < tlv->length; i++)
		if (tlv->value[i] == '\0')
			return false;
	if (tlv->length)
		memcpy(buffer, tlv->value, tlv->length);
	buffer[tlv->length] = '\0';
	return true;
}
