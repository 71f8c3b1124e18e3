/*
 * frame.c - one frame of top. All of its text is ASCII (sample.c sees to it), so that bytes are columns and a line can be cut
 * at the terminal's edge; attributes are put around whole lines afterwards.
 */
#include "client-lib/ctl/top.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 1000u /* of one table, where no terminal sets the limit */
#define LINE_MAX_BYTES 256

enum attribute {
	PLAIN,
	BOLD,
	ALARM,
};

/* What qsort() hands no context for. */
static char sort_key;

static int by_hits_misses_sets(const struct top_row *a, const struct top_row *b)
{
	double x = sort_key == 'm' ? a->misses : sort_key == 's' ? a->sets : a->hits;
	double y = sort_key == 'm' ? b->misses : sort_key == 's' ? b->sets : b->hits;
	uint64_t p = sort_key == 'm' ? a->f.misses : sort_key == 's' ? a->f.sets : a->f.hits;
	uint64_t q = sort_key == 'm' ? b->f.misses : sort_key == 's' ? b->f.sets : b->f.hits;

	return x != y ? (x < y) - (x > y) : (p < q) - (p > q);
}

static int compare_rows(const void *a, const void *b)
{
	const struct top_row *x = a, *y = b;
	int order = sort_key == 'n' ? 0 : by_hits_misses_sets(x, y);

	if (order == 0)
		order = strcmp(x->f.program, y->f.program);
	if (order == 0)
		order = strcmp(x->f.name, y->f.name);
	return order ? order : (x->place > y->place) - (x->place < y->place);
}

static void sort_rows(struct top_rows *list, char key)
{
	sort_key = key;
	if (list->count > 0)
		qsort(list->rows, list->count, sizeof(*list->rows), compare_rows);
}

struct frame {
	const struct top_view *view;
	FILE *to;
	unsigned int lines; /* written */
};

__attribute__((format(printf, 3, 4))) static void put_line(struct frame *frame, enum attribute attribute,
							   const char *format, ...)
{
	static const char *const begin[] = {"", "\033[1m", "\033[1;31m"};
	const struct top_view *view = frame->view;
	char line[LINE_MAX_BYTES];
	va_list arguments;

	if (view->lines && frame->lines + 1 >= view->lines)
		return;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (view->columns && view->columns < sizeof(line))
		line[view->columns] = '\0';
	frame->lines++;
	if (view->colour && attribute != PLAIN)
		fprintf(frame->to, "%s%s\033[0m", begin[attribute], line);
	else
		fputs(line, frame->to);
	fputs(view->screen ? "\033[K\n" : "\n", frame->to);
}

static uint64_t since(uint64_t now_ms, uint64_t then_ms)
{
	return now_ms > then_ms ? now_ms - then_ms : 0;
}

static void put_agent(struct frame *frame, const struct top_sample *s)
{
	uint64_t silent_ms = since(s->now_ms, s->heartbeat_ms);
	char span[CTL_CELL];

	if (!s->attached)
		put_line(frame, ALARM, "agent: gone; waiting for the next one");
	else if (s->state == RSHM_RETIRED)
		put_line(frame, ALARM, "agent: stopped; waiting for the next one");
	else if (silent_ms > TOP_SILENCE_MS)
		put_line(frame, ALARM, "agent: no heartbeat for %s", ctl_span(span, silent_ms));
	else
		put_line(frame, PLAIN, "agent: alive, up %s", ctl_span(span, since(s->now_ms, s->started_ms)));
}

static void put_heading(struct frame *frame, const struct top_sample *s)
{
	uint64_t left_ms = since(s->lease_until_ms, s->now_ms);
	char lease[CTL_CELL];

	put_line(frame, BOLD, "riptided %s - instance %s - pid %" PRIu32 " - adoptions %" PRIu64, s->version,
		 s->instance, s->process_id, s->restarts);
	put_agent(frame, s);
	put_line(frame, left_ms ? PLAIN : ALARM, "lease: %s%s - epoch %" PRIu64 "%s - clients %zu",
		 left_ms ? ctl_span(lease, left_ms) : "run out, hot entries are unverified", left_ms ? " left" : "",
		 s->epoch, s->unclean ? ", revalidating" : "", s->clients.count);
}

