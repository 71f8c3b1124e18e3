/*
 * tenants.c - the life of a tenant of the backend on this host.
 *
 *	NONE ──record permits, somebody asks──▶ PREPARING ──▶ OPENING ──▶ OPEN
 *	  ▲     (users looked up on a pool      (worker)                    │ suspended, deleted, changed, unused
 *	  │      thread: that may ask a network)                            ▼
 *	  └──────── DRAINING ◀───────────── closed by the worker ◀────── CLOSING
 *	       (places of clients are still held)
 *
 * evaluate() decides what is next, after every event. Nothing is decided from a record that may have changed: `stale` is set by
 * the store's word of a change, by a fence, and by time where changes are not told; then the record is read first. A tenant
 * that is open stays so while the backend is away, but lets nobody new in.
 */
#include "agent/tenants.h"

#include <grp.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent_priv.h"
#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/store/keys.h"
#include "shm/order.h"

#define REQUEST_MS 4000u /* below the control plane's patience */
#define PENDING_MAX 4096u
#define ORPHAN_MS 60000u
#define UNTOLD_TRUST_MS 1000u /* a record is good for so long where changes are not told */
#define RETRY_MS 500u
#define LOOKUP_BYTES (64u << 10)
#define TOKEN_BYTES_MAX 4096u

/* A process that waits to be let in. */
struct waiting {
	struct waiting *next;
	struct control_attach attach; /* its texts are ours */
	char tenant[RSHM_TENANT_MAX + 1], program[48];
	unsigned char token[TOKEN_BYTES_MAX];
	control_attached_fn *done;
	void *context;
};

struct waiter {
	struct waiter *next;
	void (*done)(void *context);
	void *context;
};

enum live_state { LIVE_NONE, LIVE_PREPARING, LIVE_OPENING, LIVE_OPEN, LIVE_CLOSING, LIVE_DRAINING };

struct live_tenant {
	struct live_tenant *next;
	struct agent *agent;
	char id[RSHM_TENANT_MAX + 1];
	enum live_state state;
	struct tenant_record *record; /* as last read; NULL: there is none, or it was not read yet */
	bool known;                   /* it was read */
	bool stale, reading, changed_while_reading;
	uint64_t read_ms, retry_at_ms, idle_since_ms;
	struct tenant *tenant;       /* from OPENING to DRAINING */
	char *built_from;            /* the part of the record that it was made from */
	char segment[RSHM_NAME_MAX]; /* offered */
	uint32_t uses;
	bool order_due; /* the worker could not take the order to close */
	struct waiting *attaches;
	struct waiter *refreshes, *closes;
	/* PREPARING */
	uv_work_t work;
	struct tenant_settings settings;
	uid_t *users;
	gid_t *groups;
	json_t *document;
	uint32_t number, shards;
	int work_status;
};

struct live_tenants {
	struct agent *agent;
	struct live_tenant *first;
	struct store *store; /* NULL: nothing was asked yet */
	struct registry *registry;
	enum store_coherence mode;
	bool armed, closing;
	uint64_t proven_ms, tidy_at_ms;
	bool tidying;
	void (*closed)(void *context);
	void *closed_context;
};

static void evaluate(struct live_tenant *live);

static bool is_permitted(const struct live_tenant *live)
{
	return live->record && live->record->status == TENANT_ACTIVE;
}

/* ---- the list --------------------------------------------------------------------------------------------------- */

static struct live_tenant *find(const struct agent *a, const char *id)
{
	for (struct live_tenant *live = a->live->first; live; live = live->next)
		if (strcmp(live->id, id) == 0)
			return live;
	return NULL;
}

static struct live_tenant *find_or_make(struct agent *a, const char *id)
{
	struct live_tenant *live = find(a, id);

	if (live)
		return live;
	live = calloc(1, sizeof(*live));
	if (!live)
		return NULL;
	live->agent = a;
	live->stale = true;
	snprintf(live->id, sizeof(live->id), "%s", id);
	live->next = a->live->first;
	a->live->first = live;
	return live;
}

static void free_live(struct live_tenant *live)
{
	tenant_record_destroy(&live->record);
	free(live->built_from);
	free(live);
}

/* Nothing of it is needed any more. */
static void forget(struct live_tenant *live)
{
	struct live_tenant **link = &live->agent->live->first;

	while (*link != live)
		link = &(*link)->next;
	*link = live->next;
	free_live(live);
}

