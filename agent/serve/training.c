/*
 * training.c - making a dictionary, and retiring one; one of it at a time per tenant.
 *
 *   train   samples ─▶ a pool thread trains ─▶ stored ─▶ in the index ─▶ used for writing here
 *   restore                                           stored, if it is not there ─▶ in the index
 *   drop    stored anew as retired ─▶ marked in the index ─▶ not used for writing here
 *
 * Nothing is written with a dictionary before the backend has it: whoever reads the entry can fetch it. What fails half way
 * leaves at most a dictionary that nobody uses. The index is changed by compare-and-set, for other agents change it, too; two
 * agents that train at the same time both succeed, and the newer dictionary is used.
 *
 * A new dictionary retires those it takes the place of: dropping it does not bring an old one back. A retired one is never deleted: nobody knows which entries, perhaps without expiry, still name it.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/serve/dictionaries.h"

#define AUTO_MS 1000u         /* between two looks at the samples */
#define AUTO_FAILED_MS 60000u /* after a training that failed */
#define ATTEMPTS_MAX 8u       /* at changing the index */
#define STREAMS_MAX 64u       /* looked at for automatic training */
#define BYTES_LEAST 1024u     /* of a dictionary */
#define TEXT_MAX 256u

struct dictionary_job {
	uv_work_t work; /* first */
	struct dictionaries *owner;
	struct worker_dictionary_order order;
	struct dictionary *dictionary; /* trained, or to be dropped or restored */
	bool restore;
	size_t samples, sample_bytes;
	int status;
	uint32_t attempts;
	struct store_request request;
	struct envelope_buffer envelope;
	struct dictionary_index index;
	char key[DICTIONARY_KEY_MAX];
};

bool serve_samples_suffice(const struct serve_options *options, uint64_t count, uint64_t bytes)
{
	/* Of large values a full reservoir holds few. */
	return count >= options->dictionary_samples_min || bytes >= options->dictionary_sample_bytes / 2;
}

static const struct serve_environment *env_of(const struct dictionary_job *job)
{
	return job->owner->tenant->worker->env;
}

/* Calls `each` for those of the job's content type that are used, or could be, but for the one it has made. */
static void for_superseded(struct dictionary_job *job, void (*each)(struct dictionary_job *job, uint32_t id))
{
	struct dictionary_info infos[DICTIONARY_REGISTRY_DEFAULT];
	size_t count =
		dictionary_list(env_of(job)->dictionaries, job->order.tenant->id, infos, DICTIONARY_REGISTRY_DEFAULT);

	if (job->order.drop || job->restore)
		return;
	for (size_t i = 0; i < count && i < DICTIONARY_REGISTRY_DEFAULT; i++)
		if (!infos[i].retired && infos[i].id != dictionary_id(job->dictionary) &&
		    strcmp(infos[i].content_type, job->order.content_type) == 0)
			each(job, infos[i].id);
}

static void retire_here(struct dictionary_job *job, uint32_t id)
{
	(void)dictionary_retire(env_of(job)->dictionaries, job->order.tenant->id, id);
}

static void retire_in_index(struct dictionary_job *job, uint32_t id)
{
	dictionary_index_set(&job->index, id, true);
}

/* ---- the end ------------------------------------------------------------------------------------------------ */

static void tell(const struct worker_dictionary_order *order, int status, const struct dictionary_info *info,
		 const char *format, ...) __attribute__((format(printf, 4, 5)));