struct cells {
	char hits[CTL_CELL], misses[CTL_CELL], sets[CTL_CELL], deletes[CTL_CELL], evictions[CTL_CELL],
		share[CTL_CELL];
};

static char *rate_cell(char *buffer, const struct top_row *row, double value)
{
	return row->has_rates ? ctl_rate(buffer, value) : strcpy(buffer, "-");
}

static void fill_cells(struct cells *c, const struct top_row *row)
{
	double reads = row->has_rates ? row->hits + row->misses : 0;
	double share = reads > 0 ? row->hits / reads : 0;

	rate_cell(c->hits, row, row->hits);
	rate_cell(c->misses, row, row->misses);
	rate_cell(c->sets, row, row->sets);
	rate_cell(c->deletes, row, row->deletes);
	rate_cell(c->evictions, row, row->evictions);
	if (reads > 0)
		snprintf(c->share, sizeof(c->share), "%.1f", 100 * share);
	else
		strcpy(c->share, "-");
}

static size_t shown(const struct top_rows *list)
{
	return list->count < ROWS_MAX ? list->count : ROWS_MAX;
}

static void put_tenants(struct frame *frame, const struct top_rows *list)
{
	char used[CTL_CELL], limit[CTL_CELL];
	struct cells c;

	put_line(frame, BOLD, "%-20s %8s %6s %8s %8s %8s %8s %12s %10s %9s %9s", "TENANT", "HITS/s", "HIT%", "MISS/s",
		 "SETS/s", "DEL/s", "EVICT/s", "HITS", "ENTRIES", "USED", "LIMIT");
	for (size_t i = 0; i < shown(list); i++) {
		const struct top_row *row = &list->rows[i];
		const struct rshm_figures *f = &row->f;

		fill_cells(&c, row);
		put_line(frame, PLAIN, "%-20.20s %8s %6s %8s %8s %8s %8s %12" PRIu64 " %10" PRIu64 " %9s %9s",
			 f->name, c.hits, c.share, c.misses, c.sets, c.deletes, c.evictions, f->hits, f->entries,
			 ctl_bytes(used, f->used_bytes), ctl_bytes(limit, f->limit_bytes));
	}
}

static void put_clients(struct frame *frame, const struct top_rows *list)
{
	char p50[CTL_CELL], p99[CTL_CELL];
	struct cells c;

	put_line(frame, BOLD, "%8s %-11s %8s %6s %8s %8s %8s %8s %12s %10s %9s %9s", "PID", "PROGRAM", "HITS/s",
		 "HIT%", "MISS/s", "SETS/s", "DEL/s", "UID", "HITS", "TENANT", "P50", "P99");
	for (size_t i = 0; i < shown(list); i++) {
		const struct top_row *row = &list->rows[i];
		const struct rshm_figures *f = &row->f;

		fill_cells(&c, row);
		put_line(frame, PLAIN,
			 "%8" PRIu32 " %-11.11s %8s %6s %8s %8s %8s %8" PRIu32 " %12" PRIu64 " %10.10s %9s %9s",
			 f->process_id, f->program, c.hits, c.share, c.misses, c.sets, c.deletes, f->user_id, f->hits,
			 f->name, ctl_nanoseconds(p50, (double)f->hit_ns_p50),
			 ctl_nanoseconds(p99, (double)f->hit_ns_p99));
	}
}

