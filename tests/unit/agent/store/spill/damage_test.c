#include "tests/unit/agent/store/spill/fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define KEYS 200
#define LENGTH 5000u

static const char *path_of(const struct fixture *f, const char *file)
{
	static char path[256];

	snprintf(path, sizeof path, "%s/%s", f->path, file);
	return path;
}

static const char *first_segment(const struct fixture *f)
{
	return path_of(f, "0000000000000001.segment");
}

/* Fills a tier that keeps. */
static void fill(struct fixture *f)
{
	f->config.keep = true;
	f->config.limits.bytes = 8 * MiB;
	fixture_open(f);
	for (uint64_t key = 0; key < KEYS; key++)
		put_surely(f, key, key + 1, LENGTH);
	settle(f);
}

static uint64_t count_there(struct fixture *f)
{
	uint64_t there = 0;

	for (uint64_t key = 0; key < KEYS; key++) {
		uint64_t version = get(f, key);

		assert_true(version == 0 || version == key + 1);
		there += version != 0;
	}
	return there;
}

/* Changes one byte; returns the file's length. */
static void damage_at(const char *path, uint64_t at)
{
	int fd = open(path, O_RDWR);
	unsigned char byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

static uint64_t length_of(const char *path)
{
	struct stat info;

	assert_int_equal(stat(path, &info), 0);
	return (uint64_t)info.st_size;
}

static void changed_bytes_are_misses(void **state)
{
	struct fixture *f = *state;
	uint64_t length, there;

	fill(f);
	length = length_of(first_segment(f));
	/* Every place of a record is hit at one time or another: head, key, envelope. */
	for (uint64_t i = 0; i < 50; i++)
		damage_at(first_segment(f), i * (length / 50) + i);
	damage_at(first_segment(f), 3);
	there = count_there(f);
	assert_int_equal(figures(f).corrupt, KEYS - there);
	assert_int_equal(figures(f).entries, there);
	assert_true(KEYS - there > 40 && KEYS - there <= 51);
	/* Known now, so not counted again, and mended by the next put. */
	assert_int_equal(count_there(f), there);
	assert_int_equal(figures(f).corrupt, KEYS - there);
	put_surely(f, 0, 1, LENGTH);
	settle(f);
	assert_int_equal(count_there(f), there + 1);
	fixture_close(f);
}

static void each_byte_of_a_record_is_covered(void **state)
{
	struct fixture *f = *state;
	uint64_t length;

	f->config.keep = true;
	fixture_open(f);
	put_surely(f, 0, 1, 40);
	settle(f);
	length = length_of(first_segment(f));
	assert_int_equal(length, 32 + 8 + 40);
	fixture_close(f);
	for (uint64_t at = 0; at < length; at++) {
		damage_at(first_segment(f), at);
		fixture_open(f);
		assert_int_equal(get(f, 0), 0);
		assert_int_equal(figures(f).corrupt, 1);
		/* Gone, and its empty file with it: begin again. */
		fixture_close(f);
		f->config.keep = false;
		fixture_open(f);
		fixture_close(f);
		f->config.keep = true;
		fixture_open(f);
		put_surely(f, 0, 1, 40);
		settle(f);
		fixture_close(f);
	}
}

static void short_and_missing_segments_are_misses(void **state)
{
	struct fixture *f = *state;
	uint64_t there;

	fill(f);
	assert_int_equal(truncate(first_segment(f), (off_t)length_of(first_segment(f)) / 3), 0);
	there = count_there(f);
	assert_true(there > KEYS / 3 - 60 && there < KEYS);
	assert_int_equal(figures(f).corrupt, KEYS - there);
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(count_there(f), there);
	fixture_close(f);
	assert_int_equal(unlink(first_segment(f)), 0);
	fixture_open(f);
	there = count_there(f);
	assert_true(there < KEYS);
	assert_true(figures(f).corrupt > 0);
	assert_int_equal(figures(f).entries, there);
	put_surely(f, 5, 6, LENGTH);
	settle(f);
	assert_int_equal(get(f, 5), 6);
	fixture_close(f);
}

static void what_is_kept_says_so_until_it_is_put_again(void **state)
{
	struct fixture *f = *state;
	uint64_t key = 7;
	struct store_name name = name_of(&key, sizeof key);
	struct call call;

	fill(f);
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(figures(f).entries, KEYS);
	assert_int_equal(count_there(f), KEYS);
	for (int round = 0; round < 2; round++) {
		call_start(&call, f->spill, &name);
		assert_int_equal(call_end(&call, &f->loop), RSHM_OK);
		assert_int_equal(call.request.kept, round == 0);
		assert_int_equal(call_check(&call, key), key + 1);
		put_surely(f, key, key + 1, LENGTH);
		settle(f);
	}
	assert_int_equal(figures(f).unchanged, 2);
	fixture_close(f);
}

static void content_of_another_identity_or_without_mark_is_discarded(void **state)
{
	struct fixture *f = *state;

	for (int how = 0; how < 5; how++) {
		memcpy(f->config.identity, "sixteen bytes id", SPILL_IDENTITY_BYTES);
		fill(f);
		fixture_close(f);
		f->config.keep = true;
		if (how == 0)
			f->config.identity[15] ^= 1;
		else if (how == 1)
			assert_int_equal(unlink(path_of(f, "mark")), 0);
		else if (how == 2)
			damage_at(path_of(f, "mark"), 10);
		else if (how == 3)
			assert_int_equal(truncate(path_of(f, "mark"), 20), 0);
		else
			f->config.keep = false;
		fixture_open(f);
		assert_int_equal(figures(f).entries, 0);
		assert_true(figures(f).bytes_used < MiB / 2);
		assert_int_equal(count_there(f), 0);
		put_surely(f, 3, 4, LENGTH);
		settle(f);
		assert_int_equal(get(f, 3), 4);
		fixture_close(f);
	}
}

/* Fills a tier and ends it by spill_close(), or as a kill would. */
static void leave_behind(struct fixture *f, bool clean)
{
	pid_t child;
	int status;

	if (clean) {
		fill(f);
		fixture_close(f);
		return;
	}
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		memset(&f->loop, 0, sizeof f->loop);
		if (uv_loop_init(&f->loop) != 0)
			_exit(1);
		fill(f);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	f->config.keep = true;
	f->config.limits.bytes = 8 * MiB;
}

static void damaged_index_is_discarded(void **state)
{
	struct fixture *f = *state;
	static const char noise[65536];

	for (int how = 0; how < 9; how++) {
		int fd;

		leave_behind(f, how < 5);
		fd = open(path_of(f, "data.mdb"), O_RDWR);
		assert_true(fd >= 0);
		/* Page 2 and beyond, the head, the roots, everything; without a clean end nothing else can be told. */
		if (how % 5 == 0)
			assert_int_equal(ftruncate(fd, 4096 * 3), 0);
		else if (how % 5 == 1)
			assert_int_equal(ftruncate(fd, 100), 0);
		else if (how % 5 == 2)
			assert_int_equal(pwrite(fd, noise, sizeof noise, 0), sizeof noise);
		else if (how % 5 == 3)
			assert_int_equal(ftruncate(fd, 0), 0);
		else
			damage_at(path_of(f, "data.mdb"), length_of(path_of(f, "data.mdb")) / 2);
		close(fd);
		fixture_open(f);
		assert_int_equal(count_there(f), 0);
		put_surely(f, 3, 4, LENGTH);
		settle(f);
		assert_int_equal(get(f, 3), 4);
		assert_int_equal(figures(f).entries, 1);
		fixture_close(f);
	}
}

static void make_file(const char *path, const char *content)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, strlen(content)), strlen(content));
	close(fd);
}

