/*
 * seal_test.c - tenants that encrypt: nothing that is stored of them can be read, changed or moved by whoever has the backend
 * and the disk, keys can be changed under way, and with them goes the tenant.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/e2e/both_stores.h"
#include "tests/e2e/tenants.h"

#define SECRET "the-quick-secret-of-acme"
#define OPEN_TEXT "what-everybody-may-read"
#define KEY_OF(key) "riptide:v1:{acme.0}:1:c:" key

static char folder[] = "/tmp/riptide-seal-XXXXXX";
static char master[64], other_master[64], master_setting[128];

static void write_file(const char *path, const void *bytes, size_t length, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, length), (ssize_t)length);
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(close(fd), 0);
}

static int make_folder(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(master, sizeof(master), "%s/master", folder);
	snprintf(other_master, sizeof(other_master), "%s/other", folder);
	snprintf(master_setting, sizeof(master_setting), "encryption.master_key_file=%s", master);
	write_file(master, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n", 65, 0400);
	write_file(other_master, "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210", 64, 0400);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	unlink(master);
	unlink(other_master);
	return rmdir(folder);
}

static const char *const *both_settings(void)
{
	static const char *settings[] = {"agent.workers=2",
					 "cache.segment_initial_bytes=1M",
					 "cache.max_memory_bytes=64M",
					 "spill.read_bytes=0",
					 "cache.compression_algorithm=none",
					 "log.level=debug",
					 master_setting,
					 NULL};

	return settings;
}

/* The agent's setting of that name is another one from its next start on; NULL: none. */
static void set_setting(struct agent_process *agent, const char *name, const char *value)
{
	char text[200];
	int i = 0;

	while (i < agent->setting_count && strncmp(agent->settings[i], name, strlen(name)) != 0)
		i++;
	if (i == agent->setting_count)
		agent->setting_count++;
	else
		free(agent->settings[i]);
	snprintf(text, sizeof(text), "%s=%s", name, value ? value : "");
	agent->settings[i] = strdup(text);
	assert_non_null(agent->settings[i]);
}

static void restart(struct fixture *f)
{
	riptide_close(&f->handle);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_true(e2e_await_trust(&f->agent));
}

/* ---- looking for text --------------------------------------------------------------------------------------------- */

static int count_in_file(const char *path, const char *text)
{
	size_t size = 64u << 20;
	char *bytes = malloc(size), *at = bytes;
	int fd = open(path, O_RDONLY | O_CLOEXEC), count = 0;
	ssize_t length = fd >= 0 ? read(fd, bytes, size) : 0;

	assert_non_null(bytes);
	assert_true(length < (ssize_t)size);
	while (length > 0 && (at = memmem(at, (size_t)(bytes + length - at), text, strlen(text)))) {
		count++;
		at++;
	}
	if (fd >= 0)
		close(fd);
	free(bytes);
	return count;
}

static int count_in_folder(const char *path, const char *text)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int count = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		char inner[512];
		struct stat info;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
		if (lstat(inner, &info) < 0)
			continue;
		if (S_ISDIR(info.st_mode))
			count += count_in_folder(inner, text);
		else if (S_ISREG(info.st_mode))
			count += count_in_file(inner, text);
	}
	closedir(dir);
	return count;
}

static redisReply *ask_redis(const struct redis_server *server, const char *command, const char *key,
			     const void *bytes, size_t length)
{
	redisContext *redis = redisConnectUnix(server->unix_path);
	redisReply *reply;

	assert_true(redis && !redis->err);
	reply = bytes ? redisCommand(redis, "%s %s %b", command, key, bytes, length)
		      : redisCommand(redis, "%s %s", command, key);
	assert_non_null(reply);
	redisFree(redis);
	return reply;
}

/* In what the agent and the server have on disk and in memory, but shared memory. */
static int count_stored(const struct fixture *f, const char *text)
{
	int count = count_in_folder(f->agent.folder, text);
	redisReply *keys;

	if (!f->redis)
		return count;
	keys = ask_redis(&f->server, "KEYS", "*", NULL, 0);
	for (size_t i = 0; i < keys->elements; i++) {
		redisReply *value = ask_redis(&f->server, "GET", keys->element[i]->str, NULL, 0);

		if (value->type == REDIS_REPLY_STRING && memmem(value->str, value->len, text, strlen(text)))
			count++;
		freeReplyObject(value);
	}
	freeReplyObject(keys);
	return count;
}

