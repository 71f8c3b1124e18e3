/*
 * access_test.c - a tenant's rules, on both stores: each operation asked and refused before it has an effect, what a caller is
 * told, and who may administer tenants.
 */
#include <grp.h>
#include <sys/wait.h>

#include "tests/e2e/both_stores.h"
#include "tests/e2e/tenants.h"

#define RED 1
#define BLUE 2

static const char *const *both_settings(void)
{
	/* A group of Debian's that has no members. */
	static const char *settings[] = {"agent.workers=2",
					 "cache.segment_initial_bytes=1M",
					 "cache.max_memory_bytes=64M",
					 "limits.attaches_per_second_per_uid=100000",
					 "tenancy.administrators=sys",
					 "tenancy.default_data_transfer_bytes=1T",
					 NULL};

	return settings;
}

#define ALLOW(resource, actions) "{\"resource\": \"" resource "\", \"actions\": [" actions "], \"effect\": \"allow\"}"
#define DENY(name, resource, actions) \
	"{\"name\": \"" name "\", \"resource\": \"" resource "\", \"actions\": [" actions "], \"effect\": \"deny\"}"

static struct riptide_access ask(riptide *handle, const char *resource, const char *action)
{
	struct riptide_access access;

	assert_int_equal(riptide_validate_access(handle, resource, strlen(resource), action, &access), RIPTIDE_OK);
	return access;
}

static int get(riptide *handle, const char *key)
{
	char value[64];
	size_t length;

	return riptide_get_into(handle, key, strlen(key), value, sizeof(value), &length, NULL);
}

static void assert_why(riptide *handle, const char *text)
{
	(void)riptide_last_error(handle, answer, sizeof(answer));
	assert_said(text);
}

/* ---- single operations ----------------------------------------------------------------------------------------- */

static void without_rules_everything_is_allowed(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_access access;
	riptide *handle;

	create(&f->agent, "acme", "");
	handle = open_tenant(&f->agent, "acme");
	access = ask(handle, "anything", "read");
	assert_int_equal(access.allowed, 1);
	assert_string_equal(access.rule, "");
	assert_int_equal(ask(handle, "", "publish").allowed, 1);
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	make_hot(handle, "k", "v");
	assert_int_equal(riptide_validate_access(handle, "k", 1, "", &access), RIPTIDE_EINVALID);
	assert_int_equal(riptide_validate_access(handle, "k", 1, NULL, &access), RIPTIDE_EINVALID);
	assert_int_equal(riptide_validate_access(handle, "k", 1,
						 "a-name-that-is-longer-than-any-action-may-be-by-itself", &access),
			 RIPTIDE_EINVALID);
	riptide_close(&handle);
}

