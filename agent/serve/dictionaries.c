/*
 * dictionaries.c - zstd dictionaries in the running agent: chosen for a write, found for a read, learnt from other agents.
 *
 *   a write    the tenant's newest dictionary of the value's content type; the value is offered as a sample
 *   a read     the entry names its dictionary: known here? else fetched from the backend, the read waits
 *   news       every dictionary_refresh_ms the index is read: what is new is fetched, what was retired is used no more
 *
 * Registry and sampler are one for the whole agent; a tenant's traffic with the backend is its worker's, here. A dictionary is
 * fetched once however many reads wait for it, each until its own deadline. That the backend does not have one is remembered
 * for some seconds: entries that name it cannot be read, and asking for each of them again would help nobody.
 *
 * Retired ones stay in the backend for ever, for entries may name them; here they are fetched only when one does. A server may
 * lose what it holds (flushed, restarted without its data, evicting); so with the news goes a look whether those that we write
 * with are still there, and what is lost is stored again from memory.
 */
#include "agent/serve/dictionaries.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/cache/tags.h"
#include "agent/store/compress.h"

#define ABSENT_MS 5000u
#define FETCHES_MAX 64u
#define REFRESH_RETRY_MS 1000u
#define INDEX_RECORD 8u /* id u32, flags u32 */
#define INDEX_RETIRED 0x1u

struct dictionary_fetch {
	struct dictionary_fetch *next;
	struct dictionaries *owner;
	struct store_request request;
	struct entry_op *waiting; /* by fetch_next */
	uint32_t id;
	bool for_refresh;
	char key[DICTIONARY_KEY_MAX];
};

int dictionaries_create(struct serve_tenant *tenant)
{
	tenant->dictionaries = calloc(1, sizeof(*tenant->dictionaries));
	if (!tenant->dictionaries)
		return RSHM_E_NOMEM;
	tenant->dictionaries->tenant = tenant;
	return RSHM_OK;
}

bool dictionaries_are_quiet(const struct serve_tenant *tenant)
{
	const struct dictionaries *d = tenant->dictionaries;

	return !d || (!d->fetches && !d->job && !d->refreshing);
}

bool dictionaries_are_closed(const struct dictionaries *d)
{
	return d->tenant->worker->closing || d->tenant->end.done;
}

void dictionaries_destroy(struct serve_tenant *tenant)
{
	struct dictionaries *d = tenant->dictionaries;

	must(dictionaries_are_quiet(tenant));
	free(d);
	tenant->dictionaries = NULL;
}

struct store_name dictionaries_name(const struct serve_tenant *tenant, const char *key, size_t key_len)
{
	struct store_name name = entry_store_name(tenant->tenant);

	name.space = DICTIONARY_SPACE;
	name.generation = 1;
	name.key = key;
	name.key_len = key_len;
	return name;
}

void dictionaries_submit(struct dictionaries *d, struct store_request *request)
{
	request->deadline_ms = clock_monotonic_ms() + DICTIONARY_REQUEST_MS;
	if (dictionaries_are_closed(d)) {
		request->status = RSHM_E_CLOSED;
		request->done(request);
	} else {
		store_submit(&d->tenant->space.base, request);
	}
}

/* ---- for a write -------------------------------------------------------------------------------------------- */

struct dictionary *dictionaries_for_write(struct entry_op *op, enum envelope_choice choice)
{
	const struct serve_environment *env = op->worker->env;
	const char *tenant = op->tenant->tenant->id, *type = NULL;
	size_t type_len = 0;

	if (!env->sampler || (choice != ENVELOPE_CHOOSE_ZSTD && choice != ENVELOPE_CHOOSE_AUTO))
		return NULL;
	if (op->metadata_len && content_type_of_metadata(op->metadata, op->metadata_len, &type, &type_len) < 0)
		return NULL;
	dictionary_sampler_feed(env->sampler, tenant, type, type_len, op->value, op->value_len);
	return dictionary_choose(env->dictionaries, tenant, type, type_len);
}

/* ---- for a read --------------------------------------------------------------------------------------------- */

struct dictionary *dictionaries_find(struct serve_tenant *tenant, uint32_t id)
{
	return dictionary_find(tenant->worker->env->dictionaries, tenant->tenant->id, id);
}

static bool is_absent(const struct dictionaries *d, uint32_t id)
{
	uint64_t now_ms = clock_monotonic_ms();

	for (uint32_t i = 0; i < DICTIONARY_ABSENT_MAX; i++)
		if (d->absent[i].id == id && now_ms < d->absent[i].until_ms)
			return true;
	return false;
}

static void remember_absent(struct dictionaries *d, uint32_t id)
{
	uint32_t at = d->absent_next++ % DICTIONARY_ABSENT_MAX;

	d->absent[at].id = id;
	d->absent[at].until_ms = clock_monotonic_ms() + ABSENT_MS;
}

