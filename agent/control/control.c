/*
 * control.c - the control plane's life: options, both sockets, the tick, places, and the end.
 *
 * Deadlines that nng does not keep (hooks, tickets, doorbell connections, pauses) are looked at by one timer that runs
 * only while there is one, so an idle agent sleeps.
 *
 * The end has steps, because three parties must let go:
 *
 *	control_close()   sockets closed and removed, tickets released, requests abandoned, connections interrupted
 *	quiet             every connection has come back from nng, libuv has closed the doorbell's handles
 *	freeing           a thread of its own gives the listener back to nng, which may wait for nng's threads
 *	closed()          the mailbox and the timer are closed, memory is freed
 *
 * nng 1.5 was seen to hang while closing. When CONTROL_CLOSE_MS have passed the end goes on without it: what nng may still
 * touch is left allocated, for the process is about to exit anyway.
 */
#include "agent/control/control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/control/control_priv.h"

#define CONTROL_MAGIC 0x43545250u
#define TICK_MIN_MS 10u
#define TICK_MAX_MS 100u
#define USERS_SPARE 1024u /* users with nothing open whose rate is remembered */
#define TIMEOUT_MAX_MS 86400000u

static void control_on_tick(uv_timer_t *timer);

/* ---- beginning ----------------------------------------------------------------------------------------------- */

static int check_path(const char *path, char *error, size_t error_len)
{
	if (path[0] == '/' && strlen(path) < CONTROL_PATH_MAX)
		return RSHM_OK;
	snprintf(
		error, error_len,
		"a socket's path is absolute and has at most %u bytes, not %zu: %.120s; choose a shorter agent.run_dir",
		CONTROL_PATH_MAX - 1, strlen(path), path);
	return RSHM_E_INVALID;
}

static int check_options(const struct control_options *o, char *error, size_t error_len)
{
	int status = check_path(o->control_path, error, error_len);

	if (status == RSHM_OK)
		status = check_path(o->doorbell_path, error, error_len);
	if (status < 0)
		return status;
	if (o->message_bytes == 0 || o->answer_bytes == 0 || o->connections == 0 || o->connections > UINT32_MAX / 8 ||
	    o->connections_per_uid == 0 || o->channels_per_uid == 0 || o->clients == 0 ||
	    o->clients > UINT32_MAX / 8 || o->attaches_per_second_per_uid == 0 || o->handshake_timeout_ms == 0 ||
	    o->handshake_timeout_ms > TIMEOUT_MAX_MS || o->request_timeout_ms == 0 ||
	    o->request_timeout_ms > TIMEOUT_MAX_MS) {
		snprintf(error, error_len, "a limit of the control plane is 0 or beyond reason");
		return RSHM_E_INVALID;
	}
	return RSHM_OK;
}

int control_remove_stale(const char *path, char *error, size_t error_len)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return RSHM_OK; /* what is wrong with the path, bind() will tell */
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(error, error_len,
			 "%s is in the way and no socket; remove it or choose another agent.run_dir", path);
		return RSHM_E_SYSTEM;
	}
	if (unlink(path) < 0) {
		snprintf(error, error_len, "cannot remove the old socket %s: %s", path, strerror(errno));
		return RSHM_E_SYSTEM;
	}
	return RSHM_OK;
}

static struct control *control_alloc(uv_loop_t *loop, const struct control_options *options,
				     const struct control_hooks *hooks)
{
	struct control *control = calloc(1, sizeof(*control));

	if (control == NULL)
		return NULL;
	control->agent_object = strdup(options->agent_object);
	if (control->agent_object == NULL) {
		free(control);
		return NULL;
	}
	control->magic = CONTROL_MAGIC;
	control->loop = loop;
	control->options = *options;
	control->hooks = *hooks;
	control->next_channel_id = 1;
	snprintf(control->control_path, sizeof(control->control_path), "%s", options->control_path);
	snprintf(control->doorbell_path, sizeof(control->doorbell_path), "%s", options->doorbell_path);
	control->options.control_path = control->control_path;
	control->options.doorbell_path = control->doorbell_path;
	control->options.agent_object = control->agent_object;
	users_init(&control->users, 2 * options->connections + options->clients + USERS_SPARE);
	return control;
}

