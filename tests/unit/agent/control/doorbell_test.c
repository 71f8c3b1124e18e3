/* From an attach to a channel: what is asked, what is answered, and every way in which a ticket can be wrong. */
#include "tests/unit/agent/control/control_fixture.h"

#define DENIED (-RSHM_E_DENIED)
#define SHORT_MS 100u

/* ---- attach -------------------------------------------------------------------------------------------------- */

static uint64_t number_of(const struct reply *reply, enum rshm_tag tag)
{
	struct rshm_tlv tlv;
	uint64_t value = 0;

	assert_true(reply_find(reply, tag, &tlv));
	assert_true(rshm_tlv_get_u64(&tlv, &value));
	return value;
}

static void assert_text(const struct reply *reply, enum rshm_tag tag, const char *wanted)
{
	struct rshm_tlv tlv;
	char text[256];

	assert_true(reply_find(reply, tag, &tlv));
	assert_true(rshm_tlv_get_text(&tlv, text, sizeof(text)));
	assert_string_equal(text, wanted);
}

static struct reply attach_and_keep(int fd, const struct attach_words *words)
{
	unsigned char message[1024];
	size_t length = attach_message(message, sizeof(message), 4711, words);
	struct reply reply = {0};

	assert_true(peer_send_frame(fd, 9, message, length));
	assert_true(peer_receive_reply(fd, 9, &reply));
	assert_int_equal(reply.header.request_id, 4711);
	return reply;
}

static void accepted_attach_is_told_all_it_needs(void **state)
{
	struct rshm_tlv tlv;
	struct reply reply;
	struct plane p;
	uint32_t uid = 0;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	reply = attach_and_keep(fd, &good_words);
	assert_int_equal(reply.header.status, RSHM_OK);
	assert_true(reply_find(&reply, RSHM_TAG_TICKET, &tlv));
	assert_int_equal(tlv.length, 16);
	assert_text(&reply, RSHM_TAG_DOORBELL, p.doorbell_path);
	assert_text(&reply, RSHM_TAG_AGENT_OBJECT, "/riptide.test.agent");
	assert_text(&reply, RSHM_TAG_SEGMENT_OBJECT, "/riptide.test.segment");
	assert_int_equal(number_of(&reply, RSHM_TAG_AGENT_SIZE), 65536);
	assert_int_equal(number_of(&reply, RSHM_TAG_SEGMENT_SIZE), 1u << 20);
	assert_int_equal(number_of(&reply, RSHM_TAG_ENTRY_LIMIT), 12345);
	assert_int_equal(number_of(&reply, RSHM_TAG_CHANNEL_ID), 1);
	assert_true(reply_find(&reply, RSHM_TAG_AGENT_UID, &tlv) && rshm_tlv_get_u32(&tlv, &uid));
	assert_int_equal(uid, geteuid());
	assert_false(reply_find(&reply, RSHM_TAG_ERROR_TEXT, &tlv));
	free(reply.bytes);
	assert_int_equal(plane_figures(&p).attaches, 1);
	close(fd);
	plane_stop(&p);
}

static void attach_without_a_segment_names_none(void **state)
{
	struct rshm_tlv tlv;
	struct reply reply;
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	plane_script(&p, SCRIPT_NO_SEGMENT);
	fd = peer_open(&p);
	reply = attach_and_keep(fd, &good_words);
	assert_int_equal(reply.header.status, RSHM_OK);
	assert_false(reply_find(&reply, RSHM_TAG_SEGMENT_OBJECT, &tlv));
	assert_false(reply_find(&reply, RSHM_TAG_SEGMENT_SIZE, &tlv));
	free(reply.bytes);
	close(fd);
	plane_stop(&p);
}

static void hook_sees_who_asks_for_what(void **state)
{
	struct attach_words words = good_words;
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	words.tenant = "a-tenant-9";
	words.program = "evil\n\x1b[2J name that is much longer than what is kept of it";
	words.token_length = 33;
	assert_int_equal(peer_attach(fd, &words, NULL), RSHM_OK);
	assert_string_equal(seen(&p)->tenant, "a-tenant-9");
	assert_true(strlen(seen(&p)->program) <= 47);
	assert_memory_equal(seen(&p)->program, "evil\\n\\x1b[2J name", 17);
	assert_int_equal(seen(&p)->token_length, 33);
	close(fd);
	plane_stop(&p);
}

