/*
 * The tier as its worker sees it. Start with pending.c for what the loop knows, then thread.c and disk.c for the disk's side.
 *
 *	put, remove, range -> queue ----> thread -> finished -> mailbox -> table forgets
 *	get  -> answered from the table, or
 *	     -> get queue -> thread ----> got -------------> mailbox -> done, if the table has nothing newer
 *
 * The lock is held for a few instructions at a time on either side, never while the disk works.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/store/spill/spill_priv.h"
#include "shm/msg.h"

#define SPILL_SEGMENT_MIN (1u << 20)
#define SPILL_SEGMENT_MAX (1u << 30)

static void on_finished(struct mailbox_message *message);
static void on_ended(struct mailbox_message *message);

/* ---- opening ------------------------------------------------------------------------------------------------ */

static const char *limits_fault(const struct spill_limits *limits)
{
	if (limits->bytes < SPILL_BYTES_MIN)
		return "the limit is below 8 MiB";
	if (limits->bytes > SIZE_MAX / 8)
		return "the limit is beyond the address space of this machine";
	if (limits->queue_bytes == 0 || limits->queue_max == 0 || limits->gets_max == 0)
		return "a bound of a queue is 0";
	return NULL;
}

static int config_check(const struct spill_config *config, struct text *error)
{
	const char *fault = limits_fault(&config->limits);

	if (config->path == NULL || config->path[0] == '\0')
		fault = "the path is empty";
	else if (config->segment_bytes < SPILL_SEGMENT_MIN || config->segment_bytes > SPILL_SEGMENT_MAX)
		fault = "segment_bytes is not between 1 MiB and 1 GiB";
	if (fault == NULL)
		return RSHM_OK;
	text_append_format(error, "spill%s%s: %s", config->path == NULL ? "" : " ",
			   config->path == NULL ? "" : config->path, fault);
	return RSHM_E_INVALID;
}

/* The agent's signals are for its control loop. */
static int thread_start(struct spill *spill)
{
	pthread_condattr_t attributes;
	sigset_t all, old;
	int failed;

	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	must(pthread_mutex_init(&spill->lock, NULL) == 0 && pthread_cond_init(&spill->wake, &attributes) == 0);
	(void)pthread_condattr_destroy(&attributes);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	failed = pthread_create(&spill->thread, NULL, spill_thread_run, spill);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (failed != 0) {
		(void)pthread_cond_destroy(&spill->wake);
		(void)pthread_mutex_destroy(&spill->lock);
	}
	return failed;
}

static void spill_free(struct spill *spill)
{
	if (spill == NULL)
		return;
	free(spill->disk.path);
	free(spill->disk.filter);
	free(spill->discard);
	free(spill);
}

static void on_failed_open_closed(void *context)
{
	spill_free(context);
}

int spill_open(const struct spill_config *config, uv_loop_t *loop, struct spill **ret, struct text *error)
{
	struct spill *spill;
	int failed, status = config_check(config, error);

	if (status != RSHM_OK)
		return status;
	spill = calloc(1, sizeof *spill);
	if (spill != NULL)
		spill->discard = calloc(1, sizeof *spill->discard);
	if (spill == NULL || spill->discard == NULL) {
		text_append_string(error, "spill: no memory");
		spill_free(spill);
		return RSHM_E_NOMEM;
	}
	spill->magic = SPILL_MAGIC;
	spill->limits = config->limits;
	spill->discard->kind = SPILL_RANGE;
	spill->message.handle = on_finished;
	spill->ended.handle = on_ended;
	status = spill_disk_open(&spill->disk, config, error);
	if (status != RSHM_OK) {
		spill_disk_close(&spill->disk);
		spill_free(spill);
		return status;
	}
	if (!mailbox_init(&spill->mailbox, loop, 2)) {
		text_append_format(error, "spill %s: the loop has no descriptor left", config->path);
		spill_disk_close(&spill->disk);
		spill_free(spill);
		return RSHM_E_SYSTEM;
	}
	failed = thread_start(spill);
	if (failed != 0) {
		text_append_format(error, "spill %s: cannot start its thread: %s", config->path, strerror(failed));
		spill_disk_close(&spill->disk);
		mailbox_close(&spill->mailbox, on_failed_open_closed, spill);
		return RSHM_E_SYSTEM;
	}
	must(uv_timer_init(loop, &spill->timer) == 0);
	spill->timer.data = spill;
	*ret = spill;
	return RSHM_OK;
}

/* ---- what the thread has done ------------------------------------------------------------------------------- */

static struct spill *spill_of_message(struct mailbox_message *message)
{
	return (struct spill *)(void *)((char *)message - offsetof(struct spill, message));
}

