/* token_test.c - what lets a process in beside its user id. */
#include "agent/tenant/token.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW 1700000000000ull
#define LENGTH (TOKEN_TEXT_BYTES - 1)

static struct token_set *set_of(const char *tenant, uint32_t limit)
{
	struct token_set *set;

	assert_int_equal(token_set_create(tenant, limit, &set), RSHM_OK);
	return set;
}

static int make_set(void **state)
{
	*state = set_of("shop", 4);
	return 0;
}

static int free_set(void **state)
{
	struct token_set *set = *state;

	token_set_destroy(&set);
	return set ? -1 : 0;
}

static void make(struct token_set *set, char text[TOKEN_TEXT_BYTES])
{
	assert_int_equal(token_create(set, TOKEN_TENANT, "web", 0, NOW, text), RSHM_OK);
}

/* The verdict; and that the peer learns nothing but yes or no. */
static enum token_verdict verdict(const struct token_set *set, const char *text, uint64_t now_ms)
{
	struct token_checked checked;
	int status = token_verify(set, text, strlen(text), now_ms, &checked);

	assert_int_equal(status, checked.verdict == TOKEN_VALID ? RSHM_OK : RSHM_E_DENIED);
	return checked.verdict;
}

static void id_of(const char *text, char id[TOKEN_ID_LENGTH + 1])
{
	memcpy(id, text + 3, TOKEN_ID_LENGTH);
	id[TOKEN_ID_LENGTH] = '\0';
}

static void a_token_is_shown_once_and_lets_its_bearer_in(void **state)
{
	char text[TOKEN_TEXT_BYTES], other[TOKEN_TEXT_BYTES];
	struct token_checked checked;
	struct token_info info;

	make(*state, text);
	make(*state, other);
	assert_int_equal(strlen(text), LENGTH);
	assert_int_equal(strncmp(text, "rt_", 3), 0);
	assert_int_equal(text[15], '_');
	assert_string_not_equal(text, other);
	assert_int_equal(token_verify(*state, text, LENGTH, NOW, &checked), RSHM_OK);
	assert_int_equal(checked.role, TOKEN_TENANT);
	assert_false(checked.in_grace);
	assert_int_equal(token_count(*state), 2);
	token_info(*state, 0, &info);
	assert_string_equal(info.id, checked.id);
	assert_string_equal(info.label, "web");
	assert_int_equal(info.created_ms, NOW);
	assert_int_equal(verdict(*state, other, NOW), TOKEN_VALID);
}

static void every_role_comes_back(void **state)
{
	static const char *const names[] = {"read_only", "tenant", "admin"};
	enum token_role role = TOKEN_ADMIN;

	for (int i = 0; i < 3; i++) {
		char text[TOKEN_TEXT_BYTES];
		struct token_checked checked;

		assert_true(token_role_parse(names[i], &role));
		assert_string_equal(token_role_name(role), names[i]);
		assert_int_equal(token_create(*state, role, "", 0, NOW, text), RSHM_OK);
		assert_int_equal(token_verify(*state, text, LENGTH, NOW, &checked), RSHM_OK);
		assert_int_equal(checked.role, role);
	}
	assert_false(token_role_parse("root", &role));
	assert_false(token_role_parse("", &role));
}

static void every_changed_character_is_refused(void **state)
{
	char text[TOKEN_TEXT_BYTES];
	char id[TOKEN_ID_LENGTH + 1];
	struct token_checked checked;

	make(*state, text);
	id_of(text, id);
	/* One with each of the characters that decoders of base64 take some others for. */
	while (!strchr(text + 16, '_') || !strchr(text + 16, '-'))
		assert_int_equal(token_rotate(*state, id, 0, NOW, text), RSHM_OK);
	for (size_t i = 0; i < LENGTH; i++)
		for (int c = 0; c < 256; c++) {
			char was = text[i];

			if (c == (unsigned char)was)
				continue;
			text[i] = (char)c;
			assert_int_equal(token_verify(*state, text, LENGTH, NOW, &checked), RSHM_E_DENIED);
			text[i] = was;
		}
	assert_int_equal(verdict(*state, text, NOW), TOKEN_VALID);
}

