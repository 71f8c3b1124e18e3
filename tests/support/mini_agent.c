/*
 * mini_agent.c - the agent's side of the protocol in one loop, for tests.
 *
 * One process, one thread: poll() over the control listener, the doorbell listener and the doorbells; channels are armed
 * before each poll, as the real worker does. Control connections are served one at a time, blocking. Whatever goes wrong
 * ends the process, which the test then notices.
 */
#include "tests/support/mini_agent.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/channel.h"
#include "shm/index.h"
#include "shm/order.h"
#include "shm/os/futex.h"
#include "shm/ring.h"
#include "shm/source.h"
#include "shm/tlv.h"
#include "tests/support/mini_agent_priv.h"

#define RING_BYTES (4u << 20)
#define HOUR_MS 3600000u

struct mini mini;

void mini_need(int condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "mini agent: %s: %s\n", what, strerror(errno));
	_exit(70);
}

/* ---- objects ------------------------------------------------------------------------------------------------ */

static void random_name(char *name)
{
	uint64_t words[2];

	mini_need(getrandom(words, sizeof(words), 0) == sizeof(words), "getrandom");
	(void)snprintf(name, RSHM_NAME_MAX, "/riptide.test.%016llx%016llx", (unsigned long long)words[0],
		       (unsigned long long)words[1]);
}

static void make_segment(uint64_t ring_bytes)
{
	struct rshm_geometry geometry;
	struct rshm_header header = {.generation = mini.version};
	int fd;

	rshm_geometry_plan(ring_bytes, 1u << 20, &geometry);
	random_name(mini.knobs->segment_name);
	mini.knobs->segment_size = geometry.object_size;
	mini_need(rshm_map_create(mini.knobs->segment_name, geometry.object_size, &mini.segment_map, &fd) == 0,
		  "segment");
	close(fd);
	rshm_writer_format(mini.segment_map.base, &geometry, &header, "default", 42, &mini.writer);
	rshm_writer_publish(&mini.writer, RSHM_POLICY_STALE, HOUR_MS);
}

static void make_objects(void)
{
	struct mini_knobs *knobs = mini.knobs;
	int fd;

	if (knobs->adopt) {
		mini_need(rshm_map_adopt(knobs->agent_name, &mini.agent_map) == 0, "adopt agent object");
		mini.agent = mini.agent_map.base;
		mini_need(rshm_map_adopt(knobs->segment_name, &mini.segment_map) == 0, "adopt segment");
		mini_need(rshm_writer_adopt(mini.segment_map.base, mini.segment_map.size, &mini.writer) == 0,
			  "adopt ring");
		rshm_store_release(&mini.agent->restarts, mini.agent->restarts + 1);
	} else {
		if (knobs->agent_name[0])
			(void)rshm_unlink(knobs->agent_name);
		if (knobs->segment_name[0])
			(void)rshm_unlink(knobs->segment_name);
		random_name(knobs->agent_name);
		knobs->agent_size = rshm_agent_size(4, 4);
		mini_need(rshm_map_create(knobs->agent_name, knobs->agent_size, &mini.agent_map, &fd) == 0,
			  "agent object");
		close(fd);
		mini.agent = mini.agent_map.base;
		mini.agent->header.magic = RSHM_AGENT_MAGIC;
		mini.agent->header.layout_major = RSHM_LAYOUT_MAJOR;
		mini.agent->header.object_size = knobs->agent_size;
		mini_need(getrandom(mini.agent->header.instance, 16, 0) == 16, "getrandom");
		mini.agent->tenant_capacity = mini.agent->client_capacity = 4;
		make_segment(RING_BYTES);
	}
	mini.agent->sources[0].epoch = 1;
	rshm_source_extend(&mini.agent->sources[0], rshm_now_ms() + HOUR_MS);
	rshm_store_release32(&mini.agent->state, RSHM_LIVE);
}

static void grow(void)
{
	char old[RSHM_NAME_MAX];

	memcpy(old, mini.knobs->segment_name, sizeof(old));
	rshm_writer_retire(&mini.writer);
	rshm_unmap(&mini.segment_map);
	make_segment(RING_BYTES * 2);
	(void)rshm_unlink(old);
}

/* ---- requests ---------------------------------------------------------------------------------------------- */

static void deliver(struct mini_channel *channel, uint32_t number, const struct rshm_answer *answer)
{
	struct mini_slot *slot = &channel->slots[number];

	if (rshm_slot_answer(channel->shared, number, slot->generation, answer) == RSHM_ANSWER_WAKE)
		rshm_futex_wake(&channel->shared->slots[number].word);
}

