/* coherence_agents.h - what the parts of coherence.c share: its sizes, its agents, and what they say of themselves. */
#ifndef BENCH_COHERENCE_AGENTS_H
#define BENCH_COHERENCE_AGENTS_H

#include "bench/bench_crowd.h"
#include "bench/bench_row.h"
#include "client-lib/control.h"
#include "shm/order.h"
#include "shm/tlv.h"
#include "shm/os/map.h"

#define PATIENCE_NS (20ull * 1000000000)
#define TTL_AGE_MS 20 /* of copies in mode ttl; the others outlive the run */
#define VALUE 64u
#define WRITTEN 1024u
#define KEYS_EACH 1000u
#define CLIENTS_MAX 8u
#define KEYS 100000u
#define ORDER (1u << 20)
#define SKEW 0.99
#define BATCH 64u
#define NOTED 8u /* one batch in so many is noted */
#define REWRITTEN (KEYS / 10)
#define REWRITE_BATCH 100u
#define READERS 2u
#define ROUNDS_MAX 16
#define REVALIDATION_PIPELINE 128u

struct pair {
	const char *mode, *prefix;
	struct bench_process *a, *b;
};

/* Nothing is promised of any of these figures. */
static void show(const char *figure, enum bench_unit unit, double ours, const char *peer_name, double peer,
		 double ratio, const char *note)
{
	bench_print(&(struct bench_row){
		.figure = figure,
		.unit = unit,
		.ours = ours,
		.peer_name = peer_name,
		.peer = peer,
		.ratio = ratio,
		.note = note,
	});
}

/* ---- agents --------------------------------------------------------------------------------------------------- */

static json_t *status_of(const struct bench_process *agent)
{
	unsigned char message[64], *answer = NULL;
	char trouble[RT_CONTROL_TEXT] = "";
	struct rshm_control_header header;
	struct rshm_tlv_writer writer;
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;
	json_t *status = NULL;
	size_t length;

	rshm_tlv_begin(&writer, message, sizeof(message), RSHM_CONTROL_STATUS, 0, 1);
	length = (size_t)rshm_tlv_finish(&writer);
	bench_ok(
		rt_control_ask(agent->socket, message, length, rshm_now_ms() + 5000, &answer, &length, NULL, trouble),
		"asking an agent for its status");
	if (rshm_tlv_open(&reader, answer, length, &header) == RSHM_OK && header.status == RSHM_OK)
		while (rshm_tlv_next(&reader, &tlv) > 0)
			if (tlv.tag == RSHM_TAG_JSON)
				status = json_loadb((const char *)tlv.value, tlv.length, 0, NULL);
	free(answer);
	bench_need(status != NULL, "an agent's status");
	return status;
}

struct trust {
	bool leased, verified;
	uint64_t confirmed, removed;
};

static struct trust trust_of(const struct bench_process *agent, const char *mode)
{
	json_t *status = status_of(agent), *worker;
	const json_t *coherence = json_object_get(status, "coherence");
	const char *name = json_string_value(json_object_get(coherence, "mode"));
	struct trust trust = {.leased = json_integer_value(json_object_get(coherence, "lease_remaining_ms")) > 0 &&
					name && strcmp(name, mode) == 0,
			      .verified = json_is_false(json_object_get(coherence, "revalidating"))};
	size_t i;

	json_array_foreach(json_object_get(status, "workers"), i, worker)
	{
		trust.confirmed += (uint64_t)json_integer_value(json_object_get(worker, "revalidated"));
		trust.removed += (uint64_t)json_integer_value(json_object_get(worker, "revalidation_removed"));
	}
	json_decref(status);
	return trust;
}

static void start_agent(const struct pair *pair, struct bench_process **ret, bool again)
{
	char url[160], mode[60], age[60], prefix[60];
	const char *const settings[] = {"agent.backend=redis",
					url,
					mode,
					age,
					prefix,
					"cache.max_memory_bytes=512M",
					"cache.segment_initial_bytes=32M",
					"agent.keep_on_stop=true",
					NULL};

	snprintf(url, sizeof(url), "redis.url=unix://%s", bench_world.redis.socket);
	snprintf(mode, sizeof(mode), "coherence.mode=%s", pair->mode);
	snprintf(age, sizeof(age), "coherence.max_age_ms=%d", strcmp(pair->mode, "ttl") == 0 ? TTL_AGE_MS : 3600000);
	snprintf(prefix, sizeof(prefix), "cache.key_prefix=%s", pair->prefix);
	if (again)
		bench_agent_launch(*ret, settings);
	else
		*ret = bench_agent_start(settings);
}

static void await_trust(const struct bench_process *agent, const char *mode)
{
	uint64_t until_ns = bench_now_ns() + PATIENCE_NS;

	while (!trust_of(agent, mode).leased) {
		errno = 0;
		bench_need(bench_now_ns() < until_ns, "waiting for the agent's mode and lease");
		bench_pause_us(10000);
	}
}

static void start_pair(struct pair *pair, const char *mode, const char *prefix)
{
	*pair = (struct pair){.mode = mode, .prefix = prefix};
	start_agent(pair, &pair->a, false);
	start_agent(pair, &pair->b, false);
	await_trust(pair->a, mode);
	await_trust(pair->b, mode);
}

/* This process, those it will start, the server and the agents. */
static void place_all(int cpu)
{
	bench_pin(cpu);
	bench_pin_process(bench_world.redis.pid, cpu);
	for (unsigned int i = 0; i < bench_world.agent_count; i++)
		bench_pin_process(bench_world.agents[i].pid, cpu);
}

static struct pair told, ttl, alone; /* `alone` is an A without a B */
static unsigned int rounds, slice_ms;

static double ratio_of(const double *above, const double *below)
{
	double ratios[ROUNDS_MAX];

	for (unsigned int i = 0; i < rounds; i++)
		ratios[i] = below[i] > 0 ? above[i] / below[i] : 0;
	return bench_median(ratios, rounds);
}

#endif
