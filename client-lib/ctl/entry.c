/* entry.c - one entry without its value: incr, ttl, touch. */
#include "client-lib/ctl/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int absent(const char *key)
{
	return ctl_fail(CTL_NO, "\"%s\" is not there", key);
}

static int take_delta(const char *text, int64_t *ret)
{
	char *end;
	long long value;

	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno || end == text || *end || (text[0] != '-' && (text[0] < '0' || text[0] > '9')))
		return ctl_fail(CTL_USAGE, "incr adds a whole number of 64 bits, not \"%s\"", text);
	*ret = value;
	return CTL_OK;
}

int ctl_incr(struct ctl *ctl)
{
	const struct riptide_set_options options = {.size = sizeof(options), .ttl_ms = ctl->ttl_ms};
	const char *key = ctl->arguments[0];
	int64_t delta = 1, value = 0;
	riptide *handle;
	int code, status = CTL_OK;

	if (ctl->argument_count > 1)
		status = take_delta(ctl->arguments[1], &delta);
	if (status == CTL_OK)
		status = ctl_open(ctl, &handle);
	if (status != CTL_OK)
		return status;
	code = riptide_incr(handle, key, strlen(key), delta, &options, &value);
	if (code == RIPTIDE_EINVALID && key[0]) {
		status = ctl_fail(CTL_NO, "\"%s\" is no whole number of 64 bits, or the sum would be none", key);
	} else if (code < 0) {
		status = ctl_fail_handle(handle, code);
	} else if (ctl->json) {
		json_t *document = json_object();

		ctl_json_bytes(document, "key", key, strlen(key));
		json_object_set_new(document, "value", json_integer((json_int_t)value));
		status = ctl_print_json(ctl, document);
	} else {
		printf("%" PRId64 "\n", value);
	}
	riptide_close(&handle);
	return status;
}

static int print_ttl(const struct ctl *ctl, const char *key, uint64_t ttl_ms)
{
	bool never = ttl_ms == RIPTIDE_NEVER;
	json_t *document;

	if (ctl->json) {
		document = json_object();
		ctl_json_bytes(document, "key", key, strlen(key));
		json_object_set_new(document, "ttl_ms", never ? json_null() : json_integer((json_int_t)ttl_ms));
		return ctl_print_json(ctl, document);
	}
	if (never)
		puts("never");
	else
		printf("%" PRIu64 ".%03u\n", ttl_ms / 1000, (unsigned int)(ttl_ms % 1000));
	return CTL_OK;
}

int ctl_ttl(struct ctl *ctl)
{
	const char *key = ctl->arguments[0];
	uint64_t ttl_ms = 0;
	riptide *handle;
	int code, status = ctl_open(ctl, &handle);

	if (status != CTL_OK)
		return status;
	code = riptide_ttl(handle, key, strlen(key), &ttl_ms);
	if (code < 0)
		status = ctl_fail_handle(handle, code);
	else
		status = code == RIPTIDE_MISS ? absent(key) : print_ttl(ctl, key, ttl_ms);
	riptide_close(&handle);
	return status;
}

int ctl_touch(struct ctl *ctl)
{
	const char *key = ctl->arguments[0];
	uint64_t ttl_ms;
	riptide *handle;
	int code, status = ctl_time("touch", ctl->arguments[1], &ttl_ms);

	if (status == CTL_OK)
		status = ctl_open(ctl, &handle);
	if (status != CTL_OK)
		return status;
	code = riptide_touch(handle, key, strlen(key), ttl_ms);
	if (code < 0)
		status = ctl_fail_handle(handle, code);
	else
		status = code == RIPTIDE_MISS ? absent(key) : print_ttl(ctl, key, ttl_ms);
	riptide_close(&handle);
	return status;
}
