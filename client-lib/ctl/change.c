/* change.c - set and del. */
#include "client-lib/ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_STEP (64u << 10)

struct bytes {
	char *data;
	size_t length, capacity;
};

/* Reads to the end of the file, at most CTL_VALUE_MAX. `ret` is to be freed, also after an error. */
static int read_all(int fd, const char *name, struct bytes *ret)
{
	for (;;) {
		ssize_t n;

		if (ret->length == ret->capacity) {
			size_t capacity = ret->capacity ? 2 * ret->capacity : READ_STEP;
			char *data = realloc(ret->data, capacity);

			if (!data)
				return ctl_fail(CTL_ERROR, "no memory for %s", name);
			ret->data = data;
			ret->capacity = capacity;
		}
		n = read(fd, ret->data + ret->length, ret->capacity - ret->length);
		if (n == 0)
			return CTL_OK;
		if (n < 0 && errno != EINTR)
			return ctl_fail(CTL_ERROR, "%s: %s", name, strerror(errno));
		ret->length += n > 0 ? (size_t)n : 0;
		if (ret->length > CTL_VALUE_MAX)
			return ctl_fail(CTL_ERROR, "%s: more than %u MiB, which no agent accepts", name,
					CTL_VALUE_MAX >> 20);
	}
}

static int read_value(const struct ctl *ctl, struct bytes *ret)
{
	const char *text = ctl->argument_count > 1 ? ctl->arguments[1] : "-";
	int fd, status;

	if (ctl->file) {
		if (ctl->argument_count > 1)
			return ctl_fail(CTL_USAGE, "a value and --file exclude each other");
		fd = open(ctl->file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			return ctl_fail(CTL_ERROR, "%s: %s", ctl->file, strerror(errno));
		status = read_all(fd, ctl->file, ret);
		close(fd);
		return status;
	}
	if (strcmp(text, "-") == 0)
		return read_all(STDIN_FILENO, "stdin", ret);
	ret->data = strdup(text);
	ret->length = strlen(text);
	return ret->data ? CTL_OK : ctl_fail(CTL_ERROR, "no memory for the value");
}

static int print_stored(const struct ctl *ctl, const char *key, size_t length, uint64_t version, bool accepted)
{
	json_t *document;

	if (!ctl->json) {
		printf("%s %zu bytes, version %" PRIu64 "\n", accepted ? "accepted" : "stored", length, version);
		return CTL_OK;
	}
	document = json_object();
	ctl_json_bytes(document, "key", key, strlen(key));
	json_object_set_new(document, "length", json_integer((json_int_t)length));
	json_object_set_new(document, "version", json_integer((json_int_t)version));
	json_object_set_new(document, "accepted", json_boolean(accepted));
	return ctl_print_json(ctl, document);
}

static int check_conditions(const struct ctl *ctl)
{
	unsigned int conditions = ctl->given & (CTL_IF_ABSENT | CTL_IF_PRESENT | CTL_IF_VERSION);

	if (conditions & (conditions - 1))
		return ctl_fail(CTL_USAGE, "--if-absent, --if-present and --if-version exclude each other");
	if (conditions && ctl->given & CTL_BEHIND)
		return ctl_fail(CTL_USAGE,
				"--behind and a condition exclude each other: only the store can judge it");
	return CTL_OK;
}

static int store(const struct ctl *ctl, riptide *handle, const struct bytes *value)
{
	const struct riptide_metadata metadata = {
		.content_type = ctl->content_type,
		.tags = ctl->tags,
		.tag_count = ctl->tag_count,
	};
	uint32_t flags = 0;
	struct riptide_set_options options = {
		.size = sizeof(options),
		.ttl_ms = ctl->ttl_ms,
		.metadata = ctl->content_type || ctl->tag_count ? &metadata : NULL,
		.write_mode = ctl->given & CTL_BEHIND ? RIPTIDE_WRITE_BEHIND : RIPTIDE_WRITE_DEFAULT,
		.ret_flags = &flags,
	};
	const char *key = ctl->arguments[0];
	uint64_t version = 0;
	int code;

	if (ctl->given & CTL_IF_ABSENT)
		options.condition = RIPTIDE_IF_ABSENT;
	else if (ctl->given & CTL_IF_PRESENT)
		options.condition = RIPTIDE_IF_PRESENT;
	if (ctl->given & CTL_IF_VERSION)
		code = riptide_cas(handle, key, strlen(key), ctl->if_version, value->data, value->length, &options,
				   &version);
	else
		code = riptide_set(handle, key, strlen(key), value->data, value->length, &options, &version);
	if (code < 0)
		return ctl_fail_handle(handle, code);
	if (code == RIPTIDE_CONFLICT && version)
		return ctl_fail(CTL_NO, "\"%s\" has version %" PRIu64 "; nothing was changed", key, version);
	if (code == RIPTIDE_CONFLICT)
		return ctl_fail(CTL_NO, "\"%s\" is not there; nothing was changed", key);
	return print_stored(ctl, key, value->length, version, flags & RIPTIDE_ACCEPTED);
}

int ctl_set(struct ctl *ctl)
{
	struct bytes value = {.data = NULL};
	riptide *handle = NULL;
	int status = check_conditions(ctl);

	if (status == CTL_OK)
		status = read_value(ctl, &value);
	if (status == CTL_OK)
		status = ctl_open(ctl, &handle);
	if (status == CTL_OK)
		status = store(ctl, handle, &value);
	riptide_close(&handle);
	free(value.data);
	return status;
}

/* The status of all: an error weighs more than an absent key. */
static int report_deleted(const struct ctl *ctl, const struct riptide_item *items, size_t count, json_t *list)
{
	int status = CTL_OK;

	for (size_t i = 0; i < count; i++) {
		const struct riptide_item *item = &items[i];
		const char *key = item->key, *what = item->status == RIPTIDE_OK ? "deleted" : "absent";

		if (item->status < 0) {
			what = "failed";
			status = ctl_fail(ctl_exit_of(item->status), "\"%s\": %s", key,
					  riptide_strerror(item->status));
		} else if (item->status == RIPTIDE_MISS && status == CTL_OK) {
			status = CTL_NO;
		}
		if (list) {
			json_t *entry = json_object();

			ctl_json_bytes(entry, "key", key, item->key_length);
			json_object_set_new(entry, "result", json_string(what));
			json_array_append_new(list, entry);
		} else if (item->status >= 0) {
			printf("%s ", what);
			ctl_print_escaped(stdout, key, item->key_length, "");
			putchar('\n');
		}
	}
	if (list) {
		int printed = ctl_print_json(ctl, json_pack("{s:o}", "keys", list));

		return printed == CTL_OK ? status : printed;
	}
	return status;
}

int ctl_del(struct ctl *ctl)
{
	size_t count = ctl->argument_count;
	struct riptide_item *items;
	riptide *handle;
	int code, status;

	if (ctl->given & (CTL_PREFIX | CTL_TAG))
		return ctl_del_many(ctl);
	if (count == 0)
		return ctl_fail(CTL_USAGE, "nothing to delete: a key, --prefix or --tag is needed");
	status = ctl_open(ctl, &handle);
	if (status != CTL_OK)
		return status;
	items = calloc(count, sizeof(*items));
	if (!items) {
		riptide_close(&handle);
		return ctl_fail(CTL_ERROR, "no memory for %zu keys", count);
	}
	for (size_t i = 0; i < count; i++) {
		items[i].key = ctl->arguments[i];
		items[i].key_length = strlen(ctl->arguments[i]);
	}
	code = riptide_delete_batch(handle, items, count);
	status = code < 0 ? ctl_fail_handle(handle, code)
			  : report_deleted(ctl, items, count, ctl->json ? json_array() : NULL);
	free(items);
	riptide_close(&handle);
	return status;
}
