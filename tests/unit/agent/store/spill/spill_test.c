#include "tests/unit/agent/store/spill/fixture.h"

#include <sys/stat.h>

static void what_was_put_is_got_from_memory_and_from_disk(void **state)
{
	struct fixture *f = *state;
	uint64_t key = 5;
	struct store_name name = name_of(&key, sizeof key);
	struct call call;
	struct spill_figures now;

	fixture_open(f);
	assert_int_equal(put(f, key, 9, 1000), RSHM_OK);
	/* Not on the disk yet, or not known to be: answered at once. */
	call_start(&call, f->spill, &name);
	assert_true(call.done);
	assert_int_equal(call_check(&call, key), 9);
	settle(f);
	call_start(&call, f->spill, &name);
	assert_false(call.done);
	assert_int_equal(call_end(&call, &f->loop), RSHM_OK);
	assert_false(call.request.kept);
	assert_int_equal(call_check(&call, key), 9);
	now = figures(f);
	assert_int_equal(now.total_spilled, 1);
	assert_int_equal(now.total_restored, 2);
	assert_int_equal(now.spill_operations, 1);
	assert_int_equal(now.restore_operations, 2);
	assert_int_equal(now.entries, 1);
	assert_true(now.avg_spill_time_ms > 0 && now.avg_spill_time_ms < 10000);
	assert_true(now.avg_restore_time_ms > 0 && now.avg_restore_time_ms < 10000);
	assert_true(now.bytes_used > 1000 && now.bytes_used < now.bytes_limit);
	fixture_close(f);
}

static void unknown_key_is_a_miss(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	assert_int_equal(get(f, 1), 0);
	put_surely(f, 2, 1, 10);
	settle(f);
	assert_int_equal(get(f, 1), 0);
	assert_int_equal(get(f, 2), 1);
	fixture_close(f);
}

static void removal_takes_effect_at_once_wherever_the_disk_is(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	/* Still in the queue. */
	assert_int_equal(put(f, 1, 1, 100), RSHM_OK);
	removed(f, 1);
	assert_int_equal(get(f, 1), 0);
	/* On the disk. */
	put_surely(f, 2, 1, 100);
	settle(f);
	removed(f, 2);
	assert_int_equal(get(f, 2), 0);
	settle(f);
	assert_int_equal(get(f, 2), 0);
	assert_int_equal(figures(f).entries, 0);
	assert_int_equal(figures(f).removed, 2);
	/* And back again. */
	put_surely(f, 2, 2, 100);
	removed(f, 2);
	put_surely(f, 2, 3, 100);
	assert_int_equal(get(f, 2), 3);
	settle(f);
	assert_int_equal(get(f, 2), 3);
	assert_int_equal(figures(f).removed, 3);
	fixture_close(f);
}

static void get_under_way_does_not_return_what_is_removed_meanwhile(void **state)
{
	struct fixture *f = *state;
	uint64_t key = 1;
	struct store_name name = name_of(&key, sizeof key);
	struct call call;

	fixture_open(f);
	for (int how = 0; how < 4; how++) {
		put_surely(f, key, 1, 5000);
		settle(f);
		call_start(&call, f->spill, &name);
		assert_false(call.done);
		/* Let the thread read it; the loop has not seen the answer when it removes. */
		usleep(20000);
		if (how == 0)
			spill_remove(f->spill, &name);
		else if (how == 1)
			spill_remove_generations(f->spill, 1, 1);
		else if (how == 2)
			spill_remove_all(f->spill);
		else
			put_surely(f, key, 2, 100);
		(void)call_end(&call, &f->loop);
		assert_int_equal(call_check(&call, key), how == 3 ? 2 : 0);
		settle(f);
		assert_int_equal(get(f, key), how == 3 ? 2 : 0);
	}
	fixture_close(f);
}

