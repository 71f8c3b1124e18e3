/*
 * Servers that lie: what a scripted peer on a unix socket sends must never crash, mislead or hold the store.
 */
#include "tests/unit/agent/store/redis/fixture.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#define GREETING \
	"+OK\r\n:7\r\n$69\r\n# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nrun_id:abcdef\r\n\r\n"
#define READ_MAX (1u << 20)

/* Greets as Redis does, then answers the first commands with `attack` and says nothing more. */
struct peer {
	pthread_t thread;
	int listener;
	uint32_t stop; /* atomic */
	const char *greeting, *attack;
	size_t attack_length;
	bool hangs_up;
	uint32_t connections, commands; /* atomic; commands: lines that begin with "GET" or "SET" */
};

static uint32_t count_commands(const char *bytes, ssize_t length)
{
	uint32_t count = 0;

	for (ssize_t i = 0; i + 5 <= length; i++)
		count += memcmp(bytes + i, "GET\r\n", 5) == 0 || memcmp(bytes + i, "SET\r\n", 5) == 0;
	return count;
}

static void peer_serve(struct peer *peer, int fd, char *buffer)
{
	struct timeval slice = {.tv_usec = 20000};
	bool attacked = false;
	ssize_t length = recv(fd, buffer, READ_MAX, 0);

	if (length <= 0 || send(fd, peer->greeting, strlen(peer->greeting), MSG_NOSIGNAL) < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &slice, sizeof(slice));
	while (!__atomic_load_n(&peer->stop, __ATOMIC_RELAXED)) {
		length = recv(fd, buffer, READ_MAX, 0);
		if (length == 0)
			return;
		if (length < 0)
			continue;
		__atomic_add_fetch(&peer->commands, count_commands(buffer, length), __ATOMIC_RELAXED);
		if (!attacked && send(fd, peer->attack, peer->attack_length, MSG_NOSIGNAL) < 0)
			return;
		attacked = true;
		if (peer->hangs_up)
			return;
	}
}

static void *peer_run(void *context)
{
	struct peer *peer = context;
	char *buffer = malloc(READ_MAX);
	int fd;

	while ((fd = accept(peer->listener, NULL, NULL)) >= 0) {
		__atomic_add_fetch(&peer->connections, 1, __ATOMIC_RELAXED);
		peer_serve(peer, fd, buffer);
		close(fd);
	}
	free(buffer);
	return NULL;
}

static void peer_start(struct fixture *f, struct peer *peer)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	assert_int_equal(redis_server_prepare(&f->server), 0);
	memcpy(address.sun_path, f->server.unix_path, sizeof(address.sun_path));
	peer->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (peer->greeting == NULL)
		peer->greeting = GREETING;
	assert_int_equal(bind(peer->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(peer->listener, 16), 0);
	assert_int_equal(pthread_create(&peer->thread, NULL, peer_run, peer), 0);
	f->config.pool_min = f->config.pool_max = 1;
	f->config.retry_attempts = 1;
	fixture_open(f);
}

static void peer_stop(struct fixture *f, struct peer *peer)
{
	fixture_close(f);
	__atomic_store_n(&peer->stop, 1, __ATOMIC_RELAXED);
	shutdown(peer->listener, SHUT_RDWR);
	pthread_join(peer->thread, NULL);
	close(peer->listener);
	redis_server_stop(&f->server);
	f->url[0] = '\0';
}

static int prepare(void **state)
{
	*state = fixture_create();
	return 0;
}

static int without(void **state)
{
	fixture_destroy(*state);
	return 0;
}

/* One read against the attack: its status, and how many connections were dropped as liars. */
static int attack_on(struct fixture *f, enum store_op op, const char *bytes, size_t length, uint64_t patience_ms,
		     uint64_t *ret_protocol_errors)
{
	struct peer peer = {.attack = bytes, .attack_length = length};
	struct call call = {.answers = 0};
	int status;

	peer_start(f, &peer);
	call_start(f, &call, op, "k", 1, patience_ms);
	status = call_wait(f, &call);
	fixture_run_for(f, 6);
	*ret_protocol_errors = fixture_metric(f, STORE_REDIS_PROTOCOL_ERRORS);
	peer_stop(f, &peer);
	call_fini(&call);
	return status;
}