bool live_tenants_have(const struct agent *a, const struct tenant *tenant)
{
	for (const struct live_tenant *live = a->live->first; live; live = live->next)
		if (live->tenant == tenant)
			return true;
	return false;
}

uint32_t live_tenant_worker(const struct agent *a, const char *id)
{
	return keys_shard(id, strlen(id), a->worker_count);
}

static void add_waiter(struct waiter **list, void (*done)(void *context), void *context)
{
	struct waiter *waiter = malloc(sizeof(*waiter));

	/* Without memory nothing is waited for. */
	if (!waiter) {
		done(context);
		return;
	}
	*waiter = (struct waiter){.next = *list, .done = done, .context = context};
	*list = waiter;
}

static void release_waiters(struct waiter **list)
{
	struct waiter *waiter = *list;

	*list = NULL;
	while (waiter) {
		struct waiter *next = waiter->next;

		waiter->done(waiter->context);
		free(waiter);
		waiter = next;
	}
}

/* ---- the registry ----------------------------------------------------------------------------------------------- */

static void doubt(struct live_tenant *live)
{
	live->stale = true;
	live->changed_while_reading = live->reading;
	live->retry_at_ms = 0;
}

static void doubt_all(struct live_tenants *lt)
{
	for (struct live_tenant *live = lt->first; live; live = live->next)
		doubt(live);
}

static void watch_on_mode(void *context, enum store_coherence mode)
{
	struct live_tenants *lt = context;

	lt->mode = mode;
	doubt_all(lt);
}

static void watch_on_fenced(void *context, bool armed, const char *why)
{
	struct live_tenants *lt = context;

	(void)why;
	lt->armed = armed;
	doubt_all(lt);
}

static void watch_on_proven(void *context, uint64_t complete_ms)
{
	struct live_tenants *lt = context;

	lt->proven_ms = complete_ms;
}

static void watch_on_changed(void *context, const struct store_change *change)
{
	struct live_tenants *lt = context;

	for (struct live_tenant *live = lt->first; live; live = live->next)
		if (change->kind != STORE_CHANGED_ENTRY || !change->key ||
		    (change->key_len == strlen(live->id) && memcmp(change->key, live->id, change->key_len) == 0))
			doubt(live);
}

static int open_registry(struct live_tenants *lt, char *error, size_t error_len)
{
	struct agent *a = lt->agent;
	const struct store_watcher watcher = {
		.mode = watch_on_mode,
		.fenced = watch_on_fenced,
		.proven = watch_on_proven,
		.changed = watch_on_changed,
		.context = lt,
	};
	struct registry_options options = {
		.tenants_max = a->config->tenancy.max_tenants,
		.writer_id = a->serve.writer_id,
		.request_ms = REQUEST_MS,
		.pending_max = PENDING_MAX,
		.orphan_ms = ORPHAN_MS,
	};
	int status = stores_number_tenant(a, TENANT_RESERVED_ID, &options.tenant_number, &options.shards);

	if (status == RSHM_OK)
		status = stores_create_registry(a, &lt->store, error, error_len);
	if (status < 0)
		return status;
	options.shards = 1;
	lt->mode = STORE_TTL;
	if (!store_watch(lt->store, &watcher))
		lt->mode = STORE_SOLE;
	lt->tidy_at_ms = clock_monotonic_ms();
	return registry_open(lt->store, &a->hlc, &options, &lt->registry);
}

struct registry *live_tenants_registry(struct agent *a, char *error, size_t error_len)
{
	if (error_len > 0)
		error[0] = '\0';
	if (!a->live->registry && (a->live->closing || open_registry(a->live, error, error_len) < 0)) {
		if (error_len > 0 && error[0] == '\0')
			snprintf(error, error_len, "the registry of tenants cannot be opened now");
		return NULL;
	}
	return a->live->registry;
}

/* Would we have been told of a change? */
static bool changes_are_told(const struct live_tenants *lt)
{
	uint64_t now_ms = clock_monotonic_ms();

	return lt->mode == STORE_SOLE || (lt->mode == STORE_TRACKING && lt->armed &&
					  now_ms < lt->proven_ms + lt->agent->config->coherence.lease_ms);
}

static bool is_fresh(const struct live_tenant *live)
{
	return live->known && !live->stale &&
	       (changes_are_told(live->agent->live) || clock_monotonic_ms() - live->read_ms < UNTOLD_TRUST_MS);
}

