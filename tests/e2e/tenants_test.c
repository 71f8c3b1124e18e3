/*
 * tenants_test.c - tenants made and unmade at run time, on both stores: their records, their data, who is let in, and how
 * fast hot reads end.
 */
#include <grp.h>
#include <sys/wait.h>

#include "tests/e2e/both_stores.h"
#include "tests/e2e/tenants.h"

#define RED 1
#define BLUE 2
#define MAX_TENANTS "12"

static const char *idle = "tenancy.idle_seconds=600";

static const char *const *both_settings(void)
{
	static const char *settings[] = {"agent.workers=2",
					 "cache.segment_initial_bytes=1M",
					 "cache.max_memory_bytes=64M",
					 "coherence.max_age_ms=60000",
					 "tenancy.max_tenants=" MAX_TENANTS,
					 "limits.attaches_per_second_per_uid=100000",
					 NULL,
					 NULL};

	settings[6] = idle;
	return settings;
}

/* riptidectl; its exit status, both outputs in `answer`. */
static int ctl(const struct fixture *f, const char *arguments)
{
	const char *build = getenv("RIPTIDE_BUILD_DIR");
	char command[2048];
	size_t length;
	FILE *pipe;
	int status;

	snprintf(command, sizeof(command), "RIPTIDE_SOCKET=%s %s/riptidectl tenant %s 2>&1", f->agent.socket,
		 build ? build : "build", arguments);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	length = fread(answer, 1, sizeof(answer) - 1, pipe);
	answer[length] = '\0';
	status = pclose(pipe);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* ---- records ------------------------------------------------------------------------------------------------- */

static void operators_create_show_change_and_list_tenants(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(ctl(f, "create acme '{\"plan\": \"basic\", \"quotas\": {\"memory_bytes\": 4194304}}'"), 0);
	assert_int_equal(ctl(f, "get acme"), 0);
	assert_said("\"plan\":\"basic\"");
	assert_said("\"status\":\"active\"");
	assert_said("4194304");
	assert_int_not_equal(ctl(f, "create acme"), 0);
	assert_said("acme");
	assert_int_equal(ctl(f, "update acme '{\"name\": \"Acme Inc.\", \"plan\": \"enterprise\"}'"), 0);
	assert_int_equal(ctl(f, "get acme"), 0);
	assert_said("Acme Inc.");
	assert_said("enterprise");
	assert_int_not_equal(ctl(f, "update acme '{\"qoutas\": {}}'"), 0);
	assert_said("\"qoutas\" is nothing that a tenant can be given");
	assert_int_not_equal(ctl(f, "update acme '{\"id\": \"other\"}'"), 0);
	assert_int_equal(ctl(f, "create"), 0);
	assert_said("\"id\":\"t");
	assert_int_equal(ctl(f, "list"), 0);
	assert_said("acme");
	assert_said("Acme Inc.");
	assert_said("default");
	assert_int_equal(ctl(f, "suspend acme 'not paid'"), 0);
	assert_int_equal(ctl(f, "get acme"), 0);
	assert_said("suspended");
	assert_said("not paid");
	assert_int_equal(ctl(f, "disable acme"), 0);
	assert_said("disabled");
	assert_int_equal(ctl(f, "resume acme"), 0);
	assert_said("active");
	assert_int_not_equal(ctl(f, "delete acme"), 0);
	assert_said("--yes");
	assert_int_equal(ctl(f, "delete acme --yes"), 0);
	assert_said("deleted acme");
	assert_int_not_equal(ctl(f, "get acme"), 0);
	assert_int_not_equal(ctl(f, "resume acme"), 0);
}

static void what_is_wrong_with_a_document_is_told(void **state)
{
	static const struct {
		const char *json, *text;
	} wrong[] = {
		{"{\"id\": \"-\"}", "id"},
		{"{\"id\": \"Acme\"}", "id"},
		{"{\"id\": \"../../etc\"}", "id"},
		{"{\"id\": \"default\"}", "configuration"},
		{"{\"plan\": \"gold\"}", "plan"},
		{"{\"users\": [65534]}", "users"},
		{"{\"quotas\": {\"memory_bytes\": -1}}", "quotas"},
		{"{\"quotas\": {\"storage_bytes\": 5}}", "storage_bytes is not enforced"},
		{"{\"rate_limits\": {\"reads\": {\"limit\": 5}}}", "rate_limits"},
		{"{\"rate_limits\": {\"bytes\": {\"burst\": 5}}}", "rate_limits"},
		{"{\"encryption\": true}", "encryption"},
		{"{\"status\": \"active\"}", "status"},
		{"{\"id\": \"a\", \"id\": \"b\"}", "duplicate"},
		{"[]", "object"},
		{"{", "line 1"},
		{"", "line 1"},
	};
	struct fixture *f = both_fixture(state);

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_true(TENANT(&f->agent, CREATE, NULL, wrong[i].json) < 0);
		assert_said(wrong[i].text);
	}
	create(&f->agent, "acme", "");
	/* A misspelt member of a token would be a token that never ends. */
	assert_true(TENANT(&f->agent, TOKEN_CREATE, "acme", "{\"ttl\": 1}") < 0);
	assert_said("ttl");
	assert_true(TENANT(&f->agent, TOKEN_CREATE, "acme", "{\"ttl_seconds\": \"1\"}") < 0);
	assert_true(TENANT(&f->agent, TOKEN_CREATE, "acme", "{\"role\": 1}") < 0);
	assert_true(TENANT(&f->agent, TOKEN_CREATE, "acme", "{\"label\": 1}") < 0);
	assert_true(TENANT(&f->agent, SUSPEND, "acme", "{\"reason\": 1}") < 0);
	assert_true(TENANT(&f->agent, LIST, NULL, "{\"limit\": 0}") < 0);
	assert_true(TENANT(&f->agent, LIST, NULL, "{\"form\": \"a\"}") < 0);
	assert_done(TENANT(&f->agent, GET, "acme", NULL));
	assert_said("\"active\"");
}

