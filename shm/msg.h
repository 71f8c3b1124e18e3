/*
 * msg.h - the registry of numbers that agent and clients exchange.
 *
 * Every number stands here once and is never reused: not after a feature is gone, not in another range. A peer that
 * meets a number it does not know answers RSHM_E_UNSUPPORTED (operations) or skips it (tags).
 */
#ifndef RSHM_MSG_H
#define RSHM_MSG_H

#include <stdint.h>

/*
 * Status codes: 0, a positive outcome that is no error, or a negative error. The public RIPTIDE_E… constants of
 * <riptide/riptide.h> carry the same numbers; client-lib/error.c asserts it.
 */
enum rshm_status {
	RSHM_OK = 0,
	RSHM_MISS = 1,     /* the key is not there; not an error */
	RSHM_CONTINUE = 2, /* channel only: send, or fetch, the next piece */
	RSHM_CONFLICT = 3, /* the condition of a write does not hold; nothing was changed */
	RSHM_LOAD = 4,     /* channel only: the key is missing and the caller is to load it */

	/* The caller's fault: do not retry unchanged. */
	RSHM_E_INVALID = -1,     /* an argument or message that cannot be served */
	RSHM_E_TOOBIG = -2,      /* key, metadata, value or batch above its limit */
	RSHM_E_TOOSMALL = -3,    /* the caller's buffer is too small; the length needed is told */
	RSHM_E_DENIED = -4,      /* uid, token or policy says no */
	RSHM_E_NOTENANT = -5,    /* no such tenant, or not for this uid */
	RSHM_E_UNSUPPORTED = -6, /* operation or layout version unknown to the peer */
	RSHM_E_CLOSED = -7,      /* handle or agent is shutting down */
	RSHM_E_QUOTA = -8,       /* a quota of the tenant does not allow it; nothing was changed */

	/* Passing trouble. EAGAIN: nothing happened, retry. UNKNOWN: a write may or may not have happened. */
	RSHM_E_AGAIN = -20,    /* a bound was reached or a peer is away; nothing was changed */
	RSHM_E_UNKNOWN = -21,  /* the outcome of a write is not known */
	RSHM_E_TIMEDOUT = -22, /* deadline passed; nothing was changed (a read, or a write not yet sent) */
	RSHM_E_NOAGENT = -23,  /* no agent answers on the socket */
	RSHM_E_BACKEND = -24,  /* the store answered with an error of its own */
	RSHM_E_NOMEM = -25,    /* no memory, or /dev/shm is full */
	RSHM_E_STALE = -26,    /* only an unverified copy exists and the policy forbids to serve it */
	RSHM_E_VOID = -27,     /* riptide_view_end: the bytes were reclaimed while the view was held */
	RSHM_E_LIMITED = -28,  /* a rate limit of the tenant; nothing was changed, later it may pass */

	/* Data or peer cannot be trusted. */
	RSHM_E_CORRUPT = -40,  /* a stored entry failed its checks; it is never returned */
	RSHM_E_FORMAT = -41,   /* a stored entry is of a newer format than this program knows */
	RSHM_E_PROTOCOL = -42, /* the peer broke the protocol; the channel or connection is dropped */
	RSHM_E_SYSTEM = -43,   /* a system call failed where it must not; the text says which */
	RSHM_E_FULL = -44,     /* the store has no room left (disk full, map size, maxmemory) */
	RSHM_E_NODICT = -45,   /* a stored entry was compressed with a dictionary that is not known here */
	RSHM_E_NOKEY = -46,    /* a stored entry is encrypted, and its key is not known here */
};

