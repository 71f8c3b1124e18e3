/*
 * policy.c - five ways to choose at the tail.
 *
 *   tail ──▶ live entry: keep? ──yes──▶ copied to the head, not touched any more, flags as the policy left them
 *                              ──no───▶ gone; s3fifo remembers a mark of its hash in the ghost
 *
 * A log reclaims in one order only, so every policy here is a clock whose hand is the tail and whose round is a lap of the
 * ring. Readers tell at most one touch per entry and lap; a frequency is therefore a count of laps, 0 to 15.
 *
 *   lru     keeps what was touched in this lap.
 *   lfu     adds the lap's touch to the frequency, takes one off in some laps without, and keeps what reaches a bar. The bar
 *           rises while more is kept than may be, and falls while less is.
 *   ttl     keeps what expires later than a share of 64 entries of the latest lap; among equals what was touched. The share
 *           moves as lfu's bar does.
 *   random  keeps every other entry.
 *   s3fifo  S3-FIFO (Yang et al., 2023) in one log. An entry is new until it has passed the tail once; then it either belongs
 *           to the main part, because it was touched, or goes, and leaves its mark in the ghost. What comes back while its
 *           mark is fresh belongs to the main part at once. There an untouched lap costs one of the frequency, and at zero
 *           the entry; but only while the main part is above its share. Copies cost nothing but time, so new entries have
 *           the rest of each lap: three copies per new entry mean that new ones pass through a quarter of the ring.
 *
 * The share of new entries is at least what reinsert_percent leaves them. s3fifo raises it where a new entry is as likely to
 * be touched in its lap as one of the main part that was kept although its last lap was untouched, the one that the new
 * entry's room was taken from; and lowers it where it is less likely. So where popularity moves fast and the main part goes
 * stale, the ring becomes a clock over recent entries, which is lru. The first sign of use is a touch; where laps are too
 * short for any, it is that what went comes back.
 *
 * The allowance is what the share grants and copies use up, in units; negative: more was kept than granted. The writer has a
 * credit of its own that bounds the copies whatever a policy wants; policies aim a little below it, because what the writer
 * refuses is no choice of theirs.
 *
 * Deliberately absent: exact order, which would need a list over all entries and a step at every read; and anything that a
 * reader would have to write.
 */
#include "agent/cache/policy.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "shm/index.h"

#define GHOST_RING_BYTES 512u /* of ring, per mark */
#define GHOST_WAYS 16u
#define GHOST_LINES_MIN 8u
#define GHOST_TICKS 8192u /* of age, in a full ghost; stamps have 16 bits */

#define SHARE_ALL (1 << 20)
#define SHARE_MOST (SHARE_ALL / 20 * 19)
#define SHARE_STEP (SHARE_ALL / 32)
#define SHARE_SAMPLE_MIN 1024u /* entries between two steps; a lap, if that is more */
#define S3FIFO_FREQUENCY_MAX 3u
#define LFU_FORGETS_ONE_IN 8u /* untouched laps */
#define TTL_SAMPLES 64u

/* One cache line. A mark is 15 bits of the hash and a one; 0 = empty. */
struct ghost_line {
	uint16_t mark[GHOST_WAYS];
	uint16_t stamp[GHOST_WAYS]; /* of arrivals, in ticks; wraps */
};

struct ghost {
	struct ghost_line *lines; /* NULL: not in use */
	uint64_t line_count;      /* a power of two */
	uint64_t arrivals, arrivals_per_tick;
};

struct policy {
	struct rshm_writer *writer;
	enum hot_policy kind;
	rshm_drop_fn *drop_hook;
	void *drop_context;
	uint64_t random;
	/* how much may be kept */
	int32_t share, share_least; /* of new entries, of SHARE_ALL */
	int64_t allowance;          /* units, within ± allowance_most() */
	uint64_t head_seen, kept_units;
	struct ghost ghost;
	/* s3fifo: since the last step of the share */
	uint64_t new_seen, new_touched, idle_seen, idle_touched, returned;
	/* ttl */
	uint64_t deadlines[TTL_SAMPLES], sorted[TTL_SAMPLES];
	uint64_t deadline_pause; /* entries until the next sample */
	uint32_t deadline_next, deadline_count;
};

