/*
 * The head is written and read field by field through fixed little-endian offsets; struct envelope_wire
 * exists only so that the compiler holds these offsets against the exported constants.
 *
 * Compression writes straight into the envelope's own allocation, which has room for the worst case: so the
 * 90 % rule is exact (the libraries give up early when the room is tight), and a value that does not shrink
 * is copied over the attempt. Contexts of zstd cost more than compressing a small value and are kept per
 * thread, freed when the thread ends.
 *
 * Everything here may come from a server or a disk that lies. A length is used only after it was held
 * against the bytes that are there; the decompressors get both limits; the plain size must be what came
 * out, and for zstd, whose ratio has no limit, what the frame itself announces.
 */
#include "agent/store/envelope.h"

#include <endian.h>
#include <lz4.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "agent/base/assert.h"
#include "shm/msg.h"

#define ENVELOPE_ZSTD_LEVEL 3
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
_Static_assert(offsetof(struct envelope_wire, flags) == 6, "flags");
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
static size_t envelope_compress(const struct envelope_input *input, enum envelope_algorithm algorithm,
				void *destination, size_t capacity);
static ZSTD_DCtx *zstd_decompressor(void);

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

static enum envelope_algorithm choose_algorithm(const struct envelope_compression *compression, size_t value_len)
{
	if (compression == NULL || value_len <= compression->threshold)
		return ENVELOPE_PLAIN;
	switch (compression->choice) {
	case ENVELOPE_CHOOSE_LZ4:
		return ENVELOPE_LZ4;
	case ENVELOPE_CHOOSE_ZSTD:
		return ENVELOPE_ZSTD;
	case ENVELOPE_CHOOSE_AUTO:
		return value_len <= ENVELOPE_AUTO_LZ4_MAX ? ENVELOPE_LZ4 : ENVELOPE_ZSTD;
	case ENVELOPE_CHOOSE_NONE:
		break;
	}
	return ENVELOPE_PLAIN;
}

static size_t payload_bound(enum envelope_algorithm algorithm, size_t value_len)
{
	if (algorithm == ENVELOPE_LZ4)
		return (size_t)LZ4_compressBound((int)value_len);
	if (algorithm == ENVELOPE_ZSTD)
		return ZSTD_compressBound(value_len);
	return value_len;
}

static void copy_bytes(void *to, const void *from, size_t length)
{
	if (length > 0)
		memcpy(to, from, length);
}

int envelope_encode(const struct envelope_input *input, const struct envelope_compression *compression,
		    struct envelope_buffer *ret)
{
	enum envelope_algorithm algorithm;
	size_t before = ENVELOPE_HEAD_BYTES + input->key_len + input->metadata_len, stored = 0;
	struct envelope_head head = {0};
	struct envelope_wire wire;
	unsigned char *bytes;

