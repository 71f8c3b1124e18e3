/*
 * The head is written and read field by field through fixed little-endian offsets; struct envelope_wire
 * exists only so that the compiler holds these offsets against the exported constants.
 *
 * Compression writes straight into the envelope's own allocation, which has room for the worst case: so the
 * 90 % rule is exact (the libraries give up early when the room is tight), and a value that does not shrink
 * is copied over the attempt.
 *
 * How far a dictionary reaches was measured with JSON lists of like records, zstd 3 with 112 KiB: at 1, 4, 10,
 * 32, 64 KB it leaves 31, 31, 31, 30, 30 % where zstd alone leaves 53, 43, 40, 37, 36 and lz4 73, 63, 60, 55, 52.
 * Up to 10 KB it is as fast as zstd or faster, above it costs up to a half more. So who asked for zstd gets it
 * as long as it gains several points, and `auto`, which minds time, as long as it is not slower than zstd alone.
 *
 * Everything here may come from a server or a disk that lies. A length is used only after it was held
 * against the bytes that are there.
 */
#include "agent/store/envelope.h"

#include <endian.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/store/compress.h"
#include "agent/store/dictionary.h"
#include "shm/msg.h"

#define ENVELOPE_FLAGS_KNOWN (ENVELOPE_FLAG_TOMBSTONE | ENVELOPE_FLAG_SEALED)
#define ENVELOPE_LZ4_RATIO 255u                 /* lz4 cannot do better */
#define ENVELOPE_COVERED ENVELOPE_OFFSET_EXPIRY /* bytes of the head that the checksum covers */

struct envelope_wire {
	uint32_t magic;
	uint8_t format, algorithm;
	uint16_t flags;
	uint64_t version, created_ms;
	uint32_t plain_size, stored_size, writer_id, dictionary_id;
	uint16_t key_len, metadata_len, tag_count, reserved;
	uint64_t expiry_ms, expiry_bucket, checksum;
};
_Static_assert(offsetof(struct envelope_wire, format) == 4, "format");
_Static_assert(offsetof(struct envelope_wire, algorithm) == 5, "algorithm");
_Static_assert(offsetof(struct envelope_wire, flags) == ENVELOPE_OFFSET_FLAGS, "flags");
_Static_assert(offsetof(struct envelope_wire, version) == ENVELOPE_OFFSET_VERSION, "version");
_Static_assert(offsetof(struct envelope_wire, created_ms) == ENVELOPE_OFFSET_CREATED, "created");
_Static_assert(offsetof(struct envelope_wire, plain_size) == 24, "plain size");
_Static_assert(offsetof(struct envelope_wire, stored_size) == 28, "stored size");
_Static_assert(offsetof(struct envelope_wire, writer_id) == 32, "writer id");
_Static_assert(offsetof(struct envelope_wire, dictionary_id) == 36, "dictionary id");
_Static_assert(offsetof(struct envelope_wire, key_len) == 40, "key length");
_Static_assert(offsetof(struct envelope_wire, metadata_len) == 42, "metadata length");
_Static_assert(offsetof(struct envelope_wire, tag_count) == 44, "tag count");
_Static_assert(offsetof(struct envelope_wire, reserved) == 46, "reserved");
_Static_assert(offsetof(struct envelope_wire, expiry_ms) == ENVELOPE_OFFSET_EXPIRY, "expiry");
_Static_assert(offsetof(struct envelope_wire, expiry_bucket) == ENVELOPE_OFFSET_BUCKET, "bucket");
_Static_assert(offsetof(struct envelope_wire, checksum) == ENVELOPE_OFFSET_CHECKSUM, "checksum");
_Static_assert(sizeof(struct envelope_wire) == ENVELOPE_HEAD_BYTES, "head");

static void wire_to_host(struct envelope_wire *wire);
static struct envelope_wire wire_from_head(const struct envelope_head *head);
static uint64_t envelope_checksum(const void *envelope, size_t length);

uint64_t envelope_expiry_bucket(uint64_t now_ms, uint64_t expiry_ms)
{
	uint64_t seconds;

	if (expiry_ms == 0)
		return 0;
	seconds = expiry_ms / 1000 + (expiry_ms % 1000 != 0);
	if (expiry_ms > now_ms && expiry_ms - now_ms >= 3600u * 1000u)
		seconds = (seconds + 59) / 60 * 60;
	return seconds;
}

