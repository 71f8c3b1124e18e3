/*
 * attach.c - from nothing to a channel, and back again when the agent goes away.
 *
 *   ASK       control socket: SP hello, ATTACH, its answer names ticket, doorbell and objects
 *   OBJECTS   agent object and segment are opened read-only and checked: owner = the user that the kernel names as the
 *             control socket's peer, size = what was told. No segment is no error: this client then has no hot reads
 *   BELL      doorbell socket (same user): the ticket, then one byte and the channel's memfd
 *   DONE      published under the lock: from here on other threads use it
 *
 * rt_attach() is one attempt. Who repeats it, how often and how long, is rt_channel_acquire(): one thread attaches, the
 * others wait for it, each at most until its own deadline. While an agent has been away for longer than a whole timeout,
 * calls no longer wait for it: they try once, not more often than every RETRY_MAX_MS, and fail at once in between.
 *
 * An agent is gone when its object says so (state, restarts, instance) or its end of the doorbell is closed. The doorbell is
 * looked at only while it is still ours: applications close, and reuse the numbers of, descriptors they do not know.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client-lib/control.h"
#include "client-lib/riptide_priv.h"
#include "shm/order.h"
#include "shm/tlv.h"

#define TICKET_BYTES 16u
#define BELL_FD_MIN 100 /* out of the way of applications that count on low numbers */
#define RETRY_MAX_MS 100u
#define ALL_SLOTS UINT32_MAX
#define ALL_BLOCKS ((1ull << RSHM_BLOCKS) - 1)

enum attach_state { ATTACH_ASK, ATTACH_OBJECTS, ATTACH_BELL, ATTACH_DONE };

struct attach {
	riptide *handle;
	uint64_t deadline_ms;
	char *trouble;
	uid_t agent_uid;
	/* what the agent answered */
	char doorbell[108], agent_name[RSHM_NAME_MAX], segment_name[RSHM_NAME_MAX], text[RT_TEXT];
	uint64_t agent_size, segment_size, entry_limit;
	uint32_t told_uid;
	bool has_ticket, has_uid;
	unsigned char ticket[TICKET_BYTES];
	/* what was made of it */
	struct rt_channel *channel;
	struct rt_sight *sight; /* NULL: the present one stays */
};

/* ---- the doorbell ------------------------------------------------------------------------------------------- */

