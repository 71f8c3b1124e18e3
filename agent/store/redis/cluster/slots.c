#include "agent/store/redis/cluster/slots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/store/keys.h"
#include "agent/store/redis/node.h"
#include "agent/store/store.h"
#include "shm/msg.h"

/* ---- slots ----------------------------------------------------------------------------------------------------- */

/* CRC16/XMODEM: polynomial 0x1021, from 0, by half bytes. */
static uint16_t crc16(const void *bytes, size_t length)
{
	static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
					   0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
	const unsigned char *p = bytes;
	uint16_t crc = 0;

	for (size_t i = 0; i < length; i++) {
		crc = (uint16_t)((crc << 4) ^ table[(crc >> 12) ^ (p[i] >> 4)]);
		crc = (uint16_t)((crc << 4) ^ table[(crc >> 12) ^ (p[i] & 15)]);
	}
	return crc;
}

uint32_t cluster_slot_of_key(const void *key, size_t length)
{
	const char *bytes = key, *open = length > 0 ? memchr(bytes, '{', length) : NULL, *close;

	if (open != NULL) {
		size_t rest = length - (size_t)(open + 1 - bytes);

		close = rest > 0 ? memchr(open + 1, '}', rest) : NULL;
		if (close != NULL && close > open + 1)
			return crc16(open + 1, (size_t)(close - open - 1)) % CLUSTER_SLOTS;
	}
	return crc16(bytes, length) % CLUSTER_SLOTS;
}

uint32_t cluster_slot_of_shard(const char *tenant, uint32_t shard)
{
	char tag[RSHM_TENANT_MAX + 16];
	int length = snprintf(tag, sizeof(tag), "%s.%u", tenant, (unsigned)shard);

	/* A name that is too long has no slot; the node says so. */
	if (length < 0 || (size_t)length >= sizeof(tag))
		return 0;
	return crc16(tag, (size_t)length) % CLUSTER_SLOTS;
}

uint32_t cluster_slot_of_request(const struct store_request *request)
{
	const struct store_name *name = &request->name;
	bool is_tenants =
		request->op == STORE_GENERATION || request->op == STORE_NEXT_GENERATION || request->op == STORE_SWEPT;

	return cluster_slot_of_shard(
		name->tenant != NULL ? name->tenant : "",
		is_tenants || name->key == NULL ? 0 : keys_shard(name->key, name->key_len, name->shards));
}

bool cluster_tag_find(const uint16_t owners[CLUSTER_SLOTS], uint16_t owner, char *ret)
{
	/* One slot in 16,384 is hit by one try in as many: of sixteen times that, one all but surely does. */
	for (uint32_t i = 0; i < 16 * CLUSTER_SLOTS; i++) {
		char tag[CLUSTER_TAG_MAX];
		int length = snprintf(tag, sizeof(tag), "%x", (unsigned)i);

		if (owners[crc16(tag, (size_t)length) % CLUSTER_SLOTS] == owner) {
			memcpy(ret, tag, sizeof(tag));
			return true;
		}
	}
	return false;
}

/* ---- addresses ------------------------------------------------------------------------------------------------- */

bool cluster_endpoint_equals(const struct cluster_endpoint *a, const struct cluster_endpoint *b)
{
	return a->port == b->port && strcmp(a->host, b->host) == 0;
}

static bool is_host_character(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("._-:", c) != NULL);
}

/* An empty host is the one that was asked. False: nothing to connect to. */
static bool endpoint_set(struct cluster_endpoint *endpoint, const char *host, size_t length, uint64_t port,
			 const char *asked_host)
{
	if (length == 0) {
		host = asked_host;
		length = strlen(asked_host);
	}
	if (length == 0 || length > CLUSTER_HOST_MAX || port == 0 || port > UINT16_MAX)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (!is_host_character(host[i]))
			return false;
	}
	memcpy(endpoint->host, host, length);
	endpoint->host[length] = '\0';
	endpoint->port = (uint16_t)port;
	return true;
}

/* Decimal digits and nothing else, up to `max`. */
static bool take_number(const char *bytes, size_t length, uint64_t max, uint64_t *ret)
{
	uint64_t number = 0;

	if (length == 0 || length > 10)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (bytes[i] < '0' || bytes[i] > '9')
			return false;
		number = number * 10 + (uint64_t)(bytes[i] - '0');
	}
	if (number > max)
		return false;
	*ret = number;
	return true;
}

int cluster_redirect_read(const char *error, const char *asked_host, struct cluster_redirect *ret)
{
	struct cluster_redirect redirect = {.ask = strncmp(error, "ASK ", 4) == 0};
	const char *slot = error + (redirect.ask ? 4 : 6), *space, *colon;
	uint64_t number, port;

	if (!redirect.ask && strncmp(error, "MOVED ", 6) != 0)
		return RSHM_E_PROTOCOL;
	space = strchr(slot, ' ');
	colon = space != NULL ? strrchr(space, ':') : NULL;
	if (colon == NULL || !take_number(slot, (size_t)(space - slot), CLUSTER_SLOTS - 1, &number) ||
	    !take_number(colon + 1, strlen(colon + 1), UINT16_MAX, &port) ||
	    !endpoint_set(&redirect.to, space + 1, (size_t)(colon - space - 1), port, asked_host))
		return RSHM_E_PROTOCOL;
	redirect.slot = (uint32_t)number;
	*ret = redirect;
	return RSHM_OK;
}

