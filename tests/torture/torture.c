/*
 * torture.c - the hot ring under force: kills and delays at any instant, every byte checked.
 *
 *	torture [--short] [--seconds N] [--readers N] [--reader-kills N] [--writer-kills N] [--ring-bytes N]
 *
 * A writer process churns a ring so small that it wraps again and again; reader processes, on a read-only mapping, check
 * that what they get was at one moment the value of that key: its bytes follow from key and version, and its version is
 * not older than what the writer had acknowledged before the read began. Readers and writer are killed with SIGKILL at
 * random instants; each next writer adopts the ring. The program is built with -DRSHM_TORTURE, so that the ring calls
 * torture_point() between its steps, where it yields, waits, or dies.
 *
 * Exit status: 0 no fault, 1 a fault was seen (built around a mutant of the protocol it must be 1), 2 it could not run.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/index.h"
#include "shm/order.h"
#include "shm/ring.h"

#define KEYS 96u
#define VALUE_MAX 6000u
#define READERS_MAX 8u
#define HANG_MS 20000u
#define POINT_KILL_ONE_IN 20000u /* of the writer's steps ends in a kill of its own */

enum fault {
	FAULT_NONE,
	FAULT_TORN,    /* bytes that were never that version's */
	FAULT_STALE,   /* older than what had been acknowledged */
	FAULT_HANG,    /* no progress */
	FAULT_ADOPT,   /* what a killed writer left cannot be adopted */
	FAULT_CRASH,   /* a process ended otherwise than by our kill */
	FAULT_ACCOUNT, /* the next writer's counts disagree with the ring */
};
static const char *const fault_names[] = {"none",           "torn or foreign bytes", "stale after acknowledgement",
					  "hang",           "adoption refused",      "a process crashed",
					  "counts disagree"};

struct shared {
	uint64_t versions;    /* drawn so far */
	uint64_t floor[KEYS]; /* readers may see no older version */
	uint64_t reads[READERS_MAX], hits[READERS_MAX];
	uint64_t writes, wraps;
	uint32_t fault, stop;
	char detail[160];
};

static struct shared *shared;
static void *object;
static struct rshm_geometry geometry;
static uint64_t ring_bytes = 256u << 10;
static unsigned int readers = 2, seconds = 20, reader_kills = 1000, writer_kills = 100;
static bool is_writer;
static uint64_t random_state;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static void report_fault(enum fault fault, const char *detail)
{
	uint32_t none = FAULT_NONE;

	if (rshm_cas_acq_rel32(&shared->fault, &none, fault))
		snprintf(shared->detail, sizeof(shared->detail), "%s", detail);
}

/* Mostly nothing; sometimes the processor is given away, sometimes for long. */
static void dawdle(void)
{
	uint64_t r = random_next() % 4096;

	if (r < 200)
		sched_yield();
	else if (r < 216)
		usleep((useconds_t)(random_next() % 400));
	else if (r < 218)
		usleep((useconds_t)(random_next() % 6000));
}

/* Called by the ring between its steps. */
void torture_point(int point)
{
	if (!is_writer)
		return;
	/* Between word and end of the append a kill does the most harm to a wrong order. */
	if (random_next() % (point == 5 ? POINT_KILL_ONE_IN / 20 : POINT_KILL_ONE_IN) == 0)
		kill(getpid(), SIGKILL);
	if (random_next() % 16 == 0)
		dawdle();
}

/* ---- values that name their key and version ------------------------------------------------------------------- */

static uint64_t value_word(uint32_t key, uint64_t version, uint32_t i)
{
	uint64_t x = (version * 0x9e3779b97f4a7c15u) ^ ((uint64_t)key << 32 | i);

	x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9u;
	return x ^ x >> 29;
}

static uint32_t value_length(uint32_t key, uint64_t version)
{
	return (uint32_t)(value_word(key, version, ~0u) % VALUE_MAX);
}

static void make_value(uint32_t key, uint64_t version, unsigned char *to, uint32_t length)
{
	for (uint32_t i = 0; i < length; i += 8) {
		uint64_t word = value_word(key, version, i);

		memcpy(to + i, &word, length - i < 8 ? length - i : 8);
	}
}

