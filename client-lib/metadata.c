/*
 * metadata.c - what travels with a value.
 *
 * The encoded form is a sequence of fields, in any order, without padding; integers little-endian:
 *
 *	u8 kind | u16 name length | u16 value length | name | value
 *
 * At most 65,535 bytes in all. Kinds stand in riptide.h; only attributes have a name; unknown kinds are skipped by their
 * lengths. The agent looks for tags and a soft deadline (8 bytes, ms since 1970), and carries the rest unread.
 */
#include <stdlib.h>
#include <string.h>

#include "client-lib/riptide_priv.h"

#define FIELD_HEAD 5u
#define SOFT_BYTES 8u

static int add_length(const char *name, const char *value, size_t *total)
{
	size_t name_length = name ? strlen(name) : 0, value_length = strlen(value);

	if (name_length > RSHM_METADATA_MAX || value_length > RSHM_METADATA_MAX)
		return RIPTIDE_ETOOBIG;
	*total += FIELD_HEAD + name_length + value_length;
	return *total > RSHM_METADATA_MAX ? RIPTIDE_ETOOBIG : RIPTIDE_OK;
}

static int measure(const struct riptide_metadata *m, size_t *ret_total)
{
	const char *const texts[] = {m->version, m->content_type, m->source};
	size_t total = *ret_total;
	int status;

	if ((m->tag_count && !m->tags) || (m->attribute_count && !m->attributes))
		return RIPTIDE_EINVALID;
	for (size_t i = 0; i < 3; i++)
		if (texts[i] && (status = add_length(NULL, texts[i], &total)) < 0)
			return status;
	for (size_t i = 0; i < m->tag_count; i++) {
		if (!m->tags[i] || !m->tags[i][0])
			return RIPTIDE_EINVALID;
		if (strlen(m->tags[i]) > RT_TAG_MAX)
			return RIPTIDE_ETOOBIG;
		if ((status = add_length(NULL, m->tags[i], &total)) < 0)
			return status;
	}
	for (size_t i = 0; i < m->attribute_count; i++) {
		if (!m->attributes[i].name || !m->attributes[i].value)
			return RIPTIDE_EINVALID;
		if ((status = add_length(m->attributes[i].name, m->attributes[i].value, &total)) < 0)
			return status;
	}
	*ret_total = total;
	return RIPTIDE_OK;
}

static unsigned char *put_field(unsigned char *to, int kind, const char *name, const char *value)
{
	size_t name_length = name ? strlen(name) : 0, value_length;

	if (!value)
		return to;
	value_length = strlen(value);
	to[0] = (unsigned char)kind;
	to[1] = (unsigned char)name_length;
	to[2] = (unsigned char)(name_length >> 8);
	to[3] = (unsigned char)value_length;
	to[4] = (unsigned char)(value_length >> 8);
	to += FIELD_HEAD;
	if (name_length)
		memcpy(to, name, name_length);
	memcpy(to + name_length, value, value_length);
	return to + name_length + value_length;
}

static unsigned char *put_soft_deadline(unsigned char *to, uint64_t deadline_ms)
{
	*to++ = RIPTIDE_METADATA_SOFT_DEADLINE;
	*to++ = 0;
	*to++ = 0;
	*to++ = SOFT_BYTES;
	*to++ = 0;
	for (unsigned int i = 0; i < SOFT_BYTES; i++)
		*to++ = (unsigned char)(deadline_ms >> 8 * i);
	return to;
}

