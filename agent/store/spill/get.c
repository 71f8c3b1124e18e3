/*
 * Gets. Loop only, but for the part of the operation that the thread fills.
 *
 * The operation is separate from the caller's request: when the deadline passes, or the tier is closed, the request is answered
 * and the operation left behind, which the thread may still be reading for on a disk that hangs. So a deadline holds
 * whatever the disk does.
 */
#include <stdlib.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/store/spill/spill_priv.h"
#include "shm/msg.h"

/* ---- answering ---------------------------------------------------------------------------------------------- */

static void answer(struct spill *spill, struct spill_request *request, int status, uint64_t submitted_ns)
{
	request->status = status;
	if (status == RSHM_OK) {
		spill->restored++;
		spill->restore_ns += clock_monotonic_ns() - submitted_ns;
	}
	request->done(request);
}

/* From the memory of a put that is under way. It may end while it is lent. */
static void answer_from_put(struct spill *spill, struct spill_request *request, const struct spill_op *put,
			    uint64_t submitted_ns)
{
	struct spill_blob *blob = put->blob;

	if (spill_expired(put->expiry_ms, clock_realtime_ms())) {
		answer(spill, request, RSHM_MISS, submitted_ns);
		return;
	}
	blob->refs++;
	request->result = blob->bytes + blob->key_len;
	request->result_len = blob->length;
	request->version = put->version;
	request->expiry_ms = put->expiry_ms;
	request->source = put->source;
	request->epoch = put->epoch;
	answer(spill, request, RSHM_OK, submitted_ns);
	spill_blob_unref(blob);
}

static void answer_from_disk(struct spill *spill, struct spill_request *request, const struct spill_get_op *get)
{
	if (get->status != RSHM_OK || spill_expired(get->entry.expiry_ms, clock_realtime_ms())) {
		answer(spill, request, RSHM_MISS, get->submitted_ns);
		return;
	}
	request->result = get->envelope;
	request->result_len = get->envelope_len;
	request->version = get->entry.version;
	request->expiry_ms = get->entry.expiry_ms;
	request->source = get->entry.source;
	request->epoch = get->entry.epoch;
	request->kept = get->kept;
	answer(spill, request, RSHM_OK, get->submitted_ns);
}

/* ---- deadlines ---------------------------------------------------------------------------------------------- */

static void timer_start(struct spill *spill)
{
	uint64_t now_ms = clock_monotonic_ms(), due_ms = UINT64_MAX;

	for (const struct spill_get_op *get = spill->gets_first; get != NULL; get = get->later)
		due_ms = get->deadline_ms < due_ms ? get->deadline_ms : due_ms;
	if (due_ms != UINT64_MAX) {
		spill->timer_due_ms = due_ms;
		(void)uv_timer_start(&spill->timer, spill_get_on_timer, due_ms > now_ms ? due_ms - now_ms + 1 : 1, 0);
	}
}

/* Parts the request from its operation. */
static struct spill_request *detach(struct spill *spill, struct spill_get_op *get)
{
	struct spill_request *request = get->request;

	*(get->earlier != NULL ? &get->earlier->later : &spill->gets_first) = get->later;
	*(get->later != NULL ? &get->later->earlier : &spill->gets_last) = get->earlier;
	get->request = NULL;
	request->get = NULL;
	return request;
}

void spill_get_on_timer(uv_timer_t *timer)
{
	struct spill *spill = timer->data;
	struct spill_get_op *get = spill->gets_first;
	uint64_t now_ms = clock_monotonic_ms();

	/* What is asked for inside `done` comes to the end of the list; what is answered inside it leaves it. */
	while (get != NULL) {
		if (get->deadline_ms > now_ms) {
			get = get->later;
			continue;
		}
		spill->late++;
		answer(spill, detach(spill, get), RSHM_MISS, get->submitted_ns);
		get = spill->gets_first;
	}
	timer_start(spill);
}

