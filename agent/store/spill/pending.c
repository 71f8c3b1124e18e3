/*
 * Changes that are under way, and what they mean to whoever asks meanwhile. Loop only.
 *
 * The disk follows in the order of submission, and its view lags. The loop corrects it with two things: a table of the pending
 * puts and removals, newest first for each key, and a list of the pending ranges. For a key, the newest of all that
 * concerns it decides:
 *
 *	nothing pending   the disk knows, if the filter does not exclude it
 *	a put             its own bytes are the answer
 *	removal or range  a miss
 *
 * A change leaves the table only after the disk has done it and the loop was told, and answers of gets are told before
 * changes that were done after them; so an answer that a later removal made void always meets that removal here.
 *
 * A change of a key that still waits is changed in place, unless a range was submitted since: what came before a range must
 * not move behind it. So a key that is written in a loop takes one place in the queue.
 *
 * A removal cannot be refused. When too many wait, or there is no memory for one, everything is discarded instead, with
 * an operation that was made at open for this.
 */
#include <stdlib.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/spill/spill_priv.h"
#include "shm/msg.h"

#define REMOVALS_PER_PUT 4u

static struct log_limit pending_limit = LOG_LIMIT(2, 60000);

void spill_blob_unref(struct spill_blob *blob)
{
	if (blob != NULL && --blob->refs == 0)
		free(blob);
}

bool spill_is_empty(const struct spill *spill)
{
	/* After spill_close() there is nothing in it for anyone. */
	if (spill->stopping)
		return true;
	return spill->ops == 0 && __atomic_load_n(&spill->disk.counts.entries, __ATOMIC_RELAXED) == 0;
}

/* ---- asking ------------------------------------------------------------------------------------------------- */

static struct spill_op *find_newest(const struct spill *spill, const struct keys_embedded *key, uint64_t hash)
{
	struct spill_op *op = spill->buckets[hash % SPILL_BUCKETS];

	while (op != NULL &&
	       (op->hash != hash || op->key_len != key->length || memcmp(op->key, key->bytes, key->length) != 0))
		op = op->chain;
	return op;
}

/* Order of the newest pending range that reaches such a name; 0 = none. */
static uint64_t newest_range(const struct spill *spill, uint32_t tenant, uint64_t generation)
{
	uint64_t order = 0;

	for (const struct spill_op *range = spill->ranges; range != NULL; range = range->chain)
		if ((range->tenant == 0 || (range->tenant == tenant && generation <= range->generation)) &&
		    range->order > order)
			order = range->order;
	return order;
}

enum spill_view spill_pending_view(const struct spill *spill, const struct keys_embedded *key, uint64_t hash,
				   uint32_t tenant, uint64_t generation, struct spill_op **ret_put)
{
	struct spill_op *op = find_newest(spill, key, hash);
	uint64_t range_order = newest_range(spill, tenant, generation);

	if (op == NULL && range_order == 0)
		return spill_filter_excludes(&spill->disk, hash) ? SPILL_VIEW_GONE : SPILL_VIEW_DISK;
	if (op == NULL || op->order < range_order || op->kind == SPILL_REMOVE)
		return SPILL_VIEW_GONE;
	if (ret_put != NULL)
		*ret_put = op;
	return SPILL_VIEW_MEMORY;
}

/* ---- submitting --------------------------------------------------------------------------------------------- */

static void enqueue(struct spill *spill, struct spill_op *op)
{
	spill->ops++;
	(void)pthread_mutex_lock(&spill->lock);
	op->taken = false;
	spill_op_append(&spill->queue, op);
	(void)pthread_cond_signal(&spill->wake);
	(void)pthread_mutex_unlock(&spill->lock);
}

/* What a put or removal brings along. */
struct change {
	enum spill_kind kind;
	bool counted;
	struct spill_blob *blob;
	uint64_t version, expiry_ms, epoch;
	uint32_t source;
};

static void op_set(struct spill_op *op, const struct change *change)
{
	op->kind = change->kind;
	op->counted = change->counted;
	op->blob = change->blob;
	op->version = change->version;
	op->expiry_ms = change->expiry_ms;
	op->epoch = change->epoch;
	op->source = change->source;
	op->submitted_ns = clock_monotonic_ns();
}

