/* coherence_restart.h - the part of coherence.c that measures how long trust takes to come back. */
#ifndef BENCH_COHERENCE_RESTART_H
#define BENCH_COHERENCE_RESTART_H

#include "bench/coherence_agents.h"

/* Heads of all keys as a plain client would read them, pipelined; per second. */
static double plain_heads(void)
{
	redisContext *redis = bench_redis_connect();
	uint64_t began_ns = bench_now_ns();
	redisReply *reply;

	for (uint32_t i = 0; i < KEYS; i += REVALIDATION_PIPELINE) {
		uint32_t some = KEYS - i < REVALIDATION_PIPELINE ? KEYS - i : REVALIDATION_PIPELINE;

		for (uint32_t n = 0; n < some; n++) {
			char key[BENCH_KEY + 1];

			bench_key(key, i + n);
			redisAppendCommand(redis, "GETRANGE %s:v1:{default.0}:1:c:%s 0 71", told.prefix, key);
		}
		for (uint32_t n = 0; n < some; n++) {
			bench_need(redisGetReply(redis, (void **)&reply) == REDIS_OK &&
					   reply->type == REDIS_REPLY_STRING && reply->len == 72,
				   "GETRANGE");
			freeReplyObject(reply);
		}
	}
	redisFree(redis);
	return KEYS * 1e9 / (double)(bench_now_ns() - began_ns);
}

/* The freshness of all that B has from the server, where readers look at it. */
static const struct rshm_source *map_source(const struct bench_process *agent)
{
	const struct rshm_agent *object = MAP_FAILED;
	char prefix[48], name[300];
	DIR *folder = opendir("/dev/shm");

	snprintf(prefix, sizeof(prefix), "riptide.%s.", agent->instance);
	for (struct dirent *entry; folder && object == MAP_FAILED && (entry = readdir(folder));) {
		int fd;

		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		snprintf(name, sizeof(name), "/%s", entry->d_name);
		fd = shm_open(name, O_RDONLY | O_CLOEXEC, 0);
		bench_need(fd >= 0, name);
		object = mmap(NULL, sizeof(*object), PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (object != MAP_FAILED && object->header.magic != RSHM_AGENT_MAGIC) {
			munmap((void *)object, sizeof(*object));
			object = MAP_FAILED;
		}
	}
	if (folder)
		closedir(folder);
	bench_need(object != MAP_FAILED, "finding the agent's object in shared memory");
	return object->sources;
}

static bool is_verified(riptide *handle, uint32_t number)
{
	struct riptide_info info = {.flags = 0};
	char key[BENCH_KEY + 1], value[VALUE];
	size_t length;

	bench_key(key, number);
	bench_ok(riptide_get_into(handle, key, BENCH_KEY, value, VALUE, &length, &info), "riptide_get_into");
	return (info.flags & (RIPTIDE_HOT | RIPTIDE_STALE)) == RIPTIDE_HOT;
}

static double verified_percent(const struct bench_process *agent)
{
	riptide *handle = bench_open(agent);
	uint32_t verified = 0;

	for (uint32_t i = 0; i < KEYS; i++)
		verified += is_verified(handle, i);
	riptide_close(&handle);
	return 100.0 * verified / KEYS;
}

struct restart {
	double up_ns, lease_ns, verified_ns; /* since the agent was begun */
	double rate, heads;
	uint64_t count; /* entries that its pass looked at */
};

/*
 * The lease counts when the new agent has extended it by a proof of its own; it may well find one that is still running. Which
 * entries are verified is seen by reading every hundredth key, in the order in which the pass walks: a copy that is not gets
 * the mark of a stale one, and the agent does not hear of it.
 */
static void await_verified(struct restart *r, uint64_t began_ns, const struct rshm_source *source, uint64_t lease_ms)
{
	riptide *handle = bench_open(told.b);

	for (uint32_t next = 0; r->lease_ns == 0 || r->verified_ns == 0;) {
		double passed_ns;

		while (next < KEYS && is_verified(handle, next))
			next += 100;
		passed_ns = since(bench_now_ns(), began_ns);
		if (r->verified_ns == 0 && next >= KEYS)
			r->verified_ns = passed_ns;
		if (r->lease_ns == 0 && __atomic_load_n(&source->lease_until_ms, __ATOMIC_ACQUIRE) > lease_ms)
			r->lease_ns = passed_ns;
		errno = 0;
		bench_need(passed_ns < (double)PATIENCE_NS, "waiting for trust after a restart");
		bench_pause_us(500);
	}
	riptide_close(&handle);
}

static struct restart restart_once(void)
{
	const struct rshm_source *source = map_source(told.b);
	struct restart r = {0};
	uint64_t began_ns, lease_ms;
	struct trust trust;

	bench_stop(told.b);
	lease_ms = __atomic_load_n(&source->lease_until_ms, __ATOMIC_ACQUIRE);
	began_ns = bench_now_ns();
	start_agent(&told, &told.b, true);
	r.up_ns = since(bench_now_ns(), began_ns);
	await_verified(&r, began_ns, source, lease_ms);
	munmap((char *)source - offsetof(struct rshm_agent, sources), sizeof(struct rshm_agent));
	/* The figures of a status are up to 250 ms old, and may be from before the pass. */
	do {
		bench_pause_us(50000);
		trust = trust_of(told.b, told.mode);
		bench_need(since(bench_now_ns(), began_ns) < (double)PATIENCE_NS, "the status after a restart");
	} while (!trust.verified || trust.confirmed + trust.removed == 0);
	r.count = trust.confirmed + trust.removed;
	r.rate = (double)r.count * 1e9 / (r.verified_ns - r.up_ns);
	r.heads = plain_heads();
	return r;
}

static void measure_restart(void)
{
	double up[ROUNDS_MAX], lease[ROUNDS_MAX], verified[ROUNDS_MAX], rate[ROUNDS_MAX], heads[ROUNDS_MAX];
	double hot_before = verified_percent(told.b);
	struct restart r = {0};
	char note[200];

	for (unsigned int i = 0; i < rounds; i++) {
		r = restart_once();
		up[i] = r.up_ns;
		lease[i] = r.lease_ns;
		verified[i] = r.verified_ns;
		rate[i] = r.rate;
		heads[i] = r.heads;
	}
	snprintf(note, sizeof(note), "the first of its own proofs; %.1f ms until a client could attach; %u restarts",
		 bench_median(up, rounds) / 1e6, rounds);
	show("restart, until the lease is there", BENCH_NS, bench_median(lease, rounds), NULL, 0, 0, note);
	snprintf(note, sizeof(note), "%llu entries; hot and verified: %.1f %% of the keys before, %.1f %% after",
		 (unsigned long long)r.count, hot_before, verified_percent(told.b));
	show("restart, until all is verified", BENCH_NS, bench_median(verified, rounds), NULL, 0, 0, note);
	show("  entries verified, since clients can attach", BENCH_PER_SECOND, percentile_of(rate, rounds, 50),
	     "hiredis GETRANGE x 128", percentile_of(heads, rounds, 50), ratio_of(rate, heads), NULL);
}

#endif
