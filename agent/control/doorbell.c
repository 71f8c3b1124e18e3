/*
 * doorbell.c - where an admitted client shows its ticket and becomes a channel.
 *
 *	attach accepted: ticket issued ---shown by its uid---> hooks->connect(), the connection is the hook's
 *	                      |---------expired, or closing---> hooks->release(), the place is free again
 *
 * A second socket, because nng cannot pass descriptors. It is a plain listening socket on the main loop; a connection
 * ("ring") has handshake_timeout_ms for the 16 bytes of its ticket, not one byte more is read, and the kernel's word for
 * its uid must be that of the process that attached. A ticket serves once: also if another uid shows it, for then it was
 * stolen. Who is refused gets one byte, -status, before the connection closes.
 *
 * The mode of the socket file: bind() obeys the umask, but umask() is of the whole process and other threads create
 * files. So: bind, chmod by path, and only then listen. Until listen nobody can connect, whatever the mode, and the folder is
 * the agent's own (0750 or 0755), so nobody can exchange the file between the two calls.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <sodium.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/control/control_priv.h"

#define DOORBELL_BACKLOG 128
#define ACCEPTS_PER_TURN 16

struct ticket {
	struct ticket *next;
	void *binding;
	uint64_t channel_id;
	uint64_t expires_ms;
	uid_t uid;
	unsigned char bytes[CONTROL_TICKET_BYTES];
};

struct ring {
	uv_poll_t poll; /* first */
	struct ring *next, *previous;
	struct control *control;
	struct control_peer peer;
	struct user *user;
	uint64_t deadline_ms;
	int fd;
	uint32_t length;
	unsigned char shown[CONTROL_TICKET_BYTES];
};

static void doorbell_on_connection(uv_poll_t *poll, int status, int events);

/* ---- the socket ---------------------------------------------------------------------------------------------- */

static int bind_doorbell(const char *path, mode_t mode)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), saved;

	if (fd < 0)
		return -1;
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0) {
		if (chmod(path, mode) == 0 && listen(fd, DOORBELL_BACKLOG) == 0)
			return fd;
		saved = errno;
		unlink(path);
		errno = saved;
	}
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

int doorbell_bind(struct control *control, char *error, size_t error_len)
{
	struct doorbell *d = &control->doorbell;
	int status = control_remove_stale(control->doorbell_path, error, error_len);

	if (status < 0)
		return status;
	d->fd = bind_doorbell(control->doorbell_path, control->options.socket_mode);
	if (d->fd >= 0)
		return RSHM_OK;
	snprintf(error, error_len, "cannot listen on %s: %s", control->doorbell_path, strerror(errno));
	return RSHM_E_SYSTEM;
}

void doorbell_unbind(struct control *control)
{
	close(control->doorbell.fd);
	unlink(control->doorbell_path);
}

int doorbell_watch(struct control *control, char *error, size_t error_len)
{
	struct doorbell *d = &control->doorbell;
	int result = uv_poll_init(control->loop, &d->poll, d->fd);

	if (result < 0) {
		snprintf(error, error_len, "cannot watch %s: %s", control->doorbell_path, uv_strerror(result));
		return RSHM_E_SYSTEM;
	}
	d->poll.data = control;
	d->open = true;
	must(uv_poll_start(&d->poll, UV_READABLE, doorbell_on_connection) == 0);
	return RSHM_OK;
}

/* ---- tickets ------------------------------------------------------------------------------------------------- */

int doorbell_issue(struct control *control, void *binding, uid_t uid, uint64_t channel_id,
		   unsigned char ret_ticket[CONTROL_TICKET_BYTES])
{
	struct ticket *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return RSHM_E_NOMEM;
	*t = (struct ticket){
		.next = control->doorbell.tickets,
		.binding = binding,
		.channel_id = channel_id,
		.expires_ms = clock_monotonic_ms() + 2ull * control->options.handshake_timeout_ms,
		.uid = uid,
	};
	randombytes_buf(t->bytes, sizeof(t->bytes));
	memcpy(ret_ticket, t->bytes, sizeof(t->bytes));
	control->doorbell.tickets = t;
	control_need_tick(control);
	return RSHM_OK;
}

static void ticket_free(struct ticket *t)
{
	sodium_memzero(t->bytes, sizeof(t->bytes));
	free(t);
}

static void ticket_release(struct control *control, struct ticket *t)
{
	control->hooks.release(control->hooks.context, t->binding);
	control_give_place(control, t->uid);
	ticket_free(t);
}

