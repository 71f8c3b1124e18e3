/*
 * erasing.c - everything that a backend and this worker's disk tier hold of a tenant goes.
 *
 *	the tenant's keys, if it encrypts: whatever else remains somewhere is noise from then on ─▶
 *	what the journal has accepted is stored ─▶ another generation is in force: from then on nobody finds the rest ─▶
 *	entries, tags and sessions of all older generations ─▶ dictionaries ─▶ noted as swept ─▶ the disk tier ─▶ what was counted
 *
 * May be begun anew at any point, by any agent: what is gone is not met again. What remains is the tenant's namespace with the
 * number of its generation, so that a tenant of the same id never meets what a forgotten journal still writes.
 *
 * Another host may have accepted writes behind that reach the store after the sweep. When it closes the tenant, it removes them
 * itself (the rest):
 *
 *	what the journal has accepted is stored ─▶ entries, tags and sessions of the generations from the one that was in
 *	force here up to the one before that which is now; none if that is the same: then the sweep is still to come
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/serve/rings.h"
#include "agent/serve/serve_priv.h"
#include "agent/serve/walk.h"
#include "agent/store/dictionary.h"
#include "agent/tenant/record.h"

#define WALK_MS (24u * 3600 * 1000) /* of a whole generation; each request has its own deadline */
#define REQUEST_MS 5000u

static const char swept_spaces[] = {'c', 't', 's'};

struct erasing {
	struct walk walk; /* first */
	struct worker *worker;
	struct store_name name;
	uint32_t registry_number;
	struct store_request request;
	struct envelope_buffer mark;      /* in the place of the keys */
	uint64_t generation, generations; /* being erased, in force */
	size_t space;
	struct erase_counts counts;
	tenant_erased_fn *done;
	void (*rest_done)(void *context); /* instead, if it is the rest */
	void *context;
};

struct erasing_item {
	struct store_request request;
	struct erasing *erasing;
};

static void next_space(struct erasing *e);

static void end(struct erasing *e, int status)
{
	if (e->rest_done)
		e->rest_done(e->context);
	else
		e->done(e->context, status, &e->counts);
	envelope_buffer_fini(&e->mark);
	free(e);
}

static void ask(struct erasing *e, enum store_op op, store_done_fn *done, const struct store_name *name)
{
	e->request = (struct store_request){
		.op = op,
		.name = *name,
		.deadline_ms = clock_monotonic_ms() + REQUEST_MS,
		.done = done,
		.context = e,
	};
	if (op == STORE_SWEPT)
		e->request.swept = e->generations - 1;
	store_submit(e->worker->store, &e->request);
}

/* ---- one space of one generation -------------------------------------------------------------------------------- */

static void item_on_removed(struct store_request *request)
{
	struct erasing_item *item = request->context;
	struct erasing *e = item->erasing;
	int status = request->status;

	free(item);
	if (status == RSHM_OK && e->walk.name.space == 'c')
		e->counts.entries++;
	else if (status == RSHM_OK && e->walk.name.space == 't')
		e->counts.tags++;
	else if (status == RSHM_OK && e->walk.name.space == DICTIONARY_SPACE)
		e->counts.dictionaries++;
	else if (status == RSHM_OK)
		e->counts.sessions++;
	walk_item_done(&e->walk, status);
}

static void key_on_found(struct walk *walk, const void *key, size_t key_len)
{
	struct erasing_item *item = calloc(1, sizeof(*item));

	if (!item) {
		walk_item_done(walk, RSHM_E_NOMEM);
		return;
	}
	item->erasing = (struct erasing *)walk;
	item->request = (struct store_request){
		.op = STORE_DELETE,
		.name = walk->name,
		.deadline_ms = clock_monotonic_ms() + REQUEST_MS,
		.done = item_on_removed,
		.context = item,
	};
	item->request.name.key = key;
	item->request.name.key_len = key_len;
	store_submit(walk->store, &item->request);
}

static void space_on_walked(struct walk *walk, int status)
{
	struct erasing *e = (struct erasing *)walk;

	if (status < 0) {
		end(e, status);
		return;
	}
	e->space++;
	next_space(e);
}

