/*
 * Sentinels as a URL names them, their answers byte by byte, and scripted ones that lie, stammer or say nothing: the master
 * is found by those that do not.
 */
#include "tests/unit/agent/store/redis/fixture.h"

#include <poll.h>
#include <pthread.h>

#include "agent/store/redis/sentinel.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- the URL --------------------------------------------------------------------------------------------------- */

static int parse(const char *url, struct redis_sentinel_list *list, struct redis_url *server, char error[256])
{
	struct text text;

	text_init(&text, error, 256);
	error[0] = '\0';
	return redis_sentinel_parse(url, list, server, &text);
}

static void a_url_names_sentinels_a_master_and_the_servers_login(void **state)
{
	struct redis_sentinel_list list;
	struct redis_url server;
	char error[256];

	(void)state;
	assert_int_equal(parse("redis+sentinel://us%3Aer:p@ss,/w@a:1,[::1]:2,[fe80::1],c/my-master.2/7", &list,
			       &server, error),
			 RSHM_OK);
	assert_int_equal(list.count, 4);
	assert_string_equal(list.addresses[0].host, "a");
	assert_int_equal(list.addresses[0].port, 1);
	assert_string_equal(list.addresses[1].host, "::1");
	assert_int_equal(list.addresses[1].port, 2);
	assert_string_equal(list.addresses[2].host, "fe80::1");
	assert_int_equal(list.addresses[2].port, 26379);
	assert_int_equal(list.addresses[3].port, 26379);
	assert_string_equal(list.master, "my-master.2");
	assert_string_equal(server.user, "us:er");
	assert_string_equal(server.password, "p@ss,/w");
	assert_int_equal(server.database, 7);
	assert_string_equal(server.host, "");
	assert_int_equal(parse("redis+sentinel://a/m", &list, &server, error), RSHM_OK);
	assert_int_equal(server.database, 0);
}

