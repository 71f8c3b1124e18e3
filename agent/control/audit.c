/*
 * audit.c - composes lines and appends them to the day's file.
 *
 * A line is put together on the stack and leaves with one write() to a descriptor opened with O_APPEND, so that lines never
 * mix, whoever else has the file open. It is escaped by base/text.h, which allocates nothing: an agent without memory still
 * says whom it refused. Bytes that are no UTF-8 become U+FFFD; texts are cut, never refused.
 *
 * What can go wrong with the file (no space, read-only, too large, removed under our hands) never reaches the caller:
 *
 *	no line written     counted in `lost`, and the next line that can be written says "lost":n
 *	part of one written likewise; the next line begins on a line of its own, and readers skip the torn one
 *	file removed        found before each line, and the file is made again
 *
 * Each line tries again, so it ends when its cause does. A crash in the middle of a line is found when the file is opened.
 *
 * Days are those of UTC. A clock that is set back goes on in the file of that day; one that is set far ahead ages all files
 * and has them removed: keeping the log elsewhere is what journal and to_log are for.
 */
#include "agent/control/audit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/control/audit_priv.h"
#include "shm/msg.h"

#define DAY_MS 86400000u
#define ROLE_MAX 16u
#define WHAT_MAX 32u
#define ON_MAX 128u
#define DETAIL_MAX 512u
/* Every byte of a text may become six, and all that is ours has less than 512. */
#define LINE_BYTES (512u + 6u * (ROLE_MAX + WHAT_MAX + RSHM_TENANT_MAX + ON_MAX + DETAIL_MAX))

static const char *result_name(int status)
{
	switch (status) {
	case RSHM_E_INVALID:
		return "invalid";
	case RSHM_E_TOOBIG:
		return "too big";
	case RSHM_E_DENIED:
		return "denied";
	case RSHM_E_NOTENANT:
		return "no such tenant";
	case RSHM_E_UNSUPPORTED:
		return "unsupported";
	case RSHM_E_AGAIN:
		return "limit reached";
	case RSHM_E_TIMEDOUT:
		return "timed out";
	case RSHM_E_PROTOCOL:
		return "broken protocol";
	default:
		return status < 0 ? "failed" : "ok";
	}
}

/* ---- the folder --------------------------------------------------------------------------------------------- */

void audit_name_of(int64_t day, char ret[AUDIT_NAME_BYTES])
{
	time_t seconds = (time_t)(day * 86400);
	struct tm parts;

	if (!gmtime_r(&seconds, &parts) || strftime(ret, AUDIT_NAME_BYTES, "audit-%Y-%m-%d.jsonl", &parts) == 0)
		strcpy(ret, "audit-0000-00-00.jsonl"); /* a clock beyond reason */
}

bool audit_day_of(const char *name, int64_t *ret_day)
{
	struct tm parts = {.tm_mday = 1};
	char again[AUDIT_NAME_BYTES];
	const char *end = strptime(name, "audit-%Y-%m-%d.jsonl", &parts);
	int64_t day;

	if (!end || *end)
		return false;
	day = (int64_t)timegm(&parts) / 86400;
	audit_name_of(day, again);
	if (strcmp(again, name) != 0)
		return false;
	*ret_day = day;
	return true;
}

