/*
 * One value: text to field and back. Everything is strict and nothing is guessed: the whole text is the value, numbers
 * are decimal without leading zeros (010 is refused, not eight), units are written, ranges are the table's. What
 * config_option_format() writes, config_option_store() reads back to the same value, save masked secrets.
 */
#include "agent/config_option.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/base/assert.h"
#include "agent/config_url.h"
#include "shm/msg.h"

#define KEY_PART_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"

static void *config_field(const struct config_option *option, const void *base, size_t size)
{
	must(option->size == size);
	return (char *)(uintptr_t)base + option->offset;
}

static bool config_is_text(enum config_type type)
{
	return type == CONFIG_NAME || type == CONFIG_KEY_PART || type == CONFIG_PATH || type == CONFIG_URL;
}

/* ---- what is allowed ---- */

static void config_append_words(const struct config_option *option, struct text *text)
{
	text_append_string(text, option->words[1] == NULL ? "only " : "one of ");
	for (size_t i = 0; option->words[i] != NULL; i++)
		text_append_format(text, "%s%s", i > 0 ? ", " : "", option->words[i]);
}

void config_option_allowed(const struct config_option *option, struct text *text)
{
	switch (option->type) {
	case CONFIG_BOOL:
		text_append_string(text, "true or false (or yes, no, on, off, 1, 0)");
		break;
	case CONFIG_COUNT:
		text_append_format(text, "a number from %" PRIu64 " to %" PRIu64, option->min, option->max);
		break;
	case CONFIG_SIZE:
		text_append_string(text, "a size from ");
		text_append_size(text, option->min);
		text_append_string(text, " to ");
		text_append_size(text, option->max);
		text_append_string(text, ", in bytes or with K, M, G, T");
		break;
	case CONFIG_SECONDS:
	case CONFIG_MS:
		text_append_format(text, "a time from %" PRIu64 " to %" PRIu64 " %s, or with ms, s, m, h, d",
				   option->min, option->max, option->type == CONFIG_MS ? "ms" : "seconds");
		break;
	case CONFIG_WORD:
		config_append_words(option, text);
		break;
	case CONFIG_NAME:
		text_append_format(text, "%" PRIu64 " to %" PRIu64 " characters of a-z, 0-9 and -", option->min,
				   option->max);
		break;
	case CONFIG_KEY_PART:
		text_append_format(text, "%" PRIu64 " to %" PRIu64 " characters of A-Z, a-z, 0-9 and _.-",
				   option->min, option->max);
		break;
	case CONFIG_PATH:
		text_append_format(text, "an absolute path of at most %" PRIu64 " bytes%s", option->max,
				   option->min == 0 ? ", or nothing" : "");
		break;
	case CONFIG_URL:
		text_append_string(text, "redis://[user:password@]host[:port][/db], "
					 "redis+cluster://[user:password@]host[:port],..., "
					 "redis+sentinel://[user:password@]host[:port],.../master[/db] "
					 "or unix:///path[?db=n]");
		break;
	case CONFIG_LIST:
		text_append_format(text, "a list of at most %" PRIu64 " names or numbers", option->max);
		break;
	}
}

/* Says what is wrong with `value`; a secret is not repeated. */
static int config_option_refuse(const struct config_option *option, const char *value, const char *why, char *err,
				size_t err_size)
{
	struct text text;

	text_init(&text, err, err_size);
	if (option->type != CONFIG_URL) {
		size_t length = strnlen(value, 64);

		text_append_string(&text, "\"");
		text_append_escaped(&text, value, length);
		text_append_string(&text, value[length] != '\0' ? "...\" " : "\" ");
	}
	text_append_format(&text, "%s; allowed is ", why);
	config_option_allowed(option, &text);
	return RSHM_E_INVALID;
}

static int config_option_outside(const struct config_option *option, const char *value, bool below, char *err,
				 size_t err_size)
{
	const char *own_words = below ? option->below : option->above;
	struct text text;

	if (own_words == NULL)
		return config_option_refuse(option, value, below ? "is too small" : "is too large", err, err_size);
	text_init(&text, err, err_size);
	text_append_format(&text, "%s; allowed is ", own_words);
	config_option_allowed(option, &text);
	return RSHM_E_INVALID;
}

/* ---- text to field ---- */

static int config_store_number(const struct config_option *option, void *base, const char *value, char *err,
			       size_t err_size)
{
	uint64_t number = 0;
	bool parsed = false;

	if (option->type == CONFIG_COUNT)
		parsed = text_parse_u64(value, &number);
	else if (option->type == CONFIG_SIZE)
		parsed = text_parse_size(value, &number);
	else
		parsed = text_parse_duration(value, option->type == CONFIG_MS ? 1 : 1000, &number);
	if (!parsed)
		return config_option_refuse(option, value, "cannot be read", err, err_size);
	if (option->type == CONFIG_SECONDS) {
		if (number % 1000 != 0)
			return config_option_refuse(option, value, "is not a whole number of seconds", err, err_size);
		number /= 1000;
	}
	if (number < option->min || number > option->max)
		return config_option_outside(option, value, number < option->min, err, err_size);
	if (option->type == CONFIG_COUNT)
		*(uint32_t *)config_field(option, base, sizeof(uint32_t)) = (uint32_t)number;
	else
		*(uint64_t *)config_field(option, base, sizeof(uint64_t)) = number;
	return RSHM_OK;
}

static int config_store_word(const struct config_option *option, void *base, const char *value, char *err,
			     size_t err_size)
{
	for (int i = 0; option->words[i] != NULL; i++) {
		/* The seed took its words in any case: "LRU", "Lz4". */
		if (strcasecmp(value, option->words[i]) == 0) {
			*(int *)config_field(option, base, sizeof(int)) = i;
			return RSHM_OK;
		}
	}
	return config_option_refuse(option, value, "is not a known word", err, err_size);
}