static void foreign_files_are_left_alone(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"notes.txt",
					    "1.segment",
					    "00000000000000AB.segment",
					    "0000000000000001.segment.bak",
					    "-000000000000001.segment",
					    "0000000000000000.segment"};
	struct stat info;

	assert_int_equal(mkdir(f->path, 0700), 0);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		make_file(path_of(f, names[i]), "not yours");
	/* In the way of the first segment. */
	assert_int_equal(mkdir(first_segment(f), 0700), 0);
	for (int round = 0; round < 2; round++) {
		f->config.keep = round == 0;
		fixture_open(f);
		for (uint64_t key = 0; key < KEYS; key++)
			put_surely(f, key, key + 1, LENGTH);
		settle(f);
		assert_int_equal(count_there(f), KEYS);
		spill_remove_all(f->spill);
		settle(f);
		fixture_close(f);
	}
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		assert_int_equal(length_of(path_of(f, names[i])), 9);
	assert_int_equal(stat(first_segment(f), &info), 0);
	assert_true(S_ISDIR(info.st_mode));
}

static void links_are_not_followed(void **state)
{
	struct fixture *f = *state;
	char target[128], folder[128];

	snprintf(target, sizeof target, "%s/target", f->folder);
	make_file(target, "precious");
	assert_int_equal(mkdir(f->path, 0700), 0);
	assert_int_equal(symlink(target, path_of(f, "data.mdb")), 0);
	assert_open_fails(f, RSHM_E_DENIED, "no regular file");
	assert_int_equal(unlink(path_of(f, "data.mdb")), 0);
	assert_int_equal(symlink(target, first_segment(f)), 0);
	assert_int_equal(symlink(target, path_of(f, "mark")), 0);
	assert_int_equal(symlink(target, path_of(f, "mark.new")), 0);
	fill(f);
	assert_int_equal(count_there(f), KEYS);
	fixture_close(f);
	assert_int_equal(length_of(target), 8);
	/* A segment that is replaced by a link between two runs. */
	assert_int_equal(unlink(first_segment(f)), 0);
	assert_int_equal(symlink(target, first_segment(f)), 0);
	fixture_open(f);
	assert_true(count_there(f) < KEYS);
	fixture_close(f);
	assert_int_equal(length_of(target), 8);
	/* The folder itself. */
	snprintf(folder, sizeof folder, "%s/link", f->folder);
	assert_int_equal(symlink(f->path, folder), 0);
	f->config.path = folder;
	assert_open_fails(f, RSHM_E_DENIED, "symbolic link");
	f->config.path = f->path;
}

