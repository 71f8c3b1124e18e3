/* record_test.c - what a tenant's document may say, and what of a stored one is believed. */
#include "agent/tenant/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/base/text.h"

#define NOW 1700000000000ull
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static char error[256];

static const struct tenant_defaults plain = {.isolation = TENANT_ISOLATION_LOGICAL};

static struct tenant_record *create_with(const char *json, const struct tenant_defaults *defaults)
{
	struct tenant_record *record = NULL;

	error[0] = '\0';
	if (tenant_record_create(json, strlen(json), defaults, NOW, &record, error, sizeof(error)) != RSHM_OK)
		fail_msg("%s: %s", json, error);
	return record;
}

static struct tenant_record *create(const char *json)
{
	return create_with(json, &plain);
}

/* RSHM_E_INVALID, a word of why on one line of UTF-8, and nothing given. */
static void refuse(const char *json, const char *word)
{
	struct tenant_record *record = NULL;
	json_t *readable;

	error[0] = '\0';
	if (tenant_record_create(json, strlen(json), &plain, NOW, &record, error, sizeof(error)) != RSHM_E_INVALID)
		fail_msg("accepted: %s", json);
	assert_null(record);
	if (!strstr(error, word))
		fail_msg("%s: \"%s\" does not say \"%s\"", json, error, word);
	readable = json_string(error);
	assert_non_null(readable);
	json_decref(readable);
	for (const char *c = error; *c; c++)
		assert_true((unsigned char)*c >= ' ');
}

static const char *text_of(const struct tenant_record *record, const char *name)
{
	return json_string_value(json_object_get(record->document, name));
}

static struct tenant_record *update(const struct tenant_record *record, const char *json, uint64_t now_ms)
{
	struct tenant_record *changed = NULL;

	if (tenant_record_update(record, json, strlen(json), &plain, now_ms, &changed, error, sizeof(error)) !=
	    RSHM_OK)
		fail_msg("%s: %s", json, error);
	return changed;
}

/* What is stored is read back as the same document. */
static void assert_comes_back(const struct tenant_record *record)
{
	char *text = tenant_record_encode(record);
	struct tenant_record *again = NULL;

	assert_non_null(text);
	assert_true(strlen(text) <= TENANT_RECORD_MAX);
	if (tenant_record_decode(record->id, text, strlen(text), &again, error, sizeof(error)) != RSHM_OK)
		fail_msg("%s", error);
	assert_true(json_equal(record->document, again->document));
	assert_string_equal(again->id, record->id);
	assert_int_equal(again->status, record->status);
	assert_int_equal(again->plan, record->plan);
	assert_int_equal(again->isolation, record->isolation);
	assert_int_equal(again->encryption, record->encryption);
	assert_int_equal(again->hot, record->hot);
	assert_int_equal(again->version, 0);
	tenant_record_destroy(&again);
	assert_null(again);
	free(text);
}

static void an_empty_document_becomes_a_complete_tenant(void **state)
{
	struct tenant_record *record = create("{}"), *other = create("{}");

	(void)state;
	assert_int_equal(strlen(record->id), 21);
	assert_int_equal(record->id[0], 't');
	assert_true(tenant_id_is_valid(record->id));
	assert_string_not_equal(record->id, other->id);
	assert_string_equal(text_of(record, "id"), record->id);
	assert_string_equal(text_of(record, "name"), record->id);
	assert_string_equal(text_of(record, "status"), "active");
	assert_string_equal(text_of(record, "status_reason"), "");
	assert_string_equal(text_of(record, "plan"), "free");
	assert_string_equal(text_of(record, "isolation"), "logical");
	assert_int_equal(record->plan, TENANT_FREE);
	assert_int_equal(record->status, TENANT_ACTIVE);
	assert_int_equal(record->version, 0);
	assert_false(record->encryption);
	assert_true(record->hot);
	assert_int_equal(json_integer_value(json_object_get(record->document, "created_ms")), NOW);
	assert_int_equal(json_integer_value(json_object_get(record->document, "updated_ms")), NOW);
	assert_int_equal(json_array_size(json_object_get(record->document, "users")), 0);
	assert_comes_back(record);
	tenant_record_destroy(&record);
	tenant_record_destroy(&other);
}

