/*
 * numbers.c - short numbers for tenants.
 *
 *	riptide-tenants 1 <32 hex digits of identity>\n
 *	<id>\n				the tenant of number 1
 *	<id>\n				the tenant of number 2
 *
 * A line without its end is what a crash left of an append: it was not used and is cut off. Anything else that is not as
 * above makes the whole file void, and another identity says so to whoever relied on it.
 */
#include "agent/tenant/numbers.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/text.h"
#include "shm/msg.h"

#define MAGIC "riptide-tenants 1 "
#define HEX_LENGTH (2 * TENANT_NUMBERS_IDENTITY_BYTES)
#define HEAD_LENGTH (sizeof(MAGIC) - 1 + HEX_LENGTH + 1)
#define FILE_MAX ((off_t)HEAD_LENGTH + (off_t)TENANT_NUMBERS_MAX * (RSHM_TENANT_MAX + 1))

struct tenant_numbers {
	int fd;
	off_t length; /* of what is whole */
	unsigned char identity[TENANT_NUMBERS_IDENTITY_BYTES];
	char **ids; /* of number i + 1 */
	uint32_t count, room;
};

static int append_id(struct tenant_numbers *n, const char *id)
{
	char *copy;

	if (n->count == n->room) {
		uint32_t room = n->room ? 2 * n->room : 64;
		char **grown = realloc(n->ids, room * sizeof(*grown));

		if (!grown)
			return RSHM_E_NOMEM;
		n->ids = grown;
		n->room = room;
	}
	copy = strdup(id);
	if (!copy)
		return RSHM_E_NOMEM;
	n->ids[n->count++] = copy;
	return RSHM_OK;
}

static void forget(struct tenant_numbers *n)
{
	for (uint32_t i = 0; i < n->count; i++)
		free(n->ids[i]);
	n->count = 0;
}

/* Takes the lines of `text`, which it changes. RSHM_E_CORRUPT: not a file of ours. */
static int take_lines(struct tenant_numbers *n, char *text, size_t length)
{
	size_t at = HEAD_LENGTH, bytes;

	if (length < HEAD_LENGTH || memcmp(text, MAGIC, sizeof(MAGIC) - 1) != 0 || text[HEAD_LENGTH - 1] != '\n' ||
	    sodium_hex2bin(n->identity, sizeof(n->identity), text + sizeof(MAGIC) - 1, HEX_LENGTH, NULL, &bytes,
			   NULL) < 0 ||
	    bytes != sizeof(n->identity))
		return RSHM_E_CORRUPT;
	while (at < length) {
		char *end = memchr(text + at, '\n', length - at);
		int status;

		if (!end)
			break;
		*end = '\0';
		if (!text_is_name(text + at, RSHM_TENANT_MAX) || n->count == TENANT_NUMBERS_MAX)
			return RSHM_E_CORRUPT;
		status = append_id(n, text + at);
		if (status < 0)
			return status;
		at = (size_t)(end - text) + 1;
	}
	n->length = (off_t)at;
	return RSHM_OK;
}

static int load(struct tenant_numbers *n)
{
	struct stat st;
	char *text;
	int status = RSHM_E_CORRUPT;

	if (fstat(n->fd, &st) < 0)
		return RSHM_E_SYSTEM;
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		return RSHM_E_CORRUPT;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return RSHM_E_NOMEM;
	if (pread(n->fd, text, (size_t)st.st_size, 0) == (ssize_t)st.st_size)
		status = take_lines(n, text, (size_t)st.st_size);
	free(text);
	return status;
}

static bool write_whole(int fd, const char *bytes, size_t length, off_t at)
{
	ssize_t written = pwrite(fd, bytes, length, at);

	if (written >= 0 && (size_t)written != length)
		errno = ENOSPC;
	return written == (ssize_t)length;
}

static int begin_anew(struct tenant_numbers *n)
{
	char head[HEAD_LENGTH + 1], hex[HEX_LENGTH + 1];

	forget(n);
	randombytes_buf(n->identity, sizeof(n->identity));
	sodium_bin2hex(hex, sizeof(hex), n->identity, sizeof(n->identity));
	snprintf(head, sizeof(head), MAGIC "%s\n", hex);
	n->length = HEAD_LENGTH;
	if (ftruncate(n->fd, 0) < 0 || !write_whole(n->fd, head, HEAD_LENGTH, 0) || fsync(n->fd) < 0)
		return RSHM_E_SYSTEM;
	return RSHM_OK;
}

int tenant_numbers_open(const char *path, struct tenant_numbers **ret, char *error, size_t error_len)
{
	struct tenant_numbers *n = calloc(1, sizeof(*n));
	int status = RSHM_E_NOMEM;

	if (n) {
		n->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		status = n->fd < 0 ? RSHM_E_SYSTEM : load(n);
		if (status == RSHM_E_CORRUPT)
			status = begin_anew(n);
	}
	if (status < 0) {
		snprintf(error, error_len, "%s: %s", path, strerror(status == RSHM_E_NOMEM ? ENOMEM : errno));
		tenant_numbers_close(&n);
		return status;
	}
	*ret = n;
	return RSHM_OK;
}

void tenant_numbers_close(struct tenant_numbers **numbers)
{
	struct tenant_numbers *n = *numbers;

	*numbers = NULL;
	if (!n)
		return;
	forget(n);
	free(n->ids);
	if (n->fd >= 0)
		close(n->fd);
	free(n);
}

int tenant_numbers_get(struct tenant_numbers *n, const char *id, uint32_t *ret)
{
	char line[RSHM_TENANT_MAX + 2];
	int length, status;

	for (uint32_t i = 0; i < n->count; i++) {
		if (strcmp(n->ids[i], id) == 0) {
			*ret = i + 1;
			return RSHM_OK;
		}
	}
	length = snprintf(line, sizeof(line), "%s\n", id);
	if (!write_whole(n->fd, line, (size_t)length, n->length) || ftruncate(n->fd, n->length + length) < 0 ||
	    fsync(n->fd) < 0)
		return RSHM_E_SYSTEM;
	status = append_id(n, id);
	if (status < 0)
		return status;
	n->length += length;
	*ret = n->count;
	return RSHM_OK;
}

void tenant_numbers_identity(const struct tenant_numbers *n, unsigned char ret[TENANT_NUMBERS_IDENTITY_BYTES])
{
	memcpy(ret, n->identity, TENANT_NUMBERS_IDENTITY_BYTES);
}
