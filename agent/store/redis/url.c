#include "agent/store/redis/url.h"

#include <inttypes.h>
#include <string.h>

#include "shm/msg.h"

#define URL_PORT_DEFAULT 6379u
#define URL_DATABASE_MAX 65535u

/* Part of the URL's text. */
struct span {
	const char *begin;
	size_t length;
};

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* NULL, or what is wrong. */
static const char *span_decode(struct span span, char *ret, size_t capacity)
{
	size_t length = 0;

	for (size_t i = 0; i < span.length; i++) {
		char c = span.begin[i];

		if (c == '%') {
			bool whole = span.length - i > 2;
			int high = whole ? hex_value(span.begin[i + 1]) : -1;
			int low = whole ? hex_value(span.begin[i + 2]) : -1;

			if (high < 0 || low < 0)
				return "has a % that is not followed by two hexadecimal digits";
			c = (char)(high << 4 | low);
			if (c == '\0')
				return "has an encoded NUL";
			i += 2;
		}
		if (length + 1 >= capacity)
			return "has a part that is too long";
		ret[length++] = c;
	}
	ret[length] = '\0';
	return NULL;
}

static bool span_number(struct span span, uint64_t max, uint64_t *ret)
{
	char digits[8];
	uint64_t value;

	if (span.length == 0 || span.length >= sizeof(digits))
		return false;
	memcpy(digits, span.begin, span.length);
	digits[span.length] = '\0';
	if (!text_parse_u64(digits, &value) || value > max)
		return false;
	*ret = value;
	return true;
}

static const char *parse_login(struct span login, struct redis_url *url)
{
	const char *colon = memchr(login.begin, ':', login.length);
	struct span user = {login.begin, colon != NULL ? (size_t)(colon - login.begin) : 0};
	struct span password;
	const char *fault;

	if (colon == NULL)
		return "has a user without a password; a password alone is written :password@";
	password = (struct span){colon + 1, login.length - user.length - 1};
	fault = span_decode(user, url->user, sizeof(url->user));
	if (fault == NULL)
		fault = span_decode(password, url->password, sizeof(url->password));
	if (fault == NULL && url->password[0] == '\0' && url->user[0] != '\0')
		return "has a user with an empty password";
	return fault;
}

static const char *parse_database(struct span span, struct redis_url *url)
{
	uint64_t database;

	if (!span_number(span, URL_DATABASE_MAX, &database))
		return "has a database that is not a number from 0 to 65535";
	url->database = (uint32_t)database;
	return NULL;
}

static const char *parse_tcp(const char *rest, struct redis_url *url)
{
	/* No part behind the login can hold an '@'. */
	const char *at = strrchr(rest, '@'), *fault;
	struct span host;
	uint64_t port;

	if (at != NULL) {
		fault = parse_login((struct span){rest, (size_t)(at - rest)}, url);
		if (fault != NULL)
			return fault;
		rest = at + 1;
	}
	if (rest[0] == '[') {
		host = (struct span){rest + 1, strcspn(rest + 1, "]")};
		if (host.begin[host.length] != ']')
			return "has an IPv6 address without its closing ]";
		rest = host.begin + host.length + 1;
	} else {
		host = (struct span){rest, strcspn(rest, ":/?#")};
		rest += host.length;
	}
	if (host.length == 0)
		return "has no host";
	fault = span_decode(host, url->host, sizeof(url->host));
	if (fault != NULL)
		return fault;
	url->port = URL_PORT_DEFAULT;
	if (*rest == ':') {
		struct span digits = {rest + 1, strcspn(rest + 1, "/?#")};

		if (!span_number(digits, UINT16_MAX, &port) || port == 0)
			return "has a port that is not a number from 1 to 65535";
		url->port = (uint16_t)port;
		rest = digits.begin + digits.length;
	}
	if (*rest == '/' && rest[1] != '\0')
		return parse_database((struct span){rest + 1, strlen(rest + 1)}, url);
	return *rest == '\0' || strcmp(rest, "/") == 0 ? NULL : "has something behind its host";
}

static const char *parse_unix(const char *rest, struct redis_url *url)
{
	const char *fault, *query;

	if (rest[0] != '/') {
		const char *at = strstr(rest, "@/");

		if (at == NULL)
			return "has no absolute path of a socket";
		fault = parse_login((struct span){rest, (size_t)(at - rest)}, url);
		if (fault != NULL)
			return fault;
		rest = at + 1;
	}
	query = strchr(rest, '?');
	fault = span_decode((struct span){rest, query != NULL ? (size_t)(query - rest) : strlen(rest)}, url->path,
			    sizeof(url->path));
	if (fault != NULL)
		return fault;
	if (url->path[1] == '\0')
		return "has no absolute path of a socket";
	url->is_unix = true;
	if (query == NULL)
		return NULL;
	if (strncmp(query, "?db=", 4) != 0)
		return "has a query that is not db=number";
	return parse_database((struct span){query + 4, strlen(query + 4)}, url);
}

static const char *parse(const char *url, struct redis_url *ret)
{
	if (strlen(url) > REDIS_URL_MAX)
		return "is too long";
	for (const char *p = url; *p != '\0'; p++) {
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			return "has a space or a control character";
	}
	if (strncmp(url, "redis://", 8) == 0)
		return parse_tcp(url + 8, ret);
	if (strncmp(url, "unix://", 7) == 0)
		return parse_unix(url + 7, ret);
	if (strncmp(url, "rediss://", 9) == 0)
		return "asks for TLS (rediss://), which this version does not speak";
	return "begins with neither redis:// nor unix://";
}

int redis_url_parse(const char *url, struct redis_url *ret, struct text *error)
{
	struct redis_url parsed = {.host = ""};
	const char *fault = parse(url, &parsed);

	if (fault == NULL)
		*ret = parsed;
	else
		text_append_format(error, "the Redis URL %s", fault);
	redis_url_wipe(&parsed);
	return fault == NULL ? RSHM_OK : RSHM_E_INVALID;
}

void redis_url_describe(const struct redis_url *url, struct text *text)
{
	bool is_ipv6 = strchr(url->host, ':') != NULL;

	if (url->is_unix) {
		text_append_format(text, "unix://%s?db=%" PRIu32, url->path, url->database);
		return;
	}
	text_append_format(text, "redis://%s%s%s:%u/%" PRIu32, is_ipv6 ? "[" : "", url->host, is_ipv6 ? "]" : "",
			   (unsigned)url->port, url->database);
}

void redis_url_wipe(struct redis_url *url)
{
	explicit_bzero(url, sizeof(*url));
}
