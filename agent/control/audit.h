/*
 * audit.h - the audit log: who did what, to what, with what result. One JSON object per line in a file per day.
 *
 *	<folder>/audit-2024-05-01.jsonl
 *	{"time":"2024-05-01T12:00:00.000Z","uid":33,"gid":33,"pid":812,"what":"attach","tenant":"shop","on":"program php",
 *	 "result":"no such tenant","status":-5,"detail":"Invalid tenant access: …"}
 *
 * One instance per agent, main loop only. Lines are written at once, with one write() to a local file and without fsync: the
 * page cache takes them, so they survive the agent's death and not always the machine's. That, opening the day's file and
 * removing old ones is all the blocking there is. Nothing fails: a line that could not be written is counted, and the next
 * one that could be says how many are missing.
 */
#ifndef RIPTIDE_AUDIT_H
#define RIPTIDE_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct audit;

struct audit_options {
	const char *folder;      /* made with mode 0700 if it is not there; its parent must be */
	uint32_t retention_days; /* >= 1: files of days before that are removed */
	bool to_log;             /* every line also to the log (the journal), as text for people */
};

/* RSHM_E_SYSTEM, RSHM_E_DENIED (not a folder that only we may write to), RSHM_E_NOMEM; with a one-line text. */
int audit_open(const struct audit_options *options, uint64_t wall_ms, struct audit **ret, char *error,
	       size_t error_len);
/* Writes what is still to be summed up. NULL is fine; clears *audit. */
void audit_close(struct audit **audit, uint64_t wall_ms);

/* Texts are borrowed, may be NULL (left out), are escaped, and cut at the length that stands beside them. */
struct audit_event {
	uint64_t wall_ms;
	bool by_nobody; /* no peer caused it, such as a signal: no uid, gid and pid */
	bool limited;   /* one of many that the peer can cause: see audit_limit.h */
	uid_t uid;
	gid_t gid;
	pid_t pid;
	const char *role;   /* 16 */
	const char *what;   /* 32; never NULL */
	const char *tenant; /* 64 */
	const char *on;     /* 128 */
	const char *detail; /* 512 */
	int status;         /* 0 or more: "ok"; else one of enum rshm_status */
};

/* NULL: no audit log is kept. */
void audit_write(struct audit *audit, const struct audit_event *event);

/* Once a second or so: summaries that are due, and old files on a new day. NULL is fine. */
void audit_tick(struct audit *audit, uint64_t wall_ms);

/* Since start: lines written, lines that could not be, and events that only a summary counts. */
struct audit_figures {
	uint64_t written, lost, suppressed;
};
void audit_figures(const struct audit *audit, struct audit_figures *ret);

#define AUDIT_TAIL_MAX 1000u

/*
 * The last `count` lines (1 to AUDIT_TAIL_MAX), oldest first, as {"events": […], "unreadable": n, "lost": n, "suppressed": n}:
 * fewer if there are no more, or if they have more than `bytes_max`. Reads at most that many bytes. *ret: free() it.
 * RSHM_E_NOMEM, RSHM_E_SYSTEM.
 */
int audit_tail(const struct audit *audit, uint32_t count, size_t bytes_max, char **ret);

#endif
