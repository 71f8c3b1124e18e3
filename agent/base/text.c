#include "agent/base/text.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/base/assert.h"

/* ---- parsing ---- */

/* Reads digits up to the first other character, which *ret_rest points to. */
static bool text_scan_u64(const char *text, uint64_t *ret, const char **ret_rest)
{
	uint64_t value = 0;
	const char *p = text;

	if (*p < '0' || *p > '9')
		return false;
	if (p[0] == '0' && p[1] >= '0' && p[1] <= '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(value, 10u, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return false;
	}
	*ret = value;
	*ret_rest = p;
	return true;
}

bool text_parse_u64(const char *text, uint64_t *ret)
{
	uint64_t value;
	const char *rest;

	if (!text_scan_u64(text, &value, &rest) || *rest != '\0')
		return false;
	*ret = value;
	return true;
}

bool text_parse_size(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGT";
	uint64_t value;
	const char *rest, *unit;

	if (!text_scan_u64(text, &value, &rest))
		return false;
	if (*rest != '\0') {
		unit = strchr(units, *rest);
		if (unit == NULL || (rest[1] != '\0' && strcmp(rest + 1, "iB") != 0))
			return false;
		if (__builtin_mul_overflow(value, 1ull << (10 * (unit - units + 1)), &value))
			return false;
	}
	*ret_bytes = value;
	return true;
}

bool text_parse_duration(const char *text, uint64_t plain_unit_ms, uint64_t *ret_ms)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
	uint64_t value, unit_ms = 0;
	const char *rest;

	if (!text_scan_u64(text, &value, &rest))
		return false;
	if (*rest == '\0')
		unit_ms = plain_unit_ms;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(rest, units[i].name) == 0)
			unit_ms = units[i].ms;
	}
	if (unit_ms == 0 || __builtin_mul_overflow(value, unit_ms, &value))
		return false;
	*ret_ms = value;
	return true;
}

bool text_parse_bool(const char *text, bool *ret)
{
	static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcasecmp(text, words[i]) == 0) {
			*ret = (i & 1) != 0;
			return true;
		}
	}
	return false;
}

bool text_is_name(const char *text, size_t length_max)
{
	size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return length >= 1 && length <= length_max && text[length] == '\0';
}

/* ---- appending ---- */

void text_init(struct text *text, char *bytes, size_t capacity)
{
	must(capacity >= 1);
	*text = (struct text){.bytes = bytes, .capacity = capacity};
	bytes[0] = '\0';
}

void text_append(struct text *text, const char *bytes, size_t length)
{
	size_t room = text->capacity - 1 - text->length;

	if (length > room) {
		text->cut = true;
		length = room;
	}
	memcpy(text->bytes + text->length, bytes, length);
	text->length += length;
	text->bytes[text->length] = '\0';
}

void text_append_string(struct text *text, const char *string)
{
	text_append(text, string, strlen(string));
}

void text_append_format(struct text *text, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	text_append_formatv(text, format, arguments);
	va_end(arguments);
}

void text_append_formatv(struct text *text, const char *format, va_list arguments)
{
	size_t room = text->capacity - text->length;
	int wanted = vsnprintf(text->bytes + text->length, room, format, arguments);

	if (wanted < 0) {
		text->bytes[text->length] = '\0';
		text->cut = true;
	} else if ((size_t)wanted >= room) {
		text->length = text->capacity - 1;
		text->cut = true;
	} else {
		text->length += (size_t)wanted;
	}
}

/* Appends all of it or nothing, and nothing after something was left out, so that no escape is cut in two. */
static void text_append_whole(struct text *text, const char *bytes, size_t length)
{
	if (text->cut || length > text->capacity - 1 - text->length)
		text->cut = true;
	else
		text_append(text, bytes, length);
}

size_t text_utf8_length(const char *bytes, size_t length)
{
	const unsigned char *b = (const unsigned char *)bytes;
	size_t wanted;
	uint32_t code;

	if (b[0] < 0x80)
		return 1;
	if (b[0] >= 0xc2 && b[0] <= 0xdf)
		wanted = 2;
	else if ((b[0] & 0xf0) == 0xe0)
		wanted = 3;
	else if (b[0] >= 0xf0 && b[0] <= 0xf4)
		wanted = 4;
	else
		return 0;
	if (length < wanted)
		return 0;
	code = b[0] & (0x7fu >> wanted);
	for (size_t i = 1; i < wanted; i++) {
		if ((b[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (b[i] & 0x3fu);
	}
	if ((wanted == 3 && code < 0x800) || (wanted == 4 && code < 0x10000) || code > 0x10ffff ||
	    (code >= 0xd800 && code <= 0xdfff))
		return 0;
	return wanted;
}

static bool text_is_control(const char *bytes, size_t length)
{
	unsigned char first = (unsigned char)bytes[0];

	if (length == 1)
		return first < 0x20 || first == 0x7f;
	return length == 2 && first == 0xc2 && (unsigned char)bytes[1] < 0xa0;
}

/* The letter of a two-character escape that JSON and C share, or 0. */
static char text_escape_letter(char c)
{
	switch (c) {
	case '\n':
		return 'n';
	case '\r':
		return 'r';
	case '\t':
		return 't';
	case '\\':
		return '\\';
	default:
		return 0;
	}
}

void text_append_escaped(struct text *text, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length;) {
		size_t step = text_utf8_length(bytes + i, length - i);
		char letter = text_escape_letter(bytes[i]);
		char hex[5];

		if (letter != 0) {
			text_append_whole(text, (const char[]){'\\', letter}, 2);
			step = 1;
		} else if (step == 0 || text_is_control(bytes + i, step)) {
			snprintf(hex, sizeof(hex), "\\x%02x", (unsigned)(unsigned char)bytes[i]);
			text_append_whole(text, hex, 4);
			if (step == 2) {
				snprintf(hex, sizeof(hex), "\\x%02x", (unsigned)(unsigned char)bytes[i + 1]);
				text_append_whole(text, hex, 4);
			}
			step = step == 2 ? 2 : 1;
		} else {
			text_append_whole(text, bytes + i, step);
		}
		i += step;
	}
}

void text_append_json(struct text *text, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length;) {
		size_t step = text_utf8_length(bytes + i, length - i);
		char letter = bytes[i] == '"' ? '"' : text_escape_letter(bytes[i]);
		char code[7];

		if (letter != 0) {
			text_append_whole(text, (const char[]){'\\', letter}, 2);
		} else if (step == 0) {
			text_append_whole(text, "\\ufffd", 6);
			step = 1;
		} else if (text_is_control(bytes + i, step)) {
			snprintf(code, sizeof(code), "\\u%04x", (unsigned)(unsigned char)bytes[i + step - 1]);
			text_append_whole(text, code, 6);
		} else {
			text_append_whole(text, bytes + i, step);
		}
		i += step;
	}
}

void text_append_size(struct text *text, uint64_t bytes)
{
	static const char units[] = " KMGT";
	size_t unit = 0;

	while (bytes != 0 && bytes % 1024 == 0 && units[unit + 1] != '\0') {
		bytes /= 1024;
		unit++;
	}
	text_append_format(text, "%llu", (unsigned long long)bytes);
	if (unit > 0)
		text_append(text, &units[unit], 1);
}
