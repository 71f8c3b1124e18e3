/*
 * mini_agent_ops.c - what the small agent does with a request: a store that is a list, and every operation on it.
 *
 * It knows one load at a time. Whoever asks for that key, or wants to load another one, waits until it has ended. Invalidating a
 * tag leaves the copies in shared memory, as the real agent does: that readers do not take them is what tests look at.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/order.h"
#include "shm/tlv.h"
#include "tests/support/mini_agent_priv.h"

/* ---- the store ---------------------------------------------------------------------------------------------- */

static struct stored **find(const void *key, size_t key_len)
{
	struct stored **link = &mini.stored;

	while (*link && ((*link)->key_len != key_len || memcmp((*link)->bytes, key, key_len) != 0))
		link = &(*link)->next;
	return link;
}

static int store_delete(const void *key, size_t key_len)
{
	struct stored **link = find(key, key_len), *gone = *link;

	rshm_writer_remove(&mini.writer, key, key_len);
	if (!gone)
		return RSHM_MISS;
	*link = gone->next;
	free(gone->bytes);
	free(gone);
	return RSHM_OK;
}

/* Calls `each` for every field of metadata that the library has encoded. */
static void walk_metadata(const struct stored *entry,
			  void (*each)(int kind, const unsigned char *value, size_t length, void *context),
			  void *context)
{
	const unsigned char *at = entry->bytes + entry->key_len, *end = at + entry->metadata_len;

	while (end - at >= 5) {
		size_t name = at[1] | (size_t)at[2] << 8, value = at[3] | (size_t)at[4] << 8;

		each(at[0], at + 5 + name, value, context);
		at += 5 + name + value;
	}
}

static uint32_t slot_of(const unsigned char *tag, size_t length)
{
	uint32_t sum = 7;

	for (size_t i = 0; i < length; i++)
		sum = sum * 31 + tag[i];
	return sum % RSHM_TAG_WORDS;
}

static uint32_t *tag_word(uint32_t slot)
{
	return (uint32_t *)(void *)((unsigned char *)mini.segment_map.base + mini.writer.segment->tag_offset) + slot;
}

struct hot_metadata {
	uint32_t flags;
	uint64_t soft_ms;
	struct rshm_tag_head head;
	struct rshm_tag_pair pairs[RSHM_TAGS_HOT_MAX];
	const unsigned char *wanted; /* a tag that is looked for */
	size_t wanted_len;
	int found;
};

static void note_field(int kind, const unsigned char *value, size_t length, void *context)
{
	struct hot_metadata *hot = context;

	if (kind == 6) {
		memcpy(&hot->soft_ms, value, 8);
		hot->flags |= RSHM_FLAG_SOFT;
	}
	if (kind != 4)
		return;
	hot->found |= length == hot->wanted_len && memcmp(value, hot->wanted, length) == 0;
	mini_need(hot->head.count < RSHM_TAGS_HOT_MAX, "too many tags");
	hot->pairs[hot->head.count].slot = slot_of(value, length);
	hot->pairs[hot->head.count++].epoch = *tag_word(slot_of(value, length));
	hot->flags |= RSHM_FLAG_TAGGED;
}

static void publish(const struct stored *entry)
{
	struct hot_metadata hot = {.flags = 0};
	unsigned char *metadata = malloc(sizeof(hot) + entry->metadata_len);
	size_t prefix;

	mini_need(metadata != NULL, "malloc");
	walk_metadata(entry, note_field, &hot);
	prefix = hot.head.count ? sizeof(hot.head) + hot.head.count * sizeof(hot.pairs[0]) : 0;
	memcpy(metadata, &hot.head, prefix);
	memcpy(metadata + prefix, entry->bytes + entry->key_len, entry->metadata_len);
	(void)rshm_writer_put(&mini.writer,
			      &(struct rshm_item){
				      .key = entry->bytes,
				      .metadata = metadata,
				      .value = entry->bytes + entry->key_len + entry->metadata_len,
				      .key_len = (uint16_t)entry->key_len,
				      .metadata_len = (uint16_t)(prefix + entry->metadata_len),
				      .value_len = (uint32_t)entry->value_len,
				      .version = entry->version,
				      .control_a = rshm_control_a(hot.flags, 0, mini.agent->sources[0].epoch),
				      .control_b = RSHM_NEVER,
			      });
	free(metadata);
}

