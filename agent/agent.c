/*
 * agent.c - start, run, stop.
 *
 * Start, in order: run directory and lock · list of shared objects · agent object (adopted or new) · stores · tenants ·
 * workers (adopt segments) · control plane · ready. The end is its reverse. Everything here happens on the main loop; workers
 * have their own, and tell us of ended channels through the mailbox.
 */
#include "agent/agent.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/agent_priv.h"
#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/lifecycle.h"
#include "agent/tenant/master_key.h"
#include "agent/tenants.h"
#include "shm/order.h"

#define BEAT_MS 250u
#define MAILBOX_LIMIT 262144u /* above all ends of channels and orders to workers that can be on their way */
#define CONTROL_CONNECTIONS 1024u
#define CONTROL_REQUEST_MS 5000u

/* ---- shared memory ------------------------------------------------------------------------------------------ */

static uint64_t default_memory(void)
{
	struct statvfs vfs;

	return statvfs("/dev/shm", &vfs) == 0 ? (uint64_t)vfs.f_bavail * vfs.f_frsize / 2 : 0;
}

static int open_presence(struct agent *a, char *error, size_t error_len)
{
	const struct config *c = a->config;
	int status = object_list_open(a->objects_path, &a->objects, error, error_len);

	if (status == RSHM_OK)
		status = presence_open(a->objects, c->agent.instance,
				       c->tenancy.max_tenants ? c->tenancy.max_tenants : 1, c->limits.max_clients,
				       &a->presence, error, error_len);
	if (status < 0)
		return status;
	a->budget.total = c->cache.max_memory_bytes ? c->cache.max_memory_bytes : default_memory();
	a->hot = (struct hot_environment){
		.objects = a->objects,
		.budget = &a->budget,
		.sources = a->presence.agent->sources,
		.instance_name = c->agent.instance,
		.initial_bytes = c->cache.segment_initial_bytes,
		.entry_limit_bytes = (uint32_t)c->cache.hot_entry_limit_bytes,
		.reinsert_percent = c->cache.reinsert_ratio_percent,
	};
	memcpy(a->hot.instance, a->presence.agent->header.instance, sizeof(a->hot.instance));
	memcpy(a->hot.boot_id, a->presence.agent->header.boot_id, sizeof(a->hot.boot_id));
	return RSHM_OK;
}

/* ---- tenants ------------------------------------------------------------------------------------------------ */

static int add_tenant(struct agent *a, const struct config_tenant *t)
{
	const struct config *c = a->config;
	struct tenant_settings settings = {
		.id = t->name,
		.users = t->uids,
		.user_count = t->uids_count,
		.groups = t->gids,
		.group_count = t->gids_count,
		.memory_bytes = t->memory_bytes,
		.default_ttl_ms = t->default_ttl_seconds * 1000,
		.stale_limit_ms = c->coherence.stale_limit_ms,
		.ttl_jitter_percent = c->cache.ttl_jitter_percent,
		.stale_policy = (enum rshm_policy)t->stale_policy,
		.write_behind = t->write_mode == CONFIG_WRITE_BEHIND,
		.eviction = (enum hot_policy)t->eviction_policy,
		.negatives_max = c->cache.negative_entries_max,
	};
	struct tenant *tenant;
	int status = tenant_create(&settings, &tenant);

	if (status < 0)
		return status;
	tenant->worker = (uint32_t)(tenant_count(a->tenants) % a->worker_count);
	status = tenant_table_add(a->tenants, tenant);
	if (status < 0)
		tenant_destroy(&tenant);
	return status;
}

static int open_tenants(struct agent *a, char *error, size_t error_len)
{
	const struct config *c = a->config;
	size_t count = c->tenancy.enabled ? c->tenants_count : 1;
	int status = tenant_table_create(a->presence.agent->tenant_capacity, &a->tenants);

	for (size_t i = 0; i < count && status == RSHM_OK; i++)
		status = add_tenant(a, &c->tenants[i]);
	if (status < 0)
		snprintf(error, error_len, "no memory for %zu tenants", count);
	return status == RSHM_OK ? stores_number_tenants(a, error, error_len) : status;
}

