/*
 * layout.h - what the shared objects look like, byte by byte.
 *
 * Three kinds of object (protocols: agent object and segment by shm_open, channel by sealed memfd):
 *
 *   agent    header | liveness | 64 sources | tenant figures | client figures      agent rw, clients r
 *   segment  header | control | tag words | index buckets | ring                    agent rw, the tenant's users r
 *   channel  header | armed | submitted | 32 slots | blocks | 16 shards             agent rw, one client process rw
 *
 * All integers are native-endian: both sides run on one host. A change of any offset raises RSHM_LAYOUT_MAJOR; a field
 * taken from reserved space raises RSHM_LAYOUT_MINOR. Geometry is written once, before the object's state becomes LIVE,
 * and is checked by whoever maps it; what the other side can change later is read once into a local, checked, then used.
 */
#ifndef RSHM_LAYOUT_H
#define RSHM_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "shm/msg.h"

#define RSHM_LAYOUT_MAJOR 3u
#define RSHM_LAYOUT_MINOR 0u
#define RSHM_LINE 64u   /* bytes of a cache line */
#define RSHM_PAGE 4096u /* every object is a multiple of it */

#define RSHM_AGENT_MAGIC 0x31544e4741545052u   /* "RPTAGNT1" */
#define RSHM_SEGMENT_MAGIC 0x31474d5354545052u /* "RPTTSMG1" */
#define RSHM_CHANNEL_MAGIC 0x314e484354545052u /* "RPTTCHN1" */

/* States of an agent object and of a segment. */
enum rshm_state {
	RSHM_INIT = 0,    /* being built; nobody but its builder may use it */
	RSHM_LIVE = 1,    /* readable */
	RSHM_RETIRED = 2, /* let go of it at the next call; another one serves */
};

/* Begins every object. `instance` ties the objects of one agent instance together. */
struct rshm_header {
	uint64_t magic;
	uint32_t layout_major, layout_minor;
	uint64_t object_size; /* bytes; equals st_size */
	uint8_t instance[16]; /* random, for the life of the agent object */
	uint8_t boot_id[16];  /* of the kernel that ran when it was made */
	uint64_t generation;  /* random; tells two objects of one tenant apart */
};
_Static_assert(sizeof(struct rshm_header) == 64, "object header is one line");

/* ---- agent object ------------------------------------------------------------------------------------------- */

#define RSHM_SOURCES 64u /* a source is a backend node whose changes reach us by one feed */

/* One line each, written by the agent only: readers look at it on every hit. */
struct rshm_source {
	uint64_t epoch;          /* entries of another epoch are unverified; only grows */
	uint64_t lease_until_ms; /* CLOCK_MONOTONIC_COARSE; later than this every entry is unverified */
	uint64_t fenced_at_ms;   /* since when entries may be wrong: begins the stale limit */
	uint64_t clean;          /* agent only: 1 = no entry of an older epoch is left */
	uint64_t reserved[4];
};
_Static_assert(sizeof(struct rshm_source) == RSHM_LINE, "source is one line");

/* Figures for `riptidectl top`, copied there by the agent from the channels it drains. */
struct rshm_figures {
	uint64_t in_use; /* 0 = free; else a number that is new for every use of this place */
	uint64_t hits, hit_bytes, misses, stale;
	uint64_t sets, deletes, requests, errors;
	uint64_t hit_ns_p50, hit_ns_p99;                      /* sampled */
	uint32_t process_id, user_id;                         /* clients */
	uint64_t used_bytes, limit_bytes, entries, evictions; /* tenants */
	char name[80];                                        /* tenant id, NUL-terminated */
	char program[48];                                     /* clients: what the client calls itself */
};
_Static_assert(sizeof(struct rshm_figures) == 256, "figures are four lines");

