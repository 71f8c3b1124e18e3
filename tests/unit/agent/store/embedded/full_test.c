#include "tests/unit/agent/store/embedded/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/wait.h>

static int setup(void **state)
{
	static struct fixture f;

	fixture_init(&f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	/* A test that failed leaves store and mount. */
	if (f->store != NULL)
		fixture_close(f);
	(void)umount(f->folder);
	fixture_fini(f);
	return 0;
}

/* Puts until one does not fit. Returns how many did. */
static int fill(struct fixture *f, const unsigned char *noise, size_t length, int from)
{
	for (int i = from;; i++) {
		int status;

		assert_true(i < from + 100000);
		status = put(f, &i, sizeof i, noise + i % 100, length, 0);
		if (status == RSHM_E_FULL)
			return i - from;
		assert_int_equal(status, RSHM_OK);
	}
}

static void assert_all_there(struct fixture *f, const unsigned char *noise, size_t length, int from, int to)
{
	for (int i = from; i < to; i++)
		assert_int_equal(get_expect(f, &i, sizeof i, noise + i % 100, length), RSHM_OK);
}

/* Fills, checks that nothing was lost, makes room by deleting, and fills again, with values of one size. */
static void fill_and_empty(struct fixture *f, size_t length, uint64_t least)
{
	unsigned char *noise = make_noise(length + 100, 41);
	int count, again;

	count = fill(f, noise, length, 0);
	print_message("%zu bytes: %d entries\n", length, count);
	assert_true((uint64_t)count * length > least);
	assert_int_equal(status_of(f->store).entries, count);
	assert_all_there(f, noise, length, 0, count);
	/* Replacing needs room too. */
	assert_int_equal(put(f, "other", 5, noise, length, 0), RSHM_E_FULL);
	for (int i = 0; i < count; i++)
		assert_int_equal(simple(f, STORE_DELETE, &i, sizeof i, 0), RSHM_OK);
	assert_int_equal(status_of(f->store).entries, 0);
	again = fill(f, noise, length, 200000);
	assert_true(again > count / 2);
	assert_all_there(f, noise, length, 200000, 200000 + again);
	print_message("%zu bytes again: %d entries\n", length, again);
	fixture_close(f);
	fixture_open(f);
	assert_all_there(f, noise, length, 200000, 200000 + again);
	free(noise);
}

static void full_map_refuses_puts_and_can_be_emptied(void **state)
{
	struct fixture *f = *state;
	static const size_t lengths[] = {100, 3000, 50000, 300000};
	static const uint64_t least[] = {1 << 20, 4 << 20, 5 << 20, 5 << 20};

	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		char command[128];

		f->config.map_size = 8 << 20;
		fixture_open(f);
		fill_and_empty(f, lengths[i], least[i]);
		fixture_close(f);
		snprintf(command, sizeof command, "rm -rf %s", f->path);
		assert_int_equal(system(command), 0);
	}
}

/* Twenty small values and, among them, one of 20 MiB. */
static void assert_big_one_fails_alone(struct fixture *f)
{
	unsigned char *noise = make_noise(20 << 20, 43);
	struct envelope_buffer small = envelope_of("s", 1, "v", 1, 0), big = envelope_of("b", 1, noise, 20 << 20, 0);
	struct call calls[21];

	for (int i = 0; i < 21; i++) {
		call_init(&calls[i], STORE_PUT, i == 10 ? "b" : "s", 1);
		calls[i].request.envelope = i == 10 ? big.bytes : small.bytes;
		calls[i].request.envelope_len = i == 10 ? big.length : small.length;
		store_submit(f->store, &calls[i].request);
	}
	for (int i = 0; i < 21; i++) {
		call_wait(&calls[i], &f->loop);
		assert_int_equal(calls[i].status, i == 10 ? RSHM_E_FULL : RSHM_OK);
	}
	assert_int_equal(get_expect(f, "s", 1, "v", 1), RSHM_OK);
	assert_int_equal(simple(f, STORE_GET, "b", 1, 0), RSHM_MISS);
	envelope_buffer_fini(&small);
	envelope_buffer_fini(&big);
	free(noise);
}

static void value_beyond_the_map_fails_alone(void **state)
{
	struct fixture *f = *state;

	f->config.map_size = 8 << 20;
	fixture_open(f);
	assert_big_one_fails_alone(f);
	fixture_close(f);
}

