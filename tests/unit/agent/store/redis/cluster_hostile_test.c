/*
 * A cluster of scripted peers: nodes that send requests round in circles, to nowhere or for ever, that lie about the slot map,
 * and what is said on the wire. Whatever they do, requests are answered, and the store ends.
 */
#include "tests/unit/agent/store/redis/fixture.h"

#include <pthread.h>
#include <strings.h>
#include <sys/time.h>

#include "agent/store/redis/cluster/cluster.h"
#include "agent/store/redis/cluster/slots.h"

#define INFO_TEXT "# Server\r\nredis_version:7.0.0\r\nredis_mode:cluster\r\nrun_id:abcdef\r\n"
#define WORDS_MAX 16

struct peer;
/* What to answer to a command, in `buffer` or a literal; NULL: close the connection. On the peer's thread. */
typedef const char *peer_answer(struct peer *peer, char **words, int count, char *buffer, size_t size);

struct peer {
	pthread_t thread;
	int listener;
	uint16_t port;
	peer_answer *answer;
	struct peer *other;
	uint32_t slot;   /* of the test's key */
	const char *map; /* what to say to CLUSTER SLOTS; NULL: this peer has all */
	/* atomic */
	uint32_t stop, asked, maps, asking;
	char said[4096]; /* names of commands but the greeting's and CLUSTER */
};

/* ---- a peer ---------------------------------------------------------------------------------------------------- */

static bool read_line(FILE *in, char *line, int size)
{
	char *end;

	if (fgets(line, size, in) == NULL)
		return false;
	end = strstr(line, "\r\n");
	if (end != NULL)
		*end = '\0';
	return end != NULL;
}

/* One command; its words are to be freed. -1: the connection is over. */
static int read_command(FILE *in, char **words)
{
	char line[64];
	int count;

	if (!read_line(in, line, sizeof(line)) || line[0] != '*')
		return -1;
	count = atoi(line + 1);
	if (count < 1 || count > WORDS_MAX)
		return -1;
	for (int i = 0; i < count; i++) {
		size_t length;

		words[i] = NULL;
		if (!read_line(in, line, sizeof(line)) || line[0] != '$')
			return -1;
		length = (size_t)atol(line + 1);
		words[i] = calloc(1, length + 3);
		if (fread(words[i], 1, length + 2, in) != length + 2)
			return -1;
		words[i][length] = '\0';
	}
	return count;
}

static const char *peer_reply(struct peer *peer, char **words, int count, char *buffer, size_t size)
{
	if (strcasecmp(words[0], "CLIENT") == 0)
		return strcasecmp(words[1], "ID") == 0     ? ":7\r\n"
		       : strcasecmp(words[1], "KILL") == 0 ? ":1\r\n"
							   : "+OK\r\n";
	if (strcasecmp(words[0], "INFO") == 0) {
		snprintf(buffer, size, "$%zu\r\n%s\r\n", strlen(INFO_TEXT), INFO_TEXT);
		return buffer;
	}
	if (strcasecmp(words[0], "CLUSTER") == 0) {
		__atomic_add_fetch(&peer->maps, 1, __ATOMIC_RELAXED);
		if (__atomic_load_n(&peer->map, __ATOMIC_RELAXED) != NULL)
			return __atomic_load_n(&peer->map, __ATOMIC_RELAXED);
		snprintf(buffer, size, "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%u\r\n$2\r\nid\r\n",
			 (unsigned)peer->port);
		return buffer;
	}
	if (strlen(peer->said) + strlen(words[0]) + 2 < sizeof(peer->said)) {
		strcat(peer->said, words[0]);
		strcat(peer->said, " ");
	}
	if (strcasecmp(words[0], "ASKING") == 0) {
		__atomic_add_fetch(&peer->asking, 1, __ATOMIC_RELAXED);
		return "+OK\r\n";
	}
	__atomic_add_fetch(&peer->asked, 1, __ATOMIC_RELAXED);
	return peer->answer(peer, words, count, buffer, size);
}

static void peer_serve(struct peer *peer, int fd)
{
	FILE *in = fdopen(fd, "r+");
	char *words[WORDS_MAX], buffer[1024];
	int count;

	while ((count = read_command(in, words)) > 0 && !__atomic_load_n(&peer->stop, __ATOMIC_RELAXED)) {
		const char *reply = peer_reply(peer, words, count, buffer, sizeof(buffer));

		for (int i = 0; i < count; i++)
			free(words[i]);
		if (reply == NULL || send(fd, reply, strlen(reply), MSG_NOSIGNAL) < 0)
			break;
	}
	fclose(in);
}

