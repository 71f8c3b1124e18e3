/* map_test.c - shared objects: who may have them, what is refused, what is left behind. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/os/acl.h"
#include "shm/os/map.h"

#define OTHER_UID 61111
#define THIRD_UID 61112

static char name[RSHM_NAME_MAX];

static int setup(void **state)
{
	(void)state;
	snprintf(name, sizeof(name), "/riptide.maptest.%ld", (long)getpid());
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	(void)rshm_unlink(name);
	return 0;
}

/* Runs `check` as another user in a child; its status is the child's. */
static int as_user(uid_t uid, int (*check)(void))
{
	pid_t pid = fork();
	int code = -1;

	if (pid == 0) {
		if (uid != geteuid() && (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0))
			_exit(100);
		_exit(check());
	}
	waitpid(pid, &code, 0);
	return WIFEXITED(code) ? WEXITSTATUS(code) : 101;
}

static void only_names_of_ours_are_valid(void **state)
{
	char longest[200];

	(void)state;
	assert_true(rshm_name_is_valid("/riptide.default.0123abcd"));
	assert_false(rshm_name_is_valid("/riptide./../etc"));
	assert_false(rshm_name_is_valid("/other.default"));
	assert_false(rshm_name_is_valid("riptide.default"));
	assert_false(rshm_name_is_valid("/riptide.a b"));
	assert_false(rshm_name_is_valid(""));
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "/riptide.", 9);
	longest[199] = '\0';
	assert_false(rshm_name_is_valid(longest));
}

static void object_is_made_once_and_read_by_its_size_and_owner(void **state)
{
	struct rshm_map map, reader, again;
	int fd, fd2;

	(void)state;
	assert_int_equal(rshm_map_create(name, 8192, &map, &fd), RSHM_OK);
	assert_int_equal(rshm_map_create(name, 8192, &again, &fd2), RSHM_E_SYSTEM);
	assert_int_equal(errno, EEXIST);
	strcpy(map.base, "hello");
	assert_int_equal(rshm_map_read(name, 4096, geteuid(), &reader), RSHM_E_CORRUPT);
	assert_int_equal(rshm_map_read(name, 8192, geteuid() + 1, &reader), RSHM_E_DENIED);
	assert_int_equal(rshm_map_read(name, 8192, geteuid(), &reader), RSHM_OK);
	assert_string_equal(reader.base, "hello");
	assert_int_equal(mprotect(reader.base, 4096, PROT_READ | PROT_WRITE), -1);
	assert_int_equal(rshm_unlink(name), RSHM_OK);
	assert_int_equal(rshm_unlink(name), RSHM_E_CLOSED);
	assert_int_equal(rshm_map_read(name, 8192, geteuid(), &again), RSHM_E_CLOSED);
	assert_string_equal(reader.base, "hello"); /* who has it keeps it */
	rshm_unmap(&reader);
	rshm_unmap(&map);
	close(fd);
}

static void large_object_begins_at_a_huge_page(void **state)
{
	struct rshm_map map;
	int fd;

	(void)state;
	assert_int_equal(rshm_map_create(name, (5u << 20) + 4096, &map, &fd), RSHM_OK);
	assert_int_equal((uintptr_t)map.base % (2u << 20), 0);
	memset(map.base, 1, map.size);
	rshm_unmap(&map);
	close(fd);
}