static void each_operation_is_asked_before_it_does_anything(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *free_hands, *handle;
	int64_t number;
	uint64_t ttl_ms;

	create(&f->agent, "acme", "");
	free_hands = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(free_hands, "secret:1", "v"), RIPTIDE_OK);
	assert_int_equal(e2e_put(free_hands, "open:1", "v"), RIPTIDE_OK);
	assert_int_equal(riptide_incr(free_hands, "open:n", 6, 3, NULL, NULL), RIPTIDE_OK);
	assert_done(TENANT(&f->agent, UPDATE, "acme",
			   "{\"policies\": [" ALLOW("open:*", "\"read\", \"write\", \"delete\"") ", " DENY(
				   "no secrets", "secret:*", "\"*\"") "]}"));
	riptide_close(&free_hands);
	handle = open_tenant(&f->agent, "acme");
	/* Allowed. */
	assert_int_equal(get(handle, "open:1"), RIPTIDE_OK);
	assert_int_equal(e2e_put(handle, "open:2", "v"), RIPTIDE_OK);
	assert_int_equal(riptide_incr(handle, "open:n", 6, 1, NULL, &number), RIPTIDE_OK);
	assert_int_equal(number, 4);
	assert_int_equal(riptide_ttl(handle, "open:1", 6, &ttl_ms), RIPTIDE_OK);
	assert_int_equal(riptide_touch(handle, "open:1", 6, 100000), RIPTIDE_OK);
	assert_int_equal(riptide_delete(handle, "open:2", 6), RIPTIDE_OK);
	/* Denied by name. */
	assert_int_equal(get(handle, "secret:1"), RIPTIDE_EDENIED);
	assert_why(handle, "rule \"no secrets\" denies to read it");
	assert_int_equal(e2e_put(handle, "secret:1", "w"), RIPTIDE_EDENIED);
	assert_int_equal(riptide_incr(handle, "secret:n", 8, 1, NULL, &number), RIPTIDE_EDENIED);
	assert_int_equal(riptide_ttl(handle, "secret:1", 8, &ttl_ms), RIPTIDE_EDENIED);
	assert_int_equal(riptide_touch(handle, "secret:1", 8, 1), RIPTIDE_EDENIED);
	assert_int_equal(riptide_delete(handle, "secret:1", 8), RIPTIDE_EDENIED);
	assert_int_equal(riptide_cas(handle, "secret:1", 8, 0, "w", 1, NULL, NULL), RIPTIDE_EDENIED);
	/* Denied by silence. */
	assert_int_equal(get(handle, "other"), RIPTIDE_EDENIED);
	assert_why(handle, "no rule of the tenant allows to read it");
	/* What may meet a key that is denied is denied. */
	assert_int_equal(riptide_clear(handle), RIPTIDE_EDENIED);
	assert_int_equal(riptide_invalidate_prefix(handle, "", 0, NULL), RIPTIDE_EDENIED);
	assert_int_equal(riptide_invalidate_prefix(handle, "sec", 3, NULL), RIPTIDE_EDENIED);
	assert_int_equal(riptide_invalidate_tag(handle, "t"), RIPTIDE_EDENIED);
	assert_int_equal(riptide_invalidate_prefix(handle, "open:", 5, NULL), RIPTIDE_OK);
	assert_int_equal(get(handle, "open:1"), RIPTIDE_MISS);
	/* What is about no key is free. */
	assert_int_equal(riptide_ping(handle, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_flush(handle), RIPTIDE_OK);
	riptide_close(&handle);
	/* Nothing of what was refused has happened. */
	assert_done(TENANT(&f->agent, UPDATE, "acme", "{\"policies\": []}"));
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_await_check(handle, "secret:1", "v", RIPTIDE_OK, 5000), RIPTIDE_OK);
	assert_int_equal(get(handle, "secret:n"), RIPTIDE_MISS);
	riptide_close(&handle);
}

static int load_nothing(void *context, const void *key, size_t key_length, struct riptide_loaded *ret)
{
	(void)key;
	(void)key_length;
	++*(int *)context;
	*ret = (struct riptide_loaded){.data = "made", .length = 4};
	return RIPTIDE_OK;
}

static void a_fetch_needs_both_to_read_and_to_write(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_value value;
	riptide *handle;
	int loads = 0;

	create(&f->agent, "acme", "\"policies\": [" ALLOW("*", "\"read\"") ", " ALLOW("made:*", "\"write\"") "]");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(riptide_fetch(handle, "made:1", 6, load_nothing, &loads, NULL, &value), RIPTIDE_OK);
	assert_int_equal(loads, 1);
	riptide_value_free(&value);
	assert_int_equal(riptide_fetch(handle, "other", 5, load_nothing, &loads, NULL, &value), RIPTIDE_EDENIED);
	assert_int_equal(loads, 1);
	riptide_close(&handle);
}

/* ---- batches and warming ------------------------------------------------------------------------------------------- */