/* Takes the ticket with these bytes out of the list; NULL if there is none. At most options.clients are compared. */
static struct ticket *ticket_take(struct control *control, const unsigned char *bytes)
{
	for (struct ticket **at = &control->doorbell.tickets; *at != NULL; at = &(*at)->next) {
		struct ticket *t = *at;

		if (sodium_memcmp(t->bytes, bytes, CONTROL_TICKET_BYTES) != 0)
			continue;
		*at = t->next;
		return t;
	}
	return NULL;
}

static void expire_tickets(struct control *control, uint64_t now_ms)
{
	struct ticket **at = &control->doorbell.tickets;

	while (*at != NULL) {
		struct ticket *t = *at;

		if (t->expires_ms > now_ms) {
			at = &t->next;
			continue;
		}
		*at = t->next;
		ticket_release(control, t);
	}
}

/* ---- rings --------------------------------------------------------------------------------------------------- */

static void ring_on_closed(uv_handle_t *handle)
{
	struct ring *r = (struct ring *)handle;
	struct control *control = r->control;

	free(r);
	control->doorbell.handles--;
	control_check_end(control);
}

/* Lets go of the connection without closing it; returns its descriptor, which no loop watches any more. */
static int ring_take_fd(struct ring *r)
{
	struct doorbell *d = &r->control->doorbell;

	if (r->next != NULL)
		r->next->previous = r->previous;
	if (r->previous != NULL)
		r->previous->next = r->next;
	else
		d->rings = r->next;
	d->ring_count--;
	r->user->rings--;
	users_put(&r->control->users, r->user);
	/* Stopping takes the descriptor out of the loop's epoll set at once. */
	uv_poll_stop(&r->poll);
	uv_close((uv_handle_t *)&r->poll, ring_on_closed);
	return r->fd;
}