static void a_wrong_url_is_refused_without_its_words(void **state)
{
	static const char *const urls[] = {
		"redis+sentinel://",
		"redis+sentinel://SECRET",
		"redis+sentinel://SECRET/",
		"redis+sentinel:///SECRET",
		"redis+sentinel://SECRET,/m",
		"redis+sentinel://,SECRET/m",
		"redis+sentinel://SECRET:0/m",
		"redis+sentinel://SECRET:70000/m",
		"redis+sentinel://[SECRET/m",
		"redis+sentinel://SECRET%20/m",
		"redis+sentinel://u:SECRET%@h/m",
		"redis+sentinel://SECRET@h/m",
		"redis+sentinel://h/SECRET%20",
		"redis+sentinel://h/SECRET/x",
		"redis+sentinel://h/SECRET/65536",
		"redis+sentinel://h/SECRET/1/2",
		"redis+sentinel://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17/SECRET",
		"redis+sentinel://h/SECRETaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(urls); i++) {
		struct redis_sentinel_list list = {.count = 77};
		struct redis_url server = {.port = 77};
		char error[256];

		if (parse(urls[i], &list, &server, error) != RSHM_E_INVALID)
			fail_msg("%s was taken", urls[i]);
		assert_non_null(strstr(error, "the Redis URL "));
		assert_null(strstr(error, "SECRET"));
		assert_int_equal(list.count, 77);
		assert_int_equal(server.port, 77);
	}
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

/* As RESP; the fields end with NULL. */
static const char *master_says(char *buffer, size_t size, const char *const fields[])
{
	size_t count = 0, used;

	while (fields[count] != NULL)
		count++;
	used = (size_t)snprintf(buffer, size, "*%zu\r\n", count);
	for (size_t i = 0; i < count; i++)
		used += (size_t)snprintf(buffer + used, size - used, "$%zu\r\n%s\r\n", strlen(fields[i]), fields[i]);
	assert_true(used < size);
	return buffer;
}

/* Whether the bytes are read as a word; with `step` of them at a time. */
static bool read_word(const char *bytes, size_t step, struct redis_sentinel_word *ret)
{
	struct redis_reader *reader = redis_reader_create(4096);
	struct redis_reply *reply = NULL;
	size_t length = strlen(bytes);
	int status = RSHM_MISS;
	bool fits;

	assert_non_null(reader);
	for (size_t at = 0; at < length && status == RSHM_MISS; at += step) {
		assert_int_equal(redis_reader_feed(reader, bytes + at, length - at < step ? length - at : step),
				 RSHM_OK);
		status = redis_reader_next(reader, REDIS_SHAPE_TREE, &reply);
	}
	fits = status == RSHM_OK && redis_sentinel_read(reply, ret);
	free(reply);
	redis_reader_destroy(&reader);
	return fits;
}

static void an_answer_is_read_however_it_comes(void **state)
{
	const char *const fields[] = {"name",   "main",         "ip",          "10.1.2.3", "port", "6380", "flags",
				      "master", "config-epoch", "12345678901", "quorum",   "2",    NULL};
	char buffer[1024];

	(void)state;
	master_says(buffer, sizeof(buffer), fields);
	for (size_t step = 1; step <= strlen(buffer); step++) {
		struct redis_sentinel_word word = {.epoch = 0};

		assert_true(read_word(buffer, step, &word));
		assert_string_equal(word.master.host, "10.1.2.3");
		assert_int_equal(word.master.port, 6380);
		assert_int_equal(word.epoch, 12345678901ull);
	}
}

static void what_is_no_answer_is_not_read(void **state)
{
	static const char *const answers[] = {
		"+OK\r\n",
		":1\r\n",
		"$-1\r\n",
		"*-1\r\n",
		"*0\r\n",
		"*1\r\n$2\r\nip\r\n",
		"*2\r\n$2\r\nip\r\n$1\r\na\r\n",
		"*4\r\n$2\r\nip\r\n$1\r\na\r\n$4\r\nport\r\n$1\r\n1\r\n",
		/* no address, no port, no number */
		"*6\r\n$2\r\nip\r\n$0\r\n\r\n$4\r\nport\r\n$1\r\n1\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n",
		"*6\r\n$2\r\nip\r\n$3\r\na b\r\n$4\r\nport\r\n$1\r\n1\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n",
		"*6\r\n$2\r\nip\r\n$1\r\na\r\n$4\r\nport\r\n$1\r\n0\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n",
		"*6\r\n$2\r\nip\r\n$1\r\na\r\n$4\r\nport\r\n$5\r\n65536\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n",
		"*6\r\n$2\r\nip\r\n$1\r\na\r\n$4\r\nport\r\n$2\r\n-1\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n",
		"*6\r\n$2\r\nip\r\n$1\r\na\r\n$4\r\nport\r\n$1\r\n1\r\n$12\r\nconfig-epoch\r\n$1\r\nx\r\n",
		"*6\r\n$2\r\nip\r\n:5\r\n$4\r\nport\r\n$1\r\n1\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n",
		"*6\r\n$2\r\nip\r\n*1\r\n$1\r\na\r\n$4\r\nport\r\n$1\r\n1\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n",
	};
	struct redis_sentinel_word word;

	(void)state;
	for (size_t i = 0; i < COUNT(answers); i++)
		if (read_word(answers[i], 4096, &word))
			fail_msg("answer %zu was read", i);
}

/* ---- scripted sentinels ---------------------------------------------------------------------------------------- */

struct sentinel {
	pthread_t thread;
	int listener;
	uint16_t port;
	const char *answer; /* atomic: to whatever it is asked first; NULL: nothing, ever */
	const char *more;   /* behind it; NULL: nothing */
	uint32_t asked;     /* atomic */
	uint32_t stop;
};

static void *sentinel_run(void *context)
{
	struct sentinel *sentinel = context;
	int held[64], count = 0, fd;

	while ((fd = accept(sentinel->listener, NULL, NULL)) >= 0 && count < 64) {
		const char *answer;
		char buffer[512];

		held[count++] = fd;
		if (recv(fd, buffer, sizeof(buffer), 0) <= 0)
			continue;
		__atomic_add_fetch(&sentinel->asked, 1, __ATOMIC_RELAXED);
		answer = __atomic_load_n(&sentinel->answer, __ATOMIC_ACQUIRE);
		if (answer != NULL)
			(void)send(fd, answer, strlen(answer), MSG_NOSIGNAL);
		if (sentinel->more != NULL && recv(fd, buffer, sizeof(buffer), 0) > 0)
			(void)send(fd, sentinel->more, strlen(sentinel->more), MSG_NOSIGNAL);
	}
	while (count > 0)
		close(held[--count]);
	return NULL;
}

static void sentinel_start(struct sentinel *sentinel, const char *answer, const char *more)
{
	*sentinel = (struct sentinel){.answer = answer, .more = more};
	sentinel->listener = fixture_listen(&sentinel->port);
	assert_int_equal(pthread_create(&sentinel->thread, NULL, sentinel_run, sentinel), 0);
}

/* After the store is closed: its connections are, too. */
static void sentinel_stop(struct sentinel *sentinel)
{
	shutdown(sentinel->listener, SHUT_RDWR);
	pthread_join(sentinel->thread, NULL);
	close(sentinel->listener);
}

/* From the next question on. */
static void sentinel_say(struct sentinel *sentinel, const char *answer)
{
	__atomic_store_n(&sentinel->answer, answer, __ATOMIC_RELEASE);
}

static void open_store(struct fixture *f, const struct sentinel *first, const struct sentinel *second)
{
	int used = snprintf(f->url, sizeof(f->url), "redis+sentinel://127.0.0.1:%u", (unsigned)first->port);

	if (second != NULL)
		used += snprintf(f->url + used, sizeof(f->url) - (size_t)used, ",127.0.0.1:%u",
				 (unsigned)second->port);
	snprintf(f->url + used, sizeof(f->url) - (size_t)used, "/main");
	f->config.connect_timeout_ms = 300;
	fixture_open(f);
}

static bool is_ready(struct fixture *f, bool wanted, uint64_t patience_ms)
{
	struct store_status status;
	uint64_t until_ms = clock_monotonic_ms() + patience_ms;

	do {
		fixture_run_for(f, 10);
		store_status(f->store, &status);
	} while (status.ready != wanted && clock_monotonic_ms() < until_ms);
	return status.ready;
}

static void a_sentinel_that_does_not_tell_is_followed_by_the_next(void **state)
{
	static const char *const nonsense[] = {
		NULL,
		"",
		"hello\r\n",
		"+OK\r\n",
		"-ERR No such master with that name\r\n",
		"-NOAUTH Authentication required.\r\n",
		"-IDONTKNOW \r\n",
		"$-1\r\n",
		"*-1\r\n",
		"*2\r\n$2\r\nip\r\n$1\r\na\r\n",
		"*100000000\r\n",
		"$999999999\r\n",
		"*6\r\n$2\r\nip\r\n$1\r\na\r\n$4\r\nport\r\n$1\r\n0\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n",
	};
	struct fixture *f = *state;
	char port[8], buffer[512];
	const char *const fields[] = {"ip", "127.0.0.1", "port", port, "config-epoch", "3", NULL};

	if (!redis_server_is_installed())
		skip();
	assert_int_equal(redis_server_start_tcp(&f->server, NULL), 0);
	snprintf(port, sizeof(port), "%u", (unsigned)f->server.port);
	master_says(buffer, sizeof(buffer), fields);
	for (size_t i = 0; i < COUNT(nonsense); i++) {
		struct sentinel liar, honest;

		sentinel_start(&liar, nonsense[i], NULL);
		sentinel_start(&honest, buffer, NULL);
		open_store(f, &liar, &honest);
		assert_true(is_ready(f, true, 3000));
		assert_true(__atomic_load_n(&liar.asked, __ATOMIC_RELAXED) > 0);
		fixture_close(f);
		sentinel_stop(&liar);
		sentinel_stop(&honest);
	}
}

static void what_a_sentinel_pushes_beside_the_point_does_no_harm(void **state)
{
	static const char *const pushed[] = {
		"*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n",
		"*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$0\r\n\r\n",
		"*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$20\r\nother 1 2 127.0.0.1 1\r\n",
		"*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$5\r\nmain \r\n",
		"*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$-1\r\n",
		"*1\r\n$1\r\nx\r\n",
		"-ERR unknown\r\n",
		"garbage\r\n",
		":1\r\n",
	};
	struct fixture *f = *state;
	char port[8], buffer[512];
	const char *const fields[] = {"ip", "127.0.0.1", "port", port, "config-epoch", "3", NULL};

	if (!redis_server_is_installed())
		skip();
	assert_int_equal(redis_server_start_tcp(&f->server, NULL), 0);
	snprintf(port, sizeof(port), "%u", (unsigned)f->server.port);
	master_says(buffer, sizeof(buffer), fields);
	for (size_t i = 0; i < COUNT(pushed); i++) {
		struct sentinel sentinel;

		sentinel_start(&sentinel, buffer, pushed[i]);
		open_store(f, &sentinel, NULL);
		assert_true(is_ready(f, true, 3000));
		fixture_run_for(f, 100);
		assert_true(is_ready(f, true, 3000));
		fixture_close(f);
		sentinel_stop(&sentinel);
	}
}

/* One sentinel names the master; another one, asked in turn, says this, and nothing comes of it. */
static void expect_ignored(struct fixture *f, const char *const other_says[])
{
	char port[8], now[512], other[512];
	const char *const fields[] = {"ip", "127.0.0.1", "port", port, "config-epoch", "3", NULL};
	struct sentinel knows, misleads;
	struct store_status status;

	assert_int_equal(redis_server_start_tcp(&f->server, NULL), 0);
	snprintf(port, sizeof(port), "%u", (unsigned)f->server.port);
	sentinel_start(&knows, master_says(now, sizeof(now), fields), NULL);
	sentinel_start(&misleads, master_says(other, sizeof(other), other_says), NULL);
	f->config.sentinel_refresh_ms = 100;
	open_store(f, &knows, &misleads);
	assert_true(is_ready(f, true, 3000));
	assert_true(fixture_run(f, &misleads.asked, 3, 5000));
	fixture_run_for(f, 100);
	store_status(f->store, &status);
	assert_true(status.ready);
	assert_int_equal(status.reconnects, 0);
	assert_non_null(strstr(status.detail, port));
	fixture_close(f);
	sentinel_stop(&knows);
	sentinel_stop(&misleads);
}

static void an_older_word_is_not_taken_while_the_master_answers(void **state)
{
	static const char *const older[] = {"ip", "127.0.0.1", "port", "1", "config-epoch", "2", NULL};

	if (!redis_server_is_installed())
		skip();
	expect_ignored(*state, older);
}

/* The leader has the epoch of the next master already, and the address of the last one. */
static void the_word_of_a_failovers_leader_does_not_count(void **state)
{
	static const char *const leads[] = {
		"ip",           "127.0.0.1", "port", "1", "flags", "s_down,o_down,master,failover_in_progress",
		"config-epoch", "4",         NULL};

	if (!redis_server_is_installed())
		skip();
	expect_ignored(*state, leads);
}

static void a_replica_is_not_used_though_a_sentinel_names_it(void **state)
{
	struct fixture *f = *state;
	char port[8], buffer[512];
	const char *const fields[] = {"ip", "127.0.0.1", "port", port, "config-epoch", "3", NULL};
	struct sentinel sentinel;
	struct store_status status;

	if (!redis_server_is_installed())
		skip();
	assert_int_equal(redis_server_start_tcp(&f->server, "--replicaof", "127.0.0.1", "1", NULL), 0);
	snprintf(port, sizeof(port), "%u", (unsigned)f->server.port);
	sentinel_start(&sentinel, master_says(buffer, sizeof(buffer), fields), NULL);
	open_store(f, &sentinel, NULL);
	assert_false(is_ready(f, true, 500));
	store_status(f->store, &status);
	assert_non_null(strstr(status.detail, "not the master"));
	/* Asked again meanwhile, and not without pause. */
	assert_in_range(__atomic_load_n(&sentinel.asked, __ATOMIC_RELAXED), 2, 10);
	fixture_close(f);
	sentinel_stop(&sentinel);
}

/* ---- the word of a sentinel that knows better ------------------------------------------------------------------ */

#define UP "master"
#define DOWN "s_down,master"

/* What a sentinel says of a master on 127.0.0.1. */
struct word {
	char bytes[512];
};

static struct word word_of(const struct redis_server *server, const char *flags, const char *epoch)
{
	char port[8];
	const char *const fields[] = {"ip", "127.0.0.1", "port", port, "flags", flags, "config-epoch", epoch, NULL};
	struct word word;

	snprintf(port, sizeof(port), "%u", (unsigned)server->port);
	master_says(word.bytes, sizeof(word.bytes), fields);
	return word;
}

static long long keys_in(const struct redis_server *server)
{
	redisContext *redis = redisConnectUnix(server->unix_path);
	redisReply *reply = redisCommand(redis, "DBSIZE");
	long long count;

	assert_non_null(reply);
	assert_int_equal(reply->type, REDIS_REPLY_INTEGER);
	count = reply->integer;
	freeReplyObject(reply);
	redisFree(redis);
	return count;
}

static void a_master_is_held_to_be_down_by_either_flag(void **state)
{
	static const struct {
		const char *flags;
		bool down;
	} cases[] = {{"master", false},  {"s_down,master", true},   {"s_down,o_down,master", true},
		     {"o_down", true},   {"s_downs,master", false}, {"master,disconnected", false},
		     {"xs_down", false}, {"master,s_down", true},   {",", false}};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		const struct redis_server server = {.port = 1};
		const struct word word = word_of(&server, cases[i].flags, "1");
		struct redis_sentinel_word read = {.down = !cases[i].down};

		assert_true(read_word(word.bytes, 4096, &read));
		if (read.down != cases[i].down)
			fail_msg("\"%s\" was read wrongly", cases[i].flags);
	}
}

