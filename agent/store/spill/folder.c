/*
 * The folder: made with mode 0700, locked, and told apart from what is not ours.
 *
 *	data.mdb                   the index; data.mdb.new while it is compacted
 *	<16 hex digits>.segment    records
 *	mark                       whose content this is, and how the run that made it ended
 *
 * The mark is written when the folder is opened, unclean, with the id of this boot, and again after everything was synced at a
 * clean end. Nothing is synced in between: a process that is killed loses nothing that it has handed to the kernel, and
 * after a restart of the machine an unclean folder is discarded.
 *
 * LMDB believes its file, and a page that rotted may end in a crash; so the mark of a clean end has a checksum of it.
 *
 * The lock is on the folder itself and goes with the process.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/base/log.h"
#include "agent/store/spill/disk.h"
#include "shm/msg.h"

#define FOLDER_INDEX "data.mdb"
#define FOLDER_INDEX_NEW "data.mdb.new"
#define FOLDER_MARK "mark"
#define FOLDER_MARK_NEW "mark.new"
#define MARK_MAGIC 0x4d525053u
#define MARK_FORMAT 1u
#define INDEX_BLOCK (256u << 10)
#define SEGMENT_SUFFIX ".segment"

struct mark {
	uint32_t magic, format;
	unsigned char identity[SPILL_IDENTITY_BYTES];
	char boot[40];
	uint32_t clean, zero;
	uint64_t index_checksum; /* of the whole file, if clean */
	uint64_t checksum;
};
_Static_assert(sizeof(struct mark) == 88, "stored as it is: no holes");

/* ---- names -------------------------------------------------------------------------------------------------- */

void spill_folder_segment_name(char name[SPILL_NAME_MAX], uint64_t number)
{
	(void)snprintf(name, SPILL_NAME_MAX, "%016" PRIx64 SEGMENT_SUFFIX, number);
}

bool spill_folder_is_segment(const char *name, uint64_t *ret_number)
{
	char again[SPILL_NAME_MAX];
	uint64_t number = strtoull(name, NULL, 16);

	/* Exactly as we write it: no sign, no upper case, no shorter one. */
	spill_folder_segment_name(again, number);
	if (number == 0 || number == UINT64_MAX || strcmp(name, again) != 0)
		return false;
	*ret_number = number;
	return true;
}

static bool is_ours(const char *name)
{
	uint64_t number;

	return strcmp(name, FOLDER_INDEX) == 0 || strcmp(name, FOLDER_INDEX_NEW) == 0 ||
	       strcmp(name, FOLDER_MARK) == 0 || strcmp(name, FOLDER_MARK_NEW) == 0 ||
	       spill_folder_is_segment(name, &number);
}

/* ---- opening ------------------------------------------------------------------------------------------------ */

static int explain(const struct spill_disk *disk, const char *what, int number, struct text *error)
{
	text_append_format(error, "spill: cannot %s folder %s: %s", what, disk->path, strerror(number));
	switch (number) {
	case EACCES:
	case EPERM:
		text_append_string(error, "; give it to the user that runs the agent");
		return RSHM_E_DENIED;
	case EROFS:
		text_append_string(error, "; choose a folder on a writable file system");
		return RSHM_E_DENIED;
	case ENOSPC:
	case EDQUOT:
		text_append_string(error, "; make room on that file system");
		return RSHM_E_FULL;
	case ENOENT:
		text_append_string(error, "; make its parent folder first");
		return RSHM_E_SYSTEM;
	case ELOOP:
	case ENOTDIR:
		text_append_string(error, "; it must be a folder, not a file or symbolic link");
		return RSHM_E_DENIED;
	case EWOULDBLOCK:
		text_append_string(error, "; another process uses it");
		return RSHM_E_AGAIN;
	default:
		return RSHM_E_SYSTEM;
	}
}

