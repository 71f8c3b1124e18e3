/* dict.c - zstd dictionaries of a tenant: list, train, show, drop. For the agent's own user and root. */
#include "client-lib/ctl/ctl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/tlv.h"

#define TYPE_WIDTH 28

static int ask(const struct ctl *ctl, uint16_t op, uint32_t id, json_t **ret_document)
{
	unsigned char request[512];
	struct rshm_tlv_writer writer;
	int64_t length;

	rshm_tlv_begin(&writer, request, sizeof(request), op, 0, 1);
	rshm_tlv_text(&writer, RSHM_TAG_TENANT, ctl->tenant);
	if (ctl->content_type)
		rshm_tlv_text(&writer, RSHM_TAG_CONTENT_TYPE, ctl->content_type);
	if (id)
		rshm_tlv_u32(&writer, RSHM_TAG_DICTIONARY_ID, id);
	length = rshm_tlv_finish(&writer);
	if (length < 0)
		return ctl_fail(CTL_USAGE, "the tenant has at most %u characters, the content type 64",
				RSHM_TENANT_MAX);
	return ctl_ask_with(ctl, request, (size_t)length, ret_document);
}

static void print_type(const json_t *object)
{
	const char *type = ctl_text(object, "content_type");
	char cell[96];

	printf("  %-*.*s", TYPE_WIDTH, TYPE_WIDTH,
	       *type ? ctl_escaped(cell, sizeof(cell), type, strlen(type)) : "(none)");
}

static uint64_t age_ms(const json_t *dictionary)
{
	uint64_t now_ms = (uint64_t)time(NULL) * 1000, created_ms = ctl_u64(dictionary, "created_ms");

	return now_ms > created_ms ? now_ms - created_ms : 0;
}

static const char *state_of(const json_t *dictionary)
{
	return json_is_true(json_object_get(dictionary, "retired")) ? "retired: read only" : "in use";
}

static void print_dictionaries(const struct ctl *ctl, const json_t *list)
{
	char bytes[CTL_CELL], memory[CTL_CELL], age[CTL_CELL];
	const json_t *d;
	size_t i;

	if (json_array_size(list) == 0) {
		puts("No dictionaries.");
		return;
	}
	printf("%s        ID  %-*s     BYTES    MEMORY              AGE  STATE%s\n", ctl_bold(ctl), TYPE_WIDTH,
	       "CONTENT TYPE", ctl_plain(ctl));
	json_array_foreach((json_t *)list, i, d)
	{
		printf("%10" PRIu64, ctl_u64(d, "id"));
		print_type(d);
		printf("  %8s  %8s  %15s  %s\n", ctl_bytes(bytes, ctl_u64(d, "bytes")),
		       ctl_bytes(memory, ctl_u64(d, "memory_bytes")), ctl_span(age, age_ms(d)), state_of(d));
	}
}

static void print_samples(const struct ctl *ctl, const json_t *list)
{
	char bytes[CTL_CELL];
	const json_t *s;
	size_t i;

	if (json_array_size(list) == 0) {
		puts("No samples: they are taken of values of 64 bytes to 16 KiB that are written with zstd or auto.");
		return;
	}
	printf("%s  SAMPLES OF%*s   SAMPLES    NEEDED     BYTES        WRITTEN%s\n", ctl_bold(ctl), TYPE_WIDTH - 10,
	       "", ctl_plain(ctl));
	json_array_foreach((json_t *)list, i, s)
	{
		print_type(s);
		printf("  %8" PRIu64 "  %8" PRIu64 "  %8s  %13" PRIu64 "%s\n", ctl_u64(s, "samples"),
		       ctl_u64(s, "samples_needed"), ctl_bytes(bytes, ctl_u64(s, "bytes")), ctl_u64(s, "seen"),
		       json_is_true(json_object_get(s, "enough")) ? "  enough to train" : "");
	}
}

static int list(struct ctl *ctl)
{
	json_t *document;
	int status = ask(ctl, RSHM_CONTROL_DICT_LIST, 0, &document);

	if (status != CTL_OK)
		return status;
	if (ctl->json)
		return ctl_print_json(ctl, document);
	if (!json_is_true(json_object_get(document, "enabled")))
		puts("Nothing is written with dictionaries: dictionary.enabled is false, or the agent has no compression.");
	print_dictionaries(ctl, json_object_get(document, "dictionaries"));
	print_samples(ctl, json_object_get(document, "samples"));
	json_decref(document);
	return CTL_OK;
}

/* Train, show and drop answer with the one dictionary that it is about. */
static int print_one(const struct ctl *ctl, const char *what, json_t *d)
{
	char bytes[CTL_CELL], memory[CTL_CELL], age[CTL_CELL];
	const char *type = ctl_text(d, "content_type");

	if (ctl->json)
		return ctl_print_json(ctl, d);
	printf("%s%" PRIu64 ": ", what, ctl_u64(d, "id"));
	if (*type)
		ctl_print_escaped(stdout, type, strlen(type), "");
	else
		fputs("values without a content type", stdout);
	printf(", %s, %s of memory, %s old, %s\n", ctl_bytes(bytes, ctl_u64(d, "bytes")),
	       ctl_bytes(memory, ctl_u64(d, "memory_bytes")), ctl_span(age, age_ms(d)), state_of(d));
	json_decref(d);
	return CTL_OK;
}

static int train(struct ctl *ctl)
{
	json_t *document;
	int status = ask(ctl, RSHM_CONTROL_DICT_TRAIN, 0, &document);

	return status == CTL_OK ? print_one(ctl, "trained ", document) : status;
}

static int show_or_drop(struct ctl *ctl, uint16_t op)
{
	const char *text = ctl->arguments[1];
	unsigned long long id;
	json_t *document;
	char *end;
	int status;

	id = strtoull(text, &end, 10);
	if (text[0] < '1' || text[0] > '9' || *end || strlen(text) > 10 || id > UINT32_MAX)
		return ctl_fail(CTL_USAGE, "\"%s\" is no number of a dictionary; see riptidectl dict list", text);
	status = ask(ctl, op, (uint32_t)id, &document);
	if (status != CTL_OK)
		return status;
	return print_one(ctl, op == RSHM_CONTROL_DICT_DROP ? "dropped " : "", document);
}

int ctl_dict(struct ctl *ctl)
{
	const char *what = ctl->arguments[0];
	bool one = strcmp(what, "show") == 0 || strcmp(what, "drop") == 0;

	if (ctl->argument_count != (one ? 2u : 1u))
		return ctl_fail(CTL_USAGE, "dict %s takes %s", what,
				one ? "the number of one dictionary" : "no argument");
	if (ctl->content_type && strcmp(what, "train") != 0)
		return ctl_fail(CTL_USAGE, "only dict train takes --type");
	if (strcmp(what, "list") == 0)
		return list(ctl);
	if (strcmp(what, "train") == 0)
		return train(ctl);
	if (one)
		return show_or_drop(ctl, strcmp(what, "drop") == 0 ? RSHM_CONTROL_DICT_DROP : RSHM_CONTROL_DICT_SHOW);
	return ctl_fail(CTL_USAGE, "there is no dict %s; there are list, train, show and drop", what);
}
