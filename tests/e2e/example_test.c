/* example_test.c - the example of tenants prints what the documentation says that it prints. */
#include <sys/wait.h>

#include "tests/e2e/both_stores.h"

static const char *const *both_settings(void)
{
	static const char *settings[] = {"cache.segment_initial_bytes=1M", NULL};

	return settings;
}

/* The fenced part of a page, the caller's to free(). */
static char *fenced(const char *path)
{
	char *page = calloc(1, 64 << 10), *begin, *end;
	FILE *file = fopen(path, "r");

	assert_non_null(page);
	assert_non_null(file);
	assert_true(fread(page, 1, (64 << 10) - 1, file) > 0);
	fclose(file);
	begin = strstr(page, "```\n");
	assert_non_null(begin);
	end = strstr(begin + 4, "```");
	assert_non_null(end);
	*end = '\0';
	memmove(page, begin + 4, strlen(begin + 4) + 1);
	return page;
}

static void the_example_of_tenants_prints_what_its_page_shows(void **state)
{
	struct fixture *f = both_fixture(state);
	const char *build = getenv("RIPTIDE_BUILD_DIR"), *source = getenv("RIPTIDE_SOURCE_DIR");
	char command[600], path[400], printed[8192];
	char *shown;
	size_t length;
	FILE *pipe;
	int status;

	snprintf(path, sizeof(path), "%s/client-lib/examples/README.md", source ? source : ".");
	snprintf(command, sizeof(command), "RIPTIDE_SOCKET=%s %s/examples/tenants 2>&1", f->agent.socket,
		 build ? build : "build");
	pipe = popen(command, "r");
	assert_non_null(pipe);
	length = fread(printed, 1, sizeof(printed) - 1, pipe);
	printed[length] = '\0';
	status = pclose(pipe);
	shown = fenced(path);
	assert_string_equal(printed, shown);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	free(shown);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(the_example_of_tenants_prints_what_its_page_shows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
