/*
 * Accepted records on their way to the inner store.
 *
 *	accept ─> queue, in the order of acceptance ─(due, window has room)─> flying ─> stored, or something newer was there
 *	            ^                                                           │
 *	            └── failed: back in front (the store is away) or to the end (it refused this one) after a pause
 *
 * An entry is in the queue once, whatever comes for its key meanwhile: the newest record takes the place of the older
 * one, with its order and age, so a key that is written all the time is flushed in time too. While one record of a
 * key is flying, a newer one waits for its landing. Every write is conditional on its version; so repeating one whose
 * outcome is not known is harmless, and a record that another host has overtaken falls off.
 *
 * A record that expired while it waited is not dropped, for an older value of its key may be in the inner store and
 * would show again: a tombstone with its version is written instead.
 *
 * The inner store may answer on top of its submit; `pumping` keeps that from recursing.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/behind/behind_priv.h"
#include "shm/msg.h"

static struct log_limit failure_limit = LOG_LIMIT(3, 10000);
static struct log_limit loss_limit = LOG_LIMIT(20, 10000);

static void flight_on_done(struct store_request *request);

bool behind_flush_init(struct behind_store *store)
{
	store->flights = calloc(store->config.flush_window, sizeof *store->flights);
	if (store->flights == NULL)
		return false;
	for (uint32_t i = 0; i < store->config.flush_window; i++) {
		store->flights[i].store = store;
		store->flights[i].next = store->free_flights;
		store->free_flights = &store->flights[i];
	}
	if (getrandom(&store->random, sizeof store->random, 0) != sizeof store->random || store->random == 0)
		store->random = 88172645463325252ull;
	return true;
}

void behind_flush_fini(struct behind_store *store)
{
	must(store->flying == 0);
	free(store->flights);
	store->flights = NULL;
}

/* ---- the queue ------------------------------------------------------------------------------------------------ */

/* Behind `after`; NULL: in front. */
static void queue_insert(struct behind_store *store, struct behind_entry *entry, struct behind_entry *after)
{
	struct behind_entry *before = after != NULL ? after->next : store->queue_first;

	must(!entry->queued);
	entry->prev = after;
	entry->next = before;
	*(after != NULL ? &after->next : &store->queue_first) = entry;
	*(before != NULL ? &before->prev : &store->queue_last) = entry;
	entry->queued = true;
	store->queued_records++;
	store->queued_bytes += entry->record->length;
}

static void queue_remove(struct behind_store *store, struct behind_entry *entry)
{
	must(entry->queued);
	*(entry->prev != NULL ? &entry->prev->next : &store->queue_first) = entry->next;
	*(entry->next != NULL ? &entry->next->prev : &store->queue_last) = entry->prev;
	entry->queued = false;
	store->queued_records--;
	store->queued_bytes -= entry->record->length;
}

/* Among those in front that failed with it, where its order wants it. */
static void queue_put_back(struct behind_store *store, struct behind_entry *entry)
{
	struct behind_entry *after = NULL, *it = store->queue_first;

	for (uint32_t i = 0; it != NULL && i < store->config.flush_window && it->record->order < entry->record->order;
	     i++) {
		after = it;
		it = it->next;
	}
	queue_insert(store, entry, after);
}

static void depth_add(struct behind_store *store, const struct behind_record *record)
{
	store->depth_records++;
	store->depth_bytes += record->length;
}

static void depth_subtract(struct behind_store *store, const struct behind_record *record)
{
	must(store->depth_records > 0);
	store->depth_records--;
	store->depth_bytes -= record->length;
}

uint64_t behind_flush_age(const struct behind_store *store, uint64_t now_ms)
{
	uint64_t since_ms = store->queue_first != NULL ? store->queue_first->record->since_ms : now_ms;

	for (uint32_t i = 0; store->flying > 0 && i < store->config.flush_window; i++) {
		const struct behind_entry *entry = store->flights[i].entry;

		if (entry != NULL && entry->flying->since_ms < since_ms)
			since_ms = entry->flying->since_ms;
	}
	return since_ms < now_ms ? now_ms - since_ms : 0;
}

/* ---- accepting ------------------------------------------------------------------------------------------------ */

/* `newer` takes the place of `older`, which stays the caller's. */
static void record_replace(struct behind_store *store, struct behind_record *newer, const struct behind_record *older)
{
	must(older->order < newer->order);
	newer->order = older->order;
	newer->since_ms = older->since_ms;
	store->counts.coalesced++;
}

void behind_flush_accept(struct behind_store *store, struct behind_entry *entry, struct behind_record *record)
{
	struct behind_record *older = entry->record;

	record->order = ++store->order;
	record->since_ms = clock_monotonic_ms();
	depth_add(store, record);
	entry->record = record;
	if (older != NULL) {
		depth_subtract(store, older);
		if (entry->queued)
			store->queued_bytes += record->length - older->length;
		/* A barrier that counts the older one counts on the newer one from here. */
		record_replace(store, record, older);
		journal_supersede(&store->journal, older);
		format_record_unref(older);
	} else if (entry->flying == NULL) {
		queue_insert(store, entry, store->queue_last);
	}
	behind_flush_trigger(store, record->since_ms, false);
	behind_flush_pump(store);
	behind_wake(store);
}