static void channel_is_sealed_and_nothing_else_is_taken_for_one(void **state)
{
	struct rshm_map map, client;
	int fd, plain = memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	(void)state;
	assert_int_equal(rshm_map_create_channel(&map, &fd), RSHM_OK);
	assert_int_equal(ftruncate(fd, 4096), -1);
	assert_int_equal(ftruncate(fd, 1 << 20), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_int_equal(rshm_map_channel(fd, &client), RSHM_OK);
	assert_int_equal(ftruncate(plain, sizeof(struct rshm_channel)), 0);
	assert_int_equal(rshm_map_channel(plain, &client), RSHM_E_PROTOCOL);
	assert_int_equal(fcntl(plain, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	assert_int_equal(rshm_map_channel(plain, &map), RSHM_OK);
	assert_int_equal(rshm_map_channel(STDIN_FILENO, &map), RSHM_E_PROTOCOL);
	close(plain);
	close(fd);
}

static int open_fails(void)
{
	struct rshm_map map;

	return rshm_map_read(name, 8192, 0, &map) == RSHM_E_DENIED && shm_open(name, O_RDONLY, 0) < 0 ? 0 : 1;
}

static int open_reads_only(void)
{
	struct rshm_map map;

	if (rshm_map_read(name, 8192, 0, &map) != RSHM_OK || strcmp(map.base, "secret") != 0)
		return 1;
	if (mprotect(map.base, 4096, PROT_READ | PROT_WRITE) == 0 || shm_open(name, O_RDWR, 0) >= 0)
		return 2;
	return shm_unlink(name) == 0 ? 3 : 0;
}

static void other_users_read_what_the_acl_grants_and_nothing_more(void **state)
{
	const uid_t users[] = {OTHER_UID};
	struct rshm_map map;
	int fd;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(rshm_map_create(name, 8192, &map, &fd), RSHM_OK);
	strcpy(map.base, "secret");
	assert_int_equal(as_user(OTHER_UID, open_fails), 0);
	assert_int_equal(rshm_acl_grant(fd, users, 1, NULL, 0), RSHM_OK);
	assert_int_equal(as_user(OTHER_UID, open_reads_only), 0);
	assert_int_equal(as_user(THIRD_UID, open_fails), 0);
	assert_int_equal(rshm_acl_grant(fd, NULL, 0, users, 1), RSHM_OK); /* the same number as a group */
	assert_int_equal(as_user(OTHER_UID, open_reads_only), 0);
	assert_int_equal(rshm_acl_grant(fd, NULL, 0, NULL, 0), RSHM_OK);
	assert_int_equal(as_user(OTHER_UID, open_fails), 0);
	rshm_unmap(&map);
	close(fd);
}

static int squat(void)
{
	struct rshm_map map;
	int fd;

	return rshm_map_create(name, 8192, &map, &fd) == RSHM_OK && fchmod(fd, 0666) == 0 ? 0 : 1;
}

static void object_of_a_squatter_is_refused(void **state)
{
	struct rshm_map map;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(as_user(OTHER_UID, squat), 0);
	assert_int_equal(rshm_map_read(name, 8192, 0, &map), RSHM_E_DENIED);
	assert_int_equal(rshm_map_adopt(name, &map), RSHM_E_DENIED);
}

/* A FIFO of that name would hold up a plain open() until somebody writes: in a child, so that the test can end. */
static int read_fifo(void)
{
	struct rshm_map map;

	alarm(20);
	return rshm_map_read(name, 8192, geteuid(), &map) == RSHM_E_DENIED ? 0 : 1;
}

static void fifo_in_the_place_of_an_object_is_refused_at_once(void **state)
{
	char path[RSHM_NAME_MAX + 16];
	struct rshm_map map;
	int code;

	(void)state;
	snprintf(path, sizeof(path), "/dev/shm%s", name);
	assert_int_equal(mkfifo(path, 0600), 0);
	code = as_user(geteuid(), read_fifo);
	assert_int_equal(rshm_map_adopt(name, &map), RSHM_E_DENIED);
	assert_int_equal(code, 0);
}

/* In a mount namespace of its own, with a /dev/shm of 1 MiB. */
static int fill_small_shm(void)
{
	struct rshm_map map;
	int fd;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=1M") < 0)
		return 77;
	if (rshm_map_create(name, 8u << 20, &map, &fd) != RSHM_E_NOMEM)
		return 1;
	if (access("/dev/shm", F_OK) < 0 || rshm_unlink(name) != RSHM_E_CLOSED)
		return 2;
	return rshm_map_create(name, 64u << 10, &map, &fd) == RSHM_OK ? 0 : 3;
}

static void full_shared_memory_is_an_error_code_and_leaves_nothing(void **state)
{
	pid_t pid;
	int code;

	(void)state;
	if (geteuid() != 0)
		skip();
	pid = fork();
	if (pid == 0)
		_exit(fill_small_shm());
	waitpid(pid, &code, 0);
	if (WIFEXITED(code) && WEXITSTATUS(code) == 77)
		skip();
	assert_int_equal(code, 0);
}

static void boot_id_and_clock_are_there(void **state)
{
	uint8_t first[16], second[16];
	uint64_t before = rshm_now_ms();

	(void)state;
	assert_int_equal(rshm_boot_id(first), RSHM_OK);
	assert_int_equal(rshm_boot_id(second), RSHM_OK);
	assert_memory_equal(first, second, 16);
	usleep(20000);
	assert_true(rshm_now_ms() > before);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(only_names_of_ours_are_valid),
		CASE(object_is_made_once_and_read_by_its_size_and_owner),
		CASE(large_object_begins_at_a_huge_page),
		CASE(channel_is_sealed_and_nothing_else_is_taken_for_one),
		CASE(other_users_read_what_the_acl_grants_and_nothing_more),
		CASE(object_of_a_squatter_is_refused),
		CASE(fifo_in_the_place_of_an_object_is_refused_at_once),
		CASE(full_shared_memory_is_an_error_code_and_leaves_nothing),
		CASE(boot_id_and_clock_are_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
