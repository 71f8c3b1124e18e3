/*
 * fixture.h - a store in a folder of its own, and calls that wait for their answer. For the tests of this
 * folder only.
 */
#ifndef EMBEDDED_FIXTURE_H
#define EMBEDDED_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <lmdb.h>
#include <uv.h>

#include "agent/base/clock.h"
#include "agent/base/text.h"
#include "agent/store/embedded/embedded.h"
#include "agent/store/envelope.h"
#include "agent/store/store.h"
#include "shm/msg.h"

struct fixture {
	char folder[64]; /* made by mkdtemp; the store is in <folder>/db */
	char path[80];
	struct embedded_config config;
	struct embedded_env *env;
	uv_loop_t loop;
	struct store *store;
};

/* A request, and what it was answered, kept beyond `done`. */
struct call {
	struct store_request request;
	bool done;
	int status;
	unsigned char *bytes;
	size_t length;
	uint64_t remaining_ms;
};

__attribute__((unused)) static void fixture_init(struct fixture *f)
{
	memset(f, 0, sizeof *f);
	strcpy(f->folder, "/tmp/riptide-embedded-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof f->path, "%s/db", f->folder);
	f->config = (struct embedded_config)EMBEDDED_CONFIG_DEFAULTS;
	f->config.path = f->path;
	f->config.map_size = 1ull << 30;
	f->config.sync = EMBEDDED_SYNC_NONE;
	f->config.expire_interval_ms = 60000;
	assert_int_equal(uv_loop_init(&f->loop), 0);
}

__attribute__((unused)) static void fixture_open(struct fixture *f)
{
	char line[512];
	struct text error;
	int status;

	text_init(&error, line, sizeof line);
	status = embedded_env_open(&f->config, &f->env, &error);
	if (status != RSHM_OK)
		print_error("%s\n", line);
	assert_int_equal(status, RSHM_OK);
	assert_int_equal(embedded_store_create(f->env, &f->loop, &f->store), RSHM_OK);
}

__attribute__((unused)) static void fixture_on_closed(void *context)
{
	*(bool *)context = true;
}

__attribute__((unused)) static void fixture_close_store(struct store *store, uv_loop_t *loop)
{
	bool closed = false;

	store_close(store, fixture_on_closed, &closed);
	while (!closed)
		uv_run(loop, UV_RUN_ONCE);
}

__attribute__((unused)) static void fixture_close(struct fixture *f)
{
	fixture_close_store(f->store, &f->loop);
	f->store = NULL;
	embedded_env_close(&f->env);
	assert_null(f->env);
}

__attribute__((unused)) static void fixture_fini(struct fixture *f)
{
	char command[128];

	/* A test that failed leaves its store open. */
	if (f->store != NULL)
		fixture_close(f);
	while (uv_loop_close(&f->loop) == UV_EBUSY)
		uv_run(&f->loop, UV_RUN_ONCE);
	snprintf(command, sizeof command, "rm -rf %s", f->folder);
	assert_int_equal(system(command), 0);
}

/* Opening must fail with `status` and one line that names the path. */
__attribute__((unused)) static void assert_open_fails(struct fixture *f, int status, const char *words)
{
	char line[512];
	struct text error;
	struct embedded_env *env = NULL;

	text_init(&error, line, sizeof line);
	assert_int_equal(embedded_env_open(&f->config, &env, &error), status);
	assert_null(env);
	assert_non_null(strstr(line, f->config.path));
	if (strstr(line, words) == NULL)
		print_error("%s\n", line);
	assert_non_null(strstr(line, words));
	assert_null(strchr(line, '\n'));
}

__attribute__((unused)) static void call_on_done(struct store_request *request)
{
	struct call *call = request->context;

	assert_false(call->done);
	call->done = true;
	call->status = request->status;
	call->length = request->result_len;
	call->remaining_ms = request->remaining_ms;
	call->bytes = NULL;
	if (request->result != NULL) {
		call->bytes = malloc(request->result_len + 1);
		assert_non_null(call->bytes);
		memcpy(call->bytes, request->result, request->result_len);
	}
}

__attribute__((unused)) static void call_init(struct call *call, enum store_op op, const void *key, size_t key_len)
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
		.key_len = key_len,
	};
	call->request.deadline_ms = clock_monotonic_ms() + 30000;
	call->request.done = call_on_done;
	call->request.context = call;
}

__attribute__((unused)) static void call_wait(struct call *call, uv_loop_t *loop)
{
	while (!call->done)
		uv_run(loop, UV_RUN_ONCE);
}

__attribute__((unused)) static int call_run(struct call *call, struct store *store, uv_loop_t *loop)
{
	store_submit(store, &call->request);
	call_wait(call, loop);
	return call->status;
}

