/* registry_test.c - the tenants of one backend, as two agents see and change them; on both backends. */
#include "tests/unit/agent/tenant/registry_fixture.h"

static void a_tenant_lives_from_insert_to_remove(void **state)
{
	struct fixture *f = *state;
	struct tenant_record *record, *changed;
	struct answer a;
	char ids[4096], text[256];

	assert_int_equal(get_status(f, 0, "shop", text), RSHM_MISS);
	assert_non_null(strstr(text, "shop"));
	assert_int_equal(list(f, 0, NULL, 10, ids), 0);
	assert_int_equal(insert(f, 0, "shop"), RSHM_OK);
	assert_int_equal(list(f, 1, NULL, 10, ids), 1);
	assert_string_equal(ids, "shop ");
	record = get(f, 1, "shop");
	assert_int_equal(update(record, "{\"name\":\"Shop\"}", &changed), RSHM_OK);
	answer_begin(f, &a);
	registry_replace(f->agents[1].registry, changed, on_record, &a);
	assert_int_equal(wait_status(f, &a), RSHM_OK);
	assert_true(a.record->version > record->version);
	tenant_record_destroy(&record);
	record = get(f, 0, "shop");
	assert_int_equal(record->version, a.record->version);
	assert_true(json_equal(record->document, a.record->document));
	assert_string_equal(json_string_value(json_object_get(record->document, "name")), "Shop");
	tenant_record_destroy(&a.record);
	assert_int_equal(remove_record(f, 0, record), RSHM_OK);
	assert_int_equal(get_status(f, 0, "shop", NULL), RSHM_MISS);
	assert_int_equal(get_status(f, 1, "shop", NULL), RSHM_MISS);
	assert_int_equal(list(f, 1, NULL, 10, ids), 0);
	assert_int_equal(insert(f, 1, "shop"), RSHM_OK);
}

static void an_id_that_cannot_be_is_missed_without_a_question(void **state)
{
	static const char *const ids[] = {"", "-", "-a", "A", "a/b", "../x", "a b"};
	struct fixture *f = *state;
	char longer[RSHM_TENANT_MAX + 2];

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
		assert_int_equal(get_status(f, 0, ids[i], NULL), RSHM_MISS);
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(get_status(f, 0, longer, NULL), RSHM_MISS);
}

static void a_change_of_an_old_version_conflicts_and_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct tenant_record *old, *other, *record;
	struct answer a, b;

	assert_int_equal(insert(f, 0, "shop"), RSHM_OK);
	old = get(f, 0, "shop");
	other = get(f, 1, "shop");
	answer_begin(f, &a);
	registry_replace(f->agents[0].registry, old, on_record, &a);
	answer_begin(f, &b);
	registry_replace(f->agents[1].registry, other, on_record, &b);
	assert_true(fixture_wait(f, 20000));
	/* One of both. */
	assert_int_equal(a.status + b.status, RSHM_OK + RSHM_CONFLICT);
	assert_non_null(strstr(a.status == RSHM_OK ? b.text : a.text, "shop"));
	record = get(f, 0, "shop");
	assert_int_equal(record->version, a.record ? a.record->version : b.record->version);
	tenant_record_destroy(&a.record);
	tenant_record_destroy(&b.record);
	record->version--;
	assert_int_equal(remove_record(f, 1, record), RSHM_CONFLICT);
	record = get(f, 0, "shop");
	other = get(f, 0, "shop");
	assert_int_equal(remove_record(f, 1, record), RSHM_OK);
	/* It is not there any more. */
	answer_begin(f, &a);
	registry_replace(f->agents[0].registry, other, on_record, &a);
	assert_int_equal(wait_status(f, &a), RSHM_CONFLICT);
	assert_int_equal(get_status(f, 1, "shop", NULL), RSHM_MISS);
}

#define RACERS 40

