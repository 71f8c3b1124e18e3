/*
 * registry.c - calls on the tenants of a backend, step by step.
 *
 *	get      record
 *	insert   directory: read, enter the id if there is room, write if unchanged ─▶ record, if absent ─▶ if the id was there
 *	         before us: enter it again
 *	replace  record, if of its version
 *	remove   directory: since when? ─▶ record, if of its version ─▶ directory: read, take the id out, write if unchanged
 *	list     directory
 *	tidy     directory ─▶ each old id: is there a record? ─▶ directory: read, take these out, write if unchanged
 *
 * A directory that another agent changed meanwhile is read again and changed anew, DIRECTORY_ATTEMPTS times. Inserts and
 * removes wait for each other here, so that only other agents and tidying can come between. A write whose outcome is unknown
 * is looked at again the same way: entering an id that is there, or taking out one that is not, changes nothing.
 *
 * Whoever finds an id in the directory that it wants to insert cannot know whether somebody is about to take it out, because
 * the record is gone or never came. So the time of an entry is its identity: remove and tidy take out the very entry that
 * they saw before they looked at the record, and insert gives it another time, before its record is written, against those
 * who look later, and after it, against those who looked between.
 */
#include "agent/tenant/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/store/envelope.h"
#include "agent/tenant/directory.h"

#define DIRECTORY_KEY TENANT_RESERVED_ID /* no tenant's id */
#define DIRECTORY_ATTEMPTS 64u
#define DIRECTORY_BYTES_MAX (32u << 20)

enum call_kind { CALL_GET, CALL_INSERT, CALL_REPLACE, CALL_REMOVE, CALL_LIST, CALL_TIDY };

struct call {
	struct registry *registry;
	struct call *next; /* waiting */
	enum call_kind kind;
	char id[RSHM_TENANT_MAX + 1];
	struct tenant_record *record;
	struct directory directory;
	uint32_t attempts;
	uint64_t queued_ms;
	uint64_t entered_ms;             /* insert: of our entry, 0: not made yet; remove: of the entry to take out */
	bool was_listed, is_record_done; /* the id was there before us; what follows can fail no more */
	size_t limit;
	bool has_after;
	/* tidy: ids that were found without a record */
	struct directory orphans;
	size_t at;
	int status;
	bool is_asking, answered;
	struct envelope_buffer envelope;
	struct store_request request;
	void (*then)(struct call *call); /* after the directory was written, or needed no writing */
	union {
		registry_record_fn *record;
		registry_list_fn *list;
		registry_tidy_fn *tidy;
	} done;
	void *context;
	char text[256];
};

struct registry {
	struct store *store;
	struct hlc *hlc;
	struct registry_options options;
	uint32_t pending;
	struct call *writing, *waiting, **waiting_last; /* inserts and removes */
	bool is_starting;
};

/* ---- the life of a call ---------------------------------------------------------------------------------------- */

static void begin(struct call *call);

static void destroy(struct call *call)
{
	tenant_record_destroy(&call->record);
	directory_fini(&call->directory);
	directory_fini(&call->orphans);
	envelope_buffer_fini(&call->envelope);
	free(call);
}

/* Tidying is long: others do not wait for it. */
static bool takes_turns(const struct call *call)
{
	return call->kind == CALL_INSERT || call->kind == CALL_REMOVE;
}

static void leave(struct call *call)
{
	struct registry *r = call->registry;

	r->pending--;
	if (r->writing == call)
		r->writing = NULL;
}

static void end(struct call *call, int status);

/* Begins what waits, until one does not end at once: a long queue is no deep stack. */
static void start_next(struct registry *r)
{
	if (r->is_starting)
		return;
	r->is_starting = true;
	while (!r->writing && r->waiting) {
		struct call *call = r->waiting;

		r->waiting = call->next;
		if (!r->waiting)
			r->waiting_last = &r->waiting;
		r->writing = call;
		if (clock_monotonic_ms() - call->queued_ms < r->options.request_ms) {
			begin(call);
		} else {
			snprintf(call->text, sizeof(call->text), "other changes of tenants took too long; try again");
			end(call, RSHM_E_TIMEDOUT);
		}
	}
	r->is_starting = false;
}

