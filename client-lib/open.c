/*
 * open.c - the handle: options, birth, a child's fresh start, death.
 *
 * A handle has two parts (riptide_priv.h). The process part is set up by riptide_open(), and again by the first call that
 * a child of fork() makes: its pages are zeroed then, so the word `setup` says 0, and the first thread that moves it to 1
 * does the work. No lock of the parent's is taken, for none exists in the child. What the child inherits and must let go
 * of is the parent's doorbell; what it inherits and keeps are the read-only mappings, which serve hits meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "client-lib/riptide_priv.h"
#include "shm/order.h"

#define DEFAULT_SOCKET "/run/riptide/control.sock"
#define DEFAULT_TENANT "default"
#define DEFAULT_TIMEOUT_MS 5000u
#define DEFAULT_SPIN_US 20u
#define TOKEN_MAX 4096u

/* A child of fork() lets go of what served its parent's channel. The mapping itself is not inherited (MADV_DONTFORK). */
static void let_go_of_parents_channel(riptide *handle)
{
	struct rt_channel *channel = handle->inherited;

	handle->inherited = NULL;
	if (!channel)
		return;
	rt_bell_close(&channel->bell);
	rt_mapping_unref(channel->agent);
	free(channel);
}

void rt_use_private_shards(riptide *handle)
{
	struct rt_process *process = handle->process;

	for (unsigned int i = 0; i < RSHM_SHARDS; i++) {
		rshm_store_relaxed(&process->private_shards[i].stop_hits, handle->limited ? 0 : UINT64_MAX);
		rshm_store_relaxed(&process->private_shards[i].stop_bytes, UINT64_MAX);
	}
	/* Pairs with the acquire in rt_look_begin(). */
	rshm_store_release(&process->shards, (uintptr_t)process->private_shards);
}

static void init_process(riptide *handle)
{
	struct rt_process *process = handle->process;
	/* Zeroed mutexes are unlocked ones, and nobody waits for a zeroed condition. */
	process->spin_average_ns = (uint64_t)handle->spin_us * 500;
	let_go_of_parents_channel(handle);
	rt_use_private_shards(handle);
}

int rt_process_setup(riptide *handle)
{
	struct rt_process *process = handle->process;
	/* Pairs with the release below: who sees 2 sees all of it. */
	uint32_t setup = rshm_load_acquire32(&process->setup);

	if (setup == 2)
		return handle->is_open ? RIPTIDE_OK : RIPTIDE_ECLOSED;
	if (setup == 0 && rshm_cas_acq_rel32(&process->setup, &setup, 1)) {
		(void)rt_threads_setup();
		/* A view held over fork(): from here on all threads of the child can see that it is. */
		if (rt_thread.view)
			(void)rt_line_acquire();
		init_process(handle);
		rshm_store_release32(&process->setup, 2);
	}
	while (rshm_load_acquire32(&process->setup) != 2) {
		struct timespec pause = {.tv_nsec = 50000};

		nanosleep(&pause, NULL);
	}
	return handle->is_open ? RIPTIDE_OK : RIPTIDE_ECLOSED;
}

/* Copies a text option. False if it does not fit. */
static bool take_text(char *to, size_t capacity, const char *given, const char *variable, const char *standard)
{
	const char *text = given ? given : variable ? secure_getenv(variable) : NULL;
	size_t length;

	if (!text || (!given && !text[0]))
		text = standard;
	length = strlen(text);
	if (length == 0 || length >= capacity)
		return false;
	memcpy(to, text, length + 1);
	return true;
}

static int take_token(riptide *handle, const struct riptide_options *options, char *trouble)
{
	if (options->token_length == 0)
		return RIPTIDE_OK;
	if (!options->token || options->token_length > TOKEN_MAX)
		return rt_trouble(trouble, RIPTIDE_EINVALID, "a token has at most %u bytes", TOKEN_MAX);
	handle->token = malloc(options->token_length);
	if (!handle->token)
		return rt_trouble(trouble, RIPTIDE_ENOMEM, "no memory for the token");
	memcpy(handle->token, options->token, options->token_length);
	handle->token_length = options->token_length;
	return RIPTIDE_OK;
}