static void send_piece(struct mini_channel *channel, uint32_t number, uint32_t offset)
{
	struct mini_slot *slot = &channel->slots[number];
	size_t left = slot->answer_len - offset, room = rshm_piece_capacity(slot->piece.block_count);
	struct rshm_answer answer = slot->head;

	answer.answer_len = (uint32_t)slot->answer_len;
	answer.metadata_len = (uint32_t)slot->metadata_len;
	answer.offset = offset;
	answer.piece_len = (uint32_t)(left < room ? left : room);
	if (answer.piece_len)
		rshm_piece_write(channel->shared, number, &slot->piece, 0, slot->answer + offset, answer.piece_len);
	if (mini.knobs->bad_answer)
		answer.piece_len = UINT32_MAX;
	deliver(channel, number, &answer);
}

static void take_piece(struct mini_channel *channel, uint32_t number)
{
	struct mini_slot *slot = &channel->slots[number];
	const struct rshm_request *piece = &slot->piece;

	mini.knobs->pieces++;
	if (piece->flags & RSHM_REQUEST_FETCH) {
		if (mini.knobs->die_on_rest == slot->request.op)
			_exit(0);
		send_piece(channel, number, piece->offset);
		return;
	}
	if (piece->offset == 0) {
		mini.knobs->requests++;
		mini.knobs->taken[piece->op % 32]++;
		if (piece->op != RSHM_OP_FETCH_FAILED)
			mini.knobs->last = *piece;
		slot->request = *piece;
		slot->have = 0;
		free(slot->body);
		free(slot->answer);
		slot->answer = NULL;
		slot->body = malloc(piece->body_len + 1);
		mini_need(slot->body != NULL, "malloc");
	}
	if (mini.knobs->die_on_take == piece->op)
		_exit(0);
	if (mini.knobs->take_only)
		return;
	rshm_piece_read(channel->shared, number, piece, 0, slot->body + slot->have, piece->piece_len);
	slot->have += piece->piece_len;
	if (slot->have < slot->request.body_len) {
		deliver(channel, number, &(struct rshm_answer){.status = RSHM_CONTINUE, .offset = slot->have});
		return;
	}
	mini_execute(channel, slot);
	if (!slot->waits)
		send_piece(channel, number, 0);
}

/* Those who wait for a load, once it has ended. */
static void serve_waiting(struct mini_channel *channel)
{
	for (uint32_t number = 0; number < RSHM_SLOTS && !mini.load_ticket; number++) {
		struct mini_slot *slot = &channel->slots[number];

		if (!slot->waits)
			continue;
		mini_execute(channel, slot);
		if (!slot->waits)
			send_piece(channel, number, 0);
	}
}

static void serve_channel(struct mini_channel *channel)
{
	uint32_t pending = rshm_channel_pending(channel->shared);

	while (pending) {
		uint32_t number = (uint32_t)__builtin_ctz(pending);
		struct mini_slot *slot = &channel->slots[number];

		pending &= pending - 1;
		if (rshm_slot_take(channel->shared, number, &slot->piece, &slot->generation) == RSHM_TAKEN)
			take_piece(channel, number);
	}
}

/* ---- sockets ------------------------------------------------------------------------------------------------ */

static int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, path, strlen(path) + 1);
	unlink(path);
	mini_need(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 128) == 0,
		  path);
	return fd;
}

static int read_all(int fd, void *bytes, size_t length)
{
	return recv(fd, bytes, length, MSG_WAITALL) == (ssize_t)length;
}