static int attack(struct fixture *f, const char *bytes, size_t length, uint64_t patience_ms,
		  uint64_t *ret_protocol_errors)
{
	return attack_on(f, STORE_GET, bytes, length, patience_ms, ret_protocol_errors);
}

static void impossible_answers_drop_the_connection(void **state)
{
	fixture_needs_metrics();
	static const struct {
		const char *bytes;
		size_t length;
	} attacks[] = {
#define ATTACK(text) {text, sizeof(text) - 1}
		ATTACK("*1111701117\r\n"),
		ATTACK("*2147483647\r\n"),
		ATTACK("*-7\r\n"),
		ATTACK("*0\r\n"),
		ATTACK("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"),
		ATTACK("garbage\r\n"),
		ATTACK("\r\n\r\n"),
		ATTACK("\0\0\0\0"),
		ATTACK("HTTP/1.1 400 Bad Request\r\n\r\n"),
		ATTACK("$99999999999999999999\r\n"),
		ATTACK("$4294967295\r\n"),
		ATTACK("$30000000\r\nabc"),
		ATTACK("$-5\r\n"),
		ATTACK("$x\r\n"),
		ATTACK(":\r\n:\r\n"),
		ATTACK(":5\r\n:5\r\n"),
		ATTACK("+OK\r\n"),
		ATTACK("$1\r\nx\r\n$1\r\nx\r\n"),
		/* RESP3, which nobody asked for. */
		ATTACK("%1\r\n+a\r\n+b\r\n"),
		ATTACK("_\r\n"),
		ATTACK(">2\r\n+invalidate\r\n*0\r\n"),
		ATTACK("#t\r\n"),
		ATTACK(",1.5\r\n"),
		ATTACK("~1\r\n+a\r\n"),
		ATTACK("(12345678901234567890\r\n"),
		ATTACK("=7\r\ntxt:abc\r\n"),
		ATTACK("|1\r\n+a\r\n+b\r\n"),
		ATTACK("!3\r\nERR\r\n"),
#undef ATTACK
	};

	for (size_t i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++) {
		uint64_t errors = 0;
		int status = attack(*state, attacks[i].bytes, attacks[i].length, 5000, &errors);

		if (status != RSHM_E_BACKEND || errors != 1)
			fail_msg("attack %zu: status %d, %u protocol errors", i, status, (unsigned)errors);
	}
}

static void impossible_pages_drop_the_connection(void **state)
{
	fixture_needs_metrics();
	static const char *const attacks[] = {
		"*0\r\n",
		"*-1\r\n",
		"*1\r\n$1\r\n0\r\n",
		"*3\r\n$1\r\n0\r\n*0\r\n*0\r\n",
		"*2147483647\r\n",
		"*2\r\n*0\r\n*0\r\n",
		"*2\r\n:0\r\n*0\r\n",
		"*2\r\n+0\r\n*0\r\n",
		"*2\r\n$-1\r\n*0\r\n",
		"*2\r\n-ERR\r\n*0\r\n",
		"*2\r\n$0\r\n\r\n*0\r\n",
		"*2\r\n$1\r\nx\r\n*0\r\n",
		"*2\r\n$2\r\n-1\r\n*0\r\n",
		"*2\r\n$21\r\n000000000000000000000\r\n*0\r\n",
		"*2\r\n$30000000\r\n0",
		"*2\r\n$1\r\n0\r\n$1\r\nx\r\n",
		"*2\r\n$1\r\n0\r\n:1\r\n",
		"*2\r\n$1\r\n0\r\n*-1\r\n",
		"*2\r\n$1\r\n0\r\n*1\r\n:1\r\n",
		"*2\r\n$1\r\n0\r\n*1\r\n$-1\r\n",
		"*2\r\n$1\r\n0\r\n*1\r\n*0\r\n",
		"*2\r\n$1\r\n0\r\n*1\r\n*2\r\n$1\r\n0\r\n*0\r\n",
		"*2\r\n$1\r\n0\r\n*1\r\n+name\r\n",
		"*2\r\n$1\r\n0\r\n*2147483647\r\n$30000000\r\nab",
		"$1\r\n0\r\n",
		":0\r\n",
		"+OK\r\n",
	};

	for (size_t i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++) {
		uint64_t errors = 0;
		int status = attack_on(*state, STORE_LIST, attacks[i], strlen(attacks[i]), 5000, &errors);

		if (status != RSHM_E_BACKEND || errors != 1)
			fail_msg("attack %zu: status %d, %u protocol errors", i, status, (unsigned)errors);
	}
}

