/*
 * hostile_redis_test.c - a Redis that is slow, silent, cut off, or lies: no call hangs, no value is wrong, a write that may
 * have happened is told as such, what is hot is read on, and the agent is well as soon as the server is.
 */
#include "tests/e2e/hostile_redis.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* An integer reply of the server itself; the proxy is not asked. */
static long long ask_server(const struct fixture *f, const char *command, const char *key)
{
	redisContext *redis = redisConnectUnix(f->server.unix_path);
	redisReply *reply = redis && !redis->err ? redisCommand(redis, "%s %s", command, key) : NULL;
	long long number = reply && reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1;

	if (reply)
		freeReplyObject(reply);
	if (redis)
		redisFree(redis);
	return number;
}

/* Until a write goes through: so the next message is the next request's, not one that mends what was cut before. */
static void settle(struct fixture *f)
{
	uint64_t until_ms = e2e_now_ms() + RECOVERY_MS;

	proxy_behave(f->proxy, NULL);
	while (e2e_put(f->handle, "settled", "v") != RIPTIDE_OK)
		assert_true(e2e_now_ms() < until_ms);
}

/* ---- slow and silent ---------------------------------------------------------------------------------------- */

static void replies_that_come_byte_by_byte_are_put_together(void **state)
{
	struct fixture *f = *state;
	const struct proxy_behaviour slow = {.manner = PROXY_SLOW};
	char key[16];

	proxy_behave(f->proxy, &slow);
	for (int i = 0; i < 10; i++) {
		snprintf(key, sizeof(key), "small-%d", i);
		assert_int_equal(e2e_put(f->handle, key, "v"), RIPTIDE_OK);
		assert_int_equal(riptide_touch(f->handle, key, strlen(key), 60000), RIPTIDE_OK);
		assert_int_equal(riptide_delete(f->handle, key, strlen(key)), RIPTIDE_OK);
		assert_int_equal(e2e_check(f->handle, key, "v", NULL), RIPTIDE_MISS);
	}
	/* A value of 6000 bytes takes longer than a command may. */
	(void)suffer(f, &slow, 2);
}

static void a_silent_server_costs_a_deadline(void **state)
{
	const struct proxy_behaviour silent = {.manner = PROXY_DROP};
	struct outcome out = suffer(*state, &silent, 3);

	assert_true(out.spoiled > 0);
	assert_int_equal(out.reads + out.writes, 0);
}

static void a_server_that_accepts_and_says_nothing_costs_a_deadline(void **state)
{
	const struct proxy_behaviour silent = {.manner = PROXY_DROP, .greeting_too = true, .hang_up_at_once = true};
	struct fixture *f = *state;
	struct outcome out = suffer(f, &silent, 4);

	assert_int_equal(out.reads + out.writes, 0);
	/* None was sent, so none can have happened. */
	assert_int_equal(out.unknown, 0);
	assert_true(proxy_connections(f->proxy) > 2);
}

static void writes_whose_replies_do_not_come_are_unknown(void **state)
{
	const struct proxy_behaviour swallow = {.manner = PROXY_SWALLOW};
	struct outcome out = suffer(*state, &swallow, 3);

	assert_true(out.spoiled > 0);
	assert_int_equal(out.reads + out.writes, 0);
	assert_true(out.unknown > 0);
}

/* ---- cut ---------------------------------------------------------------------------------------------------- */

static void cut_at(struct fixture *f, enum proxy_manner manner)
{
	static const size_t places[] = {0, 1, 4, 60, 3000};

	for (size_t i = 0; i < COUNT(places); i++) {
		const struct proxy_behaviour once = {.manner = manner, .after = places[i], .shots = 1};
		const struct proxy_behaviour always = {.manner = manner, .after = places[i]};

		/* One connection less is no trouble to a read. */
		proxy_behave(f->proxy, &once);
		assert_int_equal(read_key(f, (int)i), RIPTIDE_OK);
		assert_int_equal(proxy_spoiled(f->proxy), 1);
		assert_true(suffer(f, &always, 1).spoiled > 0);
	}
}

static void resets_in_the_middle_of_a_reply_lose_nothing(void **state)
{
	cut_at(*state, PROXY_CUT_RESET);
}

static void ends_in_the_middle_of_a_reply_lose_nothing(void **state)
{
	cut_at(*state, PROXY_CUT_END);
}

static void half_closed_connections_are_replaced(void **state)
{
	cut_at(*state, PROXY_CUT_HALF);
}