static size_t attach_answer(unsigned char *message, size_t capacity)
{
	struct mini_knobs *knobs = mini.knobs;
	struct rshm_tlv_writer writer;
	int64_t length;

	knobs->attaches++;
	rshm_tlv_begin(&writer, message, capacity, RSHM_CONTROL_ATTACH, -(int)knobs->refuse_attach, 1);
	if (knobs->refuse_attach) {
		rshm_tlv_text(&writer, RSHM_TAG_ERROR_TEXT, "the mini agent says no");
	} else {
		unsigned char *ticket = mini.tickets_told[mini.tickets_count++ % 16];

		mini_need(getrandom(ticket, 16, 0) == 16, "getrandom");
		rshm_tlv_bytes(&writer, RSHM_TAG_TICKET, ticket, 16);
		rshm_tlv_text(&writer, RSHM_TAG_DOORBELL, mini.doorbell_path);
		rshm_tlv_text(&writer, RSHM_TAG_AGENT_OBJECT, knobs->agent_name);
		rshm_tlv_u64(&writer, RSHM_TAG_AGENT_SIZE, knobs->agent_size);
		rshm_tlv_u32(&writer, RSHM_TAG_AGENT_UID, geteuid() + (knobs->lie_about_owner ? 1 : 0));
		rshm_tlv_u64(&writer, RSHM_TAG_ENTRY_LIMIT, 20u << 20);
		if (knobs->no_segment) {
			rshm_tlv_text(&writer, RSHM_TAG_ERROR_TEXT, "another time namespace");
		} else {
			rshm_tlv_text(&writer, RSHM_TAG_SEGMENT_OBJECT, knobs->segment_name);
			rshm_tlv_u64(&writer, RSHM_TAG_SEGMENT_SIZE, knobs->segment_size);
		}
	}
	length = rshm_tlv_finish(&writer);
	mini_need(length > 0, "attach answer");
	return (size_t)length;
}

static void serve_control(int fd)
{
	static const unsigned char hello[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
	unsigned char head[13], theirs[8], body[16384], answer[2048];
	struct timeval patience = {.tv_sec = 2};
	size_t length;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (send(fd, hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello) || !read_all(fd, theirs, sizeof(theirs)) ||
	    theirs[5] != 0x30 || !read_all(fd, head, sizeof(head)))
		return;
	length = ((size_t)head[7] << 8 | head[8]) - 4;
	if (length > sizeof(body) || !read_all(fd, body, length))
		return;
	length = attach_answer(answer, sizeof(answer));
	head[7] = (unsigned char)((length + 4) >> 8);
	head[8] = (unsigned char)(length + 4);
	(void)(send(fd, head, sizeof(head), MSG_NOSIGNAL) > 0 && send(fd, answer, length, MSG_NOSIGNAL) > 0);
}

static void send_welcome(int fd, char byte, int memfd)
{
	struct iovec vector = {.iov_base = &byte, .iov_len = 1};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};

	if (memfd >= 0) {
		memset(&control, 0, sizeof(control));
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		CMSG_FIRSTHDR(&message)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&message)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), &memfd, sizeof(int));
	}
	(void)sendmsg(fd, &message, MSG_NOSIGNAL);
}

static int was_told(const unsigned char ticket[16])
{
	for (unsigned int i = 0; i < 16; i++)
		if (memcmp(ticket, mini.tickets_told[i], 16) == 0)
			return 1;
	return 0;
}

static void welcome(int fd)
{
	struct mini_channel *channel;
	unsigned char ticket[16];
	struct rshm_header header = {.generation = 1};
	unsigned int i = 0;
	int memfd = -1;

	while (i < MINI_CHANNELS_MAX && mini.channels[i])
		i++;
	if (!read_all(fd, ticket, sizeof(ticket)) || !was_told(ticket) || mini.knobs->refuse_doorbell ||
	    i == MINI_CHANNELS_MAX) {
		send_welcome(fd, (char)(mini.knobs->refuse_doorbell ? mini.knobs->refuse_doorbell : 4), -1);
		close(fd);
		return;
	}
	channel = calloc(1, sizeof(*channel));
	mini_need(channel && rshm_map_create_channel(&channel->map, &memfd) == 0, "channel");
	channel->fd = fd;
	channel->shared = channel->map.base;
	rshm_channel_format(channel->map.base, &header, ++mini.next_channel);
	send_welcome(fd, 0, memfd);
	close(memfd);
	mini.channels[i] = channel;
	mini.knobs->channels++;
}

static void drop(unsigned int i)
{
	struct mini_channel *channel = mini.channels[i];

	if (mini.loader == channel)
		mini.load_ticket = 0;
	close(channel->fd);
	rshm_unmap(&channel->map);
	for (unsigned int s = 0; s < RSHM_SLOTS; s++) {
		free(channel->slots[s].body);
		free(channel->slots[s].answer);
	}
	free(channel);
	mini.channels[i] = NULL;
	mini.knobs->gone++;
}

/* Serves what is there; true if something may be left to do at once. */
static int serve_channels(void)
{
	int again = 0;

	for (unsigned int i = 0; i < MINI_CHANNELS_MAX; i++) {
		if (!mini.channels[i] || mini.knobs->hold)
			continue;
		rshm_channel_disarm(mini.channels[i]->shared);
		serve_channel(mini.channels[i]);
		serve_waiting(mini.channels[i]);
		again |= rshm_channel_arm(mini.channels[i]->shared);
	}
	return again;
}

