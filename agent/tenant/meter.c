/*
 *	head 64 bytes: magic u64 | format u32 | row bytes u32 | rows u32 | reserved u32 | id 17 bytes, zeros | XXH3-64 of these
 *	rows: state u64 | interval u64 | values 6 u64 | tenant 72 bytes | resource 72 bytes
 *
 * Native byte order: the file belongs to the machine whose processes map it.
 *
 * A process may be killed between any two stores. A row is filled first and its state set last, freed by its state first: so a
 * row in use is whole. A number is one aligned word, and one thread stores it: it is from before an addition or after it.
 */
#include "agent/tenant/meter.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "shm/msg.h"
#include "shm/order.h"

#define MAGIC UINT64_C(0x31305245544d5452) /* "RTMTER01" */
#define FORMAT 1u
#define FREE UINT64_C(0)
#define USED UINT64_C(0x5553454453455355)
#define NAME_BYTES 72u

struct head {
	uint64_t magic;
	uint32_t format, row_bytes, rows, reserved;
	char id[32];
	uint64_t checksum;
};

struct meter_row {
	uint64_t state, interval_s;
	uint64_t values[METER_VALUES];
	char tenant[NAME_BYTES], resource[NAME_BYTES];
};

_Static_assert(sizeof(struct head) == 64, "the file's layout");
_Static_assert(sizeof(struct meter_row) == 208, "the file's layout");

struct meter {
	struct head *head; /* the mapping */
	struct meter_row *rows;
	size_t bytes;
	size_t next; /* where the search for a free row goes on */
};

static size_t file_bytes(uint32_t rows)
{
	return sizeof(struct head) + (size_t)rows * sizeof(struct meter_row);
}

static uint64_t checksum_of(const struct head *head)
{
	return XXH3_64bits(head, offsetof(struct head, checksum));
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static int fail(const char *path, const char *what, char *error, size_t error_len)
{
	snprintf(error, error_len, "%s: cannot %s: %s", path, what, strerror(errno));
	return RSHM_E_SYSTEM;
}

static bool head_is_sound(const struct head *head, uint64_t size)
{
	return head->magic == MAGIC && head->format == FORMAT && head->row_bytes == sizeof(struct meter_row) &&
	       head->rows > 0 && head->rows <= METER_ROWS_MAX && head->checksum == checksum_of(head) &&
	       size >= file_bytes(head->rows) && strnlen(head->id, sizeof(head->id)) == METER_ID_BYTES - 1;
}

static bool name_is_sound(const char name[NAME_BYTES])
{
	size_t length = strnlen(name, NAME_BYTES);

	if (length > METER_NAME_MAX)
		return false;
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)name[i] <= ' ' || (unsigned char)name[i] > '~')
			return false;
	return true;
}

static void write_head(struct head *head, uint32_t rows, const char *id)
{
	struct head made = {.magic = MAGIC, .format = FORMAT, .row_bytes = sizeof(struct meter_row), .rows = rows};

	memcpy(made.id, id, METER_ID_BYTES);
	made.checksum = checksum_of(&made);
	*head = made;
}

/* An empty file of that many rows under `path`, which nobody has seen half made. */
static int make_file(const char *path, uint32_t rows, char *error, size_t error_len)
{
	unsigned char random[(METER_ID_BYTES - 1) / 2];
	char id[METER_ID_BYTES], temporary[4096];
	struct head head;
	int fd;
	bool made;

	if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary)) {
		errno = ENAMETOOLONG;
		return fail(path, "make it", error, error_len);
	}
	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(id, sizeof(id), random, sizeof(random));
	write_head(&head, rows, id);
	fd = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(temporary, "make it", error, error_len);
	/* Blocks are taken now: a full disk must not be met by a store to memory. */
	errno = posix_fallocate(fd, 0, (off_t)file_bytes(rows));
	made = errno == 0 && pwrite(fd, &head, sizeof(head), 0) == (ssize_t)sizeof(head) && fsync(fd) == 0 &&
	       rename(temporary, path) == 0;
	if (!made) {
		int why = errno;

		unlink(temporary);
		close(fd);
		errno = why;
		return fail(path, "make it", error, error_len);
	}
	close(fd);
	return RSHM_OK;
}

static int put_aside(const char *path, char *error, size_t error_len)
{
	char aside[4096];

	if (snprintf(aside, sizeof(aside), "%s.damaged-%" PRIu64, path, clock_realtime_ms()) >= (int)sizeof(aside)) {
		errno = ENAMETOOLONG;
		return fail(path, "put it aside", error, error_len);
	}
	if (rename(path, aside) < 0)
		return fail(path, "put it aside", error, error_len);
	log_error("tenant", "%s was no meter of ours, or damaged; it is now %s, and use is counted from zero", path,
		  aside);
	return RSHM_OK;
}

/* RSHM_OK with the head, RSHM_MISS: there is no file, RSHM_E_CORRUPT: it is none of ours. */
static int look(const char *path, int *ret_fd, struct head *ret, char *error, size_t error_len)
{
	struct stat info;
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0)
		return errno == ENOENT  ? RSHM_MISS
		       : errno == ELOOP ? RSHM_E_CORRUPT
					: fail(path, "open it", error, error_len);
	if (fstat(fd, &info) < 0 || !S_ISREG(info.st_mode) ||
	    pread(fd, ret, sizeof(*ret), 0) != (ssize_t)sizeof(*ret) || !head_is_sound(ret, (uint64_t)info.st_size)) {
		close(fd);
		return RSHM_E_CORRUPT;
	}
	*ret_fd = fd;
	return RSHM_OK;
}