struct rshm_agent {
	struct rshm_header header;
	uint32_t tenant_capacity, client_capacity; /* figures that follow this struct */
	char instance_name[40];
	char program_version[16];
	uint8_t reserved0[384];
	/* liveness, a line of its own */
	uint32_t state; /* enum rshm_state */
	uint32_t process_id;
	uint64_t started_ms;   /* CLOCK_MONOTONIC_COARSE */
	uint64_t heartbeat_ms; /* the control loop's last turn */
	uint64_t restarts;     /* adoptions of this object */
	uint64_t channels;     /* now open */
	uint64_t reserved1[3];
	uint8_t reserved2[448];
	struct rshm_source sources[RSHM_SOURCES];
	/* struct rshm_figures tenants[tenant_capacity], clients[client_capacity] */
};
_Static_assert(offsetof(struct rshm_agent, state) == 512, "liveness has its own line");
_Static_assert(offsetof(struct rshm_agent, sources) == 1024, "sources begin at 1024");
_Static_assert(sizeof(struct rshm_agent) == 1024 + 64 * RSHM_SOURCES, "agent object's fixed part");

static inline uint64_t rshm_agent_size(uint32_t tenant_capacity, uint32_t client_capacity)
{
	uint64_t figures = (uint64_t)tenant_capacity + client_capacity;
	uint64_t size = sizeof(struct rshm_agent) + figures * sizeof(struct rshm_figures);

	return (size + RSHM_PAGE - 1) / RSHM_PAGE * RSHM_PAGE;
}

static inline struct rshm_figures *rshm_agent_tenants(struct rshm_agent *agent)
{
	return (struct rshm_figures *)(agent + 1);
}

static inline struct rshm_figures *rshm_agent_clients(struct rshm_agent *agent, uint32_t tenant_capacity)
{
	return rshm_agent_tenants(agent) + tenant_capacity;
}

/* ---- segment ------------------------------------------------------------------------------------------------ */

#define RSHM_UNIT 16u        /* bytes per position */
#define RSHM_BUCKET_WORDS 8u /* one line */
#define RSHM_TAG_WORDS 4096u
#define RSHM_RING_MIN (64u << 10)
#define RSHM_RING_MAX (1ull << 40)
#define RSHM_BYTES_PER_WORD 96u /* of ring, per index word */

struct rshm_segment {
	struct rshm_header header;
	char tenant[72]; /* NUL-terminated */
	uint64_t hash_seed;
	uint64_t ring_bytes;   /* a power of two */
	uint64_t ring_offset;  /* from the object's start, page-aligned */
	uint64_t index_offset; /* line-aligned */
	uint64_t tag_offset;
	uint32_t bucket_count;
	uint32_t entry_limit; /* bytes: header + key + metadata + value of the largest hot entry */
	uint8_t reserved0[840];
	/* read on every hit, written every 64 KiB of appended bytes */
	uint64_t tail;
	uint32_t state;  /* enum rshm_state */
	uint32_t policy; /* enum rshm_policy */
	uint64_t stale_limit_ms;
	uint64_t reserved1[5];
	/* the writer's, for its successor */
	uint64_t head;
	uint64_t reserved2[7];
	uint8_t reserved3[2944];
};
_Static_assert(offsetof(struct rshm_segment, tail) == 1024, "tail line");
_Static_assert(offsetof(struct rshm_segment, head) == 1088, "head line");
_Static_assert(sizeof(struct rshm_segment) == RSHM_PAGE, "segment header is one page");

/* An entry in the ring; key, metadata and value follow, padded to RSHM_UNIT. */
struct rshm_entry {
	uint64_t position;
	uint64_t control_a; /* flags 0-15, source 16-31, epoch 32-63 */
	uint64_t control_b; /* expiry, CLOCK_MONOTONIC_COARSE ms; RSHM_NEVER */
	uint64_t version;   /* hybrid logical clock: ms since 1970 << 16 | counter */
	uint32_t value_len;
	uint16_t key_len;
	uint16_t metadata_len;
};
_Static_assert(sizeof(struct rshm_entry) == 40, "entry header is 40 bytes");

