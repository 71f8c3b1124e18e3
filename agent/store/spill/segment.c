/*
 * Segment files: records one after the other, appended, never changed, gone with their file.
 *
 *	magic u32 | key length u16 | space u8 | 0 u8 | envelope length u32 | tenant u32 | generation u64 | checksum u64
 *	whole key, envelope
 *
 * The checksum is XXH3-64 of the envelope, seeded with that of the key, seeded with that of the head before it. The index
 * holds the same number: a record is believed only if it is whole and the very one that the index meant. A number of a
 * segment is never used twice, and a run never appends to a file of an earlier one.
 *
 * A record larger than a segment has a segment of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/store/spill/segment.h"
#include "agent/store/spill/disk.h"

#define RECORD_MAGIC 0x53505233u
#define RECORD_COVERED 24u
#define SEGMENT_CREATE_TRIES 16
#define SEGMENT_TOUCH_UNIT 64u

struct record_head {
	uint32_t magic;
	uint16_t key_len;
	char space;
	uint8_t zero;
	uint32_t envelope_len, tenant;
	uint64_t generation, checksum;
};
_Static_assert(sizeof(struct record_head) == SPILL_RECORD_HEAD, "stored as it is: no holes");

/* ---- records ------------------------------------------------------------------------------------------------ */

static struct record_head head_make(const struct spill_record *record)
{
	return (struct record_head){
		.magic = RECORD_MAGIC,
		.key_len = (uint16_t)record->key_len,
		.space = record->space,
		.envelope_len = (uint32_t)record->envelope_len,
		.tenant = record->tenant,
		.generation = record->generation,
	};
}

uint64_t spill_record_checksum(const struct spill_record *record)
{
	struct record_head head = head_make(record);
	uint64_t sum = XXH3_64bits(&head, RECORD_COVERED);

	sum = XXH3_64bits_withSeed(record->key, record->key_len, sum);
	return XXH3_64bits_withSeed(record->envelope, record->envelope_len, sum);
}

bool spill_record_open(const void *bytes, size_t length, uint64_t checksum, struct spill_record *ret)
{
	struct record_head head;
	struct spill_record record;

	if (length < sizeof head)
		return false;
	memcpy(&head, bytes, sizeof head);
	if (head.magic != RECORD_MAGIC || head.zero != 0 || head.checksum != checksum ||
	    length != sizeof head + (uint64_t)head.key_len + head.envelope_len)
		return false;
	record = (struct spill_record){
		.tenant = head.tenant,
		.generation = head.generation,
		.space = head.space,
		.key = (const unsigned char *)bytes + sizeof head,
		.key_len = head.key_len,
		.envelope = (const unsigned char *)bytes + sizeof head + head.key_len,
		.envelope_len = head.envelope_len,
	};
	if (spill_record_checksum(&record) != checksum)
		return false;
	*ret = record;
	return true;
}

/* ---- the table ---------------------------------------------------------------------------------------------- */

