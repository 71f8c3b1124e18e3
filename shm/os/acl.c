/* acl.c - builds the ACL u::rw-, g::---, o::---, m::r--, and one r-- entry per user and group. */
#include "shm/os/acl.h"

#include <acl/libacl.h>
#include <errno.h>
#include <sys/acl.h>

#include "shm/msg.h"

static int add_entry(acl_t *acl, acl_tag_t tag, const void *qualifier, int read, int write)
{
	acl_entry_t entry;
	acl_permset_t permissions;

	if (acl_create_entry(acl, &entry) < 0 || acl_set_tag_type(entry, tag) < 0)
		return -1;
	if (qualifier && acl_set_qualifier(entry, qualifier) < 0)
		return -1;
	if (acl_get_permset(entry, &permissions) < 0 || acl_clear_perms(permissions) < 0)
		return -1;
	if (read && acl_add_perm(permissions, ACL_READ) < 0)
		return -1;
	if (write && acl_add_perm(permissions, ACL_WRITE) < 0)
		return -1;
	return acl_set_permset(entry, permissions);
}

static int fill(acl_t *acl, const uid_t *users, size_t user_count, const gid_t *groups, size_t group_count)
{
	if (add_entry(acl, ACL_USER_OBJ, NULL, 1, 1) < 0 || add_entry(acl, ACL_GROUP_OBJ, NULL, 0, 0) < 0 ||
	    add_entry(acl, ACL_OTHER, NULL, 0, 0) < 0)
		return -1;
	for (size_t i = 0; i < user_count; i++)
		if (add_entry(acl, ACL_USER, &users[i], 1, 0) < 0)
			return -1;
	for (size_t i = 0; i < group_count; i++)
		if (add_entry(acl, ACL_GROUP, &groups[i], 1, 0) < 0)
			return -1;
	if (user_count + group_count == 0)
		return 0;
	return add_entry(acl, ACL_MASK, NULL, 1, 0);
}

int rshm_acl_grant(int fd, const uid_t *users, size_t user_count, const gid_t *groups, size_t group_count)
{
	acl_t acl = acl_init((int)(user_count + group_count) + 4);
	int failed, saved;

	if (!acl)
		return RSHM_E_NOMEM;
	failed = fill(&acl, users, user_count, groups, group_count) < 0 || acl_set_fd(fd, acl) < 0;
	saved = errno;
	acl_free(acl);
	errno = saved;
	return failed ? RSHM_E_SYSTEM : RSHM_OK;
}

int rshm_acl_is(int fd, const uid_t *users, size_t user_count, const gid_t *groups, size_t group_count)
{
	acl_t wanted = acl_init((int)(user_count + group_count) + 4), present = acl_get_fd(fd);
	int same = wanted && present && fill(&wanted, users, user_count, groups, group_count) == 0 &&
		   acl_cmp(present, wanted) == 0;

	if (wanted)
		acl_free(wanted);
	if (present)
		acl_free(present);
	return same;
}
