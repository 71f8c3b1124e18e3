/*
 * evictions.c - sums that never forget, and two small rings: the last ten entries, and a minute of one-second counts.
 *
 * The sums are kept as entries leave and never recomputed from a sample, so a breakdown by reason always adds up to
 * the total. The rate counts the evictions of the current second and the 59 before it and divides by exactly the
 * time these cover, at least one second: a burst in the first millisecond is not a rate of thousands.
 */
#include "agent/cache/evictions.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"

#define EVICTIONS_MAGIC 0x45564943u

struct second {
	uint64_t number; /* since the clock began */
	uint64_t count;
};

struct evictions {
	uint32_t magic;
	uint64_t past_count[EVICTION_REASONS], past_bytes[EVICTION_REASONS]; /* before the last reset */
	/* all below is what a reset clears */
	uint64_t since_ms;
	uint64_t count[EVICTION_REASONS], bytes[EVICTION_REASONS];
	uint64_t idle_known, idle_ms_sum;
	uint64_t recorded; /* the next place in `recent` is this, modulo its size */
	struct eviction recent[EVICTIONS_RECENT];
	struct second seconds[EVICTIONS_WINDOW_S]; /* at their number, modulo the window */
};

const char *eviction_reason_name(enum eviction_reason reason)
{
	static const char *const names[EVICTION_REASONS] = {
		[EVICTION_CAPACITY] = "capacity",
		[EVICTION_EXPIRED] = "expired",
		[EVICTION_MANUAL] = "manual",
		[EVICTION_MEMORY_PRESSURE] = "memory_pressure",
	};

	must((unsigned int)reason < EVICTION_REASONS);
	return names[reason];
}

struct evictions *evictions_create(uint64_t now_ms)
{
	struct evictions *book = calloc(1, sizeof(*book));

	if (!book)
		return NULL;
	book->magic = EVICTIONS_MAGIC;
	book->since_ms = now_ms;
	return book;
}

void evictions_destroy(struct evictions **book)
{
	if (!*book)
		return;
	must((*book)->magic == EVICTIONS_MAGIC);
	(*book)->magic = 0;
	free(*book);
	*book = NULL;
}

static void remember(struct evictions *book, const struct eviction *fresh, const void *key)
{
	struct eviction *place = &book->recent[book->recorded++ % EVICTIONS_RECENT];

	*place = *fresh;
	if (fresh->key_len > 0)
		memcpy(place->key, key, fresh->key_len < EVICTION_KEY_BYTES ? fresh->key_len : EVICTION_KEY_BYTES);
}

static void count_second(struct evictions *book, uint64_t count, uint64_t now_ms)
{
	struct second *second = &book->seconds[now_ms / 1000 % EVICTIONS_WINDOW_S];

	if (second->number != now_ms / 1000)
		*second = (struct second){.number = now_ms / 1000};
	second->count += count;
}

void evictions_record_many(struct evictions *book, enum eviction_reason reason, uint64_t count, uint64_t bytes,
			   uint64_t now_ms)
{
	must(book->magic == EVICTIONS_MAGIC && (unsigned int)reason < EVICTION_REASONS);
	book->count[reason] += count;
	book->bytes[reason] += bytes;
	count_second(book, count, now_ms);
}

void evictions_record(struct evictions *book, enum eviction_reason reason, uint64_t bytes, uint64_t idle_ms,
		      const void *key, uint16_t key_len, uint64_t now_ms)
{
	struct eviction fresh = {
		.evicted_at_ms = now_ms,
		.bytes = bytes,
		.idle_ms = idle_ms,
		.reason = reason,
		.key_len = key_len,
	};

	must(key || key_len == 0);
	evictions_record_many(book, reason, 1, bytes, now_ms);
	if (idle_ms != EVICTION_IDLE_UNKNOWN) {
		book->idle_known++;
		book->idle_ms_sum += idle_ms;
	}
	remember(book, &fresh, key);
}

static double rate_at(const struct evictions *book, uint64_t now_ms)
{
	uint64_t now = now_ms / 1000, count = 0, span_ms;
	uint64_t first = now >= EVICTIONS_WINDOW_S ? now - EVICTIONS_WINDOW_S + 1 : 0;
	uint64_t from_ms = first * 1000 > book->since_ms ? first * 1000 : book->since_ms;

	for (uint32_t i = 0; i < EVICTIONS_WINDOW_S; i++)
		if (book->seconds[i].number >= first && book->seconds[i].number <= now)
			count += book->seconds[i].count;
	span_ms = now_ms > from_ms + 1000 ? now_ms - from_ms : 1000;
	return (double)count * 1000 / (double)span_ms;
}

static double idle_average(const struct evictions_figures *figures)
{
	return figures->idle_known ? (double)figures->idle_ms_sum / (double)figures->idle_known : 0;
}

void evictions_figures(const struct evictions *book, uint64_t now_ms, struct evictions_figures *ret)
{
	must(book->magic == EVICTIONS_MAGIC);
	*ret = (struct evictions_figures){
		.rate = rate_at(book, now_ms),
		.idle_known = book->idle_known,
		.idle_ms_sum = book->idle_ms_sum,
	};
	for (uint32_t i = 0; i < EVICTION_REASONS; i++) {
		ret->count[i] = book->count[i];
		ret->bytes[i] = book->bytes[i];
		ret->total += book->count[i];
		ret->total_bytes += book->bytes[i];
		ret->ever_count[i] = book->past_count[i] + book->count[i];
		ret->ever_bytes[i] = book->past_bytes[i] + book->bytes[i];
	}
	ret->idle_ms_average = idle_average(ret);
	while (ret->recent_count < EVICTIONS_RECENT && ret->recent_count < book->recorded) {
		ret->recent[ret->recent_count] =
			book->recent[(book->recorded - 1 - ret->recent_count) % EVICTIONS_RECENT];
		ret->recent_count++;
	}
}

/* Both are in order, newest first; so is what comes out. */
static void merge_recent(struct evictions_figures *into, const struct evictions_figures *from)
{
	const struct evictions_figures own = *into;
	uint32_t a = 0, b = 0, n = 0;

	while (n < EVICTIONS_RECENT && (a < own.recent_count || b < from->recent_count)) {
		bool own_is_next =
			b == from->recent_count ||
			(a < own.recent_count && own.recent[a].evicted_at_ms >= from->recent[b].evicted_at_ms);

		into->recent[n++] = own_is_next ? own.recent[a++] : from->recent[b++];
	}
	into->recent_count = n;
}

void evictions_merge(struct evictions_figures *into, const struct evictions_figures *from)
{
	for (uint32_t i = 0; i < EVICTION_REASONS; i++) {
		into->count[i] += from->count[i];
		into->bytes[i] += from->bytes[i];
		into->ever_count[i] += from->ever_count[i];
		into->ever_bytes[i] += from->ever_bytes[i];
	}
	into->total += from->total;
	into->total_bytes += from->total_bytes;
	into->rate += from->rate;
	into->idle_known += from->idle_known;
	into->idle_ms_sum += from->idle_ms_sum;
	into->idle_ms_average = idle_average(into);
	merge_recent(into, from);
}

void evictions_reset(struct evictions *book, uint64_t now_ms)
{
	struct evictions fresh = {.magic = EVICTIONS_MAGIC, .since_ms = now_ms};

	must(book->magic == EVICTIONS_MAGIC);
	for (uint32_t i = 0; i < EVICTION_REASONS; i++) {
		fresh.past_count[i] = book->past_count[i] + book->count[i];
		fresh.past_bytes[i] = book->past_bytes[i] + book->bytes[i];
	}
	*book = fresh;
}