static void connections_refused_at_the_first_request_are_replaced(void **state)
{
	const struct proxy_behaviour refuse = {.manner = PROXY_REFUSE};
	const struct proxy_behaviour refuse_all = {
		.manner = PROXY_REFUSE, .greeting_too = true, .hang_up_at_once = true};
	struct outcome out = suffer(*state, &refuse, 4);

	assert_int_equal(out.reads + out.writes, 0);
	out = suffer(*state, &refuse_all, 4);
	assert_int_equal(out.reads + out.writes + out.unknown, 0);
}

/* The server has the write, the client has no reply. */
/* What the caller was told against what the server has. The message that was hit may be another one on the same connection. */
static void judge_write(int status, bool happened, bool nothing_changed)
{
	if (status == RIPTIDE_OK)
		assert_true(happened);
	else if (status != RIPTIDE_EUNKNOWN)
		assert_true(is_trouble(status) && nothing_changed);
}

static void a_write_whose_reply_is_cut_is_unknown_or_truly_stored(void **state)
{
	static const enum proxy_manner manners[] = {PROXY_CUT_RESET, PROXY_CUT_END, PROXY_CUT_HALF, PROXY_SWALLOW,
						    PROXY_REFUSE};
	struct fixture *f = *state;
	char key[32], name[64];

	for (int i = 0; i < 40; i++) {
		const struct proxy_behaviour once = {
			.manner = manners[(size_t)i % COUNT(manners)], .after = (size_t)(i / 5 % 4), .shots = 1};
		long long stored;
		int status;

		snprintf(key, sizeof(key), "cut-%d", i);
		snprintf(name, sizeof(name), KEY_OF("%s"), key);
		settle(f);
		proxy_behave(f->proxy, &once);
		status = e2e_put(f->handle, key, "v");
		assert_int_equal(proxy_spoiled(f->proxy), 1);
		stored = ask_server(f, "EXISTS", name);
		judge_write(status, stored == 1, stored == 0);
		/* A read says what is so, whatever the write was told. */
		assert_int_equal(e2e_await_check(f->handle, key, "v", stored ? RIPTIDE_OK : RIPTIDE_MISS, 5000),
				 stored ? RIPTIDE_OK : RIPTIDE_MISS);
	}
	recover(f);
}

static void a_delete_whose_reply_is_cut_is_never_undone(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 12; i++) {
		const struct proxy_behaviour once = {.manner = i % 2 ? PROXY_CUT_END : PROXY_CUT_RESET, .shots = 1};
		long long there;
		int status;

		settle(f);
		assert_int_equal(e2e_put(f->handle, "doomed", "v"), RIPTIDE_OK);
		assert_int_equal(e2e_check(f->handle, "doomed", "v", NULL), RIPTIDE_OK);
		proxy_behave(f->proxy, &once);
		status = riptide_delete(f->handle, "doomed", 6);
		there = ask_server(f, "EXISTS", KEY_OF("doomed"));
		judge_write(status, there == 0, there == 1);
		/* The copy in shared memory must not outlive it. */
		status = there ? RIPTIDE_OK : RIPTIDE_MISS;
		assert_int_equal(e2e_await_check(f->handle, "doomed", "v", status, 5000), status);
	}
	recover(f);
}

static void a_compare_and_set_whose_reply_is_cut_is_sent_again_safely(void **state)
{
	struct fixture *f = *state;
	uint64_t version = 0, found;
	char value[16];

	assert_int_equal(riptide_set(f->handle, "cas", 3, "0", 1, NULL, &version), RIPTIDE_OK);
	for (int i = 1; i <= 20; i++) {
		const struct proxy_behaviour once = {.manner = i % 2 ? PROXY_CUT_RESET : PROXY_REFUSE, .shots = 1};

		settle(f);
		proxy_behave(f->proxy, &once);
		snprintf(value, sizeof(value), "%d", i);
		assert_int_equal(riptide_cas(f->handle, "cas", 3, version, value, strlen(value), NULL, &found),
				 RIPTIDE_OK);
		assert_int_equal(proxy_spoiled(f->proxy), 1);
		assert_true(found > version);
		version = found;
		assert_int_equal(e2e_check(f->handle, "cas", value, NULL), RIPTIDE_OK);
	}
	recover(f);
}