void behind_flush_enqueue(struct behind_store *store, struct behind_entry *entry, struct behind_record *record)
{
	uint64_t now_ms = clock_monotonic_ms(), wall_ms = clock_realtime_ms();
	uint64_t age_ms = wall_ms > record->accepted_ms ? wall_ms - record->accepted_ms : 0;

	record->order = ++store->order;
	record->since_ms = age_ms < now_ms ? now_ms - age_ms : 0;
	depth_add(store, record);
	entry->record = record;
	queue_insert(store, entry, store->queue_last);
}

void behind_flush_hurry(struct behind_store *store, struct behind_entry *entry)
{
	if (entry->urgent)
		return;
	entry->urgent = true;
	if (entry->queued) {
		queue_remove(store, entry);
		queue_insert(store, entry, NULL);
	}
	behind_flush_pump(store);
}

void behind_flush_trigger(struct behind_store *store, uint64_t now_ms, bool all)
{
	const struct behind_config *config = &store->config;
	uint64_t since_ms;

	if (store->queued_records == 0)
		return;
	since_ms = store->queue_first->record->since_ms;
	if (all || store->phase != BEHIND_OPEN || store->queued_records >= config->flush_records ||
	    store->queued_bytes >= config->flush_bytes ||
	    (now_ms > since_ms && now_ms - since_ms >= config->flush_interval_ms))
		store->flush_through = store->order;
}

/* ---- the end of a record -------------------------------------------------------------------------------------- */

/* It is marked and gone; what comes next for its key goes on. */
static void record_settle(struct behind_store *store, struct behind_entry *entry, struct behind_record *record)
{
	uint64_t order = record->order;

	depth_subtract(store, record);
	journal_settle(&store->journal, record);
	behind_marks_pending(store);
	behind_barriers_step(store, &entry->name, order);
	if (entry->record != NULL)
		queue_insert(store, entry, entry->urgent ? NULL : store->queue_last);
	else
		behind_entry_clean(store, entry);
}

static bool record_is_too_old(const struct behind_store *store, const struct behind_record *record, uint64_t now_ms)
{
	return now_ms > record->accepted_ms && now_ms - record->accepted_ms > store->config.max_replay_age_ms;
}

/* Not stored, and will not be: the file that holds it is kept for a person. */
static void record_give_up(struct behind_store *store, struct behind_entry *entry, struct behind_record *record,
			   const char *why)
{
	log_limited(&loss_limit, LOG_LEVEL_ERROR, FOLDER_MODULE,
		    "tenant %s: an accepted write of %zu bytes is given up: %s; %s/journal-%u-%" PRIu64
		    " will be set aside",
		    record->tenant, record->envelope_len, why, folder_path(store->journal.folder),
		    record->segment->worker, record->segment->sequence);
	record->segment->aside = true;
	record_settle(store, entry, record);
}

/* ---- flying --------------------------------------------------------------------------------------------------- */

/* What is written for a tombstone, or for a record that expired. False without memory. */
static bool flight_load(struct behind_flight *flight, struct behind_record *record, uint64_t now_ms)
{
	struct store_request *request = &flight->request;
	uint64_t bury_ms = now_ms + flight->store->config.max_replay_age_ms;
	struct envelope_input input = {
		.key = record->name.key,
		.key_len = record->name.key_len,
		.created_ms = now_ms,
		.expiry_ms = bury_ms,
		.version = record->version,
		.writer_id = record->writer,
		.flags = ENVELOPE_FLAG_TOMBSTONE,
	};

	request->envelope = record->envelope;
	request->envelope_len = record->envelope_len;
	request->expiry_ms = record->expiry_ms;
	if (record->tombstone) {
		envelope_set_expiry(record->envelope, now_ms, bury_ms);
		request->expiry_ms = bury_ms;
	} else if (record->expiry_ms != 0 && record->expiry_ms <= now_ms) {
		if (envelope_encode(&input, NULL, &flight->tombstone) != RSHM_OK)
			return false;
		request->envelope = flight->tombstone.bytes;
		request->envelope_len = flight->tombstone.length;
		request->expiry_ms = bury_ms;
	}
	return true;
}

/* Takes the entry out of the queue. False without memory: nothing has happened. */
static bool flight_start(struct behind_store *store, struct behind_entry *entry, uint64_t now_ms)
{
	struct behind_flight *flight = store->free_flights;

	flight->request = (struct store_request){
		.op = STORE_PUT,
		.name = entry->name,
		.condition = STORE_IF_OLDER,
		.deadline_ms = clock_monotonic_ms() + store->config.flush_timeout_ms,
		.done = flight_on_done,
		.context = flight,
	};
	if (!flight_load(flight, entry->record, now_ms))
		return false;
	store->free_flights = flight->next;
	queue_remove(store, entry);
	flight->entry = entry;
	entry->flying = entry->record;
	entry->record = NULL;
	store->flying++;
	store_submit(store->inner, &flight->request);
	return true;
}

