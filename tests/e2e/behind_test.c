/*
 * behind_test.c - write-behind, and an agent that is killed at any moment of it.
 *
 * The promises: an acknowledged write is never lost, an older value never stands on top of a newer one, a deleted key never
 * comes back. Each key has one writer process, which notes in shared memory what it began and what was acknowledged; value
 * numbers grow, and an even number means "deleted".
 */
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/order.h"
#include "tests/e2e/both_stores.h"

#define KEYS 48
#define WRITERS 2
#define READERS 1
#define KILLS_SHORT 200

struct ledger {
	struct line {
		uint64_t begun, acknowledged;
	} keys[KEYS];
	uint64_t writes, accepted, unknown, refused, reads, wrong, lost, revived, errors;
	int64_t last_error;
	uint32_t end;
};

struct worker {
	struct fixture *f;
	struct ledger *ledger;
	int number;
};

static const char *const *both_settings(void)
{
	static const char *const settings[] = {
		"cache.write_mode=behind",  "behind.flush_interval_ms=20",  "behind.flush_records=50",
		"behind.segment_bytes=64K", "redis.retry_max_delay_ms=100", NULL,
	};

	return settings;
}

static void count(uint64_t *counter)
{
	rshm_add_relaxed(counter, 1);
}

/* Number n of a key: odd = its value is n and 100 bytes of it, even = it is deleted. */
static int write_number(riptide *handle, uint64_t key, uint64_t n, uint32_t *ret_flags)
{
	struct riptide_set_options options = {.size = sizeof(options), .ret_flags = ret_flags};
	uint64_t value[13];
	int status;

	*ret_flags = 0;
	if (n % 2 == 0) {
		status = riptide_delete(handle, &key, sizeof(key));
		return status == RIPTIDE_MISS ? RIPTIDE_OK : status;
	}
	for (size_t i = 0; i < 13; i++)
		value[i] = n;
	return riptide_set(handle, &key, sizeof(key), value, sizeof(value), &options, NULL);
}

static void write_next(struct ledger *l, riptide *handle, uint64_t key)
{
	struct line *line = &l->keys[key];
	uint64_t n = line->begun + 1;
	uint32_t flags;
	int status;

	rshm_store_release(&line->begun, n);
	status = write_number(handle, key, n, &flags);
	count(&l->writes);
	if (status == RIPTIDE_OK) {
		rshm_store_release(&line->acknowledged, n);
		if (flags & RIPTIDE_ACCEPTED)
			count(&l->accepted);
	} else if (status == RIPTIDE_EUNKNOWN) {
		count(&l->unknown);
	} else if (riptide_error_is_retryable(status)) {
		count(&l->refused);
	} else {
		l->last_error = status;
		count(&l->errors);
	}
}

/* What is read must be what some write from [acknowledged before, begun after] left. */
static void read_and_judge(struct ledger *l, riptide *handle, uint64_t key)
{
	uint64_t least = rshm_load_acquire(&l->keys[key].acknowledged), most, value[13] = {0};
	size_t length = 0;
	int status = riptide_get_into(handle, &key, sizeof(key), value, sizeof(value), &length, NULL);

	most = rshm_load_acquire(&l->keys[key].begun);
	count(&l->reads);
	if (status == RIPTIDE_MISS) {
		/* Some delete of the range, or never written. */
		if (least % 2 == 1 && most == least)
			count(&l->lost);
	} else if (status == RIPTIDE_OK) {
		for (size_t i = 1; i < 13; i++)
			if (length != sizeof(value) || value[i] != value[0])
				count(&l->wrong);
		if (value[0] > most || (value[0] < least && value[0] % 2 == 1))
			count(least % 2 == 0 && value[0] < least ? &l->revived : &l->lost);
	} else if (!riptide_error_is_retryable(status)) {
		l->last_error = status;
		count(&l->errors);
	}
}

static int writer_main(void *context)
{
	struct worker *w = context;

	for (uint64_t i = 0; !rshm_load_relaxed32(&w->ledger->end); i++) {
		write_next(w->ledger, w->f->handle, (i * WRITERS + (uint64_t)w->number) % KEYS);
		if (i % 64 == 0)
			usleep(500);
	}
	return 0;
}

static int reader_main(void *context)
{
	struct worker *w = context;

	for (uint64_t i = 0; !rshm_load_relaxed32(&w->ledger->end); i++) {
		read_and_judge(w->ledger, w->f->handle, i * 7 % KEYS);
		if (i % 1024 == 0)
			usleep(100);
	}
	return 0;
}

