#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/store/keys.h"
#include "agent/store/redis/cluster/seeds.h"
#include "agent/store/redis/cluster/slots.h"
#include "agent/store/redis/reply.h"
#include "agent/store/store.h"
#include "shm/msg.h"

/* What the files of cluster/ make of keys, URLs and of what servers send; the store itself on a real cluster: e2e. */

/* ---- slots ----------------------------------------------------------------------------------------------------- */

static uint32_t slot_of(const char *key)
{
	return cluster_slot_of_key(key, strlen(key));
}

/* The first is the checksum's standard check value; the others were asked of a server by CLUSTER KEYSLOT. */
static void slots_are_those_of_the_server(void **state)
{
	static const struct {
		const char *key;
		uint32_t slot;
	} known[] = {
		{"123456789", 0x31c3 % CLUSTER_SLOTS},
		{"foo", 12182},
		{"bar", 5061},
		{"hello", 866},
		{"{user1000}.following", 3443},
		{"{user1000}.followers", 3443},
		{"user1000", 3443},
		{"foo{}{bar}", 8363},
		{"foo{{bar}}zap", 4015},
		{"{bar", 4015},
		{"foo{bar}{zap}", 5061},
		{"", 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (slot_of(known[i].key) != known[i].slot)
			print_error("%s: %u\n", known[i].key, slot_of(known[i].key));
		assert_int_equal(slot_of(known[i].key), known[i].slot);
	}
}

static void requests_have_the_slot_of_their_redis_key(void **state)
{
	const struct keys_options options = {KEYS_PREFIX_DEFAULT, KEYS_VERSION_DEFAULT};
	struct store_request request = {.op = STORE_GET,
					.name = {.tenant = "shop-7", .shards = 64, .generation = 3, .space = 'c'}};
	struct keys_redis key;
	uint32_t slots[64] = {0}, different = 0;
	char text[700];

	(void)state;
	for (int i = 0; i < 1000; i++) {
		memset(text, 'k', sizeof(text));
		snprintf(text, sizeof(text), "a{b}c-%d", i);
		request.name.key = text;
		request.name.key_len = i % 10 == 0 ? sizeof(text) : strlen(text);
		assert_int_equal(keys_redis(&options, &request.name, &key), RSHM_OK);
		assert_int_equal(cluster_slot_of_request(&request), cluster_slot_of_key(key.bytes, key.length));
		slots[keys_shard(request.name.key, request.name.key_len, 64)]++;
	}
	for (int i = 0; i < 64; i++)
		different += slots[i] > 0;
	assert_int_equal(different, 64);
	request.op = STORE_NEXT_GENERATION;
	assert_int_equal(keys_redis_tenant(&options, "shop-7", &key), RSHM_OK);
	assert_int_equal(cluster_slot_of_request(&request), cluster_slot_of_key(key.bytes, key.length));
}

/* For a node's own keys: a tag whose slot it has, also if that is its only one. */
static void tags_are_found_for_any_owner(void **state)
{
	uint16_t owners[CLUSTER_SLOTS];

	(void)state;
	for (uint32_t only = 0; only < CLUSTER_SLOTS; only += 1023) {
		char tag[CLUSTER_TAG_MAX], key[64];

		for (uint32_t slot = 0; slot < CLUSTER_SLOTS; slot++)
			owners[slot] = slot == only ? 7 : 3;
		for (uint16_t owner = 3; owner <= 7; owner += 4) {
			assert_true(cluster_tag_find(owners, owner, tag));
			snprintf(key, sizeof(key), "riptide:v1:canary:{%s}:0", tag);
			assert_int_equal(owners[slot_of(key)], owner);
		}
		assert_false(cluster_tag_find(owners, 5, tag));
	}
}

/* ---- redirections ---------------------------------------------------------------------------------------------- */

static void redirections_are_read(void **state)
{
	struct cluster_redirect redirect;

	(void)state;
	assert_int_equal(cluster_redirect_read("MOVED 3999 127.0.0.1:6381", "here", &redirect), RSHM_OK);
	assert_false(redirect.ask);
	assert_int_equal(redirect.slot, 3999);
	assert_string_equal(redirect.to.host, "127.0.0.1");
	assert_int_equal(redirect.to.port, 6381);
	assert_int_equal(cluster_redirect_read("ASK 0 node-1.example:1", "here", &redirect), RSHM_OK);
	assert_true(redirect.ask);
	assert_string_equal(redirect.to.host, "node-1.example");
	assert_int_equal(cluster_redirect_read("MOVED 16383 ::1:7000", "here", &redirect), RSHM_OK);
	assert_string_equal(redirect.to.host, "::1");
	assert_int_equal(redirect.to.port, 7000);
	/* A server that does not know its own address. */
	assert_int_equal(cluster_redirect_read("MOVED 1 :7000", "here", &redirect), RSHM_OK);
	assert_string_equal(redirect.to.host, "here");
}

static void redirections_that_cannot_be_are_refused(void **state)
{
	static const char *const bad[] = {"MOVED",         "MOVED ",        "MOVED 1",           "MOVED 16384 a:1",
					  "MOVED -1 a:1",  "MOVED 1 a",     "MOVED 1 a:0",       "MOVED 1 a:65536",
					  "MOVED 1 a:",    "MOVED 1 a:1x",  "MOVED x a:1",       "MOVED  a:1",
					  "MOVED 1 a b:1", "MOVED 1 a@b:1", "MOVED 1 ?:1",       "ASK 99999 a:1",
					  "ASK 1 a/b:1",   "ERR 1 a:1",     "moved 1 a:1",       "MOVED 1 \x01:1",
					  "MOVED 1 a:+1",  "MOVED 1 %41:1", "ASK 4294967296 a:1"};
	struct cluster_redirect redirect;
	char text[700];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (cluster_redirect_read(bad[i], "here", &redirect) != RSHM_E_PROTOCOL)
			fail_msg("%s was taken", bad[i]);
	}
	memset(text, 'h', sizeof(text));
	memcpy(text, "MOVED 1 ", 8);
	strcpy(text + sizeof(text) - 4, ":1");
	assert_int_equal(cluster_redirect_read(text, "here", &redirect), RSHM_E_PROTOCOL);
}