static void page_of_more_than_the_limit_is_refused_however_small_its_names(void **state)
{
	fixture_needs_metrics();
	static const char head[] = "*2\r\n$1\r\n0\r\n*1000000\r\n";
	struct fixture *f = *state;
	const size_t count = 300000, length = sizeof(head) - 1 + count * 6;
	char *bytes = malloc(length + 1), *to = bytes + sizeof(head) - 1;
	uint64_t errors = 0;

	f->config.envelope_max = 1u << 20;
	strcpy(bytes, head);
	for (size_t i = 0; i < count; i++, to += 6)
		memcpy(to, "$0\r\n\r\n", 6);
	assert_int_equal(attack_on(f, STORE_LIST, bytes, length, 5000, &errors), RSHM_E_BACKEND);
	assert_int_equal(errors, 1);
	free(bytes);
}

static void names_that_cannot_be_are_left_out(void **state)
{
	fixture_needs_metrics();
	static const char bytes[] = "*2\r\n$20\r\n18446744073709551615\r\n*7\r\n"
				    "$0\r\n\r\n"
				    "$1\r\n{\r\n"
				    "$20\r\nriptide:v1:{t1.0}:1:\r\n"
				    "$21\r\nriptide:v1:{t1.0}:1:c\r\n"
				    "$22\r\nriptide:v1:{t1.0}:1:c:\r\n"
				    "$27\r\nriptide:v1:{t1.99999}:1:c:k\r\n"
				    "$23\r\nriptide:v1:{t1.0}:1:c:k\r\n";
	struct fixture *f = *state;
	struct peer peer = {.attack = bytes, .attack_length = sizeof(bytes) - 1};
	struct call call = {.answers = 0};

	peer_start(f, &peer);
	call_start(f, &call, STORE_LIST, "k", 1, 5000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_int_equal(call.length, 3);
	assert_memory_equal(call.bytes + 2, "k", 1);
	assert_int_equal(call.request.cursor_len, 20);
	assert_int_equal(fixture_metric(f, STORE_REDIS_PROTOCOL_ERRORS), 0);
	peer_stop(f, &peer);
	call_fini(&call);
}

static void half_page_then_silence_ends_with_the_deadline(void **state)
{
	fixture_needs_metrics();
	static const char page[] = "*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$2\r\nbc\r\n";
	uint64_t errors = 0;

	for (size_t length = 0; length < sizeof(page) - 1; length++) {
		assert_int_equal(attack_on(*state, STORE_LIST, page, length, 50, &errors), RSHM_E_TIMEDOUT);
		assert_int_equal(errors, 0);
	}
	assert_int_equal(attack_on(*state, STORE_LIST, page, sizeof(page) - 1, 5000, &errors), RSHM_OK);
}

static void endless_line_is_cut_off(void **state)
{
	fixture_needs_metrics();
	char *line = malloc(100000);
	uint64_t errors = 0;

	memset(line, 'a', 100000);
	for (const char *type = "+-$:*"; *type != '\0'; type++) {
		line[0] = *type;
		assert_int_equal(attack(*state, line, 100000, 5000, &errors), RSHM_E_BACKEND);
		assert_int_equal(errors, 1);
	}
	free(line);
}

static void extra_answer_drops_the_connection_but_not_the_value_before_it(void **state)
{
	fixture_needs_metrics();
	static const char bytes[] = "$1\r\nx\r\n:-1\r\n$1\r\ny\r\n";
	uint64_t errors = 0;

	assert_int_equal(attack(*state, bytes, sizeof(bytes) - 1, 5000, &errors), RSHM_OK);
	assert_int_equal(errors, 1);
}

static void unsolicited_answer_never_reaches_a_later_request(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	/* Sent with the greeting, before anybody asked. */
	struct peer peer = {.greeting = GREETING "$5\r\nwrong\r\n:-1\r\n",
			    .attack = "$5\r\nright\r\n:-1\r\n",
			    .attack_length = 16};
	struct call call = {.answers = 0};

	peer_start(f, &peer);
	call_start(f, &call, STORE_GET, "k", 1, 500);
	assert_int_not_equal(call_wait(f, &call), RSHM_OK);
	assert_true(fixture_metric(f, STORE_REDIS_PROTOCOL_ERRORS) >= 1);
	peer_stop(f, &peer);
	call_fini(&call);
}

static void half_answer_then_silence_ends_with_the_deadline(void **state)
{
	fixture_needs_metrics();
	static const char *const halves[] = {
		"$", "$10", "$100\r\nabc", "$1\r\nx\r\n", "$1\r\nx\r\n:", "-ERR no end", ""};
	uint64_t errors = 0;

	for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
		assert_int_equal(attack(*state, halves[i], strlen(halves[i]), 300, &errors), RSHM_E_TIMEDOUT);
		assert_int_equal(errors, 0);
	}
}

