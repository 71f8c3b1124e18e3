/*
 * Journals of before the start. Each worker reads all of them and keeps what its tenants have:
 *
 *	read all ─> newest record per key, newest mark per key ─> records newer than their mark ─> own journal ─> sync ─> done
 *
 * The result does not depend on the order of files or of records, nor on how often a record stands in them. So a
 * process killed in the middle of this leaves nothing that the next start would not sort out, whatever its number of
 * workers; and a file may go as soon as every worker has said "done" (folder.h).
 *
 * A record that is too old to be stored still hides older ones of its key, and its file is set aside.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/behind/behind_priv.h"
#include "shm/msg.h"

/* Takes the reference. False without memory. */
static bool replay_take(struct behind_store *store, struct behind_record *record, size_t source)
{
	struct behind_entry *entry = behind_table_find(&store->table, &record->name);

	if (entry == NULL && (entry = behind_table_insert(&store->table, &record->name)) == NULL) {
		format_record_unref(record);
		return false;
	}
	entry->store = store;
	if (record->kind == FORMAT_SETTLED) {
		if (!entry->settled ||
		    format_newer(record->version, record->writer, entry->settled_version, entry->settled_writer)) {
			entry->settled = true;
			entry->settled_version = record->version;
			entry->settled_writer = record->writer;
		}
	} else if (entry->record == NULL ||
		   format_newer(record->version, record->writer, entry->record->version, entry->record->writer)) {
		struct behind_record *older = entry->record;

		entry->record = record;
		entry->source = source;
		record = older;
	}
	format_record_unref(record);
	return true;
}

static bool replay_owns(const struct behind_store *store, struct behind_record *record)
{
	struct store_name name = record->name;

	if (!store->config.owns(store->config.owns_context, &name))
		return false;
	record->name.tenant_number = name.tenant_number;
	record->name.shards = name.shards;
	return true;
}

static int replay_records(struct behind_store *store, struct format_reader *reader, size_t source,
			  struct folder_report *report)
{
	struct behind_record *record;
	enum format_end end;

	while ((end = format_read(reader, &record)) == FORMAT_MORE) {
		report->records++;
		if (!replay_owns(store, record)) {
			format_record_unref(record);
			continue;
		}
		report->owned++;
		if (record->version > store->counts.newest_version)
			store->counts.newest_version = record->version;
		if (!replay_take(store, record, source))
			return RSHM_E_NOMEM;
	}
	report->damage_offset = reader->offset;
	report->torn = end == FORMAT_TORN;
	if (end == FORMAT_DAMAGED)
		report->damage = "checksum or lengths are wrong";
	else if (end == FORMAT_FAILED && errno == ENOMEM)
		return RSHM_E_NOMEM;
	else if (end == FORMAT_FAILED)
		report->damage = "it cannot be read";
	return RSHM_OK;
}

static int replay_open(struct behind_store *store, FILE *file, uint64_t size, size_t source,
		       struct folder_report *report)
{
	struct format_reader reader;

	switch (format_reader_init(&reader, file, size)) {
	case FORMAT_MORE:
		return replay_records(store, &reader, source, report);
	case FORMAT_TORN:
		report->torn = true;
		return RSHM_OK;
	case FORMAT_FOREIGN:
		report->damage = "not a journal of this program, or of a newer one";
		return RSHM_OK;
	case FORMAT_FAILED:
	case FORMAT_DAMAGED:
		report->damage = "it cannot be read";
		return RSHM_OK;
	case FORMAT_END:
		break;
	}
	return RSHM_OK;
}

static int replay_file(struct behind_store *store, const struct folder_file *old, size_t source,
		       struct folder_report *report)
{
	char name[FOLDER_NAME_MAX];
	struct stat info;
	int fd, status;
	FILE *file;

	folder_file_name(name, old->worker, old->sequence);
	fd = openat(folder_fd(store->journal.folder), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid()) {
		if (fd >= 0)
			(void)close(fd);
		report->damage = "it cannot be opened, or is not our file";
		return RSHM_OK;
	}
	file = fdopen(fd, "r");
	if (file == NULL) {
		(void)close(fd);
		return RSHM_E_NOMEM;
	}
	status = replay_open(store, file, (uint64_t)info.st_size, source, report);
	(void)fclose(file);
	return status;
}

static bool too_old(const struct behind_store *store, const struct behind_record *record, uint64_t now_ms)
{
	return now_ms > record->accepted_ms && now_ms - record->accepted_ms > store->config.max_replay_age_ms;
}

