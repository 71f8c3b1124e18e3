/*
 * tenants_races_test.c - tenants that are suspended, resumed, deleted and made while processes open, use and close them and
 * are killed; and documents that nobody would write. What is looked at afterwards: the agent lives, answers, and holds nothing
 * that belongs to nobody.
 */
#include "tests/e2e/both_stores.h"
#include "tests/e2e/tenants.h"

#define TENANTS 3
#define PROCESSES 8
#define SPAN_MS 10000
#define DOCUMENTS 3000

static const char *const *both_settings(void)
{
	static const char *const settings[] = {"agent.workers=2",
					       "cache.segment_initial_bytes=1M",
					       "cache.max_memory_bytes=64M",
					       "coherence.max_age_ms=60000",
					       "tenancy.idle_seconds=1",
					       "tenancy.max_tenants=8",

					       "limits.attaches_per_second_per_uid=100000",
					       "limits.connections_per_uid=4096",
					       NULL};

	return settings;
}

/* ---- races ------------------------------------------------------------------------------------------------------- */

struct racer {
	const struct agent_process *agent;
	unsigned int seed;
	uint64_t until_ms;
};

static void use(riptide *handle, unsigned int *seed)
{
	char key[16], value[512];

	memset(value, 'v', sizeof(value));
	for (int i = 0; i < 40; i++) {
		struct riptide_value got;

		snprintf(key, sizeof(key), "k%d", rand_r(seed) % 32);
		if (rand_r(seed) % 3 == 0)
			(void)riptide_set(handle, key, strlen(key), value, (size_t)rand_r(seed) % sizeof(value), NULL,
					  NULL);
		else if (riptide_get(handle, key, strlen(key), &got) == RIPTIDE_OK)
			riptide_value_free(&got);
	}
}

static int race(void *context)
{
	struct racer *racer = context;
	char id[16];

	while (e2e_now_ms() < racer->until_ms) {
		riptide *handle;

		snprintf(id, sizeof(id), "race-%d", rand_r(&racer->seed) % TENANTS);
		if (e2e_open(racer->agent, id, 300, &handle) == RIPTIDE_OK)
			for (int i = rand_r(&racer->seed) % 10; i >= 0; i--)
				use(handle, &racer->seed);
		else
			e2e_pause_ms(2);
		riptide_close(&handle);
	}
	return 0;
}

static int administer(void *context)
{
	static const uint16_t orders[] = {RSHM_CONTROL_TENANT_SUSPEND, RSHM_CONTROL_TENANT_RESUME,
					  RSHM_CONTROL_TENANT_RESUME,  RSHM_CONTROL_TENANT_DISABLE,
					  RSHM_CONTROL_TENANT_DELETE,  RSHM_CONTROL_TENANT_UPDATE,
					  RSHM_CONTROL_TENANT_RESUME};
	struct racer *racer = context;
	char id[16], json[64];

	while (e2e_now_ms() < racer->until_ms) {
		uint16_t op = orders[rand_r(&racer->seed) % (sizeof(orders) / sizeof(orders[0]))];
		bool update = op == RSHM_CONTROL_TENANT_UPDATE;
		int status;

		snprintf(id, sizeof(id), "race-%d", rand_r(&racer->seed) % TENANTS);
		snprintf(json, sizeof(json), "{\"quotas\": {\"memory_bytes\": %d}}",
			 1000000 + rand_r(&racer->seed) % 2);
		status = admin_ask(racer->agent, op, id, update ? json : NULL, answer, sizeof(answer));
		if (status == RSHM_E_NOAGENT) {
			print_message("operation %d of %s: %s\n", op, id, answer);
			return 1;
		}
		if (op == RSHM_CONTROL_TENANT_DELETE || status == RSHM_E_NOTENANT) {
			snprintf(json, sizeof(json), "{\"id\": \"%s\"}", id);
			(void)admin_ask(racer->agent, RSHM_CONTROL_TENANT_CREATE, NULL, json, answer, sizeof(answer));
		}
		e2e_pause_ms(rand_r(&racer->seed) % 20);
	}
	return 0;
}

/* Every tenant can be made, used and deleted as if nothing had happened. */
static void assert_all_is_well(struct fixture *f)
{
	char id[16], json[64];

	for (int i = 0; i < TENANTS; i++) {
		riptide *handle;
		int status;

		snprintf(id, sizeof(id), "race-%d", i);
		snprintf(json, sizeof(json), "{\"id\": \"%s\"}", id);
		status = TENANT(&f->agent, RESUME, id, NULL);
		if (status != RSHM_OK)
			(void)TENANT(&f->agent, DELETE, id, NULL);
		if (status != RSHM_OK)
			assert_done(TENANT(&f->agent, CREATE, NULL, json));
		handle = open_tenant(&f->agent, id);
		assert_int_equal(e2e_put(handle, "after", "all"), RIPTIDE_OK);
		make_hot(handle, "after", "all");
		riptide_close(&handle);
		assert_done(TENANT(&f->agent, DELETE, id, NULL));
		if (f->redis && server_keys(&f->server, id) != 1)
			fail_msg("left of %s: %s", id, answer);
	}
}

