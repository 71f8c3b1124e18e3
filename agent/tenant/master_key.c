/*
 * sodium_malloc() gives what a secret needs: guard pages, mlock(), MADV_DONTDUMP, wiped by sodium_free(). Where the limit of
 * locked memory is too low the lock is missing and nothing says so; the rest holds.
 *
 * The id of a key is its keyed hash of a constant: who sees it in the backend or a log learns which key, not what key.
 */
#include "agent/tenant/master_key.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "shm/msg.h"

#define KEYS_MAX (1u + MASTER_KEY_FORMER_MAX)
#define HEX_LENGTH ((size_t)2 * MASTER_KEY_BYTES)
#define FILE_BYTES_MAX (HEX_LENGTH + 1)

struct master_keys {
	unsigned char bytes[KEYS_MAX][MASTER_KEY_BYTES];
	unsigned char file[FILE_BYTES_MAX + 1]; /* while a file is read; one more, so that a longer one shows */
	char ids[KEYS_MAX][MASTER_KEY_ID_BYTES];
	size_t count;
};

struct loading {
	struct master_keys *keys;
	char *error;
	size_t error_len;
};

static int check_file(const struct loading *l, const char *path, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0) {
		(void)snprintf(l->error, l->error_len, "master key %s: %s", path, strerror(errno));
		return RSHM_E_SYSTEM;
	}
	if (!S_ISREG(st.st_mode)) {
		(void)snprintf(l->error, l->error_len, "master key %s is no regular file", path);
		return RSHM_E_DENIED;
	}
	if ((st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & 077) != 0) {
		(void)snprintf(
			l->error, l->error_len,
			"master key %s: it must belong to root or user %u and be closed to all others (mode 0400 or "
			"0600); it belongs to user %u and has mode %04o",
			path, (unsigned)geteuid(), (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777));
		return RSHM_E_DENIED;
	}
	return RSHM_OK;
}

/* All of the file, FILE_BYTES_MAX + 1 bytes at most, into keys->file; its length, or -1. */
static ssize_t read_whole(struct master_keys *keys, int fd)
{
	size_t length = 0;

	while (length < sizeof keys->file) {
		ssize_t got = read(fd, keys->file + length, sizeof keys->file - length);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		length += (size_t)got;
	}
	return (ssize_t)length;
}

static bool parse_key(const struct master_keys *keys, size_t length, unsigned char *ret)
{
	size_t bytes = 0;

	if (length == MASTER_KEY_BYTES) {
		memcpy(ret, keys->file, MASTER_KEY_BYTES);
		return true;
	}
	if (length == HEX_LENGTH + 1 && keys->file[HEX_LENGTH] == '\n')
		length--;
	return length == HEX_LENGTH &&
	       sodium_hex2bin(ret, MASTER_KEY_BYTES, (const char *)keys->file, length, NULL, &bytes, NULL) == 0 &&
	       bytes == MASTER_KEY_BYTES;
}

static void make_id(const unsigned char *bytes, char ret[MASTER_KEY_ID_BYTES])
{
	static const unsigned char purpose[] = "riptide master key id 1";
	unsigned char hash[crypto_generichash_BYTES];

	(void)crypto_generichash(hash, sizeof hash, purpose, sizeof purpose, bytes, MASTER_KEY_BYTES);
	(void)sodium_bin2hex(ret, MASTER_KEY_ID_BYTES, hash, MASTER_KEY_ID_BYTES / 2);
}

static int add_key(const struct loading *l, const char *path, size_t length)
{
	struct master_keys *keys = l->keys;
	unsigned char *bytes = keys->bytes[keys->count];

	if (!parse_key(keys, length, bytes) || sodium_is_zero(bytes, MASTER_KEY_BYTES)) {
		(void)snprintf(l->error, l->error_len,
			       "master key %s: it must have %u random bytes, or %u hex digits and nothing else", path,
			       MASTER_KEY_BYTES, 2 * MASTER_KEY_BYTES);
		return RSHM_E_INVALID;
	}
	make_id(bytes, keys->ids[keys->count]);
	if (master_keys_find(keys, keys->ids[keys->count]) != NULL) {
		(void)snprintf(l->error, l->error_len, "master key %s: another file has the same key", path);
		return RSHM_E_INVALID;
	}
	keys->count++;
	return RSHM_OK;
}

static int load_file(const struct loading *l, const char *path)
{
	/* Without O_NONBLOCK a FIFO would hold the agent up. */
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK), status;
	ssize_t length;

	if (fd < 0) {
		(void)snprintf(l->error, l->error_len, "master key %s: %s", path,
			       errno == ELOOP ? "it is a symbolic link" : strerror(errno));
		return errno == ELOOP ? RSHM_E_DENIED : RSHM_E_SYSTEM;
	}
	status = check_file(l, path, fd);
	if (status == RSHM_OK) {
		length = read_whole(l->keys, fd);
		if (length < 0) {
			(void)snprintf(l->error, l->error_len, "master key %s: %s", path, strerror(errno));
			status = RSHM_E_SYSTEM;
		} else {
			status = add_key(l, path, (size_t)length);
		}
		sodium_memzero(l->keys->file, sizeof l->keys->file);
	}
	(void)close(fd);
	return status;
}

int master_keys_load(const char *path, const char *const *former, size_t former_count, struct master_keys **ret,
		     char *error, size_t error_len)
{
	struct loading l = {.error = error, .error_len = error_len};
	int status;

	if (former_count > MASTER_KEY_FORMER_MAX) {
		(void)snprintf(error, error_len, "at most %u former master keys", MASTER_KEY_FORMER_MAX);
		return RSHM_E_INVALID;
	}
	l.keys = sodium_malloc(sizeof *l.keys);
	if (l.keys == NULL)
		return RSHM_E_NOMEM;
	memset(l.keys, 0, sizeof *l.keys);
	status = load_file(&l, path);
	for (size_t i = 0; i < former_count && status == RSHM_OK; i++)
		status = load_file(&l, former[i]);
	if (status < 0) {
		master_keys_destroy(&l.keys);
		return status;
	}
	*ret = l.keys;
	return RSHM_OK;
}

void master_keys_destroy(struct master_keys **keys)
{
	sodium_free(*keys);
	*keys = NULL;
}

const char *master_keys_id(const struct master_keys *keys, size_t index)
{
	return index < keys->count ? keys->ids[index] : NULL;
}

const unsigned char *master_keys_find(const struct master_keys *keys, const char *id)
{
	for (size_t i = 0; i < keys->count; i++)
		if (strcmp(keys->ids[i], id) == 0)
			return keys->bytes[i];
	return NULL;
}
