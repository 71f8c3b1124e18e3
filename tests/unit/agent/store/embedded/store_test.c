#include "tests/unit/agent/store/embedded/fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include <lmdb.h>

static int setup(void **state)
{
	static struct fixture f;

	fixture_init(&f);
	fixture_open(&f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fixture_close(f);
	fixture_fini(f);
	return 0;
}

static void store_returns_what_was_put_and_forgets_what_was_deleted(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get_expect(f, "k", 1, NULL, 0), RSHM_MISS);
	assert_int_equal(put(f, "k", 1, "value", 5, 0), RSHM_OK);
	assert_int_equal(get_expect(f, "k", 1, "value", 5), RSHM_OK);
	assert_int_equal(put(f, "k", 1, "", 0, 0), RSHM_OK);
	assert_int_equal(get_expect(f, "k", 1, "", 0), RSHM_OK);
	assert_int_equal(simple(f, STORE_DELETE, "k", 1, 0), RSHM_OK);
	assert_int_equal(simple(f, STORE_DELETE, "k", 1, 0), RSHM_MISS);
	assert_int_equal(get_expect(f, "k", 1, NULL, 0), RSHM_MISS);
}

static void reads_are_answered_inside_submit_and_writes_are_not(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer buffer = envelope_of("k", 1, "v", 1, 0);
	struct call write, read;

	call_init(&write, STORE_PUT, "k", 1);
	write.request.envelope = buffer.bytes;
	write.request.envelope_len = buffer.length;
	store_submit(f->store, &write.request);
	assert_false(write.done);
	call_wait(&write, &f->loop);
	call_init(&read, STORE_GET, "k", 1);
	store_submit(f->store, &read.request);
	assert_true(read.done);
	assert_int_equal(read.status, RSHM_OK);
	free(read.bytes);
	envelope_buffer_fini(&buffer);
}

static void keys_may_hold_any_byte_and_any_length(void **state)
{
	struct fixture *f = *state;
	unsigned char *noise = make_noise(RSHM_KEY_MAX, 7);
	static const size_t lengths[] = {1, 2, 399, 400, 401, 402, 511, 1000, 65535};

	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
		assert_int_equal(put(f, noise, lengths[i], &lengths[i], sizeof lengths[i], 0), RSHM_OK);
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
		assert_int_equal(get_expect(f, noise, lengths[i], &lengths[i], sizeof lengths[i]), RSHM_OK);
	assert_int_equal(put(f, "a\0b", 3, "1", 1, 0), RSHM_OK);
	assert_int_equal(get_expect(f, "a\0c", 3, NULL, 0), RSHM_MISS);
	assert_int_equal(get_expect(f, "a", 1, NULL, 0), RSHM_MISS);
	assert_int_equal(simple(f, STORE_GET, noise, 65536, 0), RSHM_E_TOOBIG);
	assert_int_equal(simple(f, STORE_DELETE, noise, 65536, 0), RSHM_E_TOOBIG);
	free(noise);
}

static void tenants_generations_and_spaces_are_kept_apart(void **state)
{
	struct fixture *f = *state;
	struct call call;

	assert_int_equal(put(f, "k", 1, "v", 1, 0), RSHM_OK);
	call_init(&call, STORE_GET, "k", 1);
	call.request.name.tenant_number = 2;
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_MISS);
	call_init(&call, STORE_GET, "k", 1);
	call.request.name.generation = 2;
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_MISS);
	call_init(&call, STORE_GET, "k", 1);
	call.request.name.space = 's';
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_MISS);
}

/* Around the length at which a value gets chunks, and around each chunk's end. */
static void values_of_every_shape_come_back_whole(void **state)
{
	struct fixture *f = *state;
	static const size_t lengths[] = {65520 - 74, 65520 - 73, 65520,  65521,   131040 - 3, 131040 - 2,
					 131040 - 1, 131040,     262144, 1 << 20, 20 << 20};
	unsigned char *noise = make_noise(20 << 20, 11);

	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		assert_int_equal(put(f, "big", 3, noise + i, lengths[i] - i, 0), RSHM_OK);
		assert_int_equal(get_expect(f, "big", 3, noise + i, lengths[i] - i), RSHM_OK);
		assert_int_equal(status_of(f->store).entries, 1);
		assert_int_equal(status_of(f->store).bytes, 17 + 72 + 4 + lengths[i] - i);
	}
	assert_int_equal(put(f, "big", 3, "small", 5, 0), RSHM_OK);
	assert_int_equal(get_expect(f, "big", 3, "small", 5), RSHM_OK);
	assert_int_equal(simple(f, STORE_DELETE, "big", 3, 0), RSHM_OK);
	assert_int_equal(status_of(f->store).entries, 0);
	assert_int_equal(status_of(f->store).bytes, 0);
	free(noise);
}

