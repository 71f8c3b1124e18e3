/*
 * listener.c - the control socket: accepting, limits, and what comes back from connections.
 *
 * A nng_stream_listener and not a REP socket: the REP socket of nng 1.5 stops accepting for good after one peer that
 * connects and hangs up. One accept is under way at a time; its end is posted to the main loop, which alone decides about
 * limits and begins the next accept, so a flood of peers comes in at the pace at which the loop turns, and all counting is
 * done without locks. If accept fails (no descriptors left), the next one begins after a pause.
 *
 * Peers over a limit are closed at once: SP has no way to say why before the first request. The log says it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/control/control_priv.h"

static void listener_on_arrival(struct mailbox_message *message);
static void connection_on_arrival(struct mailbox_message *message);

static struct control *control_of(struct listener *listener)
{
	return (struct control *)((char *)listener - offsetof(struct control, listener));
}

/* nng's thread. */
static void listener_on_accept(void *context)
{
	struct control *control = context;

	(void)mailbox_post(&control->mailbox, &control->listener.message);
}

static void listener_accept(struct listener *l)
{
	must(!l->accepting);
	l->accepting = true;
	l->retry_at_ms = 0;
	nng_stream_listener_accept(l->nng, l->aio);
}

int listener_open(struct control *control, char *error, size_t error_len)
{
	struct listener *l = &control->listener;
	char url[sizeof("ipc://") + CONTROL_PATH_MAX];
	int result, status = control_remove_stale(control->control_path, error, error_len);

	if (status < 0)
		return status;
	l->message.handle = listener_on_arrival;
	snprintf(url, sizeof(url), "ipc://%s", control->control_path);
	result = nng_aio_alloc(&l->aio, listener_on_accept, control);
	if (result == 0)
		result = nng_stream_listener_alloc(&l->nng, url);
	/* nng binds, changes the mode, and only then listens: nobody can connect before the mode is right. */
	if (result == 0)
		result = nng_stream_listener_set_int(l->nng, NNG_OPT_IPC_PERMISSIONS,
						     (int)control->options.socket_mode);
	if (result == 0)
		result = nng_stream_listener_listen(l->nng);
	if (result != 0) {
		snprintf(error, error_len, "cannot listen on %s: %s", control->control_path, nng_strerror(result));
		listener_free(l);
		return result == NNG_ENOMEM ? RSHM_E_NOMEM : RSHM_E_SYSTEM;
	}
	return RSHM_OK;
}

void listener_begin(struct control *control)
{
	listener_accept(&control->listener);
}

void listener_free(struct listener *l)
{
	if (l->nng != NULL)
		nng_stream_listener_free(l->nng);
	if (l->aio != NULL)
		nng_aio_free(l->aio);
	l->nng = NULL;
	l->aio = NULL;
}

/* ---- accepting ----------------------------------------------------------------------------------------------- */

static void refuse_connection(struct control *control, const struct control_peer *peer, const char *why)
{
	static struct log_limit limit = LOG_LIMIT(10, 10000);

	control->figures.refused_connections++;
	log_limited(&limit, LOG_LEVEL_WARN, "control", "connection of uid %u, process %d refused: %s",
		    (unsigned int)peer->uid, (int)peer->pid, why);
	event_of_connection(control, peer, "connection", RSHM_E_AGAIN, why);
}

/* Why not, or NULL. */
static const char *connection_obstacle(const struct control *control, const struct user *user)
{
	if (user == NULL)
		return "too many users are connected";
	if (user->connections >= control->options.connections_per_uid)
		return "the user has as many connections as limits.connections_per_uid allows";
	if (control->listener.open_count >= control->options.connections)
		return "the agent has as many control connections as it allows";
	return NULL;
}

