/*
 * space.c - a tenant's view of the store: every name gets the generation of its namespace that is in force.
 *
 * `clear` removes all entries of a tenant in one step by making another generation the present one; what the old ones still
 * hold is swept in the background. Which generation is in force stands in the backend, because all agents must agree; until
 * it is known, requests wait here, each at most until its deadline. Where other agents share the backend it is asked for
 * again whenever the backend tells of a change (space_doubt(); the lease waits for the answer), or, where nothing is told,
 * twice in hot_max_age_ms, so that their `clear` reaches our hot copies no later than any other foreign change.
 *
 * Where the tenant encrypts, envelopes are sealed here on their way down and opened on their way up (rings.h), so that nothing
 * below knows of it, and nothing above.
 *
 * Callers leave name.generation at 0; a number there is taken as it is (the sweep's).
 */
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/cache/tags.h"
#include "agent/serve/rings.h"
#include "agent/serve/serve_priv.h"

#define GENERATION_DEADLINE_MS 5000u
#define RETRY_MS 500u

static struct space *space_of(struct store *store)
{
	return (struct space *)store;
}

static bool names_an_entry(const struct store_request *request)
{
	return request->op <= STORE_LIST;
}

/* What the tenant's keys are needed for. */
static bool carries_values(const struct store_request *request)
{
	return request->op == STORE_GET || request->op == STORE_PUT;
}

static bool is_ready(const struct space *space, const struct store_request *request)
{
	return !names_an_entry(request) || ((space->generation || request->name.generation) &&
					    (!carries_values(request) || sealing_is_ready(space->tenant)));
}

static void answer(struct store_request *request, int status)
{
	request->status = status;
	request->done(request);
}

static void wait_in_line(struct space *space, struct store_request *request)
{
	request->next = space->waiting;
	space->waiting = request;
	space->waiting_count++;
}

/* ---- down and up ------------------------------------------------------------------------------------------------ */

/*
 * What the store lent, opened. What is refused keeps the status of a question that was answered: it says nothing of the backend,
 * and the reader finds no envelope in it, or one that is sealed. False: it waits for newer keys, to be asked again.
 */
static bool open_result(struct space *space, struct store_request *request, struct envelope_buffer *plain)
{
	int status = sealing_open(space->tenant, &request->name, request->result, request->result_len, plain);

	if (status == RSHM_E_NOKEY && !request->layer_again && !space->closing && sealing_ask_again(space->tenant)) {
		request->layer_again = true;
		wait_in_line(space, request);
		return false;
	}
	if (status == RSHM_OK) {
		request->result = plain->bytes;
		request->result_len = plain->length;
	} else if (status == RSHM_E_CORRUPT) {
		request->result_len = 0;
	} else if (status == RSHM_E_NOMEM) {
		request->status = status;
	}
	return true;
}

static void request_on_done(struct store_request *request)
{
	struct space *space = request->layer;
	struct envelope_buffer other = {0};

	request->done = request->layer_done;
	space->pending--;
	if (request->layer_plain) {
		other.bytes = (void *)request->envelope;
		request->envelope = request->layer_plain;
		request->envelope_len = request->layer_plain_len;
		request->layer_plain = NULL;
	}
	if (request->op == STORE_GET && request->status == RSHM_OK && !open_result(space, request, &other))
		return;
	request->done(request);
	envelope_buffer_fini(&other);
}

/* A PUT's envelope as it is to be stored. */
static int seal(struct space *space, struct store_request *request)
{
	struct envelope_buffer sealed;
	int status = sealing_seal(space->tenant, &request->name, request->envelope, request->envelope_len, &sealed);

	if (status != RSHM_OK)
		return status;
	request->layer_plain = request->envelope;
	request->layer_plain_len = request->envelope_len;
	request->envelope = sealed.bytes;
	request->envelope_len = sealed.length;
	return RSHM_OK;
}

static void pass_on(struct space *space, struct store_request *request)
{
	int status = RSHM_OK;

	if (names_an_entry(request) && request->name.generation == 0)
		request->name.generation = space->generation;
	request->layer_plain = NULL;
	if (request->op == STORE_PUT)
		status = seal(space, request);
	if (status < 0) {
		answer(request, status);
		return;
	}
	request->layer = space;
	request->layer_done = request->done;
	request->done = request_on_done;
	space->pending++;
	store_submit(space->backend, request);
}

/* Passes on what can be. `status`: if it is an error, nothing else waits any longer. */
static void release_waiting(struct space *space, int status)
{
	struct store_request *request = space->waiting;

	space->waiting = NULL;
	space->waiting_count = 0;
	while (request) {
		struct store_request *next = request->next;

		if (!space->closing && is_ready(space, request))
			pass_on(space, request);
		else if (status < 0)
			answer(request, status);
		else
			wait_in_line(space, request);
		request = next;
	}
}

void space_keys_told(struct space *space, int status)
{
	release_waiting(space, status);
}

