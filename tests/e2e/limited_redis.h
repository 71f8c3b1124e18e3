/*
 * limited_redis.h - agents on a redis-server that allows less than all: its users, and what status and log say.
 *
 * The server listens on a unix socket, for the test as its administrator, and on a port, for agents.
 */
#ifndef TESTS_E2E_LIMITED_REDIS_H
#define TESTS_E2E_LIMITED_REDIS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "riptide/riptide.h"
#include "tests/support/dragonfly_peer.h"
#include "tests/support/e2e.h"
#include "tests/support/redis_server.h"

#define PASSWORD "Zq81-hush-hush"
#define RULE_WORDS 64
#define PATIENCE_MS 10000

struct fixture {
	struct redis_server server;
	struct dragonfly_peer *peer; /* NULL: none */
	uint16_t peer_port;
	struct agent_process a, b;
	riptide *on_a, *on_b;
	redisContext *admin;
	char document[32768]; /* of dragonfly_test.c */
};

/* ---- the server ---------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static inline redisReply *admin(struct fixture *f, const char *command, ...)
{
	redisReply *reply;
	va_list arguments;

	va_start(arguments, command);
	reply = redisvCommand(f->admin, command, arguments);
	va_end(arguments);
	assert_non_null(reply);
	if (reply->type == REDIS_REPLY_ERROR)
		fail_msg("%s: %s", command, reply->str);
	return reply;
}

/* Creates the user of a rule "ACL SETUSER …", with our password. */
static inline void create_user(struct fixture *f, char *rule)
{
	const char *words[RULE_WORDS];
	int count = 0;
	redisReply *reply;

	for (char *word = strtok(rule, " \n"); word; word = strtok(NULL, " \n")) {
		assert_in_range(count, 0, RULE_WORDS - 1);
		words[count++] = strcmp(word, ">change-me") == 0 ? ">" PASSWORD : word;
	}
	reply = redisCommandArgv(f->admin, count, words, NULL);
	assert_non_null(reply);
	if (reply->type == REDIS_REPLY_ERROR)
		fail_msg("%s", reply->str);
	freeReplyObject(reply);
}

/* ---- agents -------------------------------------------------------------------------------------------------- */

static inline int start_one(struct agent_process *agent, const char *url, const char *mode)
{
	const char *settings[] = {"agent.backend=redis",
				  url,
				  mode,
				  "coherence.stale_policy=miss",
				  "coherence.max_age_ms=1000",
				  "behind.flush_interval_ms=20",
				  "redis.command_timeout_ms=1500",
				  "redis.connection_timeout_ms=1500",
				  "redis.retry_attempts=1",
				  "redis.retry_delay_ms=20",
				  "redis.retry_max_delay_ms=100",
				  NULL};

	return agent_process_start(agent, settings);
}

static inline void start_agents(struct fixture *f, const char *url, const char *mode, bool both)
{
	assert_int_equal(start_one(&f->a, url, mode), 0);
	assert_int_equal(e2e_open(&f->a, NULL, 5000, &f->on_a), RIPTIDE_OK);
	if (!both)
		return;
	assert_int_equal(start_one(&f->b, url, mode), 0);
	assert_int_equal(e2e_open(&f->b, NULL, 5000, &f->on_b), RIPTIDE_OK);
}

static inline void url_of(const struct fixture *f, const char *login, char url[128])
{
	snprintf(url, 128, "redis.url=redis://%s127.0.0.1:%u", login, (unsigned)f->server.port);
}

static inline void assert_mode(const struct agent_process *agent, const char *mode)
{
	uint64_t until_ms = e2e_now_ms() + PATIENCE_MS;
	char text[32] = "", detail[256];

	do {
		e2e_text(agent, "coherence.mode", text, sizeof(text));
		if (strcmp(text, mode) == 0)
			return;
		e2e_pause_ms(20);
	} while (e2e_now_ms() < until_ms);
	e2e_text(agent, "backend.detail", detail, sizeof(detail));
	fail_msg("mode %s, not %s: %s", text, mode, detail);
}

static inline void assert_detail(const struct agent_process *agent, const char *part)
{
	uint64_t until_ms = e2e_now_ms() + PATIENCE_MS;
	char detail[512] = "";

	do {
		e2e_text(agent, "backend.detail", detail, sizeof(detail));
		if (strstr(detail, part) != NULL)
			return;
		e2e_pause_ms(20);
	} while (e2e_now_ms() < until_ms);
	fail_msg("\"%s\" does not tell \"%s\"", detail, part);
}

/* The password is nowhere that people look. */
static inline void assert_secret_kept(const struct agent_process *agent)
{
	char detail[512];

	e2e_text(agent, "backend.detail", detail, sizeof(detail));
	assert_true(detail[0] != '\0');
	assert_null(strstr(detail, PASSWORD));
	assert_int_equal(agent_process_log_has(agent, PASSWORD), 0);
}

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	if (!redis_server_is_installed())
		return 0;
	if (redis_server_start_tcp(&f->server, NULL) < 0)
		return -1;
	f->admin = redisConnectUnix(f->server.unix_path);
	return f->admin && !f->admin->err ? 0 : -1;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;
	int status = 0;

	riptide_close(&f->on_a);
	riptide_close(&f->on_b);
	if (f->admin)
		redisFree(f->admin);
	if (f->a.folder[0])
		status |= agent_process_stop_and_clean(&f->a);
	if (f->b.folder[0])
		status |= agent_process_stop_and_clean(&f->b);
	dragonfly_peer_stop(f->peer);
	redis_server_stop(&f->server);
	free(f);
	return status;
}

static inline struct fixture *fixture_of(void **state)
{
	if (!redis_server_is_installed())
		skip();
	return *state;
}

/* Until it answers again. */
static inline void expect_recovery(riptide *handle)
{
	uint64_t until_ms = e2e_now_ms() + PATIENCE_MS;

	while (e2e_put(handle, "well", "v") != RIPTIDE_OK)
		assert_true(e2e_now_ms() < until_ms);
	assert_int_equal(e2e_check(handle, "well", "v", NULL), RIPTIDE_OK);
}

#endif