static void defaults_fill_what_was_left_out_and_nothing_else(void **state)
{
	struct tenant_defaults defaults = {.isolation = TENANT_ISOLATION_STRONG, .encryption = true, .user = "alice"};
	struct tenant_record *record = create_with("{}", &defaults);

	(void)state;
	assert_int_equal(record->isolation, TENANT_ISOLATION_STRONG);
	assert_true(record->encryption);
	assert_string_equal(json_string_value(json_array_get(json_object_get(record->document, "users"), 0)),
			    "alice");
	tenant_record_destroy(&record);

	record = create_with("{\"isolation\":\"none\",\"encryption\":false,\"groups\":[\"staff\"]}", &defaults);
	assert_int_equal(record->isolation, TENANT_ISOLATION_NONE);
	assert_false(record->encryption);
	/* Who names groups alone means these alone. */
	assert_int_equal(json_array_size(json_object_get(record->document, "users")), 0);
	tenant_record_destroy(&record);

	record = create_with("{\"id\":null,\"users\":null,\"isolation\":null,\"hot\":null}", &defaults);
	assert_int_equal(record->isolation, TENANT_ISOLATION_STRONG);
	assert_int_equal(json_array_size(json_object_get(record->document, "users")), 1);
	assert_true(record->hot);
	tenant_record_destroy(&record);
}

static void quotas_of_the_plan_apply_where_the_tenant_has_none_of_its_own(void **state)
{
	json_t *basic = json_pack("{s:i,s:i}", "memory_bytes", 1000, "sessions", 5);
	struct tenant_defaults defaults = {.quotas = {[TENANT_BASIC] = basic}};
	struct tenant_record *record =
		create_with("{\"plan\":\"basic\",\"quotas\":{\"sessions\":9,\"operations\":0}}", &defaults);
	uint64_t limit = 77;

	(void)state;
	assert_true(tenant_record_quota(record, "memory_bytes", &limit));
	assert_int_equal(limit, 1000);
	assert_true(tenant_record_quota(record, "sessions", &limit));
	assert_int_equal(limit, 9);
	assert_true(tenant_record_quota(record, "operations", &limit));
	assert_int_equal(limit, 0);
	limit = 77;
	assert_false(tenant_record_quota(record, "unheard_of", &limit));
	assert_int_equal(limit, 77);
	assert_int_equal(json_object_size(basic), 2);
	assert_int_equal(json_integer_value(json_object_get(basic, "sessions")), 5);
	tenant_record_destroy(&record);
	record = create_with("{\"plan\":\"free\"}", &defaults);
	assert_false(tenant_record_quota(record, "memory_bytes", &limit));
	tenant_record_destroy(&record);
	json_decref(basic);
}

/* Each list alone is allowed; a record of both could be stored and never be read. */
static void quotas_of_plan_and_tenant_together_are_not_too_many(void **state)
{
	json_t *of_plan = json_object();
	struct tenant_defaults defaults = {.quotas = {[TENANT_FREE] = of_plan}};
	struct tenant_record *record = NULL;
	char json[64], name[16];

	(void)state;
	for (unsigned int i = 0; i < TENANT_QUOTAS_MAX; i++) {
		snprintf(name, sizeof(name), "q%u", i);
		json_object_set_new(of_plan, name, json_integer(i));
	}
	snprintf(json, sizeof(json), "{\"quotas\":{\"q1\":5}}");
	record = create_with(json, &defaults);
	assert_comes_back(record);
	tenant_record_destroy(&record);
	snprintf(json, sizeof(json), "{\"quotas\":{\"another\":5}}");
	error[0] = '\0';
	assert_int_equal(tenant_record_create(json, strlen(json), &defaults, NOW, &record, error, sizeof(error)),
			 RSHM_E_INVALID);
	assert_non_null(strstr(error, "quotas"));
	assert_null(record);
	json_decref(of_plan);
}

