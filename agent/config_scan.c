/*
 * libconfuse 3.3 counts a commented line twice, accepts a section that is never closed, cuts a string at a NUL escape,
 * expands ${NAME} without a word, echoes to stdout what its scanner does not know, and looks for included files in the
 * current folder. So the text is read once before it gets there, by rules that are a little narrower than libconfuse's own:
 *
 *	statement  = word "=" value | word "=" "{" value, ... "}" | word [value] "{" statements "}" | include ( "file" )
 *	value      = word | "string" | 'string'
 *	word       = letters, digits and _ . / : @ -
 *	comment    = from # or // to the end of the line, or between slash-star and star-slash, at the beginning of a word
 *
 * Strings end on the line on which they begin. In "..." there are the escapes \\ \" \n \t; in '...' there is no backslash. Sections do not
 * nest, so a section that opens inside another one tells exactly which closing brace is missing. What passes here is
 * parsed by libconfuse alone; this file builds no values.
 */
#include "agent/config_scan.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/text.h"
#include "shm/msg.h"

/* The last tokens, as far as they say what a brace means. */
struct token {
	char kind;            /* 'w' word, 's' string, or the punctuation itself; 0 = none */
	size_t begin, length; /* of what stands inside the quotes */
	unsigned line;
};

struct scanner {
	/* set once */
	const char *file;
	char *text;
	size_t length;
	char *err;
	size_t err_size;
	/* moves along */
	size_t at;
	unsigned line;
	struct token last, before_last;
	unsigned depth; /* 0 outside, 1 in a section, 2 in its list */
	unsigned opened_line[2];
	char section[64]; /* the one that is open, for messages */
	struct config_scan scan;
};

int config_fail_at(char *err, size_t err_size, const char *file, unsigned line, const char *format, ...)
{
	va_list arguments;
	struct text text;

	text_init(&text, err, err_size);
	text_append_format(&text, "%s:%u: ", file, line);
	va_start(arguments, format);
	text_append_formatv(&text, format, arguments);
	va_end(arguments);
	return RSHM_E_INVALID;
}

#define scanner_fail(s, line_, ...) config_fail_at((s)->err, (s)->err_size, (s)->file, line_, __VA_ARGS__)

static bool is_word_character(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("_./:@-", c) != NULL);
}

static void scanner_push(struct scanner *s, char kind, size_t begin, size_t length)
{
	s->before_last = s->last;
	s->last = (struct token){kind, begin, length, s->line};
}

static bool token_is(const struct scanner *s, const struct token *token, const char *word)
{
	return token->kind == 'w' && token->length == strlen(word) &&
	       memcmp(s->text + token->begin, word, token->length) == 0;
}

/* ---- comments ---- */

static void scanner_blank(struct scanner *s, size_t begin, size_t end)
{
	for (size_t i = begin; i < end; i++) {
		if (s->text[i] != '\n')
			s->text[i] = ' ';
	}
}

static int scanner_skip_block_comment(struct scanner *s)
{
	const char *end = strstr(s->text + s->at + 2, "*/");
	size_t begin = s->at;
	unsigned line = s->line;

	if (end == NULL)
		return scanner_fail(s, line, "this comment is never closed; end it with */");
	s->at = (size_t)(end - s->text) + 2;
	for (size_t i = begin; i < s->at; i++)
		s->line += s->text[i] == '\n';
	scanner_blank(s, begin, s->at);
	return RSHM_OK;
}

static void scanner_skip_line_comment(struct scanner *s)
{
	size_t begin = s->at;

	s->at += strcspn(s->text + s->at, "\n");
	scanner_blank(s, begin, s->at);
}

/* ---- words and strings ---- */

static int scanner_take_word(struct scanner *s)
{
	size_t begin = s->at;

	while (is_word_character(s->text[s->at]))
		s->at++;
	if (s->at - begin > CONFIG_WORD_MAX)
		return scanner_fail(s, s->line, "this word is longer than %d bytes", CONFIG_WORD_MAX);
	scanner_push(s, 'w', begin, s->at - begin);
	return RSHM_OK;
}

