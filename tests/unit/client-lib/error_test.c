#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "riptide/riptide.h"
#include "shm/msg.h"

/* Codes, texts and categories. */

static const int errors[] = {
	RIPTIDE_EINVALID,     RIPTIDE_ETOOBIG,  RIPTIDE_ETOOSMALL, RIPTIDE_EDENIED,  RIPTIDE_ENOTENANT,
	RIPTIDE_EUNSUPPORTED, RIPTIDE_ECLOSED,  RIPTIDE_EAGAIN,    RIPTIDE_EUNKNOWN, RIPTIDE_ETIMEDOUT,
	RIPTIDE_ENOAGENT,     RIPTIDE_EBACKEND, RIPTIDE_ENOMEM,    RIPTIDE_ESTALE,   RIPTIDE_EVOID,
	RIPTIDE_ECORRUPT,     RIPTIDE_EFORMAT,  RIPTIDE_EPROTOCOL, RIPTIDE_ESYSTEM,  RIPTIDE_EFULL,
	RIPTIDE_ENODICT,      RIPTIDE_EQUOTA,   RIPTIDE_ELIMITED,  RIPTIDE_ENOKEY,
};
#define ERRORS (sizeof(errors) / sizeof(errors[0]))

/* The strings that the system's metrics and logs know. */
static const char *const categories[] = {
	"redis",          "serialization", "compression", "configuration", "cache",   "state",   "tenant",
	"sync",           "coordination",  "performance", "security",      "quota",   "timeout", "tenant_access",
	"data_integrity", "filesystem",    "watch",       "metrics",       "generic", "riptide",
};

static void every_code_has_a_text_of_its_own(void **state)
{
	(void)state;
	for (size_t i = 0; i < ERRORS; i++) {
		assert_string_not_equal(riptide_strerror(errors[i]), "unknown error");
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(riptide_strerror(errors[i]), riptide_strerror(errors[j]));
	}
	assert_string_equal(riptide_strerror(-9999), "unknown error");
	assert_string_equal(riptide_strerror(RIPTIDE_OK), "no error");
}

static void categories_are_those_of_the_metrics(void **state)
{
	(void)state;
	for (size_t i = 0; i < ERRORS; i++) {
		int known = 0;

		for (size_t j = 0; j < sizeof(categories) / sizeof(categories[0]); j++)
			known |= strcmp(categories[j], riptide_error_category(errors[i])) == 0;
		assert_true(known);
	}
	assert_string_equal(riptide_error_category(RIPTIDE_EBACKEND), "redis");
	assert_string_equal(riptide_error_category(RIPTIDE_ETIMEDOUT), "timeout");
	assert_string_equal(riptide_error_category(RIPTIDE_ECORRUPT), "data_integrity");
	assert_string_equal(riptide_error_category(RIPTIDE_ENOTENANT), "tenant_access");
	assert_string_equal(riptide_error_category(RIPTIDE_EQUOTA), "quota");
}

static void exactly_passing_trouble_is_retryable(void **state)
{
	(void)state;
	for (size_t i = 0; i < ERRORS; i++) {
		int expected = errors[i] == RIPTIDE_EBACKEND || errors[i] == RIPTIDE_ETIMEDOUT ||
			       errors[i] == RIPTIDE_EAGAIN || errors[i] == RIPTIDE_ENOAGENT ||
			       errors[i] == RIPTIDE_ELIMITED;

		assert_int_equal(riptide_error_is_retryable(errors[i]), expected);
	}
	assert_int_equal(riptide_error_is_retryable(RIPTIDE_OK), 0);
	assert_int_equal(riptide_error_is_retryable(RIPTIDE_MISS), 0);
}

static void the_version_is_the_headers(void **state)
{
	(void)state;
	assert_string_equal(riptide_version(), RIPTIDE_VERSION);
}

static void last_error_fits_any_buffer(void **state)
{
	struct riptide_options options = {.size = sizeof(options), .socket = "/nowhere/riptide.sock"};
	char text[300], small[10];
	riptide *handle;

	(void)state;
	assert_int_equal(riptide_open(&options, &handle), RIPTIDE_ENOAGENT);
	memset(small, 'x', sizeof(small));
	assert_int_equal(riptide_last_error(handle, small, sizeof(small)), RIPTIDE_ENOAGENT);
	assert_string_equal(small, "open: the");
	assert_int_equal(riptide_last_error(handle, text, sizeof(text)), RIPTIDE_ENOAGENT);
	assert_non_null(strstr(text, "/nowhere/riptide.sock"));
	assert_int_equal(riptide_last_error(handle, NULL, 0), RIPTIDE_ENOAGENT);
	assert_int_equal(riptide_last_error(handle, NULL, 1), RIPTIDE_EINVALID);
	assert_int_equal(riptide_last_error(NULL, text, 1), RIPTIDE_EINVALID);
	riptide_close(&handle);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code_has_a_text_of_its_own),
		cmocka_unit_test(categories_are_those_of_the_metrics),
		cmocka_unit_test(exactly_passing_trouble_is_retryable),
		cmocka_unit_test(the_version_is_the_headers),
		cmocka_unit_test(last_error_fits_any_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
