/* The inner store, or the disk of the journal, is away, slow, full, or does not take what it is given. */
#include "tests/unit/agent/store/behind/fixture.h"

#include <errno.h>
#include <sys/mount.h>

static int setup_redis(void **state)
{
	static struct fixture f;

	fixture_init(&f, BACKEND_REDIS);
	*state = &f;
	return 0;
}

static int setup_embedded(void **state)
{
	static struct fixture f;

	fixture_init(&f, BACKEND_EMBEDDED);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fixture_close(f);
	(void)umount(f->journal);
	fixture_fini(f);
	return 0;
}

static void put_many(struct fixture *f, int from, int to, uint64_t version)
{
	char key[16], value[32];

	for (int i = from; i < to; i++) {
		snprintf(key, sizeof key, "k%d", i);
		snprintf(value, sizeof value, "%d-%lu", i, (unsigned long)version);
		assert_int_equal(put_behind(f, key, value, version + (uint64_t)i), RSHM_OK);
	}
}

static void assert_many(struct fixture *f, struct store *store, int from, int to, uint64_t version)
{
	char key[16], value[32];

	for (int i = from; i < to; i++) {
		snprintf(key, sizeof key, "k%d", i);
		snprintf(value, sizeof value, "%d-%lu", i, (unsigned long)version);
		assert_value(f, store, key, value);
	}
}

/* A request with this much patience; its status. */
static int impatient(struct fixture *f, enum store_op op, const char *key, uint64_t version, uint64_t patience_ms)
{
	struct call call;
	uint64_t begun_ms;

	call_init(&call, op, key);
	if (op != STORE_FLUSH && op != STORE_LIST)
		call_load(&call, op == STORE_DELETE ? NULL : "impatient", version, 0);
	begun_ms = clock_monotonic_ms();
	call.request.deadline_ms = begun_ms + patience_ms;
	(void)call_run(f, f->store, &call);
	assert_true(clock_monotonic_ms() - begun_ms < patience_ms + 500);
	call_fini(&call);
	return call.status;
}

static void flush_ok(struct fixture *f)
{
	assert_int_equal(impatient(f, STORE_FLUSH, "", 0, 15000), RSHM_OK);
}

/* ---- the store is away ---------------------------------------------------------------------------------------- */

static void writes_are_accepted_while_the_store_is_away(void **state)
{
	struct fixture *f = *state;

	f->config.flush_interval_ms = 20;
	fixture_open(f);
	put_many(f, 0, 100, 1000);
	fixture_drain(f);
	redis_server_kill(&f->server);
	put_many(f, 50, 300, 2000);
	fixture_run_for(f, 200);
	put_many(f, 0, 20, 3000);
	assert_many(f, f->store, 50, 300, 2000);
	assert_many(f, f->store, 0, 20, 3000);
	assert_true(figures(f).flush_failures > 0);
	assert_int_equal(figures(f).depth_records, 270);
	assert_true(figures(f).oldest_age_ms >= 150);
	/* It comes back empty. */
	assert_int_equal(redis_server_restart(&f->server), 0);
	fixture_drain(f);
	assert_many(f, f->direct, 50, 300, 2000);
	assert_many(f, f->direct, 0, 20, 3000);
}

static void waits_end_at_their_deadline(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	assert_int_equal(put_through(f, "stored", "value", 900), RSHM_OK);
	redis_server_kill(&f->server);
	put_many(f, 0, 10, 1000);
	assert_int_equal(impatient(f, STORE_PUT, "k1", 5000, 100), RSHM_E_TIMEDOUT);
	assert_int_equal(impatient(f, STORE_DELETE, "k2", 5000, 100), RSHM_E_TIMEDOUT);
	assert_int_equal(impatient(f, STORE_TOUCH, "k3", 5000, 100), RSHM_E_TIMEDOUT);
	assert_int_equal(impatient(f, STORE_FLUSH, "", 0, 100), RSHM_E_TIMEDOUT);
	assert_int_equal(impatient(f, STORE_LIST, "k", 0, 100), RSHM_E_TIMEDOUT);
	/* None of them has happened. */
	assert_int_equal(redis_server_restart(&f->server), 0);
	flush_ok(f);
	assert_many(f, f->direct, 0, 10, 1000);
	/* And keys that were waited for are as good as others. */
	assert_int_equal(put_behind(f, "k1", "again", 6000), RSHM_OK);
	flush_ok(f);
	assert_value(f, f->direct, "k1", "again");
}

