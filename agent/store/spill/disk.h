/*
 * disk.h - the disk's side of a tier. The tier's thread only, but where said; spill_open() before that thread is there.
 */
#ifndef RIPTIDE_STORE_SPILL_DISK_H
#define RIPTIDE_STORE_SPILL_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/text.h"
#include "agent/store/spill/index.h"
#include "agent/store/spill/segment.h"
#include "agent/store/spill/spill.h"

struct spill_get_op;
struct spill_op;

#define SPILL_MODULE "store.spill"
#define SPILL_OPEN_FILES 32u
#define SPILL_NAME_MAX 32u

/* Any thread reads them, the tier's thread adds: relaxed. */
struct spill_counts {
	uint64_t spilled, spill_ns, unchanged, copied, evicted, expired, refused, corrupt, removed, disk_errors,
		discards;
	uint64_t bytes_used, entries, failing_until_ms;
};

struct spill_disk {
	/* set once */
	char *path;
	int folder;
	bool keep;
	unsigned char identity[SPILL_IDENTITY_BYTES];
	uint64_t segment_bytes_max;
	/* thread only */
	struct spill_index index;
	bool owned;  /* the folder is ours to change */
	bool usable; /* the index is open */
	uint32_t run;
	struct spill_segment *segments; /* by number, ascending; the last may be open for appending */
	uint32_t segment_count, segment_capacity;
	uint64_t segment_next, segment_total; /* next number; bytes of all */
	uint64_t entries;                     /* counts.entries has what is committed */
	int files[SPILL_OPEN_FILES];
	uint64_t file_numbers[SPILL_OPEN_FILES];
	uint64_t limit_bytes, segment_bytes;
	uint64_t victim; /* number of the segment that is being evicted, 0 = none */
	uint64_t victim_budget;
	uint64_t compact_due_ms; /* not before, after one that failed */
	bool victim_compact;     /* all of it that lives is copied */
	struct spill_counts counts;
	/* the pointer: set once; what it points to: as the counts */
	uint8_t *filter;
	uint64_t filter_mask;
};

static inline void spill_count(uint64_t *counter, uint64_t by)
{
	__atomic_store_n(counter, *counter + by, __ATOMIC_RELAXED);
}

/* filter.c */
uint64_t spill_filter_hash(const void *key, size_t key_len);
int spill_filter_make(struct spill_disk *disk, uint64_t limit_bytes);
void spill_filter_add(struct spill_disk *disk, const void *key, size_t key_len);
void spill_filter_drop(struct spill_disk *disk, const void *key, size_t key_len);
void spill_filter_clear(struct spill_disk *disk);
/* Loop: no entry on the disk has this hash. */
bool spill_filter_excludes(const struct spill_disk *disk, uint64_t hash);

/* folder.c */
void spill_folder_segment_name(char name[SPILL_NAME_MAX], uint64_t number);
bool spill_folder_is_segment(const char *name, uint64_t *ret_number);
/* Opens or makes the folder and locks it. */
int spill_folder_open(struct spill_disk *disk, struct text *error);
/* Whether what is there may be kept. */
bool spill_folder_may_keep(const struct spill_disk *disk);
int spill_folder_mark(const struct spill_disk *disk, bool clean);
/* Removes all files of ours; errno of the first that could not be. */
int spill_folder_discard(const struct spill_disk *disk);
/* Makes the file that is to take the place of the index; -1 and errno. */
int spill_folder_new_index(const struct spill_disk *disk);
/* Puts it there, or removes it. Returns an errno. */
int spill_folder_swap_index(const struct spill_disk *disk);
void spill_folder_drop_new_index(const struct spill_disk *disk);
/* Calls `visit` for each segment file. */
int spill_folder_visit(struct spill_disk *disk, void (*visit)(struct spill_disk *disk, uint64_t number));
/* Names files that are not ours in the log. */
void spill_folder_tell_foreign(const struct spill_disk *disk);

/* open.c */
int spill_disk_open(struct spill_disk *disk, const struct spill_config *config, struct text *error);
/* Ends it: keeps or discards. Accepts a half-opened one. */
void spill_disk_close(struct spill_disk *disk);

/* disk.c */
void spill_disk_limit(struct spill_disk *disk, uint64_t bytes);
void spill_disk_get(struct spill_disk *disk, struct spill_get_op *get);
/* One transaction; PUT and REMOVE only. `dropped`: puts only remove. */
void spill_disk_apply(struct spill_disk *disk, struct spill_op *first, bool dropped);
/* A slice of a range. True if more is left. */
bool spill_disk_range(struct spill_disk *disk, const struct spill_op *op);
/* Begins a change of the index. On failure everything was discarded. */
bool spill_disk_begin(struct spill_disk *disk, MDB_txn **ret);
/*
 * Ends it: if `error` is 0, saves the rows of segments, commits, and unlinks segments that are empty. Else, and if that
 * fails, everything is discarded. True if it is committed.
 */
bool spill_disk_end(struct spill_disk *disk, MDB_txn *txn, int error);
/* Takes an entry out of index and counts. Returns an LMDB error. */
int spill_disk_release(struct spill_disk *disk, MDB_txn *txn, const void *key, size_t key_len,
		       const struct spill_entry *entry);
/* Everything is thrown away, and an empty tier begun. */
void spill_disk_begin_anew(struct spill_disk *disk);
/* The two halves of it. The second returns an LMDB error. */
void spill_disk_forget_all(struct spill_disk *disk);
int spill_disk_make_empty(struct spill_disk *disk);
/* Tells the loop what is committed. It believes 0 entries, so this is never called in the middle of a change. */
void spill_disk_publish(struct spill_disk *disk);
uint64_t spill_disk_map_bytes(const struct spill_disk *disk);
/* Writes the index without its free pages. */
void spill_disk_compact(struct spill_disk *disk);
/* Counts and logs a failed call. */
void spill_disk_failed(struct spill_disk *disk, const char *what, int error);

static inline bool spill_expired(uint64_t expiry_ms, uint64_t now_ms)
{
	return expiry_ms != 0 && expiry_ms <= now_ms;
}

/* evict.c */
/* Whether `bytes` more would be beyond the limit. */
bool spill_evict_needed(const struct spill_disk *disk, uint64_t bytes);
/* Entries that one transaction may change, so that the index does not outgrow the limit. */
uint32_t spill_evict_slice(const struct spill_disk *disk);
/* A slice of work towards room. False if there is nothing that could go. */
bool spill_evict_step(struct spill_disk *disk);
/* Drops segments in which all is over. Returns ms until it is to be called again. */
uint64_t spill_evict_expired(struct spill_disk *disk);

#endif
