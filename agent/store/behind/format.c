/*
 * Encoding and decoding of records. What comes from a file is hostile until both checksums hold, and also afterwards
 * every length is held against the length of the body, and the names against what names may be.
 *
 * A bad checksum of the very last record is a torn tail too: after a loss of power the length of a file may be on the
 * disk and its last bytes not.
 */
#include "agent/store/behind/format.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/base/text.h"
#include "agent/store/envelope.h"
#include "shm/msg.h"

#define FORMAT_MAGIC 0x4c4e524a45444952ull /* "RIDEJRNL" */
#define FORMAT_VERSION 1u
#define FORMAT_BODY_MAX (FORMAT_BODY_HEAD + RSHM_TENANT_MAX + RSHM_KEY_MAX + FORMAT_ENVELOPE_MAX)

struct wire_head {
	uint32_t kind, length;
	uint64_t body_checksum, head_checksum;
};
_Static_assert(sizeof(struct wire_head) == FORMAT_RECORD_HEAD, "record head");

struct wire_body {
	uint64_t version, accepted_ms, expiry_ms, generation;
	uint32_t tenant_number, shards, writer, envelope_len;
	uint16_t key_len;
	uint8_t tenant_len, space;
	uint32_t reserved;
};
_Static_assert(sizeof(struct wire_body) == FORMAT_BODY_HEAD, "body head");

struct wire_file {
	uint64_t magic;
	uint32_t format, reserved;
};
_Static_assert(sizeof(struct wire_file) == FORMAT_FILE_HEAD, "file head");

static uint16_t envelope_flags(const unsigned char *envelope)
{
	uint16_t flags;

	memcpy(&flags, envelope + ENVELOPE_OFFSET_FLAGS, sizeof flags);
	return le16toh(flags);
}

static uint64_t envelope_version(const unsigned char *envelope)
{
	uint64_t version;

	memcpy(&version, envelope + ENVELOPE_OFFSET_VERSION, sizeof version);
	return le64toh(version);
}

static uint32_t envelope_writer(const unsigned char *envelope)
{
	uint32_t writer;

	memcpy(&writer, envelope + ENVELOPE_OFFSET_WRITER, sizeof writer);
	return le32toh(writer);
}

static bool is_envelope(const unsigned char *envelope, size_t length)
{
	uint32_t magic;

	if (envelope == NULL || length < ENVELOPE_HEAD_BYTES)
		return false;
	memcpy(&magic, envelope, sizeof magic);
	return le32toh(magic) == ENVELOPE_MAGIC;
}

int format_check_envelope(const struct store_request *request)
{
	const struct store_name *name = &request->name;

	if (!is_envelope(request->envelope, request->envelope_len) || name->key_len == 0 ||
	    !text_is_name(name->tenant, RSHM_TENANT_MAX))
		return RSHM_E_INVALID;
	if (request->op == STORE_DELETE && (envelope_flags(request->envelope) & ENVELOPE_FLAG_TOMBSTONE) == 0)
		return RSHM_E_INVALID;
	return name->key_len > RSHM_KEY_MAX || request->envelope_len > FORMAT_ENVELOPE_MAX ? RSHM_E_TOOBIG : RSHM_OK;
}

/* ---- making --------------------------------------------------------------------------------------------------- */

/* Body head, tenant and key; the envelope already stands behind them, or there is none. Returns the whole length. */
static size_t put_record(unsigned char *bytes, enum format_kind kind, const struct behind_record *record,
			 size_t envelope_len)
{
	unsigned char *body = bytes + FORMAT_RECORD_HEAD;
	const struct store_name *name = &record->name;
	size_t tenant_len = strlen(record->tenant);
	size_t length = FORMAT_BODY_HEAD + tenant_len + name->key_len + envelope_len;
	struct wire_body wire = {
		.version = htole64(record->version),
		.accepted_ms = htole64(record->accepted_ms),
		.expiry_ms = htole64(record->expiry_ms),
		.generation = htole64(name->generation),
		.tenant_number = htole32(name->tenant_number),
		.shards = htole32(name->shards),
		.writer = htole32(record->writer),
		.envelope_len = htole32((uint32_t)envelope_len),
		.key_len = htole16((uint16_t)name->key_len),
		.tenant_len = (uint8_t)tenant_len,
		.space = (uint8_t)name->space,
	};
	struct wire_head head = {.kind = htole32(kind), .length = htole32((uint32_t)length)};

	memcpy(body, &wire, sizeof wire);
	memcpy(body + FORMAT_BODY_HEAD, record->tenant, tenant_len);
	memmove(body + FORMAT_BODY_HEAD + tenant_len, name->key, name->key_len);
	head.body_checksum = htole64(XXH3_64bits(body, length));
	head.head_checksum = htole64(XXH3_64bits(&head, offsetof(struct wire_head, head_checksum)));
	memcpy(bytes, &head, sizeof head);
	return FORMAT_RECORD_HEAD + length;
}