static void erase(struct erasing *e, uint64_t generation, char space)
{
	e->walk = (struct walk){
		.store = e->worker->store,
		.name = e->name,
		.deadline_ms = clock_monotonic_ms() + WALK_MS,
		.each = key_on_found,
		.done = space_on_walked,
	};
	e->walk.name.generation = generation;
	e->walk.name.space = space;
	walk_start(&e->walk);
}

/* ---- the steps --------------------------------------------------------------------------------------------------- */

static void account_on_removed(struct store_request *request)
{
	struct erasing *e = request->context;

	end(e, request->status < 0 ? request->status : RSHM_OK);
}

static void swept_on_noted(struct store_request *request)
{
	struct erasing *e = request->context;
	struct store_name account = {
		.tenant = TENANT_RESERVED_ID,
		.tenant_number = e->registry_number,
		.shards = 1,
		.generation = 1,
		.space = ACCOUNT_SPACE,
		.key = e->name.tenant,
		.key_len = strlen(e->name.tenant),
	};

	if (request->status < 0) {
		end(e, request->status);
		return;
	}
	if (e->worker->spill)
		spill_remove_generations(e->worker->spill, e->name.tenant_number, UINT64_MAX);
	ask(e, STORE_DELETE, account_on_removed, &account);
}

static void next_space(struct erasing *e)
{
	if (e->space == sizeof(swept_spaces)) {
		e->space = 0;
		e->generation++;
	}
	if (e->generation < e->generations)
		erase(e, e->generation, swept_spaces[e->space]);
	else if (e->rest_done)
		end(e, RSHM_OK);
	else if (e->generation == e->generations && e->space == 0)
		erase(e, 1, DICTIONARY_SPACE);
	else
		ask(e, STORE_SWEPT, swept_on_noted, &e->name);
}

static void generation_on_made(struct store_request *request)
{
	struct erasing *e = request->context;

	if (request->status < 0) {
		end(e, request->status);
		return;
	}
	e->generations = request->generation;
	if (!e->rest_done)
		e->generation = request->swept + 1;
	next_space(e);
}

static void journal_on_flushed(struct store_request *request)
{
	struct erasing *e = request->context;

	if (request->status < 0)
		end(e, request->status);
	else
		ask(e, e->rest_done ? STORE_GENERATION : STORE_NEXT_GENERATION, generation_on_made, &e->name);
}

static void keys_on_removed(struct store_request *request)
{
	struct erasing *e = request->context;

	if (request->status < 0)
		end(e, request->status);
	else
		ask(e, STORE_FLUSH, journal_on_flushed, &e->name);
}

void erasing_begin(struct worker *worker, const struct tenant *tenant, tenant_erased_fn *done, void *context)
{
	static const struct erase_counts nothing = {0};
	struct erasing *e = worker->closing ? NULL : calloc(1, sizeof(*e));
	int status;

	if (!e) {
		done(context, worker->closing ? RSHM_E_CLOSED : RSHM_E_NOMEM, &nothing);
		return;
	}
	e->worker = worker;
	e->name = entry_store_name(tenant);
	e->registry_number = tenant->registry_number;
	e->done = done;
	e->context = context;
	status = ring_removal(worker, tenant, &e->mark, &e->request);
	if (status < 0) {
		end(e, status);
		return;
	}
	e->request.done = keys_on_removed;
	e->request.context = e;
	store_submit(worker->store, &e->request);
}

void erasing_rest_begin(struct worker *worker, const struct tenant *tenant, uint64_t generation,
			void (*done)(void *context), void *context)
{
	struct erasing *e = worker->closing || generation == 0 ? NULL : calloc(1, sizeof(*e));

	if (!e) {
		done(context);
		return;
	}
	e->worker = worker;
	e->name = entry_store_name(tenant);
	e->generation = generation;
	e->rest_done = done;
	e->context = context;
	ask(e, STORE_FLUSH, journal_on_flushed, &e->name);
}
