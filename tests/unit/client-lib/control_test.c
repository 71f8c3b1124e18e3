#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>

#include "client-lib/control.h"
#include "riptide/riptide.h"
#include "shm/os/map.h"

/* Our REQ against libnng's REP, and against peers that hang up or send garbage at each point. */

static char folder[64], path[96];

static int make_folder(void **state)
{
	(void)state;
	memcpy(folder, "/tmp/riptide-control-XXXXXX", 28);
	if (!mkdtemp(folder))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/control.sock", folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder);
}

/* ---- libnng ------------------------------------------------------------------------------------------------- */

static nng_socket listen_rep(void)
{
	nng_socket rep;
	char url[112];

	assert_int_equal(nng_rep0_open(&rep), 0);
	(void)snprintf(url, sizeof(url), "ipc://%s", path);
	assert_int_equal(nng_listen(rep, url, NULL, 0), 0);
	return rep;
}

struct echo {
	nng_socket rep;
	int count;
	int received;
};

/* Answers `count` requests with their bodies, reversed. */
static void *echo_run(void *context)
{
	struct echo *echo = context;

	for (int i = 0; i < echo->count; i++) {
		unsigned char *bytes;
		size_t size;

		if (nng_recv(echo->rep, &bytes, &size, NNG_FLAG_ALLOC) != 0)
			break;
		echo->received++;
		for (size_t a = 0; a < size / 2; a++) {
			unsigned char swap = bytes[a];

			bytes[a] = bytes[size - 1 - a];
			bytes[size - 1 - a] = swap;
		}
		nng_send(echo->rep, bytes, size, NNG_FLAG_ALLOC);
	}
	return NULL;
}

static void ask_reversed(size_t size)
{
	unsigned char *body = malloc(size + 1), *answer;
	char trouble[RT_CONTROL_TEXT] = "";
	size_t length;
	uid_t uid = 77;

	for (size_t i = 0; i < size; i++)
		body[i] = (unsigned char)(i * 31 >> 3);
	assert_int_equal(rt_control_ask(path, body, size, rshm_now_ms() + 5000, &answer, &length, &uid, trouble),
			 RIPTIDE_OK);
	assert_int_equal(uid, geteuid());
	assert_int_equal(length, size);
	for (size_t i = 0; i < size; i++)
		assert_int_equal(answer[i], body[size - 1 - i]);
	free(answer);
	free(body);
}

static void nng_answers_messages_of_every_size(void **state)
{
	static const size_t sizes[] = {0, 1, 16, 4096, 65536, 900000};
	struct echo echo = {.rep = listen_rep(), .count = 6};
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, echo_run, &echo), 0);
	for (size_t i = 0; i < 6; i++)
		ask_reversed(sizes[i]);
	pthread_join(thread, NULL);
	assert_int_equal(echo.received, 6);
	nng_close(echo.rep);
}

static void many_requests_go_over_one_stream(void **state)
{
	struct echo echo = {.rep = listen_rep(), .count = 100};
	char trouble[RT_CONTROL_TEXT];
	pthread_t thread;
	uid_t uid;
	int fd;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, echo_run, &echo), 0);
	assert_int_equal(rt_stream_connect(path, rshm_now_ms() + 2000, &fd, &uid, trouble), RIPTIDE_OK);
	assert_int_equal(rt_control_hello(fd, rshm_now_ms() + 2000, trouble), RIPTIDE_OK);
	for (int i = 0; i < 100; i++) {
		unsigned char body[2] = {(unsigned char)i, 255}, *answer;
		size_t length;

		assert_int_equal(rt_control_call(fd, body, 2, rshm_now_ms() + 2000, &answer, &length, trouble),
				 RIPTIDE_OK);
		assert_int_equal(length, 2);
		assert_int_equal(answer[1], i);
		free(answer);
	}
	close(fd);
	pthread_join(thread, NULL);
	nng_close(echo.rep);
}

/* What is not answered is not sent again: a peer that dies of a request sees it once. */
static void an_unanswered_request_is_not_sent_again(void **state)
{
	nng_socket rep = listen_rep();
	char trouble[RT_CONTROL_TEXT];
	unsigned char *answer;
	size_t length, size;
	void *bytes;
	uint64_t began = rshm_now_ms();

	(void)state;
	assert_int_equal(rt_control_ask(path, "once", 4, began + 200, &answer, &length, NULL, trouble),
			 RIPTIDE_ETIMEDOUT);
	assert_true(rshm_now_ms() - began < 400);
	assert_int_equal(nng_setopt_ms(rep, NNG_OPT_RECVTIMEO, 300), 0);
	assert_int_equal(nng_recv(rep, &bytes, &size, NNG_FLAG_ALLOC), 0);
	assert_int_equal(size, 4);
	nng_free(bytes, size);
	assert_int_equal(nng_recv(rep, &bytes, &size, NNG_FLAG_ALLOC), NNG_ETIMEDOUT);
	nng_close(rep);
}

/* ---- peers of every kind ------------------------------------------------------------------------------------ */

struct peer {
	int listener;
	const unsigned char *bytes; /* sent at once */
	size_t length;
	size_t read; /* bytes read before hanging up; SIZE_MAX: stay, silent, until the client goes */
};

static void *peer_run(void *context)
{
	struct peer *peer = context;
	int fd = accept(peer->listener, NULL, NULL);
	unsigned char sink[4096];
	ssize_t n;

	if (peer->length)
		(void)!send(fd, peer->bytes, peer->length, MSG_NOSIGNAL);
	if (peer->read == SIZE_MAX)
		while ((n = recv(fd, sink, sizeof(sink), 0)) > 0)
			;
	else if (peer->read)
		(void)!recv(fd, sink, peer->read, MSG_WAITALL);
	close(fd);
	return NULL;
}