static void tell(const struct worker_dictionary_order *order, int status, const struct dictionary_info *info,
		 const char *format, ...)
{
	char text[TEXT_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (order->done)
		order->done(order->context, status, info, text);
	else if (status < 0)
		log_warn("serve", "tenant %s: %s", order->tenant->id, text);
}

static void tell_failure(const struct dictionary_job *job)
{
	const struct worker_dictionary_order *order = &job->order;
	const struct serve_options *options = &env_of(job)->options;

	if (order->drop)
		tell(order, job->status, NULL,
		     "dictionary %u is not dropped: the backend did not take it (status %d)", order->id, job->status);
	else if (job->restore)
		tell(order, job->status, NULL,
		     "the backend has lost dictionary %u and does not take it again (status %d)",
		     dictionary_id(job->dictionary), job->status);
	else if (job->dictionary)
		tell(order, job->status, NULL,
		     "the dictionary for \"%s\" is trained but not used: the backend did not take it (status %d)",
		     order->content_type, job->status);
	else if (job->status == RSHM_E_INVALID)
		tell(order, job->status, NULL,
		     "too few samples for \"%s\": %zu, and %u are needed (dictionary.train_samples_min) of values that "
		     "resemble each other; write more with zstd or auto",
		     order->content_type, job->samples, options->dictionary_samples_min);
	else
		tell(order, job->status, NULL, "no dictionary for \"%s\": %s", order->content_type,
		     job->status == RSHM_E_NOMEM ? "no memory" : "this build has no compression");
}

static void job_end(struct dictionary_job *job, int status)
{
	const struct serve_environment *env = env_of(job);
	const char *tenant = job->order.tenant->id;
	struct dictionary_info info;

	job->owner->job = NULL;
	job->status = status;
	if (status < 0) {
		job->owner->auto_at_ms = clock_monotonic_ms() + AUTO_FAILED_MS;
		tell_failure(job);
	} else if (job->order.drop) {
		(void)dictionary_retire(env->dictionaries, tenant, job->order.id);
		dictionary_describe(job->dictionary, &info);
		info.retired = true;
		log_info("serve", "tenant %s: dropped dictionary %u", tenant, info.id);
		tell(&job->order, RSHM_OK, &info, "dropped");
	} else if (job->restore) {
		log_warn("serve", "tenant %s: the backend had lost dictionary %u; it is stored again", tenant,
			 dictionary_id(job->dictionary));
	} else {
		for_superseded(job, retire_here);
		dictionary_add(env->dictionaries, job->dictionary, false);
		(void)dictionary_sampler_forget(env->sampler, tenant, job->order.content_type);
		dictionary_describe(job->dictionary, &info);
		log_info("serve", "tenant %s: dictionary %u for \"%s\": %zu bytes, of %zu samples", tenant, info.id,
			 info.content_type, info.length, job->samples);
		tell(&job->order, RSHM_OK, &info, "trained");
	}
	dictionary_unref(&job->dictionary);
	envelope_buffer_fini(&job->envelope);
	free(job);
}

/* ---- into the backend --------------------------------------------------------------------------------------- */

static void submit(struct dictionary_job *job, enum store_op what, const char *key, store_done_fn *done)
{
	job->request = (struct store_request){
		.op = what,
		.name = dictionaries_name(job->owner->tenant, key, strlen(key)),
		.envelope = job->envelope.bytes,
		.envelope_len = job->envelope.length,
		.skip_remaining = true,
		.done = done,
		.context = job,
	};
}

static void ask_index(struct dictionary_job *job);

static void index_on_written(struct store_request *request)
{
	struct dictionary_job *job = request->context;

	if (request->status == RSHM_CONFLICT && ++job->attempts < ATTEMPTS_MAX)
		ask_index(job);
	else
		job_end(job, request->status == RSHM_CONFLICT ? RSHM_E_AGAIN : request->status);
}

static void index_on_read(struct store_request *request)
{
	struct dictionary_job *job = request->context;
	const struct serve_environment *env = env_of(job);
	enum store_condition condition = STORE_IF_VERSION;
	uint64_t version = 0;
	int status = request->status;

	if (status == RSHM_OK)
		status = dictionary_index_decode(request->result, request->result_len, &job->index, &version);
	if (status == RSHM_MISS || status == RSHM_E_CORRUPT)
		job->index.count = 0;
	/* A damaged one says nothing any more, and is written anew. */
	if (status == RSHM_E_CORRUPT)
		condition = STORE_ALWAYS;
	else if (status < 0) {
		job_end(job, status);
		return;
	}
	for_superseded(job, retire_in_index);
	dictionary_index_set(&job->index, dictionary_id(job->dictionary), job->order.drop);
	envelope_buffer_fini(&job->envelope);
	status = dictionary_index_encode(&job->index, hlc_next(env->hlc), env->writer_id, &job->envelope);
	if (status < 0) {
		job_end(job, status);
		return;
	}
	submit(job, STORE_PUT, DICTIONARY_INDEX_KEY, index_on_written);
	job->request.condition = condition;
	job->request.expected_version = version;
	dictionaries_submit(job->owner, &job->request);
}

static void ask_index(struct dictionary_job *job)
{
	submit(job, STORE_GET, DICTIONARY_INDEX_KEY, index_on_read);
	dictionaries_submit(job->owner, &job->request);
}

static void dictionary_on_stored(struct store_request *request)
{
	struct dictionary_job *job = request->context;

	if (request->status == RSHM_OK || (request->status == RSHM_CONFLICT && job->restore))
		ask_index(job);
	else
		job_end(job, request->status);
}

static void store_dictionary(struct dictionary_job *job)
{
	const struct serve_environment *env = env_of(job);
	int status = dictionary_encode(job->dictionary, job->order.drop, hlc_next(env->hlc), env->writer_id,
				       &job->envelope);

	if (status < 0) {
		job_end(job, status);
		return;
	}
	(void)dictionary_key(dictionary_id(job->dictionary), job->key);
	submit(job, STORE_PUT, job->key, dictionary_on_stored);
	/* Somebody may have retired it meanwhile. */
	if (job->restore)
		job->request.condition = STORE_IF_ABSENT;
	dictionaries_submit(job->owner, &job->request);
}

/* ---- training ----------------------------------------------------------------------------------------------- */

/* A tenth of the samples at most: a larger one would learn them by heart. */
static size_t dictionary_size(const struct serve_options *options, size_t sample_bytes)
{
	size_t most = sample_bytes / 10 > BYTES_LEAST ? sample_bytes / 10 : BYTES_LEAST;

	return options->dictionary_bytes < most ? options->dictionary_bytes : most;
}

static void train_on_thread(uv_work_t *work)
{
	struct dictionary_job *job = (struct dictionary_job *)work;
	const struct serve_environment *env = env_of(job);
	struct dictionary_samples samples;
	struct dictionary_training training;
	int status = dictionary_sampler_copy(env->sampler, job->order.tenant->id, job->order.content_type, &samples);

	if (status != RSHM_OK) {
		job->status = status == RSHM_MISS ? RSHM_E_INVALID : status;
		return;
	}
	job->samples = samples.count;
	job->sample_bytes = samples.total;
	training = (struct dictionary_training){
		.tenant = job->order.tenant->id,
		.content_type = job->order.content_type,
		.created_ms = clock_realtime_ms(),
		.samples = samples.bytes,
		.sizes = samples.sizes,
		.count = samples.count,
		.max_bytes = dictionary_size(&env->options, samples.total),
		.zstd_level = env->options.compression.zstd_level,
	};
	job->status = RSHM_E_INVALID;
	if (serve_samples_suffice(&env->options, samples.count, samples.total))
		job->status = dictionary_train(&training, &job->dictionary);
	dictionary_samples_fini(&samples);
}

static void train_on_done(uv_work_t *work, int cancelled)
{
	struct dictionary_job *job = (struct dictionary_job *)work;

	must(!cancelled);
	if (job->status < 0)
		job_end(job, job->status);
	else
		store_dictionary(job);
}

/* ---- orders ------------------------------------------------------------------------------------------------- */

void training_order(struct serve_tenant *tenant, const struct worker_dictionary_order *order)
{
	struct dictionaries *d = tenant->dictionaries;
	struct dictionary *dictionary = NULL;
	struct dictionary_job *job;

	if (dictionaries_are_closed(tenant->dictionaries)) {
		tell(order, RSHM_E_CLOSED, NULL, "the agent is stopping");
		return;
	}
	if (d->job) {
		tell(order, RSHM_E_AGAIN, NULL,
		     "another dictionary of the tenant is being trained or dropped; try again");
		return;
	}
	if (order->drop)
		dictionary = dictionaries_find(tenant, order->id);
	if (order->drop && !dictionary) {
		tell(order, RSHM_E_INVALID, NULL, "there is no dictionary %u; see riptidectl dict list", order->id);
		return;
	}
	job = calloc(1, sizeof(*job));
	if (!job) {
		dictionary_unref(&dictionary);
		tell(order, RSHM_E_NOMEM, NULL, "no memory");
		return;
	}
	job->owner = d;
	job->order = *order;
	job->dictionary = dictionary;
	d->job = job;
	if (order->drop)
		store_dictionary(job);
	else
		must(uv_queue_work(&tenant->worker->loop, &job->work, train_on_thread, train_on_done) == 0);
}

static size_t count_used(const struct serve_environment *env)
{
	struct dictionary_info infos[DICTIONARY_REGISTRY_DEFAULT];
	size_t used = 0, count = dictionary_list(env->dictionaries, NULL, infos, DICTIONARY_REGISTRY_DEFAULT);

	for (size_t i = 0; i < count && i < DICTIONARY_REGISTRY_DEFAULT; i++)
		used += !infos[i].retired;
	return used;
}

bool training_restore(struct dictionaries *d, struct dictionary *dictionary)
{
	struct dictionary_job *job = d->job || dictionaries_are_closed(d) ? NULL : calloc(1, sizeof(*job));
	struct dictionary_info info;

	if (!job)
		return false;
	dictionary_describe(dictionary, &info);
	job->owner = d;
	job->order.tenant = d->tenant->tenant;
	memcpy(job->order.content_type, info.content_type, sizeof(info.content_type));
	job->dictionary = dictionary_ref(dictionary);
	job->restore = true;
	d->job = job;
	store_dictionary(job);
	return true;
}

/* Is there none for this content type yet, or only one that is too old? */
static bool needs_training(const struct serve_environment *env, const struct dictionary_stream *stream)
{
	struct dictionary *present = dictionary_choose(env->dictionaries, stream->tenant, stream->content_type,
						       strlen(stream->content_type));
	uint64_t retrain_ms = env->options.dictionary_retrain_ms;
	struct dictionary_info info;

	/* Above what the registry holds, training would go on for ever. */
	if (!present)
		return count_used(env) < DICTIONARY_REGISTRY_DEFAULT;
	dictionary_describe(present, &info);
	dictionary_unref(&present);
	return retrain_ms && clock_realtime_ms() > info.created_ms + retrain_ms;
}

void training_tick(struct dictionaries *d, uint64_t now_ms)
{
	const struct serve_environment *env = d->tenant->worker->env;
	struct dictionary_stream streams[STREAMS_MAX];
	size_t count;

	/* What other agents have trained is looked at first. */
	if (!env->options.dictionary_auto_train || !env->sampler || d->job || now_ms < d->auto_at_ms ||
	    d->refresh_at_ms == 0)
		return;
	d->auto_at_ms = now_ms + AUTO_MS;
	count = dictionary_sampler_list(env->sampler, streams, STREAMS_MAX);
	for (size_t i = 0; i < count && i < STREAMS_MAX; i++) {
		struct worker_dictionary_order order = {.tenant = d->tenant->tenant};

		if (strcmp(streams[i].tenant, d->tenant->tenant->id) != 0 ||
		    !serve_samples_suffice(&env->options, streams[i].count, streams[i].bytes) ||
		    !needs_training(env, &streams[i]))
			continue;
		memcpy(order.content_type, streams[i].content_type, sizeof(order.content_type));
		training_order(d->tenant, &order);
		return;
	}
}
