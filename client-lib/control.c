/*
 * control.c - SP REQ in a few functions.
 *
 * On the wire, as the SP mappings publish it and NNG speaks it over IPC:
 *
 *	hello     00 53 50 00 00 30 00 00        REQ; the peer answers 31, REP
 *	message   01 | u64be length | u32be id, high bit set | body        length counts id and body
 *
 * libnng's own REQ socket resends a request when its peer reconnects. This one does not: a connection is one attempt, and
 * what a caller wants repeated he repeats. Every wait has a deadline, every length a bound, and whatever the peer does
 * ends in a code: it is somebody else's process.
 */
#include "client-lib/control.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client-lib/riptide_priv.h"

_Static_assert(RT_CONTROL_TEXT == RT_TEXT, "one size of error text");

#define ID_BYTES 4u
#define FRAME_HEAD 9u
#define FOREIGN_ANSWERS_MAX 16
#define OVERFLOW_UID 65534u /* stands for users that this user namespace does not know */

int rt_stream_wait(int fd, short events, uint64_t deadline_ms, char *trouble)
{
	for (;;) {
		uint64_t now_ms = rshm_now_ms(), left_ms = deadline_ms > now_ms ? deadline_ms - now_ms : 0;
		struct pollfd entry = {.fd = fd, .events = events};
		int n;

		if (left_ms == 0)
			return rt_trouble(trouble, RIPTIDE_ETIMEDOUT, "the agent did not answer in time");
		n = poll(&entry, 1, left_ms < 60000 ? (int)left_ms : 60000);
		if (n > 0)
			return RIPTIDE_OK;
		if (n < 0 && errno != EINTR)
			return rt_trouble(trouble, RIPTIDE_ESYSTEM, "poll: %s", strerror(errno));
	}
}

static int connect_socket(int fd, const struct sockaddr_un *address, uint64_t deadline_ms, char *trouble)
{
	while (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
		struct timespec pause = {.tv_nsec = 2000000};

		switch (errno) {
		case EINTR:
			continue;
		case EISCONN:
			return RIPTIDE_OK;
		case EAGAIN:
			/* The listener's backlog is full. */
			if (rshm_now_ms() >= deadline_ms)
				return rt_trouble(trouble, RIPTIDE_ETIMEDOUT,
						  "the agent at %s does not accept connections", address->sun_path);
			nanosleep(&pause, NULL);
			continue;
		case EACCES:
		case EPERM:
			return rt_trouble(trouble, RIPTIDE_EDENIED,
					  "this user may not connect to %s (%s); its owner grants access by group",
					  address->sun_path, strerror(errno));
		default:
			return rt_trouble(
				trouble, RIPTIDE_ENOAGENT,
				"the agent at %s does not answer (%s); start riptided or set RIPTIDE_SOCKET",
				address->sun_path, strerror(errno));
		}
	}
	return RIPTIDE_OK;
}

static int check_peer(int fd, const char *path, uid_t *ret_uid, char *trouble)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return rt_trouble(trouble, RIPTIDE_ESYSTEM, "SO_PEERCRED: %s", strerror(errno));
	/* Every unknown user looks like this one: objects could not be told from a stranger's. */
	if (peer.uid == OVERFLOW_UID)
		return rt_trouble(trouble, RIPTIDE_EDENIED,
				  "the agent at %s runs as a user that is not known in this user namespace", path);
	*ret_uid = peer.uid;
	return RIPTIDE_OK;
}

int rt_stream_connect(const char *path, uint64_t deadline_ms, int *ret_fd, uid_t *ret_uid, char *trouble)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(path);
	int status, fd;

	if (length == 0 || length >= sizeof(address.sun_path))
		return rt_trouble(trouble, RIPTIDE_EINVALID, "a socket's path has 1 to %zu characters",
				  sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, length + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return rt_trouble(trouble, RIPTIDE_ESYSTEM, "socket: %s", strerror(errno));
	status = connect_socket(fd, &address, deadline_ms, trouble);
	if (status == RIPTIDE_OK)
		status = check_peer(fd, path, ret_uid, trouble);
	if (status < 0) {
		close(fd);
		return status;
	}
	*ret_fd = fd;
	return RIPTIDE_OK;
}

static int hung_up(char *trouble)
{
	return rt_trouble(trouble, RIPTIDE_ENOAGENT, "the agent hung up");
}

