/*
 * The environment variables that the table names, under the names of the seed. What cannot be read is an error that names the
 * variable, never a silent default. Where two names mean one option, both may be set if they agree.
 */
#include <stdio.h>
#include <string.h>

#include "agent/config_priv.h"
#include "shm/msg.h"

/* The value of `name`, or NULL. */
static const char *config_env_get(const char *const *environment, const char *name)
{
	size_t length = name != NULL ? strlen(name) : 0;

	for (size_t i = 0; name != NULL && environment[i] != NULL; i++) {
		if (strncmp(environment[i], name, length) == 0 && environment[i][length] == '=')
			return environment[i] + length + 1;
	}
	return NULL;
}

static int config_env_assign(struct config *config, const struct config_option *option, const char *name,
			     const char *value, char *err, size_t err_size)
{
	char place[128], why[CONFIG_ERROR_MAX] = "";
	int status;

	snprintf(place, sizeof(place), "%s (environment)", name);
	status = config_assign(config, option, value, CONFIG_FROM_ENVIRONMENT, place, why, sizeof(why));
	if (status == RSHM_E_INVALID)
		snprintf(err, err_size, "%s: %s: %s", place, option->name, why);
	return status;
}

static int config_env_apply_option(struct config *config, const struct config_option *option,
				   const char *const *environment, char *err, size_t err_size)
{
	const char *value = config_env_get(environment, option->environment);
	const char *alias = config_env_get(environment, option->environment_alias);
	char before[CONFIG_ERROR_MAX], after[CONFIG_ERROR_MAX];
	struct text first, second;
	int status = RSHM_OK;

	text_init(&first, before, sizeof(before));
	text_init(&second, after, sizeof(after));
	if (alias != NULL)
		status = config_env_assign(config, option, option->environment_alias, alias, err, err_size);
	if (status != RSHM_OK || value == NULL)
		return status;
	config_option_format(option, config, false, &first);
	status = config_env_assign(config, option, option->environment, value, err, err_size);
	if (status != RSHM_OK || alias == NULL)
		return status;
	config_option_format(option, config, false, &second);
	if (strcmp(before, after) == 0)
		return RSHM_OK;
	snprintf(err, err_size, "%s (environment): %s: %s is set too and says something else; unset one of them",
		 option->environment, option->name, option->environment_alias);
	return RSHM_E_INVALID;
}

/* A cluster is asked for by the scheme of the URL. */
int config_env_check(const struct config *config, const char *const *environment, char *err, size_t err_size)
{
	const char *value = config_env_get(environment, "REDIS_CLUSTER_MODE");
	bool wanted = value != NULL && (strcmp(value, "true") == 0 || strcmp(value, "1") == 0);

	if (value == NULL || strncmp(config->redis.url, "redis+cluster://", 16) == 0 ||
	    (!wanted && (strcmp(value, "false") == 0 || strcmp(value, "0") == 0)))
		return RSHM_OK;
	snprintf(err, err_size,
		 wanted ? "REDIS_CLUSTER_MODE (environment): redis.url names no cluster; write "
			  "redis+cluster://host:port,host:port"
			: "REDIS_CLUSTER_MODE (environment): allowed: true or false");
	return RSHM_E_INVALID;
}

int config_env_apply(struct config *config, const char *const *environment, char *err, size_t err_size)
{
	size_t count;
	const struct config_option *options = config_options(&count);
	int status = RSHM_OK;

	for (size_t i = 0; i < count && status == RSHM_OK; i++)
		status = config_env_apply_option(config, &options[i], environment, err, err_size);
	return status;
}
