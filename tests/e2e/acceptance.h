/*
 * acceptance.h - what the acceptance tests have in common: the settings of the original's own tests, a second and a third
 * tenant, and values.
 *
 * A program that needs other settings for a case sets `acceptance_more` in the case's setup.
 */
#ifndef TESTS_E2E_ACCEPTANCE_H
#define TESTS_E2E_ACCEPTANCE_H

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "tests/e2e/both_stores.h"

#define MIB (1u << 20)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char config_path[64];
static char config_setting[96];
static const char *acceptance_more[12]; /* further settings of one case, ending with NULL; they win */

/* As in the original: life time 300 s, entries of 1 MiB, compression above 512 B, batches of 10, 10 MiB of memory. */
static const char *const *both_settings(void)
{
	static const char *settings[24];
	size_t n = 0;

	settings[n++] = config_setting;
	settings[n++] = "cache.default_ttl_seconds=300";
	settings[n++] = "cache.max_entry_size_bytes=1M";
	settings[n++] = "cache.compression_threshold_bytes=512";
	settings[n++] = "cache.warming_batch_size=10";
	settings[n++] = "cache.max_memory_bytes=10M";
	for (const char *const *more = acceptance_more; *more; more++)
		settings[n++] = *more;
	settings[n] = NULL;
	return settings;
}

/* tenant1 and tenant2, and one of 1 MiB for each policy, named after it. */
static int write_config(void)
{
	static const char *const policies[] = {"lru", "lfu", "ttl", "random", "s3fifo"};
	unsigned int user = (unsigned int)geteuid();
	char text[1000];
	int n, fd;

	e2e_make_file(config_path, sizeof(config_path), "acceptance");
	snprintf(config_setting, sizeof(config_setting), "config-file=%s", config_path);
	n = snprintf(text, sizeof(text),
		     "tenant \"tenant1\" { users = {\"%u\"} }\n"
		     "tenant \"tenant2\" { users = {\"%u\"} }\n",
		     user, user);
	for (size_t i = 0; i < COUNT(policies); i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n,
			      "tenant \"%s\" { users = {\"%u\"} memory_bytes = 1M eviction_policy = %s }\n",
			      policies[i], user, policies[i]);
	fd = open(config_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		return -1;
	return close(fd);
}

static int acceptance_begin(void **state)
{
	(void)state;
	return write_config();
}

static int acceptance_end(void **state)
{
	(void)state;
	return unlink(config_path);
}

/* ---- values ------------------------------------------------------------------------------------------------- */

static inline struct riptide_stats stats_of(riptide *handle)
{
	struct riptide_stats stats = {.size = sizeof(stats)};

	assert_int_equal(riptide_stats(handle, &stats), RIPTIDE_OK);
	return stats;
}

static inline int set(riptide *handle, const char *key, const void *value, size_t length)
{
	return riptide_set(handle, key, strlen(key), value, length, NULL, NULL);
}

static inline int set_for(riptide *handle, const char *key, const char *value, uint64_t ttl_ms)
{
	struct riptide_set_options options = {.size = sizeof(options), .ttl_ms = ttl_ms};

	return riptide_set(handle, key, strlen(key), value, strlen(value), &options, NULL);
}

/* RIPTIDE_OK: the value is this. */
static inline int has(riptide *handle, const char *key, const void *value, size_t length)
{
	struct riptide_value got;
	int status = riptide_get(handle, key, strlen(key), &got);

	if (status != RIPTIDE_OK)
		return status;
	status = got.length == length && memcmp(got.data, value, length) == 0 ? RIPTIDE_OK : E2E_WRONG;
	riptide_value_free(&got);
	return status;
}

/* From the store: shared memory of the agent before is gone, and nothing was noted of what it held. */
static inline void forget_hot_copies(struct fixture *f)
{
	char note[128];

	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	snprintf(note, sizeof(note), "%s/hot/default", f->agent.state_dir);
	(void)unlink(note);
	assert_int_equal(agent_process_restart(&f->agent), 0);
}

/* Bytes that do not compress. */
static inline void fill_random(unsigned char *bytes, size_t length, uint64_t seed)
{
	for (size_t i = 0; i < length; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		bytes[i] = (unsigned char)(seed >> 24);
	}
}

#endif
