/*
 * budget_test.c - quotas and rates of a tenant: what passes, what does not and why, in every way to ask, for reads of shared
 * memory too, over several processes, two agents, and kills.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/e2e/both_stores.h"
#include "tests/e2e/tenants.h"

static const char *const *both_settings(void)
{
	static const char *settings[] = {"agent.workers=2", "cache.segment_initial_bytes=1M",
					 "cache.max_memory_bytes=64M", "limits.attaches_per_second_per_uid=100000",
					 NULL};

	return settings;
}

static int get(riptide *handle, const char *key)
{
	char value[64];
	size_t length;

	return riptide_get_into(handle, key, strlen(key), value, sizeof(value), &length, NULL);
}

static void assert_why(riptide *handle, const char *text)
{
	(void)riptide_last_error(handle, answer, sizeof(answer));
	assert_said(text);
}

static struct riptide_quota quota(riptide *handle, const char *name, uint64_t amount, enum riptide_quota_mode mode)
{
	struct riptide_quota quota;

	assert_int_equal(riptide_check_quota(handle, name, amount, mode, &quota), RIPTIDE_OK);
	return quota;
}

/* Of tenant acme, from riptidectl metrics. */
static long metric(const struct fixture *f, const char *name)
{
	const char *build = getenv("RIPTIDE_BUILD_DIR");
	char command[600], line[400], wanted[100];
	long value = -1;
	FILE *pipe;

	snprintf(wanted, sizeof(wanted), "riptide_%s{tenant=\"acme\"} ", name);
	snprintf(command, sizeof(command), "RIPTIDE_SOCKET=%s %s/riptidectl metrics", f->agent.socket,
		 build ? build : "build");
	pipe = popen(command, "r");
	assert_non_null(pipe);
	while (fgets(line, sizeof(line), pipe))
		if (strncmp(line, wanted, strlen(wanted)) == 0)
			value = strtol(line + strlen(wanted), NULL, 10);
	assert_int_equal(pclose(pipe), 0);
	return value;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* No more than a minute's operations, and what drains while they run: a tenth of a second each is a test of its own. */
static void as_many_operations_pass_as_the_quota_says(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;
	int passed = 0;

	create(&f->agent, "acme", "\"quotas\": {\"operations_per_minute\": 40}");
	handle = open_tenant(&f->agent, "acme");
	for (int i = 0; i < 60; i++) {
		int status = e2e_put(handle, "k", "v");

		if (status == RIPTIDE_OK)
			passed++;
		else
			assert_int_equal(status, RIPTIDE_ELIMITED);
	}
	/* 40 a minute: within a second and a half one more. */
	assert_in_range(passed, 40, 46);
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_ELIMITED);
	assert_why(handle, "operations_per_minute: limit 40, in use ");
	assert_why(handle, "retry after");
	/* Nothing of what was refused has happened; what costs nothing goes on. */
	assert_int_equal(riptide_ping(handle, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_flush(handle), RIPTIDE_OK);
	riptide_close(&handle);
}

static void a_batch_passes_whole_or_not(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_item items[50];
	char keys[50][8];
	riptide *handle;

	memset(items, 0, sizeof(items));
	for (int i = 0; i < 50; i++) {
		items[i].key = keys[i];
		items[i].key_length = (size_t)snprintf(keys[i], sizeof(keys[i]), "k%d", i);
		items[i].value = "v";
		items[i].value_length = 1;
	}
	create(&f->agent, "acme", "\"rate_limits\": {\"operations\": {\"limit\": 60, \"period_seconds\": 3600}}");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(riptide_set_batch(handle, items, 40), RIPTIDE_OK);
	assert_int_equal(items[39].status, RIPTIDE_OK);
	assert_int_equal(riptide_set_batch(handle, &items[40], 10), RIPTIDE_OK);
	/* Ten are left of sixty. */
	assert_true(riptide_set_batch(handle, items, 50) == RIPTIDE_ELIMITED || items[0].status == RIPTIDE_ELIMITED);
	assert_int_equal(get(handle, "k1"), RIPTIDE_OK);
	riptide_close(&handle);
	create(&f->agent, "small", "\"rate_limits\": {\"operations\": {\"limit\": 5}}");
	handle = open_tenant(&f->agent, "small");
	assert_true(riptide_set_batch(handle, items, 50) == RIPTIDE_ELIMITED || items[0].status == RIPTIDE_ELIMITED);
	assert_why(handle, "more than the limit at once never passes");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	riptide_close(&handle);
}

static void bytes_are_counted_both_ways(void **state)
{
	struct fixture *f = both_fixture(state);
	static char large[20000];
	riptide *handle;
	int status;

	memset(large, 'x', sizeof(large));
	create(&f->agent, "acme", "\"hot\": false, \"quotas\": {\"data_transfer_bytes\": 100000}");
	handle = open_tenant(&f->agent, "acme");
	for (int i = 0; i < 4; i++)
		assert_int_equal(riptide_set(handle, "k", 1, large, sizeof(large), NULL, NULL), RIPTIDE_OK);
	/* The answer may go beyond; then it is over. */
	status = get(handle, "k");
	assert_int_equal(status, RIPTIDE_ETOOSMALL);
	status = riptide_set(handle, "k", 1, large, sizeof(large), NULL, NULL);
	assert_int_equal(status, RIPTIDE_EQUOTA);
	assert_why(handle, "data_transfer_bytes: limit 100000");
	assert_int_equal(quota(handle, "data_transfer_bytes", 50000, RIPTIDE_QUOTA_ASK).allowed, 0);
	riptide_close(&handle);
}

static void shadow_mode_refuses_nothing_and_counts(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;

	create(&f->agent, "acme", "\"rate_limits\": {\"operations\": {\"limit\": 5, \"shadow\": true}}");
	handle = open_tenant(&f->agent, "acme");
	for (int i = 0; i < 50; i++)
		assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	e2e_pause_ms(600);
	assert_true(metric(f, "tenant_shadowed_total") > 0);
	assert_int_equal(metric(f, "tenant_limited_total"), 0);
	riptide_close(&handle);
}

static void operators_are_told_once_when_a_quota_is_nearly_used_up(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;

	create(&f->agent, "acme", "\"quotas\": {\"data_transfer_bytes\": 100000, \"crawls\": 10}");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(quota(handle, "data_transfer_bytes", 50000, RIPTIDE_QUOTA_CONSUME).allowed, 1);
	e2e_pause_ms(600);
	assert_int_equal(metric(f, "tenant_quota_alerts_total"), 0);
	assert_int_equal(quota(handle, "data_transfer_bytes", 42000, RIPTIDE_QUOTA_CONSUME).allowed, 1);
	assert_int_equal(quota(handle, "data_transfer_bytes", 1000, RIPTIDE_QUOTA_CONSUME).allowed, 1);
	e2e_pause_ms(600);
	assert_int_equal(metric(f, "tenant_quota_alerts_total"), 1);
	for (int i = 0; i < 12; i++)
		(void)quota(handle, "crawls", 1, RIPTIDE_QUOTA_CONSUME);
	e2e_pause_ms(600);
	assert_int_equal(metric(f, "tenant_quota_alerts_total"), 2);
	riptide_close(&handle);
}

/* ---- asked by applications ---------------------------------------------------------------------------------------------- */

static void quotas_of_ones_own_are_shared_by_all_processes(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_quota q;
	riptide *one, *other;

	create(&f->agent, "acme", "\"quotas\": {\"crawls\": 10}");
	one = open_tenant(&f->agent, "acme");
	other = open_tenant(&f->agent, "acme");
	assert_int_equal(quota(one, "crawls", 6, RIPTIDE_QUOTA_CONSUME).allowed, 1);
	q = quota(other, "crawls", 6, RIPTIDE_QUOTA_CONSUME);
	assert_int_equal(q.allowed, 0);
	assert_int_equal(q.limit, 10);
	assert_int_equal(q.use, 6);
	assert_int_equal(quota(other, "crawls", 4, RIPTIDE_QUOTA_ASK).allowed, 1);
	assert_int_equal(quota(other, "crawls", 4, RIPTIDE_QUOTA_CONSUME).allowed, 1);
	assert_int_equal(quota(one, "crawls", 1, RIPTIDE_QUOTA_ASK).allowed, 0);
	assert_int_equal(quota(one, "crawls", 5, RIPTIDE_QUOTA_RELEASE).use, 10);
	assert_int_equal(quota(other, "crawls", 0, RIPTIDE_QUOTA_ASK).use, 5);
	q = quota(one, "unheard", UINT64_C(1) << 50, RIPTIDE_QUOTA_CONSUME);
	assert_int_equal(q.allowed, 1);
	assert_int_equal(q.has_limit, 0);
	q = quota(one, "memory_bytes", 1, RIPTIDE_QUOTA_ASK);
	assert_int_equal(q.allowed, 1);
	assert_int_equal(riptide_check_quota(one, "memory_bytes", 1, RIPTIDE_QUOTA_CONSUME, NULL), RIPTIDE_EINVALID);
	assert_int_equal(riptide_check_quota(one, "crawls", UINT64_MAX, RIPTIDE_QUOTA_CONSUME, NULL),
			 RIPTIDE_EINVALID);
	riptide_close(&one);
	riptide_close(&other);
	/* What was used is kept when the limit changes, and gone with the tenant. */
	assert_done(TENANT(&f->agent, UPDATE, "acme", "{\"quotas\": {\"crawls\": 7}}"));
	one = open_tenant(&f->agent, "acme");
	assert_int_equal(quota(one, "crawls", 3, RIPTIDE_QUOTA_CONSUME).allowed, 0);
	assert_int_equal(quota(one, "crawls", 2, RIPTIDE_QUOTA_CONSUME).allowed, 1);
	riptide_close(&one);
	assert_done(TENANT(&f->agent, DELETE, "acme", NULL));
	create(&f->agent, "acme", "\"quotas\": {\"crawls\": 7}");
	one = open_tenant(&f->agent, "acme");
	assert_int_equal(quota(one, "crawls", 7, RIPTIDE_QUOTA_CONSUME).use, 0);
	riptide_close(&one);
}

/* As the system that this one follows expects it: asking is taking. */
static void one_operation_a_minute_is_one(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_rate rate;
	riptide *handle;

	create(&f->agent, "acme", "\"quotas\": {\"operations_per_minute\": 1}");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(riptide_rate(handle, "operations_per_minute", &rate), RIPTIDE_OK);
	assert_int_equal(rate.limited, 0);
	assert_int_equal(rate.limit, 1);
	assert_int_equal(rate.remaining, 1);
	assert_int_equal(quota(handle, "operations_per_minute", 1, RIPTIDE_QUOTA_CONSUME).allowed, 1);
	assert_int_equal(quota(handle, "operations_per_minute", 1, RIPTIDE_QUOTA_CONSUME).allowed, 0);
	assert_int_equal(riptide_rate(handle, "operations_per_minute", &rate), RIPTIDE_OK);
	assert_int_equal(rate.limited, 1);
	assert_in_range(rate.retry_after_ms, 1, 60000);
	assert_in_range(rate.reset_after_ms, 1, 60000);
	assert_int_equal(get(handle, "k"), RIPTIDE_ELIMITED);
	assert_int_equal(riptide_rate(handle, "bytes", &rate), RIPTIDE_OK);
	assert_true(rate.limit == UINT64_MAX);
	assert_int_equal(riptide_rate(handle, "", &rate), RIPTIDE_EINVALID);
	riptide_close(&handle);
}

/* ---- reads of shared memory ------------------------------------------------------------------------------------------------ */

#define READERS 8
#define LIMIT 4000u
#define RUN_MS 4000u

struct share {
	const struct agent_process *agent;
	uint64_t *passed; /* of each, shared */
	uint64_t *hot;
	uint64_t until_ms;
	int number;
};

static int read_share(void *context)
{
	const struct share *share = context;
	riptide *handle = NULL;

	if (e2e_open(share->agent, "acme", 5000, &handle) != RIPTIDE_OK)
		return 2;
	while (e2e_now_ms() < share->until_ms) {
		struct riptide_info info;
		char value[8];
		size_t length;
		int status = riptide_get_into(handle, "k", 1, value, sizeof(value), &length, &info);

		if (status == RIPTIDE_OK) {
			share->passed[share->number]++;
			share->hot[share->number] += (info.flags & RIPTIDE_HOT) != 0;
		} else if (status == RIPTIDE_ELIMITED) {
			e2e_pause_ms(1);
		} else {
			return 3;
		}
	}
	riptide_close(&handle);
	return 0;
}

static void eight_readers_together_stay_within_the_limit(void **state)
{
	struct fixture *f = both_fixture(state);
	uint64_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), sum = 0,
		 hot = 0;
	uint64_t began_ms, took_ms, most;
	pid_t pids[READERS];
	struct share shares[READERS];
	riptide *handle;

	/* 1,000 a second, and a burst of as many. */
	create(&f->agent, "acme",
	       "\"rate_limits\": {\"operations\": {\"limit\": 4000, \"period_seconds\": 4, \"burst\": 2000}}");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	began_ms = e2e_now_ms();
	for (int i = 0; i < READERS; i++) {
		shares[i] = (struct share){.agent = &f->agent,
					   .passed = shared,
					   .hot = shared + READERS,
					   .until_ms = began_ms + RUN_MS,
					   .number = i};
		pids[i] = e2e_fork(read_share, &shares[i]);
	}
	for (int i = 0; i < READERS; i++)
		assert_int_equal(e2e_join(pids[i], 20000), 0);
	took_ms = e2e_now_ms() - began_ms;
	for (int i = 0; i < READERS; i++) {
		sum += shared[i];
		hot += shared[READERS + i];
	}
	/* The burst, what drained meanwhile, and at most a slice that was drawn before. */
	most = 2000 + took_ms * LIMIT / 4000 + 2000 / 20;
	print_message("%llu reads passed, %llu of them hot, of at most %llu\n", (unsigned long long)sum,
		      (unsigned long long)hot, (unsigned long long)most);
	assert_true(sum <= most);
	assert_true(sum > most / 4);
	assert_true(hot > 0);
	assert_true(shared[0] > 0);
	riptide_close(&handle);
	munmap(shared, 4096);
}

