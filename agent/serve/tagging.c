/*
 * tagging.c - tags of entries: one write makes all entries of a tag missing.
 *
 * A tag has an epoch, which stands in the backend as the version of an entry of its own (space 't', no value). A tagged
 * entry carries in its envelope the epochs that its tags had when it was written; whoever reads it compares them with the
 * present ones, and a different or missing one means that the entry is gone. Invalidating a tag is writing its entry anew.
 * The epochs that the backend told are remembered per tenant: for good where this agent is the only writer, for
 * hot_max_age_ms where others share the backend.
 *
 * Shared memory has a word per slot, and a tagged hot copy begins with the words it was published under; invalidating bumps
 * the word of the tag's slot. What must not happen is a copy with the new word made from an old epoch. So the words are
 * sampled in the very turn of the loop in which all epochs were found to be current (finish_resolving()); an invalidation
 * after that bumps a word that the copy, whenever it is published, does not have.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/cache/tags.h"
#include "agent/serve/serve_priv.h"

_Static_assert(TAGS_MAX <= ENVELOPE_TAGS_MAX, "an envelope has room for the epochs of all tags");

#define ROUNDS_MAX 8u /* of resolving, if tags are invalidated meanwhile */

struct entry_tags {
	struct entry_op *op;
	void (*then)(struct entry_op *op, int status);
	struct tags tags;
	uint64_t epochs[TAGS_MAX];
	uint64_t expected[TAGS_MAX]; /* little-endian, as the backend has them */
	uint32_t stamps[TAGS_MAX];
	uint32_t next, rounds;
	bool create;
	struct store_request request;
	struct envelope_buffer envelope; /* of a new tag */
	unsigned char prefix[TAGS_PREFIX_MAX];
	size_t prefix_len;
	int prefix_status;
	unsigned char *hot_metadata;
};

void tagging_destroy(struct entry_tags **tags)
{
	struct entry_tags *t = *tags;

	*tags = NULL;
	if (!t)
		return;
	envelope_buffer_fini(&t->envelope);
	free(t->hot_metadata);
	free(t);
}

int tagging_begin(struct entry_op *op, const void *metadata, size_t metadata_len)
{
	struct tags tags;
	int status;

	tagging_destroy(&op->tags);
	if (metadata_len == 0)
		return RSHM_OK;
	status = tags_of_metadata(metadata, metadata_len, &tags);
	if (status < 0 || tags.count == 0)
		return status;
	op->tags = calloc(1, sizeof(*op->tags));
	if (!op->tags)
		return RSHM_E_NOMEM;
	op->tags->op = op;
	op->tags->tags = tags;
	return RSHM_OK;
}

/* ---- resolving ---------------------------------------------------------------------------------------------- */

static void resolve_next(struct entry_tags *t);

static void tag_on_answer(struct store_request *request);

static void ask_store(struct entry_tags *t, enum store_op what)
{
	const struct tag *tag = &t->tags.items[t->next];
	struct entry_op *op = t->op;

	t->request = (struct store_request){
		.op = what,
		.name = entry_store_name(op->tenant->tenant),
		.condition = what == STORE_PUT ? STORE_IF_ABSENT : STORE_ALWAYS,
		.envelope = t->envelope.bytes,
		.envelope_len = t->envelope.length,
		.head_bytes = ENVELOPE_HEAD_BYTES,
		.deadline_ms = op->deadline_ms,
		.done = tag_on_answer,
		.context = t,
	};
	t->request.name.space = 't';
	t->request.name.key = tag->bytes;
	t->request.name.key_len = tag->length;
	store_submit(&op->tenant->space.base, &t->request);
}

/* The entry of a tag: nothing but its version. */
static int encode_tag(struct worker *worker, const struct tag *tag, struct envelope_buffer *ret,
		      uint64_t *ret_version)
{
	struct envelope_input input = {
		.key = tag->bytes,
		.key_len = tag->length,
		.created_ms = clock_realtime_ms(),
		.version = hlc_next(worker->env->hlc),
		.writer_id = worker->env->writer_id,
	};

	envelope_buffer_fini(ret);
	*ret_version = input.version;
	return envelope_encode(&input, NULL, ret);
}

static void create_tag(struct entry_tags *t)
{
	int status = encode_tag(t->op->worker, &t->tags.items[t->next], &t->envelope, &t->epochs[t->next]);

	if (status < 0)
		t->then(t->op, status);
	else
		ask_store(t, STORE_PUT);
}

static void found_epoch(struct entry_tags *t, uint64_t epoch)
{
	struct tag_epochs *known = t->op->tenant->tag_epochs;

	t->epochs[t->next] = epoch;
	/* A refused one was invalidated meanwhile: finish_resolving() sees that by its stamp. */
	(void)tag_epochs_put(known, &t->tags.items[t->next], epoch, t->stamps[t->next], clock_monotonic_ms());
	t->next++;
	resolve_next(t);
}

