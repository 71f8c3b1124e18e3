/* get.c - one value, for people, pipes and programs. */
#include "client-lib/ctl/ctl.h"

#include <inttypes.h>
#include <string.h>

static const char *field_name(int kind)
{
	switch (kind) {
	case RIPTIDE_METADATA_VERSION:
		return "version";
	case RIPTIDE_METADATA_CONTENT_TYPE:
		return "content_type";
	case RIPTIDE_METADATA_SOURCE:
		return "source";
	case RIPTIDE_METADATA_TAG:
		return "tag";
	default:
		return NULL;
	}
}

/* Milliseconds since 1970; of a value that a fetch has stored. */
static uint64_t soft_deadline_ms(const struct riptide_field *field)
{
	uint64_t ms = 0;

	for (size_t i = 0; i < 8 && i < field->value_length; i++)
		ms |= (uint64_t)(unsigned char)field->value[i] << 8 * i;
	return ms;
}

static void print_field(const struct riptide_field *field)
{
	const char *name = field_name(field->kind);

	fputs("  ", stderr);
	if (field->kind == RIPTIDE_METADATA_SOFT_DEADLINE)
		return (void)fprintf(stderr, "soft_deadline_ms: %" PRIu64 "\n", soft_deadline_ms(field));
	if (name)
		fputs(name, stderr);
	else if (field->kind == RIPTIDE_METADATA_ATTRIBUTE)
		ctl_print_escaped(stderr, field->name, field->name_length, "");
	else
		return (void)fputs("(of a later version)\n", stderr);
	fputs(": ", stderr);
	ctl_print_escaped(stderr, field->value, field->value_length, "");
	fputc('\n', stderr);
}

static void print_reads(const struct riptide_description *about)
{
	char ago[CTL_CELL];

	if (about->accessed_ms_ago == RIPTIDE_NEVER)
		fputs("  reads: none known\n", stderr);
	else
		fprintf(stderr, "  reads: %" PRIu64 " or more, the last one %s ago\n", about->access_count,
			ctl_span(ago, about->accessed_ms_ago));
}

/* `about`: NULL if nothing more is known. */
static void print_meta(const struct riptide_value *value, const struct riptide_description *about)
{
	const struct riptide_info *info = &value->info;
	char age[CTL_CELL], ttl[CTL_CELL];
	struct riptide_field field;
	size_t cursor = 0;

	fprintf(stderr, "%zu bytes, version %" PRIu64 ", age %s, %s%s, %s, read from %s\n", value->length,
		info->version, ctl_span(age, info->age_ms),
		info->ttl_ms == RIPTIDE_NEVER ? "does not expire" : "expires in ",
		info->ttl_ms == RIPTIDE_NEVER ? "" : ctl_span(ttl, info->ttl_ms),
		info->flags & RIPTIDE_STALE ? "stale" : "verified",
		info->flags & RIPTIDE_HOT ? "shared memory" : "the agent");
	if (about)
		print_reads(about);
	while (riptide_metadata_next(value->metadata, value->metadata_length, &cursor, &field) == 1)
		print_field(&field);
}

static void print_hex(const unsigned char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		printf("%02x", bytes[i]);
	putchar('\n');
}

static json_t *metadata_json(const struct riptide_value *value)
{
	json_t *object = json_object(), *tags = json_array(), *attributes = json_object();
	struct riptide_field field;
	size_t cursor = 0;

	while (riptide_metadata_next(value->metadata, value->metadata_length, &cursor, &field) == 1) {
		const char *name = field_name(field.kind);

		if (field.kind == RIPTIDE_METADATA_SOFT_DEADLINE)
			json_object_set_new(object, "soft_deadline_ms",
					    json_integer((json_int_t)soft_deadline_ms(&field)));
		else if (field.kind == RIPTIDE_METADATA_TAG)
			json_array_append_new(tags, json_stringn(field.value, field.value_length));
		else if (name)
			ctl_json_bytes(object, name, field.value, field.value_length);
		else if (field.kind == RIPTIDE_METADATA_ATTRIBUTE)
			json_object_setn_new(attributes, field.name, field.name_length,
					     json_stringn(field.value, field.value_length));
	}
	json_object_set_new(object, "tags", tags);
	json_object_set_new(object, "attributes", attributes);
	return object;
}

