#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>

#include "shm/tlv.h"
#include "tests/support/e2e.h"
#include "tests/support/raw_client.h"

/* The control plane as NNG's own REQ socket sees it, and as peers see it that are none. */

#define PEERS 1000
#define PATIENCE_MS 5000

static struct agent_process agent;

struct answer {
	nng_msg *message;
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
};

static int begin_all(void **state)
{
	static const char *const settings[] = {"limits.handshake_timeout_ms=500",
					       "limits.attaches_per_second_per_uid=100000", NULL};

	(void)state;
	return agent_process_start(&agent, settings);
}

static int end_all(void **state)
{
	(void)state;
	return agent_process_stop_and_clean(&agent);
}

/* ---- libnng ------------------------------------------------------------------------------------------------- */

static nng_socket dial(void)
{
	nng_socket socket;
	char url[160];

	snprintf(url, sizeof(url), "ipc://%s", agent.socket);
	assert_int_equal(nng_req0_open(&socket), 0);
	assert_int_equal(nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, PATIENCE_MS), 0);
	assert_int_equal(nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, PATIENCE_MS), 0);
	assert_int_equal(nng_dial(socket, url, NULL, 0), 0);
	return socket;
}

static void send_bytes(nng_socket socket, const void *bytes, size_t length)
{
	assert_int_equal(nng_send(socket, (void *)(uintptr_t)bytes, length, 0), 0);
}

static void receive(nng_socket socket, struct answer *ret)
{
	assert_int_equal(nng_recvmsg(socket, &ret->message, 0), 0);
	assert_int_equal(
		rshm_tlv_open(&ret->reader, nng_msg_body(ret->message), nng_msg_len(ret->message), &ret->header),
		RSHM_OK);
}

static void ask(nng_socket socket, uint16_t op, uint32_t id, struct answer *ret)
{
	unsigned char bytes[64];
	struct rshm_tlv_writer writer;

	rshm_tlv_begin(&writer, bytes, sizeof(bytes), op, 0, id);
	send_bytes(socket, bytes, (size_t)rshm_tlv_finish(&writer));
	receive(socket, ret);
}

static bool find_tag(struct rshm_tlv_reader reader, uint16_t tag, struct rshm_tlv *ret)
{
	while (rshm_tlv_next(&reader, ret) > 0)
		if (ret->tag == tag)
			return true;
	return false;
}

static void nngs_own_req_socket_is_answered(void **state)
{
	nng_socket socket = dial();
	struct answer answer;

	(void)state;
	for (uint32_t id = 1; id <= 100; id++) {
		ask(socket, RSHM_CONTROL_PING, id, &answer);
		assert_int_equal(answer.header.op, RSHM_CONTROL_PING);
		assert_int_equal(answer.header.status, RSHM_OK);
		assert_int_equal(answer.header.request_id, id);
		nng_msg_free(answer.message);
	}
	nng_close(socket);
	assert_true(e2e_number(&agent, "control.requests") >= 100);
}

static void status_stats_and_clients_are_json(void **state)
{
	static const uint16_t ops[] = {RSHM_CONTROL_STATUS, RSHM_CONTROL_STATS, RSHM_CONTROL_CLIENTS};
	static const char *const members[] = {"instance", "tenants", "clients"};
	nng_socket socket = dial();

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct answer answer;
		struct rshm_tlv tlv;
		json_t *json;

		ask(socket, ops[i], 7, &answer);
		assert_int_equal(answer.header.status, RSHM_OK);
		assert_true(find_tag(answer.reader, RSHM_TAG_JSON, &tlv));
		json = json_loadb((const char *)tlv.value, tlv.length, 0, NULL);
		assert_non_null(json);
		assert_non_null(json_object_get(json, members[i]));
		json_decref(json);
		nng_msg_free(answer.message);
	}
	nng_close(socket);
}

static void an_unknown_operation_is_refused_with_a_text(void **state)
{
	nng_socket socket = dial();
	struct answer answer;
	struct rshm_tlv tlv;

	(void)state;
	ask(socket, 299, 5, &answer);
	assert_int_equal(answer.header.status, RSHM_E_UNSUPPORTED);
	assert_int_equal(answer.header.request_id, 5);
	assert_true(find_tag(answer.reader, RSHM_TAG_ERROR_TEXT, &tlv));
	assert_true(tlv.length > 0);
	nng_msg_free(answer.message);
	nng_close(socket);
}

