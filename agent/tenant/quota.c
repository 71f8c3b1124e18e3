/*
 * quota.c - a table of names with limit and use: the known names first, at their fixed numbers, then the user's by name.
 *
 * The table is made anew whenever limits are set, and use is carried over by name; so half a change is never seen, and
 * the user's names can be found by bisection. What is asked per operation goes by number and looks nothing up.
 *
 * A limit below what is in use (lowered, or use was assigned or charged) refuses more and takes nothing away.
 */
#include "agent/tenant/quota.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/text.h"
#include "shm/msg.h"

#define QUOTA_MAGIC 0x51554f54u
#define MINUTE_NS UINT64_C(60000000000)

struct quota {
	uint64_t limit;
	uint64_t use;
	bool has_limit;
	char name[QUOTA_NAME_MAX + 1];
};

struct quota_set {
	uint32_t magic;
	uint32_t count;
	struct rate operations;
	struct quota *quotas;
};

static const char *const known_names[QUOTA_KNOWN] = {
	[QUOTA_MEMORY_BYTES] = "memory_bytes",
	[QUOTA_STORAGE_BYTES] = "storage_bytes",
	[QUOTA_OPERATIONS_PER_MINUTE] = "operations_per_minute",
	[QUOTA_DATA_TRANSFER_BYTES] = "data_transfer_bytes",
	[QUOTA_ACTIVE_SESSIONS] = "active_sessions",
	[QUOTA_CACHE_ENTRIES] = "cache_entries",
};

/* ---- the set ------------------------------------------------------------------------------------------------ */

/* The known quotas without limits, and room for `custom` more; NULL: no memory. */
static struct quota *make_quotas(size_t custom)
{
	struct quota *quotas = calloc(QUOTA_KNOWN + custom, sizeof(*quotas));

	for (uint32_t i = 0; quotas && i < QUOTA_KNOWN; i++)
		memcpy(quotas[i].name, known_names[i], strlen(known_names[i]) + 1);
	return quotas;
}

int quota_set_create(struct quota_set **ret)
{
	struct quota_set *set = calloc(1, sizeof(*set));

	if (set)
		set->quotas = make_quotas(0);
	if (!set || !set->quotas) {
		free(set);
		return RSHM_E_NOMEM;
	}
	set->magic = QUOTA_MAGIC;
	set->count = QUOTA_KNOWN;
	*ret = set;
	return RSHM_OK;
}

void quota_set_destroy(struct quota_set **set)
{
	struct quota_set *s = *set;

	*set = NULL;
	if (!s)
		return;
	must(s->magic == QUOTA_MAGIC);
	s->magic = 0;
	free(s->quotas);
	free(s);
}

static uint32_t find_known(const char *name)
{
	uint32_t number = 0;

	while (number < QUOTA_KNOWN && strcmp(known_names[number], name) != 0)
		number++;
	return number;
}

static int compare_names(const void *a, const void *b)
{
	const struct quota *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static bool is_name(const char *name)
{
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");

	return length > 0 && length <= QUOTA_NAME_MAX && name[length] == '\0';
}

static int check_limits(const json_t *object, size_t *ret_custom, char *error, size_t error_size)
{
	char shown[80];
	struct text text;
	const char *name;
	json_t *value;
	size_t custom = 0;

	if (!json_is_object(object)) {
		snprintf(error, error_size, "must be an object of names and limits");
		return RSHM_E_INVALID;
	}
	/* The iteration does not change the object; jansson has no form of it for const ones. */
	json_object_foreach((json_t *)object, name, value)
	{
		text_init(&text, shown, sizeof(shown));
		text_append_escaped(&text, name, strlen(name));
		if (!is_name(name)) {
			snprintf(error, error_size, "\"%s\": a name has 1 to %u characters of a-z, 0-9 and _", shown,
				 QUOTA_NAME_MAX);
			return RSHM_E_INVALID;
		}
		if (!json_is_integer(value) || json_integer_value(value) < 0) {
			snprintf(error, error_size, "%s: a limit is an integer from 0 to 9223372036854775807", shown);
			return RSHM_E_INVALID;
		}
		if (find_known(name) == QUOTA_KNOWN && ++custom > QUOTA_CUSTOM_MAX) {
			snprintf(error, error_size, "%s: more than %u names besides the known ones", shown,
				 QUOTA_CUSTOM_MAX);
			return RSHM_E_INVALID;
		}
	}
	*ret_custom = custom;
	return RSHM_OK;
}

static void fill_limits(struct quota *quotas, const json_t *object)
{
	uint32_t count = QUOTA_KNOWN;
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)object, name, value)
	{
		uint32_t number = find_known(name);

		if (number == QUOTA_KNOWN) {
			number = count++;
			memcpy(quotas[number].name, name, strlen(name) + 1);
		}
		quotas[number].limit = (uint64_t)json_integer_value(value);
		quotas[number].has_limit = true;
	}
	qsort(quotas + QUOTA_KNOWN, count - QUOTA_KNOWN, sizeof(*quotas), compare_names);
}

