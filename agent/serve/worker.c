/*
 * worker.c - a thread, its loop, and whose turn it is.
 *
 *   check / idle:  serve the awake channels, tenant by tenant (deficit round robin), then the uv events
 *   prepare:       a channel quiet for spin_us is let go: armed := 1, fence, one more look, asleep
 *
 * While a channel is awake the loop polls without sleeping and no client needs to ring. With all asleep it sleeps in the
 * kernel until a bell, a reply of the store, or a timer. The order arm, fence, look is what loses no request (channel.c).
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/cache/tags.h"
#include "agent/serve/rings.h"
#include "agent/serve/serve_priv.h"
#include "agent/store/spill/spill.h"

#define MAILBOX_LIMIT 65536u
#define FIGURES_MS 250u
#define TENANT_QUANTUM (256 << 10)
#define POLL_NS 5000u /* of inner polling per turn of the loop */
#define TICK_MS 50u   /* loads, generations */
#define LOAD_TIMEOUT_MAX_MS 600000u

/* ---- turns -------------------------------------------------------------------------------------------------- */

/* One tenant's clients, each within its share, until its deficit is used up. Returns whether anything was done. */
static bool serve_tenant_turn(struct worker *worker, struct serve_tenant *tenant)
{
	const struct serve_options *options = &worker->env->options;
	struct client *last;
	bool busy = false;

	if (!tenant->clients)
		return false;
	tenant->deficit += TENANT_QUANTUM;
	last = tenant->clients->prev;
	for (;;) {
		struct client *client = tenant->clients;
		bool was_last = client == last;

		if (client->awake) {
			uint32_t cost = request_serve(client, options->requests_per_turn, options->bytes_per_turn);

			tenant->deficit -= cost;
			busy |= cost > 0;
		}
		/* A dropped client has left the ring, and another one is first. */
		if (tenant->clients == client)
			tenant->clients = client->next;
		/* It may have been dropped by what another client's request set off; its memory goes in a later turn. */
		if (was_last || last->dropped || !tenant->clients || tenant->deficit < 0)
			break;
	}
	if (tenant->deficit > 0)
		tenant->deficit = 0;
	return busy;
}

static bool serve_all(struct worker *worker)
{
	size_t count = worker->awake_tenants; /* more may come during the turn, none goes */
	bool busy = false;

	for (size_t i = 0; i < count; i++)
		busy |= serve_tenant_turn(worker, worker->awake[(worker->next_tenant + i) % count]);
	worker->next_tenant++;
	return busy;
}

static void serve_on_turn(struct worker *worker)
{
	uint64_t until;

	if (worker->awake_count == 0 || worker->stopping)
		return;
	until = clock_monotonic_ns() + POLL_NS;
	while (serve_all(worker) || (worker->awake_count > 0 && clock_monotonic_ns() < until))
		if (clock_monotonic_ns() >= until)
			break;
}

static void check_on_turn(uv_check_t *check)
{
	serve_on_turn(check->data);
}

static void idle_on_turn(uv_idle_t *idle)
{
	(void)idle; /* its being active keeps the loop from sleeping; check_on_turn() does the work */
}

/* Lets a client sleep if it has been quiet; true if it stays awake. */
static bool stays_awake(struct client *client, uint64_t now_ns)
{
	uint64_t spin_ns = client->worker->env->options.spin_us * 1000ull;

	if (client->pending || now_ns - client->active_ns < spin_ns)
		return true;
	if (rshm_channel_arm(client->channel)) {
		rshm_channel_disarm(client->channel);
		client->active_ns = now_ns;
		return true;
	}
	client->awake = false;
	client->worker->awake_count--;
	client->tenant->awake_clients--;
	return false;
}

static void let_sleep(struct serve_tenant *tenant, uint64_t now_ns)
{
	struct client *client = tenant->clients;

	for (bool first = true; client && (first || client != tenant->clients); client = client->next, first = false)
		if (client->awake)
			(void)stays_awake(client, now_ns);
}