static void newest_put_wins(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	for (uint64_t version = 1; version <= 300; version++) {
		put_surely(f, version % 3, version, 10 + version * 7 % 900);
		assert_int_equal(get(f, version % 3), version);
		if (version % 50 == 0)
			settle(f);
	}
	settle(f);
	for (uint64_t key = 0; key < 3; key++)
		assert_int_equal(get(f, key), 298 + (key + 2) % 3);
	assert_int_equal(figures(f).entries, 3);
	fixture_close(f);
}

static void same_bytes_are_not_written_twice(void **state)
{
	struct fixture *f = *state;
	struct spill_figures before, after;
	struct store_name name = name_of("k", 1);
	unsigned char *bytes = value_make(100000, 1, 1);
	struct call call;

	fixture_open(f);
	assert_int_equal(spill_put(f->spill, &name, bytes, 100000, 4, 0, 1, 10), RSHM_OK);
	settle(f);
	before = figures(f);
	assert_int_equal(spill_put(f->spill, &name, bytes, 100000, 5, clock_realtime_ms() + 60000, 2, 11), RSHM_OK);
	settle(f);
	after = figures(f);
	assert_int_equal(after.unchanged, 1);
	assert_int_equal(after.total_spilled, 2);
	assert_int_equal(after.entries, 1);
	assert_true(after.bytes_used < before.bytes_used + 50000);
	call_start(&call, f->spill, &name);
	assert_int_equal(call_end(&call, &f->loop), RSHM_OK);
	assert_memory_equal(call.bytes, bytes, 100000);
	assert_int_equal(call.request.version, 5);
	assert_int_equal(call.request.source, 2);
	assert_int_equal(call.request.epoch, 11);
	assert_true(call.request.expiry_ms > clock_realtime_ms());
	free(call.bytes);
	free(bytes);
	fixture_close(f);
}

static void values_of_any_size_come_back_whole(void **state)
{
	struct fixture *f = *state;
	static const size_t lengths[] = {0, 1, 71, 72, 4095, 1 << 20, 3 << 20, (8 << 20) + 1, 20 << 20};

	fixture_open(f);
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
		put_surely(f, i, i + 1, lengths[i]);
	settle(f);
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
		assert_int_equal(get(f, i), i + 1);
	assert_int_equal(figures(f).refused, 0);
	fixture_close(f);
}

static void keys_are_compared_in_full(void **state)
{
	struct fixture *f = *state;
	static char keys[6][70000];
	const size_t lengths[] = {1, 400, 401, 5000, 65535, 65535};

	fixture_open(f);
	for (int i = 0; i < 6; i++) {
		memset(keys[i], 'x', sizeof keys[i]);
		keys[i][lengths[i] - 1] = (char)i;
		struct store_name name = name_of(keys[i], lengths[i]);
		assert_int_equal(put_bytes(f, &name, &i, sizeof i), RSHM_OK);
	}
	settle(f);
	for (int i = 0; i < 6; i++) {
		struct store_name name = name_of(keys[i], lengths[i]);
		struct store_name other = name;

		assert_int_equal(get_expect(f, &name, &i, sizeof i), RSHM_OK);
		other.tenant_number = 2;
		assert_int_equal(get_expect(f, &other, NULL, 0), RSHM_MISS);
		other = name;
		other.generation = 2;
		assert_int_equal(get_expect(f, &other, NULL, 0), RSHM_MISS);
		other = name;
		other.space = 's';
		assert_int_equal(get_expect(f, &other, NULL, 0), RSHM_MISS);
		other = name;
		other.key_len--;
		assert_int_equal(get_expect(f, &other, NULL, 0), RSHM_MISS);
	}
	fixture_close(f);
}

