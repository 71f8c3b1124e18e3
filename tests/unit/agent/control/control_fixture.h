/*
 * control_fixture.h - a real control plane on a loop thread of its own, hooks that follow a script, and peers made of bare
 * sockets. Included by the tests of this folder, one executable each.
 *
 * Hooks run on the loop thread and count; tests run things there with plane_do(). plane_stop() checks what every test must
 * leave behind: nothing. No descriptor, no socket file, each binding returned exactly once.
 */
#ifndef CONTROL_FIXTURE_H
#define CONTROL_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/control/control.h"
#include "shm/layout.h"
#include "shm/tlv.h"

#define UNUSED __attribute__((unused))
#define CHANNELS_MAX 64
#define PENDING_MAX 64

enum script { SCRIPT_ACCEPT, SCRIPT_REFUSE, SCRIPT_NEVER, SCRIPT_NO_SEGMENT };

struct pending {
	control_attached_fn *attached;
	control_text_fn *text;
	void *context;
};

/* What the hooks were told. */
struct seen {
	uint64_t last_channel_id;
	int last_channel_fd;
	struct control_peer connected_peer;
	char tenant[80], program[80];
	size_t token_length;
	int clock_differs, attach_calls, reloads, dictionary_calls;
	char content_type[80];
	uint32_t dictionary_id;
	uint16_t report_op;
	unsigned int made, connected, released;
};

struct plane {
	/* set before plane_start() */
	struct control_options options;
	char folder[64], control_path[96], doorbell_path[96];
	int descriptors_before;
	/* loop thread */
	pthread_t thread;
	uv_loop_t loop;
	uv_async_t wake;
	struct control *control;
	enum script script;
	char *json;
	struct pending pending[PENDING_MAX];
	unsigned int pending_count;
	bool answer_after_close;
	int channel_fds[CHANNELS_MAX];
	uid_t channel_uids[CHANNELS_MAX];
	unsigned int channel_count;
	struct seen seen;
	/* both, under lock */
	pthread_mutex_t lock;
	pthread_cond_t done;
	void (*job)(struct plane *plane, void *context);
	void *job_context;
	bool started;
	int start_status;
	char error[512];
};

/* ---- hooks --------------------------------------------------------------------------------------------------- */

static void grant(struct plane *p, control_attached_fn *done, void *context, bool segment)
{
	struct control_attached attached = {
		.status = RSHM_OK,
		.segment_object = segment ? "/riptide.test.segment" : NULL,
		.segment_size = segment ? 1u << 20 : 0,
		.entry_limit = 12345,
		.binding = malloc(1),
	};

	must(attached.binding != NULL);
	p->seen.made++;
	done(context, &attached);
}

static void plane_attach(void *context, const struct control_attach *attach, control_attached_fn *done,
			 void *done_context)
{
	struct plane *p = context;
	struct control_attached refused = {.status = RSHM_E_NOTENANT, .error_text = "the script says no"};

	p->seen.attach_calls++;
	snprintf(p->seen.tenant, sizeof(p->seen.tenant), "%s", attach->tenant);
	snprintf(p->seen.program, sizeof(p->seen.program), "%s", attach->program);
	p->seen.token_length = attach->token_len;
	p->seen.clock_differs = attach->clock_differs;
	if (p->script == SCRIPT_REFUSE) {
		done(done_context, &refused);
	} else if (p->script == SCRIPT_NEVER) {
		must(p->pending_count < PENDING_MAX);
		p->pending[p->pending_count++] = (struct pending){.attached = done, .context = done_context};
	} else {
		grant(p, done, done_context, p->script == SCRIPT_ACCEPT && !attach->clock_differs);
	}
}

