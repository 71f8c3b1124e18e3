/*
 * directory.h - the list of all tenants of a backend, as one entry: "id milliseconds\n" each, in order of the ids.
 *
 * The time is when the id was entered: what has no record long after was left by an agent that died. Pure memory; nothing
 * blocks.
 */
#ifndef RIPTIDE_TENANT_DIRECTORY_H
#define RIPTIDE_TENANT_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/msg.h"

struct directory_item {
	char id[RSHM_TENANT_MAX + 1];
	uint64_t entered_ms; /* wall clock */
};

struct directory {
	struct directory_item *items; /* in order, each id once */
	size_t count, room;
	uint64_t version; /* of the stored entry; 0 = there is none */
};

/* From the stored text; *ret is empty before. RSHM_E_CORRUPT, RSHM_E_NOMEM. */
int directory_decode(const char *text, size_t length, struct directory *ret);
/* The stored text, the caller's to free(); NULL: no memory. */
char *directory_encode(const struct directory *directory, size_t *ret_length);
/* Empties it. */
void directory_fini(struct directory *directory);

/* The place of an id, or of the first one behind it. */
size_t directory_find(const struct directory *directory, const char *id, bool *ret_found);
/* Nothing happens if it is there. RSHM_E_NOMEM. */
int directory_add(struct directory *directory, const char *id, uint64_t now_ms);
bool directory_remove(struct directory *directory, const char *id);

#endif