/* Started again before its sentinels have replaced it, it would be used, empty as it is. */
static void a_master_held_to_be_down_is_not_used_after_a_loss(void **state)
{
	struct fixture *f = *state;
	struct word up, down;
	struct sentinel sentinel;
	struct store_status status;

	if (!redis_server_is_installed())
		skip();
	assert_int_equal(redis_server_start_tcp(&f->server, NULL), 0);
	up = word_of(&f->server, UP, "3");
	down = word_of(&f->server, DOWN, "3");
	sentinel_start(&sentinel, up.bytes, NULL);
	open_store(f, &sentinel, NULL);
	assert_true(is_ready(f, true, 3000));
	sentinel_say(&sentinel, down.bytes);
	redis_server_kill(&f->server);
	assert_int_equal(redis_server_restart(&f->server), 0);
	assert_false(is_ready(f, false, 3000));
	assert_false(is_ready(f, true, 1000));
	assert_int_equal(fixture_put(f, "key", "value", 5, 0), RSHM_E_AGAIN);
	assert_int_equal(fixture_op(f, STORE_GET, "key", 0), RSHM_E_AGAIN);
	assert_int_equal(admin_clients(f, NULL), 0);
	store_status(f->store, &status);
	assert_non_null(strstr(status.detail, "it holds the master to be down"));
	sentinel_say(&sentinel, up.bytes);
	assert_true(is_ready(f, true, 3000));
	assert_int_equal(fixture_put(f, "key", "value", 5, 0), RSHM_OK);
	store_status(f->store, &status);
	assert_null(strstr(status.detail, "down"));
	fixture_close(f);
	sentinel_stop(&sentinel);
}

