#include "tests/unit/agent/store/embedded/fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <lmdb.h>

#define FILE_UNSYNCED "unsynced"

static int setup(void **state)
{
	static struct fixture f;

	fixture_init(&f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_fini(*state);
	return 0;
}

static void data_name(const struct fixture *f, char name[128])
{
	snprintf(name, 128, "%s/data.mdb", f->path);
}

static off_t data_size(const struct fixture *f)
{
	char name[128];
	struct stat info;

	data_name(f, name);
	assert_int_equal(stat(name, &info), 0);
	return info.st_size;
}

/* Changes the closed file behind the store's back. */
struct surgery {
	MDB_env *mdb;
	MDB_txn *txn;
};

static MDB_val val_of(const void *bytes, size_t length)
{
	return (MDB_val){length, (void *)(uintptr_t)bytes};
}

static void surgery_begin(struct surgery *s, const char *path)
{
	assert_int_equal(mdb_env_create(&s->mdb), 0);
	assert_int_equal(mdb_env_set_maxdbs(s->mdb, 16), 0);
	assert_int_equal(mdb_env_set_mapsize(s->mdb, 1 << 30), 0);
	assert_int_equal(mdb_env_open(s->mdb, path, 0, 0600), 0);
	assert_int_equal(mdb_txn_begin(s->mdb, NULL, 0, &s->txn), 0);
}

static void surgery_end(struct surgery *s)
{
	assert_int_equal(mdb_txn_commit(s->txn), 0);
	mdb_env_close(s->mdb);
}

static void bad_configurations_are_refused(void **state)
{
	struct fixture *f = *state;
	struct embedded_config good = f->config;

	f->config.map_size = (1 << 20) - 1;
	assert_open_fails(f, RSHM_E_INVALID, "map_size");
	f->config.map_size = UINT64_MAX;
	assert_open_fails(f, RSHM_E_INVALID, "map_size");
	f->config = good;
	f->config.queue_max = 0;
	assert_open_fails(f, RSHM_E_INVALID, "limit");
	f->config = good;
	f->config.sync_interval_ms = 0;
	assert_open_fails(f, RSHM_E_INVALID, "interval");
	f->config = good;
	assert_int_equal(access(f->path, F_OK), -1);
}

static void map_beyond_the_address_space_is_refused(void **state)
{
	struct fixture *f = *state;

	f->config.map_size = 1ull << 60;
	assert_open_fails(f, RSHM_E_NOMEM, "lower map_size");
}

static void missing_parent_and_wrong_kind_of_file_are_refused(void **state)
{
	struct fixture *f = *state;
	const char *path = f->config.path;
	char name[128];
	FILE *file;

	snprintf(name, sizeof name, "%s/none/db", f->folder);
	f->config.path = name;
	assert_open_fails(f, RSHM_E_SYSTEM, "parent folder");
	snprintf(name, sizeof name, "%s/file", f->folder);
	file = fopen(name, "w");
	assert_non_null(file);
	fclose(file);
	assert_open_fails(f, RSHM_E_INVALID, "no folder");
	f->config.path = path;
}

/* Root may write everywhere, so another user tries. */
static void unwritable_folder_is_refused(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t child;

	assert_int_equal(chmod(f->folder, 0755), 0);
	assert_int_equal(mkdir(f->path, 0755), 0);
	if (getuid() != 0)
		assert_int_equal(chmod(f->path, 0500), 0);
	child = fork();
	if (child == 0) {
		if (getuid() == 0 && setuid(65534) != 0)
			_exit(9);
		assert_open_fails(f, RSHM_E_DENIED, "user that runs the agent");
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(chmod(f->path, 0700), 0);
	fixture_open(f);
	fixture_close(f);
}

static void garbage_and_cut_off_files_are_refused(void **state)
{
	struct fixture *f = *state;
	char name[128], noise[8192];
	unsigned char *value = make_noise(1 << 20, 3);
	int fd;

	assert_int_equal(mkdir(f->path, 0700), 0);
	data_name(f, name);
	memset(noise, 0x5a, sizeof noise);
	fd = open(name, O_CREAT | O_WRONLY, 0600);
	assert_int_equal(write(fd, noise, sizeof noise), sizeof noise);
	close(fd);
	assert_open_fails(f, RSHM_E_CORRUPT, "move it away");
	assert_int_equal(unlink(name), 0);
	fixture_open(f);
	assert_int_equal(put(f, "k", 1, value, 1 << 20, 0), RSHM_OK);
	fixture_close(f);
	assert_int_equal(truncate(name, data_size(f) / 2), 0);
	assert_open_fails(f, RSHM_E_CORRUPT, "cut off");
	free(value);
}

static void file_of_a_newer_format_is_refused_and_left_alone(void **state)
{
	struct fixture *f = *state;
	MDB_val name = val_of("format", 6), value = val_of("\2\0\0\0", 4);
	struct surgery s;
	MDB_dbi meta;

	fixture_open(f);
	assert_int_equal(put(f, "k", 1, "v", 1, 0), RSHM_OK);
	fixture_close(f);
	surgery_begin(&s, f->path);
	assert_int_equal(mdb_dbi_open(s.txn, "meta", 0, &meta), 0);
	assert_int_equal(mdb_put(s.txn, meta, &name, &value, 0), 0);
	surgery_end(&s);
	assert_open_fails(f, RSHM_E_FORMAT, "format 2");
	value = val_of("\1\0\0\0", 4);
	surgery_begin(&s, f->path);
	assert_int_equal(mdb_dbi_open(s.txn, "meta", 0, &meta), 0);
	assert_int_equal(mdb_put(s.txn, meta, &name, &value, 0), 0);
	surgery_end(&s);
	fixture_open(f);
	assert_int_equal(get_expect(f, "k", 1, "v", 1), RSHM_OK);
	fixture_close(f);
}

static void database_of_another_program_is_refused(void **state)
{
	struct fixture *f = *state;
	MDB_val name = val_of("abc", 3), value = val_of("def", 3);
	struct surgery s;
	MDB_dbi root;

	assert_int_equal(mkdir(f->path, 0700), 0);
	surgery_begin(&s, f->path);
	assert_int_equal(mdb_dbi_open(s.txn, NULL, 0, &root), 0);
	assert_int_equal(mdb_put(s.txn, root, &name, &value, 0), 0);
	surgery_end(&s);
	assert_open_fails(f, RSHM_E_CORRUPT, "not ours");
}

static void damaged_entries_are_refused_and_mended_by_the_next_put(void **state)
{
	struct fixture *f = *state;
	unsigned char *noise = make_noise(200000, 5);
	MDB_val name = val_of("\0\0\0\0\0\0\0\1\0\0\0\1", 12), key, value;
	MDB_cursor *cursor;
	struct surgery s;
	MDB_dbi table;

	fixture_open(f);
	assert_int_equal(put(f, "big", 3, noise, 200000, 0), RSHM_OK);
	assert_int_equal(put(f, "small", 5, noise, 100, 0), RSHM_OK);
	fixture_close(f);
	surgery_begin(&s, f->path);
	assert_int_equal(mdb_dbi_open(s.txn, "chunks", 0, &table), 0);
	assert_int_equal(mdb_del(s.txn, table, &name, NULL), 0);
	assert_int_equal(mdb_dbi_open(s.txn, "main", 0, &table), 0);
	assert_int_equal(mdb_cursor_open(s.txn, table, &cursor), 0);
	assert_int_equal(mdb_cursor_get(cursor, &key, &value, MDB_LAST), 0);
	value.mv_size -= 1;
	assert_int_equal(mdb_put(s.txn, table, &key, &value, 0), 0);
	mdb_cursor_close(cursor);
	surgery_end(&s);
	fixture_open(f);
	assert_int_equal(simple(f, STORE_GET, "big", 3, 0), RSHM_E_CORRUPT);
	assert_int_equal(simple(f, STORE_GET, "small", 5, 0), RSHM_E_CORRUPT);
	assert_int_equal(simple(f, STORE_TOUCH, "small", 5, 0), RSHM_E_CORRUPT);
	assert_int_equal(put(f, "big", 3, noise, 150000, 0), RSHM_OK);
	assert_int_equal(get_expect(f, "big", 3, noise, 150000), RSHM_OK);
	assert_int_equal(put(f, "small", 5, "v", 1, 0), RSHM_OK);
	assert_int_equal(get_expect(f, "small", 5, "v", 1), RSHM_OK);
	assert_int_equal(status_of(f->store).entries, 2);
	fixture_close(f);
	free(noise);
}

/* The index of expiry times only says where to look: a pair too many costs nobody an entry. */
static void sweep_believes_the_record_and_not_the_index(void **state)
{
	struct fixture *f = *state;
	MDB_val name = val_of("\0\0\0\0\0\0\0\1"
			      "\0\0\0\1"
			      "\0\0\0\0\0\0\0\1"
			      "c\0k",
			      23),
		value = {0, NULL};
	struct surgery s;
	MDB_stat stats;
	MDB_dbi table;

	fixture_open(f);
	assert_int_equal(put(f, "k", 1, "v", 1, clock_realtime_ms() + 100000), RSHM_OK);
	fixture_close(f);
	surgery_begin(&s, f->path);
	assert_int_equal(mdb_dbi_open(s.txn, "expiry", 0, &table), 0);
	assert_int_equal(mdb_put(s.txn, table, &name, &value, 0), 0);
	/* One that is too short to name anything. */
	name = val_of("\0\0\0", 3);
	assert_int_equal(mdb_put(s.txn, table, &name, &value, 0), 0);
	surgery_end(&s);
	f->config.expire_interval_ms = 5;
	fixture_open(f);
	usleep(100000);
	assert_int_equal(get_expect(f, "k", 1, "v", 1), RSHM_OK);
	assert_int_equal(status_of(f->store).entries, 1);
	fixture_close(f);
	surgery_begin(&s, f->path);
	assert_int_equal(mdb_dbi_open(s.txn, "expiry", 0, &table), 0);
	assert_int_equal(mdb_stat(s.txn, table, &stats), 0);
	assert_int_equal(stats.ms_entries, 1);
	surgery_end(&s);
}

static void write_file(const struct fixture *f, const char *file, const char *text)
{
	char name[128];
	FILE *out;

	snprintf(name, sizeof name, "%s/%s", f->path, file);
	out = fopen(name, "w");
	assert_non_null(out);
	fputs(text, out);
	fclose(out);
}

/* What a loss of power may leave: the root is there, pages below it are not. */
static void file_is_read_through_after_a_loss_of_power(void **state)
{
	struct fixture *f = *state;
	unsigned char *noise = make_noise(1 << 20, 29);
	char name[128], zeros[4096] = {0};
	off_t size;
	int fd;

	fixture_open(f);
	for (int i = 0; i < 2000; i++)
		assert_int_equal(put(f, &i, sizeof i, noise + i, 100, 0), RSHM_OK);
	assert_int_equal(put(f, "big", 3, noise, 1 << 20, 0), RSHM_OK);
	fixture_close(f);
	write_file(f, FILE_UNSYNCED, "another boot\n");
	fixture_open(f);
	assert_int_equal(get_expect(f, "big", 3, noise, 1 << 20), RSHM_OK);
	fixture_close(f);
	/* Every page but the two roots is gone. */
	data_name(f, name);
	size = data_size(f);
	fd = open(name, O_WRONLY);
	for (off_t offset = 8192; offset < size; offset += 4096)
		assert_int_equal(pwrite(fd, zeros, sizeof zeros, offset), sizeof zeros);
	close(fd);
	write_file(f, FILE_UNSYNCED, "another boot\n");
	assert_open_fails(f, RSHM_E_CORRUPT, "damaged when the machine went down");
	free(noise);
}

static void mark_of_unsynced_work_is_there_only_while_open(void **state)
{
	struct fixture *f = *state;
	char name[128];

	snprintf(name, sizeof name, "%s/" FILE_UNSYNCED, f->path);
	for (int sync = 0; sync < 3; sync++) {
		f->config.sync = (enum embedded_sync)sync;
		fixture_open(f);
		assert_int_equal(access(name, F_OK), sync == EMBEDDED_SYNC_ALWAYS ? -1 : 0);
		assert_int_equal(put(f, "k", 1, "v", 1, 0), RSHM_OK);
		fixture_close(f);
		assert_int_equal(access(name, F_OK), -1);
	}
}

/* 400 MiB in all go through a file that never holds more than some 10 MiB of them alive. */
static void file_stays_small_under_churn_with_expiry(void **state)
{
	struct fixture *f = *state;
	unsigned char *noise = make_noise(220000, 31);
	uint64_t written = 0;
	off_t half = 0;

	f->config.expire_interval_ms = 10;
	fixture_open(f);
	for (int i = 0; written < 400 << 20; i++) {
		static const size_t lengths[] = {100, 3000, 20000, 70000, 200000};
		size_t length = lengths[i % 5] + (size_t)i % 1000;

		assert_int_equal(put(f, &i, sizeof i, noise + i % 1000, length, clock_realtime_ms() + 20), RSHM_OK);
		written += length;
		if (half == 0 && written > 200 << 20)
			half = data_size(f);
	}
	print_message("file after 200 MiB: %ld KiB, after 400 MiB: %ld KiB\n", (long)half >> 10,
		      (long)data_size(f) >> 10);
	/* Where it levels off depends on how much lives at a time, and so on the speed of the machine. */
	assert_true(data_size(f) < 150 << 20);
	assert_true(data_size(f) - half < 40 << 20);
	for (int i = 0; i < 500 && status_of(f->store).entries != 0; i++)
		usleep(10000);
	assert_int_equal(status_of(f->store).entries, 0);
	assert_int_equal(status_of(f->store).bytes, 0);
	fixture_close(f);
	free(noise);
}

static void file_of_mostly_free_pages_is_compacted_at_open(void **state)
{
	struct fixture *f = *state;
	unsigned char *noise = make_noise(20 << 20, 37);
	char copy[128];
	off_t before;

	fixture_open(f);
	for (int i = 0; i < 5; i++)
		assert_int_equal(put(f, &i, sizeof i, noise, 20 << 20, 0), RSHM_OK);
	for (int i = 0; i < 4; i++)
		assert_int_equal(simple(f, STORE_DELETE, &i, sizeof i, 0), RSHM_OK);
	before = data_size(f);
	fixture_close(f);
	/* Left by a copy that was interrupted; it must not stand in the way. */
	write_file(f, "data.mdb.compact", "half");
	snprintf(copy, sizeof copy, "%s/data.mdb.compact", f->path);
	fixture_open(f);
	assert_true(before > 100 << 20);
	assert_true(data_size(f) < 25 << 20);
	assert_int_equal(access(copy, F_OK), -1);
	for (int i = 4; i < 5; i++)
		assert_int_equal(get_expect(f, &i, sizeof i, noise, 20 << 20), RSHM_OK);
	assert_int_equal(put(f, "new", 3, noise, 1 << 20, 0), RSHM_OK);
	assert_int_equal(get_expect(f, "new", 3, noise, 1 << 20), RSHM_OK);
	assert_int_equal(status_of(f->store).entries, 2);
	fixture_close(f);
	free(noise);
}

/* What an operator's tool leaves when it is killed inside a read: it would pin all pages set free since. */
static void readers_that_died_are_cleared_while_open(void **state)
{
	struct fixture *f = *state;
	int status, dead = 0;
	pid_t child;

	f->config.expire_interval_ms = 10;
	fixture_open(f);
	assert_int_equal(put(f, "k", 1, "v", 1, 0), RSHM_OK);
	for (int round = 0; round < 2; round++) {
		child = fork();
		if (child == 0) {
			MDB_env *mdb;
			MDB_txn *txn;

			if (mdb_env_create(&mdb) != 0 || mdb_env_open(mdb, f->path, 0, 0600) != 0)
				_exit(101);
			/* The second child looks whether the first one's place was cleared. */
			if (round == 1)
				_exit(mdb_reader_check(mdb, &dead) == 0 ? dead : 102);
			_exit(mdb_txn_begin(mdb, NULL, MDB_RDONLY, &txn) == 0 ? 0 : 103);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
		usleep(100000);
	}
	fixture_close(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(bad_configurations_are_refused),
		TEST(map_beyond_the_address_space_is_refused),
		TEST(missing_parent_and_wrong_kind_of_file_are_refused),
		TEST(unwritable_folder_is_refused),
		TEST(garbage_and_cut_off_files_are_refused),
		TEST(file_of_a_newer_format_is_refused_and_left_alone),
		TEST(database_of_another_program_is_refused),
		TEST(damaged_entries_are_refused_and_mended_by_the_next_put),
		TEST(sweep_believes_the_record_and_not_the_index),
		TEST(file_is_read_through_after_a_loss_of_power),
		TEST(mark_of_unsynced_work_is_there_only_while_open),
		TEST(file_stays_small_under_churn_with_expiry),
		TEST(file_of_mostly_free_pages_is_compacted_at_open),
		TEST(readers_that_died_are_cleared_while_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
