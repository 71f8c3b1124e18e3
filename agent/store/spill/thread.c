/*
 * The tier's thread: the only one that touches the disk.
 *
 *	gets     served one by one, before anything else and between the slices of whatever takes long
 *	changes  in the order of their submission, as many as there are in one transaction
 *
 * That gets overtake changes is no harm: the loop knows which changes are under way, and what they make of an answer
 * (pending.c). An answer is handed over before any change that the thread does after it.
 *
 * When the loop does not come to take what was read, reading stops at GOT_BYTES_MAX.
 */
#include <stdlib.h>
#include <time.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/store/spill/spill_priv.h"

#define BATCH_BYTES_MAX (8ull << 20)
#define GOT_BYTES_MAX (64u << 20)
#define UPKEEP_MS 1000u

/* ---- taking and handing over -------------------------------------------------------------------------------- */

/* Under lock. */
static bool gets_may_go(const struct spill *spill)
{
	return spill->get_first != NULL && (spill->got_bytes < GOT_BYTES_MAX || spill->stopping);
}

/* Under lock. A discard that is to be done again comes back to the queue by way of the loop. */
static bool may_end(const struct spill *spill)
{
	return spill->stopping && !spill->discard->again;
}

/* Sleeps until there is work or it is `due_ms`. Returns the limit in force. */
static uint64_t wait_for_work(struct spill *spill, uint64_t due_ms)
{
	struct timespec until = {.tv_sec = (time_t)(due_ms / 1000), .tv_nsec = (long)(due_ms % 1000) * 1000000};
	uint64_t limit;
	int error = 0;

	(void)pthread_mutex_lock(&spill->lock);
	while (!gets_may_go(spill) && spill->queue.first == NULL && !may_end(spill) &&
	       spill->limits.bytes == spill->disk.limit_bytes && error == 0 && clock_monotonic_ms() < due_ms)
		error = pthread_cond_timedwait(&spill->wake, &spill->lock, &until);
	limit = spill->limits.bytes;
	(void)pthread_mutex_unlock(&spill->lock);
	return limit;
}

/* Under lock: the loop is to look. True if it must be woken. */
static bool must_wake(struct spill *spill)
{
	bool wake = !spill->posted;

	spill->posted = true;
	return wake;
}

static struct spill_get_op *take_get(struct spill *spill, bool *ret_stopping)
{
	struct spill_get_op *get = NULL;

	(void)pthread_mutex_lock(&spill->lock);
	if (gets_may_go(spill)) {
		get = spill->get_first;
		spill->get_first = get->next;
		if (spill->get_first == NULL)
			spill->get_last = NULL;
		get->next = NULL;
	}
	*ret_stopping = spill->stopping;
	(void)pthread_mutex_unlock(&spill->lock);
	return get;
}

static void hand_over_get(struct spill *spill, struct spill_get_op *get)
{
	bool wake;

	(void)pthread_mutex_lock(&spill->lock);
	if (spill->got_last != NULL)
		spill->got_last->next = get;
	else
		spill->got_first = get;
	spill->got_last = get;
	spill->got_bytes += get->buffer != NULL ? get->entry.length : 0;
	wake = must_wake(spill);
	(void)pthread_mutex_unlock(&spill->lock);
	if (wake)
		must(mailbox_post(&spill->mailbox, &spill->message));
}

static void serve_gets(struct spill *spill)
{
	struct spill_get_op *get;
	bool stopping;

	while ((get = take_get(spill, &stopping)) != NULL) {
		/* When the tier is closed they all were answered. */
		if (!stopping)
			spill_disk_get(&spill->disk, get);
		hand_over_get(spill, get);
	}
}

void spill_op_append(struct spill_op_list *list, struct spill_op *op)
{
	op->next = NULL;
	if (list->last != NULL)
		list->last->next = op;
	else
		list->first = op;
	list->last = op;
}

