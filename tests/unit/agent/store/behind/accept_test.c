#include "tests/unit/agent/store/behind/fixture.h"

static int setup_embedded(void **state)
{
	static struct fixture f;

	fixture_init(&f, BACKEND_EMBEDDED);
	f.config.sync = BEHIND_SYNC_INTERVAL;
	fixture_open(&f);
	*state = &f;
	return 0;
}

static int setup_redis(void **state)
{
	static struct fixture f;

	fixture_init(&f, BACKEND_REDIS);
	f.config.sync = BEHIND_SYNC_INTERVAL;
	fixture_open(&f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_fini(*state);
	return 0;
}

/* Opens the store again with what the test has changed in the configuration. */
static void reopen(struct fixture *f)
{
	fixture_close(f);
	fixture_open(f);
}

static int flush(struct fixture *f, const char *tenant, uint64_t patience_ms)
{
	struct call call;

	call_init(&call, STORE_FLUSH, "");
	call.request.name.tenant = tenant;
	call.request.deadline_ms = clock_monotonic_ms() + patience_ms;
	(void)call_run(f, f->store, &call);
	call_fini(&call);
	return call.status;
}

/* ---- accepted ------------------------------------------------------------------------------------------------- */

static void accepted_write_is_read_before_it_is_stored(void **state)
{
	struct fixture *f = *state;
	struct behind_figures now;

	assert_int_equal(put_behind(f, "key", "value", 1000), RSHM_OK);
	assert_value(f, f->store, "key", "value");
	assert_value(f, f->direct, "key", NULL);
	now = figures(f);
	assert_int_equal(now.accepted, 1);
	assert_int_equal(now.depth_records, 1);
	assert_true(now.depth_bytes > 5);
	assert_true(now.journal_bytes > now.depth_bytes);
	assert_int_equal(now.flushed, 0);
	fixture_run_for(f, 50);
	assert_true(figures(f).oldest_age_ms >= 40);
}

static void head_gives_no_more_than_was_asked_for(void **state)
{
	struct fixture *f = *state;
	struct envelope_head head;
	struct call call;

	assert_int_equal(put_behind(f, "key", "value", 1000), RSHM_OK);
	call_init(&call, STORE_HEAD, "key");
	assert_int_equal(call_run(f, f->store, &call), RSHM_OK);
	assert_int_equal(call.length, ENVELOPE_HEAD_BYTES);
	assert_int_equal(envelope_peek_head(call.bytes, call.length, &head), RSHM_OK);
	assert_int_equal(head.version, 1000);
	call_fini(&call);
}

static void accepted_delete_hides_what_is_stored(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(put_through(f, "key", "value", 1000), RSHM_OK);
	assert_value(f, f->direct, "key", "value");
	assert_int_equal(delete_behind(f, "key", 1001), RSHM_OK);
	assert_value(f, f->store, "key", NULL);
	assert_value(f, f->direct, "key", "value");
	assert_int_equal(flush(f, "default", 5000), RSHM_OK);
	assert_value(f, f->store, "key", NULL);
	assert_value(f, f->direct, "key", NULL);
}

static void deleted_key_stays_deleted_for_an_older_write(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(delete_behind(f, "key", 2000), RSHM_OK);
	assert_int_equal(flush(f, "default", 5000), RSHM_OK);
	/* Of another host, say, whose journal came late. */
	assert_int_equal(put_behind(f, "key", "old", 1999), RSHM_OK);
	assert_int_equal(flush(f, "default", 5000), RSHM_OK);
	assert_int_equal(figures(f).conflicts, 1);
	assert_value(f, f->direct, "key", NULL);
	assert_int_equal(put_behind(f, "key", "new", 2001), RSHM_OK);
	assert_int_equal(flush(f, "default", 5000), RSHM_OK);
	assert_value(f, f->direct, "key", "new");
}

static void newest_write_of_a_key_is_the_one_that_is_stored(void **state)
{
	struct fixture *f = *state;
	char value[16];

	for (uint64_t i = 0; i < 50; i++) {
		snprintf(value, sizeof value, "%d", (int)i);
		assert_int_equal(put_behind(f, "key", value, 1000 + i), RSHM_OK);
		assert_value(f, f->store, "key", value);
	}
	assert_int_equal(figures(f).depth_records, 1);
	assert_int_equal(figures(f).coalesced, 49);
	assert_int_equal(flush(f, "default", 5000), RSHM_OK);
	assert_int_equal(figures(f).flushed, 1);
	assert_value(f, f->direct, "key", "49");
}

static void older_write_never_replaces_a_newer_one(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(put_behind(f, "key", "new", 2000), RSHM_OK);
	assert_int_equal(put_behind(f, "key", "old", 1000), RSHM_E_AGAIN);
	assert_int_equal(put_behind(f, "key", "new", 2000), RSHM_OK);
	assert_value(f, f->store, "key", "new");
	assert_int_equal(flush(f, "default", 5000), RSHM_OK);
	assert_value(f, f->direct, "key", "new");
	/* Something newer that did not come by way of us. */
	assert_int_equal(put_through(f, "other", "newer", 3000), RSHM_OK);
	assert_int_equal(put_behind(f, "other", "older", 2500), RSHM_OK);
	assert_int_equal(flush(f, "default", 5000), RSHM_OK);
	assert_value(f, f->direct, "other", "newer");
	assert_int_equal(figures(f).conflicts, 2);
}

static void expired_record_does_not_uncover_the_value_before_it(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(put_through(f, "key", "old", 1000), RSHM_OK);
	assert_int_equal(write_key(f, STORE_PUT, true, "key", "brief", 1002, clock_realtime_ms() + 60), RSHM_OK);
	assert_value(f, f->store, "key", "brief");
	fixture_run_for(f, 100);
	assert_value(f, f->store, "key", NULL);
	assert_int_equal(flush(f, "default", 5000), RSHM_OK);
	assert_value(f, f->store, "key", NULL);
	assert_value(f, f->direct, "key", NULL);
	/* Nor one that comes late, from the journal of another host, say. */
	assert_int_equal(put_behind(f, "key", "late", 1001), RSHM_OK);
	assert_int_equal(flush(f, "default", 5000), RSHM_OK);
	assert_value(f, f->direct, "key", NULL);
}

static void what_is_no_envelope_is_refused(void **state)
{
	struct fixture *f = *state;
	struct call call;

	call_init(&call, STORE_PUT, "key");
	call.request.behind = true;
	call.request.envelope = "short";
	call.request.envelope_len = 5;
	assert_int_equal(call_run(f, f->store, &call), RSHM_E_INVALID);
	call_fini(&call);
	/* A delete without a tombstone. */
	call_init(&call, STORE_DELETE, "key");
	call_load(&call, "value", 1, 0);
	call.request.behind = true;
	assert_int_equal(call_run(f, f->store, &call), RSHM_E_INVALID);
	call_fini(&call);
	assert_int_equal(figures(f).depth_records, 0);
}

static void names_differ_by_tenant_generation_and_space(void **state)
{
	struct fixture *f = *state;
	struct call call;

	assert_int_equal(put_behind(f, "key", "value", 1000), RSHM_OK);
	for (int i = 0; i < 3; i++) {
		call_init(&call, STORE_GET, "key");
		if (i == 0)
			call.request.name.tenant = "other", call.request.name.tenant_number = 2;
		else if (i == 1)
			call.request.name.generation = 2;
		else
			call.request.name.space = 's';
		assert_int_equal(call_run(f, f->store, &call), RSHM_MISS);
		call_fini(&call);
	}
}

/* ---- flushing ------------------------------------------------------------------------------------------------- */

static void put_many(struct fixture *f, int from, int to, size_t length)
{
	char key[16], *value = malloc(length + 1);

	assert_non_null(value);
	memset(value, 'x', length);
	value[length] = '\0';
	for (int i = from; i < to; i++) {
		snprintf(key, sizeof key, "k%d", i);
		assert_int_equal(put_behind(f, key, value, (uint64_t)(1000 + i)), RSHM_OK);
	}
	free(value);
}

static void flush_begins_when_so_many_records_wait(void **state)
{
	struct fixture *f = *state;

	f->config.flush_records = 20;
	behind_reload(f->store, &f->config);
	put_many(f, 0, 19, 10);
	fixture_run_for(f, 50);
	assert_int_equal(figures(f).flushed, 0);
	put_many(f, 19, 20, 10);
	fixture_drain(f);
	assert_int_equal(figures(f).flushed, 20);
}

static void flush_begins_when_so_many_bytes_wait(void **state)
{
	struct fixture *f = *state;

	f->config.flush_bytes = 20000;
	behind_reload(f->store, &f->config);
	put_many(f, 0, 4, 4000);
	fixture_run_for(f, 50);
	assert_int_equal(figures(f).flushed, 0);
	put_many(f, 4, 5, 4000);
	fixture_drain(f);
	assert_int_equal(figures(f).flushed, 5);
}

static void flush_begins_when_a_record_is_so_old(void **state)
{
	struct fixture *f = *state;

	f->config.flush_interval_ms = 150;
	behind_reload(f->store, &f->config);
	put_many(f, 0, 3, 10);
	fixture_run_for(f, 60);
	assert_int_equal(figures(f).flushed, 0);
	/* Written again and again it does not get younger. */
	for (uint64_t i = 0; i < 30 && figures(f).flushed == 0; i++) {
		assert_int_equal(put_behind(f, "k0", "again", 5000 + i), RSHM_OK);
		fixture_run_for(f, 10);
	}
	assert_int_equal(figures(f).flushed, 3);
}

static void barrier_waits_for_its_tenant_and_no_longer(void **state)
{
	struct fixture *f = *state;
	struct call barrier, get;

	put_many(f, 0, 500, 100);
	call_init(&barrier, STORE_FLUSH, "");
	store_submit(f->store, &barrier.request);
	assert_false(barrier.done);
	/* What comes later is not waited for; what was there is. */
	put_many(f, 500, 501, 100);
	assert_int_equal(call_wait(f, &barrier), RSHM_OK);
	assert_true(figures(f).flushed >= 500);
	call_init(&get, STORE_GET, "k499");
	assert_int_equal(call_run(f, f->direct, &get), RSHM_OK);
	call_fini(&get);
	call_fini(&barrier);
	fixture_run_for(f, 30);
	assert_int_equal(figures(f).depth_records, 1);
}

static void barrier_of_another_tenant_does_not_wait(void **state)
{
	struct fixture *f = *state;

	put_many(f, 0, 10, 100);
	assert_int_equal(flush(f, "other", 1000), RSHM_OK);
	assert_int_equal(figures(f).depth_records, 10);
}

static void list_has_what_was_accepted_before(void **state)
{
	struct fixture *f = *state;
	size_t found = 0, pages = 0;
	struct call call;

	put_many(f, 0, 30, 10);
	assert_int_equal(delete_behind(f, "k7", 9000), RSHM_OK);
	call_init(&call, STORE_LIST, "k");
	do {
		uint16_t length;

		call.done = false;
		call.request.deadline_ms = clock_monotonic_ms() + 5000;
		assert_int_equal(call_run(f, f->store, &call), RSHM_OK);
		/* A store may list tombstones, as it may list what expired. */
		for (size_t at = 0; at < call.length; at += sizeof length + length) {
			memcpy(&length, call.bytes + at, sizeof length);
			found += length != 2 || memcmp(call.bytes + at + sizeof length, "k7", 2) != 0;
		}
		free(call.bytes);
		call.bytes = NULL;
		call.length = 0;
		assert_true(++pages < 1000);
	} while (call.request.cursor_len > 0);
	assert_int_equal(found, 29);
	call_fini(&call);
}

/* ---- order ---------------------------------------------------------------------------------------------------- */

static void write_through_goes_behind_what_was_accepted(void **state)
{
	struct fixture *f = *state;

	for (uint64_t i = 0; i < 30; i++) {
		assert_int_equal(put_behind(f, "key", "behind", 1000 + 3 * i), RSHM_OK);
		assert_int_equal(put_through(f, "key", "through", 1001 + 3 * i), RSHM_OK);
		assert_value(f, f->store, "key", "through");
		assert_value(f, f->direct, "key", "through");
		assert_int_equal(put_behind(f, "key", "behind", 1002 + 3 * i), RSHM_OK);
		assert_int_equal(delete_through(f, "key", 0), RSHM_OK);
		assert_value(f, f->direct, "key", NULL);
	}
	assert_int_equal(figures(f).flushed, 60);
}

static void touch_and_conditions_see_what_was_accepted(void **state)
{
	struct fixture *f = *state;
	struct call call;

	assert_int_equal(put_behind(f, "key", "value", 1000), RSHM_OK);
	assert_int_equal(write_key(f, STORE_TOUCH, false, "key", "ignored", 1, clock_realtime_ms() + 60000), RSHM_OK);
	assert_int_equal(figures(f).depth_records, 0);
	/* Conditional, and behind: there is no such thing, so it is written through. */
	assert_int_equal(put_behind(f, "key", "second", 1001), RSHM_OK);
	call_init(&call, STORE_PUT, "key");
	call_load(&call, "third", 1002, 0);
	call.request.behind = true;
	call.request.condition = STORE_IF_VERSION;
	call.request.expected_version = 1000;
	assert_int_equal(call_run(f, f->store, &call), RSHM_CONFLICT);
	assert_int_equal(call.request.found_version, 1001);
	call_fini(&call);
	call_init(&call, STORE_PUT, "key");
	call_load(&call, "third", 1002, 0);
	call.request.condition = STORE_IF_VERSION;
	call.request.expected_version = 1001;
	assert_int_equal(call_run(f, f->store, &call), RSHM_OK);
	assert_false(call.accepted);
	call_fini(&call);
	assert_value(f, f->direct, "key", "third");
	/* Absent is what was deleted. */
	assert_int_equal(delete_behind(f, "key", 1003), RSHM_OK);
	call_init(&call, STORE_PUT, "key");
	call_load(&call, "fourth", 1004, 0);
	call.request.condition = STORE_IF_ABSENT;
	assert_int_equal(call_run(f, f->store, &call), RSHM_OK);
	call_fini(&call);
	assert_value(f, f->store, "key", "fourth");
}

/* Everything for one key at once, without waiting: answered in order, and the last one wins. */
static void requests_on_one_key_keep_their_order(void **state)
{
	struct fixture *f = *state;
	static struct call calls[201];

	for (int i = 0; i < 201; i++) {
		bool remove = i % 7 == 3;
		char value[16];

		snprintf(value, sizeof value, "%d", i);
		call_init(&calls[i], remove ? STORE_DELETE : STORE_PUT, "key");
		call_load(&calls[i], remove ? NULL : value, (uint64_t)(1000 + i), 0);
		calls[i].request.behind = i % 3 != 0;
		store_submit(f->store, &calls[i].request);
	}
	for (int i = 0; i < 201; i++) {
		int status = call_wait(f, &calls[i]);

		assert_true(status == RSHM_OK || (status == RSHM_MISS && i % 7 == 3));
		call_fini(&calls[i]);
	}
	assert_value(f, f->store, "key", "200");
	assert_int_equal(flush(f, "default", 5000), RSHM_OK);
	assert_value(f, f->direct, "key", "200");
}

static void newer_write_is_accepted_while_the_older_one_is_under_way(void **state)
{
	struct fixture *f = *state;
	char value[16];

	f->config.flush_records = 1;
	behind_reload(f->store, &f->config);
	for (uint64_t i = 0; i < 500; i++) {
		snprintf(value, sizeof value, "%d", (int)i);
		assert_int_equal(put_behind(f, "key", value, 1000 + i), RSHM_OK);
		assert_value(f, f->store, "key", value);
	}
	fixture_drain(f);
	assert_value(f, f->direct, "key", "499");
	assert_int_equal(figures(f).coalesced + figures(f).flushed, 500);
}

struct chain {
	struct fixture *f;
	struct call *put;
	uint32_t gets;
	struct store_request get;
};

/* Reads again and again on top of the answer, and replaces what it was lent. */
static void chain_on_get(struct store_request *request)
{
	struct chain *chain = request->context;
	unsigned char first;

	assert_int_equal(request->status, RSHM_OK);
	first = *(const unsigned char *)request->result;
	if (chain->gets++ == 0)
		store_submit(chain->f->store, &chain->put->request);
	assert_int_equal(*(const volatile unsigned char *)request->result, first);
	if (chain->gets < 100)
		store_submit(chain->f->store, request);
}

static void reads_may_be_submitted_on_top_of_answers(void **state)
{
	struct fixture *f = *state;
	struct call put, get;
	struct chain chain = {.f = f, .put = &put};

	assert_int_equal(put_behind(f, "key", "first", 1000), RSHM_OK);
	call_init(&put, STORE_PUT, "key");
	call_load(&put, "second", 1001, 0);
	put.request.behind = true;
	call_init(&get, STORE_GET, "key");
	chain.get = get.request;
	chain.get.done = chain_on_get;
	chain.get.context = &chain;
	store_submit(f->store, &chain.get);
	assert_int_equal(call_wait(f, &put), RSHM_OK);
	fixture_run_for(f, 50);
	assert_int_equal(chain.gets, 100);
	call_fini(&put);
}

/* ---- bounds --------------------------------------------------------------------------------------------------- */

static void full_of_records_is_told_and_passes(void **state)
{
	struct fixture *f = *state;

	f->config.max_records = 10;
	f->config.flush_interval_ms = NEVER_MS;
	reopen(f);
	put_many(f, 0, 10, 10);
	assert_int_equal(put_behind(f, "one more", "value", 5000), RSHM_E_AGAIN);
	assert_int_equal(figures(f).refused_full, 1);
	assert_value(f, f->store, "one more", NULL);
	/* A full journal is flushed, whatever the triggers say. */
	fixture_drain(f);
	assert_int_equal(put_behind(f, "one more", "value", 5000), RSHM_OK);
	/* The newest of a key that is there already has room. */
	put_many(f, 20, 29, 10);
	assert_int_equal(put_behind(f, "k20", "newer", 9000), RSHM_OK);
	assert_int_equal(put_behind(f, "k30", "value", 9001), RSHM_E_AGAIN);
}

static void full_of_bytes_is_told_and_passes(void **state)
{
	struct fixture *f = *state;
	uint64_t accepted = 0;

	f->config.max_bytes = 64 << 10;
	f->config.segment_bytes = 8 << 10;
	reopen(f);
	for (int round = 0; round < 20; round++) {
		char key[16], value[2001];

		memset(value, 'v', 2000);
		value[2000] = '\0';
		for (uint64_t i = 0;; i++) {
			int status;

			snprintf(key, sizeof key, "k%d", (int)(i % 50));
			status = put_behind(f, key, value, 1000u + accepted);
			if (status == RSHM_E_AGAIN)
				break;
			assert_int_equal(status, RSHM_OK);
			accepted++;
			assert_true(i < 100);
			/* Marks come on top. */
			assert_true(figures(f).journal_bytes <= 80 << 10);
		}
		fixture_drain(f);
		fixture_run_for(f, 60);
	}
	assert_true(accepted > 20 * 10);
	assert_true(count_files(f, "journal-") <= 3);
}

static void what_can_never_fit_is_written_through(void **state)
{
	struct fixture *f = *state;
	char *value = malloc(100001);
	struct call call;

	f->config.max_bytes = 64 << 10;
	reopen(f);
	memset(value, 'x', 100000);
	value[100000] = '\0';
	call_init(&call, STORE_PUT, "key");
	call_load(&call, value, 1000, 0);
	call.request.behind = true;
	assert_int_equal(call_run(f, f->store, &call), RSHM_OK);
	assert_false(call.accepted);
	call_fini(&call);
	assert_value(f, f->direct, "key", value);
	free(value);
}

static void files_of_stored_records_are_removed(void **state)
{
	struct fixture *f = *state;
	static const enum behind_sync policies[] = {BEHIND_SYNC_NONE, BEHIND_SYNC_INTERVAL, BEHIND_SYNC_ALWAYS};

	f->config.segment_bytes = 16 << 10;
	for (int i = 0; i < 3; i++) {
		f->config.sync = policies[i];
		reopen(f);
		put_many(f, i * 1000, i * 1000 + 200, 1000);
		assert_true(count_files(f, "journal-") > 10);
		assert_int_equal(flush(f, "default", 5000), RSHM_OK);
		fixture_run_for(f, 200);
		assert_true(count_files(f, "journal-") <= 2);
		fixture_close(f);
		assert_int_equal(count_files(f, "journal-"), 0);
		fixture_open(f);
	}
}

/* ---- sync = always -------------------------------------------------------------------------------------------- */

static void acknowledgements_of_synced_writes_share_a_sync(void **state)
{
	struct fixture *f = *state;
	static struct call calls[300];
	char key[16];

	f->config.sync = BEHIND_SYNC_ALWAYS;
	reopen(f);
	for (int i = 0; i < 300; i++) {
		/* The name is lent until the answer: calls of one key share it. */
		static char keys[300][16];

		snprintf(keys[i], sizeof keys[i], "k%d", i % 100);
		call_init(&calls[i], STORE_PUT, keys[i]);
		call_load(&calls[i], "value", (uint64_t)(1000 + i), 0);
		calls[i].request.behind = true;
		store_submit(f->store, &calls[i].request);
	}
	assert_false(calls[0].done);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(call_wait(f, &calls[i]), RSHM_OK);
		assert_true(calls[i].accepted);
		call_fini(&calls[i]);
	}
	assert_int_equal(figures(f).depth_records, 100);
	/* Writes through wait for marks on the disk, and get there. */
	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof key, "k%d", i);
		assert_int_equal(delete_through(f, key, 0), RSHM_OK);
		assert_value(f, f->store, key, NULL);
	}
	assert_int_equal(flush(f, "default", 5000), RSHM_OK);
	assert_value(f, f->direct, "k50", "value");
	assert_value(f, f->direct, "k5", NULL);
}

