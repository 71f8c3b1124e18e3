/*
 * bench_world.h - a real agent and a real redis-server for one benchmark program, in a folder of its own.
 *
 * Both die with the program; bench_world_end() removes everything, and runs at exit and on SIGINT and SIGTERM too. What a
 * benchmark cannot do without ends it with status 1 and a line on stderr (bench_need()). One thread.
 */
#ifndef BENCH_WORLD_H
#define BENCH_WORLD_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <hiredis/hiredis.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench_time.h"
#include "riptide/riptide.h"

#define BENCH_AGENTS 4
#define BENCH_PATIENCE_MS 20000

struct bench_process {
	pid_t pid; /* 0: not running */
	char folder[80], socket[120], instance[32];
};

static char bench_folder[48]; /* of everything that is made on disk */

static struct {
	pid_t owner;
	struct bench_process agents[BENCH_AGENTS];
	unsigned int agent_count;
	struct bench_process redis;
} bench_world;

static inline bool bench_is_full(void)
{
	const char *mode = getenv("RIPTIDE_BENCH_MODE");

	return mode && strcmp(mode, "full") == 0;
}

/* ---- the end ------------------------------------------------------------------------------------------------ */

static inline int bench_remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st;
	(void)kind;
	(void)where;
	(void)remove(path);
	return 0;
}

/* What a killed agent leaves in shared memory. */
static inline void bench_remove_objects(const char *instance)
{
	char prefix[48], name[300];
	DIR *folder = opendir("/dev/shm");

	snprintf(prefix, sizeof(prefix), "riptide.%s.", instance);
	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		snprintf(name, sizeof(name), "/%s", entry->d_name);
		shm_unlink(name);
	}
	if (folder)
		closedir(folder);
}

static inline void bench_stop(struct bench_process *process)
{
	if (process->pid <= 0)
		return;
	kill(process->pid, SIGTERM);
	for (int ms = 0; ms < BENCH_PATIENCE_MS && waitpid(process->pid, NULL, WNOHANG) == 0; ms += 5) {
		if (ms == BENCH_PATIENCE_MS / 2)
			kill(process->pid, SIGKILL);
		bench_pause_us(5000);
	}
	process->pid = 0;
}

static inline void bench_world_end(void)
{
	if (bench_world.owner != getpid())
		return;
	for (unsigned int i = 0; i < bench_world.agent_count; i++) {
		bench_stop(&bench_world.agents[i]);
		bench_remove_objects(bench_world.agents[i].instance);
	}
	bench_world.agent_count = 0;
	bench_stop(&bench_world.redis);
	if (bench_folder[0])
		(void)nftw(bench_folder, bench_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	bench_folder[0] = '\0';
}

static inline void bench_on_signal(int number)
{
	bench_world_end();
	_exit(128 + number);
}

/* The last lines of what the agents said, and whether they still run. */
static inline void bench_show_logs(void)
{
	for (unsigned int i = 0; i < bench_world.agent_count; i++) {
		char path[100], text[2048];
		int log, length = 0;

		snprintf(path, sizeof(path), "%s/agent%u/log", bench_folder, i);
		log = open(path, O_RDONLY | O_CLOEXEC);
		if (log >= 0 && lseek(log, -(off_t)sizeof(text), SEEK_END) < 0)
			(void)lseek(log, 0, SEEK_SET);
		if (log >= 0)
			length = (int)read(log, text, sizeof(text));
		fprintf(stderr, "bench: agent %u %s; its log:\n%.*s", i,
			kill(bench_world.agents[i].pid, 0) == 0 ? "was started" : "is gone", length > 0 ? length : 0,
			text);
		if (log >= 0)
			close(log);
	}
}

static inline void bench_die(const char *what, const char *why)
{
	fprintf(stderr, "bench: %s: %s\n", what, why);
	if (bench_world.owner != getpid())
		_exit(1);
	bench_show_logs();
	exit(1);
}

/* Ends the program if `condition` does not hold. */
static inline void bench_need(bool condition, const char *what)
{
	if (!condition)
		bench_die(what, errno ? strerror(errno) : "failed");
}

/* The same for a call of the library. */
static inline void bench_ok(int status, const char *what)
{
	if (status < 0)
		bench_die(what, riptide_strerror(status));
}

static inline void bench_world_begin(void)
{
	const char *base = getenv("TMPDIR");

	bench_world.owner = getpid();
	snprintf(bench_folder, sizeof(bench_folder), "%.20s/riptide-bench.XXXXXX", base ? base : "/tmp");
	bench_need(mkdtemp(bench_folder) != NULL, bench_folder);
	atexit(bench_world_end);
	signal(SIGINT, bench_on_signal);
	signal(SIGTERM, bench_on_signal);
	signal(SIGPIPE, SIG_IGN);
	bench_clock_init();
}

/* ---- processes ---------------------------------------------------------------------------------------------- */

/* A copy of this process that dies with it. 0 in the child. */
static inline pid_t bench_fork(void)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	bench_need(pid >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGINT, SIG_DFL);
		signal(SIGTERM, SIG_DFL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

/* Keeps a thread (0: the calling one, and its children to come) on one CPU, or with -1 - n off CPU n (INT_MIN: anywhere). */
static inline void bench_pin_thread(pid_t thread, int cpu)
{
	int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int i = 0; i < cpus; i++) {
		if (cpu < 0 ? i != -1 - cpu || cpus == 1 : i == cpu)
			CPU_SET(i, &set);
	}
	(void)sched_setaffinity(thread, sizeof(set), &set);
}

static inline void bench_pin(int cpu)
{
	bench_pin_thread(0, cpu);
}

/* The same for all threads of another process. */
static inline void bench_pin_process(pid_t pid, int cpu)
{
	char path[40];
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	folder = opendir(path);
	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		if (entry->d_name[0] != '.')
			bench_pin_thread((pid_t)atoi(entry->d_name), cpu);
	}
	if (folder)
		closedir(folder);
}

