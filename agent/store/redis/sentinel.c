#include "agent/store/redis/sentinel.h"

#include <stdio.h>
#include <string.h>

#include "shm/msg.h"

#define SENTINEL_PORT 26379u

/* ---- the URL --------------------------------------------------------------------------------------------------- */

bool redis_sentinel_is_meant(const char *url)
{
	return strncmp(url, REDIS_SENTINEL_SCHEME, strlen(REDIS_SENTINEL_SCHEME)) == 0;
}

/* Whether "host:port", or "[host]:port", has a port. */
static bool has_port(const char *host, size_t length)
{
	const char *behind = host[0] == '[' ? memchr(host, ']', length) : host;

	return behind != NULL && memchr(behind, ':', length - (size_t)(behind - host)) != NULL;
}

/* NULL, or what is wrong; "" if `error` says it. */
static const char *parse_sentinel(const char *host, size_t length, struct redis_sentinel_list *list,
				  struct text *error)
{
	struct redis_address *address = &list->addresses[list->count];
	struct redis_url parsed;
	char url[300];
	int written;

	if (list->count == REDIS_SENTINELS_MAX)
		return "has more than 16 sentinels";
	if (length == 0)
		return "has an empty place in its list of sentinels";
	if (memchr(host, '%', length) != NULL)
		return "has an encoded character in a host";
	written = snprintf(url, sizeof(url), "redis://%.*s%s", (int)length, host,
			   has_port(host, length) ? "" : ":26379");
	if (written < 0 || (size_t)written >= sizeof(url))
		return "has a host that is too long";
	if (redis_url_parse(url, &parsed, error) != RSHM_OK)
		return "";
	memcpy(address->host, parsed.host, sizeof(address->host));
	address->port = parsed.port;
	list->count++;
	return NULL;
}

static const char *parse_name(const char *name, size_t length, struct redis_sentinel_list *list)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_";

	if (length == 0)
		return "names no master; its name stands behind the sentinels: redis+sentinel://host:port/name";
	if (length > REDIS_MASTER_NAME_MAX)
		return "has a master's name of more than 64 characters";
	for (size_t i = 0; i < length; i++)
		if (strchr(allowed, name[i]) == NULL)
			return "has a master's name with other characters than A-Z a-z 0-9 . - _";
	memcpy(list->master, name, length);
	list->master[length] = '\0';
	return NULL;
}

/* Login and database, by url.c. */
static const char *parse_server(const char *login, size_t login_length, const char *database,
				struct redis_url *server, struct text *error)
{
	char url[REDIS_URL_MAX + 1];
	int written = snprintf(url, sizeof(url), "redis://%.*ssentinel%s", (int)login_length, login, database);
	const char *fault = NULL;

	if (written < 0 || (size_t)written >= sizeof(url))
		fault = "is too long";
	else if (redis_url_parse(url, server, error) != RSHM_OK)
		fault = "";
	else
		server->host[0] = '\0';
	explicit_bzero(url, sizeof(url));
	return fault;
}

static const char *parse(const char *url, struct redis_sentinel_list *list, struct redis_url *server,
			 struct text *error)
{
	const char *login = url + strlen(REDIS_SENTINEL_SCHEME), *at, *host, *name, *fault;
	size_t name_length;

	if (!redis_sentinel_is_meant(url))
		return "does not begin with " REDIS_SENTINEL_SCHEME;
	/* No part behind the login can hold an '@'. */
	at = strrchr(login, '@');
	host = at != NULL ? at + 1 : login;
	name = host + strcspn(host, "/");
	for (size_t length; host <= name; host += length + 1) {
		length = strcspn(host, ",/");
		fault = parse_sentinel(host, length, list, error);
		if (fault != NULL)
			return fault;
	}
	name += *name == '/';
	name_length = strcspn(name, "/");
	fault = parse_name(name, name_length, list);
	if (fault != NULL)
		return fault;
	return parse_server(login, at != NULL ? (size_t)(at + 1 - login) : 0, name + name_length, server, error);
}

