/*
 * report.c - status, clients, reload: what the agent tells operators, as JSON, made readable.
 *
 * The documents are another program's, perhaps of another version: an absent member is 0 or "?", and every string is
 * escaped before it is printed. --json prints the document whole.
 */
#include "client-lib/ctl/ctl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "shm/msg.h"

#define SHOWN_MAX 1000u /* rows of a table for people; --json has all */

static const char *yes(const json_t *object, const char *name, const char *if_true, const char *if_false)
{
	return json_is_true(json_object_get(object, name)) ? if_true : if_false;
}

static void print_text(const json_t *object, const char *name)
{
	const char *text = ctl_text(object, name);

	ctl_print_escaped(stdout, text, strlen(text), "");
}

/* A cell of a table, escaped and cut or filled to `width`. */
static void print_cell(const json_t *object, const char *name, int width)
{
	const char *text = ctl_text(object, name);
	char cell[96];

	printf(" %-*.*s", width, width, ctl_escaped(cell, sizeof(cell), text, strlen(text)));
}

static void print_heading(const struct ctl *ctl, const json_t *d)
{
	char up[CTL_CELL];

	fputs(ctl_bold(ctl), stdout);
	fputs("riptided ", stdout);
	print_text(d, "version");
	fputs(", instance ", stdout);
	print_text(d, "instance");
	printf("%s\n  pid %" PRIu64 ", up %s, adoptions %" PRIu64 "\n", ctl_plain(ctl), ctl_u64(d, "pid"),
	       ctl_span(up, ctl_u64(d, "uptime_ms")), ctl_u64(d, "adoptions"));
}

static void print_backend(const json_t *d)
{
	const json_t *b = json_object_get(d, "backend");

	fputs("  backend    ", stdout);
	print_text(b, "name");
	printf(", %s: ", yes(b, "ready", "ready", "NOT READY"));
	print_text(b, "detail");
	fputs("\n             ", stdout);
	/* An agent built with METRICS=0 may not count them. */
	if (json_object_get(b, "completed"))
		printf("completed %" PRIu64 ", failed %" PRIu64 ", retried %" PRIu64 ", ", ctl_u64(b, "completed"),
		       ctl_u64(b, "failed"), ctl_u64(b, "retried"));
	printf("pending %" PRIu64 ", connections %" PRIu64 " of %" PRIu64 "\n", ctl_u64(b, "pending"),
	       ctl_u64(b, "connections"), ctl_u64(b, "connections_max"));
}

/* Of all workers: each has a feed of its own. */
static void print_feeds(const json_t *workers, const json_t *coherence, const json_t *total)
{
	uint64_t armed = 0, canaries = 0, revalidated = 0, removed = 0, oldest_ms = 0;
	char proof[CTL_CELL];
	const json_t *w;
	size_t i;

	json_array_foreach((json_t *)workers, i, w)
	{
		const json_t *c = json_object_get(w, "coherence");
		uint64_t age_ms = ctl_u64(c, "proof_age_ms");

		armed += json_is_true(json_object_get(c, "armed"));
		canaries += ctl_u64(c, "canaries");
		oldest_ms = age_ms > oldest_ms ? age_ms : oldest_ms;
		revalidated += ctl_u64(w, "revalidated");
		removed += ctl_u64(w, "revalidation_removed");
	}
	printf("             feeds %" PRIu64 " of %zu armed", armed, json_array_size(workers));
	if (armed > 0)
		printf(", oldest proof %s ago", ctl_span(proof, oldest_ms));
	printf(", canaries %" PRIu64 ", foreign changes %" PRIu64 ", checks %" PRIu64 " (%" PRIu64
	       " pending), fences %" PRIu64 "\n             verified again %" PRIu64 ", removed by it %" PRIu64
	       ", stale reads %" PRIu64 "\n",
	       canaries, ctl_u64(coherence, "changes"), ctl_u64(coherence, "checks"),
	       ctl_u64(coherence, "checks_pending"), ctl_u64(coherence, "fences"), revalidated, removed,
	       ctl_u64(total, "stale"));
}

