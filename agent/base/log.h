/*
 * log.h - the agent's log: one line per event, as text or JSON on stderr, or as fields in the systemd journal.
 *
 * All functions: any thread. Nothing here takes a lock, so a thread that dies in the middle blocks no other one. A line is
 * written with one write() of at most 4 KiB; longer ones are cut and say so. A stderr that would block loses the line, and
 * log_lost() counts it. Control characters in messages are escaped: what a peer sends cannot fake a line of ours. Secrets
 * are the caller's to leave out.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERROR, /* something failed that a person must look at */
	LOG_LEVEL_WARN,  /* works on, worse than it should */
	LOG_LEVEL_INFO,  /* milestones of a life: start, ready, reload, stop */
	LOG_LEVEL_DEBUG, /* for whoever reads the source beside it */
};

enum log_format {
	LOG_FORMAT_AUTO, /* the journal if stderr is connected to it, else text */
	LOG_FORMAT_TEXT,
	LOG_FORMAT_JSON,
};

/*
 * Chooses format and level; before it is called: text, info. May be called again at any time. The journal is used only
 * if JOURNAL_STREAM names the very file that stderr is, for sd_journal_send() reports success where no journal runs.
 */
void log_setup(enum log_format format, enum log_level level);

/* Takes effect at once, for all threads. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/* `module` is a short literal; the message needs no newline at its end. */
__attribute__((format(printf, 3, 4))) void log_write(enum log_level level, const char *module, const char *format,
						     ...);

/* The arguments are evaluated only if the level is enabled. */
#define log_error(module, ...) log_at(LOG_LEVEL_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...) log_at(LOG_LEVEL_WARN, module, __VA_ARGS__)
#define log_info(module, ...) log_at(LOG_LEVEL_INFO, module, __VA_ARGS__)
#define log_debug(module, ...) log_at(LOG_LEVEL_DEBUG, module, __VA_ARGS__)
#define log_at(level, module, ...) (log_enabled(level) ? log_write(level, module, __VA_ARGS__) : (void)0)

/* Lines that one place may write per interval. Static storage, LOG_LIMIT() as initialiser; atomics inside. */
struct log_limit {
	uint32_t lines;
	uint32_t interval_ms;
	uint64_t window; /* number of the interval << 24 | lines written in it */
	uint64_t suppressed;
};
#define LOG_LIMIT(lines_, interval_ms_)                          \
	{                                                        \
		.lines = (lines_), .interval_ms = (interval_ms_) \
	}

/*
 * Like log_write(), but at most limit->lines times per interval. The first line of a later interval tells how many were
 * suppressed since.
 */
__attribute__((format(printf, 4, 5))) void log_limited(struct log_limit *limit, enum log_level level,
						       const char *module, const char *format, ...);

/* Lines that could not be written since start. */
uint64_t log_lost(void);

const char *log_level_name(enum log_level level);

#endif