static void plane_connect(void *context, void *binding, const struct control_peer *peer, int fd, uint64_t channel_id)
{
	struct plane *p = context;
	unsigned char zero = 0;

	must(p->channel_count < CHANNELS_MAX);
	p->seen.connected++;
	p->seen.connected_peer = *peer;
	p->seen.last_channel_id = channel_id;
	p->seen.last_channel_fd = fd;
	p->channel_uids[p->channel_count] = peer->uid;
	p->channel_fds[p->channel_count++] = fd;
	must(fcntl(fd, F_GETFL) & O_NONBLOCK);
	must(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	must(send(fd, &zero, 1, MSG_NOSIGNAL) == 1);
	free(binding);
}

static void plane_release(void *context, void *binding)
{
	((struct plane *)context)->seen.released++;
	free(binding);
}

static void plane_text(struct plane *p, control_text_fn *done, void *done_context)
{
	if (p->script == SCRIPT_REFUSE) {
		done(done_context, RSHM_E_BACKEND, "the script says no");
	} else if (p->script == SCRIPT_NEVER) {
		must(p->pending_count < PENDING_MAX);
		p->pending[p->pending_count++] = (struct pending){.text = done, .context = done_context};
	} else {
		done(done_context, RSHM_OK, p->json != NULL ? p->json : "{\"ok\":true}");
	}
}

static void plane_report(void *context, uint16_t op, const struct control_peer *peer, control_text_fn *done,
			 void *done_context)
{
	(void)peer;
	((struct plane *)context)->seen.report_op = op;
	plane_text(context, done, done_context);
}

static void plane_reload(void *context, control_text_fn *done, void *done_context)
{
	((struct plane *)context)->seen.reloads++;
	plane_text(context, done, done_context);
}

static void plane_dictionary(void *context, const struct control_dictionary *request, control_text_fn *done,
			     void *done_context)
{
	struct plane *p = context;

	p->seen.dictionary_calls++;
	p->seen.report_op = request->op;
	p->seen.dictionary_id = request->id;
	snprintf(p->seen.tenant, sizeof(p->seen.tenant), "%s", request->tenant);
	snprintf(p->seen.content_type, sizeof(p->seen.content_type), "%s",
		 request->content_type ? request->content_type : "not said");
	plane_text(context, done, done_context);
}

/* ---- the loop thread ----------------------------------------------------------------------------------------- */

static void plane_on_wake(uv_async_t *wake)
{
	struct plane *p = wake->data;

	pthread_mutex_lock(&p->lock);
	if (p->job != NULL) {
		p->job(p, p->job_context);
		p->job = NULL;
		pthread_cond_broadcast(&p->done);
	}
	pthread_mutex_unlock(&p->lock);
}

static void *plane_run(void *context)
{
	struct plane *p = context;
	struct control_hooks hooks = {
		.context = p,
		.attach = plane_attach,
		.connect = plane_connect,
		.release = plane_release,
		.report = plane_report,
		.reload = plane_reload,
		.dictionary = plane_dictionary,
	};
	int status;

	must(uv_loop_init(&p->loop) == 0);
	must(uv_async_init(&p->loop, &p->wake, plane_on_wake) == 0);
	p->wake.data = p;
	status = control_create(&p->loop, &p->options, &hooks, &p->control, p->error, sizeof(p->error));
	if (status < 0)
		uv_close((uv_handle_t *)&p->wake, NULL);
	pthread_mutex_lock(&p->lock);
	p->start_status = status;
	p->started = true;
	pthread_cond_broadcast(&p->done);
	pthread_mutex_unlock(&p->lock);
	uv_run(&p->loop, UV_RUN_DEFAULT);
	must(uv_loop_close(&p->loop) == 0);
	return NULL;
}

/* Runs `job` on the loop thread and waits for it. */
static UNUSED void plane_do(struct plane *p, void (*job)(struct plane *plane, void *context), void *context)
{
	pthread_mutex_lock(&p->lock);
	p->job = job;
	p->job_context = context;
	uv_async_send(&p->wake);
	while (p->job != NULL)
		pthread_cond_wait(&p->done, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

static void job_seen(struct plane *p, void *context)
{
	*(struct seen *)context = p->seen;
}

/* A copy of what the hooks have been told until now; valid until the next one. */
static UNUSED const struct seen *seen(struct plane *p)
{
	static struct seen copy;

	plane_do(p, job_seen, &copy);
	return &copy;
}

static void job_figures(struct plane *p, void *context)
{
	control_figures(p->control, context);
}

static UNUSED struct control_figures plane_figures(struct plane *p)
{
	struct control_figures figures;

	plane_do(p, job_figures, &figures);
	return figures;
}

static void job_script(struct plane *p, void *context)
{
	p->script = *(enum script *)context;
}

static UNUSED void plane_script(struct plane *p, enum script script)
{
	plane_do(p, job_script, &script);
}

static void answer_pending(struct plane *p, void *context)
{
	(void)context;
	for (unsigned int i = 0; i < p->pending_count; i++) {
		struct pending *late = &p->pending[i];

		if (late->attached != NULL)
			grant(p, late->attached, late->context, true);
		else
			late->text(late->context, RSHM_OK, "{}");
	}
	p->pending_count = 0;
}

static void end_channels(struct plane *p, void *context)
{
	(void)context;
	for (unsigned int i = 0; i < p->channel_count; i++) {
		close(p->channel_fds[i]);
		control_channel_closed(p->control, p->channel_uids[i]);
	}
	p->channel_count = 0;
}

static void plane_on_closed(void *context)
{
	struct plane *p = context;

	/* Hooks may answer whenever they like: the control plane is gone. */
	answer_pending(p, NULL);
	uv_close((uv_handle_t *)&p->wake, NULL);
}

static void job_close(struct plane *p, void *context)
{
	(void)context;
	end_channels(p, NULL);
	if (!p->answer_after_close)
		answer_pending(p, NULL);
	control_close(p->control, plane_on_closed, p);
}

/* ---- life of a test ------------------------------------------------------------------------------------------ */

static UNUSED int count_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	int count = 0;

	must(folder != NULL);
	while (readdir(folder) != NULL)
		count++;
	closedir(folder);
	return count;
}

static UNUSED void sleep_ms(unsigned int ms)
{
	struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&pause, NULL);
}

static UNUSED void plane_init(struct plane *p)
{
	*p = (struct plane){.descriptors_before = count_descriptors()};
	snprintf(p->folder, sizeof(p->folder), "/tmp/riptide-plane-XXXXXX");
	must(mkdtemp(p->folder) != NULL);
	must(chmod(p->folder, 0755) == 0);
	snprintf(p->control_path, sizeof(p->control_path), "%s/control.sock", p->folder);
	snprintf(p->doorbell_path, sizeof(p->doorbell_path), "%s/doorbell.sock", p->folder);
	must(pthread_mutex_init(&p->lock, NULL) == 0);
	must(pthread_cond_init(&p->done, NULL) == 0);
	p->options = (struct control_options){
		.control_path = p->control_path,
		.doorbell_path = p->doorbell_path,
		.socket_mode = 0666,
		.agent_object = "/riptide.test.agent",
		.agent_object_size = 65536,
		.message_bytes = 1u << 20,
		.answer_bytes = 1u << 20,
		.handshake_timeout_ms = 2000,
		.request_timeout_ms = 2000,
		.connections = 256,
		.connections_per_uid = 200,
		.channels_per_uid = 32,
		.clients = 48,
		.attaches_per_second_per_uid = 10000,
	};
}

static UNUSED int plane_try_start(struct plane *p)
{
	must(pthread_create(&p->thread, NULL, plane_run, p) == 0);
	pthread_mutex_lock(&p->lock);
	while (!p->started)
		pthread_cond_wait(&p->done, &p->lock);
	pthread_mutex_unlock(&p->lock);
	return p->start_status;
}

static UNUSED void plane_start(struct plane *p)
{
	if (plane_try_start(p) < 0)
		fail_msg("%s", p->error);
}

/* nng gives descriptors back on threads of its own, a moment later. */
static void check_descriptors(const struct plane *p)
{
	int now = 0;

	for (int i = 0; i < 300; i++) {
		now = count_descriptors();
		if (now <= p->descriptors_before)
			break;
		sleep_ms(10);
	}
	assert_int_equal(now, p->descriptors_before);
}

/* Waits for a plane that is closing or never came up. */
static UNUSED void plane_join(struct plane *p)
{
	pthread_join(p->thread, NULL);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->done);
	assert_int_equal(p->seen.made, p->seen.connected + p->seen.released);
	/* Only an empty folder can be removed. */
	assert_int_equal(rmdir(p->folder), 0);
	check_descriptors(p);
}

