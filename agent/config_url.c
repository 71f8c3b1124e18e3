#include "agent/config_url.h"

#include <string.h>

/* What follows user and password; a password may hold any character, so the last '@' decides. */
static const char *config_url_host(const char *rest)
{
	const char *at = strrchr(rest, '@');

	return at != NULL ? at + 1 : rest;
}

static bool config_url_is_number(const char *text, size_t length, uint64_t max)
{
	char digits[8];
	uint64_t value;

	if (length == 0 || length >= sizeof(digits))
		return false;
	memcpy(digits, text, length);
	digits[length] = '\0';
	return text_parse_u64(digits, &value) && value <= max;
}

static const char *config_url_fault_redis(const char *host)
{
	size_t host_length = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/?");
	const char *rest;
	size_t length;

	if (host[0] == '[' && host[host_length - 1] != ']')
		return "has an IPv6 address without its closing ]";
	if (host_length == 0)
		return "has no host";
	rest = host + host_length;
	if (*rest == ':') {
		length = strcspn(++rest, "/?");
		if (!config_url_is_number(rest, length, 65535) || (length == 1 && *rest == '0'))
			return "has a port that is not a number from 1 to 65535";
		rest += length;
	}
	if (*rest == '/' && rest[1] != '\0') {
		if (!config_url_is_number(rest + 1, strlen(rest + 1), 65535))
			return "has a database that is not a number";
		return NULL;
	}
	return *rest == '\0' || strcmp(rest, "/") == 0 ? NULL : "has something behind its host";
}

/* Hosts with commas between them, up to `end`. */
static const char *config_url_fault_hosts(const char *hosts, const char *end)
{
	char host[512];

	for (;;) {
		size_t length = strcspn(hosts, ",");
		const char *fault;

		if (length > (size_t)(end - hosts))
			length = (size_t)(end - hosts);
		if (length >= sizeof(host))
			return "has a host that is too long";
		memcpy(host, hosts, length);
		host[length] = '\0';
		fault = config_url_fault_redis(host);
		if (fault != NULL || hosts + length == end)
			return fault;
		hosts += length + 1;
	}
}

static const char *config_url_fault_cluster(const char *hosts)
{
	if (strchr(hosts, '/') != NULL)
		return "has something behind its hosts; a cluster has one database";
	return config_url_fault_hosts(hosts, hosts + strlen(hosts));
}

static const char *config_url_fault_sentinel(const char *hosts)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_";
	const char *end = hosts + strcspn(hosts, "/"), *name = *end == '/' ? end + 1 : end;
	size_t length = strspn(name, allowed);

	if (length == 0 || length > 64)
		return "names no master: its name stands behind the sentinels, after a slash";
	if (name[length] == '/' && !config_url_is_number(name + length + 1, strlen(name + length + 1), 65535))
		return "has a database that is not a number";
	if (name[length] != '/' && name[length] != '\0')
		return "has a master's name with other characters than A-Z a-z 0-9 . - _";
	return config_url_fault_hosts(hosts, end);
}

static const char *config_url_fault_unix(const char *path)
{
	const char *query = strchr(path, '?');

	if (path[0] != '/' || path[1] == '\0')
		return "has no absolute path of a socket";
	if ((query != NULL ? (size_t)(query - path) : strlen(path)) > 107)
		return "has a path that is too long for a socket";
	if (query != NULL &&
	    (strncmp(query, "?db=", 4) != 0 || !config_url_is_number(query + 4, strlen(query + 4), 65535)))
		return "has a query that is not db=number";
	return NULL;
}

const char *config_url_fault(const char *url)
{
	for (const char *p = url; *p != '\0'; p++) {
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			return "has a space or a control character";
	}
	if (strncmp(url, "redis://", 8) == 0)
		return config_url_fault_redis(config_url_host(url + 8));
	if (strncmp(url, "redis+cluster://", 16) == 0)
		return config_url_fault_cluster(config_url_host(url + 16));
	if (strncmp(url, "redis+sentinel://", 17) == 0)
		return config_url_fault_sentinel(config_url_host(url + 17));
	if (strncmp(url, "unix://", 7) == 0)
		return config_url_fault_unix(config_url_host(url + 7));
	if (strncmp(url, "rediss://", 9) == 0)
		return "asks for TLS, which this version does not speak";
	return "begins with no known scheme";
}

void config_url_mask(const char *url, struct text *text)
{
	const char *rest = strstr(url, "://");
	const char *host;

	rest = rest != NULL ? rest + 3 : url;
	host = config_url_host(rest);
	text_append(text, url, (size_t)(rest - url));
	if (host != rest)
		text_append_string(text, "***@");
	text_append_string(text, host);
}
