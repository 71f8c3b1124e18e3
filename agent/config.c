/*
 * Loading lays one source over the other: the defaults of the table, the files, the environment, the command line. Each value
 * is parsed and checked where it is met, also one that a later source replaces, so that a mistake is told with its place and
 * does not lie in wait. Then what depends on several options is derived and checked, and the struct is given out for good.
 *
 *	config_table.c   the rows            config_option.c  one value, text to field and back
 *	config_file.c    files, includes     config_scan.c    text before the parser
 *	config_env.c     environment         config_tenant.c  sections of tenants
 *	config_check.c   derived, rules      config_print.c   --print-config, comparison
 */
#include "agent/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/text.h"
#include "agent/config_priv.h"
#include "shm/msg.h"

#define CONFIG_SECTIONS_MAX 32
#define CONFIG_GRAMMAR_OPTIONS_MAX 160

/* ---- origins ---- */

struct config_origin *config_origin_of(const struct config *config, const struct config_option *option)
{
	size_t count;
	const struct config_option *options = config_options(&count);

	must(option >= options && option < options + count);
	return &config->origins[option - options];
}

const char *config_origin_text(const struct config_origin *origin)
{
	return origin->place != NULL ? origin->place : "default";
}

int config_origin_set(struct config_origin *origin, enum config_source source, const char *place)
{
	char *copy = place != NULL ? strdup(place) : NULL;

	if (place != NULL && copy == NULL)
		return RSHM_E_NOMEM;
	free(origin->place);
	origin->place = copy;
	origin->source = source;
	return RSHM_OK;
}

void config_origins_free(struct config_origin **origins, size_t count)
{
	for (size_t i = 0; *origins != NULL && i < count; i++)
		free((*origins)[i].place);
	free(*origins);
	*origins = NULL;
}

int config_assign(struct config *config, const struct config_option *option, const char *value,
		  enum config_source source, const char *place, char *err, size_t err_size)
{
	int status = config_option_store(option, config, value, err, err_size);

	if (status != RSHM_OK)
		return status;
	return config_origin_set(config_origin_of(config, option), source, place);
}

/* ---- the sources ---- */

static int config_set_defaults(struct config *config, char *err, size_t err_size)
{
	size_t count;
	const struct config_option *options = config_options(&count);

	config->origins = calloc(count, sizeof(*config->origins));
	if (config->origins == NULL)
		return RSHM_E_NOMEM;
	for (size_t i = 0; i < count; i++) {
		int status = config_assign(config, &options[i], options[i].initial, CONFIG_FROM_DEFAULT, NULL, err,
					   err_size);

		/* A default that its own row refuses is a mistake in the table. */
		must(status != RSHM_E_INVALID);
		if (status != RSHM_OK)
			return status;
	}
	return RSHM_OK;
}

/* What the parser needs to know of the table: section by section the names of its options. */
struct config_grammar {
	struct config_grammar_section sections[CONFIG_SECTIONS_MAX];
	struct config_grammar_option options[CONFIG_GRAMMAR_OPTIONS_MAX];
	char section_names[CONFIG_SECTIONS_MAX][32];
	size_t sections_count, options_count;
};

static void config_grammar_add(struct config_grammar *grammar, const struct config_option *rows, size_t count,
			       bool titled)
{
	for (size_t i = 0; i < count; i++) {
		const char *dot = strchr(rows[i].name, '.');
		size_t length = (size_t)(dot - rows[i].name);
		char *name = grammar->section_names[grammar->sections_count];

		must(grammar->options_count + 2 < CONFIG_GRAMMAR_OPTIONS_MAX && length < 32);
		if (i == 0 || strncmp(rows[i - 1].name, rows[i].name, length + 1) != 0) {
			must(grammar->sections_count + 1 < CONFIG_SECTIONS_MAX);
			memcpy(name, rows[i].name, length);
			grammar->options_count += i > 0;
			grammar->sections[grammar->sections_count++] = (struct config_grammar_section){
				name, titled, &grammar->options[grammar->options_count]};
		}
		grammar->options[grammar->options_count++] =
			(struct config_grammar_option){dot + 1, rows[i].type == CONFIG_LIST};
	}
	grammar->options_count++;
}

static void config_grammar_build(struct config_grammar *grammar)
{
	size_t count;
	const struct config_option *rows = config_options(&count);

	*grammar = (struct config_grammar){0};
	config_grammar_add(grammar, rows, count, false);
	rows = config_tenant_options(&count);
	config_grammar_add(grammar, rows, count, true);
}

