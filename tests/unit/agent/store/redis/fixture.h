/*
 * fixture.h - a store on a loop of its own, and requests that remember what they were answered. For this folder only.
 */
#ifndef REDIS_FIXTURE_H
#define REDIS_FIXTURE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>
#include <uv.h>

#include "agent/base/clock.h"
#include "agent/base/metric.h"
#include "agent/store/envelope.h"
#include "agent/store/redis/redis.h"
#include "agent/store/store.h"
#include "shm/msg.h"
#include "tests/support/redis_server.h"

struct fixture {
	struct redis_server server;
	struct store_redis_config config;
	char url[256];
	uv_loop_t loop;
	uv_timer_t guard; /* lets the loop come back to us */
	struct store *store;
	bool closed;
	uint32_t outstanding;
};

struct call {
	struct store_request request;
	struct fixture *fixture;
	uint32_t answers;
	int status;
	unsigned char *bytes;
	size_t length;
	uint64_t remaining_ms, submitted_ms, answered_ms;
};

__attribute__((unused)) static void fixture_on_guard(uv_timer_t *timer)
{
	(void)timer;
}

/* No server, no store. */
__attribute__((unused)) static struct fixture *fixture_create(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->config = (struct store_redis_config)STORE_REDIS_CONFIG_DEFAULTS;
	f->config.retry_delay_ms = 10;
	f->config.retry_max_delay_ms = 50;
	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(uv_timer_init(&f->loop, &f->guard), 0);
	return f;
}

__attribute__((unused)) static void fixture_open(struct fixture *f)
{
	char error[256] = "";

	if (f->url[0] == '\0')
		snprintf(f->url, sizeof(f->url), "unix://%s", f->server.unix_path);
	f->config.url = f->url;
	if (store_redis_create(&f->loop, &f->config, &f->store, error, sizeof(error)) != RSHM_OK)
		fail_msg("%s", error);
}

/* Runs the loop until `*value >= least` or the time is up. */
__attribute__((unused)) static bool fixture_run(struct fixture *f, const uint32_t *value, uint32_t least, uint64_t ms)
{
	uint64_t end_ms = clock_monotonic_ms() + ms;

	uv_timer_start(&f->guard, fixture_on_guard, 5, 5);
	while (__atomic_load_n(value, __ATOMIC_RELAXED) < least && clock_monotonic_ms() < end_ms)
		uv_run(&f->loop, UV_RUN_ONCE);
	uv_timer_stop(&f->guard);
	return __atomic_load_n(value, __ATOMIC_RELAXED) >= least;
}

__attribute__((unused)) static void fixture_run_for(struct fixture *f, uint64_t ms)
{
	const uint32_t never = 0;

	(void)fixture_run(f, &never, 1, ms);
}

__attribute__((unused)) static void fixture_on_closed(void *context)
{
	((struct fixture *)context)->closed = true;
}

__attribute__((unused)) static void fixture_close(struct fixture *f)
{
	store_close(f->store, fixture_on_closed, f);
	uv_timer_start(&f->guard, fixture_on_guard, 5, 5);
	for (int i = 0; i < 2000 && !f->closed; i++)
		uv_run(&f->loop, UV_RUN_ONCE);
	assert_true(f->closed);
	assert_int_equal(f->outstanding, 0);
	f->store = NULL;
	f->closed = false;
	uv_timer_stop(&f->guard);
}

__attribute__((unused)) static void fixture_destroy(struct fixture *f)
{
	if (f->store != NULL)
		fixture_close(f);
	uv_close((uv_handle_t *)&f->guard, NULL);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	redis_server_stop(&f->server);
	free(f);
}

__attribute__((unused)) static void call_on_done(struct store_request *request)
{
	struct call *call = request->context;

	call->answers++;
	call->status = request->status;
	call->remaining_ms = request->remaining_ms;
	call->answered_ms = clock_monotonic_ms();
	if (request->status == RSHM_OK && request->result != NULL && call->bytes == NULL) {
		call->length = request->result_len;
		call->bytes = malloc(request->result_len + 1);
		assert_non_null(call->bytes);
		memcpy(call->bytes, request->result, request->result_len);
	}
	call->fixture->outstanding--;
}

__attribute__((unused)) static void call_start(struct fixture *f, struct call *call, enum store_op op,
					       const void *key, size_t key_len, uint64_t patience_ms)
{
	struct store_request *request = &call->request;

	call->fixture = f;
	request->op = op;
	request->name = (struct store_name){.tenant = "t1",
					    .tenant_number = 1,
					    .shards = 1,
					    .generation = 1,
					    .space = 'c',
					    .key = key,
					    .key_len = key_len};
	call->submitted_ms = clock_monotonic_ms();
	request->deadline_ms = call->submitted_ms + patience_ms;
	request->done = call_on_done;
	request->context = call;
	f->outstanding++;
	store_submit(f->store, request);
	/* Never from inside submit. */
	assert_int_equal(call->answers, 0);
}

