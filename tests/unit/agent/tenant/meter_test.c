#include "agent/tenant/meter.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/clock.h"
#include "shm/msg.h"

static char folder[64], path[96], error[300];

static int setup(void **state)
{
	(void)state;
	snprintf(folder, sizeof folder, "/tmp/riptide-meter-XXXXXX");
	if (sodium_init() < 0 || !mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/meter", folder);
	return 0;
}

/* Files in the folder whose names begin so; removes them if `remove_them`. */
static int files(const char *prefix, bool remove_them)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	int count = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		char name[400];

		if (entry->d_name[0] == '.' || strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		count++;
		snprintf(name, sizeof name, "%s/%s", folder, entry->d_name);
		if (remove_them)
			assert_int_equal(unlink(name), 0);
	}
	closedir(dir);
	return count;
}

static int teardown(void **state)
{
	(void)state;
	(void)files("", true);
	return rmdir(folder);
}

static struct meter *open_meter(uint32_t rows)
{
	struct meter *meter;

	if (meter_open(path, rows, &meter, error, sizeof error) != RSHM_OK)
		fail_msg("%s", error);
	return meter;
}

static size_t used(struct meter *meter)
{
	size_t count = 0;

	for (size_t i = 0; i < meter_capacity(meter); i++)
		count += meter_at(meter, i) != NULL;
	return count;
}

static void what_was_counted_is_there_again(void **state)
{
	struct meter *meter = open_meter(8);
	struct meter_row *row = meter_take(meter, "acme", "", 3600);
	char id[METER_ID_BYTES];

	(void)state;
	snprintf(id, sizeof id, "%s", meter_id(meter));
	assert_int_equal(strlen(id), METER_ID_BYTES - 1);
	meter_add(row, METER_OPERATIONS, 3);
	meter_add(row, METER_OPERATIONS, 4);
	meter_add(row, METER_BYTES_OUT, UINT64_MAX - 1);
	meter_add(row, METER_BYTES_OUT, 5);
	meter_add(meter_take(meter, "acme", "images", 3600), METER_OPERATIONS, 9);
	meter_add(meter_take(meter, "acme", "", 7200), METER_OPERATIONS, 1);
	meter_close(&meter);
	assert_null(meter);
	meter = open_meter(8);
	assert_string_equal(meter_id(meter), id);
	assert_int_equal(used(meter), 3);
	row = meter_take(meter, "acme", "", 3600);
	assert_int_equal(used(meter), 3);
	assert_string_equal(meter_row_tenant(row), "acme");
	assert_string_equal(meter_row_resource(row), "");
	assert_int_equal(meter_row_interval(row), 3600);
	assert_int_equal(meter_row_value(row, METER_OPERATIONS), 7);
	assert_int_equal(meter_row_value(row, METER_BYTES_OUT), UINT64_MAX);
	assert_int_equal(meter_row_value(meter_take(meter, "acme", "images", 3600), METER_OPERATIONS), 9);
	meter_release(row);
	assert_int_equal(used(meter), 2);
	/* A new one begins at zero. */
	assert_int_equal(meter_row_value(meter_take(meter, "acme", "", 3600), METER_OPERATIONS), 0);
	meter_close(&meter);
}

static void a_full_meter_says_so_and_grows_when_asked(void **state)
{
	struct meter *meter = open_meter(4);
	char long_name[METER_NAME_MAX + 2], id[METER_ID_BYTES];

	(void)state;
	memset(long_name, 'a', sizeof long_name - 1);
	long_name[sizeof long_name - 1] = '\0';
	assert_null(meter_take(meter, long_name, "", 0));
	assert_null(meter_take(meter, "a", long_name, 0));
	long_name[METER_NAME_MAX] = '\0';
	assert_non_null(meter_take(meter, long_name, long_name, 0));
	for (uint64_t i = 1; i < 4; i++)
		meter_add(meter_take(meter, "a", "", i), METER_OPERATIONS, i);
	assert_null(meter_take(meter, "a", "", 4));
	assert_non_null(meter_take(meter, "a", "", 3));
	snprintf(id, sizeof id, "%s", meter_id(meter));
	meter_close(&meter);
	meter = open_meter(100);
	assert_int_equal(meter_capacity(meter), 100);
	assert_string_equal(meter_id(meter), id);
	assert_int_equal(used(meter), 4);
	assert_int_equal(meter_row_value(meter_take(meter, "a", "", 3), METER_OPERATIONS), 3);
	assert_non_null(meter_take(meter, "a", "", 4));
	meter_close(&meter);
	/* It never loses rows by being asked for fewer. */
	meter = open_meter(2);
	assert_int_equal(meter_capacity(meter), 100);
	assert_int_equal(used(meter), 5);
	meter_close(&meter);
}

struct acknowledged {
	uint64_t operations[3], amounts[3];
};

