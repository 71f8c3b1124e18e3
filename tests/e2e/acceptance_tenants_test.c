/*
 * acceptance_tenants_test.c - what the mission's own tests of tenants expected of them, and the opposite of the faults that
 * were found there: a tenant that is deleted leaves nothing to read, one that is suspended is not served, what is consumed is
 * counted, limits are enforced, rules can be given. On both stores.
 */
#include <sys/wait.h>

#include "tests/e2e/both_stores.h"
#include "tests/e2e/tenants.h"

static const char *const *both_settings(void)
{
	static const char *settings[] = {"cache.segment_initial_bytes=1M", "cache.max_memory_bytes=64M",
					 "limits.attaches_per_second_per_uid=100000", NULL};

	return settings;
}

static int allowed(riptide *handle, const char *name, uint64_t amount, enum riptide_quota_mode mode)
{
	struct riptide_quota quota;

	assert_int_equal(riptide_check_quota(handle, name, amount, mode, &quota), RIPTIDE_OK);
	return (int)quota.allowed;
}

static void made_and_read_with_plan_and_settings(void **state)
{
	struct fixture *f = both_fixture(state);

	create(&f->agent, "acme",
	       "\"plan\": \"professional\", \"settings\": {\"theme\": \"dark\", \"limits\": [1, 2]}, "
	       "\"owner\": {\"id\": \"o1\", \"name\": \"Acme\", \"email\": \"a@b.c\", \"organization\": \"Acme Inc\"}");
	assert_done(TENANT(&f->agent, GET, "acme", NULL));
	assert_said("\"plan\":\"professional\"");
	assert_said("\"theme\":\"dark\"");
	assert_said("\"organization\":\"Acme Inc\"");
	assert_said("\"status\":\"active\"");
}

static void access_is_allowed_without_rules_and_an_unknown_tenant_is_an_error(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_access access;
	riptide *handle;

	create(&f->agent, "acme", "");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(riptide_validate_access(handle, "cache:read", 10, "read", &access), RIPTIDE_OK);
	assert_int_equal(access.allowed, 1);
	assert_int_equal(riptide_validate_access(handle, "cache:write", 11, "write", &access), RIPTIDE_OK);
	assert_int_equal(access.allowed, 1);
	riptide_close(&handle);
	assert_int_equal(try_open(&f->agent, "unknown", NULL), RIPTIDE_ENOTENANT);
	assert_int_equal(TENANT(&f->agent, ACCESS, "unknown", "{\"action\": \"read\", \"resource\": \"x\"}"),
			 RSHM_E_NOTENANT);
}

/* Consuming counts: there, a check of 900 of 1000 passed after 2,700 had been recorded. */
static void what_is_consumed_is_not_there_twice(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;

	create(&f->agent, "acme", "\"quotas\": {\"units\": 1024, \"operations_per_minute\": 1}");
	handle = open_tenant(&f->agent, "acme");
	assert_true(allowed(handle, "units", 512, RIPTIDE_QUOTA_CONSUME));
	assert_false(allowed(handle, "units", 1024, RIPTIDE_QUOTA_CONSUME));
	assert_true(allowed(handle, "units", 512, RIPTIDE_QUOTA_CONSUME));
	assert_false(allowed(handle, "units", 1, RIPTIDE_QUOTA_ASK));
	/* One operation a minute: the first check is yes, the second no. */
	assert_true(allowed(handle, "operations_per_minute", 1, RIPTIDE_QUOTA_CONSUME));
	assert_false(allowed(handle, "operations_per_minute", 1, RIPTIDE_QUOTA_CONSUME));
	riptide_close(&handle);
}

static void updated_in_name_quotas_and_settings(void **state)
{
	struct fixture *f = both_fixture(state);

	create(&f->agent, "acme", "\"settings\": {\"a\": 1}");
	assert_done(TENANT(&f->agent, UPDATE, "acme",
			   "{\"name\": \"New\", \"quotas\": {\"units\": 7}, \"settings\": {\"b\": 2}}"));
	assert_done(TENANT(&f->agent, GET, "acme", NULL));
	assert_said("\"name\":\"New\"");
	assert_said("\"units\":7");
	assert_said("\"settings\":{\"b\":2}");
}