static void names_that_cannot_be_used_are_refused_or_missed(void **state)
{
	struct fixture *f = *state;
	struct store_name name = name_of("", 0);

	fixture_open(f);
	put_surely(f, 1, 1, 10);
	assert_int_equal(put_bytes(f, &name, "v", 1), RSHM_E_INVALID);
	assert_int_equal(get_expect(f, &name, NULL, 0), RSHM_MISS);
	spill_remove(f->spill, &name);
	name = name_in(0, 1, "k", 1);
	assert_int_equal(put_bytes(f, &name, "v", 1), RSHM_E_INVALID);
	name = name_in(1, 0, "k", 1);
	assert_int_equal(put_bytes(f, &name, "v", 1), RSHM_E_INVALID);
	assert_int_equal(figures(f).refused, 3);
	fixture_close(f);
}

static void expired_is_never_returned(void **state)
{
	struct fixture *f = *state;
	uint64_t expiry_ms = clock_realtime_ms() + 1000;
	struct store_name name = name_of("soon", 4), other = name_of("later", 5);
	struct spill_figures now;

	fixture_open(f);
	assert_int_equal(spill_put(f->spill, &other, "v", 1, 1, expiry_ms + 60000, 1, 1), RSHM_OK);
	assert_int_equal(spill_put(f->spill, &name, "v", 1, 1, expiry_ms, 1, 1), RSHM_OK);
	settle(f);
	assert_int_equal(get_expect(f, &name, "v", 1), RSHM_OK);
	while (clock_realtime_ms() < expiry_ms)
		usleep(5000);
	assert_int_equal(get_expect(f, &name, "v", 1), RSHM_MISS);
	assert_int_equal(get_expect(f, &other, "v", 1), RSHM_OK);
	/* Also not from the queue. */
	assert_int_equal(spill_put(f->spill, &name, "v", 1, 1, expiry_ms, 1, 1), RSHM_OK);
	assert_int_equal(get_expect(f, &name, "v", 1), RSHM_MISS);
	settle(f);
	assert_int_equal(get_expect(f, &name, "v", 1), RSHM_MISS);
	now = figures(f);
	assert_int_equal(now.expired, 2);
	assert_int_equal(now.entries, 1);
	fixture_close(f);
}

static void range_takes_its_generations_and_nothing_else(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	for (uint32_t tenant = 1; tenant <= 3; tenant++)
		for (uint64_t generation = 1; generation <= 3; generation++)
			for (uint64_t key = 0; key < 700; key++) {
				struct store_name name = name_in(tenant, generation, &key, sizeof key);

				assert_int_equal(put_bytes(f, &name, &key, sizeof key), RSHM_OK);
			}
	settle(f);
	spill_remove_generations(f->spill, 2, 2);
	for (int round = 0; round < 2; round++) {
		for (uint32_t tenant = 1; tenant <= 3; tenant++)
			for (uint64_t generation = 1; generation <= 3; generation++)
				for (uint64_t key = 0; key < 700; key += 99) {
					struct store_name name = name_in(tenant, generation, &key, sizeof key);
					bool gone = tenant == 2 && generation <= 2;

					assert_int_equal(get_expect(f, &name, &key, sizeof key),
							 gone ? RSHM_MISS : RSHM_OK);
				}
		settle(f);
	}
	assert_int_equal(figures(f).entries, 7 * 700);
	assert_int_equal(figures(f).removed, 2 * 700);
	spill_remove_generations(f->spill, 3, UINT64_MAX);
	settle(f);
	assert_int_equal(figures(f).entries, 4 * 700);
	fixture_close(f);
}

static void put_after_a_range_stays(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	for (uint64_t version = 1; version <= 200; version++) {
		put_surely(f, 1, 2 * version, 2000);
		put_surely(f, 2, 2 * version, 2000);
		if (version % 7 == 0)
			settle(f);
		spill_remove_generations(f->spill, 1, 5);
		assert_int_equal(get(f, 1), 0);
		put_surely(f, 1, 2 * version + 1, 2000);
		assert_int_equal(get(f, 1), 2 * version + 1);
		assert_int_equal(get(f, 2), 0);
		if (version % 5 == 0) {
			settle(f);
			assert_int_equal(get(f, 1), 2 * version + 1);
			assert_int_equal(get(f, 2), 0);
		}
	}
	fixture_close(f);
}