bool rt_bell_is_ours(const struct rt_bell *bell)
{
	struct stat st;

	return bell->fd >= 0 && fstat(bell->fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_dev == bell->device &&
	       st.st_ino == bell->inode;
}

void rt_bell_close(struct rt_bell *bell)
{
	if (rt_bell_is_ours(bell))
		close(bell->fd);
	bell->fd = -1;
}

static int bell_move_up(int fd, struct rt_bell *ret, char *trouble)
{
	struct stat st;
	int high = fcntl(fd, F_DUPFD_CLOEXEC, BELL_FD_MIN);

	if (high >= 0) {
		close(fd);
		fd = high;
	}
	if (fstat(fd, &st) < 0) {
		close(fd);
		return rt_trouble(trouble, RIPTIDE_ESYSTEM, "fstat of the doorbell: %s", strerror(errno));
	}
	*ret = (struct rt_bell){.fd = fd, .device = st.st_dev, .inode = st.st_ino};
	return RIPTIDE_OK;
}

/* Receives the welcome: one byte, and a descriptor if it is 0. Other descriptors are closed. */
static int receive_welcome(int fd, uint64_t deadline_ms, int *ret_memfd, char *trouble)
{
	unsigned char byte = 0xff;
	struct iovec vector = {.iov_base = &byte, .iov_len = 1};
	union {
		char bytes[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr message = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	int memfd = -1, status = rt_stream_wait(fd, POLLIN, deadline_ms, trouble);
	ssize_t n;

	if (status < 0)
		return status;
	n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n <= 0)
		return rt_trouble(trouble, RIPTIDE_ENOAGENT, "the agent hung up at the doorbell");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int received;

			memcpy(&received, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (memfd < 0)
				memfd = received;
			else
				close(received);
		}
	}
	if (byte == 0 && memfd >= 0) {
		*ret_memfd = memfd;
		return RIPTIDE_OK;
	}
	if (memfd >= 0)
		close(memfd);
	if (byte == 0)
		return rt_trouble(trouble, RIPTIDE_EPROTOCOL, "the agent sent no channel");
	return rt_trouble(trouble, -(int)byte, "the agent refuses the channel: %s", rt_strerror(-(int)byte));
}

static int ring_in(struct attach *a, int fd, struct rshm_map *ret_map)
{
	int memfd = -1, status = rt_stream_send(fd, a->ticket, TICKET_BYTES, a->deadline_ms, a->trouble);

	if (status == RIPTIDE_OK)
		status = receive_welcome(fd, a->deadline_ms, &memfd, a->trouble);
	if (status < 0)
		return status;
	status = rshm_map_channel(memfd, ret_map);
	close(memfd);
	if (status < 0)
		return rt_trouble(a->trouble, status, "the agent's channel cannot be mapped: %s",
				  rt_strerror(status));
	status = rshm_channel_check(ret_map->base, ret_map->size);
	if (status < 0) {
		rshm_unmap(ret_map);
		return rt_trouble(a->trouble, status, "the agent's channel is none that this library knows");
	}
	return RIPTIDE_OK;
}

static int attach_bell(struct attach *a)
{
	struct rt_channel *channel = a->channel;
	uid_t uid;
	int fd, status = rt_stream_connect(a->doorbell, a->deadline_ms, &fd, &uid, a->trouble);

	if (status < 0)
		return status;
	if (uid != a->agent_uid) {
		close(fd);
		return rt_trouble(a->trouble, RIPTIDE_EDENIED,
				  "control socket and doorbell belong to different users");
	}
	status = ring_in(a, fd, &channel->map);
	if (status < 0) {
		close(fd);
		return status;
	}
	channel->shared = channel->map.base;
	return bell_move_up(fd, &channel->bell, a->trouble);
}

/* ---- asking ------------------------------------------------------------------------------------------------- */

static bool take_tag(struct attach *a, const struct rshm_tlv *tlv)
{
	switch (tlv->tag) {
	case RSHM_TAG_DOORBELL:
		return rshm_tlv_get_text(tlv, a->doorbell, sizeof(a->doorbell)) && a->doorbell[0] == '/';
	case RSHM_TAG_TICKET:
		a->has_ticket = tlv->length == TICKET_BYTES;
		if (a->has_ticket)
			memcpy(a->ticket, tlv->value, TICKET_BYTES);
		return a->has_ticket;
	case RSHM_TAG_AGENT_OBJECT:
		return rshm_tlv_get_text(tlv, a->agent_name, sizeof(a->agent_name));
	case RSHM_TAG_AGENT_SIZE:
		return rshm_tlv_get_u64(tlv, &a->agent_size);
	case RSHM_TAG_SEGMENT_OBJECT:
		return rshm_tlv_get_text(tlv, a->segment_name, sizeof(a->segment_name));
	case RSHM_TAG_SEGMENT_SIZE:
		return rshm_tlv_get_u64(tlv, &a->segment_size);
	case RSHM_TAG_AGENT_UID:
		a->has_uid = rshm_tlv_get_u32(tlv, &a->told_uid);
		return a->has_uid;
	case RSHM_TAG_ENTRY_LIMIT:
		return rshm_tlv_get_u64(tlv, &a->entry_limit);
	case RSHM_TAG_ERROR_TEXT:
		/* For people only: a text that does not fit is left out. */
		(void)rshm_tlv_get_text(tlv, a->text, sizeof(a->text));
		return true;
	default:
		return true;
	}
}

static int parse_answer(struct attach *a, const unsigned char *answer, size_t length)
{
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;
	int status = rshm_tlv_open(&reader, answer, length, &header);

	if (status < 0)
		return rt_trouble(a->trouble, status, "the agent's answer is no control message of this version");
	while ((status = rshm_tlv_next(&reader, &tlv)) > 0)
		if (!take_tag(a, &tlv))
			return rt_trouble(a->trouble, RIPTIDE_EPROTOCOL, "the agent's answer has a bad tag %u",
					  tlv.tag);
	if (status < 0 || header.op != RSHM_CONTROL_ATTACH)
		return rt_trouble(a->trouble, RIPTIDE_EPROTOCOL, "the agent's answer cannot be understood");
	if (header.status < 0)
		return rt_trouble(a->trouble, header.status, "the agent refuses tenant %s: %s", a->handle->tenant,
				  a->text[0] ? a->text : rt_strerror(header.status));
	if (!a->has_ticket || !a->doorbell[0] || !a->agent_name[0])
		return rt_trouble(a->trouble, RIPTIDE_EPROTOCOL,
				  "the agent's answer lacks ticket, doorbell or object");
	if (a->has_uid && a->told_uid != a->agent_uid)
		return rt_trouble(a->trouble, RIPTIDE_EDENIED,
				  "the agent calls itself user %u, the kernel says %u: user namespaces differ",
				  a->told_uid, (unsigned int)a->agent_uid);
	return RIPTIDE_OK;
}

static int attach_ask(struct attach *a)
{
	const riptide *handle = a->handle;
	unsigned char message[8192], *answer;
	struct rshm_tlv_writer writer;
	size_t answer_length;
	int64_t length;
	int status;

	rshm_tlv_begin(&writer, message, sizeof(message), RSHM_CONTROL_ATTACH, 0, 1);
	rshm_tlv_text(&writer, RSHM_TAG_TENANT, handle->tenant);
	if (handle->token_length)
		rshm_tlv_bytes(&writer, RSHM_TAG_TOKEN, handle->token, handle->token_length);
	rshm_tlv_u32(&writer, RSHM_TAG_LAYOUT_MAJOR, RSHM_LAYOUT_MAJOR);
	rshm_tlv_u32(&writer, RSHM_TAG_PROCESS_ID, (uint32_t)getpid());
	rshm_tlv_u64(&writer, RSHM_TAG_CLOCK_MS, rshm_now_ms());
	rshm_tlv_text(&writer, RSHM_TAG_CLIENT_NAME, handle->name);
	length = rshm_tlv_finish(&writer);
	if (length < 0)
		return rt_trouble(a->trouble, RIPTIDE_ETOOBIG, "the token is too long");
	status = rt_control_ask(handle->socket, message, (size_t)length, a->deadline_ms, &answer, &answer_length,
				&a->agent_uid, a->trouble);
	explicit_bzero(message, sizeof(message));
	if (status < 0)
		return status;
	status = parse_answer(a, answer, answer_length);
	explicit_bzero(answer, answer_length);
	free(answer);
	return status;
}

/* ---- objects ------------------------------------------------------------------------------------------------ */

/* The present sight's mapping of that name, or a fresh one. A fresh one has no user yet. */
static int open_object(struct attach *a, struct rt_mapping *present, const char *name, uint64_t size,
		       struct rt_mapping **ret)
{
	if (present && strcmp(present->name, name) == 0 && present->map.size == size) {
		*ret = present;
		return RIPTIDE_OK;
	}
	return rt_mapping_open(name, size, a->agent_uid, ret, a->trouble);
}

static void unref_fresh(struct rt_mapping *mapping, const struct rt_mapping *present)
{
	if (mapping && mapping != present)
		rt_mapping_unref(mapping);
}

/* Lock held. A new sight of what the agent named; mappings that are still the right ones are shared with the present sight. */
static int make_sight(struct attach *a, struct rt_sight *present, struct rt_mapping *agent)
{
	struct rt_mapping *segment = NULL, *present_segment = present ? present->segment : NULL;
	int status = RIPTIDE_OK;

	if (a->segment_name[0])
		status = open_object(a, present_segment, a->segment_name, a->segment_size, &segment);
	if (status == RIPTIDE_OK && segment)
		status = rt_sight_create(agent, segment, &a->sight, a->trouble);
	if (status < 0)
		unref_fresh(segment, present_segment);
	if (status == RIPTIDE_OK && segment)
		return RIPTIDE_OK;
	/* Served through the channel alone; the segment is asked for again later (rt_relocate). */
	if (status == RIPTIDE_OK && a->text[0])
		(void)rt_trouble(a->trouble, RIPTIDE_OK, "no hot reads: %s", a->text);
	return rt_sight_create(agent, NULL, &a->sight, a->trouble);
}

static int attach_objects(struct attach *a)
{
	struct rt_process *process = a->handle->process;
	struct rt_sight *present;
	struct rt_mapping *agent, *present_agent;
	const struct rshm_agent *object;
	int status;

	pthread_mutex_lock(&process->lock);
	present = rt_sight_now(a->handle);
	present_agent = present ? present->agent : NULL;
	status = open_object(a, present_agent, a->agent_name, a->agent_size, &agent);
	if (status == RIPTIDE_OK) {
		status = make_sight(a, present, agent);
		if (status < 0)
			unref_fresh(agent, present_agent);
	}
	if (status == RIPTIDE_OK) {
		object = agent->map.base;
		a->channel->agent = agent;
		agent->users++;
		a->channel->agent_restarts = rshm_load_acquire(&object->restarts);
		rshm_copy_out(a->channel->agent_instance, object->header.instance, 16);
	}
	pthread_mutex_unlock(&process->lock);
	return status;
}

/* ---- all of it ---------------------------------------------------------------------------------------------- */

static int attach_step(struct attach *a, enum attach_state *state)
{
	int status = RIPTIDE_OK;

	switch (*state) {
	case ATTACH_ASK:
		status = attach_ask(a);
		*state = ATTACH_OBJECTS;
		break;
	case ATTACH_OBJECTS:
		status = attach_objects(a);
		*state = ATTACH_BELL;
		break;
	case ATTACH_BELL:
		status = attach_bell(a);
		*state = ATTACH_DONE;
		break;
	case ATTACH_DONE:
		break;
	}
	return status;
}

static void publish(struct attach *a)
{
	struct rt_process *process = a->handle->process;
	struct rt_channel *channel = a->channel;

	channel->kept.is_channel = true;
	channel->agent_uid = a->agent_uid;
	channel->entry_limit = a->entry_limit;
	channel->free_slots = ALL_SLOTS;
	channel->free_blocks = ALL_BLOCKS;
	pthread_mutex_lock(&process->lock);
	a->handle->inherited = channel;
	process->channel = channel;
	process->attaches++;
	process->outage_since_ms = process->next_attempt_ms = process->next_locate_ms = 0;
	a->handle->limited = rshm_load_relaxed(&channel->shared->shards[0].stop_hits) != UINT64_MAX ||
			     rshm_load_relaxed(&channel->shared->shards[0].stop_bytes) != UINT64_MAX;
	/* Pairs with the acquire in rt_look_begin(). */
	rshm_store_release(&process->shards, (uintptr_t)channel->shared->shards);
	rt_sight_publish(a->handle, a->sight);
	pthread_cond_broadcast(&process->changed);
	pthread_mutex_unlock(&process->lock);
}

/* Undoes what was begun; nobody else has seen it. */
static void abandon(struct attach *a)
{
	struct rt_process *process = a->handle->process;

	pthread_mutex_lock(&process->lock);
	if (a->sight)
		rt_keep(a->handle, &a->sight->kept);
	rt_channel_destroy(a->handle, a->channel);
	rt_reclaim(a->handle);
	pthread_mutex_unlock(&process->lock);
}

int rt_attach(riptide *handle, uint64_t deadline_ms, char *trouble)
{
	struct attach a = {.handle = handle, .deadline_ms = deadline_ms, .trouble = trouble};
	enum attach_state state = ATTACH_ASK;
	int status = RIPTIDE_OK;

	trouble[0] = '\0';
	a.channel = calloc(1, sizeof(*a.channel));
	if (!a.channel)
		return rt_trouble(trouble, RIPTIDE_ENOMEM, "no memory for a channel");
	a.channel->bell.fd = -1;
	while (status == RIPTIDE_OK && state != ATTACH_DONE)
		status = attach_step(&a, &state);
	if (status == RIPTIDE_OK)
		publish(&a);
	else
		abandon(&a);
	return status;
}

/* ---- the channel's life ------------------------------------------------------------------------------------- */

bool rt_channel_is_dead(const struct rt_channel *channel, bool thoroughly)
{
	const struct rshm_agent *agent = channel->agent->map.base;
	uint8_t instance[16];
	char byte;

	if (rshm_load_acquire32(&agent->state) != RSHM_LIVE ||
	    rshm_load_acquire(&agent->restarts) != channel->agent_restarts)
		return true;
	if (!thoroughly)
		return false;
	rshm_copy_out(instance, agent->header.instance, sizeof(instance));
	if (memcmp(instance, channel->agent_instance, sizeof(instance)) != 0 || !rt_bell_is_ours(&channel->bell))
		return true;
	/* The agent never sends: end of file and bytes alike mean that this socket serves no more. */
	return !(recv(channel->bell.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
		 (errno == EAGAIN || errno == EINTR));
}

void rt_channel_destroy(riptide *handle, struct rt_channel *channel)
{
	struct rt_process *process = handle->process;

	if (channel->shared) {
		for (unsigned int i = 0; i < RSHM_SHARDS; i++) {
			process->past_hits += rshm_load_relaxed(&channel->shared->shards[i].hits);
			process->past_misses += rshm_load_relaxed(&channel->shared->shards[i].misses);
			process->past_retries += rshm_load_relaxed(&channel->shared->shards[i].retries);
		}
	}
	/* First forgotten, then freed: a child born in between leaks it, and does not free it twice. */
	if (handle->inherited == channel)
		handle->inherited = NULL;
	rt_bell_close(&channel->bell);
	rshm_unmap(&channel->map);
	if (channel->agent)
		rt_mapping_unref(channel->agent);
	free(channel);
}

/* Lock held. */
static void drop_locked(riptide *handle, struct rt_channel *channel)
{
	struct rt_process *process = handle->process;

	if (process->channel != channel)
		return;
	process->channel = NULL;
	rt_use_private_shards(handle);
	rt_keep(handle, &channel->kept);
	pthread_cond_broadcast(&process->changed);
}

void rt_channel_drop(riptide *handle, struct rt_channel *channel)
{
	pthread_mutex_lock(&handle->process->lock);
	drop_locked(handle, channel);
	pthread_mutex_unlock(&handle->process->lock);
}

void rt_channel_release(riptide *handle, struct rt_channel *channel)
{
	struct rt_process *process = handle->process;

	pthread_mutex_lock(&process->lock);
	channel->users--;
	if (process->kept)
		rt_reclaim(handle);
	pthread_mutex_unlock(&process->lock);
}

/* ---- trying until the deadline ------------------------------------------------------------------------------ */

static bool may_pass(int status)
{
	return status == RIPTIDE_ENOAGENT || status == RIPTIDE_EAGAIN || status == RIPTIDE_ECLOSED;
}

static void sleep_ms(uint64_t ms)
{
	struct timespec pause = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&pause, NULL);
}

/* A number in [ms/2, ms]: processes that lost the same agent do not come back in step. */
static uint64_t with_jitter(uint64_t ms)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return ms - ((uint64_t)now.tv_nsec >> 8 ^ (uint64_t)getpid()) % (ms / 2 + 1);
}

