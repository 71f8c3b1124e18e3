/*
 * loading.h - who loads a missing key: exactly one at a time, the others wait for it.
 *
 * Somebody who met a missing key enters. The first becomes its loader and is told a ticket; later ones wait in
 * order. The table knows neither stores nor channels: it says who is to load and when waiting is over, and the
 * caller does the rest. One table per worker; all functions on its thread, none blocks. Times are
 * clock_monotonic_ms().
 *
 * Every callback is the last thing the table does with an operation, and may call any function of the table again.
 */
#ifndef RIPTIDE_CACHE_LOADING_H
#define RIPTIDE_CACHE_LOADING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct loading;
struct loading_key;

struct loading_limits {
	uint32_t keys;                /* loaded at a time */
	uint32_t waiting;             /* operations */
	uint32_t per_owner;           /* keys it loads and operations it has waiting, together */
	uint64_t key_bytes;           /* of all keys being loaded */
	uint64_t load_timeout_max_ms; /* longer ones are cut to it; 1 .. 2^40 */
};

/* Whoever loads or waits: a client. To be embedded, zeroed at first, and in place until loading_owner_gone(). */
struct loading_owner {
	LIST_HEAD(loading_loads, loading_key) loads;
	LIST_HEAD(loading_waits, loading_op) waits;
	uint32_t count;
};

enum loading_answer {
	LOADING_READ_AGAIN, /* the key was written: read it; if it is missing all the same, enter again */
	LOADING_ABSENT,     /* the loader found that there is no such entry */
	LOADING_TIMED_OUT,  /* the operation's deadline has passed */
};

enum loading_outcome {
	LOADING_STORED, /* all waiting read again */
	LOADING_FAILED, /* the next one waiting loads */
	LOADING_NONE,   /* there is no such entry: all waiting are told */
};

struct loading_timer {
	uint64_t due_ms;
	uint32_t place;
	bool is_key;
};

/*
 * To be embedded in an operation. The memory is the table's from loading_enter() until one of the callbacks is
 * called.
 */
struct loading_op {
	/* the caller's, before loading_enter() */
	const void *tenant; /* identity only */
	const void *key;    /* borrowed during loading_enter() only */
	size_t key_len;
	struct loading_owner *owner;
	uint64_t load_timeout_ms; /* how long it may load; 0: the longest allowed */
	uint64_t deadline_ms;     /* how long it waits */
	/*
	 * Load the key, then call loading_done() with the ticket. An answer that cannot be delivered is a failed
	 * load.
	 */
	void (*become_loader)(struct loading_op *op, uint64_t ticket);
	void (*answer)(struct loading_op *op, enum loading_answer answer);
	/* the table's */
	struct loading_key *record;
	struct loading_timer timer;
	TAILQ_ENTRY(loading_op) line;
	LIST_ENTRY(loading_op) of_owner;
};

/* NULL without memory. */
struct loading *loading_create(const struct loading_limits *limits);
/* Nobody may be waiting; loads under way are forgotten, and their owners must not be used again. */
void loading_destroy(struct loading **table);

/*
 * The operation's key is missing: become_loader() is called now or later, or else answer(). RSHM_E_AGAIN: a limit is
 * reached; RSHM_E_TIMEDOUT: its deadline has passed; RSHM_E_NOMEM. With an error no callback is called.
 */
int loading_enter(struct loading *table, struct loading_op *op, uint64_t now_ms);

/*
 * As entering, for somebody who has an old value and will not wait (of `op` only the caller's fields are read,
 * neither deadline nor callbacks, and only during this call): RSHM_OK and the ticket, RSHM_MISS if another one
 * loads, or RSHM_E_AGAIN, RSHM_E_NOMEM.
 */
int loading_try_begin(struct loading *table, const struct loading_op *op, uint64_t now_ms, uint64_t *ret_ticket);

/*
 * Is this the ticket of the key's loader? Ask before a result is stored: a late one, or one that began before
 * somebody else's write, must not replace what is newer.
 */
bool loading_holds(const struct loading *table, const void *tenant, const void *key, size_t key_len, uint64_t ticket);

/*
 * The loader is done. False: it is the loader no more, and nothing is changed. (If its result has been stored
 * meanwhile, that is somebody else's write to whoever loads now: call loading_written().)
 */
bool loading_done(struct loading *table, const void *tenant, const void *key, size_t key_len, uint64_t ticket,
		  enum loading_outcome outcome, uint64_t now_ms);

/*
 * Somebody else wrote or removed the key: all waiting read again, and the loader's ticket is void. Cheap if nobody
 * loads.
 */
void loading_written(struct loading *table, const void *tenant, const void *key, size_t key_len, uint64_t now_ms);

/* The tenant's namespace was emptied: as loading_written() for each of its keys. Walks the table. */
void loading_forget(struct loading *table, const void *tenant);

/*
 * Is the operation in line? It must have been zeroed before it was first used. For whoever has to let go of what
 * loading_owner_gone() makes vanish: ask before.
 */
bool loading_is_waiting(const struct loading_op *op);

/*
 * The owner is dead: what it has waiting vanishes without a callback, and what it loads passes on. It may be freed
 * then.
 */
void loading_owner_gone(struct loading *table, struct loading_owner *owner, uint64_t now_ms);

/* Replaces loaders whose time is over by the next in line, and tells those whose deadline has passed. */
void loading_tick(struct loading *table, uint64_t now_ms);
/* When loading_tick() has something to do; UINT64_MAX: never, as things are. */
uint64_t loading_next_ms(const struct loading *table);

/* Now being loaded, and waiting. */
uint32_t loading_keys(const struct loading *table);
uint32_t loading_waiting(const struct loading *table);

#endif
