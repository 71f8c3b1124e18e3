#include "agent/tenant/billing.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/base/assert.h"
#include "shm/msg.h"

#define DECIMALS 6u
#define PRICE_MAX UINT64_C(1000000000000) /* units of the currency */

static const char *const names[BILLING_PARTS] = {"base", "operations", "transfer", "memory", "storage", "compute"};

const char *billing_part_name(enum billing_part part)
{
	return names[part];
}

/* ---- prices ------------------------------------------------------------------------------------------------------ */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "12.5" into 12500000; what stands behind it into *text. */
static bool parse_price(const char **text, uint64_t *ret)
{
	const char *at = *text;
	uint64_t units = 0, micro = 0;
	unsigned int decimals = 0;

	if (!is_digit(*at))
		return false;
	for (; is_digit(*at); at++) {
		units = units * 10 + (uint64_t)(*at - '0');
		if (units > PRICE_MAX)
			return false;
	}
	if (*at == '.') {
		for (at++; is_digit(*at); at++) {
			if (++decimals > DECIMALS)
				return false;
			micro = micro * 10 + (uint64_t)(*at - '0');
		}
		if (decimals == 0)
			return false;
	}
	for (; decimals < DECIMALS; decimals++)
		micro *= 10;
	*text = at;
	*ret = units * BILLING_MICRO + micro;
	return true;
}

static const char *skip_spaces(const char *at)
{
	return at + strspn(at, " \t");
}

static enum billing_part part_at(const char *at, size_t length)
{
	enum billing_part part = BILLING_BASE;

	while (part < BILLING_PARTS && !(strlen(names[part]) == length && memcmp(names[part], at, length) == 0))
		part++;
	return part;
}

static int refuse(char *error, size_t error_len, const char *name, size_t length, const char *why)
{
	snprintf(error, error_len, "price \"%.*s\": %s", (int)(length < 24 ? length : 24), name, why);
	return RSHM_E_INVALID;
}

/* One "name=price" at *text. */
static int parse_part(const char **text, struct billing_prices *prices, bool given[BILLING_PARTS], char *error,
		      size_t error_len)
{
	const char *name = *text, *at;
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz");
	enum billing_part part = part_at(name, length);

	if (part == BILLING_PARTS)
		return refuse(error, error_len, name, strcspn(name, "=, \t"),
			      "is none; there are base, operations, transfer, memory, storage, compute");
	if (given[part])
		return refuse(error, error_len, name, length, "is there twice");
	at = skip_spaces(name + length);
	if (*at != '=')
		return refuse(error, error_len, name, length, "lacks \"= PRICE\"");
	at = skip_spaces(at + 1);
	if (!parse_price(&at, &prices->micro[part]))
		return refuse(error, error_len, name, length,
			      "must be a number such as 0.20, at most 10^12, with six decimals at most");
	given[part] = true;
	*text = skip_spaces(at);
	return RSHM_OK;
}

int billing_prices_parse(const char *text, struct billing_prices *ret, char *error, size_t error_len)
{
	struct billing_prices prices = {{0}};
	bool given[BILLING_PARTS] = {false};
	const char *at = skip_spaces(text);
	int status;

	while (*at != '\0') {
		status = parse_part(&at, &prices, given, error, error_len);
		if (status < 0)
			return status;
		if (*at == '\0')
			break;
		if (*at != ',')
			return refuse(error, error_len, at, strlen(at),
				      "is not expected here; prices are parted by commas");
		at = skip_spaces(at + 1);
		if (*at == '\0')
			return refuse(error, error_len, "", 0, "is missing behind the last comma");
	}
	*ret = prices;
	return RSHM_OK;
}

/* ---- costs ------------------------------------------------------------------------------------------------------- */

static uint64_t saturate(unsigned __int128 value)
{
	return value > UINT64_MAX ? UINT64_MAX : (uint64_t)value;
}

/* price x amount / unit, rounded half up. Two words hold the product and the half. */
static uint64_t part_cost(uint64_t micro, uint64_t amount, uint64_t unit)
{
	return saturate(((unsigned __int128)micro * amount + unit / 2) / unit);
}

void billing_cost(const struct billing_prices *prices, const struct billing_use *use, struct billing_cost *ret)
{
	static const uint64_t kib_in_gib = UINT64_C(1) << 20;
	const struct {
		uint64_t amount, unit;
	} parts[BILLING_PARTS] = {
		[BILLING_BASE] = {1, 1},
		[BILLING_OPERATIONS] = {use->operations, 1000000},
		[BILLING_TRANSFER] = {use->transfer_bytes, UINT64_C(1) << 30},
		[BILLING_MEMORY] = {use->memory_kib_seconds, kib_in_gib * 3600},
		[BILLING_STORAGE] = {use->storage_kib_seconds, kib_in_gib * 3600},
		[BILLING_COMPUTE] = {use->compute_ns, UINT64_C(3600) * 1000000000},
	};
	unsigned __int128 total = 0;

	for (int part = 0; part < BILLING_PARTS; part++) {
		ret->micro[part] = part_cost(prices->micro[part], parts[part].amount, parts[part].unit);
		total += ret->micro[part];
	}
	ret->total = saturate(total);
}

static uint64_t project(uint64_t amount, uint64_t passed, uint64_t whole)
{
	return saturate(((unsigned __int128)amount * whole + passed / 2) / passed);
}

struct billing_use billing_project(const struct billing_use *use, uint64_t begin_ms, uint64_t now_ms, uint64_t end_ms)
{
	uint64_t passed = now_ms - begin_ms, whole = end_ms - begin_ms;

	must(begin_ms <= now_ms && now_ms <= end_ms);
	if (passed == 0)
		return *use;
	return (struct billing_use){
		.operations = project(use->operations, passed, whole),
		.transfer_bytes = project(use->transfer_bytes, passed, whole),
		.memory_kib_seconds = project(use->memory_kib_seconds, passed, whole),
		.storage_kib_seconds = project(use->storage_kib_seconds, passed, whole),
		.compute_ns = project(use->compute_ns, passed, whole),
	};
}

/* ---- periods ------------------------------------------------------------------------------------------------------ */

/* The first moment of a month, counted from January of 1900; months may run over. */
static uint64_t month_begin_ms(int year, int month)
{
	struct tm day = {.tm_year = year, .tm_mon = month, .tm_mday = 1};

	return (uint64_t)timegm(&day) * 1000;
}

void billing_period_of(uint64_t wall_ms, uint64_t *ret_begin_ms, uint64_t *ret_end_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm day;

	must(gmtime_r(&seconds, &day) != NULL);
	*ret_begin_ms = month_begin_ms(day.tm_year, day.tm_mon);
	*ret_end_ms = month_begin_ms(day.tm_year, day.tm_mon + 1);
}

void billing_period_before(uint64_t begin_ms, uint64_t *ret_begin_ms, uint64_t *ret_end_ms)
{
	must(begin_ms > 0);
	billing_period_of(begin_ms - 1, ret_begin_ms, ret_end_ms);
}

void billing_format(uint64_t micro, char *text)
{
	size_t length = (size_t)snprintf(text, BILLING_MONEY_BYTES, "%" PRIu64 ".%06" PRIu64, micro / BILLING_MICRO,
					 micro % BILLING_MICRO);
	size_t least = length - (DECIMALS - 2);

	while (length > least && text[length - 1] == '0')
		text[--length] = '\0';
}