static void head_gives_as_much_as_was_asked_for(void **state)
{
	struct fixture *f = *state;
	unsigned char *noise = make_noise(300000, 13);
	static const size_t wanted[] = {0, 72, 100, 65520, 65592, 65593, 200000, 400000};
	static const size_t sizes[] = {500, 300000};

	for (size_t s = 0; s < 2; s++) {
		struct envelope_buffer buffer = envelope_of("k", 1, noise, sizes[s], 0);

		assert_int_equal(put(f, "k", 1, noise, sizes[s], 0), RSHM_OK);
		for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
			size_t expected = wanted[i] < 72 ? 72 : wanted[i];
			struct envelope_head head;
			struct call call;

			call_init(&call, STORE_HEAD, "k", 1);
			call.request.head_bytes = wanted[i];
			assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_OK);
			assert_int_equal(call.length, expected < buffer.length ? expected : buffer.length);
			assert_int_equal(envelope_peek_head(call.bytes, call.length, &head), RSHM_OK);
			/* Behind the head, which names the time it was made. */
			assert_memory_equal(call.bytes + 72, (char *)buffer.bytes + 72, call.length - 72);
			free(call.bytes);
		}
		envelope_buffer_fini(&buffer);
	}
	assert_int_equal(simple(f, STORE_HEAD, "none", 4, 0), RSHM_MISS);
	free(noise);
}

static void expired_entries_are_missed_at_once(void **state)
{
	struct fixture *f = *state;
	uint64_t now_ms = clock_realtime_ms();
	struct call call;

	assert_int_equal(put(f, "k", 1, "v", 1, now_ms + 200), RSHM_OK);
	call_init(&call, STORE_GET, "k", 1);
	assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_OK);
	assert_in_range(call.remaining_ms, 1, 200);
	free(call.bytes);
	while (clock_realtime_ms() < now_ms + 200)
		usleep(1000);
	assert_int_equal(get_expect(f, "k", 1, NULL, 0), RSHM_MISS);
	assert_int_equal(simple(f, STORE_HEAD, "k", 1, 0), RSHM_MISS);
	assert_int_equal(simple(f, STORE_TOUCH, "k", 1, now_ms + 100000), RSHM_MISS);
	/* It is still in the file, which is nobody's business. */
	assert_int_equal(status_of(f->store).entries, 1);
	assert_int_equal(simple(f, STORE_DELETE, "k", 1, 0), RSHM_MISS);
	assert_int_equal(status_of(f->store).entries, 0);
}

static void touch_moves_the_expiry_in_store_and_envelope(void **state)
{
	struct fixture *f = *state;
	uint64_t now_ms = clock_realtime_ms();
	unsigned char *noise = make_noise(200000, 17);
	static const size_t sizes[] = {10, 200000};

	for (size_t i = 0; i < 2; i++) {
		struct envelope_view view;
		struct call call;

		assert_int_equal(put(f, "k", 1, noise, sizes[i], now_ms + 500), RSHM_OK);
		assert_int_equal(simple(f, STORE_TOUCH, "k", 1, now_ms + 7200000), RSHM_OK);
		call_init(&call, STORE_GET, "k", 1);
		assert_int_equal(call_run(&call, f->store, &f->loop), RSHM_OK);
		assert_in_range(call.remaining_ms, 7100000, 7200000);
		assert_int_equal(envelope_open(call.bytes, call.length, "k", 1, &view), RSHM_OK);
		assert_int_equal(view.head.expiry_ms, now_ms + 7200000);
		assert_int_equal(view.head.expiry_bucket % 60, 0);
		assert_memory_equal(view.payload, noise, sizes[i]);
		free(call.bytes);
		assert_int_equal(simple(f, STORE_TOUCH, "k", 1, 0), RSHM_OK);
		assert_int_equal(get_expect(f, "k", 1, noise, sizes[i]), RSHM_OK);
	}
	assert_int_equal(simple(f, STORE_TOUCH, "none", 4, 0), RSHM_MISS);
	free(noise);
}

