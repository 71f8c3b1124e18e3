#include "agent/config.h"

#include "agent/config_option.h"
#include "agent/config_url.h"
#include "agent/store/compress.h"
#include "tests/unit/agent/config_fixture.h"

/* ---- the table and the shipped file ---- */

static size_t count_occurrences(const char *text, const char *what)
{
	size_t count = 0;

	for (const char *p = strstr(text, what); p != NULL; p = strstr(p + 1, what))
		count++;
	return count;
}

/* The text of a section in the shipped file, from its brace to the closing one at the beginning of a line. */
static char *section_of(const char *text, const char *name, size_t length)
{
	char opening[64];
	const char *begin, *end;

	snprintf(opening, sizeof(opening), "\n%.*s {\n", (int)length, name);
	begin = strstr(text, opening);
	assert_non_null(begin);
	end = strstr(begin, "\n}\n");
	assert_non_null(end);
	return strndup(begin, (size_t)(end - begin) + 1);
}

/* The comment before `line`, back to an empty line or the brace, as one line of text; the caller frees it. */
static char *comment_before(const char *section, const char *line)
{
	const char *begin = line;
	char *comment = malloc((size_t)(line - section) + 1);
	size_t length = 0;

	assert_non_null(comment);
	while (begin > section && begin[-1] != '{' && !(begin[0] == '\n' && begin[-1] == '\n'))
		begin--;
	for (const char *p = begin; p < line; p++) {
		if (strncmp(p, "\n\t#", 3) == 0)
			p += 2;
		else
			comment[length++] = *p;
	}
	comment[length] = '\0';
	return comment;
}

static void check_comment(const char *comment, const struct config_option *option)
{
	char bytes[512];
	struct text wanted;

	text_init(&wanted, bytes, sizeof(bytes));
	text_append_format(&wanted, "%s Allowed: ", option->help);
	config_option_allowed(option, &wanted);
	text_append_string(&wanted, ".");
	if (option->environment != NULL)
		text_append_format(&wanted, " Environment: %s", option->environment);
	if (option->environment_alias != NULL)
		text_append_format(&wanted, " or %s", option->environment_alias);
	text_append_string(&wanted, option->environment != NULL ? ". Reload: " : " Reload: ");
	text_append_string(&wanted, option->live ? "live." : "restart.");
	assert_string_equal(comment + strspn(comment, " "), bytes);
}

static void check_row(const char *text, const struct config_option *option)
{
	size_t section_length = strcspn(option->name, ".");
	char *section = section_of(text, option->name, section_length), *comment;
	char plain[256], quoted[256], opening[128];
	const char *line;

	snprintf(opening, sizeof(opening), "\n\t#%s = ", option->name + section_length + 1);
	snprintf(plain, sizeof(plain), "%s%s\n", opening, option->initial);
	snprintf(quoted, sizeof(quoted), "%s\"%s\"\n", opening, option->initial);
	assert_int_equal(count_occurrences(section, opening), 1);
	line = strstr(section, plain);
	if (line == NULL)
		line = strstr(section, quoted);
	if (line == NULL)
		print_error("default of %s\n", option->name);
	assert_non_null(line);
	comment = comment_before(section, line);
	check_comment(comment, option);
	free(comment);
	free(section);
}

static void config_shipped_file_names_every_option_with_its_default(void **state)
{
	char *text = read_whole(SHIPPED_FILE, NULL);
	size_t count, tenant_count, lines = 0;
	const struct config_option *options = config_options(&count);
	const struct config_option *tenant_options = config_tenant_options(&tenant_count);

	(void)state;
	for (size_t i = 0; i < count; i++)
		check_row(text, &options[i]);
	for (const char *p = strstr(text, "\n\t#"); p != NULL; p = strstr(p + 1, "\n\t#"))
		lines += p[3] != ' ';
	assert_int_equal(lines, count);
	for (size_t i = 0; i < tenant_count; i++) {
		char line[128];

		snprintf(line, sizeof(line), "\n#\t%s = ", strchr(tenant_options[i].name, '.') + 1);
		assert_int_equal(count_occurrences(text, line), 1);
	}
	free(text);
}