static void racing_inserts_take_no_more_places_than_there_are(void **state)
{
	struct fixture *f = *state;
	struct answer *answers = calloc(RACERS, sizeof(*answers));
	uint32_t taken = 0;
	char ids[4096], id[16];

	assert_non_null(answers);
	for (int i = 0; i < RACERS; i++) {
		snprintf(id, sizeof(id), "t%02d", i);
		start_insert(f, i % 2, id, &answers[i]);
	}
	assert_true(fixture_wait(f, 60000));
	for (int i = 0; i < RACERS; i++) {
		snprintf(id, sizeof(id), "t%02d", i);
		assert_int_equal(answers[i].answers, 1);
		if (answers[i].status != RSHM_OK) {
			assert_int_equal(answers[i].status, RSHM_E_FULL);
			assert_null(answers[i].record);
			assert_non_null(strstr(answers[i].text, "25"));
			assert_int_equal(get_status(f, 0, id, NULL), RSHM_MISS);
			continue;
		}
		taken++;
		assert_int_equal(get_status(f, i % 2, id, NULL), RSHM_OK);
		tenant_record_destroy(&answers[i].record);
	}
	assert_int_equal(taken, 25);
	assert_int_equal(list(f, 0, NULL, 100, ids), 25);
	assert_int_equal(insert(f, 0, "another"), RSHM_E_FULL);
	/* A place that becomes free is taken by whoever comes next. */
	for (int i = 0; i < RACERS; i++) {
		snprintf(id, sizeof(id), "t%02d", i);
		if (answers[i].status == RSHM_OK) {
			assert_int_equal(remove_record(f, 1, get(f, 1, id)), RSHM_OK);
			break;
		}
	}
	assert_int_equal(insert(f, 0, "another"), RSHM_OK);
	assert_int_equal(insert(f, 1, "one-more"), RSHM_E_FULL);
	free(answers);
}

static void of_two_that_insert_one_id_one_wins(void **state)
{
	struct fixture *f = *state;
	struct answer answers[2][20];
	char ids[4096], id[16];

	for (int i = 0; i < 20; i++)
		for (int agent = 0; agent < 2; agent++) {
			snprintf(id, sizeof(id), "t%02d", i);
			start_insert(f, agent, id, &answers[agent][i]);
		}
	assert_true(fixture_wait(f, 60000));
	for (int i = 0; i < 20; i++) {
		struct answer *won = &answers[answers[0][i].status != RSHM_OK][i];
		struct answer *lost = &answers[answers[0][i].status == RSHM_OK][i];
		struct tenant_record *record;

		snprintf(id, sizeof(id), "t%02d", i);
		assert_int_equal(won->status, RSHM_OK);
		assert_int_equal(lost->status, RSHM_CONFLICT);
		assert_null(lost->record);
		assert_non_null(strstr(lost->text, id));
		record = get(f, 0, id);
		assert_int_equal(record->version, won->record->version);
		tenant_record_destroy(&record);
		tenant_record_destroy(&won->record);
	}
	assert_int_equal(list(f, 0, NULL, 100, ids), 20);
}

