/*
 * stats.c - a round trip, and figures.
 *
 * STATS answers with the tenant's struct rshm_figures, followed by u64 words, of which later agents may send more: bytes of
 * values written before and after compression, operations per second in thousandths, mean nanoseconds of sampled hot
 * reads. What an agent does not send is 0.
 */
#include <string.h>

#include "client-lib/hot_priv.h"

struct tenant_stats {
	struct rshm_figures figures;
	uint64_t plain_bytes, stored_bytes, milli_ops_per_second, hit_ns_mean;
};
_Static_assert(sizeof(struct tenant_stats) == sizeof(struct rshm_figures) + 4 * sizeof(uint64_t), "as on the wire");

#define STATS_LEAST sizeof(struct rshm_figures)
#define STATS_MOST 4096u /* bytes that an answer may have */

int riptide_ping(riptide *handle, uint64_t *ret_ns)
{
	struct rt_call call;
	uint64_t began_ns;
	int status;

	if (!rt_handle_is_valid(handle))
		return RIPTIDE_EINVALID;
	if (!handle->is_open)
		return rt_fail(handle, RIPTIDE_ECLOSED, "ping", NULL, 0, "the handle was not opened successfully");
	began_ns = rt_clock_ns();
	rt_call_init(&call, "ping", RSHM_OP_PING, NULL, 0, rt_deadline_ms(handle));
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

static double share(uint64_t part, uint64_t whole)
{
	return whole ? (double)part / (double)whole : 0;
}

static void fill_tenant(const struct tenant_stats *t, struct riptide_stats *ret)
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
	ret->avg_access_time_us = (double)t->hit_ns_mean / 1000;
	ret->ops_per_second = (double)t->milli_ops_per_second / 1000;
	ret->avg_compression_ratio = t->plain_bytes ? share(t->stored_bytes, t->plain_bytes) : 1;
	ret->hit_ns_p50 = f->hit_ns_p50;
	ret->hit_ns_p99 = f->hit_ns_p99;
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
	struct tenant_stats tenant;
	struct riptide_stats stats = {.size = 0};
	struct rt_call call;
	int status;

	if (!rt_handle_is_valid(handle))
		return RIPTIDE_EINVALID;
	if (!handle->is_open)
		return rt_fail(handle, RIPTIDE_ECLOSED, "stats", NULL, 0, "the handle was not opened successfully");
	if (!ret_stats || ret_stats->size < sizeof(stats))
		return rt_fail(handle, RIPTIDE_EINVALID, "stats", NULL, 0,
			       "size must be sizeof(struct riptide_stats)");
	rt_call_init(&call, "stats", RSHM_OP_STATS, NULL, 0, rt_deadline_ms(handle));
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
	memcpy(ret_stats, &stats, sizeof(stats));
	return RIPTIDE_OK;
}