static void count_change(void *context, const struct config_change *change)
{
	print_error("%s: %s -> %s\n", change->name, change->before, change->after);
	(*(size_t *)context)++;
}

static void config_shipped_file_changes_nothing_with_its_defaults_in_force(void **state)
{
	char *text = read_whole(SHIPPED_FILE, NULL), *tenant;
	struct config *plain = load(NULL, NULL), *shipped = load(SHIPPED_FILE, NULL), *full;
	size_t changes = 0;

	(void)state;
	assert_int_equal(config_compare(plain, shipped, count_change, &changes), 0);
	if (!RIPTIDE_COMPRESSION) {
		print_message("only so far: this build refuses the file's compression\n");
		config_destroy(&plain);
		config_destroy(&shipped);
		free(text);
		return;
	}
	tenant = strstr(text, "\n#tenant");
	assert_non_null(tenant);
	tenant[1] = '\0';
	uncomment(text);
	full = load(write_file("t.conf", text), NULL);
	assert_int_equal(config_compare(plain, full, count_change, &changes), 0);
	assert_int_equal(changes, 0);
	config_destroy(&plain);
	config_destroy(&shipped);
	config_destroy(&full);
	free(text);
}

static void config_table_is_sound(void **state)
{
	size_t count;
	const struct config_option *options = config_options(&count);

	(void)state;
	for (size_t i = 0; i < count; i++) {
		const struct config_option *option = &options[i];

		assert_ptr_equal(config_option_find(option->name), option);
		assert_non_null(option->help);
		assert_int_equal(option->help[strlen(option->help) - 1], '.');
		assert_int_equal(strspn(option->name, "abcdefghijklmnopqrstuvwxyz0123456789_."),
				 strlen(option->name));
		assert_true(option->words != NULL || option->type == CONFIG_BOOL || option->max > option->min);
		assert_true(option->environment != NULL || option->environment_alias == NULL);
		/* A unit in the name is the unit of the type. */
		if (option->type == CONFIG_MS)
			assert_string_equal(option->name + strlen(option->name) - 3, "_ms");
		if (option->type == CONFIG_SECONDS)
			assert_string_equal(option->name + strlen(option->name) - 8, "_seconds");
	}
	assert_null(config_option_find("agent.none"));
}

/* ---- precedence and printing ---- */

static struct config *load_all(const char *path, const char *const *variables, const char *const *settings,
			       size_t count)
{
	struct config_sources sources = {
		.file = path, .environment = variables, .settings = settings, .settings_count = count};
	struct config *config = NULL;

	assert_int_equal(config_load(&sources, &config, err, sizeof(err)), RSHM_OK);
	return config;
}

static void config_later_sources_win_and_are_named(void **state)
{
	const char *path = write_file(
		"t.conf", "redis {\n\tpool_size = 11\n\tretry_attempts = 11\n\tcommand_timeout_ms = 11\n}\n");
	const char *variables[] = {"REDIS_POOL_SIZE=12", "REDIS_RETRY_ATTEMPTS=12", NULL};
	const char *settings[] = {"redis.pool_size=99", "redis.pool_size=13"};
	struct config *config = load_all(path, variables, settings, 2);
	char *text = printed(config), line[512];

	(void)state;
	assert_int_equal(config->redis.pool_size, 13);
	assert_int_equal(config->redis.retry_attempts, 12);
	assert_int_equal(config->redis.command_timeout_ms, 11);
	assert_non_null(strstr(text, "\n\tpool_size = 13  # command line\n"));
	assert_non_null(strstr(text, "\n\tretry_attempts = 12  # REDIS_RETRY_ATTEMPTS (environment)\n"));
	snprintf(line, sizeof(line), "\n\tcommand_timeout_ms = 11  # %s:4\n", path);
	assert_non_null(strstr(text, line));
	assert_non_null(strstr(text, "\n\tretry_delay_ms = 100  # default\n"));
	free(text);
	config_destroy(&config);
}

