/*
 * Senders push onto a stack; the loop takes the whole stack at once and turns it round:
 *
 *	newest -> m3 -> m2 -> m1        take: newest := NULL, handle m1, m2, m3
 *
 * Taking everything leaves no way for the ABA problem that popping one at a time has, and no moment at which a preempted
 * sender hides the messages of others, as the queue of Vyukov has it. Messages posted by a handler come in the next turn of
 * the loop, so a handler that posts to its own mailbox starves nobody.
 *
 * The bound counts messages that are posted and not yet handled. Closing sets a bit in `gate`, whose other bits count the
 * senders inside mailbox_post(): when they have left, nobody touches the wake-up handle any more and it can be closed. The
 * wait for them is that of a few instructions, since a sender never waits inside.
 */
#include "agent/base/mailbox.h"

#include <sched.h>

#include "agent/base/assert.h"

#define MAILBOX_MAGIC 0x4d424f58u
#define MAILBOX_CLOSED 0x80000000u

static void mailbox_on_wake(uv_async_t *async);

bool mailbox_init(struct mailbox *mailbox, uv_loop_t *loop, uint32_t limit)
{
	must(limit >= 1 && limit < MAILBOX_CLOSED);
	*mailbox = (struct mailbox){.limit = limit, .magic = MAILBOX_MAGIC};
	if (uv_async_init(loop, &mailbox->async, mailbox_on_wake) != 0)
		return false;
	mailbox->async.data = mailbox;
	return true;
}

/* Counts one more message if the bound allows it. */
static bool mailbox_admit(struct mailbox *mailbox)
{
	uint32_t waiting = __atomic_load_n(&mailbox->waiting, __ATOMIC_RELAXED);

	do {
		if (waiting >= mailbox->limit)
			return false;
	} while (!__atomic_compare_exchange_n(&mailbox->waiting, &waiting, waiting + 1, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return true;
}

bool mailbox_post(struct mailbox *mailbox, struct mailbox_message *message)
{
	bool posted = false;

	must(mailbox->magic == MAILBOX_MAGIC && message->handle != NULL);
	/* Acquire pairs with the exchange-or of mailbox_close(): who sees the bit leaves the handle alone. */
	if ((__atomic_fetch_add(&mailbox->gate, 1, __ATOMIC_ACQUIRE) & MAILBOX_CLOSED) == 0 &&
	    mailbox_admit(mailbox)) {
		message->next = __atomic_load_n(&mailbox->newest, __ATOMIC_RELAXED);
		/* Release pairs with the acquire of mailbox_take(): the loop sees what the sender wrote. */
		while (!__atomic_compare_exchange_n(&mailbox->newest, &message->next, message, true, __ATOMIC_RELEASE,
						    __ATOMIC_RELAXED))
			;
		must(uv_async_send(&mailbox->async) == 0);
		posted = true;
	}
	/* Release pairs with the acquire load in mailbox_close(): the wake-up is done before the handle closes. */
	__atomic_fetch_sub(&mailbox->gate, 1, __ATOMIC_RELEASE);
	return posted;
}

uint32_t mailbox_waiting(const struct mailbox *mailbox)
{
	return __atomic_load_n(&mailbox->waiting, __ATOMIC_RELAXED);
}

/* Takes everything, oldest first. */
static struct mailbox_message *mailbox_take(struct mailbox *mailbox)
{
	struct mailbox_message *newest = __atomic_exchange_n(&mailbox->newest, NULL, __ATOMIC_ACQUIRE);
	struct mailbox_message *oldest = NULL;

	while (newest != NULL) {
		struct mailbox_message *next = newest->next;

		newest->next = oldest;
		oldest = newest;
		newest = next;
	}
	return oldest;
}

static void mailbox_handle_all(struct mailbox *mailbox)
{
	struct mailbox_message *message = mailbox_take(mailbox);

	while (message != NULL) {
		struct mailbox_message *next = message->next;

		message->next = NULL;
		__atomic_fetch_sub(&mailbox->waiting, 1, __ATOMIC_RELAXED);
		message->handle(message);
		message = next;
	}
}

static void mailbox_on_wake(uv_async_t *async)
{
	struct mailbox *mailbox = async->data;

	must(mailbox->magic == MAILBOX_MAGIC);
	/* A handler may have closed the mailbox in this very turn; closing has handled what was there. */
	mailbox_handle_all(mailbox);
}

static void mailbox_on_closed(uv_handle_t *handle)
{
	struct mailbox *mailbox = handle->data;

	if (mailbox->closed != NULL)
		mailbox->closed(mailbox->closed_context);
}

void mailbox_close(struct mailbox *mailbox, mailbox_closed_fn *closed, void *context)
{
	uint32_t gate = __atomic_fetch_or(&mailbox->gate, MAILBOX_CLOSED, __ATOMIC_ACQ_REL);

	must(mailbox->magic == MAILBOX_MAGIC && (gate & MAILBOX_CLOSED) == 0);
	mailbox->closed = closed;
	mailbox->closed_context = context;
	while ((__atomic_load_n(&mailbox->gate, __ATOMIC_ACQUIRE) & ~MAILBOX_CLOSED) != 0)
		sched_yield();
	mailbox_handle_all(mailbox);
	uv_close((uv_handle_t *)&mailbox->async, mailbox_on_closed);
}