static void without_limits_readers_go_on_by_themselves(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;

	create(&f->agent, "acme", "\"quotas\": {\"crawls\": 5}");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	make_hot(handle, "k", "v");
	for (int i = 0; i < 100000; i++) {
		struct riptide_info info;
		char value[8];
		size_t length;

		assert_int_equal(riptide_get_into(handle, "k", 1, value, sizeof(value), &length, &info), RIPTIDE_OK);
		assert_true(info.flags & RIPTIDE_HOT);
	}
	riptide_close(&handle);
}

/* ---- kills and other hosts ------------------------------------------------------------------------------------------------- */

static int count_passed(riptide *handle, int tries)
{
	int passed = 0;

	for (int i = 0; i < tries; i++) {
		int status = e2e_put(handle, "k", "v");

		if (status == RIPTIDE_OK)
			passed++;
		else if (status != RIPTIDE_ELIMITED)
			fail_msg("put: %d", status);
	}
	return passed;
}

static void a_killed_agent_gives_no_fresh_burst(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;
	int passed;

	create(&f->agent, "acme", "\"rate_limits\": {\"operations\": {\"limit\": 100, \"period_seconds\": 3600}}");
	handle = open_tenant(&f->agent, "acme");
	passed = count_passed(handle, 60);
	assert_int_equal(passed, 60);
	riptide_close(&handle);
	assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	handle = open_tenant(&f->agent, "acme");
	passed += count_passed(handle, 100);
	/* At most a slice of 5, and what was drawn with it, is lost with the agent; a minute or so drains one. */
	assert_in_range(passed, 88, 103);
	riptide_close(&handle);
}

