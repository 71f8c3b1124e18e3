/*
 * audit_tail.c - the last lines of the audit log, for operators.
 *
 * Files are taken from the newest day back, each from its end, until there are enough lines or bytes. A line that is no JSON
 * object (torn by a full disk or a crash) is counted and skipped. Reads go to the page cache mostly, and are bounded by
 * `bytes_max`; the day names that are looked at, by DAYS_MAX.
 */
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/control/audit_priv.h"
#include "shm/msg.h"

#define DAYS_MAX 4096u

struct tail {
	json_t *events;
	uint32_t count;
	size_t bytes_left;
	json_int_t unreadable;
};

static int newer_first(const void *left, const void *right)
{
	int64_t l = *(const int64_t *)left, r = *(const int64_t *)right;

	return (l < r) - (l > r);
}

static int list_days(const struct audit *audit, int64_t days[DAYS_MAX], size_t *ret_count)
{
	int fd = openat(audit->folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	size_t count = 0;

	if (!folder) {
		if (fd >= 0)
			close(fd);
		return RSHM_E_SYSTEM;
	}
	while (count < DAYS_MAX && (entry = readdir(folder)) != NULL)
		count += audit_day_of(entry->d_name, &days[count]);
	closedir(folder);
	qsort(days, count, sizeof(days[0]), newer_first);
	*ret_count = count;
	return RSHM_OK;
}

static bool is_done(const struct tail *tail)
{
	return json_array_size(tail->events) >= tail->count || tail->bytes_left == 0;
}

/* The lines of `bytes`, last one first. The first line is left out unless it is `whole`. */
static void take_lines(struct tail *tail, const char *bytes, size_t length, bool whole)
{
	while (length > 0 && json_array_size(tail->events) < tail->count) {
		const char *newline, *begin;
		json_t *event;

		if (bytes[length - 1] == '\n')
			length--;
		newline = memrchr(bytes, '\n', length);
		begin = newline ? newline + 1 : bytes;
		if (!newline && !whole)
			return;
		event = json_loadb(begin, (size_t)(bytes + length - begin), JSON_REJECT_DUPLICATES, NULL);
		if (json_is_object(event)) {
			(void)json_array_insert_new(tail->events, 0, event);
		} else {
			tail->unreadable++;
			json_decref(event);
		}
		length = (size_t)(begin - bytes);
	}
}

static int take_file(struct tail *tail, const struct audit *audit, int64_t day)
{
	char name[AUDIT_NAME_BYTES], *bytes = NULL;
	struct stat st;
	size_t length;
	ssize_t n = -1;
	int fd, status = RSHM_E_SYSTEM;

	audit_name_of(day, name);
	fd = openat(audit->folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return RSHM_OK; /* removed meanwhile */
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		length = (size_t)st.st_size < tail->bytes_left ? (size_t)st.st_size : tail->bytes_left;
		bytes = malloc(length + 1);
		status = bytes ? RSHM_OK : RSHM_E_NOMEM;
		if (bytes)
			n = pread(fd, bytes, length, st.st_size - (off_t)length);
		if (n >= 0) {
			take_lines(tail, bytes, (size_t)n, (size_t)st.st_size == length);
			tail->bytes_left -= length;
		} else if (bytes) {
			status = RSHM_E_SYSTEM;
		}
	}
	free(bytes);
	close(fd);
	return status;
}

int audit_tail(const struct audit *audit, uint32_t count, size_t bytes_max, char **ret)
{
	struct tail tail = {.events = json_array(), .count = count, .bytes_left = bytes_max};
	int64_t *days = malloc(DAYS_MAX * sizeof(*days));
	size_t day_count = 0;
	json_t *document = NULL;
	char *text;
	int status = tail.events && days ? list_days(audit, days, &day_count) : RSHM_E_NOMEM;

	must(count >= 1 && count <= AUDIT_TAIL_MAX);
	for (size_t i = 0; i < day_count && status == RSHM_OK && !is_done(&tail); i++)
		status = take_file(&tail, audit, days[i]);
	free(days);
	if (status == RSHM_OK)
		document = json_pack("{s:O s:I s:I s:I}", "events", tail.events, "unreadable", tail.unreadable,
				     "lost", (json_int_t)audit->figures.lost, "suppressed",
				     (json_int_t)audit->figures.suppressed);
	json_decref(tail.events);
	if (status < 0)
		return status;
	text = document ? json_dumps(document, JSON_COMPACT) : NULL;
	json_decref(document);
	if (!text)
		return RSHM_E_NOMEM;
	*ret = text;
	return RSHM_OK;
}
