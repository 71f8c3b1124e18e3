/*
 * What happens to the file before it is used, in this order: the folder is made or checked; a file that a
 * loss of power may have damaged is read through; a file that is mostly free pages is copied without them.
 *
 * LMDB believes its file. A page that never reached the disk ends in an assertion or a wild pointer, so the
 * reading through is done by a child process, whose death is the answer. It happens only if the file
 * `unsynced` is there and names another boot than this one: it is written at open unless every commit is
 * synced, and removed after the sync of a clean close.
 *
 * A file that is shorter than its newest root says would end in SIGBUS; that is checked at every start, by
 * arithmetic.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/store/embedded/embedded_priv.h"

#define FILE_COMPACT_MIN (64ull << 20) /* free bytes that are worth a copy, if they are also more than half */
#define FILE_PATH_MAX 4096
#define FILE_DATA "data.mdb"
#define FILE_COPY "data.mdb.compact"
#define FILE_UNSYNCED "unsynced"

static bool file_name(char name[FILE_PATH_MAX], const char *path, const char *file)
{
	return snprintf(name, FILE_PATH_MAX, "%s/%s", path, file) < FILE_PATH_MAX;
}

/* ---- the folder --------------------------------------------------------------------------------------------- */

static int explain_folder(const char *path, const char *what, struct text *error)
{
	int number = errno;

	text_append_format(error, "embedded store: cannot %s folder %s: %s", what, path, strerror(number));
	switch (number) {
	case EACCES:
	case EPERM:
		text_append_string(error, "; give it to the user that runs the agent");
		return RSHM_E_DENIED;
	case ENOSPC:
	case EDQUOT:
		text_append_string(error, "; make room on that file system");
		return RSHM_E_FULL;
	case ENOENT:
		text_append_string(error, "; make its parent folder first");
		return RSHM_E_SYSTEM;
	case EROFS:
		text_append_string(error, "; choose a folder on a writable file system");
		return RSHM_E_DENIED;
	default:
		return RSHM_E_SYSTEM;
	}
}

int file_prepare(const char *path, struct text *error)
{
	char name[FILE_PATH_MAX];
	struct stat info;

	if (!file_name(name, path, FILE_COPY)) {
		text_append_format(error, "embedded store: the path of the folder is too long: %s", path);
		return RSHM_E_INVALID;
	}
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return explain_folder(path, "make", error);
	if (stat(path, &info) != 0)
		return explain_folder(path, "use", error);
	if (!S_ISDIR(info.st_mode)) {
		text_append_format(error, "embedded store: %s is no folder; choose another path or move it away",
				   path);
		return RSHM_E_INVALID;
	}
	if (faccessat(AT_FDCWD, path, R_OK | W_OK | X_OK, AT_EACCESS) != 0)
		return explain_folder(path, "write to", error);
	/* Left by a copy that was interrupted. */
	(void)unlink(name);
	return RSHM_OK;
}

/* ---- damage ------------------------------------------------------------------------------------------------- */

int file_explain(const char *path, const char *what, int mdb_error, struct text *error)
{
	int status = record_status(mdb_error);

	text_append_format(error, "embedded store: cannot %s %s/" FILE_DATA ": %s", what, path,
			   mdb_strerror(mdb_error));
	switch (mdb_error) {
	case MDB_INVALID:
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
		text_append_string(error, "; it is damaged or not ours: restore it, or move it away to start empty");
		return RSHM_E_CORRUPT;
	case MDB_VERSION_MISMATCH:
		text_append_string(error,
				   "; it was made by another version of LMDB: use that one, or move the file away");
		return RSHM_E_FORMAT;
	case ENOMEM:
		text_append_string(error,
				   "; the map does not fit the address space: lower map_size or raise `ulimit -v`");
		return RSHM_E_NOMEM;
	case EACCES:
	case EPERM:
	case EROFS:
		text_append_string(error, "; give the folder and its files to the user that runs the agent");
		return RSHM_E_DENIED;
	default:
		if (status == RSHM_E_FULL)
			text_append_string(error, "; make room on that file system, or raise map_size");
		return status == RSHM_E_BACKEND ? RSHM_E_SYSTEM : status;
	}
}

static bool boot_id_read(char id[64])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, id, 63);

	if (fd >= 0)
		(void)close(fd);
	if (length <= 0)
		return false;
	id[length] = '\0';
	return true;
}

