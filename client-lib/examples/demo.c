/*
 * demo.c - what the cache does, shown on this machine's own documents; `make demo` runs it.
 *
 *	demo --agent RIPTIDED --dir FOLDER [--redis SOCKET] [--seconds N] [--workers N] DOCUMENTS...
 *
 * Four pre-forked workers serve the documents below the given folders, cache-aside, and check every byte they get against
 * a checksum that the parent took from the file. Then the agent is killed with SIGKILL while they read on, and started
 * again. The copyable part is cache_aside.c; this file measures.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <riptide/riptide.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DOCUMENTS_MAX 20000u
#define DOCUMENT_MAX (256u << 10)
#define BYTES_MAX (96ull << 20) /* of documents in all */
#define WORKERS_MAX 16u
#define CLASSES 512u /* of latency: eighths of powers of two */

enum phase {
	PHASE_LOAD,  /* every document once */
	PHASE_SERVE, /* zipf-like requests, measured */
	PHASE_CRASH, /* the same, while the agent dies and comes back */
	PHASE_STORE, /* every document once more, after shared memory was emptied */
	PHASE_END,
};

enum kind {
	KIND_HIT,
	KIND_MISS,
	KIND_SET,
	KIND_STORE,
	KINDS,
};

struct document {
	char *path;
	size_t length;
	uint64_t checksum;
};

struct histogram {
	uint64_t counts[CLASSES];
	uint64_t total;
};

/* One per worker, in memory that the parent shares. */
struct result {
	struct histogram latency[KINDS];
	uint64_t requests, hits, stale, misses, sets, refused_sets, bytes;
	uint64_t wrong_bytes, failed_reads; /* must be 0 */
	uint64_t crash_hits, done;
	char worst[200];
};

struct shared {
	volatile enum phase phase;
	struct result results[WORKERS_MAX];
};

static struct document documents[DOCUMENTS_MAX];
static unsigned int document_count;
static uint64_t document_bytes;
static unsigned int workers = 4, seconds = 4;
static const char *agent_program, *folder, *redis_socket;
static struct shared *shared;
static pid_t agent;

/* ---- small things ------------------------------------------------------------------------------------------- */

static void die(const char *what)
{
	fprintf(stderr, "demo: %s: %s\n", what, strerror(errno));
	if (agent > 0)
		kill(agent, SIGTERM);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Not for strangers' bytes, but any changed byte changes it. */
static uint64_t checksum(const unsigned char *bytes, size_t length)
{
	uint64_t sum = length * 0x9e3779b97f4a7c15u;

	for (size_t i = 0; i + 8 <= length; i += 8) {
		uint64_t word;

		memcpy(&word, bytes + i, 8);
		sum = (sum ^ word) * 0xff51afd7ed558ccdu;
		sum ^= sum >> 32;
	}
	for (size_t i = length & ~(size_t)7; i < length; i++)
		sum = (sum ^ bytes[i]) * 0x100000001b3u;
	return sum;
}

static void note(struct histogram *h, uint64_t ns)
{
	unsigned int power = ns ? 63u - (unsigned int)__builtin_clzll(ns) : 0;
	unsigned int eighth = power >= 3 ? (unsigned int)(ns >> (power - 3)) & 7u : 0;

	h->counts[power * 8 + eighth]++;
	h->total++;
}

static double percentile(const struct histogram *h, double percent)
{
	uint64_t wanted = (uint64_t)((double)h->total * percent / 100), seen = 0;

	for (unsigned int i = 0; i < CLASSES; i++) {
		seen += h->counts[i];
		if (h->counts[i] && seen > wanted)
			return ldexp(1.0 + (double)(i % 8) / 8, (int)(i / 8));
	}
	return 0;
}

static void progress(const char *what, unsigned int percent)
{
	static const char bar[] = "##############################";

	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r  %-44s [%-30.*s] %3u %%%s", what, (int)(percent * 30 / 100), bar, percent,
			percent == 100 ? "\n" : "");
	else if (percent == 100)
		fprintf(stderr, "  %s: done\n", what);
}

/* ---- documents ---------------------------------------------------------------------------------------------- */

static size_t load_document(const char *path, void *buffer)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, buffer, DOCUMENT_MAX) : -1;

	if (fd >= 0)
		close(fd);
	return n > 0 ? (size_t)n : 0;
}