static void barrier_counts_on_what_replaces_a_record(void **state)
{
	struct fixture *f = *state;
	struct call barrier;

	f->config.flush_window = 8;
	fixture_open(f);
	redis_server_kill(&f->server);
	put_many(f, 0, 20, 1000);
	call_init(&barrier, STORE_FLUSH, "");
	store_submit(f->store, &barrier.request);
	/* Some of them take the place of one in the queue, some of one that has failed to fly. */
	for (uint64_t round = 2; round < 20; round++) {
		put_many(f, 0, 20, 1000 * round);
		fixture_run_for(f, 5);
	}
	assert_false(barrier.done);
	assert_int_equal(redis_server_restart(&f->server), 0);
	assert_int_equal(call_wait(f, &barrier), RSHM_OK);
	call_fini(&barrier);
	assert_many(f, f->direct, 0, 20, 19000);
}

static void unknown_outcome_is_cleared_up_by_repeating(void **state)
{
	struct fixture *f = *state;

	f->config.flush_interval_ms = 10;
	f->config.flush_timeout_ms = 100;
	fixture_open(f);
	assert_int_equal(put_through(f, "warm", "up", 1), RSHM_OK);
	for (uint64_t round = 0; round < 4; round++) {
		redis_server_pause(&f->server);
		put_many(f, 0, 50, 10000 * (round + 1));
		fixture_run_for(f, 250);
		/* Overtakes what is under way, or was. */
		put_many(f, 0, 25, 10000 * (round + 1) + 5000);
		assert_int_equal(delete_behind(f, "k49", 10000 * (round + 1) + 9000), RSHM_OK);
		assert_true(figures(f).depth_records >= 50);
		redis_server_resume(&f->server);
		fixture_drain(f);
		assert_many(f, f->direct, 0, 25, 10000 * (round + 1) + 5000);
		assert_many(f, f->direct, 25, 49, 10000 * (round + 1));
		assert_value(f, f->direct, "k49", NULL);
	}
	assert_true(figures(f).flush_failures > 0);
	assert_int_equal(figures(f).rejected, 0);
}

static void close_does_not_wait_for_ever(void **state)
{
	struct fixture *f = *state;
	uint64_t begun_ms;
	struct call get;

	f->config.close_timeout_ms = 200;
	fixture_open(f);
	assert_int_equal(put_through(f, "deleted", "value", 1), RSHM_OK);
	put_many(f, 0, 200, 1000);
	assert_int_equal(delete_behind(f, "deleted", 2000), RSHM_OK);
	redis_server_kill(&f->server);
	begun_ms = clock_monotonic_ms();
	fixture_close(f);
	assert_in_range(clock_monotonic_ms() - begun_ms, 150, 3000);
	assert_true(count_files(f, "journal-") > 0);
	/* The rest is there at the next start, even with the store still away. */
	fixture_open(f);
	assert_int_equal(figures(f).replayed, 201);
	assert_many(f, f->store, 0, 200, 1000);
	call_init(&get, STORE_GET, "deleted");
	assert_int_equal(call_run(f, f->store, &get), RSHM_MISS);
	call_fini(&get);
	assert_int_equal(redis_server_restart(&f->server), 0);
	fixture_drain(f);
	assert_many(f, f->direct, 0, 200, 1000);
}

static void close_answers_those_who_wait(void **state)
{
	struct fixture *f = *state;
	struct call through, list, later;

	f->config.close_timeout_ms = 100;
	fixture_open(f);
	redis_server_kill(&f->server);
	put_many(f, 0, 5, 1000);
	call_init(&through, STORE_PUT, "k1");
	call_load(&through, "through", 2000, 0);
	store_submit(f->store, &through.request);
	call_init(&later, STORE_PUT, "k1");
	call_load(&later, "behind", 2001, 0);
	later.request.behind = true;
	store_submit(f->store, &later.request);
	call_init(&list, STORE_LIST, "k");
	store_submit(f->store, &list.request);
	fixture_close(f);
	assert_int_equal(through.status, RSHM_E_CLOSED);
	assert_int_equal(later.status, RSHM_E_CLOSED);
	assert_int_equal(list.status, RSHM_E_CLOSED);
	call_fini(&through);
	call_fini(&later);
	call_fini(&list);
}