struct behind_record *format_record_make(const struct store_request *request, uint64_t accepted_ms)
{
	size_t tenant_len = strlen(request->name.tenant);
	size_t before = FORMAT_RECORD_HEAD + FORMAT_BODY_HEAD + tenant_len + request->name.key_len;
	struct behind_record *record = malloc(sizeof *record + before + request->envelope_len);

	if (record == NULL)
		return NULL;
	*record = (struct behind_record){
		.refs = 1,
		.kind = FORMAT_RECORD,
		.name = request->name,
		.accepted_ms = accepted_ms,
		.expiry_ms = request->expiry_ms,
		.version = envelope_version(request->envelope),
		.writer = envelope_writer(request->envelope),
		.tombstone = (envelope_flags(request->envelope) & ENVELOPE_FLAG_TOMBSTONE) != 0,
		.envelope = record->bytes + before,
		.envelope_len = request->envelope_len,
	};
	memcpy(record->tenant, request->name.tenant, tenant_len + 1);
	memcpy(record->envelope, request->envelope, request->envelope_len);
	record->length = put_record(record->bytes, FORMAT_RECORD, record, request->envelope_len);
	record->name.tenant = record->tenant;
	record->name.key = record->bytes + before - request->name.key_len;
	return record;
}

void format_record_ref(struct behind_record *record)
{
	record->refs++;
}

void format_record_unref(struct behind_record *record)
{
	if (record == NULL)
		return;
	must(record->refs > 0);
	if (--record->refs == 0)
		free(record);
}

bool format_same_name(const struct store_name *a, const struct store_name *b)
{
	return a->key_len == b->key_len && a->generation == b->generation && a->space == b->space &&
	       strcmp(a->tenant, b->tenant) == 0 && memcmp(a->key, b->key, a->key_len) == 0;
}

size_t format_put_mark(unsigned char *bytes, const struct behind_record *record)
{
	return put_record(bytes, FORMAT_SETTLED, record, 0);
}

