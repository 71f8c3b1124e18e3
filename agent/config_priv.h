/* config_priv.h - what the files of the configuration share. A struct config is changed only here, before it is given out. */
#ifndef RIPTIDE_CONFIG_PRIV_H
#define RIPTIDE_CONFIG_PRIV_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/config.h"
#include "agent/config_file.h"
#include "agent/config_option.h"

enum config_source { CONFIG_FROM_DEFAULT, CONFIG_FROM_FILE, CONFIG_FROM_ENVIRONMENT, CONFIG_FROM_COMMAND_LINE };

/* Where a value came from. One per row of the table, in its order. */
struct config_origin {
	enum config_source source;
	char *place; /* "/etc/riptide/riptide.conf:12", "REDIS_URL (environment)", ...; NULL: "default" */
};

/* The origin of `option`, which is a row of config_options(). */
struct config_origin *config_origin_of(const struct config *config, const struct config_option *option);
const char *config_origin_text(const struct config_origin *origin);
/* Replaces it; copies `place` (may be NULL). RSHM_E_NOMEM. */
int config_origin_set(struct config_origin *origin, enum config_source source, const char *place);
void config_origins_free(struct config_origin **origins, size_t count);

/*
 * Stores a value and its origin. On failure `err` says what is wrong and what is allowed, without the place.
 * RSHM_E_INVALID, RSHM_E_NOMEM.
 */
int config_assign(struct config *config, const struct config_option *option, const char *value,
		  enum config_source source, const char *place, char *err, size_t err_size);

/* config_env.c: takes the variables that the table names. `err` with its place. */
int config_env_apply(struct config *config, const char *const *environment, char *err, size_t err_size);
/* Whether the whole configuration is what variables without an option of their own ask for. */
int config_env_check(const struct config *config, const char *const *environment, char *err, size_t err_size);

/* config_check.c: values that follow from others, then the rules that bind several options. `err` with its place. */
int config_derive(struct config *config);
int config_check(const struct config *config, char *err, size_t err_size);

/* config_tenant.c */
/* Takes a statement of a tenant's section, or its opening. `err` without the place. */
int config_tenant_take(struct config *config, const struct config_statement *statement, char *err, size_t err_size);
/* When all sources are read: makes sure of "default", fills in what is inherited, sorts, checks. `err` with its place. */
int config_tenants_finish(struct config *config, char *err, size_t err_size);
void config_tenants_free(struct config *config);

#endif
