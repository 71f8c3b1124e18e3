/*
 * fixture.h - write-behind over a real store, and that store once more to look behind it. For the tests of this
 * folder only.
 */
#ifndef BEHIND_FIXTURE_H
#define BEHIND_FIXTURE_H

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/store/behind/behind.h"
#include "agent/store/embedded/embedded.h"
#include "agent/store/envelope.h"
#include "agent/store/redis/redis.h"
#include "agent/store/store.h"
#include "shm/msg.h"
#include "tests/support/redis_server.h"

#define NEVER_MS 3600000u

enum backend { BACKEND_EMBEDDED, BACKEND_REDIS };

struct fixture {
	enum backend backend;
	char folder[64]; /* made by mkdtemp; the store is in <folder>/db, the journal in <folder>/journal */
	char db[80], journal[80], url[160];
	struct embedded_env *env;
	struct redis_server server;
	struct behind_config config;
	size_t envelope_max; /* of the redis store; 0 = its default */
	const char *tenants; /* those that owns() knows: ",a,b,"; NULL = all */
	uv_loop_t loop;
	uv_timer_t guard;     /* lets the loop come back to us */
	struct store *store;  /* the one under test */
	struct store *direct; /* what lies below it */
};

/* A request, and what it was answered, kept beyond `done`. */
struct call {
	struct store_request request;
	struct envelope_buffer buffer;
	bool done;
	int status;
	bool accepted;
	unsigned char *bytes;
	size_t length;
};

__attribute__((unused)) static void fixture_on_guard(uv_timer_t *timer)
{
	(void)timer;
}

__attribute__((unused)) static bool fixture_owns(void *context, struct store_name *name)
{
	const struct fixture *f = context;
	char word[80];

	snprintf(word, sizeof word, ",%s,", name->tenant);
	return f->tenants == NULL || strstr(f->tenants, word) != NULL;
}

/* The store below: the environment or the server, but nothing that lies over it. */
__attribute__((unused)) static struct store *fixture_inner(struct fixture *f)
{
	struct store_redis_config config = STORE_REDIS_CONFIG_DEFAULTS;
	struct store *store = NULL;
	char error[256] = "";

	if (f->backend == BACKEND_EMBEDDED) {
		assert_int_equal(embedded_store_create(f->env, &f->loop, &store), RSHM_OK);
		return store;
	}
	config.url = f->url;
	if (f->envelope_max != 0)
		config.envelope_max = f->envelope_max;
	config.retry_attempts = 0;
	config.retry_delay_ms = 10;
	config.retry_max_delay_ms = 50;
	config.connect_grace_ms = 50;
	if (store_redis_create(&f->loop, &config, &store, error, sizeof error) != RSHM_OK)
		fail_msg("%s", error);
	return store;
}

__attribute__((unused)) static void fixture_open_env(struct fixture *f)
{
	struct embedded_config config = EMBEDDED_CONFIG_DEFAULTS;
	char line[512];
	struct text error;

	if (f->backend != BACKEND_EMBEDDED)
		return;
	config.path = f->db;
	config.map_size = 256u << 20;
	config.sync = EMBEDDED_SYNC_NONE;
	config.expire_interval_ms = 60000;
	text_init(&error, line, sizeof line);
	if (embedded_env_open(&config, &f->env, &error) != RSHM_OK)
		fail_msg("%s", line);
}