static void two_agents_share_one_limit(void **state)
{
	struct fixture *f = both_fixture(state);
	struct agent_process other;
	const char *settings[] = {"agent.backend=redis", f->url, NULL};
	riptide *here, *there;
	int passed = 0;

	if (!f->redis)
		skip();
	assert_int_equal(agent_process_start(&other, settings), 0);
	create(&f->agent, "acme",
	       "\"quotas\": {\"crawls\": 50}, "
	       "\"rate_limits\": {\"operations\": {\"limit\": 200, \"period_seconds\": 3600}}");
	here = open_tenant(&f->agent, "acme");
	there = open_tenant(&other, "acme");
	for (int i = 0; i < 15; i++) {
		passed += count_passed(here, 10);
		passed += count_passed(there, 10);
	}
	/* What a host has drawn and not used, the other does not get: two slices of 10 and what goes with them. */
	assert_in_range(passed, 170, 201);
	for (int i = 0; i < 30; i++) {
		(void)quota(here, "crawls", 1, RIPTIDE_QUOTA_CONSUME);
		(void)quota(there, "crawls", 1, RIPTIDE_QUOTA_CONSUME);
	}
	assert_int_equal(quota(here, "crawls", 0, RIPTIDE_QUOTA_ASK).use, 50);
	riptide_close(&here);
	riptide_close(&there);
	assert_int_equal(agent_process_stop_and_clean(&other), 0);
}

