/*
 * Requests: who is answered from here, who passes, who waits, and for what.
 *
 *	GET, HEAD        the newest accepted record of the key, else the inner store
 *	accepted write   journal ─> table ─(always: a round of syncing)─> answered; flush.c does the rest
 *	other writes     wait for what was accepted on their key ─> marks on paper ─> inner store
 *	FLUSH, LIST      wait until what the tenant had at their arrival is stored
 *	anything else    the inner store, untouched
 *
 * Each write through has an entry of its key for its time, so whatever comes for the key meanwhile keeps its place:
 * accepted writes that find somebody waiting wait too, and are accepted when it is their turn.
 *
 * "Marks on paper": before a write goes through, everything that was flushed so far is marked in the journal, with
 * `always` on the disk. Otherwise a kill after a delete could leave an unmarked record of the deleted key, which the
 * next start would put back, for nothing is there that is newer.
 *
 * A request that waits is linked by its own members; nothing is allocated but barriers. Answers to writes and
 * barriers come from the idle handle, never on top of submit.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/store/behind/behind_priv.h"
#include "shm/msg.h"

static bool through_start(struct behind_store *store, struct behind_entry *entry, struct store_request *request);

/* ---- answers -------------------------------------------------------------------------------------------------- */

/* The request is the caller's again when this returns. */
static void behind_answer(struct behind_store *store, struct store_request *request, int status)
{
	must(store->pending > 0);
	store->pending--;
	store->completed++;
	store->failed += status < 0;
	request->status = status;
	request->done(request);
}

static void behind_defer(struct behind_store *store, struct store_request *request, enum behind_wait what, int status)
{
	request->state = what;
	request->status = status;
	request_list_append(&store->deferred, request);
	behind_turn(store);
}

static void behind_pass(struct behind_store *store, struct store_request *request)
{
	must(store->pending > 0);
	store->pending--;
	store_submit(store->inner, request);
}

