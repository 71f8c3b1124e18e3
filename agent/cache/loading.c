/*
 * loading.c - a hash table of keys being loaded, each with its loader's ticket and a line of those who wait.
 *
 *	table ── chains ──> loading_key ── line ──> loading_op, loading_op, …      heap ──> timers of both
 *	                        ^                       ^
 *	loading_owner ── loads ─┘                       │
 *	              ── waits ─────────────────────────┘
 *
 * A key stands in the table as long as somebody loads it. It is without a loader only while pass_on() looks for the
 * next one, that is, while that is on the stack; what ends a key takes it out of the table before wake() tells its
 * waiting. Both call back, and what they call may come back to the same key: so each takes an operation out of
 * every list before it calls, and looks at the key afresh afterwards. pass_on() is a loop that marks its key, so
 * that a loader which fails inside its callback adds no frame; a key marked so is freed by that loop and nowhere
 * else.
 *
 * The key is copied, because the operation that brought it ends when it becomes the loader; the copies are bounded
 * in number and bytes. A ticket is random, for it travels to a client and back: a counter would let one client end
 * another one's load. Time is the latest that any caller has named, so that a callback which enters again with an
 * older reading is refused and not told a second time.
 */
#include "agent/cache/loading.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "agent/base/assert.h"
#include "shm/msg.h"

#define LOADING_MAGIC 0x4c4f4144u
#define TICKETS 32u /* drawn at a time */
#define CHAINS_MIN 64u
#define CHAINS_MAX (1u << 20)

struct loading_key {
	struct loading_key *chain;
	uint64_t hash;
	const void *tenant;
	TAILQ_HEAD(loading_line, loading_op) line;
	/* the load under way */
	struct loading_owner *owner; /* NULL: none */
	uint64_t ticket;
	struct loading_timer timer;
	LIST_ENTRY(loading_key) of_owner;

	bool listed;  /* in its chain */
	bool passing; /* pass_on() is on the stack */
	size_t key_len;
	unsigned char key[];
};

struct loading {
	uint32_t magic;
	/* set once */
	struct loading_limits limits;
	uint64_t seed;
	uint32_t mask;
	/* changing */
	uint32_t keys, waiting, timers;
	uint64_t key_bytes;
	uint64_t now_ms;
	struct loading_key **chains;
	struct loading_timer **heap; /* the least due_ms first, NULL behind the last */
	uint32_t tickets_left;
	uint64_t tickets[TICKETS];
};

/* Up to 256 bytes are never short and never interrupted once the kernel's generator is seeded. */
static void draw(void *to, size_t length)
{
	must(getrandom(to, length, 0) == (ssize_t)length);
}

struct loading *loading_create(const struct loading_limits *limits)
{
	struct loading *table = calloc(1, sizeof(*table));
	uint32_t chains = CHAINS_MIN;

	must(limits->load_timeout_max_ms > 0 && limits->load_timeout_max_ms <= 1ull << 40);
	must(limits->keys > 0 && limits->waiting < UINT32_MAX - limits->keys);
	if (!table)
		return NULL;
	while (chains < limits->keys && chains < CHAINS_MAX)
		chains *= 2;
	table->magic = LOADING_MAGIC;
	table->limits = *limits;
	table->mask = chains - 1;
	table->chains = calloc(chains, sizeof(struct loading_key *));
	table->heap = calloc((size_t)limits->keys + limits->waiting, sizeof(struct loading_timer *));
	if (!table->chains || !table->heap) {
		loading_destroy(&table);
		return NULL;
	}
	draw(&table->seed, sizeof(table->seed));
	return table;
}

void loading_destroy(struct loading **table)
{
	struct loading *t = *table;

	*table = NULL;
	if (!t)
		return;
	must(t->magic == LOADING_MAGIC && t->waiting == 0);
	for (uint32_t i = 0; t->chains && i <= t->mask; i++)
		while (t->chains[i]) {
			struct loading_key *record = t->chains[i];

			t->chains[i] = record->chain;
			free(record);
		}
	free(t->chains);
	free(t->heap);
	t->magic = 0;
	free(t);
}