int rt_metadata_encode(const struct riptide_metadata *metadata, uint64_t soft_deadline_ms, unsigned char **ret_bytes,
		       size_t *ret_length)
{
	unsigned char *bytes, *to;
	size_t total = soft_deadline_ms ? FIELD_HEAD + SOFT_BYTES : 0;
	int status = metadata ? measure(metadata, &total) : RIPTIDE_OK;

	if (status < 0)
		return status;
	if (total == 0) {
		*ret_bytes = NULL;
		*ret_length = 0;
		return RIPTIDE_OK;
	}
	bytes = to = malloc(total);
	if (!bytes)
		return RIPTIDE_ENOMEM;
	/* First, for every reader of the entry looks for it. */
	if (soft_deadline_ms)
		to = put_soft_deadline(to, soft_deadline_ms);
	if (metadata) {
		to = put_field(to, RIPTIDE_METADATA_VERSION, NULL, metadata->version);
		to = put_field(to, RIPTIDE_METADATA_CONTENT_TYPE, NULL, metadata->content_type);
		to = put_field(to, RIPTIDE_METADATA_SOURCE, NULL, metadata->source);
		for (size_t i = 0; i < metadata->tag_count; i++)
			to = put_field(to, RIPTIDE_METADATA_TAG, NULL, metadata->tags[i]);
		for (size_t i = 0; i < metadata->attribute_count; i++)
			to = put_field(to, RIPTIDE_METADATA_ATTRIBUTE, metadata->attributes[i].name,
				       metadata->attributes[i].value);
	}
	*ret_bytes = bytes;
	*ret_length = total;
	return RIPTIDE_OK;
}

uint64_t rt_soft_deadline(const unsigned char *metadata, size_t length)
{
	size_t at = 0;

	while (length - at >= FIELD_HEAD) {
		unsigned char field[FIELD_HEAD + SOFT_BYTES];
		size_t name_length, value_length;
		uint64_t deadline_ms = 0;

		/* Once, into a local: in shared memory the next look may find something else. */
		rshm_copy_out(field, metadata + at, FIELD_HEAD);
		at += FIELD_HEAD;
		name_length = field[1] | (size_t)field[2] << 8;
		value_length = field[3] | (size_t)field[4] << 8;
		if (name_length + value_length > length - at)
			return 0;
		if (field[0] != RIPTIDE_METADATA_SOFT_DEADLINE || name_length || value_length != SOFT_BYTES) {
			at += name_length + value_length;
			continue;
		}
		rshm_copy_out(field, metadata + at, SOFT_BYTES);
		for (unsigned int i = 0; i < SOFT_BYTES; i++)
			deadline_ms |= (uint64_t)field[i] << 8 * i;
		return deadline_ms;
	}
	return 0;
}

bool rt_soft_is_over(uint64_t soft_deadline_ms, uint64_t *ttl_ms)
{
	uint64_t now_ms, left_ms;

	if (soft_deadline_ms == 0)
		return false;
	now_ms = rt_realtime_ms();
	left_ms = soft_deadline_ms > now_ms ? soft_deadline_ms - now_ms : 0;
	if (left_ms < *ttl_ms)
		*ttl_ms = left_ms;
	return left_ms == 0;
}

int riptide_metadata_next(const void *metadata, size_t length, size_t *cursor, struct riptide_field *ret_field)
{
	const unsigned char *bytes = metadata;
	size_t at, name_length, value_length;

	if (!cursor || !ret_field || (!metadata && length))
		return RIPTIDE_EINVALID;
	at = *cursor;
	if (at == length)
		return 0;
	if (at > length || length - at < FIELD_HEAD)
		return RIPTIDE_ECORRUPT;
	name_length = bytes[at + 1] | (size_t)bytes[at + 2] << 8;
	value_length = bytes[at + 3] | (size_t)bytes[at + 4] << 8;
	if (name_length + value_length > length - at - FIELD_HEAD)
		return RIPTIDE_ECORRUPT;
	ret_field->kind = bytes[at];
	ret_field->name = (const char *)bytes + at + FIELD_HEAD;
	ret_field->name_length = name_length;
	ret_field->value = ret_field->name + name_length;
	ret_field->value_length = value_length;
	*cursor = at + FIELD_HEAD + name_length + value_length;
	return 1;
}
