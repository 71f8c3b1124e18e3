/*
 * mailbox.h - messages from any thread to one libuv loop.
 *
 * A message is memory of its sender that carries a handler; the loop calls it once, on its own thread. Messages of one
 * sender are handled in the order of their posting. The mailbox is bounded: a full one refuses, it never waits.
 */
#ifndef BASE_MAILBOX_H
#define BASE_MAILBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct mailbox_message;
/* Loop thread. The message is the handler's from here on: it may free, keep or post it again. */
typedef void mailbox_handle_fn(struct mailbox_message *message);
typedef void mailbox_closed_fn(void *context);

/* To be embedded in the sender's own struct; the handler gets back to it by its offset. */
struct mailbox_message {
	struct mailbox_message *next; /* the mailbox's while posted */
	mailbox_handle_fn *handle;
};

struct mailbox {
	/* set once */
	uv_async_t async;
	uint32_t limit;
	uint32_t magic;
	/* any thread, atomic */
	struct mailbox_message *newest;
	uint32_t waiting; /* messages posted and not yet handled */
	uint32_t gate;    /* senders inside mailbox_post(), and the closed bit */
	/* loop only */
	mailbox_closed_fn *closed;
	void *closed_context;
};

/*
 * Loop thread. At most `limit` (>= 1) messages wait at a time. False if the loop cannot give a wake-up (no descriptors
 * left); nothing is to be undone then. An open mailbox keeps uv_run() from returning.
 */
bool mailbox_init(struct mailbox *mailbox, uv_loop_t *loop, uint32_t limit);

/*
 * Any thread, lock-free. True: the message is the mailbox's until its handler runs. False: full or closed, the message
 * stays the caller's. Whoever may still post keeps the mailbox's memory alive, also after it was closed.
 */
bool mailbox_post(struct mailbox *mailbox, struct mailbox_message *message);

/* Any thread: messages that wait now. */
uint32_t mailbox_waiting(const struct mailbox *mailbox);

/*
 * Loop thread, once. Refuses further messages, handles those that wait before it returns, and calls `closed` (may be
 * NULL) from a later turn of the loop; then the memory may go, if no sender is left.
 */
void mailbox_close(struct mailbox *mailbox, mailbox_closed_fn *closed, void *context);

#endif