static void heap_place(struct loading *table, struct loading_timer *timer, uint32_t place)
{
	table->heap[place] = timer;
	timer->place = place;
}

static void heap_rise(struct loading *table, struct loading_timer *timer, uint32_t place)
{
	while (place > 0 && table->heap[(place - 1) / 2]->due_ms > timer->due_ms) {
		heap_place(table, table->heap[(place - 1) / 2], place);
		place = (place - 1) / 2;
	}
	heap_place(table, timer, place);
}

static void heap_sink(struct loading *table, struct loading_timer *timer, uint32_t place)
{
	for (;;) {
		uint32_t child = 2 * place + 1;

		if (child + 1 < table->timers && table->heap[child + 1]->due_ms < table->heap[child]->due_ms)
			child++;
		if (child >= table->timers || table->heap[child]->due_ms >= timer->due_ms)
			break;
		heap_place(table, table->heap[child], place);
		place = child;
	}
	heap_place(table, timer, place);
}

static void timer_start(struct loading *table, struct loading_timer *timer, uint64_t due_ms, bool is_key)
{
	must(table->timers < table->limits.keys + table->limits.waiting);
	timer->due_ms = due_ms;
	timer->is_key = is_key;
	heap_rise(table, timer, table->timers++);
}

static void timer_stop(struct loading *table, struct loading_timer *timer)
{
	struct loading_timer *last = table->heap[table->timers - 1];
	uint32_t place = timer->place;

	must(place < table->timers && table->heap[place] == timer);
	table->heap[place] = NULL;
	table->heap[--table->timers] = NULL;
	if (timer == last)
		return;
	heap_sink(table, last, place);
	heap_rise(table, last, last->place);
}

static uint64_t hash_of(const struct loading *table, const void *tenant, const void *key, size_t key_len)
{
	return XXH3_64bits_withSeed(key, key_len, table->seed ^ (uint64_t)(uintptr_t)tenant);
}

static struct loading_key *find_hashed(const struct loading *table, uint64_t hash, const void *tenant,
				       const void *key, size_t key_len)
{
	for (struct loading_key *r = table->chains[hash & table->mask]; r; r = r->chain)
		if (r->hash == hash && r->tenant == tenant && r->key_len == key_len &&
		    memcmp(r->key, key, key_len) == 0)
			return r;
	return NULL;
}

static struct loading_key *find(const struct loading *table, const void *tenant, const void *key, size_t key_len)
{
	must(table->magic == LOADING_MAGIC);
	if (table->keys == 0)
		return NULL;
	return find_hashed(table, hash_of(table, tenant, key, key_len), tenant, key, key_len);
}

static bool has_loader(const struct loading_key *record)
{
	return record->owner != NULL;
}

static int record_create(struct loading *table, const struct loading_op *op, uint64_t hash, struct loading_key **ret)
{
	struct loading_key *record;

	if (table->keys >= table->limits.keys || table->key_bytes + op->key_len > table->limits.key_bytes)
		return RSHM_E_AGAIN;
	record = malloc(sizeof(*record) + op->key_len);
	if (!record)
		return RSHM_E_NOMEM;
	*record = (struct loading_key){
		.chain = table->chains[hash & table->mask],
		.hash = hash,
		.tenant = op->tenant,
		.listed = true,
		.key_len = op->key_len,
	};
	TAILQ_INIT(&record->line);
	memcpy(record->key, op->key, op->key_len);
	table->chains[hash & table->mask] = record;
	table->keys++;
	table->key_bytes += op->key_len;
	*ret = record;
	return RSHM_OK;
}

static void unlist(struct loading *table, struct loading_key *record)
{
	struct loading_key **link = &table->chains[record->hash & table->mask];

	while (*link != record)
		link = &(*link)->chain;
	*link = record->chain;
	record->listed = false;
	table->keys--;
	table->key_bytes -= record->key_len;
}

static uint64_t next_ticket(struct loading *table)
{
	uint64_t ticket;

	do {
		if (table->tickets_left == 0) {
			draw(table->tickets, sizeof(table->tickets));
			table->tickets_left = TICKETS;
		}
		ticket = table->tickets[--table->tickets_left];
	} while (ticket == 0);
	return ticket;
}