static const char *const right[] = {
	"{\"id\":\"a\"}",
	"{\"id\":\"0-9-z-\"}",
	"{\"id\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
	"{\"name\":\"\"}",
	"{\"name\":\"Bäckerei \\u00e4\\ud83d\\ude00\"}",
	"{\"owner\":{}}",
	"{\"owner\":{\"id\":\"1\",\"name\":\"n\",\"email\":\"e@x\",\"organization\":\"o\"}}",
	"{\"plan\":\"free\"}",
	"{\"plan\":\"basic\"}",
	"{\"plan\":\"professional\"}",
	"{\"plan\":\"enterprise\"}",
	"{\"plan\":\"custom\"}",
	"{\"isolation\":\"none\"}",
	"{\"isolation\":\"logical\"}",
	"{\"isolation\":\"strong\"}",
	"{\"encryption\":true}",
	"{\"hot\":false}",
	"{\"users\":[]}",
	"{\"users\":[\"alice\",0,1000,65533]}",
	"{\"users\":[65535,100000,4294967294]}",
	"{\"groups\":[\"staff\"]}",
	"{\"quotas\":{}}",
	"{\"quotas\":{\"a_1\":0,\"abcdefghijabcdefghijabcdefghijabcdefghijabcdefgh\":9223372036854775807}}",
	"{\"cache\":{}}",
	("{\"cache\":{\"default_ttl_seconds\":0,\"write_mode\":\"behind\",\"eviction_policy\":\"s3fifo\","
	 "\"stale_policy\":\"error\"}}"),
	"{\"cache\":{\"default_ttl_seconds\":315360000}}",
	"{\"settings\":{}}",
	"{\"settings\":{\"\":null,\"a\":[1,2.5,true,null,{\"b\":-9223372036854775808}]}}",
};

static void every_right_member_is_taken_and_stored(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(right); i++) {
		struct tenant_record *record = create(right[i]);

		assert_comes_back(record);
		tenant_record_destroy(&record);
	}
}

static const struct {
	const char *json, *word;
} wrong[] = {
	{"{\"id\":\"\"}", "\"id\""},
	{"{\"id\":\"-\"}", "\"id\""},
	{"{\"id\":\"-a\"}", "\"id\""},
	{"{\"id\":\"A\"}", "\"id\""},
	{"{\"id\":\"a/b\"}", "\"id\""},
	{"{\"id\":\"..\"}", "\"id\""},
	{"{\"id\":\"a\\n\"}", "\"id\""},
	{"{\"id\":7}", "\"id\""},
	{"{\"id\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}", "\"id\""},
	{"{\"name\":7}", "\"name\""},
	{"{\"name\":[\"a\"]}", "\"name\""},
	{"{\"owner\":\"me\"}", "\"owner\""},
	{"{\"owner\":{\"phone\":\"1\"}}", "\"owner\""},
	{"{\"owner\":{\"id\":1}}", "\"owner\""},
	{"{\"owner\":{\"id\":null}}", "\"owner\""},
	{"{\"plan\":\"Free\"}", "\"plan\""},
	{"{\"plan\":\"\"}", "\"plan\""},
	{"{\"plan\":0}", "\"plan\""},
	{"{\"isolation\":\"weak\"}", "\"isolation\""},
	{"{\"isolation\":true}", "\"isolation\""},
	{"{\"encryption\":\"true\"}", "\"encryption\""},
	{"{\"encryption\":1}", "\"encryption\""},
	{"{\"hot\":0}", "\"hot\""},
	{"{\"users\":\"alice\"}", "\"users\""},
	{"{\"users\":[\"\"]}", "\"users\""},
	{"{\"users\":[null]}", "\"users\""},
	{"{\"users\":[-1]}", "\"users\""},
	{"{\"users\":[1.0]}", "\"users\""},
	{"{\"users\":[65534]}", "\"users\""},
	{"{\"users\":[4294967295]}", "\"users\""},
	{"{\"groups\":{\"a\":1}}", "\"groups\""},
	{"{\"groups\":[[\"a\"]]}", "\"groups\""},
	{"{\"quotas\":[]}", "\"quotas\""},
	{"{\"quotas\":{\"\":1}}", "\"quotas\""},
	{"{\"quotas\":{\"Memory\":1}}", "\"quotas\""},
	{"{\"quotas\":{\"a b\":1}}", "\"quotas\""},
	{"{\"quotas\":{\"abcdefghijabcdefghijabcdefghijabcdefghijabcdefghi\":1}}", "\"quotas\""},
	{"{\"quotas\":{\"a\":-1}}", "\"quotas\""},
	{"{\"quotas\":{\"a\":1.5}}", "\"quotas\""},
	{"{\"quotas\":{\"a\":\"1\"}}", "\"quotas\""},
	{"{\"quotas\":{\"a\":null}}", "\"quotas\""},
	{"{\"quotas\":{\"a\":9223372036854775808}}", "line 1"},
	{"{\"cache\":[]}", "\"cache\""},
	{"{\"cache\":{\"ttl\":1}}", "\"cache\""},
	{"{\"cache\":{\"default_ttl_seconds\":-1}}", "\"cache\""},
	{"{\"cache\":{\"default_ttl_seconds\":315360001}}", "\"cache\""},
	{"{\"cache\":{\"write_mode\":\"around\"}}", "\"cache\""},
	{"{\"cache\":{\"eviction_policy\":1}}", "\"cache\""},
	{"{\"cache\":{\"stale_policy\":\"\"}}", "\"cache\""},
	{"{\"settings\":[]}", "\"settings\""},
	{"{\"settings\":\"\"}", "\"settings\""},
	/* The agents' own, and nobody's. */
	{"{\"status\":\"active\"}", "\"status\""},
	{"{\"status_reason\":\"\"}", "\"status_reason\""},
	{"{\"created_ms\":1}", "\"created_ms\""},
	{"{\"updated_ms\":1}", "\"updated_ms\""},
	{"{\"version\":1}", "\"version\""},
	{"{\"tokens\":[]}", "\"tokens\""},
	{"{\"qoutas\":{}}", "\"qoutas\""},
	{"{\"unheard\":null}", "\"unheard\""},
	{"{\"\":1}", "\"\""},
	{"{\"a\\nb\\u001b[2J\":1}", "a\\n"},
	/* No document. */
	{"", "line"},
	{"null", "line 1"},
	{"[]", "object"},
	{"\"a\"", "line 1"},
	{"{", "line"},
	{"{}x", "line 1"},
	{"{} {}", "line 1"},
	{"{\"name\":\"a\",\"name\":\"b\"}", "duplicate"},
	{"{\"settings\":{\"a\":1,\"a\":1}}", "duplicate"},
	{"{\"name\":\"a\\u0000b\"}", "line 1"},
	{"{\"a\\u0000b\":1}", "line 1"},
	{"{\"settings\":{\"a\\u0000b\":1}}", "line 1"},
	{"{\"name\":\"\\ud800\"}", "line 1"},
	{"{\"name\":\"\xff\"}", "line 1"},
	{"{\"name\":\"\xc0\x80\"}", "line 1"},
	{"{\"settings\":{\"a\":1e999}}", "line 1"},
	{"{\"settings\":{\"a\":NaN}}", "line 1"},
	{"{\x1b}", "line 1"},
	{"{\"name\":\n\x01}", "line 2"},
};

