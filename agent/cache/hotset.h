/*
 * hotset.h - the keys of a hot tier in a file, so that the next run can load them before they are asked for.
 *
 * For what shared memory does not survive: a reboot, another layout. Keys only, least recently used first; values come from
 * the store, so nothing in the file can be stale. What reads or writes the file blocks on the disk.
 */
#ifndef RIPTIDE_CACHE_HOTSET_H
#define RIPTIDE_CACHE_HOTSET_H

#include <stddef.h>
#include <stdint.h>

struct hot;

#define HOTSET_FILE_MAX (256u << 20) /* bytes; a larger file is refused */

/*
 * Writes the newest `keys_max` keys to `path` by way of a temporary file beside it (mode 0600), synced and renamed. Returns
 * how many, or RSHM_E_SYSTEM (errno says why; an older file stays), RSHM_E_NOMEM.
 */
int64_t hotset_save(const struct hot *hot, const char *path, uint64_t keys_max);

/* The same in steps, while the tier is used: what is added or goes meanwhile may or may not be noted. */
struct hotset_notes;

/* NULL: no memory. */
struct hotset_notes *hotset_notes_create(const struct hot *hot, uint64_t keys_max);
/* Takes keys, looking at no more than `steps` entries. 1: there are more; 0: that was all; RSHM_E_NOMEM. */
int hotset_notes_take(struct hotset_notes *notes, const struct hot *hot, uint32_t steps);
/* Writes what was taken, as hotset_save(). Any thread, blocks. */
int64_t hotset_notes_write(const struct hotset_notes *notes, const char *path);
void hotset_notes_destroy(struct hotset_notes **notes);

/* The file's keys, in one piece of memory. */
struct hotset {
	unsigned char *bytes; /* {u16 length, key}, native-endian */
	size_t length, at;
	uint64_t keys;
};

/*
 * Reads and checks the whole file. RSHM_MISS: there is none. RSHM_E_CORRUPT: damaged, foreign or too large;
 * RSHM_E_SYSTEM, RSHM_E_NOMEM.
 */
int hotset_load(const char *path, struct hotset *ret);
/* The next key, lent; NULL at the end. */
const void *hotset_next(struct hotset *set, size_t *ret_key_len);
void hotset_fini(struct hotset *set);

#endif
