/* What a start makes of the journals it finds. */
#include "tests/unit/agent/store/behind/fixture.h"

#include <fcntl.h>

static int setup_embedded(void **state)
{
	static struct fixture f;

	fixture_init(&f, BACKEND_EMBEDDED);
	*state = &f;
	return 0;
}

static int setup_redis(void **state)
{
	static struct fixture f;

	fixture_init(&f, BACKEND_REDIS);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_fini(*state);
	return 0;
}

static void flush_all(struct fixture *f)
{
	struct call call;

	call_init(&call, STORE_FLUSH, "");
	assert_int_equal(call_run(f, f->store, &call), RSHM_OK);
	call_fini(&call);
}

/* ---- killed --------------------------------------------------------------------------------------------------- */

static void act_put_many(struct fixture *f)
{
	char key[16], value[600];

	memset(value, 'v', sizeof value);
	for (int i = 0; i < 300; i++) {
		snprintf(key, sizeof key, "k%d", i % 200);
		snprintf(value, sizeof value, "%0500d", i);
		assert_int_equal(put_behind(f, key, value, (uint64_t)(1000 + i)), RSHM_OK);
	}
	for (int i = 0; i < 10; i++) {
		snprintf(key, sizeof key, "k%d", i);
		assert_int_equal(delete_behind(f, key, (uint64_t)(2000 + i)), RSHM_OK);
	}
}

static void assert_many(struct fixture *f, struct store *store)
{
	char key[16], value[600];

	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof key, "k%d", i);
		snprintf(value, sizeof value, "%0500d", i < 100 ? i + 200 : i);
		assert_value(f, store, key, i < 10 ? NULL : value);
	}
}

static void accepted_writes_are_there_after_a_kill(void **state)
{
	struct fixture *f = *state;
	static const enum behind_sync policies[] = {BEHIND_SYNC_NONE, BEHIND_SYNC_INTERVAL, BEHIND_SYNC_ALWAYS};

	f->config.segment_bytes = 16 << 10;
	for (int i = 0; i < 3; i++) {
		f->config.sync = policies[i];
		fixture_in_killed_child(f, act_put_many);
		f->config.sync = BEHIND_SYNC_NONE;
		assert_true(count_files(f, "journal-") > 5);
		fixture_open(f);
		assert_int_equal(figures(f).replayed, 200);
		assert_int_equal(figures(f).newest_version, 2009);
		assert_many(f, f->store);
		fixture_drain(f);
		assert_many(f, f->direct);
		fixture_close(f);
		assert_int_equal(count_files(f, ""), 2); /* . and .. */
	}
}

static void act_put_and_flush(struct fixture *f)
{
	assert_int_equal(put_behind(f, "key", "value", 1000), RSHM_OK);
	flush_all(f);
	fixture_run_for(f, 20);
}

static void stored_records_are_not_replayed(void **state)
{
	struct fixture *f = *state;

	fixture_in_killed_child(f, act_put_and_flush);
	assert_int_equal(count_files(f, "journal-"), 1);
	fixture_open(f);
	assert_int_equal(figures(f).replayed, 0);
	assert_value(f, f->store, "key", "value");
}

/* "held" stays in the journal in all of these, so that the file stays too. */
static void act_delete_what_was_stored(struct fixture *f)
{
	assert_int_equal(put_behind(f, "held", "value", 999), RSHM_OK);
	assert_int_equal(put_behind(f, "key", "value", 1000), RSHM_OK);
	assert_int_equal(delete_through(f, "key", 0), RSHM_OK);
	assert_int_equal(put_behind(f, "brief", "long-lived", 1001), RSHM_OK);
	assert_int_equal(write_key(f, STORE_PUT, false, "brief", "short-lived", 1002, clock_realtime_ms() + 30),
			 RSHM_OK);
	assert_int_equal(put_behind(f, "replaced", "old", 1003), RSHM_OK);
	assert_int_equal(put_through(f, "replaced", "new", 1004), RSHM_OK);
}

static void what_went_through_is_not_undone_by_replay(void **state)
{
	struct fixture *f = *state;
	static const enum behind_sync policies[] = {BEHIND_SYNC_NONE, BEHIND_SYNC_ALWAYS};

	for (int i = 0; i < 2; i++) {
		f->config.sync = policies[i];
		fixture_in_killed_child(f, act_delete_what_was_stored);
		f->config.sync = BEHIND_SYNC_NONE;
		usleep(60000);
		fixture_open(f);
		assert_int_equal(figures(f).replayed, 1);
		fixture_drain(f);
		assert_value(f, f->direct, "held", "value");
		assert_value(f, f->direct, "key", NULL);
		assert_value(f, f->direct, "brief", NULL);
		assert_value(f, f->direct, "replaced", "new");
		assert_int_equal(delete_through(f, "held", 0), RSHM_OK);
		assert_int_equal(delete_through(f, "replaced", 0), RSHM_OK);
		fixture_close(f);
	}
}

