/*
 * spilling.c - the disk tier between shared memory and the backend.
 *
 *   evicted from the ring while alive ─▶ an envelope on disk, under the version it had
 *   a read that misses and remembers one ─▶ disk ─▶ the backend's head: same version? its bytes serve, and are hot again
 *                                                                       else ─▶ the backend's value
 *   a read that finds the backend away ─▶ disk ─▶ served as stale, where the tenant's policy allows stale copies
 *   a write, a delete, a touch, a clear ─▶ removed before it is acknowledged; a foreign one ─▶ when the feed tells of it
 *   a prefix, while the backend is away ─▶ what is older and begins with it is not served
 *
 * The head of an entry costs the backend and the network next to nothing, its value may be a megabyte: that is what the disk
 * saves, and why only larger values are looked for there while the backend answers. Which ones are there is remembered in
 * a lossy table of fingerprints, so that a miss of anything else is not delayed by a look at the disk. No spilled copy is
 * ever served as verified unless the backend has just named its version.
 *
 * The disk has sealed envelopes of tenants that encrypt, like the backend.
 *
 * Of an entry with tags the backend's head tells the epochs as well, which are compared with the tags' present ones. While the
 * backend is away, the words of the tags' slots decide, as for a copy in the ring: the copy on disk has those that it left
 * the ring with, and whatever this agent has invalidated, or was told of, has bumped them.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/serve/rings.h"
#include "agent/serve/serve_priv.h"
#include "agent/store/keys.h"
#include "agent/store/spill/spill.h"
#include "shm/index.h"

#define MARKS (1u << 16) /* fingerprints: 256 KiB a tenant */

#define PREFIXES 16u     /* invalidated ones that are remembered */
#define PREFIX_BYTES 64u /* of each; a longer one counts as what it begins with */

/* Keys that begin so and were written up to this version are gone. */
struct invalidated {
	uint64_t version;
	size_t length;
	unsigned char prefix[PREFIX_BYTES];
};

struct spilling {
	struct spill *tier; /* the worker's */
	bool kept;          /* the tier began with entries of an earlier run, of which there are no marks */
	uint32_t marks[MARKS];
	struct invalidated invalidated[PREFIXES]; /* a ring */
	uint64_t invalidated_count;
	uint64_t invalidated_all; /* version: of those that the ring has no room for */
};

static uint64_t hash_of(const struct serve_tenant *tenant, const void *key, size_t key_len)
{
	return rshm_hash((uint64_t)(uintptr_t)tenant, key, key_len);
}

static uint32_t *mark_of(struct serve_tenant *tenant, const void *key, size_t key_len, uint32_t *ret_print)
{
	uint64_t hash = hash_of(tenant, key, key_len);

	*ret_print = (uint32_t)(hash >> 32) | 1;
	return &tenant->spilling->marks[hash % MARKS];
}

static struct store_name name_of(const struct serve_tenant *tenant, const void *key, size_t key_len)
{
	struct store_name name = entry_store_name(tenant->tenant);

	name.generation = tenant->space.generation;
	name.key = key;
	name.key_len = key_len;
	return name;
}

int spilling_create(struct serve_tenant *tenant, struct spill *tier)
{
	struct spill_figures figures;

	if (!tier)
		return RSHM_OK;
	tenant->spilling = calloc(1, sizeof(*tenant->spilling));
	if (!tenant->spilling)
		return RSHM_E_NOMEM;
	tenant->spilling->tier = tier;
	spill_figures(tier, &figures);
	tenant->spilling->kept = figures.entries > 0;
	return RSHM_OK;
}

void spilling_destroy(struct serve_tenant *tenant)
{
	free(tenant->spilling);
	tenant->spilling = NULL;
}

/* ---- to disk ------------------------------------------------------------------------------------------------ */

/* Wall clock, 0 = never; the backend's head has the last word. Where copies live by max_age it is not known. */
static uint64_t expiry_of(const struct serve_tenant *tenant, const struct rshm_item *item)
{
	uint64_t now_ms = clock_monotonic_ms();

	if (item->control_b == RSHM_NEVER || tenant->worker->max_age_ms || item->key_len > KEYS_PLAIN_MAX)
		return 0;
	return clock_realtime_ms() + (item->control_b > now_ms ? item->control_b - now_ms : 0);
}

/* False: it is none that can lie on disk. */
static bool encode_item(const struct serve_tenant *tenant, const struct rshm_item *item, struct envelope_buffer *ret)
{
	const struct serve_environment *env = tenant->worker->env;
	uint64_t words[ENVELOPE_TAGS_MAX];
	struct envelope_input input;
	uint32_t prefix;
	int tags = 0;

	if (!tagging_holds(tenant, item) || rshm_control_flags(item->control_a) & RSHM_FLAG_NEGATIVE)
		return false;
	prefix = tagging_prefix(item);
	if (rshm_control_flags(item->control_a) & RSHM_FLAG_TAGGED)
		tags = tagging_words(tenant, (const unsigned char *)item->metadata + prefix,
				     item->metadata_len - prefix, words);
	if (tags < 0)
		return false;
	input = (struct envelope_input){
		.key = item->key,
		.key_len = item->key_len,
		.tag_epochs = words,
		.tag_count = (uint16_t)tags,
		.metadata = (const unsigned char *)item->metadata + prefix,
		.metadata_len = item->metadata_len - prefix,
		.value = item->value,
		.value_len = item->value_len,
		.created_ms = item->version >> 16,
		.version = item->version,
		.writer_id = env->writer_id,
	};
	return envelope_encode(&input, &env->options.compression, ret) == RSHM_OK;
}