static void prepare_on_turn(uv_prepare_t *prepare)
{
	struct worker *worker = prepare->data;
	uint64_t now_ns = clock_monotonic_ns();
	size_t kept = 0;

	for (size_t i = 0; i < worker->awake_tenants && !worker->stopping; i++) {
		struct serve_tenant *tenant = worker->awake[i];

		let_sleep(tenant, now_ns);
		tenant->listed_awake = tenant->awake_clients > 0;
		if (tenant->listed_awake)
			worker->awake[kept++] = tenant;
	}
	if (!worker->stopping)
		worker->awake_tenants = kept;
	if (worker->awake_count > 0 && !worker->stopping)
		uv_idle_start(&worker->idle, idle_on_turn);
	else
		uv_idle_stop(&worker->idle);
}

static void count_rates(struct serve_tenant *tenant)
{
	uint64_t operations =
		tenant->counts.hits + tenant->counts.misses + tenant->counts.sets + tenant->counts.deletes;
	uint32_t next = (tenant->rate_slot + 1) % 11;

	/* The running slot holds the total at its begin until its second is over. */
	tenant->rate_operations[tenant->rate_slot] = operations - tenant->rate_operations[tenant->rate_slot];
	tenant->rate_operations[next] = operations;
	tenant->rate_slot = next;
}

/* What a client gave up between two pieces is freed; a hostile one cannot keep it by a deadline far away. */
static void sweep_slots(struct client *client, uint64_t now_ms)
{
	for (unsigned int i = 0; i < RSHM_SLOTS; i++) {
		struct slot *slot = &client->slots[i];
		bool waits = slot->phase == SLOT_RECEIVING || slot->phase == SLOT_ANSWERING;

		if (waits && now_ms - slot->piece_ms > client->worker->env->options.piece_timeout_ms)
			slot_clear(slot);
	}
}

static void sweep_clients(struct serve_tenant *tenant)
{
	uint64_t now_ms = clock_monotonic_ms(), wall_ms = clock_realtime_ms();
	struct client *client = tenant->clients, *next, *last = client ? client->prev : NULL;

	for (bool more = client != NULL; more; client = next) {
		more = client != last;
		next = client->next;
		sweep_slots(client, now_ms);
		if (client->until_ms && wall_ms >= client->until_ms)
			client_drop(client, NULL);
	}
}

static void figures_on_timer(uv_timer_t *timer)
{
	struct worker *worker = timer->data;
	static const uint32_t ticks_per_second = 1000u / FIGURES_MS;
	uint32_t tick = worker->figures_tick++;

	for (size_t i = 0; i < worker->tenant_count; i++) {
		figures_drain_tenant(worker->tenants[i]);
		if (tick % ticks_per_second != 0)
			continue;
		count_rates(worker->tenants[i]);
		sweep_clients(worker->tenants[i]);
	}
	figures_publish(worker);
}

static void tick_on_timer(uv_timer_t *timer)
{
	struct worker *worker = timer->data;
	uint64_t now_ms = clock_monotonic_ms();

	watching_tick(worker, now_ms);
	loading_tick(worker->loading, now_ms);
	for (size_t i = 0; i < worker->tenant_count; i++) {
		if (worker->tenants[i]->end.done)
			continue;
		space_tick(&worker->tenants[i]->space, now_ms);
		dictionaries_tick(worker->tenants[i], now_ms);
		budget_tick(worker->tenants[i], now_ms);
		sealing_tick(worker->tenants[i], now_ms);
		warming_tick(worker->tenants[i], now_ms);
	}
	if (!worker->stopping)
		tenants_tick(worker);
}

/* ---- end ---------------------------------------------------------------------------------------------------- */

static void mailbox_on_closed(void *context)
{
	struct worker *worker = context;

	uv_close((uv_handle_t *)&worker->prepare, NULL);
	uv_close((uv_handle_t *)&worker->check, NULL);
	uv_close((uv_handle_t *)&worker->idle, NULL);
	uv_close((uv_handle_t *)&worker->timer, NULL);
	uv_close((uv_handle_t *)&worker->tick, NULL);
	uv_close((uv_handle_t *)&worker->drain_timer, NULL);
}