static void begin_load(struct loading *table, struct loading_key *record, const struct loading_op *op)
{
	uint64_t longest_ms = table->limits.load_timeout_max_ms;
	bool has_own_limit = op->load_timeout_ms > 0 && op->load_timeout_ms < longest_ms;

	record->owner = op->owner;
	record->ticket = next_ticket(table);
	record->owner->count++;
	LIST_INSERT_HEAD(&record->owner->loads, record, of_owner);
	timer_start(table, &record->timer, table->now_ms + (has_own_limit ? op->load_timeout_ms : longest_ms), true);
}

static void end_load(struct loading *table, struct loading_key *record)
{
	must(has_loader(record));
	timer_stop(table, &record->timer);
	LIST_REMOVE(record, of_owner);
	record->owner->count--;
	record->owner = NULL;
	record->ticket = 0;
}

static void begin_wait(struct loading *table, struct loading_key *record, struct loading_op *op)
{
	op->record = record;
	op->owner->count++;
	table->waiting++;
	TAILQ_INSERT_TAIL(&record->line, op, line);
	LIST_INSERT_HEAD(&op->owner->waits, op, of_owner);
	timer_start(table, &op->timer, op->deadline_ms, false);
}

static void end_wait(struct loading *table, struct loading_op *op)
{
	timer_stop(table, &op->timer);
	LIST_REMOVE(op, of_owner);
	TAILQ_REMOVE(&op->record->line, op, line);
	op->owner->count--;
	op->record = NULL;
	table->waiting--;
}

/* The key has no loader: the next one whose time is not over loads. Ends the key if there is none. */
static void pass_on(struct loading *table, struct loading_key *record)
{
	struct loading_op *op;
	uint64_t ticket;

	if (record->passing)
		return;
	record->passing = true;
	while (!has_loader(record) && (op = TAILQ_FIRST(&record->line))) {
		end_wait(table, op);
		if (op->deadline_ms <= table->now_ms) {
			op->answer(op, LOADING_TIMED_OUT);
			continue;
		}
		begin_load(table, record, op);
		ticket = record->ticket;
		op->become_loader(op, ticket);
	}
	record->passing = false;
	if (has_loader(record))
		return;
	if (record->listed)
		unlist(table, record);
	free(record);
}

/* Nothing leads to the key any more but its waiting, which wake() has to tell. */
static void detach(struct loading *table, struct loading_key *record)
{
	unlist(table, record);
	if (has_loader(record))
		end_load(table, record);
}

static void wake(struct loading *table, struct loading_key *record, enum loading_answer answer)
{
	struct loading_op *op;

	while ((op = TAILQ_FIRST(&record->line))) {
		end_wait(table, op);
		op->answer(op, answer);
	}
	if (!record->passing)
		free(record);
}

static void advance(struct loading *table, uint64_t now_ms)
{
	must(table->magic == LOADING_MAGIC);
	if (now_ms > table->now_ms)
		table->now_ms = now_ms;
}

int loading_enter(struct loading *table, struct loading_op *op, uint64_t now_ms)
{
	struct loading_key *record;
	uint64_t hash;
	int status;

	must(op->owner && op->become_loader && op->answer);
	op->record = NULL;
	advance(table, now_ms);
	if (op->deadline_ms <= table->now_ms)
		return RSHM_E_TIMEDOUT;
	if (op->owner->count >= table->limits.per_owner)
		return RSHM_E_AGAIN;
	hash = hash_of(table, op->tenant, op->key, op->key_len);
	record = find_hashed(table, hash, op->tenant, op->key, op->key_len);
	if (record) {
		if (table->waiting >= table->limits.waiting)
			return RSHM_E_AGAIN;
		begin_wait(table, record, op);
		return RSHM_OK;
	}
	status = record_create(table, op, hash, &record);
	if (status != RSHM_OK)
		return status;
	begin_load(table, record, op);
	op->become_loader(op, record->ticket);
	return RSHM_OK;
}