/* ---- workers ------------------------------------------------------------------------------------------------ */

static struct serve_options serve_options(const struct config *c)
{
	static const enum envelope_choice choices[] = {
		[CONFIG_COMPRESSION_LZ4] = ENVELOPE_CHOOSE_LZ4,
		[CONFIG_COMPRESSION_ZSTD] = ENVELOPE_CHOOSE_ZSTD,
		[CONFIG_COMPRESSION_AUTO] = ENVELOPE_CHOOSE_AUTO,
		[CONFIG_COMPRESSION_NONE] = ENVELOPE_CHOOSE_NONE,
	};
	bool redis = c->agent.backend == CONFIG_BACKEND_REDIS;

	return (struct serve_options){
		.spin_us = c->agent.spin_us,
		.requests_per_turn = c->limits.requests_per_turn,
		.bytes_per_turn = (uint32_t)c->limits.bytes_per_turn,
		.bells_per_second = c->limits.bells_per_second,
		.worker_staging_bytes = c->limits.worker_staging_bytes,
		.tenant_staging_bytes = c->limits.tenant_staging_bytes,
		.channel_staging_bytes = c->limits.channel_staging_bytes,
		.piece_timeout_ms = (uint32_t)c->limits.piece_timeout_ms,
		.max_entry_bytes = c->cache.max_entry_size_bytes,
		.inflight_max = c->limits.inflight_max,
		.hot_max_age_ms = redis ? c->coherence.max_age_ms : 0,
		.lease_ms = c->coherence.lease_ms,
		.slow_ns = c->performance.enable_slow_log ? c->performance.slow_threshold_ms * 1000000 : 0,
		.target_ns = c->performance.target_cache_access_ms * 1000000,
		.compression = {.choice = c->cache.enable_compression ? choices[c->cache.compression_algorithm]
								      : ENVELOPE_CHOOSE_NONE,
				.threshold = c->cache.compression_threshold_bytes,
				.lz4_acceleration = (int)c->cache.lz4_acceleration,
				.zstd_level = (int)c->cache.zstd_level},
		.spill_read_bytes = c->spill.read_bytes,
		.key_need_ms = c->behind.max_replay_age_seconds * 1000,
		.warm_at_start = c->cache.enable_warming,
		.warming_batch = c->cache.warming_batch_size,
		.warming_keys_per_second = c->warming.keys_per_second,
		.hot_set_max = c->warming.hot_set_max,
		.hot_set_interval_ms = c->warming.save_interval_seconds * 1000,
		.dictionary_samples_min = c->dictionary.train_samples_min,
		.dictionary_sample_bytes = c->dictionary.sample_bytes,
		.dictionary_bytes = (uint32_t)c->dictionary.size_bytes,
		.dictionary_auto_train = c->dictionary.auto_train,
		.dictionary_retrain_ms = c->dictionary.retrain_seconds * 1000,
		.dictionary_refresh_ms = c->dictionary.refresh_seconds * 1000,
	};
}

/* Segments of tenants that exist are offered for adoption; all others are retired and removed. */
static size_t sort_segments(struct agent *a, struct serve_adoption **ret)
{
	struct object_entry *entries;
	size_t count = object_list_copy(a->objects, &entries), wanted = 0;
	struct serve_adoption *adoptions = calloc(count + 1, sizeof(*adoptions));

	for (size_t i = 0; i < count && adoptions; i++) {
		const struct tenant *tenant = tenant_find(a->tenants, entries[i].tenant);
		struct rshm_map map;
		bool taken = false;

		if (entries[i].kind != OBJECT_SEGMENT)
			continue;
		for (size_t k = 0; k < wanted; k++)
			taken |= adoptions[k].tenant == tenant;
		if (rshm_map_adopt(entries[i].name, &map) == RSHM_OK) {
			struct rshm_segment *segment = map.base;
			bool live = segment->state == RSHM_LIVE;

			if (tenant && live && !taken && a->presence.adopted) {
				adoptions[wanted].tenant = tenant;
				memcpy(adoptions[wanted++].name, entries[i].name, RSHM_NAME_MAX);
				rshm_unmap(&map);
				continue;
			}
			/* Of a tenant that was created: its record decides, when it can be read. */
			if (!tenant && live && a->live && a->presence.adopted &&
			    live_tenants_offer(a, entries[i].tenant, entries[i].name)) {
				rshm_unmap(&map);
				continue;
			}
			segment->state = RSHM_RETIRED;
			rshm_unmap(&map);
		}
		object_list_remove(a->objects, entries[i].name);
	}
	free(entries);
	*ret = adoptions;
	return wanted;
}