/* The end of every call but a list. */
static void end(struct call *call, int status)
{
	struct registry *r = call->registry;
	struct tenant_record *record;

	if (call->is_record_done && status != RSHM_OK) {
		log_warn("tenant", "tenant %s was %s, but the directory was not brought up to date (status %d)",
			 call->id, call->kind == CALL_REMOVE ? "removed" : "made", status);
		call->text[0] = '\0';
		status = RSHM_OK;
	}
	record = status == RSHM_OK ? call->record : NULL;
	if (record)
		call->record = NULL;
	leave(call);
	if (call->kind == CALL_TIDY)
		call->done.tidy(call->context, status, call->orphans.count);
	else
		call->done.record(call->context, status, record, call->text[0] ? call->text : NULL);
	destroy(call);
	start_next(r);
}

static struct call *new_call(struct registry *r, enum call_kind kind, const char *id, void *context)
{
	struct call *call = r->pending < r->options.pending_max ? calloc(1, sizeof(*call)) : NULL;

	if (!call)
		return NULL;
	call->registry = r;
	call->kind = kind;
	call->context = context;
	snprintf(call->id, sizeof(call->id), "%s", id);
	r->pending++;
	return call;
}

static void enter(struct call *call)
{
	struct registry *r = call->registry;

	if (!takes_turns(call)) {
		begin(call);
	} else if (r->writing || r->waiting) {
		call->queued_ms = clock_monotonic_ms();
		*r->waiting_last = call;
		r->waiting_last = &call->next;
	} else {
		r->writing = call;
		begin(call);
	}
}

/* ---- the store ------------------------------------------------------------------------------------------------- */

static void ask(struct call *call, enum store_op op, const char *key, store_done_fn *done)
{
	const struct registry_options *options = &call->registry->options;

	call->request = (struct store_request){
		.op = op,
		.name = {.tenant = TENANT_RESERVED_ID,
			 .tenant_number = options->tenant_number,
			 .shards = options->shards,
			 .generation = 1,
			 .space = REGISTRY_SPACE,
			 .key = key,
			 .key_len = strlen(key)},
		.head_bytes = ENVELOPE_HEAD_BYTES,
		.skip_remaining = true,
		.deadline_ms = clock_monotonic_ms() + options->request_ms,
		.done = done,
		.context = call,
	};
}

/* Writes `value` if what is stored is of this version (0: nothing). */
static void write_if(struct call *call, const char *key, const void *value, size_t length, uint64_t version,
		     store_done_fn *done)
{
	struct registry *r = call->registry;
	struct envelope_compression compression = {.choice = ENVELOPE_CHOOSE_AUTO,
						   .threshold = ENVELOPE_THRESHOLD_DEFAULT};
	struct envelope_input input = {
		.key = key,
		.key_len = strlen(key),
		.value = value,
		.value_len = length,
		.created_ms = clock_realtime_ms(),
		.version = hlc_next(r->hlc),
		.writer_id = r->options.writer_id,
	};
	int status;

	envelope_buffer_fini(&call->envelope);
	status = envelope_encode(&input, &compression, &call->envelope);
	if (status < 0) {
		end(call, status);
		return;
	}
	ask(call, STORE_PUT, key, done);
	call->request.condition = version ? STORE_IF_VERSION : STORE_IF_ABSENT;
	call->request.expected_version = version;
	call->request.envelope = call->envelope.bytes;
	call->request.envelope_len = call->envelope.length;
	store_submit(r->store, &call->request);
}

/* The plain value of an answered GET, the caller's to free. */
static int plain_of(const struct call *call, const char *key, size_t max, char **ret, size_t *ret_length,
		    uint64_t *ret_version)
{
	const struct store_request *request = &call->request;
	struct envelope_view view;
	char *plain;
	int status = envelope_open(request->result, request->result_len, key, strlen(key), &view);

	if (status == RSHM_OK && view.head.plain_size > max)
		status = RSHM_E_CORRUPT;
	if (status < 0)
		return status;
	plain = malloc(view.head.plain_size + 1);
	if (!plain)
		return RSHM_E_NOMEM;
	status = envelope_payload(&view, plain, view.head.plain_size);
	if (status < 0) {
		free(plain);
		return status;
	}
	*ret = plain;
	*ret_length = view.head.plain_size;
	*ret_version = view.head.version;
	(void)hlc_observe(call->registry->hlc, view.head.version);
	return RSHM_OK;
}

/* The version that the written envelope carries. */
static uint64_t written_version(const struct call *call)
{
	struct envelope_head head;

	must(envelope_peek_head(call->envelope.bytes, call->envelope.length, &head) == RSHM_OK);
	return head.version;
}

