/*
 * format.h - what stands in a journal file. Little-endian.
 *
 *	file:    magic u64 | format u32 | reserved u32                                      16 bytes, then records
 *	record:  kind u32 | body length u32 | checksum of the body u64 | checksum of these 16 bytes u64
 *	body:     0 version u64 | accepted u64 (ms, wall clock) | expiry u64 (ms, 0 = never) | generation u64
 *	         32 tenant number u32 | shards u32 | writer id u32 | envelope length u32
 *	         48 key length u16 | tenant length u8 | space u8 | reserved u32
 *	         56 tenant, key, envelope
 *
 * A record is kept in memory exactly as it stands in the file. A SETTLED record has no envelope and says: whatever
 * stands in any journal for this key with this (version, writer id) or less is done with.
 *
 * Both checksums are XXH3-64. The head has one of its own so that a record cut off by the end of the file (killed in
 * the middle of a write) is told from a length that is damaged.
 */
#ifndef BEHIND_FORMAT_H
#define BEHIND_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/store/store.h"

#define FORMAT_FILE_HEAD 16u
#define FORMAT_RECORD_HEAD 24u
#define FORMAT_BODY_HEAD 56u
#define FORMAT_ENVELOPE_MAX ((64u << 20) + (256u << 10)) /* bytes */
#define FORMAT_MARK_MAX (FORMAT_RECORD_HEAD + FORMAT_BODY_HEAD + 64u + 65535u)

/* Stored numbers: never reused. */
enum format_kind {
	FORMAT_RECORD = 1,
	FORMAT_SETTLED = 2,
};

struct segment;

/* One write, in memory as on disk. Counted references: reads may hold one beyond the life of its place in the table. */
struct behind_record {
	struct behind_record *next; /* the list of marks to write */
	struct segment *segment;    /* where it stands; NULL while replay reads it */
	uint64_t order;             /* of acceptance in this process; taken over by what replaces it */
	uint64_t since_ms;          /* monotonic; taken over likewise */
	uint32_t refs;
	bool tombstone;
	/* decoded */
	enum format_kind kind;
	struct store_name name; /* lent from `bytes`; the tenant is terminated in `tenant` */
	uint64_t version, accepted_ms, expiry_ms;
	uint32_t writer;
	unsigned char *envelope;
	size_t envelope_len;
	char tenant[65];
	size_t length; /* of bytes */
	unsigned char bytes[];
};

/* Copies everything. NULL without memory. `envelope` passed format_check_envelope(). */
struct behind_record *format_record_make(const struct store_request *request, uint64_t accepted_ms);
void format_record_ref(struct behind_record *record);
/* NULL is fine. */
void format_record_unref(struct behind_record *record);

/* RSHM_OK, RSHM_E_INVALID (no envelope, or not a tombstone where one must be), RSHM_E_TOOBIG. */
int format_check_envelope(const struct store_request *request);

/* Whether both are one entry. */
bool format_same_name(const struct store_name *a, const struct store_name *b);

/* Writes the SETTLED record that belongs to `record`; FORMAT_MARK_MAX is always enough. Returns its length. */
size_t format_put_mark(unsigned char *bytes, const struct behind_record *record);

void format_put_file_head(unsigned char bytes[FORMAT_FILE_HEAD]);

/* True if (version, writer) of a is greater than that of b. */
static inline bool format_newer(uint64_t version_a, uint32_t writer_a, uint64_t version_b, uint32_t writer_b)
{
	return version_a > version_b || (version_a == version_b && writer_a > writer_b);
}

enum format_end {
	FORMAT_MORE,
	FORMAT_END,     /* after the last record */
	FORMAT_TORN,    /* in the middle of the last record */
	FORMAT_DAMAGED, /* something that is no record; what follows cannot be trusted */
	FORMAT_FOREIGN, /* not a journal, or of a newer program */
	FORMAT_FAILED,  /* read error or no memory: errno */
};

/*
 * Reading a file from its beginning, blocking. `file` is borrowed, at the position where the reader left it.
 */
struct format_reader {
	FILE *file;
	uint64_t size, offset; /* offset: of the next record */
};
/* FORMAT_MORE, or why there is nothing to read. */
enum format_end format_reader_init(struct format_reader *reader, FILE *file, uint64_t size);
/* FORMAT_MORE with a checked record, the caller's reference; anything else is final. */
enum format_end format_read(struct format_reader *reader, struct behind_record **ret);

#endif