static void turn(void)
{
	struct pollfd entries[MINI_CHANNELS_MAX + 2] = {{.fd = mini.control, .events = POLLIN},
							{.fd = mini.doorbell, .events = POLLIN}};
	int again = serve_channels();

	for (unsigned int i = 0; i < MINI_CHANNELS_MAX; i++)
		entries[i + 2] =
			(struct pollfd){.fd = mini.channels[i] ? mini.channels[i]->fd : -1, .events = POLLIN};
	if (poll(entries, MINI_CHANNELS_MAX + 2, again ? 0 : 5) < 0)
		return;
	if (entries[0].revents) {
		int fd = accept(mini.control, NULL, NULL);

		serve_control(fd);
		close(fd);
	}
	if (entries[1].revents)
		welcome(accept(mini.doorbell, NULL, NULL));
	for (unsigned int i = 0; i < MINI_CHANNELS_MAX; i++) {
		char bells[64];
		ssize_t n;

		if (entries[i + 2].fd < 0 || !entries[i + 2].revents)
			continue;
		n = recv(mini.channels[i]->fd, bells, sizeof(bells), MSG_DONTWAIT);
		if (n <= 0)
			drop(i);
		else
			mini.knobs->bells += (uint32_t)n;
	}
}

static void run(const struct mini_agent *agent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	mini.knobs = agent->knobs;
	(void)snprintf(mini.doorbell_path, sizeof(mini.doorbell_path), "%s/doorbell.sock", agent->folder);
	make_objects();
	mini.doorbell = listen_at(mini.doorbell_path);
	mini.control = listen_at(agent->socket);
	rshm_store_release32(&mini.knobs->ready, 1);
	for (;;) {
		turn();
		if (rshm_load_acquire32(&mini.knobs->grow)) {
			grow();
			rshm_store_release32(&mini.knobs->grow, 0);
		}
		for (unsigned int i = 0; mini.knobs->drop_all && i < MINI_CHANNELS_MAX; i++)
			if (mini.channels[i])
				drop(i);
		mini.knobs->drop_all = 0;
	}
}

/* ---- the test's side ---------------------------------------------------------------------------------------- */

uint32_t mini_agent_await(const uint32_t *counter, uint32_t least)
{
	struct timespec pause = {.tv_nsec = 1000000};

	for (int i = 0; i < 5000 && rshm_load_acquire32(counter) < least; i++)
		nanosleep(&pause, NULL);
	return rshm_load_acquire32(counter);
}

void mini_agent_restart(struct mini_agent *agent)
{
	agent->knobs->ready = 0;
	agent->pid = fork();
	mini_need(agent->pid >= 0, "fork");
	if (agent->pid == 0) {
		run(agent);
		_exit(0);
	}
	mini_need(mini_agent_await(&agent->knobs->ready, 1) == 1, "the mini agent does not start");
}

void mini_agent_start(struct mini_agent *agent)
{
	memset(agent, 0, sizeof(*agent));
	memcpy(agent->folder, "/tmp/riptide-mini-XXXXXX", 25);
	mini_need(mkdtemp(agent->folder) != NULL, "mkdtemp");
	(void)snprintf(agent->socket, sizeof(agent->socket), "%s/control.sock", agent->folder);
	agent->knobs = mmap(NULL, sizeof(*agent->knobs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	mini_need(agent->knobs != MAP_FAILED, "mmap");
	mini_agent_restart(agent);
}

void mini_agent_kill(struct mini_agent *agent)
{
	kill(agent->pid, SIGKILL);
	waitpid(agent->pid, NULL, 0);
	agent->pid = 0;
}

void mini_agent_stop(struct mini_agent *agent)
{
	char path[128];

	if (agent->pid)
		mini_agent_kill(agent);
	(void)rshm_unlink(agent->knobs->agent_name);
	(void)rshm_unlink(agent->knobs->segment_name);
	unlink(agent->socket);
	(void)snprintf(path, sizeof(path), "%s/doorbell.sock", agent->folder);
	unlink(path);
	rmdir(agent->folder);
	munmap(agent->knobs, sizeof(*agent->knobs));
}

struct rshm_agent *mini_agent_object(const struct mini_agent *agent, struct rshm_map *map)
{
	mini_need(rshm_map_adopt(agent->knobs->agent_name, map) == 0, "agent object");
	return map->base;
}