static void a_count_whose_reply_is_cut_counts_once(void **state)
{
	struct fixture *f = *state;
	int64_t value, counted = 0, unknown = 0;

	assert_int_equal(riptide_incr(f->handle, "n", 1, 0, NULL, &value), RIPTIDE_OK);
	for (int i = 0; i < 40; i++) {
		const struct proxy_behaviour once = {.manner = i % 3 == 2 ? PROXY_REFUSE : PROXY_CUT_RESET,
						     .after = (size_t)(i % 4),
						     .shots = 1 + (uint32_t)(i % 2)};
		int status;

		proxy_behave(f->proxy, &once);
		status = riptide_incr(f->handle, "n", 1, 1, NULL, &value);
		assert_true(status == RIPTIDE_OK || is_trouble(status));
		counted += status == RIPTIDE_OK;
		unknown += status == RIPTIDE_EUNKNOWN;
	}
	recover(f);
	assert_int_equal(riptide_incr(f->handle, "n", 1, 0, NULL, &value), RIPTIDE_OK);
	assert_in_range(value, counted, counted + unknown);
	assert_true(counted > 0);
}

/* ---- lies --------------------------------------------------------------------------------------------------- */

/* The server answers everything with this, and executes nothing. Reads must fail; returns what a write was told. */
static int answer_all(struct fixture *f, const char *text, size_t length)
{
	const struct proxy_behaviour answer = {.manner = PROXY_ANSWER, .text = text, .text_length = length};
	int status;

	settle(f);
	proxy_behave(f->proxy, &answer);
	status = write_next(f, 0);
	assert_true(is_trouble(status));
	assert_true(is_trouble(read_key(f, 1)));
	assert_int_equal(read_batch(f), 0);
	assert_true(proxy_spoiled(f->proxy) > 0);
	assert_unharmed(f);
	proxy_behave(f->proxy, NULL);
	return status;
}

static void garbage_is_no_answer(void **state)
{
	static const struct {
		const char *bytes;
		size_t length;
	} lies[] = {
#define LIE(text) {text, sizeof(text) - 1}
		LIE("garbage\r\n"),
		LIE("\r\n"),
		LIE("\0\0\0\0"),
		LIE("HTTP/1.1 400 Bad Request\r\n\r\n"),
		LIE("\xff\xfe\xfd\r\n"),
		LIE("%1\r\n+a\r\n+b\r\n"),
		LIE(">2\r\n+invalidate\r\n*0\r\n"),
		LIE(":\r\n:\r\n:\r\n"),
#undef LIE
	};

	for (size_t i = 0; i < COUNT(lies); i++)
		(void)answer_all(*state, lies[i].bytes, lies[i].length);
	recover(*state);
}

static void answers_of_the_wrong_type_are_no_answers(void **state)
{
	static const char *const lies[] = {":1\r\n", "*0\r\n", "*2\r\n:1\r\n:2\r\n", "$2\r\nOK\r\n", "$-1\r\n"};
	struct fixture *f = *state;

	for (size_t i = 0; i < COUNT(lies) - 1; i++)
		assert_true(is_trouble(answer_all(f, lies[i], 0)));
	/* No string answers a SET either. */
	settle(f);
	proxy_behave(f->proxy, &(struct proxy_behaviour){.manner = PROXY_ANSWER, .text = lies[4]});
	assert_true(is_trouble(write_next(f, 0)));
	recover(f);
}

static void lengths_that_cannot_be_are_not_believed(void **state)
{
	static const char *const lies[] = {"$2147483647\r\nabc", "$99999999999999999999\r\n", "$1000000000\r\n",
					   "*2147483647\r\n",    "*1111701117\r\n",           "$-5\r\n",
					   "$67108864\r\nabc"};
	struct fixture *f = *state;
	long resident_kib = e2e_resident_kib(f->pid);

	for (size_t i = 0; i < COUNT(lies); i++)
		(void)answer_all(f, lies[i], 0);
	recover(f);
	/* Nothing was set aside for what was only announced. */
	assert_true(e2e_resident_kib(f->pid) < resident_kib + 32 * 1024);
}

