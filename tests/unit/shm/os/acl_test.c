/* acl_test.c - what the ACL itself says, and to whom. map_test.c looks at it from the side of those who open. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <acl/libacl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/acl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/msg.h"
#include "shm/os/acl.h"
#include "shm/os/map.h"

#define FIRST_UID 61111
#define SECOND_UID 61112
#define OTHER_UID 61113

struct fixture {
	char name[RSHM_NAME_MAX];
	struct rshm_map map;
	int fd;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	snprintf(f->name, sizeof(f->name), "/riptide.acltest.%ld", (long)getpid());
	*state = f;
	return rshm_map_create(f->name, RSHM_PAGE, &f->map, &f->fd);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rshm_unmap(&f->map);
	close(f->fd);
	(void)rshm_unlink(f->name);
	free(f);
	return 0;
}

static void assert_acl_is(const struct fixture *f, const char *wanted)
{
	acl_t acl = acl_get_fd(f->fd);
	char *text;

	assert_non_null(acl);
	text = acl_to_text(acl, NULL);
	assert_non_null(text);
	assert_string_equal(text, wanted);
	acl_free(text);
	acl_free(acl);
}

static mode_t mode_of(const struct fixture *f)
{
	struct stat st;

	assert_int_equal(fstat(f->fd, &st), 0);
	return st.st_mode & 07777;
}

static void fresh_object_is_its_owners_alone(void **state)
{
	assert_int_equal(mode_of(*state), 0600);
	assert_acl_is(*state, "user::rw-\ngroup::---\nother::---\n");
}

static void grant_names_each_user_and_group_to_read(void **state)
{
	const uid_t users[] = {FIRST_UID, SECOND_UID};
	const gid_t groups[] = {OTHER_UID};
	struct fixture *f = *state;

	assert_int_equal(rshm_acl_grant(f->fd, users, 2, groups, 1), RSHM_OK);
	assert_acl_is(
		f, "user::rw-\nuser:61111:r--\nuser:61112:r--\ngroup::---\ngroup:61113:r--\nmask::r--\nother::---\n");
}

static void next_grant_takes_the_place_of_the_one_before(void **state)
{
	const uid_t first = FIRST_UID, second = SECOND_UID;
	struct fixture *f = *state;

	assert_int_equal(rshm_acl_grant(f->fd, &first, 1, NULL, 0), RSHM_OK);
	assert_int_equal(rshm_acl_grant(f->fd, &second, 1, NULL, 0), RSHM_OK);
	assert_acl_is(f, "user::rw-\nuser:61112:r--\ngroup::---\nmask::r--\nother::---\n");
	assert_int_equal(rshm_acl_grant(f->fd, NULL, 0, NULL, 0), RSHM_OK);
	assert_acl_is(f, "user::rw-\ngroup::---\nother::---\n");
	assert_int_equal(mode_of(f), 0600);
}

static void many_users_have_room(void **state)
{
	enum { USERS = 200 };
	struct fixture *f = *state;
	uid_t users[USERS];
	acl_t acl;

	for (unsigned int i = 0; i < USERS; i++)
		users[i] = 50000 + i;
	assert_int_equal(rshm_acl_grant(f->fd, users, USERS, NULL, 0), RSHM_OK);
	acl = acl_get_fd(f->fd);
	assert_non_null(acl);
	assert_int_equal(acl_entries(acl), USERS + 4);
	acl_free(acl);
}

static void file_without_acls_is_an_error_that_says_why(void **state)
{
	const uid_t user = FIRST_UID;
	int pipes[2];

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	errno = 0;
	assert_int_equal(rshm_acl_grant(pipes[0], &user, 1, NULL, 0), RSHM_E_SYSTEM);
	assert_int_equal(errno, ENOTSUP);
	close(pipes[0]);
	close(pipes[1]);
	assert_int_equal(rshm_acl_grant(pipes[0], &user, 1, NULL, 0), RSHM_E_SYSTEM);
	assert_int_equal(errno, EBADF);
}

/* What user `uid` with group `gid` can do with the object: bit 0 read, bit 1 read and write. */
static int access_of(const struct fixture *f, uid_t uid, gid_t gid)
{
	pid_t pid = fork();
	int code = -1;

	assert_true(pid >= 0);
	if (pid == 0) {
		if (setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
			_exit(100);
		_exit((shm_open(f->name, O_RDONLY, 0) >= 0 ? 1 : 0) | (shm_open(f->name, O_RDWR, 0) >= 0 ? 2 : 0));
	}
	assert_int_equal(waitpid(pid, &code, 0), pid);
	return WIFEXITED(code) ? WEXITSTATUS(code) : -1;
}

static void granted_users_and_groups_read_and_nobody_else(void **state)
{
	const uid_t user = FIRST_UID;
	const gid_t group = SECOND_UID;
	struct fixture *f = *state;

	if (geteuid() != 0)
		skip();
	assert_int_equal(access_of(f, FIRST_UID, FIRST_UID), 0);
	assert_int_equal(rshm_acl_grant(f->fd, &user, 1, &group, 1), RSHM_OK);
	assert_int_equal(access_of(f, FIRST_UID, FIRST_UID), 1);
	assert_int_equal(access_of(f, OTHER_UID, SECOND_UID), 1);
	assert_int_equal(access_of(f, OTHER_UID, OTHER_UID), 0);
	assert_int_equal(access_of(f, SECOND_UID, OTHER_UID), 0); /* the number was granted as a group */
	assert_int_equal(rshm_acl_grant(f->fd, NULL, 0, NULL, 0), RSHM_OK);
	assert_int_equal(access_of(f, FIRST_UID, FIRST_UID), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(fresh_object_is_its_owners_alone),
		CASE(grant_names_each_user_and_group_to_read),
		CASE(next_grant_takes_the_place_of_the_one_before),
		CASE(many_users_have_room),
		CASE(file_without_acls_is_an_error_that_says_why),
		CASE(granted_users_and_groups_read_and_nobody_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
