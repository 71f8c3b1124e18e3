/*
 * A dictionary is immutable and counted: whoever looks one up holds it while it is replaced, retired or forgotten here. What
 * may change, whether it is retired and when it was last asked for, is the registry's and not the dictionary's.
 *
 * The registry is a short array under one mutex: a look-up is a walk over at most some hundred entries, beside compressing a
 * value nothing. While it is empty, which is the rule, no lock is taken.
 *
 * The record, the value of an ordinary envelope, little-endian:
 *
 *	 0 magic u32 | format u8 | flags u8 (1 = retired) | content type length u16
 *	 8 created u64 (ms)
 *	16 id u32 | length u32
 *	24 content type, dictionary
 *
 * The dictionary's own bytes come from a backend that may lie: zstd checks their tables before it uses them, and a wrong
 * content makes wrong bytes, which the check at the end of each frame tells.
 */
#include "agent/store/dictionary.h"

#include <endian.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/store/compress.h"
#include "agent/store/envelope.h"

#define DICTIONARY_MAGIC 0x51d1c7a3u /* of the object in memory */
#define RECORD_MAGIC 0x44545052u     /* "RPTD" */
#define RECORD_FORMAT 1u
#define RECORD_RETIRED 0x1u
#define RECORD_HEAD 24u

struct dictionary {
	uint32_t magic;
	uint32_t references; /* atomic */

	/* set once */
	struct dictionary_info info;
	struct compress_dictionary *prepared;
	unsigned char bytes[];
};

struct entry {
	struct dictionary *dictionary;
	uint64_t asked; /* the registry's count of questions at the last one for this */
	bool retired;
};

struct dictionary_registry {
	/* set once */
	size_t max_count;
	dictionary_missing_fn *missing;
	void *context;

	pthread_mutex_t lock;
	size_t count; /* written under lock, read without */
	/* under lock */
	uint64_t questions;
	struct entry entries[];
};

/* ---- one dictionary ----------------------------------------------------------------------------------------- */

/* Copies a name of 0 .. max characters without a NUL among them. */
static int copy_name(char *to, const char *from, size_t length, size_t max)
{
	if (length > max || memchr(from, '\0', length) != NULL)
		return RSHM_E_INVALID;
	memcpy(to, from, length);
	to[length] = '\0';
	return RSHM_OK;
}

static int name_info(struct dictionary_info *info, const char *tenant, const char *type, size_t type_len)
{
	if (tenant[0] == '\0' || copy_name(info->tenant, tenant, strlen(tenant), RSHM_TENANT_MAX) < 0)
		return RSHM_E_INVALID;
	return copy_name(info->content_type, type, type_len, DICTIONARY_TYPE_MAX);
}

static int dictionary_create(const struct dictionary_info *info, const void *bytes, int zstd_level,
			     struct dictionary **ret)
{
	struct dictionary *dictionary;
	int status;

	must(info->id != 0 && info->length <= DICTIONARY_BYTES_MAX);
	dictionary = malloc(sizeof(*dictionary) + info->length);
	if (dictionary == NULL)
		return RSHM_E_NOMEM;
	*dictionary = (struct dictionary){.magic = DICTIONARY_MAGIC, .references = 1, .info = *info};
	memcpy(dictionary->bytes, bytes, info->length);
	status = compress_dictionary_create(bytes, info->length, zstd_level, &dictionary->prepared);
	if (status < 0) {
		free(dictionary);
		return status;
	}
	dictionary->info.memory =
		sizeof(*dictionary) + info->length + compress_dictionary_memory(dictionary->prepared);
	*ret = dictionary;
	return RSHM_OK;
}

int dictionary_train(const struct dictionary_training *training, struct dictionary **ret)
{
	size_t capacity = training->max_bytes != 0 ? training->max_bytes : DICTIONARY_BYTES_MAX;
	struct dictionary_info info = {.created_ms = training->created_ms};
	void *bytes;
	int status = name_info(&info, training->tenant, training->content_type, strlen(training->content_type));

	if (status < 0)
		return status;
	if (capacity > DICTIONARY_BYTES_MAX)
		return RSHM_E_TOOBIG;
	bytes = malloc(capacity);
	if (bytes == NULL)
		return RSHM_E_NOMEM;
	status = compress_train(training->samples, training->sizes, training->count, bytes, capacity, &info.length);
	while (info.id == 0)
		info.id = randombytes_random();
	if (status == RSHM_OK)
		status = dictionary_create(&info, bytes, training->zstd_level, ret);
	free(bytes);
	return status;
}