static void clock_of_another_time_namespace_means_no_hot_reads(void **state)
{
	static const struct {
		int64_t offset_ms;
		int differs;
	} cases[] = {{0, 0}, {-500, 0}, {500, 0}, {-1500, 1}, {1500, 1}, {INT64_MAX, 1}, {INT64_MIN, 1}};
	struct attach_words words = good_words;
	struct reply reply;
	struct rshm_tlv tlv;
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		words.clock_offset_ms = cases[i].offset_ms;
		reply = attach_and_keep(fd, &words);
		assert_int_equal(reply.header.status, RSHM_OK);
		assert_int_equal(seen(&p)->clock_differs, cases[i].differs);
		/* The client is told why it has no hot reads. */
		assert_int_equal(reply_find(&reply, RSHM_TAG_ERROR_TEXT, &tlv), cases[i].differs);
		free(reply.bytes);
	}
	close(fd);
	plane_stop(&p);
}

static void attach_that_cannot_be_meant_is_refused_before_the_hook(void **state)
{
	static const char *const bad_tenants[] = {
		"",
		"UPPER",
		"../etc",
		"a b",
		"t\xc3\xa9",
		"under_score",
		"01234567890123456789012345678901234567890123456789012345678901234"};
	struct attach_words words = good_words;
	unsigned char message[1024];
	size_t length;
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	for (size_t i = 0; i < sizeof(bad_tenants) / sizeof(bad_tenants[0]); i++) {
		words.tenant = bad_tenants[i];
		assert_int_equal(peer_attach(fd, &words, NULL),
				 strlen(bad_tenants[i]) > 64 ? RSHM_E_PROTOCOL : RSHM_E_INVALID);
	}
	words = good_words;
	words.layout = RSHM_LAYOUT_MAJOR + 1;
	assert_int_equal(peer_attach(fd, &words, NULL), RSHM_E_UNSUPPORTED);
	words = good_words;
	words.token_length = 5000;
	assert_int_equal(peer_attach(fd, &words, NULL), RSHM_E_PROTOCOL);
	/* The last tag is given the number of the first: the tenant twice. */
	length = attach_message(message, sizeof(message), 1, &good_words);
	message[length - 10] = RSHM_TAG_TENANT;
	message[length - 9] = 0;
	assert_int_equal(peer_ask(fd, message, length, NULL), RSHM_E_PROTOCOL);
	length = message_of(message, sizeof(message), RSHM_CONTROL_ATTACH, 1);
	assert_int_equal(peer_ask(fd, message, length, NULL), RSHM_E_UNSUPPORTED);
	assert_int_equal(seen(&p)->attach_calls, 0);
	assert_int_equal(plane_figures(&p).refused_attaches, 11);
	assert_int_equal(peer_attach(fd, &good_words, NULL), RSHM_OK);
	close(fd);
	plane_stop(&p);
}

static void refusal_of_the_hook_reaches_the_client_and_frees_the_place(void **state)
{
	struct reply reply;
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	p.options.channels_per_uid = 1;
	plane_start(&p);
	plane_script(&p, SCRIPT_REFUSE);
	fd = peer_open(&p);
	for (int i = 0; i < 3; i++) {
		reply = attach_and_keep(fd, &good_words);
		assert_int_equal(reply.header.status, RSHM_E_NOTENANT);
		assert_text(&reply, RSHM_TAG_ERROR_TEXT, "the script says no");
		free(reply.bytes);
	}
	plane_script(&p, SCRIPT_ACCEPT);
	assert_int_equal(peer_attach(fd, &good_words, NULL), RSHM_OK);
	close(fd);
	plane_stop(&p);
}

static void attaches_above_the_rate_of_a_user_are_told_to_wait(void **state)
{
	struct plane p;
	int fd, accepted = 0;

	(void)state;
	plane_init(&p);
	p.options.attaches_per_second_per_uid = 5;
	plane_start(&p);
	plane_script(&p, SCRIPT_REFUSE);
	fd = peer_open(&p);
	for (int i = 0; i < 12; i++) {
		int status = peer_attach(fd, &good_words, NULL);

		assert_true(status == RSHM_E_NOTENANT || status == RSHM_E_AGAIN);
		accepted += status == RSHM_E_NOTENANT;
	}
	assert_in_range(accepted, 5, 8);
	sleep_ms(450);
	assert_int_equal(peer_attach(fd, &good_words, NULL), RSHM_E_NOTENANT);
	close(fd);
	plane_stop(&p);
}

/* ---- tickets ------------------------------------------------------------------------------------------------- */

