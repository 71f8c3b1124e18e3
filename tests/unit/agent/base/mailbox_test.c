#include "agent/base/mailbox.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define SENDERS 4
#define MESSAGES 20000

struct letter {
	struct mailbox_message message;
	uint32_t sender;
	uint32_t number;
};

/* Loop thread only, but for what the senders set before they post. */
static struct mailbox box;
static uv_loop_t loop;
static uint32_t next_number[SENDERS];
static uint32_t handled, closed_calls;
static uint32_t close_after;

static void count_closed(void *context)
{
	(*(uint32_t *)context)++;
}

static void letter_handle(struct mailbox_message *message)
{
	struct letter *letter = (struct letter *)message;

	assert_int_equal(letter->number, next_number[letter->sender]);
	next_number[letter->sender]++;
	handled++;
	free(letter);
	if (handled == close_after)
		mailbox_close(&box, count_closed, &closed_calls);
}

static struct letter *letter_create(uint32_t sender, uint32_t number)
{
	struct letter *letter = calloc(1, sizeof(*letter));

	if (letter == NULL)
		abort();
	letter->message.handle = letter_handle;
	letter->sender = sender;
	letter->number = number;
	return letter;
}

static int box_open(void **state)
{
	(void)state;
	for (int i = 0; i < SENDERS; i++)
		next_number[i] = 0;
	handled = closed_calls = close_after = 0;
	return uv_loop_init(&loop) == 0 && mailbox_init(&box, &loop, 64) ? 0 : -1;
}

static int box_check_gone(void **state)
{
	(void)state;
	return uv_loop_close(&loop);
}

static void *sender_run(void *argument)
{
	uint32_t sender = (uint32_t)(uintptr_t)argument;

	for (uint32_t i = 0; i < MESSAGES; i++) {
		struct letter *letter = letter_create(sender, i);

		while (!mailbox_post(&box, &letter->message))
			sched_yield();
	}
	return NULL;
}

static void mailbox_keeps_the_order_of_each_sender_and_loses_nothing(void **state)
{
	pthread_t threads[SENDERS];

	(void)state;
	close_after = SENDERS * MESSAGES;
	for (uintptr_t i = 0; i < SENDERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, sender_run, (void *)i), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	for (int i = 0; i < SENDERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(handled, SENDERS * MESSAGES);
	assert_int_equal(closed_calls, 1);
}

static void mailbox_refuses_above_its_limit_and_takes_again_later(void **state)
{
	struct letter *extra = letter_create(0, 64);

	(void)state;
	for (uint32_t i = 0; i < 64; i++)
		assert_true(mailbox_post(&box, &letter_create(0, i)->message));
	assert_int_equal(mailbox_waiting(&box), 64);
	assert_false(mailbox_post(&box, &extra->message));
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(handled, 64);
	assert_int_equal(mailbox_waiting(&box), 0);
	assert_true(mailbox_post(&box, &extra->message));
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(handled, 65);
	mailbox_close(&box, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
}

static void mailbox_close_handles_what_waits_and_refuses_the_rest(void **state)
{
	struct letter *late = letter_create(0, 3);

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		assert_true(mailbox_post(&box, &letter_create(0, i)->message));
	mailbox_close(&box, count_closed, &closed_calls);
	assert_int_equal(handled, 3);
	assert_int_equal(closed_calls, 0);
	assert_false(mailbox_post(&box, &late->message));
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(closed_calls, 1);
	assert_false(mailbox_post(&box, &late->message));
	free(late);
}

static uint32_t reposted;

static void repost_handle(struct mailbox_message *message)
{
	if (++reposted < 10)
		assert_true(mailbox_post(&box, message));
	else
		mailbox_close(&box, NULL, NULL);
}

static void mailbox_takes_messages_from_its_own_handlers(void **state)
{
	struct mailbox_message message = {.handle = repost_handle};

	(void)state;
	reposted = 0;
	assert_true(mailbox_post(&box, &message));
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(reposted, 1);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(reposted, 10);
}

static void *sender_until_refused(void *argument)
{
	uint32_t sender = (uint32_t)(uintptr_t)argument, sent = 0;

	for (;;) {
		struct letter *letter = letter_create(sender, sent);

		while (!mailbox_post(&box, &letter->message)) {
			if (__atomic_load_n(&close_after, __ATOMIC_ACQUIRE) == UINT32_MAX) {
				free(letter);
				return (void *)(uintptr_t)sent;
			}
			sched_yield();
		}
		sent++;
	}
}

static void mailbox_closes_under_fire_without_losing_an_accepted_message(void **state)
{
	pthread_t threads[SENDERS];
	uint32_t sent = 0;

	(void)state;
	for (uintptr_t i = 0; i < SENDERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, sender_until_refused, (void *)i), 0);
	while (handled < 5000)
		uv_run(&loop, UV_RUN_ONCE);
	mailbox_close(&box, count_closed, &closed_calls);
	__atomic_store_n(&close_after, UINT32_MAX, __ATOMIC_RELEASE);
	for (int i = 0; i < SENDERS; i++) {
		void *result;

		assert_int_equal(pthread_join(threads[i], &result), 0);
		sent += (uint32_t)(uintptr_t)result;
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(handled, sent);
	assert_int_equal(closed_calls, 1);
}

#define box_test(f) cmocka_unit_test_setup_teardown(f, box_open, box_check_gone)

int main(void)
{
	const struct CMUnitTest tests[] = {
		box_test(mailbox_keeps_the_order_of_each_sender_and_loses_nothing),
		box_test(mailbox_refuses_above_its_limit_and_takes_again_later),
		box_test(mailbox_close_handles_what_waits_and_refuses_the_rest),
		box_test(mailbox_takes_messages_from_its_own_handlers),
		box_test(mailbox_closes_under_fire_without_losing_an_accepted_message),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
