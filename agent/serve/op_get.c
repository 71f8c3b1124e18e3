/*
 * op_get.c - the story of a get that missed in shared memory.
 *
 *   the ring after all (appended meanwhile, or the client may not read it)?  answer
 *   else take the key's turn: whoever asked first asks the store, the others share the answer
 *   found: check the envelope and its tags, publish if nothing happened to the key or the source since, answer
 *   absent: remove what the ring may still have, answer MISS
 *   the store is away: an unverified copy, marked stale, if the tenant's policy allows it
 *
 * entry_load() is the part between the store and the answer; incr begins with it, too. Where the disk tier may have the value
 * (spilling.c), the store is asked for the entry's head alone, and for the rest only if that names another version.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/cache/tags.h"
#include "agent/serve/serve_priv.h"

static void take_item(struct entry_op *op, const struct rshm_item *item)
{
	uint64_t now_ms = clock_monotonic_ms();
	uint32_t skip = tagging_prefix(item);

	op->version = item->version;
	op->result_metadata = (const unsigned char *)item->metadata + skip;
	op->result_metadata_len = item->metadata_len - skip;
	op->result_value = item->value;
	op->result_value_len = item->value_len;
	op->remaining_ms = RSHM_NEVER;
	if (item->control_b != RSHM_NEVER)
		op->remaining_ms = item->control_b > now_ms ? item->control_b - now_ms : 0;
}

static void count_hit(struct entry_op *op)
{
	if (op->quiet)
		return;
	op->tenant->counts.hits++;
	op->tenant->counts.hit_bytes += op->result_value_len;
	accesses_note(op->tenant->accesses, op->key, op->key_len, clock_monotonic_ms());
}

/* Is the result past its soft deadline, and the caller one that does not take such values? Then it is a miss to him. */
static bool is_too_old(const struct entry_op *op)
{
	uint64_t deadline_ms;

	return !(op->flags & RSHM_REQUEST_SOFT_TOO) && op->result_metadata_len > 0 &&
	       soft_deadline_of_metadata(op->result_metadata, op->result_metadata_len, &deadline_ms) == RSHM_OK &&
	       clock_realtime_ms() >= deadline_ms;
}

static void count_miss(struct entry_op *op)
{
	if (!op->quiet)
		op->tenant->counts.misses++;
}

void entry_answer(struct entry_op *op, bool share)
{
	bool too_old = is_too_old(op);

	if (too_old)
		count_miss(op);
	else
		count_hit(op);
	entry_complete(op, too_old ? RSHM_MISS : RSHM_OK, share);
}

/* Answers from the ring if there is a copy fit to serve. */
static bool answer_from_hot(struct entry_op *op, bool stale_will_do)
{
	struct rshm_item item;
	enum rshm_freshness freshness;

	if (!hot_find(op->tenant->hot, op->key, op->key_len, &item))
		return false;
	freshness = hot_judge(op->tenant->hot, &item);
	if (freshness != RSHM_VERIFIED && !(stale_will_do && freshness == RSHM_SERVE_STALE))
		return false;
	if (!tagging_holds(op->tenant, &item))
		return false;
	if (rshm_control_flags(item.control_a) & RSHM_FLAG_NEGATIVE) {
		op->answer_flags |= RSHM_ANSWER_NEGATIVE;
		count_miss(op);
		entry_complete(op, RSHM_MISS, false);
		return true;
	}
	take_item(op, &item);
	if (freshness == RSHM_SERVE_STALE) {
		op->answer_flags |= RSHM_ANSWER_STALE;
		op->tenant->counts.stale++;
	}
	entry_answer(op, false);
	return true;
}

/* ---- from the store ----------------------------------------------------------------------------------------- */

/* The server's own clock may shorten the life of an entry, never lengthen it. */
static void set_remaining(struct entry_op *op, uint64_t expiry_ms)
{
	uint64_t now_ms = clock_realtime_ms();

	if (op->store.remaining_ms && (!expiry_ms || now_ms + op->store.remaining_ms < expiry_ms))
		expiry_ms = now_ms + op->store.remaining_ms;
	op->expiry_ms = expiry_ms;
	op->remaining_ms = RSHM_NEVER;
	if (expiry_ms)
		op->remaining_ms = expiry_ms > now_ms ? expiry_ms - now_ms : 0;
}