static void tag_on_answer(struct store_request *request)
{
	struct entry_tags *t = request->context;
	struct envelope_head head;
	int status = request->status;

	if (request->op == STORE_PUT && (status == RSHM_OK || status == RSHM_CONFLICT)) {
		found_epoch(t, status == RSHM_OK ? t->epochs[t->next] : request->found_version);
		return;
	}
	if (request->op == STORE_HEAD && status == RSHM_OK)
		status = envelope_peek_head(request->result, request->result_len, &head);
	if (status == RSHM_OK) {
		found_epoch(t, head.version);
	} else if (status == RSHM_MISS && t->create) {
		create_tag(t);
	} else if (status == RSHM_MISS) {
		/* Unknown to the backend: whatever was written under it is gone. */
		t->prefix_status = RSHM_MISS;
		t->then(t->op, RSHM_OK);
	} else {
		/* The write itself has not begun. */
		t->then(t->op, status == RSHM_E_UNKNOWN ? RSHM_E_AGAIN : status);
	}
}

/* All epochs are known; were they all still in force at this moment? */
static void finish_resolving(struct entry_tags *t)
{
	struct entry_op *op = t->op;
	const struct tag_epochs *known = op->tenant->tag_epochs;

	for (uint32_t i = 0; i < t->tags.count; i++) {
		if (tag_epochs_stamp(known, &t->tags.items[i]) == t->stamps[i])
			continue;
		t->next = 0;
		if (++t->rounds < ROUNDS_MAX)
			resolve_next(t);
		else
			t->then(op, RSHM_E_AGAIN);
		return;
	}
	t->prefix_status = RSHM_E_TOOBIG;
	if (hot_tag_words(op->tenant->hot))
		t->prefix_status =
			tags_hot_prefix(&t->tags, hot_tag_words(op->tenant->hot), t->prefix, &t->prefix_len);
	t->then(op, RSHM_OK);
}

static void resolve_next(struct entry_tags *t)
{
	struct entry_op *op = t->op;
	struct tag_epoch known;

	while (t->next < t->tags.count) {
		const struct tag *tag = &t->tags.items[t->next];

		t->stamps[t->next] = tag_epochs_stamp(op->tenant->tag_epochs, tag);
		if (tag_epochs_get(op->tenant->tag_epochs, tag, clock_monotonic_ms(), op->worker->max_age_ms,
				   &known)) {
			t->epochs[t->next++] = known.epoch;
			continue;
		}
		ask_store(t, STORE_HEAD);
		return;
	}
	finish_resolving(t);
}

void tagging_resolve(struct entry_op *op, bool create, void (*then)(struct entry_op *op, int status))
{
	struct entry_tags *t = op->tags;

	t->then = then;
	t->create = create;
	t->next = t->rounds = 0;
	resolve_next(t);
}

/* ---- what follows from them --------------------------------------------------------------------------------- */

bool tagging_matches(const struct entry_tags *tags, const struct envelope_view *view)
{
	if (tags->prefix_status == RSHM_MISS || view->head.tag_count != tags->tags.count)
		return false;
	for (uint32_t i = 0; i < tags->tags.count; i++)
		if (envelope_tag_epoch(view, i) != tags->epochs[i])
			return false;
	return true;
}

int tagging_expect(struct entry_tags *tags, const void *bytes, size_t length)
{
	struct envelope_head head;

	if (envelope_peek_head(bytes, length, &head) < 0 || head.tag_count != tags->tags.count ||
	    length < ENVELOPE_HEAD_BYTES + head.tag_count * sizeof(uint64_t))
		return RSHM_E_CORRUPT;
	memcpy(tags->expected, (const unsigned char *)bytes + ENVELOPE_HEAD_BYTES, head.tag_count * sizeof(uint64_t));
	return RSHM_OK;
}

bool tagging_matches_expected(const struct entry_tags *tags)
{
	if (tags->prefix_status == RSHM_MISS)
		return false;
	for (uint32_t i = 0; i < tags->tags.count; i++)
		if (le64toh(tags->expected[i]) != tags->epochs[i])
			return false;
	return true;
}

int tagging_words(const struct serve_tenant *tenant, const void *metadata, size_t metadata_len,
		  uint64_t ret[ENVELOPE_TAGS_MAX])
{
	const uint32_t *words = hot_tag_words(tenant->hot);
	struct tags tags;

	if (!words || tags_of_metadata(metadata, metadata_len, &tags) < 0)
		return RSHM_E_INVALID;
	for (uint32_t i = 0; i < tags.count; i++)
		ret[i] = words[tags_slot(&tags.items[i])];
	return (int)tags.count;
}

