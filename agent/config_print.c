/*
 * What is in force, for people (--print-config) and for a reload (what changed). Both show secrets masked; both compare and
 * print values as text, as the configuration file would say them, so that one function per type suffices.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config_priv.h"

#define CONFIG_VALUE_MAX 16384 /* a text of the longest list that is still shown whole */
#define CONFIG_NAME_MAX 160

/* ---- printing ---- */

static void config_print_value(FILE *out, const struct config_option *option, const void *base,
			       const struct config_origin *origin)
{
	char bytes[CONFIG_VALUE_MAX], place_bytes[CONFIG_VALUE_MAX];
	struct text value, place;

	text_init(&value, bytes, sizeof(bytes));
	config_option_format(option, base, true, &value);
	/* A newline in a file's name must not end the comment that it stands in. */
	text_init(&place, place_bytes, sizeof(place_bytes));
	text_append_escaped(&place, config_origin_text(origin), strlen(config_origin_text(origin)));
	fprintf(out, "\t%s = %s  # %s\n", strchr(option->name, '.') + 1, bytes, place_bytes);
}

static void config_print_tenant(FILE *out, const struct config_tenant *tenant)
{
	size_t count;
	const struct config_option *options = config_tenant_options(&count);

	fprintf(out, "tenant \"%s\" {\n", tenant->name);
	if (tenant->users[0] == NULL && tenant->groups[0] == NULL)
		fprintf(out, "\t# the agent's own: user %ju, group %ju\n", (uintmax_t)tenant->uids[0],
			(uintmax_t)tenant->gids[0]);
	for (size_t i = 0; i < count; i++)
		config_print_value(out, &options[i], tenant, &tenant->origins[i]);
	fprintf(out, "}\n");
}

bool config_print(const struct config *config, FILE *out)
{
	size_t count;
	const struct config_option *options = config_options(&count);

	for (size_t i = 0; i < count; i++) {
		size_t section = strcspn(options[i].name, ".");

		if (i == 0 || strncmp(options[i - 1].name, options[i].name, section + 1) != 0)
			fprintf(out, "%s%.*s {\n", i > 0 ? "}\n\n" : "", (int)section, options[i].name);
		config_print_value(out, &options[i], config, config_origin_of(config, &options[i]));
	}
	fprintf(out, "}\n");
	for (size_t i = 0; i < config->tenants_count; i++) {
		fprintf(out, "\n");
		config_print_tenant(out, &config->tenants[i]);
	}
	return fflush(out) == 0 && !ferror(out);
}

/* ---- comparing ---- */

struct comparison {
	config_change_fn *changed;
	void *context;
	size_t count;
};

static void config_report(struct comparison *comparison, const char *name, const char *before, const char *after,
			  bool live)
{
	struct config_change change = {.name = name, .before = before, .after = after, .live = live};

	comparison->count++;
	comparison->changed(comparison->context, &change);
}

static void config_compare_value(struct comparison *comparison, const struct config_option *option, const char *name,
				 const void *before, const void *after)
{
	char old_bytes[CONFIG_VALUE_MAX], new_bytes[CONFIG_VALUE_MAX];
	struct text old_text, new_text;

	text_init(&old_text, old_bytes, sizeof(old_bytes));
	text_init(&new_text, new_bytes, sizeof(new_bytes));
	config_option_format(option, before, false, &old_text);
	config_option_format(option, after, false, &new_text);
	/* Of texts too long for the buffers nothing is claimed: they count as changed. */
	if (strcmp(old_bytes, new_bytes) == 0 && !old_text.cut && !new_text.cut)
		return;
	text_init(&old_text, old_bytes, sizeof(old_bytes));
	text_init(&new_text, new_bytes, sizeof(new_bytes));
	config_option_format(option, before, true, &old_text);
	config_option_format(option, after, true, &new_text);
	config_report(comparison, name, old_bytes, new_bytes, option->live);
}

static void config_compare_tenant(struct comparison *comparison, const struct config_tenant *before,
				  const struct config_tenant *after)
{
	size_t count;
	const struct config_option *options = config_tenant_options(&count);
	char name[CONFIG_NAME_MAX];

	for (size_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "tenant \"%s\".%s", before->name, strchr(options[i].name, '.') + 1);
		config_compare_value(comparison, &options[i], name, before, after);
	}
}

static void config_compare_tenants(struct comparison *comparison, const struct config *before,
				   const struct config *after)
{
	char name[CONFIG_NAME_MAX];

	for (size_t i = 0; i < before->tenants_count; i++) {
		const struct config_tenant *tenant = &before->tenants[i],
					   *now = config_find_tenant(after, tenant->name);

		if (now != NULL) {
			config_compare_tenant(comparison, tenant, now);
			continue;
		}
		snprintf(name, sizeof(name), "tenant \"%s\"", tenant->name);
		config_report(comparison, name, "defined", NULL, false);
	}
	for (size_t i = 0; i < after->tenants_count; i++) {
		if (config_find_tenant(before, after->tenants[i].name) != NULL)
			continue;
		snprintf(name, sizeof(name), "tenant \"%s\"", after->tenants[i].name);
		config_report(comparison, name, NULL, "defined", false);
	}
}

size_t config_compare(const struct config *before, const struct config *after, config_change_fn *changed,
		      void *context)
{
	struct comparison comparison = {changed, context, 0};
	size_t count;
	const struct config_option *options = config_options(&count);

	for (size_t i = 0; i < count; i++)
		config_compare_value(&comparison, &options[i], options[i].name, before, after);
	config_compare_tenants(&comparison, before, after);
	return comparison.count;
}