static int add_document(const char *path, const struct stat *st, int type, struct FTW *where)
{
	static unsigned char buffer[DOCUMENT_MAX];
	struct document *d = &documents[document_count];

	(void)where;
	if (type != FTW_F || !S_ISREG(st->st_mode) || st->st_size == 0 || st->st_size >= (off_t)sizeof(buffer))
		return 0;
	if (document_count == DOCUMENTS_MAX || document_bytes + (uint64_t)st->st_size > BYTES_MAX)
		return 1;
	d->length = load_document(path, buffer);
	d->path = strdup(path);
	if (!d->path || d->length == 0)
		return 0;
	d->checksum = checksum(buffer, d->length);
	document_bytes += d->length;
	document_count++;
	return 0;
}

/* ---- workers ------------------------------------------------------------------------------------------------ */

static void verify(struct result *r, const struct document *d, const unsigned char *bytes, size_t length)
{
	if (length == d->length && checksum(bytes, length) == d->checksum)
		return;
	r->wrong_bytes++;
	snprintf(r->worst, sizeof(r->worst), "%.150s: %zu bytes", d->path, length);
}

static void load_and_set(riptide *cache, struct result *r, const struct document *d, unsigned char *buffer)
{
	size_t length = load_document(d->path, buffer);
	uint64_t began = now_ns();

	r->misses++;
	if (riptide_set(cache, d->path, strlen(d->path), buffer, length, NULL, NULL) == RIPTIDE_OK) {
		note(&r->latency[KIND_SET], now_ns() - began);
		r->sets++;
	} else {
		r->refused_sets++; /* the agent is away: the application served the document all the same */
	}
}

static void serve_one(riptide *cache, struct result *r, const struct document *d, unsigned char *buffer)
{
	struct riptide_info info;
	uint64_t began = now_ns();
	size_t length;
	int status = riptide_get_into(cache, d->path, strlen(d->path), buffer, DOCUMENT_MAX, &length, &info);
	uint64_t took = now_ns() - began;

	r->requests++;
	if (status == RIPTIDE_OK) {
		verify(r, d, buffer, length);
		r->hits++;
		r->bytes += length;
		r->stale += (info.flags & RIPTIDE_STALE) != 0;
		note(&r->latency[info.flags & RIPTIDE_HOT ? KIND_HIT : KIND_STORE], took);
		return;
	}
	if (status == RIPTIDE_MISS) {
		note(&r->latency[KIND_MISS], took);
	} else {
		r->failed_reads++;
		riptide_last_error(cache, r->worst, sizeof(r->worst));
	}
	load_and_set(cache, r, d, buffer);
}

/* Few documents get most of the requests: the cube of a uniform number falls like the heads of real access logs. */
static unsigned int pick(unsigned int *seed)
{
	double u = (double)rand_r(seed) / ((double)RAND_MAX + 1);

	return (unsigned int)(u * u * u * document_count);
}

static int work(riptide *cache, unsigned int number)
{
	struct result *r = &shared->results[number];
	unsigned char *buffer = malloc(DOCUMENT_MAX);
	unsigned int seed = number + 1;
	uint64_t before;

	if (!buffer)
		return 1;
	for (unsigned int i = number; i < document_count; i += workers, r->done++)
		serve_one(cache, r, &documents[i], buffer);
	while (shared->phase == PHASE_LOAD)
		usleep(1000);
	memset(r->latency[KIND_HIT].counts, 0, sizeof(r->latency[KIND_HIT].counts));
	r->latency[KIND_HIT].total = 0;
	while (shared->phase == PHASE_SERVE)
		serve_one(cache, r, &documents[pick(&seed)], buffer);
	before = r->hits;
	while (shared->phase == PHASE_CRASH)
		serve_one(cache, r, &documents[pick(&seed)], buffer);
	r->crash_hits = r->hits - before;
	r->done = 0;
	for (unsigned int i = number; i < document_count; i += workers, r->done++)
		serve_one(cache, r, &documents[i], buffer);
	free(buffer);
	return 0;
}

/* ---- the agent ---------------------------------------------------------------------------------------------- */

static void start_agent(void)
{
	char run[300], state[300];

	snprintf(run, sizeof(run), "agent.run_dir=%s/run", folder);
	snprintf(state, sizeof(state), "agent.state_dir=%s/state", folder);
	agent = fork();
	if (agent < 0)
		die("fork");
	if (agent == 0) {
		execl(agent_program, "riptided", "--no-config", "--set", run, "--set", state, "--set",
		      "agent.instance=demo", "--set", "agent.keep_on_stop=false", "--set", "log.level=warn",
		      (char *)NULL);
		_exit(127);
	}
}

static void stop_agent(int signal_number)
{
	kill(agent, signal_number);
	waitpid(agent, NULL, 0);
	agent = 0;
}

/* The handle may have been opened before: it attaches again by itself. */
static void await_agent(riptide *cache)
{
	for (unsigned int i = 0; i < 1000; i++) {
		if (riptide_ping(cache, NULL) == RIPTIDE_OK)
			return;
		usleep(5000);
	}
	die("the agent does not answer");
}

