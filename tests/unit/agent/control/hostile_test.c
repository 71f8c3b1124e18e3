/* Peers that hang up, send garbage, dawdle, or come in crowds, while others are served. */
#include "tests/unit/agent/control/control_fixture.h"

#include <sys/resource.h>

#define PEERS 1000
#define SHORT_MS 150u

static uint64_t random_state = 0x2545f4914f6cdd1du;

static uint32_t random_u32(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 16);
}

/* ---- a client that must not notice --------------------------------------------------------------------------- */

struct good_client {
	struct plane *plane;
	pthread_t thread;
	_Atomic bool stop;
	_Atomic unsigned int served;
};

/* Alternates between a lasting connection and fresh ones, and attaches all the way. */
static void *good_client_run(void *context)
{
	struct good_client *g = context;
	int lasting = peer_connect(g->plane->control_path);

	must(lasting >= 0 && peer_hello(lasting));
	while (!g->stop) {
		int fresh = peer_connect(g->plane->control_path);
		unsigned char ticket[16];

		must(fresh >= 0 && peer_hello(fresh));
		must(peer_op(lasting, RSHM_CONTROL_STATUS) == RSHM_OK);
		must(peer_attach(fresh, &good_words, ticket) == RSHM_OK);
		must(show_ticket(g->plane, ticket, sizeof(ticket), NULL) == 0);
		close(fresh);
		plane_do(g->plane, end_channels, NULL);
		g->served++;
	}
	close(lasting);
	return NULL;
}

static void good_client_start(struct good_client *g, struct plane *p)
{
	*g = (struct good_client){.plane = p};
	must(pthread_create(&g->thread, NULL, good_client_run, g) == 0);
	while (g->served == 0)
		sleep_ms(1);
}

static unsigned int good_client_end(struct good_client *g)
{
	g->stop = true;
	pthread_join(g->thread, NULL);
	return g->served;
}

/* ---- hanging up and garbage ---------------------------------------------------------------------------------- */

/* A whole visit: hello, and an attach or an unanswered question, as bytes. */
static size_t visit(unsigned char *to, size_t capacity)
{
	unsigned char message[512];
	size_t length, at = sizeof(peer_hello_bytes);

	length = random_u32() % 2 ? attach_message(message, sizeof(message), 1, &good_words)
				  : message_of(message, sizeof(message), RSHM_CONTROL_STATS, 1);
	must(length + 13 + at <= capacity);
	memcpy(to, peer_hello_bytes, at);
	at += frame_head(to + at, 1, length);
	memcpy(to + at, message, length);
	return at + length;
}

/* A thousand, and as many more as it takes until the good client was served five times meanwhile. */
static bool crowd_goes_on(const struct good_client *good, unsigned int done)
{
	return done < PEERS || (good->served < 6 && done < 50 * PEERS);
}

static void hang_up_at_every_point(struct plane *p, const struct good_client *good, bool garbage)
{
	unsigned char bytes[1024];

	for (unsigned int i = 0; crowd_goes_on(good, i); i++) {
		size_t length = visit(bytes, sizeof(bytes)), cut = i % (length + 1);
		int fd = peer_connect(p->control_path);

		must(fd >= 0);
		(void)peer_send(fd, bytes, cut);
		if (garbage) {
			for (size_t j = 0; j < 64; j++)
				bytes[j] = (unsigned char)random_u32();
			(void)peer_send(fd, bytes, 64);
			/* Some stay to be thrown out. */
			if (i % 10 == 0)
				(void)peer_is_closed_within(fd, 30);
		}
		if (i % 7 == 0)
			shutdown(fd, SHUT_WR);
		if (i % 5 == 0)
			sleep_ms(1);
		close(fd);
	}
}

/* Limits are not what is tested here, and tickets that are never shown expire within the test. */
static void prepare_for_crowds(struct plane *p)
{
	p->options.connections = p->options.connections_per_uid = 800;
	p->options.channels_per_uid = p->options.clients = 5000;
	p->options.handshake_timeout_ms = 1000;
}

