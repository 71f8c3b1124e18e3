#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "agent/base/metric.h"
#include "riptide/riptide.h"
#include "shm/order.h"
#include "tests/support/e2e.h"
#include "tests/support/redis_cluster.h"

/*
 * An agent on a real Redis Cluster of three masters and three replicas: slots that move, masters that die or hang, and the
 * cluster that is not there. One cluster serves all cases, each under a key prefix of its own; each leaves it whole.
 */

#define SHARDS 64
#define LOAD_KEYS 96

static struct redis_cluster cluster;
static unsigned case_number;

struct fixture {
	struct agent_process agent;
	riptide *handle;
	char url[300], prefix[64];
};

/* How hot copies are kept true: the mode, and for how long those are good that nobody tells about. */
static int setup_coherent(void **state, const char *mode, const char *age)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *settings[] = {"agent.backend=redis",
				  f->url,
				  f->prefix,
				  "redis.command_timeout_ms=1000",
				  "redis.connection_timeout_ms=500",
				  "redis.retry_max_delay_ms=200",
				  "redis.cluster_refresh_ms=2000",
				  mode,
				  age,
				  NULL};

	*state = f;
	snprintf(f->url, sizeof(f->url), "redis.url=%s", cluster.url);
	snprintf(f->prefix, sizeof(f->prefix), "cache.key_prefix=case%u", ++case_number);
	if (redis_cluster_await_whole(&cluster, 20000) < 0 || agent_process_start(&f->agent, settings) < 0)
		return -1;
	if (e2e_await(&f->agent, "backend.ready", 1, 5000) != 1)
		return -1;
	return e2e_open(&f->agent, NULL, 3000, &f->handle) == RIPTIDE_OK ? 0 : -1;
}

/* Reads go to the cluster, not to hot copies. */
static int setup(void **state)
{
	return setup_coherent(state, "coherence.mode=ttl", "coherence.max_age_ms=1");
}

static int setup_tracking(void **state)
{
	return setup_coherent(state, "coherence.mode=auto", "coherence.max_age_ms=60000");
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	riptide_close(&f->handle);
	status = agent_process_stop_and_clean(&f->agent);
	free(f);
	return status;
}

/* ---- the cluster's side ---------------------------------------------------------------------------------------- */

static uint32_t slot_of_shard(int shard)
{
	return (uint32_t)redis_cluster_ask(&cluster, 0, "CLUSTER KEYSLOT {default.%d}", shard);
}

/* Keys of a case in a server; its own, so the others' do not count. */
static long long keys_of_case(const struct fixture *f, int server)
{
	return redis_cluster_ask(&cluster, server,
				 "EVAL return(#redis.call('KEYS',ARGV[1]..':v1:{default.*:c*')) 0 %s",
				 strchr(f->prefix, '=') + 1);
}

/* What was moved and asked is counted in metrics: first in a case that looks at it. */
static void needs_metrics(void)
{
	if (!RIPTIDE_METRICS)
		skip();
}

/* A number of the backend's detail, such as "moved" in "5 moved". */
static long detail_number(const struct fixture *f, const char *what)
{
	char detail[256];
	const char *at;

	e2e_text(&f->agent, "backend.detail", detail, sizeof(detail));
	at = strstr(detail, what);
	if (at == NULL)
		return -1;
	for (at -= 1; at > detail && at[-1] >= '0' && at[-1] <= '9'; at--)
		;
	return strtol(at, NULL, 10);
}

/* The status is gathered now and then. */
static bool await_detail(const struct fixture *f, const char *what, long least)
{
	for (int i = 0; i < 60; i++) {
		if (detail_number(f, what) >= least)
			return true;
		e2e_pause_ms(50);
	}
	return false;
}

static int first_other_master(int master)
{
	for (uint32_t slot = 0; slot < REDIS_CLUSTER_SLOTS; slot += 64) {
		int owner = redis_cluster_owner(&cluster, slot);

		if (owner >= 0 && owner != master)
			return owner;
	}
	return -1;
}

/* ---- entries --------------------------------------------------------------------------------------------------- */

struct batch {
	struct riptide_item items[600];
	char keys[600][500];
};