static void print_coherence(const json_t *d)
{
	const json_t *c = json_object_get(d, "coherence");
	const char *mode = json_string_value(json_object_get(c, "mode"));
	char lease[CTL_CELL], age[CTL_CELL];

	fputs("  coherence  ", stdout);
	print_text(c, "mode");
	printf(", lease %s left, epoch %" PRIu64, ctl_span(lease, ctl_u64(c, "lease_remaining_ms")),
	       ctl_u64(c, "epoch"));
	if (ctl_u64(c, "max_age_ms") > 0)
		printf(", hot copies live at most %s", ctl_span(age, ctl_u64(c, "max_age_ms")));
	printf("%s\n", yes(c, "revalidating", ", revalidating", ""));
	/* Nobody else changes the embedded store. */
	if (mode && strcmp(mode, "local") != 0)
		print_feeds(json_object_get(d, "workers"), c, json_object_get(d, "total"));
}

static void print_memory_and_control(const json_t *d)
{
	const json_t *m = json_object_get(d, "memory"), *c = json_object_get(d, "control");
	char used[CTL_CELL], total[CTL_CELL];

	printf("  memory     %s of %s\n", ctl_bytes(used, ctl_u64(m, "used_bytes")),
	       ctl_bytes(total, ctl_u64(m, "total_bytes")));
	printf("  control    connections %" PRIu64 " (refused %" PRIu64 "), requests %" PRIu64 " (malformed %" PRIu64
	       ", timed out %" PRIu64 "), attaches %" PRIu64 " (refused %" PRIu64 "), channels open %" PRIu64 "\n",
	       ctl_u64(c, "connections"), ctl_u64(c, "refused_connections"), ctl_u64(c, "requests"),
	       ctl_u64(c, "malformed"), ctl_u64(c, "timed_out"), ctl_u64(c, "attaches"),
	       ctl_u64(c, "refused_attaches"), ctl_u64(c, "channels_open"));
}

/* The member of what all workers report under `name`, added up. */
static uint64_t sum_of(const json_t *workers, const char *name, const char *member)
{
	uint64_t sum = 0;
	const json_t *w;
	size_t i;

	json_array_foreach((json_t *)workers, i, w) sum += ctl_u64(json_object_get(w, name), member);
	return sum;
}

static void print_if_any(const char *what, uint64_t count)
{
	if (count > 0)
		printf(", %s %" PRIu64, what, count);
}

/* Writes that were accepted and are not yet stored. */
static void print_journal(const json_t *workers)
{
	uint64_t records = sum_of(workers, "journal", "records"), replayed = sum_of(workers, "journal", "replayed");
	uint64_t accepted = sum_of(workers, "journal", "accepted"), oldest_ms = 0;
	char bytes[CTL_CELL], oldest[CTL_CELL];
	const json_t *w;
	size_t i;

	if (accepted == 0 && records == 0 && replayed == 0)
		return;
	json_array_foreach((json_t *)workers, i, w)
	{
		uint64_t age_ms = ctl_u64(json_object_get(w, "journal"), "oldest_ms");

		oldest_ms = age_ms > oldest_ms ? age_ms : oldest_ms;
	}
	printf("  journal    writes waiting %" PRIu64 ", %s", records,
	       ctl_bytes(bytes, sum_of(workers, "journal", "bytes")));
	if (records > 0)
		printf(", the oldest for %s", ctl_span(oldest, oldest_ms));
	printf("; accepted %" PRIu64 ", coalesced %" PRIu64 ", flushed %" PRIu64, accepted,
	       sum_of(workers, "journal", "coalesced"), sum_of(workers, "journal", "flushed"));
	print_if_any("replayed", replayed);
	print_if_any("refused", sum_of(workers, "journal", "refused_full"));
	print_if_any("too old", sum_of(workers, "journal", "too_old"));
	print_if_any("failed flushes", sum_of(workers, "journal", "flush_failures"));
	putchar('\n');
}