struct dictionary *dictionary_ref(struct dictionary *dictionary)
{
	must(dictionary->magic == DICTIONARY_MAGIC);
	__atomic_add_fetch(&dictionary->references, 1, __ATOMIC_RELAXED);
	return dictionary;
}

void dictionary_unref(struct dictionary **dictionary)
{
	struct dictionary *old = *dictionary;

	*dictionary = NULL;
	if (old == NULL)
		return;
	must(old->magic == DICTIONARY_MAGIC);
	/* Acquire and release: whoever frees it does so after the last use on any other thread. */
	if (__atomic_sub_fetch(&old->references, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	old->magic = 0;
	compress_dictionary_destroy(&old->prepared);
	free(old);
}

uint32_t dictionary_id(const struct dictionary *dictionary)
{
	return dictionary->info.id;
}

const struct compress_dictionary *dictionary_prepared(const struct dictionary *dictionary)
{
	return dictionary->prepared;
}

void dictionary_describe(const struct dictionary *dictionary, struct dictionary_info *ret)
{
	*ret = dictionary->info;
}

/* ---- as stored ---------------------------------------------------------------------------------------------- */

size_t dictionary_key(uint32_t id, char key[DICTIONARY_KEY_MAX])
{
	return (size_t)snprintf(key, DICTIONARY_KEY_MAX, "%u", id);
}

static void put_u32(unsigned char *to, uint32_t value)
{
	value = htole32(value);
	memcpy(to, &value, sizeof value);
}

static uint32_t get_u32(const unsigned char *from)
{
	uint32_t value;

	memcpy(&value, from, sizeof value);
	return le32toh(value);
}

static void put_u64(unsigned char *to, uint64_t value)
{
	put_u32(to, (uint32_t)value);
	put_u32(to + 4, (uint32_t)(value >> 32));
}

static uint64_t get_u64(const unsigned char *from)
{
	return get_u32(from) | (uint64_t)get_u32(from + 4) << 32;
}

int dictionary_encode(const struct dictionary *dictionary, bool retired, uint64_t version, uint32_t writer_id,
		      struct envelope_buffer *ret)
{
	const struct dictionary_info *info = &dictionary->info;
	size_t type_len = strlen(info->content_type), length = RECORD_HEAD + type_len + info->length;
	unsigned char *record = malloc(length);
	char key[DICTIONARY_KEY_MAX];
	struct envelope_input input = {
		.key = key,
		.key_len = dictionary_key(info->id, key),
		.value = record,
		.value_len = length,
		.created_ms = info->created_ms,
		.version = version,
		.writer_id = writer_id,
	};
	int status;

	if (record == NULL)
		return RSHM_E_NOMEM;
	put_u32(record, RECORD_MAGIC);
	record[4] = RECORD_FORMAT;
	record[5] = retired ? RECORD_RETIRED : 0;
	record[6] = (unsigned char)type_len;
	record[7] = 0;
	put_u64(record + 8, info->created_ms);
	put_u32(record + 16, info->id);
	put_u32(record + 20, (uint32_t)info->length);
	memcpy(record + RECORD_HEAD, info->content_type, type_len);
	memcpy(record + RECORD_HEAD + type_len, dictionary->bytes, info->length);
	status = envelope_encode(&input, NULL, ret);
	free(record);
	return status;
}

static int decode_record(const unsigned char *record, size_t length, struct dictionary_info *ret,
			 const unsigned char **ret_bytes)
{
	struct dictionary_info info = *ret;
	size_t type_len;

	if (length < RECORD_HEAD || get_u32(record) != RECORD_MAGIC || record[4] == 0)
		return RSHM_E_CORRUPT;
	if (record[4] > RECORD_FORMAT || (record[5] & ~RECORD_RETIRED) != 0)
		return RSHM_E_FORMAT;
	type_len = record[6] | (size_t)record[7] << 8;
	info.retired = (record[5] & RECORD_RETIRED) != 0;
	info.created_ms = get_u64(record + 8);
	info.id = get_u32(record + 16);
	info.length = get_u32(record + 20);
	if (info.id == 0 || type_len > DICTIONARY_TYPE_MAX || info.length > DICTIONARY_BYTES_MAX ||
	    length != RECORD_HEAD + type_len + info.length)
		return RSHM_E_CORRUPT;
	if (copy_name(info.content_type, (const char *)record + RECORD_HEAD, type_len, DICTIONARY_TYPE_MAX) < 0)
		return RSHM_E_CORRUPT;
	*ret = info;
	*ret_bytes = record + RECORD_HEAD + type_len;
	return RSHM_OK;
}

int dictionary_decode(const void *envelope, size_t length, const char *tenant, uint32_t id, int zstd_level,
		      struct dictionary **ret, bool *ret_retired)
{
	struct dictionary_info info = {.id = 0};
	struct envelope_view view;
	const unsigned char *bytes = NULL;
	char key[DICTIONARY_KEY_MAX];
	bool retired;
	int status = name_info(&info, tenant, "", 0);

	if (status == RSHM_OK)
		status = envelope_open(envelope, length, NULL, 0, &view);
	/* Ours are never compressed: nothing is written that the checksum does not cover. */
	if (status == RSHM_OK && view.head.algorithm != ENVELOPE_PLAIN)
		status = RSHM_E_FORMAT;
	if (status == RSHM_OK)
		status = decode_record(view.payload, view.head.plain_size, &info, &bytes);
	if (status < 0)
		return status;
	if ((id != 0 && info.id != id) || dictionary_key(info.id, key) != view.head.key_len ||
	    memcmp(key, view.key, view.head.key_len) != 0)
		return RSHM_E_CORRUPT;
	retired = info.retired;
	info.retired = false;
	status = dictionary_create(&info, bytes, zstd_level, ret);
	if (status == RSHM_OK)
		*ret_retired = retired;
	return status;
}

/* ---- registry ----------------------------------------------------------------------------------------------- */

int dictionary_registry_create(const struct dictionary_registry_options *options, struct dictionary_registry **ret)
{
	size_t max_count = options->max_count != 0 ? options->max_count : DICTIONARY_REGISTRY_DEFAULT;
	struct dictionary_registry *registry = calloc(1, sizeof(*registry) + max_count * sizeof(struct entry));

	if (registry == NULL)
		return RSHM_E_NOMEM;
	registry->max_count = max_count;
	registry->missing = options->missing;
	registry->context = options->context;
	must(pthread_mutex_init(&registry->lock, NULL) == 0);
	*ret = registry;
	return RSHM_OK;
}

void dictionary_registry_destroy(struct dictionary_registry **registry)
{
	struct dictionary_registry *old = *registry;

	*registry = NULL;
	if (old == NULL)
		return;
	for (size_t i = 0; i < old->count; i++)
		dictionary_unref(&old->entries[i].dictionary);
	must(pthread_mutex_destroy(&old->lock) == 0);
	free(old);
}

/* Whoever misses what another thread adds this moment is none the worse. */
static bool registry_is_empty(const struct dictionary_registry *registry)
{
	return __atomic_load_n(&registry->count, __ATOMIC_RELAXED) == 0;
}

static struct entry *entry_find(struct dictionary_registry *registry, const char *tenant, uint32_t id)
{
	for (size_t i = 0; i < registry->count; i++) {
		const struct dictionary_info *info = &registry->entries[i].dictionary->info;

		if (info->id == id && strcmp(info->tenant, tenant) == 0)
			return &registry->entries[i];
	}
	return NULL;
}

static bool is_newer(const struct dictionary_info *a, const struct dictionary_info *b)
{
	return a->created_ms > b->created_ms || (a->created_ms == b->created_ms && a->id > b->id);
}

/* The entry that values of this kind are to be compressed with. */
static struct entry *entry_in_use(struct dictionary_registry *registry, const char *tenant, const char *type,
				  size_t type_len)
{
	struct entry *found = NULL;

	for (size_t i = 0; i < registry->count; i++) {
		struct entry *entry = &registry->entries[i];
		const struct dictionary_info *info = &entry->dictionary->info;

		if (!entry->retired && strlen(info->content_type) == type_len &&
		    memcmp(info->content_type, type, type_len) == 0 && strcmp(info->tenant, tenant) == 0 &&
		    (found == NULL || is_newer(info, &found->dictionary->info)))
			found = entry;
	}
	return found;
}

static bool entry_is_in_use(struct dictionary_registry *registry, const struct entry *entry)
{
	const struct dictionary_info *info = &entry->dictionary->info;

	return entry_in_use(registry, info->tenant, info->content_type, strlen(info->content_type)) == entry;
}

/* Who goes when there is no room: those only read before those written with, then by the last question. */
static struct entry *entry_to_replace(struct dictionary_registry *registry)
{
	struct entry *victim = NULL;
	bool victim_in_use = false;

	for (size_t i = 0; i < registry->count; i++) {
		struct entry *entry = &registry->entries[i];
		bool in_use = entry_is_in_use(registry, entry);

		if (victim == NULL || (victim_in_use && !in_use) ||
		    (victim_in_use == in_use && entry->asked < victim->asked)) {
			victim = entry;
			victim_in_use = in_use;
		}
	}
	return victim;
}

void dictionary_add(struct dictionary_registry *registry, struct dictionary *dictionary, bool retired)
{
	struct dictionary *old = NULL;
	struct entry *entry;

	pthread_mutex_lock(&registry->lock);
	entry = entry_find(registry, dictionary->info.tenant, dictionary->info.id);
	if (entry == NULL && registry->count == registry->max_count)
		entry = entry_to_replace(registry);
	if (entry != NULL) {
		old = entry->dictionary;
	} else {
		entry = &registry->entries[registry->count];
		__atomic_store_n(&registry->count, registry->count + 1, __ATOMIC_RELAXED);
	}
	*entry = (struct entry){
		.dictionary = dictionary_ref(dictionary), .asked = ++registry->questions, .retired = retired};
	pthread_mutex_unlock(&registry->lock);
	dictionary_unref(&old);
}

int dictionary_forget(struct dictionary_registry *registry, const char *tenant, uint32_t id)
{
	struct dictionary *old = NULL;
	struct entry *entry;

	pthread_mutex_lock(&registry->lock);
	entry = entry_find(registry, tenant, id);
	if (entry != NULL) {
		old = entry->dictionary;
		*entry = registry->entries[registry->count - 1];
		__atomic_store_n(&registry->count, registry->count - 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&registry->lock);
	if (old == NULL)
		return RSHM_MISS;
	dictionary_unref(&old);
	return RSHM_OK;
}

int dictionary_retire(struct dictionary_registry *registry, const char *tenant, uint32_t id)
{
	struct entry *entry;

	pthread_mutex_lock(&registry->lock);
	entry = entry_find(registry, tenant, id);
	if (entry != NULL)
		entry->retired = true;
	pthread_mutex_unlock(&registry->lock);
	return entry != NULL ? RSHM_OK : RSHM_MISS;
}

/* Under the lock: counts the question and takes a reference; NULL gives NULL. */
static struct dictionary *entry_lend(struct dictionary_registry *registry, struct entry *entry)
{
	if (entry == NULL)
		return NULL;
	entry->asked = ++registry->questions;
	return dictionary_ref(entry->dictionary);
}

struct dictionary *dictionary_choose(struct dictionary_registry *registry, const char *tenant,
				     const char *content_type, size_t content_type_len)
{
	struct dictionary *dictionary;

	if (registry_is_empty(registry) || content_type_len > DICTIONARY_TYPE_MAX)
		return NULL;
	if (content_type_len == 0)
		content_type = "";
	pthread_mutex_lock(&registry->lock);
	dictionary = entry_lend(registry, entry_in_use(registry, tenant, content_type, content_type_len));
	pthread_mutex_unlock(&registry->lock);
	return dictionary;
}

struct dictionary *dictionary_find(struct dictionary_registry *registry, const char *tenant, uint32_t id)
{
	struct dictionary *dictionary;

	pthread_mutex_lock(&registry->lock);
	dictionary = entry_lend(registry, entry_find(registry, tenant, id));
	pthread_mutex_unlock(&registry->lock);
	if (dictionary == NULL && registry->missing != NULL)
		registry->missing(registry->context, tenant, id);
	return dictionary;
}

static int compare_age(const void *a, const void *b)
{
	return is_newer(a, b) ? 1 : -1;
}

size_t dictionary_list(struct dictionary_registry *registry, const char *tenant, struct dictionary_info *infos,
		       size_t capacity)
{
	size_t count = 0, shown;

	pthread_mutex_lock(&registry->lock);
	for (size_t i = 0; i < registry->count; i++) {
		const struct entry *entry = &registry->entries[i];

		if (tenant != NULL && strcmp(entry->dictionary->info.tenant, tenant) != 0)
			continue;
		if (count < capacity) {
			infos[count] = entry->dictionary->info;
			infos[count].retired = entry->retired;
		}
		count++;
	}
	pthread_mutex_unlock(&registry->lock);
	shown = count < capacity ? count : capacity;
	if (shown > 1)
		qsort(infos, shown, sizeof(*infos), compare_age);
	return count;
}
