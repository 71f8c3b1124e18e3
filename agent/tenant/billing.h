/*
 * billing.h - what a tenant's use costs: prices, periods, sums of money. Pure; any thread.
 *
 * Money is counted in millionths of the currency's unit, in integers: sums are the same in whatever order they are made. Use is
 * counted in the smallest units there are (operations, bytes, nanoseconds, byte-seconds) and priced in large ones; each part of
 * a bill is rounded once, half up. Periods are calendar months, UTC.
 */
#ifndef RIPTIDE_BILLING_H
#define RIPTIDE_BILLING_H

#include <stddef.h>
#include <stdint.h>

#define BILLING_MICRO 1000000u
#define BILLING_MONEY_BYTES 32u /* billing_format() */

enum billing_part {
	BILLING_BASE,       /* a month */
	BILLING_OPERATIONS, /* 1,000,000 of them */
	BILLING_TRANSFER,   /* a GiB */
	BILLING_MEMORY,     /* a GiB for an hour */
	BILLING_STORAGE,    /* the same */
	BILLING_COMPUTE,    /* an hour */
	BILLING_PARTS,
};

/* The name of a part, as prices and bills write it. */
const char *billing_part_name(enum billing_part part);

struct billing_prices {
	uint64_t micro[BILLING_PARTS];
};

/*
 * Of a period. Space is counted in KiB-seconds: 64 bits of byte-seconds hold seven terabytes over a month, of KiB-seconds seven
 * petabytes.
 */
struct billing_use {
	uint64_t operations, transfer_bytes, memory_kib_seconds, storage_kib_seconds, compute_ns;
};

struct billing_cost {
	uint64_t micro[BILLING_PARTS];
	uint64_t total;
};

/*
 * Reads "base=9.99, operations=0.20, transfer=0.09, memory=0.001, storage=0.0001, compute=0.05"; what is not named is free, "" is
 * all free. RSHM_E_INVALID: `error` names the part and says what is allowed; *ret is untouched.
 */
int billing_prices_parse(const char *text, struct billing_prices *ret, char *error, size_t error_len);

/* What the use costs, with the whole base. What does not fit stays at the largest number. */
void billing_cost(const struct billing_prices *prices, const struct billing_use *use, struct billing_cost *ret);

/* The use of a whole period if it goes on as from its begin to now. `now` lies in the period; at its very begin: as it is. */
struct billing_use billing_project(const struct billing_use *use, uint64_t begin_ms, uint64_t now_ms,
				   uint64_t end_ms);

/* The calendar month of a wall-clock time, and the one before a month. Milliseconds since 1970, end exclusive. */
void billing_period_of(uint64_t wall_ms, uint64_t *ret_begin_ms, uint64_t *ret_end_ms);
void billing_period_before(uint64_t begin_ms, uint64_t *ret_begin_ms, uint64_t *ret_end_ms);

/* "12.345678", with two decimals at least and no zeros behind them. `text` has BILLING_MONEY_BYTES. */
void billing_format(uint64_t micro, char *text);

#endif
