/*
 * registry_fixture.h - two agents' registries over one backend, embedded or a real redis-server, each on a loop of its own; calls that
 * remember what they were answered. For the tests of this folder only.
 */
#ifndef REGISTRY_FIXTURE_H
#define REGISTRY_FIXTURE_H

#include <poll.h>
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
#include "agent/store/embedded/embedded.h"
#include "agent/store/envelope.h"
#include "agent/store/redis/redis.h"
#include "agent/tenant/directory.h"
#include "agent/tenant/registry.h"
#include "tests/support/redis_server.h"

#define AGENTS 2
#define DIRECTORY "-"

struct agent {
	uv_loop_t loop;
	struct store *store;
	struct hlc hlc;
	struct registry *registry;
	bool closed;
};

struct fixture {
	struct agent agents[AGENTS];
	struct registry_options options;
	bool is_redis;
	struct redis_server server;
	struct embedded_env *env;
	char folder[64], path[80];
	uint32_t outstanding, order;
};

/* What a call was answered. */
struct answer {
	struct fixture *fixture;
	uint32_t answers, order;
	int status;
	struct tenant_record *record;
	char text[256];
	uint64_t asked_ms, answered_ms;
	uintptr_t frame; /* how deep the stack was */
	size_t count, total;
	char ids[4096]; /* of a list, a space behind each */
};

/* What is ready, of one agent. */
__attribute__((unused)) static void agent_step(struct agent *agent)
{
	uv_run(&agent->loop, UV_RUN_NOWAIT);
}

/* What is ready, of both; or a short sleep. */
__attribute__((unused)) static void fixture_step(struct fixture *f)
{
	struct pollfd ready[AGENTS];

	for (int i = 0; i < AGENTS; i++) {
		agent_step(&f->agents[i]);
		ready[i] = (struct pollfd){.fd = uv_backend_fd(&f->agents[i].loop), .events = POLLIN};
	}
	(void)poll(ready, AGENTS, 2);
}

__attribute__((unused)) static void fixture_open_agent(struct fixture *f, int number)
{
	struct agent *agent = &f->agents[number];
	struct store_redis_config config = STORE_REDIS_CONFIG_DEFAULTS;
	char error[256] = "", url[256];

	if (f->is_redis) {
		snprintf(url, sizeof(url), "unix://%s", f->server.unix_path);
		config.url = url;
		config.retry_delay_ms = 10;
		config.retry_max_delay_ms = 50;
		if (store_redis_create(&agent->loop, &config, &agent->store, error, sizeof(error)) != RSHM_OK)
			fail_msg("%s", error);
	} else {
		assert_int_equal(embedded_store_create(f->env, &agent->loop, &agent->store), RSHM_OK);
	}
	agent->closed = false;
	hlc_init(&agent->hlc, 0);
	hlc_identify(&agent->hlc, 7 + (uint32_t)number);
	f->options.writer_id = 7 + (uint32_t)number;
	assert_int_equal(registry_open(agent->store, &agent->hlc, &f->options, &agent->registry), RSHM_OK);
}

/* Runs the loop until nothing is outstanding or the time is up. */
__attribute__((unused)) static bool fixture_wait(struct fixture *f, uint64_t ms)
{
	uint64_t end_ms = clock_monotonic_ms() + ms;

	while (f->outstanding > 0 && clock_monotonic_ms() < end_ms)
		fixture_step(f);
	return f->outstanding == 0;
}

__attribute__((unused)) static void agent_on_closed(void *context)
{
	((struct agent *)context)->closed = true;
}

__attribute__((unused)) static void fixture_close_agent(struct fixture *f, int number)
{
	struct agent *agent = &f->agents[number];

	if (!agent->store)
		return;
	store_close(agent->store, agent_on_closed, agent);
	for (int i = 0; i < 4000 && !agent->closed; i++)
		fixture_step(f);
	assert_true(agent->closed);
	agent->store = NULL;
	registry_close(&agent->registry);
	assert_null(agent->registry);
}