static void map_made_smaller_than_the_file_still_opens(void **state)
{
	struct fixture *f = *state;
	unsigned char *noise = make_noise(1 << 20, 47);

	fixture_open(f);
	for (int i = 0; i < 20; i++)
		assert_int_equal(put(f, &i, sizeof i, noise, 1 << 20, 0), RSHM_OK);
	fixture_close(f);
	f->config.map_size = 4 << 20;
	fixture_open(f);
	assert_int_equal(put(f, "k", 1, noise, 1 << 20, 0), RSHM_E_FULL);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(get_expect(f, &i, sizeof i, noise, 1 << 20), RSHM_OK);
		assert_int_equal(simple(f, STORE_DELETE, &i, sizeof i, 0), RSHM_OK);
	}
	assert_int_equal(put(f, "k", 1, noise, 1 << 20, 0), RSHM_OK);
	fixture_close(f);
	free(noise);
}

/* Everything that must hold on a file system of 8 MiB, most of which is taken and given back by a ballast file. */
static void disk_fills_and_empties(struct fixture *f, enum embedded_sync sync)
{
	unsigned char *noise = make_noise(10100, 53);
	char name[128], zeros[65536] = {0};
	int fd, count;

	snprintf(name, sizeof name, "%s/ballast", f->folder);
	fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0600);
	assert_true(fd >= 0);
	for (int i = 0; i < 4 << 4; i++)
		assert_int_equal(write(fd, zeros, sizeof zeros), sizeof zeros);
	close(fd);
	f->config.sync = sync;
	fixture_open(f);
	/* The map has room for it, the disk has not. */
	assert_big_one_fails_alone(f);
	assert_int_equal(simple(f, STORE_DELETE, "s", 1, 0), RSHM_OK);
	count = fill(f, noise, 10000, 0);
	assert_true(count > 100);
	assert_all_there(f, noise, 10000, 0, count);
	assert_true(status_of(f->store).ready);
	assert_int_equal(status_of(f->store).entries, count);
	assert_int_equal(unlink(name), 0);
	/* Room has returned: it goes on without being told. */
	assert_int_equal(put(f, &count, sizeof count, noise + count % 100, 10000, 0), RSHM_OK);
	assert_all_there(f, noise, 10000, 0, count + 1);
	fixture_close(f);
	fixture_open(f);
	assert_all_there(f, noise, 10000, 0, count + 1);
	fixture_close(f);
	print_message("sync %d: %d entries\n", (int)sync, count);
	free(noise);
}

static void full_disk_loses_nothing_and_is_survived(void **state)
{
	struct fixture *f = *state;
	char command[128];

	if (geteuid() != 0 || mount("tmpfs", f->folder, "tmpfs", 0, "size=8m") != 0) {
		print_message("skipped: no right to mount a small tmpfs (%s)\n", strerror(errno));
		skip();
	}
	for (int sync = 0; sync < 3; sync++) {
		disk_fills_and_empties(f, (enum embedded_sync)sync);
		snprintf(command, sizeof command, "rm -rf %s", f->path);
		assert_int_equal(system(command), 0);
	}
	assert_int_equal(umount(f->folder), 0);
}

static void full_disk_at_open_is_one_clear_line(void **state)
{
	struct fixture *f = *state;
	char name[128], zeros[4096] = {0};
	int fd;

	if (geteuid() != 0 || mount("tmpfs", f->folder, "tmpfs", 0, "size=64k") != 0) {
		print_message("skipped: no right to mount a small tmpfs (%s)\n", strerror(errno));
		skip();
	}
	snprintf(name, sizeof name, "%s/ballast", f->folder);
	fd = open(name, O_CREAT | O_WRONLY, 0600);
	while (write(fd, zeros, sizeof zeros) > 0)
		;
	close(fd);
	assert_open_fails(f, RSHM_E_FULL, "make room");
	assert_int_equal(umount(f->folder), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(full_map_refuses_puts_and_can_be_emptied),   TEST(value_beyond_the_map_fails_alone),
		TEST(map_made_smaller_than_the_file_still_opens), TEST(full_disk_loses_nothing_and_is_survived),
		TEST(full_disk_at_open_is_one_clear_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