static int start_workers(struct agent *a, char *error, size_t error_len)
{
	struct serve_adoption *adoptions;
	size_t adoption_count = sort_segments(a, &adoptions);
	int status = RSHM_OK;

	a->serve = (struct serve_environment){
		.options = serve_options(a->config),
		.tenants = a->tenants,
		.hot = &a->hot,
		.agent = a->presence.agent,
		.hlc = &a->hlc,
		.writer_id = randombytes_random(),
		.dictionaries = a->dictionaries,
		.sampler = a->sampler,
		.masters = a->masters,
		.open_store = stores_create,
		.open_spill = stores_open_spill,
		.channel_closed = admission_channel_closed,
		.refused = admission_refused,
		.context = a,
	};
	/* Versions tell values apart: those of other hosts must not look like ours. */
	if (a->config->agent.backend == CONFIG_BACKEND_REDIS)
		hlc_identify(&a->hlc, a->serve.writer_id);
	snprintf(a->hot_set_path, sizeof(a->hot_set_path), "%s/hot", a->config->agent.state_dir);
	status = lifecycle_prepare_dir(a->hot_set_path, error, error_len);
	a->serve.options.hot_set_folder = a->hot_set_path;
	a->workers = calloc(a->worker_count, sizeof(struct worker *));
	if (status == RSHM_OK && (!a->workers || !adoptions))
		status = RSHM_E_NOMEM;
	for (uint32_t i = 0; i < a->worker_count && status == RSHM_OK; i++)
		status = worker_start(&a->serve, i, adoptions, adoption_count, &a->workers[i], error, error_len);
	free(adoptions);
	return status;
}

/* ---- control plane ------------------------------------------------------------------------------------------ */

static int open_audit(struct agent *a, char *error, size_t error_len)
{
	const struct config *c = a->config;
	char folder[1100];
	struct audit_options options = {
		.folder = folder,
		.retention_days = c->security.audit_retention_days,
		.to_log = c->security.audit_to_log,
	};

	if (!c->security.enable_audit_logging)
		return RSHM_OK;
	snprintf(folder, sizeof(folder), "%s/audit", c->agent.state_dir);
	return audit_open(&options, clock_realtime_ms(), &a->audit, error, error_len);
}

/* Who may administer tenants besides operators. Asks the user database. */
static int find_administrators(struct agent *a, char *error, size_t error_len)
{
	const char *name = a->config->tenancy.administrators;
	struct tenant_settings settings = {.id = "administrators", .group_count = 1};
	const struct group *group;

	if (name[0] == '\0')
		return RSHM_OK;
	/* Nobody else asks the user database yet: the workers have no business with it. */
	group = getgrnam(name);
	if (!group) {
		snprintf(error, error_len,
			 "tenancy.administrators: this host has no group \"%s\"; create it, or leave the option out",
			 name);
		return RSHM_E_INVALID;
	}
	settings.groups = &group->gr_gid;
	return tenant_create(&settings, &a->administrators);
}