static void fetch_unlink(struct dictionary_fetch *fetch)
{
	struct dictionary_fetch **link = &fetch->owner->fetches;

	while (*link != fetch)
		link = &(*link)->next;
	*link = fetch->next;
	fetch->owner->fetch_count--;
}

static void refresh_go_on(struct dictionaries *d);

static void fetch_end(struct dictionary_fetch *fetch, struct dictionary *dictionary, int status)
{
	struct dictionaries *d = fetch->owner;
	struct entry_op *op;

	fetch_unlink(fetch);
	while ((op = fetch->waiting) != NULL) {
		fetch->waiting = op->fetch_next;
		op->fetch_next = NULL;
		if (dictionary)
			op->dictionary = dictionary_ref(dictionary);
		op->fetched(op, status);
	}
	if (fetch->for_refresh) {
		d->refresh_waits = false;
		/* One that is gone or damaged keeps nobody from the others. */
		if (status < 0 && status != RSHM_E_NODICT && status != RSHM_E_FORMAT)
			d->refresh_status = status;
		refresh_go_on(d);
	}
	free(fetch);
}

static bool index_says_retired(const struct dictionaries *d, uint32_t id)
{
	for (uint32_t i = 0; i < d->index.count; i++)
		if (d->index.items[i].id == id)
			return d->index.items[i].retired;
	return false;
}

static int take_fetched(struct dictionary_fetch *fetch, struct dictionary **ret)
{
	struct serve_tenant *tenant = fetch->owner->tenant;
	const struct serve_environment *env = tenant->worker->env;
	bool retired = false;
	int status = dictionary_decode(fetch->request.result, fetch->request.result_len, tenant->tenant->id,
				       fetch->id, env->options.compression.zstd_level, ret, &retired);

	/* One that another took the place of is retired in the index only. */
	retired |= index_says_retired(fetch->owner, fetch->id);
	if (status == RSHM_OK) {
		dictionary_add(env->dictionaries, *ret, retired);
		log_info("serve", "tenant %s: dictionary %u is known%s", tenant->tenant->id, fetch->id,
			 retired ? ", for reading only" : "");
	} else if (status != RSHM_E_NOMEM) {
		log_error("serve", "tenant %s: dictionary %u is refused: %s", tenant->tenant->id, fetch->id,
			  status != RSHM_E_FORMAT ? "damaged"
			  : RIPTIDE_COMPRESSION   ? "written by a newer version"
						  : "this build has no compression");
	}
	return status;
}

static void fetch_on_answer(struct store_request *request)
{
	struct dictionary_fetch *fetch = request->context;
	struct dictionary *dictionary = NULL;
	int status = request->status;

	if (status == RSHM_OK)
		status = take_fetched(fetch, &dictionary);
	if (status == RSHM_MISS || status == RSHM_E_CORRUPT) {
		remember_absent(fetch->owner, fetch->id);
		status = RSHM_E_NODICT;
	}
	fetch_end(fetch, dictionary, status);
	dictionary_unref(&dictionary);
}

/* Not yet submitted, so that whoever wants the answer can join first. NULL: too many, or no memory. */
static struct dictionary_fetch *fetch_create(struct dictionaries *d, uint32_t id)
{
	struct dictionary_fetch *fetch = d->fetch_count < FETCHES_MAX ? calloc(1, sizeof(*fetch)) : NULL;
	size_t key_len;

	if (!fetch)
		return NULL;
	fetch->owner = d;
	fetch->id = id;
	key_len = dictionary_key(id, fetch->key);
	fetch->request = (struct store_request){
		.op = STORE_GET,
		.name = dictionaries_name(d->tenant, fetch->key, key_len),
		.skip_remaining = true,
		.done = fetch_on_answer,
		.context = fetch,
	};
	fetch->next = d->fetches;
	d->fetches = fetch;
	d->fetch_count++;
	return fetch;
}

static struct dictionary_fetch *fetch_under_way(struct dictionaries *d, uint32_t id)
{
	struct dictionary_fetch *fetch = d->fetches;

	while (fetch && fetch->id != id)
		fetch = fetch->next;
	return fetch;
}

void dictionaries_fetch(struct entry_op *op, uint32_t id, void (*then)(struct entry_op *op, int status))
{
	struct dictionaries *d = op->tenant->dictionaries;
	struct dictionary_fetch *fetch = fetch_under_way(d, id), *begun = NULL;

	if (!fetch && is_absent(d, id)) {
		then(op, RSHM_E_NODICT);
		return;
	}
	if (!fetch)
		fetch = begun = fetch_create(d, id);
	if (!fetch) {
		then(op, RSHM_E_AGAIN);
		return;
	}
	op->fetched = then;
	op->fetch_next = fetch->waiting;
	fetch->waiting = op;
	if (begun)
		dictionaries_submit(d, &begun->request);
}