int rt_stream_send(int fd, const void *bytes, size_t length, uint64_t deadline_ms, char *trouble)
{
	const unsigned char *from = bytes;

	while (length > 0) {
		ssize_t n = send(fd, from, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		int status = RIPTIDE_OK;

		if (n >= 0) {
			from += n;
			length -= (size_t)n;
		} else if (errno == EAGAIN) {
			status = rt_stream_wait(fd, POLLOUT, deadline_ms, trouble);
		} else if (errno == EPIPE || errno == ECONNRESET) {
			return hung_up(trouble);
		} else if (errno != EINTR) {
			return rt_trouble(trouble, RIPTIDE_ESYSTEM, "send: %s", strerror(errno));
		}
		if (status < 0)
			return status;
	}
	return RIPTIDE_OK;
}

int rt_stream_receive(int fd, void *bytes, size_t length, uint64_t deadline_ms, char *trouble)
{
	unsigned char *to = bytes;

	while (length > 0) {
		ssize_t n = recv(fd, to, length, MSG_DONTWAIT);
		int status = RIPTIDE_OK;

		if (n > 0) {
			to += n;
			length -= (size_t)n;
		} else if (n == 0 || errno == ECONNRESET) {
			return hung_up(trouble);
		} else if (errno == EAGAIN) {
			status = rt_stream_wait(fd, POLLIN, deadline_ms, trouble);
		} else if (errno != EINTR) {
			return rt_trouble(trouble, RIPTIDE_ESYSTEM, "recv: %s", strerror(errno));
		}
		if (status < 0)
			return status;
	}
	return RIPTIDE_OK;
}

int rt_control_hello(int fd, uint64_t deadline_ms, char *trouble)
{
	static const unsigned char ours[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
	static const unsigned char theirs[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
	unsigned char hello[8];
	int status = rt_stream_send(fd, ours, sizeof(ours), deadline_ms, trouble);

	if (status == RIPTIDE_OK)
		status = rt_stream_receive(fd, hello, sizeof(hello), deadline_ms, trouble);
	if (status == RIPTIDE_OK && memcmp(hello, theirs, sizeof(hello)) != 0)
		return rt_trouble(trouble, RIPTIDE_EPROTOCOL,
				  "what listens on the control socket is no RipTide agent");
	return status;
}

static void put_be(unsigned char *to, uint64_t value, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		to[i] = (unsigned char)(value >> 8 * (bytes - 1 - i));
}

static uint64_t get_be(const unsigned char *from, size_t bytes)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes; i++)
		value = value << 8 | from[i];
	return value;
}

/* Receives one message: its id, and its body to be freed. */
static int receive_message(int fd, uint64_t deadline_ms, uint32_t *ret_id, unsigned char **ret_body,
			   size_t *ret_length, char *trouble)
{
	unsigned char head[FRAME_HEAD + ID_BYTES], *body;
	uint64_t length;
	int status = rt_stream_receive(fd, head, sizeof(head), deadline_ms, trouble);

	if (status < 0)
		return status;
	length = get_be(head + 1, 8);
	if (head[0] != 1 || length < ID_BYTES || length - ID_BYTES > RT_CONTROL_ANSWER_MAX)
		return rt_trouble(trouble, RIPTIDE_EPROTOCOL, "the agent's answer is no message");
	length -= ID_BYTES;
	body = malloc(length + 1);
	if (!body)
		return rt_trouble(trouble, RIPTIDE_ENOMEM, "no memory for the agent's answer");
	status = rt_stream_receive(fd, body, length, deadline_ms, trouble);
	if (status < 0) {
		free(body);
		return status;
	}
	*ret_id = (uint32_t)get_be(head + FRAME_HEAD, ID_BYTES);
	*ret_body = body;
	*ret_length = length;
	return RIPTIDE_OK;
}

/* Ids need only differ from those of other requests on this stream. */
static uint32_t choose_id(void)
{
	uint32_t id = 0;

	if (getrandom(&id, sizeof(id), GRND_NONBLOCK) != (ssize_t)sizeof(id))
		id = (uint32_t)rshm_now_ms();
	return id | 0x80000000u;
}

int rt_control_call(int fd, const void *body, size_t length, uint64_t deadline_ms, unsigned char **ret_answer,
		    size_t *ret_length, char *trouble)
{
	unsigned char head[FRAME_HEAD + ID_BYTES];
	uint32_t id = choose_id();
	int status;

	head[0] = 1;
	put_be(head + 1, length + ID_BYTES, 8);
	put_be(head + FRAME_HEAD, id, ID_BYTES);
	status = rt_stream_send(fd, head, sizeof(head), deadline_ms, trouble);
	if (status == RIPTIDE_OK)
		status = rt_stream_send(fd, body, length, deadline_ms, trouble);
	for (int i = 0; status == RIPTIDE_OK && i < FOREIGN_ANSWERS_MAX; i++) {
		uint32_t answer_id = 0;
		unsigned char *answer = NULL;
		size_t answer_length = 0;

		status = receive_message(fd, deadline_ms, &answer_id, &answer, &answer_length, trouble);
		if (status < 0)
			return status;
		if (answer_id == id) {
			*ret_answer = answer;
			*ret_length = answer_length;
			return RIPTIDE_OK;
		}
		free(answer);
	}
	return status < 0 ? status : rt_trouble(trouble, RIPTIDE_EPROTOCOL, "the agent answers what was not asked");
}

int rt_control_ask(const char *path, const void *body, size_t length, uint64_t deadline_ms,
		   unsigned char **ret_answer, size_t *ret_length, uid_t *ret_uid, char *trouble)
{
	uid_t uid;
	int fd, status = rt_stream_connect(path, deadline_ms, &fd, &uid, trouble);

	if (status < 0)
		return status;
	status = rt_control_hello(fd, deadline_ms, trouble);
	if (status == RIPTIDE_OK)
		status = rt_control_call(fd, body, length, deadline_ms, ret_answer, ret_length, trouble);
	close(fd);
	if (status == RIPTIDE_OK && ret_uid)
		*ret_uid = uid;
	return status;
}