static void everything_can_be_removed(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	spill_remove_all(f->spill);
	for (int round = 0; round < 5; round++) {
		for (uint64_t key = 0; key < 200; key++)
			put_surely(f, key, 1, 3000);
		if (round % 2 == 0)
			settle(f);
		spill_remove_all(f->spill);
		for (uint64_t key = 0; key < 200; key += 20)
			assert_int_equal(get(f, key), 0);
		/* Once more while the first is under way, with a put between. */
		put_surely(f, 900, 1, 10);
		spill_remove_all(f->spill);
		assert_int_equal(get(f, 900), 0);
		settle(f);
		assert_int_equal(get(f, 900), 0);
		put_surely(f, 7, 2, 10);
		settle(f);
		assert_int_equal(get(f, 7), 2);
		assert_int_equal(figures(f).entries, 1);
	}
	assert_int_equal(figures(f).discards, 0);
	fixture_close(f);
}

static void full_queue_refuses_a_put_and_forgets_the_older_one(void **state)
{
	struct fixture *f = *state;
	uint64_t refused = 0;

	f->config.limits.queue_bytes = 1 << 20;
	f->config.limits.queue_max = 16;
	fixture_open(f);
	for (uint64_t key = 0; key < 40; key++)
		put_surely(f, key, 1, 100);
	settle(f);
	refused = figures(f).refused;
	/* The loop does not turn meanwhile, so only so many find room. */
	for (uint64_t key = 0; key < 40; key++) {
		int status = put(f, key, 2, 300000);

		assert_true(status == RSHM_OK || status == RSHM_E_AGAIN);
		assert_int_equal(status, key < 3 ? RSHM_OK : RSHM_E_AGAIN);
		refused += status != RSHM_OK;
	}
	for (int round = 0; round < 2; round++) {
		for (uint64_t key = 0; key < 40; key++)
			assert_int_equal(get(f, key), key < 3 ? 2 : 0);
		settle(f);
	}
	assert_int_equal(figures(f).refused, refused);
	assert_int_equal(put(f, 1, 3, (size_t)f->config.limits.bytes / 4), RSHM_E_TOOBIG);
	assert_int_equal(get(f, 1), 0);
	fixture_close(f);
}

static void too_many_removals_discard_everything(void **state)
{
	struct fixture *f = *state;
	uint64_t keys = 2000;

	f->config.limits.queue_max = 16;
	fixture_open(f);
	for (uint64_t key = 0; key < keys; key++)
		put_surely(f, key, 1, 20);
	settle(f);
	assert_int_equal(figures(f).entries, keys);
	for (uint64_t key = 0; key < keys; key++)
		removed(f, key);
	assert_true(figures(f).waiting <= 4 * 16 + 1);
	for (uint64_t key = 0; key < keys; key++)
		assert_int_equal(get(f, key), 0);
	settle(f);
	for (uint64_t key = 0; key < keys; key++)
		assert_int_equal(get(f, key), 0);
	assert_int_equal(figures(f).discards, 1);
	assert_int_equal(figures(f).entries, 0);
	put_surely(f, 3, 2, 20);
	settle(f);
	assert_int_equal(get(f, 3), 2);
	fixture_close(f);
}

static void too_many_gets_and_late_ones_are_misses(void **state)
{
	struct fixture *f = *state;
	static struct call calls[200];
	uint64_t key = 1, hits = 0;
	struct store_name name = name_of(&key, sizeof key);

	f->config.limits.gets_max = 10;
	fixture_open(f);
	put_surely(f, key, 1, 5 << 20);
	settle(f);
	for (int i = 0; i < 200; i++)
		call_start(&calls[i], f->spill, &name);
	for (int i = 0; i < 200; i++) {
		(void)call_end(&calls[i], &f->loop);
		hits += call_check(&calls[i], key);
	}
	assert_int_equal(hits, 10);
	memset(&calls[0], 0, sizeof calls[0]);
	calls[0].request = (struct spill_request){.name = name, .done = call_on_done, .context = &calls[0]};
	spill_get(f->spill, &calls[0].request);
	assert_true(calls[0].done);
	assert_int_equal(calls[0].request.status, RSHM_MISS);
	assert_int_equal(figures(f).late, 1);
	fixture_close(f);
}

