/*
 * riptide_priv.h - what the files of the library share.
 *
 * Two kinds of memory carry a handle. `struct riptide` is ordinary memory: a child of fork() inherits it, and with it the
 * read-only mappings (`struct rt_sight`). `struct rt_process` lies on pages that the kernel empties in a child
 * (MADV_WIPEONFORK): locks, channel, lists and error text belong to one process, and a child finds them zeroed, which means
 * "not set up yet", whatever the parent's threads were doing when it was born.
 */
#ifndef RIPTIDE_PRIV_H
#define RIPTIDE_PRIV_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

/* Objects are compiled with hidden visibility; what the public header declares is what the library exports. */
#pragma GCC visibility push(default)
#include "riptide/riptide.h"
#pragma GCC visibility pop
#include "shm/channel.h"
#include "shm/order.h"
#include "shm/os/map.h"
#include "shm/ring.h"

#define RT_MAGIC 0x65646974706972u /* "riptide" */
#define RT_TEXT 320u               /* bytes of an error text, NUL included */
#define RT_SLICE_MS 100u           /* the longest sleep between two looks at the agent */
#define RT_KEEP_MAX 64u            /* retired mappings that may wait for their last users */

/* ---- threads (thread.c) ------------------------------------------------------------------------------------- */

/* A thread's own line: written by that thread only. 128 bytes apart, for some processors fetch lines in pairs. */
struct rt_line {
	_Alignas(128) uint64_t calls; /* odd while the thread uses a mapping */
	uint64_t view;                /* address of the sight whose bytes it has lent, or 0 */
	uint64_t reads;               /* hot reads begun; every 64th is timed */
	uint64_t owner;               /* address of its thread's rt_thread; 0: free, or emptied by fork() */
	uint32_t shard;               /* of a channel's counters */
	bool shard_is_shared;
};

struct rt_thread {
	struct rt_line *line; /* in a child of fork() perhaps another thread's by now: see rt_line_is_mine() */
	uint64_t view;        /* survives fork(), as the mapping behind it does */
};

/* One pointer's worth of static TLS, so that a hit needs no call of the loader. */
extern __thread struct rt_thread rt_thread __attribute__((tls_model("initial-exec")));
extern bool rt_fence_is_needed; /* the kernel has no membarrier: pay for a fence in each call */

static inline bool rt_line_is_mine(const struct rt_line *line)
{
	return line && rshm_load_relaxed(&line->owner) == (uintptr_t)&rt_thread;
}

/* Prepares the process for threads; once. RIPTIDE_ESYSTEM with errno. */
int rt_threads_setup(void);

/* Gives the calling thread a line. NULL: too many threads; then read through the channel. */
struct rt_line *rt_line_acquire(void);

/*
 * True if every use of a mapping that was under way has ended since; what was unpublished before may then be unmapped,
 * save for views. Waits some microseconds per thread at most.
 */
bool rt_threads_have_moved_on(void);

/* True if a thread holds a view of this sight. */
bool rt_view_is_held(const void *sight);

/* Zeroed memory that a child of fork() finds zeroed again. NULL with errno. */
void *rt_wiped_memory(size_t size);

/* ---- what hot reads look at (sight.c) ----------------------------------------------------------------------- */

/* A read-only mapping that several sights may share. `users` under the process lock. */
struct rt_mapping {
	struct rshm_map map;
	uint32_t users;
	char name[RSHM_NAME_MAX];
};

/* Something unpublished that waits for its last user. */
struct rt_kept {
	struct rt_kept *next;
	bool is_channel;
};

/* Immutable once published. */
struct rt_sight {
	struct rt_kept kept;       /* first: lists of these */
	struct rshm_reader reader; /* .segment is NULL: no hot reads */
	const struct rshm_source *sources;
	struct rt_mapping *agent, *segment; /* segment may be NULL */
};

/* Opens and checks a named object of user `owner`. RIPTIDE_E…, with a text for people in `trouble`. */
int rt_mapping_open(const char *name, uint64_t size, uid_t owner, struct rt_mapping **ret, char *trouble);
void rt_mapping_unref(struct rt_mapping *mapping);