static int decode(struct entry_op *op, const struct envelope_view *view)
{
	int status = RSHM_OK;

	if (view->head.algorithm == ENVELOPE_PLAIN) {
		op->result_value = view->payload;
	} else {
		op->payload = malloc(view->head.plain_size ? view->head.plain_size : 1);
		if (!op->payload)
			return RSHM_E_NOMEM;
		status = envelope_payload(view, op->payload, view->head.plain_size);
		op->result_value = op->payload;
	}
	op->result_value_len = view->head.plain_size;
	op->result_metadata = view->metadata;
	op->result_metadata_len = view->head.metadata_len;
	return status;
}

static void loaded(struct entry_op *op, int status)
{
	if (status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT || status == RSHM_E_NODICT ||
	    status == RSHM_E_NOKEY) {
		static struct log_limit limit = LOG_LIMIT(5, 10000);
		const char *why = "damaged";

		if (status == RSHM_E_FORMAT)
			why = "written by a newer version";
		else if (status == RSHM_E_NODICT)
			why = "the backend does not have its dictionary";
		else if (status == RSHM_E_NOKEY)
			why = "encrypted, and its key is not known here";
		log_limited(&limit, LOG_LEVEL_ERROR, "serve",
			    "tenant %s: a stored entry is refused: %s; delete or rewrite the key",
			    op->tenant->tenant->id, why);
	}
	op->loaded(op, status);
}

/* The store's bytes are lent until its callback returns; what comes next may take longer. */
static bool hold(struct entry_op *op)
{
	free(op->held);
	op->held = malloc(op->store.result_len);
	op->held_len = op->store.result_len;
	if (op->held)
		memcpy(op->held, op->store.result, op->held_len);
	return op->held != NULL;
}

static bool is_held(const struct entry_op *op, const struct envelope_view *view)
{
	return op->held && view->key == (const char *)op->held + envelope_key_offset(&view->head);
}

/* Its dictionary has been fetched; or could not be. */
static void load_on_dictionary(struct entry_op *op, int status)
{
	struct envelope_view view;

	if (status == RSHM_OK)
		status = envelope_open(op->held, op->held_len, op->key, op->key_len, &view);
	if (status == RSHM_OK) {
		view.dictionary = op->dictionary;
		status = decode(op, &view);
	}
	loaded(op, status);
}

static void load_payload(struct entry_op *op, const struct envelope_view *stored)
{
	struct envelope_view view = *stored;
	uint32_t id = view.head.dictionary_id;

	dictionary_unref(&op->dictionary);
	if (id)
		op->dictionary = dictionaries_find(op->tenant, id);
	view.dictionary = op->dictionary;
	if (!id || op->dictionary)
		loaded(op, decode(op, &view));
	else if (is_held(op, &view) || hold(op))
		dictionaries_fetch(op, id, load_on_dictionary);
	else
		loaded(op, RSHM_E_NOMEM);
}

/* The tags' present epochs are known: an entry that was written under another one is gone. */
static void load_on_tags(struct entry_op *op, int status)
{
	struct envelope_view view;

	if (status == RSHM_OK)
		status = envelope_open(op->held, op->held_len, op->key, op->key_len, &view);
	if (status < 0)
		loaded(op, status);
	else if (!tagging_matches(op->tags, &view))
		loaded(op, RSHM_MISS);
	else
		load_payload(op, &view);
}

/* The tags point into the copy: asking for their epochs outlives what the store lent. */
static void load_tagged(struct entry_op *op)
{
	struct envelope_view view;
	int status = hold(op) ? RSHM_OK : RSHM_E_NOMEM;

	if (status == RSHM_OK)
		status = envelope_open(op->held, op->held_len, op->key, op->key_len, &view);
	if (status == RSHM_OK)
		status = tagging_begin(op, view.metadata, view.head.metadata_len);
	if (status < 0 || !op->tags)
		loaded(op, status < 0 ? status : RSHM_E_CORRUPT);
	else
		tagging_resolve(op, false, load_on_tags);
}

