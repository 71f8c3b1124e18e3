/*
 * hosts.c - network namespaces joined by a router.
 *
 * Host i has one link, to the router, in a network of its own: 10.77.i.2 there, 10.77.i.1 on the router's side. The router
 * is a namespace that forwards. A deaf host is a blackhole route to its address, a mute one a rule that sends what comes from
 * its link to a blackhole: both drop without an answer, and the host goes on seeing its router (ARP), so that no connect
 * fails sooner than by its time-out.
 *
 * A namespace is made by unshare() of the calling thread, kept by a descriptor, and left again by setns(). `ip` moves one
 * end of each link into its host by way of /proc/<pid>/fd of the test.
 */
#include "tests/support/hosts.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMMAND_BYTES 256u
#define WORDS_MAX 24u

/* ---- namespaces --------------------------------------------------------------------------------------------- */

static int open_own_space(void)
{
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

static int enter(int space)
{
	if (setns(space, CLONE_NEWNET) == 0)
		return 0;
	perror("hosts: setns");
	return -1;
}

/* A new namespace's descriptor; -1. */
static int new_space(int home)
{
	int space;

	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	space = open_own_space();
	if (enter(home) == 0)
		return space;
	/* A test that goes on in the wrong place would only mislead. */
	abort();
}

/* ---- commands ----------------------------------------------------------------------------------------------- */

/* In the child. */
static void become_command(int space, char *command)
{
	char *words[WORDS_MAX + 1], *rest = NULL;
	size_t count = 0;

	for (char *word = strtok_r(command, " ", &rest); word && count < WORDS_MAX; word = strtok_r(NULL, " ", &rest))
		words[count++] = word;
	words[count] = NULL;
	if (enter(space) == 0)
		execvp(words[0], words);
	_exit(127);
}

/* Runs a command of words without spaces in a namespace. */
__attribute__((format(printf, 2, 3))) static int run(int space, const char *format, ...)
{
	char command[COMMAND_BYTES], shown[COMMAND_BYTES];
	int status = -1;
	va_list arguments;
	pid_t pid;

	va_start(arguments, format);
	vsnprintf(command, sizeof(command), format, arguments);
	va_end(arguments);
	memcpy(shown, command, sizeof(shown));
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		become_command(space, command);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid > 0 && status == 0)
		return 0;
	fprintf(stderr, "hosts: failed: %s\n", shown);
	return -1;
}

/* A setting of the namespace that the thread is in. */
static int set_kernel(const char *name, const char *value)
{
	char path[128];
	int fd, status;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	status = fd >= 0 && write(fd, value, strlen(value)) > 0 ? 0 : -1;
	if (status < 0)
		perror(path);
	if (fd >= 0)
		close(fd);
	return status;
}

/* ---- making ------------------------------------------------------------------------------------------------- */

const char *hosts_why_not(void)
{
	int home, space;

	if (access("/sbin/ip", X_OK) < 0 && access("/usr/sbin/ip", X_OK) < 0 && access("/bin/ip", X_OK) < 0)
		return "there is no ip program (iproute2)";
	home = open_own_space();
	space = home >= 0 ? new_space(home) : -1;
	if (home >= 0)
		close(home);
	if (space < 0)
		return "no network namespaces can be made here (this needs CAP_SYS_ADMIN)";
	close(space);
	if (access("/proc/sys/net/ipv4/ip_forward", W_OK) < 0)
		return "/proc/sys is read-only here";
	return NULL;
}

static int make_router(struct hosts *hosts)
{
	int status;

	hosts->router = new_space(hosts->home);
	if (hosts->router < 0 || enter(hosts->router) < 0)
		return -1;
	status = set_kernel("ip_forward", "1") | set_kernel("conf/all/rp_filter", "0") |
		 set_kernel("conf/default/rp_filter", "0");
	return enter(hosts->home) | status;
}

static int make_host(struct hosts *hosts, uint32_t host)
{
	int space = new_space(hosts->home), router = hosts->router;

	hosts->spaces[host] = space;
	if (space < 0)
		return -1;
	snprintf(hosts->addresses[host], sizeof(hosts->addresses[host]), "10.77.%u.2", host);
	return run(router, "ip link add port%u type veth peer name wire%u", host, host) ||
			       run(router, "ip link set wire%u netns /proc/%ld/fd/%d", host, (long)getpid(), space) ||
			       run(router, "ip address add 10.77.%u.1/24 dev port%u", host, host) ||
			       run(router, "ip link set port%u up", host) ||
			       run(space, "ip address add 10.77.%u.2/24 dev wire%u", host, host) ||
			       run(space, "ip link set wire%u up", host) || run(space, "ip link set lo up") ||
			       run(space, "ip route add default via 10.77.%u.1", host)
		       ? -1
		       : 0;
}

int hosts_create(struct hosts *hosts, uint32_t count)
{
	int status;

	memset(hosts, 0, sizeof(*hosts));
	hosts->home = open_own_space();
	hosts->router = -1;
	for (uint32_t host = 0; host < HOSTS_MAX; host++)
		hosts->spaces[host] = -1;
	hosts->count = count;
	status = count == 0 || count > HOSTS_MAX || hosts->home < 0 ? -1 : make_router(hosts);
	for (uint32_t host = 0; host < count && status == 0; host++)
		status = make_host(hosts, host);
	if (status < 0) {
		fprintf(stderr, "hosts: could not be made\n");
		hosts_destroy(hosts);
	}
	return status;
}

static void close_space(int space)
{
	if (space >= 0)
		close(space);
}

void hosts_destroy(struct hosts *hosts)
{
	if (hosts->count == 0)
		return;
	for (uint32_t host = 0; host < HOSTS_MAX; host++)
		close_space(hosts->spaces[host]);
	close_space(hosts->router);
	close_space(hosts->home);
	memset(hosts, 0, sizeof(*hosts));
}

/* ---- using -------------------------------------------------------------------------------------------------- */

const char *hosts_address(const struct hosts *hosts, uint32_t host)
{
	return hosts->addresses[host];
}

int hosts_enter(const struct hosts *hosts, uint32_t host)
{
	return enter(hosts->spaces[host]);
}

int hosts_leave(const struct hosts *hosts)
{
	return enter(hosts->home);
}

/* ---- trouble ------------------------------------------------------------------------------------------------ */

int hosts_deafen(struct hosts *hosts, uint32_t host)
{
	if (hosts->deaf[host])
		return 0;
	if (run(hosts->router, "ip route add blackhole 10.77.%u.2/32", host) < 0)
		return -1;
	hosts->deaf[host] = true;
	return 0;
}

int hosts_mute(struct hosts *hosts, uint32_t host)
{
	if (hosts->mute[host])
		return 0;
	if (run(hosts->router, "ip rule add priority %u iif port%u blackhole", 100 + host, host) < 0)
		return -1;
	hosts->mute[host] = true;
	return 0;
}

int hosts_cut(struct hosts *hosts, uint32_t host)
{
	return hosts_deafen(hosts, host) < 0 || hosts_mute(hosts, host) < 0 ? -1 : 0;
}

int hosts_mend(struct hosts *hosts, uint32_t host)
{
	int status = 0;

	if (hosts->deaf[host])
		status |= run(hosts->router, "ip route del blackhole 10.77.%u.2/32", host);
	if (hosts->mute[host])
		status |= run(hosts->router, "ip rule del priority %u", 100 + host);
	hosts->deaf[host] = hosts->mute[host] = false;
	return status;
}
