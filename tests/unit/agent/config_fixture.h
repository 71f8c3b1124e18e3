/* config_fixture.h - a folder of configuration files that a test writes, and loading them. Removed when the test ends. */
#ifndef CONFIG_FIXTURE_H
#define CONFIG_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ftw.h>

#include <cmocka.h>

#include "agent/config.h"
#include "shm/msg.h"

#define SHIPPED_FILE "conf/riptide.conf"

static char folder[64];
static char err[CONFIG_ERROR_MAX];

static int folder_make(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/riptide-config-XXXXXX");
	return mkdtemp(folder) != NULL ? 0 : -1;
}

static int folder_remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
	(void)info;
	(void)type;
	(void)walk;
	return remove(path);
}

static int folder_remove(void **state)
{
	(void)state;
	return nftw(folder, folder_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#define folder_test(f) cmocka_unit_test_setup_teardown(f, folder_make, folder_remove)

/* The path of a name in the folder; valid until the eighth next call. */
__attribute__((unused)) static const char *path_of(const char *name)
{
	static char paths[8][256];
	static unsigned next;
	char *path = paths[next++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

__attribute__((unused)) static const char *write_bytes(const char *name, const char *bytes, size_t length)
{
	const char *path = path_of(name);
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
	return path;
}

__attribute__((unused)) static const char *write_file(const char *name, const char *text)
{
	return write_bytes(name, text, strlen(text));
}

/* The whole of a file, NUL-terminated; the caller frees it. */
__attribute__((unused)) static char *read_whole(const char *path, size_t *ret_length)
{
	FILE *file = fopen(path, "r");
	char *bytes = malloc(1 << 20);
	size_t length;

	assert_non_null(file);
	assert_non_null(bytes);
	length = fread(bytes, 1, (1 << 20) - 1, file);
	assert_int_equal(fclose(file), 0);
	bytes[length] = '\0';
	if (ret_length != NULL)
		*ret_length = length;
	return bytes;
}

__attribute__((unused)) static struct config *load(const char *path, const char *const *environment)
{
	struct config_sources sources = {.file = path, .environment = environment};
	struct config *config = NULL;
	int status = config_load(&sources, &config, err, sizeof(err));

	if (status != RSHM_OK)
		print_error("%s\n", err);
	assert_int_equal(status, RSHM_OK);
	assert_non_null(config);
	return config;
}

/* The error of a load that must fail. */
__attribute__((unused)) static const char *load_error(const char *path, const char *const *environment)
{
	struct config_sources sources = {.file = path, .environment = environment};
	struct config *config = NULL;

	assert_int_equal(config_load(&sources, &config, err, sizeof(err)), RSHM_E_INVALID);
	assert_null(config);
	assert_null(strchr(err, '\n'));
	return err;
}

/* A file of that text fails with "<folder>/t.conf<rest>" as its whole message. */
__attribute__((unused)) static void check_error(const char *text, const char *rest)
{
	char expected[CONFIG_ERROR_MAX];
	const char *path = write_file("t.conf", text);

	snprintf(expected, sizeof(expected), "%s%s", path, rest);
	assert_string_equal(load_error(path, NULL), expected);
}

/* The same, but only the beginning of the message is given. */
__attribute__((unused)) static void check_error_begins(const char *text, const char *rest)
{
	char expected[CONFIG_ERROR_MAX];
	const char *path = write_file("t.conf", text);

	snprintf(expected, sizeof(expected), "%s%s", path, rest);
	load_error(path, NULL);
	if (strncmp(err, expected, strlen(expected)) != 0)
		assert_string_equal(err, expected);
}

/* Removes the # before every default and the example of a tenant, so that all options are in force. Keeps the length. */
__attribute__((unused)) static void uncomment(char *text)
{
	for (char *line = text; line != NULL && *line != '\0'; line = strchr(line, '\n')) {
		char *hash = line + strspn(line, "\n\t");

		if (hash[0] == '#' && ((hash[1] >= 'a' && hash[1] <= 'z') || hash[1] == '\t' || hash[1] == '}'))
			*hash = ' ';
		line = hash;
	}
}

/* What config_print() says; the caller frees it. */
__attribute__((unused)) static char *printed(const struct config *config)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	assert_true(config_print(config, out));
	assert_int_equal(fclose(out), 0);
	return text;
}

#endif