static bool settles(int (*count)(const struct fixture *f), const struct fixture *f, int wanted)
{
	for (int i = 0; i < 1000 && count(f) > wanted; i++)
		e2e_pause_ms(10);
	if (count(f) > wanted)
		print_message("%d, not %d\n", count(f), wanted);
	return count(f) <= wanted;
}

static int objects(const struct fixture *f)
{
	return e2e_objects(&f->agent);
}

static int descriptors(const struct fixture *f)
{
	return e2e_descriptors(f->agent.pid);
}

static void no_race_of_operators_and_users_leaves_anything(void **state)
{
	struct fixture *f = both_fixture(state);
	struct racer racers[PROCESSES], admin[2];
	uint64_t until_ms = e2e_now_ms() + SPAN_MS;
	int before_objects, before_descriptors, killed = 0;
	pid_t pids[PROCESSES], admins[2];
	unsigned int seed = 1;

	/* What is opened once, with the registry, stays. */
	create(&f->agent, "once", "");
	assert_int_equal(try_open(&f->agent, "once", NULL), RIPTIDE_OK);
	assert_done(TENANT(&f->agent, DELETE, "once", NULL));
	e2e_pause_ms(300);
	before_objects = objects(f);
	before_descriptors = descriptors(f);
	for (int i = 0; i < PROCESSES; i++) {
		racers[i] = (struct racer){&f->agent, (unsigned int)i + 10, until_ms};
		pids[i] = e2e_fork(race, &racers[i]);
	}
	for (int i = 0; i < 2; i++) {
		admin[i] = (struct racer){&f->agent, (unsigned int)i + 100, until_ms};
		admins[i] = e2e_fork(administer, &admin[i]);
	}
	while (e2e_now_ms() < until_ms - 500) {
		int i = rand_r(&seed) % PROCESSES;

		e2e_pause_ms(150);
		kill(pids[i], SIGKILL);
		assert_int_equal(e2e_join(pids[i], 5000), 1000 + SIGKILL);
		racers[i].seed += 1000;
		pids[i] = e2e_fork(race, &racers[i]);
		killed++;
	}
	for (int i = 0; i < PROCESSES; i++)
		assert_int_equal(e2e_join(pids[i], 20000), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(e2e_join(admins[i], 40000), 0);
	print_message("%d processes killed\n", killed);
	assert_all_is_well(f);
	assert_true(settles(objects, f, before_objects));
	assert_true(settles(descriptors, f, before_descriptors));
}

/* Stopped in the middle of all of it, it ends well; the fixture looks at that. */
static void an_agent_is_stopped_while_tenants_come_and_go(void **state)
{
	struct fixture *f = both_fixture(state);
	struct racer racers[3];
	pid_t pids[3];

	for (int round = 0; round < 4; round++) {
		uint64_t until_ms = e2e_now_ms() + 1500;

		for (int i = 0; i < 3; i++) {
			racers[i] = (struct racer){&f->agent, (unsigned int)(i + 3 * round + 1), until_ms};
			pids[i] = e2e_fork(i == 0 ? administer : race, &racers[i]);
		}
		e2e_pause_ms(400 + 37 * round);
		assert_true(e2e_stop(&f->agent));
		for (int i = 0; i < 3; i++)
			assert_true(e2e_join(pids[i], 40000) >= 0);
		assert_int_equal(agent_process_restart(&f->agent), 0);
	}
	assert_true(e2e_await_trust(&f->agent));
	assert_all_is_well(f);
}

/* ---- documents ---------------------------------------------------------------------------------------------------- */

static const char *const words[] = {
	"{",
	"}",
	"[",
	"]",
	":",
	",",
	"\"",
	"\"id\"",
	"\"name\"",
	"\"plan\"",
	"\"users\"",
	"\"groups\"",
	"\"quotas\"",
	"\"cache\"",
	"\"settings\"",
	"\"hot\"",
	"\"tokens\"",
	"\"owner\"",
	"true",
	"null",
	"-1",
	"1e999",
	"18446744073709551616",
	"0.5",
	"\"free\"",
	"\"\\u0000\"",
	"\"\xff\xfe\"",
	"\"a b\"",
	"{}",
	"[]",
	"{\"memory_bytes\": 1}",
	"[1, \"x\"]",
	" ",
	"\n",
	"\"status\"",
	"\"token_required\"",
};

static size_t random_document(unsigned int *seed, char *to, size_t size)
{
	size_t length = 0;
	int kind = rand_r(seed) % 4, parts = rand_r(seed) % 40;

	if (kind == 0)
		for (length = 0; length < (size_t)parts * 4; length++)
			to[length] = (char)rand_r(seed);
	else if (kind == 1)
		length = (size_t)snprintf(to, size, "{\"id\": \"f%d\", \"%s\": ", rand_r(seed) % 4,
					  rand_r(seed) % 2 ? "name" : "settings");
	for (int i = 0; i < parts && kind != 0; i++) {
		/* Half of them objects of a member and a value each. */
		const char *word = words[rand_r(seed) % (sizeof(words) / sizeof(words[0]))];
		const char *glue = kind == 2 ? (i == 0 ? "{" : i % 2 ? ": " : ", ") : "";

		length += (size_t)snprintf(to + length, size - length, "%s%s", glue, word);
	}
	if (kind == 1 || kind == 2)
		length += (size_t)snprintf(to + length, size - length, "}");
	return length;
}

static void every_document_gets_an_answer_and_none_harms(void **state)
{
	struct fixture *f = both_fixture(state);
	unsigned int seed = 20;
	char document[8192];

	create(&f->agent, "f0", "");
	for (int i = 0; i < DOCUMENTS; i++) {
		size_t length = random_document(&seed, document, sizeof(document));
		uint16_t op = (uint16_t)(RSHM_CONTROL_TENANT_CREATE + rand_r(&seed) % 12);
		int status = admin_ask_bytes(&f->agent, op, op == RSHM_CONTROL_TENANT_CREATE ? NULL : "f0", document,
					     length, answer, sizeof(answer));

		if (status == RSHM_E_NOAGENT || status == RSHM_E_TIMEDOUT)
			fail_msg("document %d, operation %d: %d: %.*s", i, op, status, (int)length, document);
		assert_true(answer[0] != '\0');
		if (op == RSHM_CONTROL_TENANT_DELETE)
			(void)TENANT(&f->agent, CREATE, NULL, "{\"id\": \"f0\"}");
	}
	assert_done(TENANT(&f->agent, GET, "f0", NULL));
	assert_done(TENANT(&f->agent, LIST, NULL, NULL));
	assert_null(strstr(answer, "damaged"));
}

/* `text` so many times. */
static char *repeated(const char *before, const char *text, size_t times, const char *after)
{
	char *all = malloc(strlen(before) + strlen(text) * times + strlen(after) + 1), *to = all;

	assert_non_null(all);
	to = stpcpy(to, before);
	for (size_t i = 0; i < times; i++)
		to = stpcpy(to, text);
	stpcpy(to, after);
	return all;
}

static void huge_and_deep_documents_are_refused(void **state)
{
	struct fixture *f = both_fixture(state);
	char *documents[] = {
		repeated("{\"settings\": ", "{\"a\": ", 100000, ""),
		repeated("{\"settings\": {\"a\": ", "[", 40000, "}}"),
		repeated("{\"settings\": {\"a\": \"", "x", 300000, "\"}}"),
		repeated("{\"settings\": {\"a\": \"", "\\u0001", 60000, "\"}}"),
		repeated("{\"users\": [", "1,", 60000, "1]}"),
		repeated("{", "\"name\": \"a\",", 10000, "\"name\": \"b\"}"),
		repeated("", " ", 300000, "{}"),
	};

	create(&f->agent, "acme", "");
	for (size_t i = 0; i < sizeof(documents) / sizeof(documents[0]); i++) {
		int status = TENANT(&f->agent, UPDATE, "acme", documents[i]);

		/* The connection of one that is longer than any message is closed. */
		assert_true(status < 0);
		assert_done(TENANT(&f->agent, GET, "acme", NULL));
		free(documents[i]);
	}
	/* As much as may be is kept and comes back. */
	documents[0] = repeated("{\"settings\": {\"a\": \"", "x", 60000, "\"}}");
	assert_done(TENANT(&f->agent, UPDATE, "acme", documents[0]));
	free(documents[0]);
	assert_done(TENANT(&f->agent, GET, "acme", NULL));
	/* A NUL in the middle ends nothing. */
	assert_true(admin_ask_bytes(&f->agent, RSHM_CONTROL_TENANT_UPDATE, "acme", "{\"name\": \"a\"}\0{}", 16,
				    answer, sizeof(answer)) < 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		BOTH_STORES(no_race_of_operators_and_users_leaves_anything),
		BOTH_STORES(an_agent_is_stopped_while_tenants_come_and_go),
		BOTH_STORES(every_document_gets_an_answer_and_none_harms),
		BOTH_STORES(huge_and_deep_documents_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
