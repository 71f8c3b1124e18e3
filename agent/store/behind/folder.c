/*
 * One struct folder per path and process, found through a list under a mutex; its life is the time from the first
 * acquire to the last release. So "before the start" has one meaning for all workers, whatever the order in which
 * they come, and no file has to say which process made it.
 *
 * A worker that never comes leaves the old files where they are: the next start finds them again, and whatever was
 * taken over meanwhile is recognised by its version. That is also why a process killed between two steps here loses
 * nothing.
 *
 * While one old file is left, no worker unlinks a file of its own (journal.c asks folder_old_files()): the old file
 * may hold an older copy of a record whose mark stands only in the worker's file.
 */
#include "agent/store/behind/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "shm/msg.h"

#define FOLDER_OLD_MAX 65536u
#define FOLDER_ASIDE "aside-"

struct folder_state {
	uint32_t workers_left;
	uint64_t owned;
	bool too_old;
};

struct folder {
	struct folder *next;
	uint32_t refs;
	/* set once */
	char *path;
	int fd;
	uint32_t worker_count;
	struct folder_file *old;
	size_t old_count, aside_count;
	/* under the lock */
	struct folder_state *states;
	size_t old_left;
	uint64_t sequence;
};

static pthread_mutex_t folders_lock = PTHREAD_MUTEX_INITIALIZER;
static struct folder *folders;

/* ---- names ---------------------------------------------------------------------------------------------------- */

void folder_file_name(char name[FOLDER_NAME_MAX], uint32_t worker, uint64_t sequence)
{
	(void)snprintf(name, FOLDER_NAME_MAX, "journal-%" PRIu32 "-%" PRIu64, worker, sequence);
}

/* True for exactly what folder_file_name() makes. */
static bool parse_name(const char *name, struct folder_file *ret)
{
	char copy[FOLDER_NAME_MAX], *dash;
	uint64_t worker, sequence;

	if (strncmp(name, "journal-", 8) != 0 || strlen(name) >= sizeof copy)
		return false;
	strcpy(copy, name + 8);
	dash = strchr(copy, '-');
	if (dash == NULL)
		return false;
	*dash = '\0';
	if (!text_parse_u64(copy, &worker) || worker > UINT32_MAX || !text_parse_u64(dash + 1, &sequence))
		return false;
	*ret = (struct folder_file){.worker = (uint32_t)worker, .sequence = sequence};
	return true;
}

static int compare_files(const void *a, const void *b)
{
	const struct folder_file *left = a, *right = b;

	return left->sequence < right->sequence ? -1 : left->sequence > right->sequence;
}

/* ---- opening -------------------------------------------------------------------------------------------------- */

static int folder_open_directory(struct folder *folder, char *error, size_t error_len)
{
	struct stat info;

	if (mkdir(folder->path, 0700) != 0 && errno != EEXIST) {
		(void)snprintf(error, error_len, "write-behind: cannot make the folder %s: %s", folder->path,
			       strerror(errno));
		return RSHM_E_SYSTEM;
	}
	folder->fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder->fd < 0 || fstat(folder->fd, &info) != 0) {
		(void)snprintf(error, error_len, "write-behind: cannot open the folder %s: %s", folder->path,
			       strerror(errno));
		return errno == EACCES || errno == ELOOP || errno == ENOTDIR ? RSHM_E_DENIED : RSHM_E_SYSTEM;
	}
	if (info.st_uid != geteuid() || (info.st_mode & 077) != 0) {
		(void)snprintf(error, error_len, "write-behind: the folder %s must be ours alone (uid %u, mode 0700)",
			       folder->path, (unsigned)geteuid());
		return RSHM_E_DENIED;
	}
	if (flock(folder->fd, LOCK_EX | LOCK_NB) != 0) {
		(void)snprintf(error, error_len, "write-behind: the folder %s is in use by another process",
			       folder->path);
		return errno == EWOULDBLOCK ? RSHM_E_AGAIN : RSHM_E_SYSTEM;
	}
	return RSHM_OK;
}

static int add_old(struct folder *folder, const struct folder_file *file, size_t *capacity)
{
	if (folder->old_count == FOLDER_OLD_MAX)
		return RSHM_E_INVALID;
	if (folder->old_count == *capacity) {
		size_t more = *capacity == 0 ? 16 : *capacity * 2;
		void *grown = realloc(folder->old, more * sizeof *folder->old);

		if (grown == NULL)
			return RSHM_E_NOMEM;
		folder->old = grown;
		*capacity = more;
	}
	folder->old[folder->old_count++] = *file;
	return RSHM_OK;
}

