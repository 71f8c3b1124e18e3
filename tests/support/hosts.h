/*
 * hosts.h - hosts for a test: network namespaces with addresses of their own, joined by a router that loses packets when told.
 *
 * What the router loses is lost without a word: no reset, no ICMP, the link stays up. That is what real partitions do, and
 * what no relay can do, since it ends the connections itself. Packets are lost from the return of a function on; the kernels
 * of both ends go on sending them again and deliver them after hosts_mend().
 *
 * The namespaces have no names: they live as long as the test and the processes it started in them, so that nothing can be
 * left behind. Needs CAP_NET_ADMIN, CAP_SYS_ADMIN and `ip` of iproute2. Delay is not in here, because not every kernel has
 * netem: link.h, started inside a host, carries bytes late.
 *
 * All functions are for one thread. They run `ip` and wait for it. Those that return int return 0, or -1 after a line on
 * stderr.
 */
#ifndef TESTS_SUPPORT_HOSTS_H
#define TESTS_SUPPORT_HOSTS_H

#include <stdbool.h>
#include <stdint.h>

#define HOSTS_MAX 8u

struct hosts {
	uint32_t count;
	int home, router; /* descriptors of namespaces: the test's own, the one that joins the others */
	int spaces[HOSTS_MAX];
	bool deaf[HOSTS_MAX], mute[HOSTS_MAX];
	char addresses[HOSTS_MAX][24];
};

/* Why there can be no hosts here, in words for people; NULL: there can. Makes a namespace, to know. */
const char *hosts_why_not(void);

/* Makes them, all reach all. 1 <= count <= HOSTS_MAX. After a failure there is nothing to destroy. */
int hosts_create(struct hosts *hosts, uint32_t count);
/* Closes what holds the namespaces; end the processes in them first. A zeroed or destroyed one is fine. */
void hosts_destroy(struct hosts *hosts);

/* The IPv4 address as text; as long as `hosts` lives. */
const char *hosts_address(const struct hosts *hosts, uint32_t host);

/*
 * The calling thread is in the host until hosts_leave(): the sockets, threads and processes it makes are, and stay there.
 * Unix sockets and files are those of everybody.
 */
int hosts_enter(const struct hosts *hosts, uint32_t host);
int hosts_leave(const struct hosts *hosts);

/* It hears nothing more; what it sends arrives. */
int hosts_deafen(struct hosts *hosts, uint32_t host);
/* Nothing that it sends arrives; it hears. */
int hosts_mute(struct hosts *hosts, uint32_t host);
/* Both. */
int hosts_cut(struct hosts *hosts, uint32_t host);
/* Ends all of this. One that has no trouble is fine. */
int hosts_mend(struct hosts *hosts, uint32_t host);

#endif