static void read_directory(struct call *call);

static void end_well(struct call *call)
{
	end(call, RSHM_OK);
}

/* ---- records --------------------------------------------------------------------------------------------------- */

static void get_on_done(struct store_request *request)
{
	struct call *call = request->context;
	int status = request->status;
	char *plain = NULL;
	size_t length = 0;
	uint64_t version = 0;

	if (status == RSHM_OK)
		status = plain_of(call, call->id, TENANT_RECORD_MAX, &plain, &length, &version);
	if (status == RSHM_OK)
		status = tenant_record_decode(call->id, plain, length, &call->record, call->text, sizeof(call->text));
	if (status == RSHM_OK)
		call->record->version = version;
	if (status == RSHM_MISS)
		snprintf(call->text, sizeof(call->text), "there is no tenant %s", call->id);
	if ((status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT) && !call->text[0])
		snprintf(call->text, sizeof(call->text),
			 "the record of tenant %s in the backend is damaged, or of a newer release", call->id);
	if (status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT)
		log_error("tenant", "%s", call->text);
	free(plain);
	end(call, status);
}

static void put_on_done(struct store_request *request)
{
	struct call *call = request->context;

	if (request->status == RSHM_OK)
		call->record->version = written_version(call);
	else if (request->status == RSHM_CONFLICT && call->kind == CALL_INSERT)
		snprintf(call->text, sizeof(call->text), "there is a tenant %s already", call->id);
	else if (request->status == RSHM_CONFLICT)
		snprintf(call->text, sizeof(call->text),
			 "tenant %s was changed by somebody else meanwhile; try again", call->id);
	if (request->status != RSHM_OK || !call->was_listed) {
		end(call, request->status);
		return;
	}
	call->is_record_done = true;
	call->entered_ms = 0;
	call->attempts = 0;
	call->then = end_well;
	read_directory(call);
}

static void put_record(struct call *call)
{
	char *text = tenant_record_encode(call->record);

	if (!text) {
		end(call, RSHM_E_NOMEM);
		return;
	}
	write_if(call, call->id, text, strlen(text), call->kind == CALL_INSERT ? 0 : call->record->version,
		 put_on_done);
	free(text);
}

/* ---- the directory --------------------------------------------------------------------------------------------- */

static void directory_on_written(struct store_request *request)
{
	struct call *call = request->context;
	int status = request->status;

	if ((status == RSHM_CONFLICT || status == RSHM_E_UNKNOWN) && ++call->attempts < DIRECTORY_ATTEMPTS) {
		read_directory(call);
		return;
	}
	if (status == RSHM_OK) {
		call->then(call);
		return;
	}
	if (status == RSHM_CONFLICT) {
		snprintf(call->text, sizeof(call->text),
			 "too many tenants are created and deleted at once; try again");
		status = RSHM_E_AGAIN;
	}
	end(call, status);
}

static void write_directory(struct call *call)
{
	size_t length;
	char *text = directory_encode(&call->directory, &length);

	if (!text) {
		end(call, RSHM_E_NOMEM);
		return;
	}
	write_if(call, DIRECTORY_KEY, text, length, call->directory.version, directory_on_written);
	free(text);
}

static void enter_id(struct call *call)
{
	struct directory *d = &call->directory;
	uint64_t now_ms = clock_realtime_ms();
	bool found;
	size_t at = directory_find(d, call->id, &found);

	if (found && call->entered_ms != 0 && d->items[at].entered_ms == call->entered_ms) {
		call->then(call);
		return;
	}
	if (!found && !call->is_record_done && d->count >= call->registry->options.tenants_max) {
		snprintf(call->text, sizeof(call->text),
			 "there are %zu tenants, and no more are allowed; raise tenancy.max_tenants, or delete some",
			 d->count);
		end(call, RSHM_E_FULL);
		return;
	}
	if (found) {
		uint64_t other_ms = d->items[at].entered_ms + 1;

		call->was_listed = true;
		d->items[at].entered_ms = other_ms > now_ms ? other_ms : now_ms;
	} else if (directory_add(d, call->id, now_ms) < 0) {
		end(call, RSHM_E_NOMEM);
		return;
	}
	call->entered_ms = d->items[at].entered_ms;
	write_directory(call);
}

static void take_id_out(struct call *call)
{
	struct directory *d = &call->directory;
	bool found;
	size_t at = directory_find(d, call->id, &found);

	if (found && d->items[at].entered_ms == call->entered_ms) {
		(void)directory_remove(d, call->id);
		write_directory(call);
	} else {
		call->then(call);
	}
}