static void every_wrong_member_is_refused_by_name(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(wrong); i++)
		refuse(wrong[i].json, wrong[i].word);
}

static void a_nul_between_the_bytes_of_a_document_is_refused(void **state)
{
	static const char json[] = "{\"name\":\"a\"}\0{}";
	static const char inside[] = "{\"name\":\"a\0b\"}";
	struct tenant_record *record = NULL;

	(void)state;
	assert_int_equal(tenant_record_create(json, sizeof(json) - 1, &plain, NOW, &record, error, sizeof(error)),
			 RSHM_E_INVALID);
	assert_int_equal(tenant_record_create(inside, sizeof(inside) - 1, &plain, NOW, &record, error, sizeof(error)),
			 RSHM_E_INVALID);
	assert_null(record);
}

/* A long member in a document of its own: `before`, `count` times `unit` and commas, `after`. */
static char *repeat(const char *before, const char *unit, const char *separator, size_t count, const char *after)
{
	size_t size = strlen(before) + count * (strlen(unit) + strlen(separator)) + strlen(after) + 1;
	char *json = malloc(size), *end = json;

	assert_non_null(json);
	end = stpcpy(end, before);
	for (size_t i = 0; i < count; i++)
		end = stpcpy(stpcpy(end, i ? separator : ""), unit);
	stpcpy(end, after);
	return json;
}

static void lists_and_texts_have_a_bound(void **state)
{
	struct {
		const char *before, *unit, *separator, *after, *word;
		size_t most;
	} cases[] = {
		{"{\"name\":\"", "a", "", "\"}", "\"name\"", TENANT_TEXT_MAX},
		{"{\"name\":\"", "\\u00e4", "", "\"}", "\"name\"", TENANT_TEXT_MAX / 2},
		{"{\"owner\":{\"email\":\"", "a", "", "\"}}", "\"owner\"", TENANT_TEXT_MAX},
		{"{\"users\":[", "\"a\"", ",", "]}", "\"users\"", TENANT_USERS_MAX},
		{"{\"groups\":[", "1", ",", "]}", "\"groups\"", TENANT_USERS_MAX},
		{"{\"groups\":[\"", "a", "", "\"]}", "\"groups\"", TENANT_TEXT_MAX},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *json =
			repeat(cases[i].before, cases[i].unit, cases[i].separator, cases[i].most, cases[i].after);
		struct tenant_record *record = create(json);

		assert_comes_back(record);
		tenant_record_destroy(&record);
		free(json);
		json = repeat(cases[i].before, cases[i].unit, cases[i].separator, cases[i].most + 1, cases[i].after);
		refuse(json, cases[i].word);
		free(json);
	}
}

