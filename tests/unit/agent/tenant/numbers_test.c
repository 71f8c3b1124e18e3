/* numbers_test.c - a tenant's short number is the same in every run, and a file that cannot be believed begins anew. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "agent/tenant/numbers.h"
#include "shm/msg.h"

struct place {
	char folder[32], path[64];
	struct tenant_numbers *numbers;
	char error[256];
};

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	strcpy(p->folder, "/tmp/riptide-numbers-XXXXXX");
	*state = p;
	if (sodium_init() < 0 || !mkdtemp(p->folder))
		return -1;
	snprintf(p->path, sizeof(p->path), "%s/tenants", p->folder);
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	tenant_numbers_close(&p->numbers);
	(void)unlink(p->path);
	(void)rmdir(p->folder);
	free(p);
	return 0;
}

static void reopen(struct place *p)
{
	tenant_numbers_close(&p->numbers);
	assert_int_equal(tenant_numbers_open(p->path, &p->numbers, p->error, sizeof(p->error)), RSHM_OK);
}

static uint32_t number(struct place *p, const char *id)
{
	uint32_t number = 0;

	assert_int_equal(tenant_numbers_get(p->numbers, id, &number), RSHM_OK);
	return number;
}

static void append(const struct place *p, const char *bytes)
{
	int fd = open(p->path, O_WRONLY | O_APPEND | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, strlen(bytes)), strlen(bytes));
	close(fd);
}

static void tenants_keep_their_numbers_in_any_order(void **state)
{
	struct place *p = *state;
	unsigned char before[TENANT_NUMBERS_IDENTITY_BYTES], after[TENANT_NUMBERS_IDENTITY_BYTES];
	struct stat st;

	reopen(p);
	tenant_numbers_identity(p->numbers, before);
	assert_int_equal(number(p, "red"), 1);
	assert_int_equal(number(p, "blue"), 2);
	assert_int_equal(number(p, "red"), 1);
	reopen(p);
	assert_int_equal(number(p, "amber"), 3);
	assert_int_equal(number(p, "blue"), 2);
	assert_int_equal(number(p, "red"), 1);
	tenant_numbers_identity(p->numbers, after);
	assert_memory_equal(before, after, sizeof(before));
	assert_int_equal(stat(p->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void half_a_line_was_never_used_and_is_cut_off(void **state)
{
	struct place *p = *state;

	reopen(p);
	assert_int_equal(number(p, "red"), 1);
	append(p, "a-long-name-of-a-tenant-that-a-cra");
	reopen(p);
	assert_int_equal(number(p, "blue"), 2);
	reopen(p);
	assert_int_equal(number(p, "red"), 1);
	assert_int_equal(number(p, "blue"), 2);
	assert_int_equal(number(p, "a"), 3);
}

static void a_damaged_file_begins_anew_under_another_identity(void **state)
{
	static const char *const damages[] = {"../etc\n", "UPPER\n", "\n", "nul\xff\n"};
	unsigned char before[TENANT_NUMBERS_IDENTITY_BYTES], after[TENANT_NUMBERS_IDENTITY_BYTES];
	struct place *p = *state;

	reopen(p);
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		assert_int_equal(number(p, "red"), 1);
		tenant_numbers_identity(p->numbers, before);
		append(p, damages[i]);
		reopen(p);
		tenant_numbers_identity(p->numbers, after);
		assert_memory_not_equal(before, after, sizeof(before));
		assert_int_equal(number(p, "blue"), 1);
		assert_int_equal(number(p, "red"), 2);
		assert_int_equal(unlink(p->path), 0);
		reopen(p);
	}
}

static void what_is_no_file_of_ours_is_refused_or_replaced(void **state)
{
	struct place *p = *state;
	int fd;

	assert_int_equal(symlink("/etc/passwd", p->path), 0);
	assert_int_equal(tenant_numbers_open(p->path, &p->numbers, p->error, sizeof(p->error)), RSHM_E_SYSTEM);
	assert_non_null(strstr(p->error, p->path));
	assert_int_equal(unlink(p->path), 0);
	fd = open(p->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "riptide-tenants 2 ", 18), 18);
	close(fd);
	reopen(p);
	assert_int_equal(number(p, "red"), 1);
}

static void without_room_on_the_disk_no_number_is_given(void **state)
{
	struct place *p = *state;
	struct rlimit old, none;
	struct stat st;
	uint32_t ignored = 77;
	int status;

	reopen(p);
	assert_int_equal(number(p, "red"), 1);
	assert_int_equal(stat(p->path, &st), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	none = (struct rlimit){.rlim_cur = (rlim_t)st.st_size + 2, .rlim_max = old.rlim_max};
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	status = tenant_numbers_get(p->numbers, "blue", &ignored);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(status, RSHM_E_SYSTEM);
	assert_int_equal(ignored, 77);
	assert_int_equal(number(p, "amber"), 2);
	reopen(p);
	assert_int_equal(number(p, "amber"), 2);
	assert_int_equal(number(p, "blue"), 3);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(tenants_keep_their_numbers_in_any_order),
		CASE(half_a_line_was_never_used_and_is_cut_off),
		CASE(a_damaged_file_begins_anew_under_another_identity),
		CASE(what_is_no_file_of_ours_is_refused_or_replaced),
		CASE(without_room_on_the_disk_no_number_is_given),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