static bool is_value_of(uint32_t key, uint64_t version, const unsigned char *bytes, uint32_t length)
{
	unsigned char wanted[VALUE_MAX + 8];

	if (length != value_length(key, version))
		return false;
	make_value(key, version, wanted, length);
	return memcmp(wanted, bytes, length) == 0;
}

/* Keys of different lengths that share beginnings. */
static size_t make_key(uint32_t key, char *to)
{
	return (size_t)snprintf(to, 48, "key-%0*u", 4 + (int)(key % 23), key);
}

/* ---- reader --------------------------------------------------------------------------------------------------- */

static enum rshm_outcome read_slowly(const struct rshm_reader *reader, uint64_t hash, const char *key, size_t key_len,
				     unsigned char *value, struct rshm_found *found)
{
	enum rshm_outcome outcome = rshm_find(reader, hash, key, key_len, found);
	uint32_t length = found->entry.value_len, half = length / 2;

	if (outcome != RSHM_FOUND)
		return outcome;
	dawdle();
	if (length > VALUE_MAX)
		return RSHM_NOT_FOUND;
	rshm_copy_out(value, found->bytes + key_len + found->entry.metadata_len, half);
	dawdle();
	rshm_copy_out(value + half, found->bytes + key_len + found->entry.metadata_len + half, length - half);
	dawdle();
	return rshm_still_valid(reader, found) ? RSHM_FOUND : RSHM_LAPPED;
}

static void check_one(const struct rshm_reader *reader, unsigned int number)
{
	unsigned char value[VALUE_MAX];
	uint32_t key = (uint32_t)(random_next() % KEYS);
	char name[48], detail[160];
	size_t key_len = make_key(key, name);
	uint64_t hash = rshm_hash(reader->hash_seed, name, key_len);
	uint64_t floor = rshm_load_acquire(&shared->floor[key]);
	struct rshm_found found = {.tail = 0};
	enum rshm_outcome outcome;

	if (random_next() % 2)
		outcome = rshm_read(reader, hash, name, key_len, value, sizeof(value), NULL, 0, &found);
	else
		outcome = read_slowly(reader, hash, name, key_len, value, &found);
	rshm_store_relaxed(&shared->reads[number], shared->reads[number] + 1);
	if (outcome != RSHM_FOUND)
		return;
	rshm_store_relaxed(&shared->hits[number], shared->hits[number] + 1);
	snprintf(detail, sizeof(detail), "key %u, version %llu, acknowledged %llu, length %u", key,
		 (unsigned long long)found.entry.version, (unsigned long long)floor, found.entry.value_len);
	if (found.entry.value_len > VALUE_MAX || !is_value_of(key, found.entry.version, value, found.entry.value_len))
		report_fault(FAULT_TORN, detail);
	else if (found.entry.version < floor)
		report_fault(FAULT_STALE, detail);
}

static int run_reader(unsigned int number)
{
	struct rshm_reader reader;

	random_state = (uint64_t)getpid() * 0x9e3779b97f4a7c15u | 1;
	if (mprotect(object, geometry.object_size, PROT_READ) < 0 ||
	    rshm_reader_init(object, geometry.object_size, &reader) < 0)
		return 2;
	while (!rshm_load_relaxed32(&shared->stop) && !rshm_load_relaxed32(&shared->fault))
		check_one(&reader, number);
	return 0;
}

/* ---- writer --------------------------------------------------------------------------------------------------- */

static void put_one(struct rshm_writer *writer, uint32_t key)
{
	unsigned char value[VALUE_MAX + 8];
	uint64_t version = ++shared->versions;
	char name[48];
	struct rshm_item item = {
		.key = name,
		.value = value,
		.key_len = (uint16_t)make_key(key, name),
		.value_len = value_length(key, version),
		.version = version,
		.control_a = rshm_control_a(0, 0, 1),
		.control_b = RSHM_NEVER,
	};

	make_value(key, version, value, item.value_len);
	if (rshm_writer_put(writer, &item) < 0)
		report_fault(FAULT_ACCOUNT, "a put was refused");
	rshm_store_release(&shared->floor[key], version);
}

