/* figures.c - ping and stats: what a client of the library measures and is told. */
#include "client-lib/ctl/ctl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int compare_times(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int print_times(const struct ctl *ctl, uint64_t *times, uint32_t count)
{
	char least[CTL_CELL], middle[CTL_CELL], most[CTL_CELL];
	uint64_t p50;

	qsort(times, count, sizeof(*times), compare_times);
	p50 = times[count / 2];
	if (ctl->json)
		return ctl_print_json(ctl, json_pack("{s:I s:I s:I s:I}", "round_trips", (json_int_t)count, "min_ns",
						     (json_int_t)times[0], "p50_ns", (json_int_t)p50, "max_ns",
						     (json_int_t)times[count - 1]));
	printf("%" PRIu32 " round trips: min %s, p50 %s, max %s\n", count, ctl_nanoseconds(least, (double)times[0]),
	       ctl_nanoseconds(middle, (double)p50), ctl_nanoseconds(most, (double)times[count - 1]));
	return CTL_OK;
}

int ctl_ping(struct ctl *ctl)
{
	uint64_t *times;
	riptide *handle;
	int code = RIPTIDE_OK, status = ctl_open(ctl, &handle);

	if (status != CTL_OK)
		return status;
	times = calloc(ctl->count, sizeof(*times));
	if (!times) {
		riptide_close(&handle);
		return ctl_fail(CTL_ERROR, "no memory for %" PRIu32 " times", ctl->count);
	}
	for (uint32_t i = 0; i < ctl->count && code == RIPTIDE_OK; i++)
		code = riptide_ping(handle, &times[i]);
	status = code < 0 ? ctl_fail_handle(handle, code) : print_times(ctl, times, ctl->count);
	free(times);
	riptide_close(&handle);
	return status;
}

static json_t *stats_json(const struct ctl *ctl, const struct riptide_stats *s)
{
	json_t *document = json_object();

#define NUMBER(name) json_object_set_new(document, #name, json_integer((json_int_t)s->name))
#define REAL(name) json_object_set_new(document, #name, json_real(s->name))
	ctl_json_bytes(document, "tenant", ctl->tenant, strlen(ctl->tenant));
	NUMBER(total_keys);
	NUMBER(memory_usage_bytes);
	NUMBER(memory_limit_bytes);
	NUMBER(hits);
	NUMBER(misses);
	NUMBER(stale);
	NUMBER(sets);
	NUMBER(deletes);
	NUMBER(evictions);
	NUMBER(hit_bytes);
	REAL(hit_rate);
	REAL(miss_rate);
	REAL(avg_access_time_us);
	REAL(ops_per_second);
	REAL(avg_compression_ratio);
	NUMBER(hit_ns_p50);
	NUMBER(hit_ns_p95);
	NUMBER(hit_ns_p99);
	NUMBER(evictions_capacity);
	NUMBER(evictions_expired);
	NUMBER(evictions_manual);
	NUMBER(evictions_memory_pressure);
	NUMBER(evicted_bytes);
	REAL(eviction_rate);
	NUMBER(spilled);
	NUMBER(restored);
	NUMBER(journal_records);
#undef NUMBER
#undef REAL
	return document;
}

static void print_evictions(const struct riptide_stats *s)
{
	char a[CTL_CELL], b[CTL_CELL];

	printf("  evictions         %" PRIu64 "\n", s->evictions);
	printf("  left the cache    %" PRIu64 " for room, %" PRIu64 " under memory pressure, %" PRIu64
	       " expired, %" PRIu64 " deleted; %s, %s a second\n",
	       s->evictions_capacity, s->evictions_memory_pressure, s->evictions_expired, s->evictions_manual,
	       ctl_bytes(a, s->evicted_bytes), ctl_rate(b, s->eviction_rate));
	printf("  disk tier         %" PRIu64 " spilled, %" PRIu64 " restored\n", s->spilled, s->restored);
	printf("  journal           %" PRIu64 " waiting\n", s->journal_records);
}

static void print_stats(const struct ctl *ctl, const struct riptide_stats *s)
{
	char a[CTL_CELL], b[CTL_CELL], c[CTL_CELL], d[CTL_CELL];

	printf("%stenant ", ctl_bold(ctl));
	ctl_print_escaped(stdout, ctl->tenant, strlen(ctl->tenant), "");
	printf("%s\n", ctl_plain(ctl));
	printf("  hot entries       %" PRIu64 "\n", s->total_keys);
	printf("  shared memory     %s of %s\n", ctl_bytes(a, s->memory_usage_bytes),
	       ctl_bytes(b, s->memory_limit_bytes));
	printf("  hits              %" PRIu64 " (%.1f %%), %s\n", s->hits, 100 * s->hit_rate,
	       ctl_bytes(a, s->hit_bytes));
	printf("  misses            %" PRIu64 " (%.1f %%)\n", s->misses, 100 * s->miss_rate);
	printf("  stale             %" PRIu64 "\n", s->stale);
	printf("  sets              %" PRIu64 "\n", s->sets);
	printf("  deletes           %" PRIu64 "\n", s->deletes);
	print_evictions(s);
	printf("  time of a hit     mean %s, p50 %s, p95 %s, p99 %s\n",
	       ctl_nanoseconds(a, 1000 * s->avg_access_time_us), ctl_nanoseconds(b, (double)s->hit_ns_p50),
	       ctl_nanoseconds(c, (double)s->hit_ns_p95), ctl_nanoseconds(d, (double)s->hit_ns_p99));
	printf("  operations        %s a second\n", ctl_rate(a, s->ops_per_second));
	printf("  stored / plain    %.2f\n", s->avg_compression_ratio);
}

int ctl_stats(struct ctl *ctl)
{
	struct riptide_stats stats = {.size = sizeof(stats)};
	riptide *handle;
	int code, status;

	if (ctl->given & CTL_ALL)
		return ctl_stats_all(ctl);
	status = ctl_open(ctl, &handle);
	if (status != CTL_OK)
		return status;
	code = riptide_stats(handle, &stats);
	if (code < 0)
		status = ctl_fail_handle(handle, code);
	else if (ctl->json)
		status = ctl_print_json(ctl, stats_json(ctl, &stats));
	else
		print_stats(ctl, &stats);
	riptide_close(&handle);
	return status;
}