static void items_that_are_denied_leave_the_others_alone(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_item items[3] = {
		{.key = "open:1", .key_length = 6, .value = "a", .value_length = 1},
		{.key = "secret:1", .key_length = 8, .value = "b", .value_length = 1},
		{.key = "open:2", .key_length = 6, .value = "c", .value_length = 1},
	};
	struct riptide_warmed warmed;
	riptide *handle;

	create(&f->agent, "acme", "\"policies\": [" ALLOW("open:*", "\"*\"") ", " ALLOW("secret:*", "\"admin\"") "]");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(riptide_set_batch(handle, items, 3), RIPTIDE_OK);
	assert_int_equal(items[0].status, RIPTIDE_OK);
	assert_int_equal(items[1].status, RIPTIDE_EDENIED);
	assert_int_equal(items[2].status, RIPTIDE_OK);
	assert_int_equal(riptide_get_batch(handle, items, 3), RIPTIDE_OK);
	assert_int_equal(items[0].status, RIPTIDE_OK);
	assert_int_equal(items[1].status, RIPTIDE_EDENIED);
	assert_int_equal(items[2].status, RIPTIDE_OK);
	assert_memory_equal(items[2].result.data, "c", 2);
	riptide_batch_free(items, 3);
	assert_int_equal(riptide_warm(handle, items, 3, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.loaded, 2);
	assert_int_equal(warmed.failed, 1);
	/* All of them: nothing is left under way. */
	assert_int_equal(riptide_warm(handle, &items[1], 1, &warmed), RIPTIDE_OK);
	assert_int_equal(warmed.failed, 1);
	assert_int_equal(riptide_warm_prefix(handle, "secret:", 7, &warmed), RIPTIDE_EDENIED);
	assert_int_equal(riptide_warm_prefix(handle, "open:", 5, &warmed), RIPTIDE_OK);
	assert_int_equal(riptide_delete_batch(handle, items, 3), RIPTIDE_OK);
	assert_int_equal(items[1].status, RIPTIDE_EDENIED);
	assert_int_equal(items[2].status, RIPTIDE_OK);
	riptide_close(&handle);
}

/* ---- shared memory -------------------------------------------------------------------------------------------------- */

static void who_may_be_refused_a_read_maps_no_segment(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_info info;
	char value[8];
	riptide *handle;
	size_t length;

	create(&f->agent, "open", "\"policies\": [" ALLOW("*", "\"read\", \"write\"") "]");
	handle = open_tenant(&f->agent, "open");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	make_hot(handle, "k", "v");
	/* At once for who is in: from now on every read is asked about. */
	assert_done(TENANT(
		&f->agent, UPDATE, "open",
		"{\"policies\": [" ALLOW("*", "\"read\", \"write\"") ", " DENY("not k", "k", "\"read\"") "]}"));
	assert_int_equal(get(handle, "k"), RIPTIDE_EDENIED);
	assert_int_equal(e2e_put(handle, "l", "v"), RIPTIDE_OK);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(riptide_get_into(handle, "l", 1, value, sizeof(value), &length, &info), RIPTIDE_OK);
		assert_int_equal(info.flags & RIPTIDE_HOT, 0);
	}
	assert_done(TENANT(&f->agent, UPDATE, "open", "{\"policies\": null}"));
	assert_int_equal(e2e_await_check(handle, "k", "v", RIPTIDE_OK, 5000), RIPTIDE_OK);
	make_hot(handle, "k", "v");
	riptide_close(&handle);
}

/* ---- conditions ------------------------------------------------------------------------------------------------------ */

static void conditions_are_of_the_kernels_uid_the_clock_and_the_role(void **state)
{
	struct fixture *f = both_fixture(state);
	char json[400], token[64];
	struct riptide_options options = {.size = sizeof(options), .socket = f->agent.socket, .tenant = "acme"};
	uint64_t hour = (uint64_t)time(NULL) / 3600 % 24;
	riptide *handle;

	/* From an hour ago until in two hours; and the rest of the day. */
	snprintf(json, sizeof(json),
		 "\"policies\": ["
		 "{\"resource\": \"now\", \"actions\": [\"*\"], \"effect\": \"allow\", \"conditions\": "
		 "{\"time\": {\"from\": \"%02u:00\", \"to\": \"%02u:00\"}}}, "
		 "{\"resource\": \"later\", \"actions\": [\"*\"], \"effect\": \"allow\", \"conditions\": "
		 "{\"time\": {\"from\": \"%02u:00\", \"to\": \"%02u:00\"}}}",
		 (unsigned int)(hour + 23) % 24, (unsigned int)(hour + 2) % 24, (unsigned int)(hour + 2) % 24,
		 (unsigned int)(hour + 23) % 24);
	snprintf(json + strlen(json), sizeof(json) - strlen(json), "]");
	create(&f->agent, "acme", json);
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(get(handle, "now"), RIPTIDE_MISS);
	assert_int_equal(get(handle, "later"), RIPTIDE_EDENIED);
	snprintf(
		json, sizeof(json),
		"{\"policies\": ["
		"{\"resource\": \"mine\", \"actions\": [\"*\"], \"effect\": \"allow\", \"conditions\": {\"peer_uids\": [%u]}},"
		"{\"resource\": \"red\", \"actions\": [\"*\"], \"effect\": \"allow\", \"conditions\": {\"peer_uids\": [77]}},"
		"{\"resource\": \"*\", \"actions\": [\"read\"], \"effect\": \"allow\", \"conditions\": {\"read_only\": true}}"
		"]}",
		(unsigned int)geteuid());
	assert_done(TENANT(&f->agent, UPDATE, "acme", json));
	assert_int_equal(get(handle, "mine"), RIPTIDE_MISS);
	assert_int_equal(get(handle, "red"), RIPTIDE_EDENIED);
	riptide_close(&handle);
	assert_done(TENANT(&f->agent, TOKEN_CREATE, "acme", "{\"role\": \"read_only\"}"));
	snprintf(token, sizeof(token), "%.59s", strstr(answer, "\"rt_") + 1);
	options.token = token;
	options.token_length = strlen(token);
	assert_int_equal(riptide_open(&options, &handle), RIPTIDE_OK);
	assert_int_equal(get(handle, "red"), RIPTIDE_MISS);
	assert_int_equal(ask(handle, "red", "read").allowed, 1);
	assert_int_equal(ask(handle, "mine", "write").allowed, 0);
	assert_int_equal(e2e_put(handle, "mine", "v"), RIPTIDE_EDENIED);
	riptide_close(&handle);
}