void top_frame(struct top_sample *sample, const struct top_view *view, FILE *to)
{
	struct frame frame = {.view = view, .to = to};
	unsigned int half = view->lines ? view->lines / 2 : 0;
	struct top_view upper = *view;

	sort_rows(&sample->tenants, view->sort);
	sort_rows(&sample->clients, view->sort);
	put_heading(&frame, sample);
	put_line(&frame, PLAIN, "%s", "");
	/* Many tenants leave half of the screen to the clients. */
	if (half && sample->clients.count > 0)
		upper.lines = half + 1;
	frame.view = &upper;
	put_tenants(&frame, &sample->tenants);
	frame.view = view;
	put_line(&frame, PLAIN, "%s", "");
	put_clients(&frame, &sample->clients);
	if (!view->lines && (sample->tenants.count > ROWS_MAX || sample->clients.count > ROWS_MAX))
		put_line(&frame, PLAIN, "(the first %u of %zu tenants and %zu clients; --json shows all)", ROWS_MAX,
			 sample->tenants.count, sample->clients.count);
	if (view->screen)
		fputs("h m s n sort - q quit\033[K\033[J", to);
}

static json_t *rate_json(const struct top_row *row, double value)
{
	return row->has_rates ? json_real(value) : json_null();
}

static json_t *row_json(const struct top_row *row)
{
	const struct rshm_figures *f = &row->f;

	return json_pack("{s:s s:o s:o s:o s:o s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I}", "tenant", f->name,
			 "hits_per_second", rate_json(row, row->hits), "misses_per_second",
			 rate_json(row, row->misses), "sets_per_second", rate_json(row, row->sets),
			 "deletes_per_second", rate_json(row, row->deletes), "hits", (json_int_t)f->hits, "hit_bytes",
			 (json_int_t)f->hit_bytes, "misses", (json_int_t)f->misses, "stale", (json_int_t)f->stale,
			 "sets", (json_int_t)f->sets, "deletes", (json_int_t)f->deletes, "requests",
			 (json_int_t)f->requests, "errors", (json_int_t)f->errors, "hit_ns_p50",
			 (json_int_t)f->hit_ns_p50, "hit_ns_p99", (json_int_t)f->hit_ns_p99);
}

static json_t *rows_json(struct top_rows *list, char sort, bool of_clients)
{
	json_t *array = json_array();

	sort_rows(list, sort);
	for (size_t i = 0; i < list->count; i++) {
		const struct top_row *row = &list->rows[i];
		const struct rshm_figures *f = &row->f;
		json_t *entry = row_json(row), *rest;

		if (of_clients)
			rest = json_pack("{s:I s:I s:s}", "pid", (json_int_t)f->process_id, "uid",
					 (json_int_t)f->user_id, "program", f->program);
		else
			rest = json_pack("{s:o s:I s:I s:I s:I}", "evictions_per_second",
					 rate_json(row, row->evictions), "evictions", (json_int_t)f->evictions,
					 "entries", (json_int_t)f->entries, "used_bytes", (json_int_t)f->used_bytes,
					 "limit_bytes", (json_int_t)f->limit_bytes);
		json_object_update(entry, rest);
		json_decref(rest);
		json_array_append_new(array, entry);
	}
	return array;
}

json_t *top_json(struct top_sample *s, char sort)
{
	uint64_t silent_ms = since(s->now_ms, s->heartbeat_ms);
	bool alive = s->attached && s->state == RSHM_LIVE && silent_ms <= TOP_SILENCE_MS;

	return json_pack("{s:s s:s s:I s:b s:I s:I s:I s:I s:I s:b s:o s:o}", "version", s->version, "instance",
			 s->instance, "pid", (json_int_t)s->process_id, "alive", alive, "heartbeat_age_ms",
			 (json_int_t)silent_ms, "uptime_ms", (json_int_t)since(s->now_ms, s->started_ms), "adoptions",
			 (json_int_t)s->restarts, "lease_remaining_ms",
			 (json_int_t)since(s->lease_until_ms, s->now_ms), "epoch", (json_int_t)s->epoch,
			 "revalidating", s->unclean != 0, "tenants", rows_json(&s->tenants, sort, false), "clients",
			 rows_json(&s->clients, sort, true));
}