static void hot_on_closed(void *context)
{
	struct worker *worker = context;

	if (--worker->tenants_open == 0)
		mailbox_close(&worker->mailbox, mailbox_on_closed, worker);
}

static void spill_on_closed(void *context)
{
	struct worker *worker = context;

	worker->spill = NULL;
	for (size_t i = 0; i < worker->tenant_count; i++)
		warming_save(worker->tenants[i]);
	for (size_t i = 0; i < worker->tenant_count; i++)
		hot_close(worker->tenants[i]->hot, worker->keep, hot_on_closed, worker);
	if (worker->tenant_count == 0)
		mailbox_close(&worker->mailbox, mailbox_on_closed, worker);
}

static void store_on_closed(void *context)
{
	struct worker *worker = context;

	worker->store = NULL;
	for (size_t i = 0; i < worker->tenant_count; i++)
		spilling_destroy(worker->tenants[i]);
	if (worker->spill)
		spill_close(worker->spill, spill_on_closed, worker);
	else
		spill_on_closed(worker);
}

static void revalidation_on_closed(void *context)
{
	struct worker *worker = context;

	if (--worker->revalidations_open == 0)
		store_close(worker->store, store_on_closed, worker);
}

static void close_all(struct worker *worker)
{
	if (worker->closing)
		return;
	worker->closing = true;
	uv_timer_stop(&worker->drain_timer);
	uv_timer_stop(&worker->timer);
	uv_timer_stop(&worker->tick);
	figures_publish(worker);
	for (size_t i = 0; i < worker->tenant_count; i++) {
		while (worker->tenants[i]->clients)
			client_drop(worker->tenants[i]->clients, NULL);
		budget_stop(worker->tenants[i], false);
	}
	for (size_t i = 0; i < worker->tenant_count; i++)
		space_stop(&worker->tenants[i]->space);
	worker->tenants_open = worker->tenant_count;
	worker->revalidations_open = worker->tenant_count;
	for (size_t i = 0; i < worker->tenant_count; i++)
		revalidation_close(worker->tenants[i]->revalidation, revalidation_on_closed, worker);
	if (worker->tenant_count == 0)
		store_close(worker->store, store_on_closed, worker);
}

static void drain_on_timer(uv_timer_t *timer)
{
	struct worker *worker = timer->data;

	if ((worker->operations == 0 || clock_monotonic_ms() >= worker->drain_until_ms) &&
	    !tenants_are_ending(worker))
		close_all(worker);
}

/* ---- messages ----------------------------------------------------------------------------------------------- */

enum worker_order {
	ORDER_CONNECT,
	ORDER_STOP,
	ORDER_SLEPT,
	ORDER_EVICTION,
	ORDER_RESET_EVICTIONS,
	ORDER_DICTIONARY,
	ORDER_OPEN_TENANT,
	ORDER_CLOSE_TENANT,
	ORDER_ERASE_TENANT,
	ORDER_KEYS,
};

struct order {
	struct mailbox_message message; /* first */
	struct worker *worker;
	enum worker_order what;
	struct worker_client client;
	uint32_t drain_ms;
	bool keep;
	bool deleted;
	const struct tenant *tenant;
	enum hot_policy eviction;
	struct worker_dictionary_order dictionary;
	struct worker_keys_order keys;
	char adopt_name[RSHM_NAME_MAX];
	tenant_opened_fn *opened;
	tenant_closed_fn *emptied, *closed;
	tenant_erased_fn *erased;
	void *context;
};

static void connect_client(struct worker *worker, const struct worker_client *from)
{
	int status = worker->stopping ? RSHM_E_CLOSED : client_connect(worker, from);

	if (status == RSHM_OK)
		return;
	log_warn("serve", "uid %u: no channel (status %d): %s", (unsigned int)from->uid, status, strerror(errno));
	close(from->fd);
	worker->env->channel_closed(worker->env->context, from->uid, from->figures_index);
}

