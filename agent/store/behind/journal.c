/*
 * Segments form a list, oldest first:
 *
 *	first ─> ... ─> last      only `last` grows; a segment is dead when it is not `last` and nothing in it is live
 *
 * Dead segments are removed from the front only. A mark stands in a younger segment than its record, or in the same;
 * so whoever finds a record at the next start finds its mark too. The same holds for a younger record that superseded
 * an older one, but for a loss of power: so with `always` and `interval` a dead segment waits for a sync round that
 * began after its death, because what superseded its records must be on the disk first.
 *
 * A failed write is undone by truncating. If even that fails, the segment is spoilt and the next record goes to a new
 * one; a start takes the broken end for what it is, a record that nobody was told of.
 *
 * A round of syncing takes the segments one after the other, each up to the size it had when the round began, and
 * before a new one the folder. The marks are batched: they are written before the loop sleeps, and before anything is
 * passed to the inner store that they must precede.
 */
#include "agent/store/behind/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "shm/msg.h"

#define JOURNAL_SCRATCH (256u << 10)
_Static_assert(JOURNAL_SCRATCH >= 2 * FORMAT_MARK_MAX, "marks are written in batches");

static struct log_limit disk_limit = LOG_LIMIT(3, 10000);

static void journal_round_step(struct journal *journal);

int journal_init(struct journal *journal, const struct behind_config *config, uv_loop_t *loop, struct folder *folder,
		 journal_synced_fn *synced, void *context)
{
	unsigned char *scratch = malloc(JOURNAL_SCRATCH);

	if (scratch == NULL)
		return RSHM_E_NOMEM;
	*journal = (struct journal){
		.loop = loop,
		.folder = folder,
		.worker = config->worker,
		.sync = config->sync,
		/* A few of them, so that one that is stored can go while the next one grows. */
		.segment_bytes =
			config->segment_bytes < config->max_bytes / 4 ? config->segment_bytes : config->max_bytes / 4,
		.synced = synced,
		.context = context,
		.scratch = scratch,
		.round_ok = true,
	};
	journal->marks_end = &journal->marks;
	return RSHM_OK;
}

static void segment_name(const struct segment *segment, char name[FOLDER_NAME_MAX])
{
	folder_file_name(name, segment->worker, segment->sequence);
}

static void journal_complain(const struct journal *journal, const struct segment *segment, const char *what,
			     int error)
{
	char name[FOLDER_NAME_MAX];

	segment_name(segment, name);
	log_limited(&disk_limit, LOG_LEVEL_ERROR, FOLDER_MODULE, "%s/%s: cannot %s: %s", folder_path(journal->folder),
		    name, what, strerror(error));
}

