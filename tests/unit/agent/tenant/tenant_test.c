/* tenant_test.c - who may use which tenant. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "agent/tenant/tenant.h"

static const uid_t shop_users[] = {1001, 1002};
static const gid_t shop_groups[] = {2001};
static const uid_t own_users[] = {900};

static const struct tenant_settings settings[] = {
	{.id = "default", .users = own_users, .user_count = 1, .default_ttl_ms = 5000},
	{.id = "shop", .users = shop_users, .user_count = 2, .groups = shop_groups, .group_count = 1},
	{.id = "third", .users = own_users, .user_count = 1},
};

static int setup(void **state)
{
	struct tenant_registry *registry;

	if (tenant_registry_create(settings, 3, 2, &registry) != RSHM_OK)
		return -1;
	*state = registry;
	return 0;
}

static int teardown(void **state)
{
	struct tenant_registry *registry = *state;

	tenant_registry_destroy(&registry);
	return registry ? -1 : 0;
}

static void tenants_are_found_by_id_and_spread_over_workers(void **state)
{
	assert_int_equal(tenant_count(*state), 3);
	assert_string_equal(tenant_find(*state, "shop")->id, "shop");
	assert_null(tenant_find(*state, "sho"));
	assert_null(tenant_find(*state, ""));
	assert_int_equal(tenant_at(*state, 0)->worker, 0);
	assert_int_equal(tenant_at(*state, 1)->worker, 1);
	assert_int_equal(tenant_at(*state, 2)->worker, 0);
	assert_int_equal(tenant_find(*state, "default")->default_ttl_ms, 5000);
}

static void only_named_users_and_groups_may(void **state)
{
	const struct tenant *shop = tenant_find(*state, "shop");

	assert_true(tenant_permits(shop, 1001, 1));
	assert_true(tenant_permits(shop, 1002, 1));
	assert_true(tenant_permits(shop, 5, 2001));
	assert_false(tenant_permits(shop, 900, 900));
	assert_false(tenant_permits(shop, 2001, 1001));
}

static void root_may_and_the_overflow_uid_may_not(void **state)
{
	const uid_t overflow[] = {TENANT_OVERFLOW_UID};
	struct tenant_settings careless = {.id = "careless", .users = overflow, .user_count = 1};
	struct tenant_registry *registry;

	assert_true(tenant_permits(tenant_find(*state, "shop"), 0, 0));
	assert_int_equal(tenant_registry_create(&careless, 1, 1, &registry), RSHM_OK);
	assert_false(tenant_permits(tenant_find(registry, "careless"), TENANT_OVERFLOW_UID, 2001));
	tenant_registry_destroy(&registry);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tenants_are_found_by_id_and_spread_over_workers, setup, teardown),
		cmocka_unit_test_setup_teardown(only_named_users_and_groups_may, setup, teardown),
		cmocka_unit_test_setup_teardown(root_may_and_the_overflow_uid_may_not, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
