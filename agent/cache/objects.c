/*
 * objects.c - the list is small (one line per tenant), so every change rewrites it: temporary file, then rename. The run
 * directory does not outlive a boot, and neither do the objects, so nothing is synced.
 */
#include "agent/cache/objects.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/base/text.h"

#define OBJECTS_MAX 8192u

static const char *const kind_names[] = {[OBJECT_AGENT] = "agent", [OBJECT_SEGMENT] = "segment"};

struct object_list {
	char path[256];
	pthread_mutex_t lock;
	/* under lock */
	struct object_entry *entries;
	size_t count;
};

static int append(struct object_list *list, const struct object_entry *entry)
{
	struct object_entry *grown;

	if (list->count >= OBJECTS_MAX)
		return RSHM_E_AGAIN;
	grown = realloc(list->entries, (list->count + 1) * sizeof(*grown));
	if (!grown)
		return RSHM_E_NOMEM;
	grown[list->count++] = *entry;
	list->entries = grown;
	return RSHM_OK;
}

static bool parse_line(const char *line, struct object_entry *ret)
{
	char kind[16];

	if (sscanf(line, "%15s %64s %95s", kind, ret->tenant, ret->name) != 3)
		return false;
	if (strcmp(ret->tenant, "-") != 0 && !text_is_name(ret->tenant, RSHM_TENANT_MAX))
		return false;
	if (!rshm_name_is_valid(ret->name))
		return false;
	for (size_t i = 0; i < sizeof(kind_names) / sizeof(*kind_names); i++) {
		if (strcmp(kind, kind_names[i]) == 0) {
			ret->kind = (enum object_kind)i;
			return true;
		}
	}
	return false;
}

static int load(struct object_list *list)
{
	FILE *file = fopen(list->path, "re");
	char line[256];
	int status = RSHM_OK;

	if (!file)
		return errno == ENOENT ? RSHM_OK : RSHM_E_SYSTEM;
	while (status == RSHM_OK && fgets(line, sizeof(line), file)) {
		struct object_entry entry;

		if (parse_line(line, &entry))
			status = append(list, &entry);
		else
			log_warn("cache", "%s: a line names no object of ours; dropped", list->path);
	}
	fclose(file);
	return status;
}

static int write_file(const struct object_list *list, int fd)
{
	FILE *file = fdopen(fd, "w");

	if (!file) {
		close(fd);
		return RSHM_E_SYSTEM;
	}
	for (size_t i = 0; i < list->count; i++)
		fprintf(file, "%s %s %s\n", kind_names[list->entries[i].kind], list->entries[i].tenant,
			list->entries[i].name);
	return fclose(file) == 0 ? RSHM_OK : RSHM_E_SYSTEM;
}

static int save(const struct object_list *list)
{
	char temporary[sizeof(list->path) + 4];
	int fd, status;

	snprintf(temporary, sizeof(temporary), "%s.new", list->path);
	(void)unlink(temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0)
		return RSHM_E_SYSTEM;
	status = write_file(list, fd);
	if (status == RSHM_OK && rename(temporary, list->path) < 0)
		status = RSHM_E_SYSTEM;
	return status;
}

int object_list_open(const char *path, struct object_list **ret, char *error, size_t error_len)
{
	struct object_list *list = calloc(1, sizeof(*list));
	int status;

	if (!list)
		return RSHM_E_NOMEM;
	pthread_mutex_init(&list->lock, NULL);
	snprintf(list->path, sizeof(list->path), "%s", path);
	status = load(list);
	if (status == RSHM_OK)
		status = save(list);
	if (status < 0) {
		snprintf(error, error_len, "%s: %s; the run directory must be writable for the agent's user", path,
			 strerror(errno));
		object_list_close(&list);
		return status;
	}
	*ret = list;
	return RSHM_OK;
}

void object_list_close(struct object_list **list)
{
	if (!*list)
		return;
	pthread_mutex_destroy(&(*list)->lock);
	free((*list)->entries);
	free(*list);
	*list = NULL;
}

size_t object_list_copy(struct object_list *list, struct object_entry **ret)
{
	size_t count;

	pthread_mutex_lock(&list->lock);
	count = list->count;
	*ret = calloc(count + 1, sizeof(**ret));
	if (*ret && count)
		memcpy(*ret, list->entries, count * sizeof(**ret));
	pthread_mutex_unlock(&list->lock);
	return *ret ? count : 0;
}

int object_list_add(struct object_list *list, enum object_kind kind, const char *instance, const char *tenant,
		    char ret_name[RSHM_NAME_MAX])
{
	struct object_entry entry = {.kind = kind};
	unsigned char random[16];
	char hex[2 * sizeof(random) + 1];
	int status;

	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(hex, sizeof(hex), random, sizeof(random));
	snprintf(entry.tenant, sizeof(entry.tenant), "%s", tenant);
	snprintf(entry.name, sizeof(entry.name), "/riptide.%s.%s", instance, hex);
	pthread_mutex_lock(&list->lock);
	status = append(list, &entry);
	if (status == RSHM_OK)
		status = save(list);
	pthread_mutex_unlock(&list->lock);
	if (status == RSHM_OK)
		memcpy(ret_name, entry.name, RSHM_NAME_MAX);
	else
		log_error("cache", "%s: cannot list a new shared object: %s", list->path, strerror(errno));
	return status;
}

void object_list_remove(struct object_list *list, const char *name)
{
	int status = rshm_unlink(name);

	if (status < 0 && status != RSHM_E_CLOSED) {
		log_error("cache", "%s: cannot unlink: %s; it stays listed", name, strerror(errno));
		return;
	}
	pthread_mutex_lock(&list->lock);
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(list->entries[i].name, name) != 0)
			continue;
		list->entries[i] = list->entries[--list->count];
		break;
	}
	if (save(list) < 0)
		log_error("cache", "%s: cannot write the list of objects: %s", list->path, strerror(errno));
	pthread_mutex_unlock(&list->lock);
}