static void tenants_are_bounded_and_listed_in_pages(void **state)
{
	struct fixture *f = both_fixture(state);
	char id[16];
	int made = 0;

	for (int i = 0; i < 20; i++) {
		snprintf(id, sizeof(id), "{\"id\": \"t%02d\"}", i);
		if (TENANT(&f->agent, CREATE, NULL, id) == RSHM_OK)
			made++;
		else
			assert_said("max_tenants");
	}
	assert_true(made == atoi(MAX_TENANTS) || made == atoi(MAX_TENANTS) - 1);
	assert_done(TENANT(&f->agent, LIST, NULL, "{\"limit\": 5}"));
	assert_said("\"t04\"");
	assert_null(strstr(answer, "\"t05\""));
	assert_said("\"next\":\"t04\"");
	assert_done(TENANT(&f->agent, LIST, NULL, "{\"limit\": 5, \"after\": \"t04\"}"));
	assert_said("\"t05\"");
	assert_null(strstr(answer, "\"t04\",\"name"));
	/* A place is free again when one is deleted. */
	assert_done(TENANT(&f->agent, DELETE, "t03", NULL));
	create(&f->agent, "another", "");
}

/* ---- suspended, resumed, deleted ------------------------------------------------------------------------------- */

static void hot_reads_end_with_the_suspend_command_and_return_with_resume(void **state)
{
	struct fixture *f = both_fixture(state);
	struct reader reader;
	riptide *handle;

	create(&f->agent, "acme", "");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	assert_int_equal(e2e_put(handle, "other", "data"), RIPTIDE_OK);
	reader_start(&reader, &f->agent, "acme");
	for (int i = 0; i < 5; i++) {
		uint64_t answered_us;
		int status;

		make_hot(handle, "k", "v");
		assert_done(TENANT(&f->agent, SUSPEND, "acme", "{\"reason\": \"not paid\"}"));
		answered_us = now_us();
		/* No read that begins now gives a value. */
		assert_int_not_equal(e2e_check(handle, "k", "v", NULL), RIPTIDE_OK);
		e2e_pause_ms(300);
		assert_true(reader.reading->last_began_us <= answered_us);
		assert_true(reader.reading->failures > 0);
		status = e2e_check(handle, "k", "v", NULL);
		assert_int_equal(status, RIPTIDE_EDENIED);
		riptide_last_error(handle, answer, sizeof(answer));
		assert_said("suspended: not paid");
		assert_int_equal(e2e_put(handle, "k", "w"), RIPTIDE_EDENIED);
		assert_int_equal(try_open(&f->agent, "acme", NULL), RIPTIDE_EDENIED);
		assert_said("suspended: not paid");
		assert_done(TENANT(&f->agent, RESUME, "acme", NULL));
		assert_int_equal(e2e_await_check(handle, "k", "v", RIPTIDE_OK, 5000), RIPTIDE_OK);
		assert_int_equal(e2e_check(handle, "other", "data", NULL), RIPTIDE_OK);
		assert_true(reader_is_served(&reader, 5000));
	}
	reader_stop(&reader);
	riptide_close(&handle);
}