static UNUSED void plane_stop(struct plane *p)
{
	uint64_t begun_ms = clock_monotonic_ms();

	plane_do(p, job_close, NULL);
	plane_join(p);
	assert_true(clock_monotonic_ms() - begun_ms < 2500);
}

/* ---- peers --------------------------------------------------------------------------------------------------- */

/* A blocking connection that gives up after 10 s; -1 if refused. */
static UNUSED int peer_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = 10};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static UNUSED bool peer_send(int fd, const void *bytes, size_t length)
{
	const unsigned char *from = bytes;

	while (length > 0) {
		ssize_t n = send(fd, from, length, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		from += n;
		length -= (size_t)n;
	}
	return true;
}

static UNUSED bool peer_receive(int fd, void *bytes, size_t length)
{
	return recv(fd, bytes, length, MSG_WAITALL) == (ssize_t)length;
}

/* True if the other end closes before `limit_ms`; whatever it still sends is read over. */
static UNUSED bool peer_is_closed_within(int fd, unsigned int limit_ms)
{
	uint64_t end_ms = clock_monotonic_ms() + limit_ms;
	char scrap[4096];

	for (;;) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		uint64_t now_ms = clock_monotonic_ms();

		if (now_ms >= end_ms || poll(&wait, 1, (int)(end_ms - now_ms)) <= 0)
			return false;
		if (recv(fd, scrap, sizeof(scrap), MSG_DONTWAIT) <= 0)
			return true;
	}
}