static void without_the_server_each_host_counts_alone(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;
	int passed;

	if (!f->redis)
		skip();
	create(&f->agent, "acme",
	       "\"quotas\": {\"crawls\": 5}, "
	       "\"rate_limits\": {\"operations\": {\"limit\": 500, \"period_seconds\": 3600}}");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	make_hot(handle, "k", "v");
	redis_server_kill(&f->server);
	passed = 0;
	for (int i = 0; i < 2000; i++) {
		int status = e2e_check(handle, "k", "v", NULL);

		if (status == RIPTIDE_OK)
			passed++;
	}
	/* What the host itself allows, and what it had left. */
	assert_in_range(passed, 1, 1010);
	assert_int_equal(riptide_check_quota(handle, "crawls", 1, RIPTIDE_QUOTA_CONSUME, NULL), RIPTIDE_EAGAIN);
	assert_int_equal(redis_server_restart(&f->server), 0);
	riptide_close(&handle);
}

/* ---- changes under load ------------------------------------------------------------------------------------------------------ */

/* Reads, writes, batches and questions until it is told to stop; errors are of no interest, wrong values are. */
static int hammer(void *context)
{
	const struct share *share = context;
	struct riptide_options options = {
		.size = sizeof(options), .socket = share->agent->socket, .tenant = "acme", .timeout_ms = 300};
	struct riptide_item items[20];
	char key[8] = "k0";

	memset(items, 0, sizeof(items));
	for (int i = 0; i < 20; i++)
		items[i] = (struct riptide_item){.key = key, .key_length = 2, .value = "v", .value_length = 1};
	for (uint64_t i = 0; e2e_now_ms() < share->until_ms; i++) {
		struct riptide_quota ignored;
		struct riptide_info info;
		riptide *handle;
		char value[8];
		size_t length;

		if (riptide_open(&options, &handle) != RIPTIDE_OK) {
			riptide_close(&handle);
			e2e_pause_ms(5);
			continue;
		}
		for (int n = 0; n < 200 && e2e_now_ms() < share->until_ms; n++) {
			key[1] = (char)('0' + n % 10);
			if (riptide_get_into(handle, key, 2, value, sizeof(value), &length, &info) == RIPTIDE_OK &&
			    (length != 1 || value[0] != 'v'))
				return 3;
			if (n % 3 == 0)
				(void)riptide_set(handle, key, 2, "v", 1, NULL, NULL);
			if (n % 7 == 0)
				(void)riptide_set_batch(handle, items, 20);
			if (n % 5 == 0)
				(void)riptide_check_quota(handle, n % 2 ? "crawls" : "operations_per_minute", 1,
							  (enum riptide_quota_mode)(n % 3), &ignored);
		}
		riptide_close(&handle);
		share->passed[share->number]++;
	}
	return 0;
}

