/*
 * dictionaries.c - one registry and one sampler of zstd dictionaries for all workers, and what operators ask about them.
 *
 * What can be told from registry and samples is answered at once. Training and dropping is the affair of the tenant's worker,
 * which answers on its own thread; a message brings that to the main loop, whose mailbox outlives all workers.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent_priv.h"
#include "agent/base/text.h"
#include "agent/store/compress.h"
#include "agent/store/dictionary_sampler.h"

#define STREAMS_MAX 64u /* that are told of */
#define ANSWER_MAX 300u /* bytes of text; riptidectl takes 320 */

int dictionaries_open(struct agent *a)
{
	struct dictionary_registry_options known = {.max_count = DICTIONARY_REGISTRY_DEFAULT};
	struct dictionary_sampler_options samples = {.stream_bytes = a->config->dictionary.sample_bytes};
	int status = dictionary_registry_create(&known, &a->dictionaries);

	if (status == RSHM_OK && a->config->dictionary.enabled && RIPTIDE_COMPRESSION)
		status = dictionary_sampler_create(&samples, &a->sampler);
	return status;
}

/* ---- JSON --------------------------------------------------------------------------------------------------- */

/* A content type may be any bytes. */
static json_t *type_json(const char *type)
{
	char escaped[4 * DICTIONARY_TYPE_MAX + 1];
	json_t *json = json_string(type);
	struct text text;

	if (json)
		return json;
	text_init(&text, escaped, sizeof(escaped));
	text_append_escaped(&text, type, strlen(type));
	return json_string(escaped);
}

static json_t *info_json(const struct dictionary_info *info)
{
	return json_pack("{s:I s:s s:o s:I s:I s:I s:b}", "id", (json_int_t)info->id, "tenant", info->tenant,
			 "content_type", type_json(info->content_type), "created_ms", (json_int_t)info->created_ms,
			 "bytes", (json_int_t)info->length, "memory_bytes", (json_int_t)info->memory, "retired",
			 info->retired);
}

static json_t *stream_json(const struct agent *a, const struct dictionary_stream *stream)
{
	return json_pack("{s:o s:I s:I s:I s:I s:b}", "content_type", type_json(stream->content_type), "samples",
			 (json_int_t)stream->count, "bytes", (json_int_t)stream->bytes, "seen",
			 (json_int_t)stream->seen, "samples_needed",
			 (json_int_t)a->config->dictionary.train_samples_min, "enough",
			 serve_samples_suffice(&a->serve.options, stream->count, stream->bytes));
}

/* Takes the document. */
static void answer_json(json_t *document, control_text_fn *done, void *context)
{
	char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;

	done(context, text ? RSHM_OK : RSHM_E_NOMEM, text ? text : "no memory for the answer");
	free(text);
	json_decref(document);
}

/* ---- what is known ------------------------------------------------------------------------------------------ */

/* The tenant's samples; returns how many pairs. */
static size_t streams_of(const struct agent *a, const char *tenant, struct dictionary_stream streams[STREAMS_MAX])
{
	size_t count, kept = 0;

	if (!a->sampler)
		return 0;
	count = dictionary_sampler_list(a->sampler, streams, STREAMS_MAX);
	for (size_t i = 0; i < count && i < STREAMS_MAX; i++)
		if (strcmp(streams[i].tenant, tenant) == 0)
			streams[kept++] = streams[i];
	return kept;
}

static void answer_list(const struct agent *a, const char *tenant, control_text_fn *done, void *context)
{
	struct dictionary_info infos[DICTIONARY_REGISTRY_DEFAULT];
	struct dictionary_stream streams[STREAMS_MAX];
	size_t count = dictionary_list(a->dictionaries, tenant, infos, DICTIONARY_REGISTRY_DEFAULT);
	json_t *dictionaries = json_array(), *samples = json_array();

	for (size_t i = 0; i < count && i < DICTIONARY_REGISTRY_DEFAULT; i++)
		json_array_append_new(dictionaries, info_json(&infos[i]));
	count = streams_of(a, tenant, streams);
	for (size_t i = 0; i < count; i++)
		json_array_append_new(samples, stream_json(a, &streams[i]));
	answer_json(json_pack("{s:s s:b s:b s:o s:o}", "tenant", tenant, "enabled", a->sampler != NULL, "auto_train",
			      a->config->dictionary.auto_train, "dictionaries", dictionaries, "samples", samples),
		    done, context);
}

static void answer_one(const struct agent *a, const struct control_dictionary *request, control_text_fn *done,
		       void *context)
{
	struct dictionary_info infos[DICTIONARY_REGISTRY_DEFAULT];
	size_t count = dictionary_list(a->dictionaries, request->tenant, infos, DICTIONARY_REGISTRY_DEFAULT);
	char text[ANSWER_MAX];

	for (size_t i = 0; i < count && i < DICTIONARY_REGISTRY_DEFAULT; i++)
		if (infos[i].id == request->id) {
			answer_json(info_json(&infos[i]), done, context);
			return;
		}
	snprintf(text, sizeof(text), "tenant \"%s\" has no dictionary %u here; see riptidectl dict list",
		 request->tenant, request->id);
	done(context, RSHM_E_INVALID, text);
}

