/*
 * objects.h - the list of shared objects that belong to this instance, kept in <run dir>/objects (0640).
 *
 * A name is written there before the object is made and taken out after it is unlinked, so that the next agent finds all of
 * them whatever happened to this one. One line per object: kind, tenant (or "-"), name. Thread-safe; the functions that
 * change the list write a small file in the run directory (tmpfs) and may block that long.
 */
#ifndef RIPTIDE_CACHE_OBJECTS_H
#define RIPTIDE_CACHE_OBJECTS_H

#include "shm/os/map.h"

enum object_kind {
	OBJECT_AGENT,
	OBJECT_SEGMENT,
};

struct object_entry {
	enum object_kind kind;
	char tenant[RSHM_TENANT_MAX + 1];
	char name[RSHM_NAME_MAX];
};

struct object_list;

/*
 * Reads the list; a missing file is an empty list, a line that is no object of ours is dropped. RSHM_E_SYSTEM with a text
 * if the file cannot be read or written. Caller holds the instance lock.
 */
int object_list_open(const char *path, struct object_list **ret, char *error, size_t error_len);
void object_list_close(struct object_list **list);

/* A copy of the list at this moment; free() it. */
size_t object_list_copy(struct object_list *list, struct object_entry **ret);

/* Makes a random name "/riptide.<instance>.<32 hex digits>" and lists it. The object does not exist yet. */
int object_list_add(struct object_list *list, enum object_kind kind, const char *instance, const char *tenant,
		    char ret_name[RSHM_NAME_MAX]);

/* Unlinks the object if it exists, and takes it off the list. */
void object_list_remove(struct object_list *list, const char *name);

#endif