static void thousand_peers_hang_up_while_a_good_one_is_served(void **state)
{
	struct good_client good;
	struct plane p;

	(void)state;
	plane_init(&p);
	prepare_for_crowds(&p);
	plane_start(&p);
	good_client_start(&good, &p);
	hang_up_at_every_point(&p, &good, false);
	assert_true(good_client_end(&good) > 5);
	assert_true(plane_figures(&p).connections > PEERS);
	plane_stop(&p);
}

static void thousand_peers_send_garbage_while_a_good_one_is_served(void **state)
{
	struct good_client good;
	struct plane p;

	(void)state;
	plane_init(&p);
	prepare_for_crowds(&p);
	plane_start(&p);
	good_client_start(&good, &p);
	hang_up_at_every_point(&p, &good, true);
	assert_true(good_client_end(&good) > 5);
	assert_true(plane_figures(&p).malformed > PEERS / 50);
	plane_stop(&p);
}

static void thousand_peers_hang_up_at_the_doorbell_while_a_good_one_is_served(void **state)
{
	struct good_client good;
	struct plane p;

	(void)state;
	plane_init(&p);
	prepare_for_crowds(&p);
	plane_start(&p);
	good_client_start(&good, &p);
	for (unsigned int i = 0; crowd_goes_on(&good, i); i++) {
		unsigned char bytes[64];
		int fd = peer_connect(p.doorbell_path);

		must(fd >= 0);
		for (size_t j = 0; j < sizeof(bytes); j++)
			bytes[j] = (unsigned char)random_u32();
		(void)peer_send(fd, bytes, i % 33);
		close(fd);
	}
	assert_true(good_client_end(&good) > 5);
	plane_stop(&p);
}

static void messages_changed_at_random_are_answered_or_closed(void **state)
{
	unsigned char message[1024];
	unsigned int answered = 0, closed = 0;
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	p.options.handshake_timeout_ms = 1000;
	p.options.channels_per_uid = p.options.clients = 100000;
	p.options.attaches_per_second_per_uid = 1000000;
	plane_start(&p);
	fd = peer_open(&p);
	for (unsigned int i = 0; i < 4000; i++) {
		size_t length = attach_message(message, sizeof(message), i, &good_words);
		struct reply reply;

		for (unsigned int j = 1 + random_u32() % 3; j > 0; j--)
			message[random_u32() % length] = (unsigned char)random_u32();
		if (random_u32() % 4 == 0)
			length = random_u32() % length;
		assert_true(peer_send_frame(fd, i, message, length));
		if (peer_receive_reply(fd, i, &reply)) {
			answered++;
			free(reply.bytes);
			continue;
		}
		closed++;
		close(fd);
		fd = peer_open(&p);
	}
	assert_true(answered > 1000 && closed > 100);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_PING), RSHM_OK);
	close(fd);
	plane_stop(&p);
}

static void oversize_message_closes_the_connection_at_its_head(void **state)
{
	unsigned char head[13];
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	p.options.message_bytes = 4096;
	plane_start(&p);
	fd = peer_open(&p);
	assert_true(peer_send(fd, head, frame_head(head, 1, 4097)));
	assert_true(peer_is_closed_within(fd, 1000));
	close(fd);
	assert_int_equal(plane_figures(&p).malformed, 1);
	plane_stop(&p);
}

/* ---- dawdlers ------------------------------------------------------------------------------------------------ */

/* Sends a byte every 20 ms; true if it was closed while it had bytes left, not before 2/3 of the time-out. */
static bool dawdles_until_closed(int fd, const unsigned char *bytes, size_t length)
{
	uint64_t begun_ms = clock_monotonic_ms();

	for (size_t i = 0; i < length; i++) {
		if (!peer_send(fd, bytes + i, 1) || peer_is_closed_within(fd, 20))
			return clock_monotonic_ms() - begun_ms >= SHORT_MS * 2 / 3;
	}
	return false;
}