static int open_folder(struct audit *audit, char *error, size_t error_len)
{
	struct stat st;

	if (mkdir(audit->folder, 0700) < 0 && errno != EEXIST) {
		snprintf(error, error_len, "%s: cannot be made: %s", audit->folder, strerror(errno));
		return RSHM_E_SYSTEM;
	}
	audit->folder_fd = open(audit->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (audit->folder_fd < 0 || fstat(audit->folder_fd, &st) < 0) {
		snprintf(error, error_len, "%s: cannot be opened as a folder: %s", audit->folder, strerror(errno));
		return RSHM_E_SYSTEM;
	}
	if (st.st_uid != geteuid() || (st.st_mode & 022)) {
		snprintf(
			error, error_len,
			"%s: must belong to the agent's user (uid %u) and be writable for nobody else; it is uid %u, "
			"mode %04o",
			audit->folder, (unsigned int)geteuid(), (unsigned int)st.st_uid,
			(unsigned int)(st.st_mode & 07777));
		return RSHM_E_DENIED;
	}
	return RSHM_OK;
}

static void remove_old(struct audit *audit, int64_t today)
{
	int fd = openat(audit->folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	int64_t day;

	audit->swept_day = today;
	if (!folder) {
		log_warn("audit", "%s: old files cannot be looked for: %s", audit->folder, strerror(errno));
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(folder)) != NULL) {
		if (!audit_day_of(entry->d_name, &day) || day >= today - (int64_t)audit->retention_days)
			continue;
		if (unlinkat(audit->folder_fd, entry->d_name, 0) == 0)
			log_info("audit", "%s is older than %u days: removed", entry->d_name, audit->retention_days);
		else
			log_warn("audit", "%s/%s: cannot be removed: %s", audit->folder, entry->d_name,
				 strerror(errno));
	}
	closedir(folder);
}

/* ---- the day's file ----------------------------------------------------------------------------------------- */

static void close_day(struct audit *audit)
{
	if (audit->fd >= 0)
		close(audit->fd);
	audit->fd = -1;
	audit->torn = false;
}

/* False with errno: it cannot be opened. */
static bool open_day(struct audit *audit, int64_t day)
{
	char name[AUDIT_NAME_BYTES], last = '\n';
	struct stat st;

	if (audit->fd >= 0 && audit->day == day && fstat(audit->fd, &st) == 0 && st.st_nlink > 0)
		return true;
	close_day(audit);
	audit_name_of(day, name);
	audit->fd = openat(audit->folder_fd, name, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
			   0600);
	if (audit->fd < 0)
		return false;
	if (fstat(audit->fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close_day(audit);
		errno = EEXIST;
		return false;
	}
	audit->day = day;
	/* A predecessor may have died, or run out of space, in the middle of a line. */
	audit->torn = st.st_size > 0 && (pread(audit->fd, &last, 1, st.st_size - 1) != 1 || last != '\n');
	return true;
}

static void count_lost(struct audit *audit, const char *why)
{
	static struct log_limit limit = LOG_LIMIT(2, 60000);

	audit->figures.lost++;
	audit->unsaid++;
	log_limited(&limit, LOG_LEVEL_ERROR, "audit", "%s: a line could not be written: %s; %" PRIu64 " lost so far",
		    audit->folder, why, audit->figures.lost);
}

/* `bytes` begins with a newline, which is left out unless one is missing. */
static void append(struct audit *audit, int64_t day, const char *bytes, size_t length)
{
	ssize_t n;

	if (!open_day(audit, day)) {
		count_lost(audit, strerror(errno));
		return;
	}
	if (!audit->torn)
		bytes++, length--;
	do
		n = write(audit->fd, bytes, length);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)length) {
		audit->torn = false;
		audit->unsaid = 0;
		audit->figures.written++;
		return;
	}
	count_lost(audit, n < 0 ? strerror(errno) : "no space for all of it");
	if (n > 0)
		audit->torn = true;
}

/* ---- lines -------------------------------------------------------------------------------------------------- */

static void add_text(struct text *line, const char *name, const char *value, size_t length_max)
{
	size_t length;

	if (!value)
		return;
	length = strnlen(value, length_max + 1);
	if (length > length_max) {
		/* Not in the middle of a character. */
		length = length_max;
		while (length > 0 && ((unsigned char)value[length] & 0xc0) == 0x80)
			length--;
	}
	text_append_format(line, ",\"%s\":\"", name);
	text_append_json(line, value, length);
	text_append_string(line, "\"");
}

static void begin_line(struct text *line, uint64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	char stamp[32] = "";
	struct tm parts;

	if (gmtime_r(&seconds, &parts))
		(void)strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &parts);
	text_append_format(line, "\n{\"time\":\"%s.%03uZ\"", stamp, (unsigned int)(wall_ms % 1000));
}

static void end_line(struct audit *audit, struct text *line, uint64_t wall_ms)
{
	if (audit->unsaid > 0)
		text_append_format(line, ",\"lost\":%" PRIu64, audit->unsaid);
	text_append_string(line, "}\n");
	must(!line->cut);
	append(audit, (int64_t)(wall_ms / DAY_MS), line->bytes, line->length);
}

static const char *shown(const char *text)
{
	return text ? text : "-";
}