/* ---- cases -------------------------------------------------------------------------------------------------------- */

/* Writes `text` in all the ways there are. */
static void write_everywhere(riptide *handle, const char *text)
{
	static const char *const tags[] = {"tagged"};
	struct riptide_metadata metadata = {.content_type = text, .tags = tags, .tag_count = 1};
	struct riptide_set_options behind = {.size = sizeof(behind), .write_mode = RIPTIDE_WRITE_BEHIND};
	struct riptide_set_options tagged = {.size = sizeof(tagged), .metadata = &metadata};
	char large[20000];

	for (size_t i = 0; i < sizeof(large); i++)
		large[i] = text[i % strlen(text)];
	assert_int_equal(e2e_put(handle, "plain", text), RIPTIDE_OK);
	assert_int_equal(riptide_set(handle, "behind", 6, text, strlen(text), &behind, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_set(handle, "tagged", 6, text, strlen(text), &tagged, NULL), RIPTIDE_OK);
	assert_int_equal(riptide_set(handle, "large", 5, large, sizeof(large), NULL, NULL), RIPTIDE_OK);
}

/* As soon as shared memory has nothing older: RIPTIDE_OK and the value, or, if that is empty, what else a get returns. */
static int read_stored(riptide *handle, const char *key, const char *value)
{
	uint64_t until_ms = e2e_now_ms() + 5000;
	int status;

	do {
		status = e2e_check(handle, key, value, NULL);
		if ((status == RIPTIDE_OK) == (value[0] != '\0') && status != E2E_WRONG)
			return status;
		e2e_pause_ms(5);
	} while (e2e_now_ms() < until_ms);
	return status;
}

/* Nothing of the tenant is in shared memory. */
static riptide *open_anew(struct fixture *f, riptide **handle)
{
	riptide_close(handle);
	assert_done(TENANT(&f->agent, SUSPEND, "acme", NULL));
	assert_done(TENANT(&f->agent, RESUME, "acme", NULL));
	return open_tenant(&f->agent, "acme");
}

static void fill(riptide *handle, int count)
{
	char key[32], value[4096];

	memset(value, 'x', sizeof(value));
	memcpy(value, SECRET, strlen(SECRET));
	for (int i = 0; i < count; i++) {
		snprintf(key, sizeof(key), "fill-%d", i);
		assert_int_equal(riptide_set(handle, key, strlen(key), value, sizeof(value), NULL, NULL), RIPTIDE_OK);
	}
}

/* On either worker. */
static int64_t await_spilled(const struct fixture *f)
{
	int64_t spilled = 0;

	for (int i = 0; i < 100 && spilled <= 0; i++) {
		e2e_pause_ms(50);
		spilled = e2e_number(&f->agent, "workers.0.spill.total_spilled") +
			  e2e_number(&f->agent, "workers.1.spill.total_spilled");
	}
	return spilled;
}

static void nothing_stored_shows_the_text(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *secret, *open;

	create(&f->agent, "acme", "\"encryption\": true, \"quotas\": {\"memory_bytes\": 1048576}");
	create(&f->agent, "public", "\"encryption\": false");
	secret = open_tenant(&f->agent, "acme");
	open = open_tenant(&f->agent, "public");
	write_everywhere(open, OPEN_TEXT);
	write_everywhere(secret, SECRET);
	/* More than the segment holds: the rest goes to the disk tier. */
	fill(secret, 600);
	/* The embedded store is a disk already. */
	assert_true(!f->redis || await_spilled(f) > 0);
	/* What is looked for would be found. */
	assert_true(count_stored(f, OPEN_TEXT) >= 3);
	assert_int_equal(count_stored(f, SECRET), 0);
	assert_int_equal(riptide_flush(secret), RIPTIDE_OK);
	assert_int_equal(count_stored(f, SECRET), 0);
	/* And its owner has it. */
	secret = open_anew(f, &secret);
	assert_int_equal(read_stored(secret, "plain", SECRET), RIPTIDE_OK);
	assert_int_equal(read_stored(secret, "behind", SECRET), RIPTIDE_OK);
	assert_int_equal(read_stored(secret, "tagged", SECRET), RIPTIDE_OK);
	assert_int_equal(read_stored(open, "plain", OPEN_TEXT), RIPTIDE_OK);
	riptide_close(&secret);
	riptide_close(&open);
	/* Logs at level debug included; and after a kill, when journal and disk tier are read again. */
	restart(f);
	secret = open_tenant(&f->agent, "acme");
	assert_int_equal(read_stored(secret, "behind", SECRET), RIPTIDE_OK);
	assert_int_equal(read_stored(secret, "tagged", SECRET), RIPTIDE_OK);
	assert_int_equal(count_stored(f, SECRET), 0);
	riptide_close(&secret);
}

/* All that a cache does, on sealed entries. */
static void every_operation_works_on_what_is_sealed(void **state)
{
	struct fixture *f = both_fixture(state);
	struct riptide_set_options absent = {.size = sizeof(absent), .condition = RIPTIDE_IF_ABSENT};
	uint64_t version, ttl_ms;
	int64_t number;
	riptide *handle;

	create(&f->agent, "acme", "\"encryption\": true");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(riptide_set(handle, "k", 1, "1", 1, &absent, &version), RIPTIDE_OK);
	assert_int_equal(riptide_set(handle, "k", 1, "2", 1, &absent, NULL), RIPTIDE_CONFLICT);
	assert_int_equal(riptide_cas(handle, "k", 1, version, "41", 2, NULL, &version), RIPTIDE_OK);
	assert_int_equal(riptide_incr(handle, "k", 1, 1, NULL, &number), RIPTIDE_OK);
	assert_int_equal(number, 42);
	assert_int_equal(riptide_touch(handle, "k", 1, 60000), RIPTIDE_OK);
	handle = open_anew(f, &handle);
	assert_int_equal(riptide_ttl(handle, "k", 1, &ttl_ms), RIPTIDE_OK);
	assert_in_range(ttl_ms, 50000, 60000);
	assert_int_equal(read_stored(handle, "k", "42"), RIPTIDE_OK);
	write_everywhere(handle, SECRET);
	assert_int_equal(riptide_invalidate_tag(handle, "tagged"), RIPTIDE_OK);
	assert_int_equal(read_stored(handle, "tagged", ""), RIPTIDE_MISS);
	assert_int_equal(riptide_delete(handle, "plain", 5), RIPTIDE_OK);
	assert_int_equal(read_stored(handle, "plain", ""), RIPTIDE_MISS);
	make_hot(handle, "k", "42");
	assert_int_equal(riptide_clear(handle), RIPTIDE_OK);
	assert_int_equal(read_stored(handle, "k", ""), RIPTIDE_MISS);
	riptide_close(&handle);
}

static redisReply *stored(const struct fixture *f, const char *key)
{
	redisReply *reply = ask_redis(&f->server, "GET", key, NULL, 0);

	assert_int_equal(reply->type, REDIS_REPLY_STRING);
	return reply;
}

static void store(const struct fixture *f, const char *key, const redisReply *bytes)
{
	freeReplyObject(ask_redis(&f->server, "SET", key, bytes->str, bytes->len));
}

/* The figure of the statistics, when it has settled. */
static int64_t refused_entries(const struct fixture *f, const char *id)
{
	char path[64], name[80];

	e2e_pause_ms(600);
	for (int i = 0; i < 10; i++) {
		snprintf(path, sizeof(path), "tenants.%d.tenant", i);
		e2e_text(&f->agent, path, name, sizeof(name));
		if (strcmp(name, id) != 0)
			continue;
		snprintf(path, sizeof(path), "tenants.%d.refused_entries", i);
		return e2e_number(&f->agent, path);
	}
	return -1;
}

/* What is not as we sealed it, where we put it, is refused, counted, and nobody's value. */
static void what_others_changed_or_moved_is_refused(void **state)
{
	struct fixture *f = both_fixture(state);
	redisReply *right, *other;
	riptide *handle, *open;
	int refused = 0;

	if (!f->redis)
		skip();
	create(&f->agent, "acme", "\"encryption\": true");
	create(&f->agent, "public", "\"encryption\": false");
	handle = open_tenant(&f->agent, "acme");
	open = open_tenant(&f->agent, "public");
	assert_int_equal(e2e_put(handle, "a", "value-a"), RIPTIDE_OK);
	assert_int_equal(e2e_put(handle, "b", "value-b"), RIPTIDE_OK);
	assert_int_equal(e2e_put(open, "a", "value-p"), RIPTIDE_OK);
	right = stored(f, KEY_OF("a"));
	other = stored(f, KEY_OF("b"));
	/* Another key's. */
	store(f, KEY_OF("a"), other);
	assert_int_equal(read_stored(handle, "a", ""), RIPTIDE_ECORRUPT);
	/* Each byte from the metadata on, and some of before. */
	for (size_t i = 0; i < right->len; i += i < 72 ? 5 : 1) {
		int status;

		if (i >= 48 && i < 64)
			continue; /* the expiry, which a touch rewrites */
		right->str[i] ^= 0x10;
		store(f, KEY_OF("a"), right);
		status = read_stored(handle, "a", "");
		if (status != RIPTIDE_ECORRUPT && status != RIPTIDE_EFORMAT && status != RIPTIDE_ENOKEY)
			fail_msg("byte %zu: %d", i, status);
		right->str[i] ^= 0x10;
		refused++;
	}
	/* A plain one, well made, under the right key. */
	freeReplyObject(other);
	other = stored(f, "riptide:v1:{public.0}:1:c:a");
	store(f, KEY_OF("a"), other);
	assert_int_equal(read_stored(handle, "a", ""), RIPTIDE_ECORRUPT);
	/* And the right one again. */
	store(f, KEY_OF("a"), right);
	assert_int_equal(read_stored(handle, "a", "value-a"), RIPTIDE_OK);
	assert_int_equal(read_stored(handle, "b", "value-b"), RIPTIDE_OK);
	assert_true(refused_entries(f, "acme") >= refused && refused > 50);
	/* A sealed one is of no use to another tenant. */
	store(f, "riptide:v1:{public.0}:1:c:a", right);
	assert_int_equal(read_stored(open, "a", ""), RIPTIDE_ENOKEY);
	freeReplyObject(right);
	freeReplyObject(other);
	riptide_close(&handle);
	riptide_close(&open);
}

static void await_resealed(struct fixture *f)
{
	uint64_t until_ms = e2e_now_ms() + 20000;

	do {
		e2e_pause_ms(50);
		assert_done(TENANT(&f->agent, KEYS, "acme", NULL));
	} while (strstr(answer, "\"running\":true") && e2e_now_ms() < until_ms);
	assert_said("\"running\":false");
}

static void keys_are_changed_under_way(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;
	char key[32];

	create(&f->agent, "acme", "\"encryption\": true");
	handle = open_tenant(&f->agent, "acme");
	fill(handle, 300);
	assert_int_equal(e2e_put(handle, "k", "before"), RIPTIDE_OK);
	make_hot(handle, "k", "before");
	assert_done(TENANT(&f->agent, ROTATE_KEY, "acme", NULL));
	assert_said("{\"id\":2,");
	assert_int_equal(e2e_put(handle, "new", "after"), RIPTIDE_OK);
	await_resealed(f);
	assert_said("\"resealed\":301,");
	assert_said("\"refused\":0,");
	/* The versions are as they were: a copy in shared memory stays. */
	make_hot(handle, "k", "before");
	assert_int_equal(read_stored(handle, "k", "before"), RIPTIDE_OK);
	handle = open_anew(f, &handle);
	assert_int_equal(read_stored(handle, "k", "before"), RIPTIDE_OK);
	assert_int_equal(read_stored(handle, "new", "after"), RIPTIDE_OK);
	for (int i = 0; i < 300; i += 7) {
		snprintf(key, sizeof(key), "fill-%d", i);
		assert_int_equal(riptide_exists(handle, key, strlen(key), NULL), RIPTIDE_OK);
	}
	/* Once more: nothing of the first key is left to be sealed anew twice. */
	assert_done(TENANT(&f->agent, ROTATE_KEY, "acme", NULL));
	await_resealed(f);
	assert_said("\"resealed\":302,");
	assert_int_equal(read_stored(handle, "k", "before"), RIPTIDE_OK);
	riptide_close(&handle);
	restart(f);
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(read_stored(handle, "k", "before"), RIPTIDE_OK);
	assert_int_equal(read_stored(handle, "new", "after"), RIPTIDE_OK);
	riptide_close(&handle);
	/* There is room for eight. */
	for (int i = 4; i <= 8; i++) {
		assert_done(TENANT(&f->agent, ROTATE_KEY, "acme", NULL));
		await_resealed(f);
	}
	assert_int_equal(TENANT(&f->agent, ROTATE_KEY, "acme", NULL), RSHM_E_FULL);
	assert_said("all the keys");
}

/* What riptidectl says on its standard output; its exit status. */
static int run_ctl(const struct fixture *f, const char *arguments)
{
	const char *build = getenv("RIPTIDE_BUILD_DIR");
	char command[400];
	size_t length;
	FILE *pipe;

	snprintf(command, sizeof(command), "RIPTIDE_SOCKET=%s %s/riptidectl %s 2>&1", f->agent.socket,
		 build ? build : "build", arguments);
	pipe = popen(command, "re");
	assert_non_null(pipe);
	length = fread(answer, 1, sizeof(answer) - 1, pipe);
	answer[length] = '\0';
	return WEXITSTATUS(pclose(pipe));
}

static void operators_see_and_change_keys(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;

	create(&f->agent, "acme", "\"encryption\": true");
	handle = open_tenant(&f->agent, "acme");
	fill(handle, 400);
	assert_int_equal(run_ctl(f, "tenant keys acme"), 0);
	assert_said("\"master_key\"");
	assert_said("\"resealing\":null");
	/* Comes back when all is sealed anew, and has said how it went. */
	assert_int_equal(run_ctl(f, "tenant rotate-key acme"), 0);
	assert_said("\"running\":false");
	assert_said("\"resealed\":400");
	assert_said("\"id\":2");
	assert_int_equal(run_ctl(f, "tenant rewrap acme"), 0);
	assert_said("\"wrapped_by_former_master_key\":0");
	create(&f->agent, "plain", "\"encryption\": false");
	assert_int_not_equal(run_ctl(f, "tenant rotate-key plain"), 0);
	assert_said("does not encrypt");
	riptide_close(&handle);
}

/* Another agent meets a key that it has not heard of. */
static void another_agent_learns_of_a_new_key(void **state)
{
	struct fixture *f = both_fixture(state);
	const char *settings[] = {"agent.backend=redis", f->url, master_setting, "agent.workers=1", NULL};
	struct agent_process second;
	riptide *here, *there;

	if (!f->redis)
		skip();
	create(&f->agent, "acme", "\"encryption\": true");
	here = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(here, "k", "first"), RIPTIDE_OK);
	assert_int_equal(agent_process_start(&second, settings), 0);
	there = open_tenant(&second, "acme");
	assert_int_equal(read_stored(there, "k", "first"), RIPTIDE_OK);
	e2e_pause_ms(1100);
	assert_done(TENANT(&f->agent, ROTATE_KEY, "acme", NULL));
	assert_int_equal(e2e_put(here, "k", "second"), RIPTIDE_OK);
	assert_int_equal(read_stored(there, "k", "second"), RIPTIDE_OK);
	assert_int_equal(e2e_put(there, "k", "third"), RIPTIDE_OK);
	assert_int_equal(read_stored(here, "k", "third"), RIPTIDE_OK);
	riptide_close(&here);
	riptide_close(&there);
	assert_int_equal(agent_process_stop_and_clean(&second), 0);
}

