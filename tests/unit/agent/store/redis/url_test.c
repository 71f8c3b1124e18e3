#include "agent/store/redis/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shm/msg.h"

static char error[256];

static int parse(const char *url, struct redis_url *ret)
{
	struct text text;

	text_init(&text, error, sizeof(error));
	return redis_url_parse(url, ret, &text);
}

static void assert_refused(const char *url, const char *why)
{
	struct redis_url parsed;

	memset(&parsed, 0x5a, sizeof(parsed));
	assert_int_equal(parse(url, &parsed), RSHM_E_INVALID);
	assert_non_null(strstr(error, why));
	assert_null(strstr(error, "secret"));
	for (size_t i = 0; i < sizeof(parsed); i++)
		assert_int_equal(((unsigned char *)&parsed)[i], 0x5a);
}

static void assert_described(const struct redis_url *url, const char *expected)
{
	char bytes[256];
	struct text text;

	text_init(&text, bytes, sizeof(bytes));
	redis_url_describe(url, &text);
	assert_string_equal(bytes, expected);
}

static void host_alone_gets_default_port_and_database(void **state)
{
	struct redis_url url;

	(void)state;
	assert_int_equal(parse("redis://localhost", &url), RSHM_OK);
	assert_false(url.is_unix);
	assert_string_equal(url.host, "localhost");
	assert_int_equal(url.port, 6379);
	assert_int_equal(url.database, 0);
	assert_string_equal(url.user, "");
	assert_string_equal(url.password, "");
	assert_described(&url, "redis://localhost:6379/0");
}

static void all_parts_of_a_tcp_url_are_read(void **state)
{
	struct redis_url url;

	(void)state;
	assert_int_equal(parse("redis://alice:secret@db.example:7000/12", &url), RSHM_OK);
	assert_string_equal(url.user, "alice");
	assert_string_equal(url.password, "secret");
	assert_string_equal(url.host, "db.example");
	assert_int_equal(url.port, 7000);
	assert_int_equal(url.database, 12);
	assert_described(&url, "redis://db.example:7000/12");
}

static void password_without_user_is_read(void **state)
{
	struct redis_url url;

	(void)state;
	assert_int_equal(parse("redis://:secret@h/", &url), RSHM_OK);
	assert_string_equal(url.user, "");
	assert_string_equal(url.password, "secret");
	assert_int_equal(url.database, 0);
}

static void percent_encoding_is_decoded_in_each_part(void **state)
{
	struct redis_url url;

	(void)state;
	assert_int_equal(parse("redis://a%3ab:p%40%2F%25%C3%A4@h", &url), RSHM_OK);
	assert_string_equal(url.user, "a:b");
	assert_string_equal(url.password, "p@/%\xc3\xa4");
	assert_int_equal(parse("unix:///tmp/a%20b%3f", &url), RSHM_OK);
	assert_string_equal(url.path, "/tmp/a b?");
}

static void raw_separators_in_a_password_belong_to_it(void **state)
{
	struct redis_url url;

	(void)state;
	assert_int_equal(parse("redis://u:a:b@c/d@host:1/2", &url), RSHM_OK);
	assert_string_equal(url.user, "u");
	assert_string_equal(url.password, "a:b@c/d");
	assert_string_equal(url.host, "host");
	assert_int_equal(url.port, 1);
	assert_int_equal(url.database, 2);
}

static void ipv6_address_stands_in_brackets(void **state)
{
	struct redis_url url;

	(void)state;
	assert_int_equal(parse("redis://[::1]:7001/3", &url), RSHM_OK);
	assert_string_equal(url.host, "::1");
	assert_int_equal(url.port, 7001);
	assert_described(&url, "redis://[::1]:7001/3");
	assert_int_equal(parse("redis://[fe80::1%25eth0]", &url), RSHM_OK);
	assert_string_equal(url.host, "fe80::1%eth0");
	assert_refused("redis://[::1", "closing ]");
}

