/*
 * agent_process.h - a real riptided for end-to-end tests: in a folder of its own, under an instance name of its own.
 *
 * The program is $RIPTIDE_BUILD_DIR/riptided (default: build/riptided). It gets --no-config, agent.run_dir, agent.state_dir,
 * agent.instance, agent.backend=embedded and agent.keep_on_stop=false, then the test's settings, so that these win. It dies
 * with the thread that started it. One thread uses a struct agent_process at a time; every wait is bounded.
 */
#ifndef TESTS_SUPPORT_AGENT_PROCESS_H
#define TESTS_SUPPORT_AGENT_PROCESS_H

#include <sys/types.h>

#define AGENT_PROCESS_SETTINGS 48

struct agent_process {
	pid_t pid;       /* 0: not running */
	int wait_status; /* of the last one that ended, as waitpid() tells */
	char folder[48]; /* mode 0755; run_dir, state_dir and the log are in it */
	char run_dir[64], state_dir[64], socket[96], log_path[64];
	char instance[32];
	char *settings[AGENT_PROCESS_SETTINGS]; /* "section.option=value"; of start and restart */
	int setting_count;
};

/*
 * Makes the folder, starts the agent, and returns 0 when its control socket accepts. `settings` ends with NULL, or is NULL:
 * "section.option=value", or "config-file=PATH" for what only a file can say. -1: it did not come up in time or ended; its
 * log is on stderr then, and nothing is left behind.
 */
int agent_process_start(struct agent_process *process, const char *const settings[]);

/*
 * Sends a signal. With SIGKILL, SIGTERM and SIGINT returns after the agent has ended (pid is 0 then): -1 if it did not
 * within 20 s, or had ended by itself before (its log is on stderr then). A stopped agent (SIGSTOP) takes SIGTERM only after
 * SIGCONT.
 */
int agent_process_kill(struct agent_process *process, int signal);

/* Starts it again with the same settings in the same folder; one that still runs is killed (SIGKILL) first. 0 or -1. */
int agent_process_restart(struct agent_process *process);

/*
 * Ends the agent (SIGTERM, then SIGKILL) and removes folder and shared objects. -1 if it did not end with status 0, or had
 * ended by itself; everything is removed all the same. An agent that the test had ended already is 0. To be called once per
 * start.
 */
int agent_process_stop_and_clean(struct agent_process *process);

/* 1 if the log has a line with this text, else 0. */
int agent_process_log_has(const struct agent_process *process, const char *text);

#endif