/* Makes a sight of an agent object and, unless `segment` is NULL, a segment. Takes a use of both. */
int rt_sight_create(struct rt_mapping *agent, struct rt_mapping *segment, struct rt_sight **ret, char *trouble);

/* Puts the sight in the place of the old one, which is unmapped when nobody looks at it any more. Lock held. */
void rt_sight_publish(riptide *handle, struct rt_sight *sight);
struct rt_sight *rt_sight_now(riptide *handle);

/* Puts something unpublished aside; rt_reclaim() frees what has no user left. Lock held; not from within a hot read. */
void rt_keep(riptide *handle, struct rt_kept *kept);
void rt_reclaim(riptide *handle);
/* Frees all of it: the handle is being closed. */
void rt_release_all(riptide *handle);

/* Asks the agent for the tenant's present segment, because the mapped one was retired. True: look again. */
bool rt_relocate(riptide *handle, uint64_t deadline_ms);

/* ---- the channel (attach.c, request.c) ---------------------------------------------------------------------- */

/* The doorbell's descriptor and what tells it from one that the application put in its place. */
struct rt_bell {
	int fd;
	dev_t device;
	ino_t inode;
};

bool rt_bell_is_ours(const struct rt_bell *bell);
void rt_bell_close(struct rt_bell *bell);

struct rt_channel {
	struct rt_kept kept; /* first */
	/* set once */
	struct rshm_map map;
	struct rshm_channel *shared;
	struct rt_bell bell;
	struct rt_mapping *agent;
	uint64_t agent_restarts;
	uint8_t agent_instance[16];
	uid_t agent_uid;
	uint64_t entry_limit; /* bytes of key, metadata and value; 0: not told */
	/* under the process lock */
	uint32_t users; /* requests under way */
	uint32_t free_slots, abandoned_slots;
	uint64_t free_blocks;
	uint8_t block_count[RSHM_SLOTS];
	uint8_t blocks[RSHM_SLOTS][RSHM_SLOT_BLOCKS];
};

/* What belongs to one process. Emptied by fork(). */
struct rt_process {
	/* read by every hot read; written when a channel comes or goes */
	_Alignas(64) uint64_t shards; /* address of RSHM_SHARDS shards; 0: set up first */
	uint32_t setup;               /* 0 not yet, 1 under way, 2 done */
	/* under lock */
	_Alignas(64) pthread_mutex_t lock;
	pthread_cond_t changed; /* a slot came free, an attach ended */
	struct rt_channel *channel;
	struct rt_kept *kept;
	uint32_t kept_count;
	bool attaching, locating;
	uint64_t outage_since_ms, next_attempt_ms; /* no agent answers since; do not try before */
	uint64_t next_locate_ms;                   /* try again to map a segment; 0: no reason to */
	uint64_t attaches;
	uint64_t past_hits, past_misses, past_retries; /* of channels that are gone */
	/* relaxed, any thread */
	uint64_t spin_average_ns;
	uint32_t spin_failures;
	uint32_t spin_rest; /* calls to come that do not spin */
	/* under error_lock */
	pthread_mutex_t error_lock;
	int error_code;
	char error_text[RT_TEXT + 160];
	/* counters while there is no channel */
	struct rshm_shard private_shards[RSHM_SHARDS];
};

struct riptide {
	uint64_t magic;
	/* read by every hot read */
	uint64_t sight; /* struct rt_sight *, 0 before the first attach */
	struct rt_process *process;
	/* set once, by riptide_open() */
	bool is_open;
	uint32_t timeout_ms, spin_us;
	void *token;
	size_t token_length;
	char socket[108]; /* of sockaddr_un */
	char tenant[RSHM_TENANT_MAX + 1];
	char name[48];
	bool limited; /* the tenant: who has no channel asks the agent */
	/* the latest channel, for a child of fork() to let go of: it must close the parent's doorbell */
	struct rt_channel *inherited;
};

/* Counts of this process begin to go to its own shards, for it has no channel. */
void rt_use_private_shards(riptide *handle);

/* Lock held. Waits for process->changed, at most until then. True: not for the time. */
bool rt_process_wait(struct rt_process *process, uint64_t until_ms);