__attribute__((unused)) static struct envelope_buffer envelope_of(const void *key, size_t key_len, const void *value,
								  size_t value_len, uint64_t expiry_ms)
{
	struct envelope_input input = {
		.key = key,
		.key_len = key_len,
		.metadata = "m",
		.metadata_len = 1,
		.value = value,
		.value_len = value_len,
		.created_ms = clock_realtime_ms(),
		.expiry_ms = expiry_ms,
		.version = 1,
	};
	struct envelope_buffer buffer;

	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	return buffer;
}

__attribute__((unused)) static int put(struct fixture *f, const void *key, size_t key_len, const void *value,
				       size_t value_len, uint64_t expiry_ms)
{
	struct envelope_buffer buffer = envelope_of(key, key_len, value, value_len, expiry_ms);
	struct call call;
	int status;

	call_init(&call, STORE_PUT, key, key_len);
	call.request.envelope = buffer.bytes;
	call.request.envelope_len = buffer.length;
	call.request.expiry_ms = expiry_ms;
	status = call_run(&call, f->store, &f->loop);
	envelope_buffer_fini(&buffer);
	return status;
}

/* RSHM_OK only if the stored envelope is whole and holds exactly this value. */
__attribute__((unused)) static int get_expect(struct fixture *f, const void *key, size_t key_len, const void *value,
					      size_t value_len)
{
	struct envelope_view view;
	struct call call;

	call_init(&call, STORE_GET, key, key_len);
	if (call_run(&call, f->store, &f->loop) == RSHM_OK) {
		assert_int_equal(envelope_open(call.bytes, call.length, key, key_len, &view), RSHM_OK);
		assert_int_equal(view.head.plain_size, value_len);
		if (value_len > 0)
			assert_memory_equal(view.payload, value, value_len);
	}
	free(call.bytes);
	return call.status;
}

__attribute__((unused)) static int simple(struct fixture *f, enum store_op op, const void *key, size_t key_len,
					  uint64_t expiry_ms)
{
	struct call call;

	call_init(&call, op, key, key_len);
	call.request.expiry_ms = expiry_ms;
	(void)call_run(&call, f->store, &f->loop);
	free(call.bytes);
	return call.status;
}

__attribute__((unused)) static struct store_status status_of(struct store *store)
{
	struct store_status status;

	store_status(store, &status);
	return status;
}

__attribute__((unused)) static unsigned char *make_noise(size_t length, uint64_t state)
{
	unsigned char *bytes = malloc(length + 1);

	assert_non_null(bytes);
	for (size_t i = 0; i < length; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		bytes[i] = (unsigned char)state;
	}
	return bytes;
}

/*
 * Another process takes LMDB's writer lock: our writer waits. It writes a byte when it has it, and lets go
 * at end of file.
 */
__attribute__((unused)) static pid_t hold_writer(struct fixture *f, int *ret_release)
{
	int ready[2], release[2];
	char byte;
	pid_t child;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(release), 0);
	child = fork();
	if (child == 0) {
		MDB_env *mdb;
		MDB_txn *txn;

		close(release[1]);
		if (mdb_env_create(&mdb) != 0 || mdb_env_open(mdb, f->path, MDB_NOTLS, 0600) != 0 ||
		    mdb_txn_begin(mdb, NULL, 0, &txn) != 0 || write(ready[1], "x", 1) != 1)
			_exit(1);
		(void)!read(release[0], &byte, 1);
		mdb_txn_abort(txn);
		_exit(0);
	}
	close(release[0]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	*ret_release = release[1];
	return child;
}

__attribute__((unused)) static void release_writer(pid_t child, int release)
{
	int status;

	close(release);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* Reopens the store; meanwhile, in table `name`: puts `value` under `key`, or under the table's last key if that is NULL. */
__attribute__((unused)) static void fixture_overwrite(struct fixture *f, const char *name, const void *key,
						      size_t key_len, const void *bytes, size_t length)
{
	MDB_val lmdb_key = {.mv_size = key_len}, value = {.mv_size = length}, old;
	MDB_cursor *cursor;
	MDB_env *mdb;
	MDB_txn *txn;
	MDB_dbi table;

	fixture_close(f);
	memcpy(&lmdb_key.mv_data, &key, sizeof key);
	memcpy(&value.mv_data, &bytes, sizeof bytes);
	assert_int_equal(mdb_env_create(&mdb), 0);
	assert_int_equal(mdb_env_set_maxdbs(mdb, 16), 0);
	assert_int_equal(mdb_env_set_mapsize(mdb, 1 << 30), 0);
	assert_int_equal(mdb_env_open(mdb, f->path, 0, 0600), 0);
	assert_int_equal(mdb_txn_begin(mdb, NULL, 0, &txn), 0);
	assert_int_equal(mdb_dbi_open(txn, name, 0, &table), 0);
	if (key == NULL) {
		assert_int_equal(mdb_cursor_open(txn, table, &cursor), 0);
		assert_int_equal(mdb_cursor_get(cursor, &lmdb_key, &old, MDB_LAST), 0);
		mdb_cursor_close(cursor);
	}
	assert_int_equal(mdb_put(txn, table, &lmdb_key, &value, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(mdb);
	fixture_open(f);
}

#endif
