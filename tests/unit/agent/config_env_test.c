/* The fifteen tests of the seed's configuration, for the options that exist, and what is stricter here. */
#include "agent/store/compress.h"
#include "tests/unit/agent/config_fixture.h"

static struct config *load_env(const char *const *environment)
{
	return load(NULL, environment);
}

#define environment(...)          \
	(const char *[])          \
	{                         \
		__VA_ARGS__, NULL \
	}

static void redis_options_come_from_the_environment(void **state)
{
	struct config *config = load_env(environment(
		"REDIS_URL=redis://test:6380/3", "REDIS_POOL_SIZE=20", "REDIS_CONNECTION_TIMEOUT_MS=10000",
		"REDIS_COMMAND_TIMEOUT_MS=7000", "REDIS_RETRY_ATTEMPTS=5", "REDIS_RETRY_DELAY_MS=200",
		"REDIS_ENABLE_PIPELINING=false", "REDIS_MAX_PIPELINE_SIZE=50"));

	(void)state;
	assert_string_equal(config->redis.url, "redis://test:6380/3");
	assert_int_equal(config->redis.pool_size, 20);
	assert_int_equal(config->redis.connection_timeout_ms, 10000);
	assert_int_equal(config->redis.command_timeout_ms, 7000);
	assert_int_equal(config->redis.retry_attempts, 5);
	assert_int_equal(config->redis.retry_delay_ms, 200);
	assert_false(config->redis.enable_pipelining);
	assert_int_equal(config->redis.max_pipeline_size, 50);
	config_destroy(&config);
}

static void cache_options_come_from_the_environment(void **state)
{
	struct config *config = load_env(environment(
		"CACHE_DEFAULT_TTL_SECONDS=7200", "CACHE_MAX_ENTRY_SIZE_BYTES=10485760", "CACHE_KEY_PREFIX=test",
		"CACHE_VERSION=v2", "CACHE_ENABLE_COMPRESSION=false", "CACHE_COMPRESSION_THRESHOLD_BYTES=2048",
		"CACHE_COMPRESSION_ALGORITHM=zstd", "CACHE_MAX_MEMORY_BYTES=1073741824", "CACHE_EVICTION_POLICY=LFU",
		"CACHE_ENABLE_WARMING=false", "CACHE_WARMING_BATCH_SIZE=50"));

	(void)state;
	assert_int_equal(config->cache.default_ttl_seconds, 7200);
	assert_int_equal(config->cache.max_entry_size_bytes, 10485760);
	assert_string_equal(config->cache.key_prefix, "test");
	assert_string_equal(config->cache.version, "v2");
	assert_false(config->cache.enable_compression);
	assert_int_equal(config->cache.compression_threshold_bytes, 2048);
	assert_int_equal(config->cache.compression_algorithm, CONFIG_COMPRESSION_ZSTD);
	assert_int_equal(config->cache.max_memory_bytes, 1073741824);
	assert_int_equal(config->cache.eviction_policy, CONFIG_EVICTION_LFU);
	assert_false(config->cache.enable_warming);
	assert_int_equal(config->cache.warming_batch_size, 50);
	config_destroy(&config);
}

static void state_options_come_from_the_environment(void **state)
{
	struct config *config = load_env(environment("STATE_SHUTDOWN_TIMEOUT_SECONDS=60"));

	(void)state;
	assert_int_equal(config->agent.shutdown_timeout_seconds, 60);
	config_destroy(&config);
}

static void tenant_options_come_from_the_environment(void **state)
{
	struct config *config = load_env(environment("TENANT_ENABLED=false", "TENANT_MAX_TENANTS=500"));

	(void)state;
	assert_false(config->tenancy.enabled);
	assert_int_equal(config->tenancy.max_tenants, 500);
	config_destroy(&config);
}

static void performance_and_pool_options_come_from_the_environment(void **state)
{
	struct config *config =
		load_env(environment("PERF_TARGET_CACHE_ACCESS_MS=10", "PERF_ENABLE_SLOW_LOG=false",
				     "PERF_SLOW_THRESHOLD_MS=200", "POOL_MIN_SIZE=5", "POOL_MAX_SIZE=50",
				     "POOL_IDLE_TIMEOUT_SECONDS=300", "POOL_MAX_LIFETIME_SECONDS=1800"));

	(void)state;
	assert_int_equal(config->performance.target_cache_access_ms, 10);
	assert_false(config->performance.enable_slow_log);
	assert_int_equal(config->performance.slow_threshold_ms, 200);
	assert_int_equal(config->pool.min_size, 5);
	assert_int_equal(config->redis.pool_size, 50);
	assert_int_equal(config->pool.idle_timeout_seconds, 300);
	assert_int_equal(config->pool.max_lifetime_seconds, 1800);
	config_destroy(&config);
}

