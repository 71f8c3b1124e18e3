/*
 * account.c - limits, and the document that all agents of a tenant share.
 *
 *	{"rates": [[level, fraction, period_ns, at_ms], ...], "month": n, "transfer": n, "used": {name: n}}
 *
 * Numbers are kept below 2^62, which JSON's 64-bit integers hold with room to add; what is read and is no such number is a
 * damaged entry, and a damaged entry is no reason to let everything pass: whoever reads it is told.
 */
#include "agent/tenant/account.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/base/assert.h"
#include "shm/msg.h"

#define NUMBER_MAX (UINT64_C(1) << 62)
#define MINUTE_NS UINT64_C(60000000000)
#define MS_NS UINT64_C(1000000)
#define PERIOD_SECONDS_MAX 86400

static const char *const kind_names[ACCOUNT_KINDS] = {
	[ACCOUNT_PER_MINUTE] = "operations_per_minute",
	[ACCOUNT_OPERATIONS] = "operations",
	[ACCOUNT_BYTES] = "bytes",
	[ACCOUNT_TRANSFER] = "data_transfer_bytes",
};
/* Names of quotas that are counted elsewhere. */
static const char *const other_names[] = {"memory_bytes", "storage_bytes", "cache_entries", "active_sessions"};

const char *account_kind_name(enum account_kind kind)
{
	return kind_names[kind];
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static bool is_number(const json_t *value, json_int_t least, json_int_t most)
{
	return json_is_integer(value) && json_integer_value(value) >= least && json_integer_value(value) <= most;
}

static bool is_rate_limit(const json_t *value)
{
	const char *key;
	json_t *item;

	if (!is_number(json_object_get(value, "limit"), 0, (json_int_t)NUMBER_MAX))
		return false;
	json_object_foreach((json_t *)value, key, item)
	{
		bool right = strcmp(key, "limit") == 0;

		if (strcmp(key, "period_seconds") == 0)
			right = is_number(item, 1, PERIOD_SECONDS_MAX);
		else if (strcmp(key, "burst") == 0)
			right = is_number(item, 1, (json_int_t)NUMBER_MAX);
		else if (strcmp(key, "shadow") == 0)
			right = json_is_boolean(item);
		if (!right)
			return false;
	}
	return true;
}

const char *account_check_rate_limits(const json_t *value)
{
	const char *key;
	json_t *item;

	if (!json_is_object(value))
		return "an object of operations and bytes";
	json_object_foreach((json_t *)value, key, item)
	{
		if ((strcmp(key, kind_names[ACCOUNT_OPERATIONS]) != 0 &&
		     strcmp(key, kind_names[ACCOUNT_BYTES]) != 0) ||
		    !is_rate_limit(item))
			return "an object of operations and bytes, each with limit, and, if need be, period_seconds (1 to "
			       "86400), burst (from 1), shadow (true, false)";
	}
	return NULL;
}

static void take_rate_limit(struct account_limits *limits, enum account_kind kind, const json_t *value)
{
	const json_t *period = json_object_get(value, "period_seconds");

	if (!value)
		return;
	limits->limited[kind] = true;
	limits->rates[kind] = (struct rate_limit){
		.limit = (uint64_t)json_integer_value(json_object_get(value, "limit")),
		.period_ns = period ? (uint64_t)json_integer_value(period) * 1000 * MS_NS : MINUTE_NS,
		.burst = (uint64_t)json_integer_value(json_object_get(value, "burst")),
		.shadow = json_is_true(json_object_get(value, "shadow")),
	};
}

static bool is_other(const char *name)
{
	for (size_t i = 0; i < sizeof(other_names) / sizeof(other_names[0]); i++)
		if (strcmp(name, other_names[i]) == 0)
			return true;
	return false;
}

static int take_quotas(struct account_limits *limits, const json_t *quotas)
{
	const char *name;
	json_t *limit;

	json_object_foreach((json_t *)quotas, name, limit)
	{
		uint64_t value = (uint64_t)json_integer_value(limit);

		if (strcmp(name, kind_names[ACCOUNT_PER_MINUTE]) == 0) {
			limits->limited[ACCOUNT_PER_MINUTE] = true;
			limits->rates[ACCOUNT_PER_MINUTE] =
				(struct rate_limit){.limit = value, .period_ns = MINUTE_NS};
		} else if (strcmp(name, kind_names[ACCOUNT_TRANSFER]) == 0) {
			limits->limited[ACCOUNT_TRANSFER] = true;
			limits->transfer = value;
		} else if (!is_other(name) && json_object_set(limits->named, name, limit) < 0) {
			return RSHM_E_NOMEM;
		}
	}
	return RSHM_OK;
}

int account_limits_create(const json_t *quotas, const json_t *rate_limits, struct account_limits **ret)
{
	struct account_limits *limits = calloc(1, sizeof(*limits));
	bool limited = false;
	int status;

	if (!limits)
		return RSHM_E_NOMEM;
	limits->named = json_object();
	take_rate_limit(limits, ACCOUNT_OPERATIONS, json_object_get(rate_limits, kind_names[ACCOUNT_OPERATIONS]));
	take_rate_limit(limits, ACCOUNT_BYTES, json_object_get(rate_limits, kind_names[ACCOUNT_BYTES]));
	status = limits->named ? take_quotas(limits, quotas) : RSHM_E_NOMEM;
	for (int kind = 0; kind < ACCOUNT_KINDS; kind++)
		limited |= limits->limited[kind];
	if (status < 0 || (!limited && json_object_size(limits->named) == 0))
		account_limits_destroy(&limits);
	if (status == RSHM_OK)
		*ret = limits;
	return status;
}

void account_limits_destroy(struct account_limits **limits)
{
	struct account_limits *l = *limits;

	*limits = NULL;
	if (!l)
		return;
	json_decref(l->named);
	free(l);
}

uint64_t account_limit(const struct account_limits *limits, enum account_kind kind)
{
	if (kind == ACCOUNT_TRANSFER)
		return limits->transfer;
	return limits->rates[kind].burst ? limits->rates[kind].burst : limits->rates[kind].limit;
}

/* ---- the document -------------------------------------------------------------------------------------------------- */

int account_init(struct account *account)
{
	*account = (struct account){.used = json_object()};
	return account->used ? RSHM_OK : RSHM_E_NOMEM;
}

void account_fini(struct account *account)
{
	json_decref(account->used);
	account->used = NULL;
}

static bool read_number(const json_t *value, uint64_t *ret)
{
	if (!is_number(value, 0, (json_int_t)NUMBER_MAX))
		return false;
	*ret = (uint64_t)json_integer_value(value);
	return true;
}

static bool read_rate(const json_t *value, struct rate *ret)
{
	uint64_t at_ms;

	if (!json_is_array(value) || json_array_size(value) != 4 ||
	    !read_number(json_array_get(value, 0), &ret->level) ||
	    !read_number(json_array_get(value, 1), &ret->fraction) ||
	    !read_number(json_array_get(value, 2), &ret->period_ns) ||
	    !read_number(json_array_get(value, 3), &at_ms) || at_ms > NUMBER_MAX / MS_NS)
		return false;
	ret->at_ns = at_ms * MS_NS;
	return ret->fraction == 0 || ret->fraction < ret->period_ns;
}

static bool read_used(const json_t *value)
{
	const char *name;
	uint64_t number;
	json_t *item;

	if (!json_is_object(value) || json_object_size(value) > ACCOUNT_NAMES_MAX)
		return false;
	json_object_foreach((json_t *)value, name, item)
	{
		if (!read_number(item, &number))
			return false;
	}
	return true;
}

static bool read_account(const json_t *document, struct account *ret)
{
	const json_t *rates = json_object_get(document, "rates"), *used = json_object_get(document, "used");
	uint64_t month;

	*ret = (struct account){.used = NULL};
	if (!json_is_array(rates) || json_array_size(rates) != ACCOUNT_RATES || !read_used(used) ||
	    !read_number(json_object_get(document, "month"), &month) || month > UINT32_MAX ||
	    !read_number(json_object_get(document, "transfer"), &ret->transfer))
		return false;
	for (size_t i = 0; i < ACCOUNT_RATES; i++)
		if (!read_rate(json_array_get(rates, i), &ret->rates[i]))
			return false;
	ret->month = (uint32_t)month;
	return true;
}

int account_decode(const void *bytes, size_t length, struct account *ret)
{
	json_t *document =
		length <= ACCOUNT_BYTES_MAX ? json_loadb(bytes, length, JSON_REJECT_DUPLICATES, NULL) : NULL;
	int status = document && read_account(document, ret) ? RSHM_OK : RSHM_E_CORRUPT;

	if (status == RSHM_OK) {
		ret->used = json_deep_copy(json_object_get(document, "used"));
		status = ret->used ? RSHM_OK : RSHM_E_NOMEM;
	}
	json_decref(document);
	return status;
}

static json_int_t capped(uint64_t number)
{
	return (json_int_t)(number < NUMBER_MAX ? number : NUMBER_MAX);
}

char *account_encode(const struct account *account)
{
	json_t *rates = json_array(), *document;
	char *text;

	for (size_t i = 0; i < ACCOUNT_RATES; i++) {
		const struct rate *r = &account->rates[i];

		json_array_append_new(rates, json_pack("[I, I, I, I]", capped(r->level), capped(r->fraction),
						       capped(r->period_ns), capped(r->at_ns / MS_NS)));
	}
	document = json_pack("{s:o, s:I, s:I, s:O}", "rates", rates, "month", (json_int_t)account->month, "transfer",
			     capped(account->transfer), "used", account->used);
	text = document ? json_dumps(document, JSON_COMPACT) : NULL;
	json_decref(document);
	return text;
}

/* ---- drawing ------------------------------------------------------------------------------------------------------- */

static uint32_t month_of(uint64_t now_wall_ms, uint64_t *ret_left_ms)
{
	time_t now = (time_t)(now_wall_ms / 1000);
	struct tm at = {.tm_mday = 1};
	uint32_t month;

	must(gmtime_r(&now, &at) != NULL);
	month = (uint32_t)(at.tm_year - 70) * 12 + (uint32_t)at.tm_mon;
	at = (struct tm){.tm_year = at.tm_year, .tm_mon = at.tm_mon + 1, .tm_mday = 1};
	*ret_left_ms = (uint64_t)timegm(&at) * 1000 - now_wall_ms;
	return month;
}

uint64_t account_month_left_ms(uint64_t now_wall_ms)
{
	uint64_t left_ms;

	(void)month_of(now_wall_ms, &left_ms);
	return left_ms;
}

static void draw_transfer(struct account *account, const struct account_limits *limits, uint64_t now_wall_ms,
			  struct account_draw *draw)
{
	uint64_t wanted = draw->wanted[ACCOUNT_TRANSFER], left_ms, room;
	uint32_t month = month_of(now_wall_ms, &left_ms);

	/* A host whose clock is behind does not take the others' new month back. */
	if (month > account->month) {
		account->month = month;
		account->transfer = 0;
	}
	room = account->transfer < limits->transfer ? limits->transfer - account->transfer : 0;
	draw->use[ACCOUNT_TRANSFER] = account->transfer;
	draw->granted[ACCOUNT_TRANSFER] = wanted < room ? wanted : room;
	draw->retry_ms[ACCOUNT_TRANSFER] = left_ms;
	account->transfer += draw->granted[ACCOUNT_TRANSFER];
}

static void draw_rate(struct rate *rate, const struct rate_limit *limit, uint64_t now_ns, enum account_kind kind,
		      struct account_draw *draw)
{
	uint64_t shadowed = rate->shadowed, wanted = draw->wanted[kind];
	struct rate_answer answer;

	draw->use[kind] = rate_level(rate, limit, now_ns);
	draw->granted[kind] = wanted ? rate_grant(rate, limit, now_ns, wanted) : 0;
	draw->shadowed[kind] = rate->shadowed != shadowed;
	if (draw->granted[kind] < wanted) {
		rate_peek(rate, limit, now_ns, wanted - draw->granted[kind], &answer);
		draw->retry_ms[kind] = answer.retry_after_ms;
	}
}

/* What has no limit any more is not counted. */
static void prune(struct account *account, const struct account_limits *limits)
{
	const char *name;
	json_t *item;
	void *next;

	json_object_foreach_safe(account->used, next, name, item)
	{
		if (!json_object_get(limits->named, name))
			json_object_del(account->used, name);
	}
}

void account_draw(struct account *account, const struct account_limits *limits, uint64_t now_wall_ms,
		  struct account_draw *draw)
{
	prune(account, limits);
	for (int kind = 0; kind < ACCOUNT_RATES; kind++)
		if (limits->limited[kind])
			draw_rate(&account->rates[kind], &limits->rates[kind], now_wall_ms * MS_NS,
				  (enum account_kind)kind, draw);
	if (limits->limited[ACCOUNT_TRANSFER])
		draw_transfer(account, limits, now_wall_ms, draw);
}

void account_return(struct account *account, const struct account_limits *limits, uint64_t now_wall_ms,
		    const uint64_t amounts[ACCOUNT_KINDS])
{
	uint64_t transfer = amounts[ACCOUNT_TRANSFER];

	for (int kind = 0; kind < ACCOUNT_RATES; kind++)
		if (limits->limited[kind] && amounts[kind])
			rate_return(&account->rates[kind], &limits->rates[kind], now_wall_ms * MS_NS, amounts[kind]);
	account->transfer -= transfer < account->transfer ? transfer : account->transfer;
}

void account_peek(const struct account *account, const struct account_limits *limits, enum account_kind kind,
		  uint64_t now_wall_ms, struct rate_answer *ret)
{
	must(kind < ACCOUNT_RATES);
	rate_peek(&account->rates[kind], &limits->rates[kind], now_wall_ms * MS_NS, 1, ret);
}

int account_use(struct account *account, const struct account_limits *limits, const char *name, uint64_t amount,
		enum account_mode mode, struct account_answer *ret)
{
	const json_t *limit = json_object_get(limits->named, name);
	uint64_t use = (uint64_t)json_integer_value(json_object_get(account->used, name)), now = use;

	*ret = (struct account_answer){.allowed = true, .has_limit = limit != NULL, .use = use};
	if (!limit)
		return RSHM_OK;
	ret->limit = (uint64_t)json_integer_value(limit);
	if (mode == ACCOUNT_RELEASE) {
		now = amount < use ? use - amount : 0;
	} else {
		ret->allowed = amount == 0 || (use <= ret->limit && amount <= ret->limit - use);
		if (mode == ACCOUNT_CONSUME && ret->allowed)
			now = use + amount;
	}
	if (now == use)
		return RSHM_OK;
	return json_object_set_new(account->used, name, json_integer(capped(now))) < 0 ? RSHM_E_NOMEM : RSHM_OK;
}