static void record_that_waited_too_long_is_given_up_and_kept(void **state)
{
	struct fixture *f = *state;

	f->config.flush_interval_ms = 20;
	f->config.max_replay_age_ms = 300;
	fixture_open(f);
	redis_server_kill(&f->server);
	put_many(f, 0, 5, 1000);
	fixture_run_for(f, 700);
	assert_int_equal(figures(f).too_old, 5);
	assert_int_equal(figures(f).depth_records, 0);
	assert_int_equal(redis_server_restart(&f->server), 0);
	fixture_run_for(f, 200);
	assert_value(f, f->store, "k1", NULL);
	fixture_close(f);
	assert_int_equal(count_files(f, "aside-"), 1);
}

static void what_the_store_cannot_take_does_not_hold_up_the_rest(void **state)
{
	struct fixture *f = *state;
	char *value = malloc(20001);

	assert_non_null(value);
	memset(value, 'x', 20000);
	value[20000] = '\0';
	f->envelope_max = 10000;
	f->config.flush_interval_ms = 20;
	fixture_open(f);
	assert_int_equal(put_behind(f, "large", value, 1000), RSHM_OK);
	put_many(f, 0, 50, 2000);
	fixture_drain(f);
	assert_int_equal(figures(f).rejected, 1);
	assert_many(f, f->direct, 0, 50, 2000);
	fixture_close(f);
	assert_int_equal(count_files(f, "aside-"), 1);
	free(value);
}

static void full_store_is_tried_again_until_it_has_room(void **state)
{
	struct fixture *f = *state;
	char command[256];

	f->config.flush_interval_ms = 20;
	fixture_open(f);
	put_many(f, 0, 10, 1000);
	fixture_drain(f);
	snprintf(command, sizeof command, "redis-cli -s %s config set maxmemory 1 >/dev/null", f->server.unix_path);
	assert_int_equal(system(command), 0);
	put_many(f, 0, 100, 2000);
	fixture_run_for(f, 200);
	assert_int_equal(figures(f).depth_records, 100);
	assert_true(figures(f).flush_failures > 0);
	assert_many(f, f->store, 0, 100, 2000);
	snprintf(command, sizeof command, "redis-cli -s %s config set maxmemory 0 >/dev/null", f->server.unix_path);
	assert_int_equal(system(command), 0);
	fixture_drain(f);
	assert_many(f, f->direct, 0, 100, 2000);
}

/* ---- the disk is full ----------------------------------------------------------------------------------------- */

/* Puts values of 4 KiB until one is refused; how many were accepted. `expected`: the refusal. */
static int fill_disk(struct fixture *f, int from, int expected)
{
	char key[16], value[4097];

	memset(value, 'f', 4096);
	value[4096] = '\0';
	for (int i = from;; i++) {
		int status;

		snprintf(key, sizeof key, "f%d", i);
		snprintf(value, 16, "%010d", i);
		value[10] = 'f';
		status = put_behind(f, key, value, (uint64_t)(100000 + i));
		if (status != RSHM_OK) {
			assert_int_equal(status, expected);
			if (f->backend == BACKEND_EMBEDDED)
				assert_value(f, f->store, key, NULL);
			return i - from;
		}
		assert_true(i - from < 10000);
	}
}

static void assert_filled(struct fixture *f, struct store *store, int from, int to)
{
	char key[16], value[4097];

	memset(value, 'f', 4096);
	value[4096] = '\0';
	for (int i = from; i < to; i++) {
		snprintf(key, sizeof key, "f%d", i);
		snprintf(value, 16, "%010d", i);
		value[10] = 'f';
		assert_value(f, store, key, value);
	}
}