static int open_control(struct agent *a, char *error, size_t error_len)
{
	const struct config *c = a->config;
	struct control_options options = {
		.control_path = a->control_path,
		.doorbell_path = a->doorbell_path,
		.socket_mode = 0660,
		.agent_object = a->presence.name,
		.agent_object_size = a->presence.map.size,
		.administrators = a->administrators,
		.message_bytes = (uint32_t)c->limits.control_message_bytes,
		.answer_bytes = (uint32_t)c->limits.control_answer_bytes,
		.handshake_timeout_ms = (uint32_t)c->limits.handshake_timeout_ms,
		.request_timeout_ms = CONTROL_REQUEST_MS,
		.connections = CONTROL_CONNECTIONS,
		.connections_per_uid = c->limits.connections_per_uid,
		.channels_per_uid = c->limits.channels_per_uid,
		.clients = c->limits.max_clients,
		.attaches_per_second_per_uid = c->limits.attaches_per_second_per_uid,
		.audit = a->audit,
	};
	struct control_hooks hooks = {
		.context = a,
		.attach = admission_attach,
		.connect = admission_connect,
		.release = admission_release,
		.report = report_hook,
		.reload = reload_hook,
		.dictionary = dictionary_hook,
		.tenant = a->live ? tenant_admin_hook : NULL,
	};

	/* Who may connect is decided by uid at attach; the mode only spares strangers the refusal. */
	if (a->live)
		options.socket_mode = 0666;
	for (size_t i = 0; i < tenant_count(a->tenants); i++) {
		const struct tenant *t = tenant_at(a->tenants, i);

		if (t->user_count + t->group_count > 2 || t->user_count != 1 || t->users[0] != geteuid() ||
		    t->group_count != 1 || t->groups[0] != getegid())
			options.socket_mode = 0666;
	}
	return control_create(&a->loop, &options, &hooks, &a->control, error, error_len);
}

/* ---- heartbeat ---------------------------------------------------------------------------------------------- */

static void count_channels(struct agent *a)
{
	uint64_t channels = 0;

	for (uint32_t i = 0; i < a->worker_count; i++) {
		struct worker_report report;

		worker_report(a->workers[i], &report);
		channels += report.channels;
	}
	rshm_store_relaxed(&a->presence.agent->channels, channels);
}

static void beat_on_timer(uv_timer_t *timer)
{
	struct agent *a = timer->data;
	bool slept = presence_beat(&a->presence);

	/* While stopping, workers end under our hands. */
	if (!a->stopping)
		count_channels(a);
	if (!a->stopping && a->live)
		live_tenants_beat(a);
	if (slept && !a->stopping) {
		log_info("agent", "the machine slept; hot entries are checked against the store again");
		for (uint32_t i = 0; i < a->worker_count; i++)
			worker_slept(a->workers[i]);
	}
	if (++a->beats % 4 == 0) {
		lifecycle_notify_watchdog();
		audit_tick(a->audit, clock_realtime_ms());
	}
}

/* ---- end ---------------------------------------------------------------------------------------------------- */

static void close_main_handles(void *context)
{
	struct agent *a = context;

	uv_close((uv_handle_t *)&a->beat, NULL);
	uv_close((uv_handle_t *)&a->on_term, NULL);
	uv_close((uv_handle_t *)&a->on_int, NULL);
	uv_close((uv_handle_t *)&a->on_hup, NULL);
}

static void join_on_thread(uv_work_t *work)
{
	struct agent *a = work->data;

	for (uint32_t i = 0; i < a->worker_count; i++)
		worker_join(&a->workers[i]);
}

static void live_on_closed(void *context)
{
	struct agent *a = context;

	mailbox_close(&a->mailbox, close_main_handles, a);
}

static void join_on_done(uv_work_t *work, int cancelled)
{
	struct agent *a = work->data;

	must(!cancelled);
	live_tenants_close(a, live_on_closed, a);
}