/* ---- what is to be done -------------------------------------------------------------------------------------- */

struct dictionary_answer {
	struct mailbox_message message; /* first */
	struct agent *agent;
	control_text_fn *done;
	void *context;
	int status;
	struct dictionary_info info;
	char text[ANSWER_MAX];
};

static void answer_on_arrival(struct mailbox_message *message)
{
	struct dictionary_answer *answer = (struct dictionary_answer *)message;

	if (answer->status == RSHM_OK)
		answer_json(info_json(&answer->info), answer->done, answer->context);
	else
		answer->done(answer->context, answer->status, answer->text);
	free(answer);
}

/* Worker thread. */
static void change_on_done(void *context, int status, const struct dictionary_info *info, const char *text)
{
	struct dictionary_answer *answer = context;

	answer->status = status;
	if (info)
		answer->info = *info;
	snprintf(answer->text, sizeof(answer->text), "%s", text);
	/* It is closed after all workers have ended, and its loop takes what is full away. */
	while (!mailbox_post(&answer->agent->mailbox, &answer->message))
		usleep(1000);
}

static void begin_change(struct agent *a, const struct worker_dictionary_order *asked, control_text_fn *done,
			 void *context)
{
	struct dictionary_answer *answer = malloc(sizeof(*answer));
	struct worker_dictionary_order order = *asked;

	if (!answer) {
		done(context, RSHM_E_NOMEM, "no memory");
		return;
	}
	*answer = (struct dictionary_answer){
		.message = {.handle = answer_on_arrival}, .agent = a, .done = done, .context = context};
	order.done = change_on_done;
	order.context = answer;
	if (worker_change_dictionary(a->workers[order.tenant->worker], &order))
		return;
	free(answer);
	done(context, RSHM_E_AGAIN, "the tenant's worker is too busy; try again");
}

static void refuse_training(const struct agent *a, const char *tenant, const struct dictionary_stream *streams,
			    size_t count, control_text_fn *done, void *context)
{
	char bytes[ANSWER_MAX];
	struct text text;

	text_init(&text, bytes, sizeof(bytes));
	if (!a->sampler)
		text_append_string(&text,
				   RIPTIDE_COMPRESSION
					   ? "dictionary.enabled is false; set it to true and start the agent anew"
					   : "this build has no compression");
	else if (count == 0)
		text_append_format(
			&text,
			"no samples of tenant \"%s\"; %u are needed (dictionary.train_samples_min) of values "
			"of 64 bytes to 16 KiB, written with zstd or auto (cache.compression_algorithm)",
			tenant, a->config->dictionary.train_samples_min);
	else
		text_append_string(&text, "there are samples of several content types; tell which, by --type:");
	for (size_t i = 0; a->sampler && i < count; i++) {
		text_append_string(&text, i > 0 ? ", \"" : " \"");
		text_append_escaped(&text, streams[i].content_type, strlen(streams[i].content_type));
		text_append_format(&text, "\" (%zu of %u)", streams[i].count,
				   a->config->dictionary.train_samples_min);
	}
	done(context, RSHM_E_INVALID, bytes);
}

static void begin_training(struct agent *a, const struct tenant *tenant, const char *content_type,
			   control_text_fn *done, void *context)
{
	struct worker_dictionary_order order = {.tenant = tenant};
	struct dictionary_stream streams[STREAMS_MAX];
	size_t count = streams_of(a, tenant->id, streams);

	if (count == 0 || (!content_type && count > 1)) {
		refuse_training(a, tenant->id, streams, count, done, context);
		return;
	}
	snprintf(order.content_type, sizeof(order.content_type), "%s",
		 content_type ? content_type : streams[0].content_type);
	begin_change(a, &order, done, context);
}

void dictionary_hook(void *agent, const struct control_dictionary *request, control_text_fn *done, void *done_context)
{
	struct agent *a = agent;
	const struct tenant *tenant = tenant_find(a->tenants, request->tenant);

	if (!tenant) {
		done(done_context, RSHM_E_NOTENANT, "there is no such tenant; see riptidectl stats");
	} else if (request->op == RSHM_CONTROL_DICT_LIST) {
		answer_list(a, tenant->id, done, done_context);
	} else if (request->op == RSHM_CONTROL_DICT_SHOW) {
		answer_one(a, request, done, done_context);
	} else if (request->op == RSHM_CONTROL_DICT_TRAIN) {
		begin_training(a, tenant, request->content_type, done, done_context);
	} else {
		struct worker_dictionary_order order = {.tenant = tenant, .drop = true, .id = request->id};

		begin_change(a, &order, done, done_context);
	}
}