static void tell_and_close(int fd, int status)
{
	unsigned char byte = (unsigned char)-status;

	(void)send(fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

static void ring_refuse(struct ring *r, int status, const char *why)
{
	static struct log_limit limit = LOG_LIMIT(10, 10000);

	log_limited(&limit, LOG_LEVEL_WARN, "control", "doorbell: uid %u, process %d refused (%d): %s",
		    (unsigned int)r->peer.uid, (int)r->peer.pid, status, why);
	event_of_connection(r->control, &r->peer, "doorbell", status, why);
	tell_and_close(ring_take_fd(r), status);
}

static void ring_admit(struct ring *r)
{
	struct control *control = r->control;
	struct ticket *t = ticket_take(control, r->shown);
	struct control_peer peer = r->peer;
	int fd;

	if (t == NULL) {
		ring_refuse(r, RSHM_E_DENIED, "no such ticket, or it was used or has expired");
		return;
	}
	if (t->uid != peer.uid) {
		ring_refuse(r, RSHM_E_DENIED, "the ticket was issued to another user");
		ticket_release(control, t);
		return;
	}
	fd = ring_take_fd(r);
	control->figures.channels_open++;
	/* The place stays taken until control_channel_closed(). */
	control->hooks.connect(control->hooks.context, t->binding, &peer, fd, t->channel_id);
	ticket_free(t);
}

static void ring_on_readable(uv_poll_t *poll, int status, int events)
{
	struct ring *r = (struct ring *)poll;
	ssize_t n = recv(r->fd, r->shown + r->length, sizeof(r->shown) - r->length, MSG_DONTWAIT);

	(void)status, (void)events; /* recv() tells both */
	if (n > 0) {
		r->length += (uint32_t)n;
		if (r->length == sizeof(r->shown))
			ring_admit(r);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		close(ring_take_fd(r));
	}
}

/* ---- accepting ----------------------------------------------------------------------------------------------- */

static const char *ring_obstacle(const struct control *control, const struct user *user)
{
	if (user == NULL)
		return "too many users are connected";
	if (user->rings >= control->options.connections_per_uid)
		return "the user has as many unfinished connections as limits.connections_per_uid allows";
	if (control->doorbell.ring_count >= control->options.connections)
		return "the doorbell has as many unfinished connections as it allows";
	return NULL;
}

static struct ring *ring_create(struct control *control, int fd, const struct control_peer *peer, struct user *user)
{
	struct doorbell *d = &control->doorbell;
	struct ring *r = calloc(1, sizeof(*r));

	if (r == NULL || uv_poll_init(control->loop, &r->poll, fd) < 0) {
		free(r);
		return NULL;
	}
	r->control = control;
	r->peer = *peer;
	r->user = user;
	r->fd = fd;
	r->deadline_ms = clock_monotonic_ms() + control->options.handshake_timeout_ms;
	r->next = d->rings;
	if (r->next != NULL)
		r->next->previous = r;
	d->rings = r;
	d->ring_count++;
	d->handles++;
	user->rings++;
	return r;
}

static void doorbell_welcome(struct control *control, int fd)
{
	static struct log_limit limit = LOG_LIMIT(10, 10000);
	struct ucred credentials = {.uid = (uid_t)-1};
	socklen_t length = sizeof(credentials);
	struct control_peer peer;
	struct user *user = NULL;
	struct ring *r = NULL;
	const char *obstacle = "its credentials cannot be read";

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0) {
		user = users_get(&control->users, credentials.uid);
		obstacle = ring_obstacle(control, user);
	}
	peer = (struct control_peer){.uid = credentials.uid, .gid = credentials.gid, .pid = credentials.pid};
	if (obstacle == NULL) {
		r = ring_create(control, fd, &peer, user);
		obstacle = "no memory";
	}
	if (r != NULL) {
		must(uv_poll_start(&r->poll, UV_READABLE, ring_on_readable) == 0);
		control_need_tick(control);
		return;
	}
	control->figures.refused_connections++;
	log_limited(&limit, LOG_LEVEL_WARN, "control", "doorbell: uid %u, process %d refused: %s",
		    (unsigned int)peer.uid, (int)peer.pid, obstacle);
	event_of_connection(control, &peer, "doorbell", RSHM_E_AGAIN, obstacle);
	if (user != NULL)
		users_put(&control->users, user);
	tell_and_close(fd, RSHM_E_AGAIN);
}

static void doorbell_pause(struct control *control)
{
	static struct log_limit limit = LOG_LIMIT(2, 10000);

	log_limited(&limit, LOG_LEVEL_ERROR, "control", "cannot accept on %s: %s; trying again every %u ms",
		    control->doorbell_path, strerror(errno), CONTROL_ACCEPT_PAUSE_MS);
	uv_poll_stop(&control->doorbell.poll);
	control->doorbell.retry_at_ms = clock_monotonic_ms() + CONTROL_ACCEPT_PAUSE_MS;
	control_need_tick(control);
}

static void doorbell_on_connection(uv_poll_t *poll, int status, int events)
{
	struct control *control = poll->data;

	(void)status, (void)events; /* accept() tells both */
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		int fd = accept4(control->doorbell.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			doorbell_welcome(control, fd);
		} else if (errno == EAGAIN) {
			return;
		} else if (errno != EINTR && errno != ECONNABORTED) {
			doorbell_pause(control);
			return;
		}
	}
}

void doorbell_tick(struct control *control, uint64_t now_ms)
{
	struct doorbell *d = &control->doorbell;
	struct ring *next;

	for (struct ring *r = d->rings; r != NULL; r = next) {
		next = r->next;
		if (r->deadline_ms > now_ms)
			continue;
		control->figures.timed_out++;
		ring_refuse(r, RSHM_E_TIMEDOUT, "no ticket came in time");
	}
	expire_tickets(control, now_ms);
	if (d->retry_at_ms != 0 && d->retry_at_ms <= now_ms && d->open) {
		d->retry_at_ms = 0;
		must(uv_poll_start(&d->poll, UV_READABLE, doorbell_on_connection) == 0);
	}
}

/* ---- end ----------------------------------------------------------------------------------------------------- */

static void doorbell_on_closed(uv_handle_t *handle)
{
	struct control *control = handle->data;

	control->doorbell.handles--;
	control_check_end(control);
}

void doorbell_close(struct control *control)
{
	struct doorbell *d = &control->doorbell;

	d->open = false;
	d->retry_at_ms = 0;
	uv_poll_stop(&d->poll);
	d->handles++;
	uv_close((uv_handle_t *)&d->poll, doorbell_on_closed);
	doorbell_unbind(control);
	while (d->rings != NULL)
		tell_and_close(ring_take_fd(d->rings), RSHM_E_CLOSED);
	while (d->tickets != NULL) {
		struct ticket *t = d->tickets;

		d->tickets = t->next;
		ticket_release(control, t);
	}
}

bool doorbell_is_quiet(const struct control *control)
{
	return control->doorbell.handles == 0;
}