static void begin_stop(struct worker *worker, const struct order *order)
{
	if (worker->stopping)
		return;
	worker->stopping = true;
	for (size_t i = 0; i < worker->tenant_count; i++)
		warming_stop(worker->tenants[i]);
	worker->keep = order->keep;
	worker->drain_until_ms = clock_monotonic_ms() + order->drain_ms;
	uv_timer_start(&worker->drain_timer, drain_on_timer, 0, 5);
}

static void order_on_arrival(struct mailbox_message *message)
{
	struct order *order = (struct order *)message;
	struct worker *worker = order->worker;
	struct serve_tenant *st;

	switch (order->what) {
	case ORDER_CONNECT:
		connect_client(worker, &order->client);
		break;
	case ORDER_STOP:
		begin_stop(worker, order);
		break;
	case ORDER_EVICTION:
		st = tenants_find(worker, order->tenant);
		if (st)
			hot_set_policy(st->hot, order->eviction);
		break;
	case ORDER_DICTIONARY:
		st = tenants_find(worker, order->dictionary.tenant);
		if (st)
			training_order(st, &order->dictionary);
		break;
	case ORDER_OPEN_TENANT:
		order->opened(order->context,
			      worker->stopping ? RSHM_E_CLOSED
					       : tenants_open(worker, order->tenant,
							      order->adopt_name[0] ? order->adopt_name : NULL));
		break;
	case ORDER_CLOSE_TENANT:
		st = tenants_find(worker, order->tenant);
		must(st);
		tenants_close(st, order->deleted, order->closed, order->context);
		order->emptied(order->context);
		break;
	case ORDER_ERASE_TENANT:
		erasing_begin(worker, order->tenant, order->erased, order->context);
		break;
	case ORDER_KEYS:
		rekeying_begin(worker, &order->keys);
		break;
	case ORDER_RESET_EVICTIONS:
		for (size_t i = 0; i < worker->tenant_count; i++)
			evictions_reset(worker->tenants[i]->evictions, clock_monotonic_ms());
		break;
	case ORDER_SLEPT:
		if (!worker->closing)
			watching_slept(worker);
		break;
	}
	free(order);
}

static bool post(struct worker *worker, const struct order *from)
{
	struct order *order = malloc(sizeof(*order));

	if (!order)
		return false;
	*order = *from;
	order->message.handle = order_on_arrival;
	order->worker = worker;
	if (mailbox_post(&worker->mailbox, &order->message))
		return true;
	free(order);
	return false;
}

/* ---- start -------------------------------------------------------------------------------------------------- */

static const char *adoption_for(const struct worker *worker, const struct tenant *tenant)
{
	for (size_t i = 0; i < worker->adoption_count; i++)
		if (worker->adoptions[i].tenant == tenant)
			return worker->adoptions[i].name;
	return NULL;
}

static int open_tenants(struct worker *worker)
{
	const struct serve_environment *env = worker->env;
	size_t count = tenant_count(env->tenants);
	int status = RSHM_OK;

	worker->tenants = calloc(env->agent->tenant_capacity, sizeof(*worker->tenants));
	worker->by_name = calloc(env->agent->tenant_capacity, sizeof(*worker->by_name));
	worker->awake = calloc(env->agent->tenant_capacity, sizeof(*worker->awake));
	if (!worker->tenants || !worker->by_name || !worker->awake)
		return RSHM_E_NOMEM;
	for (size_t i = 0; i < count && status == RSHM_OK; i++) {
		const struct tenant *tenant = tenant_at(env->tenants, i);

		if (tenant->worker == worker->index)
			status = tenants_open(worker, tenant, adoption_for(worker, tenant));
	}
	return status;
}

