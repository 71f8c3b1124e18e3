/*
 * A key's events stand in a ring, in the order of their numbers and of their times: a slot is written before the count that
 * makes it visible grows (release, acquire). Flushes are events of all keys, in a ring of their own.
 */
#include "tests/support/ledger.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/order.h"
#include "tests/support/e2e.h"

#define FLUSHES 1024u
#define LOSSES 1024u /* times of a run in which servers may lose what they took */
#define GRAIN_MS 12u /* of the clock that leases are measured by (CLOCK_MONOTONIC_COARSE, HZ=100), and of ours */

struct event {
	uint64_t number, returned_ms, host;
};

struct key_events {
	uint64_t begun, count;
	struct event events[LEDGER_EVENTS];
	uint8_t unknown[LEDGER_NUMBERS];
};

struct flush {
	uint64_t returned_ms;
	uint64_t floor[LEDGER_KEYS]; /* numbers up to these are gone */
};

struct loss {
	uint64_t from_ms, until_ms;
};

struct ledger {
	uint64_t bound_ms;
	struct key_events keys[LEDGER_KEYS];
	uint64_t loss_count;
	struct loss losses[LOSSES];
	uint64_t flush_count;
	struct flush flushes[FLUSHES];
};

struct ledger *ledger_create(uint64_t bound_ms)
{
	struct ledger *ledger = mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (ledger == MAP_FAILED)
		return NULL;
	ledger->bound_ms = bound_ms;
	return ledger;
}

void ledger_destroy(struct ledger **ledger)
{
	if (*ledger)
		munmap(*ledger, sizeof(**ledger));
	*ledger = NULL;
}

uint64_t ledger_begin(struct ledger *ledger, uint32_t key)
{
	struct key_events *k = &ledger->keys[key];
	uint64_t number = k->begun + 1;

	k->unknown[number % LEDGER_NUMBERS] = 0;
	rshm_store_release(&k->begun, number);
	return number;
}

void ledger_done(struct ledger *ledger, uint32_t key, uint64_t number, uint32_t host)
{
	struct key_events *k = &ledger->keys[key];

	k->events[k->count % LEDGER_EVENTS] =
		(struct event){.number = number, .returned_ms = e2e_now_ms(), .host = host};
	rshm_store_release(&k->count, k->count + 1);
}

void ledger_unknown(struct ledger *ledger, uint32_t key, uint64_t number)
{
	ledger->keys[key].unknown[number % LEDGER_NUMBERS] = 1;
}

void ledger_flush_begin(struct ledger *ledger)
{
	struct flush *flush = &ledger->flushes[ledger->flush_count % FLUSHES];

	for (uint32_t i = 0; i < LEDGER_KEYS; i++) {
		const struct key_events *k = &ledger->keys[i];
		uint64_t count = rshm_load_acquire(&k->count);

		flush->floor[i] = count ? k->events[(count - 1) % LEDGER_EVENTS].number : 0;
	}
}

void ledger_flush_done(struct ledger *ledger)
{
	ledger->flushes[ledger->flush_count % FLUSHES].returned_ms = e2e_now_ms();
	rshm_store_release(&ledger->flush_count, ledger->flush_count + 1);
}

void ledger_forgive_begin(struct ledger *ledger, uint64_t from_ms)
{
	if (ledger->loss_count == LOSSES)
		abort();
	ledger->losses[ledger->loss_count] = (struct loss){.from_ms = from_ms, .until_ms = UINT64_MAX};
	rshm_store_release(&ledger->loss_count, ledger->loss_count + 1);
}

void ledger_forgive_end(struct ledger *ledger)
{
	rshm_store_release(&ledger->losses[ledger->loss_count - 1].until_ms, e2e_now_ms());
}

uint64_t ledger_forgiven_until_ms(const struct ledger *ledger)
{
	return ledger->loss_count ? ledger->losses[ledger->loss_count - 1].until_ms : 0;
}

uint64_t ledger_forgiven_ms(const struct ledger *ledger)
{
	uint64_t total_ms = 0;

	for (uint64_t i = 0; i < ledger->loss_count; i++)
		total_ms += ledger->losses[i].until_ms - ledger->losses[i].from_ms;
	return total_ms;
}

static bool may_be_lost(const struct ledger *ledger, uint64_t returned_ms)
{
	uint64_t count = rshm_load_acquire(&ledger->loss_count);

	for (uint64_t i = 0; i < count; i++)
		if (returned_ms >= ledger->losses[i].from_ms &&
		    returned_ms <= rshm_load_acquire(&ledger->losses[i].until_ms))
			return true;
	return false;
}

/* The oldest of what had returned before the read began and was newer decides. */
static void weigh(struct verdict *verdict, const struct event *newer, uint64_t allowed_ms, uint64_t began_ms)
{
	uint64_t age_ms = began_ms - newer->returned_ms;

	if (age_ms > verdict->age_ms) {
		verdict->age_ms = age_ms;
		verdict->newer = newer->number;
		verdict->newer_ms = newer->returned_ms;
		verdict->newer_host = newer->host;
	}
	verdict->violation |= age_ms > allowed_ms;
}

static void weigh_flushes(const struct ledger *ledger, uint32_t key, uint64_t number, uint64_t began_ms,
			  struct verdict *verdict)
{
	uint64_t count = rshm_load_acquire(&ledger->flush_count);

	for (uint64_t i = count > FLUSHES / 2 ? count - FLUSHES / 2 : 0; i < count; i++) {
		const struct flush *flush = &ledger->flushes[i % FLUSHES];

		if (flush->floor[key] >= number && flush->returned_ms < began_ms) {
			const struct event flushed = {flush->floor[key], flush->returned_ms, LEDGER_ANYWHERE};

			weigh(verdict, &flushed, ledger->bound_ms + GRAIN_MS, began_ms);
		}
	}
}

struct verdict ledger_judge(const struct ledger *ledger, uint32_t key, uint64_t number, uint64_t began_ms,
			    uint32_t host)
{
	const struct key_events *k = &ledger->keys[key];
	uint64_t count = rshm_load_acquire(&k->count),
		 first = count > LEDGER_EVENTS / 2 ? count - LEDGER_EVENTS / 2 : 0;
	struct verdict verdict = {.violation = false};

	if (k->unknown[number % LEDGER_NUMBERS])
		return verdict;
	for (uint64_t i = count; i-- > first;) {
		const struct event *event = &k->events[i % LEDGER_EVENTS];
		bool own = event->host == host;

		if (event->number <= number)
			break;
		if (event->returned_ms < began_ms && !may_be_lost(ledger, event->returned_ms))
			weigh(&verdict, event, own ? 0 : ledger->bound_ms + GRAIN_MS, began_ms);
	}
	weigh_flushes(ledger, key, number, began_ms, &verdict);
	return verdict;
}
