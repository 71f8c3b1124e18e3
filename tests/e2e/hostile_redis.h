/*
 * hostile_redis.h - an agent, a real redis-server, and between them a proxy that misbehaves; a ledger of what may be read.
 *
 * Keys "cold-N" have values that are too large for shared memory, so each read of them asks the server. One thread writes a
 * key; it notes what became of each number it wrote, and every read is held against that. Key "hot" is read all the while by
 * a thread of its own. Every call must end within its deadline and some grace.
 */
#ifndef TESTS_E2E_HOSTILE_REDIS_H
#define TESTS_E2E_HOSTILE_REDIS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "riptide/riptide.h"
#include "tests/support/e2e.h"
#include "tests/support/proxy.h"
#include "tests/support/redis_server.h"

#define DEADLINE_MS 800
#define GRACE_MS 2000
#define RECOVERY_MS 15000
#define KEYS 8
#define NUMBERS (1u << 20)
#define VALUE_BYTES 6000u
#define KEY_OF(key) "riptide:v1:{default.0}:1:c:" key

enum fate { FATE_NOTHING, FATE_MAYBE, FATE_STORED };

struct ledger {
	uint8_t fate[NUMBERS]; /* of each number written */
	uint32_t last;         /* written */
	uint32_t floor;        /* nothing older may be read any more */
};

struct fixture {
	struct redis_server server;
	struct proxy *proxy;
	struct agent_process agent;
	riptide *handle;
	pid_t pid; /* of the agent, as it was started */
	struct ledger ledgers[KEYS];
	/* the reader of what is hot; atomic */
	pthread_t reader;
	uint32_t reader_stop, hot_reads, hot_asked, hot_bad;
	int32_t hot_last;
	/* what went wrong first, of any thread; atomic */
	uint32_t wrongs;
	char wrong[200];
};

/* ---- calls -------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static inline void wrong(struct fixture *f, const char *format, ...)
{
	va_list arguments;

	if (__atomic_fetch_add(&f->wrongs, 1, __ATOMIC_SEQ_CST) > 0)
		return;
	va_start(arguments, format);
	vsnprintf(f->wrong, sizeof(f->wrong), format, arguments);
	va_end(arguments);
}

/* What a call may return when the server is not well; everything else is a fault of ours. */
static inline bool is_trouble(int status)
{
	return status == RIPTIDE_EAGAIN || status == RIPTIDE_ETIMEDOUT || status == RIPTIDE_EBACKEND ||
	       status == RIPTIDE_EUNKNOWN || status == RIPTIDE_EFULL || status == RIPTIDE_ECORRUPT ||
	       status == RIPTIDE_ESTALE;
}

static inline void judge_call(struct fixture *f, const char *what, uint64_t began_ms, int status)
{
	uint64_t spent_ms = e2e_now_ms() - began_ms;

	if (spent_ms > DEADLINE_MS + GRACE_MS)
		wrong(f, "%s took %lu ms", what, (unsigned long)spent_ms);
	if (status < 0 && !is_trouble(status))
		wrong(f, "%s: %s", what, riptide_strerror(status));
}

static inline size_t cold_key(int key, char text[16])
{
	return (size_t)snprintf(text, 16, "cold-%d", key);
}

static inline void make_value(unsigned char value[VALUE_BYTES], int key, uint32_t number)
{
	uint32_t words[VALUE_BYTES / sizeof(uint32_t)] = {(uint32_t)key, number};

	for (size_t i = 2; i < sizeof(words) / sizeof(words[0]); i++)
		words[i] = (number + (uint32_t)i) * 2654435761u ^ (uint32_t)key;
	memcpy(value, words, sizeof(words));
}

/* Writes the next number of a key. Returns what the call returned. */
static inline int write_next(struct fixture *f, int key)
{
	struct ledger *ledger = &f->ledgers[key];
	unsigned char value[VALUE_BYTES];
	uint64_t began_ms = e2e_now_ms();
	uint32_t number = ++ledger->last;
	char text[16];
	size_t length = cold_key(key, text);
	int status;

	if (number >= NUMBERS) {
		wrong(f, "more than %u writes of a key", NUMBERS);
		return RIPTIDE_EINVALID;
	}
	make_value(value, key, number);
	status = riptide_set(f->handle, text, length, value, sizeof(value), NULL, NULL);
	judge_call(f, "a set", began_ms, status);
	ledger->fate[number] = status == RIPTIDE_OK         ? FATE_STORED
			       : status == RIPTIDE_EUNKNOWN ? FATE_MAYBE
							    : FATE_NOTHING;
	if (status == RIPTIDE_OK)
		ledger->floor = number;
	else if (status > 0)
		wrong(f, "a set returned %d", status);
	return status;
}