/* What memory had no room for. */
static void print_spill(const json_t *workers)
{
	uint64_t entries = sum_of(workers, "spill", "entries"), spilled = sum_of(workers, "spill", "total_spilled");
	char used[CTL_CELL], limit[CTL_CELL];

	if (entries == 0 && spilled == 0)
		return;
	printf("  spill      entries %" PRIu64 ", %s of %s; spilled %" PRIu64 ", restored %" PRIu64, entries,
	       ctl_bytes(used, sum_of(workers, "spill", "bytes_used")),
	       ctl_bytes(limit, sum_of(workers, "spill", "bytes_limit")), spilled,
	       sum_of(workers, "spill", "total_restored"));
	print_if_any("evicted", sum_of(workers, "spill", "evicted"));
	print_if_any("refused", sum_of(workers, "spill", "refused"));
	print_if_any("corrupt", sum_of(workers, "spill", "corrupt"));
	putchar('\n');
}

/* The hot sets of the last run that are being loaded. */
static void print_warming(const json_t *tenants)
{
	const json_t *t;
	size_t i;

	json_array_foreach((json_t *)tenants, i, t)
	{
		const json_t *w = json_object_get(t, "warming");

		if (i == SHOWN_MAX)
			break;
		if (!json_is_true(json_object_get(w, "running")))
			continue;
		fputs("  warming    ", stdout);
		print_text(t, "tenant");
		printf(": loaded %" PRIu64 ", absent %" PRIu64 ", failed %" PRIu64 " of %" PRIu64 "\n",
		       ctl_u64(w, "loaded"), ctl_u64(w, "absent"), ctl_u64(w, "failed"), ctl_u64(w, "total"));
	}
}

static void print_workers(const struct ctl *ctl, const json_t *list)
{
	char staging[CTL_CELL];
	const json_t *w;
	size_t i;

	printf("%s  WORKER  CHANNELS  INFLIGHT    REQUESTS      SLOW    ERRORS    STAGING  BACKEND%s\n",
	       ctl_bold(ctl), ctl_plain(ctl));
	json_array_foreach((json_t *)list, i, w)
	{
		if (i == SHOWN_MAX)
			break;
		printf("  %6" PRIu64 "  %8" PRIu64 "  %8" PRIu64 "  %10" PRIu64 "  %8" PRIu64 "  %8" PRIu64
		       " %10s  %s\n",
		       ctl_u64(w, "worker"), ctl_u64(w, "channels"), ctl_u64(w, "inflight"), ctl_u64(w, "requests"),
		       ctl_u64(w, "slow"), ctl_u64(w, "protocol_errors"),
		       ctl_bytes(staging, ctl_u64(w, "staging_bytes")),
		       yes(json_object_get(w, "backend"), "ready", "ready", "NOT READY"));
	}
}

static void print_tenants(const struct ctl *ctl, const json_t *list)
{
	char used[CTL_CELL], limit[CTL_CELL];
	const json_t *t;
	size_t i;

	printf("%s  %-24s   HIT %%        HITS      MISSES        SETS     ENTRIES       USED      LIMIT%s\n",
	       ctl_bold(ctl), "TENANT", ctl_plain(ctl));
	json_array_foreach((json_t *)list, i, t)
	{
		if (i == SHOWN_MAX)
			break;
		putchar(' ');
		print_cell(t, "tenant", 24);
		printf("  %6.1f  %10" PRIu64 "  %10" PRIu64 "  %10" PRIu64 "  %10" PRIu64 " %10s %10s\n",
		       100 * ctl_real(t, "hit_rate"), ctl_u64(t, "hits"), ctl_u64(t, "misses"), ctl_u64(t, "sets"),
		       ctl_u64(t, "entries"), ctl_bytes(used, ctl_u64(t, "used_bytes")),
		       ctl_bytes(limit, ctl_u64(t, "limit_bytes")));
	}
	if (json_array_size(list) > SHOWN_MAX)
		printf("  and %zu more; --json shows all\n", json_array_size(list) - SHOWN_MAX);
}

int ctl_status(struct ctl *ctl)
{
	json_t *d;
	int status = ctl_ask(ctl, RSHM_CONTROL_STATUS, &d);

	if (status != CTL_OK)
		return status;
	if (ctl->json)
		return ctl_print_json(ctl, d);
	print_heading(ctl, d);
	print_backend(d);
	print_coherence(d);
	print_memory_and_control(d);
	print_journal(json_object_get(d, "workers"));
	print_spill(json_object_get(d, "workers"));
	print_warming(json_object_get(d, "tenants"));
	print_workers(ctl, json_object_get(d, "workers"));
	print_tenants(ctl, json_object_get(d, "tenants"));
	json_decref(d);
	return CTL_OK;
}

