/*
 * ledger.h - who wrote what when, and whether a value that was read may be as old as it is.
 *
 * Each key has one writer, so its values have an order: numbers that grow. A writer notes a number before it writes it, and
 * again when the write has returned. A reader asks about what it got: the promise is that once a write has returned anywhere,
 * no read that begins more than `bound_ms` later gets an older value as verified; on the host that wrote, none at all.
 *
 * In memory shared by all processes of a test. One process notes a key's writes; any number judges.
 */
#ifndef TESTS_SUPPORT_LEDGER_H
#define TESTS_SUPPORT_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEDGER_KEYS 48u
#define LEDGER_EVENTS 8192u   /* of a key; older ones only ever matter to values older still */
#define LEDGER_NUMBERS 65536u /* of a key, whose outcome can be looked up */
#define LEDGER_HOSTS 4u
#define LEDGER_ANYWHERE LEDGER_HOSTS /* written by a program that is no host of ours */

struct ledger;

/* NULL without memory. Shared with processes forked later. */
struct ledger *ledger_create(uint64_t bound_ms);
void ledger_destroy(struct ledger **ledger);

/* The next number of the key; the write begins. */
uint64_t ledger_begin(struct ledger *ledger, uint32_t key);
/* It has returned, and happened. `host`: through whose agent. */
void ledger_done(struct ledger *ledger, uint32_t key, uint64_t number, uint32_t host);
/* Nobody knows whether it happened, or when it will: whoever reads it is excused. */
void ledger_unknown(struct ledger *ledger, uint32_t key, uint64_t number);

/* Everything is removed at once: what had been done when it began is older than what is there afterwards. */
void ledger_flush_begin(struct ledger *ledger);
void ledger_flush_done(struct ledger *ledger);

/*
 * Servers that fail over lose what their replica had not got yet: what returned from `from_ms` until ledger_forgive_end()
 * may be gone, and what was there before it is the truth again. One such time at once.
 */
void ledger_forgive_begin(struct ledger *ledger, uint64_t from_ms);
void ledger_forgive_end(struct ledger *ledger);
/* The end of the last of them, 0 if there was none. */
uint64_t ledger_forgiven_until_ms(const struct ledger *ledger);
/* All such times together. */
uint64_t ledger_forgiven_ms(const struct ledger *ledger);

struct verdict {
	bool violation;
	uint64_t
		age_ms; /* of the oldest write that had returned and was newer, when the read began; 0: there was none */
	uint64_t newer; /* its number */
	uint64_t newer_ms, newer_host;
};
/* A value that was read as verified by a read that began at `began_ms` (e2e_now_ms()) on `host`. */
struct verdict ledger_judge(const struct ledger *ledger, uint32_t key, uint64_t number, uint64_t began_ms,
			    uint32_t host);

#endif
