/*
 * agent_process.c - starts, kills and removes a real agent.
 *
 * Everything that an agent makes has a name that begins with its folder or its instance, so that removing needs no list
 * that a killed agent might not have written.
 */
#include "tests/support/agent_process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 20000
#define STEP_MS 5
#define LOG_SHOWN_BYTES 16384
#define CONFIG_FILE "config-file="

static void pause_ms(long ms)
{
	struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&span, NULL);
}

static void program_path(char *path, size_t size)
{
	const char *build = getenv("RIPTIDE_BUILD_DIR");

	snprintf(path, size, "%s/riptided", build ? build : "build");
}

static int add_setting(struct agent_process *p, const char *name, const char *value)
{
	if (p->setting_count == AGENT_PROCESS_SETTINGS ||
	    asprintf(&p->settings[p->setting_count], "%s%s", name, value) < 0)
		return -1;
	p->setting_count++;
	return 0;
}

static int prepare(struct agent_process *p, const char *const settings[])
{
	static unsigned int started;
	int status;

	memset(p, 0, sizeof(*p));
	strcpy(p->folder, "/tmp/riptide-agent.XXXXXX");
	if (!mkdtemp(p->folder) || chmod(p->folder, 0755) < 0)
		return -1;
	snprintf(p->run_dir, sizeof(p->run_dir), "%s/run", p->folder);
	snprintf(p->state_dir, sizeof(p->state_dir), "%s/state", p->folder);
	snprintf(p->socket, sizeof(p->socket), "%s/run/control.sock", p->folder);
	snprintf(p->log_path, sizeof(p->log_path), "%s/log", p->folder);
	snprintf(p->instance, sizeof(p->instance), "test-%ld-%u", (long)getpid(), ++started);
	status = add_setting(p, "agent.backend=", "embedded") | add_setting(p, "agent.keep_on_stop=", "false") |
		 add_setting(p, "agent.run_dir=", p->run_dir) | add_setting(p, "agent.state_dir=", p->state_dir) |
		 add_setting(p, "agent.instance=", p->instance);
	for (int i = 0; settings && settings[i]; i++)
		status |= add_setting(p, settings[i], "");
	return status;
}

/* In the child. */
static void become_agent(const struct agent_process *p, pid_t parent)
{
	char program[512];
	const char *arguments[2 * AGENT_PROCESS_SETTINGS + 3];
	int count = 0, log = open(p->log_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	int nothing = open("/dev/null", O_RDONLY);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || log < 0 || nothing < 0)
		_exit(127);
	dup2(nothing, 0);
	dup2(log, 1);
	dup2(log, 2);
	program_path(program, sizeof(program));
	arguments[count++] = program;
	arguments[count++] = "--no-config"; /* a --config further on has the last word */
	for (int i = 0; i < p->setting_count; i++) {
		bool is_file = strncmp(p->settings[i], CONFIG_FILE, strlen(CONFIG_FILE)) == 0;

		arguments[count++] = is_file ? "--config" : "--set";
		arguments[count++] = p->settings[i] + (is_file ? strlen(CONFIG_FILE) : 0);
	}
	arguments[count] = NULL;
	execv(program, (char *const *)arguments);
	dprintf(2, "%s: %s\n", program, strerror(errno));
	_exit(127);
}

/* 1 if the agent has ended. */
static int has_ended(struct agent_process *p)
{
	if (p->pid == 0 || waitpid(p->pid, &p->wait_status, WNOHANG) != p->pid)
		return p->pid == 0;
	p->pid = 0;
	return 1;
}

static int await_end(struct agent_process *p)
{
	for (int waited_ms = 0; waited_ms < PATIENCE_MS; waited_ms += STEP_MS) {
		if (has_ended(p))
			return 0;
		pause_ms(STEP_MS);
	}
	return -1;
}

static int accepts(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	status = connect(fd, (struct sockaddr *)&address, sizeof(address));
	close(fd);
	return status == 0;
}

static void show_log(const struct agent_process *p, const char *what)
{
	char line[1024];
	FILE *log = fopen(p->log_path, "re");

	fprintf(stderr, "the agent %s (wait status %#x); the end of its log:\n", what, (unsigned int)p->wait_status);
	if (log && fseek(log, -LOG_SHOWN_BYTES, SEEK_END) < 0)
		rewind(log);
	while (log && fgets(line, sizeof(line), log))
		fputs(line, stderr);
	if (log)
		fclose(log);
}

/* A successor's socket is not the one that a killed agent left: nobody listens there, so accepts() says no. */
static int launch(struct agent_process *p)
{
	pid_t parent = getpid();

	p->wait_status = 0;
	fflush(NULL);
	p->pid = fork();
	if (p->pid == 0)
		become_agent(p, parent);
	if (p->pid < 0) {
		p->pid = 0;
		return -1;
	}
	for (int waited_ms = 0; waited_ms < PATIENCE_MS && !has_ended(p); waited_ms += STEP_MS) {
		if (accepts(p->socket))
			return 0;
		pause_ms(STEP_MS);
	}
	show_log(p, "did not come up");
	return -1;
}

int agent_process_start(struct agent_process *p, const char *const settings[])
{
	if (prepare(p, settings) == 0 && launch(p) == 0)
		return 0;
	(void)agent_process_stop_and_clean(p);
	return -1;
}

/* Only its tests end an agent: one that ended with an error, or by a signal that nobody sends, has crashed. */
static bool was_alive(struct agent_process *p)
{
	int signal;

	if (p->pid == 0 || !has_ended(p))
		return true;
	signal = WIFSIGNALED(p->wait_status) ? WTERMSIG(p->wait_status) : 0;
	if (p->wait_status == 0 || signal == SIGKILL || signal == SIGTERM || signal == SIGINT)
		return true;
	show_log(p, "had ended by itself");
	return false;
}

int agent_process_kill(struct agent_process *p, int signal)
{
	bool ends = signal == SIGKILL || signal == SIGTERM || signal == SIGINT;

	if (p->pid == 0 || !was_alive(p))
		return -1;
	/* The test has ended it by other means. */
	if (p->pid == 0)
		return ends ? 0 : -1;
	if (kill(p->pid, signal) < 0)
		return -1;
	return ends ? await_end(p) : 0;
}

int agent_process_restart(struct agent_process *p)
{
	if (p->pid != 0 && agent_process_kill(p, SIGKILL) < 0)
		return -1;
	return launch(p);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st;
	(void)kind;
	(void)where;
	(void)remove(path);
	return 0;
}

static void remove_objects(const char *instance)
{
	char prefix[64], name[300];
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

int agent_process_stop_and_clean(struct agent_process *p)
{
	int status = was_alive(p) ? 0 : -1;

	if (p->pid != 0) {
		kill(p->pid, SIGCONT);
		if (agent_process_kill(p, SIGTERM) < 0) {
			(void)agent_process_kill(p, SIGKILL);
			status = -1;
		} else if (!WIFEXITED(p->wait_status) || WEXITSTATUS(p->wait_status) != 0) {
			show_log(p, "did not end with status 0");
			status = -1;
		}
	}
	if (p->instance[0])
		remove_objects(p->instance);
	if (p->folder[0])
		(void)nftw(p->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	for (int i = 0; i < p->setting_count; i++)
		free(p->settings[i]);
	p->setting_count = 0;
	return status;
}

int agent_process_log_has(const struct agent_process *p, const char *text)
{
	char line[4096];
	FILE *log = fopen(p->log_path, "re");
	int found = 0;

	while (log && !found && fgets(line, sizeof(line), log))
		found = strstr(line, text) != NULL;
	if (log)
		fclose(log);
	return found;
}
