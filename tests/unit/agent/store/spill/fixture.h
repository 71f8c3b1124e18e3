/*
 * fixture.h - a spill tier in a folder of its own, and calls that wait for their answer. For the tests of this
 * folder only.
 */
#ifndef SPILL_FIXTURE_H
#define SPILL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

#include "agent/base/clock.h"
#include "agent/base/text.h"
#include "agent/store/spill/spill.h"
#include "agent/store/store.h"
#include "shm/msg.h"

#define MiB ((uint64_t)1 << 20)

struct fixture {
	char folder[64]; /* made by mkdtemp; the tier is in <folder>/spill */
	char path[80];
	struct spill_config config;
	uv_loop_t loop;
	struct spill *spill;
};

__attribute__((unused)) static void fixture_init(struct fixture *f)
{
	memset(f, 0, sizeof *f);
	strcpy(f->folder, "/tmp/riptide-spill-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof f->path, "%s/spill", f->folder);
	f->config = (struct spill_config)SPILL_CONFIG_DEFAULTS;
	f->config.path = f->path;
	memcpy(f->config.identity, "sixteen bytes id", SPILL_IDENTITY_BYTES);
	assert_int_equal(uv_loop_init(&f->loop), 0);
}

__attribute__((unused)) static void fixture_open(struct fixture *f)
{
	char line[512];
	struct text error;
	int status;

	text_init(&error, line, sizeof line);
	status = spill_open(&f->config, &f->loop, &f->spill, &error);
	if (status != RSHM_OK)
		print_error("%s\n", line);
	assert_int_equal(status, RSHM_OK);
}

__attribute__((unused)) static void fixture_on_closed(void *context)
{
	*(bool *)context = true;
}

__attribute__((unused)) static void fixture_close(struct fixture *f)
{
	bool closed = false;

	spill_close(f->spill, fixture_on_closed, &closed);
	f->spill = NULL;
	while (!closed)
		uv_run(&f->loop, UV_RUN_ONCE);
}

__attribute__((unused)) static void fixture_fini(struct fixture *f)
{
	char command[128];

	/* A test that failed leaves its tier open. */
	if (f->spill != NULL)
		fixture_close(f);
	while (uv_loop_close(&f->loop) == UV_EBUSY)
		uv_run(&f->loop, UV_RUN_ONCE);
	snprintf(command, sizeof command, "rm -rf %s", f->folder);
	assert_int_equal(system(command), 0);
}

__attribute__((unused)) static int setup(void **state)
{
	static struct fixture f;

	fixture_init(&f);
	*state = &f;
	return 0;
}

__attribute__((unused)) static int teardown(void **state)
{
	fixture_fini(*state);
	return 0;
}

/* Opening must fail with `status` and one line that has these words. */
__attribute__((unused)) static void assert_open_fails(struct fixture *f, int status, const char *words)
{
	char line[512];
	struct text error;
	struct spill *spill = NULL;

	text_init(&error, line, sizeof line);
	assert_int_equal(spill_open(&f->config, &f->loop, &spill, &error), status);
	assert_null(spill);
	if (strstr(line, words) == NULL)
		print_error("%s\n", line);
	assert_non_null(strstr(line, words));
	assert_null(strchr(line, '\n'));
}

__attribute__((unused)) static struct store_name name_in(uint32_t tenant, uint64_t generation, const void *key,
							 size_t key_len)
{
	return (struct store_name){
		.tenant = "default",
		.tenant_number = tenant,
		.shards = 1,
		.generation = generation,
		.space = 'c',
		.key = key,
		.key_len = key_len,
	};
}

__attribute__((unused)) static struct store_name name_of(const void *key, size_t key_len)
{
	return name_in(1, 1, key, key_len);
}

/* ---- values that say whose they are ------------------------------------------------------------------------- */

#define VALUE_HEAD 16u

/* Fills `length` bytes that belong to this key and version only. */
__attribute__((unused)) static void value_fill(unsigned char *bytes, size_t length, uint64_t key, uint64_t version)
{
	uint64_t head[2] = {key, version}, state = key * 0x9e3779b97f4a7c15u + version + 1;
	size_t at = length < VALUE_HEAD ? length : VALUE_HEAD;

	memcpy(bytes, head, at);
	for (; at + 8 <= length; at += 8) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		memcpy(bytes + at, &state, 8);
	}
	for (; at < length; at++)
		bytes[at] = (unsigned char)(state >> 8 * (at % 8));
}