static void a_text_of_another_length_is_malformed(void **state)
{
	char text[TOKEN_TEXT_BYTES + 8] = "";
	struct token_checked checked;

	make(*state, text);
	assert_int_equal(token_verify(*state, NULL, 0, NOW, &checked), RSHM_E_DENIED);
	for (size_t length = 0; length < sizeof(text); length++)
		if (length != LENGTH) {
			/* A copy of exactly that length: whoever reads on is caught by the sanitizer. */
			char *copy = malloc(length + !length);

			assert_non_null(copy);
			memcpy(copy, text, length);
			assert_int_equal(token_verify(*state, copy, length, NOW, &checked), RSHM_E_DENIED);
			assert_int_equal(checked.verdict, TOKEN_MALFORMED);
			assert_string_equal(checked.id, "");
			free(copy);
		}
}

static void unknown_wrong_expired_and_revoked_differ_only_for_the_audit_log(void **state)
{
	char text[TOKEN_TEXT_BYTES], short_lived[TOKEN_TEXT_BYTES], id[TOKEN_ID_LENGTH + 1],
		swapped[TOKEN_TEXT_BYTES];

	make(*state, text);
	assert_int_equal(token_create(*state, TOKEN_ADMIN, "", NOW + 1000, NOW, short_lived), RSHM_OK);
	assert_int_equal(verdict(*state, short_lived, NOW + 999), TOKEN_VALID);
	assert_int_equal(verdict(*state, short_lived, NOW + 1000), TOKEN_EXPIRED);
	/* The id of one with the secret of the other. */
	memcpy(swapped, text, sizeof(text));
	memcpy(swapped, short_lived, 16);
	assert_int_equal(verdict(*state, swapped, NOW), TOKEN_WRONG);
	assert_int_equal(verdict(*state, "rt_aaaaaaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", NOW),
			 TOKEN_UNKNOWN);
	id_of(text, id);
	assert_int_equal(token_revoke(*state, id), RSHM_OK);
	assert_int_equal(verdict(*state, text, NOW), TOKEN_REVOKED);
	/* Nobody learns that a token is revoked without its secret. */
	memcpy(swapped + 3, id, TOKEN_ID_LENGTH);
	memcpy(swapped + 16, short_lived + 16, 44);
	assert_int_equal(verdict(*state, swapped, NOW), TOKEN_WRONG);
	assert_int_equal(token_revoke(*state, "aaaaaaaaaaaa"), RSHM_E_INVALID);
}

static void an_all_zero_secret_is_not_that_of_a_token_without_a_previous_one(void **state)
{
	char text[TOKEN_TEXT_BYTES];

	make(*state, text);
	memset(text + 16, 'A', 43);
	assert_int_equal(verdict(*state, text, NOW), TOKEN_WRONG);
}

static void a_rotated_secret_is_valid_for_its_grace_and_no_longer(void **state)
{
	char first[TOKEN_TEXT_BYTES], second[TOKEN_TEXT_BYTES], third[TOKEN_TEXT_BYTES], id[TOKEN_ID_LENGTH + 1];
	struct token_checked checked;

	make(*state, first);
	id_of(first, id);
	assert_int_equal(token_rotate(*state, id, 5000, NOW, second), RSHM_OK);
	assert_int_equal(strncmp(first, second, 16), 0);
	assert_string_not_equal(first, second);
	assert_int_equal(token_verify(*state, first, LENGTH, NOW + 4999, &checked), RSHM_OK);
	assert_true(checked.in_grace);
	assert_int_equal(verdict(*state, first, NOW + 5000), TOKEN_EXPIRED);
	assert_int_equal(verdict(*state, second, NOW + 5000), TOKEN_VALID);
	/* Without grace the second ends at once, and so does the first. */
	assert_int_equal(token_rotate(*state, id, 0, NOW, third), RSHM_OK);
	assert_int_equal(verdict(*state, first, NOW), TOKEN_WRONG);
	assert_int_equal(verdict(*state, second, NOW), TOKEN_EXPIRED);
	assert_int_equal(verdict(*state, third, NOW), TOKEN_VALID);
	assert_int_equal(token_count(*state), 1);
}