int redis_sentinel_parse(const char *url, struct redis_sentinel_list *ret, struct redis_url *ret_server,
			 struct text *error)
{
	struct redis_sentinel_list list = {.count = 0};
	struct redis_url server = {.host = ""};
	const char *fault = parse(url, &list, &server, error);

	if (fault == NULL) {
		*ret = list;
		*ret_server = server;
	} else if (fault[0] != '\0') {
		text_append_format(error, "the Redis URL %s", fault);
	}
	redis_url_wipe(&server);
	return fault == NULL ? RSHM_OK : RSHM_E_INVALID;
}

void redis_address_describe(const struct redis_address *address, struct text *text)
{
	bool is_ipv6 = strchr(address->host, ':') != NULL;

	text_append_format(text, "%s%s%s:%u", is_ipv6 ? "[" : "", address->host, is_ipv6 ? "]" : "",
			   (unsigned)address->port);
}

/* ---- what a sentinel says -------------------------------------------------------------------------------------- */

/* The next item of a tree, which must be a text: false if it is none. */
static bool next_text(const struct redis_reply *tree, size_t *position, const char **ret, size_t *ret_length)
{
	if (!redis_reply_page_next(tree, position, ret, ret_length) || *ret_length == 0 || **ret != '$')
		return false;
	++*ret;
	--*ret_length;
	return true;
}

static bool read_number(const char *text, size_t length, uint64_t max, uint64_t *ret)
{
	char digits[24];

	if (length == 0 || length >= sizeof(digits))
		return false;
	memcpy(digits, text, length);
	digits[length] = '\0';
	return text_parse_u64(digits, ret) && *ret <= max;
}

static bool is(const char *text, size_t length, const char *wanted)
{
	return length == strlen(wanted) && memcmp(text, wanted, length) == 0;
}

/* Whether a list of flags, with commas between them, has this one. */
static bool has_flag(const char *flags, size_t length, const char *flag)
{
	while (length > 0) {
		const char *comma = memchr(flags, ',', length);
		size_t flag_length = comma != NULL ? (size_t)(comma - flags) : length;

		if (is(flags, flag_length, flag))
			return true;
		flag_length += comma != NULL;
		flags += flag_length;
		length -= flag_length;
	}
	return false;
}

static void read_flags(const char *flags, size_t length, struct redis_sentinel_word *word)
{
	word->down = has_flag(flags, length, "s_down") || has_flag(flags, length, "o_down");
	word->failing_over = has_flag(flags, length, "failover_in_progress");
}

/* A host as sentinels give it: an address, or a name if they resolve names. */
static bool read_host(const char *text, size_t length, char ret[256])
{
	if (length == 0 || length >= 256)
		return false;
	for (size_t i = 0; i < length; i++)
		if (strchr("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.:-_", text[i]) == NULL ||
		    text[i] == '\0')
			return false;
	memcpy(ret, text, length);
	ret[length] = '\0';
	return true;
}

bool redis_sentinel_read(const struct redis_reply *reply, struct redis_sentinel_word *ret)
{
	struct redis_sentinel_word word = {.epoch = 0};
	bool has_host = false, has_epoch = false;
	const char *name, *value;
	size_t position = 0, name_length, value_length;
	uint64_t port = 0;

	if (reply->type != REDIS_REPLY_IS_TREE || !redis_reply_page_next(reply, &position, &name, &name_length) ||
	    name_length == 0 || name[0] != '*')
		return false;
	while (next_text(reply, &position, &name, &name_length)) {
		if (!next_text(reply, &position, &value, &value_length))
			return false;
		if (is(name, name_length, "ip"))
			has_host = read_host(value, value_length, word.master.host);
		else if (is(name, name_length, "port") && !read_number(value, value_length, UINT16_MAX, &port))
			return false;
		else if (is(name, name_length, "config-epoch"))
			has_epoch = read_number(value, value_length, UINT64_MAX, &word.epoch);
		else if (is(name, name_length, "flags"))
			read_flags(value, value_length, &word);
	}
	if (!has_host || !has_epoch || port == 0)
		return false;
	word.master.port = (uint16_t)port;
	*ret = word;
	return true;
}