/* ---- CLUSTER SLOTS --------------------------------------------------------------------------------------------- */

/* Items one after the other; `failed` once something is not as it must be. */
struct cursor {
	const void *items;
	size_t length, position;
	bool failed;
};

/* The next item's text if it is of this kind. */
static bool cursor_take(struct cursor *cursor, char kind, const char **ret_bytes, size_t *ret_length)
{
	if (cursor->failed ||
	    !redis_node_item(cursor->items, cursor->length, &cursor->position, ret_bytes, ret_length) ||
	    *ret_length == 0 || **ret_bytes != kind) {
		cursor->failed = true;
		return false;
	}
	(*ret_bytes)++;
	(*ret_length)--;
	return true;
}

static uint64_t cursor_take_number(struct cursor *cursor, char kind, uint64_t max)
{
	const char *bytes;
	size_t length;
	uint64_t number = 0;

	if (cursor_take(cursor, kind, &bytes, &length) && !take_number(bytes, length, max, &number))
		cursor->failed = true;
	return cursor->failed ? 0 : number;
}

/* Passes over `count` items with all that belongs to them; their number is bounded by their bytes. */
static void cursor_skip(struct cursor *cursor, uint64_t count)
{
	const char *bytes;
	size_t length;

	while (count > 0 && !cursor->failed) {
		uint64_t children = 0;

		if (!redis_node_item(cursor->items, cursor->length, &cursor->position, &bytes, &length) ||
		    length == 0 || (*bytes == '*' && !take_number(bytes + 1, length - 1, UINT32_MAX, &children)))
			cursor->failed = true;
		count += children - 1;
	}
}

/* The index of an endpoint, which is added if it is new; CLUSTER_NOBODY if there are too many. */
static uint16_t map_find(struct cluster_map *map, const struct cluster_endpoint *endpoint)
{
	for (uint32_t i = map->count; i > 0; i--) {
		if (cluster_endpoint_equals(&map->endpoints[i - 1], endpoint))
			return (uint16_t)(i - 1);
	}
	if (map->count == CLUSTER_NODES_MAX)
		return CLUSTER_NOBODY;
	map->endpoints[map->count] = *endpoint;
	return (uint16_t)map->count++;
}

/* The address of a node: [host or nil, port, ...]. False: it is not known there, as with host "?". */
static bool cursor_take_endpoint(struct cursor *cursor, const char *asked_host, struct cluster_endpoint *ret)
{
	uint64_t members = cursor_take_number(cursor, '*', UINT16_MAX), port;
	const char *host;
	size_t length;

	if (members < 2)
		cursor->failed = true;
	if (cursor->failed || !redis_node_item(cursor->items, cursor->length, &cursor->position, &host, &length) ||
	    length == 0 || (*host != '$' && *host != '_')) {
		cursor->failed = true;
		return false;
	}
	port = cursor_take_number(cursor, ':', UINT32_MAX);
	cursor_skip(cursor, members - 2);
	return !cursor->failed && endpoint_set(ret, host + 1, length - 1, port, asked_host);
}

/* One range: [first, last, master, replica, ...]. */
static void map_take_range(struct cluster_map *map, struct cursor *cursor, const char *asked_host)
{
	uint64_t members = cursor_take_number(cursor, '*', UINT16_MAX);
	uint64_t first = cursor_take_number(cursor, ':', CLUSTER_SLOTS - 1);
	uint64_t last = cursor_take_number(cursor, ':', CLUSTER_SLOTS - 1);
	struct cluster_endpoint master;
	uint16_t owner;

	if (members < 3 || first > last)
		cursor->failed = true;
	if (cursor->failed)
		return;
	owner = cursor_take_endpoint(cursor, asked_host, &master) ? map_find(map, &master) : CLUSTER_NOBODY;
	cursor_skip(cursor, members - 3);
	for (uint64_t slot = first; slot <= last && !cursor->failed && owner != CLUSTER_NOBODY; slot++) {
		/* Two owners: it cannot be known which is right. */
		if (map->owners[slot] != CLUSTER_NOBODY && map->owners[slot] != owner)
			cursor->failed = true;
		map->covered += map->owners[slot] == CLUSTER_NOBODY;
		map->owners[slot] = owner;
	}
}

int cluster_map_read(const void *items, size_t length, const char *asked_host, struct cluster_map **ret)
{
	struct cursor cursor = {.items = items, .length = length};
	struct cluster_map *map = malloc(sizeof(*map));
	uint64_t ranges;

	if (map == NULL)
		return RSHM_E_NOMEM;
	map->count = map->covered = 0;
	for (uint32_t slot = 0; slot < CLUSTER_SLOTS; slot++)
		map->owners[slot] = CLUSTER_NOBODY;
	ranges = cursor_take_number(&cursor, '*', CLUSTER_SLOTS);
	for (uint64_t i = 0; i < ranges && !cursor.failed; i++)
		map_take_range(map, &cursor, asked_host);
	if (cursor.failed || cursor.position != length) {
		free(map);
		return RSHM_E_PROTOCOL;
	}
	*ret = map;
	return RSHM_OK;
}