static void compression_algorithm_takes_its_words_in_any_case(void **state)
{
	static const struct {
		const char *setting;
		enum config_compression value;
	} cases[] = {{"CACHE_COMPRESSION_ALGORITHM=lz4", CONFIG_COMPRESSION_LZ4},
		     {"CACHE_COMPRESSION_ALGORITHM=ZSTD", CONFIG_COMPRESSION_ZSTD},
		     {"CACHE_COMPRESSION_ALGORITHM=None", CONFIG_COMPRESSION_NONE},
		     {"CACHE_COMPRESSION_ALGORITHM=auto", CONFIG_COMPRESSION_AUTO}};

	(void)state;
	if (!RIPTIDE_COMPRESSION) {
		print_message("this build has no compression\n");
		skip();
	}
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config *config = load_env(environment(cases[i].setting));

		assert_int_equal(config->cache.compression_algorithm, cases[i].value);
		config_destroy(&config);
	}
}

#if !RIPTIDE_COMPRESSION
static void a_build_without_compression_refuses_to_be_asked_for_it(void **state)
{
	static const char why[] = "this build has no compression; allowed is cache.compression_algorithm = none";
	struct config *config;
	char wanted[256];

	(void)state;
	snprintf(wanted, sizeof(wanted), "CACHE_COMPRESSION_ALGORITHM (environment): cache.compression_algorithm: %s",
		 why);
	assert_string_equal(load_error(NULL, environment("CACHE_COMPRESSION_ALGORITHM=lz4")), wanted);
	assert_string_equal(load_error(NULL, environment("CACHE_COMPRESSION_ALGORITHM=zstd")), wanted);
	assert_string_equal(load_error(NULL, environment("CACHE_COMPRESSION_ALGORITHM=auto")), wanted);
	snprintf(wanted, sizeof(wanted), "ENABLE_COMPRESSION (environment): cache.enable_compression: %s", why);
	assert_string_equal(load_error(NULL, environment("ENABLE_COMPRESSION=true")), wanted);
	config = load_env(environment("ENABLE_COMPRESSION=true", "CACHE_COMPRESSION_ALGORITHM=none"));
	config_destroy(&config);
	config = load_env(environment("ENABLE_COMPRESSION=false", "CACHE_COMPRESSION_ALGORITHM=zstd"));
	config_destroy(&config);
}
#endif

static void defaults_hold_when_the_environment_is_empty(void **state)
{
	struct config *config = load_env((const char *[]){"PATH=/bin", "REDIS_URLS=x", "XREDIS_URL=x", NULL});

	(void)state;
	assert_string_equal(config->redis.url, "redis://localhost:6379");
	assert_int_equal(config->redis.pool_size, 10);
	assert_int_equal(config->redis.connection_timeout_ms, 5000);
	assert_int_equal(config->redis.retry_attempts, 3);
	assert_true(config->redis.enable_pipelining);
	assert_int_equal(config->cache.default_ttl_seconds, 86400);
	assert_int_equal(config->cache.max_entry_size_bytes, 20 << 20);
	assert_string_equal(config->cache.key_prefix, "riptide");
	assert_string_equal(config->cache.version, "v1");
	assert_true(config->cache.enable_compression);
	assert_int_equal(config->cache.compression_threshold_bytes, 1024);
	assert_int_equal(config->cache.compression_algorithm,
			 RIPTIDE_COMPRESSION ? CONFIG_COMPRESSION_LZ4 : CONFIG_COMPRESSION_NONE);
	assert_int_equal(config->agent.shutdown_timeout_seconds, 30);
	assert_true(config->tenancy.enabled);
	assert_int_equal(config->tenancy.max_tenants, 1000);
	assert_int_equal(config->performance.target_cache_access_ms, 5);
	assert_int_equal(config->performance.slow_threshold_ms, 100);
	assert_int_equal(config->pool.min_size, 2);
	assert_int_equal(config->agent.backend, CONFIG_BACKEND_EMBEDDED);
	config_destroy(&config);
}