static void assert_promises_held(const struct ledger *l)
{
	print_message("%llu writes (%llu accepted, %llu unknown, %llu refused), %llu reads; last error %lld\n",
		      (unsigned long long)l->writes, (unsigned long long)l->accepted, (unsigned long long)l->unknown,
		      (unsigned long long)l->refused, (unsigned long long)l->reads, (long long)l->last_error);
	assert_int_equal(l->wrong, 0);
	assert_int_equal(l->lost, 0);
	assert_int_equal(l->revived, 0);
	assert_int_equal(l->errors, 0);
	assert_true(l->accepted > 0);
}

static void kills_lose_and_revive_nothing(void **state)
{
	struct fixture *f = both_fixture(state);
	struct ledger *l = mmap(NULL, sizeof(*l), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct worker workers[WRITERS + READERS];
	const char *wanted = getenv("RIPTIDE_BEHIND_KILLS");
	int kills = wanted ? atoi(wanted) : KILLS_SHORT;
	pid_t pids[WRITERS + READERS];

	for (int i = 0; i < WRITERS + READERS; i++) {
		workers[i] = (struct worker){.f = f, .ledger = l, .number = i};
		pids[i] = e2e_fork(i < WRITERS ? writer_main : reader_main, &workers[i]);
	}
	for (int i = 0; i < kills; i++) {
		e2e_pause_ms(10 + rand() % 80);
		assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
		assert_int_equal(agent_process_restart(&f->agent), 0);
	}
	rshm_store_relaxed32(&l->end, 1);
	for (int i = 0; i < WRITERS + READERS; i++)
		assert_int_equal(e2e_join(pids[i], 20000), 0);
	/* From the ring, from the journal's table, and at last from the store alone. */
	for (uint64_t key = 0; key < KEYS; key++)
		read_and_judge(l, f->handle, key);
	assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(riptide_flush(f->handle), RIPTIDE_OK);
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	for (uint64_t key = 0; key < KEYS; key++)
		read_and_judge(l, f->handle, key);
	assert_promises_held(l);
	munmap(l, sizeof(*l));
}

static void accepted_and_stored_are_told_apart_and_flush_is_a_barrier(void **state)
{
	struct fixture *f = both_fixture(state);
	uint32_t flags = 99;
	struct riptide_set_options behind = {.size = sizeof(behind), .ret_flags = &flags};
	struct riptide_set_options through = {
		.size = sizeof(through), .ret_flags = &flags, .write_mode = RIPTIDE_WRITE_THROUGH};

	assert_int_equal(riptide_set(f->handle, "a", 1, "1", 1, &behind, NULL), RIPTIDE_OK);
	assert_int_equal(flags, RIPTIDE_ACCEPTED);
	assert_int_equal(riptide_set(f->handle, "b", 1, "2", 1, &through, NULL), RIPTIDE_OK);
	assert_int_equal(flags, 0);
	assert_int_equal(e2e_check(f->handle, "a", "1", NULL), RIPTIDE_OK);
	assert_int_equal(riptide_set(f->handle, "a", 1, "3", 1, &through, NULL), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "a", "3", NULL), RIPTIDE_OK);
	for (int i = 0; i < 200; i++)
		assert_int_equal(e2e_put(f->handle, "same", "again"), RIPTIDE_OK);
	assert_int_equal(riptide_flush(f->handle), RIPTIDE_OK);
	assert_true(e2e_await(&f->agent, "workers.0.journal.accepted", 201, 3000) >= 201);
	assert_true(e2e_await(&f->agent, "workers.0.journal.coalesced", 1, 3000) >= 1);
	assert_true(e2e_await_exactly(&f->agent, "workers.0.journal.records", 0, 3000));
}

static void what_was_accepted_while_the_server_was_away_reaches_it(void **state)
{
	struct fixture *f = both_fixture(state);
	char key[16];

	if (!f->redis)
		skip();
	redis_server_kill(&f->server);
	for (int i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(e2e_put(f->handle, key, "kept"), RIPTIDE_OK);
	}
	assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(redis_server_restart(&f->server), 0);
	for (int i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(e2e_await_check(f->handle, key, "kept", RIPTIDE_OK, 5000), RIPTIDE_OK);
	}
	assert_int_equal(riptide_flush(f->handle), RIPTIDE_OK);
	assert_true(e2e_number(&f->agent, "workers.0.journal.replayed") >= 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(accepted_and_stored_are_told_apart_and_flush_is_a_barrier),
		BOTH_STORES(what_was_accepted_while_the_server_was_away_reaches_it),
		BOTH_STORES(kills_lose_and_revive_nothing),
	};

	srand((unsigned int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
