#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/siege.h"

/*
 * The way in and the way out: tickets, half handshakes, floods of attaches, clients that die at any step. As in hostile_test.c
 * a witness is served all the while, and nothing is left.
 */

static struct siege siege;

static int begin_all(void **state)
{
	static const char *const settings[] = {"limits.attaches_per_second_per_uid=100000",
					       "limits.handshake_timeout_ms=400", NULL};

	(void)state;
	return siege_begin(&siege, settings);
}

static int end_all(void **state)
{
	(void)state;
	return siege_end(&siege);
}

static int setup(void **state)
{
	(void)state;
	return siege_begin_case(&siege);
}

static int teardown(void **state)
{
	(void)state;
	return siege_end_case(&siege);
}

/* ---- the way in --------------------------------------------------------------------------------------------- */

static void tickets_that_are_wrong_used_late_or_cut_open_nothing(void **state)
{
	int64_t channels = e2e_number(&siege.agent, "control.channels_open");
	unsigned char wrong[RAW_TICKET_BYTES] = {1, 2, 3};
	struct raw_client client, second;

	(void)state;
	assert_int_equal(raw_ask(&client, siege.agent.socket, "default"), RSHM_OK);
	second = client;
	assert_int_equal(raw_ring(&second, wrong, sizeof(wrong)), RSHM_OK);
	assert_int_equal(raw_welcome(&second), RSHM_E_DENIED);
	raw_close(&second);
	/* The right one still serves, and once only. */
	assert_int_equal(raw_ring(&client, client.ticket, RAW_TICKET_BYTES), RSHM_OK);
	assert_int_equal(raw_welcome(&client), RSHM_OK);
	second = client;
	assert_int_equal(raw_ring(&second, client.ticket, RAW_TICKET_BYTES), RSHM_OK);
	second.memfd = -1;
	second.channel = NULL;
	assert_int_equal(raw_welcome(&second), RSHM_E_DENIED);
	raw_close(&second);
	raw_close(&client);
	/* Late: the ticket has expired and its place is free again. */
	assert_int_equal(raw_ask(&client, siege.agent.socket, "default"), RSHM_OK);
	e2e_pause_ms(1500);
	assert_int_equal(raw_ring(&client, client.ticket, RAW_TICKET_BYTES), RSHM_OK);
	assert_int_equal(raw_welcome(&client), RSHM_E_DENIED);
	raw_close(&client);
	/* Cut: not whole in time. */
	assert_int_equal(raw_ask(&client, siege.agent.socket, "default"), RSHM_OK);
	assert_int_equal(raw_ring(&client, client.ticket, RAW_TICKET_BYTES - 1), RSHM_OK);
	assert_true(raw_is_hung_up(client.bell, 3000));
	raw_close(&client);
	assert_true(e2e_await_exactly(&siege.agent, "control.channels_open", channels, 3000));
}

static void half_handshakes_are_dropped_in_time(void **state)
{
	char doorbell[128];
	int fds[40];

	(void)state;
	snprintf(doorbell, sizeof(doorbell), "%s/doorbell.sock", siege.agent.run_dir);
	for (int i = 0; i < 40; i++) {
		fds[i] = raw_connect(i % 2 ? doorbell : siege.agent.socket);
		assert_true(fds[i] >= 0);
		if (i % 4 >= 2)
			(void)raw_send(fds[i], "\0SP\0\0", (size_t)(i / 8));
	}
	for (int i = 0; i < 40; i++) {
		assert_true(raw_is_hung_up(fds[i], 3000));
		close(fds[i]);
	}
	assert_true(e2e_number(&siege.agent, "control.timed_out") > 0);
}

/* ---- dying at each step ------------------------------------------------------------------------------------- */

struct death {
	int at, step;
};

static void maybe_die(struct death *death)
{
	if (++death->step == death->at)
		raise(SIGKILL);
}