void format_put_file_head(unsigned char bytes[FORMAT_FILE_HEAD])
{
	struct wire_file wire = {.magic = htole64(FORMAT_MAGIC), .format = htole32(FORMAT_VERSION)};

	memcpy(bytes, &wire, sizeof wire);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

enum format_end format_reader_init(struct format_reader *reader, FILE *file, uint64_t size)
{
	struct wire_file wire;

	*reader = (struct format_reader){.file = file, .size = size, .offset = FORMAT_FILE_HEAD};
	if (size == 0)
		return FORMAT_END;
	if (size < FORMAT_FILE_HEAD)
		return FORMAT_TORN;
	if (fread(&wire, sizeof wire, 1, file) != 1)
		return FORMAT_FAILED;
	if (le64toh(wire.magic) != FORMAT_MAGIC || le32toh(wire.format) != FORMAT_VERSION || wire.reserved != 0)
		return FORMAT_FOREIGN;
	return FORMAT_MORE;
}

/* Takes the body apart; false if it cannot be. */
static bool record_decode(struct behind_record *record, uint32_t kind)
{
	const unsigned char *body = record->bytes + FORMAT_RECORD_HEAD;
	size_t length = record->length - FORMAT_RECORD_HEAD, tenant_len, key_len;
	struct wire_body wire;

	if (kind != FORMAT_RECORD && kind != FORMAT_SETTLED)
		return false;
	memcpy(&wire, body, sizeof wire);
	tenant_len = wire.tenant_len;
	key_len = le16toh(wire.key_len);
	record->envelope_len = le32toh(wire.envelope_len);
	if (tenant_len > RSHM_TENANT_MAX || key_len == 0 || wire.reserved != 0 ||
	    FORMAT_BODY_HEAD + tenant_len + key_len + (uint64_t)record->envelope_len != length)
		return false;
	memcpy(record->tenant, body + FORMAT_BODY_HEAD, tenant_len);
	record->tenant[tenant_len] = '\0';
	record->envelope = record->bytes + record->length - record->envelope_len;
	record->kind = (enum format_kind)kind;
	record->version = le64toh(wire.version);
	record->accepted_ms = le64toh(wire.accepted_ms);
	record->expiry_ms = le64toh(wire.expiry_ms);
	record->writer = le32toh(wire.writer);
	record->name = (struct store_name){
		.tenant = record->tenant,
		.tenant_number = le32toh(wire.tenant_number),
		.shards = le32toh(wire.shards),
		.generation = le64toh(wire.generation),
		.space = (char)wire.space,
		.key = body + FORMAT_BODY_HEAD + tenant_len,
		.key_len = key_len,
	};
	if (!text_is_name(record->tenant, RSHM_TENANT_MAX) || strlen(record->tenant) != tenant_len)
		return false;
	if (kind == FORMAT_SETTLED)
		return record->envelope_len == 0;
	record->tombstone = is_envelope(record->envelope, record->envelope_len) &&
			    (envelope_flags(record->envelope) & ENVELOPE_FLAG_TOMBSTONE) != 0;
	return is_envelope(record->envelope, record->envelope_len) &&
	       envelope_version(record->envelope) == record->version &&
	       envelope_writer(record->envelope) == record->writer;
}

static enum format_end read_body(struct format_reader *reader, const struct wire_head *head,
				 struct behind_record **ret)
{
	size_t length = le32toh(head->length);
	struct behind_record *record = malloc(sizeof *record + FORMAT_RECORD_HEAD + length);
	bool last = reader->offset + FORMAT_RECORD_HEAD + length == reader->size;

	if (record == NULL)
		return FORMAT_FAILED;
	*record = (struct behind_record){.refs = 1, .length = FORMAT_RECORD_HEAD + length};
	memcpy(record->bytes, head, sizeof *head);
	if (fread(record->bytes + FORMAT_RECORD_HEAD, length, 1, reader->file) != 1) {
		format_record_unref(record);
		return FORMAT_FAILED;
	}
	if (XXH3_64bits(record->bytes + FORMAT_RECORD_HEAD, length) != le64toh(head->body_checksum)) {
		format_record_unref(record);
		return last ? FORMAT_TORN : FORMAT_DAMAGED;
	}
	if (!record_decode(record, le32toh(head->kind))) {
		format_record_unref(record);
		return FORMAT_DAMAGED;
	}
	reader->offset += record->length;
	*ret = record;
	return FORMAT_MORE;
}

/* Bytes that never reached the disk: the file system shows zeros up to the end. */
static bool only_zeros(struct format_reader *reader, const struct wire_head *head)
{
	int byte = 0;

	if (head->kind != 0 || head->length != 0 || head->body_checksum != 0 || head->head_checksum != 0)
		return false;
	while (byte == 0)
		byte = getc(reader->file);
	return byte == EOF && !ferror(reader->file);
}

enum format_end format_read(struct format_reader *reader, struct behind_record **ret)
{
	uint64_t left = reader->size - reader->offset;
	struct wire_head head;
	uint32_t length;

	if (left == 0)
		return FORMAT_END;
	if (left < FORMAT_RECORD_HEAD)
		return FORMAT_TORN;
	if (fread(&head, sizeof head, 1, reader->file) != 1)
		return FORMAT_FAILED;
	if (XXH3_64bits(&head, offsetof(struct wire_head, head_checksum)) != le64toh(head.head_checksum))
		return only_zeros(reader, &head) ? FORMAT_TORN : FORMAT_DAMAGED;
	length = le32toh(head.length);
	if (length < FORMAT_BODY_HEAD || length > FORMAT_BODY_MAX)
		return FORMAT_DAMAGED;
	if (length > left - FORMAT_RECORD_HEAD)
		return FORMAT_TORN;
	return read_body(reader, &head, ret);
}
