/*
 * judge.c - hot entries that take more than a look at the clock: unverified ones, remembered absences, entries with tags and
 * entries with a soft deadline. The plain hit never comes here (rt_look_judge() in hot_priv.h).
 *
 * Tag pairs and soft deadline are read from the ring once more, after the value: an entry's bytes never change until tail
 * passes it, so if rshm_still_valid() says so after the second look, both looks saw the same entry. The tag words are read
 * after the copies (shm/tags.c).
 *
 * An absence and a value past its soft deadline are misses that the agent is not asked about; it learns of them by a counter of
 * their own.
 */
#include "client-lib/hot_priv.h"
#include "shm/tags.h"

static void count(const struct rt_look *look, uint64_t *counter)
{
	rshm_count(counter, 1, look->line->shard_is_shared);
}

bool rt_look_prepare(riptide *handle, struct rt_look *look)
{
	return rt_process_setup(handle) == RIPTIDE_OK && rt_line_acquire() && rt_look_begin(handle, look);
}

void rt_look_count_shared(const struct rt_look *look, uint32_t value_len)
{
	rshm_count(&look->shard->hits, 1, true);
	rshm_count(&look->shard->hit_bytes, value_len, true);
}

void rt_look_sample(const struct rt_look *look, const struct rshm_found *found)
{
	if (!rshm_touch_is_due(found->entry.position, found->entry.control_a, found->tail, look->sight->reader.units))
		rshm_note_access(look->shard, found->entry.position);
	rshm_sample(look->shard, rt_clock_ns() - look->began_ns);
	count(look, &look->shard->sampled);
}

int rt_look_missed(const struct rt_look *look, enum rshm_outcome outcome)
{
	if (outcome == RSHM_LET_GO)
		return RT_RELOCATE;
	if (outcome == RSHM_LAPPED)
		count(look, &look->shard->retries);
	count(look, &look->shard->misses);
	return RT_ASK;
}

int rt_look_blind(const struct rt_look *look)
{
	int status = look->sight && !look->sight->reader.segment ? RT_RELOCATE : RT_ASK;

	count(look, &look->shard->misses);
	rt_look_end(look);
	return status;
}

/* A miss that the agent will not hear of otherwise. */
static void count_absent(const struct rt_look *look)
{
	count(look, &look->shard->misses);
	count(look, &look->shard->absent);
}

/* Compares the tag pairs and hides them. RIPTIDE_OK or RT_ASK. */
static int judge_tags(const struct rt_look *look, struct rshm_found *found)
{
	const struct rshm_reader *reader = &look->sight->reader;
	struct rshm_entry *entry = &found->entry;
	unsigned char copy[RSHM_TAGS_BYTES_MAX];
	uint32_t skip;
	bool holds;

	rshm_copy_out(copy, found->bytes + entry->key_len,
		      entry->metadata_len < sizeof(copy) ? entry->metadata_len : sizeof(copy));
	holds = rshm_tags_valid(reader, copy, entry->metadata_len, &skip);
	if (!rshm_still_valid(reader, found))
		return rt_look_missed(look, RSHM_LAPPED);
	if (!holds)
		return rt_look_missed(look, RSHM_NOT_FOUND);
	found->bytes += skip;
	entry->metadata_len -= (uint16_t)skip;
	return RIPTIDE_OK;
}

/* RIPTIDE_OK, RIPTIDE_MISS or RT_ASK. */
static int judge_soft_deadline(const struct rt_look *look, struct rshm_found *found, uint64_t *soft_ms)
{
	struct rshm_entry *entry = &found->entry;
	uint64_t deadline_ms = rt_soft_deadline(found->bytes + entry->key_len, entry->metadata_len);
	uint64_t ttl_ms = entry->control_b == RSHM_NEVER ? RIPTIDE_NEVER : entry->control_b - look->now_ms;
	bool is_over;

	if (!rshm_still_valid(&look->sight->reader, found))
		return rt_look_missed(look, RSHM_LAPPED);
	is_over = rt_soft_is_over(deadline_ms, &ttl_ms);
	entry->control_b = ttl_ms == RIPTIDE_NEVER ? RSHM_NEVER : look->now_ms + ttl_ms;
	if (!is_over)
		return RIPTIDE_OK;
	if (!soft_ms) {
		count_absent(look);
		return RIPTIDE_MISS;
	}
	*soft_ms = deadline_ms;
	return RIPTIDE_OK;
}

static int judge_absence(const struct rt_look *look, enum rshm_freshness freshness, uint32_t *ret_flags)
{
	if (freshness != RSHM_VERIFIED)
		return rt_look_missed(look, RSHM_NOT_FOUND);
	count_absent(look);
	*ret_flags = RIPTIDE_HOT | RIPTIDE_NEGATIVE;
	return RIPTIDE_MISS;
}

int rt_look_judge_closely(struct rt_look *look, struct rshm_found *found, enum rshm_freshness freshness,
			  uint32_t *ret_flags, uint64_t *soft_ms)
{
	uint32_t flags = rshm_control_flags(found->entry.control_a);
	int status = RIPTIDE_OK;

	*ret_flags = 0;
	if (freshness == RSHM_EXPIRED) {
		count(look, &look->shard->expired);
		return RT_ASK;
	}
	if (freshness == RSHM_UNVERIFIED)
		return RT_ASK;
	if (flags & RSHM_FLAG_NEGATIVE)
		return judge_absence(look, freshness, ret_flags);
	if (flags & RSHM_FLAG_TAGGED)
		status = judge_tags(look, found);
	if (status == RIPTIDE_OK && freshness == RSHM_REFUSE)
		status = RIPTIDE_ESTALE;
	if (status == RIPTIDE_OK && flags & RSHM_FLAG_SOFT)
		status = judge_soft_deadline(look, found, soft_ms);
	if (status != RIPTIDE_OK)
		return status;
	*ret_flags = RIPTIDE_HOT;
	if (freshness == RSHM_SERVE_STALE) {
		count(look, &look->shard->stale);
		*ret_flags |= RIPTIDE_STALE;
	}
	return RIPTIDE_OK;
}