/* In the book of what left shared memory. */
static void note_cleared(struct serve_tenant *tenant)
{
	struct hot_figures hot;

	hot_figures(tenant->hot, &hot);
	evictions_record_many(tenant->evictions, EVICTION_MANUAL, hot.entries, hot.used_bytes, clock_monotonic_ms());
}

void space_set_generation(struct space *space, uint64_t generation, uint64_t swept)
{
	bool known = space->generation == generation, changed = space->generation && !known;

	space->generation = generation;
	space->swept = swept;
	space->known_at_ms = clock_monotonic_ms();
	if (changed) {
		log_info("serve", "tenant %s: cleared; generation %llu is in force", space->tenant->tenant->id,
			 (unsigned long long)generation);
		note_cleared(space->tenant);
		hot_clear(space->tenant->hot);
		tag_epochs_forget_all(space->tenant->tag_epochs);
		accesses_forget_all(space->tenant->accesses);
	}
	/* Whoever cleared it, and when. */
	if (!known)
		spilling_remove_generations(space->tenant, generation - 1);
	if (swept + 1 < generation)
		sweep_start(space->tenant);
}

static void ask(struct space *space);

/* The answer is as new as the last doubt. */
static void end_doubt(struct space *space)
{
	struct serve_tenant *tenant = space->tenant;

	if (space->doubted)
		lease_end_check(&tenant->worker->lease, space->held);
	space->doubted = false;
	if (tenant->verify_due && !space->closing) {
		tenant->verify_due = false;
		revalidation_start(tenant->revalidation);
	}
}

static void generation_on_known(struct store_request *request)
{
	struct space *space = request->context;

	space->asking = false;
	/* Cleared or changed since it was asked for: the answer may be from before. */
	if (request->status == RSHM_OK && space->asked_doubts != space->doubts) {
		ask(space);
		return;
	}
	if (request->status == RSHM_OK) {
		space_set_generation(space, request->generation, request->swept);
		release_waiting(space, RSHM_OK);
		end_doubt(space);
		return;
	}
	space->retry_at_ms = clock_monotonic_ms() + RETRY_MS;
	/* With a generation known once, an outage changes nothing: the requests meet it themselves. */
	release_waiting(space, space->generation                   ? RSHM_OK
			       : request->status == RSHM_E_UNKNOWN ? RSHM_E_TIMEDOUT
								   : request->status);
}

static void ask(struct space *space)
{
	if (space->asking || space->closing)
		return;
	space->asking = true;
	space->asked_doubts = space->doubts;
	space->question = (struct store_request){
		.op = STORE_GENERATION,
		.name = entry_store_name(space->tenant->tenant),
		.deadline_ms = clock_monotonic_ms() + GENERATION_DEADLINE_MS,
		.done = generation_on_known,
		.context = space,
	};
	pass_on(space, &space->question);
}

void space_tick(struct space *space, uint64_t now_ms)
{
	uint64_t max_age_ms = space->tenant->worker->max_age_ms;
	struct store_request **link = &space->waiting;

	while (*link) {
		struct store_request *request = *link;

		if (now_ms < request->deadline_ms) {
			link = &request->next;
			continue;
		}
		*link = request->next;
		space->waiting_count--;
		answer(request, RSHM_E_TIMEDOUT);
		/* `done` may have changed the list. */
		link = &space->waiting;
	}
	if (!space->generation || space->doubted ? now_ms >= space->retry_at_ms
						 : max_age_ms && now_ms - space->known_at_ms >= max_age_ms / 2)
		ask(space);
}

void space_doubt(struct space *space)
{
	if (space->closing)
		return;
	space->doubts++;
	if (!space->doubted)
		space->held = lease_begin_check(&space->tenant->worker->lease);
	space->doubted = true;
	ask(space);
}

static void space_submit(struct store *store, struct store_request *request)
{
	struct space *space = space_of(store);

	/* The backend may be gone; what stood in line behind the last operations still comes here. */
	if (space->closing) {
		answer(request, RSHM_E_CLOSED);
		return;
	}
	request->layer_again = false;
	if (is_ready(space, request)) {
		pass_on(space, request);
		return;
	}
	if (space->waiting_count >= space->waiting_max) {
		answer(request, RSHM_E_AGAIN);
		return;
	}
	wait_in_line(space, request);
	if (!space->generation)
		ask(space);
	if (!sealing_is_ready(space->tenant))
		sealing_ask(space->tenant);
}

static void space_status(struct store *store, struct store_status *ret)
{
	store_status(space_of(store)->backend, ret);
}

static const struct store_ops space_ops = {.name = "space", .submit = space_submit, .status = space_status};

void space_init(struct space *space, struct serve_tenant *tenant, struct store *backend, uint32_t waiting_max)
{
	*space = (struct space){
		.base = {.ops = &space_ops},
		.tenant = tenant,
		.backend = backend,
		.waiting_max = waiting_max,
	};
}

void space_stop(struct space *space)
{
	space->closing = true;
	release_waiting(space, RSHM_E_CLOSED);
}
