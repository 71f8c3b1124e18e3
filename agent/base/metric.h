/*
 * metric.h - what a module counts: one const table that names and explains it, one set of values per user of the table.
 *
 *	enum { CACHE_HITS, CACHE_BYTES, CACHE_ACCESS_NS, CACHE_METRICS };
 *	static const struct metric cache_metrics[CACHE_METRICS] = {
 *		[CACHE_HITS] = {"cache_hits_total", METRIC_COUNTER, "Reads that found a live entry."},
 *		...
 *	metric_add(set, CACHE_HITS, 1);
 *
 * Each worker has a set of its own; whoever reports merges them. Updating: any thread, relaxed atomics, never blocks.
 */
#ifndef BASE_METRIC_H
#define BASE_METRIC_H

#include <stddef.h>
#include <stdint.h>

#include "agent/base/histogram.h"

/* `make METRICS=0`: sets and their tables are there and nothing is counted in them. */
#ifndef RIPTIDE_METRICS
#define RIPTIDE_METRICS 1
#endif

enum metric_type {
	METRIC_COUNTER,   /* only grows */
	METRIC_GAUGE,     /* a level; merging adds up the levels of the parts */
	METRIC_HISTOGRAM, /* durations in ns */
};

struct metric {
	const char *name; /* [a-z0-9_]+, no prefix */
	enum metric_type type;
	const char *help; /* one sentence */
};

struct metric_set;

/*
 * Makes a zeroed set over `table`, which must outlive it. `module` is borrowed too. Returns NULL without memory. The
 * caller ends it with metric_set_destroy().
 */
struct metric_set *metric_set_create(const char *module, const struct metric *table, size_t count);
/* Frees and clears *set; NULL is fine. No other thread may still use it. */
void metric_set_destroy(struct metric_set **set);

/* Counter or gauge. */
void metric_add(struct metric_set *set, size_t index, uint64_t amount);
/* Gauge only. */
void metric_subtract(struct metric_set *set, size_t index, uint64_t amount);
void metric_put(struct metric_set *set, size_t index, uint64_t value);
/* Histogram only. */
void metric_observe(struct metric_set *set, size_t index, uint64_t duration_ns);

/* Counter or gauge: its value; histogram: its number of observations. */
uint64_t metric_value(const struct metric_set *set, size_t index);
/* Histogram only; lent for the life of the set. */
const struct histogram *metric_histogram(const struct metric_set *set, size_t index);

/* Adds the values of `from`, made over the same table, to `into`. */
void metric_set_merge(struct metric_set *into, const struct metric_set *from);
/* Zeroes everything; updates that run meanwhile may survive in part. */
void metric_set_reset(struct metric_set *set);

/* The table of a set, for reports. */
const char *metric_set_module(const struct metric_set *set);
const struct metric *metric_set_table(const struct metric_set *set, size_t *ret_count);

#endif