static void tell_log(const struct audit_event *e)
{
	if (e->by_nobody)
		log_info("audit", "%s, tenant %s, %s: %s %s", e->what, shown(e->tenant), shown(e->on),
			 result_name(e->status), shown(e->detail));
	else
		log_info("audit", "%s by uid %u, gid %u, process %d, tenant %s, %s: %s %s", e->what,
			 (unsigned int)e->uid, (unsigned int)e->gid, (int)e->pid, shown(e->tenant), shown(e->on),
			 result_name(e->status), shown(e->detail));
}

void audit_write(struct audit *audit, const struct audit_event *e)
{
	char bytes[LINE_BYTES];
	struct text line;

	if (!audit)
		return;
	if (e->limited && !audit_limit_admit(&audit->limit, e->uid, e->status < 0, clock_monotonic_ms())) {
		audit->figures.suppressed++;
		return;
	}
	text_init(&line, bytes, sizeof(bytes));
	begin_line(&line, e->wall_ms);
	if (!e->by_nobody)
		text_append_format(&line, ",\"uid\":%u,\"gid\":%u,\"pid\":%d", (unsigned int)e->uid,
				   (unsigned int)e->gid, (int)e->pid);
	add_text(&line, "role", e->role, ROLE_MAX);
	add_text(&line, "what", e->what, WHAT_MAX);
	add_text(&line, "tenant", e->tenant, RSHM_TENANT_MAX);
	add_text(&line, "on", e->on, ON_MAX);
	add_text(&line, "result", result_name(e->status), WHAT_MAX);
	text_append_format(&line, ",\"status\":%d", e->status);
	add_text(&line, "detail", e->detail, DETAIL_MAX);
	end_line(audit, &line, e->wall_ms);
	if (audit->to_log)
		tell_log(e);
}

static void write_summaries(struct audit *audit, bool all, uint64_t wall_ms)
{
	struct audit_suppressed s;

	while (audit_limit_take(&audit->limit, all, clock_monotonic_ms(), &s)) {
		char bytes[LINE_BYTES];
		struct text line;

		text_init(&line, bytes, sizeof(bytes));
		begin_line(&line, wall_ms);
		if (!s.several)
			text_append_format(&line, ",\"uid\":%u", (unsigned int)s.uid);
		text_append_format(&line,
				   ",\"what\":\"suppressed\",\"accepted\":%" PRIu64 ",\"refused\":%" PRIu64
				   ",\"over_ms\":%" PRIu64,
				   s.accepted, s.refused, s.over_ms);
		end_line(audit, &line, wall_ms);
	}
}

/* ---- life --------------------------------------------------------------------------------------------------- */

int audit_open(const struct audit_options *options, uint64_t wall_ms, struct audit **ret, char *error,
	       size_t error_len)
{
	struct audit *audit = calloc(1, sizeof(*audit));
	int status = RSHM_E_NOMEM;

	must(options->retention_days >= 1);
	if (audit) {
		*audit = (struct audit){
			.folder = strdup(options->folder),
			.folder_fd = -1,
			.fd = -1,
			.retention_days = options->retention_days,
			.to_log = options->to_log,
		};
		if (audit->folder)
			status = open_folder(audit, error, error_len);
	}
	if (status == RSHM_E_NOMEM)
		snprintf(error, error_len, "no memory for the audit log");
	if (status < 0) {
		audit_close(&audit, wall_ms);
		return status;
	}
	remove_old(audit, (int64_t)(wall_ms / DAY_MS));
	*ret = audit;
	return RSHM_OK;
}

void audit_close(struct audit **audit, uint64_t wall_ms)
{
	struct audit *a = *audit;

	*audit = NULL;
	if (!a)
		return;
	write_summaries(a, true, wall_ms);
	if (a->unsaid > 0)
		log_error("audit", "%s: the last %" PRIu64 " lines are missing in it", a->folder, a->unsaid);
	close_day(a);
	if (a->folder_fd >= 0)
		close(a->folder_fd);
	free(a->folder);
	free(a);
}

void audit_tick(struct audit *audit, uint64_t wall_ms)
{
	if (!audit)
		return;
	write_summaries(audit, false, wall_ms);
	if (audit->swept_day != (int64_t)(wall_ms / DAY_MS))
		remove_old(audit, (int64_t)(wall_ms / DAY_MS));
}

void audit_figures(const struct audit *audit, struct audit_figures *ret)
{
	*ret = audit->figures;
}
