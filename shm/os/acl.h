/* acl.h - who besides its owner may read a named object. Agent only: the client library does not link libacl. */
#ifndef RSHM_OS_ACL_H
#define RSHM_OS_ACL_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Gives read permission to exactly these users and groups, by a POSIX ACL set once on a fresh object of mode 0600 (a later
 * fchmod would rewrite the ACL's mask). May be called again with another set. RSHM_E_SYSTEM with errno; ENOTSUP: the file
 * system has no ACLs.
 */
int rshm_acl_grant(int fd, const uid_t *users, size_t user_count, const gid_t *groups, size_t group_count);

/* Does the object grant exactly that? Also false if it cannot be found out. */
int rshm_acl_is(int fd, const uid_t *users, size_t user_count, const gid_t *groups, size_t group_count);

#endif