/* Holds what a read returned against the ledger of its key. */
static inline void judge_read(struct fixture *f, int key, int status, const struct riptide_value *value)
{
	struct ledger *ledger = &f->ledgers[key];
	unsigned char expected[VALUE_BYTES];
	uint32_t words[2];

	if (status == RIPTIDE_MISS)
		wrong(f, "key %d is a miss", key);
	if (status != RIPTIDE_OK)
		return;
	memcpy(words, value->data, value->length < sizeof(words) ? 0 : sizeof(words));
	make_value(expected, key, words[1] % NUMBERS);
	if (value->length != VALUE_BYTES || memcmp(value->data, expected, VALUE_BYTES) != 0)
		wrong(f, "key %d has a value that nobody wrote", key);
	else if (words[1] < ledger->floor || ledger->fate[words[1]] == FATE_NOTHING)
		wrong(f, "key %d has number %u of fate %d; %u was stored", key, words[1], ledger->fate[words[1]],
		      ledger->floor);
	else
		ledger->floor = words[1];
}

static inline int read_key(struct fixture *f, int key)
{
	uint64_t began_ms = e2e_now_ms();
	struct riptide_value value;
	char text[16];
	size_t length = cold_key(key, text);
	int status = riptide_get(f->handle, text, length, &value);

	judge_call(f, "a get", began_ms, status);
	judge_read(f, key, status, &value);
	if (status == RIPTIDE_OK)
		riptide_value_free(&value);
	return status;
}

/* Reads all keys at once. Returns how many were answered with a value. */
static inline int read_batch(struct fixture *f)
{
	struct riptide_item items[KEYS] = {{0}};
	uint64_t began_ms = e2e_now_ms();
	char text[KEYS][16];
	int status, good = 0;

	for (int i = 0; i < KEYS; i++)
		items[i] = (struct riptide_item){.key = text[i], .key_length = cold_key(i, text[i])};
	status = riptide_get_batch(f->handle, items, KEYS);
	judge_call(f, "a batch", began_ms, status);
	for (int i = 0; i < KEYS && status == RIPTIDE_OK; i++) {
		judge_call(f, "an item", began_ms, items[i].status);
		judge_read(f, i, items[i].status, &items[i].result);
		good += items[i].status == RIPTIDE_OK;
	}
	if (status == RIPTIDE_OK)
		riptide_batch_free(items, KEYS);
	return good;
}

/* ---- all the while ------------------------------------------------------------------------------------------ */

static inline void *read_hot(void *context)
{
	struct fixture *f = context;

	while (!__atomic_load_n(&f->reader_stop, __ATOMIC_RELAXED)) {
		struct riptide_info info = {.flags = 0};
		int status = e2e_check(f->handle, "hot", "as ever", &info);

		if (status != RIPTIDE_OK) {
			__atomic_add_fetch(&f->hot_bad, 1, __ATOMIC_RELAXED);
			__atomic_store_n(&f->hot_last, status, __ATOMIC_RELAXED);
		} else if (!(info.flags & RIPTIDE_HOT)) {
			__atomic_add_fetch(&f->hot_asked, 1, __ATOMIC_RELAXED);
		}
		__atomic_add_fetch(&f->hot_reads, 1, __ATOMIC_RELAXED);
		e2e_pause_ms(1);
	}
	return NULL;
}

/* The agent lives and tells its state, what is hot was read without fail, and nothing was wrong so far. */
static inline void assert_unharmed(struct fixture *f)
{
	uint32_t before = __atomic_load_n(&f->hot_reads, __ATOMIC_RELAXED);

	assert_int_equal(waitpid(f->pid, NULL, WNOHANG), 0);
	assert_int_equal(e2e_number(&f->agent, "pid"), f->pid);
	for (int i = 0; i < 1000 && __atomic_load_n(&f->hot_reads, __ATOMIC_RELAXED) == before; i++)
		e2e_pause_ms(2);
	assert_true(__atomic_load_n(&f->hot_reads, __ATOMIC_RELAXED) > before);
	if (__atomic_load_n(&f->hot_bad, __ATOMIC_RELAXED) > 0)
		fail_msg("%u hot reads failed, the last with %d", f->hot_bad, f->hot_last);
	/* A reader that sleeps at the wrong moment asks the agent, which has the copy. */
	if (__atomic_load_n(&f->hot_asked, __ATOMIC_RELAXED) > 1 + before / 1000)
		fail_msg("%u of %u hot reads asked the agent", f->hot_asked, before);
	if (f->wrongs > 0)
		fail_msg("%s (and %u more)", f->wrong, f->wrongs - 1);
}

