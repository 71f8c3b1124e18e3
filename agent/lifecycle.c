/*
 * lifecycle.c - one agent per instance.
 *
 * The lock file is never opened by clients: a reader's lock on something they can open would block us. It is not removed
 * at the end either, for a successor might hold the removed one.
 */
#include "agent/lifecycle.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "shm/msg.h"

int lifecycle_prepare_dir(const char *dir, char *error, size_t error_len)
{
	struct stat st;

	if (mkdir(dir, 0755) < 0 && errno != EEXIST) {
		snprintf(error, error_len,
			 "%s: cannot be made: %s; make it for the agent's user or set agent.run_dir", dir,
			 strerror(errno));
		return RSHM_E_SYSTEM;
	}
	if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode)) {
		snprintf(error, error_len, "%s: is not a folder", dir);
		return RSHM_E_SYSTEM;
	}
	if (st.st_uid != geteuid() || (st.st_mode & 022)) {
		snprintf(
			error, error_len,
			"%s: must belong to the agent's user (uid %u) and be writable for nobody else; it is uid %u, mode %04o",
			dir, (unsigned int)geteuid(), (unsigned int)st.st_uid, (unsigned int)(st.st_mode & 07777));
		return RSHM_E_DENIED;
	}
	return RSHM_OK;
}

static void read_holder(int fd, char *ret, size_t size)
{
	ssize_t n = pread(fd, ret, size - 1, 0);

	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

int lifecycle_lock(const char *run_dir, int *ret_fd, char *error, size_t error_len)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[512], holder[32];
	int fd, length;

	snprintf(path, sizeof(path), "%s/lock", run_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		snprintf(error, error_len, "%s: %s", path, strerror(errno));
		return RSHM_E_SYSTEM;
	}
	if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
		read_holder(fd, holder, sizeof(holder));
		snprintf(error, error_len,
			 "%s: another agent of this instance runs (pid %s); stop it or set agent.instance and "
			 "agent.run_dir",
			 path, holder[0] ? holder : "unknown");
		close(fd);
		return RSHM_E_AGAIN;
	}
	length = snprintf(holder, sizeof(holder), "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, holder, (size_t)length, 0) != length) {
		snprintf(error, error_len, "%s: cannot be written: %s", path, strerror(errno));
		close(fd);
		return RSHM_E_SYSTEM;
	}
	*ret_fd = fd;
	return RSHM_OK;
}

void lifecycle_notify_ready(const char *status)
{
	sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void lifecycle_notify_reloading(void)
{
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_monotonic_ns() / 1000);
}

void lifecycle_notify_stopping(void)
{
	sd_notify(0, "STOPPING=1\nSTATUS=draining");
}

void lifecycle_notify_watchdog(void)
{
	sd_notify(0, "WATCHDOG=1");
}