static void listener_admit(struct control *control, nng_stream *stream)
{
	struct listener *l = &control->listener;
	struct connection *c;
	const char *obstacle;

	if (connection_create(control, stream, &c) < 0) {
		refuse_connection(control, &(struct control_peer){.uid = (uid_t)-1}, "no memory, or no credentials");
		return;
	}
	c->user = users_get(&control->users, c->peer.uid);
	obstacle = connection_obstacle(control, c->user);
	if (obstacle != NULL) {
		refuse_connection(control, &c->peer, obstacle);
		if (c->user != NULL)
			users_put(&control->users, c->user);
		connection_destroy(c);
		return;
	}
	c->message.handle = connection_on_arrival;
	c->user->connections++;
	c->next = l->open;
	if (l->open != NULL)
		l->open->previous = c;
	l->open = c;
	l->open_count++;
	control->figures.connections++;
	connection_start(c);
}

static void listener_on_arrival(struct mailbox_message *message)
{
	static struct log_limit limit = LOG_LIMIT(2, 10000);
	struct listener *l = (struct listener *)message;
	struct control *control = control_of(l);
	int result = nng_aio_result(l->aio);
	nng_stream *stream = result == 0 ? nng_aio_get_output(l->aio, 0) : NULL;

	l->accepting = false;
	if (control->closing) {
		if (stream != NULL)
			nng_stream_free(stream);
		control_check_end(control);
		return;
	}
	if (stream != NULL) {
		listener_admit(control, stream);
		listener_accept(l);
		return;
	}
	log_limited(&limit, LOG_LEVEL_ERROR, "control", "cannot accept on %s: %s; trying again every %u ms",
		    control->control_path, nng_strerror(result), CONTROL_ACCEPT_PAUSE_MS);
	l->retry_at_ms = clock_monotonic_ms() + CONTROL_ACCEPT_PAUSE_MS;
	control_need_tick(control);
}

void listener_tick(struct control *control, uint64_t now_ms)
{
	struct listener *l = &control->listener;

	if (l->retry_at_ms != 0 && l->retry_at_ms <= now_ms && !control->closing)
		listener_accept(l);
}

/* ---- what comes back ----------------------------------------------------------------------------------------- */

static void account_end(struct control *control, const struct connection *c)
{
	static struct log_limit limit = LOG_LIMIT(10, 10000);
	const char *what;

	switch (c->end_status) {
	case RSHM_OK:
		return;
	case RSHM_E_TIMEDOUT:
		control->figures.timed_out++;
		what = "was too slow";
		break;
	case RSHM_E_TOOBIG:
		control->figures.malformed++;
		what = "announced a message larger than limits.control_message_bytes";
		break;
	case RSHM_E_PROTOCOL:
		control->figures.malformed++;
		what = "is no NNG REQ socket, or broke the framing";
		break;
	default:
		what = "could not be served: no memory";
		break;
	}
	log_limited(&limit, LOG_LEVEL_WARN, "control", "connection of uid %u, process %d closed: the peer %s",
		    (unsigned int)c->peer.uid, (int)c->peer.pid, what);
	event_of_connection(control, &c->peer, "connection", c->end_status, what);
}

static void connection_on_arrival(struct mailbox_message *message)
{
	struct connection *c = (struct connection *)message;
	struct control *control = c->control;

	c->in_nng = false;
	if (!c->ended && !c->closing) {
		control->figures.requests++;
		dispatch_message(c);
		return;
	}
	if (!c->closing)
		account_end(control, c);
	listener_drop(control, c);
}

void listener_drop(struct control *control, struct connection *c)
{
	struct listener *l = &control->listener;

	if (c->next != NULL)
		c->next->previous = c->previous;
	if (c->previous != NULL)
		c->previous->next = c->next;
	else
		l->open = c->next;
	l->open_count--;
	c->user->connections--;
	users_put(&control->users, c->user);
	connection_destroy(c);
	control_check_end(control);
}

/* ---- end ----------------------------------------------------------------------------------------------------- */

void listener_close(struct control *control)
{
	struct listener *l = &control->listener;
	struct connection *next;

	l->retry_at_ms = 0;
	/* Ends an accept that is under way, and removes the socket file. */
	nng_stream_listener_close(l->nng);
	for (struct connection *c = l->open; c != NULL; c = next) {
		next = c->next;
		if (c->in_nng)
			connection_interrupt(c);
		else
			listener_drop(control, c);
	}
}

bool listener_is_quiet(const struct control *control)
{
	return !control->listener.accepting && control->listener.open_count == 0;
}