static int open_worker(struct worker *worker)
{
	const struct serve_environment *env = worker->env;
	struct loading_limits loads = {.load_timeout_max_ms = LOAD_TIMEOUT_MAX_MS};
	int status;

	must(uv_loop_init(&worker->loop) == 0);
	must(mailbox_init(&worker->mailbox, &worker->loop, MAILBOX_LIMIT));
	uv_prepare_init(&worker->loop, &worker->prepare);
	uv_check_init(&worker->loop, &worker->check);
	uv_idle_init(&worker->loop, &worker->idle);
	uv_timer_init(&worker->loop, &worker->timer);
	uv_timer_init(&worker->loop, &worker->drain_timer);
	uv_timer_init(&worker->loop, &worker->tick);
	worker->prepare.data = worker->check.data = worker->idle.data = worker;
	worker->timer.data = worker->drain_timer.data = worker->tick.data = worker;
	worker->inflight = inflight_create(env->options.inflight_max);
	loads.keys = loads.waiting = env->options.inflight_max;
	loads.per_owner = env->options.inflight_max / 8;
	loads.key_bytes = env->options.worker_staging_bytes;
	worker->loading = loading_create(&loads);
	if (!worker->inflight || !worker->loading)
		return RSHM_E_NOMEM;
	status = env->open_store(env->context, worker->index, &worker->loop, &worker->store, worker->start_error,
				 sizeof(worker->start_error));
	if (status == RSHM_OK)
		status = env->open_spill(env->context, worker->index, &worker->loop, &worker->spill,
					 worker->start_error, sizeof(worker->start_error));
	if (status == RSHM_OK)
		status = open_tenants(worker);
	if (status == RSHM_OK)
		status = watching_begin(worker);
	return status;
}

static void tell_started(struct worker *worker, int status)
{
	pthread_mutex_lock(&worker->lock);
	worker->start_status = status;
	pthread_cond_signal(&worker->ready);
	pthread_mutex_unlock(&worker->lock);
}

static void free_pools(struct worker *worker)
{
	while (worker->spare_ops) {
		struct entry_op *op = worker->spare_ops;

		worker->spare_ops = op->spare;
		free(op);
	}
	while (worker->spare_bodies) {
		struct spare_body *body = worker->spare_bodies;

		worker->spare_bodies = body->next;
		free(body);
	}
}

static void *worker_main(void *argument)
{
	struct worker *worker = argument;
	int status = open_worker(worker);
	char name[16];

	snprintf(name, sizeof(name), "worker-%u", worker->index);
	pthread_setname_np(pthread_self(), name);
	if (status == RSHM_OK) {
		uv_prepare_start(&worker->prepare, prepare_on_turn);
		uv_check_start(&worker->check, check_on_turn);
		uv_timer_start(&worker->timer, figures_on_timer, FIGURES_MS, FIGURES_MS);
		uv_timer_start(&worker->tick, tick_on_timer, 0, TICK_MS);
		figures_publish(worker);
		tell_started(worker, RSHM_OK);
		uv_run(&worker->loop, UV_RUN_DEFAULT);
		must(uv_loop_close(&worker->loop) == 0);
		inflight_destroy(&worker->inflight);
		loading_destroy(&worker->loading);
		tenants_free(worker);
		free_pools(worker);
	} else {
		/* The process ends with this error; the half-open loop goes with it. */
		tell_started(worker, status);
	}
	return NULL;
}

int worker_start(const struct serve_environment *environment, uint32_t index, const struct serve_adoption *adoptions,
		 size_t adoption_count, struct worker **ret, char *error, size_t error_len)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	int status;

	if (!worker)
		return RSHM_E_NOMEM;
	worker->env = environment;
	worker->index = index;
	worker->adoptions = adoptions;
	worker->adoption_count = adoption_count;
	worker->start_status = 1;
	pthread_mutex_init(&worker->lock, NULL);
	pthread_cond_init(&worker->ready, NULL);
	if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
		snprintf(error, error_len, "worker %u: cannot start a thread: %s", index, strerror(errno));
		free(worker);
		return RSHM_E_SYSTEM;
	}
	pthread_mutex_lock(&worker->lock);
	while (worker->start_status == 1)
		pthread_cond_wait(&worker->ready, &worker->lock);
	status = worker->start_status;
	pthread_mutex_unlock(&worker->lock);
	if (status < 0) {
		pthread_join(worker->thread, NULL);
		snprintf(error, error_len, "worker %u: %s", index,
			 worker->start_error[0] ? worker->start_error : "no memory");
		return status;
	}
	*ret = worker;
	return RSHM_OK;
}