static void one_sentinel_that_holds_the_master_to_be_up_is_enough(void **state)
{
	struct fixture *f = *state;
	struct word up, down;
	struct sentinel mistaken, right;
	struct store_status status = {.reconnects = 0};

	if (!redis_server_is_installed())
		skip();
	assert_int_equal(redis_server_start_tcp(&f->server, NULL), 0);
	up = word_of(&f->server, UP, "3");
	down = word_of(&f->server, DOWN, "3");
	sentinel_start(&mistaken, down.bytes, NULL);
	sentinel_start(&right, up.bytes, NULL);
	open_store(f, &mistaken, &right);
	assert_true(is_ready(f, true, 3000));
	assert_int_not_equal(__atomic_load_n(&mistaken.asked, __ATOMIC_RELAXED), 0);
	/* And once more after a loss. */
	redis_server_kill(&f->server);
	assert_int_equal(redis_server_restart(&f->server), 0);
	for (int i = 0; i < 300 && status.reconnects == 0; i++) {
		fixture_run_for(f, 10);
		store_status(f->store, &status);
	}
	assert_true(is_ready(f, true, 3000));
	fixture_close(f);
	sentinel_stop(&mistaken);
	sentinel_stop(&right);
}

/* The old one is left, for it was replaced; the new one waits until it is held to be up. */
static void a_new_master_held_to_be_down_is_moved_to_but_not_used(void **state)
{
	struct fixture *f = *state;
	struct redis_server other = {.pid = 0};
	struct word before, down, up;
	struct sentinel sentinel;

	if (!redis_server_is_installed())
		skip();
	assert_int_equal(redis_server_start_tcp(&f->server, NULL), 0);
	assert_int_equal(redis_server_start_tcp(&other, NULL), 0);
	before = word_of(&f->server, UP, "3");
	down = word_of(&other, DOWN, "4");
	up = word_of(&other, UP, "4");
	sentinel_start(&sentinel, before.bytes, NULL);
	f->config.sentinel_refresh_ms = 100;
	open_store(f, &sentinel, NULL);
	assert_true(is_ready(f, true, 3000));
	sentinel_say(&sentinel, down.bytes);
	assert_false(is_ready(f, false, 3000));
	assert_false(is_ready(f, true, 700));
	sentinel_say(&sentinel, up.bytes);
	assert_true(is_ready(f, true, 3000));
	assert_int_equal(fixture_put(f, "key", "value", 5, 0), RSHM_OK);
	assert_int_equal(keys_in(&other), 1);
	assert_int_equal(keys_in(&f->server), 0);
	fixture_close(f);
	sentinel_stop(&sentinel);
	redis_server_stop(&other);
}

