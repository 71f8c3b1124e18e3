/*
 * fetch.c - read a key; if it is missing, one caller of all on this host loads it.
 *
 *   look ─▶ fresh, or a remembered absence: done              (a hit costs what it costs riptide_get())
 *        ─▶ FETCH ─▶ the value, another one's perhaps: done
 *                 ─▶ LOAD and a ticket: load here
 *                 ─▶ an old value (past its soft deadline), if the options can use one: on with that
 *   old  ─▶ FETCH that refreshes ─▶ LOAD and a ticket: look again, load here
 *                                ─▶ anything else: the old value
 *        ─▶ too old to be given meanwhile: FETCH as if there were none
 *   load here: loader ─▶ SET with the ticket, or FETCH_FAILED with it ─▶ the agent wakes those who wait
 *
 * With one of the stale options, a value is stored to live longer than its ttl, and a field of its metadata (the soft deadline)
 * says when the ttl is over; from then on only a fetch gets it, marked RIPTIDE_STALE. This takes a ttl in numbers: with the
 * tenant's default and RIPTIDE_NEVER the stale options have no effect.
 *
 * If the agent is away or has no room, the loader is called all the same, without a ticket: the application must go on. But a
 * caller who waited in vain for another one's load does not load, too. What happens to the loaded value, stored or not, never
 * changes what the caller gets.
 */
#include <stdlib.h>
#include <string.h>

#include "client-lib/hot_priv.h"

#define BRIEF_MS 1000u /* for telling the agent of the end of a load */
#define HARDLY_MS 50u  /* the same while it seems to be away */

struct fetch {
	/* set once */
	riptide *handle;
	const void *key;
	size_t key_length;
	riptide_load_fn *load;
	void *context;
	const struct riptide_fetch_options *options;
	uint64_t deadline_ms;
	struct riptide_value *ret_value;
	/* changing */
	struct riptide_value old; /* .data NULL: none */
	uint64_t old_soft_ms;     /* when its ttl was over */
	uint64_t ticket;          /* 0: none; what is left of it at the end is given up */
};

static void keep_old(struct fetch *f, const struct riptide_value *value, uint64_t soft_ms)
{
	free(f->old.data);
	f->old = *value;
	f->old_soft_ms = soft_ms;
}

static bool old_is_within(const struct fetch *f, uint64_t window_ms)
{
	return f->old.data && window_ms > 0 && rt_realtime_ms() - f->old_soft_ms < window_ms;
}

static int give_old(struct fetch *f)
{
	*f->ret_value = f->old;
	f->ret_value->info.flags |= RIPTIDE_STALE;
	f->old.data = NULL;
	return RIPTIDE_OK;
}

/* ---- asking ------------------------------------------------------------------------------------------------- */

/*
 * Takes the outcome of a read: a fresh value goes to the caller. RIPTIDE_OK, RIPTIDE_MISS or an error end the fetch; RT_ASK: it
 * is old and kept in f->old, or there is none.
 */
static int take(struct fetch *f, int status, const struct riptide_value *value, uint64_t soft_ms)
{
	if (status == RIPTIDE_MISS)
		f->ret_value->info = value->info;
	if (status != RIPTIDE_OK)
		return status;
	if (soft_ms) {
		keep_old(f, value, soft_ms);
		return RT_ASK;
	}
	*f->ret_value = *value;
	return RIPTIDE_OK;
}

static int look(struct fetch *f)
{
	struct riptide_value value = {.data = NULL};
	uint64_t soft_ms = 0;
	int status = rt_look_value(f->handle, f->key, f->key_length, &soft_ms, &value);

	if (status == RT_RELOCATE && rt_relocate(f->handle, f->deadline_ms))
		status = rt_look_value(f->handle, f->key, f->key_length, &soft_ms, &value);
	/* A copy that the policy refuses is no reason not to ask, and to load. */
	if (status >= RT_ASK || status == RIPTIDE_ESTALE)
		return RT_ASK;
	if (status < 0)
		return rt_fail(f->handle, status, "fetch", f->key, f->key_length, NULL);
	return take(f, status, &value, soft_ms);
}

/* FETCH, or a GET. RSHM_LOAD: with f->ticket. Else as take(). */
static int ask(struct fetch *f, uint16_t op, uint16_t flags)
{
	struct riptide_value value = {.data = NULL};
	uint64_t soft_ms = 0;
	struct rt_call call;
	int status;

	rt_call_init(&call, "fetch", op, f->key, f->key_length, f->deadline_ms);
	call.flags = flags;
	call.operand = f->options->load_timeout_ms ? f->options->load_timeout_ms : f->handle->timeout_ms;
	status = rt_call_value(f->handle, &call, &value);
	if (status == RSHM_LOAD)
		f->ticket = call.answer.version;
	/* One that grew old on its way to a caller who takes none is fresh enough. */
	if (status == RIPTIDE_OK && flags & RSHM_REQUEST_SOFT_TOO) {
		soft_ms = rt_soft_deadline(value.metadata, value.metadata_length);
		if (!rt_soft_is_over(soft_ms, &value.info.ttl_ms))
			soft_ms = 0;
	}
	return take(f, status, &value, soft_ms);
}

