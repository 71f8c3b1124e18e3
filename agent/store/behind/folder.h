/*
 * folder.h - the folder of the journals, which all workers of a process share.
 *
 * The first worker to come takes the lock of the folder and the list of the files that are there: exactly these
 * predate the start. Each worker reads all of them, takes over into files of its own what it owns, and reports each
 * file done, with how many records it took. After the last worker's report a file is unlinked, or set aside if it was
 * damaged, if something in it was too old, or if it has records of tenants that nobody owns.
 *
 * All functions: any thread; they block for directory operations, and are for creation and destruction, but for
 * folder_sequence() and folder_old_files(), which only take a mutex.
 */
#ifndef BEHIND_FOLDER_H
#define BEHIND_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FOLDER_NAME_MAX 64u /* bytes, with the NUL, of a file name made here */
#define FOLDER_MODULE "behind"

struct folder;

struct folder_file {
	uint32_t worker;
	uint64_t sequence;
};

/* What a worker found in an old file. */
struct folder_report {
	uint64_t records, owned; /* records and marks; the first is the same for all workers */
	bool torn;               /* ended in the middle of a record */
	const char *damage;      /* literal; not NULL: it was not read to its end */
	uint64_t damage_offset;
	bool too_old; /* something that this worker owns was not taken over */
};

/* What happened to it. */
struct folder_outcome {
	bool last; /* this was the last worker: the next two hold */
	bool torn, aside;
};

/*
 * The folder's lock and list, shared within the process. Every success is to be released. Errors as behind_create(),
 * with a line in `error`.
 */
int folder_acquire(const char *path, uint32_t worker, uint32_t worker_count, struct folder **ret, char *error,
		   size_t error_len);
/* Clears *folder; NULL is fine. */
void folder_release(struct folder **folder);

const char *folder_path(const struct folder *folder);
int folder_fd(const struct folder *folder);

/* The files that predate the start, ordered by sequence. Constant. */
const struct folder_file *folder_old(const struct folder *folder, size_t *ret_count);
/* Once per worker and file. */
struct folder_outcome folder_done(struct folder *folder, size_t index, const struct folder_report *report);
/* Whether an old file is still there that somebody has to take records from. */
bool folder_old_files(struct folder *folder);

/* A number that no file of this folder has or had since the start. */
uint64_t folder_sequence(struct folder *folder);

void folder_file_name(char name[FOLDER_NAME_MAX], uint32_t worker, uint64_t sequence);
/* Renames a journal file to aside-<name>. False: it stays, and the log says why. */
bool folder_set_aside(struct folder *folder, const char *name);

#endif