static void act_nothing(struct fixture *f)
{
	(void)f;
}

/* A start that is killed before it has flushed leaves what it found. */
static void starts_may_be_killed_too(void **state)
{
	struct fixture *f = *state;

	fixture_in_killed_child(f, act_put_many);
	for (int i = 0; i < 5; i++)
		fixture_in_killed_child(f, act_nothing);
	fixture_open(f);
	assert_many(f, f->store);
	fixture_drain(f);
	assert_many(f, f->direct);
}

/* ---- damage --------------------------------------------------------------------------------------------------- */

static void act_put_three(struct fixture *f)
{
	assert_int_equal(put_behind(f, "first", "one", 1000), RSHM_OK);
	assert_int_equal(put_behind(f, "middle", "two", 1001), RSHM_OK);
	assert_int_equal(put_behind(f, "last", "three", 1002), RSHM_OK);
}

/* The one journal file there is. */
static void journal_path(const struct fixture *f, char path[512])
{
	DIR *directory = opendir(f->journal);
	struct dirent *entry;
	int found = 0;

	assert_non_null(directory);
	while ((entry = readdir(directory)) != NULL) {
		if (strncmp(entry->d_name, "journal-", 8) != 0)
			continue;
		snprintf(path, 512, "%s/%s", f->journal, entry->d_name);
		found++;
	}
	closedir(directory);
	assert_int_equal(found, 1);
}

struct journal_image {
	unsigned char bytes[4096];
	size_t length;
	size_t records[8]; /* where they begin */
	size_t count;
};

/* Takes the journal file away and keeps its bytes. */
static void image_take(const struct fixture *f, struct journal_image *image)
{
	char path[512];
	size_t at = 16;
	FILE *file;

	journal_path(f, path);
	file = fopen(path, "r");
	assert_non_null(file);
	memset(image, 0, sizeof *image);
	image->length = fread(image->bytes, 1, sizeof image->bytes, file);
	fclose(file);
	assert_int_equal(unlink(path), 0);
	while (at < image->length) {
		uint32_t body;

		image->records[image->count++] = at;
		memcpy(&body, image->bytes + at + 4, sizeof body);
		at += 24 + body;
	}
	assert_int_equal(at, image->length);
}

static void image_put(const struct fixture *f, const unsigned char *bytes, size_t length, int number)
{
	char path[512];
	FILE *file;

	snprintf(path, sizeof path, "%s/journal-0-%d", f->journal, number);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, length, file), length);
	fclose(file);
}

/* Nothing is left in the folders of the store and the journal. */
static void wipe(struct fixture *f)
{
	char command[256];

	fixture_close_store(f, &f->store);
	fixture_close_store(f, &f->direct);
	snprintf(command, sizeof command, "rm -f %s/*", f->journal);
	assert_int_equal(system(command), 0);
}

static void last_record_may_be_cut_at_every_byte(void **state)
{
	struct fixture *f = *state;
	static struct journal_image image;

	fixture_in_killed_child(f, act_put_three);
	image_take(f, &image);
	assert_int_equal(image.count, 3);
	for (size_t length = image.records[2]; length <= image.length; length++) {
		bool whole = length == image.length;

		image_put(f, image.bytes, length, 1);
		fixture_open(f);
		assert_int_equal(figures(f).replayed, whole ? 3 : 2);
		assert_int_equal(figures(f).torn_tails, !whole && length > image.records[2]);
		assert_int_equal(figures(f).files_aside, 0);
		assert_value(f, f->store, "first", "one");
		assert_value(f, f->store, "middle", "two");
		assert_value(f, f->store, "last", whole ? "three" : NULL);
		wipe(f);
	}
}

static void file_cut_in_its_head_is_empty(void **state)
{
	struct fixture *f = *state;
	static struct journal_image image;

	fixture_in_killed_child(f, act_put_three);
	image_take(f, &image);
	for (size_t length = 0; length <= 16; length++) {
		image_put(f, image.bytes, length, 1);
		fixture_open(f);
		assert_int_equal(figures(f).replayed, 0);
		assert_int_equal(figures(f).files_aside, 0);
		wipe(f);
	}
}

