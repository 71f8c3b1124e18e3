/*
 * config_option.h - the option table: the one place that names, types, bounds and explains every option.
 *
 * The parser, the environment, --set, --print-config, the comparison at reload and the test that holds
 * conf/riptide.conf against the table all derive from these rows.
 */
#ifndef RIPTIDE_CONFIG_OPTION_H
#define RIPTIDE_CONFIG_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/text.h"

enum config_type {
	CONFIG_BOOL,     /* bool */
	CONFIG_COUNT,    /* uint32_t */
	CONFIG_SIZE,     /* uint64_t, bytes; units in the text */
	CONFIG_SECONDS,  /* uint64_t, seconds; units in the text */
	CONFIG_MS,       /* uint64_t, milliseconds; units in the text */
	CONFIG_WORD,     /* an enum: the index into `words` */
	CONFIG_NAME,     /* char *, [a-z0-9-]{min,max} */
	CONFIG_KEY_PART, /* char *, [A-Za-z0-9_.-]{min,max} */
	CONFIG_PATH,     /* char *, absolute; empty if `min` is 0 */
	CONFIG_URL,      /* char *, redis:// or unix://; shown without its password */
	CONFIG_LIST,     /* char **, NULL-terminated */
};

struct config_option {
	const char *name; /* "section.option"; in a tenant's table "tenant.option" */
	enum config_type type;
	bool live;           /* a reload applies it; else it needs a restart */
	size_t offset, size; /* of the field in struct config, or struct config_tenant */
	const char *initial; /* the default as text; NULL: taken from the option `inherits` */
	uint64_t min, max;   /* of the value, or of the length of a text */
	const char *const *words;
	const char *environment, *environment_alias; /* or NULL */
	const char *inherits;
	const char *below, *above; /* what is said instead of the general words when out of range */
	const char *help;
};

/* The options of the agent, grouped by section, and those of a tenant's section. Static, any thread. */
const struct config_option *config_options(size_t *ret_count);
const struct config_option *config_tenant_options(size_t *ret_count);
/* NULL if there is none of that name. */
const struct config_option *config_option_find(const char *name);

/*
 * Parses `value` strictly and stores it into `base`, the struct that the option belongs to; an old text is freed. Not for
 * lists. On failure `base` is unchanged and `err` gets `what is wrong; what is allowed`. RSHM_E_INVALID, RSHM_E_NOMEM.
 */
int config_option_store(const struct config_option *option, void *base, const char *value, char *err,
			size_t err_size);
/* Replaces a list by copies of `values`. RSHM_E_NOMEM. */
int config_option_store_list(const struct config_option *option, void *base, const char *const *values, size_t count);
/* Frees what the field points to. */
void config_option_clear(const struct config_option *option, void *base);
/* Appends the value as the configuration file would say it. Secrets are masked if `masked`. */
void config_option_format(const struct config_option *option, const void *base, bool masked, struct text *text);
/* Appends what is allowed: "a number from 1 to 64". */
void config_option_allowed(const struct config_option *option, struct text *text);

#endif