/* Of types that the next answer cannot have; nobody can tell a false one of the right type. */
static void a_reply_that_nobody_asked_for_is_nobodys_answer(void **state)
{
	static const char *const texts[] = {"$5\r\nwrong\r\n", ":-1\r\n", "+OK\r\n", "$5\r\nwrong\r\n:-1\r\n+OK\r\n"};
	struct fixture *f = *state;
	int status;

	for (size_t i = 0; i < COUNT(texts); i++) {
		const struct proxy_behaviour push = {.manner = PROXY_PUSH, .text = texts[i]};
		const struct proxy_behaviour extra = {.manner = PROXY_EXTRA, .text = texts[i]};

		proxy_behave(f->proxy, &push);
		/* The idle connections are lost for it, and replaced: reads may be asked again, so they succeed. A push
		 * that crosses the request is a false answer of the right type: refused for its bytes. */
		status = read_key(f, 1);
		assert_true(status == RIPTIDE_OK || status == RIPTIDE_ECORRUPT);
		assert_int_equal(read_key(f, 1), RIPTIDE_OK);
		assert_true(suffer(f, &extra, 3).spoiled > 0);
	}
	assert_true(proxy_connections(f->proxy) > COUNT(texts));
}

static void replies_in_the_wrong_order_never_become_values(void **state)
{
	const struct proxy_behaviour swap = {.manner = PROXY_SWAP};
	struct fixture *f = *state;

	proxy_behave(f->proxy, &swap);
	for (int i = 0; i < 10; i++)
		(void)read_batch(f);
	assert_true(proxy_spoiled(f->proxy) > 0);
	recover(f);
	assert_true(suffer(f, &swap, 2).spoiled > 0);
}

static void a_changed_byte_is_never_returned(void **state)
{
	const struct proxy_behaviour corrupt = {.manner = PROXY_CORRUPT};
	struct outcome out = suffer(*state, &corrupt, 40);

	assert_true(out.spoiled >= 360);
	assert_int_equal(out.reads, 0);
	assert_int_equal(out.writes, 40);
}

/* ---- errors ------------------------------------------------------------------------------------------------- */

static void errors_of_the_server_say_what_they_mean(void **state)
{
	static const struct {
		const char *text;
		int of_a_write;
	} errors[] = {
		{"-LOADING Redis is loading the dataset in memory\r\n", RIPTIDE_EAGAIN},
		{"-READONLY You can't write against a read only replica.\r\n", RIPTIDE_EAGAIN},
		{"-BUSY Redis is busy running a script.\r\n", RIPTIDE_EAGAIN},
		{"-MASTERDOWN Link with MASTER is down\r\n", RIPTIDE_EAGAIN},
		{"-OOM command not allowed when used memory > 'maxmemory'.\r\n", RIPTIDE_EFULL},
		{"-NOAUTH Authentication required.\r\n", RIPTIDE_EBACKEND},
		{"-NOPERM this user has no permissions to run this command\r\n", RIPTIDE_EBACKEND},
		{"-ERR unknown\r\n", RIPTIDE_EBACKEND},
		{"-\r\n", RIPTIDE_EBACKEND},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < COUNT(errors); i++) {
		assert_int_equal(answer_all(f, errors[i].text, 0), errors[i].of_a_write);
		recover(f);
	}
}

static void a_server_that_refuses_the_login_is_waited_for(void **state)
{
	static const char *const texts[] = {"-LOADING Redis is loading the dataset in memory\r\n",
					    "-NOAUTH Authentication required.\r\n",
					    "-ERR max number of clients reached\r\n",
					    "garbage\r\n",
					    "$2147483647\r\n",
					    "*1111701117\r\n"};

	for (size_t i = 0; i < COUNT(texts); i++) {
		const struct proxy_behaviour refuse = {
			.manner = PROXY_ANSWER, .text = texts[i], .greeting_too = true, .hang_up_at_once = true};
		struct outcome out = suffer(*state, &refuse, 4);

		assert_int_equal(out.reads + out.writes + out.unknown, 0);
		assert_int_equal(out.unchanged, 4);
	}
}

/* ---- from the beginning, and all of it together -------------------------------------------------------------- */

static int setup_silent(void **state)
{
	const struct proxy_behaviour silent = {.manner = PROXY_DROP, .greeting_too = true};
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	return start_all(f, &silent);
}

static void an_agent_that_finds_a_silent_server_begins_and_waits(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_OK);
	assert_int_equal(e2e_number(&f->agent, "backend.ready"), 0);
	for (int i = 0; i < 3; i++) {
		assert_true(is_trouble(write_next(f, 0)));
		assert_true(is_trouble(read_key(f, 0)));
	}
	proxy_behave(f->proxy, NULL);
	assert_int_equal(start_reader(f), 0);
	recover(f);
}