/* True if the file was open without syncing when this machine, or another, went down. */
static bool lost_power_since(const char *path)
{
	char name[FILE_PATH_MAX], noted[64], current[64];
	int fd;
	ssize_t length;

	if (!file_name(name, path, FILE_UNSYNCED) || (fd = open(name, O_RDONLY | O_CLOEXEC)) < 0)
		return false;
	length = read(fd, noted, sizeof noted - 1);
	(void)close(fd);
	if (length < 0)
		length = 0;
	noted[length] = '\0';
	return !boot_id_read(current) || strcmp(noted, current) != 0;
}

int file_mark_dirty(const char *path, struct text *error)
{
	char name[FILE_PATH_MAX], id[64];
	int fd;
	bool written;

	if (!boot_id_read(id))
		id[0] = '\0';
	if (!file_name(name, path, FILE_UNSYNCED) ||
	    (fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0)
		return explain_folder(path, "write to", error);
	written = write(fd, id, strlen(id)) == (ssize_t)strlen(id) && fsync(fd) == 0;
	if (close(fd) != 0 || !written)
		return explain_folder(path, "write to", error);
	return RSHM_OK;
}

void file_mark_clean(const char *path)
{
	char name[FILE_PATH_MAX];

	if (file_name(name, path, FILE_UNSYNCED))
		(void)unlink(name);
}

/* Child process: looks at every key and the first and last byte of every value. Returns only if all could be read. */
static int table_read(MDB_txn *txn, MDB_dbi table)
{
	MDB_cursor *cursor;
	MDB_val name, value;
	int error = mdb_cursor_open(txn, table, &cursor);

	if (error != 0)
		return error;
	while ((error = mdb_cursor_get(cursor, &name, &value, MDB_NEXT)) == 0) {
		const volatile unsigned char *bytes = value.mv_data;

		for (size_t i = 0; i < value.mv_size; i += 4096)
			(void)bytes[i];
		if (value.mv_size > 0)
			(void)bytes[value.mv_size - 1];
	}
	mdb_cursor_close(cursor);
	return error == MDB_NOTFOUND ? 0 : error;
}

static void read_on_assert(MDB_env *mdb, const char *message)
{
	(void)mdb;
	(void)message;
	_exit(2);
}

static MDB_env *open_to_read(const char *path, int *ret_error)
{
	MDB_env *mdb = NULL;

	*ret_error = mdb_env_create(&mdb);
	if (*ret_error == 0)
		*ret_error = mdb_env_set_maxdbs(mdb, EMBEDDED_TABLES_MAX);
	/* Nobody else has it: the agent's lock says so. */
	if (*ret_error == 0)
		*ret_error = mdb_env_open(mdb, path, MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0600);
	if (*ret_error != 0 && mdb != NULL) {
		mdb_env_close(mdb);
		mdb = NULL;
	}
	return mdb;
}

__attribute__((noreturn)) static void child_read_file(const char *path)
{
	static const char *const names[] = {"meta", "tenants", "main", "chunks", "expiry"};
	uint64_t pages;
	MDB_txn *txn;
	MDB_dbi table;
	int error;
	MDB_env *mdb = open_to_read(path, &error);

	if (mdb == NULL || mdb_env_set_assert(mdb, read_on_assert) != 0 ||
	    mdb_txn_begin(mdb, NULL, MDB_RDONLY, &txn) != 0 || file_free_pages(txn, &pages) != 0)
		_exit(1);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		error = mdb_dbi_open(txn, names[i], 0, &table);
		if (error == 0)
			error = table_read(txn, table);
		if (error != 0 && error != MDB_NOTFOUND)
			_exit(1);
	}
	_exit(0);
}