static void unknown_tags_are_skipped(void **state)
{
	nng_socket socket = dial();
	unsigned char bytes[128];
	struct rshm_tlv_writer writer;
	struct answer answer;

	(void)state;
	rshm_tlv_begin(&writer, bytes, sizeof(bytes), RSHM_CONTROL_PING, 0, 3);
	rshm_tlv_text(&writer, (enum rshm_tag)999, "from the future");
	rshm_tlv_u64(&writer, (enum rshm_tag)65535, 1);
	send_bytes(socket, bytes, (size_t)rshm_tlv_finish(&writer));
	receive(socket, &answer);
	assert_int_equal(answer.header.status, RSHM_OK);
	nng_msg_free(answer.message);
	nng_close(socket);
}

/* A message with a header is answered with a refusal; one without ends its connection. Another one is served meanwhile. */
static void messages_that_cannot_be_decoded_are_refused_and_counted(void **state)
{
	static const unsigned char lying_length[16] = {0x52, 0x54, 1, 0, 203, 0, 0, 0, 9, 0, 0, 0, 0xff, 0xff, 0, 0};
	static const unsigned char newer[16] = {0x52, 0x54, 200, 0, 203, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0};
	static const unsigned char half_tag[19] = {0x52, 0x54, 1, 0, 203, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0, 1, 0, 5};
	int64_t malformed = e2e_number(&agent, "control.malformed");
	nng_socket socket = dial();
	struct answer answer;

	(void)state;
	send_bytes(socket, lying_length, sizeof(lying_length));
	receive(socket, &answer);
	assert_int_equal(answer.header.status, RSHM_E_PROTOCOL);
	assert_int_equal(answer.header.request_id, 9);
	nng_msg_free(answer.message);
	send_bytes(socket, newer, sizeof(newer));
	receive(socket, &answer);
	assert_int_equal(answer.header.status, RSHM_E_UNSUPPORTED);
	nng_msg_free(answer.message);
	send_bytes(socket, half_tag, sizeof(half_tag));
	receive(socket, &answer);
	assert_int_equal(answer.header.status, RSHM_E_PROTOCOL);
	nng_msg_free(answer.message);
	nng_close(socket);
	assert_int_equal(e2e_number(&agent, "control.malformed"), malformed + 3);
}

static void garbage_in_a_message_ends_its_connection_only(void **state)
{
	int64_t malformed = e2e_number(&agent, "control.malformed");
	nng_socket good = dial(), bad = dial();
	struct answer answer;
	nng_msg *message;

	(void)state;
	assert_int_equal(nng_socket_set_ms(bad, NNG_OPT_RECVTIMEO, 300), 0);
	send_bytes(bad, "what is this?", 13);
	assert_int_equal(nng_recvmsg(bad, &message, 0), NNG_ETIMEDOUT);
	nng_close(bad);
	ask(good, RSHM_CONTROL_PING, 1, &answer);
	assert_int_equal(answer.header.status, RSHM_OK);
	nng_msg_free(answer.message);
	nng_close(good);
	assert_true(e2e_number(&agent, "control.malformed") > malformed);
}

static void an_attach_by_hand_gets_ticket_doorbell_and_objects(void **state)
{
	struct raw_client client;

	(void)state;
	assert_int_equal(raw_ask(&client, agent.socket, "default"), RSHM_OK);
	assert_int_equal(client.doorbell[0], '/');
	assert_true(rshm_name_is_valid(client.agent_object));
	assert_true(rshm_name_is_valid(client.segment));
	assert_int_equal(client.agent_uid, geteuid());
	assert_int_equal(raw_ask(&client, agent.socket, "no-such-tenant"), RSHM_E_NOTENANT);
	assert_int_equal(raw_ask(&client, agent.socket, "../../etc"), RSHM_E_INVALID);
	assert_int_equal(raw_ask(&client, agent.socket, ""), RSHM_E_INVALID);
}

/* ---- peers that are none ------------------------------------------------------------------------------------ */

