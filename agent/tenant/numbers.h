/*
 * numbers.h - short numbers for tenants, the same in every run: the disk tier names its entries with them.
 *
 * A file of one line per tenant, appended to and synced before a number is used. Whoever keeps data under these numbers
 * notes the identity as well: a file that was lost or damaged begins anew with another one, and what was kept is void.
 * Main thread; all functions may block on the disk.
 */
#ifndef RIPTIDE_TENANT_NUMBERS_H
#define RIPTIDE_TENANT_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

#define TENANT_NUMBERS_MAX 1000000u /* tenants that a file ever knew; beyond, it begins anew at the next start */
#define TENANT_NUMBERS_IDENTITY_BYTES 16u

struct tenant_numbers;

/* Opens or makes the file, mode 0600, in a folder that exists. On failure a text in `error`. RSHM_E_SYSTEM, RSHM_E_NOMEM. */
int tenant_numbers_open(const char *path, struct tenant_numbers **ret, char *error, size_t error_len);
void tenant_numbers_close(struct tenant_numbers **numbers);

/* The number of a tenant, from 1; a new one is on the disk when this returns. RSHM_E_SYSTEM (errno says why), RSHM_E_NOMEM. */
int tenant_numbers_get(struct tenant_numbers *numbers, const char *id, uint32_t *ret);

void tenant_numbers_identity(const struct tenant_numbers *numbers, unsigned char ret[TENANT_NUMBERS_IDENTITY_BYTES]);

#endif