/* Reads of 20 MiB take longer than the deadline: the answer comes in time all the same. */
static void deadline_holds_while_the_disk_is_busy(void **state)
{
	struct fixture *f = *state;
	static struct call calls[60];
	uint64_t key = 1, start_ms;
	struct store_name name = name_of(&key, sizeof key);

	fixture_open(f);
	put_surely(f, key, 1, 20 << 20);
	settle(f);
	start_ms = clock_monotonic_ms();
	for (int i = 0; i < 60; i++) {
		memset(&calls[i], 0, sizeof calls[i]);
		calls[i].request = (struct spill_request){
			.name = name, .done = call_on_done, .context = &calls[i], .deadline_ms = start_ms + 20};
		spill_get(f->spill, &calls[i].request);
	}
	for (int i = 0; i < 60; i++) {
		(void)call_end(&calls[i], &f->loop);
		assert_true(calls[i].request.status == RSHM_OK || calls[i].request.status == RSHM_MISS);
		free(calls[i].bytes);
	}
	print_message("60 reads of 20 MiB with 20 ms: answered after %d ms, %d late\n",
		      (int)(clock_monotonic_ms() - start_ms), (int)figures(f).late);
	assert_true(figures(f).late > 0);
	settle(f);
	assert_int_equal(get(f, key), 1);
	fixture_close(f);
}

/* Each `done` asks for the next, puts, removes, and the tier copes. */
struct chain {
	struct fixture *f;
	struct spill_request request;
	uint64_t key;
	int left;
	bool ended;
};

static void chain_on_done(struct spill_request *request)
{
	struct chain *chain = request->context;
	unsigned char expected[3000];

	if (request->status == RSHM_OK) {
		struct store_name name = name_of(&chain->key, sizeof chain->key);

		/* The lent bytes stay whatever happens to their entry. */
		spill_remove(chain->f->spill, &name);
		(void)put(chain->f, chain->key, 77, 10);
		value_fill(expected, sizeof expected, chain->key, request->version);
		assert_memory_equal(request->result, expected, request->result_len);
	}
	chain->ended = chain->left-- == 0;
	if (chain->ended)
		return;
	chain->key = (chain->key + 1) % 20;
	request->name = name_of(&chain->key, sizeof chain->key);
	spill_get(chain->f->spill, request);
}

static void done_may_call_back_into_the_tier(void **state)
{
	struct fixture *f = *state;
	struct chain chain = {.f = f, .left = 500};

	fixture_open(f);
	for (uint64_t key = 0; key < 20; key++)
		put_surely(f, key, 1, 3000);
	chain.request = (struct spill_request){.name = name_of(&chain.key, sizeof chain.key),
					       .deadline_ms = clock_monotonic_ms() + 60000,
					       .done = chain_on_done,
					       .context = &chain};
	spill_get(f->spill, &chain.request);
	while (!chain.ended)
		uv_run(&f->loop, UV_RUN_ONCE);
	fixture_close(f);
}

static void closing_with_work_queued_answers_all_and_keeps_what_is_to_be_kept(void **state)
{
	struct fixture *f = *state;
	static struct call calls[50];

	f->config.keep = true;
	for (int round = 0; round < 6; round++) {
		fixture_open(f);
		for (uint64_t key = 0; key < 50; key++)
			put_surely(f, key, (uint64_t)round + 1, 20000);
		if (round % 2 == 0)
			settle(f);
		for (uint64_t key = 0; key < 50; key++) {
			struct store_name name = name_of(&key, sizeof key);

			call_start(&calls[key], f->spill, &name);
		}
		for (uint64_t key = 0; key < 10; key++)
			removed(f, key);
		fixture_close(f);
		for (uint64_t key = 0; key < 50; key++) {
			assert_true(calls[key].done);
			(void)call_check(&calls[key], key);
		}
		fixture_open(f);
		for (uint64_t key = 0; key < 50; key++)
			assert_int_equal(get(f, key), key < 10 ? 0 : round + 1);
		fixture_close(f);
	}
	f->config.keep = false;
	fixture_open(f);
	for (uint64_t key = 0; key < 50; key++)
		put_surely(f, key, 1, 20000);
	fixture_close(f);
	/* The folder is empty. */
	assert_int_equal(rmdir(f->path), 0);
}