static const char *const names[HOT_POLICIES] = {"lru", "lfu", "ttl", "random", "s3fifo"};

const char *policy_name(enum hot_policy kind)
{
	return (unsigned int)kind < HOT_POLICIES ? names[kind] : "unknown";
}

/* ---- ghost -------------------------------------------------------------------------------------------------- */

static void ghost_open(struct ghost *ghost, uint64_t ring_bytes)
{
	uint64_t lines = GHOST_LINES_MIN;

	while (lines * GHOST_WAYS * GHOST_RING_BYTES < ring_bytes)
		lines *= 2;
	*ghost = (struct ghost){
		.lines = calloc(lines, sizeof(*ghost->lines)),
		.line_count = lines,
		.arrivals_per_tick = (lines * GHOST_WAYS + GHOST_TICKS - 1) / GHOST_TICKS,
	};
}

static void ghost_close(struct ghost *ghost)
{
	free(ghost->lines);
	*ghost = (struct ghost){.lines = NULL};
}

static uint16_t mark_of(uint64_t hash)
{
	return (uint16_t)(hash >> 48 | 1u);
}

static struct ghost_line *ghost_line_of(const struct ghost *ghost, uint64_t hash)
{
	return &ghost->lines[hash >> 8 & (ghost->line_count - 1)];
}

static uint16_t ticks_since(const struct ghost *ghost, uint16_t stamp)
{
	return (uint16_t)((uint16_t)(ghost->arrivals / ghost->arrivals_per_tick) - stamp);
}

/* Takes an empty place of the line, or the oldest one's. */
static void ghost_add(struct ghost *ghost, uint64_t hash)
{
	struct ghost_line *line = ghost_line_of(ghost, hash);
	unsigned int place = 0;

	for (unsigned int i = 0; i < GHOST_WAYS && line->mark[place] != 0; i++)
		if (line->mark[i] == 0 || ticks_since(ghost, line->stamp[i]) > ticks_since(ghost, line->stamp[place]))
			place = i;
	line->mark[place] = mark_of(hash);
	line->stamp[place] = (uint16_t)(ghost->arrivals / ghost->arrivals_per_tick);
	ghost->arrivals++;
}

/* Takes a mark out. True if it was there and among the latest `most` that came. */
static bool ghost_take(struct ghost *ghost, uint64_t hash, uint64_t most)
{
	struct ghost_line *line = ghost_line_of(ghost, hash);

	for (unsigned int i = 0; i < GHOST_WAYS; i++) {
		if (line->mark[i] != mark_of(hash))
			continue;
		line->mark[i] = 0;
		return ticks_since(ghost, line->stamp[i]) * ghost->arrivals_per_tick <= most;
	}
	return false;
}

/* ---- how much may be kept ----------------------------------------------------------------------------------- */

static int64_t allowance_most(const struct policy *p)
{
	return (int64_t)(p->writer->units / 2);
}

static int64_t clamp(int64_t value, int64_t least, int64_t most)
{
	return value < least ? least : value > most ? most : value;
}

static void set_share(struct policy *p, int32_t share)
{
	p->share = (int32_t)clamp(share, p->share_least, SHARE_MOST > p->share_least ? SHARE_MOST : p->share_least);
}

/* Grants what has been appended since the last look, our own copies apart. */
static void grant(struct policy *p)
{
	uint64_t appended = p->writer->head - p->head_seen;
	uint64_t fresh = appended > p->kept_units ? appended - p->kept_units : 0;
	int64_t most = allowance_most(p);

	p->head_seen = p->writer->head;
	p->kept_units = 0;
	if (fresh > (uint64_t)most)
		fresh = (uint64_t)most;
	p->allowance = clamp(p->allowance + (int64_t)fresh * (SHARE_ALL - p->share) / p->share, -most, most);
}

static void use(struct policy *p, const struct rshm_item *item)
{
	p->kept_units =
		(rshm_entry_bytes(item->key_len, item->metadata_len, item->value_len) + RSHM_UNIT - 1) / RSHM_UNIT;
	p->allowance = clamp(p->allowance - (int64_t)p->kept_units, -allowance_most(p), allowance_most(p));
}

/* ---- the five ----------------------------------------------------------------------------------------------- */

