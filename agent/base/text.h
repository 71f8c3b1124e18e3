/*
 * text.h - strict parsing of numbers, sizes and durations, and a bounded buffer to append text to.
 *
 * Parsing: the whole string must be one value in the given range; no sign, no white space, no leading zero (010 is
 * neither eight nor ten here), no overflow. False leaves the result untouched. All functions: any thread, never block,
 * never allocate.
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decimal digits only. */
bool text_parse_u64(const char *text, uint64_t *ret);
/* Digits and at most one of K, M, G, T, optionally followed by iB: powers of 1024. "64M", "20MiB", "4096". */
bool text_parse_size(const char *text, uint64_t *ret_bytes);
/* Digits and one of ms, s, m, h, d; without a unit the number counts `plain_unit_ms`. "24h", "250ms", "30". */
bool text_parse_duration(const char *text, uint64_t plain_unit_ms, uint64_t *ret_ms);
/* true|yes|on|1 and false|no|off|0, in any case. */
bool text_parse_bool(const char *text, bool *ret);

/* Only characters a-z, 0-9 and '-', 1 to `length_max` of them. */
bool text_is_name(const char *text, size_t length_max);

/* A text that grows inside memory of its owner and is always NUL-terminated. */
struct text {
	char *bytes;
	size_t capacity; /* with the NUL */
	size_t length;   /* without it */
	bool cut;        /* something did not fit and was left out */
};

/* `bytes` is borrowed, `capacity` at least 1. */
void text_init(struct text *text, char *bytes, size_t capacity);
void text_append(struct text *text, const char *bytes, size_t length);
void text_append_string(struct text *text, const char *string);
__attribute__((format(printf, 2, 3))) void text_append_format(struct text *text, const char *format, ...);
__attribute__((format(printf, 2, 0))) void text_append_formatv(struct text *text, const char *format,
							       va_list arguments);

/*
 * Appends what is safe to show on one line of a terminal: valid UTF-8 as it is, control characters (C0, DEL, C1) and
 * bytes that are no UTF-8 as \n, \t, \xNN. A backslash is doubled, so that what is shown is unambiguous.
 */
void text_append_escaped(struct text *text, const char *bytes, size_t length);
/* Appends what stands between the quotes of a JSON string; bytes that are no UTF-8 become U+FFFD. */
void text_append_json(struct text *text, const char *bytes, size_t length);

/* "64M", "4096": the form that text_parse_size() reads back, exact. */
void text_append_size(struct text *text, uint64_t bytes);

/* Length of the valid UTF-8 sequence at `bytes`, 1 to 4; 0 if there is none. `length` >= 1. */
size_t text_utf8_length(const char *bytes, size_t length);

#endif