static void files_are_for_the_agent_alone(void **state)
{
	struct fixture *f = *state;
	struct stat info;
	char path[256];

	umask(0);
	assert_int_equal(mkdir(f->path, 0755), 0);
	f->config.keep = true;
	fixture_open(f);
	put_surely(f, 1, 1, 100);
	settle(f);
	assert_int_equal(stat(f->path, &info), 0);
	assert_int_equal(info.st_mode & 07777, 0700);
	static const char *const files[] = {"data.mdb", "mark", "0000000000000001.segment"};
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s/%s", f->path, files[i]);
		assert_int_equal(stat(path, &info), 0);
		assert_int_equal(info.st_mode & 07777, 0600);
	}
	fixture_close(f);
}

static void wrong_configuration_is_refused(void **state)
{
	struct fixture *f = *state;
	struct spill_limits limits;
	char index[128];

	f->config.limits.bytes = SPILL_BYTES_MIN - 1;
	assert_open_fails(f, RSHM_E_INVALID, "8 MiB");
	f->config.limits.bytes = SPILL_BYTES_MIN;
	f->config.segment_bytes = 5;
	assert_open_fails(f, RSHM_E_INVALID, "segment_bytes");
	f->config.segment_bytes = 1 << 20;
	f->config.limits.gets_max = 0;
	assert_open_fails(f, RSHM_E_INVALID, "bound");
	f->config.limits.gets_max = 1;
	f->config.path = "";
	assert_open_fails(f, RSHM_E_INVALID, "path");
	f->config.path = "/nowhere/at/all";
	assert_open_fails(f, RSHM_E_SYSTEM, "/nowhere/at/all");
	f->config.path = f->path;
	fixture_open(f);
	limits = f->config.limits;
	limits.queue_max = 0;
	assert_int_equal(spill_reload(f->spill, &limits), RSHM_E_INVALID);
	/* In use. */
	put_surely(f, 1, 1, 1000);
	settle(f);
	assert_open_fails(f, RSHM_E_AGAIN, "another process");
	assert_int_equal(get(f, 1), 1);
	snprintf(index, sizeof index, "%s/data.mdb", f->path);
	assert_int_equal(access(index, F_OK), 0);
	fixture_close(f);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_was_put_is_got_from_memory_and_from_disk),
		T(unknown_key_is_a_miss),
		T(removal_takes_effect_at_once_wherever_the_disk_is),
		T(get_under_way_does_not_return_what_is_removed_meanwhile),
		T(newest_put_wins),
		T(same_bytes_are_not_written_twice),
		T(values_of_any_size_come_back_whole),
		T(keys_are_compared_in_full),
		T(names_that_cannot_be_used_are_refused_or_missed),
		T(expired_is_never_returned),
		T(range_takes_its_generations_and_nothing_else),
		T(put_after_a_range_stays),
		T(everything_can_be_removed),
		T(full_queue_refuses_a_put_and_forgets_the_older_one),
		T(too_many_removals_discard_everything),
		T(too_many_gets_and_late_ones_are_misses),
		T(deadline_holds_while_the_disk_is_busy),
		T(done_may_call_back_into_the_tier),
		T(closing_with_work_queued_answers_all_and_keeps_what_is_to_be_kept),
		T(files_are_for_the_agent_alone),
		T(wrong_configuration_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
