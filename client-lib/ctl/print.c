/*
 * print.c - what reaches the operator's eyes.
 *
 * Keys, values, names of programs and texts of the agent come from others: a terminal must not obey them. Everything but
 * printable, well-formed UTF-8 is shown as \xNN; so are C1 controls and the marks that turn the direction of text.
 */
#include "client-lib/ctl/ctl.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX 1024

/* The length of the well-formed character at `at`, 0 if there is none; its code point in *ret. */
static size_t decode_utf8(const unsigned char *at, size_t left, uint32_t *ret)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t length = at[0] < 0x80 ? 1 : at[0] >> 5 == 6 ? 2 : at[0] >> 4 == 14 ? 3 : at[0] >> 3 == 30 ? 4 : 0;
	uint32_t point;

	if (length == 0 || length > left)
		return 0;
	point = length == 1 ? at[0] : at[0] & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if (at[i] >> 6 != 2)
			return 0;
		point = point << 6 | (at[i] & 0x3fu);
	}
	if (point < least[length] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
		return 0;
	*ret = point;
	return length;
}

static bool is_harmless(uint32_t point)
{
	bool is_control = point < 0x20 || (point >= 0x7f && point < 0xa0);
	bool turns_text = point == 0x61c || point == 0x200e || point == 0x200f ||
			  (point >= 0x2028 && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);

	return !is_control && !turns_text && point != 0xfeff;
}

void ctl_print_escaped(FILE *to, const void *bytes, size_t length, const char *keep)
{
	const unsigned char *at = bytes;

	while (length > 0) {
		uint32_t point = 0;
		size_t n = decode_utf8(at, length, &point);

		if (n > 0 && (is_harmless(point) || (n == 1 && at[0] && strchr(keep, at[0])))) {
			fwrite(at, 1, n, to);
		} else {
			n = n ? n : 1;
			for (size_t i = 0; i < n; i++)
				fprintf(to, "\\x%02x", at[i]);
		}
		at += n;
		length -= n;
	}
}

char *ctl_escaped(char *buffer, size_t size, const void *bytes, size_t length)
{
	FILE *to = fmemopen(buffer, size, "w");

	buffer[0] = '\0';
	if (to) {
		ctl_print_escaped(to, bytes, length < size ? length : size, "");
		fclose(to);
		buffer[size - 1] = '\0';
	}
	return buffer;
}

int ctl_fail(int code, const char *format, ...)
{
	char message[MESSAGE_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	fflush(stdout);
	fputs("riptidectl: ", stderr);
	ctl_print_escaped(stderr, message, strlen(message), "");
	fputc('\n', stderr);
	return code;
}

char *ctl_bytes(char *buffer, uint64_t bytes)
{
	static const char units[] = "KMGTPE";
	double value = (double)bytes;
	int unit = -1;

	for (; value >= 1024 && unit < 5; unit++)
		value /= 1024;
	if (unit < 0)
		snprintf(buffer, CTL_CELL, "%u B", (unsigned int)bytes);
	else
		snprintf(buffer, CTL_CELL, value < 10 ? "%.1f %ciB" : "%.0f %ciB", value, units[unit]);
	return buffer;
}

char *ctl_nanoseconds(char *buffer, double ns)
{
	if (ns < 1000)
		snprintf(buffer, CTL_CELL, "%.0f ns", ns);
	else if (ns < 1e6)
		snprintf(buffer, CTL_CELL, "%.1f us", ns / 1e3);
	else if (ns < 1e9)
		snprintf(buffer, CTL_CELL, "%.1f ms", ns / 1e6);
	else
		snprintf(buffer, CTL_CELL, "%.1f s", ns / 1e9);
	return buffer;
}

char *ctl_span(char *buffer, uint64_t ms)
{
	unsigned long long seconds = ms / 1000;

	if (ms < 60000)
		snprintf(buffer, CTL_CELL, "%.1f s", (double)ms / 1000);
	else if (seconds < 3600)
		snprintf(buffer, CTL_CELL, "%llu min %llu s", seconds / 60, seconds % 60);
	else if (seconds < 86400)
		snprintf(buffer, CTL_CELL, "%llu h %llu min", seconds / 3600, seconds / 60 % 60);
	else
		snprintf(buffer, CTL_CELL, "%llu d %llu h", seconds / 86400, seconds / 3600 % 24);
	return buffer;
}

char *ctl_rate(char *buffer, double per_second)
{
	if (per_second < 9.95)
		snprintf(buffer, CTL_CELL, "%.1f", per_second);
	else if (per_second < 99950)
		snprintf(buffer, CTL_CELL, "%.0f", per_second);
	else if (per_second < 9.995e6)
		snprintf(buffer, CTL_CELL, "%.0fk", per_second / 1e3);
	else
		snprintf(buffer, CTL_CELL, "%.1fM", per_second / 1e6);
	return buffer;
}

int ctl_print_json(const struct ctl *ctl, json_t *document)
{
	size_t layout = ctl->to_terminal ? JSON_INDENT(2) : JSON_COMPACT;
	int status = CTL_OK;

	/* Plain ASCII, so that no terminal obeys a string in it. */
	if (!document || json_dumpf(document, stdout, layout | JSON_ENSURE_ASCII | JSON_PRESERVE_ORDER) < 0)
		status = ctl_fail(CTL_ERROR, "the document cannot be written: no memory, or stdout is full");
	else
		fputc('\n', stdout);
	json_decref(document);
	return status;
}

void ctl_json_hex(json_t *object, const char *name, const void *bytes, size_t length)
{
	const unsigned char *from = bytes;
	char *digits = malloc(2 * length + 1);

	if (!digits)
		return;
	for (size_t i = 0; i < length; i++)
		sprintf(digits + 2 * i, "%02x", from[i]);
	json_object_set_new(object, name, json_stringn_nocheck(digits, 2 * length));
	free(digits);
}

void ctl_json_bytes(json_t *object, const char *name, const void *bytes, size_t length)
{
	json_t *text = json_stringn(bytes, length);
	char label[40];

	if (text) {
		json_object_set_new(object, name, text);
		return;
	}
	snprintf(label, sizeof(label), "%s_hex", name);
	ctl_json_hex(object, label, bytes, length);
}

const char *ctl_bold(const struct ctl *ctl)
{
	return ctl->colour ? "\033[1m" : "";
}

const char *ctl_plain(const struct ctl *ctl)
{
	return ctl->colour ? "\033[0m" : "";
}

uint64_t ctl_u64(const json_t *object, const char *name)
{
	json_int_t value = json_integer_value(json_object_get(object, name));

	return value > 0 ? (uint64_t)value : 0;
}

double ctl_real(const json_t *object, const char *name)
{
	return json_number_value(json_object_get(object, name));
}

const char *ctl_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "?";
}