/* Folder, server, loop; no store yet. Nothing is flushed unless a test wants it. */
__attribute__((unused)) static void fixture_init(struct fixture *f, enum backend backend)
{
	log_setup(LOG_FORMAT_TEXT, LOG_LEVEL_ERROR);
	memset(f, 0, sizeof *f);
	f->backend = backend;
	strcpy(f->folder, "/tmp/riptide-behind-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->db, sizeof f->db, "%s/db", f->folder);
	snprintf(f->journal, sizeof f->journal, "%s/journal", f->folder);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(uv_timer_init(&f->loop, &f->guard), 0);
	if (backend == BACKEND_REDIS) {
		assert_int_equal(redis_server_start(&f->server, NULL), 0);
		snprintf(f->url, sizeof f->url, "unix://%s", f->server.unix_path);
	}
	f->config = (struct behind_config)BEHIND_CONFIG_DEFAULTS;
	f->config.folder = f->journal;
	f->config.owns = fixture_owns;
	f->config.owns_context = f;
	/* The others start libuv's threads, and the thread sanitizer does not let a process with threads fork. */
	f->config.sync = BEHIND_SYNC_NONE;
	f->config.flush_interval_ms = NEVER_MS;
	f->config.flush_records = UINT64_MAX;
	f->config.flush_bytes = UINT64_MAX;
	f->config.retry_delay_ms = 10;
	f->config.retry_max_delay_ms = 40;
	f->config.sync_interval_ms = 20;
	f->config.close_timeout_ms = 5000;
}

__attribute__((unused)) static void fixture_open(struct fixture *f)
{
	struct store *inner;
	char error[512] = "";

	if (f->env == NULL)
		fixture_open_env(f);
	inner = fixture_inner(f);
	if (behind_create(&f->config, &f->loop, inner, &f->store, error, sizeof error) != RSHM_OK)
		fail_msg("%s", error);
	f->direct = fixture_inner(f);
}

__attribute__((unused)) static void fixture_on_closed(void *context)
{
	*(bool *)context = true;
}

__attribute__((unused)) static void fixture_close_store(struct fixture *f, struct store **store)
{
	bool closed = false;

	if (*store == NULL)
		return;
	store_close(*store, fixture_on_closed, &closed);
	while (!closed)
		uv_run(&f->loop, UV_RUN_ONCE);
	*store = NULL;
}

__attribute__((unused)) static void fixture_close(struct fixture *f)
{
	fixture_close_store(f, &f->store);
	fixture_close_store(f, &f->direct);
	embedded_env_close(&f->env);
}

/*
 * Opens the store in a process of its own, does something there, and kills that process. What `act` asserts there
 * comes out here. To be called while nothing is open.
 */
__attribute__((unused)) static void fixture_in_killed_child(struct fixture *f, void (*act)(struct fixture *f))
{
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		/* An assertion ends this process instead of going on with the parent's tests. */
		(void)setenv("CMOCKA_TEST_ABORT", "1", 1);
		/* The parent's loop has the parent's epoll descriptor. */
		if (uv_loop_init(&f->loop) != 0 || uv_timer_init(&f->loop, &f->guard) != 0)
			_exit(1);
		fixture_open(f);
		act(f);
		(void)kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
}

__attribute__((unused)) static void fixture_fini(struct fixture *f)
{
	char command[128];

	fixture_close(f);
	if (!uv_is_closing((uv_handle_t *)&f->guard))
		uv_close((uv_handle_t *)&f->guard, NULL);
	while (uv_loop_close(&f->loop) == UV_EBUSY)
		uv_run(&f->loop, UV_RUN_ONCE);
	if (f->backend == BACKEND_REDIS)
		redis_server_stop(&f->server);
	snprintf(command, sizeof command, "rm -rf %s", f->folder);
	assert_int_equal(system(command), 0);
}

__attribute__((unused)) static void fixture_run_for(struct fixture *f, uint64_t ms)
{
	uint64_t end_ms = clock_monotonic_ms() + ms;

	uv_timer_start(&f->guard, fixture_on_guard, 5, 5);
	while (clock_monotonic_ms() < end_ms)
		uv_run(&f->loop, UV_RUN_ONCE);
	uv_timer_stop(&f->guard);
}

__attribute__((unused)) static struct behind_figures figures(const struct fixture *f)
{
	struct behind_figures figures;

	behind_figures(f->store, &figures);
	return figures;
}

/* Runs until nothing is left to flush. */
__attribute__((unused)) static void fixture_drain(struct fixture *f)
{
	uint64_t end_ms = clock_monotonic_ms() + 20000;

	uv_timer_start(&f->guard, fixture_on_guard, 5, 5);
	while (figures(f).depth_records > 0 && clock_monotonic_ms() < end_ms)
		uv_run(&f->loop, UV_RUN_ONCE);
	uv_timer_stop(&f->guard);
	assert_int_equal(figures(f).depth_records, 0);
}

__attribute__((unused)) static void call_on_done(struct store_request *request)
{
	struct call *call = request->context;

	assert_false(call->done);
	call->done = true;
	call->status = request->status;
	call->accepted = request->accepted;
	if (request->status == RSHM_OK && request->result != NULL) {
		call->length = request->result_len;
		call->bytes = malloc(request->result_len + 1);
		assert_non_null(call->bytes);
		memcpy(call->bytes, request->result, request->result_len);
	}
}

__attribute__((unused)) static void call_init(struct call *call, enum store_op op, const char *key)
{
	memset(call, 0, sizeof *call);
	call->request.op = op;
	call->request.name = (struct store_name){
		.tenant = "default",
		.tenant_number = 1,
		.shards = 1,
		.generation = 1,
		.space = 'c',
		.key = key,
		.key_len = strlen(key),
	};
	call->request.page_keys = 1000;
	call->request.head_bytes = ENVELOPE_HEAD_BYTES;
	call->request.deadline_ms = clock_monotonic_ms() + 10000;
	call->request.done = call_on_done;
	call->request.context = call;
}

/* An envelope of `value`, a tombstone if that is NULL. */
__attribute__((unused)) static void call_load(struct call *call, const char *value, uint64_t version,
					      uint64_t expiry_ms)
{
	struct envelope_input input = {
		.key = call->request.name.key,
		.key_len = call->request.name.key_len,
		.value = value,
		.value_len = value == NULL ? 0 : strlen(value),
		.created_ms = clock_realtime_ms(),
		.expiry_ms = expiry_ms,
		.version = version,
		.writer_id = 7,
		.flags = value == NULL ? ENVELOPE_FLAG_TOMBSTONE : 0,
	};

	assert_int_equal(envelope_encode(&input, NULL, &call->buffer), RSHM_OK);
	call->request.envelope = call->buffer.bytes;
	call->request.envelope_len = call->buffer.length;
	call->request.expiry_ms = expiry_ms;
}

__attribute__((unused)) static void call_fini(struct call *call)
{
	assert_true(call->done);
	envelope_buffer_fini(&call->buffer);
	free(call->bytes);
	call->bytes = NULL;
}

__attribute__((unused)) static int call_wait(struct fixture *f, struct call *call)
{
	uint64_t end_ms = clock_monotonic_ms() + 20000;

	uv_timer_start(&f->guard, fixture_on_guard, 5, 5);
	while (!call->done && clock_monotonic_ms() < end_ms)
		uv_run(&f->loop, UV_RUN_ONCE);
	uv_timer_stop(&f->guard);
	assert_true(call->done);
	return call->status;
}

__attribute__((unused)) static int call_run(struct fixture *f, struct store *store, struct call *call)
{
	store_submit(store, &call->request);
	return call_wait(f, call);
}

/* A write of `op` that is waited for; `behind` must come back as `accepted` if it succeeds. */
__attribute__((unused)) static int write_key(struct fixture *f, enum store_op op, bool behind, const char *key,
					     const char *value, uint64_t version, uint64_t expiry_ms)
{
	struct call call;

	call_init(&call, op, key);
	call_load(&call, value, version, expiry_ms);
	call.request.behind = behind;
	(void)call_run(f, f->store, &call);
	if (call.status == RSHM_OK)
		assert_int_equal(call.accepted, behind);
	call_fini(&call);
	return call.status;
}

__attribute__((unused)) static int put_behind(struct fixture *f, const char *key, const char *value, uint64_t version)
{
	return write_key(f, STORE_PUT, true, key, value, version, 0);
}

__attribute__((unused)) static int delete_behind(struct fixture *f, const char *key, uint64_t version)
{
	return write_key(f, STORE_DELETE, true, key, NULL, version, 0);
}

__attribute__((unused)) static int put_through(struct fixture *f, const char *key, const char *value,
					       uint64_t version)
{
	return write_key(f, STORE_PUT, false, key, value, version, 0);
}

__attribute__((unused)) static int delete_through(struct fixture *f, const char *key, uint64_t version)
{
	return write_key(f, STORE_DELETE, false, key, NULL, version, 0);
}

/* The key has this very value (NULL: it is not there) for whoever asks `store`. */
__attribute__((unused)) static void assert_value(struct fixture *f, struct store *store, const char *key,
						 const char *value)
{
	struct envelope_view view;
	struct call call;

	call_init(&call, STORE_GET, key);
	/* A server that has just come back is not connected at once. */
	for (int i = 0; call_run(f, store, &call) == RSHM_E_AGAIN && i < 100; i++) {
		fixture_run_for(f, 20);
		call.done = false;
	}
	if (call.status == RSHM_OK) {
		assert_int_equal(envelope_open(call.bytes, call.length, key, strlen(key), &view), RSHM_OK);
		/* The stores below hand out tombstones. */
		if ((view.head.flags & ENVELOPE_FLAG_TOMBSTONE) != 0)
			call.status = RSHM_MISS;
	}
	if (value == NULL) {
		assert_int_equal(call.status, RSHM_MISS);
	} else {
		assert_int_equal(call.status, RSHM_OK);
		assert_int_equal(view.head.plain_size, strlen(value));
		assert_memory_equal(view.payload, value, strlen(value));
	}
	call_fini(&call);
}

/* Files in the journal folder whose name begins so. */
__attribute__((unused)) static int count_files(const struct fixture *f, const char *prefix)
{
	DIR *directory = opendir(f->journal);
	struct dirent *entry;
	int count = 0;

	assert_non_null(directory);
	while ((entry = readdir(directory)) != NULL)
		count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
	closedir(directory);
	return count;
}

#endif