static int print_json(struct ctl *ctl, const char *key, const struct riptide_value *value,
		      const struct riptide_description *about)
{
	json_t *document = json_object();

	ctl_json_bytes(document, "key", key, strlen(key));
	json_object_set_new(document, "found", json_boolean(value != NULL));
	if (value) {
		const struct riptide_info *info = &value->info;

		if (ctl->given & CTL_HEX)
			ctl_json_hex(document, "value_hex", value->data, value->length);
		else
			ctl_json_bytes(document, "value", value->data, value->length);
		json_object_set_new(document, "length", json_integer((json_int_t)value->length));
		json_object_set_new(document, "version", json_integer((json_int_t)info->version));
		json_object_set_new(document, "age_ms", json_integer((json_int_t)info->age_ms));
		json_object_set_new(document, "ttl_ms",
				    info->ttl_ms == RIPTIDE_NEVER ? json_null()
								  : json_integer((json_int_t)info->ttl_ms));
		json_object_set_new(document, "stale", json_boolean(info->flags & RIPTIDE_STALE));
		json_object_set_new(document, "hot", json_boolean(info->flags & RIPTIDE_HOT));
		json_object_set_new(document, "metadata", metadata_json(value));
	}
	if (value && about) {
		json_object_set_new(document, "access_count", json_integer((json_int_t)about->access_count));
		json_object_set_new(document, "accessed_ms_ago",
				    about->accessed_ms_ago == RIPTIDE_NEVER
					    ? json_null()
					    : json_integer((json_int_t)about->accessed_ms_ago));
	}
	return ctl_print_json(ctl, document);
}

static void print_value(const struct ctl *ctl, const struct riptide_value *value)
{
	const char *bytes = value->data;

	if (ctl->given & CTL_HEX) {
		print_hex(value->data, value->length);
	} else if (!ctl->to_terminal || ctl->given & CTL_RAW) {
		fwrite(bytes, 1, value->length, stdout);
	} else {
		ctl_print_escaped(stdout, bytes, value->length, "\n\t");
		if (value->length == 0 || bytes[value->length - 1] != '\n')
			putchar('\n');
	}
}

int ctl_get(struct ctl *ctl)
{
	struct riptide_description description = {.size = sizeof(description)}, *about = NULL;
	const char *key = ctl->arguments[0];
	struct riptide_value value;
	riptide *handle;
	int code, status;

	if ((ctl->given & CTL_RAW) && (ctl->given & CTL_HEX))
		return ctl_fail(CTL_USAGE, "--raw and --hex exclude each other");
	status = ctl_open(ctl, &handle);
	if (status != CTL_OK)
		return status;
	/* Before this read is one of those it tells. What it cannot tell is left out. */
	if ((ctl->given & CTL_META) && riptide_describe(handle, key, strlen(key), &description) == RIPTIDE_OK)
		about = &description;
	code = riptide_get(handle, key, strlen(key), &value);
	if (code < 0) {
		status = ctl_fail_handle(handle, code);
	} else if (code == RIPTIDE_MISS) {
		status = ctl->json ? print_json(ctl, key, NULL, NULL) : CTL_OK;
		status = status == CTL_OK ? ctl_fail(CTL_NO, "\"%s\" is not there", key) : status;
	} else if (ctl->json) {
		status = print_json(ctl, key, &value, about);
	} else {
		print_value(ctl, &value);
		if (ctl->given & CTL_META)
			print_meta(&value, about);
	}
	if (code == RIPTIDE_OK)
		riptide_value_free(&value);
	riptide_close(&handle);
	return status;
}