#define RSHM_NEVER UINT64_MAX
#define RSHM_FLAG_TOUCHED 0x1u  /* read since it was appended */
#define RSHM_FLAG_TAGGED 0x2u   /* metadata begins with tag pairs */
#define RSHM_FLAG_NEGATIVE 0x4u /* a remembered absence */
#define RSHM_FLAG_FILLER 0x8u   /* no entry: value_len bytes to skip */
#define RSHM_FLAG_SOFT 0x10u /* metadata has a soft deadline (RIPTIDE_METADATA_SOFT_DEADLINE): later than it, ask */
/* The eviction policy's own, in the ring so that its memory outlives the agent. Readers ignore them. */
#define RSHM_FLAG_MAIN 0x100u        /* has been kept, or came back soon after it had gone */
#define RSHM_FLAG_IDLE 0x200u        /* was kept although untouched */
#define RSHM_FLAGS_FREQUENCY 0xf000u /* 0-15, see rshm_frequency() */
#define RSHM_FREQUENCY_MAX 15u
#define RSHM_FLAGS_POLICY (RSHM_FLAG_MAIN | RSHM_FLAG_IDLE | RSHM_FLAGS_FREQUENCY)

/*
 * What the metadata of a TAGGED entry begins with; readers take the entry for missing if one slot's word differs, and hide
 * these bytes from callers. A segment has RSHM_TAG_WORDS words, uint32_t each.
 */
#define RSHM_TAGS_HOT_MAX 16u /* entries with more tags are not hot */
struct rshm_tag_pair {
	uint32_t slot; /* < RSHM_TAG_WORDS */
	uint32_t epoch;
};
struct rshm_tag_head {
	uint32_t count;
	uint32_t reserved;
	/* struct rshm_tag_pair pairs[count] */
};

static inline uint64_t rshm_control_a(uint32_t flags, uint32_t source, uint64_t epoch)
{
	return (flags & 0xffffu) | (uint64_t)(source & 0xffffu) << 16 | epoch << 32;
}

static inline uint32_t rshm_control_flags(uint64_t control_a)
{
	return (uint32_t)(control_a & 0xffffu);
}

static inline uint32_t rshm_control_source(uint64_t control_a)
{
	return (uint32_t)(control_a >> 16) & 0xffffu;
}

static inline uint32_t rshm_control_epoch(uint64_t control_a)
{
	return (uint32_t)(control_a >> 32);
}

/* How often the policy has found the entry touched, up to 15. */
static inline uint32_t rshm_frequency(uint64_t control_a)
{
	return (uint32_t)(control_a & RSHM_FLAGS_FREQUENCY) >> 12;
}

static inline uint64_t rshm_with_frequency(uint64_t control_a, uint32_t frequency)
{
	return (control_a & ~(uint64_t)RSHM_FLAGS_FREQUENCY) | (uint64_t)(frequency & RSHM_FREQUENCY_MAX) << 12;
}

/* ---- channel ------------------------------------------------------------------------------------------------ */

#define RSHM_SLOTS 32u
#define RSHM_INLINE 4096u
#define RSHM_BLOCKS 48u
#define RSHM_BLOCK 4096u
#define RSHM_SLOT_BLOCKS 16u /* of one piece: 64 KiB + inline */
#define RSHM_SHARDS 16u
#define RSHM_TOUCHES 64u         /* per shard, a power of two */
#define RSHM_LATENCY_CLASSES 32u /* powers of two of nanoseconds */
#define RSHM_ACCESSES 32u        /* per shard, a power of two */

/*
 * A request and its answer. The client fills all of it but `answer` and `word` transitions of the worker; the worker
 * copies the fields once, checks the copy, and uses only that.
 */
struct rshm_request {
	uint16_t op;       /* enum rshm_op */
	uint16_t flags;    /* RSHM_REQUEST_… */
	uint32_t body_len; /* bytes of the whole body: key ‖ metadata ‖ value, or batch items */
	uint32_t offset;   /* of this piece: in the body, or with FETCH in the answer */
	uint32_t piece_len;
	uint64_t deadline_ms; /* CLOCK_MONOTONIC_COARSE */
	uint64_t ttl_ms;      /* SET, TOUCH: RSHM_TTL_DEFAULT, RSHM_NEVER, or from now */
	uint32_t metadata_len;
	uint32_t items; /* batches */
	uint16_t key_len;
	uint16_t block_count;
	uint8_t blocks[RSHM_SLOT_BLOCKS]; /* numbers of blocks that extend `bytes` */
	uint32_t change;                  /* writes: rshm_change() */
	uint64_t version; /* RSHM_IF_VERSION: the entry's; with RSHM_REQUEST_TICKET: the loader's ticket */
	uint64_t operand; /* INCR: two's complement. FETCH: how long the caller may take to load, in ms */
	uint64_t reserved[6];
};
_Static_assert(sizeof(struct rshm_request) == 128, "request is two lines");