static riptide *open_cache(void)
{
	char socket_path[300];
	struct riptide_options options = {.size = sizeof(options), .socket = socket_path, .name = "demo"};
	riptide *cache = NULL;

	snprintf(socket_path, sizeof(socket_path), "%s/run/control.sock", folder);
	for (unsigned int i = 0; i < 1000; i++) {
		if (riptide_open(&options, &cache) == RIPTIDE_OK)
			return cache;
		riptide_close(&cache);
		usleep(5000);
	}
	errno = ETIMEDOUT;
	die("the agent did not start");
	return NULL;
}

/* ---- Redis, for comparison: the same documents over a unix socket, one request at a time -------------------------- */

static int redis_connect(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", redis_socket);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die(redis_socket);
	return fd;
}

static void redis_send(int fd, const void *bytes, size_t length)
{
	for (size_t sent = 0; sent < length;) {
		ssize_t n = write(fd, (const char *)bytes + sent, length - sent);

		if (n <= 0)
			die("redis");
		sent += (size_t)n;
	}
}

/* Reads one reply of the forms +OK and $length bytes; returns the length of the latter. */
static size_t redis_reply(int fd, char *buffer, size_t capacity)
{
	size_t have = 0, header, length;
	char *end;

	do {
		ssize_t n = read(fd, buffer + have, capacity - have);

		if (n <= 0)
			die("redis");
		have += (size_t)n;
		end = memchr(buffer, '\n', have);
	} while (!end);
	if (buffer[0] != '$')
		return 0;
	header = (size_t)(end - buffer) + 1;
	length = strtoul(buffer + 1, NULL, 10);
	while (have < header + length + 2) {
		ssize_t n = read(fd, buffer + have, capacity - have);

		if (n <= 0)
			die("redis");
		have += (size_t)n;
	}
	return length;
}

static void compare_with_redis(struct histogram *latency)
{
	static char buffer[DOCUMENT_MAX + 512], head[512];
	static unsigned char bytes[DOCUMENT_MAX];
	unsigned int seed = 1;
	int fd = redis_connect();

	for (unsigned int i = 0; i < document_count; i++) {
		size_t length = load_document(documents[i].path, bytes);
		int n = snprintf(head, sizeof(head), "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%zu\r\n",
				 strlen(documents[i].path), documents[i].path, length);

		redis_send(fd, head, (size_t)n);
		redis_send(fd, bytes, length);
		redis_send(fd, "\r\n", 2);
		(void)redis_reply(fd, buffer, sizeof(buffer));
	}
	for (unsigned int i = 0; i < 20000; i++) {
		const struct document *d = &documents[pick(&seed)];
		int n = snprintf(head, sizeof(head), "*2\r\n$3\r\nGET\r\n$%zu\r\n%s\r\n", strlen(d->path), d->path);
		uint64_t began = now_ns();

		redis_send(fd, head, (size_t)n);
		(void)redis_reply(fd, buffer, sizeof(buffer));
		note(latency, now_ns() - began);
	}
	close(fd);
}

/* ---- the show ----------------------------------------------------------------------------------------------- */

static void sum(struct result *all)
{
	memset(all, 0, sizeof(*all));
	for (unsigned int w = 0; w < workers; w++) {
		const struct result *r = &shared->results[w];

		for (unsigned int k = 0; k < KINDS; k++) {
			for (unsigned int c = 0; c < CLASSES; c++)
				all->latency[k].counts[c] += r->latency[k].counts[c];
			all->latency[k].total += r->latency[k].total;
		}
		all->requests += r->requests;
		all->hits += r->hits;
		all->stale += r->stale;
		all->misses += r->misses;
		all->sets += r->sets;
		all->refused_sets += r->refused_sets;
		all->bytes += r->bytes;
		all->wrong_bytes += r->wrong_bytes;
		all->failed_reads += r->failed_reads;
		all->crash_hits += r->crash_hits;
		all->done += r->done;
		if (r->worst[0])
			memcpy(all->worst, r->worst, sizeof(all->worst));
	}
}

static void await_pass(const char *what)
{
	struct result all;

	do {
		usleep(20000);
		sum(&all);
		progress(what, (unsigned int)(all.done * 100 / document_count));
	} while (all.done < document_count);
}

static void run_for(const char *what, unsigned int ms)
{
	for (unsigned int t = 0; t < ms; t += 100) {
		usleep(100000);
		progress(what, (t + 100) * 100 / ms);
	}
}