static void a_new_master_key_wraps_the_old_keys(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;

	create(&f->agent, "acme", "\"encryption\": true");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	riptide_close(&handle);
	/* Without the one that wrapped them, nothing opens. */
	set_setting(&f->agent, "encryption.master_key_file", other_master);
	restart(f);
	/* What is in shared memory is read on; nothing opens what is stored. */
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_check(handle, "k", "v", NULL), RIPTIDE_OK);
	handle = open_anew(f, &handle);
	assert_int_equal(read_stored(handle, "k", ""), RIPTIDE_ENOKEY);
	assert_int_equal(e2e_put(handle, "k", "w"), RIPTIDE_ENOKEY);
	assert_true(agent_process_log_has(&f->agent, "wrapped by master key"));
	riptide_close(&handle);
	set_setting(&f->agent, "encryption.former_master_key_file", master);
	restart(f);
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(read_stored(handle, "k", "v"), RIPTIDE_OK);
	assert_done(TENANT(&f->agent, KEYS, "acme", NULL));
	assert_said("\"wrapped_by_former_master_key\":1");
	assert_done(TENANT(&f->agent, REWRAP, "acme", NULL));
	assert_said("\"wrapped_by_former_master_key\":0");
	riptide_close(&handle);
	set_setting(&f->agent, "encryption.former_master_key_file", NULL);
	restart(f);
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(read_stored(handle, "k", "v"), RIPTIDE_OK);
	riptide_close(&handle);
}