__attribute__((unused)) static int call_wait(struct fixture *f, struct call *call)
{
	assert_true(fixture_run(f, &call->answers, 1, 20000));
	assert_int_equal(call->answers, 1);
	return call->status;
}

__attribute__((unused)) static void call_fini(struct call *call)
{
	free(call->bytes);
	memset(call, 0, sizeof(*call));
}

/* One after the other, as most tests want it. */
__attribute__((unused)) static int fixture_put(struct fixture *f, const char *key, const void *bytes, size_t length,
					       uint64_t expiry_ms)
{
	struct call call = {
		.request.envelope = bytes, .request.envelope_len = length, .request.expiry_ms = expiry_ms};

	call_start(f, &call, STORE_PUT, key, strlen(key), 5000);
	return call_wait(f, &call);
}

__attribute__((unused)) static int fixture_op(struct fixture *f, enum store_op op, const char *key,
					      uint64_t expiry_ms)
{
	struct call call = {.request.expiry_ms = expiry_ms};
	int status;

	call_start(f, &call, op, key, strlen(key), 5000);
	status = call_wait(f, &call);
	call_fini(&call);
	return status;
}

/* RSHM_OK and the very bytes. */
__attribute__((unused)) static void assert_stored(struct fixture *f, const char *key, const void *bytes,
						  size_t length)
{
	struct call call = {.answers = 0};

	call_start(f, &call, STORE_GET, key, strlen(key), 5000);
	assert_int_equal(call_wait(f, &call), RSHM_OK);
	assert_int_equal(call.length, length);
	assert_memory_equal(call.bytes, bytes, length);
	call_fini(&call);
}

/* A build without metrics counts nothing: first in a test that looks at them. */
__attribute__((unused)) static void fixture_needs_metrics(void)
{
	if (!RIPTIDE_METRICS)
		skip();
}

__attribute__((unused)) static uint64_t fixture_metric(struct fixture *f, enum store_redis_metric metric)
{
	return metric_value(store_redis_metrics(f->store), metric);
}

/* A command of a blocking connection of its own; an integer answer, or -1 and an error on stderr. */
__attribute__((unused, format(printf, 2, 3))) static long long admin(struct fixture *f, const char *format, ...)
{
	redisContext *context = redisConnectUnix(f->server.unix_path);
	long long result = -1;
	redisReply *reply;
	va_list args;

	assert_non_null(context);
	assert_int_equal(context->err, 0);
	va_start(args, format);
	reply = redisvCommand(context, format, args);
	va_end(args);
	assert_non_null(reply);
	if (reply->type == REDIS_REPLY_ERROR)
		fail_msg("%s: %s", format, reply->str);
	if (reply->type == REDIS_REPLY_INTEGER)
		result = reply->integer;
	freeReplyObject(reply);
	redisFree(context);
	return result;
}

/* How many connections the server sees beside the one that asks, and the id of the youngest of them. */
__attribute__((unused)) static uint32_t admin_clients(struct fixture *f, unsigned long long *ret_newest)
{
	redisContext *context = redisConnectUnix(f->server.unix_path);
	unsigned long long newest = 0;
	uint32_t count = 0;
	redisReply *reply;

	assert_int_equal(context->err, 0);
	reply = redisCommand(context, "CLIENT LIST");
	assert_non_null(reply);
	assert_int_equal(reply->type, REDIS_REPLY_STRING);
	for (const char *line = reply->str; *line != '\0'; line = strchr(line, '\n') + 1) {
		const char *end = strchr(line, '\n');
		const char *name = memmem(line, (size_t)(end - line), "name=riptided", 13);
		unsigned long long id = strtoull(line + 3, NULL, 10);

		if (name == NULL)
			continue;
		count++;
		if (id > newest)
			newest = id;
	}
	if (ret_newest != NULL)
		*ret_newest = newest;
	freeReplyObject(reply);
	redisFree(context);
	return count;
}

/* A listener on 127.0.0.1, for a scripted peer. */
__attribute__((unused)) static int fixture_listen(uint16_t *ret_port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 64), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	*ret_port = ntohs(address.sin_port);
	return listener;
}

/* How often the server ran a command since its statistics were reset. */
__attribute__((unused)) static long long command_calls(struct fixture *f, const char *name)
{
	redisContext *context = redisConnectUnix(f->server.unix_path);
	redisReply *reply = redisCommand(context, "INFO commandstats");
	char line[64];
	const char *found;
	long long calls = 0;

	assert_non_null(reply);
	snprintf(line, sizeof(line), "cmdstat_%s:calls=", name);
	found = strstr(reply->str, line);
	if (found)
		calls = atoll(found + strlen(line));
	freeReplyObject(reply);
	redisFree(context);
	return calls;
}

/* The same noise every time. */
__attribute__((unused)) static unsigned char *make_noise(size_t length)
{
	unsigned char *bytes = malloc(length + 1);
	uint64_t state = 88172645463325252ull;

	assert_non_null(bytes);
	for (size_t i = 0; i < length; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		bytes[i] = (unsigned char)state;
	}
	return bytes;
}

#endif