/* ---- asking ----------------------------------------------------------------------------------------------------------- */

static void callers_and_operators_are_told_which_rule_decides(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;

	create(&f->agent, "acme",
	       "\"policies\": [" ALLOW("report:*", "\"read\", \"publish\"") ", " DENY("draft", "report:draft*",
										      "\"publish\"") "]");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(ask(handle, "report:1", "publish").allowed, 1);
	assert_string_equal(ask(handle, "report:1", "publish").rule, "rule 1");
	assert_int_equal(ask(handle, "report:draft-2", "publish").allowed, 0);
	assert_string_equal(ask(handle, "report:draft-2", "publish").rule, "draft");
	assert_int_equal(ask(handle, "report:1", "READ").allowed, 0);
	assert_int_equal(ask(handle, "", "read").allowed, 0);
	riptide_close(&handle);
	assert_done(TENANT(&f->agent, ACCESS, "acme", "{\"action\": \"publish\", \"resource\": \"report:draft\"}"));
	assert_said("\"allowed\":false");
	assert_said("\"rule\":\"draft\"");
	assert_done(
		TENANT(&f->agent, ACCESS, "acme", "{\"action\": \"read\", \"resource\": \"report:\", \"uid\": 5}"));
	assert_said("\"allowed\":true");
	assert_int_equal(TENANT(&f->agent, ACCESS, "acme", "{\"action\": \"read\"}"), RSHM_E_INVALID);
	assert_int_equal(
		TENANT(&f->agent, ACCESS, "acme", "{\"action\": \"read\", \"resource\": \"r\", \"uid\": -1}"),
		RSHM_E_INVALID);
	assert_int_equal(TENANT(&f->agent, ACCESS, "nobody", "{\"action\": \"read\", \"resource\": \"r\"}"),
			 RSHM_E_NOTENANT);
}

static void rules_that_cannot_be_meant_are_refused_by_name(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(TENANT(&f->agent, CREATE, NULL,
				"{\"id\": \"x\", \"policies\": [{\"resource\": \"a*b\", "
				"\"actions\": [\"read\"], \"effect\": \"allow\"}]}"),
			 RSHM_E_INVALID);
	assert_said("\"policies\" must be a list of rules");
	assert_said("rule 1");
	assert_int_equal(TENANT(&f->agent, CREATE, NULL,
				"{\"id\": \"x\", \"policies\": [{\"resource\": \"a\", "
				"\"actions\": [\"read\"], \"effect\": \"allow\", \"when\": 1}]}"),
			 RSHM_E_INVALID);
	assert_said("when");
	assert_int_equal(TENANT(&f->agent, GET, "x", NULL), RSHM_E_NOTENANT);
}

/* ---- defaults ------------------------------------------------------------------------------------------------------------ */