/* As it may lie on disk. False: it may not. */
static bool seal(struct serve_tenant *tenant, const struct store_name *name, struct envelope_buffer *envelope)
{
	struct envelope_buffer sealed;
	int status = sealing_is_ready(tenant) ? sealing_seal(tenant, name, envelope->bytes, envelope->length, &sealed)
					      : RSHM_E_NOKEY;

	if (status == RSHM_OK) {
		envelope_buffer_fini(envelope);
		*envelope = sealed;
	}
	return status >= 0;
}

void spilling_keep(struct serve_tenant *tenant, const struct rshm_item *item)
{
	struct envelope_buffer envelope = {0};
	struct store_name name;
	uint32_t print, *mark;

	if (!tenant->spilling || !tenant->space.generation)
		return;
	name = name_of(tenant, item->key, item->key_len);
	if (!encode_item(tenant, item, &envelope) || !seal(tenant, &name, &envelope) ||
	    spill_put(tenant->spilling->tier, &name, envelope.bytes, envelope.length, item->version,
		      expiry_of(tenant, item), rshm_control_source(item->control_a),
		      rshm_control_epoch(item->control_a)) != RSHM_OK) {
		/* Nor may anything older of the key stay there. */
		spill_remove(tenant->spilling->tier, &name);
	} else {
		tenant->counts.spilled++;
		if (item->value_len >= tenant->worker->env->options.spill_read_bytes) {
			mark = mark_of(tenant, item->key, item->key_len, &print);
			*mark = print;
		}
	}
	envelope_buffer_fini(&envelope);
}

void spilling_remove(struct serve_tenant *tenant, const void *key, size_t key_len)
{
	struct store_name name;

	if (!tenant->spilling || !tenant->space.generation)
		return;
	name = name_of(tenant, key, key_len);
	spill_remove(tenant->spilling->tier, &name);
}

void spilling_remove_generations(struct serve_tenant *tenant, uint64_t generation_max)
{
	if (tenant->spilling)
		spill_remove_generations(tenant->spilling->tier, tenant->tenant->number, generation_max);
}

/* ---- and back ----------------------------------------------------------------------------------------------- */

struct spill_read {
	struct spill_request request;
	struct entry_op *op;
	void (*then)(struct entry_op *op, bool found);
};

bool spilling_may_have(struct serve_tenant *tenant, const void *key, size_t key_len)
{
	uint32_t print, *mark;

	if (!tenant->spilling)
		return false;
	mark = mark_of(tenant, key, key_len, &print);
	return *mark == print || tenant->spilling->kept;
}

void spilling_invalidate_prefix(struct serve_tenant *tenant, const void *prefix, size_t prefix_len)
{
	struct spilling *s = tenant->spilling;
	struct invalidated *oldest;

	if (!s)
		return;
	oldest = &s->invalidated[s->invalidated_count++ % PREFIXES];
	if (s->invalidated_count > PREFIXES)
		s->invalidated_all = oldest->version;
	oldest->version = hlc_next(tenant->worker->env->hlc);
	oldest->length = prefix_len < PREFIX_BYTES ? prefix_len : PREFIX_BYTES;
	memcpy(oldest->prefix, prefix, oldest->length);
}

bool spilling_may_serve(const struct serve_tenant *tenant, const void *key, size_t key_len, uint64_t version)
{
	const struct spilling *s = tenant->spilling;

	if (!s || version <= s->invalidated_all)
		return false;
	for (uint32_t i = 0; i < PREFIXES; i++) {
		const struct invalidated *gone = &s->invalidated[i];

		if (version <= gone->version && key_len >= gone->length &&
		    memcmp(key, gone->prefix, gone->length) == 0)
			return false;
	}
	return true;
}

/* What the disk lent as a plain copy of the operation's own. */
static bool take(struct entry_op *op, const struct spill_request *request)
{
	struct envelope_buffer plain;
	int status = sealing_is_ready(op->tenant)
			     ? sealing_open(op->tenant, &request->name, request->result, request->result_len, &plain)
			     : RSHM_E_NOKEY;

	free(op->held);
	op->held = NULL;
	op->held_is_of_before = request->kept;
	if (status == RSHM_OK) {
		op->held = plain.bytes;
		op->held_len = plain.length;
	} else if (status == RSHM_MISS) {
		op->held = malloc(request->result_len);
		op->held_len = request->result_len;
		if (op->held)
			memcpy(op->held, request->result, request->result_len);
	}
	return op->held != NULL;
}

static void spill_on_read(struct spill_request *request)
{
	struct spill_read *read = request->context;
	struct entry_op *op = read->op;
	void (*then)(struct entry_op * op, bool found) = read->then;
	bool found = request->status == RSHM_OK;

	op->tenant->counts.restored += found;
	if (found) {
		found = take(op, request);
	} else if (op->tenant->spilling) {
		uint32_t print;

		*mark_of(op->tenant, op->key, op->key_len, &print) = 0;
	}
	free(read);
	then(op, found);
}

void spilling_read(struct entry_op *op, void (*then)(struct entry_op *op, bool found))
{
	struct serve_tenant *tenant = op->tenant;
	struct spill_read *read = tenant->spilling && tenant->space.generation ? calloc(1, sizeof(*read)) : NULL;

	if (!read) {
		then(op, false);
		return;
	}
	read->op = op;
	read->then = then;
	read->request.name = name_of(tenant, op->key, op->key_len);
	read->request.deadline_ms = op->deadline_ms;
	read->request.done = spill_on_read;
	read->request.context = read;
	spill_get(tenant->spilling->tier, &read->request);
}