/* By the thread that has set `attaching`; without the lock. */
static int attach_until(riptide *handle, uint64_t deadline_ms, char *trouble)
{
	struct rt_process *process = handle->process;
	uint64_t wait_ms = 1;

	for (;;) {
		uint64_t now_ms = rshm_now_ms();
		int status;

		if (process->next_attempt_ms > now_ms)
			return rt_trouble(
				trouble, RIPTIDE_ENOAGENT,
				"the agent at %s has been away for %llu ms; start riptided or set RIPTIDE_SOCKET",
				handle->socket, (unsigned long long)(now_ms - process->outage_since_ms));
		status = rt_attach(handle, deadline_ms, trouble);
		if (status == RIPTIDE_OK || !may_pass(status))
			return status;
		now_ms = rshm_now_ms();
		if (process->outage_since_ms == 0)
			process->outage_since_ms = now_ms;
		if (now_ms - process->outage_since_ms >= handle->timeout_ms) {
			process->next_attempt_ms = now_ms + RETRY_MAX_MS;
			return status;
		}
		if (now_ms + wait_ms >= deadline_ms)
			return status;
		sleep_ms(with_jitter(wait_ms));
		wait_ms = wait_ms * 2 < RETRY_MAX_MS ? wait_ms * 2 : RETRY_MAX_MS;
	}
}