static void remove_one(struct rshm_writer *writer, uint32_t key)
{
	uint64_t version = ++shared->versions;
	char name[48];
	size_t key_len = make_key(key, name);

	(void)rshm_writer_remove(writer, name, key_len);
	/* Nothing older than this may be seen any more. */
	rshm_store_release(&shared->floor[key], version);
}

static void touch_some(struct rshm_writer *writer)
{
	for (unsigned int i = 0; i < 3; i++) {
		char name[48];
		struct rshm_item item;
		uint64_t position;
		size_t key_len = make_key((uint32_t)(random_next() % KEYS), name);

		if (rshm_writer_find(writer, name, key_len, &item, &position))
			(void)rshm_writer_touch(writer, position);
		(void)rshm_writer_touch(writer, random_next());
	}
}

static void check_counts(const struct rshm_writer *writer)
{
	uint64_t cursor = 0, position, entries = 0;
	uint32_t steps = UINT32_MAX;
	struct rshm_item item;

	while (rshm_writer_walk(writer, &cursor, &steps, &item, &position))
		entries++;
	if (entries != writer->live_entries)
		report_fault(FAULT_ACCOUNT, "live entries of the log and of the index differ");
}

static int run_writer(void)
{
	struct rshm_writer writer;

	random_state = (uint64_t)getpid() * 0x9e3779b97f4a7c15u | 1;
	is_writer = true;
	if (rshm_writer_adopt(object, geometry.object_size, &writer) < 0) {
		report_fault(FAULT_ADOPT, "rshm_writer_adopt refused");
		return 1;
	}
	if (RSHM_MUTANT == 0)
		check_counts(&writer);
	while (!rshm_load_relaxed32(&shared->stop) && !rshm_load_relaxed32(&shared->fault)) {
		uint32_t key = (uint32_t)(random_next() % KEYS);

		if (random_next() % 16 == 0)
			remove_one(&writer, key);
		else
			put_one(&writer, key);
		touch_some(&writer);
		shared->writes++;
		shared->wraps = writer.head / writer.units;
	}
	return 0;
}

/* ---- the one who kills ------------------------------------------------------------------------------------------ */

static pid_t start(unsigned int number)
{
	pid_t pid = fork();

	if (pid < 0) {
		perror("torture: fork");
		exit(2);
	}
	if (pid == 0)
		_exit(number == 0 ? run_writer() : run_reader(number - 1));
	return pid;
}

/* True if the process has ended: by a kill of ours, or because it was told to stop; anything else is a fault. */
static bool reap(pid_t pid)
{
	int code;

	if (waitpid(pid, &code, WNOHANG) != pid)
		return false;
	if (!(WIFSIGNALED(code) && WTERMSIG(code) == SIGKILL) && !(WIFEXITED(code) && WEXITSTATUS(code) == 0))
		report_fault(FAULT_CRASH, "it ended by itself");
	return true;
}

static void replace(pid_t *pid, unsigned int number)
{
	kill(*pid, SIGKILL);
	waitpid(*pid, NULL, 0);
	*pid = start(number);
}

static uint64_t total_reads(void)
{
	uint64_t total = 0;

	for (unsigned int i = 0; i < readers; i++)
		total += rshm_load_relaxed(&shared->reads[i]);
	return total;
}

