/*
 * ctl.h - what the files of riptidectl share: the command line, exit codes, the way to the agent.
 *
 * One thread. A command returns an enum ctl_exit; whoever finds an error prints it, one line, with ctl_fail().
 */
#ifndef RIPTIDE_CTL_H
#define RIPTIDE_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "riptide/riptide.h"

#define CTL_TAGS_MAX 16u
#define CTL_VALUE_MAX (64u << 20) /* bytes that `set` reads; no agent accepts more */
#define CTL_FRAMES_MAX 1000000u

/* Documented in --help. */
enum ctl_exit {
	CTL_OK = 0,
	CTL_NO = 1, /* a miss, or a negative answer */
	CTL_USAGE = 2,
	CTL_NO_AGENT = 3,
	CTL_DENIED = 4,
	CTL_TIMEOUT = 5,
	CTL_ERROR = 6,
};

/* Options of commands, as bits: which were given, and which a command takes. */
enum ctl_option {
	CTL_RAW = 1 << 0,
	CTL_HEX = 1 << 1,
	CTL_META = 1 << 2,
	CTL_FILE = 1 << 3,
	CTL_TTL = 1 << 4,
	CTL_CONTENT_TYPE = 1 << 5,
	CTL_TAG = 1 << 6,
	CTL_COUNT = 1 << 7,  /* -c */
	CTL_FRAMES = 1 << 8, /* -n */
	CTL_WATCH = 1 << 9,
	CTL_SORT = 1 << 10,
	CTL_PREFIX = 1 << 11,
	CTL_YES = 1 << 12,
	CTL_IF_ABSENT = 1 << 13,
	CTL_IF_PRESENT = 1 << 14,
	CTL_IF_VERSION = 1 << 15,
	CTL_BEHIND = 1 << 16,
	CTL_TAIL = 1 << 17,
	CTL_ALL = 1 << 18,
};

struct ctl {
	const char *socket, *tenant, *token_file;
	uint32_t timeout_ms, watch_ms, count, frames; /* 0: without end */
	uint32_t tail;
	uint64_t ttl_ms, if_version;
	unsigned int given; /* enum ctl_option */
	bool json, colour, to_terminal;
	const char *file, *prefix, *content_type, *tags[CTL_TAGS_MAX];
	size_t tag_count;
	char sort;        /* h, m, s or n */
	char **arguments; /* after the command's name */
	size_t argument_count;
};

/* ---- options.c: the command line ---------------------------------------------------------------------------- */

/*
 * Reads options wherever they stand, up to "--"; what is left stands in `arguments`, the command's name first. CTL_USAGE
 * after a message. *ret_mode: 0, or 'h' or 'V' for --help and --version.
 */
int ctl_parse(struct ctl *ctl, int argc, char **argv, int *ret_mode);
/* A time for people, "90s" or "never": `name` takes it. CTL_USAGE after a message. */
int ctl_time(const char *name, const char *text, uint64_t *ret_ms);
/* The name of an option that is given and not in `taken`, or NULL. */
const char *ctl_first_untaken(const struct ctl *ctl, unsigned int taken);

/* ---- agent.c: the way to the agent -------------------------------------------------------------------------- */

/* The exit code for a RIPTIDE_E… or RIPTIDE_MISS. */
int ctl_exit_of(int code);
/* Opens a handle as the options say. Prints the error; *ret_handle is NULL then. */
int ctl_open(const struct ctl *ctl, riptide **ret_handle);
/* Prints what went wrong last on the handle and returns the exit code for `code`. */
int ctl_fail_handle(riptide *handle, int code);
/* Asks the control socket for one of RSHM_CONTROL_STATUS, _CLIENTS, _RELOAD. *ret_document: json_decref() it. */
int ctl_ask(const struct ctl *ctl, uint16_t op, json_t **ret_document);
/* The same with a whole message, rshm_tlv_finish(). */
int ctl_ask_with(const struct ctl *ctl, const void *request, size_t length, json_t **ret_document);

/* ---- print.c ------------------------------------------------------------------------------------------------ */

/* One line on stderr, "riptidectl: …", with everything escaped that could move a terminal. Returns `code`. */
__attribute__((format(printf, 2, 3))) int ctl_fail(int code, const char *format, ...);
/* Bytes of others: control characters, C1, bidirectional marks and broken UTF-8 as \xNN; `keep` names what passes. */
void ctl_print_escaped(FILE *to, const void *bytes, size_t length, const char *keep);
/* The same into a buffer, cut at its end. Returns `buffer`. */
char *ctl_escaped(char *buffer, size_t size, const void *bytes, size_t length);
/* Quantities for people, into `buffer` of CTL_CELL bytes, which is returned. */
#define CTL_CELL 40
char *ctl_bytes(char *buffer, uint64_t bytes);
char *ctl_nanoseconds(char *buffer, double ns);
char *ctl_span(char *buffer, uint64_t ms);
char *ctl_rate(char *buffer, double per_second);
/* A document on one line, or indented on a terminal; ASCII only. Takes the reference. CTL_ERROR: no memory. */
int ctl_print_json(const struct ctl *ctl, json_t *document);
/* Sets `name` to the text, or `name`_hex if the bytes are no UTF-8. */
void ctl_json_hex(json_t *object, const char *name, const void *bytes, size_t length);
void ctl_json_bytes(json_t *object, const char *name, const void *bytes, size_t length);
/* Begin and end of emphasised text: "" without colours. */
const char *ctl_bold(const struct ctl *ctl);
const char *ctl_plain(const struct ctl *ctl);

/* Members of a document that another process wrote: absent or of another type is 0, false or "?". */
uint64_t ctl_u64(const json_t *object, const char *name);
double ctl_real(const json_t *object, const char *name);
const char *ctl_text(const json_t *object, const char *name);

/* ---- commands ----------------------------------------------------------------------------------------------- */

int ctl_get(struct ctl *ctl);
int ctl_set(struct ctl *ctl);
int ctl_del(struct ctl *ctl);
/* What `del --prefix` and `del --tag` do; many.c. */
int ctl_del_many(struct ctl *ctl);
int ctl_clear(struct ctl *ctl);
int ctl_flush(struct ctl *ctl);
int ctl_warm(struct ctl *ctl);
int ctl_incr(struct ctl *ctl);
int ctl_ttl(struct ctl *ctl);
int ctl_touch(struct ctl *ctl);
int ctl_ping(struct ctl *ctl);
int ctl_stats(struct ctl *ctl);
/* What `stats --all` does; totals.c. */
int ctl_stats_all(struct ctl *ctl);
int ctl_status(struct ctl *ctl);
int ctl_clients(struct ctl *ctl);
int ctl_reload(struct ctl *ctl);
int ctl_evictions(struct ctl *ctl);
int ctl_audit(struct ctl *ctl);
int ctl_dict(struct ctl *ctl);
int ctl_metrics(struct ctl *ctl);
int ctl_tenant(struct ctl *ctl);
int ctl_top(struct ctl *ctl);

#endif
