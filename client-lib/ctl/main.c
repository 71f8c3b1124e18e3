/* main.c - riptidectl: the operator's tool. Finds the command, runs it once or again and again. */
#include "client-lib/ctl/ctl.h"

#include <string.h>
#include <time.h>

#define MANY SIZE_MAX

struct command {
	const char *name;
	int (*run)(struct ctl *ctl);
	size_t least, most; /* arguments */
	unsigned int options;
	const char *synopsis, *about;
};

static const struct command commands[] = {
	{"ping", ctl_ping, 0, 0, CTL_COUNT | CTL_WATCH | CTL_FRAMES, "ping [-c N]",
	 "Round trips to the agent through shared memory: min, p50, max.\n"
	 "  -c N            how many, 1 to 100000 (default 10)\n"},
	{"status", ctl_status, 0, 0, CTL_WATCH | CTL_FRAMES, "status",
	 "What the agent says about itself: backend, coherence, memory, workers, tenants.\n"},
	{"get", ctl_get, 1, 1, CTL_RAW | CTL_HEX | CTL_META, "get KEY [--raw|--hex] [--meta]",
	 "The value to stdout: as it is, but escaped and on a line of its own on a terminal. Exit status 1: no such key.\n"
	 "  --raw           as it is on a terminal too\n"
	 "  --hex           as hexadecimal digits\n"
	 "  --meta          version, age, time to live, reads and metadata to stderr as well\n"},
	{"set", ctl_set, 1, 2,
	 CTL_FILE | CTL_TTL | CTL_CONTENT_TYPE | CTL_TAG | CTL_IF_ABSENT | CTL_IF_PRESENT | CTL_IF_VERSION |
		 CTL_BEHIND,
	 "set KEY [VALUE | - | --file FILE] [--ttl TIME] [--content-type TYPE] [--tag TAG]... "
	 "[--if-absent | --if-present | --if-version N] [--behind]",
	 "Stores a value; without VALUE, or with -, it is read from stdin.\n"
	 "  --file FILE     the value is what FILE holds\n"
	 "  --ttl TIME      90, 90s, 250ms, 5m, 24h, 7d or never (default: the tenant's)\n"
	 "  --content-type  stored with the value\n"
	 "  --tag TAG       stored with the value; up to 16 times\n"
	 "  --if-absent     only if the key is not there. Exit status 1: the condition does not hold, nothing was changed\n"
	 "  --if-present    only if it is\n"
	 "  --if-version N  only if it has version N (0: if it is not there)\n"
	 "  --behind        returns when the agent's journal has it; see flush\n"},
	{"del", ctl_del, 0, MANY, CTL_PREFIX | CTL_TAG, "del KEY... | --prefix PREFIX | --tag TAG...",
	 "Deletes. Exit status 1: at least one of the keys was not there.\n"
	 "  --prefix PREFIX every key that begins with PREFIX; walks the store\n"
	 "  --tag TAG       every entry that was stored with TAG; up to 16 times\n"},
	{"incr", ctl_incr, 1, 2, CTL_TTL, "incr KEY [N] [--ttl TIME]",
	 "Adds N (default 1; below zero: riptidectl incr -- KEY -1) to a decimal number and prints the sum. Exit status 1:\n"
	 "the value is no number, or the sum does not fit.\n"
	 "  --ttl TIME      of a key that is new\n"},
	{"ttl", ctl_ttl, 1, 1, 0, "ttl KEY",
	 "The time to live that is left, in seconds, or never. Exit status 1: no such key.\n"},
	{"touch", ctl_touch, 2, 2, 0, "touch KEY SECONDS",
	 "Gives a key another time to live, from now: 90, 90s, 250ms, 5m, 24h, 7d or never. Exit status 1: no such key.\n"},
	{"clear", ctl_clear, 0, 0, CTL_YES, "clear [--yes]",
	 "Removes every entry of the tenant, on every host. Asks first.\n"
	 "  --yes           does not ask; needed where stdin is no terminal\n"},
	{"flush", ctl_flush, 0, 0, 0, "flush", "Waits until everything that was written behind is in the store.\n"},
	{"warm", ctl_warm, 0, MANY, CTL_FILE | CTL_PREFIX, "warm KEY... | --file FILE | --prefix PREFIX",
	 "Brings entries into shared memory. Exit status 1: at least one of the keys was not there; 6: at least one failed.\n"
	 "  --file FILE     keys from FILE, one a line; - is stdin\n"
	 "  --prefix PREFIX every key that begins with PREFIX\n"},
	{"stats", ctl_stats, 0, 0, CTL_WATCH | CTL_FRAMES | CTL_ALL, "stats [--all]",
	 "The tenant's figures on this host.\n"
	 "  --all           of all tenants, and their total\n"},
	{"metrics", ctl_metrics, 0, 0, 0, "metrics",
	 "Everything that is counted, in the text format of Prometheus.\n"},
	{"evictions", ctl_evictions, 0, 1, CTL_WATCH | CTL_FRAMES, "evictions [reset]",
	 "What left shared memory, and why: counts, bytes, the last ten, per tenant.\n"
	 "  reset           counts anew. For the agent's user and root\n"},
	{"clients", ctl_clients, 0, 0, CTL_WATCH | CTL_FRAMES, "clients", "Attached processes, busiest first.\n"},
	{"top", ctl_top, 0, 0, CTL_WATCH | CTL_FRAMES | CTL_SORT, "top [-n COUNT] [--sort h|m|s|n]",
	 "Live figures, read from shared memory: works while the agent hangs. For the agent's user, its group, and root.\n"
	 "Keys: h m s n sort by hits, misses, sets, name; q quits.\n"
	 "  -n COUNT        so many frames as plain text, one below the other (also when stdout is no terminal)\n"
	 "  --sort KEY      h, m, s or n (default h)\n"
	 "  --watch=SECONDS time between two frames (default 1)\n"},
	{"dict", ctl_dict, 1, 2, CTL_CONTENT_TYPE, "dict list | train [--type TYPE] | show ID | drop ID",
	 "The tenant's zstd dictionaries. For the agent's user and root. Exit status 1: refused, stderr says what is lacking.\n"
	 "  list            what there is, and how many samples to train from\n"
	 "  train           makes one of the values sampled; the next writes of that content type use it\n"
	 "  --type TYPE     content type to train for; \"\": values without one. May be left out if there is only one\n"
	 "  show ID         one of them\n"
	 "  drop ID         nothing more is written with it; kept in the backend for ever, since entries may need it\n"},
	{"tenant", ctl_tenant, 1, 3, CTL_FILE | CTL_YES,
	 "tenant list | create [ID] [JSON] | get ID | update ID JSON | suspend ID [REASON] | resume ID | delete ID --yes",
	 "Tenants of the backend, the same for all hosts. For the agent's user and root. A document is an argument or a file.\n"
	 "  list            all, those of this agent's configuration first\n"
	 "  create          '{\"users\": [\"www-data\"], \"plan\": \"basic\", \"quotas\": {\"memory_bytes\": 104857600}}'\n"
	 "  get, update     its record; update changes the members that are given\n"
	 "  suspend, disable, resume\n"
	 "                  nobody reads or writes anything of it, at once, on every host; and again\n"
	 "  delete          with everything that was stored for it\n"
	 "  access          what its rules say: access ID '{\"action\": \"read\", \"resource\": \"doc:1\", \"uid\": 33}'\n"
	 "  keys            of a tenant that encrypts; rotate-key ID: a new one, and what older ones sealed is sealed anew;\n"
	 "                  rewrap ID: its keys are wrapped by the current master key\n"
	 "  tokens          its tokens; token-create ID ['{\"role\": \"read_only\", \"label\": \"web\", \"ttl_seconds\": 86400}'],\n"
	 "                  token-rotate ID TOKEN, token-revoke ID TOKEN, where TOKEN is the id that the list shows\n"
	 "  --file FILE     the document, - for stdin\n"
	 "  --yes           for delete\n"},
	{"audit", ctl_audit, 0, 0, CTL_TAIL | CTL_WATCH | CTL_FRAMES, "audit [--tail N]",
	 "The last lines of the audit log: who attached, who was refused, what operators did. For the agent's user and root.\n"
	 "  --tail N        how many, 1 to 1000 (default 20)\n"},
	{"reload", ctl_reload, 0, 0, 0, "reload",
	 "The agent reads its configuration again. For the agent's user and root. Exit status 1: refused, nothing changed.\n"},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const char usage_options[] =
	"Options:\n"
	"  --socket PATH      control socket (default $RIPTIDE_SOCKET, else /run/riptide/control.sock)\n"
	"  --tenant NAME      (default $RIPTIDE_TENANT, else default)\n"
	"  --token-file FILE  the tenant's token, if it asks for one\n"
	"  --timeout-ms N     deadline of every call (default 5000)\n"
	"  --json             JSON on stdout, one document per line\n"
	"  --watch[=SECONDS]  repeat ping, status, stats, clients (default 2); -n COUNT: so many times\n"
	"  --no-color         no colours (also $NO_COLOR)\n"
	"  --                 what follows is no option: riptidectl get -- -key\n"
	"  --help  --version\n"
	"Exit status: 0 ok - 1 miss or negative answer - 2 usage - 3 no agent - 4 denied - 5 timed out - 6 other error\n";

static int help(void)
{
	fputs("Usage: riptidectl [options] COMMAND\n", stdout);
	for (size_t i = 0; i < COMMANDS; i++)
		printf("  %s\n", commands[i].synopsis);
	fputs("  help COMMAND\n", stdout);
	fputs(usage_options, stdout);
	return CTL_OK;
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static int help_command(const char *name)
{
	const struct command *command = find_command(name);

	if (!command)
		return ctl_fail(CTL_USAGE, "there is no command \"%s\"; see riptidectl --help", name);
	printf("Usage: riptidectl [options] %s\n%s", command->synopsis, command->about);
	return CTL_OK;
}

/* A caller who says nothing of the number of repetitions ends them by Ctrl-C. */
static int run_again_and_again(struct ctl *ctl, const struct command *command)
{
	struct timespec pause = {.tv_sec = ctl->watch_ms / 1000, .tv_nsec = ctl->watch_ms % 1000 * 1000000l};
	int status = CTL_OK;

	for (uint32_t i = 0; ctl->frames == 0 || i < ctl->frames; i++) {
		if (i > 0)
			nanosleep(&pause, NULL);
		if (ctl->to_terminal && !ctl->json)
			fputs("\033[H\033[2J", stdout);
		status = command->run(ctl);
		if (fflush(stdout) != 0)
			break;
	}
	return status;
}

static int run_command(struct ctl *ctl, const struct command *command)
{
	const char *untaken = ctl_first_untaken(ctl, command->options);

	if (untaken)
		return ctl_fail(CTL_USAGE, "%s does not take %s; see riptidectl help %s", command->name, untaken,
				command->name);
	if (ctl->argument_count < command->least || ctl->argument_count > command->most)
		return ctl_fail(CTL_USAGE, "usage: riptidectl %s", command->synopsis);
	if (command->run == ctl_top || !(ctl->given & (CTL_WATCH | CTL_FRAMES)))
		return command->run(ctl);
	return run_again_and_again(ctl, command);
}

static int dispatch(struct ctl *ctl, int mode)
{
	const char *name = ctl->argument_count > 0 ? ctl->arguments[0] : NULL;
	const struct command *command;

	if (mode == 'V') {
		puts("riptidectl " RIPTIDE_VERSION);
		return CTL_OK;
	}
	if (name && strcmp(name, "help") == 0)
		return ctl->argument_count > 1 ? help_command(ctl->arguments[1]) : help();
	if (mode == 'h')
		return name ? help_command(name) : help();
	if (!name)
		return ctl_fail(CTL_USAGE, "no command; see riptidectl --help");
	command = find_command(name);
	if (!command)
		return ctl_fail(CTL_USAGE, "there is no command \"%s\"; see riptidectl --help", name);
	ctl->arguments++;
	ctl->argument_count--;
	return run_command(ctl, command);
}

int main(int argc, char **argv)
{
	struct ctl ctl;
	int mode, status = ctl_parse(&ctl, argc, argv, &mode);

	if (status == CTL_OK)
		status = dispatch(&ctl, mode);
	if (fflush(stdout) != 0 || ferror(stdout))
		return ctl_fail(CTL_ERROR, "stdout cannot be written; is the disk full?");
	return status;
}