/* Nothing that waiting would mend: who can load goes on alone. */
static bool agent_is_away(int status)
{
	return status == RIPTIDE_ENOAGENT || status == RIPTIDE_ECLOSED || status == RIPTIDE_EAGAIN ||
	       status == RIPTIDE_EBACKEND || status == RIPTIDE_ESTALE || status == RIPTIDE_EPROTOCOL ||
	       status == RIPTIDE_ESYSTEM;
}

/* ---- loading ------------------------------------------------------------------------------------------------ */

static uint64_t brief_deadline_ms(const struct fetch *f)
{
	uint64_t most = f->ticket ? BRIEF_MS : HARDLY_MS;

	return rshm_now_ms() + (f->handle->timeout_ms < most ? f->handle->timeout_ms : most);
}

/* A load that did not end in a value or an absence: the next one waiting loads. */
static void give_up_ticket(struct fetch *f)
{
	struct rt_call call;

	if (!f->ticket)
		return;
	rt_call_init(&call, "fetch", RSHM_OP_FETCH_FAILED, f->key, f->key_length, brief_deadline_ms(f));
	call.flags = RSHM_REQUEST_TICKET;
	call.version = f->ticket;
	call.writes = true;
	(void)rt_call_run(f->handle, &call);
	f->ticket = 0;
}

/* How long the value is to be kept, and when its ttl is over (0: never, or then it is gone). */
static void plan_life(const struct fetch *f, uint64_t ttl_ms, uint64_t *ret_ttl_ms, uint64_t *ret_soft_ms)
{
	const struct riptide_fetch_options *o = f->options;
	uint64_t extra_ms =
		o->stale_while_refresh_ms > o->stale_if_error_ms ? o->stale_while_refresh_ms : o->stale_if_error_ms;
	uint64_t now_ms = rt_realtime_ms();

	*ret_ttl_ms = ttl_ms;
	*ret_soft_ms = 0;
	if (ttl_ms == RSHM_TTL_DEFAULT || ttl_ms == RIPTIDE_NEVER || extra_ms == 0 || ttl_ms > UINT64_MAX - now_ms)
		return;
	*ret_soft_ms = now_ms + ttl_ms;
	*ret_ttl_ms = extra_ms < RIPTIDE_NEVER - ttl_ms ? ttl_ms + extra_ms : RIPTIDE_NEVER;
}

/* A connect costs nothing beside a load: the agent that is just back need not wait for the next attempt. */
static void try_at_once(struct rt_process *process)
{
	pthread_mutex_lock(&process->lock);
	process->next_attempt_ms = 0;
	pthread_mutex_unlock(&process->lock);
}

/* Sends the value with the ticket, if there is one. Whatever comes of it: 0 if it is not stored, else its version. */
static uint64_t store(struct fetch *f, const struct riptide_loaded *loaded, const struct rt_change *change)
{
	uint64_t version = 0;
	struct rt_call call;
	int status;

	rt_call_init(&call, "fetch", RSHM_OP_SET, f->key, f->key_length,
		     f->ticket ? rt_deadline_ms(f->handle) : brief_deadline_ms(f));
	if (f->ticket) {
		call.flags = RSHM_REQUEST_TICKET;
		call.version = f->ticket;
	} else {
		try_at_once(f->handle->process);
	}
	status = rt_write(f->handle, &call, change, loaded->data, loaded->length, &version);
	/* Of what failed, the agent may not even have heard. */
	if (status >= 0)
		f->ticket = 0;
	return status == RIPTIDE_OK ? version : 0;
}

/* A fresh allocation for the caller, as a get would have given it. */
static int make_value(const struct riptide_loaded *loaded, const struct rt_change *change, struct riptide_value *ret)
{
	int status = rt_value_alloc(loaded->length, change->metadata_length, ret);

	if (status < 0)
		return status;
	if (loaded->length)
		memcpy(ret->data, loaded->data, loaded->length);
	if (change->metadata_length)
		memcpy(ret->metadata, change->metadata, change->metadata_length);
	ret->info = (struct riptide_info){.metadata_length = (uint32_t)change->metadata_length};
	return RIPTIDE_OK;
}

static int accept_loaded(struct fetch *f, const struct riptide_loaded *loaded)
{
	const uint64_t ttl_ms = loaded->ttl_ms ? loaded->ttl_ms : f->options->ttl_ms;
	struct riptide_set_options options = {
		.size = sizeof(options),
		.metadata = loaded->metadata,
		.write_mode = f->options->write_mode,
		.compression = f->options->compression,
	};
	struct riptide_value value = {.data = NULL};
	uint64_t soft_ms;
	struct rt_change change;
	int status;

	plan_life(f, ttl_ms, &options.ttl_ms, &soft_ms);
	status = rt_change_init(&options, soft_ms, &change);
	if (status == RIPTIDE_OK && !loaded->data && loaded->length)
		status = RIPTIDE_EINVALID;
	if (status == RIPTIDE_OK)
		status = make_value(loaded, &change, &value);
	if (status == RIPTIDE_OK) {
		value.info.version = store(f, loaded, &change);
		value.info.ttl_ms = ttl_ms == RSHM_TTL_DEFAULT ? RIPTIDE_NEVER : ttl_ms;
		*f->ret_value = value;
	}
	rt_change_fini(&change);
	if (status == RIPTIDE_OK)
		return status;
	return rt_fail(f->handle, status, "fetch", f->key, f->key_length, "what was loaded cannot be used");
}