static void sweep_removes_what_expired_and_nothing_else(void **state)
{
	struct fixture *f = *state;
	struct embedded_config config = f->config;
	uint64_t now_ms = clock_realtime_ms();
	char *noise = (char *)make_noise(100000, 19);

	for (int i = 0; i < 300; i++) {
		char key[16];
		size_t length = (size_t)snprintf(key, sizeof key, "key %d", i);
		uint64_t expiry_ms = i % 3 == 0 ? 0 : i % 3 == 1 ? now_ms + 1 : now_ms + 3600000;

		assert_int_equal(put(f, key, length, noise, i % 10 == 1 ? 100000 : 10, expiry_ms), RSHM_OK);
	}
	/* Touched away from its old place in the index, and back from no expiry into it. */
	assert_int_equal(put(f, "saved", 5, "v", 1, clock_realtime_ms() + 20000), RSHM_OK);
	assert_int_equal(simple(f, STORE_TOUCH, "saved", 5, now_ms + 3600000), RSHM_OK);
	assert_int_equal(simple(f, STORE_TOUCH, "key 0", 5, now_ms + 1), RSHM_OK);
	config.expire_interval_ms = 20;
	config.expire_batch_max = 7;
	f->store->ops->reload(f->store, &config);
	for (int i = 0; i < 500 && status_of(f->store).entries != 200; i++)
		usleep(10000);
	assert_int_equal(status_of(f->store).entries, 200);
	assert_int_equal(get_expect(f, "saved", 5, "v", 1), RSHM_OK);
	assert_int_equal(get_expect(f, "key 0", 5, NULL, 0), RSHM_MISS);
	assert_int_equal(get_expect(f, "key 3", 5, noise, 10), RSHM_OK);
	free(noise);
}

struct nested {
	struct call call;
	struct fixture *fixture;
	struct nested *inner;
	unsigned depth, *deepest;
	bool done;
};
static unsigned nested_depth;

static void nested_on_done(struct store_request *request)
{
	struct nested *nested = request->context;
	unsigned char before[80];

	assert_int_equal(request->status, RSHM_OK);
	memcpy(before, request->result, sizeof before);
	if (++nested_depth > *nested->deepest)
		*nested->deepest = nested_depth;
	if (nested->inner != NULL)
		store_submit(nested->fixture->store, &nested->inner->call.request);
	nested_depth--;
	/* The inner read did not end ours. */
	assert_memory_equal(request->result, before, sizeof before);
	nested->done = true;
}

static void reads_from_inside_answers_are_served_with_bounded_depth(void **state)
{
	struct fixture *f = *state;
	static struct nested chain[100];
	unsigned deepest = 0;

	memset(chain, 0, sizeof chain);
	assert_int_equal(put(f, "k", 1, "0123456789", 10, 0), RSHM_OK);
	for (size_t i = 0; i < 100; i++) {
		chain[i].fixture = f;
		chain[i].inner = i < 99 ? &chain[i + 1] : NULL;
		chain[i].deepest = &deepest;
		call_init(&chain[i].call, STORE_GET, "k", 1);
		chain[i].call.request.done = nested_on_done;
		chain[i].call.request.context = &chain[i];
	}
	store_submit(f->store, &chain[0].call.request);
	while (!chain[99].done)
		uv_run(&f->loop, UV_RUN_ONCE);
	assert_in_range(deepest, 2, 8);
	assert_int_equal(status_of(f->store).pending, 0);
}

static void malformed_puts_are_refused_later_and_not_inside_submit(void **state)
{
	struct fixture *f = *state;
	unsigned char bytes[ENVELOPE_HEAD_BYTES] = {0};
	struct call call;

	call_init(&call, STORE_PUT, "k", 1);
	call.request.envelope = bytes;
	call.request.envelope_len = sizeof bytes - 1;
	store_submit(f->store, &call.request);
	assert_false(call.done);
	call_wait(&call, &f->loop);
	assert_int_equal(call.status, RSHM_E_INVALID);
	assert_int_equal(status_of(f->store).failed, 1);
}