static void closed_store_says_so_and_stores_the_rest(void **state)
{
	struct fixture *f = *state;
	struct call late;
	bool closed = false;

	put_many(f, 0, 300, 100);
	store_close(f->store, fixture_on_closed, &closed);
	call_init(&late, STORE_GET, "k0");
	store_submit(f->store, &late.request);
	while (!closed)
		uv_run(&f->loop, UV_RUN_ONCE);
	f->store = NULL;
	assert_int_equal(late.status, RSHM_E_CLOSED);
	call_fini(&late);
	assert_int_equal(count_files(f, "journal-"), 0);
	call_init(&late, STORE_GET, "k299");
	assert_int_equal(call_run(f, f->direct, &late), RSHM_OK);
	call_fini(&late);
}

#define BOTH(test)                                                       \
	cmocka_unit_test_setup_teardown(test, setup_embedded, teardown), \
	{                                                                \
#test "_on_redis", test, setup_redis, teardown, NULL     \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(accepted_write_is_read_before_it_is_stored),
		BOTH(head_gives_no_more_than_was_asked_for),
		BOTH(accepted_delete_hides_what_is_stored),
		BOTH(deleted_key_stays_deleted_for_an_older_write),
		BOTH(newest_write_of_a_key_is_the_one_that_is_stored),
		BOTH(older_write_never_replaces_a_newer_one),
		BOTH(expired_record_does_not_uncover_the_value_before_it),
		BOTH(what_is_no_envelope_is_refused),
		BOTH(names_differ_by_tenant_generation_and_space),
		BOTH(flush_begins_when_so_many_records_wait),
		BOTH(flush_begins_when_so_many_bytes_wait),
		BOTH(flush_begins_when_a_record_is_so_old),
		BOTH(barrier_waits_for_its_tenant_and_no_longer),
		BOTH(barrier_of_another_tenant_does_not_wait),
		BOTH(list_has_what_was_accepted_before),
		BOTH(write_through_goes_behind_what_was_accepted),
		BOTH(touch_and_conditions_see_what_was_accepted),
		BOTH(requests_on_one_key_keep_their_order),
		BOTH(newer_write_is_accepted_while_the_older_one_is_under_way),
		BOTH(reads_may_be_submitted_on_top_of_answers),
		BOTH(full_of_records_is_told_and_passes),
		BOTH(full_of_bytes_is_told_and_passes),
		BOTH(what_can_never_fit_is_written_through),
		BOTH(files_of_stored_records_are_removed),
		BOTH(acknowledgements_of_synced_writes_share_a_sync),
		BOTH(closed_store_says_so_and_stores_the_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