static void a_deleted_tenant_takes_its_keys_with_it(void **state)
{
	struct fixture *f = both_fixture(state);
	redisReply *entry = NULL;
	riptide *handle;

	create(&f->agent, "acme", "\"encryption\": true");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	riptide_close(&handle);
	if (f->redis) {
		entry = stored(f, KEY_OF("k"));
		assert_true(count_in_folder(f->agent.folder, "\"wrapped\"") == 0 &&
			    count_stored(f, "\"wrapped\"") == 1);
	}
	assert_done(TENANT(&f->agent, DELETE, "acme", NULL));
	if (f->redis)
		assert_int_equal(count_stored(f, "\"wrapped\""), 0);
	/* Whoever kept a copy has noise, also in the tenant's own name. */
	create(&f->agent, "acme", "\"encryption\": true");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(read_stored(handle, "k", ""), RIPTIDE_MISS);
	if (f->redis) {
		assert_int_equal(e2e_put(handle, "other", "v"), RIPTIDE_OK);
		store(f, "riptide:v1:{acme.0}:2:c:k", entry);
		assert_int_equal(read_stored(handle, "k", ""), RIPTIDE_ECORRUPT);
		freeReplyObject(entry);
	}
	riptide_close(&handle);
}

/* Evicted, or deleted by hand, while their tenant is open: what is stored must be readable after a restart. */
static void keys_that_the_server_lost_are_stored_again(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;

	if (!f->redis)
		skip();
	create(&f->agent, "acme", "\"encryption\": true");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	assert_int_equal(count_stored(f, "\"wrapped\""), 1);
	freeReplyObject(ask_redis(&f->server, "DEL", "riptide:v1:{-.0}:1:k:acme", NULL, 0));
	assert_int_equal(count_stored(f, "\"wrapped\""), 0);
	/* An entry of a key that nobody has makes the agent ask. */
	e2e_pause_ms(1100);
	create(&f->agent, "other", "\"encryption\": true");
	{
		riptide *other = open_tenant(&f->agent, "other");
		redisReply *entry;

		assert_int_equal(e2e_put(other, "y", "v"), RIPTIDE_OK);
		assert_done(TENANT(&f->agent, ROTATE_KEY, "other", NULL));
		assert_int_equal(e2e_put(other, "x", "v"), RIPTIDE_OK);
		entry = stored(f, "riptide:v1:{other.0}:1:c:x");
		store(f, KEY_OF("x"), entry);
		freeReplyObject(entry);
		riptide_close(&other);
	}
	(void)read_stored(handle, "x", "");
	for (int i = 0; i < 100 && count_stored(f, "\"wrapped\"") < 2; i++)
		e2e_pause_ms(20);
	assert_int_equal(count_stored(f, "\"wrapped\""), 2);
	riptide_close(&handle);
	restart(f);
	handle = open_tenant(&f->agent, "acme");
	handle = open_anew(f, &handle);
	assert_int_equal(read_stored(handle, "k", "v"), RIPTIDE_OK);
	riptide_close(&handle);
}