/* ---- making one --------------------------------------------------------------------------------------------- */

/* What is tried for one value. */
struct attempt {
	enum envelope_algorithm algorithm;
	const struct dictionary *dictionary; /* only with zstd */
};

static size_t threshold_of(const struct envelope_compression *compression, bool has_dictionary, size_t value_len)
{
	if (!has_dictionary || value_len >= ENVELOPE_DICTIONARY_SMALL)
		return compression->threshold;
	if (compression->dictionary_threshold != 0)
		return compression->dictionary_threshold;
	return compression->threshold == ENVELOPE_THRESHOLD_DEFAULT ? ENVELOPE_DICTIONARY_THRESHOLD_DEFAULT
								    : compression->threshold;
}

/* The largest value that is compressed with a dictionary. */
static size_t dictionary_reach(enum envelope_choice choice)
{
	if (choice == ENVELOPE_CHOOSE_ZSTD)
		return ENVELOPE_DICTIONARY_MAX;
	return choice == ENVELOPE_CHOOSE_AUTO ? ENVELOPE_AUTO_DICTIONARY_MAX : 0;
}

static struct attempt choose_attempt(const struct envelope_compression *compression, size_t value_len)
{
	const struct attempt plain = {ENVELOPE_PLAIN, NULL}, lz4 = {ENVELOPE_LZ4, NULL};
	struct attempt zstd = {ENVELOPE_ZSTD, NULL};

	if (!RIPTIDE_COMPRESSION || compression == NULL || compression->choice == ENVELOPE_CHOOSE_NONE)
		return plain;
	if (value_len <= dictionary_reach(compression->choice))
		zstd.dictionary = compression->dictionary;
	if (value_len <= threshold_of(compression, zstd.dictionary != NULL, value_len))
		return plain;
	if (compression->choice == ENVELOPE_CHOOSE_LZ4)
		return lz4;
	if (compression->choice == ENVELOPE_CHOOSE_AUTO && zstd.dictionary == NULL &&
	    value_len <= ENVELOPE_AUTO_LZ4_MAX)
		return lz4;
	return zstd;
}

static size_t payload_bound(enum envelope_algorithm algorithm, size_t value_len)
{
	if (algorithm == ENVELOPE_LZ4)
		return compress_lz4_bound(value_len);
	if (algorithm == ENVELOPE_ZSTD)
		return compress_zstd_bound(value_len);
	return value_len;
}

/* Bytes written, 0 if the value is to be stored plain. */
static size_t make_attempt(const struct attempt *attempt, const struct envelope_compression *compression,
			   const struct envelope_input *input, void *to)
{
	size_t capacity = payload_bound(attempt->algorithm, input->value_len);

	if (attempt->algorithm == ENVELOPE_LZ4)
		return compress_lz4(input->value, input->value_len, compression->lz4_acceleration, to, capacity);
	if (attempt->algorithm == ENVELOPE_ZSTD)
		return compress_zstd(input->value, input->value_len, compression->zstd_level,
				     attempt->dictionary != NULL ? dictionary_prepared(attempt->dictionary) : NULL,
				     to, capacity);
	return 0;
}

static void copy_bytes(void *to, const void *from, size_t length)
{
	if (length > 0)
		memcpy(to, from, length);
}

static int check_input(const struct envelope_input *input)
{
	if (input->key_len == 0 || (input->flags & ~ENVELOPE_FLAG_TOMBSTONE) != 0)
		return RSHM_E_INVALID;
	if (input->key_len > RSHM_KEY_MAX || input->metadata_len > RSHM_METADATA_MAX ||
	    input->value_len > ENVELOPE_VALUE_MAX || input->tag_count > ENVELOPE_TAGS_MAX)
		return RSHM_E_TOOBIG;
	return RSHM_OK;
}