static bool has_control_character(const char *value)
{
	for (; *value != '\0'; value++) {
		if ((unsigned char)*value < ' ' || *value == 0x7f)
			return true;
	}
	return false;
}

/* NULL if the text has the form that its type asks for, else why not. */
static const char *config_text_fault(const struct config_option *option, const char *value)
{
	switch (option->type) {
	case CONFIG_NAME:
		return text_is_name(value, option->max) ? NULL : "is not a name";
	case CONFIG_KEY_PART:
		return value[strspn(value, KEY_PART_CHARACTERS)] == '\0' ? NULL
									 : "has a character that keys cannot have";
	case CONFIG_PATH:
		if (value[0] != '/' && value[0] != '\0')
			return "is not an absolute path";
		return has_control_character(value) ? "has a control character" : NULL;
	default:
		return config_url_fault(value);
	}
}

static int config_store_text(const struct config_option *option, void *base, const char *value, char *err,
			     size_t err_size)
{
	char **field = config_field(option, base, sizeof(char *));
	size_t length = strlen(value);
	const char *fault;
	char *copy;

	if (length < option->min || length > option->max)
		return config_option_outside(option, value, length < option->min, err, err_size);
	fault = config_text_fault(option, value);
	if (fault != NULL)
		return config_option_refuse(option, value, fault, err, err_size);
	copy = strdup(value);
	if (copy == NULL)
		return RSHM_E_NOMEM;
	free(*field);
	*field = copy;
	return RSHM_OK;
}

int config_option_store(const struct config_option *option, void *base, const char *value, char *err, size_t err_size)
{
	bool flag;

	must(option->type != CONFIG_LIST);
	if (config_is_text(option->type))
		return config_store_text(option, base, value, err, err_size);
	if (option->type == CONFIG_WORD)
		return config_store_word(option, base, value, err, err_size);
	if (option->type != CONFIG_BOOL)
		return config_store_number(option, base, value, err, err_size);
	if (!text_parse_bool(value, &flag))
		return config_option_refuse(option, value, "is not a truth value", err, err_size);
	*(bool *)config_field(option, base, sizeof(bool)) = flag;
	return RSHM_OK;
}

static void config_list_free(char **list)
{
	for (size_t i = 0; list != NULL && list[i] != NULL; i++)
		free(list[i]);
	free(list);
}

int config_option_store_list(const struct config_option *option, void *base, const char *const *values, size_t count)
{
	char ***field = config_field(option, base, sizeof(char **));
	char **copy = calloc(count + 1, sizeof(char *));

	must(option->type == CONFIG_LIST);
	if (copy == NULL)
		return RSHM_E_NOMEM;
	for (size_t i = 0; i < count; i++) {
		copy[i] = strdup(values[i]);
		if (copy[i] == NULL) {
			config_list_free(copy);
			return RSHM_E_NOMEM;
		}
	}
	config_list_free(*field);
	*field = copy;
	return RSHM_OK;
}

void config_option_clear(const struct config_option *option, void *base)
{
	if (option->type == CONFIG_LIST) {
		char ***list = config_field(option, base, sizeof(char **));

		config_list_free(*list);
		*list = NULL;
	} else if (config_is_text(option->type)) {
		char **field = config_field(option, base, sizeof(char *));

		free(*field);
		*field = NULL;
	}
}

/* ---- field to text ---- */

/* In double quotes, with the escapes that the file's scanner allows. */
static void config_append_quoted(struct text *text, const char *value)
{
	text_append_string(text, "\"");
	for (; *value != '\0'; value++) {
		if (*value == '"' || *value == '\\')
			text_append_string(text, "\\");
		text_append(text, value, 1);
	}
	text_append_string(text, "\"");
}

static void config_append_list(struct text *text, char *const *list)
{
	text_append_string(text, "{");
	for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
		if (i > 0)
			text_append_string(text, ", ");
		config_append_quoted(text, list[i]);
	}
	text_append_string(text, "}");
}

void config_option_format(const struct config_option *option, const void *base, bool masked, struct text *text)
{
	char url[2048];
	struct text shown;

	switch (option->type) {
	case CONFIG_BOOL:
		text_append_string(text, *(bool *)config_field(option, base, sizeof(bool)) ? "true" : "false");
		break;
	case CONFIG_COUNT:
		text_append_format(text, "%" PRIu32, *(uint32_t *)config_field(option, base, sizeof(uint32_t)));
		break;
	case CONFIG_SIZE:
		text_append_size(text, *(uint64_t *)config_field(option, base, sizeof(uint64_t)));
		break;
	case CONFIG_SECONDS:
	case CONFIG_MS:
		text_append_format(text, "%" PRIu64, *(uint64_t *)config_field(option, base, sizeof(uint64_t)));
		break;
	case CONFIG_WORD:
		text_append_string(text, option->words[*(int *)config_field(option, base, sizeof(int))]);
		break;
	case CONFIG_URL:
		text_init(&shown, url, sizeof(url));
		if (masked)
			config_url_mask(*(char **)config_field(option, base, sizeof(char *)), &shown);
		else
			text_append_string(&shown, *(char **)config_field(option, base, sizeof(char *)));
		config_append_quoted(text, url);
		break;
	case CONFIG_NAME:
	case CONFIG_KEY_PART:
	case CONFIG_PATH:
		config_append_quoted(text, *(char **)config_field(option, base, sizeof(char *)));
		break;
	case CONFIG_LIST:
		config_append_list(text, *(char ***)config_field(option, base, sizeof(char **)));
		break;
	}
}
