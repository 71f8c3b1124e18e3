/*
 * A write that timed out is somewhere between us and the server. Here that somewhere is a proxy, which holds it back until a
 * newer write of the same key was acknowledged, and then lets it go.
 */
#include "tests/unit/agent/store/redis/fixture.h"

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#define PAIRS_MAX 32u

/* One thread that joins each client to a connection of its own to the server. */
struct proxy {
	bool running;
	pthread_t thread;
	int listener;
	char path[108], server_path[108];
	uint32_t stop, accepted,
		held_below; /* atomic; of pairs with a lower number nothing is passed to the server */
	struct pair {
		int client, server;
	} pairs[PAIRS_MAX];
};

static struct proxy proxy; /* one test at a time */

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void pair_close(struct pair *pair)
{
	close(pair->client);
	close(pair->server);
	pair->client = pair->server = -1;
}

/* False: one of the ends is no more. */
static bool pass_on(int from, int to)
{
	char buffer[65536];
	ssize_t length = recv(from, buffer, sizeof(buffer), 0);

	return length > 0 && send(to, buffer, (size_t)length, MSG_NOSIGNAL) == length;
}

static void *proxy_run(void *context)
{
	(void)context;
	while (!__atomic_load_n(&proxy.stop, __ATOMIC_ACQUIRE)) {
		struct pollfd fds[2 * PAIRS_MAX + 1];
		uint32_t count = __atomic_load_n(&proxy.accepted, __ATOMIC_RELAXED);
		uint32_t held_below = __atomic_load_n(&proxy.held_below, __ATOMIC_ACQUIRE);

		for (uint32_t i = 0; i < count; i++) {
			fds[2 * i] = (struct pollfd){i < held_below ? -1 : proxy.pairs[i].client, POLLIN, 0};
			fds[2 * i + 1] = (struct pollfd){proxy.pairs[i].server, POLLIN, 0};
		}
		fds[2 * count] = (struct pollfd){count < PAIRS_MAX ? proxy.listener : -1, POLLIN, 0};
		if (poll(fds, 2 * count + 1, 2) <= 0)
			continue;
		for (uint32_t i = 0; i < count; i++) {
			struct pair *pair = &proxy.pairs[i];

			if ((fds[2 * i].revents != 0 && !pass_on(pair->client, pair->server)) ||
			    (fds[2 * i + 1].revents != 0 && !pass_on(pair->server, pair->client)))
				pair_close(pair);
		}
		if (fds[2 * count].revents != 0) {
			proxy.pairs[count].client = accept(proxy.listener, NULL, NULL);
			proxy.pairs[count].server = connect_to(proxy.server_path);
			__atomic_store_n(&proxy.accepted, count + 1, __ATOMIC_RELEASE);
		}
	}
	return NULL;
}

static void proxy_start(struct fixture *f)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	proxy = (struct proxy){.running = true};
	snprintf(proxy.path, sizeof(proxy.path), "%s/proxy", f->server.folder);
	strcpy(proxy.server_path, f->server.unix_path);
	strcpy(address.sun_path, proxy.path);
	proxy.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(proxy.listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(proxy.listener, 16), 0);
	assert_int_equal(pthread_create(&proxy.thread, NULL, proxy_run, NULL), 0);
	snprintf(f->url, sizeof(f->url), "unix://%s", proxy.path);
}

static void proxy_stop(void)
{
	if (!proxy.running)
		return;
	proxy.running = false;
	__atomic_store_n(&proxy.stop, 1, __ATOMIC_RELEASE);
	pthread_join(proxy.thread, NULL);
	for (uint32_t i = 0; i < proxy.accepted; i++)
		pair_close(&proxy.pairs[i]);
	close(proxy.listener);
}

static int with_server(void **state)
{
	struct fixture *f = fixture_create();

	*state = f;
	f->config.pool_min = 2;
	f->config.connect_grace_ms = 3000;
	return redis_server_start(&f->server, NULL);
}

static int without(void **state)
{
	proxy_stop();
	fixture_destroy(*state);
	return 0;
}

/* What "k" holds after an old write was held back beyond a newer one. */
static void overtake(struct fixture *f)
{
	struct call old = {.request.envelope = "old", .request.envelope_len = 3};

	fixture_open(f);
	assert_int_equal(fixture_put(f, "k", "first", 5, 0), RSHM_OK);
	fixture_run_for(f, 50);
	__atomic_store_n(&proxy.held_below, __atomic_load_n(&proxy.accepted, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
	fixture_run_for(f, 20);
	call_start(f, &old, STORE_PUT, "k", 1, 100);
	assert_int_equal(call_wait(f, &old), RSHM_E_UNKNOWN);
	assert_stored(f, "k", "first", 5);
}

static void held_back_write_never_overtakes_a_newer_one(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;

	f->config.pool_min = 1;
	proxy_start(f);
	overtake(f);
	assert_int_equal(fixture_put(f, "k", "new", 3, 0), RSHM_OK);
	__atomic_store_n(&proxy.held_below, 0, __ATOMIC_RELEASE);
	fixture_run_for(f, 100);
	assert_stored(f, "k", "new", 3);
	assert_int_equal(fixture_metric(f, STORE_REDIS_KILLS), 1);
}

static void every_lost_write_connection_is_killed_before_the_next_write(void **state)
{
	fixture_needs_metrics();
	struct fixture *f = *state;
	struct call write = {.request.envelope = "new", .request.envelope_len = 3};

	f->config.pool_min = 1;
	proxy_start(f);
	overtake(f);
	/* The successor is lost in the same way. */
	__atomic_store_n(&proxy.held_below, __atomic_load_n(&proxy.accepted, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
	fixture_run_for(f, 20);
	call_start(f, &write, STORE_PUT, "k", 1, 100);
	assert_int_equal(call_wait(f, &write), RSHM_E_UNKNOWN);
	assert_int_equal(fixture_put(f, "k", "newest", 6, 0), RSHM_OK);
	__atomic_store_n(&proxy.held_below, 0, __ATOMIC_RELEASE);
	fixture_run_for(f, 100);
	assert_stored(f, "k", "newest", 6);
	assert_int_equal(fixture_metric(f, STORE_REDIS_KILLS), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(held_back_write_never_overtakes_a_newer_one, with_server, without),
		cmocka_unit_test_setup_teardown(every_lost_write_connection_is_killed_before_the_next_write,
						with_server, without),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