/* Tag epochs, key and metadata, behind the head. */
static void put_names(unsigned char *to, const struct envelope_input *input)
{
	for (size_t i = 0; i < input->tag_count; i++, to += sizeof(uint64_t)) {
		uint64_t epoch = htole64(input->tag_epochs[i]);

		memcpy(to, &epoch, sizeof epoch);
	}
	copy_bytes(to, input->key, input->key_len);
	copy_bytes(to + input->key_len, input->metadata, input->metadata_len);
}

static struct envelope_head make_head(const struct envelope_input *input, const struct attempt *attempt,
				      size_t stored)
{
	return (struct envelope_head){
		.algorithm = (uint8_t)attempt->algorithm,
		.flags = input->flags,
		.version = input->version,
		.created_ms = input->created_ms,
		.expiry_ms = input->expiry_ms,
		.expiry_bucket = envelope_expiry_bucket(input->created_ms, input->expiry_ms),
		.plain_size = (uint32_t)input->value_len,
		.stored_size = (uint32_t)stored,
		.writer_id = input->writer_id,
		.dictionary_id = attempt->dictionary != NULL ? dictionary_id(attempt->dictionary) : 0,
		.key_len = (uint16_t)input->key_len,
		.metadata_len = (uint16_t)input->metadata_len,
		.tag_count = input->tag_count,
	};
}

int envelope_encode(const struct envelope_input *input, const struct envelope_compression *compression,
		    struct envelope_buffer *ret)
{
	size_t before =
		ENVELOPE_HEAD_BYTES + sizeof(uint64_t) * input->tag_count + input->key_len + input->metadata_len;
	struct attempt attempt;
	struct envelope_head head;
	struct envelope_wire wire;
	unsigned char *bytes;
	size_t stored;
	int status = check_input(input);

	if (status < 0)
		return status;
	attempt = choose_attempt(compression, input->value_len);
	bytes = malloc(before + payload_bound(attempt.algorithm, input->value_len));
	if (bytes == NULL)
		return RSHM_E_NOMEM;
	stored = make_attempt(&attempt, compression, input, bytes + before);
	/* Not compressed, failed, or at least 90 % of it left. */
	if (stored == 0 || stored * 10 >= input->value_len * 9) {
		attempt = (struct attempt){ENVELOPE_PLAIN, NULL};
		stored = input->value_len;
		copy_bytes(bytes + before, input->value, stored);
	}
	put_names(bytes + ENVELOPE_HEAD_BYTES, input);
	head = make_head(input, &attempt, stored);
	wire = wire_from_head(&head);
	memcpy(bytes, &wire, sizeof wire);
	wire.checksum = htole64(envelope_checksum(bytes, before + stored));
	memcpy(bytes, &wire, sizeof wire);
	*ret = (struct envelope_buffer){.bytes = bytes, .length = before + stored};
	return RSHM_OK;
}

void envelope_buffer_fini(struct envelope_buffer *buffer)
{
	free(buffer->bytes);
	*buffer = (struct envelope_buffer){0};
}

void envelope_set_expiry(void *bytes, uint64_t now_ms, uint64_t expiry_ms)
{
	uint64_t expiry = htole64(expiry_ms), bucket = htole64(envelope_expiry_bucket(now_ms, expiry_ms));

	memcpy((unsigned char *)bytes + ENVELOPE_OFFSET_EXPIRY, &expiry, sizeof expiry);
	memcpy((unsigned char *)bytes + ENVELOPE_OFFSET_BUCKET, &bucket, sizeof bucket);
}

void envelope_set_flags(void *bytes, uint16_t flags)
{
	uint16_t wire = htole16(flags);

	memcpy((unsigned char *)bytes + ENVELOPE_OFFSET_FLAGS, &wire, sizeof wire);
}

void envelope_set_checksum(void *bytes, size_t length)
{
	uint64_t checksum;

	must(length >= ENVELOPE_HEAD_BYTES);
	checksum = htole64(envelope_checksum(bytes, length));
	memcpy((unsigned char *)bytes + ENVELOPE_OFFSET_CHECKSUM, &checksum, sizeof checksum);
}

/* ---- reading one -------------------------------------------------------------------------------------------- */