/* Sets the process part up, if that was not done in this process. RIPTIDE_OK, or RIPTIDE_ECLOSED for a half-open handle. */
int rt_process_setup(riptide *handle);

/*
 * Attaches: control socket, doorbell, mappings. One attempt; RIPTIDE_E… with a text in `trouble`. Only by whoever set
 * process->attaching.
 */
int rt_attach(riptide *handle, uint64_t deadline_ms, char *trouble);

/* Finds out, without waiting, whether a channel's agent is gone. `thoroughly` asks the doorbell too. */
bool rt_channel_is_dead(const struct rt_channel *channel, bool thoroughly);

/* A channel to use until rt_channel_release(); attaches if there is none, at most until the deadline. */
int rt_channel_acquire(riptide *handle, uint64_t deadline_ms, struct rt_channel **ret, char *trouble);
void rt_channel_release(riptide *handle, struct rt_channel *channel);

/* The channel serves no more: the next call attaches anew. Any thread, any number of times. */
void rt_channel_drop(riptide *handle, struct rt_channel *channel);
void rt_channel_destroy(riptide *handle, struct rt_channel *channel);

struct rt_part {
	const void *bytes;
	size_t length;
};

/* A request with its body in private memory, and where its answer goes. */
struct rt_call {
	/* by the caller */
	const char *verb; /* for error texts */
	const void *key;
	size_t key_length;
	uint64_t deadline_ms;
	uint64_t ttl_ms;
	uint32_t metadata_len, items;
	uint16_t op, flags;
	uint32_t change;           /* rshm_change() */
	uint64_t version, operand; /* as in struct rshm_request */
	bool writes;               /* may not be repeated once the agent has taken it */
	struct rt_part parts[3];
	/*
	 * Called when the first answer is there and its status is RIPTIDE_OK: says in metadata_to and body_to (NULL: drop
	 * these bytes) where the answer goes; a negative status ends the call. May be called again if the agent dies between
	 * two pieces. NULL: no bytes are wanted.
	 */
	int (*place)(struct rt_call *call);
	void *context;
	unsigned char *metadata_to, *body_to;
	/* by rt_call_run() */
	struct rshm_answer answer;
	char trouble[RT_TEXT];
};

/* Runs a request to its end or deadline. Returns its status; errors are not yet noted in the handle. */
int rt_call_run(riptide *handle, struct rt_call *call);
/* The same, noting errors. */
int rt_call(riptide *handle, struct rt_call *call);

/* A request about one key, which may be NULL. */
void rt_call_init(struct rt_call *call, const char *verb, uint16_t op, const void *key, size_t key_length,
		  uint64_t deadline_ms);
/* Begins a public call: checks handle and key (rt_begin_key()), and initialises with the handle's deadline. */
int rt_begin(riptide *handle, struct rt_call *call, const char *verb, uint16_t op);
int rt_begin_key(riptide *handle, struct rt_call *call, const char *verb, uint16_t op, const void *key,
		 size_t key_length);
/* When a call that begins now must have ended. */
uint64_t rt_deadline_ms(const riptide *handle);

/* True for what an agent may say of a request, or of an item of a batch. */
bool rt_status_is_known(int status);

/*
 * Both halves of riptide_get() (get.c): the hot one answers RT_ASK or RT_RELOCATE if it cannot. With RIPTIDE_MISS only
 * ret->info is set. `soft_ms` NULL: a value past its soft deadline is missing. Else it is given, and *soft_ms is that
 * deadline, 0 for a value that is not past it.
 */
int rt_look_value(riptide *handle, const void *key, size_t key_length, uint64_t *soft_ms, struct riptide_value *ret);
int rt_ask_value(riptide *handle, const void *key, size_t key_length, uint64_t deadline_ms,
		 struct riptide_value *ret);
/* Runs an initialised call whose answer is an entry. With RIPTIDE_MISS only ret->info is set. Notes errors. */
int rt_call_value(riptide *handle, struct rt_call *call, struct riptide_value *ret);

/* Memory for a value of one allocation: value, NUL, metadata. RIPTIDE_ENOMEM; `value->info` is not touched. */
int rt_value_alloc(size_t value_length, size_t metadata_length, struct riptide_value *value);