static void a_document_has_a_bound_and_what_is_within_can_be_stored(void **state)
{
	char *json = repeat("{\"settings\":{\"a\":\"", "a", "", TENANT_RECORD_MAX, "\"}}");
	struct tenant_record *record = NULL;

	(void)state;
	assert_int_equal(tenant_record_create(json, strlen(json), &plain, NOW, &record, error, sizeof(error)),
			 RSHM_E_TOOBIG);
	free(json);
	/* Small as given, large as stored: reals grow. */
	json = repeat("{\"settings\":{\"a\":[", "1E15", ",", 50000, "]}}");
	assert_true(strlen(json) <= TENANT_RECORD_MAX);
	assert_int_equal(tenant_record_create(json, strlen(json), &plain, NOW, &record, error, sizeof(error)),
			 RSHM_E_TOOBIG);
	assert_null(record);
	free(json);
	record = create("{}");
	json = repeat("{\"settings\":{\"a\":\"", "a", "", TENANT_RECORD_MAX - 30, "\"}}");
	struct tenant_record *changed = NULL;
	assert_int_equal(
		tenant_record_update(record, json, strlen(json), &plain, NOW, &changed, error, sizeof(error)),
		RSHM_E_TOOBIG);
	assert_null(changed);
	tenant_record_destroy(&record);
	free(json);
}

/* Who may suspend a tenant must be able to, however full its document is. */
static void the_largest_tenant_can_still_be_suspended_with_the_longest_reason(void **state)
{
	struct tenant_record *record = NULL, *changed;
	size_t low = 0, high = TENANT_RECORD_MAX;
	char reason[TENANT_TEXT_MAX + 1];

	(void)state;
	memset(reason, 1, TENANT_TEXT_MAX);
	reason[TENANT_TEXT_MAX] = '\0';
	while (low < high) {
		size_t middle = (low + high + 1) / 2;
		char *json = repeat("{\"id\":\"a\",\"settings\":{\"a\":\"", "a", "", middle, "\"}}");
		int status = tenant_record_create(json, strlen(json), &plain, NOW, &changed, error, sizeof(error));

		free(json);
		if (status == RSHM_OK) {
			tenant_record_destroy(&record);
			record = changed;
			low = middle;
		} else {
			assert_int_equal(status, RSHM_E_TOOBIG);
			high = middle - 1;
		}
	}
	assert_non_null(record);
	assert_true(low > TENANT_RECORD_MAX / 2);
	assert_comes_back(record);
	assert_int_equal(tenant_record_set_status(record, TENANT_SUSPENDED, reason, UINT32_MAX * 1000ull, &changed),
			 RSHM_OK);
	assert_string_equal(text_of(changed, "status_reason"), reason);
	assert_comes_back(changed);
	tenant_record_destroy(&record);
	tenant_record_destroy(&changed);
}

static void deep_settings_are_refused_or_survive_everything(void **state)
{
	static const size_t depths[] = {1, 100, 2040, 2045, 2046, 2047, 2048, 2049, 5000, 100000};
	bool accepted = false, refused = false;

	(void)state;
	for (size_t i = 0; i < COUNT(depths); i++) {
		char *open = repeat("{\"settings\":{\"a\":", "[", "", depths[i], "");
		char *json = repeat(open, "]", "", depths[i], "}}");
		struct tenant_record *record = NULL, *changed;
		int status = tenant_record_create(json, strlen(json), &plain, NOW, &record, error, sizeof(error));

		if (status == RSHM_OK) {
			json_t *shown = tenant_record_public(record);

			assert_non_null(shown);
			json_decref(shown);
			assert_comes_back(record);
			changed = update(record, json, NOW);
			assert_comes_back(changed);
			tenant_record_destroy(&changed);
			tenant_record_destroy(&record);
			accepted |= depths[i] == 100;
		} else {
			assert_int_equal(status, RSHM_E_INVALID);
			refused = true;
		}
		free(open);
		free(json);
	}
	assert_true(accepted);
	assert_true(refused);
}

