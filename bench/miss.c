/*
 * miss.c - what a read costs that shared memory cannot serve: one client, one request at a time.
 *
 *   awake   back to back, so that the worker still polls when the next request comes; client and agent are kept on CPUs
 *           of their own, and once more wherever the scheduler puts them (on one CPU nobody can poll for the other)
 *   asleep  a pause of 2 ms before each request, so that both sides have gone to sleep; its yardstick is an echo between
 *           two processes over a unix socket with the same pauses, which pays for the same two wake-ups
 *
 * Each key is asked for once, so that none can be hot: the agent of the embedded store is restarted without its shared
 * memory; the one of Redis keeps hot copies for 1 ms (coherence.max_age_ms), and a key comes round again much later. What
 * came from shared memory nevertheless is counted and said.
 */
#include <sys/socket.h>

#include "bench/bench_row.h"
#include "bench/bench_world.h"

#define KEYS 80000u
#define SIZE 1024u
#define AWAKE 2000u
#define PAUSE_US 2000u
#define ROUNDS_MAX 32

static unsigned int rounds, asleep_count;
static riptide *handle;
static redisContext *redis;
static int echo_fd;
static uint32_t cursor, hot_reads, reads;
static char buffer[SIZE];

/* ---- one request -------------------------------------------------------------------------------------------- */

static void ask_ping(void)
{
	bench_ok(riptide_ping(handle, NULL), "riptide_ping");
}

static void ask_get(void)
{
	char key[BENCH_KEY + 1];
	struct riptide_info info;
	size_t length;

	bench_key(key, cursor++ % KEYS);
	bench_ok(riptide_get_into(handle, key, BENCH_KEY, buffer, sizeof(buffer), &length, &info),
		 "riptide_get_into");
	bench_need(length == SIZE, "a value of another length");
	reads++;
	hot_reads += (info.flags & RIPTIDE_HOT) != 0;
}

static void ask_redis(void)
{
	char key[BENCH_KEY + 1];
	redisReply *reply;

	bench_key(key, cursor++ % KEYS);
	reply = redisCommand(redis, "GET %b", key, (size_t)BENCH_KEY);
	bench_need(reply && reply->type == REDIS_REPLY_STRING && reply->len == SIZE, "hiredis GET");
	memcpy(buffer, reply->str, SIZE);
	freeReplyObject(reply);
}

static void ask_echo(void)
{
	char question[64] = "a request of the size of a slot's line";

	bench_need(write(echo_fd, question, sizeof(question)) == sizeof(question) &&
			   read(echo_fd, buffer, sizeof(question)) == sizeof(question),
		   "echo");
}

static pid_t echo_start(void)
{
	int fds[2];
	pid_t pid;

	bench_need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
	pid = bench_fork();
	if (pid == 0) {
		char bytes[64];
		ssize_t length;

		close(fds[0]);
		while ((length = read(fds[1], bytes, sizeof(bytes))) > 0) {
			if (write(fds[1], bytes, (size_t)length) != length)
				break;
		}
		_exit(0);
	}
	close(fds[1]);
	echo_fd = fds[0];
	return pid;
}

/* ---- timing ------------------------------------------------------------------------------------------------- */

struct times {
	double p50[ROUNDS_MAX], p99[ROUNDS_MAX];
};

static void time_requests(void (*ask)(void), bool asleep, struct times *times, unsigned int round)
{
	static double spans[AWAKE];
	unsigned int count = asleep ? asleep_count : AWAKE;

	/* The first ones wake everybody up. */
	for (unsigned int i = 0; !asleep && i < 50; i++)
		ask();
	for (unsigned int i = 0; i < count; i++) {
		uint64_t began;

		if (asleep)
			bench_pause_us(PAUSE_US);
		began = bench_tick();
		ask();
		spans[i] = bench_span_ns(began, bench_tick());
	}
	times->p50[round] = bench_median(spans, count);
	times->p99[round] = bench_percentile(spans, count, 99);
}

static double middle(const double *values)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, values, rounds * sizeof(*values));
	return bench_median(sorted, rounds);
}

static double ratio_of(const struct times *above, const struct times *below)
{
	double ratios[ROUNDS_MAX];

	for (unsigned int i = 0; i < rounds; i++)
		ratios[i] = above->p50[i] / below->p50[i];
	return bench_median(ratios, rounds);
}

static void show(const char *figure, const struct times *ours, const char *peer_name, const struct times *peer,
		 struct bench_bound must, const char *more)
{
	char note[300];
	struct bench_row row = {
		.figure = figure, .unit = BENCH_NS, .ours = middle(ours->p50), .must = must, .note = note};

	if (peer) {
		row.peer_name = peer_name;
		row.peer = middle(peer->p50);
		row.ratio = ratio_of(ours, peer);
	}
	snprintf(note, sizeof(note), "p99 %.1f µs%s%s", middle(ours->p99) / 1e3, more ? "; " : "", more ? more : "");
	bench_print(&row);
}

static const char *hot_share(void)
{
	static char text[80];

	snprintf(text, sizeof(text), "%.2f %% of the reads came from shared memory after all",
		 reads ? hot_reads * 100.0 / reads : 0);
	reads = hot_reads = 0;
	return text;
}

/* ---- embedded store ----------------------------------------------------------------------------------------- */