static void writes_that_wait_are_committed_together(void **state)
{
	struct fixture *f = *state;
	enum { WRITES = 1000 };
	static struct call calls[WRITES];
	static char keys[WRITES][16];
	struct envelope_buffer buffers[WRITES];
	uint64_t commits, writes, commits_after, writes_after;
	int release;
	pid_t child;

	embedded_env_commits(f->env, &commits, &writes);
	child = hold_writer(f, &release);
	for (int i = 0; i < WRITES; i++) {
		size_t length = (size_t)snprintf(keys[i], sizeof keys[i], "key %d", i);

		buffers[i] = envelope_of(keys[i], length, &i, sizeof i, 0);
		call_init(&calls[i], STORE_PUT, keys[i], length);
		calls[i].request.envelope = buffers[i].bytes;
		calls[i].request.envelope_len = buffers[i].length;
		store_submit(f->store, &calls[i].request);
	}
	assert_int_equal(status_of(f->store).pending, WRITES);
	release_writer(child, release);
	for (int i = 0; i < WRITES; i++) {
		call_wait(&calls[i], &f->loop);
		assert_int_equal(calls[i].status, RSHM_OK);
		assert_int_equal(get_expect(f, keys[i], strlen(keys[i]), &i, sizeof i), RSHM_OK);
		envelope_buffer_fini(&buffers[i]);
	}
	embedded_env_commits(f->env, &commits_after, &writes_after);
	assert_int_equal(writes_after - writes, WRITES);
	/* The first one alone or with some, then at most 512 at a time. */
	assert_in_range(commits_after - commits, 2, 3);
	assert_int_equal(status_of(f->store).pending, 0);
	assert_int_equal(status_of(f->store).entries, WRITES);
}

static void overdue_writes_are_refused_and_not_done(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer buffer = envelope_of("k", 1, "v", 1, 0);
	struct call calls[3];
	int release;
	pid_t child = hold_writer(f, &release);
	uint64_t begin_ms = clock_monotonic_ms();

	for (int i = 0; i < 3; i++) {
		call_init(&calls[i], STORE_PUT, "k", 1);
		calls[i].request.envelope = buffer.bytes;
		calls[i].request.envelope_len = buffer.length;
		calls[i].request.deadline_ms = begin_ms + 100;
		store_submit(f->store, &calls[i].request);
		/* The writer takes the first one. */
		if (i == 0)
			usleep(50000);
	}
	call_wait(&calls[1], &f->loop);
	call_wait(&calls[2], &f->loop);
	assert_int_equal(calls[1].status, RSHM_E_TIMEDOUT);
	assert_int_equal(calls[2].status, RSHM_E_TIMEDOUT);
	assert_in_range(clock_monotonic_ms() - begin_ms, 100, 2000);
	/* The first one waits with the writer, unless a sweep held it when the write came: then it waited like the others. */
	release_writer(child, release);
	call_wait(&calls[0], &f->loop);
	assert_int_equal(calls[0].status, RSHM_E_TIMEDOUT);
	assert_int_equal(get_expect(f, "k", 1, NULL, 0), RSHM_MISS);
	envelope_buffer_fini(&buffer);
}

static void full_queue_says_again_and_reads_go_on(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer buffer = envelope_of("k", 1, "v", 1, 0);
	struct embedded_config config = f->config;
	struct call calls[20];
	int release, again = 0, ok = 0;
	pid_t child;

	assert_int_equal(put(f, "old", 3, "v", 1, 0), RSHM_OK);
	config.queue_max = 10;
	f->store->ops->reload(f->store, &config);
	child = hold_writer(f, &release);
	for (int i = 0; i < 20; i++) {
		call_init(&calls[i], STORE_PUT, "k", 1);
		calls[i].request.envelope = buffer.bytes;
		calls[i].request.envelope_len = buffer.length;
		store_submit(f->store, &calls[i].request);
		assert_false(calls[i].done);
		if (i == 0)
			usleep(50000);
	}
	assert_int_equal(get_expect(f, "old", 3, "v", 1), RSHM_OK);
	call_wait(&calls[19], &f->loop);
	assert_int_equal(calls[19].status, RSHM_E_AGAIN);
	release_writer(child, release);
	for (int i = 0; i < 20; i++) {
		call_wait(&calls[i], &f->loop);
		again += calls[i].status == RSHM_E_AGAIN;
		ok += calls[i].status == RSHM_OK;
	}
	assert_int_equal(ok, 11);
	assert_int_equal(again, 9);
	envelope_buffer_fini(&buffer);
}

static void close_answers_all_that_is_queued(void **state)
{
	struct fixture *f = *state;
	struct envelope_buffer buffer = envelope_of("k", 1, "v", 1, 0);
	struct call calls[50], late;
	bool closed = false;

	for (int i = 0; i < 50; i++) {
		call_init(&calls[i], STORE_PUT, "k", 1);
		calls[i].request.envelope = buffer.bytes;
		calls[i].request.envelope_len = buffer.length;
		store_submit(f->store, &calls[i].request);
	}
	store_close(f->store, fixture_on_closed, &closed);
	call_init(&late, STORE_GET, "k", 1);
	store_submit(f->store, &late.request);
	assert_false(late.done);
	while (!closed)
		uv_run(&f->loop, UV_RUN_ONCE);
	for (int i = 0; i < 50; i++) {
		assert_true(calls[i].done);
		assert_int_equal(calls[i].status, RSHM_OK);
	}
	assert_int_equal(late.status, RSHM_E_CLOSED);
	assert_int_equal(embedded_store_create(f->env, &f->loop, &f->store), RSHM_OK);
	assert_int_equal(get_expect(f, "k", 1, "v", 1), RSHM_OK);
	envelope_buffer_fini(&buffer);
}