static void control_on_closed(void *context)
{
	struct agent *a = context;
	uint32_t drain_ms = (uint32_t)a->config->agent.shutdown_timeout_seconds * 1000;

	a->control = NULL;
	for (uint32_t i = 0; i < a->worker_count; i++)
		if (a->workers[i])
			worker_stop(a->workers[i], drain_ms, a->config->agent.keep_on_stop);
	/* Leases go on while workers drain: the join waits on a pool thread. */
	a->joining.data = a;
	must(uv_queue_work(&a->loop, &a->joining, join_on_thread, join_on_done) == 0);
}

static void begin_stop(struct agent *a)
{
	if (a->stopping)
		return;
	a->stopping = true;
	lifecycle_notify_stopping();
	if (a->started_ms != 0) /* a start that failed has one line of its own */
		log_info("agent", "stopping: draining for at most %llu s",
			 (unsigned long long)a->config->agent.shutdown_timeout_seconds);
	if (a->control)
		control_close(a->control, control_on_closed, a);
	else
		control_on_closed(a);
}

static void stop_on_signal(uv_signal_t *handle, int number)
{
	(void)number;
	begin_stop(handle->data);
}

static void reload_on_signal(uv_signal_t *handle, int number)
{
	struct agent *a = handle->data;

	(void)number;
	/* Workers end under our hands. */
	if (!a->stopping)
		reload_now(a);
}

static void destroy(struct agent **agent, bool keep)
{
	struct agent *a = *agent;

	*agent = NULL;
	if (a->loop_open)
		must(uv_loop_close(&a->loop) == 0);
	audit_close(&a->audit, clock_realtime_ms());
	free(a->workers);
	dictionary_sampler_destroy(&a->sampler);
	dictionary_registry_destroy(&a->dictionaries);
	tenant_keys_forget(a);
	master_keys_destroy(&a->masters);
	live_tenants_destroy(a);
	free(a->client_places);
	tenant_table_destroy(&a->tenants);
	tenant_destroy(&a->administrators);
	stores_close(a);
	presence_close(&a->presence, a->objects, keep);
	object_list_close(&a->objects);
	if (a->lock_fd >= 0)
		close(a->lock_fd);
	config_destroy(&a->config);
	free(a);
}

/* ---- start -------------------------------------------------------------------------------------------------- */

static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int open_loop(struct agent *a)
{
	if (uv_loop_init(&a->loop) != 0)
		return RSHM_E_SYSTEM;
	a->loop_open = true;
	uv_timer_init(&a->loop, &a->beat);
	uv_signal_init(&a->loop, &a->on_term);
	uv_signal_init(&a->loop, &a->on_int);
	uv_signal_init(&a->loop, &a->on_hup);
	a->beat.data = a->on_term.data = a->on_int.data = a->on_hup.data = a;
	must(mailbox_init(&a->mailbox, &a->loop, MAILBOX_LIMIT));
	return RSHM_OK;
}

static int prepare(struct agent *a, char *error, size_t error_len)
{
	const struct config *c = a->config;
	int status = lifecycle_prepare_dir(c->agent.run_dir, error, error_len);

	if (status == RSHM_OK)
		status = lifecycle_lock(c->agent.run_dir, &a->lock_fd, error, error_len);
	if (status < 0)
		return status;
	snprintf(a->control_path, sizeof(a->control_path), "%s/control.sock", c->agent.run_dir);
	snprintf(a->doorbell_path, sizeof(a->doorbell_path), "%s/doorbell.sock", c->agent.run_dir);
	snprintf(a->objects_path, sizeof(a->objects_path), "%s/objects", c->agent.run_dir);
	a->worker_count = c->agent.workers;
	a->client_place_count = c->limits.max_clients;
	a->client_places = calloc(a->client_place_count, sizeof(*a->client_places));
	raise_limits();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error, not the end */
	signal(SIGHUP, SIG_IGN);  /* until there is something to reload */
	hlc_init(&a->hlc, 0);
	return a->client_places ? RSHM_OK : RSHM_E_NOMEM;
}