static int scanner_take_string(struct scanner *s)
{
	char quote = s->text[s->at];
	size_t begin = ++s->at;

	for (;; s->at++) {
		char c = s->text[s->at];

		if (c == quote)
			break;
		if (c == '\0' || c == '\n')
			return scanner_fail(s, s->line, "this string is not closed on its line; end it with %c",
					    quote);
		/* To libconfuse a backslash escapes here too, so the two of us would see different ends. */
		if (quote == '\'' && c == '\\')
			return scanner_fail(s, s->line, "a backslash in single quotes; write \"...\\\\...\" instead");
		if (quote == '"' && c == '\\') {
			char escaped = s->text[++s->at];

			if (escaped == '\0' || strchr("\\\"nt", escaped) == NULL)
				return scanner_fail(s, s->line,
						    "this escape is not known; allowed are "
						    "\\\\, \\\", \\n, \\t");
		} else if (quote == '"' && c == '$' && s->text[s->at + 1] == '{') {
			return scanner_fail(s, s->line,
					    "variables are not replaced in this file; put ${ in 'single "
					    "quotes', or set the option from the environment");
		}
	}
	if (s->at - begin > CONFIG_WORD_MAX)
		return scanner_fail(s, s->line, "this string is longer than %d bytes", CONFIG_WORD_MAX);
	scanner_push(s, 's', begin, s->at - begin);
	s->at++;
	return RSHM_OK;
}

/* A copy without escapes. NULL without memory. */
static char *scanner_copy(const struct scanner *s, const struct token *token)
{
	char *copy = malloc(token->length + 1);
	bool escapes = token->kind == 's' && s->text[token->begin - 1] == '"';
	size_t length = 0;

	if (copy == NULL)
		return NULL;
	for (size_t i = 0; i < token->length; i++) {
		char c = s->text[token->begin + i];

		if (escapes && c == '\\') {
			c = s->text[token->begin + ++i];
			c = c == 'n' ? '\n' : c == 't' ? '\t' : c;
		}
		copy[length++] = c;
	}
	copy[length] = '\0';
	return copy;
}

/* ---- sections and includes ---- */

static int scanner_mark(struct scanner *s, enum config_mark_kind kind, const struct token *name,
			const struct token *title, size_t begin)
{
	struct config_scan *scan = &s->scan;
	struct config_mark mark = {.kind = kind, .line = name->line, .begin = begin, .end = s->at};

	if (scan->marks_count == CONFIG_MARKS_MAX)
		return scanner_fail(s, name->line, "more than %d sections in one file; split it into conf.d",
				    CONFIG_MARKS_MAX);
	if ((scan->marks_count & (scan->marks_count - 1)) == 0) {
		size_t wanted = scan->marks_count == 0 ? 1 : scan->marks_count * 2;
		struct config_mark *more = realloc(scan->marks, wanted * sizeof(*more));

		if (more == NULL)
			return RSHM_E_NOMEM;
		scan->marks = more;
	}
	mark.name = scanner_copy(s, name);
	mark.title = title != NULL ? scanner_copy(s, title) : NULL;
	if (mark.name == NULL || (title != NULL && mark.title == NULL)) {
		free(mark.name);
		free(mark.title);
		return RSHM_E_NOMEM;
	}
	scan->marks[scan->marks_count++] = mark;
	return RSHM_OK;
}

static int scanner_open_section(struct scanner *s)
{
	const struct token *name = &s->last, *title = NULL;

	if ((s->before_last.kind == 'w' && (s->last.kind == 's' || s->last.kind == 'w'))) {
		name = &s->before_last;
		title = &s->last;
	}
	if (name->kind != 'w')
		return scanner_fail(s, s->line, "this brace opens no section; write a section's name before it");
	snprintf(s->section, sizeof(s->section), "%.*s", (int)(name->length < 40 ? name->length : 40),
		 s->text + name->begin);
	s->opened_line[0] = name->line;
	s->depth = 1;
	return scanner_mark(s, CONFIG_MARK_SECTION, name, title, s->at);
}

static int scanner_open_brace(struct scanner *s)
{
	int status = RSHM_OK;

	if (s->depth == 0) {
		status = scanner_open_section(s);
	} else if (s->depth == 1 && s->last.kind == '=') {
		s->opened_line[1] = s->line;
		s->depth = 2;
	} else {
		return scanner_fail(
			s, s->line,
			"%s: a brace opens inside this section, which began at line %u; sections do not nest: "
			"is a closing brace missing?",
			s->section, s->opened_line[0]);
	}
	s->at++;
	scanner_push(s, '{', s->at, 0);
	return status;
}

static int scanner_close_brace(struct scanner *s)
{
	if (s->depth == 0)
		return scanner_fail(s, s->line, "this brace closes nothing; remove it");
	s->depth--;
	s->at++;
	scanner_push(s, '}', s->at, 0);
	return RSHM_OK;
}