static void record_on_removed(struct store_request *request)
{
	struct call *call = request->context;

	tenant_record_destroy(&call->record);
	if (request->status == RSHM_OK && call->was_listed) {
		call->is_record_done = true;
		read_directory(call);
		return;
	}
	if (request->status == RSHM_CONFLICT)
		snprintf(call->text, sizeof(call->text),
			 "tenant %s was changed by somebody else meanwhile; try again", call->id);
	else if (request->status == RSHM_MISS)
		snprintf(call->text, sizeof(call->text), "there is no tenant %s", call->id);
	end(call, request->status);
}

static void remove_record(struct call *call)
{
	const struct directory *d = &call->directory;
	size_t at = directory_find(d, call->id, &call->was_listed);

	call->entered_ms = call->was_listed ? d->items[at].entered_ms : 0;
	ask(call, STORE_DELETE, call->id, record_on_removed);
	call->request.condition = STORE_IF_VERSION;
	call->request.expected_version = call->record->version;
	store_submit(call->registry->store, &call->request);
}

static void list_ids(struct call *call)
{
	const struct directory *d = &call->directory;
	const char *ids[REGISTRY_PAGE_MAX];
	bool found = false;
	size_t at = call->has_after ? directory_find(d, call->id, &found) : 0, count = 0;

	for (at += found; at < d->count && count < call->limit && count < REGISTRY_PAGE_MAX; at++)
		ids[count++] = d->items[at].id;
	leave(call);
	call->done.list(call->context, RSHM_OK, ids, count, d->count);
	destroy(call);
}

static void tidy_next(struct call *call);

static void orphan_on_answer(struct store_request *request)
{
	struct call *call = request->context;
	const struct directory_item *item = &call->directory.items[call->at++];

	call->answered = true;
	call->status = request->status;
	if (call->status == RSHM_MISS)
		call->status = directory_add(&call->orphans, item->id, item->entered_ms);
	else if (call->status == RSHM_E_CORRUPT || call->status == RSHM_E_FORMAT)
		call->status = RSHM_OK; /* there is something */
	if (!call->is_asking)
		tidy_next(call);
}

/* Passes over the ids that are too young; false: there are no more. */
static bool find_old_id(struct call *call)
{
	const struct directory *d = &call->directory;
	uint64_t now_ms = clock_realtime_ms(), orphan_ms = call->registry->options.orphan_ms;

	for (; call->at < d->count; call->at++) {
		uint64_t entered_ms = d->items[call->at].entered_ms;

		if (entered_ms <= now_ms && now_ms - entered_ms >= orphan_ms)
			break;
	}
	return call->at < d->count;
}

/*
 * Looks at the next old ids, as far as the store answers at once; after the last one takes out those that have no record.
 * Answers from within the question return here, or a long directory would be a deep stack.
 */
static void tidy_next(struct call *call)
{
	while (call->status >= 0 && find_old_id(call)) {
		call->answered = false;
		call->is_asking = true;
		ask(call, STORE_HEAD, call->directory.items[call->at].id, orphan_on_answer);
		store_submit(call->registry->store, &call->request);
		call->is_asking = false;
		if (!call->answered)
			return;
	}
	if (call->status >= 0 && call->orphans.count > 0)
		read_directory(call);
	else
		end(call, call->status < 0 ? call->status : RSHM_OK);
}

static void take_orphans_out(struct call *call)
{
	bool changed = false, found;

	for (size_t i = 0; i < call->orphans.count; i++) {
		const struct directory_item *orphan = &call->orphans.items[i];
		size_t at = directory_find(&call->directory, orphan->id, &found);

		/* Entered anew meanwhile, it is somebody's tenant to be. */
		if (found && call->directory.items[at].entered_ms == orphan->entered_ms)
			changed |= directory_remove(&call->directory, orphan->id);
	}
	if (changed)
		write_directory(call);
	else
		call->then(call);
}

static void use_directory(struct call *call)
{
	switch (call->kind) {
	case CALL_INSERT:
		enter_id(call);
		break;
	case CALL_REMOVE:
		if (call->is_record_done)
			take_id_out(call);
		else
			remove_record(call);
		break;
	case CALL_LIST:
		list_ids(call);
		break;
	default:
		if (call->orphans.count > 0)
			take_orphans_out(call);
		else
			tidy_next(call);
		break;
	}
}