static void config_print_shows_every_option_and_reads_back(void **state)
{
	const char *path =
		write_file("t.conf", "agent { state_dir = \"/a \\\"b\\\" \\\\c\" workers = 3 }\n"
				     "tenant \"shop\" { users = {\"root\", \"1001\"} memory_bytes = 2M }\n");
	struct config *config = load(path, NULL), *again;
	char *text = printed(config);
	size_t count, changes = 0;
	const struct config_option *options = config_options(&count);

	(void)state;
	for (size_t i = 0; i < count; i++) {
		char line[128];

		snprintf(line, sizeof(line), "\n\t%s = ", strchr(options[i].name, '.') + 1);
		assert_non_null(strstr(text, line));
	}
	again = load(write_file("again.conf", text), NULL);
	assert_int_equal(config_compare(config, again, count_change, &changes), 0);
	assert_string_equal(again->agent.state_dir, "/a \"b\" \\c");
	free(text);
	config_destroy(&config);
	config_destroy(&again);
}

static void config_refuses_settings_that_make_no_sense(void **state)
{
	static const struct {
		const char *setting, *error;
	} cases[] = {
		{"agent.workers", "--set: no = in it; write --set section.option=value"},
		{"agent.walkers=2", "--set: agent.walkers: no such option; riptided --print-config shows them all"},
		{"agent.workers=65", "--set: agent.workers: \"65\" is too large; allowed is a number from 1 to 64"},
		{"agent.run_dir=run",
		 "--set: agent.run_dir: \"run\" is not an absolute path; allowed is an absolute path of at "
		 "most 80 bytes"},
		{"agent.instance=A",
		 "--set: agent.instance: \"A\" is not a name; allowed is 1 to 32 characters of a-z, 0-9 and -"},
		{"agent.shutdown_timeout_seconds=1500ms",
		 "--set: agent.shutdown_timeout_seconds: \"1500ms\" is not a whole number of seconds; allowed is a time from 1 to "
		 "3600 seconds, or with ms, s, m, h, d"},
	};
	struct config *config = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config_sources sources = {.settings = &cases[i].setting, .settings_count = 1};

		assert_int_equal(config_load(&sources, &config, err, sizeof(err)), RSHM_E_INVALID);
		assert_string_equal(err, cases[i].error);
	}
	assert_null(config);
}

/* ---- options that depend on others ---- */

static void config_backend_follows_redis_url_unless_it_is_set(void **state)
{
	struct config *config = load(write_file("t.conf", "redis { url = \"unix:///run/redis.sock\" }\n"), NULL);

	(void)state;
	assert_int_equal(config->agent.backend, CONFIG_BACKEND_REDIS);
	config_destroy(&config);
	config = load(write_file("t.conf", "redis { url = \"redis://h\" }\nagent { backend = embedded }\n"), NULL);
	assert_int_equal(config->agent.backend, CONFIG_BACKEND_EMBEDDED);
	config_destroy(&config);
	config = load(write_file("t.conf", "redis { pool_size = 3 }\n"), NULL);
	assert_int_equal(config->agent.backend, CONFIG_BACKEND_EMBEDDED);
	config_destroy(&config);
}

static void config_embedded_path_follows_the_state_folder(void **state)
{
	struct config *config = load(write_file("t.conf", "agent { state_dir = /srv/rt }\n"), NULL);
	char *text = printed(config);

	(void)state;
	assert_string_equal(config->embedded.path, "/srv/rt/store");
	assert_non_null(strstr(text, "path = \"/srv/rt/store\"  # from agent.state_dir ("));
	free(text);
	config_destroy(&config);
	config = load(write_file("t.conf", "embedded { path = /other }\n"), NULL);
	assert_string_equal(config->embedded.path, "/other");
	config_destroy(&config);
}

static void config_defaults_give_way_but_set_values_must_agree(void **state)
{
	struct config *config = load(write_file("t.conf", "redis { pool_size = 1 retry_delay_ms = 5s }\n"), NULL);

	(void)state;
	assert_int_equal(config->pool.min_size, 1);
	assert_int_equal(config->redis.retry_max_delay_ms, 5000);
	config_destroy(&config);
	check_error("redis { pool_size = 1 }\npool {\n min_size = 2\n}\n",
		    ":3: pool.min_size: is larger than redis.pool_size; allowed is at most redis.pool_size");
	check_error("redis {\n retry_delay_ms = 200\n retry_max_delay_ms = 100\n}\n",
		    ":3: redis.retry_max_delay_ms: is smaller than redis.retry_delay_ms; allowed is at least "
		    "redis.retry_delay_ms");
	check_error(
		"limits {\n worker_staging_bytes = 1M\n tenant_staging_bytes = 2M\n}\n",
		":3: limits.tenant_staging_bytes: is larger than limits.worker_staging_bytes; allowed is at most that");
}

