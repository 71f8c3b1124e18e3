/*
 * warm.c - brings entries into shared memory, a piece at a time, so that a list of any length takes little memory and shows how
 * far it is. The bar stands on stderr, and only if that is a terminal; how much of a file is done is known by its bytes.
 */
#include "client-lib/ctl/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE 256u
#define BAR 30

struct warm {
	const struct ctl *ctl;
	riptide *handle;
	struct riptide_warmed sum;
	struct riptide_item items[PIECE];
	size_t count;
	bool shows_bar;
};

/* `part` of `whole` is done; whole 0: not known. */
static void show_bar(const struct warm *w, uint64_t part, uint64_t whole)
{
	char bar[BAR + 1] = "";
	int done = whole ? (int)((double)part / (double)whole * BAR) : 0;

	if (!w->shows_bar)
		return;
	if (whole) {
		memset(bar, '.', BAR);
		memset(bar, '#', done < BAR ? (size_t)done : BAR);
		bar[BAR] = '\0';
	}
	fprintf(stderr, "\r%s%sloaded %" PRIu64 ", absent %" PRIu64 ", failed %" PRIu64 " ", bar, whole ? " " : "",
		w->sum.loaded, w->sum.absent, w->sum.failed);
	fflush(stderr);
}

/* Ends the bar's line, so that what follows begins one. */
static void end_bar(struct warm *w)
{
	if (w->shows_bar && w->sum.total > 0)
		fputc('\n', stderr);
	w->shows_bar = false;
}

static int warm_piece(struct warm *w)
{
	struct riptide_warmed warmed = {0};
	int code = w->count ? riptide_warm(w->handle, w->items, w->count, &warmed) : RIPTIDE_OK;

	w->sum.loaded += warmed.loaded;
	w->sum.absent += warmed.absent;
	w->sum.failed += warmed.failed;
	w->sum.total += w->count;
	w->count = 0;
	if (code >= 0)
		return CTL_OK;
	end_bar(w);
	return ctl_fail_handle(w->handle, code);
}

static int warm_arguments(struct warm *w)
{
	size_t count = w->ctl->argument_count;
	int status = CTL_OK;

	for (size_t i = 0; i < count && status == CTL_OK; i++) {
		w->items[w->count].key = w->ctl->arguments[i];
		w->items[w->count++].key_length = strlen(w->ctl->arguments[i]);
		if (w->count < PIECE && i + 1 < count)
			continue;
		status = warm_piece(w);
		show_bar(w, i + 1, count);
	}
	return status;
}

/* ---- from a file -------------------------------------------------------------------------------------------- */

/* Reads up to PIECE lines into the piece; lines[] are to be freed, also those of an earlier piece. */
static int read_piece(struct warm *w, FILE *from, char **lines, size_t *capacities)
{
	while (w->count < PIECE) {
		ssize_t length = getline(&lines[w->count], &capacities[w->count], from);

		if (length < 0)
			return ferror(from) ? ctl_fail(CTL_ERROR, "%s: %s", w->ctl->file, strerror(errno)) : CTL_OK;
		if (length > 0 && lines[w->count][length - 1] == '\n')
			length--;
		if (length == 0)
			continue;
		w->items[w->count].key = lines[w->count];
		w->items[w->count].key_length = (size_t)length;
		w->count++;
	}
	return CTL_OK;
}

static int warm_stream(struct warm *w, FILE *from)
{
	char *lines[PIECE] = {NULL};
	size_t capacities[PIECE] = {0};
	struct stat about;
	uint64_t size = fstat(fileno(from), &about) == 0 && S_ISREG(about.st_mode) ? (uint64_t)about.st_size : 0;
	int status;

	do {
		status = read_piece(w, from, lines, capacities);
		if (status == CTL_OK && w->count == 0)
			break;
		if (status == CTL_OK)
			status = warm_piece(w);
		show_bar(w, size ? (uint64_t)ftello(from) : 0, size);
	} while (status == CTL_OK);
	for (size_t i = 0; i < PIECE; i++)
		free(lines[i]);
	return status;
}

static int warm_file(struct warm *w)
{
	bool is_stdin = strcmp(w->ctl->file, "-") == 0;
	FILE *from = is_stdin ? stdin : fopen(w->ctl->file, "re");
	int status;

	if (!from)
		return ctl_fail(CTL_ERROR, "%s: %s", w->ctl->file, strerror(errno));
	status = warm_stream(w, from);
	if (!is_stdin)
		fclose(from);
	return status;
}

/* ---- the command -------------------------------------------------------------------------------------------- */

static int warm_prefix(struct warm *w)
{
	const char *prefix = w->ctl->prefix;
	struct riptide_cursor cursor = {.length = 0};
	int code;

	do {
		code = riptide_warm_prefix_next(w->handle, prefix, strlen(prefix), &cursor, &w->sum);
		show_bar(w, 0, 0);
	} while (code == RIPTIDE_OK && cursor.length > 0);
	end_bar(w);
	return code < 0 ? ctl_fail_handle(w->handle, code) : CTL_OK;
}

static int print_sum(const struct warm *w)
{
	const struct riptide_warmed *sum = &w->sum;

	if (w->ctl->json)
		return ctl_print_json(w->ctl, json_pack("{s:I,s:I,s:I,s:I}", "loaded", (json_int_t)sum->loaded,
							"absent", (json_int_t)sum->absent, "failed",
							(json_int_t)sum->failed, "total", (json_int_t)sum->total));
	printf("%" PRIu64 " keys: %" PRIu64 " loaded, %" PRIu64 " absent, %" PRIu64 " failed\n", sum->total,
	       sum->loaded, sum->absent, sum->failed);
	return CTL_OK;
}

int ctl_warm(struct ctl *ctl)
{
	struct warm w = {.ctl = ctl, .shows_bar = !ctl->json && isatty(STDERR_FILENO)};
	int sources = (ctl->argument_count > 0) + (ctl->file != NULL) + (ctl->prefix != NULL), status, printed;

	if (sources != 1)
		return ctl_fail(CTL_USAGE, "warm takes keys, or --file, or --prefix");
	status = ctl_open(ctl, &w.handle);
	if (status != CTL_OK)
		return status;
	if (ctl->file)
		status = warm_file(&w);
	else
		status = ctl->prefix ? warm_prefix(&w) : warm_arguments(&w);
	end_bar(&w);
	printed = status == CTL_OK || w.sum.total > 0 ? print_sum(&w) : CTL_OK;
	riptide_close(&w.handle);
	if (status != CTL_OK || printed != CTL_OK)
		return status != CTL_OK ? status : printed;
	return w.sum.failed ? CTL_ERROR : w.sum.absent ? CTL_NO : CTL_OK;
}