static void fill(riptide *handle, int count)
{
	const char *tags[] = {"news"};
	struct riptide_metadata metadata = {.tags = tags, .tag_count = 1};
	struct riptide_set_options options = {.size = sizeof(options), .metadata = &metadata};
	char key[600];

	for (int i = 0; i < count; i++) {
		/* Long keys are stored under their hash. */
		int length = snprintf(key, sizeof(key), "%0*d", i % 10 == 0 ? 500 : 8, i);

		options.write_mode = i % 3 ? RIPTIDE_WRITE_THROUGH : RIPTIDE_WRITE_BEHIND;
		assert_int_equal(riptide_set(handle, key, (size_t)length, "value", 5, &options, NULL), RIPTIDE_OK);
	}
	assert_int_equal(riptide_invalidate_tag(handle, "none"), RIPTIDE_OK);
}

static void a_deleted_tenant_leaves_nothing_and_begins_empty(void **state)
{
	struct fixture *f = both_fixture(state);
	struct reader reader;
	riptide *acme, *other;

	create(&f->agent, "acme", "");
	create(&f->agent, "acme-2", "");
	acme = open_tenant(&f->agent, "acme");
	other = open_tenant(&f->agent, "acme-2");
	fill(acme, 300);
	assert_int_equal(riptide_clear(acme), RIPTIDE_OK);
	fill(acme, 300);
	fill(other, 100);
	assert_int_equal(e2e_put(acme, "k", "v"), RIPTIDE_OK);
	assert_int_equal(riptide_flush(other), RIPTIDE_OK);
	if (f->redis) {
		assert_true(server_keys(&f->server, "acme") > 100);
		assert_true(server_keys(&f->server, "acme-2") > 100);
	}
	reader_start(&reader, &f->agent, "acme");
	assert_done(TENANT(&f->agent, DELETE, "acme", NULL));
	assert_int_not_equal(e2e_check(acme, "k", "v", NULL), RIPTIDE_OK);
	assert_int_equal(try_open(&f->agent, "acme", NULL), RIPTIDE_ENOTENANT);
	reader_stop(&reader);
	if (f->redis) {
		/* All that stays is the number of its generation, so that what is written late is never found. */
		if (server_keys(&f->server, "acme") != 1)
			fail_msg("left: %s", answer);
		assert_said("{acme.0}:n");
		assert_true(server_keys(&f->server, "acme-2") > 100);
	}
	create(&f->agent, "acme", "");
	riptide_close(&acme);
	acme = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_check(acme, "k", "v", NULL), RIPTIDE_MISS);
	assert_int_equal(e2e_check(acme, "00000001", "value", NULL), RIPTIDE_MISS);
	assert_int_equal(e2e_check(other, "00000001", "value", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_put(acme, "k", "new"), RIPTIDE_OK);
	assert_int_equal(e2e_check(acme, "k", "new", NULL), RIPTIDE_OK);
	/* Nothing of it comes back from a journal or a file. */
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_await_check(acme, "k", "new", RIPTIDE_OK, 10000), RIPTIDE_OK);
	assert_int_equal(e2e_check(acme, "00000001", "value", NULL), RIPTIDE_MISS);
	assert_int_equal(e2e_await_check(other, "00000001", "value", RIPTIDE_OK, 10000), RIPTIDE_OK);
	riptide_close(&acme);
	riptide_close(&other);
}

/* ---- tokens ----------------------------------------------------------------------------------------------------- */

/* Makes a token; its text and its id. */
static void make_token(struct fixture *f, const char *json, char token[64], char id[16])
{
	char *at;

	assert_done(TENANT(&f->agent, TOKEN_CREATE, "acme", json));
	at = strstr(answer, "\"rt_");
	assert_non_null(at);
	snprintf(token, 64, "%.59s", at + 1);
	snprintf(id, 16, "%.12s", at + 4);
	assert_int_equal(strlen(token), 59);
}

static riptide *open_with(struct fixture *f, const char *token)
{
	struct riptide_options options = {
		.size = sizeof(options),
		.socket = f->agent.socket,
		.tenant = "acme",
		.token = token,
		.token_length = strlen(token),
		.timeout_ms = 2000,
	};
	riptide *handle;

	assert_int_equal(riptide_open(&options, &handle), RIPTIDE_OK);
	return handle;
}

