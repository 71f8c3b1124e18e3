/*
 * journal.h - the journal files of one worker: appending, marking as settled, syncing, removing.
 *
 * Worker's thread only. Appending writes to the page cache and blocks as long as write() does; syncing happens on
 * libuv's threads. Files are removed from the oldest on, when nothing in them is waiting any more: so a mark lives at
 * least as long as what it marks.
 */
#ifndef BEHIND_JOURNAL_H
#define BEHIND_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "agent/store/behind/behind.h"
#include "agent/store/behind/folder.h"
#include "agent/store/behind/format.h"

struct segment {
	struct segment *next; /* younger */
	int fd;
	uint32_t worker;
	uint64_t sequence;
	uint64_t size, synced, target; /* bytes; target: of the sync round under way */
	uint64_t live;                 /* records that wait to be stored */
	bool spoilt;                   /* nothing may be appended: its end is not sound */
	bool aside;                    /* set aside instead of removed */
	bool folder_synced;            /* its name is on the disk */
	bool covered;                  /* all that came after it, when it died, is in the round under way */
};

/* A sync round has ended; `ok`: everything appended before it began is on the disk. */
typedef void journal_synced_fn(void *context, bool ok);

struct journal {
	/* set once */
	uv_loop_t *loop;
	struct folder *folder;
	uint32_t worker;
	enum behind_sync sync;
	uint64_t segment_bytes;
	journal_synced_fn *synced;
	void *context;
	/* files, oldest first; the last one grows */
	struct segment *first, *last;
	uint64_t bytes; /* of all */
	uint64_t files_aside, sync_failures;
	/* settled records whose mark is not written yet */
	struct behind_record *marks, **marks_end;
	unsigned char *scratch;
	bool marks_dirty;   /* written, and not in the round under way */
	bool marks_covered; /* written, in the round under way */
	/* the round under way */
	bool syncing, round_ok;
	struct segment *round_at;
	uv_fs_t request;
};

/* No file is made yet. `folder` is the journal's from then on if it succeeds. RSHM_E_NOMEM. */
int journal_init(struct journal *journal, const struct behind_config *config, uv_loop_t *loop, struct folder *folder,
		 journal_synced_fn *synced, void *context);
/* No round may be under way. What is not live is removed, the rest stays for the next start. */
void journal_fini(struct journal *journal);

/* Removes all files of a start that failed; what they held stands in older ones still. */
void journal_discard(struct journal *journal);

/*
 * Appends the record, which then counts as live in its segment. RSHM_E_FULL (disk, quota), RSHM_E_BACKEND (it
 * failed): nothing stands in the file.
 */
int journal_append(struct journal *journal, struct behind_record *record);

/* The record is stored, or given up: to be marked. The journal's reference from then on. */
void journal_settle(struct journal *journal, struct behind_record *record);
/* Something newer of its key is in the journal: no mark is needed. The caller's reference stays. */
void journal_supersede(struct journal *journal, struct behind_record *record);

bool journal_has_marks(const struct journal *journal);
/* Writes the marks. False: the disk does not take them; they are kept. */
bool journal_write_marks(struct journal *journal);
/* Whether a mark of this key is among those that are not written. Slow: for when the disk is full. */
bool journal_awaits_mark(const struct journal *journal, const struct store_name *name);
/* True if no mark would be lost in a power loss, as far as the policy promises. */
bool journal_marks_safe(const struct journal *journal);

/* Makes a full journal smaller if nothing in it is live. */
void journal_make_room(struct journal *journal);

/* The oldest file could go, and waits for a round. */
bool journal_has_dead(const struct journal *journal);
/* Something is not on the disk yet, or waits for a round to be removed. */
bool journal_needs_sync(const struct journal *journal);
/* Begins a round, unless one is under way. */
void journal_sync(struct journal *journal);
/* All files and the folder, blocking. RSHM_E_BACKEND. For start-up. */
int journal_sync_now(struct journal *journal);

#endif