/* "include" was the last token and a parenthesis follows. */
static int scanner_take_include(struct scanner *s)
{
	struct token word = s->last, path;
	int status;

	if (s->depth != 0)
		return scanner_fail(s, s->line, "%s: an include must stand outside of sections", s->section);
	s->at++;
	s->at += strspn(s->text + s->at, " \t");
	if (s->text[s->at] != '"' && s->text[s->at] != '\'')
		return scanner_fail(s, s->line, "include: the path must be a string: include(\"conf.d/*.conf\")");
	status = scanner_take_string(s);
	if (status != RSHM_OK)
		return status;
	path = s->last;
	s->at += strspn(s->text + s->at, " \t");
	if (s->text[s->at] != ')')
		return scanner_fail(s, s->line, "include: the parenthesis is not closed behind the path");
	s->at++;
	status = scanner_mark(s, CONFIG_MARK_INCLUDE, &path, NULL, word.begin);
	if (status == RSHM_OK)
		scanner_blank(s, word.begin, s->at);
	s->last = s->before_last = (struct token){0};
	return status;
}

/* ---- the loop ---- */

static int scanner_refuse_character(struct scanner *s)
{
	unsigned char c = (unsigned char)s->text[s->at];

	if (c == '$')
		return scanner_fail(s, s->line,
				    "variables are not replaced in this file; set the option from the "
				    "environment, or put the text in 'single quotes'");
	if (c > ' ' && c < 0x7f)
		return scanner_fail(s, s->line, "the character %c must stand in quotes, or be left out", c);
	return scanner_fail(s, s->line, "the byte 0x%02x must stand in quotes, or be left out", c);
}

static int scanner_take_punctuation(struct scanner *s)
{
	char c = s->text[s->at];

	if (c == '{')
		return scanner_open_brace(s);
	if (c == '}')
		return scanner_close_brace(s);
	if (c == '(' && token_is(s, &s->last, "include"))
		return scanner_take_include(s);
	if (c == '+' && s->text[s->at + 1] == '=') {
		s->at += 2;
		scanner_push(s, '=', s->at, 0);
		return RSHM_OK;
	}
	if (c != '=' && c != ',')
		return scanner_refuse_character(s);
	s->at++;
	scanner_push(s, c, s->at, 0);
	return RSHM_OK;
}

static int scanner_step(struct scanner *s)
{
	const char *p = s->text + s->at;

	if (*p == '\n')
		s->line++;
	if (*p == '\r')
		s->text[s->at] = ' ';
	if (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r') {
		s->at++;
		return RSHM_OK;
	}
	if (*p == '#' || (p[0] == '/' && p[1] == '/')) {
		scanner_skip_line_comment(s);
		return RSHM_OK;
	}
	if (p[0] == '/' && p[1] == '*')
		return scanner_skip_block_comment(s);
	if (*p == '"' || *p == '\'')
		return scanner_take_string(s);
	if (is_word_character(*p))
		return scanner_take_word(s);
	return scanner_take_punctuation(s);
}

/* NUL and other control characters are no text, wherever they stand. */
static int scanner_check_bytes(struct scanner *s)
{
	unsigned line = 1;

	for (size_t i = 0; i < s->length; i++) {
		unsigned char c = (unsigned char)s->text[i];

		if (c == '\0')
			return scanner_fail(s, line, "a NUL byte; this is not a text file");
		if ((c < ' ' && c != '\n' && c != '\t' && c != '\r') || c == 0x7f)
			return scanner_fail(s, line, "the control character 0x%02x; remove it", c);
		line += c == '\n';
	}
	return RSHM_OK;
}

int config_scan(const char *file, char *text, size_t length, struct config_scan *ret, char *err, size_t err_size)
{
	struct scanner s = {
		.file = file, .text = text, .length = length, .err = err, .err_size = err_size, .line = 1};
	int status = scanner_check_bytes(&s);

	while (status == RSHM_OK && s.at < length)
		status = scanner_step(&s);
	if (status == RSHM_OK && s.depth > 0)
		status = scanner_fail(&s, s.opened_line[s.depth - 1],
				      "%s: the brace opened here is never closed; add a closing brace", s.section);
	if (status != RSHM_OK) {
		config_scan_fini(&s.scan);
		return status;
	}
	*ret = s.scan;
	return RSHM_OK;
}

void config_scan_fini(struct config_scan *scan)
{
	for (size_t i = 0; i < scan->marks_count; i++) {
		free(scan->marks[i].name);
		free(scan->marks[i].title);
	}
	free(scan->marks);
	*scan = (struct config_scan){0};
}