/* What we write from now on is newer than what we have read, whatever our clock says. */
static void observe_version(const struct worker *worker, uint64_t version)
{
	static struct log_limit limit = LOG_LIMIT(1, 60000);

	if (version > hlc_last(worker->env->hlc) && !hlc_observe(worker->env->hlc, version))
		log_limited(
			&limit, LOG_LEVEL_WARN, "serve",
			"an entry is from the future by more than an hour: the clock of this host or of its writer is wrong");
}

static void load_on_stored(struct store_request *request)
{
	struct entry_op *op = request->context;
	struct envelope_view view;
	int status = request->status;

	if (status != RSHM_OK) {
		op->found_version = 0;
		op->loaded(op, status);
		return;
	}
	status = envelope_open(request->result, request->result_len, op->key, op->key_len, &view);
	if (status < 0) {
		loaded(op, status);
		return;
	}
	op->version = op->found_version = view.head.version;
	observe_version(op->worker, view.head.version);
	set_remaining(op, view.head.expiry_ms);
	if (view.head.flags & ENVELOPE_FLAG_TOMBSTONE || op->remaining_ms == 0) {
		op->found_version = 0;
		loaded(op, RSHM_MISS);
	} else if (view.head.tag_count > 0) {
		load_tagged(op);
	} else {
		load_payload(op, &view);
	}
}

/* The present epochs of the tags of an entry whose value the disk has are known, as well as what the backend's head says. */
static void load_on_spilled_tags(struct entry_op *op, int status)
{
	struct envelope_view view;

	if (status == RSHM_OK)
		status = envelope_open(op->held, op->held_len, op->key, op->key_len, &view);
	if (status < 0)
		loaded(op, status);
	else if (!tagging_matches_expected(op->tags))
		loaded(op, RSHM_MISS);
	else
		load_payload(op, &view);
}

static void load_spilled(struct entry_op *op, const struct envelope_view *view)
{
	int status;

	if (view->head.tag_count == 0) {
		load_payload(op, view);
		return;
	}
	status = tagging_begin(op, view->metadata, view->head.metadata_len);
	if (status == RSHM_OK)
		status = op->tags ? tagging_expect(op->tags, op->store.result, op->store.result_len) : RSHM_E_CORRUPT;
	if (status < 0)
		loaded(op, status);
	else
		tagging_resolve(op, false, load_on_spilled_tags);
}

/* The backend's head of an entry whose value the disk has. */
static void load_on_head(struct store_request *request)
{
	struct entry_op *op = request->context;
	struct envelope_view view;
	struct envelope_head head;
	int status = request->status;

	if (status == RSHM_OK && envelope_peek_head(request->result, request->result_len, &head) == RSHM_OK &&
	    envelope_open(op->held, op->held_len, op->key, op->key_len, &view) == RSHM_OK &&
	    view.head.version == head.version && view.head.tag_count == head.tag_count &&
	    !(head.flags & ENVELOPE_FLAG_TOMBSTONE)) {
		op->version = op->found_version = head.version;
		set_remaining(op, head.expiry_ms);
		if (op->remaining_ms == 0)
			loaded(op, RSHM_MISS);
		else
			load_spilled(op, &view);
	} else if (status == RSHM_OK) {
		spilling_remove(op->tenant, op->key, op->key_len);
		entry_submit(op, STORE_GET, load_on_stored);
	} else {
		op->found_version = 0;
		op->loaded(op, status);
	}
}

static void load_on_spilled(struct entry_op *op, bool found)
{
	if (found)
		entry_submit(op, STORE_HEAD, load_on_head);
	else
		entry_submit(op, STORE_GET, load_on_stored);
}

void entry_load(struct entry_op *op, void (*then)(struct entry_op *op, int status))
{
	op->loaded = then;
	op->epoch = entry_epoch(op);
	if (spilling_may_have(op->tenant, op->key, op->key_len))
		spilling_read(op, load_on_spilled);
	else
		entry_submit(op, STORE_GET, load_on_stored);
}

/* The tags were looked at; of the value nobody asked. */
static void probe_on_loaded(struct entry_op *op, int status)
{
	op->result_value = op->result_metadata = NULL;
	op->result_value_len = op->result_metadata_len = 0;
	op->probed(op, status);
}

