/* many.c - entries by what they have in common: del --prefix, del --tag, clear; and flush. */
#include "client-lib/ctl/ctl.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static int del_prefix(const struct ctl *ctl, riptide *handle)
{
	uint64_t removed = 0;
	int code = riptide_invalidate_prefix(handle, ctl->prefix, strlen(ctl->prefix), &removed);

	if (code < 0)
		return ctl_fail_handle(handle, code);
	if (ctl->json)
		return ctl_print_json(ctl, json_pack("{s:I}", "removed", (json_int_t)removed));
	printf("removed %" PRIu64 "\n", removed);
	return CTL_OK;
}

static int del_tags(const struct ctl *ctl, riptide *handle)
{
	json_t *list = json_array();

	for (size_t i = 0; i < ctl->tag_count; i++) {
		int code = riptide_invalidate_tag(handle, ctl->tags[i]);

		if (code < 0) {
			json_decref(list);
			return ctl_fail_handle(handle, code);
		}
		json_array_append_new(list, json_stringn(ctl->tags[i], strlen(ctl->tags[i])));
		if (!ctl->json) {
			fputs("invalidated ", stdout);
			ctl_print_escaped(stdout, ctl->tags[i], strlen(ctl->tags[i]), "");
			putchar('\n');
		}
	}
	if (ctl->json)
		return ctl_print_json(ctl, json_pack("{s:o}", "tags", list));
	json_decref(list);
	return CTL_OK;
}

int ctl_del_many(struct ctl *ctl)
{
	riptide *handle;
	int status;

	if (ctl->argument_count > 0 || (ctl->prefix && ctl->tag_count > 0))
		return ctl_fail(CTL_USAGE, "keys, --prefix and --tag exclude each other");
	if (ctl->prefix && !ctl->prefix[0])
		return ctl_fail(CTL_USAGE, "an empty prefix is every key; riptidectl clear removes them");
	status = ctl_open(ctl, &handle);
	if (status != CTL_OK)
		return status;
	status = ctl->prefix ? del_prefix(ctl, handle) : del_tags(ctl, handle);
	riptide_close(&handle);
	return status;
}

/* On a terminal, without --yes. */
static int ask_for_leave(const struct ctl *ctl)
{
	char line[16];

	if (ctl->given & CTL_YES)
		return CTL_OK;
	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
		return ctl_fail(CTL_USAGE, "clear removes every entry of the tenant; say so with --yes");
	fputs("Remove every entry of tenant \"", stderr);
	ctl_print_escaped(stderr, ctl->tenant, strlen(ctl->tenant), "");
	fputs("\"? Type yes: ", stderr);
	if (fgets(line, sizeof(line), stdin) && strcmp(line, "yes\n") == 0)
		return CTL_OK;
	return ctl_fail(CTL_NO, "nothing was removed");
}

/* A call that answers nothing but whether it went well. */
static int run(const struct ctl *ctl, int (*call)(riptide *handle), const char *done)
{
	riptide *handle;
	int code, status = ctl_open(ctl, &handle);

	if (status != CTL_OK)
		return status;
	code = call(handle);
	if (code < 0)
		status = ctl_fail_handle(handle, code);
	else if (ctl->json)
		status = ctl_print_json(ctl, json_pack("{s:b}", done, 1));
	else
		puts(done);
	riptide_close(&handle);
	return status;
}

int ctl_clear(struct ctl *ctl)
{
	int status = ask_for_leave(ctl);

	return status == CTL_OK ? run(ctl, riptide_clear, "cleared") : status;
}

int ctl_flush(struct ctl *ctl)
{
	return run(ctl, riptide_flush, "flushed");
}
