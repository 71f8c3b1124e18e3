/*
 * A child process writes as fast as it can: accepted and through, puts and deletes, some that expire soon. It tells
 * through a pipe what it begins and what was acknowledged, and is killed at a random moment: while it takes over the
 * journals of the one before, while it writes, while it flushes. What the next one, or we, find must be for every key
 * the write that was acknowledged last, or one that was begun after it: nothing acknowledged is lost, nothing older
 * comes on top, nothing deleted comes back. Once through the journal, and once more in the store below after all was
 * flushed.
 */
#include "tests/unit/agent/store/behind/fixture.h"

#include <poll.h>

#define KEYS 24u
#define SLOTS 12u
#define MAYBE_MAX 64u

enum phase { PHASE_BEGUN, PHASE_DONE, PHASE_NOTHING };

/* What goes through the pipe; smaller than PIPE_BUF. */
struct report {
	uint32_t phase, key;
	uint64_t version, expiry_ms;
	bool removes;
};

struct model {
	struct report acknowledged;
	struct report maybe[MAYBE_MAX]; /* begun after that, outcome not known */
	uint32_t maybe_count;
};

struct slot {
	struct call call;
	struct report report;
	char key[16];
	bool busy;
};

struct world {
	struct fixture f;
	struct model models[KEYS];
	uint64_t version; /* of the newest write that was begun */
	uint64_t acknowledged, kills, replayed;
};

static int setup_embedded(void **state)
{
	static struct world w;

	memset(&w, 0, sizeof w);
	fixture_init(&w.f, BACKEND_EMBEDDED);
	*state = &w;
	return 0;
}

static int setup_redis(void **state)
{
	static struct world w;

	memset(&w, 0, sizeof w);
	fixture_init(&w.f, BACKEND_REDIS);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	fixture_fini(&((struct world *)*state)->f);
	return 0;
}

/* ---- the child ------------------------------------------------------------------------------------------------ */

static void tell(int out, struct report *report, enum phase phase)
{
	report->phase = phase;
	if (write(out, report, sizeof *report) != sizeof *report)
		_exit(1);
}

static void slot_begin(struct slot *slot, uint32_t index, uint64_t version, int out)
{
	int dice = rand() % 100;
	bool removes = dice < 25;
	char value[1500];

	slot->report = (struct report){
		.key = index + SLOTS * ((uint32_t)rand() % (KEYS / SLOTS)),
		.version = version,
		.removes = removes,
		.expiry_ms = dice >= 90 ? clock_realtime_ms() + 1 + (uint64_t)rand() % 30 : 0,
	};
	snprintf(slot->key, sizeof slot->key, "key%u", (unsigned)slot->report.key);
	snprintf(value, sizeof value, "%0*d", 10 + rand() % 1400, (int)version);
	call_init(&slot->call, removes ? STORE_DELETE : STORE_PUT, slot->key);
	call_load(&slot->call, removes ? NULL : value, version, slot->report.expiry_ms);
	slot->call.request.behind = rand() % 100 < 75;
	slot->busy = true;
	tell(out, &slot->report, PHASE_BEGUN);
}

/* Never returns: killed. */
static void child_writes(struct world *w, int out)
{
	static struct slot slots[SLOTS];
	struct fixture *f = &w->f;

	srand((unsigned)(w->version ^ (uint64_t)getpid()));
	fixture_open(f);
	uv_timer_start(&f->guard, fixture_on_guard, 1, 1);
	for (;;) {
		for (uint32_t i = 0; i < SLOTS; i++) {
			struct slot *slot = &slots[i];

			if (slot->busy && slot->call.done) {
				int status = slot->call.status;

				if (status == RSHM_OK || status == RSHM_MISS)
					tell(out, &slot->report, PHASE_DONE);
				else if (status != RSHM_E_UNKNOWN)
					tell(out, &slot->report, PHASE_NOTHING);
				call_fini(&slot->call);
				slot->busy = false;
			}
			if (!slot->busy && rand() % 4 != 0) {
				slot_begin(slot, i, ++w->version, out);
				store_submit(f->store, &slot->call.request);
			}
		}
		uv_run(&f->loop, UV_RUN_ONCE);
	}
}

/* ---- what must hold ------------------------------------------------------------------------------------------- */

static void model_note(struct world *w, const struct report *report)
{
	struct model *model = &w->models[report->key];
	uint32_t kept = 0;

	assert_true(report->key < KEYS);
	if (report->version > w->version)
		w->version = report->version;
	if (report->phase == PHASE_BEGUN) {
		assert_true(model->maybe_count < MAYBE_MAX);
		model->maybe[model->maybe_count++] = *report;
		return;
	}
	if (report->phase == PHASE_DONE) {
		model->acknowledged = *report;
		w->acknowledged++;
	}
	for (uint32_t i = 0; i < model->maybe_count; i++)
		if (report->phase == PHASE_DONE ? model->maybe[i].version > report->version
						: model->maybe[i].version != report->version)
			model->maybe[kept++] = model->maybe[i];
	model->maybe_count = kept;
}

/* Whether `found` (0: nothing) may be what is left of this write. */
static bool may_be(const struct report *write, uint64_t found)
{
	bool expired = write->expiry_ms != 0 && write->expiry_ms <= clock_realtime_ms();

	if (found == 0)
		return write->removes || expired || write->version == 0;
	return !write->removes && write->version == found;
}