/* ---- the slot map ---------------------------------------------------------------------------------------------- */

/* What a server's bytes are read as: the status of the reader or of the map. */
static int read_map(const char *bytes, size_t length, size_t piece, struct cluster_map **ret)
{
	struct redis_reader *reader = redis_reader_create(1u << 20);
	struct redis_reply *reply = NULL;
	int status = RSHM_MISS;

	assert_non_null(reader);
	for (size_t at = 0; at < length && status == RSHM_MISS; at += piece) {
		assert_int_equal(redis_reader_feed(reader, bytes + at, length - at < piece ? length - at : piece),
				 RSHM_OK);
		status = redis_reader_next(reader, REDIS_SHAPE_TREE, &reply);
	}
	redis_reader_destroy(&reader);
	if (status != RSHM_OK)
		return status;
	status = reply->type == REDIS_REPLY_IS_TREE ? cluster_map_read(reply->bytes, reply->length, "asked", ret)
						    : RSHM_E_INVALID;
	free(reply);
	return status;
}

#define NODE(port) "*3\r\n$9\r\n127.0.0.1\r\n:" port "\r\n$4\r\nabcd\r\n"

static const char good_map[] =
	"*3\r\n"
	"*4\r\n:0\r\n:5460\r\n" NODE("7000")
		NODE("7003") "*3\r\n:5461\r\n:10922\r\n*4\r\n$4\r\nhost\r\n:7001\r\n$2\r\nid\r\n"
			     "*2\r\n$8\r\nhostname\r\n$1\r\nx\r\n"
			     "*3\r\n:10923\r\n:16383\r\n*2\r\n$-1\r\n:7002\r\n";

static void a_slot_map_is_read_in_any_pieces(void **state)
{
	(void)state;
	for (size_t piece = 1; piece < sizeof(good_map) + 10; piece += 7) {
		struct cluster_map *map = NULL;

		assert_int_equal(read_map(good_map, sizeof(good_map) - 1, piece, &map), RSHM_OK);
		assert_int_equal(map->count, 3);
		assert_int_equal(map->covered, CLUSTER_SLOTS);
		assert_int_equal(map->owners[0], 0);
		assert_int_equal(map->owners[5460], 0);
		assert_int_equal(map->owners[5461], 1);
		assert_int_equal(map->owners[16383], 2);
		assert_int_equal(map->endpoints[0].port, 7000);
		assert_string_equal(map->endpoints[1].host, "host");
		assert_string_equal(map->endpoints[2].host, "asked");
		free(map);
	}
}