/* Notes journals, and numbers in use also by what was set aside. */
static int folder_list_entry(struct folder *folder, const char *name, size_t *capacity)
{
	bool aside = strncmp(name, FOLDER_ASIDE, sizeof FOLDER_ASIDE - 1) == 0;
	struct folder_file file;

	if (!parse_name(name + (aside ? sizeof FOLDER_ASIDE - 1 : 0), &file))
		return RSHM_OK;
	if (file.sequence >= folder->sequence)
		folder->sequence = file.sequence + 1;
	if (!aside)
		return add_old(folder, &file, capacity);
	folder->aside_count++;
	return RSHM_OK;
}

static int folder_list(struct folder *folder, char *error, size_t error_len)
{
	int fd = openat(folder->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), status = RSHM_OK;
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	size_t capacity = 0;
	struct dirent *entry;

	if (directory == NULL) {
		if (fd >= 0)
			(void)close(fd);
		(void)snprintf(error, error_len, "write-behind: cannot list %s: %s", folder->path, strerror(errno));
		return RSHM_E_SYSTEM;
	}
	folder->sequence = 1;
	while (status == RSHM_OK && (entry = readdir(directory)) != NULL)
		status = folder_list_entry(folder, entry->d_name, &capacity);
	(void)closedir(directory);
	if (status == RSHM_OK && folder->old_count > 0) {
		qsort(folder->old, folder->old_count, sizeof *folder->old, compare_files);
		folder->states = calloc(folder->old_count, sizeof *folder->states);
		status = folder->states == NULL ? RSHM_E_NOMEM : RSHM_OK;
	}
	if (status != RSHM_OK)
		(void)snprintf(error, error_len, "write-behind: %s in %s",
			       status == RSHM_E_NOMEM ? "no memory for the list of files" : "too many files",
			       folder->path);
	return status;
}

static void folder_free(struct folder *folder)
{
	if (folder->fd >= 0)
		(void)close(folder->fd);
	free(folder->old);
	free(folder->states);
	free(folder->path);
	free(folder);
}

static int folder_create(const char *path, uint32_t worker_count, struct folder **ret, char *error, size_t error_len)
{
	struct folder *folder = calloc(1, sizeof *folder);
	int status;

	if (folder == NULL || (folder->path = strdup(path)) == NULL) {
		free(folder);
		(void)snprintf(error, error_len, "write-behind: no memory");
		return RSHM_E_NOMEM;
	}
	folder->fd = -1;
	folder->worker_count = worker_count;
	status = folder_open_directory(folder, error, error_len);
	if (status == RSHM_OK)
		status = folder_list(folder, error, error_len);
	if (status != RSHM_OK) {
		folder_free(folder);
		return status;
	}
	folder->old_left = folder->old_count;
	for (size_t i = 0; i < folder->old_count; i++)
		folder->states[i].workers_left = worker_count;
	if (folder->aside_count > 0)
		log_warn(FOLDER_MODULE, "%s: %zu journal files stand aside (" FOLDER_ASIDE "*) and wait for a person",
			 path, folder->aside_count);
	*ret = folder;
	return RSHM_OK;
}

int folder_acquire(const char *path, uint32_t worker, uint32_t worker_count, struct folder **ret, char *error,
		   size_t error_len)
{
	struct folder *folder;
	int status = RSHM_OK;

	(void)pthread_mutex_lock(&folders_lock);
	for (folder = folders; folder != NULL && strcmp(folder->path, path) != 0;)
		folder = folder->next;
	if (worker >= worker_count || (folder != NULL && folder->worker_count != worker_count)) {
		(void)snprintf(error, error_len, "write-behind: worker %u of %u does not fit the others of %s",
			       (unsigned)worker, (unsigned)worker_count, path);
		status = RSHM_E_INVALID;
	} else if (folder == NULL) {
		status = folder_create(path, worker_count, &folder, error, error_len);
		if (status == RSHM_OK) {
			folder->next = folders;
			folders = folder;
		}
	}
	if (status == RSHM_OK) {
		folder->refs++;
		*ret = folder;
	}
	(void)pthread_mutex_unlock(&folders_lock);
	return status;
}

