/*
 * dictionaries.h - what dictionaries.c and training.c share: a tenant's dictionaries as its worker sees them. Worker thread.
 *
 * The backend has one entry per dictionary (agent/store/dictionary.h) and one, DICTIONARY_INDEX_KEY, that lists them: so that
 * whoever looks for news reads one small entry, where listing keys is a walk over a whole server. All are in space 'd' of
 * generation 1, which `clear` does not touch.
 */
#ifndef RIPTIDE_SERVE_DICTIONARIES_H
#define RIPTIDE_SERVE_DICTIONARIES_H

#include "agent/serve/serve_priv.h"
#include "agent/store/dictionary.h"

#define DICTIONARY_INDEX_KEY "index"
#define DICTIONARY_INDEX_MAX 256u
#define DICTIONARY_REQUEST_MS 5000u /* a request to the backend may take */
#define DICTIONARY_ABSENT_MAX 16u   /* ids remembered that the backend does not have */

struct dictionary_index {
	uint32_t count;
	struct {
		uint32_t id;
		bool retired;
	} items[DICTIONARY_INDEX_MAX];
};

struct dictionary_fetch;
struct dictionary_job;

struct dictionaries {
	struct serve_tenant *tenant;
	/* being fetched */
	struct dictionary_fetch *fetches;
	uint32_t fetch_count;
	struct {
		uint32_t id;
		uint64_t until_ms;
	} absent[DICTIONARY_ABSENT_MAX];
	uint32_t absent_next;
	/* looking for news */
	struct store_request question;
	struct dictionary_index index;
	uint64_t index_version; /* of `index`, being worked through */
	uint64_t known_version; /* everything of it is here; 0 = nothing yet */
	uint64_t refresh_at_ms;
	uint32_t index_at;
	bool refreshing, refresh_running, refresh_waits;
	int refresh_status;
	uint32_t used[DICTIONARY_REGISTRY_DEFAULT]; /* ids written with, being looked for in the backend */
	uint32_t used_count, used_at;
	char key[DICTIONARY_KEY_MAX];
	/* training.c */
	struct dictionary_job *job; /* under way, or NULL */
	uint64_t auto_at_ms;
};

/* The name of an entry of space 'd'. `key` is borrowed. */
/* The worker, or the tenant, is being closed. */
bool dictionaries_are_closed(const struct dictionaries *d);
struct store_name dictionaries_name(const struct serve_tenant *tenant, const char *key, size_t key_len);
/* To the backend; RSHM_E_CLOSED at once if the worker is closing. */
void dictionaries_submit(struct dictionaries *dictionaries, struct store_request *request);

/* RSHM_E_CORRUPT, RSHM_E_FORMAT. */
int dictionary_index_decode(const void *envelope, size_t length, struct dictionary_index *ret, uint64_t *ret_version);
/* The envelope to store; RSHM_E_NOMEM. */
int dictionary_index_encode(const struct dictionary_index *index, uint64_t version, uint32_t writer_id,
			    struct envelope_buffer *ret);
/* Adds or changes an id. If the index is full, a retired one goes, else the oldest: it can still be found by its id. */
void dictionary_index_set(struct dictionary_index *index, uint32_t id, bool retired);

/* Stores a dictionary again that the backend has lost. False: another job is under way. */
bool training_restore(struct dictionaries *dictionaries, struct dictionary *dictionary);
/* Begins a training where samples suffice and dictionary.auto_train is on. */
void training_tick(struct dictionaries *dictionaries, uint64_t now_ms);

#endif