static void ticket_opens_one_channel(void **state)
{
	unsigned char ticket[16];
	struct plane p;
	int fd, bell;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	assert_int_equal(peer_attach(fd, &good_words, ticket), RSHM_OK);
	assert_int_equal(show_ticket(&p, ticket, sizeof(ticket), &bell), 0);
	assert_int_equal(seen(&p)->connected, 1);
	assert_int_equal(seen(&p)->last_channel_id, 1);
	assert_int_equal(seen(&p)->connected_peer.uid, geteuid());
	assert_int_equal(seen(&p)->connected_peer.gid, getegid());
	assert_int_equal(seen(&p)->connected_peer.pid, getpid());
	assert_int_equal(plane_figures(&p).channels_open, 1);
	/* Once. */
	assert_int_equal(show_ticket(&p, ticket, sizeof(ticket), NULL), DENIED);
	plane_do(&p, end_channels, NULL);
	assert_int_equal(plane_figures(&p).channels_open, 0);
	assert_int_equal(peer_attach(fd, &good_words, ticket), RSHM_OK);
	close(bell);
	assert_int_equal(show_ticket(&p, ticket, sizeof(ticket), &bell), 0);
	assert_int_equal(seen(&p)->last_channel_id, 2);
	close(bell);
	close(fd);
	plane_stop(&p);
	assert_int_equal(p.seen.released, 0);
}

static void ticket_may_come_in_pieces_and_what_follows_is_left_to_the_channel(void **state)
{
	unsigned char ticket[16], byte = 1, rest[8];
	struct plane p;
	int fd, bell;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	assert_int_equal(peer_attach(fd, &good_words, ticket), RSHM_OK);
	bell = peer_connect(p.doorbell_path);
	for (int i = 0; i < 15; i++) {
		assert_true(peer_send(bell, ticket + i, 1));
		sleep_ms(2);
	}
	memcpy(rest, ticket + 15, 1);
	memcpy(rest + 1, "bells", 5);
	assert_true(peer_send(bell, rest, 6));
	assert_true(peer_receive(bell, &byte, 1));
	assert_int_equal(byte, 0);
	assert_int_equal(recv(seen(&p)->last_channel_fd, rest, sizeof(rest), 0), 5);
	assert_memory_equal(rest, "bells", 5);
	close(bell);
	close(fd);
	plane_stop(&p);
}

static void wrong_tickets_are_denied(void **state)
{
	unsigned char ticket[16], wrong[16];
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	memset(wrong, 0, sizeof(wrong));
	assert_int_equal(show_ticket(&p, wrong, sizeof(wrong), NULL), DENIED);
	fd = peer_open(&p);
	assert_int_equal(peer_attach(fd, &good_words, ticket), RSHM_OK);
	for (int i = 0; i < 128; i++) {
		memcpy(wrong, ticket, sizeof(wrong));
		wrong[i / 8] ^= (unsigned char)(1u << i % 8);
		assert_int_equal(show_ticket(&p, wrong, sizeof(wrong), NULL), DENIED);
	}
	/* The right one was not touched by that. */
	assert_int_equal(show_ticket(&p, ticket, sizeof(ticket), NULL), 0);
	close(fd);
	plane_stop(&p);
}

static void tickets_do_not_repeat(void **state)
{
	unsigned char tickets[32][16];
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	for (int i = 0; i < 32; i++) {
		assert_int_equal(peer_attach(fd, &good_words, tickets[i]), RSHM_OK);
		for (int j = 0; j < i; j++)
			assert_memory_not_equal(tickets[i], tickets[j], 16);
	}
	close(fd);
	plane_stop(&p);
	assert_int_equal(p.seen.released, 32);
}

static void expired_ticket_is_denied_and_its_place_is_free_again(void **state)
{
	unsigned char ticket[16];
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	p.options.handshake_timeout_ms = SHORT_MS;
	p.options.channels_per_uid = 1;
	plane_start(&p);
	fd = peer_open(&p);
	assert_int_equal(peer_attach(fd, &good_words, ticket), RSHM_OK);
	assert_int_equal(peer_attach(fd, &good_words, NULL), RSHM_E_AGAIN);
	sleep_ms(3 * SHORT_MS + 50);
	assert_int_equal(seen(&p)->released, 1);
	assert_int_equal(show_ticket(&p, ticket, sizeof(ticket), NULL), DENIED);
	assert_int_equal(peer_attach(fd, &good_words, ticket), RSHM_OK);
	assert_int_equal(show_ticket(&p, ticket, sizeof(ticket), NULL), 0);
	close(fd);
	plane_stop(&p);
}

static void half_a_ticket_is_told_of_its_timeout(void **state)
{
	struct plane p;
	unsigned char byte = 0;
	int bell;

	(void)state;
	plane_init(&p);
	p.options.handshake_timeout_ms = SHORT_MS;
	plane_start(&p);
	bell = peer_connect(p.doorbell_path);
	assert_true(peer_send(bell, "1234567", 7));
	assert_true(peer_receive(bell, &byte, 1));
	assert_int_equal(byte, -RSHM_E_TIMEDOUT);
	assert_false(peer_receive(bell, &byte, 1));
	close(bell);
	assert_int_equal(plane_figures(&p).timed_out, 1);
	plane_stop(&p);
}

/* ---- users --------------------------------------------------------------------------------------------------- */

