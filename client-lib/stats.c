/*
 * stats.c - a round trip, figures, and what there is to say of one entry.
 *
 * STATS answers with struct rshm_stats, of which an agent of another version may send less or more. What it does not send is
 * 0. Callers, too, may have been compiled with a shorter struct riptide_stats: they get the beginning of it.
 */
#include <string.h>

#include "client-lib/hot_priv.h"

#define STATS_LEAST sizeof(struct rshm_figures)
#define CALLER_LEAST offsetof(struct riptide_stats, hit_ns_p95) /* the struct as it was first */
#define STATS_MOST 4096u                                        /* bytes that an answer may have */

int riptide_ping(riptide *handle, uint64_t *ret_ns)
{
	struct rt_call call;
	uint64_t began_ns;
	int status;

	status = rt_begin(handle, &call, "ping", RSHM_OP_PING);
	if (status < 0)
		return status;
	began_ns = rt_clock_ns();
	status = rt_call(handle, &call);
	if (status == RIPTIDE_OK && ret_ns)
		*ret_ns = rt_clock_ns() - began_ns;
	return status;
}

static int place_stats(struct rt_call *call)
{
	if (call->answer.answer_len < STATS_LEAST || call->answer.answer_len > STATS_MOST ||
	    call->answer.metadata_len)
		return RIPTIDE_EPROTOCOL;
	call->body_to = call->context;
	return RIPTIDE_OK;
}

/* Not inline: the conversions are long. */
static __attribute__((noinline)) double share(uint64_t part, uint64_t whole)
{
	return whole ? (double)part / (double)whole : 0;
}

static void fill_tenant(const struct rshm_stats *t, struct riptide_stats *ret)
{
	const struct rshm_figures *f = &t->figures;

	ret->total_keys = f->entries;
	ret->memory_usage_bytes = f->used_bytes;
	ret->memory_limit_bytes = f->limit_bytes;
	ret->hits = f->hits;
	ret->misses = f->misses;
	ret->stale = f->stale;
	ret->sets = f->sets;
	ret->deletes = f->deletes;
	ret->evictions = f->evictions;
	ret->hit_bytes = f->hit_bytes;
	ret->hit_rate = share(f->hits, f->hits + f->misses);
	ret->miss_rate = share(f->misses, f->hits + f->misses);
	ret->avg_access_time_us = share(t->hit_ns_mean, 1000);
	ret->ops_per_second = share(t->milli_operations, 1000);
	ret->avg_compression_ratio = t->plain_bytes ? share(t->stored_bytes, t->plain_bytes) : 1;
	ret->hit_ns_p50 = f->hit_ns_p50;
	ret->hit_ns_p99 = f->hit_ns_p99;
	ret->hit_ns_p95 = t->hit_ns_p95;
	ret->evictions_capacity = t->evictions_capacity;
	ret->evictions_expired = t->evictions_expired;
	ret->evictions_manual = t->evictions_manual;
	ret->evictions_memory_pressure = t->evictions_memory_pressure;
	ret->evicted_bytes = t->evicted_bytes;
	ret->eviction_rate = share(t->milli_evictions, 1000);
	ret->spilled = t->spilled;
	ret->restored = t->restored;
	ret->journal_records = t->journal_records;
}

static void add_shards(const struct rshm_shard *shards, struct riptide_stats *ret)
{
	for (unsigned int i = 0; i < RSHM_SHARDS; i++) {
		ret->own_hits += rshm_load_relaxed(&shards[i].hits);
		ret->own_misses += rshm_load_relaxed(&shards[i].misses);
		ret->own_retries += rshm_load_relaxed(&shards[i].retries);
	}
}

/* This process's counters: of channels that are gone, of the present one, and of times without one. */
static void fill_own(riptide *handle, struct riptide_stats *ret)
{
	struct rt_process *process = handle->process;

	pthread_mutex_lock(&process->lock);
	ret->own_hits = process->past_hits;
	ret->own_misses = process->past_misses;
	ret->own_retries = process->past_retries;
	ret->attaches = process->attaches;
	add_shards(process->private_shards, ret);
	if (process->channel)
		add_shards(process->channel->shared->shards, ret);
	pthread_mutex_unlock(&process->lock);
}

int riptide_stats(riptide *handle, struct riptide_stats *ret_stats)
{
	unsigned char answer[STATS_MOST];
	struct rshm_stats tenant;
	struct riptide_stats stats = {.size = 0};
	struct rt_call call;
	int status;

	status = rt_begin(handle, &call, "stats", RSHM_OP_STATS);
	if (status < 0)
		return status;
	if (!ret_stats || ret_stats->size < CALLER_LEAST)
		return rt_fail(handle, RIPTIDE_EINVALID, "stats", NULL, 0,
			       "size must be sizeof(struct riptide_stats)");
	call.place = place_stats;
	call.context = answer;
	status = rt_call(handle, &call);
	if (status != RIPTIDE_OK)
		return status;
	memset(&tenant, 0, sizeof(tenant));
	memcpy(&tenant, answer, call.answer.answer_len < sizeof(tenant) ? call.answer.answer_len : sizeof(tenant));
	fill_tenant(&tenant, &stats);
	fill_own(handle, &stats);
	stats.size = ret_stats->size;
	memcpy(ret_stats, &stats, stats.size < sizeof(stats) ? stats.size : sizeof(stats));
	return RIPTIDE_OK;
}

int riptide_describe(riptide *handle, const void *key, size_t key_length, struct riptide_description *ret)
{
	struct rt_call call;
	int status = rt_begin_key(handle, &call, "describe", RSHM_OP_EXISTS, key, key_length);

	if (status < 0)
		return status;
	if (!ret || ret->size < sizeof(*ret))
		return rt_fail(handle, RIPTIDE_EINVALID, "describe", key, key_length,
			       "size must be sizeof(struct riptide_description)");
	call.flags = RSHM_REQUEST_FRESH;
	status = rt_call(handle, &call);
	if (status == RIPTIDE_OK)
		*ret = (struct riptide_description){
			.size = ret->size,
			.version = call.answer.version,
			.created_ms = call.answer.version >> 16,
			.age_ms = rt_age_ms(call.answer.version),
			.ttl_ms = call.answer.ttl_ms,
			.access_count = call.answer.access_count,
			.accessed_ms_ago = call.answer.accessed_ms_ago,
		};
	return status;
}