static void revoking_ends_the_grace_too_and_what_is_dead_is_not_rotated(void **state)
{
	char first[TOKEN_TEXT_BYTES], second[TOKEN_TEXT_BYTES], id[TOKEN_ID_LENGTH + 1];
	char untouched[TOKEN_TEXT_BYTES] = "untouched";

	make(*state, first);
	id_of(first, id);
	assert_int_equal(token_rotate(*state, id, TOKEN_GRACE_MS_MAX + 1, NOW, untouched), RSHM_E_INVALID);
	assert_int_equal(token_rotate(*state, id, 5000, NOW, second), RSHM_OK);
	assert_int_equal(token_revoke(*state, id), RSHM_OK);
	assert_int_equal(verdict(*state, first, NOW), TOKEN_REVOKED);
	assert_int_equal(verdict(*state, second, NOW), TOKEN_REVOKED);
	assert_int_equal(token_rotate(*state, id, 0, NOW, untouched), RSHM_E_INVALID);
	assert_int_equal(token_create(*state, TOKEN_ADMIN, "", NOW + 1, NOW, first), RSHM_OK);
	id_of(first, id);
	assert_int_equal(token_rotate(*state, id, 0, NOW + 1, untouched), RSHM_E_INVALID);
	assert_string_equal(untouched, "untouched");
}

/* The set as it is now, to be compared with what becomes of it. */
static struct token_set *copy_of(const struct token_set *set)
{
	json_t *stored = token_set_to_json(set);
	struct token_set *copy;

	assert_int_equal(token_set_from_json(stored, "shop", 4, &copy), RSHM_OK);
	json_decref(stored);
	return copy;
}

static void a_set_bars_who_came_in_by_what_is_revoked_or_rotated_away(void **state)
{
	char text[TOKEN_TEXT_BYTES], id[TOKEN_ID_LENGTH + 1], other[TOKEN_TEXT_BYTES];
	struct token_set *before = copy_of(*state), *with;

	make(*state, text);
	id_of(text, id);
	/* One more lets more in. */
	assert_false(token_set_bars(before, *state, NOW));
	with = copy_of(*state);
	assert_false(token_set_bars(with, *state, NOW));
	make(*state, other);
	assert_int_equal(token_rotate(*state, id, 1000, NOW, other), RSHM_OK);
	assert_false(token_set_bars(with, *state, NOW));
	/* The grace is over; that of the other way is no loss. */
	assert_true(token_set_bars(with, *state, NOW + 1000));
	assert_int_equal(token_rotate(*state, id, 0, NOW, other), RSHM_OK);
	assert_true(token_set_bars(with, *state, NOW));
	token_set_destroy(&with);
	with = copy_of(*state);
	assert_int_equal(token_revoke(*state, id), RSHM_OK);
	assert_true(token_set_bars(with, *state, NOW));
	/* Who is out already loses nothing. */
	token_set_destroy(&with);
	with = copy_of(*state);
	assert_false(token_set_bars(with, *state, NOW));
	assert_true(token_set_bars(with, before, NOW));
	token_set_destroy(&with);
	token_set_destroy(&before);
}

static void a_full_set_gives_places_of_dead_tokens_away_and_no_others(void **state)
{
	char texts[4][TOKEN_TEXT_BYTES], more[TOKEN_TEXT_BYTES], id[TOKEN_ID_LENGTH + 1];

	for (int i = 0; i < 4; i++)
		make(*state, texts[i]);
	assert_int_equal(token_create(*state, TOKEN_TENANT, "", 0, NOW, more), RSHM_E_AGAIN);
	assert_int_equal(token_count(*state), 4);
	id_of(texts[1], id);
	assert_int_equal(token_revoke(*state, id), RSHM_OK);
	assert_int_equal(token_create(*state, TOKEN_TENANT, "", NOW + 1, NOW, more), RSHM_OK);
	assert_int_equal(token_count(*state), 4);
	assert_int_equal(verdict(*state, texts[1], NOW), TOKEN_UNKNOWN);
	assert_int_equal(verdict(*state, more, NOW), TOKEN_VALID);
	for (int i = 0; i < 4; i++)
		if (i != 1)
			assert_int_equal(verdict(*state, texts[i], NOW), TOKEN_VALID);
	/* One that has expired goes as well. */
	assert_int_equal(token_create(*state, TOKEN_TENANT, "", 0, NOW + 1, texts[1]), RSHM_OK);
	assert_int_equal(verdict(*state, more, NOW), TOKEN_UNKNOWN);
}

