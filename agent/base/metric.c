#include "agent/base/metric.h"

#include <stdlib.h>

#include "agent/base/assert.h"

#define METRIC_SET_MAGIC 0x4d455453u

struct metric_set {
	uint32_t magic;
	/* set once */
	const char *module;
	const struct metric *table;
	size_t count;
	/* relaxed atomics; a histogram's slot is NULL for the other types */
	struct histogram **histograms;
	uint64_t values[];
};

static void metric_set_check(const struct metric_set *set)
{
	must(set != NULL && set->magic == METRIC_SET_MAGIC);
}

static void metric_check(const struct metric_set *set, size_t index)
{
	metric_set_check(set);
	must(index < set->count);
}

struct metric_set *metric_set_create(const char *module, const struct metric *table, size_t count)
{
	struct metric_set *set = calloc(1, sizeof(*set) + count * sizeof(set->values[0]));

	if (set == NULL)
		return NULL;
	set->magic = METRIC_SET_MAGIC;
	set->module = module;
	set->table = table;
	set->count = count;
	set->histograms = calloc(count + 1, sizeof(struct histogram *));
	if (set->histograms == NULL)
		goto failed;
	for (size_t i = 0; i < count; i++) {
		if (table[i].type != METRIC_HISTOGRAM)
			continue;
		set->histograms[i] = calloc(1, sizeof(struct histogram));
		if (set->histograms[i] == NULL)
			goto failed;
	}
	return set;
failed:
	metric_set_destroy(&set);
	return NULL;
}

void metric_set_destroy(struct metric_set **set)
{
	if (*set == NULL)
		return;
	metric_set_check(*set);
	for (size_t i = 0; (*set)->histograms != NULL && i < (*set)->count; i++)
		free((*set)->histograms[i]);
	free((*set)->histograms);
	(*set)->magic = 0;
	free(*set);
	*set = NULL;
}

void metric_add(struct metric_set *set, size_t index, uint64_t amount)
{
	metric_check(set, index);
	must(set->table[index].type != METRIC_HISTOGRAM);
	if (RIPTIDE_METRICS)
		__atomic_fetch_add(&set->values[index], amount, __ATOMIC_RELAXED);
}

void metric_subtract(struct metric_set *set, size_t index, uint64_t amount)
{
	metric_check(set, index);
	must(set->table[index].type == METRIC_GAUGE);
	if (RIPTIDE_METRICS)
		__atomic_fetch_sub(&set->values[index], amount, __ATOMIC_RELAXED);
}

void metric_put(struct metric_set *set, size_t index, uint64_t value)
{
	metric_check(set, index);
	must(set->table[index].type == METRIC_GAUGE);
	if (RIPTIDE_METRICS)
		__atomic_store_n(&set->values[index], value, __ATOMIC_RELAXED);
}

void metric_observe(struct metric_set *set, size_t index, uint64_t duration_ns)
{
	metric_check(set, index);
	must(set->table[index].type == METRIC_HISTOGRAM);
	if (RIPTIDE_METRICS)
		histogram_record(set->histograms[index], duration_ns);
}

uint64_t metric_value(const struct metric_set *set, size_t index)
{
	metric_check(set, index);
	if (set->table[index].type == METRIC_HISTOGRAM)
		return histogram_count(set->histograms[index]);
	return __atomic_load_n(&set->values[index], __ATOMIC_RELAXED);
}

const struct histogram *metric_histogram(const struct metric_set *set, size_t index)
{
	metric_check(set, index);
	must(set->table[index].type == METRIC_HISTOGRAM);
	return set->histograms[index];
}

void metric_set_merge(struct metric_set *into, const struct metric_set *from)
{
	metric_set_check(into);
	metric_set_check(from);
	must(into->table == from->table && into->count == from->count);
	for (size_t i = 0; i < into->count; i++) {
		if (into->table[i].type == METRIC_HISTOGRAM)
			histogram_merge(into->histograms[i], from->histograms[i]);
		else
			metric_add(into, i, metric_value(from, i));
	}
}

void metric_set_reset(struct metric_set *set)
{
	metric_set_check(set);
	for (size_t i = 0; i < set->count; i++) {
		if (set->table[i].type == METRIC_HISTOGRAM)
			histogram_init(set->histograms[i]);
		else
			__atomic_store_n(&set->values[i], 0, __ATOMIC_RELAXED);
	}
}

const char *metric_set_module(const struct metric_set *set)
{
	metric_set_check(set);
	return set->module;
}

const struct metric *metric_set_table(const struct metric_set *set, size_t *ret_count)
{
	metric_set_check(set);
	*ret_count = set->count;
	return set->table;
}