static void half_answer_then_end_is_retried_and_retryable(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct peer peer = {.attack = "$100\r\nabc", .attack_length = 9, .hangs_up = true};
	struct call get = {.answers = 0}, put = {.request.envelope = "v", .request.envelope_len = 1};

	peer_start(f, &peer);
	call_start(f, &get, STORE_GET, "k", 1, 3000);
	assert_int_equal(call_wait(f, &get), RSHM_E_AGAIN);
	assert_int_equal(__atomic_load_n(&peer.commands, __ATOMIC_RELAXED), 2);
	/* A write is not sent twice. */
	call_start(f, &put, STORE_PUT, "k", 1, 3000);
	assert_int_equal(call_wait(f, &put), RSHM_E_UNKNOWN);
	assert_int_equal(__atomic_load_n(&peer.commands, __ATOMIC_RELAXED), 3);
	peer_stop(f, &peer);
}

static void write_answered_with_nonsense_is_unknown(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct peer peer = {.attack = ":1\r\n", .attack_length = 4};
	struct call put = {.request.envelope = "v", .request.envelope_len = 1};

	peer_start(f, &peer);
	call_start(f, &put, STORE_PUT, "k", 1, 1000);
	assert_int_equal(call_wait(f, &put), RSHM_E_UNKNOWN);
	peer_stop(f, &peer);
}

static void condition_answered_with_nonsense_is_unknown(void **state)
{
	fixture_needs_metrics();
	static const char *const answers[] = {":1\r\n",
					      "+OK\r\n",
					      "$-1\r\n",
					      "$0\r\n\r\n",
					      "$1\r\nz\r\n",
					      "$1\r\nc\r\n",
					      "$2\r\ndd\r\n",
					      "$12\r\nc00000000000\r\n",
					      "$14\r\nt0000000000000\r\n",
					      "*2\r\n$1\r\n0\r\n*0\r\n"};
	unsigned char envelope[ENVELOPE_HEAD_BYTES] = {0};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		struct peer peer = {.attack = answers[i], .attack_length = strlen(answers[i])};
		struct call put = {.request = {.condition = STORE_IF_ABSENT,
					       .envelope = envelope,
					       .envelope_len = sizeof(envelope)}};

		peer_start(f, &peer);
		call_start(f, &put, STORE_PUT, "k", 1, 1000);
		assert_int_equal(call_wait(f, &put), RSHM_E_UNKNOWN);
		assert_int_equal(fixture_metric(f, STORE_REDIS_PROTOCOL_ERRORS), 1);
		peer_stop(f, &peer);
	}
}

