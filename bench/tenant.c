/*
 * tenant.c - what it costs the agent to ask a tenant's rules and quotas, in one process and without an agent.
 *
 * Questions are made beforehand, in random order, so that the processor cannot learn a single path. The policy has a third of
 * exact keys, else prefixes, a few conditions, and one rule for everything.
 */
#include "agent/tenant/access_policy.h"
#include "agent/tenant/quota.h"
#include "bench/bench_row.h"
#include "bench/bench_time.h"
#include "bench/bench_world.h"

#define QUESTIONS 4096u
#define CALLS 200000u
#define ROUNDS 21u

static struct access_question questions[QUESTIONS];
static char keys[QUESTIONS][32];
static unsigned int allowed;

static json_t *make_rule(uint32_t number)
{
	json_t *rule = json_pack("{s:o, s:[s, s], s:s}", "resource",
				 json_sprintf(number % 3 ? "doc:%02u:%u*" : "doc:%02u:%u", number % 50, number / 3),
				 "actions", "read", number % 2 ? "write" : "export", "effect",
				 number % 5 ? "allow" : "deny");

	if (number % 7 == 0)
		json_object_set_new(rule, "conditions",
				    json_pack("{s:{s:s, s:s}, s:[i, i]}", "time", "from", "08:00", "to", "18:00",
					      "peer_uids", 1000, 1001));
	return rule;
}

static struct access_policy *make_policy(uint32_t count)
{
	struct access_policy *policy = NULL;
	char error[ACCESS_ERROR_MAX];
	json_t *rules = json_array();

	json_array_append_new(rules,
			      json_pack("{s:s, s:[s], s:s}", "resource", "*", "actions", "*", "effect", "allow"));
	for (uint32_t i = 1; i < count; i++)
		json_array_append_new(rules, make_rule(i));
	bench_ok(access_policy_parse(rules, &policy, error, sizeof(error)), "access_policy_parse");
	json_decref(rules);
	return policy;
}

static void make_questions(uint32_t rules)
{
	static const char *const actions[] = {"read", "write", "delete"};
	uint64_t seed = 42;

	for (uint32_t i = 0; i < QUESTIONS; i++) {
		uint32_t number = (uint32_t)(bench_random(&seed) % rules);
		int length = snprintf(keys[i], sizeof(keys[i]), "doc:%02u:%u%s", number % 50, number / 3,
				      bench_random(&seed) % 2 ? ":7" : "");

		questions[i] = (struct access_question){.resource = keys[i],
							.resource_length = (size_t)length,
							.action = actions[bench_random(&seed) % 3],
							.uid = 1000,
							.now_wall_ms = bench_random(&seed) >> 20};
	}
}

static double mean_check_ns(const struct access_policy *policy)
{
	uint64_t began = bench_tick();

	for (uint32_t i = 0; i < CALLS; i++) {
		struct access_answer answer;

		access_policy_check(policy, &questions[i % QUESTIONS], &answer);
		allowed += answer.allowed;
	}
	return bench_span_ns(began, bench_tick()) / CALLS;
}

static void measure_policy(uint32_t rules, struct bench_bound must)
{
	struct access_policy *policy = make_policy(rules);
	double ns[ROUNDS];
	char figure[60], note[60];

	make_questions(rules);
	allowed = 0;
	for (unsigned int i = 0; i < ROUNDS; i++)
		ns[i] = mean_check_ns(policy);
	snprintf(figure, sizeof(figure), "policy check, %u rules, mean", rules);
	snprintf(note, sizeof(note), "%.0f %% allowed", 100.0 * allowed / (CALLS * ROUNDS));
	bench_print(&(struct bench_row){
		.figure = figure, .unit = BENCH_NS, .ours = bench_median(ns, ROUNDS), .must = must, .note = note});
	access_policy_destroy(&policy);
}

static struct quota_set *make_quotas(void)
{
	json_t *limits = json_pack("{s:I, s:I}", "storage_bytes", (json_int_t)1 << 40, "operations_per_minute",
				   (json_int_t)1 << 40);
	struct quota_set *set = NULL;
	char error[QUOTA_ERROR_MAX];

	bench_ok(quota_set_create(&set), "quota_set_create");
	bench_ok(quota_set_limits(set, limits, error, sizeof(error)), "quota_set_limits");
	json_decref(limits);
	return set;
}

/* `by_name` looks the number up each time, as a call of an application does. */
static double mean_consume_ns(struct quota_set *set, uint32_t number, bool by_name)
{
	uint64_t began = bench_tick();

	for (uint32_t i = 0; i < CALLS; i++) {
		struct quota_answer answer;

		if (by_name)
			bench_ok(quota_find(set, "storage_bytes", &number), "quota_find");
		quota_consume(set, number, 1 + i % 3, i * 1000, &answer);
		bench_need(answer.allowed, "room in the quota");
	}
	return bench_span_ns(began, bench_tick()) / CALLS;
}

static void measure_quota(const char *figure, uint32_t number, bool by_name)
{
	struct quota_set *set = make_quotas();
	double ns[ROUNDS];

	for (unsigned int i = 0; i < ROUNDS; i++)
		ns[i] = mean_consume_ns(set, number, by_name);
	bench_print(&(struct bench_row){.figure = figure,
					.unit = BENCH_NS,
					.ours = bench_median(ns, ROUNDS),
					.must = BENCH_OURS_AT_MOST(200)});
	quota_set_destroy(&set);
}

int main(void)
{
	bench_clock_init();
	bench_heading("Tenants: rules and quotas, one process, no agent");
	measure_policy(16, (struct bench_bound)BENCH_OURS_AT_MOST(200));
	measure_policy(1000, (struct bench_bound){0});
	measure_quota("quota check and consume, by number", QUOTA_STORAGE_BYTES, false);
	measure_quota("quota check and consume, by name", QUOTA_STORAGE_BYTES, true);
	measure_quota("quota check and consume, of the rate", QUOTA_OPERATIONS_PER_MINUTE, false);
	return 0;
}