#define RSHM_REQUEST_FETCH 0x1u     /* next piece of the answer, not a new request */
#define RSHM_REQUEST_FRESH 0x2u     /* GET: do not answer from an unverified copy */
#define RSHM_REQUEST_TICKET 0x4u    /* SET, FETCH_FAILED: `version` is the ticket of a FETCH */
#define RSHM_REQUEST_NEGATIVE 0x8u  /* SET: remember that there is no such entry, for ttl_ms, in memory only */
#define RSHM_REQUEST_SOFT_TOO 0x20u /* GET, FETCH: a value past its soft deadline will do */
#define RSHM_REQUEST_REFRESH 0x10u  /* FETCH: there is an old value; answer RSHM_LOAD, or MISS if another one loads */

/* How a write is done: `change` of a request, `flags` of a batch item in a request. */
enum rshm_condition { RSHM_ALWAYS = 0, RSHM_IF_ABSENT = 1, RSHM_IF_PRESENT = 2, RSHM_IF_VERSION = 3 };
enum rshm_write_mode { RSHM_WRITE_DEFAULT = 0, RSHM_WRITE_THROUGH = 1, RSHM_WRITE_BEHIND = 2 };
enum rshm_compression {
	RSHM_COMPRESS_DEFAULT = 0,
	RSHM_COMPRESS_NONE = 1,
	RSHM_COMPRESS_LZ4 = 2,
	RSHM_COMPRESS_ZSTD = 3,
	RSHM_COMPRESS_AUTO = 4,
};

/* bits 0-2 enum rshm_condition, 3-4 enum rshm_write_mode, 5-7 enum rshm_compression */
static inline uint32_t rshm_change(uint32_t condition, uint32_t mode, uint32_t compression)
{
	return (condition & 7u) | (mode & 3u) << 3 | (compression & 7u) << 5;
}

static inline uint32_t rshm_change_condition(uint32_t change)
{
	return change & 7u;
}

static inline uint32_t rshm_change_mode(uint32_t change)
{
	return change >> 3 & 3u;
}

static inline uint32_t rshm_change_compression(uint32_t change)
{
	return change >> 5 & 7u;
}

#define RSHM_TTL_DEFAULT 0u

struct rshm_answer {
	int32_t status;      /* enum rshm_status */
	uint32_t flags;      /* RSHM_ANSWER_… */
	uint32_t answer_len; /* bytes of the whole answer: metadata ‖ value, batch items, or JSON */
	uint32_t offset;
	uint32_t piece_len;
	uint32_t metadata_len;
	uint64_t version;
	uint64_t ttl_ms; /* remaining; RSHM_NEVER = does not expire */
	/* EXISTS: reads of the key that the agent knows of; it is told samples of the hot ones, and forgets */
	uint64_t access_count;
	uint64_t accessed_ms_ago; /* since the last of them; RSHM_NEVER = none is known */
	uint64_t reserved;
};
_Static_assert(sizeof(struct rshm_answer) == 64, "answer is one line");

#define RSHM_ANSWER_STALE 0x1u
#define RSHM_ANSWER_ACCEPTED 0x2u /* a write: stands in the journal, will be stored */
#define RSHM_ANSWER_NEGATIVE 0x4u /* MISS: remembered, not asked */

struct rshm_slot {
	uint32_t word; /* generation << 4 | waiting << 3 | enum rshm_slot_state; the futex of its waiter */
	uint32_t reserved[15];
	struct rshm_request request;
	struct rshm_answer answer;
	unsigned char bytes[RSHM_INLINE];
};
_Static_assert(sizeof(struct rshm_slot) == 256 + RSHM_INLINE, "slot");

