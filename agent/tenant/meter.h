/*
 * meter.h - what tenants have used, counted in a file that a killed process leaves as it was.
 *
 * The file is mapped: what was added to a row is there for the next run as soon as it was added, whoever is killed when. Only the
 * machine's own end can lose what the kernel had not brought to the disk. A row is of one tenant, one interval and one
 * resource; its numbers only grow. One thread uses a meter at a time. meter_open() and meter_close() block on the disk.
 */
#ifndef RIPTIDE_METER_H
#define RIPTIDE_METER_H

#include <stddef.h>
#include <stdint.h>

#define METER_NAME_MAX 64u /* bytes of a tenant's id, and of a resource */
#define METER_ID_BYTES 17u /* 16 hex digits and NUL */
#define METER_ROWS_MAX (1u << 20)

/* Of a row whose resource is "". Of others: 0 is the amount, 1 how many events made it. */
enum meter_value {
	METER_OPERATIONS,
	METER_BYTES_IN,
	METER_BYTES_OUT,
	METER_COMPUTE_NS,
	METER_MEMORY_KIB_SECONDS,
	METER_STORAGE_KIB_SECONDS,
	METER_VALUES,
};

struct meter;
struct meter_row; /* lies in the file */

/*
 * Opens the meter of `path`, or makes one of `rows` rows. One that is damaged is put aside as PATH.damaged-N, with a line in
 * the log, and a new one begins; a damaged row of a sound file is dropped, with a line. An existing file keeps its number of rows
 * if that is larger. RSHM_E_SYSTEM (with a text that names path and reason), RSHM_E_NOMEM.
 */
int meter_open(const char *path, uint32_t rows, struct meter **ret, char *error, size_t error_len);
/* Accepts NULL; clears. */
void meter_close(struct meter **meter);

/* Random, made with the file, and the same as long as it lives. */
const char *meter_id(const struct meter *meter);

/*
 * The row of (tenant, resource, begin of the interval in seconds), a new one of zeros if there is none. NULL: all are taken, or a
 * name is longer than METER_NAME_MAX. Looks through all rows: callers keep what they use often.
 */
struct meter_row *meter_take(struct meter *meter, const char *tenant, const char *resource, uint64_t interval_s);
/* The row is gone. */
void meter_release(struct meter_row *row);

/* Adds in one store of a word; stays at the largest number. */
void meter_add(struct meter_row *row, enum meter_value value, uint64_t amount);

/* Rows in use are those that are not NULL. */
size_t meter_capacity(const struct meter *meter);
struct meter_row *meter_at(struct meter *meter, size_t index);

const char *meter_row_tenant(const struct meter_row *row);
const char *meter_row_resource(const struct meter_row *row);
uint64_t meter_row_interval(const struct meter_row *row);
uint64_t meter_row_value(const struct meter_row *row, enum meter_value value);

#endif