/* Both agents once more, with other options. */
__attribute__((unused)) static void fixture_reopen(struct fixture *f)
{
	for (int i = 0; i < AGENTS; i++) {
		fixture_close_agent(f, i);
		fixture_open_agent(f, i);
	}
}

__attribute__((unused)) static struct fixture *fixture_create(bool is_redis)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct embedded_config config = EMBEDDED_CONFIG_DEFAULTS;
	char line[512];
	struct text error;

	assert_non_null(f);
	f->is_redis = is_redis;
	f->options = (struct registry_options){.tenants_max = 25,
					       .request_ms = 10000,
					       .pending_max = 100,
					       .orphan_ms = 60000,
					       .tenant_number = 1,
					       .shards = 1};
	for (int i = 0; i < AGENTS; i++)
		assert_int_equal(uv_loop_init(&f->agents[i].loop), 0);
	if (is_redis) {
		assert_int_equal(redis_server_start(&f->server, NULL), 0);
	} else {
		strcpy(f->folder, "/tmp/riptide-registry-XXXXXX");
		assert_non_null(mkdtemp(f->folder));
		snprintf(f->path, sizeof(f->path), "%s/db", f->folder);
		config.path = f->path;
		config.map_size = 1ull << 30;
		config.sync = EMBEDDED_SYNC_NONE;
		text_init(&error, line, sizeof(line));
		assert_int_equal(embedded_env_open(&config, &f->env, &error), RSHM_OK);
		assert_int_equal(embedded_env_tenant_number(f->env, TENANT_RESERVED_ID, &f->options.tenant_number),
				 RSHM_OK);
	}
	for (int i = 0; i < AGENTS; i++)
		fixture_open_agent(f, i);
	return f;
}

__attribute__((unused)) static void fixture_destroy(struct fixture *f)
{
	char command[128];

	for (int i = 0; i < AGENTS; i++)
		fixture_close_agent(f, i);
	assert_int_equal(f->outstanding, 0);
	embedded_env_close(&f->env);
	for (int i = 0; i < AGENTS; i++) {
		uv_run(&f->agents[i].loop, UV_RUN_DEFAULT);
		assert_int_equal(uv_loop_close(&f->agents[i].loop), 0);
	}
	redis_server_stop(&f->server);
	if (f->folder[0]) {
		snprintf(command, sizeof(command), "rm -rf %s", f->folder);
		assert_int_equal(system(command), 0);
	}
	free(f);
}

/* ---- calls ---- */

__attribute__((unused)) static void answer_begin(struct fixture *f, struct answer *a)
{
	memset(a, 0, sizeof(*a));
	a->fixture = f;
	a->asked_ms = clock_monotonic_ms();
	f->outstanding++;
}

__attribute__((unused)) static void answer_end(struct answer *a, int status)
{
	a->answers++;
	a->order = a->fixture->order++;
	a->status = status;
	a->answered_ms = clock_monotonic_ms();
	a->frame = (uintptr_t)__builtin_frame_address(0);
	a->fixture->outstanding--;
}

__attribute__((unused)) static void on_record(void *context, int status, struct tenant_record *record,
					      const char *text)
{
	struct answer *a = context;

	a->record = record;
	snprintf(a->text, sizeof(a->text), "%s", text ? text : "");
	answer_end(a, status);
}

__attribute__((unused)) static void on_list(void *context, int status, const char *const *ids, size_t count,
					    size_t total)
{
	struct answer *a = context;
	struct text text;

	text_init(&text, a->ids, sizeof(a->ids));
	for (size_t i = 0; i < count; i++) {
		text_append_string(&text, ids[i]);
		text_append_string(&text, " ");
	}
	a->count = count;
	a->total = total;
	answer_end(a, status);
}

__attribute__((unused)) static void on_tidied(void *context, int status, size_t count)
{
	struct answer *a = context;

	a->count = count;
	answer_end(a, status);
}

__attribute__((unused)) static int update(const struct tenant_record *record, const char *json,
					  struct tenant_record **ret)
{
	static const struct tenant_defaults defaults = {.isolation = TENANT_ISOLATION_LOGICAL};
	char error[256];