static void lists_come_in_pages_and_in_order(void **state)
{
	struct fixture *f = *state;
	char ids[4096], longer[200];

	assert_int_equal(insert(f, 0, "c"), RSHM_OK);
	assert_int_equal(insert(f, 1, "a"), RSHM_OK);
	assert_int_equal(insert(f, 0, "e"), RSHM_OK);
	assert_int_equal(insert(f, 1, "a-b"), RSHM_OK);
	assert_int_equal(list(f, 0, NULL, 3, ids), 4);
	assert_string_equal(ids, "a a-b c ");
	assert_int_equal(list(f, 0, "c", 3, ids), 4);
	assert_string_equal(ids, "e ");
	assert_int_equal(list(f, 1, "b", 1, ids), 4);
	assert_string_equal(ids, "c ");
	assert_int_equal(list(f, 1, "d", 9, ids), 4);
	assert_string_equal(ids, "e ");
	assert_int_equal(list(f, 1, "e", 9, ids), 4);
	assert_string_equal(ids, "");
	assert_int_equal(list(f, 1, "", 9, ids), 4);
	assert_string_equal(ids, "a a-b c e ");
	assert_int_equal(list(f, 1, "not an id", 9, ids), 4);
	assert_string_equal(ids, "");
	assert_int_equal(list(f, 1, NULL, 0, ids), 4);
	assert_string_equal(ids, "");
	memset(longer, 'c', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(list(f, 1, longer, 9, ids), 4);
	assert_string_equal(ids, "e ");
}

static void a_page_has_a_bound(void **state)
{
	struct fixture *f = *state;
	struct answer a;

	enter_orphans(f, "t", REGISTRY_PAGE_MAX + 5, 0);
	answer_begin(f, &a);
	registry_list(f->agents[0].registry, NULL, SIZE_MAX, on_list, &a);
	assert_int_equal(wait_status(f, &a), RSHM_OK);
	assert_int_equal(a.count, REGISTRY_PAGE_MAX);
	assert_int_equal(a.total, REGISTRY_PAGE_MAX + 5);
	answer_begin(f, &a);
	registry_list(f->agents[0].registry, "t00999", SIZE_MAX, on_list, &a);
	assert_int_equal(wait_status(f, &a), RSHM_OK);
	assert_string_equal(a.ids, "t01000 t01001 t01002 t01003 t01004 ");
}

static void tidying_removes_what_a_crash_left_and_nothing_else(void **state)
{
	struct fixture *f = *state;
	size_t count = 7;
	char ids[4096];

	assert_int_equal(tidy(f, 0, &count), RSHM_OK);
	assert_int_equal(count, 0);
	assert_int_equal(insert(f, 0, "alive"), RSHM_OK);
	enter_orphans(f, "left", 1, 120000);
	enter_orphans(f, "young", 1, 1000);
	/* An old one whose record exists. */
	enter_orphans(f, "old", 1, 120000);
	assert_int_equal(insert(f, 0, "old"), RSHM_OK);
	raw_delete(f, DIRECTORY);
	enter_orphans(f, "alive", 1, 3600000);
	enter_orphans(f, "left", 1, 120000);
	enter_orphans(f, "old", 1, 120000);
	enter_orphans(f, "young", 1, 1000);
	/* Of a clock that is ahead, or of a hostile hand: nobody's to judge. */
	enter_orphans(f, "tomorrow", 1, (uint64_t)-86400000);
	enter_orphans(f, "zz-never", 1, clock_realtime_ms() + 1000000);
	assert_int_equal(list(f, 0, NULL, 10, ids), 6);
	assert_int_equal(tidy(f, 1, &count), RSHM_OK);
	assert_int_equal(count, 1);
	assert_int_equal(list(f, 0, NULL, 10, ids), 5);
	assert_string_equal(ids, "alive old tomorrow young zz-never ");
	assert_int_equal(tidy(f, 1, &count), RSHM_OK);
	assert_int_equal(count, 0);
	assert_int_equal(get_status(f, 0, "alive", NULL), RSHM_OK);
}

/* It is no orphan, and no reason to leave the orphans behind it. */
static void tidying_passes_over_a_record_that_is_no_envelope(void **state)
{
	static const char garbage[200] = "nothing that an agent ever wrote";
	struct fixture *f = *state;
	char ids[4096];
	size_t count;

	enter_orphans(f, "broken", 1, 120000);
	enter_orphans(f, "left", 1, 120000);
	raw_put(f, "broken", garbage, sizeof(garbage));
	assert_int_equal(tidy(f, 0, &count), RSHM_OK);
	assert_int_equal(count, 1);
	assert_int_equal(list(f, 0, NULL, 10, ids), 1);
	assert_string_equal(ids, "broken ");
	assert_int_equal(get_status(f, 0, "broken", NULL), RSHM_E_CORRUPT);
}

static void an_id_that_a_crash_left_can_be_inserted(void **state)
{
	struct fixture *f = *state;
	char ids[4096];
	size_t count;

	enter_orphans(f, "t", 25, 120000);
	assert_int_equal(insert(f, 0, "other"), RSHM_E_FULL);
	assert_int_equal(insert(f, 0, "t00003"), RSHM_OK);
	assert_int_equal(tidy(f, 1, &count), RSHM_OK);
	assert_int_equal(count, 24);
	assert_int_equal(list(f, 0, NULL, 10, ids), 1);
	assert_string_equal(ids, "t00003 ");
	assert_int_equal(get_status(f, 1, "t00003", NULL), RSHM_OK);
}

/* Whoever can be got is listed; a tenant that is not would count for nothing and never be found again. */
static void assert_listed_if_there(struct fixture *f, const char *id)
{
	char ids[4096], word[RSHM_TENANT_MAX + 2];

	(void)list(f, 0, NULL, 100, ids);
	snprintf(word, sizeof(word), "%s ", id);
	if (get_status(f, 0, id, NULL) == RSHM_OK && !strstr(ids, word))
		fail_msg("%s exists, and the list says: %s", id, ids);
}

static void an_insert_while_another_agent_tidies_is_not_lost(void **state)
{
	struct fixture *f = *state;
	struct answer tidied, inserted;
	char id[16];

	for (int turn = 0; turn < 20; turn++) {
		snprintf(id, sizeof(id), "t%02d", turn);
		enter_orphans(f, id, 1, 120000);
		answer_begin(f, &tidied);
		registry_tidy(f->agents[0].registry, on_tidied, &tidied);
		for (int i = 0; i < turn % 4; i++)
			fixture_step(f);
		start_insert(f, 1, id, &inserted);
		assert_true(fixture_wait(f, 20000));
		assert_int_equal(tidied.status, RSHM_OK);
		assert_int_equal(inserted.status, RSHM_OK);
		tenant_record_destroy(&inserted.record);
		assert_listed_if_there(f, id);
	}
}

static void an_insert_while_another_agent_removes_is_not_lost(void **state)
{
	struct fixture *f = *state;
	struct answer removed, inserted;
	char id[16];

	for (int turn = 0; turn < 20; turn++) {
		snprintf(id, sizeof(id), "t%02d", turn);
		assert_int_equal(insert(f, 0, id), RSHM_OK);
		/* Whoever begins later, and how much. */
		struct tenant_record *record = get(f, 0, id);

		if (turn % 2)
			start_insert(f, 1, id, &inserted);
		for (int i = 0; turn % 2 && i < turn / 2 % 5; i++)
			fixture_step(f);
		answer_begin(f, &removed);
		registry_remove(f->agents[0].registry, record, on_record, &removed);
		for (int i = 0; turn % 2 == 0 && i < turn / 2 % 5; i++)
			fixture_step(f);
		if (turn % 2 == 0)
			start_insert(f, 1, id, &inserted);
		assert_true(fixture_wait(f, 20000));
		assert_int_equal(removed.status, RSHM_OK);
		assert_true(inserted.status == RSHM_OK || inserted.status == RSHM_CONFLICT);
		tenant_record_destroy(&inserted.record);
		assert_listed_if_there(f, id);
		if (get_status(f, 0, id, NULL) == RSHM_OK)
			assert_int_equal(remove_record(f, 1, get(f, 1, id)), RSHM_OK);
	}
}

/* The record is gone, the agent that removed it has not heard so yet, and another one makes it anew, wholly. */
static void a_late_remove_leaves_the_entry_of_a_new_tenant(void **state)
{
	struct fixture *f = *state;
	struct answer removed, got;
	struct tenant_record *record;
	int status = RSHM_OK;

	assert_int_equal(insert(f, 0, "shop"), RSHM_OK);
	record = get(f, 0, "shop");
	answer_begin(f, &removed);
	registry_remove(f->agents[0].registry, record, on_record, &removed);
	for (int tries = 0; tries < 2000 && status == RSHM_OK; tries++) {
		answer_begin(f, &got);
		registry_get(f->agents[1].registry, "shop", on_record, &got);
		for (int i = 0; i < 2000 && got.answers == 0; i++) {
			agent_step(&f->agents[1]);
			usleep(500);
		}
		assert_int_equal(got.answers, 1);
		status = got.status;
		tenant_record_destroy(&got.record);
		/* Until the question about the record is sent, and no further. */
		if (status == RSHM_OK)
			agent_step(&f->agents[0]);
	}
	assert_int_equal(status, RSHM_MISS);
	if (removed.answers > 0)
		fail_msg("the remove was over before it could be overtaken");
	start_insert(f, 1, "shop", &got);
	for (int i = 0; i < 10000 && got.answers == 0; i++) {
		agent_step(&f->agents[1]);
		usleep(500);
	}
	assert_int_equal(got.status, RSHM_OK);
	tenant_record_destroy(&got.record);
	assert_int_equal(removed.answers, 0);
	assert_true(fixture_wait(f, 20000));
	assert_int_equal(removed.status, RSHM_OK);
	assert_int_equal(get_status(f, 0, "shop", NULL), RSHM_OK);
	assert_listed_if_there(f, "shop");
}

#define STORM_IDS 4
#define STORM_CALLS 12

/* Inserts, removes and tidying of few ids from both sides; in the end records and list agree. */
static void after_a_storm_every_tenant_is_listed(void **state)
{
	struct fixture *f = *state;
	static struct answer answers[STORM_CALLS];
	uint32_t random = 12345;
	char id[16];

	f->options.orphan_ms = 2000;
	fixture_reopen(f);
	for (int round = 0; round < 40; round++) {
		for (int i = 0; i < STORM_CALLS; i++) {
			struct tenant_record *record;
			int agent;

			random = random * 1664525u + 1013904223u;
			agent = random >> 31;
			snprintf(id, sizeof(id), "t%u", (random >> 8) % STORM_IDS);
			if (random >> 29 & 1) {
				start_insert(f, agent, id, &answers[i]);
			} else if ((random >> 26 & 7) == 0) {
				answer_begin(f, &answers[i]);
				registry_tidy(f->agents[agent].registry, on_tidied, &answers[i]);
			} else {
				/* Of whatever version it is by then: mostly right at first. */
				record = record_of(id);
				answer_begin(f, &answers[i]);
				size_t length;
				unsigned char *bytes = NULL;
				struct envelope_head head = {.version = 1};

				f->outstanding--;
				if (i == 0)
					bytes = raw_get(f, id, &length);
				f->outstanding++;
				if (bytes)
					assert_int_equal(envelope_peek_head(bytes, length, &head), RSHM_OK);
				free(bytes);
				record->version = head.version;
				registry_remove(f->agents[agent].registry, record, on_record, &answers[i]);
			}
			if (random >> 24 & 1)
				fixture_step(f);
		}
		assert_true(fixture_wait(f, 30000));
		for (int i = 0; i < STORM_CALLS; i++) {
			assert_int_equal(answers[i].answers, 1);
			assert_true(answers[i].status == RSHM_OK || answers[i].status == RSHM_CONFLICT);
			tenant_record_destroy(&answers[i].record);
		}
		for (int i = 0; i < STORM_IDS; i++) {
			snprintf(id, sizeof(id), "t%d", i);
			assert_listed_if_there(f, id);
		}
	}
}

static void calls_beyond_the_bound_are_sent_away(void **state)
{
	struct fixture *f = *state;
	struct answer answers[6];
	uint32_t done = 0;
	char id[16];

	f->options.pending_max = 4;
	fixture_reopen(f);
	for (int i = 0; i < 6; i++) {
		snprintf(id, sizeof(id), "t%d", i);
		start_insert(f, 0, id, &answers[i]);
	}
	assert_true(fixture_wait(f, 20000));
	for (int i = 0; i < 6; i++) {
		done += answers[i].status == RSHM_OK;
		assert_int_equal(answers[i].status, i < 4 ? RSHM_OK : RSHM_E_AGAIN);
		assert_int_equal(answers[i].text[0] != '\0', i >= 4);
		tenant_record_destroy(&answers[i].record);
	}
	assert_int_equal(done, 4);
	assert_int_equal(insert(f, 0, "t5"), RSHM_OK);
}

#define QUEUE 1000

static void a_long_queue_is_answered_in_order_and_on_a_flat_stack(void **state)
{
	struct fixture *f = *state;
	struct answer *answers = calloc(QUEUE, sizeof(*answers));
	uintptr_t lowest = UINTPTR_MAX, highest = 0;
	char id[16];

	assert_non_null(answers);
	f->options.pending_max = QUEUE;
	f->options.tenants_max = 1;
	f->options.request_ms = 60000;
	fixture_reopen(f);
	for (int i = 0; i < QUEUE; i++) {
		snprintf(id, sizeof(id), "t%d", i);
		start_insert(f, 0, id, &answers[i]);
	}
	assert_true(fixture_wait(f, 60000));
	for (int i = 0; i < QUEUE; i++) {
		assert_int_equal(answers[i].status, i == 0 ? RSHM_OK : RSHM_E_FULL);
		assert_int_equal(answers[i].order, i);
		lowest = answers[i].frame < lowest ? answers[i].frame : lowest;
		highest = answers[i].frame > highest ? answers[i].frame : highest;
	}
	assert_true(highest - lowest < 65536);
	tenant_record_destroy(&answers[0].record);
	free(answers);
}

static void a_store_that_closes_answers_what_is_under_way_and_waits(void **state)
{
	struct fixture *f = *state;
	struct answer answers[30], got, listed, tidied;
	char id[16];

	for (int i = 0; i < 30; i++) {
		snprintf(id, sizeof(id), "t%d", i);
		start_insert(f, 0, id, &answers[i]);
	}
	answer_begin(f, &got);
	registry_get(f->agents[0].registry, "t0", on_record, &got);
	answer_begin(f, &listed);
	registry_list(f->agents[0].registry, NULL, 10, on_list, &listed);
	answer_begin(f, &tidied);
	registry_tidy(f->agents[0].registry, on_tidied, &tidied);
	fixture_close_agent(f, 0);
	assert_int_equal(f->outstanding, 0);
	for (int i = 0; i < 30; i++) {
		assert_int_equal(answers[i].answers, 1);
		tenant_record_destroy(&answers[i].record);
	}
	tenant_record_destroy(&got.record);
	fixture_open_agent(f, 0);
	for (int i = 0; i < 30; i++) {
		snprintf(id, sizeof(id), "t%d", i);
		assert_listed_if_there(f, id);
	}
}

/* What stands in the backend under `key` stays to the last byte through all calls; each says what is wrong. */
static void assert_damage_is_refused(struct fixture *f, const char *key, int expected)
{
	bool is_directory = strcmp(key, DIRECTORY) == 0;
	size_t before_len, after_len;
	unsigned char *before = raw_get(f, key, &before_len), *after;
	struct answer a;

	assert_non_null(before);
	start_insert(f, 0, is_directory ? "new" : key, &a);
	assert_int_equal(wait_status(f, &a), is_directory ? expected : RSHM_CONFLICT);
	assert_true(a.text[0] != '\0');
	if (is_directory) {
		answer_begin(f, &a);
		registry_list(f->agents[0].registry, NULL, 10, on_list, &a);
		assert_int_equal(wait_status(f, &a), expected);
		answer_begin(f, &a);
		registry_tidy(f->agents[0].registry, on_tidied, &a);
		assert_int_equal(wait_status(f, &a), expected);
		assert_int_equal(get_status(f, 0, "new", NULL), RSHM_MISS);
	} else {
		char text[256];

		assert_int_equal(get_status(f, 0, key, text), expected);
		assert_non_null(strstr(text, key));
	}
	after = raw_get(f, key, &after_len);
	assert_non_null(after);
	assert_int_equal(before_len, after_len);
	assert_memory_equal(before, after, before_len);
	free(before);
	free(after);
}

static void a_damaged_record_is_reported_and_kept(void **state)
{
	struct fixture *f = *state;
	unsigned char *bytes;
	size_t length;

	assert_int_equal(insert(f, 0, "shop"), RSHM_OK);
	assert_int_equal(insert(f, 0, "other"), RSHM_OK);
	bytes = raw_get(f, "shop", &length);
	bytes[length - 1] ^= 1;
	raw_put(f, "shop", bytes, length);
	assert_damage_is_refused(f, "shop", RSHM_E_CORRUPT);
	raw_put_text(f, "shop", "{\"id\":\"shop\"}", 13);
	assert_damage_is_refused(f, "shop", RSHM_E_CORRUPT);
	raw_put_text(f, "shop", "", 0);
	assert_damage_is_refused(f, "shop", RSHM_E_CORRUPT);
	/* Of another tenant, in its place. */
	free(bytes);
	bytes = raw_get(f, "other", &length);
	raw_put(f, "shop", bytes, length);
	assert_damage_is_refused(f, "shop", RSHM_E_CORRUPT);
	free(bytes);
	assert_int_equal(get_status(f, 1, "other", NULL), RSHM_OK);
}

static void a_damaged_directory_is_reported_and_kept(void **state)
{
	struct fixture *f = *state;
	unsigned char *bytes;
	size_t length;
	char *large;

	assert_int_equal(insert(f, 0, "shop"), RSHM_OK);
	bytes = raw_get(f, DIRECTORY, &length);
	bytes[length - 1] ^= 1;
	raw_put(f, DIRECTORY, bytes, length);
	free(bytes);
	assert_damage_is_refused(f, DIRECTORY, RSHM_E_CORRUPT);
	raw_put_text(f, DIRECTORY, "shop 5", 6);
	assert_damage_is_refused(f, DIRECTORY, RSHM_E_CORRUPT);
	raw_put_text(f, DIRECTORY, "shop 5\nbar 6\n", 13);
	assert_damage_is_refused(f, DIRECTORY, RSHM_E_CORRUPT);
	large = calloc(1, 300000);
	assert_non_null(large);
	raw_put_text(f, DIRECTORY, large, 300000);
	free(large);
	assert_damage_is_refused(f, DIRECTORY, RSHM_E_CORRUPT);
	/* The tenants themselves are none the worse. */
	assert_int_equal(get_status(f, 1, "shop", NULL), RSHM_OK);
}

/* An id that could not be taken out would hold its place. */
static void a_tenant_is_not_removed_while_the_directory_is_damaged(void **state)
{
	struct fixture *f = *state;
	struct tenant_record *record;
	unsigned char *bytes, *after;
	size_t length, after_len;
	int status;

	assert_int_equal(insert(f, 0, "shop"), RSHM_OK);
	record = get(f, 0, "shop");
	raw_put_text(f, DIRECTORY, "shop", 4);
	bytes = raw_get(f, DIRECTORY, &length);
	status = remove_record(f, 0, record);
	/* An error says that nothing was changed. */
	assert_int_equal(status, RSHM_E_CORRUPT);
	assert_int_equal(get_status(f, 0, "shop", NULL), RSHM_OK);
	after = raw_get(f, DIRECTORY, &after_len);
	assert_int_equal(length, after_len);
	assert_memory_equal(bytes, after, length);
	free(bytes);
	free(after);
}

static void a_long_directory_is_tidied_on_a_flat_stack(void **state)
{
	struct fixture *f = *state;
	uint32_t ids = f->is_redis ? 1000 : 5000;
	char list_ids[4096];
	size_t count;

	f->options.tenants_max = 10000;
	fixture_reopen(f);
	assert_int_equal(insert(f, 0, "zz"), RSHM_OK);
	enter_orphans(f, "t", ids, 120000);
	assert_int_equal(tidy(f, 0, &count), RSHM_OK);
	assert_int_equal(count, ids);
	assert_int_equal(list(f, 0, NULL, 10, list_ids), 1);
	assert_string_equal(list_ids, "zz ");
}

/* ---- a server that is not always there ---- */

static void inserts_do_not_wait_for_a_long_tidying(void **state)
{
	struct fixture *f = *state;
	struct answer tidied, inserted;

	f->options.tenants_max = 10000;
	fixture_reopen(f);
	enter_orphans(f, "t", 2000, 120000);
	answer_begin(f, &tidied);
	registry_tidy(f->agents[0].registry, on_tidied, &tidied);
	start_insert(f, 0, "shop", &inserted);
	assert_true(fixture_wait(f, 60000));
	assert_int_equal(tidied.status, RSHM_OK);
	assert_int_equal(tidied.count, 2000);
	assert_int_equal(inserted.status, RSHM_OK);
	assert_true(inserted.order < tidied.order);
	tenant_record_destroy(&inserted.record);
	assert_listed_if_there(f, "shop");
}

static void calls_to_a_hung_server_are_answered_in_time(void **state)
{
	struct fixture *f = *state;
	struct answer answers[30];
	char id[16];

	f->options.request_ms = 400;
	fixture_reopen(f);
	assert_int_equal(insert(f, 0, "first"), RSHM_OK);
	redis_server_pause(&f->server);
	for (int i = 0; i < 30; i++) {
		snprintf(id, sizeof(id), "t%d", i);
		start_insert(f, 0, id, &answers[i]);
	}
	/* A queue of 30 does not wait 30 times as long. */
	assert_true(fixture_wait(f, 5000));
	redis_server_resume(&f->server);
	for (int i = 0; i < 30; i++) {
		assert_int_equal(answers[i].answers, 1);
		assert_true(answers[i].status < 0);
		assert_null(answers[i].record);
	}
	f->options.request_ms = 10000;
	fixture_reopen(f);
	for (int i = 0; i < 10; i++) {
		snprintf(id, sizeof(id), "t%d", i);
		assert_listed_if_there(f, id);
	}
	assert_int_equal(insert(f, 0, "last"), RSHM_OK);
}

static void a_server_that_dies_in_mid_insert_leaves_nothing_behind(void **state)
{
	struct fixture *f = *state;
	struct answer answers[20];
	char ids[4096], id[16];
	uint64_t longest_ms = 0;

	f->options.request_ms = 2000;
	fixture_reopen(f);
	for (int turn = 0; turn < 6; turn++) {
		for (int i = 0; i < 20; i++) {
			snprintf(id, sizeof(id), "t%02d", i);
			start_insert(f, i % 2, id, &answers[i]);
		}
		for (int i = 0; i < turn * 3; i++)
			fixture_step(f);
		redis_server_kill(&f->server);
		assert_true(fixture_wait(f, 30000));
		for (int i = 0; i < 20; i++) {
			uint64_t took_ms = answers[i].answered_ms - answers[i].asked_ms;

			assert_int_equal(answers[i].answers, 1);
			longest_ms = took_ms > longest_ms ? took_ms : longest_ms;
			tenant_record_destroy(&answers[i].record);
		}
		/* Of few steps each, the wait for one's turn among them. */
		assert_true(longest_ms < 4 * f->options.request_ms + 1000);
		assert_int_equal(redis_server_restart(&f->server), 0);
		for (int tries = 0; tries < 100; tries++) {
			int status = insert(f, 0, "again");

			if (status == RSHM_OK)
				break;
			assert_true(status == RSHM_E_AGAIN || status == RSHM_E_TIMEDOUT);
			usleep(20000);
		}
		assert_int_equal(list(f, 1, NULL, 10, ids), 1);
		assert_string_equal(ids, "again ");
		assert_int_equal(remove_record(f, 1, get(f, 1, "again")), RSHM_OK);
	}
}

/* ---- */

static int make_embedded(void **state)
{
	*state = fixture_create(false);
	return 0;
}

static int make_redis(void **state)
{
	*state = fixture_create(true);
	return 0;
}

static int unmake(void **state)
{
	fixture_destroy(*state);
	return 0;
}

#define ON(make, test) cmocka_unit_test_setup_teardown(test, make, unmake)
#define ON_BOTH(make)                                                                                                \
	ON(make, a_tenant_lives_from_insert_to_remove), ON(make, an_id_that_cannot_be_is_missed_without_a_question), \
		ON(make, a_change_of_an_old_version_conflicts_and_changes_nothing),                                  \
		ON(make, racing_inserts_take_no_more_places_than_there_are),                                         \
		ON(make, of_two_that_insert_one_id_one_wins), ON(make, lists_come_in_pages_and_in_order),            \
		ON(make, a_page_has_a_bound), ON(make, tidying_removes_what_a_crash_left_and_nothing_else),          \
		ON(make, tidying_passes_over_a_record_that_is_no_envelope),                                          \
		ON(make, an_id_that_a_crash_left_can_be_inserted),                                                   \
		ON(make, an_insert_while_another_agent_tidies_is_not_lost),                                          \
		ON(make, an_insert_while_another_agent_removes_is_not_lost),                                         \
		ON(make, a_late_remove_leaves_the_entry_of_a_new_tenant),                                            \
		ON(make, after_a_storm_every_tenant_is_listed), ON(make, calls_beyond_the_bound_are_sent_away),      \
		ON(make, a_long_queue_is_answered_in_order_and_on_a_flat_stack),                                     \
		ON(make, a_store_that_closes_answers_what_is_under_way_and_waits),                                   \
		ON(make, a_damaged_record_is_reported_and_kept), ON(make, a_damaged_directory_is_reported_and_kept), \
		ON(make, a_tenant_is_not_removed_while_the_directory_is_damaged),                                    \
		ON(make, a_long_directory_is_tidied_on_a_flat_stack)

int main(void)
{
	const struct CMUnitTest on_embedded[] = {ON_BOTH(make_embedded)};
	const struct CMUnitTest on_redis[] = {
		ON_BOTH(make_redis),
		ON(make_redis, inserts_do_not_wait_for_a_long_tidying),
		ON(make_redis, calls_to_a_hung_server_are_answered_in_time),
		ON(make_redis, a_server_that_dies_in_mid_insert_leaves_nothing_behind),
	};
	int failed = cmocka_run_group_tests(on_embedded, NULL, NULL);

	if (!redis_server_is_installed()) {
		print_message("[  SKIPPED ] no redis-server\n");
		return failed;
	}
	return failed + cmocka_run_group_tests(on_redis, NULL, NULL);
}