int quota_set_limits(struct quota_set *set, const json_t *object, char *error, size_t error_size)
{
	struct quota *quotas;
	size_t custom;
	int status = check_limits(object, &custom, error, error_size);

	if (status != RSHM_OK)
		return status;
	quotas = make_quotas(custom);
	if (!quotas)
		return RSHM_E_NOMEM;
	fill_limits(quotas, object);
	for (uint32_t i = 0; i < QUOTA_KNOWN + custom; i++) {
		uint32_t old;

		if (quota_find(set, quotas[i].name, &old) == RSHM_OK)
			quotas[i].use = set->quotas[old].use;
	}
	free(set->quotas);
	set->quotas = quotas;
	set->count = QUOTA_KNOWN + (uint32_t)custom;
	return RSHM_OK;
}

json_t *quota_set_to_json(const struct quota_set *set)
{
	json_t *object = json_object();

	for (uint32_t i = 0; object && i < set->count; i++) {
		const struct quota *quota = &set->quotas[i];

		if (quota->has_limit &&
		    json_object_set_new(object, quota->name, json_integer((json_int_t)quota->limit)) < 0) {
			json_decref(object);
			object = NULL;
		}
	}
	return object;
}

/* ---- one quota ---------------------------------------------------------------------------------------------- */

static struct quota *quota_at(const struct quota_set *set, uint32_t number)
{
	must(set->magic == QUOTA_MAGIC && number < set->count);
	return &set->quotas[number];
}

uint32_t quota_count(const struct quota_set *set)
{
	return set->count;
}

int quota_find(const struct quota_set *set, const char *name, uint32_t *ret_number)
{
	uint32_t low = QUOTA_KNOWN, high = set->count, known = find_known(name);

	if (known < QUOTA_KNOWN) {
		*ret_number = known;
		return RSHM_OK;
	}
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = strcmp(name, set->quotas[middle].name);

		if (order == 0) {
			*ret_number = middle;
			return RSHM_OK;
		}
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return RSHM_MISS;
}

const char *quota_name(const struct quota_set *set, uint32_t number)
{
	return quota_at(set, number)->name;
}

bool quota_limit(const struct quota_set *set, uint32_t number, uint64_t *ret_limit)
{
	const struct quota *quota = quota_at(set, number);

	if (quota->has_limit)
		*ret_limit = quota->limit;
	return quota->has_limit;
}

/* Of the operations. Without a limit nothing is refused and nothing remembered. */
static struct rate_limit operations_limit(const struct quota_set *set)
{
	return (struct rate_limit){.limit = set->quotas[QUOTA_OPERATIONS_PER_MINUTE].limit, .period_ns = MINUTE_NS};
}

static bool is_rate(uint32_t number)
{
	return number == QUOTA_OPERATIONS_PER_MINUTE;
}

uint64_t quota_use(const struct quota_set *set, uint32_t number, uint64_t now_ns)
{
	const struct quota *quota = quota_at(set, number);
	struct rate_limit limit = operations_limit(set);

	if (!is_rate(number))
		return quota->use;
	return quota->has_limit ? rate_level(&set->operations, &limit, now_ns) : 0;
}

