/* totals.c - figures of all tenants of the agent, and everything it counts. */
#include "client-lib/ctl/ctl.h"

#include <inttypes.h>
#include <string.h>

#include "shm/msg.h"

#define NAME_WIDTH 24

static void print_row(const char *name, const json_t *f)
{
	char cell[NAME_WIDTH * 4 + 1], bytes[CTL_CELL], rate[CTL_CELL], p50[CTL_CELL], p99[CTL_CELL];

	printf("%-*.*s %10" PRIu64 " %10s %12" PRIu64 " %12" PRIu64 " %6.1f%% %10" PRIu64 " %9s %9s %9s %6.2f\n",
	       NAME_WIDTH, NAME_WIDTH, ctl_escaped(cell, sizeof(cell), name, strlen(name)), ctl_u64(f, "total_keys"),
	       ctl_bytes(bytes, ctl_u64(f, "memory_usage_bytes")), ctl_u64(f, "hits"), ctl_u64(f, "misses"),
	       100 * ctl_real(f, "hit_rate"), ctl_u64(f, "eviction_count"),
	       ctl_rate(rate, ctl_real(f, "ops_per_second")), ctl_nanoseconds(p50, (double)ctl_u64(f, "hit_ns_p50")),
	       ctl_nanoseconds(p99, (double)ctl_u64(f, "hit_ns_p99")), ctl_real(f, "avg_compression_ratio"));
}

int ctl_stats_all(struct ctl *ctl)
{
	json_t *document;
	const json_t *tenant;
	size_t i;
	int status = ctl_ask(ctl, RSHM_CONTROL_STATS, &document);

	if (status != CTL_OK)
		return status;
	if (ctl->json)
		return ctl_print_json(ctl, document);
	printf("%s%-*s %10s %10s %12s %12s %7s %10s %9s %9s %9s %6s%s\n", ctl_bold(ctl), NAME_WIDTH, "TENANT", "KEYS",
	       "MEMORY", "HITS", "MISSES", "RATE", "EVICTIONS", "OPS/S", "HIT P50", "HIT P99", "RATIO",
	       ctl_plain(ctl));
	json_array_foreach(json_object_get(document, "tenants"), i, tenant)
		print_row(ctl_text(tenant, "tenant"), tenant);
	print_row("total", json_object_get(document, "total"));
	json_decref(document);
	return CTL_OK;
}

int ctl_metrics(struct ctl *ctl)
{
	json_t *document;
	int status = ctl_ask(ctl, RSHM_CONTROL_METRICS, &document);

	if (status != CTL_OK)
		return status;
	if (ctl->json)
		return ctl_print_json(ctl, document);
	ctl_print_escaped(stdout, ctl_text(document, "text"), strlen(ctl_text(document, "text")), "\n");
	json_decref(document);
	return CTL_OK;
}