static void entries_and_counts_are_there_after_reopening(void **state)
{
	struct fixture *f = *state;
	unsigned char *noise = make_noise(200000, 23);
	uint64_t bytes;

	assert_int_equal(put(f, "a", 1, "1", 1, 0), RSHM_OK);
	assert_int_equal(put(f, "b", 1, noise, 200000, clock_realtime_ms() + 100000), RSHM_OK);
	bytes = status_of(f->store).bytes;
	for (int i = 0; i < 3; i++) {
		fixture_close(f);
		f->config.sync = (enum embedded_sync)i;
		fixture_open(f);
		assert_int_equal(get_expect(f, "a", 1, "1", 1), RSHM_OK);
		assert_int_equal(get_expect(f, "b", 1, noise, 200000), RSHM_OK);
		assert_int_equal(status_of(f->store).entries, 2);
		assert_int_equal(status_of(f->store).bytes, bytes);
	}
	/* Ids of chunks go on: the next big value does not run into the old one. */
	assert_int_equal(put(f, "c", 1, noise + 1, 190000, 0), RSHM_OK);
	assert_int_equal(get_expect(f, "b", 1, noise, 200000), RSHM_OK);
	free(noise);
}

static void tenant_numbers_are_kept_and_never_given_twice(void **state)
{
	struct fixture *f = *state;
	uint32_t first = 0, second = 0, again = 0, third = 0;

	assert_int_equal(embedded_env_tenant_number(f->env, "acme", &first), RSHM_OK);
	assert_int_equal(embedded_env_tenant_number(f->env, "globex", &second), RSHM_OK);
	assert_int_equal(embedded_env_tenant_number(f->env, "acme", &again), RSHM_OK);
	assert_true(first != 0 && second != 0 && first != second);
	assert_int_equal(first, again);
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(embedded_env_tenant_number(f->env, "globex", &again), RSHM_OK);
	assert_int_equal(second, again);
	assert_int_equal(embedded_env_tenant_number(f->env, "initech", &third), RSHM_OK);
	assert_true(third != first && third != second);
	assert_int_equal(embedded_env_tenant_number(f->env, "../x", &third), RSHM_E_INVALID);
	assert_int_equal(embedded_env_tenant_number(f->env, "", &third), RSHM_E_INVALID);
}

static void status_names_the_folder_and_counts_answers(void **state)
{
	struct fixture *f = *state;
	struct store_status status;

	assert_int_equal(put(f, "k", 1, "v", 1, 0), RSHM_OK);
	assert_int_equal(simple(f, STORE_GET, "none", 4, 0), RSHM_MISS);
	status = status_of(f->store);
	assert_string_equal(status.name, "embedded");
	assert_true(status.ready);
	assert_non_null(strstr(status.detail, f->path));
	assert_int_equal(status.completed, 2);
	assert_int_equal(status.failed, 0);
	assert_int_equal(status.pending, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(store_returns_what_was_put_and_forgets_what_was_deleted),
		TEST(reads_are_answered_inside_submit_and_writes_are_not),
		TEST(keys_may_hold_any_byte_and_any_length),
		TEST(tenants_generations_and_spaces_are_kept_apart),
		TEST(values_of_every_shape_come_back_whole),
		TEST(head_gives_as_much_as_was_asked_for),
		TEST(expired_entries_are_missed_at_once),
		TEST(touch_moves_the_expiry_in_store_and_envelope),
		TEST(sweep_removes_what_expired_and_nothing_else),
		TEST(reads_from_inside_answers_are_served_with_bounded_depth),
		TEST(malformed_puts_are_refused_later_and_not_inside_submit),
		TEST(writes_that_wait_are_committed_together),
		TEST(overdue_writes_are_refused_and_not_done),
		TEST(full_queue_says_again_and_reads_go_on),
		TEST(close_answers_all_that_is_queued),
		TEST(entries_and_counts_are_there_after_reopening),
		TEST(tenant_numbers_are_kept_and_never_given_twice),
		TEST(status_names_the_folder_and_counts_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