__attribute__((unused)) static unsigned char *value_make(size_t length, uint64_t key, uint64_t version)
{
	unsigned char *bytes = malloc(length + 1);

	assert_non_null(bytes);
	value_fill(bytes, length, key, version);
	return bytes;
}

/* ---- calls -------------------------------------------------------------------------------------------------- */

/* A get, and what it was answered, kept beyond `done`. */
struct call {
	struct spill_request request;
	uint64_t key;
	bool done;
	unsigned char *bytes;
};

__attribute__((unused)) static void call_on_done(struct spill_request *request)
{
	struct call *call = request->context;

	assert_false(call->done);
	call->done = true;
	assert_true(request->status == RSHM_OK || request->status == RSHM_MISS);
	if (request->status == RSHM_OK) {
		call->bytes = malloc(request->result_len + 1);
		assert_non_null(call->bytes);
		memcpy(call->bytes, request->result, request->result_len);
	}
}

__attribute__((unused)) static void call_start(struct call *call, struct spill *spill, const struct store_name *name)
{
	memset(call, 0, sizeof *call);
	call->request.name = *name;
	call->request.deadline_ms = clock_monotonic_ms() + 60000;
	call->request.done = call_on_done;
	call->request.context = call;
	spill_get(spill, &call->request);
}

__attribute__((unused)) static int call_end(struct call *call, uv_loop_t *loop)
{
	while (!call->done)
		uv_run(loop, UV_RUN_ONCE);
	return call->request.status;
}

__attribute__((unused)) static struct spill_figures figures(struct fixture *f)
{
	struct spill_figures figures;

	spill_figures(f->spill, &figures);
	return figures;
}

/* Runs the loop until nothing waits: what was put is on the disk. */
__attribute__((unused)) static void settle(struct fixture *f)
{
	while (figures(f).waiting > 0)
		uv_run(&f->loop, UV_RUN_ONCE);
}

__attribute__((unused)) static int put_bytes(struct fixture *f, const struct store_name *name, const void *bytes,
					     size_t length)
{
	return spill_put(f->spill, name, bytes, length, 1, 0, 1, 1);
}

/* Puts the value of (key, version); the key's name is its eight bytes. */
__attribute__((unused)) static int put(struct fixture *f, uint64_t key, uint64_t version, size_t length)
{
	struct store_name name = name_of(&key, sizeof key);
	unsigned char *bytes = value_make(length, key, version);
	int status = spill_put(f->spill, &name, bytes, length, version, 0, 3, version + 7);

	free(bytes);
	return status;
}

/* Puts, waiting for room in the queue. */
__attribute__((unused)) static void put_surely(struct fixture *f, uint64_t key, uint64_t version, size_t length)
{
	while (put(f, key, version, length) != RSHM_OK)
		uv_run(&f->loop, UV_RUN_ONCE);
}

__attribute__((unused)) static void removed(struct fixture *f, uint64_t key)
{
	struct store_name name = name_of(&key, sizeof key);

	spill_remove(f->spill, &name);
}

/* An answer is a miss, or the value of this key and the version that it tells. Returns the version, 0 = miss. */
__attribute__((unused)) static uint64_t call_check(struct call *call, uint64_t key)
{
	uint64_t version = 0;

	if (call->request.status == RSHM_OK) {
		unsigned char *expected = value_make(call->request.result_len, key, call->request.version);

		version = call->request.version;
		assert_int_equal(call->request.source, 3);
		assert_int_equal(call->request.epoch, version + 7);
		assert_memory_equal(call->bytes, expected, call->request.result_len);
		free(expected);
	}
	free(call->bytes);
	call->bytes = NULL;
	return version;
}

__attribute__((unused)) static uint64_t get(struct fixture *f, uint64_t key)
{
	struct store_name name = name_of(&key, sizeof key);
	struct call call;

	call_start(&call, f->spill, &name);
	(void)call_end(&call, &f->loop);
	return call_check(&call, key);
}

/* RSHM_OK only if exactly these bytes are there. */
__attribute__((unused)) static int get_expect(struct fixture *f, const struct store_name *name, const void *bytes,
					      size_t length)
{
	struct call call;

	call_start(&call, f->spill, name);
	if (call_end(&call, &f->loop) == RSHM_OK) {
		assert_int_equal(call.request.result_len, length);
		if (length > 0)
			assert_memory_equal(call.bytes, bytes, length);
	}
	free(call.bytes);
	return call.request.status;
}

#endif
