/*
 * The shapes that only a feed and a transaction are answered in, byte by byte and cut anywhere.
 */
#include "agent/store/redis/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/msg.h"

#define REPLY_MAX 4096u

static void feed(struct redis_reader *reader, const char *text)
{
	assert_int_equal(redis_reader_feed(reader, text, strlen(text)), RSHM_OK);
}

/* The first answer, or what became of it, with `step` bytes at a time. */
static int read_one(const char *bytes, size_t length, size_t step, enum redis_shape shape, struct redis_reply **ret)
{
	struct redis_reader *reader = redis_reader_create(REPLY_MAX);
	int status = RSHM_MISS;

	assert_non_null(reader);
	for (size_t at = 0; at < length && status == RSHM_MISS; at += step) {
		size_t piece = length - at < step ? length - at : step;

		assert_int_equal(redis_reader_feed(reader, bytes + at, piece), RSHM_OK);
		status = redis_reader_next(reader, shape, ret);
	}
	redis_reader_destroy(&reader);
	return status;
}

static void assert_items(const struct redis_reply *push, const char *const *items)
{
	size_t position = 0, length;
	const char *bytes;

	for (; *items != NULL; items++) {
		assert_true(redis_reply_page_next(push, &position, &bytes, &length));
		assert_int_equal(length, strlen(*items));
		assert_memory_equal(bytes, *items, length);
	}
	assert_false(redis_reply_page_next(push, &position, &bytes, &length));
}

static void assert_push(const char *bytes, enum redis_payload payload, const char *const *items)
{
	for (size_t step = 1; step <= strlen(bytes); step++) {
		struct redis_reply *reply = NULL;

		assert_int_equal(read_one(bytes, strlen(bytes), step, REDIS_SHAPE_PUSH, &reply), RSHM_OK);
		assert_int_equal(reply->type, REDIS_REPLY_IS_PUSH);
		assert_int_equal(reply->integer, payload);
		assert_items(reply, items);
		free(reply);
	}
}

static void pushes_are_flattened_wherever_they_are_cut(void **state)
{
	(void)state;
	assert_push("*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n", REDIS_PAYLOAD_NUMBER,
		    (const char *const[]){"subscribe", "ch", NULL});
	assert_push("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n*2\r\n$1\r\na\r\n$0\r\n\r\n", REDIS_PAYLOAD_ITEMS,
		    (const char *const[]){"message", "ch", "a", "", NULL});
	assert_push("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$4\r\ntext\r\n", REDIS_PAYLOAD_TEXT,
		    (const char *const[]){"message", "ch", "text", NULL});
	assert_push("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$-1\r\n", REDIS_PAYLOAD_NIL,
		    (const char *const[]){"message", "ch", NULL});
	assert_push("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n*-1\r\n", REDIS_PAYLOAD_NIL,
		    (const char *const[]){"message", "ch", NULL});
	assert_push("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n*0\r\n", REDIS_PAYLOAD_ITEMS,
		    (const char *const[]){"message", "ch", NULL});
}

static void rest_of_a_push_beyond_the_limit_is_forgotten(void **state)
{
	struct redis_reader *reader = redis_reader_create(REPLY_MAX);
	struct redis_reply *reply = NULL;
	char item[64];

	(void)state;
	feed(reader, "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n*100000\r\n");
	for (int i = 0; i < 100000; i++) {
		assert_int_equal(redis_reader_next(reader, REDIS_SHAPE_PUSH, &reply), RSHM_MISS);
		snprintf(item, sizeof(item), "$8\r\n%08d\r\n", i);
		feed(reader, item);
	}
	assert_int_equal(redis_reader_next(reader, REDIS_SHAPE_PUSH, &reply), RSHM_OK);
	assert_int_equal(reply->integer, REDIS_PAYLOAD_TOO_MUCH);
	assert_true(reply->length <= REPLY_MAX);
	free(reply);
	/* The next one is as good as any. */
	feed(reader, "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n*1\r\n$1\r\na\r\n");
	assert_int_equal(redis_reader_next(reader, REDIS_SHAPE_PUSH, &reply), RSHM_OK);
	assert_int_equal(reply->integer, REDIS_PAYLOAD_ITEMS);
	assert_items(reply, (const char *const[]){"message", "ch", "a", NULL});
	free(reply);
	redis_reader_destroy(&reader);
}