/* Zeros, as a file system shows them after a loss of power. */
static void tail_that_never_reached_the_disk_is_cut(void **state)
{
	struct fixture *f = *state;
	static struct journal_image image;

	fixture_in_killed_child(f, act_put_three);
	image_take(f, &image);
	for (size_t from = image.length - 1; from >= image.records[2]; from--) {
		image.bytes[from] = 0;
		/* The end of its body, or all of it; a part of its head would be damage. */
		if (from > image.records[2] && from < image.records[2] + 24)
			continue;
		image_put(f, image.bytes, image.length, 1);
		fixture_open(f);
		assert_int_equal(figures(f).replayed, 2);
		assert_int_equal(figures(f).torn_tails, 1);
		assert_int_equal(figures(f).files_aside, 0);
		wipe(f);
	}
}

static void damaged_middle_ends_the_file_and_keeps_it(void **state)
{
	struct fixture *f = *state;
	static struct journal_image image;

	fixture_in_killed_child(f, act_put_three);
	image_take(f, &image);
	for (size_t at = image.records[1]; at < image.records[2]; at += 3) {
		static unsigned char bytes[4096];

		memcpy(bytes, image.bytes, image.length);
		bytes[at] ^= 0x41;
		image_put(f, bytes, image.length, 1);
		fixture_open(f);
		assert_int_equal(figures(f).replayed, 1);
		assert_int_equal(figures(f).torn_tails, 0);
		assert_int_equal(figures(f).files_aside, 1);
		assert_value(f, f->store, "first", "one");
		assert_value(f, f->store, "middle", NULL);
		assert_value(f, f->store, "last", NULL);
		assert_int_equal(count_files(f, "aside-journal-0-1"), 1);
		wipe(f);
	}
}

static void files_that_are_no_journals_are_set_aside(void **state)
{
	struct fixture *f = *state;
	char path[512];

	fixture_in_killed_child(f, act_nothing);
	image_put(f, (const unsigned char *)"this is no journal at all, but long enough", 42, 1);
	snprintf(path, sizeof path, "%s/journal-0-2", f->journal);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	snprintf(path, sizeof path, "%s/journal-0-3", f->journal);
	assert_int_equal(mkfifo(path, 0600), 0);
	/* Names that are not ours are left alone. */
	snprintf(path, sizeof path, "%s/journal-0-04", f->journal);
	assert_int_equal(mkfifo(path, 0600), 0);
	fixture_open(f);
	assert_int_equal(figures(f).files_aside, 3);
	assert_int_equal(count_files(f, "aside-"), 3);
	assert_int_equal(count_files(f, "journal-0-04"), 1);
	assert_int_equal(put_behind(f, "key", "value", 1000), RSHM_OK);
	assert_int_equal(count_files(f, "journal-0-4"), 1);
}

/* ---- who replays what ----------------------------------------------------------------------------------------- */

static void put_for(struct fixture *f, struct store *store, const char *tenant, const char *key, uint64_t version)
{
	struct call call;

	call_init(&call, STORE_PUT, key);
	call_load(&call, tenant, version, 0);
	call.request.name.tenant = tenant;
	call.request.name.tenant_number = (uint32_t)(tenant[0] - 'a' + 1);
	call.request.behind = true;
	assert_int_equal(call_run(f, store, &call), RSHM_OK);
	call_fini(&call);
}

static int get_for(struct fixture *f, struct store *store, const char *tenant, const char *key)
{
	struct call call;

	call_init(&call, STORE_GET, key);
	call.request.name.tenant = tenant;
	call.request.name.tenant_number = (uint32_t)(tenant[0] - 'a' + 1);
	(void)call_run(f, store, &call);
	call_fini(&call);
	return call.status;
}

static void act_put_for_tenants(struct fixture *f)
{
	put_for(f, f->store, "alpha", "key", 1000);
	put_for(f, f->store, "beta", "key", 1001);
	put_for(f, f->store, "gamma", "key", 1002);
	put_for(f, f->store, "alpha", "second", 1003);
}

struct owner {
	const char *tenant;
};

static bool owns_one(void *context, struct store_name *name)
{
	const struct owner *owner = context;

	return strcmp(owner->tenant, name->tenant) == 0;
}