static const unsigned char hello[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
static const unsigned char ping[33] = {1,    0,    0, 0, 0,   0, 0, 0, 20, 0x80, 0, 0, 1, /* frame and id */
				       0x52, 0x54, 1, 0, 202, 0, 0, 0, 1,  0,    0, 0, 0, 0, 0, 0};

/* Sends the first `length` bytes of hello and ping, and of garbage after that, if told; then hangs up. */
static void come_and_go(size_t length, bool garbage)
{
	unsigned char bytes[sizeof(hello) + sizeof(ping) + 64];
	size_t good = sizeof(hello) + sizeof(ping) - 4;
	int fd = raw_connect(agent.socket);

	assert_true(fd >= 0);
	memcpy(bytes, hello, sizeof(hello));
	memcpy(bytes + sizeof(hello), ping, sizeof(ping));
	for (size_t i = good; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)rand();
	if (garbage)
		for (size_t i = length; i < sizeof(bytes); i++)
			bytes[i] = (unsigned char)rand();
	(void)raw_send(fd, bytes, garbage ? sizeof(bytes) : length);
	if (rand() % 2)
		(void)raw_is_hung_up(fd, 1);
	close(fd);
}

static void assert_serves(void)
{
	nng_socket socket = dial();
	struct answer answer;

	ask(socket, RSHM_CONTROL_PING, 1, &answer);
	assert_int_equal(answer.header.status, RSHM_OK);
	nng_msg_free(answer.message);
	nng_close(socket);
}

static bool descriptors_come_back_to(int wanted)
{
	for (int i = 0; i < 100 && e2e_descriptors(agent.pid) > wanted; i++)
		e2e_pause_ms(50);
	return e2e_descriptors(agent.pid) <= wanted;
}

static void a_thousand_peers_that_hang_up_anywhere_leave_nothing(void **state)
{
	int before = e2e_descriptors(agent.pid);

	(void)state;
	for (int i = 0; i < PEERS; i++)
		come_and_go((size_t)rand() % (sizeof(hello) + sizeof(ping) - 3), false);
	assert_serves();
	assert_true(descriptors_come_back_to(before));
}

static void a_thousand_peers_that_send_garbage_leave_nothing(void **state)
{
	int before = e2e_descriptors(agent.pid);

	(void)state;
	for (int i = 0; i < PEERS; i++)
		come_and_go((size_t)rand() % (sizeof(hello) + sizeof(ping) - 3), true);
	assert_serves();
	assert_true(descriptors_come_back_to(before));
	assert_int_equal(kill(agent.pid, 0), 0);
}

static void a_message_of_absurd_length_is_not_waited_for(void **state)
{
	static const unsigned char heads[][9] = {
		{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		{1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff},
		{1, 0, 0, 0, 0, 0, 0, 0, 3},
		{2, 0, 0, 0, 0, 0, 0, 0, 20},
	};
	unsigned char trace[4096] = {0};
	long resident = e2e_resident_kib(agent.pid);

	(void)state;
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		int fd = raw_connect(agent.socket);

		assert_true(raw_send(fd, hello, sizeof(hello)) && raw_send(fd, heads[i], sizeof(heads[i])));
		(void)raw_send(fd, trace, sizeof(trace));
		assert_true(raw_is_hung_up(fd, 2000));
		close(fd);
	}
	assert_true(e2e_resident_kib(agent.pid) - resident < 8192);
	assert_serves();
}

/* One user's idle connections are limited, and cost others nothing once they are gone. */
static void connections_are_limited_per_user(void **state)
{
	int fds[200], hung_up = 0;

	(void)state;
	for (int i = 0; i < 200; i++) {
		fds[i] = raw_connect(agent.socket);
		if (fds[i] >= 0)
			(void)raw_send(fds[i], hello, sizeof(hello));
	}
	for (int i = 0; i < 200; i++)
		hung_up += fds[i] < 0 || raw_is_hung_up(fds[i], 3);
	for (int i = 0; i < 200; i++)
		close(fds[i]);
	assert_true(hung_up >= 200 - 64);
	e2e_pause_ms(100);
	assert_true(e2e_await(&agent, "control.refused_connections", 1, 3000) > 0);
	assert_serves();
}

/* Reads nothing of what it asked for: the agent must not keep answers without end. */
static void a_peer_that_never_reads_is_given_up(void **state)
{
	unsigned char status[29];
	long resident = e2e_resident_kib(agent.pid);
	int fd = raw_connect(agent.socket), sent = 0;

	(void)state;
	memcpy(status, ping, sizeof(status));
	status[17] = 203;
	status[8] = 20;
	assert_true(raw_send(fd, hello, sizeof(hello)));
	while (sent < 20000 && raw_send(fd, status, sizeof(status)))
		sent++;
	assert_true(e2e_resident_kib(agent.pid) - resident < 16384);
	close(fd);
	assert_serves();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nngs_own_req_socket_is_answered),
		cmocka_unit_test(status_stats_and_clients_are_json),
		cmocka_unit_test(an_unknown_operation_is_refused_with_a_text),
		cmocka_unit_test(unknown_tags_are_skipped),
		cmocka_unit_test(messages_that_cannot_be_decoded_are_refused_and_counted),
		cmocka_unit_test(garbage_in_a_message_ends_its_connection_only),
		cmocka_unit_test(an_attach_by_hand_gets_ticket_doorbell_and_objects),
		cmocka_unit_test(a_message_of_absurd_length_is_not_waited_for),
		cmocka_unit_test(connections_are_limited_per_user),
		cmocka_unit_test(a_peer_that_never_reads_is_given_up),
		cmocka_unit_test(a_thousand_peers_that_hang_up_anywhere_leave_nothing),
		cmocka_unit_test(a_thousand_peers_that_send_garbage_leave_nothing),
	};

	srand((unsigned int)getpid());
	return cmocka_run_group_tests(tests, begin_all, end_all);
}