static int config_on_statement(void *context, const struct config_statement *statement, char *err, size_t err_size)
{
	struct config *config = context;
	const struct config_option *option;
	char name[128], place[4200];

	if (strcmp(statement->section, "tenant") == 0)
		return config_tenant_take(config, statement, err, err_size);
	snprintf(name, sizeof(name), "%s.%s", statement->section, statement->option);
	snprintf(place, sizeof(place), "%s:%u", statement->file, statement->line);
	option = config_option_find(name);
	must(option != NULL && statement->values_count == 1);
	return config_assign(config, option, statement->values[0], CONFIG_FROM_FILE, place, err, err_size);
}

static int config_read_files(struct config *config, const struct config_sources *sources, char *err, size_t err_size)
{
	struct config_file_source source = {
		.path = sources->file, .may_be_absent = sources->file_may_be_absent, .with_conf_d = true};
	struct config_grammar *grammar;
	int status;

	if (sources->file == NULL)
		return RSHM_OK;
	grammar = malloc(sizeof(*grammar));
	if (grammar == NULL)
		return RSHM_E_NOMEM;
	config_grammar_build(grammar);
	status = config_file_read(grammar->sections, &source, config_on_statement, config, err, err_size);
	free(grammar);
	return status;
}

/* One "section.option=value" of the command line. */
static int config_apply_setting(struct config *config, const char *setting, char *err, size_t err_size)
{
	const char *equals = strchr(setting, '=');
	const struct config_option *option = NULL;
	char name[64] = "", why[CONFIG_ERROR_MAX] = "";
	int status;

	if (equals != NULL && (size_t)(equals - setting) < sizeof(name)) {
		memcpy(name, setting, (size_t)(equals - setting));
		option = config_option_find(name);
	}
	if (option == NULL) {
		if (equals == NULL)
			snprintf(err, err_size, "--set: no = in it; write --set section.option=value");
		else
			snprintf(err, err_size, "--set: %s: no such option; riptided --print-config shows them all",
				 name[0] ? name : "a name of more than 63 characters");
		return RSHM_E_INVALID;
	}
	status =
		config_assign(config, option, equals + 1, CONFIG_FROM_COMMAND_LINE, "command line", why, sizeof(why));
	if (status == RSHM_E_INVALID)
		snprintf(err, err_size, "--set: %s: %s", name, why);
	return status;
}

static int config_build(struct config *config, const struct config_sources *sources, char *err, size_t err_size)
{
	int status = config_set_defaults(config, err, err_size);

	if (status == RSHM_OK)
		status = config_read_files(config, sources, err, err_size);
	if (status == RSHM_OK && sources->environment != NULL)
		status = config_env_apply(config, sources->environment, err, err_size);
	for (size_t i = 0; i < sources->settings_count && status == RSHM_OK; i++)
		status = config_apply_setting(config, sources->settings[i], err, err_size);
	if (status == RSHM_OK && sources->environment != NULL)
		status = config_env_check(config, sources->environment, err, err_size);
	if (status == RSHM_OK)
		status = config_derive(config);
	if (status == RSHM_OK)
		status = config_check(config, err, err_size);
	if (status == RSHM_OK)
		status = config_tenants_finish(config, err, err_size);
	return status;
}

int config_load(const struct config_sources *sources, struct config **ret, char *err, size_t err_size)
{
	struct config *config = calloc(1, sizeof(*config));
	int status = RSHM_E_NOMEM;

	must(err_size > 0);
	err[0] = '\0';
	if (config != NULL)
		status = config_build(config, sources, err, err_size);
	if (status == RSHM_OK) {
		*ret = config;
		return RSHM_OK;
	}
	if (status == RSHM_E_NOMEM)
		snprintf(err, err_size, "configuration: no memory");
	/* A path with a newline in it must not make two lines of the message. */
	for (char *c = err; *c != '\0'; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	}
	config_destroy(&config);
	return status;
}

void config_destroy(struct config **config)
{
	size_t count;
	const struct config_option *options = config_options(&count);

	if (*config == NULL)
		return;
	for (size_t i = 0; i < count; i++)
		config_option_clear(&options[i], *config);
	config_origins_free(&(*config)->origins, count);
	config_tenants_free(*config);
	free(*config);
	*config = NULL;
}

const struct config_tenant *config_find_tenant(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->tenants_count; i++) {
		if (strcmp(config->tenants[i].name, name) == 0)
			return &config->tenants[i];
	}
	return NULL;
}
