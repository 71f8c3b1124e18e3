/*
 * A child process writes as fast as it can and reports each acknowledged write through a pipe; it is killed
 * at a random moment. Whatever was reported must be there afterwards, whole, and the next child goes on
 * with the same file.
 */
#include "tests/unit/agent/store/embedded/fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define KEYS 500
#define IN_FLIGHT 32

/* A value that says which write it is of. */
static size_t make_value(unsigned char *value, uint32_t key, uint32_t number)
{
	size_t length = number % 13 == 0 ? 150000 : 20 + number % 3000;

	for (size_t i = 0; i < length; i++)
		value[i] = (unsigned char)(number * 31 + key + i);
	memcpy(value, &number, sizeof number);
	memcpy(value + 4, &key, sizeof key);
	return length;
}

struct report {
	uint32_t key, number;
};

struct slot {
	struct call call;
	struct report report;
	struct envelope_buffer buffer;
	bool busy;
};

/* Never returns: killed. */
static void child_writes(struct fixture *f, int out, uint32_t number)
{
	static struct slot slots[IN_FLIGHT];
	static unsigned char value[200000];

	fixture_open(f);
	for (;;) {
		for (int i = 0; i < IN_FLIGHT; i++) {
			struct slot *slot = &slots[i];

			if (slot->busy && slot->call.done) {
				if (slot->call.status != RSHM_OK ||
				    write(out, &slot->report, sizeof slot->report) != sizeof slot->report)
					_exit(1);
				envelope_buffer_fini(&slot->buffer);
				slot->busy = false;
			}
			if (!slot->busy) {
				/* Each key has one write under way at a time, so its numbers only grow. */
				slot->report.number = ++number;
				slot->report.key = (uint32_t)i + IN_FLIGHT * (number % (KEYS / IN_FLIGHT));
				slot->buffer = envelope_of(&slot->report.key, 4, value,
							   make_value(value, slot->report.key, number), 0);
				call_init(&slot->call, STORE_PUT, &slot->report.key, 4);
				slot->call.request.envelope = slot->buffer.bytes;
				slot->call.request.envelope_len = slot->buffer.length;
				slot->busy = true;
				store_submit(f->store, &slot->call.request);
			}
		}
		uv_run(&f->loop, UV_RUN_ONCE);
	}
}

static uint32_t check_all(struct fixture *f, const uint32_t acknowledged[KEYS])
{
	static unsigned char expected[200000];
	uint32_t newest = 0;

	for (uint32_t key = 0; key < KEYS; key++) {
		struct envelope_view view;
		struct call call;
		uint32_t number;

		call_init(&call, STORE_GET, &key, 4);
		if (call_run(&call, f->store, &f->loop) == RSHM_MISS) {
			assert_int_equal(acknowledged[key], 0);
			continue;
		}
		assert_int_equal(call.status, RSHM_OK);
		assert_int_equal(envelope_open(call.bytes, call.length, &key, 4, &view), RSHM_OK);
		memcpy(&number, view.payload, 4);
		assert_true(number >= acknowledged[key]);
		assert_int_equal(view.head.plain_size, make_value(expected, key, number));
		assert_memory_equal(view.payload, expected, view.head.plain_size);
		newest = number > newest ? number : newest;
		free(call.bytes);
	}
	return newest;
}

static uint64_t kill_often(enum embedded_sync sync, int kills)
{
	struct fixture f;
	uint32_t acknowledged[KEYS] = {0}, newest = 0;
	uint64_t reported = 0;

	fixture_init(&f);
	f.config.sync = sync;
	f.config.sync_interval_ms = 20;
	for (int i = 0; i < kills; i++) {
		struct timespec pause = {0, 20000000 + rand() % 100000000};
		struct report report;
		int pipes[2], status;
		pid_t child;

		assert_int_equal(pipe(pipes), 0);
		child = fork();
		assert_true(child >= 0);
		if (child == 0) {
			close(pipes[0]);
			child_writes(&f, pipes[1], newest);
		}
		close(pipes[1]);
		/* Keep the pipe empty until the child is dead. */
		for (uint64_t end = clock_monotonic_ns() + (uint64_t)pause.tv_nsec; clock_monotonic_ns() < end;) {
			if (read(pipes[0], &report, sizeof report) != sizeof report)
				break;
			acknowledged[report.key] = report.number;
			reported++;
		}
		kill(child, SIGKILL);
		while (read(pipes[0], &report, sizeof report) == sizeof report) {
			acknowledged[report.key] = report.number;
			reported++;
		}
		close(pipes[0]);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		fixture_open(&f);
		newest = check_all(&f, acknowledged);
		fixture_close(&f);
	}
	fixture_fini(&f);
	return reported;
}

static void acknowledged_writes_survive_kills_with_sync_none(void **state)
{
	(void)state;
	print_message("%lu acknowledged writes\n", (unsigned long)kill_often(EMBEDDED_SYNC_NONE, 20));
}

static void acknowledged_writes_survive_kills_with_sync_interval(void **state)
{
	(void)state;
	print_message("%lu acknowledged writes\n", (unsigned long)kill_often(EMBEDDED_SYNC_INTERVAL, 15));
}

static void acknowledged_writes_survive_kills_with_sync_always(void **state)
{
	(void)state;
	print_message("%lu acknowledged writes\n", (unsigned long)kill_often(EMBEDDED_SYNC_ALWAYS, 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(acknowledged_writes_survive_kills_with_sync_none),
		cmocka_unit_test(acknowledged_writes_survive_kills_with_sync_interval),
		cmocka_unit_test(acknowledged_writes_survive_kills_with_sync_always),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