static void on_finished(struct mailbox_message *message)
{
	struct spill *spill = spill_of_message(message);
	struct spill_get_op *get;
	struct spill_op *op;

	(void)pthread_mutex_lock(&spill->lock);
	get = spill->got_first;
	op = spill->finished.first;
	spill->got_first = spill->got_last = NULL;
	spill->finished = (struct spill_op_list){0};
	spill->got_bytes = 0;
	spill->posted = false;
	(void)pthread_cond_signal(&spill->wake);
	(void)pthread_mutex_unlock(&spill->lock);
	/* Gets first: a change that was done after one of them must still be known. */
	while (get != NULL) {
		struct spill_get_op *next = get->next;

		spill_get_finish(spill, get);
		get = next;
	}
	while (op != NULL) {
		struct spill_op *next = op->next;

		spill_pending_finish(spill, op);
		op = next;
	}
}

/* ---- figures and limits ------------------------------------------------------------------------------------- */

static uint64_t count_of(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static double average_ms(uint64_t total_ns, uint64_t count)
{
	return count == 0 ? 0 : (double)total_ns / (double)count / 1e6;
}

void spill_figures(struct spill *spill, struct spill_figures *ret)
{
	const struct spill_counts *counts = &spill->disk.counts;
	uint64_t spilled = count_of(&counts->spilled);

	must(spill->magic == SPILL_MAGIC);
	*ret = (struct spill_figures){
		.total_spilled = spilled,
		.total_restored = spill->restored,
		.spill_operations = spill->puts,
		.restore_operations = spill->get_calls,
		.avg_spill_time_ms = average_ms(count_of(&counts->spill_ns), spilled),
		.avg_restore_time_ms = average_ms(spill->restore_ns, spill->restored),
		.bytes_used = count_of(&counts->bytes_used),
		.bytes_limit = spill->limits.bytes,
		.entries = count_of(&counts->entries),
		.waiting = spill->ops + spill->gets,
		.waiting_bytes = spill->op_bytes,
		.unchanged = count_of(&counts->unchanged),
		.copied = count_of(&counts->copied),
		.evicted = count_of(&counts->evicted),
		.expired = count_of(&counts->expired),
		.refused = spill->refused + count_of(&counts->refused),
		.corrupt = count_of(&counts->corrupt),
		.removed = spill->removed + count_of(&counts->removed),
		.late = spill->late,
		.disk_errors = count_of(&counts->disk_errors),
		.discards = spill->discards + count_of(&counts->discards),
	};
}

int spill_reload(struct spill *spill, const struct spill_limits *limits)
{
	must(spill->magic == SPILL_MAGIC);
	if (limits_fault(limits) != NULL)
		return RSHM_E_INVALID;
	(void)pthread_mutex_lock(&spill->lock);
	spill->limits = *limits;
	(void)pthread_cond_signal(&spill->wake);
	(void)pthread_mutex_unlock(&spill->lock);
	return RSHM_OK;
}

/* ---- closing ------------------------------------------------------------------------------------------------ */

void spill_close(struct spill *spill, void (*closed)(void *context), void *context)
{
	must(spill->magic == SPILL_MAGIC && !spill->closing);
	spill->closing = true;
	spill->closed = closed;
	spill->closed_context = context;
	spill_get_answer_all(spill);
	(void)uv_timer_stop(&spill->timer);
	(void)pthread_mutex_lock(&spill->lock);
	spill->stopping = true;
	(void)pthread_cond_signal(&spill->wake);
	(void)pthread_mutex_unlock(&spill->lock);
}

static void end(struct spill *spill)
{
	void (*closed)(void *context) = spill->closed;
	void *context = spill->closed_context;

	if (--spill->handles > 0)
		return;
	must(spill->ops == 0 && spill->gets == 0);
	(void)pthread_cond_destroy(&spill->wake);
	(void)pthread_mutex_destroy(&spill->lock);
	spill->magic = 0;
	spill_free(spill);
	closed(context);
}

static void on_mailbox_closed(void *context)
{
	end(context);
}

static void on_timer_closed(uv_handle_t *handle)
{
	end(handle->data);
}

/* The thread has posted its last message. */
static void on_ended(struct mailbox_message *message)
{
	struct spill *spill = (struct spill *)(void *)((char *)message - offsetof(struct spill, ended));

	must(pthread_join(spill->thread, NULL) == 0);
	spill->handles = 2;
	mailbox_close(&spill->mailbox, on_mailbox_closed, spill);
	uv_close((uv_handle_t *)&spill->timer, on_timer_closed);
}
