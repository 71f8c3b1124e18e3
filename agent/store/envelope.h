/*
 * envelope.h - what is stored for one entry, whichever backend holds it.
 *
 *	 0 magic u32 | format u8 | algorithm u8 | flags u16
 *	 8 version u64
 *	16 created u64 (ms)
 *	24 plain size u32 | stored size u32
 *	32 writer id u32 | dictionary id u32
 *	40 key length u16 | metadata length u16 | tag count u16 | reserved u16
 *	48 expiry u64 (ms, 0 = never)
 *	56 expiry bucket u64 (s, 0 = never)
 *	64 checksum u64
 *	72 tag epochs u64 each, key, metadata, payload
 *
 * With ENVELOPE_FLAG_SEALED the end is instead:
 *
 *	   tag epochs u64 each, key, box (key id u32 | nonce 24 bytes | MAC 16 bytes), sealed (metadata, payload)
 *
 * All sizes in the head stay those of the plain one. seal.h makes it and opens it; a program that does not know the
 * flag answers RSHM_E_FORMAT.
 *
 * Little-endian. The checksum covers everything but expiry and expiry bucket, which a touch rewrites in
 * place: XXH3-64 of what follows the head, seeded with the XXH3-64 of the first 48 bytes. It guards against
 * rot, not malice. A Lua script compares two versions by the reversed bytes of GETRANGE: 64 bits do not fit
 * its numbers.
 *
 * No function here blocks or logs; all may be called from any thread.
 */
#ifndef RIPTIDE_STORE_ENVELOPE_H
#define RIPTIDE_STORE_ENVELOPE_H

#include <stddef.h>
#include <stdint.h>

struct dictionary;

#define ENVELOPE_MAGIC 0x45545052u /* "RPTE" */
#define ENVELOPE_FORMAT 1u

#define ENVELOPE_OFFSET_VERSION 8u
#define ENVELOPE_OFFSET_CREATED 16u
#define ENVELOPE_OFFSET_EXPIRY 48u
#define ENVELOPE_OFFSET_BUCKET 56u
#define ENVELOPE_OFFSET_CHECKSUM 64u
#define ENVELOPE_HEAD_BYTES 72u

#define ENVELOPE_OFFSET_FLAGS 6u
#define ENVELOPE_OFFSET_WRITER 32u

/* `flags` */
#define ENVELOPE_FLAG_TOMBSTONE 0x1u /* the key was deleted; kept so that no older write comes back */
#define ENVELOPE_FLAG_SEALED 0x2u /* metadata and payload are encrypted; never with a tombstone, which has neither */

/* What stands between the key and the sealed bytes. */
#define ENVELOPE_BOX_KEY_ID 0u /* u32 */
#define ENVELOPE_BOX_NONCE 4u
#define ENVELOPE_BOX_MAC 28u
#define ENVELOPE_BOX_BYTES 44u

#define ENVELOPE_VALUE_MAX (64u << 20) /* bytes; what max_entry_size may be at most */
#define ENVELOPE_THRESHOLD_DEFAULT 1024u
#define ENVELOPE_AUTO_LZ4_MAX (100u << 10) /* bytes; `auto` takes zstd above */
#define ENVELOPE_TAGS_MAX 64u

/* Bytes; up to the first, zstd uses a dictionary if there is one; up to the second, `auto` takes zstd with it. */
#define ENVELOPE_DICTIONARY_MAX (64u << 10)
#define ENVELOPE_AUTO_DICTIONARY_MAX (16u << 10)
/* With a dictionary, values below the second take the first as threshold unless another one is asked for. */
#define ENVELOPE_DICTIONARY_THRESHOLD_DEFAULT 256u
#define ENVELOPE_DICTIONARY_SMALL 4096u

/* Stored numbers: never reused. */
enum envelope_algorithm {
	ENVELOPE_PLAIN = 0,
	ENVELOPE_LZ4 = 1,
	ENVELOPE_ZSTD = 2,
};

/* What the configuration asks for. */
enum envelope_choice {
	ENVELOPE_CHOOSE_NONE,
	ENVELOPE_CHOOSE_LZ4,
	ENVELOPE_CHOOSE_ZSTD,
	ENVELOPE_CHOOSE_AUTO,
};

/* Every write may bring its own; what is 0 is the default. */
struct envelope_compression {
	enum envelope_choice choice;
	size_t threshold;     /* bytes; only larger values are compressed; 0 means 0 */
	int lz4_acceleration; /* 0 = 1; up to 64, each step is faster and packs less */
	int zstd_level;       /* 0 = 3; -7 .. 19; with a dictionary, the dictionary's own counts */
	/* For zstd and auto, borrowed; NULL: none. */
	const struct dictionary *dictionary;
	/*
	 * Bytes; the threshold of values below ENVELOPE_DICTIONARY_SMALL that have a dictionary. 0: if `threshold` is
	 * ENVELOPE_THRESHOLD_DEFAULT, ENVELOPE_DICTIONARY_THRESHOLD_DEFAULT; if it is anything else, `threshold`.
	 */
	size_t dictionary_threshold;
};

