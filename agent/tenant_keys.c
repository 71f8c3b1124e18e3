/*
 * tenant_keys.c - the master key, and what operators do with the keys of tenants that encrypt.
 *
 * Worker threads change rings and seal entries anew (agent/serve/rekeying.c); here is who asked for it, and how far it has come.
 * Of each tenant the last resealing is remembered until the next.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/base/mailbox.h"
#include "agent/tenant/master_key.h"
#include "agent/tenant_admin_priv.h"

#define CREDENTIAL "riptide-master-key"
#define REMEMBERED_MAX 1000u /* resealings that are over */

struct key_work {
	struct key_work *next;
	struct agent *agent;
	struct job *job; /* not answered yet */
	struct tenant *tenant;
	struct worker_keys_progress progress;
	bool reseals, running;
	int status;
};

struct key_message {
	struct mailbox_message message; /* first */
	struct key_work *work;
	int status;
	struct worker_keys keys;
	char why[256];
};

/* ---- the master key ---------------------------------------------------------------------------------------------- */

static bool is_given_by_manager(char *path, size_t size)
{
	const char *folder = getenv("CREDENTIALS_DIRECTORY");

	return folder && folder[0] == '/' && snprintf(path, size, "%s/%s", folder, CREDENTIAL) < (int)size &&
	       access(path, F_OK) == 0;
}

int tenant_keys_open(struct agent *a, char *error, size_t error_len)
{
	const char *path = a->config->encryption.master_key_file;
	const char *former = a->config->encryption.former_master_key_file;
	char credential[4096];
	size_t count = former[0] != '\0';
	int status;

	if (path[0] == '\0') {
		if (!is_given_by_manager(credential, sizeof(credential)))
			return RSHM_OK;
		path = credential;
	}
	status = master_keys_load(path, &former, count, &a->masters, error, error_len);
	if (status == RSHM_OK)
		log_info("agent", "master key %s%s%s", master_keys_id(a->masters, 0), count ? ", before " : "",
			 count ? master_keys_id(a->masters, 1) : "");
	return status;
}

/* ---- work ---------------------------------------------------------------------------------------------------------- */

static void destroy(struct key_work *work)
{
	tenant_destroy(&work->tenant);
	free(work);
}

void tenant_keys_forget(struct agent *a)
{
	while (a->key_work) {
		struct key_work *next = a->key_work->next;

		destroy(a->key_work);
		a->key_work = next;
	}
}

static void remove_work(struct agent *a, struct key_work *work)
{
	struct key_work **link = &a->key_work;

	while (*link != work)
		link = &(*link)->next;
	*link = work->next;
	destroy(work);
}

/* The last resealing of the tenant; NULL: none is remembered. */
static struct key_work *find_resealing(const struct agent *a, const char *id)
{
	struct key_work *work = a->key_work;

	while (work && !(work->reseals && strcmp(work->tenant->id, id) == 0))
		work = work->next;
	return work;
}

/* Of those that are over the oldest goes, when there are too many. */
static void forget_oldest(struct agent *a)
{
	struct key_work *oldest = NULL;
	size_t count = 0;

	for (struct key_work *work = a->key_work; work; work = work->next)
		if (!work->running) {
			oldest = work;
			count++;
		}
	if (count > REMEMBERED_MAX)
		remove_work(a, oldest);
}

static json_t *resealing_json(const struct key_work *work)
{
	if (!work)
		return json_null();
	return json_pack("{s:b, s:I, s:I, s:I, s:i}", "running", work->running, "seen",
			 (json_int_t)work->progress.seen, "resealed", (json_int_t)work->progress.resealed, "refused",
			 (json_int_t)work->progress.failed, "status", work->running ? 0 : work->status);
}

static json_t *keys_json(const struct agent *a, const char *id, const struct worker_keys *keys)
{
	json_t *list = json_array();

	for (size_t i = 0; i < keys->count; i++)
		json_array_append_new(list, json_pack("{s:I, s:I}", "id", (json_int_t)keys->keys[i].id, "created_ms",
						      (json_int_t)keys->keys[i].created_ms));
	return json_pack("{s:s, s:s, s:o, s:I, s:o}", "id", id, "master_key", master_keys_id(a->masters, 0), "keys",
			 list, "wrapped_by_former_master_key", (json_int_t)keys->behind, "resealing",
			 resealing_json(find_resealing(a, id)));
}