/* Needs to mount. */
static void full_disk_costs_misses_only(void **state)
{
	struct fixture *f = *state;
	uint64_t there = 0, until_ms, again = 0;
	char other[128];
	int fd;

	if (mount("tmpfs", f->folder, "tmpfs", 0, "size=6m") != 0) {
		print_message("cannot mount here (%s)\n", strerror(errno));
		skip();
	}
	f->config.limits.bytes = 64 * MiB;
	f->config.segment_bytes = 1 << 20;
	fixture_open(f);
	snprintf(other, sizeof other, "%s/other", f->folder);
	fd = open(other, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(posix_fallocate(fd, 0, 2 << 20), 0);
	close(fd);
	/* 10 MB into 4. */
	for (uint64_t key = 0; key < 10000; key++) {
		(void)put(f, key, key + 1, 1000);
		settle(f);
	}
	for (uint64_t key = 0; key < 10000; key++) {
		uint64_t version = get(f, key);

		assert_true(version == 0 || version == key + 1);
		there += version != 0;
	}
	print_message("full disk: %d there, %d refused, %d errors, %d discards\n", (int)there,
		      (int)figures(f).refused, (int)figures(f).disk_errors, (int)figures(f).discards);
	assert_true(figures(f).disk_errors > 0);
	assert_true(figures(f).refused > 0);
	/* What is removed while the disk is full is gone. */
	for (uint64_t key = 0; key < 10000; key += 2)
		removed(f, key);
	settle(f);
	for (uint64_t key = 0; key < 10000; key += 2)
		assert_int_equal(get(f, key), 0);
	/* Room comes back, and after a pause so do the puts. */
	assert_int_equal(unlink(other), 0);
	until_ms = clock_monotonic_ms() + 15000;
	while (put(f, 1, 2, 100000) != RSHM_OK || (settle(f), get(f, 1)) == 0) {
		assert_true(clock_monotonic_ms() < until_ms);
		usleep(50000);
	}
	for (uint64_t key = 20000; key < 20010; key++)
		put_surely(f, key, 1, 1000);
	settle(f);
	for (uint64_t key = 20000; key < 20010; key++)
		again += get(f, key);
	assert_int_equal(again, 10);
	fixture_close(f);
}

/* No file may grow beyond the two root pages of an index, which is what a full disk is to LMDB. */
static void disk_is_full(bool full)
{
	static rlim_t before;
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	if (full)
		before = limit.rlim_cur;
	limit.rlim_cur = full ? 8192 : before;
	/* Else whoever writes to a file, as the log may, is killed. */
	(void)signal(SIGXFSZ, full ? SIG_IGN : SIG_DFL);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* An index that cannot be written is no place to note removals: everything goes, and the tier lives on. */
static void removals_that_cannot_be_noted_are_not_lost(void **state)
{
	struct fixture *f = *state;
	struct spill_figures now;
	uint64_t until_ms, there = 0;
	int status;

	f->config.keep = true;
	fixture_open(f);
	for (uint64_t key = 0; key < 2000; key++)
		put_surely(f, key, 1, 100);
	settle(f);
	disk_is_full(true);
	for (uint64_t key = 0; key < 2000; key += 40)
		removed(f, key);
	for (uint64_t key = 0; key < 2000; key += 40)
		there += get(f, key);
	settle(f);
	for (uint64_t key = 0; key < 2000; key++)
		there += get(f, key);
	/* Not even an empty index can be made: puts are refused, whoever reads has misses. */
	status = put(f, 1, 2, 1000);
	now = figures(f);
	disk_is_full(false);
	assert_int_equal(there, 0);
	assert_int_equal(status, RSHM_E_AGAIN);
	assert_int_equal(now.discards, 1);
	assert_int_equal(now.entries, 0);
	assert_true(now.disk_errors >= 2);
	/* And in time it is as new. */
	until_ms = clock_monotonic_ms() + 15000;
	while (put(f, 1, 2, 1000) != RSHM_OK || (settle(f), get(f, 1)) == 0) {
		assert_true(clock_monotonic_ms() < until_ms);
		usleep(50000);
	}
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(figures(f).entries, 1);
	assert_int_equal(get(f, 1), 2);
	fixture_close(f);
}

static int teardown_mount(void **state)
{
	struct fixture *f = *state;

	if (f->spill != NULL)
		fixture_close(f);
	(void)umount(f->folder);
	return teardown(state);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(changed_bytes_are_misses),
		T(each_byte_of_a_record_is_covered),
		T(short_and_missing_segments_are_misses),
		T(what_is_kept_says_so_until_it_is_put_again),
		T(content_of_another_identity_or_without_mark_is_discarded),
		T(damaged_index_is_discarded),
		T(foreign_files_are_left_alone),
		T(links_are_not_followed),
		T(removals_that_cannot_be_noted_are_not_lost),
		cmocka_unit_test_setup_teardown(full_disk_costs_misses_only, setup, teardown_mount),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