/* ---- asking and taking -------------------------------------------------------------------------------------- */

static bool amount_fits(const struct quota *quota, uint64_t amount)
{
	if (!quota->has_limit || amount == 0)
		return true;
	return quota->use <= quota->limit && amount <= quota->limit - quota->use;
}

static void add_use(struct quota *quota, uint64_t amount)
{
	quota->use = amount <= UINT64_MAX - quota->use ? quota->use + amount : UINT64_MAX;
}

/* All of the answer but what a rate decides. */
static void begin_answer(const struct quota *quota, uint64_t use, uint64_t amount, struct quota_answer *ret)
{
	*ret = (struct quota_answer){.allowed = amount_fits(quota, amount),
				     .has_limit = quota->has_limit,
				     .name = quota->name,
				     .limit = quota->has_limit ? quota->limit : 0,
				     .use = use,
				     .asked = amount};
}

static void end_answer(const struct rate_answer *rate, struct quota_answer *ret)
{
	ret->allowed = !rate->limited;
	ret->retry_after_ms = rate->retry_after_ms;
}

void quota_ask(const struct quota_set *set, uint32_t number, uint64_t amount, uint64_t now_ns,
	       struct quota_answer *ret)
{
	const struct quota *quota = quota_at(set, number);
	struct rate_limit limit = operations_limit(set);
	struct rate_answer answer;

	begin_answer(quota, quota_use(set, number, now_ns), amount, ret);
	if (!is_rate(number) || !quota->has_limit)
		return;
	rate_peek(&set->operations, &limit, now_ns, amount, &answer);
	end_answer(&answer, ret);
}

void quota_consume(struct quota_set *set, uint32_t number, uint64_t amount, uint64_t now_ns, struct quota_answer *ret)
{
	struct quota *quota = quota_at(set, number);
	struct rate_limit limit = operations_limit(set);
	struct rate_answer answer;

	begin_answer(quota, quota_use(set, number, now_ns), amount, ret);
	if (is_rate(number) && quota->has_limit) {
		rate_take(&set->operations, &limit, now_ns, amount, &answer);
		end_answer(&answer, ret);
	} else if (!is_rate(number) && ret->allowed) {
		add_use(quota, amount);
	}
}

void quota_charge(struct quota_set *set, uint32_t number, uint64_t amount, uint64_t now_ns)
{
	struct quota *quota = quota_at(set, number);
	struct rate_limit limit = operations_limit(set);

	if (!is_rate(number))
		add_use(quota, amount);
	else if (quota->has_limit)
		rate_charge(&set->operations, &limit, now_ns, amount);
}

void quota_release(struct quota_set *set, uint32_t number, uint64_t amount, uint64_t now_ns)
{
	struct quota *quota = quota_at(set, number);
	struct rate_limit limit = operations_limit(set);

	if (!is_rate(number))
		quota->use -= amount < quota->use ? amount : quota->use;
	else if (quota->has_limit)
		rate_return(&set->operations, &limit, now_ns, amount);
}

void quota_assign(struct quota_set *set, uint32_t number, uint64_t use)
{
	must(!is_rate(number));
	quota_at(set, number)->use = use;
}

uint64_t quota_grant_operations(struct quota_set *set, uint64_t wanted, uint64_t now_ns)
{
	struct rate_limit limit = operations_limit(set);

	if (!quota_at(set, QUOTA_OPERATIONS_PER_MINUTE)->has_limit)
		return wanted;
	return rate_grant(&set->operations, &limit, now_ns, wanted);
}

void quota_error_text(const struct quota_answer *answer, char *text, size_t size)
{
	int length = snprintf(text, size, "Quota exceeded: %s: limit %" PRIu64 ", in use %" PRIu64 ", asked %" PRIu64,
			      answer->name, answer->limit, answer->use, answer->asked);

	must(length >= 0);
	if (answer->retry_after_ms && answer->retry_after_ms != RATE_NEVER && (size_t)length < size)
		snprintf(text + length, size - (size_t)length, ", retry after %" PRIu64 " ms",
			 answer->retry_after_ms);
}