static void dawdlers_are_closed_in_hello_and_message(void **state)
{
	unsigned char bytes[1024];
	size_t length;
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	p.options.handshake_timeout_ms = SHORT_MS;
	plane_start(&p);
	/* Says nothing; says half a hello; then dawdles over head and body of a message. */
	fd = peer_connect(p.control_path);
	assert_false(peer_is_closed_within(fd, SHORT_MS / 2));
	assert_true(peer_is_closed_within(fd, 2000));
	close(fd);
	fd = peer_connect(p.control_path);
	assert_true(peer_send(fd, peer_hello_bytes, 7));
	assert_true(peer_is_closed_within(fd, 2000));
	close(fd);
	length = visit(bytes, sizeof(bytes));
	fd = peer_open(&p);
	assert_true(dawdles_until_closed(fd, bytes + 8, length - 8));
	close(fd);
	fd = peer_open(&p);
	assert_true(peer_send(fd, bytes, frame_head(bytes, 1, 100000)));
	memset(bytes, 0, sizeof(bytes));
	assert_true(dawdles_until_closed(fd, bytes, sizeof(bytes)));
	close(fd);
	assert_int_equal(plane_figures(&p).timed_out, 4);
	plane_stop(&p);
}

static void peer_that_does_not_read_its_answer_is_closed(void **state)
{
	unsigned char message[64];
	size_t length = message_of(message, sizeof(message), RSHM_CONTROL_STATS, 1);
	struct plane p;
	int fd, small = 4096;

	(void)state;
	plane_init(&p);
	p.options.handshake_timeout_ms = SHORT_MS;
	p.json = calloc(1, 900 * 1024);
	must(p.json != NULL);
	memset(p.json, ' ', 900 * 1024 - 1);
	plane_start(&p);
	fd = peer_open(&p);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_true(peer_send_frame(fd, 1, message, length));
	for (int i = 0; i < 300 && plane_figures(&p).timed_out == 0; i++)
		sleep_ms(10);
	assert_int_equal(plane_figures(&p).timed_out, 1);
	assert_true(peer_is_closed_within(fd, 1000));
	close(fd);
	plane_stop(&p);
	free(p.json);
}

static void silence_between_messages_is_no_dawdling(void **state)
{
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	p.options.handshake_timeout_ms = SHORT_MS;
	plane_start(&p);
	fd = peer_open(&p);
	sleep_ms(3 * SHORT_MS);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_PING), RSHM_OK);
	sleep_ms(3 * SHORT_MS);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_PING), RSHM_OK);
	close(fd);
	plane_stop(&p);
}

static void peer_that_hangs_up_during_its_request_costs_nothing(void **state)
{
	unsigned char message[1024];
	size_t length = attach_message(message, sizeof(message), 1, &good_words);
	struct plane p;

	(void)state;
	plane_init(&p);
	p.options.request_timeout_ms = SHORT_MS;
	plane_start(&p);
	plane_script(&p, SCRIPT_NEVER);
	for (int i = 0; i < 20; i++) {
		int fd = peer_open(&p);

		assert_true(peer_send_frame(fd, 1, message, length));
		close(fd);
	}
	while (plane_figures(&p).requests < 20)
		sleep_ms(1);
	plane_do(&p, answer_pending, NULL);
	plane_stop(&p);
	assert_int_equal(p.seen.made, 20);
}

/* ---- crowds -------------------------------------------------------------------------------------------------- */

/* Opens until one is closed at once; how many are open. */
static int open_until_refused(struct plane *p, int *fds, int count)
{
	for (int i = 0; i < count; i++) {
		fds[i] = peer_connect(p->control_path);
		must(fds[i] >= 0);
		if (peer_hello(fds[i]))
			continue;
		close(fds[i]);
		return i;
	}
	return count;
}

static int opens_until_refused(struct plane *p, void *context)
{
	int fds[32];

	(void)context;
	return open_until_refused(p, fds, 32);
}

static void connections_are_limited_per_user(void **state)
{
	struct plane p;
	int fds[32];

	(void)state;
	plane_init(&p);
	p.options.connections_per_uid = 5;
	plane_start(&p);
	assert_int_equal(open_until_refused(&p, fds, 32), 5);
	assert_int_equal(plane_figures(&p).refused_connections, 1);
	assert_int_equal(peer_op(fds[4], RSHM_CONTROL_PING), RSHM_OK);
	for (int i = 0; i < 5; i++)
		close(fds[i]);
	/* Their places come back. */
	for (int i = 0; i < 200 && open_until_refused(&p, fds, 1) == 0; i++)
		sleep_ms(10);
	assert_int_equal(peer_op(fds[0], RSHM_CONTROL_PING), RSHM_OK);
	close(fds[0]);
	plane_stop(&p);
}