static void config_rules_of_the_seed_name_file_and_line(void **state)
{
	(void)state;
	check_error_begins("redis {\n url = \"\"\n}\n",
			   ":2: redis.url: Redis URL cannot be empty; allowed is redis://");
	check_error_begins(
		"\nperformance { target_cache_access_ms = 0 }\n",
		":2: performance.target_cache_access_ms: Target cache access time must be greater than 0; ");
	check_error_begins(
		"\nperformance { target_cache_access_ms = 200 }\n",
		":2: performance.target_cache_access_ms: Target cache access time should be less than 100ms for "
		"optimal performance; ");
	check_error_begins("cache { max_entry_size_bytes = 0 }\n",
			   ":1: cache.max_entry_size_bytes: Maximum entry size must be greater than 0; ");
	check_error_begins(
		"tenancy {\n\n max_tenants = 0\n}\n",
		":3: tenancy.max_tenants: Maximum tenants must be greater than 0 when multi-tenancy is enabled; ");
}

/* ---- tenants ---- */

static void config_default_tenant_always_exists(void **state)
{
	struct config *config = load(NULL, NULL);
	const struct config_tenant *tenant = config_find_tenant(config, "default");

	(void)state;
	assert_non_null(tenant);
	assert_int_equal(config->tenants_count, 1);
	assert_int_equal(tenant->uids_count, 1);
	assert_int_equal(tenant->uids[0], geteuid());
	assert_int_equal(tenant->gids_count, 1);
	assert_int_equal(tenant->gids[0], getegid());
	assert_int_equal(tenant->default_ttl_seconds, 86400);
	assert_int_equal(tenant->memory_bytes, 0);
	assert_null(config_find_tenant(config, "shop"));
	config_destroy(&config);
}

static void config_tenants_are_read_resolved_and_inherit(void **state)
{
	struct config *config = load(
		write_file(
			"t.conf",
			"cache { default_ttl_seconds = 60 }\ncoherence { stale_policy = error }\n"
			"tenant \"shop\" {\n users = {\"root\", \"1001\"}\n groups = {root}\n groups += {\"77\"}\n}\n"
			"tenant \"aa\" { users = {\"5\"} default_ttl_seconds = 2h stale_policy = miss memory_bytes = 3M }\n"),
		NULL);
	const struct config_tenant *shop = config_find_tenant(config, "shop"), *aa = config_find_tenant(config, "aa");

	(void)state;
	assert_int_equal(config->tenants_count, 3);
	assert_string_equal(config->tenants[0].name, "default");
	assert_string_equal(config->tenants[1].name, "aa");
	assert_int_equal(shop->uids_count, 2);
	assert_int_equal(shop->uids[0], 0);
	assert_int_equal(shop->uids[1], 1001);
	assert_int_equal(shop->gids_count, 2);
	assert_int_equal(shop->gids[0], 0);
	assert_int_equal(shop->gids[1], 77);
	assert_int_equal(shop->default_ttl_seconds, 60);
	assert_int_equal(shop->stale_policy, CONFIG_STALE_ERROR);
	assert_int_equal(aa->default_ttl_seconds, 7200);
	assert_int_equal(aa->stale_policy, CONFIG_STALE_MISS);
	assert_int_equal(aa->memory_bytes, 3 << 20);
	assert_int_equal(aa->gids_count, 0);
	config_destroy(&config);
}

