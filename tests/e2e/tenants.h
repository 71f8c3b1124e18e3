/* tenants.h - what the tests of created tenants share: orders, handles with tokens, a process that reads, what Redis holds. */
#ifndef TESTS_E2E_TENANTS_H
#define TESTS_E2E_TENANTS_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "riptide/riptide.h"
#include "shm/msg.h"
#include "shm/tlv.h"
#include "tests/support/admin.h"
#include "tests/support/e2e.h"
#include "tests/support/redis_server.h"

static char answer[64 << 10];

/* The last part of an operation's name, such as SUSPEND. */
#define TENANT(agent, what, id, json) admin_ask(agent, RSHM_CONTROL_TENANT_##what, id, json, answer, sizeof(answer))
#define assert_done(status)                                         \
	do {                                                        \
		int status_ = (status);                             \
		if (status_ != RSHM_OK)                             \
			fail_msg("status %d: %s", status_, answer); \
	} while (0)
#define assert_said(text)                                               \
	do {                                                            \
		if (!strstr(answer, text))                              \
			fail_msg("\"%s\" is not in: %s", text, answer); \
	} while (0)

__attribute__((unused)) static void create(const struct agent_process *agent, const char *id, const char *members)
{
	char json[1024];

	snprintf(json, sizeof(json), "{\"id\": \"%s\"%s%s}", id, members[0] ? ", " : "", members);
	assert_done(TENANT(agent, CREATE, NULL, json));
}

__attribute__((unused)) static riptide *open_tenant(const struct agent_process *agent, const char *id)
{
	riptide *handle = NULL;
	int status = e2e_open(agent, id, 5000, &handle);

	if (status != RIPTIDE_OK) {
		riptide_last_error(handle, answer, sizeof(answer));
		fail_msg("tenant %s: %d: %s", id, status, answer);
	}
	return handle;
}

/* The status of an open, and what was said in `answer`. */
__attribute__((unused)) static int try_open(const struct agent_process *agent, const char *id, const char *token)
{
	struct riptide_options options = {
		.size = sizeof(options),
		.socket = agent->socket,
		.tenant = id,
		.token = token,
		.token_length = token ? strlen(token) : 0,
		.timeout_ms = 8000,
	};
	riptide *handle = NULL;
	int status = riptide_open(&options, &handle);

	answer[0] = '\0';
	riptide_last_error(handle, answer, sizeof(answer));
	riptide_close(&handle);
	return status;
}

/* Until a get is answered from shared memory, verified. */
__attribute__((unused)) static void make_hot(riptide *handle, const char *key, const char *value)
{
	struct riptide_info info = {.flags = 0};
	uint64_t until_ms = e2e_now_ms() + 10000;

	while ((info.flags & (RIPTIDE_HOT | RIPTIDE_STALE)) != RIPTIDE_HOT && e2e_now_ms() < until_ms) {
		int status = e2e_check(handle, key, value, &info);

		if (status != RIPTIDE_OK) {
			riptide_last_error(handle, answer, sizeof(answer));
			fail_msg("%s: %d: %s", key, status, answer);
		}
	}
	assert_int_equal(info.flags & (RIPTIDE_HOT | RIPTIDE_STALE), RIPTIDE_HOT);
}

/* ---- a process that does nothing but read one key --------------------------------------------------------------- */

struct reader {
	pid_t pid;
	struct reading {
		uint64_t last_began_us; /* of the last read that gave a value */
		uint64_t hits, hot, failures;
		int64_t status; /* of the last that gave none */
		char error[400];
		volatile uint32_t stop;
	} * reading;
	const struct agent_process *agent;
	const char *tenant;
};

static inline uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int read_on(void *context)
{
	struct reader *r = context;
	struct reading *reading = r->reading;
	riptide *handle;

	if (e2e_open(r->agent, r->tenant, 400, &handle) != RIPTIDE_OK)
		return 1;
	while (!reading->stop) {
		struct riptide_info info = {.flags = 0};
		uint64_t began_us = now_us();
		int status = e2e_check(handle, "k", "v", &info);

		if (status == RIPTIDE_OK) {
			reading->last_began_us = began_us;
			reading->hits++;
			reading->hot += (info.flags & RIPTIDE_HOT) != 0;
		} else {
			reading->status = status;
			riptide_last_error(handle, reading->error, sizeof(reading->error));
			reading->failures++;
		}
		/* Two cores are shared with the agent. */
		if (reading->hits % 256 == 0 || status != RIPTIDE_OK)
			e2e_pause_ms(1);
	}
	riptide_close(&handle);
	return 0;
}

__attribute__((unused)) static void reader_start(struct reader *r, const struct agent_process *agent,
						 const char *tenant)
{
	uint64_t until_ms = e2e_now_ms() + 10000;

	*r = (struct reader){.agent = agent, .tenant = tenant};
	r->reading = mmap(NULL, sizeof(*r->reading), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(r->reading != MAP_FAILED);
	r->pid = e2e_fork(read_on, r);
	while (r->reading->hot < 100 && e2e_now_ms() < until_ms)
		e2e_pause_ms(1);
	assert_true(r->reading->hot >= 100);
}

/* Waits until it gets values again. */
__attribute__((unused)) static bool reader_is_served(const struct reader *r, long patience_ms)
{
	uint64_t before = r->reading->hits, until_ms = e2e_now_ms() + (uint64_t)patience_ms;

	while (r->reading->hits < before + 10 && e2e_now_ms() < until_ms)
		e2e_pause_ms(2);
	return r->reading->hits >= before + 10;
}

__attribute__((unused)) static bool reader_is_told(const struct reader *r, int status)
{
	uint64_t until_ms = e2e_now_ms() + 8000;

	while (r->reading->status != status && e2e_now_ms() < until_ms)
		e2e_pause_ms(2);
	return r->reading->status == status;
}

__attribute__((unused)) static void reader_stop(struct reader *r)
{
	r->reading->stop = 1;
	assert_int_equal(e2e_join(r->pid, 10000), 0);
	munmap(r->reading, sizeof(*r->reading));
}

/* ---- what a server holds ------------------------------------------------------------------------------------------ */

/* Keys of the tenant, "{id." in their names; the last one found in `answer`. */
__attribute__((unused)) static int server_keys(const struct redis_server *server, const char *id)
{
	redisContext *truth = redisConnectUnix(server->unix_path);
	redisReply *reply;
	int count;

	assert_true(truth && !truth->err);
	reply = redisCommand(truth, "KEYS *{%s.*", id);
	assert_non_null(reply);
	assert_int_equal(reply->type, REDIS_REPLY_ARRAY);
	count = (int)reply->elements;
	answer[0] = '\0';
	for (size_t i = 0; i < reply->elements && i < 20; i++)
		snprintf(answer + strlen(answer), sizeof(answer) - strlen(answer), "%s ", reply->element[i]->str);
	freeReplyObject(reply);
	redisFree(truth);
	return count;
}

#endif