static void full_disk_refuses_and_loses_nothing(void **state)
{
	struct fixture *f = *state;
	int first, second;

	assert_int_equal(mkdir(f->journal, 0700), 0);
	if (mount("none", f->journal, "tmpfs", 0, "size=512k,mode=700") != 0) {
		print_message("no tmpfs for us: %s\n", strerror(errno));
		skip();
	}
	f->config.sync = BEHIND_SYNC_INTERVAL;
	f->config.segment_bytes = 64 << 10;
	fixture_open(f);
	first = fill_disk(f, 0, RSHM_E_FULL);
	assert_in_range(first, 80, 128);
	assert_int_equal(figures(f).refused_full, 1);
	assert_filled(f, f->store, 0, first);
	/* Being full begins a flush, and gives room back, though not even marks could be written. */
	fixture_drain(f);
	fixture_run_for(f, 100);
	assert_filled(f, f->direct, 0, first);
	second = fill_disk(f, 1000, RSHM_E_FULL);
	assert_true(second > first / 2);
	/* Other keys are written through meanwhile. */
	assert_int_equal(delete_through(f, "f0", 0), RSHM_OK);
	fixture_drain(f);
	assert_filled(f, f->direct, 1000, 1000 + second);
	assert_value(f, f->direct, "f0", NULL);
	fixture_close(f);
	assert_int_equal(count_files(f, ""), 2);
}

static void act_fill_disk(struct fixture *f)
{
	int count = fill_disk(f, 0, RSHM_E_FULL);
	FILE *file;
	char path[128];

	snprintf(path, sizeof path, "%s/count", f->folder);
	file = fopen(path, "w");
	if (file == NULL || fprintf(file, "%d", count) < 0 || fclose(file) != 0)
		_exit(1);
}

static void killed_with_a_full_disk_it_says_so_and_starts_when_there_is_room(void **state)
{
	struct fixture *f = *state;
	char path[128], error[256] = "";
	struct store *inner, *store = NULL;
	int count = 0, files;
	FILE *file;

	assert_int_equal(mkdir(f->journal, 0700), 0);
	if (mount("none", f->journal, "tmpfs", 0, "size=512k,mode=700") != 0) {
		print_message("no tmpfs for us: %s\n", strerror(errno));
		skip();
	}
	redis_server_kill(&f->server);
	fixture_in_killed_child(f, act_fill_disk);
	snprintf(path, sizeof path, "%s/count", f->folder);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%d", &count), 1);
	fclose(file);
	files = count_files(f, "journal-");
	inner = fixture_inner(f);
	assert_int_equal(behind_create(&f->config, &f->loop, inner, &store, error, sizeof error), RSHM_E_FULL);
	assert_non_null(strstr(error, f->journal));
	assert_int_equal(count_files(f, "journal-"), files);
	fixture_close_store(f, &inner);
	assert_int_equal(mount("none", f->journal, "tmpfs", MS_REMOUNT, "size=2m,mode=700"), 0);
	assert_int_equal(redis_server_restart(&f->server), 0);
	fixture_open(f);
	assert_int_equal(figures(f).replayed, count);
	assert_filled(f, f->store, 0, count);
	fixture_drain(f);
	assert_filled(f, f->direct, 0, count);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(writes_are_accepted_while_the_store_is_away, setup_redis, teardown),
		cmocka_unit_test_setup_teardown(waits_end_at_their_deadline, setup_redis, teardown),
		cmocka_unit_test_setup_teardown(barrier_counts_on_what_replaces_a_record, setup_redis, teardown),
		cmocka_unit_test_setup_teardown(unknown_outcome_is_cleared_up_by_repeating, setup_redis, teardown),
		cmocka_unit_test_setup_teardown(close_does_not_wait_for_ever, setup_redis, teardown),
		cmocka_unit_test_setup_teardown(close_answers_those_who_wait, setup_redis, teardown),
		cmocka_unit_test_setup_teardown(record_that_waited_too_long_is_given_up_and_kept, setup_redis,
						teardown),
		cmocka_unit_test_setup_teardown(what_the_store_cannot_take_does_not_hold_up_the_rest, setup_redis,
						teardown),
		cmocka_unit_test_setup_teardown(full_store_is_tried_again_until_it_has_room, setup_redis, teardown),
		cmocka_unit_test_setup_teardown(killed_with_a_full_disk_it_says_so_and_starts_when_there_is_room,
						setup_redis, teardown),
		cmocka_unit_test_setup_teardown(full_disk_refuses_and_loses_nothing, setup_embedded, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
