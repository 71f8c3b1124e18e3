/*
 * histogram.h - log-linear histogram of durations: 1 ns to 60 s, every answer within 1.6 % of the truth.
 *
 * Recording is a handful of relaxed atomic adds: any thread, never blocks. Queries may run beside recording and then
 * see some moment's mixture. 8 KiB each.
 */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 5
#define HISTOGRAM_VALUE_MAX 60000000000ull /* larger values count as this one */
#define HISTOGRAM_BUCKETS ((36 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
	uint64_t count;
	uint64_t sum;
	uint64_t max; /* exact, not the bucket's */
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* Empties it. Observations made meanwhile may survive in part. */
void histogram_init(struct histogram *histogram);

void histogram_record(struct histogram *histogram, uint64_t value);

/* Adds `weight` observations of one value: for samples of 1 in `weight`. */
void histogram_record_many(struct histogram *histogram, uint64_t value, uint64_t weight);

/* Adds all of `from`, which stays as it is. */
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The value that `percent` (0..100) of the observations do not exceed; 0 if there are none. */
uint64_t histogram_percentile(const struct histogram *histogram, double percent);

uint64_t histogram_count(const struct histogram *histogram);
uint64_t histogram_sum(const struct histogram *histogram);
uint64_t histogram_max(const struct histogram *histogram);
/* 0 if there are none. */
uint64_t histogram_mean(const struct histogram *histogram);

/* How many observations were at most `bound` (by bucket): what a Prometheus `le` bucket wants. */
uint64_t histogram_count_up_to(const struct histogram *histogram, uint64_t bound);

#endif
