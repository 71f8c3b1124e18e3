/*
 * The first 32 buckets hold one value each. From there on every power of two is cut into 32 equal buckets:
 *
 *	value   0 .. 31  | 32 .. 63 | 64 .. 127 | 128 .. 255 | ...  | 2^35 .. 2^36-1
 *	width       1    |    1     |     2     |     4      |            2^30
 *
 * so a bucket is at most 1/32 of its lower bound wide, and its middle at most 1/64 away from any value in it. Nothing is
 * allocated and nothing is locked: an observation is lost to no one, and a reader that runs beside a writer sees sums
 * that were true at slightly different moments, which is what figures are allowed to be.
 */
#include "agent/base/histogram.h"

#include <stdbool.h>
#include <stddef.h>

#include "agent/base/assert.h"

_Static_assert(HISTOGRAM_VALUE_MAX < (1ull << 36), "the last bucket holds the largest value");

#define SUB_COUNT (1u << HISTOGRAM_SUB_BITS)

static uint64_t histogram_load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static void histogram_add(uint64_t *word, uint64_t value)
{
	__atomic_fetch_add(word, value, __ATOMIC_RELAXED);
}

static void histogram_raise(uint64_t *word, uint64_t value)
{
	uint64_t now = histogram_load(word);

	while (value > now &&
	       !__atomic_compare_exchange_n(word, &now, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

static size_t histogram_bucket_of(uint64_t value)
{
	unsigned exponent;

	if (value < SUB_COUNT)
		return (size_t)value;
	exponent = 63u - (unsigned)__builtin_clzll(value);
	return ((size_t)(exponent - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS) +
	       (size_t)((value >> (exponent - HISTOGRAM_SUB_BITS)) & (SUB_COUNT - 1));
}

static uint64_t histogram_bucket_middle(size_t bucket)
{
	unsigned shift;
	uint64_t lower;

	if (bucket < 2 * SUB_COUNT)
		return bucket;
	shift = (unsigned)(bucket >> HISTOGRAM_SUB_BITS) - 1;
	lower = ((bucket & (SUB_COUNT - 1)) + SUB_COUNT) << shift;
	return lower + ((1ull << shift) >> 1);
}

/* The first observation, counted from 1 in order of size, that `percent` of them do not exceed. */
static uint64_t histogram_rank(double percent, uint64_t total)
{
	double exact = percent / 100.0 * (double)total;
	uint64_t rank = (uint64_t)exact;

	if ((double)rank < exact)
		rank++;
	if (rank > total)
		rank = total;
	return rank > 0 ? rank : 1;
}

void histogram_init(struct histogram *histogram)
{
	uint64_t *words = (uint64_t *)histogram;

	_Static_assert(sizeof(struct histogram) % sizeof(uint64_t) == 0, "only 64-bit words");
	for (size_t i = 0; i < sizeof(*histogram) / sizeof(*words); i++)
		__atomic_store_n(words + i, 0, __ATOMIC_RELAXED);
}

void histogram_record(struct histogram *histogram, uint64_t value)
{
	histogram_record_many(histogram, value, 1);
}

void histogram_record_many(struct histogram *histogram, uint64_t value, uint64_t weight)
{
	size_t bucket;

	if (value > HISTOGRAM_VALUE_MAX)
		value = HISTOGRAM_VALUE_MAX;
	bucket = histogram_bucket_of(value);
	must(bucket < HISTOGRAM_BUCKETS);
	histogram_add(&histogram->buckets[bucket], weight);
	histogram_add(&histogram->count, weight);
	histogram_add(&histogram->sum, value * weight);
	histogram_raise(&histogram->max, value);
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t count = histogram_load(&from->buckets[i]);

		if (count != 0)
			histogram_add(&into->buckets[i], count);
	}
	histogram_add(&into->count, histogram_load(&from->count));
	histogram_add(&into->sum, histogram_load(&from->sum));
	histogram_raise(&into->max, histogram_load(&from->max));
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
	uint64_t total = 0, seen = 0, rank;
	uint64_t max = histogram_load(&histogram->max);

	must(percent >= 0 && percent <= 100);
	/* The total is counted here, not taken from `count`, so that the rank is reached even beside a writer. */
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		total += histogram_load(&histogram->buckets[i]);
	if (total == 0)
		return 0;
	rank = histogram_rank(percent, total);
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram_load(&histogram->buckets[i]);
		if (seen >= rank) {
			uint64_t middle = histogram_bucket_middle(i);

			return middle < max ? middle : max;
		}
	}
	return max;
}

uint64_t histogram_count(const struct histogram *histogram)
{
	return histogram_load(&histogram->count);
}

uint64_t histogram_sum(const struct histogram *histogram)
{
	return histogram_load(&histogram->sum);
}

uint64_t histogram_max(const struct histogram *histogram)
{
	return histogram_load(&histogram->max);
}

uint64_t histogram_mean(const struct histogram *histogram)
{
	uint64_t count = histogram_count(histogram);

	return count != 0 ? histogram_sum(histogram) / count : 0;
}

uint64_t histogram_count_up_to(const struct histogram *histogram, uint64_t bound)
{
	uint64_t seen = 0;

	for (size_t i = 0; i < HISTOGRAM_BUCKETS && histogram_bucket_middle(i) <= bound; i++)
		seen += histogram_load(&histogram->buckets[i]);
	return seen;
}
