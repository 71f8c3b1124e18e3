/* audit_priv.h - what audit.c and audit_tail.c share: the folder and the names in it. */
#ifndef AUDIT_PRIV_H
#define AUDIT_PRIV_H

#include "agent/control/audit.h"
#include "agent/control/audit_limit.h"

#define AUDIT_NAME_BYTES 32u /* audit-YYYY-MM-DD.jsonl */

struct audit {
	/* set once */
	int folder_fd;
	char *folder; /* for messages */
	uint32_t retention_days;
	bool to_log;
	/* the day's file */
	int fd;            /* -1: not open */
	int64_t day;       /* since 1970, of fd */
	bool torn;         /* its last line has no end */
	int64_t swept_day; /* when old files were last looked for */
	uint64_t unsaid;   /* lost lines that no line has told of yet */
	struct audit_limit limit;
	struct audit_figures figures;
};

void audit_name_of(int64_t day, char ret[AUDIT_NAME_BYTES]);
/* False: not the name of one of our files. */
bool audit_day_of(const char *name, int64_t *ret_day);

#endif
