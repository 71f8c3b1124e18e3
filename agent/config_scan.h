/*
 * config_scan.h - looks over the text of a configuration file before the parser sees it.
 *
 * Pure: no I/O. Any thread.
 */
#ifndef RIPTIDE_CONFIG_SCAN_H
#define RIPTIDE_CONFIG_SCAN_H

#include <stddef.h>

#define CONFIG_WORD_MAX 4096  /* bytes of one word or string */
#define CONFIG_MARKS_MAX 4096 /* sections and includes of one file */

enum config_mark_kind { CONFIG_MARK_SECTION, CONFIG_MARK_INCLUDE };

/* A section that opens, or an include, in the order of the text. */
struct config_mark {
	enum config_mark_kind kind;
	unsigned line;
	size_t begin, end; /* of the whole include in the text */
	char *name;        /* of the section, or the path to include; owned */
	char *title;       /* of the section, or NULL; owned */
};

struct config_scan {
	struct config_mark *marks;
	size_t marks_count;
};

/*
 * Checks characters, strings, escapes and braces of `text` (NUL-terminated, `length` bytes), replaces comments, carriage
 * returns and includes by spaces in place, so that lines and columns stay what they were, and lists sections and includes.
 * `file` is only for messages. On failure *ret needs no clean-up. RSHM_E_INVALID with `err` set, RSHM_E_NOMEM.
 */
int config_scan(const char *file, char *text, size_t length, struct config_scan *ret, char *err, size_t err_size);
void config_scan_fini(struct config_scan *scan);

/* Writes "file:line: " and the message into `err`; returns RSHM_E_INVALID. */
__attribute__((format(printf, 5, 6))) int config_fail_at(char *err, size_t err_size, const char *file, unsigned line,
							 const char *format, ...);

#endif