static int take_options(riptide *handle, const struct riptide_options *options, char *trouble)
{
	static const struct riptide_options none = {.size = sizeof(none)};
	const char *program = program_invocation_short_name;
	char name[sizeof(handle->name)];

	if (options && options->size < sizeof(*options))
		return rt_trouble(trouble, RIPTIDE_EINVALID, "options.size must be sizeof(struct riptide_options)");
	if (!options)
		options = &none;
	if (!take_text(handle->socket, sizeof(handle->socket), options->socket, "RIPTIDE_SOCKET", DEFAULT_SOCKET))
		return rt_trouble(trouble, RIPTIDE_EINVALID, "the socket's path must have 1 to %zu characters",
				  sizeof(handle->socket) - 1);
	if (!take_text(handle->tenant, sizeof(handle->tenant), options->tenant, "RIPTIDE_TENANT", DEFAULT_TENANT))
		return rt_trouble(trouble, RIPTIDE_EINVALID, "a tenant's id has 1 to %u characters", RSHM_TENANT_MAX);
	/* A name is for people: cut, not refused. */
	(void)snprintf(name, sizeof(name), "%s", options->name ? options->name : program ? program : "");
	(void)take_text(handle->name, sizeof(handle->name), name[0] ? name : NULL, NULL, "unnamed");
	handle->timeout_ms = options->timeout_ms ? options->timeout_ms : DEFAULT_TIMEOUT_MS;
	handle->spin_us = options->spin_us ? options->spin_us : DEFAULT_SPIN_US;
	return take_token(handle, options, trouble);
}

static int open_handle(riptide *handle, const struct riptide_options *options, char *trouble)
{
	int cancel_state, status = rt_threads_setup();

	if (status < 0)
		return rt_trouble(trouble, status, "cannot prepare for threads (%s); Linux 4.14 or later is needed",
				  strerror(errno));
	status = take_options(handle, options, trouble);
	(void)rt_process_setup(handle);
	if (status < 0)
		return status;
	handle->is_open = true;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	status = rt_attach(handle, rshm_now_ms() + handle->timeout_ms, trouble);
	pthread_setcancelstate(cancel_state, NULL);
	handle->is_open = status == RIPTIDE_OK;
	return status;
}

int riptide_open(const struct riptide_options *options, riptide **ret_handle)
{
	char trouble[RT_TEXT] = "";
	riptide *handle;
	int status;

	if (!ret_handle)
		return RIPTIDE_EINVALID;
	*ret_handle = NULL;
	handle = aligned_alloc(64, (sizeof(*handle) + 63) / 64 * 64);
	if (!handle)
		return RIPTIDE_ENOMEM;
	memset(handle, 0, sizeof(*handle));
	handle->process = rt_wiped_memory(sizeof(*handle->process));
	if (!handle->process) {
		status = errno == ENOMEM ? RIPTIDE_ENOMEM : RIPTIDE_ESYSTEM;
		free(handle);
		return status;
	}
	handle->magic = RT_MAGIC;
	status = open_handle(handle, options, trouble);
	/* Also when all went well, for then it says why there are no hot reads, if so. */
	if (status < 0 || trouble[0])
		(void)rt_fail(handle, status, "open", NULL, 0, trouble);
	*ret_handle = handle;
	return status;
}

void riptide_close(riptide **handle_place)
{
	riptide *handle = handle_place ? *handle_place : NULL;
	struct rt_process *process;

	if (!rt_handle_is_valid(handle))
		return;
	*handle_place = NULL;
	process = handle->process;
	if (handle->is_open)
		(void)rt_process_setup(handle);
	if (process->channel)
		rt_channel_destroy(handle, process->channel);
	rt_release_all(handle);
	handle->magic = 0;
	if (handle->token) {
		explicit_bzero(handle->token, handle->token_length);
		free(handle->token);
	}
	munmap(process, sizeof(*process));
	free(handle);
}
