/*
 * segment.h - the files that hold the envelopes, see segment.c. The tier's thread only.
 *
 * Numbers returned: 0 or an errno; -1 = the file is not as the index says.
 */
#ifndef RIPTIDE_STORE_SPILL_SEGMENT_H
#define RIPTIDE_STORE_SPILL_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct spill_disk;
struct spill_entry;

#define SPILL_RECORD_HEAD 32u
#define SPILL_TOUCHED_BITS 32768u

struct spill_segment {
	uint64_t number, size;
	uint64_t live_bytes, live;
	uint64_t expiry_max_ms; /* all is over then; UINT64_MAX = never */
	bool changed;           /* its row is to be saved */
	bool sealed;            /* nothing is appended any more */
	bool unsynced;
	unsigned char *touched; /* SPILL_TOUCHED_BITS by hash of the offset, or NULL: none */
};

struct spill_record {
	uint32_t tenant;
	uint64_t generation;
	char space;
	const void *key;
	size_t key_len;
	const void *envelope;
	size_t envelope_len;
};

static inline uint64_t spill_record_length(const struct spill_record *record)
{
	return (uint64_t)SPILL_RECORD_HEAD + record->key_len + record->envelope_len;
}
uint64_t spill_record_checksum(const struct spill_record *record);
/* Takes a record apart. False if it is damaged, or another one than the index meant. The pointers lead into `bytes`. */
bool spill_record_open(const void *bytes, size_t length, uint64_t checksum, struct spill_record *ret);
struct spill_segment *spill_segment_of(struct spill_disk *disk, uint64_t number);
struct spill_segment *spill_segment_add(struct spill_disk *disk, uint64_t number, uint64_t size);
/* Appends to the segment that is open, or a new one; sets segment, offset, length and checksum of `entry`. */
int spill_segment_append(struct spill_disk *disk, const struct spill_record *record, struct spill_entry *entry);
int spill_segment_read(struct spill_disk *disk, const struct spill_entry *entry, void *destination);
/* Closes and unlinks the file, and forgets the segment. */
void spill_segment_unlink(struct spill_disk *disk, uint64_t number);
void spill_segment_close_all(struct spill_disk *disk);
int spill_segment_sync_all(struct spill_disk *disk);
void spill_segment_touch(struct spill_segment *segment, uint32_t offset);
bool spill_segment_touched(const struct spill_segment *segment, uint32_t offset);
/* An entry came to or left its segment. */
void spill_segment_count(struct spill_disk *disk, const struct spill_entry *entry, bool came);

#endif