/* The rules that bind the two sizes, as far as the head alone tells. */
static bool sizes_agree(const struct envelope_wire *wire)
{
	if (wire->plain_size > ENVELOPE_VALUE_MAX || wire->stored_size > wire->plain_size)
		return false;
	switch (wire->algorithm) {
	case ENVELOPE_PLAIN:
		return wire->stored_size == wire->plain_size;
	case ENVELOPE_LZ4:
		return wire->stored_size > 0 && wire->plain_size <= (uint64_t)wire->stored_size * ENVELOPE_LZ4_RATIO;
	default:
		return wire->stored_size > 0;
	}
}

int envelope_peek_head(const void *bytes, size_t length, struct envelope_head *ret)
{
	struct envelope_wire wire;

	if (length < ENVELOPE_HEAD_BYTES)
		return RSHM_E_CORRUPT;
	memcpy(&wire, bytes, sizeof wire);
	wire_to_host(&wire);
	if (wire.magic != ENVELOPE_MAGIC || wire.format == 0)
		return RSHM_E_CORRUPT;
	/* Flags and algorithms that we do not know change what the bytes mean: as good as a newer format. */
	if (wire.format > ENVELOPE_FORMAT || (wire.flags & ~ENVELOPE_FLAGS_KNOWN) != 0 ||
	    wire.algorithm > ENVELOPE_ZSTD || (wire.dictionary_id != 0 && wire.algorithm != ENVELOPE_ZSTD) ||
	    wire.tag_count > ENVELOPE_TAGS_MAX || wire.reserved != 0)
		return RSHM_E_FORMAT;
	if (wire.key_len == 0 || !sizes_agree(&wire) || (wire.flags & ENVELOPE_FLAGS_KNOWN) == ENVELOPE_FLAGS_KNOWN)
		return RSHM_E_CORRUPT;
	*ret = (struct envelope_head){
		.version = wire.version,
		.created_ms = wire.created_ms,
		.expiry_ms = wire.expiry_ms,
		.expiry_bucket = wire.expiry_bucket,
		.checksum = wire.checksum,
		.plain_size = wire.plain_size,
		.stored_size = wire.stored_size,
		.writer_id = wire.writer_id,
		.dictionary_id = wire.dictionary_id,
		.flags = wire.flags,
		.key_len = wire.key_len,
		.metadata_len = wire.metadata_len,
		.tag_count = wire.tag_count,
		.format = wire.format,
		.algorithm = wire.algorithm,
	};
	return RSHM_OK;
}

size_t envelope_key_offset(const struct envelope_head *head)
{
	return ENVELOPE_HEAD_BYTES + sizeof(uint64_t) * head->tag_count;
}

size_t envelope_length(const struct envelope_head *head)
{
	size_t box = head->flags & ENVELOPE_FLAG_SEALED ? ENVELOPE_BOX_BYTES : 0;

	return envelope_key_offset(head) + head->key_len + box + head->metadata_len + head->stored_size;
}

/* Sealed or not. */
static int open_any(const void *bytes, size_t length, const void *key, size_t key_len, struct envelope_view *ret)
{
	const unsigned char *found_key, *behind_key;
	struct envelope_head head;
	bool is_sealed;
	int status = envelope_peek_head(bytes, length, &head);

	if (status < 0)
		return status;
	if (envelope_length(&head) != length || head.checksum != envelope_checksum(bytes, length))
		return RSHM_E_CORRUPT;
	found_key = (const unsigned char *)bytes + envelope_key_offset(&head);
	if (key != NULL && (head.key_len != key_len || memcmp(found_key, key, key_len) != 0))
		return RSHM_E_CORRUPT;
	is_sealed = (head.flags & ENVELOPE_FLAG_SEALED) != 0;
	behind_key = found_key + head.key_len;
	*ret = (struct envelope_view){
		.head = head,
		.tag_epochs = (const unsigned char *)bytes + ENVELOPE_HEAD_BYTES,
		.key = found_key,
		.box = is_sealed ? behind_key : NULL,
		.metadata = behind_key + (is_sealed ? ENVELOPE_BOX_BYTES : 0),
	};
	ret->payload = (const unsigned char *)ret->metadata + head.metadata_len;
	return RSHM_OK;
}

int envelope_open(const void *bytes, size_t length, const void *key, size_t key_len, struct envelope_view *ret)
{
	struct envelope_view view;
	int status = open_any(bytes, length, key, key_len, &view);

	if (status < 0)
		return status;
	if (view.box != NULL)
		return RSHM_E_NOKEY;
	*ret = view;
	return RSHM_OK;
}