static int shows_anothers_ticket(struct plane *p, void *ticket)
{
	return show_ticket(p, ticket, 16, NULL) == DENIED ? 0 : 1;
}

static void ticket_shown_by_another_user_is_denied_and_void(void **state)
{
	unsigned char ticket[16];
	struct plane p;
	int fd;

	(void)state;
	if (geteuid() != 0)
		skip();
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	assert_int_equal(peer_attach(fd, &good_words, ticket), RSHM_OK);
	assert_int_equal(as_user(12345, shows_anothers_ticket, &p, ticket), 0);
	assert_int_equal(show_ticket(&p, ticket, sizeof(ticket), NULL), DENIED);
	close(fd);
	plane_stop(&p);
	assert_int_equal(p.seen.connected, 0);
	assert_int_equal(p.seen.released, 1);
}

/* The status of the n-th attach, n from `context`; those before must be accepted and shown. */
static int attaches_until(struct plane *p, void *context)
{
	int fd = peer_connect(p->control_path), status = 0;
	unsigned char ticket[16];

	if (fd < 0 || !peer_hello(fd))
		return 100;
	for (int i = 0; i < *(int *)context; i++) {
		if (status != RSHM_OK)
			return 101;
		status = peer_attach(fd, &good_words, ticket);
		if (status == RSHM_OK && show_ticket(p, ticket, sizeof(ticket), NULL) != 0)
			return 102;
	}
	return -status;
}

static void overflow_uid_is_denied(void **state)
{
	struct plane p;
	int count = 1;

	(void)state;
	if (geteuid() != 0)
		skip();
	plane_init(&p);
	plane_start(&p);
	assert_int_equal(as_user(65534, attaches_until, &p, &count), DENIED);
	assert_int_equal(seen(&p)->attach_calls, 0);
	plane_stop(&p);
}

static void channels_are_limited_per_user_and_in_all(void **state)
{
	struct plane p;
	int two = 2, three = 3, four = 4;

	(void)state;
	if (geteuid() != 0)
		skip();
	plane_init(&p);
	p.options.channels_per_uid = 3;
	p.options.clients = 5;
	plane_start(&p);
	assert_int_equal(as_user(1001, attaches_until, &p, &four), -RSHM_E_AGAIN);
	assert_int_equal(seen(&p)->connected, 3);
	assert_int_equal(as_user(1002, attaches_until, &p, &three), -RSHM_E_AGAIN);
	assert_int_equal(seen(&p)->connected, 5);
	/* Whatever limit it was: when channels end, others come in. */
	plane_do(&p, end_channels, NULL);
	assert_int_equal(as_user(1002, attaches_until, &p, &three), 0);
	assert_int_equal(as_user(1001, attaches_until, &p, &two), 0);
	assert_int_equal(plane_figures(&p).channels_open, 5);
	plane_stop(&p);
}

static void rate_of_one_user_is_not_that_of_another(void **state)
{
	struct plane p;
	int one = 1, three = 3;

	(void)state;
	if (geteuid() != 0)
		skip();
	plane_init(&p);
	p.options.attaches_per_second_per_uid = 2;
	plane_start(&p);
	assert_int_equal(as_user(1001, attaches_until, &p, &three), -RSHM_E_AGAIN);
	assert_int_equal(as_user(1001, attaches_until, &p, &one), -RSHM_E_AGAIN);
	assert_int_equal(as_user(1002, attaches_until, &p, &one), 0);
	plane_stop(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepted_attach_is_told_all_it_needs),
		cmocka_unit_test(attach_without_a_segment_names_none),
		cmocka_unit_test(hook_sees_who_asks_for_what),
		cmocka_unit_test(clock_of_another_time_namespace_means_no_hot_reads),
		cmocka_unit_test(attach_that_cannot_be_meant_is_refused_before_the_hook),
		cmocka_unit_test(refusal_of_the_hook_reaches_the_client_and_frees_the_place),
		cmocka_unit_test(attaches_above_the_rate_of_a_user_are_told_to_wait),
		cmocka_unit_test(ticket_opens_one_channel),
		cmocka_unit_test(ticket_may_come_in_pieces_and_what_follows_is_left_to_the_channel),
		cmocka_unit_test(wrong_tickets_are_denied),
		cmocka_unit_test(tickets_do_not_repeat),
		cmocka_unit_test(expired_ticket_is_denied_and_its_place_is_free_again),
		cmocka_unit_test(half_a_ticket_is_told_of_its_timeout),
		cmocka_unit_test(ticket_shown_by_another_user_is_denied_and_void),
		cmocka_unit_test(overflow_uid_is_denied),
		cmocka_unit_test(channels_are_limited_per_user_and_in_all),
		cmocka_unit_test(rate_of_one_user_is_not_that_of_another),
	};

	return cmocka_run_group_tests(tests, group_setup, NULL);
}
