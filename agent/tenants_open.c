/*
 * tenants_open.c - from a record to a tenant that is open at its worker.
 *
 * Users and groups are looked up on a pool thread, because the user database may ask a network. Who waits and is none of them
 * is refused then, before anything is made for them; if somebody is left, the tenant gets its numbers, its place and its
 * worker, and the worker opens it.
 */
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/text.h"
#include "agent/tenants_priv.h"

#define LOOKUP_BYTES (64u << 10)

/* What a tenant's segment and settings are made from, as text; the caller's to free. */
static char *essence_of(const struct tenant_record *record)
{
	static const char *const names[] = {"token_required", "users",    "groups", "quotas",
					    "rate_limits",    "policies", "cache",  "hot"};
	json_t *part = json_object();
	char *text;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		json_object_set(part, names[i], json_object_get(record->document, names[i]));
	text = part ? json_dumps(part, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(part);
	return text;
}

static struct token_set *tokens_of(const struct tenant_record *record)
{
	struct token_set *tokens = NULL;

	(void)tenant_record_tokens(record, &tokens);
	return tokens;
}

void live_forget_built(struct live_tenant *live)
{
	free(live->built_from);
	live->built_from = NULL;
	token_set_destroy(&live->tokens);
	live->fits = false;
}

bool live_fits(struct live_tenant *live)
{
	struct token_set *tokens = tokens_of(live->record);
	char *now = essence_of(live->record);
	bool same = now && live->built_from && strcmp(now, live->built_from) == 0;

	/* Who came in by a token that is none any more has to ask again, and all others with it. */
	if (live->tokens && (!tokens || token_set_bars(live->tokens, tokens, clock_realtime_ms())))
		same = false;
	free(now);
	token_set_destroy(&live->tokens);
	live->tokens = tokens;
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
	s->policies = json_object_get(live->document, "policies");
	s->quotas = json_object_get(live->document, "quotas");
	s->rate_limits = json_object_get(live->document, "rate_limits");
	live->work_status = live->users && live->groups ? tenant_create(s, &live->made) : RSHM_E_NOMEM;
}

static void opened_on_arrival(struct mailbox_message *message)
{
	struct live_message *opened = (struct live_message *)message;
	struct live_tenant *live = opened->live;
	int status = opened->status;

	free(opened);
	if (status == RSHM_OK) {
		live->state = LIVE_OPEN;
		live->idle_since_ms = clock_monotonic_ms();
	} else {
		live_drop(live);
		live_refuse_all(live, status, "the agent has no memory left for the tenant");
	}
	live_evaluate(live);
}

static void open_on_worker(void *context, int status)
{
	live_post(context, opened_on_arrival, status);
}

int live_tenant_number(struct agent *a, struct tenant *tenant)
{
	uint32_t shards;
	int status = stores_number_tenant(a, TENANT_RESERVED_ID, &tenant->registry_number, &shards);

	return status < 0 ? status : stores_number_tenant(a, tenant->id, &tenant->number, &tenant->shards);
}

static int order_open(struct live_tenant *live)
{
	struct agent *a = live->agent;
	int status = live_tenant_number(a, live->tenant);

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
	live->state = LIVE_NONE;
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
	live->tenant = live->made;
	live->made = NULL;
	live->state = LIVE_NONE;
	if (status == RSHM_OK && (live->agent->live->closing || live->agent->stopping))
		status = RSHM_E_CLOSED;
	if (status == RSHM_OK && !live_sift(live) && live->segment[0] == '\0') {
		tenant_destroy(&live->tenant);
		live_forget_built(live);
		live_evaluate(live);
		return;
	}
	if (status == RSHM_OK)
		status = order_open(live);
	if (status < 0) {
		tenant_destroy(&live->tenant);
		live_refuse_all(live, status == RSHM_E_FULL ? RSHM_E_AGAIN : status,
				status == RSHM_E_FULL ? "no place for another tenant; raise tenancy.max_tenants"
						      : "the tenant cannot be opened now; try again later");
		live->retry_at_ms = clock_monotonic_ms() + TENANT_RETRY_MS;
		live_release_waiters(&live->closes);
	}
	live_evaluate(live);
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
		.encrypted = record->encryption,
	};

	if (tenant_record_quota(record, "memory_bytes", &settings.memory_bytes) &&
	    settings.memory_bytes < c->cache.segment_initial_bytes)
		settings.memory_bytes = c->cache.segment_initial_bytes;
	return settings;
}

void live_prepare(struct live_tenant *live)
{
	live_forget_built(live);
	live->built_from = essence_of(live->record);
	live->tokens = tokens_of(live->record);
	for (struct waiting *waiting = live->attaches; waiting; waiting = waiting->next)
		waiting->considered = true;
	live->settings = settings_of(live->agent, live->record);
	live->settings.id = live->id;
	live->document = json_deep_copy(live->record->document);
	live->work.data = live;
	live->state = LIVE_PREPARING;
	must(uv_queue_work(&live->agent->loop, &live->work, prepare_on_thread, prepare_on_done) == 0);
}