/* Takes out one operation that has waited too long; NULL: none has. */
static struct entry_op *take_overdue(struct dictionaries *d, uint64_t now_ms)
{
	for (struct dictionary_fetch *fetch = d->fetches; fetch; fetch = fetch->next)
		for (struct entry_op **link = &fetch->waiting; *link; link = &(*link)->fetch_next) {
			struct entry_op *op = *link;

			if (now_ms < op->deadline_ms)
				continue;
			*link = op->fetch_next;
			op->fetch_next = NULL;
			return op;
		}
	return NULL;
}

/* ---- the index ---------------------------------------------------------------------------------------------- */

int dictionary_index_decode(const void *envelope, size_t length, struct dictionary_index *ret, uint64_t *ret_version)
{
	struct envelope_view view;
	const unsigned char *records;
	int status = envelope_open(envelope, length, DICTIONARY_INDEX_KEY, strlen(DICTIONARY_INDEX_KEY), &view);

	if (status == RSHM_OK && view.head.algorithm != ENVELOPE_PLAIN)
		status = RSHM_E_FORMAT;
	if (status < 0)
		return status;
	if (view.head.plain_size % INDEX_RECORD != 0 || view.head.plain_size / INDEX_RECORD > DICTIONARY_INDEX_MAX)
		return RSHM_E_CORRUPT;
	records = view.payload;
	ret->count = view.head.plain_size / INDEX_RECORD;
	for (uint32_t i = 0; i < ret->count; i++) {
		uint32_t record[2];

		memcpy(record, records + i * INDEX_RECORD, sizeof(record));
		ret->items[i].id = le32toh(record[0]);
		ret->items[i].retired = (le32toh(record[1]) & INDEX_RETIRED) != 0;
	}
	*ret_version = view.head.version;
	return RSHM_OK;
}

int dictionary_index_encode(const struct dictionary_index *index, uint64_t version, uint32_t writer_id,
			    struct envelope_buffer *ret)
{
	uint32_t records[DICTIONARY_INDEX_MAX][2];
	struct envelope_input input = {
		.key = DICTIONARY_INDEX_KEY,
		.key_len = strlen(DICTIONARY_INDEX_KEY),
		.value = records,
		.value_len = index->count * sizeof(records[0]),
		.created_ms = clock_realtime_ms(),
		.version = version,
		.writer_id = writer_id,
	};

	for (uint32_t i = 0; i < index->count; i++) {
		records[i][0] = htole32(index->items[i].id);
		records[i][1] = htole32(index->items[i].retired ? INDEX_RETIRED : 0);
	}
	return envelope_encode(&input, NULL, ret);
}

void dictionary_index_set(struct dictionary_index *index, uint32_t id, bool retired)
{
	uint32_t at = 0, victim = 0;

	while (at < index->count && index->items[at].id != id)
		at++;
	if (at == DICTIONARY_INDEX_MAX) {
		while (victim < index->count && !index->items[victim].retired)
			victim++;
		if (victim == index->count)
			victim = 0;
		at = --index->count;
		memmove(&index->items[victim], &index->items[victim + 1], (at - victim) * sizeof(index->items[0]));
	}
	if (at == index->count)
		index->count++;
	index->items[at].id = id;
	index->items[at].retired = retired;
}

/* ---- news --------------------------------------------------------------------------------------------------- */

static void refresh_end(struct dictionaries *d, int status)
{
	uint64_t after_ms = d->tenant->worker->env->options.dictionary_refresh_ms;

	d->refreshing = false;
	if (status == RSHM_OK)
		d->known_version = d->index_version;
	else if (after_ms > REFRESH_RETRY_MS)
		after_ms = REFRESH_RETRY_MS;
	d->refresh_at_ms = clock_monotonic_ms() + after_ms;
}

/* ---- are those that we write with still there? */

static bool is_in_index(const struct dictionaries *d, uint32_t id)
{
	for (uint32_t i = 0; i < d->index.count; i++)
		if (d->index.items[i].id == id)
			return true;
	return false;
}

static void restore(struct dictionaries *d, uint32_t id)
{
	struct dictionary *dictionary = dictionaries_find(d->tenant, id);

	/* Another one is under way: looked for again soon. */
	if (dictionary && !training_restore(d, dictionary))
		d->refresh_status = RSHM_E_AGAIN;
	dictionary_unref(&dictionary);
}

static void check_next(struct dictionaries *d);

static void check_on_head(struct store_request *request)
{
	struct dictionaries *d = request->context;
	uint32_t id = d->used[d->used_at++];

	if (request->status == RSHM_MISS || (request->status == RSHM_OK && !is_in_index(d, id)))
		restore(d, id);
	else if (request->status < 0)
		d->refresh_status = request->status;
	check_next(d);
}