/* Each tenth key is too long to stand plain. */
static struct batch *batch_create(const char *begin)
{
	struct batch *batch = calloc(1, sizeof(*batch));

	assert_non_null(batch);
	for (int i = 0; i < 600; i++) {
		int length = snprintf(batch->keys[i], sizeof(batch->keys[i]), "%s%d-", begin, i);

		if (i % 10 == 0) {
			memset(batch->keys[i] + length, 'x', 450);
			length += 450;
		}
		batch->items[i] = (struct riptide_item){.key = batch->keys[i],
							.key_length = (size_t)length,
							.value = batch->keys[i],
							.value_length = (size_t)length};
	}
	return batch;
}

static void batch_check(struct batch *batch, riptide *handle, int status)
{
	assert_int_equal(riptide_get_batch(handle, batch->items, 600), RIPTIDE_OK);
	for (int i = 0; i < 600; i++) {
		const struct riptide_item *item = &batch->items[i];

		if (item->status != status)
			fail_msg("%.40s: %d", batch->keys[i], item->status);
		if (status == RIPTIDE_OK) {
			assert_int_equal(item->result.length, item->key_length);
			assert_memory_equal(item->result.data, item->key, item->key_length);
		}
	}
	riptide_batch_free(batch->items, 600);
}

static void batches_lie_on_all_masters(void **state)
{
	struct fixture *f = *state;
	struct batch *batch = batch_create("b");
	long long all = 0;

	assert_int_equal(riptide_set_batch(f->handle, batch->items, 600), RIPTIDE_OK);
	for (int i = 0; i < 600; i++)
		assert_int_equal(batch->items[i].status, RIPTIDE_OK);
	for (int server = 0; server < 3; server++) {
		long long keys = keys_of_case(f, server);

		assert_true(keys > 60);
		all += keys;
	}
	assert_int_equal(all, 600);
	batch_check(batch, f->handle, RIPTIDE_OK);
	assert_int_equal(riptide_delete_batch(f->handle, batch->items, 600), RIPTIDE_OK);
	for (int i = 0; i < 600; i++)
		assert_int_equal(batch->items[i].status, RIPTIDE_OK);
	batch_check(batch, f->handle, RIPTIDE_MISS);
	for (int server = 0; server < 3; server++)
		assert_int_equal(keys_of_case(f, server), 0);
	free(batch);
}

static void the_entry_calls_work_on_every_shard(void **state)
{
	struct fixture *f = *state;
	struct riptide_set_options absent = {.size = sizeof(absent), .condition = RIPTIDE_IF_ABSENT};
	char key[32];

	for (int i = 0; i < 2 * SHARDS; i++) {
		uint64_t version = 0, ttl = 0;
		int64_t number = 0;
		size_t length = (size_t)snprintf(key, sizeof(key), "entry-%d", i);

		assert_int_equal(riptide_set(f->handle, key, length, "1", 1, &absent, &version), RIPTIDE_OK);
		assert_int_equal(riptide_set(f->handle, key, length, "2", 1, &absent, NULL), RIPTIDE_CONFLICT);
		assert_int_equal(riptide_cas(f->handle, key, length, version, "41", 2, NULL, &version), RIPTIDE_OK);
		assert_int_equal(riptide_cas(f->handle, key, length, 1, "7", 1, NULL, NULL), RIPTIDE_CONFLICT);
		assert_int_equal(riptide_incr(f->handle, key, length, 1, NULL, &number), RIPTIDE_OK);
		assert_int_equal(number, 42);
		assert_int_equal(riptide_touch(f->handle, key, length, 5000), RIPTIDE_OK);
		assert_int_equal(riptide_ttl(f->handle, key, length, &ttl), RIPTIDE_OK);
		assert_true(ttl > 3000 && ttl <= 5000);
		assert_int_equal(riptide_exists(f->handle, key, length, NULL), RIPTIDE_OK);
		assert_int_equal(e2e_check(f->handle, key, "42", NULL), RIPTIDE_OK);
		if (i % 2 == 0) {
			assert_int_equal(riptide_delete(f->handle, key, length), RIPTIDE_OK);
			assert_int_equal(riptide_delete(f->handle, key, length), RIPTIDE_MISS);
		}
	}
	assert_int_equal(e2e_number(&f->agent, "backend.failed"), RIPTIDE_METRICS ? 0 : -1);
}