static void probe_on_head(struct store_request *request)
{
	struct entry_op *op = request->context;
	struct envelope_head head;
	int status = request->status;

	op->found_version = 0;
	if (status == RSHM_OK)
		status = envelope_peek_head(request->result, request->result_len, &head);
	if (status != RSHM_OK) {
		op->probed(op, status);
		return;
	}
	op->version = head.version;
	set_remaining(op, head.expiry_ms);
	if ((head.flags & ENVELOPE_FLAG_TOMBSTONE) || op->remaining_ms == 0) {
		op->probed(op, RSHM_MISS);
	} else if (head.tag_count > 0) {
		/* They stand behind the head, with the key and the metadata. */
		entry_load(op, probe_on_loaded);
	} else {
		op->found_version = head.version;
		op->probed(op, RSHM_OK);
	}
}

void entry_probe(struct entry_op *op, void (*then)(struct entry_op *op, int status))
{
	op->probed = then;
	entry_submit(op, STORE_HEAD, probe_on_head);
}

/* ---- get ---------------------------------------------------------------------------------------------------- */

/* The backend is away: what the disk has will do, if the tenant takes stale copies. */
static void get_on_spilled(struct entry_op *op, bool found)
{
	struct envelope_view view;

	if (found && !op->held_is_of_before &&
	    envelope_open(op->held, op->held_len, op->key, op->key_len, &view) == RSHM_OK &&
	    tagging_words_hold(op->tenant, &view) &&
	    spilling_may_serve(op->tenant, op->key, op->key_len, view.head.version) && decode(op, &view) == RSHM_OK) {
		op->version = view.head.version;
		op->remaining_ms = RSHM_NEVER;
		op->answer_flags |= RSHM_ANSWER_STALE;
		op->tenant->counts.stale++;
		/* Not shared: who asked for a fresh one must not get it. */
		entry_answer(op, false);
	} else {
		entry_complete(op, op->load_status == RSHM_E_UNKNOWN ? RSHM_E_TIMEDOUT : op->load_status, true);
	}
}

static bool may_use_spilled(struct entry_op *op)
{
	const struct tenant *tenant = op->tenant->tenant;
	uint64_t now_ms = clock_monotonic_ms();

	/* A damaged entry says nothing of the backend. */
	if (op->store.status >= 0)
		return false;
	if (!op->tenant->away_since_ms)
		op->tenant->away_since_ms = now_ms;
	return !(op->flags & RSHM_REQUEST_FRESH) && tenant->stale_policy == RSHM_POLICY_STALE &&
	       now_ms - op->tenant->away_since_ms <= tenant->stale_limit_ms;
}

static void get_on_loaded(struct entry_op *op, int status)
{
	if (status >= 0)
		op->tenant->away_since_ms = 0;
	if (status == RSHM_OK) {
		entry_publish(op, op->result_metadata, op->result_metadata_len, op->result_value,
			      op->result_value_len);
		entry_answer(op, true);
	} else if (status == RSHM_MISS) {
		hot_remove(op->tenant->hot, op->key, op->key_len);
		spilling_remove(op->tenant, op->key, op->key_len);
		count_miss(op);
		entry_complete(op, RSHM_MISS, true);
	} else if (op->store.status < 0 && answer_from_hot(op, !(op->flags & RSHM_REQUEST_FRESH))) {
		return;
	} else if (may_use_spilled(op)) {
		op->load_status = status;
		spilling_read(op, get_on_spilled);
	} else {
		entry_complete(op, status == RSHM_E_UNKNOWN ? RSHM_E_TIMEDOUT : status, true);
	}
}

static void get_on_turn(struct inflight_op *turn)
{
	struct entry_op *op = (struct entry_op *)turn;

	if (entry_deadline_passed(op)) {
		entry_complete(op, RSHM_E_TIMEDOUT, false);
		return;
	}
	if (!(op->flags & RSHM_REQUEST_FRESH) && answer_from_hot(op, false))
		return;
	entry_load(op, get_on_loaded);
}

void entry_get(struct entry_op *op)
{
	if (!(op->flags & RSHM_REQUEST_FRESH) && answer_from_hot(op, false))
		return;
	entry_take_turn(op, true, get_on_turn);
}