struct writer {
	pthread_t thread;
	struct fixture *f;
	int first;
	uint32_t *stop;
	uint32_t calls, good;
};

/* Two keys of its own. */
static void *write_and_read(void *context)
{
	struct writer *w = context;

	for (int i = 0; !__atomic_load_n(w->stop, __ATOMIC_RELAXED); i++) {
		w->good += write_next(w->f, w->first + i % 2) == RIPTIDE_OK;
		w->good += read_key(w->f, w->first + (i / 2) % 2) == RIPTIDE_OK;
		w->calls += 2;
	}
	return NULL;
}

static struct proxy_behaviour random_behaviour(uint64_t random)
{
	static const char *const texts[] = {":1\r\n", "garbage\r\n", "$5\r\nwrong\r\n", "$99999999\r\nx"};
	static const enum proxy_manner manners[] = {PROXY_SLOW,      PROXY_DROP,    PROXY_REFUSE,   PROXY_SWALLOW,
						    PROXY_CUT_RESET, PROXY_CUT_END, PROXY_CUT_HALF, PROXY_EXTRA,
						    PROXY_SWAP,      PROXY_CORRUPT, PROXY_PUSH};

	return (struct proxy_behaviour){.manner = manners[random % COUNT(manners)],
					.text = texts[random / 64 % COUNT(texts)],
					.after = random / 1024 % 40,
					.shots = (uint32_t)(random / 65536 % 5),
					.hang_up_at_once = random / 1048576 % 8 == 0};
}

static void all_of_it_together_misleads_nobody(void **state)
{
	struct fixture *f = *state;
	struct writer writers[KEYS / 2];
	uint64_t random = 88172645463325252ull;
	uint32_t stop = 0, calls = 0, good = 0;

	for (int i = 0; i < KEYS / 2; i++) {
		writers[i] = (struct writer){.f = f, .first = 2 * i, .stop = &stop};
		assert_int_equal(pthread_create(&writers[i].thread, NULL, write_and_read, &writers[i]), 0);
	}
	for (int i = 0; i < 60; i++) {
		struct proxy_behaviour behaviour;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		behaviour = random_behaviour(random);
		proxy_behave(f->proxy, &behaviour);
		e2e_pause_ms(100);
		proxy_behave(f->proxy, NULL);
		e2e_pause_ms((long)(random % 60));
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < KEYS / 2; i++) {
		pthread_join(writers[i].thread, NULL);
		calls += writers[i].calls;
		good += writers[i].good;
	}
	print_message("%u of %u calls succeeded\n", good, calls);
	assert_true(good > 0 && good < calls);
	recover(f);
}

static void skip_without_a_server(void **state)
{
	(void)state;
	print_message("redis-server is not installed: nothing is tested here\n");
	skip();
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(replies_that_come_byte_by_byte_are_put_together),
		CASE(a_silent_server_costs_a_deadline),
		CASE(a_server_that_accepts_and_says_nothing_costs_a_deadline),
		CASE(writes_whose_replies_do_not_come_are_unknown),
		CASE(resets_in_the_middle_of_a_reply_lose_nothing),
		CASE(ends_in_the_middle_of_a_reply_lose_nothing),
		CASE(half_closed_connections_are_replaced),
		CASE(connections_refused_at_the_first_request_are_replaced),
		CASE(a_write_whose_reply_is_cut_is_unknown_or_truly_stored),
		CASE(a_delete_whose_reply_is_cut_is_never_undone),
		CASE(a_compare_and_set_whose_reply_is_cut_is_sent_again_safely),
		CASE(a_count_whose_reply_is_cut_counts_once),
		CASE(garbage_is_no_answer),
		CASE(answers_of_the_wrong_type_are_no_answers),
		CASE(lengths_that_cannot_be_are_not_believed),
		CASE(a_reply_that_nobody_asked_for_is_nobodys_answer),
		CASE(replies_in_the_wrong_order_never_become_values),
		CASE(a_changed_byte_is_never_returned),
		CASE(errors_of_the_server_say_what_they_mean),
		CASE(a_server_that_refuses_the_login_is_waited_for),
		cmocka_unit_test_setup_teardown(an_agent_that_finds_a_silent_server_begins_and_waits, setup_silent,
						teardown),
		CASE(all_of_it_together_misleads_nobody),
	};
#undef CASE
	const struct CMUnitTest none[] = {cmocka_unit_test(skip_without_a_server)};

	if (!redis_server_is_installed())
		return cmocka_run_group_tests(none, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
