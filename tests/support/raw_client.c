/* raw_client.c - the client's side of the protocol in its barest form. */
#include "tests/support/raw_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client-lib/control.h"
#include "shm/order.h"
#include "shm/tlv.h"

#define PATIENCE_MS 5000

int raw_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	for (int i = 0; fd >= 0 && i < 1000; i++) {
		struct timespec pause = {.tv_nsec = 1000000};

		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return fd;
		if (errno != EAGAIN)
			break;
		nanosleep(&pause, NULL);
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

bool raw_send(int fd, const void *bytes, size_t length)
{
	const unsigned char *from = bytes;

	while (length > 0) {
		struct pollfd entry = {.fd = fd, .events = POLLOUT};
		ssize_t n = send(fd, from, length, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0) {
			from += n;
			length -= (size_t)n;
		} else if (errno != EAGAIN || poll(&entry, 1, 1000) <= 0) {
			return false;
		}
	}
	return true;
}

bool raw_is_hung_up(int fd, long patience_ms)
{
	uint64_t until = rshm_now_ms() + (uint64_t)patience_ms;
	unsigned char bytes[4096];

	for (;;) {
		struct pollfd entry = {.fd = fd, .events = POLLIN};
		uint64_t now = rshm_now_ms();
		ssize_t n;

		if (now >= until || poll(&entry, 1, (int)(until - now)) <= 0)
			return false;
		n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return true;
	}
}

/* ---- attach ------------------------------------------------------------------------------------------------- */

static void take_tag(struct raw_client *client, const struct rshm_tlv *tlv)
{
	switch (tlv->tag) {
	case RSHM_TAG_TICKET:
		if (tlv->length == RAW_TICKET_BYTES)
			memcpy(client->ticket, tlv->value, RAW_TICKET_BYTES);
		break;
	case RSHM_TAG_DOORBELL:
		(void)rshm_tlv_get_text(tlv, client->doorbell, sizeof(client->doorbell));
		break;
	case RSHM_TAG_AGENT_OBJECT:
		(void)rshm_tlv_get_text(tlv, client->agent_object, sizeof(client->agent_object));
		break;
	case RSHM_TAG_SEGMENT_OBJECT:
		(void)rshm_tlv_get_text(tlv, client->segment, sizeof(client->segment));
		break;
	case RSHM_TAG_AGENT_SIZE:
		(void)rshm_tlv_get_u64(tlv, &client->agent_size);
		break;
	case RSHM_TAG_SEGMENT_SIZE:
		(void)rshm_tlv_get_u64(tlv, &client->segment_size);
		break;
	default:
		break;
	}
}

int raw_ask(struct raw_client *client, const char *socket, const char *tenant)
{
	unsigned char message[512], *answer;
	struct rshm_control_header header = {.status = RSHM_E_PROTOCOL};
	char trouble[RT_CONTROL_TEXT];
	struct rshm_tlv_writer writer;
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;
	size_t length;

	*client = (struct raw_client){.bell = -1, .memfd = -1};
	rshm_tlv_begin(&writer, message, sizeof(message), RSHM_CONTROL_ATTACH, 0, 1);
	rshm_tlv_text(&writer, RSHM_TAG_TENANT, tenant);
	rshm_tlv_u32(&writer, RSHM_TAG_LAYOUT_MAJOR, RSHM_LAYOUT_MAJOR);
	rshm_tlv_u32(&writer, RSHM_TAG_PROCESS_ID, (uint32_t)getpid());
	rshm_tlv_u64(&writer, RSHM_TAG_CLOCK_MS, rshm_now_ms());
	rshm_tlv_text(&writer, RSHM_TAG_CLIENT_NAME, "raw");
	length = (size_t)rshm_tlv_finish(&writer);
	if (rt_control_ask(socket, message, length, rshm_now_ms() + PATIENCE_MS, &answer, &length, &client->agent_uid,
			   trouble) < 0)
		return RSHM_E_NOAGENT;
	if (rshm_tlv_open(&reader, answer, length, &header) == RSHM_OK)
		while (rshm_tlv_next(&reader, &tlv) > 0)
			take_tag(client, &tlv);
	free(answer);
	return header.status;
}

int raw_ring(struct raw_client *client, const void *ticket, size_t length)
{
	client->bell = raw_connect(client->doorbell);
	return client->bell >= 0 && raw_send(client->bell, ticket, length) ? RSHM_OK : RSHM_E_NOAGENT;
}

/* One byte, with a descriptor if it is 0. */
static int receive_welcome(int bell, int *ret_memfd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	unsigned char byte = 0;
	struct iovec vector = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct pollfd entry = {.fd = bell, .events = POLLIN};
	const struct cmsghdr *head;

	if (poll(&entry, 1, PATIENCE_MS) <= 0 || recvmsg(bell, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1)
		return RSHM_E_NOAGENT;
	head = CMSG_FIRSTHDR(&message);
	if (byte == 0 && head && head->cmsg_type == SCM_RIGHTS)
		memcpy(ret_memfd, CMSG_DATA(head), sizeof(int));
	return -(int)byte;
}

int raw_welcome(struct raw_client *client)
{
	int status = receive_welcome(client->bell, &client->memfd);
	void *base;

	if (status != RSHM_OK)
		return status;
	base = mmap(NULL, sizeof(struct rshm_channel), PROT_READ | PROT_WRITE, MAP_SHARED, client->memfd, 0);
	if (base == MAP_FAILED)
		return RSHM_E_SYSTEM;
	client->channel = base;
	return RSHM_OK;
}

int raw_attach(struct raw_client *client, const char *socket, const char *tenant)
{
	int status = raw_ask(client, socket, tenant);

	if (status == RSHM_OK)
		status = raw_ring(client, client->ticket, RAW_TICKET_BYTES);
	if (status == RSHM_OK)
		status = raw_welcome(client);
	if (status != RSHM_OK)
		raw_close(client);
	return status;
}

void raw_close(struct raw_client *client)
{
	if (client->channel)
		munmap(client->channel, sizeof(struct rshm_channel));
	if (client->memfd >= 0)
		close(client->memfd);
	if (client->bell >= 0)
		close(client->bell);
	client->channel = NULL;
	client->memfd = client->bell = -1;
}

/* ---- requests ----------------------------------------------------------------------------------------------- */

void raw_bell(const struct raw_client *client)
{
	(void)send(client->bell, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void raw_submit(struct raw_client *client, uint32_t number, uint32_t generation)
{
	rshm_store_release32(&client->channel->slots[number].word, generation << 4 | RSHM_SLOT_SUBMITTED);
	(void)rshm_or_acq_rel32(&client->channel->submitted, 1u << number);
	raw_bell(client);
}

bool raw_await(struct raw_client *client, uint32_t number, long patience_ms)
{
	const struct rshm_slot *slot = &client->channel->slots[number];
	struct timespec pause = {.tv_nsec = 200000};
	uint64_t until = rshm_now_ms() + (uint64_t)patience_ms;

	while (!rshm_slot_is_answered(slot)) {
		if (rshm_now_ms() >= until)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

int raw_request(struct raw_client *client, uint32_t number, const struct rshm_request *request, const void *body,
		struct rshm_answer *ret_answer)
{
	struct rshm_slot *slot = &client->channel->slots[number];
	uint32_t generation = RSHM_SLOT_GENERATION(rshm_load_relaxed32(&slot->word)) + 1;

	slot->request = *request;
	slot->request.deadline_ms = rshm_now_ms() + PATIENCE_MS;
	rshm_piece_write(client->channel, number, &slot->request, 0, body, request->piece_len);
	raw_submit(client, number, generation);
	if (!raw_await(client, number, PATIENCE_MS))
		return RSHM_E_TIMEDOUT;
	*ret_answer = slot->answer;
	return slot->answer.status;
}

struct rshm_request raw_fields(uint16_t op, size_t key_length, size_t value_length)
{
	return (struct rshm_request){
		.op = op,
		.key_len = (uint16_t)key_length,
		.body_len = (uint32_t)(key_length + value_length),
		.piece_len = (uint32_t)(key_length + value_length),
	};
}
