/* options.c - the command line: one table of options for all commands, each of which says which ones it takes. */
#include "client-lib/ctl/ctl.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_MS 5000u
#define TIMEOUT_MS_MAX 3600000u
#define PINGS 10u
#define PINGS_MAX 100000u
#define TAIL 20u
#define TAIL_MAX 1000u
#define WATCH_MS 2000u
#define WATCH_MS_LEAST 100u
#define WATCH_MS_MAX 86400000u
#define TTL_MS_MAX 315360000000u /* ten years */

enum {
	OPTION_SOCKET = 256,
	OPTION_TENANT,
	OPTION_TOKEN_FILE,
	OPTION_TIMEOUT,
	OPTION_JSON,
	OPTION_NO_COLOR,
	OPTION_FIRST_OF_COMMANDS, /* + bit number of enum ctl_option */
};

/* Of the bits of enum ctl_option, in their order. */
static const char *const names[] = {
	"--raw",        "--hex",        "--meta",   "--file", "--ttl",    "--content-type", "--tag",
	"-c",           "-n",           "--watch",  "--sort", "--prefix", "--yes",          "--if-absent",
	"--if-present", "--if-version", "--behind", "--tail", "--all",
};

#define OPTION(option) (OPTION_FIRST_OF_COMMANDS + __builtin_ctz(option))

static const struct option long_options[] = {
	{"socket", required_argument, NULL, OPTION_SOCKET},
	{"tenant", required_argument, NULL, OPTION_TENANT},
	{"token-file", required_argument, NULL, OPTION_TOKEN_FILE},
	{"timeout-ms", required_argument, NULL, OPTION_TIMEOUT},
	{"json", no_argument, NULL, OPTION_JSON},
	{"no-color", no_argument, NULL, OPTION_NO_COLOR},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{"raw", no_argument, NULL, OPTION(CTL_RAW)},
	{"hex", no_argument, NULL, OPTION(CTL_HEX)},
	{"meta", no_argument, NULL, OPTION(CTL_META)},
	{"file", required_argument, NULL, OPTION(CTL_FILE)},
	{"ttl", required_argument, NULL, OPTION(CTL_TTL)},
	{"content-type", required_argument, NULL, OPTION(CTL_CONTENT_TYPE)},
	{"type", required_argument, NULL, OPTION(CTL_CONTENT_TYPE)},
	{"tag", required_argument, NULL, OPTION(CTL_TAG)},
	{"watch", optional_argument, NULL, OPTION(CTL_WATCH)},
	{"sort", required_argument, NULL, OPTION(CTL_SORT)},
	{"prefix", required_argument, NULL, OPTION(CTL_PREFIX)},
	{"yes", no_argument, NULL, OPTION(CTL_YES)},
	{"if-absent", no_argument, NULL, OPTION(CTL_IF_ABSENT)},
	{"if-present", no_argument, NULL, OPTION(CTL_IF_PRESENT)},
	{"if-version", required_argument, NULL, OPTION(CTL_IF_VERSION)},
	{"behind", no_argument, NULL, OPTION(CTL_BEHIND)},
	{"tail", required_argument, NULL, OPTION(CTL_TAIL)},
	{"all", no_argument, NULL, OPTION(CTL_ALL)},
	{NULL, 0, NULL, 0},
};

/* Digits only; *ret_rest is what follows them. False: no digit, or too large. */
static bool parse_digits(const char *text, uint64_t *ret, const char **ret_rest)
{
	uint64_t value = 0;
	const char *at = text;

	for (; *at >= '0' && *at <= '9'; at++) {
		if (value > (UINT64_MAX - 9) / 10)
			return false;
		value = value * 10 + (uint64_t)(*at - '0');
	}
	*ret = value;
	*ret_rest = at;
	return at > text;
}

static int take_number(const char *name, const char *text, uint32_t least, uint32_t most, uint32_t *ret)
{
	const char *rest;
	uint64_t value;

	if (!parse_digits(text, &value, &rest) || *rest || value < least || value > most)
		return ctl_fail(CTL_USAGE, "%s takes a number from %u to %u, not \"%s\"", name, least, most, text);
	*ret = (uint32_t)value;
	return CTL_OK;
}

int ctl_time(const char *name, const char *text, uint64_t *ret_ms)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
	const char *rest;
	uint64_t value;

	if (strcmp(text, "never") == 0) {
		*ret_ms = RIPTIDE_NEVER;
		return CTL_OK;
	}
	if (parse_digits(text, &value, &rest) && value > 0)
		for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
			if (strcmp(rest, units[i].unit) == 0 && value <= TTL_MS_MAX / units[i].ms) {
				*ret_ms = value * units[i].ms;
				return CTL_OK;
			}
	return ctl_fail(CTL_USAGE,
			"%s takes a time such as 90s, 250ms, 5m, 24h, 7d (up to 3650d) or never, not \"%s\"", name,
			text);
}

/* Seconds with up to three decimals. */
static int take_watch(const char *text, uint32_t *ret_ms)
{
	char *end;
	double seconds;

	if (!text) {
		*ret_ms = WATCH_MS;
		return CTL_OK;
	}
	errno = 0;
	seconds = strtod(text, &end);
	if (end == text || *end || errno || !(seconds * 1000 >= WATCH_MS_LEAST && seconds * 1000 <= WATCH_MS_MAX))
		return ctl_fail(CTL_USAGE, "--watch takes seconds from 0.1 to 86400, not \"%s\"", text);
	*ret_ms = (uint32_t)(seconds * 1000 + 0.5);
	return CTL_OK;
}