/* Changes an operation that still waits. False if there is none that may be changed. */
static bool change_in_place(struct spill *spill, struct spill_op *op, const struct change *change)
{
	struct spill_blob *blob;
	bool waits;

	if (op == NULL || op->order < spill->range_order)
		return false;
	blob = op->blob;
	(void)pthread_mutex_lock(&spill->lock);
	waits = !op->taken;
	if (waits)
		op_set(op, change);
	(void)pthread_mutex_unlock(&spill->lock);
	if (!waits)
		return false;
	op->order = ++spill->order;
	spill->op_bytes += change->blob != NULL ? change->blob->length : 0;
	spill->op_bytes -= blob != NULL ? blob->length : 0;
	spill_blob_unref(blob);
	return true;
}

/* Takes over the blob if it succeeds. */
static bool submit(struct spill *spill, const struct store_name *name, const struct keys_embedded *key, uint64_t hash,
		   const struct change *change)
{
	struct spill_op **bucket = &spill->buckets[hash % SPILL_BUCKETS];
	struct spill_op *op = find_newest(spill, key, hash);

	if (change_in_place(spill, op, change))
		return true;
	op = spill->ops < REMOVALS_PER_PUT * (uint64_t)spill->limits.queue_max ? calloc(1, sizeof *op + key->length)
									       : NULL;
	if (op == NULL)
		return false;
	op_set(op, change);
	op->tenant = name->tenant_number;
	op->generation = name->generation;
	op->space = name->space;
	op->hash = hash;
	op->order = ++spill->order;
	op->key_len = key->length;
	memcpy(op->key, key->bytes, key->length);
	op->chain = *bucket;
	*bucket = op;
	spill->op_bytes += change->blob != NULL ? change->blob->length : 0;
	enqueue(spill, op);
	return true;
}

/* ---- ranges ------------------------------------------------------------------------------------------------- */

static void range_link(struct spill *spill, struct spill_op *range)
{
	range->order = spill->range_order = ++spill->order;
	range->chain = spill->ranges;
	spill->ranges = range;
	spill->range_count++;
	enqueue(spill, range);
}

static void discard(struct spill *spill)
{
	struct spill_op *range = spill->discard;

	if (!spill->discard_pending) {
		spill->discard_pending = true;
		range_link(spill, range);
		return;
	}
	/* It may be too late for this one to reach what was put since. */
	range->order = spill->range_order = ++spill->order;
	(void)pthread_mutex_lock(&spill->lock);
	range->again = true;
	(void)pthread_mutex_unlock(&spill->lock);
}

static void discard_for_lack(struct spill *spill)
{
	spill->discards++;
	log_limited(&pending_limit, LOG_LEVEL_WARN, SPILL_MODULE,
		    "%s: more removals wait than may; everything is discarded", spill->disk.path);
	discard(spill);
}

void spill_remove_all(struct spill *spill)
{
	must(spill->magic == SPILL_MAGIC);
	if (!spill_is_empty(spill))
		discard(spill);
}

void spill_remove_generations(struct spill *spill, uint32_t tenant_number, uint64_t generation_max)
{
	struct spill_op *range;

	must(spill->magic == SPILL_MAGIC && tenant_number != 0);
	if (spill_is_empty(spill))
		return;
	range = spill->range_count < SPILL_RANGES_MAX ? calloc(1, sizeof *range) : NULL;
	if (range == NULL) {
		discard_for_lack(spill);
		return;
	}
	range->kind = SPILL_RANGE;
	range->tenant = tenant_number;
	range->generation = generation_max;
	range_link(spill, range);
}

/* ---- put and remove ----------------------------------------------------------------------------------------- */

static void remove_key(struct spill *spill, const struct store_name *name, const struct keys_embedded *key)
{
	struct change change = {.kind = SPILL_REMOVE};
	uint64_t hash = spill_filter_hash(key->bytes, key->length);
	enum spill_view view = spill_pending_view(spill, key, hash, name->tenant_number, name->generation, NULL);

	if (view == SPILL_VIEW_GONE || spill_is_empty(spill))
		return;
	change.counted = view == SPILL_VIEW_MEMORY;
	spill->removed += change.counted;
	if (!submit(spill, name, key, hash, &change))
		discard_for_lack(spill);
}

