/*
 * dictionary.h - zstd dictionaries: one tenant's values of one content type resemble each other, and a dictionary trained
 * from some of them brings small ones to a third of their size.
 *
 * A dictionary never changes; a better one gets another id. An entry names the id it was compressed with, so a dictionary must
 * be found as long as an entry may name it: one that is not to be used any more is retired, not removed.
 *
 * All agents share them through the backend: an entry of space DICTIONARY_SPACE, in a namespace of the tenant that `clear` does
 * not switch, its key the decimal id, its envelope made by dictionary_encode().
 *
 * Unless said otherwise no function blocks or logs, and all may be called from any thread.
 */
#ifndef RIPTIDE_STORE_DICTIONARY_H
#define RIPTIDE_STORE_DICTIONARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/msg.h"

struct compress_dictionary;
struct envelope_buffer;

#define DICTIONARY_SPACE 'd'
#define DICTIONARY_BYTES_MAX (112u << 10)
#define DICTIONARY_TYPE_MAX 64u /* characters of a content type */
#define DICTIONARY_KEY_MAX 11u  /* bytes: decimal id and NUL */
#define DICTIONARY_REGISTRY_DEFAULT 128u

/* Counted references; begins with one, the creator's. */
struct dictionary;

struct dictionary_info {
	uint32_t id; /* never 0 */
	char tenant[RSHM_TENANT_MAX + 1];
	char content_type[DICTIONARY_TYPE_MAX + 1]; /* may be empty: values that have none */
	uint64_t created_ms;                        /* wall clock */
	size_t length;                              /* bytes */
	size_t memory;                              /* bytes, prepared */
	bool retired;                               /* only for reading */
};

struct dictionary_training {
	const char *tenant, *content_type;
	uint64_t created_ms;
	const void *samples; /* one after the other */
	const size_t *sizes;
	size_t count;
	size_t max_bytes; /* of the dictionary; 0 = DICTIONARY_BYTES_MAX */
	int zstd_level;   /* 0 = default; it is compressed with this one */
};

/*
 * Trains a dictionary and gives it a random id. Blocks for tenths of a second per MiB of samples: for a thread of its own,
 * never for an event loop; any number of threads at once. A hundred times `max_bytes` of samples is best, ten times
 * is enough. RSHM_E_INVALID (names, too few or too small samples), RSHM_E_TOOBIG (max_bytes), RSHM_E_NOMEM,
 * RSHM_E_FORMAT (this build has no compression).
 */
int dictionary_train(const struct dictionary_training *training, struct dictionary **ret);

struct dictionary *dictionary_ref(struct dictionary *dictionary);
/* Clears the caller's pointer; accepts NULL in it. The last one frees it. */
void dictionary_unref(struct dictionary **dictionary);

uint32_t dictionary_id(const struct dictionary *dictionary);
/* For compress.h; lives as long as the dictionary. */
const struct compress_dictionary *dictionary_prepared(const struct dictionary *dictionary);
void dictionary_describe(const struct dictionary *dictionary, struct dictionary_info *ret);

/* ---- as stored ---------------------------------------------------------------------------------------------- */

/* The entry's key: the decimal id, at most DICTIONARY_KEY_MAX - 1 characters; returns their number. */
size_t dictionary_key(uint32_t id, char key[DICTIONARY_KEY_MAX]);

/* The envelope to store, which never expires; the caller's from then on. RSHM_E_NOMEM. */
int dictionary_encode(const struct dictionary *dictionary, bool retired, uint64_t version, uint32_t writer_id,
		      struct envelope_buffer *ret);

/*
 * The way back, from a whole envelope found for `tenant` under the key of `id` (0: any). Prepares it, about a millisecond.
 * RSHM_E_CORRUPT (damaged, of another id, no dictionary), RSHM_E_FORMAT (of a newer program, or this build has no
 * compression), RSHM_E_INVALID (tenant), RSHM_E_NOMEM.
 */
int dictionary_decode(const void *envelope, size_t length, const char *tenant, uint32_t id, int zstd_level,
		      struct dictionary **ret, bool *ret_retired);

/* ---- those known to this agent ------------------------------------------------------------------------------ */

struct dictionary_registry;

/*
 * Called by dictionary_find() when it finds nothing, on its caller's thread and with no lock held: the place to fetch the
 * dictionary from the backend, decode it and add it; until then entries that name it are RSHM_E_NODICT. It is called for every
 * failed look-up, so one fetch at a time per id is its own affair, as is remembering that the backend has none. It must not
 * block, and may use the registry.
 */
typedef void dictionary_missing_fn(void *context, const char *tenant, uint32_t id);

struct dictionary_registry_options {
	size_t max_count; /* dictionaries; 0 = DICTIONARY_REGISTRY_DEFAULT. One takes up to about 1 MiB. */
	dictionary_missing_fn *missing; /* may be NULL */
	void *context;
};

/* RSHM_E_NOMEM. */
int dictionary_registry_create(const struct dictionary_registry_options *options, struct dictionary_registry **ret);
/* Nobody else may use it any more; dictionaries live on until their last reference is gone. */
void dictionary_registry_destroy(struct dictionary_registry **registry);

/*
 * Makes a dictionary known; takes a reference of its own. One of the same tenant and id is replaced. If the registry is full,
 * the one that was not asked for longest goes, a retired or outdated one first: it can be fetched again.
 */
void dictionary_add(struct dictionary_registry *registry, struct dictionary *dictionary, bool retired);

/* Forgets one, here only. RSHM_MISS if it is not known. */
int dictionary_forget(struct dictionary_registry *registry, const char *tenant, uint32_t id);

/* From now on only for reading, here only; to tell the others, store it so. RSHM_MISS if it is not known. */
int dictionary_retire(struct dictionary_registry *registry, const char *tenant, uint32_t id);

/* For writing: the newest one of exactly this tenant and content type that is not retired, referenced; or NULL. */
struct dictionary *dictionary_choose(struct dictionary_registry *registry, const char *tenant,
				     const char *content_type, size_t content_type_len);

/* For reading: the one that an entry of the tenant names, referenced; or NULL, after `missing` was called. */
struct dictionary *dictionary_find(struct dictionary_registry *registry, const char *tenant, uint32_t id);

/* Describes up to `capacity` of the tenant's (NULL: of everybody's), oldest first; returns how many there are. */
size_t dictionary_list(struct dictionary_registry *registry, const char *tenant, struct dictionary_info *infos,
		       size_t capacity);

#endif