static void control_free(struct control *control)
{
	users_fini(&control->users);
	free(control->agent_object);
	control->magic = 0;
	free(control);
}

static void control_on_undone(void *context)
{
	control_free(context);
}

/* The sockets first: they fail most, and leave nothing of the loop behind when they do. */
static int control_open(struct control *control, char *error, size_t error_len)
{
	int status = doorbell_bind(control, error, error_len);

	if (status == RSHM_OK) {
		status = listener_open(control, error, error_len);
		if (status < 0)
			doorbell_unbind(control);
	}
	if (status < 0) {
		control_free(control);
		return status;
	}
	status = RSHM_E_SYSTEM;
	if (!mailbox_init(&control->mailbox, control->loop, control->options.connections + 2)) {
		snprintf(error, error_len, "cannot make a wake-up for the control plane: no descriptors left");
	} else {
		status = doorbell_watch(control, error, error_len);
		if (status == RSHM_OK)
			return RSHM_OK;
		mailbox_close(&control->mailbox, control_on_undone, control);
	}
	listener_free(&control->listener);
	doorbell_unbind(control);
	if (control->mailbox.closed == NULL)
		control_free(control);
	return status;
}

int control_create(uv_loop_t *loop, const struct control_options *options, const struct control_hooks *hooks,
		   struct control **ret, char *error, size_t error_len)
{
	struct control *control;
	int status = check_options(options, error, error_len);

	if (status < 0)
		return status;
	control = sodium_init() < 0 ? NULL : control_alloc(loop, options, hooks);
	if (control == NULL) {
		snprintf(error, error_len, "no memory for the control plane");
		return RSHM_E_NOMEM;
	}
	status = control_open(control, error, error_len);
	if (status < 0)
		return status;
	must(uv_timer_init(loop, &control->tick) == 0);
	control->tick.data = control;
	listener_begin(control);
	*ret = control;
	return RSHM_OK;
}

/* ---- places and figures -------------------------------------------------------------------------------------- */

bool control_take_place(struct control *control, struct user *user, const char **ret_text)
{
	if (user->places >= control->options.channels_per_uid) {
		*ret_text = "the user has as many clients as limits.channels_per_uid allows; close some, or raise it";
		return false;
	}
	if (control->places >= control->options.clients) {
		*ret_text = "the agent has as many clients as limits.max_clients allows; close some, or raise it";
		return false;
	}
	user->places++;
	control->places++;
	return true;
}

void control_give_place(struct control *control, uid_t uid)
{
	struct user *user = users_find(&control->users, uid);

	must(user != NULL && user->places > 0 && control->places > 0);
	user->places--;
	control->places--;
	users_put(&control->users, user);
}

void control_channel_closed(struct control *control, uid_t uid)
{
	must(control->magic == CONTROL_MAGIC && control->figures.channels_open > 0);
	control->figures.channels_open--;
	control_give_place(control, uid);
}

void control_figures(const struct control *control, struct control_figures *ret)
{
	must(control->magic == CONTROL_MAGIC);
	*ret = control->figures;
}

/* ---- the tick ------------------------------------------------------------------------------------------------ */

static bool control_has_deadlines(const struct control *control)
{
	return control->requests != NULL || control->doorbell.tickets != NULL || control->doorbell.rings != NULL ||
	       control->doorbell.retry_at_ms != 0 || control->listener.retry_at_ms != 0 || control->closing;
}