/* LMDB opens its file by name and would follow a link. */
static bool index_is_regular(const struct spill_disk *disk)
{
	struct stat info;

	if (fstatat(disk->folder, FOLDER_INDEX, &info, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT;
	return S_ISREG(info.st_mode);
}

int spill_folder_open(struct spill_disk *disk, struct text *error)
{
	struct stat info;

	if (mkdir(disk->path, 0700) != 0 && errno != EEXIST)
		return explain(disk, "make", errno, error);
	disk->folder = open(disk->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (disk->folder < 0 || fstat(disk->folder, &info) != 0)
		return explain(disk, "open", errno, error);
	if (info.st_uid != geteuid())
		return explain(disk, "own", EPERM, error);
	if ((info.st_mode & 07777) != 0700 && fchmod(disk->folder, 0700) != 0)
		return explain(disk, "close to others the", errno, error);
	if (faccessat(disk->folder, ".", R_OK | W_OK | X_OK, AT_EACCESS) != 0)
		return explain(disk, "write to", errno, error);
	if (flock(disk->folder, LOCK_EX | LOCK_NB) != 0)
		return explain(disk, "lock", errno, error);
	if (!index_is_regular(disk)) {
		text_append_format(error, "spill: %s/" FOLDER_INDEX " is no regular file; move it away", disk->path);
		return RSHM_E_DENIED;
	}
	return RSHM_OK;
}

/* ---- the mark ----------------------------------------------------------------------------------------------- */

static void boot_read(char id[40])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, id, 36);

	if (fd >= 0)
		(void)close(fd);
	memset(id + (length == 36 ? 36 : 0), 0, (size_t)(length == 36 ? 4 : 40));
}

static uint64_t mark_checksum(const struct mark *mark)
{
	return XXH3_64bits(mark, offsetof(struct mark, checksum));
}

static bool index_checksum(const struct spill_disk *disk, uint64_t *ret)
{
	int fd = openat(disk->folder, FOLDER_INDEX, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	unsigned char *block = fd < 0 ? NULL : malloc(INDEX_BLOCK);
	uint64_t sum = 0;
	ssize_t length = -1;

	while (block != NULL && ((length = read(fd, block, INDEX_BLOCK)) > 0 || (length < 0 && errno == EINTR)))
		if (length > 0)
			sum = XXH3_64bits_withSeed(block, (size_t)length, sum);
	free(block);
	if (fd >= 0)
		(void)close(fd);
	*ret = sum;
	return length == 0;
}

/* Whether the mark is of this run's predecessor, and what it left is as it was. */
static bool mark_is_good(const struct spill_disk *disk, const struct mark *mark)
{
	uint64_t sum;
	char boot[40];

	boot_read(boot);
	if (mark->clean == 1)
		return index_checksum(disk, &sum) && sum == mark->index_checksum;
	return boot[0] != '\0' && memcmp(mark->boot, boot, sizeof boot) == 0;
}

bool spill_folder_may_keep(const struct spill_disk *disk)
{
	int fd = openat(disk->folder, FOLDER_MARK, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct mark mark;
	ssize_t length;

	if (fd < 0)
		return false;
	length = read(fd, &mark, sizeof mark);
	(void)close(fd);
	if (length != (ssize_t)sizeof mark || mark.magic != MARK_MAGIC || mark.format != MARK_FORMAT ||
	    mark.checksum != mark_checksum(&mark))
		return false;
	if (memcmp(mark.identity, disk->identity, SPILL_IDENTITY_BYTES) != 0)
		return false;
	if (mark_is_good(disk, &mark))
		return true;
	log_warn(SPILL_MODULE, "%s: what an earlier run left is discarded: %s", disk->path,
		 mark.clean == 1 ? "its index is damaged" : "the machine was restarted since");
	return false;
}

int spill_folder_mark(const struct spill_disk *disk, bool clean)
{
	struct mark mark = {.magic = MARK_MAGIC, .format = MARK_FORMAT, .clean = clean};
	int fd, error = 0;

	memcpy(mark.identity, disk->identity, SPILL_IDENTITY_BYTES);
	boot_read(mark.boot);
	if (clean && !index_checksum(disk, &mark.index_checksum))
		return EIO;
	mark.checksum = mark_checksum(&mark);
	(void)unlinkat(disk->folder, FOLDER_MARK_NEW, 0);
	fd = openat(disk->folder, FOLDER_MARK_NEW, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	errno = EIO;
	if (write(fd, &mark, sizeof mark) != (ssize_t)sizeof mark || fsync(fd) != 0)
		error = errno;
	if (close(fd) != 0 && error == 0)
		error = errno;
	if (error == 0 &&
	    (renameat(disk->folder, FOLDER_MARK_NEW, disk->folder, FOLDER_MARK) != 0 || fsync(disk->folder) != 0))
		error = errno;
	return error;
}

/* ---- what is in it ------------------------------------------------------------------------------------------ */

static DIR *list_open(const struct spill_disk *disk)
{
	int fd = openat(disk->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);

	if (list == NULL && fd >= 0)
		(void)close(fd);
	return list;
}

int spill_folder_discard(const struct spill_disk *disk)
{
	DIR *list;
	const struct dirent *file;
	int error = 0;

	/* Without its mark nothing of the rest is ever believed. */
	if (unlinkat(disk->folder, FOLDER_MARK, 0) != 0 && errno != ENOENT)
		return errno;
	list = list_open(disk);
	if (list == NULL)
		return errno;
	while ((file = readdir(list)) != NULL)
		if (is_ours(file->d_name) && unlinkat(disk->folder, file->d_name, 0) != 0 && errno != EISDIR &&
		    errno != ENOENT && error == 0)
			error = errno;
	(void)closedir(list);
	return error;
}

int spill_folder_new_index(const struct spill_disk *disk)
{
	(void)unlinkat(disk->folder, FOLDER_INDEX_NEW, 0);
	return openat(disk->folder, FOLDER_INDEX_NEW, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

int spill_folder_swap_index(const struct spill_disk *disk)
{
	return renameat(disk->folder, FOLDER_INDEX_NEW, disk->folder, FOLDER_INDEX) == 0 ? 0 : errno;
}

void spill_folder_drop_new_index(const struct spill_disk *disk)
{
	(void)unlinkat(disk->folder, FOLDER_INDEX_NEW, 0);
}

int spill_folder_visit(struct spill_disk *disk, void (*visit)(struct spill_disk *disk, uint64_t number))
{
	DIR *list = list_open(disk);
	const struct dirent *file;
	uint64_t number;

	if (list == NULL)
		return errno;
	while ((file = readdir(list)) != NULL)
		if (spill_folder_is_segment(file->d_name, &number))
			visit(disk, number);
	(void)closedir(list);
	return 0;
}

void spill_folder_tell_foreign(const struct spill_disk *disk)
{
	DIR *list = list_open(disk);
	const struct dirent *file;
	char first[64], shown[256];
	struct text text;
	uint64_t count = 0;

	if (list == NULL)
		return;
	while ((file = readdir(list)) != NULL) {
		if ((is_ours(file->d_name) && file->d_type != DT_DIR) || strcmp(file->d_name, ".") == 0 ||
		    strcmp(file->d_name, "..") == 0)
			continue;
		if (count++ == 0)
			(void)snprintf(first, sizeof first, "%.*s", (int)sizeof first - 1, file->d_name);
	}
	(void)closedir(list);
	if (count == 0)
		return;
	text_init(&text, shown, sizeof shown);
	text_append_escaped(&text, first, strlen(first));
	log_warn(SPILL_MODULE, "%s holds %" PRIu64 " files that are not ours, \"%s\" first; they are left alone",
		 disk->path, count, shown);
}