	return tenant_record_update(record, json, strlen(json), &defaults, 5, ret, error, sizeof(error));
}

__attribute__((unused)) static struct tenant_record *record_of(const char *id)
{
	static const struct tenant_defaults defaults = {.isolation = TENANT_ISOLATION_LOGICAL};
	struct tenant_record *record = NULL;
	char json[128], error[256];

	snprintf(json, sizeof(json), "{\"id\":\"%s\"}", id);
	if (tenant_record_create(json, strlen(json), &defaults, 1, &record, error, sizeof(error)) != RSHM_OK)
		fail_msg("%s", error);
	return record;
}

__attribute__((unused)) static void start_insert(struct fixture *f, int agent, const char *id, struct answer *a)
{
	answer_begin(f, a);
	registry_insert(f->agents[agent].registry, record_of(id), on_record, a);
}

__attribute__((unused)) static int wait_status(struct fixture *f, struct answer *a)
{
	assert_true(fixture_wait(f, 20000));
	assert_int_equal(a->answers, 1);
	assert_true(a->record == NULL || a->status == RSHM_OK);
	return a->status;
}

__attribute__((unused)) static int insert(struct fixture *f, int agent, const char *id)
{
	struct answer a;
	int status;

	start_insert(f, agent, id, &a);
	status = wait_status(f, &a);
	assert_int_equal(a.record != NULL, status == RSHM_OK);
	if (a.record) {
		assert_string_equal(a.record->id, id);
		assert_true(a.record->version != 0);
	}
	tenant_record_destroy(&a.record);
	return status;
}

/* The caller's. */
__attribute__((unused)) static struct tenant_record *get(struct fixture *f, int agent, const char *id)
{
	struct answer a;

	answer_begin(f, &a);
	registry_get(f->agents[agent].registry, id, on_record, &a);
	assert_int_equal(wait_status(f, &a), RSHM_OK);
	assert_non_null(a.record);
	assert_string_equal(a.record->id, id);
	assert_true(a.record->version != 0);
	return a.record;
}

__attribute__((unused)) static int get_status(struct fixture *f, int agent, const char *id, char text[256])
{
	struct answer a;
	int status;

	answer_begin(f, &a);
	registry_get(f->agents[agent].registry, id, on_record, &a);
	status = wait_status(f, &a);
	assert_int_equal(a.record != NULL, status == RSHM_OK);
	tenant_record_destroy(&a.record);
	if (text)
		memcpy(text, a.text, sizeof(a.text));
	return status;
}

__attribute__((unused)) static int remove_record(struct fixture *f, int agent, struct tenant_record *record)
{
	struct answer a;

	answer_begin(f, &a);
	registry_remove(f->agents[agent].registry, record, on_record, &a);
	wait_status(f, &a);
	assert_null(a.record);
	return a.status;
}

/* The ids, a space behind each; -> how many there are in all. */
__attribute__((unused)) static size_t list(struct fixture *f, int agent, const char *after, size_t limit,
					   char ids[4096])
{
	struct answer a;

	answer_begin(f, &a);
	registry_list(f->agents[agent].registry, after, limit, on_list, &a);
	assert_int_equal(wait_status(f, &a), RSHM_OK);
	memcpy(ids, a.ids, sizeof(a.ids));
	return a.total;
}

__attribute__((unused)) static int tidy(struct fixture *f, int agent, size_t *ret_count)
{
	struct answer a;

	answer_begin(f, &a);
	registry_tidy(f->agents[agent].registry, on_tidied, &a);
	wait_status(f, &a);
	*ret_count = a.count;
	return a.status;
}

/* ---- behind the registries' back ---- */

struct raw {
	struct store_request request;
	struct fixture *fixture;
	unsigned char *bytes;
	size_t length;
};