/* An eighth of the shortest deadline: that late a deadline may be noticed. */
static uint32_t tick_period_ms(const struct control_options *o)
{
	uint32_t shortest_ms =
		o->handshake_timeout_ms < o->request_timeout_ms ? o->handshake_timeout_ms : o->request_timeout_ms;
	uint32_t period_ms = shortest_ms / 8;

	return period_ms < TICK_MIN_MS ? TICK_MIN_MS : period_ms > TICK_MAX_MS ? TICK_MAX_MS : period_ms;
}

void control_need_tick(struct control *control)
{
	uint32_t period_ms = tick_period_ms(&control->options);

	if (!uv_is_active((uv_handle_t *)&control->tick))
		must(uv_timer_start(&control->tick, control_on_tick, period_ms, period_ms) == 0);
}

static void control_on_tick(uv_timer_t *timer)
{
	struct control *control = timer->data;
	uint64_t now_ms = clock_monotonic_ms();

	if (control->closing) {
		control_check_end(control);
		return;
	}
	listener_tick(control, now_ms);
	dispatch_tick(control, now_ms);
	doorbell_tick(control, now_ms);
	if (!control_has_deadlines(control))
		uv_timer_stop(timer);
}

/* ---- the end ------------------------------------------------------------------------------------------------- */

static void control_on_handle_closed(struct control *control)
{
	void (*closed)(void *context) = control->closed;
	void *context = control->closed_context;

	if (--control->end_handles > 0)
		return;
	if (!control->forsaken)
		control_free(control);
	closed(context);
}

static void tick_on_closed(uv_handle_t *handle)
{
	control_on_handle_closed(handle->data);
}

static void mailbox_on_closed(void *context)
{
	control_on_handle_closed(context);
}

static void control_finish(struct control *control)
{
	control->end_handles = 2;
	mailbox_close(&control->mailbox, mailbox_on_closed, control);
	uv_close((uv_handle_t *)&control->tick, tick_on_closed);
}

static void freed_on_arrival(struct mailbox_message *message)
{
	struct control *control = (struct control *)((char *)message - offsetof(struct control, freed));

	/* Closing the mailbox delivers what waits in it: we may have given up a moment ago. */
	if (!control->forsaken)
		control_finish(control);
}

static void *free_on_thread(void *context)
{
	struct control *control = context;

	listener_free(&control->listener);
	(void)mailbox_post(&control->mailbox, &control->freed);
	return NULL;
}

/* Signals belong to the loop's thread. */
static bool start_detached(void *(*body)(void *), void *context)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;
	bool started;

	sigfillset(&all);
	if (pthread_attr_init(&attributes) != 0)
		return false;
	must(pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0);
	must(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
	started = pthread_create(&thread, &attributes, body, context) == 0;
	must(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	pthread_attr_destroy(&attributes);
	return started;
}

static bool control_is_quiet(const struct control *control)
{
	return listener_is_quiet(control) && doorbell_is_quiet(control);
}

void control_check_end(struct control *control)
{
	if (!control->closing || control->end_handles > 0)
		return;
	if (!control->freeing && control_is_quiet(control)) {
		control->freeing = true;
		control->freed.handle = freed_on_arrival;
		if (!start_detached(free_on_thread, control))
			(void)free_on_thread(control);
	} else if (clock_monotonic_ms() >= control->close_deadline_ms && doorbell_is_quiet(control)) {
		log_warn("control", "nng did not let go of %s within %u ms; going on without it",
			 control->control_path, CONTROL_CLOSE_MS);
		control->forsaken = true;
		control_finish(control);
	}
}

void control_close(struct control *control, void (*closed)(void *context), void *context)
{
	must(control->magic == CONTROL_MAGIC && !control->closing);
	control->closing = true;
	control->closed = closed;
	control->closed_context = context;
	control->close_deadline_ms = clock_monotonic_ms() + CONTROL_CLOSE_MS;
	doorbell_close(control);
	dispatch_abandon(control);
	listener_close(control);
	control_need_tick(control);
	control_check_end(control);
}