/* Operations of a request channel. 1-99 data, 100-199 reserved for tags, sessions and quotas. */
enum rshm_op {
	RSHM_OP_GET = 1,
	RSHM_OP_SET = 2,
	RSHM_OP_DELETE = 3,
	RSHM_OP_EXISTS = 4,
	RSHM_OP_TOUCH = 5,
	RSHM_OP_GET_BATCH = 6,
	RSHM_OP_SET_BATCH = 7,
	RSHM_OP_DELETE_BATCH = 8,
	RSHM_OP_PING = 9,
	RSHM_OP_STATS = 10,
	RSHM_OP_LOCATE = 11, /* which segment serves this tenant now? answers as attach does, by tags */
	RSHM_OP_INCR = 12,   /* adds `operand` to a decimal number; the answer's value is the new one, 8 bytes */
	/*
	 * As GET, but whoever meets a missing key first is told RSHM_LOAD and a ticket in the answer's version; the others wait
	 * until that one has SET it (with the ticket), given up (FETCH_FAILED), died, or kept it too long.
	 */
	RSHM_OP_FETCH = 13,
	RSHM_OP_FETCH_FAILED = 14,      /* with the ticket: the next one waiting loads */
	RSHM_OP_INVALIDATE_TAG = 15,    /* the key is the tag */
	RSHM_OP_INVALIDATE_PREFIX = 16, /* the key is the prefix; the answer's version counts what was removed */
	RSHM_OP_CLEAR = 17,             /* the tenant's whole namespace; no key */
	RSHM_OP_FLUSH = 18,             /* everything accepted before is stored; no key */
	RSHM_OP_WARM_PREFIX = 20,       /* the same for all keys that begin with the key */
	RSHM_OP_CHECK_ACCESS =
		100, /* may the caller do what? key: resource, value: action; the answer's version: 1 = yes, its value: the rule */
	RSHM_OP_CHECK_QUOTA = 101, /* key: name, operand: amount, change: 0 ask, 1 consume, 2 release */
	RSHM_OP_RATE = 102,        /* key: operations_per_minute, operations or bytes */
	RSHM_OP_WARM = 19,         /* batch of keys to bring into shared memory; the answer: see warm in serve/ */
};

/* Operations of the control socket (SP REQ/REP bodies). 200-299; the answer carries the same number. */
enum rshm_control_op {
	RSHM_CONTROL_ATTACH = 200,
	RSHM_CONTROL_DETACH = 201,
	RSHM_CONTROL_PING = 202,
	RSHM_CONTROL_STATUS = 203,
	RSHM_CONTROL_STATS = 204,
	RSHM_CONTROL_CLIENTS = 205,
	RSHM_CONTROL_RELOAD = 206,
	/* Of a tenant; from the agent's own user or root only. */
	RSHM_CONTROL_DICT_LIST = 207,
	RSHM_CONTROL_DICT_TRAIN = 208, /* CONTENT_TYPE; may be left out if samples of only one are there */
	RSHM_CONTROL_DICT_SHOW = 209,  /* DICTIONARY_ID */
	RSHM_CONTROL_DICT_DROP = 210,  /* DICTIONARY_ID */
	RSHM_CONTROL_EVICTIONS_RESET = 211,
	RSHM_CONTROL_AUDIT = 212,   /* the last LINES of the audit log; from the same */
	RSHM_CONTROL_METRICS = 213, /* {"text": the text format of Prometheus} */
	/*
	 * The tenants of the backend: a TENANT, and a JSON document that says more where the operation takes one. From
	 * administrators of tenants; TENANT_GET of one's own from whoever may use it.
	 */
	RSHM_CONTROL_TENANT_CREATE = 220, /* JSON: the members of its record */
	RSHM_CONTROL_TENANT_GET = 221,
	RSHM_CONTROL_TENANT_LIST = 222,    /* JSON, optional: {"after": id, "limit": number} */
	RSHM_CONTROL_TENANT_UPDATE = 223,  /* JSON: the members that change */
	RSHM_CONTROL_TENANT_SUSPEND = 224, /* JSON, optional: {"reason": text} */
	RSHM_CONTROL_TENANT_RESUME = 225,
	RSHM_CONTROL_TENANT_DISABLE = 226, /* as SUSPEND */
	RSHM_CONTROL_TENANT_DELETE = 227,
	RSHM_CONTROL_TENANT_TOKENS = 228,       /* lists */
	RSHM_CONTROL_TENANT_TOKEN_CREATE = 229, /* JSON: {"role", "label", "ttl_seconds"} */
	RSHM_CONTROL_TENANT_TOKEN_ROTATE = 230, /* JSON: {"token": id, "grace_seconds"} */
	RSHM_CONTROL_TENANT_TOKEN_REVOKE = 231, /* JSON: {"token": id} */
	RSHM_CONTROL_TENANT_ROTATE_KEY = 236,   /* a new key; older entries are sealed anew behind it */
	RSHM_CONTROL_TENANT_REWRAP = 237,       /* its keys, by the current master key */
	RSHM_CONTROL_TENANT_KEYS = 238,         /* which there are, and how far the last change has come */
	RSHM_CONTROL_TENANT_ACCESS = 239,       /* JSON: {"action", "resource", "uid", "read_only"} */
};

