#include "agent/control/users.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void user_without_anything_open_is_forgotten(void **state)
{
	struct users users;
	struct user *user;

	(void)state;
	users_init(&users, 10);
	user = users_get(&users, 7);
	assert_non_null(user);
	user->connections++;
	users_put(&users, user);
	assert_ptr_equal(users_find(&users, 7), user);
	assert_ptr_equal(users_get(&users, 7), user);
	user->connections--;
	users_put(&users, user);
	assert_null(users_find(&users, 7));
	assert_int_equal(users.count, 0);
	users_fini(&users);
}

static void full_table_forgets_idle_users_and_then_refuses(void **state)
{
	struct users users;

	(void)state;
	users_init(&users, 300);
	for (uid_t uid = 0; uid < 300; uid++) {
		struct user *user = users_get(&users, uid);

		assert_non_null(user);
		/* Every third has only a rate to pay back. */
		assert_true(user_may_attach(user, 5, 1000));
		user->places += uid % 3 != 0;
		users_put(&users, user);
	}
	assert_int_equal(users.count, 300);
	for (uid_t uid = 1000; uid < 1100; uid++) {
		struct user *user = users_get(&users, uid);

		assert_non_null(user);
		user->rings++;
	}
	assert_null(users_get(&users, 2000));
	assert_null(users_find(&users, 3));
	assert_non_null(users_find(&users, 4));
	assert_int_equal(users.count, 300);
	users_fini(&users);
	assert_int_equal(users.count, 0);
}

static void rate_allows_a_second_at_once_and_then_its_share(void **state)
{
	struct user user = {.uid = 1};
	uint64_t now_ms = 5000000;

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_true(user_may_attach(&user, 10, now_ms));
	assert_false(user_may_attach(&user, 10, now_ms));
	assert_false(user_may_attach(&user, 10, now_ms + 99));
	assert_true(user_may_attach(&user, 10, now_ms + 100));
	assert_false(user_may_attach(&user, 10, now_ms + 100));
	/* Long silence earns no more than a second's worth. */
	now_ms += 3600000;
	for (int i = 0; i < 10; i++)
		assert_true(user_may_attach(&user, 10, now_ms));
	assert_false(user_may_attach(&user, 10, now_ms));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(user_without_anything_open_is_forgotten),
		cmocka_unit_test(full_table_forgets_idle_users_and_then_refuses),
		cmocka_unit_test(rate_allows_a_second_at_once_and_then_its_share),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