/* The order ends with the agent, and nothing is lost but the rest of the work. */
static void an_agent_may_end_while_it_seals_anew(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;

	create(&f->agent, "acme", "\"encryption\": true");
	handle = open_tenant(&f->agent, "acme");
	fill(handle, 1500);
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	riptide_close(&handle);
	riptide_close(&f->handle);
	for (int signal = SIGTERM, i = 0; i < 2; i++, signal = SIGKILL) {
		assert_done(TENANT(&f->agent, ROTATE_KEY, "acme", NULL));
		e2e_pause_ms(10);
		assert_int_equal(agent_process_kill(&f->agent, signal), 0);
		assert_int_equal(agent_process_restart(&f->agent), 0);
		handle = open_tenant(&f->agent, "acme");
		assert_int_equal(read_stored(handle, "k", "v"), RIPTIDE_OK);
		assert_int_equal(riptide_exists(handle, "fill-1499", 9, NULL), RIPTIDE_OK);
		riptide_close(&handle);
	}
	/* The rest is sealed anew by the next one. */
	assert_done(TENANT(&f->agent, ROTATE_KEY, "acme", NULL));
	await_resealed(f);
	assert_said("\"refused\":0,");
}

static void what_encrypts_is_said_at_the_start(void **state)
{
	struct fixture *f = both_fixture(state);

	/* Strong isolation encrypts unless told otherwise; what is chosen stays. */
	assert_done(TENANT(&f->agent, CREATE, NULL, "{\"id\": \"strong\", \"isolation\": \"strong\"}"));
	assert_said("\"encryption\":true");
	assert_done(TENANT(&f->agent, CREATE, NULL, "{\"id\": \"logical\", \"isolation\": \"logical\"}"));
	assert_said("\"encryption\":false");
	assert_true(TENANT(&f->agent, UPDATE, "strong", "{\"encryption\": false}") < 0);
	assert_said("cannot be changed");
	assert_true(TENANT(&f->agent, UPDATE, "logical", "{\"encryption\": true}") < 0);
	assert_true(TENANT(&f->agent, KEYS, "logical", NULL) < 0);
	assert_said("does not encrypt");
	assert_true(TENANT(&f->agent, ROTATE_KEY, "nobody", NULL) < 0);
}