static void connections_are_limited_in_all_and_each_user_has_his_own(void **state)
{
	struct plane p;
	int fds[32];

	(void)state;
	if (geteuid() != 0)
		skip();
	plane_init(&p);
	p.options.connections_per_uid = 5;
	p.options.connections = 8;
	plane_start(&p);
	assert_int_equal(open_until_refused(&p, fds, 32), 5);
	assert_int_equal(as_user(1001, opens_until_refused, &p, NULL), 3);
	for (int i = 0; i < 5; i++)
		close(fds[i]);
	plane_stop(&p);
}

static void doorbell_connections_are_limited(void **state)
{
	unsigned char byte = 0;
	struct plane p;
	int fds[6];

	(void)state;
	plane_init(&p);
	p.options.connections_per_uid = 5;
	plane_start(&p);
	for (int i = 0; i < 6; i++)
		fds[i] = peer_connect(p.doorbell_path);
	assert_true(peer_receive(fds[5], &byte, 1));
	assert_int_equal(byte, -RSHM_E_AGAIN);
	assert_false(peer_is_closed_within(fds[4], 50));
	for (int i = 0; i < 6; i++)
		close(fds[i]);
	plane_stop(&p);
}

/* Fills the table of descriptors, with `spare` left. */
static struct rlimit leave_descriptors(rlim_t spare)
{
	struct rlimit before, low;
	int highest = dup(0);

	must(highest >= 0 && getrlimit(RLIMIT_NOFILE, &before) == 0);
	close(highest);
	low = before;
	low.rlim_cur = (rlim_t)highest + spare;
	must(setrlimit(RLIMIT_NOFILE, &low) == 0);
	return before;
}

static void want_of_descriptors_stops_neither_socket_for_good(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = 10};
	unsigned char byte = 0;
	struct rlimit before;
	struct plane p;
	int fds[4];

	(void)state;
	plane_init(&p);
	plane_start(&p);
	for (int i = 0; i < 4; i++) {
		fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	}
	before = leave_descriptors(0);
	assert_int_equal(open("/dev/null", O_RDONLY), -1);
	for (int i = 0; i < 4; i++) {
		snprintf(address.sun_path, sizeof(address.sun_path), "%s", i < 2 ? p.control_path : p.doorbell_path);
		assert_int_equal(connect(fds[i], (struct sockaddr *)&address, sizeof(address)), 0);
	}
	/* Several rounds of failing and pausing; nothing is accepted. */
	assert_false(peer_is_closed_within(fds[0], 350));
	assert_int_equal(plane_figures(&p).connections, 0);
	must(setrlimit(RLIMIT_NOFILE, &before) == 0);
	for (int i = 0; i < 2; i++) {
		assert_true(peer_hello(fds[i]));
		assert_int_equal(peer_op(fds[i], RSHM_CONTROL_PING), RSHM_OK);
	}
	for (int i = 2; i < 4; i++) {
		assert_true(peer_send(fds[i], "sixteen bytes, .", 16));
		assert_true(peer_receive(fds[i], &byte, 1));
		assert_int_equal(byte, -RSHM_E_DENIED);
	}
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	plane_stop(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(oversize_message_closes_the_connection_at_its_head),
		cmocka_unit_test(messages_changed_at_random_are_answered_or_closed),
		cmocka_unit_test(thousand_peers_hang_up_while_a_good_one_is_served),
		cmocka_unit_test(thousand_peers_send_garbage_while_a_good_one_is_served),
		cmocka_unit_test(thousand_peers_hang_up_at_the_doorbell_while_a_good_one_is_served),
		cmocka_unit_test(dawdlers_are_closed_in_hello_and_message),
		cmocka_unit_test(peer_that_does_not_read_its_answer_is_closed),
		cmocka_unit_test(silence_between_messages_is_no_dawdling),
		cmocka_unit_test(peer_that_hangs_up_during_its_request_costs_nothing),
		cmocka_unit_test(connections_are_limited_per_user),
		cmocka_unit_test(connections_are_limited_in_all_and_each_user_has_his_own),
		cmocka_unit_test(doorbell_connections_are_limited),
		cmocka_unit_test(want_of_descriptors_stops_neither_socket_for_good),
	};

	return cmocka_run_group_tests(tests, group_setup, NULL);
}