bool tagging_words_hold(const struct serve_tenant *tenant, const struct envelope_view *view)
{
	uint64_t words[ENVELOPE_TAGS_MAX];
	int count;

	if (view->head.tag_count == 0)
		return true;
	count = tagging_words(tenant, view->metadata, view->head.metadata_len, words);
	if (count != view->head.tag_count)
		return false;
	for (int i = 0; i < count; i++)
		if (envelope_tag_epoch(view, (size_t)i) != words[i])
			return false;
	return true;
}

void tagging_fill(const struct entry_tags *tags, struct envelope_input *input)
{
	if (!tags)
		return;
	input->tag_epochs = tags->epochs;
	input->tag_count = (uint16_t)tags->tags.count;
}

int tagging_hot_metadata(struct entry_tags *tags, const void *metadata, size_t metadata_len, const void **ret,
			 size_t *ret_len)
{
	size_t total = tags->prefix_len + metadata_len;

	if (tags->prefix_status < 0 || total > RSHM_METADATA_MAX)
		return RSHM_E_TOOBIG;
	free(tags->hot_metadata);
	tags->hot_metadata = malloc(total);
	if (!tags->hot_metadata)
		return RSHM_E_NOMEM;
	memcpy(tags->hot_metadata, tags->prefix, tags->prefix_len);
	memcpy(tags->hot_metadata + tags->prefix_len, metadata, metadata_len);
	*ret = tags->hot_metadata;
	*ret_len = total;
	return RSHM_OK;
}

/* The pairs that a hot entry begins with; false if it is none of ours. The segment may be a dead agent's. */
static bool read_head(const struct rshm_item *item, struct rshm_tag_head *ret)
{
	if (item->metadata_len < sizeof(*ret))
		return false;
	memcpy(ret, item->metadata, sizeof(*ret));
	return ret->count <= RSHM_TAGS_HOT_MAX &&
	       item->metadata_len >= sizeof(*ret) + ret->count * sizeof(struct rshm_tag_pair);
}

uint32_t tagging_prefix(const struct rshm_item *item)
{
	struct rshm_tag_head head;

	if (!(rshm_control_flags(item->control_a) & RSHM_FLAG_TAGGED))
		return 0;
	must(read_head(item, &head)); /* tagging_holds() has looked */
	return (uint32_t)(sizeof(head) + head.count * sizeof(struct rshm_tag_pair));
}

bool tagging_holds(const struct serve_tenant *tenant, const struct rshm_item *item)
{
	const uint32_t *words = hot_tag_words(tenant->hot);
	struct rshm_tag_head head;

	if (!(rshm_control_flags(item->control_a) & RSHM_FLAG_TAGGED))
		return true;
	if (!read_head(item, &head))
		return false;
	for (uint32_t i = 0; i < head.count; i++) {
		struct rshm_tag_pair pair;

		memcpy(&pair, (const unsigned char *)item->metadata + sizeof(head) + i * sizeof(pair), sizeof(pair));
		if (pair.slot >= RSHM_TAG_WORDS || words[pair.slot] != pair.epoch)
			return false;
	}
	return true;
}

/* ---- invalidate --------------------------------------------------------------------------------------------- */

static void invalidate_on_stored(struct store_request *request)
{
	struct entry_op *op = request->context;
	struct tag tag = {.bytes = op->key, .length = op->key_len};

	/* Whether it happened or not: forgetting costs a question, and bumping some misses. */
	tag_epochs_forget(op->tenant->tag_epochs, &tag);
	hot_bump_tag(op->tenant->hot, tags_slot(&tag));
	/* What is being loaded may be from before, and would get the new epoch. */
	if (request->status >= 0 || request->status == RSHM_E_UNKNOWN)
		loading_forget(op->worker->loading, op->tenant);
	entry_complete(op, request->status, false);
}

void entry_invalidate_tag(struct entry_op *op)
{
	struct tag tag = {.bytes = op->key, .length = op->key_len};
	int status = encode_tag(op->worker, &tag, &op->envelope, &op->version);

	if (status < 0) {
		entry_complete(op, status, false);
		return;
	}
	op->store = (struct store_request){
		.op = STORE_PUT,
		.name = entry_store_name(op->tenant->tenant),
		.envelope = op->envelope.bytes,
		.envelope_len = op->envelope.length,
		.deadline_ms = op->deadline_ms,
		.done = invalidate_on_stored,
		.context = op,
	};
	op->store.name.space = 't';
	op->store.name.key = op->key;
	op->store.name.key_len = op->key_len;
	store_submit(&op->tenant->space.base, &op->store);
}