void folder_release(struct folder **folder)
{
	struct folder *it = *folder, **link = &folders;

	if (it == NULL)
		return;
	*folder = NULL;
	(void)pthread_mutex_lock(&folders_lock);
	if (--it->refs == 0) {
		while (*link != it)
			link = &(*link)->next;
		*link = it->next;
		folder_free(it);
	}
	(void)pthread_mutex_unlock(&folders_lock);
}

/* ---- the old files -------------------------------------------------------------------------------------------- */

const char *folder_path(const struct folder *folder)
{
	return folder->path;
}

int folder_fd(const struct folder *folder)
{
	return folder->fd;
}

const struct folder_file *folder_old(const struct folder *folder, size_t *ret_count)
{
	*ret_count = folder->old_count;
	return folder->old;
}

bool folder_set_aside(struct folder *folder, const char *name)
{
	char aside[FOLDER_NAME_MAX + sizeof FOLDER_ASIDE];

	(void)snprintf(aside, sizeof aside, FOLDER_ASIDE "%s", name);
	if (renameat(folder->fd, name, folder->fd, aside) == 0)
		return true;
	log_error(FOLDER_MODULE, "cannot rename %s/%s to %s: %s", folder->path, name, aside, strerror(errno));
	return false;
}

static void say_why_aside(const struct folder *folder, const char *name, const struct folder_report *report,
			  const struct folder_state *state)
{
	if (report->damage != NULL)
		log_error(FOLDER_MODULE,
			  "%s/%s is damaged at byte %" PRIu64
			  " (%s): what stands before it was taken over, the rest was not; "
			  "set aside",
			  folder->path, name, report->damage_offset, report->damage);
	if (state->too_old)
		log_error(FOLDER_MODULE, "%s/%s has writes too old to be replayed (max_replay_age); set aside",
			  folder->path, name);
	if (state->owned < report->records)
		log_error(FOLDER_MODULE,
			  "%s/%s has %" PRIu64
			  " records of tenants that are not configured; set aside, rename it back when they are",
			  folder->path, name, report->records - state->owned);
}

/* After the last worker. False: the file could not be moved, and counts as there. */
static bool folder_end_file(struct folder *folder, const char *name, const struct folder_report *report,
			    const struct folder_state *state, bool *ret_aside)
{
	if (report->torn)
		log_warn(FOLDER_MODULE, "%s/%s ends in the middle of a record, which was never acknowledged: cut off",
			 folder->path, name);
	if (report->damage != NULL || state->too_old || state->owned < report->records) {
		say_why_aside(folder, name, report, state);
		return *ret_aside = folder_set_aside(folder, name);
	}
	if (unlinkat(folder->fd, name, 0) == 0)
		return true;
	log_error(FOLDER_MODULE, "cannot remove %s/%s: %s", folder->path, name, strerror(errno));
	return false;
}

struct folder_outcome folder_done(struct folder *folder, size_t index, const struct folder_report *report)
{
	struct folder_state *state = &folder->states[index];
	struct folder_outcome outcome = {.torn = report->torn};
	char name[FOLDER_NAME_MAX];

	must(index < folder->old_count);
	folder_file_name(name, folder->old[index].worker, folder->old[index].sequence);
	(void)pthread_mutex_lock(&folders_lock);
	must(state->workers_left > 0);
	state->owned += report->owned;
	state->too_old |= report->too_old;
	outcome.last = --state->workers_left == 0;
	if (outcome.last && folder_end_file(folder, name, report, state, &outcome.aside))
		folder->old_left--;
	/* Must not come back after a loss of power, when the marks that belong to it are gone. */
	if (outcome.last && folder->old_left == 0)
		(void)fsync(folder->fd);
	(void)pthread_mutex_unlock(&folders_lock);
	return outcome;
}

bool folder_old_files(struct folder *folder)
{
	bool left;

	(void)pthread_mutex_lock(&folders_lock);
	left = folder->old_left > 0;
	(void)pthread_mutex_unlock(&folders_lock);
	return left;
}

uint64_t folder_sequence(struct folder *folder)
{
	uint64_t sequence;

	(void)pthread_mutex_lock(&folders_lock);
	sequence = folder->sequence++;
	(void)pthread_mutex_unlock(&folders_lock);
	return sequence;
}
