/*
 * client.c - the life of a channel: hand-over, bell, death.
 *
 * The doorbell socket tells that a client rings (bytes), or is gone (end of file, also across PID namespaces); the pidfd
 * tells it too, because children of fork() keep the socket open. A client that breaks the protocol is dropped the same
 * way: its socket is closed, which is what it sees. Memory goes when its last operation has come back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/serve/serve_priv.h"

/* ---- references --------------------------------------------------------------------------------------------- */

void client_ref(struct client *client)
{
	client->references++;
}

void client_unref(struct client *client)
{
	must(client->references > 0);
	if (--client->references > 0 || client->handles > 0)
		return;
	for (unsigned int i = 0; i < RSHM_SLOTS; i++)
		slot_clear(&client->slots[i]);
	rshm_unmap(&client->map);
	client->tenant->client_objects--;
	free(client->hit_ns);
	free(client);
}

static void handle_on_close(uv_handle_t *handle)
{
	struct client *client = handle->data;

	if (--client->handles > 0)
		return;
	close(client->fd);
	if (client->pidfd >= 0)
		close(client->pidfd);
	client_unref(client);
}

static void leave_ring(struct client *client)
{
	struct serve_tenant *tenant = client->tenant;

	client->next->prev = client->prev;
	client->prev->next = client->next;
	if (tenant->clients == client)
		tenant->clients = client->next == client ? NULL : client->next;
}

static void enter_ring(struct client *client)
{
	struct client *first = client->tenant->clients;

	if (!first) {
		client->next = client->prev = client;
		client->tenant->clients = client;
		return;
	}
	client->next = first;
	client->prev = first->prev;
	first->prev->next = client;
	first->prev = client;
}

void client_drop(struct client *client, const char *why)
{
	struct worker *worker = client->worker;
	static struct log_limit limit = LOG_LIMIT(20, 10000);

	if (client->dropped)
		return;
	if (why) {
		worker->totals.protocol_errors++;
		log_limited(&limit, LOG_LEVEL_WARN, "serve", "channel %llu (uid %u, tenant %s) is closed: %s",
			    (unsigned long long)client->channel_id, (unsigned int)client->uid,
			    client->tenant->tenant->id, why);
	}
	figures_drain_client(client);
	for (unsigned int i = 0; i < RSHM_SHARDS; i++)
		budget_credit(client, i, true);
	client->dropped = true;
	worker->totals.ended_channels++;
	worker->client_count--;
	if (client->awake) {
		worker->awake_count--;
		client->tenant->awake_clients--;
	}
	leave_ring(client);
	fetch_drop_client(client);
	for (unsigned int i = 0; i < RSHM_SLOTS; i++)
		if (client->slots[i].phase != SLOT_EXECUTING)
			slot_clear(&client->slots[i]);
	if (client->figures)
		rshm_store_release(&client->figures->in_use, 0);
	uv_close((uv_handle_t *)&client->bell, handle_on_close);
	if (client->pidfd >= 0)
		uv_close((uv_handle_t *)&client->death, handle_on_close);
	shutdown(client->fd, SHUT_RDWR);
	worker->env->channel_closed(worker->env->context, client->uid, client->figures_index);
}

/* ---- bells -------------------------------------------------------------------------------------------------- */

void client_wake(struct client *client)
{
	struct serve_tenant *tenant = client->tenant;
	struct worker *worker = client->worker;

	if (client->awake || client->dropped)
		return;
	rshm_channel_disarm(client->channel);
	client->awake = true;
	client->active_ns = clock_monotonic_ns();
	worker->awake_count++;
	tenant->awake_clients++;
	if (tenant->listed_awake)
		return;
	tenant->listed_awake = true;
	worker->awake[worker->awake_tenants++] = tenant;
}

static bool rings_too_often(struct client *client, uint32_t bells)
{
	uint64_t now_ms = clock_monotonic_ms();

	if (now_ms - client->bell_window_ms >= 1000) {
		client->bell_window_ms = now_ms;
		client->bells = 0;
	}
	client->bells += bells;
	return client->bells > client->worker->env->options.bells_per_second;
}

