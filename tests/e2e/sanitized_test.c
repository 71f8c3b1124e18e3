/*
 * sanitized_test.c - an application built with sanitizers that uses the ordinary shared library, as it is installed: the
 * example to copy, compiled here with -fsanitize=address,undefined, against a real agent.
 *
 * The library is in no way instrumented, so what is found is what crosses its boundary: memory that it gives out, takes
 * back, or writes into beyond what it was told, in a process that forks.
 */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/e2e/both_stores.h"

#define WORKERS 3
#define REQUESTS 100000ul /* of each worker, see cache_aside.c */
#define DOCUMENTS 20

static char folder[] = "/tmp/riptide-sanitized.XXXXXX";

static const char *const *both_settings(void)
{
	static const char *const settings[] = {NULL};

	return settings;
}

static const char *build_folder(void)
{
	const char *build = getenv("RIPTIDE_BUILD_DIR");

	return build ? build : "build";
}

/* Runs a command of the shell; its output is in the folder's `log`. */
__attribute__((format(printf, 1, 2))) static int run(const char *format, ...)
{
	char command[2048];
	va_list arguments;
	int length = snprintf(command, sizeof(command), "exec >%s/log 2>&1; ", folder), more;

	va_start(arguments, format);
	more = vsnprintf(command + length, sizeof(command) - (size_t)length, format, arguments);
	va_end(arguments);
	assert_true(more > 0 && (size_t)(length + more) < sizeof(command));
	return system(command);
}

static void read_log(char text[16384])
{
	char path[64];
	size_t length;
	FILE *file;

	snprintf(path, sizeof(path), "%s/log", folder);
	file = fopen(path, "re");
	assert_non_null(file);
	length = fread(text, 1, 16383, file);
	fclose(file);
	text[length] = '\0';
}

static void assert_ran(int status, const char *what)
{
	char text[16384];

	read_log(text);
	if (status != 0 || strstr(text, "Sanitizer") || strstr(text, "runtime error"))
		fail_msg("%s: status %#x\n%s", what, (unsigned int)status, text);
}

static int begin_all(void **state)
{
	char path[64];

	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/documents", folder);
	if (mkdir(path, 0700) < 0)
		return -1;
	for (int i = 0; i < DOCUMENTS; i++) {
		/* Of 1 B to 100 KB: in one piece and in several. */
		int length = i < 15 ? 1 << i : i < DOCUMENTS - 1 ? i : 100000;
		FILE *file;

		snprintf(path, sizeof(path), "%s/documents/%d", folder, i);
		file = fopen(path, "we");
		if (!file)
			return -1;
		for (int byte = 0; byte < length; byte++)
			fputc('a' + (byte + i) % 26, file);
		fclose(file);
	}
	return 0;
}

static int end_all(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

/* The library as it is installed: its own name, its header, and nothing else of the tree. */
static void build_example(void)
{
	const char *source = getenv("RIPTIDE_SOURCE_DIR");

	if (!source)
		source = ".";
	assert_ran(run("cp -P '%s'/libriptide.so '%s'/libriptide.so.0 %s", build_folder(), build_folder(), folder),
		   "copying the library");
	assert_ran(run("${CC:-cc} -g -O1 -Wall -Wextra -Werror -fsanitize=address,undefined "
		       "-fno-sanitize-recover=undefined -I '%s/client-lib/include' "
		       "'%s/client-lib/examples/cache_aside.c' -L %s -lriptide -Wl,-rpath,%s -o %s/cache_aside",
		       source, source, folder, folder, folder),
		   "building the example");
	/* What it loads is that library, and this one has no sanitizer in it. */
	assert_ran(run("ldd %s/cache_aside | grep -q 'libriptide.so.0 => %s/' && "
		       "ldd %s/cache_aside | grep -q libasan && ! nm -D %s/libriptide.so.0 | grep -q __asan",
		       folder, folder, folder, folder),
		   "looking at what it loads");
}

static void a_sanitized_application_finds_nothing_in_the_plain_library(void **state)
{
	struct fixture *f = both_fixture(state);
	char text[16384], *at = text;
	unsigned int workers = 0;

	build_example();
	/* The first one misses; the second one finds everything hot. */
	for (int round = 0; round < 2; round++) {
		assert_ran(run("RIPTIDE_SOCKET=%s %s/cache_aside %s/documents %d", f->agent.socket, folder, folder,
			       WORKERS),
			   "running the example");
		read_log(text);
		workers = 0;
		for (at = text; (at = strstr(at, "worker ")); at++) {
			unsigned long requests = 0, hits = 0;
			unsigned int number;

			assert_int_equal(sscanf(at, "worker %u: %lu requests, %lu hits", &number, &requests, &hits),
					 3);
			assert_int_equal(requests, REQUESTS);
			assert_in_range(hits, round == 0 ? REQUESTS - 10 * DOCUMENTS : REQUESTS, REQUESTS);
			workers++;
		}
		assert_int_equal(workers, WORKERS);
	}
	assert_true(e2e_await_exactly(&f->agent, "control.channels_open", 1, 5000));
	assert_int_equal(e2e_number(&f->agent, "workers.0.protocol_errors"), 0);
}

static void the_library_is_instrumented_itself(void **state)
{
	(void)state;
	print_message("a build with sanitizers has no ordinary library\n");
	skip();
}

int main(void)
{
	const char *sanitizer = getenv("RIPTIDE_SAN");
	const struct CMUnitTest tests[] = {
		BOTH_STORES(a_sanitized_application_finds_nothing_in_the_plain_library),
	};
	const struct CMUnitTest none[] = {cmocka_unit_test(the_library_is_instrumented_itself)};

	if (sanitizer && sanitizer[0])
		return cmocka_run_group_tests(none, NULL, NULL);
	return cmocka_run_group_tests(tests, begin_all, end_all);
}