void behind_flush_pump(struct behind_store *store)
{
	uint64_t now_ms = clock_realtime_ms();

	if (store->pumping || store->phase >= BEHIND_SYNCING || clock_monotonic_ms() < store->paused_until_ms)
		return;
	store->pumping = true;
	while (store->free_flights != NULL && store->queue_first != NULL) {
		struct behind_entry *entry = store->queue_first;
		struct behind_record *record = entry->record;

		if (!entry->urgent && record->order > store->flush_through)
			break;
		if (record_is_too_old(store, record, now_ms)) {
			store->counts.too_old++;
			queue_remove(store, entry);
			entry->record = NULL;
			record_give_up(store, entry, record, "older than max_replay_age");
		} else if (!flight_start(store, entry, now_ms)) {
			break;
		}
	}
	store->pumping = false;
}

static void flush_pause(struct behind_store *store)
{
	uint64_t pause_ms = store->config.retry_delay_ms;

	for (uint32_t i = 0; i < store->failures && pause_ms < store->config.retry_max_delay_ms; i++)
		pause_ms *= 2;
	if (pause_ms > store->config.retry_max_delay_ms)
		pause_ms = store->config.retry_max_delay_ms;
	/* xorshift: spreads the agents of many hosts, and needs no secrecy. */
	store->random ^= store->random << 13;
	store->random ^= store->random >> 7;
	store->random ^= store->random << 17;
	pause_ms = pause_ms / 2 + store->random % (pause_ms / 2 + 1);
	/* What failed together counts once. */
	if (clock_monotonic_ms() < store->paused_until_ms)
		return;
	store->failures++;
	store->paused_until_ms = clock_monotonic_ms() + pause_ms;
}

/* The inner store is away, as opposed to: it does not like this one. */
static bool failure_is_general(int status)
{
	return status == RSHM_E_AGAIN || status == RSHM_E_TIMEDOUT || status == RSHM_E_UNKNOWN ||
	       status == RSHM_E_CLOSED || status == RSHM_E_NOMEM;
}

static void record_failed(struct behind_store *store, struct behind_entry *entry, struct behind_record *record,
			  int status)
{
	store->counts.flush_failures++;
	flush_pause(store);
	log_limited(&failure_limit, LOG_LEVEL_WARN, FOLDER_MODULE,
		    "the store does not take accepted writes (status %d); %" PRIu64 " wait in the journal", status,
		    store->depth_records);
	if (entry->record != NULL) {
		uint64_t order = entry->record->order;

		depth_subtract(store, record);
		record_replace(store, entry->record, record);
		journal_supersede(&store->journal, record);
		format_record_unref(record);
		/* The newer one has the older one's order now: it stands for both. */
		behind_barriers_step(store, &entry->name, order);
	} else {
		entry->record = record;
	}
	entry->urgent = entry->waiters.count > 0;
	if (entry->urgent)
		queue_insert(store, entry, NULL);
	else if (failure_is_general(status))
		queue_put_back(store, entry);
	else
		queue_insert(store, entry, store->queue_last);
}

/* Somebody else has written something newer: copies of what was accepted are copies of nothing. */
static void tell_superseded(const struct behind_store *store, const struct store_name *name)
{
	const struct store_change change = {
		.kind = STORE_CHANGED_ENTRY,
		.tenant = name->tenant,
		.tenant_len = strlen(name->tenant),
		.generation = name->generation,
		.space = name->space,
		.key = name->key,
		.key_len = name->key_len,
	};

	if (store->watcher.changed)
		store->watcher.changed(store->watcher.context, &change);
}

static void flight_on_done(struct store_request *request)
{
	struct behind_flight *flight = request->context;
	struct behind_store *store = flight->store;
	struct behind_entry *entry = flight->entry;
	struct behind_record *record = entry->flying;
	int status = request->status;

	flight->entry = NULL;
	flight->next = store->free_flights;
	store->free_flights = flight;
	store->flying--;
	envelope_buffer_fini(&flight->tombstone);
	entry->flying = NULL;
	if (status >= 0) {
		store->failures = 0;
		if (status == RSHM_CONFLICT) {
			store->counts.conflicts++;
			tell_superseded(store, &request->name);
		} else {
			store->counts.flushed++;
		}
		record_settle(store, entry, record);
	} else if (status == RSHM_E_INVALID || status == RSHM_E_TOOBIG || status == RSHM_E_UNSUPPORTED ||
		   status == RSHM_E_FORMAT) {
		store->counts.rejected++;
		record_give_up(store, entry, record, "the store cannot take it");
	} else {
		record_failed(store, entry, record, status);
	}
	behind_flush_pump(store);
	behind_wake(store);
}