/* Counts for ever, and says of each that it has. */
static void count_on(struct acknowledged *told, unsigned int seed)
{
	static const char *const resources[] = {"", "images", "mails"};
	struct meter *meter;

	if (meter_open(path, 16, &meter, error, sizeof error) != RSHM_OK)
		_exit(1);
	for (uint64_t n = 0;; n++) {
		int which = (int)(seed++ % 3);
		struct meter_row *row = meter_take(meter, "acme", resources[which], 3600);

		meter_add(row, METER_OPERATIONS, 1);
		__atomic_fetch_add(&told->operations[which], 1, __ATOMIC_SEQ_CST);
		meter_add(row, METER_BYTES_IN, n % 1000);
		__atomic_fetch_add(&told->amounts[which], n % 1000, __ATOMIC_SEQ_CST);
		/* Rows come and go beside. */
		row = meter_take(meter, "other", "", n);
		if (row)
			meter_release(row);
	}
}

static void a_killed_process_loses_nothing(void **state)
{
	struct acknowledged *told =
		mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	static const char *const resources[] = {"", "images", "mails"};
	const int kills = 200;
	struct meter *meter;

	(void)state;
	assert_true(told != MAP_FAILED);
	srandom(11);
	for (int i = 0; i < kills; i++) {
		unsigned int seed = (unsigned int)random();
		useconds_t life_us = 500 + (useconds_t)random() % 4000;
		pid_t pid = fork();
		int status;

		assert_true(pid >= 0);
		if (pid == 0)
			count_on(told, seed);
		usleep(life_us);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
	}
	meter = open_meter(16);
	for (int i = 0; i < 3; i++) {
		struct meter_row *row = meter_take(meter, "acme", resources[i], 3600);

		/* Each kill may have come between counting and saying so. */
		assert_in_range(meter_row_value(row, METER_OPERATIONS), told->operations[i],
				told->operations[i] + (uint64_t)kills);
		assert_in_range(meter_row_value(row, METER_BYTES_IN), told->amounts[i],
				told->amounts[i] + 1000 * (uint64_t)kills);
	}
	assert_true(told->operations[0] > 1000);
	/* At most the row that was being made or released is left. */
	assert_in_range(used(meter), 3, 3 + (size_t)kills);
	meter_close(&meter);
	munmap(told, sizeof *told);
}

static void flip(size_t at)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	unsigned char byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 0x81;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

static void a_damaged_head_is_put_aside(void **state)
{
	(void)state;
	for (size_t at = 0; at < 64; at++) {
		struct meter *meter = open_meter(4);

		assert_non_null(meter_take(meter, "acme", "", 1));
		meter_close(&meter);
		flip(at);
		meter = open_meter(4);
		assert_int_equal(used(meter), 0);
		meter_close(&meter);
		assert_int_equal(files("meter.damaged-", true), 1);
	}
}

static void a_damaged_row_is_dropped_and_no_other(void **state)
{
	(void)state;
	for (size_t at = 0; at < 208; at++) {
		struct meter *meter = open_meter(4);
		struct meter_row *row;
		size_t left;

		for (size_t i = 0; i < meter_capacity(meter); i++)
			if (meter_at(meter, i))
				meter_release(meter_at(meter, i));
		for (uint64_t i = 0; i < 4; i++)
			meter_add(meter_take(meter, "acme", "r", i), METER_OPERATIONS, i + 1);
		meter_close(&meter);
		flip(64 + 208 + at);
		meter = open_meter(4);
		left = used(meter);
		assert_in_range(left, 3, 4);
		for (size_t i = 0; i < meter_capacity(meter); i++) {
			row = meter_at(meter, i);
			if (!row)
				continue;
			assert_true(strlen(meter_row_tenant(row)) <= METER_NAME_MAX);
			assert_true(strlen(meter_row_resource(row)) <= METER_NAME_MAX);
		}
		meter_close(&meter);
	}
}

static void what_is_no_meter_is_put_aside_and_short_files_too(void **state)
{
	static const size_t lengths[] = {0, 1, 63, 64, 64 + 207};
	struct meter *meter;

	(void)state;
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		meter = open_meter(4);
		meter_close(&meter);
		assert_int_equal(truncate(path, (off_t)lengths[i]), 0);
		meter = open_meter(4);
		assert_int_equal(used(meter), 0);
		meter_close(&meter);
		assert_int_equal(files("meter.damaged-", true), 1);
	}
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	meter = open_meter(4);
	meter_close(&meter);
	assert_int_equal(files("meter.damaged-", true), 1);
}

static void what_cannot_be_made_is_told(void **state)
{
	struct meter *meter;
	char nowhere[160];

	(void)state;
	snprintf(nowhere, sizeof nowhere, "%s/not-there/meter", folder);
	assert_int_equal(meter_open(nowhere, 4, &meter, error, sizeof error), RSHM_E_SYSTEM);
	assert_non_null(strstr(error, nowhere));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_counted_is_there_again),       TEST(a_full_meter_says_so_and_grows_when_asked),
		TEST(a_killed_process_loses_nothing),        TEST(a_damaged_head_is_put_aside),
		TEST(a_damaged_row_is_dropped_and_no_other), TEST(what_is_no_meter_is_put_aside_and_short_files_too),
		TEST(what_cannot_be_made_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
