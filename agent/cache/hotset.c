/*
 * hotset.c
 *
 *	magic u64 | keys u64 | bytes u64 | XXH3-64 of what follows u64 | {u16 length, key} …
 */
#include "agent/cache/hotset.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/cache/hot.h"
#include "shm/msg.h"

#define HOTSET_MAGIC 0x3153544f48545052u /* "RPTHOTS1" */

struct header {
	uint64_t magic, keys, bytes, checksum;
};

struct buffer {
	unsigned char *bytes;
	size_t length, capacity;
};

static bool buffer_add(struct buffer *b, const void *bytes, size_t n)
{
	if (b->length + n > b->capacity) {
		size_t capacity = (b->capacity + n) * 2;
		unsigned char *larger = realloc(b->bytes, capacity);

		if (!larger)
			return false;
		b->bytes = larger;
		b->capacity = capacity;
	}
	memcpy(b->bytes + b->length, bytes, n);
	b->length += n;
	return true;
}

struct hotset_notes {
	struct buffer body;
	uint64_t keys, cursor, skip;
};

struct hotset_notes *hotset_notes_create(const struct hot *hot, uint64_t keys_max)
{
	struct hotset_notes *notes = calloc(1, sizeof(*notes));
	struct hot_figures figures;

	if (!notes)
		return NULL;
	/* The log's order is the order of use, so what goes beyond `keys_max` is skipped at its begin. */
	hot_figures(hot, &figures);
	notes->skip = figures.entries > keys_max ? figures.entries - keys_max : 0;
	return notes;
}

int hotset_notes_take(struct hotset_notes *notes, const struct hot *hot, uint32_t steps)
{
	struct buffer *body = &notes->body;
	struct rshm_item item;

	while (hot_walk(hot, &notes->cursor, &steps, &item)) {
		if (rshm_control_flags(item.control_a) & RSHM_FLAG_NEGATIVE)
			continue;
		if (notes->skip > 0) {
			notes->skip--;
			continue;
		}
		if (body->length + sizeof(item.key_len) + item.key_len > HOTSET_FILE_MAX - sizeof(struct header))
			return 0;
		if (!buffer_add(body, &item.key_len, sizeof(item.key_len)) ||
		    !buffer_add(body, item.key, item.key_len))
			return RSHM_E_NOMEM;
		notes->keys++;
	}
	return steps == 0;
}

void hotset_notes_destroy(struct hotset_notes **notes)
{
	struct hotset_notes *n = *notes;

	*notes = NULL;
	if (!n)
		return;
	free(n->body.bytes);
	free(n);
}

static bool write_all(int fd, const void *bytes, size_t n)
{
	while (n > 0) {
		ssize_t written = write(fd, bytes, n);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return false;
		bytes = (const unsigned char *)bytes + written;
		n -= (size_t)written;
	}
	return true;
}

static int write_file(const char *path, const struct header *header, const struct buffer *body)
{
	char temporary[4200];
	int fd, saved;
	bool good;

	if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary)) {
		errno = ENAMETOOLONG;
		return RSHM_E_SYSTEM;
	}
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return RSHM_E_SYSTEM;
	good = write_all(fd, header, sizeof(*header)) && write_all(fd, body->bytes, body->length) && fsync(fd) == 0;
	good = close(fd) == 0 && good && rename(temporary, path) == 0;
	saved = errno;
	if (!good)
		unlink(temporary);
	errno = saved;
	return good ? RSHM_OK : RSHM_E_SYSTEM;
}

int64_t hotset_notes_write(const struct hotset_notes *notes, const char *path)
{
	struct header header = {
		.magic = HOTSET_MAGIC,
		.keys = notes->keys,
		.bytes = notes->body.length,
		.checksum = XXH3_64bits(notes->body.bytes, notes->body.length),
	};
	int status = write_file(path, &header, &notes->body);

	return status < 0 ? status : (int64_t)notes->keys;
}

int64_t hotset_save(const struct hot *hot, const char *path, uint64_t keys_max)
{
	struct hotset_notes *notes = hotset_notes_create(hot, keys_max);
	int64_t result = RSHM_E_NOMEM;
	int more = 1;

	while (notes && more > 0)
		more = hotset_notes_take(notes, hot, UINT32_MAX);
	if (notes)
		result = more < 0 ? more : hotset_notes_write(notes, path);
	hotset_notes_destroy(&notes);
	return result;
}

/* Do whole keys, and as many as it says, make up the bytes? */
static bool body_is_sound(const struct hotset *set)
{
	size_t at = 0;
	uint64_t keys = 0;

	while (at < set->length) {
		uint16_t key_len;

		if (set->length - at < sizeof(key_len))
			return false;
		memcpy(&key_len, set->bytes + at, sizeof(key_len));
		at += sizeof(key_len);
		if (key_len == 0 || key_len > set->length - at)
			return false;
		at += key_len;
		keys++;
	}
	return keys == set->keys;
}

static int read_file(int fd, struct hotset *ret)
{
	struct header header;
	struct stat st;
	size_t have = 0;

	if (fstat(fd, &st) < 0)
		return RSHM_E_SYSTEM;
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(header) || st.st_size > (off_t)HOTSET_FILE_MAX ||
	    read(fd, &header, sizeof(header)) != (ssize_t)sizeof(header) || header.magic != HOTSET_MAGIC ||
	    header.bytes != (uint64_t)st.st_size - sizeof(header))
		return RSHM_E_CORRUPT;
	ret->bytes = malloc(header.bytes ? header.bytes : 1);
	if (!ret->bytes)
		return RSHM_E_NOMEM;
	while (have < header.bytes) {
		ssize_t n = read(fd, ret->bytes + have, header.bytes - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? RSHM_E_SYSTEM : RSHM_E_CORRUPT;
		have += (size_t)n;
	}
	ret->length = have;
	ret->keys = header.keys;
	if (XXH3_64bits(ret->bytes, have) != header.checksum || !body_is_sound(ret))
		return RSHM_E_CORRUPT;
	return RSHM_OK;
}

int hotset_load(const char *path, struct hotset *ret)
{
	struct hotset set = {0};
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK), status;

	if (fd < 0)
		return errno == ENOENT ? RSHM_MISS : RSHM_E_SYSTEM;
	status = read_file(fd, &set);
	close(fd);
	if (status < 0)
		hotset_fini(&set);
	else
		*ret = set;
	return status;
}

const void *hotset_next(struct hotset *set, size_t *ret_key_len)
{
	uint16_t key_len;
	const void *key;

	if (set->at >= set->length)
		return NULL;
	memcpy(&key_len, set->bytes + set->at, sizeof(key_len));
	key = set->bytes + set->at + sizeof(key_len);
	set->at += sizeof(key_len) + key_len;
	*ret_key_len = key_len;
	return key;
}

void hotset_fini(struct hotset *set)
{
	free(set->bytes);
	*set = (struct hotset){0};
}
