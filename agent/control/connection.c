/*
 * connection.c - one peer of the control socket.
 *
 * A connection is always in exactly one hand, and nobody else touches its buffers:
 *
 *	main loop --start, answer--> nng's threads --mailbox: a whole message, or the end--> main loop
 *
 * In nng's hand there is exactly one operation under way on its one aio: our hello going out, bytes coming in, an answer
 * going out. Its callback begins the next one or posts the connection. So each connection posts at most one message at a
 * time, which is what bounds the mailbox, and a peer that sends further requests waits in its own socket buffer.
 *
 * nng 1.5 neither completes nor refuses an operation that is begun on a closed stream: it would be lost. Therefore
 * `closing` and the beginning of an operation exclude each other by the connection's lock. The lock is held for that alone;
 * nng never calls back from within.
 *
 * An operation may end, and its end travel to the main loop, while the callback that began it is still returning through
 * that lock. So each callback holds a reference while it runs, and the memory goes with the last one.
 *
 * Deadlines: the hello, each message from its first to its last byte, and each answer have handshake_timeout_ms in all,
 * however small the pieces. Between messages a peer may be silent for ever: its place is what the limits count.
 * A body is stored as it comes, so a peer that announces a large one and sends nothing costs nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/control/control_priv.h"

#define CONNECTION_INPUT 16384u
#define CONNECTION_BODY_FIRST 4096u

static void connection_on_io(void *context);

/* Release: what was done before leaving is done. Acquire, by the last: it sees what all others did. */
static void connection_unref(struct connection *c)
{
	if (__atomic_sub_fetch(&c->references, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static int connection_identify(nng_stream *stream, struct control_peer *ret)
{
	uint64_t uid, gid, pid;

	if (nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_UID, &uid) != 0 ||
	    nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_GID, &gid) != 0 ||
	    nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_PID, &pid) != 0)
		return RSHM_E_SYSTEM;
	*ret = (struct control_peer){.uid = (uid_t)uid, .gid = (gid_t)gid, .pid = (pid_t)pid};
	return RSHM_OK;
}

int connection_create(struct control *control, nng_stream *stream, struct connection **ret)
{
	struct connection *c = calloc(1, sizeof(*c));
	int status = RSHM_E_NOMEM;

	if (c == NULL) {
		nng_stream_free(stream);
		return RSHM_E_NOMEM;
	}
	must(pthread_mutex_init(&c->lock, NULL) == 0);
	c->references = 1;
	c->control = control;
	c->stream = stream;
	c->input = malloc(CONNECTION_INPUT);
	sp_init(&c->sp, control->options.message_bytes);
	if (c->input != NULL && nng_aio_alloc(&c->aio, connection_on_io, c) == 0)
		status = connection_identify(stream, &c->peer);
	if (status < 0)
		connection_destroy(c);
	else
		*ret = c;
	return status;
}

/* It may hold a token. */
static void connection_forget_body(struct connection *c)
{
	if (c->body != NULL)
		explicit_bzero(c->body, c->body_length);
	free(c->body);
	c->body = NULL;
	c->body_length = c->body_capacity = 0;
}

void connection_destroy(struct connection *c)
{
	must(!c->in_nng && c->request == NULL);
	/* The callback that posted us may still be returning inside nng: its aio is freed by nng's own reaper. */
	if (c->aio != NULL)
		nng_aio_reap(c->aio);
	nng_stream_free(c->stream);
	connection_forget_body(c);
	free(c->input);
	free(c->answer);
	connection_unref(c);
}

void connection_interrupt(struct connection *c)
{
	must(c->in_nng);
	pthread_mutex_lock(&c->lock);
	c->closing = true;
	pthread_mutex_unlock(&c->lock);
	nng_stream_close(c->stream);
}

static void connection_arm_deadline(struct connection *c)
{
	c->deadline_ms = clock_monotonic_ms() + c->control->options.handshake_timeout_ms;
}

/* ---- in nng's hand ------------------------------------------------------------------------------------------- */

/* The last thing that is done with the connection here, but for lock and reference: the main loop may destroy it at once. */
static void connection_post(struct connection *c)
{
	/* Refused only if the control plane gave up waiting for nng; it has left everything to us then. */
	(void)mailbox_post(&c->control->mailbox, &c->message);
}

static void connection_end(struct connection *c, int status)
{
	c->ended = true;
	c->end_status = status;
	connection_post(c);
}

/* False: it is closing. */
static bool connection_submit(struct connection *c, void (*operation)(nng_stream *, nng_aio *))
{
	bool closing;

	pthread_mutex_lock(&c->lock);
	closing = c->closing;
	if (!closing)
		operation(c->stream, c->aio);
	pthread_mutex_unlock(&c->lock);
	return !closing;
}