/* False: nothing of this entry is to be stored. */
static bool replay_keeps(struct behind_store *store, const struct behind_entry *entry, uint64_t now_ms,
			 struct folder_report *reports)
{
	const struct behind_record *record = entry->record;

	if (record == NULL || (entry->settled && !format_newer(record->version, record->writer,
							       entry->settled_version, entry->settled_writer)))
		return false;
	if (!too_old(store, record, now_ms))
		return true;
	store->counts.too_old++;
	reports[entry->source].too_old = true;
	return false;
}

static int compare_entries(const void *a, const void *b)
{
	const struct behind_record *left = (*(struct behind_entry *const *)a)->record;
	const struct behind_record *right = (*(struct behind_entry *const *)b)->record;

	if (left->accepted_ms != right->accepted_ms)
		return left->accepted_ms < right->accepted_ms ? -1 : 1;
	return left->version < right->version ? -1 : left->version > right->version;
}

/* What is left to store, oldest first; the rest leaves the table. NULL without memory. */
static struct behind_entry **replay_sort(struct behind_store *store, struct folder_report *reports, size_t *ret_count)
{
	uint64_t now_ms = clock_realtime_ms();
	struct behind_entry **entries = calloc(store->table.count + 1, sizeof *entries), *entry, *next;
	size_t count = 0;

	if (entries == NULL)
		return NULL;
	for (entry = behind_table_next(&store->table, NULL); entry != NULL; entry = next) {
		next = behind_table_next(&store->table, entry);
		if (replay_keeps(store, entry, now_ms, reports)) {
			entries[count++] = entry;
		} else {
			format_record_unref(entry->record);
			behind_table_remove(&store->table, entry);
		}
	}
	qsort(entries, count, sizeof(struct behind_entry *), compare_entries);
	*ret_count = count;
	return entries;
}

static int replay_journal(struct behind_store *store, struct behind_entry **entries, size_t count)
{
	int status;

	for (size_t i = 0; i < count; i++) {
		struct behind_record *record = entries[i]->record;

		status = journal_append(&store->journal, record);
		if (status != RSHM_OK)
			return status;
		behind_flush_enqueue(store, entries[i], record);
		store->counts.replayed++;
	}
	return count > 0 && store->config.sync != BEHIND_SYNC_NONE ? journal_sync_now(&store->journal) : RSHM_OK;
}

static int replay_all(struct behind_store *store, const struct folder_file *old, size_t old_count,
		      struct folder_report *reports)
{
	struct behind_entry **entries;
	int status = RSHM_OK;
	size_t count;

	for (size_t i = 0; status == RSHM_OK && i < old_count; i++)
		status = replay_file(store, &old[i], i, &reports[i]);
	if (status != RSHM_OK)
		return status;
	entries = replay_sort(store, reports, &count);
	if (entries == NULL)
		return RSHM_E_NOMEM;
	status = replay_journal(store, entries, count);
	free(entries);
	return status;
}

int behind_replay(struct behind_store *store, char *error, size_t error_len)
{
	const char *path = folder_path(store->journal.folder);
	size_t old_count;
	const struct folder_file *old = folder_old(store->journal.folder, &old_count);
	struct folder_report *reports = calloc(old_count + 1, sizeof *reports);
	int status = reports == NULL ? RSHM_E_NOMEM : replay_all(store, old, old_count, reports);

	if (status != RSHM_OK) {
		journal_discard(&store->journal);
		(void)snprintf(error, error_len, "write-behind: cannot take over the journals in %s: %s", path,
			       status == RSHM_E_NOMEM  ? "no memory"
			       : status == RSHM_E_FULL ? "the disk is full; give it room, nothing is lost"
						       : "the disk fails; nothing was removed");
		free(reports);
		return status == RSHM_E_BACKEND ? RSHM_E_SYSTEM : status;
	}
	for (size_t i = 0; i < old_count; i++) {
		struct folder_outcome outcome = folder_done(store->journal.folder, i, &reports[i]);

		store->counts.torn_tails += outcome.last && outcome.torn;
		store->counts.files_aside += outcome.last && outcome.aside;
	}
	if (store->counts.replayed > 0)
		log_info(FOLDER_MODULE, "%" PRIu64 " accepted writes taken over from journals in %s",
			 store->counts.replayed, path);
	free(reports);
	return RSHM_OK;
}