int loading_try_begin(struct loading *table, const struct loading_op *op, uint64_t now_ms, uint64_t *ret_ticket)
{
	uint64_t hash = hash_of(table, op->tenant, op->key, op->key_len);
	struct loading_key *record;
	int status;

	must(op->owner);
	advance(table, now_ms);
	if (find_hashed(table, hash, op->tenant, op->key, op->key_len))
		return RSHM_MISS;
	if (op->owner->count >= table->limits.per_owner)
		return RSHM_E_AGAIN;
	status = record_create(table, op, hash, &record);
	if (status != RSHM_OK)
		return status;
	begin_load(table, record, op);
	*ret_ticket = record->ticket;
	return RSHM_OK;
}

static bool is_ticket_of(const struct loading_key *record, uint64_t ticket)
{
	return record && has_loader(record) && record->ticket == ticket;
}

bool loading_holds(const struct loading *table, const void *tenant, const void *key, size_t key_len, uint64_t ticket)
{
	return is_ticket_of(find(table, tenant, key, key_len), ticket);
}

bool loading_done(struct loading *table, const void *tenant, const void *key, size_t key_len, uint64_t ticket,
		  enum loading_outcome outcome, uint64_t now_ms)
{
	struct loading_key *record = find(table, tenant, key, key_len);

	advance(table, now_ms);
	if (!is_ticket_of(record, ticket))
		return false;
	if (outcome == LOADING_FAILED) {
		end_load(table, record);
		pass_on(table, record);
	} else {
		detach(table, record);
		wake(table, record, outcome == LOADING_STORED ? LOADING_READ_AGAIN : LOADING_ABSENT);
	}
	return true;
}

void loading_written(struct loading *table, const void *tenant, const void *key, size_t key_len, uint64_t now_ms)
{
	struct loading_key *record = find(table, tenant, key, key_len);

	advance(table, now_ms);
	if (!record)
		return;
	detach(table, record);
	wake(table, record, LOADING_READ_AGAIN);
}

void loading_forget(struct loading *table, const void *tenant)
{
	struct loading_key *detached = NULL, *record;

	must(table->magic == LOADING_MAGIC);
	/* All of them before the first callback, which may begin new loads of the tenant. */
	for (uint32_t i = 0; table->keys > 0 && i <= table->mask; i++)
		for (struct loading_key *next, *r = table->chains[i]; r; r = next) {
			next = r->chain;
			if (r->tenant != tenant)
				continue;
			detach(table, r);
			r->chain = detached;
			detached = r;
		}
	while ((record = detached)) {
		detached = record->chain;
		wake(table, record, LOADING_READ_AGAIN);
	}
}

bool loading_is_waiting(const struct loading_op *op)
{
	return op->record != NULL;
}

void loading_owner_gone(struct loading *table, struct loading_owner *owner, uint64_t now_ms)
{
	struct loading_op *op;
	struct loading_key *record;

	advance(table, now_ms);
	/* First the waits, or its loads would pass on to the dead. */
	while ((op = LIST_FIRST(&owner->waits)))
		end_wait(table, op);
	while ((record = LIST_FIRST(&owner->loads))) {
		end_load(table, record);
		pass_on(table, record);
	}
	must(owner->count == 0);
}

static void expire(struct loading *table, struct loading_timer *timer)
{
	if (timer->is_key) {
		struct loading_key *record =
			(struct loading_key *)((char *)timer - offsetof(struct loading_key, timer));

		end_load(table, record);
		pass_on(table, record);
	} else {
		struct loading_op *op = (struct loading_op *)((char *)timer - offsetof(struct loading_op, timer));

		end_wait(table, op);
		op->answer(op, LOADING_TIMED_OUT);
	}
}

void loading_tick(struct loading *table, uint64_t now_ms)
{
	struct loading_timer *first;

	advance(table, now_ms);
	/* Ends, for whatever starts anew in a callback is due later than now. */
	while ((first = table->heap[0]) && first->due_ms <= table->now_ms)
		expire(table, first);
}

uint64_t loading_next_ms(const struct loading *table)
{
	must(table->magic == LOADING_MAGIC);
	return table->heap[0] ? table->heap[0]->due_ms : UINT64_MAX;
}

uint32_t loading_keys(const struct loading *table)
{
	return table->keys;
}

uint32_t loading_waiting(const struct loading *table)
{
	return table->waiting;
}