/* A range alone, or a batch without one. Returns false if nothing waits and nothing will. */
static bool take_batch(struct spill *spill, struct spill_op_list *ret, uint64_t *ret_bytes)
{
	uint64_t limit = spill->disk.limit_bytes, bytes = 0;
	uint64_t bytes_max = limit / 16 < BATCH_BYTES_MAX ? limit / 16 : BATCH_BYTES_MAX;
	uint32_t ops_max = spill_evict_slice(&spill->disk);
	struct spill_op_list batch = {0};
	bool go_on;

	(void)pthread_mutex_lock(&spill->lock);
	for (uint32_t ops = 0; spill->queue.first != NULL && ops < ops_max; ops++) {
		struct spill_op *op = spill->queue.first;
		uint64_t length = op->blob == NULL ? 0 : SPILL_RECORD_HEAD + op->blob->key_len + op->blob->length;

		if (ops > 0 && (op->kind == SPILL_RANGE || bytes + length > bytes_max))
			break;
		spill->queue.first = op->next;
		if (spill->queue.first == NULL)
			spill->queue.last = NULL;
		op->taken = true;
		bytes += length;
		spill_op_append(&batch, op);
		if (op->kind == SPILL_RANGE)
			break;
	}
	go_on = batch.first != NULL || spill->get_first != NULL || !may_end(spill);
	(void)pthread_mutex_unlock(&spill->lock);
	*ret = batch;
	*ret_bytes = bytes;
	return go_on;
}

/* Under lock: a range that is to be done once more waits again. */
static bool goes_again(struct spill *spill, struct spill_op *op)
{
	if (!op->again)
		return false;
	op->again = op->taken = false;
	spill_op_append(&spill->queue, op);
	return true;
}

static void hand_over_batch(struct spill *spill, struct spill_op_list *batch)
{
	bool wake = false;

	(void)pthread_mutex_lock(&spill->lock);
	if (!goes_again(spill, batch->first)) {
		if (spill->finished.last != NULL)
			spill->finished.last->next = batch->first;
		else
			spill->finished.first = batch->first;
		spill->finished.last = batch->last;
		wake = must_wake(spill);
	}
	(void)pthread_mutex_unlock(&spill->lock);
	if (wake)
		must(mailbox_post(&spill->mailbox, &spill->message));
}

/* ---- working ------------------------------------------------------------------------------------------------ */

static bool is_stopping(struct spill *spill)
{
	bool stopping;

	(void)pthread_mutex_lock(&spill->lock);
	stopping = spill->stopping;
	(void)pthread_mutex_unlock(&spill->lock);
	return stopping;
}

static void do_batch(struct spill *spill, struct spill_op_list *batch, uint64_t bytes)
{
	struct spill_disk *disk = &spill->disk;

	/* What is thrown away with the folder need not be written before. */
	if (!disk->keep && is_stopping(spill))
		return;
	if (batch->first->kind == SPILL_RANGE) {
		while (spill_disk_range(disk, batch->first))
			serve_gets(spill);
		return;
	}
	while (bytes > 0 && spill_evict_needed(disk, bytes) && spill_evict_step(disk))
		serve_gets(spill);
	spill_disk_apply(disk, batch->first, bytes > 0 && spill_evict_needed(disk, bytes));
}

void *spill_thread_run(void *context)
{
	struct spill *spill = context;
	struct spill_op_list batch;
	uint64_t bytes, due_ms = clock_monotonic_ms();

	(void)pthread_setname_np(pthread_self(), "riptide-spill");
	for (;;) {
		uint64_t limit = wait_for_work(spill, due_ms);

		serve_gets(spill);
		if (limit != spill->disk.limit_bytes) {
			spill_disk_limit(&spill->disk, limit);
			due_ms = 0;
		}
		if (!take_batch(spill, &batch, &bytes))
			break;
		if (batch.first != NULL) {
			do_batch(spill, &batch, bytes);
			hand_over_batch(spill, &batch);
			/* What was put may be over sooner than all that was there. */
			if (due_ms > clock_monotonic_ms() + UPKEEP_MS)
				due_ms = clock_monotonic_ms() + UPKEEP_MS;
		}
		if (due_ms <= clock_monotonic_ms())
			due_ms = clock_monotonic_ms() + spill_evict_expired(&spill->disk);
	}
	spill_disk_close(&spill->disk);
	must(mailbox_post(&spill->mailbox, &spill->ended));
	return NULL;
}