static int bring_up(struct agent *a, char *error, size_t error_len)
{
	int status = prepare(a, error, error_len);

	/* Stores first: one of them may fork a check of its file, which wants no other threads. */
	if (status == RSHM_OK)
		status = stores_open(a, error, error_len);
	if (status == RSHM_OK)
		status = open_presence(a, error, error_len);
	if (status == RSHM_OK)
		status = open_tenants(a, error, error_len);
	if (status == RSHM_OK && a->config->tenancy.enabled)
		status = live_tenants_create(a);
	if (status == RSHM_OK)
		status = open_loop(a);
	if (status == RSHM_OK)
		status = dictionaries_open(a);
	if (status == RSHM_OK)
		status = tenant_keys_open(a, error, error_len);
	if (status == RSHM_OK) {
		presence_begin(&a->presence);
		status = start_workers(a, error, error_len);
	}
	/* Whoever finds us answering may tell us to stop: it is taken up when the loop runs. */
	if (status == RSHM_OK) {
		uv_signal_start(&a->on_term, stop_on_signal, SIGTERM);
		uv_signal_start(&a->on_int, stop_on_signal, SIGINT);
		uv_signal_start(&a->on_hup, reload_on_signal, SIGHUP);
		status = open_audit(a, error, error_len);
	}
	if (status == RSHM_OK)
		status = find_administrators(a, error, error_len);
	if (status == RSHM_OK)
		status = open_control(a, error, error_len);
	return status;
}

int agent_start(const struct config_sources *sources, struct config *config, struct agent **ret, char *error,
		size_t error_len)
{
	struct agent *a = calloc(1, sizeof(*a));
	int status;

	if (!a || sodium_init() < 0) {
		free(a);
		config_destroy(&config);
		snprintf(error, error_len, "no memory, or no source of random numbers");
		return RSHM_E_NOMEM;
	}
	a->sources = sources;
	a->config = config;
	a->lock_fd = -1;
	error[0] = '\0';
	status = bring_up(a, error, error_len);
	if (status < 0) {
		/* What a predecessor left stays for another try, our own goes. */
		bool keep = a->presence.adopted;

		if (!error[0])
			snprintf(error, error_len, "no memory");
		/* What runs already ends the ordinary way. */
		if (!a->workers)
			a->worker_count = 0;
		if (a->loop_open) {
			a->config->agent.keep_on_stop = keep;
			begin_stop(a);
			uv_run(&a->loop, UV_RUN_DEFAULT);
		}
		destroy(&a, keep);
		return status;
	}
	a->started_ms = clock_monotonic_ms();
	uv_timer_start(&a->beat, beat_on_timer, BEAT_MS, BEAT_MS);
	*ret = a;
	return RSHM_OK;
}

int agent_run(struct agent **agent)
{
	struct agent *a = *agent;
	int exit_status;

	log_info("agent", "ready: instance %s, %s, %s", a->config->agent.instance, a->control_path,
		 a->presence.adopted ? "took over from a predecessor" : "fresh start");
	lifecycle_notify_ready("serving");
	uv_run(&a->loop, UV_RUN_DEFAULT);
	exit_status = a->exit_status;
	log_info("agent", "stopped");
	destroy(agent, a->config->agent.keep_on_stop);
	return exit_status;
}

int agent_forget(const struct config *config, char *error, size_t error_len)
{
	char path[256];
	struct object_list *objects;
	struct object_entry *entries;
	size_t count;
	int fd, status = lifecycle_prepare_dir(config->agent.run_dir, error, error_len);

	if (sodium_init() < 0)
		return RSHM_E_SYSTEM;
	if (status == RSHM_OK)
		status = lifecycle_lock(config->agent.run_dir, &fd, error, error_len);
	if (status < 0)
		return status;
	snprintf(path, sizeof(path), "%s/objects", config->agent.run_dir);
	status = object_list_open(path, &objects, error, error_len);
	if (status == RSHM_OK) {
		count = object_list_copy(objects, &entries);
		for (size_t i = 0; i < count; i++)
			object_list_remove(objects, entries[i].name);
		free(entries);
		object_list_close(&objects);
	}
	close(fd);
	return status;
}