/* More rows, behind those there are: the head names them when they stand. */
static int grow(int fd, const char *path, struct head *head, uint32_t rows, char *error, size_t error_len)
{
	char id[METER_ID_BYTES];

	if (head->rows >= rows)
		return RSHM_OK;
	/* What a longer file of before has there is no row. */
	if (ftruncate(fd, (off_t)file_bytes(head->rows)) < 0)
		return fail(path, "grow it", error, error_len);
	errno = posix_fallocate(fd, 0, (off_t)file_bytes(rows));
	if (errno != 0 || fsync(fd) < 0)
		return fail(path, "grow it", error, error_len);
	memcpy(id, head->id, sizeof(id));
	write_head(head, rows, id);
	if (pwrite(fd, head, sizeof(*head), 0) != (ssize_t)sizeof(*head) || fsync(fd) < 0)
		return fail(path, "grow it", error, error_len);
	return RSHM_OK;
}

static void check_rows(struct meter *meter, const char *path)
{
	for (size_t i = 0; i < meter->head->rows; i++) {
		struct meter_row *row = &meter->rows[i];

		if (row->state == FREE)
			continue;
		if (row->state == USED && name_is_sound(row->tenant) && row->tenant[0] &&
		    name_is_sound(row->resource))
			continue;
		log_error("tenant", "%s: row %zu is damaged and dropped", path, i);
		row->state = FREE;
	}
}

static int map_file(int fd, const char *path, uint32_t rows, struct meter **ret, char *error, size_t error_len)
{
	struct meter *meter = calloc(1, sizeof(*meter));

	if (!meter)
		return RSHM_E_NOMEM;
	meter->bytes = file_bytes(rows);
	meter->head = mmap(NULL, meter->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (meter->head == MAP_FAILED) {
		free(meter);
		return fail(path, "map it", error, error_len);
	}
	meter->rows = (struct meter_row *)(meter->head + 1);
	check_rows(meter, path);
	*ret = meter;
	return RSHM_OK;
}

int meter_open(const char *path, uint32_t rows, struct meter **ret, char *error, size_t error_len)
{
	struct head head;
	int fd = -1, status;

	must(rows > 0 && rows <= METER_ROWS_MAX);
	status = look(path, &fd, &head, error, error_len);
	if (status == RSHM_E_CORRUPT)
		status = put_aside(path, error, error_len) < 0 ? RSHM_E_SYSTEM : RSHM_MISS;
	if (status == RSHM_MISS) {
		status = make_file(path, rows, error, error_len);
		if (status == RSHM_OK)
			status = look(path, &fd, &head, error, error_len);
	}
	if (status != RSHM_OK) {
		if (status != RSHM_E_SYSTEM)
			snprintf(error, error_len, "%s: somebody else changes it", path);
		return RSHM_E_SYSTEM;
	}
	status = grow(fd, path, &head, rows, error, error_len);
	if (status == RSHM_OK)
		status = map_file(fd, path, head.rows, ret, error, error_len);
	close(fd);
	return status;
}

void meter_close(struct meter **meter)
{
	struct meter *m = *meter;

	*meter = NULL;
	if (!m)
		return;
	(void)msync(m->head, m->bytes, MS_SYNC);
	munmap(m->head, m->bytes);
	free(m);
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

const char *meter_id(const struct meter *meter)
{
	return meter->head->id;
}

size_t meter_capacity(const struct meter *meter)
{
	return (meter->bytes - sizeof(struct head)) / sizeof(struct meter_row);
}

struct meter_row *meter_at(struct meter *meter, size_t index)
{
	return meter->rows[index].state == USED ? &meter->rows[index] : NULL;
}

struct meter_row *meter_take(struct meter *meter, const char *tenant, const char *resource, uint64_t interval_s)
{
	size_t capacity = meter_capacity(meter);
	struct meter_row *row, *unused = NULL;

	if (strlen(tenant) > METER_NAME_MAX || strlen(resource) > METER_NAME_MAX)
		return NULL;
	for (size_t i = 0; i < capacity; i++) {
		row = &meter->rows[(meter->next + i) % capacity];
		if (row->state == FREE) {
			unused = unused ? unused : row;
			continue;
		}
		if (row->interval_s == interval_s && strcmp(row->tenant, tenant) == 0 &&
		    strcmp(row->resource, resource) == 0)
			return row;
	}
	if (!unused)
		return NULL;
	meter->next = (size_t)(unused - meter->rows);
	memset(unused->values, 0, sizeof(unused->values));
	memset(unused->tenant, 0, sizeof(unused->tenant));
	memset(unused->resource, 0, sizeof(unused->resource));
	memcpy(unused->tenant, tenant, strlen(tenant));
	memcpy(unused->resource, resource, strlen(resource));
	unused->interval_s = interval_s;
	rshm_store_release(&unused->state, USED);
	return unused;
}

void meter_release(struct meter_row *row)
{
	rshm_store_release(&row->state, FREE);
}

void meter_add(struct meter_row *row, enum meter_value value, uint64_t amount)
{
	uint64_t sum;

	if (__builtin_add_overflow(row->values[value], amount, &sum))
		sum = UINT64_MAX;
	rshm_store_relaxed(&row->values[value], sum);
}

const char *meter_row_tenant(const struct meter_row *row)
{
	return row->tenant;
}

const char *meter_row_resource(const struct meter_row *row)
{
	return row->resource;
}

uint64_t meter_row_interval(const struct meter_row *row)
{
	return row->interval_s;
}

uint64_t meter_row_value(const struct meter_row *row, enum meter_value value)
{
	return row->values[value];
}