static void supervise(pid_t *pids)
{
	uint64_t began = now_ms(), until = began + seconds * 1000ull, moved = began, seen = 0;
	unsigned int killed_readers = 0, killed_writers = 0, own_kills = 0;

	while (!rshm_load_relaxed32(&shared->fault)) {
		uint64_t now = now_ms(), share = (now - began) * 1000 / (seconds * 1000ull);

		if (now >= until && killed_readers >= reader_kills && killed_writers >= writer_kills)
			break;
		usleep((useconds_t)(random_next() % 3000));
		if (reap(pids[0])) {
			own_kills++;
			pids[0] = start(0);
		}
		if (killed_readers < reader_kills && killed_readers * 1000ull <= share * reader_kills) {
			unsigned int n = 1 + (unsigned int)(random_next() % readers);

			replace(&pids[n], n);
			killed_readers++;
		}
		if (killed_writers < writer_kills && killed_writers * 1000ull <= share * writer_kills) {
			replace(&pids[0], 0);
			killed_writers++;
		}
		if (total_reads() != seen) {
			seen = total_reads();
			moved = now;
		} else if (now - moved > HANG_MS) {
			report_fault(FAULT_HANG, "readers make no progress");
		}
	}
	printf("killed %u readers, %u writers, %u writers between two steps\n", killed_readers, killed_writers,
	       own_kills);
}

static void finish(pid_t *pids)
{
	struct rshm_writer writer;
	uint64_t began = now_ms();

	rshm_store_relaxed32(&shared->stop, 1);
	for (unsigned int i = 0; i <= readers; i++) {
		while (!reap(pids[i])) {
			usleep(1000);
			if (now_ms() - began > HANG_MS) {
				report_fault(FAULT_HANG, "a process does not end");
				kill(pids[i], SIGKILL);
			}
		}
	}
	if (RSHM_MUTANT != 0)
		return;
	if (rshm_writer_adopt(object, geometry.object_size, &writer) < 0)
		report_fault(FAULT_ADOPT, "the ring that is left cannot be adopted");
	else
		check_counts(&writer);
}

static void make_ring(void)
{
	struct rshm_header header = {.generation = 1};
	struct rshm_writer writer;

	rshm_geometry_plan(ring_bytes, 1u << 20, &geometry);
	object = mmap(NULL, geometry.object_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (object == MAP_FAILED || shared == MAP_FAILED) {
		perror("torture: mmap");
		exit(2);
	}
	rshm_writer_format(object, &geometry, &header, "torture", 42, &writer);
	rshm_writer_publish(&writer, RSHM_POLICY_MISS, 0);
}

static void parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		unsigned long value = i + 1 < argc ? strtoul(argv[i + 1], NULL, 10) : 0;

		if (strcmp(argv[i], "--short") == 0) {
			seconds = 20;
			continue;
		} else if (strcmp(argv[i], "--seconds") == 0) {
			seconds = (unsigned int)value;
		} else if (strcmp(argv[i], "--readers") == 0) {
			readers = (unsigned int)value;
		} else if (strcmp(argv[i], "--reader-kills") == 0) {
			reader_kills = (unsigned int)value;
		} else if (strcmp(argv[i], "--writer-kills") == 0) {
			writer_kills = (unsigned int)value;
		} else if (strcmp(argv[i], "--ring-bytes") == 0) {
			ring_bytes = value;
		} else {
			fprintf(stderr, "torture: %s is no option\n", argv[i]);
			exit(2);
		}
		i++;
	}
	if (readers == 0 || readers > READERS_MAX || seconds == 0) {
		fputs("torture: 1 to 8 readers, at least a second\n", stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	pid_t pids[READERS_MAX + 1];
	uint64_t hits = 0;

	seconds = 600; /* the long form; --short is what `make check` runs */
	parse(argc, argv);
	random_state = (uint64_t)time(NULL) << 20 | (uint64_t)getpid();
	make_ring();
	for (unsigned int i = 0; i <= readers; i++)
		pids[i] = start(i);
	supervise(pids);
	finish(pids);
	for (unsigned int i = 0; i < readers; i++)
		hits += shared->hits[i];
	printf("%llu reads, %llu hits, %llu writes, %llu laps of the ring\n", (unsigned long long)total_reads(),
	       (unsigned long long)hits, (unsigned long long)shared->writes, (unsigned long long)shared->wraps);
	if (shared->fault)
		printf("fault: %s: %s\n", fault_names[shared->fault], shared->detail);
	else if (hits == 0)
		printf("fault: nothing was ever hit, so nothing was checked\n");
	return shared->fault || hits == 0 ? 1 : 0;
}
