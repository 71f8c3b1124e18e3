/*
 * What waits for the disk. The disk is made slow, or broken, at the call that everybody makes: fdatasync() of this
 * program stands before the one of the C library, also for libuv's threads.
 */
#include "tests/unit/agent/store/behind/fixture.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>

static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t disk_free = PTHREAD_COND_INITIALIZER;
static bool disk_hangs;
static int disk_error;
static uint32_t disk_calls, disk_waiting;

int fdatasync(int fd)
{
	int error;

	(void)pthread_mutex_lock(&disk_lock);
	disk_calls++;
	disk_waiting++;
	while (disk_hangs)
		(void)pthread_cond_wait(&disk_free, &disk_lock);
	disk_waiting--;
	error = disk_error;
	(void)pthread_mutex_unlock(&disk_lock);
	if (error != 0) {
		errno = error;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

static void disk_set(bool hangs, int error)
{
	(void)pthread_mutex_lock(&disk_lock);
	disk_hangs = hangs;
	disk_error = error;
	(void)pthread_cond_broadcast(&disk_free);
	(void)pthread_mutex_unlock(&disk_lock);
}

static uint32_t disk_count(const uint32_t *count)
{
	uint32_t now;

	(void)pthread_mutex_lock(&disk_lock);
	now = *count;
	(void)pthread_mutex_unlock(&disk_lock);
	return now;
}

static int setup(void **state)
{
	static struct fixture f;

	fixture_init(&f, BACKEND_EMBEDDED);
	f.config.sync = BEHIND_SYNC_ALWAYS;
	f.config.sync_interval_ms = NEVER_MS;
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	disk_set(false, 0);
	fixture_fini(*state);
	return 0;
}

static void call_behind(struct fixture *f, struct call *call, const char *key, uint64_t version, uint64_t patience_ms)
{
	call_init(call, STORE_PUT, key);
	call_load(call, "value", version, 0);
	call->request.behind = true;
	call->request.deadline_ms = clock_monotonic_ms() + patience_ms;
	store_submit(f->store, &call->request);
}

static void acknowledgement_waits_for_the_disk(void **state)
{
	static const char *const keys[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
	struct fixture *f = *state;
	struct call calls[8];

	fixture_open(f);
	disk_calls = 0;
	disk_set(true, 0);
	for (uint64_t i = 0; i < 8; i++)
		call_behind(f, &calls[i], keys[i], 1000 + i, 10000);
	fixture_run_for(f, 100);
	for (int i = 0; i < 8; i++)
		assert_false(calls[i].done);
	assert_int_equal(disk_count(&disk_waiting), 1);
	disk_set(false, 0);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(call_wait(f, &calls[i]), RSHM_OK);
		assert_true(calls[i].accepted);
		call_fini(&calls[i]);
	}
	/* The first one alone, then all that came meanwhile. */
	assert_int_equal(disk_count(&disk_calls), 2);
}

static void slow_disk_makes_the_outcome_unknown(void **state)
{
	struct fixture *f = *state;
	struct call call;

	fixture_open(f);
	disk_set(true, 0);
	call_behind(f, &call, "key", 1000, 100);
	assert_int_equal(call_wait(f, &call), RSHM_E_UNKNOWN);
	assert_false(call.accepted);
	call_fini(&call);
	disk_set(false, 0);
	fixture_run_for(f, 50);
	/* It stands in the journal all the same. */
	assert_value(f, f->store, "key", "value");
}

static void broken_disk_acknowledges_nothing(void **state)
{
	struct fixture *f = *state;
	struct call call;

	fixture_open(f);
	disk_set(false, EIO);
	call_behind(f, &call, "key", 1000, 10000);
	assert_int_equal(call_wait(f, &call), RSHM_E_UNKNOWN);
	assert_false(call.accepted);
	call_fini(&call);
	assert_true(figures(f).sync_failures > 0);
	/* What comes next stands in another file, and is good when the disk is. */
	disk_set(false, 0);
	assert_int_equal(count_files(f, "journal-"), 1);
	call_behind(f, &call, "next", 1001, 10000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	call_fini(&call);
	assert_int_equal(count_files(f, "journal-"), 2);
}

static void write_through_waits_for_marks_on_the_disk(void **state)
{
	struct fixture *f = *state;
	struct call call;

	fixture_open(f);
	assert_int_equal(put_behind(f, "key", "value", 1000), RSHM_OK);
	disk_set(true, 0);
	call_init(&call, STORE_DELETE, "key");
	store_submit(f->store, &call.request);
	fixture_run_for(f, 100);
	assert_false(call.done);
	/* Flushed, but not deleted: a loss of power now would bring it back. */
	assert_value(f, f->direct, "key", "value");
	disk_set(false, 0);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	call_fini(&call);
	assert_value(f, f->direct, "key", NULL);
	/* The same, and the time is up first. */
	assert_int_equal(put_behind(f, "key", "value", 1001), RSHM_OK);
	disk_set(true, 0);
	call_init(&call, STORE_DELETE, "key");
	call.request.deadline_ms = clock_monotonic_ms() + 100;
	store_submit(f->store, &call.request);
	assert_int_equal(call_wait(f, &call), RSHM_E_TIMEDOUT);
	call_fini(&call);
	disk_set(false, 0);
	fixture_run_for(f, 50);
	assert_value(f, f->direct, "key", "value");
}

static void close_while_the_disk_hangs_answers_everybody(void **state)
{
	struct fixture *f = *state;
	struct call call;
	bool closed = false;

	f->config.close_timeout_ms = 100;
	fixture_open(f);
	disk_set(true, 0);
	call_behind(f, &call, "key", 1000, 10000);
	store_close(f->store, fixture_on_closed, &closed);
	assert_int_equal(call_wait(f, &call), RSHM_E_UNKNOWN);
	call_fini(&call);
	fixture_run_for(f, 100);
	disk_set(false, 0);
	while (!closed)
		uv_run(&f->loop, UV_RUN_ONCE);
	f->store = NULL;
}

static void with_interval_the_disk_is_synced_behind_the_answer(void **state)
{
	struct fixture *f = *state;
	uint32_t calls;

	f->config.sync = BEHIND_SYNC_INTERVAL;
	f->config.sync_interval_ms = 50;
	fixture_open(f);
	disk_set(true, 0);
	assert_int_equal(put_behind(f, "key", "value", 1000), RSHM_OK);
	fixture_run_for(f, 150);
	assert_int_equal(disk_count(&disk_waiting), 1);
	disk_set(false, 0);
	fixture_run_for(f, 100);
	calls = disk_count(&disk_calls);
	assert_true(calls >= 1);
	/* Nothing new: nothing to sync. */
	fixture_run_for(f, 200);
	assert_int_equal(disk_count(&disk_calls), calls);
}

/* ---- several threads ------------------------------------------------------------------------------------------ */

#define WORKERS 4u

struct worker {
	struct fixture f; /* loop and stores; folder and environment are lent */
	pthread_t thread;
	uint32_t index;
	struct behind_figures figures;
};

static bool owns_by_number(void *context, struct store_name *name)
{
	const struct worker *worker = context;

	return (uint32_t)atoi(name->tenant + 1) % worker->f.config.worker_count == worker->index;
}

static void *worker_run(void *context)
{
	struct worker *worker = context;
	struct fixture *f = &worker->f;
	char tenant[8];

	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(uv_timer_init(&f->loop, &f->guard), 0);
	fixture_open(f);
	for (uint32_t i = 0; i < 200; i++) {
		struct call call;

		snprintf(tenant, sizeof tenant, "t%u", (unsigned)(worker->index + WORKERS * (i % 3)));
		call_init(&call, STORE_PUT, "key");
		call_load(&call, tenant, 1000 + i, 0);
		call.request.name.tenant = tenant;
		call.request.name.tenant_number = worker->index + WORKERS * (i % 3) + 1;
		call.request.behind = true;
		assert_int_equal(call_run(f, f->store, &call), RSHM_OK);
		call_fini(&call);
	}
	worker->figures = figures(f);
	fixture_close_store(f, &f->store);
	fixture_close_store(f, &f->direct);
	uv_close((uv_handle_t *)&f->guard, NULL);
	while (uv_loop_close(&f->loop) == UV_EBUSY)
		uv_run(&f->loop, UV_RUN_ONCE);
	return NULL;
}

static void run_workers(struct fixture *f, struct worker workers[WORKERS])
{
	for (uint32_t i = 0; i < WORKERS; i++) {
		workers[i].f = *f;
		workers[i].index = i;
		workers[i].f.config.worker = i;
		workers[i].f.config.worker_count = WORKERS;
		workers[i].f.config.owns = owns_by_number;
		workers[i].f.config.owns_context = &workers[i];
		assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]), 0);
	}
	for (uint32_t i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
}

static void act_put_for_many_tenants(struct fixture *f)
{
	char tenant[8];

	for (uint32_t i = 0; i < 12; i++) {
		struct call call;

		snprintf(tenant, sizeof tenant, "t%u", (unsigned)i);
		call_init(&call, STORE_PUT, "old");
		call_load(&call, tenant, 10 + i, 0);
		call.request.name.tenant = tenant;
		call.request.name.tenant_number = i + 1;
		call.request.behind = true;
		assert_int_equal(call_run(f, f->store, &call), RSHM_OK);
		call_fini(&call);
	}
}

static void workers_start_and_work_side_by_side(void **state)
{
	struct fixture *f = *state;
	static struct worker workers[WORKERS];

	f->config.sync = BEHIND_SYNC_INTERVAL;
	f->config.sync_interval_ms = 10;
	f->config.segment_bytes = 4096;
	fixture_in_killed_child(f, act_put_for_many_tenants);
	f->config.flush_records = 2;
	fixture_open_env(f);
	run_workers(f, workers);
	for (uint32_t i = 0; i < WORKERS; i++) {
		assert_int_equal(workers[i].figures.replayed, 3);
		assert_int_equal(workers[i].figures.accepted, 200);
		assert_int_equal(workers[i].figures.files_aside, 0);
	}
	assert_int_equal(count_files(f, ""), 2);
	f->direct = fixture_inner(f);
	for (uint32_t i = 0; i < 12; i++) {
		struct call call;
		char tenant[8];

		snprintf(tenant, sizeof tenant, "t%u", (unsigned)i);
		call_init(&call, STORE_GET, "old");
		call.request.name.tenant = tenant;
		call.request.name.tenant_number = i + 1;
		assert_int_equal(call_run(f, f->direct, &call), RSHM_OK);
		call_fini(&call);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First: it forks. */
		cmocka_unit_test_setup_teardown(workers_start_and_work_side_by_side, setup, teardown),
		cmocka_unit_test_setup_teardown(acknowledgement_waits_for_the_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(slow_disk_makes_the_outcome_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(broken_disk_acknowledges_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(write_through_waits_for_marks_on_the_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(close_while_the_disk_hangs_answers_everybody, setup, teardown),
		cmocka_unit_test_setup_teardown(with_interval_the_disk_is_synced_behind_the_answer, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
