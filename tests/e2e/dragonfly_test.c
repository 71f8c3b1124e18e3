/*
 * dragonfly_test.c - DragonflyDB, and users with an ACL who may do just what an agent needs.
 *
 * The users and the list of commands come out of agent/store/redis/COMMANDS.md, so that what it says is what is tested.
 */
#include "tests/e2e/limited_redis.h"

#include <ctype.h>
#include <errno.h>

#define DOCUMENT "agent/store/redis/COMMANDS.md"
#define MAX_AGE_MS 1000
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- the document -------------------------------------------------------------------------------------------- */

static int read_document(struct fixture *f)
{
	const char *source = getenv("RIPTIDE_SOURCE_DIR");
	char path[512];
	size_t length;
	FILE *file;

	snprintf(path, sizeof(path), "%s/" DOCUMENT, source ? source : ".");
	file = fopen(path, "re");
	if (!file) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	length = fread(f->document, 1, sizeof(f->document) - 1, file);
	fclose(file);
	return length > 0 && length < sizeof(f->document) - 1 ? 0 : -1;
}

/* What stands between "```name" and the next "```". */
static void read_block(const struct fixture *f, const char *name, char *buffer, size_t size)
{
	char head[64];
	const char *begin, *end;

	snprintf(head, sizeof(head), "\n```%s\n", name);
	begin = strstr(f->document, head);
	assert_non_null(begin);
	begin += strlen(head);
	end = strstr(begin, "\n```");
	assert_non_null(end);
	assert_true((size_t)(end - begin) < size);
	memcpy(buffer, begin, (size_t)(end - begin));
	buffer[end - begin] = '\0';
}

/* Whether the list has a row for a command, which is named as in INFO commandstats: "get", "client|id". */
static bool is_listed(const struct fixture *f, const char *name)
{
	char row[80];

	snprintf(row, sizeof(row), "\n| %s |", name);
	for (char *p = row + 3; *p != '\0'; p++)
		*p = *p == '|' && p[1] != '\0' ? ' ' : (char)toupper((unsigned char)*p);
	return strstr(f->document, row) != NULL;
}

static void create_documented_user(struct fixture *f, const char *block)
{
	char rule[2048];

	read_block(f, block, rule, sizeof(rule));
	create_user(f, rule);
	freeReplyObject(admin(f, "CONFIG RESETSTAT"));
	freeReplyObject(admin(f, "ACL LOG RESET"));
}

/* "object" and "username" of an entry of ACL LOG. */
static const char *entry_field(const redisReply *entry, const char *name)
{
	for (size_t i = 0; i + 1 < entry->elements; i += 2)
		if (strcmp(entry->element[i]->str, name) == 0)
			return entry->element[i + 1]->str;
	return "";
}

/* Nothing was denied but this, and this was; "": nothing. */
static void assert_denied(struct fixture *f, const char *object)
{
	redisReply *log = admin(f, "ACL LOG 100");
	bool found = object[0] == '\0';

	for (size_t i = 0; i < log->elements; i++) {
		const char *denied = entry_field(log->element[i], "object");

		if (strcmp(denied, object) != 0)
			fail_msg("%s was denied %s", entry_field(log->element[i], "username"), denied);
		found = true;
	}
	freeReplyObject(log);
	assert_true(found);
}

/* ---- fixtures ----------------------------------------------------------------------------------------------- */

static int setup_document(void **state)
{
	return setup(state) < 0 ? -1 : read_document(*state);
}

static int setup_peer(void **state)
{
	struct fixture *f;

	if (setup(state) < 0)
		return -1;
	f = *state;
	if (f->server.pid == 0)
		return 0;
	f->peer = dragonfly_peer_start(f->server.unix_path, &f->peer_port);
	return f->peer ? 0 : -1;
}

/* ---- all that can be done ------------------------------------------------------------------------------------- */

static void put_tagged(riptide *handle, const char *key)
{
	const char *const tags[] = {"red"};
	struct riptide_metadata metadata = {.tags = tags, .tag_count = 1};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};

	assert_int_equal(riptide_set(handle, key, strlen(key), "v", 1, &options, NULL), RIPTIDE_OK);
}

