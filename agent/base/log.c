/*
 * A line is put together on the stack of its thread and handed to the kernel with one write(): no buffer is shared, so
 * there is nothing to lock, nothing to flush at exit, and lines of several threads do not mix (a pipe takes up to 4 KiB at
 * once). What is shared are three words, read and written with relaxed atomics: level, format, lines lost.
 *
 * The message is formatted first and escaped as a whole. That catches control characters from wherever they came, at the
 * price that a newline in a format string of ours is shown as \n too.
 */
#include "agent/base/log.h"

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/text.h"

#define LOG_LINE_MAX 4096    /* PIPE_BUF: written in one piece */
#define LOG_MESSAGE_MAX 3072 /* before escaping */
#define LOG_TAIL_MAX 16      /* room kept for what ends a line */
#define LOG_WINDOW_BITS 24

enum log_output { LOG_OUTPUT_TEXT, LOG_OUTPUT_JSON, LOG_OUTPUT_JOURNAL };

static int log_level_now = LOG_LEVEL_INFO;
static int log_output_now = LOG_OUTPUT_TEXT;
static uint64_t log_lost_now;

static const char *const log_level_names[] = {"error", "warn", "info", "debug"};

/* JOURNAL_STREAM is "device:inode" of the socket that systemd made our stderr of. */
static bool log_stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char own[64];
	struct stat status;

	if (stream == NULL || fstat(STDERR_FILENO, &status) != 0)
		return false;
	snprintf(own, sizeof(own), "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
	return strcmp(stream, own) == 0;
}

void log_setup(enum log_format format, enum log_level level)
{
	int output = LOG_OUTPUT_TEXT;

	if (format == LOG_FORMAT_JSON)
		output = LOG_OUTPUT_JSON;
	else if (format == LOG_FORMAT_AUTO && log_stderr_is_journal())
		output = LOG_OUTPUT_JOURNAL;
	__atomic_store_n(&log_output_now, output, __ATOMIC_RELAXED);
	log_set_level(level);
}

void log_set_level(enum log_level level)
{
	must(level >= LOG_LEVEL_ERROR && level <= LOG_LEVEL_DEBUG);
	__atomic_store_n(&log_level_now, (int)level, __ATOMIC_RELAXED);
}

bool log_enabled(enum log_level level)
{
	return (int)level <= __atomic_load_n(&log_level_now, __ATOMIC_RELAXED);
}

const char *log_level_name(enum log_level level)
{
	must(level >= LOG_LEVEL_ERROR && level <= LOG_LEVEL_DEBUG);
	return log_level_names[level];
}

uint64_t log_lost(void)
{
	return __atomic_load_n(&log_lost_now, __ATOMIC_RELAXED);
}

static void log_count_lost(void)
{
	__atomic_fetch_add(&log_lost_now, 1, __ATOMIC_RELAXED);
}

static void log_append_time(struct text *line)
{
	uint64_t now_ms = clock_realtime_ms();
	time_t seconds = (time_t)(now_ms / 1000);
	struct tm parts;
	char stamp[32];

	if (gmtime_r(&seconds, &parts) == NULL || strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &parts) == 0)
		stamp[0] = '\0';
	text_append_format(line, "%s.%03uZ", stamp, (unsigned)(now_ms % 1000));
}

static void log_emit_stderr(bool json, enum log_level level, const char *module, const char *message, size_t length)
{
	char bytes[LOG_LINE_MAX];
	struct text line;
	ssize_t written;

	text_init(&line, bytes, sizeof(bytes) - LOG_TAIL_MAX);
	if (json) {
		text_append_string(&line, "{\"time\":\"");
		log_append_time(&line);
		text_append_format(&line, "\",\"level\":\"%s\",\"module\":\"", log_level_names[level]);
		text_append_json(&line, module, strlen(module));
		text_append_string(&line, "\",\"message\":\"");
		text_append_json(&line, message, length);
	} else {
		log_append_time(&line);
		text_append_format(&line, " %-5s ", log_level_names[level]);
		text_append_escaped(&line, module, strlen(module));
		text_append_string(&line, ": ");
		text_append_escaped(&line, message, length);
	}
	line.capacity += LOG_TAIL_MAX;
	if (line.cut)
		text_append_string(&line, " [cut]");
	text_append_string(&line, json ? "\"}\n" : "\n");

	do {
		written = write(STDERR_FILENO, line.bytes, line.length);
	} while (written < 0 && errno == EINTR);
	if (written != (ssize_t)line.length)
		log_count_lost();
}