static void limits_change_tenants_and_clients_come_and_go_under_load(void **state)
{
	static const char *const changes[] = {
		"{\"quotas\": {\"operations_per_minute\": 50, \"crawls\": 3}}",
		"{\"quotas\": {\"operations_per_minute\": 100000, \"crawls\": 100}, \"rate_limits\": {\"bytes\": "
		"{\"limit\": 1000}}}",
		"{\"quotas\": {}, \"rate_limits\": {}}",
		"{\"rate_limits\": {\"operations\": {\"limit\": 5000, \"period_seconds\": 1}}}",
		"{\"quotas\": {\"data_transfer_bytes\": 1}}",
	};
	struct fixture *f = both_fixture(state);
	uint64_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct share share = {.agent = &f->agent, .passed = shared, .until_ms = e2e_now_ms() + 6000};
	struct share shares[6];
	pid_t pids[6];

	create(&f->agent, "acme", "\"quotas\": {\"operations_per_minute\": 500, \"crawls\": 3}");
	for (int i = 0; i < 6; i++) {
		shares[i] = share;
		shares[i].number = i;
		pids[i] = e2e_fork(hammer, &shares[i]);
	}
	for (uint32_t round = 0; e2e_now_ms() < share.until_ms; round++) {
		e2e_pause_ms(60);
		switch (round % 4) {
		case 0:
			(void)TENANT(&f->agent, UPDATE, "acme", changes[round / 4 % 5]);
			break;
		case 1:
			(void)TENANT(&f->agent, SUSPEND, "acme", NULL);
			break;
		case 2:
			(void)TENANT(&f->agent, RESUME, "acme", NULL);
			break;
		default:
			/* In the middle of whatever it does. */
			kill(pids[round / 4 % 6], SIGKILL);
			(void)waitpid(pids[round / 4 % 6], NULL, 0);
			pids[round / 4 % 6] = e2e_fork(hammer, &shares[round / 4 % 6]);
			if (round % 16 == 15) {
				(void)TENANT(&f->agent, DELETE, "acme", NULL);
				(void)TENANT(&f->agent, CREATE, NULL,
					     "{\"id\": \"acme\", \"quotas\": {\"operations_per_minute\": 500}}");
			}
		}
	}
	for (int i = 0; i < 6; i++)
		assert_int_equal(e2e_join(pids[i], 20000), 0);
	assert_true(shared[0] + shared[1] + shared[2] + shared[3] + shared[4] + shared[5] > 0);
	/* The agent is there, and the tenant is as it is told to be. */
	(void)TENANT(&f->agent, CREATE, NULL, "{\"id\": \"acme\"}");
	assert_done(TENANT(&f->agent, UPDATE, "acme", "{\"quotas\": {\"crawls\": 2}, \"rate_limits\": {}}"));
	assert_done(TENANT(&f->agent, RESUME, "acme", NULL));
	{
		riptide *handle = open_tenant(&f->agent, "acme");

		assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
		assert_true(quota(handle, "crawls", 0, RIPTIDE_QUOTA_ASK).has_limit);
		riptide_close(&handle);
	}
	munmap(shared, 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(as_many_operations_pass_as_the_quota_says),
		BOTH_STORES(a_batch_passes_whole_or_not),
		BOTH_STORES(bytes_are_counted_both_ways),
		BOTH_STORES(shadow_mode_refuses_nothing_and_counts),
		BOTH_STORES(operators_are_told_once_when_a_quota_is_nearly_used_up),
		BOTH_STORES(quotas_of_ones_own_are_shared_by_all_processes),
		BOTH_STORES(one_operation_a_minute_is_one),
		BOTH_STORES(eight_readers_together_stay_within_the_limit),
		BOTH_STORES(without_limits_readers_go_on_by_themselves),
		BOTH_STORES(a_killed_agent_gives_no_fresh_burst),
		BOTH_STORES(two_agents_share_one_limit),
		BOTH_STORES(without_the_server_each_host_counts_alone),
		BOTH_STORES(limits_change_tenants_and_clients_come_and_go_under_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