static uint64_t wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static uint64_t store_set(const unsigned char *bytes, size_t key_len, size_t metadata_len, size_t value_len,
			  uint64_t ttl_ms)
{
	struct stored *entry = calloc(1, sizeof(*entry));
	size_t length = key_len + metadata_len + value_len;

	mini_need(entry != NULL, "calloc");
	(void)store_delete(bytes, key_len);
	entry->version = wall_ms() << 16 | (++mini.version & 0xffff);
	entry->key_len = key_len;
	entry->metadata_len = metadata_len;
	entry->value_len = value_len;
	entry->ttl_ms = ttl_ms ? ttl_ms : RSHM_NEVER;
	entry->bytes = malloc(length);
	mini_need(entry->bytes != NULL, "malloc");
	memcpy(entry->bytes, bytes, length);
	entry->next = mini.stored;
	mini.stored = entry;
	if (!mini.knobs->cold)
		publish(entry);
	return entry->version;
}

/* Removes what begins with `prefix`, or (as_tag) has that tag; the latter stays in shared memory, as with the real agent. */
static uint64_t store_sweep(const unsigned char *prefix, size_t length, int as_tag)
{
	struct stored **link = &mini.stored;
	uint64_t removed = 0;

	while (*link) {
		struct stored *entry = *link;
		struct hot_metadata hot = {.wanted = prefix, .wanted_len = length};
		int goes = entry->key_len >= length && memcmp(entry->bytes, prefix, length) == 0;

		if (as_tag) {
			walk_metadata(entry, note_field, &hot);
			goes = hot.found;
		}
		if (!goes) {
			link = &entry->next;
			continue;
		}
		if (!as_tag)
			rshm_writer_remove(&mini.writer, entry->bytes, entry->key_len);
		*link = entry->next;
		free(entry->bytes);
		free(entry);
		removed++;
	}
	if (as_tag)
		rshm_store_release32(tag_word(slot_of(prefix, length)), *tag_word(slot_of(prefix, length)) + 1);
	return removed;
}

/* ---- requests ----------------------------------------------------------------------------------------------- */

static void answer_bytes(struct mini_slot *slot, const void *bytes, size_t length)
{
	slot->answer = malloc(length + 1);
	mini_need(slot->answer != NULL, "malloc");
	memcpy(slot->answer, bytes, length);
	slot->answer_len = length;
}

static int is_over(const struct stored *entry)
{
	struct hot_metadata hot = {.flags = 0};

	walk_metadata(entry, note_field, &hot);
	return hot.soft_ms && wall_ms() >= hot.soft_ms;
}

static void serve_get(struct mini_slot *slot)
{
	const struct stored *entry = *find(slot->body, slot->request.key_len);

	if (entry && slot->request.op != RSHM_OP_EXISTS && !(slot->request.flags & RSHM_REQUEST_SOFT_TOO) &&
	    is_over(entry))
		entry = NULL;
	slot->head.status = entry ? RSHM_OK : RSHM_MISS;
	if (!entry)
		return;
	slot->head.version = entry->version;
	slot->head.ttl_ms = entry->ttl_ms;
	if (slot->request.op == RSHM_OP_GET || slot->request.op == RSHM_OP_FETCH) {
		slot->metadata_len = entry->metadata_len;
		answer_bytes(slot, entry->bytes + entry->key_len, entry->metadata_len + entry->value_len);
	}
}

/* The load under way ends if it is this one. */
static int end_load(const struct mini_slot *slot)
{
	if (!mini.load_ticket || slot->request.version != mini.load_ticket)
		return 0;
	mini.load_ticket = 0;
	return 1;
}

static void serve_fetch(struct mini_channel *channel, struct mini_slot *slot)
{
	int mine = mini.load_ticket && mini.load_key_len == slot->request.key_len &&
		   memcmp(mini.load_key, slot->body, mini.load_key_len) == 0;

	if (!(slot->request.flags & RSHM_REQUEST_REFRESH)) {
		serve_get(slot);
		if (slot->head.status == RSHM_OK)
			return;
		slot->waits = mini.load_ticket != 0;
	}
	slot->head.status = RSHM_MISS;
	if (slot->waits || mine)
		return;
	free(mini.load_key);
	mini.load_key_len = slot->request.key_len;
	mini.load_key = malloc(mini.load_key_len);
	mini_need(mini.load_key != NULL, "malloc");
	memcpy(mini.load_key, slot->body, mini.load_key_len);
	mini.loader = channel;
	mini.load_ticket = ++mini.tickets;
	slot->head.status = RSHM_LOAD;
	slot->head.version = mini.load_ticket;
}