static void end_without_directory(struct call *call, int status)
{
	if (call->kind != CALL_LIST) {
		end(call, status);
		return;
	}
	leave(call);
	call->done.list(call->context, status, NULL, 0, 0);
	destroy(call);
}

static void directory_on_read(struct store_request *request)
{
	struct call *call = request->context;
	uint64_t version = 0;
	char *plain = NULL;
	size_t length = 0;
	int status = request->status;

	directory_fini(&call->directory);
	if (status == RSHM_OK) {
		status = plain_of(call, DIRECTORY_KEY, DIRECTORY_BYTES_MAX, &plain, &length, &version);
		if (status == RSHM_OK)
			status = directory_decode(plain, length, &call->directory);
		if (status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT) {
			snprintf(call->text, sizeof(call->text),
				 "the directory of tenants in the backend is damaged, or of a newer release");
			log_error("tenant", "%s", call->text);
		}
		call->directory.version = version;
		free(plain);
	}
	if (status < 0)
		end_without_directory(call, status);
	else
		use_directory(call);
}

static void read_directory(struct call *call)
{
	ask(call, STORE_GET, DIRECTORY_KEY, directory_on_read);
	store_submit(call->registry->store, &call->request);
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

static void begin(struct call *call)
{
	switch (call->kind) {
	case CALL_GET:
		ask(call, STORE_GET, call->id, get_on_done);
		store_submit(call->registry->store, &call->request);
		break;
	case CALL_INSERT:
		call->then = put_record;
		read_directory(call);
		break;
	case CALL_REPLACE:
		put_record(call);
		break;
	case CALL_REMOVE:
	case CALL_LIST:
	case CALL_TIDY:
		call->then = end_well;
		read_directory(call);
		break;
	}
}

static void start(struct registry *r, enum call_kind kind, const char *id, struct tenant_record *record,
		  registry_record_fn *done, void *context)
{
	struct call *call = new_call(r, kind, id, context);

	if (!call) {
		tenant_record_destroy(&record);
		done(context, RSHM_E_AGAIN, NULL, "too many changes of tenants are under way; try again");
		return;
	}
	call->record = record;
	call->done.record = done;
	enter(call);
}

void registry_get(struct registry *r, const char *id, registry_record_fn *done, void *context)
{
	if (!tenant_id_is_valid(id))
		done(context, RSHM_MISS, NULL, "a tenant's id has 1 to 64 characters of a-z, 0-9 and '-'");
	else
		start(r, CALL_GET, id, NULL, done, context);
}

void registry_insert(struct registry *r, struct tenant_record *record, registry_record_fn *done, void *context)
{
	start(r, CALL_INSERT, record->id, record, done, context);
}

void registry_replace(struct registry *r, struct tenant_record *record, registry_record_fn *done, void *context)
{
	must(record->version != 0);
	start(r, CALL_REPLACE, record->id, record, done, context);
}

void registry_remove(struct registry *r, struct tenant_record *record, registry_record_fn *done, void *context)
{
	must(record->version != 0);
	start(r, CALL_REMOVE, record->id, record, done, context);
}

void registry_list(struct registry *r, const char *after, size_t limit, registry_list_fn *done, void *context)
{
	struct call *call = new_call(r, CALL_LIST, after ? after : "", context);

	if (!call) {
		done(context, RSHM_E_AGAIN, NULL, 0, 0);
		return;
	}
	call->has_after = after != NULL;
	call->limit = limit;
	call->done.list = done;
	enter(call);
}

void registry_tidy(struct registry *r, registry_tidy_fn *done, void *context)
{
	struct call *call = new_call(r, CALL_TIDY, "", context);

	if (!call) {
		done(context, RSHM_E_AGAIN, 0);
		return;
	}
	call->done.tidy = done;
	enter(call);
}

int registry_open(struct store *store, struct hlc *hlc, const struct registry_options *options, struct registry **ret)
{
	struct registry *r = calloc(1, sizeof(*r));

	if (!r)
		return RSHM_E_NOMEM;
	r->store = store;
	r->hlc = hlc;
	r->options = *options;
	r->waiting_last = &r->waiting;
	*ret = r;
	return RSHM_OK;
}

void registry_close(struct registry **registry)
{
	struct registry *r = *registry;

	*registry = NULL;
	must(!r || (r->pending == 0 && !r->writing && !r->waiting));
	free(r);
}