static void without_a_master_key_nothing_is_promised(void **state)
{
	struct fixture *f = both_fixture(state);
	riptide *handle;

	create(&f->agent, "acme", "\"encryption\": true");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "v"), RIPTIDE_OK);
	riptide_close(&handle);
	set_setting(&f->agent, "encryption.master_key_file", NULL);
	restart(f);
	assert_true(TENANT(&f->agent, CREATE, NULL, "{\"id\": \"other\", \"encryption\": true}") < 0);
	assert_said("encryption.master_key_file");
	assert_done(TENANT(&f->agent, CREATE, NULL, "{\"id\": \"plain\", \"isolation\": \"strong\"}"));
	assert_said("\"encryption\":false");
	handle = open_tenant(&f->agent, "acme");
	assert_int_equal(e2e_put(handle, "k", "w"), RIPTIDE_ENOKEY);
	handle = open_anew(f, &handle);
	assert_int_equal(read_stored(handle, "k", ""), RIPTIDE_ENOKEY);
	riptide_close(&handle);
	assert_true(TENANT(&f->agent, ROTATE_KEY, "acme", NULL) < 0);
	assert_said("no master key");
}

static void a_master_key_that_others_can_read_is_refused(void **state)
{
	struct fixture *f = both_fixture(state);

	riptide_close(&f->handle);
	assert_int_equal(chmod(master, 0444), 0);
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	assert_int_equal(agent_process_restart(&f->agent), -1);
	assert_int_equal(chmod(master, 0400), 0);
	assert_true(agent_process_log_has(&f->agent, master));
	assert_int_equal(agent_process_restart(&f->agent), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(nothing_stored_shows_the_text),
		BOTH_STORES(every_operation_works_on_what_is_sealed),
		BOTH_STORES(what_others_changed_or_moved_is_refused),
		BOTH_STORES(keys_are_changed_under_way),
		BOTH_STORES(operators_see_and_change_keys),
		BOTH_STORES(another_agent_learns_of_a_new_key),
		BOTH_STORES(a_new_master_key_wraps_the_old_keys),
		BOTH_STORES(a_deleted_tenant_takes_its_keys_with_it),
		BOTH_STORES(keys_that_the_server_lost_are_stored_again),
		BOTH_STORES(an_agent_may_end_while_it_seals_anew),
		BOTH_STORES(what_encrypts_is_said_at_the_start),
		BOTH_STORES(without_a_master_key_nothing_is_promised),
		BOTH_STORES(a_master_key_that_others_can_read_is_refused),
	};

	return cmocka_run_group_tests_name("seal", tests, make_folder, remove_folder);
}
