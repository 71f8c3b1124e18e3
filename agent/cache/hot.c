/*
 * hot.c - a tenant's segment: open, adopt, put, grow.
 *
 *   ring full and entries are lost ──▶ GROWING: an object of twice the size is allocated on a pool thread
 *                                  ──▶ MOVING:  entries are copied in slices, every put and remove goes to both
 *                                  ──▶ the new one is published, the old one retired and unlinked; readers let go
 *
 * While moving, readers stay on the old segment, which is complete at every moment; the new one is INIT, so that an agent
 * killed meanwhile leaves one adoptable segment and one that its successor removes. Newer entries of the new segment are
 * never replaced by older ones from the walk: what is there already came by a put.
 */
#include "agent/cache/hot.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "shm/order.h"
#include "shm/os/acl.h"

#define NEGATIVE_STEPS 1024u  /* of the ring, looked at for expired absences at a time */
#define MOVE_STEPS 2048u      /* entries looked at per slice */
#define MOVE_BYTES (1u << 20) /* copied per slice */
#define FIRST_BYTES_MIN (256u << 10)
#define RETRY_MS 5000u /* after an allocation failed */

struct body {
	char name[RSHM_NAME_MAX];
	struct rshm_map map;
	struct rshm_writer writer;
	struct policy *policy; /* in charge of the writer */
};

struct allocation {
	uv_work_t work;
	struct hot *hot;
	struct rshm_geometry geometry;
	struct body body;
	int status, error;
};

struct hot {
	const struct hot_environment *environment;
	struct hot_settings settings;
	uv_loop_t *loop;
	uv_idle_t mover;
	struct body *current; /* NULL: no memory */
	struct body *next;    /* while moving */
	struct allocation *allocation;
	uint64_t move_cursor;
	uint64_t evictions_at_growth;
	uint64_t retry_at_ms;
	uint64_t growths, past_evictions, past_reinsertions;
	bool adopted, closing;
	pthread_mutex_t location_lock;
	/* under location_lock */
	char location[RSHM_NAME_MAX];
	uint64_t location_size; /* 0 = no segment */
	void (*reclaim_hook)(void *context);
	void *reclaim_context;
	rshm_drop_fn *drop_hook;
	void *drop_context;
	uint64_t negatives, negatives_cursor;
	void (*closed)(void *context);
	void *closed_context;
};

/* Tells everybody which object serves now. */
static void set_location(struct hot *hot)
{
	pthread_mutex_lock(&hot->location_lock);
	hot->location_size = hot->current ? hot->current->map.size : 0;
	if (hot->current)
		memcpy(hot->location, hot->current->name, sizeof(hot->location));
	pthread_mutex_unlock(&hot->location_lock);
}

/* ---- budget ------------------------------------------------------------------------------------------------- */