static void labels_and_expiries_that_make_no_sense_are_refused(void **state)
{
	char text[TOKEN_TEXT_BYTES], label[TOKEN_LABEL_MAX + 2];

	memset(label, 'x', sizeof(label) - 1);
	label[sizeof(label) - 1] = '\0';
	assert_int_equal(token_create(*state, TOKEN_TENANT, label, 0, NOW, text), RSHM_E_INVALID);
	label[TOKEN_LABEL_MAX] = '\0';
	assert_int_equal(token_create(*state, TOKEN_TENANT, label, 0, NOW, text), RSHM_OK);
	assert_int_equal(token_create(*state, TOKEN_TENANT, "a\nb", 0, NOW, text), RSHM_E_INVALID);
	assert_int_equal(token_create(*state, TOKEN_TENANT, "\x1b[2J", 0, NOW, text), RSHM_E_INVALID);
	assert_int_equal(token_create(*state, TOKEN_TENANT, "\xc2\x9b", 0, NOW, text), RSHM_E_INVALID);
	assert_int_equal(token_create(*state, TOKEN_TENANT, "\xff", 0, NOW, text), RSHM_E_INVALID);
	assert_int_equal(token_create(*state, TOKEN_TENANT,
				      "K\xc3\xbc"
				      "che",
				      0, NOW, text),
			 RSHM_OK);
	assert_int_equal(token_create(*state, TOKEN_TENANT, "", NOW, NOW, text), RSHM_E_INVALID);
	assert_int_equal(token_create(*state, (enum token_role)3, "", 0, NOW, text), RSHM_E_INVALID);
}

/* ---- storing ------------------------------------------------------------------------------------------------ */

static void a_stored_set_is_the_same_set_and_holds_no_secret(void **state)
{
	char texts[3][TOKEN_TEXT_BYTES], old[TOKEN_TEXT_BYTES], id[TOKEN_ID_LENGTH + 1], *stored, *again;
	struct token_set *copy;
	json_t *document;

	make(*state, texts[0]);
	make(*state, old);
	id_of(old, id);
	assert_int_equal(token_rotate(*state, id, 5000, NOW, texts[1]), RSHM_OK);
	assert_int_equal(token_create(*state, TOKEN_READ_ONLY,
				      "K\xc3\xbc"
				      "che",
				      NOW + 9, NOW, texts[2]),
			 RSHM_OK);
	id_of(texts[0], id);
	assert_int_equal(token_revoke(*state, id), RSHM_OK);
	document = token_set_to_json(*state);
	assert_non_null(document);
	stored = json_dumps(document, JSON_COMPACT);
	for (int i = 0; i < 3; i++)
		assert_null(strstr(stored, texts[i] + 16));
	assert_null(strstr(stored, old + 16));
	assert_int_equal(token_set_from_json(document, "shop", 4, &copy), RSHM_OK);
	json_decref(document);
	assert_int_equal(verdict(copy, texts[0], NOW), TOKEN_REVOKED);
	assert_int_equal(verdict(copy, texts[1], NOW), TOKEN_VALID);
	assert_int_equal(verdict(copy, old, NOW + 4999), TOKEN_VALID);
	assert_int_equal(verdict(copy, old, NOW + 5000), TOKEN_EXPIRED);
	assert_int_equal(verdict(copy, texts[2], NOW + 8), TOKEN_VALID);
	assert_int_equal(verdict(copy, texts[2], NOW + 9), TOKEN_EXPIRED);
	document = token_set_to_json(copy);
	again = json_dumps(document, JSON_COMPACT);
	assert_string_equal(stored, again);
	json_decref(document);
	free(stored);
	free(again);
	token_set_destroy(&copy);
}

static void a_hash_moved_to_another_tenant_or_id_lets_nobody_in(void **state)
{
	struct token_set *other;
	char text[TOKEN_TEXT_BYTES];
	json_t *document, *row;

	make(*state, text);
	document = token_set_to_json(*state);
	assert_int_equal(token_set_from_json(document, "bank", 4, &other), RSHM_E_CORRUPT);
	json_object_set_new(document, "tenant", json_string("bank"));
	assert_int_equal(token_set_from_json(document, "bank", 4, &other), RSHM_OK);
	assert_int_equal(verdict(other, text, NOW), TOKEN_WRONG);
	token_set_destroy(&other);
	json_object_set_new(document, "tenant", json_string("shop"));
	row = json_array_get(json_object_get(document, "tokens"), 0);
	json_object_set_new(row, "id", json_string("aaaaaaaaaaaa"));
	memset(text + 3, 'a', TOKEN_ID_LENGTH);
	assert_int_equal(token_set_from_json(document, "shop", 4, &other), RSHM_OK);
	assert_int_equal(verdict(other, text, NOW), TOKEN_WRONG);
	token_set_destroy(&other);
	json_decref(document);
}

