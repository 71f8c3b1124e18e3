/* directory.c - a sorted array of ids and its text. */
#include "agent/tenant/directory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/tenant/record.h"

#define LINE_MAX_BYTES (RSHM_TENANT_MAX + 1 + 20 + 1) /* id, space, number, newline */

static int make_room(struct directory *d, size_t count)
{
	size_t room = d->room ? d->room : 16;
	struct directory_item *grown;

	if (count <= d->room)
		return RSHM_OK;
	while (room < count)
		room *= 2;
	grown = realloc(d->items, room * sizeof(*grown));
	if (!grown)
		return RSHM_E_NOMEM;
	d->items = grown;
	d->room = room;
	return RSHM_OK;
}

/* One line without its end. */
static bool parse_line(const char *line, size_t length, struct directory_item *ret)
{
	const char *space = memchr(line, ' ', length);
	char number[24];
	size_t id_len, number_len;

	if (!space)
		return false;
	id_len = (size_t)(space - line);
	number_len = length - id_len - 1;
	if (id_len > RSHM_TENANT_MAX || number_len >= sizeof(number))
		return false;
	memcpy(ret->id, line, id_len);
	ret->id[id_len] = '\0';
	memcpy(number, space + 1, number_len);
	number[number_len] = '\0';
	return strlen(ret->id) == id_len && tenant_id_is_valid(ret->id) && strlen(number) == number_len &&
	       text_parse_u64(number, &ret->entered_ms);
}

int directory_decode(const char *text, size_t length, struct directory *ret)
{
	struct directory d = {.items = NULL};
	int status = RSHM_OK;

	for (size_t at = 0; at < length && status == RSHM_OK;) {
		const char *end = memchr(text + at, '\n', length - at);

		status = end ? make_room(&d, d.count + 1) : RSHM_E_CORRUPT;
		if (status < 0)
			break;
		if (!parse_line(text + at, (size_t)(end - text) - at, &d.items[d.count]) ||
		    (d.count > 0 && strcmp(d.items[d.count - 1].id, d.items[d.count].id) >= 0))
			status = RSHM_E_CORRUPT;
		d.count++;
		at = (size_t)(end - text) + 1;
	}
	if (status < 0)
		directory_fini(&d);
	else
		*ret = d;
	return status;
}

char *directory_encode(const struct directory *d, size_t *ret_length)
{
	size_t capacity = d->count * LINE_MAX_BYTES + 1, length = 0;
	char *text = malloc(capacity);

	for (size_t i = 0; i < d->count && text; i++)
		length += (size_t)snprintf(text + length, capacity - length, "%s %" PRIu64 "\n", d->items[i].id,
					   d->items[i].entered_ms);
	*ret_length = length;
	return text;
}

void directory_fini(struct directory *d)
{
	free(d->items);
	*d = (struct directory){.items = NULL};
}

size_t directory_find(const struct directory *d, const char *id, bool *ret_found)
{
	size_t low = 0, high = d->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(d->items[middle].id, id) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_found = low < d->count && strcmp(d->items[low].id, id) == 0;
	return low;
}

int directory_add(struct directory *d, const char *id, uint64_t now_ms)
{
	bool found;
	size_t at = directory_find(d, id, &found);
	int status = found ? RSHM_OK : make_room(d, d->count + 1);

	if (found || status < 0)
		return status;
	memmove(&d->items[at + 1], &d->items[at], (d->count - at) * sizeof(*d->items));
	d->items[at].entered_ms = now_ms;
	snprintf(d->items[at].id, sizeof(d->items[at].id), "%s", id);
	d->count++;
	return RSHM_OK;
}

bool directory_remove(struct directory *d, const char *id)
{
	bool found;
	size_t at = directory_find(d, id, &found);

	if (!found)
		return false;
	d->count--;
	memmove(&d->items[at], &d->items[at + 1], (d->count - at) * sizeof(*d->items));
	return true;
}