/*
 * What STATS answers: a tenant's figures, then what has no place there. It grows at its end; a reader takes what it gets, and
 * the rest for 0.
 */
struct rshm_stats {
	struct rshm_figures figures;
	uint64_t plain_bytes, stored_bytes; /* of values written, before and after compression */
	uint64_t milli_operations;          /* thousandths a second, over the last ten */
	uint64_t hit_ns_mean, hit_ns_p95;   /* of sampled hot reads */
	uint64_t evictions_capacity, evictions_expired, evictions_manual, evictions_memory_pressure;
	uint64_t evicted_bytes;
	uint64_t milli_evictions;   /* thousandths a second, over the last minute */
	uint64_t spilled, restored; /* entries: put to the disk tier, and found there */
	uint64_t journal_records;   /* accepted, not yet stored; of the tenants that share the worker */
};
_Static_assert(sizeof(struct rshm_stats) == sizeof(struct rshm_figures) + 14 * sizeof(uint64_t), "no padding");

/* Items of batches, in body and answer; key, metadata, value follow without padding. */
struct rshm_batch_item {
	uint32_t value_len;
	uint16_t key_len;
	uint16_t metadata_len;
	uint64_t ttl_ms;
	uint64_t version; /* answers; requests: as in struct rshm_request */
	int32_t status;   /* answers */
	uint32_t flags;   /* answers: RSHM_ANSWER_…; requests: rshm_change() */
};
_Static_assert(sizeof(struct rshm_batch_item) == 32, "batch item");

/* Answer of RSHM_OP_CHECK_QUOTA. */
struct rshm_quota {
	uint64_t allowed, has_limit, limit;
	uint64_t use; /* before what was asked */
	uint64_t retry_after_ms;
};

/* Answer of RSHM_OP_RATE. */
struct rshm_rate {
	uint64_t limited, limit, remaining, retry_after_ms, reset_after_ms;
};

/* A thread's own counters: written by one thread, drained by the agent. */
struct rshm_shard {
	uint64_t hits, hit_bytes, misses, stale, expired;
	uint64_t absent;                /* of the misses: found to be one without asking the agent */
	uint64_t stop_hits, stop_bytes; /* agent: at so many hits, or bytes of them, the reader asks it instead */
	uint32_t latency[RSHM_LATENCY_CLASSES];
	uint64_t touch_next; /* touches ever noted */
	uint64_t access_next;
	uint64_t accesses[RSHM_ACCESSES]; /* positions of sampled reads, whether touched before or not */
	uint64_t retries, sampled;
	uint64_t reserved1[4];
	uint64_t touches[RSHM_TOUCHES]; /* positions */
};
_Static_assert(sizeof(struct rshm_shard) == 1024, "shard");

struct rshm_channel {
	struct rshm_header header;
	uint64_t channel_id;
	uint64_t reserved0[7];
	uint32_t armed; /* agent only: 1 = ring the bell */
	uint32_t reserved1[15];
	uint32_t submitted; /* bit per slot: client ORs, worker exchanges with 0 */
	uint32_t reserved2[15];
	uint8_t reserved3[RSHM_PAGE - 256];
	struct rshm_slot slots[RSHM_SLOTS];
	unsigned char blocks[RSHM_BLOCKS][RSHM_BLOCK];
	struct rshm_shard shards[RSHM_SHARDS];
};
_Static_assert(offsetof(struct rshm_channel, armed) == 128, "armed has its own line");
_Static_assert(offsetof(struct rshm_channel, submitted) == 192, "submitted has its own line");
_Static_assert(offsetof(struct rshm_channel, slots) == RSHM_PAGE, "slots begin at a page");
_Static_assert(offsetof(struct rshm_channel, blocks) % RSHM_PAGE == 0, "blocks begin at a page");
_Static_assert(sizeof(struct rshm_channel) % RSHM_PAGE == 0, "channel is whole pages");
_Static_assert(sizeof(struct rshm_channel) <= 384u << 10, "a channel stays below 384 KiB");

#endif