static int answer_to_put(struct fixture *f, const char *answer)
{
	struct peer peer = {.attack = answer, .attack_length = strlen(answer)};
	struct call put = {.request.envelope = "v", .request.envelope_len = 1};
	int status;

	f->config.retry_attempts = 0;
	peer_start(f, &peer);
	f->config.retry_attempts = 0;
	f->store->ops->reload(f->store, &f->config);
	call_start(f, &put, STORE_PUT, "k", 1, 1000);
	status = call_wait(f, &put);
	peer_stop(f, &peer);
	return status;
}

static void each_error_of_the_server_has_its_meaning(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;

	assert_int_equal(answer_to_put(f, "-LOADING Redis is loading the dataset in memory\r\n"), RSHM_E_AGAIN);
	assert_int_equal(answer_to_put(f, "-BUSY Redis is busy running a script\r\n"), RSHM_E_AGAIN);
	assert_int_equal(answer_to_put(f, "-READONLY You can't write against a read only replica.\r\n"),
			 RSHM_E_AGAIN);
	assert_int_equal(answer_to_put(f, "-MASTERDOWN Link with MASTER is down\r\n"), RSHM_E_AGAIN);
	assert_int_equal(answer_to_put(f, "-TRYAGAIN Multiple keys request\r\n"), RSHM_E_AGAIN);
	assert_int_equal(answer_to_put(f, "-CLUSTERDOWN The cluster is down\r\n"), RSHM_E_AGAIN);
	assert_int_equal(answer_to_put(f, "-OOM command not allowed\r\n"), RSHM_E_FULL);
	assert_int_equal(answer_to_put(f, "-NOAUTH Authentication required.\r\n"), RSHM_E_BACKEND);
	assert_int_equal(answer_to_put(f, "-NOPERM no permissions\r\n"), RSHM_E_BACKEND);
	assert_int_equal(answer_to_put(f, "-MOVED 3999 127.0.0.1:6381\r\n"), RSHM_E_BACKEND);
	assert_int_equal(answer_to_put(f, "-ASK 3999 127.0.0.1:6381\r\n"), RSHM_E_BACKEND);
	assert_int_equal(answer_to_put(f, "-whatever\r\n"), RSHM_E_BACKEND);
	assert_int_equal(answer_to_put(f, "-\r\n"), RSHM_E_BACKEND);
}

static void lying_greeting_never_makes_a_connection_ready(void **state)
{
	fixture_needs_metrics();
	static const char *const greetings[] = {
		"garbage\r\n",        "*1111701117\r\n",
		":1\r\n:1\r\n:1\r\n", "+OK\r\n:7\r\n$9999999999\r\n",
		"+OK\r\n+OK\r\n",     "-ERR max number of clients reached\r\n",
		"-LOADING wait\r\n",  "-NOAUTH Authentication required.\r\n",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(greetings) / sizeof(greetings[0]); i++) {
		struct peer peer = {.greeting = greetings[i], .attack = "", .attack_length = 0};
		struct call call = {.answers = 0};
		struct store_status status;
		int answer;

		peer_start(f, &peer);
		call_start(f, &call, STORE_GET, "k", 1, 1000);
		answer = call_wait(f, &call);
		assert_true(answer == RSHM_E_AGAIN || answer == RSHM_E_BACKEND);
		store_status(f->store, &status);
		assert_false(status.ready);
		assert_int_equal(fixture_metric(f, STORE_REDIS_CONNECTS), 0);
		assert_true(fixture_metric(f, STORE_REDIS_CONNECT_FAILURES) >= 1);
		peer_stop(f, &peer);
	}
}