static int compare_hits(const void *a, const void *b)
{
	uint64_t x = ctl_u64(*(json_t *const *)a, "hits"), y = ctl_u64(*(json_t *const *)b, "hits");

	return (x < y) - (x > y);
}

/* The list's members, most hits first, borrowed from it. free() the array; NULL: no memory. */
static const json_t **sort_clients(const json_t *list)
{
	size_t count = json_array_size(list);
	const json_t **sorted = calloc(count + 1, sizeof(*sorted));

	for (size_t i = 0; sorted && i < count; i++)
		sorted[i] = json_array_get(list, i);
	if (sorted)
		qsort(sorted, count, sizeof(*sorted), compare_hits);
	return sorted;
}

static void print_clients(const struct ctl *ctl, const json_t *const *clients, size_t count)
{
	char p50[CTL_CELL], p99[CTL_CELL];

	printf("%s     PID    UID %-16s %-16s        HITS    HIT %%      MISSES        SETS    REQUESTS      P50      P99%s\n",
	       ctl_bold(ctl), "PROGRAM", "TENANT", ctl_plain(ctl));
	for (size_t i = 0; i < count && i < SHOWN_MAX; i++) {
		const json_t *c = clients[i];

		printf("%8" PRIu64 " %6" PRIu64, ctl_u64(c, "pid"), ctl_u64(c, "uid"));
		print_cell(c, "program", 16);
		print_cell(c, "tenant", 16);
		printf("  %10" PRIu64 "  %6.1f  %10" PRIu64 "  %10" PRIu64 "  %10" PRIu64 " %8s %8s\n",
		       ctl_u64(c, "hits"), 100 * ctl_real(c, "hit_rate"), ctl_u64(c, "misses"), ctl_u64(c, "sets"),
		       ctl_u64(c, "requests"), ctl_nanoseconds(p50, (double)ctl_u64(c, "hit_ns_p50")),
		       ctl_nanoseconds(p99, (double)ctl_u64(c, "hit_ns_p99")));
	}
	if (count > SHOWN_MAX)
		printf("and %zu more; --json shows all\n", count - SHOWN_MAX);
}

static json_t *sorted_json(const json_t *const *clients, size_t count)
{
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append(list, (json_t *)clients[i]);
	return json_pack("{s:o}", "clients", list);
}

int ctl_clients(struct ctl *ctl)
{
	const json_t **clients, *list;
	json_t *document;
	int status = ctl_ask(ctl, RSHM_CONTROL_CLIENTS, &document);

	if (status != CTL_OK)
		return status;
	list = json_object_get(document, "clients");
	clients = sort_clients(list);
	if (!clients)
		status = ctl_fail(CTL_ERROR, "no memory for the list of clients");
	else if (ctl->json)
		status = ctl_print_json(ctl, sorted_json(clients, json_array_size(list)));
	else
		print_clients(ctl, clients, json_array_size(list));
	free(clients);
	json_decref(document);
	return status;
}

static void print_change(const json_t *change)
{
	fputs("  ", stdout);
	print_text(change, "option");
	fputs(": ", stdout);
	print_text(change, "before");
	fputs(" -> ", stdout);
	print_text(change, "after");
	printf(" (%s)\n", strcmp(ctl_text(change, "effect"), "applied") == 0 ? "applied" : "needs a restart");
}

int ctl_reload(struct ctl *ctl)
{
	json_t *document;
	const json_t *changes, *change;
	size_t i;
	int status = ctl_ask(ctl, RSHM_CONTROL_RELOAD, &document);

	if (status != CTL_OK)
		return status;
	if (ctl->json)
		return ctl_print_json(ctl, document);
	changes = json_object_get(document, "changes");
	puts(json_array_size(changes) ? "reloaded:" : "reloaded; nothing changed");
	json_array_foreach((json_t *)changes, i, change) print_change(change);
	json_decref(document);
	return CTL_OK;
}