static void unix_socket_takes_login_and_database(void **state)
{
	struct redis_url url;

	(void)state;
	assert_int_equal(parse("unix:///run/redis.sock", &url), RSHM_OK);
	assert_true(url.is_unix);
	assert_string_equal(url.path, "/run/redis.sock");
	assert_int_equal(parse("unix://bob:secret@/run/r@x.sock?db=4", &url), RSHM_OK);
	assert_string_equal(url.user, "bob");
	assert_string_equal(url.password, "secret");
	assert_string_equal(url.path, "/run/r@x.sock");
	assert_int_equal(url.database, 4);
	assert_described(&url, "unix:///run/r@x.sock?db=4");
	assert_int_equal(parse("unix:///run/r@x.sock", &url), RSHM_OK);
	assert_string_equal(url.password, "");
}

static void tls_is_refused_by_name(void **state)
{
	(void)state;
	assert_refused("rediss://:secret@h", "TLS");
}

static void bad_urls_are_refused_without_repeating_them(void **state)
{
	char longest[4096];

	(void)state;
	assert_refused("", "neither redis:// nor unix://");
	assert_refused("http://secret", "neither redis:// nor unix://");
	assert_refused("redis://", "no host");
	assert_refused("redis://:secret@", "no host");
	assert_refused("redis://secret@h", "user without a password");
	assert_refused("redis://secret:@h", "empty password");
	assert_refused("redis://h:0", "port");
	assert_refused("redis://h:65536", "port");
	assert_refused("redis://h:+1", "port");
	assert_refused("redis://h:", "port");
	assert_refused("redis://h/secret", "database");
	assert_refused("redis://h/65536", "database");
	assert_refused("redis://h/1/2", "database");
	assert_refused("redis://h?secret", "behind its host");
	assert_refused("redis://[::1]secret", "behind its host");
	assert_refused("redis://:secret%@h", "%");
	assert_refused("redis://:secret%4@h", "%");
	assert_refused("redis://:secret%4g@h", "%");
	assert_refused("redis://:secret%00@h", "NUL");
	assert_refused("redis://:sec ret@h", "space");
	assert_refused("redis://:sec\nret@h", "control");
	assert_refused("unix://", "absolute path");
	assert_refused("unix:///", "absolute path");
	assert_refused("unix://secret", "absolute path");
	assert_refused("unix:///s?secret", "db=number");
	assert_refused("unix:///s?db=x", "database");
	memset(longest, 'a', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	memcpy(longest, "redis://", 8);
	assert_refused(longest, "too long");
	longest[300] = '\0';
	assert_refused(longest, "too long");
	memcpy(longest, "unix:///", 8);
	longest[7 + 107] = '\0';
	struct redis_url url;
	assert_int_equal(parse(longest, &url), RSHM_OK);
	longest[7 + 107] = 'a';
	longest[7 + 108] = '\0';
	assert_refused(longest, "too long");
}

static void wiping_leaves_no_byte(void **state)
{
	struct redis_url url;

	(void)state;
	assert_int_equal(parse("redis://u:secret@h", &url), RSHM_OK);
	redis_url_wipe(&url);
	for (size_t i = 0; i < sizeof(url); i++)
		assert_int_equal(((unsigned char *)&url)[i], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(host_alone_gets_default_port_and_database),
		cmocka_unit_test(all_parts_of_a_tcp_url_are_read),
		cmocka_unit_test(password_without_user_is_read),
		cmocka_unit_test(percent_encoding_is_decoded_in_each_part),
		cmocka_unit_test(raw_separators_in_a_password_belong_to_it),
		cmocka_unit_test(ipv6_address_stands_in_brackets),
		cmocka_unit_test(unix_socket_takes_login_and_database),
		cmocka_unit_test(tls_is_refused_by_name),
		cmocka_unit_test(bad_urls_are_refused_without_repeating_them),
		cmocka_unit_test(wiping_leaves_no_byte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