	if (input->key_len == 0)
		return RSHM_E_INVALID;
	if (input->key_len > RSHM_KEY_MAX || input->metadata_len > RSHM_METADATA_MAX ||
	    input->value_len > ENVELOPE_VALUE_MAX)
		return RSHM_E_TOOBIG;
	algorithm = choose_algorithm(compression, input->value_len);
	bytes = malloc(before + payload_bound(algorithm, input->value_len));
	if (bytes == NULL)
		return RSHM_E_NOMEM;
	if (algorithm != ENVELOPE_PLAIN)
		stored = envelope_compress(input, algorithm, bytes + before,
					   payload_bound(algorithm, input->value_len));
	/* Not compressed, failed, or at least 90 % of it left. */
	if (stored == 0 || stored * 10 >= input->value_len * 9) {
		algorithm = ENVELOPE_PLAIN;
		stored = input->value_len;
		copy_bytes(bytes + before, input->value, stored);
	}
	copy_bytes(bytes + ENVELOPE_HEAD_BYTES, input->key, input->key_len);
	copy_bytes(bytes + ENVELOPE_HEAD_BYTES + input->key_len, input->metadata, input->metadata_len);
	head.algorithm = (uint8_t)algorithm;
	head.version = input->version;
	head.created_ms = input->created_ms;
	head.expiry_ms = input->expiry_ms;
	head.expiry_bucket = envelope_expiry_bucket(input->created_ms, input->expiry_ms);
	head.plain_size = (uint32_t)input->value_len;
	head.stored_size = (uint32_t)stored;
	head.writer_id = input->writer_id;
	head.key_len = (uint16_t)input->key_len;
	head.metadata_len = (uint16_t)input->metadata_len;
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
	/* Flags, algorithms and tags that we do not know change what the bytes mean: as good as a newer format. */
	if (wire.format > ENVELOPE_FORMAT || wire.flags != 0 || wire.algorithm > ENVELOPE_ZSTD ||
	    wire.dictionary_id != 0 || wire.tag_count != 0 || wire.reserved != 0)
		return RSHM_E_FORMAT;
	if (wire.key_len == 0 || !sizes_agree(&wire))
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

size_t envelope_length(const struct envelope_head *head)
{
	return (size_t)ENVELOPE_HEAD_BYTES + head->key_len + head->metadata_len + head->stored_size;
}

int envelope_open(const void *bytes, size_t length, const void *key, size_t key_len, struct envelope_view *ret)
{
	const unsigned char *body = (const unsigned char *)bytes + ENVELOPE_HEAD_BYTES;
	struct envelope_head head;
	int status = envelope_peek_head(bytes, length, &head);

	if (status < 0)
		return status;
	if (envelope_length(&head) != length || head.checksum != envelope_checksum(bytes, length))
		return RSHM_E_CORRUPT;
	if (key != NULL && (head.key_len != key_len || memcmp(body, key, key_len) != 0))
		return RSHM_E_CORRUPT;
	*ret = (struct envelope_view){
		.head = head,
		.key = body,
		.metadata = body + head.key_len,
		.payload = body + head.key_len + head.metadata_len,
	};
	return RSHM_OK;
}

static int payload_zstd(const struct envelope_view *view, void *destination)
{
	const struct envelope_head *head = &view->head;
	ZSTD_DCtx *context;
	size_t written;

	/* An unknown or wrong size compares unequal too. */
	if (ZSTD_getFrameContentSize(view->payload, head->stored_size) != head->plain_size)
		return RSHM_E_CORRUPT;
	context = zstd_decompressor();
	if (context == NULL)
		return RSHM_E_NOMEM;
	written = ZSTD_decompressDCtx(context, destination, head->plain_size, view->payload, head->stored_size);
	return ZSTD_isError(written) || written != head->plain_size ? RSHM_E_CORRUPT : RSHM_OK;
}

int envelope_payload(const struct envelope_view *view, void *destination, size_t capacity)
{
	const struct envelope_head *head = &view->head;
	int written;

	if (capacity < head->plain_size)
		return RSHM_E_TOOSMALL;
	switch (head->algorithm) {
	case ENVELOPE_PLAIN:
		copy_bytes(destination, view->payload, head->plain_size);
		return RSHM_OK;
	case ENVELOPE_LZ4:
		written = LZ4_decompress_safe(view->payload, destination, (int)head->stored_size,
					      (int)head->plain_size);
		return written >= 0 && (uint32_t)written == head->plain_size ? RSHM_OK : RSHM_E_CORRUPT;
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
		.version = htole64(head->version),
		.created_ms = htole64(head->created_ms),
		.plain_size = htole32(head->plain_size),
		.stored_size = htole32(head->stored_size),
		.writer_id = htole32(head->writer_id),
		.key_len = htole16(head->key_len),
		.metadata_len = htole16(head->metadata_len),
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

static pthread_once_t zstd_once = PTHREAD_ONCE_INIT;
static pthread_key_t zstd_compressor_key, zstd_decompressor_key;
static bool zstd_keys_made;

static void zstd_free_compressor(void *context)
{
	ZSTD_freeCCtx(context);
}

static void zstd_free_decompressor(void *context)
{
	ZSTD_freeDCtx(context);
}

static void zstd_make_keys(void)
{
	zstd_keys_made = pthread_key_create(&zstd_compressor_key, zstd_free_compressor) == 0 &&
			 pthread_key_create(&zstd_decompressor_key, zstd_free_decompressor) == 0;
}

static ZSTD_CCtx *zstd_compressor(void)
{
	ZSTD_CCtx *context;

	(void)pthread_once(&zstd_once, zstd_make_keys);
	if (!zstd_keys_made)
		return NULL;
	context = pthread_getspecific(zstd_compressor_key);
	if (context == NULL && (context = ZSTD_createCCtx()) != NULL &&
	    pthread_setspecific(zstd_compressor_key, context) != 0) {
		ZSTD_freeCCtx(context);
		context = NULL;
	}
	return context;
}

static ZSTD_DCtx *zstd_decompressor(void)
{
	ZSTD_DCtx *context;

	(void)pthread_once(&zstd_once, zstd_make_keys);
	if (!zstd_keys_made)
		return NULL;
	context = pthread_getspecific(zstd_decompressor_key);
	if (context == NULL && (context = ZSTD_createDCtx()) != NULL &&
	    pthread_setspecific(zstd_decompressor_key, context) != 0) {
		ZSTD_freeDCtx(context);
		context = NULL;
	}
	return context;
}

/* Bytes written, 0 if it did not work out: then the value is stored plain. */
static size_t envelope_compress(const struct envelope_input *input, enum envelope_algorithm algorithm,
				void *destination, size_t capacity)
{
	ZSTD_CCtx *context;
	size_t written;

	if (algorithm == ENVELOPE_LZ4)
		return (size_t)LZ4_compress_default(input->value, destination, (int)input->value_len, (int)capacity);
	context = zstd_compressor();
	if (context == NULL)
		return 0;
	written = ZSTD_compressCCtx(context, destination, capacity, input->value, input->value_len,
				    ENVELOPE_ZSTD_LEVEL);
	return ZSTD_isError(written) ? 0 : written;
}