static void config_tenants_are_checked(void **state)
{
	char rest[CONFIG_ERROR_MAX];

	(void)state;
	snprintf(rest, sizeof(rest), ":3: tenant: \"a\" was defined already at %s/t.conf:1; keep one of the two",
		 folder);
	check_error("tenant \"a\" { users = {\"1\"} }\n\ntenant \"a\" { users = {\"1\"} }\n", rest);
	check_error("\ntenant \"../a\" {\n}\n",
		    ":2: tenant: \"../a\" is no name of a tenant; allowed are 1 to 64 characters of a-z, 0-9 and -");
	check_error("\ntenant \"a\" {\n}\n", ":2: tenant: \"a\" has neither users nor groups; name who may attach");
	check_error(
		"tenant \"a\" {\n users = {\"root\",\n \"no-such-user-here\"}\n}\n",
		":3: tenant.users: tenant \"a\": \"no-such-user-here\" is not known on this machine; allowed are names and "
		"numbers of users");
	check_error_begins("tenant \"a\" { groups = {\"010\"} }\n",
			   ":1: tenant.groups: tenant \"a\": \"010\" is not known");
	check_error_begins("tenant \"a\" { users = {\"65534\"} }\n",
			   ":1: tenant.users: tenant \"a\": \"65534\" is what the ");
	check_error_begins("tenant \"a\" { users = {\"4294967295\"} }\n", ":1: tenant.users: tenant \"a\": ");
	check_error(
		"tenant \"a\" {\n users = {\"1\"}\n memory_bytes = 64K\n}\n",
		":3: tenant.memory_bytes: tenant \"a\": is smaller than cache.segment_initial_bytes; allowed is at least that, or 0");
	check_error("tenancy { enabled = false }\ntenant \"a\" { users = {\"1\"} }\n",
		    ":2: tenant: \"a\" is defined but tenancy.enabled is false; enable it or remove the section");
	check_error("tenancy { max_tenants = 1 }\ntenant \"a\" { users = {\"1\"} }\n",
		    ":2: tenant: \"a\" is one more than tenancy.max_tenants allows (\"default\" counts); raise it");
	check_error_begins(
		"tenant \"a\" {\n stale_policy = maybe\n}\n",
		":2: tenant.stale_policy: \"maybe\" is not a known word; allowed is one of miss, stale, error");
	check_error(
		"tenant \"a\" {\n uid = 1\n}\n",
		":2: tenant.uid: no such option; this section has users, groups, memory_bytes, default_ttl_seconds, "
		"write_mode, eviction_policy, stale_policy");
}

/* ---- comparing ---- */

struct changes {
	char text[4096];
	char live[1024]; /* the names of those that need no restart */
};

static void note_change(void *context, const struct config_change *change)
{
	struct changes *changes = context;
	size_t length = strlen(changes->text), live_length = strlen(changes->live);

	snprintf(changes->text + length, sizeof(changes->text) - length, "%s: %s -> %s\n", change->name,
		 change->before != NULL ? change->before : "-", change->after != NULL ? change->after : "-");
	if (change->live)
		snprintf(changes->live + live_length, sizeof(changes->live) - live_length, "%s\n", change->name);
}

static void config_compare_tells_what_changed_and_what_needs_a_restart(void **state)
{
	struct config *before = load(write_file("a.conf", "redis { url = \"redis://:old@h\" }\n"
							  "tenant \"gone\" { users = {\"1\"} }\n"
							  "tenant \"kept\" { users = {\"1\"} }\n"),
				     NULL);
	struct config *after =
		load(write_file("b.conf", "redis { url = \"redis://:new@h\" }\nlog { level = debug }\n"
					  "agent { workers = 2 }\n"
					  "tenant \"kept\" { users = {\"1\", \"2\"} stale_policy = miss }\n"
					  "tenant \"new\" { users = {\"1\"} }\n"),
		     NULL);
	struct changes changes = {"", ""};

	(void)state;
	assert_int_equal(config_compare(before, after, note_change, &changes), 7);
	assert_string_equal(changes.text, "agent.workers: 1 -> 2\n"
					  "log.level: info -> debug\n"
					  "redis.url: \"redis://***@h\" -> \"redis://***@h\"\n"
					  "tenant \"gone\": defined -> -\n"
					  "tenant \"kept\".users: {\"1\"} -> {\"1\", \"2\"}\n"
					  "tenant \"kept\".stale_policy: stale -> miss\n"
					  "tenant \"new\": - -> defined\n");
	assert_non_null(strstr(changes.live, "log.level\n"));
	assert_null(strstr(changes.live, "agent.workers\n"));
	assert_null(strstr(changes.live, "tenant \"gone\"\n"));
	config_destroy(&before);
	config_destroy(&after);
	config_destroy(&after);
}

