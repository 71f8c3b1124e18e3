/* evictions.c - what left shared memory, and why. */
#include "client-lib/ctl/ctl.h"

#include <inttypes.h>
#include <string.h>

#include "shm/msg.h"

static const char *const reasons[] = {"capacity", "expired", "manual", "memory_pressure"};

static void print_recent(const json_t *entry)
{
	const json_t *idle = json_object_get(entry, "idle_ms");
	char ago[CTL_CELL], cell[CTL_CELL];
	const char *key = ctl_text(entry, "key"), *reason = ctl_text(entry, "reason");

	fputs("    ", stdout);
	ctl_print_escaped(stdout, key, strlen(key), "");
	printf("  %" PRIu64 " bytes, ", ctl_u64(entry, "bytes"));
	ctl_print_escaped(stdout, reason, strlen(reason), "");
	printf(", %s ago", ctl_span(ago, ctl_u64(entry, "ago_ms")));
	if (idle)
		printf(", last read %s before that", ctl_span(cell, ctl_u64(entry, "idle_ms")));
	putchar('\n');
}

static void print_tenant(const struct ctl *ctl, const json_t *tenant)
{
	const json_t *f = json_object_get(tenant, "eviction_figures"), *by = json_object_get(f, "reasons");
	const json_t *recent = json_object_get(f, "recent"), *entry;
	const char *name = ctl_text(tenant, "tenant"), *policy = ctl_text(tenant, "eviction_policy");
	size_t i;

	fputs(ctl_bold(ctl), stdout);
	ctl_print_escaped(stdout, name, strlen(name), "");
	fputs(ctl_plain(ctl), stdout);
	fputs(", policy ", stdout);
	ctl_print_escaped(stdout, policy, strlen(policy), "");
	printf(": %" PRIu64 " evictions, %" PRIu64 " bytes, %.1f a second, %.1f s after the last read\n",
	       ctl_u64(f, "total"), ctl_u64(f, "bytes"), ctl_real(f, "per_second"),
	       ctl_real(f, "idle_ms_average") / 1000);
	for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
		const json_t *reason = json_object_get(by, reasons[i]);

		printf("  %-16s %10" PRIu64 "  %12" PRIu64 " bytes\n", reasons[i], ctl_u64(reason, "count"),
		       ctl_u64(reason, "bytes"));
	}
	if (json_array_size(recent) > 0)
		puts("  the last ones:");
	json_array_foreach((json_t *)recent, i, entry) print_recent(entry);
}

int ctl_evictions(struct ctl *ctl)
{
	json_t *document;
	const json_t *tenants, *tenant;
	uint16_t op = RSHM_CONTROL_STATS;
	size_t i;
	int status;

	if (ctl->argument_count == 1) {
		if (strcmp(ctl->arguments[0], "reset") != 0)
			return ctl_fail(CTL_USAGE, "evictions: \"reset\" or nothing");
		op = RSHM_CONTROL_EVICTIONS_RESET;
	}
	status = ctl_ask(ctl, op, &document);
	if (status != CTL_OK)
		return status;
	if (ctl->json)
		return ctl_print_json(ctl, document);
	tenants = json_object_get(document, "tenants");
	if (op == RSHM_CONTROL_EVICTIONS_RESET)
		puts("counting anew");
	else
		json_array_foreach((json_t *)tenants, i, tenant) print_tenant(ctl, tenant);
	json_decref(document);
	return CTL_OK;
}