static int status_of(int error)
{
	return error == ENOSPC || error == EDQUOT || error == EFBIG ? RSHM_E_FULL : RSHM_E_BACKEND;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

/* 0, or errno. All of it or, after the caller has truncated, nothing. */
static int write_all(int fd, const unsigned char *bytes, size_t length, uint64_t offset)
{
	while (length > 0) {
		ssize_t written = pwrite(fd, bytes, length, (off_t)offset);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return written < 0 ? errno : ENOSPC;
		bytes += written;
		offset += (uint64_t)written;
		length -= (size_t)written;
	}
	return 0;
}

static int segment_write(struct journal *journal, struct segment *segment, const unsigned char *bytes, size_t length)
{
	int error = write_all(segment->fd, bytes, length, segment->size);

	if (error == 0) {
		segment->size += length;
		journal->bytes += length;
		return RSHM_OK;
	}
	journal_complain(journal, segment, "write", error);
	if (ftruncate(segment->fd, (off_t)segment->size) != 0)
		segment->spoilt = true;
	return status_of(error);
}

static void segment_free(struct segment *segment)
{
	(void)close(segment->fd);
	free(segment);
}

static int segment_create(struct journal *journal)
{
	struct segment *segment = calloc(1, sizeof *segment);
	unsigned char head[FORMAT_FILE_HEAD];
	char name[FOLDER_NAME_MAX];
	int status;

	if (segment == NULL)
		return RSHM_E_NOMEM;
	segment->worker = journal->worker;
	segment->sequence = folder_sequence(journal->folder);
	segment_name(segment, name);
	segment->fd =
		openat(folder_fd(journal->folder), name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (segment->fd < 0) {
		status = status_of(errno);
		journal_complain(journal, segment, "create", errno);
		free(segment);
		return status;
	}
	format_put_file_head(head);
	status = segment_write(journal, segment, head, sizeof head);
	if (status != RSHM_OK) {
		(void)unlinkat(folder_fd(journal->folder), name, 0);
		segment_free(segment);
		return status;
	}
	*(journal->last != NULL ? &journal->last->next : &journal->first) = segment;
	journal->last = segment;
	return RSHM_OK;
}

/* ---- removing ------------------------------------------------------------------------------------------------- */

/*
 * The segment goes, and with it what would have been marked. With `always` that the file is gone must be on the disk
 * before anything goes on that a mark had to precede: what comes next in the list has its folder synced again.
 */
static void forget_marks(struct journal *journal, const struct segment *segment)
{
	struct behind_record **link = &journal->marks, *record;
	size_t forgotten = 0;

	while ((record = *link) != NULL) {
		if (record->segment == segment) {
			*link = record->next;
			format_record_unref(record);
			forgotten++;
		} else {
			link = &record->next;
		}
	}
	journal->marks_end = link;
	if (forgotten > 0 && journal->last != NULL) {
		journal->marks_dirty = true;
		journal->last->folder_synced = false;
	}
}

static void segment_remove_first(struct journal *journal)
{
	struct segment *segment = journal->first;
	char name[FOLDER_NAME_MAX];

	segment_name(segment, name);
	if (segment->aside)
		journal->files_aside += folder_set_aside(journal->folder, name);
	else if (unlinkat(folder_fd(journal->folder), name, 0) != 0)
		journal_complain(journal, segment, "remove", errno);
	forget_marks(journal, segment);
	journal->bytes -= segment->size;
	journal->first = segment->next;
	if (journal->first == NULL)
		journal->last = NULL;
	segment_free(segment);
}

static bool segment_is_dead(const struct journal *journal, const struct segment *segment)
{
	return segment != journal->last && segment->live == 0;
}

static void journal_remove_dead(struct journal *journal)
{
	if (journal->syncing || journal->first == NULL || !segment_is_dead(journal, journal->first) ||
	    folder_old_files(journal->folder))
		return;
	while (segment_is_dead(journal, journal->first) &&
	       (journal->sync == BEHIND_SYNC_NONE || journal->first->covered))
		segment_remove_first(journal);
}

void journal_make_room(struct journal *journal)
{
	struct segment *segment = journal->last;

	if (segment == NULL || segment != journal->first || segment->live > 0 || segment->aside || journal->syncing ||
	    folder_old_files(journal->folder) || ftruncate(segment->fd, FORMAT_FILE_HEAD) != 0)
		return;
	journal->bytes -= segment->size - FORMAT_FILE_HEAD;
	segment->size = FORMAT_FILE_HEAD;
	segment->synced = 0;
	forget_marks(journal, segment);
}

void journal_discard(struct journal *journal)
{
	must(!journal->syncing);
	while (journal->first != NULL)
		segment_remove_first(journal);
}

void journal_fini(struct journal *journal)
{
	bool removable = !folder_old_files(journal->folder);

	must(!journal->syncing);
	(void)journal_write_marks(journal);
	while (journal->first != NULL && journal->first->live == 0 && removable)
		segment_remove_first(journal);
	while (journal->first != NULL) {
		struct segment *next = journal->first->next;

		forget_marks(journal, journal->first);
		segment_free(journal->first);
		journal->first = next;
	}
	journal->last = NULL;
	free(journal->scratch);
	folder_release(&journal->folder);
}

/* ---- records and marks ---------------------------------------------------------------------------------------- */

/* A segment that takes `length` more bytes. */
static int journal_prepare(struct journal *journal, size_t length)
{
	const struct segment *last = journal->last;

	if (last != NULL && !last->spoilt &&
	    (last->size == FORMAT_FILE_HEAD || last->size + length <= journal->segment_bytes))
		return RSHM_OK;
	return segment_create(journal);
}

int journal_append(struct journal *journal, struct behind_record *record)
{
	int status = journal_prepare(journal, record->length);

	if (status == RSHM_OK)
		status = segment_write(journal, journal->last, record->bytes, record->length);
	if (status != RSHM_OK)
		return status;
	record->segment = journal->last;
	record->segment->live++;
	return RSHM_OK;
}

void journal_settle(struct journal *journal, struct behind_record *record)
{
	must(record->segment->live > 0);
	record->segment->live--;
	record->next = NULL;
	*journal->marks_end = record;
	journal->marks_end = &record->next;
	journal_remove_dead(journal);
}

void journal_supersede(struct journal *journal, struct behind_record *record)
{
	must(record->segment->live > 0);
	record->segment->live--;
	journal_remove_dead(journal);
}

bool journal_has_marks(const struct journal *journal)
{
	return journal->marks != NULL;
}

/* As many marks as the scratch buffer holds. */
static bool write_some_marks(struct journal *journal)
{
	struct behind_record *record = journal->marks;
	size_t length = 0;

	while (record != NULL && JOURNAL_SCRATCH - length >= FORMAT_MARK_MAX) {
		length += format_put_mark(journal->scratch + length, record);
		record = record->next;
	}
	if (journal_prepare(journal, length) != RSHM_OK ||
	    segment_write(journal, journal->last, journal->scratch, length) != RSHM_OK)
		return false;
	while (journal->marks != record) {
		struct behind_record *written = journal->marks;

		journal->marks = written->next;
		format_record_unref(written);
	}
	if (record == NULL)
		journal->marks_end = &journal->marks;
	journal->marks_dirty = true;
	return true;
}

bool journal_write_marks(struct journal *journal)
{
	while (journal->marks != NULL)
		if (!write_some_marks(journal))
			return false;
	return true;
}

bool journal_awaits_mark(const struct journal *journal, const struct store_name *name)
{
	const struct behind_record *record = journal->marks;

	while (record != NULL && !format_same_name(&record->name, name))
		record = record->next;
	return record != NULL;
}

bool journal_marks_safe(const struct journal *journal)
{
	return journal->marks == NULL &&
	       (journal->sync != BEHIND_SYNC_ALWAYS || (!journal->marks_dirty && !journal->marks_covered));
}

/* ---- syncing -------------------------------------------------------------------------------------------------- */

bool journal_has_dead(const struct journal *journal)
{
	return journal->first != NULL && segment_is_dead(journal, journal->first) &&
	       !folder_old_files(journal->folder);
}

bool journal_needs_sync(const struct journal *journal)
{
	const struct segment *segment = journal->first;

	if (journal->sync == BEHIND_SYNC_NONE || segment == NULL)
		return false;
	if (journal_has_dead(journal))
		return true;
	for (; segment != NULL; segment = segment->next)
		if (segment->synced < segment->size || !segment->folder_synced)
			return true;
	return false;
}

void journal_sync(struct journal *journal)
{
	if (journal->syncing)
		return;
	(void)journal_write_marks(journal);
	journal->syncing = true;
	journal->round_ok = true;
	journal->marks_covered = journal->marks_dirty;
	journal->marks_dirty = false;
	for (struct segment *segment = journal->first; segment != NULL; segment = segment->next) {
		segment->target = segment->size;
		segment->covered = segment_is_dead(journal, segment);
	}
	journal->round_at = journal->first;
	journal_round_step(journal);
}

static void journal_round_end(struct journal *journal)
{
	journal->syncing = false;
	journal->marks_covered = false;
	if (!journal->round_ok)
		for (struct segment *segment = journal->first; segment != NULL; segment = segment->next)
			segment->covered = false;
	journal_remove_dead(journal);
	journal->synced(journal->context, journal->round_ok);
}

static void journal_on_synced(uv_fs_t *request)
{
	struct journal *journal = request->data;
	struct segment *segment = journal->round_at;
	bool was_folder = request->fs_type == UV_FS_FSYNC;
	int error = (int)-request->result;

	uv_fs_req_cleanup(request);
	if (request->result < 0) {
		journal_complain(journal, segment, "sync", error);
		journal->sync_failures++;
		journal->round_ok = false;
		/* The kernel may have dropped the pages: what is written here from now on would stand behind a hole. */
		segment->spoilt = true;
	}
	if (was_folder)
		segment->folder_synced = true;
	else
		segment->synced = segment->target;
	journal_round_step(journal);
}

static void journal_round_step(struct journal *journal)
{
	struct segment *segment = journal->round_at;
	int error;

	while (segment != NULL && segment->folder_synced && segment->synced >= segment->target)
		segment = segment->next;
	journal->round_at = segment;
	/* Segments made since the round began have no target. */
	if (segment == NULL || segment->target == 0) {
		journal_round_end(journal);
		return;
	}
	journal->request.data = journal;
	if (!segment->folder_synced)
		error = uv_fs_fsync(journal->loop, &journal->request, folder_fd(journal->folder), journal_on_synced);
	else
		error = uv_fs_fdatasync(journal->loop, &journal->request, segment->fd, journal_on_synced);
	must(error == 0);
}

int journal_sync_now(struct journal *journal)
{
	must(!journal->syncing);
	for (struct segment *segment = journal->first; segment != NULL; segment = segment->next) {
		if (fdatasync(segment->fd) != 0) {
			journal_complain(journal, segment, "sync", errno);
			return RSHM_E_BACKEND;
		}
		segment->synced = segment->size;
	}
	if (fsync(folder_fd(journal->folder)) != 0)
		return RSHM_E_BACKEND;
	for (struct segment *segment = journal->first; segment != NULL; segment = segment->next)
		segment->folder_synced = true;
	return RSHM_OK;
}