static int set_conflicts(const struct mini_slot *slot)
{
	const struct stored *entry = *find(slot->body, slot->request.key_len);
	uint64_t version = entry ? entry->version : 0;

	switch (rshm_change_condition(slot->request.change)) {
	case RSHM_IF_ABSENT:
		return version != 0;
	case RSHM_IF_PRESENT:
		return version == 0;
	case RSHM_IF_VERSION:
		return version != slot->request.version;
	default:
		return (slot->request.flags & RSHM_REQUEST_TICKET) && !end_load(slot);
	}
}

static void serve_set(struct mini_slot *slot)
{
	const struct rshm_request *r = &slot->request;
	const struct stored *entry = *find(slot->body, r->key_len);

	if (set_conflicts(slot)) {
		slot->head.status = RSHM_CONFLICT;
		slot->head.version = entry ? entry->version : 0;
	} else if (r->flags & RSHM_REQUEST_NEGATIVE) {
		(void)rshm_writer_put(&mini.writer, &(struct rshm_item){
							    .key = slot->body,
							    .key_len = r->key_len,
							    .version = ++mini.version,
							    .control_a = rshm_control_a(RSHM_FLAG_NEGATIVE, 0,
											mini.agent->sources[0].epoch),
							    .control_b = rshm_now_ms() + r->ttl_ms,
						    });
	} else {
		slot->head.version = store_set(slot->body, r->key_len, r->metadata_len,
					       r->body_len - r->key_len - r->metadata_len, r->ttl_ms);
		if (rshm_change_mode(r->change) == RSHM_WRITE_BEHIND)
			slot->head.flags = RSHM_ANSWER_ACCEPTED;
	}
}

static void serve_incr(struct mini_slot *slot)
{
	const struct stored *entry = *find(slot->body, slot->request.key_len);
	unsigned char bytes[400];
	size_t key_len = slot->request.key_len;
	int64_t number = 0;

	mini_need(key_len < 300, "a short key");
	memcpy(bytes, slot->body, key_len);
	memset(bytes + key_len, 0, 32);
	if (entry) {
		memcpy(bytes + key_len, entry->bytes + entry->key_len + entry->metadata_len,
		       entry->value_len < 31 ? entry->value_len : 31);
		number = atoll((const char *)bytes + key_len);
		if (bytes[key_len] > '9') {
			slot->head.status = RSHM_E_INVALID;
			return;
		}
	}
	number += (int64_t)slot->request.operand;
	(void)store_set(bytes, key_len, 0, (size_t)snprintf((char *)bytes + key_len, 32, "%lld", (long long)number),
			slot->request.ttl_ms);
	answer_bytes(slot, &number, sizeof(number));
}

static void serve_many(struct mini_slot *slot)
{
	const struct rshm_request *r = &slot->request;

	if (r->op == RSHM_OP_INVALIDATE_TAG)
		(void)store_sweep(slot->body, r->key_len, 1);
	else if (r->op != RSHM_OP_FLUSH)
		slot->head.version = store_sweep(slot->body, r->key_len, 0);
	if (r->op == RSHM_OP_CLEAR)
		rshm_writer_clear(&mini.writer);
}

/* Keys of a batch, or one prefix. */
static void serve_warm(struct mini_slot *slot)
{
	const unsigned char *at = slot->body;
	uint32_t limit = mini.knobs->warm_limit, items = slot->request.items;
	uint64_t counts[4] = {0}; /* loaded, absent, failed; of a list: taken */

	items = limit && limit < items ? limit : items;
	counts[3] = items;
	for (uint32_t i = 0; i < items; i++) {
		struct rshm_batch_item head;
		const struct stored *entry;

		memcpy(&head, at, sizeof(head));
		entry = *find(at + sizeof(head), head.key_len);
		if (entry)
			publish(entry);
		counts[entry ? 0 : 1]++;
		at += sizeof(head) + head.key_len;
	}
	for (const struct stored *entry = mini.stored; entry && !slot->request.items; entry = entry->next) {
		if (entry->key_len < slot->request.key_len ||
		    memcmp(entry->bytes, slot->body, slot->request.key_len) != 0)
			continue;
		publish(entry);
		counts[0]++;
	}
	answer_bytes(slot, counts, (slot->request.items ? 4 : 3) * sizeof(counts[0]));
}