/* From now on its deadline counts. */
static void behind_wait(struct behind_store *store, struct request_list *list, struct store_request *request,
			enum behind_wait what)
{
	request->state = what;
	request_list_append(list, request);
	if (request->deadline_ms < store->earliest_deadline_ms)
		store->earliest_deadline_ms = request->deadline_ms;
	behind_wake(store);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static void read_record(struct behind_store *store, struct store_request *request, struct behind_record *record)
{
	uint64_t now_ms = record->expiry_ms == 0 ? 0 : clock_realtime_ms();
	int status = RSHM_OK;

	if (record->tombstone || (record->expiry_ms != 0 && record->expiry_ms <= now_ms)) {
		status = RSHM_MISS;
	} else {
		request->result = record->envelope;
		request->result_len = record->envelope_len;
		if (request->op == STORE_HEAD && request->head_bytes < record->envelope_len)
			request->result_len =
				request->head_bytes > ENVELOPE_HEAD_BYTES ? request->head_bytes : ENVELOPE_HEAD_BYTES;
		request->remaining_ms = record->expiry_ms == 0 ? 0 : record->expiry_ms - now_ms;
	}
	/* What `done` submits may replace the record. */
	format_record_ref(record);
	store->depth++;
	behind_answer(store, request, status);
	store->depth--;
	format_record_unref(record);
}

static void behind_read(struct behind_store *store, struct store_request *request)
{
	const struct behind_entry *entry = behind_table_find(&store->table, &request->name);
	struct behind_record *record = NULL;

	if (entry != NULL)
		record = entry->record != NULL ? entry->record : entry->flying;
	if (record == NULL)
		behind_pass(store, request);
	else if (store->depth < BEHIND_DEPTH_MAX)
		read_record(store, request, record);
	else
		behind_defer(store, request, BEHIND_WAIT_READ, RSHM_OK);
}

/* ---- accepting ------------------------------------------------------------------------------------------------ */

/* Whether the request is one that the journal may acknowledge. What could never fit is written through. */
static bool is_behind(const struct behind_store *store, const struct store_request *request)
{
	return request->behind && (request->op == STORE_PUT || request->op == STORE_DELETE) &&
	       request->condition == STORE_ALWAYS &&
	       request->envelope_len + request->name.key_len + FORMAT_FILE_HEAD + FORMAT_RECORD_HEAD +
			       FORMAT_BODY_HEAD + RSHM_TENANT_MAX <=
		       store->config.max_bytes;
}

void behind_sync_begin(struct behind_store *store)
{
	if (store->journal.syncing)
		return;
	store->sync_covered = store->sync_next;
	store->sync_next = (struct request_list){0};
	store->synced_ms = clock_monotonic_ms();
	journal_sync(&store->journal);
}

static bool has_room(const struct behind_store *store, const struct behind_entry *entry, size_t length)
{
	bool replaces = entry != NULL && entry->record != NULL;

	return (replaces || store->depth_records < store->config.max_records) &&
	       store->journal.bytes + length <= store->config.max_bytes;
}

/* RSHM_OK, and the record stands in the journal. */
static int accept_append(struct behind_store *store, const struct behind_entry *entry, struct behind_record *record)
{
	int status;

	if (!has_room(store, entry, record->length))
		journal_make_room(&store->journal);
	status = has_room(store, entry, record->length) ? journal_append(&store->journal, record) : RSHM_E_AGAIN;
	if (status == RSHM_E_FULL) {
		journal_make_room(&store->journal);
		status = journal_append(&store->journal, record);
	}
	if (status == RSHM_E_AGAIN || status == RSHM_E_FULL) {
		store->counts.refused_full++;
		behind_flush_trigger(store, clock_monotonic_ms(), true);
		behind_flush_pump(store);
		if (journal_needs_sync(&store->journal))
			behind_sync_begin(store);
	} else if (store->journal.bytes > store->config.max_bytes / 2 && journal_has_dead(&store->journal)) {
		/* Keys written over and over fill files faster than the interval empties them. */
		behind_sync_begin(store);
	}
	return status;
}

/* `entry` may be NULL. RSHM_OK: in the journal and the table. */
static int accept_record(struct behind_store *store, struct behind_entry *entry, struct behind_record *record)
{
	const struct behind_record *newest = NULL;
	int status = RSHM_OK;
	bool made = false;

	if (entry != NULL)
		newest = entry->record != NULL ? entry->record : entry->flying;
	if (newest != NULL && !format_newer(record->version, record->writer, newest->version, newest->writer)) {
		/* The same once more is fine; an older one would be acknowledged and lost. */
		bool same = record->version == newest->version && record->writer == newest->writer;

		store->counts.conflicts += !same;
		format_record_unref(record);
		return same ? RSHM_OK : RSHM_E_AGAIN;
	}
	if (entry == NULL) {
		entry = behind_table_insert(&store->table, &record->name);
		made = true;
		if (entry == NULL)
			status = RSHM_E_NOMEM;
		else
			entry->store = store;
	}
	if (status == RSHM_OK)
		status = accept_append(store, entry, record);
	if (status != RSHM_OK) {
		if (made && entry != NULL)
			behind_table_remove(&store->table, entry);
		format_record_unref(record);
		return status;
	}
	behind_flush_accept(store, entry, record);
	return RSHM_OK;
}

/* The key is free for it: nobody waits, nothing goes through. */
static void behind_accept(struct behind_store *store, struct behind_entry *entry, struct store_request *request)
{
	struct behind_record *record = NULL;
	int status = format_check_envelope(request);

	if (status == RSHM_OK && request->deadline_ms <= clock_monotonic_ms())
		status = RSHM_E_TIMEDOUT;
	if (status == RSHM_OK) {
		record = format_record_make(request, clock_realtime_ms());
		status = record == NULL ? RSHM_E_NOMEM : accept_record(store, entry, record);
	}
	if (status != RSHM_OK) {
		behind_defer(store, request, BEHIND_WAIT_ANSWER, status);
		return;
	}
	store->counts.accepted++;
	request->accepted = true;
	if (store->config.sync != BEHIND_SYNC_ALWAYS) {
		behind_defer(store, request, BEHIND_WAIT_ANSWER, RSHM_OK);
		return;
	}
	behind_wait(store, &store->sync_next, request, BEHIND_WAIT_ACK);
	behind_sync_begin(store);
}

/* ---- through -------------------------------------------------------------------------------------------------- */

static void entry_block(struct behind_store *store, struct behind_entry *entry, struct store_request *request)
{
	if (entry->waiters.count == 0) {
		entry->blocked_prev = NULL;
		entry->blocked_next = store->blocked;
		if (store->blocked != NULL)
			store->blocked->blocked_prev = entry;
		store->blocked = entry;
	}
	behind_wait(store, &entry->waiters, request, BEHIND_WAIT_ENTRY);
}

static void entry_unblock(struct behind_store *store, struct behind_entry *entry, struct store_request *request)
{
	request_list_remove(&entry->waiters, request);
	if (entry->waiters.count > 0)
		return;
	*(entry->blocked_prev != NULL ? &entry->blocked_prev->blocked_next : &store->blocked) = entry->blocked_next;
	if (entry->blocked_next != NULL)
		entry->blocked_next->blocked_prev = entry->blocked_prev;
}

void behind_entry_clean(struct behind_store *store, struct behind_entry *entry)
{
	while (entry->record == NULL && entry->flying == NULL && entry->through == NULL) {
		struct store_request *request = entry->waiters.first;

		entry->urgent = false;
		if (request == NULL) {
			behind_table_remove(&store->table, entry);
			return;
		}
		entry_unblock(store, entry, request);
		if (is_behind(store, request))
			behind_accept(store, entry, request);
		else if (through_start(store, entry, request))
			return;
	}
	/* Those who still wait, wait for the record that was accepted just now. */
	if (entry->waiters.count > 0)
		behind_flush_hurry(store, entry);
}

static void through_on_done(struct store_request *request)
{
	struct behind_entry *entry = request->context;
	struct behind_store *store = entry->store;

	must(entry->through == request);
	request->done = entry->through_done;
	request->context = entry->through_context;
	entry->through = NULL;
	behind_entry_clean(store, entry);
	request->done(request);
}

static void through_forward(struct behind_store *store, struct behind_entry *entry, struct store_request *request)
{
	entry->through_done = request->done;
	entry->through_context = request->context;
	request->done = through_on_done;
	request->context = entry;
	behind_pass(store, request);
}

/* Nothing of this key waits in the journal. True: the entry is its own, and gone when it is done. False: refused. */
static bool through_start(struct behind_store *store, struct behind_entry *entry, struct store_request *request)
{
	if (!journal_write_marks(&store->journal) && journal_awaits_mark(&store->journal, &entry->name)) {
		behind_defer(store, request, BEHIND_WAIT_ANSWER, RSHM_E_AGAIN);
		return false;
	}
	entry->through = request;
	if (journal_marks_safe(&store->journal)) {
		through_forward(store, entry, request);
		return true;
	}
	request->slot = entry;
	behind_wait(store, &store->sync_next, request, BEHIND_WAIT_MARKS);
	behind_sync_begin(store);
	return true;
}

static void behind_write(struct behind_store *store, struct store_request *request)
{
	struct behind_entry *entry = behind_table_find(&store->table, &request->name);
	bool behind = is_behind(store, request);

	if (entry != NULL && (entry->waiters.count > 0 || entry->through != NULL || !behind)) {
		entry_block(store, entry, request);
		if (entry->through == NULL)
			behind_flush_hurry(store, entry);
	} else if (behind) {
		behind_accept(store, entry, request);
	} else if ((entry = behind_table_insert(&store->table, &request->name)) == NULL) {
		behind_defer(store, request, BEHIND_WAIT_ANSWER, RSHM_E_NOMEM);
	} else {
		entry->store = store;
		if (!through_start(store, entry, request))
			behind_entry_clean(store, entry);
	}
}

/* ---- syncing -------------------------------------------------------------------------------------------------- */

/* A write on its way through does not go on. */
static void through_refuse(struct behind_store *store, struct store_request *request, int status)
{
	struct behind_entry *entry = request->slot;

	must(entry->through == request);
	entry->through = NULL;
	behind_defer(store, request, BEHIND_WAIT_ANSWER, status);
	behind_entry_clean(store, entry);
}

void behind_on_synced(void *context, bool ok)
{
	struct behind_store *store = context;
	struct request_list covered = store->sync_covered;
	struct store_request *request = covered.first, *next;

	store->sync_covered = (struct request_list){0};
	for (; request != NULL; request = next) {
		next = request->next;
		if (request->state == BEHIND_WAIT_ACK) {
			request->accepted = ok;
			behind_defer(store, request, BEHIND_WAIT_ANSWER, ok ? RSHM_OK : RSHM_E_UNKNOWN);
		} else if (!ok) {
			through_refuse(store, request, RSHM_E_AGAIN);
		} else {
			through_forward(store, request->slot, request);
		}
	}
	if (store->sync_next.count > 0)
		behind_sync_begin(store);
	if (store->phase == BEHIND_SYNCING)
		behind_close_step(store);
}

/* ---- barriers ------------------------------------------------------------------------------------------------- */

static uint64_t count_records(const struct behind_store *store, const char *tenant)
{
	const struct behind_entry *entry = NULL;
	uint64_t count = 0;

	if (store->depth_records == 0)
		return 0;
	while ((entry = behind_table_next(&store->table, entry)) != NULL)
		if (strcmp(entry->tenant, tenant) == 0)
			count += (entry->record != NULL) + (entry->flying != NULL);
	return count;
}

static void barrier_pass(struct behind_store *store, struct store_request *request)
{
	behind_defer(store, request, request->op == STORE_FLUSH ? BEHIND_WAIT_ANSWER : BEHIND_WAIT_PASS, RSHM_OK);
}

static void behind_barrier(struct behind_store *store, struct store_request *request)
{
	uint64_t left = count_records(store, request->name.tenant);
	struct behind_barrier *barrier;

	if (left == 0) {
		barrier_pass(store, request);
		return;
	}
	barrier = malloc(sizeof *barrier);
	if (barrier == NULL) {
		behind_defer(store, request, BEHIND_WAIT_ANSWER, RSHM_E_NOMEM);
		return;
	}
	*barrier = (struct behind_barrier){
		.next = store->barriers, .request = request, .order = store->order, .left = left};
	store->barriers = barrier;
	request->state = BEHIND_WAIT_FLUSH;
	if (request->deadline_ms < store->earliest_deadline_ms)
		store->earliest_deadline_ms = request->deadline_ms;
	behind_flush_trigger(store, clock_monotonic_ms(), true);
	behind_flush_pump(store);
	behind_wake(store);
}

void behind_barriers_step(struct behind_store *store, const struct store_name *name, uint64_t order)
{
	struct behind_barrier **link = &store->barriers, *barrier;

	while ((barrier = *link) != NULL) {
		if (order <= barrier->order && strcmp(barrier->request->name.tenant, name->tenant) == 0) {
			must(barrier->left > 0);
			barrier->left--;
		}
		if (barrier->left > 0) {
			link = &barrier->next;
			continue;
		}
		*link = barrier->next;
		barrier_pass(store, barrier->request);
		free(barrier);
	}
}

/* ---- submitting ----------------------------------------------------------------------------------------------- */

static bool name_is_sound(const struct store_name *name)
{
	return name->key_len > 0 && name->key_len <= RSHM_KEY_MAX &&
	       strnlen(name->tenant, RSHM_TENANT_MAX + 1) <= RSHM_TENANT_MAX;
}

static void behind_dispatch(struct behind_store *store, struct store_request *request)
{
	switch (request->op) {
	case STORE_GET:
	case STORE_HEAD:
		behind_read(store, request);
		return;
	case STORE_PUT:
	case STORE_DELETE:
	case STORE_TOUCH:
		/* Names that cannot be are refused below. */
		if (name_is_sound(&request->name))
			behind_write(store, request);
		else
			behind_pass(store, request);
		return;
	case STORE_FLUSH:
		behind_barrier(store, request);
		return;
	case STORE_LIST:
		if (request->cursor_len == 0) {
			behind_barrier(store, request);
			return;
		}
		break;
	default:
		break;
	}
	behind_pass(store, request);
}

void behind_submit(struct store *base, struct store_request *request)
{
	struct behind_store *store = behind_store_of(base);

	store->pending++;
	request->result = NULL;
	request->result_len = 0;
	request->remaining_ms = 0;
	request->found_version = 0;
	request->accepted = false;
	if (store->phase != BEHIND_OPEN)
		behind_defer(store, request, BEHIND_WAIT_ANSWER, RSHM_E_CLOSED);
	else
		behind_dispatch(store, request);
}

/* ---- what waits ------------------------------------------------------------------------------------------- */

void behind_run_deferred(struct behind_store *store)
{
	struct store_request *request = store->deferred.first, *next;

	store->deferred = (struct request_list){0};
	for (; request != NULL; request = next) {
		next = request->next;
		if (request->state == BEHIND_WAIT_ANSWER)
			behind_answer(store, request, request->status);
		else if (store->phase == BEHIND_ENDING)
			behind_answer(store, request, RSHM_E_CLOSED);
		else if (request->state == BEHIND_WAIT_READ)
			behind_read(store, request);
		else
			behind_pass(store, request);
	}
}

/* Those of `list` whose time is up, or all. */
static void expire_synced(struct behind_store *store, struct request_list *list, uint64_t now_ms, bool all)
{
	struct store_request *request = list->first, *next;

	for (; request != NULL; request = next) {
		next = request->next;
		if (!all && request->deadline_ms > now_ms) {
			if (request->deadline_ms < store->earliest_deadline_ms)
				store->earliest_deadline_ms = request->deadline_ms;
			continue;
		}
		if (request->state == BEHIND_WAIT_ACK) {
			request_list_remove(list, request);
			request->accepted = false;
			behind_defer(store, request, BEHIND_WAIT_ANSWER, RSHM_E_UNKNOWN);
		} else {
			request_list_remove(list, request);
			through_refuse(store, request, all ? RSHM_E_CLOSED : RSHM_E_TIMEDOUT);
		}
	}
}

static void expire_waiters(struct behind_store *store, uint64_t now_ms, bool all)
{
	struct behind_entry *entry = store->blocked, *next_entry;

	for (; entry != NULL; entry = next_entry) {
		struct store_request *request = entry->waiters.first, *next;

		next_entry = entry->blocked_next;
		for (; request != NULL; request = next) {
			next = request->next;
			if (!all && request->deadline_ms > now_ms) {
				if (request->deadline_ms < store->earliest_deadline_ms)
					store->earliest_deadline_ms = request->deadline_ms;
				continue;
			}
			entry_unblock(store, entry, request);
			behind_defer(store, request, BEHIND_WAIT_ANSWER, all ? RSHM_E_CLOSED : RSHM_E_TIMEDOUT);
		}
	}
}

static void expire_barriers(struct behind_store *store, uint64_t now_ms, bool all)
{
	struct behind_barrier **link = &store->barriers, *barrier;

	while ((barrier = *link) != NULL) {
		uint64_t deadline_ms = barrier->request->deadline_ms;

		if (!all && deadline_ms > now_ms) {
			if (deadline_ms < store->earliest_deadline_ms)
				store->earliest_deadline_ms = deadline_ms;
			link = &barrier->next;
			continue;
		}
		*link = barrier->next;
		behind_defer(store, barrier->request, BEHIND_WAIT_ANSWER, all ? RSHM_E_CLOSED : RSHM_E_TIMEDOUT);
		free(barrier);
	}
}

/* Answers who has waited too long, or `all`; finds the next deadline. */
void behind_expire(struct behind_store *store, uint64_t now_ms, bool all)
{
	store->earliest_deadline_ms = UINT64_MAX;
	expire_waiters(store, now_ms, all);
	expire_barriers(store, now_ms, all);
	expire_synced(store, &store->sync_next, now_ms, all);
	expire_synced(store, &store->sync_covered, now_ms, all);
}