int rt_channel_acquire(riptide *handle, uint64_t deadline_ms, struct rt_channel **ret, char *trouble)
{
	struct rt_process *process = handle->process;
	int status = RIPTIDE_OK;

	pthread_mutex_lock(&process->lock);
	for (;;) {
		if (process->channel && rt_channel_is_dead(process->channel, false))
			drop_locked(handle, process->channel);
		if (process->channel) {
			process->channel->users++;
			*ret = process->channel;
			break;
		}
		if (process->attaching) {
			if (rt_process_wait(process, deadline_ms) || rshm_now_ms() < deadline_ms)
				continue;
			status = rt_trouble(trouble, RIPTIDE_ENOAGENT, "the agent at %s does not answer",
					    handle->socket);
			break;
		}
		if (process->kept_count >= RT_KEEP_MAX) {
			rt_reclaim(handle);
			if (process->kept_count >= RT_KEEP_MAX) {
				status = rt_trouble(trouble, RIPTIDE_EAGAIN,
						    "a view or a call has been held across %u replacements",
						    RT_KEEP_MAX);
				break;
			}
		}
		process->attaching = true;
		pthread_mutex_unlock(&process->lock);
		status = attach_until(handle, deadline_ms, trouble);
		pthread_mutex_lock(&process->lock);
		process->attaching = false;
		pthread_cond_broadcast(&process->changed);
		if (status < 0)
			break;
	}
	pthread_mutex_unlock(&process->lock);
	return status;
}