static int check_by_reading(const char *path, struct text *error)
{
	int wait_status = -1;
	pid_t child;

	log_warn(EMBEDDED_MODULE, "%s was in use when the machine went down: reading it through", path);
	child = fork();
	if (child == 0)
		child_read_file(path);
	if (child < 0) {
		text_append_format(error, "embedded store: cannot start the check of %s: %s", path, strerror(errno));
		return RSHM_E_SYSTEM;
	}
	while (waitpid(child, &wait_status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0)
		return RSHM_OK;
	text_append_format(error,
			   "embedded store: %s/" FILE_DATA
			   " was damaged when the machine went down; restore it, or move it"
			   " away to start empty; sync = always prevents this",
			   path);
	return RSHM_E_CORRUPT;
}

int file_check(const char *path, struct text *error)
{
	char name[FILE_PATH_MAX];
	struct stat info;
	MDB_envinfo env_info;
	MDB_stat env_stat;
	MDB_env *mdb;
	uint64_t needed;
	int failed;

	if (!file_name(name, path, FILE_DATA) || stat(name, &info) != 0 || info.st_size == 0)
		return RSHM_OK; /* a new one will be made */
	mdb = open_to_read(path, &failed);
	if (mdb == NULL)
		return file_explain(path, "open", failed, error);
	(void)mdb_env_info(mdb, &env_info);
	(void)mdb_env_stat(mdb, &env_stat);
	mdb_env_close(mdb);
	needed = ((uint64_t)env_info.me_last_pgno + 1) * env_stat.ms_psize;
	if ((uint64_t)info.st_size < needed) {
		text_append_format(error,
				   "embedded store: %s is cut off: %" PRIu64 " bytes of at least %" PRIu64
				   "; restore it, or move it away to start empty",
				   name, (uint64_t)info.st_size, needed);
		return RSHM_E_CORRUPT;
	}
	return lost_power_since(path) ? check_by_reading(path, error) : RSHM_OK;
}

/* ---- free pages --------------------------------------------------------------------------------------------- */

int file_free_pages(MDB_txn *txn, uint64_t *ret)
{
	MDB_cursor *cursor;
	MDB_val name, value;
	uint64_t pages = 0;
	/* Table 0 is LMDB's list of free pages: each value is a list of page numbers that begins with its length. */
	int error = mdb_cursor_open(txn, 0, &cursor);

	if (error != 0)
		return error;
	while ((error = mdb_cursor_get(cursor, &name, &value, MDB_NEXT)) == 0) {
		size_t length = 0;

		if (value.mv_size >= sizeof length)
			memcpy(&length, value.mv_data, sizeof length);
		pages += length;
	}
	mdb_cursor_close(cursor);
	*ret = pages;
	return error == MDB_NOTFOUND ? 0 : error;
}

static bool worth_compacting(MDB_env *mdb)
{
	MDB_envinfo info;
	MDB_stat stats;
	MDB_txn *txn;
	uint64_t free_pages = 0;
	int error = mdb_txn_begin(mdb, NULL, MDB_RDONLY, &txn);

	if (error != 0)
		return false;
	error = file_free_pages(txn, &free_pages);
	mdb_txn_abort(txn);
	(void)mdb_env_info(mdb, &info);
	(void)mdb_env_stat(mdb, &stats);
	return error == 0 && free_pages * stats.ms_psize > FILE_COMPACT_MIN &&
	       free_pages * 2 > (uint64_t)info.me_last_pgno + 1;
}

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error;

	if (fd < 0)
		return errno;
	error = fsync(fd) == 0 ? 0 : errno;
	(void)close(fd);
	return error;
}

static int write_copy(MDB_env *mdb, const char *copy)
{
	int fd = open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), error;

	if (fd < 0)
		return errno;
	error = mdb_env_copyfd2(mdb, fd, MDB_CP_COMPACT);
	if (error == 0 && fsync(fd) != 0)
		error = errno;
	if (close(fd) != 0 && error == 0)
		error = errno;
	return error;
}

void file_compact(const char *path)
{
	char data[FILE_PATH_MAX], copy[FILE_PATH_MAX];
	struct stat before, after;
	int error;
	MDB_env *mdb;

	if (!file_name(data, path, FILE_DATA) || !file_name(copy, path, FILE_COPY) || stat(data, &before) != 0 ||
	    before.st_size == 0)
		return;
	mdb = open_to_read(path, &error);
	if (mdb == NULL)
		return; /* whoever opens it next says why */
	if (!worth_compacting(mdb)) {
		mdb_env_close(mdb);
		return;
	}
	error = write_copy(mdb, copy);
	mdb_env_close(mdb);
	if (error == 0 && (stat(copy, &after) != 0 || rename(copy, data) != 0))
		error = errno;
	if (error == 0)
		error = sync_folder(path);
	if (error == 0) {
		log_info(EMBEDDED_MODULE, "compacted %s from %" PRIu64 " to %" PRIu64 " MiB", data,
			 (uint64_t)before.st_size >> 20, (uint64_t)after.st_size >> 20);
		return;
	}
	(void)unlink(copy);
	log_warn(EMBEDDED_MODULE, "cannot compact %s, going on with it as it is: %s", data, mdb_strerror(error));
}