static void measure_embedded(void)
{
	static struct times ping, get, ping_free, get_free, ping_asleep, get_asleep, echo, echo_asleep;
	/* Nor may an agent that begins anew load what was hot. */
	const char *const settings[] = {"cache.enable_warming=false", NULL};
	struct bench_process *agent = bench_agent_start(settings);
	static const struct bench_bound none;
	pid_t echo_pid;

	handle = bench_open(agent);
	bench_load(handle, 0, KEYS, SIZE);
	riptide_close(&handle);
	bench_stop(agent);
	bench_agent_launch(agent, NULL);
	echo_pid = echo_start();
	handle = bench_open(agent);
	cursor = reads = hot_reads = 0;
	for (unsigned int i = 0; i < rounds; i++) {
		bench_pin(bench_timed_cpu());
		bench_pin_process(agent->pid, -1 - bench_timed_cpu());
		time_requests(ask_ping, false, &ping, i);
		time_requests(ask_get, false, &get, i);
		bench_unpin();
		bench_pin_process(agent->pid, INT_MIN);
		time_requests(ask_ping, false, &ping_free, i);
		time_requests(ask_get, false, &get_free, i);
		time_requests(ask_echo, false, &echo, i);
		time_requests(ask_echo, true, &echo_asleep, i);
		time_requests(ask_ping, true, &ping_asleep, i);
		time_requests(ask_get, true, &get_asleep, i);
	}
	bench_heading("Misses, embedded store: one client, one request at a time, p50");
	show("round trip to the agent, awake (ping)", &ping, "unix-socket echo", &echo,
	     (struct bench_bound)BENCH_OURS_AT_MOST(3000), NULL);
	show("get 1 KiB from the embedded store, awake", &get, "unix-socket echo", &echo,
	     (struct bench_bound)BENCH_OURS_AT_MOST(8000), hot_share());
	show("  ping, where the scheduler puts both", &ping_free, "unix-socket echo", &echo, none, NULL);
	show("  get, where the scheduler puts both", &get_free, "unix-socket echo", &echo, none, NULL);
	show("round trip to the agent, asleep (ping)", &ping_asleep, "unix-socket echo", &echo_asleep,
	     (struct bench_bound)BENCH_RATIO_AT_MOST(1.2), NULL);
	show("get 1 KiB from the embedded store, asleep", &get_asleep, "unix-socket echo", &echo_asleep,
	     (struct bench_bound)BENCH_RATIO_AT_MOST(1.2), NULL);
	riptide_close(&handle);
	close(echo_fd);
	waitpid(echo_pid, NULL, 0);
	bench_agents_stop();
}

/* ---- Redis -------------------------------------------------------------------------------------------------- */

static void load_redis(void)
{
	char key[BENCH_KEY + 1], value[SIZE];

	for (uint32_t i = 0; i < KEYS; i++) {
		redisReply *reply;

		bench_key(key, i);
		bench_value(value, SIZE, i);
		redisAppendCommand(redis, "SET %b %b", key, (size_t)BENCH_KEY, value, (size_t)SIZE);
		for (uint32_t n = 0; (i + 1) % 100 == 0 && n < 100; n++) {
			bench_need(redisGetReply(redis, (void **)&reply) == REDIS_OK, "hiredis SET");
			freeReplyObject(reply);
		}
	}
}

static void measure_redis(void)
{
	static struct times get, get_asleep, get_apart, direct, direct_asleep, direct_apart;
	struct bench_process *agent;
	static const struct bench_bound none;
	char url[160];
	const char *const settings[] = {"agent.backend=redis", url, "coherence.mode=ttl", "coherence.max_age_ms=1",
					NULL};

	bench_redis_start();
	snprintf(url, sizeof(url), "redis.url=unix://%s", bench_world.redis.socket);
	redis = bench_redis_connect();
	load_redis();
	agent = bench_agent_start(settings);
	handle = bench_open(agent);
	bench_load(handle, 0, KEYS, SIZE);
	cursor = 0;
	for (unsigned int i = 0; i < rounds; i++) {
		time_requests(ask_get, false, &get, i);
		time_requests(ask_redis, false, &direct, i);
		time_requests(ask_get, true, &get_asleep, i);
		time_requests(ask_redis, true, &direct_asleep, i);
		bench_pin(bench_timed_cpu());
		bench_pin_process(agent->pid, -1 - bench_timed_cpu());
		bench_pin_process(bench_world.redis.pid, -1 - bench_timed_cpu());
		time_requests(ask_get, false, &get_apart, i);
		time_requests(ask_redis, false, &direct_apart, i);
		bench_unpin();
		bench_pin_process(agent->pid, INT_MIN);
		bench_pin_process(bench_world.redis.pid, INT_MIN);
	}
	bench_heading("Misses, Redis on a unix socket: one client, one request at a time, p50");
	show("get 1 KiB from Redis, awake", &get, "hiredis GET", &direct,
	     (struct bench_bound)BENCH_RATIO_AT_MOST(1.3), hot_share());
	show("  awake, client on a CPU of its own", &get_apart, "hiredis GET", &direct_apart, none,
	     "above, a direct client and the server may share one, which spares the wake-up of the other");
	show("get 1 KiB from Redis, asleep", &get_asleep, "hiredis GET", &direct_asleep,
	     (struct bench_bound)BENCH_RATIO_AT_MOST(2), NULL);
	riptide_close(&handle);
	redisFree(redis);
	bench_agents_stop();
}

int main(void)
{
	bench_world_begin();
	rounds = bench_is_full() ? 15 : 7;
	asleep_count = bench_is_full() ? 500 : 150;
	measure_embedded();
	measure_redis();
	return 0;
}