static void an_update_changes_whole_members_and_nothing_else(void **state)
{
	struct tenant_record *record = create("{\"id\":\"shop\",\"name\":\"Shop\",\"plan\":\"basic\",\"hot\":false,"
					      "\"users\":[\"alice\"],\"quotas\":{\"a\":1,\"b\":2},"
					      "\"settings\":{\"x\":1},\"cache\":{\"default_ttl_seconds\":5}}");
	struct tenant_record *changed;
	uint64_t limit;
	char *before = tenant_record_encode(record), *after;

	(void)state;
	record->version = 42;
	changed = update(record, "{\"quotas\":{\"b\":3},\"plan\":\"custom\",\"users\":[7]}", NOW + 5);
	assert_int_equal(changed->version, 42);
	assert_int_equal(changed->plan, TENANT_CUSTOM);
	assert_false(tenant_record_quota(changed, "a", &limit));
	assert_true(tenant_record_quota(changed, "b", &limit));
	assert_int_equal(limit, 3);
	assert_false(changed->hot);
	assert_string_equal(text_of(changed, "name"), "Shop");
	assert_int_equal(json_integer_value(json_object_get(changed->document, "created_ms")), NOW);
	assert_int_equal(json_integer_value(json_object_get(changed->document, "updated_ms")), NOW + 5);
	assert_comes_back(changed);
	tenant_record_destroy(&changed);

	changed = update(record,
			 "{\"name\":null,\"owner\":null,\"plan\":null,\"hot\":null,\"users\":null,\"groups\":null,"
			 "\"quotas\":null,\"cache\":null,\"settings\":null}",
			 NOW);
	assert_string_equal(text_of(changed, "name"), "shop");
	assert_int_equal(changed->plan, TENANT_FREE);
	assert_true(changed->hot);
	assert_int_equal(json_object_size(json_object_get(changed->document, "settings")), 0);
	assert_int_equal(json_object_size(json_object_get(changed->document, "quotas")), 0);
	assert_comes_back(changed);
	tenant_record_destroy(&changed);

	/* The one that was updated is as before. */
	after = tenant_record_encode(record);
	assert_string_equal(before, after);
	free(before);
	free(after);
	tenant_record_destroy(&record);
}

static void what_must_not_change_does_not(void **state)
{
	static const char *const fixed[] = {
		"{\"id\":\"other\"}",       "{\"id\":\"shop\"}",       "{\"id\":null}",
		"{\"isolation\":\"none\"}", "{\"isolation\":null}",    "{\"encryption\":true}",
		"{\"encryption\":null}",    "{\"status\":\"active\"}", "{\"status_reason\":null}",
		"{\"created_ms\":1}",       "{\"updated_ms\":null}",   "{\"name\":\"x\",\"id\":\"shop\"}",
	};
	struct tenant_record *record = create("{\"id\":\"shop\"}"), *changed = NULL;

	(void)state;
	for (size_t i = 0; i < COUNT(fixed); i++) {
		if (tenant_record_update(record, fixed[i], strlen(fixed[i]), &plain, NOW, &changed, error,
					 sizeof(error)) != RSHM_E_INVALID)
			fail_msg("%s", fixed[i]);
		assert_null(changed);
	}
	/* And what is wrong in a new tenant is wrong in a change. */
	for (size_t i = 0; i < COUNT(wrong); i++)
		assert_int_equal(tenant_record_update(record, wrong[i].json, strlen(wrong[i].json), &plain, NOW,
						      &changed, error, sizeof(error)),
				 RSHM_E_INVALID);
	assert_null(changed);
	assert_comes_back(record);
	tenant_record_destroy(&record);
}

static void a_status_comes_with_its_reason(void **state)
{
	struct tenant_record *record = create("{\"id\":\"shop\"}"), *changed, *back;

	(void)state;
	record->version = 9;
	for (int status = TENANT_ACTIVE; status < TENANT_STATUSES; status++) {
		assert_int_equal(tenant_record_set_status(record, (enum tenant_status)status, "unpaid \"bill\"\n",
							  NOW + 1, &changed),
				 RSHM_OK);
		assert_int_equal(changed->status, status);
		assert_int_equal(changed->version, 9);
		assert_string_equal(text_of(changed, "status"), tenant_status_name((enum tenant_status)status));
		assert_string_equal(text_of(changed, "status_reason"), "unpaid \"bill\"\n");
		assert_int_equal(json_integer_value(json_object_get(changed->document, "updated_ms")), NOW + 1);
		assert_comes_back(changed);
		assert_int_equal(tenant_record_set_status(changed, TENANT_ACTIVE, NULL, NOW + 2, &back), RSHM_OK);
		assert_string_equal(text_of(back, "status_reason"), "");
		tenant_record_destroy(&changed);
		tenant_record_destroy(&back);
	}
	assert_int_equal(record->status, TENANT_ACTIVE);
	tenant_record_destroy(&record);
}