static void *peer_run(void *context)
{
	struct peer *peer = context;
	int fd;

	while ((fd = accept(peer->listener, NULL, NULL)) >= 0)
		peer_serve(peer, fd);
	return NULL;
}

static void peer_start(struct peer *peer)
{
	peer->listener = fixture_listen(&peer->port);
	assert_int_equal(pthread_create(&peer->thread, NULL, peer_run, peer), 0);
}

/* After the store is closed: its connections are, too. */
static void peer_stop(struct peer *peer)
{
	__atomic_store_n(&peer->stop, 1, __ATOMIC_RELAXED);
	shutdown(peer->listener, SHUT_RDWR);
	pthread_join(peer->thread, NULL);
	close(peer->listener);
}

/* ---- the store ------------------------------------------------------------------------------------------------- */

static void cluster_open(struct fixture *f, uint16_t port)
{
	struct store_cluster_config config = STORE_CLUSTER_CONFIG_DEFAULTS;
	char error[256] = "";

	config.node = f->config;
	config.node.pool_min = config.node.pool_max = 1;
	config.refresh_ms = 300;
	snprintf(f->url, sizeof(f->url), "redis+cluster://127.0.0.1:%u", (unsigned)port);
	config.node.url = f->url;
	if (store_cluster_create(&f->loop, &config, &f->store, error, sizeof(error)) != RSHM_OK)
		fail_msg("%s", error);
}

static bool has_map(struct fixture *f)
{
	struct store_status status;

	store_status(f->store, &status);
	return strstr(status.detail, " slots, map ") != NULL;
}

static void await_map(struct fixture *f)
{
	for (int i = 0; i < 200 && !has_map(f); i++)
		fixture_run_for(f, 10);
	assert_true(has_map(f));
}

static const struct store_request any = {.name = {.tenant = "t",
						  .tenant_number = 1,
						  .shards = 1,
						  .generation = 1,
						  .space = 'c',
						  .key = "k",
						  .key_len = 1}};