static void serve_batch(struct mini_slot *slot)
{
	const unsigned char *at = slot->body;
	FILE *out;

	if (mini.knobs->batch_limit && slot->request.items > mini.knobs->batch_limit) {
		slot->head.status = RSHM_E_TOOBIG;
		return;
	}
	out = open_memstream((char **)&slot->answer, &slot->answer_len);
	mini_need(out != NULL, "open_memstream");
	for (uint32_t i = 0; i < slot->request.items; i++) {
		struct rshm_batch_item head, result = {.ttl_ms = RSHM_NEVER};
		const struct stored *entry = NULL;
		const unsigned char *key = at + sizeof(head);

		memcpy(&head, at, sizeof(head));
		at += sizeof(head) + head.key_len + head.metadata_len + head.value_len;
		if (slot->request.op == RSHM_OP_SET_BATCH && rshm_change_condition(head.flags) == RSHM_IF_ABSENT &&
		    *find(key, head.key_len)) {
			result.status = RSHM_CONFLICT;
			result.version = (*find(key, head.key_len))->version;
		} else if (slot->request.op == RSHM_OP_SET_BATCH) {
			result.version = store_set(key, head.key_len, head.metadata_len, head.value_len, head.ttl_ms);
			if (rshm_change_mode(head.flags) == RSHM_WRITE_BEHIND)
				result.flags = RSHM_ANSWER_ACCEPTED;
		} else if (slot->request.op == RSHM_OP_DELETE_BATCH) {
			result.status = store_delete(key, head.key_len);
		} else if ((entry = *find(key, head.key_len))) {
			result.version = entry->version;
			result.value_len = (uint32_t)entry->value_len;
			result.metadata_len = (uint16_t)entry->metadata_len;
		} else {
			result.status = RSHM_MISS;
		}
		fwrite(&result, sizeof(result), 1, out);
		if (entry)
			fwrite(entry->bytes + entry->key_len, 1, entry->metadata_len + entry->value_len, out);
	}
	fclose(out);
}

static void serve_about(struct mini_slot *slot)
{
	struct {
		struct rshm_figures figures;
		uint64_t words[3];
	} stats = {.figures = {.hits = 30, .misses = 10, .entries = mini.writer.live_entries},
		   .words = {200, 50, 1500}};
	unsigned char message[512];
	struct rshm_tlv_writer writer;

	if (slot->request.op == RSHM_OP_STATS)
		answer_bytes(slot, &stats, sizeof(stats));
	if (slot->request.op != RSHM_OP_LOCATE)
		return;
	rshm_tlv_begin(&writer, message, sizeof(message), RSHM_OP_LOCATE, 0, 0);
	if (!mini.knobs->no_segment) {
		rshm_tlv_text(&writer, RSHM_TAG_SEGMENT_OBJECT, mini.knobs->segment_name);
		rshm_tlv_u64(&writer, RSHM_TAG_SEGMENT_SIZE, mini.knobs->segment_size);
	}
	answer_bytes(slot, message, (size_t)rshm_tlv_finish(&writer));
}

void mini_execute(struct mini_channel *channel, struct mini_slot *slot)
{
	slot->head = (struct rshm_answer){.status = RSHM_OK};
	slot->answer_len = slot->metadata_len = slot->waits = 0;
	if (slot->request.op == mini.knobs->refuse_op) {
		slot->head.status = mini.knobs->refuse_status;
		return;
	}
	switch (slot->request.op) {
	case RSHM_OP_GET:
	case RSHM_OP_EXISTS:
	case RSHM_OP_TOUCH:
		serve_get(slot);
		break;
	case RSHM_OP_FETCH:
		serve_fetch(channel, slot);
		break;
	case RSHM_OP_FETCH_FAILED:
		slot->head.status = end_load(slot) ? RSHM_OK : RSHM_CONFLICT;
		break;
	case RSHM_OP_SET:
		serve_set(slot);
		break;
	case RSHM_OP_INCR:
		serve_incr(slot);
		break;
	case RSHM_OP_DELETE:
		slot->head.status = store_delete(slot->body, slot->request.key_len);
		break;
	case RSHM_OP_GET_BATCH:
	case RSHM_OP_SET_BATCH:
	case RSHM_OP_DELETE_BATCH:
		serve_batch(slot);
		break;
	case RSHM_OP_INVALIDATE_TAG:
	case RSHM_OP_INVALIDATE_PREFIX:
	case RSHM_OP_CLEAR:
	case RSHM_OP_FLUSH:
		serve_many(slot);
		break;
	case RSHM_OP_WARM:
	case RSHM_OP_WARM_PREFIX:
		serve_warm(slot);
		break;
	case RSHM_OP_PING:
	case RSHM_OP_STATS:
	case RSHM_OP_LOCATE:
		serve_about(slot);
		break;
	default:
		slot->head.status = RSHM_E_UNSUPPORTED;
	}
}
