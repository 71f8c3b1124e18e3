/*
 * Beginning and end of the disk's side.
 *
 * What an earlier run left is taken over if that is asked for and the mark allows it (folder.c): the rows of its segments
 * are read, files without a row are removed (they were not committed, or their row is gone), and all keys are read
 * once for the filter. New records go to new files. Whatever fails on this way, everything is discarded instead. Which of
 * the records are whole is seen when they are read.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/store/spill/disk.h"
#include "shm/msg.h"

/* ---- taking over ------------------------------------------------------------------------------------------------ */

/* A file without a row was not committed, or its row was removed. */
static void visit_segment(struct spill_disk *disk, uint64_t number)
{
	char name[SPILL_NAME_MAX];

	if (number >= disk->segment_next)
		disk->segment_next = number + 1;
	if (spill_segment_of(disk, number) != NULL)
		return;
	spill_folder_segment_name(name, number);
	(void)unlinkat(disk->folder, name, 0);
}

static int load_segments(struct spill_disk *disk, MDB_txn *txn)
{
	struct spill_segment row;
	uint64_t from = 1;
	int error;

	while ((error = spill_index_load_segment(&disk->index, txn, from, &row)) == 0) {
		struct spill_segment *segment;
		char name[SPILL_NAME_MAX];
		struct stat info;

		if (row.number < from || row.number == UINT64_MAX)
			return MDB_CORRUPTED;
		spill_folder_segment_name(name, row.number);
		/* One that is missing is found when it is read, and leaves as others do. */
		if (fstatat(disk->folder, name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode))
			info.st_size = 0;
		segment = spill_segment_add(disk, row.number, (uint64_t)info.st_size);
		if (segment == NULL)
			return ENOMEM;
		row.size = segment->size;
		row.changed = true; /* an empty one goes with the next commit */
		*segment = row;
		disk->entries += row.live;
		from = row.number + 1;
	}
	disk->segment_next = from;
	return error == MDB_NOTFOUND ? 0 : error;
}

static void visit_key(struct spill_disk *disk, const void *key, size_t key_len)
{
	spill_filter_add(disk, key, key_len);
}

/* Takes over what an earlier run left. Returns an LMDB error; then nothing of it is to be used. */
static int take_over(struct spill_disk *disk)
{
	MDB_txn *txn;
	int error;

	spill_folder_drop_new_index(disk);
	error = spill_index_open(&disk->index, disk->path, spill_disk_map_bytes(disk));
	if (error == 0)
		error = mdb_txn_begin(disk->index.mdb, NULL, 0, &txn);
	if (error != 0)
		return error;
	error = load_segments(disk, txn);
	if (error == 0)
		error = spill_index_visit(&disk->index, txn, disk, visit_key);
	if (error == 0)
		error = spill_index_next_run(&disk->index, txn, &disk->run);
	if (error != 0) {
		mdb_txn_abort(txn);
		return error;
	}
	error = mdb_txn_commit(txn);
	if (error == 0)
		error = spill_folder_visit(disk, visit_segment);
	if (error == 0)
		error = spill_folder_mark(disk, false);
	disk->usable = error == 0;
	spill_disk_publish(disk);
	return error;
}

/* ---- opening -------------------------------------------------------------------------------------------------- */

static int explain_begin(const struct spill_disk *disk, int number, struct text *error)
{
	text_append_format(error, "spill: cannot make the index in %s: %s", disk->path, mdb_strerror(number));
	switch (number) {
	case ENOSPC:
	case EDQUOT:
	case EIO:
		text_append_string(error, "; make room on that file system, or look at the disk");
		return RSHM_E_FULL;
	case ENOMEM:
		text_append_string(error, "; its map does not fit the address space: lower the limit");
		return RSHM_E_NOMEM;
	case EACCES:
	case EPERM:
	case EROFS:
		text_append_string(error, "; give the folder to the user that runs the agent");
		return RSHM_E_DENIED;
	default:
		return RSHM_E_SYSTEM;
	}
}

int spill_disk_open(struct spill_disk *disk, const struct spill_config *config, struct text *error)
{
	int status, failed;

	*disk = (struct spill_disk){.folder = -1, .keep = config->keep, .segment_next = 1};
	disk->segment_bytes_max = config->segment_bytes;
	memcpy(disk->identity, config->identity, SPILL_IDENTITY_BYTES);
	spill_disk_limit(disk, config->limits.bytes);
	disk->path = strdup(config->path);
	if (disk->path == NULL || spill_filter_make(disk, disk->limit_bytes) != RSHM_OK) {
		text_append_string(error, "spill: no memory");
		return RSHM_E_NOMEM;
	}
	status = spill_folder_open(disk, error);
	if (status != RSHM_OK)
		return status;
	disk->owned = true;
	spill_folder_tell_foreign(disk);
	if (disk->keep && spill_folder_may_keep(disk)) {
		failed = take_over(disk);
		if (failed == 0) {
			log_info(SPILL_MODULE, "%s: kept %" PRIu64 " entries of an earlier run", disk->path,
				 disk->counts.entries);
			return RSHM_OK;
		}
		log_warn(SPILL_MODULE, "%s: what an earlier run left is discarded: %s", disk->path,
			 mdb_strerror(failed));
		spill_disk_forget_all(disk);
	}
	failed = spill_disk_make_empty(disk);
	return failed == 0 ? RSHM_OK : explain_begin(disk, failed, error);
}

/* ---- closing -------------------------------------------------------------------------------------------------- */

static int save_for_later(struct spill_disk *disk)
{
	int error = spill_segment_sync_all(disk);

	if (error == 0)
		error = mdb_env_sync(disk->index.mdb, 1);
	if (error == 0)
		error = spill_folder_mark(disk, true);
	return error;
}

void spill_disk_close(struct spill_disk *disk)
{
	bool save = disk->keep && disk->usable;
	int error = save ? save_for_later(disk) : 0;

	if (error != 0)
		spill_disk_failed(disk, "keep its content", error);
	spill_disk_forget_all(disk);
	if (disk->owned && (!save || error != 0))
		(void)spill_folder_discard(disk);
	if (disk->folder >= 0)
		(void)close(disk->folder);
	free(disk->segments);
	disk->segments = NULL;
	disk->segment_capacity = 0;
}