static void check_next(struct dictionaries *d)
{
	if (d->used_at == d->used_count || d->refresh_status != RSHM_OK) {
		refresh_end(d, d->refresh_status);
		return;
	}
	d->question = (struct store_request){
		.op = STORE_HEAD,
		.name = dictionaries_name(d->tenant, d->key, dictionary_key(d->used[d->used_at], d->key)),
		.head_bytes = ENVELOPE_HEAD_BYTES,
		.done = check_on_head,
		.context = d,
	};
	dictionaries_submit(d, &d->question);
}

static void check_used(struct dictionaries *d)
{
	struct dictionary_info infos[DICTIONARY_REGISTRY_DEFAULT];
	size_t count = dictionary_list(d->tenant->worker->env->dictionaries, d->tenant->tenant->id, infos,
				       DICTIONARY_REGISTRY_DEFAULT);

	d->used_count = d->used_at = 0;
	for (size_t i = 0; i < count && i < DICTIONARY_REGISTRY_DEFAULT; i++)
		if (!infos[i].retired)
			d->used[d->used_count++] = infos[i].id;
	check_next(d);
}

/* ---- what is new? */

static void learn(struct dictionaries *d, uint32_t id, bool retired)
{
	const struct serve_environment *env = d->tenant->worker->env;
	struct dictionary *known = dictionaries_find(d->tenant, id);
	struct dictionary_fetch *fetch, *begun = NULL;

	if (known && retired)
		(void)dictionary_retire(env->dictionaries, d->tenant->tenant->id, id);
	if (known || retired) {
		dictionary_unref(&known);
		return;
	}
	fetch = fetch_under_way(d, id);
	if (!fetch)
		fetch = begun = fetch_create(d, id);
	if (!fetch) {
		d->refresh_status = RSHM_E_AGAIN;
		return;
	}
	fetch->for_refresh = d->refresh_waits = true;
	if (begun)
		dictionaries_submit(d, &begun->request);
}

/* One fetch at a time. It may end before it returns: `refresh_running` keeps this a loop. */
static void refresh_go_on(struct dictionaries *d)
{
	if (d->refresh_running)
		return;
	d->refresh_running = true;
	while (!d->refresh_waits && d->refresh_status == RSHM_OK && d->index_at < d->index.count) {
		uint32_t at = d->index_at++;

		learn(d, d->index.items[at].id, d->index.items[at].retired);
	}
	d->refresh_running = false;
	if (!d->refresh_waits && d->refresh_status == RSHM_OK)
		check_used(d);
	else if (!d->refresh_waits)
		refresh_end(d, d->refresh_status);
}

static void refresh_on_index(struct store_request *request)
{
	struct dictionaries *d = request->context;
	int status = request->status;

	if (status == RSHM_OK)
		status = dictionary_index_decode(request->result, request->result_len, &d->index, &d->index_version);
	if (status == RSHM_MISS)
		d->index.count = 0;
	if (status != RSHM_OK)
		d->index_version = 0;
	if (status == RSHM_OK || status == RSHM_MISS) {
		/* Of an index that is known all is here. */
		d->index_at = d->index_version == d->known_version ? d->index.count : 0;
		d->refresh_status = RSHM_OK;
		refresh_go_on(d);
		return;
	}
	if (status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT) {
		static struct log_limit limit = LOG_LIMIT(5, 60000);

		log_limited(&limit, LOG_LEVEL_ERROR, "serve", "tenant %s: the index of dictionaries is refused: %s",
			    d->tenant->tenant->id,
			    status == RSHM_E_FORMAT ? "written by a newer version" : "damaged");
	}
	refresh_end(d, status);
}

static void refresh_begin(struct dictionaries *d)
{
	d->refreshing = true;
	d->question = (struct store_request){
		.op = STORE_GET,
		.name = dictionaries_name(d->tenant, DICTIONARY_INDEX_KEY, strlen(DICTIONARY_INDEX_KEY)),
		.skip_remaining = true,
		.done = refresh_on_index,
		.context = d,
	};
	dictionaries_submit(d, &d->question);
}

void dictionaries_tick(struct serve_tenant *tenant, uint64_t now_ms)
{
	struct dictionaries *d = tenant->dictionaries;
	struct entry_op *op;

	/* Each callback may change the lists. */
	while ((op = take_overdue(d, now_ms)) != NULL)
		op->fetched(op, RSHM_E_TIMEDOUT);
	if (RIPTIDE_COMPRESSION && !d->refreshing && now_ms >= d->refresh_at_ms)
		refresh_begin(d);
	training_tick(d, now_ms);
}