/* The loader found nothing. */
static int accept_absence(struct fetch *f)
{
	struct rt_change change = {.ttl_ms = f->options->negative_ttl_ms};
	struct rt_call call;

	rt_info_of_absence(0, &f->ret_value->info);
	if (!f->ticket || change.ttl_ms == 0)
		return RIPTIDE_MISS;
	rt_call_init(&call, "fetch", RSHM_OP_SET, f->key, f->key_length, brief_deadline_ms(f));
	call.flags = RSHM_REQUEST_TICKET | RSHM_REQUEST_NEGATIVE;
	call.version = f->ticket;
	if (rt_write(f->handle, &call, &change, NULL, 0, NULL) >= 0)
		f->ticket = 0;
	return RIPTIDE_MISS;
}

static int load_here(struct fetch *f)
{
	struct riptide_loaded loaded = {.data = NULL};
	int status = f->load(f->context, f->key, f->key_length, &loaded);

	if (status == RIPTIDE_OK)
		return accept_loaded(f, &loaded);
	if (status == RIPTIDE_MISS)
		return accept_absence(f);
	if (old_is_within(f, f->options->stale_if_error_ms))
		return give_old(f);
	if (status > 0)
		return rt_fail(f->handle, RIPTIDE_EINVALID, "fetch", f->key, f->key_length,
			       "the loader's code is none that it may return");
	return rt_fail(f->handle, status, "fetch", f->key, f->key_length, "the loader failed");
}

/* ---- which way ---------------------------------------------------------------------------------------------- */

/* The ticket is ours. Between our read and it another one may have stored a new value. */
static int load_unless_new(struct fetch *f)
{
	int status = look(f);

	if (status == RT_ASK)
		status = ask(f, RSHM_OP_GET, 0);
	return status == RIPTIDE_OK ? status : load_here(f);
}

/* There is an old value that will do: the first to ask loads a new one. */
static int refresh(struct fetch *f)
{
	int status = ask(f, RSHM_OP_FETCH, RSHM_REQUEST_REFRESH);

	if (status == RSHM_LOAD)
		return load_unless_new(f);
	return status == RIPTIDE_OK ? status : give_old(f);
}

/* Nothing fresh is hot: the value, or the right to load it. */
static int fetch(struct fetch *f, uint16_t flags)
{
	int status = ask(f, RSHM_OP_FETCH, flags);

	if (status == RSHM_LOAD || agent_is_away(status))
		return load_here(f);
	if (status == RIPTIDE_ETIMEDOUT && old_is_within(f, f->options->stale_if_error_ms))
		return give_old(f);
	return status;
}

static int run(struct fetch *f)
{
	bool takes_old = f->options->stale_while_refresh_ms > 0 || f->options->stale_if_error_ms > 0;
	int status = look(f);

	if (status == RT_ASK && takes_old && !f->old.data)
		status = fetch(f, RSHM_REQUEST_SOFT_TOO);
	if (status == RT_ASK && old_is_within(f, f->options->stale_while_refresh_ms))
		status = refresh(f);
	/* Without that flag the agent knows of no old value: it gives out a ticket, or waits. */
	return status == RT_ASK ? fetch(f, 0) : status;
}

/* ---- public ------------------------------------------------------------------------------------------------- */

static bool options_are_sound(const struct riptide_fetch_options *options)
{
	return options->size >= sizeof(*options) && (unsigned int)options->write_mode <= RIPTIDE_WRITE_BEHIND &&
	       (unsigned int)options->compression <= RIPTIDE_COMPRESS_AUTO;
}

int riptide_fetch(riptide *handle, const void *key, size_t key_length, riptide_load_fn *load, void *context,
		  const struct riptide_fetch_options *options, struct riptide_value *ret_value)
{
	static const struct riptide_fetch_options none = {.size = sizeof(none)};
	struct fetch f = {
		.handle = handle,
		.key = key,
		.key_length = key_length,
		.load = load,
		.context = context,
		.options = options ? options : &none,
		.ret_value = ret_value,
	};
	int status = rt_check_key(handle, "fetch", key, key_length);

	if (status < 0)
		return status;
	if (!load || !ret_value || !options_are_sound(f.options))
		return rt_fail(handle, RIPTIDE_EINVALID, "fetch", key, key_length,
			       "loader, options or the place for the value are bad");
	f.deadline_ms = rt_deadline_ms(handle);
	status = run(&f);
	give_up_ticket(&f);
	free(f.old.data);
	return status;
}
