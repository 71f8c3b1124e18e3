/* main.c - riptided: the command line, then the agent. */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/config.h"

#define SETTINGS_MAX 256u

enum mode {
	MODE_RUN,
	MODE_TEST,
	MODE_PRINT,
	MODE_FORGET,
};

struct command {
	enum mode mode;
	struct config_sources sources;
	const char *settings[SETTINGS_MAX];
};

static const char usage[] =
	"Usage: riptided [options]\n"
	"  -c, --config FILE           configuration (default " CONFIG_FILE_DEFAULT
	", then conf.d/*.conf beside it)\n"
	"      --no-config             read no file\n"
	"      --set SECTION.OPT=VALUE override one option; may be repeated\n"
	"  -t, --test                  check the configuration and exit\n"
	"      --print-config          show every value in force and where it came from, and exit\n"
	"      --forget                remove the shared memory that a stopped agent left for its successor, and exit\n"
	"  -V, --version\n"
	"  -h, --help\n"
	"Signals: SIGTERM, SIGINT drain and stop; SIGHUP reloads the configuration.\n"
	"Exit status: 0 stopped as told · 1 it could not start or lost something · 2 bad command line or configuration\n";

enum long_option {
	OPTION_SET = 256,
	OPTION_PRINT,
	OPTION_FORGET,
	OPTION_NO_CONFIG,
};

static const struct option long_options[] = {
	{"config", required_argument, NULL, 'c'},
	{"no-config", no_argument, NULL, OPTION_NO_CONFIG},
	{"set", required_argument, NULL, OPTION_SET},
	{"test", no_argument, NULL, 't'},
	{"print-config", no_argument, NULL, OPTION_PRINT},
	{"forget", no_argument, NULL, OPTION_FORGET},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

/* Returns -1 to go on, or the exit status. */
static int take_option(struct command *command, int option)
{
	switch (option) {
	case 'c':
		command->sources.file = optarg;
		command->sources.file_may_be_absent = false;
		return -1;
	case OPTION_NO_CONFIG:
		command->sources.file = NULL;
		return -1;
	case OPTION_SET:
		if (command->sources.settings_count == SETTINGS_MAX) {
			fprintf(stderr, "riptided: more than %u --set options; use a file\n", SETTINGS_MAX);
			return 2;
		}
		command->settings[command->sources.settings_count++] = optarg;
		return -1;
	case 't':
		command->mode = MODE_TEST;
		return -1;
	case OPTION_PRINT:
		command->mode = MODE_PRINT;
		return -1;
	case OPTION_FORGET:
		command->mode = MODE_FORGET;
		return -1;
	case 'V':
		puts("riptided " RIPTIDE_VERSION);
		return 0;
	case 'h':
		fputs(usage, stdout);
		return 0;
	default:
		fputs("riptided: see --help\n", stderr);
		return 2;
	}
}

static int parse_command(int argc, char **argv, struct command *command)
{
	int option, status;

	command->sources = (struct config_sources){
		.file = CONFIG_FILE_DEFAULT,
		.file_may_be_absent = true,
		.environment = (const char *const *)environ,
		.settings = command->settings,
	};
	while ((option = getopt_long(argc, argv, "c:tVh", long_options, NULL)) != -1) {
		status = take_option(command, option);
		if (status >= 0)
			return status;
	}
	if (optind < argc) {
		fprintf(stderr, "riptided: unexpected argument \"%s\"; see --help\n", argv[optind]);
		return 2;
	}
	return -1;
}

static int run(const struct command *command, struct config *config)
{
	char error[CONFIG_ERROR_MAX];
	const struct rlimit no_core = {0, 0};
	struct agent *agent;

	log_setup(config->log.format, config->log.level);
	/* Large values come from mmap and go back to the system, whatever was freed before. */
	(void)mallopt(M_MMAP_THRESHOLD, 256 << 10);
	/* Values of the cache and secrets of the configuration do not belong into a core dump. */
	(void)setrlimit(RLIMIT_CORE, &no_core);
	if (agent_start(&command->sources, config, &agent, error, sizeof(error)) < 0) {
		log_error("agent", "%s", error);
		return 1;
	}
	return agent_run(&agent);
}

static int run_mode(const struct command *command, struct config *config)
{
	char error[CONFIG_ERROR_MAX];
	int status = 0;

	switch (command->mode) {
	case MODE_RUN:
		return run(command, config);
	case MODE_TEST:
		puts("configuration ok");
		break;
	case MODE_PRINT:
		status = config_print(config, stdout) ? 0 : 1;
		break;
	case MODE_FORGET:
		if (agent_forget(config, error, sizeof(error)) < 0) {
			fprintf(stderr, "riptided: %s\n", error);
			status = 1;
		}
		break;
	}
	config_destroy(&config);
	return status;
}

int main(int argc, char **argv)
{
	struct command command = {.mode = MODE_RUN};
	char error[CONFIG_ERROR_MAX];
	struct config *config;
	int status = parse_command(argc, argv, &command);

	if (status >= 0)
		return status;
	if (config_load(&command.sources, &config, error, sizeof(error)) < 0) {
		fprintf(stderr, "riptided: %s\n", error);
		return 2;
	}
	return run_mode(&command, config);
}