static void bell_on_ready(uv_poll_t *poll, int status, int events)
{
	struct client *client = poll->data;
	unsigned char bytes[256];
	ssize_t n = recv(client->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	(void)events;
	if (status < 0 || n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		client_drop(client, NULL);
		return;
	}
	if (n > 0 && rings_too_often(client, (uint32_t)n)) {
		client_drop(client, "it rings the bell more often than limits.bells_per_second allows");
		return;
	}
	client_wake(client);
}

static void death_on_ready(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	client_drop(poll->data, NULL);
}

/* ---- hand-over ---------------------------------------------------------------------------------------------- */

static int send_channel(int fd, int channel_fd)
{
	char welcome = 0;
	struct iovec byte = {.iov_base = &welcome, .iov_len = 1};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr message = {
		.msg_iov = &byte,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *header;

	memset(&control, 0, sizeof(control));
	header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &channel_fd, sizeof(int));
	return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 ? RSHM_OK : RSHM_E_CLOSED;
}

static int make_channel(struct client *client)
{
	const struct serve_environment *env = client->worker->env;
	struct rshm_header header = {.generation = client->channel_id};
	int fd, status = rshm_map_create_channel(&client->map, &fd);

	if (status < 0)
		return status;
	memcpy(header.instance, env->hot->instance, sizeof(header.instance));
	memcpy(header.boot_id, env->hot->boot_id, sizeof(header.boot_id));
	rshm_channel_format(client->map.base, &header, client->channel_id);
	client->channel = client->map.base;
	budget_begin_client(client);
	status = send_channel(client->fd, fd);
	close(fd);
	return status;
}

static void begin_figures(struct client *client, const struct worker_client *from)
{
	struct rshm_agent *agent = client->worker->env->agent;
	struct rshm_figures *figures;

	if (from->figures_index >= agent->client_capacity)
		return;
	figures = rshm_agent_clients(agent, agent->tenant_capacity) + from->figures_index;
	memset((char *)figures + sizeof(figures->in_use), 0, sizeof(*figures) - sizeof(figures->in_use));
	figures->process_id = (uint32_t)from->pid;
	figures->user_id = from->uid;
	memcpy(figures->name, client->tenant->tenant->id, sizeof(client->tenant->tenant->id));
	memcpy(figures->program, from->program, sizeof(figures->program));
	figures->program[sizeof(figures->program) - 1] = '\0';
	/* Pairs with the acquire of whoever lists clients: who sees the number sees the names. */
	rshm_store_release(&figures->in_use, from->channel_id);
	client->figures = figures;
}

static void watch(struct client *client, pid_t pid)
{
	struct worker *worker = client->worker;

	must(uv_poll_init(&worker->loop, &client->bell, client->fd) == 0);
	client->bell.data = client;
	client->handles = 1;
	uv_poll_start(&client->bell, UV_READABLE | UV_DISCONNECT, bell_on_ready);
	client->pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	if (client->pidfd >= 0 && uv_poll_init(&worker->loop, &client->death, client->pidfd) == 0) {
		client->death.data = client;
		client->handles = 2;
		uv_poll_start(&client->death, UV_READABLE, death_on_ready);
	} else if (client->pidfd >= 0) {
		close(client->pidfd);
		client->pidfd = -1;
	}
}

int client_connect(struct worker *worker, const struct worker_client *from)
{
	struct serve_tenant *tenant = tenants_find(worker, from->tenant);
	struct client *client;
	int status;

	/* It may have been closed since the client was let in. */
	if (!tenant || tenant->end.done)
		return RSHM_E_CLOSED;
	client = calloc(1, sizeof(*client));
	if (!client)
		return RSHM_E_NOMEM;
	client->worker = worker;
	client->tenant = tenant;
	client->fd = from->fd;
	client->uid = from->uid;
	client->gid = from->gid;
	client->pid = from->pid;
	client->read_only = from->read_only;
	client->until_ms = from->until_ms;
	client->channel_id = from->channel_id;
	client->figures_index = from->figures_index;
	/* Counters begin now: the first drain believes no more than happened since. */
	client->drained_ms = clock_monotonic_ms();
	client->references = 1;
	for (unsigned int i = 0; i < RSHM_SLOTS; i++) {
		client->slots[i].client = client;
		client->slots[i].number = i;
	}
	status = make_channel(client);
	if (status < 0) {
		rshm_unmap(&client->map);
		free(client);
		return status;
	}
	watch(client, from->pid);
	enter_ring(client);
	worker->client_count++;
	tenant->client_objects++;
	begin_figures(client, from);
	return RSHM_OK;
}