static void values_that_cannot_be_read_are_errors_that_name_the_variable(void **state)
{
	static const struct {
		const char *setting;
		const char *error;
	} cases[] = {
		{"REDIS_POOL_SIZE=invalid",
		 "REDIS_POOL_SIZE (environment): redis.pool_size: \"invalid\" cannot be read; allowed is a number from 1 to 1024"},
		{"REDIS_POOL_SIZE=",
		 "REDIS_POOL_SIZE (environment): redis.pool_size: \"\" cannot be read; allowed is a number "
		 "from 1 to 1024"},
		{"ENABLE_COMPRESSION=maybe",
		 "ENABLE_COMPRESSION (environment): cache.enable_compression: \"maybe\" is not a truth value; allowed is true or "
		 "false (or yes, no, on, off, 1, 0)"},
		{"PERF_TARGET_CACHE_ACCESS_MS=not_a_number",
		 "PERF_TARGET_CACHE_ACCESS_MS (environment): performance.target_cache_access_ms: \"not_a_number\" cannot be read; "
		 "allowed is a time from 1 to 100 ms, or with ms, s, m, h, d"},
		{"CACHE_COMPRESSION_ALGORITHM=gzip",
		 "CACHE_COMPRESSION_ALGORITHM (environment): cache.compression_algorithm: \"gzip\" is not a known word; allowed is "
		 "one of lz4, zstd, auto, none"},
		{"CACHE_EVICTION_POLICY=FIFO",
		 "CACHE_EVICTION_POLICY (environment): cache.eviction_policy: \"FIFO\" is not a known "
		 "word; allowed is one of lru, lfu, ttl, random, s3fifo"},
		{"CACHE_MAX_MEMORY_BYTES=1.5G",
		 "CACHE_MAX_MEMORY_BYTES (environment): cache.max_memory_bytes: \"1.5G\" cannot be "
		 "read; allowed is a size from 0 to 16T, in bytes or with K, M, G, T"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(load_error(NULL, environment(cases[i].setting)), cases[i].error);
}

static void booleans_have_eight_words(void **state)
{
	static const char *const words[] = {"TENANT_ENABLED=true", "TENANT_ENABLED=1",     "TENANT_ENABLED=YES",
					    "TENANT_ENABLED=on",   "TENANT_ENABLED=false", "TENANT_ENABLED=0",
					    "TENANT_ENABLED=no",   "TENANT_ENABLED=Off"};

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		struct config *config = load_env(environment(words[i]));

		assert_int_equal(config->tenancy.enabled, i < 4);
		config_destroy(&config);
	}
}

static void the_five_rules_hold_with_their_words(void **state)
{
	(void)state;
	assert_non_null(
		strstr(load_error(NULL, environment("REDIS_URL=")), "redis.url: Redis URL cannot be empty; "));
	assert_non_null(strstr(load_error(NULL, environment("PERF_TARGET_CACHE_ACCESS_MS=0")),
			       ": Target cache access time must be greater than 0; "));
	assert_non_null(strstr(load_error(NULL, environment("PERF_TARGET_CACHE_ACCESS_MS=101")),
			       ": Target cache access time should be less than 100ms for optimal performance; "));
	assert_non_null(strstr(load_error(NULL, environment("CACHE_MAX_ENTRY_SIZE_BYTES=0")),
			       ": Maximum entry size must be greater than 0; "));
	assert_non_null(strstr(
		load_error(NULL, environment("TENANT_MAX_TENANTS=0")),
		"TENANT_MAX_TENANTS (environment): tenancy.max_tenants: Maximum tenants must be greater than 0 when "
		"multi-tenancy is enabled; "));
	struct config *config = load_env(environment("TENANT_MAX_TENANTS=0", "TENANT_ENABLED=false"));
	config_destroy(&config);
	config = load_env(environment("PERF_TARGET_CACHE_ACCESS_MS=100"));
	config_destroy(&config);
}

static void validation_passes_with_values_from_the_environment(void **state)
{
	struct config *config = load_env(environment("REDIS_URL=redis://valid:6379", "PERF_TARGET_CACHE_ACCESS_MS=10",
						     "CACHE_MAX_ENTRY_SIZE_BYTES=1048576", "TENANT_MAX_TENANTS=100"));

	(void)state;
	config_destroy(&config);
}

static void all_sections_load_together(void **state)
{
	struct config *config = load_env(environment("REDIS_POOL_SIZE=15", "CACHE_DEFAULT_TTL_SECONDS=3600",
						     "STATE_SHUTDOWN_TIMEOUT_SECONDS=45", "TENANT_MAX_TENANTS=200",
						     "PERF_SLOW_THRESHOLD_MS=50", "ENABLE_COMPRESSION=false",
						     "ENABLE_MULTI_TENANCY=false"));

	(void)state;
	assert_int_equal(config->redis.pool_size, 15);
	assert_int_equal(config->cache.default_ttl_seconds, 3600);
	assert_int_equal(config->agent.shutdown_timeout_seconds, 45);
	assert_int_equal(config->tenancy.max_tenants, 200);
	assert_int_equal(config->performance.slow_threshold_ms, 50);
	assert_false(config->cache.enable_compression);
	assert_false(config->tenancy.enabled);
	config_destroy(&config);
}

static void a_cluster_is_asked_for_by_the_url(void **state)
{
	struct config *config =
		load_env(environment("REDIS_CLUSTER_MODE=true", "REDIS_URL=redis+cluster://h1:1,h2:2"));

	(void)state;
	config_destroy(&config);
	config = load_env(environment("REDIS_CLUSTER_MODE=false"));
	config_destroy(&config);
	assert_string_equal(load_error(NULL, environment("REDIS_CLUSTER_MODE=true", "REDIS_URL=redis://h1:1")),
			    "REDIS_CLUSTER_MODE (environment): redis.url names no cluster; write "
			    "redis+cluster://host:port,host:port");
	assert_string_equal(load_error(NULL, environment("REDIS_CLUSTER_MODE=maybe")),
			    "REDIS_CLUSTER_MODE (environment): allowed: true or false");
}

static void two_names_of_one_option_must_agree(void **state)
{
	struct config *config = load_env(environment("CACHE_ENABLE_COMPRESSION=no", "ENABLE_COMPRESSION=0",
						     "REDIS_POOL_SIZE=7", "POOL_MAX_SIZE=7"));

	(void)state;
	assert_false(config->cache.enable_compression);
	config_destroy(&config);
	assert_string_equal(
		load_error(NULL, environment("POOL_MAX_SIZE=8", "REDIS_POOL_SIZE=7")),
		"REDIS_POOL_SIZE (environment): redis.pool_size: POOL_MAX_SIZE is set too and says something else; "
		"unset one of them");
}

static void redis_url_in_the_environment_implies_the_backend(void **state)
{
	struct config *config = load_env(environment("REDIS_URL=redis://localhost:6379"));
	char *text = printed(config);

	(void)state;
	assert_int_equal(config->agent.backend, CONFIG_BACKEND_REDIS);
	assert_non_null(strstr(text, "backend = redis  # from redis.url (REDIS_URL (environment))\n"));
	free(text);
	config_destroy(&config);
}

static void environment_overrides_the_file(void **state)
{
	const char *path = write_file("t.conf", "redis { pool_size = 5 retry_attempts = 7 }\n");
	struct config *config = load(path, environment("REDIS_POOL_SIZE=6"));

	(void)state;
	assert_int_equal(config->redis.pool_size, 6);
	assert_int_equal(config->redis.retry_attempts, 7);
	config_destroy(&config);
}

static void a_password_in_the_environment_is_not_repeated(void **state)
{
	struct config *config = load_env(environment("REDIS_URL=redis://app:s3cr@et@db:6379/0"));
	char *text = printed(config);

	(void)state;
	assert_non_null(strstr(text, "url = \"redis://***@db:6379/0\"  # REDIS_URL (environment)\n"));
	assert_null(strstr(text, "s3cr"));
	assert_null(strstr(text, "et@"));
	free(text);
	config_destroy(&config);
	assert_null(strstr(load_error(NULL, environment("REDIS_URL=http://app:s3cret@db")), "s3cret"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(redis_options_come_from_the_environment),
		cmocka_unit_test(cache_options_come_from_the_environment),
		cmocka_unit_test(state_options_come_from_the_environment),
		cmocka_unit_test(tenant_options_come_from_the_environment),
		cmocka_unit_test(performance_and_pool_options_come_from_the_environment),
		cmocka_unit_test(compression_algorithm_takes_its_words_in_any_case),
#if !RIPTIDE_COMPRESSION
		cmocka_unit_test(a_build_without_compression_refuses_to_be_asked_for_it),
#endif
		cmocka_unit_test(defaults_hold_when_the_environment_is_empty),
		cmocka_unit_test(values_that_cannot_be_read_are_errors_that_name_the_variable),
		cmocka_unit_test(booleans_have_eight_words),
		cmocka_unit_test(the_five_rules_hold_with_their_words),
		cmocka_unit_test(validation_passes_with_values_from_the_environment),
		cmocka_unit_test(all_sections_load_together),
		cmocka_unit_test(a_cluster_is_asked_for_by_the_url),
		cmocka_unit_test(two_names_of_one_option_must_agree),
		cmocka_unit_test(redis_url_in_the_environment_implies_the_backend),
		folder_test(environment_overrides_the_file),
		cmocka_unit_test(a_password_in_the_environment_is_not_repeated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