static void slots_of_unknown_hosts_have_no_owner(void **state)
{
	static const char bytes[] =
		"*2\r\n"
		"*3\r\n:0\r\n:99\r\n" NODE("7000") "*3\r\n:100\r\n:199\r\n*2\r\n$1\r\n?\r\n:7001\r\n";
	struct cluster_map *map = NULL;

	(void)state;
	assert_int_equal(read_map(bytes, sizeof(bytes) - 1, 1000, &map), RSHM_OK);
	assert_int_equal(map->covered, 100);
	assert_int_equal(map->owners[100], CLUSTER_NOBODY);
	free(map);
	assert_int_equal(read_map("*0\r\n", 4, 10, &map), RSHM_OK);
	assert_int_equal(map->covered, 0);
	free(map);
}

static void slot_maps_that_cannot_be_are_refused(void **state)
{
	static const char *const bad[] = {
		"*1\r\n:1\r\n",
		"*1\r\n*3\r\n:0\r\n:16384\r\n" NODE("7000"),
		"*1\r\n*3\r\n:-1\r\n:5\r\n" NODE("7000"),
		"*1\r\n*3\r\n:9\r\n:5\r\n" NODE("7000"),
		"*1\r\n*2\r\n:0\r\n:5\r\n",
		"*1\r\n*3\r\n$1\r\n0\r\n:5\r\n" NODE("7000"),
		"*1\r\n*3\r\n:0\r\n:5\r\n$4\r\nnode\r\n",
		"*1\r\n*3\r\n:0\r\n:5\r\n*1\r\n$1\r\nh\r\n",
		"*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n:1\r\n:2\r\n",
		"*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$1\r\nh\r\n$1\r\n1\r\n",
		/* two owners */
		"*2\r\n*3\r\n:0\r\n:5\r\n" NODE("7000") "*3\r\n:5\r\n:9\r\n" NODE("7001"),
		/* an error inside */
		"*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n-ERR x\r\n:1\r\n",
		"*-1\r\n",
		"$2\r\nno\r\n",
	};
	struct cluster_map *map = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int status = read_map(bad[i], strlen(bad[i]), 1000, &map);

		if (status != RSHM_E_PROTOCOL && status != RSHM_E_INVALID)
			fail_msg("number %zu: %d", i, status);
	}
}

static void announced_numbers_cost_nothing(void **state)
{
	struct cluster_map *map = NULL;
	static const char many[] = "*1000000000\r\n*3\r\n:0\r\n:5\r\n";
	static const char long_text[] = "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$900000\r\n";
	char *bytes = malloc(64u << 20);
	size_t length;
	int status;

	(void)state;
	assert_non_null(bytes);
	/* More is waited for, and nothing is kept for it. */
	assert_int_equal(read_map(many, sizeof(many) - 1, 1000, &map), RSHM_MISS);
	assert_int_equal(read_map(long_text, sizeof(long_text) - 1, 1000, &map), RSHM_MISS);
	/* Numbers without end are an answer above the limit of 1 MiB. */
	length = (size_t)sprintf(bytes, "*1000000000\r\n");
	while (length < (32u << 20)) {
		memcpy(bytes + length, ":1\r\n", 4);
		length += 4;
	}
	assert_int_equal(read_map(bytes, length, 65536, &map), RSHM_E_PROTOCOL);
	/* So is a host that is longer than any. */
	length = (size_t)sprintf(bytes, "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$2000\r\n");
	memset(bytes + length, 'h', 2000);
	memcpy(bytes + length + 2000, "\r\n:1\r\n", 6);
	assert_int_equal(read_map(bytes, length + 2006, 65536, &map), RSHM_E_PROTOCOL);
	/* And arrays in arrays. */
	length = 0;
	for (int i = 0; i < 1000; i++)
		length += (size_t)sprintf(bytes + length, "*1\r\n");
	assert_int_equal(read_map(bytes, length, 65536, &map), RSHM_E_PROTOCOL);
	/* As many ranges as there are slots, each with the most that a node has to say. */
	length = (size_t)sprintf(bytes, "*%u\r\n", CLUSTER_SLOTS);
	for (unsigned i = 0; i < CLUSTER_SLOTS; i++)
		length += (size_t)sprintf(bytes + length, "*3\r\n:%u\r\n:%u\r\n*2\r\n$2\r\nh%u\r\n:%u\r\n", i, i,
					  i % 10, 1 + i % 2000);
	status = read_map(bytes, length, 65536, &map);
	assert_int_equal(status, RSHM_OK);
	/* More masters than a cluster can have: what is above has no owner. */
	assert_int_equal(map->count, CLUSTER_NODES_MAX);
	assert_true(map->covered < CLUSTER_SLOTS);
	free(map);
	free(bytes);
}