/* Begins a body of `length` bytes and leaves it at its first piece. */
static void begin_body(struct raw_client *client, uint32_t number, uint32_t length)
{
	struct rshm_slot *slot = &client->channel->slots[number];

	slot->request = (struct rshm_request){
		.op = RSHM_OP_SET,
		.key_len = 4,
		.body_len = length,
		.piece_len = RSHM_INLINE,
		.deadline_ms = rshm_now_ms() + 5000,
	};
	memset(slot->bytes, 'h', RSHM_INLINE);
	raw_submit(client, number, RSHM_SLOT_GENERATION(slot->word) + 1);
}

static bool send_pieces(struct raw_client *client, struct death *death, uint32_t total)
{
	struct rshm_slot *slot = &client->channel->slots[0];
	uint32_t sent = RSHM_INLINE;

	begin_body(client, 0, total);
	maybe_die(death);
	while (raw_await(client, 0, 3000) && slot->answer.status == RSHM_CONTINUE) {
		maybe_die(death);
		slot->request.offset = sent;
		slot->request.piece_len = total - sent < RSHM_INLINE ? total - sent : RSHM_INLINE;
		sent += slot->request.piece_len;
		raw_submit(client, 0, RSHM_SLOT_GENERATION(slot->word));
		maybe_die(death);
	}
	return slot->answer.status == RSHM_OK;
}

static bool fetch_pieces(struct raw_client *client, struct death *death, uint32_t total)
{
	struct rshm_slot *slot = &client->channel->slots[0];
	uint32_t got;

	slot->request = raw_fields(RSHM_OP_GET, 4, 0);
	slot->request.deadline_ms = rshm_now_ms() + 5000;
	memcpy(slot->bytes, "hhhh", 4);
	raw_submit(client, 0, RSHM_SLOT_GENERATION(slot->word) + 1);
	maybe_die(death);
	if (!raw_await(client, 0, 3000) || slot->answer.status != RSHM_OK || slot->answer.answer_len != total)
		return false;
	for (got = slot->answer.piece_len; got < total; got += slot->answer.piece_len) {
		maybe_die(death);
		slot->request.flags = RSHM_REQUEST_FETCH;
		slot->request.offset = got;
		raw_submit(client, 0, RSHM_SLOT_GENERATION(slot->word));
		maybe_die(death);
		if (!raw_await(client, 0, 3000) || slot->answer.piece_len == 0)
			return false;
	}
	return got == total;
}

/* Attach, a set and a get in pieces, step by step; dies at step `at`. 0: got through alive. */
static int die_on_the_way(void *context)
{
	struct death *death = context;
	struct raw_client client;
	int fd = raw_connect(siege.agent.socket);

	maybe_die(death);
	(void)raw_send(fd, "\0SP\0\0\x30\0", 7);
	maybe_die(death);
	close(fd);
	if (raw_ask(&client, siege.agent.socket, "default") != RSHM_OK)
		return 1;
	maybe_die(death);
	if (raw_ring(&client, client.ticket, 8) != RSHM_OK)
		return 2;
	maybe_die(death);
	if (!raw_send(client.bell, client.ticket + 8, 8))
		return 3;
	maybe_die(death);
	if (raw_welcome(&client) != RSHM_OK)
		return 4;
	maybe_die(death);
	client.channel->slots[0].word = 1u << 4 | RSHM_SLOT_FILLING;
	maybe_die(death);
	if (!send_pieces(&client, death, 5 * RSHM_INLINE - 7))
		return 5;
	maybe_die(death);
	if (!fetch_pieces(&client, death, 5 * RSHM_INLINE - 11))
		return 6;
	raw_close(&client);
	return 0;
}

static void dying_at_each_step_leaves_nothing(void **state)
{
	int status, at = 1, killed = 0;

	(void)state;
	do {
		struct death death = {.at = at++};

		status = e2e_join(e2e_fork(die_on_the_way, &death), 15000);
		killed += status == 1000 + SIGKILL;
	} while (status == 1000 + SIGKILL && at < 200);
	assert_int_equal(status, 0);
	assert_in_range(killed, 20, 60);
}