void spill_remove(struct spill *spill, const struct store_name *name)
{
	struct keys_embedded key;

	must(spill->magic == SPILL_MAGIC);
	/* A name that cannot be used was never put. */
	if (!spill_is_empty(spill) && keys_embedded(name, &key) == RSHM_OK)
		remove_key(spill, name, &key);
}

static int put_check(const struct spill *spill, const struct store_name *name, size_t length)
{
	uint64_t record = SPILL_RECORD_HEAD + (uint64_t)name->key_len + length;

	if (length > SPILL_ENVELOPE_MAX || record > spill->limits.bytes / 4)
		return RSHM_E_TOOBIG;
	if (spill->closing || spill->ops >= spill->limits.queue_max ||
	    (spill->op_bytes > 0 && spill->op_bytes + length > spill->limits.queue_bytes) ||
	    clock_monotonic_ms() < __atomic_load_n(&spill->disk.counts.failing_until_ms, __ATOMIC_RELAXED))
		return RSHM_E_AGAIN;
	return RSHM_OK;
}

static struct spill_blob *blob_make(const struct store_name *name, const void *envelope, size_t length)
{
	struct spill_blob *blob = malloc(sizeof *blob + name->key_len + length);

	if (blob == NULL)
		return NULL;
	blob->refs = 1;
	blob->key_len = (uint32_t)name->key_len;
	blob->length = (uint32_t)length;
	memcpy(blob->bytes, name->key, name->key_len);
	if (length > 0)
		memcpy(blob->bytes + name->key_len, envelope, length);
	return blob;
}

int spill_put(struct spill *spill, const struct store_name *name, const void *envelope, size_t length,
	      uint64_t version, uint64_t expiry_ms, uint32_t source, uint64_t epoch)
{
	struct change change = {
		.kind = SPILL_PUT,
		.version = version,
		.expiry_ms = expiry_ms,
		.epoch = epoch,
		.source = source,
	};
	struct keys_embedded key;
	int status = keys_embedded(name, &key);

	must(spill->magic == SPILL_MAGIC);
	spill->puts++;
	if (status < 0) {
		spill->refused++;
		return status;
	}
	status = put_check(spill, name, length);
	if (status == RSHM_OK) {
		change.blob = blob_make(name, envelope, length);
		if (change.blob != NULL &&
		    submit(spill, name, &key, spill_filter_hash(key.bytes, key.length), &change))
			return RSHM_OK;
		spill_blob_unref(change.blob);
		status = RSHM_E_NOMEM;
	}
	spill->refused++;
	remove_key(spill, name, &key);
	return status;
}

/* ---- done --------------------------------------------------------------------------------------------------- */

/* Asked for again after the thread was done with it. */
static bool discard_goes_again(struct spill *spill, struct spill_op *op)
{
	if (op != spill->discard || !op->again)
		return false;
	(void)pthread_mutex_lock(&spill->lock);
	op->again = false;
	(void)pthread_mutex_unlock(&spill->lock);
	enqueue(spill, op);
	return true;
}

static void unlink_from(struct spill_op **place, const struct spill_op *op)
{
	while (*place != op) {
		must(*place != NULL);
		place = &(*place)->chain;
	}
	*place = op->chain;
}

void spill_pending_finish(struct spill *spill, struct spill_op *op)
{
	must(spill->ops > 0);
	spill->ops--;
	if (discard_goes_again(spill, op))
		return;
	if (op->kind == SPILL_RANGE) {
		unlink_from(&spill->ranges, op);
		spill->range_count--;
		if (op == spill->discard) {
			spill->discard_pending = false;
			return;
		}
	} else {
		unlink_from(&spill->buckets[op->hash % SPILL_BUCKETS], op);
		spill->op_bytes -= op->blob != NULL ? op->blob->length : 0;
		spill_blob_unref(op->blob);
	}
	free(op);
}