static inline void bench_unpin(void)
{
	bench_pin(INT_MIN);
}

/* The CPU for what is timed; everything else is kept off it. */
static inline int bench_timed_cpu(void)
{
	return (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
}

static inline void bench_become(const struct bench_process *process, const char *const arguments[])
{
	char path[140];
	int log, nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

	snprintf(path, sizeof(path), "%s/log", process->folder);
	log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	dup2(nothing, 0);
	dup2(log, 1);
	dup2(log, 2);
	execvp(arguments[0], (char *const *)arguments);
	_exit(127);
}

/* The sum of two lines of /proc/PID/status, in bytes: private and file pages, without shared memory. */
static inline double bench_resident_bytes(pid_t pid, const char *first, const char *second)
{
	char path[40], line[200];
	double bytes = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	bench_need(file != NULL, path);
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, first, strlen(first)) == 0 || strncmp(line, second, strlen(second)) == 0)
			bytes += strtod(strchr(line, ':') + 1, NULL) * 1024;
	}
	fclose(file);
	return bytes;
}

/* ---- redis-server ------------------------------------------------------------------------------------------- */

static inline redisContext *bench_redis_connect(void)
{
	redisContext *context = redisConnectUnix(bench_world.redis.socket);

	bench_need(context && !context->err, "connecting to redis-server");
	return context;
}

static inline bool bench_redis_answers(void)
{
	redisContext *context = redisConnectUnix(bench_world.redis.socket);
	redisReply *reply = context && !context->err ? redisCommand(context, "PING") : NULL;
	bool answers = reply && reply->type == REDIS_REPLY_STATUS;

	if (reply)
		freeReplyObject(reply);
	if (context)
		redisFree(context);
	return answers;
}

/* A private server on a unix socket that saves nothing. */
static inline void bench_redis_start(void)
{
	struct bench_process *p = &bench_world.redis;
	const char *const arguments[] = {"redis-server", "--port",  "0",     "--save",  "",  "--appendonly", "no",
					 "--unixsocket", p->socket, "--dir", p->folder, NULL};

	snprintf(p->folder, sizeof(p->folder), "%s/redis", bench_folder);
	snprintf(p->socket, sizeof(p->socket), "%s/redis/socket", bench_folder);
	bench_need(mkdir(p->folder, 0700) == 0, p->folder);
	p->pid = bench_fork();
	if (p->pid == 0)
		bench_become(p, arguments);
	for (int ms = 0; !bench_redis_answers(); ms += 5) {
		bench_need(ms < BENCH_PATIENCE_MS && waitpid(p->pid, NULL, WNOHANG) == 0, "starting redis-server");
		bench_pause_us(5000);
	}
}

/* ---- agents ------------------------------------------------------------------------------------------------- */