/* Tags of control messages: {u16 tag, u32 length, value}, integers little-endian of exactly their size. */
enum rshm_tag {
	RSHM_TAG_TENANT = 1,          /* text, [a-z0-9-]{1,64} */
	RSHM_TAG_TOKEN = 2,           /* bytes; for a tenant that asks for one */
	RSHM_TAG_LAYOUT_MAJOR = 3,    /* u32, the client's */
	RSHM_TAG_PROCESS_ID = 4,      /* u32, informative only */
	RSHM_TAG_CLOCK_MS = 5,        /* u64, CLOCK_MONOTONIC_COARSE of the sender: tells time namespaces apart */
	RSHM_TAG_TICKET = 6,          /* 16 bytes, once, for the doorbell socket */
	RSHM_TAG_DOORBELL = 7,        /* text, path of the doorbell socket */
	RSHM_TAG_AGENT_OBJECT = 8,    /* text, shm_open name */
	RSHM_TAG_AGENT_SIZE = 9,      /* u64, bytes */
	RSHM_TAG_SEGMENT_OBJECT = 10, /* text, shm_open name */
	RSHM_TAG_SEGMENT_SIZE = 11,   /* u64, bytes */
	RSHM_TAG_AGENT_UID = 12,      /* u32; the client compares it with the kernel's word, never trusts it alone */
	RSHM_TAG_ERROR_TEXT = 13,     /* text for people: what failed, where, what to do */
	RSHM_TAG_JSON = 14,           /* text, a JSON document (status, stats, clients) */
	RSHM_TAG_CLIENT_NAME = 15,    /* text, informative: the program's name */
	RSHM_TAG_ENTRY_LIMIT = 16,    /* u64, bytes: key + metadata + value that the agent accepts */
	RSHM_TAG_CHANNEL_ID = 17,     /* u64, the agent's number of this channel */
	RSHM_TAG_CONTENT_TYPE = 18,   /* text, of values; may be empty: those that have none */
	RSHM_TAG_DICTIONARY_ID = 19,  /* u32 */
	RSHM_TAG_LINES = 20,          /* u32 */
};

/* What travels before every control body. Little-endian; 16 bytes. */
struct rshm_control_header {
	uint16_t magic; /* RSHM_CONTROL_MAGIC */
	uint8_t version;
	uint8_t flags; /* 0 */
	uint16_t op;
	int16_t status; /* requests: 0; answers: enum rshm_status */
	uint32_t request_id;
	uint32_t length; /* bytes of tags that follow */
};
_Static_assert(sizeof(struct rshm_control_header) == 16, "control header is 16 bytes on the wire");

#define RSHM_CONTROL_MAGIC 0x5452u /* "RT" */
#define RSHM_CONTROL_VERSION 1u

/* What a reader does with an entry whose source is fenced or whose lease ran out. */
enum rshm_policy {
	RSHM_POLICY_MISS = 0,  /* ask the agent */
	RSHM_POLICY_STALE = 1, /* serve it, marked stale, up to the segment's stale limit */
	RSHM_POLICY_ERROR = 2, /* RSHM_E_STALE */
};

/* Limits of the data model; beyond them a request is RSHM_E_TOOBIG. */
#define RSHM_KEY_MAX 65535u      /* bytes; 1 is the least */
#define RSHM_METADATA_MAX 65535u /* bytes, encoded */
#define RSHM_BATCH_MAX 65536u    /* items of one submission */
#define RSHM_QUOTA_NAME_MAX 48u  /* characters of a quota's name */
#define RSHM_TENANT_MAX 64u      /* characters of a tenant id */

#endif