/* Lets the server be well again; every key must become readable and writable. */
static inline void recover(struct fixture *f)
{
	uint64_t until_ms = e2e_now_ms() + RECOVERY_MS;

	proxy_behave(f->proxy, NULL);
	for (int i = 0; i < KEYS; i++) {
		while (read_key(f, i) != RIPTIDE_OK && e2e_now_ms() < until_ms)
			e2e_pause_ms(20);
		while (write_next(f, i) != RIPTIDE_OK && e2e_now_ms() < until_ms)
			e2e_pause_ms(20);
		assert_int_equal(read_key(f, i), RIPTIDE_OK);
	}
	assert_int_equal(e2e_await(&f->agent, "backend.ready", 1, RECOVERY_MS), 1);
	assert_int_equal(read_batch(f), KEYS);
	assert_unharmed(f);
}

struct outcome {
	uint32_t spoiled;
	int reads, writes; /* that succeeded */
	int unknown, unchanged;
};

/* Writes, reads and reads batches while the server behaves like this; then it is well again. */
static inline struct outcome suffer(struct fixture *f, const struct proxy_behaviour *behaviour, int rounds)
{
	struct outcome out = {0};

	proxy_behave(f->proxy, behaviour);
	for (int i = 0; i < rounds; i++) {
		int status = write_next(f, i % KEYS);

		out.writes += status == RIPTIDE_OK;
		out.unknown += status == RIPTIDE_EUNKNOWN;
		out.unchanged += status < 0 && status != RIPTIDE_EUNKNOWN;
		out.reads += read_key(f, (i + 3) % KEYS) == RIPTIDE_OK;
		out.reads += read_batch(f);
	}
	out.spoiled = proxy_spoiled(f->proxy);
	assert_unharmed(f);
	recover(f);
	return out;
}

/* ---- fixture ------------------------------------------------------------------------------------------------ */

static inline int start_all(struct fixture *f, const struct proxy_behaviour *behaviour)
{
	char url[64];
	const char *settings[] = {"agent.backend=redis",
				  url,
				  "redis.command_timeout_ms=200",
				  "redis.connection_timeout_ms=200",
				  "redis.retry_attempts=1",
				  "redis.retry_delay_ms=20",
				  "redis.retry_max_delay_ms=100",
				  "redis.pool_size=4",
				  "pool.min_size=2",
				  "cache.hot_entry_limit_bytes=4K",
				  "cache.enable_compression=false",
				  "coherence.max_age_ms=3600000",
				  "spill.enabled=false",
				  NULL};
	uint16_t port = 0;

	if (redis_server_start(&f->server, NULL) < 0)
		return -1;
	f->proxy = proxy_start(f->server.unix_path, &port);
	if (!f->proxy)
		return -1;
	proxy_behave(f->proxy, behaviour);
	snprintf(url, sizeof(url), "redis.url=redis://127.0.0.1:%u", port);
	if (agent_process_start(&f->agent, settings) < 0)
		return -1;
	f->pid = f->agent.pid;
	return e2e_open(&f->agent, NULL, DEADLINE_MS, &f->handle) == RIPTIDE_OK ? 0 : -1;
}

/* The first values, and the reader of what is hot. */
static inline int start_reader(struct fixture *f)
{
	uint64_t until_ms = e2e_now_ms() + RECOVERY_MS;

	for (int i = 0; i < KEYS; i++)
		while (write_next(f, i) != RIPTIDE_OK)
			if (e2e_now_ms() > until_ms)
				return -1;
	if (e2e_put(f->handle, "hot", "as ever") != RIPTIDE_OK)
		return -1;
	return pthread_create(&f->reader, NULL, read_hot, f) == 0 ? 0 : -1;
}

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	return start_all(f, NULL) < 0 ? -1 : start_reader(f);
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	__atomic_store_n(&f->reader_stop, 1, __ATOMIC_RELAXED);
	if (f->reader)
		pthread_join(f->reader, NULL);
	riptide_close(&f->handle);
	status = agent_process_stop_and_clean(&f->agent);
	proxy_stop(f->proxy);
	redis_server_stop(&f->server);
	free(f);
	return status;
}

#endif