static inline riptide *bench_open(const struct bench_process *agent)
{
	struct riptide_options options = {.size = sizeof(options), .socket = agent->socket, .timeout_ms = 20000};
	riptide *handle = NULL;
	char why[300] = "";
	int status = riptide_open(&options, &handle);

	if (status < 0) {
		riptide_last_error(handle, why, sizeof(why));
		fprintf(stderr, "bench: %s\n", why);
	}
	bench_ok(status, "riptide_open");
	return handle;
}

#define BENCH_SETTINGS 16

/* `settings` ends with NULL: "section.option=value". */
static inline void bench_agent_launch(struct bench_process *p, const char *const settings[])
{
	char program[400], run[120], state[120], instance[60];
	const char *build = getenv("RIPTIDE_BUILD_DIR");
	const char *arguments[2 * BENCH_SETTINGS + 12] = {
		program, "--no-config", "--set",  run,     "--set",
		state,   "--set",       instance, "--set", "agent.keep_on_stop=false"};
	int count = 10;

	snprintf(program, sizeof(program), "%s/riptided", build ? build : "build");
	snprintf(run, sizeof(run), "agent.run_dir=%s/run", p->folder);
	snprintf(state, sizeof(state), "agent.state_dir=%s/state", p->folder);
	snprintf(instance, sizeof(instance), "agent.instance=%s", p->instance);
	for (int i = 0; settings && settings[i] && i < BENCH_SETTINGS; i++) {
		arguments[count++] = "--set";
		arguments[count++] = settings[i];
	}
	p->pid = bench_fork();
	if (p->pid == 0)
		bench_become(p, arguments);
	for (int ms = 0;; ms += 5) {
		struct riptide_options options = {.size = sizeof(options), .socket = p->socket};
		riptide *handle = NULL;
		int status = riptide_open(&options, &handle);

		riptide_close(&handle);
		if (status == RIPTIDE_OK)
			break;
		errno = 0;
		bench_need(ms < BENCH_PATIENCE_MS && waitpid(p->pid, NULL, WNOHANG) == 0, "starting riptided");
		bench_pause_us(5000);
	}
}

static inline struct bench_process *bench_agent_start(const char *const settings[])
{
	struct bench_process *p = &bench_world.agents[bench_world.agent_count];

	bench_need(bench_world.agent_count < BENCH_AGENTS, "too many agents");
	memset(p, 0, sizeof(*p));
	snprintf(p->folder, sizeof(p->folder), "%s/agent%u", bench_folder, bench_world.agent_count);
	snprintf(p->instance, sizeof(p->instance), "bench-%d-%u", (int)getpid(), bench_world.agent_count);
	snprintf(p->socket, sizeof(p->socket), "%s/agent%u/run/control.sock", bench_folder, bench_world.agent_count);
	bench_need(mkdir(p->folder, 0755) == 0, p->folder);
	bench_world.agent_count++;
	bench_agent_launch(p, settings);
	return p;
}

/* Stops all agents and forgets them; their data goes with the folder at the end. */
static inline void bench_agents_stop(void)
{
	for (unsigned int i = 0; i < bench_world.agent_count; i++) {
		bench_stop(&bench_world.agents[i]);
		bench_remove_objects(bench_world.agents[i].instance);
		(void)nftw(bench_world.agents[i].folder, bench_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	}
	bench_world.agent_count = 0;
}

/* Writes keys first … first + count - 1 in batches. */
static inline void bench_load(riptide *handle, uint32_t first, uint32_t count, size_t length)
{
	enum { BATCH = 256 };
	struct riptide_item items[BATCH];
	char keys[BATCH][BENCH_KEY + 1], *values = malloc(BATCH * length);

	bench_need(values != NULL, "memory");
	for (uint32_t done = 0; done < count; done += BATCH) {
		uint32_t some = count - done < BATCH ? count - done : BATCH;

		memset(items, 0, sizeof(items));
		for (uint32_t i = 0; i < some; i++) {
			bench_key(keys[i], first + done + i);
			bench_value(values + i * length, length, first + done + i);
			items[i].key = keys[i];
			items[i].key_length = BENCH_KEY;
			items[i].value = values + i * length;
			items[i].value_length = length;
		}
		bench_ok(riptide_set_batch(handle, items, some), "riptide_set_batch");
		for (uint32_t i = 0; i < some; i++)
			bench_ok(items[i].status, "setting an item");
	}
	free(values);
}

#endif