static void single_entries(riptide *handle)
{
	struct riptide_set_options absent = {.size = sizeof(absent), .condition = RIPTIDE_IF_ABSENT};
	struct riptide_set_options present = {.size = sizeof(present), .condition = RIPTIDE_IF_PRESENT};
	struct riptide_info info;
	uint64_t ttl_ms, version;
	int64_t number;

	assert_int_equal(riptide_set(handle, "k", 1, "one", 3, NULL, &version), RIPTIDE_OK);
	assert_int_equal(e2e_check(handle, "k", "one", NULL), RIPTIDE_OK);
	assert_int_equal(riptide_cas(handle, "k", 1, version, "two", 3, NULL, &version), RIPTIDE_OK);
	assert_int_equal(riptide_cas(handle, "k", 1, version - 1, "three", 5, NULL, NULL), RIPTIDE_CONFLICT);
	assert_int_equal(e2e_check(handle, "k", "two", NULL), RIPTIDE_OK);
	assert_int_equal(riptide_set(handle, "k", 1, "x", 1, &absent, NULL), RIPTIDE_CONFLICT);
	assert_int_equal(riptide_set(handle, "new", 3, "x", 1, &absent, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_set(handle, "new", 3, "y", 1, &present, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_set(handle, "none", 4, "y", 1, &present, NULL), RIPTIDE_CONFLICT);
	assert_int_equal(riptide_touch(handle, "k", 1, 60000), RIPTIDE_OK);
	assert_int_equal(riptide_ttl(handle, "k", 1, &ttl_ms), RIPTIDE_OK);
	assert_in_range(ttl_ms, 1, 60000);
	assert_int_equal(riptide_touch(handle, "k", 1, RIPTIDE_NEVER), RIPTIDE_OK);
	assert_int_equal(riptide_ttl(handle, "k", 1, &ttl_ms), RIPTIDE_OK);
	assert_true(ttl_ms == RIPTIDE_NEVER);
	assert_int_equal(riptide_exists(handle, "k", 1, &info), RIPTIDE_OK);
	assert_int_equal(riptide_exists(handle, "none", 4, &info), RIPTIDE_MISS);
	for (int64_t i = 1; i <= 3; i++) {
		assert_int_equal(riptide_incr(handle, "n", 1, 1, NULL, &number), RIPTIDE_OK);
		assert_int_equal(number, i);
	}
	assert_int_equal(riptide_delete(handle, "k", 1), RIPTIDE_OK);
	assert_int_equal(riptide_delete(handle, "k", 1), RIPTIDE_MISS);
	assert_int_equal(e2e_check(handle, "k", "", NULL), RIPTIDE_MISS);
}

static void batches(riptide *handle)
{
	struct riptide_item items[20] = {{0}};
	char keys[COUNT(items)][16];

	for (size_t i = 0; i < COUNT(items); i++) {
		snprintf(keys[i], sizeof(keys[i]), "batch-%zu", i);
		items[i] = (struct riptide_item){
			.key = keys[i], .key_length = strlen(keys[i]), .value = keys[i], .value_length = 4};
	}
	assert_int_equal(riptide_set_batch(handle, items, COUNT(items)), RIPTIDE_OK);
	assert_int_equal(riptide_get_batch(handle, items, COUNT(items)), RIPTIDE_OK);
	for (size_t i = 0; i < COUNT(items); i++) {
		assert_int_equal(items[i].status, RIPTIDE_OK);
		assert_memory_equal(items[i].result.data, keys[i], 4);
	}
	riptide_batch_free(items, COUNT(items));
	assert_int_equal(riptide_delete_batch(handle, items, COUNT(items) / 2), RIPTIDE_OK);
	assert_int_equal(e2e_check(handle, "batch-0", "batc", NULL), RIPTIDE_MISS);
	assert_int_equal(e2e_check(handle, "batch-19", "batc", NULL), RIPTIDE_OK);
}

/* A key above 400 bytes, whose name is a hash; a value that is large. */
static void large_entries(riptide *handle)
{
	static char large[600000];
	struct riptide_value value;
	char key[1000];

	memset(key, 'l', sizeof(key));
	memset(large, 'x', sizeof(large));
	assert_int_equal(riptide_set(handle, key, sizeof(key), large, sizeof(large), NULL, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_get(handle, key, sizeof(key), &value), RIPTIDE_OK);
	assert_int_equal(value.length, sizeof(large));
	assert_memory_equal(value.data, large, sizeof(large));
	riptide_value_free(&value);
}

/* Accepted, then stored; and not stored before it has expired, over a connection that was lost. */
static void written_behind(struct fixture *f)
{
	struct riptide_set_options behind = {
		.size = sizeof(behind), .write_mode = RIPTIDE_WRITE_BEHIND, .ttl_ms = 60000};

	assert_int_equal(riptide_set(f->on_a, "late", 4, "v", 1, &behind, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_flush(f->on_a), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->on_a, "late", "v", NULL), RIPTIDE_OK);
	redis_server_pause(&f->server);
	behind.ttl_ms = 200;
	assert_int_equal(riptide_set(f->on_a, "late", 4, "w", 1, &behind, NULL), RIPTIDE_OK);
	/* Longer than it lives, and than the agent waits for an answer. */
	e2e_pause_ms(2500);
	redis_server_resume(&f->server);
	assert_int_equal(e2e_await_check(f->on_a, "late", "", RIPTIDE_MISS, PATIENCE_MS), RIPTIDE_MISS);
}

/* Also those that remove many at once; the space is empty afterwards. */
static void all_operations(riptide *handle)
{
	struct riptide_warmed warmed;
	uint64_t removed = 0;
	char key[1000];

	assert_int_equal(riptide_clear(handle), RIPTIDE_OK);
	single_entries(handle);
	batches(handle);
	large_entries(handle);
	put_tagged(handle, "red");
	assert_int_equal(riptide_invalidate_tag(handle, "red"), RIPTIDE_OK);
	assert_int_equal(e2e_check(handle, "red", "v", NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_warm_prefix(handle, "batch-", 6, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.failed, 0);
	assert_int_equal(riptide_invalidate_prefix(handle, "batch-", 6, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 10);
	assert_int_equal(e2e_check(handle, "batch-19", "batc", NULL), RIPTIDE_MISS);
	/* The names of long keys are hashes, so their beginnings are read. */
	memset(key, 'l', sizeof(key));
	assert_int_equal(riptide_invalidate_prefix(handle, "lll", 3, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 1);
	assert_int_equal(riptide_exists(handle, key, sizeof(key), NULL), RIPTIDE_MISS);
	assert_int_equal(riptide_clear(handle), RIPTIDE_OK);
	assert_int_equal(e2e_check(handle, "new", "y", NULL), RIPTIDE_MISS);
	assert_int_equal(e2e_put(handle, "new", "z"), RIPTIDE_OK);
	assert_int_equal(e2e_check(handle, "new", "z", NULL), RIPTIDE_OK);
}

/* The other agent sees it; what was told wrongly or not at all is gone after max_age. */
static void expect_soon(riptide *handle, const char *key, const char *value, int status)
{
	uint64_t began_ms = e2e_now_ms();

	assert_int_equal(e2e_await_check(handle, key, value, status, 2 * MAX_AGE_MS), status);
	assert_true(e2e_now_ms() - began_ms <= MAX_AGE_MS + MAX_AGE_MS / 4);
}

/* What one changes the other does not serve any more. */
static void two_hosts(struct fixture *f)
{
	uint64_t began_ms = e2e_now_ms();
	char value[16];

	for (int i = 0; i < 20; i++) {
		snprintf(value, sizeof(value), "a %d", i);
		assert_int_equal(e2e_put(f->on_a, "k", value), RIPTIDE_OK);
		expect_soon(f->on_b, "k", value, RIPTIDE_OK);
		snprintf(value, sizeof(value), "b %d", i);
		assert_int_equal(e2e_put(f->on_b, "k", value), RIPTIDE_OK);
		expect_soon(f->on_a, "k", value, RIPTIDE_OK);
	}
	/* Waiting for max_age each time would take longer: they were told. */
	assert_true(e2e_now_ms() - began_ms < 10ull * MAX_AGE_MS);
	assert_int_equal(riptide_delete(f->on_a, "k", 1), RIPTIDE_OK);
	expect_soon(f->on_b, "k", value, RIPTIDE_MISS);
	put_tagged(f->on_a, "red");
	expect_soon(f->on_b, "red", "v", RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_tag(f->on_a, "red"), RIPTIDE_OK);
	expect_soon(f->on_b, "red", "v", RIPTIDE_MISS);
	assert_int_equal(e2e_put(f->on_b, "user:1", "v"), RIPTIDE_OK);
	expect_soon(f->on_a, "user:1", "v", RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_prefix(f->on_b, "user:", 5, NULL), RIPTIDE_OK);
	expect_soon(f->on_a, "user:1", "v", RIPTIDE_MISS);
	assert_int_equal(e2e_put(f->on_a, "last", "v"), RIPTIDE_OK);
	expect_soon(f->on_b, "last", "v", RIPTIDE_OK);
	assert_int_equal(riptide_clear(f->on_a), RIPTIDE_OK);
	expect_soon(f->on_b, "last", "v", RIPTIDE_MISS);
}

/* ---- users of the document ------------------------------------------------------------------------------------ */

/* Whether the server has counted this command, of a client or of a script. */
static bool was_executed(struct fixture *f, const char *name)
{
	redisReply *stats = admin(f, "INFO commandstats");
	char line[80];
	bool found;

	snprintf(line, sizeof(line), "\ncmdstat_%s:", name);
	found = strstr(stats->str, line) != NULL;
	freeReplyObject(stats);
	return found;
}

/* Every permission of the rule is used, but for rare ones; what the background does may take a moment. */
static void assert_rule_is_minimal(struct fixture *f, const char *block)
{
	uint64_t until_ms = e2e_now_ms() + PATIENCE_MS;
	char rule[2048], rare[256];

	read_block(f, block, rule, sizeof(rule));
	read_block(f, "rare", rare, sizeof(rare));
	for (char *word = strtok(rule, " \n"); word; word = strtok(NULL, " \n")) {
		if (word[0] != '+' || strcmp(word, rare) == 0)
			continue;
		while (!was_executed(f, word + 1) && e2e_now_ms() < until_ms)
			e2e_pause_ms(50);
		if (!was_executed(f, word + 1))
			fail_msg("%s is not needed", word);
	}
}

/* Every command that the server counted stands in the list; but what this test sends. */
static void assert_all_listed(struct fixture *f)
{
	redisReply *stats = admin(f, "INFO commandstats");
	int count = 0;

	for (char *line = strtok(stats->str, "\r\n"); line; line = strtok(NULL, "\r\n")) {
		char *name = line + strlen("cmdstat_");

		if (strncmp(line, "cmdstat_", strlen("cmdstat_")) != 0)
			continue;
		name[strcspn(name, ":")] = '\0';
		if (strncmp(name, "acl|", 4) == 0 || strncmp(name, "config|", 7) == 0)
			continue;
		if (!is_listed(f, name))
			fail_msg("%s is not in " DOCUMENT, name);
		count++;
	}
	freeReplyObject(stats);
	assert_true(count > 15);
}

static void the_documented_user_of_tracking_can_do_all_and_no_more(void **state)
{
	struct fixture *f = fixture_of(state);
	char url[128];

	create_documented_user(f, "acl tracking");
	url_of(f, "riptide-tracking:" PASSWORD "@", url);
	start_agents(f, url, "coherence.mode=auto", false);
	assert_true(e2e_await_trust(&f->a));
	assert_mode(&f->a, "tracking");
	all_operations(f->on_a);
	written_behind(f);
	assert_rule_is_minimal(f, "acl tracking");
	assert_all_listed(f);
	assert_denied(f, "");
	assert_secret_kept(&f->a);
}

static void the_documented_user_of_channel_can_do_all_and_no_more(void **state)
{
	struct fixture *f = fixture_of(state);
	char url[128], denied[128];

	create_documented_user(f, "acl channel");
	read_block(f, "denied channel", denied, sizeof(denied));
	url_of(f, "riptide-channel:" PASSWORD "@", url);
	start_agents(f, url, "coherence.mode=auto", false);
	assert_mode(&f->a, "channel");
	assert_detail(&f->a, "refuse");
	all_operations(f->on_a);
	written_behind(f);
	assert_rule_is_minimal(f, "acl channel");
	assert_all_listed(f);
	assert_denied(f, denied);
	assert_mode(&f->a, "channel");
	assert_secret_kept(&f->a);
}

static void configured_for_the_channel_nothing_is_denied(void **state)
{
	struct fixture *f = fixture_of(state);
	char url[128];

	create_documented_user(f, "acl channel");
	url_of(f, "riptide-channel:" PASSWORD "@", url);
	start_agents(f, url, "coherence.mode=channel", true);
	assert_mode(&f->a, "channel");
	assert_mode(&f->b, "channel");
	two_hosts(f);
	assert_denied(f, "");
}

/* ---- DragonflyDB ---------------------------------------------------------------------------------------------- */

static void start_on_peer(struct fixture *f, bool both)
{
	char url[128];

	snprintf(url, sizeof(url), "redis.url=redis://127.0.0.1:%u", (unsigned)f->peer_port);
	start_agents(f, url, "coherence.mode=auto", both);
	assert_mode(&f->a, "channel");
	if (both)
		assert_mode(&f->b, "channel");
}

static void dragonfly_is_served_in_mode_channel(void **state)
{
	struct fixture *f = fixture_of(state);
	struct dragonfly_counts counts;

	start_on_peer(f, false);
	assert_detail(&f->a, "the server refused CLIENT TRACKING");
	all_operations(f->on_a);
	dragonfly_peer_counts(f->peer, &counts);
	assert_true(counts.tracking > 0);
	assert_true(counts.scripts > 0);
	assert_true(counts.scans > 0);
	assert_true(counts.published > 10);
	if (counts.unknown > 0)
		fail_msg("%u commands are unknown to DragonflyDB; the first: %s", counts.unknown,
			 counts.first_unknown);
	assert_mode(&f->a, "channel");
}

static void two_hosts_on_dragonfly_are_coherent(void **state)
{
	struct fixture *f = fixture_of(state);

	start_on_peer(f, true);
	two_hosts(f);
}

static void a_listing_of_many_pages_is_whole_on_dragonfly(void **state)
{
	struct fixture *f = fixture_of(state);
	struct dragonfly_counts counts;
	uint64_t removed = 0;
	char key[24];

	start_on_peer(f, false);
	for (int i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "%s-%d", i % 3 ? "stay" : "go", i);
		assert_int_equal(e2e_put(f->on_a, key, "v"), RIPTIDE_OK);
	}
	assert_int_equal(riptide_invalidate_prefix(f->on_a, "go-", 3, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 1000);
	assert_int_equal(e2e_check(f->on_a, "stay-2999", "v", NULL), RIPTIDE_OK);
	dragonfly_peer_counts(f->peer, &counts);
	assert_true(counts.scans > 1);
}

static void a_restart_of_dragonfly_is_survived(void **state)
{
	struct fixture *f = fixture_of(state);

	start_on_peer(f, true);
	all_operations(f->on_a);
	for (int i = 0; i < 3; i++) {
		dragonfly_peer_restart(f->peer);
		expect_recovery(f->on_a);
		expect_recovery(f->on_b);
		/* The scripts are gone, too. */
		all_operations(f->on_a);
	}
	assert_mode(&f->a, "channel");
	assert_mode(&f->b, "channel");
	two_hosts(f);
}

static void a_restart_with_writes_in_flight_is_survived_without_a_barrier(void **state)
{
	struct fixture *f = fixture_of(state);
	struct dragonfly_counts counts;

	start_on_peer(f, true);
	assert_int_equal(e2e_put(f->on_a, "k", "old"), RIPTIDE_OK);
	dragonfly_peer_hold(f->peer, true);
	assert_int_equal(e2e_put(f->on_a, "k", "lost"), RIPTIDE_EUNKNOWN);
	dragonfly_peer_restart(f->peer);
	/* So that it takes a while to find out what the server can do. */
	dragonfly_peer_delay(f->peer, 5);
	dragonfly_peer_hold(f->peer, false);
	e2e_pause_ms(500);
	dragonfly_peer_delay(f->peer, 0);
	expect_recovery(f->on_a);
	expect_recovery(f->on_b);
	/* There is no run_id, so nobody is killed, and the log says what that means. */
	assert_int_equal(agent_process_log_has(&f->a, "the server does not tell CLIENT ID and run_id"), 1);
	dragonfly_peer_counts(f->peer, &counts);
	assert_int_equal(counts.kills, 0);
	assert_mode(&f->a, "channel");
	assert_mode(&f->b, "channel");
	two_hosts(f);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup_document, teardown)
#define CASE_PEER(test) cmocka_unit_test_setup_teardown(test, setup_peer, teardown)
	const struct CMUnitTest tests[] = {
		CASE(the_documented_user_of_tracking_can_do_all_and_no_more),
		CASE(the_documented_user_of_channel_can_do_all_and_no_more),
		CASE(configured_for_the_channel_nothing_is_denied),
		CASE_PEER(dragonfly_is_served_in_mode_channel),
		CASE_PEER(two_hosts_on_dragonfly_are_coherent),
		CASE_PEER(a_listing_of_many_pages_is_whole_on_dragonfly),
		CASE_PEER(a_restart_of_dragonfly_is_survived),
		CASE_PEER(a_restart_with_writes_in_flight_is_survived_without_a_barrier),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