/* A long reason is cut between two characters, wherever the bound falls. */
static void a_long_reason_is_cut_and_stays_readable(void **state)
{
	static const char *const characters[] = {"a", "ä", "€", "😀"};
	struct tenant_record *record = create("{}"), *changed;

	(void)state;
	for (size_t c = 0; c < COUNT(characters); c++) {
		for (size_t shift = 0; shift < 4; shift++) {
			char *reason = repeat(&"abcd"[4 - shift], characters[c], "", 400, "");
			const char *kept;
			size_t length;

			assert_int_equal(tenant_record_set_status(record, TENANT_DISABLED, reason, NOW, &changed),
					 RSHM_OK);
			kept = text_of(changed, "status_reason");
			length = strlen(kept);
			assert_true(length <= TENANT_TEXT_MAX);
			assert_true(length > TENANT_TEXT_MAX - strlen(characters[c]));
			assert_memory_equal(kept, reason, length);
			assert_comes_back(changed);
			tenant_record_destroy(&changed);
			free(reason);
		}
	}
	assert_int_equal(tenant_record_set_status(record, TENANT_DISABLED, "bad \xff byte", NOW, &changed), RSHM_OK);
	assert_comes_back(changed);
	tenant_record_destroy(&changed);
	tenant_record_destroy(&record);
}

static int decode(const char *id, const char *text, size_t length)
{
	struct tenant_record *record = NULL;
	char *copy = malloc(length + !length);
	json_t *readable;
	int status;

	/* Of exactly that length: whoever reads on is caught by the sanitizer. */
	assert_non_null(copy);
	memcpy(copy, text, length);
	error[0] = '\0';
	status = tenant_record_decode(id, copy, length, &record, error, sizeof(error));
	free(copy);
	if (status == RSHM_OK) {
		tenant_record_destroy(&record);
		return status;
	}
	assert_null(record);
	assert_true(strlen(error) > 0);
	readable = json_string(error);
	assert_non_null(readable);
	json_decref(readable);
	for (const char *c = error; *c; c++)
		assert_true((unsigned char)*c >= ' ');
	return status;
}

static void a_cut_or_damaged_document_is_corrupt_and_nothing_worse(void **state)
{
	struct tenant_record *record = create("{\"id\":\"shop\",\"users\":[\"a\",7],\"quotas\":{\"a\":1}}");
	char *text = tenant_record_encode(record);
	size_t length = strlen(text);

	(void)state;
	assert_int_equal(decode("shop", text, length), RSHM_OK);
	for (size_t cut = 0; cut < length; cut++)
		assert_int_equal(decode("shop", text, cut), RSHM_E_CORRUPT);
	for (size_t i = 0; i < length; i++)
		for (int c = 0; c < 256; c += 3) {
			char was = text[i];
			int status;

			text[i] = (char)c;
			status = decode("shop", text, length);
			assert_true(status == RSHM_OK || status == RSHM_E_CORRUPT);
			text[i] = was;
		}
	assert_int_equal(decode("shoq", text, length), RSHM_E_CORRUPT);
	assert_non_null(strstr(error, "another"));
	free(text);
	tenant_record_destroy(&record);
}