/* What is changed in a row of a good document; NULL as the value takes the member out. */
static const struct {
	const char *member, *value;
} damages[] = {
	{"id", "\"short\""},
	{"id", "\"AAAAAAAAAAAA\""},
	{"id", "7"},
	{"id", NULL},
	{"hash", "\"\""},
	{"hash", "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\""},
	{"hash", "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB\""},
	{"hash", "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+A\""},
	{"hash", "null"},
	{"role", "\"root\""},
	{"role", "2"},
	{"label", "\"a\\nb\""},
	{"label", NULL},
	{"created_ms", "-1"},
	{"created_ms", "1.5"},
	{"created_ms", "\"1\""},
	{"expires_ms", "5"},
	{"expires_ms", "-9"},
	{"revoked", "0"},
	{"revoked", NULL},
	{"secret", "\"x\""},
	{"grace_until_ms", "1700000009000"},
	{"grace_until_ms", "-1"},
	{"previous_hash", "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\""},
};

static void a_damaged_record_is_refused_whole(void **state)
{
	char text[TOKEN_TEXT_BYTES];
	struct token_set *none = NULL;
	json_t *document, *rows;

	make(*state, text);
	make(*state, text);
	document = token_set_to_json(*state);
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		json_t *copy = json_deep_copy(document);
		json_t *row = json_array_get(json_object_get(copy, "tokens"), 1);

		if (damages[i].value)
			json_object_set_new(row, damages[i].member,
					    json_loads(damages[i].value, JSON_DECODE_ANY, NULL));
		else
			json_object_del(row, damages[i].member);
		if (token_set_from_json(copy, "shop", 4, &none) != RSHM_E_CORRUPT)
			fail_msg("%s = %s is taken", damages[i].member, damages[i].value);
		json_decref(copy);
	}
	assert_int_equal(token_set_from_json(document, "shop", 1, &none), RSHM_E_CORRUPT);
	rows = json_object_get(document, "tokens");
	json_array_append_new(rows, json_deep_copy(json_array_get(rows, 0)));
	assert_int_equal(token_set_from_json(document, "shop", 4, &none), RSHM_E_CORRUPT);
	json_array_set_new(rows, 2, json_integer(3));
	assert_int_equal(token_set_from_json(document, "shop", 4, &none), RSHM_E_CORRUPT);
	json_object_set_new(document, "format", json_integer(2));
	assert_int_equal(token_set_from_json(document, "shop", 4, &none), RSHM_E_FORMAT);
	assert_int_equal(token_set_from_json(rows, "shop", 4, &none), RSHM_E_CORRUPT);
	assert_int_equal(token_set_from_json(NULL, "shop", 4, &none), RSHM_E_CORRUPT);
	assert_null(none);
	json_decref(document);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_token_is_shown_once_and_lets_its_bearer_in, make_set, free_set),
		cmocka_unit_test_setup_teardown(every_role_comes_back, make_set, free_set),
		cmocka_unit_test_setup_teardown(every_changed_character_is_refused, make_set, free_set),
		cmocka_unit_test_setup_teardown(a_text_of_another_length_is_malformed, make_set, free_set),
		cmocka_unit_test_setup_teardown(unknown_wrong_expired_and_revoked_differ_only_for_the_audit_log,
						make_set, free_set),
		cmocka_unit_test_setup_teardown(an_all_zero_secret_is_not_that_of_a_token_without_a_previous_one,
						make_set, free_set),
		cmocka_unit_test_setup_teardown(a_rotated_secret_is_valid_for_its_grace_and_no_longer, make_set,
						free_set),
		cmocka_unit_test_setup_teardown(revoking_ends_the_grace_too_and_what_is_dead_is_not_rotated, make_set,
						free_set),
		cmocka_unit_test_setup_teardown(a_set_bars_who_came_in_by_what_is_revoked_or_rotated_away, make_set,
						free_set),
		cmocka_unit_test_setup_teardown(a_full_set_gives_places_of_dead_tokens_away_and_no_others, make_set,
						free_set),
		cmocka_unit_test_setup_teardown(labels_and_expiries_that_make_no_sense_are_refused, make_set,
						free_set),
		cmocka_unit_test_setup_teardown(a_stored_set_is_the_same_set_and_holds_no_secret, make_set, free_set),
		cmocka_unit_test_setup_teardown(a_hash_moved_to_another_tenant_or_id_lets_nobody_in, make_set,
						free_set),
		cmocka_unit_test_setup_teardown(a_damaged_record_is_refused_whole, make_set, free_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