/* ---- letting in -------------------------------------------------------------------------------------------------- */

static void free_waiting(struct waiting *waiting)
{
	sodium_memzero(waiting->token, sizeof(waiting->token));
	free(waiting);
}

static void answer_waiting(struct waiting *waiting, int status, const char *text)
{
	struct control_attached attached = {.status = status, .error_text = text};

	waiting->done(waiting->context, &attached);
	free_waiting(waiting);
}

static void refuse_all(struct live_tenant *live, int status, const char *text)
{
	struct waiting *waiting = live->attaches;

	live->attaches = NULL;
	while (waiting) {
		struct waiting *next = waiting->next;

		answer_waiting(waiting, status, text);
		waiting = next;
	}
}

/* RSHM_OK, or why a peer that is of the right user is not let in. */
static int check_token(const struct live_tenant *live, const struct control_attach *attach, bool *ret_read_only)
{
	struct token_checked checked = {.role = TOKEN_TENANT};
	struct token_set *tokens;
	int status;

	*ret_read_only = false;
	if (attach->token_len == 0)
		return live->record->token_required ? RSHM_E_DENIED : RSHM_OK;
	status = tenant_record_tokens(live->record, &tokens);
	if (status < 0)
		return status;
	status = token_verify(tokens, attach->token, attach->token_len, clock_realtime_ms(), &checked);
	token_set_destroy(&tokens);
	if (status < 0)
		log_warn("agent", "uid %u, tenant %s: token %s is %s", (unsigned int)attach->peer.uid, live->id,
			 checked.id, token_verdict_name(checked.verdict));
	*ret_read_only = checked.role == TOKEN_READ_ONLY;
	return status;
}

static void decide(struct live_tenant *live, struct waiting *waiting)
{
	const struct control_attach *attach = &waiting->attach;
	bool read_only;
	char text[160];
	int status;

	if (!tenant_permits(live->tenant, attach->peer.uid, attach->peer.gid)) {
		admission_refuse(attach, waiting->done, waiting->context);
		free_waiting(waiting);
		return;
	}
	status = check_token(live, attach, &read_only);
	if (status < 0) {
		snprintf(text, sizeof(text), "tenant %s: %s", live->id,
			 attach->token_len == 0 ? "a token is required; give one when the handle is opened"
						: "this token is not accepted");
		answer_waiting(waiting, status, text);
		return;
	}
	admission_accept(live->agent, live->tenant, live, attach, read_only, waiting->done, waiting->context);
	free_waiting(waiting);
}

static void decide_all(struct live_tenant *live)
{
	while (live->attaches) {
		struct waiting *waiting = live->attaches;

		live->attaches = waiting->next;
		decide(live, waiting);
	}
}

void live_tenants_attach(struct agent *a, const struct control_attach *attach, control_attached_fn *done,
			 void *done_context)
{
	struct control_attached attached = {.status = RSHM_E_NOMEM, .error_text = "the agent has no memory left"};
	struct waiting *waiting = calloc(1, sizeof(*waiting));
	struct live_tenant *live;

	if (!tenant_id_is_valid(attach->tenant) || attach->token_len > TOKEN_BYTES_MAX) {
		free(waiting);
		admission_refuse(attach, done, done_context);
		return;
	}
	live = waiting ? find_or_make(a, attach->tenant) : NULL;
	if (!live) {
		free(waiting);
		done(done_context, &attached);
		return;
	}
	waiting->attach = *attach;
	snprintf(waiting->tenant, sizeof(waiting->tenant), "%s", attach->tenant);
	snprintf(waiting->program, sizeof(waiting->program), "%s", attach->program);
	if (attach->token_len > 0)
		memcpy(waiting->token, attach->token, attach->token_len);
	waiting->attach.tenant = waiting->tenant;
	waiting->attach.program = waiting->program;
	waiting->attach.token = waiting->token;
	waiting->done = done;
	waiting->context = done_context;
	waiting->next = live->attaches;
	live->attaches = waiting;
	if (!is_fresh(live))
		doubt(live);
	evaluate(live);
}

void live_tenant_use(struct live_tenant *live)
{
	live->uses++;
}

/* ---- reading the record ------------------------------------------------------------------------------------------ */

static void close_live(struct live_tenant *live);