/* xorshift64 */
static uint64_t random_next(struct policy *p)
{
	p->random ^= p->random << 13;
	p->random ^= p->random >> 7;
	p->random ^= p->random << 17;
	return p->random;
}

static bool is_touched(const struct rshm_item *item)
{
	return rshm_control_flags(item->control_a) & RSHM_FLAG_TOUCHED;
}

static bool keep_lfu(struct policy *p, struct rshm_item *item)
{
	uint32_t frequency = rshm_frequency(item->control_a);
	/* 1 while there is an allowance, 16 when as much again is used up. */
	int64_t overdrawn = p->allowance < 0 ? -p->allowance : 0;
	uint32_t bar = 1 + (uint32_t)(overdrawn * 15 / allowance_most(p));

	if (is_touched(item))
		frequency += frequency < RSHM_FREQUENCY_MAX;
	else if (frequency && random_next(p) % LFU_FORGETS_ONE_IN == 0)
		frequency--;
	item->control_a = rshm_with_frequency(item->control_a, frequency);
	return frequency >= bar;
}

static int compare_deadlines(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Some of the deadlines that came by in the latest lap. */
static void note_deadline(struct policy *p, uint64_t deadline_ms)
{
	if (p->deadline_pause) {
		p->deadline_pause--;
		return;
	}
	p->deadline_pause = p->writer->live_entries / TTL_SAMPLES;
	p->deadlines[p->deadline_next] = deadline_ms;
	p->deadline_next = (p->deadline_next + 1) % TTL_SAMPLES;
	if (p->deadline_count < TTL_SAMPLES)
		p->deadline_count++;
	memcpy(p->sorted, p->deadlines, sizeof(p->sorted));
	qsort(p->sorted, p->deadline_count, sizeof(p->sorted[0]), compare_deadlines);
}

static bool keep_ttl(struct policy *p, const struct rshm_item *item)
{
	int64_t most = allowance_most(p);
	uint64_t bar;

	note_deadline(p, item->control_b);
	/* The soonest of all while the allowance is full, the latest when all of it and as much again is used up. */
	bar = p->sorted[(most - p->allowance) * (p->deadline_count - 1) / (2 * most)];
	return item->control_b > bar || (item->control_b == bar && is_touched(item));
}

/* Two to three, because to keep an idle entry is a copy more. */
static bool new_are_worth_more(const struct policy *p)
{
	bool none_is_touched = p->idle_touched * 64 < p->idle_seen && p->new_touched * 64 < p->new_seen;

	/* Laps may be too short for new entries to be touched; if they come back, that was so. */
	if (none_is_touched)
		return p->returned * 8 > p->new_seen;
	return p->new_touched * p->idle_seen * 3 > p->idle_touched * p->new_seen * 2;
}

static void judge_share(struct policy *p)
{
	uint64_t seen = p->new_seen + p->idle_seen;

	if (seen < SHARE_SAMPLE_MIN || seen < p->writer->live_entries)
		return;
	set_share(p, p->share + (new_are_worth_more(p) ? SHARE_STEP : -SHARE_STEP));
	p->new_seen = p->new_touched = p->idle_seen = p->idle_touched = p->returned = 0;
}

/* One that is let go stays as it is: the drop hook sees it. */
static bool keep_new(struct policy *p, struct rshm_item *item)
{
	p->new_seen++;
	p->new_touched += is_touched(item);
	if (!is_touched(item) && rshm_frequency(item->control_a) == 0)
		return false;
	item->control_a = rshm_with_frequency(item->control_a | RSHM_FLAG_MAIN, 0);
	return true;
}

static bool keep_main(struct policy *p, struct rshm_item *item)
{
	uint32_t frequency = rshm_frequency(item->control_a);
	bool was_idle = item->control_a & RSHM_FLAG_IDLE;

	p->idle_seen += was_idle;
	p->idle_touched += was_idle && is_touched(item);
	if (is_touched(item)) {
		frequency += frequency < S3FIFO_FREQUENCY_MAX;
		item->control_a &= ~(uint64_t)RSHM_FLAG_IDLE;
	} else {
		if (p->allowance < allowance_most(p) / 2 && frequency-- == 0)
			return false;
		item->control_a |= RSHM_FLAG_IDLE;
	}
	item->control_a = rshm_with_frequency(item->control_a, frequency);
	return true;
}

static bool keep_s3fifo(struct policy *p, struct rshm_item *item)
{
	judge_share(p);
	return item->control_a & RSHM_FLAG_MAIN ? keep_main(p, item) : keep_new(p, item);
}

static bool keep_by_kind(struct policy *p, struct rshm_item *item)
{
	switch (p->kind) {
	case HOT_LRU:
		return is_touched(item);
	case HOT_LFU:
		return keep_lfu(p, item);
	case HOT_TTL:
		return keep_ttl(p, item);
	case HOT_RANDOM:
		return random_next(p) >> 63;
	case HOT_S3FIFO:
		return keep_s3fifo(p, item);
	case HOT_POLICIES:
		break;
	}
	return false;
}

/* ---- the writer's callbacks --------------------------------------------------------------------------------- */

static bool policy_keep(void *context, struct rshm_item *item, uint64_t position)
{
	struct policy *p = context;

	(void)position;
	grant(p);
	if (clock_monotonic_ms() >= item->control_b || !keep_by_kind(p, item))
		return false;
	use(p, item);
	return true;
}

static void policy_drop(void *context, const struct rshm_item *item, uint64_t position)
{
	struct policy *p = context;

	if (p->ghost.lines && clock_monotonic_ms() < item->control_b)
		ghost_add(&p->ghost, rshm_hash(p->writer->hash_seed, item->key, item->key_len));
	if (p->drop_hook)
		p->drop_hook(p->drop_context, item, position);
}

/* A key that is not in the ring: has it been there lately? */
static uint32_t flags_of_newcomer(struct policy *p, uint64_t hash)
{
	if (!p->ghost.lines || !ghost_take(&p->ghost, hash, p->writer->live_entries))
		return 0;
	p->returned++;
	return RSHM_FLAG_MAIN;
}

static uint32_t policy_enter(void *context, uint64_t hash, const struct rshm_entry *replaced)
{
	uint32_t frequency;

	if (!replaced)
		return flags_of_newcomer(context, hash);
	frequency = rshm_frequency(replaced->control_a);
	if ((replaced->control_a & RSHM_FLAG_TOUCHED) && frequency < RSHM_FREQUENCY_MAX)
		frequency++;
	return (uint32_t)rshm_with_frequency(replaced->control_a & RSHM_FLAG_MAIN, frequency);
}

/* ---- public ------------------------------------------------------------------------------------------------- */

struct policy *policy_create(struct rshm_writer *writer, enum hot_policy kind, uint32_t reinsert_percent)
{
	struct policy *p = calloc(1, sizeof(*p));
	/* A twentieth more than the writer's credit leaves them. */
	int64_t share = (int64_t)SHARE_ALL * 105 / (100 + (int64_t)reinsert_percent);

	writer->reinsert_percent = reinsert_percent;
	if (!p)
		return NULL;
	p->writer = writer;
	p->random = writer->hash_seed | 1u;
	p->share_least = p->share = (int32_t)clamp(share, 1, SHARE_ALL);
	p->allowance = allowance_most(p);
	p->head_seen = writer->head;
	policy_set_kind(p, kind);
	writer->keep = policy_keep;
	writer->drop = policy_drop;
	writer->enter = policy_enter;
	writer->context = p;
	return p;
}

void policy_destroy(struct policy **policy)
{
	if (*policy)
		ghost_close(&(*policy)->ghost);
	free(*policy);
	*policy = NULL;
}

void policy_set_kind(struct policy *policy, enum hot_policy kind)
{
	if (!policy)
		return;
	if (kind != HOT_S3FIFO)
		ghost_close(&policy->ghost);
	else if (!policy->ghost.lines)
		ghost_open(&policy->ghost, policy->writer->units * RSHM_UNIT);
	policy->share = policy->share_least;
	policy->kind = kind;
}

void policy_set_drop_hook(struct policy *policy, rshm_drop_fn *hook, void *context)
{
	if (!policy)
		return;
	policy->drop_hook = hook;
	policy->drop_context = context;
}

size_t policy_memory(const struct policy *policy)
{
	return sizeof(*policy) + (policy->ghost.lines ? policy->ghost.line_count * sizeof(*policy->ghost.lines) : 0);
}