int envelope_open_sealed(const void *bytes, size_t length, const void *key, size_t key_len, struct envelope_view *ret)
{
	struct envelope_view view;
	int status = open_any(bytes, length, key, key_len, &view);

	if (status < 0)
		return status;
	if (view.box == NULL)
		return RSHM_E_INVALID;
	*ret = view;
	return RSHM_OK;
}

uint64_t envelope_tag_epoch(const struct envelope_view *view, size_t index)
{
	uint64_t epoch;

	must(index < view->head.tag_count);
	memcpy(&epoch, (const unsigned char *)view->tag_epochs + index * sizeof epoch, sizeof epoch);
	return le64toh(epoch);
}

static int payload_zstd(const struct envelope_view *view, void *destination)
{
	const struct envelope_head *head = &view->head;
	const struct compress_dictionary *prepared = NULL;

	if (RIPTIDE_COMPRESSION && head->dictionary_id != 0) {
		if (view->dictionary == NULL || dictionary_id(view->dictionary) != head->dictionary_id)
			return RSHM_E_NODICT;
		prepared = dictionary_prepared(view->dictionary);
	}
	return decompress_zstd(view->payload, head->stored_size, prepared, destination, head->plain_size);
}

int envelope_payload(const struct envelope_view *view, void *destination, size_t capacity)
{
	const struct envelope_head *head = &view->head;

	if (capacity < head->plain_size)
		return RSHM_E_TOOSMALL;
	switch (head->algorithm) {
	case ENVELOPE_PLAIN:
		copy_bytes(destination, view->payload, head->plain_size);
		return RSHM_OK;
	case ENVELOPE_LZ4:
		return decompress_lz4(view->payload, head->stored_size, destination, head->plain_size);
	default:
		must(head->algorithm == ENVELOPE_ZSTD);
		return payload_zstd(view, destination);
	}
}

/* ---- helpers ------------------------------------------------------------------------------------------------ */

static struct envelope_wire wire_from_head(const struct envelope_head *head)
{
	return (struct envelope_wire){
		.magic = htole32(ENVELOPE_MAGIC),
		.format = ENVELOPE_FORMAT,
		.algorithm = head->algorithm,
		.flags = htole16(head->flags),
		.version = htole64(head->version),
		.created_ms = htole64(head->created_ms),
		.plain_size = htole32(head->plain_size),
		.stored_size = htole32(head->stored_size),
		.writer_id = htole32(head->writer_id),
		.dictionary_id = htole32(head->dictionary_id),
		.key_len = htole16(head->key_len),
		.metadata_len = htole16(head->metadata_len),
		.tag_count = htole16(head->tag_count),
		.expiry_ms = htole64(head->expiry_ms),
		.expiry_bucket = htole64(head->expiry_bucket),
	};
}

static void wire_to_host(struct envelope_wire *wire)
{
	wire->magic = le32toh(wire->magic);
	wire->flags = le16toh(wire->flags);
	wire->version = le64toh(wire->version);
	wire->created_ms = le64toh(wire->created_ms);
	wire->plain_size = le32toh(wire->plain_size);
	wire->stored_size = le32toh(wire->stored_size);
	wire->writer_id = le32toh(wire->writer_id);
	wire->dictionary_id = le32toh(wire->dictionary_id);
	wire->key_len = le16toh(wire->key_len);
	wire->metadata_len = le16toh(wire->metadata_len);
	wire->tag_count = le16toh(wire->tag_count);
	wire->reserved = le16toh(wire->reserved);
	wire->expiry_ms = le64toh(wire->expiry_ms);
	wire->expiry_bucket = le64toh(wire->expiry_bucket);
	wire->checksum = le64toh(wire->checksum);
}

static uint64_t envelope_checksum(const void *envelope, size_t length)
{
	return XXH3_64bits_withSeed((const unsigned char *)envelope + ENVELOPE_HEAD_BYTES,
				    length - ENVELOPE_HEAD_BYTES, XXH3_64bits(envelope, ENVELOPE_COVERED));
}
