/*
 * map.h - creating, opening and mapping shared objects: with futex.c and acl.c the only system calls of shm/.
 *
 * Named objects (agent object, segments) are made O_EXCL under random names and sized with posix_fallocate, for a hole in
 * a full tmpfs is a SIGBUS, not an error code. They are never truncated. Channels are memfds sealed against shrinking,
 * growing and further seals. No descriptor is kept open by readers: applications close descriptors they do not know.
 *
 * All functions return 0 or a negative enum rshm_status with errno telling the system's reason.
 */
#ifndef RSHM_OS_MAP_H
#define RSHM_OS_MAP_H

#include <stdint.h>
#include <sys/types.h>

#include "shm/layout.h"

#define RSHM_NAME_MAX 96u /* bytes of an object's name, NUL included */

struct rshm_map {
	void *base;
	uint64_t size;
};

/*
 * Creates an object of `size` zeroed, allocated bytes, mode 0600, mapped read-write. *ret_fd stays open for the ACL; the
 * caller closes it. RSHM_E_NOMEM: no room in /dev/shm (nothing is left behind); RSHM_E_SYSTEM otherwise.
 */
int rshm_map_create(const char *name, uint64_t size, struct rshm_map *ret, int *ret_fd);

/* Opens an object of ours read-write, to adopt it. RSHM_E_DENIED: not owned by this process's user, or no regular file. */
int rshm_map_adopt(const char *name, struct rshm_map *ret);

/*
 * Opens an object read-only. It must be owned by `owner` (as the kernel named the peer of the control socket) and be exactly
 * `size` bytes: RSHM_E_DENIED, RSHM_E_CORRUPT. RSHM_E_CLOSED: there is no such object (any more).
 */
int rshm_map_read(const char *name, uint64_t size, uid_t owner, struct rshm_map *ret);

/* Creates a channel: a sealed memfd, mapped read-write. *ret_fd goes to the client; the caller closes it. */
int rshm_map_create_channel(struct rshm_map *ret, int *ret_fd);

/* Maps a received channel after checking size and seals; children of fork() do not inherit the mapping. */
int rshm_map_channel(int fd, struct rshm_map *ret);

void rshm_unmap(struct rshm_map *map);
int rshm_unlink(const char *name);

/* True if `name` is "/riptide." followed by [A-Za-z0-9.-] and fits: ids never become paths unchecked. */
int rshm_name_is_valid(const char *name);

/* The kernel's boot id. 0, or RSHM_E_SYSTEM. */
int rshm_boot_id(uint8_t ret[16]);

/* CLOCK_MONOTONIC_COARSE in ms: the clock of every deadline in shared memory (8 ns a read). */
uint64_t rshm_now_ms(void);

#endif