static void what_no_feed_is_sent_is_refused(void **state)
{
	static const char *const refused[] = {
		"*2\r\n$7\r\nmessage\r\n$2\r\nch\r\n",
		"*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n",
		"*3\r\n*1\r\n$1\r\na\r\n$2\r\nch\r\n$1\r\na\r\n",
		"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n*1\r\n*1\r\n$1\r\na\r\n",
		"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n*1\r\n:1\r\n",
		"*3\r\n$7\r\nmessage\r\n:7\r\n$1\r\na\r\n",
		"*3\r\n$-1\r\n$2\r\nch\r\n$1\r\na\r\n",
		"*3\r\n+message\r\n$2\r\nch\r\n$1\r\na\r\n",
		"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n*1\r\n$999999999\r\na",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		struct redis_reply *reply = NULL;

		if (read_one(refused[i], strlen(refused[i]), 1, REDIS_SHAPE_PUSH, &reply) != RSHM_E_PROTOCOL)
			fail_msg("%s", refused[i]);
	}
}

static void transaction_is_answered_by_its_first_command(void **state)
{
	static const struct {
		const char *bytes;
		enum redis_reply_type type;
		long long integer;
		const char *text;
	} cases[] = {
		{"*2\r\n+OK\r\n:3\r\n", REDIS_REPLY_IS_STATUS, 0, "OK"},
		{"*2\r\n:1\r\n:0\r\n", REDIS_REPLY_IS_INTEGER, 1, ""},
		{"*2\r\n$4\r\n1 0x\r\n:0\r\n", REDIS_REPLY_IS_STRING, 0, "1 0x"},
		{"*2\r\n-NOSCRIPT none\r\n:0\r\n", REDIS_REPLY_IS_ERROR, 0, "NOSCRIPT none"},
		{"*2\r\n+OK\r\n-NOPERM no\r\n", REDIS_REPLY_IS_STATUS, 0, "OK"},
		{"-EXECABORT no\r\n", REDIS_REPLY_IS_ERROR, 0, "EXECABORT no"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t length = strlen(cases[i].bytes);

		for (size_t step = 1; step <= length; step++) {
			struct redis_reply *reply = NULL;

			assert_int_equal(read_one(cases[i].bytes, length, step, REDIS_SHAPE_EXEC, &reply), RSHM_OK);
			assert_int_equal(reply->type, cases[i].type);
			assert_int_equal(reply->integer, cases[i].integer);
			assert_string_equal(reply->bytes, cases[i].text);
			free(reply);
		}
	}
}

static void transactions_of_another_shape_are_refused(void **state)
{
	static const char *const refused[] = {"*1\r\n+OK\r\n", "*3\r\n+OK\r\n:1\r\n:1\r\n",
					      "*2\r\n*1\r\n:1\r\n:1\r\n", "*2\r\n$-1\r\n:1\r\n"};

	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		struct redis_reply *reply = NULL;

		if (read_one(refused[i], strlen(refused[i]), 1, REDIS_SHAPE_EXEC, &reply) != RSHM_E_PROTOCOL)
			fail_msg("%s", refused[i]);
	}
}

/* The memory of what has come is freed, as the sanitizers know. */
static void transaction_that_is_cut_leaves_nothing(void **state)
{
	struct redis_reply *reply = NULL;

	(void)state;
	assert_int_equal(read_one("*2\r\n+OK\r\n:", 10, 3, REDIS_SHAPE_EXEC, &reply), RSHM_MISS);
	assert_int_equal(read_one("*2\r\n+OK\r\n*2\r\n", 13, 3, REDIS_SHAPE_EXEC, &reply), RSHM_E_PROTOCOL);
	assert_int_equal(read_one("*2\r\n+OK\r\n:1\r\n", 13, 3, REDIS_SHAPE_PLAIN, &reply), RSHM_E_PROTOCOL);
	assert_int_equal(read_one("*3\r\n$7\r\nmessage\r\n", 17, 3, REDIS_SHAPE_PLAIN, &reply), RSHM_E_PROTOCOL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pushes_are_flattened_wherever_they_are_cut),
		cmocka_unit_test(rest_of_a_push_beyond_the_limit_is_forgotten),
		cmocka_unit_test(what_no_feed_is_sent_is_refused),
		cmocka_unit_test(transaction_is_answered_by_its_first_command),
		cmocka_unit_test(transactions_of_another_shape_are_refused),
		cmocka_unit_test(transaction_that_is_cut_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
