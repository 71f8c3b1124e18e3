/*
 * inflight.c - a hash table of records, each a line of operations whose head is the active one.
 *
 * The table has a fixed number of chains; their mean length stays below one because the number of operations is bounded.
 * Leaving shares before it starts the next, so that a read that arrives while answers are being handed out sees a line
 * without finished operations. Two records of one key can exist for a moment, when the older one's line is empty.
 */
#include "agent/cache/inflight.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "agent/base/assert.h"
#include "shm/msg.h"

struct inflight_key {
	struct inflight_key *chain;
	uint64_t hash;
	const void *tenant;
	struct inflight_op *first, *last; /* the first is active; the record's key is its key */
	uint64_t departures;
	bool draining; /* drain() is on the stack: leaving only takes the operation out */
	/* of the active operation */
	bool marked, noted;
	uint64_t noted_version, noted_expiry_ms, began_round;
};

struct inflight {
	struct inflight_key **chains;
	uint32_t mask;
	uint32_t limit, count;
	uint64_t round;             /* of inflight_mark_all() */
	struct inflight_key *spare; /* chained by `chain` */
};

struct inflight *inflight_create(uint32_t limit)
{
	struct inflight *table = calloc(1, sizeof(*table));
	uint32_t chains = 64;

	while (chains < limit && chains < 1u << 20)
		chains *= 2;
	if (table)
		table->chains = calloc(chains, sizeof(struct inflight_key *));
	if (!table || !table->chains) {
		free(table);
		return NULL;
	}
	table->mask = chains - 1;
	table->limit = limit;
	return table;
}

void inflight_destroy(struct inflight **table)
{
	struct inflight *t = *table;

	*table = NULL;
	if (!t)
		return;
	must(t->count == 0);
	while (t->spare) {
		struct inflight_key *record = t->spare;

		t->spare = record->chain;
		free(record);
	}
	free(t->chains);
	free(t);
}

/* A record whose line is empty is about to go (its drain() is on the stack): a new one takes its place. */
static struct inflight_key *find(const struct inflight *table, const void *tenant, const void *key, size_t key_len,
				 uint64_t hash)
{
	for (struct inflight_key *r = table->chains[hash & table->mask]; r; r = r->chain)
		if (r->first && r->hash == hash && r->tenant == tenant && r->first->key_len == key_len &&
		    memcmp(r->first->key, key, key_len) == 0)
			return r;
	return NULL;
}

static uint64_t hash_of(const void *tenant, const void *key, size_t key_len)
{
	return XXH3_64bits_withSeed(key, key_len, (uint64_t)(uintptr_t)tenant);
}

static struct inflight_key *take_record(struct inflight *table)
{
	struct inflight_key *record = table->spare;

	if (!record)
		return malloc(sizeof(*record));
	table->spare = record->chain;
	return record;
}

static void give_record(struct inflight *table, struct inflight_key *record)
{
	struct inflight_key **link = &table->chains[record->hash & table->mask];

	while (*link != record)
		link = &(*link)->chain;
	*link = record->chain;
	record->chain = table->spare;
	table->spare = record;
}

/*
 * Starts whoever is first, again and again while they end before `start` returns: a loop, for a thousand operations in
 * line whose deadline has passed must not become a thousand frames.
 */
static void drain(struct inflight *table, struct inflight_key *record)
{
	uint64_t departures;

	record->draining = true;
	do {
		departures = record->departures;
		record->marked = record->noted = false;
		record->began_round = table->round;
		record->first->start(record->first);
	} while (record->departures != departures && record->first);
	record->draining = false;
	if (!record->first)
		give_record(table, record);
}

int inflight_enter(struct inflight *table, struct inflight_op *op)
{
	uint64_t hash = hash_of(op->tenant, op->key, op->key_len);
	struct inflight_key *record = find(table, op->tenant, op->key, op->key_len, hash);

	if (table->count >= table->limit)
		return RSHM_E_AGAIN;
	op->next = NULL;
	if (record) {
		op->record = record;
		record->last->next = op;
		record->last = op;
		table->count++;
		return RSHM_OK;
	}
	record = take_record(table);
	if (!record)
		return RSHM_E_NOMEM;
	*record = (struct inflight_key){
		.chain = table->chains[hash & table->mask],
		.hash = hash,
		.tenant = op->tenant,
		.first = op,
		.last = op,
	};
	table->chains[hash & table->mask] = record;
	table->count++;
	op->record = record;
	drain(table, record);
	return RSHM_OK;
}

static void unlink_first(struct inflight *table, struct inflight_key *record)
{
	record->first = record->first->next;
	record->departures++;
	table->count--;
}

void inflight_leave(struct inflight *table, struct inflight_op *op, bool share_result)
{
	struct inflight_key *record = op->record;
	bool outermost = !record->draining;

	must(record->first == op);
	unlink_first(table, record);
	record->draining = true;
	while (share_result && record->first && record->first->is_read) {
		struct inflight_op *sharer = record->first;

		unlink_first(table, record);
		sharer->share(sharer, op);
	}
	if (!outermost)
		return;
	record->draining = false;
	if (record->first)
		drain(table, record);
	else
		give_record(table, record);
}

static struct inflight_key *active(const struct inflight *table, const void *tenant, const void *key, size_t key_len)
{
	return find(table, tenant, key, key_len, hash_of(tenant, key, key_len));
}

void inflight_mark(struct inflight *table, const void *tenant, const void *key, size_t key_len)
{
	struct inflight_key *record = active(table, tenant, key, key_len);

	if (record)
		record->marked = true;
}

void inflight_mark_all(struct inflight *table)
{
	table->round++;
}

void inflight_note_version(struct inflight *table, const void *tenant, const void *key, size_t key_len,
			   uint64_t version, uint64_t expiry_ms)
{
	struct inflight_key *record = active(table, tenant, key, key_len);

	if (!record)
		return;
	/* Two answers in one turn, and nobody knows which is the later: at least one of them is of a foreign change. */
	record->marked |= record->noted && (record->noted_version != version || record->noted_expiry_ms != expiry_ms);
	record->noted = true;
	record->noted_version = version;
	record->noted_expiry_ms = expiry_ms;
}

static bool fits_note(const struct inflight_key *record, uint64_t version, uint64_t expiry_ms)
{
	return record->noted_version == version &&
	       (record->noted_expiry_ms == 0 || (expiry_ms != 0 && expiry_ms <= record->noted_expiry_ms));
}

bool inflight_may_publish(const struct inflight *table, const struct inflight_op *op, uint64_t version,
			  uint64_t expiry_ms)
{
	const struct inflight_key *record = op->record;

	must(record->first == op);
	return !record->marked && record->began_round == table->round &&
	       (!record->noted || fits_note(record, version, expiry_ms));
}

uint32_t inflight_count(const struct inflight *table)
{
	return table->count;
}