static void a_stored_member_that_is_missing_wrong_or_new_refuses_the_record(void **state)
{
	struct tenant_record *record = create("{\"id\":\"shop\"}");
	const char *name;
	json_t *value;
	char *text;

	(void)state;
	json_object_foreach(record->document, name, value)
	{
		json_t *copy = json_copy(record->document);

		json_object_del(copy, name);
		text = json_dumps(copy, 0);
		assert_int_equal(decode("shop", text, strlen(text)), RSHM_E_CORRUPT);
		assert_non_null(strstr(error, name));
		free(text);
		/* Null is what a tenant without tokens has. */
		json_object_set_new(copy, name, strcmp(name, "tokens") == 0 ? json_integer(1) : json_null());
		text = json_dumps(copy, 0);
		assert_int_equal(decode("shop", text, strlen(text)), RSHM_E_CORRUPT);
		assert_non_null(strstr(error, name));
		free(text);
		json_decref(copy);
	}
	json_object_set_new(record->document, "residency", json_string("mars"));
	text = json_dumps(record->document, 0);
	assert_int_equal(decode("shop", text, strlen(text)), RSHM_E_CORRUPT);
	assert_non_null(strstr(error, "residency"));
	assert_non_null(strstr(error, "release"));
	free(text);
	tenant_record_destroy(&record);
	assert_int_equal(decode("shop", "[]", 2), RSHM_E_CORRUPT);
	assert_int_equal(decode("shop", "null", 4), RSHM_E_CORRUPT);
	text = repeat("{\"id\":\"", " ", "", TENANT_RECORD_MAX, "\"}");
	assert_int_equal(decode("shop", text, strlen(text)), RSHM_E_CORRUPT);
	free(text);
}

/* What a hostile backend calls its members ends up before people. */
static void odd_names_of_stored_members_are_shown_harmlessly(void **state)
{
	static const char *const names[] = {"a\\nb\\u001b[2J", "ääääääääääääääääääääääääääääääääääääääää",
					    "aääääääääääääääääääääääääääääääääääääääää"};

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		char text[256];

		snprintf(text, sizeof(text), "{\"%s\":1}", names[i]);
		assert_int_equal(decode("shop", text, strlen(text)), RSHM_E_CORRUPT);
	}
}

static void ids_are_of_one_alphabet(void **state)
{
	char id[3] = "ab";

	(void)state;
	for (int c = 1; c < 256; c++) {
		bool inner = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';

		id[0] = 'a';
		id[1] = (char)c;
		assert_int_equal(tenant_id_is_valid(id), inner);
		id[0] = (char)c;
		id[1] = 'b';
		assert_int_equal(tenant_id_is_valid(id), inner && c != '-');
	}
	assert_false(tenant_id_is_valid(""));
	assert_false(tenant_id_is_valid(TENANT_RESERVED_ID));
}

static void a_public_copy_is_a_copy(void **state)
{
	struct tenant_record *record = create("{\"id\":\"shop\"}"), *none = NULL;
	json_t *shown = tenant_record_public(record);

	(void)state;
	assert_non_null(shown);
	/* But for what nobody is to see. */
	assert_null(json_object_get(shown, "tokens"));
	json_object_set_new(shown, "tokens", json_null());
	assert_true(json_equal(shown, record->document));
	json_object_clear(json_object_get(shown, "quotas"));
	json_object_clear(shown);
	assert_comes_back(record);
	json_decref(shown);
	tenant_record_destroy(&record);
	tenant_record_destroy(&none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_document_becomes_a_complete_tenant),
		cmocka_unit_test(defaults_fill_what_was_left_out_and_nothing_else),
		cmocka_unit_test(quotas_of_the_plan_apply_where_the_tenant_has_none_of_its_own),
		cmocka_unit_test(quotas_of_plan_and_tenant_together_are_not_too_many),
		cmocka_unit_test(every_right_member_is_taken_and_stored),
		cmocka_unit_test(every_wrong_member_is_refused_by_name),
		cmocka_unit_test(a_nul_between_the_bytes_of_a_document_is_refused),
		cmocka_unit_test(lists_and_texts_have_a_bound),
		cmocka_unit_test(a_document_has_a_bound_and_what_is_within_can_be_stored),
		cmocka_unit_test(the_largest_tenant_can_still_be_suspended_with_the_longest_reason),
		cmocka_unit_test(deep_settings_are_refused_or_survive_everything),
		cmocka_unit_test(an_update_changes_whole_members_and_nothing_else),
		cmocka_unit_test(what_must_not_change_does_not),
		cmocka_unit_test(a_status_comes_with_its_reason),
		cmocka_unit_test(a_long_reason_is_cut_and_stays_readable),
		cmocka_unit_test(a_cut_or_damaged_document_is_corrupt_and_nothing_worse),
		cmocka_unit_test(a_stored_member_that_is_missing_wrong_or_new_refuses_the_record),
		cmocka_unit_test(odd_names_of_stored_members_are_shown_harmlessly),
		cmocka_unit_test(ids_are_of_one_alphabet),
		cmocka_unit_test(a_public_copy_is_a_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