/* ---- floods ------------------------------------------------------------------------------------------------- */

static int begin_limited(void **state)
{
	static const char *const settings[] = {"limits.channels_per_uid=20", "limits.handshake_timeout_ms=400", NULL};

	(void)state;
	return siege_begin(&siege, settings);
}

static void ten_thousand_attaches_leave_nothing(void **state)
{
	int64_t channels = e2e_number(&siege.agent, "control.channels_open");
	int descriptors = e2e_descriptors(siege.agent.pid);

	(void)state;
	for (int i = 0; i < 10000; i++) {
		struct raw_client client;

		assert_int_equal(raw_attach(&client, siege.agent.socket, "default"), RSHM_OK);
		raw_close(&client);
	}
	assert_true(e2e_await_exactly(&siege.agent, "control.channels_open", channels, 5000));
	assert_in_range(e2e_descriptors(siege.agent.pid), 1, descriptors + 4);
	assert_true(e2e_witness_is_well(&siege.witness, 5000));
}

static void two_thousand_attaches_meet_the_rate_limit(void **state)
{
	int64_t refused = e2e_number(&siege.agent, "control.refused_attaches");
	int taken = 0, told = 0;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		struct raw_client client;
		int status = raw_attach(&client, siege.agent.socket, "default");

		if (status == RSHM_OK)
			raw_close(&client);
		taken += status == RSHM_OK;
		told += status == RSHM_E_AGAIN;
	}
	assert_int_equal(taken + told, 2000);
	assert_true(taken > 0);
	assert_true(told > 0);
	assert_int_equal(e2e_number(&siege.agent, "control.refused_attaches"), refused + told);
	assert_true(agent_process_log_has(&siege.agent, "attaches more than 200 times a second"));
	assert_true(e2e_witness_is_well(&siege.witness, 5000));
	e2e_pause_ms(1200);
	for (int i = 0; i < 10; i++) {
		struct raw_client client;

		siege_attach(&siege, &client);
		raw_close(&client);
	}
}

static void channels_are_limited_and_given_back(void **state)
{
	struct raw_client clients[30];
	int open = 0;

	(void)state;
	e2e_pause_ms(1100);
	for (; open < 30; open++)
		if (raw_attach(&clients[open], siege.agent.socket, "default") != RSHM_OK)
			break;
	assert_int_equal(open, 19); /* and the witness */
	assert_true(e2e_witness_is_well(&siege.witness, 5000));
	for (int i = 0; i < open; i++)
		raw_close(&clients[i]);
	assert_true(e2e_await_exactly(&siege.agent, "control.channels_open", 1, 5000));
	siege_attach(&siege, &clients[0]);
	raw_close(&clients[0]);
}

/* Tickets that nobody shows hold places only until they expire. */
static void tickets_not_used_give_their_places_back(void **state)
{
	struct raw_client client;
	int told = 0;

	(void)state;
	e2e_pause_ms(1100);
	for (int i = 0; i < 40; i++)
		told += raw_ask(&client, siege.agent.socket, "default") == RSHM_E_AGAIN;
	assert_int_equal(told, 40 - 19);
	e2e_pause_ms(1500);
	siege_attach(&siege, &client);
	raw_close(&client);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest handshakes[] = {
		CASE(tickets_that_are_wrong_used_late_or_cut_open_nothing),
		CASE(half_handshakes_are_dropped_in_time),
		CASE(dying_at_each_step_leaves_nothing),
		CASE(ten_thousand_attaches_leave_nothing),
	};
	const struct CMUnitTest floods[] = {
		CASE(two_thousand_attaches_meet_the_rate_limit),
		CASE(channels_are_limited_and_given_back),
		CASE(tickets_not_used_give_their_places_back),
	};
#undef CASE
	int failed = cmocka_run_group_tests(handshakes, begin_all, end_all);

	return failed + cmocka_run_group_tests(floods, begin_limited, end_all);
}