static uint32_t segment_place(const struct spill_disk *disk, uint64_t number)
{
	uint32_t low = 0, high = disk->segment_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (disk->segments[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct spill_segment *spill_segment_of(struct spill_disk *disk, uint64_t number)
{
	uint32_t place = segment_place(disk, number);

	return place < disk->segment_count && disk->segments[place].number == number ? &disk->segments[place] : NULL;
}

struct spill_segment *spill_segment_add(struct spill_disk *disk, uint64_t number, uint64_t size)
{
	struct spill_segment *segments = disk->segments;

	must(disk->segment_count == 0 || segments[disk->segment_count - 1].number < number);
	if (disk->segment_count == disk->segment_capacity) {
		uint32_t capacity = disk->segment_capacity == 0 ? 64 : disk->segment_capacity * 2;

		segments = realloc(segments, capacity * sizeof *segments);
		if (segments == NULL)
			return NULL;
		disk->segments = segments;
		disk->segment_capacity = capacity;
	}
	disk->segment_total += size;
	segments[disk->segment_count] = (struct spill_segment){.number = number, .size = size};
	return &segments[disk->segment_count++];
}

void spill_segment_count(struct spill_disk *disk, const struct spill_entry *entry, bool came)
{
	struct spill_segment *segment = spill_segment_of(disk, entry->segment);
	uint64_t expiry_ms = entry->expiry_ms == 0 ? UINT64_MAX : entry->expiry_ms;

	if (segment == NULL)
		return;
	segment->changed = true;
	if (came) {
		segment->live++;
		segment->live_bytes += entry->length;
		if (segment->expiry_max_ms < expiry_ms)
			segment->expiry_max_ms = expiry_ms;
		disk->entries++;
		return;
	}
	/* After damage the row may tell too little. */
	disk->entries -= segment->live > 0;
	segment->live -= segment->live > 0;
	segment->live_bytes -= entry->length < segment->live_bytes ? entry->length : segment->live_bytes;
}

static uint32_t touch_bit(uint32_t offset)
{
	return offset / SEGMENT_TOUCH_UNIT % SPILL_TOUCHED_BITS;
}

void spill_segment_touch(struct spill_segment *segment, uint32_t offset)
{
	uint32_t bit = touch_bit(offset);

	if (segment->touched == NULL)
		segment->touched = calloc(1, SPILL_TOUCHED_BITS / 8);
	/* Without memory for it the entry is one that was not read. */
	if (segment->touched != NULL)
		segment->touched[bit / 8] |= (unsigned char)(1u << bit % 8);
}

bool spill_segment_touched(const struct spill_segment *segment, uint32_t offset)
{
	uint32_t bit = touch_bit(offset);

	return segment->touched != NULL && (segment->touched[bit / 8] & 1u << bit % 8) != 0;
}

/* ---- files -------------------------------------------------------------------------------------------------- */

static void file_close(struct spill_disk *disk, uint32_t slot)
{
	if (disk->file_numbers[slot] != 0)
		(void)close(disk->files[slot]);
	disk->file_numbers[slot] = 0;
}

void spill_segment_close_all(struct spill_disk *disk)
{
	for (uint32_t slot = 0; slot < SPILL_OPEN_FILES; slot++)
		file_close(disk, slot);
}

/* A descriptor of the segment's file, which stays the disk's. */
static int file_open(struct spill_disk *disk, uint64_t number, int create, int *ret)
{
	uint32_t slot = (uint32_t)(number % SPILL_OPEN_FILES);
	char name[SPILL_NAME_MAX];
	struct stat info;
	int fd;

	if (disk->file_numbers[slot] == number && create == 0) {
		*ret = disk->files[slot];
		return 0;
	}
	spill_folder_segment_name(name, number);
	fd = openat(disk->folder, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | create, 0600);
	if (fd < 0)
		return errno == ENOENT || errno == ELOOP || errno == EISDIR || errno == ENXIO ? -1 : errno;
	if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
		(void)close(fd);
		return -1;
	}
	file_close(disk, slot);
	disk->files[slot] = fd;
	disk->file_numbers[slot] = number;
	*ret = fd;
	return 0;
}

static int read_all(int fd, unsigned char *destination, size_t length, uint64_t offset)
{
	while (length > 0) {
		ssize_t got = pread(fd, destination, length, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got == 0 ? -1 : errno;
		destination += got;
		offset += (uint64_t)got;
		length -= (size_t)got;
	}
	return 0;
}

static int write_all(int fd, struct iovec *parts, int count, uint64_t offset)
{
	while (count > 0) {
		ssize_t put = pwritev(fd, parts, count, (off_t)offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return errno;
		offset += (uint64_t)put;
		while (count > 0 && (size_t)put >= parts->iov_len) {
			put -= (ssize_t)parts->iov_len;
			parts++;
			count--;
		}
		if (count > 0) {
			if (put == 0 && parts->iov_len == 0)
				return EIO;
			parts->iov_base = (unsigned char *)parts->iov_base + put;
			parts->iov_len -= (size_t)put;
		}
	}
	return 0;
}

/* ---- appending and reading ---------------------------------------------------------------------------------- */

static int segment_begin(struct spill_disk *disk, struct spill_segment **ret)
{
	int fd, error = EEXIST;

	for (int i = 0; error == EEXIST && i < SEGMENT_CREATE_TRIES; i++)
		error = file_open(disk, disk->segment_next++, O_CREAT | O_EXCL, &fd);
	if (error != 0)
		return error == -1 ? EIO : error;
	*ret = spill_segment_add(disk, disk->segment_next - 1, 0);
	if (*ret == NULL) {
		char name[SPILL_NAME_MAX];

		spill_folder_segment_name(name, disk->segment_next - 1);
		(void)unlinkat(disk->folder, name, 0);
		return ENOMEM;
	}
	(*ret)->changed = true;
	return 0;
}

/* The segment that takes `length` more bytes. */
static int segment_with_room(struct spill_disk *disk, uint64_t length, struct spill_segment **ret)
{
	struct spill_segment *last = disk->segment_count > 0 ? &disk->segments[disk->segment_count - 1] : NULL;

	if (last != NULL && !last->sealed && last->size > 0 && last->size + length > disk->segment_bytes) {
		last->sealed = true;
		last->changed = true; /* so that an empty one is noticed */
	}
	if (last == NULL || last->sealed)
		return segment_begin(disk, ret);
	*ret = last;
	return 0;
}

int spill_segment_append(struct spill_disk *disk, const struct spill_record *record, struct spill_entry *entry)
{
	struct record_head head = head_make(record);
	struct iovec parts[3] = {{&head, sizeof head}};
	uint64_t length = spill_record_length(record);
	struct spill_segment *segment;
	int fd, error = segment_with_room(disk, length, &segment);

	if (error == 0)
		error = file_open(disk, segment->number, 0, &fd);
	if (error != 0)
		return error == -1 ? EIO : error;
	head.checksum = spill_record_checksum(record);
	memcpy(&parts[1].iov_base, &record->key, sizeof record->key);
	parts[1].iov_len = record->key_len;
	memcpy(&parts[2].iov_base, &record->envelope, sizeof record->envelope);
	parts[2].iov_len = record->envelope_len;
	error = write_all(fd, parts, record->envelope_len > 0 ? 3 : 2, segment->size);
	if (error != 0) {
		/* What was written is given back; if that fails too, it lies beyond the size that counts. */
		(void)!ftruncate(fd, (off_t)segment->size);
		segment->sealed = segment->changed = true;
		return error;
	}
	entry->segment = segment->number;
	entry->offset = (uint32_t)segment->size;
	entry->length = (uint32_t)length;
	entry->checksum = head.checksum;
	segment->size += length;
	segment->unsynced = true;
	disk->segment_total += length;
	return 0;
}

int spill_segment_read(struct spill_disk *disk, const struct spill_entry *entry, void *destination)
{
	int fd, error = file_open(disk, entry->segment, 0, &fd);

	return error != 0 ? error : read_all(fd, destination, entry->length, entry->offset);
}

int spill_segment_sync_all(struct spill_disk *disk)
{
	for (uint32_t i = 0; i < disk->segment_count; i++) {
		int fd, error;

		if (!disk->segments[i].unsynced)
			continue;
		error = file_open(disk, disk->segments[i].number, 0, &fd);
		if (error == 0 && fdatasync(fd) != 0)
			error = errno;
		if (error != 0)
			return error;
		disk->segments[i].unsynced = false;
	}
	return 0;
}

void spill_segment_unlink(struct spill_disk *disk, uint64_t number)
{
	uint32_t place = segment_place(disk, number), slot = (uint32_t)(number % SPILL_OPEN_FILES);
	struct spill_segment *segment = &disk->segments[place];
	char name[SPILL_NAME_MAX];

	must(place < disk->segment_count && segment->number == number);
	if (disk->file_numbers[slot] == number)
		file_close(disk, slot);
	spill_folder_segment_name(name, number);
	if (unlinkat(disk->folder, name, 0) != 0 && errno != ENOENT)
		spill_disk_failed(disk, "remove a segment", errno);
	disk->segment_total -= segment->size;
	free(segment->touched);
	memmove(segment, segment + 1, (disk->segment_count - place - 1) * sizeof *segment);
	disk->segment_count--;
}
