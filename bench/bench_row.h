/*
 * bench_row.h - a figure as a line of the table and as a line of JSON.
 *
 * Rows go to standard output at once and, one JSON object a line, to the file that $RIPTIDE_BENCH_ROWS names; run.sh makes
 * bench.json of them. A row says ok or short; neither is a failure.
 */
#ifndef BENCH_ROW_H
#define BENCH_ROW_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum bench_unit {
	BENCH_NS,
	BENCH_PER_SECOND,
	BENCH_BYTES,
	BENCH_PERCENT,
	BENCH_COUNT,
};

/* What a row must reach, or would like to. */
struct bench_bound {
	enum { BENCH_NONE, BENCH_AT_MOST, BENCH_AT_LEAST } sense;
	bool of_ratio; /* else of `ours` */
	double limit;
};

#define BENCH_OURS_AT_MOST(n)             \
	{                                 \
		BENCH_AT_MOST, false, (n) \
	}
#define BENCH_RATIO_AT_MOST(n)           \
	{                                \
		BENCH_AT_MOST, true, (n) \
	}
#define BENCH_RATIO_AT_LEAST(n)           \
	{                                 \
		BENCH_AT_LEAST, true, (n) \
	}

struct bench_row {
	const char *figure;
	enum bench_unit unit;
	double ours;
	const char *peer_name; /* NULL: there is none */
	double peer;
	double ratio; /* 0: none; the median of the repetitions' own ratios where there are repetitions */
	struct bench_bound must, goal;
	const char *note; /* what else belongs to it; NULL: nothing */
};

/* Pads by what is seen, not by bytes. */
static inline void bench_cell(const char *text, int width)
{
	int seen = 0;

	for (const char *c = text; *c; c++)
		seen += (*c & 0xc0) != 0x80;
	printf("%s%*s", text, seen < width ? width - seen : 0, "");
	printf(" ");
}

static inline void bench_amount(char *text, size_t size, enum bench_unit unit, double value)
{
	switch (unit) {
	case BENCH_NS:
		if (value < 1000)
			snprintf(text, size, value < 10 ? "%.1f ns" : "%.0f ns", value);
		else if (value < 1e6)
			snprintf(text, size, "%.1f µs", value / 1e3);
		else
			snprintf(text, size, "%.2f ms", value / 1e6);
		break;
	case BENCH_PER_SECOND:
		if (value < 1e4)
			snprintf(text, size, "%.0f/s", value);
		else if (value < 1e6)
			snprintf(text, size, "%.1f k/s", value / 1e3);
		else
			snprintf(text, size, "%.2f M/s", value / 1e6);
		break;
	case BENCH_BYTES:
		if (value < 10240)
			snprintf(text, size, value < 1000 ? "%.1f B" : "%.0f B", value);
		else if (value < 1 << 20)
			snprintf(text, size, "%.1f KiB", value / 1024);
		else
			snprintf(text, size, "%.1f MiB", value / 1048576);
		break;
	case BENCH_PERCENT:
		snprintf(text, size, "%.2f %%", value);
		break;
	case BENCH_COUNT:
		snprintf(text, size, "%.0f", value);
		break;
	}
}

static inline void bench_bound_text(char *text, size_t size, const struct bench_bound *bound, enum bench_unit unit)
{
	char amount[40];

	if (bound->sense == BENCH_NONE) {
		snprintf(text, size, "-");
		return;
	}
	if (bound->of_ratio)
		snprintf(amount, sizeof(amount), "%g x", bound->limit);
	else
		bench_amount(amount, sizeof(amount), unit, bound->limit);
	snprintf(text, size, "%s %s", bound->sense == BENCH_AT_MOST ? "≤" : "≥", amount);
}

static inline bool bench_holds(const struct bench_bound *bound, const struct bench_row *row)
{
	double value = bound->of_ratio ? row->ratio : row->ours;

	return bound->sense == BENCH_NONE ||
	       (bound->sense == BENCH_AT_MOST ? value <= bound->limit : value >= bound->limit);
}

static inline const char *bench_verdict(const struct bench_row *row)
{
	if (row->must.sense == BENCH_NONE)
		return row->goal.sense == BENCH_NONE ? "-" : bench_holds(&row->goal, row) ? "goal" : "short of goal";
	if (!bench_holds(&row->must, row))
		return "short";
	return row->goal.sense != BENCH_NONE && bench_holds(&row->goal, row) ? "ok, goal" : "ok";
}

static inline void bench_heading(const char *title)
{
	printf("\n%s\n", title);
	bench_cell("figure", 47);
	bench_cell("ours", 10);
	bench_cell("peer", 31);
	bench_cell("ratio", 8);
	bench_cell("must reach", 10);
	bench_cell("goal", 9);
	printf("verdict\n");
	fflush(stdout);
}

static inline void bench_row_to_json(const struct bench_row *row, const char *must, const char *goal)
{
	static const char *const units[] = {"ns", "per second", "bytes", "percent", "count"};
	const char *path = getenv("RIPTIDE_BENCH_ROWS");
	FILE *file = path ? fopen(path, "ae") : NULL;
	json_t *object;

	if (!file)
		return;
	object = json_pack("{s:s, s:s, s:f, s:s?, s:f, s:f, s:s, s:s, s:s, s:s?}", "figure", row->figure, "unit",
			   units[row->unit], "ours", row->ours, "peer_name", row->peer_name, "peer", row->peer,
			   "ratio", row->ratio, "must_reach", must, "goal", goal, "verdict", bench_verdict(row),
			   "note", row->note);
	if (object && json_dumpf(object, file, JSON_REAL_PRECISION(6)) == 0)
		fputc('\n', file);
	json_decref(object);
	fclose(file);
}

static inline void bench_print(const struct bench_row *row)
{
	char ours[40], amount[40], peer[100] = "-", ratio[40] = "-", must[60], goal[60];

	bench_amount(ours, sizeof(ours), row->unit, row->ours);
	bench_amount(amount, sizeof(amount), row->unit, row->peer);
	if (row->peer_name)
		snprintf(peer, sizeof(peer), "%s %s", amount, row->peer_name);
	if (row->ratio > 0)
		snprintf(ratio, sizeof(ratio), row->ratio < 100 ? "%.2f x" : "%.0f x", row->ratio);
	bench_bound_text(must, sizeof(must), &row->must, row->unit);
	bench_bound_text(goal, sizeof(goal), &row->goal, row->unit);
	bench_cell(row->figure, 47);
	bench_cell(ours, 10);
	bench_cell(peer, 31);
	bench_cell(ratio, 8);
	bench_cell(must, 10);
	bench_cell(goal, 9);
	printf("%s\n", bench_verdict(row));
	if (row->note)
		printf("    %s\n", row->note);
	fflush(stdout);
	bench_row_to_json(row, must, goal);
}

#endif
