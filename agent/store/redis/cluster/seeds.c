#include "agent/store/redis/cluster/seeds.h"

#include <stdio.h>
#include <string.h>

#include "agent/store/redis/url.h"
#include "shm/msg.h"

/* Reads one seed by url.c, with the login in front. `login` ends with '@', or is empty. NULL, or what is wrong. */
static const char *seed_parse(const char *login, size_t login_length, const char *host, size_t length,
			      struct cluster_seeds *seeds, struct text *error)
{
	char url[REDIS_URL_MAX + 1];
	struct redis_url parsed = {.host = ""};
	int written = snprintf(url, sizeof(url), "redis://%.*s%.*s", (int)login_length, login, (int)length, host);
	const char *fault = NULL;

	if (written < 0 || (size_t)written >= sizeof(url))
		fault = "is too long";
	else if (length == 0)
		fault = "has an empty place in its list of hosts";
	else if (memchr(host, '%', length) != NULL)
		fault = "has an encoded character in a host";
	else if (memchr(host, '/', length) != NULL)
		fault = "has something behind its hosts; a cluster has one database";
	else if (redis_url_parse(url, &parsed, error) != RSHM_OK)
		fault = "";
	explicit_bzero(url, sizeof(url));
	if (fault == NULL) {
		struct cluster_endpoint *seed = &seeds->endpoints[seeds->count++];

		memcpy(seed->host, parsed.host, sizeof(seed->host));
		seed->port = parsed.port;
		memcpy(seeds->user, parsed.user, sizeof(seeds->user));
		memcpy(seeds->password, parsed.password, sizeof(seeds->password));
	}
	redis_url_wipe(&parsed);
	return fault;
}

static const char *parse(const char *url, struct cluster_seeds *seeds, struct text *error)
{
	const char *login = url + strlen(CLUSTER_SCHEME), *at, *hosts, *fault = NULL;

	if (strncmp(url, CLUSTER_SCHEME, strlen(CLUSTER_SCHEME)) != 0)
		return "does not begin with " CLUSTER_SCHEME;
	/* No part behind the login can hold an '@'. */
	at = strrchr(login, '@');
	hosts = at != NULL ? at + 1 : login;
	if (hosts[0] != '\0' && hosts[strlen(hosts) - 1] == '/')
		return "ends with a slash";
	while (fault == NULL) {
		size_t length = strcspn(hosts, ",");

		if (seeds->count == CLUSTER_SEEDS_MAX)
			return "has more than 16 hosts";
		fault = seed_parse(login, at != NULL ? (size_t)(at + 1 - login) : 0, hosts, length, seeds, error);
		if (hosts[length] == '\0')
			break;
		hosts += length + 1;
	}
	return fault;
}

int cluster_seeds_parse(const char *url, struct cluster_seeds *ret, struct text *error)
{
	struct cluster_seeds seeds = {.count = 0};
	const char *fault = parse(url, &seeds, error);

	if (fault == NULL)
		*ret = seeds;
	else if (fault[0] != '\0')
		text_append_format(error, "the Redis URL %s", fault);
	cluster_seeds_wipe(&seeds);
	return fault == NULL ? RSHM_OK : RSHM_E_INVALID;
}

static void append_endpoint(struct text *text, const struct cluster_endpoint *endpoint)
{
	bool is_ipv6 = strchr(endpoint->host, ':') != NULL;

	text_append_format(text, "%s%s%s:%u", is_ipv6 ? "[" : "", endpoint->host, is_ipv6 ? "]" : "",
			   (unsigned)endpoint->port);
}

void cluster_seeds_describe(const struct cluster_seeds *seeds, struct text *text)
{
	text_append_string(text, CLUSTER_SCHEME);
	for (uint32_t i = 0; i < seeds->count; i++) {
		if (i > 0)
			text_append_string(text, ",");
		append_endpoint(text, &seeds->endpoints[i]);
	}
}

/* What means something in a URL is encoded, and was so in the URL it came from: it grows no longer than that. */
static void append_encoded(struct text *text, const char *part)
{
	for (; *part != '\0'; part++) {
		unsigned char c = (unsigned char)*part;

		if (c <= ' ' || c == 0x7f || c == '%' || c == ':' || c == '/')
			text_append_format(text, "%%%02X", c);
		else
			text_append(text, part, 1);
	}
}

bool cluster_seeds_node_url(const struct cluster_seeds *seeds, const struct cluster_endpoint *node, char *ret,
			    size_t size)
{
	struct text text;

	text_init(&text, ret, size);
	text_append_string(&text, "redis://");
	if (seeds->password[0] != '\0') {
		append_encoded(&text, seeds->user);
		text_append_string(&text, ":");
		append_encoded(&text, seeds->password);
		text_append_string(&text, "@");
	}
	append_endpoint(&text, node);
	return !text.cut;
}

void cluster_seeds_wipe(struct cluster_seeds *seeds)
{
	explicit_bzero(seeds, sizeof(*seeds));
}