static int run_op(struct fixture *f, const struct store_request *request)
{
	struct call call = {.answers = 0};
	int status;

	call.fixture = f;
	call.request = *request;
	call.request.deadline_ms = clock_monotonic_ms() + 3000;
	call.request.done = call_on_done;
	call.request.context = &call;
	f->outstanding++;
	store_submit(f->store, &call.request);
	assert_int_equal(call.answers, 0);
	assert_true(fixture_run(f, &call.answers, 1, 5000));
	status = call.status;
	free(call.bytes);
	return status;
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

static uint32_t test_slot(void)
{
	return cluster_slot_of_shard("t", 0);
}

/* ---- circles --------------------------------------------------------------------------------------------------- */

static const char *say_moved_to_myself(struct peer *peer, char **words, int count, char *buffer, size_t size)
{
	(void)words, (void)count;
	snprintf(buffer, size, "-MOVED %u 127.0.0.1:%u\r\n", peer->slot, (unsigned)peer->port);
	return buffer;
}

static const char *say_ask_myself(struct peer *peer, char **words, int count, char *buffer, size_t size)
{
	(void)words, (void)count;
	snprintf(buffer, size, "-ASK %u :%u\r\n", peer->slot, (unsigned)peer->port);
	return buffer;
}

static const char *say_moved_to_other(struct peer *peer, char **words, int count, char *buffer, size_t size)
{
	(void)words, (void)count;
	snprintf(buffer, size, "-MOVED %u 127.0.0.1:%u\r\n", peer->slot, (unsigned)peer->other->port);
	return buffer;
}

static void circles_end_after_as_many_rounds_as_are_allowed(void **state)
{
	peer_answer *const answers[] = {say_moved_to_myself, say_ask_myself, say_moved_to_other};
	struct fixture *f = *state;

	for (size_t i = 0; i < 3; i++) {
		struct peer a = {.answer = answers[i], .slot = test_slot()}, b = a;
		struct store_request request = any;

		a.other = &b;
		b.other = &a;
		peer_start(&a);
		peer_start(&b);
		cluster_open(f, a.port);
		await_map(f);
		request.op = STORE_DELETE;
		assert_int_equal(run_op(f, &request), RSHM_E_AGAIN);
		assert_int_equal(a.asked + b.asked, 6);
		assert_int_equal(a.asking + b.asking, i == 1 ? 5 : 0);
		fixture_close(f);
		peer_stop(&a);
		peer_stop(&b);
	}
}

/* ---- nowhere --------------------------------------------------------------------------------------------------- */

static const char *say_moved_to_nobody(struct peer *peer, char **words, int count, char *buffer, size_t size)
{
	uint32_t number = peer->asked;

	(void)words, (void)count;
	snprintf(buffer, size, "-MOVED %u 127.77.%u.%u:1\r\n", peer->slot, (unsigned)(number / 250),
		 (unsigned)(1 + number % 250));
	return buffer;
}

/* Each answer names an address of its own; what is kept of these is bounded. */
static void addresses_without_end_do_not_fill_the_memory(void **state)
{
	struct fixture *f = *state;
	struct peer peer = {.answer = say_moved_to_nobody, .slot = test_slot()};
	struct call calls[300];
	struct store_status status;
	uint32_t answers = 0;

	peer_start(&peer);
	cluster_open(f, peer.port);
	await_map(f);
	memset(calls, 0, sizeof(calls));
	for (int i = 0; i < 300; i++) {
		struct store_request *request = &calls[i].request;

		*request = any;
		request->op = STORE_GET;
		request->skip_remaining = true;
		request->deadline_ms = clock_monotonic_ms() + 3000;
		request->done = call_on_done;
		request->context = &calls[i];
		calls[i].fixture = f;
		f->outstanding++;
		/* The peer has the slot each time a map came. */
		store_submit(f->store, request);
		fixture_run_for(f, 5);
		store_status(f->store, &status);
		assert_true(status.connections_max <= 66); /* one for each node */
	}
	fixture_run_for(f, 1000);
	for (int i = 0; i < 300; i++) {
		answers += calls[i].answers;
		assert_int_equal(calls[i].status, RSHM_E_AGAIN);
	}
	assert_int_equal(answers, 300);
	fixture_close(f);
	peer_stop(&peer);
}

static const char *say_another_slot(struct peer *peer, char **words, int count, char *buffer, size_t size)
{
	(void)words, (void)count;
	snprintf(buffer, size, "-MOVED %u 127.0.0.1:%u\r\n", (peer->slot + 1) % 16384, (unsigned)peer->port);
	return buffer;
}

static const char *say_nonsense(struct peer *peer, char **words, int count, char *buffer, size_t size)
{
	(void)peer, (void)words, (void)count, (void)buffer, (void)size;
	return "-MOVED 99999999999999999999 \x01\x02:x\r\n";
}

static void redirections_that_cannot_be_are_errors(void **state)
{
	peer_answer *const answers[] = {say_another_slot, say_nonsense};
	struct fixture *f = *state;

	for (size_t i = 0; i < 2; i++) {
		struct peer peer = {.answer = answers[i], .slot = test_slot()};
		struct store_request request = any;

		peer_start(&peer);
		cluster_open(f, peer.port);
		await_map(f);
		request.op = STORE_HEAD;
		assert_int_equal(run_op(f, &request), RSHM_E_BACKEND);
		assert_int_equal(peer.asked, 1);
		fixture_close(f);
		peer_stop(&peer);
	}
}

/* ---- what is sent on ------------------------------------------------------------------------------------------- */

static const char *say_ask_other(struct peer *peer, char **words, int count, char *buffer, size_t size)
{
	(void)words, (void)count;
	snprintf(buffer, size, "-ASK %u 127.0.0.1:%u\r\n", peer->slot, (unsigned)peer->other->port);
	return buffer;
}

static const char *say_conflict(struct peer *peer, char **words, int count, char *buffer, size_t size)
{
	(void)peer, (void)count, (void)buffer, (void)size;
	if (strcasecmp(words[0], "EVALSHA") == 0)
		return "-NOSCRIPT No matching script\r\n";
	if (strcasecmp(words[0], "EVAL") == 0)
		return "$13\r\nc0123456789ab\r\n";
	if (strcasecmp(words[0], "GET") == 0)
		return "$3\r\nabc\r\n";
	return "+OK\r\n";
}

/* The flag is good for one command: a script that is not known there, and is sent as a whole, needs another one. */
static void each_command_to_the_target_of_a_move_follows_asking(void **state)
{
	struct fixture *f = *state;
	struct peer a = {.answer = say_ask_other, .slot = test_slot()}, b = {.answer = say_conflict};
	struct store_request request = any;

	a.other = &b;
	peer_start(&a);
	peer_start(&b);
	cluster_open(f, a.port);
	await_map(f);
	request.op = STORE_GET;
	assert_int_equal(run_op(f, &request), RSHM_OK);
	assert_string_equal(b.said, "ASKING GET ");
	request.op = STORE_DELETE;
	request.condition = STORE_IF_VERSION;
	request.expected_version = 9;
	assert_int_equal(run_op(f, &request), RSHM_CONFLICT);
	assert_string_equal(b.said, "ASKING GET ASKING EVALSHA ASKING EVAL ");
	assert_string_equal(a.said, "GET PTTL EVALSHA ");
	fixture_close(f);
	peer_stop(&a);
	peer_stop(&b);
}

/* The first try may have been executed where nobody looks any more. */
static const char *say_nothing_then_moved(struct peer *peer, char **words, int count, char *buffer, size_t size)
{
	return peer->asked == 1 ? NULL : say_moved_to_other(peer, words, count, buffer, size);
}

static void what_is_unknown_stays_unknown_at_the_next_node(void **state)
{
	struct fixture *f = *state;
	struct peer a = {.answer = say_nothing_then_moved, .slot = test_slot()}, b = {.answer = say_conflict};
	struct store_request request = any;

	a.other = &b;
	peer_start(&a);
	peer_start(&b);
	cluster_open(f, a.port);
	await_map(f);
	request.op = STORE_DELETE;
	request.condition = STORE_IF_VERSION;
	request.expected_version = 9;
	assert_int_equal(run_op(f, &request), RSHM_E_UNKNOWN);
	assert_string_equal(b.said, "EVALSHA EVAL ");
	fixture_close(f);
	peer_stop(&a);
	peer_stop(&b);
}

/* ---- maps that lie --------------------------------------------------------------------------------------------- */

static void maps_that_cannot_be_leave_requests_unserved(void **state)
{
	static const char *const maps[] = {
		"-ERR This instance has cluster support disabled\r\n",
		"*0\r\n",
		"*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$1\r\nh\r\n:1\r\n",
		"+OK\r\n",
		":1\r\n",
		"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
		"-MOVED 1 127.0.0.1:1\r\n",
		"-ASK 1 127.0.0.1:1\r\n",
		"%1\r\n+a\r\n+b\r\n",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
		struct peer peer = {.answer = say_conflict, .map = maps[i]};
		struct store_request request = any;

		peer_start(&peer);
		cluster_open(f, peer.port);
		request.op = STORE_GET;
		assert_int_equal(run_op(f, &request), RSHM_E_AGAIN);
		fixture_run_for(f, 300);
		assert_int_equal(run_op(f, &request), RSHM_E_AGAIN);
		assert_true(__atomic_load_n(&peer.maps, __ATOMIC_RELAXED) > 0);
		assert_true(peer.maps < 30); /* it is asked with pauses */
		assert_int_equal(peer.asked, 0);
		fixture_close(f);
		peer_stop(&peer);
	}
}

static void a_node_that_was_taken_out_is_not_believed(void **state)
{
	struct fixture *f = *state;
	struct peer peer = {.answer = say_conflict};
	struct store_request request = any;

	peer_start(&peer);
	cluster_open(f, peer.port);
	await_map(f);
	__atomic_store_n(&peer.map, "*0\r\n", __ATOMIC_RELAXED);
	fixture_run_for(f, 1000);
	assert_true(peer.maps >= 3);
	request.op = STORE_GET;
	request.skip_remaining = true;
	assert_int_equal(run_op(f, &request), RSHM_OK);
	fixture_close(f);
	peer_stop(&peer);
}

/* ---- closing --------------------------------------------------------------------------------------------------- */

static void everything_is_answered_when_the_store_is_closed(void **state)
{
	struct fixture *f = *state;
	struct call calls[3];
	enum store_op ops[3] = {STORE_GET, STORE_LIST, STORE_FLUSH};

	cluster_open(f, 1);
	memset(calls, 0, sizeof(calls));
	for (int i = 0; i < 3; i++) {
		calls[i].fixture = f;
		calls[i].request = any;
		calls[i].request.op = ops[i];
		calls[i].request.deadline_ms = clock_monotonic_ms() + 3000;
		calls[i].request.done = call_on_done;
		calls[i].request.context = &calls[i];
		f->outstanding++;
		store_submit(f->store, &calls[i].request);
	}
	fixture_close(f);
	assert_int_equal(calls[0].status, RSHM_E_CLOSED);
	assert_int_equal(calls[1].status, RSHM_E_CLOSED);
	assert_int_equal(calls[2].status, RSHM_OK);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, prepare, without)
	const struct CMUnitTest tests[] = {
		CASE(circles_end_after_as_many_rounds_as_are_allowed),
		CASE(addresses_without_end_do_not_fill_the_memory),
		CASE(redirections_that_cannot_be_are_errors),
		CASE(each_command_to_the_target_of_a_move_follows_asking),
		CASE(what_is_unknown_stays_unknown_at_the_next_node),
		CASE(maps_that_cannot_be_leave_requests_unserved),
		CASE(a_node_that_was_taken_out_is_not_believed),
		CASE(everything_is_answered_when_the_store_is_closed),
	};
#undef CASE

	return cmocka_run_group_tests(tests, NULL, NULL);
}