static void read_on_failed(struct live_tenant *live, int status, const char *text)
{
	char why[320];

	snprintf(why, sizeof(why), "whether there is a tenant %s cannot be told now (%s); try again later", live->id,
		 text ? text : "the backend does not answer");
	refuse_all(live, status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT ? status : RSHM_E_AGAIN, why);
	live->retry_at_ms = clock_monotonic_ms() + RETRY_MS;
	/* We changed it ourselves and cannot see what it says now: nobody is served until we can. */
	if (live->refreshes && live->state == LIVE_OPEN)
		close_live(live);
	else
		release_waiters(&live->refreshes);
}

static void record_on_read(void *context, int status, struct tenant_record *record, const char *text)
{
	struct live_tenant *live = context;

	live->reading = false;
	if (live->agent->live->closing) {
		tenant_record_destroy(&record);
		refuse_all(live, RSHM_E_CLOSED, "the agent is stopping");
		release_waiters(&live->refreshes);
		return;
	}
	if (status != RSHM_OK && status != RSHM_MISS) {
		read_on_failed(live, status, text);
	} else {
		tenant_record_destroy(&live->record);
		live->record = record;
		live->known = true;
		live->stale = live->changed_while_reading;
		live->read_ms = clock_monotonic_ms();
	}
	evaluate(live);
}