static int ask_peer(const void *bytes, size_t length, size_t read)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct peer peer = {socket(AF_UNIX, SOCK_STREAM, 0), bytes, length, read};
	char trouble[RT_CONTROL_TEXT] = "";
	unsigned char *answer = NULL;
	size_t answer_length;
	pthread_t thread;
	int status;

	unlink(path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	assert_int_equal(bind(peer.listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(peer.listener, 5), 0);
	assert_int_equal(pthread_create(&thread, NULL, peer_run, &peer), 0);
	status = rt_control_ask(path, "hello", 5, rshm_now_ms() + 150, &answer, &answer_length, NULL, trouble);
	pthread_join(thread, NULL);
	close(peer.listener);
	if (status == RIPTIDE_OK)
		free(answer);
	else
		assert_true(trouble[0] != '\0');
	return status;
}

#define HELLO 0, 'S', 'P', 0, 0, 0x31, 0, 0

static void a_peer_may_hang_up_at_every_byte(void **state)
{
	/* A hello, then the beginning of an answer that promises more. */
	static const unsigned char bytes[] = {HELLO, 1, 0, 0, 0, 0, 0, 0, 0, 100, 0x80, 0, 0, 1, 'x', 'y'};

	(void)state;
	for (size_t length = 0; length <= sizeof(bytes); length++)
		assert_int_equal(ask_peer(bytes, length, length < 8 ? 8 : 26), RIPTIDE_ENOAGENT);
	for (size_t read = 0; read < 26; read += 5)
		assert_int_equal(ask_peer(bytes, 8, read), RIPTIDE_ENOAGENT);
}

static void a_peer_may_fall_silent_at_every_byte(void **state)
{
	static const unsigned char bytes[] = {HELLO, 1, 0, 0, 0, 0, 0, 0, 0, 100, 0x80, 0, 0, 1, 'x', 'y'};

	(void)state;
	for (size_t length = 0; length <= sizeof(bytes); length += 3)
		assert_int_equal(ask_peer(bytes, length, SIZE_MAX), RIPTIDE_ETIMEDOUT);
}

static void garbage_is_no_answer(void **state)
{
	static const unsigned char request_hello[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
	static const unsigned char http[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
	static const unsigned char kind[] = {HELLO, 2, 0, 0, 0, 0, 0, 0, 0, 4, 0x80, 0, 0, 1};
	static const unsigned char tiny[] = {HELLO, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0x80, 0, 0, 1};
	static const unsigned char huge[] = {HELLO, 1, 255, 255, 255, 255, 255, 255, 255, 255, 0x80, 0, 0, 1};
	static const unsigned char big[] = {HELLO, 1, 0, 0, 0, 0, 1, 0, 0, 5, 0x80, 0, 0, 1};

	(void)state;
	assert_int_equal(ask_peer(request_hello, sizeof(request_hello), SIZE_MAX), RIPTIDE_EPROTOCOL);
	assert_int_equal(ask_peer(http, sizeof(http), SIZE_MAX), RIPTIDE_EPROTOCOL);
	assert_int_equal(ask_peer(kind, sizeof(kind), SIZE_MAX), RIPTIDE_EPROTOCOL);
	assert_int_equal(ask_peer(tiny, sizeof(tiny), SIZE_MAX), RIPTIDE_EPROTOCOL);
	assert_int_equal(ask_peer(huge, sizeof(huge), SIZE_MAX), RIPTIDE_EPROTOCOL);
	assert_int_equal(ask_peer(big, sizeof(big), SIZE_MAX), RIPTIDE_EPROTOCOL);
}

static void answers_to_others_are_passed_over_but_not_for_ever(void **state)
{
	unsigned char bytes[8 + 100 * 13] = {HELLO};

	(void)state;
	for (int i = 0; i < 100; i++) {
		static const unsigned char foreign[13] = {1, 0, 0, 0, 0, 0, 0, 0, 4, 0x00, 0, 0, 1};

		memcpy(bytes + 8 + i * 13, foreign, 13);
	}
	assert_int_equal(ask_peer(bytes, 8 + 5 * 13, SIZE_MAX), RIPTIDE_ETIMEDOUT);
	assert_int_equal(ask_peer(bytes, sizeof(bytes), SIZE_MAX), RIPTIDE_EPROTOCOL);
}

static void paths_that_cannot_be_are_refused(void **state)
{
	char trouble[RT_CONTROL_TEXT], longest[200];
	uid_t uid;
	int fd;

	(void)state;
	memset(longest, 'x', sizeof(longest));
	longest[199] = '\0';
	assert_int_equal(rt_stream_connect(longest, rshm_now_ms() + 100, &fd, &uid, trouble), RIPTIDE_EINVALID);
	assert_int_equal(rt_stream_connect("", rshm_now_ms() + 100, &fd, &uid, trouble), RIPTIDE_EINVALID);
	assert_int_equal(rt_stream_connect("/nowhere/at/all", rshm_now_ms() + 100, &fd, &uid, trouble),
			 RIPTIDE_ENOAGENT);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(nng_answers_messages_of_every_size),
		CASE(many_requests_go_over_one_stream),
		CASE(an_unanswered_request_is_not_sent_again),
		CASE(a_peer_may_hang_up_at_every_byte),
		CASE(a_peer_may_fall_silent_at_every_byte),
		CASE(garbage_is_no_answer),
		CASE(answers_to_others_are_passed_over_but_not_for_ever),
		CASE(paths_that_cannot_be_are_refused),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	nng_fini();
	return failed;
}