static void changed_on_arrival(struct mailbox_message *message)
{
	struct key_message *changed = (struct key_message *)message;
	struct key_work *work = changed->work;
	struct job *job = work->job;

	work->job = NULL;
	if (changed->status == RSHM_OK) {
		if (job->op != RSHM_CONTROL_TENANT_KEYS)
			log_info("agent", "tenant %s: keys %s by %s", job->id,
				 work->reseals ? "rotated" : "wrapped anew", job->user);
		job_end_with(job, keys_json(work->agent, job->id, &changed->keys));
	} else {
		job_end(job, changed->status, changed->why[0] ? changed->why : NULL);
	}
	free(changed);
}

static void ended_on_arrival(struct mailbox_message *message)
{
	struct key_message *ended = (struct key_message *)message;
	struct key_work *work = ended->work;

	work->running = false;
	work->status = ended->status;
	free(ended);
	if (work->reseals)
		forget_oldest(work->agent);
	else
		remove_work(work->agent, work);
}

static void post(struct key_work *work, struct key_message **message)
{
	bool posted = mailbox_post(&work->agent->mailbox, &(*message)->message);

	if (!posted)
		free(*message);
	must(posted);
}

static void keys_on_changed(void *context, int status, const struct worker_keys *keys, const char *why)
{
	struct key_message *changed = calloc(1, sizeof(*changed));

	must(changed);
	changed->message.handle = changed_on_arrival;
	changed->work = context;
	changed->status = status;
	if (keys)
		changed->keys = *keys;
	else
		snprintf(changed->why, sizeof(changed->why), "%s", why);
	post(context, &changed);
}

static void keys_on_ended(void *context, int status)
{
	struct key_message *ended = calloc(1, sizeof(*ended));

	must(ended);
	ended->message.handle = ended_on_arrival;
	ended->work = context;
	ended->status = status;
	post(context, &ended);
}

/* ---- the operator -------------------------------------------------------------------------------------------------- */

static int begin_work(struct job *job)
{
	struct agent *a = job->agent;
	struct tenant_settings settings = {.id = job->id};
	struct key_work *work = calloc(1, sizeof(*work)), *before = find_resealing(a, job->id);
	bool rotate = job->op == RSHM_CONTROL_TENANT_ROTATE_KEY;
	struct worker_keys_order order = {
		.rotate = rotate,
		.reseal = rotate,
		.rewrap = job->op == RSHM_CONTROL_TENANT_REWRAP,
		.changed = keys_on_changed,
		.ended = keys_on_ended,
	};
	int status = work ? tenant_create(&settings, &work->tenant) : RSHM_E_NOMEM;

	if (status == RSHM_OK)
		status = live_tenant_number(a, work->tenant);
	if (status == RSHM_OK) {
		work->agent = a;
		work->job = job;
		work->reseals = rotate;
		work->running = true;
		order.tenant = work->tenant;
		order.progress = &work->progress;
		order.context = work;
		status = worker_change_keys(a->workers[live_tenant_worker(a, job->id)], &order) ? RSHM_OK
												: RSHM_E_AGAIN;
	}
	if (status < 0) {
		if (work)
			destroy(work);
		return status;
	}
	if (rotate && before)
		remove_work(a, before);
	work->next = a->key_work;
	a->key_work = work;
	return RSHM_OK;
}

void tenant_keys_ask(struct job *job, const struct tenant_record *record)
{
	const struct key_work *resealing = find_resealing(job->agent, job->id);
	int status;

	if (!record->encryption) {
		job_end(job, RSHM_E_INVALID, "the tenant does not encrypt; that is chosen when a tenant is created");
	} else if (job->op == RSHM_CONTROL_TENANT_ROTATE_KEY && resealing && resealing->running) {
		job_end(job, RSHM_E_AGAIN,
			"what older keys sealed is still being sealed anew; rotate again when that is done");
	} else {
		status = begin_work(job);
		if (status < 0)
			job_end(job, status, "the agent cannot take it now; try again later");
	}
}