static void read_record(struct live_tenant *live)
{
	char error[256];
	struct registry *registry;

	if (live->reading || clock_monotonic_ms() < live->retry_at_ms)
		return;
	registry = live_tenants_registry(live->agent, error, sizeof(error));
	live->changed_while_reading = false;
	if (registry) {
		live->reading = true;
		registry_get(registry, live->id, record_on_read, live);
	} else {
		read_on_failed(live, RSHM_E_AGAIN, error);
	}
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

/* What a tenant's segment and settings are made from, as text; the caller's to free. */
static char *essence_of(const struct tenant_record *record)
{
	const json_t *d = record->document;
	json_t *part = json_pack("{s:O, s:O, s:O, s:O, s:O}", "users", json_object_get(d, "users"), "groups",
				 json_object_get(d, "groups"), "quotas", json_object_get(d, "quotas"), "cache",
				 json_object_get(d, "cache"), "hot", json_object_get(d, "hot"));
	char *text = part ? json_dumps(part, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	json_decref(part);
	return text;
}

static bool fits(const struct live_tenant *live)
{
	char *now = essence_of(live->record);
	bool same = now && live->built_from && strcmp(now, live->built_from) == 0;

	free(now);
	return same;
}

static bool look_up_user(const char *name, uid_t *ret)
{
	char *buffer = malloc(LOOKUP_BYTES);
	struct passwd entry, *found = NULL;
	bool there = buffer && getpwnam_r(name, &entry, buffer, LOOKUP_BYTES, &found) == 0 && found;

	if (there)
		*ret = found->pw_uid;
	free(buffer);
	return there;
}

static bool look_up_group(const char *name, gid_t *ret)
{
	char *buffer = malloc(LOOKUP_BYTES);
	struct group entry, *found = NULL;
	bool there = buffer && getgrnam_r(name, &entry, buffer, LOOKUP_BYTES, &found) == 0 && found;

	if (there)
		*ret = found->gr_gid;
	free(buffer);
	return there;
}

/* A name that this host does not know is nobody here; on another host it may be somebody. */
static uint32_t *resolve(const json_t *names, bool group, size_t *ret_count)
{
	uint32_t *ids = calloc(json_array_size(names) + 1, sizeof(*ids));
	size_t index, count = 0;
	json_t *name;

	json_array_foreach(names, index, name)
	{
		uint64_t number;

		if (!ids)
			break;
		if (json_is_integer(name))
			ids[count++] = (uint32_t)json_integer_value(name);
		else if (text_parse_u64(json_string_value(name), &number) && number < TENANT_OVERFLOW_UID)
			ids[count++] = (uint32_t)number;
		else
			count += group ? look_up_group(json_string_value(name), &ids[count])
				       : look_up_user(json_string_value(name), &ids[count]);
	}
	*ret_count = count;
	return ids;
}

static void prepare_on_thread(uv_work_t *work)
{
	struct live_tenant *live = work->data;
	struct tenant_settings *s = &live->settings;

	live->users = resolve(json_object_get(live->document, "users"), false, &s->user_count);
	live->groups = resolve(json_object_get(live->document, "groups"), true, &s->group_count);
	s->users = live->users;
	s->groups = live->groups;
	live->work_status = live->users && live->groups ? tenant_create(s, &live->tenant) : RSHM_E_NOMEM;
}

struct opened_message {
	struct mailbox_message message; /* first */
	struct live_tenant *live;
	int status;
};

static void post_to_main(struct live_tenant *live, void (*handle)(struct mailbox_message *message), int status)
{
	struct opened_message *opened = malloc(sizeof(*opened));

	must(opened); /* an order whose end nobody hears of would hold its tenant for ever */
	*opened = (struct opened_message){.message = {.handle = handle}, .live = live, .status = status};
	/* Bounded by the number of tenants, which is below the mailbox's limit while orders are answered one by one. */
	must(mailbox_post(&live->agent->mailbox, &opened->message));
}

static void drop_tenant(struct live_tenant *live)
{
	tenant_table_remove(live->agent->tenants, live->tenant);
	tenant_destroy(&live->tenant);
	free(live->built_from);
	live->built_from = NULL;
	live->state = LIVE_NONE;
	release_waiters(&live->closes);
}

static void opened_on_arrival(struct mailbox_message *message)
{
	struct opened_message *opened = (struct opened_message *)message;
	struct live_tenant *live = opened->live;
	int status = opened->status;

	free(opened);
	if (status == RSHM_OK) {
		live->state = LIVE_OPEN;
		live->idle_since_ms = clock_monotonic_ms();
	} else {
		drop_tenant(live);
		refuse_all(live, status, "the agent has no memory left for the tenant");
	}
	evaluate(live);
}

static void open_on_worker(void *context, int status)
{
	post_to_main(context, opened_on_arrival, status);
}

static int order_open(struct live_tenant *live)
{
	struct agent *a = live->agent;
	int status = stores_number_tenant(a, live->id, &live->tenant->number, &live->tenant->shards);

	if (status < 0)
		return status;
	live->tenant->worker = live_tenant_worker(a, live->id);
	status = tenant_table_add(a->tenants, live->tenant);
	if (status < 0)
		return status;
	live->state = LIVE_OPENING;
	if (worker_open_tenant(a->workers[live->tenant->worker], live->tenant,
			       live->segment[0] ? live->segment : NULL, open_on_worker, live)) {
		live->segment[0] = '\0';
		return RSHM_OK;
	}
	tenant_table_remove(a->tenants, live->tenant);
	return RSHM_E_AGAIN;
}

static void prepare_on_done(uv_work_t *work, int cancelled)
{
	struct live_tenant *live = work->data;
	int status = cancelled ? RSHM_E_CLOSED : live->work_status;

	free(live->users);
	free(live->groups);
	json_decref(live->document);
	live->users = live->groups = NULL;
	live->document = NULL;
	live->state = LIVE_NONE;
	if (status == RSHM_OK)
		status = live->agent->live->closing || live->agent->stopping ? RSHM_E_CLOSED : order_open(live);
	if (status < 0) {
		tenant_destroy(&live->tenant);
		refuse_all(live, status == RSHM_E_FULL ? RSHM_E_AGAIN : status,
			   status == RSHM_E_FULL ? "no place for another tenant; raise tenancy.max_tenants"
						 : "the tenant cannot be opened now; try again later");
		live->retry_at_ms = clock_monotonic_ms() + RETRY_MS;
		release_waiters(&live->closes);
	}
	evaluate(live);
}

static uint64_t cache_number(const struct tenant_record *record, const char *name, uint64_t otherwise)
{
	const json_t *value = json_object_get(json_object_get(record->document, "cache"), name);

	return value ? (uint64_t)json_integer_value(value) : otherwise;
}

static int cache_word(const struct tenant_record *record, const char *name, const char *const *words, int otherwise)
{
	const json_t *value = json_object_get(json_object_get(record->document, "cache"), name);

	for (int i = 0; value && words[i]; i++)
		if (strcmp(words[i], json_string_value(value)) == 0)
			return i;
	return otherwise;
}

static struct tenant_settings settings_of(const struct agent *a, const struct tenant_record *record)
{
	static const char *const modes[] = {"through", "behind", NULL};
	static const char *const evictions[] = {"lru", "lfu", "ttl", "random", "s3fifo", NULL};
	static const char *const policies[] = {"miss", "stale", "error", NULL};
	const struct config *c = a->config;
	struct tenant_settings settings = {
		.id = record->id,
		.default_ttl_ms = cache_number(record, "default_ttl_seconds", c->cache.default_ttl_seconds) * 1000,
		.stale_limit_ms = c->coherence.stale_limit_ms,
		.ttl_jitter_percent = c->cache.ttl_jitter_percent,
		.stale_policy = (enum rshm_policy)cache_word(record, "stale_policy", policies,
							     (int)c->coherence.stale_policy),
		.write_behind = cache_word(record, "write_mode", modes, (int)c->cache.write_mode) == 1,
		.eviction = (enum hot_policy)cache_word(record, "eviction_policy", evictions,
							(int)c->cache.eviction_policy),
		.negatives_max = c->cache.negative_entries_max,
		.cold = !record->hot,
	};

	if (tenant_record_quota(record, "memory_bytes", &settings.memory_bytes) &&
	    settings.memory_bytes < c->cache.segment_initial_bytes)
		settings.memory_bytes = c->cache.segment_initial_bytes;
	return settings;
}

static void prepare(struct live_tenant *live)
{
	free(live->built_from);
	live->built_from = essence_of(live->record);
	live->settings = settings_of(live->agent, live->record);
	live->settings.id = live->id;
	live->document = json_deep_copy(live->record->document);
	live->work.data = live;
	live->state = LIVE_PREPARING;
	must(uv_queue_work(&live->agent->loop, &live->work, prepare_on_thread, prepare_on_done) == 0);
}

/* ---- closing ------------------------------------------------------------------------------------------------------- */

static void emptied_on_arrival(struct mailbox_message *message)
{
	struct opened_message *emptied = (struct opened_message *)message;

	release_waiters(&emptied->live->refreshes);
	free(emptied);
}

static void closed_on_arrival(struct mailbox_message *message)
{
	struct opened_message *closed = (struct opened_message *)message;
	struct live_tenant *live = closed->live;

	free(closed);
	live->state = LIVE_DRAINING;
	evaluate(live);
}

static void emptied_on_worker(void *context)
{
	post_to_main(context, emptied_on_arrival, RSHM_OK);
}

static void closed_on_worker(void *context)
{
	post_to_main(context, closed_on_arrival, RSHM_OK);
}

static void close_live(struct live_tenant *live)
{
	live->state = LIVE_CLOSING;
	live->order_due = !worker_close_tenant(live->agent->workers[live->tenant->worker], live->tenant,
					       emptied_on_worker, closed_on_worker, live);
}

void live_tenant_unuse(struct agent *a, struct live_tenant *live)
{
	must(live->uses > 0);
	live->uses--;
	live->idle_since_ms = clock_monotonic_ms();
	if (live->state == LIVE_DRAINING && !a->live->closing)
		evaluate(live);
}

/* ---- what is next --------------------------------------------------------------------------------------------------- */

/* Nobody may have the segment that was offered for it. */
static void discard_segment(struct live_tenant *live)
{
	struct rshm_map map;

	if (live->segment[0] == '\0')
		return;
	if (rshm_map_adopt(live->segment, &map) == RSHM_OK) {
		struct rshm_segment *segment = map.base;

		rshm_store_release(&segment->tail, segment->head);
		rshm_store_release32(&segment->state, RSHM_RETIRED);
		rshm_unmap(&map);
	}
	object_list_remove(live->agent->objects, live->segment);
	live->segment[0] = '\0';
}

static void refuse_forbidden(struct live_tenant *live)
{
	const char *reason;
	char text[400];

	if (!live->record || live->record->status == TENANT_DELETING) {
		while (live->attaches) {
			struct waiting *waiting = live->attaches;

			live->attaches = waiting->next;
			admission_refuse(&waiting->attach, waiting->done, waiting->context);
			free_waiting(waiting);
		}
		return;
	}
	reason = json_string_value(json_object_get(live->record->document, "status_reason"));
	snprintf(text, sizeof(text), "tenant %s is %s%s%s", live->id, tenant_status_name(live->record->status),
		 reason && reason[0] ? ": " : "", reason ? reason : "");
	refuse_all(live, RSHM_E_DENIED, text);
}

static void evaluate_none(struct live_tenant *live)
{
	bool wanted = live->attaches || live->segment[0];

	release_waiters(&live->closes);
	if (live->stale && (wanted || live->refreshes)) {
		read_record(live);
		return;
	}
	release_waiters(&live->refreshes);
	if (wanted && live->known && is_permitted(live)) {
		if (clock_monotonic_ms() >= live->retry_at_ms)
			prepare(live);
		return;
	}
	if (live->known) {
		discard_segment(live);
		refuse_forbidden(live);
	}
	if (!live->attaches && !live->reading && live->segment[0] == '\0' && live->uses == 0)
		forget(live);
}

static void evaluate_open(struct live_tenant *live)
{
	if (live->stale) {
		read_record(live);
		return;
	}
	if (!is_permitted(live) || !fits(live)) {
		close_live(live);
		return;
	}
	release_waiters(&live->refreshes);
	decide_all(live);
}

static void evaluate(struct live_tenant *live)
{
	struct agent *a = live->agent;

	if (a->live->closing || a->stopping)
		return;
	if (live->state == LIVE_DRAINING && live->uses == 0)
		drop_tenant(live);
	if (live->state == LIVE_NONE)
		evaluate_none(live);
	else if (live->state == LIVE_OPEN)
		evaluate_open(live);
}

void live_tenants_refresh(struct agent *a, const char *id, void (*done)(void *context), void *context)
{
	struct live_tenant *live = find(a, id);

	if (!live) {
		done(context);
		return;
	}
	doubt(live);
	add_waiter(&live->refreshes, done, context);
	evaluate(live);
}

void live_tenants_await_closed(struct agent *a, const char *id, void (*then)(void *context), void *context)
{
	struct live_tenant *live = find(a, id);

	if (!live || live->state == LIVE_NONE)
		then(context);
	else
		add_waiter(&live->closes, then, context);
}

/* ---- beat, start, end ------------------------------------------------------------------------------------------------ */

static void beat(struct live_tenant *live, uint64_t now_ms)
{
	uint64_t idle_ms = live->agent->config->tenancy.idle_seconds * 1000;

	if (live->state == LIVE_CLOSING && live->order_due) {
		close_live(live);
		return;
	}
	if (live->state == LIVE_OPEN && live->uses == 0 && !live->attaches &&
	    now_ms - live->idle_since_ms > idle_ms) {
		close_live(live);
		return;
	}
	if (!is_fresh(live))
		doubt(live);
	evaluate(live);
}

static void tidy_on_done(void *context, int status, size_t count)
{
	struct live_tenants *lt = context;

	lt->tidying = false;
	if (status == RSHM_OK && count > 0)
		log_info("agent", "%zu ids of tenants that were never made are free again", count);
}

void live_tenants_beat(struct agent *a)
{
	struct live_tenants *lt = a->live;
	uint64_t now_ms = clock_monotonic_ms();
	struct live_tenant *next;

	for (struct live_tenant *live = lt->first; live; live = next) {
		next = live->next;
		beat(live, now_ms);
	}
	/* An hour between looks at what crashes left. */
	if (lt->registry && !lt->tidying && now_ms >= lt->tidy_at_ms) {
		lt->tidying = true;
		lt->tidy_at_ms = now_ms + 3600000;
		registry_tidy(lt->registry, tidy_on_done, lt);
	}
}

bool live_tenants_offer(struct agent *a, const char *id, const char *segment)
{
	struct live_tenant *live = tenant_id_is_valid(id) ? find_or_make(a, id) : NULL;

	if (!live || live->segment[0])
		return false;
	snprintf(live->segment, sizeof(live->segment), "%s", segment);
	return true;
}

int live_tenants_create(struct agent *a)
{
	a->live = calloc(1, sizeof(*a->live));
	if (!a->live)
		return RSHM_E_NOMEM;
	a->live->agent = a;
	return RSHM_OK;
}

void live_tenants_begin(struct agent *a)
{
	live_tenants_beat(a);
}

void live_tenants_close(struct agent *a, void (*closed)(void *context), void *context)
{
	struct live_tenants *lt = a->live;

	if (lt)
		lt->closing = true;
	if (lt && lt->store)
		store_close(lt->store, closed, context);
	else
		closed(context);
}

void live_tenants_destroy(struct agent *a)
{
	struct live_tenants *lt = a->live;

	a->live = NULL;
	if (!lt)
		return;
	if (lt->registry)
		registry_close(&lt->registry);
	while (lt->first) {
		struct live_tenant *live = lt->first;

		lt->first = live->next;
		refuse_all(live, RSHM_E_CLOSED, "the agent is stopping");
		release_waiters(&live->refreshes);
		release_waiters(&live->closes);
		free_live(live);
	}
	free(lt);
}