void worker_stop(struct worker *worker, uint32_t drain_ms, bool keep)
{
	struct order order = {.what = ORDER_STOP, .drain_ms = drain_ms, .keep = keep};

	while (!post(worker, &order))
		usleep(1000); /* the mailbox is bounded and its loop runs */
}

void worker_join(struct worker **worker)
{
	struct worker *w = *worker;

	*worker = NULL;
	if (!w)
		return;
	pthread_join(w->thread, NULL);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->ready);
	free(w);
}

bool worker_connect(struct worker *worker, const struct worker_client *client)
{
	struct order order = {.what = ORDER_CONNECT, .client = *client};

	return post(worker, &order);
}

bool worker_locate(struct worker *worker, const struct tenant *tenant, char ret_name[RSHM_NAME_MAX],
		   uint64_t *ret_size)
{
	struct serve_tenant *st;
	bool found;

	pthread_mutex_lock(&worker->lock);
	st = tenants_find(worker, tenant);
	found = st && hot_locate(st->hot, ret_name, ret_size);
	pthread_mutex_unlock(&worker->lock);
	return found;
}

void worker_slept(struct worker *worker)
{
	struct order order = {.what = ORDER_SLEPT};

	while (!post(worker, &order))
		usleep(1000); /* as worker_stop() */
}

void worker_report(struct worker *worker, struct worker_report *ret)
{
	pthread_mutex_lock(&worker->lock);
	*ret = worker->snapshot;
	pthread_mutex_unlock(&worker->lock);
}

bool worker_tenant_report(struct worker *worker, const struct tenant *tenant, struct tenant_report *ret)
{
	const struct serve_tenant *st;

	pthread_mutex_lock(&worker->lock);
	st = tenants_find(worker, tenant);
	if (st)
		*ret = st->snapshot;
	pthread_mutex_unlock(&worker->lock);
	return st != NULL;
}

void worker_reset_evictions(struct worker *worker)
{
	struct order order = {.what = ORDER_RESET_EVICTIONS};

	if (!post(worker, &order))
		log_warn("serve", "worker %u is too busy to begin its eviction books anew", worker->index);
}

void worker_set_eviction(struct worker *worker, const struct tenant *tenant, enum hot_policy eviction)
{
	struct order order = {.what = ORDER_EVICTION, .tenant = tenant, .eviction = eviction};

	if (!post(worker, &order))
		log_warn("serve", "tenant %s: worker %u is too busy to change the eviction policy; reload again",
			 tenant->id, worker->index);
}

bool worker_change_dictionary(struct worker *worker, const struct worker_dictionary_order *order)
{
	struct order post_order = {.what = ORDER_DICTIONARY, .dictionary = *order};

	return post(worker, &post_order);
}

bool worker_open_tenant(struct worker *worker, const struct tenant *tenant, const char *adopt_name,
			tenant_opened_fn *opened, void *context)
{
	struct order order = {.what = ORDER_OPEN_TENANT, .tenant = tenant, .opened = opened, .context = context};

	if (adopt_name)
		snprintf(order.adopt_name, sizeof(order.adopt_name), "%s", adopt_name);
	return post(worker, &order);
}

bool worker_close_tenant(struct worker *worker, const struct tenant *tenant, bool deleted, tenant_closed_fn *emptied,
			 tenant_closed_fn *closed, void *context)
{
	struct order order = {
		.what = ORDER_CLOSE_TENANT,
		.tenant = tenant,
		.deleted = deleted,
		.emptied = emptied,
		.closed = closed,
		.context = context,
	};

	return post(worker, &order);
}

bool worker_erase_tenant(struct worker *worker, const struct tenant *tenant, tenant_erased_fn *erased, void *context)
{
	struct order order = {.what = ORDER_ERASE_TENANT, .tenant = tenant, .erased = erased, .context = context};

	return post(worker, &order);
}

bool worker_change_keys(struct worker *worker, const struct worker_keys_order *keys)
{
	struct order order = {.what = ORDER_KEYS, .keys = *keys};

	return post(worker, &order);
}