static void log_emit_journal(enum log_level level, const char *module, const char *message, size_t length)
{
	/* Levels of syslog: err 3, warning 4, info 6, debug 7. */
	static const char *const priorities[] = {"PRIORITY=3", "PRIORITY=4", "PRIORITY=6", "PRIORITY=7"};
	char message_bytes[LOG_LINE_MAX], module_bytes[64];
	struct text message_field, module_field;
	struct iovec fields[3];

	text_init(&message_field, message_bytes, sizeof(message_bytes));
	text_append_string(&message_field, "MESSAGE=");
	text_append_escaped(&message_field, message, length);
	text_init(&module_field, module_bytes, sizeof(module_bytes));
	text_append_string(&module_field, "MODULE=");
	text_append_escaped(&module_field, module, strlen(module));
	fields[0] = (struct iovec){message_field.bytes, message_field.length};
	fields[1] = (struct iovec){(void *)(uintptr_t)priorities[level], strlen(priorities[level])};
	fields[2] = (struct iovec){module_field.bytes, module_field.length};
	if (sd_journal_sendv(fields, 3) != 0)
		log_emit_stderr(false, level, module, message, length);
}

__attribute__((format(printf, 4, 0))) static void
log_writev(enum log_level level, const char *module, uint64_t suppressed, const char *format, va_list arguments)
{
	char bytes[LOG_MESSAGE_MAX];
	struct text message;
	int output = __atomic_load_n(&log_output_now, __ATOMIC_RELAXED);
	int saved_errno = errno;

	text_init(&message, bytes, sizeof(bytes) - 64);
	text_append_formatv(&message, format, arguments);
	message.capacity += 64;
	if (message.cut)
		text_append_string(&message, " [cut]");
	if (suppressed > 0)
		text_append_format(&message, " (%" PRIu64 " like it suppressed)", suppressed);
	if (output == LOG_OUTPUT_JOURNAL)
		log_emit_journal(level, module, bytes, message.length);
	else
		log_emit_stderr(output == LOG_OUTPUT_JSON, level, module, bytes, message.length);
	errno = saved_errno;
}

void log_write(enum log_level level, const char *module, const char *format, ...)
{
	va_list arguments;

	if (!log_enabled(level))
		return;
	va_start(arguments, format);
	log_writev(level, module, 0, format, arguments);
	va_end(arguments);
}

/* Counts this line; true if it may be written. *ret_first tells that it opens a new interval. */
static bool log_limit_admit(struct log_limit *limit, bool *ret_first)
{
	uint64_t mask = (1u << LOG_WINDOW_BITS) - 1;
	uint64_t number = clock_monotonic_ms() / limit->interval_ms + 1;
	uint64_t window = __atomic_load_n(&limit->window, __ATOMIC_RELAXED);
	uint64_t wanted;

	must(limit->interval_ms > 0 && limit->lines > 0 && limit->lines < mask);
	do {
		if (window >> LOG_WINDOW_BITS >= number && (window & mask) >= limit->lines)
			return false;
		*ret_first = window >> LOG_WINDOW_BITS < number;
		wanted = *ret_first ? number << LOG_WINDOW_BITS | 1 : window + 1;
	} while (!__atomic_compare_exchange_n(&limit->window, &window, wanted, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return true;
}

void log_limited(struct log_limit *limit, enum log_level level, const char *module, const char *format, ...)
{
	uint64_t suppressed = 0;
	va_list arguments;
	bool first;

	if (!log_enabled(level))
		return;
	if (!log_limit_admit(limit, &first)) {
		__atomic_fetch_add(&limit->suppressed, 1, __ATOMIC_RELAXED);
		return;
	}
	if (first)
		suppressed = __atomic_exchange_n(&limit->suppressed, 0, __ATOMIC_RELAXED);
	va_start(arguments, format);
	log_writev(level, module, suppressed, format, arguments);
	va_end(arguments);
}