static bool budget_take(struct hot_budget *budget, uint64_t bytes)
{
	uint64_t used = __atomic_load_n(&budget->used, __ATOMIC_RELAXED);

	do {
		if (bytes > budget->total || used > budget->total - bytes) {
			errno = ENOMEM; /* cache.max_memory_bytes is used up */
			return false;
		}
	} while (!__atomic_compare_exchange_n(&budget->used, &used, used + bytes, false, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return true;
}

static void budget_give(struct hot_budget *budget, uint64_t bytes)
{
	__atomic_fetch_sub(&budget->used, bytes, __ATOMIC_RELAXED);
}

/* ---- bodies ------------------------------------------------------------------------------------------------- */

/* Once the body is where it stays. */
static void equip_body(struct hot *hot, struct body *body)
{
	body->policy = policy_create(&body->writer, hot->settings.eviction, hot->environment->reinsert_percent);
}

static bool is_negative(const struct rshm_item *item)
{
	return rshm_control_flags(item->control_a) & RSHM_FLAG_NEGATIVE;
}

static void drop_entry(void *context, const struct rshm_item *item, uint64_t position)
{
	struct hot *hot = context;

	if (is_negative(item))
		hot->negatives -= hot->negatives > 0;
	else if (hot->drop_hook)
		hot->drop_hook(hot->drop_context, item, position);
}

/* Only the ring that serves tells what it drops: what one that is being filled drops is still in the other. */
static void publish_body(struct hot *hot, struct body *body)
{
	policy_set_drop_hook(body->policy, drop_entry, hot);
	rshm_writer_publish(&body->writer, hot->settings.policy, hot->settings.stale_limit_ms);
}

/* Any thread: makes the object. The caller has the budget for it. */
static int body_create(struct hot *hot, const struct rshm_geometry *geometry, struct body *body)
{
	const struct hot_environment *env = hot->environment;
	struct rshm_header header = {.generation = 0};
	uint64_t seed;
	int status, fd;

	status = object_list_add(env->objects, OBJECT_SEGMENT, env->instance_name, hot->settings.tenant, body->name);
	if (status < 0)
		return status;
	status = rshm_map_create(body->name, geometry->object_size, &body->map, &fd);
	if (status == RSHM_OK) {
		status = rshm_acl_grant(fd, hot->settings.users, hot->settings.user_count, hot->settings.groups,
					hot->settings.group_count);
		if (status < 0)
			rshm_unmap(&body->map);
		close(fd);
	}
	if (status < 0) {
		int saved = errno;

		object_list_remove(env->objects, body->name);
		errno = saved;
		return status;
	}
	memcpy(header.instance, env->instance, sizeof(header.instance));
	memcpy(header.boot_id, env->boot_id, sizeof(header.boot_id));
	randombytes_buf(&header.generation, sizeof(header.generation));
	randombytes_buf(&seed, sizeof(seed));
	rshm_writer_format(body->map.base, geometry, &header, hot->settings.tenant, seed, &body->writer);
	return RSHM_OK;
}

static void body_destroy(struct hot *hot, struct body **body, bool keep)
{
	struct body *b = *body;

	*body = NULL;
	if (!b)
		return;
	hot->past_evictions += b->writer.evictions + b->writer.displaced;
	hot->past_reinsertions += b->writer.reinsertions;
	if (!keep) {
		rshm_writer_retire(&b->writer);
		object_list_remove(hot->environment->objects, b->name);
	}
	policy_destroy(&b->policy);
	budget_give(hot->environment->budget, b->map.size);
	rshm_unmap(&b->map);
	free(b);
}

static bool header_is_ours(const struct hot *hot, const struct rshm_map *map)
{
	const struct rshm_segment *s = map->base;

	return memcmp(s->header.instance, hot->environment->instance, sizeof(s->header.instance)) == 0 &&
	       memcmp(s->header.boot_id, hot->environment->boot_id, sizeof(s->header.boot_id)) == 0 &&
	       strncmp(s->tenant, hot->settings.tenant, sizeof(s->tenant)) == 0;
}

/* Who was a user of the tenant could open the segment again: only one for the very same users is adopted. */
static bool grants_the_right_users(const struct hot *hot, const char *name)
{
	const struct hot_settings *s = &hot->settings;
	int fd = shm_open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	bool same = fd >= 0 && rshm_acl_is(fd, s->users, s->user_count, s->groups, s->group_count);

	if (fd >= 0)
		close(fd);
	return same;
}

/* Retires what can be reached of an object that will not be adopted, so that no reader stays on it. */
static void discard_object(struct hot *hot, struct rshm_map *map, const char *name)
{
	struct rshm_segment *s = map->base;

	if (map->base && map->size >= sizeof(*s) && s->header.magic == RSHM_SEGMENT_MAGIC)
		__atomic_store_n(&s->state, RSHM_RETIRED, __ATOMIC_RELEASE);
	rshm_unmap(map);
	object_list_remove(hot->environment->objects, name);
}

static struct body *body_adopt(struct hot *hot, const char *name)
{
	struct body *body = calloc(1, sizeof(*body));
	int status = RSHM_E_NOMEM;

	if (!body)
		return NULL;
	snprintf(body->name, sizeof(body->name), "%s", name);
	status = rshm_map_adopt(name, &body->map);
	if (status == RSHM_OK && !grants_the_right_users(hot, name))
		status = RSHM_E_DENIED;
	if (status == RSHM_OK && !header_is_ours(hot, &body->map))
		status = RSHM_E_UNSUPPORTED;
	if (status == RSHM_OK)
		status = rshm_writer_adopt(body->map.base, body->map.size, &body->writer);
	if (status == RSHM_OK && !budget_take(hot->environment->budget, body->map.size))
		status = RSHM_E_NOMEM;
	if (status == RSHM_OK) {
		equip_body(hot, body);
		publish_body(hot, body);
		log_info("cache", "tenant %s: adopted %s, %llu entries", hot->settings.tenant, name,
			 (unsigned long long)body->writer.live_entries);
		return body;
	}
	log_warn("cache", "tenant %s: %s cannot be adopted (status %d); a fresh segment takes its place",
		 hot->settings.tenant, name, status);
	discard_object(hot, &body->map, name);
	free(body);
	return NULL;
}

static uint32_t *tag_words(const struct body *body)
{
	struct rshm_segment *s = body->map.base;

	return (uint32_t *)((unsigned char *)s + s->tag_offset);
}

/* ---- growth ------------------------------------------------------------------------------------------------- */

static void finish_close(uv_handle_t *handle)
{
	struct hot *hot = handle->data;

	hot->closed(hot->closed_context);
	pthread_mutex_destroy(&hot->location_lock);
	free(hot);
}

static void close_if_done(struct hot *hot)
{
	if (hot->closing && !hot->allocation)
		uv_close((uv_handle_t *)&hot->mover, finish_close);
}

static void move_entry(struct hot *hot, const struct rshm_item *item)
{
	struct rshm_item there;
	uint64_t position;

	if (clock_monotonic_ms() >= item->control_b)
		return;
	if (!rshm_writer_find(&hot->next->writer, item->key, item->key_len, &there, &position))
		(void)rshm_writer_put(&hot->next->writer, item);
}

static void count_negatives(struct hot *hot);

static void switch_over(struct hot *hot)
{
	struct body *old = hot->current;

	uv_idle_stop(&hot->mover);
	publish_body(hot, hot->next);
	hot->current = hot->next;
	hot->next = NULL;
	set_location(hot);
	hot->growths++;
	/* Expired ones did not move, and what the new ring dropped while it was filled told nobody. */
	hot->negatives_cursor = 0;
	count_negatives(hot);
	log_info("cache", "tenant %s: hot ring grew to %llu MiB, %llu entries moved", hot->settings.tenant,
		 (unsigned long long)(hot->current->writer.units * RSHM_UNIT >> 20),
		 (unsigned long long)hot->current->writer.live_entries);
	body_destroy(hot, &old, false);
	hot->evictions_at_growth = hot->current->writer.evictions + hot->current->writer.displaced;
}

static void mover_on_turn(uv_idle_t *idle)
{
	struct hot *hot = idle->data;
	uint32_t steps = MOVE_STEPS;
	uint64_t bytes = 0, position;
	struct rshm_item item;

	while (bytes < MOVE_BYTES &&
	       rshm_writer_walk(&hot->current->writer, &hot->move_cursor, &steps, &item, &position)) {
		move_entry(hot, &item);
		bytes += rshm_entry_bytes(item.key_len, item.metadata_len, item.value_len);
	}
	if (hot->move_cursor >= hot->current->writer.head)
		switch_over(hot);
}

static void allocation_on_thread(uv_work_t *work)
{
	struct allocation *a = (struct allocation *)work;

	a->status = body_create(a->hot, &a->geometry, &a->body);
	a->error = errno;
}

static void allocation_on_done(uv_work_t *work, int cancelled)
{
	struct allocation *a = (struct allocation *)work;
	struct hot *hot = a->hot;
	struct body *body = a->status == RSHM_OK ? malloc(sizeof(*body)) : NULL;

	must(!cancelled);
	hot->allocation = NULL;
	if (body) {
		*body = a->body;
		equip_body(hot, body);
		hot->next = body;
	} else {
		log_warn("cache", "tenant %s: the hot ring cannot grow to %llu MiB: %s; it stays as it is",
			 hot->settings.tenant, (unsigned long long)(a->geometry.ring_bytes >> 20),
			 strerror(a->error));
		budget_give(hot->environment->budget, a->geometry.object_size);
		hot->retry_at_ms = clock_monotonic_ms() + RETRY_MS;
	}
	free(a);
	if (hot->closing) {
		body_destroy(hot, &hot->next, false);
		close_if_done(hot);
	} else if (hot->next && !hot->current) {
		publish_body(hot, hot->next);
		hot->current = hot->next;
		hot->next = NULL;
		set_location(hot);
	} else if (hot->next) {
		/* Entries move with the words they were published under. */
		memcpy(tag_words(hot->next), tag_words(hot->current), RSHM_TAG_WORDS * sizeof(uint32_t));
		hot->move_cursor = 0;
		uv_idle_start(&hot->mover, mover_on_turn);
	}
}

static bool hot_fits_limit(const struct hot *hot, const struct rshm_geometry *geometry)
{
	return !hot->settings.limit_bytes || geometry->ring_bytes <= hot->settings.limit_bytes || !hot->current;
}

static void begin_growth(struct hot *hot, uint64_t ring_bytes)
{
	struct allocation *a;
	struct rshm_geometry geometry;

	rshm_geometry_plan(ring_bytes, hot->environment->entry_limit_bytes, &geometry);
	a = hot_fits_limit(hot, &geometry) ? calloc(1, sizeof(*a)) : NULL;
	if (!a || !budget_take(hot->environment->budget, geometry.object_size)) {
		hot->retry_at_ms = clock_monotonic_ms() + RETRY_MS;
		free(a);
		return;
	}
	a->hot = hot;
	a->geometry = geometry;
	hot->allocation = a;
	must(uv_queue_work(hot->loop, &a->work, allocation_on_thread, allocation_on_done) == 0);
}

/* Entries that were wanted get lost, or soon will: the ring is three quarters full of live ones. */
static bool is_crowded(const struct hot *hot)
{
	const struct rshm_writer *w = &hot->current->writer;

	return w->evictions + w->displaced > hot->evictions_at_growth || w->live_units > w->units / 4 * 3;
}

static void consider_growth(struct hot *hot)
{
	if (hot->allocation || hot->next || hot->closing)
		return;
	if (!hot->current) {
		if (clock_monotonic_ms() >= hot->retry_at_ms)
			begin_growth(hot, hot->environment->initial_bytes);
	} else if (is_crowded(hot) && clock_monotonic_ms() >= hot->retry_at_ms) {
		begin_growth(hot, hot->current->writer.units * RSHM_UNIT * 2);
	}
}

/* ---- public ------------------------------------------------------------------------------------------------- */

static int create_first(struct hot *hot)
{
	struct rshm_geometry geometry;
	struct body *body;
	int status;

	/* With little memory left, or an initial size that leaves no room for the index: a smaller one. */
	for (uint64_t bytes = hot->environment->initial_bytes;; bytes /= 2) {
		rshm_geometry_plan(bytes, hot->environment->entry_limit_bytes, &geometry);
		if (budget_take(hot->environment->budget, geometry.object_size))
			break;
		if (bytes <= FIRST_BYTES_MIN)
			return RSHM_E_NOMEM;
	}
	body = calloc(1, sizeof(*body));
	status = body ? body_create(hot, &geometry, body) : RSHM_E_NOMEM;
	if (status < 0) {
		budget_give(hot->environment->budget, geometry.object_size);
		free(body);
		return status;
	}
	equip_body(hot, body);
	publish_body(hot, body);
	hot->current = body;
	return RSHM_OK;
}

static void count_negatives(struct hot *hot)
{
	uint64_t cursor = 0;
	uint32_t steps = UINT32_MAX;
	struct rshm_item item;

	hot->negatives = 0;
	while (hot_walk(hot, &cursor, &steps, &item))
		hot->negatives += is_negative(&item);
}

int hot_open(const struct hot_environment *environment, const struct hot_settings *settings, uv_loop_t *loop,
	     const char *adopt_name, struct hot **ret)
{
	struct hot *hot = calloc(1, sizeof(*hot));
	int status = RSHM_OK;

	if (!hot)
		return RSHM_E_NOMEM;
	hot->environment = environment;
	hot->settings = *settings;
	hot->loop = loop;
	pthread_mutex_init(&hot->location_lock, NULL);
	uv_idle_init(loop, &hot->mover);
	hot->mover.data = hot;
	if (adopt_name)
		hot->current = body_adopt(hot, adopt_name);
	hot->adopted = hot->current != NULL;
	count_negatives(hot);
	if (!hot->current)
		status = create_first(hot);
	if (status < 0) {
		log_error("cache",
			  "tenant %s: no hot ring of %llu KiB: %s; every read goes through the agent until "
			  "there is room in /dev/shm",
			  settings->tenant, (unsigned long long)(environment->initial_bytes >> 10), strerror(errno));
		hot->retry_at_ms = clock_monotonic_ms() + RETRY_MS;
	}
	set_location(hot);
	*ret = hot;
	return status;
}

void hot_close(struct hot *hot, bool keep, void (*closed)(void *context), void *context)
{
	hot->closing = true;
	hot->closed = closed;
	hot->closed_context = context;
	uv_idle_stop(&hot->mover);
	body_destroy(hot, &hot->next, false);
	body_destroy(hot, &hot->current, keep);
	close_if_done(hot);
}

bool hot_locate(struct hot *hot, char ret_name[RSHM_NAME_MAX], uint64_t *ret_size)
{
	pthread_mutex_lock(&hot->location_lock);
	*ret_size = hot->location_size;
	memcpy(ret_name, hot->location, RSHM_NAME_MAX);
	pthread_mutex_unlock(&hot->location_lock);
	return *ret_size != 0;
}

bool hot_find(const struct hot *hot, const void *key, size_t key_len, struct rshm_item *ret)
{
	uint64_t position;

	return hot->current && rshm_writer_find(&hot->current->writer, key, key_len, ret, &position);
}

enum rshm_freshness hot_judge(const struct hot *hot, const struct rshm_item *item)
{
	return rshm_judge(hot->environment->sources, item->control_a, item->control_b, hot->settings.policy,
			  hot->settings.stale_limit_ms, clock_monotonic_ms());
}

/* Absences have a budget of their own, lest they push out what is there. Looked for only while there are some. */
static void forget_negative(struct hot *hot, const void *key, size_t key_len)
{
	struct rshm_item there;

	if (hot->negatives > 0 && hot_find(hot, key, key_len, &there) && is_negative(&there))
		hot->negatives--;
}

/* The budget is used up: looks a little further for some whose time is over. */
static void forget_expired_negatives(struct hot *hot)
{
	uint64_t now_ms = clock_monotonic_ms();
	uint32_t steps = NEGATIVE_STEPS;
	struct rshm_item item;

	while (hot_walk(hot, &hot->negatives_cursor, &steps, &item))
		if (is_negative(&item) && now_ms >= item.control_b)
			hot_remove(hot, item.key, item.key_len);
	if (hot->negatives_cursor >= hot->current->writer.head)
		hot->negatives_cursor = 0;
}

int hot_put(struct hot *hot, const struct rshm_item *item)
{
	int status;

	if (!hot->current) {
		consider_growth(hot);
		return RSHM_E_NOMEM;
	}
	forget_negative(hot, item->key, item->key_len);
	if (is_negative(item) && hot->negatives >= hot->settings.negatives_max)
		forget_expired_negatives(hot);
	if (is_negative(item) && hot->negatives >= hot->settings.negatives_max) {
		hot_remove(hot, item->key, item->key_len);
		return RSHM_E_FULL;
	}
	if (hot->reclaim_hook)
		hot->reclaim_hook(hot->reclaim_context);
	status = rshm_writer_put(&hot->current->writer, item);
	hot->negatives += status == RSHM_OK && is_negative(item);
	if (status < 0)
		rshm_writer_remove(&hot->current->writer, item->key, item->key_len);
	if (hot->next && rshm_writer_put(&hot->next->writer, item) < 0)
		rshm_writer_remove(&hot->next->writer, item->key, item->key_len);
	consider_growth(hot);
	return status;
}

bool hot_remove(struct hot *hot, const void *key, size_t key_len)
{
	forget_negative(hot, key, key_len);
	if (hot->next)
		rshm_writer_remove(&hot->next->writer, key, key_len);
	return hot->current && rshm_writer_remove(&hot->current->writer, key, key_len);
}

static bool patch_in(struct body *body, const void *key, size_t key_len, uint64_t version, uint64_t control_a,
		     uint64_t control_b)
{
	struct rshm_item item;
	uint64_t position;

	return body && rshm_writer_find(&body->writer, key, key_len, &item, &position) &&
	       rshm_writer_patch(&body->writer, position, version, control_a, control_b);
}

bool hot_patch(struct hot *hot, const void *key, size_t key_len, uint64_t version, uint64_t control_a,
	       uint64_t control_b)
{
	(void)patch_in(hot->next, key, key_len, version, control_a, control_b);
	return patch_in(hot->current, key, key_len, version, control_a, control_b);
}

void hot_touch(struct hot *hot, uint64_t position)
{
	if (hot->current)
		rshm_writer_touch(&hot->current->writer, position);
}

bool hot_item_at(const struct hot *hot, uint64_t position, struct rshm_item *ret)
{
	return hot->current && rshm_writer_at(&hot->current->writer, position, ret);
}

void hot_clear(struct hot *hot)
{
	hot->negatives = 0;
	if (hot->next)
		rshm_writer_clear(&hot->next->writer);
	if (hot->current)
		rshm_writer_clear(&hot->current->writer);
}

const uint32_t *hot_tag_words(const struct hot *hot)
{
	return hot->current ? tag_words(hot->current) : NULL;
}

static void bump(struct body *body, uint32_t slot)
{
	uint32_t *word;

	if (!body)
		return;
	word = &tag_words(body)[slot];
	/* Who is told of the invalidation finds the new word: the answer is a release of its own. */
	rshm_store_relaxed32(word, *word + 1);
}

void hot_bump_tag(struct hot *hot, uint32_t slot)
{
	must(slot < RSHM_TAG_WORDS);
	bump(hot->next, slot);
	bump(hot->current, slot);
}

bool hot_walk(const struct hot *hot, uint64_t *cursor, uint32_t *steps, struct rshm_item *ret)
{
	uint64_t position;

	return hot->current && rshm_writer_walk(&hot->current->writer, cursor, steps, ret, &position);
}

void hot_set_reclaim_hook(struct hot *hot, void (*hook)(void *context), void *context)
{
	hot->reclaim_hook = hook;
	hot->reclaim_context = context;
}

void hot_set_drop_hook(struct hot *hot, rshm_drop_fn *hook, void *context)
{
	hot->drop_hook = hook;
	hot->drop_context = context;
}

bool hot_is_short_of_memory(const struct hot *hot)
{
	const struct hot_budget *budget = hot->environment->budget;
	uint64_t used = __atomic_load_n(&budget->used, __ATOMIC_RELAXED);

	return hot->current && used + 2 * hot->current->map.size > budget->total &&
	       (!hot->settings.limit_bytes ||
		2 * hot->current->writer.units * RSHM_UNIT <= hot->settings.limit_bytes);
}

void hot_set_policy(struct hot *hot, enum hot_policy policy)
{
	hot->settings.eviction = policy;
	if (hot->current)
		policy_set_kind(hot->current->policy, policy);
	if (hot->next)
		policy_set_kind(hot->next->policy, policy);
}

void hot_figures(const struct hot *hot, struct hot_figures *ret)
{
	const struct rshm_writer *w = hot->current ? &hot->current->writer : NULL;

	*ret = (struct hot_figures){
		.negatives = hot->negatives,
		.entries = w ? w->live_entries : 0,
		.used_bytes = w ? rshm_writer_live_bytes(w) : 0,
		.ring_bytes = w ? w->units * RSHM_UNIT : 0,
		.limit_bytes =
			hot->settings.limit_bytes ? hot->settings.limit_bytes : hot->environment->budget->total,
		.evictions = hot->past_evictions + (w ? w->evictions + w->displaced : 0),
		.reinsertions = hot->past_reinsertions + (w ? w->reinsertions : 0),
		.growths = hot->growths,
		.eviction = hot->settings.eviction,
		.adopted = hot->adopted,
	};
}