static void another_number_of_workers_shares_the_journals(void **state)
{
	struct fixture *f = *state;
	static struct owner owners[3] = {{"alpha"}, {"beta"}, {"gamma"}};
	struct store *stores[3];
	struct behind_figures now;
	char error[256];

	fixture_in_killed_child(f, act_put_for_tenants);
	fixture_open_env(f);
	for (uint32_t i = 0; i < 3; i++) {
		struct behind_config config = f->config;

		config.worker = i;
		config.worker_count = 3;
		config.owns = owns_one;
		config.owns_context = &owners[i];
		assert_int_equal(behind_create(&config, &f->loop, fixture_inner(f), &stores[i], error, sizeof error),
				 RSHM_OK);
		behind_figures(stores[i], &now);
		assert_int_equal(now.replayed, i == 0 ? 2 : 1);
		assert_int_equal(now.files_aside, 0);
		/* The old file stays until the last worker has taken what is its own. */
		assert_int_equal(count_files(f, "journal-0-1"), i < 2);
	}
	f->direct = fixture_inner(f);
	for (int i = 0; i < 3; i++)
		assert_int_equal(get_for(f, stores[i], owners[i].tenant, "key"), RSHM_OK);
	for (int i = 0; i < 3; i++)
		fixture_close_store(f, &stores[i]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(get_for(f, f->direct, owners[i].tenant, "key"), RSHM_OK);
	assert_int_equal(get_for(f, f->direct, "alpha", "second"), RSHM_OK);
	assert_int_equal(count_files(f, ""), 2);
}

/* While another worker has not read the old file, marks must not go: the file would bring back what was deleted. */
static void act_only_one_of_two_workers(struct fixture *f)
{
	struct call call;

	call_init(&call, STORE_FLUSH, "");
	call.request.name.tenant = "alpha";
	assert_int_equal(call_run(f, f->store, &call), RSHM_OK);
	call_fini(&call);
	call_init(&call, STORE_DELETE, "key");
	call.request.name.tenant = "alpha";
	assert_int_equal(call_run(f, f->store, &call), RSHM_OK);
	call_fini(&call);
	assert_int_equal(get_for(f, f->direct, "alpha", "key"), RSHM_MISS);
	/* Enough to have files come and go. */
	for (uint64_t i = 0; i < 200; i++) {
		put_for(f, f->store, "alpha", "filler", 5000 + i);
		fixture_run_for(f, i % 50 == 0 ? 30 : 0);
	}
}

static void half_a_start_brings_nothing_back(void **state)
{
	struct fixture *f = *state;

	fixture_in_killed_child(f, act_put_for_tenants);
	f->config.worker_count = 2;
	f->config.segment_bytes = 4096;
	f->config.flush_records = 1;
	f->tenants = ",alpha,";
	fixture_in_killed_child(f, act_only_one_of_two_workers);
	f->config.worker_count = 1;
	f->tenants = NULL;
	fixture_open(f);
	fixture_drain(f);
	assert_int_equal(get_for(f, f->direct, "alpha", "key"), RSHM_MISS);
	assert_int_equal(get_for(f, f->direct, "alpha", "second"), RSHM_OK);
	assert_int_equal(get_for(f, f->direct, "beta", "key"), RSHM_OK);
	assert_int_equal(get_for(f, f->direct, "alpha", "filler"), RSHM_OK);
}

static void records_that_nobody_owns_are_kept(void **state)
{
	struct fixture *f = *state;

	fixture_in_killed_child(f, act_put_for_tenants);
	f->tenants = ",alpha,";
	fixture_open(f);
	assert_int_equal(figures(f).replayed, 2);
	assert_int_equal(figures(f).files_aside, 1);
	assert_int_equal(count_files(f, "aside-journal-0-1"), 1);
}

static void too_old_records_are_reported_and_not_stored(void **state)
{
	struct fixture *f = *state;

	fixture_in_killed_child(f, act_put_three);
	usleep(120000);
	f->config.max_replay_age_ms = 100;
	fixture_open(f);
	assert_int_equal(figures(f).too_old, 3);
	assert_int_equal(figures(f).replayed, 0);
	assert_int_equal(figures(f).files_aside, 1);
	assert_value(f, f->store, "first", NULL);
	assert_int_equal(count_files(f, "aside-"), 1);
}

/* ---- the folder ----------------------------------------------------------------------------------------------- */

static int try_open(struct fixture *f, char *error, size_t error_len)
{
	struct store *inner, *store = NULL;
	int status;

	if (f->env == NULL)
		fixture_open_env(f);
	inner = fixture_inner(f);
	status = behind_create(&f->config, &f->loop, inner, &store, error, error_len);
	fixture_close_store(f, store != NULL ? &store : &inner);
	return status;
}

static void folder_must_be_ours_alone(void **state)
{
	struct fixture *f = *state;
	char error[256] = "", path[100];

	assert_int_equal(mkdir(f->journal, 0700), 0);
	assert_int_equal(chmod(f->journal, 0750), 0);
	assert_int_equal(try_open(f, error, sizeof error), RSHM_E_DENIED);
	assert_non_null(strstr(error, f->journal));
	assert_int_equal(rmdir(f->journal), 0);
	snprintf(path, sizeof path, "%s/real", f->folder);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(symlink(path, f->journal), 0);
	assert_int_equal(try_open(f, error, sizeof error), RSHM_E_DENIED);
	assert_int_equal(unlink(f->journal), 0);
	snprintf(f->journal, sizeof f->journal, "%s/not/there", f->folder);
	assert_int_equal(try_open(f, error, sizeof error), RSHM_E_SYSTEM);
}

static void files_are_readable_by_nobody_else(void **state)
{
	struct fixture *f = *state;
	struct stat info;
	char path[512];

	umask(0);
	fixture_open(f);
	assert_int_equal(put_behind(f, "key", "value", 1000), RSHM_OK);
	assert_int_equal(stat(f->journal, &info), 0);
	assert_int_equal(info.st_mode & 07777, 0700);
	journal_path(f, path);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 07777, 0600);
}