/* All borrowed. */
struct envelope_input {
	const void *key;
	size_t key_len; /* 1 .. RSHM_KEY_MAX */
	const void *metadata;
	size_t metadata_len; /* 0 .. RSHM_METADATA_MAX */
	const void *value;
	size_t value_len;    /* 0 .. ENVELOPE_VALUE_MAX */
	uint64_t created_ms; /* wall clock */
	uint64_t expiry_ms;  /* wall clock, 0 = never */
	uint64_t version;
	uint32_t writer_id;
	uint16_t flags;             /* ENVELOPE_FLAG_... */
	uint16_t tag_count;         /* 0 .. ENVELOPE_TAGS_MAX */
	const uint64_t *tag_epochs; /* the epoch that each of the entry's tags had when it was written */
};

/* Owns its bytes: envelope_buffer_fini(). */
struct envelope_buffer {
	void *bytes;
	size_t length;
};

/* The fixed head, decoded. */
struct envelope_head {
	uint64_t version, created_ms, expiry_ms, expiry_bucket, checksum;
	uint32_t plain_size, stored_size, writer_id, dictionary_id;
	uint16_t flags, key_len, metadata_len, tag_count;
	uint8_t format, algorithm;
};

/* An envelope that passed its checks. The pointers lead into the caller's bytes. */
struct envelope_view {
	struct envelope_head head;
	const void *tag_epochs; /* head.tag_count of them, unaligned: envelope_tag_epoch() */
	const void *key;
	const void *metadata;
	const void *payload; /* head.stored_size bytes, as stored */
	const void *box;     /* envelope_open_sealed(): ENVELOPE_BOX_BYTES; otherwise NULL */
	/* envelope_open() leaves NULL; set by whoever wants the payload of an entry whose head.dictionary_id is not 0. */
	const struct dictionary *dictionary;
};

/*
 * The ledger's bucket of an entry that was written or touched at `now_ms`: the end of the bucket in
 * seconds, 1 s wide if the entry expires within an hour, 60 s wide if later; 0 = never. When it lies in the
 * past, all its entries expired.
 */
uint64_t envelope_expiry_bucket(uint64_t now_ms, uint64_t expiry_ms);

/*
 * Makes an envelope. The value is compressed if `compression` (NULL: never) says so, it is larger than the
 * threshold, and less than 90 % of it is left. One allocation, the caller's from then on. RSHM_E_INVALID
 * (no key, unknown flags), RSHM_E_TOOBIG, RSHM_E_NOMEM.
 */
int envelope_encode(const struct envelope_input *input, const struct envelope_compression *compression,
		    struct envelope_buffer *ret);

/* Frees the bytes; accepts an empty buffer. */
void envelope_buffer_fini(struct envelope_buffer *buffer);

/*
 * Decodes the fixed head from the first `length` bytes of an envelope, ENVELOPE_HEAD_BYTES at least. What
 * can be checked without the rest is checked; the checksum cannot. RSHM_E_CORRUPT (too short, no envelope,
 * impossible sizes), RSHM_E_FORMAT (of a newer program).
 */
int envelope_peek_head(const void *bytes, size_t length, struct envelope_head *ret);

/* Where the key begins: what stands before it has this many bytes. */
size_t envelope_key_offset(const struct envelope_head *head);

/* Length of the whole envelope that has this head, in bytes; a sealed one has ENVELOPE_BOX_BYTES more than when it was plain. */
size_t envelope_length(const struct envelope_head *head);

/*
 * Checks a whole envelope: lengths, checksum, and that it is the one of `key` (NULL: of any). `bytes` must
 * stay while the view is used. RSHM_E_CORRUPT (truncated, too long, damaged, of another key), RSHM_E_FORMAT
 * (of a newer program), RSHM_E_NOKEY (sound, but sealed: nobody takes sealed bytes for plain ones; seal_open()).
 */
int envelope_open(const void *bytes, size_t length, const void *key, size_t key_len, struct envelope_view *ret);

/*
 * For seal.c: the same of a sealed envelope, whose metadata and payload the view shows as they are stored. RSHM_E_INVALID:
 * it is not sealed.
 */
int envelope_open_sealed(const void *bytes, size_t length, const void *key, size_t key_len,
			 struct envelope_view *ret);

/*
 * For seal.c, the two steps that end the making of an envelope whose head was copied from another one: the flags, and, when
 * all of the `length` bytes stand, the checksum.
 */
void envelope_set_flags(void *bytes, uint16_t flags);
void envelope_set_checksum(void *bytes, size_t length);

/* The tag epoch at `index`, less than head.tag_count. */
uint64_t envelope_tag_epoch(const struct envelope_view *view, size_t index);

/*
 * Writes the plain value, head.plain_size bytes, to `destination`, which never gets more than `capacity`
 * bytes. RSHM_E_TOOSMALL (nothing written), RSHM_E_NODICT (it takes dictionary head.dictionary_id, which
 * view.dictionary is not; nothing written), RSHM_E_CORRUPT (does not decompress to exactly that size; the bytes
 * written are void), RSHM_E_FORMAT (compressed, and this build has no compression), RSHM_E_NOMEM.
 */
int envelope_payload(const struct envelope_view *view, void *destination, size_t capacity);

/*
 * Rewrites expiry and expiry bucket of an envelope in place. `bytes` has ENVELOPE_HEAD_BYTES at least and
 * passed envelope_peek_head(). The checksum stays right.
 */
void envelope_set_expiry(void *bytes, uint64_t now_ms, uint64_t expiry_ms);

#endif