/* What an answer says about the entry or its absence; and what there is to say of an absence without one. */
void rt_info_of_answer(const struct rshm_answer *answer, struct riptide_info *ret);
void rt_info_of_absence(uint32_t flags, struct riptide_info *ret);
uint64_t rt_age_ms(uint64_t version);
/* Milliseconds since 1970. */
uint64_t rt_realtime_ms(void);

/* What the options of a write say, encoded. */
struct rt_change {
	uint64_t ttl_ms;
	uint32_t bits;           /* rshm_change() */
	unsigned char *metadata; /* to be freed by rt_change_fini(), also after an error */
	size_t metadata_length;
};

/*
 * Checks and encodes; `options` may be NULL. `soft_deadline_ms` (0: none) goes into the metadata. RIPTIDE_EINVALID,
 * RIPTIDE_ETOOBIG, RIPTIDE_ENOMEM.
 */
int rt_change_init(const struct riptide_set_options *options, uint64_t soft_deadline_ms, struct rt_change *ret);
void rt_change_fini(struct rt_change *change);

/* Makes an initialised call a write of `value` as `change` says, and runs it. *ret_version (may be NULL): OK and CONFLICT. */
int rt_write(riptide *handle, struct rt_call *call, const struct rt_change *change, const void *value,
	     size_t value_length, uint64_t *ret_version);
/* Tells the caller of a write that went well what the answer's RSHM_ANSWER_… flags say. */
void rt_tell_flags(const struct riptide_set_options *options, uint32_t answer_flags);

/*
 * rt_write() as the caller's options say, which it checks. An initialised call's `change`, if not 0, is its own condition and
 * mode; then the options may have no condition.
 */
int rt_put(riptide *handle, struct rt_call *call, const void *value, size_t value_length,
	   const struct riptide_set_options *options, uint64_t *ret_version);

/* riptide_set() and riptide_delete() of a checked key with a deadline of their caller's (set.c). */
int rt_set(riptide *handle, const void *key, size_t key_length, const void *value, size_t value_length,
	   const struct riptide_set_options *options, uint64_t deadline_ms, uint64_t *ret_version);
int rt_delete(riptide *handle, const void *key, size_t key_length, uint64_t deadline_ms);

/* ---- errors (error.c) --------------------------------------------------------------------------------------- */

/* Notes an error of the handle and returns its code. `key` may be NULL, `text` NULL for the code's own. */
int rt_fail(riptide *handle, int code, const char *verb, const void *key, size_t key_length, const char *text);

/* riptide_strerror(), without the detour by which a library calls what it exports. */
const char *rt_strerror(int code);

/* Writes a text of at most RT_TEXT bytes; returns `code`. */
int rt_trouble(char *trouble, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* RIPTIDE_OK if the handle is open. */
int rt_check_open(riptide *handle, const char *verb);
/* The same, and the key can be served. */
int rt_check_key(riptide *handle, const char *verb, const void *key, size_t key_length);

static inline bool rt_handle_is_valid(const riptide *handle)
{
	return handle && handle->magic == RT_MAGIC;
}

/* ---- metadata (metadata.c) ---------------------------------------------------------------------------------- */

#define RT_TAG_MAX 255u /* bytes of a tag */

/*
 * Encodes, with a soft deadline if it is not 0. *ret_bytes is to be freed, NULL if there is none. RIPTIDE_ETOOBIG,
 * RIPTIDE_EINVALID, RIPTIDE_ENOMEM.
 */
int rt_metadata_encode(const struct riptide_metadata *metadata, uint64_t soft_deadline_ms, unsigned char **ret_bytes,
		       size_t *ret_length);

/* The soft deadline in encoded metadata, ms since 1970; 0: none. The bytes may be anything, and may change meanwhile. */
uint64_t rt_soft_deadline(const unsigned char *metadata, size_t length);
/* Is it over? Shortens *ttl_ms to what is left until then, 0 if it is. A deadline of 0 never is. */
bool rt_soft_is_over(uint64_t soft_deadline_ms, uint64_t *ttl_ms);

#endif