/* ---- a pool that empties --------------------------------------------------------------------------------------- */

/* Nobody was connected who would have noticed the loss of the master. */
static void a_pool_that_ran_empty_asks_before_it_connects(void **state)
{
	struct fixture *f = *state;
	struct redis_server other = {.pid = 0};
	struct word before, after;
	struct sentinel sentinel, silent;
	struct store_status status;

	if (!redis_server_is_installed())
		skip();
	assert_int_equal(redis_server_start_tcp(&f->server, NULL), 0);
	assert_int_equal(redis_server_start_tcp(&other, NULL), 0);
	before = word_of(&f->server, UP, "3");
	after = word_of(&other, UP, "4");
	sentinel_start(&sentinel, before.bytes, NULL);
	sentinel_start(&silent, NULL, NULL);
	f->config.pool_min = 0;
	f->config.idle_timeout_ms = 50;
	f->config.connect_grace_ms = 3000;
	open_store(f, &sentinel, &silent);
	assert_int_equal(fixture_put(f, "first", "value", 5, 0), RSHM_OK);
	fixture_run_for(f, 700);
	store_status(f->store, &status);
	assert_int_equal(status.connections, 0);
	assert_int_equal(status.reconnects, 0);
	/* Nothing is asked while nothing is wanted. */
	assert_int_equal(__atomic_load_n(&sentinel.asked, __ATOMIC_RELAXED), 1);
	sentinel_say(&sentinel, after.bytes);
	assert_int_equal(fixture_put(f, "second", "value", 5, 0), RSHM_OK);
	assert_int_equal(keys_in(&f->server), 1);
	assert_int_equal(keys_in(&other), 1);
	/* The one that answers is asked. */
	assert_int_equal(__atomic_load_n(&silent.asked, __ATOMIC_RELAXED), 0);
	fixture_close(f);
	sentinel_stop(&sentinel);
	sentinel_stop(&silent);
	redis_server_stop(&other);
}