static void pipeline_never_holds_more_than_it_may(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct peer peer = {.attack = "", .attack_length = 0};
	struct call calls[64] = {{.answers = 0}};

	f->config.max_pipeline_size = 7;
	peer_start(f, &peer);
	for (int i = 0; i < 64; i++) {
		calls[i].request.envelope = "v";
		calls[i].request.envelope_len = 1;
		call_start(f, &calls[i], STORE_PUT, "k", 1, 300);
	}
	fixture_run_for(f, 150);
	assert_int_equal(__atomic_load_n(&peer.commands, __ATOMIC_RELAXED), 7);
	for (int i = 0; i < 64; i++)
		assert_int_equal(call_wait(f, &calls[i]), i < 7 ? RSHM_E_UNKNOWN : RSHM_E_TIMEDOUT);
	peer_stop(f, &peer);
}

/* Random bytes that look a little like answers. */
static void noise_of_all_kinds_does_no_harm(void **state)
{
	fixture_needs_metrics();
	static const char alphabet[] = "+-:$*%_>#,~0123456789\r\n\r\n\r\nOKx";
	uint64_t random = 88172645463325252ull, errors = 0;
	char bytes[64];

	for (int i = 0; i < 200; i++) {
		for (size_t k = 0; k < sizeof(bytes); k++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			bytes[k] = alphabet[random % (sizeof(alphabet) - 1)];
		}
		bytes[0] = "$:+-*"[i % 5];
		((struct fixture *)*state)->config.connect_grace_ms = 50;
		(void)attack(*state, bytes, sizeof(bytes), 50, &errors);
	}
}

/* A page in which some bytes are others. */
static void damaged_pages_do_no_harm(void **state)
{
	fixture_needs_metrics();
	static const char page[] = "*2\r\n$2\r\n17\r\n*3\r\n$23\r\nriptide:v1:{t1.0}:1:c:k\r\n$1\r\na\r\n"
				   "$23\r\nriptide:v1:{t1.0}:1:c#x\r\n";
	uint64_t random = 88172645463325252ull, errors = 0;
	char bytes[sizeof(page) - 1];

	((struct fixture *)*state)->config.connect_grace_ms = 50;
	for (int i = 0; i < 200; i++) {
		memcpy(bytes, page, sizeof(bytes));
		for (int k = 0; k <= i % 3; k++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			bytes[random % sizeof(bytes)] = "$*:+-0123456789\r\n"[random / 256 % 17];
		}
		(void)attack_on(*state, STORE_LIST, bytes, sizeof(bytes), 50, &errors);
	}
}

int main(void)
{
#define HOSTILE_TEST(name) cmocka_unit_test_setup_teardown(name, prepare, without)
	const struct CMUnitTest tests[] = {
		HOSTILE_TEST(impossible_answers_drop_the_connection),
		HOSTILE_TEST(impossible_pages_drop_the_connection),
		HOSTILE_TEST(page_of_more_than_the_limit_is_refused_however_small_its_names),
		HOSTILE_TEST(names_that_cannot_be_are_left_out),
		HOSTILE_TEST(half_page_then_silence_ends_with_the_deadline),
		HOSTILE_TEST(endless_line_is_cut_off),
		HOSTILE_TEST(extra_answer_drops_the_connection_but_not_the_value_before_it),
		HOSTILE_TEST(unsolicited_answer_never_reaches_a_later_request),
		HOSTILE_TEST(half_answer_then_silence_ends_with_the_deadline),
		HOSTILE_TEST(half_answer_then_end_is_retried_and_retryable),
		HOSTILE_TEST(write_answered_with_nonsense_is_unknown),
		HOSTILE_TEST(condition_answered_with_nonsense_is_unknown),
		HOSTILE_TEST(each_error_of_the_server_has_its_meaning),
		HOSTILE_TEST(lying_greeting_never_makes_a_connection_ready),
		HOSTILE_TEST(pipeline_never_holds_more_than_it_may),
		HOSTILE_TEST(noise_of_all_kinds_does_no_harm),
		HOSTILE_TEST(damaged_pages_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