static void a_large_value_goes_through(void **state)
{
	struct fixture *f = *state;
	size_t length = 20u << 20;
	char *bytes = malloc(length);
	struct riptide_value value;

	assert_non_null(bytes);
	memset(bytes, 'L', length);
	bytes[length - 1] = '!';
	assert_int_equal(riptide_set(f->handle, "large", 5, bytes, length, NULL, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_get(f->handle, "large", 5, &value), RIPTIDE_OK);
	assert_int_equal(value.length, length);
	assert_memory_equal(value.data, bytes, length);
	riptide_value_free(&value);
	free(bytes);
}

static void prefixes_tags_and_clear_reach_all_masters(void **state)
{
	static const char *const red[] = {"red"};
	struct fixture *f = *state;
	struct riptide_metadata metadata = {.tags = red, .tag_count = 1};
	struct riptide_set_options tagged = {.size = sizeof(tagged), .metadata = &metadata};
	struct batch *goes = batch_create("goes:"), *stays = batch_create("stays:");
	uint64_t removed = 0;

	for (int i = 0; i < 600; i++)
		goes->items[i].options = i % 2 ? &tagged : NULL;
	assert_int_equal(riptide_set_batch(f->handle, goes->items, 600), RIPTIDE_OK);
	assert_int_equal(riptide_set_batch(f->handle, stays->items, 600), RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_tag(f->handle, "red"), RIPTIDE_OK);
	for (int i = 0; i < 600; i++) {
		struct riptide_value value;
		int status = riptide_get(f->handle, goes->keys[i], goes->items[i].key_length, &value);

		assert_int_equal(status, i % 2 ? RIPTIDE_MISS : RIPTIDE_OK);
		if (status == RIPTIDE_OK)
			riptide_value_free(&value);
	}
	assert_int_equal(riptide_invalidate_prefix(f->handle, "goes:", 5, &removed), RIPTIDE_OK);
	assert_true(removed >= 300 && removed <= 600);
	batch_check(goes, f->handle, RIPTIDE_MISS);
	batch_check(stays, f->handle, RIPTIDE_OK);
	assert_int_equal(riptide_clear(f->handle), RIPTIDE_OK);
	batch_check(stays, f->handle, RIPTIDE_MISS);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.unswept_generations", 0, 15000));
	for (int server = 0; server < 3; server++) {
		for (int i = 0; i < 100 && keys_of_case(f, server) > 0; i++)
			e2e_pause_ms(50);
		assert_int_equal(keys_of_case(f, server), 0);
	}
	free(goes);
	free(stays);
}

static void the_status_tells_of_nodes_and_slots(void **state)
{
	struct fixture *f = *state;
	char detail[256];

	e2e_text(&f->agent, "backend.detail", detail, sizeof(detail));
	assert_non_null(strstr(detail, "3 nodes, 16384 of 16384 slots"));
	assert_non_null(strstr(detail, "redis+cluster://127.0.0.1:"));
	assert_true(e2e_number(&f->agent, "backend.connections") >= 3);
}

/* ---- load ------------------------------------------------------------------------------------------------------ */

/* A process that sets and reads keys, and knows what may be read. */
struct load {
	struct counts {
		uint64_t sets, refused, unknown, gets, unavailable;
		uint64_t wrong; /* a value that was never written to this key */
		uint64_t older; /* than one that was acknowledged */
		uint64_t bad;   /* errors that may be neither retried nor are unknown */
		int64_t last;
		uint32_t end;
	} * counts; /* shared */
	struct fixture *f;
	pid_t pid;
};

static void load_read(struct load *load, riptide *handle, unsigned key, unsigned acknowledged, unsigned tried)
{
	struct counts *c = load->counts;
	struct riptide_value value;
	char name[16];
	unsigned read_key, number;
	int status = riptide_get(handle, name, (size_t)snprintf(name, sizeof(name), "load-%u", key), &value);

	c->gets++;
	if (status == RIPTIDE_OK) {
		if (sscanf(value.data, "%u:%u", &read_key, &number) != 2 || read_key != key || number > tried)
			c->wrong++;
		else if (number < acknowledged)
			c->older++;
		riptide_value_free(&value);
	} else if (status == RIPTIDE_MISS) {
		c->older += acknowledged > 0;
	} else if (riptide_error_is_retryable(status)) {
		c->unavailable++;
	} else {
		c->bad++;
		c->last = status;
	}
}

static int load_main(void *context)
{
	struct load *load = context;
	struct counts *c = load->counts;
	unsigned acknowledged[LOAD_KEYS] = {0}, tried[LOAD_KEYS] = {0};
	riptide *handle = NULL;

	if (e2e_open(&load->f->agent, NULL, 2000, &handle) != RIPTIDE_OK)
		return 1;
	for (uint64_t i = 0; !rshm_load_relaxed32(&c->end); i++) {
		unsigned key = (unsigned)(i % LOAD_KEYS);
		char name[16], value[32];
		int status;

		snprintf(name, sizeof(name), "load-%u", key);
		snprintf(value, sizeof(value), "%u:%u", key, ++tried[key]);
		status = e2e_put(handle, name, value);
		c->sets++;
		c->unknown += status == RIPTIDE_EUNKNOWN;
		if (status == RIPTIDE_OK) {
			acknowledged[key] = tried[key];
		} else if (status != RIPTIDE_EUNKNOWN && riptide_error_is_retryable(status)) {
			c->refused++;
		} else if (status != RIPTIDE_EUNKNOWN) {
			c->bad++;
			c->last = status;
		}
		load_read(load, handle, key, acknowledged[key], tried[key]);
		key = (unsigned)((i * 7) % LOAD_KEYS);
		load_read(load, handle, key, acknowledged[key], tried[key]);
	}
	riptide_close(&handle);
	return 0;
}

static void load_start(struct load *load, struct fixture *f)
{
	load->f = f;
	load->counts = mmap(NULL, sizeof(*load->counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(load->counts, MAP_FAILED);
	load->pid = e2e_fork(load_main, load);
	assert_true(load->pid > 0);
}

static struct counts load_end(struct load *load)
{
	struct counts counts;

	rshm_store_relaxed32(&load->counts->end, 1);
	assert_int_equal(e2e_join(load->pid, 20000), 0);
	counts = *load->counts;
	munmap(load->counts, sizeof(*load->counts));
	print_message("%llu sets (%llu refused, %llu unknown), %llu gets (%llu unavailable), %llu wrong, %llu older, "
		      "%llu bad (last %lld)\n",
		      (unsigned long long)counts.sets, (unsigned long long)counts.refused,
		      (unsigned long long)counts.unknown, (unsigned long long)counts.gets,
		      (unsigned long long)counts.unavailable, (unsigned long long)counts.wrong,
		      (unsigned long long)counts.older, (unsigned long long)counts.bad, (long long)counts.last);
	assert_int_equal(counts.wrong, 0);
	assert_int_equal(counts.bad, 0);
	return counts;
}

/* ---- slots that move ------------------------------------------------------------------------------------------- */

static void move_whole(uint32_t slot, int from, int to)
{
	int moved;

	assert_int_equal(redis_cluster_begin_move(&cluster, slot, from, to), 0);
	while ((moved = redis_cluster_move_keys(&cluster, slot, from, to, 20)) > 0)
		;
	assert_int_equal(moved, 0);
	assert_int_equal(redis_cluster_end_move(&cluster, slot, from, to), 0);
}

/* With pauses, so that requests meet the slot on its way. */
static void slots_that_move_under_load_are_followed(void **state)
{
	needs_metrics();
	struct fixture *f = *state;
	struct load load;
	struct counts counts;

	load_start(&load, f);
	e2e_pause_ms(300);
	for (int shard = 0; shard < 12; shard++) {
		uint32_t slot = slot_of_shard(shard);
		int from = redis_cluster_owner(&cluster, slot), to = first_other_master(from);

		assert_true(from >= 0 && to >= 0);
		if (shard % 2 == 0) {
			move_whole(slot, from, to);
			continue;
		}
		assert_int_equal(redis_cluster_begin_move(&cluster, slot, from, to), 0);
		e2e_pause_ms(60);
		assert_true(redis_cluster_move_keys(&cluster, slot, from, to, 1) >= 0);
		e2e_pause_ms(60);
		while (redis_cluster_move_keys(&cluster, slot, from, to, 20) > 0)
			;
		e2e_pause_ms(60);
		assert_int_equal(redis_cluster_end_move(&cluster, slot, from, to), 0);
	}
	e2e_pause_ms(300);
	counts = load_end(&load);
	/* Nothing fails, for nothing is lost: a command is only sent on. */
	assert_int_equal(counts.refused + counts.unknown + counts.unavailable + counts.older, 0);
	assert_true(counts.sets > 500);
	assert_true(await_detail(f, " moved", 1));
	assert_true(await_detail(f, " asked", 1));
}

static void a_slot_that_is_half_moved_is_whole_to_clients(void **state)
{
	needs_metrics();
	struct fixture *f = *state;
	struct batch *batch = batch_create("half:"), *more = batch_create("more:");
	uint64_t removed = 0;
	int shards = 8, from[8], to[8];
	uint32_t slots[8];

	assert_int_equal(riptide_set_batch(f->handle, batch->items, 600), RIPTIDE_OK);
	for (int i = 0; i < shards; i++) {
		slots[i] = slot_of_shard(20 + i);
		from[i] = redis_cluster_owner(&cluster, slots[i]);
		to[i] = first_other_master(from[i]);
		assert_int_equal(redis_cluster_begin_move(&cluster, slots[i], from[i], to[i]), 0);
		assert_true(redis_cluster_move_keys(&cluster, slots[i], from[i], to[i], 5) >= 3);
	}
	/* Those that have gone, those that have not, new ones, changed and counted ones. */
	batch_check(batch, f->handle, RIPTIDE_OK);
	assert_int_equal(riptide_set_batch(f->handle, more->items, 600), RIPTIDE_OK);
	batch_check(more, f->handle, RIPTIDE_OK);
	for (int i = 0; i < 600; i++) {
		struct riptide_set_options present = {.size = sizeof(present), .condition = RIPTIDE_IF_PRESENT};

		assert_int_equal(riptide_set(f->handle, batch->keys[i], batch->items[i].key_length, batch->keys[i],
					     batch->items[i].key_length, &present, NULL),
				 RIPTIDE_OK);
	}
	batch_check(batch, f->handle, RIPTIDE_OK);
	assert_true(await_detail(f, " asked", 50));
	/* A walk over all keys finds every one, wherever it is at the moment. */
	assert_int_equal(riptide_invalidate_prefix(f->handle, "half:", 5, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 600);
	batch_check(batch, f->handle, RIPTIDE_MISS);
	batch_check(more, f->handle, RIPTIDE_OK);
	for (int i = 0; i < shards; i++) {
		while (redis_cluster_move_keys(&cluster, slots[i], from[i], to[i], 50) > 0)
			;
		assert_int_equal(redis_cluster_end_move(&cluster, slots[i], from[i], to[i]), 0);
	}
	batch_check(more, f->handle, RIPTIDE_OK);
	assert_int_equal(riptide_invalidate_prefix(f->handle, "more:", 5, &removed), RIPTIDE_OK);
	assert_int_equal(removed, 600);
	assert_int_equal(e2e_number(&f->agent, "backend.failed"), RIPTIDE_METRICS ? 0 : -1);
	free(batch);
	free(more);
}

/* ---- masters that fail ----------------------------------------------------------------------------------------- */

static bool await_served(struct fixture *f, long patience_ms)
{
	uint64_t end = e2e_now_ms() + (uint64_t)patience_ms;
	char key[32];

	for (int i = 0; i < 2 * SHARDS; i++) {
		snprintf(key, sizeof(key), "served-%d", i);
		while (e2e_put(f->handle, key, "yes") != RIPTIDE_OK) {
			if (e2e_now_ms() > end)
				return false;
			e2e_pause_ms(20);
		}
	}
	return true;
}

static void a_killed_master_is_replaced_under_load(void **state)
{
	struct fixture *f = *state;
	uint32_t slot = slot_of_shard(3);
	int master = redis_cluster_owner(&cluster, slot);
	struct load load;
	struct counts counts;
	uint64_t began;

	assert_true(master >= 0);
	load_start(&load, f);
	e2e_pause_ms(500);
	began = e2e_now_ms();
	redis_server_kill(&cluster.servers[master]);
	assert_true(await_served(f, 20000));
	print_message("served again after %llu ms\n", (unsigned long long)(e2e_now_ms() - began));
	e2e_pause_ms(500);
	counts = load_end(&load);
	assert_true(counts.refused + counts.unknown > 0);
	assert_int_not_equal(redis_cluster_owner(&cluster, slot), master);
	assert_int_equal(e2e_await(&f->agent, "backend.ready", 1, 10000), 1);
	/* The agent begins anew though one of the hosts in its URL may be gone. */
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_true(await_served(f, 10000));
	assert_int_equal(redis_server_restart(&cluster.servers[master]), 0);
	assert_int_equal(redis_cluster_await_whole(&cluster, 20000), 0);
}

static void a_hanging_master_is_replaced_under_load(void **state)
{
	struct fixture *f = *state;
	uint32_t slot = slot_of_shard(3);
	int master = redis_cluster_owner(&cluster, slot);
	struct load load;
	uint64_t began;

	assert_true(master >= 0);
	load_start(&load, f);
	e2e_pause_ms(500);
	began = e2e_now_ms();
	redis_server_pause(&cluster.servers[master]);
	assert_true(await_served(f, 25000));
	print_message("served again after %llu ms\n", (unsigned long long)(e2e_now_ms() - began));
	redis_server_resume(&cluster.servers[master]);
	e2e_pause_ms(1500);
	(void)load_end(&load);
	assert_int_equal(redis_cluster_await_whole(&cluster, 20000), 0);
	assert_true(await_served(f, 5000));
}

/* Without a master of some slots no server takes anything, as the default of cluster-require-full-coverage has it. */
static void a_cluster_that_is_down_is_waited_for(void **state)
{
	struct fixture *f = *state;
	int master = redis_cluster_owner(&cluster, slot_of_shard(3));
	int replica = redis_cluster_replica_of(&cluster, master);
	uint64_t began;
	int status = RIPTIDE_OK;
	char key[32];

	assert_true(master >= 0 && replica >= 0);
	redis_server_kill(&cluster.servers[replica]);
	redis_server_kill(&cluster.servers[master]);
	began = e2e_now_ms();
	for (int i = 0; i < 3 * SHARDS && e2e_now_ms() - began < 20000; i++) {
		uint64_t tried = e2e_now_ms();

		snprintf(key, sizeof(key), "down-%d", i);
		status = e2e_put(f->handle, key, "x");
		assert_true(status == RIPTIDE_OK || status == RIPTIDE_EUNKNOWN || riptide_error_is_retryable(status));
		assert_true(e2e_now_ms() - tried < 4000);
	}
	/* By now all have noticed. */
	e2e_pause_ms(3000);
	for (int i = 0; i < 10; i++) {
		snprintf(key, sizeof(key), "down-%d", i);
		status = e2e_put(f->handle, key, "x");
		assert_true(status < 0 && riptide_error_is_retryable(status));
	}
	assert_int_equal(e2e_number(&f->agent, "backend.ready"), 0);
	assert_int_equal(redis_server_restart(&cluster.servers[master]), 0);
	assert_int_equal(redis_server_restart(&cluster.servers[replica]), 0);
	assert_true(await_served(f, 20000));
	assert_int_equal(redis_cluster_await_whole(&cluster, 20000), 0);
}

static void an_absent_cluster_is_told_and_waited_for(void **state)
{
	struct fixture *f = *state;
	char detail[256];
	int status;

	assert_int_equal(e2e_put(f->handle, "early", "bird"), RIPTIDE_OK);
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS; i++)
		redis_server_kill(&cluster.servers[i]);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_number(&f->agent, "backend.ready"), 0);
	e2e_text(&f->agent, "backend.detail", detail, sizeof(detail));
	assert_non_null(strstr(detail, "not ready"));
	e2e_pause_ms(500);
	status = e2e_put(f->handle, "early", "bird");
	assert_true(status < 0 && riptide_error_is_retryable(status));
	assert_int_equal(riptide_ping(f->handle, NULL), RIPTIDE_OK);
	for (uint32_t i = 0; i < REDIS_CLUSTER_SERVERS; i++)
		assert_int_equal(redis_server_restart(&cluster.servers[i]), 0);
	assert_true(await_served(f, 20000));
	assert_int_equal(e2e_await(&f->agent, "backend.ready", 1, 10000), 1);
	assert_int_equal(e2e_put(f->handle, "early", "bird"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "early", "bird", NULL), RIPTIDE_OK);
}

/* ---- changes by others ----------------------------------------------------------------------------------------- */

/* Removes entries of every shard behind the agent's back, and expects that hot copies go within `patience_ms`. */
static void remove_behind_its_back(const struct fixture *f, long patience_ms)
{
	static const char remove[] = "local keys=redis.call('KEYS',ARGV[1]..':v1:{default.*:c:foreign-*') "
				     "for _,k in ipairs(keys) do redis.call('DEL',k) end return #keys";
	char key[32];

	for (int i = 0; i < 2 * SHARDS; i++) {
		snprintf(key, sizeof(key), "foreign-%d", i);
		assert_int_equal(e2e_put(f->handle, key, "mine"), RIPTIDE_OK);
		assert_int_equal(e2e_check(f->handle, key, "mine", NULL), RIPTIDE_OK);
	}
	for (int server = 0; server < (int)REDIS_CLUSTER_SERVERS; server++) {
		if (cluster.servers[server].pid > 0)
			(void)redis_cluster_ask(&cluster, server, "EVAL %s 0 %s", remove, strchr(f->prefix, '=') + 1);
	}
	for (int i = 0; i < 2 * SHARDS; i++) {
		snprintf(key, sizeof(key), "foreign-%d", i);
		assert_int_equal(e2e_await_check(f->handle, key, "mine", RIPTIDE_MISS, patience_ms), RIPTIDE_MISS);
	}
}

static void changes_by_others_are_told_by_every_node(void **state)
{
	struct fixture *f = *state;
	uint32_t slot = slot_of_shard(40);
	int from, to;
	char mode[16];

	e2e_pause_ms(1500);
	e2e_text(&f->agent, "coherence.mode", mode, sizeof(mode));
	assert_string_equal(mode, "tracking");
	remove_behind_its_back(f, 300);
	from = redis_cluster_owner(&cluster, slot);
	to = first_other_master(from);
	move_whole(slot, from, to);
	remove_behind_its_back(f, 300);
	redis_server_kill(&cluster.servers[to]);
	assert_true(await_served(f, 20000));
	e2e_pause_ms(3000);
	remove_behind_its_back(f, 300);
	assert_int_equal(redis_server_restart(&cluster.servers[to]), 0);
	assert_int_equal(redis_cluster_await_whole(&cluster, 20000), 0);
}

/* ---------------------------------------------------------------------------------------------------------------- */

static int start_cluster(void **state)
{
	(void)state;
	return redis_cluster_start(&cluster, NULL);
}

static int stop_cluster(void **state)
{
	(void)state;
	redis_cluster_stop(&cluster);
	return 0;
}

static void skip_without_servers(void **state)
{
	(void)state;
	print_message("redis-server or redis-cli is not installed: nothing is tested here\n");
	skip();
}

int main(void)
{

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(the_status_tells_of_nodes_and_slots),
		CASE(batches_lie_on_all_masters),
		CASE(the_entry_calls_work_on_every_shard),
		CASE(a_large_value_goes_through),
		CASE(prefixes_tags_and_clear_reach_all_masters),
		CASE(a_slot_that_is_half_moved_is_whole_to_clients),
		CASE(slots_that_move_under_load_are_followed),
		cmocka_unit_test_setup_teardown(changes_by_others_are_told_by_every_node, setup_tracking, teardown),
		CASE(a_killed_master_is_replaced_under_load),
		CASE(a_hanging_master_is_replaced_under_load),
		CASE(a_cluster_that_is_down_is_waited_for),
		CASE(an_absent_cluster_is_told_and_waited_for),
	};
#undef CASE
	const struct CMUnitTest none[] = {cmocka_unit_test(skip_without_servers)};

	if (!redis_cluster_is_installed())
		return cmocka_run_group_tests(none, NULL, NULL);
	return cmocka_run_group_tests(tests, start_cluster, stop_cluster);
}