static void a_tenant_has_the_default_quotas_but_for_its_own_and_the_plan_custom(void **state)
{
	struct fixture *f = both_fixture(state);

	create(&f->agent, "plain", "\"quotas\": {\"operations_per_minute\": 5000}");
	assert_done(TENANT(&f->agent, GET, "plain", NULL));
	assert_said("\"data_transfer_bytes\":1099511627776");
	assert_said("\"operations_per_minute\":5000");
	create(&f->agent, "own", "\"quotas\": {\"data_transfer_bytes\": 7}");
	assert_done(TENANT(&f->agent, GET, "own", NULL));
	assert_said("\"data_transfer_bytes\":7");
	assert_done(TENANT(&f->agent, UPDATE, "own", "{\"quotas\": {}}"));
	assert_said("\"quotas\":{}");
	assert_done(TENANT(&f->agent, UPDATE, "own", "{\"quotas\": null}"));
	assert_said("\"data_transfer_bytes\":1099511627776");
	create(&f->agent, "custom", "\"plan\": \"custom\"");
	assert_done(TENANT(&f->agent, GET, "custom", NULL));
	assert_said("\"quotas\":{}");
}

static void refusals_stand_in_the_audit_log(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;

	create(&f->agent, "acme", "\"policies\": [" ALLOW("open:*", "\"*\"") ", " DENY("quiet", "s*", "\"*\"") "]");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "secret\n1", "v"), RIPTIDE_EDENIED);
	assert_int_equal(get(handle, "other"), RIPTIDE_EDENIED);
	riptide_close(&handle);
	for (int i = 0; i < 100; i++) {
		assert_true(admin_ask(&f->agent, RSHM_CONTROL_AUDIT, NULL, NULL, answer, sizeof(answer)) >= 0);
		if (strstr(answer, "no rule"))
			break;
		e2e_pause_ms(20);
	}
	assert_said("\"what\":\"write\"");
	assert_said("key secret\\\\n1");
	assert_said("rule quiet");
	assert_said("\"what\":\"read\"");
	assert_said("no rule");
	/* Never the value. */
	assert_null(strstr(answer, "\"v\""));
}

/* ---- administrators ------------------------------------------------------------------------------------------------------ */

struct visit {
	const struct agent_process *agent;
	uid_t uid;
	gid_t gid;
	int expected;
};

static int create_as(void *context)
{
	const struct visit *visit = context;

	if (setgroups(0, NULL) < 0 || setresgid(visit->gid, visit->gid, visit->gid) < 0 ||
	    setresuid(visit->uid, visit->uid, visit->uid) < 0)
		return 2;
	return admin_ask(visit->agent, RSHM_CONTROL_TENANT_CREATE, NULL, "{\"id\": \"theirs\"}", NULL, 0) ==
			       visit->expected
		       ? 0
		       : 1;
}

static void members_of_the_administrators_group_and_nobody_else_make_tenants(void **state)
{
	struct fixture *f = both_fixture(state);
	const struct group *sys = getgrnam("sys");
	struct visit stranger = {.agent = &f->agent, .uid = RED, .gid = RED, .expected = RSHM_E_DENIED};
	struct visit member = {.agent = &f->agent, .uid = BLUE, .expected = RSHM_OK};

	if (geteuid() != 0)
		skip();
	assert_non_null(sys);
	member.gid = sys->gr_gid;
	assert_int_equal(e2e_join(e2e_fork(create_as, &stranger), 10000), 0);
	assert_int_equal(TENANT(&f->agent, GET, "theirs", NULL), RSHM_E_NOTENANT);
	assert_int_equal(e2e_join(e2e_fork(create_as, &member), 10000), 0);
	assert_done(TENANT(&f->agent, GET, "theirs", NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(without_rules_everything_is_allowed),
		BOTH_STORES(each_operation_is_asked_before_it_does_anything),
		BOTH_STORES(a_fetch_needs_both_to_read_and_to_write),
		BOTH_STORES(items_that_are_denied_leave_the_others_alone),
		BOTH_STORES(who_may_be_refused_a_read_maps_no_segment),
		BOTH_STORES(conditions_are_of_the_kernels_uid_the_clock_and_the_role),
		BOTH_STORES(callers_and_operators_are_told_which_rule_decides),
		BOTH_STORES(rules_that_cannot_be_meant_are_refused_by_name),
		BOTH_STORES(a_tenant_has_the_default_quotas_but_for_its_own_and_the_plan_custom),
		BOTH_STORES(refusals_stand_in_the_audit_log),
		BOTH_STORES(members_of_the_administrators_group_and_nobody_else_make_tenants),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