static void another_process_is_kept_away(void **state)
{
	struct fixture *f = *state;
	int pipes[2], status;
	char byte, error[256];
	pid_t child;

	assert_int_equal(pipe(pipes), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		f->env = NULL;
		(void)setenv("CMOCKA_TEST_ABORT", "1", 1);
		if (uv_loop_init(&f->loop) != 0 || uv_timer_init(&f->loop, &f->guard) != 0)
			_exit(1);
		snprintf(f->db, sizeof f->db, "%s/other", f->folder);
		fixture_open(f);
		(void)!write(pipes[1], "x", 1);
		for (;;)
			pause();
	}
	assert_int_equal(read(pipes[0], &byte, 1), 1);
	assert_int_equal(try_open(f, error, sizeof error), RSHM_E_AGAIN);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(try_open(f, error, sizeof error), RSHM_OK);
	close(pipes[0]);
	close(pipes[1]);
}

static void nonsense_is_refused(void **state)
{
	struct fixture *f = *state;
	struct behind_config good = f->config;
	char error[256];

	f->config.worker = 1;
	assert_int_equal(try_open(f, error, sizeof error), RSHM_E_INVALID);
	f->config = good;
	f->config.flush_window = 0;
	assert_int_equal(try_open(f, error, sizeof error), RSHM_E_INVALID);
	f->config = good;
	f->config.segment_bytes = 100;
	assert_int_equal(try_open(f, error, sizeof error), RSHM_E_INVALID);
	f->config = good;
	f->config.folder = "";
	assert_int_equal(try_open(f, error, sizeof error), RSHM_E_INVALID);
	f->config = good;
	assert_int_equal(try_open(f, error, sizeof error), RSHM_OK);
}

#define BOTH(test)                                                       \
	cmocka_unit_test_setup_teardown(test, setup_embedded, teardown), \
	{                                                                \
#test "_on_redis", test, setup_redis, teardown, NULL     \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(accepted_writes_are_there_after_a_kill),
		BOTH(stored_records_are_not_replayed),
		BOTH(what_went_through_is_not_undone_by_replay),
		BOTH(starts_may_be_killed_too),
		BOTH(another_number_of_workers_shares_the_journals),
		BOTH(half_a_start_brings_nothing_back),
		cmocka_unit_test_setup_teardown(last_record_may_be_cut_at_every_byte, setup_embedded, teardown),
		cmocka_unit_test_setup_teardown(file_cut_in_its_head_is_empty, setup_embedded, teardown),
		cmocka_unit_test_setup_teardown(tail_that_never_reached_the_disk_is_cut, setup_embedded, teardown),
		cmocka_unit_test_setup_teardown(damaged_middle_ends_the_file_and_keeps_it, setup_embedded, teardown),
		cmocka_unit_test_setup_teardown(files_that_are_no_journals_are_set_aside, setup_embedded, teardown),
		cmocka_unit_test_setup_teardown(records_that_nobody_owns_are_kept, setup_embedded, teardown),
		cmocka_unit_test_setup_teardown(too_old_records_are_reported_and_not_stored, setup_embedded,
						teardown),
		cmocka_unit_test_setup_teardown(folder_must_be_ours_alone, setup_embedded, teardown),
		cmocka_unit_test_setup_teardown(files_are_readable_by_nobody_else, setup_embedded, teardown),
		cmocka_unit_test_setup_teardown(another_process_is_kept_away, setup_embedded, teardown),
		cmocka_unit_test_setup_teardown(nonsense_is_refused, setup_embedded, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