/* Whether the agent still serves the handle: a key that is nowhere is always asked for. */
static int ask_agent(riptide *handle)
{
	size_t length;
	char byte;

	return riptide_get_into(handle, "nowhere", 7, &byte, 1, &length, NULL);
}

static void who_is_in_by_a_token_is_out_when_it_expires(void **state)
{
	struct fixture *f = both_fixture(state);
	char brief[64], lasting[64], id[16];
	struct riptide_info info;
	riptide *guest, *tenant;
	uint64_t until_ms;
	int status;

	create(&f->agent, "acme", "\"token_required\": true");
	make_token(f, "{}", lasting, id);
	make_token(f, "{\"ttl_seconds\": 2}", brief, id);
	guest = open_with(f, brief);
	tenant = open_with(f, lasting);
	assert_int_equal(e2e_put(tenant, "k", "v"), RIPTIDE_OK);
	make_hot(tenant, "k", "v");
	assert_int_equal(ask_agent(guest), RIPTIDE_MISS);
	until_ms = e2e_now_ms() + 10000;
	do {
		e2e_pause_ms(50);
		status = ask_agent(guest);
	} while (status == RIPTIDE_MISS && e2e_now_ms() < until_ms);
	assert_int_equal(status, RIPTIDE_EDENIED);
	/* Nobody else noticed: not even the hot copies are gone. */
	assert_int_equal(e2e_check(tenant, "k", "v", &info), RIPTIDE_OK);
	assert_int_equal(info.flags, RIPTIDE_HOT);
	assert_int_equal(ask_agent(tenant), RIPTIDE_MISS);
	riptide_close(&guest);
	riptide_close(&tenant);
}