/* Whatever is changed in a good answer, it is taken or refused, and nothing is read that is not there. */
static void damaged_slot_maps_harm_nobody(void **state)
{
	char bytes[sizeof(good_map)];
	uint64_t random = 88172645463325252u;
	unsigned taken = 0, refused = 0;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		struct cluster_map *map = NULL;
		int changes = 1 + i % 4, status;

		memcpy(bytes, good_map, sizeof(bytes));
		while (changes-- > 0) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			bytes[random % (sizeof(bytes) - 1)] = "0123456789*$:-+_\r\n?a"[(random >> 32) % 20];
		}
		status = read_map(bytes, sizeof(bytes) - 1, 1000, &map);
		if (status == RSHM_OK) {
			assert_true(map->count <= CLUSTER_NODES_MAX && map->covered <= CLUSTER_SLOTS);
			taken++;
			free(map);
		} else {
			refused++;
		}
	}
	print_message("%u taken, %u refused\n", taken, refused);
	assert_true(taken > 0 && refused > 0);
}

/* ---- URLs ------------------------------------------------------------------------------------------------------ */

static int parse(const char *url, struct cluster_seeds *seeds, char *fault)
{
	struct text text;

	text_init(&text, fault, 200);
	return cluster_seeds_parse(url, seeds, &text);
}

static void urls_name_several_hosts(void **state)
{
	struct cluster_seeds seeds;
	struct text text;
	char bytes[2100], fault[200];

	(void)state;
	assert_int_equal(parse("redis+cluster://us%3Aer:p@ss%2Fw%25d,x@a:1,[::1]:2,c", &seeds, fault), RSHM_OK);
	assert_int_equal(seeds.count, 3);
	assert_string_equal(seeds.user, "us:er");
	assert_string_equal(seeds.password, "p@ss/w%d,x");
	assert_string_equal(seeds.endpoints[1].host, "::1");
	assert_int_equal(seeds.endpoints[2].port, 6379);
	text_init(&text, bytes, sizeof(bytes));
	cluster_seeds_describe(&seeds, &text);
	assert_string_equal(bytes, "redis+cluster://a:1,[::1]:2,c:6379");
	assert_true(cluster_seeds_node_url(&seeds, &seeds.endpoints[1], bytes, sizeof(bytes)));
	assert_string_equal(bytes, "redis://us%3Aer:p@ss%2Fw%25d,x@[::1]:2");
	assert_false(cluster_seeds_node_url(&seeds, &seeds.endpoints[1], bytes, 20));
	cluster_seeds_wipe(&seeds);
}

static void urls_that_cannot_be_are_refused_without_their_secrets(void **state)
{
	static const char *const bad[] = {"redis+cluster://",
					  "redis+cluster://a,",
					  "redis+cluster://,a",
					  "redis+cluster://a,,b",
					  "redis+cluster://a:0",
					  "redis+cluster://a:70000",
					  "redis+cluster://a/1",
					  "redis+cluster://a,b/1",
					  "redis+cluster://a/",
					  "redis+cluster://secret@a",
					  "redis+cluster://:secret@",
					  "redis+cluster://u:secret@a,b:x",
					  "redis://a",
					  "redis+cluster:/a",
					  "redis+cluster://[::1",
					  "redis+cluster://%41",
					  "redis+cluster://:secret@a,b c",
					  "redis+cluster://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct cluster_seeds seeds = {.count = 77};
		char fault[200];

		if (parse(bad[i], &seeds, fault) != RSHM_E_INVALID)
			fail_msg("%s was taken", bad[i]);
		assert_true(strlen(fault) > 20);
		assert_null(strstr(fault, "secret"));
		assert_int_equal(seeds.count, 77);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slots_are_those_of_the_server),
		cmocka_unit_test(requests_have_the_slot_of_their_redis_key),
		cmocka_unit_test(tags_are_found_for_any_owner),
		cmocka_unit_test(redirections_are_read),
		cmocka_unit_test(redirections_that_cannot_be_are_refused),
		cmocka_unit_test(a_slot_map_is_read_in_any_pieces),
		cmocka_unit_test(slots_of_unknown_hosts_have_no_owner),
		cmocka_unit_test(slot_maps_that_cannot_be_are_refused),
		cmocka_unit_test(announced_numbers_cost_nothing),
		cmocka_unit_test(damaged_slot_maps_harm_nobody),
		cmocka_unit_test(urls_name_several_hosts),
		cmocka_unit_test(urls_that_cannot_be_are_refused_without_their_secrets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