static void suspended_denied_deleted_gone(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_access access;
	char value[8];
	riptide *handle;
	size_t length;

	create(&f->agent, "acme", "");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	make_hot(handle, "k", "v");
	assert_done(TENANT(&f->agent, SUSPEND, "acme", "{\"reason\": \"unpaid\"}"));
	assert_int_equal(riptide_validate_access(handle, "k", 1, "read", &access), RIPTIDE_EDENIED);
	assert_int_equal(riptide_get_into(handle, "k", 1, value, sizeof(value), &length, NULL), RIPTIDE_EDENIED);
	assert_done(TENANT(&f->agent, DELETE, "acme", NULL));
	assert_int_equal(TENANT(&f->agent, GET, "acme", NULL), RSHM_E_NOTENANT);
	assert_int_equal(riptide_get_into(handle, "k", 1, value, sizeof(value), &length, NULL), RIPTIDE_ENOTENANT);
	riptide_close(&handle);
	if (f->redis)
		assert_int_equal(server_keys(&f->server, "acme"), 1); /* the number of its generation */
	/* Another of the same name meets nothing of it. */
	create(&f->agent, "acme", "");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(riptide_get_into(handle, "k", 1, value, sizeof(value), &length, NULL), RIPTIDE_MISS);
	riptide_close(&handle);
}

static void three_tenants_are_listed_and_share_nothing(void **state)
{
	static const char *const ids[] = {"one", "two", "three"};
	struct fixture *f = both_fixture(state);
	riptide *handles[3];

	for (int i = 0; i < 3; i++) {
		create(&f->agent, ids[i], "");
		handles[i] = open_tenant(&f->agent, ids[i]);
		assert_int_equal(e2e_put(handles[i], "same key", ids[i]), RIPTIDE_OK);
	}
	assert_done(TENANT(&f->agent, LIST, NULL, NULL));
	for (int i = 0; i < 3; i++) {
		assert_said(ids[i]);
		assert_int_equal(e2e_check(handles[i], "same key", ids[i], NULL), RIPTIDE_OK);
	}
	/* Emptying one leaves the others alone. */
	assert_int_equal(riptide_clear(handles[0]), RIPTIDE_OK);
	assert_int_equal(e2e_check(handles[0], "same key", "one", NULL), RIPTIDE_MISS);
	assert_int_equal(e2e_check(handles[1], "same key", "two", NULL), RIPTIDE_OK);
	for (int i = 0; i < 3; i++)
		riptide_close(&handles[i]);
}

static void isolation_levels_are_kept(void **state)
{
	struct fixture *f = both_fixture(state);

	create(&f->agent, "loose", "\"isolation\": \"logical\"");
	create(&f->agent, "tight", "\"isolation\": \"strong\"");
	assert_done(TENANT(&f->agent, GET, "loose", NULL));
	assert_said("\"isolation\":\"logical\"");
	assert_done(TENANT(&f->agent, GET, "tight", NULL));
	assert_said("\"isolation\":\"strong\"");
}

#define WRITERS 10

static int write_one(void *context)
{
	const struct agent_process *agent = context;
	char key[32], value[32];
	riptide *handle = NULL;
	int status = e2e_open(agent, "acme", 10000, &handle);

	for (int i = 0; i < 20 && status == RIPTIDE_OK; i++) {
		snprintf(key, sizeof(key), "%d-%d", (int)getpid(), i);
		snprintf(value, sizeof(value), "of %d", (int)getpid());
		status = e2e_put(handle, key, value);
		if (status == RIPTIDE_OK)
			status = e2e_check(handle, key, value, NULL);
	}
	riptide_close(&handle);
	return status == RIPTIDE_OK ? 0 : 1;
}

static void ten_processes_write_at_once(void **state)
{
	struct fixture *f = both_fixture(state);
	pid_t pids[WRITERS];

	create(&f->agent, "acme", "");
	for (int i = 0; i < WRITERS; i++)
		pids[i] = e2e_fork(write_one, &f->agent);
	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(e2e_join(pids[i], 30000), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(made_and_read_with_plan_and_settings),
		BOTH_STORES(access_is_allowed_without_rules_and_an_unknown_tenant_is_an_error),
		BOTH_STORES(what_is_consumed_is_not_there_twice),
		BOTH_STORES(updated_in_name_quotas_and_settings),
		BOTH_STORES(suspended_denied_deleted_gone),
		BOTH_STORES(three_tenants_are_listed_and_share_nothing),
		BOTH_STORES(isolation_levels_are_kept),
		BOTH_STORES(ten_processes_write_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