static void tokens_let_in_until_they_are_revoked_or_expired(void **state)
{
	struct fixture *f = both_fixture(state);
	char first[64], second[64], rotated[64], id[16], json[96];
	riptide *handle;

	create(&f->agent, "acme", "\"token_required\": true");
	assert_int_equal(try_open(&f->agent, "acme", NULL), RIPTIDE_EDENIED);
	assert_said("a token is required");
	assert_int_equal(try_open(&f->agent, "acme", "rt_nonsense"), RIPTIDE_EDENIED);
	make_token(f, "{\"ttl_seconds\": 1}", second, id);
	assert_int_equal(try_open(&f->agent, "acme", second), RIPTIDE_OK);
	make_token(f, "{\"label\": \"web\"}", first, id);
	assert_int_equal(try_open(&f->agent, "acme", first), RIPTIDE_OK);
	first[58] = first[58] == 'A' ? 'E' : 'A';
	assert_int_equal(try_open(&f->agent, "acme", first), RIPTIDE_EDENIED);
	assert_said("not accepted");
	e2e_pause_ms(1100);
	assert_int_equal(try_open(&f->agent, "acme", second), RIPTIDE_EDENIED);
	make_token(f, "{}", first, id);
	/* The old one is good for a while. */
	snprintf(json, sizeof(json), "{\"token\": \"%s\", \"grace_seconds\": 1}", id);
	assert_done(TENANT(&f->agent, TOKEN_ROTATE, "acme", json));
	snprintf(rotated, sizeof(rotated), "%.59s", strstr(answer, "\"rt_") + 1);
	assert_int_equal(try_open(&f->agent, "acme", first), RIPTIDE_OK);
	handle = open_with(f, rotated);
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	e2e_pause_ms(1100);
	assert_int_equal(try_open(&f->agent, "acme", first), RIPTIDE_EDENIED);
	make_hot(handle, "k", "v");
	/* Revoked is at once, also for who is in. */
	snprintf(json, sizeof(json), "{\"token\": \"%s\"}", id);
	assert_done(TENANT(&f->agent, TOKEN_REVOKE, "acme", json));
	assert_int_not_equal(e2e_check(handle, "k", "v", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_await_check(handle, "k", "v", RIPTIDE_EDENIED, 5000), RIPTIDE_EDENIED);
	assert_int_equal(try_open(&f->agent, "acme", rotated), RIPTIDE_EDENIED);
	assert_done(TENANT(&f->agent, TOKENS, "acme", NULL));
	assert_said("\"revoked\":true");
	assert_null(strstr(answer, "hash"));
	assert_null(strstr(answer, first + 16));
	riptide_close(&handle);
	/* Neither secret is in the log. */
	assert_false(agent_process_log_has(&f->agent, first + 16));
	assert_false(agent_process_log_has(&f->agent, rotated + 16));
}

static void a_read_only_token_reads_and_changes_nothing(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_item item = {.key = "k", .key_length = 1, .value = "w", .value_length = 1};
	char token[64], id[16];
	riptide *writer, *reader;
	uint64_t removed;

	create(&f->agent, "acme", "");
	make_token(f, "{\"role\": \"read_only\"}", token, id);
	writer = open_tenant(&f->agent, "acme");
	reader = open_with(f, token);
	assert_int_equal(e2e_put(writer, "k", "v"), RIPTIDE_OK);
	make_hot(reader, "k", "v");
	assert_int_equal(riptide_exists(reader, "k", 1, NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(reader, "none", "v", NULL), RIPTIDE_MISS);
	assert_int_equal(e2e_put(reader, "k", "w"), RIPTIDE_EDENIED);
	assert_int_equal(riptide_delete(reader, "k", 1), RIPTIDE_EDENIED);
	assert_int_equal(riptide_touch(reader, "k", 1, 1), RIPTIDE_EDENIED);
	assert_int_equal(riptide_incr(reader, "n", 1, 1, NULL, NULL), RIPTIDE_EDENIED);
	assert_int_equal(riptide_cas(reader, "k", 1, 0, "w", 1, NULL, NULL), RIPTIDE_EDENIED);
	assert_int_equal(riptide_invalidate_tag(reader, "t"), RIPTIDE_EDENIED);
	assert_int_equal(riptide_invalidate_prefix(reader, "k", 1, &removed), RIPTIDE_EDENIED);
	assert_int_equal(riptide_clear(reader), RIPTIDE_EDENIED);
	(void)riptide_set_batch(reader, &item, 1);
	assert_int_equal(item.status, RIPTIDE_EDENIED);
	(void)riptide_delete_batch(reader, &item, 1);
	assert_int_equal(item.status, RIPTIDE_EDENIED);
	assert_int_equal(e2e_check(reader, "k", "v", NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(writer, "k", "v", NULL), RIPTIDE_OK);
	riptide_close(&reader);
	riptide_close(&writer);
}

/* ---- users ------------------------------------------------------------------------------------------------------ */

struct visit {
	struct fixture *fixture;
	uid_t uid;
	const char *tenant;
	char *text; /* shared: what was said */
	int status; /* wanted */
};

static int visit_main(void *context)
{
	const struct visit *visit = context;

	if (setgroups(0, NULL) < 0 || setresgid(visit->uid, visit->uid, visit->uid) < 0 ||
	    setresuid(visit->uid, visit->uid, visit->uid) < 0)
		return 250;
	if (try_open(&visit->fixture->agent, visit->tenant, NULL) != visit->status)
		return 1;
	snprintf(visit->text, 400, "%.399s", answer);
	return 0;
}

/* A process of that user opens the tenant and gets this status; what it was told stands in `text`. */
static void visit_as(struct fixture *f, uid_t uid, const char *tenant, int status, char *text)
{
	struct visit visit = {.fixture = f, .uid = uid, .tenant = tenant, .text = text, .status = status};

	assert_int_equal(e2e_join(e2e_fork(visit_main, &visit), 15000), 0);
}

/* Both have four characters. */
static void assert_same_but_for_the_name(char *one, const char *name, const char *other, const char *other_name)
{
	assert_non_null(strstr(one, name));
	for (char *at; (at = strstr(one, name)) != NULL;)
		memcpy(at, other_name, strlen(other_name));
	assert_string_equal(one, other);
}

static void only_its_users_are_told_that_a_tenant_is_there(void **state)
{
	struct fixture *f = both_fixture(state);
	char *text = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
	     *unknown = text + 1024;

	if (geteuid() != 0)
		skip();
	create(&f->agent, "acme", "\"users\": [1]");
	create(&f->agent, "named", "\"users\": [\"bin\", \"no-such-user\"]");
	visit_as(f, RED, "acme", RIPTIDE_OK, text);
	visit_as(f, BLUE, "named", RIPTIDE_OK, text);
	visit_as(f, BLUE, "nope", RIPTIDE_ENOTENANT, unknown);
	visit_as(f, BLUE, "acme", RIPTIDE_ENOTENANT, text);
	assert_same_but_for_the_name(text, "acme", unknown, "nope");
	/* Nor that it is suspended. */
	assert_done(TENANT(&f->agent, SUSPEND, "acme", "{\"reason\": \"secret\"}"));
	visit_as(f, RED, "acme", RIPTIDE_EDENIED, text);
	assert_non_null(strstr(text, "suspended: secret"));
	visit_as(f, BLUE, "acme", RIPTIDE_ENOTENANT, text);
	assert_same_but_for_the_name(text, "acme", unknown, "nope");
	assert_done(TENANT(&f->agent, DISABLE, "acme", NULL));
	visit_as(f, BLUE, "acme", RIPTIDE_ENOTENANT, text);
	assert_same_but_for_the_name(text, "acme", unknown, "nope");
	munmap(text, 4096);
}

static void a_user_who_may_not_opens_no_segment(void **state)
{
	struct fixture *f = both_fixture(state);
	char *text = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int objects = e2e_objects(&f->agent);

	if (geteuid() != 0)
		skip();
	create(&f->agent, "acme", "\"users\": [1]");
	visit_as(f, BLUE, "acme", RIPTIDE_ENOTENANT, text);
	assert_int_equal(e2e_objects(&f->agent), objects);
	visit_as(f, RED, "acme", RIPTIDE_OK, text);
	assert_int_equal(e2e_objects(&f->agent), objects + 1);
	munmap(text, 4096);
}

/* A process of another user that has the tenant open and reads. */
struct stay {
	struct fixture *fixture;
	uid_t uid;
	struct {
		volatile uint32_t hot, stop;
		volatile int64_t status;
		volatile uint64_t last_began_us; /* of a read that gave the value */
	} * seen;
};

static int stay_main(void *context)
{
	const struct stay *stay = context;
	riptide *handle;

	if (setgroups(0, NULL) < 0 || setresgid(stay->uid, stay->uid, stay->uid) < 0 ||
	    setresuid(stay->uid, stay->uid, stay->uid) < 0)
		return 250;
	if (e2e_open(&stay->fixture->agent, "acme", 1000, &handle) != RIPTIDE_OK)
		return 1;
	while (!stay->seen->stop) {
		struct riptide_info info = {.flags = 0};

		uint64_t began_us = now_us();

		stay->seen->status = e2e_check(handle, "k", "v", &info);
		if (stay->seen->status == RIPTIDE_OK)
			stay->seen->last_began_us = began_us;
		stay->seen->hot += (info.flags & RIPTIDE_HOT) != 0;
		e2e_pause_ms(1);
	}
	riptide_close(&handle);
	return 0;
}

static bool await_status(const struct stay *stay, int status)
{
	uint64_t until_ms = e2e_now_ms() + 8000;

	while (stay->seen->status != status && e2e_now_ms() < until_ms)
		e2e_pause_ms(2);
	return stay->seen->status == status;
}

static void a_change_of_users_is_felt_by_who_is_in(void **state)
{
	struct fixture *f = both_fixture(state);
	char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct stay stay = {.fixture = f, .uid = RED, .seen = (void *)(shared + 2048)};
	uint64_t answered_us;
	uint32_t hot;
	riptide *handle;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	create(&f->agent, "acme", "\"users\": [1]");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	stay.seen->status = 1;
	pid = e2e_fork(stay_main, &stay);
	assert_true(await_status(&stay, RIPTIDE_OK));
	visit_as(f, BLUE, "acme", RIPTIDE_ENOTENANT, shared);
	/* Closed, and let in again. */
	assert_done(TENANT(&f->agent, UPDATE, "acme", "{\"users\": [\"2\", 1]}"));
	visit_as(f, BLUE, "acme", RIPTIDE_OK, shared);
	hot = stay.seen->hot;
	for (int i = 0; i < 4000 && stay.seen->hot < hot + 20; i++)
		e2e_pause_ms(2);
	assert_true(stay.seen->hot >= hot + 20);
	/* Closed, and refused, while others go on. */
	assert_done(TENANT(&f->agent, UPDATE, "acme", "{\"users\": [2]}"));
	answered_us = now_us();
	assert_true(await_status(&stay, RIPTIDE_ENOTENANT));
	assert_true(stay.seen->last_began_us <= answered_us);
	visit_as(f, BLUE, "acme", RIPTIDE_OK, shared);
	make_hot(handle, "k", "v");
	stay.seen->stop = 1;
	assert_int_equal(e2e_join(pid, 10000), 0);
	riptide_close(&handle);
	munmap(shared, 4096);
}

/* ---- without shared memory -------------------------------------------------------------------------------------- */

static int mapped_segments(const struct fixture *f)
{
	char line[512], name[64];
	FILE *maps = fopen("/proc/self/maps", "re");
	int count = 0;

	snprintf(name, sizeof(name), "riptide.%s.", f->agent.instance);
	while (fgets(line, sizeof(line), maps))
		count += strstr(line, name) != NULL;
	fclose(maps);
	return count;
}

static void a_tenant_without_hot_reads_maps_no_segment(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_info info = {.flags = 0};
	int before = mapped_segments(f), warm;
	riptide *handle;

	create(&f->agent, "warm", "");
	handle = open_tenant(&f->agent, "warm");
	warm = mapped_segments(f) - before;
	riptide_close(&handle);
	assert_int_equal(mapped_segments(f), before);
	create(&f->agent, "cold", "\"hot\": false");
	handle = open_tenant(&f->agent, "cold");
	/* The agent object, which the other handle has mapped, too, and no more. */
	assert_true(mapped_segments(f) - before < warm);
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(e2e_check(handle, "k", "v", &info), RIPTIDE_OK);
		assert_int_equal(info.flags & RIPTIDE_HOT, 0);
	}
	assert_done(TENANT(&f->agent, UPDATE, "cold", "{\"hot\": true}"));
	make_hot(handle, "k", "v");
	assert_done(TENANT(&f->agent, UPDATE, "cold", "{\"hot\": false}"));
	for (int i = 0; i < 50; i++) {
		assert_int_equal(e2e_await_check(handle, "k", "v", RIPTIDE_OK, 3000), RIPTIDE_OK);
		assert_int_equal(e2e_check(handle, "k", "v", &info), RIPTIDE_OK);
		assert_int_equal(info.flags & RIPTIDE_HOT, 0);
	}
	riptide_close(&handle);
}

/* ---- restarts, idleness ------------------------------------------------------------------------------------------ */

static void a_killed_agents_segments_are_adopted(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_info info = {.flags = 0};
	int objects, adopted = 0;
	riptide *handle;

	create(&f->agent, "acme", "");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	make_hot(handle, "k", "v");
	objects = e2e_objects(&f->agent);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_true(e2e_await_trust(&f->agent));
	/* What is in shared memory has outlived the agent: the first read that is let in finds it there. */
	for (int i = 0; i < 2000 && !adopted; i++) {
		int status = e2e_check(handle, "k", "v", &info);

		assert_true(status == RIPTIDE_OK || riptide_error_is_retryable(status) || status == RIPTIDE_ENOAGENT);
		adopted = status == RIPTIDE_OK;
		e2e_pause_ms(2);
	}
	assert_true(adopted);
	assert_int_equal(info.flags & RIPTIDE_HOT, RIPTIDE_HOT);
	riptide_close(&handle);
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_check(handle, "k", "v", &info), RIPTIDE_OK);
	assert_int_equal(info.flags & RIPTIDE_HOT, RIPTIDE_HOT);
	make_hot(handle, "k", "v");
	assert_int_equal(e2e_objects(&f->agent), objects);
	riptide_close(&handle);
}

static void tenants_are_there_after_a_kill_in_whatever_state(void **state)
{
	struct fixture *f = both_fixture(state);

	create(&f->agent, "active", "\"token_required\": true");
	create(&f->agent, "suspended", "");
	assert_done(TENANT(&f->agent, SUSPEND, "suspended", "{\"reason\": \"x\"}"));
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(try_open(&f->agent, "active", NULL), RIPTIDE_EDENIED);
	assert_said("token");
	assert_int_equal(try_open(&f->agent, "suspended", NULL), RIPTIDE_EDENIED);
	assert_said("suspended: x");
	assert_done(TENANT(&f->agent, RESUME, "suspended", NULL));
	assert_int_equal(try_open(&f->agent, "suspended", NULL), RIPTIDE_OK);
}

static void an_idle_tenant_gives_its_segment_back(void **state)
{
	struct fixture *f = both_fixture(state);
	int objects = e2e_objects(&f->agent);
	riptide *handle;

	create(&f->agent, "acme", "");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	assert_int_equal(e2e_objects(&f->agent), objects + 1);
	/* While somebody has it open it stays. */
	e2e_pause_ms(2500);
	make_hot(handle, "k", "v");
	assert_int_equal(e2e_objects(&f->agent), objects + 1);
	riptide_close(&handle);
	for (int i = 0; i < 500 && e2e_objects(&f->agent) > objects; i++)
		e2e_pause_ms(10);
	assert_int_equal(e2e_objects(&f->agent), objects);
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_check(handle, "k", "v", NULL), RIPTIDE_OK);
	riptide_close(&handle);
}