/* Who would name the master, once the last connection is closed? */
static void no_connection_is_closed_for_its_age_while_no_sentinel_answers(void **state)
{
	struct fixture *f = *state;
	struct word up;
	struct sentinel sentinel;

	if (!redis_server_is_installed())
		skip();
	assert_int_equal(redis_server_start_tcp(&f->server, NULL), 0);
	up = word_of(&f->server, UP, "3");
	sentinel_start(&sentinel, up.bytes, NULL);
	f->config.pool_min = 1;
	f->config.pool_max = 1;
	f->config.lifetime_ms = 300;
	open_store(f, &sentinel, NULL);
	assert_true(is_ready(f, true, 3000));
	sentinel_stop(&sentinel);
	for (int i = 0; i < 8; i++) {
		fixture_run_for(f, 100);
		assert_int_equal(fixture_put(f, "key", "value", 5, 0), RSHM_OK);
	}
	fixture_close(f);
}

/* ---- the barrier ----------------------------------------------------------------------------------------------- */

/* A write that was sent to a server that does not answer, when another one is named. */
static void lose_a_write(struct fixture *f, struct sentinel *sentinel, const struct word *next)
{
	struct call lost = {.request.envelope = "lost", .request.envelope_len = 4};

	redis_server_pause(&f->server);
	call_start(f, &lost, STORE_PUT, "key", 3, 5000);
	fixture_run_for(f, 50);
	sentinel_say(sentinel, next->bytes);
	assert_int_equal(call_wait(f, &lost), RSHM_E_UNKNOWN);
	redis_server_resume(&f->server);
}