/* Begins an operation that must end by the deadline. */
static void connection_begin_io(struct connection *c, void (*operation)(nng_stream *, nng_aio *))
{
	uint64_t now_ms = clock_monotonic_ms();

	if (c->deadline_ms != 0 && c->deadline_ms <= now_ms) {
		connection_end(c, RSHM_E_TIMEDOUT);
		return;
	}
	nng_aio_set_timeout(c->aio,
			    c->deadline_ms != 0 ? (nng_duration)(c->deadline_ms - now_ms) : NNG_DURATION_INFINITE);
	if (!connection_submit(c, operation))
		connection_end(c, RSHM_OK);
}

static void connection_send_rest(struct connection *c)
{
	nng_iov iov[2];
	unsigned int count = 0;
	size_t body_at = c->sent > c->head_length ? c->sent - c->head_length : 0;

	if (c->sent < c->head_length)
		iov[count++] = (nng_iov){.iov_buf = c->head + c->sent, .iov_len = c->head_length - c->sent};
	if (body_at < c->answer_length)
		iov[count++] = (nng_iov){.iov_buf = c->answer + body_at, .iov_len = c->answer_length - body_at};
	must(nng_aio_set_iov(c->aio, count, iov) == 0);
	connection_begin_io(c, nng_stream_send);
}

static bool connection_keep_body(struct connection *c, const struct sp_step *step)
{
	size_t needed = c->body_length + step->body_length, capacity = c->body_capacity;
	unsigned char *grown;

	while (capacity < needed)
		capacity = capacity > 0 ? capacity * 2 : CONNECTION_BODY_FIRST;
	if (capacity != c->body_capacity) {
		grown = realloc(c->body, capacity);
		if (grown == NULL)
			return false;
		c->body = grown;
		c->body_capacity = capacity;
	}
	if (step->body_length > 0)
		memcpy(c->body + c->body_length, step->body, step->body_length);
	c->body_length = needed;
	return true;
}

static void connection_receive_more(struct connection *c)
{
	nng_iov iov = {.iov_buf = c->input, .iov_len = CONNECTION_INPUT};

	c->input_at = c->input_length = 0;
	must(nng_aio_set_iov(c->aio, 1, &iov) == 0);
	connection_begin_io(c, nng_stream_recv);
}

/* Takes what came in apart until a message is whole or more is needed. */
static void connection_parse(struct connection *c)
{
	struct sp_step step;
	int event;

	do {
		if (sp_is_idle(&c->sp) && c->input_at < c->input_length)
			connection_arm_deadline(c);
		event = sp_feed(&c->sp, c->input + c->input_at, c->input_length - c->input_at, &step);
		c->input_at += step.used;
		if (event == SP_EVENT_HELLO)
			c->deadline_ms = 0;
		if (event > SP_EVENT_HELLO && !connection_keep_body(c, &step))
			event = RSHM_E_NOMEM;
	} while (event == SP_EVENT_HELLO || event == SP_EVENT_BODY);
	if (event < 0)
		connection_end(c, event);
	else if (event == SP_EVENT_MESSAGE)
		connection_post(c);
	else
		connection_receive_more(c);
}

static void connection_on_sent(struct connection *c)
{
	c->sent += nng_aio_count(c->aio);
	if (c->sent < c->head_length + c->answer_length) {
		connection_send_rest(c);
		return;
	}
	free(c->answer);
	c->answer = NULL;
	/* After our hello the peer still owes his: the deadline stays. */
	if (c->phase == CONNECTION_ANSWER)
		c->deadline_ms = 0;
	c->phase = CONNECTION_RECEIVE;
	connection_parse(c);
}

/* Called by nng's threads. One at a time has the connection, but the one before may not have returned yet. */
static void connection_on_io(void *context)
{
	struct connection *c = context;
	int result = nng_aio_result(c->aio);

	__atomic_add_fetch(&c->references, 1, __ATOMIC_RELAXED);
	if (result != 0) {
		connection_end(c, result == NNG_ETIMEDOUT ? RSHM_E_TIMEDOUT : RSHM_OK);
	} else if (c->phase == CONNECTION_RECEIVE) {
		c->input_length = nng_aio_count(c->aio);
		connection_parse(c);
	} else {
		connection_on_sent(c);
	}
	connection_unref(c);
}

/* ---- in the main loop's hand --------------------------------------------------------------------------------- */

void connection_start(struct connection *c)
{
	memcpy(c->head, sp_hello_of_rep, SP_HELLO_BYTES);
	c->head_length = SP_HELLO_BYTES;
	c->phase = CONNECTION_HELLO;
	connection_arm_deadline(c);
	c->in_nng = true;
	connection_send_rest(c);
}

void connection_answer(struct connection *c, unsigned char *bytes, size_t length)
{
	must(!c->in_nng && c->request == NULL && c->answer == NULL);
	connection_forget_body(c);
	c->head_length = sp_answer_head(&c->sp, length, c->head);
	c->answer = bytes;
	c->answer_length = length;
	c->sent = 0;
	c->phase = CONNECTION_ANSWER;
	connection_arm_deadline(c);
	c->in_nng = true;
	connection_send_rest(c);
}