static void print_latency(const char *what, const struct histogram *h)
{
	double p50 = percentile(h, 50), p99 = percentile(h, 99);

	if (h->total)
		printf("  %-46s %10llu   p50 %8.2f us   p99 %8.2f us\n", what, (unsigned long long)h->total,
		       p50 / 1000, p99 / 1000);
}

/* Kills the agent under load, starts it again, and measures until a write goes through. */
static double crash(riptide *cache)
{
	uint64_t began = now_ns();

	stop_agent(SIGKILL);
	usleep(200000);
	start_agent();
	await_agent(cache);
	return (double)(now_ns() - began) / 1e9 - 0.2;
}

static void report(const struct result *all, const struct riptide_stats *stats, double back_s,
		   const struct histogram *redis)
{
	printf("\n%u workers served %u documents, %.1f MB, through one shared cache\n\n", workers, document_count,
	       (double)document_bytes / 1e6);
	print_latency("hit, from shared memory", &all->latency[KIND_HIT]);
	print_latency("miss, asked of the agent", &all->latency[KIND_MISS]);
	print_latency("set, written through to the embedded store", &all->latency[KIND_SET]);
	print_latency("read from the embedded store by the agent", &all->latency[KIND_STORE]);
	print_latency("the same reads from Redis, one client alone", redis);
	printf("\n  requests %llu, hit rate %.2f %%, served %.1f GB\n", (unsigned long long)all->requests,
	       100.0 * (double)all->hits / (double)all->requests, (double)all->bytes / 1e9);
	printf("  memory: one shared copy of %llu documents %.1f MB; %u private ones of all would take %.1f MB\n",
	       (unsigned long long)stats->total_keys, (double)stats->memory_usage_bytes / 1e6, workers,
	       (double)document_bytes * workers / 1e6);
	printf("\nThe agent was killed with SIGKILL under load and started again:\n");
	printf("  hits meanwhile %llu (%llu marked stale), agent back after %.2f s, sets refused meanwhile %llu\n",
	       (unsigned long long)all->crash_hits, (unsigned long long)all->stale, back_s,
	       (unsigned long long)all->refused_sets);
	printf("  wrong bytes %llu, failed hot reads %llu\n", (unsigned long long)all->wrong_bytes,
	       (unsigned long long)all->failed_reads);
	if (all->worst[0])
		printf("  last complaint: %s\n", all->worst);
}

static void parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--agent") == 0 && i + 1 < argc)
			agent_program = argv[++i];
		else if (strcmp(argv[i], "--dir") == 0 && i + 1 < argc)
			folder = argv[++i];
		else if (strcmp(argv[i], "--redis") == 0 && i + 1 < argc)
			redis_socket = argv[++i];
		else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
			seconds = (unsigned int)atoi(argv[++i]);
		else if (strcmp(argv[i], "--workers") == 0 && i + 1 < argc)
			workers = (unsigned int)atoi(argv[++i]);
		else if (nftw(argv[i], add_document, 16, FTW_PHYS) < 0)
			die(argv[i]);
	}
	if (!agent_program || !folder || document_count == 0 || workers == 0 || workers > WORKERS_MAX || !seconds) {
		fputs("usage: demo --agent RIPTIDED --dir FOLDER [--redis SOCKET] [--seconds N] [--workers N] DOCUMENTS...\n",
		      stderr);
		exit(2);
	}
}

static void fork_workers(riptide *cache)
{
	for (unsigned int w = 0; w < workers; w++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0)
			_exit(work(cache, w));
	}
}

int main(int argc, char **argv)
{
	struct riptide_stats stats = {.size = sizeof(stats)};
	struct histogram redis = {.total = 0};
	struct result all;
	double back_s;
	riptide *cache;
	int failed = 0;

	parse(argc, argv);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	start_agent();
	cache = open_cache();
	fork_workers(cache);
	await_pass("loading documents, cache-aside");
	shared->phase = PHASE_SERVE;
	run_for("serving", seconds * 1000);
	(void)riptide_stats(cache, &stats);
	shared->phase = PHASE_CRASH;
	run_for("serving on, the agent will be killed", 500);
	back_s = crash(cache);
	run_for("serving on, the agent is back", 2500);
	stop_agent(SIGTERM);
	start_agent();
	await_agent(cache);
	shared->phase = PHASE_STORE;
	usleep(200000);
	await_pass("reading again with shared memory emptied");
	for (int code, w = (int)workers; w > 0 && waitpid(-1, &code, 0) > 0; w--)
		failed |= code != 0;
	stop_agent(SIGTERM);
	riptide_close(&cache);
	if (redis_socket)
		compare_with_redis(&redis);
	sum(&all);
	report(&all, &stats, back_s, &redis);
	return failed || all.wrong_bytes || all.failed_reads ? 1 : 0;
}