static void writes_to_a_new_master_that_refuses_info_do_not_wait(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct redis_server other = {.pid = 0};
	struct word first, second, third;
	struct sentinel sentinel;

	if (!redis_server_is_installed())
		skip();
	assert_int_equal(redis_server_start_tcp(&f->server, NULL), 0);
	assert_int_equal(redis_server_start_tcp(&other, "--user", "default", "on", "nopass", "~*", "&*", "+@all",
						"-info", NULL),
			 0);
	first = word_of(&f->server, UP, "3");
	second = word_of(&other, UP, "4");
	third = word_of(&f->server, UP, "5");
	sentinel_start(&sentinel, first.bytes, NULL);
	f->config.sentinel_refresh_ms = 100;
	f->config.connect_grace_ms = 3000;
	open_store(f, &sentinel, NULL);
	assert_int_equal(fixture_put(f, "key", "old", 3, 0), RSHM_OK);
	lose_a_write(f, &sentinel, &second);
	assert_int_equal(fixture_put(f, "key", "new", 3, 0), RSHM_OK);
	assert_int_equal(keys_in(&other), 1);
	assert_int_equal(fixture_metric(f, STORE_REDIS_KILLS), 0);
	/* The one before could do it, and can again. */
	sentinel_say(&sentinel, third.bytes);
	fixture_run_for(f, 700);
	lose_a_write(f, &sentinel, &third);
	assert_int_equal(fixture_put(f, "key", "newest", 6, 0), RSHM_OK);
	assert_true(fixture_metric(f, STORE_REDIS_KILLS) > 0);
	assert_stored(f, "key", "newest", 6);
	fixture_close(f);
	sentinel_stop(&sentinel);
	redis_server_stop(&other);
}

/* ---- how often they are asked ---------------------------------------------------------------------------------- */

/* How often a sentinel is asked in 600 ms that names a server that is no master. */
static uint32_t questions(struct fixture *f, uint64_t retry_ms)
{
	struct word up = word_of(&f->server, UP, "3");
	struct sentinel sentinel;
	uint32_t asked;

	sentinel_start(&sentinel, up.bytes, NULL);
	f->config.sentinel_retry_ms = retry_ms;
	f->config.retry_delay_ms = f->config.retry_max_delay_ms = 10;
	open_store(f, &sentinel, NULL);
	fixture_run_for(f, 600);
	asked = __atomic_load_n(&sentinel.asked, __ATOMIC_RELAXED);
	fixture_close(f);
	sentinel_stop(&sentinel);
	return asked;
}

static void sentinels_are_asked_no_more_often_than_told(void **state)
{
	struct fixture *f = *state;

	if (!redis_server_is_installed())
		skip();
	assert_int_equal(redis_server_start_tcp(&f->server, "--replicaof", "127.0.0.1", "1", NULL), 0);
	assert_int_equal(questions(f, 10000), 1);
	assert_in_range(questions(f, 250), 2, 3);
	assert_in_range(questions(f, 30), 4, 21);
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

#define STORE(test) cmocka_unit_test_setup_teardown(test, prepare, without)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_url_names_sentinels_a_master_and_the_servers_login),
		cmocka_unit_test(a_wrong_url_is_refused_without_its_words),
		cmocka_unit_test(an_answer_is_read_however_it_comes),
		cmocka_unit_test(what_is_no_answer_is_not_read),
		STORE(a_sentinel_that_does_not_tell_is_followed_by_the_next),
		STORE(what_a_sentinel_pushes_beside_the_point_does_no_harm),
		STORE(an_older_word_is_not_taken_while_the_master_answers),
		STORE(the_word_of_a_failovers_leader_does_not_count),
		STORE(a_replica_is_not_used_though_a_sentinel_names_it),
		cmocka_unit_test(a_master_is_held_to_be_down_by_either_flag),
		STORE(a_master_held_to_be_down_is_not_used_after_a_loss),
		STORE(one_sentinel_that_holds_the_master_to_be_up_is_enough),
		STORE(a_new_master_held_to_be_down_is_moved_to_but_not_used),
		STORE(a_pool_that_ran_empty_asks_before_it_connects),
		STORE(no_connection_is_closed_for_its_age_while_no_sentinel_answers),
		STORE(writes_to_a_new_master_that_refuses_info_do_not_wait),
		STORE(sentinels_are_asked_no_more_often_than_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