static int take_sort(struct ctl *ctl, const char *text)
{
	if (strlen(text) != 1 || !strchr("hmsn", text[0]))
		return ctl_fail(CTL_USAGE, "--sort takes h (hits), m (misses), s (sets) or n (name), not \"%s\"",
				text);
	ctl->sort = text[0];
	return CTL_OK;
}

static int take_version(const char *text, uint64_t *ret)
{
	const char *rest;

	if (!parse_digits(text, ret, &rest) || *rest)
		return ctl_fail(CTL_USAGE,
				"--if-version takes a version as `get --meta` shows it, or 0 for none, not \"%s\"",
				text);
	return CTL_OK;
}

static int take_command_option(struct ctl *ctl, unsigned int bit)
{
	ctl->given |= bit;
	switch (bit) {
	case CTL_FILE:
		ctl->file = optarg;
		return CTL_OK;
	case CTL_TTL:
		return ctl_time("--ttl", optarg, &ctl->ttl_ms);
	case CTL_CONTENT_TYPE:
		ctl->content_type = optarg;
		return CTL_OK;
	case CTL_TAG:
		if (ctl->tag_count == CTL_TAGS_MAX)
			return ctl_fail(CTL_USAGE, "an entry has at most %u tags", CTL_TAGS_MAX);
		ctl->tags[ctl->tag_count++] = optarg;
		return CTL_OK;
	case CTL_COUNT:
		return take_number("-c", optarg, 1, PINGS_MAX, &ctl->count);
	case CTL_FRAMES:
		return take_number("-n", optarg, 1, CTL_FRAMES_MAX, &ctl->frames);
	case CTL_TAIL:
		return take_number("--tail", optarg, 1, TAIL_MAX, &ctl->tail);
	case CTL_WATCH:
		return take_watch(optarg, &ctl->watch_ms);
	case CTL_SORT:
		return take_sort(ctl, optarg);
	case CTL_PREFIX:
		ctl->prefix = optarg;
		return CTL_OK;
	case CTL_IF_VERSION:
		return take_version(optarg, &ctl->if_version);
	default:
		return CTL_OK;
	}
}

static int take_option(struct ctl *ctl, int option, int *ret_mode)
{
	switch (option) {
	case OPTION_SOCKET:
		ctl->socket = optarg;
		return CTL_OK;
	case OPTION_TENANT:
		ctl->tenant = optarg;
		return CTL_OK;
	case OPTION_TOKEN_FILE:
		ctl->token_file = optarg;
		return CTL_OK;
	case OPTION_TIMEOUT:
		return take_number("--timeout-ms", optarg, 1, TIMEOUT_MS_MAX, &ctl->timeout_ms);
	case OPTION_JSON:
		ctl->json = true;
		return CTL_OK;
	case OPTION_NO_COLOR:
		ctl->colour = false;
		return CTL_OK;
	case 'h':
	case 'V':
		*ret_mode = option;
		return CTL_OK;
	case 'c':
		return take_command_option(ctl, CTL_COUNT);
	case 'n':
		return take_command_option(ctl, CTL_FRAMES);
	default:
		if (option >= OPTION_FIRST_OF_COMMANDS)
			return take_command_option(ctl, 1u << (option - OPTION_FIRST_OF_COMMANDS));
		return ctl_fail(CTL_USAGE, "the option is not known or lacks its value; see riptidectl --help");
	}
}

static bool terminal_has_colours(void)
{
	const char *kind = getenv("TERM"), *none = getenv("NO_COLOR");

	return !(none && *none) && kind && strcmp(kind, "dumb") != 0;
}

static const char *environment_or(const char *name, const char *otherwise)
{
	const char *value = getenv(name);

	return value && *value ? value : otherwise;
}

int ctl_parse(struct ctl *ctl, int argc, char **argv, int *ret_mode)
{
	int option, status = CTL_OK;

	*ret_mode = 0;
	*ctl = (struct ctl){
		.socket = environment_or("RIPTIDE_SOCKET", "/run/riptide/control.sock"),
		.tenant = environment_or("RIPTIDE_TENANT", "default"),
		.timeout_ms = TIMEOUT_MS,
		.watch_ms = WATCH_MS,
		.count = PINGS,
		.tail = TAIL,
		.sort = 'h',
		.to_terminal = isatty(STDOUT_FILENO),
	};
	ctl->colour = ctl->to_terminal && terminal_has_colours();
	/* getopt's own messages would print what was typed as it is. */
	opterr = 0;
	while (status == CTL_OK && (option = getopt_long(argc, argv, "c:n:hV", long_options, NULL)) != -1)
		status = take_option(ctl, option, ret_mode);
	ctl->arguments = argv + optind;
	ctl->argument_count = (size_t)(argc - optind);
	return status;
}

const char *ctl_first_untaken(const struct ctl *ctl, unsigned int taken)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (ctl->given & ~taken & 1u << i)
			return names[i];
	return NULL;
}