static int make_idle_short(void **state)
{
	(void)state;
	idle = "tenancy.idle_seconds=1";
	return 0;
}

/* ---- the library -------------------------------------------------------------------------------------------------- */

static void assert_member(char **json, const char *text)
{
	assert_non_null(*json);
	if (!strstr(*json, text))
		fail_msg("%s is not in %s", text, *json);
	free(*json);
	*json = NULL;
}

static void the_library_does_what_operators_do(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *h = f->handle, *tenant;
	char *json = NULL, why[400];

	assert_int_equal(riptide_tenant_create(h, "{\"id\": \"lib\", \"name\": \"Library\"}", &json), RIPTIDE_OK);
	assert_member(&json, "\"Library\"");
	assert_int_equal(riptide_tenant_create(h, "{\"id\": \"lib\"}", &json), RIPTIDE_EINVALID);
	assert_true(riptide_last_error(h, why, sizeof(why)) != 0);
	assert_non_null(strstr(why, "already"));
	assert_int_equal(riptide_tenant_create(h, "{\"nme\": \"x\"}", NULL), RIPTIDE_EINVALID);
	(void)riptide_last_error(h, why, sizeof(why));
	assert_non_null(strstr(why, "nme"));
	assert_int_equal(riptide_tenant_list(h, "{\"limit\": 10}", &json), RIPTIDE_OK);
	assert_member(&json, "\"lib\"");
	assert_int_equal(riptide_tenant_update(h, "lib", "{\"plan\": \"basic\"}", NULL), RIPTIDE_OK);
	assert_int_equal(riptide_tenant_get(h, "lib", &json), RIPTIDE_OK);
	assert_member(&json, "\"basic\"");
	assert_int_equal(e2e_open(&f->agent, "lib", 5000, &tenant), RIPTIDE_OK);
	assert_int_equal(e2e_put(tenant, "k", "v"), RIPTIDE_OK);
	assert_int_equal(riptide_tenant_suspend(h, "lib", "late \"payment\"\\\n"), RIPTIDE_OK);
	assert_int_not_equal(e2e_check(tenant, "k", "v", NULL), RIPTIDE_OK);
	assert_int_equal(riptide_tenant_get(h, "lib", &json), RIPTIDE_OK);
	assert_member(&json, "late \\\"payment\\\"");
	assert_int_equal(riptide_tenant_resume(h, "lib"), RIPTIDE_OK);
	assert_int_equal(e2e_await_check(tenant, "k", "v", RIPTIDE_OK, 5000), RIPTIDE_OK);
	assert_int_equal(riptide_tenant_delete(h, "lib", &json), RIPTIDE_OK);
	assert_member(&json, "\"entries\":1");
	assert_int_equal(riptide_tenant_get(h, "lib", NULL), RIPTIDE_ENOTENANT);
	assert_int_equal(
		riptide_tenant_resume(h, "a-name-that-is-much-longer-than-sixty-four-characters-which-is-the-most"),
		RIPTIDE_EINVALID);
	riptide_close(&tenant);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		BOTH_STORES(the_library_does_what_operators_do),
		BOTH_STORES(operators_create_show_change_and_list_tenants),
		BOTH_STORES(what_is_wrong_with_a_document_is_told),
		BOTH_STORES(tenants_are_bounded_and_listed_in_pages),
		BOTH_STORES(hot_reads_end_with_the_suspend_command_and_return_with_resume),
		BOTH_STORES(a_deleted_tenant_leaves_nothing_and_begins_empty),
		BOTH_STORES(tokens_let_in_until_they_are_revoked_or_expired),
		BOTH_STORES(who_is_in_by_a_token_is_out_when_it_expires),
		BOTH_STORES(a_read_only_token_reads_and_changes_nothing),
		BOTH_STORES(only_its_users_are_told_that_a_tenant_is_there),
		BOTH_STORES(a_user_who_may_not_opens_no_segment),
		BOTH_STORES(a_change_of_users_is_felt_by_who_is_in),
		BOTH_STORES(a_tenant_without_hot_reads_maps_no_segment),
		BOTH_STORES(a_killed_agents_segments_are_adopted),
		BOTH_STORES(tenants_are_there_after_a_kill_in_whatever_state),
	};
	static const struct CMUnitTest idle_tests[] = {BOTH_STORES(an_idle_tenant_gives_its_segment_back)};

	return cmocka_run_group_tests(tests, NULL, NULL) + cmocka_run_group_tests(idle_tests, make_idle_short, NULL);
}