static const unsigned char peer_hello_bytes[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};

static UNUSED bool peer_hello(int fd)
{
	unsigned char answer[8];

	return peer_send(fd, peer_hello_bytes, 8) && peer_receive(fd, answer, 8) && answer[5] == 0x31;
}

static UNUSED size_t frame_head(unsigned char *to, uint32_t id, size_t body_length)
{
	uint64_t length = body_length + 4;

	to[0] = 1;
	for (int i = 0; i < 8; i++)
		to[1 + i] = (unsigned char)(length >> (56 - 8 * i));
	id |= 0x80000000u;
	for (int i = 0; i < 4; i++)
		to[9 + i] = (unsigned char)(id >> (24 - 8 * i));
	return 13;
}

static UNUSED bool peer_send_frame(int fd, uint32_t id, const void *body, size_t length)
{
	unsigned char head[13];

	return peer_send(fd, head, frame_head(head, id, length)) && peer_send(fd, body, length);
}

/* One answer, decoded. `bytes` is to be freed. */
struct reply {
	unsigned char *bytes;
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
};

/* False: the connection was closed, or the answer is not one to `id`. */
static UNUSED bool peer_receive_reply(int fd, uint32_t id, struct reply *ret)
{
	unsigned char head[13], wanted[13];
	uint64_t length = 0;

	if (!peer_receive(fd, head, sizeof(head)))
		return false;
	for (int i = 1; i < 9; i++)
		length = length << 8 | head[i];
	frame_head(wanted, id, length - 4);
	if (length < 4 || length > 64u << 20 || memcmp(head, wanted, sizeof(head)) != 0)
		return false;
	length -= 4;
	ret->bytes = malloc(length + 1);
	must(ret->bytes != NULL);
	if (peer_receive(fd, ret->bytes, length) &&
	    rshm_tlv_open(&ret->reader, ret->bytes, length, &ret->header) == RSHM_OK)
		return true;
	free(ret->bytes);
	return false;
}

static UNUSED bool reply_find(const struct reply *reply, enum rshm_tag tag, struct rshm_tlv *ret)
{
	struct rshm_tlv_reader reader = reply->reader;

	while (rshm_tlv_next(&reader, ret) > 0)
		if (ret->tag == tag)
			return true;
	return false;
}

static UNUSED size_t message_of(unsigned char *to, size_t capacity, uint16_t op, uint32_t id)
{
	struct rshm_tlv_writer writer;

	rshm_tlv_begin(&writer, to, capacity, op, 0, id);
	return (size_t)rshm_tlv_finish(&writer);
}

struct attach_words {
	const char *tenant, *program;
	uint32_t layout;
	int64_t clock_offset_ms;
	size_t token_length;
};

