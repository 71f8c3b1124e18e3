/* table.c - entries by their full name: chained hash, seeded, grows by doubling. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/store/behind/behind_priv.h"

#define TABLE_BUCKETS_FIRST 64u

bool behind_table_init(struct behind_table *table)
{
	*table = (struct behind_table){.bucket_count = TABLE_BUCKETS_FIRST};
	if (getrandom(&table->seed, sizeof table->seed, 0) != sizeof table->seed)
		table->seed = (uint64_t)(uintptr_t)table;
	table->buckets = calloc(table->bucket_count, sizeof(struct behind_entry *));
	return table->buckets != NULL;
}

void behind_table_fini(struct behind_table *table)
{
	for (size_t i = 0; table->buckets != NULL && i < table->bucket_count; i++) {
		struct behind_entry *entry = table->buckets[i], *next;

		for (; entry != NULL; entry = next) {
			next = entry->chain;
			must(entry->waiters.count == 0 && entry->through == NULL && entry->flying == NULL);
			format_record_unref(entry->record);
			free(entry);
		}
	}
	free(table->buckets);
	*table = (struct behind_table){0};
}

static uint64_t name_hash(const struct behind_table *table, const struct store_name *name)
{
	uint64_t seed = XXH3_64bits_withSeed(name->tenant, strlen(name->tenant), table->seed + name->generation);

	return XXH3_64bits_withSeed(name->key, name->key_len, seed + (unsigned char)name->space);
}

static struct behind_entry **bucket_of(const struct behind_table *table, uint64_t hash)
{
	return &table->buckets[hash & (table->bucket_count - 1)];
}

struct behind_entry *behind_table_find(const struct behind_table *table, const struct store_name *name)
{
	uint64_t hash;
	struct behind_entry *entry;

	if (table->count == 0)
		return NULL;
	hash = name_hash(table, name);
	for (entry = *bucket_of(table, hash); entry != NULL; entry = entry->chain)
		if (entry->hash == hash && format_same_name(&entry->name, name))
			break;
	return entry;
}

/* Without memory it stays as it is, only slower. */
static void table_grow(struct behind_table *table)
{
	struct behind_table grown = *table;

	grown.bucket_count *= 2;
	grown.buckets = calloc(grown.bucket_count, sizeof(struct behind_entry *));
	if (grown.buckets == NULL)
		return;
	for (size_t i = 0; i < table->bucket_count; i++) {
		struct behind_entry *entry = table->buckets[i], *next;

		for (; entry != NULL; entry = next) {
			struct behind_entry **bucket = bucket_of(&grown, entry->hash);

			next = entry->chain;
			entry->chain = *bucket;
			*bucket = entry;
		}
	}
	free(table->buckets);
	*table = grown;
}

struct behind_entry *behind_table_insert(struct behind_table *table, const struct store_name *name)
{
	struct behind_entry *entry = calloc(1, sizeof *entry + name->key_len), **bucket;
	size_t tenant_len = strlen(name->tenant);

	if (entry == NULL)
		return NULL;
	must(tenant_len < sizeof entry->tenant);
	if (table->count >= table->bucket_count)
		table_grow(table);
	memcpy(entry->tenant, name->tenant, tenant_len + 1);
	memcpy(entry->key, name->key, name->key_len);
	entry->name = *name;
	entry->name.tenant = entry->tenant;
	entry->name.key = entry->key;
	entry->hash = name_hash(table, name);
	bucket = bucket_of(table, entry->hash);
	entry->chain = *bucket;
	*bucket = entry;
	table->count++;
	return entry;
}

void behind_table_remove(struct behind_table *table, struct behind_entry *entry)
{
	struct behind_entry **link = bucket_of(table, entry->hash);

	while (*link != entry)
		link = &(*link)->chain;
	*link = entry->chain;
	table->count--;
	free(entry);
}

struct behind_entry *behind_table_next(const struct behind_table *table, const struct behind_entry *entry)
{
	size_t i = 0;

	if (entry != NULL) {
		if (entry->chain != NULL)
			return entry->chain;
		i = (entry->hash & (table->bucket_count - 1)) + 1;
	}
	for (; i < table->bucket_count; i++)
		if (table->buckets[i] != NULL)
			return table->buckets[i];
	return NULL;
}