void spill_get_answer_all(struct spill *spill)
{
	while (spill->gets_first != NULL) {
		uint64_t submitted_ns = spill->gets_first->submitted_ns;

		answer(spill, detach(spill, spill->gets_first), RSHM_MISS, submitted_ns);
	}
}

/* ---- asking the disk ---------------------------------------------------------------------------------------- */

static void enqueue(struct spill *spill, struct spill_get_op *get)
{
	get->earlier = spill->gets_last;
	*(spill->gets_last != NULL ? &spill->gets_last->later : &spill->gets_first) = get;
	spill->gets_last = get;
	spill->gets++;
	if (!uv_is_active((const uv_handle_t *)&spill->timer) || get->deadline_ms < spill->timer_due_ms)
		timer_start(spill);
	(void)pthread_mutex_lock(&spill->lock);
	*(spill->get_last != NULL ? &spill->get_last->next : &spill->get_first) = get;
	spill->get_last = get;
	(void)pthread_cond_signal(&spill->wake);
	(void)pthread_mutex_unlock(&spill->lock);
}

/* False: it is a miss. */
static bool ask_disk(struct spill *spill, struct spill_request *request, const struct keys_embedded *key,
		     uint64_t hash, uint64_t now_ns)
{
	const struct store_name *name = &request->name;
	struct spill_get_op *get;

	if (spill_is_empty(spill) || spill->closing || spill->gets >= spill->limits.gets_max)
		return false;
	if (request->deadline_ms <= clock_monotonic_ms()) {
		spill->late++;
		return false;
	}
	get = malloc(sizeof *get + name->key_len);
	if (get == NULL)
		return false;
	*get = (struct spill_get_op){
		.request = request,
		.hash = hash,
		.deadline_ms = request->deadline_ms,
		.submitted_ns = now_ns,
		.tenant = name->tenant_number,
		.generation = name->generation,
		.space = name->space,
		.status = RSHM_MISS,
		.name_len = name->key_len,
		.key = *key,
	};
	memcpy(get->name, name->key, name->key_len);
	request->get = get;
	enqueue(spill, get);
	return true;
}

void spill_get(struct spill *spill, struct spill_request *request)
{
	uint64_t now_ns = clock_monotonic_ns(), hash;
	struct keys_embedded key;
	struct spill_op *put;

	must(spill->magic == SPILL_MAGIC);
	spill->get_calls++;
	request->result = NULL;
	request->result_len = 0;
	request->version = request->expiry_ms = request->epoch = 0;
	request->source = 0;
	request->kept = false;
	request->get = NULL;
	if (keys_embedded(&request->name, &key) == RSHM_OK) {
		hash = spill_filter_hash(key.bytes, key.length);
		switch (spill_pending_view(spill, &key, hash, request->name.tenant_number, request->name.generation,
					   &put)) {
		case SPILL_VIEW_MEMORY:
			answer_from_put(spill, request, put, now_ns);
			return;
		case SPILL_VIEW_DISK:
			if (ask_disk(spill, request, &key, hash, now_ns))
				return;
			break;
		case SPILL_VIEW_GONE:
		default:
			break;
		}
	}
	answer(spill, request, RSHM_MISS, now_ns);
}

void spill_get_finish(struct spill *spill, struct spill_get_op *get)
{
	struct spill_op *put;

	must(spill->gets > 0);
	spill->gets--;
	if (get->request != NULL) {
		struct spill_request *request = detach(spill, get);

		switch (spill_pending_view(spill, &get->key, get->hash, get->tenant, get->generation, &put)) {
		case SPILL_VIEW_MEMORY:
			answer_from_put(spill, request, put, get->submitted_ns);
			break;
		case SPILL_VIEW_DISK:
			answer_from_disk(spill, request, get);
			break;
		case SPILL_VIEW_GONE:
		default:
			answer(spill, request, RSHM_MISS, get->submitted_ns);
			break;
		}
	}
	free(get->buffer);
	free(get);
}