static UNUSED size_t attach_message(unsigned char *to, size_t capacity, uint32_t id, const struct attach_words *words)
{
	struct rshm_tlv_writer writer;
	static const unsigned char token[8192];

	rshm_tlv_begin(&writer, to, capacity, RSHM_CONTROL_ATTACH, 0, id);
	rshm_tlv_text(&writer, RSHM_TAG_TENANT, words->tenant);
	rshm_tlv_u32(&writer, RSHM_TAG_LAYOUT_MAJOR, words->layout);
	rshm_tlv_u64(&writer, RSHM_TAG_CLOCK_MS, clock_monotonic_ms() + (uint64_t)words->clock_offset_ms);
	rshm_tlv_text(&writer, RSHM_TAG_CLIENT_NAME, words->program);
	if (words->token_length > 0)
		rshm_tlv_bytes(&writer, RSHM_TAG_TOKEN, token, words->token_length);
	rshm_tlv_u32(&writer, 999, 7); /* of a later release: skipped */
	return (size_t)rshm_tlv_finish(&writer);
}

static const struct attach_words good_words UNUSED = {
	.tenant = "default", .program = "test", .layout = RSHM_LAYOUT_MAJOR};

/* Sends a message over a connection that has said hello; its answer's status, or 1000 if there was none. */
static UNUSED int peer_ask(int fd, const unsigned char *message, size_t length, unsigned char *ret_ticket)
{
	static _Atomic uint32_t next_id;
	uint32_t id = ++next_id;
	struct reply reply;
	struct rshm_tlv tlv;
	int status;

	if (!peer_send_frame(fd, id, message, length) || !peer_receive_reply(fd, id, &reply))
		return 1000;
	status = reply.header.status;
	/* Whatever fails says why. */
	must(status >= 0 || reply_find(&reply, RSHM_TAG_ERROR_TEXT, &tlv));
	if (status == RSHM_OK && ret_ticket != NULL) {
		must(reply_find(&reply, RSHM_TAG_TICKET, &tlv) && tlv.length == 16);
		memcpy(ret_ticket, tlv.value, 16);
	}
	free(reply.bytes);
	return status;
}

static UNUSED int peer_op(int fd, uint16_t op)
{
	unsigned char message[64];

	return peer_ask(fd, message, message_of(message, sizeof(message), op, 77), NULL);
}

static UNUSED int peer_attach(int fd, const struct attach_words *words, unsigned char *ret_ticket)
{
	static _Thread_local unsigned char message[16384];

	return peer_ask(fd, message, attach_message(message, sizeof(message), 78, words), ret_ticket);
}

/* Connects and says hello; never fails. */
static UNUSED int peer_open(const struct plane *p)
{
	int fd = peer_connect(p->control_path);

	assert_true(fd >= 0);
	assert_true(peer_hello(fd));
	return fd;
}

/* Shows a ticket: the byte that comes back, or -1 if none. The connection stays open if `ret_fd`. */
static UNUSED int show_ticket(const struct plane *p, const void *ticket, size_t length, int *ret_fd)
{
	int fd = peer_connect(p->doorbell_path);
	unsigned char byte;
	int result = -1;

	must(fd >= 0);
	if (peer_send(fd, ticket, length) && peer_receive(fd, &byte, 1))
		result = byte;
	if (ret_fd != NULL)
		*ret_fd = fd;
	else
		close(fd);
	return result;
}

/* Runs `body` as another user in a child that only uses bare sockets; its exit status. */
static UNUSED int as_user(uid_t uid, int (*body)(struct plane *plane, void *context), struct plane *p, void *context)
{
	pid_t child = fork();
	int status;

	must(child >= 0);
	if (child == 0) {
		if (setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
			_exit(200);
		_exit(body(p, context));
	}
	must(waitpid(child, &status, 0) == child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 201;
}

/* nng opens descriptors of its own at first use, and keeps them: before they are counted. Logs only what is an error. */
static UNUSED int group_setup(void **state)
{
	struct plane p;

	(void)state;
	log_setup(LOG_FORMAT_TEXT, LOG_LEVEL_ERROR);
	p = (struct plane){0};
	plane_init(&p);
	p.descriptors_before = 1 << 20;
	must(plane_try_start(&p) == RSHM_OK);
	close(peer_open(&p));
	plane_do(&p, job_close, NULL);
	pthread_join(p.thread, NULL);
	rmdir(p.folder);
	sleep_ms(100);
	return 0;
}

#endif