/* ---- URLs ---- */

static void config_urls_are_checked(void **state)
{
	static const char *const good[] = {"redis://h",
					   "redis://h:6379",
					   "redis://h:1/15",
					   "redis://h/",
					   "redis://:p@h",
					   "redis://u:p@ss:w/rd@h:1",
					   "redis://[::1]:6379/2",
					   "unix:///run/r.sock",
					   "unix:///run/r.sock?db=3",
					   "unix://u:p@/run/r.sock",
					   "redis+cluster://h",
					   "redis+cluster://u:p,@h:1,[::1]:2,h3",
					   "redis+sentinel://h/mymaster",
					   "redis+sentinel://u:p/@h:1,[::1]:2,h3/my-master.1/3"};
	static const char *const bad[] = {"",
					  "redis://",
					  "redis://:6379",
					  "redis://h:0",
					  "redis://h:65536",
					  "redis://h:x",
					  "redis://h:",
					  "redis://h/x",
					  "redis://h/1/2",
					  "redis://h?db=1",
					  "rediss://h",
					  "http://h",
					  "h:6379",
					  "unix://run/r.sock",
					  "unix:///",
					  "unix:///r?db=",
					  "unix:///r?x=1",
					  "redis://h h",
					  "redis://[::1",
					  "redis://h/01",
					  "redis://h:06379",
					  "redis+sentinel://h",
					  "redis+sentinel://h/",
					  "redis+sentinel:///mymaster",
					  "redis+sentinel://h,/mymaster",
					  "redis+sentinel://h:0/mymaster",
					  "redis+sentinel://h/my%20master",
					  "redis+sentinel://h/mymaster/x",
					  "redis+cluster://",
					  "redis+cluster://h,",
					  "redis+cluster://h/0",
					  "redis+cluster://h/,h2",
					  "redis+cluster://h:1,h:0"};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		if (config_url_fault(good[i]) != NULL)
			print_error("%s\n", good[i]);
		assert_null(config_url_fault(good[i]));
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (config_url_fault(bad[i]) == NULL)
			print_error("%s\n", bad[i]);
		assert_non_null(config_url_fault(bad[i]));
	}
}

static void config_urls_are_shown_without_their_login(void **state)
{
	char shown[128];
	struct text text;

	(void)state;
	text_init(&text, shown, sizeof(shown));
	config_url_mask("redis://u:p@ss:w/rd@h:1/2", &text);
	assert_string_equal(shown, "redis://***@h:1/2");
	text_init(&text, shown, sizeof(shown));
	config_url_mask("unix:///run/r.sock?db=1", &text);
	assert_string_equal(shown, "unix:///run/r.sock?db=1");
	text_init(&text, shown, sizeof(shown));
	config_url_mask("redis+sentinel://u:p@a:1,b:2/main", &text);
	assert_string_equal(shown, "redis+sentinel://***@a:1,b:2/main");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(config_shipped_file_names_every_option_with_its_default),
		folder_test(config_shipped_file_changes_nothing_with_its_defaults_in_force),
		cmocka_unit_test(config_table_is_sound),
		folder_test(config_later_sources_win_and_are_named),
		folder_test(config_print_shows_every_option_and_reads_back),
		cmocka_unit_test(config_refuses_settings_that_make_no_sense),
		folder_test(config_backend_follows_redis_url_unless_it_is_set),
		folder_test(config_embedded_path_follows_the_state_folder),
		folder_test(config_defaults_give_way_but_set_values_must_agree),
		folder_test(config_rules_of_the_seed_name_file_and_line),
		cmocka_unit_test(config_default_tenant_always_exists),
		folder_test(config_tenants_are_read_resolved_and_inherit),
		folder_test(config_tenants_are_checked),
		folder_test(config_compare_tells_what_changed_and_what_needs_a_restart),
		cmocka_unit_test(config_urls_are_checked),
		cmocka_unit_test(config_urls_are_shown_without_their_login),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
