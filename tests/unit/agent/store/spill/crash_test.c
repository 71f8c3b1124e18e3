/*
 * A child process puts, removes and reads as fast as it can and is killed at a random moment; then the folder is opened
 * again, keeping what is there. Whatever comes back is whole and belongs to its key, and nothing comes back of which the
 * child knew that the disk had followed its removal or replacement.
 */
#include "tests/unit/agent/store/spill/fixture.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define KEYS 400
#define KILLS 60

/* Shared with the child: versions below this one are gone from the disk. */
static uint64_t *lowest;
static uint64_t *newest;

static void child_runs(struct fixture *f)
{
	static uint64_t pending[KEYS];

	memset(&f->loop, 0, sizeof f->loop);
	if (uv_loop_init(&f->loop) != 0)
		_exit(1);
	fixture_open(f);
	srand((unsigned)getpid());
	for (;;) {
		for (int i = rand() % 60; i >= 0; i--) {
			uint64_t key = (uint64_t)rand() % KEYS, version = ++*newest;
			struct store_name name = name_of(&key, sizeof key);

			pending[key] = version;
			if (rand() % 3 == 0)
				removed(f, key);
			else
				(void)put(f, key, version, rand() % 30 == 0 ? 200000 : (size_t)rand() % 8000);
			if (rand() % 400 == 0)
				spill_remove_all(f->spill);
			if (rand() % 3 == 0) {
				struct call call;

				call_start(&call, f->spill, &name);
				(void)call_end(&call, &f->loop);
				(void)call_check(&call, key);
			}
		}
		settle(f);
		for (uint64_t key = 0; key < KEYS; key++)
			if (pending[key] != 0)
				__atomic_store_n(&lowest[key], pending[key], __ATOMIC_RELAXED);
	}
}

static void killed_at_any_moment_nothing_wrong_comes_back(void **state)
{
	struct fixture *f = *state;
	uint64_t there = 0, corrupt = 0, runs_with_content = 0;

	lowest = mmap(NULL, (KEYS + 1) * sizeof *lowest, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(lowest, MAP_FAILED);
	newest = lowest + KEYS;
	f->config.keep = true;
	f->config.limits.bytes = 8 * MiB;
	f->config.segment_bytes = 1 << 20;
	srand(3);
	for (int i = 0; i < KILLS; i++) {
		uint64_t before = there;
		pid_t child = fork();
		int status;

		assert_true(child >= 0);
		if (child == 0)
			child_runs(f);
		usleep((useconds_t)(rand() % 120000));
		assert_int_equal(kill(child, SIGKILL), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGKILL);
		fixture_open(f);
		for (uint64_t key = 0; key < KEYS; key++) {
			uint64_t version = get(f, key);

			assert_true(version == 0 || (version >= lowest[key] && version <= *newest));
			there += version != 0;
			/* What was given back stays so. */
			lowest[key] = version > lowest[key] ? version : lowest[key];
		}
		corrupt += figures(f).corrupt;
		runs_with_content += there > before;
		fixture_close(f);
	}
	print_message("%d kills, %d operations, %d entries came back, %d corrupt\n", KILLS, (int)*newest, (int)there,
		      (int)corrupt);
	assert_true(there > KILLS);
	assert_true(runs_with_content > KILLS / 4);
	/* Records are written before what points to them. */
	assert_int_equal(corrupt, 0);
	assert_int_equal(munmap(lowest, (KEYS + 1) * sizeof *lowest), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(killed_at_any_moment_nothing_wrong_comes_back, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