static uint64_t version_of(struct world *w, struct store *store, uint32_t key)
{
	struct envelope_view view;
	uint64_t found = 0;
	struct call call;
	char name[16];

	snprintf(name, sizeof name, "key%u", (unsigned)key);
	call_init(&call, STORE_GET, name);
	(void)call_run(&w->f, store, &call);
	if (call.status == RSHM_OK) {
		assert_int_equal(envelope_open(call.bytes, call.length, name, strlen(name), &view), RSHM_OK);
		if ((view.head.flags & ENVELOPE_FLAG_TOMBSTONE) == 0)
			found = view.head.version;
		/* Readers enforce the deadline of the envelope. */
		if (view.head.expiry_ms != 0 && view.head.expiry_ms <= clock_realtime_ms())
			found = 0;
	} else {
		assert_int_equal(call.status, RSHM_MISS);
	}
	call_fini(&call);
	return found;
}

static void check_all(struct world *w, struct store *store)
{
	for (uint32_t key = 0; key < KEYS; key++) {
		const struct model *model = &w->models[key];
		uint64_t found = version_of(w, store, key);
		bool right = may_be(&model->acknowledged, found);

		for (uint32_t i = 0; i < model->maybe_count; i++)
			right |= may_be(&model->maybe[i], found);
		if (!right)
			print_error("key%u: acknowledged %s %lu, found %lu\n", (unsigned)key,
				    model->acknowledged.removes ? "delete" : "put",
				    (unsigned long)model->acknowledged.version, (unsigned long)found);
		assert_true(right);
	}
}

/* ---- killing -------------------------------------------------------------------------------------------------- */

static void listen_until(struct world *w, int in, uint64_t end_ns)
{
	struct pollfd waiting = {.fd = in, .events = POLLIN};
	struct report report;

	while (clock_monotonic_ns() < end_ns) {
		if (poll(&waiting, 1, 1) != 1)
			continue;
		if (read(in, &report, sizeof report) != sizeof report)
			return;
		model_note(w, &report);
	}
}

static void run_and_kill(struct world *w)
{
	struct report report;
	int pipes[2], status;
	pid_t child;

	assert_int_equal(pipe(pipes), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(pipes[0]);
		(void)setenv("CMOCKA_TEST_ABORT", "1", 1);
		if (uv_loop_init(&w->f.loop) != 0 || uv_timer_init(&w->f.loop, &w->f.guard) != 0)
			_exit(1);
		child_writes(w, pipes[1]);
	}
	close(pipes[1]);
	listen_until(w, pipes[0], clock_monotonic_ns() + 1000000u * (3 + (uint64_t)rand() % 120));
	kill(child, SIGKILL);
	while (read(pipes[0], &report, sizeof report) == sizeof report)
		model_note(w, &report);
	close(pipes[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
	w->kills++;
	/* What the child has put into the server's socket is executed still. */
	usleep(w->f.backend == BACKEND_REDIS ? 20000 : 0);
}

static void kill_often(struct world *w, enum behind_sync sync, int kills)
{
	struct fixture *f = &w->f;

	f->config.segment_bytes = 16 << 10;
	f->config.flush_window = 4;
	for (int i = 0; i < kills; i++) {
		f->config.sync = sync;
		/* Now and then much waits when the end comes. */
		f->config.flush_records = rand() % 2 == 0 ? 8 : 1000;
		f->config.flush_interval_ms = rand() % 2 == 0 ? 8 : 40;
		/* And now and then it is full most of the time. */
		f->config.max_bytes = rand() % 4 == 0 ? 1 << 20 : 256 << 20;
		run_and_kill(w);
		if (rand() % 3 == 0)
			continue;
		f->config.sync = BEHIND_SYNC_NONE;
		fixture_open(f);
		w->replayed += figures(f).replayed;
		check_all(w, f->store);
		fixture_drain(f);
		check_all(w, f->store);
		check_all(w, f->direct);
		assert_int_equal(figures(f).torn_tails + figures(f).files_aside + figures(f).too_old,
				 figures(f).torn_tails);
		fixture_close(f);
	}
	print_message("%lu kills, %lu acknowledged writes, %lu replayed\n", (unsigned long)w->kills,
		      (unsigned long)w->acknowledged, (unsigned long)w->replayed);
	assert_true(w->acknowledged > (uint64_t)kills);
	assert_true(w->replayed > 0);
}

static void kills_break_no_promise_with_sync_none(void **state)
{
	kill_often(*state, BEHIND_SYNC_NONE, 40);
}

static void kills_break_no_promise_with_sync_interval(void **state)
{
	kill_often(*state, BEHIND_SYNC_INTERVAL, 20);
}

static void kills_break_no_promise_with_sync_always(void **state)
{
	kill_often(*state, BEHIND_SYNC_ALWAYS, 20);
}

#define BOTH(test)                                                       \
	cmocka_unit_test_setup_teardown(test, setup_embedded, teardown), \
	{                                                                \
#test "_on_redis", test, setup_redis, teardown, NULL     \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(kills_break_no_promise_with_sync_none),
		BOTH(kills_break_no_promise_with_sync_interval),
		BOTH(kills_break_no_promise_with_sync_always),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