__attribute__((unused)) static void raw_on_done(struct store_request *request)
{
	struct raw *raw = request->context;

	if (request->status == RSHM_OK && request->op == STORE_GET) {
		raw->bytes = malloc(request->result_len);
		assert_non_null(raw->bytes);
		memcpy(raw->bytes, request->result, request->result_len);
		raw->length = request->result_len;
	}
	raw->fixture->outstanding--;
}

__attribute__((unused)) static int raw_run(struct fixture *f, struct raw *raw, enum store_op op, const char *key)
{
	raw->fixture = f;
	raw->request.op = op;
	raw->request.name = (struct store_name){.tenant = TENANT_RESERVED_ID,
						.tenant_number = f->options.tenant_number,
						.shards = f->options.shards,
						.generation = 1,
						.space = REGISTRY_SPACE,
						.key = key,
						.key_len = strlen(key)};
	raw->request.deadline_ms = clock_monotonic_ms() + 10000;
	raw->request.skip_remaining = true;
	raw->request.done = raw_on_done;
	raw->request.context = raw;
	f->outstanding++;
	store_submit(f->agents[0].store, &raw->request);
	assert_true(fixture_wait(f, 20000));
	return raw->request.status;
}

/* The stored envelope, the caller's; NULL: there is none. */
__attribute__((unused)) static unsigned char *raw_get(struct fixture *f, const char *key, size_t *ret_length)
{
	struct raw raw = {.bytes = NULL};
	int status = raw_run(f, &raw, STORE_GET, key);

	assert_true(status == RSHM_OK || status == RSHM_MISS);
	*ret_length = raw.length;
	return raw.bytes;
}

__attribute__((unused)) static void raw_put(struct fixture *f, const char *key, const void *bytes, size_t length)
{
	struct raw raw = {.request.envelope = bytes, .request.envelope_len = length};

	assert_int_equal(raw_run(f, &raw, STORE_PUT, key), RSHM_OK);
}

__attribute__((unused)) static void raw_delete(struct fixture *f, const char *key)
{
	struct raw raw = {.bytes = NULL};

	assert_int_equal(raw_run(f, &raw, STORE_DELETE, key), RSHM_OK);
}

/* A sound envelope around any text. */
__attribute__((unused)) static void raw_put_text(struct fixture *f, const char *key, const char *text, size_t length)
{
	struct envelope_input input = {.key = key,
				       .key_len = strlen(key),
				       .value = text,
				       .value_len = length,
				       .created_ms = clock_realtime_ms(),
				       .version = hlc_next(&f->agents[0].hlc)};
	struct envelope_buffer buffer;

	assert_int_equal(envelope_encode(&input, NULL, &buffer), RSHM_OK);
	raw_put(f, key, buffer.bytes, buffer.length);
	envelope_buffer_fini(&buffer);
}

/* What an agent leaves that dies after it entered an id: the directory as it is, and this one too. */
__attribute__((unused)) static void enter_orphans(struct fixture *f, const char *prefix, uint32_t count,
						  uint64_t age_ms)
{
	struct directory d = {.items = NULL};
	size_t length;
	unsigned char *bytes = raw_get(f, DIRECTORY, &length);
	struct envelope_view view;
	char *text;

	if (bytes) {
		assert_int_equal(envelope_open(bytes, length, DIRECTORY, 1, &view), RSHM_OK);
		text = malloc(view.head.plain_size + 1);
		assert_non_null(text);
		assert_int_equal(envelope_payload(&view, text, view.head.plain_size), RSHM_OK);
		assert_int_equal(directory_decode(text, view.head.plain_size, &d), RSHM_OK);
		free(text);
		free(bytes);
	}
	for (uint32_t i = 0; i < count; i++) {
		char id[RSHM_TENANT_MAX + 1];

		if (count == 1)
			snprintf(id, sizeof(id), "%s", prefix);
		else
			snprintf(id, sizeof(id), "%s%05u", prefix, i);
		assert_int_equal(directory_add(&d, id, clock_realtime_ms() - age_ms), RSHM_OK);
	}
	text = directory_encode(&d, &length);
	raw_put_text(f, DIRECTORY, text, length);
	free(text);
	directory_fini(&d);
}

#endif
