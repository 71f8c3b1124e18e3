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
	struct tenant_table *table;

	if (tenant_table_create(4, &table) != RSHM_OK)
		return -1;
	for (int i = 0; i < 3; i++) {
		struct tenant *tenant;

		if (tenant_create(&settings[i], &tenant) != RSHM_OK || tenant_table_add(table, tenant) != RSHM_OK)
			return -1;
	}
	*state = table;
	return 0;
}

static int teardown(void **state)
{
	struct tenant_table *table = *state;

	tenant_table_destroy(&table);
	return table ? -1 : 0;
}

static void tenants_are_found_by_id(void **state)
{
	assert_int_equal(tenant_count(*state), 3);
	assert_string_equal(tenant_find(*state, "shop")->id, "shop");
	assert_null(tenant_find(*state, "sho"));
	assert_null(tenant_find(*state, ""));
	assert_int_equal(tenant_find(*state, "default")->default_ttl_ms, 5000);
}

static void no_two_tenants_have_one_place_whoever_comes_and_goes(void **state)
{
	struct tenant *shop = tenant_find(*state, "shop"), *fourth, *fifth;
	struct tenant_settings more = {.id = "fourth"};
	uint32_t place = shop->place;

	assert_int_equal(tenant_create(&more, &fourth), RSHM_OK);
	assert_int_equal(tenant_table_add(*state, fourth), RSHM_OK);
	more.id = "fifth";
	assert_int_equal(tenant_create(&more, &fifth), RSHM_OK);
	assert_int_equal(tenant_table_add(*state, fifth), RSHM_E_FULL);
	tenant_table_remove(*state, shop);
	assert_null(tenant_find(*state, "shop"));
	assert_int_equal(tenant_count(*state), 3);
	assert_int_equal(tenant_table_add(*state, fifth), RSHM_OK);
	assert_int_equal(fifth->place, place);
	for (size_t i = 0; i < 4; i++)
		for (size_t k = 0; k < i; k++)
			assert_int_not_equal(tenant_at(*state, i)->place, tenant_at(*state, k)->place);
	tenant_destroy(&shop);
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
	struct tenant *tenant;

	assert_true(tenant_permits(tenant_find(*state, "shop"), 0, 0));
	assert_int_equal(tenant_create(&careless, &tenant), RSHM_OK);
	assert_false(tenant_permits(tenant, TENANT_OVERFLOW_UID, 2001));
	tenant_destroy(&tenant);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tenants_are_found_by_id, setup, teardown),
		cmocka_unit_test_setup_teardown(no_two_tenants_have_one_place_whoever_comes_and_goes, setup,
						teardown),
		cmocka_unit_test_setup_teardown(only_named_users_and_groups_may, setup, teardown),
		cmocka_unit_test_setup_teardown(root_may_and_the_overflow_uid_may_not, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
